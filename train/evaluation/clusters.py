"""Several cells at once: a cluster named from all of its cells (`annotate --by`), beside votes of single answers.

Clusters are made of held-out cells: a share of one type, the rest drawn from the other types of the file, as a
clustering that is not perfect makes them.
"""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np
from scipy import sparse

from instructcell.clusters import cluster_probabilities
from instructcell.context import ContextSettings
from instructcell.generation import score_labels
from instructcell.processor import Prompt
from train.evaluation.bench import Bench
from train.evaluation.context import read_rows, seen, some_rows
from train.evaluation.phrasing import ANNOTATE
from train.evaluation.tasks import ClusterTask, Target

WAYS = ("all cells", "one prompt", "vote", "mean probability", "single cells")


def measure(bench: Bench, task: ClusterTask) -> dict[str, Any]:
    """Accuracy per share of the main type: of each file, and the mean over the files."""
    files = {target.file: _of_file(bench, task, target) for target in task.targets}
    mean = {
        str(purity): {
            way: round(float(np.mean([found["purity"][str(purity)][way] for found in files.values()])), 4)
            for way in WAYS
        }
        for purity in task.purity
    }
    bench.say("clusters: " + "; ".join(f"{p} of one type: all cells {row['all cells']:.3f}, vote {row['vote']:.3f}"
                                       for p, row in mean.items()))  # fmt: skip
    return {"clusters": task.clusters, "cells": task.cells, "files": files, "mean": mean}


def _of_file(bench: Bench, task: ClusterTask, target: Target) -> dict[str, Any]:
    rng, rows = np.random.default_rng(bench.recipe.seed), some_rows(bench, target, task.most_cells)
    file = read_rows(bench, target, rows)
    labels, cells = bench.datasets[target.file].label[rows], np.arange(len(rows))
    types = [name for name, size in Counter(labels).items() if size >= task.cells]
    single = seen(bench, file, ContextSettings.of(bench.checkpoint.calibration))  # [N, L]
    found = {}
    for purity in task.purity:
        clusters, truth = _draw(rng, cells, labels, types, task, purity)
        counts = bench.datasets[target.file].counts[rows[clusters.ravel()]]
        together = _one_prompt(bench, counts, bench.datasets[target.file].measured, clusters)
        found[str(purity)] = _shares(bench, single, together, clusters, labels, truth)
    return {"types": len(types), "purity": found}


def _draw(
    rng: np.random.Generator, rows: np.ndarray, labels: np.ndarray, types: list[str], task: ClusterTask, purity: float
) -> tuple[np.ndarray, np.ndarray]:
    """Rows of the clusters [C, n] and their main types [C], the types in turn."""
    n_main = max(1, round(purity * task.cells))
    clusters, names = [], []
    for i in range(task.clusters):
        name = types[i % len(types)]
        main, others = rows[labels[rows] == name], rows[labels[rows] != name]
        rest = rng.choice(others, task.cells - n_main, replace=False)
        clusters.append(rng.permutation(np.concatenate([rng.choice(main, n_main, replace=False), rest])))
        names.append(name)
    return np.stack(clusters), np.array(names)


def _one_prompt(bench: Bench, counts: sparse.csr_matrix, measured: np.ndarray, clusters: np.ndarray) -> np.ndarray:
    """Probabilities [C, L] when all cells of a cluster stand in one prompt."""
    model, processor, names = bench.checkpoint.model, bench.checkpoint.processor, bench.checkpoint.labels.names
    prompts = [Prompt.parse(ANNOTATE, clusters.shape[1])] * len(clusters)
    return np.asarray(score_labels(model, processor, prompts, counts, measured, names))


def _shares(
    bench: Bench,
    single: np.ndarray,
    together: np.ndarray,
    clusters: np.ndarray,
    labels: np.ndarray,
    truth: np.ndarray,
) -> dict[str, float]:
    """Accuracy of each way to name the clusters, and of the single cells of the main type."""
    names = np.array(bench.checkpoint.labels.names)
    of_cell, composition = single[clusters], single.mean(axis=0)  # [C, n, L], [L]
    said = names[of_cell.argmax(axis=2)]
    votes = np.array([Counter(row).most_common(1)[0][0] for row in said.tolist()])
    named = names[[cluster_probabilities(cells, composition).argmax() for cells in of_cell]]
    main = labels[clusters] == truth[:, None]
    return {
        "all cells": _share(named == truth),
        "one prompt": _share(names[together.argmax(axis=1)] == truth),
        "vote": _share(votes == truth),
        "mean probability": _share(names[of_cell.mean(axis=1).argmax(axis=1)] == truth),
        "single cells": _share((said == truth[:, None])[main]),
    }


def _share(right: np.ndarray) -> float:
    return round(float(right.mean()), 4)
