"""Choosing the genes a checkpoint knows.

A gene earns its place by telling cell types apart in at least one training file and by being measured in several
files, so that small panels still share many genes with the model; the best markers of every label are always in.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
import pandas as pd
from scipy import sparse

from train.datasets import LabelledCells

FILE_BONUS = 300  # ranks gained per further file that measures a gene
MAX_FILES = 6
MIN_DETECTED = 0.002  # share of a file's training cells


def choose_genes(
    datasets: Sequence[LabelledCells], genes: Sequence[str], n_genes: int, markers: Iterable[str]
) -> np.ndarray:
    """Columns [n_genes] of `genes` to keep, in the order of `genes`; only training cells are looked at."""
    best = np.full(len(genes), np.inf)
    n_files = np.zeros(len(genes), int)
    for cells in datasets:
        rows = cells.training_rows
        if not len(rows):
            continue
        counts = cells.counts[rows]
        detected = np.asarray((counts > 0).mean(axis=0)).ravel() >= MIN_DETECTED
        rank = np.argsort(np.argsort(-_spread_between_labels(counts, cells.label[rows])))
        best = np.where(detected, np.minimum(best, rank), best)
        n_files += detected
    score = best - FILE_BONUS * np.minimum(n_files, MAX_FILES)
    is_marker = pd.Index(genes).isin(set(markers)) & (n_files > 0)
    score[is_marker] = -np.inf
    n_usable = int((score < np.inf).sum())
    return np.sort(np.argsort(score, kind="stable")[: min(n_genes, n_usable)])


def _spread_between_labels(counts: sparse.csr_matrix, labels: np.ndarray) -> np.ndarray:
    """How far the labels' mean log expression lies from the overall mean per gene [G], plus a little variance."""
    total = np.asarray(counts.sum(axis=1)).ravel()
    scaled = sparse.diags(1e4 / np.maximum(total, 1e-9)).dot(counts).tocsr()
    scaled.data = np.log1p(scaled.data)
    mean = np.asarray(scaled.mean(axis=0)).ravel()
    variance = np.asarray(scaled.multiply(scaled).mean(axis=0)).ravel() - mean**2
    spread = np.zeros(counts.shape[1])
    for label in np.unique(labels):
        of_label = labels == label
        label_mean = np.asarray(scaled[np.flatnonzero(of_label)].mean(axis=0)).ravel()
        spread = np.maximum(spread, np.sqrt(of_label.mean()) * (label_mean - mean) ** 2)
    return spread + 1e-4 * variance
