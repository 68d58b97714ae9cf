"""Response to checkpoint inhibitors, read from T cells patient by patient.

The response is the patient's, not the cell's, and it was measured on few patients: whatever is fitted to their genes
learns the patients. So a cell's score has nothing fitted: the mean rank of memory genes within the cell minus that of
cytotoxic genes. Ranks depend neither on depth nor on unit. The scores of one patient's cells are averaged, and two
normal distributions with one variance, of responders' and of others' means, make the log-odds:

    log-odds = (sensitive - resistant) (mean - middle) / (between + within / cells)

A cell whose patient is not known is a patient of one cell, and its log-odds is accordingly small.

Memory-like against cytotoxic and exhausted T cells: Sade-Feldman et al. 2018, doi:10.1016/j.cell.2018.10.038; TCF7 and
checkpoint inhibition before it: Im et al. 2016, doi:10.1038/nature19330.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from typing import Any

import numpy as np
import pandas as pd
import scipy.sparse as sp
from scipy.special import expit
from scipy.stats import rankdata

from instructcell.errors import CheckpointError, GeneAlignmentError

MEMORY = "TCF7 IL7R CCR7 SELL LEF1 S1PR1 KLF2 LTB GPR183 CD28 PLAC8 TXNIP BACH2 FOXP1".split()
CYTOTOXIC = "GZMB PRF1 GZMA NKG7 GNLY IFNG FASLG KLRD1 GZMH".split()
LEAST_GENES = 3  # of each set, that a file must have measured
PATIENT_COLUMNS = ("donor", "patient", "subject", "individual", "donor_id", "patient_id", "subject_id")
KEY = "patient_response"  # in calibration.json


@dataclass(frozen=True)
class PatientResponse:
    """How the mean score of a patient's T cells goes with response.

    Attributes
    ----------
    drugs
        Names of the drugs that it answers for, all alike.
    sensitive, resistant
        Mean of the patients' mean scores, of those who responded and of the others.
    between, within
        Variance between patients of one response, and between the cells of one patient.
    patients
        How many it was fitted to.
    """

    drugs: tuple[str, ...]
    sensitive: float
    resistant: float
    between: float
    within: float
    patients: int

    @classmethod
    def of(cls, calibration: Mapping[str, Any], drug: str) -> PatientResponse | None:
        """What calibration.json holds for a drug, None where it holds nothing.

        Raises
        ------
        CheckpointError
            The entry is not one that `train.patient_response` writes.
        """
        found = calibration.get(KEY)
        if found is None:
            return None
        try:
            response = cls(**{**found, "drugs": tuple(found["drugs"])})
            sound = min(response.between, response.within) > 0 and response.patients > 0
        except (TypeError, KeyError):
            sound = False
        if not sound:
            names = ", ".join(field.name for field in fields(cls))
            raise CheckpointError(
                f"calibration.json holds {found!r} as {KEY}; expected {names} with variances above 0. Fit it again "
                "with `python -m train.patient_response`."
            )
        return response if drug in response.drugs else None

    @classmethod
    def fit(
        cls, drugs: Sequence[str], scores: np.ndarray, patients: np.ndarray, sensitive: np.ndarray
    ) -> PatientResponse:
        """From the scores of cells [N], the names of their patients [N] and whether these responded [N] bool."""
        cells = pd.DataFrame({"score": scores, "patient": patients, "sensitive": sensitive})
        grouped = cells.groupby("patient")
        of_patient = grouped.agg(mean=("score", "mean"), cells=("score", "size"), sensitive=("sensitive", "first"))
        means = of_patient.groupby("sensitive")["mean"].mean()
        within = float((cells["score"] - grouped["score"].transform("mean")).pow(2).sum())
        within /= len(cells) - len(of_patient)
        spread = of_patient["mean"] - of_patient["sensitive"].map(means)
        seen = float(spread.pow(2).sum() / (len(of_patient) - 2))  # holds what a mean of few cells errs by as well
        between = max(seen - within * float((1 / of_patient["cells"]).mean()), seen / 4)
        return cls(tuple(drugs), float(means[True]), float(means[False]), between, within, len(of_patient))

    def to_dict(self) -> dict[str, Any]:
        """As calibration.json holds it."""
        return {
            name: list(value) if isinstance(value, tuple) else round(value, 6) if isinstance(value, float) else value
            for name, value in asdict(self).items()
        }

    def p_sensitive(self, scores: np.ndarray, patients: np.ndarray | None) -> np.ndarray:
        """P(the cell's patient responds) [N] from the cells' scores [N].

        Parameters
        ----------
        patients
            Names [N], None where a cell's patient is not known; or None: of no cell.
        """
        alone = pd.Series(np.arange(len(scores)))
        named = alone if patients is None else pd.Series(patients, dtype=object)
        of_cell = named.where(named.notna(), alone.map("cell {}".format))
        grouped = pd.Series(scores).groupby(of_cell.to_numpy(), sort=False)
        mean, cells = grouped.transform("mean").to_numpy(), grouped.transform("size").to_numpy()
        middle = (self.sensitive + self.resistant) / 2
        log_odds = (self.sensitive - self.resistant) * (mean - middle) / (self.between + self.within / cells)
        least = 1 / (self.patients + 2)  # Laplace: so few patients allow no more certainty
        return least + (1 - 2 * least) * expit(log_odds)


def memory_scores(counts: sp.csr_matrix, measured: np.ndarray, genes: Sequence[str]) -> np.ndarray:
    """Mean rank of the memory genes minus that of the cytotoxic genes within each cell [N], -1..1.

    Parameters
    ----------
    counts, measured, genes
        Cells [N, G] on any scale that keeps the order of a cell's genes, bool [G] and symbols [G].

    Raises
    ------
    GeneAlignmentError
        Fewer than three genes of a set were measured.
    """
    column = {gene: i for i, gene in enumerate(genes) if measured[i]}
    sets = [[column[gene] for gene in names if gene in column] for names in (MEMORY, CYTOTOXIC)]
    for what, names, found in zip(("memory", "cytotoxic"), (MEMORY, CYTOTOXIC), sets, strict=True):
        if len(found) < LEAST_GENES:
            raise GeneAlignmentError(
                f"found {len(found)} of {len(names)} {what} genes in the file, expected at least {LEAST_GENES}: the "
                f"response of patients is read from {', '.join(names)}. Bring a file that measured more of them."
            )
    there = np.flatnonzero(measured)
    memory, cytotoxic = (np.searchsorted(there, found) for found in sets)
    ranks = _ranks(counts[:, there].tocsr(), np.concatenate([memory, cytotoxic]))
    return ranks[:, : len(memory)].mean(axis=1) - ranks[:, len(memory) :].mean(axis=1)


def _ranks(counts: sp.csr_matrix, columns: np.ndarray) -> np.ndarray:
    """Ranks of some genes among all of a cell [N, len(columns)], in (0, 1]; equal values share their mean rank."""
    counts.sum_duplicates()  # sorts each row too: else a copy may hold another order
    counts.eliminate_zeros()
    n_genes, ranked = counts.shape[1], counts.astype(np.float64)
    for row in range(counts.shape[0]):
        of_row = slice(*counts.indptr[row : row + 2])
        zeros = n_genes - (of_row.stop - of_row.start)
        # less the rank of a zero, which the sparse matrix does not hold
        ranked.data[of_row] = rankdata(counts.data[of_row]) + zeros - (zeros + 1) / 2
    zeros = n_genes - np.diff(counts.indptr)
    return (ranked[:, columns].toarray() + (zeros[:, None] + 1) / 2) / n_genes


def patient_column(obs: pd.DataFrame) -> str | None:
    """The column that names the cells' patients, None where there is none that groups cells."""
    for wanted in PATIENT_COLUMNS:
        for column in obs.columns:
            if str(column).strip().casefold() == wanted and 0 < obs[column].nunique() < max(2, len(obs)):
                return str(column)
    return None


def patients_of(obs: pd.DataFrame, column: str) -> np.ndarray:
    """The patients' names [N], None where a cell has none."""
    values = obs[column].astype(object)
    texts = values.map(lambda value: str(value).strip() or None if pd.notna(value) else None)
    return texts.astype(object).where(texts.notna(), None).to_numpy()


def in_words(response: PatientResponse, column: str | None, judged: Mapping[str, Any] | None) -> tuple[str, ...]:
    """What an answer by this route says of itself.

    Parameters
    ----------
    column
        That named the patients, None where each cell was judged alone.
    judged
        Figures on held-out patients, as the section "drug" of evaluation.json has them.
    """
    how = (
        f"The response is the patient's, so the T cells of one patient ({column}) are judged together"
        if column
        else "The file names no patients (a column donor or patient), so every cell is judged alone, which says little"
    )
    notes = [
        f"{how}: by their memory genes (TCF7, IL7R, CCR7, ...) against their cytotoxic genes (GZMB, PRF1, NKG7, ...), "
        f"as learned from T cells of the tumours of {response.patients} patients, all checkpoint inhibitors alike."
    ]
    if judged:
        auroc = judged["instructcell"]["auroc"]
        chance = ", which is not told from chance" if auroc["low"] <= 0.5 else ""
        notes.append(
            f"On {len(judged.get('groups', ()))} patients that it never saw, AUROC {auroc['value']:.2f} "
            f"[{auroc['low']:.2f}, {auroc['high']:.2f}]{chance}."
        )
    return tuple(notes)
