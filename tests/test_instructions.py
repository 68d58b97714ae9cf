"""Instructions: what a record's request may say, and what its answer must."""

from __future__ import annotations

from random import Random

import pytest

from instructcell.drugs import DrugSet
from train.instructions import (
    DRUG_NAMES,
    DRUG_TARGETS,
    Catalog,
    CellRecord,
    InstructionSettings,
    corpus,
    instruction,
    load_catalog,
)
from train.templates import CELLS, SIGNAL

CATALOG = Catalog(
    names={
        "type B pancreatic cell": ("type B pancreatic cell", "beta cell", "INS+ cell"),
        "pancreatic A cell": ("pancreatic A cell", "alpha cell"),
        "T cell": ("T cell", "T lymphocyte"),
        "CD4-positive, alpha-beta T cell": ("CD4-positive, alpha-beta T cell", "CD4 T cell"),
    },
    neighbours={"type B pancreatic cell": frozenset({"type B pancreatic cell", "pancreatic A cell"})},
    relatives={"CD4-positive, alpha-beta T cell": frozenset({"T cell"})},
    tissues={
        "type B pancreatic cell": frozenset({"pancreatic islet"}),
        "T cell": frozenset({"PBMC", "pancreatic islet"}),
    },
    widespread=frozenset({"T cell", "CD4-positive, alpha-beta T cell"}),
    markers={"type B pancreatic cell": ("INS", "IAPP", "MAFA")},
)
BETA = CellRecord(label="type B pancreatic cell", species="human", tissue="pancreatic islet", technology="inDrop")
PLAIN = InstructionSettings(options=0, guess=0, contradiction=0, noise=0)


def renderings(task, record, n=300, **options):
    rng = Random(0)
    return [instruction(task, record, rng, catalog=CATALOG, **options) for _ in range(n)]


def test_hints_are_mentioned_as_often_as_asked():
    always = InstructionSettings(species=1, tissue=1, technology=1, options=0, guess=0, contradiction=0, noise=0)
    never = InstructionSettings(species=0, tissue=0, technology=0, options=0, guess=0, contradiction=0, noise=0)
    species = ("human", "homo sapiens")
    assert all(any(s in r.prompt.casefold() for s in species) for r in renderings("annotation", BETA, settings=always))
    assert not any(s in r.prompt.casefold() for s in species for r in renderings("annotation", BETA, settings=never))


def test_an_answer_among_options_is_one_of_the_label_s_names_as_listed():
    settings = InstructionSettings(options=1, noise=0)
    for rendered in renderings("annotation", BETA, settings=settings):
        assert rendered.answer in CATALOG.names[BETA.label]
        assert rendered.answer in rendered.prompt
    assert len({rendered.answer for rendered in renderings("annotation", BETA, settings=settings)}) == 3


def test_a_broader_label_is_never_offered_against_the_right_one():
    record = CellRecord(label="CD4-positive, alpha-beta T cell")
    for rendered in renderings("annotation", record, settings=InstructionSettings(options=1, canonical=1, noise=0)):
        options = rendered.prompt.split("options: ")[1].split("; ")
        assert not {"T cell", "T lymphocyte"} & set(options)


def test_guesses_are_right_and_wrong_and_answered_accordingly():
    settings = InstructionSettings(options=0, guess=1, noise=0)
    answers = {
        r.answer.split(",")[0] for r in renderings("annotation", BETA, settings=settings) if r.style == "sentence"
    }
    assert answers == {"Yes", "No"}
    for rendered in renderings("annotation", BETA, settings=settings):
        asks_right = any(name in rendered.prompt for name in ("beta cell", "INS+ cell", "type B pancreatic cell"))
        assert rendered.answer.startswith("Yes" if asks_right else "No"), rendered


def test_only_types_of_one_organ_meet_a_misleading_tissue():
    settings = InstructionSettings(options=0, guess=0, contradiction=1, canonical=0, noise=0)
    misled = [r for r in renderings("annotation", BETA, settings=settings) if r.style == "sentence"]
    assert all("do" in r.answer or "unexpected" in r.answer for r in misled)
    everywhere = renderings("annotation", CellRecord(label="T cell", tissue="PBMC"), settings=settings)
    assert not any("unexpected" in r.answer or "not look" in r.answer for r in everywhere)


