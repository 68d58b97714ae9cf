"""`instructcell chat`: start the page in the terminal."""

from __future__ import annotations

import atexit
import errno
import os
import shutil
import signal
import socket
import sys
import tempfile
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from functools import cache, partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from instructcell.errors import InstructCellError

if TYPE_CHECKING:
    from starlette.applications import Starlette

    from instructcell.checkpoint import Checkpoint
    from instructcell.session import Session

    Sessions = Callable[[Path | None], Session]  # makes a session that may write into a folder

LOOPBACK = ("127.0.0.1", "localhost", "::1")
AUTH_VARIABLE = "INSTRUCTCELL_AUTH"
UPLOAD_FOLDER = "GRADIO_TEMP_DIR"  # the variable from which Gradio learns where uploads go


class AddressError(InstructCellError):
    """The page cannot be served at the address that was asked for."""


class AuthError(InstructCellError):
    """The name and password that visitors must give cannot be used; the message never repeats them."""


Files = Annotated[
    list[Path] | None, typer.Argument(metavar="[FILE]...", help="Cells to open with.", show_default=False)
]
Model = Annotated[str, typer.Option("--model", help="Checkpoint: the name of a shipped one, a folder or a hub id.")]
Host = Annotated[str, typer.Option("--host", help="Address to serve at; 0.0.0.0 lets other machines in.")]
Port = Annotated[int, typer.Option("--port", min=1, max=65535, help="Port to serve at.")]
Llm = Annotated[
    str | None,
    typer.Option("--llm", help="Speak through this chat model: provider:model, or the address of a local server."),
]
Mcp = Annotated[bool, typer.Option("--mcp", help="Serve the tools to assistants as well, at /mcp of the address.")]
Folder = Annotated[Path, typer.Option("--folder", help="With --mcp: where assistants may open files.")]
Auth = Annotated[
    str | None,
    typer.Option(
        "--auth", envvar=AUTH_VARIABLE, show_default=False, metavar="USER:PASSWORD|@FILE",
        help="Let in only who knows this; @FILE holds a line for each user. A process list shows arguments: better "
        "use the variable or a file.",
    ),
]  # fmt: skip


def chat(
    files: Files = None,
    model: Model = "mini",
    host: Host = "127.0.0.1",
    port: Port = 7860,
    llm: Llm = None,
    mcp: Mcp = False,
    folder: Folder = Path("."),
    auth: Auth = None,
) -> None:
    """Open the chat in the browser: upload cells, ask, see answers.

    \b
    Example:
      instructcell chat cells.h5ad --port 7861
    """
    users = [] if auth is None else read_users(auth)
    check_address(host, port)
    check_files(files or [])
    if llm is not None:
        from instructcell.interop.chat_models import open_chat_model

        open_chat_model(llm)
    keep_uploads_apart()
    ready: Future[Sessions] = Future()
    from chat_ui.app import build_page, demo_examples, serve

    page = build_page(lambda folder: ready.result()(folder), demo_examples(), files or (), speaker=speaker_of(llm))
    assistants = tools_over_http(ready, folder, host, users) if mcp else None
    address = serve(page, host=host, port=port, users=users, beside=assistants)
    typer.echo(f"InstructCell is at {address}  (Ctrl+C stops it)")
    if mcp:
        typer.echo(f"Assistants find its tools at {address.rstrip('/')}/mcp; they open files of {folder.resolve()}.")
    if host not in LOOPBACK and not users:
        typer.echo(f"Whoever can reach this machine can use it: it listens on {host}. Use --auth.", err=True)
    wake_up(model, ready, llm)
    page.block_thread()


def wake_up(model: str, ready: Future[Sessions], llm: str | None = None) -> None:
    """Load what the first answers need while the page is up already; visitors wait for `ready`, which makes sessions.

    Raises
    ------
    CheckpointError
        There is no such checkpoint, or it cannot be used.
    """
    try:
        from instructcell.checkpoint import load_checkpoint
        from instructcell.session import Session

        checkpoint = load_checkpoint(model)
        Session(checkpoint=checkpoint).warm_up()
        make: Sessions = partial(_session, checkpoint=checkpoint, llm=llm)
    except Exception as error:
        ready.set_exception(error)
        raise
    ready.set_result(make)


def _session(folder: Path | None, *, checkpoint: Checkpoint, llm: str | None) -> Session:
    """A session of one visitor, which speaks through a chat model where one is named."""
    if llm is None:
        from instructcell.session import Session

        return Session(checkpoint=checkpoint, folder=folder)
    from instructcell.interop.agent import AgentSession

    return AgentSession(llm=llm, checkpoint=checkpoint, folder=folder)


