"""The evaluation kit: tasks, splits that refuse leaks, figures, pictures, reports; on made-up cells."""

from __future__ import annotations

import dataclasses
import json
import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from made_up import BLOOD, GENES, ISLETS, LUNG, made_up_cells, micro_recipe, write_data
from sklearn.metrics import balanced_accuracy_score, f1_score, roc_auc_score
from typer.testing import CliRunner

from instructcell.checkpoint import Checkpoint, load_checkpoint
from instructcell.errors import ConfigError
from instructcell.labels import Label, LabelSet
from train import build, leave_out, metrics, realism, report
from train.build import Run
from train.datasets import load_datasets
from train.evaluate import Evaluation, carry_over, to_json, write_evaluation
from train.evaluation import splits
from train.evaluation.bench import Bench
from train.evaluation.tasks import (
    KINDS,
    TASKS,
    AnnotationTask,
    CalibrationTask,
    ClusterTask,
    ContextTask,
    DrugTask,
    GenerationTask,
    LeaveStudiesOutTask,
    LeaveTypesOutTask,
    LeftOut,
    PanelTask,
    PhrasingTask,
    PseudoCells,
    Target,
    UnknownTask,
    is_slow,
    load_tasks,
)
from train.recipe import DataEntry, load_recipe

ISLET_DONOR = Target(ISLETS, split="donor", headline=True)
BLOOD_CELLS = Target(BLOOD)
LUNG_BATCH = Target(LUNG, split="batch")
TARGETS = (ISLET_DONOR, BLOOD_CELLS, LUNG_BATCH)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_data(tmp_path_factory.mktemp("data"))


