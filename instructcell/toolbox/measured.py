"""Tools that read expression as it was measured: who expresses a gene, what differs, why a type, how real."""

from __future__ import annotations

from collections.abc import Generator
from typing import Any

import numpy as np
import pandas as pd
from anndata import AnnData
from plotly.graph_objects import Figure, Scattergl

from instructcell import analysis, pl, tools
from instructcell.analysis.likelihood import PER
from instructcell.errors import InstructCellError
from instructcell.events import Progress
from instructcell.layout import map_cells
from instructcell.retrieval.names import load_name_book
from instructcell.toolbox.arguments import Compare, Explain, Expression, FindByGene, FindByText, OfCells
from instructcell.toolbox.cells import OWN_CLUSTERS, chosen, clusters_of, mask_of
from instructcell.toolbox.core import Steps, Toolbox, tool
from instructcell.toolbox.types import about, annotated, grouped_by, most_frequent_type, rival_of, type_asked
from instructcell.workspace import DataFile, Result, Selection

LEAST_CELLS = 3  # of a group that is compared
MOST_GROUPS = 40
GENES_TOLD = 8  # of each direction of a comparison
REST = "all other cells"
UNIT = "log(1 + counts per 10,000)"


@tool(Explain, "Why cells were called so, or why not another type: genes for and against, and the runner-up.")
def explain(box: Toolbox, asked: Explain) -> Steps:
    """Attribution through the encoder, crossed with the markers of the two labels."""
    selection = yield from chosen(box, asked.cells)
    file = box.workspace.require(selection.file)
    label = yield from most_frequent_type(box, selection)
    types = (yield from annotated(box, file))["cell_type"].iloc[selection.rows]
    rows = selection.rows[(types == label).to_numpy()]
    against = rival_of(box, file, asked.why_not, label, rows) if asked.why_not else None
    found = analysis.explain(
        file.adata, rows, checkpoint=box.checkpoint, label=label, runner_up=against or None, report=file.report
    )
    facts = {
        **about(selection),
        "label": found.label,
        "n_called": len(rows),
        "n_read": len(found.rows),
        "runner_up": found.runner_up,
        "asked_against": asked.why_not and type_asked(box, asked.why_not),
        "already": against == "",  # the cells are called what was held against them
        "probability": found.probability,
        "runner_up_probability": found.runner_up_probability,
        "log_odds": found.log_odds,
        "likelihood_ratio": found.likelihood_ratio,
        "per_counts": PER,
        **{role: _genes(found.table, role) for role in ("supports", "contradicts", "absent", "missing")},
        "sentence": found.sentence(4),
    }
    sides = [
        f"{name}: {side.sentence(4)}"
        for name, side in ((found.label, found.evidence), (found.runner_up, found.counter_evidence))
        if side is not None
    ]
    return Result(
        "explain",
        facts,
        tables={"genes for and against": found.table},
        sources=tuple(dict.fromkeys(str(source) for source in found.table["source"] if source)),
        notes=(found.sentence(4), *sides),
        file=file.name,
        selection=selection,
        payload=found,
    )


@tool(FindByText, "Find cells by what they are like: 'cytotoxic T cells', 'cells that secrete insulin'.")
def find_by_text(box: Toolbox, asked: FindByText) -> Steps:
    """The cells that fit are 'these cells' afterwards."""
    selection = yield from chosen(box, asked.cells)
    file = box.workspace.use(selection.file)
    yield from annotated(box, file)
    found = analysis.find_by_text(file.adata, asked.text, rows=selection.rows, report=file.report)
    return _found(box, file, selection, found, f"cells found by '{asked.text}'", asked.n)


@tool(FindByGene, "Find the cells that express a gene.")
def find_by_gene(box: Toolbox, asked: FindByGene) -> Steps:
    """The cells that fit are 'these cells' afterwards."""
    selection = yield from chosen(box, asked.cells)
    file = box.workspace.use(selection.file)
    found = analysis.find_by_gene(file.adata, asked.gene, rows=selection.rows, report=file.report)
    return _found(box, file, selection, found, f"cells that express {asked.gene}", None)


