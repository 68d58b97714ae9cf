"""Named HTTP endpoints beside the page: a program opens a file, asks, calls tools and fetches files.

    client = gradio_client.Client("http://127.0.0.1:7860")
    client.predict(handle_file("cells.h5ad"), api_name="/open_file")
    client.predict("Which cell types are these?", api_name="/ask")

Every client has a session of its own, as every visitor of the page has; user mistakes come back as one sentence.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gradio as gr

from chat_ui import handlers
from chat_ui.handlers import MAX_QUESTION_CHARACTERS, Conversation
from instructcell.errors import InstructCellError
from instructcell.events import Progress, TextDelta
from instructcell.interop.telling import told
from instructcell.reply import Reply
from instructcell.toolbox import TOOLS
from instructcell.toolbox.data import opened

logger = logging.getLogger(__name__)

Open = Callable[[], Conversation]


@dataclass(frozen=True)
class Api:
    """What the endpoints do; `open_conversation` makes a conversation for a client that has none yet."""

    open_conversation: Open

    def open_file(self, conversation: Conversation | None, file: str, name: str) -> tuple[Conversation, dict[str, Any]]:
        """Read an uploaded file of cells; the questions that follow are about it."""
        conversation = self._of(conversation)
        with _spoken(), conversation.turn:
            if not file:
                raise InstructCellError("found no file; upload one, with gradio_client: handle_file('cells.h5ad')")
            (path,) = handlers.gather(conversation, [Path(file)])
            handlers.check_upload(path)
            (read,) = conversation.pace(
                conversation.session.open(path, name or path.name, replace_file=True) for _ in range(1)
            )
            return conversation, told(opened(read))

    def ask(
        self, conversation: Conversation | None, question: str
    ) -> Iterator[tuple[Conversation, dict[str, Any]]]:
        """Answer a question: the answer as it grows, then the whole of it with its tables and evidence."""
        conversation = self._of(conversation)
        with _spoken(), conversation.turn:
            if len(question) > MAX_QUESTION_CHARACTERS:
                raise InstructCellError(
                    f"the question has {len(question):,} characters, expected at most {MAX_QUESTION_CHARACTERS:,}"
                )
            reply = Reply()
            for event in conversation.pace(conversation.session.send(question)):
                reply.hear(event)
                if isinstance(event, TextDelta):
                    yield conversation, {"answer": reply.text}
                elif isinstance(event, Progress):
                    yield conversation, {"answer": reply.text, "progress": [event.done, event.total, event.what]}
            yield conversation, reply.to_dict()

    def call_tool(
        self, conversation: Conversation | None, tool: str, arguments: dict[str, Any] | None
    ) -> Iterator[tuple[Conversation, dict[str, Any]]]:
        """Call one typed tool; its progress, then its result as the MCP server tells it."""
        conversation = self._of(conversation)
        with _spoken(), conversation.turn:
            if not isinstance(arguments or {}, dict):
                raise InstructCellError(f"found arguments of type {type(arguments).__name__}, expected a JSON object")
            steps = _Kept(conversation.session.toolbox.steps(tool, **(arguments or {})))
            for step in conversation.pace(steps):
                yield conversation, {"progress": [step.done, step.total, step.what]}
            yield conversation, told(steps.result)

    def list_tools(self) -> list[dict[str, Any]]:
        """Every tool: its name, what it does and the JSON schema of its arguments."""
        return [one.schema() for one in TOOLS.values()]

    def export(self, conversation: Conversation | None, what: str) -> tuple[Conversation, list[str]]:
        """Files to take away: all, annotated, pseudo, tables or script."""
        conversation = self._of(conversation)
        with _spoken(), conversation.turn:
            (result,) = conversation.pace(
                conversation.session.toolbox.run("export", what=what or "all") for _ in range(1)
            )
            return conversation, [str(path) for path in result.payload]

    def _of(self, conversation: Conversation | None) -> Conversation:
        return self.open_conversation() if conversation is None else conversation


class _Kept:
    """The steps of a tool, and its result once they are through."""

    def __init__(self, steps: Any) -> None:
        self.steps, self.result = steps, None

    def __iter__(self) -> Iterator[Progress]:
        self.result = yield from self.steps


def add_endpoints(state: gr.State, open_conversation: Open) -> None:
    """Put the endpoints beside the widgets of the page that is being built; `state` holds a visitor's conversation."""
    api = Api(open_conversation)
    file, files = gr.File(visible=False), gr.File(visible=False, file_count="multiple")
    name, question, tool, what = (gr.Textbox("", visible=False) for _ in range(4))
    arguments, answer = gr.JSON({}, visible=False), gr.JSON(visible=False)

    def endpoint(call: Callable[..., Any], takes: list[Any], gives: list[Any]) -> None:
        gr.Button(visible=False).click(
            call, takes, gives, api_name=call.__name__, api_description=call.__doc__, show_progress="hidden"
        )

    endpoint(api.open_file, [state, file, name], [state, answer])
    endpoint(api.ask, [state, question], [state, answer])
    endpoint(api.call_tool, [state, tool, arguments], [state, answer])
    endpoint(api.list_tools, [], [answer])
    endpoint(api.export, [state, what], [state, files])


@contextmanager
def _spoken() -> Iterator[None]:
    """A mistake of the input becomes the endpoint's error message; a bug of ours says only its kind."""
    try:
        yield
    except InstructCellError as error:
        raise gr.Error(str(error), print_exception=False) from error
    except Exception as error:  # noqa: BLE001 - a client must get an answer, and the traceback stays here
        logger.exception("an endpoint failed")
        raise gr.Error(f"Something went wrong on our side ({type(error).__name__})", print_exception=False) from error
