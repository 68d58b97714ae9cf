"""Which cells are talked about: chosen in words, marked in a figure, found by what they are like, shown on the map."""

from __future__ import annotations

import re
from collections.abc import Generator
from dataclasses import replace

from instructcell import answers, slots
from instructcell.errors import InstructCellError
from instructcell.events import Event, TextDelta
from instructcell.flows import desk
from instructcell.flows.conversation import AMONG, ONES, WRITING, Answer, Called, Choice, Conversation, types_said
from instructcell.requests import Request
from instructcell.toolbox.arguments import ALL, Cells
from instructcell.toolbox.data import groupings

CHANGING = (*WRITING, "open", "use_file", "select", "find_by_text", "generate")  # tools that a step back takes back
LEADS = re.compile(
    r"^\W*(?:(?:please|can you|could you|now|and|ok)\W+)*"
    r"(?:find|show|search|look|locate|identify|get|pick|where\s+are|which|are\s+there|anything|anyone|something)"
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
    others_back = slots.RESTORES.search(request.text) and slots.THE_OTHERS.search(request.text)
    if others_back:  # "put the others back"
        request = replace(request, text="all cells", cells=None, points_back=False)
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
    cells = said
    try:
        cells = yield from _within(talk, request, said)
        result = yield from talk.call("select", cells=cells)
    except InstructCellError:
        if cells == said:
            raise
        cells = said
        result = yield from talk.call("select", cells=said)
    if result.selection is not None:
        kept = talk.workspace.selected
        talk.focus = Cells(selection=kept.name) if kept is not None else ALL
        asks = slots.SHOWS_CELLS.match(request.text) and not slots.CHOOSES.match(request.text)
        talk.kept = None if kept is None or asks else Choice(talk.focus, cells)
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
    sign = slots.POSITIVE_ONES.search(request.text)
    genes = request.genes or (talk.topic.genes if sign else ())
    if genes:  # "take the positive ones" after talk of a gene
        said = said.model_copy(update={"expresses": genes[0]})
    if sign and not request.genes and genes and sign["sign"].lower() == "negative":
        said = said.model_copy(update={"others": True})
    return said


def _within(talk: Conversation, request: Request, said: Cells) -> Generator[Event, None, Cells]:
    """The conditions within the cells talked about, if the request points at them."""
    return (yield from talk.cells_of(replace(request, cells=None if said == ALL else said, type_name="")))


def _found(talk: Conversation, phrase: str, cells: Cells) -> Called:
    """The cells that fit a description; where its words are not known, those of its last clause that are."""
    clauses = [part.strip() for part in re.split(r"[?.,;:]+", phrase) if len(part.split()) > 1]
    unknown: InstructCellError | None = None  # of the whole description, which is what is told
    for said in (phrase, *reversed(clauses if len(clauses) > 1 else [])):
        try:
            return (yield from talk.call("find_by_text", text=said, cells=cells))
        except InstructCellError as error:
            unknown = unknown or error
    assert unknown is not None
    raise unknown


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
    phrase = re.sub(r"(?:\s+(?:in\s+)?(?:here|there))+\W*$", "", phrase) or phrase
    cells = talk.focus if AMONG.search(request.text) else ALL
    result = yield from _found(talk, AMONG.sub("", phrase).strip(), cells)
    if result.selection is not None:
        talk.focus = Cells(selection=result.selection.name)
    yield from talk.tell(result)
