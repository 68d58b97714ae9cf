"""Which cells a sentence points at: by position, by name, by cluster, or by a value of a column."""

from __future__ import annotations

import re

import numpy as np
import pandas as pd

from instructcell.mentions import FILLERS, NUMBER_WORDS, Spans, number_of, without
from instructcell.requests import Selection
from instructcell.retrieval.names import load_name_book
from instructcell.slots import AGREES, BY_AUTHORS, CHOOSES
from instructcell.toolbox.arguments import EITHER, Cells
from instructcell.toolbox.cells import CLUSTER_COLUMNS, OWN_CLUSTERS, cluster_column
from instructcell.toolbox.data import groupings

# Columns that hold cell types: their values name types, so that they select cells only beside the column's name.
TYPE_COLUMN = re.compile(r"(?<!geno)(?<!pheno)type|annot|label|class|ident", re.IGNORECASE)
EVERYDAY = FILLERS - {"treated"}  # words that are no values, except with their column's name
# What stands before a value that points at cells, and behind it.
POINTS_BEFORE = (
    r"(?:in|from|of|for|on|only|just|where|within|among|inside|about)\s+(?:(?:the|all|my|our|those|only|group)\s+)*"
)
POINTS_BEHIND = (
    r"\s+(?:cells?|ones|guys|samples?|group|condition|donors?|patients?|gate|sort|subset|fraction|arm|batch"
    r"|replicate|only)\b"
)
Found = tuple[Selection, tuple[int, int]]  # and where the words stand that say so


def find_selection(text: str, obs: pd.DataFrame | None, taken: Spans = ()) -> tuple[Selection | None, str]:
    """The cells a sentence points at, and the sentence without those words.

    Understood: "the first 20 cells", "cell 17", "cells 5 to 9", "30 random cells", a cell's own name, "cluster 3 of
    leiden", "condition stim", "where donor is human2", "in donor human2", "the human2 cells".

    Parameters
    ----------
    taken
        Where the sentence names cell types and drugs: values of a column that are written there select cells only as
        "where drug is anti-PD1".
    """
    if obs is None or len(obs) == 0:
        return None, text
    found = (
        _by_position(text, obs)
        or _by_name(text, obs)
        or _by_clusters(text, obs)
        or _by_cluster(text, obs)
        or _by_own_label(text, obs)
        or _by_column(text, obs, taken)
    )
    if found is None:
        return None, text
    selection, (start, end) = found
    return selection, f"{text[:start]} {text[end:]}"


def _by_position(text: str, obs: pd.DataFrame) -> Found | None:
    n, number = len(obs), rf"(\d[\d,]*|{'|'.join(NUMBER_WORDS)})"
    if match := re.search(
        rf"\b(first|last)\s+(?:{number}\s+)?(?:cells?|rows?|barcodes?)\b"
        rf"|\b(first|last)\s+{number}(?=\s*(?:of\s+(?:them|these|those)|ones)?\W*$)",
        text,
        re.IGNORECASE,
    ):
        end, k = (match[1] or match[3]).lower(), min(number_of(match[2] or match[4] or "one"), n)
        rows = np.arange(k) if end == "first" else np.arange(n - k, n)
        cells = Cells(first=k) if end == "first" else Cells(last=k)
        return Selection(rows, f"the {end} {k:,} cells" if k > 1 else f"the {end} cell", cells), match.span()
    random = rf"\b(?:{number}\s+random(?:ly\s+\w+)?\s+cells?|random\s+{number}\s+cells?)\b"
    if match := re.search(random, text, re.IGNORECASE):
        k = min(number_of(match[1] or match[2]), n)
        rows = np.sort(np.random.default_rng(0).choice(n, k, replace=False))
        return Selection(rows, f"{k:,} random cells", Cells(random=k)), match.span()
    if match := re.search(
        r"\bcells\s+#?(\d+)\s*(?:-|to|through|\u2013)\s*#?(\d+)\b"
        r"|^\W*(?:(?:and|or|what\s+about)\s+)*(\d+)\s*(?:-|to|through|\u2013)\s*(\d+)\W*$",
        text,
        re.IGNORECASE,
    ):
        start, stop = sorted((int(match[1] or match[3]), int(match[2] or match[4])))
        rows = np.arange(max(start, 1) - 1, min(stop, n))
        chosen = Selection(rows, f"cells {start:,} to {min(stop, n):,}", Cells(positions=tuple(rows.tolist())))
        return (chosen, match.span()) if len(rows) else None
    if match := re.search(r"\bcell\s+(?:number\s+|no\.?\s+|#\s*)?(\d+)\b", text, re.IGNORECASE):
        position = int(match[1]) - 1
        if not 0 <= position < n:
            return None
        return Selection(np.array([position]), f"cell {position + 1:,}", Cells(positions=(position,))), match.span()
    return None


