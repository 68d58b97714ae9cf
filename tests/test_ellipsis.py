"""What a sentence leaves out is put back from the talk before, and nothing else is."""

from __future__ import annotations

import pytest

from instructcell.ellipsis import Filled, Rank, Talk, asks_rank, filled
from instructcell.retrieval.names import ambiguous_name, load_name_book
from instructcell.sentences import spelled_out
from instructcell.slots import BRINGS_BACK, LIKEWISE, POINTS_BACK, POINTS_HERE, REPEATS

CLUSTERS = Talk("cluster", ("0", "1", "2", "3"), ("B cell", "T cell"))
TYPES = Talk("type", ("0", "1"), ("B cell", "T cell", "monocyte"), made=80)


@pytest.mark.parametrize(
    ("text", "text_filled"),
    [
        ("well then, and 2?", "well then, and cluster 2?"),
        ("and 2?", "and cluster 2?"),
        ("17?", "cluster 17?"),  # there is none, which is told
        ("3 instead of 0", "cluster 3 instead of cluster 0"),
        ("would number 1 respond to afatinib", "would cluster 1 respond to afatinib"),
        ("is 2 any different", "is cluster 2 any different"),
        ("what separates 1 from 3", "what separates cluster 1 from cluster 3"),
        ("compare 1 with 3", "compare cluster 1 with cluster 3"),
        ("does gefitinib hit 1 harder than 2?", "does gefitinib hit cluster 1 harder than cluster 2?"),
        ("top 3 genes", "top 3 genes"),
        ("only the first 2", "only the first 2"),
        ("plot 3 of them", "plot 3 of them"),
        ("generate 3 more", "generate 3 more"),
        ("resolution 2", "resolution 2"),
        ("less than 3 % of 2 cells", "less than 3 % of 2 cells"),
        ("genes of the biggest one", "genes of cluster 0"),
        ("what is the smallest cluster made of", "what is cluster 3 made of"),
        ("the main markers", "the main markers"),
    ],
)
def test_a_bare_number_is_a_cluster_after_talk_of_clusters_and_stays_a_number_elsewhere(text, text_filled):
    assert filled(text, CLUSTERS).text == text_filled
    if "biggest" not in text and "smallest" not in text:
        assert filled(text, TYPES).text == text


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("half of that would do", Filled("40 would do", corrects=True)),
        ("twice as many", Filled("160", corrects=True)),
        ("5 times as many NK cells", Filled("400 NK cells", corrects=True)),
        ("25 % of that", Filled("20", corrects=True)),
        ("30 fewer", Filled("50", corrects=True)),
        ("the same number of monocytes", Filled("80 monocytes", corrects=True)),
        ("10 more", Filled("10 more")),
        ("are half of them sensitive?", Filled("are half of them sensitive?")),
    ],
)
def test_an_amount_of_an_amount_is_a_number_after_pseudo_cells(text, expected):
    assert filled(text, TYPES) == expected
    assert filled(text, CLUSTERS) == Filled(text)  # nothing was made


@pytest.mark.parametrize(
    ("text", "rank"),
    [
        ("which is the most abundant type", Rank(1, "type")),
        ("which cluster is the largest?", Rank(1, "cluster")),
        ("what's the rarest kind of cell here", Rank(-1, "type")),
        ("and the third biggest?", Rank(3, "cluster")),
        ("which one has the fewest cells", Rank(-1, "cluster")),
        ("which cells are the rarest", Rank(-1, "type")),
        ("what is the largest one made of", None),
        ("which drug is the best for the largest cluster", None),
        ("what are the top genes", None),
    ],
)
def test_a_question_for_a_place_by_size_is_known_from_one_about_that_group(text, rank):
    assert asks_rank(text, CLUSTERS) == rank


@pytest.mark.parametrize(
    ("text", "text_filled"),
    [
        ("the endothelial ones", "the endothelial cells"),
        ("GCG in the alphas", "GCG in the alpha cells"),
        ("alpha over beta", "alpha cells versus beta cells"),
        ("acinar and endothelial", "acinar cells and endothelial cells"),
        ("the cells that you call stellate", "the stellate cells"),
        ("ohh beta. how many?", "ohh beta cells. how many?"),
        ("CD4 and CD8", "CD4 and CD8"),
        ("the unsure ones", "the unsure ones"),
        ("plot GCG over all cell types", "plot GCG over all cell types"),
    ],
)
def test_short_names_of_types_are_written_out(text, text_filled):
    assert filled(text, Talk()).text == text_filled


@pytest.mark.parametrize(
    ("text", "type_id"),
    [
        ("any monos?", "CL:0000576"),
        ("how many CD4s", "CL:0000624"),
        ("select macs", "CL:0000235"),
        ("glucagon producers", "CL:0000171"),
        ("the somatostatin cells", "CL:0000173"),
        ("blood vessel cells", "CL:0000115"),
        ("is CD4 on?", None),
        ("cells that make insulin", None),
        ("the MACS sorted sample", None),
    ],
)
def test_names_of_the_bench_are_types_and_genes_stay_genes(text, type_id):
    found = [mention.id for mention in load_name_book().cell_types(spelled_out(text))]
    assert found == ([type_id] if type_id else [])


def test_a_part_is_asked_of_an_analysis_and_not_of_a_choice():
    said = "restrict that to the beta cells"
    assert filled(said, Talk(analysed=True)).text == "only in the beta cells"
    assert filled(said, Talk()).text == said


def test_a_number_with_a_question_mark_is_a_cluster_whatever_was_talked_of_between():
    talk = Talk(kind="type", clusters=("0", "1", "2"))
    assert filled("2?", talk).text == "cluster 2?"
    assert filled("2 please", talk).text == "2 please"
    assert filled("2?", Talk(kind="type", clusters=("0", "1", "2"), made=50)).text == "2?"


def test_no_name_of_a_type_goes_on_into_a_bracket():
    found = load_name_book().cell_types("50 pseudo-cells: dendritic cell (human blood)")
    assert [mention.written for mention in found] == ["dendritic cell"]


def test_a_name_of_two_types_is_ambiguous_as_it_is_written():
    assert ambiguous_name("how many PCs?") == ("PCs", ("plasma cell", "Purkinje cell"))
    assert ambiguous_name("how many pcs of plastic") is None


@pytest.mark.parametrize(
    ("pattern", "yes", "no"),
    [
        (
            POINTS_BACK,
            ["GCG there", "the level in that subset", "what do such cells do"],
            ["how many are there", "hi there"],
        ),
        (POINTS_BACK, ["what genes set it apart", "is it enriched in stim"], ["what is in there", "is there a drug"]),
        (POINTS_HERE, ["of this lot", "in this subset"], ["this file", "this gene"]),
        (
            LIKEWISE,
            ["how is 2 in that respect", "repeat that for NK cells", "same numbers by donor"],
            ["same cells again"],
        ),
        (
            REPEATS,
            ["same question here", "and again please", "the same thing for this file"],
            ["same for B cells", "again, QC"],
        ),
        (BRINGS_BACK, ["bring them back", "put the acinar cells back"], ["back to all cells", "bring me the file"]),
    ],
)
def test_pointers_are_told_from_words_like_them(pattern, yes, no):
    assert all(pattern.search(text) for text in yes)
    assert not any(pattern.search(text) for text in no)
