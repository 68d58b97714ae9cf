"""What cells are: names of types, why and why not, how many of each, and which are the most."""

from __future__ import annotations

import re
from dataclasses import replace

from instructcell import answers, ellipsis, requests, slots, tools
from instructcell.answers import answer_of
from instructcell.events import TextDelta
from instructcell.flows.conversation import AMONG, Answer, Conversation, everywhere, given
from instructcell.requests import Request
from instructcell.retrieval.names import load_name_book
from instructcell.toolbox.arguments import ALL, EITHER, Cells
from instructcell.toolbox.cells import OWN_CLUSTERS, cluster_column
from instructcell.toolbox.data import groupings
from instructcell.toolbox.types import resolve_type


def annotate(talk: Conversation, request: Request) -> Answer:
    """Name the types of all cells, or of those a request is about; one type alone is counted."""
    if talk.adata is None:
        yield from talk.needs_cells("To name cell types I need cells.")
        return
    points = request.points_back or (
        request.points_here
        and (request.intent == requests.SUBSET or talk.workspace.selected or talk.focus == talk.compared)
    )
    if request.intent == requests.SUBSET and request.cells is None and not points and talk.kept is None:
        groups = {name: sorted(values.unique()) for name, values in groupings(talk.adata.obs).items()}
        yield TextDelta(answers.which_cells_text(talk.adata.n_obs, groups))
        return
    whole = request.cells or request.type_name or request.labels or everywhere(request.text)
    group = talk.focus.cluster or talk.focus.column or talk.focus.selection
    if not points and not whole and group and slots.IT.search(request.text):
        points, request = True, replace(request, points_back=True)  # "what cell type is it?" after talk of a cluster
    if not points:
        request = replace(request, points_here=False)
    if request.rank is not None:
        yield from _ranked(talk, request.rank, request)
        return
    counted = slots.COUNTS.search(request.text) or slots.COMPOSITION.search(request.text)
    if talk.kept is not None and slots.COMPOSITION.search(request.text) and not (request.labels or request.column):
        yield from count(talk, request)
        return
    if counted and request.column and not request.labels:
        yield from count(talk, request)
        return
    cells = yield from talk.cells_of(request, types=False)
    counts = request.type_name and not request.labels
    if counts and (cells == ALL or slots.COUNTS.search(request.text) or AMONG.search(request.text)):
        yield from _share(talk, request, cells)
        return
    yield from _look(talk, cells)
    yield from talk.ask("annotate", cells=cells, **given(request, "labels", "tissue", "species"))


def _look(talk: Conversation, cells: Cells) -> Answer:
    """The opening of an annotation, unless it is known already."""
    look = yield from talk.call("first_look", cells=cells)
    yield TextDelta(answer_of(look))


def _share(talk: Conversation, request: Request, cells: Cells) -> Answer:
    """How many cells of one type there are, with the markers that say so."""
    if talk.annotation is None:
        yield from _look(talk, ALL)
        result = yield from talk.call("annotate", **given(request, "tissue", "species"))
        found = yield from talk.call("count_cells", cells=cells, cell_type=request.type_name)
        yield TextDelta(f"\n\n{answer_of(found)}", found.id)
        yield from talk.tell(result)
    else:
        found = yield from talk.call("count_cells", cells=cells, cell_type=request.type_name)
        yield TextDelta(answer_of(found), found.id)
    talk.focus = cells.model_copy(update={"cell_type": request.type_name}) if not cells.cell_type else cells


LEADS = re.compile(r"^\W*(?:(?:and|but|so|hm+|ok)\W+)*(?:the\s+)?[\w+-]+(?:\s+[\w+-]+)?\s+cells\s*,", re.IGNORECASE)


