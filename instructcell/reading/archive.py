"""Unpack a .zip, .tar or .gz into a temporary folder: nothing outside it, no links, no bombs."""

from __future__ import annotations

import gzip
import shutil
import tarfile
import tempfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any

from instructcell.errors import ReadError
from instructcell.reading.kinds import KNOWN, ZARR_MARKS, is_known

MOST_FILES = 1_000  # unpacked from one archive
MOST_ENTRIES = 500_000  # listed in one archive
MOST_BYTES = 64 * 2**30
BOMB_RATIO, BOMB_BYTES = 400, 2**28  # an archive that grows so many times, beyond so many bytes, is refused
PIECE = 2**20
# What gzip, tarfile and zipfile raise on damaged, encrypted or unknown archives.
FAULTS = (
    OSError, EOFError, ValueError, RuntimeError, NotImplementedError, zlib.error, tarfile.TarError, zipfile.BadZipFile,
)  # fmt: skip


@contextmanager
def unpacked(path: Path, kind: str) -> Iterator[Path]:
    """Give a temporary folder with the files of an archive that could hold cells; it is gone afterwards.

    Parameters
    ----------
    path
        The archive.
    kind
        "zip", "tar" or "packed" (a single gzipped file).

    Yields
    ------
    Path
        The folder.

    Raises
    ------
    ReadError
        The archive is damaged or encrypted, holds links or paths that lead out of it, or would unpack to too much.

    Examples
    --------
    >>> with unpacked(Path("cells.zip"), "zip") as folder:  # doctest: +SKIP
    ...     print(sorted(folder.iterdir()))
    """
    with tempfile.TemporaryDirectory(prefix="instructcell-") as name:
        folder = Path(name)
        try:
            UNPACK[kind](path, folder)
        except ReadError:
            raise
        except FAULTS as error:
            words = " ".join(str(error).split())[:160].rstrip(".") or type(error).__name__
            raise ReadError(
                f"{path.name} cannot be unpacked: {words}. Pack the files again, without a password."
            ) from error
        yield folder


def names_in_zip(path: Path) -> list[str]:
    """The names listed in a zip.

    Raises
    ------
    ReadError
        It is damaged.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
    except FAULTS as error:
        raise ReadError(f"{path.name} is a damaged zip ({error}). Pack or download it again.") from error
    if len(names) > MOST_ENTRIES:
        raise ReadError(f"{path.name} lists {len(names):,} files; at most {MOST_ENTRIES:,} are looked at.")
    return names


def _unpack_zip(path: Path, folder: Path) -> None:
    with zipfile.ZipFile(path) as archive:
        chosen = []
        for item in archive.infolist():
            inside = _inside(path, item.filename)
            mode = item.external_attr >> 16
            if mode & 0o170000 == 0o120000:
                raise _refused(path, f"{item.filename!r} is a link")
            if not item.is_dir() and _wanted(inside):
                chosen.append((item, inside))
        n_bytes = sum(item.file_size for item, _ in chosen)
        _check_growth(path, n_bytes)
        _check_room(path, n_bytes, len(chosen))
        budget = Budget(path)
        for item, inside in chosen:
            with archive.open(item) as source:
                budget.copy(source, folder / inside)


def _unpack_tar(path: Path, folder: Path) -> None:
    """One pass from front to back, so that a compressed archive is not unpacked twice."""
    budget, n_files, n_bytes = Budget(path), 0, 0
    with tarfile.open(path, "r|*") as archive:
        for n_seen, item in enumerate(archive):
            inside = _inside(path, item.name)
            if item.issym() or item.islnk():
                raise _refused(path, f"{item.name!r} is a link")
            if inside.name in ZARR_MARKS:
                raise ReadError(
                    f"{path.name} holds a zarr store, which is read from a folder or a .zip, not from a .tar. Unpack "
                    "it, or zip the store."
                )
            n_bytes += item.size
            _check_growth(path, n_bytes)
            if item.isfile() and _wanted(inside):
                n_files += 1
                _check_room(path, item.size, n_files)
                source = archive.extractfile(item)
                assert source is not None
                budget.copy(source, folder / inside)
            if n_seen > MOST_ENTRIES:
                raise _refused(path, f"it lists more than {MOST_ENTRIES:,} files")


def _unpack_gzip(path: Path, folder: Path) -> None:
    with gzip.open(path, "rb") as source:
        Budget(path).copy(source, folder / path.name[:-3])


class Budget:
    """Copies files out of an archive and stops when there are more bytes than it may hold, whatever it declared."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.n_bytes = 0

    def copy(self, source: Any, target: Path) -> None:
        """Write one file; never over another."""
        target.parent.mkdir(parents=True, exist_ok=True)
        with target.open("xb") as file:
            while piece := source.read(PIECE):
                self.n_bytes += len(piece)
                _check_growth(self.path, self.n_bytes)
                file.write(piece)


def _inside(path: Path, name: str) -> PurePosixPath:
    """The name of an entry, which must stay below the folder it is unpacked into."""
    inside = PurePosixPath(name.replace("\\", "/"))
    if inside.is_absolute() or ".." in inside.parts or PureWindowsPath(name).drive or "\x00" in name:
        raise _refused(path, f"{name!r} leads out of it")
    return inside


def _wanted(inside: PurePosixPath) -> bool:
    """Files that could hold cells or belong to a 10x matrix."""
    if any(part.startswith((".", "__MACOSX")) for part in inside.parts):
        return False
    return is_known(inside.name)


def _check_growth(path: Path, n_bytes: int) -> None:
    """Refuse an archive that grows as no file of counts does; `n_bytes` unpacked so far or in all."""
    packed = max(path.stat().st_size, 1)
    if n_bytes > MOST_BYTES or (n_bytes > BOMB_BYTES and n_bytes > BOMB_RATIO * packed):
        raise _refused(path, f"{packed:,} bytes unpack to more than {n_bytes // 10**6:,} MB")


def _check_room(path: Path, n_bytes: int, n_files: int) -> None:
    """Refuse to unpack more files than cells need or more bytes than the temporary folder takes."""
    if n_files > MOST_FILES:
        raise _refused(path, f"it holds more than {MOST_FILES:,} files of cells")
    if n_bytes > shutil.disk_usage(tempfile.gettempdir()).free:
        raise ReadError(
            f"{path.name} unpacks to {n_bytes / 2**30:.1f} GB, more than {tempfile.gettempdir()} has room for. "
            "Set TMPDIR to a folder on a larger disk."
        )


def _refused(path: Path, reason: str) -> ReadError:
    return ReadError(f"{path.name} is not unpacked: {reason}. Expected an archive of {KNOWN}. Pack only these files.")


UNPACK: dict[str, Callable[[Path, Path], None]] = {"zip": _unpack_zip, "tar": _unpack_tar, "packed": _unpack_gzip}
