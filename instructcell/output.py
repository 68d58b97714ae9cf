"""Writing results: a file appears whole or not at all, and nothing is replaced unasked."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from instructcell.errors import InstructCellError

if TYPE_CHECKING:
    from anndata import AnnData


class OutputError(InstructCellError):
    """A result cannot be written where it was asked for."""


def check_output(path: Path, *, inputs: Iterable[Path] = (), force: bool = False) -> Path:
    """Say before the work starts whether `path` can take the result.

    Parameters
    ----------
    path
        Where the result should go; must end in .h5ad.
    inputs
        Files that are read; none of them is ever replaced.
    force
        Replace `path` if it exists.

    Raises
    ------
    OutputError
        Names what stands in the way.

    Examples
    --------
    >>> check_output(Path("annotated.h5ad"), inputs=[Path("cells.h5ad")])
    """
    if path.suffix != ".h5ad":
        raise OutputError(f"the output is written as .h5ad, but its name is {path.name}; call it {path.stem}.h5ad")
    if any(source.exists() and path.exists() and source.samefile(path) for source in inputs):
        raise OutputError(f"{path} is the input; it is never replaced. Choose another name with -o")
    if path.is_dir():
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
    """Write `adata` beside its destination and rename it, so that no half-written file is ever left under that name.

    Raises
    ------
    OutputError
        The disk is full or the folder cannot be written to; a file that was at `path` is as it was.

    Examples
    --------
    >>> write_h5ad(adata, Path("annotated.h5ad"))
    """
    part = path.with_name(f".{path.stem}.{os.getpid()}.part.h5ad")
    try:
        adata.write_h5ad(part, compression="gzip")
        os.replace(part, path)
    except OSError as error:
        raise OutputError(
            f"{path} could not be written ({error}); free some space or choose another with -o"
        ) from error
    finally:
        part.unlink(missing_ok=True)
    return path
