"""What the command line shows: results on stdout, progress and remarks on stderr."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import typer

if TYPE_CHECKING:
    import pandas as pd
    from rich.progress import Progress

PIPED_WIDTH = 200  # columns; a pipe has no width of its own, and a table must not lose text in it


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
            typer.echo(text, nl=newline)

    def table(self, table: pd.DataFrame, title: str = "") -> None:
        """A table of the result, unless JSON was asked for."""
        if self.as_json:
            return
        from rich.console import Console
        from rich.table import Table
        from rich.text import Text

        self.settle()
        console = Console()
        if not console.is_terminal:
            console.width = PIPED_WIDTH
        drawn = Table(title=title or None, title_justify="left")
        for column in table.columns:
            drawn.add_column(str(column), justify="right" if table[column].dtype.kind in "iuf" else "left")
        for row in table.itertuples(index=False):
            drawn.add_row(*(Text(_cell(value)) for value in row))
        console.print(drawn)

    def document(self, result: dict[str, Any]) -> None:
        """The whole result as JSON, if it was asked for."""
        if self.as_json:
            text = json.dumps(result, default=_plain)
            finite = json.loads(text, parse_constant=lambda _: None)  # NaN and infinity are not JSON
            typer.echo(json.dumps(finite, ensure_ascii=False, indent=2))


def records(table: pd.DataFrame) -> list[dict[str, Any]]:
    """Rows of a table as JSON can hold them: NaN becomes null."""
    return json.loads(table.to_json(orient="records", force_ascii=False))


def _new_bar() -> Progress:
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn, TimeRemainingColumn

    columns = (SpinnerColumn(), TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
    speed = TextColumn("{task.fields[speed]}")
    return Progress(*columns, speed, TimeRemainingColumn(), console=Console(stderr=True), transient=True)


def _cell(value: Any) -> str:
    return f"{value:.3f}" if isinstance(value, float) else str(value)


def _plain(value: Any) -> Any:
    """JSON for what numpy, pathlib and dataclasses hand over."""
    if hasattr(value, "tolist"):
        return value.tolist()
    return str(value)
