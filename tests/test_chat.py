"""The chat page: what a visitor sees for each thing a session says, and what no file or text may do to it."""

from __future__ import annotations

import gc
import html
import os
import re
import socket
import tempfile
import threading
import time
import zipfile
from collections.abc import Iterator
from concurrent.futures import Future
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import anyio
import numpy as np
import pandas as pd
import pytest
from anndata import AnnData
from plotly.graph_objects import Figure, Scattergl
from typer.testing import CliRunner

from chat_ui import handlers
from chat_ui.card import dataset_card, status_line
from chat_ui.command import AddressError, check_address, free_port, read_users, tools_over_http, wake_up
from chat_ui.handlers import Conversation, View
from chat_ui.plots import fit_page, has_cells, short_name
from instructcell import pl
from instructcell.answers import titled
from instructcell.errors import InstructCellError, ReadError
from instructcell.events import CellsGenerated, Event, Failed, FigureReady, FilesReady, Progress, TableReady, TextDelta
from instructcell.grounds import Ground

TYPES = np.array(["type B pancreatic cell", "pancreatic A cell", "pancreatic D cell"])


def cells(n: int = 60) -> AnnData:
    """Return `n` cells of three kinds with integer counts."""
    generator = np.random.default_rng(0)
    return AnnData(
        generator.poisson(1.0, (n, 12)).astype(np.float32),
        obs=pd.DataFrame(index=[f"cell{i}" for i in range(n)]),
        var=pd.DataFrame(index=[f"GENE{i}" for i in range(12)]),
    )


def report(adata: AnnData, **changes: Any) -> SimpleNamespace:
    """Return what the page shows of a data set."""
    known = {"n_cells": adata.n_obs, "n_genes": adata.n_vars, "species": "human", "matrix": "X", "scale": "counts"}
    found = {"technology": "UMI", "id_type": "symbol", "counts_recovered": False, "warnings": ()}
    return SimpleNamespace(**{**known, **found, "coverage": 0.93, "counts_coverage": 0.97, **changes})


def embedding_map(adata: AnnData, names: np.ndarray) -> Figure:
    """Return a scatter plot of the cells, one trace per name."""
    generator = np.random.default_rng(1)
    figure = Figure(layout={"title": "Map of your cells"})
    for shift, name in enumerate(np.unique(names)):
        points = generator.normal(4 * shift, 1, (int((names == name).sum()), 2))
        figure.add_trace(Scattergl(x=points[:, 0], y=points[:, 1], mode="markers", name=str(name), marker={"size": 5}))
    return figure


