"""Requests and answers: what every rendering must hold, whatever the dice say."""

from __future__ import annotations

import re
from random import Random

import pytest

from train.phrasings import FRAMES, RULES, TASKS
from train.templates import (
    CELLS,
    EXAMPLES,
    SIGNAL,
    RenderContext,
    canonical,
    distinct_renderings,
    plural,
    render,
    singular,
    with_article,
)

CONTEXTS = [
    ("annotation", RenderContext(label="type B pancreatic cell")),
    ("annotation", RenderContext(label="CD8-positive, alpha-beta T cell", species="human", tissue="PBMC", n_cells=9)),
    ("annotation", RenderContext(label="oocyte", technology="Smart-seq2", n_cells=2)),
    ("annotation", RenderContext(label="NK", options=("CD4, memory T cell", "NK", "B cells"), species="mouse")),
    ("annotation", RenderContext(label="B cell", guess="T cells", guess_right=False, n_cells=3)),
    ("annotation", RenderContext(label="oocyte", tissue="PBMC", contradicted=True)),
    (
        "generation",
        RenderContext(
            label="B cell", cell_type=("B cell", "CD19+ B"), condition="IFN-beta stimulated", species="human"
        ),
    ),
    ("generation", RenderContext(cell_type=("B cell",), condition="healthy", tissue="lung (healthy / tumour)")),
    ("generation", RenderContext(label="oocyte", cell_type=("oocyte",), n_signals=4, tissue="embryo")),
    ("drug", RenderContext(drug="gefitinib", drug_names=("Iressa",), drug_target="EGFR", response="sensitive")),
    ("drug", RenderContext(drug="afatinib", response="resistant", n_cells=5, species="human", tissue="lung line")),
    (
        "markers",
        RenderContext(cell_type=("pancreatic A cell", "alpha cells"), markers=tuple("ABCDEFGH"), tissue="islet"),
    ),
    ("markers", RenderContext(cell_type=("plasma cell",), markers=("JCHAIN",))),
]
every_context = pytest.mark.parametrize(("task", "context"), CONTEXTS)
both_sides = pytest.mark.parametrize("held_out", [False, True])


def samples(task, context, n=400, **options):
    rng = Random(0)
    return [render(task, context, rng, **options) for _ in range(n)]


@pytest.mark.parametrize("task", TASKS)
def test_one_context_alone_has_thousands_of_phrasings_without_any_typing_error(task):
    renderings = distinct_renderings(task, 2500, seed=0)
    assert len({rendered.prompt.casefold() for rendered in renderings}) >= 2000


@pytest.mark.parametrize("task", TASKS)
def test_a_tenth_of_the_frames_is_set_aside(task):
    share = sum(frame.held_out for frame in FRAMES[task]) / len(FRAMES[task])
    assert 0.07 <= share <= 0.15


@every_context
def test_held_out_frames_are_never_rendered_for_training(task, context):
    held_out = {frame.id for frame in FRAMES[task] if frame.held_out}
    assert not held_out & {rendered.frame_id for rendered in samples(task, context)}
    assert {rendered.frame_id for rendered in samples(task, context, held_out=True)} <= held_out


@both_sides
@every_context
def test_cells_and_signals_stand_exactly_where_they_belong(task, context, held_out):
    for rendered in samples(task, context, held_out=held_out, noise=1.0):
        assert rendered.prompt.count(CELLS) == (task in ("annotation", "drug")), rendered
        assert rendered.answer.count(SIGNAL) == (context.n_signals if task == "generation" else 0), rendered
        assert not re.search(r"[\[\]{}]", rendered.prompt.replace(CELLS, "")), rendered
        assert not re.search(r"[\[\]{}]", rendered.answer.replace(SIGNAL, "")), rendered


@both_sides
@every_context
def test_texts_are_tidy_without_noise(task, context, held_out):
    for rendered in samples(task, context, held_out=held_out, noise=0.0):
        for text in (rendered.prompt, rendered.answer):
            assert text == text.strip()
            assert not re.search(r"  | [.,?!;]|,[.?!]|\.\.|(?i:\bnone\b)", text), text


