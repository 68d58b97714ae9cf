"""Rows of a compressed CSR matrix in an HDF5 file, faster than the HDF5 library reads them.

The library unpacks one chunk after another and holds Python's global lock meanwhile, so nothing overlaps with it. Here
the chunks are taken as they lie in the file and unpacked by igzip (the package isal) in threads, while the model works.
The values are the same to the last bit.
"""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import h5py
import numpy as np
import scipy.sparse as sp
from isal import isal_zlib

THREADS = 2
SHORT_RUN = 4  # rows side by side, on average, from which on they are read as slices
LARGEST_CHUNK = 2**26  # bytes, unpacked; larger ones are left to the library
GZIP, SHUFFLE = h5py.h5z.FILTER_DEFLATE, h5py.h5z.FILTER_SHUFFLE


def packed_rows(matrix: Any) -> PackedRows | None:
    """Rows of anndata's sparse dataset read in this way; None for a matrix that is stored in another.

    Parameters
    ----------
    matrix
        What `anndata.io.sparse_dataset` gives, or anything else.
    """
    stored = getattr(matrix, "group", None)
    if getattr(matrix, "format", "") != "csr" or not isinstance(stored, h5py.Group):
        return None
    if not all(is_packed(stored[name]) for name in ("data", "indices")):
        return None
    return PackedRows(matrix)


def is_packed(dataset: h5py.Dataset) -> bool:
    """Whether a dataset is a list of numbers in gzip chunks, perhaps shuffled, and nothing else."""
    if dataset.ndim != 1 or dataset.chunks is None or dataset.dtype.kind not in "fiub" or not dataset.dtype.isnative:
        return False
    packing = dataset.id.get_create_plist()
    filters = [packing.get_filter(i)[0] for i in range(packing.get_nfilters())]
    return filters in ([GZIP], [SHUFFLE, GZIP]) and dataset.chunks[0] * dataset.dtype.itemsize <= LARGEST_CHUNK


class PackedRows:
    """Consecutive rows of a CSR matrix on disk, as csr; meant for one reader that goes from top to bottom."""

    format = "csr"

    def __init__(self, matrix: Any) -> None:
        self.matrix = matrix
        self.shape: tuple[int, int] = matrix.shape
        self.dtype: np.dtype = matrix.dtype
        self.pointers = np.asarray(matrix.group["indptr"][...])
        self.threads = ThreadPoolExecutor(THREADS, thread_name_prefix="instructcell-unpack")
        self.values, self.columns = (PackedList(matrix.group[name], self.threads) for name in ("data", "indices"))

    def __getitem__(self, rows: slice | np.ndarray) -> Any:
        """The chosen rows; single ones, and a slice with steps, are left to the library."""
        if isinstance(rows, np.ndarray) and (runs := _runs(rows)):
            return sp.vstack([self[run] for run in runs], format="csr")
        if not isinstance(rows, slice) or rows.step not in (None, 1):
            return self.matrix[rows]
        first, last, _ = rows.indices(self.shape[0])
        pointers = self.pointers[first : max(last, first) + 1]
        start, stop = int(pointers[0]), int(pointers[-1])
        try:
            triple = (self.values.between(start, stop), self.columns.between(start, stop), pointers - start)
        except (OSError, RuntimeError, ValueError):  # a chunk never written, or damage, which the library names
            return self.matrix[rows]
        return sp.csr_matrix(triple, shape=(len(pointers) - 1, self.shape[1]))


def _runs(rows: np.ndarray) -> list[slice]:
    """Positions as slices of rows side by side; empty where these would be short."""
    if rows.dtype == bool or len(rows) < SHORT_RUN:
        return []
    parts = np.split(rows, np.flatnonzero(np.diff(rows) != 1) + 1)
    if len(parts) * SHORT_RUN > len(rows) or rows.min() < 0:
        return []
    return [slice(int(part[0]), int(part[-1]) + 1) for part in parts]


class PackedList:
    """Values of a one-dimensional dataset in gzip chunks."""

    def __init__(self, dataset: h5py.Dataset, threads: ThreadPoolExecutor) -> None:
        self.dataset, self.threads = dataset, threads
        self.length: int = dataset.chunks[0]
        self.shuffled = bool(dataset.shuffle)
        self.last: tuple[int, np.ndarray] | None = None  # the chunk where the next piece begins, as a rule

    def between(self, start: int, stop: int) -> np.ndarray:
        """Values from `start` to before `stop`; an OSError, RuntimeError or ValueError when a chunk cannot be used."""
        if stop <= start:
            return np.empty(0, self.dataset.dtype)
        first, final = start // self.length, (stop - 1) // self.length
        known = {self.last[0]: self.last[1]} if self.last else {}
        wanted = [number for number in range(first, final + 1) if number not in known]
        packed = [self._packed(number) for number in wanted]
        known.update(zip(wanted, self.threads.map(self._unpacked, packed), strict=True))
        self.last = (final, known[final])
        parts: Sequence[np.ndarray] = [known[number] for number in range(first, final + 1)]
        joined = parts[0] if len(parts) == 1 else np.concatenate(parts)
        return joined[start - first * self.length : stop - first * self.length]

    def _packed(self, number: int) -> tuple[int, bytes]:
        """A chunk as it lies in the file, with the mask of the filters that were left out."""
        return self.dataset.id.read_direct_chunk((number * self.length,))

    def _unpacked(self, chunk: tuple[int, bytes]) -> np.ndarray:
        left_out, content = chunk
        if left_out:
            raise OSError(f"a chunk of {self.dataset.name} is packed in another way than the others")
        kind = self.dataset.dtype
        size = self.length * kind.itemsize
        try:
            unpacked = isal_zlib.decompressobj().decompress(content, max_length=size + 1)
        except isal_zlib.error as error:  # type: ignore[misc]
            raise OSError(f"a chunk of {self.dataset.name} cannot be unpacked: {error}") from error
        if len(unpacked) != size:
            raise OSError(f"a chunk of {self.dataset.name} does not hold {size:,} bytes")
        if not self.shuffled:
            return np.frombuffer(unpacked, kind)
        of_each_byte = np.frombuffer(unpacked, np.uint8).reshape(kind.itemsize, self.length)
        return np.ascontiguousarray(of_each_byte.T).reshape(-1).view(kind)
