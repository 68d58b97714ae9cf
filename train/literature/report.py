"""docs/comparison.md and its pictures, from the table of a comparison."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib import rc_context
from matplotlib.figure import Figure

from train.evaluation.pictures import INK, OURS, PALE, STYLE, THEIRS, confusion, svg
from train.literature.compare import patterns

OURS_NAME = "InstructCell"
HEAD = """# The systems of the literature on the same cells

Every system learns from the same training cells of a column and names the same test cells, which the checkpoint of
InstructCell has never seen either; its own row is the checkpoint as it ships, told only which labels there are. Genes
are those of the checkpoint that all files of a column measured. Figures are measured by `instructcell compare`.
"""


def write_comparison(result: Mapping[str, Any], docs: Path) -> Path:
    """Write comparison.md and the pictures of `comparison/`."""
    pictures = docs / "comparison"
    pictures.mkdir(parents=True, exist_ok=True)
    drawn = draw(result)
    for name, picture in drawn.items():
        (pictures / f"{name}.svg").write_text(picture, encoding="utf-8")
    path = docs / "comparison.md"
    path.write_text(markdown(result, drawn), encoding="utf-8")
    return path


def markdown(result: Mapping[str, Any], drawn: Mapping[str, str]) -> str:
    """The page."""
    lines = [
        HEAD,
        "| column | file | unseen | training cells | test cells | types | genes |",
        "|---|---|---|---|---|---|---|",
    ]
    for name, row in result["columns"].items():
        if "error" in row:
            lines.append(f"| {name} | {row['error']} | | | | | |")
        else:
            figures = (f"{row[key]:,}" for key in ("training_cells", "test_cells", "types", "genes"))
            lines.append(f"| {name} | {row['file']} | {row['split']} | {' | '.join(figures)} |")
    lines += ["", "## Accuracy", "", "With the 95 % interval; over several seeds the mean (standard deviation).", ""]
    lines += _table(result, _accuracy)
    lines += _picture("accuracy", drawn, "accuracy of every system per column")
    lines += ["", "## Macro F1", "", *_table(result, lambda row: f"{row['f1']:.3f}")]
    lines += ["", "## Macro precision / recall, weighted F1", ""]
    lines += _table(result, lambda row: f"{row['precision']:.2f} / {row['recall']:.2f}, {row['weighted_f1']:.2f}")
    lines += [
        "",
        "## Time and memory",
        "",
        "Seconds per 1,000 cells named and growth of memory in MB, mean over the columns.",
        "",
    ]
    lines += _costs(result)
    lines += _picture("cost", drawn, "mean accuracy against seconds per 1,000 cells")
    lines += ["", "## Do published patterns re-appear?", "", *_patterns(result)]
    lines += ["", "## Confusion", ""]
    for name in drawn:
        if name.startswith("confusion"):
            lines += _picture(name, drawn, name.replace("_", " "))
    failed = [(s, c, row["error"]) for s, of in result["cells"].items() for c, row in of.items() if "error" in row]
    if failed:
        lines += ["", "## Not measured", "", *(f"- {system}, {column}: {error}" for system, column, error in failed)]
    return "\n".join(lines).rstrip() + "\n"


def _accuracy(row: Mapping[str, Any]) -> str:
    if row.get("seeds", 1) > 1:
        return f"{row['accuracy']:.3f} ({row['sd']['accuracy']:.3f})"
    low, high = row["accuracy_interval"]
    return f"{row['accuracy']:.3f} [{low:.2f}, {high:.2f}]"


def _table(result: Mapping[str, Any], show: Any) -> list[str]:
    columns = [name for name, row in result["columns"].items() if "error" not in row]
    lines = [f"| system | {' | '.join(columns)} |", "|---" * (len(columns) + 1) + "|"]
    for system, of in result["cells"].items():
        shown = [show(of[c]) if "accuracy" in of.get(c, {}) else "not measured" for c in columns]
        lines.append(f"| {system} | {' | '.join(shown)} |")
    return lines


def _costs(result: Mapping[str, Any]) -> list[str]:
    costs = {name: cost for name, of in result["cells"].items() if (cost := cost_of(of)) is not None}
    ours = costs.get(OURS_NAME)
    lines = ["| system | training, s | s per 1,000 cells | memory, MB | times InstructCell |", "|---|---|---|---|---|"]
    for name, (fit, seconds, memory) in costs.items():
        times = f"{seconds / ours[1]:.1f}" if ours and ours[1] > 0 else ""
        lines.append(f"| {name} | {fit:.1f} | {seconds:.1f} | {memory:.0f} | {times} |")
    return lines


def cost_of(of: Mapping[str, Any]) -> tuple[float, float, float] | None:
    """Mean seconds of training, seconds per 1,000 cells and MB over the columns; None where nothing was timed."""
    rows = [row for row in of.values() if "seconds_per_1000" in row]
    if not rows:
        return None
    fit, seconds, memory = (
        float(np.mean([row[key] for row in rows])) for key in ("fit_seconds", "seconds_per_1000", "peak_mb")
    )
    return fit, seconds, memory


def _patterns(result: Mapping[str, Any]) -> list[str]:
    found = patterns(result["cells"])
    lines = [
        f"- {row['claim']}: {'yes' if row['held'] else 'no'} ({row['value']:.3f} against {row['against']:.3f}, "
        f"mean accuracy over {row['columns']} columns)"
        for row in found
    ]
    standing = leads(result)
    if standing:
        n_first = sum(standing.values())
        lines.append(
            f"- InstructCell is first, or within the interval of the first, in {n_first} of {len(standing)} columns"
        )
    return lines or ["Too little was measured to say."]


def leads(result: Mapping[str, Any]) -> dict[str, bool]:
    """Per column whether InstructCell's accuracy is at least the lower end of the interval of the best system."""
    found = {}
    for column in result["columns"]:
        rows = {name: of[column] for name, of in result["cells"].items() if "accuracy" in of.get(column, {})}
        if OURS_NAME in rows and len(rows) > 1:
            best = max(rows.values(), key=lambda row: row["accuracy"])
            found[column] = rows[OURS_NAME]["accuracy"] >= best["accuracy_interval"][0]
    return found


