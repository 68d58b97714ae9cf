"""Figures, scverse style: each function returns a plotly figure of what the tools wrote into an AnnData."""

from __future__ import annotations

import hashlib

import numpy as np
import pandas as pd
import plotly.graph_objects as go
from anndata import AnnData

from instructcell.errors import InstructCellError
from instructcell.layout import map_cells, principal_axes
from instructcell.tools import CELL_TYPE, CONFIDENCE, EMBEDDING, UNKNOWN, evidence_table

MAP = "X_instructcell_umap"
CELLS = "cells"  # what `meta` says of a trace whose points are cells of the file
GREY = "#b5b5b5"
PALETTE = (
    "#3b7dd8", "#e4572e", "#2e9e6b", "#a05fc4", "#e0a100", "#17a3b8", "#d6498f", "#7a8b2f", "#8c5a3c", "#5560c9",
    "#c23b22", "#4cb5ae", "#b8860b", "#6f4e9c", "#2f6f4f", "#f08a5d", "#1f4e79", "#a1c349", "#9b2335", "#7d7aa8",
)  # fmt: skip


def umap(
    adata: AnnData, *, color: str = CELL_TYPE, basis: str = EMBEDDING, layout: str = "umap", seed: int = 0
) -> go.Figure:
    """Map of the cells, coloured by a column of obs.

    Parameters
    ----------
    adata
        With obsm `X_instructcell` (run `ic.tl.annotate` or `ic.tl.embed` first); the map of it is kept in obsm
        `X_instructcell_umap` and used again as long as the embedding is the same.
    color
        Column of obs: a category or a number.
    layout
        "umap", or "pca" for the first two principal components at once.

    Examples
    --------
    >>> ic.pl.umap(adata, color="instructcell_confidence").show()
    """
    embedding = _need(adata.obsm, basis, "obsm", "run ic.tl.annotate(adata) or ic.tl.embed(adata) first")
    values = _need(adata.obs, color, "obs", "name a column of adata.obs")
    if layout == "pca":
        positions = principal_axes(np.asarray(embedding))
    elif layout == "umap":
        own = basis == EMBEDDING
        positions = map_positions(adata, seed=seed) if own else map_cells(np.asarray(embedding), seed=seed)
    else:
        raise InstructCellError(f"found layout='{layout}', expected 'umap' or 'pca'")
    return scatter(positions, values, names=adata.obs_names, confidence=adata.obs.get(CONFIDENCE), title=_title(color))


def scatter(
    positions: np.ndarray,
    values: pd.Series,
    *,
    names: pd.Index,
    confidence: pd.Series | None = None,
    title: str = "",
) -> go.Figure:
    """Cells at `positions` [N, 2] coloured by `values` [N]; hovering shows the name and the confidence.

    Traces of cells say so (meta `CELLS`) and have each cell's place in the file first in `customdata`.
    """
    figure = go.Figure()
    sure = np.full(len(names), np.nan) if confidence is None else np.asarray(confidence, dtype=float)
    size = float(np.clip(220 / np.sqrt(max(len(names), 1)), 3, 9))
    if pd.api.types.is_numeric_dtype(values) and not pd.api.types.is_bool_dtype(values):
        marker = {"size": size, "color": np.asarray(values, float), "colorscale": "Viridis"}
        marker["colorbar"] = {"title": title}
        x, y = positions[:, 0], positions[:, 1]
        places = np.arange(len(names))[:, None]
        figure.add_scattergl(
            x=x, y=y, mode="markers", text=names, marker=marker, name=title, customdata=places, meta=CELLS
        )
        figure.update_traces(hovertemplate="%{text}<br>%{marker.color:.2f}<extra></extra>")
        return _map_axes(figure, "")
    text = values.astype(str).to_numpy()
    for value, colour in colours(pd.Series(text)).items():
        chosen = np.flatnonzero(text == value)
        figure.add_scattergl(
            x=positions[chosen, 0],
            y=positions[chosen, 1],
            mode="markers",
            name=f"{value} ({len(chosen):,})",
            text=names[chosen],
            customdata=np.stack([chosen, sure[chosen]], axis=1),
            meta=CELLS,
            marker={"size": size, "color": colour, "opacity": 0.8},
            hovertemplate=f"{value}<br>%{{text}}<br>confidence %{{customdata[1]:.2f}}<extra></extra>",
        )
    return _map_axes(figure, title)


