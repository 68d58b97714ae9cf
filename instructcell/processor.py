"""From prompts and answers to token ids: the tokenizer, the gene vocabulary and the places of cells in text.

A `Prompt` is text with places for cells, an `Answer` is text with places for signals. Only this module knows how many
tokens a cell takes. Text is encoded with special tokens off, so that a typed "<CELL>" stays text; the special tokens
come from `CELL` and `SIGNAL` parts alone.
"""

from __future__ import annotations

import csv
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers
from torch import Tensor
from transformers import (
    AutoConfig,
    AutoProcessor,
    AutoTokenizer,
    BatchFeature,
    PretrainedConfig,
    PreTrainedTokenizerBase,
    PreTrainedTokenizerFast,
    ProcessorMixin,
)
from transformers.utils import cached_file

from instructcell.config import InstructCellConfig
from instructcell.errors import CheckpointError, ConfigError
from instructcell.tokens import CELL_TOKEN, SIGNAL_TOKEN, SPECIAL_TOKENS

GENES_FILE = "genes.tsv"
CELLS_FIELD = "{cells}"  # where a template of ours wants its cells
IGNORED_LABEL = -100  # label of a token that takes no part in the loss


class Placeholder(Enum):
    """A place in a text that is no text."""

    CELL = CELL_TOKEN
    SIGNAL = SIGNAL_TOKEN

    def __repr__(self) -> str:
        return self.name


CELL = Placeholder.CELL
SIGNAL = Placeholder.SIGNAL


def _check_parts(parts: tuple[str | Placeholder, ...], allowed: Placeholder) -> None:
    for part in parts:
        if not isinstance(part, str) and part is not allowed:
            raise TypeError(f"parts are text or {allowed!r}, found {part!r}")


@dataclass(frozen=True)
class Prompt:
    """A question with places for cells, e.g. ``Prompt(("which type is ", CELL, "?"))``."""

    parts: tuple[str | Placeholder, ...]

    def __post_init__(self) -> None:
        _check_parts(self.parts, CELL)

    @classmethod
    def parse(cls, template: str, n_cells: int = 1) -> Prompt:
        """Put `n_cells` places for cells where a template of ours says "{cells}"; never for text that a user typed.

        >>> Prompt.parse("annotate: {cells}", n_cells=2)
        Prompt(parts=('annotate: ', CELL, CELL))
        """
        parts: list[str | Placeholder] = []
        for i, text in enumerate(template.split(CELLS_FIELD)):
            parts += [CELL] * (n_cells if i else 0)
            parts += [text] if text else []
        return cls(tuple(parts))

    @classmethod
    def about(cls, question: str, n_cells: int = 0) -> Prompt:
        """A user's question, any text, followed by places for `n_cells` cells."""
        return cls((f"{question.rstrip()} ", *[CELL] * n_cells) if n_cells else (question,))

    @property
    def n_cells(self) -> int:
        return sum(part is CELL for part in self.parts)


@dataclass(frozen=True)
class Answer:
    """An answer with places for pseudo-cells, e.g. ``Answer(("a B cell: ", SIGNAL))``."""

    parts: tuple[str | Placeholder, ...]

    def __post_init__(self) -> None:
        _check_parts(self.parts, SIGNAL)

    @classmethod
    def of(cls, text: str) -> Answer:
        return cls((text,))

    @property
    def n_signals(self) -> int:
        return sum(part is SIGNAL for part in self.parts)


