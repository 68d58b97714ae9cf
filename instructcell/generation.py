"""Answers: label probabilities by constrained decoding, streamed text and pseudo-cells.

Labels are scored over the trie of their token ids: at each node the model's next-token probabilities are normalised
over the legal continuations, and a label's probability is the product along its path. Every label ends with the
end-of-answer token, so one label may be the beginning of another.
"""

from __future__ import annotations

import copy
import threading
from collections import defaultdict
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from scipy.sparse import issparse, spmatrix
from torch import Tensor
from transformers import LogitsProcessor, StoppingCriteria, StoppingCriteriaList, TextIteratorStreamer
from transformers.cache_utils import Cache
from transformers.modeling_outputs import BaseModelOutput

from instructcell.errors import LabelError
from instructcell.model import InstructCellForConditionalGeneration
from instructcell.populations import Population
from instructcell.processor import SIGNAL, Answer, InstructCellProcessor, Prompt

BEGINNING = 16  # tokens of an answer in which a pseudo-cell would stand
LONGEST_REQUEST = 256  # tokens
PRUNE_BELOW = 1e-4  # a branch less likely than this is not followed: its labels share what it has
SETTLED_ABOVE = 0.9995  # a row with a label more likely than this is done
MAX_BRANCHES = 1024  # branches in one step of the decoder; bounds memory


class LabelTrie:
    """Legal answers as a tree of token ids, node 0 the root.

    Parameters
    ----------
    sequences
        Token ids of each label with its end token.

    Raises
    ------
    LabelError
        There is no label, or two have the same ids.
    """

    def __init__(self, sequences: Sequence[Sequence[int]]) -> None:
        if not sequences:
            raise LabelError("no label was given to choose from; give at least one")
        self.n_labels = len(sequences)
        self.children: list[dict[int, int]] = [{}]  # token id -> node
        self.paths: list[tuple[int, ...]] = [()]  # token ids from the root
        ends: dict[int, int] = {}  # node -> label
        for label, sequence in enumerate(sequences):
            node = 0
            for token in sequence:
                node = self._step(node, token)
            if node in ends:
                raise LabelError(f"labels {ends[node] + 1} and {label + 1} of the list are the same; give each once")
            ends[node] = label
        self.share = torch.zeros(len(self.paths), self.n_labels)  # [nodes, C]: the labels below a node, in equal parts
        for end, label in ends.items():
            for length in range(len(self.paths[end]) + 1):
                self.share[self.walk(self.paths[end][:length]), label] = 1.0
        self.share /= self.share.sum(1, keepdim=True)
        self.settled = [self._settle(node) for node in range(len(self.paths))]

    @classmethod
    def of(cls, processor: InstructCellProcessor, labels: Sequence[str]) -> LabelTrie:
        return cls([processor.label_ids(label) for label in labels])

    def _step(self, node: int, token: int) -> int:
        if token not in self.children[node]:
            self.children[node][token] = len(self.paths)
            self.paths.append((*self.paths[node], token))
            self.children.append({})
        return self.children[node][token]

    def _settle(self, node: int) -> int:
        """The node reached without a choice: the next one with several continuations, or an end."""
        while len(self.children[node]) == 1:
            node = next(iter(self.children[node].values()))
        return node

    def walk(self, token_ids: Sequence[int]) -> int:
        """The node at the end of a path of legal tokens."""
        node = 0
        for token in token_ids:
            node = self.children[node][token]
        return node

    def legal_tokens(self, token_ids: Sequence[int]) -> list[int]:
        """What may follow these tokens; empty after a whole label."""
        return list(self.children[self.walk(token_ids)])


