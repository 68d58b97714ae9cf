"""Tools about the file as a whole: what it holds, its quality, clusters, chosen cells and the map."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd
from plotly.graph_objects import Figure

from instructcell import pl, tools
from instructcell.retrieval.grounding import percent
from instructcell.retrieval.names import load_name_book
from instructcell.toolbox.arguments import Cluster, Embed, Map, OfFile, Quality, Select, UseFile
from instructcell.toolbox.cells import OWN_CLUSTERS, chosen, cluster_column, clusters_of
from instructcell.toolbox.core import Steps, Toolbox, reported, tool
from instructcell.toolbox.types import about, annotated, coverage_facts, grouped_by
from instructcell.workspace import DataFile, Result, Selection

MOST_VALUES = 200  # a column with more values than this is no grouping
VALUES_SHOWN, COLUMNS_SHOWN, COLUMNS_LISTED = 6, 20, 6


@tool(OfFile, "Describe a file: size, species, matrix and scale, genes the model knows, columns of obs, warnings.")
def describe(box: Toolbox, asked: OfFile) -> Steps:
    """The doctor's report and the columns of obs."""
    from instructcell.literature.embed import RECORD, describe_encoders

    file = box.workspace.require(asked.file)
    own = [name for name in file.adata.obs.columns if not str(name).startswith("instructcell_")]
    report = file.report
    facts = {
        "file": file.name,
        "files": list(box.workspace.files),
        "n_cells": report.n_cells,
        "n_genes": report.n_genes,
        "median_genes_per_cell": report.median_genes_per_cell,
        "median_counts_per_cell": report.median_counts_per_cell,
        "technology": report.technology,
        "id_type": report.id_type,
        **coverage_facts(report),
        "columns": [_column(file.adata.obs[name]) for name in own[:COLUMNS_SHOWN]],
        "n_columns": len(own),
        "other_files": [name for name in box.workspace.files if name != file.name],
        "encoders": describe_encoders(file.adata),
        "report": report.to_markdown(),
    }
    notes = [report.to_markdown()]
    if RECORD in file.adata.uns:  # embeddings of other encoders than the checkpoint's
        notes.append(facts["encoders"])
    return Result("describe", facts, tables={"dataset": card(file)}, notes=tuple(notes), file=file.name)
    yield


@tool(Quality, "Quality control: depth, genes per cell, mitochondrial share, cells as deep as doublets, outliers.")
def quality(box: Toolbox, asked: Quality) -> Steps:
    """Metrics of the chosen cells, and of each group of a column."""
    from instructcell.analysis import quality as judge

    selection = yield from chosen(box, asked.cells)
    file = box.workspace.require(selection.file)
    groups = None
    if asked.by:
        groups = (yield from grouped_by(box, file, asked.by)).to_numpy()
    found = judge(file.adata, file.report, rows=selection.rows, by=groups)
    facts = {
        **about(selection),
        "n_genes": found.n_genes,
        "median_counts": found.median_counts,
        "median_genes": found.median_genes,
        "mitochondrial_share": found.mitochondrial_share,
        "deep_share": found.deep_share,
        "n_deep": int(found.cells["deep"].sum()),
        "low_quality_share": found.low_quality_share,
        "n_low_quality": int(found.cells["low_quality"].sum()),
        "warnings": list(map(str, found.warnings)),
        "by": asked.by,
        "groups": found.table if asked.by else [],
    }
    cells = found.cells.rename_axis("cell").reset_index()
    figures = {"quality": lambda: histogram(found.cells["genes"], "genes per cell")}
    tables = {"quality by group": found.table} if asked.by else {}
    return Result(
        "quality",
        facts,
        tables={**tables, "quality": cells},
        figures=figures,
        file=file.name,
        selection=selection,
        payload=found,
    )


@tool(Cluster, "Cluster the cells (neighbours of their embedding, Leiden); kept in obs as instructcell_cluster.")
def cluster(box: Toolbox, asked: Cluster) -> Steps:
    """Leiden clusters; with the type that most cells of each were called, where they were annotated."""
    from instructcell.analysis import cluster as group

    file = box.workspace.require(asked.file)
    adata = file.adata
    if tools.EMBEDDING not in adata.obsm or tools.EMBEDDING not in box.workspace.written(file.name):
        steps = tools.embed_steps(adata, checkpoint=box.checkpoint, report=file.report)
        yield from reported(steps, "embedding cells")
        box.workspace.note_written(file.name, tools.EMBEDDING)
    key = ("cluster", f"{asked.resolution:g}")
    found = box.workspace.recall(file.name, *key)
    if found is None:
        found = group(adata, resolution=asked.resolution, report=file.report)
        box.workspace.remember(file.name, *key, value=found)
    adata.obs[OWN_CLUSTERS] = pd.Categorical(
        found.groups.astype(str).to_numpy(), categories=list(found.groups.cat.categories)
    )
    box.workspace.note_written(file.name, OWN_CLUSTERS)
    table = found.table.copy()
    if tools.CELL_TYPE in box.workspace.written(file.name):
        table = _with_types(table, adata.obs)
    facts = {
        "file": file.name,
        "n_cells": adata.n_obs,
        "n_clusters": found.n_clusters,
        "resolution": found.resolution,
        "clusters": table,
        "basis": found.basis,
    }
    figures = {"clusters": lambda: pl.umap(adata, color=OWN_CLUSTERS)}
    return Result("cluster", facts, tables={"clusters": table}, figures=figures, file=file.name, payload=found)


