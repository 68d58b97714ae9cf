"""The systems of the literature on AnnData: embeddings, neighbours, language models, sentences back to cells."""

from __future__ import annotations

import json
from pathlib import Path

import anndata as ad
import httpx
import numpy as np
import pandas as pd
import pytest
import tiny
import tiny_text
import torch
from sentence_transformers import SentenceTransformer
from transformers import BertConfig, BertModel, T5Config, T5ForConditionalGeneration

import instructcell as ic
from encoders import CellSentences, Fusion, FusionConfig, RankFit, SentenceConfig
from instructcell.errors import CheckpointError, ConfigError, GeneTextError, LabelError, LanguageModelError
from instructcell.literature import frames
from instructcell.literature.cell_sentence_lm import CellSentenceLM, CellSentenceSettings
from instructcell.literature.embed import RECORD, TextOptions, describe_encoders
from instructcell.literature.gene_texts import gene_texts, gene_vectors
from instructcell.literature.language import (
    Endpoint,
    LocalLanguageModel,
    load_causal_lm,
    named_option,
    open_language_model,
    score_options,
)
from instructcell.literature.neighbours import cluster_agreement, vote
from instructcell.literature.reading import read_named
from instructcell.literature.rerank import ask_types, marker_quiz, rerank
from instructcell.literature.text_encoder import load_text_encoder
from instructcell.literature.trained import TrainedFusion, build_reader, load_fusion, load_reader
from instructcell.toolbox import Toolbox

LABELS = tuple(tiny.MARKERS)


@pytest.fixture(scope="module")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> SentenceTransformer:
    return tiny_text.sentence_model(tmp_path_factory.mktemp("bert"))


@pytest.fixture(scope="module")
def lm_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_text.causal_lm(tmp_path_factory.mktemp("qwen"))


@pytest.fixture(scope="module")
def cells() -> ad.AnnData:
    return tiny.make_adata(40)


def options(encoder: SentenceTransformer, tmp_path: Path, **more: object) -> TextOptions:
    return TextOptions(text_encoder=encoder, cache=tmp_path, **more)


# ---- embeddings


@pytest.mark.parametrize("name", ["sentence", "gene_text"])
def test_an_encoder_writes_one_vector_per_cell_that_the_order_of_genes_does_not_change(
    name: str, encoder: SentenceTransformer, cells: ad.AnnData, tmp_path: Path
) -> None:
    turned = cells[:, ::-1].copy()
    first = ic.tl.embed(cells, encoder=name, text=options(encoder, tmp_path))
    second = ic.tl.embed(turned, encoder=name, obsm="X_mine", text=options(encoder, tmp_path))
    assert first.shape == (40, 32) and np.allclose(np.linalg.norm(first, axis=1), 1, atol=1e-5)
    assert np.allclose(first, second, atol=1e-5) and np.array_equal(turned.obsm["X_mine"], second)
    assert f"X_{name}" in cells.obsm


def test_mouse_cells_share_the_space_of_their_human_counterparts(
    encoder: SentenceTransformer, cells: ad.AnnData, tmp_path: Path
) -> None:
    from instructcell.genes import load_gene_table

    mouse = load_gene_table().set_index("symbol")["mouse_symbol"]
    both = cells[:, [bool(mouse.get(name)) for name in cells.var_names]].copy()
    as_mouse = both.copy()
    as_mouse.var_names = [mouse[name] for name in both.var_names]
    for name in ("sentence", "gene_text"):
        human = ic.tl.embed(both, encoder=name, text=options(encoder, tmp_path), species="human")
        other = ic.tl.embed(as_mouse, encoder=name, text=options(encoder, tmp_path), species="mouse")
        assert np.allclose(human, other, atol=1e-5)


