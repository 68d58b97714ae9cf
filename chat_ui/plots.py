"""Figures of a session made to fit the page: no background of their own, room for the drawing, a legend below."""

from __future__ import annotations

import re

from plotly.graph_objects import Figure

from instructcell.pl import CELLS

HEIGHT_PX = 330  # of the drawing, without its legend
LEGEND_ROW_PX = 19
SHORT_NAME = 30  # characters; two names of this length stand side by side in a legend
SIZE = re.compile(r" \([\d,]+\)$")  # how many cells a name in a legend stands for


def fit_page(figure: Figure) -> Figure:
    """Return a copy of `figure` that looks right on a light and on a dark page; the data are untouched.

    The style sheet colours the text; the picker above the figure shows its name, so the title goes. The legend stands
    below and gets the height it needs, so that many cell types do not squeeze the drawing.
    """
    fitted = Figure(figure)
    fitted.update_layout(
        title=None,
        template="none",
        paper_bgcolor="rgba(0,0,0,0)",
        plot_bgcolor="rgba(0,0,0,0)",
        height=max(figure.layout.height or 0, HEIGHT_PX + LEGEND_ROW_PX * _legend_rows(figure)),
        autosize=True,
        width=None,
        margin={"l": 12, "r": 12, "t": 28, "b": 12},
        modebar={"bgcolor": "rgba(0,0,0,0)", "color": "#8593a8", "activecolor": "#0f9c8a"},
        font={"family": "system-ui, sans-serif", "size": 12},
        legend={"orientation": "h", "yref": "container", "yanchor": "bottom", "y": 0, "x": 0, "title": None},
    )
    fitted.for_each_trace(lambda trace: trace.update(name=short_name(trace.name)) if trace.name else None)
    if has_cells(figure):
        fitted.update_layout(dragmode="lasso")
    fitted.update_layout(legend={"maxheight": 1, "traceorder": "normal"})
    fitted.update_xaxes(gridcolor="rgba(128,140,160,.22)", zeroline=False, automargin=True)
    fitted.update_yaxes(gridcolor="rgba(128,140,160,.22)", zeroline=False, automargin=True)
    return fitted


def has_cells(figure: Figure | None) -> bool:
    """Whether points of a figure are cells of the file, which can be marked and asked about."""
    return figure is not None and any(trace.meta == CELLS for trace in figure.data)


def short_name(name: str) -> str:
    """Return a name that leaves room for another beside it in the legend; how many cells it stands for stays.

    Hovering over a cell shows the whole name.
    """
    size = found[0] if (found := SIZE.search(name)) else ""
    bare = name.removesuffix(size)
    room = SHORT_NAME - len(size)
    return name if len(bare) <= room else f"{bare[: room - 1].rstrip()}…{size}"


def _legend_rows(figure: Figure) -> int:
    """How many rows the legend takes on the page's panel."""
    names = [trace.name for trace in figure.data if trace.name and trace.showlegend is not False]
    return 0 if len(names) < 2 or figure.layout.showlegend is False else -(-len(names) // 2)
