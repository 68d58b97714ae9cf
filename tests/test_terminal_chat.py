"""A conversation in the terminal: typed, piped, stopped, and readable at 80 columns."""

from __future__ import annotations

import json
import os
import pty
import re
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from typer.testing import CliRunner

from instructcell.checkpoint import load_checkpoint
from instructcell.cli import app
from instructcell.session import Session
from instructcell.terminal import Terminal, printable
from instructcell.terminal_chat import converse, file_to_open, history_file

ROOT = Path(__file__).parents[1]
ESCAPE = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")
WAIT = 300  # seconds that no machine needs


@pytest.fixture
def cells(tmp_path: Path, synthetic_adata: Any) -> Path:
    path = tmp_path / "cells.h5ad"
    synthetic_adata.write_h5ad(path)
    return path


@pytest.fixture
def session(synthetic_adata: Any, tiny_checkpoint: Path) -> Session:
    return Session(synthetic_adata, checkpoint=load_checkpoint(tiny_checkpoint))


def typed(*lines: str | type[BaseException]) -> Any:
    """What reads lines in the place of `input`; an exception stands for a key such as Ctrl-C."""
    waiting = iter(lines)

    def read(prompt: str) -> str:
        line = next(waiting, EOFError)
        if isinstance(line, type):
            raise line
        return line

    return read