def test_a_fusion_sets_text_beside_the_expression_encoder_or_an_obsm(
    encoder: SentenceTransformer, cells: ad.AnnData, tiny_checkpoint: Path, tmp_path: Path
) -> None:
    adata = cells.copy()
    fused = ic.tl.embed(adata, encoder="fusion", checkpoint=tiny_checkpoint, text=options(encoder, tmp_path))
    assert fused.shape == (40, 32 + 8)
    adata.obsm["X_scGPT"] = np.random.default_rng(0).normal(size=(40, 5))
    plugged = ic.tl.embed(adata, encoder="fusion", text=options(encoder, tmp_path, expression="X_scGPT"))
    assert plugged.shape == (40, 37) and np.allclose(plugged[:, :32], fused[:, :32])
    with pytest.raises(ic.InstructCellError, match="no 'X_scVI' in obsm"):
        ic.tl.embed(adata, encoder="fusion", text=options(encoder, tmp_path, expression="X_scVI"))
    adata.obsm["X_scGPT"][0, 0] = np.nan
    with pytest.raises(ic.InstructCellError, match="NaN"):
        ic.tl.embed(adata, encoder="fusion", text=options(encoder, tmp_path, expression="X_scGPT"))


def test_a_trained_fusion_writes_its_dense_layers_and_refuses_other_widths(
    encoder: SentenceTransformer, cells: ad.AnnData, tmp_path: Path
) -> None:
    adata = cells.copy()
    adata.obsm["X_a"], adata.obsm["X_b"] = np.ones((40, 3)), np.ones((40, 4))
    head = Fusion(FusionConfig(32, 3, 2, n_hidden=6))
    folder = TrainedFusion(head, ("a", "b"), {"expression": "X_a"}).save(tmp_path / "scmpt")
    found = ic.tl.embed(adata, encoder="fusion", text=options(encoder, tmp_path, expression="X_a", model=folder))
    assert found.shape == (40, 12) and (found >= 0).all()
    loaded = load_fusion(folder)
    text, expression = torch.ones(2, 32), torch.ones(2, 3)
    assert np.allclose(loaded.probabilities(text, expression).sum(axis=1), 1)
    assert torch.equal(loaded.model(text, expression), head(text, expression))
    with pytest.raises(ic.InstructCellError, match="width 3, found 4"):
        ic.tl.embed(adata, encoder="fusion", text=options(encoder, tmp_path, expression="X_b", model=folder))
    with pytest.raises(CheckpointError, match="expected a gene reader"):
        load_reader(folder)


def test_an_obsm_of_ones_own_keeps_the_usual_one(cells: ad.AnnData, tiny_checkpoint: Path) -> None:
    adata = cells.copy()
    adata.obsm["X_instructcell"] = np.zeros((40, 1))
    found = ic.tl.embed(adata, checkpoint=tiny_checkpoint, obsm="X_other")
    assert np.array_equal(adata.obsm["X_other"], found) and adata.obsm["X_instructcell"].shape == (40, 1)


def test_an_unknown_encoder_is_refused_with_the_known_ones(cells: ad.AnnData) -> None:
    with pytest.raises(ConfigError, match="expression, sentence, gene_text, fusion"):
        ic.tl.embed(cells, encoder="image")


def test_the_record_says_which_encoder_saw_what_and_survives_a_file(
    encoder: SentenceTransformer, tiny_checkpoint: Path, tmp_path: Path
) -> None:
    adata = tiny.make_adata(12)
    assert "No encoder" in describe_encoders(adata)
    sentence = SentenceConfig(20, hash_genes="consistent")
    ic.tl.embed(adata, encoder="sentence", text=options(encoder, tmp_path, sentence=sentence))
    ic.tl.embed(adata, encoder="gene_text", text=options(encoder, tmp_path))
    adata.write_h5ad(tmp_path / "cells.h5ad")
    again = ad.read_h5ad(tmp_path / "cells.h5ad")
    assert again.uns[RECORD]["X_sentence"]["sentence_hash_genes"] == "consistent"
    said = describe_encoders(again)
    assert "X_sentence" in said and "in order of expression" in said and "descriptions of the genes" in said
    box = Toolbox(checkpoint=tiny_checkpoint)
    box.open(tmp_path / "cells.h5ad")
    assert box.run("describe").facts["encoders"] == said


def test_the_installed_text_encoder_tells_cells_of_the_demo_apart() -> None:
    """The real all-MiniLM-L6-v2 on a few real cells: sentences of one type are nearer to each other."""
    from instructcell.resources import demo_path

    adata = ic.read(demo_path("islets"))
    column = next(name for name in ("cell_type", "label") if name in adata.obs)
    names = adata.obs[column].astype(str)
    types = names.value_counts().index[:2]
    chosen = np.concatenate([np.flatnonzero(names == name)[:6] for name in types])
    vectors = ic.tl.embed(adata[chosen].copy(), encoder="sentence", text=TextOptions(sentence=SentenceConfig(40)))
    likeness = vectors @ vectors.T
    same = names.iloc[chosen].to_numpy()[:, None] == names.iloc[chosen].to_numpy()[None]
    assert likeness[same & ~np.eye(12, dtype=bool)].mean() > likeness[~same].mean()


