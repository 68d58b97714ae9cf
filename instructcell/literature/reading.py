"""A file's cells over all the genes it measured, named by approved human symbols, piece by piece."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from anndata import AnnData
from torch import Tensor

from instructcell.align import AlignedCells, Aligner
from instructcell.batches import AS_FOUND, Reading, aligned_pieces, look
from instructcell.doctor import DatasetReport
from instructcell.genes import load_gene_table

CELLS_AT_ONCE = 256


@dataclass(frozen=True)
class NamedCells:
    """Cells and the genes their file measured, sorted by symbol.

    Mouse genes bear the symbols of their human counterparts, so both species share one space.
    """

    adata: AnnData
    genes: list[str]
    report: DatasetReport
    reading: Reading

    @property
    def n_cells(self) -> int:
        return self.adata.n_obs

    @property
    def species(self) -> str:
        return self.report.species or ""

    def pieces(self, rows: np.ndarray | None = None, at_once: int = CELLS_AT_ONCE) -> Iterator[Tensor]:
        """Counts [n, G] on a linear scale of the chosen cells, `at_once` cells at a time."""
        rows = np.arange(self.n_cells) if rows is None else rows
        for piece in aligned_pieces(self.adata, self.genes, self.report, rows, at_once=at_once, reading=self.reading):
            yield dense(piece)


def read_named(adata: AnnData, reading: Reading = AS_FOUND) -> NamedCells:
    """Judge a file and find the genes it measured.

    Raises
    ------
    GeneAlignmentError, MatrixError
        As `instructcell.align.align_genes` raises them.
    """
    symbols = load_gene_table()["symbol"].tolist()
    report = look(adata, symbols, reading)
    measured = Aligner.of(adata, symbols, report, force=reading.force).measured
    genes = [symbol for symbol, found in zip(symbols, measured, strict=True) if found]
    return NamedCells(adata, genes, report.with_genes(genes), reading)


def dense(cells: AlignedCells) -> Tensor:
    """Counts [n, G] float32."""
    return torch.from_numpy(cells.counts.toarray().astype(np.float32, copy=False))
