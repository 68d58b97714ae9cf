"""Which intent a sentence has by its meaning: the sentence encoder, tuned on exemplar phrasings, and a linear read-out.

The exemplars are those of `resources/intents.tsv`, written by hand with the intent of the turn before where they go on
from one, and of `resources/requests.tsv`, rendered by the phrasing grammar of training (`python -m train.requests`)
without the phrasings that are kept for evaluation. `python -m train.router` tunes on them: low-rank changes of
all-MiniLM-L6-v2 (Hu et al. 2021), which `resources/router.safetensors` keeps beside the read-out.
"""

from __future__ import annotations

import csv
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import TYPE_CHECKING, Protocol

import numpy as np
from rapidfuzz import fuzz, process

from instructcell.errors import ResourceError
from instructcell.requests import INTENTS
from instructcell.resources import RESOURCES
from instructcell.retrieval.sentence_encoder import WEIGHTS_SHA256, load_encoder_parts

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

WEIGHTS = RESOURCES / "router.safetensors"
EXEMPLARS, REQUESTS = "intents.tsv", "requests.tsv"
MAX_TOKENS = 64  # of a sentence and the intent before it
TARGETS = ("query", "key", "value", "dense")  # the layers that are tuned
SPELLED = 75  # rapidfuzz ratio from which an unknown word is a known one with a typing error
DRUG_LIKE = re.compile(r"(?:nib|mab|lib|mus|cin|platin|taxel|rafenib)$")  # a near drug is asked back about, not mended


@dataclass(frozen=True)
class Exemplar:
    """A sentence, its intent, and the intent of the turn that it goes on from; "" when it stands for itself."""

    intent: str
    text: str
    previous: str = ""


class Reader(Protocol):
    """Says how likely each intent is."""

    @property
    def intents(self) -> Sequence[str]:
        """Names of the columns."""
        ...

    def chances(self, texts: Sequence[str], previous: str = "") -> np.ndarray:
        """Texts (n of them) after a turn of the intent `previous` -> probabilities [n, intents]."""
        ...


class TunedReader:
    """The tuned encoder and its read-out.

    Parameters
    ----------
    tokenizer, model
        Of the encoder, the low-rank changes added to its weights.
    weight, bias
        Of the read-out [I, D], [I].
    intents
        Names of its rows.
    temperature
        The scores are divided by it.
    """

    def __init__(
        self,
        tokenizer: PreTrainedTokenizerBase,
        model: PreTrainedModel,
        weight: torch.Tensor,
        bias: torch.Tensor,
        intents: Sequence[str],
        temperature: float = 1.0,
    ) -> None:
        self.tokenizer, self.model = tokenizer, model.eval()
        self.weight, self.bias, self.intents, self.temperature = weight, bias, tuple(intents), temperature

    def chances(self, texts: Sequence[str], previous: str = "") -> np.ndarray:
        """Texts (n of them) after a turn of the intent `previous` -> probabilities [n, intents]."""
        import torch

        with torch.inference_mode():
            vectors = embed(self.model, encoded(self.tokenizer, texts, [previous] * len(texts)))  # [n, D]
            scores = vectors @ self.weight.T + self.bias
            return (scores / self.temperature).softmax(dim=-1).numpy()


class Spelling:
    """Typing errors are mended by the words of exemplars.

    Parameters
    ----------
    exemplars
        Rightly spelled sentences, whose words are known.
    """

    def __init__(self, exemplars: Sequence[str]) -> None:
        self.texts = list(exemplars)

    def spelled(self, text: str) -> str:
        """The text with words that no exemplar has replaced by the one they nearly are: "wich cel" -> "which cell"."""
        return re.sub(r"[A-Za-z]{3,}", lambda match: self._known_word(match[0]), text)

    def _known_word(self, word: str) -> str:
        low = word.lower()
        if low in self._vocabulary or word.isupper():
            return word
        near = process.extractOne(low, self._common, scorer=fuzz.ratio, score_cutoff=SPELLED)
        return word if near is None else near[0]

    @cached_property
    def common(self) -> frozenset[str]:
        """Words of the exemplars that are no typing errors, as they occur more than once, and no drug's name."""
        return frozenset(word for word in self._common if not DRUG_LIKE.search(word))

    @cached_property
    def _vocabulary(self) -> Counter[str]:
        """Words of the exemplars with how often they occur."""
        return Counter(re.findall(r"[a-z]+", " ".join(self.texts).lower()))

    @cached_property
    def _common(self) -> list[str]:
        """Words that occur more than once: a typing error in an exemplar is none of them."""
        return [word for word, n in self._vocabulary.most_common() if n > 1 and len(word) > 2]


