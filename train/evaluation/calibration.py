"""Whether confidence means something: reliability, calibration error, and accuracy of the answers one would accept."""

from __future__ import annotations

from collections import defaultdict
from typing import Any

import numpy as np

from train import metrics
from train.card import HEADLINE
from train.evaluation.bench import Bench
from train.evaluation.tasks import CalibrationTask, Target

POOLS = {  # split: the pool its targets belong to
    "cell": "other cells of known samples",
    "donor": "held-out donors and batches",
    "batch": "held-out donors and batches",
    "study": "held-out studies and technologies",
    "technology": "held-out studies and technologies",
    "species": "held-out studies and technologies",
}
FITTED = "cells that the temperature was fitted on"  # held-out cells of the files that are no headline


def measure(bench: Bench, task: CalibrationTask) -> dict[str, Any]:
    """Per pool: calibration error, reliability, risk against coverage.

    `train.calibrate` fits the temperature on held-out cells of all files but the headline ones; those cells have a pool
    of their own, so that no other figure is flattered by it.
    """
    pools: dict[str, list[Target]] = defaultdict(list)
    for target in task.targets:
        pools[POOLS[target.split] if target.file in HEADLINE else FITTED].append(target)
    result = {name: _pool(bench, targets, task.coverage) for name, targets in pools.items()}
    for name, found in result.items():
        bench.say(f"calibration, {name}: ECE {found['ece']:.3f}, {found['accepted_accuracy']:.3f} of accepted right")
    return result


def _pool(bench: Bench, targets: list[Target], coverage: float) -> dict[str, Any]:
    answers = [bench.answers(target) for target in targets]
    confidence = np.concatenate([found.confidence for found in answers])
    correct = np.concatenate([found.correct for found in answers])
    return {
        "files": [target.file for target in targets],
        "cells": len(confidence),
        "accuracy": round(float(correct.mean()), 4),
        "ece": round(metrics.expected_calibration_error(confidence, correct), 4),
        "ece_mean_over_files": round(
            float(np.mean([metrics.expected_calibration_error(f.confidence, f.correct) for f in answers])), 4
        ),
        "brier": round(float(np.mean((confidence - correct) ** 2)), 4),
        "coverage": coverage,
        "accepted_accuracy": round(metrics.accepted_accuracy(confidence, correct, coverage), 4),
        "accepted_accuracy_mean_over_files": round(
            float(np.mean([metrics.accepted_accuracy(f.confidence, f.correct, coverage) for f in answers])), 4
        ),
        "reliability": metrics.reliability(confidence, correct),
        "risk_coverage": metrics.risk_coverage(confidence, correct),
    }
