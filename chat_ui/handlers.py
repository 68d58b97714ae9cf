"""What happens when a visitor asks or uploads: a session's events become what the page shows. Knows no widget.

A handler is a generator of `View`s. The page draws each one; a field that is the same object as before is skipped.
"""

from __future__ import annotations

import logging
import os
import re
import shutil
import tempfile
import threading
import time
import weakref
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

from chat_ui.card import dataset_card, note_line, status_line
from chat_ui.plots import fit_page
from instructcell.errors import InstructCellError
from instructcell.events import Event, Failed, FigureReady, FilesReady, Progress, TableReady, TextDelta
from instructcell.output import safe_cells
from instructcell.reading.kinds import KNOWN, SUFFIXES, is_known

if TYPE_CHECKING:
    from plotly.graph_objects import Figure

    from instructcell.grounds import Ground
    from instructcell.session import Session

logger = logging.getLogger(__name__)

EXTENSION = re.compile(f"({'|'.join(map(re.escape, SUFFIXES))})+$", re.IGNORECASE)
MAX_UPLOAD_BYTES = 2 * 1024**3
MAX_QUESTION_CHARACTERS = 2_000
MAX_SHOWN_CHARACTERS = 300  # of a question, in its bubble
MAX_TABLE_ROWS = 1_000
DECIMALS = 3  # of numbers in tables
MAX_SUGGESTIONS = 4
YOUNG_SECONDS = 600  # an upload stays so long at least; the clean-up of the page takes what is left
ARCHIVE = "instructcell_results"
PART = re.compile(r"\.mtx(\.gz)?$|(barcodes|features|genes)\.tsv(\.gz)?$", re.IGNORECASE)  # of a 10x matrix
# What Markdown or HTML would act on: anywhere, then what makes a link, then what begins a heading, list, rule or table.
MARKDOWN = re.compile(
    r"[&<>*_`~\[\]\\|$@]|:(?=//)|(?<=[wW]{3})\.|^[#+=:-]|(?<=^\d)[.)]|(?<=^\d\d)[.)]|(?<=^\d\d\d)[.)]"
)
LINKS = re.compile(r"\\?([&<\[\]]|:(?=//)|(?<=[wW]{3})\.|(?<=[wW]{3}\\)\.|@)")  # of these, escaped ones too
RESULT_ID = re.compile(r"&#91;(r\d+)&#93;")  # [r3], as `answer_text` leaves it
LINK = "ic-ground-"  # the address of a table or figure inside the page, followed by its number and kind
CODE = re.compile(r"(`[^`\n]+`)")
BUG = (
    "Something went wrong on our side ({kind}). Your cells are still here; the details are in the terminal that runs "
    "the chat."
)

Message = dict[str, str]
Pace = Callable[[Iterable[Any]], Iterator[Any]]


@dataclass(frozen=True)
class View:
    """Everything the page shows of one conversation."""

    messages: tuple[Message, ...] = ()
    status: str = ""
    busy: bool = False
    card: str = ""
    files: tuple[str, ...] = ()
    file: str = ""  # the one that is talked about, whose figures and tables are shown
    suggestions: tuple[str, ...] = ()
    figures: dict[str, Figure] = field(default_factory=dict)
    tables: dict[str, pd.DataFrame] = field(default_factory=dict)
    evidence: Mapping[tuple[str, str], str] = field(default_factory=dict)  # (field, name) -> the result it shows
    annotated: Path | None = None
    generated: Path | None = None
    exported: tuple[Path, ...] = ()


@dataclass
class Conversation:
    """One visitor's chat: the session, the view and a folder for downloads. Never shared between visitors."""

    session: Session
    folder: Path
    view: View
    cited: list[Ground] = field(default_factory=list)  # what the links under the answers show, by their numbers
    shelves: dict[str, View] = field(default_factory=dict)  # per file, the results shown when another was taken up
    shown: View | None = None  # what the visitor's page showed when it was last at rest
    annotated: Path | None = None
    generated: Path | None = None
    exported: tuple[Path, ...] = ()
    saved: object = None  # the latest result that stands in `annotated`
    made: object = None  # the pseudo-cells that stand in `generated`
    turn: threading.Lock = field(default_factory=threading.Lock)
    uploads: list[Path] = field(default_factory=list)  # as they came; read from links in `folder`
    pace: Pace = iter  # how its work takes turns with that of the other conversations

    def close(self) -> None:
        """Forget the cells and delete the files that were uploaded or made for downloading."""
        shutil.rmtree(self.folder, ignore_errors=True)
        for path in self.uploads:
            _forget_upload(path)


