"""Genes: who expresses them, which differ between groups, what is known of them."""

from __future__ import annotations

from dataclasses import replace

from instructcell import requests, slots, tools
from instructcell.events import TextDelta
from instructcell.flows.conversation import ORDER, Answer, Conversation
from instructcell.requests import Request
from instructcell.retrieval import answer_knowledge
from instructcell.toolbox.arguments import ALL, EITHER, Cells
from instructcell.toolbox.cells import cluster_column

PLOTTED_GENES = 3  # of each group, when those that differ are plotted
MARKERS_IN_TALK = 5  # of a type that was looked up: "do my cells express them?"


def knowledge(talk: Conversation, request: Request) -> Answer:
    """What the tables say of genes and types."""
    question = request.text
    if (request.type_name or request.gene) and not answer_knowledge(question).supported:
        question = f"what marks a {request.type_name}?" if request.type_name else f"what does {request.gene} do?"
    result = yield from talk.call("knowledge", question=question)
    tables = dict(result.tables) if request.intent == requests.MARKERS else {}
    yield from talk.tell(replace(result, tables=tables))
    if request.intent == requests.MARKERS and result.facts["supported"] and "markers" in result.tables:
        top = tuple(map(str, result.tables["markers"]["gene"].head(MARKERS_IN_TALK)))
        talk.topic = replace(talk.topic, genes=top)  # "is it in my cells?"
    talk.now_of_type(request)
    label = request.cell_type
    if request.intent == requests.MARKERS and label is not None and result.facts["supported"] and talk.annotation:
        found = yield from talk.call("count_cells", cell_type=label.name)
        if found.notes:
            yield TextDelta(f"\nIn your cells called {found.notes[0]}\n", found.id)


def expression(talk: Conversation, request: Request) -> Answer:
    """Who expresses genes, and how much; within the chosen cells where cells were chosen."""
    if not request.genes:
        yield TextDelta("Which gene do you mean? Name it by its symbol, such as *GCG*.")
        return
    if talk.adata is None:
        yield from knowledge(talk, request)
        return
    cells = yield from talk.cells_of(request)
    column = request.column
    if not column and slots.PLOTS.search(request.text):
        yield from talk.prepare(tools.CELL_TYPE)  # by which the plot is drawn
    if not column and slots.EACH_GROUP.search(request.text) and slots.MOST_OF_IT.search(request.text):
        column = talk.grouping_said(request.text)
    yield from talk.prepare(column)
    yield from talk.ask("expression", cells=cells, genes=request.genes, by=column)
    named = slots.WHICH_EXPRESS.search(request.text) and not slots.COUNTS.search(request.text)
    if named and len(request.genes) == 1:  # "which cells have GHRL?", "those"
        talk.focus = cells.model_copy(update={"expresses": request.genes[0]})


def compare(talk: Conversation, request: Request) -> Answer:
    """Which genes differ between two groups, or in one against the rest, or in each group of a column."""
    if talk.adata is None:
        yield from talk.needs_cells("To compare groups I need cells.")
        return
    groups = request.groups
    goes_on = slots.POINTS_BACK.search(request.text) or slots.GOES_ON.search(request.text)
    if len(groups) == 1 and groups[0] != talk.focus and goes_on:
        groups = (talk.focus, *groups) if talk.focus != ALL else groups
    if not groups and slots.BOTH.search(request.text) and (pair := _types_of_talk(talk)):
        groups = pair
    if not groups and talk.focus != ALL:
        groups = (talk.focus,)
    if request.column and len(groups) < 2:
        cells = yield from talk.cells_of(request)
        yield from talk.prepare(request.column)
        yield from talk.ask("compare", cells=cells, by=request.column, genes=request.genes)
        return
    if not groups:
        yield TextDelta(
            "Which groups shall I compare? Name two (cell types, clusters or groups of a column), or one to hold it "
            "against the rest."
        )
        return
    if len(request.groups) > 1 and (request.points_back or request.points_here):
        groups = tuple(_of_these(talk, group) for group in groups)
    elif len(groups) > 1:
        within = tuple(talk.among_kept(group, request.text) for group in groups)
        talk.narrowed = talk.narrowed and all(map(talk.holds, within))
        groups = within if talk.narrowed else groups
    against = groups[1] if len(groups) > 1 else None
    if against is None and slots.ONLY_IN.search(request.text):
        against = _rest_of_type(talk, groups[0])
    if talk.last is not None:
        talk.last = replace(talk.last, groups=groups)  # "and with B cells?" goes on from what was meant
    result = yield from talk.call("compare", cells=groups[0], against=against, genes=request.genes)
    yield from talk.tell(result)
    found = tuple(gene["gene"] for genes in result.facts["higher"].values() for gene in genes[:PLOTTED_GENES])
    talk.topic = replace(talk.topic, found=found)  # "plot the top genes"
    yield from talk.now_both(groups)


def _types_of_talk(talk: Conversation) -> tuple[Cells, ...]:
    """The type of the cells talked about and the one they were held against: "the two types against each other"."""
    named = tuple(dict.fromkeys(filter(None, (talk.focus.cell_type, *talk.topic.types))))
    return tuple(Cells(cell_type=name) for name in named) if len(named) == 2 else ()


def _of_these(talk: Conversation, group: Cells) -> Cells:
    """A group within the cells talked about, where it says something else: "treated vs vehicle in those"."""
    base, given = talk.focus.short(), group.short()
    clash = {*base} & {*given} or {"others", *ORDER} & {*base, *given} or {"cell_type", "selection"} & {*given}
    return group if clash else Cells(**{**base, **given})


def _rest_of_type(talk: Conversation, group: Cells) -> Cells | None:
    """The cells of the same type in the other groups: "only in the monocytes" holds monocytes against monocytes."""
    assert talk.adata is not None
    column = group.column or (cluster_column(talk.adata.obs) if group.cluster else None)
    if not group.cell_type or not column:
        return None
    said = set((group.value or group.cluster).split(EITHER))
    others = [value for value in talk.adata.obs[column].astype(str).unique() if value not in said]
    return Cells(cell_type=group.cell_type, column=column, value=EITHER.join(others)) if others else None
