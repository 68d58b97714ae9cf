"""The matrices of an AnnData (X, raw.X, layers) as one thing: named, sampled, surveyed and read in chunks of rows.

Nothing here makes a whole matrix dense or copies it; memory is bounded by one chunk of rows.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd
import scipy.sparse as sp
from anndata import AnnData

from instructcell.errors import MatrixError

CHUNK_VALUES = 8_000_000  # values of a dense chunk: 64 MB in float64
SPARSE_ROWS = 1024  # rows of a sparse chunk
SAMPLE_CELLS = 256
LARGEST = 1e12  # no expression is larger; beyond lie slips and overflows
FEW_NEGATIVE = 0.001  # share of the stored values below which negative ones are slips, not the scale
FEW_GENES, MORE_CELLS = 20, 4096  # a sample of nearly empty cells (unfiltered droplets) is drawn larger
ROWS = slice | np.ndarray | None


@dataclass(frozen=True)
class Matrix:
    """One matrix of a file: its name, its values [N, G] (dense, sparse or backed) and its genes."""

    name: str
    values: Any
    var: pd.DataFrame

    @property
    def shape(self) -> tuple[int, int]:
        return int(self.values.shape[0]), int(self.values.shape[1])

    @property
    def numeric(self) -> bool:
        return np.dtype(getattr(self.values, "dtype", object)).kind in "fiub"

    def rows(self, rows: ROWS = None) -> sp.csr_matrix:
        """The chosen rows as csr [n, G], in their stored scale; all rows for None."""
        values, chosen = self.values, slice(None) if rows is None else rows
        if sp.issparse(values) and values.dtype == np.float16:  # scipy cannot take rows of it
            part = _half_rows(sp.csr_matrix(values), chosen)
        elif isinstance(values, np.ndarray | sp.spmatrix | sp.sparray):
            part = values[chosen]
        else:
            part = self._from_disk(chosen)
        return sp.csr_matrix(part.astype(np.float32) if part.dtype == np.float16 else part)

    def _from_disk(self, rows: slice | np.ndarray) -> Any:
        """Rows of a matrix that was left on disk, where damage shows only now."""
        try:
            part = self.values[rows]
            if sp.issparse(part):
                check_places(part)
        except (OSError, RuntimeError, ValueError, KeyError) as error:
            words = " ".join(str(error).split())[:160].rstrip(".")
            raise MatrixError(
                f"{self.name} cannot be read further, the file is damaged ({words}). Copy or download it again."
            ) from error
        return part

    def chunks(self) -> Iterator[tuple[int, sp.csr_matrix]]:
        """(first row, csr rows) from top to bottom."""
        n_cells, n_genes = self.shape
        sparse = sp.issparse(self.values) or hasattr(self.values, "format")  # in memory, or anndata's backed one
        size = SPARSE_ROWS if sparse else int(np.clip(CHUNK_VALUES // max(n_genes, 1), 16, 4096))
        for start in range(0, n_cells, size):
            yield start, self.rows(slice(start, min(start + size, n_cells)))

    def sample(self) -> sp.csr_matrix:
        """At most 256 rows spread evenly over the file; of mostly empty cells 4,096, without the empty ones."""
        sample = self._spread_rows(SAMPLE_CELLS)
        if self.shape[0] <= SAMPLE_CELLS or np.median(np.diff(sample.indptr)) >= FEW_GENES:
            return sample
        sample = self._spread_rows(MORE_CELLS)
        filled = np.diff(sample.indptr) >= FEW_GENES
        return sample[filled] if filled.sum() >= 5 else sample

    def _spread_rows(self, n: int) -> sp.csr_matrix:
        n_cells = self.shape[0]
        return self.rows(np.unique(np.linspace(0, n_cells - 1, min(n, n_cells)).astype(int)))


@dataclass(frozen=True)
class Survey:
    """What one pass over a matrix found; `fault` is the sentence that forbids its use, or None."""

    fault: str | None
    n_negative: int
    largest: float
    all_whole: bool
    totals: np.ndarray  # [N] in the stored scale
    detected: np.ndarray  # [N] genes above zero
    gene_sd: np.ndarray | None  # [G], where it was asked for
    gene_largest: np.ndarray | None  # [G], likewise
    fingerprints: np.ndarray  # [N] equal for cells of equal values


def check_places(matrix: Any) -> None:
    """ValueError where a CSR or CSC matrix points outside itself, which would crash compiled code later."""
    pointers = np.asarray(matrix.indptr, np.int64)  # whose differences cannot overflow
    if pointers[0] != 0 or np.any(np.diff(pointers) < 0):
        raise ValueError("the pointers of a sparse matrix do not rise from zero")
    matrix.check_format(full_check=True)


def _half_rows(values: sp.csr_matrix, rows: slice | np.ndarray) -> sp.csr_matrix:
    """Rows of a float16 matrix in memory, as float32."""
    chosen = np.arange(values.shape[0])[rows]
    ends = np.concatenate([[0], np.cumsum(np.diff(values.indptr)[chosen])])
    at = np.arange(ends[-1]) + np.repeat(values.indptr[chosen] - ends[:-1], np.diff(ends))
    data = values.data[at].astype(np.float32)
    return sp.csr_matrix((data, values.indices[at], ends), shape=(chosen.size, values.shape[1]))


def matrices(adata: AnnData) -> list[Matrix]:
    """Every matrix of the file that could hold expression: X, raw.X, then the layers."""
    try:
        x = adata.X
    except KeyError:  # what anndata raises for a file on disk that has no X
        x = None
    found = [] if x is None else [Matrix("X", x, adata.var)]
    if adata.raw is not None:
        found.append(Matrix("raw.X", adata.raw.X, adata.raw.var))
    found += [Matrix(f"layers[{name!r}]", adata.layers[name], adata.var) for name in adata.layers]
    return found


def matrix_named(adata: AnnData, name: str) -> Matrix:
    """The matrix that a user or a report names: "X", "raw" or "raw.X", a layer's name or "layers['name']"."""
    known = {matrix.name: matrix for matrix in matrices(adata)}
    for spelling in (f"layers[{name!r}]", name, "raw.X" if name == "raw" else name):
        if spelling in known:
            return known[spelling]
    there = ", ".join(known) or "no matrix at all"
    raise MatrixError(f"There is no matrix named {name!r}; the file holds {there}. Choose one of these as the layer.")


