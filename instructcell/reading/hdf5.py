"""HDF5 files of cells: AnnData, 10x, loom and MuData, told apart by what is inside rather than by the name.

anndata's readers do the reading, `read_elem` for the parts of the formats that are not AnnData.
"""

from __future__ import annotations

import html
import zlib
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pandas as pd
import scipy.sparse as sp
from anndata import AnnData
from anndata._io.specs.registry import IORegistryError  # not exported elsewhere
from anndata.io import read_elem

from instructcell.errors import ReadError
from instructcell.genes import GeneResolver
from instructcell.matrix import check_places
from instructcell.reading.guard import FEWER_CELLS, check_hdf5, check_memory, damaged
from instructcell.reading.on_disk import read_group, read_old

# What h5py, zarr, anndata and gzip raise on damaged or foreign files.
READER_ERRORS = (
    OSError, KeyError, ValueError, TypeError, IndexError, AttributeError, RuntimeError, OverflowError, MemoryError,
    EOFError, AssertionError, NotImplementedError, zlib.error, IORegistryError,
)  # fmt: skip
CELL_KEYS = ("CellID", "cell_id", "obs_names", "CellIDs", "barcode", "Barcode", "barcodes", "cell_names")
GENE_KEYS = ("Gene", "gene", "var_names", "gene_name", "GeneName", "gene_names", "Symbol", "Accession", "gene_id")
ON_DISK = ("/X", "/layers/", "/raw/X", "/raw.X", "/obsp/", "/varp/")  # what `backed` does not load
RNA = ("rna", "gex", "gene expression", "genes", "mrna", "transcriptome")
LEAST_KNOWN = 0.3  # share of the values of a row attribute that must be genes to name the rows
BLOCK_VALUES = 16_000_000  # values of a loom file held dense at a time: 128 MB in float64


def read_hdf5(path: Path, *, backed: bool = False, timeout: float | None = 30.0) -> tuple[AnnData, list[str]]:
    """Read an .h5ad, a 10x .h5 (versions 2 and 3), a .loom or the rna part of an .h5mu.

    Parameters
    ----------
    path
        The file.
    backed
        Leave the matrices of an AnnData on disk; the other formats are loaded.
    timeout
        Seconds that looking through the file beforehand may take; None trusts it.

    Returns
    -------
    tuple
        The cells by genes, and notes on what was decided.

    Raises
    ------
    ReadError
        The file is damaged, too large for the memory, or holds something else.
    """
    sizes = check_hdf5(path, timeout=timeout)
    with suppress(ImportError):  # its import teaches HDF5 the filters that it brings
        import hdf5plugin  # noqa: F401
    notes: list[str] = []
    with told_as_read_error(path.name), ExitStack() as closing:
        file = h5py.File(path, "r")
        if not backed:
            closing.enter_context(file)
        kind = _kind(file)
        if kind is None:
            raise ReadError(
                f"{path.name} is HDF5 but holds {', '.join(sorted(file)[:5]) or 'nothing'}; expected an AnnData "
                "(X, obs, var), a 10x matrix, a loom or a MuData file. Save the data with adata.write_h5ad."
            )
        if kind == "tenx":
            check_memory(path.name, sum(sizes.values()), FEWER_CELLS)
        if kind in READERS:
            adata = READERS[kind](file, notes)
        else:
            loaded = [size for name, size in sizes.items() if not (backed and name.startswith(ON_DISK))]
            check_memory(path.name, sum(loaded))
            adata, notes = read_old(path, backed=backed) if _is_old(file) else read_group(file, backed=backed)
        check_sparse(adata)
    return adata, notes


@contextmanager
def told_as_read_error(name: str) -> Iterator[None]:
    """What the readers raise on a damaged file, as one sentence."""
    try:
        yield
    except MemoryError as error:
        raise ReadError(
            f"{name} needs more memory than there is, or is damaged. Bring fewer cells or a larger machine."
        ) from error
    except READER_ERRORS as error:
        raise damaged(name, str(error) or type(error).__name__) from error


def check_sparse(adata: AnnData) -> None:
    """Indices that point outside a matrix would crash compiled code later: ValueError now."""
    for matrix in (adata.X, *adata.layers.values(), None if adata.raw is None else adata.raw.X):
        if isinstance(matrix, sp.csr_matrix | sp.csc_matrix | sp.csr_array | sp.csc_array):
            check_places(matrix)


