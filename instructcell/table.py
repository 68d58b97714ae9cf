"""Text tables of expression (.csv, .tsv, .txt, gzipped or not), either way round, as AnnData.

pandas parses; this module finds the delimiter, the names and the orientation, and keeps repeated names as they are.
Numbers go straight into a sparse matrix, one block of lines at a time.
"""

from __future__ import annotations

import csv
import gzip
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TextIO, cast

import numpy as np
import pandas as pd
import scipy.sparse as sp
from anndata import AnnData

from instructcell.errors import GeneAlignmentError, ReadError
from instructcell.genes import GeneResolver
from instructcell.reading.guard import FEWER_CELLS, check_memory

BLOCK_VALUES = 10_000_000  # values parsed at a time: 80 MB
DELIMITERS = ",\t;|"
LONGEST_LINE = 2**26  # characters: the names of a million cells
MOST_COLUMNS = 2_000_000
LEAST_KNOWN = 0.05  # share of the names along one side that must be genes


@dataclass(frozen=True)
class Layout:
    """How a text table is written: what stands before the numbers."""

    delimiter: str
    n_before: int  # lines before the first row of numbers
    columns: list[str]  # names over the columns, without the one over the row names
    named_rows: bool


@dataclass(frozen=True)
class Table:
    """Numbers [rows, columns] with the names along both sides, and the columns that hold words instead."""

    numbers: sp.csr_matrix
    rows: pd.Index
    columns: pd.Index
    words: pd.DataFrame


def read_table(path: Path) -> tuple[AnnData, list[str]]:
    """Read a text table of cells by genes or genes by cells.

    Parameters
    ----------
    path
        A .csv, .tsv or .txt file, gzipped when its name ends in .gz.

    Returns
    -------
    tuple
        The cells by genes (csr float32), and notes on what was decided.

    Raises
    ------
    ReadError
        The file is no table of numbers with one line of column names.
    GeneAlignmentError
        Neither its rows nor its columns are named by genes.
    """
    layout = _layout(path)
    table = _parse(path, layout)
    in_columns = GeneResolver().resolve(list(table.columns)).share_found
    in_rows = GeneResolver().resolve(list(table.rows)).share_found if layout.named_rows else 0.0
    if max(in_columns, in_rows) < LEAST_KNOWN:
        raise GeneAlignmentError(
            f"neither rows nor columns of {path.name} are named by genes: rows begin {_first(table.rows)}, "
            f"columns begin {_first(table.columns)}; expected gene symbols (TP53, Trp53) or Ensembl ids "
            "(ENSG00000141510) along one side, cell names along the other. Add a first line and a first column "
            "with these names."
        )
    if in_rows > in_columns:
        adata = AnnData(table.numbers.T.tocsr(), obs=pd.DataFrame(index=table.columns), var=table.words)
        return adata, ["genes were in rows and cells in columns; the table was turned round"]
    return AnnData(table.numbers, obs=table.words, var=pd.DataFrame(index=table.columns)), []


def open_text(path: Path) -> TextIO:
    """The file as text, decompressed if gzipped; a byte-order mark is dropped."""
    if path.suffix.lower() == ".gz":
        return cast(TextIO, gzip.open(path, "rt", encoding="utf-8-sig", newline=""))
    return path.open(encoding="utf-8-sig", newline="")


@contextmanager
def _told_as_read_error(path: Path) -> Iterator[None]:
    """What gzip, the decoder and pandas raise on a damaged table, as one sentence."""
    try:
        yield
    except (
        ValueError,
        EOFError,
        OSError,
        zlib.error,
        csv.Error,
    ) as error:  # ParserError, UnicodeDecodeError: ValueError
        raise ReadError(
            f"{path.name} cannot be read as a table: {_one_line(error)}. Export or copy it again."
        ) from error


def _layout(path: Path) -> Layout:
    """Read the first lines: delimiter, names, and whether a column of row names comes first."""
    with _told_as_read_error(path), open_text(path) as lines:
        head: list[str] = []
        n_before = 1
        while len(head) < 2 and (line := lines.readline(LONGEST_LINE)):
            if len(line) == LONGEST_LINE:
                raise ValueError(f"line {n_before + len(head)} is longer than {LONGEST_LINE:,} characters")
            if line.startswith("#") or not line.strip():
                n_before += not head
                continue
            head.append(line.rstrip("\r\n"))
    if len(head) < 2:
        raise ReadError(
            f"{path.name} holds {len(head)} line(s); expected a line of names and at least one line of numbers. "
            "Export the table again."
        )
    delimiter = max(DELIMITERS, key=head[0].count)
    with _told_as_read_error(path):
        names, first = (next(csv.reader([line], delimiter=delimiter)) for line in head)
    if len(names) > MOST_COLUMNS:
        raise ReadError(f"{path.name} has {len(names):,} columns; expected genes or cells. Export the table again.")
    if delimiter not in head[0] and len(first) < 2:
        raise ReadError(f"{path.name} has one column only; expected names and numbers separated by commas or tabs.")
    if len(names) == len(first) - 1:  # R writes no name over the row names
        return Layout(delimiter, n_before, names, named_rows=True)
    numeric_first = _is_number(first[0]) and names[0] != "" and not names[0].startswith("Unnamed")
    named_rows = not (numeric_first and GeneResolver().resolve(names[:1]).symbols[0])
    return Layout(delimiter, n_before, names[1:] if named_rows else names, named_rows)