def speaker_of(llm: str | None) -> str:
    """The chat model's name without keys; "" for the built-in session."""
    if llm is None:
        return ""
    from instructcell.interop.chat_models import name_of

    return name_of(llm)


def tools_over_http(ready: Future[Sessions], folder: Path, host: str, users: list[tuple[str, str]]) -> Starlette:
    """The tools for assistants, over files of their own; made once the checkpoint is loaded.

    Raises
    ------
    InstructCellError
        The package is not installed, or everybody who reaches this machine could read the folder.
    """
    if host not in LOOPBACK and not users:
        raise InstructCellError(
            f"--mcp at {host} would let everybody who reaches this machine open files of {folder.resolve()}; "
            "add --auth, or leave --host out"
        )
    try:
        from instructcell.interop.mcp import over_http
    except ImportError as error:
        raise InstructCellError(
            f"the package 'mcp' is not installed ({error}); run: pip install 'instructcell[mcp]'"
        ) from error
    session = cache(lambda: ready.result()(None))
    return over_http(session, folder, host=host, users=users)


def read_users(auth: str) -> list[tuple[str, str]]:
    """(name, password) of those who may come in, from "name:password" or from the lines of "@FILE".

    Raises
    ------
    AuthError
        Neither was given; the message never repeats a password.
    """
    if not auth.startswith("@"):
        return [name_and_password(auth)]
    try:
        lines = Path(auth[1:]).read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        what = f"cannot read the users of {auth[1:]}: {type(error).__name__}"
        raise AuthError(f"{what}; give --auth @FILE with a line name:password for each") from None
    users = [name_and_password(line.strip()) for line in lines if line.strip() and not line.startswith("#")]
    if not users:
        raise AuthError(f"{auth[1:]} names nobody; give --auth @FILE with a line name:password for each user")
    return users


def check_files(files: Sequence[Path]) -> None:
    """Raise unless each file is there and of a kind the chat takes."""
    for file in files:
        from chat_ui.handlers import check_upload

        if not file.exists():
            raise InstructCellError(f"there is no file {file}; give the path of a file of cells, or start without one")
        check_upload(file)


def name_and_password(auth: str) -> tuple[str, str]:
    """The two parts of "name:password".

    Raises
    ------
    AuthError
        One of them is missing; the message does not repeat what was given.
    """
    name, colon, password = auth.partition(":")
    if not (name and colon and password):
        missing = "a colon" if not colon else "a name before the colon" if not name else "a password behind the colon"
        raise AuthError(f"--auth (or {AUTH_VARIABLE}) lacks {missing}, expected name:password; give both")
    return name, password


def check_address(host: str, port: int) -> None:
    """Raise unless the page can listen at `host`:`port`.

    Raises
    ------
    AddressError
        Says what stands in the way and which port is free.
    """
    try:
        _listen_once(host, port)
    except socket.gaierror:
        raise AddressError(f"{host} is no address of this machine; use --host 127.0.0.1, or 0.0.0.0 for all.") from None
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            raise AddressError(
                f"port {port} on {host} is in use by another program. "
                f"Stop it, or choose another port: instructcell chat --port {free_port(host, port)}"
            ) from None
        if error.errno == errno.EACCES:
            raise AddressError(
                f"port {port} needs an administrator; choose one above 1023, such as --port 7860."
            ) from None
        raise AddressError(f"cannot serve at {host}:{port} ({error.strerror}); use --host 127.0.0.1.") from None


def free_port(host: str, after: int) -> int:
    """Return the first free port above `after`."""
    for port in range(after + 1, min(after + 100, 65536)):
        try:
            _listen_once(host, port)
        except OSError:
            continue
        return port
    with socket.socket() as free:
        free.bind((host, 0))
        return int(free.getsockname()[1])


def keep_uploads_apart() -> None:
    """Let uploads and downloads of this run lie in a folder of their own, deleted when the chat stops."""
    if UPLOAD_FOLDER not in os.environ:
        folder = tempfile.mkdtemp(prefix="instructcell-chat-")
        os.environ[UPLOAD_FOLDER] = folder
        atexit.register(shutil.rmtree, folder, ignore_errors=True)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))  # so that the folder also goes when the chat is told to stop


def _listen_once(host: str, port: int) -> None:
    family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
    with socket.socket(family, kind, protocol) as server:
        server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        server.bind(address)
        server.listen(1)
