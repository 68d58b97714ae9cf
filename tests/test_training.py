"""Training and evaluation: recipes, splits, examples, calibration, metrics, and one small run from files to answers."""

from __future__ import annotations

import dataclasses
import hashlib
import math
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from random import Random

import h5py
import numpy as np
import pandas as pd
import pytest
import torch
from anndata.io import read_elem
from made_up import BLOOD, GENES, ISLETS, KINDS, LUNG, made_up_cells, micro_recipe, write_data
from safetensors.torch import load_file
from scipy import sparse

from instructcell import tools
from instructcell.checkpoint import load_checkpoint
from instructcell.errors import ConfigError, ReadError
from instructcell.labels import Label, LabelSet
from instructcell.prompts import DRUG_ANSWERS
from instructcell.tools import calibrate
from train import baselines, build, metrics
from train.augment import augment_cell, gene_factors
from train.build import Run, cell_targets, label_set, mean_share
from train.calibrate import fit_calibration, fit_temperature
from train.card import model_card
from train.collator import (
    TASKS,
    CellChoice,
    CellTensors,
    InstructionDataset,
    annotation_strata,
    drug_strata,
    generation_strata,
)
from train.datasets import find_data, hold_out, load_dataset, load_datasets, to_adata
from train.instructions import CellRecord, instruction, load_catalog
from train.profiles import _fill_unmeasured, reference_profiles
from train.recipe import Augmentation, DataEntry, load_recipe, with_backbone
from train.vocabulary import choose_genes


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data folder with three small made-up files."""
    return write_data(tmp_path_factory.mktemp("data"))


@pytest.fixture(scope="module")
def datasets(data: Path):
    return load_datasets(micro_recipe(), data, GENES)


@pytest.fixture(scope="module")
def examples(datasets) -> InstructionDataset:
    labels = label_set(datasets)
    catalog = load_catalog({label.name: label.tissues for label in labels}, [label.name for label in labels])
    return InstructionDataset(datasets, micro_recipe(), catalog, length=120)


# ---- recipes


def write_recipe(folder: Path, text: str) -> Path:
    path = folder / "recipe.yaml"
    path.write_text(text, encoding="utf-8")
    return path


def test_an_unknown_key_is_refused_and_the_nearest_known_one_named(tmp_path):
    path = write_recipe(tmp_path, "data: []\noutput: x\nn_gene: 5\n")
    with pytest.raises(ConfigError, match="unknown key 'n_gene'; did you mean 'n_genes'"):
        load_recipe(path)


def test_an_unknown_key_deep_inside_a_recipe_is_refused_too(tmp_path):
    path = write_recipe(tmp_path, "output: x\ndata: []\naugmentation: {thining: 0.5}\n")
    with pytest.raises(ConfigError, match="augmentation.*did you mean 'thinning'"):
        load_recipe(path)


@pytest.mark.parametrize("text", ["data: [", "- a list\n", "output: x\n"])
def test_a_recipe_that_is_no_recipe_is_a_config_error(tmp_path, text):
    with pytest.raises(ConfigError, match="recipe.yaml"):
        load_recipe(write_recipe(tmp_path, text))


def test_a_missing_recipe_is_answered_with_those_that_ship():
    with pytest.raises(ConfigError, match="mini"):
        load_recipe("maxi")


def test_a_training_file_that_holds_nothing_out_is_refused():
    with pytest.raises(ConfigError, match="hold_out"):
        DataEntry(BLOOD)


def test_in_the_mini_recipe_every_training_file_holds_something_out_and_donor_1_is_never_trained_on():
    recipe = load_recipe("mini")
    assert all(entry.hold_out for entry in recipe.data if entry.use == "training")
    assert recipe.entry("pancreas_baron_human_donor1").use == "evaluation"
    assert isinstance(recipe.stages.instructions.learning_rate, float)
    assert recipe.entry(LUNG).drug[0].name == "gefitinib"


def test_another_backbone_keeps_the_recipe_under_a_name_of_its_own():
    other = with_backbone(micro_recipe(), "Qwen/Qwen3-0.6B")
    assert (other.backbone, other.output, other.data) == ("Qwen/Qwen3-0.6B", "micro-qwen3-0.6b", micro_recipe().data)


# ---- splits


def test_a_hold_out_column_that_the_file_lacks_is_refused():
    with pytest.raises(ConfigError, match="'patient'; obs has .*donor"):
        hold_out(made_up_cells(ISLETS, 9, 0).obs, DataEntry(ISLETS, hold_out={"patient": ["x"]}), 0)


def test_a_hold_out_group_that_the_file_lacks_is_refused():
    with pytest.raises(ConfigError, match=r"no group \['human9'\]; it has .*human2"):
        hold_out(made_up_cells(ISLETS, 9, 0).obs, DataEntry(ISLETS, hold_out={"donor": ["human9"]}), 0)


def test_held_out_groups_are_whole(datasets):
    islets = datasets[0]
    assert np.array_equal(np.flatnonzero(islets.held_out), np.arange(60, 90))  # donor human4


def test_no_cell_is_on_both_sides(datasets):
    for cells in datasets:
        both = set(cells.training_rows) & set(np.flatnonzero(cells.held_out))
        assert not both
        assert len(cells.training_rows) + cells.held_out.sum() == cells.counts.shape[0]


def test_an_evaluation_file_is_held_out_altogether():
    assert hold_out(made_up_cells(ISLETS, 9, 0).obs, DataEntry(ISLETS, use="evaluation"), 0).all()


def test_a_held_out_share_is_taken_of_every_label_and_stays_the_same_for_a_seed():
    obs, entry = made_up_cells(BLOOD, 60, 0).obs, DataEntry(BLOOD, hold_out=0.2)
    held = hold_out(obs, entry, seed=0)
    assert obs["cell_type"][held].value_counts().to_dict() == dict.fromkeys(KINDS[BLOOD], 4)
    assert np.array_equal(held, hold_out(obs, entry, seed=0))
    assert not np.array_equal(held, hold_out(obs, entry, seed=1))


def test_a_label_with_fewer_than_five_cells_stays_in_training():
    obs = pd.DataFrame({"cell_type": ["rare"] * 4 + ["common"] * 20})
    held = hold_out(obs, DataEntry(BLOOD, hold_out=0.1), 0)
    assert held[:4].sum() == 0
    assert held[4:].sum() == 2


def real_splits() -> dict[str, list[tuple[str, pd.DataFrame, np.ndarray, sparse.csr_matrix]]]:
    """Per study: (file, obs, held out, matrix) of the mini recipe's real files."""
    try:
        folder = find_data()
    except ConfigError:
        pytest.skip("the training files are not on this machine, so the real splits were not checked")
    recipe, studies = load_recipe("mini"), {}
    for entry in recipe.data:
        with h5py.File(folder / f"{entry.file}.h5ad") as file:
            obs, matrix = read_elem(file["obs"]), sparse.csr_matrix(read_elem(file["X"]))
        study = entry.file.split("_donor")[0]  # Baron's human donors lie in two files
        studies.setdefault(study, []).append((entry.file, obs, hold_out(obs, entry, recipe.seed), matrix))
    return studies