def _parse(path: Path, layout: Layout) -> Table:
    """All lines, block by block; a column of words becomes an annotation, a word among numbers is an error."""
    blocks: list[sp.csr_matrix] = []
    words: list[pd.DataFrame] = []
    names: list[pd.Index] = []
    numeric: np.ndarray | None = None
    n_expected = len(layout.columns) + layout.named_rows
    for frame in _frames(path, layout, n_expected):
        index = frame.pop(0) if layout.named_rows else pd.Series(range(frame.index[0], frame.index[-1] + 1))
        names.append(pd.Index(index.astype(str)))
        if numeric is None:
            numeric = np.array([d.kind in "fiu" or _mostly_numbers(frame[c]) for c, d in frame.dtypes.items()], bool)
        numbers = frame.loc[:, numeric]
        if numeric.any():
            blocks.append(sp.csr_matrix(_values(path, numbers, layout, names[-1]), dtype=np.float32))
        check_memory(path.name, 8 * frame.size, FEWER_CELLS)  # there is room for another block
        words.append(frame.loc[:, ~numeric].astype(str))
    if numeric is None or not numeric.any():
        raise ReadError(f"{path.name} holds no numbers; expected cells by genes. Export the expression values.")
    rows = pd.Index(np.concatenate([part.to_numpy() for part in names]), dtype=str)
    annotation = pd.concat(words, ignore_index=True)
    annotation.columns = pd.Index([layout.columns[i] for i in np.flatnonzero(~numeric)], dtype=str)
    annotation = annotation.loc[:, ~annotation.columns.duplicated()].set_index(rows)
    columns = pd.Index([layout.columns[i] for i in np.flatnonzero(numeric)], dtype=str)
    return Table(sp.vstack(blocks, format="csr"), rows, columns, annotation)


def _frames(path: Path, layout: Layout, n_columns: int) -> Iterator[pd.DataFrame]:
    """Blocks of lines as pandas reads them; positions are column names, so repeated names survive."""
    settings: dict[str, Any] = {
        "sep": layout.delimiter,
        "header": None,
        "skiprows": layout.n_before,
        "names": range(n_columns),
        "index_col": False,
        "chunksize": max(BLOCK_VALUES // max(n_columns, 1), 1),
        "low_memory": False,
        "comment": None,
        "dtype": {0: str} if layout.named_rows else None,
    }
    with _told_as_read_error(path), open_text(path) as lines, pd.read_csv(lines, **settings) as reader:
        yield from reader


def _mostly_numbers(column: pd.Series) -> bool:
    return bool(pd.to_numeric(column, errors="coerce").notna().mean() >= 0.5)


def _values(path: Path, frame: pd.DataFrame, layout: Layout, rows: pd.Index) -> np.ndarray:
    """Columns of numbers as one array [n, columns]."""
    if all(dtype.kind in "fiu" for dtype in frame.dtypes):
        return frame.to_numpy(dtype=np.float32)
    return np.column_stack([_numbers(path, frame[column], layout, rows) for column in frame])


def _numbers(path: Path, column: pd.Series, layout: Layout, rows: pd.Index) -> np.ndarray:
    """A column as numbers; the first word in it is named with its place."""
    if column.dtype.kind in "fiu":
        return column.to_numpy(dtype=np.float32)
    parsed = pd.to_numeric(column, errors="coerce")
    wrong = np.flatnonzero(parsed.isna() & column.notna())
    if wrong.size:
        at, name = int(wrong[0]), layout.columns[int(column.name) - layout.named_rows]
        raise ReadError(
            f"{path.name} holds {_short(column.iloc[at])!r} in row {_short(rows[at])!r}, column {_short(name)!r}, "
            "where a number is expected. Export the expression values with a decimal point and without words."
        )
    return parsed.to_numpy(dtype=np.float32)


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def _first(names: pd.Index) -> str:
    return ", ".join(_short(name) for name in names[:3])


def _short(name: object) -> str:
    return str(name) if len(str(name)) <= 60 else f"{str(name)[:60]}..."


def _one_line(error: BaseException) -> str:
    return " ".join(str(error).split())[:200].rstrip(".") or type(error).__name__
