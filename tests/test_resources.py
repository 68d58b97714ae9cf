"""What ships is what was built, small enough, attributed, and says what its sources say."""

from __future__ import annotations

import gzip
from pathlib import Path

import anndata
import numpy as np
import pytest

from instructcell.errors import ResourceError
from instructcell.labels import load_ontology
from instructcell.resources import (
    RESOURCES,
    demo_path,
    file_sha256,
    read_checksums,
    read_table,
    resource_path,
    verify_resources,
)
from instructcell.resources.build import OUTPUTS, main, read_rows, write_checksums, write_table
from instructcell.resources.cell_types import PlainUnpickler, check_label_map, ontology_row
from instructcell.resources.demo_cells import choose_cells
from instructcell.resources.gene_function import choose_terms
from instructcell.resources.gene_table import MouseGene, MouseNames, best_conserved, match_mouse_ncbi, same_name
from instructcell.resources.packages import PACKAGES, Package, fetch

NOTICE = Path(__file__).parents[1] / "NOTICE"
LIMIT = 25_000_000  # bytes, all resources together
INSULIN = [
    {"Mouse gene name": "Ins1", "Mouse Gene-order conservation score": "0"},
    {"Mouse gene name": "Ins2", "Mouse Gene-order conservation score": "100"},
]


def data_files() -> list[Path]:
    return [path for path in RESOURCES.rglob("*") if path.is_file() and path.suffix not in {".py", ".pyc"}]


def test_every_built_resource_ships_and_matches_its_hash() -> None:
    assert set(verify_resources()) == set(OUTPUTS) == set(read_checksums())


def test_every_resource_file_and_every_package_is_attributed_in_the_notice() -> None:
    notice = " ".join(NOTICE.read_text(encoding="utf-8").split())
    assert all(name in notice for name in OUTPUTS)
    for path in data_files():
        assert path.name in notice or f"resources/{path.parent.name}/" in notice, path
    for package in PACKAGES.values():
        assert f"{package.name} {package.version.removesuffix('-1')}" in notice, package.name


def test_all_resources_together_stay_under_their_limit() -> None:
    assert sum(path.stat().st_size for path in data_files()) < LIMIT


def test_a_changed_and_a_missing_resource_are_both_named(tmp_path: Path) -> None:
    for name in ("genes.tsv.gz", "label_map.tsv"):
        (tmp_path / name).write_text(name, encoding="utf-8")
    assert write_checksums(tmp_path) == ["genes.tsv.gz", "label_map.tsv"]
    assert verify_resources(tmp_path) == ["genes.tsv.gz", "label_map.tsv"]
    (tmp_path / "genes.tsv.gz").write_text("other", encoding="utf-8")
    (tmp_path / "label_map.tsv").unlink()
    with pytest.raises(ResourceError, match=r"missing: label_map.tsv; changed: genes.tsv.gz.*make resources"):
        verify_resources(tmp_path)


def test_a_resource_that_does_not_exist_is_refused_with_those_that_do() -> None:
    with pytest.raises(ResourceError, match=r"'nothing.tsv' is not in .*genes.tsv.gz"):
        resource_path("nothing.tsv")
    with pytest.raises(ResourceError, match="choose one of: islets, mouse, pbmc"):
        demo_path("brain")


def test_equal_rows_give_equal_bytes_and_come_back(tmp_path: Path) -> None:
    rows = [{"a": "NA", "b": 'a "quoted" β'}, {"a": "", "b": "x"}]
    for name in ("one.tsv.gz", "two.tsv.gz"):
        write_table(tmp_path / name, ("a", "b"), rows)
    assert (tmp_path / "one.tsv.gz").read_bytes() == (tmp_path / "two.tsv.gz").read_bytes()
    assert read_rows(tmp_path / "one.tsv.gz") == rows
    assert gzip.decompress((tmp_path / "one.tsv.gz").read_bytes()).startswith(b"a\tb\nNA\t")
    with pytest.raises(ResourceError, match="holds a tab"):
        write_table(tmp_path / "bad.tsv", ("a", "b"), [{"a": "1\t2", "b": ""}])