class LabelTrieLogitsProcessor(LogitsProcessor):
    """Lets `generate` write a legal label and nothing else.

    Parameters
    ----------
    trie
        The legal labels.
    prompt_length
        Ids before the answer: 1 for T5 (the start token), the width of `input_ids` for causal models.
    pad_token_id
        What follows a whole label.
    """

    def __init__(self, trie: LabelTrie, prompt_length: int, pad_token_id: int) -> None:
        self.trie = trie
        self.prompt_length = prompt_length
        self.pad_token_id = pad_token_id

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        masked = torch.full_like(scores, float("-inf"))
        for row, written in enumerate(input_ids[:, self.prompt_length :].tolist()):
            while written and written[-1] == self.pad_token_id:
                written.pop()
            legal = self.trie.legal_tokens(written) or [self.pad_token_id]
            masked[row, legal] = scores[row, legal].clamp_min(torch.finfo(scores.dtype).min)
        return masked


@torch.no_grad()
def score_labels(
    model: InstructCellForConditionalGeneration,
    processor: InstructCellProcessor,
    prompts: Sequence[Prompt],
    counts: Tensor | np.ndarray | spmatrix | None,
    measured: Tensor | np.ndarray | None,
    labels: Sequence[str],
    *,
    batch_size: int = 256,
) -> Tensor:
    """Probability of each label as the answer to each prompt.

    Parameters
    ----------
    prompts
        B prompts.
    counts, measured
        Their cells in order: counts [N, G] >= 0, dense or sparse (made dense one batch at a time), and measured [N, G]
        or [G] bool, None = every gene.
    labels
        C legal answers.
    batch_size
        Prompts scored at a time; the result does not depend on it.

    Returns
    -------
    Tensor
        float32 [B, C] on the CPU; each row sums to 1.

    Raises
    ------
    LabelError
        No label was given, or one twice.

    Examples
    --------
    >>> prompts = [Prompt.parse("annotate: {cells}")]
    >>> score_labels(model, processor, prompts, counts, None, ["B cell", "T cell"])  # doctest: +SKIP
    tensor([[0.98, 0.02]])
    """
    trie = LabelTrie.of(processor, labels)
    first_cell = np.cumsum([0, *(prompt.n_cells for prompt in prompts)])
    parts = [torch.zeros(0, trie.n_labels)]
    for start in range(0, len(prompts), batch_size):
        chosen = prompts[start : start + batch_size]
        cells = slice(first_cell[start], first_cell[start + len(chosen)])
        batch_counts, batch_measured = _cells(counts, measured, cells, model.device)
        prefix = _Prefix(model, processor, chosen, batch_counts, batch_measured)
        parts.append(_score_batch(prefix, trie).cpu())
    return torch.cat(parts)


def _cells(
    counts: Tensor | np.ndarray | spmatrix | None,
    measured: Tensor | np.ndarray | None,
    cells: slice,
    device: torch.device,
) -> tuple[Tensor | None, Tensor | None]:
    """The counts and measured mask of a run of cells, dense on the model's device."""
    if counts is None or cells.start == cells.stop:
        return None, None
    chosen: Any = counts[cells]  # type: ignore[index]
    dense = torch.as_tensor(chosen.toarray() if issparse(chosen) else chosen, device=device).float()
    if measured is not None:
        measured = torch.as_tensor(measured, device=device)
        measured = measured[cells] if measured.ndim == 2 else measured
    return dense, measured


