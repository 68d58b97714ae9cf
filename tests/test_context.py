"""The file as context, unseen types, broader types, clusters: made-up probabilities and a tiny random checkpoint."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import anndata as ad
import numpy as np
import pandas as pd
import pytest
import tiny
from scipy.sparse import csr_matrix

from instructcell import batches, stream, tasks, tools
from instructcell.batches import Reading
from instructcell.broader import BroaderTypes
from instructcell.checkpoint import load_checkpoint, write_calibration
from instructcell.clusters import cluster_probabilities, clusters_of
from instructcell.context import (
    ContextSettings,
    FileContext,
    TissueHint,
    known_tissue,
    label_prior,
    sample_rows,
    tissue_labels,
    tissue_shares,
)
from instructcell.errors import CheckpointError, LabelError
from instructcell.labels import Label, LabelSet
from instructcell.reference import Reference, load_reference, save_reference
from instructcell.session import Session
from train.calibrate import CONTEXTS, Judged, fit_broader, fit_cluster_cells, fit_context

FIGURES = {
    "temperature": 1.0,
    "unknown_below": 0.05,
    "drug_temperature": 1.0,
    "context_floor": 0.05,
    "neighbour_weight": 0.5,
    "context_temperature": 1.1,
    "linear_weight": 3.0,
    "marker_weight": 4.0,
    "own_weight": 3.0,
    "familiar_above": 0.01,
    "broader_above": 0.3,
    "cluster_cells": 4.0,
}
LABELS = LabelSet(
    [
        Label("type B pancreatic cell", "CL:0000169", tissues=("pancreatic islet",)),
        Label("pancreatic A cell", "CL:0000171", tissues=("pancreatic islet",)),
        Label("B cell", "CL:0000236", tissues=("PBMC", "PBMC (lupus patients)", "pancreatic islet")),
        Label("natural killer cell", "CL:0000623", tissues=("PBMC",)),
        Label("CD4-positive, alpha-beta T cell", "CL:0000624", tissues=("PBMC (lupus patients)",)),
        Label("CD8-positive, alpha-beta T cell", "CL:0000625", tissues=("PBMC",)),
    ]
)
ISLETS, BLOOD = [0, 1], [3, 4, 5]
STRONG = ContextSettings(floor=0.05, neighbour_weight=1.0)


def cells_of(columns: list[int], n_cells: int, sure: float = 0.9, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Probabilities [N, 6] of cells of these labels in turn, and embeddings [N, 8] around a point per label."""
    rng = np.random.default_rng(seed)
    truth = np.resize(columns, n_cells)
    probabilities = rng.dirichlet(np.full(len(LABELS), 0.5), n_cells) * (1 - sure)
    probabilities[np.arange(n_cells), truth] += sure
    embedding = 4 * np.eye(8)[truth] + rng.normal(0, 0.3, (n_cells, 8))
    return probabilities, embedding


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    """The tiny random checkpoint with figures for context, and a reference."""
    folder = tiny.make_tiny_checkpoint(tmp_path_factory.mktemp("checkpoints") / "context")
    plain, cells = load_checkpoint(folder), tiny.make_adata(80, seed=1)
    embedding = tools.embed(cells, checkpoint=plain)
    write_calibration(folder, FIGURES, Reference.fit(embedding, cells.obs["cell_type"].to_numpy(str)))
    return load_checkpoint(folder)


# ---- what a file looks like


def test_a_tissue_in_brackets_is_the_tissue():
    names, members = tissue_labels(LABELS)
    assert names == ["PBMC", "pancreatic islet"]
    assert members.sum(axis=1).tolist() == [4, 3]


def test_a_file_looks_like_the_tissue_of_its_cells():
    names, members = tissue_labels(LABELS)
    for columns, tissue in ((ISLETS, "pancreatic islet"), (BLOOD, "PBMC")):
        shares = tissue_shares(cells_of(columns, 60)[0], members)
        assert shares.sum() == pytest.approx(1)
        assert shares[names.index(tissue)] > 0.9


