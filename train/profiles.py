"""Reference profiles for the cell encoder: the mean expression of every cell type in every training study."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from scipy import sparse
from torch import Tensor

from train.collator import annotation_strata
from train.datasets import LabelledCells

UNIFORM_SHARE = 0.01  # of the background, so that no gene is impossible


def reference_profiles(datasets: Sequence[LabelledCells]) -> Tensor:
    """Shares [P, G] of P pairs of study and label over the training cells, positive and summing to one.

    A gene that a study did not measure takes the mean of the label's profiles in other studies, or of all profiles. A
    profile of n cells is mixed with the mean of all profiles, 1 / (1 + sqrt(n)) of it: the fewer cells, the less of a
    chance count is believed.
    """
    groups = annotation_strata(datasets).groups
    if not groups:
        raise ValueError("no training cells with labels to make reference profiles of")
    raw = np.stack([_mean_shares(datasets[d].counts[rows]) for d, _, rows, _ in groups])  # [P, G]
    measured = np.stack([datasets[d].measured for d, *_ in groups])
    labels = np.array([label for _, label, _, _ in groups])
    sizes = np.array([len(rows) for _, _, rows, _ in groups])
    filled = _fill_unmeasured(raw, measured, labels)
    background = filled.mean(axis=0)
    background = (1 - UNIFORM_SHARE) * background / background.sum() + UNIFORM_SHARE / len(background)
    believed = 1.0 - 1.0 / (1.0 + np.sqrt(sizes))[:, None]
    profiles = believed * filled + (1 - believed) * background
    return torch.from_numpy(profiles / profiles.sum(axis=1, keepdims=True)).float()


def _mean_shares(counts: sparse.csr_matrix) -> np.ndarray:
    """Mean over cells of their shares [G]; every cell weighs the same, whatever its depth."""
    total = np.asarray(counts.sum(axis=1)).ravel().astype(np.float64)
    weights = np.divide(1.0, total, out=np.zeros_like(total), where=total > 0)
    return weights @ counts / max(len(total), 1)


def _fill_unmeasured(raw: np.ndarray, measured: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Shares [P, G] with something sensible for genes that a profile's study did not measure, rows summing to one."""
    overall = _mean_of_measured(raw, measured)
    filled = np.empty_like(raw)
    for label in np.unique(labels):
        of_label = labels == label
        expected = np.where(
            measured[of_label].any(axis=0), _mean_of_measured(raw[of_label], measured[of_label]), overall
        )
        filled[of_label] = np.where(measured[of_label], raw[of_label], expected)
    return filled / filled.sum(axis=1, keepdims=True)


def _mean_of_measured(raw: np.ndarray, measured: np.ndarray) -> np.ndarray:
    return (raw * measured).sum(axis=0) / np.maximum(measured.sum(axis=0), 1)
