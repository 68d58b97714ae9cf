"""The whole evaluation as one document: docs/results.md with its pictures, and one HTML file that holds everything."""

from __future__ import annotations

import base64
import re
from pathlib import Path
from typing import Any

from markdown_it import MarkdownIt

from train.bulk_report import bulk_lines, update_drugs
from train.card import (
    HEADLINE,
    annotation_table,
    drug_table,
    figure_text,
    generation_table,
    phrasing_lines,
    splits_table,
)
from train.evaluation.pictures import pictures

BY_HAND = "<!-- below: written by hand, kept by make evaluate -->"
PICTURES = "results"  # the folder beside docs/results.md
STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; color: #1f2933; max-width: 62rem; margin: 2rem auto; padding: 0 1rem; }
table { border-collapse: collapse; font-size: 13px; display: block; overflow-x: auto; }
td, th { border-bottom: 1px solid #d9e2ec; padding: .25rem .6rem; text-align: left; }
th { border-bottom: 2px solid #9fb3c8; } img { max-width: 100%; } code { background: #f0f4f8; }
"""


def results_markdown(evaluation: dict[str, Any], *, everything: bool = False) -> str:
    """The report's text; `everything` adds the tables per class and all confusion matrices, as the HTML shows them."""
    drawn = pictures(evaluation)
    parts = [
        "# Results",
        f"Measured by `instructcell evaluate` on the weights with sha256 `{evaluation['checkpoint'][:16]}`; brackets hold "
        "95 % bootstrap intervals. Every cell below is one that training never saw: the kind of split stands beside it "
        "and is checked (a group on both sides stops the run).",
        *_annotation(evaluation, drawn, everything),
        *_leave_out(evaluation, drawn),
        *_panels(evaluation, drawn),
        *_calibration(evaluation, drawn),
        *_unknown(evaluation, drawn),
        *_generation(evaluation, drawn),
        *_drug(evaluation),
        *_bulk(evaluation),
        *_clusters(evaluation),
        *_context(evaluation),
        *_phrasing(evaluation, drawn),
        "## Data",
        "\n".join(splits_table(evaluation)),
        _run_time(evaluation),
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


# ---- sections


def _annotation(evaluation: dict[str, Any], drawn: dict[str, str], everything: bool) -> list[str]:
    if "annotation" not in evaluation:
        return ["## Cell types of held-out cells", "Not run."]
    found = evaluation["annotation"]
    parts = [
        "## Cell types of held-out cells",
        "\n".join(annotation_table(evaluation)),
        "Baselines are refitted in the same run on training cells of the same kind and choose among their labels; "
        "*with options* the model chooses among the file's labels as well. The margin is over the best of them, with a "
        "paired interval.",
        "\n".join(margin_table(found)),
        _picture("annotation", drawn, "Accuracy per file"),
    ]
    shown = [name for name in found if everything or name in HEADLINE]
    parts += [_picture(f"confusion_{name}", drawn, f"Answers by label, {name}") for name in shown]
    if everything:
        for name, row in found.items():
            parts += [f"### {name}, per class", "\n".join(class_table(row["per_class"]))]
    return parts


def margin_table(found: dict[str, Any]) -> list[str]:
    """How far above the best baseline, and the peers."""
    rows = []
    for name, row in found.items():
        margin = row.get("margin")
        free, among = (_signed(margin[key]) if margin else "" for key in ("free", "with_options"))
        peers = [_peer(row.get("peers", {}).get(peer, "not run")) for peer in ("CellTypist", "scANVI")]
        rows.append(
            f"| {name} | {row.get('held_out', '')} | {free} | {among} | {margin['over'] if margin else 'one label'} | "
            f"{peers[0]} | {peers[1]} | {row['unknown']:.3f} | {row.get('accepted_at_80', float('nan')):.3f} | "
            f"{row['illegal_labels']} |"
        )
    head = (
        "| file | held out | margin, free | margin, with options | over | CellTypist | scANVI | called unknown | "
        "accuracy of the surest 80 % | illegal labels |"
    )
    return [head, "|---|---|---|---|---|---|---|---|---|---|", *rows]


def class_table(rows: list[dict[str, Any]]) -> list[str]:
    """Precision, recall and F1 of every label."""
    lines = [
        f"| {r['label']} | {r['cells']} | {r['precision']:.3f} | {r['recall']:.3f} | {r['f1']:.3f} |" for r in rows
    ]
    return ["| label | cells | precision | recall | F1 |", "|---|---|---|---|---|", *lines]


def _leave_out(evaluation: dict[str, Any], drawn: dict[str, str]) -> list[str]:
    title = "## Studies left out of training"
    found = evaluation.get("leave_studies_out")
    if not found:
        return [title, "Not run (`instructcell evaluate --tasks leave_studies_out` trains the encoder once per study)."]
    return [
        title,
        f"The cell encoder and its read-out alone, trained {found['steps']:,} steps without the study, asked about all of "
        "its cells: each by itself, and with the file as context as `annotate` does, freely and among the labels that its "
        "authors use. (The readers of the context learn from training cells here, as no decoder is trained.) Beside "
        "it the best of logistic regression and 10-NN refitted on the other studies of its kind, together and one by one.",
        "\n".join(studies_table(found)),
        *_missing(found, "studies"),
        _picture("leave_studies_out", drawn, "Studies left out"),
    ]


def _missing(found: dict[str, Any], what: str) -> list[str]:
    """Which runs of a slow task were not made."""
    return [f"Not run: the {what} {', '.join(found['missing'])}."] if found.get("missing") else []


def studies_table(found: dict[str, Any]) -> list[str]:
    """Every left-out study, and the means by kind."""
    rows = []
    for name, row in found["studies"].items():
        best = row["best_baseline"]
        auroc = row["unknown_auroc"]
        rows.append(
            f"| {name} | {row['kind']} | {row['cells']:,} | {figure_text(row['alone'])} | {figure_text(row['free'])} | "
            f"{_value(row.get('broader'))} | {figure_text(row['with_options'])} | {best['accuracy']:.3f} ({best['name']}) | {row['ece']:.3f} | "
            f"{row['accepted_at_80']:.3f} | {'' if auroc is None else format(auroc, '.3f')} |"
        )
    for kind, row in found["mean"].items():
        rows.append(
            f"| **mean** | {kind} | | {row['alone']:.3f} | {row['free']:.3f} | | {row['with_options']:.3f} | "
            f"{row['best_baseline']:.3f} | {row['ece']:.3f} | {row['accepted_at_80']:.3f} | |"
        )
    head = (
        "| study | kind | cells | each cell by itself | in its file | a broader type of the right one | among its labels | best refitted baseline | ECE | "
        "accuracy of the surest 80 % | AUROC of labels training lacks |"
    )
    return [head, "|---|---|---|---|---|---|---|---|---|---|---|", *rows]


def _value(found: dict[str, float] | float | None) -> str:
    """A figure, a mean, or nothing where it was not measured."""
    if found is None:
        return ""
    return figure_text(found) if isinstance(found, dict) else f"{found:.3f}"


def _panels(evaluation: dict[str, Any], drawn: dict[str, str]) -> list[str]:
    found = evaluation.get("panels")
    if not found:
        return ["## Small gene panels", "Not run."]
    names = list(found["relative"])
    rows = [
        f"| {file} | {row['cells']} | {row['genes']:,} | {row['full']:.3f} | "
        + " | ".join(_panel(row["panels"].get(name)) for name in names)
        + " |"
        for file, row in found["files"].items()
    ]
    mean = " | ".join(f"**{value:.3f}**" for value in found["relative"].values())
    head = [
        "| file | cells | genes | all genes | " + " | ".join(names) + " |",
        "|---|---|---|---|" + "---|" * len(names),
    ]
    return [
        "## Small gene panels",
        "The same cells with fewer genes: accuracy, in brackets its share of the accuracy with all genes, and behind it the accuracy "
        "of logistic regression refitted to the panel.",
        "\n".join([*head, *rows, f"| **mean share** | | | | {mean} |"]),
        *_marker_panels(found),
        _picture("panels", drawn, "Accuracy with fewer genes"),
    ]


def _marker_panels(found: dict[str, Any]) -> list[str]:
    """What the answers from marker genes are where they are not right."""
    rows = [
        f"| {file} | {row['panels'][name]['accuracy']:.3f} | {row['markers']['broader']:.3f} | {row['markers']['with_options']:.3f} |"
        for file, row in found["files"].items()
        for name in row["panels"]
        if "marker" in name and row.get("markers")
    ]
    head = ["| file, marker genes | right | a broader type of the right one | right among the file's labels |", "|---|---|---|---|"]
    return ["\n".join([*head, *rows])] if rows else []


def _calibration(evaluation: dict[str, Any], drawn: dict[str, str]) -> list[str]:
    found = evaluation.get("calibration")
    if not found:
        return ["## Confidence", "Not run."]
    rows = [
        f"| {name} | {len(row['files'])} | {row['cells']:,} | {row['accuracy']:.3f} | {row['ece']:.3f} | "
        f"{row['ece_mean_over_files']:.3f} | {row['brier']:.3f} | {row['accepted_accuracy']:.3f} | "
        f"{row['accepted_accuracy_mean_over_files']:.3f} |"
        for name, row in found.items()
    ]
    share = next(iter(found.values()))["coverage"]
    head = (
        "| cells | files | number | accuracy | ECE | ECE, mean over files | Brier | "
        f"accuracy of the surest {share:.0%} | the same, mean over files |"
    )
    return [
        "## Confidence",
        "Pooled over the files of each kind of split; confidence and accuracy of the best guess. The temperature was fitted on "
        "held-out cells of the files that are no headline; these are shown apart.",
        "\n".join([head, "|---|---|---|---|---|---|---|---|---|", *rows]),
        _picture("calibration", drawn, "Reliability and risk against coverage"),
    ]


def _unknown(evaluation: dict[str, Any], drawn: dict[str, str]) -> list[str]:
    parts = ["## Cells of a type that training never saw"]
    found = evaluation.get("leave_types_out")
    if found:
        scores = list(found["mean"])
        rows = [
            f"| {name} | {row['cells']} | " + " | ".join(f"{row['auroc'][score]:.3f}" for score in scores) + " |"
            for name, row in found["types"].items()
        ]
        mean = " | ".join(f"**{found['mean'][score]:.3f}**" for score in scores)
        parts += [
            f"Cell encoder and read-out trained {found['steps']:,} steps without the type and its broader and narrower "
            "relatives; AUROC of its cells against held-out cells of known types in the same files, by score.",
            "\n".join(
                [f"| type | cells | {' | '.join(scores)} |", "|---|---|" + "---|" * len(scores), *rows]
                + [f"| **mean** | | {mean} |"]
            ),
            *_missing(found, "types"),
            _picture("leave_types_out", drawn, "Types left out"),
        ]
    else:
        parts.append(
            "Leave-one-type-out: not run (`instructcell evaluate --tasks leave_types_out` trains the encoder)."
        )
    for name, row in evaluation.get("unknown", {}).items():
        parts.append(
            f"{name}: {row['cells']} held-out cells carry labels outside the checkpoint ({', '.join(row['labels'])}); AUROC "
            f"{figure_text(row['auroc'])}, {row['called_unknown']:.3f} called unknown (of the others "
            f"{row['known_called_unknown']:.3f})."
            + (f" By familiarity: {figure_text(row['auroc_familiarity'])}." if "auroc_familiarity" in row else "")
        )
    return parts


def _generation(evaluation: dict[str, Any], drawn: dict[str, str]) -> list[str]:
    if "generation" not in evaluation:
        return ["## Pseudo-cells", "Not run."]
    parts = ["## Pseudo-cells", "\n".join(generation_table(evaluation))]
    for name, found in evaluation["generation"].get("sets", {}).items():
        parts += [f"### {name}", "\n".join(realism_table(found)), _picture(f"pseudo_cells_{name}", drawn, "Genes")]
    return parts


def realism_table(found: dict[str, Any]) -> list[str]:
    """Distances and gene statistics of one set of pseudo-cells beside the floor and the others."""
    use = found["training_use"]
    sources = [
        ("real training cells", found["real_training"], 1.0, use["real"]),
        ("**pseudo-cells**", found["pseudo"], found["mmd_ratio"], use["pseudo"]),
        ("independent Poisson per type", found["independent_poisson"], found["mmd_ratio_poisson"], use["poisson"]),
    ]
    for source in ("prior", "posterior"):
        scvi = found["scvi"][source]
        if isinstance(scvi, dict):
            sources.append((f"scVI, {source}", scvi, scvi["mmd_ratio"], None))
    rows = [
        f"| {name} | {row['mean_mmd']:.3f} | {ratio:.2f} | "
        + ", ".join(f"{value:.3f}" for value in row["mmd_by_bandwidth"].values())
        + f" | {row['s_knn']:.3f} | {row['r_knn']:.3f} | {row['marker_logfc']:.3f} | {row['marker_logfc_pooled']:.3f} | {row['zero_fraction_gap']:.3f} | "
        f"{row['variance_correlation']:.3f} | {'' if trained is None else format(trained, '.3f')} |"
        for name, row, ratio, trained in sources
    ]
    if found["scvi"]["prior"] == "not run":
        rows.append("| scVI, prior and posterior | not run | | | | | | | | | |")
    head = (
        "| cells | mean MMD | relative to real | by bandwidth | S-KNN | R-KNN | marker log-FC r, mean over types | pooled | zero fraction, mean gap | "
        "log variance r | trained on them, accuracy on real |"
    )
    intro = f"{found['types']} types, {found['cells']} held-out cells; pseudo-cells are the mean of {len(found['seeds'])} seeds."
    return [intro, "", head, "|---|---|---|---|---|---|---|---|---|---|---|", *rows]


def _bulk(evaluation: dict[str, Any]) -> list[str]:
    if "bulk" not in evaluation:
        return []
    return ["### Any drug of the cell-line screens (bulk-to-cell, GDSC)", "\n".join(bulk_lines(evaluation["bulk"]))]


def _drug(evaluation: dict[str, Any]) -> list[str]:
    if "drug" not in evaluation:
        return ["## Drug response", "Not run."]
    parts = ["## Drug response", "\n".join(drug_table(evaluation))]
    for found in evaluation["drug"]:
        if "potency" in found:
            potency = found["potency"]
            parts.append(
                f"{', '.join(found['drugs'])}: rank correlation of predicted sensitivity with measured potency "
                f"{_number(potency['spearman_cells'])} over cells, {_number(potency['spearman_lines'])} over "
                f"{potency['lines']} cell lines. The response is a property of the line, hence confounded by its identity."
            )
        if "groups" in found:
            rows = [
                f"| {g['group']} | {g['cells']} | {'sensitive' if g['sensitive'] else 'resistant'} | {g['p_sensitive']:.3f} |"
                for g in found["groups"]
            ]
            parts.append("\n".join(["| patient | cells | measured | mean p(sensitive) |", "|---|---|---|---|", *rows]))
    return parts


def _clusters(evaluation: dict[str, Any]) -> list[str]:
    found = evaluation.get("clusters")
    if not found:
        return ["## Several cells at once", "Not run."]
    ways = list(next(iter(found["mean"].values())))
    rows = [
        f"| {name} | {purity} | " + " | ".join(f"{row[way]:.3f}" for way in ways) + " |"
        for name, of_file in found["files"].items()
        for purity, row in of_file["purity"].items()
    ]
    rows += [
        f"| **mean** | {purity} | " + " | ".join(f"**{row[way]:.3f}**" for way in ways) + " |"
        for purity, row in found["mean"].items()
    ]
    head = [f"| file | share of the main type | {' | '.join(ways)} |", "|---|---|" + "---|" * len(ways)]
    return [
        "## Several cells at once",
        f"{found['clusters']} clusters of {found['cells']} held-out cells per file, a share of them of one type and the rest of "
        "others: named from all of its cells (`annotate --by`), in one prompt that holds all cells, by the most frequent "
        "single answer, by the mean probability, and (for comparison) the single cells of the main type.",
        "\n".join([*head, *rows]),
    ]


def _context(evaluation: dict[str, Any]) -> list[str]:
    """The file as context."""
    found = evaluation.get("context")
    if not found:
        return ["## The file as context", "Not run."]

    def row(name: str, figures: dict[str, Any]) -> str:
        ways = [f"{figures[way][key]:.3f}" for key in ("accuracy", "ece", "accepted_at_80") for way in ("without", "with")]
        return f"| {name} | {figures['cells']:,} | {' | '.join(ways)} |"

    rows = [row(name, figures) for group in ("files", "mixtures") for name, figures in found[group].items()]
    one = found["one_type"]
    alone = (
        f"Of {one['files']} files that hold the cells of one type alone, {one['without']:.3f} are named rightly without "
        f"context and {one['with']:.3f} with; the most that one of them loses is {one['most_lost']:.3f}."
        if one["files"]
        else ""
    )
    return [
        "## The file as context",
        "Held-out cells, each read by itself, without and with what the cells of their file say together; the last rows are "
        "files put together. " + alone,
        "\n".join(
            [
                "| file | cells | accuracy | with context | ECE | with context | surest 80 % | with context |",
                "|---|---|---|---|---|---|---|---|",
                *rows,
            ]
        ),
    ]


def _phrasing(evaluation: dict[str, Any], drawn: dict[str, str]) -> list[str]:
    if "phrasing" not in evaluation:
        return ["## Phrasing", "Not run."]
    found = evaluation["phrasing"]
    parts = ["## Phrasing", " ".join(phrasing_lines(evaluation))]
    if found.get("tasks"):
        rows = [
            f"| {name} | {row['phrasings']} | {row['cells_per_phrasing']} | {row['accuracy']:.3f} | {row['canonical']:.3f} | "
            f"{row['standard_deviation']:.3f} | {row['worst_twentieth']:.3f} | {_routed(found, name)} |"
            for name, row in found["tasks"].items()
        ]
        rows += [
            f"| {name} | {row['phrasings']} | | | | | | {_routed(found, name)} |"
            for name, row in found.get("routed", {}).items()
            if name not in found["tasks"]
        ]
        head = (
            "| request | unseen phrasings | cells each | accuracy | canonical | spread | worst 5 % below | "
            "understood by the chat (asked back) |"
        )
        parts += [
            "\n".join([head, "|---|---|---|---|---|---|---|---|", *rows]),
            _picture("phrasing", drawn, "Phrasings"),
        ]
    return parts


def _routed(found: dict[str, Any], name: str) -> str:
    row = found.get("routed", {}).get(name)
    return f"{row['right']:.3f} ({row['asked_back']:.3f})" if row else ""


def _run_time(evaluation: dict[str, Any]) -> str:
    seconds = evaluation.get("seconds", {})
    return (
        "Seconds per task: " + ", ".join(f"{kind} {value:.0f}" for kind, value in seconds.items()) + "."
        if seconds
        else ""
    )


# ---- pieces


def _picture(name: str, drawn: dict[str, str], title: str) -> str:
    return f"![{title}]({PICTURES}/{name}.svg)" if name in drawn else ""


def _panel(found: dict[str, Any] | None) -> str:
    if not found:
        return ""
    fitted = found["logistic_regression"]
    return f"{found['accuracy']:.3f} ({found['relative']:.3f})" + (f"; {fitted:.3f}" if fitted is not None else "")


def _signed(figure: dict[str, float]) -> str:
    return f"{figure['value']:+.3f} [{figure['low']:+.3f}, {figure['high']:+.3f}]"


def _peer(found: Any) -> str:
    return figure_text(found["accuracy"]) if isinstance(found, dict) else str(found)


def _number(value: float | None) -> str:
    return "not defined" if value is None else f"{value:.3f}"


# ---- files


def write_results(evaluation: dict[str, Any], docs: Path) -> Path:
    """docs/results.md and its pictures; what was written by hand below its mark stays."""
    path, folder = docs / "results.md", docs / PICTURES
    text = results_markdown(evaluation)
    before = path.read_text(encoding="utf-8") if path.is_file() else ""
    kept = before.partition(BY_HAND)[2] if BY_HAND in before else "\n"
    path.write_text(f"{text}\n{BY_HAND}{kept}", encoding="utf-8")
    used = set(re.findall(rf"\]\({PICTURES}/([\w.-]+)\)", text + kept))
    if "bulk" in evaluation:
        update_drugs(docs / "drugs.md", evaluation["bulk"])
    folder.mkdir(parents=True, exist_ok=True)
    for name, drawing in pictures(evaluation).items():
        if f"{name}.svg" in used:
            (folder / f"{name}.svg").write_text(drawing, encoding="utf-8")
    return path


def html_report(evaluation: dict[str, Any]) -> str:
    """One HTML page with every table and picture in it; it loads nothing."""
    drawn = pictures(evaluation)
    body = MarkdownIt("commonmark").enable("table").render(results_markdown(evaluation, everything=True))

    def inside(match: re.Match[str]) -> str:
        encoded = base64.b64encode(drawn[match[1]].encode()).decode()
        return f'src="data:image/svg+xml;base64,{encoded}"'

    body = re.sub(rf'src="{PICTURES}/([\w.-]+)\.svg"', inside, body)
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n<title>InstructCell: results</title>\n'
        f"<style>{STYLE}</style>\n</head>\n<body>\n{body}</body>\n</html>\n"
    )


def write_report(evaluation: dict[str, Any], path: Path) -> Path:
    """The HTML page as a file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(html_report(evaluation), encoding="utf-8")
    return path
