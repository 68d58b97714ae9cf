"""The groups that a sentence holds against each other."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace

import pandas as pd

from instructcell import slots
from instructcell.drugs import DrugSet
from instructcell.labels import LabelSet
from instructcell.mentions import (
    FILLERS,
    find_cell_type,
    find_drugs,
    find_genes,
    title_of,
    type_name,
    without,
)
from instructcell.pointing import find_selection, mentioned_value, mentioned_values
from instructcell.requests import (
    COMPARE_DRUG,
    DRUG,
    Request,
    Topic,
)
from instructcell.retrieval.names import Mention, load_name_book
from instructcell.toolbox.arguments import ALL, EITHER, Cells
from instructcell.toolbox.data import groupings


def with_groups(request: Request, labels: LabelSet, drugs: DrugSet, obs: pd.DataFrame | None, topic: Topic) -> Request:
    """The request with the groups it compares; those of the comparison before for "which of the two"."""
    if request.groups:
        return request
    if slots.BOTH.search(request.text) and len(topic.groups) > 1:
        return replace(request, groups=topic.groups)
    types = load_name_book().cell_types(request.text)
    found = _groups(request.text, types, labels, drugs, obs, request.column)
    if len(found) < 2 and slots.BOTH.search(request.text):
        found = ()
    if not found and slots.BOTH.search(request.text) and topic.column and obs is not None and topic.column in obs:
        found = _values_of_two(topic.column, obs, types, labels)
    if not found and not request.column and (one := mentioned_value(request.text, obs)) is not None:
        found = _against_the_other(one, obs)
    request = replace(request, groups=found)
    versus = re.search(r"\b(?:vs|versus)\b", request.text, re.IGNORECASE)
    if request.intent == COMPARE_DRUG and versus and len(found) < 2 and not request.column and request.drugs:
        return replace(request, intent=DRUG)  # "gefitinib vs these cells?"
    return request


def _values_of_two(column: str, obs: pd.DataFrame, types: Sequence[Mention], labels: LabelSet) -> tuple[Cells, ...]:
    """The groups of a column that has two: "what is different in the beta cells between the two"."""
    values = sorted(groupings(obs)[column].unique()) if column in groupings(obs) else []
    among = title_of(types[0].id, labels) if len(types) == 1 else ""
    return tuple(Cells(column=column, value=value, cell_type=among) for value in values) if len(values) == 2 else ()


def _against_the_other(value: Cells, obs: pd.DataFrame | None) -> tuple[Cells, ...]:
    """ "Which genes go up with stim": against the other group where the column has two, else against the rest."""
    assert obs is not None
    others = sorted(set(groupings(obs)[value.column].unique()) - {value.value})
    return (value, Cells(column=value.column, value=others[0])) if len(others) == 1 else (value,)


def _groups(
    text: str, types: Sequence[Mention], labels: LabelSet, drugs: DrugSet, obs: pd.DataFrame | None, column: str
) -> tuple[Cells, ...]:
    """The two groups that a sentence compares."""

    def parse(part: str) -> Cells | None:
        mentions = load_name_book().cell_types(part)
        spans = [(mention.start, mention.end) for mention in mentions]
        spans += [(drug.start, drug.end) for drug in find_drugs(part, drugs)]
        placed, rest = find_selection(part, obs, spans)
        cells = slots.find_cells(part, obs, None if placed is None else placed.cells)
        for gene in find_genes(part, obs):
            rest = rest.replace(gene.written, " ")
        name = type_name(find_cell_type(rest, labels), mentions)
        if name:
            cells = (cells or ALL).model_copy(update={"cell_type": name})
        words = " ".join(word for word in re.findall(r"[\w-]+", part) if word.lower() not in FILLERS)
        if cells is None and words and obs is not None:
            cells = slots.near_value(words, obs)
        if cells is None and (meant := load_name_book().cell_types(f"{words} cells")):  # "alpha" of "alpha and beta"
            cells = Cells(cell_type=title_of(meant[0].id, labels)) if meant[0].start == 0 else None
        return cells

    free = without(text, [(mention.start, mention.end) for mention in types])
    values = mentioned_values(free, obs)
    placed, _ = find_selection(text, obs)
    among = {"cell_type": title_of(types[0].id, labels)} if len(types) == 1 else {}
    if placed is not None and placed.cells.cluster and EITHER not in placed.cells.cluster:
        among["cluster"] = placed.cells.cluster
    if among and len(values) < 2 and not column and (one := mentioned_value(free, obs)) is not None:
        values = _against_the_other(one, obs)  # "what the stimulation did to the monocytes"
    if among and len(values) == 2:  # "treated vs vehicle in the alpha cells"
        return tuple(value.model_copy(update=among) for value in values)
    found = slots.find_groups(text, types, parse, column, obs, values)
    return tuple(
        one.model_copy(update={"cell_type": label.name})
        if one.cell_type and (label := labels.find(one.cell_type))
        else one
        for one in found
    )
