"""The figures of the bulk-to-cell drug route as tables, for docs/drugs.md and docs/results.md."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from train.card import figure_text

START, END = "<!-- bulk figures: written by instructcell evaluate --tasks bulk -->", "<!-- end of the bulk figures -->"


def bulk_lines(found: dict[str, Any]) -> list[str]:
    """Markdown of one evaluation's `bulk`."""
    rows = []
    for key, what in (("by_line", "lines at random"), ("by_tissue", "whole tissues")):
        if key in found:
            part = found[key]
            rows.append(
                f"| {what} | {part['drugs']} | {figure_text(part['ours'])} | {figure_text(part['ridge'])} | "
                f"{_signed(part['gain'])} | {part['better']:.0%} | {part['above_0.35']:.0%} |"
            )
    head = "| held out | drugs | median Spearman per drug | ridge regression | median paired difference | drugs better than ridge | drugs >= 0.35 |"
    lines = [
        f"{found['lines']} cell lines, {found['drugs']} drugs, five folds; ridge regression has its penalty chosen per drug "
        "by leave-one-out. Brackets hold 95 % bootstrap intervals over drugs.",
        "",
        head,
        "|---|---|---|---|---|---|---|",
        *rows,
        "",
        *_named(found["by_line"]),
        *_new_drugs(found["new_drugs"]),
    ]
    return lines + (_cells(found["cells"]) if "cells" in found else [])


def _named(part: dict[str, Any]) -> list[str]:
    cells = [f"| {name} | {ours:.2f} | {ridge:.2f} |" for name, ours, ridge in part["named"]]
    return ["| drug | Spearman on held-out lines | ridge regression |", "|---|---|---|", *cells, ""] if cells else []


def _new_drugs(found: dict[str, Any]) -> list[str]:
    return [
        f"Drugs left out as well as lines, known only by structure (SMILES) and target ({found['drugs']} drugs): median "
        f"Spearman {found['described']:.3f}; the mean of all other drugs, which knows nothing of the drug, "
        f"{found['mean_of_all']:.3f}; the drug's own model {found['itself']:.3f}.",
        "",
    ]


def _cells(found: dict[str, Any]) -> list[str]:
    rows = [f"| {name} | {value:.2f} |" for name, value in found["lines"].items()]
    return [
        f"Single cells of {len(rows)} lines that neither the fit nor its correction of technology saw ({found['file']}), "
        f"pooled per line: rank correlation of predicted with measured sensitivity across drugs {found['mean']:.2f} on "
        f"average, against {found['from_bulk']:.2f} from the lines' own bulk expression (ridge regression "
        f"{found['ridge_from_bulk']:.2f}). Of the differences between the lines, without what all have in common: "
        f"{found['between_lines']:.2f}.",
        "",
        "| line | rank correlation across drugs |",
        "|---|---|",
        *rows,
    ]


def _signed(figure: dict[str, float]) -> str:
    return f"{figure['value']:+.3f} [{figure['low']:+.3f}, {figure['high']:+.3f}]"


def update_drugs(page: Path, found: dict[str, Any]) -> bool:
    """Put the tables between the marks of docs/drugs.md; False when it has none."""
    text = page.read_text(encoding="utf-8") if page.is_file() else ""
    before, start, rest = text.partition(START)
    _, end, after = rest.partition(END)
    if not start or not end:
        return False
    page.write_text(f"{before}{start}\n" + "\n".join(bulk_lines(found)) + f"\n{end}{after}", encoding="utf-8")
    return True
