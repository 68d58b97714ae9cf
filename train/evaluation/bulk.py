"""The bulk-to-cell drug route on lines, tissues and single cells that its fit never saw, beside ridge regression."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from instructcell.batches import look
from instructcell.bulk import WEIGHTS, ScreenSettings
from instructcell.bulk_drugs import ScreenedDrug
from instructcell.bulk_response import Groups, rank_steps
from instructcell.resources import file_sha256, resource_path
from instructcell.resources.build import CACHE
from instructcell.tools import finish
from train import bulk as fitting
from train import metrics
from train.bulk_fit import fit_kernel, normal_scores, ridge_predictions
from train.bulk_tables import Screens, line_key, load_screens, read_tissues
from train.evaluation.bench import Bench
from train.evaluation.tasks import BulkTask

LEAST_LINES = 4  # that were measured, for a drug to be ranked between the lines of a file
NAMED = (
    "Erlotinib",
    "Gefitinib",
    "Afatinib",
    "Trametinib",
    "Dabrafenib",
    "Venetoclax",
    "Olaparib",
    "Cisplatin",
    "Nutlin-3a",
)


def weights_hash() -> str:
    """Of the weights that ship; figures of other weights are not carried over."""
    return file_sha256(resource_path(WEIGHTS))[:16]


def measure(bench: Bench, task: BulkTask) -> dict[str, Any]:
    """Held-out lines, held-out tissues, drugs left out, and single cells of lines left out."""
    return measured(load_screens(CACHE), bench.data, task, bench.say)


def measured(screens: Screens, data: Path, task: BulkTask, say: Callable[[str], None]) -> dict[str, Any]:
    """The same from tables that are at hand."""
    folds = fitting.folds_by_line(len(screens.lines))
    ours = fitting.predict_held_out(screens, folds)
    result: dict[str, Any] = {
        "weights": weights_hash(),
        "lines": len(screens.lines),
        "drugs": len(screens.drugs),
        "by_line": compared(screens, ours, fitting.ridge_held_out(screens, folds), names=NAMED),
        "new_drugs": new_drugs(screens, ours),
    }
    say(_words("held-out lines", result["by_line"]))
    tissues = read_tissues(data)
    if tissues:
        of_line = np.array([tissues.get(name, "") for name in screens.lines])
        folds = fitting.folds_by_tissue(of_line)
        by_tissue = fitting.predict_held_out(screens, folds), fitting.ridge_held_out(screens, folds)
        result["by_tissue"] = compared(screens, *by_tissue) | {"tissues": len(set(of_line) - {""})}
        say(_words("held-out tissues", result["by_tissue"]))
    if task.file:
        result["cells"] = cells_of_lines(screens, data, task)
        say(f"{task.file}: rank correlation across drugs {result['cells']['mean']:.3f} of lines left out")
    return result


def compared(screens: Screens, ours: np.ndarray, ridge: np.ndarray, names: tuple[str, ...] = ()) -> dict[str, Any]:
    """Spearman per drug of both on the same folds: medians with intervals over drugs, and the paired difference."""
    a, b = (fitting.per_drug(found, screens.sensitivity) for found in (ours, ridge))
    known = np.isfinite(a) & np.isfinite(b)
    a, b = a[known], b[known]
    listed = [drug.name for drug, kept in zip(screens.drugs, known, strict=True) if kept]
    return {
        "drugs": int(known.sum()),
        "ours": metrics.bootstrap(lambda values: float(np.median(values)), a).to_dict(),
        "ridge": metrics.bootstrap(lambda values: float(np.median(values)), b).to_dict(),
        "gain": metrics.bootstrap(lambda x, y: float(np.median(x - y)), a, b).to_dict(),
        "better": round(float((a > b).mean()), 4),
        "above_0.35": round(float((a >= 0.35).mean()), 4),
        "named": [
            [name, round(float(a[listed.index(name)]), 3), round(float(b[listed.index(name)]), 3)]
            for name in names
            if name in listed
        ],
    }


def new_drugs(screens: Screens, ours: np.ndarray) -> dict[str, Any]:
    """Drugs left out as well as lines: known only by structure and target, beside the mean of all drugs."""
    found, _ = fitting.predict_new_drugs(ours, screens.drugs)
    described = np.array([bool(drug.smiles or drug.target) for drug in screens.drugs])
    alike = np.repeat(ours.mean(axis=1, keepdims=True), len(screens.drugs), axis=1)
    figures = {"described": found, "mean_of_all": alike, "itself": ours}
    return {"drugs": int(described.sum())} | {
        name: round(float(np.nanmedian(fitting.per_drug(values, screens.sensitivity)[described])), 4)
        for name, values in figures.items()
    }


def cells_of_lines(screens: Screens, data: Path, task: BulkTask) -> dict[str, Any]:
    """Single cells of screened lines, by the product's own tool with a fit that never saw these lines or this file."""
    from instructcell.cells import read

    adata = read(data / f"{task.file}.h5ad")
    groups = Groups.of(adata, "cell_line")
    keys = [line_key(name) for name in groups.names]
    rest = screens.without(set(keys))
    fit = fit_kernel(rest.expression, rest.sensitivity)
    drugs = [ScreenedDrug(d.name, n_lines=max(d.n_lines, 1), spearman=1.0) for d in screens.drugs]
    settings = ScreenSettings(fit.width, fit.ridge, 0.0)
    screen = fitting.make_screen(rest, fit, drugs, settings, data, task.studies)
    table = finish(rank_steps(adata, groups, look(adata, screen.genes), screen=screen)).table
    predicted = table.pivot(index="group", columns="drug", values="sensitivity")
    predicted = predicted.loc[list(groups.names), [drug.name for drug in drugs]].to_numpy()
    found = {key: row for row, key in enumerate(screens.lines)}
    rows = [found[key] for key in keys if key in found]
    kept = [i for i, key in enumerate(keys) if key in found]
    truth = normal_scores(screens.sensitivity)[rows]
    bulk = (
        ridge_predictions(rest.expression, rest.sensitivity, screens.expression[rows]),
        fit.predict(screens.expression[rows]),
    )
    return {
        "file": task.file,
        "lines": {groups.names[i]: _rank(predicted[i], truth[n]) for n, i in enumerate(kept)},
        "mean": round(float(np.mean([_rank(predicted[i], truth[n]) for n, i in enumerate(kept)])), 4),
        "from_bulk": round(float(np.mean([_rank(bulk[1][n], truth[n]) for n in range(len(kept))])), 4),
        "ridge_from_bulk": round(float(np.mean([_rank(bulk[0][n], truth[n]) for n in range(len(kept))])), 4),
        "between_lines": _between(predicted[kept], truth),
    }


def _rank(predicted: np.ndarray, measured: np.ndarray) -> float:
    """Rank correlation across the drugs that were measured on a line."""
    known = np.isfinite(measured)
    return round(metrics.spearman(predicted[known], measured[known]), 4)


def _between(predicted: np.ndarray, measured: np.ndarray) -> float:
    """Rank correlation of differences between lines: both sides without each drug's mean over the lines."""
    known = np.isfinite(measured)
    usable = known & (known.sum(axis=0) >= LEAST_LINES)[None]
    counts = np.maximum(usable.sum(axis=0), 1)
    centred = [np.where(usable, x, 0.0) - np.where(usable, x, 0.0).sum(axis=0) / counts for x in (predicted, measured)]
    return round(metrics.spearman(centred[0][usable], centred[1][usable]), 4)


def _words(what: str, found: dict[str, Any]) -> str:
    ours, ridge, gain = (found[name]["value"] for name in ("ours", "ridge", "gain"))
    return f"{what}: median Spearman {ours:.3f}, ridge {ridge:.3f}, paired difference {gain:+.4f}"