class _Prefix:
    """Prompts read once; `next_logits` continues any of them by any tokens from the cached states."""

    def __init__(
        self,
        model: InstructCellForConditionalGeneration,
        processor: InstructCellProcessor,
        prompts: Sequence[Prompt],
        counts: Tensor | None,
        measured: Tensor | None,
    ) -> None:
        self.model = model
        batch = processor(prompts).to(model.device)
        self.mask = batch["attention_mask"]  # [R, T]
        self.encoded: Tensor | None = None  # [R, T, D]
        start = {}
        if model.config.is_encoder_decoder:
            token = model.generation_config.decoder_start_token_id
            start["decoder_input_ids"] = torch.full_like(self.mask[:, :1], token)
        output = model(**batch, counts=counts, measured=measured, use_cache=True, logits_to_keep=1, **start)
        self.encoded = output.encoder_last_hidden_state
        self.cache: Cache = output.past_key_values
        self.logits = output.logits[:, -1]  # [R, V]

    def next_logits(self, rows: Tensor, tokens: Tensor) -> Tensor:
        """Logits [n, V] after `tokens` [n, L >= 1] have followed the prompts `rows` [n]."""
        cache = copy.deepcopy(self.cache)
        cache.batch_select_indices(rows)
        mask = self.mask[rows]
        if self.encoded is not None:
            output = self.model(
                attention_mask=mask,
                encoder_outputs=BaseModelOutput(last_hidden_state=self.encoded[rows]),
                decoder_input_ids=tokens,
                past_key_values=cache,
                use_cache=True,
            )
        else:
            positions = mask.sum(1, keepdim=True) + torch.arange(tokens.shape[1], device=tokens.device)
            output = self.model(
                input_ids=tokens,
                attention_mask=torch.cat([mask, torch.ones_like(tokens)], dim=1),
                position_ids=positions,
                past_key_values=cache,
                use_cache=True,
                logits_to_keep=1,
            )
        return output.logits[:, -1]


def _score_batch(prefix: _Prefix, trie: LabelTrie) -> Tensor:
    """Label probabilities [R, C] of the prompts of a prefix.

    Nodes of equal depth are stepped together over all rows that reach them; a node without a choice costs nothing.
    """
    n_rows, device = len(prefix.logits), prefix.logits.device
    mass = torch.zeros(n_rows, len(trie.paths), device=device)  # probability that came to rest at a node
    best = torch.zeros(n_rows, device=device)  # of the likeliest label so far
    live: dict[int, list[_Branch]] = defaultdict(list)  # by depth

    def arrive(node: int, rows: Tensor, probability: Tensor) -> None:
        node = trie.settled[node]
        if not trie.children[node]:
            mass[rows, node] = probability
            best[rows] = torch.maximum(best[rows], probability)
            return
        go_on = probability >= PRUNE_BELOW
        mass[rows[~go_on], node] = probability[~go_on]
        if go_on.any():
            live[len(trie.paths[node])].append(_Branch(node, rows[go_on], probability[go_on]))

    arrive(0, torch.arange(n_rows, device=device), torch.ones(n_rows, device=device))
    while live:
        branches = []
        for branch in live.pop(min(live)):
            over = best[branch.rows] > SETTLED_ABOVE
            mass[branch.rows[over], branch.node] = branch.probability[over]
            branches.append(_Branch(branch.node, branch.rows[~over], branch.probability[~over]))
        for branch, logits in zip(branches, _branch_logits(prefix, trie, branches), strict=True):
            tokens = torch.tensor(list(trie.children[branch.node]), device=device)
            chance = branch.probability.unsqueeze(1) * torch.softmax(logits[:, tokens].float(), dim=1)  # [n, children]
            for column, child in enumerate(trie.children[branch.node].values()):
                arrive(child, branch.rows, chance[:, column])
    result = mass @ trie.share.to(device)
    return result / result.sum(1, keepdim=True)  # rounding only


class _Branch(NamedTuple):
    """Rows that may go through a node of the trie, and how likely each does."""

    node: int
    rows: Tensor  # [n], each once
    probability: Tensor  # [n]


def _branch_logits(prefix: _Prefix, trie: LabelTrie, branches: list[_Branch]) -> Sequence[Tensor]:
    """Logits [n, V] for the rows of each branch; all branches lie at one depth."""
    if not trie.paths[branches[0].node]:  # the root: known from reading the prompts
        return [prefix.logits[branches[0].rows]]
    device = prefix.logits.device
    sizes = [len(branch.rows) for branch in branches]
    if not sum(sizes):
        return [prefix.logits[:0]] * len(branches)
    rows = torch.cat([branch.rows for branch in branches])
    paths = torch.tensor([trie.paths[branch.node] for branch in branches], device=device)  # [branches, L]
    tokens = paths.repeat_interleave(torch.tensor(sizes, device=device), dim=0)
    pieces = zip(rows.split(MAX_BRANCHES), tokens.split(MAX_BRANCHES), strict=True)
    return torch.cat([prefix.next_logits(some, ids) for some, ids in pieces]).split(sizes)