# ---- gene texts


def test_shipped_texts_hold_symbol_name_and_function() -> None:
    text = gene_texts(tiny.tiny_genes())["GCG"]
    assert text.startswith("GCG: glucagon; protein coding; ") and "hormone activity" in text


def test_an_ncbi_style_table_is_read_by_path_with_its_aliases_approved(tmp_path: Path) -> None:
    genes = tiny.tiny_genes()
    rows = [{"Symbol": gene, "Full_Name": f"name of {gene}", "Summary": f"what {gene} does"} for gene in genes]
    next(row for row in rows if row["Symbol"] == "MS4A1")["Symbol"] = "CD20"
    pd.DataFrame(rows).to_csv(tmp_path / "genes.tsv.gz", sep="\t", index=False)
    texts = gene_texts(genes, tmp_path / "genes.tsv.gz")
    assert texts["MS4A1"] == "MS4A1: name of MS4A1; what MS4A1 does" and len(texts) == len(genes)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("symbol\tcolour\nINS\tred\n", "expected one of symbols"),
        ("symbol\tsummary\nINS\tinsulin\n", "1 of 200 genes have a text"),
        ("symbol\tsummary\n\x00\xff", None),
    ],
)
def test_a_table_without_texts_is_refused(content: str, said: str | None, tmp_path: Path) -> None:
    (tmp_path / "genes.tsv").write_bytes(content.encode("latin-1"))
    with pytest.raises(GeneTextError, match=said):
        gene_texts(tiny.tiny_genes(), tmp_path / "genes.tsv")


def test_a_missing_table_is_named() -> None:
    with pytest.raises(GeneTextError, match=r"no table of gene texts at nowhere\.tsv"):
        gene_texts(["INS"], "nowhere.tsv")


