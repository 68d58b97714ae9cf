"""Gene names are read as approved human symbols, and nothing is read as what it is not."""

from __future__ import annotations

import pandas as pd
import pytest

from instructcell.errors import GeneAlignmentError
from instructcell.genes import (
    GeneResolver,
    find_gene,
    gene_card,
    load_gene_table,
    species_name,
)

COLUMNS = (
    "symbol",
    "aliases",
    "previous",
    "ensembl_id",
    "mouse_symbol",
    "mouse_ensembl_id",
    "ensembl_other",
    "mouse_aliases",
    "biotype",
    "hgnc_id",
)


def tiny_table(*rows: dict[str, str]) -> pd.DataFrame:
    return pd.DataFrame([{column: row.get(column, "") for column in COLUMNS} for row in rows])


@pytest.fixture(scope="module")
def resolver() -> GeneResolver:
    return GeneResolver()


def test_the_table_has_the_columns_that_others_rely_on() -> None:
    promised = ["symbol", "name", "aliases", "previous", "ensembl_id", "entrez_id", "mouse_symbol", "mouse_ensembl_id"]
    assert list(load_gene_table().columns[:9]) == [*promised, "function"]
    assert load_gene_table() is load_gene_table()


@pytest.mark.parametrize(
    ("name", "symbol", "how"),
    [
        ("GCG", "GCG", "symbol"),
        ("gcg", "GCG", "case"),
        ("C1ORF112", "FIRRM", "previous"),
        ("ENSG00000115263", "GCG", "ensembl"),
        ("ENSG00000115263.16", "GCG", "ensembl"),
        ("ensg00000115263", "GCG", "ensembl"),
        ("MARCH1", "MARCHF1", "previous"),
        ("SEPT2", "SEPTIN2", "previous"),
        ("CD20", "MS4A1", "previous"),
        ("p53", "TP53", "alias"),
        ("GRCh38_INS", "INS", "cleaned"),
        ("INS__chr11", "INS", "cleaned"),
        ("HLA.A", "HLA-A", "cleaned"),
        ("INS_ENSG00000254647", "INS", "ensembl"),
        ("CCL5_ENSG00000161570", "CCL5", "cleaned"),
        ("  SST ", "SST", "symbol"),
        ("ENSG00000999999", None, "unknown"),
        ("no such gene", None, "unknown"),
        ("", None, "unknown"),
    ],
)
def test_a_human_name_means_one_approved_symbol(
    resolver: GeneResolver, name: str, symbol: str | None, how: str
) -> None:
    found = resolver.resolve([name], species="human")
    assert found.symbols == [symbol]
    assert found.counts == {how: 1}


@pytest.mark.parametrize(
    ("name", "symbol"),
    [
        ("Gcg", "GCG"),
        ("ENSMUSG00000000394.8", "GCG"),
        ("Ins2", "INS"),
        ("Ins1", None),
        ("Trp53", "TP53"),
        ("Sept2", "SEPTIN2"),
        ("Cd20", "MS4A1"),
        ("GCG", "GCG"),
        ("ENSG00000115263", "GCG"),
        ("Gm1234", None),
    ],
)
def test_a_mouse_name_gives_the_human_counterpart(resolver: GeneResolver, name: str, symbol: str | None) -> None:
    assert resolver.resolve([name], species="mouse").symbols == [symbol]


@pytest.mark.parametrize(
    ("names", "species", "id_type"),
    [
        (["GCG", "INS", "SST"], "human", "symbol"),
        (["Gcg", "Ins2", "Sst"], "mouse", "symbol"),
        (["ENSG00000115263.16", "ENSG00000254647"], "human", "ensembl"),
        (["ENSMUSG00000000394", "ENSMUSG00000000215.2"], "mouse", "ensembl"),
        (["GCG", "ENSG00000254647"], "human", "mixed"),
        (["MARCH1", "SEPT2", "INS"], "human", "alias"),
        (["Abcde", "Fghij", "Klm1"], "mouse", "symbol"),
        (["ABCDE", "XYZ99"], "human", "symbol"),
        ([], "human", "symbol"),
    ],
)
def test_species_and_kind_of_names_are_recognised(
    resolver: GeneResolver, names: list[str], species: str, id_type: str
) -> None:
    found = resolver.resolve(names)
    assert (found.species, found.id_type) == (species, id_type)
    assert len(found.symbols) == len(names)


def test_counts_add_up_and_shares_follow() -> None:
    found = GeneResolver().resolve(["GCG", "ins", "MARCH1", "nothing"])
    assert found.counts == {"symbol": 1, "case": 1, "previous": 1, "unknown": 1}
    assert (found.n_found, found.share_found) == (3, 0.75)
    assert GeneResolver().resolve([]).share_found == 0.0


