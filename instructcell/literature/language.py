"""A generative language model that chooses among options: a local folder, or an OpenAI-compatible endpoint.

A local model is held to the options: the one whose text it finds likeliest is its answer. An endpoint answers in words,
and the option that its words name counts.
"""

from __future__ import annotations

import inspect
import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import torch
import torch.nn.functional as F

from instructcell.errors import LanguageModelError

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

API_KEY = "INSTRUCTCELL_LLM_KEY"  # environment variable with the key of an endpoint
TIMEOUT = 120.0  # seconds
CAUSAL = ("ForCausalLM", "LMHeadModel")


class LanguageModel(Protocol):
    """What chooses one of several options."""

    name: str

    def choose(self, prompt: str, options: Sequence[str]) -> int | None:
        """Position of the chosen option; None when the answer names none of them."""
        ...


class LocalLanguageModel:
    """A causal language model from a folder or hub id.

    Raises
    ------
    LanguageModelError
        There is no model, or it is no causal one.
    """

    def __init__(self, folder: str | Path, device: str | torch.device | None = None) -> None:
        self.model, self.tokenizer = load_causal_lm(folder)
        to_device(self.model, device).eval()
        self.name = Path(folder).name

    def choose(self, prompt: str, options: Sequence[str]) -> int:
        text = _chat_text(self.tokenizer, prompt)
        return int(score_options(self.model, self.tokenizer, text, options).argmax())


class Endpoint:
    """A chat model behind an OpenAI-compatible address; the key, if one is needed, is in INSTRUCTCELL_LLM_KEY.

    Parameters
    ----------
    url
        Up to and with the version, such as http://localhost:8000/v1.
    transport
        Of httpx, for tests.
    """

    def __init__(self, url: str, model: str, *, timeout: float = TIMEOUT, transport: Any = None) -> None:
        import httpx

        key = os.environ.get(API_KEY)
        headers = {"Authorization": f"Bearer {key}"} if key else {}
        self.url, self.name = url.rstrip("/"), model
        self._client = httpx.Client(timeout=timeout, headers=headers, transport=transport)

    def choose(self, prompt: str, options: Sequence[str]) -> int | None:
        return named_option(self.reply(prompt), options)

    def reply(self, prompt: str) -> str:
        """The model's words.

        Raises
        ------
        LanguageModelError
            Nothing answers, the model is not known, the prompt is too long, or the answer cannot be read.
        """
        import httpx

        content = {"model": self.name, "messages": [{"role": "user", "content": prompt}], "temperature": 0}
        try:
            answer = self._client.post(f"{self.url}/chat/completions", json=content)
        except (httpx.TransportError, httpx.InvalidURL) as error:
            raise LanguageModelError(
                f"no language model answers at {self.url} ({error or type(error).__name__}); start it, or name another "
                "endpoint or a local folder"
            ) from error
        if answer.status_code >= 400:
            raise LanguageModelError(_refusal(self.url, self.name, answer.status_code, answer.text, prompt))
        try:
            return str(answer.json()["choices"][0]["message"]["content"])
        except (ValueError, LookupError, TypeError) as error:
            raise LanguageModelError(
                f"{self.url} answered something that is no chat completion: {answer.text[:120]!r}; expected an "
                "OpenAI-compatible endpoint, its address usually ends with /v1"
            ) from error


def _refusal(url: str, model: str, status: int, text: str, prompt: str) -> str:
    said = " ".join(text.split())[:200]
    if "context" in said.lower() and status in (400, 413, 422):
        return (
            f"the model {model} at {url} cannot read a prompt of {len(prompt.split()):,} words: {said}. Name fewer "
            "genes per cell, or use a model with a longer context."
        )
    hint = {401: f"set the key in {API_KEY}", 403: f"set the key in {API_KEY}", 404: "check the address and the model"}
    return f"{url} refused the model {model} with status {status}: {said}; {hint.get(status, 'try again later')}"


def named_option(text: str, options: Sequence[str]) -> int | None:
    """The option that a reply names: its whole text, else the only one, or the longest, that stands in it."""
    said = text.strip().strip(".\"'` ").casefold()
    folded = [option.casefold() for option in options]
    if said in folded:
        return folded.index(said)
    inside = [i for i, option in enumerate(folded) if re.search(rf"(?<!\w){re.escape(option)}(?!\w)", said)]
    # "T cell" also stands in "regulatory T cell"
    longest = [i for i in inside if not any(folded[i] in folded[j] for j in inside if j != i)]
    return longest[0] if len(longest) == 1 else None


def open_language_model(name: str | Path, url: str | None = None) -> LanguageModel:
    """A model behind `url`, or in the folder `name`."""
    return Endpoint(url, str(name)) if url else LocalLanguageModel(name)


# ---- local causal models


