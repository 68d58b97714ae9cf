"""What happens when a visitor asks or uploads: a session's events become what the page shows. Knows no widget.

A handler is a generator of `View`s. The page draws each one; a field that is the same object as before is not drawn again.
"""

from __future__ import annotations

import html
import logging
import re
import shutil
import tempfile
import threading
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

from chat_ui.card import dataset_card, status_line
from chat_ui.plots import fit_page
from instructcell.errors import InstructCellError
from instructcell.events import CellsGenerated, Event, Failed, FigureReady, Progress, TableReady, TextDelta

if TYPE_CHECKING:
    from anndata import AnnData
    from plotly.graph_objects import Figure

    from instructcell.session import Session

logger = logging.getLogger(__name__)

EXTENSIONS = (".h5ad", ".h5", ".csv", ".tsv", ".csv.gz", ".tsv.gz")
MAX_UPLOAD_BYTES = 2 * 1024**3
MAX_QUESTION_CHARACTERS = 2_000
MAX_TABLE_ROWS = 1_000
MAX_SUGGESTIONS = 4
ANSWER_PREFIX = "instructcell_"  # the obs columns that annotation and drug response write
BUG = "Something went wrong on our side ({kind}). The details are in the terminal that runs the chat; your cells are still here."

Message = dict[str, str]


@dataclass(frozen=True)
class View:
    """Everything the page shows of one conversation."""

    messages: tuple[Message, ...] = ()
    status: str = ""
    busy: bool = False
    card: str = ""
    suggestions: tuple[str, ...] = ()
    figures: dict[str, Figure] = field(default_factory=dict)
    tables: dict[str, pd.DataFrame] = field(default_factory=dict)
    annotated: Path | None = None
    generated: Path | None = None


@dataclass
class Conversation:
    """One visitor's chat: the session, the view and a folder for downloads. Never shared between visitors."""

    session: Session
    folder: Path
    view: View
    file_name: str = ""
    annotated: Path | None = None
    saved_answers: int | None = None  # fingerprint of the answers in `annotated`
    turn: threading.Lock = field(default_factory=threading.Lock)

    def close(self) -> None:
        """Forget the cells and delete the files made for downloading."""
        shutil.rmtree(self.folder, ignore_errors=True)


def open_conversation(new_session: Callable[[], Session]) -> Conversation:
    """Begin a conversation with an empty view and a folder of its own."""
    session = new_session()
    folder = Path(tempfile.mkdtemp(prefix="instructcell-chat-"))
    return Conversation(session, folder, View(card=dataset_card(session.report, ""), suggestions=tuple(session.suggestions())))


def ask(conversation: Conversation, question: str) -> Iterator[View]:
    """Send a question and yield the page as the answer grows.

    Parameters
    ----------
    conversation
        The visitor's conversation; its view is updated.
    question
        The visitor's words, shown as text whatever they contain.
    """
    question = question.strip()
    if not question:
        yield conversation.view
        return
    yield from _turn(conversation, question, lambda: _send(conversation, question))


def load(conversation: Conversation, path: Path, name: str | None = None) -> Iterator[View]:
    """Read a file of cells and yield the page; a file that cannot be used becomes a sentence in the chat.

    Parameters
    ----------
    conversation
        The visitor's conversation. The cells loaded before stay when the new file cannot be used.
    path
        The file on the server.
    name
        What to call it in the chat; the file's name when None.
    """
    name = name or path.name
    yield from _turn(conversation, f"Read {name}", lambda: _load(conversation, path, name))


def stop(conversation: Conversation) -> View:
    """Return the page at rest when a visitor stops an answer; what was said so far stays."""
    conversation.view = replace(conversation.view, status="", busy=False)
    return conversation.view


def check_upload(path: Path) -> None:
    """Raise unless the file has a known extension, is not empty and is not too large.

    Raises
    ------
    InstructCellError
        Says what was found, what is expected and what to do.
    """
    if not path.name.lower().endswith(EXTENSIONS):
        raise InstructCellError(
            f"{path.name} is not a file of cells I can read: expected one of {', '.join(EXTENSIONS)}. "
            "Save the counts as .h5ad (AnnData) or as a table with one row per cell, then upload that."
        )
    size = path.stat().st_size
    if size == 0:
        raise InstructCellError(f"{path.name} is empty (0 bytes). Export it again, then upload the new file.")
    if size > MAX_UPLOAD_BYTES:
        raise InstructCellError(
            f"{path.name} has {size / 1024**3:.1f} GB; the chat takes up to {MAX_UPLOAD_BYTES / 1024**3:.0f} GB. "
            "Use the command line for it: instructcell annotate FILE -o OUT.h5ad"
        )


def plain(text: str) -> str:
    """Return `text` such that the chat shows it letter by letter: neither HTML nor Markdown in it takes effect."""
    return re.sub(r"([\\`*_{}\[\]()#+\-.!|~>$])", r"\\\1", html.escape(text, quote=False)).replace("\n", "  \n")