@both_sides
@every_context
def test_the_answer_holds_the_truth_word_for_word(task, context, held_out):
    for rendered in samples(task, context, held_out=held_out):
        if task == "annotation":
            assert context.label in rendered.answer
            assert rendered.style == "sentence" or rendered.answer == context.label
        elif task == "drug":
            wrong = {"sensitive": "resistant", "resistant": "sensitive"}[context.response]
            assert context.response in rendered.answer and wrong not in rendered.answer
            assert rendered.style == "short" or context.drug in rendered.answer
        elif task == "markers":
            assert context.markers[0] in rendered.answer


@every_context
def test_options_and_known_facts_are_in_every_prompt(task, context):
    for rendered in samples(task, context, noise=0.0):
        for option in context.options:
            assert option in rendered.prompt
        if context.species:
            assert re.search(r"human|homo sapiens|mouse|murine|mus musculus", rendered.prompt.casefold()), rendered
        if context.condition:
            assert context.condition.removesuffix(" stimulated") in rendered.prompt


def test_listed_options_are_answered_with_the_option_alone():
    context = RenderContext(label="NK", options=("NK", "B cells", "Mono"))
    assert {(rendered.answer, rendered.style) for rendered in samples("annotation", context)} == {("NK", "short")}


def test_options_with_commas_are_not_parted_by_commas():
    options = ("CD4-positive, alpha-beta T cell", "B cell", "CD8-positive, alpha-beta T cell")
    listed = "CD4-positive, alpha-beta T cell, B cell, CD8-positive, alpha-beta T cell"
    for rendered in samples("annotation", RenderContext(label="B cell", options=options), noise=0.0):
        assert listed not in rendered.prompt


def test_one_cell_is_not_spoken_of_in_the_plural_nor_many_in_the_singular():
    one = samples("annotation", RenderContext(label="B cell"), noise=0.0)
    many = samples("annotation", RenderContext(label="B cell", n_cells=4), noise=0.0)
    assert not [
        r for r in one if re.search(r"\b(these cells|are they|this cluster|those cells)\b", r.prompt.casefold())
    ]
    assert not [r for r in many if re.search(r"\b(this cell|my cell|this single cell)\b", r.prompt.casefold())]


def test_yes_or_no_agrees_with_the_question_about_a_drug():
    polarity = {frame.id: frame.polarity for frame in FRAMES["drug"]}
    for rendered in samples("drug", RenderContext(drug="gefitinib", response="resistant"), canonical_share=0.0):
        if rendered.style == "sentence" and polarity[rendered.frame_id]:
            yes = polarity[rendered.frame_id] == "resistant"
            assert rendered.answer.startswith("Yes" if yes else "No")


def test_a_wrong_guess_is_answered_with_no():
    context = RenderContext(label="B cell", guess="mast cell", guess_right=False)
    assert all(rendered.answer.startswith("No, ") for rendered in samples("annotation", context))


def test_a_hint_the_cells_do_not_fit_is_spoken_of_in_sentences():
    context = RenderContext(label="oocyte", tissue="PBMC", contradicted=True)
    sentences = [r for r in samples("annotation", context) if r.style == "sentence"]
    assert all(len(re.findall(r"\.(?= |$)", rendered.answer)) == 2 for rendered in sentences)


def test_the_number_of_genes_asked_for_is_the_number_given():
    context = RenderContext(cell_type=("B cell",), markers=tuple("ABCDEFGH"))
    counts = {"two": 2, "three": 3, "2": 2, "3": 3}
    seen = 0
    for rendered in samples("markers", context, n=1500, noise=0.0):
        asked = re.search(r"\b(?:list|name|the top) (two|three|2|3) ", rendered.prompt.casefold())
        if asked and rendered.style == "short":
            seen += 1
            assert rendered.answer.count(",") + 1 == counts[asked[1]], rendered
    assert seen > 5


def test_canonical_prompts_are_the_ones_batch_work_uses():
    islet = RenderContext(
        label="type B pancreatic cell", species="human", tissue="pancreatic islet", technology="inDrop"
    )
    assert canonical("annotation", islet).prompt == "human pancreatic islet | annotate: {cells}"
    assert canonical("annotation", RenderContext(label="B cell")).prompt == "annotate: {cells}"
    assert canonical("drug", EXAMPLES["drug"]).prompt == "human | response to gefitinib: {cells}"
    generation = canonical("generation", RenderContext(cell_type=("B cell",), species="human", tissue="PBMC"))
    assert (generation.prompt, generation.answer) == ("human PBMC | generate B cell:", "{signal}")
    assert canonical("markers", RenderContext(cell_type=("B cell",), markers=("CD19",))).prompt == "markers of B cell:"