def load_causal_lm(folder: str | Path) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """A causal language model and its tokenizer from a folder or hub id.

    Raises
    ------
    LanguageModelError
        There is no model, or it is of another kind.
    """
    from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

    try:
        config = AutoConfig.from_pretrained(folder)
    except (OSError, ValueError, KeyError) as error:
        first = str(error).strip().splitlines()[0]
        raise LanguageModelError(
            f"found no language model at {folder} ({first}); give a folder with config.json, weights and tokenizer, "
            "or a hub id such as Qwen/Qwen3-0.6B"
        ) from error
    kinds = config.architectures or []
    if not any(kind.endswith(CAUSAL) for kind in kinds):
        raise LanguageModelError(
            f"{folder} holds a {', '.join(kinds) or config.model_type}, expected a causal language model (Qwen, Llama, "
            "Pythia and others whose architecture ends with ForCausalLM)"
        )
    tokenizer = AutoTokenizer.from_pretrained(folder)
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token
    return AutoModelForCausalLM.from_pretrained(folder), tokenizer


def to_device(model: PreTrainedModel, device: str | torch.device | None = None) -> PreTrainedModel:
    """The model where it is wanted, by default on the GPU where there is one."""
    chosen: Any = device or ("cuda" if torch.cuda.is_available() else "cpu")
    return model.to(chosen)


def context_of(model: PreTrainedModel) -> int | None:
    """Tokens that a model can read; None when its config does not say."""
    return getattr(model.config.get_text_config(), "max_position_embeddings", None)


def require_context(model: PreTrainedModel, n_tokens: int, what: str = "the prompt") -> None:
    """A LanguageModelError when so many tokens are more than the model can read."""
    limit = context_of(model)
    if limit is not None and n_tokens > limit:
        raise LanguageModelError(
            f"{what} takes {n_tokens:,} tokens, and the model reads at most {limit:,}; name fewer genes per cell "
            "(n_genes) or use a model with a longer context"
        )


@torch.inference_mode()
def score_options(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, prompt: str, options: Sequence[str]
) -> torch.Tensor:
    """Log probability of each option as the whole answer to a prompt [L].

    The prompt is read once, then all options in one row, in which each sees the prompt and itself.

    Raises
    ------
    LanguageModelError
        Prompt and answer are longer than the model can read.
    """
    asked = tokenizer(prompt, return_tensors="pt")["input_ids"].to(model.device)  # [1, T]
    answers = [answer_ids(tokenizer, option) for option in options]
    require_context(model, asked.shape[1] + max(map(len, answers)))
    read = model(input_ids=asked, use_cache=True, **_last_logits(model))
    option = torch.tensor([row for row, ids in enumerate(answers) for _ in ids[1:]], device=model.device)  # [A]
    place = torch.tensor([i for ids in answers for i in range(len(ids) - 1)], device=model.device)  # [A] in its option
    given = torch.tensor([token for ids in answers for token in ids[:-1]], device=model.device)  # [A]
    wanted = torch.tensor([token for ids in answers for token in ids[1:]], device=model.device)  # [A]
    own = (option[:, None] == option) & (place[:, None] >= place)  # [A, A]
    seen = torch.cat([own.new_ones(len(own), asked.shape[1]), own], dim=1)  # [A, T + A]
    rest = model(
        input_ids=given[None],
        past_key_values=read.past_key_values,
        attention_mask=torch.where(seen, 0.0, torch.finfo(model.dtype).min).to(model.dtype)[None, None],
        position_ids=(asked.shape[1] + place)[None],
        use_cache=True,
    ).logits[0]
    first = F.log_softmax(read.logits[0, -1].float(), dim=-1)[[ids[0] for ids in answers]]  # [L]
    later = F.log_softmax(rest.float(), dim=-1).gather(-1, wanted[:, None])[:, 0]  # [A]
    return first.index_add(0, option, later).cpu()


def _last_logits(model: PreTrainedModel) -> dict[str, int]:
    """What keeps a model from scoring its vocabulary at every place of a prompt, where it can be told."""
    return {"logits_to_keep": 1} if "logits_to_keep" in inspect.signature(model.forward).parameters else {}


def answer_ids(tokenizer: PreTrainedTokenizerBase, answer: str) -> list[int]:
    """Tokens of an answer after a prompt, with the end."""
    return [*tokenizer(f" {answer}", add_special_tokens=False)["input_ids"], tokenizer.eos_token_id]


def _chat_text(tokenizer: PreTrainedTokenizerBase, prompt: str) -> str:
    """A prompt as a chat model expects it."""
    if not tokenizer.chat_template:
        return prompt
    message = [{"role": "user", "content": prompt}]
    return str(tokenizer.apply_chat_template(message, tokenize=False, add_generation_prompt=True))
