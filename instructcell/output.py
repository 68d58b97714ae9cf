"""Writing results: a file appears whole or not at all, and nothing is replaced unasked.

Cells in memory are written as .h5ad (`write_h5ad`); a file on disk is copied as it is and the results are added to the
copy (`Copy`, `add_results`), so that nothing of it passes through memory or changes.
"""

from __future__ import annotations

import errno
import os
import shutil
import threading
import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from instructcell.errors import InstructCellError

if TYPE_CHECKING:
    import pandas as pd
    from anndata import AnnData

RESERVED = ("_index",)  # names that columns of obs and var must not have
COPY_BYTES = 16 * 1024**2  # at a time
NO_COPY_BY_KERNEL = {errno.EXDEV, errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP, errno.EPERM}
FORMULA = ("=", "+", "-", "@", "\t", "\r")  # by which a spreadsheet knows a formula
OWN_NOTES = "instructcell_read"  # in uns: remarks of the reader, not part of the data


class OutputError(InstructCellError):
    """A result cannot be written where it was asked for."""


def check_output(
    path: Path, *, inputs: Iterable[Path] = (), force: bool = False, formats: Sequence[str] = (".h5ad",)
) -> Path:
    """Say before the work starts whether `path` can take the result.

    Parameters
    ----------
    path
        Where the result should go.
    inputs
        Files that are read; none of them is ever replaced.
    force
        Replace `path` if it exists.
    formats
        How its name may end.

    Raises
    ------
    OutputError
        Names what stands in the way.

    Examples
    --------
    >>> check_output(Path("annotated.h5ad"), inputs=[Path("cells.h5ad")])
    """
    if path.suffix not in formats:
        raise OutputError(
            f"the output is written as {' or '.join(formats)}, but its name is {path.name}; "
            f"call it {path.stem or 'result'}{formats[0]}"
        )
    if any(source.exists() and path.exists() and source.samefile(path) for source in inputs):
        raise OutputError(f"{path} is the input; it is never replaced. Choose another name with -o")
    if path.is_dir() and not _is_zarr(path):
        raise OutputError(f"{path} is a folder; name a file in it with -o {path / 'result.h5ad'}")
    if path.exists() and not force:
        raise OutputError(f"{path} exists already; pass --force to replace it or choose another name with -o")
    folder = path.absolute().parent
    if not folder.is_dir():
        raise OutputError(f"the folder {folder} of the output does not exist; make it first or choose another with -o")
    if not os.access(folder, os.W_OK):
        raise OutputError(f"the folder {folder} cannot be written to; choose another with -o")
    return path


def write_h5ad(adata: AnnData, path: Path) -> Path:
    """Write cells as .h5ad that scanpy and cellxgene can read; the file appears whole or not at all.

    Cell names that repeat are numbered, a column of mixed values is written as text, a column with a reserved name gets
    another one; `adata` itself stays as it is.

    Raises
    ------
    OutputError
        The disk is full, the folder cannot be written to, or the cells hold something no .h5ad can; a file that was at
        `path` is as it was.

    Examples
    --------
    >>> write_h5ad(adata, Path("annotated.h5ad"))
    """
    from anndata._io.specs.registry import IORegistryError  # not exported elsewhere

    with beside(path) as part:
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                writable(adata).write_h5ad(part, compression="gzip")
        except (TypeError, ValueError, NotImplementedError, KeyError, IORegistryError) as error:
            words = " ".join(str(error).split())[:200]
            raise OutputError(f"{path.name} cannot be written: the cells hold what no .h5ad can ({words})") from error
    return path


@contextmanager
def beside(path: Path, part: Path | None = None) -> Iterator[Path]:
    """A name to write to; what stands there at the end takes the place of `path`, and nothing is left on failure."""
    part = part or path.with_name(f".{path.stem}.{os.getpid()}.part{path.suffix}")
    try:
        yield part
        _sync(part)
        _take_place(part, path)
    except OSError as error:
        raise OutputError(
            f"{path} could not be written ({error}); free some space or choose another with -o"
        ) from error
    finally:
        _remove(part)


def _take_place(part: Path, path: Path) -> None:
    """Rename `part` to `path`; a zarr folder that stands there goes away afterwards."""
    if not path.is_dir():
        os.replace(part, path)
        return
    old = part.with_name(f"{part.name}.old")
    _remove(old)
    path.rename(old)
    part.rename(path)
    _remove(old)


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def _sync(path: Path) -> None:
    """Have a file's content on disk before it gets its name; of a folder every file."""
    for file in path.rglob("*") if path.is_dir() else [path]:
        if file.is_file():
            with file.open("rb") as opened:
                os.fsync(opened.fileno())


