"""Small pieces of HTML: the card of the loaded data and the line that says what is being done; values are escaped."""

from __future__ import annotations

from html import escape
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from instructcell.doctor import DatasetReport

SCALES = {
    "counts": "Raw counts", "log1p": "Log-normalised", "linear": "Not counts, linear", "scaled": "Scaled",
    "sqrt": "Square root", "asinh": "Arcsinh",
}  # fmt: skip
IDS = {
    "symbol": "symbols", "ensembl": "Ensembl ids", "entrez": "Entrez ids", "alias": "older names",
    "mixed": "names of several kinds", "number": "numbers",
}  # fmt: skip
NO_CELLS = "No cells yet. Upload a file or try an example; questions about markers and genes work without."
LOW_COVERAGE = 0.6  # share of the cells' counts in genes of the model below which the card colours it as a warning


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
        return f'<div class="ic-card ic-empty">{NO_CELLS}</div>'
    facts = [
        ("Cells", f"{report.n_cells:,}", "" if report.technology == "unknown" else report.technology),
        ("Genes", f"{report.n_genes:,}", IDS.get(report.id_type, report.id_type)),
        ("Species", str(report.species).capitalize(), ""),
        ("Values", SCALES.get(report.scale, report.scale), _matrix(report)),
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
    return f'<div class="ic-status" role="status"><span>{escape(what[:1].upper() + what[1:])} {share}</span>{bar}</div>'


def note_line(text: str) -> str:
    """Return the line under the chat for something that is said once and is no part of the conversation."""
    return f'<div class="ic-status" role="status"><span>{escape(text[:1].upper() + text[1:])}</span></div>'


def _coverage(report: DatasetReport) -> str:
    if report.coverage is None:
        return ""
    counts = report.coverage if report.counts_coverage is None else report.counts_coverage
    level = " ic-low" if counts < LOW_COVERAGE else ""
    return (
        f'<div class="ic-coverage{level}"><div><span>Model genes in this file</span><b>{report.coverage:.0%}</b></div>'
        f'<span class="ic-bar"><i style="width:{min(report.coverage, 1):.0%}"></i></span>'
        f"<small>{counts:.0%} of the cells' counts lie in them</small></div>"
    )


def _matrix(report: DatasetReport) -> str:
    exact = report.scale_detail.exactness if report.counts_recovered else ""
    return f"in {report.matrix}" + (f", counts recovered ({exact})" if exact else "")


def _small(note: str) -> str:
    return f"<small>{escape(note)}</small>" if note else ""