def _by_name(text: str, obs: pd.DataFrame) -> Found | None:
    for match in re.finditer(r"[\w.:|-]{4,}[\w|]", text):
        word = match[0]
        if any(letter.isdigit() or letter in "_-|:." for letter in word) and word in obs.index:
            return Selection(np.flatnonzero(obs.index == word), f"cell {word}", Cells(names=(word,))), match.span()
    return None


CLUSTER_LIST = re.compile(
    r"\bclusters\s*#?\s*(\d+(?:\s*(?:,|and|or|&|\+|to|through|-|–)\s*(?:and\s+|clusters?\s+)?\d+)+)(?!\s*%)",
    re.IGNORECASE,
)
ONE_CLUSTER_LIST = re.compile(
    r"\bcluster\s*#?\s*(\d+(?:\s*(?:and|or|&|\+|to|through|-|–)\s*(?:clusters?\s+)?\d+))\b(?!\s*%)", re.IGNORECASE
)


def _by_clusters(text: str, obs: pd.DataFrame) -> Found | None:
    """ "Clusters 0 and 1", "clusters 1 to 3"."""
    match = CLUSTER_LIST.search(text) or ONE_CLUSTER_LIST.search(text)
    if match is None:
        return None
    said = [int(number) for number in re.findall(r"\d+", match[1])]
    if len(said) == 2 and re.search(r"to|through|[-–]", match[1]) and said[0] < said[1] <= said[0] + 50:
        said = list(range(said[0], said[1] + 1))
    names = tuple(dict.fromkeys(map(str, said)))
    column = cluster_column(obs)
    values = obs[column].astype(str) if column else pd.Series("", index=obs.index)
    rows = np.flatnonzero(values.isin(names))
    return Selection(rows, f"clusters {', '.join(names)}", Cells(cluster=EITHER.join(names))), match.span()


def mentioned_values(text: str, obs: pd.DataFrame | None) -> tuple[Cells, ...]:
    """Two or more values of one column that a text mentions, in its order: "do stim and ctrl differ?"; or none."""
    if obs is None:
        return ()
    best: tuple[Cells, ...] = ()
    for column, values in groupings(obs).items():
        found = []
        for value in values.unique():
            if (match := _mentioned(value, column, text)) is not None:
                found.append((match.start(), Cells(column=column, value=value)))
        if len(found) > max(1, len(best)):
            best = tuple(cells for _, cells in sorted(found, key=lambda one: one[0]))
    return best


def mentioned_value(text: str, obs: pd.DataFrame | None) -> Cells | None:
    """The one value of one column that a text mentions anywhere: "which genes go up with stim"."""
    if obs is None:
        return None
    found = [
        Cells(column=column, value=value)
        for column, values in groupings(obs).items()
        for value in values.unique()
        if _mentioned(value, column, text)
    ]
    return found[0] if len(found) == 1 else None


def is_code(value: str) -> bool:
    """Whether a value is a code such as "b1", which no cell type's name is meant by where the file has it."""
    return re.fullmatch(r"(?!cd|th)[A-Za-z]{1,2}\d{1,3}", value, re.IGNORECASE) is not None


