"""One contract: the same requests give the same results from Python, the terminal, HTTP and MCP."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import anyio
import numpy as np
import pandas as pd
import pytest
import tiny
import torch

from instructcell.checkpoint import load_checkpoint
from instructcell.interop.telling import MOST_ROWS, told
from instructcell.reply import Reply
from instructcell.session import Session

pytest.importorskip("mcp")
gradio_client = pytest.importorskip("gradio_client")

ROOT = Path(__file__).parents[1]
QUESTIONS = (
    "Which cell types are these?",
    "How many B cells are there in cluster 1?",
    "Would gefitinib work on all cells?",
    "Generate 6 B cells and compare them with the real ones",
    "Which of these express MS4A1?",
)
CALLS: tuple[tuple[str, dict[str, Any]], ...] = (
    ("annotate", {"cells": {"cluster": "1"}}),
    ("quality", {}),
    ("compare", {"cells": {"cluster": "0"}, "against": {"cluster": "2"}, "n_genes": 5}),
    ("drug_response", {"drug": "gefitinib", "cells": {"first": 12}}),
    ("explain", {"cells": {"first": 1}}),
)


@pytest.fixture(scope="module")
def cells(tmp_path_factory: pytest.TempPathFactory) -> Path:
    adata = tiny.make_adata(48)
    adata.obs["cluster"] = pd.Categorical([str(i % 3) for i in range(adata.n_obs)])
    path = tmp_path_factory.mktemp("contract") / "cells.h5ad"
    adata.write_h5ad(path)
    return path


@pytest.fixture(scope="module")
def address(tiny_checkpoint: Path) -> Iterator[str]:
    """The chat's page and endpoints, served as `instructcell chat` does."""
    from chat_ui.app import build_page, serve
    from chat_ui.command import free_port

    checkpoint = load_checkpoint(tiny_checkpoint)
    page = build_page(lambda folder: Session(checkpoint=checkpoint, folder=folder), [])
    yield serve(page, host="127.0.0.1", port=free_port("127.0.0.1", 17860))
    page.close(verbose=False)


@pytest.fixture(autouse=True)
def one_number_of_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    """The last digits of a product depend on the threads: the same in this process, the server and the programs."""
    monkeypatch.setenv("OMP_NUM_THREADS", str(torch.get_num_threads()))


def environment() -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(ROOT)}


def client_of(address: str, cells: Path) -> Any:
    client = gradio_client.Client(address, verbose=False, httpx_kwargs={"timeout": 600})  # on a slow machine too
    client.predict(gradio_client.handle_file(str(cells)), "", api_name="/open_file")
    return client


def over_mcp(cells: Path, checkpoint: Path, calls: list[tuple[str, dict[str, Any]]]) -> list[dict[str, Any]]:
    """What `instructcell mcp` says to the official client."""
    from mcp import Client, StdioServerParameters

    command = ["-m", "instructcell.cli", "mcp", cells.name, "--model", str(checkpoint)]
    server = StdioServerParameters(command=sys.executable, args=command, cwd=cells.parent, env=environment())

    async def use() -> list[dict[str, Any]]:
        async with Client(server) as client:
            answers = [await client.call_tool(name, arguments) for name, arguments in calls]
        assert not [answer.content for answer in answers if answer.is_error]
        said = [answer.structured_content for answer in answers]
        return [{key: value for key, value in one.items() if key != "paths"} for one in said]

    return anyio.run(use)


def plain(document: dict[str, Any]) -> dict[str, Any]:
    """A document as JSON brings it to the other side."""
    return json.loads(json.dumps(document))


def cut(document: dict[str, Any]) -> dict[str, Any]:
    """A document with the rows that an assistant is given."""
    return {**document, "tables": {name: rows[:MOST_ROWS] for name, rows in document["tables"].items()}}


def test_the_same_questions_get_the_same_answers_everywhere(cells: Path, address: str, tiny_checkpoint: Path) -> None:
    session = Session(checkpoint=load_checkpoint(tiny_checkpoint))
    session.load(cells)
    python = [plain(Reply.of(session.send(question)).to_dict()) for question in QUESTIONS]
    assert all(reply["answer"] and not reply["failure"] for reply in python), python
    assert all(any(reply[part] for reply in python) for part in ("tables", "figures", "evidence", "generated"))
    assert max(n for reply in python for n in reply["n_rows"].values()) > MOST_ROWS  # or nothing is cut for MCP

    command = [sys.executable, "-m", "instructcell.cli", "ask", str(cells), "--model", str(tiny_checkpoint), "--json"]
    typed = "\n".join(QUESTIONS) + "\n"
    run = subprocess.run(command, input=typed, capture_output=True, text=True, env=environment())
    assert run.returncode == 0, run.stderr
    terminal = [json.loads(line) for line in run.stdout.splitlines()]
    assert [document.pop("question") for document in terminal] == list(QUESTIONS)
    assert terminal == python

    client = client_of(address, cells)
    http = [client.predict(question, api_name="/ask") for question in QUESTIONS]
    assert http == python

    mcp = over_mcp(cells, tiny_checkpoint, [("ask", {"question": question}) for question in QUESTIONS])
    assert mcp == [cut(reply) for reply in python]


def test_the_same_tools_return_the_same_results_everywhere(cells: Path, address: str, tiny_checkpoint: Path) -> None:
    session = Session(checkpoint=load_checkpoint(tiny_checkpoint))
    session.load(cells)
    python = [plain(told(session.toolbox.run(name, **arguments))) for name, arguments in CALLS]
    assert all(result["facts"] for result in python) and sum(bool(result["tables"]) for result in python) >= 4
    assert any(isinstance(value, float) for result in python for value in result["facts"].values())
    client = client_of(address, cells)
    assert [client.predict(name, arguments, api_name="/call_tool") for name, arguments in CALLS] == python
    assert over_mcp(cells, tiny_checkpoint, list(CALLS)) == python


def test_a_mistake_is_the_same_sentence_everywhere(cells: Path, address: str, tiny_checkpoint: Path) -> None:
    from mcp import Client

    from instructcell.errors import InstructCellError
    from instructcell.interop.mcp import make_server

    session = Session(checkpoint=load_checkpoint(tiny_checkpoint))
    session.load(cells)
    wrong = ("drug_response", {"drug": "nosuchdrug"})
    with pytest.raises(InstructCellError) as python:
        session.toolbox.run(wrong[0], **wrong[1])
    with pytest.raises(gradio_client.exceptions.AppError) as http:
        client_of(address, cells).predict(*wrong, api_name="/call_tool")
    assert str(http.value) == str(python.value)

    async def use() -> Any:
        async with Client(make_server(session)) as client:
            return await client.call_tool(*wrong)

    answer = anyio.run(use)
    assert answer.is_error and answer.content[0].text == str(python.value)


def test_what_is_exported_over_http_is_the_sessions_file(cells: Path, address: str, tiny_checkpoint: Path) -> None:
    import anndata

    session = Session(checkpoint=load_checkpoint(tiny_checkpoint))
    session.load(cells)
    session.toolbox.run("annotate")
    client = client_of(address, cells)
    client.predict("annotate", {}, api_name="/call_tool")
    (path,) = client.predict("annotated", api_name="/export")
    given = anndata.read_h5ad(path)
    assert session.adata is not None
    pd.testing.assert_frame_equal(
        given.obs.astype(str), session.adata.obs.astype(str), check_exact=True, check_index_type=False
    )
    assert np.array_equal(given.obsm["X_instructcell"], session.adata.obsm["X_instructcell"])
