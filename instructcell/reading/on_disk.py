"""An AnnData from its group of an HDF5 file or zarr store, whole or with its matrices left on disk.

On disk, X, the layers, raw.X, obsp and varp are read in rows when they are asked for. Rows of a column-compressed (CSC)
matrix would each cost a pass over the whole file. One that fits `CSC_IN_MEMORY` is read and turned in memory; a larger
one is turned once, into a temporary CSR file in the system's temporary folder (about twice its uncompressed size while
it is made, once after), which is deleted with the AnnData.
"""

from __future__ import annotations

import shutil
import tempfile
import weakref
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import anndata
import h5py
import numpy as np
import scipy.sparse as sp
from anndata import AnnData
from anndata.io import read_elem, sparse_dataset, write_elem

from instructcell.errors import ReadError
from instructcell.matrix import check_places

CSC_IN_MEMORY = 2**29  # bytes of values and indices
LONG_PARTS = ("codes", "values", "mask")  # of a column with categories or missing values: one for each row
BLOCK_ENTRIES = 4_000_000  # stored values turned at a time: about 350 MB with everything around them


def read_group(group: Any, *, backed: bool) -> tuple[AnnData, list[str]]:
    """Read the AnnData in a group of an HDF5 file or zarr store (anndata 0.7 and later).

    Parameters
    ----------
    group
        An h5py or zarr group with obs and var as groups.
    backed
        Leave the matrices on disk; the group's file must then stay open.

    Returns
    -------
    tuple
        The cells by genes, and notes on what was decided.
    """
    notes: list[str] = []
    if not {"obs", "var"} <= set(group):
        raise ValueError("it has no table of cells (obs) or none of genes (var)")
    for table in ("obs", "var", "raw/var"):
        if table in group:
            _check_table(group[table])

    def matrix(item: Any) -> Any:
        return _open_matrix(item, notes) if backed else read_elem(item)

    parts = {key: read_elem(group[key]) for key in ("obs", "var", "obsm", "varm", "uns") if key in group}
    for key in ("layers", "obsp", "varp"):
        if key in group:
            parts[key] = {name: matrix(group[key][name]) for name in group[key]}
    if "raw" in group and not hasattr(group["raw"], "shape"):  # zarr and MuData write that there is none
        parts["raw"] = {key: read_elem(group["raw"][key]) for key in ("var", "varm") if key in group["raw"]}
        parts["raw"]["X"] = matrix(group["raw"]["X"])
    others = sorted(set(group) - {*parts, "X", "raw"})
    if others:
        notes.append(f"what anndata does not know was left out: {', '.join(others[:5])}")
    return AnnData(matrix(group["X"]) if "X" in group else None, **parts), notes


def read_old(path: Path, *, backed: bool) -> tuple[AnnData, list[str]]:
    """Read an .h5ad written before anndata 0.7, whose tables only anndata's own file reader knows."""
    if not backed:
        return anndata.read_h5ad(path), []
    notes: list[str] = []
    old = anndata.read_h5ad(path, backed="r")
    raw = None
    if old.raw is not None:
        raw = {"X": _readable_by_row(old.raw.X, notes), "var": old.raw.var, "varm": dict(old.raw.varm)}
    parts = {key: dict(getattr(old, key)) for key in ("obsm", "varm", "obsp", "varp", "layers", "uns")}
    return AnnData(_readable_by_row(old.X, notes), obs=old.obs, var=old.var, raw=raw, **parts), notes


def _check_table(table: Any) -> None:
    """Columns of obs or var must be as long as its index: pandas takes one of two dimensions value by value."""
    index = table[table.attrs["_index"]]
    n_rows = (index if hasattr(index, "shape") else index["values"]).shape
    for name in table:
        column = table[name]
        parts = [column] if hasattr(column, "shape") else [column[key] for key in LONG_PARTS if key in column]
        if len(n_rows) != 1 or any(part.shape != n_rows for part in parts):
            raise ValueError(f"the column {name!r} of {table.name} does not fit the index of its table")


def _open_matrix(item: Any, notes: list[str]) -> Any:
    """A stored matrix as something that gives rows, not yet read; anything else is read."""
    if hasattr(item, "shape"):
        return item if len(item.shape or ()) == 2 and np.dtype(item.dtype).kind in "fiub" else read_elem(item)
    if {"data", "indices", "indptr"} <= set(item):
        return _readable_by_row(sparse_dataset(item), notes)
    return read_elem(item)


def _readable_by_row(matrix: Any, notes: list[str]) -> Any:
    """The matrix itself, or a CSR of a CSC; ValueError when its parts do not fit together."""
    if matrix is None or not hasattr(matrix, "group"):
        return matrix
    stored = matrix.group
    pointers = np.asarray(stored["indptr"][...])
    n_major = matrix.shape[0] if matrix.format == "csr" else matrix.shape[1]
    n_stored = int(stored["data"].shape[0])
    whole = len(pointers) == n_major + 1 and pointers[0] == 0 and pointers[-1] == n_stored
    if not whole or np.any(np.diff(pointers.astype(np.int64)) < 0) or stored["indices"].shape[0] != n_stored:
        raise ValueError("the pointers of a sparse matrix do not fit its values")
    if matrix.format == "csr":
        return matrix
    size = n_stored * (stored["data"].dtype.itemsize + stored["indices"].dtype.itemsize)
    if size <= CSC_IN_MEMORY:
        read = matrix.to_memory()
        check_places(read)
        return read.tocsr()
    notes.append("a large matrix stored by genes (CSC) was turned into a temporary one stored by cells (CSR)")
    return _turned_on_disk(stored, pointers, matrix.shape)


