"""A 10x matrix in Market format: matrix.mtx(.gz) with the tables of its genes and cells, under any prefix.

anndata reads the matrix and pandas the tables. Cell Ranger, STARsolo, kallisto and GEO name and turn them differently.
"""

from __future__ import annotations

import gzip
import re
from dataclasses import dataclass
from pathlib import Path
from typing import IO, cast

import anndata
import pandas as pd
import scipy.sparse as sp
from anndata import AnnData
from isal import igzip, isal_zlib

from instructcell.errors import ReadError
from instructcell.matrix import check_places
from instructcell.reading.guard import FEWER_CELLS, check_memory
from instructcell.reading.hdf5 import only_genes, told_as_read_error
from instructcell.reading.kinds import CELL_FILE, GENE_FILE, GZIP, MTX_SUFFIXES

BLOCK = 2**20  # bytes looked through at once
BYTES_PER_ENTRY = 4  # at least: "1 1" and the end of the line
DEFLATE_AT_MOST = 1040  # times smaller than its content a gzip can be
IN_MEMORY = 32  # bytes per entry while the matrix is turned
HEADER_LINES, LONGEST_LINE = 10_000, 2**16


@dataclass(frozen=True)
class Trio:
    """The three files of a 10x matrix."""

    matrix: Path
    genes: Path
    cells: Path


def find_trio(matrix: Path) -> Trio:
    """Find the tables that belong to a matrix in its folder.

    Raises
    ------
    ReadError
        One of them is missing, or several could be meant.
    """
    prefix = re.sub(r"matrix$", "", re.sub(r"\.mtx(\.gz)?$", "", matrix.name, flags=re.IGNORECASE))
    beside = sorted(path for path in matrix.parent.iterdir() if path.is_file() and not path.name.startswith("."))
    return Trio(matrix, _sibling(matrix, prefix, beside, GENE_FILE), _sibling(matrix, prefix, beside, CELL_FILE))


def _sibling(matrix: Path, prefix: str, beside: list[Path], pattern: re.Pattern[str]) -> Path:
    """The one table of a kind with the matrix's prefix, or the only one of its kind in the folder."""
    of_kind = [path for path in beside if pattern.search(path.name)]
    own = [path for path in of_kind if path.name.startswith(prefix)]
    if len(own) > 1:  # GSM1_ has GSM1_genes.tsv, not GSM1_lane2_genes.tsv
        own = [path for path in own if pattern.fullmatch(path.name.removeprefix(prefix))] or own
    if len(own) > 1:
        own = [path for path in own if path.suffix == (".gz" if matrix.suffix == ".gz" else path.suffix)] or own
    chosen = own if own else of_kind
    if len(chosen) == 1:
        return chosen[0]
    what = "features.tsv or genes.tsv" if pattern is GENE_FILE else "barcodes.tsv"
    found = ", ".join(path.name for path in chosen) or ", ".join(path.name for path in beside[:6])
    raise ReadError(
        f"{matrix.name} needs one {what} beside it (also .gz, with the same prefix), and its folder holds {found}. "
        "Put the three files of the matrix into one folder or zip."
    )


def read_mtx(matrix: Path) -> tuple[AnnData, list[str]]:
    """Read a 10x matrix with its genes and cells.

    Parameters
    ----------
    matrix
        The .mtx or .mtx.gz file; the tables are looked for beside it.

    Returns
    -------
    tuple
        The cells by genes (csr float32), and notes on what was decided.

    Raises
    ------
    ReadError
        A table is missing, the three do not fit together, or the matrix is damaged.
    """
    trio, notes = find_trio(matrix), []
    with told_as_read_error(matrix.name):
        genes, cells = _table(trio.genes), _table(trio.cells)
        n_rows, n_columns, n_entries = _header(matrix)
        _check_text(matrix)
        turned, genes, cells = _orient(trio, (n_rows, n_columns), genes, cells)
        check_memory(matrix.name, n_entries * IN_MEMORY, FEWER_CELLS)
        values = anndata.io.read_mtx(matrix).X
        values = sp.csr_matrix(values.T if turned else values)
        check_places(values)
    if not turned:
        notes.append("the matrix was stored as cells by genes")
    adata = AnnData(values, obs=_obs(cells), var=_var(genes))
    return only_genes(adata, notes), notes


