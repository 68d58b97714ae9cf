"""Small pieces of HTML: the card of the loaded data and the line that says what is being done. All values are escaped."""

from __future__ import annotations

from html import escape
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from instructcell.cells import DatasetReport

SCALES = {"counts": "raw counts", "log1p": "log-normalised", "linear": "linear, not counts", "scaled": "scaled"}
LOW_COVERAGE = 0.3  # below it the card colours the coverage as a warning


def dataset_card(report: DatasetReport | None, name: str) -> str:
    """Return the card of a file: cells, genes, species, gene coverage, matrix and scale, and what to know about it.

    Parameters
    ----------
    report
        What `instructcell.inspect` found; None while nothing is loaded.
    name
        The file's name.
    """
    if report is None:
        return '<div class="ic-card ic-empty">No cells yet. Upload a file or try an example; questions about markers and genes work without.</div>'
    facts = [
        ("Cells", f"{report.n_cells:,}", ""),
        ("Genes", f"{report.n_genes:,}", ""),
        ("Species", str(report.species).capitalize(), ""),
        ("Scale", SCALES.get(report.scale, report.scale), report.matrix),
    ]
    cells = "".join(
        f"<div><dt>{escape(term)}</dt><dd>{escape(value)}{_small(note)}</dd></div>" for term, value, note in facts
    )
    warnings = "".join(f"<li>{escape(str(warning))}</li>" for warning in report.warnings)
    return (
        f'<div class="ic-card"><div class="ic-file" title="{escape(name)}">{escape(name)}</div><dl>{cells}</dl>'
        f"{_coverage(report)}{f'<ul>{warnings}</ul>' if warnings else ''}</div>"
    )


def status_line(what: str, done: int = 0, total: int = 0) -> str:
    """Return the line under the chat: `what` is being done and, when known, how far it is."""
    share = f"{min(done / total, 1):.0%}" if total else ""
    bar = f'<span class="ic-bar"><i style="width:{share}"></i></span>' if total else '<span class="ic-dots"></span>'
    return f'<div class="ic-status" role="status"><span>{escape(what.capitalize())} {share}</span>{bar}</div>'


def _coverage(report: DatasetReport) -> str:
    level = " ic-low" if report.coverage < LOW_COVERAGE else ""
    return (
        f'<div class="ic-coverage{level}"><div><span>Model genes in this file</span><b>{report.coverage:.0%}</b></div>'
        f'<span class="ic-bar"><i style="width:{min(report.coverage, 1):.0%}"></i></span></div>'
    )


def _small(note: str) -> str:
    return f"<small>{escape(note)}</small>" if note else ""
