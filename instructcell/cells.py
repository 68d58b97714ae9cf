"""Files of cells: .h5ad, 10x .h5 and text tables become AnnData, or one sentence says why not.

The readers are those of anndata, scanpy and pandas. Nothing here unpickles; what a broken file makes them raise is
caught around the reader alone and told as a `ReadError`.
"""

from __future__ import annotations

import re
import warnings
import zlib
from pathlib import Path
from typing import Any

import anndata
import h5py
import numpy as np
import scipy.sparse as sp
from anndata import AnnData
from anndata._io.specs.registry import IORegistryError  # not exported elsewhere

from instructcell.errors import MatrixError, ReadError
from instructcell.table import read_table

HDF5_SUFFIXES = (".h5ad", ".h5", ".hdf5")
TABLE_SUFFIXES = (".csv", ".tsv", ".txt", ".csv.gz", ".tsv.gz", ".txt.gz")
KNOWN = ".h5ad, 10x .h5, .csv, .tsv or .txt (also .gz)"
# What h5py, anndata, scanpy and gzip raise on damaged or foreign files.
READER_ERRORS = (
    OSError, KeyError, ValueError, TypeError, IndexError, AttributeError, RuntimeError, OverflowError, MemoryError,
    EOFError, zlib.error, IORegistryError,
)  # fmt: skip
MAGIC = (
    (b"\x89HDF\r\n\x1a\n", "an HDF5 file"),
    (b"\x1f\x8b", "a gzip-compressed file"),
    (b"PK\x03\x04", "a zip archive"),
    (b"\x80", "a Python pickle, which is never opened"),
    (b"RDX", "an R data file"),
    (b"BZh", "a bzip2-compressed file"),
    (b"%PDF", "a PDF"),
    (b"\x89PNG", "a picture"),
    (b"\xd0\xcf\x11\xe0", "an old Excel file"),
)


def read(source: str | Path | AnnData, *, backed: bool = False) -> AnnData:
    """Read cells from a file.

    Parameters
    ----------
    source
        Path of a .h5ad, 10x .h5 or .csv/.tsv/.txt(.gz) file (cells by genes or genes by cells), or an AnnData, which is
        checked and returned as it is.
    backed
        Leave the matrices of an .h5ad on disk, to be read in rows.

    Returns
    -------
    AnnData
        Cells by genes, values as stored. Repeated cell names are made unique and a turned table is turned back;
        ``uns["instructcell_read"]["notes"]`` says so where it happened.

    Raises
    ------
    ReadError
        The path is missing, a folder, of an unknown kind, truncated or damaged.
    MatrixError
        There are no cells, no genes, or the values are not numbers.
    GeneAlignmentError
        A text table has no gene names along either side.

    Examples
    --------
    >>> adata = read("cells.h5ad")  # doctest: +SKIP
    """
    if isinstance(source, AnnData):
        _check(source, "the AnnData")
        return source
    path = Path(source)
    kind = _kind(path)
    if kind == "table":
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # repeated names: told in the notes
            adata, notes = read_table(path)
    else:
        adata, notes = _read_hdf5(path, backed=backed), []
    _check(adata, path.name)
    repeated = int(adata.obs_names.duplicated().sum())
    if repeated:
        adata.obs_names_make_unique()
        notes.append(f"{repeated:,} cell names repeated an earlier one and were numbered")
    if notes:
        adata.uns["instructcell_read"] = {"file": path.name, "notes": notes}
    return adata


def _kind(path: Path) -> str:
    """ "hdf5" or "table", from the name and the first bytes; anything else is refused with what it is."""
    if path.is_dir():
        raise ReadError(f"{path} is a folder; expected a file ({KNOWN}). Choose the file inside it.")
    if not path.is_file():
        raise ReadError(f"{path} does not exist; expected a file ({KNOWN}). Check the path.")
    name = path.name.lower()
    try:
        with path.open("rb") as file:
            head = file.read(512)
    except OSError as error:
        raise ReadError(f"{path.name} cannot be opened: {error.strerror or error}. Check its permissions.") from error
    if not name.endswith((*HDF5_SUFFIXES, *TABLE_SUFFIXES)):
        raise ReadError(f"{path.name} is of an unknown kind ({_what(head)}); expected {KNOWN}. Convert it to one.")
    if not head:
        raise ReadError(f"{path.name} is empty (0 bytes); expected {KNOWN}. Copy or download it again.")
    if name.endswith(HDF5_SUFFIXES):
        if not head.startswith(MAGIC[0][0]):
            raise ReadError(f"{path.name} is {_what(head)}, not HDF5 as its name says. {_remedy(head)}")
        return "hdf5"
    zipped = head.startswith(b"\x1f\x8b")
    if zipped != name.endswith(".gz") or (not zipped and _what(head) != "a text file"):
        raise ReadError(f"{path.name} is {_what(head)}, not what its name says. {_remedy(head)}")
    return "table"