def open_conversation(new_session: Callable[[Path], Session], pace: Pace = iter) -> Conversation:
    """Begin a conversation with an empty view and a folder of its own, where the session writes its exports too.

    `pace` passes the events of a turn on, and may hold each back until it is this conversation's turn to compute.
    """
    folder = Path(tempfile.mkdtemp(prefix="instructcell-chat-", dir=os.environ.get("GRADIO_TEMP_DIR")))
    session = new_session(folder)
    suggestions = tuple(session.suggestions())[:MAX_SUGGESTIONS]
    view = View(
        card=dataset_card(session.report, session.name),
        files=tuple(session.files),
        file=session.name,
        suggestions=suggestions,
    )
    conversation = Conversation(session, folder, view, pace=pace)
    weakref.finalize(conversation, shutil.rmtree, folder, ignore_errors=True)  # also when nobody closes it
    return conversation


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
    yield from _turn(conversation, question, "thinking", lambda: _send(conversation, question))


def choose(conversation: Conversation, figure: str, positions: Sequence[int]) -> Iterator[View]:
    """Make the cells that were marked in a figure "these cells" and yield the page as it says which they are."""
    evidence = conversation.view.evidence.get(("figures", figure), "")
    said = f"These {len(positions):,} cells" if positions else "These cells"
    yield from _turn(
        conversation, said, "choosing cells", lambda: conversation.session.choose(positions, evidence=evidence)
    )


def show(conversation: Conversation, number: int) -> View:
    """Return the page with the table or figure that a link of an answer stands for in front.

    While an answer is being given nothing changes; what was taken back is said in the line under the chat.
    """
    view, session = conversation.view, conversation.session
    if view.busy or not 0 <= number < len(conversation.cited):
        return view
    ground = conversation.cited[number]
    try:
        event = session.reveal(ground)
    except InstructCellError as error:
        view = replace(view, status=note_line(str(error)))
    else:
        file = session.file_of(ground.evidence)
        name = ground.name if file in ("", session.name) else f"{ground.name} ({file})"
        view = _put(replace(view, status=""), replace(event, name=name))
    conversation.view = view
    return view


def fetch(conversation: Conversation, what: str, name: str = "") -> Path | None:
    """Write what a visitor wants to take away and return its path; None, and a word under the chat, if there is none.

    Parameters
    ----------
    what
        "conversation", "script" or "table".
    name
        Of the table, as the picker shows it.
    """
    view = conversation.view
    if view.busy:
        return None
    try:
        if what == "table":
            return _table_file(conversation, name)
        return conversation.session.export(what)
    except InstructCellError as error:
        conversation.view = replace(view, status=note_line(str(error)))
        return None


def _table_file(conversation: Conversation, name: str) -> Path | None:
    """The whole table of that name as .csv; the page shows its first rows."""
    view, session = conversation.view, conversation.session
    if name not in view.tables:
        return None
    evidence = view.evidence.get(("tables", name), "")
    behind = [ground for ground in session.grounds(evidence) if ground.kind == "table"] if evidence else []
    ground = next((one for one in behind if name in (one.name, f"{one.name} ({session.file_of(evidence)})")), None)
    table = view.tables[name] if ground is None else session.reveal(ground).table
    path = _new_folder(conversation) / f"{re.sub(r'[^A-Za-z0-9.-]+', '_', name).strip('_.') or 'table'}.csv"
    safe_cells(table).to_csv(path, index=False)
    return path


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
    yield from _turn(conversation, f"Read {name}", f"reading {name}", lambda: _load(conversation, path, name))


def use(conversation: Conversation, name: str) -> Iterator[View]:
    """Talk about another of the loaded files and yield the page with what was found of it."""
    if name == conversation.session.name:
        yield conversation.view
        return
    yield from _turn(conversation, f"Use {name}", f"taking up {name}", lambda: conversation.session.use(name))


def close_file(conversation: Conversation) -> Iterator[View]:
    """Forget the file that is talked about and yield the page with the one that is left."""
    name = conversation.session.name
    if not name:
        yield conversation.view
        return
    yield from _turn(conversation, f"Close {name}", f"closing {name}", lambda: conversation.session.close_file(name))