@tool(Expression, "How many cells express genes and how much, for each cell type or another group.")
def expression(box: Toolbox, asked: Expression) -> Steps:
    """Shares and means over the chosen cells, and by group."""
    selection = yield from chosen(box, asked.cells)
    file = box.workspace.require(selection.file)
    by = asked.by or (tools.CELL_TYPE if tools.CELL_TYPE in box.workspace.written(file.name) else None)
    if by == tools.CELL_TYPE:
        yield from annotated(box, file)
    elif by == OWN_CLUSTERS:
        yield from clusters_of(box, file)
    genes, rows = list(asked.genes), selection.rows
    whole = analysis.expression(file.adata, genes, rows=rows, report=file.report)
    grouped = whole if by is None else analysis.expression(file.adata, genes, by=by, rows=rows, report=file.report)
    facts = {
        **about(selection),
        "genes": whole.table.drop(columns="group"),
        "by": by or "",
        "groups": [] if by is None else grouped.table,
        "not_measured": list(whole.not_measured),
        "unknown": {name: list(near) for name, near in (whole.unknown or {}).items()},
        "read_as": whole.read_as,
        "own_names": _own_names(file, [str(gene) for gene in whole.table["gene"].unique()]),
        "unit": UNIT,
    }
    figures = {} if by is None else {"expression": lambda: dots(grouped.table)}
    return Result("expression", facts, {"expression": grouped.table}, figures, file=file.name, selection=selection)


def _own_names(file: DataFile, genes: list[str]) -> dict[str, list[str]]:
    """How a mouse file calls genes that are told by their human symbols: {"INS": ["Ins1", "Ins2"]}."""
    if file.report.species != "mouse":
        return {}
    names = [
        name for name, human in load_name_book().orthologs.items() if human in genes and name in file.adata.var_names
    ]
    return {gene: sorted(name for name in names if load_name_book().orthologs[name] == gene) for gene in genes}


@tool(Compare, "Compare two groups of cells: genes that differ, and the cell types these genes point to.")
def compare(box: Toolbox, asked: Compare) -> Steps:
    """A rank test of every gene; the second group is all other cells by default."""
    first = yield from chosen(box, asked.cells)
    file = box.workspace.require(first.file)
    if asked.by:
        return (yield from _each_group(box, file, first, asked))
    if asked.against is not None:
        second = yield from chosen(box, asked.against)
    else:
        second = Selection(REST, file.name, np.flatnonzero(~mask_of(first.rows, file.adata.n_obs)))
    if len(second.rows) == 0:
        raise InstructCellError("all cells are one group; name two groups, such as 'compare B cells with T cells'")
    if shared := len(np.intersect1d(first.rows, second.rows)):
        raise InstructCellError(f"{shared:,} cells are in both {first.name} and {second.name}; name two other groups")
    names = (first.name, second.name)
    found = analysis.compare(file.adata, first.rows, second.rows, names=names, report=file.report)
    shown = pd.concat([found.top(name, asked.n_genes) for name in names], ignore_index=True)
    facts = {
        "file": file.name,
        "n_cells": found.n_a + found.n_b,
        "groups": [{"name": name, "cells": n} for name, n in zip(names, (found.n_a, found.n_b), strict=True)],
        "n_significant": found.n_significant,
        "n_tested": found.tested,
        "test": found.method,
        "higher": {name: _differing(found.top(name, GENES_TOLD)) for name in names},
        "types": found.types,
        **_of_asked_genes(found, asked.genes),
    }
    tables = {"genes that differ": shown, "what they mean": found.meaning}
    if not len(shown):
        tables["groups compared"] = pd.DataFrame(facts["groups"]).assign(genes_tested=found.tested)
    return Result(
        "compare",
        facts,
        tables={name: table for name, table in tables.items() if len(table)},
        figures={"genes that differ": lambda: bars(shown)} if len(shown) else {},
        sources=tuple(dict.fromkeys(map(str, (*found.meaning["source"], *found.types["source"])))),
        notes=tuple(map(str, found.meaning["says"])),
        file=file.name,
        selection=first,
        payload=found,
    )