def _what(head: bytes) -> str:
    """What a file is, from its first bytes."""
    for magic, words in MAGIC:
        if head.startswith(magic):
            return words
    if not head:
        return "an empty file"
    printable = sum(byte >= 32 or byte in (9, 10, 13) for byte in head)
    return "a text file" if b"\x00" not in head and printable >= 0.95 * len(head) else "a binary file of unknown kind"


def _remedy(head: bytes) -> str:
    what = _what(head)
    if what == "a text file":
        first = head.decode("utf-8", errors="replace").splitlines()[0][:40]
        return f"It begins {first!r}: name a table .csv or .tsv; for a web page, download the file itself."
    if what == "a gzip-compressed file":
        return "Unpack it first, or name a text table .csv.gz or .tsv.gz."
    if what == "an HDF5 file":
        return "Name it .h5ad or .h5."
    if what == "a zip archive":
        return "Unpack it and choose the file inside."
    return f"Bring the data as {KNOWN}."


def _read_hdf5(path: Path, *, backed: bool = False) -> AnnData:
    """An .h5ad or a 10x .h5, told apart by what is inside rather than by the name."""
    try:
        with h5py.File(path, "r") as file:
            inside = sorted(file)
            tenx = "matrix" in file or any(_is_old_tenx(file[key]) for key in inside)
        if not tenx and not {"X", "obs", "var"} & set(inside):
            extra = " (a MuData file: save its rna part as .h5ad)" if "mod" in inside else ""
            raise ReadError(
                f"{path.name} is HDF5 but holds {', '.join(inside[:5]) or 'nothing'}{extra}; expected an AnnData "
                "(X, obs, var) or a 10x matrix. Save the data with adata.write_h5ad."
            )
        with warnings.catch_warnings():  # about repeated names and old formats: told in the notes, or harmless
            warnings.simplefilter("ignore")
            adata = _read_10x(path) if tenx else anndata.read_h5ad(path, backed="r" if backed else None)
            _check_sparse(adata)
    except READER_ERRORS as error:
        raise ReadError(_damage(path, error)) from error
    return adata


def _is_old_tenx(group: Any) -> bool:
    """Whether a group is the matrix of a 10x v2 file, which names it after the genome."""
    return isinstance(group, h5py.Group) and {"barcodes", "data", "indices", "indptr"} <= set(group)


def _read_10x(path: Path) -> AnnData:
    import scanpy

    return scanpy.read_10x_h5(path)


def _check_sparse(adata: AnnData) -> None:
    """Indices that point outside a matrix would crash compiled code later: ValueError now."""
    holders = [adata.X, *adata.layers.values(), None if adata.raw is None else adata.raw.X]
    for matrix in holders:
        if isinstance(matrix, sp.csr_matrix | sp.csc_matrix | sp.csr_array | sp.csc_array):
            matrix.check_format(full_check=True)


def _damage(path: Path, error: BaseException) -> str:
    """One sentence for what a reader raised."""
    words = " ".join(str(error).split())
    truncated = re.search(r"eof = (\d+).*stored_eof = (\d+)", words)
    if truncated:
        there, expected = (int(n) for n in truncated.groups())
        return (
            f"{path.name} is truncated: {there:,} of {expected:,} bytes are there. Copy or download it again, "
            "and wait until the upload is complete."
        )
    if isinstance(error, MemoryError):
        return f"{path.name} needs more memory than there is, or is damaged. Bring fewer cells or a larger machine."
    detail = words[:160].rstrip(" .") or type(error).__name__
    return (
        f"{path.name} cannot be read as AnnData or 10x HDF5; it is damaged or of another program ({detail}). "
        "Copy it again, or open and save it with a current anndata."
    )


def _check(adata: AnnData, name: str) -> None:
    """Refuse what no later step could use."""
    n_genes = adata.n_vars if adata.raw is None else max(adata.n_vars, adata.raw.shape[1])
    if adata.n_obs == 0 or n_genes == 0:
        raise MatrixError(
            f"{name} holds {adata.n_obs:,} cells and {n_genes:,} genes; expected at least one of each. "
            "Check the filters that wrote it."
        )
    dtype = np.dtype("float32") if adata.X is None else np.dtype(getattr(adata.X, "dtype", object))
    if dtype.kind not in "fiub":
        raise MatrixError(f"X of {name} holds {dtype} values; expected numbers. Save the expression values as X.")
