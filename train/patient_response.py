"""How the memory score of a patient's T cells goes with response to checkpoint inhibitors, fitted on training patients.

    python -m train.patient_response --model mini --data data

Taken are the files whose drug entry names the drug per cell (each patient got one) and whose cells name their donors.
The result is written as `patient_response` into the checkpoint's calibration.json; `instructcell train` fits it at its
end, and `--recalibrate` again. What it was chosen from stands in docs/trials.md.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Sequence
from itertools import product
from pathlib import Path

import numpy as np

from instructcell.patient_response import KEY, PatientResponse, memory_scores
from instructcell.prompts import DRUG_ANSWERS
from train import metrics
from train.datasets import LabelledCells
from train.refit import refit

LEAST_PATIENTS = 3  # of each response


def fit_patients(
    datasets: Sequence[LabelledCells], genes: Sequence[str], *, say: Callable[[str], None] = print
) -> PatientResponse | None:
    """Fitted on the training cells of the files whose patients got a drug each; None where there are too few."""
    parts = [_training_patients(cells, genes) for cells in datasets if _one_drug_each(cells)]
    if not parts:
        return None
    scores, patients, sensitive, drugs = (np.concatenate(part) for part in zip(*parts, strict=True))
    sizes = [len(np.unique(patients[sensitive == response])) for response in (True, False)]
    if min(sizes) < LEAST_PATIENTS:
        say(f"patients' response: too few patients ({sizes[0]} responded, {sizes[1]} did not)")
        return None
    fitted = PatientResponse.fit(sorted(set(drugs)), scores, patients, sensitive)
    say(
        f"patients' response: {fitted.patients} patients, AUROC of cells {pair_auroc(scores, patients, sensitive):.3f} "
        f"between two patients, of patients {metrics.auroc(*_by_patient(sensitive, scores, patients)):.3f}"
    )
    return fitted


def pair_auroc(scores: np.ndarray, patients: np.ndarray, sensitive: np.ndarray) -> float:
    """AUROC of cells [N] between one patient who responded and one who did not, the mean over all such pairs."""
    of_cell = patients.astype(str)
    yes, no = (np.unique(of_cell[sensitive == response]) for response in (True, False))
    pairs = [np.isin(of_cell, pair) for pair in product(yes, no)]
    return float(np.mean([metrics.auroc(sensitive[pair].astype(int), scores[pair]) for pair in pairs]))


def _by_patient(sensitive: np.ndarray, scores: np.ndarray, patients: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    names = np.unique(patients)
    first = [int(sensitive[patients == name][0]) for name in names]
    return np.array(first), np.array([scores[patients == name].mean() for name in names])


def _one_drug_each(cells: LabelledCells) -> bool:
    named = any(drug.name_column for drug in cells.entry.drug)
    return named and cells.donor is not None and bool((cells.donor != "").any())


def _training_patients(
    cells: LabelledCells, genes: Sequence[str]
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Scores, patients, whether these responded and their drugs [N] of the training cells of one file."""
    names, responses = cells.drugs[[bool(drug.name_column) for drug in cells.entry.drug].index(True)]
    donors = np.asarray(cells.donor)
    rows = np.flatnonzero(~cells.held_out & (responses != "") & (donors != ""))
    scores = memory_scores(cells.counts[rows], cells.measured, genes)
    of_file = np.char.add(f"{cells.name}/", donors[rows].astype(str))
    return scores, of_file, responses[rows] == DRUG_ANSWERS[0], names[rows]


def write_patients(folder: Path, fitted: PatientResponse | None) -> None:
    """Put it into calibration.json beside what stands there; None takes out what stands there."""
    path = folder / "calibration.json"
    calibration = json.loads(path.read_text(encoding="utf-8"))
    calibration.pop(KEY, None)
    if fitted is not None:
        calibration[KEY] = fitted.to_dict()
    path.write_text(json.dumps(calibration, indent=1) + "\n", encoding="utf-8")


def main(arguments: Sequence[str] | None = None) -> int:
    """Fit and write; 0 done, 2 the data or the checkpoint cannot be had."""
    return refit(
        "train.patient_response",
        __doc__,
        lambda entry: bool(entry.drug),
        lambda checkpoint, recipe, datasets: write_patients(
            checkpoint.path, fit_patients(datasets, checkpoint.processor.genes)
        ),
        arguments,
    )


if __name__ == "__main__":
    sys.exit(main())
