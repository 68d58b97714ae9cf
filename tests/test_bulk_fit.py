"""The fit and the evaluation of the bulk drug route, on made-up lines whose sensitivities follow two genes."""

from __future__ import annotations

import io
import pickle
from collections import OrderedDict
from pathlib import Path

import anndata as ad
import numpy as np
import pandas as pd
import pytest
import tiny
from scipy.stats import norm
from sklearn.linear_model import Ridge

from instructcell.bulk_drugs import ScreenedDrug
from instructcell.errors import ConfigError, ResourceError
from train import bulk
from train.bulk_fit import FitSettings, fill, fit_kernel, low_rank, normal_scores, ridge_predictions
from train.bulk_report import END, START, bulk_lines, update_drugs
from train.bulk_tables import Screens, TensorUnpickler, combined, line_key, named_drugs
from train.evaluate import carry_over, write_evaluation
from train.evaluation import bulk as evaluation
from train.evaluation.tasks import BulkTask, load_tasks

N_LINES, LINES_FILE, STUDY = 80, "lines", "study"


@pytest.fixture(scope="module")
def screens() -> Screens:
    genes = tuple(tiny.tiny_genes())
    rng = np.random.default_rng(0)
    factors = rng.normal(size=(N_LINES, 3))
    expression = factors @ rng.normal(size=(3, len(genes))) + rng.normal(size=(N_LINES, len(genes)))
    expression = ((expression.T - expression.mean(1)) / expression.std(1)).T.astype(np.float32)
    effects = np.array([[1.0, 0, 0], [1, 0.2, 0], [0, 1, 0], [0, -1, 0.1], [0, 0, 1]])
    sensitivity = (factors @ effects.T + 0.5 * rng.normal(size=(N_LINES, 5))).astype(np.float32)
    sensitivity[rng.random(sensitivity.shape) < 0.1] = np.nan
    drugs = tuple(
        ScreenedDrug(f"drug {i}", target=target, n_lines=70)
        for i, target in enumerate(["EGFR", "EGFR, ERBB2", "BRAF", "", "MTOR"])
    )
    return Screens(np.array([f"L{i}" for i in range(N_LINES)]), genes, expression, drugs, sensitivity)


