"""An MCP server: every tool of the toolbox for assistants that speak the Model Context Protocol.

    instructcell mcp cells.h5ad         over stdin and stdout
    instructcell chat --mcp             over HTTP, at /mcp of the page's address

Files are opened only from the folder that it was given. Over HTTP all assistants share one set of files, which no
visitor of the page sees.
"""

from __future__ import annotations

import base64
import binascii
import hmac
import json
import sys
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import anyio
import mcp_types as types
from mcp.server import Server, ServerRequestContext
from mcp.server.stdio import stdio_server
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from starlette.applications import Starlette
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Receive, Scope, Send

from instructcell import __version__
from instructcell.checkpoint import Checkpoint
from instructcell.errors import InstructCellError, ReadError
from instructcell.interop.telling import MOST_ROWS, told, written
from instructcell.reply import Reply
from instructcell.session import Session
from instructcell.toolbox import TOOLS, Toolbox
from instructcell.toolbox.arguments import problem
from instructcell.toolbox.data import opened
from instructcell.workspace import Result

Model = TypeVar("Model", bound=BaseModel)

Over = Toolbox | Session | Callable[[], Session]

OPEN, ASK = "open_file", "ask"
PATH = "/mcp"
INSTRUCTIONS = (
    "Tools for single-cell expression data. Open a file of cells first (open_file), then ask about it: annotate, "
    "explain, compare, generate, drug_response and others, or ask in plain words. State only what a tool returned, "
    "with its result id."
)


class OpenFile(BaseModel):
    """Arguments of `open_file`."""

    model_config = ConfigDict(extra="forbid")
    path: str = Field(description="A file or folder of cells inside the server's folder: .h5ad, 10x, .csv, ...")
    name: str = Field("", description="How to call it; the file's name by default.")


class Ask(BaseModel):
    """Arguments of `ask`."""

    model_config = ConfigDict(extra="forbid")
    question: str = Field(min_length=1, max_length=2000, description="A question about the cells, in plain words.")


def make_server(over: Over, folder: str | Path = ".") -> Server[Any]:
    """An MCP server over a toolbox, or over a session, which also answers questions in plain words (`ask`).

    Parameters
    ----------
    over
        Whose files and results the tools work on, one call at a time; or what gives a session once it is needed.
    folder
        Where `open_file` may read.
    """
    root = Path(folder).resolve()
    busy = anyio.Lock()
    asked = not isinstance(over, Toolbox)

    async def list_tools(
        ctx: ServerRequestContext[Any], params: types.PaginatedRequestParams | None
    ) -> types.ListToolsResult:
        return types.ListToolsResult(tools=_tools(asked=asked))

    async def call_tool(ctx: ServerRequestContext[Any], params: types.CallToolRequestParams) -> types.CallToolResult:
        call = partial(_call, over, root, params.name, dict(params.arguments or {}))  # in a thread
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


def over_http(
    over: Over,
    folder: str | Path = ".",
    *,
    host: str = "127.0.0.1",
    users: Sequence[tuple[str, str]] = (),
) -> Starlette:
    """The server as a web application that answers at /mcp (streamable HTTP).

    Parameters
    ----------
    host
        Where it will listen; requests that a web page elsewhere makes through the visitor's browser are refused.
    users
        (name, password) of those who may call it, by HTTP basic authentication; everybody when there are none.
    """
    application = make_server(over, folder).streamable_http_app(streamable_http_path=PATH, host=host)
    if users:
        application.add_middleware(_Guarded, users=tuple(users))
    return application


class _Guarded:
    """Lets requests through that bear the name and password of a user."""

    def __init__(self, app: ASGIApp, users: tuple[tuple[str, str], ...]) -> None:
        self.app, self.users = app, users

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or self._knows(dict(scope["headers"]).get(b"authorization", b"")):
            await self.app(scope, receive, send)
            return
        refusal = PlainTextResponse("name and password needed", 401, {"WWW-Authenticate": "Basic"})
        await refusal(scope, receive, send)

    def _knows(self, header: bytes) -> bool:
        kind, _, code = header.partition(b" ")
        if kind.lower() != b"basic":
            return False
        try:
            given = base64.b64decode(code, validate=True)
        except binascii.Error:
            return False
        known = [hmac.compare_digest(given, f"{name}:{password}".encode()) for name, password in self.users]
        return any(known)  # all were compared, so that the time says nothing


def serve(
    files: Sequence[str | Path] = (), *, checkpoint: str | Path | Checkpoint = "mini", folder: str | Path = "."
) -> None:
    """Serve over stdin and stdout until the client goes; what is printed goes to stderr.

    Raises
    ------
    InstructCellError
        One of the files cannot be used.
    """
    session = Session(checkpoint=checkpoint)
    for file in files:
        session.open(file)
    anyio.run(_serve, make_server(session, folder))


async def _serve(server: Server[Any]) -> None:
    async with stdio_server() as (reading, writing):
        kept, sys.stdout = sys.stdout, sys.stderr  # a stray print must not break the protocol
        try:
            await server.run(reading, writing, server.create_initialization_options())
        finally:
            sys.stdout = kept


def _tools(*, asked: bool) -> list[types.Tool]:
    own = [_tool(OPEN, "Open a file of cells; the other tools are about it from then on.", OpenFile)]
    if asked:
        own.append(_tool(ASK, "Ask in plain words; the conversation is remembered. Tables are cut to 25 rows.", Ask))
    others = [one.schema() for one in TOOLS.values()]
    return [
        *own,
        *(
            types.Tool(name=one["name"], description=one["description"], input_schema=one["parameters"])
            for one in others
        ),
    ]


def _tool(name: str, description: str, arguments: type[BaseModel]) -> types.Tool:
    return types.Tool(name=name, description=description, input_schema=arguments.model_json_schema())


def _call(over: Over, root: Path, name: str, arguments: dict[str, Any]) -> dict[str, Any]:
    """Run a tool and say what it found."""
    over = over if isinstance(over, Toolbox | Session) else over()
    if name == OPEN:
        return told(_open(over, root, _checked(OPEN, OpenFile, arguments)))
    if name == ASK and isinstance(over, Session):
        reply = Reply.of(over.send(_checked(ASK, Ask, arguments).question))
        return {**reply.to_dict(MOST_ROWS), "paths": [str(path) for path in reply.files]}
    box = over.toolbox if isinstance(over, Session) else over
    result = box.run(name, **arguments)
    return {**told(result), "paths": [str(path) for path in written(result)]}


def _open(over: Toolbox | Session, root: Path, asked: OpenFile) -> Result:
    path = (root / asked.path).resolve()
    if not path.is_relative_to(root):
        raise ReadError(
            f"{asked.path} lies outside the folder that this server may read; start it with --folder to choose another"
        )
    return opened(over.open(path, asked.name))


def _checked(name: str, model: type[Model], arguments: dict[str, Any]) -> Model:
    """Arguments as their model; an InstructCellError that says what is wrong with them."""
    try:
        return model(**arguments)
    except ValidationError as error:
        raise problem(name, error) from None