def _kind(file: h5py.File) -> str | None:
    """Which of the formats is inside."""
    if "mod" in file and isinstance(file["mod"], h5py.Group):
        return "mudata"
    if {"matrix", "row_attrs", "col_attrs"} <= set(file):
        return "loom"
    if _is_tenx(file.get("matrix")) or any(_is_tenx(file[key]) for key in file):
        return "tenx"
    return "anndata" if {"X", "obs", "var"} & set(file) else None


def _is_old(file: h5py.File) -> bool:
    """Whether an AnnData was written before version 0.7."""
    return "raw.X" in file or any(isinstance(file.get(key), h5py.Dataset) for key in ("obs", "var"))


# ---- 10x


def _is_tenx(group: Any) -> bool:
    """Whether a group is a 10x matrix: "matrix" in version 3, named after the genome in version 2."""
    return isinstance(group, h5py.Group) and {"barcodes", "data", "indices", "indptr"} <= set(group)


def _read_tenx(file: h5py.File, notes: list[str]) -> AnnData:
    """A 10x matrix; the genomes of a mixed version 2 file stand side by side, features that are no genes are left."""
    groups = [file[key] for key in file if _is_tenx(file[key])]
    parts = [_tenx_part(group) for group in groups]
    cells = parts[0][1]
    if any(not np.array_equal(part[1], cells) for part in parts[1:]):
        genomes = ", ".join(group.name.strip("/") for group in groups)
        raise ReadError(f"the matrices {genomes} of the file hold different cells. Save one of them as .h5ad.")
    matrix = parts[0][0] if len(parts) == 1 else sp.hstack([part[0] for part in parts], format="csr")
    adata = AnnData(matrix, obs=pd.DataFrame(index=cells), var=pd.concat([part[2] for part in parts]))
    return only_genes(adata, notes)


def _tenx_part(group: h5py.Group) -> tuple[sp.csr_matrix, np.ndarray, pd.DataFrame]:
    """(counts [N, G], cell names, genes) of one 10x matrix, which is stored as genes by cells in CSC."""
    parts = {key: _text(read_elem(group[key])) for key in group if isinstance(group[key], h5py.Dataset)}
    n_genes, n_cells = (int(length) for length in parts["shape"])
    if (n_genes, n_cells) != (len(_gene_ids(group)), len(parts["barcodes"])):
        raise ValueError(f"shape says {n_genes} genes and {n_cells} cells, its names say otherwise")
    triple = (parts["data"], parts["indices"], parts["indptr"])
    matrix = sp.csr_matrix(triple, shape=(n_cells, n_genes))
    check_places(matrix)
    if matrix.dtype.kind in "iu":
        matrix = matrix.astype(np.float32)
    features = group.get("features")
    if features is None:
        var = pd.DataFrame({"gene_ids": _gene_ids(group)}, index=pd.Index(parts.get("gene_names", parts["genes"])))
        return matrix, parts["barcodes"], var.assign(genome=group.name.strip("/"))
    columns = {key: _text(read_elem(features[key])) for key in features if features[key].shape == (n_genes,)}
    var = pd.DataFrame(columns).rename(columns={"id": "gene_ids", "feature_type": "feature_types"})
    return matrix, parts["barcodes"], var.set_index("name" if "name" in var else "gene_ids", drop=True)


def _gene_ids(group: h5py.Group) -> np.ndarray:
    return _text(read_elem(group["features/id"] if "features" in group else group["genes"]))


def only_genes(adata: AnnData, notes: list[str]) -> AnnData:
    """The gene expression of a 10x matrix, without antibodies, guides or peaks, which get a note."""
    adata.var.index.name = None
    if "feature_types" not in adata.var:
        return adata
    types = adata.var["feature_types"].astype(str)
    others = types[types != "Gene Expression"].value_counts()
    if others.empty:
        return adata
    if len(adata.var) == others.sum():
        found = ", ".join(map(str, others.index))
        raise ReadError(f"the 10x matrix holds no gene expression, only {found}. Bring the gene expression matrix.")
    words = ", ".join(f"{count:,} {name}" for name, count in others.items())
    notes.append(f"features that are no genes were left out: {words}")
    return adata[:, (types == "Gene Expression").to_numpy()].copy()


# ---- loom


