"""Cell types and drugs are found under every name people give them, and never mistaken for another."""

from __future__ import annotations

from pathlib import Path

import pytest

from instructcell.drugs import Drug, DrugSet
from instructcell.errors import DrugError, LabelError
from instructcell.labels import CellOntology, Label, LabelSet, Term, load_ontology, name_key


@pytest.fixture(scope="module")
def ontology() -> CellOntology:
    return load_ontology()


@pytest.fixture(scope="module")
def labels() -> LabelSet:
    return LabelSet.from_label_map()


# ---- names


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("CD8+ T cells", "CD8-positive, alpha-beta T cell"),
        ("β-cells", "Beta cell"),
        ("NK_cells", "nk cell"),
        ("naive CD4 T cell", "naive thymus-derived CD4-positive, alpha-beta T cell"),
        ("T lymphocytes", "T cell"),
        ("Tumour cell", "tumor cells"),
    ],
)
def test_two_spellings_of_one_type_share_a_key(one: str, other: str) -> None:
    assert name_key(one) == name_key(other) != ""


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("CD4 T cell", "CD8 T cell"),
        ("T cell", "B cell"),
        ("alpha cell", "beta cell"),
        ("CD4+ T cell", "CD4- T cell"),
        ("gamma-delta T cell", "T cell"),
    ],
)
def test_two_types_do_not_share_a_key(one: str, other: str) -> None:
    assert name_key(one) != name_key(other)


# ---- the ontology


def test_a_term_has_its_name_definition_synonyms_and_ancestors(ontology: CellOntology) -> None:
    assert ontology.name("CL:0000169") == "type B pancreatic cell"
    assert "insulin" in ontology.definition("CL:0000169")
    assert "pancreatic beta cell" in ontology.synonyms("CL:0000169")
    assert "CL:0000164" in ontology.ancestors("CL:0000169")
    assert ontology.parents("CL:0000169") < ontology.ancestors("CL:0000169")
    assert "CL:0000169" not in ontology.ancestors("CL:0000169")


def test_is_a_holds_upwards_only(ontology: CellOntology) -> None:
    assert ontology.is_a("CL:0000625", "CL:0000084")
    assert ontology.is_a("CL:0000084", "CL:0000084")
    assert not ontology.is_a("CL:0000084", "CL:0000625")
    assert not ontology.is_a("CL:9999999", "CL:0000084")
    assert ontology.distance("CL:0000084", "CL:0000084") == 0
    assert ontology.distance("CL:0000084", "CL:0000625") is None


@pytest.mark.parametrize(
    ("text", "id"),
    [
        ("CL:0000084", "CL:0000084"),
        ("cl_0000084", "CL:0000084"),
        ("T cells", "CL:0000084"),
        ("beta cell", "CL:0000169"),
        ("alpha cell", "CL:0000171"),
        ("hepatocites", "CL:0000182"),
        ("lymphocytes", "CL:0000542"),
        ("Treg", "CL:0000815"),
        ("T cell, CD8-positive", "CL:0000625"),
    ],
)
def test_the_ontology_finds_ids_names_synonyms_and_typing_errors(ontology: CellOntology, text: str, id: str) -> None:
    assert ontology.find(text)[0] == id


@pytest.mark.parametrize("text", ["", "cell", "20 cells", "spaceship", "CL:9999999"])
def test_the_ontology_finds_nothing_in_what_names_no_type(ontology: CellOntology, text: str) -> None:
    assert ontology.find(text) == []


def test_an_unknown_id_is_refused(ontology: CellOntology) -> None:
    with pytest.raises(LabelError, match=r"'CL:9999999' is not a term .* CL:0000169 is expected"):
        ontology.name("CL:9999999")


def test_ancestors_are_closed_under_is_a(ontology: CellOntology) -> None:
    for id in ("CL:0000169", "CL:0000625", "CL:0002410"):
        for ancestor in ontology.ancestors(id):
            assert ontology.ancestors(ancestor) <= ontology.ancestors(id)


# ---- labels


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("type B pancreatic cell", "type B pancreatic cell"),
        ("Beta cells", "type B pancreatic cell"),
        ("β cell", "type B pancreatic cell"),
        ("beta", "type B pancreatic cell"),
        ("CL:0000169", "type B pancreatic cell"),
        ("CD8+ T cells", "CD8-positive, alpha-beta T cell"),
        ("Cytotoxic CD8", "CD8-positive, alpha-beta cytotoxic T cell"),
        ("T", "T cell"),
        ("nk cells", "natural killer cell"),
        ("CD16+ monocytes", "CD14-low, CD16-positive monocyte"),
        ("ductl cells", "pancreatic ductal cell"),
        ("macrophages", "macrophage"),
        ("2-cell", "2-cell stage blastomere"),
        ("Tregs", "regulatory T cell"),
    ],
)
def test_a_label_is_found_under_the_names_people_use(labels: LabelSet, text: str, name: str) -> None:
    found = labels.find(text)
    assert found is not None and found.name == name