def _turned_on_disk(stored: Any, pointers: np.ndarray, shape: tuple[int, int]) -> Any:
    """A temporary CSR of a CSC on disk, in two passes over it and one over what they wrote.

    The first pass counts the entries of each row. The second hands every entry to the band of rows it belongs to, each
    band a temporary file of entries, small enough to be sorted by row in memory.
    """
    n_stored, n_rows = int(pointers[-1]), shape[0]
    _check_disk(n_stored * (stored["data"].dtype.itemsize + 8) * 2)
    per_row = np.zeros(n_rows, dtype=np.int64)
    for _, indices, _ in _column_blocks(stored, pointers, with_values=False):
        if len(indices) and (indices.min() < 0 or indices.max() >= n_rows):
            raise ValueError("the indices of a sparse matrix point outside it")
        per_row += np.bincount(indices, minlength=n_rows)
    row_pointers = np.concatenate([[0], np.cumsum(per_row)])
    folder = Path(tempfile.mkdtemp(prefix="instructcell-"))
    try:
        bands = _bands(row_pointers)
        _hand_out(_column_blocks(stored, pointers), bands, stored["data"].dtype, folder)
        turned = _write_csr(row_pointers, bands, shape, stored["data"].dtype, folder)
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)
        raise
    weakref.finalize(turned, shutil.rmtree, folder, ignore_errors=True)
    return turned


def _column_blocks(
    stored: Any, pointers: np.ndarray, *, with_values: bool = True
) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """(column, row, value) of the stored entries, block by block in the order of the columns."""
    n_stored = int(pointers[-1])
    for start in range(0, n_stored, BLOCK_ENTRIES):
        here = slice(start, min(start + BLOCK_ENTRIES, n_stored))
        positions = np.arange(here.start, here.stop)
        columns = (np.searchsorted(pointers, positions, side="right") - 1).astype(np.int32)
        values = stored["data"][here] if with_values else np.empty(0)
        yield columns, np.asarray(stored["indices"][here]), np.asarray(values)


def _bands(row_pointers: np.ndarray) -> np.ndarray:
    """First rows of bands that hold about BLOCK_ENTRIES entries each, and the number of rows."""
    wanted = np.arange(0, row_pointers[-1], BLOCK_ENTRIES)
    first = np.searchsorted(row_pointers, wanted, side="right") - 1
    return np.unique(np.concatenate([[0], first, [len(row_pointers) - 1]]))


def _entry(value: np.dtype) -> np.dtype:
    return np.dtype([("row", np.int32), ("column", np.int32), ("value", value)])


def _hand_out(
    blocks: Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]], bands: np.ndarray, value: np.dtype, folder: Path
) -> None:
    """Append every entry to the file of its band; within a file they stay in the order of the columns."""
    for columns, rows, values in blocks:
        band = (np.searchsorted(bands, rows, side="right") - 1).astype(np.int32)
        order = np.argsort(band, kind="stable")
        entries = np.empty(len(order), dtype=_entry(value))
        entries["row"], entries["column"], entries["value"] = rows[order], columns[order], values[order]
        ends = np.cumsum(np.bincount(band, minlength=len(bands) - 1))
        for i, (start, end) in enumerate(zip(np.concatenate([[0], ends[:-1]]), ends, strict=True)):
            if end > start:
                with (folder / f"{i}.band").open("ab") as file:
                    entries[start:end].tofile(file)


def _write_csr(
    row_pointers: np.ndarray, bands: np.ndarray, shape: tuple[int, int], value: np.dtype, folder: Path
) -> Any:
    """Sort each band by row and append it to a CSR file; returns it as anndata's sparse dataset."""
    n_stored = int(row_pointers[-1])
    with h5py.File(folder / "rows.h5", "w") as file:
        write_elem(file, "X", sp.csr_matrix((0, shape[1]), dtype=value))
        group = file["X"]
        group.attrs["shape"] = np.array(shape)
        for key, kind in (("data", value), ("indices", np.dtype(np.int32))):
            del group[key]
            group.create_dataset(key, shape=(n_stored,), dtype=kind, chunks=(max(min(n_stored, 2**17), 1),))
        del group["indptr"]
        group["indptr"] = row_pointers
        for i, (first, last) in enumerate(zip(bands[:-1], bands[1:], strict=True)):
            path, here = folder / f"{i}.band", slice(int(row_pointers[first]), int(row_pointers[last]))
            if not path.exists():  # rows without anything
                continue
            entries = np.fromfile(path, dtype=_entry(value))
            path.unlink()
            order = np.argsort(entries["row"], kind="stable")  # columns stay ascending within a row
            group["indices"][here] = entries["column"][order]
            group["data"][here] = entries["value"][order]
    return sparse_dataset(h5py.File(folder / "rows.h5", "r")["X"])


def _check_disk(needed: int) -> None:
    """Refuse a turn that the temporary folder cannot take; `needed` in bytes."""
    folder = tempfile.gettempdir()
    free = shutil.disk_usage(folder).free
    if needed > free:
        raise ReadError(
            f"the matrix is stored by genes (CSC) and must be turned for reading cells, which takes "
            f"{needed / 2**30:.1f} GB in {folder}, where {free / 2**30:.1f} GB are free. Free some space, set TMPDIR "
            "to a larger disk, or save X as CSR."
        )
