"""A conversation in the terminal: `instructcell ask` without a question.

The same session and events as the page has. The arrow keys bring earlier lines back, Ctrl-C stops an answer, Ctrl-D
ends the conversation; lines that are piped in are answered one after the other.
"""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

from instructcell.events import Event, FilesReady, Progress, TableReady, TextDelta
from instructcell.reply import Reply
from instructcell.terminal import Terminal

if TYPE_CHECKING:
    from instructcell.session import Session

PROMPT = "\nyou> "
ENDS = {"quit", "exit", "bye", "q", ":q"}
OPEN = re.compile(
    r"(?:(?:please|now|and|also|can\s+you)\s+)*(?:open|load|read|add)\s+(?:(?:the|my|a\s+second|another)\s+)?(?:file\s+)?"
    r"(?P<path>[\"']?\S.*?[\"']?)(?:\s+(?:too|as\s+well|please))?",
    re.IGNORECASE,
)
A_FILE = re.compile(r"\S\.(?:h5ad|h5|loom|csv|tsv|txt|mtx|zarr|xlsx)(?:\.gz)?", re.IGNORECASE)  # what is written as one
MOST_LINES = 1000  # of the history that are kept
GREETING = """Ask in plain language; 'help' shows what can be asked, 'open FILE' reads cells.
Ctrl-C stops an answer, 'quit' or Ctrl-D ends."""


def follow(events: Iterable[Event], terminal: Terminal) -> Reply:
    """Print a session's events as they come and return the whole; figures belong to the chat page."""
    reply = Reply()
    for event in events:
        reply.hear(event)
        match event:
            case Progress(done, total, what):
                terminal.step(done, total, what)
            case TextDelta(text):
                terminal.words(text)
            case TableReady(name, table):
                terminal.end_words()
                terminal.table(table, name)
            case FilesReady(paths):
                terminal.end_words()
                for path in paths:
                    terminal.text(f"written: {path}")
    terminal.end_words()
    return reply


def converse(session: Session, terminal: Terminal, *, read: Callable[[str], str] = input) -> None:
    """Answer line after line until the end of the input.

    Parameters
    ----------
    session
        Whose conversation it is.
    terminal
        Where the answers go; with JSON, one document per line of input.
    read
        Asks for a line with a prompt, as `input` does.
    """
    typed = sys.stdin.isatty()
    if typed:
        terminal.remark(GREETING)
    with _history(typed):
        while True:
            try:
                line = read(PROMPT if typed else "").strip()
            except EOFError:
                break
            except KeyboardInterrupt:
                terminal.remark("\nnothing is running; 'quit' or Ctrl-D ends the conversation")
                continue
            if line.lower() in ENDS:
                break
            if line:
                _answer(session, line, terminal)


def _answer(session: Session, line: str, terminal: Terminal) -> None:
    """One turn; Ctrl-C ends the turn and not the conversation."""
    path = file_to_open(line, session)
    try:
        with terminal.progress("thinking" if path is None else "reading"):
            reply = follow(session.send(line) if path is None else session.load(path), terminal)
    except KeyboardInterrupt:
        terminal.end_words()
        terminal.remark("\n(stopped; what was said so far stands)")
        return
    if reply.failure:
        terminal.text(reply.failure)
    if reply.generated is not None and not reply.files:
        terminal.remark("'export the pseudo-cells' writes them to a file")
    terminal.document({"question": line, **reply.to_dict()}, lines=1)


def file_to_open(line: str, session: Session) -> Path | None:
    """The file that a line asks to read: "load other.h5ad"; None where it asks something else.

    A relative path is looked for in the working folder, then beside the file that is talked about. What is written as
    a file's name is one, whether it is there or not, so that a wrong path is told; but a loaded file's name is its own.
    """
    match = OPEN.fullmatch(line.strip())
    if match is None:
        return None
    path = Path(match["path"].strip("\"'")).expanduser()
    current = session.workspace.file
    beside = Path(current.path).parent / path if current is not None and current.path else path
    found = next((one for one in (path, beside) if one.exists()), None)
    named = A_FILE.search(path.name) is not None and " " not in path.name and path.name not in session.files
    return found or (path if named else None)


@contextmanager
def _history(typed: bool) -> Iterator[None]:
    """Lines typed in earlier conversations, for the arrow keys; kept in a file that only the user can read."""
    if not typed:
        yield
        return
    try:
        import readline
    except ImportError:  # not on every system; then there are no earlier lines
        yield
        return
    path = history_file()
    with suppress(OSError):  # the first conversation, or an unreadable file
        readline.read_history_file(path)
    readline.set_history_length(MOST_LINES)
    try:
        yield
    finally:
        with suppress(OSError):  # a home that cannot be written to; the conversation was not about that
            path.parent.mkdir(parents=True, exist_ok=True)
            path.touch(mode=0o600)
            readline.write_history_file(path)


def history_file() -> Path:
    """Where the lines are kept: $XDG_STATE_HOME/instructcell/history, ~/.local/state by default."""
    return Path(os.environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state") / "instructcell" / "history"