def test_no_real_cell_is_on_both_sides_of_the_mini_recipe():
    for study, parts in real_splits().items():
        trained, unseen = set(), set()
        for _, obs, held, matrix in parts:
            names = [("name", name) for name in obs.index.astype(str)]
            prints = [("counts", fingerprint(matrix, row)) for row in range(matrix.shape[0])]
            for row, is_held in enumerate(held):
                (unseen if is_held else trained).update((names[row], prints[row]))
        assert unseen and not trained & unseen, study


def fingerprint(matrix: sparse.csr_matrix, row: int) -> str:
    start, end = matrix.indptr[row : row + 2]
    content = np.concatenate([matrix.indices[start:end], matrix.data[start:end]])
    return hashlib.sha256(content.astype(np.float64).tobytes()).hexdigest()


# ---- reading labelled cells


def test_labels_come_through_the_label_map_and_drug_responses_through_the_recipe(datasets):
    islets, _, lung = datasets
    assert set(zip(islets.label, islets.label_id, strict=True)) == {
        ("type B pancreatic cell", "CL:0000169"),
        ("pancreatic A cell", "CL:0000171"),
        ("pancreatic D cell", "CL:0000173"),
    }
    names, responses = lung.drugs[0]
    assert set(names) == {"gefitinib"}
    assert np.array_equal(responses == "sensitive", lung.dataset_label == "HCC827")


