"""`instructcell compare`: every system on the same columns, with the same figures, each kept as soon as it is measured.

compare.yaml -> columns (training and test cells, checked for leaks) x systems -> one JSON each -> docs/comparison.md
"""

from __future__ import annotations

import hashlib
import json
import re
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from instructcell.errors import ConfigError, InstructCellError
from instructcell.literature.neighbours import cluster_agreement, require_two_classes
from train.datasets import LabelledCells
from train.evaluation import peers
from train.evaluation.bench import Bench
from train.evaluation.tasks import Target
from train.literature import protocol
from train.literature.cells import Cells, join, some
from train.literature.costs import Job, measure_cost
from train.literature.interpret import Interpretation, interpret
from train.literature.recipe import load_literature_recipe, recipe_path, settings_for, to_record
from train.literature.systems import SYSTEMS, System
from train.literature.written import Writing, judge_writing
from train.recipe import read_settings

FORMAT = 2  # of the kept figures
NOT_YET = "not measured yet"
PEERS = {  # name of the row: peer of `run_peer.py`, its labels and its time of training
    "CellTypist": ("CellTypist", "labels", "train_seconds"),
    "scVI, 10-NN": ("scANVI", "scvi_labels", "scvi_seconds"),
    "scANVI": ("scANVI", "labels", "train_seconds"),
}


@dataclass(frozen=True)
class Column:
    """The test cells of one file and what systems learn from: a column of the table."""

    name: str
    target: Target
    answer: str = "cell_type"  # or "response" to a drug, or an obs column of the file, such as "condition"


@dataclass(frozen=True)
class Entry:
    """A row of the table: a recipe of the literature, or a system that needs none."""

    name: str
    recipe: str = ""
    system: str = ""
    settings: dict[str, Any] = field(default_factory=dict)  # that differ from the recipe's
    columns: tuple[str, ...] = ()  # names of the columns where it is measured; (): all
    all_cells: bool = False  # it learns from every training cell of a column, not from `train_cells` of them

    def __post_init__(self) -> None:
        if bool(self.recipe) == bool(self.system):
            raise ConfigError(f"system {self.name}: name either a recipe or a system")


@dataclass(frozen=True)
class CompareRecipe:
    """What is compared."""

    columns: tuple[Column, ...]
    systems: tuple[Entry, ...]
    recipe: str = "mini"
    checkpoint: str = "mini"
    small: bool = True
    train_cells: int = 1500
    test_cells: int = 200
    seed: int = 0
    cost_column: str = ""  # where time and memory are measured; "": nowhere
    threads: int = 2  # of the processes that are timed
    interpretation: Interpretation | None = None
    writing: Writing | None = None
    maps: tuple[str, ...] = ()  # systems whose view of the test cells of `cost_column` is drawn

    def __post_init__(self) -> None:
        names = [column.name for column in self.columns]
        asked = [(f"system {entry.name}", name) for entry in self.systems for name in entry.columns]
        asked += [("cost_column", self.cost_column)] if self.cost_column else []
        asked += [("interpretation", self.interpretation.column)] if self.interpretation else []
        asked += [("writing", self.writing.column)] if self.writing else []
        rows = [entry.name for entry in self.systems]
        for name in self.maps:
            if name not in rows or not self.cost_column:
                raise ConfigError(f"maps: {name!r} needs a system of that name and a cost_column; known: {rows}")
        for where, name in asked:
            if name not in names:
                raise ConfigError(f"{where}: there is no column {name!r}; choose one of {', '.join(names)}")


def load_compare(name_or_path: str | Path) -> CompareRecipe:
    """Read the YAML file of a comparison; ConfigError where it cannot be used."""
    path = recipe_path(name_or_path)
    if not path.is_file():
        raise ConfigError(f"no comparison at {path}; give a YAML file, or `compare` for the one that ships")
    return read_settings(CompareRecipe, path)