class FakeSession:
    """Answers from a script: the words of a question choose what happens."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.name = folder, ""
        self.opened: dict[str, AnnData] = {}
        self.evidence: frozenset[str] = frozenset()
        self.adata: AnnData | None = None
        self.report: SimpleNamespace | None = None
        self.latest: object | None = None
        self.generated: AnnData | None = None

    def save_annotated(self, path: Path) -> Path:
        assert self.adata is not None
        self.adata.write_h5ad(path)
        return path

    def save_generated(self, path: Path) -> Path:
        assert self.generated is not None
        self.generated.write_h5ad(path)
        return path

    def suggestions(self) -> list[str]:
        if self.adata is None:
            return ["What marks a delta cell?", "What does GCG do?", "Generate 20 beta cells"]
        return ["What are these cells?", "Are they sensitive to gefitinib?", "Generate 20 beta cells"]

    def load(self, path: Path, *, name: str) -> Iterator[Event]:
        if path.read_bytes().startswith(b"not"):
            raise ReadError(f"{path.name} is not an .h5ad file: it holds text. Export it again from scanpy.")
        self.adata = self.opened[name] = cells()
        self.report = report(self.adata)
        self.latest, self.name = None, name
        yield TableReady("dataset", pd.DataFrame({"property": ["cells"]}))
        yield TextDelta(f"I read **{self.adata.n_obs} cells**.")

    def grounds(self, evidence: str) -> tuple[Ground, ...]:
        names = [("table", "Cell types"), ("table", "Markers"), ("figure", "Map")]
        return tuple(Ground(evidence, *name) for name in names) if evidence in self.evidence else ()

    def reveal(self, ground: Ground) -> Event:
        if ground.evidence not in self.evidence:
            raise InstructCellError("it was taken back")
        return TableReady(ground.name, pd.DataFrame({"shown": [ground.name]}), ground.evidence)

    def export(self, what: str) -> Path:
        if not self.opened:
            raise InstructCellError(f"there is no {what} yet")
        path = Path(tempfile.mkdtemp(dir=self.folder)) / f"{what}.html"
        path.write_text(what)
        return path

    def file_of(self, evidence: str) -> str:
        return next(iter(self.opened))

    @property
    def files(self) -> tuple[str, ...]:
        return tuple(self.opened)

    def use(self, name: str) -> Iterator[Event]:
        self.name, self.adata = name, self.opened[name]
        yield TextDelta(f"We talk about {name}.")

    def close_file(self, name: str) -> Iterator[Event]:
        del self.opened[name]
        self.name = next(reversed(self.opened), "")
        self.adata = self.opened.get(self.name)
        self.report = report(self.adata) if self.adata is not None else None
        yield TextDelta(f"{name} is closed.")

    def send(self, text: str) -> Iterator[Event]:
        if "generate" in text.lower():
            self.generated = cells(20)
            yield CellsGenerated(self.generated)
            yield TextDelta("Here are 20 pseudo-cells.")
        elif "export" in text:
            yield from self._export(["cells.h5ad", "types.csv"] if "all" in text else ["types.csv"])
        elif "undo" in text:
            self.evidence, self.generated = frozenset(), None
        elif "bug" in text:
            yield TextDelta("Let me see. ")
            raise KeyError("a bug of ours")
        elif "slow" in text:
            for step in range(100):
                time.sleep(0.05)
                yield Progress(step, 100, "annotating cells")
        elif self.adata is None:
            yield Failed("No cells are loaded.", "Upload a file first.")
        else:
            yield from self._annotate(self.adata)

    def _annotate(self, adata: AnnData) -> Iterator[Event]:
        names = TYPES[np.arange(adata.n_obs) % 3]
        yield Progress(30, adata.n_obs, "annotating cells")
        adata.obs["instructcell_cell_type"] = pd.Categorical(names)
        self.latest = self.latest or object()
        counted = pd.Series(names).value_counts().rename_axis("cell_type").reset_index(name="cells")
        self.evidence = frozenset({"r1"})
        yield TableReady("Cell types", counted, "r1")
        yield TableReady("Markers", counted, "r1")
        yield FigureReady("Map", embedding_map(adata, names), "r1")
        sentence = "These are mostly **type B pancreatic cells**: INS and IAPP are high."
        for word in sentence.split(" "):
            yield TextDelta(word + " ")

    def choose(self, positions: list[int], *, evidence: str) -> Iterator[Event]:
        yield TextDelta(f"{len(positions)} cells of {evidence}.")

    def _export(self, names: list[str]) -> Iterator[Event]:
        folder = Path(tempfile.mkdtemp(dir=self.folder))
        for name in names:
            (folder / name).write_text(name)
        yield TableReady("files", pd.DataFrame({"file": names}))
        yield FilesReady(tuple(folder / name for name in names))


@pytest.fixture
def conversation() -> Iterator[Conversation]:
    opened = handlers.open_conversation(FakeSession)
    yield opened
    opened.close()


@pytest.fixture
def islet_file(tmp_path: Path) -> Path:
    path = tmp_path / "islet.h5ad"
    cells().write_h5ad(path)
    return path


def last(views: Iterator[View]) -> View:
    """Return the view a handler ends with."""
    return list(views)[-1]


def said(view: View) -> str:
    """Return the last message."""
    return view.messages[-1]["content"]


def test_a_loaded_file_shows_its_card_and_questions_that_fit(conversation: Conversation, islet_file: Path) -> None:
    view = last(handlers.load(conversation, islet_file))
    assert "islet.h5ad" in view.card and ">60<" in view.card and "93%" in view.card
    assert "What are these cells?" in view.suggestions
    assert "60 cells" in said(view) and not view.busy


def test_an_answer_grows_word_by_word_and_fills_map_table_and_download(
    conversation: Conversation, islet_file: Path
) -> None:
    last(handlers.load(conversation, islet_file))
    views = list(handlers.ask(conversation, "What are these cells?"))
    lengths = [len(said(view)) for view in views if view.messages[-1]["role"] == "assistant"]
    assert lengths == sorted(lengths) and len(set(lengths)) > 5
    assert any("50%" in view.status for view in views) and views[-1].status == ""
    end = views[-1]
    assert list(end.figures) == ["Map"] and list(end.tables) == ["Cell types", "Markers"]
    assert end.annotated is not None and end.annotated.name == "islet_instructcell.h5ad" and end.annotated.is_file()


def test_the_annotated_file_is_written_again_only_for_new_answers(conversation: Conversation, islet_file: Path) -> None:
    last(handlers.load(conversation, islet_file))
    first = last(handlers.ask(conversation, "What are these cells?")).annotated
    assert last(handlers.ask(conversation, "generate 20 beta cells")).annotated is first
    conversation.session.latest = object()
    second = last(handlers.ask(conversation, "generate 20 beta cells")).annotated
    assert second != first and second.is_file()


def test_only_the_latest_file_of_each_kind_is_kept(conversation: Conversation, islet_file: Path) -> None:
    last(handlers.load(conversation, islet_file))
    for _ in range(3):
        conversation.session.latest = object()
        view = last(handlers.ask(conversation, "generate 20 beta cells"))
    assert sorted(conversation.folder.rglob("*.h5ad")) == sorted([view.annotated, view.generated])
    last(handlers.load(conversation, islet_file))
    assert list(conversation.folder.rglob("*.h5ad")) == [view.generated]


@pytest.mark.parametrize("broken", ["save_annotated", "suggestions"])
def test_what_fails_after_the_answer_leaves_a_page_that_answers(
    conversation: Conversation, islet_file: Path, monkeypatch: pytest.MonkeyPatch, broken: str
) -> None:
    last(handlers.load(conversation, islet_file))

    def fail(*_: object) -> None:
        raise OSError("no space left")

    monkeypatch.setattr(conversation.session, broken, fail)
    view = last(handlers.ask(conversation, "What are these cells?"))
    assert not view.busy and view.status == "" and view.annotated is None
    assert "type B" in said(view) and "went wrong on our side (OSError)" in said(view)


def test_generated_cells_can_be_downloaded(conversation: Conversation) -> None:
    view = last(handlers.ask(conversation, "Generate 20 beta cells"))
    assert view.generated is not None and view.generated.is_file()


def test_exported_files_are_offered_one_by_one_and_together(conversation: Conversation, islet_file: Path) -> None:
    last(handlers.load(conversation, islet_file))
    shown = last(handlers.ask(conversation, "What are these cells?")).tables
    view = last(handlers.ask(conversation, "export all this"))
    archive, *files = view.exported
    assert [path.name for path in files] == ["cells.h5ad", "types.csv"] and list(view.tables) == list(shown)
    assert sorted(zipfile.ZipFile(archive).namelist()) == ["cells.h5ad", "types.csv"]
    again = last(handlers.ask(conversation, "export the table")).exported
    assert [path.name for path in again] == ["types.csv"] and again[0].is_file()
    assert not any(path.exists() for path in view.exported)


def test_what_is_taken_back_goes_from_the_page(conversation: Conversation, islet_file: Path) -> None:
    last(handlers.load(conversation, islet_file))
    last(handlers.ask(conversation, "What are these cells?"))
    before = last(handlers.ask(conversation, "generate 20 beta cells"))
    assert before.generated is not None and before.tables and before.figures
    view = last(handlers.ask(conversation, "undo"))
    assert not view.tables and not view.figures and view.generated is None and not before.generated.exists()


def test_marked_cells_are_chosen_in_the_file_of_their_figure(conversation: Conversation, islet_file: Path) -> None:
    last(handlers.load(conversation, islet_file))
    last(handlers.ask(conversation, "What are these cells?"))
    view = last(handlers.choose(conversation, "Map", [3, 5, 7]))
    assert said(view) == "3 cells of r1." and view.messages[-2]["content"] == "These 3 cells"


def test_only_a_figure_of_cells_offers_to_ask_about_them() -> None:
    adata = cells()
    names = pd.Series(TYPES[np.arange(adata.n_obs) % 3])
    places = np.zeros((adata.n_obs, 2))
    for values in (names, pd.Series(np.arange(adata.n_obs))):
        figure = fit_page(pl.scatter(places, values, names=adata.obs_names))
        assert has_cells(figure) and figure.layout.dragmode == "lasso"
        assert sorted(int(row[0]) for trace in figure.data for row in trace.customdata) == list(range(adata.n_obs))
    assert not has_cells(embedding_map(adata, names.to_numpy())) and not has_cells(None)


def test_the_card_is_of_the_cells_that_are_talked_about(conversation: Conversation, islet_file: Path) -> None:
    last(handlers.load(conversation, islet_file))
    conversation.session.name, conversation.session.report = "other.h5ad", report(cells(7))
    view = last(handlers.ask(conversation, "generate"))
    assert "other.h5ad" in view.card and ">7<" in view.card


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("cells.h5ad", b"not cells", "holds text"),
        ("cells.h5ad", b"", "is empty"),
        ("cells.exe", b"MZ", "expected one of .h5ad"),
        ("cells.gz", b"\x1f\x8b", "expected one of .h5ad"),
        ("cells.zip", b"", "is empty"),
    ],
)
def test_a_bad_file_is_one_sentence_and_the_cells_before_stay(
    conversation: Conversation, islet_file: Path, tmp_path: Path, name: str, content: bytes, words: str
) -> None:
    before = last(handlers.load(conversation, islet_file)).card
    bad = tmp_path / "bad" / name
    bad.parent.mkdir()
    bad.write_bytes(content)
    view = last(handlers.load(conversation, bad))
    assert words in said(view) and "Traceback" not in said(view)
    assert view.card == before and not view.busy
    assert "type B" in said(last(handlers.ask(conversation, "What are these cells?")))


def test_several_uploaded_files_become_one_folder(conversation: Conversation, tmp_path: Path) -> None:
    paths = [tmp_path / name for name in ("barcodes.tsv", "features.tsv", "matrix.mtx")]
    for path in paths:
        path.write_text("1")
    (folder,) = handlers.gather(conversation, paths)
    assert folder.name == "matrix.mtx and 2 more"
    assert sorted(path.name for path in folder.iterdir()) == ["barcodes.tsv", "features.tsv", "matrix.mtx"]
    handlers.check_upload(folder)
    assert handlers.gather(conversation, [tmp_path]) == [tmp_path]


def test_several_files_of_cells_stay_several_files(conversation: Conversation, tmp_path: Path) -> None:
    paths = [tmp_path / name for name in ("a.h5ad", "barcodes.tsv.gz", "b.csv", "matrix.mtx.gz", "features.tsv.gz")]
    for path in paths:
        path.write_text("1")
    folder, *others = handlers.gather(conversation, paths)
    assert folder.name == "matrix.mtx.gz and 2 more" and [path.name for path in others] == ["a.h5ad", "b.csv"]
    assert [path.name for path in handlers.gather(conversation, others)] == ["a.h5ad", "b.csv"]


def test_each_file_shows_its_own_results(conversation: Conversation, islet_file: Path) -> None:
    last(handlers.load(conversation, islet_file, "one.h5ad"))
    first = last(handlers.ask(conversation, "What are these cells?"))
    second = last(handlers.load(conversation, islet_file, "two.h5ad"))
    assert not second.figures and not second.tables and second.files == ("one.h5ad", "two.h5ad")
    back = last(handlers.use(conversation, "one.h5ad"))
    assert back.file == "one.h5ad" and "one.h5ad" in back.card and back.figures == first.figures
    assert list(back.tables) == list(first.tables) and said(back) == "We talk about one.h5ad."
    assert last(handlers.use(conversation, "one.h5ad")).messages == back.messages


def test_an_answer_links_to_the_tables_and_figures_behind_it(conversation: Conversation, islet_file: Path) -> None:
    last(handlers.load(conversation, islet_file, "one.h5ad"))
    answer = said(last(handlers.ask(conversation, "What are these cells?")))
    links = re.findall(r"\[(.*?)\]\(#ic-ground-(\d+)-(\w+)\)", answer)
    assert links == [("Cell types", "0", "table"), ("Markers", "1", "table"), ("Map", "2", "figure")]
    view = handlers.show(conversation, 1)
    assert next(iter(view.tables)) == "Markers" and list(next(iter(view.tables.values()))["shown"]) == ["Markers"]
    assert view.messages[-1]["content"] == answer and conversation.view is view
    last(handlers.load(conversation, islet_file, "two.h5ad"))
    assert next(iter(handlers.show(conversation, 0).tables)) == "Cell types (one.h5ad)"
    last(handlers.ask(conversation, "undo"))
    after = handlers.show(conversation, 0)
    assert "It was taken back" in after.status and not after.busy
    assert handlers.show(conversation, 99) is after


def test_tables_and_the_conversation_are_written_when_they_are_wanted(
    conversation: Conversation, islet_file: Path
) -> None:
    assert handlers.fetch(conversation, "conversation") is None
    assert "There is no conversation yet" in conversation.view.status
    last(handlers.load(conversation, islet_file))
    last(handlers.ask(conversation, "What are these cells?"))
    path = handlers.fetch(conversation, "conversation")
    assert path is not None and path.read_text() == "conversation" and path.is_relative_to(conversation.folder)
    table = handlers.fetch(conversation, "table", "Cell types")
    assert table is not None and table.name == "Cell_types.csv"
    assert list(pd.read_csv(table)) == ["shown"]  # the whole table, as the session has it
    assert handlers.fetch(conversation, "table", "no such table") is None


def test_the_ids_a_chat_model_writes_become_links(conversation: Conversation, islet_file: Path) -> None:
    last(handlers.load(conversation, islet_file))
    last(handlers.ask(conversation, "What are these cells?"))
    answer = handlers.Answer(conversation, (), [("Mostly B [r1], not [r7] or [x](http://x.org).", "")])
    shown = answer.cite().messages[-1]["content"]
    assert "Mostly B [r1](#ic-ground-0-table), not &#91;r7&#93;" in shown and "[x]" not in shown


def test_a_closed_file_leaves_the_page(conversation: Conversation, islet_file: Path) -> None:
    last(handlers.load(conversation, islet_file, "one.h5ad"))
    last(handlers.ask(conversation, "What are these cells?"))
    last(handlers.load(conversation, islet_file, "two.h5ad"))
    last(handlers.use(conversation, "one.h5ad"))
    view = last(handlers.close_file(conversation))
    assert view.files == ("two.h5ad",) and "two.h5ad" in view.card and not view.figures and not view.tables
    empty = last(handlers.close_file(conversation))
    assert empty.files == () and "No cells yet" in empty.card and conversation.shelves == {}
    assert last(handlers.close_file(conversation)) is empty


def test_an_upload_lies_in_the_folder_of_its_conversation_and_goes_with_it(tmp_path: Path) -> None:
    uploads = [tmp_path / name / "cells.csv" for name in ("old", "young")]
    for upload in uploads:
        upload.parent.mkdir()
        upload.write_text("cell,INS\na,1\n")
    os.utime(uploads[0], (0, 0))
    one, two = (handlers.open_conversation(FakeSession) for _ in range(2))
    for conversation in (one, two):
        for upload in uploads:
            (path,) = handlers.gather(conversation, [upload])
            assert path.is_relative_to(conversation.folder) and path.read_text() == upload.read_text()
    one.close()
    # the young one may just have been sent by another visitor
    assert not uploads[0].parent.exists() and uploads[1].is_file() and not one.folder.exists()
    assert len(list(two.folder.rglob("cells.csv"))) == 2
    two.close()


def test_a_conversation_that_nobody_closes_leaves_no_files() -> None:
    conversation = handlers.open_conversation(FakeSession)
    folder = conversation.folder
    assert folder.is_dir()
    del conversation
    gc.collect()
    assert not folder.exists()


@pytest.mark.parametrize(
    ("name", "written"),
    [
        ("Islet.H5AD", "Islet_instructcell.h5ad"),
        ("a.b.zarr.zip", "a.b_instructcell.h5ad"),
        ("c", "c_instructcell.h5ad"),
    ],
)
def test_the_download_is_named_after_the_upload(
    conversation: Conversation, islet_file: Path, name: str, written: str
) -> None:
    last(handlers.load(conversation, islet_file, name))
    view = last(handlers.ask(conversation, "What are these cells?"))
    assert view.annotated is not None and view.annotated.name == written


def test_a_file_that_is_too_large_is_turned_away(
    conversation: Conversation, islet_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(handlers, "MAX_UPLOAD_BYTES", 10)
    assert "the chat takes up to" in said(last(handlers.load(conversation, islet_file)))


def test_new_cells_take_the_results_of_the_old_ones_away(conversation: Conversation, islet_file: Path) -> None:
    last(handlers.load(conversation, islet_file))
    last(handlers.ask(conversation, "What are these cells?"))
    view = last(handlers.load(conversation, islet_file, "again.h5ad"))
    assert not view.figures and not view.tables and view.annotated is None and "again.h5ad" in view.card


def test_a_bug_of_ours_is_said_in_the_chat_and_kept_in_the_log(
    conversation: Conversation, caplog: pytest.LogCaptureFixture
) -> None:
    view = last(handlers.ask(conversation, "a bug please"))
    assert "went wrong on our side" in said(view) and said(view).startswith("Let me see.")
    assert "a bug of ours" in caplog.text
    assert not view.busy


def test_a_failure_says_what_to_do(conversation: Conversation) -> None:
    view = last(handlers.ask(conversation, "What are these cells?"))
    assert said(view) == "No cells are loaded. Upload a file first."


def test_an_empty_question_changes_nothing(conversation: Conversation) -> None:
    assert last(handlers.ask(conversation, "  \n")).messages == ()


def test_a_question_longer_than_the_limit_is_not_sent(conversation: Conversation) -> None:
    assert "I read up to 2,000" in said(last(handlers.ask(conversation, "x" * 3000)))


@pytest.mark.parametrize(
    ("typed", "active"),
    [
        ("<img src=x onerror=alert(1)>", "<"),
        ("![x](http://example.org/x.png)", "["),
        ("see https://example.org or www.example.org", "://"),
        ("see www.example.org", "www."),
        ("**bold** and __too__", "*_"),
        ("| a |\n|---|", "|"),
        ("# title", "#"),
        ("12. list", "."),
        ("- list", "-"),
        ("`code` $x$ me@example.org &lt;", "`$@"),
    ],
)
def test_what_a_visitor_types_is_shown_as_text(conversation: Conversation, typed: str, active: str) -> None:
    shown = last(handlers.ask(conversation, typed)).messages[0]["content"]
    bare = re.sub(r"&#\d+;", "", shown)
    assert active not in bare and (len(active) > 2 or not set(active).intersection(bare))
    assert html.unescape(shown) == typed.replace("\n", "  \n")


def test_an_ordinary_question_needs_no_escape() -> None:
    question = "What are these cells (T or B)? Are CD8+ T-cells in 3.5 %: yes, no!"
    assert handlers.plain(question) == question


def test_names_from_a_file_cannot_put_html_or_pictures_into_an_answer() -> None:
    shown = handlers.answer_text("**ok** <b>x</b> ![p](http://x.org/p.png) [a](//x.org) www.x.org me@x.org &lt;")
    assert shown.startswith("**ok** ")
    assert not re.search(r"[<\[\]@]|://|www\.|&lt;", shown)
    assert html.unescape(shown) == "**ok** <b>x</b> ![p](http://x.org/p.png) [a](//x.org) www.x.org me@x.org &lt;"


def test_a_name_that_is_escaped_already_is_shown_as_it_is() -> None:
    name = "a[b](c) <d> & e_f"
    shown = html.unescape(handlers.answer_text(titled(name)))
    assert re.sub(r"\\([_>])", r"\1", shown) == name


def test_code_in_an_answer_is_left_as_it_is() -> None:
    assert handlers.answer_text("the column `<CELL>` of <x>") == "the column `<CELL>` of &#60;x>"


def test_the_card_escapes_what_the_file_says() -> None:
    card = dataset_card(report(cells(), species="<i>", warnings=["<script>"]), '"><script>alert(1)</script>.h5ad')
    assert "<script" not in card and "<i>" not in card.replace('<i style="', "")


def test_the_status_line_never_passes_hundred_percent() -> None:
    assert "100%" in status_line("embedding", 300, 256)


def test_a_table_is_rounded_and_cut_for_reading() -> None:
    table = pd.DataFrame({"p_sensitive": np.full(5000, 0.123456), "cells": 3})
    shown = handlers.fit_table(table)
    assert list(shown) == ["p sensitive", "cells"] and shown.iloc[0, 0] == 0.123 and len(shown) == 1000
    assert table.iloc[0, 0] == 0.123456


def test_a_figure_keeps_its_data_and_gains_room_for_a_long_legend() -> None:
    few, many = (
        embedding_map(cells(n), np.array([f"quite a long cell type {i % n}" for i in range(n)])) for n in (2, 20)
    )
    fitted = fit_page(many)
    assert fitted.layout.height > fit_page(few).layout.height and fitted.layout.title.text is None
    assert short_name("quiescent pancreatic stellate cell (1,024)") == "quiescent pancreatic… (1,024)"
    assert short_name("T cell (3)") == "T cell (3)"
    assert many.layout.title.text == "Map of your cells" and len(fitted.data) == 20


def test_closing_a_conversation_deletes_its_files(islet_file: Path) -> None:
    conversation = handlers.open_conversation(FakeSession)
    last(handlers.ask(conversation, "generate"))
    folder = conversation.folder
    assert folder.is_dir()
    conversation.close()
    assert not folder.exists()


def test_two_visitors_share_nothing(islet_file: Path) -> None:
    one, two = (handlers.open_conversation(FakeSession) for _ in range(2))
    last(handlers.load(one, islet_file))
    assert two.view.messages == () and two.session.adata is None and one.folder != two.folder
    one.close(), two.close()


def test_a_stopped_answer_frees_the_conversation(conversation: Conversation) -> None:
    running = handlers.ask(conversation, "slow")
    next(running), next(running)
    running.close()  # what Gradio does to a cancelled generator
    stopped = handlers.stop(conversation)
    assert not stopped.busy and said(stopped) == "*Stopped.*"
    answers: list[View] = []
    thread = threading.Thread(target=lambda: answers.append(last(handlers.ask(conversation, "generate"))))
    thread.start()
    thread.join(timeout=120)
    assert answers and "20 pseudo-cells" in said(answers[0])


# ---- the page


@pytest.fixture
def page(islet_file: Path) -> Any:
    from chat_ui.app import Example, build_page

    built = build_page(FakeSession, [Example("Human islet", islet_file)])
    yield built
    built.close(verbose=False)


def test_every_widget_gets_its_value(conversation: Conversation, page: Any) -> None:
    from chat_ui.app import draw

    outputs = [function.outputs for function in page.fns.values() if len(function.outputs) > 5]
    assert outputs and all(len(draw(conversation, conversation.view)) == len(listed) for listed in outputs)


def figures_sent(updates: list[list[Any]]) -> list[int]:
    """Return how many figures each update carries."""
    return [sum(isinstance(value, Figure) for value in update) for update in updates]


def test_a_figure_travels_when_it_is_new_and_again_with_the_last_update(
    conversation: Conversation, islet_file: Path
) -> None:
    from chat_ui.app import drawn

    list(drawn(conversation, handlers.load(conversation, islet_file)))
    sent = figures_sent(list(drawn(conversation, handlers.ask(conversation, "What are these cells?"))))
    assert sum(sent) == 2 and sent[-1] == 1  # a busy browser may have dropped the first
    later = figures_sent(list(drawn(conversation, handlers.ask(conversation, "generate 20 beta cells"))))
    assert sum(later) == 0  # so that a zoom stays


def test_the_page_at_rest_can_be_asked_again(conversation: Conversation) -> None:
    from chat_ui.app import drawn

    last_update = list(drawn(conversation, handlers.ask(conversation, "a bug please")))[-1]
    question, status = last_update[2], last_update[3]
    assert question["interactive"] and question["submit_btn"] == "Ask" and status == ""


def test_only_the_named_endpoints_are_open(page: Any) -> None:
    public = [function.api_name for function in page.fns.values() if function.api_visibility != "private"]
    assert public == ["open_file", "ask", "call_tool", "list_tools", "export"]


def test_the_page_needs_no_font_from_a_network() -> None:
    from chat_ui.theme import STYLE_SHEET, page_theme

    assert not page_theme()._stylesheets
    for sheet in (page_theme()._get_theme_css(), STYLE_SHEET.read_text(encoding="utf-8")):
        assert "@import" not in sheet and not re.search(r"url\([\"']?(http|//)", sheet)


# ---- the command


@pytest.fixture
def taken_port() -> Iterator[int]:
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        server.listen(1)
        yield server.getsockname()[1]


def test_a_port_in_use_is_said_with_a_free_one(taken_port: int) -> None:
    with pytest.raises(AddressError, match=rf"port {taken_port} on 127.0.0.1 is in use") as refused:
        check_address("127.0.0.1", taken_port)
    check_address("127.0.0.1", int(str(refused.value).rsplit(" ", 1)[1]))


@pytest.mark.parametrize("host", ["203.0.113.7", "no-such-host.invalid"])
def test_an_address_of_another_machine_is_refused(host: str) -> None:
    with pytest.raises(AddressError, match=r"127\.0\.0\.1"):
        check_address(host, 7860)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [(["--port", "{port}"], "is in use"), (["nowhere.h5ad", "--port", "0"], "greater than or equal to 1")],
)
def test_the_command_ends_with_2_and_one_message(taken_port: int, arguments: list[str], words: str) -> None:
    from instructcell.cli import app

    result = CliRunner().invoke(app, ["chat", *(part.format(port=taken_port) for part in arguments)])
    assert result.exit_code == 2 and words in result.output and "Traceback" not in result.output


@pytest.mark.parametrize(
    ("auth", "users"),
    [("ana:s3cret", [("ana", "s3cret")]), ("ana:a:b", [("ana", "a:b")])],
)
def test_users_are_read_as_name_and_password(auth: str, users: list[tuple[str, str]]) -> None:
    assert read_users(auth) == users


def test_users_may_stand_in_a_file(tmp_path: Path) -> None:
    (tmp_path / "users").write_text("# ours\nana:one\n\nben:two\n")
    assert read_users(f"@{tmp_path / 'users'}") == [("ana", "one"), ("ben", "two")]


@pytest.mark.parametrize("auth", ["s3cret", ":s3cret", "s3cret:", "@nowhere"])
def test_a_password_is_never_repeated_in_an_error(auth: str) -> None:
    with pytest.raises(InstructCellError, match="--auth") as refused:
        read_users(auth)
    assert "s3cret" not in str(refused.value)


def test_tools_for_everybody_on_the_network_are_refused() -> None:
    with pytest.raises(InstructCellError, match="add --auth"):
        tools_over_http(Future(), Path("."), "0.0.0.0", [])


def test_the_page_says_who_words_the_answers(islet_file: Path) -> None:
    from chat_ui.app import build_page

    page = build_page(FakeSession, [], speaker="<b>openai:gpt</b>")
    shown = str(page.get_config_file())
    page.close(verbose=False)
    assert "&lt;b&gt;openai:gpt&lt;/b&gt; words the answers" in shown and "on this machine; " in shown


def test_sessions_of_the_page_speak_through_the_chat_model(tiny_checkpoint: Path) -> None:
    from instructcell.interop.agent import AgentSession

    waiting: Future[Any] = Future()
    wake_up(str(tiny_checkpoint), waiting, "http://127.0.0.1:9/v1#made-up")
    session = waiting.result(timeout=60)(None)
    assert isinstance(session, AgentSession) and session.llm_name == "http://127.0.0.1:9/v1#made-up"
    said = "".join(event.text for event in session.send("help") if isinstance(event, TextDelta))
    assert "the built-in session answers" in said and "Drugs I know" in said


def test_assistants_call_the_tools_beside_the_page(
    tiny_checkpoint: Path, synthetic_adata: AnnData, tmp_path: Path
) -> None:
    httpx = pytest.importorskip("httpx2")
    mcp = pytest.importorskip("mcp")
    streamable = pytest.importorskip("mcp.client.streamable_http").streamable_http_client
    from chat_ui.app import build_page, mounted

    (tmp_path / "cells").mkdir()
    synthetic_adata.write_h5ad(tmp_path / "cells" / "cells.h5ad")
    cells().write_h5ad(tmp_path / "outside.h5ad")
    ready: Future[Any] = Future()
    wake_up(str(tiny_checkpoint), ready)
    beside = tools_over_http(ready, tmp_path / "cells", "127.0.0.1", [("ana", "s3cret")])
    page = build_page(lambda folder: ready.result(timeout=60)(folder), [])
    application = gradio_app(page, mounted(beside))
    address = "http://127.0.0.1:7860"

    def client(auth: tuple[str, str] | None) -> Any:
        return httpx.AsyncClient(
            transport=httpx.ASGITransport(application), base_url=address, auth=auth, timeout=None
        )

    async def use() -> tuple[Any, ...]:
        async with application.router.lifespan_context(application):
            codes = []
            for auth in (None, ("ana", "wrong")):
                async with client(auth) as http:
                    codes.append((await http.post("/mcp", json={})).status_code)
            async with client(("ana", "s3cret")) as http, mcp.Client(
                streamable(f"{address}/mcp", http_client=http)
            ) as assistant:
                names = [tool.name for tool in (await assistant.list_tools()).tools]
                opened = await assistant.call_tool("open_file", {"path": "cells.h5ad"})
                refused = await assistant.call_tool("open_file", {"path": "../outside.h5ad"})
                return codes, names, opened, refused, await assistant.call_tool("describe", {})

    codes, names, opened, refused, described = anyio.run(use)
    page.close(verbose=False)
    assert codes == [401, 401] and {"open_file", "annotate", "close_file"} <= set(names)
    assert not opened.is_error and described.structured_content["facts"]["n_cells"] == synthetic_adata.n_obs
    assert refused.is_error and "outside the folder" in refused.content[0].text


def gradio_app(page: Any, more: dict[str, Any]) -> Any:
    """The page's application as it is served, without a server."""
    from gradio.routes import App

    page.config = page.get_config_file()
    return App.create_app(page, app_kwargs=more)


def test_a_missing_file_is_said_before_the_page_starts(tmp_path: Path) -> None:
    from instructcell.cli import app

    result = CliRunner().invoke(
        app, ["chat", str(tmp_path / "nowhere.h5ad"), "--port", str(free_port("127.0.0.1", 20000))]
    )
    assert result.exit_code == 2 and "there is no file" in result.output


def test_a_checkpoint_that_cannot_be_loaded_is_told_to_visitors_who_wait(tmp_path: Path) -> None:
    waiting: Future[Any] = Future()
    with pytest.raises(InstructCellError):
        wake_up(str(tmp_path / "nothing"), waiting)
    with pytest.raises(InstructCellError):
        waiting.result(timeout=60)