def map_positions(adata: AnnData, *, seed: int = 0) -> np.ndarray:
    """The map [N, 2] of `X_instructcell`: the one in obsm if its mark in uns says that it is of this embedding."""
    embedding = np.ascontiguousarray(adata.obsm[EMBEDDING], dtype=np.float32)
    mark = f"{hashlib.sha256(embedding.tobytes()).hexdigest()}, seed {seed}"
    if str(adata.uns.get(MAP, "")) != mark or np.shape(adata.obsm.get(MAP)) != (adata.n_obs, 2):
        adata.obsm[MAP], adata.uns[MAP] = map_cells(embedding, seed=seed), mark
    return np.asarray(adata.obsm[MAP])


def composition(adata: AnnData, *, color: str = CELL_TYPE, by: str | None = None) -> go.Figure:
    """Bars: how many cells of each type, the largest first; with `by` their shares in each group of that column.

    Examples
    --------
    >>> ic.pl.composition(adata).show()
    >>> ic.pl.composition(adata, by="condition").show()
    """
    values = _need(adata.obs, color, "obs", "run ic.tl.annotate(adata) first").astype(str)
    if by is not None:
        return _shares(values, _need(adata.obs, by, "obs", "name a column of adata.obs").astype(str), _title(by))
    counts = values.value_counts()
    palette = colours(values)
    shares = counts / len(values)
    figure = go.Figure(
        go.Bar(
            x=counts.to_numpy(),
            y=counts.index,
            orientation="h",
            marker_color=[palette[value] for value in counts.index],
            text=[f"{share:.1%}" for share in shares],
            hovertemplate="%{y}: %{x} cells (%{text})<extra></extra>",
        )
    )
    figure.update_yaxes(autorange="reversed", automargin=True)
    figure.update_xaxes(title="cells")
    return _plain(figure, _title(color), height=max(240, 60 + 26 * len(counts)))


def _shares(values: pd.Series, groups: pd.Series, title: str) -> go.Figure:
    """Stacked bars: of which types [N] the cells of each group [N] are, as shares."""
    counts = pd.crosstab(groups, values)
    counts = counts.loc[sorted(counts.index, key=lambda name: (len(name), name))]  # cluster 10 behind cluster 9
    shares = counts.div(counts.sum(axis=1), axis=0)
    palette = colours(values)
    figure = go.Figure(
        [
            go.Bar(
                name=value,
                x=shares[value].to_numpy(),
                y=shares.index,
                orientation="h",
                marker_color=colour,
                customdata=counts[value].to_numpy(),
                hovertemplate=f"{value} in %{{y}}: %{{x:.1%}} (%{{customdata}} cells)<extra></extra>",
            )
            for value, colour in palette.items()
        ]
    )
    figure.update_layout(barmode="stack", legend={"traceorder": "normal"})
    figure.update_yaxes(autorange="reversed", automargin=True, type="category")
    figure.update_xaxes(title="share of the cells", tickformat=".0%")
    return _plain(figure, title, height=max(260, 110 + 30 * len(shares)))


def confidence(adata: AnnData, *, by: str = CELL_TYPE, column: str = CONFIDENCE) -> go.Figure:
    """Histogram of the calibrated confidence, stacked by cell type.

    Examples
    --------
    >>> ic.pl.confidence(adata).show()
    """
    sure = _need(adata.obs, column, "obs", "run ic.tl.annotate(adata) first")
    kinds = _need(adata.obs, by, "obs", "name a column of adata.obs").astype(str)
    return probabilities(sure, kinds, title=_title(column))


