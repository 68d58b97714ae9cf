"""What can be worked out from cells and their annotation: pure functions, each with one frozen result.

    quality(adata)                          depth, mitochondrial share, doublet-like depth, per cell and per group
    cluster(adata)                          neighbours and Leiden groups of the cells' embedding
    explain(adata, rows, checkpoint=...)    which genes speak for a label and which against it
    find_by_text(adata, "cytotoxic T cells"), find_by_gene(adata, ["GZMB"])
    expression(adata, ["INS", "CD20"])      who expresses a gene, and how much
    compare(adata, a, b)                    genes that differ between two groups, and what they mean
    compare_with_real(generated, adata)     how far pseudo-cells look like real ones

Every result has a tidy `table` (pandas). Nothing is written into `adata`. Names are loaded
when they are first used; no file bears the name of a function, which would hide it.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from instructcell.analysis.clusters import Clusters, cluster
    from instructcell.analysis.comparison import Comparison, compare
    from instructcell.analysis.explanation import Explanation, explain
    from instructcell.analysis.find import Found, find_by_gene, find_by_text
    from instructcell.analysis.gene_expression import Expression, expression
    from instructcell.analysis.measured import MeasuredCells, measured_cells
    from instructcell.analysis.pseudo import Realness, compare_with_real
    from instructcell.analysis.quality_control import Quality, quality

__all__ = [
    "Clusters",
    "Comparison",
    "Explanation",
    "Expression",
    "Found",
    "MeasuredCells",
    "Quality",
    "Realness",
    "cluster",
    "compare",
    "compare_with_real",
    "explain",
    "expression",
    "find_by_gene",
    "find_by_text",
    "measured_cells",
    "quality",
]

_ROOMS = {
    "clusters": ("Clusters", "cluster"),
    "comparison": ("Comparison", "compare"),
    "explanation": ("Explanation", "explain"),
    "gene_expression": ("Expression", "expression"),
    "find": ("Found", "find_by_gene", "find_by_text"),
    "measured": ("MeasuredCells", "measured_cells"),
    "pseudo": ("Realness", "compare_with_real"),
    "quality_control": ("Quality", "quality"),
}
_HOME = {name: room for room, names in _ROOMS.items() for name in names}


def __getattr__(name: str) -> Any:
    if name in _HOME:
        return getattr(importlib.import_module(f"instructcell.analysis.{_HOME[name]}"), name)
    raise AttributeError(f"module 'instructcell.analysis' has no attribute '{name}'")


def __dir__() -> list[str]:
    return sorted(__all__)
