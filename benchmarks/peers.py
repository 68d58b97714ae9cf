"""InstructCell beside its peers in one run, on the same cells.

    python benchmarks/peers.py                       (or `make bench-peers`)
    python benchmarks/peers.py --data data --scvi

Annotation: the cells of a donor nobody was trained on, by `instructcell annotate` and by CellTypist trained on the
donors that the recipe trains on (and, as published comparisons do, on all donors of the file). Pseudo-cells, with
--scvi: the sorted blood populations by InstructCell and by scVI sampled from its prior, in the evaluation's metrics.

The peers live in .venv-peers, which this script makes; `train/evaluation/run_peer.py` runs there.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from anndata import AnnData

from instructcell import tools
from instructcell.cells import read
from instructcell.checkpoint import Checkpoint, load_checkpoint
from train import metrics
from train.datasets import find_data, hold_out, label_map
from train.evaluation import generation, peers
from train.evaluation.bench import Bench
from train.evaluation.tasks import load_task
from train.recipe import Recipe, load_recipe

HERE = Path(__file__).resolve().parent
ENVIRONMENT = HERE.parent / ".venv-peers"
RESULTS = HERE / "results" / "peers.json"
REPEATS = 3  # of the timing; the median counts
KNOWN, UNSEEN = "pancreas_baron_human_donors234", "pancreas_baron_human_donor1"


@dataclass(frozen=True)
class Answers:
    """What one tool said of the unseen cells."""

    tool: str
    trained_on: str
    labels: np.ndarray  # [N]
    seconds: float  # to annotate, from counts in memory
    train_seconds: float | None = None
    chooses_among: str = ""
    file_seconds: float | None = None  # with reading the file and writing it again

    def judge(self, truth: np.ndarray) -> dict[str, Any]:
        """Accuracy and macro-F1 with 95 % intervals, and speed."""
        return {
            "tool": self.tool,
            "trained_on": self.trained_on,
            "chooses_among": self.chooses_among,
            "accuracy": metrics.bootstrap(metrics.accuracy, truth, self.labels).to_dict(),
            "macro_f1": metrics.bootstrap(metrics.macro_f1, truth, self.labels).to_dict(),
            "cells_per_second": round(len(truth) / self.seconds, 1),
            "seconds": round(self.seconds, 2),
            "train_seconds": None if self.train_seconds is None else round(self.train_seconds, 1),
        }


# ---- annotation


def labelled(data: Path, file: str) -> AnnData:
    """The cells of a file with raw counts in X and the names of the label map in obs["label"]."""
    adata, names = read(data / f"{file}.h5ad"), label_map(file)
    adata.obs["label"] = [names[label][0] for label in adata.obs["cell_type"].astype(str)]
    return adata


def compare_annotation(checkpoint: Checkpoint, recipe: Recipe, data: Path, n_cells: int | None) -> dict[str, Any]:
    """Everyone on the cells of the unseen donor; with `n_cells` on some of them, and trained on as few."""
    known, unseen = some(labelled(data, KNOWN), n_cells), some(labelled(data, UNSEEN), n_cells)
    trained = known[~hold_out(known.obs, recipe.entry(KNOWN), recipe.seed)].copy()
    genes = np.isin(trained.var_names, checkpoint.processor.genes)
    donors = {
        name: ", ".join(sorted(cells.obs["donor"].unique())) for name, cells in (("all", known), ("some", trained))
    }
    with tempfile.TemporaryDirectory(prefix="instructcell-peers-") as name:
        folder = Path(name)
        answers = [
            run_celltypist(trained, unseen, donors["some"], folder),
            run_celltypist(trained[:, genes], unseen[:, unseen.var_names.isin(trained.var_names[genes])],
                           f"{donors['some']}; only the genes InstructCell reads", folder),
            run_celltypist(known, unseen, donors["all"], folder),
        ]  # fmt: skip
    options = sorted(set(trained.obs["label"]))
    answers.append(run_instructcell(checkpoint, unseen, None))
    answers.append(run_instructcell(checkpoint, unseen, options))
    truth = unseen.obs["label"].to_numpy(str)
    return {
        "file": UNSEEN,
        "cells": unseen.n_obs,
        "genes": unseen.n_vars,
        "types": len(set(truth)),
        "types_in_the_peers_training_cells": len(options),
        "rows": [answer.judge(truth) for answer in answers],
    }


def run_celltypist(known: AnnData, unseen: AnnData, donors: str, folder: Path) -> Answers:
    """CellTypist trained on `known`, in its own environment."""
    train, test, out = folder / "train.h5ad", folder / "test.h5ad", folder / "out.json"
    for adata, path in ((known, train), (unseen, test)):
        AnnData(adata.X, obs=adata.obs[["label"]], var=adata.var[[]]).write_h5ad(path, compression="gzip")
    run_peer("celltypist", train, test, out, "--repeats", str(REPEATS))
    found = json.loads(out.read_text(encoding="utf-8"))
    return Answers(
        f"CellTypist {found['version']}",
        donors,
        np.array(found["labels"]),
        found["annotate_seconds"],
        found["train_seconds"],
        f"{known.obs['label'].nunique()} types of its training cells",
        found["file_seconds"],
    )


def run_instructcell(checkpoint: Checkpoint, unseen: AnnData, options: list[str] | None) -> Answers:
    """`instructcell annotate`, free or among given labels; the file's own annotation is not there to be seen."""
    seconds = []
    for _ in range(REPEATS):
        adata = AnnData(unseen.X.copy(), obs=unseen.obs[[]].copy(), var=unseen.var[[]].copy())
        started = time.perf_counter()
        result = tools.annotate(adata, checkpoint=checkpoint, labels=options)
        seconds.append(time.perf_counter() - started)
    among = f"{len(options)} types, given as options" if options else f"all {len(checkpoint.labels)} labels, or unknown"
    return Answers(
        f"InstructCell {checkpoint.path.name}",
        "the recipe's training cells",
        result.table["cell_type"].to_numpy(str),
        statistics.median(seconds),
        chooses_among=among,
    )


