"""docs/comparison.md and its pictures, from the table of a comparison."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib import colormaps, rc_context
from matplotlib.figure import Figure

from train.evaluation.pictures import INK, OURS, PALE, STYLE, THEIRS, confusion, svg
from train.literature.compare import patterns

OURS_NAME = "InstructCell"
CAUSAL = "cell sentences (emcell)"
NOTES = "<!-- notes: what stands below is written by hand and kept -->"
HEAD = """# The systems of the literature on the same cells

Every system learns from the same training cells of a column and names the same test cells, which the checkpoint of
InstructCell has never seen either; its own row is the checkpoint as it ships, trained on all training cells of its
recipe and told only which labels there are. Language models learn from some of the training cells (`max_cells`); the
row that says so learns from all of them. Genes are those of the checkpoint that all files of a column measured. The
figures are measured by `instructcell compare`, the settings stand in `train/recipes/compare.yaml`.
"""


def write_comparison(result: Mapping[str, Any], docs: Path) -> Path:
    """Write comparison.md and the pictures of `comparison/`; notes at the end of the page are kept."""
    pictures = docs / "comparison"
    pictures.mkdir(parents=True, exist_ok=True)
    drawn = draw(result)
    for name, picture in drawn.items():
        (pictures / f"{name}.svg").write_text(picture, encoding="utf-8")
    path = docs / "comparison.md"
    kept = path.read_text(encoding="utf-8").partition(NOTES)[2] if path.is_file() else ""
    path.write_text(f"{markdown(result, drawn)}\n{NOTES}\n{kept.lstrip()}".rstrip() + "\n", encoding="utf-8")
    return path


def markdown(result: Mapping[str, Any], drawn: Mapping[str, str]) -> str:
    """The page."""
    lines = [HEAD, *_columns(result)]
    lines += ["", "## Accuracy", "", "With the 95 % interval; over several seeds the mean (standard deviation).", ""]
    lines += [*_table(result, _accuracy), "", *_standing(result)]
    lines += _picture("accuracy", drawn, "accuracy of every system per column")
    lines += ["", "## Macro F1", "", *_table(result, lambda row: f"{row['f1']:.3f}")]
    lines += ["", "## Macro precision / recall, weighted F1", ""]
    lines += _table(result, lambda row: f"{row['precision']:.2f} / {row['recall']:.2f}, {row['weighted_f1']:.2f}")
    lines += _clusters(result)
    lines += ["", "## Time and memory", "", *_costs(result)]
    lines += _picture("cost", drawn, "mean accuracy against seconds per 1,000 cells")
    lines += ["", "## Do published patterns re-appear?", "", *_patterns(result), *_markers(result), *_written(result)]
    if "maps" in drawn:
        lines += ["", "## Maps", "", "UMAP of the test cells, as the encoders or the trained readers see them."]
        lines += _picture("maps", drawn, "UMAP of what systems see of the test cells")
    lines += ["", "## Confusion", ""]
    for name in drawn:
        if name.startswith("confusion"):
            lines += _picture(name, drawn, name.replace("_", " "))
    lines += _failures(result)
    return "\n".join(lines).rstrip() + "\n"


def _failures(result: Mapping[str, Any]) -> list[str]:
    """Cells of the table that stayed open, and why."""
    columns: dict[tuple[str, str], list[str]] = {}
    for system, of in result["cells"].items():
        for column, row in of.items():
            if "error" in row:
                columns.setdefault((system, row["error"]), []).append(column)
    rows = [f"- {system}, {'; '.join(names)}: {error}" for (system, error), names in columns.items()]
    return ["", "## Not measured", "", *rows] if rows else []


def without_answers(result: Mapping[str, Any]) -> dict[str, Any]:
    """The figures alone, without the answer about every cell."""
    cells = {
        name: {c: {key: value for key, value in row.items() if key != "answers"} for c, row in of.items()}
        for name, of in result["cells"].items()
    }
    return {**result, "cells": cells}


def _columns(result: Mapping[str, Any]) -> list[str]:
    lines = [
        "| column | file | unseen | training cells (of all) | test cells | types | genes |",
        "|---|---|---|---|---|---|---|",
    ]
    for name, row in result["columns"].items():
        if "error" in row:
            lines.append(f"| {name} | {row['error']} | | | | | |")
        else:
            trained = f"{row['training_cells']:,} ({row['all_training_cells']:,})"
            figures = (f"{row[key]:,}" for key in ("test_cells", "types", "genes"))
            lines.append(f"| {name} | {row['file']} | {row['split']} | {trained} | {' | '.join(figures)} |")
    return lines


def _standing(result: Mapping[str, Any]) -> list[str]:
    """Where InstructCell is first, or within the interval of the first."""
    standing = leads(result)
    if not standing:
        return []
    n_first = sum(row["within"] for row in standing.values())
    lines = [f"InstructCell is first, or within the interval of the first, in {n_first} of {len(standing)} columns."]
    for column, row in standing.items():
        if row["best"] != OURS_NAME:
            word = "within the interval of" if row["within"] else "behind"
            lines.append(f"- {column}: {word} {row['best']} ({row['ours']:.3f} against {row['accuracy']:.3f})")
    rows = [(name, row) for name, of in result["cells"].items() for row in of.values()]
    right = {name: row["patients"] for name, row in rows if "patients" in row}
    if right:
        said = ", ".join(f"{name} {row['right']} of {row['groups']}" for name, row in right.items())
        lines += ["", f"Groups of patient and drug that most cells got right: {said}."]
    return lines


def _clusters(result: Mapping[str, Any]) -> list[str]:
    """Agreement of k-means on the encoders' views with the types."""
    if not any("clusters" in row for of in result["cells"].values() for row in of.values()):
        return []
    of = {name: rows for name, rows in result["cells"].items() if any("clusters" in row for row in rows.values())}
    said = "Adjusted Rand index / adjusted mutual information of k-means (k = number of types) with the types."
    table = _table({**result, "cells": of}, lambda row: "{ari:.2f} / {ami:.2f}".format(**row["clusters"]))
    return ["", "## Clusters of the embeddings", "", said, "", *table]


