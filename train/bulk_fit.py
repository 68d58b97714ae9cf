"""Kernel regression of drug sensitivities on expression, all drugs at once, and the ridge regression beside it.

    expression -> deviation from the mean, weighted by gene -> K axes -> Gaussian kernel over the lines -> z per drug

All drugs share one kernel, so one eigendecomposition serves them; what a drug was not measured on is filled with what
the model says of it, a few times over. Genes that go with many drugs' sensitivities count more in the kernel, and the
sensitivities are fitted by rank (normal scores), because a few extreme lines say little about the others.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.stats import norm, rankdata

from instructcell.bulk import gaussian_kernel

RIDGES = (0.4, 0.8, 1.6, 3.2)  # of the baseline, in units of the lines' mean squared deviation


@dataclass(frozen=True)
class FitSettings:
    """relevance: power of a gene's mean squared correlation with the drugs; width in units of the median squared
    distance; ridge of the kernel; axes and ranks that are kept; fills: rounds of filling what was not measured."""

    relevance: float = 0.25
    width: float = 2.0
    ridge: float = 0.4
    n_axes: int = 192
    n_ranks: int = 100
    fills: int = 5


SETTINGS = FitSettings()


@dataclass(frozen=True)
class KernelFit:
    """A fitted regression; G genes, K axes, L lines, D drugs.

    mean, scale [G]; axes [G, K]; lines [L, K] scores; coefficients [L, D]; intercept [D]; shrink [L, S], for which
    (kernel + ridge)^-1 = (1 - shrink shrink^T) / ridge.
    """

    mean: np.ndarray
    scale: np.ndarray
    axes: np.ndarray
    lines: np.ndarray
    coefficients: np.ndarray
    intercept: np.ndarray
    shrink: np.ndarray
    width: float
    ridge: float

    def predict(self, expression: np.ndarray) -> np.ndarray:
        """Sensitivities [N, D] of profiles [N, G]."""
        return self.intercept + gaussian_kernel(self.scores(expression), self.lines, self.width) @ self.coefficients

    def scores(self, expression: np.ndarray) -> np.ndarray:
        """Scores [N, K] of profiles [N, G]."""
        return ((expression - self.mean) / self.scale) @ self.axes


def fit_kernel(expression: np.ndarray, sensitivity: np.ndarray, settings: FitSettings = SETTINGS) -> KernelFit:
    """Fit all drugs: expression [L, G], sensitivity [L, D] with NaN where not measured."""
    mean = expression.mean(axis=0)
    target = normal_scores(sensitivity)
    scale = gene_scale(expression - mean, target, settings.relevance)
    deviation = (expression - mean) / scale
    axes = principal_axes(deviation, settings.n_axes)
    lines = deviation @ axes
    width = settings.width * median_distance(lines)
    kernel = gaussian_kernel(lines, lines, width)
    values, vectors = np.linalg.eigh(kernel)
    values = np.maximum(values, 0.0)
    intercept = np.nanmean(target, axis=0)
    smoother = (vectors * (values / (values + settings.ridge))) @ vectors.T
    filled = fill(target - intercept, smoother, settings.fills)
    coefficients = (vectors / (values + settings.ridge)) @ (vectors.T @ filled)
    coefficients = low_rank(coefficients, smoother @ filled, settings.n_ranks)
    top = np.argsort(-values)[: settings.n_ranks]
    shrink = vectors[:, top] * np.sqrt(values[top] / (values[top] + settings.ridge))
    return KernelFit(mean, scale, axes, lines, coefficients, intercept, shrink, width, settings.ridge)


def normal_scores(values: np.ndarray) -> np.ndarray:
    """Columns by rank, as quantiles of the normal distribution; NaN stays NaN."""
    found = np.full(values.shape, np.nan, np.float32)
    for column in range(values.shape[1]):
        known = np.isfinite(values[:, column])
        found[known, column] = norm.ppf((rankdata(values[known, column]) - 0.5) / known.sum())
    return found


def gene_scale(deviation: np.ndarray, target: np.ndarray, power: float) -> np.ndarray:
    """What each gene is divided by [G]: the root of its spread, less where it goes with many drugs.

    The lines' mean squared length is 1 afterwards.
    """
    spread = deviation.std(axis=0)
    centred = np.nan_to_num(target - np.nanmean(target, axis=0))
    centred /= np.maximum(centred.std(axis=0), 1e-6)
    correlation = (deviation / np.maximum(spread, 1e-6)).T @ centred / len(deviation)  # [G, D]
    weight = np.maximum((correlation**2).mean(axis=1), 1e-6) ** power / np.sqrt(np.maximum(spread, 1e-3))
    length = np.sqrt(((deviation * weight) ** 2).sum(axis=1).mean())
    return length / weight


def principal_axes(deviation: np.ndarray, n_axes: int) -> np.ndarray:
    """The first principal axes [G, K] of lines [L, G], by the smaller side."""
    values, vectors = np.linalg.eigh(deviation @ deviation.T)
    top = np.argsort(-values)[:n_axes]
    top = top[values[top] > 1e-6 * values[top[0]]]
    return deviation.T @ vectors[:, top] / np.sqrt(values[top])


def median_distance(lines: np.ndarray) -> float:
    """Median squared distance between two lines."""
    squares = (lines**2).sum(axis=1)
    return float(np.median(squares[:, None] + squares[None, :] - 2.0 * lines @ lines.T))


def fill(target: np.ndarray, smoother: np.ndarray, rounds: int) -> np.ndarray:
    """Centred sensitivities with what was not measured as the model predicts it."""
    known = np.isfinite(target)
    filled = np.where(known, target, 0.0)
    for _ in range(rounds):
        filled = np.where(known, target, smoother @ filled)
    return filled


def low_rank(coefficients: np.ndarray, fitted: np.ndarray, n_ranks: int) -> np.ndarray:
    """Coefficients [L, D] on the directions over drugs in which the fitted values [L, D] vary most."""
    if n_ranks >= fitted.shape[1]:
        return coefficients
    vectors = np.linalg.eigh(fitted.T @ fitted)[1][:, -n_ranks:]  # [D, R]
    return (coefficients @ vectors) @ vectors.T


# ---- the baseline


def ridge_predictions(
    expression: np.ndarray, sensitivity: np.ndarray, others: np.ndarray, ridges: tuple[float, ...] = RIDGES
) -> np.ndarray:
    """Ridge regression of every drug by itself: fitted on lines [L, G], [L, D], predicted for others [N, G] -> [N, D].

    Each drug has the penalty with the least leave-one-out error, in closed form.
    """
    mean = expression.mean(axis=0)
    length = np.sqrt(((expression - mean) ** 2).sum(axis=1).mean())
    lines, new = ((values - mean).astype(np.float64) / length for values in (expression, others))
    kernel, across = lines @ lines.T, new @ lines.T
    inverses = [np.linalg.inv(kernel + ridge * np.eye(len(kernel))) for ridge in ridges]
    found = np.full((len(others), sensitivity.shape[1]), np.nan, np.float32)
    for drug in range(sensitivity.shape[1]):
        known = np.isfinite(sensitivity[:, drug])
        centre = float(sensitivity[known, drug].mean())
        fits = [_dual_weights(inverse, known, sensitivity[known, drug] - centre) for inverse in inverses]
        weights, _ = min(fits, key=lambda fit: fit[1])
        found[:, drug] = centre + across[:, known] @ weights
    return found


def _dual_weights(inverse: np.ndarray, known: np.ndarray, target: np.ndarray) -> tuple[np.ndarray, float]:
    """Dual weights on the known lines and their leave-one-out error, from the inverse [L, L] over all lines.

    The inverse over the known ones is a Schur complement, which is cheap where few are missing.
    """
    inside, between = inverse[np.ix_(known, known)], inverse[np.ix_(known, ~known)]
    outside = np.linalg.solve(inverse[np.ix_(~known, ~known)], between.T)  # [missing, known]
    weights = inside @ target - between @ (outside @ target)
    diagonal = np.diag(inside) - np.einsum("km,mk->k", between, outside)
    return weights, float(((weights / diagonal) ** 2).mean())
