"""Labels are scored as a full search would, answers stream, pseudo-cells are counts."""

from __future__ import annotations

import numpy as np
import pytest
import tiny
import torch
from scipy.sparse import csr_matrix
from transformers import TextStreamer

from instructcell.errors import LabelError
from instructcell.generation import (
    AnswerStream,
    LabelTrie,
    LabelTrieLogitsProcessor,
    generate_cells,
    iterate_cells,
    score_labels,
    stream_answer,
)
from instructcell.processor import SIGNAL, Answer, Prompt

LABELS = ["B cell", "B", "memory B cell", "CD4-positive, alpha-beta T cell", "CD8-positive, alpha-beta T cell", "x"]
PROMPTS = [Prompt.parse("annotate: {cells}", n) for n in (1, 3, 1, 2)]


@pytest.fixture(params=["t5", "qwen"])
def family(request, tiny_processor, tiny_causal_processor):
    """(model, processor) of each family."""
    processor = tiny_processor if request.param == "t5" else tiny_causal_processor
    return tiny.make_model(processor), processor


def make_cells(n: int) -> torch.Tensor:
    return torch.poisson(torch.full((n, tiny.N_GENES), 1.5), generator=torch.Generator().manual_seed(0))


def sharpen(model, factor: float) -> None:
    """Make a random model sure of its answers."""
    head = torch.nn.Linear(model.config.hidden_size, model.config.vocab_size, bias=False)
    torch.manual_seed(0)
    head.weight.data.normal_().mul_(factor)
    model.lm.lm_head = head


def brute_force(model, processor, prompts, counts, labels) -> torch.Tensor:
    """Each label read out in full, token by token, over its legal alternatives."""
    trie = LabelTrie.of(processor, labels)
    result, first = torch.zeros(len(prompts), len(labels)), 0
    for row, prompt in enumerate(prompts):
        cells = counts[first : first + prompt.n_cells]
        first += prompt.n_cells
        for column, label in enumerate(labels):
            batch = processor([prompt], [Answer.of(label)])
            logits = model(**batch, counts=cells).logits[0]
            ids = processor.label_ids(label)
            if not processor.is_encoder_decoder:
                logits = logits[-len(ids) - 1 : -1]
            log_prob = 0.0
            for step, token in enumerate(ids):
                legal = trie.legal_tokens(ids[:step])
                log_prob += float(torch.log_softmax(logits[step, legal], 0)[legal.index(token)].detach())
            result[row, column] = np.exp(log_prob)
    return result


@pytest.mark.parametrize("factor", [None, 1.0])
def test_label_probabilities_equal_a_full_search(family, factor):
    model, processor = family
    if factor:
        sharpen(model, factor)
    counts = make_cells(7)
    scored = score_labels(model, processor, PROMPTS, counts, None, LABELS)
    torch.testing.assert_close(scored, brute_force(model, processor, PROMPTS, counts, LABELS), atol=1e-3, rtol=0)
    torch.testing.assert_close(scored.sum(1), torch.ones(4))