def _accuracy(row: Mapping[str, Any]) -> str:
    if row.get("seeds", 1) > 1:
        return f"{row['accuracy']:.3f} ({row['sd']['accuracy']:.3f})"
    low, high = row["accuracy_interval"]
    return f"{row['accuracy']:.3f} [{low:.2f}, {high:.2f}]"


def _table(result: Mapping[str, Any], show: Callable[[Mapping[str, Any]], str]) -> list[str]:
    columns = [name for name, row in result["columns"].items() if "error" not in row]
    lines = [f"| system | {' | '.join(columns)} |", "|---" * (len(columns) + 1) + "|"]
    for system, of in result["cells"].items():
        shown = []
        for column in columns:
            row = of.get(column, {})
            try:
                shown.append(show(row) if "accuracy" in row else "not measured" if "error" in row else "")
            except KeyError:  # a figure that this column does not have
                shown.append("")
        lines.append(f"| {system} | {' | '.join(shown)} |")
    return lines


def _costs(result: Mapping[str, Any]) -> list[str]:
    costs = costs_of(result)
    if not costs:
        return ["Nothing was timed."]
    ours = costs.get(OURS_NAME, {}).get("seconds_per_1000")
    lines = [
        "Training: CPU seconds, mean over the columns (peers: by the clock). Naming: seconds per 1,000 cells by the",
        "clock and of all cores together, and the most memory; each system in a process of its own, already warm.",
        "",
        "| system | training, s | s per 1,000 cells | CPU s per 1,000 cells | memory, MB | times InstructCell |",
        "|---|---|---|---|---|---|",
    ]
    for name, row in costs.items():
        seconds, cpu = row.get("seconds_per_1000"), row.get("cpu_seconds_per_1000")
        times = f"{seconds / ours:.1f}" if ours and seconds is not None else ""
        figures = (
            f"{row['fit_seconds']:.1f}" if "fit_seconds" in row else "",
            "" if seconds is None else f"{seconds:.2f}",
            "" if cpu is None else f"{cpu:.2f}",
            f"{row['peak_mb']:.0f}" if row.get("peak_mb") else "",
            times,
        )
        lines.append(f"| {name} | {' | '.join(figures)} |")
    return lines


