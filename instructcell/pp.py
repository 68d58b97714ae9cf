"""scverse-style preprocessing verbs: ``ic.pp.inspect(adata)``."""

from __future__ import annotations

from instructcell.doctor import inspect

__all__ = ["inspect"]