def _mentioned(value: str, column: str, text: str) -> re.Match[str] | None:
    """Where a text mentions a group; "stimulated" is "stim"; what names a cell type, or everyday words, is none."""
    if value.isdigit() or len(value) < 2 or value.lower() in EVERYDAY or not _nameable(column, value):
        return None
    longer = r"(?:s|-treated|ulated|ulation)?" if len(value) > 3 else r"(?:s|-treated)?"
    match = re.search(rf"(?<![\w-]){re.escape(value)}{longer}(?![\w-])", text, re.IGNORECASE)
    return match if match and (len(value) > 2 or value in match[0]) else None


def _nameable(column: str, value: str) -> bool:
    """Whether a value can stand for its group: not what names a cell type, which the cells are asked about."""
    if TYPE_COLUMN.search(column) and re.fullmatch(r"[A-Z]?[a-z]+|[A-Z]+", value):
        return False  # a plain word of a column of types, such as "unknown"
    names = load_name_book()
    return is_code(value) or not (names.cell_types(value) or names.cell_types(f"{value} cell"))


def _by_cluster(text: str, obs: pd.DataFrame) -> Found | None:
    """ "cluster 3" where the file has no clusters of its own: the ones that are computed here."""
    if cluster_column(obs) not in (None, OWN_CLUSTERS):
        return None
    others = "|".join(CLUSTER_COLUMNS)
    match = re.search(
        rf"\bclusters?\s*(?:number|no\.?|#)?\s*(\d+)\b(?!\s+(?:of|in)\s+(?:the\s+)?(?:{others})\b)", text, re.IGNORECASE
    )
    if match is None:
        return None
    values = obs[OWN_CLUSTERS].astype(str) if OWN_CLUSTERS in obs else pd.Series("", index=obs.index)
    rows = np.flatnonzero(values == match[1])  # none where there is no such cluster: choosing it says which there are
    return Selection(rows, f"cluster {match[1]}", Cells(cluster=match[1])), match.span()


def _by_own_label(text: str, obs: pd.DataFrame) -> Found | None:
    """A label of the file's own: "the cells that the authors call acinar", "the cells called quiescent_stellate"."""
    if AGREES.search(text):
        return None
    by_authors = BY_AUTHORS.search(text)
    for column, values in groupings(obs).items():
        for value in sorted(values.unique(), key=len, reverse=True) if TYPE_COLUMN.search(column) else ():
            match = re.search(rf"(?<!\w){re.escape(value)}s?(?:\s+cells?\b)?(?!\w)", text, re.IGNORECASE)
            if match and (by_authors or ("_" in value and value in text)):  # no everyday word has an underscore
                cells = Cells(column=column, value=value)
                return Selection(np.flatnonzero(values == value), f"{column} {value}", cells), match.span()
            if by_authors and (span := _ends_of(value, text)) is not None:
                cells = Cells(column=column, value=value)
                return Selection(np.flatnonzero(values == value), f"{column} {value}", cells), span
    return None


def _ends_of(value: str, text: str) -> tuple[int, int] | None:
    """Where a text says the last words of a label: "T Reg" of "CD4+/CD25 T Reg"."""
    words = value.split()
    for first in range(1, len(words)):
        end = r"\s+".join(map(re.escape, words[first:]))
        if len(" ".join(words[first:])) > 3 and (match := re.search(rf"(?<!\w){end}s?(?!\w)", text, re.IGNORECASE)):
            return match.span()
    return None