def costs_of(result: Mapping[str, Any]) -> dict[str, dict[str, float]]:
    """Of every system that was timed: seconds of training, and of naming with memory; means over what was measured."""
    found: dict[str, dict[str, float]] = {}
    for name, of in result["cells"].items():
        row = dict(result.get("costs", {}).get(name, {}))
        for key in ("fit_seconds", "peak_mb"):  # memory only of peers, which say it themselves
            values = [cell[key] for cell in of.values() if key in cell]
            if values and key not in row:
                row[key] = float(np.mean(values))
        if row:
            found[name] = row
    return found


def _patterns(result: Mapping[str, Any]) -> list[str]:
    lines = [
        f"- {row['claim']}: {'yes' if row['held'] else 'no'} ({row['value']:.3f} against {row['against']:.3f}, "
        f"mean accuracy over {row['columns']} columns; chance {row['chance']:.3f})"
        for row in patterns(result["cells"])
    ]
    costs = costs_of(result)
    if OURS_NAME in costs and "seconds_per_1000" in costs.get(CAUSAL, {}):
        ours, theirs = costs[OURS_NAME], costs[CAUSAL]
        fast, slow = ours["seconds_per_1000"], theirs["seconds_per_1000"]
        in_cpu = theirs["cpu_seconds_per_1000"] / ours["cpu_seconds_per_1000"]
        lines.append(
            f"- InstructCell names cells {slow / fast:.0f} times as fast as the cell-sentence causal route ({fast:.1f} "
            f"against {slow:.0f} s per 1,000 cells by the clock), in CPU seconds {in_cpu:.0f} times"
        )
    return lines or ["Too little was measured to say."]


def _markers(result: Mapping[str, Any]) -> list[str]:
    """What the encoders know of markers."""
    found = result.get("interpretation", {})
    if "types" not in found:
        return []
    rows = found["types"]
    lines = ["", "### Are the top genes markers?", ""]
    lines += [
        f"An MLP on the vectors of sentences of {found['n_genes']} genes (accuracy {found['accuracy']:.3f} on the test "
        "cells). Share of known markers among the ten genes with the largest attributions, beside the ten that stand "
        "first by rank, and the share of markers among all genes of the sentences (chance).",
        "",
        "| type | cells | integrated gradients | LIME | agreement | first by rank | chance | top genes (gradients) |",
        "|---|---|---|---|---|---|---|---|",
    ]
    names = ("known_gradients", "known_lime", "agreement", "known_first", "known_by_chance")
    for row in rows:
        shares = " | ".join(f"{row[name]:.2f}" for name in names)
        lines.append(f"| {row['label']} | {row['cells']} | {shares} | {' '.join(row['gradients'])} |")
    means = " | ".join(f"{float(np.mean([row[name] for row in rows])):.2f}" for name in names)
    lines += [f"| mean | | {means} | |", "", "### Are markers of one type alike?", ""]
    lines += ["| what the encoder reads of a gene | one type | different types | genes |", "|---|---|---|---|"]
    for name, row in found["likeness"].items():
        lines.append(f"| {name} | {row['intra']:.3f} | {row['inter']:.3f} | {row['genes']} |")
    if "quiz" in found:
        quiz = found["quiz"]
        lines += ["", f"Marker quiz, {quiz['model']}: {quiz['accuracy']:.2f} of {quiz['n_questions']} questions right "
                  f"(chance {quiz['chance']:.2f})."]  # fmt: skip
    return lines


