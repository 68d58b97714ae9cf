"""Figures of a session made to fit the page: no background of their own, room for the drawing, a legend below."""

from __future__ import annotations

from plotly.graph_objects import Figure

HEIGHT_PX = 330  # of the drawing, without its legend
LEGEND_ROW_PX = 19
SHORT_NAME = 22  # characters; two names of this length stand side by side in a legend


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
    fitted.update_layout(legend={"maxheight": 1, "traceorder": "normal"})
    fitted.update_xaxes(gridcolor="rgba(128,140,160,.22)", zeroline=False, automargin=True)
    fitted.update_yaxes(gridcolor="rgba(128,140,160,.22)", zeroline=False, automargin=True)
    return fitted


def _legend_rows(figure: Figure) -> int:
    """How many rows the legend takes on the page's panel."""
    names = [str(trace.name) for trace in figure.data if trace.name and trace.showlegend is not False]
    if len(names) < 2 or figure.layout.showlegend is False:
        return 0
    return len(names) if max(map(len, names)) > SHORT_NAME else -(-len(names) // 2)