class AnswerStream:
    """One answer while it is written: iterate over pieces of text, then read `sequences` and `n_signals`.

    Leaving the loop early stops the writing.
    """

    def __init__(
        self,
        model: InstructCellForConditionalGeneration,
        processor: InstructCellProcessor,
        prompt: Prompt,
        counts: Tensor | np.ndarray | spmatrix | None = None,
        measured: Tensor | np.ndarray | None = None,
        **generate: Any,
    ) -> None:
        cells = _cells(counts, measured, slice(0, prompt.n_cells), model.device)
        self.sequences: Tensor | None = None  # what `generate` returned, [1, L]
        self._model = model
        self._signal_token_id = processor.signal_token_id
        self._stopped = threading.Event()
        self._error: BaseException | None = None
        self._streamer = TextIteratorStreamer(
            processor.tokenizer, skip_prompt=True, skip_special_tokens=True, clean_up_tokenization_spaces=False
        )
        self._arguments = {
            **processor([prompt]).to(model.device),
            "counts": cells[0],
            "measured": cells[1],
            "streamer": self._streamer,
            "stopping_criteria": StoppingCriteriaList([_StopWhen(self._stopped)]),
            **generate,
        }

    def __iter__(self) -> Iterator[str]:
        writer = threading.Thread(target=self._write, daemon=True)
        writer.start()
        try:
            yield from (piece for piece in self._streamer if piece)
        finally:
            self._stopped.set()
            writer.join()
        if self._error is not None:
            raise self._error

    @property
    def n_signals(self) -> int:
        """How many pseudo-cells the answer asks for, once it is written."""
        return 0 if self.sequences is None else int((self.sequences == self._signal_token_id).sum())

    def _write(self) -> None:
        try:
            self.sequences = self._model.generate(**self._arguments)
        except BaseException as error:  # noqa: BLE001 - raised again where the answer is read
            self._error = error
            self._streamer.end()


class _StopWhen(StoppingCriteria):
    def __init__(self, event: threading.Event) -> None:
        self.event = event

    def __call__(self, input_ids: Tensor, scores: Any, **kwargs: Any) -> Tensor:
        return torch.full((len(input_ids),), self.event.is_set(), dtype=torch.bool, device=input_ids.device)


def stream_answer(
    model: InstructCellForConditionalGeneration,
    processor: InstructCellProcessor,
    prompt: Prompt,
    counts: Tensor | np.ndarray | spmatrix | None = None,
    measured: Tensor | np.ndarray | None = None,
    *,
    max_new_tokens: int = 128,
    **generate: Any,
) -> AnswerStream:
    """Answer a prompt piece by piece.

    Parameters
    ----------
    prompt
        One prompt.
    counts, measured
        Its cells: counts [N, G] >= 0, measured [N, G] or [G] bool.
    generate
        Further arguments of `generate`: do_sample, temperature, logits_processor, ...

    Examples
    --------
    >>> for piece in stream_answer(model, processor, Prompt.about("what is this?", 1), counts):  # doctest: +SKIP
    ...     print(piece, end="")
    """
    settings = {"do_sample": False, "max_new_tokens": max_new_tokens, **generate}
    return AnswerStream(model, processor, prompt, counts, measured, **settings)


