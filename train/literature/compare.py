"""`instructcell compare`: every system on the same columns, with the same figures, each kept as soon as it is measured.

compare.yaml -> columns (training and test cells, checked for leaks) x systems -> one JSON each -> docs/comparison.md
"""

from __future__ import annotations

import hashlib
import json
import re
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import psutil

from instructcell.errors import ConfigError, InstructCellError
from instructcell.literature.neighbours import require_two_classes
from train.datasets import LabelledCells
from train.evaluation import peers
from train.evaluation.bench import Bench
from train.evaluation.tasks import Target
from train.literature import protocol
from train.literature.cells import Cells, join, some
from train.literature.recipe import load_literature_recipe, recipe_path, settings_for, to_record
from train.literature.systems import SYSTEMS, System
from train.recipe import read_settings

ANSWERS = ("cell_type", "response")
FORMAT = 1  # of the kept figures


@dataclass(frozen=True)
class Column:
    """The test cells of one file and what systems learn from: a column of the table."""

    name: str
    target: Target
    answer: str = "cell_type"  # or "response" to a drug

    def __post_init__(self) -> None:
        if self.answer not in ANSWERS:
            raise ConfigError(f"column {self.name}: answer must be one of {', '.join(ANSWERS)}, got {self.answer!r}")


@dataclass(frozen=True)
class Entry:
    """A row of the table: a recipe of the literature, or a system that needs none."""

    name: str
    recipe: str = ""
    system: str = ""
    settings: dict[str, Any] = field(default_factory=dict)  # that differ from the recipe's

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
        Python of the peers' environment; None: CellTypist and scANVI are not run.
    """

    recipe: CompareRecipe
    bench: Bench
    folder: Path
    say: Callable[[str], None] = print
    peers: Path | None = None

    def run(self) -> dict[str, Any]:
        """The whole table: {"columns": ..., "cells": {system: {column: figures}}}."""
        names = [entry.name for entry in self.recipe.systems] + (list(peers.ANNOTATORS) if self.peers else [])
        table: dict[str, dict[str, Any]] = {name: {} for name in names}
        total, done = len(names) * len(self.recipe.columns), 0
        described = {}
        for column in self.recipe.columns:
            try:
                known, unseen = split_of(self.bench, column, self.recipe)
            except InstructCellError as error:
                self.say(f"{column.name}: {error}")
                described[column.name] = {"error": str(error)}
                done += len(names)
                continue
            described[column.name] = _describe(column, known, unseen)
            for entry in self.recipe.systems:
                done += 1
                self.say(f"[{done}/{total}] {column.name}: {entry.name}")
                table[entry.name][column.name] = self._cell(entry, column, known, unseen)
            if self.peers:
                for name, found in self._peers(column, known, unseen).items():
                    done += 1
                    table[name][column.name] = found
        return {"checkpoint": self.bench.checkpoint.hash, "columns": described, "cells": table}

    def _cell(self, entry: Entry, column: Column, known: Cells, unseen: Cells) -> dict[str, Any]:
        system, settings = settings_of_entry(entry, small=self.recipe.small)
        key = self._key([system, to_record(settings)], column, known, unseen)
        path = self.folder / "cells" / f"{_slug(entry.name)}--{_slug(column.name)}-{key}.json"
        kept = _kept(path)
        if kept is not None:
            return kept
        work = self.folder / "fitted" / key
        try:
            found = measure_system(self._system(system, settings, work), known, unseen)
        except InstructCellError as error:  # this cell stays open; the others go on
            self.say(f"  {entry.name}: {error}")
            return {"error": str(error)}
        if column.answer == "response":
            found["patients"] = protocol.by_group(unseen.labels, np.array(found["answers"]), unseen.groups)
        _keep(path, found)
        self.say(f"  accuracy {found['accuracy']:.3f}, macro F1 {found['f1']:.3f}")
        return found

    def _system(self, system: str, settings: Any, work: Path) -> System:
        made = SYSTEMS[system](settings, work, self.folder, self.recipe.seed)
        if system == "instructcell" and settings.checkpoint == self.recipe.checkpoint:
            made.checkpoint = self.bench.checkpoint  # type: ignore[attr-defined]
        return made

    def _peers(self, column: Column, known: Cells, unseen: Cells) -> dict[str, Any]:
        key = self._key(["peers"], column, known, unseen)
        path = self.folder / "cells" / f"peers--{_slug(column.name)}-{key}.json"
        kept = _kept(path)
        if kept is None:
            assert self.peers is not None
            self.say(f"{column.name}: {', '.join(peers.ANNOTATORS)}")
            said = peers.annotate(self.peers, known.counts, known.labels, unseen.counts, known.genes)
            kept = {
                name: {**protocol.measure(unseen.labels, answers), "cells": len(unseen)}
                for name, answers in said.items()
            }
            _keep(path, kept)
        return kept

    def _key(self, what: Any, column: Column, known: Cells, unseen: Cells) -> str:
        digest = hashlib.sha256()
        said = [FORMAT, what, asdict(column), self.recipe.seed, self.bench.checkpoint.hash, known.genes]
        digest.update(json.dumps(said, sort_keys=True, default=str).encode())
        for cells in (known, unseen):
            digest.update(cells.counts.data.tobytes() + cells.counts.indices.tobytes())
            digest.update("\n".join(map(str, cells.labels)).encode())
        return digest.hexdigest()[:16]


def settings_of_entry(entry: Entry, *, small: bool) -> tuple[str, Any]:
    """The system of a row and its settings."""
    if entry.system:
        return entry.system, settings_for(entry.system, entry.settings, entry.name)
    recipe = load_literature_recipe(entry.recipe)
    content = {**recipe.settings, **(recipe.small if small else {}), **entry.settings}
    return recipe.system, settings_for(recipe.system, content, entry.name)


def measure_system(system: System, known: Cells, unseen: Cells) -> dict[str, Any]:
    """Fit, predict, and the figures with time and memory."""
    with Meter() as fitting:
        system.fit(known)
    with Meter() as predicting:
        answers = system.predict(unseen)
    seeds = len(answers)
    return {
        **protocol.measure(unseen.labels, answers),
        "cells": len(unseen),
        "fit_seconds": round(fitting.seconds, 2),
        "seconds_per_1000": round(predicting.seconds / len(unseen) * 1000 / seeds, 2),
        "peak_mb": round(predicting.peak_mb, 1),
        "answers": [str(answer) for answer in answers[0]],
    }


class Meter:
    """Seconds, and the largest growth of this process's memory, of what runs inside."""

    def __enter__(self) -> Meter:
        self._process, self._ended = psutil.Process(), threading.Event()
        self._before = self._most = self._process.memory_info().rss
        self._watch = threading.Thread(target=self._look, daemon=True)
        self._watch.start()
        self._started = time.perf_counter()
        return self

    def __exit__(self, *_: object) -> None:
        self.seconds = time.perf_counter() - self._started
        self._ended.set()
        self._watch.join()
        self._most = max(self._most, self._process.memory_info().rss)
        self.peak_mb = (self._most - self._before) / 1024**2

    def _look(self) -> None:
        while not self._ended.wait(0.05):
            self._most = max(self._most, self._process.memory_info().rss)