def test_a_label_that_is_not_in_the_label_map_stops_the_run(tmp_path):
    cells = made_up_cells(BLOOD, 40, 0)
    cells.obs["cell_type"] = "CD99+ mystery"
    cells.write_h5ad(tmp_path / f"{BLOOD}.h5ad")
    with pytest.raises(ConfigError, match="CD99"):
        load_dataset(DataEntry(BLOOD, hold_out=0.1), tmp_path, GENES, 0)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(ReadError, match=BLOOD):
        load_dataset(DataEntry(BLOOD, hold_out=0.1), tmp_path, GENES, 0)


def test_no_data_folder_is_answered_with_the_option_that_names_one(tmp_path):
    with pytest.raises(ConfigError, match="--data"):
        find_data(tmp_path)


def test_genes_that_no_training_cell_expresses_are_not_chosen_and_markers_always_are(datasets):
    unseen = [*GENES, "OR4F5", "OR4F29"]
    wider = [
        dataclasses.replace(
            cells,
            counts=sparse.hstack([cells.counts, sparse.csr_matrix((cells.counts.shape[0], 2))]).tocsr(),
            measured=np.append(cells.measured, [True, True]),
        )
        for cells in datasets
    ]
    chosen = [unseen[j] for j in choose_genes(wider, unseen, 80, {"LEPR"})]
    assert len(chosen) == 80
    assert "LEPR" in chosen
    assert not {"OR4F5", "OR4F29"} & set(chosen)
    assert {"INS", "GCG", "LYZ"} <= set(chosen)


def test_cells_handed_to_a_baseline_carry_their_labels_and_measured_genes(datasets):
    adata = to_adata(datasets[0], [3, 5], GENES)
    assert list(adata.obs["label"]) == list(datasets[0].label[[3, 5]])
    assert list(adata.var_names) == GENES


# ---- sampling


def shares(strata) -> dict[tuple[int, object], float]:
    weights = np.diff(strata.cumulative, prepend=0.0)
    return {(dataset, key): weight for (dataset, key, *_), weight in zip(strata.groups, weights, strict=True)}


def test_annotation_is_square_root_balanced_over_studies_and_over_labels(datasets):
    skewed = dataclasses.replace(datasets[0], held_out=datasets[0].held_out.copy())
    skewed.held_out[np.flatnonzero(skewed.label == "pancreatic A cell")[5:]] = True  # 20 beta, 5 alpha, 20 delta
    found = shares(annotation_strata([skewed, *datasets[1:]]))
    alpha, beta = found[0, "pancreatic A cell"], found[0, "type B pancreatic cell"]
    assert beta / alpha == pytest.approx(math.sqrt(20 / 5))
    per_file = [sum(share for (d, _), share in found.items() if d == dataset) for dataset in range(3)]
    sizes = np.array([45, 48, 20])
    expected = np.sqrt(sizes) * [1.0, 0.5, 1.0]  # the recipe's weights
    np.testing.assert_allclose(per_file, expected / expected.sum(), rtol=1e-6)


def test_sensitive_and_resistant_are_drawn_equally_often_however_rare_one_is(datasets):
    lung = dataclasses.replace(datasets[2], held_out=datasets[2].held_out.copy())
    lung.held_out[np.flatnonzero(lung.dataset_label == "HCC827")[1:]] = True
    found = shares(drug_strata([lung]))
    assert found == pytest.approx({(0, ("gefitinib", "sensitive")): 0.5, (0, ("gefitinib", "resistant")): 0.5})


def test_files_without_generation_weight_or_counts_never_train_the_decoder(datasets):
    assert {dataset for dataset, *_ in generation_strata(datasets).groups} == {0, 1}
    normalised = dataclasses.replace(datasets[0], is_counts=False)
    assert {dataset for dataset, *_ in generation_strata([normalised, *datasets[1:]]).groups} == {1}


def test_only_training_cells_are_drawn(examples, datasets):
    for i in range(len(examples)):
        for choice in (*examples[i].cells, *examples[i].signals):
            assert not datasets[choice.dataset].held_out[choice.row]


def test_ignored_labels_are_neither_drawn_nor_named(datasets):
    entry = dataclasses.replace(datasets[0].entry, ignore_labels=("delta",))
    cells = dataclasses.replace(datasets[0], entry=entry)
    assert "pancreatic D cell" not in {key for _, key in shares(annotation_strata([cells]))}
    assert "pancreatic D cell" not in label_set([cells]).names


