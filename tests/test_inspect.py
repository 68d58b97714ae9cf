"""The doctor names the matrix, the scale, the genes and the faults of a file, with its evidence."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
import scipy.sparse as sp
from anndata import AnnData
from odd_cells import gene_names, human_genes, make_adata, make_counts, normalised, without_whole_numbers

from instructcell.doctor import inspect
from instructcell.errors import MatrixError
from instructcell.matrix import Matrix, survey
from instructcell.scale import to_linear

COUNTS = make_counts()
LOG2 = math.log(2)
SHIFTED_Z = (COUNTS - COUNTS.mean(0)) / (COUNTS.std(0) + 1e-9)

SCALES = {
    "raw counts": (COUNTS, "counts", None, None, False),
    "CP10k and log1p": (np.log1p(normalised(COUNTS)), "log1p", math.e, 1e4, True),
    "median total and log1p": (np.log1p(normalised(COUNTS, 417.0)), "log1p", math.e, 417.0, True),
    "CPM and log2": (np.log1p(normalised(COUNTS, 1e6)) / LOG2, "log1p", 2.0, 1e6, True),
    "CP10k and log10": (np.log10(normalised(COUNTS) + 1), "log1p", 10.0, 1e4, True),
    "log of raw counts": (np.log1p(COUNTS), "log1p", math.e, None, True),
    "CP10k and log1p of a gene panel": (np.log1p(normalised(COUNTS))[:, 100:], "log1p", math.e, 1e4, True),
    "CPM": (normalised(COUNTS, 1e6), "linear", None, 1e6, True),
    "TPM": (without_whole_numbers(COUNTS), "linear", None, 1e6, False),
    "TPM and log2": (np.log2(without_whole_numbers(COUNTS) + 1), "log1p", 2.0, 1e6, False),
    "TPM and log1p": (np.log1p(without_whole_numbers(COUNTS)), "log1p", math.e, 1e6, False),
    "TPM and log2 twice": (np.log2(np.log2(without_whole_numbers(COUNTS) + 1) + 1), "log1p", 2.0, 1e6, False),
    "RPKM of one decimal": (np.round(without_whole_numbers(COUNTS)[:, 150:], 1), "linear", None, None, False),
    "collision-corrected UMIs": (-256 * np.log1p(-np.minimum(COUNTS, 250) / 256), "counts", None, None, False),
    "z-scores, shifted": (SHIFTED_Z - SHIFTED_Z.min(0), "scaled", None, None, False),
}


@pytest.mark.parametrize("name", SCALES)
def test_each_scale_is_recognised(name):
    matrix, kind, base, target, recovered = SCALES[name]
    report = inspect(make_adata(matrix.astype(np.float32)))
    assert (report.scale, report.counts_recovered) == (kind, recovered)
    assert report.scale_detail.log_base == base
    assert report.target_sum == (None if target is None else pytest.approx(target, rel=0.01))
    assert report.scale_detail.log_twice == (name == "TPM and log2 twice")


@pytest.mark.parametrize("name", [name for name, (*_, recovered) in SCALES.items() if recovered])
def test_recovered_counts_are_the_counts(name):
    adata = make_adata(SCALES[name][0].astype(np.float32))
    original = COUNTS[:, -adata.n_vars :]
    recovered = to_linear(adata.X, inspect(adata).scale_detail).toarray()
    ones = np.array([(row == 1).any() for row in original])  # only there is one UMI the smallest value
    assert np.array_equal(recovered[ones], original[ones])


@pytest.mark.parametrize("name", ["TPM and log2", "TPM and log1p", "TPM and log2 twice"])
def test_a_logarithm_is_undone_also_without_whole_numbers(name):
    adata = make_adata(SCALES[name][0])
    linear = to_linear(adata.X, inspect(adata).scale_detail).toarray()
    assert np.allclose(linear, without_whole_numbers(COUNTS), rtol=1e-4)


def test_a_chunk_of_rows_gives_what_the_whole_matrix_gives():
    adata = make_adata(np.log1p(normalised(COUNTS)).astype(np.float32))
    scale = inspect(adata).scale_detail
    whole = to_linear(adata.X, scale).toarray()
    parts = [to_linear(adata.X[i : i + 7], scale).toarray() for i in range(0, 40, 7)]
    assert np.array_equal(np.vstack(parts), whole)


@pytest.mark.parametrize("dtype", ["int32", "int64", "float32", "float64", "uint16"])
@pytest.mark.parametrize("form", [np.asarray, sp.csr_matrix, sp.csc_matrix, sp.csr_array])
def test_counts_are_counts_in_any_storage(dtype, form):
    adata = make_adata()
    adata.X = form(COUNTS.astype(dtype))
    before = adata.X.copy()
    report = inspect(adata)
    assert report.scale == "counts"
    assert report.median_counts_per_cell == np.median(COUNTS.sum(1))
    assert report.median_genes_per_cell == np.median((COUNTS > 0).sum(1))
    assert (before != adata.X).sum() == 0


def test_raw_counts_in_a_layer_go_before_log_values_in_x():
    adata = make_adata(without_whole_numbers(COUNTS))
    adata.layers["counts"] = sp.csr_matrix(COUNTS)
    report = inspect(adata)
    assert report.matrix == "layers['counts']"
    assert any("layers['counts'] was used" in warning for warning in report.warnings)


def test_raw_goes_before_scaled_x_and_has_its_own_genes():
    adata = make_adata(np.log1p(normalised(COUNTS)))
    adata.raw = adata
    adata = adata[:, :50].copy()
    adata.X = adata.X.toarray() - 1.0
    report = inspect(adata)
    assert (report.matrix, report.n_genes, report.counts_recovered) == ("raw.X", 300, True)
    assert "negative" in report.evidence["matrices"]["X"]


def test_the_matrix_with_more_genes_wins_among_counts():
    adata = make_adata()
    adata.raw = adata
    assert inspect(adata[:, :100].copy()).matrix == "raw.X"


def test_unspliced_counts_are_never_chosen():
    adata = make_adata(without_whole_numbers(COUNTS))
    adata.layers["unspliced"] = sp.csr_matrix(COUNTS)
    assert inspect(adata).matrix == "X"


@pytest.mark.parametrize(("layer", "matrix"), [("X", "X"), ("counts", "layers['counts']"), ("raw", "raw.X")])
def test_a_named_layer_overrides_the_choice(layer, matrix):
    adata = make_adata()
    adata.raw = adata
    adata.layers["counts"] = sp.csr_matrix(COUNTS)
    assert inspect(adata, layer=layer).matrix == matrix


def test_an_unknown_layer_lists_what_is_there():
    with pytest.raises(MatrixError, match="no matrix named 'umi'; the file holds X"):
        inspect(make_adata(), layer="umi")


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_nan_is_refused_with_its_number_and_place(bad):
    matrix = COUNTS.copy()
    matrix[3, 7], matrix[30, 2] = bad, bad
    with pytest.raises(
        MatrixError, match=f"2 NaN or infinite values, the first in cell cell3.*gene {human_genes()[7]}"
    ):
        inspect(make_adata(matrix))


def test_negative_values_are_refused_with_a_remedy():
    with pytest.raises(MatrixError, match="negative values.*Bring the raw counts"):
        inspect(make_adata(SHIFTED_Z))


def test_negative_values_hide_nowhere():
    matrix = np.tile(COUNTS, (20, 1))
    matrix[301, 3] = -0.5
    with pytest.raises(MatrixError, match="1 negative value, down to .* \\(the first in cell"):
        inspect(make_adata(matrix))


def test_a_matrix_of_zeros_is_refused():
    with pytest.raises(MatrixError, match="only zeros"):
        inspect(make_adata(np.zeros((5, 30))))


@pytest.mark.parametrize("shape", [(0, 30), (5, 0)])
def test_nothing_is_refused(shape):
    with pytest.raises(MatrixError, match="expected at least one of each"):
        inspect(AnnData(np.zeros(shape)))


def test_no_matrix_at_all_is_refused():
    with pytest.raises(MatrixError, match="no matrix of expression"):
        inspect(AnnData(obs=make_adata().obs, var=make_adata().var))


def test_one_bad_matrix_does_not_hide_a_good_one():
    adata = make_adata()
    adata.layers["counts"] = sp.csr_matrix(np.where(np.arange(300) == 7, np.nan, COUNTS))
    assert inspect(adata).matrix == "X"


@pytest.mark.parametrize(
    ("column", "species", "id_type"),
    [
        ("symbol", "human", "symbol"),
        ("ensembl_id", "human", "ensembl"),
        ("mouse_symbol", "mouse", "symbol"),
        ("mouse_ensembl_id", "mouse", "ensembl"),
    ],
)
def test_species_and_kind_of_gene_names_are_recognised(column, species, id_type):
    genes = human_genes()
    names = genes if column == "symbol" else gene_names(genes, column)
    report = inspect(make_adata(names=names))
    assert (report.species, report.id_type) == (species, id_type)
    assert report.n_known_genes >= 290


def test_mouse_names_in_lower_case_are_known():
    names = [name.lower() for name in gene_names(human_genes(), "mouse_symbol")]
    report = inspect(make_adata(names=names), species="mouse")
    assert report.n_known_genes >= 290


def test_a_column_of_var_is_used_when_var_names_are_numbers():
    adata = make_adata(names=[str(i) for i in range(300)])
    adata.var["feature_name"] = human_genes()
    report = inspect(adata)
    assert (report.gene_column, report.n_known_genes) == ("feature_name", 300)


def test_gene_column_overrides():
    adata = make_adata()
    adata.var["mine"] = gene_names(human_genes(), "ensembl_id")
    assert inspect(adata, gene_column="mine").id_type == "ensembl"
    with pytest.raises(MatrixError, match="no gene column 'yours' in var, which holds mine"):
        inspect(adata, gene_column="yours")


def test_duplicates_and_empty_cells_are_counted_not_refused():
    matrix = COUNTS.copy()
    matrix[4] = 0
    genes = human_genes()
    adata = make_adata(matrix, names=[genes[1], *genes[1:]])
    adata.obs_names = ["same", "same", *adata.obs_names[2:]]
    report = inspect(adata)
    assert (report.n_duplicate_genes, report.n_duplicate_cells, report.n_empty_cells) == (1, 1, 1)
    assert any("their counts are summed" in warning for warning in report.warnings)


def test_the_mitochondrial_share_is_on_the_linear_scale():
    genes = ["MT-ND1", *human_genes(300)[1:]]
    counts = COUNTS.copy()
    counts[:, 0] = np.round(counts[:, 1:].sum(1) / 4)  # a fifth of each cell
    for matrix in (counts, np.log1p(normalised(counts))):
        assert inspect(make_adata(matrix, names=genes)).mitochondrial_share == pytest.approx(0.2, abs=0.01)
    assert inspect(make_adata()).mitochondrial_share is None


def test_coverage_is_that_of_the_models_genes():
    model = [*human_genes(300)[:100], "NOT-A-GENE"]
    report = inspect(make_adata(), genes=model)
    assert (report.n_shared_genes, report.coverage) == (100, pytest.approx(100 / 101))
    assert inspect(make_adata()).coverage is None


def test_the_card_is_short_and_the_dict_is_json():
    report = inspect(make_adata(np.log1p(normalised(COUNTS))), genes=human_genes())
    card = report.to_markdown("islets.h5ad")
    assert card.startswith("**islets.h5ad**: 40 cells, 300 genes")
    assert "counts recovered" in card
    assert len(card.splitlines()) < 12
    again = json.loads(json.dumps(report.to_dict()))
    assert again["scale"] == "log1p"
    assert again["evidence"]["whole_multiples_share"] >= 0.9


def test_the_survey_reads_a_matrix_in_chunks(monkeypatch):
    adata = make_adata()
    whole = survey(Matrix("X", adata.X, adata.var), adata.obs_names, spread=True)
    monkeypatch.setattr("instructcell.matrix.SPARSE_ROWS", 7)
    parts = survey(Matrix("X", adata.X, adata.var), adata.obs_names, spread=True)
    assert np.array_equal(whole.totals, parts.totals)
    assert np.array_equal(whole.detected, parts.detected)
    assert np.array_equal(whole.fingerprints, parts.fingerprints)
    assert np.allclose(whole.gene_sd, parts.gene_sd)


def test_low_coverage_is_weighed_by_counts_and_by_markers():
    markers = {"beta cell": ["INS", "IAPP"], "A1BG cell": [human_genes()[0], human_genes()[5]]}
    report = inspect(make_adata(), genes=human_genes()[:100]).with_genes(human_genes()[:100], markers)
    share = COUNTS[:, :100].sum() / COUNTS.sum()
    assert report.counts_coverage == pytest.approx(share)
    assert report.marker_coverage == 0.5
    assert report.markers_lost == {"beta cell": ["INS", "IAPP"]}
    assert any(f"only {share:.0%} of the cells' counts" in warning for warning in report.warnings)
    assert any("most are lost for beta cell (INS, IAPP)" in warning for warning in report.warnings)
    assert len(set(report.warnings)) == len(report.warnings)
    complete = report.with_genes(human_genes(), {"A1BG cell": [human_genes()[0]]})
    assert not any("markers" in warning or "only" in warning for warning in complete.warnings)


def test_a_backed_file_is_inspected_without_loading_it(tmp_path):
    import anndata

    make_adata().write_h5ad(tmp_path / "c.h5ad")
    backed = anndata.read_h5ad(tmp_path / "c.h5ad", backed="r")
    assert inspect(backed).to_dict() == inspect(make_adata()).to_dict()
    backed.file.close()