@pytest.mark.parametrize("n_cells", [1, 2, 16])
def test_cells_of_one_prompt_share_one_place(n_cells):
    assert all(r.prompt.count(CELLS) == 1 for r in renderings("annotation", BETA, n_cells=n_cells))


def test_generation_answers_with_as_many_signals_as_asked():
    assert all(r.answer.count(SIGNAL) == 3 for r in renderings("generation", BETA, n_signals=3))


def test_a_condition_is_never_left_out_of_a_generation_request():
    record = CellRecord(label="T cell", condition="IFN-beta stimulated")
    assert all("ifn-beta" in r.prompt.casefold() for r in renderings("generation", record, settings=PLAIN))


def test_marker_genes_come_from_the_record_or_else_from_the_catalog():
    assert any(r.answer == "INS, IAPP, MAFA" for r in renderings("markers", BETA))
    own = CellRecord(label="T cell", markers=("CD3D", "CD3E"))
    assert any(r.answer == "CD3D, CD3E" for r in renderings("markers", own))


def test_drug_requests_use_any_name_and_answers_the_canonical_one():
    record = CellRecord(drug="gefitinib", response="resistant")
    rendered = renderings("drug", record, settings=PLAIN)
    assert any("Iressa" in r.prompt for r in rendered) and any("gefitinib" in r.prompt for r in rendered)
    assert all("gefitinib" in r.answer for r in rendered if r.style == "sentence")
    with pytest.raises(ValueError, match="sensitive or resistant"):
        instruction("drug", CellRecord(drug="gefitinib", response="Responder"), Random(0), catalog=CATALOG)


@pytest.mark.parametrize("task", ["annotation", "generation", "drug", "markers"])
def test_a_record_without_what_the_task_needs_is_refused(task):
    with pytest.raises(ValueError, match="needs"):
        instruction(task, CellRecord(), Random(0), catalog=CATALOG)


def test_settings_are_probabilities():
    with pytest.raises(ValueError, match="probability"):
        InstructionSettings(noise=2)


def test_the_shipped_catalog_names_every_training_label_as_the_bench_does():
    catalog = load_catalog()
    assert "beta cell" in catalog.names["type B pancreatic cell"]
    assert "NK cells" in catalog.names["natural killer cell"]
    assert "classical monocyte" in catalog.names["CD14-positive monocyte"]
    assert all(names[0] == label and len(names) > 2 for label, names in catalog.names.items())
    assert catalog.markers["type B pancreatic cell"][0] == "INS"


def test_no_name_means_two_labels():
    names = [name.casefold() for names in load_catalog().names.values() for name in {n.casefold() for n in names}]
    assert len(names) == len(set(names))


def test_shipped_relatives_follow_the_ontology():
    relatives = load_catalog().relatives
    assert "T cell" in relatives["CD4-positive, alpha-beta T cell"]
    assert "pancreatic A cell" not in relatives["type B pancreatic cell"]
    assert "4-cell stage blastomere" not in relatives["2-cell stage blastomere"]
    assert all(label in relatives[other] for label, kin in relatives.items() for other in kin)


def test_a_catalog_can_be_cut_to_the_labels_of_a_recipe():
    catalog = load_catalog(tissues={"T cell": ["PBMC"]}, labels=["T cell", "oocyte"])
    assert set(catalog.labels) == {"T cell", "oocyte"} and catalog.tissues == {"T cell": frozenset({"PBMC"})}


def test_the_names_of_drugs_are_those_that_the_product_knows():
    assert all(DrugSet.default().find(name).name == drug for drug, names in DRUG_NAMES.items() for name in names)
    assert [drug for drug in DRUG_NAMES if drug in DRUG_TARGETS] == ["gefitinib", "afatinib", "PLX4720"]
    assert DRUG_TARGETS["PLX4720"] == "BRAF"
    assert "vemurafenib" not in DRUG_NAMES["PLX4720"]


def test_the_corpus_speaks_of_every_label_and_holds_no_places():
    pairs = list(corpus(2000, seed=0))
    text = "\n".join(part for pair in pairs for part in pair)
    assert len(pairs) == 2000 and CELLS not in text and SIGNAL not in text
    assert all(label.casefold() in text.casefold() for label in load_catalog().labels)
    assert pairs == list(corpus(2000, seed=0))
