"""An MCP server: every tool of the toolbox for assistants that speak the Model Context Protocol.

    instructcell mcp cells.h5ad

It speaks over stdin and stdout. Files are opened only from the folder that it was given.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import anyio
import mcp_types as types
from mcp.server import Server, ServerRequestContext
from mcp.server.stdio import stdio_server
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from instructcell import __version__
from instructcell.checkpoint import Checkpoint
from instructcell.errors import InstructCellError, ReadError
from instructcell.interop.telling import told, written
from instructcell.toolbox import TOOLS, Toolbox
from instructcell.toolbox.data import card
from instructcell.workspace import Result

OPEN = "open_file"
INSTRUCTIONS = (
    "Tools for single-cell expression data. Open a file of cells first (open_file), then ask about it: annotate, "
    "explain, compare, generate, drug_response and others. State only what a tool returned, with its result id."
)


class OpenFile(BaseModel):
    """Arguments of `open_file`."""

    model_config = ConfigDict(extra="forbid")
    path: str = Field(description="A file or folder of cells inside the server's folder: .h5ad, 10x, .csv, ...")
    name: str = Field("", description="How to call it; the file's name by default.")


def make_server(box: Toolbox, folder: str | Path = ".") -> Server[Any]:
    """An MCP server over a toolbox.

    Parameters
    ----------
    box
        Whose files and results the tools work on; one call at a time.
    folder
        Where `open_file` may read.
    """
    root = Path(folder).resolve()
    busy = anyio.Lock()

    async def list_tools(
        ctx: ServerRequestContext[Any], params: types.PaginatedRequestParams | None
    ) -> types.ListToolsResult:
        return types.ListToolsResult(tools=_tools())

    async def call_tool(ctx: ServerRequestContext[Any], params: types.CallToolRequestParams) -> types.CallToolResult:
        call = partial(_call, box, root, params.name, dict(params.arguments or {}))
        try:
            async with busy:
                said = await anyio.to_thread.run_sync(call)
        except InstructCellError as error:
            return types.CallToolResult(content=[types.TextContent(type="text", text=str(error))], is_error=True)
        text = json.dumps(said, ensure_ascii=False)
        return types.CallToolResult(content=[types.TextContent(type="text", text=text)], structured_content=said)

    return Server(
        "instructcell",
        version=__version__,
        instructions=INSTRUCTIONS,
        on_list_tools=list_tools,
        on_call_tool=call_tool,
    )


def serve(
    files: Sequence[str | Path] = (), *, checkpoint: str | Path | Checkpoint = "mini", folder: str | Path = "."
) -> None:
    """Serve over stdin and stdout until the client goes; what is printed goes to stderr.

    Raises
    ------
    InstructCellError
        One of the files cannot be used.
    """
    box = Toolbox(checkpoint=checkpoint)
    for file in files:
        box.open(file)
    anyio.run(_serve, make_server(box, folder))


async def _serve(server: Server[Any]) -> None:
    async with stdio_server() as (reading, writing):
        kept, sys.stdout = sys.stdout, sys.stderr  # a stray print must not break the protocol
        try:
            await server.run(reading, writing, server.create_initialization_options())
        finally:
            sys.stdout = kept


def _tools() -> list[types.Tool]:
    own = types.Tool(
        name=OPEN,
        description="Open a file of cells; the other tools are about it from then on.",
        input_schema=OpenFile.model_json_schema(),
    )
    others = [one.schema() for one in TOOLS.values()]
    return [
        own,
        *(
            types.Tool(name=one["name"], description=one["description"], input_schema=one["parameters"])
            for one in others
        ),
    ]


def _call(box: Toolbox, root: Path, name: str, arguments: dict[str, Any]) -> dict[str, Any]:
    """Run a tool and say what it found."""
    if name == OPEN:
        return told(_open(box, root, arguments))
    result = box.run(name, **arguments)
    return {**told(result), "paths": [str(path) for path in written(result)]}


def _open(box: Toolbox, root: Path, arguments: dict[str, Any]) -> Result:
    try:
        asked = OpenFile(**arguments)
    except ValidationError as error:
        first = error.errors()[0]
        raise InstructCellError(f"{OPEN} cannot use its arguments: {first['msg'].lower()} ({first['loc']})") from None
    path = (root / asked.path).resolve()
    if not path.is_relative_to(root):
        raise ReadError(
            f"{asked.path} lies outside the folder that this server may read; start it with --folder to choose another"
        )
    file = box.open(path, asked.name)
    facts = {
        "file": file.name,
        "n_cells": file.adata.n_obs,
        "n_genes": file.report.n_genes,
        "report": file.report.to_markdown(),
    }
    return Result(OPEN, facts, tables={"dataset": card(file)}, file=file.name)
