"""Cells for the reading tests: real gene names, negative binomial counts, and the disguises that files wear."""

from __future__ import annotations

import numpy as np
import pandas as pd
import scipy.sparse as sp
from anndata import AnnData

from instructcell.genes import load_gene_table


def human_genes(n: int = 300) -> list[str]:
    """Protein-coding symbols that have a mouse counterpart and an Ensembl id."""
    table = load_gene_table()
    chosen = table[(table.biotype == "protein_coding") & (table.mouse_symbol != "") & (table.ensembl_id != "")]
    return chosen.symbol.iloc[: n * 5 : 5].tolist()


def gene_names(symbols: list[str], column: str) -> list[str]:
    return load_gene_table().set_index("symbol").loc[symbols, column].tolist()


def make_counts(n_cells: int = 40, n_genes: int = 300, seed: int = 0) -> np.ndarray:
    """Sparse counts [N, G] of very different depth per cell; every cell holds a single count and every gene is seen."""
    rng = np.random.default_rng(seed)
    mean = rng.lognormal(-1.0, 1.5, n_genes)[None] * rng.lognormal(0.0, 0.5, n_cells)[:, None]
    counts = rng.poisson(rng.gamma(0.7, mean / 0.7)).astype(np.float32)
    counts[np.arange(n_cells), rng.integers(0, n_genes, n_cells)] = 1
    return counts


def make_adata(matrix: np.ndarray | None = None, names: list[str] | None = None) -> AnnData:
    matrix = make_counts() if matrix is None else matrix
    obs = pd.DataFrame(index=[f"cell{i}" for i in range(matrix.shape[0])])
    var = pd.DataFrame(index=names or human_genes(matrix.shape[1]))
    return AnnData(sp.csr_matrix(matrix), obs=obs, var=var)


def normalised(counts: np.ndarray, target: float = 1e4) -> np.ndarray:
    """Every cell brought to the same total, float64."""
    return counts / counts.sum(1, keepdims=True, dtype=np.float64) * target


def without_whole_numbers(counts: np.ndarray, target: float = 1e6, seed: int = 1) -> np.ndarray:
    """TPM-like: divided by gene lengths before the totals are made equal."""
    lengths = np.random.default_rng(seed).uniform(0.3, 5.0, counts.shape[1])
    return normalised(counts / lengths, target)