class InstructCellProcessor(ProcessorMixin):
    """Tokenizer + gene vocabulary.

    Parameters
    ----------
    tokenizer
        A fast tokenizer with pad and eos tokens; the two special tokens are added if it lacks them.
    genes
        Human HGNC symbols in the order of the model's counts.
    ensembl_ids
        One Ensembl gene id per symbol, "" where none is known.
    n_embeddings
        K: how many tokens one cell becomes.
    is_encoder_decoder
        Whether answers are labels of their own (T5) or follow the prompt (causal models).
    lowercase_instructions
        Lower-case prompts, for a backbone trained from scratch; answers keep their case.
    prompt_prefix, prompt_suffix
        Text of ours around each prompt; special tokens are read in it (chat templates, the eos of a T5 prompt).

    Examples
    --------
    >>> batch = processor([Prompt.parse("annotate: {cells}")], [Answer.of("B cell")])  # doctest: +SKIP
    >>> sorted(batch)  # doctest: +SKIP
    ['attention_mask', 'input_ids', 'labels']
    """

    def __init__(
        self,
        tokenizer: PreTrainedTokenizerBase,
        genes: Sequence[str] = (),
        ensembl_ids: Sequence[str] = (),
        n_embeddings: int = 4,
        is_encoder_decoder: bool = True,
        lowercase_instructions: bool = False,
        prompt_prefix: str = "",
        prompt_suffix: str = "",
    ) -> None:
        super().__init__(tokenizer)
        self.genes = list(genes)
        self.ensembl_ids = list(ensembl_ids) or [""] * len(self.genes)
        self.n_embeddings = n_embeddings
        self.is_encoder_decoder = is_encoder_decoder
        self.lowercase_instructions = lowercase_instructions
        self.prompt_prefix = prompt_prefix
        self.prompt_suffix = prompt_suffix
        self._check_genes()
        self._prepare_tokenizer()

    def _check_genes(self) -> None:
        if len(self.ensembl_ids) != len(self.genes):
            raise ConfigError(
                f"found {len(self.ensembl_ids)} Ensembl ids for {len(self.genes)} genes; give one per gene or none"
            )
        if len(set(self.genes)) != len(self.genes):
            raise ConfigError("the gene vocabulary names a gene twice; every symbol must stand once")

    def _prepare_tokenizer(self) -> None:
        """Add what is missing, and read the text around prompts while special tokens are still on."""
        tokenizer = self.tokenizer
        if tokenizer.pad_token_id is None or tokenizer.eos_token_id is None:
            raise ConfigError("the tokenizer lacks a pad or eos token; set tokenizer.pad_token and tokenizer.eos_token")
        known = set(tokenizer.all_special_tokens)
        missing = [token for token in SPECIAL_TOKENS if token not in known]
        if missing:
            tokenizer.add_special_tokens({"extra_special_tokens": missing}, replace_extra_special_tokens=False)
        self.cell_token_id: int = tokenizer.convert_tokens_to_ids(CELL_TOKEN)
        self.signal_token_id: int = tokenizer.convert_tokens_to_ids(SIGNAL_TOKEN)
        self._prefix_ids = tokenizer.encode(self.prompt_prefix, add_special_tokens=False, split_special_tokens=False)
        self._suffix_ids = tokenizer.encode(self.prompt_suffix, add_special_tokens=False, split_special_tokens=False)
        tokenizer.split_special_tokens = True  # for good: the switch is shared by all threads that encode
        typed = "".join(SPECIAL_TOKENS) + tokenizer.eos_token
        if {self.cell_token_id, self.signal_token_id, tokenizer.eos_token_id} & set(self.encode_text(typed)):
            raise ConfigError(f"{type(tokenizer).__name__} reads special tokens in users' text; use a fast tokenizer")

    @classmethod
    def from_backbone(
        cls, name_or_path: str | Path, genes: Sequence[str], *, ensembl_ids: Sequence[str] = (), n_embeddings: int = 4
    ) -> InstructCellProcessor:
        """Build the processor for a pretrained backbone, with its own chat template around prompts if it has one."""
        config = AutoConfig.from_pretrained(name_or_path)
        tokenizer = AutoTokenizer.from_pretrained(name_or_path)
        if tokenizer.pad_token is None:
            tokenizer.pad_token = tokenizer.eos_token
        prefix, suffix = _frame_of(tokenizer, config)
        return cls(
            tokenizer,
            genes,
            ensembl_ids,
            n_embeddings=n_embeddings,
            is_encoder_decoder=bool(config.is_encoder_decoder),
            prompt_prefix=prefix,
            prompt_suffix=suffix,
        )

    # ---- text to ids

    def encode_text(self, text: str) -> list[int]:
        """Ids of a text, with special tokens off."""
        return self._encode_texts([text])[text]

    def label_ids(self, label: str) -> list[int]:
        """Ids of an answer that is this label and nothing else, with its end-of-answer token."""
        return [*self.encode_text(label), self.tokenizer.eos_token_id]

    def prompt(self, question: str, n_cells: int = 0) -> Prompt:
        """A user's question followed by places for cells."""
        return Prompt.about(question, n_cells)

    def __call__(
        self,
        prompts: Sequence[Prompt],
        answers: Sequence[Answer] | None = None,
        *,
        padding_side: str | None = None,
    ) -> BatchFeature:
        """Encode a batch.

        Parameters
        ----------
        prompts
            B prompts; each place for a cell becomes K tokens.
        answers
            B answers for training. T5: `labels` [B, L] of their own. Causal: they follow the prompt in `input_ids`, and
            `labels` [B, T] is -100 on the prompt.
        padding_side
            "left" or "right"; None pads causal prompts without answers on the left, for `generate`, and all else on the
            right.

        Returns
        -------
        BatchFeature
            `input_ids` [B, T], `attention_mask` [B, T] and, with answers, `labels`.
        """
        if answers is not None and len(answers) != len(prompts):
            raise ValueError(f"found {len(answers)} answers for {len(prompts)} prompts")
        prompt_ids = self._prompt_ids(prompts)
        side = padding_side or ("left" if answers is None and not self.is_encoder_decoder else "right")
        if answers is None:
            return self._batch(prompt_ids, None, side)
        answer_ids = self._answer_ids(answers)
        if self.is_encoder_decoder:
            return self._batch(prompt_ids, answer_ids, side)
        rows = [prompt + answer for prompt, answer in zip(prompt_ids, answer_ids, strict=True)]
        labels = [[IGNORED_LABEL] * len(p) + a for p, a in zip(prompt_ids, answer_ids, strict=True)]
        return self._batch(rows, labels, side)

    encode = __call__

    def _prompt_ids(self, prompts: Sequence[Prompt]) -> list[list[int]]:
        cell = [self.cell_token_id] * self.n_embeddings
        rows = [prompt.parts for prompt in prompts]
        if self.lowercase_instructions:
            rows = [tuple(part.lower() if isinstance(part, str) else part for part in row) for row in rows]
        return [self._prefix_ids + row + self._suffix_ids for row in self._encode_parts(rows, cell)]

    def _answer_ids(self, answers: Sequence[Answer]) -> list[list[int]]:
        rows = self._encode_parts([answer.parts for answer in answers], [self.signal_token_id])
        return [[*row, self.tokenizer.eos_token_id] for row in rows]

    def _encode_parts(
        self, rows: Sequence[tuple[str | Placeholder, ...]], placeholder: list[int]
    ) -> list[list[int]]:
        """Ids of each row of parts, with `placeholder` where a part is no text."""
        texts = self._encode_texts(part for row in rows for part in row if isinstance(part, str))
        return [
            [token for part in row for token in (texts[part] if isinstance(part, str) else placeholder)] for row in rows
        ]

    def _encode_texts(self, texts: Iterable[str]) -> dict[str, list[int]]:
        """Ids of each distinct text; a batch often repeats one instruction."""
        distinct = list(dict.fromkeys(texts))
        if not distinct:
            return {}
        encoded = self.tokenizer(
            distinct, add_special_tokens=False, split_special_tokens=True, return_attention_mask=False, verbose=False
        )
        return dict(zip(distinct, encoded["input_ids"], strict=True))

    def _batch(self, rows: list[list[int]], labels: list[list[int]] | None, side: str) -> BatchFeature:
        data = {
            "input_ids": _pad(rows, self.tokenizer.pad_token_id, side),
            "attention_mask": _pad([[1] * len(row) for row in rows], 0, side),
        }
        if labels is not None:  # T5's labels are a sequence of their own and start at the left
            data["labels"] = _pad(labels, IGNORED_LABEL, "right" if self.is_encoder_decoder else side)
        return BatchFeature(data)

    # ---- ids to text

    def decode_answer(self, token_ids: Tensor | Sequence[int]) -> str:
        """The text of an answer, without special tokens."""
        return self.tokenizer.decode(token_ids, skip_special_tokens=True, clean_up_tokenization_spaces=False).strip()

    @property
    def model_input_names(self) -> list[str]:
        return ["input_ids", "attention_mask", "counts", "measured"]

    # ---- saving and loading

    def to_dict(self) -> dict[str, Any]:
        """Settings for processor_config.json; the genes have a file of their own."""
        return {key: value for key, value in super().to_dict().items() if key not in ("genes", "ensembl_ids")}

    def save_pretrained(
        self, save_directory: str | os.PathLike[str], push_to_hub: bool = False, **kwargs: Any
    ) -> list[str]:
        """Write tokenizer, settings and genes.tsv into a folder."""
        os.makedirs(save_directory, exist_ok=True)
        path = Path(save_directory) / GENES_FILE
        with path.open("w", encoding="utf-8", newline="") as file:
            writer = csv.writer(file, delimiter="\t", lineterminator="\n")
            writer.writerow(["symbol", "ensembl_id"])
            writer.writerows(zip(self.genes, self.ensembl_ids, strict=True))
        return [*super().save_pretrained(save_directory, push_to_hub=push_to_hub, **kwargs), str(path)]

    @classmethod
    def get_processor_dict(
        cls, pretrained_model_name_or_path: str | os.PathLike[str], **kwargs: Any
    ) -> tuple[dict[str, Any], dict[str, Any]]:
        """Settings of a saved processor together with its genes."""
        hub = {k: kwargs[k] for k in ("cache_dir", "token", "revision", "local_files_only", "subfolder") if k in kwargs}
        settings, unused = super().get_processor_dict(pretrained_model_name_or_path, **kwargs)
        path: Any = cached_file(pretrained_model_name_or_path, GENES_FILE, **hub)
        with open(path, encoding="utf-8", newline="") as file:
            rows = list(csv.DictReader(file, delimiter="\t"))
        if not rows or "symbol" not in rows[0]:
            raise CheckpointError(f"{path} lists no genes; expected columns symbol, ensembl_id. Copy the folder again.")
        settings = {**settings, "genes": [row["symbol"] for row in rows]}
        settings["ensembl_ids"] = [row.get("ensembl_id") or "" for row in rows]
        return settings, unused