def test_lines_that_are_piped_in_are_one_conversation(
    cells: Path, tiny_checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    lines = "Which cell types are these?\n\nonly the first 12\nexport all this\nquit\nnever answered\n"
    run = CliRunner().invoke(app, ["ask", str(cells), "--model", str(tiny_checkpoint)], input=lines)
    assert run.exit_code == 0, run.output
    assert "60 cells" in run.stdout and "never answered" not in run.stdout
    written = [Path(line.removeprefix("written: ")) for line in run.stdout.splitlines() if line.startswith("written: ")]
    assert {path.name for path in written} >= {"cells_instructcell.h5ad", "repeat_these_steps.py"}
    assert all((tmp_path / path).is_file() and "instructcell_results" in path.parts for path in written)


def test_a_conversation_may_begin_without_a_file_and_open_one(cells: Path, tiny_checkpoint: Path) -> None:
    lines = f"describe the data\nopen {cells}\ndescribe the data\ngenerate 0 B cells\n"
    run = CliRunner().invoke(app, ["ask", "--model", str(tiny_checkpoint), "--json"], input=lines)
    assert run.exit_code == 0, run.output
    before, opened, after, failed = map(json.loads, run.stdout.splitlines())
    assert "No data is loaded" in before["answer"] and "is loaded" in opened["answer"]
    assert after["n_rows"] == {"dataset": 6} and after["tables"]["dataset"][0] == {"property": "cells", "value": "60"}
    assert "expected at least 1" in failed["failure"]


def test_a_file_that_is_not_there_is_one_message(tiny_checkpoint: Path) -> None:
    run = CliRunner().invoke(app, ["ask", "nowhere.h5ad", "--model", str(tiny_checkpoint)])
    assert run.exit_code == 2 and "there is no file nowhere.h5ad" in run.stderr


def test_an_output_belongs_to_one_question() -> None:
    run = CliRunner().invoke(app, ["ask", "-o", "made.h5ad"])
    assert run.exit_code == 2 and "belongs to one question" in run.stderr


def test_ctrl_c_stops_an_answer_and_not_the_conversation(
    session: Session, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    send, asked = session.send, []

    def stopped(text: str) -> Iterator[Any]:
        asked.append(text)
        events = send(text)
        yield next(events)
        if len(asked) == 1:
            events.close()
            raise KeyboardInterrupt
        yield from events

    monkeypatch.setattr(session, "send", stopped)
    questions = ("Which cell types are these?", KeyboardInterrupt, "What marks a B cell?")
    converse(session, Terminal(), read=typed(*questions))
    printed = capsys.readouterr()
    assert "stopped; what was said so far stands" in printed.err and "nothing is running" in printed.err
    assert "MS4A1" in printed.out


def on_a_screen(command: list[str], lines: list[str], folder: Path, columns: int = 80) -> str:
    """What a program shows on a terminal of 80 columns; each line is typed when it asks for one, then Ctrl-D."""
    mine, its = pty.openpty()
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "COLUMNS": str(columns), "LINES": "40", "TERM": "xterm"}
    environment["XDG_STATE_HOME"] = str(folder / "state")
    process = subprocess.Popen(command, stdin=its, stdout=its, stderr=its, env=environment, cwd=folder, close_fds=True)
    os.close(its)
    late = threading.Timer(WAIT, process.kill)
    late.start()
    shown, waiting = b"", [*lines, "\x04"]
    try:
        while True:
            try:
                piece = os.read(mine, 65536)
            except OSError:  # the other side is closed
                break
            if not piece:
                break
            shown += piece
            while waiting and shown.count(b"you> ") > len(lines) + 1 - len(waiting):
                line = waiting.pop(0)
                os.write(mine, (line if line == "\x04" else line + "\n").encode())
    finally:
        late.cancel()
        os.close(mine)
        process.wait(timeout=WAIT)
    assert process.returncode == 0, shown.decode(errors="replace")
    return shown.decode(errors="replace")


def test_at_80_columns_everything_is_readable_and_the_lines_are_kept(
    cells: Path, tiny_checkpoint: Path, tmp_path: Path
) -> None:
    command = [sys.executable, "-m", "instructcell.cli", "ask", str(cells), "--model", str(tiny_checkpoint), "--quiet"]
    questions = ["Which cell types are these?", "Is the quality of these cells good?"]
    shown = on_a_screen(command, questions, tmp_path)
    plain = ESCAPE.sub("", shown)
    answers = plain[plain.index(questions[0]) :]
    assert max(len(line.rstrip()) for line in answers.splitlines()) <= 80
    assert "**" not in answers and "cell types" in answers
    assert "20 more rows" in answers  # the quality of 60 cells is no flood
    history = tmp_path / "state" / "instructcell" / "history"
    assert [line for line in history.read_text().splitlines() if line in questions] == questions
    assert history.stat().st_mode & 0o077 == 0


def test_a_wide_table_keeps_its_first_columns_and_names_the_others(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from rich.console import Console

    monkeypatch.setattr("instructcell.terminal._console", lambda: Console(width=80, force_terminal=True, no_color=True))
    table = pd.DataFrame({f"column {i}": [0.123456] * 50 for i in range(20)})
    Terminal().table(table, "wide")
    shown = ESCAPE.sub("", capsys.readouterr().out)
    assert max(len(line) for line in shown.splitlines()) <= 80
    said = " ".join(shown.split())
    assert "column 0" in said and "10 more rows; more columns: column" in said and "column 19" in said


def test_texts_of_a_file_cannot_write_over_the_screen(capsys: pytest.CaptureFixture[str]) -> None:
    evil = "\x1b]0;title\x07\x1b[2Jcell\r\u202ebackwards"
    assert printable(evil) == "\ufffd]0;title\ufffd\ufffd[2Jcell\ufffd\ufffdbackwards"
    assert printable("plain\n\ttext, β-cell") == "plain\n\ttext, β-cell"
    terminal = Terminal()
    terminal.table(pd.DataFrame({evil: [evil]}), evil)
    terminal.text(evil)
    assert "\x1b" not in (shown := capsys.readouterr().out) and "\r" not in shown


def test_the_history_is_where_the_system_keeps_state(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    assert history_file() == tmp_path / "instructcell" / "history"
    monkeypatch.delenv("XDG_STATE_HOME")
    assert history_file().is_relative_to(Path.home())



def test_the_first_words_do_not_wait_for_the_work_that_follows(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from rich.console import Console

    monkeypatch.setattr("instructcell.terminal._console", lambda: Console(width=80, force_terminal=True, no_color=True))
    terminal = Terminal(quiet=True)
    terminal.words("Most likely **B cells**.")
    assert capsys.readouterr().out == ""  # a paragraph is set as a whole
    terminal.step(1, 10, "annotating cells")
    assert "Most likely B cells." in ESCAPE.sub("", capsys.readouterr().out)
    terminal.words("More.")
    terminal.end_words()
    assert ESCAPE.sub("", capsys.readouterr().out).split() == ["More."]


@pytest.mark.parametrize(
    ("line", "path"),
    [
        ("load other.h5ad", "other.h5ad"),
        ("open 'my cells.h5ad'", "my cells.h5ad"),
        ("please load the file other.h5ad too", "other.h5ad"),
        ("load gone.h5ad", "gone.h5ad"),  # is not there, which reading it says
        ("load the data", None),
        ("read the B cells again", None),
        ("open the data", None),
    ],
)
def test_a_line_may_read_a_second_file(session, tmp_path, monkeypatch, line, path):
    for name in ("other.h5ad", "my cells.h5ad"):
        (tmp_path / name).touch()
    monkeypatch.chdir(tmp_path)
    assert file_to_open(line, session) == (None if path is None else Path(path))


def test_a_second_file_is_looked_for_beside_the_first(cells, tiny_checkpoint, tmp_path, monkeypatch):
    session = Session(checkpoint=load_checkpoint(tiny_checkpoint))
    session.open(cells)
    (cells.parent / "other.h5ad").touch()
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    assert file_to_open("load other.h5ad", session) == cells.parent / "other.h5ad"
    assert file_to_open("open cells.h5ad", session) == cells
