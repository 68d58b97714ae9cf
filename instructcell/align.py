"""From a file's genes to a model's genes. Only this module decides what a missing gene means: unmeasured, not zero."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

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
LEAST_COUNTS_SHARE = 0.1

FOREIGN_NAMES = (
    (re.compile(r"ENS(?:MUS)?T\d{11}"), "These are transcripts: sum them per gene."),
    (re.compile(r"ENS(?:MUS)?P\d{11}"), "These are proteins: name their genes."),
    (re.compile(r"ENS(?!MUS)[A-Z]{3,4}G\d{11}"), "These are genes of another species: only human and mouse are read."),
    (re.compile(r"[NX][MR]_\d+"), "These are RefSeq transcripts: sum them per gene and name the genes."),
    (re.compile(r"\d+(?:_[a-z])?_at$|ILMN_\d+"), "These are probes of a microarray: name the genes that they measure."),
    (re.compile(r"HGNC:\d+|MGI:\d+"), "These are HGNC or MGI ids: bring symbols or Ensembl ids."),
    (re.compile(r"(?:FBgn|WBGene)\d+|ZDB-GENE"), "These are genes of another species: only human and mouse are read."),
    (re.compile(r"(?:chr)?[\dXYM]+[:_-]\d+[-_]\d+$"), "These are genomic intervals (peaks): bring gene expression."),
    (
        re.compile(r"\d+(?:\.0)?$"),
        "These numbers are no Entrez ids of human or mouse genes: bring symbols or Ensembl ids.",
    ),
)


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
    scale: str | None = None,
    species: str | None = None,
    gene_column: str | None = None,
    force: bool = False,
) -> AlignedCells:
    """Bring cells onto a model's genes and a linear scale.

    Genes of the file that share a symbol are summed; mouse genes go to the slot of their human counterpart.

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
    layer, scale, species, gene_column
        As for `instructcell.doctor.inspect`, used only without a report.
    force
        Align also below the floor, as long as one gene is shared.

    Returns
    -------
    AlignedCells
        counts [N, G] and measured [G].

    Raises
    ------
    GeneAlignmentError
        Below the floor: fewer than 20 genes are shared, fewer than 5 % of the file's genes are known, or less than
        10 % of the cells' counts lie in genes of the model while over half of the model's genes are unmeasured.
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
        report = inspect(adata, layer=layer, scale=scale, species=species, gene_column=gene_column)
    aligner = Aligner.of(adata, genes, report, force=force)
    matrix = matrix_named(adata, report.matrix)
    counts = aligner.counts(matrix.rows(rows))
    return AlignedCells(
        counts, aligner.measured, aligner.report.coverage or 0.0, aligner.report.n_shared_genes or 0, aligner.report
    )


