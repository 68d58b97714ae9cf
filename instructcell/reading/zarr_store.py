"""AnnData in zarr: a folder or a zip of it. Read by anndata; codecs that could run code are refused before."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from anndata import AnnData

from instructcell.errors import ReadError
from instructcell.reading.guard import check_memory
from instructcell.reading.hdf5 import check_sparse, mudata_notes, rna_of, told_as_read_error
from instructcell.reading.kinds import ZARR_MARKS
from instructcell.reading.on_disk import read_group

ON_DISK = ("X", "layers", "raw", "obsp", "varp")  # what `backed` does not load
METADATA = (".zarray", ".zgroup", ".zmetadata", "zarr.json")
LARGEST_METADATA = 2**26  # bytes of one file
# Codecs that only turn bytes into bytes, numbers or text. A pickle or an unknown plug-in is refused.
CODECS = {
    "bytes", "endian", "blosc", "zlib", "gzip", "zstd", "lz4", "lzma", "bz2", "shuffle", "delta", "bitround",
    "fixedscaleoffset", "quantize", "astype", "packbits", "categorize", "vlen-utf8", "vlen-bytes", "vlen-array",
    "crc32", "crc32c", "adler32", "fletcher32", "jenkins_lookup3", "transpose", "sharding_indexed", "json2",
}  # fmt: skip


def read_zarr(path: Path, *, backed: bool = False, root: str = "") -> tuple[AnnData, list[str]]:
    """Read an AnnData, or the rna part of a MuData, from zarr (format 2 or 3).

    Parameters
    ----------
    path
        A folder, or a zip of one.
    backed
        Leave the matrices on disk (not of a MuData, nor in a zip with a folder around the store).
    root
        Folder inside the zip that holds the data.

    Returns
    -------
    tuple
        The cells by genes, and notes on what was decided.

    Raises
    ------
    ReadError
        It is damaged, too large for the memory, holds something else or uses a codec that is not allowed.
    """
    import zarr

    with told_as_read_error(path.name):
        _check_codecs(path)
        store: Any = path if path.is_dir() else zarr.storage.ZipStore(path, mode="r")
        group: Any = zarr.open_group(store, path=root or None, mode="r")
        notes: list[str] = []
        if backed and root:  # anndata opens a store again at its top, where such a zip has no group
            backed = False
            notes.append("the zip has a folder around the zarr store and was loaded whole; zip the store's content")
        if "mod" in group:
            name = rna_of(list(group["mod"]))
            notes += mudata_notes(list(group["mod"]), name)
            group, backed = group["mod"][name], False
        if not {"X", "obs", "var"} & set(group):
            raise ReadError(
                f"{path.name} is zarr but holds {', '.join(sorted(group)[:5]) or 'nothing'}; expected an AnnData "
                "(X, obs, var). Save the data with adata.write_zarr."
            )
        loaded = [_stored(item) for name, item in group.members() if not (backed and name in ON_DISK)]
        check_memory(path.name, sum(loaded))
        adata, more = read_group(group, backed=backed)
        check_sparse(adata)
    return adata, notes + more


def root_in_zip(names: list[str]) -> str | None:
    """The folder of a zip that is a zarr store ("" for the zip itself); None when there is none."""
    marks = [name for name in names if name.rsplit("/", 1)[-1] in ZARR_MARKS]
    if not marks:
        return None
    highest = min(name.count("/") for name in marks)
    roots = {name.rpartition("/")[0] for name in marks if name.count("/") == highest}
    if len(roots) > 1:
        raise ReadError(f"the zip holds {len(roots)} zarr stores ({', '.join(sorted(roots)[:5])}); bring one of them.")
    return roots.pop()


def _check_codecs(path: Path) -> None:
    """Refuse arrays whose codecs are not in the list of harmless ones."""
    for name, text in _metadata(path):
        try:
            content = json.loads(text)
        except (ValueError, RecursionError) as error:
            raise ValueError(f"{name} is not JSON") from error
        for codec in _codecs(content):
            if codec.removeprefix("numcodecs.") not in CODECS:
                raise ReadError(
                    f"{path.name} is packed with {codec!r} ({name}), which can run code and is never opened. "
                    "Write the data again with adata.write_zarr."
                )


def _metadata(path: Path) -> Iterator[tuple[str, bytes]]:
    """(name, content) of every file of metadata."""
    if path.is_dir():
        yield from _metadata_in(path)
        return
    with zipfile.ZipFile(path) as archive:
        for item in archive.infolist():
            if item.filename.rsplit("/", 1)[-1] in METADATA:
                if item.file_size > LARGEST_METADATA:
                    raise ValueError(f"{item.filename} has {item.file_size:,} bytes")
                yield item.filename, archive.read(item)


def _metadata_in(folder: Path) -> Iterator[tuple[str, bytes]]:
    """The metadata of a folder and of the folders in it; the chunks of an array are not looked through."""
    for mark in METADATA:
        file = folder / mark
        if file.is_file():
            if file.stat().st_size > LARGEST_METADATA:
                raise ValueError(f"{mark} has {file.stat().st_size:,} bytes")
            yield f"{folder.name}/{mark}", file.read_bytes()
    if not (folder / ".zarray").is_file():
        for child in folder.iterdir():
            if child.is_dir() and any((child / mark).is_file() for mark in METADATA):
                yield from _metadata_in(child)


def _codecs(content: Any) -> Iterator[str]:
    """Every codec that a piece of metadata names, also in the consolidated metadata of a store."""
    if isinstance(content, list):
        for item in content:
            yield from _codecs(item)
    if not isinstance(content, dict):
        return
    for key, value in content.items():
        if key == "attributes" or key.endswith(".zattrs"):
            continue
        if key in ("compressor", "filters", "codecs", "index_codecs"):
            for codec in value if isinstance(value, list) else [value]:
                if isinstance(codec, dict):
                    yield str(codec.get("id", codec.get("name")))
                elif isinstance(codec, str):
                    yield codec
        yield from _codecs(value)


def _stored(item: Any) -> int:
    """Bytes that an array, or all arrays of a group, take in memory."""
    return int(item.nbytes) if hasattr(item, "nbytes") else sum(_stored(child) for _, child in item.members())
