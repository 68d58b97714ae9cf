"""The slots that a sentence fills: types, genes, drugs, cells, columns, numbers, files; what it asks is still open."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cache, partial

import pandas as pd

from instructcell import sentences, slots
from instructcell.drugs import DrugMention, DrugSet
from instructcell.labels import LabelSet
from instructcell.mentions import (
    FILLERS,
    Spans,
    find_cell_type,
    find_choices,
    find_drugs,
    find_genes,
    find_numbers,
    find_species,
    find_tissue,
    gene_of_cells,
    named_types,
    type_name,
    unknown_gene,
    without,
    written_type,
)
from instructcell.pointing import beyond, find_selection, is_code, mentioned_value, mentioned_values
from instructcell.requests import (
    HELP,
    Request,
    Selection,
    Topic,
)
from instructcell.retrieval.names import LAB_NAMES, Mention, load_name_book
from instructcell.toolbox.arguments import ALL, EITHER, Cells
from instructcell.toolbox.data import groupings


def read(
    text: str,
    *,
    labels: LabelSet,
    drugs: DrugSet,
    obs: pd.DataFrame | None,
    files: Sequence[str],
    topic: Topic,
    current: str = "",
) -> Request:
    """The slots that a sentence fills; what it asks for is still open."""
    again = partial(read, labels=labels, drugs=drugs, obs=obs, files=files, topic=topic, current=current)
    if (swapped := _instead(text, again, obs)) is not None:
        return swapped
    named = _named(text, drugs, obs)
    selection, rest = find_selection(text, obs, named.taken)
    n, library_size, seed = find_numbers(slots.RESOLUTION.sub(" ", rest))
    # No cell type is meant by a drug's or a gene's name, however near it is; but "NGN3 high progenitor" is a type.
    title = written_type(rest, labels)
    of_genes = [gene.written for gene in named.apart if gene.written == title or gene.written not in title]
    for written in (*(drug.written for drug in named.drugs), *of_genes):
        rest = rest.replace(written, " ")
    cell_type = None if named.own_label else find_cell_type(rest, labels)
    placed = _placed(text, obs, topic, selection, named.taken)
    request = Request(
        text=text,
        intent=HELP,
        cell_type=cell_type,
        type_name=type_name(cell_type, named.types),
        types=named_types(
            without(text, [(gene.start, gene.end) for gene in named.apart]), named.types, cell_type, labels
        ),
        labels=find_choices(text, labels),
        drugs=named.drugs,
        gene=named.genes[0].id if named.genes else None,
        genes=tuple(dict.fromkeys(gene.id for gene in named.genes)) or tuple(filter(None, [unknown_gene(text)])),
        n=n,
        library_size=library_size,
        seed=seed,
        species=find_species(text),
        tissue=find_tissue(text, labels),
        selection=selection if placed.selected else None,
        values=tuple(mentioned_values(text, obs)),
        cells=placed.cells,
        points_back=slots.POINTS_BACK.search(text) is not None,
        points_here=slots.POINTS_HERE.search(text) is not None,
        like=slots.LIKE.search(text) is not None,
        on_map=slots.ON_MAP.search(text) is not None,
        column=placed.column,
        file=slots.find_file(text, files, current),
    )
    fragment = _fragment(request, rest, named.types, labels)
    return replace(_all_but(request), fragment=fragment)


@dataclass(frozen=True)
class Named:
    """Names in a text: cell types, genes and drugs; and whether it speaks of a label of the file's own instead."""

    types: list[Mention]
    genes: list[Mention]
    drugs: tuple[DrugMention, ...]
    own_label: bool

    @property
    def taken(self) -> list[tuple[int, int]]:
        """Where types and drugs stand."""
        of_types = [(mention.start, mention.end) for mention in self.types]
        return of_types + [(mention.start, mention.end) for mention in self.drugs]

    @property
    def apart(self) -> list[Mention]:
        """The genes that are no part of a type's name."""
        return [gene for gene in self.genes if not any(_meet(gene, mention) for mention in self.types)]


def _named(text: str, drugs: DrugSet, obs: pd.DataFrame | None) -> Named:
    types, genes = load_name_book().cell_types(text), find_genes(text, obs)
    if (of_cells := gene_of_cells(text)) is not None:
        types = [mention for mention in types if not _meet(mention, of_cells)]
        genes = [*(gene for gene in genes if not _meet(gene, of_cells)), of_cells]
    found = find_drugs(text, drugs, [(mention.start, mention.end) for mention in (*types, *genes)])
    of_file = values_of(obs)
    types = [mention for mention in types if not (is_code(mention.written) and mention.written.lower() in of_file)]
    found = tuple(drug for drug in found if drug.drug is not None or drug.written.lower() not in of_file)
    own = find_selection(text, obs)[0] if slots.BY_AUTHORS.search(text) else None
    own_label = own is not None and bool(own.cells.column)
    return Named([] if own_label else types, genes, found, own_label)


@dataclass(frozen=True)
class Placed:
    """Which cells a text states, types aside, and the column it groups by; `selected` unless the column covers both."""

    cells: Cells | None
    column: str
    selected: bool = True


