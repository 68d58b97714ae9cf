"""A drug's answers balanced: one offset per drug on the log-odds of "sensitive", fitted on training cells.

    python -m train.drug_offsets --model mini --data data

A model may rank the cells of a drug well and still call all of them sensitive. The offset moves the threshold and
leaves the ranking, and so the AUROC, as it is. It is written as `drug_offsets` into the checkpoint's calibration.json;
`instructcell train` fits it at its end, and `--recalibrate` again.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from scipy.optimize import minimize_scalar
from scipy.special import expit, logit

from instructcell import tools
from instructcell.checkpoint import Checkpoint
from instructcell.generation import score_labels
from instructcell.processor import Prompt
from instructcell.prompts import DRUG_ANSWERS, drug_prompt
from train.datasets import LabelledCells
from train.refit import refit

MOST_CELLS = 300  # of a drug
LEAST_CELLS = 8  # of each response
MOST = 4.0  # an offset is at most this far from 0
PULL = 0.02  # towards 0: log-loss that an offset of 1 must save


def fit_offset(p_sensitive: np.ndarray, sensitive: np.ndarray) -> float:
    """The offset that makes the responses likeliest, both responses counting alike.

    Parameters
    ----------
    p_sensitive
        What the model said [N], 0..1.
    sensitive
        What was measured [N] bool, both values present.
    """
    log_odds = logit(np.clip(p_sensitive, 1e-6, 1 - 1e-6))
    weights = np.where(sensitive, 0.5 / sensitive.sum(), 0.5 / (~sensitive).sum())

    def loss(offset: float) -> float:
        chance = expit(np.where(sensitive, 1.0, -1.0) * (log_odds + offset))
        return float(-(weights * np.log(np.clip(chance, 1e-12, 1.0))).sum() + PULL * offset**2)

    return float(minimize_scalar(loss, bounds=(-MOST, MOST), method="bounded").x)


def fit_offsets(
    checkpoint: Checkpoint, datasets: Sequence[LabelledCells], *, seed: int = 0, say: Callable[[str], None] = print
) -> dict[str, float]:
    """Offsets of the drugs with training cells of both responses."""
    found = {}
    for drug in tools.drugs_of(checkpoint):
        scores, truth = _training_cells(checkpoint, datasets, drug.name, seed)
        if min(truth.sum(), (~truth).sum(), len(truth)) < LEAST_CELLS:
            say(f"{drug.name}: too few training cells of one response ({truth.sum()} sensitive of {len(truth)})")
            continue
        found[drug.name] = round(fit_offset(scores, truth), 4)
        before, after = (float(((scores >= cut) == truth).mean()) for cut in (0.5, expit(-found[drug.name])))
        say(f"{drug.name}: offset {found[drug.name]:+.2f}, training accuracy {before:.3f} -> {after:.3f}")
    return found


def _training_cells(
    checkpoint: Checkpoint, datasets: Sequence[LabelledCells], drug: str, seed: int
) -> tuple[np.ndarray, np.ndarray]:
    """What the model says of the training cells of a drug [N], and whether they are sensitive [N]."""
    scores, truth = [np.zeros(0)], [np.zeros(0, bool)]
    for cells in datasets:
        for names, responses in cells.drugs:
            rows = np.flatnonzero(~cells.held_out & (names == drug) & (responses != ""))
            rows = np.sort(np.random.default_rng(seed).permutation(rows)[:MOST_CELLS])
            if len(rows):
                scores.append(_p_sensitive(checkpoint, cells, rows, drug))
                truth.append(responses[rows] == DRUG_ANSWERS[0])
    return np.concatenate(scores), np.concatenate(truth)


def _p_sensitive(checkpoint: Checkpoint, cells: LabelledCells, rows: np.ndarray, drug: str) -> np.ndarray:
    """P(sensitive) [N] of the language model, without temperature and offset."""
    measured = np.broadcast_to(cells.measured, (len(rows), len(cells.measured)))
    prompts = [Prompt.parse(drug_prompt(drug))] * len(rows)
    model, processor = checkpoint.model, checkpoint.processor
    scores = score_labels(model, processor, prompts, cells.counts[rows], measured, list(DRUG_ANSWERS))
    return np.asarray(scores)[:, 0].astype(float)


def write_offsets(folder: Path, offsets: dict[str, float]) -> None:
    """Put the offsets into calibration.json, beside what stands there."""
    path = folder / "calibration.json"
    calibration = json.loads(path.read_text(encoding="utf-8"))
    path.write_text(json.dumps({**calibration, "drug_offsets": offsets}, indent=1) + "\n", encoding="utf-8")


def main(arguments: Sequence[str] | None = None) -> int:
    """Fit and write; 0 done, 2 the data or the checkpoint cannot be had."""
    return refit(
        "train.drug_offsets",
        __doc__,
        lambda entry: bool(entry.drug),
        lambda checkpoint, recipe, datasets: write_offsets(
            checkpoint.path, fit_offsets(checkpoint, datasets, seed=recipe.seed)
        ),
        arguments,
    )


if __name__ == "__main__":
    sys.exit(main())
