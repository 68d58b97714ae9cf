"""A map of cells: two coordinates per cell, without a compiler and within seconds.

The layout optimises the objective of UMAP (McInnes et al. 2018, arXiv:1802.03426) with whole-array steps: at a few
thousand cells that is faster than compiling the reference implementation, and the same seed gives the same map.
"""

from __future__ import annotations

import numpy as np
import scipy.sparse as sp
from sklearn.neighbors import NearestNeighbors

A, B = 1.577, 0.895  # the curve 1 / (1 + a d^2b) for a minimal distance of 0.1
MAX_STEP = 4.0  # a pull or push of one neighbour is clipped to this


def map_cells(
    embedding: np.ndarray, *, n_neighbors: int = 15, n_epochs: int = 200, max_cells: int = 4000, seed: int = 0
) -> np.ndarray:
    """Lay cells out in two dimensions so that neighbours stay neighbours.

    Parameters
    ----------
    embedding
        [N, Z] float.
    n_neighbors
        How many neighbours (itself included) a cell is tied to.
    max_cells
        Of a larger set so many are laid out; the others go to the mean of their three nearest ones.

    Returns
    -------
    numpy.ndarray
        [N, 2] float32.

    Examples
    --------
    >>> map_cells(adata.obsm["X_instructcell"]).shape
    """
    embedding = np.nan_to_num(np.asarray(embedding, dtype=np.float32))
    n = len(embedding)
    if n <= max(n_neighbors, 3):
        return principal_axes(embedding)
    if n <= max_cells:
        return _optimise(embedding, _fuzzy_neighbours(embedding, n_neighbors), n_epochs, seed)
    anchors = np.sort(np.random.default_rng(seed).choice(n, max_cells, replace=False))
    positions = map_cells(
        embedding[anchors], n_neighbors=n_neighbors, n_epochs=n_epochs, max_cells=max_cells, seed=seed
    )
    nearest = NearestNeighbors(n_neighbors=3).fit(embedding[anchors]).kneighbors(embedding, return_distance=False)
    placed = positions[nearest].mean(axis=1)
    placed[anchors] = positions
    return placed


def principal_axes(embedding: np.ndarray) -> np.ndarray:
    """The first two principal components, scaled to a span of about 20; [N, Z] -> [N, 2]."""
    centred = np.asarray(embedding, dtype=np.float64) - np.mean(embedding, axis=0)
    values, vectors = np.linalg.eigh(centred.T @ centred)
    axes = vectors[:, np.argsort(values)[::-1][:2]]
    axes = axes * np.sign(axes[np.abs(axes).argmax(axis=0), np.arange(axes.shape[1])])  # a sign that does not flip
    positions = centred @ axes
    if positions.shape[1] < 2:
        positions = np.pad(positions, ((0, 0), (0, 2 - positions.shape[1])))
    return (positions * (10.0 / max(float(np.abs(positions).max(initial=0.0)), 1e-9))).astype(np.float32)


def _fuzzy_neighbours(embedding: np.ndarray, n_neighbors: int) -> sp.coo_matrix:
    """Symmetric weights 0..1 between neighbours; each cell's own scale makes its weights sum to log2(n_neighbors)."""
    distances, indices = NearestNeighbors(n_neighbors=n_neighbors).fit(embedding).kneighbors(embedding)
    beyond = np.maximum(distances[:, 1:] - distances[:, 1:2], 0.0)  # [N, k-1]
    low, high, scale = np.zeros(len(embedding)), np.full(len(embedding), np.inf), np.ones(len(embedding))
    for _ in range(40):
        too_wide = np.exp(-beyond / scale[:, None]).sum(axis=1) > np.log2(n_neighbors)
        high, low = np.where(too_wide, scale, high), np.where(too_wide, low, scale)
        scale = np.maximum(np.where(np.isinf(high), scale * 2, (low + np.where(np.isinf(high), low, high)) / 2), 1e-6)
    weights = np.exp(-beyond / scale[:, None])
    rows = np.repeat(np.arange(len(embedding)), n_neighbors - 1)
    one_way = sp.csr_matrix((weights.ravel(), (rows, indices[:, 1:].ravel())), shape=(len(embedding),) * 2)
    return (one_way + one_way.T - one_way.multiply(one_way.T)).tocoo()


def _optimise(embedding: np.ndarray, graph: sp.coo_matrix, n_epochs: int, seed: int) -> np.ndarray:
    """Pull neighbours together and push random cells apart, less with every epoch."""
    rng, n, pushes = np.random.default_rng(seed), len(embedding), 5
    chance = graph.data / graph.data.max()
    kept = chance > 1.0 / n_epochs
    heads, tails, chance = graph.row[kept], graph.col[kept], chance[kept]
    positions = principal_axes(embedding).astype(np.float64) + rng.normal(0, 1e-3, (n, 2))
    for epoch in range(n_epochs):
        drawn = rng.random(len(chance)) < chance
        head, tail = heads[drawn], tails[drawn]
        gap = positions[head] - positions[tail]
        square = (gap * gap).sum(axis=1) + 1e-12
        pull = np.clip((-2 * A * B * square ** (B - 1) / (1 + A * square**B))[:, None] * gap, -MAX_STEP, MAX_STEP)
        pushed, others = np.repeat(head, pushes), rng.integers(0, n, len(head) * pushes)
        gap = positions[pushed] - positions[others]
        square = (gap * gap).sum(axis=1)
        push = np.clip((2 * B / ((0.001 + square) * (1 + A * square**B)))[:, None] * gap, -MAX_STEP, MAX_STEP)
        for axis in range(2):
            step = np.bincount(head, pull[:, axis], n) - np.bincount(tail, pull[:, axis], n)
            step += np.bincount(pushed, push[:, axis], n)
            positions[:, axis] += 0.5 * (1 - epoch / n_epochs) * np.clip(step, -2 * MAX_STEP, 2 * MAX_STEP)
    return positions.astype(np.float32)
