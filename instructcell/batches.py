"""Cells of a file, piece by piece, on the model's genes: a thread reads and aligns ahead of whoever computes.

Pieces are cut by position alone, so the same cells stand together however a run was begun, and memory is bounded by a
few pieces, not by the file.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict, dataclass, replace
from queue import Empty, Full, Queue
from typing import Any, TypeVar

import numpy as np
import scipy.sparse as sp
import torch
from anndata import AnnData

from instructcell.align import AlignedCells, Aligner, align_genes
from instructcell.doctor import DatasetReport, inspect
from instructcell.errors import InstructCellError, MatrixError
from instructcell.genes import GeneResolver
from instructcell.matrix import Matrix, matrices, matrix_named
from instructcell.reading.packed import packed_rows

READ_CELLS = 2048  # read from the file at a time, rounded to whole pieces
READ_AS = ("layer", "scale", "species", "gene_column")
AHEAD = 2  # reads that may wait for the one who computes
SURVEY_CELLS = 20_000  # a file of more cells is judged by SURVEY_BLOCKS blocks of it, as many cells in all
SURVEY_BLOCKS = 20
WAIT = 0.1  # seconds between two looks whether the other side has given up

Item = TypeVar("Item")
Made = TypeVar("Made")


@dataclass(frozen=True)
class Reading:
    """How a file shall be read where its owner knows better than the doctor.

    `force` accepts a file that measured very few of the model's genes.
    """

    layer: str | None = None
    scale: str | None = None
    species: str | None = None
    gene_column: str | None = None
    force: bool = False

    @classmethod
    def of_record(cls, arguments: Mapping[str, object]) -> Reading:
        """What the record of a run says, "" standing for None."""
        return cls(**{name: arguments[name] or None for name in READ_AS if name in arguments})  # type: ignore[arg-type]

    def for_doctor(self) -> dict[str, str]:
        """Arguments for `instructcell.doctor.inspect`: what was given."""
        return {name: value for name, value in asdict(self).items() if isinstance(value, str)}

    def to_dict(self) -> dict[str, str | bool | None]:
        """All fields, for the record of a run."""
        return asdict(self)


AS_FOUND = Reading()  # by the doctor's verdict throughout


def look(
    adata: AnnData,
    genes: Sequence[str],
    reading: Reading = AS_FOUND,
    markers: Mapping[str, Sequence[str]] | None = None,
) -> DatasetReport:
    """The doctor's report with the coverage of the model's genes; a very large file is judged by a part of it.

    What only a whole pass could find, NaN and negative values, is then found where the cells are read.
    """
    if contradicted_species(adata, reading):
        reading = replace(reading, species=None)  # the genes win; `Annotation` says so
    arguments: Any = {**reading.for_doctor(), "genes": genes, "markers": markers}
    if adata.n_obs <= SURVEY_CELLS:
        return inspect(adata, **arguments)
    report = inspect(_part_of(adata), **arguments)
    evidence = {**report.evidence, "cells_examined": report.n_cells}
    note = f"the file was judged by {report.n_cells:,} of its {adata.n_obs:,} cells"
    return replace(report, n_cells=adata.n_obs, evidence=evidence, warnings=(*report.warnings, note))


def contradicted_species(adata: AnnData, reading: Reading) -> bool:
    """Whether the file's gene names are clearly of another species than was said."""
    if reading.species is None:
        return False
    names = adata.var.get(reading.gene_column, adata.var_names)
    return GeneResolver().contradicts(list(map(str, names)), reading.species)


def _part_of(adata: AnnData) -> AnnData:
    """Blocks of cells spread evenly over the file, in memory, with every matrix they have."""
    size = SURVEY_CELLS // SURVEY_BLOCKS
    starts = np.linspace(0, adata.n_obs - size, SURVEY_BLOCKS).astype(int)
    rows = np.concatenate([np.arange(start, start + size) for start in starts])

    def blocks(matrix: Matrix) -> sp.csr_matrix:
        return sp.vstack([matrix.rows(slice(int(start), int(start) + size)) for start in starts]).tocsr()

    found = {matrix.name: _quickly_read(matrix) for matrix in matrices(adata) if matrix.numeric}
    part = AnnData(
        X=blocks(found["X"]) if "X" in found else None, obs=adata.obs.iloc[rows].copy(), var=adata.var, uns=adata.uns
    )
    for name in adata.layers:
        if (matrix := found.get(f"layers[{name!r}]")) is not None:
            part.layers[name] = blocks(matrix)
    if "raw.X" in found:
        part.raw = AnnData(blocks(found["raw.X"]), obs=part.obs, var=found["raw.X"].var)
    return part