def test_labels_of_another_tissue_become_less_likely_but_never_impossible():
    context = FileContext.of(LABELS, *cells_of(ISLETS, 60), replace(STRONG, neighbour_weight=0.0))
    doubt = np.array([[0.4, 0.0, 0.0, 0.6, 0.0, 0.0], [0.01, 0.0, 0.0, 0.99, 0.0, 0.0]])
    seen = context.apply(doubt, context.nearest(np.zeros((2, 8))))
    assert seen.argmax(axis=1).tolist() == [0, 3]  # a doubt is decided, a sure cell stays what it is
    np.testing.assert_allclose(seen.sum(axis=1), 1)


def test_a_file_of_two_tissues_keeps_the_labels_of_both():
    probabilities = np.concatenate([cells_of(ISLETS, 90)[0], cells_of(BLOOD, 30)[0]])
    _, members = tissue_labels(LABELS)
    np.testing.assert_allclose(label_prior(tissue_shares(probabilities, members), members, 0.05), 0)


def test_a_file_of_one_type_that_two_tissues_have_stays_that_type():
    probabilities, embedding = cells_of([2], 50, sure=0.6)
    context = FileContext.of(LABELS, probabilities, embedding, STRONG)
    assert (context.apply(probabilities, context.nearest(embedding)).argmax(axis=1) == 2).mean() >= (
        probabilities.argmax(axis=1) == 2
    ).mean()


def test_a_doubtful_cell_leans_towards_its_neighbours():
    probabilities, embedding = cells_of(BLOOD, 120, sure=0.7)
    embedding[0] = 4 * np.eye(8)[3]  # among the natural killer cells
    probabilities[0] = [0, 0, 0, 0.4, 0.6, 0]
    context = FileContext.of(LABELS, probabilities, embedding, STRONG)
    assert context.neighbour_weight > 0.5
    assert context.apply(probabilities[:1], context.nearest(embedding[:1])).argmax() == 3


def test_in_a_file_that_is_sure_neighbours_change_nothing():
    probabilities, embedding = cells_of(BLOOD, 120, sure=1.0)
    context = FileContext.of(LABELS, probabilities, embedding, STRONG)
    assert context.neighbour_weight == pytest.approx(0, abs=1e-3)
    np.testing.assert_allclose(context.apply(probabilities, context.nearest(embedding)), probabilities, atol=1e-3)


def test_a_small_file_has_no_neighbours():
    context = FileContext.of(LABELS, *cells_of(BLOOD, 12, sure=0.5), STRONG)
    assert context.n_neighbours == 0 and context.neighbour_weight == 0


def test_neutral_settings_change_nothing():
    probabilities, embedding = cells_of(ISLETS, 60, sure=0.5)
    context = FileContext.of(LABELS, probabilities, embedding, ContextSettings.of({"temperature": 1.3}))
    assert ContextSettings.of({}).is_neutral
    np.testing.assert_allclose(context.apply(probabilities, context.nearest(embedding)), probabilities, atol=1e-6)


def test_the_sample_is_spread_evenly_and_holds_a_small_file_whole():
    assert sample_rows(5, 10).tolist() == [0, 1, 2, 3, 4]
    rows = sample_rows(1_000_000, 4000)
    assert len(rows) == 4000 and rows[0] == 0 and rows[-1] == 999_999
    steps = np.diff(rows)
    assert (steps[steps > 1] < 2010).all() and (steps == 1).sum() == 4000 - 500
    assert len(np.unique(sample_rows(4001, 4000))) >= 3990


# ---- what was said of the file


@pytest.mark.parametrize(
    ("said", "tissue"),
    [
        ("PBMC", "PBMC"),
        ("human blood", "PBMC"),
        ("peripheral blood mononuclear cells", "PBMC"),
        ("islets of Langerhans", "pancreatic islet"),
        ("pancreas", "pancreatic islet"),
        ("kidney", ""),
    ],
)
def test_a_tissue_is_known_by_the_words_people_use(said, tissue):
    assert known_tissue(said, ["PBMC", "pancreatic islet"]) == tissue


def test_a_hint_that_the_cells_contradict_is_set_aside_and_that_is_said():
    context = FileContext.of(LABELS, *cells_of(ISLETS, 60), STRONG, hint=TissueHint("blood"))
    assert context.hint is not None and context.hint.looks_like == "pancreatic islet"
    assert "You said blood, but the cells look like pancreatic islet; the hint was set aside." in context.sentences
    assert context.looks_like == ["pancreatic islet"]