def some(adata: AnnData, n_cells: int | None) -> AnnData:
    """A seeded sample, for a quick trial."""
    if n_cells is None or n_cells >= adata.n_obs:
        return adata
    return adata[np.sort(np.random.default_rng(0).choice(adata.n_obs, n_cells, replace=False))].copy()


# ---- pseudo-cells


def compare_generation(checkpoint: Checkpoint, recipe: Recipe, data: Path, epochs: int, seed: int) -> dict[str, Any]:
    """The evaluation's own comparison, with scVI's pseudo-cells in the same space."""
    _, task = load_task("generation")
    task = replace(task, seeds=(seed,), scvi_epochs=epochs)
    bench = Bench(checkpoint, replace(recipe, data=(recipe.entry(task.sets[0].file),)), data, peers=peer_python())
    result = generation.measure_set(bench, task, task.sets[0])
    return {"epochs": epochs, "version": version_of("scvi-tools"), **result}


def version_of(package: str) -> str:
    """Of a package in the peers' environment."""
    script = f"from importlib.metadata import version; print(version({package!r}))"
    return subprocess.run([peer_python(), "-c", script], check=True, capture_output=True, text=True).stdout.strip()


# ---- the peers' environment


def make_environment(with_scvi: bool) -> None:
    """Make .venv-peers with the pinned peers, or take it as it is when it has them."""
    wanted = ["peers-requirements.txt", *(["peers-scvi-requirements.txt"] if with_scvi else [])]
    if not peer_python().exists():
        print(f"making {ENVIRONMENT.name}", file=sys.stderr, flush=True)
        subprocess.run([sys.executable, "-m", "venv", str(ENVIRONMENT)], check=True)
    pins = "\n".join((HERE / name).read_text(encoding="utf-8") for name in wanted)
    stamp = ENVIRONMENT / "installed.txt"
    if stamp.is_file() and pins in stamp.read_text(encoding="utf-8"):
        return
    print("installing the peers", file=sys.stderr, flush=True)
    files = [argument for name in wanted for argument in ("-r", str(HERE / name))]
    pip = [str(peer_python()), "-m", "pip", "--disable-pip-version-check", "install", "-q"]
    subprocess.run([*pip, *files], check=True)
    stamp.write_text(pins, encoding="utf-8")