def aligned_pieces(
    adata: AnnData,
    genes: Sequence[str],
    report: DatasetReport,
    rows: np.ndarray,
    *,
    at_once: int,
    reading: Reading = AS_FOUND,
) -> Iterator[AlignedCells]:
    """Yield the chosen rows on the model's genes, `at_once` cells at a time.

    Parameters
    ----------
    rows
        Positions of the cells [N]; a run of consecutive ones is read as a slice.
    at_once
        Cells in a piece, counted from the first row.

    Raises
    ------
    MatrixError
        A value is NaN, infinite or negative.
    """
    if len(rows) == 0:
        raise InstructCellError("found no cells to read, expected at least one; choose other cells")
    size = at_once * max(1, READ_CELLS // at_once)
    aligner = Aligner.of(adata, genes, report, force=reading.force)
    matrix = _quickly_read(matrix_named(adata, report.matrix))
    shared, coverage = aligner.report.n_shared_genes or 0, aligner.report.coverage or 0.0

    def read() -> Iterator[AlignedCells]:
        for start in range(0, len(rows), size):
            chosen = rows[start : start + size]
            counts = aligner.counts(matrix.rows(_as_slice(chosen)))
            _check_values(counts, chosen, adata)
            for first in range(0, len(chosen), at_once):
                piece = counts[first : first + at_once]
                yield AlignedCells(piece, aligner.measured, coverage, shared, aligner.report)

    yield from read() if len(rows) <= size else ahead(read(), AHEAD * (size // at_once))


def _quickly_read(matrix: Matrix) -> Matrix:
    """The same matrix, read without the library where that is possible."""
    packed = packed_rows(matrix.values)
    return matrix if packed is None else replace(matrix, values=packed)


def align_rows(
    adata: AnnData,
    genes: Sequence[str],
    report: DatasetReport,
    rows: np.ndarray,
    reading: Reading = AS_FOUND,
) -> AlignedCells:
    """The chosen rows over the model's genes."""
    return align_genes(adata, genes, report, rows=_as_slice(rows), force=reading.force)


def _as_slice(rows: np.ndarray) -> slice | np.ndarray:
    """A run of consecutive positions as a slice, which is read much faster; any other selection as it is."""
    if len(rows) and rows[-1] - rows[0] == len(rows) - 1 and bool((np.diff(rows) == 1).all()):
        return slice(int(rows[0]), int(rows[-1]) + 1)
    return rows


def _check_values(counts: sp.csr_matrix, rows: np.ndarray, adata: AnnData) -> None:
    if counts.data.min(initial=0.0) >= 0 and counts.data.max(initial=0.0) < np.inf:  # a NaN compares as false
        return
    wrong = ~(counts.data >= 0) | np.isinf(counts.data)
    if wrong.any():
        at = int(rows[int(np.searchsorted(counts.indptr, np.flatnonzero(wrong)[0], side="right")) - 1])
        raise MatrixError(
            f"found NaN, infinite or negative values, the first in cell {adata.obs_names[at]} (row {at}); expected "
            "counts or log-normalised values. Remove these cells or mend the values, and save the file again."
        )


def ahead(items: Iterator[Item], depth: int) -> Iterator[Item]:
    """The same items, made by a thread that runs at most `depth` items ahead; it ends with the loop over them."""
    waiting: Queue[tuple[Item | None, BaseException | None]] = Queue(maxsize=max(depth, 1))
    left = threading.Event()  # whoever took the items has gone

    def hand_over(item: Item | None, error: BaseException | None) -> bool:
        while not left.is_set():
            try:
                waiting.put((item, error), timeout=WAIT)
            except Full:
                continue
            return True
        return False

    def work() -> None:
        try:
            for item in items:
                if not hand_over(item, None):
                    return
        except BaseException as error:  # noqa: BLE001 - raised again where the items are taken
            hand_over(None, error)
        else:
            hand_over(None, StopIteration())

    worker = threading.Thread(target=work, name="instructcell-reader", daemon=True)
    worker.start()
    try:
        while True:
            try:
                item, error = waiting.get(timeout=WAIT)  # short, so that Ctrl-C is heard
            except Empty:
                continue
            if isinstance(error, StopIteration):
                return
            if error is not None:
                raise error
            yield item  # type: ignore[misc]
    finally:
        left.set()
        worker.join()


def side_by_side(make: Callable[[Item], Made], items: Iterator[Item], n_threads: int) -> Iterator[Made]:
    """What `make` makes of each item, in their order, by threads that compute an item each with one core.

    Several cores that share each operation of one item wait for the slowest at its end, which another thread that
    reads from the file makes late again and again.
    """
    before = torch.get_num_threads()
    waiting: deque[Future[Made]] = deque()
    try:
        with ThreadPoolExecutor(n_threads, "instructcell-score", torch.set_num_threads, (1,)) as pool:
            try:
                for item in items:
                    waiting.append(pool.submit(make, item))
                    if len(waiting) > n_threads:
                        yield waiting.popleft().result()
                while waiting:
                    yield waiting.popleft().result()
            finally:
                for later in waiting:
                    later.cancel()
    finally:
        torch.set_num_threads(before)  # the threads set it for those that begin after them too
