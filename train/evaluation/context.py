"""Does the file as context help, and does it harm where it might: a file of one type, a file of several tissues?

Cells are read once, each by itself; what is judged are these probabilities with and without the context that the
cells of the same file make. A column of the file that names its tissue is not used.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from instructcell.context import ContextSettings
from train import metrics
from train.calibrate import Judged, embed, in_context, score_cells, together
from train.evaluation.bench import Bench
from train.evaluation.tasks import ContextTask, Target


def measure(bench: Bench, task: ContextTask) -> dict[str, Any]:
    """Figures without and with context: per file, of the cells of each type alone, and of files put together."""
    settings = ContextSettings.of(bench.checkpoint.calibration)
    files = {target.file: read(bench, target, task.most_cells) for target in task.targets}
    files = {name: file for name, file in files.items() if len(file.truth)}
    result = {
        "floor": settings.floor,
        "neighbour_weight": settings.neighbour_weight,
        "linear_weight": settings.linear_weight,
        "marker_weight": settings.marker_weight,
        "own_weight": settings.own_weight,
        "files": {name: compare(bench, file) for name, file in files.items()},
        "one_type": _one_type(bench, list(files.values()), task.least_of_type),
        "mixtures": {
            " + ".join(names): compare(bench, together([files[name] for name in names]))
            for names in task.mixtures
            if all(name in files for name in names)
        },
    }
    rows = result["files"].values()
    without, with_ = (np.mean([row[way]["accuracy"] for row in rows]) for way in ("without", "with"))
    bench.say(f"context: mean accuracy over files {without:.4f} without, {with_:.4f} with")
    return result


def read(bench: Bench, target: Target, most_cells: int) -> Judged:
    """The test cells of a file with a label that the checkpoint has, each read by itself."""
    return read_rows(bench, target, some_rows(bench, target, most_cells))


def some_rows(bench: Bench, target: Target, most_cells: int) -> np.ndarray:
    """Rows of at most so many test cells with a label that the checkpoint has."""
    rows = bench.known_rows(target)
    return np.sort(np.random.default_rng(bench.recipe.seed).permutation(rows)[:most_cells])


def read_rows(bench: Bench, target: Target, rows: np.ndarray) -> Judged:
    """Cells of a file, each read by itself."""
    cells, names = bench.datasets[target.file], bench.checkpoint.labels.names
    if not len(rows):
        empty = np.zeros((0, len(names))), np.zeros((0, 1)), np.zeros(0, int)
        return Judged(target.file, *empty, cells.counts[rows], cells.measured)
    truth = np.array([names.index(str(label)) for label in cells.label[rows]])
    raw = score_cells(bench.checkpoint, cells, rows)
    counts = cells.counts[rows]
    return Judged(target.file, raw, embed(bench.checkpoint, counts, cells.measured), truth, counts, cells.measured)


def compare(bench: Bench, file: Judged) -> dict[str, Any]:
    """Accuracy, calibration error and accuracy of the surest 80 %, without and with context."""
    return {
        "cells": len(file.truth),
        "without": _figures(seen(bench, file, ContextSettings()), file.truth),
        "with": _figures(seen(bench, file, ContextSettings.of(bench.checkpoint.calibration)), file.truth),
    }


def seen(bench: Bench, file: Judged, settings: ContextSettings) -> np.ndarray:
    """Calibrated probabilities [N, L] of the cells of a file in its context."""
    temperature = float(bench.checkpoint.calibration.get("temperature", 1.0))
    return in_context(bench.checkpoint, file, temperature, settings, bench.checkpoint.reference)[0]


def _figures(probabilities: np.ndarray, truth: np.ndarray) -> dict[str, float]:
    confidence, right = probabilities.max(axis=1), probabilities.argmax(axis=1) == truth
    return {
        "accuracy": round(float(right.mean()), 4),
        "ece": round(metrics.expected_calibration_error(confidence, right), 4),
        "accepted_at_80": round(metrics.accepted_accuracy(confidence, right, 0.8), 4),
    }


def _one_type(bench: Bench, files: list[Judged], least: int) -> dict[str, Any]:
    """Mean accuracy over files that hold the cells of one type alone, and the most that one of them loses."""
    rows = []
    for file in files:
        for label in np.unique(file.truth):
            of_type = file.truth == label
            if of_type.sum() >= least:
                found = compare(bench, file.only(of_type))
                rows.append((found["without"]["accuracy"], found["with"]["accuracy"]))
    if not rows:
        return {"files": 0}
    without, with_ = np.array(rows).T
    return {
        "files": len(rows),
        "without": round(float(without.mean()), 4),
        "with": round(float(with_.mean()), 4),
        "most_lost": round(float((without - with_).max()), 4),
    }