def _picture(name: str, drawn: Mapping[str, str], title: str) -> list[str]:
    return ["", f"![{title}](comparison/{name}.svg)"] if name in drawn else []


def draw(result: Mapping[str, Any]) -> dict[str, str]:
    """Pictures by name, as SVG text."""
    drawn: dict[str, str] = {}
    cells = result["cells"]
    if not any("accuracy" in row for of in cells.values() for row in of.values()):
        return drawn
    with rc_context(STYLE):
        drawn["accuracy"] = svg(_accuracies(result))
        drawn["cost"] = svg(_cost_picture(cells))
        first = next(name for name, row in result["columns"].items() if "error" not in row)
        for name in (OURS_NAME, "cell sentences (emcell)", "scReader", "scReader without LM (GenePT)", "scMPT"):
            row = cells.get(name, {}).get(first, {})
            if "confusion" in row:
                drawn[f"confusion_{name.split(' ')[0].lower()}_{'lm' if 'without' not in name else 'no_lm'}"] = svg(
                    confusion(f"{name}: {first}", row["confusion"])
                )
    return drawn


def _accuracies(result: Mapping[str, Any]) -> Figure:
    columns = [name for name, row in result["columns"].items() if "error" not in row]
    systems = list(result["cells"])
    figure = Figure(figsize=(1.3 * len(columns) + 2.5, 0.24 * len(systems) + 1.2))
    axes = figure.subplots(1, len(columns), sharey=True, squeeze=False)[0]
    for one, column in zip(axes, columns, strict=True):
        for y, name in enumerate(systems):
            row = result["cells"][name].get(column, {})
            if "accuracy" in row:
                colour = OURS if name == OURS_NAME else THEIRS
                one.plot(row["accuracy_interval"], [y, y], color=colour, lw=1)
                one.plot(row["accuracy"], y, "o", color=colour, ms=3.5)
        one.set(xlim=(0, 1.02), title="\n".join(column.split(", ")))
        one.grid(axis="x", color=PALE, lw=0.3)
        one.title.set_fontsize(6.5)
    axes[0].set_yticks(range(len(systems)), systems)
    axes[0].invert_yaxis()
    figure.supxlabel("accuracy", fontsize=8)
    return figure


def _cost_picture(cells: Mapping[str, Any]) -> Figure:
    figure = Figure(figsize=(5.0, 3.2))
    axes = figure.subplots()
    for name, of in cells.items():
        cost = cost_of(of)
        if cost is None:
            continue
        mean = float(np.mean([row["accuracy"] for row in of.values() if "accuracy" in row]))
        axes.semilogx(max(cost[1], 1e-3), mean, "o", color=OURS if name == OURS_NAME else THEIRS, ms=4)
        axes.annotate(
            name, (max(cost[1], 1e-3), mean), fontsize=6, xytext=(3, 2), textcoords="offset points", color=INK
        )
    axes.set(xlabel="seconds per 1,000 cells", ylabel="mean accuracy")
    axes.grid(color=PALE, lw=0.3)
    return figure
