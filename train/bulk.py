"""Fit the weights of the bulk-to-cell drug route: `python -m train.bulk` (or `make bulk-drugs`).

    screens -> cross-validation (how well each drug is predicted) -> fit on all lines -> bulk_drugs.safetensors

The cells of the data folder serve once: their mean deviation from the lines, study by study, is what single-cell
technology does to a profile.
"""

from __future__ import annotations

import argparse
import dataclasses
import sys
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import numpy as np
import scipy.sparse as sp
from sklearn.model_selection import GroupKFold, KFold

from instructcell.align import align_genes
from instructcell.bulk import WEIGHTS, Screen, ScreenSettings, deviations, gaussian_kernel, new_drug_weights
from instructcell.bulk_drugs import LEAST_SIMILARITY, ScreenedDrug, ScreenedDrugs, similarity
from instructcell.cells import read
from instructcell.errors import InstructCellError
from instructcell.resources import RESOURCES
from instructcell.resources.build import CACHE, write_checksums
from train import metrics
from train.bulk_fit import SETTINGS, FitSettings, KernelFit, fit_kernel, normal_scores, ridge_predictions
from train.bulk_tables import Screens, load_screens, read_tissues
from train.datasets import find_data

N_FOLDS = 5
LEAST_LINES = 20  # of a drug, for a rank correlation
N_QUANTILES = 256
LEAST_CELLS = 20  # of a type, to be pooled
NEW_DRUG_RIDGE = 0.3
SIMILARITY_STEPS = (0.0, LEAST_SIMILARITY, 0.3, 0.5)
STUDIES = (  # whose cells show what technology does; no file that is scaled per gene
    "pancreas_baron_human_donors234",
    "pancreas_baron_mouse",
    "pancreas_grun_muraro",
    "pbmc_zheng_sorted",
    "pbmc_symphony_3tech",
    "breast_tumour_immune",
    "lung_zilionis_mouse",
    "embryo_yan_human",
    "lung_lines_mixology_celseq2",
)
Folds = list[tuple[np.ndarray, np.ndarray]]


def folds_by_line(n_lines: int, seed: int = 0) -> Folds:
    """(training rows, held-out rows) of lines at random."""
    return list(KFold(N_FOLDS, shuffle=True, random_state=seed).split(np.arange(n_lines)))


def folds_by_tissue(tissues: np.ndarray) -> Folds:
    """(training rows, held-out rows) of whole tissues; a line of unknown tissue is only trained on."""
    known = np.flatnonzero(tissues != "")
    n_folds = min(N_FOLDS, len(np.unique(tissues[known])))
    found = []
    for _, held in GroupKFold(n_folds).split(known, groups=tissues[known]):
        rows = known[held]
        found.append((np.setdiff1d(np.arange(len(tissues)), rows), rows))
    return found


def predict_held_out(screens: Screens, folds: Folds, settings: FitSettings = SETTINGS) -> np.ndarray:
    """Our predictions of held-out lines [L, D], NaN for lines in no fold."""
    found = np.full(screens.sensitivity.shape, np.nan, np.float32)
    for train, held in folds:
        fit = fit_kernel(screens.expression[train], screens.sensitivity[train], settings)
        found[held] = fit.predict(screens.expression[held])
    return found


def ridge_held_out(screens: Screens, folds: Folds) -> np.ndarray:
    """The baseline's predictions of the same lines."""
    found = np.full(screens.sensitivity.shape, np.nan, np.float32)
    for train, held in folds:
        expression = screens.expression
        found[held] = ridge_predictions(expression[train], screens.sensitivity[train], expression[held])
    return found


def per_drug(predicted: np.ndarray, measured: np.ndarray) -> np.ndarray:
    """Spearman over lines of every drug [D]; NaN where too few lines are known."""
    found = np.full(measured.shape[1], np.nan)
    for drug in range(measured.shape[1]):
        known = np.isfinite(predicted[:, drug]) & np.isfinite(measured[:, drug])
        if known.sum() >= LEAST_LINES and np.ptp(predicted[known, drug]) > 0:
            found[drug] = metrics.spearman(predicted[known, drug], measured[known, drug])
    return found


def residuals(predicted: np.ndarray, measured: np.ndarray) -> np.ndarray:
    """Standard deviation of the error of every drug [D], in normal scores."""
    errors = (normal_scores(measured) - predicted) ** 2
    known = np.isfinite(errors)
    return np.sqrt(np.where(known, errors, 0.0).sum(axis=0) / np.maximum(known.sum(axis=0), 1))


