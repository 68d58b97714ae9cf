"""A turn of a session as one document: the same for Python, the terminal, HTTP and MCP.

    reply = Reply.of(session.send("Which cell types are these?"))
    reply.text, reply.tables["cell types"], reply.to_dict()
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd
from anndata import AnnData

from instructcell.events import CellsGenerated, Event, Failed, FigureReady, FilesReady, TableReady, TextDelta
from instructcell.terminal import records


@dataclass
class Reply:
    """What a session said in a turn, gathered event by event.

    Attributes
    ----------
    text
        The answer so far (Markdown).
    tables
        By name.
    evidence
        Name of a table or figure -> the id of the result it shows.
    figures
        Names of the figures.
    generated
        Pseudo-cells that were made.
    files
        Files that were written for the user.
    failure
        Why the question could not be answered and what to do; "" when it was.

    Examples
    --------
    >>> Reply.of(ic.Session(adata).send("Which cell types are these?")).to_dict()  # doctest: +SKIP
    """

    text: str = ""
    tables: dict[str, pd.DataFrame] = field(default_factory=dict)
    evidence: dict[str, str] = field(default_factory=dict)
    figures: list[str] = field(default_factory=list)
    generated: AnnData | None = None
    files: tuple[Path, ...] = ()
    failure: str = ""

    @classmethod
    def of(cls, events: Iterable[Event]) -> Reply:
        """The whole of a turn."""
        reply = cls()
        for event in events:
            reply.hear(event)
        return reply

    def hear(self, event: Event) -> None:
        """Take in the next event; progress is not kept."""
        match event:
            case TextDelta(text):
                self.text += text
            case TableReady(name, table, evidence):
                self.tables[name], self.evidence[name] = table, evidence
            case FigureReady(name, _, evidence):
                self.figures.append(name)
                self.evidence[name] = evidence
            case CellsGenerated(adata, _):
                self.generated = adata
            case FilesReady(paths):
                self.files = tuple(paths)
            case Failed(message, remedy):
                self.failure = f"{message} {remedy}".strip()

    def to_dict(self, most_rows: int | None = None) -> dict[str, Any]:
        """The turn as JSON can hold it; tables cut to `most_rows`, `n_rows` says how many they have."""
        shown = {name: table.iloc[:most_rows] for name, table in self.tables.items()}
        return {
            "answer": self.text,
            "failure": self.failure,
            "tables": {name: records(table) for name, table in shown.items()},
            "n_rows": {name: len(table) for name, table in self.tables.items()},
            "figures": list(self.figures),
            "evidence": {name: id for name, id in self.evidence.items() if id},
            "generated": None if self.generated is None else pseudo_summary(self.generated),
            "files": [path.name for path in self.files],
        }


def pseudo_summary(pseudo: AnnData) -> dict[str, Any]:
    """How many pseudo-cells there are, of which type, how many genes, and their median counts per cell."""
    return {
        "n_cells": pseudo.n_obs,
        "n_genes": pseudo.n_vars,
        "cell_type": str(pseudo.obs["cell_type"].iloc[0]),
        "median_library_size": float(pseudo.obs["library_size"].median()),
    }
