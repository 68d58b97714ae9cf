"""Text tables of expression (.csv, .tsv, .txt, gzipped or not), either way round, as AnnData.

pandas parses; this module finds the delimiter, the names and the orientation, and keeps repeated names as they are.
Numbers go straight into a sparse matrix, one block of lines at a time.
"""

from __future__ import annotations

import csv
import gzip
import re
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
ENCODINGS = ("utf-8-sig", "cp1252")  # the second is what Windows wrote before; it fails on nothing
HEAD_LINES, MOST_BEFORE = 4, 10_000  # lines that tell the layout; lines among which they are sought
DECIMAL_COMMA = re.compile(r"-?\d+,\d+(?:[eE][-+]?\d+)?")
# Columns of numbers that are no expression: what scanpy, Seurat and counting programs keep beside it.
ANNOTATIONS = re.compile(
    r"(?:n_?counts?(?:_.+)?|n_?(?:genes|umis?|reads|features?|cells)(?:_.+)?|total_counts(?:_.+)?|ncount_.+|nfeature_.+"
    r"|(?:log1p_|log10_)(?:n_|total_).+|(?:pct|percent)[._].+|(?:s|g2m)[._]score|doublet_?scores?|size_?factors?|leiden.*"
    r"|louvain.*|clusters?|seurat_clusters|(?:x_)?(?:umap|tsne|pca?)[._-]\d+|batch|sample|donor|age"
    r"|chr(?:om(?:osome)?)?|start|end|length|gene_?length|strand|entrez_?id|gene_?id)",
    re.IGNORECASE,
)
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
    decimal: str = "."
    encoding: str = ENCODINGS[0]


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
    table, layout = _decoded(path)
    notes = [] if layout.encoding == ENCODINGS[0] else ["the text is no UTF-8 and was read as Windows-1252"]
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
        return adata, ["genes were in rows and cells in columns; the table was turned round", *notes]
    return AnnData(table.numbers, obs=table.words, var=pd.DataFrame(index=table.columns)), notes


def _decoded(path: Path) -> tuple[Table, Layout]:
    """The table as UTF-8, else as Windows wrote text before."""
    for encoding in ENCODINGS:
        with _told_as_read_error(path):
            try:
                layout = _layout(path, encoding)
                return _parse(path, layout), layout
            except UnicodeDecodeError:
                if encoding == ENCODINGS[-1]:
                    raise
    raise AssertionError("one of the encodings was tried last")


def open_text(path: Path, encoding: str = ENCODINGS[0]) -> TextIO:
    """The file as text, decompressed if gzipped; a byte-order mark is dropped."""
    errors = "strict" if encoding == ENCODINGS[0] else "replace"
    if path.suffix.lower() == ".gz":
        return cast(TextIO, gzip.open(path, "rt", encoding=encoding, errors=errors, newline=""))
    return path.open(encoding=encoding, errors=errors, newline="")


@contextmanager
def _told_as_read_error(path: Path) -> Iterator[None]:
    """What gzip, the decoder and pandas raise on a damaged table, as one sentence."""
    try:
        yield
    except UnicodeDecodeError:
        raise  # tried again in another encoding
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


