"""Response to checkpoint inhibitors: scores of cells, the cells of a patient judged together, and what is fitted."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp
from scipy.special import logit
from scipy.stats import rankdata

from instructcell import patient_response, tools
from instructcell.checkpoint import load_checkpoint
from instructcell.errors import CheckpointError, GeneAlignmentError
from instructcell.patient_response import (
    CYTOTOXIC,
    KEY,
    MEMORY,
    PatientResponse,
    in_words,
    memory_scores,
    patient_column,
    patients_of,
)
from train.patient_response import pair_auroc, write_patients

RESPONSE = PatientResponse(("anti-PD1",), sensitive=0.2, resistant=-0.2, between=0.02, within=0.08, patients=8)
GENES = [*MEMORY, *CYTOTOXIC, *(f"GENE{i}" for i in range(40))]


@pytest.fixture
def counts() -> np.ndarray:
    return np.random.default_rng(0).poisson(0.8, (12, len(GENES))).astype(np.float32)


def test_the_score_is_the_difference_of_mean_ranks_within_a_cell(counts) -> None:
    measured = np.ones(len(GENES), bool)
    measured[[0, 40]] = False  # TCF7 and a gene of no set
    there = np.flatnonzero(measured)
    ranks = np.stack([rankdata(row) / len(there) for row in counts[:, there]])
    of_set = [np.isin(np.array(GENES)[there], names) for names in (MEMORY, CYTOTOXIC)]
    expected = ranks[:, of_set[0]].mean(1) - ranks[:, of_set[1]].mean(1)
    np.testing.assert_allclose(memory_scores(sp.csr_matrix(counts), measured, GENES), expected)


def test_rows_in_any_order_of_genes_and_stored_zeros_score_alike(counts) -> None:
    measured, matrix = np.ones(len(GENES), bool), sp.csr_matrix(counts)
    shuffled = matrix[:, ::-1][:, ::-1]  # indices no longer sorted
    stored = sp.csr_matrix((np.r_[matrix.data, 0.0], np.r_[matrix.indices, 0], [*matrix.indptr[:-1], matrix.nnz + 1]))
    stored.resize(matrix.shape)
    expected = memory_scores(matrix, measured, GENES)
    for other in (shuffled, stored, 7 * matrix):
        np.testing.assert_allclose(memory_scores(other, measured, GENES), expected)


def test_too_few_genes_of_a_set_are_refused(counts) -> None:
    measured = ~np.isin(GENES, CYTOTOXIC[2:])
    with pytest.raises(GeneAlignmentError, match=r"found 2 of 9 cytotoxic genes in the file, expected at least 3"):
        memory_scores(sp.csr_matrix(counts), measured, GENES)


def test_cells_of_a_patient_share_one_answer_that_more_cells_make_surer() -> None:
    scores, patients = np.array([0.3, 0.1, 0.2, 0.2, -0.3]), np.array(["a", "a", "b", None, None], object)
    found = RESPONSE.p_sensitive(scores, patients)
    assert found[0] == found[1] > found[2] == found[3] > 0.5 > found[4]
    np.testing.assert_array_equal(RESPONSE.p_sensitive(scores, None)[2:], found[2:])


def test_the_log_odds_are_those_of_two_normals_bounded_by_the_number_of_patients() -> None:
    least = 1 / 10
    found = RESPONSE.p_sensitive(np.array([0.1, 0.1]), np.array(["a", "a"]))
    assert logit((found[0] - least) / (1 - 2 * least)) == pytest.approx(0.4 * 0.1 / (0.02 + 0.08 / 2))
    extreme = RESPONSE.p_sensitive(np.array([-9.0, 9.0]), None)
    np.testing.assert_allclose(extreme, [least, 1 - least])


def test_what_is_fitted_is_found_again_in_made_up_patients() -> None:
    rng = np.random.default_rng(1)
    patients = np.repeat([f"p{i}" for i in range(400)], 20)
    sensitive = np.repeat(np.arange(400) % 2 == 0, 20)
    means = np.where(np.arange(400) % 2 == 0, 0.2, -0.1) + rng.normal(0, 0.1, 400)
    scores = np.repeat(means, 20) + rng.normal(0, 0.3, 8000)
    fitted = PatientResponse.fit(["anti-PD1"], scores, patients, sensitive)
    assert (fitted.sensitive, fitted.resistant) == pytest.approx((0.2, -0.1), abs=0.02)
    assert (fitted.between, fitted.within) == pytest.approx((0.01, 0.09), rel=0.2)
    assert fitted.patients == 400


def test_pairs_of_patients_do_not_mix_patients_of_one_response() -> None:
    scores = np.array([1.0, 2, 0, 3, 9, 9])
    patients, sensitive = np.array(list("aabbcc")), np.array([True, True, False, False, True, True])
    assert pair_auroc(scores, patients, sensitive) == pytest.approx((0.5 + 1.0) / 2)


def test_it_is_written_beside_the_calibration_and_read_again(tmp_path) -> None:
    path = tmp_path / "calibration.json"
    path.write_text('{"temperature": 1.5}')
    write_patients(tmp_path, RESPONSE)
    calibration = json.loads(path.read_text())
    assert calibration["temperature"] == 1.5
    assert PatientResponse.of(calibration, "anti-PD1") == RESPONSE
    assert PatientResponse.of(calibration, "gefitinib") is None
    write_patients(tmp_path, None)
    assert PatientResponse.of(json.loads(path.read_text()), "anti-PD1") is None


@pytest.mark.parametrize("wrong", [{"drugs": []}, 3, {**RESPONSE.to_dict(), "between": 0}])
def test_an_entry_that_is_none_is_refused(wrong) -> None:
    with pytest.raises(CheckpointError, match="as patient_response; expected drugs, sensitive"):
        PatientResponse.of({KEY: wrong}, "anti-PD1")


def test_the_patients_column_is_found_by_name_when_it_groups_cells() -> None:
    obs = pd.DataFrame({"cell": list("abcd"), "Donor": ["x", "x", None, " "], "patient_id": list("wxyz")})
    assert patient_column(obs) == "Donor"
    assert patients_of(obs, "Donor").tolist() == ["x", "x", None, None]
    assert patient_column(obs[["cell", "patient_id"]]) is None  # a name per cell groups nothing


@pytest.mark.parametrize(("low", "told"), [(0.3, "which is not told from chance"), (0.7, "[0.70, 0.95].")])
def test_an_answer_says_how_it_did_on_patients_it_never_saw(low, told) -> None:
    judged = {"groups": [{}] * 4, "instructcell": {"auroc": {"value": 0.88, "low": low, "high": 0.95}}}
    text = " ".join(in_words(RESPONSE, "donor", judged))
    assert "(donor) are judged together" in text and "On 4 patients" in text and told in text
    assert "every cell is judged alone" in " ".join(in_words(RESPONSE, None, None))


def test_the_tool_judges_patients_together_and_says_so(tiny_checkpoint, synthetic_adata, monkeypatch) -> None:
    plain = load_checkpoint(tiny_checkpoint)
    names = plain.drugs.names
    response = replace(RESPONSE, drugs=(names[0],))
    checkpoint = replace(plain, calibration={**plain.calibration, KEY: response.to_dict()})
    genes, adata = plain.processor.genes, synthetic_adata.copy()  # whose genes are few: other sets
    monkeypatch.setattr(patient_response, "MEMORY", list(genes[:5]))
    monkeypatch.setattr(patient_response, "CYTOTOXIC", list(genes[5:10]))
    adata.obs["donor"] = [f"d{i % 3}" for i in range(adata.n_obs)]
    result = tools.drug_response(adata, drug=names[0], checkpoint=checkpoint)
    assert result.table.groupby(adata.obs["donor"].to_numpy())["p_sensitive"].nunique().tolist() == [1, 1, 1]
    assert "(donor) are judged together" in result.notes[0]
    part = tools.finish(tools.drug_response_steps(adata, drug=names[0], checkpoint=checkpoint, rows=[0, 3, 4]))
    assert part.table["p_sensitive"].iloc[0] == part.table["p_sensitive"].iloc[1]
    del adata.obs["donor"]
    alone = tools.drug_response(adata, drug=names[0], checkpoint=checkpoint)
    assert alone.table["p_sensitive"].nunique() > 3 and "judged alone" in alone.notes[0]
    assert tools.drug_response(adata, drug=names[1], checkpoint=checkpoint).notes == ()