def test_the_same_index_gives_the_same_example(examples, datasets):
    again = InstructionDataset(datasets, micro_recipe(), examples.catalog, length=120)
    assert [examples[i] for i in (0, 7, 63)] == [again[i] for i in (0, 7, 63)]
    assert examples[0] != examples[1]


def test_a_stage_has_a_stream_of_examples_of_its_own(examples, datasets):
    other = InstructionDataset(datasets, micro_recipe(), examples.catalog, length=10, seed=(0, 1))
    assert all(other[i] != examples[i] for i in range(5))


def test_every_task_of_the_recipe_comes_up(examples):
    found = Counter(examples[i].task for i in range(len(examples)))
    assert set(found) == set(TASKS)
    assert found["annotation"] == max(found.values())


def test_every_prompt_has_a_place_for_each_of_its_cells_and_every_answer_for_each_signal(examples):
    for i in range(len(examples)):
        example = examples[i]
        assert example.prompt.n_cells == len(example.cells)
        assert example.answer.n_signals == len(example.signals)
        assert bool(example.cells) == (example.task in ("annotation", "drug"))


def test_the_cells_of_one_prompt_share_the_answer(examples, datasets):
    for i in range(len(examples)):
        if examples[i].task == "annotation":
            assert len({datasets[c.dataset].label[c.row] for c in examples[i].cells}) == 1


# ---- augmentation


@pytest.mark.parametrize("seed", range(30))
def test_augmented_values_stay_non_negative_and_panels_within_what_was_measured(seed):
    rng = np.random.default_rng(seed)
    measured = rng.random(400) < 0.7
    columns = np.flatnonzero(measured)[:80]
    values = rng.poisson(3.0, 80).astype(np.float32) + 1
    strong = Augmentation(thinning=0.9, power=0.9, panel=0.9)
    new_values, panel = augment_cell(values, columns, measured, strong, rng)
    assert new_values.shape == values.shape
    assert np.isfinite(new_values).all() and (new_values >= 0).all()
    assert panel.dtype == bool and not (panel & ~measured).any()
    assert (panel[columns] & (new_values > 0)).any()


def test_only_molecule_counts_are_thinned():
    always = Augmentation(thinning=1, power=0, panel=0)
    shares, columns = np.full(50, 0.4, np.float32), np.arange(50)
    kept, _ = augment_cell(shares, columns, np.ones(50, bool), always, np.random.default_rng(0), is_counts=False)
    np.testing.assert_array_equal(kept, shares)
    thinned, _ = augment_cell(shares + 9, columns, np.ones(50, bool), always, np.random.default_rng(0))
    assert thinned.sum() < (shares + 9).sum()


def test_without_augmentation_a_cell_stays_as_it_is(datasets):
    nothing = Augmentation(thinning=0, power=0, panel=0, gene_scale=0)
    choices = [CellChoice(0, 3), CellChoice(1, 5)]
    plain, _ = CellTensors(datasets, None)(choices, [1, 2])
    same, measured = CellTensors(datasets, nothing)(choices, [1, 2])
    assert torch.equal(plain, same)
    assert measured.all()
    np.testing.assert_array_equal(plain[0], datasets[0].counts[3].toarray()[0])


def test_gene_factors_are_positive():
    factors = gene_factors(500, Augmentation(), np.random.default_rng(0))
    assert factors.shape == (500,)
    assert (factors > 0).all()


# ---- targets


LABELS = LabelSet(
    [
        Label("T cell", id="CL:0000084"),
        Label("CD4-positive, alpha-beta T cell", id="CL:0000624"),
        Label("B cell", id="CL:0000236"),
        Label("A549 lung adenocarcinoma cell", id="CL:0001064"),
        Label("HCC827 lung adenocarcinoma cell", id="CL:0001064"),
    ]
)


def targets_of(datasets, labels: list[str]) -> list[list[int]]:
    (allowed,) = cell_targets([dataclasses.replace(datasets[0], label=np.array(labels))], LABELS)
    return allowed.int().tolist()


def test_a_cell_may_be_its_label_or_a_narrower_one(datasets):
    assert targets_of(datasets, ["T cell", "B cell"]) == [[1, 1, 0, 0, 0], [0, 0, 1, 0, 0]]


def test_labels_that_one_study_tells_apart_exclude_each_other(datasets):
    found = targets_of(datasets, ["T cell", "CD4-positive, alpha-beta T cell"])
    assert found == [[1, 0, 0, 0, 0], [0, 1, 0, 0, 0]]