def survey(matrix: Matrix, cell_names: pd.Index, *, spread: bool = False) -> Survey:
    """Read a matrix once: faults with their place, totals, detected genes and, where asked, the spread of each gene."""
    n_cells, n_genes = matrix.shape
    totals, detected = np.zeros(n_cells), np.zeros(n_cells, dtype=np.int64)
    if not matrix.numeric:
        words = f"holds {getattr(matrix.values, 'dtype', 'unknown')} values, not numbers"
        return Survey(words, 0, 0.0, False, totals, detected, None, None, totals)
    sums, squares, most, prints = np.zeros(n_genes), np.zeros(n_genes), np.zeros(n_genes), np.zeros(n_cells)
    key = np.random.default_rng(0).random(n_genes)
    bad, n_negative, lowest, largest, all_whole = Nonfinite(), 0, 0.0, 0.0, True
    n_stored, negative_at, huge = 0, (0, 0), None
    for start, rows in matrix.chunks():
        values = rows.data
        if values.size == 0:
            continue
        low, high = float(values.min()), float(values.max())  # NaN and infinite values show in one of them
        if not (np.isfinite(low) and np.isfinite(high)):
            bad.add(start, rows)
            continue
        if low < 0:
            at = np.flatnonzero(values < 0)
            if not n_negative:
                cell = int(np.searchsorted(rows.indptr, at[0], side="right")) - 1
                negative_at = (start + cell, int(rows.indices[at[0]]))
            n_negative += at.size
        lowest, largest, n_stored = min(lowest, low), max(largest, high), n_stored + values.size
        if all_whole and values.dtype.kind == "f":
            all_whole = bool(np.abs(values - np.rint(values)).max() <= 1e-3)
        if high > LARGEST and huge is None:
            top = int(values.argmax())
            huge = (start + int(np.searchsorted(rows.indptr, top, side="right")) - 1, int(rows.indices[top]))
        here = slice(start, start + rows.shape[0])
        totals[here] = np.asarray(rows.sum(axis=1, dtype=np.float64)).ravel()
        prints[here] = rows @ key
        positive = rows if low > 0 else rows > 0
        detected[here] = np.diff(positive.indptr) if low > 0 else np.asarray(positive.sum(axis=1)).ravel()
        if spread:
            sums += np.bincount(rows.indices, weights=values, minlength=n_genes)
            squares += np.bincount(rows.indices, weights=values.astype(np.float64) ** 2, minlength=n_genes)
            np.maximum.at(most, rows.indices, values)
    fault: str | None = None
    if bad.n_values:
        fault = bad.words(cell_names, matrix.var.index)
    elif n_negative:
        looks = "it looks z-scored, centred, regressed or corrected"
        if n_negative < FEW_NEGATIVE * n_stored:
            looks = f"the first in cell {cell_names[negative_at[0]]!s}, gene {matrix.var.index[negative_at[1]]!s}"
        fault = f"holds {counted(n_negative, 'negative value')}, down to {lowest:.4g} ({looks})"
    elif huge is not None:
        cell, gene = cell_names[huge[0]], matrix.var.index[huge[1]]
        fault = (
            f"holds values too large for expression, up to {largest:.4g} (the first in cell {cell!s}, gene {gene!s})"
        )
    elif largest == 0.0:
        fault = "holds only zeros"
    sd = np.sqrt(np.maximum(squares / n_cells - (sums / n_cells) ** 2, 0.0)) if spread else None
    return Survey(fault, n_negative, largest, all_whole, totals, detected, sd, most if spread else None, prints)


def counted(n: int, what: str) -> str:
    """ "1 cell", "2,000 cells"."""
    return f"{n:,} {what}" if n == 1 else f"{n:,} {what}s"


@dataclass
class Nonfinite:
    """Where a matrix holds NaN or infinite values."""

    n_values: int = 0
    n_cells: int = 0
    genes: set[int] = field(default_factory=set)
    first: tuple[int, int] | None = None

    def add(self, start: int, rows: sp.csr_matrix) -> None:
        """Count those of a chunk whose first row is row `start` of the matrix."""
        at = np.flatnonzero(~np.isfinite(rows.data))
        cells = np.searchsorted(rows.indptr, at, side="right") - 1
        self.n_values += at.size
        self.n_cells += np.unique(cells).size
        self.genes.update(np.unique(rows.indices[at]).tolist())
        if self.first is None:
            self.first = (start + int(cells[0]), int(rows.indices[at[0]]))

    def words(self, cell_names: pd.Index, gene_names: pd.Index) -> str:
        """How many there are, in how many cells and genes, and the place of the first."""
        cell, gene = self.first or (0, 0)
        return (
            f"holds {counted(self.n_values, 'NaN or infinite value')}, the first in cell {cell_names[cell]!s} "
            f"(row {cell}), gene {gene_names[gene]!s}; {counted(self.n_cells, 'cell')} and "
            f"{counted(len(self.genes), 'gene')} in all"
        )