def _read_loom(file: h5py.File, notes: list[str]) -> AnnData:
    """A loom file: the main matrix as X, layers as layers, one-dimensional attributes as obs and var."""
    obs, var = _loom_attrs(file["col_attrs"], CELL_KEYS), _loom_attrs(file["row_attrs"], GENE_KEYS, genes=True)
    n_genes, n_cells = file["matrix"].shape
    obs = pd.DataFrame(index=pd.RangeIndex(n_cells).astype(str)) if obs is None else obs
    if var is None:
        there = ", ".join(file["row_attrs"]) or "nothing"
        raise ReadError(f"the rows of the loom file have no gene names (row attributes: {there}); expected Gene.")
    layers = file.get("layers", {})
    return AnnData(_turned(file["matrix"]), obs=obs, var=var, layers={name: _turned(layers[name]) for name in layers})


def _loom_attrs(group: h5py.Group, names: tuple[str, ...], *, genes: bool = False) -> pd.DataFrame | None:
    """One side's attributes as a table, named by the first known key, of genes also by the one with the most genes.

    None when no key names anything.
    """
    columns = {key: _unescaped(_text(read_elem(group[key]))) for key in group if group[key].ndim == 1}
    plain = {key.lower(): key for key in columns}
    key = next((name for name in names if name in columns), None)
    key = key or next((plain[name.lower()] for name in names if name.lower() in plain), None)
    if key is None and genes:
        found = {name: GeneResolver().resolve(list(values)).share_found for name, values in columns.items()}
        key = max(found, key=lambda name: found[name], default=None)
        key = key if key is not None and found[key] > LEAST_KNOWN else None
    if key is None:
        return None
    index = pd.Index(columns.pop(key)).astype(str)
    return pd.DataFrame(columns, index=index)


def _turned(matrix: h5py.Dataset) -> sp.csr_matrix:
    """A dense matrix of genes by cells as csr cells by genes, one block of cells at a time."""
    n_genes, n_cells = matrix.shape
    check_memory("the loom matrix", matrix.size, FEWER_CELLS)  # a byte for each value: one in eight not zero
    size = max(BLOCK_VALUES // max(n_genes, 1), 1)
    blocks = [sp.csr_matrix(matrix[:, start : start + size].T) for start in range(0, n_cells, size)]
    turned = sp.vstack(blocks, format="csr") if blocks else sp.csr_matrix((n_cells, n_genes))
    return turned if turned.dtype.kind == "f" else turned.astype(np.float32)


def _unescaped(values: np.ndarray) -> np.ndarray:
    """Loom 2 writes other than ASCII letters as XML entities."""
    if values.dtype.kind not in "OU":
        return values
    return np.array([html.unescape(str(value)) for value in values], dtype=object)


# ---- MuData


def _read_mudata(file: h5py.File, notes: list[str]) -> AnnData:
    """The rna part of a MuData file."""
    name = rna_of(file["mod"])
    check_memory(f"the part {name}", _stored(file["mod"][name]), FEWER_CELLS)
    notes += mudata_notes(file["mod"], name)
    part, more = read_group(file["mod"][name], backed=False)
    notes += more
    return part


def rna_of(parts: Any) -> str:
    """Which part of a MuData holds the gene expression."""
    names = [str(name) for name in parts]
    known = [name for name in names if name.lower() in RNA]
    if len(known) == 1 or len(names) == 1:
        return (known or names)[0]
    raise ReadError(
        f"the MuData file holds {', '.join(names) or 'no parts'}; expected one part called rna. "
        "Save the one to use with mdata[name].write_h5ad."
    )


def mudata_notes(parts: Any, name: str) -> list[str]:
    """What was left aside."""
    others = [str(other) for other in parts if other != name]
    return [f"the part {name} of a MuData file was read, not {', '.join(others)}"] if others else []


def _stored(group: h5py.Group) -> int:
    """Bytes that all datasets of a group take in memory."""
    sizes: list[int] = []

    def add(_: str, item: Any) -> None:
        if isinstance(item, h5py.Dataset):
            sizes.append(int(item.size or 0) * item.dtype.itemsize)

    group.visititems(add)
    return sum(sizes)


def _text(values: Any) -> np.ndarray:
    """Bytes become str; a single value becomes an array."""
    values = np.atleast_1d(np.asarray(values))
    if values.dtype.kind == "S":
        return np.char.decode(values, "utf-8", errors="replace").astype(object)
    if values.dtype.kind == "O":
        return np.array([v.decode("utf-8", "replace") if isinstance(v, bytes) else v for v in values], dtype=object)
    return values


READERS = {"tenx": _read_tenx, "loom": _read_loom, "mudata": _read_mudata}
