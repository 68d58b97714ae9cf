"""Tools on AnnData: what they write, leave alone and refuse. A tiny random checkpoint, made-up cells."""

from __future__ import annotations

import anndata as ad
import numpy as np
import pandas as pd
import pytest

from instructcell import pl, tl, tools
from instructcell.checkpoint import load_checkpoint
from instructcell.errors import DrugError, InstructCellError, LabelError
from instructcell.labels import Label, LabelSet
from instructcell.layout import map_cells, principal_axes
from instructcell.prompts import annotation_prompt, drug_prompt, generation_prompt, marker_prompt
from instructcell.tasks import broader_than, summed


@pytest.fixture(scope="module")
def checkpoint(tiny_checkpoint):
    return load_checkpoint(tiny_checkpoint)


@pytest.fixture
def adata(synthetic_adata):
    cells = synthetic_adata.copy()
    cells.obs["donor"] = pd.Categorical(["d1"] * cells.n_obs)
    return cells


@pytest.fixture
def annotated(adata, checkpoint):
    tools.annotate(adata, checkpoint=checkpoint, batch_size=7)
    return adata


def generable(checkpoint):
    return next(label.name for label in checkpoint.labels if label.can_generate)


# ---- annotation


def test_annotation_writes_its_keys_and_leaves_the_rest_alone(adata, checkpoint):
    before = adata.copy()
    result = tl.annotate(adata, checkpoint=checkpoint, tissue="PBMC")
    assert set(adata.obs.columns) - set(before.obs.columns) == {
        "instructcell_cell_type",
        "instructcell_cell_type_id",
        "instructcell_confidence",
        "instructcell_broader_type",
        "instructcell_broader_type_id",
        "instructcell_broader_confidence",
    }
    assert (adata.X != before.X).sum() == 0
    pd.testing.assert_frame_equal(adata.obs[before.obs.columns], before.obs)
    pd.testing.assert_frame_equal(adata.var, before.var)
    assert adata.obsm["X_instructcell"].shape == (adata.n_obs, result.embedding.shape[1])


def test_every_label_is_legal_and_every_confidence_a_probability(annotated, checkpoint):
    assert set(annotated.obs["instructcell_cell_type"]) <= {*checkpoint.labels.names, "unknown"}
    assert annotated.obs["instructcell_confidence"].between(0, 1).all()


def test_the_run_is_recorded(annotated, checkpoint):
    run = annotated.uns["instructcell"]
    assert run["checkpoint_hash"] == checkpoint.hash
    assert run["arguments"]["batch_size"] == 7
    assert 0 < run["gene_coverage"] <= 1
    assert {"instructcell", "torch", "transformers", "anndata"} <= set(run["versions"])


def test_an_earlier_run_of_another_tool_stays_recorded(annotated, checkpoint):
    tools.embed(annotated, checkpoint=checkpoint)
    assert annotated.uns["instructcell"]["command"] == "embed"
    assert annotated.uns["instructcell"]["earlier"]["annotate"]["checkpoint_hash"] == checkpoint.hash


def test_annotated_cells_can_be_written_and_read(annotated, tmp_path):
    annotated.write_h5ad(tmp_path / "annotated.h5ad")
    back = ad.read_h5ad(tmp_path / "annotated.h5ad")
    assert list(back.obs["instructcell_cell_type"]) == list(annotated.obs["instructcell_cell_type"])


def test_the_batch_size_changes_nothing(adata, checkpoint):
    small = tools.annotate(adata.copy(), checkpoint=checkpoint, batch_size=3).table
    large = tools.annotate(adata.copy(), checkpoint=checkpoint, batch_size=1000).table
    np.testing.assert_allclose(small["confidence"], large["confidence"], atol=1e-4)


def test_a_selection_is_read_like_the_whole_and_writes_nothing(annotated, checkpoint):
    whole = tools.annotate(annotated.copy(), checkpoint=checkpoint).table
    before = annotated.copy()
    part = tools.finish(tools.annotate_steps(annotated, checkpoint=checkpoint, rows=[4, 1])).table
    np.testing.assert_allclose(part["confidence"], whole["confidence"].iloc[[4, 1]], atol=1e-4)
    assert list(part.index) == list(annotated.obs_names[[4, 1]])
    pd.testing.assert_frame_equal(annotated.obs, before.obs)


def test_progress_ends_at_the_number_of_cells(adata, checkpoint):
    seen = []
    tools.annotate(adata, checkpoint=checkpoint, batch_size=5, progress=lambda *step: seen.append(step))
    assert seen[-1][:2] == (adata.n_obs, adata.n_obs)
    assert [done for done, _, _ in seen] == sorted(done for done, _, _ in seen)


def test_below_the_threshold_the_answer_is_unknown(adata, checkpoint):
    from dataclasses import replace

    strict = replace(checkpoint, calibration={**checkpoint.calibration, "unknown_below": 1.01})
    result = tools.annotate(adata, checkpoint=strict)
    assert result.unknown_share == 1.0
    assert (result.table["cell_type_id"] == "").all()
    assert set(result.table["best_guess"]) <= set(checkpoint.labels.names)