@dataclass
class Comparison:
    """A run of the table; cells that were measured before are read, not measured again.

    Attributes
    ----------
    folder
        Where the figures lie, one JSON each, with gene vectors and what systems fitted.
    peers
        Python of the peers' environment; None: CellTypist, scVI and scANVI are not run, only what is kept is shown.
    kept_only
        Whether only what was measured before is put together and nothing is measured.
    """

    recipe: CompareRecipe
    bench: Bench
    folder: Path
    say: Callable[[str], None] = print
    peers: Path | None = None
    kept_only: bool = False

    def run(self) -> dict[str, Any]:
        """The whole table: columns, cells {system: {column: figures}}, costs {system: ...} and the rest."""
        recipe = self.recipe
        table: dict[str, dict[str, Any]] = {entry.name: {} for entry in recipe.systems}
        described, splits = self._splits()
        for place, entry in enumerate(recipe.systems, start=1):
            for column in recipe.columns:
                if column.name in splits and (not entry.columns or column.name in entry.columns):
                    table[entry.name][column.name] = self._cell(place, entry, column, splits[column.name])
        for column in recipe.columns:
            if column.name in splits:
                for name, found in self._peers(column, splits[column.name]).items():
                    table.setdefault(name, {})[column.name] = found
        result = {"checkpoint": self.bench.checkpoint.hash, "columns": described, "cells": table}
        if recipe.cost_column in splits:
            result["costs"] = self._costs(splits[recipe.cost_column])
            result["maps"] = self._maps(splits[recipe.cost_column])
        if recipe.interpretation and recipe.interpretation.column in splits:
            result["interpretation"] = self._interpretation(splits[recipe.interpretation.column])
        if recipe.writing and recipe.writing.column in splits:
            result["writing"] = self._writing(splits[recipe.writing.column])
        return result

    def _splits(self) -> tuple[dict[str, Any], dict[str, Split]]:
        """What is said of each column, and the cells of those that can be used."""
        described, splits = {}, {}
        for column in self.recipe.columns:
            try:
                splits[column.name] = split = split_of(self.bench, column, self.recipe)
                described[column.name] = _describe(column, split)
            except InstructCellError as error:
                self.say(f"{column.name}: {error}")
                described[column.name] = {"error": str(error)}
        return described, splits

    def _cell(self, place: int, entry: Entry, column: Column, split: Split) -> dict[str, Any]:
        known, unseen = split.all_known if entry.all_cells else split.known, split.unseen
        system, settings, key = self._keyed(entry, known, unseen)

        def measured() -> dict[str, Any]:
            made = self._system(system, settings, self._fitted(key))
            found = measure_system(made, known, unseen, clusters=column.answer == "cell_type")
            if column.answer == "response":
                found["patients"] = protocol.by_group(unseen.labels, np.array(found["answers"]), unseen.groups)
            self.say(f"  accuracy {found['accuracy']:.3f}, macro F1 {found['f1']:.3f}")
            return found

        path = self.folder / "cells" / f"{_slug(entry.name)}--{_slug(column.name)}-{key}.json"
        return self._once(path, f"[{place}/{len(self.recipe.systems)}] {entry.name}: {column.name}", measured)

    def _once(self, path: Path, what: str, measure: Callable[[], dict[str, Any]]) -> dict[str, Any]:
        """What is kept at `path`, else what `measure` finds, which is then kept; "error" where it could not be.

        What failed is left open and tried again next time; the others go on.
        """
        kept = _kept(path)
        if kept is not None:
            return kept
        if self.kept_only:
            return {"error": NOT_YET}
        self.say(what)
        try:
            found = measure()
        except InstructCellError as error:
            self.say(f"  {error}")
            return {"error": str(error)}
        _keep(path, found)
        return found

    def _keyed(self, entry: Entry, known: Cells, unseen: Cells) -> tuple[str, Any, str]:
        """The system of a row, its settings, and the key of what it finds on these cells."""
        system, settings = settings_of_entry(entry, small=self.recipe.small)
        ours = [self.bench.checkpoint.calibration] if system == "instructcell" else []  # which its answers depend on
        return system, settings, self._key([system, to_record(settings), *ours], known, unseen)

    def _system(self, system: str, settings: Any, folder: Path) -> System:
        made = SYSTEMS[system](settings, folder, self.bench.runs, self.recipe.seed)
        if system == "instructcell" and settings.checkpoint == self.recipe.checkpoint:
            made.checkpoint = self.bench.checkpoint  # type: ignore[attr-defined]
        return made

    def _fitted(self, key: str) -> Path:
        return self.folder / "fitted" / key

    def _costs(self, split: Split) -> dict[str, Any]:
        """Of every row that is fitted here; peers say their own in their cells of the table."""
        found = {}
        for entry in self.recipe.systems:
            if entry.all_cells or (entry.columns and self.recipe.cost_column not in entry.columns):
                continue
            system, settings, key = self._keyed(entry, split.known, split.unseen)
            job = Job(
                system, settings, self._fitted(key), self.bench.runs, split.known, split.unseen, self.recipe.seed,
                self.recipe.threads,
            )  # fmt: skip
            path = self.folder / "costs" / f"{_slug(entry.name)}-{key}-{self.recipe.threads}.json"
            found[entry.name] = self._once(path, f"time and memory: {entry.name}", partial(measure_cost, job))
        return {name: row for name, row in found.items() if "error" not in row}

    def _maps(self, split: Split) -> dict[str, Any]:
        """Two coordinates of every test cell by UMAP of what a system sees, learned or as its encoder gives it."""
        found = {}
        rows = {entry.name: entry for entry in self.recipe.systems}
        for entry in (rows[name] for name in self.recipe.maps):
            system, settings, key = self._keyed(entry, split.known, split.unseen)
            made = self._system(system, settings, self._fitted(key))
            path = self.folder / "maps" / f"{_slug(entry.name)}-{key}.json"
            found[entry.name] = self._once(path, f"map: {entry.name}", partial(map_of_system, made, split))
        return {name: row for name, row in found.items() if "error" not in row}

    def _interpretation(self, split: Split) -> dict[str, Any]:
        asked = self.recipe.interpretation
        assert asked is not None
        key = self._key(["interpretation", asdict(asked)], split.known, split.unseen)
        path = self.folder / "interpretation" / f"{_slug(asked.column)}-{key}.json"
        measure = partial(interpret, asked, split.known, split.unseen, self.bench.runs, say=self.say)
        return self._once(path, f"genes and markers: {asked.column}", measure)

    def _writing(self, split: Split) -> dict[str, Any]:
        asked = self.recipe.writing
        assert asked is not None
        entry = Entry("writing", recipe="emcell", settings=asked.settings)
        _, settings = settings_of_entry(entry, small=self.recipe.small)
        key = self._key(["writing", to_record(settings), asked.least_cells, asked.seed], split.known, split.unseen)
        path = self.folder / "writing" / f"{_slug(asked.column)}-{key}.json"
        measure = partial(
            judge_writing, asked, settings, split.known, split.unseen, self.bench.checkpoint, self._fitted(key),
            self.bench.runs, say=self.say,
        )  # fmt: skip
        return self._once(path, f"cells that are written: {asked.column}", measure)

    def _peers(self, column: Column, split: Split) -> dict[str, Any]:
        """CellTypist, scVI with the nearest cells of its latent space, and scANVI; else what is kept of them."""
        known, unseen = split.known, split.unseen

        def measured() -> dict[str, Any]:
            assert self.peers is not None
            said = peers.ask(self.peers, known.counts, known.labels, unseen.counts, known.genes)
            rows = {name: _peer(said[peer], labels, fit, unseen) for name, (peer, labels, fit) in PEERS.items()}
            if column.answer == "response":
                for row in rows.values():
                    row["patients"] = protocol.by_group(unseen.labels, np.array(row["answers"]), unseen.groups)
            return rows

        path = self.folder / "cells" / f"peers--{_slug(column.name)}-{self._key(['peers'], known, unseen)}.json"
        if self.peers is None and _kept(path) is None:
            return {}
        found = self._once(path, f"{column.name}: {', '.join(PEERS)}", measured)
        return {name: found if "error" in found else found[name] for name in PEERS}

    def _key(self, what: Any, known: Cells, unseen: Cells) -> str:
        digest = hashlib.sha256()
        said = [FORMAT, what, self.recipe.seed, self.bench.checkpoint.hash, known.genes]
        digest.update(json.dumps(said, sort_keys=True, default=str).encode())
        for cells in (known, unseen):
            digest.update(cells.counts.data.tobytes() + cells.counts.indices.tobytes())
            digest.update("\n".join(map(str, cells.labels)).encode())
        return digest.hexdigest()[:16]


