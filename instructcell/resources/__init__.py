"""The tables that ship with InstructCell: where they lie, how they are read, and that they are whole.

`build.py` makes them from pinned registry packages (`make resources`); `SHA256SUMS` records what was made; NOTICE says
whose work they are.
"""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import TYPE_CHECKING

from instructcell.errors import ResourceError

if TYPE_CHECKING:
    import pandas as pd

RESOURCES = Path(__file__).parent
CHECKSUMS = "SHA256SUMS"
DEMO_CELLS = {
    "islets": "demo_islets.h5ad",
    "mouse": "demo_mouse.h5ad",
    "pbmc": "demo_pbmc.h5ad",
}


def resource_path(name: str) -> Path:
    """Path of a shipped resource.

    Parameters
    ----------
    name
        File name inside the resources folder, such as ``"genes.tsv.gz"``.

    Raises
    ------
    ResourceError
        If the file is not there.
    """
    path = RESOURCES / name
    if not path.is_file():
        known = ", ".join(sorted(read_checksums())) or "none"
        raise ResourceError(
            f"resource {name!r} is not in {RESOURCES}; expected one of: {known}. "
            "Reinstall the package, or run `make resources` in a clone."
        )
    return path


def read_table(name: str) -> pd.DataFrame:
    """A shipped ``.tsv`` or ``.tsv.gz`` as text: every column str, empty cells ``""`` (the gene *NA* stays a name)."""
    import pandas as pd

    return pd.read_csv(resource_path(name), sep="\t", dtype=str, keep_default_na=False, quoting=3, encoding="utf-8")


def demo_path(name: str) -> Path:
    """Path of the demo cells called ``name`` ("islets", "mouse" or "pbmc"): an ``.h5ad`` with raw counts in X.

    Raises
    ------
    ResourceError
        If there are no demo cells of that name.
    """
    if name not in DEMO_CELLS:
        raise ResourceError(f"no demo cells are called {name!r}; choose one of: {', '.join(DEMO_CELLS)}.")
    return resource_path(DEMO_CELLS[name])


def read_checksums(folder: Path = RESOURCES) -> dict[str, str]:
    """File name -> sha256, as written by the build; empty when nothing was built yet."""
    path = folder / CHECKSUMS
    if not path.is_file():
        return {}
    lines = path.read_text(encoding="utf-8").splitlines()
    return {name: digest for digest, name in (line.split("  ", 1) for line in lines if line)}


def verify_resources(folder: Path = RESOURCES) -> list[str]:
    """Compare every resource with its recorded sha256.

    Returns
    -------
    Names of the files that were checked.

    Raises
    ------
    ResourceError
        If a file is missing or differs; the message names each.
    """
    recorded = read_checksums(folder)
    missing = [name for name in recorded if not (folder / name).is_file()]
    changed = [name for name in recorded if name not in missing and file_sha256(folder / name) != recorded[name]]
    if missing or changed or not recorded:
        found = "; ".join(
            part
            for part in (
                f"missing: {', '.join(missing)}" if missing else "",
                f"changed: {', '.join(changed)}" if changed else "",
                "" if recorded else f"no {CHECKSUMS}",
            )
            if part
        )
        raise ResourceError(
            f"the resources in {folder} are not those that were shipped ({found}). "
            "Reinstall the package, or run `make resources` in a clone."
        )
    return sorted(recorded)


def file_sha256(path: Path) -> str:
    """Hex sha256 of a file, read in pieces."""
    digest = hashlib.sha256()
    with path.open("rb") as stream:
        while piece := stream.read(1 << 20):
            digest.update(piece)
    return digest.hexdigest()
