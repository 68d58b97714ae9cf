"""The cell encoders of the literature as tensors: sentences, gene texts, fusion."""

from __future__ import annotations

import dataclasses
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from sklearn.linear_model import LinearRegression
from transformers import Qwen3Config, Qwen3ForCausalLM

from encoders import (
    CellSentenceEncoder,
    CellSentences,
    Fusion,
    FusionConfig,
    GeneReader,
    GeneReaderConfig,
    RankFit,
    SentenceConfig,
    rank_genes,
    ranked_genes,
    weighted_mean,
)

GENES = ["A", "B", "C", "D", "E"]
CELL = torch.tensor([[0.0, 3.0, 1.0, 3.0, 2.0]])


def many(n_genes: int = 40) -> tuple[list[str], torch.Tensor]:
    return [f"g{i}" for i in range(n_genes)], torch.arange(n_genes, 0, -1.0).repeat(2, 1)


def test_genes_stand_by_expression_and_those_without_counts_are_left_out() -> None:
    assert [row.tolist() for row in rank_genes(CELL)] == [[1, 3, 4, 2]]
    assert CellSentences(GENES, SentenceConfig(3))(CELL) == [["B", "D", "E"]]


def test_a_cell_without_counts_is_an_empty_sentence() -> None:
    assert CellSentences(GENES, SentenceConfig())(torch.zeros(1, 5)) == [[]]


@pytest.mark.parametrize("factor", [0.1, 7.0])
def test_depth_does_not_change_a_sentence(factor: float) -> None:
    assert CellSentences(GENES, SentenceConfig())(CELL * factor) == CellSentences(GENES, SentenceConfig())(CELL)


def test_consistent_hashes_agree_between_cells_and_hashes_per_instance_do_not() -> None:
    genes, counts = many()
    first, second = CellSentences(genes, SentenceConfig(10, hash_genes="consistent"))(counts)
    assert first == second and len(set(first)) == 10 and all(len(word) == 10 for word in first)
    first, second = CellSentences(genes, SentenceConfig(10, hash_genes="per_instance"))(counts)
    assert not set(first) & set(second)


def test_shuffling_all_genes_changes_which_are_named_and_shuffling_in_context_only_their_order() -> None:
    genes, counts = many()
    plain = CellSentences(genes, SentenceConfig(20))(counts)[0]
    everything = CellSentences(genes, SentenceConfig(20, shuffle="all"))(counts)[0]
    named = CellSentences(genes, SentenceConfig(20, shuffle="in_context"))(counts)[0]
    top = CellSentences(genes, SentenceConfig(20, shuffle="top", seed=3))(counts)[0]
    assert set(everything) != set(plain)
    assert set(named) == set(plain) and named != plain
    assert set(top[:2]) == set(plain[:2]) and top[2:] == plain[2:]


def test_cells_read_in_pieces_are_shuffled_as_in_one_go() -> None:
    genes, counts = many()
    sentences = CellSentences(genes, SentenceConfig(20, shuffle="all"))
    assert sentences(counts)[1] == sentences(counts[1:], first_cell=1)[0]


def test_a_fraction_keeps_the_front() -> None:
    genes, counts = many()
    assert CellSentences(genes, SentenceConfig(20, fraction=0.1))(counts)[0] == ["g0", "g1"]


@pytest.mark.parametrize("wrong", [{"n_genes": 0}, {"hash_genes": "md5"}, {"shuffle": "some"}, {"fraction": 0.0}])
def test_settings_out_of_range_are_refused(wrong: dict) -> None:
    with pytest.raises(ValueError, match=next(iter(wrong))):
        SentenceConfig(**wrong)