def test_an_approved_symbol_is_never_taken_for_an_alias() -> None:
    table = tiny_table(
        {"symbol": "AAA", "aliases": "BBB", "previous": "CCC", "biotype": "protein_coding", "hgnc_id": "1"},
        {"symbol": "BBB", "biotype": "pseudogene", "hgnc_id": "2"},
        {"symbol": "CCC", "biotype": "lncRNA", "hgnc_id": "3"},
    )
    assert GeneResolver(table).resolve(["BBB", "CCC", "bbb"]).symbols == ["BBB", "CCC", "BBB"]
    genes = load_gene_table()
    approved = genes["symbol"].tolist()
    assert GeneResolver().resolve(approved, species="human").symbols == approved


def test_a_name_that_several_genes_claim_goes_to_the_coding_gene_then_to_the_lower_hgnc_number() -> None:
    table = tiny_table(
        {"symbol": "A1", "aliases": "X;Y;Z", "biotype": "pseudogene", "hgnc_id": "1"},
        {"symbol": "B1", "aliases": "X;Y", "biotype": "protein_coding", "hgnc_id": "9"},
        {"symbol": "C1", "aliases": "X", "biotype": "protein_coding", "hgnc_id": "5"},
        {"symbol": "D1", "previous": "Z", "biotype": "pseudogene", "hgnc_id": "7"},
    )
    for rows in (table, table.iloc[::-1].reset_index(drop=True)):
        resolver = GeneResolver(rows)
        assert [resolver.resolve([name], species="human").symbols for name in "XYZ"] == [["C1"], ["B1"], ["D1"]]


def test_an_old_name_beside_its_approved_symbol_stays_unknown(resolver: GeneResolver) -> None:
    assert resolver.resolve(["MS4A1", "CD20"]).symbols == ["MS4A1", None]
    assert resolver.resolve(["CD20"], species="human").symbols == ["MS4A1"]


def test_a_mouse_gene_without_a_counterpart_is_counted_apart_from_unknown_names() -> None:
    table = tiny_table({"symbol": "A1", "mouse_symbol": "Aa", "mouse_aliases": "Old", "hgnc_id": "1"})
    found = GeneResolver(table).resolve(["Aa", "Zz"], species="mouse")
    assert found.symbols == ["A1", None]
    assert found.counts == {"symbol": 1, "unknown": 1}


def test_sixty_thousand_names_with_many_unknown_ones_are_read(resolver: GeneResolver) -> None:
    names = (load_gene_table()["symbol"].tolist() + [f"AC{number:06d}.1" for number in range(20_000)])[:60_000]
    found = resolver.resolve(names)
    assert found.species == "human" and found.n_found + found.counts["unknown"] == len(names) > 50_000


@pytest.mark.parametrize(
    ("said", "meant"), [("Homo sapiens", "human"), (" MOUSE ", "mouse"), ("NCBITaxon:10090", "mouse")]
)
def test_a_species_is_understood_under_its_usual_names(said: str, meant: str) -> None:
    assert species_name(said) == meant


def test_another_species_is_refused_with_those_that_are_read(resolver: GeneResolver) -> None:
    with pytest.raises(GeneAlignmentError, match=r"'zebrafish' is not known.*'human' or 'mouse'"):
        resolver.resolve(["gcga"], species="zebrafish")


def test_a_card_says_what_a_gene_is_and_where_that_stands() -> None:
    card = gene_card("glp1")
    assert (card.symbol, card.name, card.ensembl_id, card.mouse_symbol) == ("GCG", "glucagon", "ENSG00000115263", "Gcg")
    assert "GLP-1" in card.aliases
    assert card.text.startswith("GCG (glucagon): hormone activity")
    assert "Gene Ontology" in card.source
    assert gene_card("Ins2").symbol == gene_card("ENSMUSG00000000215").symbol == "INS"


def test_a_gene_that_does_not_exist_is_refused_with_the_nearest_symbols() -> None:
    assert find_gene("IAPPP") is None
    with pytest.raises(GeneAlignmentError, match=r"no human or mouse gene is called 'IAPPP'.*IAPP"):
        gene_card("IAPPP")