@pytest.fixture(scope="module")
def data(screens: Screens, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Single cells of five of the lines, and of another study."""
    folder = tmp_path_factory.mktemp("data")
    rng = np.random.default_rng(1)
    for name, rows in ((LINES_FILE, range(5)), (STUDY, range(60, 64))):
        mean = np.exp(np.repeat(screens.expression[list(rows)], 20, axis=0))
        obs = pd.DataFrame({"cell_line": np.repeat([f"L{i}" for i in rows], 20)})
        obs["cell_type"] = obs["cell_line"]
        obs.index = [f"{name}{i}" for i in range(len(obs))]
        cells = ad.AnnData(rng.poisson(5 * mean).astype(np.float32), obs, pd.DataFrame(index=list(screens.genes)))
        cells.write_h5ad(folder / f"{name}.h5ad")
    return folder


# ---- tables


def test_lines_are_matched_without_signs_and_collection() -> None:
    assert line_key("NCI-H1975") == line_key("H1975") == "H1975" and line_key("22Rv1") == "22RV1"


def test_both_screens_are_averaged_where_both_measured_a_drug() -> None:
    first = pd.DataFrame({"a": [1.0, 2, 3], "b": [1.0, 2, 3]})
    second = pd.DataFrame({"a": [10.0, 20, 30], "b": [np.nan] * 3})
    found = combined([first, second])
    np.testing.assert_allclose(found, np.repeat(np.array([[1.0], [0], [-1]]) * np.sqrt(1.5), 2, axis=1), rtol=1e-5)


def test_every_screened_drug_has_one_name_of_its_own() -> None:
    drugs = [drug for drug, _ in named_drugs({"Erlotinib": "CO"})]
    names = [drug.name for drug in drugs]
    assert len(set(names)) == len(names) > 500
    assert next(drug for drug in drugs if drug.name == "Erlotinib").smiles == "CO"
    tables = [table for _, tables in named_drugs({}) for table in tables]
    assert len(set(tables)) == len(tables)


def test_a_pickle_of_anything_but_tensors_is_refused() -> None:
    with pytest.raises(ResourceError, match="asks for pathlib"):
        TensorUnpickler(io.BytesIO(pickle.dumps(Path("x")))).load()
    assert TensorUnpickler(io.BytesIO(pickle.dumps(OrderedDict(a="b")))).load() == {"a": "b"}


# ---- fit


def test_normal_scores_keep_the_order_and_what_is_missing() -> None:
    found = normal_scores(np.array([[3.0], [np.nan], [1.0], [2.0]]))[:, 0]
    np.testing.assert_allclose(found[[2, 3, 0]], norm.ppf([1 / 6, 0.5, 5 / 6]), atol=1e-6)
    assert np.isnan(found[1])


def test_filling_keeps_what_was_measured() -> None:
    target = np.array([[1.0, np.nan], [np.nan, 2.0], [3.0, 4.0]])
    found = fill(target, np.full((3, 3), 1 / 3), 3)
    known = np.isfinite(target)
    np.testing.assert_array_equal(found[known], target[known])
    assert 0 < found[1, 0] < 3


def test_all_ranks_change_nothing_and_one_rank_is_one() -> None:
    rng = np.random.default_rng(0)
    coefficients, fitted = rng.normal(size=(6, 4)), rng.normal(size=(6, 4))
    np.testing.assert_array_equal(low_rank(coefficients, fitted, 4), coefficients)
    assert np.linalg.matrix_rank(low_rank(coefficients, fitted, 1)) == 1


def test_held_out_lines_are_predicted(screens: Screens) -> None:
    folds = bulk.folds_by_line(N_LINES)
    assert sorted(np.concatenate([held for _, held in folds])) == list(range(N_LINES))
    found = bulk.per_drug(bulk.predict_held_out(screens, folds), screens.sensitivity)
    assert found.min() > 0.5


def test_the_screen_that_ships_says_what_the_fit_says(screens: Screens, data: Path) -> None:
    fit = fit_kernel(screens.expression, screens.sensitivity, FitSettings(n_axes=20, n_ranks=5))
    settings = bulk.ScreenSettings(fit.width, fit.ridge, 0.2)
    screen = bulk.make_screen(screens, fit, screens.drugs, settings, data, [STUDY])
    scores = fit.scores(screens.expression)
    np.testing.assert_allclose(screen.sensitivity(scores), fit.predict(screens.expression), atol=1e-3)
    assert ((screen.arrays["trust"] > 0) & (screen.arrays["trust"] <= 1)).all()


def test_the_baseline_is_ridge_regression_with_its_best_penalty() -> None:
    rng = np.random.default_rng(0)
    lines, others = rng.normal(size=(30, 50)), rng.normal(size=(4, 50))
    target = lines[:, :1] + 0.3 * rng.normal(size=(30, 1))
    target[[2, 7, 11]] = np.nan
    known = np.isfinite(target[:, 0])
    centred, centre = lines - lines.mean(axis=0), np.nanmean(target)
    length = np.sqrt((centred**2).sum(axis=1).mean())

    def by_hand(ridge: float, fitted: np.ndarray, rows: np.ndarray) -> np.ndarray:
        model = Ridge(alpha=ridge, fit_intercept=False).fit(centred[fitted] / length, target[fitted, 0] - centre)
        return model.predict(rows / length) + centre

    errors = {}
    for ridge in (0.1, 0.7, 5.0):
        one = ridge_predictions(lines, target, others, ridges=(ridge,))[:, 0]
        np.testing.assert_allclose(one, by_hand(ridge, known, others - lines.mean(axis=0)), rtol=1e-4)
        rows = np.flatnonzero(known)
        left = [by_hand(ridge, np.setdiff1d(rows, [row]), centred[[row]])[0] - target[row, 0] for row in rows]
        errors[ridge] = np.mean(np.square(left))
    best = min(errors, key=lambda ridge: errors[ridge])
    chosen = ridge_predictions(lines, target, others, ridges=(0.1, 0.7, 5.0))
    np.testing.assert_array_equal(chosen, ridge_predictions(lines, target, others, ridges=(best,)))


def test_lines_of_one_tissue_stay_together() -> None:
    tissues = np.array(["a"] * 4 + ["b"] * 3 + ["c"] * 3 + [""])
    for train, held in bulk.folds_by_tissue(tissues):
        assert not set(tissues[train]) & set(tissues[held]) and 10 in train


# ---- evaluation


def test_the_evaluation_stands_beside_ridge_and_is_told(screens: Screens, data: Path, tmp_path: Path) -> None:
    said: list[str] = []
    found = evaluation.measured(screens, data, BulkTask(LINES_FILE, (STUDY,)), said.append)
    assert found["by_line"]["ours"]["value"] > 0.5 and found["by_line"]["ridge"]["value"] > 0.5
    assert found["new_drugs"]["drugs"] == 4 and "by_tissue" not in found
    assert set(found["cells"]["lines"]) == {f"L{i}" for i in range(5)} and found["cells"]["mean"] > 0.2
    assert any("ridge" in line for line in said)
    page = tmp_path / "drugs.md"
    page.write_text(f"before\n{START}\nearlier figures\n{END}\nafter\n")
    assert update_drugs(page, found)
    text = page.read_text()
    assert text.startswith("before\n") and text.endswith("after\n") and "earlier figures" not in text
    assert f"{found['by_line']['ours']['value']:.3f}" in text and "\n".join(bulk_lines(found)) in text
    assert not update_drugs(tmp_path / "none.md", found)


def test_the_tested_file_is_no_reference_of_its_own() -> None:
    with pytest.raises(ConfigError, match="lines is tested"):
        BulkTask(LINES_FILE, (STUDY, LINES_FILE))
    assert load_tasks(["bulk"])["bulk"].file not in load_tasks(["bulk"])["bulk"].studies


def test_figures_of_the_same_weights_are_kept_after_a_new_training(tmp_path: Path) -> None:
    kept = {"weights": evaluation.weights_hash(), "lines": 1}
    write_evaluation({"checkpoint": "a", "bulk": kept, "seconds": {}}, tmp_path)
    assert carry_over({"checkpoint": "b", "recipe": "r", "seconds": {}}, tmp_path)["bulk"] == kept
    write_evaluation({"checkpoint": "a", "bulk": {"weights": "others"}, "seconds": {}}, tmp_path)
    assert "bulk" not in carry_over({"checkpoint": "a", "recipe": "r", "seconds": {}}, tmp_path)
