"""Which cells express a gene and how much, group by group: the numbers of a dot plot."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from anndata import AnnData

from instructcell.analysis.measured import ChosenGenes, MeasuredCells, Rows, checked_rows, groups_of, measured_cells
from instructcell.analysis.quality_control import ALL_CELLS
from instructcell.doctor import DatasetReport


@dataclass(frozen=True)
class Expression:
    """Expression of some genes.

    Attributes
    ----------
    table
        One row per gene and group: `gene` (human symbol), `symbol` (as the file writes it), `group`, `cells`,
        `expressing` (cells with the gene), `share_of_cells` (0..1), `mean` (of log(1 + counts per 10,000) over all
        cells of the group), `mean_if_expressed` (the same over those that have it; 0 where none has).
    values
        [N cells x genes] log(1 + counts per 10,000), indexed by the cells' names, columns the human symbols.
    by
        What the groups are: a column's name, or "" for all cells together.
    rows
        Positions of the cells in the file [N].
    read_as
        What each name was read as: {"CD20": "MS4A1"}.
    not_measured
        Genes the file does not have: nothing can be said of them.
    unknown
        Names no gene bears, each with close ones.
    """

    table: pd.DataFrame
    values: pd.DataFrame
    by: str
    rows: np.ndarray
    read_as: dict[str, str]
    not_measured: tuple[str, ...] = ()
    unknown: dict[str, tuple[str, ...]] | None = None

    @property
    def genes(self) -> tuple[str, ...]:
        """Human symbols of the genes that were measured, in the order they were asked for."""
        return tuple(self.values.columns)


def expression(
    adata: AnnData,
    genes: str | Sequence[str],
    *,
    by: str | Sequence[object] | pd.Series | None = None,
    rows: Rows = None,
    report: DatasetReport | None = None,
) -> Expression:
    """Say who expresses genes.

    Parameters
    ----------
    genes
        Symbols, aliases, Ensembl ids, mouse symbols or full names, one or many.
    by
        Column of obs, or one value per cell; None: all cells together.
    rows
        Positions of the cells; all for None.
    report
        What the doctor said of the file, to spare a second look.

    Raises
    ------
    GeneAlignmentError
        None of the genes was measured.
    InstructCellError
        No cell was chosen, or there is no such column.

    Examples
    --------
    >>> expression(adata, ["INS", "CD20"], by="cell_type").table  # doctest: +SKIP
    """
    chosen = checked_rows(rows, adata.n_obs)
    measured = measured_cells(adata, report, None if rows is None else chosen)
    found = measured.find(genes)
    group = groups_of(adata, by, chosen)
    values = expression_values(measured, found)
    labels = pd.Series(ALL_CELLS, index=measured.cells, name="") if group is None else group
    return Expression(
        table=_table(values, labels, measured, found),
        values=values,
        by=str(labels.name),
        rows=chosen,
        read_as=found.read_as,
        not_measured=found.not_measured,
        unknown=found.unknown,
    )


def expression_values(measured: MeasuredCells, found: ChosenGenes) -> pd.DataFrame:
    """log(1 + counts per 10,000) of some genes: [N cells x genes]."""
    dense = measured.log_expression[:, found.columns].toarray()
    return pd.DataFrame(dense, index=measured.cells, columns=list(found.genes))


def _table(values: pd.DataFrame, labels: pd.Series, measured: MeasuredCells, found: ChosenGenes) -> pd.DataFrame:
    """One row per gene and group; genes in the order asked for, the largest group first."""
    sizes = labels.value_counts(sort=False)
    order = sorted(sizes.index, key=lambda name: (-sizes[name], str(name)))
    parts = []
    for gene, column in zip(found.genes, found.columns, strict=True):
        by_group = values[gene].groupby(labels.to_numpy(), observed=True)
        expressing = by_group.agg(lambda each: int((each > 0).sum())).reindex(order)
        total, cells = by_group.sum().reindex(order), sizes.reindex(order)
        parts.append(
            pd.DataFrame(
                {
                    "gene": gene,
                    "symbol": measured.symbols[column],
                    "group": order,
                    "cells": cells.to_numpy(),
                    "expressing": expressing.to_numpy(),
                    "share_of_cells": (expressing / cells).to_numpy(float),
                    "mean": (total / cells).to_numpy(float),
                    "mean_if_expressed": (total / expressing.clip(lower=1)).to_numpy(float),
                }
            )
        )
    return pd.concat(parts, ignore_index=True)
