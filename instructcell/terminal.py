"""What the command line shows: results on stdout, progress and remarks on stderr."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import typer

if TYPE_CHECKING:
    import pandas as pd
    from rich.console import Console
    from rich.progress import Progress

PIPED_WIDTH = 200  # columns; a pipe has no width of its own, and a table must not lose text in it
MOST_ROWS = 40  # of a table on a screen; a pipe and JSON get all
LEAST_WIDTH = 24  # of a column of text that is cut to fit
# Of a file's texts: they could move the cursor, colour what follows or turn its direction.
CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]")


class Terminal:
    """Prints one command's results; a progress bar gives way as soon as there is something to print.

    Parameters
    ----------
    as_json
        Print results as one JSON document and nothing else on stdout.
    quiet
        No progress and no remarks.
    """

    def __init__(self, *, as_json: bool = False, quiet: bool = False) -> None:
        self.as_json = as_json
        self.quiet = quiet
        self._bar: Progress | None = None
        self._paragraph = ""

    @contextmanager
    def progress(self, what: str) -> Iterator[Callable[[int, int, str], None]]:
        """Show on stderr that work is going on; the callback takes (done, total, what)."""
        try:
            self.step(0, None, what)
            yield self.step
        finally:
            self.settle()

    def step(self, done: int, total: int | None, what: str) -> None:
        """Move the progress bar, which shows how many a second and the time left."""
        if self._paragraph:  # what was said so far is read while the work goes on
            self._set(self._paragraph)
            self._paragraph = ""
        if self.quiet:
            return
        if self._bar is None:
            self._bar = _new_bar()
            self._bar.add_task(what, total=total, speed="")
            self._bar.start()
        rate = self._bar.tasks[0].speed
        speed = f"{rate:,.0f}/s" if rate and total else ""
        self._bar.update(self._bar.task_ids[0], completed=done, total=total, description=what, speed=speed)

    def settle(self) -> None:
        """Take the progress bar away."""
        if self._bar is not None:
            self._bar.stop()
            self._bar = None

    def remark(self, text: str) -> None:
        """A line about the run, on stderr."""
        self.settle()
        if not self.quiet:
            typer.echo(text, err=True)

    def text(self, text: str, *, newline: bool = True) -> None:
        """Text of the result, unless JSON was asked for."""
        if not self.as_json:
            self.settle()
            typer.echo(printable(text), nl=newline)

    def words(self, text: str) -> None:
        """The next words of an answer (Markdown): set paragraph by paragraph on a screen, as they are in a pipe."""
        if self.as_json:
            return
        if not _console().is_terminal:
            self.text(text, newline=False)
            return
        *whole, self._paragraph = (self._paragraph + text).split("\n\n")
        for paragraph in whole:
            self._set(paragraph)

    def end_words(self) -> None:
        """The words are complete: the last line ends."""
        if self.as_json:
            return
        if _console().is_terminal:
            self._set(self._paragraph)
            self._paragraph = ""
        else:
            self.text("")

    def _set(self, paragraph: str) -> None:
        from rich.markdown import Markdown

        if paragraph.strip():
            self.settle()
            _console().print(Markdown(printable(paragraph), hyperlinks=False), end="\n\n")

    def table(self, table: pd.DataFrame, title: str = "") -> None:
        """A table of the result, unless JSON was asked for."""
        if self.as_json:
            return
        from rich.table import Table
        from rich.text import Text

        self.settle()
        console = _console()
        shown = _fit(table, console.width) if console.is_terminal else table
        drawn = Table(title=printable(title) or None, title_justify="left")
        for column in shown.columns:
            right = table[column].dtype.kind in "iuf"
            drawn.add_column(printable(str(column)), justify="right" if right else "left", overflow="fold")
        for row in shown.itertuples(index=False):
            drawn.add_row(*(Text(_cell(value)) for value in row))
        console.print(drawn)
        if shown.shape != table.shape:
            console.print(Text(printable(f"({_left_out(table, shown)}; 'export the tables' or --json gives all)")))

    def document(self, result: dict[str, Any], *, lines: int | None = None) -> None:
        """The whole result as JSON, if it was asked for; on one line if `lines` is 1."""
        if self.as_json:
            text = json.dumps(result, default=_plain)
            finite = json.loads(text, parse_constant=lambda _: None)  # NaN and infinity are not JSON
            typer.echo(json.dumps(finite, ensure_ascii=False, indent=None if lines == 1 else 2))


def records(table: pd.DataFrame) -> list[dict[str, Any]]:
    """Rows of a table as JSON can hold them: NaN becomes null."""
    return json.loads(table.to_json(orient="records", force_ascii=False))


def printable(text: str) -> str:
    """Text without characters that would move the cursor, colour what follows or turn its direction."""
    return CONTROL.sub("\N{REPLACEMENT CHARACTER}", text)


def _console() -> Console:
    """Standard output as wide as the screen, or as a pipe needs."""
    from rich.console import Console

    console = Console(highlight=False)
    if not console.is_terminal:
        console.width = PIPED_WIDTH
    return console


def _fit(table: pd.DataFrame, width: int) -> pd.DataFrame:
    """The first rows of a table, and as many of its first columns as stand side by side in a width."""
    first = table.head(MOST_ROWS)
    used, kept = 1, 0
    for column in first.columns:
        longest = max([len(str(column)), *(len(_cell(value)) for value in first[column])])
        used += 3 + (longest if table[column].dtype.kind in "iuf" else min(longest, LEAST_WIDTH))
        if used > width and kept:
            break
        kept += 1
    return first.iloc[:, :kept]


def _left_out(table: pd.DataFrame, shown: pd.DataFrame) -> str:
    """What of a table is not shown."""
    columns = ", ".join(map(str, table.columns[shown.shape[1] :]))
    rows = len(table) - len(shown)
    return "; ".join([f"{rows:,} more rows"] * (rows > 0) + [f"more columns: {columns}"] * bool(columns))


def _new_bar() -> Progress:
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn, TimeRemainingColumn

    columns = (SpinnerColumn(), TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
    speed = TextColumn("{task.fields[speed]}")
    return Progress(*columns, speed, TimeRemainingColumn(), console=Console(stderr=True), transient=True)


def _cell(value: Any) -> str:
    return f"{value:.3f}" if isinstance(value, float) else printable(str(value))


def _plain(value: Any) -> Any:
    """JSON for what numpy, pathlib and dataclasses hand over."""
    if hasattr(value, "tolist"):
        return value.tolist()
    return str(value)
