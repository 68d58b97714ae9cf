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
from collections.abc import Callable
from concurrent.futures import Future
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from instructcell.errors import InstructCellError

if TYPE_CHECKING:
    from instructcell.session import Session

LOOPBACK = ("127.0.0.1", "localhost", "::1")
AUTH_VARIABLE = "INSTRUCTCELL_AUTH"
UPLOAD_FOLDER = "GRADIO_TEMP_DIR"  # the variable from which Gradio learns where uploads go


class AddressError(InstructCellError):
    """The page cannot be served at the address that was asked for."""


class AuthError(InstructCellError):
    """The name and password that visitors must give cannot be used; the message never repeats them."""


File = Annotated[Path | None, typer.Argument(metavar="FILE", help="Cells to open with.", show_default=False)]
Model = Annotated[str, typer.Option("--model", help="Checkpoint: the name of a shipped one, a folder or a hub id.")]
Host = Annotated[str, typer.Option("--host", help="Address to serve at; 0.0.0.0 lets other machines in.")]
Port = Annotated[int, typer.Option("--port", min=1, max=65535, help="Port to serve at.")]
Auth = Annotated[
    str | None,
    typer.Option(
        "--auth",
        envvar=AUTH_VARIABLE,
        show_default=False,
        help="name:password that visitors must give; on a shared machine set the variable, which process lists omit.",
    ),
]


def chat(
    file: File = None, model: Model = "mini", host: Host = "127.0.0.1", port: Port = 7860, auth: Auth = None
) -> None:
    """Open the chat in the browser: upload cells, ask, see answers.

    \b
    Example:
      instructcell chat cells.h5ad --port 7861
    """
    account = None if auth is None else name_and_password(auth)
    check_address(host, port)
    if file is not None:
        from chat_ui.handlers import check_upload

        if not file.exists():
            raise InstructCellError(f"there is no file {file}; give the path of a file of cells, or start without one")
        check_upload(file)
    keep_uploads_apart()
    ready: Future[Callable[[Path], Session]] = Future()
    from chat_ui.app import build_page, demo_examples, serve

    page = build_page(lambda folder: ready.result()(folder), demo_examples(), file)
    address = serve(page, host=host, port=port, auth=account)
    typer.echo(f"InstructCell is at {address}  (Ctrl+C stops it)")
    if host not in LOOPBACK and account is None:
        typer.echo(f"Whoever can reach this machine can use it: it listens on {host}. Use --auth.", err=True)
    wake_up(model, ready)
    page.block_thread()


def wake_up(model: str, ready: Future[Callable[[Path], Session]]) -> None:
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
    except Exception as error:
        ready.set_exception(error)
        raise
    ready.set_result(lambda folder: Session(checkpoint=checkpoint, folder=folder))


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