def _by_column(text: str, obs: pd.DataFrame, taken: Spans) -> Found | None:
    """A value of a grouping column, named with its column; or alone, where only one column has it."""
    alone: list[Found] = []
    free = without(text, taken)
    for column, values in groupings(obs).items():
        name = re.escape(column).replace("_", r"[_\s]")
        names = rf"(?<!\w)(?:{name}|cluster|group)s?" if column.lower() in CLUSTER_COLUMNS else rf"(?<!\w){name}s?"
        for value in sorted(values.unique(), key=len, reverse=True):
            word = rf"(?<!\w)[\"'`]?{re.escape(value)}[\"'`]?(?!\w)"
            behind = rf"(?:\s+(?:of|in|from)\s+(?:the\s+)?{name}(?:\s+column)?)?"
            beside = rf"{names}(?:\s+(?:number|no\.?))?\s*[:#]*\s*{word}{behind}|{word}\s+{names}(?!\w)"
            stated = rf"{names}\s*(?:\b(?:is|equals?)\b|[=:]+)\s*{word}{behind}"
            cells = Cells(column=column, value=value)
            chosen = Selection(np.flatnonzero(values == value), f"{column} {value}", cells)
            if match := re.search(stated, text, re.IGNORECASE) or re.search(beside, free, re.IGNORECASE):
                return chosen, match.span()
            plural = word.removesuffix(r"(?!\w)") + r"s?(?!\w)"  # "and females?"
            pointed = rf"\b{POINTS_BEFORE}({plural}(?:\s+(?:cells?|samples?)\b)?)|({word}{POINTS_BEHIND})"
            match = re.search(rf"{pointed}|^\W*(?:and\s+)?({plural})\W*$", free, re.IGNORECASE)
            if match is None and re.search(r"[A-Za-z]", value) and re.search(r"\d", value):
                match = re.search(rf"({word})", free)  # "does s2 have more": a code is no word of everyday
            if match and _points(column, value) and (len(value) > 2 or value in match[0]):
                alone.append((chosen, match.span(match.lastindex or 0)))
    if not alone and CHOOSES.match(text):
        alone = [
            (Selection(np.flatnonzero(values == value), f"{column} {value}", Cells(column=column, value=value)), where)
            for column, values in groupings(obs).items()
            for value in values.unique()
            if (where := _chosen(value, column, free)) is not None
        ]
    return alone[0] if len(alone) == 1 else _no_value(text, obs)


def _chosen(value: str, column: str, text: str) -> tuple[int, int] | None:
    """Where a sentence that chooses cells says a value: "keep only F", "restrict to active"."""
    match = re.search(rf"(?<![\w-]){re.escape(value)}(?![\w-])", text) if len(value) == 1 else None
    match = match if match and value.isupper() and value not in ("A", "I") else _mentioned(value, column, text)
    return None if match is None else match.span()


def _no_value(text: str, obs: pd.DataFrame) -> Found | None:
    """A value that a column does not have, such as "donor zebra": choosing it says which there are."""
    texts = [str(name) for name in obs.columns if not pd.api.types.is_numeric_dtype(obs[name])]
    for column in texts:
        if column.lower() in CLUSTER_COLUMNS or TYPE_COLUMN.search(column) or column.startswith("instructcell_"):
            continue
        name = re.escape(column).replace("_", r"[_\s]")
        match = re.search(rf"\b(?:of|from|in|for|only)\s+(?:the\s+)?({name}\s+([\w-]+))\W*$", text, re.IGNORECASE)
        if match and match[2].lower() not in FILLERS and not (obs[column].astype(str) == match[2]).any():
            return Selection(
                np.array([], int), f"{column} {match[2]}", Cells(column=column, value=match[2])
            ), match.span(1)
    return None


def beyond(text: str, obs: pd.DataFrame | None) -> Cells | None:
    """A cell with a number that the file does not reach: choosing it says how many there are."""
    match = re.search(r"\bcell\s+(?:number\s+|no\.?\s+|#\s*)?(\d+)\b", text, re.IGNORECASE)
    return Cells(positions=(int(match[1]) - 1,)) if match and obs is not None and int(match[1]) > len(obs) else None


def _points(column: str, value: str) -> bool:
    """Whether a value may select cells without its column's name: a cell type is what the cells are asked about."""
    short = len(value) < 3 and not is_code(value)
    return not (short or value.isdigit() or value.lower() in EVERYDAY) and _nameable(column, value)
