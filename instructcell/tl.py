"""Tools, scverse style: `ic.tl.annotate(adata)` writes its results into `adata`."""

from __future__ import annotations

from instructcell.tools import annotate, drug_response, embed, generate, markers, rank_drugs

__all__ = ["annotate", "drug_response", "embed", "generate", "markers", "rank_drugs"]