def test_a_gene_is_embedded_once_and_again_when_its_text_or_encoder_changes(
    encoder: SentenceTransformer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []
    embed = encoder.encode
    monkeypatch.setattr(encoder, "encode", lambda texts, **kw: asked.extend(texts) or embed(texts, **kw))
    first = gene_vectors({"A": "INS", "B": "GCG"}, encoder, cache=tmp_path)
    again = gene_vectors({"A": "INS", "B": "SST", "C": "GCG"}, encoder, cache=tmp_path)
    assert asked == ["INS", "GCG", "SST"]
    assert np.array_equal(first["A"], again["A"]) and np.array_equal(first["B"], again["C"])
    other = tiny_text.sentence_model(tmp_path / "other", seed=1)
    assert not np.allclose(gene_vectors({"A": "INS"}, other, cache=tmp_path)["A"], first["A"])
    for path in tmp_path.glob("*.safetensors"):
        path.write_bytes(b"damaged")
    assert np.allclose(gene_vectors({"A": "INS"}, encoder, cache=tmp_path)["A"], first["A"])


# ---- neighbours


def test_neighbours_vote_and_the_nearer_of_equal_votes_wins() -> None:
    known = np.array([[1, 0], [0.9, 0.1], [0, 1], [0.1, 0.9]])
    votes = vote(known, np.array(["a", "b", "c", "c"]), np.array([[1.0, 0.0], [0.0, 1.0]]), k=2)
    assert votes.labels.tolist() == ["a", "c"] and votes.share.tolist() == [0.5, 1.0]
    assert votes.candidates == [["a", "b"], ["c"]]


def test_neighbours_agree_with_scikit_learn() -> None:
    from sklearn.neighbors import KNeighborsClassifier

    rng = np.random.default_rng(0)
    known, labels, new = rng.normal(size=(90, 5)), rng.permutation(np.resize(list("xyz"), 90)), rng.normal(size=(40, 5))
    theirs = KNeighborsClassifier(10, metric="cosine").fit(known, labels)
    ours, shares = vote(known, labels, new), theirs.predict_proba(new)
    assert np.allclose(ours.share, shares.max(axis=1))
    clear = np.sort(shares, axis=1)[:, -1] > np.sort(shares, axis=1)[:, -2]
    assert clear.sum() > 20 and (ours.labels == theirs.predict(new))[clear].all()


def test_clusters_that_are_the_labels_agree_with_them_and_others_do_not() -> None:
    rng = np.random.default_rng(0)
    labels = np.repeat(["a", "b", "c"], 20)
    points = np.repeat(np.eye(3), 20, axis=0) + 0.01 * rng.normal(size=(60, 3))
    assert cluster_agreement(points, labels) == pytest.approx({"ari": 1.0, "ami": 1.0})
    assert cluster_agreement(points, rng.permutation(labels))["ari"] < 0.2


def test_one_type_only_is_refused_by_name() -> None:
    with pytest.raises(LabelError, match="only 'a' among the labelled cells"):
        vote(np.eye(2), np.array(["a", "a"]), np.eye(2))
    with pytest.raises(LabelError, match="at least two types"):
        cluster_agreement(np.eye(2), np.array(["a", "a"]))


# ---- language models


def answering(*replies: object) -> tuple[Endpoint, list[str]]:
    """An endpoint that gives these replies in turn, and the prompts it gets."""
    prompts: list[str] = []
    waiting = list(replies)

    def handle(request: httpx.Request) -> httpx.Response:
        prompts.append(json.loads(request.content)["messages"][0]["content"])
        reply = waiting.pop(0)
        if isinstance(reply, httpx.Response):
            return reply
        if isinstance(reply, Exception):
            raise reply
        return httpx.Response(200, json={"choices": [{"message": {"content": reply}}]})

    return Endpoint("http://llm.test/v1", "chat", transport=httpx.MockTransport(handle)), prompts


def test_a_language_model_chooses_among_the_neighbours_types_and_the_first_counts_if_it_is_unsure() -> None:
    model, prompts = answering("B cell", "I cannot tell.")
    candidates = [["T cell", "B cell"], ["mast cell"], ["T cell", "B cell"]]
    found = list(rerank([["MS4A1", "CD79A"], ["KIT"], ["LYZ"]], candidates, model, species="human"))
    assert found == ["B cell", "mast cell", "T cell"] and len(prompts) == 2
    assert "MS4A1 CD79A" in prompts[0] and "T cell; B cell" in prompts[0] and "unsure, choose the first" in prompts[0]


def test_without_training_the_fifteen_frames_are_asked_under_a_line_with_all_types() -> None:
    words, labels = [["MS4A1"], ["CD3D", "CD3E"]], ["T cell", "B cell"]
    model, prompts = answering("B cell", "none of these", "T cell")
    assert list(ask_types(words, labels, model, species="human", seed=3)) == ["B cell", ""]
    assert list(ask_types(words[1:], labels, model, species="human", seed=3, first_cell=1)) == ["T cell"]
    asked = [frames.ask_type(cell, species="human", frame=frames.draw_frame(i, 3)) for i, cell in enumerate(words)]
    for prompt, question in zip(prompts, [*asked, asked[1]], strict=True):  # the last goes on behind the first cell
        assert "T cell; B cell" in prompt and question in prompt and question != prompt


def test_answers_before_an_endpoint_went_down_are_kept() -> None:
    model, _ = answering("B cell", httpx.ConnectError("refused"))
    found = []
    with pytest.raises(LanguageModelError, match=r"no language model answers at http://llm\.test/v1"):
        for answer in ask_types([["MS4A1"], ["CD3D"]], ["T cell", "B cell"], model):
            found.append(answer)
    assert found == ["B cell"]


@pytest.mark.parametrize(
    ("reply", "said"),
    [
        (httpx.ConnectTimeout("slow"), "no language model answers"),
        (httpx.Response(404, text="model not found"), "check the address and the model"),
        (httpx.Response(401, text="no key"), "INSTRUCTCELL_LLM_KEY"),
        (httpx.Response(400, text="maximum context length is 512 tokens"), "Name fewer genes per cell"),
        (httpx.Response(200, text="<html>"), "no chat completion"),
        (httpx.Response(200, json={"choices": []}), "no chat completion"),
    ],
)
def test_what_goes_wrong_at_an_endpoint_is_said_in_one_sentence(reply: object, said: str) -> None:
    with pytest.raises(LanguageModelError, match=said):
        answering(reply)[0].reply("hello")


def test_the_key_of_an_endpoint_comes_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("INSTRUCTCELL_LLM_KEY", "secret")
    assert open_language_model("chat", "http://llm.test/v1/")._client.headers["Authorization"] == "Bearer secret"  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("text", "chosen"),
    [
        (" B cell. ", 1),
        ("It is a regulatory T cell", 2),
        ("T cell or B cell", None),
        ("MAST CELL", None),
        ("T cells", None),
        ("the T cell", 0),
    ],
)
def test_the_option_a_reply_names(text: str, chosen: int | None) -> None:
    assert named_option(text, ["T cell", "B cell", "regulatory T cell"]) == chosen