def _placed(text: str, obs: pd.DataFrame | None, topic: Topic, selection: Selection | None, taken: Spans) -> Placed:
    cells = slots.find_cells(text, obs, None if selection is None else selection.cells)
    cells = cells or beyond(text, obs) or slots.find_group_again(text, topic.groups)
    column = slots.find_column(text, obs) or slots.column_of_composition(text, obs)
    if not column and slots.AGREES.search(text) and slots.OURS.search(text):
        column = slots.own_types(obs)
    one = mentioned_value(text, obs)
    if one is not None and column in ("", one.column) and _asks_of_shares(text):
        return Placed(None, one.column, selected=False)  # "does the friday batch have different proportions"
    if cells is None and slots.WHICH_ARE.match(text):
        cells = one  # "which cells are stimulated?"
    several = mentioned_values(without(text, taken), obs)
    if several and (cells is None or cells.column == several[0].column):  # "in healthy and in sle"
        column = column or several[0].column
        if not slots.COMPARES.search(text) and not slots.VERSUS.search(text):
            cells = slots.either_unless_all(several, obs)
    elif column and cells == Cells(column=column, value=cells.value if cells else "") and slots.BY_EACH.search(text):
        return Placed(None, column, selected=False)  # "per batch, I suspect run2"
    return Placed(cells, column)


def _asks_of_shares(text: str) -> bool:
    return slots.COMPOSITION.search(text) is not None and slots.COMPARES.search(text) is not None


def _all_but(request: Request) -> Request:
    """ "All but the beta cells": what is named is left out."""
    if not slots.EXCEPT.search(request.text) or not (request.type_name or request.cells is not None):
        return request
    named = EITHER.join(request.types) or request.type_name
    apart = (request.cells or ALL).model_copy(update={"others": True, **({"cell_type": named} if named else {})})
    return replace(request, cells=apart, type_name="", types=(), cell_type=None, labels=())


def _fragment(request: Request, rest: str, types: Sequence[Mention], labels: LabelSet) -> bool:
    """Whether a sentence is no question of its own; `rest` is it without selections, drugs and genes."""
    for mention in types:
        rest = rest.replace(mention.written, " ")
    if request.column:
        rest = slots.BY.sub(" ", rest)
    rest = slots.RESPONSE.sub(" ", slots.UNSURE_WORDS.sub(" ", slots.EVERYTHING.sub(" ", rest)))
    if request.cell_type is not None and not types:
        rest = rest.replace(written_type(rest, labels), " ")
    bare = sentences.is_fragment(request.text, re.sub(r"\S*\d\S*", " ", rest))
    asks_drug = slots.WHICH_DRUG.search(request.text) is not None
    return (bare and not asks_drug) or slots.LIKEWISE.search(request.text) is not None


def _instead(text: str, read_part: Callable[[str], Request], obs: pd.DataFrame | None) -> Request | None:
    """ "Cluster 2 instead of cluster 1", "donors instead of clusters": the first part, in the place of the second."""
    match = slots.INSTEAD_OF.match(text) or slots.SWAPS.match(text)
    if match is None or slots.WHY.search(text):
        return None
    columns = [slots.find_column(f"by {part.split()[-1]}", obs) for part in (match["new"], match["old"])]
    if all(columns):
        return replace(read_part(match["new"]), text=text, column=columns[0], fragment=True)
    parts = []
    for part in (match["new"], match["old"]):
        found = read_part(part)
        bare = not found.type_name and found.cells is None
        parts.append(read_part(f"{part} cells") if bare else found)
    new, old = parts
    stands = old.cells or ALL
    stands = stands.model_copy(update={"cell_type": old.type_name}) if old.type_name else stands
    if not new.fragment or stands == ALL or not (new.type_name or new.cells):
        return None
    return replace(new, text=text, replaces=stands)


def first_clause(text: str, read_part: Callable[[str], Request]) -> Request | None:
    """What goes on from the sentence before, without what is only added to it: "and in the monos, as a control"."""
    head, comma, added = text.partition(",")
    asks = sentences.ASKS.match(added) or sentences.COMMAND.match(added)
    if not comma or asks or not slots.GOES_ON_WITH.match(head):
        return None
    part = read_part(head)
    return part if part.fragment and (part.type_name or part.cells) else None


def _meet(mention: Mention, other: Mention) -> bool:
    return mention.start < other.end and other.start < mention.end


def question(text: str, read_part: Callable[[str], Request]) -> str:
    """A text without leading sentences that name nothing and ask nothing: "That is a lot. Are you sure?"."""
    said = re.split(r"(?<=[.!])\s+(?=\w)", text)
    while len(said) > 1:
        part = read_part(said[0])
        named = part.type_name or part.genes or part.drugs or part.cells or part.column or part.n or part.file
        if (
            named
            or part.values
            or part.points_back
            or sentences.ASKS.match(said[0])
            or sentences.COMMAND.match(said[0])
        ):
            break
        said = said[1:]
    return " ".join(said)


@cache
def words_of_command() -> frozenset[str]:
    """Words that the patterns of `slots` look for, and of the bench's names: none of them is a typing error."""
    patterns = [value.pattern for value in vars(slots).values() if isinstance(value, re.Pattern)]
    words = {
        word for pattern in patterns for word in re.findall(r"[a-z]{3,}", re.sub(r"\\[a-zA-Z]", " ", pattern.lower()))
    }
    named = {word for name in LAB_NAMES for one in name.split() for word in (one, f"{one}s")}
    return frozenset(words | sentences.LINKING | FILLERS | named)


def values_of(obs: pd.DataFrame | None) -> frozenset[str]:
    """The names of all groups of the file, in small letters."""
    if obs is None:
        return frozenset()
    return frozenset(value.lower() for each in groupings(obs).values() for value in each.unique())


def protected(obs: pd.DataFrame | None, files: Sequence[str]) -> set[str]:
    """Words of the data, which are no typing errors."""
    words: Iterable[str] = files
    if obs is not None:
        values = [value for each in groupings(obs).values() for value in each.unique()]
        words = [*files, *map(str, obs.columns), *values]
    return {word for text in words for word in re.findall(r"[a-z]+", text.lower())}
