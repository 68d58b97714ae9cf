"""A turn of a session inside a notebook: words, tables and figures appear under the cell as they come."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from instructcell.errors import ConfigError
from instructcell.events import Failed, FigureReady, FilesReady, Progress, TableReady, TextDelta

if TYPE_CHECKING:
    from instructcell.session import Session

MOST_ROWS = 30  # of a table; the session keeps all


def show(session: Session, question: str) -> None:
    """Answer a question under the notebook's cell.

    Raises
    ------
    ConfigError
        IPython, which notebooks run on, is not installed.
    """
    try:
        from IPython.display import Markdown, display
    except ImportError as error:
        raise ConfigError(
            "Session.show needs a notebook (IPython is not installed); use Session.send, or: pip install jupyterlab"
        ) from error
    status, words = display(Markdown("*thinking …*"), display_id=True), _Words()
    for event in session.send(question):
        match event:
            case TextDelta(text):
                words.add(text)
            case TableReady(name, table):
                words.end()
                display(Markdown(f"**{name}**{_cut(table)}"))
                display(table.head(MOST_ROWS))
            case FigureReady(_, figure):
                words.end()
                display(figure)
            case FilesReady(paths):
                words.end()
                display(Markdown("\n".join(f"- `{path}`" for path in paths)))
            case Failed(message, remedy):
                words.add(f"\n\n**{message}** {remedy}")
            case Progress(done, total, what):
                status.update(Markdown(f"*{what} {done:,} of {total:,}*"))
    status.update(Markdown(""))


class _Words:
    """The answer's text in one place of the output; what follows a table begins a new one."""

    def __init__(self) -> None:
        self._text, self._place = "", None

    def add(self, text: str) -> None:
        """Let the text grow where it stands."""
        from IPython.display import Markdown, display

        self._text += text
        if self._place is None:
            self._place = display(Markdown(self._text), display_id=True)
        else:
            self._place.update(Markdown(self._text))

    def end(self) -> None:
        """Let the next words begin below."""
        self._text, self._place = "", None


def _cut(table: Any) -> str:
    return "" if len(table) <= MOST_ROWS else f" (the first {MOST_ROWS} of {len(table):,} rows)"
