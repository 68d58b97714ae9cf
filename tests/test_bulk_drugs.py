"""The bulk-to-cell drug route: names, arithmetic, files, answers and refusals; a made-up screen on tiny genes."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp
from scipy.special import expit, logit
from tiny_screen import N_AXES, made_up_screen
from typer.testing import CliRunner

from instructcell import tl, tools
from instructcell.bulk import (
    Screen,
    deviations,
    load_screen,
    new_drug_weights,
    percentile,
)
from instructcell.bulk_drugs import ScreenedDrug, ScreenedDrugs, similarity, smiles_pieces, target_words
from instructcell.bulk_response import Groups, by_unit, compared
from instructcell.checkpoint import load_checkpoint
from instructcell.cli import app
from instructcell.errors import ConfigError, DrugError, GeneAlignmentError, ResourceError
from train.drug_offsets import fit_offset, write_offsets


@pytest.fixture(scope="module")
def screen() -> Screen:
    return made_up_screen()


@pytest.fixture(scope="module")
def checkpoint(tiny_checkpoint):
    return load_checkpoint(tiny_checkpoint)


@pytest.fixture
def adata(synthetic_adata):
    cells = synthetic_adata.copy()
    beta = cells.obs["cell_type"] == "type B pancreatic cell"
    cells.obs["kind"] = np.where(beta, "beta", "other")
    cells.obs["donor"] = [f"d{i % 4}" for i in range(cells.n_obs)]
    return cells


def respond(adata, checkpoint, screen, drug="Islettinib", **more):
    return tools.finish(tools.bulk_drug_response_steps(adata, drug=drug, checkpoint=checkpoint, screen=screen, **more))


def rank(adata, screen, **more):
    return tools.finish(tools.rank_drugs_steps(adata, screen=screen, **more))


# ---- names


@pytest.mark.parametrize("text", ["Islettinib", "ISLETTINIB", "insulix", "ins1", " INS 1 "])
def test_a_screened_drug_is_found_under_its_names(text: str, screen: Screen) -> None:
    assert screen.drugs.find(text) == 0


@pytest.mark.parametrize("text", ["apatinib", "Islettinab", "insulixx", ""])
def test_a_name_that_is_only_near_is_never_taken(text: str, screen: Screen) -> None:
    assert screen.drugs.find(text) is None


def test_near_names_are_asked_back(screen: Screen) -> None:
    with pytest.raises(DrugError, match="'Apatinib' is none of the 4 drugs .* Did you mean Apatinol"):
        screen.drugs.get("Apatinib")
    with pytest.raises(DrugError, match="none of the 4 drugs.*smiles, target"):
        screen.drugs.get("moonlight")


def test_a_near_analogue_is_no_synonym() -> None:
    assert ScreenedDrugs([ScreenedDrug("PLX-4720", ("vemurafenib", "PLX4720"))]).find("vemurafenib") is None


def test_drugs_of_one_target_or_structure_resemble_one_another() -> None:
    egfr = ScreenedDrug("a", target="EGFR, ERBB2")
    near = similarity([egfr], [ScreenedDrug("b", target="EGFR inhibitor"), ScreenedDrug("c", target="BRAF")])
    assert near[0, 0] == pytest.approx(0.25) and near[0, 1] == 0
    one = ScreenedDrug("d", smiles="CCOc1ccccc1N.Cl")
    assert similarity([one], [one])[0, 0] == pytest.approx(0.5)
    assert smiles_pieces("CC.O") == {"C", "CC"} and target_words("EGFR inhibitor") == {"EGFR"}


# ---- arithmetic


def test_depth_and_a_monotone_scale_change_no_deviation() -> None:
    rng = np.random.default_rng(0)
    counts = rng.permuted(np.arange(1.0, 41), axis=0)[None]
    mean, measured = rng.normal(size=40), np.ones(40, bool)
    quantiles = np.linspace(-1, 3, 20)
    first = deviations(counts, measured, quantiles, mean)
    np.testing.assert_allclose(deviations(np.log1p(counts * 7), measured, quantiles, mean), first, atol=1e-6)
    np.testing.assert_allclose(deviations(sp.csr_matrix(counts), measured, quantiles, mean), first, atol=1e-6)


def test_an_unmeasured_gene_does_not_deviate() -> None:
    measured = np.array([True, True, False, True])
    found = deviations(np.array([[1.0, 5, 9, 2]]), measured, np.array([0.0, 1.0]), np.array([0.2, 0.1, 5.0, 0.3]))
    assert found[0, 2] == 0 and np.abs(found[0, measured]).min() > 0


def test_the_interval_widens_away_from_the_lines(screen: Screen) -> None:
    at_lines = screen.widening(screen.arrays["lines"])
    far = screen.widening(np.full((1, N_AXES), 40.0))
    assert (at_lines < far).all() and far[0] == pytest.approx(np.sqrt(1.4 / 0.7), rel=1e-4)


def test_percentiles_are_those_of_normal_scores() -> None:
    np.testing.assert_allclose(percentile(np.array([-1.6449, 0.0, 1.6449])), [5, 50, 95], atol=0.01)


def test_a_new_drug_is_the_mean_of_all_where_it_resembles_none() -> None:
    kernel = np.array([[1.0, 0.4, 0], [0.4, 1.0, 0], [0, 0, 1.0]])
    np.testing.assert_allclose(new_drug_weights(np.zeros(3), kernel, 0.3), np.full(3, 1 / 3))
    leaning = new_drug_weights(np.array([0.0, 0.0, 0.9]), kernel, 0.3)
    assert leaning.sum() == pytest.approx(1) and leaning.argmax() == 2


def test_weights_survive_their_file_up_to_half_precision(screen: Screen, tmp_path) -> None:
    screen.save(tmp_path / "screen.safetensors")
    back = Screen.load(tmp_path / "screen.safetensors")
    assert back.genes == screen.genes and list(back.drugs) == list(screen.drugs) and back.settings == screen.settings
    scores = screen.arrays["lines"][:5]
    np.testing.assert_allclose(back.sensitivity(scores), screen.sensitivity(scores), atol=0.02)
    np.testing.assert_allclose(back.arrays["axes"], screen.arrays["axes"], atol=0.01)


def test_another_file_is_refused_by_name(tmp_path) -> None:
    (tmp_path / "other.safetensors").write_bytes(b"no weights")
    with pytest.raises(ResourceError, match="other.safetensors does not hold the weights"):
        Screen.load(tmp_path / "other.safetensors")


def test_the_weights_that_ship_know_their_drugs() -> None:
    shipped = load_screen()
    assert len(shipped.drugs) > 500 and len(shipped.genes) > 6000
    for name in ("erlotinib", "Tarceva", "venetoclax", "AZD9291"):
        assert shipped.drugs[shipped.drugs.get(name)].reliable
    assert shipped.drugs.find("apatinib") is None
    assert all(np.isfinite(values).all() for values in shipped.arrays.values())
    assert float(np.median([drug.spearman for drug in shipped.drugs])) > 0.35


# ---- answers


def test_cells_that_express_what_the_drug_hits_are_the_sensitive_ones(adata, checkpoint, screen: Screen) -> None:
    table = respond(adata, checkpoint, screen).table
    beta = adata.obs["kind"].to_numpy() == "beta"
    assert table["sensitivity"][beta].min() > table["sensitivity"][~beta].mean()
    assert (table["low"] < table["sensitivity"]).all() and (table["sensitivity"] < table["high"]).all()
    assert ((table["p_sensitive"] >= 0.5) == (table["response"] == "sensitive")).all()


def test_the_answer_writes_its_keys_and_its_route(adata, checkpoint, screen: Screen) -> None:
    before = adata.copy()
    result = respond(adata, checkpoint, screen, "insulix")
    assert set(adata.obs.columns) - set(before.obs.columns) == {
        "instructcell_drug_response",
        "instructcell_p_sensitive",
        "instructcell_sensitivity",
        "instructcell_sensitivity_percentile",
    }
    arguments = adata.uns["instructcell"]["arguments"]
    assert arguments["drug"] == "Islettinib" and arguments["route"] == "bulk-to-cell, GDSC"
    assert (
        "Spearman 0.60 on cell lines left out" in result.notes[0] and "no statement about a patient" in result.notes[1]
    )


def test_a_selection_writes_nothing(adata, checkpoint, screen: Screen) -> None:
    before = adata.obs.copy()
    result = respond(adata, checkpoint, screen, rows=[3, 1])
    assert list(result.table.index) == list(adata.obs_names[[3, 1]])
    pd.testing.assert_frame_equal(adata.obs, before)


def test_a_drug_that_cannot_be_predicted_is_refused(adata, checkpoint, screen: Screen) -> None:
    with pytest.raises(DrugError, match=r"Noisolol cannot be answered from expression: Spearman 0.15 .* 0.2 is"):
        respond(adata, checkpoint, screen, "Noisolol")


def test_a_described_drug_is_answered_as_an_extrapolation(adata, checkpoint, screen: Screen) -> None:
    result = respond(adata, checkpoint, screen, "Newimab", target="CD19, MS4A1")
    assert not result.drug.screened and result.drug.neighbours == ("Bcellimab",)
    assert "never screened: extrapolated from all drugs, most from Bcellimab" in result.notes[0]
    with pytest.raises(DrugError, match="no screened drug resembles 'Newimab'"):
        respond(adata, checkpoint, screen, "Newimab", target="XYZ1")


def test_too_few_genes_are_refused(adata, checkpoint, screen: Screen) -> None:
    wide = replace(screen, genes=(*screen.genes[:25], *(f"OTHER{i}" for i in range(len(screen.genes) * 5))))
    many = {**wide.arrays}
    for name in ("mean", "scale", "offset", "trust", "axes"):
        many[name] = np.resize(wide.arrays[name], (len(wide.genes), *wide.arrays[name].shape[1:]))
    with pytest.raises(GeneAlignmentError, match="genes that drug sensitivity is read from"):
        respond(adata, checkpoint, replace(wide, arrays=many))


# ---- the route


def test_the_checkpoint_answers_its_own_drugs_and_the_screens_the_others(checkpoint) -> None:
    assert tools.choose_route(checkpoint, "Iressa") == "cell"
    assert tools.choose_route(checkpoint, "Iressa", "bulk") == "bulk"
    assert tools.choose_route(checkpoint, "erlotinib") == "bulk"
    assert tools.choose_route(checkpoint, "nonsense", described=True) == "bulk"


def test_a_name_that_neither_knows_is_refused_with_near_names_of_both(checkpoint) -> None:
    with pytest.raises(DrugError, match=r"It knows: gefitinib.*none of the .* screened.*Did you mean .*Afatinib"):
        tools.choose_route(checkpoint, "apatinib")
    with pytest.raises(ConfigError, match="no route 'both'; choose one of auto, cell, bulk"):
        tools.choose_route(checkpoint, "gefitinib", "both")


def test_one_tool_serves_both_routes(adata, checkpoint, screen: Screen, monkeypatch) -> None:
    monkeypatch.setattr(tools, "load_screen", lambda: screen)
    assert isinstance(tl.drug_response(adata, drug="gefitinib", checkpoint=checkpoint), tools.DrugResult)
    assert "instructcell_sensitivity" not in adata.obs
    assert isinstance(tl.drug_response(adata, drug="insulix", checkpoint=checkpoint), tools.BulkDrugResult)
    assert "instructcell_sensitivity" in adata.obs


# ---- ranking and comparing


def test_drugs_are_ranked_within_each_group(adata, screen: Screen) -> None:
    found = rank(adata, screen, groupby="kind")
    assert found.groups == ["beta", "other"] and found.left_out == ("Noisolol",)
    assert found.top("beta", 1)["drug"].item() == "Islettinib"
    for _, table in found.table.groupby("group"):
        assert table["sensitivity"].is_monotonic_decreasing and len(table) == 3
    assert found.table.groupby("group")["cells"].first().sum() == adata.n_obs


def test_two_groups_are_compared_once_and_surest_first(adata, screen: Screen) -> None:
    found = rank(adata, screen, groupby="kind", compare=["beta", "other"]).comparison
    first = found.set_index("drug").loc["Islettinib"]
    assert list(found["against"].unique()) == ["other"] and first["difference"] > 0 and first["auc"] > 0.8
    assert first["q_value"] < 0.01 and found["q_value"].is_monotonic_increasing


def test_the_test_is_mann_whitney_with_benjamini_hochberg() -> None:
    left, right = np.array([[3.0, 1], [4, 4], [5, 6]]), np.array([[0.0, 2], [1, 3], [2, 5]])
    found = compared(left, right, ["one", "two"]).set_index("drug")
    assert found.loc["one", "auc"] == 1 and found.loc["two", "auc"] == pytest.approx(5 / 9)
    assert found.loc["one", "p_value"] == pytest.approx(0.1)  # exact: 2 / (6 choose 3)
    assert found.loc["one", "q_value"] == pytest.approx(0.2) and found.loc["two", "q_value"] == 1


def test_replicates_are_compared_by_their_means(adata, screen: Screen) -> None:
    found = rank(adata, screen, groupby="kind", replicate="donor")
    assert found.unit == "donor" and set(found.comparison["n"]) <= {3, 4}
    values = by_unit(np.array([[1.0], [3.0], [5.0], [6.0]]), np.array(["a", "a", "b", "c"], object), "donor")
    assert sorted(values.ravel()) == [2, 5, 6]
    with pytest.raises(ConfigError, match="found 1 'kind' on one side"):
        rank(adata, screen, groupby="kind", replicate="kind")


def test_groups_are_read_from_the_file_and_missing_ones_named(adata) -> None:
    assert Groups.of(adata).names == ("all cells",)
    with pytest.raises(ConfigError, match="no column 'leiden' in obs; it has cell_type"):
        Groups.of(adata, "leiden")
    with pytest.raises(ConfigError, match="no cells with kind gamma; it has beta, other"):
        Groups.of(adata, "kind", ["beta", "gamma"])
    with pytest.raises(ConfigError, match="no column that holds them"):
        Groups.of(adata, compare=["beta"])


def test_only_the_chosen_drugs_and_rows_are_ranked(adata, screen: Screen) -> None:
    found = rank(adata, screen, drugs=["insulix"], rows=np.arange(20))
    assert list(found.table["drug"]) == ["Islettinib"] and found.table["cells"].item() == 20
    assert found.comparison.empty


# ---- command line


@pytest.fixture
def run(tmp_path, monkeypatch, adata, screen: Screen, tiny_checkpoint):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(tools, "load_screen", lambda: screen)
    monkeypatch.setattr("instructcell.stream.load_screen", lambda: screen)
    monkeypatch.setattr("instructcell.bulk_response.load_screen", lambda: screen)
    adata.write_h5ad("cells.h5ad")

    def call(*arguments: str):
        return CliRunner().invoke(app, ["drug", "cells.h5ad", "--quiet", "--model", str(tiny_checkpoint), *arguments])

    return call


def test_a_screened_drug_is_answered_with_its_route_on_the_command_line(run, tmp_path) -> None:
    import anndata

    result = run("--drug", "insulix", "-o", "out.h5ad", "--json", "--group-by", "kind")
    assert result.exit_code == 0, result.output
    said = json.loads(result.stdout)
    assert said["drug"] == "Islettinib" and said["route"] == "bulk-to-cell, GDSC" and said["held_out_spearman"] == 0.6
    assert {row["group"] for row in said["groups"]} == {"beta", "other"}
    assert "instructcell_sensitivity" in anndata.read_h5ad(tmp_path / "out.h5ad").obs


def test_all_drugs_are_ranked_into_a_table(run, tmp_path) -> None:
    result = run("--drug", "all", "--group-by", "kind", "--compare", "beta,other", "-o", "ranking.csv")
    assert result.exit_code == 0, result.output
    assert "Islettinib" in result.stdout and "no statement about a patient" in result.stdout
    assert pd.read_csv(tmp_path / "ranking.csv")["drug"].iloc[0] == "Islettinib"
    assert len(pd.read_csv(tmp_path / "ranking_comparison.csv")) == 3


def test_a_near_name_is_refused_on_the_command_line(run) -> None:
    result = run("--drug", "Apatinib")
    assert result.exit_code == 2 and "Did you mean Apatinol" in result.output


# ---- offsets of the measured drugs


def test_an_offset_moves_the_threshold_and_keeps_the_ranking(adata, checkpoint) -> None:
    plain = tools.drug_response(adata.copy(), drug="gefitinib", checkpoint=checkpoint).table["p_sensitive"]
    moved = replace(checkpoint, calibration={**checkpoint.calibration, "drug_offsets": {"gefitinib": -1.5}})
    found = tools.drug_response(adata.copy(), drug="gefitinib", checkpoint=moved).table["p_sensitive"]
    np.testing.assert_allclose(logit(found), logit(plain) - 1.5, atol=1e-3)
    other = tools.drug_response(adata.copy(), drug="PLX4720", checkpoint=moved).table["p_sensitive"]
    untouched = tools.drug_response(adata.copy(), drug="PLX4720", checkpoint=checkpoint).table["p_sensitive"]
    np.testing.assert_array_equal(other, untouched)


def test_an_offset_that_is_no_number_is_refused(adata, checkpoint) -> None:
    wrong = replace(checkpoint, calibration={**checkpoint.calibration, "drug_offsets": {"gefitinib": "high"}})
    with pytest.raises(DrugError, match="holds 'high' as the offset of gefitinib"):
        tools.drug_response(adata, drug="gefitinib", checkpoint=wrong)


def test_the_fitted_offset_balances_answers_that_are_all_sensitive() -> None:
    p_sensitive = np.array([0.95, 0.9, 0.92, 0.7, 0.65, 0.6])
    sensitive = np.array([True, True, True, False, False, False])
    offset = fit_offset(p_sensitive, sensitive)
    assert ((expit(logit(p_sensitive) + offset) >= 0.5) == sensitive).all()
    mirrored = fit_offset(1 - p_sensitive, ~sensitive)
    assert mirrored == pytest.approx(-offset, abs=1e-3)


def test_offsets_are_written_beside_the_calibration(tmp_path) -> None:
    (tmp_path / "calibration.json").write_text('{"temperature": 1.5}')
    write_offsets(tmp_path, {"PLX4720": -0.7})
    assert json.loads((tmp_path / "calibration.json").read_text()) == {
        "temperature": 1.5,
        "drug_offsets": {"PLX4720": -0.7},
    }