def test_a_label_finer_than_its_term_covers_only_itself(datasets):
    assert targets_of(datasets, ["A549 lung adenocarcinoma cell"]) == [[0, 0, 0, 1, 0]]


def test_a_label_that_the_checkpoint_lacks_allows_no_class(datasets):
    assert targets_of(datasets, ["epithelial cell of nowhere"]) == [[0, 0, 0, 0, 0]]


def test_the_label_set_knows_names_cells_and_what_can_be_generated(datasets):
    labels = label_set(datasets)
    beta, line = labels.find("type B pancreatic cell"), labels.find("HCC827 lung adenocarcinoma cell")
    assert (beta.id, beta.n_training_cells, beta.can_generate) == ("CL:0000169", 20, True)
    assert "beta" in beta.synonyms
    assert beta.tissues == ("pancreatic islet",)
    assert not line.can_generate


def test_mean_shares_of_the_genes_sum_to_one(datasets):
    share = mean_share(datasets)
    assert float(share.sum()) == pytest.approx(1.0, abs=1e-5)
    assert share[GENES.index("INS")] > share[GENES.index("EGFR")]


# ---- calibration


@pytest.mark.parametrize("temperature", [0.5, 1.0, 3.0])
def test_calibration_recovers_a_known_temperature(temperature):
    rng = np.random.default_rng(0)
    logits = rng.normal(0.0, 2.0, (20_000, 5))
    honest = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    truth = (honest.cumsum(1) > rng.random((len(honest), 1))).argmax(1)
    boasting = calibrate(honest, 1.0 / temperature)
    assert fit_temperature(boasting, truth) == pytest.approx(temperature, rel=0.05)


# ---- metrics


def test_mmd_is_zero_for_the_same_cells_and_grows_with_the_distance():
    rng = np.random.default_rng(0)
    a = rng.normal(size=(200, 5))
    near, far = (metrics.maximum_mean_discrepancy(a + shift, a) for shift in (0.5, 2.0))
    assert metrics.maximum_mean_discrepancy(a, a) == pytest.approx(0.0, abs=1e-6)
    assert 0 < near < far
    fresh = metrics.maximum_mean_discrepancy(rng.normal(size=(200, 5)), a)
    assert 0 < fresh < near


def test_mmd_of_two_points_is_the_closed_form():
    a, b = np.array([[0.0]]), np.array([[3.0]])  # one point: the bandwidths stand around 1
    expected = np.mean([2 - 2 * math.exp(-9 / (2 * factor**2)) for factor in metrics.BANDWIDTHS])
    assert metrics.maximum_mean_discrepancy(a, b) == pytest.approx(math.sqrt(expected))


def test_separable_types_have_neighbours_of_their_own_only():
    rng = np.random.default_rng(0)
    labels = np.repeat(["a", "b"], 50)
    points = rng.normal(size=(100, 3)) + 100.0 * (labels == "b")[:, None]
    assert metrics.self_knn(points, labels) == 1.0
    assert metrics.real_knn(points + 1.0, labels, points, labels) == 1.0
    assert metrics.real_knn(points, labels[::-1], points, labels) == 0.0


def test_real_cells_judged_in_their_own_space_are_perfect(datasets):
    cells = datasets[0]
    space = metrics.RealSpace(cells.counts, cells.label)
    judged = space.judge(space.place(cells.counts), cells.label)
    assert judged["mean_mmd"] == pytest.approx(0.0, abs=1e-3)
    assert judged["s_knn"] > 0.95 and judged["r_knn"] > 0.95


def test_a_bootstrap_interval_holds_the_value_and_is_wider_over_few_groups(monkeypatch):
    monkeypatch.setattr(metrics, "N_BOOTSTRAP", 200)
    rng = np.random.default_rng(0)
    truth = rng.integers(0, 2, 300)
    groups = np.repeat(np.arange(6), 50)
    wrong = np.isin(groups, [0, 1])  # whole groups are wrong
    predicted = np.where(wrong, 1 - truth, truth)
    cells = metrics.bootstrap(metrics.accuracy, truth, predicted)
    patients = metrics.bootstrap(metrics.accuracy, truth, predicted, groups=groups)
    for figure in (cells, patients):
        assert figure.value == pytest.approx(2 / 3)
        assert figure.low <= figure.value <= figure.high
    assert patients.high - patients.low > cells.high - cells.low
    assert cells == metrics.bootstrap(metrics.accuracy, truth, predicted)


