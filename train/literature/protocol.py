"""The protocol all systems are measured by: accuracy, macro precision / recall / F1, weighted F1, confusion matrix."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from sklearn.metrics import precision_recall_fscore_support

from train import metrics

FIGURES = ("accuracy", "precision", "recall", "f1", "weighted_f1")


def measure(truth: np.ndarray, predicted: np.ndarray) -> dict[str, Any]:
    """Figures of one prediction [N], and of several seeds [S, N] their mean with the standard deviation.

    Precision, recall and F1 are means over the labels of the truth; an answer that is none of them is wrong.
    """
    runs = np.atleast_2d(predicted)
    rows = [figures(truth, run) for run in runs]
    result: dict[str, Any] = {name: round(float(np.mean([row[name] for row in rows])), 4) for name in FIGURES}
    result["sd"] = {name: round(float(np.std([row[name] for row in rows])), 4) for name in FIGURES}
    result["seeds"] = len(rows)
    interval = metrics.bootstrap(metrics.accuracy, truth, runs[0])
    result["accuracy_interval"] = [round(interval.low, 4), round(interval.high, 4)]
    result["confusion"] = metrics.confusion(truth, runs[0])
    return result


def figures(truth: np.ndarray, predicted: np.ndarray) -> dict[str, float]:
    """The five figures of one prediction."""
    labels = np.unique(truth)
    macro = precision_recall_fscore_support(truth, predicted, labels=labels, average="macro", zero_division=0)
    weighted = precision_recall_fscore_support(truth, predicted, labels=labels, average="weighted", zero_division=0)
    return {
        "accuracy": metrics.accuracy(truth, predicted),
        "precision": float(macro[0]),
        "recall": float(macro[1]),
        "f1": float(macro[2]),
        "weighted_f1": float(weighted[2]),
    }


def by_group(truth: np.ndarray, predicted: np.ndarray, groups: np.ndarray) -> dict[str, Any]:
    """Share of the patients or donors whose cells mostly get the right answer; each has one true label."""
    right = []
    for group in np.unique(groups):
        rows = groups == group
        said, votes = np.unique(predicted[rows], return_counts=True)
        right.append(bool(said[votes.argmax()] == truth[rows][0]))
    return {"groups": len(right), "right": int(sum(right)), "accuracy": round(float(np.mean(right)), 4)}


def marker_similarity(vectors: Mapping[str, np.ndarray], markers: Mapping[str, Sequence[str]]) -> dict[str, float]:
    """Mean cosine of marker genes of one type (intra) and of different types (inter), from unit vectors of genes.

    Raises
    ------
    ValueError
        No type has two markers with a vector, or there is one type only.
    """
    known = {label: [gene for gene in genes if gene in vectors] for label, genes in markers.items()}
    genes = sorted({gene for of in known.values() for gene in of})
    matrix = np.stack([vectors[gene] for gene in genes]) if genes else np.zeros((0, 1))
    likeness = matrix @ matrix.T
    member = np.array([[gene in of for gene in genes] for of in known.values()])  # [types, genes]
    together = (member.T.astype(int) @ member.astype(int)) > 0
    pairs = np.triu(np.ones_like(together), 1).astype(bool)
    if not (together & pairs).any() or not (~together & pairs).any():
        raise ValueError("marker similarity needs two types, one of them with two markers that have a vector")
    return {
        "intra": float(likeness[together & pairs].mean()),
        "inter": float(likeness[~together & pairs].mean()),
        "genes": len(genes),
    }
