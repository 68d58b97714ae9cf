"""Compressed matrices on disk, unpacked beside the HDF5 library: the same values, or the library's own words."""

from __future__ import annotations

import zlib

import h5py
import numpy as np
import pytest
import scipy.sparse as sp
import tiny
from anndata.io import sparse_dataset, write_elem

from instructcell import batches, tools
from instructcell.cells import read
from instructcell.checkpoint import load_checkpoint
from instructcell.errors import MatrixError
from instructcell.reading import packed
from instructcell.reading.packed import PackedRows, packed_rows

SLICES = [slice(0, 7), slice(7, 8), slice(3, 60), slice(59, 90), slice(90, 97), slice(0, 97), slice(50, 50)]


def counts(kind: str = "float32") -> sp.csr_matrix:
    return sp.random(97, 50, 0.3, format="csr", random_state=0, data_rvs=lambda n: np.arange(1, n + 1)).astype(kind)


def stored(path, matrix, **how) -> h5py.File:
    file = h5py.File(path, "w")
    write_elem(file, "X", matrix, dataset_kwargs=how)
    return file


@pytest.mark.parametrize("shuffle", [False, True])
@pytest.mark.parametrize("kind", ["float32", "float64", "int32", "uint8"])
def test_rows_of_gzip_chunks_are_those_that_the_library_reads(tmp_path, kind, shuffle):
    file = stored(tmp_path / "c.h5", counts(kind), compression="gzip", shuffle=shuffle, chunks=(64,))
    matrix = sparse_dataset(file["X"])
    rows = packed_rows(matrix)
    assert isinstance(rows, PackedRows) and rows.shape == (97, 50) and rows.dtype == kind
    for chosen in SLICES:
        ours, theirs = rows[chosen], matrix[chosen]
        assert ours.shape == theirs.shape and ours.dtype == theirs.dtype
        for part in ("data", "indices", "indptr"):
            np.testing.assert_array_equal(getattr(ours, part), getattr(theirs, part))
    for some in (np.array([5, 90, 2]), np.r_[3:40, 60:97], np.r_[60:97, 3:40, 3:9]):
        assert rows[some].shape == (len(some), 50) and (rows[some] != counts(kind)[some]).nnz == 0


@pytest.mark.parametrize("how", [{}, {"compression": "lzf"}, {"compression": "gzip", "fletcher32": True}])
def test_other_ways_to_store_are_left_to_the_library(tmp_path, how):
    assert packed_rows(sparse_dataset(stored(tmp_path / "c.h5", counts(), **how)["X"])) is None
    assert packed_rows(counts()) is None and packed_rows(np.zeros((2, 2))) is None


def test_a_chunk_that_was_never_written_is_zeros(tmp_path):
    file = stored(tmp_path / "c.h5", counts(), compression="gzip", chunks=(64,))
    values = file["X/data"][:]
    del file["X/data"]
    file["X"].create_dataset("data", shape=values.shape, dtype="f4", chunks=(64,), compression="gzip")
    file["X/data"][64:] = values[64:]
    found = packed_rows(sparse_dataset(file["X"]))[0:97]
    np.testing.assert_array_equal(found.data, np.concatenate([np.zeros(64), values[64:]]))


def test_a_chunk_that_holds_too_much_is_never_unpacked_whole(tmp_path):
    file = stored(tmp_path / "c.h5", counts(), compression="gzip", chunks=(64,))
    file["X/data"].id.write_direct_chunk((64,), zlib.compress(bytes(10**6)))
    rows = packed_rows(sparse_dataset(file["X"]))
    with pytest.raises(OSError, match="does not hold 256 bytes"):
        rows.values.between(64, 70)
    assert (rows[0:97] != sparse_dataset(file["X"])[0:97]).nnz == 0


def test_a_damaged_chunk_is_a_sentence(tmp_path, tiny_checkpoint):
    adata = tiny.make_adata(60)
    adata.X = sp.csr_matrix(adata.X)
    adata.write_h5ad(tmp_path / "c.h5ad", compression="gzip")
    checkpoint = load_checkpoint(tiny_checkpoint)
    report = tools.inspect(adata, genes=checkpoint.processor.genes)
    with h5py.File(tmp_path / "c.h5ad", "a") as file:
        file["X/data"].id.write_direct_chunk((0,), b"no gzip at all")
    cells = read(tmp_path / "c.h5ad", backed=True, timeout=None)
    pieces = batches.aligned_pieces(cells, checkpoint.processor.genes, report, np.arange(60), at_once=8)
    with pytest.raises(MatrixError, match="cannot be read further, the file is damaged"):
        list(pieces)


def test_a_file_on_disk_is_read_this_way(tmp_path, tiny_checkpoint, monkeypatch):
    adata = tiny.make_adata(60)
    adata.X = sp.csr_matrix(adata.X)
    adata.write_h5ad(tmp_path / "c.h5ad", compression="gzip")
    checkpoint = load_checkpoint(tiny_checkpoint)
    genes = checkpoint.processor.genes
    report = tools.inspect(adata, genes=genes)
    read_by_us = []
    between = packed.PackedList.between
    monkeypatch.setattr(packed.PackedList, "between", lambda *given: read_by_us.append(given) or between(*given))
    cells = read(tmp_path / "c.h5ad", backed=True)
    found = list(batches.aligned_pieces(cells, genes, report, np.arange(60), at_once=8))
    whole = list(batches.aligned_pieces(adata, genes, report, np.arange(60), at_once=8))
    assert read_by_us and len(found) == 8
    for ours, theirs in zip(found, whole, strict=True):
        np.testing.assert_array_equal(ours.counts.toarray(), theirs.counts.toarray())