def test_own_labels_are_sums_of_the_checkpoints(adata, checkpoint):
    names = list(checkpoint.labels.names)
    every = tools.annotate(adata.copy(), checkpoint=checkpoint, labels=names[:2])
    assert set(every.table["best_guess"]) <= set(names[:2])
    assert (every.table["confidence"] <= 1 + 1e-6).all()


def test_an_own_label_that_maps_to_nothing_is_refused_by_name(adata, checkpoint):
    before = set(adata.obs.columns)
    with pytest.raises(LabelError, match="flux capacitor"):
        tools.annotate(adata, checkpoint=checkpoint, labels=["flux capacitor"])
    assert set(adata.obs.columns) == before


def test_composition_adds_up(annotated, checkpoint):
    result = tools.annotate(annotated, checkpoint=checkpoint)
    assert result.composition["cells"].sum() == annotated.n_obs
    assert result.composition["share"].sum() == pytest.approx(1)


def test_calibration_keeps_the_order_and_the_sum():
    raw = np.array([[0.7, 0.2, 0.1], [0.0, 0.0, 1.0]])
    soft, sharp = tools.calibrate(raw, 2.0), tools.calibrate(raw, 0.5)
    np.testing.assert_allclose(soft.sum(1), 1)
    assert (soft.argsort(1)[0] == raw.argsort(1)[0]).all()
    assert soft[0, 0] < raw[0, 0] < sharp[0, 0]
    np.testing.assert_allclose(tools.calibrate(raw, 1.0), raw, atol=1e-6)


# ---- drugs


def test_drug_response_writes_its_keys(adata, checkpoint):
    name = tools.drugs_of(checkpoint).names[0]
    before = adata.X.copy()
    result = tl.drug_response(adata, drug=name.upper(), checkpoint=checkpoint)
    assert result.drug.name == name
    assert set(adata.obs["instructcell_drug_response"]) <= {"sensitive", "resistant"}
    sensitive = adata.obs["instructcell_drug_response"] == "sensitive"
    assert (sensitive == (adata.obs["instructcell_p_sensitive"] >= 0.5)).all()
    assert (before != adata.X).sum() == 0


def test_an_unknown_drug_is_refused_by_name_with_the_known_ones(adata, checkpoint):
    known = tools.drugs_of(checkpoint).names
    with pytest.raises(DrugError, match="unobtainib") as refusal:
        tl.drug_response(adata, drug="unobtainib", checkpoint=checkpoint)
    assert all(name in str(refusal.value) for name in known)
    assert "instructcell_drug_response" not in adata.obs


# ---- pseudo-cells


def test_same_seed_same_cells(checkpoint):
    name = generable(checkpoint)
    one, two, other = (tl.generate(cell_type=name, n=9, seed=seed, checkpoint=checkpoint) for seed in (1, 1, 2))
    assert (one.X != two.X).sum() == 0
    assert (one.X != other.X).sum() > 0


def test_pseudo_cells_are_integer_counts_over_the_checkpoints_genes(checkpoint):
    pseudo = tl.generate(
        cell_type=generable(checkpoint), n=5, tissue="PBMC", species="human", library_size=500, checkpoint=checkpoint
    )
    assert np.issubdtype(pseudo.X.dtype, np.integer)
    assert pseudo.X.min() >= 0
    assert list(pseudo.var_names) == checkpoint.processor.genes
    assert "ensembl_id" in pseudo.var
    assert set(pseudo.obs["tissue"]) == {"PBMC"}
    assert pseudo.uns["instructcell"]["seed"] == 0


def test_pseudo_cells_follow_the_library_size(checkpoint):
    name = generable(checkpoint)
    small, large = (
        tl.generate(cell_type=name, n=40, library_size=size, checkpoint=checkpoint).obs["library_size"].mean()
        for size in (100, 2000)
    )
    assert large > 5 * small


def test_pseudo_cells_like_a_file_follow_its_depth(adata, checkpoint):
    pseudo = tl.generate(cell_type=generable(checkpoint), n=30, like=adata, checkpoint=checkpoint)
    total = np.asarray(adata.X.sum(axis=1)).ravel()
    ratio = pseudo.obs["library_size"].median() / np.median(total)
    assert 0.3 < ratio < 3


def test_pseudo_cells_can_be_written_and_read(checkpoint, tmp_path):
    tl.generate(cell_type=generable(checkpoint), n=3, checkpoint=checkpoint).write_h5ad(tmp_path / "pseudo.h5ad")
    assert ad.read_h5ad(tmp_path / "pseudo.h5ad").n_obs == 3


def test_a_type_that_cannot_be_generated_is_refused_by_name(checkpoint):
    with pytest.raises(LabelError, match="warp core"):
        tl.generate(cell_type="warp core", checkpoint=checkpoint)
    rare = [label.name for label in checkpoint.labels if not label.can_generate]
    for name in rare[:1]:
        with pytest.raises(LabelError, match="too few"):
            tl.generate(cell_type=name, checkpoint=checkpoint)


