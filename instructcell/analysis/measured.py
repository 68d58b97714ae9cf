"""Cells as they were measured: linear counts over all genes of the file, each gene under its human symbol."""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import pandas as pd
import scipy.sparse as sp
from anndata import AnnData

from instructcell.doctor import DatasetReport, inspect
from instructcell.errors import GeneAlignmentError, InstructCellError
from instructcell.genes import find_gene
from instructcell.matrix import matrix_named
from instructcell.scale import to_linear

CELL_TOTAL = 1e4  # expression is shown per this many counts of a cell (CP10k)
Rows = Sequence[int] | np.ndarray | None


@dataclass(frozen=True)
class MeasuredCells:
    """Chosen cells over every gene of their file.

    Attributes
    ----------
    counts
        csr float32 [N, M], non-negative on a linear scale; genes of the file that share a symbol are summed.
    genes
        Name of each column [M]: the human symbol, or what the file writes where the gene is unknown.
    symbols
        Name of each column [M] as the file writes it ("Ins2" for INS in a mouse file).
    cells, rows
        Names and positions of the cells in the file [N].
    report
        What the doctor said of the file.
    """

    counts: sp.csr_matrix
    genes: tuple[str, ...]
    symbols: tuple[str, ...]
    cells: pd.Index
    rows: np.ndarray
    report: DatasetReport

    @property
    def n_cells(self) -> int:
        """N."""
        return len(self.rows)

    @property
    def are_counts(self) -> bool:
        """Whether the values are molecules or reads, not a normalised unit."""
        return self.report.scale == "counts" or self.report.counts_recovered

    @cached_property
    def totals(self) -> np.ndarray:
        """Total of each cell [N]."""
        return np.asarray(self.counts.sum(axis=1, dtype=np.float64)).ravel()

    @cached_property
    def log_expression(self) -> sp.csr_matrix:
        """csr float32 [N, M]: natural log of 1 + counts per 10,000 counts of the cell."""
        factors = np.divide(CELL_TOTAL, self.totals, out=np.zeros_like(self.totals), where=self.totals > 0)
        scaled = sp.csr_matrix(self.counts, copy=True)
        scaled.data = np.log1p(scaled.data * np.repeat(factors, np.diff(scaled.indptr))).astype(np.float32)
        return scaled

    @cached_property
    def column(self) -> dict[str, int]:
        """Column of each gene, by human symbol."""
        return {gene: at for at, gene in enumerate(self.genes)}

    def find(self, names: str | Sequence[str]) -> ChosenGenes:
        """The columns of genes asked for by symbol, alias, Ensembl id, mouse symbol or the file's own name.

        Raises
        ------
        GeneAlignmentError
            None of them was measured; the message says which are unknown and which the file lacks.
        """
        return find_columns(self, [names] if isinstance(names, str) else list(names))


@dataclass(frozen=True)
class ChosenGenes:
    """Genes that were asked for: those that were measured with their columns, and the others.

    `read_as` is what each name was read as ("CD20" -> "MS4A1"); `unknown` maps names no gene bears to close ones.
    """

    genes: tuple[str, ...]
    columns: np.ndarray
    read_as: dict[str, str]
    not_measured: tuple[str, ...]
    unknown: dict[str, tuple[str, ...]]


def measured_cells(adata: AnnData, report: DatasetReport | None = None, rows: Rows = None) -> MeasuredCells:
    """Read cells of a file on the linear scale, over all its genes.

    Parameters
    ----------
    report
        What the doctor (`instructcell.doctor.inspect`) said of the file, to spare a second look.
    rows
        Positions of the cells; all for None.

    Raises
    ------
    InstructCellError
        No cell was chosen, or a position lies outside the file.
    MatrixError
        The file holds no usable expression.
    """
    report = report or inspect(adata)
    chosen = checked_rows(rows, adata.n_obs)
    matrix = matrix_named(adata, report.matrix)
    linear = to_linear(matrix.rows(None if rows is None else chosen), report.scale_detail)
    listed = matrix.var.index if report.gene_column is None else matrix.var[report.gene_column]
    symbols = [str(name) for name in listed]
    names = [human or own for human, own in zip(report.gene_symbols, symbols, strict=True)]
    genes, first, slot = _distinct(names)
    counts = linear if len(genes) == len(names) else _summed(linear, slot, len(genes))
    return MeasuredCells(
        counts, tuple(genes), tuple(symbols[at] for at in first), adata.obs_names[chosen], chosen, report
    )


