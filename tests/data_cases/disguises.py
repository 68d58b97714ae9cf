"""The shipped demo cells in the disguises that files wear: scales, gene names, matrices in other places.

Everything is made by code from `demo_islets.h5ad` with fixed seeds; nothing is read from elsewhere.
"""

from __future__ import annotations

from functools import lru_cache

import anndata
import numpy as np
import pandas as pd
import scipy.sparse as sp
from anndata import AnnData

from instructcell.genes import GeneResolver, load_gene_table
from instructcell.resources import RESOURCES

N_CELLS, N_GENES = 120, 4000
LN2, LN10 = np.log(2), np.log(10)


@lru_cache(maxsize=1)
def demo() -> tuple[np.ndarray, list[str]]:
    """Counts [120, 4000] of demo cells over the genes that most of them express, and their approved human symbols.

    Every gene has a mouse counterpart, Ensembl ids of both species and an Entrez id, so that it can be named any way.
    """
    cells = anndata.read_h5ad(RESOURCES / "demo_islets.h5ad")
    cells = cells[np.linspace(0, cells.n_obs - 1, N_CELLS).astype(int)]
    table = load_gene_table().set_index("symbol")
    named = (table[["mouse_symbol", "mouse_ensembl_id", "ensembl_id", "entrez_id"]] != "").all(axis=1)
    symbols = GeneResolver().resolve(list(cells.var_names), species="human").symbols
    first = ~pd.Series(symbols).duplicated().to_numpy()
    usable = first & np.array([symbol is not None and bool(named[symbol]) for symbol in symbols])
    detected = np.asarray((cells.X > 0).sum(axis=0)).ravel() * usable
    chosen = np.sort(np.argsort(-detected, kind="stable")[:N_GENES])
    return cells.X[:, chosen].toarray().astype(np.float64), [str(symbols[gene]) for gene in chosen]


def counts() -> np.ndarray:
    return demo()[0]


def symbols() -> list[str]:
    return demo()[1]


def names(column: str) -> list[str]:
    """The demo genes as a column of the gene table names them."""
    return load_gene_table().set_index("symbol").loc[symbols(), column].tolist()


def make(matrix: object | None = None, genes: list[str] | None = None, *, form: str = "csr") -> AnnData:
    """An AnnData of a matrix [N, G] (the counts for None), named by symbols unless told otherwise."""
    matrix = counts() if matrix is None else matrix
    genes = symbols()[: matrix.shape[1]] if genes is None else genes  # type: ignore[attr-defined]
    if form != "as it is":
        matrix = {"csr": sp.csr_matrix, "csc": sp.csc_matrix, "dense": np.asarray}[form](matrix)
    obs = pd.DataFrame(index=[f"cell{row}" for row in range(matrix.shape[0])])  # type: ignore[attr-defined]
    adata = AnnData(obs=obs, var=pd.DataFrame(index=pd.Index(genes, dtype=object)))
    adata.X = matrix
    return adata


def to_total(matrix: np.ndarray, target: float = 1e4) -> np.ndarray:
    """Every cell brought to one total."""
    totals = matrix.sum(axis=1, keepdims=True)
    return matrix / np.where(totals == 0, 1, totals) * target


def lognorm(dtype: str = "float32", target: float = 1e4) -> np.ndarray:
    """log(CP10k + 1), as scanpy and Seurat write it."""
    return np.log1p(to_total(counts(), target)).astype(dtype)


def lengths(n: int) -> np.ndarray:
    """Gene lengths in kb, spread as transcript lengths are."""
    return np.random.default_rng(7).lognormal(0.7, 0.8, n)


def tpm(matrix: np.ndarray | None = None) -> np.ndarray:
    """Counts by gene length, then a million per cell."""
    matrix = counts() if matrix is None else matrix
    return to_total(matrix / lengths(matrix.shape[1]), 1e6)


def rpkm() -> np.ndarray:
    """Counts by gene length and by a depth that includes reads outside the matrix, so that totals differ."""
    depth = counts().sum(axis=1, keepdims=True) * np.random.default_rng(3).uniform(1.1, 2.0, (N_CELLS, 1))
    return counts() / lengths(N_GENES) / depth * 1e6


def size_factors() -> np.ndarray:
    """Depth of each cell relative to the others, with the noise of an estimate [N, 1]."""
    depth = counts().sum(axis=1, keepdims=True)
    return depth / depth.mean() * np.random.default_rng(5).lognormal(0, 0.2, depth.shape)


def z_scores() -> np.ndarray:
    values = lognorm("float64")
    return (values - values.mean(axis=0)) / (values.std(axis=0) + 1e-9)


def full_length() -> np.ndarray:
    """Read counts as of Smart-seq2: every molecule seen by many reads, more genes detected."""
    rng = np.random.default_rng(11)
    molecules = rng.poisson(counts() * 3.0 + counts().mean(axis=0))
    return rng.poisson(molecules * rng.gamma(2.0, 20.0, molecules.shape)).astype(np.float64)


def variable_genes(n: int) -> np.ndarray:
    """Positions of the n most variable genes of log-normalised values, as scanpy's "seurat" flavour ranks them."""
    import scanpy

    adata = make(lognorm("float32"))
    scanpy.pp.highly_variable_genes(adata, n_top_genes=n)
    return np.flatnonzero(adata.var["highly_variable"])


def older_names() -> list[str]:
    """Previous symbols or aliases where a gene has one that means nothing else, else its symbol."""
    table, resolver = load_gene_table().set_index("symbol"), GeneResolver()
    chosen = []
    for symbol in symbols():
        row = table.loc[symbol]
        older = [name for name in (*row["previous"].split(";"), *row["aliases"].split(";")) if name]
        chosen.append(next((name for name in older if resolver.human.find(name)[0] == symbol), symbol))
    return chosen


def droplets(n: int = 3000) -> np.ndarray:
    """The demo cells among droplets that hold a few molecules of ambient RNA."""
    ambient = counts().sum(axis=0) / counts().sum()
    rng = np.random.default_rng(1)
    empty = np.zeros((n, N_GENES))
    for row, depth in enumerate(rng.poisson(6, n)):
        np.add.at(empty[row], rng.choice(N_GENES, depth, p=ambient), 1)
    return np.vstack([empty[: n // 2], counts(), empty[n // 2 :]])


def with_nan(value: float, matrix: np.ndarray | None = None) -> np.ndarray:
    """A value that is no number in cell5 and the eighth gene."""
    matrix = counts().copy() if matrix is None else matrix.copy()
    matrix[5, 7] = value
    return matrix
