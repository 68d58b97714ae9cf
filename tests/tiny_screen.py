"""A made-up screen of cell lines over the tiny genes, small enough to be checked by hand."""

from __future__ import annotations

import numpy as np
import tiny

from instructcell.bulk import Screen, ScreenSettings, gaussian_kernel
from instructcell.bulk_drugs import LEAST_SPEARMAN, ScreenedDrug, ScreenedDrugs

N_LINES, N_AXES = 30, 4
DRUGS = (
    ScreenedDrug("Islettinib", ("Insulix", "INS-1"), "INS, IAPP", "CCOc1ccccc1N", 30, 0.6, 0.5, 0.8),
    ScreenedDrug("Bcellimab", (), "CD19, MS4A1", "", 30, 0.4, 0.3, 0.9),
    ScreenedDrug("Noisolol", (), "", "", 30, LEAST_SPEARMAN - 0.05, 0.0, 1.0),
    ScreenedDrug("Apatinol", (), "EGFR", "CCN", 25, 0.3, 0.2, 0.9),
)


def made_up_screen() -> Screen:
    """A screen whose first drug hits what expresses INS, and whose second spares it."""
    genes = tuple(tiny.tiny_genes())
    rng = np.random.default_rng(0)
    axes = np.linalg.qr(rng.normal(size=(len(genes), N_AXES)))[0]
    axes[:, 0] = 0.0
    axes[[genes.index(gene) for gene in tiny.MARKERS["type B pancreatic cell"][1]], 0] = 0.5
    lines = rng.normal(size=(N_LINES, N_AXES))
    effect = np.outer(lines[:, 0], [1.0, -1.0, 0.2, 0.0])  # [L, D]
    width, ridge = 8.0, 0.4
    kernel = gaussian_kernel(lines, lines, width)
    coefficients = np.linalg.solve(kernel + ridge * np.eye(N_LINES), effect)
    values, vectors = np.linalg.eigh(kernel)
    arrays = {
        "quantiles": np.linspace(-1.0, 2.0, 50),
        "mean": rng.normal(size=len(genes)) * 0.1,
        "scale": np.full(len(genes), 1.0),
        "offset": np.zeros(len(genes)),
        "trust": np.ones(len(genes)),
        "axes": axes,
        "lines": lines,
        "kernel_lines": coefficients,
        "kernel_drugs": np.eye(len(DRUGS)),
        "intercept": np.zeros(len(DRUGS)),
        "shrink": vectors * np.sqrt(np.maximum(values, 0) / (np.maximum(values, 0) + ridge)),
    }
    settings = ScreenSettings(width, ridge, 0.3, new_drug_spearman=((0.0, 0.1), (0.15, 0.35)), any_drug_spearman=0.3)
    return Screen(genes, ScreenedDrugs(DRUGS), {k: v.astype(np.float32) for k, v in arrays.items()}, settings)