def checked_rows(rows: Rows, n_cells: int, what: str = "cells") -> np.ndarray:
    """Positions of cells as int64 [N]; a mask over all cells is turned into positions.

    Raises
    ------
    InstructCellError
        There is none, or one lies outside the file.
    """
    if rows is None:
        return np.arange(n_cells)
    chosen = np.asarray(rows)
    if chosen.dtype == bool and chosen.shape == (n_cells,):
        chosen = np.flatnonzero(chosen)
    if chosen.size == 0:
        raise InstructCellError(f"found no {what}, expected at least one; choose other cells")
    if chosen.min() < 0 or chosen.max() >= n_cells:
        raise InstructCellError(
            f"found position {int(chosen.max() if chosen.max() >= n_cells else chosen.min())} among the {what}, "
            f"expected 0 to {n_cells - 1}; choose cells of this file"
        )
    return chosen.astype(np.int64)


def groups_of(adata: AnnData, by: str | Sequence[object] | pd.Series | None, rows: np.ndarray) -> pd.Series | None:
    """The group of each chosen cell as text [N]: a column of obs, or one value per cell of the file or of the choice.

    Raises
    ------
    InstructCellError
        There is no such column, or the number of values fits neither.
    """
    if by is None:
        return None
    if isinstance(by, str):
        if by not in adata.obs:
            near = difflib.get_close_matches(by, list(map(str, adata.obs.columns)), n=3, cutoff=0.5)
            there = ", ".join(near or map(str, adata.obs.columns[:8])) or "no columns"
            raise InstructCellError(f"found no column {by!r} in obs; name one of those it has: {there}")
        values, name = adata.obs[by].to_numpy(), by
    else:
        values, name = np.asarray(by), str(getattr(by, "name", None) or "group")
    if len(values) == adata.n_obs:
        values = values[rows]
    elif len(values) != len(rows):
        raise InstructCellError(
            f"found {len(values):,} values to group by, expected one for each of the {adata.n_obs:,} cells"
        )
    text = pd.Series(values, index=adata.obs_names[rows], name=name)
    return text.where(text.notna(), "(none)").astype(str)


def find_columns(cells: MeasuredCells, names: Sequence[str]) -> ChosenGenes:
    """`MeasuredCells.find`."""
    own = {symbol: gene for gene, symbol in zip(cells.genes, cells.symbols, strict=True)}
    read_as: dict[str, str] = {}
    absent: list[str] = []
    unknown: dict[str, tuple[str, ...]] = {}
    for name in dict.fromkeys(str(name).strip() for name in names):
        gene = own.get(name) or (name if name in cells.column else None) or known_gene(name)
        if gene is None:
            unknown[name] = tuple(difflib.get_close_matches(name.upper(), cells.genes, n=3, cutoff=0.75))
            continue
        read_as[name] = gene
        if gene not in cells.column:
            absent.append(gene)
    found = tuple(dict.fromkeys(gene for gene in read_as.values() if gene in cells.column))
    if not found:
        raise GeneAlignmentError(_none_of(absent, unknown))
    return ChosenGenes(found, np.array([cells.column[gene] for gene in found]), read_as, tuple(absent), unknown)


def known_gene(name: str) -> str | None:
    """Human symbol of a name as people at the bench use it (CD3, PD-1, glucagon), None when no gene is called so."""
    from instructcell.retrieval.names import load_name_book

    return load_name_book().gene(name) or find_gene(name.replace("-", ""))


def _none_of(absent: Sequence[str], unknown: dict[str, tuple[str, ...]]) -> str:
    """Why none of the genes can be shown."""
    parts = []
    if absent:
        parts.append(f"the file did not measure {', '.join(absent)}")
    if unknown:
        parts.append(f"no gene is called {', '.join(map(repr, unknown))}")
    near = list(dict.fromkeys(gene for names in unknown.values() for gene in names))
    hint = f" Did you mean {', '.join(near[:3])}?" if near else ""
    found = " and ".join(parts) or "no gene was named"
    return f"{found}; expected a symbol such as INS or an Ensembl id of a measured gene.{hint}"


def _distinct(names: Sequence[str]) -> tuple[list[str], list[int], np.ndarray]:
    """Distinct names in their order, where each stands first, and the new place of every name."""
    place: dict[str, int] = {}
    first: list[int] = []
    for at, name in enumerate(names):
        if name not in place:
            place[name] = len(first)
            first.append(at)
    return list(place), first, np.array([place[name] for name in names], dtype=np.int64)


def _summed(counts: sp.csr_matrix, slot: np.ndarray, n: int) -> sp.csr_matrix:
    """Columns that share a slot are added: csr [N, genes] -> csr [N, n]."""
    joined = sp.csr_matrix((counts.data, slot[counts.indices], counts.indptr), shape=(counts.shape[0], n))
    joined.sum_duplicates()
    return joined
