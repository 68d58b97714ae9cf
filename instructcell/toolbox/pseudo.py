"""Tools that make pseudo-cells and hold them against real ones."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
from anndata import AnnData

from instructcell import tools
from instructcell.errors import InstructCellError
from instructcell.events import Progress
from instructcell.toolbox.arguments import Generate, OfCells
from instructcell.toolbox.cells import chosen, with_subtypes
from instructcell.toolbox.core import Steps, Toolbox, tool
from instructcell.toolbox.types import most_frequent_type
from instructcell.workspace import Result

READ_BACK = 64  # pseudo-cells that the model reads back


@tool(Generate, "Make pseudo-cells of a type, or like chosen real cells: integer counts.", needs_cells=False)
def generate(box: Toolbox, asked: Generate) -> Steps:
    """Draw the cells and let the model read them back."""
    cell_type, like, whose = asked.cell_type, None, ""
    species, tissue = asked.species, asked.tissue
    if asked.like is not None:
        selection = yield from chosen(box, asked.like)
        file = box.workspace.require(selection.file)
        cell_type = cell_type or (yield from most_frequent_type(box, selection))
        like, whose = file.adata[selection.rows], selection.name
        tissue = tissue or _only(file.adata, selection.rows, "tissue")
    if not cell_type:
        raise InstructCellError(f"no cell type was named; name one of: {', '.join(box.able)}")
    label = tools.find_generable(box.checkpoint.labels, cell_type)
    yield Progress(0, asked.n, "generating cells")
    pseudo = tools.generate(
        cell_type=label.name,
        n=asked.n,
        tissue=tissue,
        species=species,
        condition=asked.condition,
        library_size=asked.library_size,
        like=like,
        seed=asked.seed,
        checkpoint=box.checkpoint,
    )
    box.workspace.count_generation()
    yield Progress(asked.n, asked.n, "generating cells")
    called = _read_back(box, pseudo)
    broader = "" if box.checkpoint.labels.find(cell_type) is not None else cell_type
    facts = {
        **_facts(pseudo),
        "kind_of": broader,
        "like": whose,
        "n_read_back": min(pseudo.n_obs, READ_BACK),
        "share_read_back": None,
    }
    if called is not None:
        facts["share_read_back"] = float(called.isin(with_subtypes(box.checkpoint, label.name)).mean())
    return Result("generate", facts=facts, tables={"pseudo-cells": _table(pseudo, called)}, cells=pseudo)


@tool(OfCells, "Hold the latest pseudo-cells against real ones of the same type: how alike they are, and one map.")
def compare_with_real(box: Toolbox, asked: OfCells) -> Steps:
    """Compare with the chosen cells; with all cells of the file called like the pseudo-cells by default."""
    pseudo = box.workspace.state.pseudo
    if pseudo is None:
        raise InstructCellError("there are no pseudo-cells to compare; ask for some first, e.g. 'generate 50 B cells'")
    from instructcell.toolbox.measured import realness

    return (yield from realness(box, pseudo, asked))


def _facts(pseudo: AnnData) -> dict[str, Any]:
    row = pseudo.obs.iloc[0]
    return {
        "n": pseudo.n_obs,
        "n_genes": pseudo.n_vars,
        "cell_type": str(row["cell_type"]),
        **{name: str(row[name]) for name in ("species", "tissue", "condition")},
        "median_library_size": int(pseudo.obs["library_size"].median()),
        "median_genes": int(np.median(np.asarray((pseudo.X > 0).sum(axis=1)))),
        "seed": int(pseudo.uns[tools.RUN]["seed"]),
    }


def _read_back(box: Toolbox, pseudo: AnnData) -> pd.Series | None:
    """What the model calls the first pseudo-cells; None where they hold too little to read.

    Each by itself: the readers of a file's context learned from pseudo-cells, and these would judge their own kind.
    """
    rows = np.arange(min(pseudo.n_obs, READ_BACK))
    try:
        steps = tools.annotate_steps(pseudo, checkpoint=box.checkpoint, rows=rows, context=False)
        return tools.finish(steps).table["best_guess"]
    except InstructCellError:  # cells of a very small library may hold nothing to read
        return None


def _table(pseudo: AnnData, called: pd.Series | None) -> pd.DataFrame:
    """Each pseudo-cell with its type, counts and genes, and what it was read back as, "" where it was not."""
    counts, genes = (np.asarray(matrix.sum(axis=1)).ravel().astype(int) for matrix in (pseudo.X, pseudo.X > 0))
    table = pd.DataFrame({"cell": pseudo.obs_names, "cell_type": pseudo.obs["cell_type"].astype(str).to_numpy()})
    known = [] if called is None else called.astype(str).to_list()
    return table.assign(counts=counts, genes=genes, read_back=[*known, *[""] * (pseudo.n_obs - len(known))])


def _only(adata: AnnData, rows: np.ndarray, column: str) -> str | None:
    """The value of a column that all of the cells have."""
    values = adata.obs[column].astype(str).iloc[rows].unique() if column in adata.obs else []
    return str(values[0]) if len(values) == 1 else None
