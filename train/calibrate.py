"""From scores to probabilities: a temperature for labels, one for drug responses, and the unknown threshold.

The label temperature and the threshold are fitted on held-out cells of the files that no headline figure of the card is
quoted on. The drug temperature needs the few held-out cells with a response: it changes how sure a response sounds,
never which one it is nor how cells are ranked, so accuracy and AUROC do not depend on it.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from scipy.optimize import minimize_scalar

from instructcell.generation import score_labels
from instructcell.labels import LabelSet
from instructcell.model import InstructCellForConditionalGeneration
from instructcell.processor import InstructCellProcessor, Prompt
from instructcell.prompts import DRUG_ANSWERS, annotation_prompt, drug_prompt
from instructcell.tools import calibrate as apply_temperature
from train.card import HEADLINE
from train.datasets import LabelledCells

MOST_CELLS = 300  # per file
MOST_CORRECT_REFUSED = 0.005  # share of right answers that the unknown threshold may cost


def fit_calibration(
    model: InstructCellForConditionalGeneration,
    processor: InstructCellProcessor,
    labels: LabelSet,
    datasets: Sequence[LabelledCells],
    *,
    seed: int = 0,
) -> dict[str, float]:
    """Temperatures and threshold for calibration.json."""
    model.eval()
    names = labels.names
    fitted_on = [cells for cells in datasets if cells.name not in HEADLINE and cells.held_out.any()]
    probabilities, truth = [], []
    for cells in fitted_on:
        rows = _some(np.flatnonzero(cells.held_out & np.isin(cells.label, names)), seed)
        prompt = annotation_prompt(species=str(cells.species[0]))
        probabilities.append(_score(model, processor, cells, rows, prompt, names))
        truth += [names.index(str(label)) for label in cells.label[rows]]
    scores, right = np.concatenate(probabilities), np.array(truth)
    temperature = fit_temperature(scores, right)
    calibrated = apply_temperature(scores, temperature)
    correct = calibrated.argmax(1) == right
    threshold = float(np.quantile(calibrated.max(1)[correct], MOST_CORRECT_REFUSED))
    drug_scores, drug_right = _drug_scores(model, processor, datasets, seed)
    return {
        "temperature": round(temperature, 4),
        "unknown_below": round(threshold, 4),
        "drug_temperature": round(fit_temperature(drug_scores, drug_right), 4),
    }


def fit_temperature(probabilities: np.ndarray, truth: np.ndarray) -> float:
    """The temperature that makes the true labels likeliest: probabilities [N, C], truth [N] -> between 0.25 and 10."""

    def loss(log_temperature: float) -> float:
        calibrated = apply_temperature(probabilities, float(np.exp(log_temperature)))
        return float(-np.log(np.clip(calibrated[np.arange(len(truth)), truth], 1e-12, 1.0)).mean())

    return float(np.exp(minimize_scalar(loss, bounds=(np.log(0.25), np.log(10.0)), method="bounded").x))


def _drug_scores(
    model: InstructCellForConditionalGeneration,
    processor: InstructCellProcessor,
    datasets: Sequence[LabelledCells],
    seed: int,
) -> tuple[np.ndarray, np.ndarray]:
    scores, truth = [], []
    for cells in datasets:
        for names, responses in cells.drugs:
            for name in np.unique(names):
                rows = _some(np.flatnonzero(cells.held_out & (names == name) & (responses != "")), seed)
                if len(rows):
                    prompt = drug_prompt(str(name))  # as the tools ask
                    scores.append(_score(model, processor, cells, rows, prompt, DRUG_ANSWERS))
                    truth += [DRUG_ANSWERS.index(str(response)) for response in responses[rows]]
    return np.concatenate(scores), np.array(truth)


def _some(rows: np.ndarray, seed: int) -> np.ndarray:
    return np.sort(np.random.default_rng(seed).permutation(rows)[:MOST_CELLS])


def _score(
    model: InstructCellForConditionalGeneration,
    processor: InstructCellProcessor,
    cells: LabelledCells,
    rows: np.ndarray,
    prompt: str,
    answers: Sequence[str],
) -> np.ndarray:
    measured = np.broadcast_to(cells.measured, (len(rows), len(cells.measured)))
    prompts = [Prompt.parse(prompt)] * len(rows)
    with torch.no_grad():
        return np.asarray(score_labels(model, processor, prompts, cells.counts[rows], measured, list(answers)))