class TwoTokensPerWord:
    """A text model that keeps its texts; every word is two tokens, and two tokens stand around the text."""

    max_seq_length = 10

    def __init__(self) -> None:
        self.texts: list[str] = []

    def tokenizer(self, text: str, *, add_special_tokens: bool = True, **_: object) -> dict:
        spans, at = [], 0
        for word in text.split():
            start = text.index(word, at)
            spans += [(start, start + 1), (start + 1, start + len(word))]
            at = start + len(word)
        return {"input_ids": [0] * (len(spans) + 2 * add_special_tokens), "offset_mapping": spans}

    def encode(self, sentences: list[str], **_: object) -> np.ndarray:
        self.texts += sentences
        return np.ones((len(sentences), 3), np.float32)


def test_a_sentence_ends_where_the_context_of_the_encoder_does() -> None:
    genes, counts = [f"gene{i:02d}" for i in range(40)], many()[1]
    model = TwoTokensPerWord()
    assert CellSentenceEncoder(model, genes, SentenceConfig(None))(counts).shape == (2, 3)
    assert model.texts[0] == "gene00 gene01 gene02 gene03"  # (10 - 2) / 2 words
    framed = CellSentenceEncoder(model, genes, SentenceConfig(None), frame="genes {words}", separator=", ")
    assert framed.texts(counts)[0] == "genes gene00, gene01, gene02"


def test_ranks_become_expression_along_a_line_that_least_squares_gives() -> None:
    rng = np.random.default_rng(0)
    counts = torch.tensor(rng.poisson(rng.lognormal(0, 1.5, (30, 60))), dtype=torch.float32)
    fit = RankFit.fit(counts)
    x, y = [], []
    for cell in counts:
        expression = torch.log1p(cell / cell.sum() * 1e4)
        ranked = rank_genes(cell[None])[0]
        x += np.log10(np.arange(1, len(ranked) + 1)).tolist()
        y += expression[ranked].tolist()
    line = LinearRegression().fit(np.array(x)[:, None], y)
    assert fit.slope == pytest.approx(float(line.coef_[0]), rel=1e-4)
    assert fit.r2 == pytest.approx(line.score(np.array(x)[:, None], y), abs=1e-4) and fit.r2 > 0.5


def test_a_sentence_goes_back_to_expression_with_its_genes_in_their_order() -> None:
    fit = RankFit(slope=-2.0, intercept=8.0, r2=1.0)
    expression, foreign = fit.expression([["B", "nothing", "A"], ["C", "A", "C"]], GENES)
    assert expression[0].tolist() == pytest.approx([8 - 2 * np.log10(3), 8.0, 0, 0, 0])
    assert expression[1, 2] == pytest.approx(8 - 2 * np.log10(2))  # at the mean of places 1 and 3
    assert foreign == [1, 0]
    with pytest.raises(ValueError, match="two genes"):
        RankFit.fit(torch.eye(3))


def test_the_weighted_mean_is_that_of_the_genes_and_of_unit_length() -> None:
    vectors = torch.tensor([[1.0, 0.0], [0.0, 1.0], [0.0, 0.0]])
    mean = weighted_mean(torch.tensor([[3.0, 4.0, 9.0], [0.0, 0.0, 1.0]]), vectors)
    assert mean[0].tolist() == pytest.approx([0.6, 0.8]) and mean[1].tolist() == [0.0, 0.0]


def test_only_genes_with_a_text_are_ranked() -> None:
    known = torch.tensor([True, False, True, True, True])
    cells = torch.cat([CELL, torch.tensor([[5.0, 9.0, 0.0, 0.0, 0.0]])])
    assert ranked_genes(cells, 3, known).tolist() == [[3, 4, 2], [0, -1, -1]]


def reader(*, with_lm: bool = True) -> GeneReader:
    torch.manual_seed(0)
    lm = Qwen3ForCausalLM(
        Qwen3Config(
            vocab_size=20, hidden_size=16, intermediate_size=16, num_hidden_layers=2, num_attention_heads=2,
            num_key_value_heads=1, head_dim=8,
        )
    )  # fmt: skip
    config = GeneReaderConfig(n_vector=6, n_classes=3, n_genes=5, n_rank=4, n_hidden=8, with_lm=with_lm)
    return GeneReader(config, torch.randn(7, 6), lm, [1, 2, 3]).eval()