def test_a_hint_that_helps_is_used():
    doubtful = np.tile([0.3, 0.05, 0.05, 0.3, 0.15, 0.15], (60, 1))
    names, _ = tissue_labels(LABELS)
    shares = {
        said: FileContext.of(LABELS, doubtful, np.ones((60, 8)), STRONG, hint=TissueHint(said)).tissues
        for said in ("islet", "PBMC")
    }
    assert shares["islet"]["pancreatic islet"] > 0.6 and shares["PBMC"]["PBMC"] > 0.6
    assert set(shares["islet"]) == set(names)


def test_a_contradicted_hint_is_not_in_the_prompt(checkpoint, monkeypatch):
    adata = tiny.make_adata(40)
    probabilities = cells_of(ISLETS, 40)[0]
    of_tiny = np.zeros((40, len(checkpoint.labels)))
    of_tiny[:, :2] = probabilities[:, :2] / probabilities[:, :2].sum(axis=1, keepdims=True)
    prompts = []

    def ask(loaded, cells, prompt, answers, batch_size):
        prompts.append(prompt)
        return of_tiny[: cells.counts.shape[0]]

    monkeypatch.setattr(tasks, "ask_lm", ask)
    result = tools.annotate(adata, checkpoint=checkpoint, tissue="PBMC")
    assert prompts == ["human | annotate: {cells}", "human | annotate: {cells}"]
    assert result.context_words[0].startswith("You said PBMC, but the cells look like pancreatic islet")
    assert "set aside" in adata.uns["instructcell"]["arguments"]["context_said"]
    tools.annotate(adata, checkpoint=checkpoint, tissue="islet")
    assert prompts[-1] == "human islet | annotate: {cells}"


def test_the_tissue_a_file_names_is_a_hint_only_where_it_is_one_and_never_a_text_for_the_model(checkpoint, monkeypatch):
    adata = tiny.make_adata(40)
    adata.obs["tissue"] = "PBMC"
    assert tasks.tissue_of_file(adata) == TissueHint("PBMC", by="file")
    prompts, ask = [], tasks.ask_lm
    monkeypatch.setattr(tasks, "ask_lm", lambda *given: prompts.append(given[2]) or ask(*given))
    tools.annotate(adata, checkpoint=checkpoint)
    assert set(prompts) == {"human | annotate: {cells}"}
    adata.obs.loc[adata.obs_names[0], "tissue"] = "liver"
    assert tasks.tissue_of_file(adata) is None


def test_a_species_that_the_genes_contradict_is_set_aside(checkpoint):
    adata = tiny.make_adata(20)
    adata.var_names = [f"ENSG{i:011d}" for i in range(adata.n_vars)]
    assert batches.contradicted_species(adata, Reading(species="mouse"))
    assert not batches.contradicted_species(adata, Reading(species="human"))
    mouse = tiny.make_adata(20)
    mouse.var_names = [name.capitalize() for name in mouse.var_names]
    result = tools.annotate(mouse, checkpoint=checkpoint, species="human")
    assert result.report.species == "mouse"
    assert result.notes == ("You said human, but the genes are of mouse; the hint was set aside.",)
    symbols = tiny.make_adata(20)  # human symbols may stand for the orthologs of mouse genes
    assert not batches.contradicted_species(symbols, Reading(species="mouse"))


# ---- the same context however a file is read


@pytest.mark.parametrize("batch_size", [7, 256])
def test_context_from_disk_equals_context_in_memory_bit_for_bit(checkpoint, tmp_path, monkeypatch, batch_size):
    monkeypatch.setattr(batches, "READ_CELLS", 16)
    monkeypatch.setattr(stream, "PART_CELLS", 16)
    monkeypatch.setattr(tasks, "SAMPLE_CELLS_BY_LM", 40)  # a part of the file only
    adata = tiny.make_adata(90)
    adata.obs["group"] = pd.Categorical(np.resize(["a", "b", "c"], 90))
    adata.write_h5ad(tmp_path / "cells.h5ad")
    inside = tools.annotate(adata, checkpoint=checkpoint, batch_size=batch_size, by="group")
    outside = stream.annotate(
        tmp_path / "cells.h5ad", tmp_path / "out.h5ad", checkpoint=checkpoint, batch_size=batch_size, by="group"
    )
    assert inside.context is not None and len(inside.context.unit) == 40
    pd.testing.assert_frame_equal(outside.table, inside.table)
    pd.testing.assert_frame_equal(outside.clusters, inside.clusters)
    written = ad.read_h5ad(tmp_path / "out.h5ad")
    ours = [name for name in adata.obs if name.startswith("instructcell")]
    assert len(ours) == 11
    for name in ours:
        np.testing.assert_array_equal(written.obs[name].to_numpy(), adata.obs[name].to_numpy(), err_msg=name)
    adata.write_h5ad(tmp_path / "memory.h5ad")
    kept = ad.read_h5ad(tmp_path / "memory.h5ad")
    run, kept_run = (json.dumps(each.uns["instructcell"], default=str, sort_keys=True) for each in (written, kept))
    assert run == kept_run