def _peer(said: Mapping[str, Any], labels: str, fit: str, unseen: Cells) -> dict[str, Any]:
    answers = np.array(said[labels])
    found = {**protocol.measure(unseen.labels, answers), "cells": len(unseen), "answers": answers.tolist()}
    found |= {"fit_seconds": round(said[fit], 1), "peak_mb": round(said["peak_mb"], 1)}
    return found


def settings_of_entry(entry: Entry, *, small: bool) -> tuple[str, Any]:
    """The system of a row and its settings."""
    if entry.system:
        return entry.system, settings_for(entry.system, entry.settings, entry.name)
    recipe = load_literature_recipe(entry.recipe)
    content = {**recipe.settings, **(recipe.small if small else {}), **entry.settings}
    return recipe.system, settings_for(recipe.system, content, entry.name)


def measure_system(system: System, known: Cells, unseen: Cells, *, clusters: bool = False) -> dict[str, Any]:
    """Fit, predict, and the figures; with `clusters` also whether k-means on the encoder's view finds the types.

    `fit_seconds` are of all cores together, with those that vectors cost which another system had made before.
    """
    started = time.process_time()
    system.fit(known)
    spent = _spent(system.folder, time.process_time() - started + system.spared)
    answers = system.predict(unseen)
    found = {
        **protocol.measure(unseen.labels, answers),
        "cells": len(unseen),
        "learned_from": min(len(known), system.settings.max_cells or len(known)),
        "fit_seconds": round(spent, 2),
        "answers": [str(answer) for answer in answers[0]],
    }
    vectors = system.vectors(unseen) if clusters else None
    if vectors is not None:
        agreement = cluster_agreement(vectors, unseen.labels, system.seed)
        found["clusters"] = {name: round(value, 4) for name, value in agreement.items()}
    return found