@pytest.mark.parametrize("wrong", [{"n": 0}, {"library_size": -5}])
def test_impossible_numbers_are_refused(checkpoint, wrong):
    with pytest.raises(InstructCellError):
        tl.generate(cell_type=generable(checkpoint), checkpoint=checkpoint, **wrong)


# ---- prompts


def test_prompts_are_the_ones_training_renders():
    from train.templates import RenderContext, canonical

    sample = {"species": "human", "tissue": "pancreatic islet"}
    label = RenderContext(label="B cell", **sample)
    assert annotation_prompt(**sample) == canonical("annotation", label).prompt
    assert drug_prompt("gefitinib") == canonical("drug", RenderContext(drug="gefitinib", response="resistant")).prompt
    new = RenderContext(cell_type=("B cell",), condition="IFN-beta", **sample)
    assert generation_prompt("B cell", condition="IFN-beta", **sample) == canonical("generation", new).prompt
    known = RenderContext(cell_type=("B cell",), markers=("MS4A1",))
    assert marker_prompt("B cell") == canonical("markers", known).prompt


def test_a_users_words_cannot_make_a_place_for_cells():
    assert annotation_prompt(tissue="skin {cells}\n").count("{cells}") == 1


# ---- figures


def test_the_map_keeps_groups_apart_and_repeats_itself():
    rng = np.random.default_rng(0)
    centres = rng.normal(0, 10, (3, 16))
    groups = np.repeat(np.arange(3), 60)
    embedding = centres[groups] + rng.normal(0, 1, (180, 16))
    one, two = map_cells(embedding, seed=1), map_cells(embedding, seed=1)
    np.testing.assert_array_equal(one, two)
    middles = np.stack([one[groups == group].mean(0) for group in range(3)])
    spread = max(one[groups == group].std(0).max() for group in range(3))
    gaps = [np.linalg.norm(middles[i] - middles[j]) for i, j in ((0, 1), (0, 2), (1, 2))]
    assert min(gaps) > 3 * spread


def test_a_large_set_is_laid_out_through_a_sample():
    rng = np.random.default_rng(0)
    positions = map_cells(rng.normal(size=(400, 8)), max_cells=100, n_epochs=20)
    assert positions.shape == (400, 2)
    assert np.isfinite(positions).all()


@pytest.mark.parametrize("n", [1, 2, 5])
def test_a_few_cells_have_a_map_too(n):
    assert map_cells(np.ones((n, 4))).shape == (n, 2)
    assert np.isfinite(principal_axes(np.ones((n, 1)))).all()


def test_figures_show_every_cell(annotated):
    for layout in ("umap", "pca"):
        figure = pl.umap(annotated, layout=layout)
        assert sum(len(trace.x) for trace in figure.data) == annotated.n_obs
    assert sum(pl.composition(annotated).data[0].x) == annotated.n_obs
    assert sum(len(trace.x) for trace in pl.confidence(annotated).data) == annotated.n_obs
    groups = [str(i % 11) for i in range(annotated.n_obs)]
    by_group = pl.composition(ad.AnnData(obs=annotated.obs.assign(lane=groups)), by="lane").data
    assert list(by_group[0].y) == [str(i) for i in range(11)] and sum(trace.x for trace in by_group) == pytest.approx(1)
    assert len(pl.umap(annotated, color="instructcell_confidence").data) == 1


def test_evidence_names_markers_that_the_cells_express(adata, checkpoint):
    rows = np.flatnonzero(adata.obs["cell_type"] == "pancreatic D cell")
    found = tools.evidence_of(adata, "CL:0000173", rows, checkpoint=checkpoint)
    assert found.table["gene"].iloc[0] == "SST"
    table = tools.evidence_frame([found])
    assert set(table["cell_type"]) == {found.cell_type}
    assert len(pl.evidence(adata, table=table).data[0].x) == len(table)


def test_a_figure_without_its_results_says_what_to_run(adata):
    with pytest.raises(InstructCellError, match="annotate"):
        pl.composition(adata)


def test_an_answer_broader_than_the_users_types_is_shared_among_those_under_it() -> None:
    labels = LabelSet(
        Label(name, id_)
        for name, id_ in (
            ("T cell", "CL:0000084"),
            ("CD4-positive, alpha-beta T cell", "CL:0000624"),
            ("CD8-positive, alpha-beta T cell", "CL:0000625"),
            ("B cell", "CL:0000236"),
        )
    )
    assert broader_than(labels, [[1], [2], [3]]) == [(0, [0, 1])]
    assert broader_than(labels, [[0, 1, 2], [3]]) == []
    assert broader_than(labels, [[3]]) == []
    found = summed(np.array([[0.7, 0.03, 0.07, 0.2], [1.0, 0.0, 0.0, 0.0]]), [[1], [2], [3]], [(0, [0, 1])])
    np.testing.assert_allclose(found, [[0.24, 0.56, 0.2], [0.5, 0.5, 0.0]], atol=1e-9)