@pytest.fixture(scope="module")
def checkpoint(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Checkpoint:
    """The micro recipe's model before any training."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(build, "N_CORPUS", 300)
        run = Run(micro_recipe(), data, tmp_path_factory.mktemp("run"))
    folder = tmp_path_factory.mktemp("checkpoints") / "micro"
    run.save(folder, {"temperature": 1.0, "unknown_below": 0.2, "drug_temperature": 1.0})
    return load_checkpoint(folder)


@pytest.fixture(scope="module")
def bench(checkpoint: Checkpoint, data: Path) -> Bench:
    return Bench(checkpoint, micro_recipe(), data, say=lambda text: None)


def small_tasks() -> dict:
    """Every quick kind on the made-up files, a few seconds altogether."""
    islets = PseudoCells(ISLETS, tissue="pancreatic islet", species="human", least_cells=5)
    return {
        "annotation": AnnotationTask(TARGETS),
        "panels": PanelTask((ISLET_DONOR,), cells=12, random=(60, 30), draws=1, markers=25),
        "calibration": CalibrationTask(TARGETS),
        "unknown": UnknownTask((ISLET_DONOR,)),
        "generation": GenerationTask((islets,), seeds=(0,)),
        "drug": DrugTask((LUNG_BATCH,)),
        "phrasing": PhrasingTask((BLOOD_CELLS,), "gefitinib", LUNG_BATCH, islets, phrasings=6, cells=3),
        "clusters": ClusterTask((ISLET_DONOR,), clusters=3, cells=4, purity=(1.0, 0.5)),
        "context": ContextTask((ISLET_DONOR, BLOOD_CELLS), mixtures=((ISLETS, BLOOD),), least_of_type=5),
    }


@pytest.fixture(scope="module")
def result(checkpoint: Checkpoint, data: Path) -> dict:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(metrics, "N_BOOTSTRAP", 50)
        evaluation = Evaluation(checkpoint, micro_recipe(), data, say=lambda text: None, tasks=small_tasks())
        return json.loads(to_json(evaluation.run()))


# ---- tasks


def test_every_task_that_ships_is_read_and_names_files_and_columns_of_the_mini_recipe():
    tasks = load_tasks(slow=True)
    assert list(tasks) == list(KINDS) == [path for path in KINDS if (TASKS / f"{path}.yaml").is_file()]
    files = {entry.file for entry in load_recipe("mini").data}
    for task in tasks.values():
        assert {target.file for target in getattr(task, "targets", ())} <= files
    assert {target.file for target in tasks["annotation"].targets} == files
    assert {file for study in tasks["leave_studies_out"].studies for file in study.files} <= files


def test_only_tasks_that_take_seconds_run_by_default():
    assert not any(is_slow(task) for task in load_tasks().values())
    assert {kind for kind, task in load_tasks(slow=True).items() if is_slow(task)} == {
        "bulk",
        "leave_studies_out",
        "leave_types_out",
    }


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("kind: anotation", "kind must be one of annotation"),
        ("kind: drug\ntargets: [{file: x, splt: donor}]", "did you mean 'split'"),
        ("kind: drug\ntargets: [{file: x, split: patient}]", "split must be one of cell, donor"),
        ("kind: [", "not valid YAML"),
    ],
)
def test_a_task_with_a_mistake_is_refused_in_one_sentence(tmp_path, text, said):
    path = tmp_path / "task.yaml"
    path.write_text(text)
    with pytest.raises(ConfigError, match=re.escape(said)):
        load_tasks([str(path)])


def test_an_unknown_task_is_answered_with_those_that_ship():
    with pytest.raises(ConfigError, match="no task 'dug'.*drug"):
        load_tasks(["dug"])


# ---- splits


def test_what_the_recipe_holds_out_is_tested_and_leaks_nothing(bench):
    assert list(bench.tested(ISLET_DONOR)) == list(range(60, 90))
    assert len(bench.tested(BLOOD_CELLS)) == 12


def test_a_donor_that_the_checkpoint_was_trained_on_is_refused_as_a_test(bench):
    target = Target(ISLETS, split="donor", test={"donor": ["human2"]})
    with pytest.raises(ConfigError, match="hold out by donor, but .*human2 also has 30 training cells in " + ISLETS):
        bench.tested(target)


def test_a_split_by_study_is_refused_when_the_same_study_is_trained_on(bench):
    bench.obs(BLOOD)["study"] = "Zheng2017"
    try:
        with pytest.raises(ConfigError, match="hold out by study, but Zheng2017 also has 48 training cells"):
            bench.tested(Target(BLOOD, split="study"))
    finally:
        del bench.obs(BLOOD)["study"]


@pytest.mark.parametrize(("split", "column"), [("technology", "tech"), ("species", "species")])
def test_a_technology_or_species_is_unseen_only_when_no_training_cell_has_it(bench, split, column):
    values = bench.obs(BLOOD)[column].copy()
    with pytest.raises(ConfigError, match=f"hold out by {split}"):
        bench.tested(Target(BLOOD, split=split, test={column: [values.iloc[0]]}))


def test_a_single_training_cell_among_the_tests_is_refused(bench):
    cells = bench.datasets[BLOOD]
    one = cells.dataset_label[cells.training_rows][0]
    with pytest.raises(ConfigError, match="very expression of training cells"):
        bench.tested(Target(BLOOD, test={"cell_type": [one]}))


def test_a_group_or_column_that_is_not_there_is_named(bench):
    with pytest.raises(ConfigError, match=r"donor has no group \['human9'\]"):
        bench.tested(Target(ISLETS, split="donor", test={"donor": ["human9"]}))
    with pytest.raises(ConfigError, match="no column 'patient' to split by"):
        bench.tested(Target(ISLETS, split="donor", column="patient"))


def test_ids_of_donors_mean_something_only_within_a_study():
    obs = pd.DataFrame({"donor": ["1", "2"], "study": ["A", "A"]})
    assert list(splits.group_keys(obs, Target(ISLETS, split="donor"), ISLETS)) == ["A/1", "A/2"]
    constant = Target(ISLETS, split="donor", constant="human1")
    assert list(splits.group_keys(obs, constant, ISLETS)) == ["A/human1", "A/human1"]


def test_a_checkpoint_of_another_recipe_is_refused(bench):
    splits.refuse_another_recipe(bench.checkpoint.labels, bench.datasets)
    other = LabelSet([dataclasses.replace(label, n_training_cells=7) for label in bench.checkpoint.labels])
    with pytest.raises(ConfigError, match="was not trained with this recipe.*from 7 cells"):
        splits.refuse_another_recipe(other, bench.datasets)


# ---- metrics


def test_macro_f1_equals_that_of_scikit_learn():
    rng = np.random.default_rng(0)
    truth, said = rng.choice(list("abcd"), 200), rng.choice(list("abcde"), 200)
    expected = f1_score(truth, said, labels=np.unique(truth), average="macro", zero_division=0)
    assert metrics.macro_f1(truth, said) == pytest.approx(expected)


def test_areas_and_balanced_accuracies_equal_those_of_scikit_learn():
    rng = np.random.default_rng(1)
    positive, score = rng.integers(0, 2, 120), np.round(rng.random(120), 1)  # with ties
    assert metrics.auroc(positive, score) == pytest.approx(roc_auc_score(positive, score))
    said = (score > 0.5).astype(int)
    assert metrics.balanced_accuracy(positive, said) == pytest.approx(balanced_accuracy_score(positive, said))


def test_a_bootstrap_of_texts_equals_that_of_their_codes():
    rng = np.random.default_rng(2)
    truth, said = rng.integers(0, 3, 80), rng.integers(1, 4, 80)
    texts = [np.array(list("abcd"))[column] for column in (truth, said)]
    assert metrics.bootstrap(metrics.macro_f1, *texts) == metrics.bootstrap(metrics.macro_f1, truth, said)


def test_the_confusion_matrix_counts_every_cell_and_puts_foreign_answers_last():
    truth, said = np.array(list("aaabb")), np.array(list("aabbz"))
    found = metrics.confusion(truth, said)
    assert found == {"labels": ["a", "b"], "answers": ["a", "b", "z"], "counts": [[2, 1, 0], [0, 1, 1]]}


def test_accepting_the_surest_answers_leaves_the_wrong_ones_out():
    confidence, correct = np.array([0.9, 0.8, 0.7, 0.2, 0.1]), np.array([1, 1, 1, 1, 0])
    assert metrics.accepted_accuracy(confidence, correct, 0.8) == 1.0
    assert metrics.risk_coverage(confidence, correct, 5)[-1] == {"coverage": 1.0, "accuracy": 0.8}


def test_the_bins_of_the_reliability_sum_to_the_calibration_error():
    rng = np.random.default_rng(0)
    confidence = rng.random(500)
    correct = rng.random(500) < confidence**2
    bins = metrics.reliability(confidence, correct)
    gap = sum(b["cells"] * abs(b["confidence"] - b["accuracy"]) for b in bins) / 500
    assert gap == pytest.approx(metrics.expected_calibration_error(confidence, correct), abs=1e-3)


def test_a_rank_correlation_of_a_constant_is_undefined():
    assert metrics.spearman(np.array([1, 2, 3]), np.array([2, 4, 9])) == 1.0
    with pytest.raises(ValueError, match="differ"):
        metrics.spearman(np.ones(3), np.arange(3))


# ---- pseudo-cells


@pytest.fixture(scope="module")
def islets(data):
    return load_datasets(dataclasses.replace(micro_recipe(), data=(micro_recipe().entry(ISLETS),)), data, GENES)[0]


def test_real_cells_have_the_gene_statistics_of_real_cells(islets):
    known, held = islets.training_rows, np.flatnonzero(islets.held_out)
    profile = realism.GeneProfile(islets.counts[held], islets.label[held])
    again = profile.judge(islets.counts[held], islets.label[held])
    assert (again["marker_logfc"], again["zero_fraction_gap"]) == (pytest.approx(1.0), 0.0)
    other = profile.judge(islets.counts[known], islets.label[known])
    assert other["marker_logfc"] > 0.8 and other["zero_fraction_gap"] < 0.1


def test_cells_of_the_wrong_types_have_other_marker_changes(islets):
    held = np.flatnonzero(islets.held_out)
    labels = islets.label[held]
    profile = realism.GeneProfile(islets.counts[held], labels)
    turned = np.roll(np.unique(labels), 1)[np.searchsorted(np.unique(labels), labels)]
    assert profile.judge(islets.counts[held], turned)["marker_logfc"] < 0


def test_markers_of_a_type_are_the_genes_it_was_made_with(islets):
    profile = realism.GeneProfile(islets.counts, islets.label)
    best = {GENES[j] for j in profile.markers["type B pancreatic cell"][:5]}
    assert {"INS", "IAPP"} <= best | {GENES[j] for j in profile.markers["type B pancreatic cell"][:8]}
    assert "GCG" not in best


def test_a_model_trained_on_shuffled_cells_is_of_no_use(islets):
    known, held = islets.training_rows, np.flatnonzero(islets.held_out)
    shuffled = np.random.default_rng(0).permutation(islets.label[known])
    sources = {"real": (islets.counts[known], islets.label[known]), "shuffled": (islets.counts[known], shuffled)}
    found = realism.train_on_one_test_on_real(sources, islets.counts[held], islets.label[held])
    assert found["real"] > 0.95 > 0.7 > found["shuffled"]


# ---- a whole evaluation


def test_every_task_is_measured(result):
    assert set(small_tasks()) <= set(result)
    assert set(result["annotation"]) == {ISLETS, BLOOD, LUNG}
    assert set(result["seconds"]) == set(small_tasks())


def test_annotation_tells_split_figures_classes_baselines_and_that_peers_were_not_run(result):
    found = result["annotation"][ISLETS]
    assert found["held_out"] == "an unseen donor"
    assert found["cells"] == sum(row["cells"] for row in found["per_class"]) == 30
    assert np.sum(found["confusion"]["counts"]) == 30
    assert set(found["baselines"]) == {"logistic regression", "10-NN", "majority"}
    assert found["baselines"]["logistic regression"]["accuracy"] > 0.9
    assert found["peers"] == {"CellTypist": "not run", "scANVI": "not run"}
    assert found["illegal_labels"] == 0
    margin = found["margin"]
    best = max(base["accuracy"] for base in found["baselines"].values())
    assert margin["free"]["value"] == pytest.approx(found["accuracy"]["value"] - best, abs=1e-3)
    assert margin["free"]["low"] <= margin["free"]["value"] <= margin["free"]["high"]


def test_panels_are_measured_against_all_genes(result):
    panels = result["panels"]["files"][ISLETS]["panels"]
    assert set(panels) == {"60 random genes", "30 random genes", "25 marker genes"}
    assert all(panel["refused"] == 0 for panel in panels.values())
    assert panels["25 marker genes"]["logistic_regression"] > 0.9
    from_markers = result["panels"]["files"][ISLETS]["markers"]
    assert from_markers["with_options"] >= panels["25 marker genes"]["accuracy"] and from_markers["broader"] == 0


def test_calibration_pools_the_files_of_a_split(result):
    assert result["calibration"]["held-out donors and batches"]["files"] == [LUNG]
    assert result["calibration"]["other cells of known samples"]["cells"] == 12


def test_cells_that_the_temperature_was_fitted_on_flatter_no_other_figure(result):
    assert result["calibration"]["cells that the temperature was fitted on"]["files"] == [ISLETS]


def test_pseudo_cells_stand_beside_real_ones_and_scvi_was_not_run(result):
    found = result["generation"]["sets"][ISLETS]
    assert found["scvi"] == {"prior": "not run", "posterior": "not run"}
    assert found["real_training"]["marker_logfc"] > found["pseudo"]["marker_logfc"]  # nothing was trained
    assert found["training_use"]["real"] > 0.9
    assert result["generation"]["mmd_ratio"] == found["mmd_ratio"] > 1.5
    assert set(found["pseudo"]["mmd_by_bandwidth"]) == {"0.5", "1.0", "2.0"}


def test_drug_figures_stand_beside_fitted_models(result):
    (found,) = result["drug"]
    assert found["logistic_regression"]["auroc"]["value"] > 0.95
    assert found["majority"]["balanced_accuracy"]["value"] == 0.5
    assert found["instructcell"]["spearman"] is None or -1 <= found["instructcell"]["spearman"] <= 1


def test_phrasings_are_asked_of_the_same_cells_as_the_canonical_request(result):
    found = result["phrasing"]
    assert set(found["tasks"]) == {"annotation", "drug", "generation"}
    for row in found["tasks"].values():
        assert sum(row["histogram"]) == row["phrasings"] >= 6
    assert set(found["routed"]) == {"annotation", "drug", "generation", "markers"}
    assert found["routed"]["drug"]["right"] + found["routed"]["drug"]["asked_back"] <= 1


def test_clusters_are_named_in_every_way(result):
    found = result["clusters"]
    assert found["files"][ISLETS]["types"] == 3
    for row in found["mean"].values():
        assert set(row) == {"all cells", "one prompt", "vote", "mean probability", "single cells"}
        assert all(0 <= value <= 1 for value in row.values())


def test_context_is_judged_per_file_per_type_and_over_mixed_files(result):
    found = result["context"]
    assert set(found["files"]) == {ISLETS, BLOOD}
    (mixture,) = found["mixtures"].values()
    assert mixture["cells"] == sum(row["cells"] for row in found["files"].values())
    assert found["one_type"]["files"] >= 3
    assert found["floor"] == 1.0  # this checkpoint has no figures for context, so it changes nothing
    assert all(row["with"] == row["without"] for row in (*found["files"].values(), mixture))


def test_json_is_the_same_after_a_round_trip_and_long_lists_have_lines_of_their_own():
    value = {"a": {"value": 0.5, "low": 0.1}, "rows": [{"label": "x" * 70, "n": 1}, {"label": "y" * 70, "n": 2}]}
    text = to_json(value)
    assert json.loads(text) == value
    assert text.count("\n") == 6


def test_what_an_earlier_run_measured_on_the_same_weights_is_kept(tmp_path):
    slow = {"recipe": "r", "mean": {}}
    write_evaluation({"checkpoint": "a", "drug": [1], "leave_types_out": slow, "seconds": {"drug": 2}}, tmp_path)
    same = carry_over({"checkpoint": "a", "recipe": "r", "unknown": {}, "seconds": {"unknown": 1}}, tmp_path)
    assert same["drug"] == [1] and same["seconds"] == {"drug": 2, "unknown": 1}
    retrained = carry_over({"checkpoint": "b", "recipe": "r", "seconds": {}}, tmp_path)
    assert "drug" not in retrained and retrained["leave_types_out"] == slow
    assert "leave_types_out" not in carry_over({"checkpoint": "a", "recipe": "other", "seconds": {}}, tmp_path)


# ---- reports


def test_the_html_report_holds_every_picture_and_loads_nothing(result):
    page = report.html_report(result)
    assert page.count("data:image/svg+xml;base64,") >= 6
    assert not re.search(r'(?:src|href)="(?!data:)', page)
    for said in ("Not run", "<table>", "per class", "unseen donor", "zero fraction"):
        assert said in page


def test_results_in_markdown_come_with_small_pictures_and_keep_what_was_written_by_hand(result, tmp_path):
    path = report.write_results(result, tmp_path)
    path.write_text(path.read_text() + "\n## What did not work\n\nThis.\n")
    report.write_results(result, tmp_path)
    text = path.read_text()
    assert text.count("## What did not work") == text.count("# Results\n") == 1
    linked = re.findall(r"\]\((results/[\w.-]+)\)", text)
    assert linked and all(0 < (tmp_path / name).stat().st_size < 60_000 for name in linked)
    assert {path.name for path in (tmp_path / "results").iterdir()} == {name.split("/")[1] for name in linked}


def test_pictures_of_the_same_figures_are_the_same(result):
    from train.evaluation.pictures import pictures

    assert pictures(result) == pictures(result)


def test_sections_that_were_not_measured_say_so():
    empty = {"checkpoint": "0" * 64, "splits": {}}
    assert report.results_markdown(empty).count("Not run") >= 6


# ---- the command


def test_evaluate_writes_card_json_and_report(checkpoint, data, tmp_path, monkeypatch):
    from train import command

    monkeypatch.setattr("train.recipe.load_recipe", lambda name: micro_recipe())
    monkeypatch.setattr(metrics, "N_BOOTSTRAP", 20)
    monkeypatch.chdir(tmp_path)
    task = tmp_path / "drug.yaml"
    task.write_text(f"kind: drug\ntargets:\n  - {{file: {LUNG}, split: batch}}\n")
    import typer

    app = typer.Typer()
    app.command()(command.evaluate)
    arguments = ["--model", str(checkpoint.path), "--data", str(data), "--tasks", str(task), "--runs", str(tmp_path)]
    run = CliRunner().invoke(app, arguments)
    assert run.exit_code == 0, run.output
    assert json.loads((checkpoint.path / "evaluation.json").read_text())["drug"][0]["file"] == LUNG
    assert "gefitinib" in (checkpoint.path / "README.md").read_text()
    assert (tmp_path / "micro" / "evaluation.html").is_file()
    assert not (tmp_path / "docs").exists()  # not the project's folder


def test_peers_that_are_not_there_are_asked_for_in_one_sentence(tmp_path):
    from train.evaluation.peers import find_environment

    with pytest.raises(ConfigError, match="no peers in .*make bench-peers"):
        find_environment(tmp_path)


# ---- studies and types left out


LABELS = LabelSet(
    [
        Label("CD4-positive, alpha-beta T cell", id="CL:0000624"),
        Label("regulatory T cell", id="CL:0000815"),
        Label("B cell", id="CL:0000236"),
        Label("natural killer cell", id="CL:0000623"),
    ]
)


def test_a_broad_label_sums_the_narrower_ones_that_the_target_does_not_use():
    probabilities = np.array([[0.3, 0.25, 0.4, 0.05]])
    groups = leave_out.label_groups(LABELS, ["T cell", "B cell", "mast cell"], others=False)
    assert groups == [("T cell", [0, 1]), ("B cell", [2])]  # nothing of ours is a mast cell
    np.testing.assert_allclose(leave_out.summed(probabilities, groups), [[0.55, 0.4]])
    free = leave_out.label_groups(LABELS, ["T cell", "regulatory T cell"], others=True)
    assert free == [
        ("T cell", [0]),
        ("regulatory T cell", [1]),
        ("B cell", [2]),
        ("natural killer cell", [3]),
    ]


@pytest.fixture(scope="module")
def islet_bench(checkpoint, tmp_path_factory) -> Bench:
    """Two studies of the same kind of cells."""
    folder, other = tmp_path_factory.mktemp("islets"), "pancreas_grun_muraro"
    for seed, file in enumerate((ISLETS, other)):
        made_up_cells(ISLETS, 90, seed).write_h5ad(folder / f"{file}.h5ad")
    recipe = dataclasses.replace(micro_recipe(), data=(micro_recipe().data[0], DataEntry(other, hold_out=0.2)))
    return Bench(checkpoint, recipe, folder, say=lambda text: None, runs=tmp_path_factory.mktemp("runs"))


def test_a_left_out_study_is_asked_about_beside_refitted_baselines(islet_bench, monkeypatch):
    monkeypatch.setattr(metrics, "N_BOOTSTRAP", 20)
    studies = LeaveStudiesOutTask(
        (LeftOut("Baron", (ISLETS,), "islets"), LeftOut("Grun", ("pancreas_grun_muraro",), "islets")), steps=60
    )
    found = leave_out.measure_studies(islet_bench, studies)
    baron = found["studies"]["Baron"]
    assert baron["cells"] == 90  # all of them, also those that the recipe trains on
    assert baron["best_baseline"]["accuracy"] > 0.95
    assert baron["alone"]["value"] > 0.6  # learned from the other study alone
    assert baron["free"]["value"] >= baron["alone"]["value"]  # a file of one tissue
    assert found["mean"]["islets"] == found["mean"]["all"]
    assert list(leave_out.as_table(found).index) == ["Baron", "Grun"]
    monkeypatch.setattr(leave_out, "leave_study_out", None)  # nothing is trained again
    assert leave_out.measure_studies(islet_bench, studies) == found
    more = dataclasses.replace(studies, studies=(*studies.studies, LeftOut("Zheng", ("pbmc",), "blood")))
    monkeypatch.setattr(leave_out, "load_task", lambda kind: (kind, more))
    shown = leave_out.finished(islet_bench, "leave_studies_out")["leave_studies_out"]
    assert shown == {**found, "missing": ["Zheng"]}
    assert "Not run: the studies Zheng." in report._leave_out({"leave_studies_out": shown}, {})


def test_what_peers_answered_is_kept(tmp_path, monkeypatch):
    """Asked once; shown again without their environment, and asked anew about other cells."""
    from scipy import sparse

    from train.evaluation import peers

    asked = []

    def ask(python, counts, labels, test, genes):
        asked.append(test.shape[0])
        return {peer: {"labels": [peer] * test.shape[0]} for peer in peers.ANNOTATORS}

    monkeypatch.setattr(peers, "ask", ask)
    cells, names = sparse.csr_matrix(np.eye(4, dtype=np.float32)), np.array(["a", "b", "a", "b"])
    assert peers.annotate(None, cells, names, cells[:3], list("wxyz"), tmp_path) is None
    first = peers.annotate(tmp_path / "python", cells, names, cells[:3], list("wxyz"), tmp_path)
    again = peers.annotate(None, cells, names, cells[:3], list("wxyz"), tmp_path)
    assert first is not None and again is not None and asked == [3]
    assert {peer: list(said) for peer, said in again.items()} == {peer: [peer] * 3 for peer in peers.ANNOTATORS}
    assert peers.annotate(None, cells, names, cells[:2], list("wxyz"), tmp_path) is None

    made = {"prior": cells, "posterior": 2 * cells}
    monkeypatch.setattr(peers, "_generated", lambda *given: made)
    assert peers.generate(None, cells, names, names, 3, 0, tmp_path) is None
    assert peers.generate(tmp_path / "python", cells, names, names, 3, 0, tmp_path) is not None
    kept = peers.generate(None, cells, names, names, 3, 0, tmp_path)
    assert kept is not None and (kept["posterior"] != made["posterior"]).nnz == 0
    assert peers.generate(None, cells, names, names, 4, 0, tmp_path) is None


def test_a_type_left_out_is_judged_by_every_score(islet_bench, monkeypatch):
    task = LeaveTypesOutTask((["pancreatic A cell"],), steps=60)
    found = leave_out.measure_types(islet_bench, task)
    row = found["types"]["pancreatic A cell"]
    assert row["cells"] == 60 and row["files"] == 2  # the training cells became test cells
    assert set(row["auroc"]) == set(found["mean"]) == {
        *("probability", "margin", "entropy", "energy", "class mean", "Mahalanobis", "Mahalanobis and markers")
    }
    assert all(0 <= value <= 1 for value in row["auroc"].values())
    monkeypatch.setattr(leave_out, "leave_types_out", None)
    assert leave_out.measure_types(islet_bench, task) == found
    more = dataclasses.replace(task, folds=(*task.folds, ["B cell", "mast cell"]))
    monkeypatch.setattr(leave_out, "load_task", lambda kind: (kind, more))
    shown = leave_out.finished(islet_bench, "leave_types_out")["leave_types_out"]
    assert shown == {**found, "missing": ["B cell", "mast cell"]}
    monkeypatch.setattr(leave_out, "load_task", lambda kind: (kind, dataclasses.replace(more, folds=more.folds[1:])))
    assert leave_out.finished(islet_bench, "leave_types_out") == {}


def test_a_type_is_left_out_with_its_relatives(islets):
    cells = dataclasses.replace(
        islets,
        label=np.array(["T cell", "regulatory T cell", "B cell"] * 30),
        label_id=np.array(["CL:0000084", "CL:0000815", "CL:0000236"] * 30),
    )
    assert leave_out.related("T cell", [cells]) == {"T cell", "regulatory T cell"}
    assert leave_out.related("B cell", [cells]) == {"B cell"}
