"""From a file's genes to a model's genes. Only this module decides what a missing gene means: unmeasured, not zero."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import scipy.sparse as sp
from anndata import AnnData

from instructcell.doctor import DatasetReport, inspect
from instructcell.errors import GeneAlignmentError
from instructcell.genes import GeneResolver
from instructcell.matrix import ROWS, matrix_named
from instructcell.scale import to_linear

# The floor: a targeted panel of 120 genes passes, a file whose names are something else does not.
LEAST_SHARED = 20
LEAST_KNOWN_SHARE = 0.05


@dataclass(frozen=True)
class AlignedCells:
    """Cells over a model's genes.

    Attributes
    ----------
    counts
        csr float32 [N, G], linear scale, zero where unmeasured.
    measured
        bool [G]: whether the file measured the gene.
    coverage, n_shared
        Share and number of the model's genes that were measured.
    report
        What the doctor said about the file.
    """

    counts: sp.csr_matrix
    measured: np.ndarray
    coverage: float
    n_shared: int
    report: DatasetReport


def align_genes(
    adata: AnnData,
    genes: Sequence[str],
    report: DatasetReport | None = None,
    *,
    rows: ROWS = None,
    layer: str | None = None,
    species: str | None = None,
    gene_column: str | None = None,
) -> AlignedCells:
    """Bring cells onto a model's genes and a linear scale.

    Genes of the file that share a symbol are summed; mouse genes go to the slot of their one-to-one human ortholog.

    Parameters
    ----------
    adata
        Cells by genes.
    genes
        The model's genes [G], human symbols.
    report
        The doctor's report on this file. Give it when calling chunk by chunk, so that nothing is judged twice.
    rows
        A slice or an index array; all cells for None.
    layer, species, gene_column
        As for `instructcell.doctor.inspect`, used only without a report.

    Returns
    -------
    AlignedCells
        counts [N, G] and measured [G].

    Raises
    ------
    GeneAlignmentError
        Fewer than 20 genes are shared, or fewer than 5 % of the file's genes are known.
    MatrixError
        As `inspect` raises it.

    Examples
    --------
    >>> import numpy as np, anndata
    >>> from instructcell.genes import load_gene_table
    >>> genes = list(load_gene_table().symbol[:50])
    >>> adata = anndata.AnnData(np.ones((2, 40)))
    >>> adata.var_names = genes[:40]
    >>> align_genes(adata, genes).coverage
    0.8
    """
    if report is None:
        report = inspect(adata, layer=layer, species=species, gene_column=gene_column)
    report = report.with_genes(genes)
    matrix = matrix_named(adata, report.matrix)
    if matrix.shape[1] != len(report.gene_symbols):
        raise ValueError(f"the report is of {len(report.gene_symbols)} genes, {matrix.name} has {matrix.shape[1]}")
    n_shared, coverage = report.n_shared_genes or 0, report.coverage or 0.0
    if n_shared < LEAST_SHARED or report.n_known_genes < LEAST_KNOWN_SHARE * report.n_genes:
        raise GeneAlignmentError(_too_few(adata, report, n_shared, len(genes)))
    to_slots = _projection(report.gene_symbols, genes)
    counts = sp.csr_matrix(to_linear(matrix.rows(rows), report.scale_detail) @ to_slots, dtype=np.float32)
    counts.sort_indices()
    measured = np.asarray(to_slots.sum(axis=0)).ravel() > 0
    return AlignedCells(counts, measured, coverage, n_shared, report)


def _projection(symbols: Sequence[str | None], genes: Sequence[str]) -> sp.csr_matrix:
    """0/1 matrix [genes of the file, G] that puts each known gene into its slot; equal symbols add up."""
    slots = {gene: slot for slot, gene in enumerate(genes)}
    pairs = [(row, slots[symbol]) for row, symbol in enumerate(symbols) if symbol is not None and symbol in slots]
    at = np.array(pairs, dtype=np.int64).reshape(-1, 2)
    ones = np.ones(len(pairs), dtype=np.float32)
    return sp.csr_matrix((ones, (at[:, 0], at[:, 1])), shape=(len(symbols), len(genes)))


def _too_few(adata: AnnData, report: DatasetReport, n_shared: int, n_genes: int) -> str:
    """Found, expected, and the most likely remedy."""
    matrix = matrix_named(adata, report.matrix)
    names = ", ".join(map(str, matrix.var.index[:3]))
    found = (
        f"{n_shared:,} of {n_genes:,} model genes found among the file's {report.n_genes:,} "
        f"({report.n_known_genes:,} known). Gene names look like {names}; expected symbols of human or mouse genes "
        f"(TP53, Trp53) or Ensembl ids (ENSG00000141510), at least {LEAST_SHARED} shared with the model "
        f"and {LEAST_KNOWN_SHARE:.0%} of the file's known. "
    )
    cells = list(map(str, adata.obs_names[:2000]))
    if GeneResolver().resolve(cells).share_found > 0.3:
        return found + "The cell names look like genes: transpose the file (adata.T)."
    if report.gene_column is None and len(matrix.var.columns):
        return (
            found
            + f"Name the column that holds gene names (gene_column), one of: {', '.join(map(str, matrix.var.columns))}."
        )
    return found + "Rename the genes, or bring the file from before its genes were numbered or filtered."
