"""What remains of the accuracy when a file has measured few genes: random panels and marker genes of its types.

Beside it stands logistic regression refitted to every panel: what the panel's genes can tell at all.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from instructcell import tools
from instructcell.doctor import inspect
from instructcell.errors import InstructCellError
from instructcell.retrieval import markers
from train import baselines, metrics
from train.evaluation.annotation import training_cells
from train.evaluation.bench import Bench
from train.evaluation.tasks import PanelTask, Target

MARKERS_PER_TYPE = 60  # looked at; as many as needed are taken in turn


def measure(bench: Bench, task: PanelTask) -> dict[str, Any]:
    """Accuracy per file and panel, and its mean over the files relative to the full panel."""
    files = {target.file: _panels_of(bench, task, target) for target in task.targets}
    result: dict[str, Any] = {"files": files, "relative": {}}
    panels = dict.fromkeys(name for found in files.values() for name in found["panels"])
    for name in panels:
        shares = [f["panels"][name]["relative"] for f in files.values() if name in f["panels"]]
        result["relative"][name] = round(float(np.mean(shares)), 4)
    bench.say("panels, relative to all genes: " + ", ".join(f"{k} {v:.3f}" for k, v in result["relative"].items()))
    return result


def _panels_of(bench: Bench, task: PanelTask, target: Target) -> dict[str, Any]:
    rng = np.random.default_rng(bench.recipe.seed)
    rows = bench.known_rows(target)
    rows = np.sort(rng.permutation(rows)[: task.cells])
    truth = bench.datasets[target.file].label[rows]
    n_genes = bench.file(target.file).n_vars
    full = _accuracy(bench, target, rows, truth, None)
    result: dict[str, Any] = {"cells": len(rows), "genes": n_genes, "full": round(float(full or 0.0), 4), "panels": {}}
    panels = {
        f"{size} random genes": [np.sort(rng.permutation(n_genes)[:size]) for _ in range(task.draws)]
        for size in task.random
        if size < n_genes
    }
    chosen = marker_columns(bench, target, truth, task.markers)
    if len(chosen):
        panels[f"{task.markers} marker genes"] = [chosen]
    for name, draws in panels.items():
        found = [_accuracy(bench, target, rows, truth, genes) for genes in draws]
        values = [value or 0.0 for value in found]  # a panel that the reader refuses has no right answer
        result["panels"][name] = {
            "accuracy": round(float(np.mean(values)), 4),
            "spread": round(float(np.std(values)), 4),
            "relative": round(float(np.mean(values)) / max(result["full"], 1e-9), 4),
            "refused": sum(value is None for value in found),
            "logistic_regression": _refitted(bench, target, rows, truth, draws),
        }
    if len(chosen):
        result["markers"] = _types_from(bench, target, rows, truth, chosen)
    return result


def _types_from(bench: Bench, target: Target, rows: np.ndarray, truth: np.ndarray, genes: np.ndarray) -> dict[str, Any]:
    """Share of free answers that are a broader type of the right one, and accuracy among the file's own labels."""
    free = _said(bench, target, rows, genes)
    among = _said(bench, target, rows, genes, sorted(set(truth)))
    if free is None or among is None:
        return {}
    broader = [said != of and bench.is_or_narrower(of, said) for said, of in zip(free, truth, strict=True)]
    return {"broader": round(float(np.mean(broader)), 4), "with_options": round(float((among == truth).mean()), 4)}


def _refitted(
    bench: Bench, target: Target, rows: np.ndarray, truth: np.ndarray, draws: list[np.ndarray]
) -> float | None:
    """Mean accuracy of logistic regression refitted on the panels' genes among ours; None with one label."""
    counts, labels, shared = training_cells(bench, target)
    if len(np.unique(labels)) < 2:
        return None
    symbols = inspect(bench.file(target.file)).gene_symbols
    place = {gene: j for j, gene in enumerate(bench.checkpoint.processor.genes)}
    accuracies = []
    for genes in draws:
        ours = sorted({place[symbols[j]] for j in genes if symbols[j] in place and shared[place[symbols[j]]]})
        known, unseen = (
            metrics.log_normalise(matrix[:, ours]) for matrix in (counts, bench.datasets[target.file].counts[rows])
        )
        said = baselines.logistic_regression().fit(known, labels).predict(unseen)
        accuracies.append(metrics.accuracy(truth, said))
    return round(float(np.mean(accuracies)), 4)


def _accuracy(
    bench: Bench, target: Target, rows: np.ndarray, truth: np.ndarray, genes: np.ndarray | None
) -> float | None:
    """Share of right best guesses from these genes alone; None where the reader refuses the file."""
    said = _said(bench, target, rows, genes)
    return None if said is None else float((said == truth).mean())


def _said(
    bench: Bench, target: Target, rows: np.ndarray, genes: np.ndarray | None, options: list[str] | None = None
) -> np.ndarray | None:
    """Best guesses [N] from these genes alone; None where the reader refuses the file."""
    adata = bench.file(target.file, rows)
    adata = adata if genes is None else adata[:, genes].copy()
    try:
        return tools.annotate(adata, checkpoint=bench.checkpoint, labels=options).table["best_guess"].to_numpy(str)
    except InstructCellError as error:
        bench.say(f"  {target.file}, {adata.n_vars} genes: {error}")
        return None


def marker_columns(bench: Bench, target: Target, truth: np.ndarray, n: int) -> np.ndarray:
    """Columns of the file that hold the best `n` markers of the types in `truth`, taken from each type in turn."""
    symbols = inspect(bench.file(target.file)).gene_symbols
    column = {symbol: j for j, symbol in reversed(list(enumerate(symbols))) if symbol}
    lists = []
    for name in np.unique(truth):
        label = bench.checkpoint.labels.find(str(name))
        if label is not None and label.id:
            lists.append([gene for gene in _markers(label.id) if gene in column])
    chosen: dict[int, None] = {}
    for place in range(MARKERS_PER_TYPE):
        for genes in lists:
            if place < len(genes) and len(chosen) < n:
                chosen.setdefault(column[genes[place]])
    return np.array(sorted(chosen), int)


def _markers(cl_id: str) -> list[str]:
    try:
        return list(markers(cl_id, n=MARKERS_PER_TYPE)["gene"])
    except InstructCellError:
        return []  # the marker table does not describe this type