@tool(Embed, "Write an encoder's view of each cell into obsm: of its expression, of texts about its genes, or of both.")
def embed(box: Toolbox, asked: Embed) -> Steps:
    """The expression encoder, or one of the literature with what is installed; `tl.embed` takes others."""
    from instructcell.literature.embed import OBSM, SEEN, TextOptions, name_of, text_steps

    file = box.workspace.require(asked.file)
    adata, options, key = file.adata, TextOptions(), OBSM.get(asked.encoder, tools.EMBEDDING)
    view: np.ndarray | None = None
    if asked.encoder in ("expression", "fusion"):
        steps = tools.embed_steps(adata, checkpoint=box.checkpoint, report=file.report)
        view = yield from reported(steps, "embedding cells")
        box.workspace.note_written(file.name, tools.EMBEDDING)
    if asked.encoder != "expression":
        read = text_steps(adata, asked.encoder, options, expression_view=view)
        yield from reported(read, f"reading cells by {asked.encoder.replace('_', ' ')}")
        box.workspace.note_written(file.name, key)
    facts = {
        "file": file.name,
        "n_cells": adata.n_obs,
        "encoder": asked.encoder,
        "text_encoder": "" if asked.encoder == "expression" else name_of(options.text_encoder),
        "key": key,
        "width": adata.obsm[key].shape[1],
        "saw": SEEN[asked.encoder],
    }
    return Result("embed", facts, file=file.name)


@tool(Select, "Keep chosen cells: they are 'these cells' from now on.")
def select(box: Toolbox, asked: Select) -> Steps:
    """Choose cells and say what is known of them."""
    found = yield from chosen(box, asked.cells)
    selection = Selection(asked.name or found.name, found.file, found.rows)
    if len(found.rows) == box.workspace.require(found.file).adata.n_obs and not asked.name:
        box.workspace.use(found.file)
        box.workspace.point_at("")
    else:
        selection = box.workspace.select(selection)
    file = box.workspace.require(selection.file)
    facts: dict[str, Any] = {**about(selection), "n_all": file.adata.n_obs, "share": len(selection) / file.adata.n_obs}
    tables = {}
    if tools.CELL_TYPE in box.workspace.written(file.name):
        table = yield from annotated(box, file)
        counts = (
            table["cell_type"].iloc[selection.rows].value_counts().rename_axis("cell_type").reset_index(name="cells")
        )
        facts["types"] = counts
        tables["cell types"] = counts
    tables["chosen cells"] = listed(file, selection)
    return Result("select", facts, tables=tables, file=file.name, selection=selection)


@tool(Map, "Draw the map of all cells, coloured by the cell types, a column of obs, the clusters or a gene.")
def draw_map(box: Toolbox, asked: Map) -> Steps:
    """A figure of the embedding."""
    file = box.workspace.require(asked.file)
    adata, colour = file.adata, asked.colour or tools.CELL_TYPE
    if colour == tools.CELL_TYPE:
        yield from annotated(box, file)
    elif colour in ("cluster", "clusters", OWN_CLUSTERS):
        yield from clusters_of(box, file)
        colour = cluster_column(adata.obs) or OWN_CLUSTERS
    if tools.EMBEDDING not in adata.obsm or not {tools.EMBEDDING, tools.CELL_TYPE} & box.workspace.written(file.name):
        yield from reported(tools.embed_steps(adata, checkpoint=box.checkpoint, report=file.report), "embedding cells")
        box.workspace.note_written(file.name, tools.EMBEDDING)
    shown = yield from chosen(box, asked.cells)
    if len(shown.rows) < adata.n_obs and shown.file == file.name:
        draw, facts = _among_the_others(file, shown)
    else:
        draw, facts = _coloured(file, colour)
    facts = {"file": file.name, "n_cells": adata.n_obs, **facts}
    return Result("draw_map", facts, figures={"map": draw}, file=file.name)


@tool(UseFile, "Talk about another of the loaded files from now on.")
def use_file(box: Toolbox, asked: UseFile) -> Steps:
    """Make a file the current one."""
    file = box.workspace.use(asked.file)
    facts = {
        "file": file.name,
        "n_cells": file.adata.n_obs,
        "n_genes": file.report.n_genes,
        "files": list(box.workspace.files),
    }
    return Result("use_file", facts, tables={"dataset": card(file)}, file=file.name)
    yield


@tool(
    UseFile,
    "Close a loaded file: its cells, selections and results are forgotten, which no undo brings back.",
    logged=False,
)
def close_file(box: Toolbox, asked: UseFile) -> Steps:
    """Make room; what is written about other files stays."""
    box.workspace.remove(asked.file)
    current = box.workspace.file
    facts = {
        "closed": asked.file,
        "file": "" if current is None else current.name,
        "n_cells": 0 if current is None else current.adata.n_obs,
        "files": list(box.workspace.files),
    }
    return Result("close_file", facts, file=box.workspace.state.current)
    yield