def _of_asked_genes(found: analysis.Comparison, genes: tuple[str, ...]) -> dict[str, Any]:
    """What the comparison says of genes that were asked about; those too rare for the test are named."""
    if not genes:
        return {}
    rows = found.table[found.table["gene"].isin(genes)]
    columns = ["gene", "higher_in", "log2_fold_change", "p_adjusted", "significant", "share_a", "share_b"]
    return {"asked": rows[columns], "not_tested": [gene for gene in genes if gene not in set(rows["gene"])]}


def _each_group(box: Toolbox, file: DataFile, among: Selection, asked: Compare) -> Generator[Progress, None, Result]:
    """The clearest genes of every group of a column, each group held against all the others."""
    values = (yield from grouped_by(box, file, asked.by)).iloc[among.rows].to_numpy()
    names = sorted(set(values) - {""}, key=lambda text: (len(text), text))
    sizes = {name: int((values == name).sum()) for name in names}
    tested = [name for name in names if LEAST_CELLS <= sizes[name] <= len(values) - LEAST_CELLS]
    if not 1 <= len(tested) <= MOST_GROUPS:
        raise InstructCellError(
            f"found {len(tested)} groups of at least {LEAST_CELLS} cells in '{asked.by}', expected 1 to {MOST_GROUPS}; "
            "name two groups instead"
        )
    parts, groups = [], []
    for at, name in enumerate(tested):
        yield Progress(at, len(tested), "comparing groups")
        inside = values == name
        found = analysis.compare(
            file.adata, among.rows[inside], among.rows[~inside], names=(name, REST), report=file.report
        )
        top = found.top(name, asked.n_genes)
        parts.append(top.assign(group=name))
        row = {"group": name, "cells": sizes[name], "n_higher": int((found.table["higher_in"] == name).sum())}
        groups.append({**row, "genes": _differing(top.head(GENES_TOLD)), **_of_asked_genes(found, asked.genes)})
    yield Progress(len(tested), len(tested), "comparing groups")
    table = pd.concat(parts, ignore_index=True)
    facts = {
        **about(among),
        "by": asked.by,
        "each": groups,
        "too_small": [name for name in names if name not in tested],
        "test": found.method,
    }
    tables = {"genes of each group": table} if len(table) else {}
    return Result("compare", facts, tables=tables, file=file.name, selection=among)


def realness(box: Toolbox, pseudo: AnnData, asked: OfCells) -> Steps:
    """Pseudo-cells beside the real cells that were called so."""
    selection = yield from chosen(box, asked.cells)
    file = box.workspace.require(selection.file)
    types = (yield from annotated(box, file))["cell_type"].iloc[selection.rows]
    real = file.adata if len(selection.rows) == file.adata.n_obs else file.adata[selection.rows]
    cell_type = str(pseudo.obs["cell_type"].iloc[0])
    facts: dict[str, Any] = {
        **about(selection),
        "cell_type": cell_type,
        "n_generated": pseudo.n_obs,
        "n_real": int((types == cell_type).sum()),
    }
    figures = {"generated over real": lambda: overlay(box, file, pseudo)}
    try:
        found = analysis.compare_with_real(pseudo, real, real_types=types.to_numpy(), report=file.report)
    except InstructCellError as error:  # too few real cells of the type: the map can still be drawn
        facts["not_compared"] = str(error)
        return Result("compare_with_real", facts, figures=figures, file=file.name, selection=selection)
    row = found.table.iloc[0]
    facts |= {name: row[name] for name in found.table.columns if name != "cell_type"}
    facts |= {"variance_correlation": found.variance_correlation, "n_genes": found.n_genes}
    tables = {"generated and real": found.table}
    return Result("compare_with_real", facts, tables, figures, file=file.name, selection=selection, payload=found)


