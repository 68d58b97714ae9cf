"""Is every number and name of an answer of ours in the results it rests on?

What a foreign model says is judged by the stricter `interop.guard`.

    unsupported("**INS** is expressed by 40 of 60 cells.", results, question="who expresses INS?")

An empty list: nothing is stated that no tool returned. Examples of questions (in *italics*) state nothing.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import pandas as pd

from instructcell.retrieval.grounding import percent
from instructcell.retrieval.names import load_name_book
from instructcell.workspace import Result

NUMBER = re.compile(r"(?<![\w.,])[-+]?\d[\d,]*(?:\.\d+)?(?:e[-+]?\d+)?(?![\w])(?:\s*%)?", re.IGNORECASE)
EXAMPLE = re.compile(r"(?<!\*)\*(?!\*)[^*\n]+\*(?!\*)")
MOST_ROWS = 5_000  # of a table that are looked at
MOST_TEXTS = 300  # different texts of a table's column


def unsupported(answer: str, results: Sequence[Result], question: str = "") -> list[str]:
    """Numbers, genes and cell types that an answer states and that neither the results nor the question hold.

    Parameters
    ----------
    answer
        Markdown.
    results
        What the tools returned for it.
    question
        The user's words: repeating them states nothing new.
    """
    stated = EXAMPLE.sub(" ", answer)
    text = f"{question}\n" + "\n".join(_texts(results))
    return [*_numbers(stated, text, list(_values(results))), *_names(stated, text)]


def _numbers(stated: str, text: str, values: Sequence[float]) -> list[str]:
    known = {match[0].replace(",", "").rstrip("% ").lstrip("+") for match in NUMBER.finditer(text)}
    missing = []
    for match in NUMBER.finditer(stated):
        written = match[0].strip()
        bare = written.replace(",", "").rstrip("% ").lstrip("+")
        if bare not in known and not any(_shows(bare, value, percentage="%" in written) for value in values):
            missing.append(written)
    return missing


def _shows(written: str, value: float, *, percentage: bool) -> bool:
    """Whether a number as it is written is a value, rounded to as many digits."""
    decimals = len(written.partition(".")[2]) if "e" not in written.lower() else 0
    if percentage:
        return f"{100 * value:.{decimals}f}" == written or percent(value, decimals=decimals).split()[0] == written
    if "e" in written.lower():
        return math.isclose(float(written), value, rel_tol=0.06)
    return written in {f"{value:.{decimals}f}", f"{abs(value):.{decimals}f}", f"{value:.2g}"}


def _names(stated: str, text: str) -> list[str]:
    """Genes and cell types that are stated and not in the text."""
    book = load_name_book()
    low = text.lower()
    genes, types = {mention.id for mention in book.genes(text)}, {mention.id for mention in book.cell_types(text)}
    found = [mention.written for mention in book.genes(stated) if mention.id not in genes]
    found += [mention.written for mention in book.cell_types(stated) if mention.id not in types]
    return [name for name in found if name.lower() not in low and any(map(str.isalpha, name))]


def _texts(results: Iterable[Result]) -> Iterator[str]:
    for result in results:
        yield json.dumps(result.facts, ensure_ascii=False, default=str)
        yield from result.notes
        yield from result.sources
        for table in result.tables.values():
            for name in table.columns:
                if not pd.api.types.is_numeric_dtype(table[name]):
                    yield "\n".join(map(str, table[name].astype(str).unique()[:MOST_TEXTS]))


def _values(results: Iterable[Result]) -> Iterator[float]:
    for result in results:
        yield from _floats(result.facts)
        for table in result.tables.values():
            for name in table.columns:
                if pd.api.types.is_numeric_dtype(table[name]) and not pd.api.types.is_bool_dtype(table[name]):
                    yield from table[name].head(MOST_ROWS).dropna().astype(float)


def _floats(value: Any) -> Iterator[float]:
    if isinstance(value, Mapping):
        for one in value.values():
            yield from _floats(one)
    elif isinstance(value, (list, tuple)):
        for one in value:
            yield from _floats(one)
    elif isinstance(value, (int, float)) and not isinstance(value, bool):
        yield float(value)
