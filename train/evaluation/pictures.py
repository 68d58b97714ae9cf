"""Pictures of an evaluation, as SVG text: small, the same for the same figures, readable without colour."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure

INK, OURS, THEIRS, PALE = "#1f2933", "#0b6e99", "#c2571a", "#9aa5b1"
STYLE = {
    "font.size": 8,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": INK,
    "xtick.minor.visible": False,
    "ytick.minor.visible": False,
    "svg.fonttype": "none",  # text stays text
    "svg.hashsalt": "instructcell",
}


def pictures(evaluation: Mapping[str, Any]) -> dict[str, str]:
    """Every picture that the evaluation has figures for: name -> SVG."""
    drawn: dict[str, str] = {}
    with rc_context(STYLE):
        if "annotation" in evaluation:
            drawn["annotation"] = svg(annotation(evaluation["annotation"]))
            for name, found in evaluation["annotation"].items():
                if "confusion" in found and len(found["confusion"]["labels"]) > 1:
                    drawn[f"confusion_{name}"] = svg(confusion(name, found["confusion"]))
        if "calibration" in evaluation:
            drawn["calibration"] = svg(calibration(evaluation["calibration"]))
        if "panels" in evaluation:
            drawn["panels"] = svg(panels(evaluation["panels"]))
        for name, found in evaluation.get("generation", {}).get("sets", {}).items():
            drawn[f"pseudo_cells_{name}"] = svg(gene_curves(name, found))
        if evaluation.get("phrasing", {}).get("tasks"):
            drawn["phrasing"] = svg(phrasing(evaluation["phrasing"]["tasks"]))
        if "leave_studies_out" in evaluation:
            drawn["leave_studies_out"] = svg(studies(evaluation["leave_studies_out"]["studies"]))
        if "leave_types_out" in evaluation:
            drawn["leave_types_out"] = svg(types(evaluation["leave_types_out"]["types"]))
    return drawn


def svg(figure: Figure) -> str:
    """A figure as SVG without a date, so that equal figures give equal files."""
    out = io.StringIO()
    figure.savefig(out, format="svg", bbox_inches="tight", metadata={"Date": None, "Creator": None})
    return "\n".join(line.rstrip() for line in out.getvalue().splitlines()) + "\n"


def annotation(found: Mapping[str, Any]) -> Figure:
    """Accuracy per file, ours with intervals beside the refitted baselines."""
    figure, axes = _figure(6.4, 0.34 * len(found) + 0.9)
    for y, (_, row) in enumerate(found.items()):
        _interval(axes, row["accuracy"], y - 0.14, OURS, "o", "free answer" if not y else None)
        _interval(axes, row["accuracy_with_options"], y + 0.14, OURS, "D", "among the file's labels" if not y else None)
        for name, marker in (("logistic regression", "s"), ("10-NN", "^"), ("majority", "|")):
            if name in row["baselines"]:
                axes.plot(row["baselines"][name]["accuracy"], y, marker, color=THEIRS, ms=4, mfc="none")
    for name, marker in (("logistic regression", "s"), ("10-NN", "^"), ("majority", "|")):
        axes.plot([], [], marker, color=THEIRS, ms=4, mfc="none", label=f"{name}, refitted")
    _rows(axes, list(found), "accuracy on held-out cells")
    axes.legend(loc="upper left", bbox_to_anchor=(1.01, 1), frameon=False)
    return figure


def confusion(name: str, found: Mapping[str, Any]) -> Figure:
    """Share of each label's cells that got each answer."""
    counts = np.array(found["counts"], float)
    share = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    figure, axes = _figure(2.2 + 0.24 * counts.shape[1], 1.6 + 0.24 * counts.shape[0])
    axes.imshow(share, cmap="Blues", vmin=0, vmax=1, aspect="auto", interpolation="nearest")
    for i, j in zip(*np.nonzero(share >= 0.05), strict=True):
        axes.text(j, i, f"{share[i, j]:.2f}".lstrip("0") if share[i, j] < 0.995 else "1", ha="center", va="center",
                  fontsize=6, color="white" if share[i, j] > 0.5 else INK)  # fmt: skip
    axes.set_xticks(range(counts.shape[1]), [_cut(x) for x in found["answers"]], rotation=60, ha="right")
    axes.set_yticks(
        range(counts.shape[0]), [f"{_cut(x)} ({int(n)})" for x, n in zip(found["labels"], counts.sum(1), strict=True)]
    )
    axes.set_xlabel("answer")
    axes.set_title(name, fontsize=8)
    return figure


def calibration(found: Mapping[str, Any]) -> Figure:
    """Reliability, and accuracy of the most confident answers."""
    figure = Figure(figsize=(6.4, 2.9))
    left, right = figure.subplots(1, 2)
    left.plot([0, 1], [0, 1], color=PALE, lw=0.8)
    for (name, pool), marker in zip(found.items(), "osD^v", strict=False):
        bins = pool["reliability"]
        left.plot(
            [b["confidence"] for b in bins], [b["accuracy"] for b in bins], marker + "-", ms=3, lw=0.8, label=name
        )
        curve = pool["risk_coverage"]
        right.plot([p["coverage"] for p in curve], [p["accuracy"] for p in curve], marker + "-", ms=2.5, lw=0.8)
    left.set(xlabel="confidence", ylabel="accuracy", title="reliability", xlim=(0, 1.02), ylim=(0, 1.02))
    right.set(xlabel="share of the cells accepted", ylabel="accuracy of these", title="risk against coverage")
    right.axvline(0.8, color=PALE, lw=0.8)
    figure.legend(loc="upper center", bbox_to_anchor=(0.5, 0.0), frameon=False, ncols=1)
    figure.tight_layout()
    return figure