def test_draws_on_which_a_metric_is_undefined_are_left_out(monkeypatch):
    monkeypatch.setattr(metrics, "N_BOOTSTRAP", 100)
    one_positive, score = np.array([1, 0, 0, 0]), np.array([0.9, 0.1, 0.2, 0.3])
    figure = metrics.bootstrap(metrics.auroc, one_positive, score)
    assert (figure.value, figure.low, figure.high) == (1.0, 1.0, 1.0)


def test_balanced_accuracy_is_the_mean_recall_of_the_classes():
    truth = np.array([1, 1, 1, 0])
    assert metrics.balanced_accuracy(truth, np.array([1, 1, 1, 1])) == 0.5
    with pytest.raises(ValueError, match="two classes"):
        metrics.balanced_accuracy(np.ones(3), np.ones(3))


def test_macro_f1_counts_only_labels_that_occur_in_the_truth():
    truth, predicted = np.array(["a", "a", "b"]), np.array(["a", "c", "b"])
    assert metrics.macro_f1(truth, predicted) == pytest.approx((2 / 3 + 1) / 2)


def test_expected_calibration_error_is_the_mean_gap_between_confidence_and_accuracy():
    confidence = np.repeat([0.2, 0.9], 10)
    correct = np.array([1] * 3 + [0] * 7 + [1] * 8 + [0] * 2)
    expected = (abs(0.2 - 0.3) + abs(0.9 - 0.8)) / 2
    assert metrics.expected_calibration_error(confidence, correct, n_bins=2) == pytest.approx(expected)
    assert metrics.expected_calibration_error(np.ones(8), np.ones(8)) == 0.0


def test_log_normalised_cells_all_have_ten_thousand_counts(datasets):
    expression = metrics.log_normalise(datasets[0].counts)
    np.testing.assert_allclose(np.expm1(expression).sum(1), 1e4, rtol=1e-4)


# ---- baselines


def test_baselines_beat_the_majority_on_separable_cells(datasets):
    cells = datasets[0]
    held = np.flatnonzero(cells.held_out)
    known = cells.training_rows
    predicted = baselines.refit_and_predict(cells.counts[known], cells.label[known], cells.counts[held], cells.measured)
    scores = {name: metrics.accuracy(cells.label[held], labels) for name, labels in predicted.items()}
    assert scores["majority"] < 0.5 < 0.9 < min(scores["logistic regression"], scores["10-NN"])


def test_independent_poisson_cells_follow_their_types_profile(datasets):
    cells = datasets[0]
    asked = np.repeat(["type B pancreatic cell", "pancreatic A cell"], 200)
    made = baselines.independent_poisson(cells.counts, cells.label, asked, seed=0)
    ins = made[:, GENES.index("INS")]
    assert np.array_equal(made, np.rint(made)) and (made >= 0).all()
    assert ins[:200].mean() > 5 * ins[200:].mean()
    real = cells.counts[cells.label == "type B pancreatic cell"].sum(1).mean()
    assert made[:200].sum(1).mean() == pytest.approx(real, rel=0.1)


# ---- a run from files to answers


class Stopped(Exception):
    """The machine went down."""


@dataclass
class TrainedRuns:
    """The same micro recipe trained without a break, and stopped and continued."""

    plain: Run
    resumed: Run
    data: Path


def stop_at(monkeypatch: pytest.MonkeyPatch, data: Path, folder: Path, index: int | None) -> None:
    """Train until an instruction is drawn, or (None) until the decoder stage would begin, then break off."""
    with monkeypatch.context() as patch:
        if index is None:
            patch.setattr(build, "SignalBank", _stop)
        else:
            draw = InstructionDataset.__getitem__
            patch.setattr(InstructionDataset, "__getitem__", lambda self, i: _stop() if i >= index else draw(self, i))
        with pytest.raises(Stopped):
            Run(micro_recipe(), data, folder).train()


def _stop(*_: object) -> None:
    raise Stopped