def _header(matrix: Path) -> tuple[int, int, int]:
    """(rows, columns, entries) that the matrix announces; ValueError when its size cannot hold them."""
    with _opened(matrix) as file:
        banner = file.readline(LONGEST_LINE).decode("ascii", "replace").lower().split()
        if banner[:2] != ["%%matrixmarket", "matrix"] or len(banner) < 5:
            raise ValueError("it does not begin with %%MatrixMarket")
        if banner[2] not in ("coordinate", "array") or banner[3] in ("complex", "hermitian") or banner[4] != "general":
            raise ValueError(f"a {' '.join(banner[2:5])} matrix holds no expression")
        for _ in range(HEADER_LINES):
            line = file.readline(LONGEST_LINE).decode("ascii", "replace")
            if line.strip() and not line.startswith("%"):
                break
    numbers = [int(number) for number in line.split()]
    if len(numbers) != (3 if banner[2] == "coordinate" else 2) or min(numbers) < 0:
        raise ValueError(f"{line.strip()[:60]!r} is no line of rows, columns and entries")
    n_entries = numbers[2] if len(numbers) == 3 else numbers[0] * numbers[1]
    room = matrix.stat().st_size * (DEFLATE_AT_MOST if _is_gzip(matrix) else 1)
    if n_entries > numbers[0] * numbers[1] or n_entries * (BYTES_PER_ENTRY if len(numbers) == 3 else 2) > room + 4:
        raise ValueError(f"it announces {n_entries:,} values, more than it can hold; it is cut off")
    return numbers[0], numbers[1], n_entries


def _check_text(matrix: Path) -> None:
    """ValueError at a zero byte, at which the compiled reader of the numbers would run out of its memory."""
    with igzip.open(matrix, "rb") if _is_gzip(matrix) else matrix.open("rb") as file:
        try:
            while block := file.read(BLOCK):
                if b"\0" in block:
                    raise ValueError("it holds zero bytes between its numbers")
        except isal_zlib.error as error:  # type: ignore[misc]
            raise OSError(f"it cannot be unpacked: {error}") from error


def _orient(
    trio: Trio, shape: tuple[int, int], genes: pd.DataFrame, cells: pd.DataFrame
) -> tuple[bool, pd.DataFrame, pd.DataFrame]:
    """(whether genes are in rows, genes, cells): the lengths decide, with or without a line of headings each."""
    for genes_in_rows in (True, False):
        n_genes, n_cells = shape if genes_in_rows else shape[::-1]
        if len(genes) - n_genes in (0, 1) and len(cells) - n_cells in (0, 1):
            return genes_in_rows, genes.iloc[len(genes) - n_genes :], cells.iloc[len(cells) - n_cells :]
    raise ReadError(
        f"{trio.matrix.name} is {shape[0]:,} x {shape[1]:,}, but {trio.genes.name} lists {len(genes):,} genes and "
        f"{trio.cells.name} {len(cells):,} cells. Bring the three files of one matrix."
    )


def _table(path: Path) -> pd.DataFrame:
    """A table without headings; columns are numbered."""
    if path.stat().st_size == 0:
        raise ReadError(f"{path.name} is empty. Copy or download it again.")
    separator = "," if ".csv" in path.name.lower() else "\t"
    compression = "gzip" if _is_gzip(path) else None
    return pd.read_csv(
        path, sep=separator, header=None, dtype=str, compression=compression, keep_default_na=False, quoting=3
    )


def _obs(cells: pd.DataFrame) -> pd.DataFrame:
    return pd.DataFrame(index=pd.Index(cells[0].str.strip('"').to_numpy(), dtype=str))


def _var(genes: pd.DataFrame) -> pd.DataFrame:
    """Symbols as names, with the ids and the types beside them where the table has them."""
    genes = genes.apply(lambda column: column.str.strip('"'))
    named = 1 if genes.shape[1] > 1 else 0
    var = pd.DataFrame(index=pd.Index(genes[named].to_numpy(), dtype=str))
    if named:
        var["gene_ids"] = genes[0].to_numpy()
    if genes.shape[1] > 2 and genes[2].isin(["Gene Expression", "Antibody Capture", "Peaks"]).any():
        var["feature_types"] = genes[2].to_numpy()
    return var


def _is_gzip(path: Path) -> bool:
    with path.open("rb") as file:
        return file.read(2) == GZIP


def _opened(path: Path) -> IO[bytes]:
    return cast(IO[bytes], gzip.open(path, "rb") if _is_gzip(path) else path.open("rb"))


def matrices_in(folder: Path, listed: list[Path]) -> list[Path]:
    """The .mtx files of what is listed of a folder; filtered ones are taken before raw ones."""
    found = [path for path in listed if path.name.lower().endswith(MTX_SUFFIXES) and path.is_file()]
    filtered = [path for path in found if "filtered" in str(path.relative_to(folder)).lower()]
    raw = [path for path in found if "raw" in str(path.relative_to(folder)).lower()]
    return filtered if len(filtered) == 1 and len(filtered) + len(raw) == len(found) else found
