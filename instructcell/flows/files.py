"""The file that is talked about: what it holds, its quality, its clusters, and which of several it is."""

from __future__ import annotations

import re

from instructcell import answers, slots
from instructcell.answers import answer_of
from instructcell.events import TextDelta
from instructcell.flows.conversation import Answer, Conversation
from instructcell.requests import Request
from instructcell.toolbox.arguments import ALL

FINER = 2.0  # times the resolution, for "finer clusters"


def describe(talk: Conversation, request: Request) -> Answer:
    """What the file holds."""
    if talk.adata is None:
        yield from talk.needs_cells("No data is loaded yet.")
        return
    if slots.OF_ENCODERS.search(request.text):
        result = yield from talk.call("describe")
        yield TextDelta(f"{result.facts['encoders']}\n", result.id)
        return
    if slots.OPEN_FILES.search(request.text):
        others = [answers.quoted(name) for name in talk.files if name != talk.name]
        beside = f", beside {', '.join(others)}; *use* and a name changes to another" if others else ""
        yield TextDelta(f"We talk about {answers.quoted(talk.name)}{beside}.\n\n")
    yield from talk.ask("describe")


def embed(talk: Conversation, request: Request) -> Answer:
    """Embed the cells by the encoder that is named, else by the expression."""
    if talk.adata is None:
        yield from talk.needs_cells("To embed cells I need some.")
        return
    named = (name for name, words in slots.ENCODER_WORDS.items() if words.search(request.text))
    yield from talk.ask("embed", encoder=next(named, "expression"))


def use(talk: Conversation, name: str) -> Answer:
    """Words only: where the cells are shown, their card is."""
    result = yield from talk.call("use_file", file=name)
    yield TextDelta(answer_of(result), result.id)


def close(talk: Conversation, name: str) -> Answer:
    """Forget a file with what it led to."""
    result = yield from talk.call("close_file", file=name)
    talk.foci.pop(name, None)
    talk.last, talk.offers = None, []
    yield from talk.tell(result)


def quality(talk: Conversation, request: Request) -> Answer:
    """Judge the quality of the cells, or of each group of a column."""
    if talk.adata is None:
        yield from talk.needs_cells("To judge the quality I need cells.")
        return
    cells = yield from talk.cells_of(request)
    column = request.column
    if not column and cells == ALL and slots.EACH_GROUP.search(request.text):
        column = talk.grouping_said(request.text)
    yield from talk.prepare(column)
    yield from talk.ask("quality", cells=cells, by=column)


def cluster(talk: Conversation, request: Request) -> Answer:
    """Cluster the cells, finer or coarser than before where that is asked."""
    if talk.adata is None:
        yield from talk.needs_cells("To cluster I need cells.")
        return
    before = talk.workspace.latest("cluster", file=talk.name)
    resolution = 1.0 if before is None else float(before.facts["resolution"])
    if match := slots.RESOLUTION.search(request.text):
        resolution = float(match[1])
    elif re.search(r"\b(?:finer|higher|more|smaller|double|twice)\b", request.text, re.IGNORECASE):
        resolution *= FINER
    elif re.search(r"\b(?:coarser|lower|fewer|larger|bigger|half|halve)\b", request.text, re.IGNORECASE):
        resolution /= FINER
    yield from talk.ask("cluster", resolution=resolution)