def test_options_are_scored_as_reading_each_whole_answer_would(lm_folder: Path) -> None:
    model, tokenizer = load_causal_lm(lm_folder)
    model.eval()
    prompt, answers = "These genes: INS GCG. Type:", ["B cell", "pancreatic A cell", "natural killer cell"]
    expected = []
    for answer in answers:
        asked = tokenizer(prompt)["input_ids"]
        ids = tokenizer(f" {answer}", add_special_tokens=False)["input_ids"] + [tokenizer.eos_token_id]
        with torch.no_grad():
            logits = model(torch.tensor([asked + ids])).logits[0].log_softmax(-1)
        expected.append(sum(float(logits[len(asked) - 1 + i, token]) for i, token in enumerate(ids)))
    assert score_options(model, tokenizer, prompt, answers).tolist() == pytest.approx(expected, abs=1e-3)
    assert LocalLanguageModel(lm_folder).choose(prompt, answers) == int(np.argmax(expected))


def test_a_prompt_longer_than_the_context_is_refused_with_its_length(tmp_path: Path) -> None:
    local = LocalLanguageModel(tiny_text.causal_lm(tmp_path, context=16))
    with pytest.raises(LanguageModelError, match=r"the model reads at most 16; name fewer genes"):
        local.choose(" ".join(tiny.tiny_genes()), ["a", "b"])


def test_a_model_of_another_kind_is_refused_by_its_kind(tmp_path: Path) -> None:
    T5ForConditionalGeneration(
        T5Config(d_model=8, d_ff=8, d_kv=4, num_heads=2, num_layers=1, vocab_size=20)
    ).save_pretrained(tmp_path / "t5")
    BertModel(
        BertConfig(vocab_size=20, hidden_size=8, num_hidden_layers=1, num_attention_heads=2, intermediate_size=8)
    ).save_pretrained(tmp_path / "bert")
    for kind in ("t5", "bert"):
        with pytest.raises(LanguageModelError, match=r"holds a (T5|Bert).*expected a causal language model"):
            load_causal_lm(tmp_path / kind)
    with pytest.raises(LanguageModelError, match="found no language model at"):
        load_causal_lm(tmp_path / "nothing")


def test_a_folder_without_a_text_encoder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(LanguageModelError, match="is no text encoder"):
        load_text_encoder(tmp_path)


class Knows:
    """A language model that knows the markers."""

    name = "knows"

    def choose(self, prompt: str, options: list[str]) -> int | None:
        label = prompt.split("cell type ")[1].split(":")[0]
        return next((i for i, gene in enumerate(options) if gene in tiny.MARKERS[label][1]), None)


def test_the_marker_quiz_tells_a_model_that_knows_from_one_that_says_nothing() -> None:
    markers = {name: genes for name, (_, genes) in tiny.MARKERS.items()}
    known = marker_quiz(markers, Knows())
    assert known.accuracy == 1.0 and known.n_questions == 24 and known.chance == 0.25
    silent, _ = answering(*[""] * 24)
    assert marker_quiz(markers, silent).accuracy == 0.0
    with pytest.raises(LabelError, match="no quiz can be made"):
        marker_quiz({"a": ["X"]}, Knows())


# ---- cell sentences with a causal model


def test_there_are_fifteen_frames_and_an_item_keeps_its_own() -> None:
    assert len(set(frames.FRAMES)) == 15
    assert all(text.count("{words}") == text.count("{n}") == text.count("{species}") == 1 for text in frames.FRAMES)
    drawn = [frames.draw_frame(item, seed=0) for item in range(200)]
    assert set(drawn) == set(frames.FRAMES) and drawn == [frames.draw_frame(item, seed=0) for item in range(200)]
    assert frames.ask_type(["INS", "GCG"]).startswith("These 2 genes of one cell run")