def test_an_interrupted_run_with_context_is_resumed_to_the_same_result(checkpoint, tmp_path, monkeypatch):
    monkeypatch.setattr(batches, "READ_CELLS", 16)
    monkeypatch.setattr(stream, "PART_CELLS", 16)
    cells, score = tmp_path / "cells.h5ad", tools.scored
    tiny.make_adata(60).write_h5ad(cells)
    whole = stream.annotate(cells, tmp_path / "whole.h5ad", checkpoint=checkpoint, batch_size=8)

    def broken(*given, **settings):
        for i, item in enumerate(score(*given, **settings)):
            if i == 3:
                raise RuntimeError("the machine went down")
            yield item

    monkeypatch.setattr(tools, "scored", broken)
    with pytest.raises(RuntimeError):
        stream.annotate(cells, tmp_path / "part.h5ad", checkpoint=checkpoint, batch_size=8)
    monkeypatch.setattr(tools, "scored", score)
    resumed = stream.annotate(cells, tmp_path / "part.h5ad", checkpoint=checkpoint, batch_size=8, resume=True)
    pd.testing.assert_frame_equal(resumed.table, whole.table)


def test_a_selection_is_seen_in_its_file(checkpoint):
    adata = tiny.make_adata(60)
    whole = tools.annotate(adata.copy(), checkpoint=checkpoint).table
    part = tools.finish(tools.annotate_steps(adata, checkpoint=checkpoint, rows=[4, 1])).table
    np.testing.assert_allclose(part["confidence"], whole["confidence"].iloc[[4, 1]], atol=1e-4)


def test_without_context_each_cell_is_read_by_itself(checkpoint, monkeypatch):
    adata = tiny.make_adata(60)
    seen = tools.annotate(adata.copy(), checkpoint=checkpoint)
    alone = tools.annotate(adata.copy(), checkpoint=checkpoint, context=False)
    old = replace(checkpoint, calibration={name: FIGURES[name] for name in ("temperature", "unknown_below")})
    monkeypatch.setattr(FileContext, "of", None)  # an old checkpoint looks at no sample
    before = tools.annotate(adata.copy(), checkpoint=old)
    assert alone.context is None and before.context is None and alone.context_words == []
    np.testing.assert_array_equal(alone.table["confidence"], before.table["confidence"])
    assert not np.allclose(alone.table["confidence"], seen.table["confidence"])


# ---- unseen types


def test_cells_of_an_unseen_type_lie_far_away():
    rng = np.random.default_rng(0)
    types = np.repeat(["a", "b", "c"], 100)
    centres = {"a": np.eye(6)[0], "b": np.eye(6)[1], "c": np.eye(6)[2]}
    seen = np.stack([5 * centres[name] for name in types]) + rng.normal(0, 0.5, (300, 6))
    reference = Reference.fit(seen, types)
    strangers = 5 * np.eye(6)[3] + rng.normal(0, 0.5, (50, 6))
    assert reference.distance(strangers).min() > np.quantile(reference.distance(seen), 0.99)
    assert reference.familiarity(reference.distance(strangers)).max() < 0.01
    assert np.median(reference.familiarity(reference.distance(seen))) == pytest.approx(0.5, abs=0.01)