@pytest.mark.parametrize("with_lm", [True, False])
def test_a_padded_batch_of_genes_gives_what_single_cells_give(with_lm: bool) -> None:
    model = reader(with_lm=with_lm)
    genes = torch.tensor([[0, 3, 6, 2], [5, 1, -1, -1]])
    alone = torch.cat([model(genes[:1]), model(genes[1:, :2])])
    assert torch.allclose(model(genes), alone, atol=1e-5)
    assert not torch.allclose(model(genes[:1]), model(genes[:1].flip(1)), atol=1e-4)  # the order is read


def test_what_tells_genes_apart_reaches_the_projector_of_a_reader_however_alike_their_texts_are() -> None:
    torch.manual_seed(0)
    alike = 5.0 + 0.01 * torch.randn(40, 6)
    alike[:, 5] = 1.0  # says nothing
    config = GeneReaderConfig(n_vector=6, n_classes=3, n_genes=5, n_rank=4, n_hidden=32, with_lm=False)
    model = GeneReader(config, alike).eval()
    assert torch.allclose(model.gene_vectors[:, :5].std(dim=0, correction=0), torch.ones(5), atol=1e-3)
    assert not model.gene_vectors[:, 5].any()
    projected = model.project(torch.arange(40)[:, None])[:, 0]  # [40, D], each gene at the first rank
    between = torch.nn.functional.cosine_similarity(projected[:-1], projected[1:]).mean()
    assert float(between.detach()) < 0.9


def test_only_projector_cls_and_classifier_of_a_reader_train() -> None:
    model = reader().train()
    torch.nn.functional.cross_entropy(model(torch.tensor([[0, 1], [2, 3]])), torch.tensor([0, 1])).backward()
    trained = {name.split(".")[0] for name, value in model.named_parameters() if value.grad is not None}
    assert trained == {"projector", "cls", "classifier"}
    assert not model.lm.training and sum(isinstance(x, torch.nn.Linear) for x in model.projector) == 5


def test_the_trained_state_of_a_reader_is_all_that_must_be_kept() -> None:
    model, other = reader(), reader()
    with torch.no_grad():
        model.cls.add_(1.0)
    state = model.trained_state()
    assert not any(name.startswith("lm.") for name in state)
    other.load_trained_state(state)
    genes = torch.tensor([[0, 3, 6]])
    assert torch.equal(model(genes), other(genes))
    with pytest.raises(ValueError, match="lacks"):
        other.load_trained_state({})
    with pytest.raises(ValueError, match="needs a language model"):
        GeneReader(dataclasses.replace(model.config), torch.randn(7, 6))


def test_the_fusion_reads_both_views_after_standardising_them() -> None:
    torch.manual_seed(0)
    text, expression = torch.randn(50, 4), 1000 * torch.randn(50, 3) + 500
    model = Fusion(FusionConfig(4, 3, 2, n_hidden=16))
    model.standardise(text, expression)
    base = model(text, expression)
    assert base.shape == (50, 2) and model.embed(text, expression).shape == (50, 32)
    assert not torch.allclose(base, model(text + 1, expression)) and base.abs().max() < 10
    assert not torch.allclose(base, model(text, expression + 500))
    again = Fusion(model.config)
    again.load_state_dict(model.state_dict())
    assert torch.equal(again(text, expression), base)
    with pytest.raises(ValueError, match="n_text"):
        FusionConfig(0, 3, 2)


def test_a_sentence_encoder_without_a_limit_takes_every_word() -> None:
    model = SimpleNamespace(max_seq_length=None, tokenizer=None)
    assert CellSentenceEncoder(model, GENES, SentenceConfig(None)).fits(["A"] * 1000) == 1000