@pytest.fixture(scope="module")
def runs(data: Path, tmp_path_factory: pytest.TempPathFactory) -> TrainedRuns:
    patch = pytest.MonkeyPatch()
    patch.setattr(build, "N_CORPUS", 300)
    patch.setattr(build, "N_PHRASINGS", 8)
    patch.setattr("train.trainer.SAVE_EVERY", 2)
    patch.setattr("train.trainer.LOG_EVERY", 2)
    folder = tmp_path_factory.mktemp("runs")
    try:
        plain = Run(micro_recipe(), data, folder / "plain")
        plain.train()
        stop_at(patch, data, folder / "stopped", index=4 * 8)  # within the instruction stage
        (folder / "stopped" / "instructions" / "checkpoint-99").mkdir()  # as if killed while saving
        stop_at(patch, data, folder / "stopped", index=None)  # between two stages
        resumed = Run(micro_recipe(), data, folder / "stopped")
        resumed.train()
    finally:
        patch.undo()
    return TrainedRuns(plain, resumed, data)


def test_a_run_that_was_stopped_twice_ends_with_the_weights_of_an_uninterrupted_one(runs):
    expected, found = runs.plain.model.state_dict(), runs.resumed.model.state_dict()
    assert list(expected) == list(found)
    for name, tensor in expected.items():
        torch.testing.assert_close(found[name], tensor, rtol=0, atol=1e-6, msg=name)


def test_a_resumed_run_keeps_genes_and_tokenizer(runs):
    assert runs.plain.genes == runs.resumed.genes
    assert runs.plain.processor.tokenizer.get_vocab() == runs.resumed.processor.tokenizer.get_vocab()


def test_every_task_leaves_its_curve(runs):
    curves = pd.read_json(runs.plain.folder / "curves.jsonl", lines=True)
    assert list(curves["stage"].unique()) == ["encoder", "words", "instructions", "decoder"]
    last = curves[curves["stage"] == "instructions"].iloc[-1]
    for name in ("loss", "readout", "signal", "text/annotation", "text/generation", "text/drug"):
        assert np.isfinite(last[name]), name


def test_training_moves_every_part_of_the_model(runs, data, tmp_path):
    (tmp_path / "genes.txt").write_text("\n".join(runs.plain.genes))
    runs.plain.processor.save_pretrained(tmp_path / "processor")
    fresh = Run(micro_recipe(), data, tmp_path).model.state_dict()
    trained = runs.plain.model.state_dict()
    for part in ("lm.", "cell_encoder.", "projector.", "cell_decoder.", "cell_classifier."):
        moved = [name for name in fresh if name.startswith(part) and not torch.equal(fresh[name], trained[name])]
        assert moved, part


def test_the_words_stage_teaches_the_language_model_and_leaves_the_cell_modules_alone(runs):
    fresh = Run(micro_recipe(), runs.data, runs.plain.folder).model.state_dict()
    encoder = load_file(runs.plain.folder / "encoder" / "model.safetensors")
    words = load_file(runs.plain.folder / "words" / "model.safetensors")
    moved = {name.split(".")[0] for name in words if not torch.equal(words[name], fresh[name])}
    assert {"lm", "signal_classifier"} <= moved
    assert not moved & {"projector", "cell_decoder"}
    for name, tensor in words.items():
        if name.startswith("cell_encoder."):
            torch.testing.assert_close(tensor, encoder[name.removeprefix("cell_")], rtol=0, atol=0)


@pytest.fixture(scope="module")
def checkpoint(runs, tmp_path_factory: pytest.TempPathFactory):
    run = runs.resumed
    calibration = fit_calibration(run.model, run.processor, run.labels, run.datasets)
    folder = tmp_path_factory.mktemp("checkpoints") / "micro"
    run.save(folder, calibration)
    return load_checkpoint(folder)


def test_the_written_checkpoint_annotates_predicts_and_generates(checkpoint, runs):
    adata = made_up_cells(ISLETS, 12, seed=9)
    result = tools.annotate(adata, checkpoint=checkpoint)
    assert set(result.table["best_guess"]) <= set(runs.plain.labels.names)
    assert np.isfinite(result.table["confidence"]).all()
    drug = tools.drug_response(made_up_cells(LUNG, 8, seed=9), drug="gefitinib", checkpoint=checkpoint)
    assert set(drug.table["response"]) <= set(DRUG_ANSWERS)
    pseudo = tools.generate(cell_type="B cell", n=3, checkpoint=checkpoint)
    assert pseudo.shape == (3, len(runs.plain.genes))


def test_the_written_checkpoint_holds_the_calibration_and_the_training_labels(checkpoint, runs):
    assert set(checkpoint.calibration) == {"temperature", "unknown_below", "drug_temperature"}
    assert 0.25 <= checkpoint.calibration["temperature"] <= 10
    assert 0 < checkpoint.calibration["unknown_below"] <= 1
    assert checkpoint.labels.names == runs.plain.labels.names
    assert checkpoint.processor.genes == runs.plain.genes


