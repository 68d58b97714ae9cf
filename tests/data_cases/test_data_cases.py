"""The doctor names every one of these files right, or refuses it with the reason and the remedy."""

from __future__ import annotations

import re
from pathlib import Path

import anndata
import numpy as np
import pytest
from anndata import AnnData
from cases import CASES, Case
from disguises import N_CELLS, counts, symbols

from instructcell.align import align_genes
from instructcell.doctor import inspect
from instructcell.report import DatasetReport

VERDICTS = {name: case for name, case in CASES.items() if case.refused is None}
REFUSED = {name: case for name, case in CASES.items() if case.refused is not None}


def test_there_are_enough_cases():
    assert len(CASES) >= 100


@pytest.mark.parametrize("name", VERDICTS)
def test_the_doctor_names(name: str):
    case = VERDICTS[name]
    adata = case.make()
    report = inspect(adata, genes=symbols(), **case.given)
    for field, expected in case.verdict.items():
        check(report, field, expected)
    card = report.to_markdown()
    for pattern in case.says:
        assert re.search(pattern, card), card
    if case.exact is not None:
        check_counts(adata, report, case.exact)


@pytest.mark.parametrize("name", REFUSED)
def test_the_doctor_refuses(name: str):
    case = REFUSED[name]
    adata = case.make()
    with pytest.raises(case.refused, match=case.words) as refusal:
        run(adata, case)
    assert len(str(refusal.value)) < 700
    assert "\n" not in str(refusal.value)


@pytest.mark.parametrize(
    "name",
    [
        "raw counts, csr float32",
        "CP10k and log1p, float16",
        "z-scores in X, counts in raw",
        "no X, counts in a layer",
        "Ensembl ids",
        "two genomes with prefixes",
        "antibodies beside genes",
        "unfiltered droplets",
    ],
)
def test_the_doctor_names_the_same_on_disk(name: str, tmp_path: Path):
    case = VERDICTS[name]
    adata = case.make()
    adata.write_h5ad(tmp_path / "cells.h5ad")
    backed = anndata.read_h5ad(tmp_path / "cells.h5ad", backed="r")
    assert inspect(backed, **case.given).to_dict() == inspect(adata, **case.given).to_dict()
    backed.file.close()


def run(adata: AnnData, case: Case) -> None:
    if case.aligned:
        align_genes(adata, symbols(), **case.given)
    else:
        inspect(adata, **case.given)


def check(report: DatasetReport, field: str, expected: object) -> None:
    """A field of the report is as expected; "..._at_least" asks for a bound, `...` for nothing."""
    if expected is ...:
        return
    if field.endswith("_at_least"):
        assert getattr(report, field.removesuffix("_at_least")) >= expected
        return
    found = report.scale_detail.log_base if field == "log_base" else getattr(report, field)
    assert found == (pytest.approx(expected, rel=0.02) if isinstance(expected, float) else expected), field


def check_counts(adata: AnnData, report: DatasetReport, share: float) -> None:
    """The model is given the demo's own counts, in the demo's order of genes."""
    aligned = align_genes(adata, symbols(), report)
    original = np.where(aligned.measured, counts(), 0)
    given = aligned.counts.toarray()
    assert given.shape == (N_CELLS, len(symbols()))
    there = (original > 0) | (given > 0)
    assert np.mean(given[there] == original[there]) >= share
