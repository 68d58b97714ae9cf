"""Making training cells as varied as users' files: other depths, other panels, other scales.

From the trial the design rests on: random gene panels, thinning, a random power and random per-gene factors are what
carries a single network across studies.
"""

from __future__ import annotations

import numpy as np

from train.recipe import Augmentation

MIN_PANEL = 30  # genes; a smaller random panel is not used


def augment_cell(
    values: np.ndarray,
    columns: np.ndarray,
    measured: np.ndarray,
    settings: Augmentation,
    rng: np.random.Generator,
    *,
    is_counts: bool = True,
) -> tuple[np.ndarray, np.ndarray]:
    """One cell's non-zero values [n] at gene columns [n], measured [G] -> new values [n] and measured [G].

    Only molecule counts are thinned: rounding would erase values of another unit.
    """
    if is_counts and rng.random() < settings.thinning:
        share = np.exp(rng.uniform(np.log(settings.thinning_floor), 0.0))
        values = rng.binomial(np.rint(values).astype(np.int64), share).astype(np.float32)
    if rng.random() < settings.power:
        values = values ** np.float32(np.exp(rng.normal(0.0, settings.power_spread)))
    if rng.random() < settings.panel:
        share = np.exp(rng.uniform(np.log(settings.panel_floor), 0.0))
        panel = measured & (rng.random(len(measured), dtype=np.float32) < share)
        if panel.sum() >= MIN_PANEL and (panel[columns] & (values > 0)).any():
            measured = panel
    return values, measured


def gene_factors(n_genes: int, settings: Augmentation, rng: np.random.Generator) -> np.ndarray:
    """Random positive factors per gene [G] for one batch; sometimes strong, often mild."""
    spread = settings.gene_scale * abs(rng.normal())
    return np.exp(spread * rng.standard_normal(n_genes, dtype=np.float32))
