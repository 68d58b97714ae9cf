"""Where the training cells of each kind lie in the decoder's latent space, and what its mean for them lacks.

    python -m train.populations --model mini --data data

Written as populations.safetensors beside the weights; `instructcell train` fits it at its end, and `--recalibrate`
again. What it was chosen from stands in docs/trials.md.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from scipy import sparse

from encoders import CellDecoder
from instructcell.checkpoint import Checkpoint
from instructcell.generation import request_states
from instructcell.populations import Kind, Populations, save_populations
from instructcell.processor import Prompt
from train.collator import generation_strata
from train.datasets import LabelledCells
from train.refit import refit

MOST_CELLS = 200  # of a kind that are kept; its mean is of all of them
PRIOR_COUNTS = 1e5  # counts of a kind from which on its own mean weighs more than the decoder's
ENCODED = 256  # cells at a time


def fit_populations(checkpoint: Checkpoint, datasets: Sequence[LabelledCells], *, seed: int = 0) -> Populations:
    """Of every kind that the decoder was trained on, from its training cells."""
    kinds, parts, ratios = [], [], []
    for dataset, key, rows, weight in generation_strata(datasets).groups:
        cells, (label, _, condition) = datasets[dataset], str(key).partition("\t")
        kind = Kind(label, str(cells.species[rows[0]]), str(cells.tissue[rows[0]]), condition, round(weight, 4))
        chosen = np.sort(np.random.default_rng(seed).permutation(rows)[:MOST_CELLS])
        part, shares = _encoded(checkpoint, kind, cells, chosen)
        kinds.append(kind)
        parts.append(part)
        ratios.append(log_ratio(cells.counts[rows], cells.measured, shares))
    mean, log_std, log_library = (np.concatenate(arrays) for arrays in zip(*parts, strict=True))
    starts = np.cumsum([0, *(len(part[0]) for part in parts)])
    return Populations(tuple(kinds), starts, mean, log_std, log_library, np.stack(ratios), checkpoint.hash)


def log_ratio(counts: sparse.csr_matrix, measured: np.ndarray, shares: np.ndarray) -> np.ndarray:
    """By how much to correct a decoder whose mean shares are `shares` [G] towards cells' counts [N, G], as a log [G].

    The decoder's mean is the prior, worth PRIOR_COUNTS counts, of the shares of the measured genes among themselves;
    every cell weighs the same. What was not measured is not corrected.
    """
    total = np.asarray(counts.sum(axis=1)).ravel().astype(float)
    weights = np.divide(1.0, total, out=np.zeros_like(total), where=total > 0) / max(int((total > 0).sum()), 1)
    seen, expected = (weights @ counts)[measured], shares[measured] / shares[measured].sum()
    believed = (seen * total.sum() + PRIOR_COUNTS * expected) / (total.sum() + PRIOR_COUNTS)
    ratio = np.zeros(len(measured))
    ratio[measured] = np.log(np.maximum(believed, 1e-12) / np.maximum(expected, 1e-12))
    return ratio


@torch.no_grad()
def _encoded(
    checkpoint: Checkpoint, kind: Kind, cells: LabelledCells, rows: np.ndarray
) -> tuple[tuple[np.ndarray, np.ndarray, np.ndarray], np.ndarray]:
    """(mean, log std and log library of cells), and the decoder's mean share of each gene over them [G]."""
    signal = request_states(checkpoint.model, checkpoint.processor, [Prompt.parse(kind.request)])
    decoder: CellDecoder = checkpoint.model.cell_decoder
    measured, found, shares = torch.from_numpy(cells.measured), [], []
    for start in range(0, len(rows), ENCODED):
        counts = torch.from_numpy(cells.counts[rows[start : start + ENCODED]].toarray()).float()
        state = signal.expand(len(counts), -1)
        mean, log_std = decoder.encode(state, counts, measured)
        share = decoder.shares(state, mean)
        total = counts.sum(1) / share[:, measured].sum(1).clamp_min(1e-6)  # over all genes of the checkpoint
        found.append((mean.numpy(), log_std.numpy(), total.clamp_min(1.0).log().numpy()))
        shares.append(share.double().numpy())
    columns = [np.concatenate(column) for column in zip(*found, strict=True)]
    return (columns[0], columns[1], columns[2]), np.concatenate(shares).mean(axis=0)


def write_populations(folder: Path, checkpoint: Checkpoint, datasets: Sequence[LabelledCells], *, seed: int) -> Path:
    """Fit them to a checkpoint and write them into its folder."""
    return save_populations(fit_populations(checkpoint, datasets, seed=seed), folder)


def main(arguments: Sequence[str] | None = None) -> int:
    """Fit and write; 0 done, 2 the data or the checkpoint cannot be had."""
    return refit(
        "train.populations",
        __doc__,
        lambda entry: entry.generation > 0,
        lambda checkpoint, recipe, datasets: print(
            write_populations(checkpoint.path, checkpoint, datasets, seed=recipe.seed)
        ),
        arguments,
    )


if __name__ == "__main__":
    sys.exit(main())