def gather(conversation: Conversation, paths: list[Path]) -> list[Path]:
    """Return what to load of an upload: each file, but those of a 10x matrix as one folder.

    They lie in the conversation's own folder, and go with it; the uploads may be another visitor's as well, whose file
    has the same content.
    """
    parts = [path for path in paths if PART.search(path.name)] if len(paths) > 1 else []
    parts = parts if len(parts) > 1 else []
    loaded = [_taken_in(conversation, path, _new_folder(conversation)) for path in paths if path not in parts]
    if not parts:
        return loaded
    matrix = next((path.name for path in parts if ".mtx" in path.name.lower()), parts[0].name)
    folder = _new_folder(conversation) / f"{matrix} and {len(parts) - 1} more"
    folder.mkdir()
    for path in parts:
        _taken_in(conversation, path, folder)
    return [folder, *loaded]


def _taken_in(conversation: Conversation, path: Path, folder: Path) -> Path:
    """An upload as a link in a folder of the conversation; a folder stays where it is."""
    if path.is_dir():
        return path
    _link(path, folder / path.name)
    conversation.uploads.append(path)
    return folder / path.name


def stop(conversation: Conversation) -> View:
    """Return the page at rest when a visitor stops an answer; what was said so far stays."""
    view = conversation.view
    said = view.messages
    if said and said[-1]["role"] == "user":
        said = (*said, _answer("*Stopped.*"))
    conversation.view = replace(view, messages=said, status="", busy=False)
    return conversation.view


def check_upload(path: Path) -> None:
    """Raise unless the file, or what a folder holds, is of a known kind, not empty and not too large.

    Raises
    ------
    InstructCellError
        Says what was found, what is expected and what to do.
    """
    files = [file for file in path.rglob("*") if file.is_file()] if path.is_dir() else [path]
    if not any(is_known(file.name) for file in files) and not is_known(path.name):
        raise InstructCellError(
            f"{path.name} is not a file of cells I can read: expected one of {KNOWN}. "
            "Save the counts as .h5ad (AnnData) or as a table with one row per cell, then upload that."
        )
    size = sum(file.stat().st_size for file in files)
    if size == 0:
        raise InstructCellError(f"{path.name} is empty (0 bytes). Export it again, then upload the new file.")
    if size > MAX_UPLOAD_BYTES:
        raise InstructCellError(
            f"{path.name} has {size / 1024**3:.1f} GB; the chat takes up to {MAX_UPLOAD_BYTES / 1024**3:.0f} GB. "
            "Use the command line for it: instructcell annotate FILE -o OUT.h5ad"
        )


def plain(text: str) -> str:
    """Return `text` such that the chat shows it letter by letter: no HTML, Markdown or link in it takes effect."""
    return "  \n".join(MARKDOWN.sub(lambda mark: f"&#{ord(mark[0])};", line.strip()) for line in text.splitlines())


def answer_text(text: str) -> str:
    """Return an answer's Markdown without HTML, pictures and links: names from a user's file could smuggle them in."""
    parts = CODE.split(text)  # every second part is code, which Markdown shows letter by letter anyway
    parts[::2] = [LINKS.sub(lambda mark: f"&#{ord(mark[1])};", part) for part in parts[::2]]
    return "".join(parts)


def fit_table(table: pd.DataFrame) -> pd.DataFrame:
    """Return the first rows of a table with numbers and headings as one reads them; the download has all of it."""
    shown = table.head(MAX_TABLE_ROWS).round(DECIMALS)
    return shown.rename(columns=lambda name: str(name).replace("_", " "))


def _turn(conversation: Conversation, said: str, doing: str, work: Callable[[], Iterable[Event]]) -> Iterator[View]:
    """Show what was said, then the answer; whatever happens, the conversation can go on."""
    with conversation.turn:
        view = conversation.view
        said = said if len(said) <= MAX_SHOWN_CHARACTERS else said[:MAX_SHOWN_CHARACTERS] + " …"
        asked = (*view.messages, {"role": "user", "content": plain(said)})
        conversation.view = replace(view, messages=asked, status=status_line(doing), busy=True)
        try:
            yield conversation.view
            answer = Answer(conversation, asked)
            yield from _safely(answer, conversation.pace(work()))
            yield from _safely(answer, conversation.pace(_conclude(conversation)))
            conversation.view = answer.cite()
        finally:
            conversation.view = replace(conversation.view, status="", busy=False)
        yield conversation.view


