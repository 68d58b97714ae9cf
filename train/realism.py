"""How far pseudo-cells look like real ones, gene by gene: marker changes, zeros, spread, and use as training data.

Complements the distances in `metrics.RealSpace`. Counts are [N, G] over the genes that the real file measured.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from scipy import sparse

from train import baselines, metrics

N_MARKERS = 50  # of each type, by log fold change in the held-out cells
N_VARIABLE = 2000  # genes that a classifier trained on pseudo-cells sees
N_BINS = 12  # of the curves over mean expression
LEAST_SHARE = 0.05  # of the cells of a type that express a marker
Counts = sparse.csr_matrix | np.ndarray


class GeneProfile:
    """What held-out real cells say of each gene, to compare other cells with.

    Parameters
    ----------
    counts, labels
        Held-out real cells [N, G] and their types [N].
    """

    def __init__(self, counts: Counts, labels: np.ndarray) -> None:
        self.types = [str(name) for name in np.unique(labels)]
        self.changes = log_fold_changes(counts, labels)
        self.markers = {name: self._markers(counts, labels, name) for name in self.types}
        self.zeros, self.mean, self.variance = gene_statistics(counts)
        self.detected = np.flatnonzero(self.mean > 0)

    def _markers(self, counts: Counts, labels: np.ndarray, name: str) -> np.ndarray:
        expressed = np.asarray((counts[np.flatnonzero(labels == name)] > 0).mean(axis=0)).ravel() >= LEAST_SHARE
        change = np.where(expressed, self.changes[name], -np.inf)
        best = np.argsort(-change, kind="stable")[:N_MARKERS]
        return best[np.isfinite(change[best])]

    def judge(self, counts: Counts, labels: np.ndarray) -> dict[str, Any]:
        """Marker log-fold-change correlation, zero fractions and variances of other cells against the real ones."""
        changes = log_fold_changes(counts, labels)
        zeros, mean, variance = gene_statistics(counts)
        per_type = {name: _correlation(self.changes[name], changes[name], self.all_markers) for name in self.types}
        seen = self.detected[variance[self.detected] > 0]
        return {
            "marker_logfc": round(float(np.mean(list(per_type.values()))), 4),
            "marker_logfc_pooled": round(self._pooled(changes), 4),
            "marker_logfc_by_type": {name: round(value, 4) for name, value in per_type.items()},
            "zero_fraction_gap": round(float(np.abs(zeros - self.zeros)[self.detected].mean()), 4),
            "zero_fraction": round(float(zeros.mean()), 4),
            "zero_fraction_real": round(float(self.zeros.mean()), 4),
            "variance_correlation": round(
                float(np.corrcoef(np.log(self.variance[seen]), np.log(variance[seen]))[0, 1]) if len(seen) > 1 else 0.0,
                4,
            ),
            "curves": curves(zeros, mean, variance),
        }

    def _pooled(self, changes: Mapping[str, np.ndarray]) -> float:
        """One correlation over all types and markers: types that hardly differ weigh little in it."""
        real, other = (
            np.concatenate([c[name][self.all_markers] for name in self.types]) for c in (self.changes, changes)
        )
        return _correlation(real, other, np.arange(len(real)))

    @property
    def all_markers(self) -> np.ndarray:
        """Columns of the markers of all types."""
        return np.unique(np.concatenate(list(self.markers.values())))


def log_fold_changes(counts: Counts, labels: np.ndarray) -> dict[str, np.ndarray]:
    """Per type: mean log expression of its cells minus that of the other types' cells [G]."""
    expression = metrics.log_normalise(counts)
    means = {str(name): expression[labels == name].mean(axis=0) for name in np.unique(labels)}
    changes = {}
    for name, mean in means.items():
        others = [other for key, other in means.items() if key != name]
        changes[name] = mean - np.mean(others, axis=0) if others else mean
    return changes


def gene_statistics(counts: Counts) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Zero fraction, mean and variance of each gene's counts [G]."""
    matrix = sparse.csr_matrix(counts).astype(np.float64)
    zeros = 1.0 - np.asarray((matrix > 0).mean(axis=0)).ravel()
    mean = np.asarray(matrix.mean(axis=0)).ravel()
    variance = np.asarray(matrix.multiply(matrix).mean(axis=0)).ravel() - mean**2
    return zeros, mean, np.maximum(variance, 0.0)


def curves(zeros: np.ndarray, mean: np.ndarray, variance: np.ndarray) -> list[dict[str, float]]:
    """Zero fraction and variance over bins of equally many expressed genes, by mean expression."""
    expressed = np.flatnonzero(mean > 0)
    order = expressed[np.argsort(mean[expressed], kind="stable")]
    return [
        {
            "mean": float(f"{mean[b].mean():.4g}"),
            "zero_fraction": round(float(zeros[b].mean()), 4),
            "variance": float(f"{variance[b].mean():.4g}"),
        }
        for b in np.array_split(order, min(N_BINS, max(len(order), 1)))
        if len(b)
    ]


def train_on_one_test_on_real(
    sources: Mapping[str, tuple[Counts, np.ndarray]], test: Counts, labels: np.ndarray
) -> dict[str, float]:
    """Accuracy on real test cells of logistic regression fitted on each source of (counts, labels).

    All see the genes that vary most in the first source.
    """
    first, _ = next(iter(sources.values()))
    genes = np.sort(np.argsort(-metrics.log_normalise(first).var(axis=0), kind="stable")[:N_VARIABLE])
    unseen = metrics.log_normalise(test)[:, genes]
    accuracies = {}
    for name, (counts, known) in sources.items():
        model = baselines.logistic_regression().fit(metrics.log_normalise(counts)[:, genes], known)
        accuracies[name] = round(metrics.accuracy(labels, model.predict(unseen)), 4)
    return accuracies


def _correlation(a: np.ndarray, b: np.ndarray, genes: np.ndarray) -> float:
    if len(genes) < 2 or not a[genes].std() or not b[genes].std():
        return 0.0
    return float(np.corrcoef(a[genes], b[genes])[0, 1])