def panels(found: Mapping[str, Any]) -> Figure:
    """Accuracy with fewer genes relative to all genes of the file."""
    names = list(found["relative"])
    figure, axes = _figure(5.2, 2.8)
    for (file, row), marker in zip(found["files"].items(), "osD^vP*X", strict=False):
        values = [row["panels"].get(name, {}).get("relative", np.nan) for name in names]
        axes.plot(range(len(names)), values, marker, ms=5, mfc="none", label=file)
    axes.plot(range(len(names)), list(found["relative"].values()), "_", color=INK, ms=26, mew=2, label="mean")
    axes.set_xticks(range(len(names)), names)
    axes.set_ylabel("accuracy relative to all genes")
    axes.legend(frameon=False, loc="upper left", bbox_to_anchor=(1.01, 1))
    return figure


def gene_curves(name: str, found: Mapping[str, Any]) -> Figure:
    """Zero fraction and variance against mean expression: real, pseudo-cells, independent Poisson."""
    figure = Figure(figsize=(6.0, 2.6))
    left, right = figure.subplots(1, 2)
    lines = {
        "held-out real cells": (found["real_curves"], INK, "o-"),
        "pseudo-cells": (found["pseudo"]["curves"], OURS, "s--"),
        "independent Poisson": (found["independent_poisson"]["curves"], THEIRS, "^:"),
    }
    for label, (curve, colour, style) in lines.items():
        mean = [point["mean"] for point in curve]
        left.semilogx(mean, [p["zero_fraction"] for p in curve], style, color=colour, ms=3, lw=0.9, label=label)
        right.loglog(mean, [p["variance"] for p in curve], style, color=colour, ms=3, lw=0.9)
    for axes in (left, right):
        axes.minorticks_off()
    left.set(xlabel="mean count of the genes", ylabel="zero fraction", title=name)
    right.set(xlabel="mean count of the genes", ylabel="variance")
    left.legend(frameon=False, loc="lower left")
    figure.tight_layout()
    return figure


def phrasing(found: Mapping[str, Any]) -> Figure:
    """How accuracy spreads over phrasings, beside the canonical one."""
    figure = Figure(figsize=(2.1 * len(found), 2.1))
    for axes, (name, row) in zip(np.atleast_1d(figure.subplots(1, len(found))), found.items(), strict=True):
        axes.bar(np.arange(10) / 10 + 0.05, row["histogram"], width=0.09, color=OURS)
        axes.axvline(row["canonical"], color=THEIRS, lw=1.2)
        axes.set(title=name, xlabel="accuracy of a phrasing", xlim=(0, 1.02))
    figure.tight_layout()
    return figure


def studies(found: Mapping[str, Any]) -> Figure:
    """Left-out studies: each cell by itself, in its file, among the target's labels, and the best refitted baseline."""
    figure, axes = _figure(5.4, 0.34 * len(found) + 0.9)
    kinds = {"alone": "v", "free": "o", "with_options": "D"}
    words = {"alone": "each cell by itself", "free": "in its file", "with_options": "among its labels"}
    for y, row in enumerate(found.values()):
        for key, marker in kinds.items():
            axes.plot(row[key]["value"], y, marker, color=OURS, ms=4, label=words[key] if not y else None)
        axes.plot(row["best_baseline"]["accuracy"], y, "s", color=THEIRS, ms=4, mfc="none",
                  label="best refitted baseline" if not y else None)  # fmt: skip
    _rows(axes, list(found), "accuracy on a study that training never saw")
    axes.legend(loc="upper left", bbox_to_anchor=(1.01, 1), frameon=False)
    return figure


def types(found: Mapping[str, Any]) -> Figure:
    """Left-out types: how well each score tells them."""
    figure, axes = _figure(5.4, 0.28 * len(found) + 0.9)
    scores = sorted({score for row in found.values() for score in row["auroc"]})
    for score, marker in zip(scores, "osD^v", strict=False):
        axes.plot(
            [row["auroc"].get(score, np.nan) for row in found.values()], range(len(found)), marker, ms=4, label=score
        )
    _rows(axes, list(found), "AUROC of low certainty for cells of a type left out")
    axes.legend(loc="upper left", bbox_to_anchor=(1.01, 1), frameon=False)
    return figure


def _figure(width: float, height: float) -> tuple[Figure, Axes]:
    figure = Figure(figsize=(width, height))
    return figure, figure.subplots()


def _interval(axes: Axes, figure: Mapping[str, float], y: float, colour: str, marker: str, label: str | None) -> None:
    if figure["low"] == figure["low"]:
        axes.plot([figure["low"], figure["high"]], [y, y], color=colour, lw=1)
    axes.plot(figure["value"], y, marker, color=colour, ms=4, label=label)


def _rows(axes: Axes, names: Sequence[str], what: str) -> None:
    axes.set_yticks(range(len(names)), names)
    axes.invert_yaxis()
    axes.set_xlabel(what)
    axes.grid(axis="x", color=PALE, lw=0.3)


def _cut(name: str, longest: int = 48) -> str:
    return name if len(name) <= longest else name[: longest - 1] + "…"