# ---- the model card


def minimal_evaluation() -> dict:
    figure = {"value": 0.9, "low": 0.85, "high": 0.95}
    undefined = {"value": 1.0, "low": math.nan, "high": math.nan}
    return {
        "splits": {
            ISLETS: {"training": 60, "held_out": 30, "rule": {"donor": ["human4"]}},
            BLOOD: {"training": 48, "held_out": 12, "rule": "20% of each label"},
        },
        "annotation": {
            ISLETS: {
                "cells": 1030,
                "accuracy": figure,
                "macro_f1": figure,
                "accuracy_or_narrower": 0.91,
                "accuracy_with_options": figure,
                "macro_f1_with_options": figure,
                "ece": 0.021,
                "coverage": 0.5,
                "unknown": 0.01,
                "illegal_labels": 0,
                "baselines": {name: {"accuracy": 0.8, "macro_f1": 0.7} for name in ("logistic regression", "10-NN")},
            }
        },
        "generation": {
            "cells": 12,
            "types": 3,
            "pseudo": {"mean_mmd": 0.123, "s_knn": 0.8, "r_knn": 0.9},
            "real_training": {"mean_mmd": 0.1, "s_knn": 0.85, "r_knn": 0.95},
            "independent_poisson": {"mean_mmd": 0.14, "s_knn": 0.7, "r_knn": 0.8},
            "mmd_ratio": 1.234,
            "mmd_ratio_poisson": 1.4,
        },
        "drug": [
            {
                "file": LUNG,
                "drugs": ["gefitinib"],
                "cells": 20,
                "sensitive": 10,
                "instructcell": {"balanced_accuracy": figure, "auroc": undefined},
                "logistic_regression": {"balanced_accuracy": figure, "auroc": figure},
            }
        ],
        "phrasing": {"cells": 99, "accuracy": figure, "canonical": figure},
    }


def test_the_model_card_tells_data_splits_figures_intervals_and_limits(tiny_checkpoint):
    card = model_card(load_checkpoint(tiny_checkpoint), micro_recipe(), minimal_evaluation())
    assert card.startswith("---\nlicense: mit")
    for said in ("GSE84133", "donor human4", "20% of each label", "1,030", "0.900 [0.850, 0.950]", "1.23", "## Limits"):
        assert said in card
    assert "nan" not in card


def test_phrasings_of_a_seed_are_the_same(examples):
    record = CellRecord(label="B cell", species="human", tissue="PBMC")
    first, second = (instruction("annotation", record, Random(3), catalog=examples.catalog) for _ in range(2))
    assert first == second


# ---- reference profiles


def test_reference_profiles_are_the_mean_shares_of_each_label_in_each_study(datasets):
    profiles = reference_profiles(datasets).numpy()
    groups = annotation_strata(datasets).groups
    assert profiles.shape == (len(groups), len(GENES))
    np.testing.assert_allclose(profiles.sum(axis=1), 1.0, rtol=1e-5)
    assert profiles.min() > 0
    for profile, (dataset, _, rows, _) in zip(profiles, groups, strict=True):
        cells = datasets[dataset]
        assert not cells.held_out[rows].any()
        counts = cells.counts[rows].toarray()
        own = (counts / counts.sum(axis=1, keepdims=True)).mean(axis=0)[cells.measured]
        share = profile[cells.measured] / profile[cells.measured].sum()
        assert np.corrcoef(own, share)[0, 1] > 0.97  # a little of all profiles is mixed in
        assert own.argmax() == share.argmax()


def test_a_gene_that_a_study_lacks_takes_the_mean_of_the_label_elsewhere():
    raw = np.array([[0.5, 0.5, 0.0], [0.2, 0.2, 0.6], [0.8, 0.1, 0.1]])
    measured = np.array([[True, True, False], [True, True, True], [True, True, True]])
    filled = _fill_unmeasured(raw, measured, np.array(["B cell", "B cell", "T cell"]))
    np.testing.assert_allclose(filled[0], np.array([0.5, 0.5, 0.6]) / 1.6)
    alone = _fill_unmeasured(raw, measured, np.array(["NK cell", "B cell", "T cell"]))
    np.testing.assert_allclose(alone[0], np.array([0.5, 0.5, 0.35]) / 1.35)