def listed(file: DataFile, selection: Selection) -> pd.DataFrame:
    """Chosen cells by name, with their first columns of obs and what was found of them."""
    obs = file.adata.obs
    found = [name for name in (tools.CELL_TYPE, tools.CONFIDENCE) if name in obs]
    own = [name for name in obs.columns if not str(name).startswith("instructcell_")][:COLUMNS_LISTED]
    return obs.iloc[selection.rows][[*found, *own]].rename_axis("cell").reset_index()


def card(file: DataFile) -> pd.DataFrame:
    """The doctor's report as a table of two columns."""
    report = file.report
    shown = {
        "cells": f"{report.n_cells:,}",
        "genes": f"{report.n_genes:,}",
        "species": report.species,
        "gene names": report.id_type,
        "matrix": f"{report.matrix} ({report.scale})",
        "model genes measured": f"{report.n_shared_genes or 0:,} ({percent(report.coverage or 0.0)})",
    }
    return pd.DataFrame({"property": list(shown), "value": list(shown.values())})


def opened(file: DataFile) -> Result:
    """What is said of a file that was just opened, to a program that opened it."""
    facts = {
        "file": file.name,
        "n_cells": file.adata.n_obs,
        "n_genes": file.report.n_genes,
        "report": file.report.to_markdown(),
    }
    return Result("open_file", facts, tables={"dataset": card(file)}, file=file.name)


def groupings(obs: pd.DataFrame) -> dict[str, pd.Series]:
    """Columns that sort the cells into groups, as text."""
    found = {}
    for column in obs.columns:
        values = obs[column]
        whole = pd.api.types.is_integer_dtype(values) or isinstance(values.dtype, pd.CategoricalDtype)
        texts = pd.api.types.is_object_dtype(values) or pd.api.types.is_string_dtype(values)
        if not str(column).startswith("instructcell_") and (whole or texts) and 1 < values.nunique() <= MOST_VALUES:
            found[str(column)] = values.astype(str)
    return found


def histogram(values: pd.Series, title: str) -> Figure:
    """Bars of a number over the cells."""
    figure = Figure()
    figure.add_histogram(x=values.to_numpy(float), marker_color="#4477aa", nbinsx=40)
    figure.update_layout(template="plotly_white", height=340, margin={"l": 10, "r": 10, "t": 10, "b": 10})
    figure.update_xaxes(title=title)
    figure.update_yaxes(title="cells")
    return figure


def _column(values: pd.Series) -> dict[str, Any]:
    n = int(values.nunique())
    if pd.api.types.is_numeric_dtype(values) and not pd.api.types.is_bool_dtype(values) and n > 2 * VALUES_SHOWN:
        return {"name": str(values.name), "n_values": n, "least": float(values.min()), "most": float(values.max())}
    top = values.astype(str).value_counts().head(VALUES_SHOWN)
    return {"name": str(values.name), "n_values": n, "top": {str(name): int(count) for name, count in top.items()}}


def _with_types(table: pd.DataFrame, obs: pd.DataFrame) -> pd.DataFrame:
    """The clusters' table with the commonest type of each and its share."""
    types = obs[tools.CELL_TYPE].astype(str).groupby(obs[OWN_CLUSTERS].astype(str).to_numpy())
    first = types.agg(lambda names: names.value_counts().index[0])
    share = types.agg(lambda names: float(names.value_counts(normalize=True).iloc[0]))
    names = table["cluster"].astype(str)
    return table.assign(mostly=names.map(first), share_of_cluster=names.map(share))


def _among_the_others(file: DataFile, shown: Selection) -> tuple[Callable[[], Figure], dict[str, Any]]:
    """The map with chosen cells in front of the others."""
    values = np.full(file.adata.n_obs, "other cells", dtype=object)
    values[shown.rows] = shown.name

    def draw() -> Figure:
        positions = pl.map_positions(file.adata)
        return pl.scatter(positions, pd.Series(values), names=file.adata.obs_names, title="chosen cells")

    return draw, {"coloured_by": shown.name, "cells": shown.name, "n_shown": len(shown.rows)}


def _coloured(file: DataFile, colour: str) -> tuple[Callable[[], Figure], dict[str, Any]]:
    """How the map is drawn, and by what it is coloured: a column of obs or a gene."""
    adata = file.adata
    if colour in adata.obs:
        return lambda: pl.umap(adata, color=colour), {"coloured_by": colour}
    from instructcell.analysis import measured_cells

    cells = measured_cells(adata, file.report)
    found = cells.find(load_name_book().gene(colour) or colour)
    values = np.asarray(cells.log_expression[:, found.columns[0]].todense()).ravel()

    def draw() -> Figure:
        return pl.scatter(pl.map_positions(adata), pd.Series(values), names=adata.obs_names, title=found.genes[0])

    return draw, {"coloured_by": found.genes[0]}
