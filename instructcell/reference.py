"""What the checkpoint's training cells look like in embedding space, and how far a cell lies from them.

Cells of a type that training never saw lie far from every type it saw. The distance is Mahalanobis' to the nearest
type's mean, with one covariance within types for all (Lee et al. 2018, arXiv:1807.03888).
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from safetensors import safe_open
from safetensors.numpy import save_file

from instructcell.beside import load_beside

REFERENCE = "reference.safetensors"
N_QUANTILES = 401


@dataclass(frozen=True)
class Reference:
    """Types in embedding space.

    Attributes
    ----------
    means
        [C, Z] of the types, whitened.
    whiten
        [Z, Z] embedding @ whiten has the covariance 1 within types.
    quantiles
        [Q] distances of held-out cells that were named rightly, evenly spaced from the least to the largest.
    weights
        sha256 of the model it was fitted to.
    typical
        The median distance of known cells in embedding space alone; 0 where `quantiles` are of no other.
    """

    means: np.ndarray
    whiten: np.ndarray
    quantiles: np.ndarray
    weights: str = ""
    typical: float = 0.0

    @classmethod
    def fit(cls, embedding: np.ndarray, types: np.ndarray) -> Reference:
        """Means and covariance of training cells: embedding [N, Z], types [N]; `quantiles` are theirs until set."""
        from sklearn.covariance import LedoitWolf  # a second to import, for what only training needs

        names, codes = np.unique(types, return_inverse=True)
        embedding = embedding.astype(np.float64)
        means = np.stack([embedding[codes == code].mean(axis=0) for code in range(len(names))])
        precision = LedoitWolf(assume_centered=True).fit(embedding - means[codes]).precision_
        whiten = np.linalg.cholesky(precision)
        reference = cls((means @ whiten).astype(np.float32), whiten.astype(np.float32), np.zeros(1, np.float32))
        return reference.judged_by(reference.distance(embedding))

    def judged_by(self, distances: np.ndarray, weights: str = "", typical: float = 0.0) -> Reference:
        """The same types, with the distances [N] that known cells have, in which markers may have had a part."""
        quantiles = np.quantile(distances, np.linspace(0.0, 1.0, N_QUANTILES)).astype(np.float32)
        return Reference(self.means, self.whiten, quantiles, weights or self.weights, typical)

    def distance(self, embedding: np.ndarray) -> np.ndarray:
        """Distance [N] of cells [N, Z] from the nearest type; 0 is its mean."""
        means, whiten = torch.from_numpy(self.means), torch.from_numpy(self.whiten)
        cells = torch.from_numpy(embedding.astype(np.float32)) @ whiten  # [N, Z]
        squared = cells.square().sum(1, keepdim=True) - 2 * cells @ means.T + means.square().sum(1)
        return squared.amin(1).clamp_min(0.0).sqrt().numpy()

    @property
    def usual(self) -> float:
        """The median distance of known cells in embedding space."""
        return self.typical or float(np.median(self.quantiles))

    def familiarity(self, distance: np.ndarray) -> np.ndarray:
        """Share of known cells that lie at least as far away as each distance [N], 0..1: small for unseen types."""
        return 1.0 - np.interp(distance, self.quantiles, np.linspace(0.0, 1.0, len(self.quantiles)))


def save_reference(reference: Reference, folder: Path) -> Path:
    """Write the reference into a checkpoint folder."""
    path = folder / REFERENCE
    arrays = {name: np.ascontiguousarray(getattr(reference, name)) for name in ("means", "whiten", "quantiles")}
    config = {"weights": reference.weights, "typical": reference.typical}
    save_file(arrays, path, metadata={"config": json.dumps(config)})
    path.chmod(0o644)  # safetensors writes for its owner alone
    return path


def load_reference(folder: Path, weights: str) -> Reference | None:
    """The reference of a checkpoint folder, None where it has none.

    Parameters
    ----------
    weights
        sha256 of the model beside it.

    Raises
    ------
    CheckpointError
        The file is damaged, or was fitted to other weights.
    """
    remedy = (
        f"fit it anew with `instructcell train --recalibrate`, or delete {REFERENCE}: cells of unseen types are then "
        "not looked for."
    )
    return load_beside(folder / REFERENCE, weights, _read, lambda reference: reference.weights, remedy)


def _read(path: Path) -> Reference:
    with safe_open(path, framework="numpy") as file:
        config = json.loads(file.metadata()["config"])
        return Reference(*(file.get_tensor(name) for name in ("means", "whiten", "quantiles")), **config)
