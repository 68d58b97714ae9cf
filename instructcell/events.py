"""What a session says: typed events that the page, the terminal, scripts and tests all consume.

```python
for event in session.send("Which cells are these?"):
    match event:
        case TextDelta(text):
            print(text, end="")
        case CellsGenerated(adata):
            adata.write_h5ad("pseudo.h5ad")
```
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import pandas as pd
from anndata import AnnData
from plotly.graph_objects import Figure


@dataclass(frozen=True)
class TextDelta:
    """The next piece of the answer's text (Markdown); pieces are joined without anything between.

    `evidence` is the id of the result that the piece puts into words; "" where it states nothing of one.
    """

    text: str
    evidence: str = ""


@dataclass(frozen=True)
class TableReady:
    """A table of the answer; `name` says what it shows, `evidence` is the id of the result it belongs to."""

    name: str
    table: pd.DataFrame
    evidence: str = ""


@dataclass(frozen=True)
class FigureReady:
    """A plotly figure of the answer; `name` says what it shows, `evidence` is the id of the result it belongs to."""

    name: str
    figure: Figure
    evidence: str = ""


@dataclass(frozen=True)
class CellsGenerated:
    """Pseudo-cells: integer counts in X, the conditions in obs; `path` once they are saved."""

    adata: AnnData
    path: Path | None = None


@dataclass(frozen=True)
class FilesReady:
    """Files that were written for the user to take away."""

    paths: tuple[Path, ...]


@dataclass(frozen=True)
class Progress:
    """`done` of `total` units of the step `what` are finished."""

    done: int
    total: int
    what: str


@dataclass(frozen=True)
class Failed:
    """The question could not be answered; `remedy` says what to do. The session goes on."""

    message: str
    remedy: str = ""


Event = TextDelta | TableReady | FigureReady | CellsGenerated | FilesReady | Progress | Failed
