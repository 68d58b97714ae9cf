"""A fast read-out of cell types, fitted to what the language model itself says of training cells.

training cells, augmented and as they are -> cell embeddings and the language model's label probabilities
-> a small network between the two -> how sure it must be so that it names what the language model names
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from instructcell.checkpoint import Checkpoint
from instructcell.generation import score_labels
from instructcell.labels import LabelSet
from instructcell.model import InstructCellForConditionalGeneration
from instructcell.processor import InstructCellProcessor, Prompt
from instructcell.prompts import annotation_prompt
from instructcell.readout import LabelReadout, ReadoutConfig, save_readout, species_code
from instructcell.tools import calibrate
from train.collator import CellDataset, CellTensors
from train.datasets import LabelledCells
from train.recipe import Augmentation

logger = logging.getLogger("instructcell.train")

N_CELLS = 30_000  # drawn as the annotation task draws them
PLAIN_SHARE = 0.4  # of the draws are read as they are, the others augmented
KEPT_BACK = 0.2  # of the cells set the threshold and fit nothing
MOST_DIFFERENT = 0.01  # share of the cells kept back that may be named otherwise than by the language model
BATCH_CELLS = 256


@dataclass(frozen=True)
class Lessons:
    """What the language model said: embeddings [N, K, Z], species [N, 2], probabilities [N, L], kept_back [N] bool."""

    embeddings: Tensor
    species: Tensor
    probabilities: Tensor
    kept_back: Tensor

    def of(self, chosen: Tensor) -> Lessons:
        """Some of the cells."""
        return Lessons(
            self.embeddings[chosen], self.species[chosen], self.probabilities[chosen], self.kept_back[chosen]
        )


def fit_readout(
    model: InstructCellForConditionalGeneration,
    processor: InstructCellProcessor,
    labels: LabelSet,
    datasets: Sequence[LabelledCells],
    calibration: Mapping[str, float],
    augmentation: Augmentation,
    *,
    n_cells: int = N_CELLS,
    steps: int = 4000,
    seed: int = 0,
) -> LabelReadout:
    """Fit the read-out of a trained model; minutes.

    Parameters
    ----------
    calibration
        As in calibration.json: two answers agree when they agree after it, `unknown` included.
    augmentation
        As the model was trained with.
    n_cells, steps
        Cells the language model is asked about, and steps of 512 of them.
    """
    model.eval()
    lessons = ask_language_model(model, processor, labels, datasets, augmentation, n_cells=n_cells, seed=seed)
    fitted, judged = lessons.of(~lessons.kept_back), lessons.of(lessons.kept_back)
    torch.manual_seed(seed)
    n_embeddings, n_latent = fitted.embeddings.shape[1:]
    readout = LabelReadout(ReadoutConfig(n_embeddings, n_latent, len(labels)))
    fit(readout, fitted, steps=steps, generator=torch.Generator().manual_seed(seed))
    readout = readout.half().float()  # as it is stored
    set_threshold(readout, judged, calibration)
    return readout.eval()


def set_threshold(readout: LabelReadout, judged: Lessons, calibration: Mapping[str, float]) -> None:
    """Note in a fitted read-out how sure it must be, by cells that it was not fitted to."""
    threshold = certain_above(readout, judged, calibration)
    readout.config = replace(readout.config, certain_above=threshold)
    sure = float((answers(readout, judged).max(1) >= threshold).mean())
    logger.info("read-out: sure of %.1f %% of the cells kept back, from a probability of %.3f", 100 * sure, threshold)


def judge_again(
    checkpoint: Checkpoint, datasets: Sequence[LabelledCells], augmentation: Augmentation, seed: int
) -> None:
    """Set the threshold of a checkpoint's read-out anew, as another calibration asks for, and write it."""
    if checkpoint.readout is None:
        return
    judged = ask_language_model(
        checkpoint.model,
        checkpoint.processor,
        checkpoint.labels,
        datasets,
        augmentation,
        n_cells=N_CELLS,
        seed=seed,
        only_kept_back=True,
    )
    set_threshold(checkpoint.readout, judged, checkpoint.calibration)
    save_readout(checkpoint.readout, checkpoint.path)


