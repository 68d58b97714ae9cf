"""How good answers and pseudo-cells are: figures with intervals, in plain functions over arrays.

Pseudo-cells are judged as in the InstructCell paper (MMD, S-KNN, R-KNN), in the space of the first principal
components of the held-out real cells' log-normalised expression.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy import sparse
from scipy.stats import rankdata, spearmanr
from sklearn.decomposition import PCA
from sklearn.metrics import precision_recall_fscore_support
from sklearn.metrics.pairwise import euclidean_distances, rbf_kernel
from sklearn.neighbors import KNeighborsClassifier, NearestNeighbors

N_BOOTSTRAP = 1000
N_COMPONENTS = 50
N_NEIGHBOURS = 10
BANDWIDTHS = (0.5, 1.0, 2.0)  # times the median distance


@dataclass(frozen=True)
class Figure:
    """A measured value with its 95 % bootstrap interval."""

    value: float
    low: float
    high: float

    def to_dict(self) -> dict[str, float]:
        return {"value": round(self.value, 4), "low": round(self.low, 4), "high": round(self.high, 4)}


def bootstrap(
    metric: Callable[..., float], *columns: np.ndarray, groups: np.ndarray | None = None, seed: int = 0
) -> Figure:
    """A metric of aligned columns [N] with its bootstrap interval; with groups [N], whole groups are redrawn.

    Draws on which the metric is not defined (one class only) are left out. Columns of text reach the metric as codes
    that they share, because comparing numbers a thousand times takes a tenth of the time.
    """
    columns, rng = _coded(columns), np.random.default_rng(seed)
    n = len(columns[0])
    units = (
        [np.array([i]) for i in range(n)]
        if groups is None
        else [np.flatnonzero(groups == g) for g in np.unique(groups)]
    )
    values = []
    for _ in range(N_BOOTSTRAP):
        drawn = rng.integers(0, len(units), len(units))
        rows = drawn if groups is None else np.concatenate([units[i] for i in drawn])
        try:
            value = metric(*(column[rows] for column in columns))
        except ValueError:
            continue
        if np.isfinite(value):
            values.append(value)
    low, high = np.quantile(values, [0.025, 0.975]) if values else (float("nan"), float("nan"))
    return Figure(float(metric(*columns)), float(low), float(high))


def _coded(columns: tuple[np.ndarray, ...]) -> tuple[np.ndarray, ...]:
    """Text columns [N] as integers, equal ones for equal texts in any of the columns; others as they are."""
    columns = tuple(np.asarray(column) for column in columns)
    texts = [i for i, column in enumerate(columns) if column.dtype.kind in "OUS"]
    if not texts:
        return columns
    codes = np.unique(np.concatenate([columns[i].astype(str) for i in texts]), return_inverse=True)[1]
    coded = dict(zip(texts, np.split(codes, len(texts)), strict=True))
    return tuple(coded.get(i, column) for i, column in enumerate(columns))


def accuracy(truth: np.ndarray, predicted: np.ndarray) -> float:
    return float(np.mean(np.asarray(truth) == np.asarray(predicted)))


def macro_f1(truth: np.ndarray, predicted: np.ndarray) -> float:
    """Mean F1 over the labels that occur in the truth.

    Counted here, not by scikit-learn (which it equals), because an interval asks for it a thousand times.
    """
    labels, codes = np.unique(np.concatenate([truth, predicted]), return_inverse=True)
    true, said = codes[: len(truth)], codes[len(truth) :]
    n_true, n_said = np.bincount(true, minlength=len(labels)), np.bincount(said, minlength=len(labels))
    right = np.bincount(true[true == said], minlength=len(labels))
    present = n_true > 0
    return float((2 * right[present] / (n_true + n_said)[present]).mean())


def per_class(truth: np.ndarray, predicted: np.ndarray) -> list[dict[str, Any]]:
    """Cells, precision, recall and F1 of every label of the truth, the most frequent first."""
    labels, sizes = np.unique(truth, return_counts=True)
    precision, recall, f1, _ = precision_recall_fscore_support(truth, predicted, labels=labels, zero_division=0)
    rows = [
        {"label": str(label), "cells": int(n), "precision": round(p, 4), "recall": round(r, 4), "f1": round(f, 4)}
        for label, n, p, r, f in zip(labels, sizes, precision, recall, f1, strict=True)
    ]
    return sorted(rows, key=lambda row: (-row["cells"], row["label"]))


def confusion(truth: np.ndarray, predicted: np.ndarray) -> dict[str, Any]:
    """Counts [true labels, answers]; answers that are no true label come last, those given most first."""
    labels = [row["label"] for row in per_class(truth, predicted)]
    others, sizes = np.unique(predicted[~np.isin(predicted, labels)], return_counts=True)
    answers = [*labels, *(str(name) for name in others[np.argsort(-sizes, kind="stable")])]
    counts = [[int(((truth == t) & (predicted == p)).sum()) for p in answers] for t in labels]
    return {"labels": labels, "answers": answers, "counts": counts}


def balanced_accuracy(truth: np.ndarray, predicted: np.ndarray) -> float:
    """Mean recall over the classes of the truth; ValueError when there is one class only."""
    classes = np.unique(truth)
    if len(classes) < 2:
        raise ValueError("balanced accuracy needs two classes")
    return float(np.mean([(predicted[truth == name] == name).mean() for name in classes]))


def auroc(positive: np.ndarray, score: np.ndarray) -> float:
    """Area under the ROC curve; ValueError when there is one class only."""
    is_positive = np.asarray(positive) > 0
    n_positive, n_negative = int(is_positive.sum()), int((~is_positive).sum())
    if not n_positive or not n_negative:
        raise ValueError("the area under the ROC curve needs two classes")
    ranks = rankdata(score)  # ties share their mean rank (Mann-Whitney)
    return float((ranks[is_positive].sum() - n_positive * (n_positive + 1) / 2) / (n_positive * n_negative))


def expected_calibration_error(confidence: np.ndarray, correct: np.ndarray, n_bins: int = 15) -> float:
    """Mean gap between confidence [N] and accuracy over equally filled bins."""
    order = np.argsort(confidence, kind="stable")
    bins = np.array_split(order, min(n_bins, len(order)))
    return float(sum(len(b) / len(order) * abs(confidence[b].mean() - correct[b].mean()) for b in bins if len(b)))


def reliability(confidence: np.ndarray, correct: np.ndarray, n_bins: int = 15) -> list[dict[str, float]]:
    """Mean confidence and accuracy of equally filled bins, from unsure to sure; what the calibration error sums."""
    order = np.argsort(confidence, kind="stable")
    return [
        {
            "confidence": round(float(confidence[b].mean()), 4),
            "accuracy": round(float(correct[b].mean()), 4),
            "cells": len(b),
        }
        for b in np.array_split(order, min(n_bins, len(order)))
        if len(b)
    ]


def risk_coverage(confidence: np.ndarray, correct: np.ndarray, n_points: int = 20) -> list[dict[str, float]]:
    """Accuracy of the most confident cells, for shares of the cells from 1 / n_points to all."""
    shares = np.arange(1, n_points + 1) / n_points
    return [{"coverage": round(s, 4), "accuracy": round(accepted_accuracy(confidence, correct, s), 4)} for s in shares]


def accepted_accuracy(confidence: np.ndarray, correct: np.ndarray, coverage: float) -> float:
    """Accuracy of the share `coverage` of the cells of which the answer is most sure."""
    n_accepted = max(1, round(coverage * len(confidence)))
    return float(correct[np.argsort(-confidence, kind="stable")[:n_accepted]].mean())


def spearman(a: np.ndarray, b: np.ndarray) -> float:
    """Rank correlation; ValueError where one side is constant."""
    if len(np.unique(a)) < 2 or len(np.unique(b)) < 2:
        raise ValueError("a rank correlation needs values that differ")
    return float(spearmanr(a, b).statistic)


# ---- pseudo-cells


def log_normalise(counts: sparse.spmatrix | np.ndarray) -> np.ndarray:
    """Counts [N, G] -> log(1 + counts per 10,000), dense."""
    dense = counts.toarray() if sparse.issparse(counts) else np.asarray(counts)
    total = np.maximum(dense.sum(axis=1, keepdims=True), 1.0)
    return np.log1p(dense / total * 1e4).astype(np.float32)


class RealSpace:
    """The principal components of held-out real cells, in which sets of cells are compared.

    Parameters
    ----------
    counts : [N, G]
        Held-out real cells over the genes that they measured.
    labels : [N]
        Their types.
    """

    def __init__(self, counts: sparse.spmatrix, labels: np.ndarray, seed: int = 0) -> None:
        expression = log_normalise(counts)
        self.pca = PCA(min(N_COMPONENTS, len(labels) - 1), random_state=seed).fit(expression)
        self.points, self.labels = self.pca.transform(expression), labels

    def place(self, counts: sparse.spmatrix | np.ndarray) -> np.ndarray:
        return self.pca.transform(log_normalise(counts))

    def judge(self, points: np.ndarray, labels: np.ndarray) -> dict[str, Any]:
        """MMD per type, S-KNN and R-KNN of cells [M, C] with the types that were asked for [M]."""
        types = [str(t) for t in np.unique(labels)]
        pairs = {t: (points[labels == t], self.points[self.labels == t]) for t in types}
        mmd = {t: maximum_mean_discrepancy(a, b) for t, (a, b) in pairs.items()}
        return {
            "mmd": mmd,
            "mmd_by_bandwidth": {
                str(width): float(np.mean([maximum_mean_discrepancy(a, b, (width,)) for a, b in pairs.values()]))
                for width in BANDWIDTHS
            },
            "mean_mmd": float(np.mean(list(mmd.values()))),
            "s_knn": self_knn(points, labels),
            "r_knn": real_knn(points, labels, self.points, self.labels),
        }


def maximum_mean_discrepancy(a: np.ndarray, b: np.ndarray, bandwidths: tuple[float, ...] = BANDWIDTHS) -> float:
    """MMD (not squared) between two sets of points, Gaussian kernels around the median distance in `b`.

    The biased estimate of Gretton et al. 2012, which is never negative.
    """
    distances = euclidean_distances(b)
    median = float(np.median(distances[np.triu_indices(len(b), 1)])) if len(b) > 1 else 1.0
    squared = 0.0
    for factor in bandwidths:
        gamma = 1.0 / (2.0 * (factor * median) ** 2)
        squared += (
            rbf_kernel(a, a, gamma).mean() + rbf_kernel(b, b, gamma).mean() - 2.0 * rbf_kernel(a, b, gamma).mean()
        )
    return float(np.sqrt(max(squared / len(bandwidths), 0.0)))


def self_knn(points: np.ndarray, labels: np.ndarray, k: int = N_NEIGHBOURS) -> float:
    """Mean share of a cell's k nearest other cells that have its own type."""
    neighbours = (
        NearestNeighbors(n_neighbors=min(k + 1, len(points))).fit(points).kneighbors(points, return_distance=False)
    )
    return float((labels[neighbours[:, 1:]] == labels[:, None]).mean())


def real_knn(
    points: np.ndarray, labels: np.ndarray, real_points: np.ndarray, real_labels: np.ndarray, k: int = N_NEIGHBOURS
) -> float:
    """Accuracy on the cells of a k-NN classifier fitted on real ones."""
    return float(KNeighborsClassifier(min(k, len(real_points))).fit(real_points, real_labels).score(points, labels))
