"""Files of cells become AnnData, or one sentence says why not.

The readers are those of anndata and pandas, one module of `instructcell.reading` for each kind of file. Nothing here
unpickles, runs or follows what a file says; what a broken file makes the readers raise is told as a `ReadError`.
"""

from __future__ import annotations

import warnings
from pathlib import Path

import numpy as np
from anndata import AnnData

from instructcell.errors import MatrixError, ReadError
from instructcell.reading.kinds import KINDS, KNOWN, SUFFIXES, TABLE_SUFFIXES, is_known, kind_of

DEEPEST = 4  # folders in folders that are looked into: sample/outs/filtered_feature_bc_matrix/matrix.mtx.gz
MOST_LISTED = 100_000
__all__ = ["KINDS", "KNOWN", "SUFFIXES", "read"]


def read(source: str | Path | AnnData, *, backed: bool = False, timeout: float | None = 30.0) -> AnnData:
    """Read cells from a file or a folder.

    Parameters
    ----------
    source
        Path of an AnnData (.h5ad, .zarr), a 10x matrix (.h5, a folder, its .mtx), a .loom, the rna of a .h5mu, a table
        (.csv, .tsv, .txt, cells by genes or genes by cells), or a .zip, .tar.gz or .gz with one of these inside; or an
        AnnData, which is checked and returned as it is.
    backed
        Leave X, the layers and raw.X of an .h5ad or zarr on disk, to be read in rows; the other kinds are loaded.
    timeout
        Seconds that looking through an HDF5 file in a process of its own may take before it is opened; None for a file
        that is trusted.

    Returns
    -------
    AnnData
        Cells by genes, values as stored. Repeated cell names are made unique and a turned table is turned back;
        ``uns["instructcell_read"]["notes"]`` says so where it happened. A backed one always has
        ``uns["instructcell_read"]["file"]``.

    Raises
    ------
    ReadError
        The path is missing, of an unknown kind, truncated, damaged or unsafe, or needs more memory than there is.
    MatrixError
        There are no cells, no genes, or the values are not numbers.
    GeneAlignmentError
        A text table has no gene names along either side.

    Examples
    --------
    >>> adata = read("cells.h5ad")  # doctest: +SKIP
    >>> adata = read("filtered_feature_bc_matrix/")  # doctest: +SKIP
    >>> adata = read("million_cells.h5ad", backed=True)  # doctest: +SKIP
    """
    if isinstance(source, AnnData):
        _check(source, "the AnnData")
        return source
    path = Path(source)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of repeated names and old formats: told in the notes, or harmless
        adata, notes = _read(path, backed=backed, timeout=timeout)
    _check(adata, path.name)
    repeated = int(adata.obs_names.duplicated().sum())
    if repeated:
        adata.obs_names_make_unique()
        notes.append(f"{repeated:,} cell names repeated an earlier one and were numbered")
    if notes or backed:
        adata.uns["instructcell_read"] = {"file": path.name, "notes": notes}
    return adata


def _read(path: Path, *, backed: bool, timeout: float | None) -> tuple[AnnData, list[str]]:
    """Hand the path to the reader of its kind; folders and archives are looked into. Readers are imported here."""
    kind = kind_of(path)
    if kind == "hdf5":
        from instructcell.reading.hdf5 import read_hdf5

        return read_hdf5(path, backed=backed, timeout=timeout)
    if kind == "zarr":
        from instructcell.reading.zarr_store import read_zarr

        return read_zarr(path, backed=backed)
    if kind == "mtx":
        from instructcell.reading.mtx import read_mtx

        return read_mtx(path)
    if kind == "table":
        from instructcell.table import read_table

        return read_table(path)
    if kind == "folder":
        return _read(_inside(path, path.name), backed=backed, timeout=timeout)
    return _read_archive(path, kind, backed=backed, timeout=timeout)


def _read_archive(path: Path, kind: str, *, backed: bool, timeout: float | None) -> tuple[AnnData, list[str]]:
    """A zarr store is read from its zip; the one file or matrix inside any other archive is unpacked and loaded."""
    from instructcell.reading.archive import names_in_zip, unpacked

    if kind == "zip":
        from instructcell.reading.zarr_store import read_zarr, root_in_zip

        root = root_in_zip(names_in_zip(path))
        if root is not None:
            return read_zarr(path, backed=backed, root=root)
    with unpacked(path, kind) as folder:
        inside = _inside(folder, path.name)
        if kind_of(inside) in ("zip", "tar", "packed") and kind != "packed":
            raise ReadError(f"{path.name} holds another archive, {inside.name}. Unpack it and bring what is inside.")
        adata, notes = _read(inside, backed=False, timeout=timeout)
        return adata, notes if kind == "packed" else [f"{inside.name} was read from {path.name}", *notes]


def _inside(folder: Path, name: str) -> Path:
    """The matrix or file of cells in a folder or below it; tables only where there is nothing better.

    Raises
    ------
    ReadError
        There is none or more than one.
    """
    from instructcell.reading.mtx import matrices_in

    here = _listed(folder)
    files = [path for path in here if path.is_file() and is_known(path.name)]
    tables = [path for path in files if path.name.lower().endswith(TABLE_SUFFIXES)]
    stores = [path for path in here if path.is_dir() and kind_of(path) == "zarr"]
    others = [path for path in files if path not in tables]
    found = matrices_in(folder, here) or stores or others or tables
    if len(found) == 1:
        return found[0]
    if found:
        names = ", ".join(str(path.relative_to(folder)) for path in found[:5])
        raise ReadError(
            f"{name} holds {len(found)} files of cells ({names}); expected one. Choose one of them, or bring it alone."
        )
    there = ", ".join(path.name for path in here[:5]) or "nothing"
    raise ReadError(
        f"{name} holds no cells but {there}; expected a file or folder of them ({KNOWN}). Bring the one with counts."
    )


def _listed(folder: Path) -> list[Path]:
    """What is in a folder and below it, sorted; hidden names and the insides of zarr stores are not looked at."""
    found: list[Path] = []
    below = [(folder, 1)]
    while below and len(found) < MOST_LISTED:
        here, depth = below.pop()
        children = sorted(path for path in here.iterdir() if not path.name.startswith((".", "__MACOSX")))
        found += children
        if depth < DEEPEST:
            below += [(path, depth + 1) for path in children if path.is_dir() and kind_of(path) == "folder"]
    return sorted(found)


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