def test_the_label_step_of_the_build_reproduces_what_ships(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("label_map.tsv", "ontology.tsv.gz"):
        (tmp_path / name).write_bytes(resource_path(name).read_bytes())
    assert main(["--only", "labels", "--out", str(tmp_path)]) == 0
    assert file_sha256(tmp_path / "finer_labels.tsv") == read_checksums()["finer_labels.tsv"]
    assert "agree with the ontology" in capsys.readouterr().out


def test_the_build_without_its_input_ends_with_one_sentence(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--only", "labels", "--out", str(tmp_path)]) == 2
    assert "error: label_map.tsv is not in" in capsys.readouterr().err


def test_a_package_with_other_bytes_is_refused_and_removed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package = Package("thing", "1.0", "thing-1.0.whl", "0" * 64, "MIT", "nothing")
    monkeypatch.setitem(PACKAGES, "thing", package)
    (tmp_path / package.file).write_bytes(b"other")
    with pytest.raises(ResourceError, match=f"expected {'0' * 64}"):
        fetch("thing", tmp_path)
    assert not (tmp_path / package.file).exists()


def test_every_package_is_pinned_by_version_and_hash() -> None:
    for package in PACKAGES.values():
        assert package.version in package.file
        assert len(package.sha256) == 64 and int(package.sha256, 16)


def test_a_pickle_that_asks_for_code_is_refused() -> None:
    with pytest.raises(ResourceError, match=r"posix.system"):
        PlainUnpickler(__import__("io").BytesIO(b"cposix\nsystem\n.")).load()


# ---- the tables


def test_gene_symbols_and_ids_belong_to_one_gene_each() -> None:
    genes = read_table("genes.tsv.gz")
    coding = genes["biotype"] == "protein_coding"  # HGNC itself gives three pairs of RNA and pseudogenes one Ensembl id
    assert genes["ensembl_id"][coding & (genes["ensembl_id"] != "")].is_unique
    for column in ("symbol", "entrez_id", "mouse_symbol", "mouse_ensembl_id", "hgnc_id", "mouse_entrez_id"):
        given = genes[column][genes[column] != ""]
        assert given.is_unique, column
    assert list(genes["symbol"]) == sorted(genes["symbol"])
    assert not set("|\t") & set("".join(genes["aliases"]))


def test_the_gene_table_holds_what_the_sources_say_of_known_genes() -> None:
    genes = read_table("genes.tsv.gz").set_index("symbol")
    glucagon = genes.loc["GCG"]
    assert (glucagon["name"], glucagon["ensembl_id"], glucagon["entrez_id"]) == ("glucagon", "ENSG00000115263", "2641")
    assert (glucagon["mouse_symbol"], glucagon["mouse_homology"]) == ("Gcg", "one2one")
    assert (glucagon["mouse_entrez_id"], genes.loc["INS", "mouse_entrez_id"]) == ("14526", "16334")
    assert not set(genes["entrez_id"]) & set(genes["mouse_entrez_id"]) - {""}
    assert "hormone activity" in glucagon["function"]
    assert genes.loc["INS", "mouse_symbol"] == "Ins2"
    assert genes.loc["TMSB4X", "mouse_symbol"] == "Tmsb4x"
    assert "MARCH1" in genes.loc["MARCHF1", "previous"].split(";")


def test_most_protein_coding_genes_have_a_name_a_function_and_a_mouse_counterpart() -> None:
    genes = read_table("genes.tsv.gz")
    coding = genes[genes["biotype"] == "protein_coding"]
    assert len(coding) > 19_000
    assert (coding["name"] != "").mean() > 0.98
    assert (coding["function"] != "").mean() > 0.9
    assert (coding["mouse_symbol"] != "").mean() > 0.85


def test_markers_are_approved_genes_of_terms_in_use_heaviest_first() -> None:
    markers = read_table("markers.tsv.gz")
    assert set(markers["gene"]) <= set(read_table("genes.tsv.gz")["symbol"])
    ontology = load_ontology()
    pairs = markers[["cl_id", "name"]].drop_duplicates()
    assert all(ontology.name(id) == name for id, name in pairs.itertuples(index=False))
    assert len(pairs) > 1_300
    weights = markers["weight"].astype(float)
    assert (weights > 0).all()
    assert all(group.is_monotonic_decreasing for _, group in weights.groupby(markers["cl_id"]))
    beta = markers[markers["cl_id"] == "CL:0000169"]
    assert {"INS", "IAPP", "MAFA"} <= set(beta["gene"][:15])
    assert set(markers["source"]) == {"CellConsensus 1.2.0"}
    assert (markers["n_sources"].astype(int) > 0).all()


def test_every_label_of_the_map_agrees_with_the_ontology_or_is_listed_as_finer() -> None:
    rows = read_table("label_map.tsv").to_dict("records")
    names = {id: term.name for id, term in load_ontology().terms.items()}
    finer = check_label_map(rows, names)
    assert finer == read_table("finer_labels.tsv").to_dict("records")
    listed = {row["name"] for row in finer}
    assert all(row["name"] in listed or names[row["id"]] == row["name"] for row in rows)


def test_synonyms_are_given_to_labels_that_exist() -> None:
    assert set(read_table("label_synonyms.tsv")["name"]) <= set(read_table("label_map.tsv")["name"])


@pytest.mark.parametrize(
    ("row", "said"),
    [
        ({"name": "T cell", "id": "CL:9999999"}, "CL:9999999 is not in the Cell Ontology"),
        ({"name": "B cell", "id": "CL:0000084"}, "that is the name of CL:0000236"),
        ({"name": "T cell", "id": ""}, "no id is not in"),
    ],
)
def test_a_label_that_contradicts_the_ontology_is_refused(row: dict[str, str], said: str) -> None:
    ontology = {"CL:0000084": "T cell", "CL:0000236": "B cell"}
    with pytest.raises(ResourceError, match=said):
        check_label_map([{"file": "f", "dataset_label": "t", **row}], ontology)


def test_one_name_cannot_have_two_ids() -> None:
    rows = [{"file": "f", "dataset_label": "a", "name": "my T cell", "id": id} for id in ("CL:0000084", "CL:0000236")]
    with pytest.raises(ResourceError, match="both CL:0000084 and CL:0000236"):
        check_label_map(rows, {"CL:0000084": "T cell", "CL:0000236": "B cell"})


def test_an_ontology_row_lists_parents_before_farther_ancestors() -> None:
    term = {"label": "x", "description": "one\ntwo", "synonyms": ["b; c", "a"], "ancestors": {"CL:2": 2, "CL:3": 1}}
    assert ontology_row("CL:1", term) == {
        "id": "CL:1",
        "name": "x",
        "definition": "one two",
        "synonyms": "a;b, c",
        "parents": "CL:3",
        "ancestors": "CL:3=1;CL:2=2",
    }


def test_of_several_mouse_homologs_the_principal_one_is_taken() -> None:
    assert same_name("INS", INSULIN) is None
    assert best_conserved("INS", INSULIN) is INSULIN[1]
    assert same_name("INS1", INSULIN) is INSULIN[0]
    assert best_conserved("INS", [INSULIN[1], INSULIN[1]]) is None


def test_a_function_line_prefers_evidence_and_does_not_say_one_thing_twice() -> None:
    names = {"wide": "wide", "right": "right", "part": "part of right", "guess": "guess"}
    chosen = choose_terms(
        {"wide": 2, "right": 2, "part": 2, "guess": 0},
        sizes={"wide": 10_000, "right": 100, "part": 90, "guess": 100},
        below={"right": {"part"}, "wide": set(), "part": set(), "guess": set()},
        names=names,
        most=2,
    )
    assert chosen == ["right", "guess"]


# ---- the demo cells


@pytest.mark.parametrize(("name", "n_types"), [("islets", 14), ("mouse", 13), ("pbmc", 10)])
def test_demo_cells_are_raw_counts_with_their_authors_labels(name: str, n_types: int) -> None:
    cells = anndata.read_h5ad(demo_path(name))
    values = cells.X.data
    assert np.issubdtype(values.dtype, np.integer) and values.min() >= 0
    assert cells.obs["cell_type"].nunique() == n_types
    assert cells.obs_names.is_unique and cells.var_names.is_unique
    ontology = load_ontology()
    assert all(id in ontology for id in cells.obs["cell_ontology_id"])
    assert cells.uns["matrix_kind"] == "raw UMI counts"


def test_demo_islets_are_of_the_donor_that_training_never_sees_and_hold_the_rare_types() -> None:
    cells = anndata.read_h5ad(demo_path("islets"))
    assert set(cells.obs["donor"]) == {"human1"}
    assert 550 <= cells.n_obs <= 650
    assert {"epsilon", "schwann", "t_cell", "mast"} <= set(cells.obs["cell_type"])
    beta, alpha = (cells[cells.obs["cell_type"] == kind, "INS"].X.mean() for kind in ("beta", "alpha"))
    assert beta > 10 * alpha


def test_demo_mouse_is_of_the_donor_that_training_never_sees_and_stays_small() -> None:
    cells = anndata.read_h5ad(demo_path("mouse"))
    assert set(cells.obs["donor"]) == {"mouse1"} and set(cells.obs["species"]) == {"mouse"}
    assert demo_path("mouse").stat().st_size < 2**20
    beta, alpha = (cells[cells.obs["cell_type"] == kind, "Ins2"].X.mean() for kind in ("beta", "alpha"))
    assert beta > 5 * alpha


def test_choosing_cells_keeps_rare_types_whole_and_file_order() -> None:
    labels = ["common"] * 300 + ["rare"] * 3
    rows = choose_cells(labels, 53)
    assert rows == sorted(set(rows)) and len(rows) == 53
    assert rows[-3:] == [300, 301, 302]


def test_a_mouse_gene_is_found_in_ncbi_by_its_symbol_or_the_one_older_name_that_no_gene_bears_now() -> None:
    genes = [
        MouseGene("New1", "", "one2one", "Old1"),
        MouseGene("Twin", "", "one2one", "OldA;OldB"),
        MouseGene("Kept", "", "one2one", "Old1"),
        MouseGene("Late", "", "one2one", "Borne"),
    ]
    mgi = MouseNames({}, {"Borne": {}})
    numbers = {"Old1": "1", "OldA": "2", "OldB": "3", "Kept": "4", "Borne": "5"}
    assert match_mouse_ncbi(genes, mgi, numbers) == {"Kept": "4", "New1": "1"}