# ---- drugs outside the screens


def predict_new_drugs(predicted: np.ndarray, drugs: Sequence[ScreenedDrug]) -> tuple[np.ndarray, np.ndarray]:
    """What held-out predictions [L, D] of the other drugs say of each drug [L, D]; its nearest similarity [D]."""
    kernel = similarity(drugs, drugs)
    found, nearest = np.full(predicted.shape, np.nan, np.float32), np.zeros(len(drugs))
    for drug in range(len(drugs)):
        others = np.delete(np.arange(len(drugs)), drug)
        near = kernel[drug, others]
        nearest[drug] = near.max(initial=0.0)
        if nearest[drug] > 0:
            weights = new_drug_weights(near, kernel[np.ix_(others, others)], NEW_DRUG_RIDGE)
            found[:, drug] = predicted[:, others] @ weights
    return found, nearest


def new_drug_figures(spearman: np.ndarray, nearest: np.ndarray) -> tuple[tuple[float, float], ...]:
    """(least similarity, median Spearman of the drugs up to the next step)."""
    found = []
    for low, high in zip(SIMILARITY_STEPS, (*SIMILARITY_STEPS[1:], 1.01), strict=True):
        inside = spearman[(nearest >= low) & (nearest < high) & np.isfinite(spearman)]
        found.append((low, round(float(np.median(inside)), 3) if len(inside) else 0.0))
    return tuple(found)


# ---- what technology does to a profile