@pytest.mark.parametrize(
    "text", ["", "t", "cells", "2 cells", "20 cells", "monocytes", "stellate cells", "neuron", "CL:0002410", "unknown"]
)
def test_no_label_is_guessed_where_none_or_several_fit(labels: LabelSet, text: str) -> None:
    assert labels.find(text) is None


def test_every_label_finds_itself_under_its_name_and_its_own_ontology_name(labels: LabelSet) -> None:
    for label in labels:
        assert labels.find(label.name) is label
        assert labels.find(label.name.upper()) is not None
    assert [labels.index(name) for name in labels.names] == list(range(len(labels)))


def test_close_labels_are_related_first(labels: LabelSet) -> None:
    assert labels.close_to("T helper 17 cell", 3)[0].startswith(("CD4", "T cell"))
    assert "plasma cell" in labels.close_to("lymphocyte", 10)
    assert len(labels.close_to("islet cell", 2)) == 2


def names_of(labels: LabelSet, groups: list[tuple[str, list[int]]]) -> dict[str, list[str]]:
    return {wanted: [labels[i].name for i in indices] for wanted, indices in groups}


def test_a_users_label_takes_all_labels_below_it() -> None:
    blood = LabelSet.from_label_map(["pbmc_kang_ifnb_donor101"])
    found = names_of(blood, blood.project(["T cells", "monocyte", "B", "hepatocyte", "nonsense"]))
    assert found == {
        "T cells": ["CD4-positive, alpha-beta T cell", "CD8-positive, alpha-beta T cell"],
        "monocyte": ["CD14-positive monocyte", "CD14-low, CD16-positive monocyte"],
        "B": ["B cell"],
        "hepatocyte": [],
        "nonsense": [],
    }


def test_a_label_under_two_of_the_users_goes_to_the_nearer_and_is_counted_once(labels: LabelSet) -> None:
    groups = labels.project(["leukocyte", "T cell", "CD8 T cell"])
    indices = [i for _, group in groups for i in group]
    assert len(indices) == len(set(indices))
    found = names_of(labels, groups)
    assert "CD8-positive, alpha-beta cytotoxic T cell" in found["CD8 T cell"]
    assert "gamma-delta T cell" in found["T cell"]
    assert "macrophage" in found["leukocyte"]


def test_a_finer_label_stands_for_itself_and_its_term_for_all_finer_ones(labels: LabelSet) -> None:
    active, quiet = "activated pancreatic stellate cell", "quiescent pancreatic stellate cell"
    assert names_of(labels, labels.project(["CL:0002410"])) == {"CL:0002410": [active, quiet]}
    assert names_of(labels, labels.project([active])) == {active: [active]}
    assert names_of(labels, labels.project(["stellate"])) == {"stellate": [active, quiet]}


def test_labels_come_back_from_json_as_they_were(tmp_path: Path, labels: LabelSet) -> None:
    one = LabelSet([Label("T cell", "CL:0000084", ("T",), ("blood",), ("human", "mouse"), 12, can_generate=True)])
    for each in (one, labels):
        each.to_json(tmp_path / "labels.json")
        assert LabelSet.from_json(tmp_path / "labels.json").labels == each.labels


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("{", "is not JSON"),
        ("{}", "a list of labels is expected"),
        ('[{"id": ""}]', "no name"),
        ('[{"name": "a", "x": 1}]', "x"),
    ],
)
def test_a_broken_label_file_is_refused(tmp_path: Path, content: str, said: str) -> None:
    (tmp_path / "labels.json").write_text(content, encoding="utf-8")
    with pytest.raises(LabelError, match=said):
        LabelSet.from_json(tmp_path / "labels.json")


def test_label_names_must_differ_and_files_must_be_in_the_map() -> None:
    with pytest.raises(LabelError, match="found twice: a"):
        LabelSet([Label("a"), Label("a")])
    with pytest.raises(LabelError, match="no file called nowhere"):
        LabelSet.from_label_map(["nowhere"])


def test_names_go_before_synonyms_and_synonyms_of_two_labels_to_the_first() -> None:
    labels = LabelSet([Label("first", synonyms=("second", "both")), Label("second", synonyms=("both",))])
    assert labels.find("second") is labels[1]
    assert labels.find("both") is labels[0]


def test_bench_names_go_before_the_ontologys_synonyms() -> None:
    terms = [Term("CL:0000001", "one", "", ("thing",), {}), Term("CL:0000002", "two", "", (), {})]
    assert CellOntology(terms, {"thing": "CL:0000002"}).find("thing") == ["CL:0000002", "CL:0000001"]