def test_a_reference_is_kept_with_its_checkpoint_and_refused_by_another(tmp_path):
    rng = np.random.default_rng(0)
    cells = rng.normal(size=(40, 5))
    reference = replace(Reference.fit(cells, np.resize(["a", "b"], 40)), weights="abc")
    save_reference(reference, tmp_path)
    back = load_reference(tmp_path, "abc")
    assert back is not None
    np.testing.assert_array_equal(back.distance(cells), reference.distance(cells))
    with pytest.raises(CheckpointError, match="--recalibrate"):
        load_reference(tmp_path, "other")
    (tmp_path / "reference.safetensors").write_bytes(b"no tensors")
    with pytest.raises(CheckpointError, match="cannot be loaded"):
        load_reference(tmp_path, "abc")
    assert load_reference(tmp_path / "nowhere", "abc") is None


def test_the_usual_distance_is_that_of_the_embedding_alone(tmp_path):
    """Markers may shrink the distances of known cells; a file's shift must not grow by that."""
    rng = np.random.default_rng(0)
    cells = rng.normal(size=(40, 5))
    reference = Reference.fit(cells, np.resize(["a", "b"], 40))
    judged = reference.judged_by(0.1 * reference.distance(cells), "abc", typical=reference.usual)
    save_reference(judged, tmp_path)
    back = load_reference(tmp_path, "abc")
    assert back is not None and back.usual == pytest.approx(reference.usual)
    assert back.familiarity(reference.distance(cells)).max() < 0.01


def test_unfamiliar_cells_are_unknown_whatever_their_label(checkpoint):
    strict = replace(checkpoint, calibration={**FIGURES, "familiar_above": 1.1})
    result = tools.annotate(tiny.make_adata(20), checkpoint=strict)
    assert result.unknown_share == 1 and set(result.table["broader_type"]) == {"unknown"}
    assert result.table["familiarity"].between(0, 1).all()


def test_a_whole_file_that_lies_far_away_is_measured_by_its_own_median(checkpoint):
    reference, n_cells = checkpoint.reference, 60
    rng = np.random.default_rng(0)
    probabilities = rng.dirichlet(np.ones(len(checkpoint.labels)), n_cells)
    embedding = rng.normal(0, 50, (n_cells, reference.whiten.shape[0]))
    context = FileContext.of(checkpoint.labels, probabilities, embedding, STRONG, reference=reference)
    assert context.shift > 1.5
    assert "labels are less certain" in context.sentences[-1]
    alone = reference.distance(embedding)
    assert (context.distances(alone, context.nearest(embedding)) < alone).all()


# ---- broader types


def test_a_broader_type_is_named_where_only_that_is_sure():
    types = BroaderTypes(LABELS)
    position, confidence = types.narrowest(
        np.array([[0, 0, 0.0, 0.02, 0.57, 0.41], [0.98, 0.02, 0, 0, 0, 0], [0.3, 0, 0.3, 0.1, 0.1, 0.2]]), 0.9
    )
    assert [types.names[i] if i >= 0 else "" for i in position] == ["alpha-beta T cell", "type B pancreatic cell", ""]
    assert types.ids[position[0]] == "CL:0000789"
    np.testing.assert_allclose(confidence, [0.98, 0.98, 0.0])


def test_terms_that_are_no_kind_of_cell_are_never_an_answer():
    names = BroaderTypes(LABELS).names
    assert {"lymphocyte", "pancreatic endocrine cell", "alpha-beta T cell"} <= set(names)
    assert not {"cell", "motile cell", "nucleate cell", "secretory cell", "eukaryotic cell"} & set(names)


def test_a_label_finer_than_its_term_backs_off_to_the_term():
    lines = LabelSet([Label("A375 melanoma cell", "CL:0001064"), Label("A549 lung cell", "CL:0001064")])
    types = BroaderTypes(lines)
    position, _ = types.narrowest(np.array([[0.55, 0.45]]), 0.9)
    assert types.names[position[0]] == "malignant cell"


def test_broader_types_are_written_and_told(checkpoint):
    adata = tiny.make_adata(40)
    result = tools.annotate(adata, checkpoint=checkpoint)
    known = set(BroaderTypes(checkpoint.labels).names)
    assert set(adata.obs["instructcell_broader_type"]) <= known | {"unknown"}
    sure = adata.obs["instructcell_broader_confidence"]
    assert ((sure >= FIGURES["broader_above"] - 1e-6) == (adata.obs["instructcell_broader_type"] != "unknown")).all()
    assert (
        result.broader["cells"].sum()
        == (
            (result.table["broader_type"] != result.table["best_guess"]) & (result.table["broader_type"] != "unknown")
        ).sum()
    )


