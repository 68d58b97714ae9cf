"""Readers beside the language model: what they learn from, which genes they read, and when they keep silent."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import pytest
import scipy.sparse as sp
import tiny

from instructcell import readers, tissue_readers, tools
from instructcell.checkpoint import Checkpoint
from instructcell.context import ContextSettings, FileContext, strangeness
from instructcell.labels import Label, LabelSet
from instructcell.populations import Kind, Populations
from instructcell.readers import LinearReader, own_reader, telling_genes
from instructcell.tissue_readers import TissueReaders, fit_readers
from instructcell.unseen_types import unrelated_types

N_GENES = 40
LABELS = LabelSet(
    [
        Label("type B pancreatic cell", "CL:0000169", tissues=("pancreatic islet",)),
        Label("pancreatic A cell", "CL:0000171", tissues=("pancreatic islet",)),
        Label("pancreatic D cell", "CL:0000173", tissues=("pancreatic islet (mouse)",)),
        Label("natural killer cell", "CL:0000623", tissues=("PBMC",)),
    ]
)
ALL = np.ones(N_GENES, bool)


def cells_of(label: int, n: int, seed: int = 0) -> sp.csr_matrix:
    """Counts [n, 40]: every label has five genes of its own, ten are of all, twenty of none."""
    rng, rate = np.random.default_rng(seed + 100 * label), np.full(N_GENES, 0.05)
    rate[5 * label : 5 * label + 5], rate[20:30] = 6.0, 3.0
    return sp.csr_matrix(rng.poisson(rate, (n, N_GENES)).astype(np.float32))


@dataclass(frozen=True)
class Known:
    """Examples of one label; the genes are those that its study has measured."""

    label: int
    counts: sp.csr_matrix
    measured: np.ndarray

    @property
    def share(self) -> np.ndarray:
        mean = np.asarray(self.counts.mean(axis=0)).ravel()
        return mean / mean.sum()

    def cells(self, genes: np.ndarray) -> sp.csr_matrix:
        return self.counts


def examples(*labels: int, measured: np.ndarray = ALL) -> list[Known]:
    return [Known(label, cells_of(label, 30), measured) for label in labels]


def linear_of(known: list[Known], measured: np.ndarray = ALL) -> LinearReader | None:
    found = fit_readers(known, measured, [label.id for label in LABELS], [f"G{i}" for i in range(N_GENES)])
    return None if found is None else found.linear


# ---- the linear reader


def test_cells_of_another_draw_are_named_and_probabilities_sum_to_one() -> None:
    reader = linear_of(examples(0, 1, 2))
    assert reader is not None and reader.labels.tolist() == [0, 1, 2]
    for label in (0, 1, 2):
        said = reader.read(cells_of(label, 25, seed=7))[0]
        assert said.shape == (25, 3) and (said.argmax(axis=1) == label).all()
        np.testing.assert_allclose(said.sum(axis=1), 1, rtol=1e-5)


def test_two_labels_are_told_as_well() -> None:
    reader = linear_of(examples(0, 1))
    assert reader is not None and reader.weights.shape[1] == 2
    said = np.concatenate([reader.read(cells_of(label, 20, seed=3))[0] for label in (0, 1)])
    assert (said.argmax(axis=1) == np.repeat([0, 1], 20)).all()


def test_one_label_alone_or_no_common_gene_makes_no_reader() -> None:
    assert linear_of(examples(0)) is None
    assert linear_of([]) is None
    assert linear_of(examples(0, 1), ~ALL) is None


def test_only_genes_of_the_file_that_most_studies_have_are_read() -> None:
    half, file = np.arange(N_GENES) < 30, np.arange(N_GENES) >= 3
    several = [*examples(0, measured=half), *examples(1, measured=half), *examples(2)]
    reader = linear_of(several, file)
    assert reader is not None and reader.genes.tolist() == list(range(3, 30))


def test_the_genes_that_tell_the_labels_apart_are_taken_first() -> None:
    shares = np.stack([each.share for each in examples(0, 1, 2)])
    assert telling_genes(shares, ALL, 15).tolist() == list(range(15))
    assert telling_genes(shares, np.arange(N_GENES) >= 10, 15).tolist()[:5] == [10, 11, 12, 13, 14]


# ---- beside the language model


def reader_of(*labels: int) -> LinearReader:
    found = linear_of(examples(*labels))
    assert found is not None
    return found


def test_a_doubt_of_the_language_model_is_decided_and_without_weight_nothing_changes() -> None:
    doubt, cells = np.tile([0.3, 0.35, 0.0, 0.35], (20, 1)), cells_of(0, 20, seed=5)
    reader = reader_of(0, 1, 2)
    both = reader.beside(doubt, cells, 2.0)
    assert (both.argmax(axis=1) == 0).all()
    np.testing.assert_allclose(both.sum(axis=1), 1)
    np.testing.assert_allclose(reader.beside(doubt, cells, 0.0)[:, [0, 1, 3]], doubt[:, [0, 1, 3]], atol=1e-4)


def test_of_labels_that_it_has_no_examples_of_the_language_model_is_believed() -> None:
    reader = reader_of(0, 1)
    assert reader.labels.tolist() == [0, 1]
    for other in (2, 3):  # of the tissue, and of another: a contaminating cell keeps its type
        sure = np.full((5, 4), 0.02)
        sure[:, other] = 0.94
        assert (reader.beside(sure, cells_of(other, 5), 2.0).argmax(axis=1) == other).all()


def test_a_cell_without_counts_stays_what_the_language_model_says() -> None:
    said = np.tile([0.3, 0.3, 0.3, 0.1], (2, 1))
    cells = sp.vstack([sp.csr_matrix((1, N_GENES), dtype=np.float32), cells_of(1, 1)]).tocsr()
    both = reader_of(0, 1, 2).beside(said, cells, 2.0)
    np.testing.assert_allclose(both[0], said[0])
    assert both[1].argmax() == 1


# ---- a reader of the file's own cells


def test_a_file_of_another_look_is_read_by_its_own_cells() -> None:
    """Types that express other genes here than elsewhere: the surest answers teach how they look in this file."""
    rng, truth = np.random.default_rng(1), np.repeat([0, 1], 60)
    shifted = sp.vstack([cells_of(label + 1, 60, seed=4) for label in (0, 1)]).tocsr()  # genes of the labels after them
    sure = np.where(rng.random(120) < 0.6, 0.95, 0.45)  # of the right label; a part is told a little wrong
    said = np.zeros((120, len(LABELS)))
    said[np.arange(120), truth], said[np.arange(120), 1 - truth] = sure, 1 - sure
    reader = own_reader(said, shifted)
    assert reader is not None and reader.labels.tolist() == [0, 1] and len(reader.genes) <= readers.OWN_GENES
    assert (said.argmax(axis=1) == truth).mean() < 0.8
    assert (reader.beside(said, shifted, 3.0).argmax(axis=1) == truth).mean() > 0.98


def test_a_file_of_one_type_or_of_rare_ones_has_no_reader_of_its_own() -> None:
    said = np.tile([0.9, 0.1, 0.0, 0.0], (50, 1))
    assert own_reader(said, cells_of(0, 50)) is None
    said[: readers.LEAST_OWN - 1] = [0.1, 0.9, 0.0, 0.0]
    assert own_reader(said, cells_of(0, 50)) is None


# ---- a reader of marker genes

ISLET_MARKERS = ("INS", "IAPP", "MAFA", "GCG", "TTR", "TM4SF4", "SST", "RBP4", "HHEX", "ACTB", "GAPDH", "EEF1A1")
RATES = {
    0: {"INS": 30, "IAPP": 8, "MAFA": 2},
    1: {"GCG": 30, "TTR": 8, "TM4SF4": 2},
    2: {"SST": 30, "RBP4": 8, "HHEX": 2},
}


def islet_cells(label: int, n: int, seed: int = 0, platform: float = 1.0) -> sp.csr_matrix:
    """Counts [n, 12]; `platform` multiplies what is caught of the markers."""
    rng = np.random.default_rng(seed + 10 * label)
    rate = [platform * RATES[label].get(gene, 0.3) if i < 9 else 20.0 for i, gene in enumerate(ISLET_MARKERS)]
    return sp.csr_matrix(rng.poisson(rate, (n, len(ISLET_MARKERS))).astype(np.float32))


def islet_readers() -> TissueReaders:
    known = [Known(label, islet_cells(label, 40, seed=100), np.ones(len(ISLET_MARKERS), bool)) for label in (0, 1, 2)]
    ids = [label.id for label in LABELS]
    found = fit_readers(known, np.ones(len(ISLET_MARKERS), bool), ids, ISLET_MARKERS)
    assert found is not None and found.markers is not None
    return found


def test_cells_of_another_platform_are_told_by_their_markers() -> None:
    truth = np.repeat([0, 1, 2], 30)
    cells = sp.vstack([islet_cells(label, 30, seed=3, platform=0.3) for label in (0, 1, 2)]).tocsr()
    nothing = np.tile([0.33, 0.33, 0.33, 0.01], (90, 1))
    reader = islet_readers().markers.in_file(nothing, cells)
    said, expressed = reader.read(cells)
    assert expressed.all() and (reader.labels[said.argmax(axis=1)] == truth).mean() > 0.95
    np.testing.assert_allclose(said.sum(axis=1), 1)


def test_a_file_of_one_type_is_not_split_by_its_own_mean() -> None:
    cells, said = islet_cells(0, 60, seed=5), np.tile([0.9, 0.05, 0.04, 0.01], (60, 1))
    reader = islet_readers().markers.in_file(said, cells)
    named = reader.labels[reader.read(cells)[0].argmax(axis=1)]
    assert (named == 0).mean() > 0.95  # half of them lie below the mean of the file


def test_types_of_one_term_share_their_markers_and_keep_their_proportion() -> None:
    twins = LabelSet([*LABELS, Label("type B pancreatic cell, old", "CL:0000169", tissues=("pancreatic islet",))])
    every = np.ones(len(ISLET_MARKERS), bool)
    known = [Known(label, islet_cells(label % 4, 40, seed=100), every) for label in (0, 1, 2, 4)]
    found = fit_readers(known, every, [label.id for label in twins], ISLET_MARKERS)
    assert found is not None and found.markers is not None and found.markers.weights.shape[1] == 3
    cells, said = islet_cells(0, 20, seed=5), np.tile([0.15, 0.5, 0.04, 0.01, 0.3], (20, 1))
    both = found.markers.in_file(said, cells).beside(said, cells, 4.0)
    assert both[:, [0, 4]].sum(axis=1).mean() > said[0, [0, 4]].sum() + 0.1
    np.testing.assert_allclose(both[:, 4] / both[:, 0], 2.0, rtol=0.05)


def test_without_measured_markers_there_is_no_reader_of_them() -> None:
    known = [Known(label, cells_of(label, 30), ALL) for label in (0, 1)]
    found = fit_readers(known, ALL, [label.id for label in LABELS], [f"G{i}" for i in range(N_GENES)])
    assert found is not None and found.linear is not None and found.markers is None


def test_markers_are_asked_in_strange_files_alone_and_less_in_small_panels() -> None:
    settings, found = ContextSettings(linear_weight=3.0, marker_weight=4.0), islet_readers()
    cells, said = islet_cells(0, 20), np.tile([0.4, 0.3, 0.29, 0.01], (20, 1))
    familiar, strange = (found.asked(said, cells, settings, of, 1.0) for of in (0.0, 1.0))
    assert [weight for _, weight in familiar] == [pytest.approx(1.0)]
    assert strange[0][1] == pytest.approx(3.0) and len(strange) == 2
    whole = replace(found, n_genes=5000).asked(said, cells, settings, 1.0, 1.0)
    assert strange[1][1] == pytest.approx(whole[1][1] * tissue_readers.LEAST_OF_PANELS)


# ---- types that no label has

BLOOD_MARKERS = (
    "CD3D",
    "CD3E",
    "CD8A",
    "IL7R",
    "HBB",
    "HBA1",
    "HBA2",
    "ALAS2",
    "AHSP",
    "GYPA",
    "SLC4A1",
    "ACTB",
    "EEF1A1",
)


def test_cells_with_the_markers_of_an_unseen_type_are_strangers_and_told_what_they_look_like() -> None:
    """Erythrocytes in a checkpoint of T cells and islet cells."""
    genes = (*ISLET_MARKERS[:9], *BLOOD_MARKERS)
    rng, every = np.random.default_rng(0), np.ones(len(genes), bool)
    labels = [*LABELS, Label("T cell", "CL:0000084", tissues=("pancreatic islet",))]

    def cells(high: tuple[str, ...], n: int) -> sp.csr_matrix:
        rate = [20.0 if gene in ("ACTB", "EEF1A1") else 8.0 if gene in high else 0.2 for gene in genes]
        return sp.csr_matrix(rng.poisson(rate, (n, len(genes))).astype(np.float32))

    of = {0: ISLET_MARKERS[:3], 1: ISLET_MARKERS[3:6], 2: ISLET_MARKERS[6:9], 4: BLOOD_MARKERS[:4]}
    known = [Known(label, cells(high, 40), every) for label, high in of.items()]
    found = fit_readers(known, every, [label.id for label in labels], genes)
    assert found is not None and found.unseen is not None
    red, t_cells = cells(BLOOD_MARKERS[4:11], 30), cells(BLOOD_MARKERS[:4], 30)
    counts, said = sp.vstack([red, t_cells]).tocsr(), np.tile([0.02, 0.02, 0.02, 0.02, 0.92], (60, 1))
    reader = found.unseen.in_file(said, counts)
    surprise, which = reader.read(counts)
    assert surprise[:30].min() > surprise[30:].max() and (surprise[:30] > 0).all()
    assert all(word in reader.names[which[0]] for word in ("erythro",))


def test_types_related_to_known_ones_are_not_unseen() -> None:
    others = unrelated_types(frozenset({"CL:0000084", "CL:0000169"}))
    assert "CL:0000232" in others  # erythrocyte
    assert not {"CL:0000084", "CL:0000625", "CL:0000542", "CL:0000169"} & set(others)


# ---- in the context of a file


@pytest.mark.parametrize(("shift", "strange"), [(1.0, 0.0), (2.5, 0.5), (9.0, 1.0)])
def test_a_file_far_from_training_is_strange(shift: float, strange: float) -> None:
    assert strangeness(np.full((10, 4), 0.25), shift) == pytest.approx(strange)


def test_readers_that_agree_in_a_strange_file_make_it_surer() -> None:
    counts = sp.vstack([islet_cells(0, 30, seed=9), islet_cells(1, 30, seed=9)]).tocsr()
    doubt, truth = np.tile([0.45, 0.5, 0.0, 0.05], (60, 1)), np.repeat([0, 1], 30)
    weights = {"floor": 0.05, "linear_weight": 3.0, "marker_weight": 4.0, "own_weight": 3.0}

    def seen(said: np.ndarray) -> FileContext:
        settings = ContextSettings(temperature=0.9, **weights)
        return FileContext.of(LABELS, said, np.eye(60), settings, counts=counts, fit=lambda tissues: islet_readers())

    strange = seen(doubt)
    assert strange.strangeness == 1.0 and len(strange.readers) == 3
    assert strange.temperature == pytest.approx(0.9 * 0.7)
    assert (strange.apply(doubt, strange.nearest(np.eye(60)), counts).argmax(axis=1) == truth).all()
    sure = np.zeros((60, 4))
    sure[np.arange(60), truth] = 1.0
    assert seen(sure).temperature == pytest.approx(0.9) and len(seen(sure).readers) == 1


def test_where_training_cells_lie_is_not_known_doubt_makes_a_file_strange() -> None:
    assert strangeness(np.tile([0.97, 0.01, 0.01, 0.01], (10, 1)), None) == 0.0
    assert strangeness(np.tile([0.5, 0.4, 0.05, 0.05], (10, 1)), None) == 1.0


def test_a_file_is_read_with_the_types_of_its_tissue() -> None:
    truth = np.repeat([0, 1], 20)
    counts = sp.vstack([cells_of(0, 20, seed=9), cells_of(1, 20, seed=9)]).tocsr()
    doubt = np.tile([0.45, 0.5, 0.0, 0.05], (40, 1))
    asked: list[list[str]] = []

    def fit(tissues: list[str]) -> TissueReaders:
        asked.append(list(tissues))
        return TissueReaders(reader_of(0, 1, 2), None, N_GENES)

    settings = ContextSettings(floor=0.05, linear_weight=2.0)
    context = FileContext.of(LABELS, doubt, np.eye(40), settings, counts=counts, fit=fit)
    assert asked == [["pancreatic islet"]]
    assert (context.apply(doubt, context.nearest(np.eye(40)), counts).argmax(axis=1) == truth).all()
    assert context.composition[:2] == pytest.approx([0.5, 0.5], abs=0.1)
    plain = FileContext.of(LABELS, doubt, np.eye(40), replace(settings, linear_weight=0.0), counts=counts, fit=fit)
    few = FileContext.of(LABELS, doubt[:5], np.eye(40)[:5], settings, counts=counts[:5], fit=fit)
    assert len(asked) == 1 and plain.readers == () and few.readers == ()


# ---- of a checkpoint


@pytest.fixture(scope="module")
def with_populations(tmp_path_factory) -> Checkpoint:
    """A tiny checkpoint whose two first labels have latent cells, over all genes but one."""
    from instructcell.checkpoint import load_checkpoint

    plain = load_checkpoint(tiny.make_tiny_checkpoint(tmp_path_factory.mktemp("checkpoints") / "linear"))
    names, size = plain.labels.names, plain.model.config
    rng, latent = np.random.default_rng(0), plain.model.cell_decoder.config.n_latent
    ratio = rng.normal(0, 2, (3, size.n_genes))
    ratio[:, 0] = 0.0  # not measured
    kinds = (
        Kind(names[0], tissue="PBMC"),
        Kind(names[1], tissue="PBMC (lupus patients)"),
        Kind(names[0], tissue="lung"),
    )
    mean = rng.normal(size=(60, latent))
    made = Populations(
        kinds, np.array([0, 20, 40, 60]), mean, np.full_like(mean, -2.0), np.full(60, 7.0), ratio, plain.hash
    )
    return replace(plain, populations=made)


def linear_reader(loaded: Checkpoint, measured: np.ndarray, tissue: str) -> LinearReader | None:
    found = tissue_readers.tissue_readers(loaded, measured, [tissue])
    return None if found is None else found.linear


def test_a_checkpoint_reads_the_types_of_a_tissue_from_pseudo_cells(with_populations: Checkpoint) -> None:
    genes = np.ones(with_populations.model.config.n_genes, bool)
    reader = linear_reader(with_populations, genes, "PBMC")
    assert reader is not None and reader.labels.tolist() == [0, 1]
    assert 0 not in reader.genes and len(reader.genes) == len(genes) - 1
    tissue_readers._fitted.cache_clear()
    again = linear_reader(with_populations, genes, "PBMC")
    np.testing.assert_array_equal(reader.weights, again.weights)  # the same pseudo-cells every time
    few = linear_reader(with_populations, np.arange(len(genes)) < 6, "PBMC")
    assert few is not None and few.genes.max() < 6


def test_a_tissue_of_one_type_or_none_and_a_checkpoint_without_populations_have_no_reader(
    with_populations: Checkpoint,
) -> None:
    genes = np.ones(with_populations.model.config.n_genes, bool)
    assert linear_reader(with_populations, genes, "lung") is None
    assert linear_reader(with_populations, genes, "brain") is None
    assert linear_reader(replace(with_populations, populations=None), genes, "PBMC") is None


def test_annotation_asks_it_where_the_calibration_says_so_and_not_without_context(with_populations: Checkpoint) -> None:
    asking = replace(
        with_populations,
        calibration={**with_populations.calibration, "context_floor": 0.5, "linear_weight": 2.0},
        labels=LabelSet([replace(label, tissues=("PBMC",)) for label in with_populations.labels]),
    )
    cells = tiny.make_adata(40, seed=3)
    found = tools.annotate(cells, checkpoint=asking)
    assert found.context is not None and len(found.context.readers) == 1
    alone = tools.annotate(cells, checkpoint=asking, context=False)
    assert not np.allclose(found.table["confidence"], alone.table["confidence"])