@pytest.fixture(scope="module")
def cell_sentence_lm(lm_folder: Path, tmp_path_factory: pytest.TempPathFactory, cells: ad.AnnData) -> CellSentenceLM:
    folder = tmp_path_factory.mktemp("emcell")
    model, tokenizer = load_causal_lm(lm_folder)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    genes = tuple(sorted(cells.var_names))
    fit = RankFit.fit(torch.tensor(np.asarray(cells.X)))
    CellSentenceSettings(LABELS, 10, genes, fit).save(folder)
    return CellSentenceLM.load(folder)


def test_a_cell_sentence_model_answers_with_one_of_its_labels(
    cell_sentence_lm: CellSentenceLM, cells: ad.AnnData
) -> None:
    table = cell_sentence_lm.annotate(cells[:5].copy())
    assert table["cell_type"].isin(LABELS).all() and table["confidence"].between(0, 1).all()
    named = read_named(cells[:1].copy())
    words = CellSentences(named.genes, SentenceConfig(10))(next(named.pieces()))
    best, share = next(cell_sentence_lm.name(words, species="human"))
    assert (best, pytest.approx(share)) == (table["cell_type"].iloc[0], table["confidence"].iloc[0])
    two = cell_sentence_lm.annotate(cells[:5].copy(), labels=LABELS[:2])
    assert set(two["cell_type"]) <= set(LABELS[:2])


def test_a_cell_sentence_model_writes_cells_as_expression_with_a_seed(cell_sentence_lm: CellSentenceLM) -> None:
    made = cell_sentence_lm.generate("B cell", 2, seed=1)
    again = cell_sentence_lm.generate("B cell", 2, seed=1)
    assert made.shape == (2, len(cell_sentence_lm.settings.genes)) and (made.X.data >= 0).all()
    assert (made.X != again.X).nnz == 0 and (made.obs["n_words"] <= 10).all()
    with pytest.raises(LabelError, match="knows no cell type 'hepatocyte'"):
        cell_sentence_lm.write("hepatocyte", 1)


def test_a_folder_that_was_not_trained_on_sentences_is_refused(lm_folder: Path) -> None:
    with pytest.raises(LanguageModelError, match=r"no cell_sentences\.json"):
        CellSentenceLM.load(lm_folder)


# ---- gene readers


@pytest.mark.parametrize("with_lm", [True, False])
def test_a_gene_reader_is_kept_without_its_language_model_and_reads_the_same_again(
    with_lm: bool, encoder: SentenceTransformer, lm_folder: Path, cells: ad.AnnData, tmp_path: Path
) -> None:
    text_folder = tmp_path / "encoder"
    encoder.save(str(text_folder))
    backbone = lm_folder if with_lm else None
    reader = build_reader(
        list(cells.var_names), LABELS, backbone=backbone, text_encoder=str(text_folder), cache=tmp_path,
        n_genes=30, n_rank=4, n_hidden=8,
    )  # fmt: skip
    counts = torch.tensor(np.asarray(cells.X))
    probabilities = reader.probabilities(counts, list(cells.var_names))
    assert probabilities.shape == (40, len(LABELS)) and np.allclose(probabilities.sum(axis=1), 1, atol=1e-5)
    folder = reader.save(tmp_path / "reader")
    again = load_reader(folder, cache=tmp_path)
    assert np.allclose(again.probabilities(counts, list(cells.var_names)), probabilities, atol=1e-5)
    adata = cells.copy()
    states = ic.tl.embed(adata, encoder="gene_text", text=TextOptions(model=folder, cache=tmp_path))
    assert states.shape == (40, 32 if with_lm else 8)


def test_a_gene_reader_too_long_for_its_model_is_refused(
    encoder: SentenceTransformer, lm_folder: Path, cells: ad.AnnData, tmp_path: Path
) -> None:
    encoder.save(str(tmp_path / "encoder"))
    with pytest.raises(LanguageModelError, match="an instruction with 2048 genes takes"):
        build_reader(
            list(cells.var_names), LABELS, backbone=lm_folder, text_encoder=str(tmp_path / "encoder"), cache=tmp_path
        )
    assert not list(tmp_path.glob("gene_vectors-*"))  # refused before the genes were embedded
