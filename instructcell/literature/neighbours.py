"""Labels without training: the nearest labelled cells vote, and clusters are compared with labels (GenePT, scMPT)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from sklearn.cluster import KMeans
from sklearn.metrics import adjusted_mutual_info_score, adjusted_rand_score
from sklearn.neighbors import NearestNeighbors

from instructcell.errors import LabelError

N_NEIGHBOURS = 10
N_CANDIDATES = 3


@dataclass(frozen=True)
class NeighbourVotes:
    """What the nearest labelled cells say of each cell.

    Attributes
    ----------
    labels
        [N] the type of most of the neighbours.
    share
        [N] the share of the neighbours that have it, 0 to 1.
    candidates
        Of each cell the types of its neighbours, those with most votes first, at most three.
    """

    labels: np.ndarray
    share: np.ndarray
    candidates: list[list[str]]


def vote(known: np.ndarray, labels: np.ndarray, vectors: np.ndarray, k: int = N_NEIGHBOURS) -> NeighbourVotes:
    """Name each cell by its k nearest labelled cells, cosine similarity; of types with equal votes the nearer wins.

    Parameters
    ----------
    known, labels
        Vectors [M, D] of cells whose labels [M] are known.
    vectors
        Of the cells to name [N, D].

    Raises
    ------
    LabelError
        The labelled cells have fewer than two types.

    Examples
    --------
    >>> vote(np.eye(2), np.array(["a", "b"]), np.array([[0.9, 0.1]]), k=1).labels.tolist()
    ['a']
    """
    names = np.asarray(labels).astype(str)
    require_two_classes(names, "the labelled cells")
    search = NearestNeighbors(n_neighbors=min(k, len(names)), metric="cosine", algorithm="brute").fit(known)
    distances, nearest = search.kneighbors(vectors)
    ranked = [_ranked(names[row], distance) for row, distance in zip(nearest, distances, strict=True)]
    return NeighbourVotes(
        labels=np.array([types[0][0] for types in ranked]),
        share=np.array([types[0][1] / nearest.shape[1] for types in ranked], np.float32),
        candidates=[[name for name, _ in types[:N_CANDIDATES]] for types in ranked],
    )


def _ranked(names: np.ndarray, distances: np.ndarray) -> list[tuple[str, int]]:
    """Types with their votes, most first; equal votes by the nearest of each."""
    types = [(str(name), int((names == name).sum()), float(distances[names == name].min())) for name in set(names)]
    return [(name, votes) for name, votes, _ in sorted(types, key=lambda row: (-row[1], row[2], row[0]))]


def cluster_agreement(vectors: np.ndarray, labels: np.ndarray, seed: int = 0) -> dict[str, float]:
    """Adjusted Rand index and adjusted mutual information of k-means (k = number of labels) with the labels.

    Raises
    ------
    LabelError
        There are fewer than two labels.
    """
    names = np.asarray(labels).astype(str)
    n_labels = require_two_classes(names, "the cells")
    clusters = KMeans(n_clusters=n_labels, n_init=10, random_state=seed).fit_predict(vectors)
    return {
        "ari": float(adjusted_rand_score(names, clusters)),
        "ami": float(adjusted_mutual_info_score(names, clusters)),
    }


def require_two_classes(labels: np.ndarray, what: str) -> int:
    """How many types there are; a LabelError when there is nothing to tell apart."""
    types = np.unique(labels)
    if len(types) < 2:
        found = f"only '{types[0]}'" if len(types) else "no cells"
        raise LabelError(f"found {found} among {what}, expected at least two types; choose another split or column")
    return len(types)