def peer_python() -> Path:
    return ENVIRONMENT / ("Scripts/python.exe" if sys.platform == "win32" else "bin/python")


def run_peer(*arguments: str | Path) -> None:
    """`run_peer.py` in the peers' environment; its own words go to stderr."""
    peers.run(peer_python(), *arguments)


# ---- what comes out


def markdown(result: dict[str, Any]) -> str:
    found = result["annotation"]
    n_known = found["types_in_the_peers_training_cells"]
    lines = [
        f"{found['file']}: {found['cells']:,} cells, {found['genes']:,} genes, {found['types']} types, of which",
        f"{n_known} occur in the training donors. Checkpoint {result['checkpoint'][:16]}.",
        "",
        "| tool | trained on | chooses among | accuracy | macro-F1 | cells/s |",
        "|---|---|---|---|---|---|",
    ]
    for row in found["rows"]:
        lines.append(
            f"| {row['tool']} | {row['trained_on']} | {row['chooses_among']} | {interval(row['accuracy'])} | "
            f"{interval(row['macro_f1'])} | {row['cells_per_second']:,.0f} |"
        )
    if "generation" in result:
        lines += ["", *generation_table(result["generation"])]
    return "\n".join(lines)


def generation_table(found: dict[str, Any]) -> list[str]:
    scvi, name = found["scvi"], f"scVI {found['version']}, {found['epochs']} epochs"
    rows = [
        ("real training cells", found["real_training"], 1.0),
        ("InstructCell", found["pseudo"], found["mmd_ratio"]),
        (f"{name}, from its prior per type", scvi["prior"], scvi["prior"]["mmd_ratio"]),
        (f"{name}, around its training cells", scvi["posterior"], scvi["posterior"]["mmd_ratio"]),
        ("independent Poisson per type", found["independent_poisson"], found["mmd_ratio_poisson"]),
    ]
    return [
        f"{found['types']} sorted PBMC populations, as many pseudo-cells as held-out real ones ({found['cells']}).",
        "",
        "| cells | mean MMD | MMD relative to real | S-KNN | R-KNN |",
        "|---|---|---|---|---|",
        *(f"| {n} | {f['mean_mmd']:.3f} | {r:.2f} | {f['s_knn']:.3f} | {f['r_knn']:.3f} |" for n, f, r in rows),
    ]


def interval(figure: dict[str, float]) -> str:
    return f"{figure['value']:.3f} [{figure['low']:.3f}, {figure['high']:.3f}]"


def main() -> None:
    parser = argparse.ArgumentParser(description="Compare InstructCell with other tools in one run.")
    parser.add_argument("--data", type=Path, help="folder with the training files; found beside the project by default")
    parser.add_argument("--model", default="mini", help="name or folder of a checkpoint")
    parser.add_argument("--recipe", default="mini", help="the recipe the checkpoint was trained with")
    parser.add_argument("--scvi", action="store_true", help="also compare pseudo-cells with scVI (minutes)")
    parser.add_argument("--scvi-epochs", type=int, default=100, help="training of scVI")
    parser.add_argument("--seed", type=int, default=0, help="of the pseudo-cells")
    parser.add_argument("--cells", type=int, help="only so many cells of each file, for a trial; nothing is written")
    parser.add_argument("--json", action="store_true", help="print JSON and no table")
    chosen = parser.parse_args()
    make_environment(chosen.scvi)
    checkpoint, recipe, data = load_checkpoint(chosen.model), load_recipe(chosen.recipe), find_data(chosen.data)
    result: dict[str, Any] = {
        "checkpoint": checkpoint.hash,
        "load": round(os.getloadavg()[0], 1),
        "annotation": compare_annotation(checkpoint, recipe, data, chosen.cells),
    }
    if chosen.scvi:
        result["generation"] = compare_generation(checkpoint, recipe, data, chosen.scvi_epochs, chosen.seed)
    content = json.dumps(result, indent=1, default=float)
    if chosen.cells is None:
        RESULTS.parent.mkdir(parents=True, exist_ok=True)
        RESULTS.write_text(content + "\n", encoding="utf-8")
    print(content if chosen.json else markdown(result))


if __name__ == "__main__":
    main()
