"""The fast read-out of large tables beside the language model it was fitted to, on the same held-out cells."""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np

from instructcell import tools
from train import metrics
from train.evaluation.bench import Bench
from train.evaluation.tasks import ReadoutTask, Target


def measure(bench: Bench, task: ReadoutTask) -> dict[str, Any]:
    """Per file: how many cells are named alike, `unknown` included, and how many were left to the language model."""
    if bench.checkpoint.readout is None:
        return {}
    result = {target.file: _beside(bench, target) for target in task.targets}
    same, n_cells = (sum(row[key] for row in result.values()) for key in ("same_label", "cells"))
    bench.say(f"read-out: says what the language model says of {same / n_cells:.2%} of {n_cells:,} cells")
    return result


def _beside(bench: Bench, target: Target) -> dict[str, Any]:
    """One file, without and with the tissue named in the prompt."""
    rows = bench.tested(target)
    cells, adata = bench.datasets[target.file], bench.file(target.file, rows)
    truth = cells.label[rows]
    tissues = Counter(str(tissue) for tissue in cells.tissue[rows] if tissue).most_common(1)
    result: dict[str, Any] = {"cells": len(rows)}
    for words, tissue in (("", None), *(("_with_tissue", tissue) for tissue, _ in tissues)):
        slow, fast = (
            tools.annotate(adata.copy(), checkpoint=bench.checkpoint, tissue=tissue, engine=engine)
            for engine in ("lm", "readout")
        )
        ours, theirs = (found.table["cell_type"].to_numpy(str) for found in (fast, slow))
        result[f"same_label{words}"] = int(np.sum(ours == theirs))
        result[f"left_to_the_language_model{words}"] = fast.n_by_lm
        result[f"accuracy{words}"] = round(metrics.accuracy(truth, ours), 4)
        result[f"accuracy_of_the_language_model{words}"] = round(metrics.accuracy(truth, theirs), 4)
    return result