# ---- cells in memory


def safe_cells(table: pd.DataFrame) -> pd.DataFrame:
    """A table in which no spreadsheet finds formulas: texts that begin like one get an apostrophe in front.

    Names of cells, genes and groups come from users' files; "=HYPERLINK(...)" among them would be run when the .csv is
    opened. Numbers stay numbers.
    """
    import pandas as pd

    def safe(value: Any) -> Any:
        return f"'{value}" if isinstance(value, str) and value.startswith(FORMULA) else value

    changed = table.rename(columns=safe)
    for place in range(changed.shape[1]):
        values = changed.iloc[:, place]
        if isinstance(values.dtype, pd.CategoricalDtype) or not pd.api.types.is_numeric_dtype(values):
            changed.isetitem(place, values.astype(object).map(safe))
    return changed


def writable(adata: AnnData) -> AnnData:
    """The same cells with names and columns that every reader of .h5ad takes; nothing is copied that is in order."""
    from anndata import AnnData

    changed = AnnData(
        X=adata.X,
        obs=tidy_columns(adata.obs),
        var=tidy_columns(adata.var),
        uns={name: value for name, value in adata.uns.items() if name != OWN_NOTES},
        obsm=dict(adata.obsm),
        varm=dict(adata.varm),
        layers=dict(adata.layers),
        obsp=dict(adata.obsp),
        varp=dict(adata.varp),
    )
    if adata.raw is not None:
        raw = AnnData(X=adata.raw.X, obs=changed.obs[[]], var=tidy_columns(adata.raw.var), varm=dict(adata.raw.varm))
        changed.raw = raw
    if not changed.obs_names.is_unique:
        changed.obs_names_make_unique()
    return changed


def tidy_columns(frame: pd.DataFrame) -> pd.DataFrame:
    """A frame whose columns have names and types that .h5ad can hold."""
    import pandas as pd

    tidy = pd.DataFrame(index=frame.index.copy())
    names = [str(name) for name in frame.columns]
    for position, name in enumerate(names):
        earlier = names[:position].count(name)
        name = f"{name}_{earlier}" if earlier else f"{name}_column" if name in RESERVED else name
        tidy[name] = _tidy(frame.iloc[:, position])
    if tidy.index.name in tidy.columns and not tidy[tidy.index.name].astype(str).equals(
        pd.Series(tidy.index.astype(str), index=tidy.index)
    ):
        tidy.index.name = None
    return tidy


def _tidy(column: pd.Series) -> Any:
    """A column as numbers, booleans, strings or categories of one kind; anything else as text."""
    import pandas as pd

    values = column.array
    if isinstance(column.dtype, pd.CategoricalDtype):
        kind = pd.api.types.infer_dtype(column.cat.categories, skipna=True)
        return values if kind in ("string", "integer", "floating", "boolean", "empty") else _as_text(column)
    if column.dtype != object:
        return values if column.dtype.kind in "biuf" or pd.api.types.is_string_dtype(column) else _as_text(column)
    kind = pd.api.types.infer_dtype(column, skipna=True)
    if kind == "boolean":
        return column.astype("boolean").array
    if kind in ("integer", "floating", "mixed-integer-float"):
        return pd.to_numeric(column).array
    return values if kind == "string" and not column.isna().any() else _as_text(column)


def _as_text(column: pd.Series) -> pd.Categorical:
    """Each value as it is printed; what is missing stays missing."""
    import pandas as pd

    text = column.astype(object).map(str, na_action="ignore")
    return pd.Categorical(text)


# ---- files on disk


def can_copy(source: Path, output: Path) -> bool:
    """Whether `source` holds cells in the format of `output`, so that copying it will do."""
    import h5py

    if _is_zarr(source):
        return output.suffix == ".zarr"
    if output.suffix != ".h5ad" or not source.is_file() or not h5py.is_hdf5(source):
        return False
    with h5py.File(source, "r") as file:
        return {"obs", "var"} <= set(file) and "mod" not in file


