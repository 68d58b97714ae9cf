"""Tools about the work itself: what can be asked of this file, take a step back, begin again, hand everything out."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pandas as pd

from instructcell import tools
from instructcell.errors import InstructCellError
from instructcell.output import safe_cells, write_h5ad
from instructcell.retrieval.marker_table import load_marker_table
from instructcell.toolbox.arguments import Export, Nothing
from instructcell.toolbox.cells import cluster_column
from instructcell.toolbox.core import Steps, Toolbox, tool
from instructcell.toolbox.data import groupings
from instructcell.toolbox.script import script_of
from instructcell.transcript import figures_html
from instructcell.workspace import DataFile, Result

TABLES = ("HGNC", "Gene Ontology", "Cell Ontology")  # of genes' names, of their functions, of cell types
MOST_COMPARED = 6  # values of a column that is offered for comparison


@tool(Nothing, "What can be asked of the loaded file, with examples that fit it.", needs_cells=False, logged=False)
def help(box: Toolbox, asked: Nothing) -> Steps:  # noqa: A001 - the tool's name
    """Examples and what the checkpoint knows."""
    file = box.workspace.file
    facts = {
        "examples": list(examples(box)),
        "types": box.able,
        "n_types": len(box.able),
        "n_labels": len(box.checkpoint.labels),
        "drugs": box.drugs.names,
        "sources": [*sorted(load_marker_table().table["source"].unique()), *TABLES],
        "file": "" if file is None else file.name,
        "n_cells": 0 if file is None else file.adata.n_obs,
    }
    return Result("help", facts, file="" if file is None else file.name)
    yield


@tool(Nothing, "Take the last step back.", needs_cells=False, logged=False)
def undo(box: Toolbox, asked: Nothing) -> Steps:
    """Put everything back as it was before the last step that changed something."""
    before = box.workspace.undo()
    facts = {"undone": "" if before is None else before.label, "mark": "", "left": len(box.workspace.undoable)}
    return Result("undo", facts, payload=before)
    yield


@tool(
    Nothing,
    "Begin again: forget all results and selections; the files stay as they came.",
    needs_cells=False,
    logged=False,
)
def restart(box: Toolbox, asked: Nothing) -> Steps:
    """Forget everything but the files."""
    box.workspace.restart()
    return Result("restart", {"files": list(box.workspace.files)})
    yield


@tool(
    Export,
    "Write the annotated files, pseudo-cells, tables, figures, the conversation and a script that repeats every step.",
    needs_cells=False,
    logged=False,
)
def export(box: Toolbox, asked: Export) -> Steps:
    """Write what there is into a new folder inside the toolbox's folder."""
    folder = Path(tempfile.mkdtemp(prefix="export-", dir=box.folder))
    written = [path for one in WRITERS if asked.what in ("all", one) for path in WRITERS[one](box, folder)]
    if written and asked.what == "all":  # it shows the figures too
        written += _conversation(box, folder) or _figures(box, folder)
    elif asked.what in LOOKED_AT:
        written += LOOKED_AT[asked.what](box, folder)
    if not written:
        folder.rmdir()
        raise InstructCellError("there is nothing to hand out yet; ask for cell types or for new cells first")
    table = pd.DataFrame(
        {"file": [path.name for path in written], "kilobytes": [path.stat().st_size / 1024 for path in written]}
    )
    facts = {"files": [path.name for path in written], "n_files": len(written)}
    return Result("export", facts, tables={"files": table}, payload=tuple(written))
    yield


