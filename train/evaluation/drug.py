"""Measured drug responses of held-out cells, beside classifiers fitted on the training cells."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from instructcell import tools
from instructcell.prompts import DRUG_ANSWERS
from train import baselines, metrics
from train.datasets import LabelledCells
from train.evaluation.bench import Bench
from train.evaluation.tasks import DrugTask, Target


def measure(bench: Bench, task: DrugTask) -> list[dict[str, Any]]:
    """Figures per file and drug; drugs of one trial (a drug per patient) are judged together."""
    results = []
    for target in task.targets:
        rows = bench.tested(target)
        cells = bench.datasets[target.file]
        for names, responses in cells.drugs:
            for drugs in _together(names, rows):
                results.append(_measure_drugs(bench, task, target, drugs, names, responses))
    return results


def _together(names: np.ndarray, rows: np.ndarray) -> list[tuple[str, ...]]:
    """Drugs measured on one another's cells apart, drugs of one trial (a drug per patient) together."""
    found = [str(name) for name in np.unique(names[rows])]
    return [tuple(found)] if len(found) > 1 else [(name,) for name in found]


def _measure_drugs(
    bench: Bench,
    task: DrugTask,
    target: Target,
    drugs: tuple[str, ...],
    names: np.ndarray,
    responses: np.ndarray,
) -> dict[str, Any]:
    cells = bench.datasets[target.file]
    usable = np.isin(names, drugs) & (responses != "")
    tested = bench.tested(target)
    rows, known = tested[usable[tested]], np.flatnonzero(usable & ~cells.held_out)
    score = _predicted(bench, target.file, rows, names, drugs)
    sensitive = (responses[rows] == DRUG_ANSWERS[0]).astype(int)
    groups = bench.column(target.file, target.resample, rows)
    fitted = _fitted(cells, known, responses[known] == DRUG_ANSWERS[0], rows)
    figures: dict[str, Any] = {
        "file": target.file,
        "split": target.split,
        "drugs": list(drugs),
        "cells": len(rows),
        "sensitive": int(sensitive.sum()),
        "instructcell": _figures(sensitive, score, groups),
        **{name: _figures(sensitive, scores, groups) for name, scores in fitted.items()},
    }
    if groups is not None:
        figures["resampled_by"] = "patient"
        figures["groups"] = _by_group(sensitive, score, groups)
        averaged = pd.Series(fitted["logistic_regression"]).groupby(groups).transform("mean").to_numpy()
        figures["logistic_regression_by_patient"] = _figures(sensitive, averaged, groups)
    for potency in task.potency:
        if potency.drug in drugs and potency.column in bench.obs(target.file):
            ic50 = bench.obs(target.file)[potency.column].astype(float).to_numpy()[rows]
            figures["potency"] = _potency(score, ic50, cells.label[rows])
    ours, base = figures["instructcell"], figures["logistic_regression"]
    bench.say(
        f"{'/'.join(drugs)} ({target.file}): balanced accuracy {ours['balanced_accuracy']['value']:.3f}, "
        f"AUROC {ours['auroc']['value']:.3f}; logistic regression {base['auroc']['value']:.3f}"
    )
    return figures


def _predicted(bench: Bench, file: str, rows: np.ndarray, names: np.ndarray, drugs: tuple[str, ...]) -> np.ndarray:
    """P(sensitive) [N] by the product's own tool, each cell asked about its own drug."""
    score = np.zeros(len(rows))
    for drug in drugs:
        of_drug = names[rows] == drug
        if of_drug.any():
            result = tools.drug_response(bench.file(file, rows[of_drug]), drug=drug, checkpoint=bench.checkpoint)
            score[of_drug] = result.table["p_sensitive"].to_numpy()
    return score


def _fitted(cells: LabelledCells, known: np.ndarray, sensitive: np.ndarray, rows: np.ndarray) -> dict[str, np.ndarray]:
    """P(sensitive) [N] of the test cells by models fitted on the training cells."""
    genes = np.flatnonzero(cells.measured)
    train, test = (metrics.log_normalise(cells.counts[chosen][:, genes]) for chosen in (known, rows))
    models = {
        "logistic_regression": baselines.logistic_regression(),
        "nearest_neighbours": baselines.nearest_neighbours(len(known)),
    }
    scores = {name: model.fit(train, sensitive).predict_proba(test)[:, -1] for name, model in models.items()}
    return {**scores, "majority": np.full(len(rows), float(sensitive.mean()))}


def _figures(sensitive: np.ndarray, score: np.ndarray, groups: np.ndarray | None) -> dict[str, Any]:
    said = (score >= 0.5).astype(int)
    return {
        "balanced_accuracy": metrics.bootstrap(metrics.balanced_accuracy, sensitive, said, groups=groups).to_dict(),
        "auroc": metrics.bootstrap(metrics.auroc, sensitive, score, groups=groups).to_dict(),
        "spearman": _or_none(metrics.spearman, score, sensitive),
    }


def _by_group(sensitive: np.ndarray, score: np.ndarray, groups: np.ndarray) -> list[dict[str, Any]]:
    """Mean prediction per patient beside the measured response."""
    return [
        {
            "group": str(name),
            "cells": int((groups == name).sum()),
            "sensitive": bool(sensitive[groups == name].mean() >= 0.5),
            "p_sensitive": round(float(score[groups == name].mean()), 4),
        }
        for name in np.unique(groups)
    ]


def _potency(score: np.ndarray, ic50: np.ndarray, lines: np.ndarray) -> dict[str, Any]:
    """Rank correlation of P(sensitive) with measured potency (minus log IC50), over cells and over lines' means."""
    known = np.isfinite(ic50)
    score, potency, lines = score[known], -ic50[known], lines[known]
    names = np.unique(lines)
    means = np.array([score[lines == name].mean() for name in names])
    measured = np.array([potency[lines == name].mean() for name in names])
    return {
        "lines": len(names),
        "spearman_cells": _or_none(metrics.spearman, score, potency),
        "spearman_lines": _or_none(metrics.spearman, means, measured),
    }


def _or_none(metric: Any, *columns: np.ndarray) -> float | None:
    """A figure, or None where the metric is not defined on these values."""
    try:
        return round(metric(*columns), 4)
    except ValueError:
        return None