def test_the_batch_size_does_not_change_the_scores(family):
    model, processor = family
    counts = make_cells(7)
    together, pairs, alone = (
        score_labels(model, processor, PROMPTS, counts, None, LABELS, batch_size=size) for size in (4, 2, 1)
    )
    torch.testing.assert_close(together, alone, atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(together, pairs, atol=1e-5, rtol=1e-4)


def test_the_order_of_the_labels_does_not_change_the_scores(family):
    model, processor = family
    forward = score_labels(model, processor, PROMPTS, make_cells(7), None, LABELS)
    backward = score_labels(model, processor, PROMPTS, make_cells(7), None, LABELS[::-1])
    torch.testing.assert_close(forward, backward.flip(1), atol=1e-6, rtol=1e-5)


def test_a_sure_model_gives_probabilities_that_sum_to_one(family):
    model, processor = family
    sharpen(model, 50.0)
    scored = score_labels(model, processor, PROMPTS, make_cells(7), None, LABELS)
    torch.testing.assert_close(scored.sum(1), torch.ones(4))
    assert scored.max() > 0.99


def test_counts_may_be_sparse_and_genes_unmeasured(tiny_processor, tiny_t5_model):
    counts, measured = make_cells(7), np.arange(tiny.N_GENES) < 120
    counts[:, 120:] = 0
    dense = score_labels(tiny_t5_model, tiny_processor, PROMPTS, counts, torch.as_tensor(measured), LABELS)
    sparse = score_labels(
        tiny_t5_model, tiny_processor, PROMPTS, csr_matrix(counts.numpy()), measured, LABELS, batch_size=2
    )
    per_cell = np.tile(measured, (7, 1))
    masks = score_labels(tiny_t5_model, tiny_processor, PROMPTS, counts.numpy(), per_cell, LABELS, batch_size=3)
    torch.testing.assert_close(sparse, dense, atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(masks, dense, atol=1e-5, rtol=1e-4)


def test_prompts_without_cells_can_be_scored(tiny_processor, tiny_t5_model):
    question = [Prompt.about("sensitive or resistant?")]
    scored = score_labels(tiny_t5_model, tiny_processor, question, None, None, ["sensitive", "resistant"])
    torch.testing.assert_close(scored.sum(1), torch.ones(1))


def test_one_label_is_certain_and_no_prompt_gives_no_row(tiny_processor, tiny_t5_model):
    one = score_labels(tiny_t5_model, tiny_processor, PROMPTS, make_cells(7), None, ["B cell"])
    assert torch.equal(one, torch.ones(4, 1))
    assert score_labels(tiny_t5_model, tiny_processor, [], None, None, LABELS).shape == (0, len(LABELS))


@pytest.mark.parametrize(("labels", "message"), [([], "no label"), (["B cell", "x", "B cell"], "labels 1 and 3")])
def test_labels_that_cannot_be_told_apart_are_refused(tiny_processor, labels, message):
    with pytest.raises(LabelError, match=message):
        LabelTrie.of(tiny_processor, labels)


def test_a_label_may_be_the_beginning_of_another():
    trie = LabelTrie([[5, 6, 1], [5, 6, 7, 1], [5, 1]])
    assert trie.legal_tokens([]) == [5]
    assert trie.legal_tokens([5]) == [6, 1]
    assert trie.legal_tokens([5, 6]) == [1, 7]
    assert trie.legal_tokens([5, 6, 1]) == []
    assert trie.settled[0] == trie.walk([5])
    assert trie.paths[trie.settled[trie.walk([5, 6, 7])]] == (5, 6, 7, 1)
    torch.testing.assert_close(trie.share[trie.walk([5, 6])], torch.tensor([0.5, 0.5, 0.0]))


@pytest.mark.parametrize("settings", [{"do_sample": True, "temperature": 5.0}, {"num_beams": 3}, {"do_sample": False}])
def test_constrained_generation_never_writes_an_illegal_label(family, settings):
    model, processor = family
    batch, counts = processor(PROMPTS), make_cells(7)
    start = 1 if processor.is_encoder_decoder else batch["input_ids"].shape[1]
    rule = LabelTrieLogitsProcessor(LabelTrie.of(processor, LABELS), start, processor.tokenizer.pad_token_id)
    torch.manual_seed(0)
    ids = model.generate(**batch, counts=counts, logits_processor=[rule], max_new_tokens=40, **settings)
    assert {processor.decode_answer(row[start:]) for row in ids} <= set(LABELS)


def test_greedy_generation_streams_what_it_writes(family):
    model, processor = family
    sharpen(model, 1.0)
    counts = make_cells(3)
    pieces: list[str] = []

    class Collector(TextStreamer):
        def on_finalized_text(self, text, stream_end=False):
            pieces.append(text)

    batch = processor(PROMPTS[1:2])
    streamer = Collector(processor.tokenizer, skip_prompt=True, skip_special_tokens=True)
    ids = model.generate(**batch, counts=counts, streamer=streamer, max_new_tokens=12, do_sample=False)
    silent = model.generate(**batch, counts=counts, max_new_tokens=12, do_sample=False)
    assert torch.equal(ids, silent)
    start = 1 if processor.is_encoder_decoder else batch["input_ids"].shape[1]
    assert "".join(pieces).strip() == processor.decode_answer(ids[0, start:])
    stream = stream_answer(model, processor, PROMPTS[1], counts, max_new_tokens=12)
    assert "".join(stream) == "".join(pieces)
    assert torch.equal(stream.sequences, ids)


def test_generation_with_and_without_a_cache_is_the_same(tiny_processor, tiny_t5_model):
    batch, counts = tiny_processor(PROMPTS), make_cells(7)
    a, b = (tiny_t5_model.generate(**batch, counts=counts, use_cache=c, max_new_tokens=6) for c in (True, False))
    assert torch.equal(a, b)


def test_a_batch_generates_what_single_rows_generate(family):
    model, processor = family
    counts, first = make_cells(7), 0
    batch = processor(PROMPTS)
    start = 0 if processor.is_encoder_decoder else batch["input_ids"].shape[1]
    together = model.generate(**batch, counts=counts, max_new_tokens=6, do_sample=False)
    for row, prompt in enumerate(PROMPTS):
        single = processor([prompt])
        cells = counts[first : first + prompt.n_cells]
        first += prompt.n_cells
        alone = model.generate(**single, counts=cells, max_new_tokens=6, do_sample=False)
        answer = alone[0] if processor.is_encoder_decoder else alone[0, single["input_ids"].shape[1] :]
        assert together[row, start : start + len(answer)].tolist() == answer.tolist()


class AlwaysSignal(torch.nn.Module):
    """A head that writes <SIGNAL> whatever it reads."""

    def __init__(self, config) -> None:
        super().__init__()
        self.config = config

    def forward(self, hidden):
        logits = hidden.new_zeros(*hidden.shape[:-1], self.config.vocab_size)
        logits[..., self.config.signal_token_id] = 9.0
        return logits


def test_signals_of_a_generated_answer_become_cells(family):
    model, processor = family
    model.lm.lm_head = AlwaysSignal(model.config)
    batch, counts = processor(PROMPTS), make_cells(7)
    ids = model.generate(**batch, counts=counts, max_new_tokens=2, do_sample=False)
    hidden = model.signals(ids, **batch, counts=counts)
    assert hidden.shape == (8, model.config.hidden_size)
    assert model.cell_decoder.sample(hidden).shape == (8, tiny.N_GENES)
    stream = stream_answer(model, processor, PROMPTS[0], counts[:1], max_new_tokens=2)
    assert "".join(stream) == ""
    assert stream.n_signals == 2


def test_an_answer_without_signals_has_no_hidden_states(tiny_processor, tiny_t5_model):
    batch = tiny_processor(PROMPTS[:1])
    ids = torch.tensor([[0, 7, 1]])
    assert tiny_t5_model.signals(ids, **batch, counts=make_cells(1)).shape == (0, 32)


def test_an_error_while_writing_reaches_the_reader(tiny_processor, tiny_t5_model):
    with pytest.raises(ValueError, match="no counts were given"):
        list(stream_answer(tiny_t5_model, tiny_processor, PROMPTS[0]))


def test_leaving_the_loop_stops_the_writing(tiny_processor, tiny_t5_model):
    sharpen(tiny_t5_model, 1.0)
    endless = {"max_new_tokens": 10_000, "do_sample": True, "temperature": 9.0, "eos_token_id": -1}
    stream: AnswerStream = stream_answer(tiny_t5_model, tiny_processor, PROMPTS[0], make_cells(1), **endless)
    for _ in stream:
        break
    assert stream.sequences is not None
    assert stream.sequences.shape[1] < 10_000


def test_pseudo_cells_are_integer_counts_and_the_seed_decides(family):
    model, processor = family
    prompt = Prompt.parse("generate B cell: ")
    cells = generate_cells(model, processor, prompt, 5, seed=1)
    assert cells.shape == (5, tiny.N_GENES)
    assert cells.dtype == torch.int32
    assert (cells >= 0).all()
    assert torch.equal(cells, generate_cells(model, processor, prompt, 5, seed=1))
    assert not torch.equal(cells, generate_cells(model, processor, prompt, 5, seed=2))
    assert generate_cells(model, processor, prompt, 0).shape == (0, tiny.N_GENES)
    with pytest.raises(ValueError, match="negative"):
        generate_cells(model, processor, prompt, -1)


def test_the_library_size_sets_the_depth(tiny_processor, tiny_t5_model):
    prompt = Prompt.parse("generate B cell: ")
    depth = generate_cells(tiny_t5_model, tiny_processor, prompt, 200, library_size=500.0).sum(1).float()
    assert depth.mean() == pytest.approx(500.0, rel=0.15)
    sizes = [100.0, 10_000.0]
    small, large = generate_cells(tiny_t5_model, tiny_processor, prompt, 2, library_size=sizes).sum(1).tolist()
    assert small < 1_000 < large


def test_pseudo_cells_come_batch_by_batch(tiny_processor, tiny_t5_model):
    batches = list(iterate_cells(tiny_t5_model, tiny_processor, Prompt.parse("generate x: "), 5, batch_size=2))
    assert [len(batch) for batch in batches] == [2, 2, 1]


def test_the_condition_of_pseudo_cells_is_the_signals_hidden_state(tiny_processor, tiny_t5_model):
    prompt = Prompt.parse("generate B cell: ")
    hidden = tiny_t5_model(**tiny_processor([prompt], [Answer((SIGNAL,))])).signal_hidden
    expected = tiny_t5_model.cell_decoder.sample(hidden.expand(3, -1), None, torch.Generator().manual_seed(4))
    assert torch.equal(generate_cells(tiny_t5_model, tiny_processor, prompt, 3, seed=4), expected.int())