def examples(box: Toolbox) -> Iterator[str]:
    """Questions that fit what is loaded and known and were not answered yet, the most useful first."""
    file, drugs = box.workspace.file, box.drugs.names
    able = box.able
    if file is None:
        example = able[0] if able else "B cell"
        yield from (f"Generate 50 {example}s", f"What marks a {example}?", "What does GCG do?")
        return
    written = box.workspace.written(file.name)
    answered = {result.tool for result in box.workspace.state.results if result.file == file.name}
    if tools.CELL_TYPE not in written:
        yield "Which cell types are these?"
        if "quality" not in answered:
            yield "Is the quality of these cells good?"
    types = types_found(box, file)
    made = box.workspace.latest("generate", "compare_with_real")
    if box.workspace.state.pseudo is not None and made is not None and made.tool == "generate":
        yield "Compare them with the real ones"
    if types:
        yield "Show me only the unsure ones"
        if "explain" not in answered:
            yield f"Why are they called {types[0]}?"
        generable = next((name for name in types if name in able), None)
        if generable is not None:
            yield f"Generate 50 {generable}s and put them on the map"
        if "compare" not in answered and len(types) > 1:
            yield f"Compare {types[0]} with {types[1]}"
    if drugs:
        yield f"Would {drugs[0]} work on these cells?"
        if "rank_drugs" not in answered:
            yield "Which drugs would hit these cells?"
    for column, values in groupings(file.adata.obs).items():
        kinds = sorted(values.unique())
        if len(kinds) <= MOST_COMPARED and cluster_column(file.adata.obs) != column:
            yield f"Compare {column} {kinds[0]} with {column} {kinds[1]}"
            break
    yield f"What marks a {types[0] if types else (able[0] if able else 'B cell')}?"
    yield "Describe the data"


def types_found(box: Toolbox, file: DataFile) -> list[str]:
    """The cell types of a file's annotation, the commonest first."""
    if tools.CELL_TYPE not in box.workspace.written(file.name):
        return []
    counts = file.adata.obs[tools.CELL_TYPE].astype(str).value_counts()
    return [str(name) for name in counts.index if name not in (tools.UNKNOWN, "")]


def _annotated(box: Toolbox, folder: Path) -> list[Path]:
    files = [file for file in box.workspace.files.values() if box.workspace.written(file.name)]
    return [write_h5ad(file.adata, folder / f"{_safe(Path(file.name).stem)}_instructcell.h5ad") for file in files]


def _pseudo(box: Toolbox, folder: Path) -> list[Path]:
    pseudo = box.workspace.state.pseudo
    return [] if pseudo is None else [write_h5ad(pseudo, folder / "pseudo_cells.h5ad")]


def _tables(box: Toolbox, folder: Path) -> list[Path]:
    paths = []
    for result in box.workspace.state.results:
        for name, table in result.tables.items():
            path = folder / f"{result.id}_{_safe(name)}.csv"
            safe_cells(table).to_csv(path, index=False)
            paths.append(path)
    return paths


def _figures(box: Toolbox, folder: Path) -> list[Path]:
    drawn = [
        (f"{name} ({result.id})", draw())
        for result in box.workspace.state.results
        for name, draw in result.figures.items()
    ]
    return _page(folder / "figures.html", figures_html(drawn) if drawn else "")


def _conversation(box: Toolbox, folder: Path) -> list[Path]:
    return _page(folder / "conversation.html", box.transcript() if box.transcript is not None else "")


def _page(path: Path, source: str) -> list[Path]:
    if not source:
        return []
    path.write_text(source, encoding="utf-8")
    return [path]


def _script(box: Toolbox, folder: Path) -> list[Path]:
    if not any(step.tool != "open" for step in box.workspace.state.steps):
        return []
    path = folder / "repeat_these_steps.py"
    path.write_text(script_of(box.workspace, box.checkpoint), encoding="utf-8")
    return [path]


def _safe(name: str) -> str:
    """A file name that stays inside its folder."""
    import re

    return re.sub(r"[^\w.-]+", "_", name).strip("._")[:80] or "cells"


WRITERS: dict[str, Any] = {"annotated": _annotated, "pseudo": _pseudo, "tables": _tables, "script": _script}
LOOKED_AT: dict[str, Any] = {"figures": _figures, "conversation": _conversation}