# ---- drugs


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("gefitinib", "gefitinib"),
        ("Iressa", "gefitinib"),
        ("zd-1839", "gefitinib"),
        ("Giotrif", "afatinib"),
        ("PLX 4720", "PLX4720"),
        ("Keytruda", "anti-PD1"),
        ("anti-PD-1", "anti-PD1"),
        ("PD-1 blockade", "anti-PD1"),
        ("ipilimumab", "anti-CTLA4"),
        ("nivolumab + ipilimumab", "anti-CTLA4+PD1"),
        ("anti-PD1 and anti-CTLA4", "anti-CTLA4+PD1"),
    ],
)
def test_a_drug_is_found_under_its_names(text: str, name: str) -> None:
    found = DrugSet.default().find(text)
    assert found is not None and found.name == name


@pytest.mark.parametrize(
    "text",
    ["erlotinib", "osimertinib", "anti-PDL1", "apatinib", "gefitinb", "would gefitinib work?", "vemurafenib", "", "a"],
)
def test_only_a_whole_name_is_a_drug(text: str) -> None:
    assert DrugSet.default().find(text) is None


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("Would gefitinib or afatinib work?", ["gefitinib", "afatinib"]),
        ("Would erlotinib work as well as gefitinib?", ["erlotinib?", "gefitinib"]),
        ("pembrolizumab or ipilimumab, which is better?", ["anti-PD1", "anti-CTLA4"]),
        ("a combination of anti-PD1 and anti-CTLA4 therapy", ["anti-CTLA4+PD1"]),
        ("gefitinib and afatinib", ["gefitinib", "afatinib"]),
        ("anti-PDL1, cisplatin or AZD9291", ["anti-PDL1?", "cisplatin?", "AZD9291?"]),
        ("does vemurafenib or Zelboraf kill A375 cells?", ["vemurafenib?", "Zelboraf?"]),
        ("which HCC827 cells express somatostatin?", []),
    ],
)
def test_every_drug_of_a_sentence_is_found_whether_known_or_not(text: str, named: list[str]) -> None:
    mentions = DrugSet.default().mentions(text)
    assert [mention.drug.name if mention.drug else f"{mention.written}?" for mention in mentions] == named
    assert all(text[mention.start : mention.end] == mention.written for mention in mentions)


@pytest.mark.parametrize(("text", "meant"), [("apatinib", "afatinib"), ("gefitinb", "gefitinib"), ("erlotinib", None)])
def test_a_name_that_is_nearly_a_known_one_is_not_taken_for_it(text: str, meant: str | None) -> None:
    (mention,) = DrugSet.default().mentions(f"Would {text} work?")
    assert mention.drug is None
    assert (mention.meant.name if mention.meant else None) == meant


@pytest.mark.parametrize("name", ["vemurafenib", "Zelboraf", "PLX4032"])
def test_a_near_analogue_is_no_synonym_even_if_an_old_checkpoint_lists_it(name: str) -> None:
    old = DrugSet([{"name": "PLX4720", "synonyms": ["PLX-4720", "vemurafenib", "Zelboraf", "PLX4032"]}])
    with pytest.raises(DrugError, match=f"PLX4720 is a near analogue of {name}"):
        old.get(name)


def test_an_unknown_drug_is_refused_by_name_with_the_known_ones() -> None:
    drugs = DrugSet.default()
    with pytest.raises(
        DrugError, match=r"'erlotinib' is not a drug .* It knows: gefitinib, afatinib, .* nearest to erlotinib is gefit"
    ):
        drugs.get("erlotinib")
    assert drugs.get("Yervoy").target == "CTLA4"
    assert drugs.close_to("afatinb", 1) == ["afatinib"]


def test_only_the_drugs_of_a_checkpoint_are_known() -> None:
    drugs = DrugSet.default(["PLX4720", "anti-PD1"])
    assert drugs.names == ["PLX4720", "anti-PD1"]
    assert drugs.find("gefitinib") is None
    assert drugs.find("ipilimumab and nivolumab") is None
    assert [mention.drug for mention in drugs.mentions("ipilimumab and nivolumab")] == [None, drugs[1]]


def test_drugs_come_back_from_json_as_they_were(tmp_path: Path) -> None:
    drugs = DrugSet.default()
    drugs.to_json(tmp_path / "drugs.json")
    assert DrugSet.from_json(tmp_path / "drugs.json").drugs == drugs.drugs
    assert DrugSet.of(drugs) is drugs
    assert DrugSet.of([{"name": "x"}])[0] == Drug("x")


@pytest.mark.parametrize(
    ("content", "said"), [("[", "not JSON"), ("3", "a list of drugs"), ('[{"nam": "x"}]', "unknown fields nam")]
)
def test_a_broken_drug_file_is_refused(tmp_path: Path, content: str, said: str) -> None:
    (tmp_path / "drugs.json").write_text(content, encoding="utf-8")
    with pytest.raises(DrugError, match=said):
        DrugSet.from_json(tmp_path / "drugs.json")