@dataclass(frozen=True)
class Aligner:
    """How rows of one file become rows over a model's genes; make it once, use it for every chunk.

    Attributes
    ----------
    slots
        int32 [genes of the file]: the model's slot of each gene, -1 for none.
    measured
        bool [G]: whether the file measured the gene.
    report
        What the doctor said about the file, with the coverage of these genes.
    """

    slots: np.ndarray
    measured: np.ndarray
    report: DatasetReport

    @classmethod
    def of(cls, adata: AnnData, genes: Sequence[str], report: DatasetReport, *, force: bool = False) -> Aligner:
        """Compare a file with a model's genes; a GeneAlignmentError below the floor, unless forced."""
        matrix = matrix_named(adata, report.matrix)
        if matrix.shape[1] != len(report.gene_symbols):
            raise ValueError(f"the report is of {len(report.gene_symbols)} genes, {matrix.name} has {matrix.shape[1]}")
        where = {gene: slot for slot, gene in enumerate(genes)}
        slots = np.array([-1 if symbol is None else where.get(symbol, -1) for symbol in report.gene_symbols], np.int32)
        measured = np.zeros(len(genes), dtype=bool)
        measured[slots[slots >= 0]] = True
        if report.coverage is None or report.n_shared_genes != measured.sum():
            report = report.with_genes(genes)
        few_counts = (report.counts_coverage or 0.0) < LEAST_COUNTS_SHARE and measured.mean() < 0.5
        few_known = report.n_known_genes < LEAST_KNOWN_SHARE * report.n_genes
        below = measured.sum() < LEAST_SHARED or few_known or few_counts
        if below and not (force and measured.any()):
            raise GeneAlignmentError(_too_few(adata, report, len(genes)))
        return cls(slots, measured, report)

    def counts(self, rows: sp.csr_matrix) -> sp.csr_matrix:
        """Rows of the file as stored, csr [n, genes of the file] -> csr float32 [n, G] on the linear scale.

        No slot stands twice in a cell; the slots of a cell are in the order of the file's genes.
        """
        linear = to_linear(rows, self.report.scale_detail)
        slots = np.take(self.codes, linear.indices)
        keep = slots >= 0
        if self.codes.max(initial=-1) >= len(self.measured):
            keep[self._sum_shared(linear, slots)] = False
        kept = np.flatnonzero(keep)
        ends = np.searchsorted(kept, linear.indptr)
        return sp.csr_matrix((linear.data[kept], slots[kept], ends), shape=(rows.shape[0], len(self.measured)))

    @cached_property
    def codes(self) -> np.ndarray:
        """int32 [genes of the file]: the slot of each gene, G higher where several genes have it, -1 for none."""
        n_slots = len(self.measured)
        times = np.bincount(self.slots[self.slots >= 0], minlength=n_slots)
        shared = (self.slots >= 0) & (times[self.slots] > 1)
        return np.where(shared, self.slots + n_slots, self.slots).astype(np.int32)

    def _sum_shared(self, linear: sp.csr_matrix, slots: np.ndarray) -> np.ndarray:
        """Sum, in place, the values of a cell that have one slot into the first of them; positions of the others.

        Their codes in `slots` become slots. They are few as a rule, and the rest, the order of the file's genes too,
        stays as it is.
        """
        n_slots = len(self.measured)
        at = np.flatnonzero(slots >= n_slots)
        slots[at] -= n_slots
        cells = np.searchsorted(linear.indptr, at, side="right") - 1
        _, first, group = np.unique(cells * n_slots + slots[at], return_index=True, return_inverse=True)
        linear.data[at[first]] = np.bincount(group, weights=linear.data[at])
        return np.delete(at, first)


def why_refused(adata: AnnData, genes: Sequence[str], report: DatasetReport) -> str | None:
    """The sentence with which `align_genes` would refuse the file for its genes; None when it would not."""
    try:
        Aligner.of(adata, genes, report)
    except GeneAlignmentError as error:
        return str(error)
    return None


def _too_few(adata: AnnData, report: DatasetReport, n_genes: int) -> str:
    """Found, expected, and the most likely remedy."""
    matrix = matrix_named(adata, report.matrix)
    listed = matrix.var.index if report.gene_column is None else matrix.var[report.gene_column]
    names = ", ".join(map(str, listed[:3]))
    found = (
        f"{report.n_shared_genes or 0:,} of {n_genes:,} model genes found among the file's {report.n_genes:,} "
        f"({report.n_known_genes:,} known); they hold {report.counts_coverage or 0.0:.0%} of the counts. "
        f"Gene names look like {names}; expected symbols of human or mouse genes (TP53, Trp53) or Ensembl ids "
        f"(ENSG00000141510), at least {LEAST_SHARED} shared with the model, {LEAST_KNOWN_SHARE:.0%} of the file's "
        f"known and {LEAST_COUNTS_SHARE:.0%} of the counts in them. "
    )
    for pattern, words in FOREIGN_NAMES:
        if sum(bool(pattern.match(str(name))) for name in listed[:200]) > 0.5 * len(listed[:200]):
            return found + words
    cells = list(map(str, adata.obs_names[:2000]))
    if GeneResolver().resolve(cells).share_found > 0.3:
        return found + "The cell names look like genes: transpose the file (adata.T)."
    if report.n_known_genes > 0.5 * report.n_genes:
        return found + (
            "The names are in order, but few of these genes are the model's: bring the file with all its genes, or go "
            "on with these all the same (--few-genes-ok, in Python force=True)."
        )
    if report.gene_column is None and len(matrix.var.columns):
        return (
            found
            + f"Name the column that holds gene names (gene_column), one of: {', '.join(map(str, matrix.var.columns))}."
        )
    return found + "Rename the genes, or bring the file from before its genes were numbered or filtered."