def answer_text(text: str) -> str:
    """Return an answer's Markdown without HTML and without pictures: names from a user's file could smuggle them in."""
    return html.escape(text, quote=False).replace("&gt;", ">").replace("![", "!\\[")


def _turn(conversation: Conversation, said: str, work: Callable[[], Iterable[Event]]) -> Iterator[View]:
    """Show what was said, then the answer; whatever happens, the conversation can go on."""
    with conversation.turn:
        view = conversation.view
        said = said if len(said) <= 300 else said[:300] + " …"
        asked = (*view.messages, {"role": "user", "content": plain(said)})
        conversation.view = replace(view, messages=asked, status=status_line("Thinking"), busy=True)
        try:
            yield conversation.view
            yield from _show(conversation, work(), asked)
        finally:
            conversation.view = replace(conversation.view, status="", busy=False)
        conversation.view = _after_turn(conversation)
        yield conversation.view


def _show(conversation: Conversation, events: Iterable[Event], asked: tuple[Message, ...]) -> Iterator[View]:
    """Fold the events of one turn into the view, one view per event."""
    answer = ""
    for event in _safely(events):
        view = conversation.view
        match event:
            case TextDelta(text):
                answer += text
                view = replace(view, messages=(*asked, _answer(answer)))
            case Failed(message, remedy):
                answer = "\n\n".join(part for part in (answer, f"{message} {remedy}".strip()) if part)
                view = replace(view, messages=(*asked, _answer(answer)))
            case TableReady(name, table):
                view = replace(view, tables=_newest_first(name, table.head(MAX_TABLE_ROWS), view.tables))
            case FigureReady(name, figure):
                view = replace(view, figures=_newest_first(name, fit_page(figure), view.figures))
            case CellsGenerated(adata, path):
                view = replace(view, generated=path or _save(adata, conversation.folder / "generated.h5ad"))
            case Progress(done, total, what):
                view = replace(view, status=status_line(what, done, total))
        conversation.view = view
        yield view


def _send(conversation: Conversation, question: str) -> Iterator[Event]:
    if len(question) > MAX_QUESTION_CHARACTERS:
        yield Failed(
            f"The question has {len(question):,} characters; I read up to {MAX_QUESTION_CHARACTERS:,}.",
            "Ask it in fewer words, or one part at a time.",
        )
        return
    yield from conversation.session.send(question)


def _load(conversation: Conversation, path: Path, name: str) -> Iterator[Event]:
    """Load a file; what was shown of the cells before goes as soon as the new ones are there."""
    check_upload(path)
    session, before = conversation.session, conversation.session.adata
    for event in session.load(path):
        if session.adata is not before:
            before = session.adata
            conversation.file_name = name
            conversation.view = View(messages=conversation.view.messages, busy=True, card=dataset_card(session.report, name))
        yield event


def _safely(events: Iterable[Event]) -> Iterator[Event]:
    """Turn what goes wrong into a sentence; a bug of ours keeps its traceback in the terminal."""
    try:
        yield from events
    except InstructCellError as error:
        yield Failed(str(error))
    except Exception as error:  # the page of this visitor, and of all others, must survive our bugs
        logger.exception("a turn of the chat failed")
        yield Failed(BUG.format(kind=type(error).__name__))


def _after_turn(conversation: Conversation) -> View:
    """The view at rest: questions that fit what is known now, and the annotated file once cells have answers."""
    session = conversation.session
    return replace(
        conversation.view,
        status="",
        busy=False,
        suggestions=tuple(session.suggestions())[:MAX_SUGGESTIONS],
        annotated=_annotated_file(conversation),
    )


def _annotated_file(conversation: Conversation) -> Path | None:
    """Write the cells with their answers for downloading, when the answers are new."""
    adata = conversation.session.adata
    if adata is None:
        return None
    answers = adata.obs[[name for name in adata.obs if str(name).startswith(ANSWER_PREFIX)]]
    if answers.empty:
        return None
    fingerprint = int(pd.util.hash_pandas_object(answers).sum()) + hash(tuple(answers))
    if fingerprint != conversation.saved_answers:
        stem = re.sub(r"\.(h5ad|h5|csv|tsv)(\.gz)?$", "", conversation.file_name, flags=re.IGNORECASE) or "cells"
        conversation.annotated = _save(adata, conversation.folder / f"{stem}_instructcell.h5ad")
        conversation.saved_answers = fingerprint
    return conversation.annotated


def _save(adata: AnnData, path: Path) -> Path:
    """Write cells and give the path back; a new folder each time, so that the browser never serves an old copy."""
    folder = Path(tempfile.mkdtemp(dir=path.parent))
    adata.write_h5ad(folder / path.name)
    return folder / path.name


def _newest_first(name: str, item: Any, others: dict[str, Any]) -> dict[str, Any]:
    return {name: item} | {key: value for key, value in others.items() if key != name}


def _answer(text: str) -> Message:
    return {"role": "assistant", "content": answer_text(text)}
