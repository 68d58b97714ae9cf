"""InstructCell: ask single cells questions in plain language.

    >>> import instructcell as ic
    >>> adata = ic.read("cells.h5ad")
    >>> ic.tl.annotate(adata)

The names below are loaded when they are first used, so that ``import instructcell`` costs nothing.
"""

from __future__ import annotations

import importlib
import importlib.util
from pathlib import Path
from typing import TYPE_CHECKING, Any

from instructcell.errors import InstructCellError

if TYPE_CHECKING:
    from instructcell import pl, pp, tl
    from instructcell.cells import read
    from instructcell.session import Session

__version__ = "0.1.0"
__all__ = ["InstructCellError", "Session", "__version__", "pl", "pp", "read", "tl"]

_MODULES = ("pp", "tl", "pl")
_OBJECTS = {"read": "instructcell.cells", "Session": "instructcell.session"}


class WrongPackageError(InstructCellError, ImportError):
    """Another package of the same name hides one of ours."""


def check_encoders(expected: Path, found: str | None) -> None:
    """Raise unless the `encoders` that Python would import is the one installed beside this package.

    Parameters
    ----------
    expected
        The folder that should hold the package.
    found
        Path of the ``__init__.py`` Python would import, or None.

    Raises
    ------
    WrongPackageError
        Names what was found, what was expected and what to do.
    """
    if found is None:
        raise WrongPackageError(
            f"InstructCell's package 'encoders' was not found; it should be in {expected}. "
            "Install InstructCell again: pip install --force-reinstall --no-deps instructcell"
        )
    if Path(found).resolve().parent != expected.resolve():
        raise WrongPackageError(
            f"another package named 'encoders' hides InstructCell's: found {found}, expected {expected}. "
            "Rename or uninstall the other one, or start Python from another folder."
        )


def _origin(name: str) -> str | None:
    try:
        spec = importlib.util.find_spec(name)
    except ValueError:  # already imported by hand, without a spec
        return None
    return spec.origin if spec else None


check_encoders(Path(__file__).parent.parent / "encoders", _origin("encoders"))


def __getattr__(name: str) -> Any:
    if name in _MODULES:
        return importlib.import_module(f"instructcell.{name}")
    if name in _OBJECTS:
        return getattr(importlib.import_module(_OBJECTS[name]), name)
    raise AttributeError(f"module 'instructcell' has no attribute '{name}'")


def __dir__() -> list[str]:
    return sorted(__all__)
