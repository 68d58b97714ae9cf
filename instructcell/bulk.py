"""Sensitivity to the drugs that were screened on cancer cell lines (GDSC), read from expression profiles.

    counts -> values on the lines' scale -> deviation from the lines' mean -> scores on K axes -> sensitivity per drug

A sensitivity is a normal score over the screened lines of minus log IC50: 0 is the middle line, 1.64 a line more
sensitive than 95 % of them. `train/bulk.py` fits the weights and writes resources/bulk_drugs.safetensors.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import scipy.sparse as sp
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file
from scipy.special import ndtr
from scipy.stats import rankdata

from instructcell.bulk_drugs import LEAST_SIMILARITY, ScreenedDrug, ScreenedDrugs, similarity
from instructcell.errors import DrugError, ResourceError
from instructcell.resources import resource_path

WEIGHTS = "bulk_drugs.safetensors"
ROUTE = "bulk-to-cell, GDSC"
VECTORS = (
    "quantiles", "mean", "scale", "offset", "trust", "lines", "kernel_lines", "kernel_drugs", "intercept", "shrink",
)  # fmt: skip
AXES, STEPS = "axes", "axes_step"  # eight-bit steps of each axis, and their size


@dataclass(frozen=True)
class ScreenSettings:
    """Numbers that go with the arrays.

    Attributes
    ----------
    width, ridge
        Of the Gaussian kernel, exp(-squared distance / width), and of the regression on it.
    doubt
        Mean posterior variance of held-out lines, as a share of the variance without any line.
    new_drug_ridge
        How little a drug outside the screens leans on those it resembles, rather than on all drugs alike.
    new_drug_spearman
        (least similarity, median Spearman) of screened drugs left out, in rising order of similarity.
    any_drug_spearman
        What the mean of all drugs reaches, which knows nothing of a drug.
    """

    width: float
    ridge: float
    doubt: float
    new_drug_ridge: float = 0.3
    new_drug_spearman: tuple[tuple[float, float], ...] = ((0.0, 0.0),)
    new_drug_residual: float = 1.0
    any_drug_spearman: float = 0.0

    def new_drug_figure(self, nearest: float) -> float:
        """Median Spearman of screened drugs that were left out and whose nearest drug was as similar."""
        return [figure for least, figure in self.new_drug_spearman if nearest >= least][-1]


@dataclass(frozen=True)
class Screen:
    """What was learned from the screens: G genes, K axes, L lines, D drugs, R ranks of the kernel part.

    Attributes
    ----------
    genes
        Approved human symbols [G].
    arrays
        float32. quantiles [Q]: the values of a line's genes from the lowest to the highest. mean, scale [G]: of a gene
        over the lines, and what its deviation is divided by. offset, trust [G]: how a gene deviates in single-cell
        profiles as a rule (technology, not biology), and how far what is left can be trusted, 0..1. axes [G, K]; lines
        [L, K] the lines' scores; kernel_lines [L, R], kernel_drugs [R, D]; intercept [D]; shrink [L, S], for which
        (kernel + ridge)^-1 = (1 - shrink shrink^T) / ridge.
    """

    genes: tuple[str, ...]
    drugs: ScreenedDrugs
    arrays: Mapping[str, np.ndarray]
    settings: ScreenSettings

    def scores(self, counts: sp.spmatrix | np.ndarray, measured: np.ndarray) -> np.ndarray:
        """Scores on the axes of cells or pooled cells.

        counts [n, G] on a linear scale (any depth), measured [G] bool -> [n, K]
        """
        deviation = deviations(counts, measured, self.arrays["quantiles"], self.arrays["mean"])
        deviation[:, measured] -= self.arrays["offset"][measured]
        return deviation @ (self.arrays["axes"] * (self.arrays["trust"] / self.arrays["scale"])[:, None])

    def sensitivity(self, scores: np.ndarray) -> np.ndarray:
        """Predicted sensitivities [n, D] of scores [n, K]."""
        kernel = gaussian_kernel(scores, self.arrays["lines"], self.settings.width)  # [n, L]
        return self.arrays["intercept"] + (kernel @ self.arrays["kernel_lines"]) @ self.arrays["kernel_drugs"]

    def widening(self, scores: np.ndarray) -> np.ndarray:
        """How many times wider than for a held-out line the error is, more where no line is near: [n, K] -> [n].

        From the posterior variance of the regression, which grows with the distance from all lines.
        """
        kernel = gaussian_kernel(scores, self.arrays["lines"], self.settings.width)  # [n, L]
        explained = (kernel**2).sum(axis=1) - ((kernel @ self.arrays["shrink"]) ** 2).sum(axis=1)
        doubt = np.clip(1.0 - explained / self.settings.ridge, 0.0, 1.0)
        ratio = (self.settings.ridge + doubt) / (self.settings.ridge + self.settings.doubt)
        return np.sqrt(np.maximum(ratio, 1.0))

    def new_drug(self, name: str, *, smiles: str = "", target: str = "") -> tuple[ScreenedDrug, np.ndarray]:
        """A drug outside the screens as a sum of those it resembles: (drug, weights [D]).

        Raises
        ------
        DrugError
            Neither structure nor target is given, or no screened drug is near.
        """
        described = ScreenedDrug(name, smiles=smiles.strip(), target=target.strip())
        if not (described.smiles or described.target):
            raise DrugError(f"nothing is known of '{name}'; give its structure (SMILES) or its target, such as EGFR.")
        near = similarity([described], self.drugs)[0]  # [D]
        order = np.argsort(-near, kind="stable")[:3]
        neighbours = tuple(self.drugs[i].name for i in order if near[i] >= LEAST_SIMILARITY)
        if not neighbours:
            raise DrugError(
                f"no screened drug resembles '{name}' (the nearest, {self.drugs[int(order[0])].name}, by "
                f"{near[order[0]]:.2f} of 1; {LEAST_SIMILARITY} is needed), so nothing can be said of it. Check its "
                "SMILES, or name its target by gene symbol."
            )
        figure = self.settings.new_drug_figure(float(near[order[0]]))
        drug = replace(
            described,
            spearman=figure,
            residual=self.settings.new_drug_residual,
            neighbours=neighbours,
            any_drug_spearman=self.settings.any_drug_spearman,
        )
        return drug, new_drug_weights(near, _kernel(self.drugs), self.settings.new_drug_ridge)

    def save(self, path: str | Path) -> None:
        """Write the weights, in half precision and the axes in eight bits, with the drugs and genes as metadata."""
        tensors = {name: np.ascontiguousarray(self.arrays[name].astype(np.float16)) for name in VECTORS}
        step = np.abs(self.arrays[AXES]).max(axis=0) / 127.0  # [K]
        tensors[AXES], tensors[STEPS] = np.rint(self.arrays[AXES] / step).astype(np.int8), step.astype(np.float32)
        metadata = {
            "genes": "\n".join(self.genes),
            "drugs": json.dumps([drug.to_record() for drug in self.drugs], ensure_ascii=False),
            "settings": json.dumps(vars(self.settings)),
        }
        save_file(tensors, str(path), metadata=metadata)

    @classmethod
    def load(cls, path: str | Path) -> Screen:
        """Read the weights.

        Raises
        ------
        ResourceError
            The file is not one that `save` wrote.
        """
        try:
            with safe_open(str(path), framework="numpy") as file:
                metadata = file.metadata() or {}
                arrays = {name: file.get_tensor(name).astype(np.float32) for name in (*VECTORS, AXES)}
                arrays[AXES] *= file.get_tensor(STEPS)
            settings: dict[str, Any] = json.loads(metadata["settings"])
            settings["new_drug_spearman"] = tuple(tuple(pair) for pair in settings["new_drug_spearman"])
            drugs = ScreenedDrugs(ScreenedDrug.of(record) for record in json.loads(metadata["drugs"]))
            return cls(tuple(metadata["genes"].split("\n")), drugs, arrays, ScreenSettings(**settings))
        except (SafetensorError, KeyError, TypeError, ValueError) as error:
            raise ResourceError(
                f"{path} does not hold the weights of the drug screens ({error}); reinstall the package, or run "
                "`make bulk-drugs` in a clone."
            ) from error


@lru_cache(maxsize=1)
def load_screen() -> Screen:
    """The weights that ship, read once."""
    return Screen.load(resource_path(WEIGHTS))


@lru_cache(maxsize=2)
def _kernel(drugs: ScreenedDrugs) -> np.ndarray:
    """How much the screened drugs resemble one another [D, D]."""
    return similarity(drugs, drugs)


# ---- the arithmetic, shared with the fit


def percentile(sensitivity: np.ndarray) -> np.ndarray:
    """Share of the cell lines, in percent, that are less sensitive."""
    return 100.0 * ndtr(sensitivity)


def deviations(
    counts: sp.spmatrix | np.ndarray, measured: np.ndarray, quantiles: np.ndarray, mean: np.ndarray
) -> np.ndarray:
    """How far the genes of each profile lie from what is usual; an unmeasured gene deviates by 0.

    The genes of a profile are ranked and get the values that these ranks have in a cell line (ties share one), so depth
    and scale do not matter. What a line through the lines' means explains is taken away: in a shallow profile most
    genes are tied at zero and the slope is below one.

    counts [n, G], measured [G] bool, quantiles [Q], mean [G] -> [n, G]
    """
    values: Any = counts[:, measured]
    dense = values.toarray() if sp.issparse(values) else np.asarray(values)
    ranks = (rankdata(dense, axis=1) - 0.5) / max(dense.shape[1], 1)
    on_scale = np.interp(ranks, np.linspace(0.0, 1.0, len(quantiles)), quantiles)  # [n, g]
    usual = mean[measured] - mean[measured].mean()
    centred = on_scale - on_scale.mean(axis=1, keepdims=True)
    slope = centred @ usual / max(float(usual @ usual), 1e-9)  # [n]
    found = np.zeros((dense.shape[0], len(mean)), np.float32)
    found[:, measured] = centred - slope[:, None] * usual
    return found


def gaussian_kernel(left: np.ndarray, right: np.ndarray, width: float) -> np.ndarray:
    """exp(-squared distance / width) between rows [n, K] and [m, K] -> [n, m]."""
    squares = (left**2).sum(axis=1)[:, None] + (right**2).sum(axis=1)[None, :] - 2.0 * left @ right.T
    return np.exp(-np.maximum(squares, 0.0) / width)


def new_drug_weights(near: np.ndarray, kernel: np.ndarray, ridge: float) -> np.ndarray:
    """What each known drug counts for a new one: the mean of all, corrected by those that it resembles.

    Kernel ridge regression of the deviations from the mean; near [D], kernel [D, D] -> weights [D] with sum 1.
    """
    weights = np.linalg.solve(kernel + ridge * np.eye(len(kernel)), near)
    return weights + (1.0 - weights.sum()) / len(weights)