def map_of_system(made: System, split: Split) -> dict[str, Any]:
    """Where the test cells stand on a map of what a system learned to see, or sees before it learns.

    Raises
    ------
    ConfigError
        The system has no view of cells.
    """
    made.fit(split.known)
    view = made.learned(split.unseen)
    view = made.vectors(split.unseen) if view is None else view
    if view is None:
        raise ConfigError(f"maps: a system of kind {made.name!r} has no view of cells that can be drawn")
    return {"xy": map_of(view, made.seed), "labels": split.unseen.labels.tolist()}


def map_of(view: np.ndarray, seed: int) -> list[list[float]]:
    """UMAP of embeddings [N, D], cosine: [N, 2]."""
    from umap import UMAP

    neighbours = min(15, len(view) - 1)
    made = UMAP(n_neighbors=neighbours, metric="cosine", init="random", random_state=seed, n_jobs=1).fit_transform(view)
    return [[round(float(x), 3), round(float(y), 3)] for x, y in made]


def _spent(folder: Path, seconds: float) -> float:
    """The most seconds that a fit in this folder took: a run that was interrupted finds its system fitted."""
    path = folder / "fit_seconds.json"
    kept = _kept(path)
    if kept is not None and kept["seconds"] >= seconds:
        return float(kept["seconds"])
    _keep(path, {"seconds": seconds})
    return seconds


@dataclass(frozen=True)
class Split:
    """The cells of a column: what systems learn from, all that there would be, and the test cells."""

    known: Cells
    all_known: Cells
    unseen: Cells


def split_of(bench: Bench, column: Column, recipe: CompareRecipe) -> Split:
    """Training and test cells of a column over the genes that all its files measured.

    Test cells of a type that no training cell has are left out, for every system.

    Raises
    ------
    ConfigError
        A test cell, or its group, was trained on.
    LabelError
        Training or test cells have one type only.
    """
    target = column.target
    tested = bench.tested(target)
    sources = [bench.datasets[name] for name in target.train_on or (target.file,)]
    known = join([_cells(bench, cells, cells.training_rows, column) for cells in sources])
    unseen = _cells(bench, bench.datasets[target.file], tested, column)
    genes = sorted(set(known.genes) & set(unseen.genes))
    known, unseen = known.on_genes(genes), unseen.on_genes(genes)
    require_two_classes(known.labels, f"the training cells of '{column.name}'")
    unseen = unseen[np.flatnonzero(np.isin(unseen.labels, known.labels))]
    require_two_classes(unseen.labels, f"the test cells of '{column.name}'")
    return Split(some(known, recipe.train_cells, recipe.seed), known, some(unseen, recipe.test_cells, recipe.seed))


