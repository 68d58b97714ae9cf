"""Figures of a session made to fit the page: no background of their own, room for the drawing, a legend below."""

from __future__ import annotations

from plotly.graph_objects import Figure

HEIGHT_PX = 400


def fit_page(figure: Figure) -> Figure:
    """Return a copy of `figure` that looks right on a light and on a dark page; the data are untouched.

    The style sheet colours the text; the picker above the figure shows its name, so the title goes.
    """
    fitted = Figure(figure)
    fitted.update_layout(
        title=None,
        template="none",
        paper_bgcolor="rgba(0,0,0,0)",
        plot_bgcolor="rgba(0,0,0,0)",
        height=figure.layout.height or HEIGHT_PX,
        autosize=True,
        width=None,
        margin={"l": 12, "r": 12, "t": 28, "b": 12},
        modebar={"bgcolor": "rgba(0,0,0,0)", "color": "#8593a8", "activecolor": "#0f9c8a"},
        font={"family": "system-ui, sans-serif", "size": 12},
        legend={"orientation": "h", "yref": "container", "yanchor": "bottom", "y": 0, "x": 0, "title": None},
    )
    fitted.update_xaxes(gridcolor="rgba(128,140,160,.22)", zeroline=False, automargin=True)
    fitted.update_yaxes(gridcolor="rgba(128,140,160,.22)", zeroline=False, automargin=True)
    return fitted