def _layout(path: Path, encoding: str) -> Layout:
    """Read the first lines: delimiter, decimal sign, names, and whether a column of row names comes first."""
    numbers, head = _head(path, encoding)
    if len(head) < 2:
        raise ReadError(
            f"{path.name} holds {len(head)} line(s); expected a line of names and at least one line of numbers. "
            "Export the table again."
        )
    counts = {sign: [line.count(sign) for line in head] for sign in DELIMITERS}
    delimiter = max(DELIMITERS, key=lambda sign: (min(counts[sign]), min(counts[sign][1:])))  # decimal commas vary
    if delimiter not in head[1] and " " in head[1].strip():
        delimiter = " "
    decimal = "," if delimiter != "," and _has_decimal_commas(head[1:], delimiter) else "."
    with _told_as_read_error(path):
        lines = [_fields(line, delimiter) for line in head]
    while len(lines) > 2 and len(lines[0]) < 0.5 * len(lines[1]):  # a title above the table
        lines, numbers = lines[1:], numbers[1:]
    names, first, n_before = lines[0], lines[1], numbers[0]
    if len(names) > MOST_COLUMNS:
        raise ReadError(f"{path.name} has {len(names):,} columns; expected genes or cells. Export the table again.")
    if len(names) < 2 and len(first) < 2:
        raise ReadError(f"{path.name} has one column only; expected names and numbers separated by commas or tabs.")
    if len(names) == len(first) - 1:  # R writes no name over the row names
        return Layout(delimiter, n_before, names, True, decimal, encoding)
    numeric_first = _is_number(first[0]) and names[0] != "" and not names[0].startswith("Unnamed")
    named_rows = not (numeric_first and GeneResolver().resolve(names[:1]).symbols[0])
    return Layout(delimiter, n_before, names[1:] if named_rows else names, named_rows, decimal, encoding)


def _head(path: Path, encoding: str) -> tuple[list[int], list[str]]:
    """The first lines that hold something, with their numbers in the file."""
    numbers: list[int] = []
    head: list[str] = []
    with _told_as_read_error(path), open_text(path, encoding) as lines:
        for number in range(1, MOST_BEFORE):
            line = lines.readline(LONGEST_LINE)
            if len(line) == LONGEST_LINE:
                raise ValueError(f"line {number} is longer than {LONGEST_LINE:,} characters")
            if not line or len(head) == HEAD_LINES:
                break
            if line.strip() and (head or not line.startswith("#")):
                numbers.append(number)
                head.append(line.rstrip("\r\n"))
    return numbers, head


def _fields(line: str, delimiter: str) -> list[str]:
    """The fields of a line; several blanks in a row part two fields, and none stands at either end."""
    if delimiter == " ":
        return next(csv.reader([" ".join(line.split())], delimiter=delimiter))
    return next(csv.reader([line], delimiter=delimiter))


def _has_decimal_commas(lines: list[str], delimiter: str) -> bool:
    """Whether numbers are written 1,5 and none 1.5."""
    fields = [field for line in lines for field in _fields(line, delimiter)[1:]]
    commas = sum(bool(DECIMAL_COMMA.fullmatch(field)) for field in fields)
    return commas > 0 and not any("." in field and _is_number(field) for field in fields)


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
            numeric &= ~_annotations(layout, frame)
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


def _annotations(layout: Layout, frame: pd.DataFrame) -> np.ndarray:
    """Which columns hold no expression: n_counts, percent.mt, UMAP_1, Length; and one behind a last delimiter."""
    empty = np.array([not name.strip() for name in layout.columns], bool) & frame.isna().all().to_numpy()
    called = [bool(ANNOTATIONS.fullmatch(name.strip())) for name in layout.columns]
    if not any(called):
        return empty
    resolver = GeneResolver()
    genes = resolver.human.approved | resolver.mouse.approved
    return empty | np.array([c and name not in genes for c, name in zip(called, layout.columns, strict=True)], bool)


def _frames(path: Path, layout: Layout, n_columns: int) -> Iterator[pd.DataFrame]:
    """Blocks of lines as pandas reads them; positions are column names, so repeated names survive."""
    settings: dict[str, Any] = {
        "sep": r"\s+" if layout.delimiter == " " else layout.delimiter,
        "decimal": layout.decimal,
        "header": None,
        "skiprows": layout.n_before,
        "names": range(n_columns),
        "index_col": False,
        "chunksize": max(BLOCK_VALUES // max(n_columns, 1), 1),
        "low_memory": False,
        "comment": None,
        "dtype": {0: str} if layout.named_rows else None,
    }
    with _told_as_read_error(path), open_text(path, layout.encoding) as lines, pd.read_csv(lines, **settings) as reader:
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