def begins_with_cells(
    model: InstructCellForConditionalGeneration, processor: InstructCellProcessor, question: str
) -> bool:
    """Whether the model, asked a user's question without any cell, would soon answer with a pseudo-cell.

    Texts of more than LONGEST_REQUEST tokens are no such request.

    It was trained to make cells of what asks for them; of questions about cells that it is not given it makes little,
    so this tells a request for pseudo-cells from another only where both are likely (docs/trials.md).
    """
    asked = processor([Prompt.about(question)]).to(model.device)
    if asked["input_ids"].shape[1] > LONGEST_REQUEST:
        return False
    written = model.generate(**asked, do_sample=False, max_new_tokens=BEGINNING)
    return bool((written == processor.signal_token_id).any())


@torch.no_grad()
def iterate_cells(
    model: InstructCellForConditionalGeneration,
    processor: InstructCellProcessor,
    prompt: Prompt,
    n: int,
    *,
    library_size: float | Sequence[float] | Tensor | None = None,
    seed: int = 0,
    batch_size: int = 256,
    counts: Tensor | np.ndarray | spmatrix | None = None,
    measured: Tensor | np.ndarray | None = None,
    population: Population | None = None,
) -> Iterator[Tensor]:
    """Pseudo-cells batch by batch, int32 [<= batch_size, G]; arguments as in `generate_cells`."""
    if n < 0:
        raise ValueError(f"the number of cells must not be negative, got {n}")
    cells = _cells(counts, measured, slice(0, prompt.n_cells), model.device)
    signal = _signals_of(model, processor, [prompt], *cells)
    sizes = None
    if library_size is not None:
        sizes = torch.as_tensor(library_size, dtype=signal.dtype, device=signal.device).expand(n)
    generator = torch.Generator(device=signal.device).manual_seed(seed)
    on_cpu = torch.Generator().manual_seed(seed)
    for start in range(0, n, batch_size):
        size = min(batch_size, n - start)
        batch_sizes = None if sizes is None else sizes[start : start + size]
        latents = None if population is None else population.draw(size, batch_sizes, on_cpu)
        made = model.cell_decoder.sample(signal.expand(size, -1), batch_sizes, generator, latents)
        yield made.to("cpu", torch.int32)


def generate_cells(
    model: InstructCellForConditionalGeneration,
    processor: InstructCellProcessor,
    prompt: Prompt,
    n: int,
    **settings: Any,
) -> Tensor:
    """Pseudo-cells for a prompt.

    Parameters
    ----------
    prompt
        What to make, e.g. ``Prompt.parse("generate B cell: ")``.
    n
        How many cells.
    settings
        library_size: expected total counts, one for all or one per cell; None draws from the learned distribution.
        seed: the same seed gives the same cells. batch_size: cells sampled at a time. counts, measured: cells of the
        prompt. population: training cells whose latents are drawn in place of the decoder's prior.

    Returns
    -------
    Tensor
        Counts int32 [n, G] over the checkpoint's genes, on the CPU.
    """
    empty = torch.zeros(0, model.config.n_genes, dtype=torch.int32)
    return torch.cat([empty, *iterate_cells(model, processor, prompt, n, **settings)])


def request_states(
    model: InstructCellForConditionalGeneration, processor: InstructCellProcessor, prompts: Sequence[Prompt]
) -> Tensor:
    """What the language model hands to the decoder for requests without cells [len(prompts), D]."""
    return _signals_of(model, processor, prompts, None, None)


@torch.no_grad()
def _signals_of(
    model: InstructCellForConditionalGeneration,
    processor: InstructCellProcessor,
    prompts: Sequence[Prompt],
    counts: Tensor | None,
    measured: Tensor | None,
) -> Tensor:
    """The hidden states [B, D] at <SIGNAL> when the answer to each prompt is a pseudo-cell alone."""
    batch = processor(prompts, [Answer((SIGNAL,))] * len(prompts)).to(model.device)
    labels = batch.pop("labels")
    answer = {"decoder_input_ids": model.shift_right(labels)} if model.config.is_encoder_decoder else {}
    hidden = model(**batch, counts=counts, measured=measured, **answer).signal_hidden
    return hidden.to(next(model.cell_decoder.parameters()).dtype)
