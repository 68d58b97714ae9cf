"""Measuring a checkpoint on held-out cells, beside refitted baselines in the same run.

    tasks (train/tasks/*.yaml) -> the product's own tools on cells that training never saw -> figures with intervals
    -> evaluation.json -> model card, README tables, docs/results.md and one HTML report

Each question is a room of `train.evaluation` with a `measure(bench, task)`; a new one is added to MEASURES and to
`train.evaluation.tasks.KINDS`.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from train import leave_out
from train.datasets import LabelledCells
from train.evaluation import (
    annotation,
    bulk,
    calibration,
    clusters,
    context,
    drug,
    generation,
    panels,
    phrasing,
    readout,
    unknown,
)
from train.evaluation.bench import Bench
from train.evaluation.splits import refuse_another_recipe
from train.evaluation.tasks import Task, load_tasks

MEASURES: dict[str, Callable[[Bench, Any], Any]] = {
    "annotation": annotation.measure,
    "panels": panels.measure,
    "calibration": calibration.measure,
    "unknown": unknown.measure,
    "generation": generation.measure,
    "drug": drug.measure,
    "bulk": bulk.measure,
    "phrasing": phrasing.measure,
    "clusters": clusters.measure,
    "context": context.measure,
    "readout": readout.measure,
    "leave_studies_out": leave_out.measure_studies,
    "leave_types_out": leave_out.measure_types,
}


@dataclass
class Evaluation(Bench):
    """A checkpoint, the recipe's cells on its genes, and the tasks to measure.

    Examples
    --------
    >>> Evaluation(load_checkpoint("mini"), load_recipe("mini"), Path("data")).run()["drug"]  # doctest: +SKIP
    """

    tasks: Mapping[str, Task] = field(default_factory=load_tasks)

    def run(self) -> dict[str, Any]:
        """All figures, ready for evaluation.json.

        Raises
        ------
        ConfigError
            A test cell, or its group, was trained on; or the checkpoint was trained with another recipe.
        """
        refuse_another_recipe(self.checkpoint.labels, self.datasets)
        started = time.perf_counter()
        result: dict[str, Any] = {
            "checkpoint": self.checkpoint.hash,
            "recipe": leave_out.recipe_key(self.recipe),
            "seed": self.recipe.seed,
            "splits": {name: _split_row(cells) for name, cells in self.datasets.items()},
        }
        seconds = {}
        for kind, task in self.tasks.items():
            begun = time.perf_counter()
            result[kind] = MEASURES[kind](self, task)
            seconds[kind] = round(time.perf_counter() - begun, 1)
        for kind in ("leave_studies_out", "leave_types_out"):
            if kind not in result:
                result |= leave_out.finished(self, kind)
        result["seconds"] = seconds
        result["minutes"] = round((time.perf_counter() - started) / 60, 1)
        return result


def carry_over(result: dict[str, Any], folder: Path) -> dict[str, Any]:
    """Add what an earlier run measured and this one did not: on the same weights, or (slow tasks) by this recipe."""
    path = folder / "evaluation.json"
    if not path.is_file():
        return result
    earlier = json.loads(path.read_text(encoding="utf-8"))
    same = earlier.get("checkpoint") == result["checkpoint"]
    kept = {
        kind: earlier[kind]
        for kind in MEASURES
        if kind in earlier and _still_holds(kind, earlier[kind], result, same=same)
    }
    seconds = {**(earlier.get("seconds", {}) if same else {}), **result["seconds"]}
    return {**kept, **result, "seconds": seconds}


def _still_holds(kind: str, found: Any, result: dict[str, Any], *, same: bool) -> bool:
    """Whether an earlier figure is one of this checkpoint (`same`), recipe or drug screens."""
    if kind.startswith("leave_"):
        return bool(found.get("recipe") == result["recipe"])
    return found.get("weights") == bulk.weights_hash() if kind == "bulk" else same


def _split_row(cells: LabelledCells) -> dict[str, Any]:
    held = cells.entry.hold_out
    rule = (
        "all cells"
        if cells.entry.use == "evaluation"
        else held
        if isinstance(held, dict)
        else f"{held:.0%} of each label"
    )
    return {"training": int((~cells.held_out).sum()), "held_out": int(cells.held_out.sum()), "rule": rule}


def write_evaluation(result: dict[str, Any], folder: Path) -> Path:
    """Write evaluation.json into a checkpoint folder: sections on lines of their own, figures in one line."""
    path = folder / "evaluation.json"
    path.write_text(to_json(result) + "\n", encoding="utf-8")
    return path


def to_json(value: Any, depth: int = 0) -> str:
    """JSON that a reader can follow and a diff can show: short values in one line, long ones spread out."""
    flat = json.dumps(value, ensure_ascii=False, default=float)
    if len(flat) + depth <= 120 or not isinstance(value, (dict, list)):
        return flat
    pad = " " * (depth + 1)
    if isinstance(value, dict):
        rows = [f"{pad}{json.dumps(str(key))}: {to_json(row, depth + 1)}" for key, row in value.items()]
        return "{\n" + ",\n".join(rows) + "\n" + " " * depth + "}"
    if all(isinstance(row, (int, float, str)) for row in value):
        return flat
    return "[\n" + ",\n".join(pad + to_json(row, depth + 1) for row in value) + "\n" + " " * depth + "]"


__all__ = ["MEASURES", "Evaluation", "carry_over", "to_json", "write_evaluation"]