def test_among_own_labels_there_is_no_broader_type(checkpoint):
    adata = tiny.make_adata(20)
    result = tools.annotate(adata, checkpoint=checkpoint, labels=["B cell", "T cell"])
    assert "instructcell_broader_type" not in adata.obs
    assert result.broader.empty and set(result.table["best_guess"]) <= {"B cell", "T cell"}


# ---- clusters


def test_a_noisy_cluster_is_named_from_what_the_file_does_not_explain():
    """A rare type with half of the cells of its cluster; the file's most frequent type has the other, larger half."""
    file = np.concatenate([cells_of([4], 300)[0], cells_of([3], 20)[0]])
    cluster = np.concatenate([cells_of([4], 9)[0], cells_of([3], 7)[0]])
    votes = np.bincount(cluster.argmax(axis=1), minlength=6)
    assert votes.argmax() == 4
    assert cluster_probabilities(cluster, file.mean(axis=0)).argmax() == 3


def test_a_pure_cluster_of_a_file_of_one_type_is_that_type():
    cells = cells_of([2], 100, sure=0.6)[0]
    assert cluster_probabilities(cells, cells.mean(axis=0)).argmax() == 2


def test_many_cells_are_surer_than_few_up_to_what_a_cluster_is_worth():
    cells = cells_of([3, 3, 5], 60, sure=0.5)[0]
    everything = np.full(6, 1 / 6)
    three, sixty = (cluster_probabilities(cells[:n], everything, 20.0).max() for n in (3, 60))
    assert sixty > three
    np.testing.assert_allclose(
        cluster_probabilities(cells, everything, 5.0), cluster_probabilities(np.tile(cells, (2, 1)), everything, 5.0)
    )


def test_clusters_come_by_size_and_cells_without_one_are_left_out():
    found = clusters_of(pd.Series(["b", None, "a", "b", ""]))
    assert list(found) == ["b", "a"]
    assert found["b"].tolist() == [0, 3]


def test_annotate_by_names_clusters_and_writes_them(checkpoint, tmp_path):
    adata = tiny.make_adata(40)
    adata.obs["leiden"] = pd.Categorical(["0"] * 25 + ["1"] * 10 + [None] * 5)
    result = tools.annotate(adata, checkpoint=checkpoint, by="leiden")
    assert result.clusters is not None and result.clusters["cells"].to_dict() == {"0": 25, "1": 10}
    assert set(result.clusters["best_guess"]) <= set(checkpoint.labels.names)
    written = adata.obs["instructcell_cluster_type"].astype(str)
    assert written[:25].nunique() == 1 and set(written[35:]) == {""}
    assert adata.obs["instructcell_cluster_confidence"].isna().tolist() == [False] * 35 + [True] * 5
    assert adata.uns["instructcell"]["arguments"]["by"] == "leiden"
    adata.write_h5ad(tmp_path / "clusters.h5ad")


@pytest.mark.parametrize(("column", "said"), [("nothing", "found no column 'nothing'"), ("own", "found 40 clusters")])
def test_a_column_that_holds_no_clusters_is_refused(checkpoint, column, said):
    adata = tiny.make_adata(40)
    adata.obs["own"] = [f"cell {i}" for i in range(40)]
    with pytest.raises(LabelError, match=said):
        tools.annotate(adata, checkpoint=checkpoint, by=column)
    assert "instructcell_cell_type" not in adata.obs


# ---- the answer


def test_the_session_says_what_the_file_was_taken_for(checkpoint, monkeypatch):
    said = "The file as a whole looks like PBMC; that was used as context."
    monkeypatch.setattr(FileContext, "sentences", property(lambda self: [said]))
    session = Session(tiny.make_adata(30), checkpoint=checkpoint)
    list(session.send("Which cell types are these?"))
    assert said in session.history[-1].answer
    assert session.adata is not None and "instructcell_broader_type" in session.adata.obs