@torch.inference_mode()
def ask_language_model(
    model: InstructCellForConditionalGeneration,
    processor: InstructCellProcessor,
    labels: LabelSet,
    datasets: Sequence[LabelledCells],
    augmentation: Augmentation,
    *,
    n_cells: int,
    seed: int,
    only_kept_back: bool = False,
) -> Lessons:
    """The language model's label probabilities of drawn training cells, each asked with its species."""
    parts: list[tuple[Tensor, Tensor, Tensor, Tensor]] = []
    for i, (counts, measured, species, kept_back) in enumerate(_draws(datasets, augmentation, n_cells, seed)):
        if only_kept_back:
            if not kept_back.any():
                continue
            species = [name for name, kept in zip(species, kept_back.tolist(), strict=True) if kept]
            counts, measured, kept_back = counts[kept_back], measured[kept_back], kept_back[kept_back]
        counts, measured = counts.to(model.device), measured.to(model.device)
        prompts = [Prompt.parse(annotation_prompt(species=name or None)) for name in species]
        probabilities = score_labels(model, processor, prompts, counts, measured, labels.names)
        embeddings = model.encode_cells(counts, measured).float().cpu()
        codes = torch.stack([species_code(name) for name in species])
        parts.append((embeddings, codes, probabilities, kept_back))
        if i % 20 == 0:
            logger.info("read-out: the language model has named %d of %d cells", i * BATCH_CELLS, n_cells)
    return Lessons(*(torch.cat(columns) for columns in zip(*parts, strict=True)))


def _draws(
    datasets: Sequence[LabelledCells], augmentation: Augmentation, n_cells: int, seed: int
) -> Iterator[tuple[Tensor, Tensor, list[str], Tensor]]:
    """Batches of counts [n, G], measured [n, G], species [n], kept_back [n]; a cell is kept back in all its draws."""
    drawn = CellDataset(datasets, seed, n_cells)
    readers = (CellTensors(datasets, augmentation), CellTensors(datasets, None))
    kept = [np.random.default_rng((seed, d)).random(len(cells.label)) < KEPT_BACK for d, cells in enumerate(datasets)]
    for number, start in enumerate(range(0, n_cells, BATCH_CELLS)):
        examples = [drawn[i] for i in range(start, min(start + BATCH_CELLS, n_cells))]
        plain = (number * PLAIN_SHARE) % 1 + PLAIN_SHARE >= 1  # whole batches, evenly spread
        choices = [example.cells[0] for example in examples]
        counts, measured = readers[plain](choices, [example.seed for example in examples])
        species = [str(datasets[choice.dataset].species[choice.row]) for choice in choices]
        yield counts, measured, species, torch.tensor([kept[choice.dataset][choice.row] for choice in choices])


def fit(readout: LabelReadout, lessons: Lessons, *, steps: int, generator: torch.Generator) -> None:
    """Cross-entropy against the language model's probabilities, with a little noise on the embeddings."""
    optimizer = torch.optim.AdamW(readout.parameters(), lr=2e-3, weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=2e-3, total_steps=steps)
    readout.train()
    for _ in range(steps):
        batch = lessons.of(torch.randint(len(lessons.embeddings), (512,), generator=generator))
        noise = 0.05 * torch.randn(batch.embeddings.shape, generator=generator)
        predicted = readout(batch.embeddings + noise, batch.species)  # [512, L]
        loss = -(batch.probabilities * predicted).sum(1).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
    readout.eval()


@torch.inference_mode()
def answers(readout: LabelReadout, lessons: Lessons) -> np.ndarray:
    """The read-out's probabilities [N, L]."""
    return readout(lessons.embeddings, lessons.species).exp().numpy()


def certain_above(readout: LabelReadout, lessons: Lessons, calibration: Mapping[str, float]) -> float:
    """The least probability from which on the read-out names too few cells otherwise than the language model to matter.

    The cells below it are read by the language model, so that they agree by themselves.
    """
    ours = answers(readout, lessons)
    differs = named(ours, calibration) != named(lessons.probabilities.numpy(), calibration)
    best = ours.max(1)
    order = np.argsort(-best, kind="stable")
    mistakes = np.cumsum(differs[order])  # among the surest 1, 2, ... cells
    allowed = int(MOST_DIFFERENT * len(order))
    n_sure = int(np.searchsorted(mistakes, allowed, side="right"))
    return float(best[order[n_sure - 1]]) if n_sure else 1.01


def named(probabilities: np.ndarray, calibration: Mapping[str, float]) -> np.ndarray:
    """Position of the label that each cell gets, -1 for unknown, from probabilities [N, L]."""
    calibrated = calibrate(probabilities, float(calibration["temperature"]))
    best = calibrated.argmax(1)
    return np.where(calibrated.max(1) >= float(calibration["unknown_below"]), best, -1)
