"""A conversation as one HTML file that opens anywhere, without a network: questions, answers, tables, figures, sources.

Figures stay interactive: plotly.js stands once in the file. What users typed and what their files say is text there:
answers are read as Markdown without HTML, links and pictures.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from html import escape
from typing import TYPE_CHECKING

import pandas as pd
from plotly.graph_objects import Figure

from instructcell import __version__
from instructcell.events import CellsGenerated, Failed, FigureReady, FilesReady, TableReady

if TYPE_CHECKING:
    from markdown_it import MarkdownIt

    from instructcell.session import Turn

MOST_ROWS = 200  # of a table; the exported .csv has all
DECIMALS = 3
# The camera above a figure saves it as a drawing that can be enlarged; no button sends it to plotly's servers.
FIGURE_CONFIG = {
    "displaylogo": False,
    "responsive": True,
    "toImageButtonOptions": {"format": "svg"},
    "modeBarButtonsToRemove": ["sendChartToCloud", "sendDataToCloud"],
}

PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title}</title>
<style>
:root {{ color-scheme: light; font: 16px/1.5 system-ui, sans-serif; color: #1c2733; background: #f6f8fa; }}
body {{ max-width: 900px; margin: 0 auto; padding: 24px 16px 64px; }}
header p, footer, .sources, .note {{ color: #56657a; font-size: .9rem; }}
.question {{ margin: 32px 0 12px auto; width: fit-content; max-width: 85%; padding: 8px 14px; border-radius: 12px;
  background: #c9f5ea; white-space: pre-wrap; overflow-wrap: anywhere; }}
.answer {{ padding: 12px 18px; border-radius: 12px; background: #fff; border: 1px solid #e2e8f0;
  overflow-wrap: anywhere; }}
figure {{ margin: 16px 0; padding: 8px; background: #fff; border: 1px solid #e2e8f0; border-radius: 12px; }}
figcaption, caption {{ text-align: left; font-weight: 600; padding: 4px 6px; }}
.table {{ overflow-x: auto; }}
table {{ border-collapse: collapse; font-size: .85rem; }}
th, td {{ padding: 4px 10px; border-bottom: 1px solid #e2e8f0; text-align: left; }}
</style>{script}</head><body>
<header><h1>{title}</h1><p>{about}</p></header>
<main>
{turns}
</main>
</body></html>
"""


def conversation_html(turns: Sequence[Turn], about: str, standing: Collection[str] = ()) -> str:
    """A conversation as a web page.

    Parameters
    ----------
    turns
        The turns; those without an answer are left out.
    about
        What the conversation was about, as text.
    standing
        Ids of the results that were not taken back; what came with others is marked.

    Returns
    -------
    str
        The page's source; "" when nothing was answered yet.
    """
    markdown = plain_markdown()
    told = [turn for turn in turns if turn.answer or turn.events]
    if not told:
        return ""
    figures = any(isinstance(event, FigureReady) for turn in told for event in turn.events)
    return PAGE.format(
        title="A conversation with InstructCell",
        about=escape(f"{about} InstructCell {__version__}."),
        script=plotly_script() if figures else "",
        turns="\n".join(_turn_html(turn, markdown, standing) for turn in told),
    )


def figures_html(figures: Sequence[tuple[str, Figure]]) -> str:
    """Figures, each with its name, as a web page."""
    return PAGE.format(
        title="Figures of InstructCell",
        about=escape(f"InstructCell {__version__}. The camera above a figure saves it as .svg."),
        script=plotly_script(),
        turns="\n".join(_figure_html(name, figure) for name, figure in figures),
    )


def plotly_script() -> str:
    """plotly.js, inline."""
    from plotly.offline import get_plotlyjs

    return f"<script>{get_plotlyjs()}</script>"


def plain_markdown() -> MarkdownIt:
    """A reader of Markdown for which HTML, links and pictures are text."""
    from markdown_it import MarkdownIt

    return MarkdownIt("commonmark", {"html": False}).enable("table").disable(["link", "image", "autolink", "reference"])


def _turn_html(turn: Turn, markdown: MarkdownIt, standing: Collection[str]) -> str:
    parts = [f'<div class="question">{escape(turn.question)}</div>']
    if turn.answer.strip():
        parts.append(f'<div class="answer">{markdown.render(turn.answer)}</div>')
    for event in turn.events:
        match event:
            case Failed(message, remedy):
                parts.append(f'<div class="answer">{escape(f"{message} {remedy}".strip())}</div>')
            case TableReady(name, table, evidence):
                parts.append(_table_html(_called(name, evidence, standing), table))
            case FigureReady(name, figure, evidence):
                parts.append(_figure_html(_called(name, evidence, standing), figure))
            case CellsGenerated(adata):
                parts.append(f'<p class="note">{adata.n_obs:,} pseudo-cells of {adata.n_vars:,} genes were made.</p>')
            case FilesReady(paths):
                parts.append(f'<p class="note">Handed out: {escape(", ".join(path.name for path in paths))}</p>')
    if sources := dict.fromkeys(source for result in turn.results for source in result.sources):
        parts.append(f'<p class="sources">Sources: {escape("; ".join(sources))}</p>')
    return "\n".join(parts)


def _called(name: str, evidence: str, standing: Collection[str]) -> str:
    """The heading of a table or figure: its name, its result, and whether that was taken back."""
    if not evidence:
        return name
    return f"{name} ({evidence})" if evidence in standing else f"{name} ({evidence}, taken back later)"


def _table_html(name: str, table: pd.DataFrame) -> str:
    shown = table.head(MOST_ROWS).round(DECIMALS)
    more = len(table) - len(shown)
    rest = f'<p class="note">and {more:,} more rows; the exported table has all</p>' if more else ""
    return (
        f'<figure><figcaption>{escape(name)}</figcaption><div class="table">'
        f"{shown.to_html(index=False, border=0, escape=True, na_rep='')}</div>{rest}</figure>"
    )


def _figure_html(name: str, figure: Figure) -> str:
    drawn = figure.to_html(full_html=False, include_plotlyjs=False, config=FIGURE_CONFIG, default_height="420px")
    return f"<figure><figcaption>{escape(name)}</figcaption>{drawn}</figure>"