def split_of(bench: Bench, column: Column, recipe: CompareRecipe) -> tuple[Cells, Cells]:
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
    return some(known, recipe.train_cells, recipe.seed), some(unseen, recipe.test_cells, recipe.seed)


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
    names = np.array([f"{cells.name}-{row}" for row in rows])
    counts = cells.counts[rows][:, measured].tocsr()
    order = np.argsort(genes[measured])
    return Cells(
        counts[:, order].tocsr(), tuple(genes[measured][order]), labels[rows], cells.species[rows], names,
        groups[rows].astype(str), {},
    )  # fmt: skip


def _describe(column: Column, known: Cells, unseen: Cells) -> dict[str, Any]:
    return {
        "file": column.target.file,
        "split": column.target.split,
        "answer": column.answer,
        "training_cells": len(known),
        "test_cells": len(unseen),
        "types": len(np.unique(unseen.labels)),
        "genes": len(known.genes),
    }


def patterns(table: Mapping[str, Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Whether patterns that were published re-appear: mean accuracies over the columns that both sides have."""
    asked = (
        (
            "the fusion is at least as good as its better view",
            "scMPT",
            ("scMPT text view", "scMPT expression view"),
            0.0,
        ),
        ("hashed gene names cost little", "GenePT-s hashed", ("GenePT-s",), -0.1),
        ("the language model helps the gene reader", "scReader", ("scReader without LM (GenePT)",), 0.0),
        ("shuffling all genes costs nearly everything", "GenePT-s shuffled", ("GenePT-s",), None),
    )
    found = []
    for claim, first, others, least in asked:
        rows = [table.get(name, {}) for name in (first, *others)]
        columns = [c for c in rows[0] if all("accuracy" in row.get(c, {}) for row in rows)]
        if not columns:
            continue
        ours, *theirs = (float(np.mean([row[c]["accuracy"] for c in columns])) for row in rows)
        best = max(theirs)
        if least is None:
            chance = [table.get("majority", {}).get(c, {}).get("accuracy", 0.0) for c in columns]
            held = ours <= float(np.mean(chance)) + 0.25 * max(best - float(np.mean(chance)), 0.0)
        else:
            held = ours >= best + least
        found.append(
            {
                "claim": claim,
                "value": round(ours, 4),
                "against": round(best, 4),
                "columns": len(columns),
                "held": bool(held),
            }
        )
    return found


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


__all__ = ["Column", "CompareRecipe", "Comparison", "Entry", "Meter", "load_compare", "patterns"]
