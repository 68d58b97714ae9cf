"""The same cells in twelve disguises are given the same names.

The 2,000-gene panel is chosen as real panels are: the most variable genes of log-normalised values among those that
three cells or more express (scanpy's ranking). TPM-like values, counts divided by gene lengths, cannot be turned back
into counts; they are held to a bound of their own.
"""

from __future__ import annotations

from functools import cache

import anndata
import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp
from anndata import AnnData
from disguises import LN2, LN10, lengths, to_total

from instructcell.genes import GeneResolver, load_gene_table
from instructcell.resources import RESOURCES
from instructcell.tools import annotate

EXACT, NEAR, PANEL = 0.98, 0.95, 0.95


def islets(step: int = 4) -> AnnData:
    """Every fourth of the demo's islet cells, all genes."""
    return anndata.read_h5ad(RESOURCES / "demo_islets.h5ad")[::step].copy()


def with_values(values: np.ndarray | sp.spmatrix, genes: list[str] | None = None) -> AnnData:
    cells = islets()
    return AnnData(values, obs=cells.obs[[]], var=pd.DataFrame(index=list(cells.var_names) if genes is None else genes))


def counts() -> np.ndarray:
    return islets().X.toarray().astype(np.float64)


def log1p(target: float = 1e4, unit: float = 1.0) -> sp.csr_matrix:
    return sp.csr_matrix((np.log1p(to_total(counts(), target)) / unit).astype(np.float32))


def ensembl_ids() -> list[str]:
    """Ensembl ids with versions; names that the table does not know stay."""
    ids = load_gene_table().set_index("symbol")["ensembl_id"]
    cells = islets()
    known = GeneResolver().resolve(list(cells.var_names), "human").symbols
    return [
        f"{ids[symbol]}.4" if symbol is not None and ids[symbol] else name
        for name, symbol in zip(cells.var_names, known, strict=True)
    ]


def aliases() -> list[str]:
    """An older name of each gene, where one is free and means this gene alone."""
    resolver, table = GeneResolver(), load_gene_table().set_index("symbol")
    names = list(islets().var_names)
    taken = set(names)
    for row, symbol in enumerate(resolver.resolve(names, "human").symbols):
        older = "" if symbol is None else f"{table.at[symbol, 'previous']};{table.at[symbol, 'aliases']}"
        for name in filter(None, older.split(";")):
            if name not in taken and resolver.human.find(name) in ((symbol, "previous"), (symbol, "alias")):
                names[row] = name
                taken.add(name)
                break
    return names


def panel() -> AnnData:
    """Raw counts of the 2,000 most variable genes of all of the demo's islet cells."""
    import scanpy

    cells = islets(1)
    ranked = cells.copy()
    scanpy.pp.filter_genes(ranked, min_cells=3)
    scanpy.pp.normalize_total(ranked, target_sum=1e4)
    scanpy.pp.log1p(ranked)
    scanpy.pp.highly_variable_genes(ranked, n_top_genes=2000)
    return cells[:, ranked.var_names[ranked.var["highly_variable"]]].copy()


def shuffled() -> AnnData:
    return islets()[:, np.random.default_rng(0).permutation(20_125)].copy()


DISGUISES = {
    "CP10k and log1p": (lambda: with_values(log1p()), EXACT),
    "CPM": (lambda: with_values(sp.csr_matrix(to_total(counts(), 1e6).astype(np.float32))), EXACT),
    "log2 of CPM": (lambda: with_values(log1p(1e6, LN2)), EXACT),
    "log10 of CP10k": (lambda: with_values(log1p(1e4, LN10)), EXACT),
    "TPM-like": (lambda: with_values(sp.csr_matrix(to_total(counts() / lengths(20_125), 1e6))), NEAR),
    "Ensembl ids": (lambda: with_values(islets().X, ensembl_ids()), EXACT),
    "aliases": (lambda: with_values(islets().X, aliases()), EXACT),
    "shuffled genes": (shuffled, EXACT),
    "csc": (lambda: with_values(islets().X.tocsc()), EXACT),
    "panel of 2,000 variable genes": (panel, PANEL),
    "dense float64": (lambda: with_values(counts()), EXACT),
}


@cache
def undisguised(step: int) -> pd.Series:
    """Names of the cells as they are: every fourth, or all of them."""
    return annotate(islets(step)).table["best_guess"]


@pytest.mark.parametrize("name", DISGUISES)
def test_cells_are_known_in_disguise(name: str):
    disguised, bound = DISGUISES[name]
    found = annotate(disguised()).table["best_guess"]
    raw = undisguised(1 if len(found) > 151 else 4)
    same = float((found.to_numpy() == raw.loc[found.index].to_numpy()).mean())
    assert same >= bound, f"{same:.1%} of the cells agree"
