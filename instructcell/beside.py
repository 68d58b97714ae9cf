"""Files that were fitted to the weights they lie beside: the read-out, the reference profiles, the populations."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from safetensors import SafetensorError

from instructcell.errors import CheckpointError

Fitted = TypeVar("Fitted")


def load_beside(
    path: Path, weights: str, read: Callable[[Path], Fitted], fitted_to: Callable[[Fitted], str], remedy: str
) -> Fitted | None:
    """What `read` makes of a file beside the weights; None where there is none.

    Parameters
    ----------
    weights
        sha256 of the model beside it.
    fitted_to
        sha256 of the model that what was read was fitted to.
    remedy
        What to do when these differ, and what is lost without the file.

    Raises
    ------
    CheckpointError
        The file is damaged, or was fitted to other weights.
    """
    if not path.is_file():
        return None
    try:
        found = read(path)
    except (SafetensorError, OSError, KeyError, TypeError, ValueError, RuntimeError) as error:
        raise CheckpointError(f"{path} cannot be loaded ({error}); copy the checkpoint again.") from error
    if fitted_to(found) != weights:
        raise CheckpointError(f"{path} was fitted to other weights than those beside it; {remedy}")
    return found