def test_the_session_makes_the_context_once(checkpoint, monkeypatch):
    made, of = [], FileContext.of.__func__

    def counted(cls, *given, **settings):
        made.append(given)
        return of(cls, *given, **settings)

    monkeypatch.setattr(FileContext, "of", classmethod(counted))
    session = Session(tiny.make_adata(30), checkpoint=checkpoint)
    list(session.send("Which cell types are these?"))
    list(session.send("What are the first 5 cells?"))
    assert len(made) == 1


# ---- calibration


def judged(columns: list[int], sure: float, seed: int, wrong: float = 0.0) -> Judged:
    probabilities, embedding = cells_of(columns, 60, sure, seed)
    return Judged(f"file {seed}", probabilities, embedding, np.resize(columns, 60), *unread(60))


def unread(n_cells: int) -> tuple[csr_matrix, np.ndarray]:
    """Counts and measured genes of cells that no linear reader is asked about."""
    return csr_matrix((n_cells, 5), dtype=np.float32), np.ones(5, bool)


def without_populations(labels: LabelSet) -> Any:
    """A checkpoint that has nothing for a linear reader to learn from."""
    return SimpleNamespace(labels=labels, populations=None)


def test_the_strongest_context_that_costs_nothing_is_taken():
    settings = fit_context(without_populations(LABELS), [judged(ISLETS, 0.6, 0), judged(BLOOD, 0.6, 1)], 1.0, None)
    assert (settings.floor, settings.neighbour_weight) == (CONTEXTS[0].floor, CONTEXTS[0].neighbour_weight)
    assert not settings.asks_readers  # there is nothing that they could learn from


def test_a_context_that_costs_accuracy_is_not_taken():
    """Cells of blood in a file that looks like islets, each doubtful and right."""
    probabilities, embedding = cells_of(ISLETS, 60, sure=0.95)
    probabilities[:20] = [0.4, 0.0, 0.0, 0.6, 0.0, 0.0]
    embedding[:20] = 4 * np.eye(8)[0]
    truth = np.resize(ISLETS, 60)
    truth[:20] = 3
    names, members = tissue_labels(LABELS)
    apart = LabelSet([replace(label, tissues=(f"tissue {i}",)) for i, label in enumerate(LABELS)])
    probabilities[20:] = np.eye(6)[truth[20:]]
    cells = probabilities[18:], embedding[18:], truth[18:]  # too few to count as a tissue that is there
    settings = fit_context(without_populations(apart), [Judged("mixed", *cells, *unread(42))], 1.0, None)
    assert (settings.floor, settings.neighbour_weight) != (CONTEXTS[0].floor, CONTEXTS[0].neighbour_weight)
    assert names and len(members)


def test_the_threshold_of_broader_types_is_the_least_that_is_right_often_enough():
    types = BroaderTypes(LABELS)
    honest = np.tile([0, 0, 0, 0, 0.5, 0.5], (100, 1))
    assert fit_broader(types, honest, np.full(100, 4)) == 0.8
    assert fit_broader(types, honest, np.full(100, 0)) == 0.95  # always wrong: the strictest


def test_clusters_of_cells_that_are_right_are_worth_more_than_of_cells_that_err_together():
    right, wrong = cells_of(BLOOD, 120, sure=0.6)[0], cells_of([3, 4, 4], 120, sure=0.6)[0]
    truth = np.resize(BLOOD, 120)
    assert fit_cluster_cells([right], [truth], 0) > fit_cluster_cells([wrong], [truth], 0)


def test_recalibration_writes_every_figure_and_a_reference(tmp_path: Path):
    from made_up import micro_recipe, write_data

    from train import build
    from train.build import Run
    from train.calibrate import recalibrate

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(build, "N_CORPUS", 300)
        run = Run(micro_recipe(), write_data(tmp_path), tmp_path / "run")
    run.save(tmp_path / "micro", {"temperature": 2.0, "unknown_below": 0.2, "drug_temperature": 1.5})
    before = load_checkpoint(tmp_path / "micro")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("train.calibrate.HEADLINE", ())
        figures = recalibrate(tmp_path / "micro", run.datasets)
    loaded = load_checkpoint(tmp_path / "micro")
    assert before.reference is None and set(before.calibration) < set(figures)
    assert loaded.calibration == figures and set(figures) == set(FIGURES)
    assert figures["drug_temperature"] == 1.5
    assert loaded.reference is not None and loaded.reference.weights == loaded.hash