@pytest.mark.parametrize(
    ("name", "symbol"),
    [
        ("1-Mar", "MARCHF1"),
        ("01-Mar", "MARCHF1"),
        ("Mar-07", "MARCHF7"),
        ("2-Sep", "SEPTIN2"),
        ("Sept 9", "SEPTIN9"),
        ("1. Mrz", "MARCHF1"),
        ("15-Sep", "SELENOF"),
        ("1-Dec", "DELEC1"),
        ("2021-09-02", "SEPTIN2"),
        ("2006-09-07 00:00:00", "SEPTIN7"),
        ("9/7/2021", "SEPTIN7"),
        ("44441", "SEPTIN2"),
        ("4-Oct", "POU5F1"),
        ("1-Jun", None),
        ("30-Sep", None),
        ("12345", None),
    ],
)
def test_a_date_is_read_as_the_gene_that_a_spreadsheet_made_it_of(
    resolver: GeneResolver, name: str, symbol: str | None
) -> None:
    genes = [name, *(f"gene{i}" for i in range(30))]
    assert resolver.resolve(genes, species="human").symbols[0] == symbol


def test_a_date_that_could_be_two_genes_is_the_one_that_is_missing_and_that_is_said(resolver: GeneResolver) -> None:
    first = resolver.resolve(["1-Mar", "INS"])
    assert first.symbols == ["MARCHF1", "INS"]
    assert "1-Mar was MARCHF1 or MTARC1; it was read as MARCHF1" in first.notes
    assert resolver.resolve(["1-Mar", "MARCHF1"]).symbols == ["MTARC1", "MARCHF1"]
    assert resolver.resolve(["1-Mar", "Mtarc1", "Gcg"]).symbols == ["MARCHF1", "MTARC1", "GCG"]
    both = resolver.resolve(["1-Mar", "1-Mar-1", "INS"])
    assert both.symbols == [None, None, "INS"]
    assert "it was left out" in both.notes[0]


def test_entrez_ids_are_genes_and_running_numbers_are_not(resolver: GeneResolver) -> None:
    ids = [entrez for entrez in load_gene_table()["entrez_id"] if entrez]
    found = resolver.resolve(ids[:500])
    assert (found.id_type, found.species, found.n_found) == ("entrez", "human", 500)
    assert resolver.resolve([f"{entrez}.0" for entrez in ids[:500]]).n_found == 500
    for start in (0, 1):
        counted = resolver.resolve([str(number) for number in range(start, 2000)])
        assert (counted.id_type, counted.n_found) == ("number", 0)
    assert resolver.resolve(["LOC2641"]).symbols == ["GCG"]


def test_mouse_entrez_ids_are_the_human_counterparts_of_their_genes(resolver: GeneResolver) -> None:
    table = load_gene_table()
    both = table[(table["mouse_entrez_id"] != "") & (table["entrez_id"] != "")]
    mouse, human = both["mouse_entrez_id"].tolist(), both["entrez_id"].tolist()
    assert len(mouse) > 17_000
    found = resolver.resolve([*mouse[:500], "99999999"])
    assert (found.id_type, found.species, found.symbols) == ("entrez", "mouse", [*both["symbol"][:500], None])
    assert found.counts == {"entrez": 500, "unknown": 1}
    assert resolver.resolve([f"{entrez}.0" for entrez in mouse[:500]]).n_found == 500
    assert resolver.resolve(["GeneID:14526", "LOC16334"]).symbols == ["GCG", "INS"]
    assert resolver.resolve(["14526", "16334"], species="human").id_type == "number"
    mixed = resolver.resolve([*human[:300], *mouse[300:400]])
    assert (mixed.species, mixed.left_out) == ("human", tuple(range(300, 400)))
    heavier = resolver.resolve([*human[:300], *mouse[300:400]], weights=[1.0] * 300 + [9.0] * 100)
    assert (heavier.species, heavier.n_found) == ("mouse", 100)


def test_a_list_of_both_species_is_read_as_the_one_with_more_counts(resolver: GeneResolver) -> None:
    table = load_gene_table()
    both = table[table["mouse_symbol"] != ""]
    human, mouse = both["symbol"].tolist()[:100], both["mouse_symbol"].tolist()[100:300]
    names = [*(f"GRCh38_{name}" for name in human), *(f"mm10_{name}" for name in mouse)]
    assert resolver.resolve(names).species == "mouse"
    found = resolver.resolve(names, weights=[5.0] * 100 + [1.0] * 200)
    assert found.species == "human"
    assert found.symbols == [*human, *[None] * 200]
    assert found.left_out == tuple(range(100, 300))
    assert resolver.resolve([*human, *mouse]).left_out == tuple(range(100))


def test_names_numbered_for_repeating_are_the_gene_they_repeat(resolver: GeneResolver) -> None:
    found = resolver.resolve(["INS", "INS-1", "HLA-A", "HLA-A-2", "NKX2-1", "FOO-1"])
    assert found.symbols == ["INS", "INS", "HLA-A", "HLA-A", "NKX2-1", None]


def test_what_stands_for_no_name_is_no_gene(resolver: GeneResolver) -> None:
    assert resolver.resolve(["", "nan", "None", "NA"], species="human").symbols == [None] * 4
