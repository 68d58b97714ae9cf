"""Several cells at once: a cluster named from many of its cells in one prompt, beside votes of single answers.

Clusters are made of held-out cells: a share of one type, the rest drawn from the other types of the file, as a
clustering that is not perfect makes them.
"""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np
from scipy import sparse

from instructcell.generation import score_labels
from instructcell.processor import Prompt
from train.evaluation.bench import Bench
from train.evaluation.phrasing import ANNOTATE
from train.evaluation.tasks import ClusterTask, Target

WAYS = ("one prompt", "vote", "mean probability", "single cells")


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
    bench.say("clusters: " + "; ".join(f"{p} of one type: one prompt {row['one prompt']:.3f}, vote {row['vote']:.3f}"
                                       for p, row in mean.items()))  # fmt: skip
    return {"clusters": task.clusters, "cells": task.cells, "files": files, "mean": mean}


def _of_file(bench: Bench, task: ClusterTask, target: Target) -> dict[str, Any]:
    rng, rows = np.random.default_rng(bench.recipe.seed), bench.known_rows(target)
    labels = bench.datasets[target.file].label
    types = [name for name, size in Counter(labels[rows]).items() if size >= task.cells]
    return {
        "types": len(types),
        "purity": {
            str(purity): _answers(bench, target, *_draw(rng, rows, labels, types, task, purity))
            for purity in task.purity
        },
    }


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


def _answers(bench: Bench, target: Target, clusters: np.ndarray, truth: np.ndarray) -> dict[str, float]:
    """Accuracy of each way to name the clusters, and of the single cells of the main type."""
    cells, names = bench.datasets[target.file], np.array(bench.checkpoint.labels.names)
    counts = cells.counts[clusters.ravel()]
    together = _score(bench, [Prompt.parse(ANNOTATE, clusters.shape[1])] * len(clusters), counts, cells.measured)
    single = _score(bench, [Prompt.parse(ANNOTATE)] * clusters.size, counts, cells.measured)
    single = single.reshape(*clusters.shape, -1)  # [C, n, L]
    said = names[single.argmax(axis=2)]
    votes = np.array([Counter(row).most_common(1)[0][0] for row in said.tolist()])
    main = cells.label[clusters] == truth[:, None]
    return {
        "one prompt": _share(names[together.argmax(axis=1)] == truth),
        "vote": _share(votes == truth),
        "mean probability": _share(names[single.mean(axis=1).argmax(axis=1)] == truth),
        "single cells": _share((said == truth[:, None])[main]),
    }


def _score(bench: Bench, prompts: list[Prompt], counts: sparse.csr_matrix, measured: np.ndarray) -> np.ndarray:
    model, processor, names = bench.checkpoint.model, bench.checkpoint.processor, bench.checkpoint.labels.names
    return np.asarray(score_labels(model, processor, prompts, counts, measured, names))


def _share(right: np.ndarray) -> float:
    return round(float(right.mean()), 4)