class Router(Spelling):
    """Intent recognition.

    Parameters
    ----------
    reader
        Texts -> probabilities of intents.
    exemplars
        Rightly spelled sentences, whose words are known.
    """

    def __init__(self, reader: Reader, exemplars: Sequence[str]) -> None:
        super().__init__(exemplars)
        self.reader = reader

    def votes(self, *texts: str, previous: str = "") -> list[tuple[str, float]]:
        """Intents with their probability, the likeliest first; the mean over several wordings of one sentence."""
        chances = self.reader.chances(texts, previous).mean(axis=0)
        order = np.argsort(-chances, kind="stable")
        return [(self.reader.intents[at], float(chances[at])) for at in order]


# ---- the tuned encoder


def encoded(
    tokenizer: PreTrainedTokenizerBase, texts: Sequence[str], previous: Sequence[str]
) -> dict[str, torch.Tensor]:
    """Sentences as the encoder takes them, each behind the intent of the turn before it."""
    before = [f"after {intent.replace('_', ' ')}" if intent else "first" for intent in previous]
    return dict(
        tokenizer(
            before, list(texts), padding=True, truncation="only_second", max_length=MAX_TOKENS, return_tensors="pt"
        )
    )


def embed(model: torch.nn.Module, tokens: dict[str, torch.Tensor]) -> torch.Tensor:
    """The mean of the encoder's last states [n, D]."""
    mask = tokens["attention_mask"].unsqueeze(-1).float()
    return (model(**tokens).last_hidden_state * mask).sum(dim=1) / mask.sum(dim=1)


@lru_cache(maxsize=1)
def load_router() -> Router:
    """The shipped router; loaded once per process.

    Raises
    ------
    ResourceError
        The weights are missing or belong to another encoder.
    """
    return Router(load_reader(), [exemplar.text for exemplar in read_exemplars()])


def load_reader() -> TunedReader:
    """The tuned encoder: its low-rank changes are added to the weights of the installed encoder."""
    from safetensors import safe_open

    tokenizer, model = load_encoder_parts()
    try:
        with safe_open(WEIGHTS, framework="pt") as file:
            about = file.metadata()
            kept = {name: file.get_tensor(name).float() for name in file.keys()}  # noqa: SIM118 - no mapping
    except OSError as error:
        raise ResourceError(
            f"{WEIGHTS.name} is missing from instructcell/resources; install InstructCell again"
        ) from error
    if about["encoder"] != WEIGHTS_SHA256:
        raise ResourceError(
            f"{WEIGHTS.name} was tuned for the sentence encoder {about['encoder'][:12]}, the installed one is "
            f"{WEIGHTS_SHA256[:12]}; run `python -m train.router`"
        )
    intents = about["intents"].split()
    if strange := sorted(set(intents) - set(INTENTS)):
        raise ResourceError(f"{WEIGHTS.name} names unknown intents: {', '.join(strange)}; run `python -m train.router`")
    _add(model, kept, float(about["scale"]))
    return TunedReader(tokenizer, model, kept["weight"], kept["bias"], intents, float(about["temperature"]))


def _add(model: PreTrainedModel, kept: dict[str, torch.Tensor], scale: float) -> None:
    """Add the low-rank changes B A to the weights they belong to."""
    import torch

    with torch.no_grad():
        for name, module in model.named_modules():
            if f"{name}.A" in kept:
                module.weight += scale * kept[f"{name}.B"] @ kept[f"{name}.A"]


# ---- exemplars


def read_exemplars(name: str = EXEMPLARS) -> list[Exemplar]:
    """The sentences of a table of the resources.

    Raises
    ------
    ResourceError
        The table is missing or names an intent that is none.
    """
    try:
        with (RESOURCES / name).open(encoding="utf-8", newline="") as file:
            rows = [
                Exemplar(row["intent"], row["text"], row.get("previous") or "")
                for row in csv.DictReader(file, delimiter="\t", quoting=csv.QUOTE_NONE)
            ]
    except FileNotFoundError as error:
        raise ResourceError(f"{name} is missing from instructcell/resources; install InstructCell again") from error
    named = {exemplar.intent for exemplar in rows} | {exemplar.previous for exemplar in rows if exemplar.previous}
    if strange := sorted(named - set(INTENTS)):
        raise ResourceError(f"{name} names unknown intents: {', '.join(strange)}; expected {', '.join(INTENTS)}")
    return rows
