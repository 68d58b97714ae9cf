"""From a file's genes to a model's genes."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.sparse as sp
from odd_cells import gene_names, human_genes, make_adata, make_counts, normalised

from instructcell.align import Aligner, align_genes
from instructcell.doctor import inspect
from instructcell.errors import GeneAlignmentError, MatrixError

GENES = human_genes(300)
COUNTS = make_counts()


def test_genes_land_in_their_slots_whatever_the_order_of_the_file():
    order = np.random.default_rng(0).permutation(300)
    adata = make_adata(COUNTS[:, order], names=[GENES[i] for i in order])
    aligned = align_genes(adata, GENES)
    assert isinstance(aligned.counts, sp.csr_matrix)
    assert aligned.counts.dtype == np.float32
    assert np.array_equal(aligned.counts.toarray(), COUNTS)
    assert aligned.measured.all()
    assert aligned.coverage == 1.0


def test_absent_genes_are_unmeasured_and_zeros_are_measured():
    counts = COUNTS[:, :120].copy()
    counts[:, 5] = 0
    aligned = align_genes(make_adata(counts, names=GENES[:120]), GENES)
    assert aligned.measured.tolist() == [True] * 120 + [False] * 180
    assert aligned.counts[:, 5].nnz == 0
    assert (aligned.n_shared, aligned.coverage) == (120, 0.4)


def test_repeated_genes_are_summed():
    names = [GENES[1], *GENES[1:]]
    aligned = align_genes(make_adata(names=names), GENES)
    assert np.array_equal(aligned.counts[:, 1].toarray().ravel(), COUNTS[:, 0] + COUNTS[:, 1])
    assert not aligned.measured[0]


@pytest.mark.parametrize("column", ["ensembl_id", "mouse_symbol", "mouse_ensembl_id"])
def test_other_names_of_the_same_genes_give_the_same_cells(column):
    names = gene_names(GENES, column)
    if column == "ensembl_id":
        names = [f"{name}.{i % 20}" for i, name in enumerate(names)]
    aligned = align_genes(make_adata(names=names), GENES)
    same = aligned.measured
    assert same.sum() >= 290
    assert np.array_equal(aligned.counts.toarray()[:, same], COUNTS[:, same])


def test_log_values_come_back_as_counts():
    aligned = align_genes(make_adata(np.log1p(normalised(COUNTS)).astype(np.float32)), GENES)
    singles = (COUNTS == 1).any(1)
    assert np.array_equal(aligned.counts.toarray()[singles], COUNTS[singles])


def test_one_umi_is_sought_in_all_genes_of_the_file_not_in_the_models():
    """A model's few genes may hold no single UMI of a cell; the file does."""
    model = GENES[:30]
    aligned = align_genes(make_adata(np.log1p(normalised(COUNTS)).astype(np.float32)), model)
    singles = (COUNTS == 1).any(1)
    assert np.array_equal(aligned.counts.toarray()[singles], COUNTS[singles][:, :30])


@pytest.mark.parametrize("rows", [slice(5, 9), np.array([7, 3])])
def test_a_report_and_rows_give_those_cells(rows):
    adata = make_adata()
    aligned = align_genes(adata, GENES, inspect(adata), rows=rows)
    assert np.array_equal(aligned.counts.toarray(), COUNTS[rows])


def test_a_report_fits_a_subset_of_the_cells():
    adata = make_adata()
    aligned = align_genes(adata[[7, 3]], GENES, inspect(adata))
    assert np.array_equal(aligned.counts.toarray(), COUNTS[[7, 3]])


def test_a_report_of_other_genes_is_a_bug_not_an_answer():
    with pytest.raises(ValueError, match="the report is of 300 genes"):
        align_genes(make_adata(COUNTS[:, :50]), GENES, inspect(make_adata()))


def test_the_file_is_left_as_it_was():
    adata = make_adata(np.log1p(normalised(COUNTS)))
    before = adata.X.copy()
    align_genes(adata, GENES)
    assert (before != adata.X).nnz == 0
    assert not adata.uns


def test_a_small_panel_passes_the_floor():
    aligned = align_genes(make_adata(COUNTS[:, :120], names=GENES[:120]), GENES)
    assert aligned.n_shared == 120


def test_no_shared_gene_is_refused_with_what_was_found():
    adata = make_adata(names=[f"feature_{i}" for i in range(300)])
    with pytest.raises(GeneAlignmentError, match="0 of 300 model genes found.*look like feature_0.*Rename the genes"):
        align_genes(adata, GENES)


def test_a_file_of_unknown_names_with_a_few_hits_is_refused():
    names = [*GENES[:12], *(f"feature_{i}" for i in range(288))]
    with pytest.raises(GeneAlignmentError, match="12 of 300 model genes"):
        align_genes(make_adata(names=names), GENES)


def test_force_aligns_below_the_floor_but_not_without_any_gene():
    few = make_adata(names=[*GENES[:9], *(f"feature_{i}" for i in range(291))])
    with pytest.raises(GeneAlignmentError, match="at least 20 shared"):
        align_genes(few, GENES)
    aligned = align_genes(few, GENES, force=True)
    assert (aligned.n_shared, int(aligned.measured.sum())) == (9, 9)
    assert np.array_equal(aligned.counts.toarray()[:, :9], COUNTS[:, :9])
    with pytest.raises(GeneAlignmentError, match="0 of 300"):
        align_genes(make_adata(names=[f"feature_{i}" for i in range(300)]), GENES, force=True)


def test_known_genes_without_counts_are_below_the_floor():
    """Many names match, but the cells' counts lie elsewhere: nine in ten in names that no model knows."""
    counts = COUNTS.copy()
    counts[:, 100:] *= 50
    names = [*GENES[:100], *(f"feature_{i}" for i in range(200))]
    with pytest.raises(GeneAlignmentError, match=r"100 of 300 model genes.*they hold \d% of the counts"):
        align_genes(make_adata(counts, names=names), GENES)


def test_one_aligner_serves_every_chunk():
    adata = make_adata(np.log1p(normalised(COUNTS)).astype(np.float32), names=[GENES[1], *GENES[1:]])
    aligner = Aligner.of(adata, GENES, inspect(adata))
    parts = [aligner.counts(adata.X[start : start + 7]).toarray() for start in range(0, 40, 7)]
    assert np.array_equal(np.vstack(parts), align_genes(adata, GENES).counts.toarray())


def test_columns_of_var_are_offered_when_names_fail():
    adata = make_adata(names=[f"feature_{i}" for i in range(300)])
    adata.var["my_names"] = [f"row {i}" for i in range(300)]
    with pytest.raises(GeneAlignmentError, match="gene_column.*my_names"):
        align_genes(adata, GENES)


def test_gene_names_are_found_in_a_column_of_any_name():
    adata = make_adata(names=[f"feature_{i}" for i in range(300)])
    adata.var["my_names"] = GENES
    assert align_genes(adata, GENES).coverage == 1.0
    assert align_genes(adata, GENES, gene_column="my_names").coverage == 1.0


def test_a_transposed_file_is_told_so():
    adata = make_adata().T.copy()
    with pytest.raises(GeneAlignmentError, match="transpose the file"):
        align_genes(adata, GENES)


def test_bad_values_are_refused_before_alignment():
    with pytest.raises(MatrixError, match="negative"):
        align_genes(make_adata(COUNTS - 1), GENES)
