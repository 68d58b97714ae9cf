"""Sentences before they are understood: numbers in words, corrections, several requests, fragments."""

from __future__ import annotations

import pytest

from instructcell import intents, requests, sentences, slots
from instructcell.checkpoint import load_checkpoint
from instructcell.router import load_router
from instructcell.toolbox.arguments import Cells
from instructcell.tools import drugs_of


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("annotate, cluster them and show me the umap", ["annotate", "cluster them", "show me the umap"]),
        ("keep the B cells; do they express CD79A?", ["keep the B cells", "do they express CD79A?"]),
        ("what are the first 12 cells and why?", ["what are the first 12 cells", "why?"]),
        ("only cluster 0, then tell me why", ["only cluster 0", "tell me why"]),
        ("how many alpha, beta and delta cells are there?", ["how many alpha, beta and delta cells are there?"]),
        ("compare alpha and beta cells", ["compare alpha and beta cells"]),
        ("Wonderful, thank you very much. How many are there?", ["How many are there?"]),
        ("I need all beta cells and also if they have INS", ["I need all beta cells", "do they have INS"]),
        ("15 fake B cells and compare them with the real", ["15 fake B cells", "compare them with the real"]),
        ("good morning", ["good morning"]),
        ("ok", ["ok"]),
    ],
)  # fmt: skip
def test_several_requests_are_taken_apart_and_courtesy_is_left_out(text, parts):
    assert [part.text for part in sentences.parts_of(text)] == parts


@pytest.mark.parametrize(
    ("text", "rest", "corrects"),
    [
        ("no, I meant cluster 3", "cluster 3", True),
        ("oops, afatinib of course", "afatinib of course", True),
        ("actually 20 is enough", "20 is enough", True),
        ("typo! INS was what I wanted", "INS", True),
        ("wrong pair, NK and B cells", "NK and B cells", True),
        ("no", "no", False),
        ("not in all cells", "not in all cells", False),
    ],
)
def test_a_correction_takes_the_place_of_the_request_before(text, rest, corrects):
    assert sentences.corrected(text) == sentences.Part(rest, corrects)


@pytest.mark.parametrize(
    ("text", "spelled"),
    [
        ("cluster one", "cluster 1"),
        ("the first twenty cells", "the first 20 cells"),
        ("two dozen β-cells", "24 beta cells"),
        ("a hundred and twenty B cells", "120 B cells"),
        ("the tenth cell", "the cell 10"),
        ("this one", "this one"),
        ("c1?", "cluster 1?"),
        ("C3 and DCs", "C3 and DC"),
        ("DE 0 v 2", "DE 0 vs 2"),
    ],
)
def test_numbers_and_letters_are_spelled_out(text, spelled):
    assert sentences.spelled_out(text) == spelled


@pytest.mark.parametrize(
    ("text", "rest", "fragment"),
    [
        ("and cluster 3?", "and ?", True),
        ("same for GCG", "same for", True),
        ("what is cluster 2?", "what is ?", False),
        ("plot GCG", "plot", False),
    ],
)
def test_a_name_without_a_question_is_a_fragment(text, rest, fragment):
    assert sentences.is_fragment(text, rest) == fragment


def test_a_typing_error_is_mended_and_a_word_of_the_data_is_not():
    known = {"select", "many", "cells", "express"}
    assert sentences.mended("selct mnay clels that expres INS", known, ()) == "select many cells that express INS"
    assert sentences.mended("selct", known, {"selct"}) == "selct"


def test_what_is_rejected_is_left_out_unless_nothing_is_left():
    assert sentences.without_rejected("delta cells, not beta cells") == "delta cells"
    assert sentences.without_rejected("not in all cells, only in the alpha cells") == "only in the alpha cells"
    assert sentences.without_rejected("not beta cells") == "not beta cells"


def test_two_groups_are_one_where_they_differ_in_one_thing():
    alpha, beta = Cells(cell_type="alpha"), Cells(cell_type="beta")
    assert slots.either((alpha, beta)) == Cells(cell_type="alpha | beta")
    stim, ctrl = (Cells(column="condition", value=value) for value in ("stim", "ctrl"))
    assert slots.either((stim, ctrl)) == Cells(column="condition", value="stim | ctrl")
    assert slots.either((alpha, stim)) is None
    assert slots.find_group_again("and the second group?", (alpha, beta)) == beta
    assert slots.find_group_again("the others", (alpha, beta)) is None


@pytest.mark.parametrize(
    ("text", "one"),
    [
        ("generate one B cell", True),
        ("make a single alpha cell", True),
        ("generate the one with most counts again", False),
        ("generate B cells, one word is enough", False),
        ("generate beta cells", False),
    ],
)
def test_one_cell_is_a_number_and_the_one_is_not(text, one):
    assert bool(slots.ONE.search(text)) is one


@pytest.mark.parametrize(
    ("text", "intent"),
    [
        ("will these cells shrug off ZD-1839, an EGFR inhibitor?", requests.DRUG),
        ("do you know an EGFR inhibitor?", requests.DRUG_FACTS),
    ],
)
def test_what_a_named_drug_is_does_not_turn_a_question_about_cells_into_one_about_drugs(text, intent):
    checkpoint = load_checkpoint("mini")
    asked = intents.understand(text, router=load_router(), labels=checkpoint.labels, drugs=drugs_of(checkpoint))
    assert asked.intent == intent


def test_a_type_with_the_name_of_a_gene_in_it_is_a_type():
    checkpoint = load_checkpoint("mini")
    text = "Roll me one new NGN3 high progenitor"
    asked = intents.understand(text, router=load_router(), labels=checkpoint.labels, drugs=drugs_of(checkpoint))
    assert asked.intent == requests.GENERATE and asked.cell_type is not None and "Ngn3-high" in asked.cell_type.name
