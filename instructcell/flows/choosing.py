"""Which cells are talked about: chosen in words, marked in a figure, found by what they are like, shown on the map."""

from __future__ import annotations

import re
from collections.abc import Generator
from dataclasses import replace

from instructcell import answers, slots
from instructcell.errors import InstructCellError
from instructcell.events import Event, TextDelta
from instructcell.flows import desk
from instructcell.flows.conversation import AMONG, ONES, WRITING, Answer, Conversation, types_said
from instructcell.requests import Request
from instructcell.toolbox.arguments import ALL, Cells
from instructcell.toolbox.data import groupings

CHANGING = (*WRITING, "open", "use_file", "select", "find_by_text", "generate")  # tools that a step back takes back
LEADS = re.compile(
    r"^\W*(?:(?:please|can you|could you|now|and|ok)\W+)*"
    r"(?:find|show|search|look|locate|identify|get|pick|where\s+are|which|are\s+there)"
    r"(?:\s+(?:me|out|up|for|through|the\s+data|my\s+data|any|all|in))*(?:\s+(?:of\s+)?(?:the|my|these))?\s+(?=\S)",
    re.IGNORECASE,
)


def select(talk: Conversation, request: Request) -> Answer:
    """Choose cells, or all but some, or all again: "these cells" from then on."""
    if talk.adata is None:
        yield from talk.needs_cells("To choose cells I need some.")
        return
    if slots.BRINGS_BACK.search(request.text) and _chose_last(talk):
        yield from desk.undo(talk, request)
        return
    said = ALL if slots.EVERYTHING.search(request.text) and not request.genes else _said(talk, request)
    if said == ALL and slots.OTHERS.search(request.text) and request.points_back and talk.focus != ALL:
        said = talk.focus.model_copy(update={"others": not talk.focus.others})  # "drop them"
    elif said == ALL and not slots.EVERYTHING.search(request.text) and slots.THE_OTHERS.search(request.text):
        said = talk.focus.model_copy(update={"others": not talk.focus.others})
    elif (
        said == ALL
        and not slots.EVERYTHING.search(request.text)
        and not re.search(r"\ball\b|\bevery\b", request.text, re.IGNORECASE)
        and not (request.points_back or request.points_here)
    ):
        groups = {name: sorted(values.unique()) for name, values in groupings(talk.adata.obs).items()}
        yield TextDelta(answers.which_cells_text(talk.adata.n_obs, groups))
        return
    elif slots.OTHERS.search(request.text) and not slots.EVERYTHING.search(request.text):
        said = said.model_copy(update={"others": True})
    cells: Cells | None = None
    try:
        cells = yield from _within(talk, request, said)
        result = yield from talk.call("select", cells=cells)
    except InstructCellError:
        if cells == said:
            raise
        result = yield from talk.call("select", cells=said)
    if result.selection is not None:
        kept = talk.workspace.selected
        talk.focus = Cells(selection=kept.name) if kept is not None else ALL
    yield from talk.tell(result)


def _chose_last(talk: Conversation) -> bool:
    """Whether the last step that can be taken back chose or excluded cells."""
    changes = [step.tool for step in talk.workspace.state.steps if step.tool in CHANGING]
    return changes[-1:] == ["select"] and bool(talk.workspace.undoable)


def marked(talk: Conversation, positions: tuple[int, ...], evidence: str) -> Answer:
    """Choose the cells that were marked in a figure."""
    if not positions:
        raise InstructCellError("No cell is marked. Draw around some cells of the map with the lasso, then ask again")
    file = talk.workspace.result(evidence).file if evidence else talk.name
    result = yield from talk.call("select", cells=Cells(file=file, positions=positions))
    kept = talk.workspace.selected
    talk.focus = Cells(selection=kept.name) if kept is not None else ALL
    talk.offers = []
    yield from talk.tell(result)


def _said(talk: Conversation, request: Request) -> Cells:
    """The conditions that a request states, a gene among them."""
    said = request.cells or ALL
    if request.type_name:
        said = said.model_copy(update={"cell_type": types_said(request)})
    if request.genes:
        said = said.model_copy(update={"expresses": request.genes[0]})
    return said


def _within(talk: Conversation, request: Request, said: Cells) -> Generator[Event, None, Cells]:
    """The conditions within the cells talked about, if the request points at them."""
    return (yield from talk.cells_of(replace(request, cells=None if said == ALL else said, type_name="")))


def draw_map(talk: Conversation, request: Request) -> Answer:
    """Draw the map of all cells, coloured, or with some of them in front."""
    if talk.adata is None:
        yield from talk.needs_cells("To draw a map I need cells.")
        return
    colour = request.genes[0] if request.genes else request.column
    if not colour and re.search(r"\bclusters?\b(?!\s*\d)", request.text, re.IGNORECASE):
        colour = "cluster"
    if not colour and (request.points_back or request.points_here or request.cells or request.type_name):
        cells = yield from talk.cells_of(request)
        yield from talk.ask("draw_map", cells=cells)
        return
    yield from talk.ask("draw_map", colour=colour)


def find(talk: Conversation, request: Request) -> Answer:
    """Find cells by what they are like."""
    if talk.adata is None:
        yield from talk.needs_cells("To find cells I need some.")
        return
    if request.genes and slots.EXPRESSES.search(request.text):
        yield from select(talk, request)
        return
    phrase = re.sub(
        r"^\W*(?:(?:and|now|also|then|what\s+about|how\s+about)\s+)+", "", request.text, flags=re.IGNORECASE
    )
    phrase = ONES.sub("cells", LEADS.sub("", phrase)).strip(" ?.!") or request.text
    cells = talk.focus if AMONG.search(request.text) else ALL
    result = yield from talk.call("find_by_text", text=AMONG.sub("", phrase).strip(), cells=cells)
    if result.selection is not None:
        talk.focus = Cells(selection=result.selection.name)
    yield from talk.tell(result)
