"""Cell types of held-out cells, free and among the file's own labels, beside refitted baselines."""

from __future__ import annotations

from typing import Any

import numpy as np
from scipy import sparse

from instructcell import tools
from train import baselines, metrics
from train.evaluation import peers
from train.evaluation.bench import Answers, Bench
from train.evaluation.splits import describe
from train.evaluation.tasks import AnnotationTask, Target

FEW_GROUPS = 3  # fewer patients or donors cannot be redrawn


def measure(bench: Bench, task: AnnotationTask) -> dict[str, Any]:
    """Figures per file."""
    return {target.file: measure_target(bench, target) for target in task.targets}


def measure_target(bench: Bench, target: Target) -> dict[str, Any]:
    """The held-out cells of one file."""
    found = bench.answers(target)
    predicted = refitted(bench, target, found)
    groups = bench.column(target.file, target.resample, found.rows)
    if groups is not None and len(np.unique(groups)) < FEW_GROUPS:
        groups = None
    result = {
        "split": target.split,
        "held_out": describe(target),
        "cells": len(found.rows),
        "cells_with_labels_outside_the_checkpoint": len(found.outside),
        "coverage": round(found.coverage, 4),
        **_accuracies(bench, found, groups),
        "baselines": {model: _baseline(found.truth, labels, groups) for model, labels in predicted.items()},
        "margin": _margins(found, predicted, groups),
        "peers": _peers(bench, target, found),
        "per_class": metrics.per_class(found.truth, found.best),
        "confusion": metrics.confusion(found.truth, found.best),
        "risk_coverage": metrics.risk_coverage(found.confidence, found.correct),
    }
    if groups is not None:
        result["resampled_by"] = target.resample
    bench.say(
        f"{target.file}: accuracy {result['accuracy']['value']:.3f}, options "
        f"{result['accuracy_with_options']['value']:.3f}, baselines "
        + ", ".join(f"{name} {base['accuracy']:.3f}" for name, base in result["baselines"].items())
    )
    return result


def _accuracies(bench: Bench, found: Answers, groups: np.ndarray | None) -> dict[str, Any]:
    answer = found.free["cell_type"].to_numpy(str)
    among = found.among["best_guess"].to_numpy(str)
    legal = [*bench.checkpoint.labels.names, tools.UNKNOWN]
    narrower = [bench.is_or_narrower(a, t) for a, t in zip(answer, found.truth, strict=True)]
    return {
        "accuracy": _figure(metrics.accuracy, found.truth, answer, groups),
        "macro_f1": _figure(metrics.macro_f1, found.truth, answer, groups),
        "accuracy_or_narrower": round(float(np.mean(narrower)), 4),
        "accuracy_with_options": _figure(metrics.accuracy, found.truth, among, groups),
        "macro_f1_with_options": _figure(metrics.macro_f1, found.truth, among, groups),
        "unknown": round(float((answer == tools.UNKNOWN).mean()), 4),
        "ece": round(metrics.expected_calibration_error(found.confidence, found.correct), 4),
        "accepted_at_80": round(metrics.accepted_accuracy(found.confidence, found.correct, 0.8), 4),
        "illegal_labels": int((~np.isin(answer, legal)).sum()),
    }


def refitted(bench: Bench, target: Target, found: Answers) -> dict[str, np.ndarray]:
    """Labels [N] by each baseline, refitted on training cells of the target's own kind over the shared genes."""
    cells = bench.datasets[target.file]
    counts, labels, genes = training_cells(bench, target)
    if len(np.unique(labels)) < 2:
        return {}  # nothing to tell apart
    return baselines.refit_and_predict(counts, labels, cells.counts[found.rows], genes)


def training_cells(bench: Bench, target: Target) -> tuple[sparse.csr_matrix, np.ndarray, np.ndarray]:
    """Training cells of the files that the target names: counts [M, G], labels [M], genes that all measured [G]."""
    sources = [bench.datasets[name] for name in target.train_on or (target.file,)]
    genes = np.logical_and.reduce([bench.datasets[target.file].measured, *(source.measured for source in sources)])
    counts = sparse.vstack([source.counts[source.training_rows] for source in sources]).tocsr()
    return counts, np.concatenate([source.label[source.training_rows] for source in sources]), genes


def _baseline(truth: np.ndarray, predicted: np.ndarray, groups: np.ndarray | None) -> dict[str, Any]:
    accuracy, macro_f1 = (
        metrics.bootstrap(f, truth, predicted, groups=groups) for f in (metrics.accuracy, metrics.macro_f1)
    )
    return {
        "accuracy": round(accuracy.value, 4),
        "macro_f1": round(macro_f1.value, 4),
        "accuracy_interval": accuracy.to_dict(),
    }


def _margins(found: Answers, predicted: dict[str, np.ndarray], groups: np.ndarray | None) -> dict[str, Any] | None:
    """How far the free answers, and those with options, lie above the best baseline, with paired intervals."""
    if not predicted:
        return None
    best = max(predicted, key=lambda name: metrics.accuracy(found.truth, predicted[name]))

    def above(truth: np.ndarray, ours: np.ndarray, theirs: np.ndarray) -> float:
        return float((ours == truth).mean() - (theirs == truth).mean())

    ours = {"free": found.free["cell_type"].to_numpy(str), "with_options": found.among["best_guess"].to_numpy(str)}
    margins = {
        name: metrics.bootstrap(above, found.truth, answers, predicted[best], groups=groups).to_dict()
        for name, answers in ours.items()
    }
    return {"over": best, **margins}


def _peers(bench: Bench, target: Target, found: Answers) -> dict[str, Any]:
    """CellTypist and scANVI, trained as the baselines are; "not run" unless asked for now or before."""
    if not target.headline:
        return dict.fromkeys(peers.ANNOTATORS, peers.NOT_RUN)
    cells = bench.datasets[target.file]
    counts, labels, genes = training_cells(bench, target)
    if len(np.unique(labels)) < 2:
        return {}
    columns = np.flatnonzero(genes)
    names = [bench.checkpoint.processor.genes[j] for j in columns]
    test = cells.counts[found.rows][:, columns]
    answers = peers.annotate(bench.peers, counts[:, columns], labels, test, names, bench.runs / "peers")
    if answers is None:
        return dict.fromkeys(peers.ANNOTATORS, peers.NOT_RUN)
    for name, said in answers.items():
        bench.say(f"  {name}: {metrics.accuracy(found.truth, said):.3f}")
    return {
        name: {
            "accuracy": metrics.bootstrap(metrics.accuracy, found.truth, said).to_dict(),
            "macro_f1": metrics.bootstrap(metrics.macro_f1, found.truth, said).to_dict(),
        }
        for name, said in answers.items()
    }


def _figure(metric: Any, truth: np.ndarray, predicted: np.ndarray, groups: np.ndarray | None) -> dict[str, float]:
    return metrics.bootstrap(metric, truth, predicted, groups=groups).to_dict()
