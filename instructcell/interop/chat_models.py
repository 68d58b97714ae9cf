"""The chat model that a session may speak through: any that LangChain knows, or a server of one's own."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING
from urllib.parse import unquote, urldefrag, urlsplit

import httpx

from instructcell.errors import ConfigError

if TYPE_CHECKING:
    from langchain_core.language_models import BaseChatModel

EXTRA = "pip install 'instructcell[agent]'"
NO_KEY = "none"  # local servers ask for some key and look at none
TIMEOUT = 120.0  # seconds that a server may take for one answer


def open_chat_model(llm: str | BaseChatModel) -> BaseChatModel:
    """The chat model that `llm` names.

    Parameters
    ----------
    llm
        "provider:model" as LangChain writes it ("openai:gpt-5", "ollama:qwen3"), its key being read from the provider's
        environment variable; or the address of an OpenAI-compatible server, with the model's name behind "#"
        ("http://127.0.0.1:8080/v1#qwen3"); or a chat model, which is returned as it is.

    Raises
    ------
    ConfigError
        It names no model, or the package of its provider is not installed.
    """
    if not isinstance(llm, str):
        return llm
    try:
        if urlsplit(llm).scheme in ("http", "https"):
            from langchain_openai import ChatOpenAI
            from pydantic import SecretStr

            address, name = urldefrag(llm)
            address, client = _without_password(address)
            key = SecretStr(os.environ.get("OPENAI_API_KEY", NO_KEY))
            return ChatOpenAI(
                model=name or "default",
                base_url=address,
                api_key=key,
                temperature=0,
                timeout=TIMEOUT,
                max_retries=0,
                http_client=client,
            )
        from langchain.chat_models import init_chat_model

        return init_chat_model(llm)
    except ImportError as error:
        raise ConfigError(
            f"--llm {name_of(llm)} needs a package that is not installed ({error}); run: {EXTRA}"
        ) from error
    except ValueError as error:
        why = _first_line(error).replace(llm, name_of(llm))  # which never shows a password
        raise ConfigError(
            f"found --llm {name_of(llm)!r}, expected 'provider:model' such as openai:gpt-5, or the address of an "
            f"OpenAI-compatible server such as http://127.0.0.1:8080/v1#model ({why})"
        ) from error


def name_of(llm: str | BaseChatModel) -> str:
    """What a chat model is called in a message: never a key, never what stands before "@" in an address."""
    if not isinstance(llm, str):
        return str(getattr(llm, "model_name", None) or type(llm).__name__)
    parts = urlsplit(llm)
    return llm if "@" not in parts.netloc else llm.replace(parts.netloc, parts.netloc.rpartition("@")[2])


def _without_password(address: str) -> tuple[str, httpx.Client | None]:
    """An address without "name:password@", which would stand in logs of requests, and a client that sends them."""
    parts = urlsplit(address)
    if parts.username is None:
        return address, None
    bare = parts._replace(netloc=parts.netloc.rpartition("@")[2]).geturl()
    return bare, httpx.Client(auth=(unquote(parts.username), unquote(parts.password or "")), timeout=TIMEOUT)


def _first_line(error: Exception) -> str:
    return str(error).strip().splitlines()[0][:200] if str(error).strip() else type(error).__name__
