"""The matrices of an AnnData (X, raw.X, layers) as one thing: named, sampled, surveyed and read in chunks of rows.

Nothing here makes a whole matrix dense or copies it; memory is bounded by one chunk of rows.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import scipy.sparse as sp
from anndata import AnnData

from instructcell.errors import MatrixError

CHUNK_VALUES = 8_000_000  # values of a dense chunk: 64 MB in float64
SAMPLE_CELLS = 256
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
        chosen = slice(None) if rows is None else rows
        in_memory = isinstance(self.values, np.ndarray | sp.spmatrix | sp.sparray)
        part = self.values[chosen] if in_memory else self._from_disk(chosen)
        if isinstance(part, np.ndarray) and part.dtype == np.float16:
            part = part.astype(np.float32)
        return sp.csr_matrix(part)

    def _from_disk(self, rows: slice | np.ndarray) -> Any:
        """Rows of a matrix that was left on disk, where damage shows only now."""
        try:
            part = self.values[rows]
            if sp.issparse(part):
                part.check_format(full_check=True)  # an index that points outside would crash compiled code
        except (OSError, RuntimeError, ValueError, KeyError) as error:
            words = " ".join(str(error).split())[:160].rstrip(".")
            raise MatrixError(
                f"{self.name} cannot be read further, the file is damaged ({words}). Copy or download it again."
            ) from error
        return part

    def chunks(self) -> Iterator[tuple[int, sp.csr_matrix]]:
        """(first row, csr rows) from top to bottom."""
        n_cells, n_genes = self.shape
        size = int(np.clip(CHUNK_VALUES // max(n_genes, 1), 16, 4096))
        for start in range(0, n_cells, size):
            yield start, self.rows(slice(start, min(start + size, n_cells)))

    def sample(self) -> sp.csr_matrix:
        """At most 256 rows spread evenly over the file."""
        n_cells = self.shape[0]
        return self.rows(np.unique(np.linspace(0, n_cells - 1, min(SAMPLE_CELLS, n_cells)).astype(int)))


@dataclass(frozen=True)
class Survey:
    """What one pass over a matrix found; `fault` is the sentence that forbids its use, or None."""

    fault: str | None
    n_negative: int
    largest: float
    all_whole: bool
    totals: np.ndarray  # [N] in the stored scale
    detected: np.ndarray  # [N] genes above zero
    gene_sd: np.ndarray  # [G]


def matrices(adata: AnnData) -> list[Matrix]:
    """Every matrix of the file that could hold expression: X, raw.X, then the layers."""
    found = [] if adata.X is None else [Matrix("X", adata.X, adata.var)]
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


def survey(matrix: Matrix, cell_names: pd.Index) -> Survey:
    """Read a matrix once: faults with their place, totals, detected genes, and the spread of each gene."""
    n_cells, n_genes = matrix.shape
    totals, detected = np.zeros(n_cells), np.zeros(n_cells, dtype=np.int64)
    sums, squares = np.zeros(n_genes), np.zeros(n_genes)
    n_bad, n_negative, largest, all_whole = 0, 0, 0.0, True
    first_bad: tuple[int, int] | None = None
    if not matrix.numeric:
        words = f"holds {getattr(matrix.values, 'dtype', 'unknown')} values, not numbers"
        return Survey(words, 0, 0.0, False, totals, detected, sums)
    for start, rows in matrix.chunks():
        values = rows.data.astype(np.float64)
        bad = ~np.isfinite(values)
        if bad.any():
            n_bad += int(bad.sum())
            if first_bad is None:
                at = int(np.flatnonzero(bad)[0])
                first_bad = (start + int(np.searchsorted(rows.indptr, at, side="right")) - 1, int(rows.indices[at]))
            continue
        n_negative += int((values < 0).sum())
        largest = max(largest, float(values.max(initial=0.0)))
        all_whole = all_whole and bool(np.all(np.abs(values - np.round(values)) <= 1e-3))
        here, row_of = slice(start, start + rows.shape[0]), np.repeat(np.arange(rows.shape[0]), np.diff(rows.indptr))
        totals[here] = np.bincount(row_of, weights=values, minlength=rows.shape[0])
        detected[here] = np.bincount(row_of[values > 0], minlength=rows.shape[0])
        sums += np.bincount(rows.indices, weights=values, minlength=n_genes)
        squares += np.bincount(rows.indices, weights=values**2, minlength=n_genes)
    fault: str | None = None
    if first_bad is not None:
        cell, gene = cell_names[first_bad[0]], matrix.var.index[first_bad[1]]
        fault = (
            f"holds {n_bad:,} NaN or infinite values, the first in cell {cell!s} (row {first_bad[0]}), gene {gene!s}"
        )
    elif n_negative:
        fault = f"holds {n_negative:,} negative values (it looks scaled, centred or corrected)"
    elif largest == 0.0:
        fault = "holds only zeros"
    sd = np.sqrt(np.maximum(squares / n_cells - (sums / n_cells) ** 2, 0.0))
    return Survey(fault, n_negative, largest, all_whole, totals, detected, sd)
