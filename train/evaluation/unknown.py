"""Are cells of a type that the checkpoint does not have less sure, or less familiar, than the others of their file?"""

from __future__ import annotations

from typing import Any

import numpy as np

from instructcell import tools
from train import metrics
from train.evaluation.bench import Bench
from train.evaluation.tasks import UnknownTask


def measure(bench: Bench, task: UnknownTask) -> dict[str, Any]:
    """Per file with such cells: how well low confidence, and low familiarity where the checkpoint has a reference, tell
    them (AUROC), and how many are called unknown."""
    result = {}
    for target in task.targets:
        found = bench.answers(target)
        if not len(found.outside):
            continue
        stranger = np.concatenate([np.zeros(len(found.free)), np.ones(len(found.outside))])
        confidence = np.concatenate([found.confidence, found.outside["confidence"].to_numpy(float)])
        result[target.file] = {
            "labels": sorted(set(found.outside_truth)),
            "cells": len(found.outside),
            "auroc": metrics.bootstrap(metrics.auroc, stranger, -confidence).to_dict(),
            "called_unknown": round(float((found.outside["cell_type"] == tools.UNKNOWN).mean()), 4),
            "known_called_unknown": round(float((found.free["cell_type"] == tools.UNKNOWN).mean()), 4),
        }
        if "familiarity" in found.free:
            familiarity = np.concatenate([part["familiarity"].to_numpy(float) for part in (found.free, found.outside)])
            found_auroc = metrics.bootstrap(metrics.auroc, stranger, -familiarity)
            result[target.file]["auroc_familiarity"] = found_auroc.to_dict()
        bench.say(f"unknown cells of {target.file}: AUROC {result[target.file]['auroc']['value']:.3f}")
    return result