def overlay(box: Toolbox, file: DataFile, pseudo: AnnData) -> Figure:
    """Real cells by type with the pseudo-cells over them, on one map of the embedding."""
    if tools.EMBEDDING not in file.adata.obsm:
        tools.finish(tools.embed_steps(file.adata, checkpoint=box.checkpoint, report=file.report))
    drawn = tools.embed(pseudo.copy(), checkpoint=box.checkpoint)
    both = np.vstack([np.asarray(file.adata.obsm[tools.EMBEDDING]), np.asarray(drawn)])
    positions, n = map_cells(both, seed=0), file.adata.n_obs
    types = file.adata.obs[tools.CELL_TYPE].astype(str)
    figure = pl.scatter(positions[:n], types, names=file.adata.obs_names, title="real cells")
    figure.update_traces(opacity=0.45)
    figure.add_trace(
        Scattergl(
            x=positions[n:, 0],
            y=positions[n:, 1],
            mode="markers",
            name=f"generated {pseudo.obs['cell_type'].iloc[0]} ({pseudo.n_obs:,})",
            text=pseudo.obs_names,
            marker={"size": 7, "symbol": "x", "color": "#d4482c"},
            hovertemplate="%{text}<extra>generated</extra>",
        )
    )
    return figure


def dots(table: pd.DataFrame) -> Figure:
    """Dot plot of expression: the size of a dot is the share of cells, its colour the mean."""
    share, groups = table["share_of_cells"].to_numpy(float), table["group"].astype(str)
    colour = {"color": table["mean"].to_numpy(float), "colorscale": "Blues", "colorbar": {"title": "mean"}}
    figure = Figure()
    figure.add_scatter(
        x=table["gene"],
        y=groups,
        mode="markers",
        marker={"size": 5 + 20 * share, "line": {"width": 1, "color": "#555"}, **colour},
        customdata=share,
        hovertemplate="%{x} in %{y}<br>%{customdata:.0%} of the cells<extra></extra>",
    )
    return _laid_out(figure, groups.nunique(), 28)


def bars(table: pd.DataFrame) -> Figure:
    """Log2 fold changes of the genes that differ most."""
    figure = Figure()
    for name, rows in table.groupby("higher_in", sort=False):
        figure.add_bar(x=rows["log2_fold_change"], y=rows["gene"], orientation="h", name=f"higher in {name}")
    figure.update_xaxes(title="log2 fold change")
    return _laid_out(figure, len(table), 18)


def _laid_out(figure: Figure, n: int, each: int) -> Figure:
    figure.update_yaxes(autorange="reversed", automargin=True)
    margin = {"l": 10, "r": 10, "t": 10, "b": 10}
    figure.update_layout(template="plotly_white", height=max(260, 90 + each * n), margin=margin)
    return figure


def _genes(table: pd.DataFrame, role: str) -> list[dict[str, Any]]:
    rows = table[table["role"] == role]
    columns = zip(rows["gene"], rows["share_of_cells"], rows["marks"], strict=True)
    return [{"gene": str(gene), "share": float(share), "marks": str(marks)} for gene, share, marks in columns]


def _differing(table: pd.DataFrame) -> list[dict[str, Any]]:
    columns = ["gene", "log2_fold_change", "p_adjusted", "share_a", "share_b"]
    return [dict(zip(columns, row, strict=True)) for row in table[columns].itertuples(index=False)]


def _found(box: Toolbox, file: DataFile, among: Selection, found: analysis.Found, name: str, n: int | None) -> Result:
    """Found cells as a result; they are kept as a selection unless there are none."""
    rows = np.sort(np.asarray(found.rows if n is None else found.rows[:n], dtype=np.int64))
    facts: dict[str, Any] = {
        "file": file.name,
        "cells": name,
        "among": among.name,
        "n_among": len(among.rows),
        "asked": found.asked,
        "n_cells": len(rows),
        "share": len(rows) / len(among.rows),
        "read_as": found.read_as.head(5),
        "how": found.how,
        "not_measured": list(found.not_measured),
    }
    if len(rows) == 0:
        return Result("find", facts, file=file.name)
    selection = box.workspace.select(Selection(name, file.name, rows))
    if tools.CELL_TYPE in box.workspace.written(file.name):
        types = file.adata.obs[tools.CELL_TYPE].astype(str).iloc[rows]
        facts["types"] = types.value_counts().rename_axis("cell_type").reset_index(name="cells")
    table = found.table.rename_axis("cell").reset_index()
    table = table[table["chosen"]].drop(columns="chosen").sort_values("score", ascending=False)
    sources = tuple(dict.fromkeys(str(source) for source in found.read_as["source"] if source))
    tables = {"cells found": table, "read as": found.read_as}
    return Result("find", facts, tables, sources=sources, file=file.name, selection=selection, payload=found)
