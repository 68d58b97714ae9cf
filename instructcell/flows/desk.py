"""The work itself: handing results out, the way back, a new start, help and small talk."""

from __future__ import annotations

import re

from instructcell import answers, slots
from instructcell.answers import answer_of
from instructcell.events import CellsGenerated, FilesReady, TextDelta
from instructcell.flows.conversation import WRITING, Answer, Conversation
from instructcell.requests import Request
from instructcell.retrieval.names import load_name_book
from instructcell.tools import CELL_TYPE

OBJECT = re.compile(
    r"\bannotat\w+|\blabell?ed\b|\bh5ad\b|\bcell\s*types?\b|\bpredictions?\b"
)  # that is asked for before it is made
EXPORTS = {
    "pseudo": r"\b(?:pseudo-?\s?cells?|(?:generated|synthetic|simulated|fake|new)\s+(?:cells?|ones))\b",
    "script": r"\b(?:script|code|reproduce|repeat these|python)\b",
    "conversation": r"\b(?:conversation|chat|transcript|dialog(?:ue)?|html)\b",
    "all": r"\b(?:all|everything|results|session|zip)\b",
    "figures": r"\b(?:figures?|plots?|pictures?|drawings?|images?)\b",
    "tables": r"\b(?:tables?|csv|excel|spreadsheet|list)\b",
}


def download(talk: Conversation, request: Request) -> Answer:
    """Hand out what was asked for, else what was made last."""
    low = request.text.lower()
    what = next((what for what, words in EXPORTS.items() if re.search(words, low)), "")
    if not what and talk.latest is None and talk.adata is not None and OBJECT.search(low):
        yield from talk.call("annotate")
    pseudo = talk.generated is not None and (talk.latest is None or _made_last(talk))
    if not what and pseudo:
        assert talk.generated is not None
        yield TextDelta("Here are the pseudo-cells of the last request. ")
        yield CellsGenerated(talk.generated)
        what = "pseudo"
    elif not what and (talk.latest is not None or CELL_TYPE in talk.workspace.written(talk.name)):
        yield TextDelta(
            "The cells with all results so far are saved as .h5ad; the counts are unchanged, and cells that were "
            "not asked about have no entry. *Export all this* hands out tables and a script as well. "
        )
        what = "annotated"
    elif not what and not any(result.tables for result in talk.workspace.state.results):
        yield TextDelta("There is nothing to hand out yet: ask for cell types or for new cells first.")
        return
    result = yield from talk.call("export", what=what or "tables")
    yield from talk.tell(result)
    yield FilesReady(result.payload)


def _made_last(talk: Conversation) -> bool:
    """Whether the pseudo-cells are younger than what was written into the file."""
    made = talk.workspace.latest("generate", *WRITING)
    return made is not None and made.tool == "generate"


def undo(talk: Conversation, request: Request) -> Answer:
    """Take the last step back, in the talk as well."""
    result = yield from talk.call("undo")
    if result.payload is not None and result.payload.mark is not None:
        talk.last, talk.focus, talk.topic, talk.kept = result.payload.mark
    yield from talk.tell(result)


def restart(talk: Conversation, request: Request) -> Answer:
    """Forget all but the files."""
    result = yield from talk.call("restart")
    talk.forget()
    yield from talk.tell(result)


def show_help(talk: Conversation, request: Request) -> Answer:
    """What can be asked of this file."""
    yield from talk.ask("help")


def small_talk(talk: Conversation, request: Request) -> Answer:
    """Answer a greeting."""
    if slots.THANKS.search(request.text):
        yield TextDelta("You are welcome. Ask on whenever you like; *export all this* hands out what we found.")
        return
    if slots.FAREWELL.search(request.text):
        yield TextDelta("Good-bye. *Export all this* hands out what we found, with a script that repeats it.")
        return
    if slots.WHO_ARE_YOU.search(request.text):
        yield TextDelta(
            "I am InstructCell, a program that reads single-cell expression: a cell encoder and a small language model "
            "of which each answer rests on your counts and on cited tables, no person and no general chat."
        )
        return
    loaded = f" {answers.titled(talk.name)} is loaded." if talk.adata is not None else ""
    yield TextDelta(
        f"Hello! I read single-cell expression: cell types, new cells, drug response, markers.{loaded} "
        "Ask me something about cells, or say *help*."
    )


def out_of_scope(talk: Conversation, request: Request) -> Answer:
    """Say that it cannot be answered, unless the tables hold an answer."""
    names = load_name_book()
    asks_other = any(words.search(request.text) for words in (slots.INJECTION, slots.NOT_READ, slots.VERSE))
    if (names.genes(request.text) or names.cell_types(request.text)) and not asks_other:
        result = yield from talk.call("knowledge", question=request.text[:2000])
        if result.facts["supported"]:
            yield TextDelta(answer_of(result))
            return
    yield TextDelta(
        "I cannot answer that. I name cell types, generate cells, predict responses to the drugs I know, and look "
        "up marker genes and gene functions; *help* shows examples."
    )
