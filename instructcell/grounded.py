"""Nothing is stated that no tool returned: numbers, genes and cell types of a text against what tools gave.

One rule for our own answers and for the words of a language model that is not ours: nothing is exempt for how it is
set, and a number counts as returned only when a returned one rounds to it, as it is or as a percentage. A cell type
counts as returned with any narrower one that was. The user's words may be repeated.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from instructcell.labels import load_ontology
from instructcell.retrieval.names import NameBook, load_name_book
from instructcell.workspace import Result

# Not inside a word or a name (CD8, IL-2, r3, 10x, 2-cell), and not the number of a list's item.
NUMBER = re.compile(r"(?<![\w.,\-–/#:])[-−]?\d[\d,]*(?:\.\d+)?(?:[eE][-+]?\d+)?(?![\w]|[-–][A-Za-z]|\.\d)(\s?%)?")
ITEM = re.compile(r"^\s*\d{1,2}[.)]\s+", re.MULTILINE)
EVIDENCE = re.compile(r"\[r\d+(?:\s*,\s*r\d+)*\]")
CL_ID = re.compile(r"\bCL:\d{7}\b")
MOST_TEXTS = 400  # different texts of a table's column in which names are looked for


@dataclass(frozen=True)
class Returned:
    """What tools returned: numbers [n] sorted, symbols of genes, Cell Ontology ids."""

    numbers: np.ndarray
    genes: frozenset[str]
    types: frozenset[str]

    @classmethod
    def by(cls, results: Iterable[Result], *said: str) -> Returned:
        """All that results hold, and what the user said."""
        numbers: list[float] = []
        texts: dict[str, None] = dict.fromkeys(said)
        for result in results:
            for value in _values(result):
                if isinstance(value, str):
                    texts[value] = None
                else:
                    numbers.append(value)
        book = load_name_book()
        joined = "\n".join(texts)
        for text in texts:
            numbers += [value for _, value, _ in _numbers(text)]
        genes = {mention.id for mention in book.genes(joined)} | {g for t in texts if (g := _whole_gene(t, book))}
        types = {mention.id for text in texts for mention in book.cell_types(text)} | set(CL_ID.findall(joined))
        finite = np.array([number for number in numbers if np.isfinite(number)], dtype=float)
        return cls(np.unique(finite), frozenset(genes), frozenset(types))

    def has_number(self, value: float, decimals: int, *, percent: bool) -> bool:
        """Whether a returned number rounds to a stated one."""
        if not len(self.numbers):
            return False
        close = 0.5000001 * 10.0**-decimals
        for scale in (100.0, 1.0) if percent else (1.0, 100.0):
            if bool((np.abs(np.abs(self.numbers) * scale - abs(value)) <= close).any()):
                return True
        return False

    def has_type(self, id: str) -> bool:
        """Whether a type, or one below it, was returned."""
        return id in self.types or any(load_ontology().is_a(known, id) for known in self.types)


def unsupported(text: str, returned: Returned) -> tuple[str, ...]:
    """What a text states that no tool returned: numbers, genes and cell types as they are written.

    Examples
    --------
    >>> unsupported("There are 7 cells.", Returned.by([]))
    ('7',)
    """
    plain_text = EVIDENCE.sub(" ", ITEM.sub(" ", text.replace("*", "").replace("`", "")))
    book = load_name_book()
    found = [
        written
        for written, value, decimals in _numbers(plain_text)
        if not returned.has_number(value, decimals, percent=written.endswith("%"))
    ]
    found += [mention.written for mention in book.genes(plain_text) if mention.id not in returned.genes]
    found += [mention.written for mention in book.cell_types(plain_text) if not returned.has_type(mention.id)]
    return tuple(dict.fromkeys(found))


def _numbers(text: str) -> Iterator[tuple[str, float, int]]:
    """Each number as written, its value and its decimals."""
    for match in NUMBER.finditer(text):
        written = match.group(0).strip()
        digits = written.rstrip("% ").replace(",", "").replace("−", "-")
        try:
            value = float(digits)
        except ValueError:
            continue
        mantissa, _, exponent = digits.lower().partition("e")
        decimals = len(mantissa.partition(".")[2]) - int(exponent or 0)
        yield written, value, decimals


def _values(value: Any) -> Iterator[float | str]:
    """Every number and text inside a result."""
    if isinstance(value, Result):
        for part in (value.facts, value.tables, value.notes, value.sources, value.arguments):
            yield from _values(part)
        if value.cells is not None:
            yield from (float(value.cells.n_obs), float(value.cells.n_vars))
    elif isinstance(value, dict) or hasattr(value, "items") and not isinstance(value, (pd.Series, pd.DataFrame)):
        for key, one in value.items():
            yield str(key)
            yield from _values(one)
    elif isinstance(value, pd.DataFrame):
        yield float(len(value))
        for name in value.columns:
            yield str(name)
            yield from _column(value[name])
    elif isinstance(value, (list, tuple, set, frozenset)):
        yield float(len(value))
        for one in value:
            yield from _values(one)
    elif isinstance(value, (bool, np.bool_)) or value is None:
        return
    elif isinstance(value, (int, float, np.number)):
        yield float(value)
    elif isinstance(value, str):
        yield value


def _column(values: pd.Series) -> Iterator[float | str]:
    if pd.api.types.is_bool_dtype(values):
        yield from (float(values.sum()), float((~values).sum()))
    elif pd.api.types.is_numeric_dtype(values):
        yield from (float(value) for value in values.dropna().unique())
    else:
        for value in pd.unique(values.dropna().astype(str))[:MOST_TEXTS]:
            yield str(value)


def _whole_gene(text: str, book: NameBook) -> str | None:
    """The gene that a whole short text names, in whatever case a table writes it."""
    return book.gene(text) if len(text) <= 20 and " " not in text else None
