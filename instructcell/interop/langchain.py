"""LangChain 1.x: the typed tools as its tools, the index as a retriever, the session as a chat model."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

from langchain_core.callbacks import CallbackManagerForLLMRun, CallbackManagerForRetrieverRun
from langchain_core.documents import Document
from langchain_core.language_models import BaseChatModel
from langchain_core.messages import AIMessage, AIMessageChunk, BaseMessage, HumanMessage
from langchain_core.outputs import ChatGeneration, ChatGenerationChunk, ChatResult
from langchain_core.retrievers import BaseRetriever
from langchain_core.tools import StructuredTool, ToolException
from pydantic import ConfigDict

from instructcell.errors import InstructCellError
from instructcell.events import Failed, Progress, TextDelta
from instructcell.interop.telling import as_text
from instructcell.retrieval import load_index
from instructcell.session import Session
from instructcell.toolbox import TOOLS, Toolbox
from instructcell.toolbox.arguments import problem
from instructcell.workspace import Result

OnProgress = Callable[[Progress], None]


def tools(box: Toolbox, on_progress: OnProgress | None = None) -> list[StructuredTool]:
    """The tools of a toolbox as LangChain tools.

    Parameters
    ----------
    box
        Whose files and results they work on; calls wait for each other.
    on_progress
        Told of the progress of long work.

    Returns
    -------
    list of StructuredTool
        Each gives JSON text, and the `Result` as its artifact; a mistake of the input becomes the tool's message.

    Examples
    --------
    >>> agent = create_agent("openai:gpt-5", tools(box))  # doctest: +SKIP
    """
    one_at_a_time = threading.Lock()

    def caller(name: str) -> Callable[..., tuple[str, Result]]:
        def call(**arguments: Any) -> tuple[str, Result]:
            with one_at_a_time:
                try:
                    result = _finish(box, name, arguments, on_progress)
                except InstructCellError as error:
                    raise ToolException(str(error)) from error
            return as_text(result), result

        return call

    return [
        StructuredTool(
            name=one.name,
            description=one.description,
            args_schema=one.arguments,
            func=caller(one.name),
            response_format="content_and_artifact",
            handle_tool_error=True,
            handle_validation_error=partial(_told_wrong, one.name),
        )
        for one in TOOLS.values()
    ]


def _told_wrong(name: str, error: Any) -> str:
    """What is wrong with the arguments of a call, for the model that wrote them."""
    return str(problem(name, error))


def _finish(box: Toolbox, name: str, arguments: dict[str, Any], on_progress: OnProgress | None) -> Result:
    steps = box.steps(name, **arguments)
    while True:
        try:
            progress = next(steps)
        except StopIteration as end:
            return end.value
        if on_progress is not None:
            on_progress(progress)


class MarkerRetriever(BaseRetriever):
    """Marker sets, gene functions and cell type definitions as documents; `metadata` holds their source and nearness.

    `k`: the most documents. `kind`: "markers", "gene" or "ontology" for one kind only.

    Examples
    --------
    >>> MarkerRetriever(k=1).invoke("what marks a delta cell?")[0].metadata["title"]
    'pancreatic D cell'
    """

    k: int = 8
    kind: str | None = None

    def _get_relevant_documents(self, query: str, *, run_manager: CallbackManagerForRetrieverRun) -> list[Document]:
        found = load_index().search(query, self.k, self.kind)  # type: ignore[arg-type]
        return [
            Document(
                page_content=one.text,
                id=f"{one.kind}:{one.id}",
                metadata={
                    "kind": one.kind,
                    "id": one.id,
                    "title": one.title,
                    "source": one.source,
                    "score": one.score,
                    "genes": list(one.genes),
                },
            )
            for one in found
        ]


class InstructCellChat(BaseChatModel):
    """The session as a chat model: the last message of the user is answered, streamed as it is written.

    The session remembers the conversation itself. What stands behind an answer is in `response_metadata["results"]`:
    ids of results in `session.workspace`.

    Examples
    --------
    >>> InstructCellChat(session=Session(adata)).invoke("Which cell types are these?").content  # doctest: +SKIP
    """

    model_config = ConfigDict(arbitrary_types_allowed=True)
    session: Session

    @property
    def _llm_type(self) -> str:
        return "instructcell"

    def _generate(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: CallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> ChatResult:
        text = "".join(str(chunk.message.content) for chunk in self._stream(messages, stop, run_manager))
        message = AIMessage(text, response_metadata=self._metadata())
        return ChatResult(generations=[ChatGeneration(message=message)])

    def _stream(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: CallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> Iterator[ChatGenerationChunk]:
        for event in self.session.send(_question(messages)):
            if isinstance(event, Failed):
                raise InstructCellError(f"{event.message} {event.remedy}".strip())
            if isinstance(event, TextDelta) and event.text:
                chunk = ChatGenerationChunk(message=AIMessageChunk(content=event.text))
                if run_manager is not None:
                    run_manager.on_llm_new_token(event.text, chunk=chunk)
                yield chunk
        yield ChatGenerationChunk(message=AIMessageChunk(content="", response_metadata=self._metadata()))

    def _metadata(self) -> dict[str, Any]:
        turn = self.session.history[-1]
        return {"model_name": "instructcell", "results": [result.id for result in turn.results if result.id]}


def _question(messages: list[BaseMessage]) -> str:
    """The text of the user's last message."""
    asked = [message for message in messages if isinstance(message, HumanMessage)]
    if not asked:
        raise InstructCellError("found no message of a user, expected a question as the last one")
    return str(asked[-1].text)
