"""The toolbox for other programs: LangChain, agents with a chat model of one's own, and MCP.

    tools(box), MarkerRetriever(), InstructCellChat(session=...)    for LangChain 1.x (extra `agent`)
    AgentSession(adata, llm="openai:gpt-5")                         a session that speaks through a chat model
    serve(box)                                                      an MCP server (extra `mcp`)

The packages behind them are extras and are imported when a name is first used.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from instructcell.interop.agent import AgentSession
    from instructcell.interop.chat_models import open_chat_model
    from instructcell.interop.langchain import InstructCellChat, MarkerRetriever, tools
    from instructcell.interop.mcp import make_server, serve

__all__ = [
    "AgentSession",
    "InstructCellChat",
    "MarkerRetriever",
    "make_server",
    "open_chat_model",
    "serve",
    "tools",
]

_ROOMS = {
    "agent": ("AgentSession",),
    "chat_models": ("open_chat_model",),
    "langchain": ("InstructCellChat", "MarkerRetriever", "tools"),
    "mcp": ("make_server", "serve"),
}
_HOME = {name: room for room, names in _ROOMS.items() for name in names}


def __getattr__(name: str) -> Any:
    if name in _HOME:
        return getattr(importlib.import_module(f"instructcell.interop.{_HOME[name]}"), name)
    raise AttributeError(f"module 'instructcell.interop' has no attribute '{name}'")


def __dir__() -> list[str]:
    return sorted(__all__)
