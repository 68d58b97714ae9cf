"""Quality of cells: depth, detected genes, mitochondrial share and doublet-like depth, per cell and per group."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from anndata import AnnData

from instructcell.analysis.measured import MeasuredCells, Rows, checked_rows, groups_of, measured_cells
from instructcell.doctor import DEEP, DatasetReport

MITOCHONDRIAL = re.compile(r"^MT[-.]", re.IGNORECASE)
FAR, FAR_MITOCHONDRIAL = 5.0, 3.0  # median absolute deviations from which a cell is an outlier
LEAST_MITOCHONDRIAL = 0.08  # share below which no cell is called dying
ALL_CELLS = "all cells"


@dataclass(frozen=True)
class Quality:
    """What can be said of the quality of a file's cells.

    Attributes
    ----------
    n_cells, n_genes
        Cells, and genes that at least one of them has.
    median_counts, median_genes
        Depth; `median_counts` is None where the file holds no counts.
    mitochondrial_share
        Median share of a cell's counts in mitochondrial genes; None where the file measured none.
    deep_share
        Share of the cells more than three times as deep as the median cell, as doublets are.
    low_quality_share
        Share of the cells that are outliers: depth or genes 5 median absolute deviations from the median (of their
        logarithms), or mitochondrial share 3 above it and over 8 %.
    cells
        One row per cell: `counts` (NaN without counts), `genes`, `mitochondrial_share` (NaN without such genes),
        `deep`, `low_quality` (bool), and `group` where groups were asked for.
    table
        One row per group, or one for all: `group`, `cells`, `median_counts`, `median_genes`, `mitochondrial_share`
        (median), `deep_share`, `low_quality_share`.
    warnings
        The doctor's sentences on the file.
    """

    n_cells: int
    n_genes: int
    median_counts: float | None
    median_genes: float
    mitochondrial_share: float | None
    deep_share: float
    low_quality_share: float
    cells: pd.DataFrame
    table: pd.DataFrame
    warnings: tuple[str, ...] = ()


def quality(
    adata: AnnData,
    report: DatasetReport | None = None,
    *,
    by: str | Sequence[object] | pd.Series | None = None,
    rows: Rows = None,
) -> Quality:
    """Judge the quality of cells.

    Parameters
    ----------
    report
        What the doctor said of the file, to spare a second look.
    by
        Column of obs, or one value per cell, for a row per group.
    rows
        Positions of the cells; all for None. Outliers are judged among these.

    Raises
    ------
    InstructCellError
        No cell was chosen, or there is no such column.

    Examples
    --------
    >>> quality(adata, by="donor").table  # doctest: +SKIP
    """
    chosen = checked_rows(rows, adata.n_obs)
    measured = measured_cells(adata, report, None if rows is None else chosen)
    cells = _metrics(measured)
    group = groups_of(adata, by, chosen)
    if group is not None:
        cells["group"] = group.to_numpy()
    by_group = cells.groupby(cells["group"] if group is not None else np.full(len(cells), ALL_CELLS), observed=True)
    table = pd.DataFrame(
        {
            "cells": by_group.size(),
            "median_counts": by_group["counts"].median(),
            "median_genes": by_group["genes"].median(),
            "mitochondrial_share": by_group["mitochondrial_share"].median(),
            "deep_share": by_group["deep"].mean(),
            "low_quality_share": by_group["low_quality"].mean(),
        }
    )
    return Quality(
        n_cells=len(cells),
        n_genes=int(np.count_nonzero(measured.counts.getnnz(axis=0))),
        median_counts=_median(cells["counts"]),
        median_genes=float(cells["genes"].median()),
        mitochondrial_share=_median(cells["mitochondrial_share"]),
        deep_share=float(cells["deep"].mean()),
        low_quality_share=float(cells["low_quality"].mean()),
        cells=cells,
        table=table.sort_values("cells", ascending=False, kind="stable").rename_axis("group").reset_index(),
        warnings=measured.report.warnings,
    )


def _metrics(measured: MeasuredCells) -> pd.DataFrame:
    """Depth, genes and mitochondrial share of each cell, and who is an outlier."""
    totals, genes = measured.totals, measured.counts.getnnz(axis=1)
    mitochondrial = np.flatnonzero(_is_mitochondrial(measured))
    share = np.full(measured.n_cells, np.nan)
    if len(mitochondrial):
        held = np.asarray(measured.counts[:, mitochondrial].sum(axis=1, dtype=np.float64)).ravel()
        share = np.divide(held, totals, out=np.zeros(measured.n_cells), where=totals > 0)
    depth = totals if measured.are_counts else genes.astype(float)
    filled = depth[depth > 0]
    far = _far(np.log1p(genes), FAR) | (_far(np.log1p(totals), FAR) if measured.are_counts else False)
    dying = _above(share, FAR_MITOCHONDRIAL) & (share > LEAST_MITOCHONDRIAL)
    return pd.DataFrame(
        {
            "counts": totals if measured.are_counts else np.nan,
            "genes": genes,
            "mitochondrial_share": share,
            "deep": depth > DEEP * (np.median(filled) if filled.size else np.inf),
            "low_quality": far | dying,
        },
        index=measured.cells,
    )


def _is_mitochondrial(measured: MeasuredCells) -> np.ndarray:
    """Which columns are genes of the mitochondrial genome [M] bool."""
    pairs = zip(measured.genes, measured.symbols, strict=True)
    return np.array([bool(MITOCHONDRIAL.match(gene) or MITOCHONDRIAL.match(own)) for gene, own in pairs])


def _far(values: np.ndarray, times: float) -> np.ndarray:
    """Which values lie further from the median than so many median absolute deviations [N] bool."""
    away = np.abs(values - np.median(values))
    spread = np.median(away)
    return away > times * spread if spread > 0 else np.zeros(len(values), bool)


def _above(values: np.ndarray, times: float) -> np.ndarray:
    """Which values lie so far above the median; none where they are unknown."""
    if not np.isfinite(values).all():
        return np.zeros(len(values), bool)
    return _far(values, times) & (values > np.median(values))


def _median(values: pd.Series) -> float | None:
    return None if values.isna().all() else float(values.median())