def technology(
    data: Path, studies: Iterable[str], genes: Sequence[str], quantiles: np.ndarray, mean: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Mean deviation of single-cell profiles [G] over studies, and its variance between studies [G]."""
    found = [study_deviation(data / f"{study}.h5ad", genes, quantiles, mean) for study in studies]
    deviation, measured = np.stack([d for d, _ in found]), np.stack([m for _, m in found]).astype(float)
    counts = measured.sum(axis=0)
    offset = (deviation * measured).sum(axis=0) / np.maximum(counts, 1)
    variance = ((deviation - offset) ** 2 * measured).sum(axis=0) / np.maximum(counts - 1, 1)
    usual = np.median(variance[counts > 1]) if (counts > 1).any() else offset**2  # of one study nothing can be told
    return offset, np.where(counts > 1, variance, usual)


def study_deviation(
    path: Path, genes: Sequence[str], quantiles: np.ndarray, mean: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Mean deviation of a study's pooled cell types (or lines) [G], and which genes it measured [G]."""
    adata = read(path)
    aligned = align_genes(adata, genes)
    kinds = adata.obs["cell_type"].astype(str).to_numpy()
    pooled = [pool(aligned.counts[kinds == kind]) for kind in np.unique(kinds) if (kinds == kind).sum() >= LEAST_CELLS]
    pooled = pooled or [pool(aligned.counts)]
    return deviations(np.stack(pooled), aligned.measured, quantiles, mean).mean(axis=0), aligned.measured


def pool(counts: sp.csr_matrix) -> np.ndarray:
    """The mean of cells [n, G] after each is scaled to the same depth [G]."""
    totals = np.asarray(counts.sum(axis=1)).ravel()
    return np.asarray((sp.diags(1e4 / np.maximum(totals, 1e-9)) @ counts).mean(axis=0)).ravel()


# ---- the weights


def make_screen(
    screens: Screens,
    fit: KernelFit,
    drugs: Sequence[ScreenedDrug],
    figures: ScreenSettings,
    data: Path,
    studies: Iterable[str],
) -> Screen:
    """Everything that ships, from a fit on all lines."""
    steps = np.linspace(0, len(screens.genes) - 1, N_QUANTILES).astype(int)
    quantiles = np.sort(screens.expression, axis=1).mean(axis=0)[steps]
    offset, variance = technology(data, studies, screens.genes, quantiles, fit.mean)
    spread = screens.expression.var(axis=0)
    left, values, right = np.linalg.svd(fit.coefficients, full_matrices=False)
    rank = int((values > 1e-5 * values[0]).sum())
    root = np.sqrt(values[:rank])
    arrays = {
        "quantiles": quantiles,
        "mean": fit.mean,
        "scale": fit.scale,
        "offset": offset,
        "trust": spread / (spread + variance),
        "axes": fit.axes,
        "lines": fit.lines,
        "kernel_lines": left[:, :rank] * root,
        "kernel_drugs": right[:rank] * root[:, None],
        "intercept": fit.intercept,
        "shrink": fit.shrink,
    }
    return Screen(screens.genes, ScreenedDrugs(drugs), {k: v.astype(np.float32) for k, v in arrays.items()}, figures)


def doubt_of(screens: Screens, folds: Folds, settings: FitSettings = SETTINGS) -> float:
    """Mean posterior variance of the lines held out of the first fold, as a share of the variance without any line."""
    train, held = folds[0]
    fit = fit_kernel(screens.expression[train], screens.sensitivity[train], settings)
    kernel = gaussian_kernel(fit.scores(screens.expression[held]), fit.lines, fit.width)
    explained = (kernel**2).sum(axis=1) - ((kernel @ fit.shrink) ** 2).sum(axis=1)
    return float(np.clip(1.0 - explained / fit.ridge, 0.0, 1.0).mean())


def judged(
    screens: Screens, predicted: np.ndarray, by_tissue: np.ndarray | None
) -> tuple[list[ScreenedDrug], np.ndarray]:
    """The drugs with how well each was predicted, and those figures [D]."""
    spearman = np.nan_to_num(per_drug(predicted, screens.sensitivity))
    tissue = spearman * 0 if by_tissue is None else np.nan_to_num(per_drug(by_tissue, screens.sensitivity))
    error = residuals(predicted, screens.sensitivity)
    drugs = [
        dataclasses.replace(
            drug,
            spearman=round(float(spearman[j]), 3),
            spearman_tissue=round(float(tissue[j]), 3),
            residual=round(float(error[j]), 3),
        )
        for j, drug in enumerate(screens.drugs)
    ]
    return drugs, spearman


def build(cache: Path, data: Path, studies: Iterable[str] = STUDIES, say: Callable[[str], None] = print) -> Screen:
    """Cross-validate, fit and assemble the weights."""
    screens = load_screens(cache)
    say(f"{len(screens.lines)} lines, {len(screens.genes):,} genes, {len(screens.drugs)} drugs")
    folds = folds_by_line(len(screens.lines))
    predicted = predict_held_out(screens, folds)
    known = read_tissues(data)
    tissues = np.array([known.get(name, "") for name in screens.lines])
    by_tissue = predict_held_out(screens, folds_by_tissue(tissues)) if known else None
    drugs, spearman = judged(screens, predicted, by_tissue)
    say(f"held-out lines: median Spearman {np.median(spearman):.3f}")
    new, nearest = predict_new_drugs(predicted, drugs)
    alike = np.repeat(predicted.mean(axis=1, keepdims=True), len(drugs), axis=1)
    steps = new_drug_figures(per_drug(new, screens.sensitivity), nearest)
    say(f"drugs left out, by similarity of the nearest: {steps}")
    fit = fit_kernel(screens.expression, screens.sensitivity)
    figures = ScreenSettings(
        width=fit.width,
        ridge=fit.ridge,
        doubt=doubt_of(screens, folds),
        new_drug_ridge=NEW_DRUG_RIDGE,
        new_drug_spearman=steps,
        any_drug_spearman=round(float(np.median(per_drug(alike, screens.sensitivity))), 3),
        new_drug_residual=round(float(np.median(residuals(new, screens.sensitivity)[nearest > 0])), 3),
    )
    return make_screen(screens, fit, drugs, figures, data, studies)


def main(arguments: Sequence[str] | None = None) -> int:
    """Build the weights; 0 done, 2 the package or the data cannot be had."""
    parser = argparse.ArgumentParser(prog="python -m train.bulk", description="Fit the weights of the bulk drug route.")
    parser.add_argument("--cache", type=Path, default=CACHE, help="folder for downloads (default: %(default)s)")
    parser.add_argument("--data", type=Path, help="folder with the training files")
    parser.add_argument("--out", type=Path, default=RESOURCES, help="folder to write to (default: the package's own)")
    options = parser.parse_args(arguments)
    try:
        build(options.cache, find_data(options.data)).save(options.out / WEIGHTS)
        write_checksums(options.out)
    except InstructCellError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    print(f"{options.out / WEIGHTS}: {(options.out / WEIGHTS).stat().st_size:,} bytes")
    return 0


if __name__ == "__main__":
    sys.exit(main())