def explain(talk: Conversation, request: Request) -> Answer:
    """Why cells are called so, or why not otherwise."""
    if talk.adata is None:
        yield from talk.needs_cells("To explain a label I need cells.")
        return
    subject, why_not = _subject_and_rival(request)
    if subject and not why_not and LEADS.match(request.text):
        talk.focus = Cells(cell_type=subject)  # "and the NK cells, what makes you believe that they are NK?"
    if subject and not why_not and request.points_back and talk.focus.cell_type not in ("", subject):
        subject, why_not = "", subject  # "is there a chance that they are NK cells?", of cells called otherwise
    named = Cells() if request.cells is None else request.cells
    if subject and not why_not and named == ALL and (talk.focus.expresses or not request.points_back):
        named = Cells(cell_type=subject)  # "why do you say those monocytes are monocytes"
    cells = named if named != ALL else talk.focus
    if subject and (cells == ALL or (why_not and not (request.points_back or request.points_here))):
        cells = Cells(cell_type=subject)
    yield from talk.ask("explain", cells=cells, why_not=why_not)


def count(talk: Conversation, request: Request) -> Answer:
    """How many there are: of several types, by group, of the chosen cells, or all but a type."""
    if talk.adata is None:
        yield from talk.needs_cells("To count cells I need some.")
        return
    if request.rank is not None and not request.types:
        yield from _ranked(talk, request.rank, request)
        return
    cells = yield from talk.cells_of(request, types=False)
    column = request.column
    if not column and slots.WHICH_GROUP_HAS.search(request.text):
        column = talk.grouping_said(request.text)
    if column == tools.CELL_TYPE and not request.type_name:
        column = ""
    types = request.types or ((request.type_name,) if request.type_name else ())
    for name in types:
        if talk.checkpoint.labels.find(name) is None and load_name_book().cell_type(name) is None:
            resolve_type(talk.toolbox, name)
    if slots.BOTH.search(request.text) and not types:
        types, cells = talk.topic.types or tuple(group.cell_type for group in talk.topic.groups), ALL
    if slots.NOT_OF_TYPE.search(request.text) and types:
        cells, types = cells.model_copy(update={"cell_type": EITHER.join(types), "others": True}), ()
    if not column and len(types) < 2 and not (types or cells != ALL):
        cells = talk.focus
    for number, name in enumerate(types or ("",)):
        if number:
            yield TextDelta("\n")
        yield from talk.ask("count_cells", cells=cells, cell_type=name, by=column)
    if len(types) == 1 and not cells.cell_type:
        talk.focus = cells.model_copy(update={"cell_type": types[0]})
    elif types and not cells.cell_type:
        talk.focus = cells.model_copy(update={"cell_type": EITHER.join(types)})


def _ranked(talk: Conversation, rank: ellipsis.Rank, request: Request) -> Answer:
    """Which group is the largest, or has another place by size; it is what is talked of from then on."""
    assert talk.adata is not None
    column = request.column
    if not column and rank.kind == ellipsis.CLUSTER:
        column = cluster_column(talk.adata.obs) or OWN_CLUSTERS
    if talk.annotation is None:
        yield from talk.call("annotate")
    result = yield from talk.call("count_cells", by=column, place=rank.place)
    yield from talk.tell(result)
    named = result.facts["named"]
    if not column:
        talk.focus, talk.topic = Cells(cell_type=named), replace(talk.topic, types=(named,))
    elif rank.kind == ellipsis.CLUSTER:
        talk.focus = Cells(cluster=named)
    else:
        talk.focus = Cells(column=column, value=named)


def _subject_and_rival(request: Request) -> tuple[str, str]:
    """The type that is asked about and the one it is held against: "why are they NK and not T cells?"."""
    names = list(request.types) or ([request.type_name] if request.type_name else [])
    if not names:
        return "", ""
    if len(names) > 1:
        return names[0], names[1]
    against = request.why_not or slots.WHY_NOT.search(request.text) or slots.CHALLENGES.search(request.text)
    held = request.cells is not None and slots.DOUBT.search(request.text) and not slots.CHALLENGES.search(request.text)
    return ("", names[0]) if against and not held else (names[0], "")