class Copy(threading.Thread):
    """Copies a file or a zarr folder byte by byte while something else goes on; what stood at `target` goes away."""

    def __init__(self, source: Path, target: Path) -> None:
        super().__init__(name="instructcell-copy", daemon=True)
        self.source, self.target = source, target
        self._given_up = threading.Event()
        self._error: OSError | None = None

    def run(self) -> None:
        try:
            _remove(self.target)
            if self.source.is_dir():
                shutil.copytree(self.source, self.target, copy_function=self._copy)
            else:
                self._copy(self.source, self.target)
        except OSError as error:
            self._error = error

    def _copy(self, source: str | Path, target: str | Path) -> None:
        with open(source, "rb") as whole, open(target, "wb") as copied:
            try:
                while not self._given_up.is_set() and _copied_by_kernel(whole, copied):
                    pass
            except OSError as error:
                if error.errno not in NO_COPY_BY_KERNEL:
                    raise
            while not self._given_up.is_set() and (piece := whole.read(COPY_BYTES)):
                copied.write(piece)

    def finish(self) -> None:
        """Wait for the end; an OSError if it failed."""
        self.join()
        if self._error is not None:
            raise self._error

    def give_up(self) -> None:
        """Stop, and leave nothing."""
        self._given_up.set()
        self.join()
        _remove(self.target)


def _copied_by_kernel(whole: IO[bytes], copied: IO[bytes]) -> int:
    """Bytes that the system itself has copied from one file to the other, a fifth of the work; 0 at the end."""
    if not hasattr(os, "copy_file_range"):
        return 0
    return os.copy_file_range(whole.fileno(), copied.fileno(), COPY_BYTES)


def add_results(store: Path, adata: AnnData, *, obs: Iterable[str], obsm: Iterable[str], uns: Iterable[str]) -> None:
    """Write some columns, arrays and records of `adata` into a copy of its file; all else in it stays as it is."""
    with _opened(store) as root, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        _add_columns(root, adata, list(obs))
        _add_items(root, "obsm", dict(adata.obsm), obsm)
        _add_items(root, "uns", {name: value for name, value in adata.uns.items() if name != OWN_NOTES}, uns)


@contextmanager
def _opened(store: Path) -> Iterator[Any]:
    """The root group, to be changed; consolidated metadata of a zarr folder are written anew."""
    import h5py

    if not store.is_dir():
        with h5py.File(store, "r+") as file:
            yield file
        return
    import zarr

    root = zarr.open_group(store, mode="r+", use_consolidated=False)
    yield root
    if root.metadata.consolidated_metadata is not None or (store / ".zmetadata").is_file():
        zarr.consolidate_metadata(store)


def _add_columns(root: Any, adata: AnnData, names: list[str]) -> None:
    """Columns of obs; tables of an old layout, or an index with names that repeat, are written anew."""
    import pandas as pd
    from anndata.io import read_elem, write_elem

    frame = root["obs"]
    order = None if not hasattr(frame, "keys") else frame.attrs.get("column-order")
    if order is None:
        _replace(root, "obs", adata.obs)
        if not hasattr(root["var"], "keys"):  # anndata reads an old var only beside an old obs
            _replace(root, "var", adata.var)
        _forget_old_categories(root, adata)
        return
    index = str(frame.attrs["_index"])
    if pd.Index(read_elem(frame[index])).has_duplicates:
        _replace(frame, index, adata.obs_names.to_numpy(object))
    for name in names:
        if name in frame:
            del frame[name]
        column = adata.obs[name]
        write_elem(frame, name, column.array if isinstance(column.dtype, pd.CategoricalDtype) else column.to_numpy())
    frame.attrs["column-order"] = list(dict.fromkeys([*map(str, order), *names]))


def _forget_old_categories(root: Any, adata: AnnData) -> None:
    """Names of categories that an old layout keeps in uns for columns of obs and var, which hold them now."""
    for name in {*adata.obs, *adata.var}:
        key = f"{name}_categories"
        if key not in adata.uns and key in root.get("uns", {}):
            del root["uns"][key]


def _add_items(root: Any, name: str, items: Mapping[str, Any], wanted: Iterable[str]) -> None:
    """Items of a mapping such as obsm; a mapping of an old layout is written anew."""
    from anndata.io import write_elem

    if name not in root or not hasattr(root[name], "keys"):
        _replace(root, name, {key: items[key] for key in (items if name in root else wanted)})
        return
    for key in wanted:
        if key in root[name]:
            del root[name][key]
        write_elem(root[name], key, items[key])


def _replace(group: Any, name: str, value: Any) -> None:
    from anndata.io import write_elem

    if name in group:
        del group[name]
    write_elem(group, name, value)


def _is_zarr(path: Path) -> bool:
    return path.is_dir() and any((path / name).is_file() for name in ("zarr.json", ".zgroup"))