def probabilities(
    values: pd.Series, by: pd.Series | None = None, *, title: str = "probability of being sensitive"
) -> go.Figure:
    """Histogram of probabilities 0..1, stacked by `by` [N] where it is given."""
    groups = pd.Series("cells", index=range(len(values))) if by is None else by.astype(str).reset_index(drop=True)
    figure = go.Figure()
    for value, colour in colours(groups).items():
        chosen = values.to_numpy(float)[(groups == value).to_numpy()]
        figure.add_histogram(
            x=chosen, name=value, marker_color=colour, xbins={"start": 0, "end": 1.0001, "size": 0.025}
        )
    figure.update_layout(barmode="stack", showlegend=by is not None)
    figure.update_xaxes(title=title, range=[0, 1])
    figure.update_yaxes(title="cells")
    return _plain(figure, "")


def evidence(
    adata: AnnData, *, n_types: int = 6, n_genes: int = 4, checkpoint: str = "mini", table: pd.DataFrame | None = None
) -> go.Figure:
    """Dot plot: the markers of each annotated type that its cells truly express.

    Parameters
    ----------
    n_types, n_genes
        So many of the largest types, and so many markers of each.
    table
        What `ic.tools.evidence_table` returned, to spare the work.

    Examples
    --------
    >>> ic.pl.evidence(adata).show()
    """
    if table is None:
        _need(adata.obs, CELL_TYPE, "obs", "run ic.tl.annotate(adata) first")
        table = evidence_table(adata, checkpoint=checkpoint, n_types=n_types, n_genes=n_genes)
    figure = go.Figure(
        go.Scatter(
            x=table["gene"],
            y=table["cell_type"],
            mode="markers",
            marker={
                "size": 6 + 20 * table["share_of_cells"].to_numpy(float),
                "color": table["mean"].to_numpy(float),
                "colorscale": "Blues",
                "colorbar": {"title": "mean"},
                "line": {"width": 1, "color": "#555"},
            },
            customdata=np.stack([table["share_of_cells"], table["source"].astype(str)], axis=1),
            hovertemplate="%{x} in %{y}<br>%{customdata[0]:.0%} of the cells<br>%{customdata[1]}<extra></extra>",
        )
    )
    figure.update_yaxes(autorange="reversed", automargin=True)
    return _plain(figure, "markers expressed in the cells", height=max(260, 90 + 40 * table["cell_type"].nunique()))


def colours(values: pd.Series) -> dict[str, str]:
    """One colour per category, the most frequent first; "unknown" is grey."""
    order = [value for value in values.astype(str).value_counts().index if value != UNKNOWN]
    palette = {value: PALETTE[i % len(PALETTE)] for i, value in enumerate(order)}
    if (values.astype(str) == UNKNOWN).any():
        palette[UNKNOWN] = GREY
    return palette


def _need(holder: object, key: str, where: str, remedy: str) -> pd.Series:
    if key not in holder:  # type: ignore[operator]
        raise InstructCellError(f"found no '{key}' in adata.{where}; {remedy}")
    return holder[key]  # type: ignore[index]


def _title(column: str) -> str:
    return column.removeprefix("instructcell_").replace("_", " ")


def _map_axes(figure: go.Figure, title: str) -> go.Figure:
    figure.update_xaxes(showticklabels=False, showgrid=False, zeroline=False, title="")
    figure.update_yaxes(showticklabels=False, showgrid=False, zeroline=False, title="", scaleanchor="x")
    figure.update_layout(legend={"title": title, "itemsizing": "constant"}, dragmode="pan")
    return _plain(figure, "", height=480)


def _plain(figure: go.Figure, title: str, *, height: int = 380) -> go.Figure:
    figure.update_layout(
        title=title or None,
        height=height,
        margin={"l": 10, "r": 10, "t": 40 if title else 10, "b": 10},
        template="plotly_white",
        paper_bgcolor="rgba(0,0,0,0)",
        plot_bgcolor="rgba(0,0,0,0)",
    )
    return figure