@dataclass
class Answer:
    """One turn's answer as it grows in the view of a conversation."""

    conversation: Conversation
    asked: tuple[Message, ...]
    pieces: list[tuple[str, str]] = field(default_factory=list)  # text, and the result that it puts into words
    shown: list[str] = field(default_factory=list)  # results whose tables and figures came with it
    tables: list[tuple[str, str]] = field(default_factory=list)  # evidence and name of those of this turn

    def show(self, event: Event) -> View:
        """Fold an event into the view and return it."""
        view = _of_file(self.conversation)
        match event:
            case TextDelta(text, evidence):
                self._say(text, evidence)
                view = replace(view, messages=(*self.asked, _answer(self.text)))
            case Failed(message, remedy):
                gap = "\n\n" if self.pieces else ""
                self._say(f"{gap}{message} {remedy}".rstrip(), "")
                view = replace(view, messages=(*self.asked, _answer(self.text)))
            case TableReady(name, _, evidence):
                siblings = [other for of, other in self.tables if evidence and of == evidence]
                self.tables.append((evidence, name))
                self.shown.append(evidence)
                view = _put(view, event, after=siblings)
            case FigureReady(evidence=evidence):
                self.shown.append(evidence)
                view = _put(view, event)
            case FilesReady(paths):
                said = {name for _, name in self.tables}  # the list of files says what their table does
                tables = {name: table for name, table in view.tables.items() if name not in said}
                view = replace(view, tables=tables, exported=_offer(self.conversation, paths))
            case Progress(done, total, what):
                view = replace(view, status=status_line(what, done, total))
        self.conversation.view = view
        return view


    @property
    def text(self) -> str:
        """What was said so far."""
        return "".join(text for text, _ in self.pieces)

    def _say(self, text: str, evidence: str) -> None:
        if self.pieces and self.pieces[-1][1] == evidence:
            text = self.pieces.pop()[0] + text
        self.pieces.append((text, evidence))

    def cite(self) -> View:
        """Link every part of the finished answer to the tables and figures that it came from; return the view."""
        view = self.conversation.view
        if not self.pieces:
            return view
        linked = "".join(
            self._links_inside(answer_text(text)) + self._links([evidence]) for text, evidence in self.pieces
        )
        said = {evidence for _, evidence in self.pieces}
        linked += self._links([evidence for evidence in dict.fromkeys(self.shown) if evidence not in said])
        return replace(view, messages=(*self.asked, {"role": "assistant", "content": linked}))

    def _links(self, evidence: Sequence[str]) -> str:
        """A line of links to what stands behind results."""
        found = [ground for one in filter(None, evidence) for ground in self.conversation.session.grounds(one)]
        return f"\n\n{' '.join(self._link(ground) for ground in found)}\n\n" if found else ""

    def _links_inside(self, text: str) -> str:
        """The text with the ids of results that a chat model wrote behind its claims as links."""

        def link(match: re.Match[str]) -> str:
            found = self.conversation.session.grounds(match[1])
            return self._link(found[0], match[1]) if found else match[0]

        return RESULT_ID.sub(link, text)

    def _link(self, ground: Ground, label: str = "") -> str:
        cited = self.conversation.cited
        if ground not in cited:
            cited.append(ground)
        return f"[{plain(label or ground.name)}](#{LINK}{cited.index(ground)}-{ground.kind})"


def _put(view: View, event: TableReady | FigureReady, *, after: Sequence[str] = ()) -> View:
    """The view with a table or figure in front, behind those it comes `after`."""
    match event:
        case TableReady(name, table, evidence):
            tables = _newest_first(name, fit_table(table), view.tables, after=after)
            return replace(view, tables=tables, evidence={**view.evidence, ("tables", name): evidence})
        case FigureReady(name, figure, evidence):
            figures = _newest_first(name, fit_page(figure), view.figures)
            return replace(view, figures=figures, evidence={**view.evidence, ("figures", name): evidence})


def _send(conversation: Conversation, question: str) -> Iterator[Event]:
    if len(question) > MAX_QUESTION_CHARACTERS:
        yield Failed(
            f"The question has {len(question):,} characters; I read up to {MAX_QUESTION_CHARACTERS:,}.",
            "Ask it in fewer words, or one part at a time.",
        )
        return
    yield from conversation.session.send(question)


def _load(conversation: Conversation, path: Path, name: str) -> Iterator[Event]:
    """Load a file; the session's table of the data set is left out: the card shows it."""
    check_upload(path)
    for event in conversation.session.load(path, name=name):
        if not isinstance(event, TableReady):
            yield event


def _of_file(conversation: Conversation) -> View:
    """The view with the results of the file that is talked about; those of another are kept until it is taken up."""
    session, view = conversation.session, conversation.view
    if session.name == view.file:
        return view
    shelves = conversation.shelves
    if view.file in session.files:
        shelves[view.file] = view
    kept = shelves.pop(session.name, View())
    for name in [name for name in shelves if name not in session.files]:
        del shelves[name]
    return replace(
        view, file=session.name, files=tuple(session.files), card=dataset_card(session.report, session.name),
        figures=kept.figures, tables=kept.tables, evidence=kept.evidence,
    )  # fmt: skip


