"""Refitted baselines: what a user would otherwise do with the same training cells."""

from __future__ import annotations

import numpy as np
from scipy import sparse
from sklearn.linear_model import LogisticRegression
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import MaxAbsScaler

from train.metrics import N_NEIGHBOURS, log_normalise


def logistic_regression() -> Pipeline:
    return make_pipeline(MaxAbsScaler(), LogisticRegression(C=1.0, max_iter=300, class_weight="balanced"))


def nearest_neighbours(n_cells: int) -> KNeighborsClassifier:
    return KNeighborsClassifier(min(N_NEIGHBOURS, n_cells), metric="cosine")


def refit_and_predict(
    train_counts: sparse.csr_matrix, train_labels: np.ndarray, test_counts: sparse.csr_matrix, genes: np.ndarray
) -> dict[str, np.ndarray]:
    """Labels [N] that each baseline gives the test cells, refitted on log expression of the shared genes [G] bool."""
    columns = np.flatnonzero(genes)
    known, unseen = log_normalise(train_counts[:, columns]), log_normalise(test_counts[:, columns])
    majority = np.unique(train_labels, return_counts=True)
    return {
        "logistic regression": logistic_regression().fit(known, train_labels).predict(unseen),
        "10-NN": nearest_neighbours(len(known)).fit(known, train_labels).predict(unseen),
        "majority": np.full(len(unseen), majority[0][majority[1].argmax()]),
    }


def independent_poisson(
    train_counts: sparse.csr_matrix, train_labels: np.ndarray, types: np.ndarray, seed: int
) -> np.ndarray:
    """Counts [N, G] for the types asked for [N]: genes Poisson around the type's profile, depths of real cells."""
    rng = np.random.default_rng(seed)
    cells = np.zeros((len(types), train_counts.shape[1]), np.float32)
    for name in np.unique(types):
        of_type = train_counts[np.flatnonzero(train_labels == name)]
        total = np.asarray(of_type.sum(axis=1)).ravel()
        profile = np.asarray(of_type.sum(axis=0)).ravel() / total.sum()
        rows = np.flatnonzero(types == name)
        cells[rows] = rng.poisson(rng.choice(total, len(rows))[:, None] * profile)
    return cells
