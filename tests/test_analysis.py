"""Analyses of cells: each on cells whose answer is known."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp
import tiny
import torch
from anndata import AnnData
from scipy import stats
from scipy.stats import multinomial

from encoders.expression import normalise_expression
from encoders.profiles import ProfileLikelihood
from instructcell import analysis, batches
from instructcell.analysis import explanation
from instructcell.analysis.likelihood import profile_labels, profile_ratio
from instructcell.analysis.pseudo import maximum_mean_discrepancy
from instructcell.checkpoint import load_checkpoint
from instructcell.errors import GeneAlignmentError, InstructCellError, LabelError
from instructcell.labels import Label, LabelSet
from instructcell.readout import LabelReadout, ReadoutConfig

BETA, ALPHA, NK, B_CELL = "type B pancreatic cell", "pancreatic A cell", "natural killer cell", "B cell"


@pytest.fixture(scope="module")
def cells() -> AnnData:
    return tiny.make_adata(160)


@pytest.fixture
def labelled(cells):
    """Cells with the labels that `annotate` would write."""
    named = cells.copy()
    named.obs["instructcell_cell_type"] = pd.Categorical(named.obs["cell_type"])
    named.obs["instructcell_cell_type_id"] = [tiny.MARKERS[name][0] for name in named.obs["cell_type"]]
    named.obs["instructcell_confidence"] = np.float32(0.9)
    return named


def rows_of(adata, *names):
    return np.flatnonzero(adata.obs["cell_type"].isin(names).to_numpy())


def few_cells(counts, genes, **obs):
    index = [f"c{i}" for i in range(len(counts))]
    return AnnData(np.asarray(counts, np.float32), obs=pd.DataFrame(obs, index=index), var=pd.DataFrame(index=genes))


# ---- cells as they were measured


def test_genes_that_share_a_symbol_are_summed_and_keep_their_own_name():
    adata = few_cells([[1, 2, 4], [0, 3, 1]], ["MS4A1", "CD20", "INS"])
    report = batches.look(adata, ["MS4A1", "INS"])
    report = SimpleNamespace(**{**report.__dict__, "gene_symbols": ("MS4A1", "MS4A1", "INS")})
    measured = analysis.measured_cells(adata, report)
    assert measured.genes == ("MS4A1", "INS") and measured.symbols == ("MS4A1", "INS")
    assert measured.counts.toarray().tolist() == [[3, 4], [3, 1]]


def test_a_gene_is_found_by_alias_full_name_and_the_files_own_name(cells):
    found = analysis.measured_cells(cells).find(["CD20", "insulin", "no such gene", "SLC2A2"])
    assert found.genes == ("MS4A1", "INS")
    assert found.read_as["CD20"] == "MS4A1" and found.not_measured == ("SLC2A2",)
    assert list(found.unknown) == ["no such gene"]


@pytest.mark.parametrize("rows", [[], [0, 10_000], [-1]])
def test_positions_outside_the_file_are_refused(cells, rows):
    with pytest.raises(InstructCellError, match="expected"):
        analysis.measured_cells(cells, rows=np.array(rows, dtype=int))


# ---- quality


def test_quality_counts_depth_and_mitochondrial_share_cell_by_cell():
    genes = [*tiny.tiny_genes(60), "MT-ND1"]
    counts = np.ones((40, 61))
    counts[0, -1] = 60.0  # half of its counts
    counts[1] *= 5.0  # five times as deep
    found = analysis.quality(few_cells(counts, genes, donor=["a"] * 30 + ["b"] * 10), by="donor")
    assert (found.n_cells, found.n_genes, found.median_counts, found.median_genes) == (40, 61, 61.0, 61.0)
    assert found.cells["mitochondrial_share"].iloc[0] == pytest.approx(0.5)
    assert found.mitochondrial_share == pytest.approx(1 / 61)
    assert found.cells["deep"].tolist() == [False, True, *[False] * 38]
    assert found.deep_share == pytest.approx(1 / 40)
    assert found.table["group"].tolist() == ["a", "b"] and found.table["cells"].tolist() == [30, 10]
    assert found.table["deep_share"].tolist() == pytest.approx([1 / 30, 0])


def test_outliers_of_depth_are_of_low_quality(cells):
    poor = cells.copy()
    poor.X[3] = 0
    poor.X[3, :5] = 1
    found = analysis.quality(poor)
    assert found.cells["low_quality"].iloc[3]
    assert found.low_quality_share < 0.1
    assert found.mitochondrial_share is None and found.cells["mitochondrial_share"].isna().all()


def test_quality_of_a_missing_column_names_those_there_are(cells):
    with pytest.raises(InstructCellError, match="those it has: cell_type"):
        analysis.quality(cells, by="celltype")


# ---- clusters


def test_two_groups_of_points_are_two_clusters_named_by_size():
    rng = np.random.default_rng(0)
    points = np.vstack([rng.normal(0, 0.1, (30, 4)), rng.normal(5, 0.1, (50, 4))]).astype(np.float32)
    found = analysis.cluster(points, resolution=0.1)
    assert found.table["cells"].tolist() == [50, 30]
    assert found.groups.iloc[0] == "1" and found.rows_of("0").tolist() == list(range(30, 80))
    assert found.modularity > 0.4
    with pytest.raises(InstructCellError, match="named 0 to 1"):
        found.rows_of("7")


def test_clusters_are_the_same_every_time_and_follow_the_cell_types(cells):
    first, again = (analysis.cluster(cells, seed=1) for _ in range(2))
    assert first.groups.tolist() == again.groups.tolist()
    crossed = pd.crosstab(first.groups.to_numpy(), cells.obs["cell_type"].to_numpy())
    assert crossed.max(axis=1).sum() > 0.8 * cells.n_obs
    assert "principal components" in first.basis


def test_clusters_use_the_checkpoints_embedding_where_it_is_there(cells):
    embedded = cells.copy()
    embedded.obsm["X_instructcell"] = np.repeat([[0.0, 0.0], [9.0, 9.0]], 80, axis=0).astype(np.float32)
    embedded.obsm["X_instructcell"] += np.random.default_rng(0).normal(0, 0.1, (160, 2)).astype(np.float32)
    found = analysis.cluster(embedded, resolution=0.1, rows=np.arange(20, 160))
    assert found.basis == "X_instructcell" and found.rows[0] == 20
    assert sorted(found.table["cells"]) == [60, 80]


@pytest.mark.parametrize("given", [{"rows": [0, 1]}, {"resolution": 0.0}, {"n_neighbors": 1}])
def test_what_cannot_be_clustered_is_refused(cells, given):
    with pytest.raises(InstructCellError, match="expected"):
        analysis.cluster(cells, **given)


# ---- expression


def test_expression_by_hand():
    adata = few_cells([[8, 2, 0], [0, 10, 0], [5, 5, 10]], ["INS", "GCG", "MS4A1"], kind=["x", "y", "x"])
    report = batches.look(adata, ["INS", "GCG", "MS4A1"])
    found = analysis.expression(adata, ["INS", "CD20"], by="kind", report=report)
    row = found.table.set_index(["gene", "group"]).loc[("INS", "x")]
    assert (row["cells"], row["expressing"], row["share_of_cells"]) == (2, 2, 1.0)
    assert row["mean"] == pytest.approx((np.log1p(8000) + np.log1p(2500)) / 2, rel=1e-5)
    other = found.table.set_index(["gene", "group"]).loc[("INS", "y")]
    assert other["share_of_cells"] == 0 and other["mean_if_expressed"] == 0
    assert found.genes == ("INS", "MS4A1") and found.by == "kind"
    whole = analysis.expression(adata, "MS4A1", rows=[2], report=report)
    assert whole.table["mean"].tolist() == pytest.approx([np.log1p(5000)], rel=1e-5)


def test_expression_of_genes_no_file_has_says_which(cells):
    with pytest.raises(GeneAlignmentError, match="did not measure SLC2A2 and no gene is called 'gcgg'.*GCG"):
        analysis.expression(cells, ["SLC2A2", "gcgg"])


# ---- comparison


def test_markers_differ_and_point_to_their_type(cells):
    found = analysis.compare(cells, rows_of(cells, BETA), rows_of(cells, NK), names=("beta", "nk"))
    assert set(tiny.MARKERS[BETA][1]) >= set(found.top("beta", 5)["gene"])
    assert set(tiny.MARKERS[NK][1]) >= set(found.top("nk", 5)["gene"])
    assert (found.top("beta")["log2_fold_change"] > 0).all() and (found.top("nk")["log2_fold_change"] < 0).all()
    assert found.types.loc[found.types["higher_in"] == "nk", "cell_type"].iloc[0] == NK
    assert {"INS", "NKG7"} <= set(found.meaning["gene"]) and (found.meaning["source"] != "").all()
    assert (found.n_a, found.n_b) == (20, 20) and found.n_significant == found.table["significant"].sum()


def test_the_test_is_the_rank_sum_test_corrected_for_ties(cells):
    a, b = rows_of(cells, BETA), rows_of(cells, ALPHA)
    found = analysis.compare(cells, a, b).table.set_index("gene")
    values = analysis.measured_cells(cells).log_expression.toarray()
    for gene in ("INS", "GCG", "MS4A1"):
        column = values[:, list(cells.var_names).index(gene)]
        expected = stats.mannwhitneyu(column[a], column[b], method="asymptotic", use_continuity=False)
        p = 2 * stats.norm.sf(abs(found.loc[gene, "score"]))
        assert p == pytest.approx(expected.pvalue, rel=1e-6)
        assert found.loc[gene, "p_adjusted"] >= p
    assert found.loc["INS", "score"] > 0 > found.loc["GCG", "score"]


def test_the_other_cells_are_compared_with_when_none_are_named(cells):
    found = analysis.compare(cells, rows_of(cells, BETA))
    assert found.n_b == 140 and found.table["gene"].iloc[0] in tiny.MARKERS[BETA][1]


def test_too_few_or_shared_cells_are_refused(cells):
    with pytest.raises(InstructCellError, match="found 2 cells in 'a', expected at least 3"):
        analysis.compare(cells, [0, 1], names=("a", "b"))
    with pytest.raises(InstructCellError, match="2 cells in both"):
        analysis.compare(cells, [0, 1, 2, 3], [2, 3, 4])
    with pytest.raises(InstructCellError, match="expected at least 3"):
        analysis.compare(cells, [0, 1, 2], [7, 7, 7])


# ---- finding


def test_cells_are_found_by_one_or_all_of_several_genes():
    adata = few_cells([[1, 1, 5], [1, 0, 5], [0, 0, 5]], ["CD3E", "CD8A", "ACTB"])
    report = batches.look(adata, ["CD3E", "CD8A", "ACTB"])
    assert analysis.find_by_gene(adata, ["CD3E", "CD8A"], report=report).rows.tolist() == [0]
    assert sorted(analysis.find_by_gene(adata, ["CD3E", "CD8A"], all=False, report=report).rows) == [0, 1]
    assert analysis.find_by_gene(adata, "CD3E", above=np.log1p(1500), report=report).rows.tolist() == [1]
    found = analysis.find_by_gene(adata, "CD3E", rows=[1, 2], report=report)
    assert found.rows.tolist() == [1] and found.share == 0.5 and found.table["chosen"].tolist() == [True, False]
    with pytest.raises(GeneAlignmentError, match="did not measure INS"):
        analysis.find_by_gene(adata, ["CD3E", "INS"], report=report)


def test_labelled_cells_are_found_by_a_broader_word(labelled):
    found = analysis.find_by_text(labelled, "T cells")
    names = {"CD4-positive, alpha-beta T cell", "CD8-positive, alpha-beta T cell"}
    assert sorted(found.rows) == rows_of(labelled, *names).tolist()
    assert found.how == "annotation" and found.read_as["name"].iloc[0] == "T cell"


def test_a_description_is_read_by_its_meaning(labelled):
    found = analysis.find_by_text(labelled, "cells that secrete insulin")
    assert sorted(found.rows) == rows_of(labelled, BETA).tolist()
    assert "INS" in set(found.read_as["id"]) and (found.read_as["source"] != "").all()


def test_a_finer_word_than_the_labels_leaves_the_choice_to_the_genes(labelled):
    found = analysis.find_by_text(labelled, "cytotoxic T cells")
    assert found.how == "annotation and genes" and np.isfinite(found.threshold)
    chosen = labelled.obs["cell_type"].iloc[found.rows].value_counts()
    assert chosen.index[0] == "CD8-positive, alpha-beta T cell"
    assert set(chosen[chosen > 0].index) <= {"CD8-positive, alpha-beta T cell", "CD4-positive, alpha-beta T cell"}


def test_genes_decide_where_nothing_is_labelled(cells):
    found = analysis.find_by_text(cells, "B cells")
    assert found.how == "genes" and found.table["label_score"].isna().all()
    truth, chosen = set(rows_of(cells, B_CELL)), set(found.rows)
    assert len(truth & chosen) > 0.9 * len(truth) and len(chosen - truth) < 0.25 * len(truth)


def test_named_genes_alone_are_looked_for_as_genes(labelled):
    found = analysis.find_by_text(labelled, "cells with CD8A")
    assert found.asked == "cells with CD8A"
    assert sorted(found.rows) == sorted(analysis.find_by_gene(labelled, "CD8A").rows)


@pytest.mark.parametrize("text", ["purple cells", "cells that respond to interferon"])
def test_what_means_nothing_here_is_refused(labelled, text):
    with pytest.raises(InstructCellError, match="expected a description|file measures 0 of the 10 genes"):
        analysis.find_by_text(labelled, text)


# ---- explanation


class KnownEncoder:
    """Embeds a cell as the normalised level and the detection of INS and of GCG: what matters is known."""

    device = torch.device("cpu")
    cell_encoder = SimpleNamespace(profiles=None)

    def __init__(self, genes):
        self.columns = [genes.index("INS"), genes.index("GCG")]

    def encode_cells(self, counts, measured):
        level, detected = normalise_expression(counts, measured)
        return torch.cat([level[:, self.columns], detected[:, self.columns]], dim=1).unsqueeze(1)  # [N, 1, 4]


def known_readout(n_labels: int) -> LabelReadout:
    """Label 0 gains 1 for the level and 2 for the presence of INS and loses as much for GCG; others are level."""
    readout = LabelReadout(ReadoutConfig(n_embeddings=1, n_latent=4, n_labels=n_labels, n_hidden=1))
    for parameter in readout.parameters():
        torch.nn.init.zeros_(parameter)
    readout.direct.weight.data[0] = torch.tensor([1.0, -1.0, 2.0, -2.0, 0.0, 0.0])
    return readout


@pytest.fixture
def known_checkpoint():
    labels = LabelSet([Label(BETA, id="CL:0000169"), Label(ALPHA, id="CL:0000171"), Label(NK, id="CL:0000623")])
    genes = tiny.tiny_genes()
    processor = SimpleNamespace(genes=genes)
    return SimpleNamespace(
        model=KnownEncoder(genes), processor=processor, labels=labels, readout=known_readout(len(labels))
    )


def test_the_genes_that_decide_are_named_with_their_side(cells, known_checkpoint):
    adata = cells.copy()
    beta = rows_of(adata, BETA)
    adata.X[beta, list(adata.var_names).index("GCG")] += 3  # a contradicting gene
    found = analysis.explain(adata, beta, checkpoint=known_checkpoint, label=BETA, runner_up="alpha cell")
    assert (found.label, found.runner_up, found.engine) == (BETA, ALPHA, "readout")
    assert found.supporting["gene"].tolist() == ["INS"] and found.contradicting["gene"].tolist() == ["GCG"]
    assert found.supporting["marks"].tolist() == ["label"] and found.contradicting["marks"].tolist() == ["runner-up"]
    assert found.log_odds > 0 and found.n_cells == len(found.rows) == 20
    assert "INS" in found.sentence() and "Against it speak GCG" in found.sentence()
    others = found.table.set_index("gene")["attribution"].drop(["INS", "GCG"], errors="ignore")
    assert others.abs().max() < found.supporting["attribution"].iloc[0] / 5


def test_removing_a_gene_costs_its_level_and_its_presence(cells, known_checkpoint):
    beta = rows_of(cells, BETA)[:4]
    found = analysis.explain(cells, beta, checkpoint=known_checkpoint, label=BETA, runner_up=ALPHA)
    counts = torch.from_numpy(cells.X[beta])
    level, _ = normalise_expression(counts, torch.ones_like(counts, dtype=torch.bool))
    of_ins = float(level[:, list(cells.var_names).index("INS")].mean())
    without = counts.clone()
    without[:, list(cells.var_names).index("INS")] = 0
    left, _ = normalise_expression(without, torch.ones_like(counts, dtype=torch.bool))
    of_gcg = list(cells.var_names).index("GCG")
    expected = of_ins + 2 + float((left[:, of_gcg] - level[:, of_gcg]).mean())  # less INS, relatively more GCG
    assert found.table.set_index("gene").loc["INS", "effect"] == pytest.approx(expected, rel=1e-4)


def test_markers_that_are_missing_are_named(cells, known_checkpoint):
    adata = cells.copy()
    beta = rows_of(adata, BETA)
    adata.X[beta, list(adata.var_names).index("MAFA")] = 0
    found = analysis.explain(adata, beta, checkpoint=known_checkpoint, label=BETA, runner_up=ALPHA)
    assert "MAFA" in set(found.missing["gene"]) and found.missing["effect"].isna().all()
    assert "lack" in found.sentence()


def test_the_likeliest_labels_are_explained_when_none_is_named(cells, known_checkpoint):
    found = analysis.explain(cells, rows_of(cells, BETA), checkpoint=known_checkpoint)
    assert found.label == BETA and found.probability > found.runner_up_probability


def test_labels_the_checkpoint_lacks_or_shares_are_refused(cells, known_checkpoint):
    with pytest.raises(LabelError, match="not a cell type this checkpoint knows"):
        analysis.explain(cells, [0], checkpoint=known_checkpoint, label="neuron")
    with pytest.raises(LabelError, match="compared with itself"):
        analysis.explain(cells, [0], checkpoint=known_checkpoint, label=BETA, runner_up="beta cells")


def test_attributions_sum_to_the_difference_along_the_path(tiny_checkpoint, cells, monkeypatch):
    """Of the language model itself, where the checkpoint has no read-out; presence does not change along the path."""
    monkeypatch.setattr(explanation, "N_STEPS", 256)
    checkpoint = load_checkpoint(tiny_checkpoint)
    rows, others = rows_of(cells, BETA)[:3], rows_of(cells, NK)
    report = batches.look(cells, checkpoint.processor.genes)
    here, there = (batches.align_rows(cells, checkpoint.processor.genes, report, some) for some in (rows, others))
    odds = explanation._Odds(checkpoint, here, species="human", tissue=None)
    assert odds.engine == "lm"
    margin = odds.margin(checkpoint.labels[0], checkpoint.labels[6])
    counts = torch.from_numpy(here.counts.toarray())
    start = explanation._baseline(counts, there)
    assert torch.equal(start > 0, counts > 0)
    assert torch.allclose(start.sum(1), counts.sum(1), rtol=1e-4)
    with torch.no_grad():
        difference = float((margin(counts) - margin(start)).mean())
    assert explanation._attribution(margin, counts, start).sum() == pytest.approx(difference, rel=0.05)


def test_the_language_models_odds_are_explained_without_a_readout(tiny_checkpoint, cells):
    checkpoint = load_checkpoint(tiny_checkpoint)
    found = analysis.explain(cells, rows_of(cells, NK)[:4], checkpoint=checkpoint, runner_up=B_CELL)
    assert found.engine == "lm" and found.runner_up == B_CELL and found.label != B_CELL
    assert found.evidence is not None and not found.table.empty


def profiled_checkpoint(genes, labels, shares):
    """A checkpoint whose encoder has one reference profile per label; a cell is what it is likest."""
    profiles = ProfileLikelihood(len(shares), len(genes))
    profiles.set_profiles(shares)
    logs = profiles.log_profiles
    model = SimpleNamespace(
        device=torch.device("cpu"),
        cell_encoder=SimpleNamespace(profiles=profiles),
        encode_cells=lambda counts, measured: (counts / counts.sum(1, keepdim=True)) @ logs.T,
    )
    readout = lambda likelihood, species: torch.log_softmax(50 * likelihood, dim=-1)  # noqa: E731
    return SimpleNamespace(model=model, processor=SimpleNamespace(genes=genes), labels=labels, readout=readout)


@pytest.fixture
def profiled():
    genes = tiny.tiny_genes()[:6]
    labels = LabelSet([Label(BETA, id="CL:0000169"), Label(ALPHA, id="CL:0000171")])
    shares = torch.tensor([[0.6, 0.1, 0.1, 0.1, 0.05, 0.05], [0.1, 0.1, 0.5, 0.1, 0.1, 0.1]])
    return profiled_checkpoint(genes, labels, shares), shares


def test_the_genes_parts_sum_to_the_log_likelihood_ratio_of_the_profiles(profiled):
    checkpoint, shares = profiled
    counts = torch.tensor([[6.0, 2.0, 0.0, 1.0, 1.0, 3.0], [12.0, 1.0, 1.0, 4.0, 0.0, 2.0]])
    measured = torch.tensor([True, True, True, True, True, False])
    found = profile_ratio(checkpoint, counts, measured, *checkpoint.labels)
    known = [(row[measured] / row[measured].sum()).numpy() for row in shares]
    expected = np.mean(
        [
            (multinomial.logpmf(cell, int(cell.sum()), known[0]) - multinomial.logpmf(cell, int(cell.sum()), known[1]))
            / cell.sum()
            for cell in counts[:, measured].numpy()
        ]
    )
    assert found.total == pytest.approx(1_000 * expected, rel=2e-3)  # the profiles are kept in half precision
    assert found.contribution[5] == 0


def test_a_gene_that_is_not_there_speaks_for_the_type_that_does_not_have_it(profiled):
    checkpoint, _ = profiled
    counts = torch.tensor([[6.0, 1.0, 0.0, 1.0, 0.5, 0.5]])
    found = profile_ratio(checkpoint, counts, torch.ones(6, dtype=torch.bool), *checkpoint.labels)
    assert found.contribution[0] > 0 and found.contribution[2] > 0
    assert found.more_in_first[0] and not found.more_in_first[2]
    assert profile_labels(checkpoint).tolist() == [0, 1]


def test_without_a_profile_of_both_labels_there_is_no_ratio(profiled, known_checkpoint):
    checkpoint, _ = profiled
    with_another = SimpleNamespace(**{**vars(checkpoint), "labels": LabelSet([*checkpoint.labels, Label(NK)])})
    counts, measured = torch.ones(1, 6), torch.ones(6, dtype=torch.bool)
    assert profile_ratio(with_another, counts, measured, with_another.labels[0], with_another.labels[2]) is None
    assert profile_ratio(known_checkpoint, counts, measured, *list(known_checkpoint.labels)[:2]) is None


# ---- pseudo-cells


def pseudo_of(adata, rows, scale=None):
    counts = adata.X[rows] if scale is None else np.random.default_rng(0).poisson(scale, adata.X[rows].shape)
    obs = pd.DataFrame(
        {"cell_type": adata.obs["cell_type"].to_numpy()[rows]}, index=[f"p{i}" for i in range(len(rows))]
    )
    return AnnData(sp.csr_matrix(counts.astype(np.int32)), obs=obs, var=adata.var.copy())


def test_other_real_cells_are_as_real_as_the_floor_and_noise_is_not():
    both = tiny.make_adata(960)
    real, other = both[:480].copy(), both[480:].copy()
    good = analysis.compare_with_real(
        pseudo_of(other, rows_of(other, BETA, NK)), real, real_types=real.obs["cell_type"].to_numpy()
    )
    noise = analysis.compare_with_real(
        pseudo_of(other, rows_of(other, BETA, NK), scale=0.8), real, real_types=real.obs["cell_type"].to_numpy()
    )
    assert good.table["cell_type"].tolist() == noise.table["cell_type"].tolist()
    assert good.mmd_ratio < 1.3 < noise.mmd_ratio
    assert (good.table["marker_correlation"] > 0.9).all()
    assert (noise.table["marker_correlation"] < good.table["marker_correlation"]).all()
    assert good.variance_correlation > 0.9 and good.n_genes == both.n_vars
    assert set(good.curve["cells"]) == {"real", "generated"}
    expected = 1 - float((real.X[rows_of(real, BETA)] > 0).mean())
    assert good.table.set_index("cell_type").loc[BETA, "zero_fraction_real"] == pytest.approx(expected, abs=1e-6)


def test_types_without_enough_cells_are_told(cells):
    pseudo = pseudo_of(cells, rows_of(cells, BETA, NK)[:25])
    types = cells.obs["cell_type"].where(cells.obs["cell_type"] != NK, "other").to_numpy()
    found = analysis.compare_with_real(pseudo, cells, real_types=types)
    assert found.table["cell_type"].tolist() == [BETA] and "0 real cells" in found.not_compared[NK]
    with pytest.raises(InstructCellError, match="no type has enough cells"):
        analysis.compare_with_real(pseudo[:3].copy(), cells, real_types=types)
    with pytest.raises(InstructCellError, match="run ic.tl.annotate"):
        analysis.compare_with_real(pseudo, cells)


def test_the_distance_between_equal_sets_is_zero():
    points = np.random.default_rng(0).normal(size=(20, 3))
    assert maximum_mean_discrepancy(points, points) == pytest.approx(0, abs=1e-6)
    assert maximum_mean_discrepancy(points + 5, points) > 0.5