def _safely(answer: Answer, events: Iterable[Event]) -> Iterator[View]:
    """One view per event; what goes wrong becomes a sentence, a bug of ours keeps its traceback in the terminal."""
    try:
        for event in events:
            yield answer.show(event)
    except InstructCellError as error:
        yield answer.show(Failed(str(error)))
    except Exception as error:  # the page of this visitor, and of all others, must survive our bugs
        logger.exception("a turn of the chat failed")
        yield answer.show(Failed(BUG.format(kind=type(error).__name__)))


def _conclude(conversation: Conversation) -> Iterator[Event]:
    """At the end of a turn: what still stands, questions that fit it, and the files that hold it."""
    session, view = conversation.session, _of_file(conversation)
    figures, tables = _standing(view, "figures", session.evidence), _standing(view, "tables", session.evidence)
    card = dataset_card(session.report, session.name)
    conversation.view = view = replace(
        view, figures=figures, tables=tables, card=view.card if card == view.card else card, files=tuple(session.files)
    )
    suggestions = tuple(session.suggestions())[:MAX_SUGGESTIONS]
    conversation.view = view = replace(view, suggestions=suggestions)
    _save_generated(conversation)
    conversation.view = view = replace(view, generated=conversation.generated)
    _save_annotated(conversation)
    conversation.view = replace(view, annotated=conversation.annotated)
    yield from ()


def _standing(view: View, kind: str, evidence: frozenset[str]) -> dict[str, Any]:
    """The figures or tables without those of results that were taken back; the same object when all stand."""
    shown: dict[str, Any] = getattr(view, kind)
    kept = {name: item for name, item in shown.items() if view.evidence.get((kind, name), "") in {"", *evidence}}
    return shown if len(kept) == len(shown) else kept


def _save_annotated(conversation: Conversation) -> None:
    """Write the cells with their answers for downloading, when there are new ones."""
    session = conversation.session
    if session.latest is conversation.saved:
        return
    before, conversation.annotated = conversation.annotated, None
    if session.latest is not None:
        stem = EXTENSION.sub("", session.name) or "cells"
        conversation.annotated = session.save_annotated(_new_folder(conversation) / f"{stem}_instructcell.h5ad")
    conversation.saved = session.latest
    _delete(before)


def _save_generated(conversation: Conversation) -> None:
    """Write the pseudo-cells for downloading, when there are other ones than before."""
    session = conversation.session
    if session.generated is conversation.made:
        return
    before, conversation.generated = conversation.generated, None
    if session.generated is not None:
        conversation.generated = session.save_generated(_new_folder(conversation) / "pseudo_cells.h5ad")
    conversation.made = session.generated
    _delete(before)


def _offer(conversation: Conversation, paths: Sequence[Path]) -> tuple[Path, ...]:
    """Return exported files for downloading, several of them with one archive that holds them all."""
    for path in conversation.exported:
        _delete(path)
    archive = ()
    if len(paths) > 1:
        base = _new_folder(conversation) / ARCHIVE
        archive = (Path(shutil.make_archive(str(base), "zip", paths[0].parent)),)
    conversation.exported = (*archive, *paths)
    return conversation.exported


def _new_folder(conversation: Conversation) -> Path:
    """A folder for one download: another address each time, so that no browser serves an old copy."""
    return Path(tempfile.mkdtemp(dir=conversation.folder))


def _link(path: Path, place: Path) -> None:
    """Let a file be at another place as well, without copying its content where the file system can."""
    try:
        os.link(path, place)
    except OSError:
        shutil.copyfile(path, place)


def _forget_upload(path: Path) -> None:
    """Delete an upload unless it is so young that another visitor may just have sent the same content."""
    try:
        if time.time() - path.stat().st_mtime > YOUNG_SECONDS:
            path.unlink()
            path.parent.rmdir()
    except OSError:  # gone already, or the same content is there under another name
        pass


def _delete(download: Path | None) -> None:
    """Delete a file that was offered before, with its folder."""
    if download is not None:
        shutil.rmtree(download.parent, ignore_errors=True)


def _newest_first(name: str, item: Any, others: dict[str, Any], *, after: Sequence[str] = ()) -> dict[str, Any]:
    """Put an item before the others, but behind those it comes `after`, the earlier ones of the same result."""
    siblings = {key: others[key] for key in after if key in others and key != name}
    return siblings | {name: item} | {key: value for key, value in others.items() if key not in (name, *siblings)}


def _answer(text: str) -> Message:
    return {"role": "assistant", "content": answer_text(text)}