def build_tokenizer(texts: Iterable[str], vocab_size: int = 4096) -> PreTrainedTokenizerFast:
    """Train a byte-level BPE tokenizer, to which no text is unknown.

    Parameters
    ----------
    texts
        Training text, lower-cased already where prompts will be.
    vocab_size
        Size of the vocabulary with the special tokens; at least 261.
    """
    special = ["<pad>", "</s>", "<unk>", *SPECIAL_TOKENS]
    tokenizer = Tokenizer(models.BPE(unk_token="<unk>"))
    tokenizer.normalizer = normalizers.NFC()
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        min_frequency=2,
        special_tokens=special,
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token="<pad>",
        eos_token="</s>",
        unk_token="<unk>",
        extra_special_tokens=list(SPECIAL_TOKENS),
        clean_up_tokenization_spaces=False,
    )


def _frame_of(tokenizer: PreTrainedTokenizerBase, config: PretrainedConfig) -> tuple[str, str]:
    """Text before and after a prompt: the chat template's, or the eos that T5 expects, or a line break."""
    if config.is_encoder_decoder:
        return "", tokenizer.eos_token
    if not tokenizer.chat_template:
        return "", "\n"
    place = "PROMPT-GOES-HERE"
    message = {"role": "user", "content": place}
    text: Any = tokenizer.apply_chat_template(
        [message], tokenize=False, add_generation_prompt=True, enable_thinking=False
    )
    prefix, _, suffix = text.partition(place)
    return prefix, suffix


def _pad(rows: Sequence[Sequence[int]], value: int, side: str) -> Tensor:
    """Rows of ids to one tensor [B, T]."""
    if side not in ("left", "right"):
        raise ValueError(f"padding_side must be 'left' or 'right', got {side!r}")
    width = max((len(row) for row in rows), default=0)
    padded = [
        [value] * (width - len(row)) + list(row) if side == "left" else list(row) + [value] * (width - len(row))
        for row in rows
    ]
    return torch.tensor(padded, dtype=torch.long).reshape(len(rows), width)


AutoProcessor.register(InstructCellConfig, InstructCellProcessor, exist_ok=True)