def _written(result: Mapping[str, Any]) -> list[str]:
    """Cells that were made, beside real ones."""
    found = result.get("writing", {})
    if "rows" not in found:
        return []
    lines = [
        "",
        "## Cells that are written",
        "",
        f"As many cells of {len(found['types'])} types as there are test cells ({found['cells']}), in the principal "
        f"components of the test cells. The language model learned to write sentences of {found['n_genes']} genes from "
        f"{found['learned_from']} cells in {found['steps']} steps; a sentence becomes expression by a line from rank "
        f"to log expression (r² {found['rank_fit_r2']:.2f} over the training cells). Its cells named "
        f"{found['words_per_cell']:.1f} words, of which {found['foreign_words']:.1%} are no gene of the column.",
        "",
        "| cells | MMD, mean over types | relative to real | S-KNN | R-KNN |",
        "|---|---|---|---|---|",
    ]
    for name, row in found["rows"].items():
        figures = " | ".join(f"{row[key]:.3f}" for key in ("mean_mmd", "mmd_ratio", "s_knn", "r_knn"))
        lines.append(f"| {name} | {figures} |")
    return lines


def leads(result: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """Per column the best other system, and whether InstructCell's accuracy reaches the lower end of its interval."""
    found = {}
    for column in result["columns"]:
        rows = {name: of[column] for name, of in result["cells"].items() if "accuracy" in of.get(column, {})}
        if OURS_NAME in rows and len(rows) > 1:
            ours = rows[OURS_NAME]["accuracy"]
            best = max(rows, key=lambda name: (rows[name]["accuracy"], name == OURS_NAME))
            within = ours >= rows[best]["accuracy_interval"][0]
            found[column] = {"best": best, "ours": ours, "accuracy": rows[best]["accuracy"], "within": bool(within)}
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
        if result.get("costs"):
            drawn["cost"] = svg(_cost_picture(result))
        if result.get("maps"):
            drawn["maps"] = svg(_maps(result["maps"]))
        first = next(name for name, row in result["columns"].items() if "error" not in row)
        for name in (OURS_NAME, CAUSAL, "scReader", "scReader without LM (GenePT)", "scMPT"):
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


def _maps(maps: Mapping[str, Any]) -> Figure:
    """A panel per system, a colour per type."""
    labels = sorted({label for found in maps.values() for label in found["labels"]})
    palette = colormaps["tab20"]
    figure = Figure(figsize=(2.3 * len(maps) + 1.6, 2.5))
    panels = figure.subplots(1, len(maps), squeeze=False)[0]
    for axes, (name, found) in zip(panels, maps.items(), strict=True):
        xy, own = np.array(found["xy"]), np.array(found["labels"])
        for place, label in enumerate(labels):
            rows = own == label
            axes.plot(*xy[rows].T, "o", ms=3, color=palette(place % palette.N), label=label)
        axes.set(xticks=[], yticks=[])
        axes.set_title(name, fontsize=7)
    panels[-1].legend(loc="center left", bbox_to_anchor=(1.02, 0.5), frameon=False, fontsize=6)
    return figure


def _cost_picture(result: Mapping[str, Any]) -> Figure:
    """Mean accuracy over the columns that every timed system has, against the time."""
    costs = {name: row["seconds_per_1000"] for name, row in costs_of(result).items() if "seconds_per_1000" in row}
    measured = {name: {c for c, row in result["cells"][name].items() if "accuracy" in row} for name in costs}
    shared = set.intersection(*measured.values()) if measured else set()
    figure = Figure(figsize=(5.0, 3.2))
    axes = figure.subplots()
    for name, seconds in costs.items():
        if not shared:
            break
        mean = float(np.mean([result["cells"][name][column]["accuracy"] for column in sorted(shared)]))
        place = (max(seconds, 1e-3), mean)
        axes.semilogx(*place, "o", color=OURS if name == OURS_NAME else THEIRS, ms=4)
        axes.annotate(name, place, fontsize=6, xytext=(3, 2), textcoords="offset points", color=INK)
    axes.set(xlabel="seconds per 1,000 cells", ylabel="mean accuracy")
    axes.set_title(f"over {', '.join(sorted(shared))}", fontsize=6)
    axes.grid(color=PALE, lw=0.3)
    return figure