def test_a_quarter_of_the_prompts_is_canonical():
    rendered = samples("annotation", EXAMPLES["annotation"], n=2000)
    assert 0.21 < sum(r.frame_id == "annotation/canonical" for r in rendered) / 2000 < 0.29
    assert any(r.prompt == "human pancreatic islet | annotate: {cells}" for r in rendered)


def test_typing_errors_leave_options_whole_and_most_words_right():
    context = RenderContext(label="NK", options=("NK", "CD14+ Monocytes"), species="human")
    clean, noisy = (samples("annotation", context, noise=noise, canonical_share=0.0) for noise in (0.0, 1.0))
    assert all("CD14+ Monocytes" in rendered.prompt for rendered in noisy)
    words = {word for rendered in clean for word in re.findall(r"\w+", rendered.prompt.casefold())}
    typed = [word for rendered in noisy for word in re.findall(r"\w+", rendered.prompt.casefold())]
    assert 0.02 < sum(word not in words for word in typed) / len(typed) < 0.25


def test_same_seed_same_renderings():
    assert samples("drug", EXAMPLES["drug"]) == samples("drug", EXAMPLES["drug"])


def test_every_word_of_the_grammar_is_defined_and_used():
    texts = [frame.text for frames in FRAMES.values() for frame in frames]
    texts += [alternative.text for alternatives in RULES.values() for alternative in alternatives]
    used = {name for text in texts for name in re.findall(r"\[(\w+)\]", text)}
    assert used <= RULES.keys()
    around = {"attach", "options_sentence", "short_directive", "sentence_directive", "greeting", "story", "closing"}
    assert {name for name in RULES if not name.startswith("answer_")} - used == around | {"prefix", "hint_sentence"}
    assert len({frame.id for frames in FRAMES.values() for frame in frames}) == sum(map(len, FRAMES.values()))


@pytest.mark.parametrize(
    ("name", "one", "many", "spoken"),
    [
        ("B cells", "B cell", "B cells", "a B cell"),
        ("CD14+ Monocytes", "CD14+ Monocyte", "CD14+ Monocytes", "a CD14+ Monocyte"),
        ("CD34+", "CD34+ cell", "CD34+ cells", "a CD34+ cell"),
        ("NK", "NK cell", "NK cells", "an NK cell"),
        ("Tregs", "Treg", "Tregs", "a Treg"),
        ("cell of the morula", "cell of the morula", "cells of the morula", "a cell of the morula"),
        ("macrophage", "macrophage", "macrophages", "a macrophage"),
        ("A549", "A549 cell", "A549 cells", "an A549 cell"),
        (
            "8-cell stage blastomere",
            "8-cell stage blastomere",
            "8-cell stage blastomeres",
            "an 8-cell stage blastomere",
        ),
    ],
)
def test_names_are_inflected_as_people_say_them(name, one, many, spoken):
    assert (singular(name), plural(name), with_article(singular(name))) == (one, many, spoken)


@pytest.mark.parametrize(
    ("task", "context", "complaint"),
    [
        ("annotation", RenderContext(), "needs label"),
        ("drug", RenderContext(drug="gefitinib"), "needs response"),
        ("markers", RenderContext(cell_type=("B cell",)), "needs markers"),
        ("poetry", RenderContext(), "unknown task"),
    ],
)
def test_a_context_without_what_the_task_needs_is_refused(task, context, complaint):
    with pytest.raises(ValueError, match=complaint):
        render(task, context, Random(0))


def test_impossible_contexts_are_refused():
    with pytest.raises(ValueError, match="at least 1"):
        RenderContext(n_cells=0)
    with pytest.raises(ValueError, match="not among the options"):
        RenderContext(label="B cell", options=("T cell",))
    with pytest.raises(ValueError, match="must not contain"):
        RenderContext(label="{cells}")
