"""A tool's result as another program or a language model takes it: plain JSON, tables cut to their first rows."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pandas as pd

from instructcell.toolbox.core import plain
from instructcell.workspace import Result

MOST_ROWS = 25  # of each table
MOST_CHARACTERS = 12_000  # of what a language model is given


def told(result: Result, most_rows: int = MOST_ROWS) -> dict[str, Any]:
    """Everything a result says: `id`, `tool`, `facts`, `tables` (first rows, with `n_rows`), `notes`, `sources`."""
    return {
        "id": result.id,
        "tool": result.tool,
        "arguments": plain(result.arguments),
        "facts": plain(result.facts),
        "tables": {name: _table(table, most_rows) for name, table in result.tables.items()},
        "notes": list(result.notes),
        "sources": list(result.sources),
        "pseudo_cells": None if result.cells is None else {"n": result.cells.n_obs, "n_genes": result.cells.n_vars},
    }


def written(result: Result) -> tuple[Path, ...]:
    """Files that a tool wrote to be taken away."""
    found = result.payload if isinstance(result.payload, tuple) else ()
    return tuple(path for path in found if isinstance(path, Path))


def as_text(result: Result) -> str:
    """The same as JSON text for a language model, with fewer rows where it would be long."""
    for most_rows in (MOST_ROWS, 8, 2, 0):
        text = json.dumps(told(result, most_rows), ensure_ascii=False)
        if len(text) <= MOST_CHARACTERS:
            return text
    return json.dumps({"id": result.id, "tool": result.tool, "facts": plain(result.facts)}, ensure_ascii=False)


def _table(table: pd.DataFrame, most_rows: int) -> dict[str, Any]:
    return {"n_rows": len(table), "rows": plain(table.head(most_rows))}
