"""Groups of similar cells: a neighbour graph of the cells' embedding and the Leiden communities in it."""

from __future__ import annotations

import threading
import warnings
from dataclasses import dataclass

import numpy as np
import pandas as pd
import scanpy as sc
import scipy.sparse as sp
from anndata import AnnData

from instructcell.analysis.measured import Rows, checked_rows, measured_cells
from instructcell.doctor import DatasetReport
from instructcell.errors import InstructCellError
from instructcell.tasks import EMBEDDING

LEAST_CELLS = 3
N_COMPONENTS, N_VARIABLE = 50, 2000  # of the principal components, where there is no embedding
_ONE_AT_A_TIME = threading.Lock()  # igraph's random numbers are one stream for the whole process
PCA_BASIS = "principal components of log-normalised expression"


@dataclass(frozen=True)
class Clusters:
    """Groups of cells, named "0", "1", ... from the largest to the smallest.

    Attributes
    ----------
    groups
        Categorical text [N], indexed by the cells' names.
    table
        One row per group: `cluster`, `cells`, `share`.
    rows
        Positions of the cells in the file [N].
    basis
        What the neighbours were found in: "X_instructcell", or principal components of the expression.
    resolution, n_neighbors, seed
        How it was made.
    modularity
        Of the groups in the neighbour graph: 0 for none, towards 1 for well separated ones.
    """

    groups: pd.Series
    table: pd.DataFrame
    rows: np.ndarray
    basis: str
    resolution: float
    n_neighbors: int
    seed: int
    modularity: float

    @property
    def n_clusters(self) -> int:
        """How many groups there are."""
        return len(self.table)

    def rows_of(self, cluster: str) -> np.ndarray:
        """Positions in the file of one group's cells.

        Raises
        ------
        InstructCellError
            There is no such group.
        """
        hits = (self.groups == str(cluster)).to_numpy()
        if not hits.any():
            raise InstructCellError(
                f"found no cluster {cluster!r}; there are {self.n_clusters}, named 0 to {self.n_clusters - 1}"
            )
        return self.rows[hits]


def cluster(
    cells: AnnData | np.ndarray,
    *,
    resolution: float = 1.0,
    n_neighbors: int = 15,
    seed: int = 0,
    rows: Rows = None,
    report: DatasetReport | None = None,
) -> Clusters:
    """Group cells by their neighbours in the embedding of the checkpoint.

    Parameters
    ----------
    cells
        An AnnData, of which obsm `X_instructcell` is used (`ic.tl.embed` or `ic.tl.annotate` writes it) and principal
        components of its expression where that is missing; or an embedding [N, Z].
    resolution
        More for more and smaller groups.
    n_neighbors
        Neighbours of a cell, itself included.
    seed
        The same seed gives the same groups.
    rows
        Positions of the cells; all for None.

    Raises
    ------
    InstructCellError
        Fewer than three cells, or a resolution that is not above zero.

    Examples
    --------
    >>> cluster(adata, resolution=0.5).table  # doctest: +SKIP
    """
    if not resolution > 0:
        raise InstructCellError(f"found a resolution of {resolution:g}, expected a number above 0, usually 0.2 to 2")
    if n_neighbors < 2:
        raise InstructCellError(f"found {n_neighbors} neighbours, expected at least 2, usually 15")
    n_cells = cells.n_obs if isinstance(cells, AnnData) else len(cells)
    chosen = checked_rows(rows, n_cells)
    if len(chosen) < LEAST_CELLS:
        raise InstructCellError(f"found {len(chosen)} cells, expected at least {LEAST_CELLS} to group; choose more")
    points, basis, names = _points(cells, chosen, report, seed)
    n_neighbors = min(n_neighbors, len(points) - 1)
    plain = AnnData(obs=pd.DataFrame(index=names), obsm={"points": points})
    with _ONE_AT_A_TIME, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        sc.pp.neighbors(plain, n_neighbors=n_neighbors, use_rep="points", method="gauss", random_state=seed)
        sc.tl.leiden(plain, resolution=resolution, random_state=seed, flavor="igraph", n_iterations=2, directed=False)
    groups = _by_size(plain.obs["leiden"].astype(str))
    sizes = groups.value_counts().reindex(groups.cat.categories)
    table = pd.DataFrame({"cluster": sizes.index, "cells": sizes.to_numpy(), "share": sizes.to_numpy() / len(groups)})
    split = modularity(plain.obsp["connectivities"], groups.cat.codes.to_numpy())
    return Clusters(groups, table, chosen, basis, float(resolution), n_neighbors, seed, split)


def modularity(graph: sp.spmatrix, codes: np.ndarray) -> float:
    """Newman's modularity of groups in a symmetric weighted graph [N, N]; codes [N] int from 0."""
    weights = sp.coo_matrix(graph)
    total = float(weights.data.sum())
    if total == 0:
        return 0.0
    within = float(weights.data[codes[weights.row] == codes[weights.col]].sum())
    degrees = np.bincount(codes[weights.row], weights.data)
    return within / total - float(((degrees / total) ** 2).sum())


def _points(
    cells: AnnData | np.ndarray, rows: np.ndarray, report: DatasetReport | None, seed: int
) -> tuple[np.ndarray, str, pd.Index]:
    """The cells as points [N, Z], what these are, and the cells' names."""
    if not isinstance(cells, AnnData):
        return np.asarray(cells, np.float32)[rows], "embedding", pd.Index(map(str, rows))
    names = cells.obs_names[rows]
    if EMBEDDING in cells.obsm:
        return np.asarray(cells.obsm[EMBEDDING], np.float32)[rows], EMBEDDING, names
    expression = measured_cells(cells, report, rows).log_expression
    spread = np.asarray(expression.multiply(expression).mean(axis=0)).ravel()
    spread -= np.asarray(expression.mean(axis=0)).ravel() ** 2
    variable = np.sort(np.argsort(-spread, kind="stable")[:N_VARIABLE])
    n_components = min(N_COMPONENTS, len(rows) - 1, len(variable) - 1)
    points = sc.pp.pca(expression[:, variable].toarray(), n_comps=n_components, random_state=seed)
    return np.asarray(points, np.float32), PCA_BASIS, names


def _by_size(groups: pd.Series) -> pd.Series:
    """The groups renamed by size; of equal ones the one whose first cell comes first goes first."""
    first = {name: at for at, name in reversed(list(enumerate(groups)))}
    sizes = groups.value_counts()
    order = sorted(sizes.index, key=lambda name: (-sizes[name], first[name]))
    renamed = {name: str(at) for at, name in enumerate(order)}
    values = pd.Categorical(groups.map(renamed), categories=[str(at) for at in range(len(order))])
    return pd.Series(values, index=groups.index, name="cluster")