def _cells(bench: Bench, cells: LabelledCells, rows: np.ndarray, column: Column) -> Cells:
    """Some cells of a file of the bench; their groups say "patient / drug" where a response is asked."""
    measured = np.flatnonzero(cells.measured)
    genes = np.array(bench.checkpoint.processor.genes)
    rows = rows[~np.isin(cells.dataset_label[rows], cells.entry.ignore_labels)]
    labels, groups = cells.label, np.full(len(cells.label), "")
    donor = bench.obs(cells.name)["donor"].astype(str).to_numpy() if "donor" in bench.obs(cells.name) else groups
    if column.answer == "response":
        if not cells.drugs:
            raise ConfigError(f"column {column.name}: {cells.name} has no drug responses in the recipe")
        drugs, labels = cells.drugs[0]
        groups = np.array([f"{d} / {drug}" for d, drug in zip(donor, drugs, strict=True)])
        rows = rows[labels[rows] != ""]
    elif column.answer != "cell_type":
        obs = bench.obs(cells.name)
        if column.answer not in obs:
            raise ConfigError(
                f"column {column.name}: {cells.name} has no column {column.answer!r}; expected cell_type, response or "
                f"one of {', '.join(map(str, obs.columns))}"
            )
        labels = obs[column.answer].astype(str).to_numpy()
    names = np.array([f"{cells.name}-{row}" for row in rows])
    counts = cells.counts[rows][:, measured].tocsr()
    order = np.argsort(genes[measured])
    return Cells(
        counts[:, order].tocsr(), tuple(genes[measured][order]), labels[rows], cells.species[rows], names,
        groups[rows].astype(str), {},
    )  # fmt: skip


def _describe(column: Column, split: Split) -> dict[str, Any]:
    return {
        "file": column.target.file,
        "split": column.target.split,
        "answer": column.answer,
        "training_cells": len(split.known),
        "all_training_cells": len(split.all_known),
        "test_cells": len(split.unseen),
        "types": len(np.unique(split.unseen.labels)),
        "genes": len(split.known.genes),
    }


def patterns(table: Mapping[str, Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Whether patterns that were published (scMPT 2025, scReader 2024) re-appear in the mean accuracy over the columns.

    A system `keeps` a share of what another has above chance (the accuracy of the most frequent type), or is to keep no
    more than a share: "costs little" keeps at least 0.8, "costs nearly everything" at most 0.25.
    """
    best_view = ("scMPT text view", "scMPT expression view")
    plain, alone = ("GenePT-s",), ("scReader without LM (GenePT)",)
    asked: tuple[tuple[str, str, tuple[str, ...], float | None, float | None], ...] = (
        ("the fusion is at least as good as its better view", "scMPT", best_view, 1.0, None),
        ("hashed gene names cost little", "GenePT-s hashed", plain, 0.8, None),
        ("names hashed anew in every cell cost nearly everything", "GenePT-s hashed per instance", plain, None, 0.25),
        ("shuffling all genes costs nearly everything", "GenePT-s shuffled", plain, None, 0.25),
        ("shuffling the genes in context costs some", "GenePT-s shuffled in context", plain, 0.25, 1.0),
        ("the first tenth of the genes does nearly as well", "GenePT-s first tenth", plain, 0.8, None),
        ("the language model helps the gene reader", "scReader", alone, 1.0, None),
    )
    found = []
    for claim, first, others, least, most in asked:
        rows = [table.get(name, {}) for name in (first, *others)]
        columns = [c for c in rows[0] if all("accuracy" in row.get(c, {}) for row in rows)]
        if not columns:
            continue
        ours, *theirs = (_mean_accuracy(row, columns) for row in rows)
        best, chance = max(theirs), _mean_accuracy(table.get("majority", {}), columns)
        room = max(best - chance, 0.0)
        held = (least is None or ours >= chance + least * room) and (most is None or ours <= chance + most * room)
        figures = {"value": round(ours, 4), "against": round(best, 4), "chance": round(chance, 4)}
        found.append({"claim": claim, **figures, "columns": len(columns), "held": bool(held)})
    return found


def _mean_accuracy(row: Mapping[str, Any], columns: Sequence[str]) -> float:
    return float(np.mean([row.get(column, {}).get("accuracy", 0.0) for column in columns]))


def _slug(name: str) -> str:
    return re.sub(r"[^a-z0-9]+", "_", name.lower()).strip("_")


def _kept(path: Path) -> dict[str, Any] | None:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, json.JSONDecodeError):  # not measured, or cut off while it was written
        return None


def _keep(path: Path, found: Mapping[str, Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(".partial")
    partial.write_text(json.dumps(found), encoding="utf-8")
    partial.replace(path)


__all__ = ["Column", "CompareRecipe", "Comparison", "Entry", "Split", "load_compare", "patterns"]
