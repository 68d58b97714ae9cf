"""From scores to probabilities: temperatures, thresholds, and how much the file as a whole counts.

    a trained model -> `fit_calibration`: temperatures for labels and for drug responses, the unknown threshold
    its checkpoint  -> `recalibrate`: the same label figures with context, the weight of context and neighbours, where
                       training cells lie (reference.safetensors), back-off and clusters

The label temperature and the threshold are fitted on held-out cells of the files that no headline figure of the card is
quoted on. The drug temperature needs the few held-out cells with a response: it changes how sure a response sounds,
never which one it is nor how cells are ranked, so accuracy and AUROC do not depend on it.

Context helps studies that training never saw, which held-out cells of training studies cannot show. So its strength is
not the one that these like best: it is the greatest of CONTEXTS that costs them nothing (docs/trials.md).
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np
import torch
from scipy.optimize import minimize_scalar
from scipy.sparse import csr_matrix, vstack

from encoders import SparseCellEncoder
from instructcell.align import AlignedCells
from instructcell.broader import SURE_ABOVE, BroaderTypes
from instructcell.checkpoint import Checkpoint, load_checkpoint, write_calibration
from instructcell.clusters import CLUSTER_CELLS, cluster_probabilities
from instructcell.context import ContextSettings, FileContext
from instructcell.generation import score_labels
from instructcell.labels import LabelSet
from instructcell.model import InstructCellForConditionalGeneration
from instructcell.processor import InstructCellProcessor, Prompt
from instructcell.prompts import DRUG_ANSWERS, annotation_prompt, drug_prompt
from instructcell.reference import Reference
from instructcell.tasks import encode, pooled
from instructcell.tissue_readers import tissue_readers
from instructcell.tools import calibrate as apply_temperature
from train.card import HEADLINE
from train.datasets import LabelledCells

logger = logging.getLogger("instructcell.train")
MOST_CELLS = 300  # per file
MOST_CORRECT_REFUSED = 0.002  # share of right answers that the unknown threshold may cost
MOST_UNFAMILIAR = 0.001  # share of rightly named known cells that may be taken for an unseen type
MOST_TRAINING_CELLS = 1000  # per file, that say where the types lie
CONTEXTS = tuple(
    ContextSettings(floor, neighbours, linear_weight=linear, marker_weight=markers, own_weight=own)
    for linear, markers, own in ((3.0, 4.0, 3.0), (3.0, 0.0, 0.0), (1.5, 0.0, 0.0), (0.0, 0.0, 0.0))
    for floor, neighbours in ((0.05, 0.5), (0.05, 0.25), (0.1, 0.25), (0.3, 0.0), (1.0, 0.0))
)
MOST_ACCURACY_LOST, MOST_LOSS_GAINED = 0.002, 0.01  # by context, on the mean over the files
MIXTURE = "files as one"  # also judged: a file that mixes tissues, of the files that measured most genes
MOST_OF_GENES = 0.75  # share of the checkpoint's genes from which on a file is part of it
MOST_LOST_BY_MIXTURE = 0.005
BROADER_ABOVE = (0.8, 0.85, 0.9, 0.95)
BROADER_RIGHT = 0.95  # share of the broader types given that must be right
CLUSTER_WORTHS = (2.0, 4.0, 8.0, 16.0, 32.0)
CLUSTER_SIZE, CLUSTER_PURITIES = 16, (1.0, 0.7, 0.5)
LEAST_OF_TYPE = 8  # cells of a type that clusters are made of


def fit_calibration(
    model: InstructCellForConditionalGeneration,
    processor: InstructCellProcessor,
    labels: LabelSet,
    datasets: Sequence[LabelledCells],
    *,
    seed: int = 0,
) -> dict[str, float]:
    """Temperatures and threshold for calibration.json."""
    model.eval()
    names = labels.names
    fitted_on = [cells for cells in datasets if cells.name not in HEADLINE and cells.held_out.any()]
    probabilities, truth = [], []
    for cells in fitted_on:
        rows = _some(np.flatnonzero(cells.held_out & np.isin(cells.label, names)), seed)
        prompt = annotation_prompt(species=str(cells.species[0]))
        probabilities.append(_score(model, processor, cells, rows, prompt, names))
        truth += [names.index(str(label)) for label in cells.label[rows]]
    scores, right = np.concatenate(probabilities), np.array(truth)
    temperature = fit_temperature(scores, right)
    calibrated = apply_temperature(scores, temperature)
    correct = calibrated.argmax(1) == right
    threshold = float(np.quantile(calibrated.max(1)[correct], MOST_CORRECT_REFUSED))
    drug_scores, drug_right = _drug_scores(model, processor, datasets, seed)
    return {
        "temperature": round(temperature, 4),
        "unknown_below": round(threshold, 4),
        "drug_temperature": round(fit_temperature(drug_scores, drug_right), 4),
    }


# ---- with context


@dataclass(frozen=True)
class Judged:
    """Held-out cells of one file: raw probabilities [N, L], embedding [N, Z], positions of the true labels [N].

    `counts` [N, G], of which the file has `measured` [G].
    """

    name: str
    raw: np.ndarray
    embedding: np.ndarray
    truth: np.ndarray
    counts: csr_matrix
    measured: np.ndarray

    def only(self, cells: np.ndarray) -> Judged:
        """Some of the cells [N] bool as a file of their own."""
        return replace(
            self,
            raw=self.raw[cells],
            embedding=self.embedding[cells],
            truth=self.truth[cells],
            counts=self.counts[cells],
        )


def together(files: Sequence[Judged], name: str = "") -> Judged:
    """Several files as one, on the genes that all have measured."""
    raw, embedding, truth = (np.concatenate([getattr(f, n) for f in files]) for n in ("raw", "embedding", "truth"))
    measured = np.logical_and.reduce([file.measured for file in files])
    counts = csr_matrix(vstack([file.counts for file in files]).multiply(measured[None, :]))
    return Judged(name or " + ".join(file.name for file in files), raw, embedding, truth, counts, measured)


def recalibrate(folder: str | Path, datasets: Sequence[LabelledCells], *, seed: int = 0) -> dict[str, float]:
    """Fit the figures of a finished checkpoint again, and write calibration.json and reference.safetensors into it.

    Parameters
    ----------
    folder
        Of the checkpoint; its drug temperature stays.
    datasets
        The recipe's cells on the checkpoint's genes.

    Returns
    -------
    dict
        What calibration.json now holds.
    """
    loaded = load_checkpoint(folder)
    files = judged_files(loaded, datasets, seed)
    raw, truth = (np.concatenate([getattr(file, name) for file in files]) for name in ("raw", "truth"))
    temperature = fit_temperature(raw, truth)
    reference = fit_reference(loaded, datasets, seed)
    settings = fit_context(loaded, files, temperature, reference)
    seen = [in_context(loaded, file, temperature, settings, reference) for file in files]
    probabilities, distances, embedded = (np.concatenate(found) for found in zip(*seen, strict=True))
    right = probabilities.argmax(axis=1) == truth
    threshold = float(np.quantile(probabilities.max(axis=1)[right], MOST_CORRECT_REFUSED))
    figures = {
        "temperature": temperature,
        "unknown_below": threshold,
        "drug_temperature": float(loaded.calibration.get("drug_temperature", 1.0)),
        "context_floor": settings.floor,
        "neighbour_weight": settings.neighbour_weight,
        "context_temperature": settings.temperature,
        "linear_weight": settings.linear_weight,
        "marker_weight": settings.marker_weight,
        "own_weight": settings.own_weight,
        "familiar_above": MOST_UNFAMILIAR,
        "broader_above": fit_broader(BroaderTypes(loaded.labels), probabilities, truth),
        "cluster_cells": fit_cluster_cells([found for found, *_ in seen], [file.truth for file in files], seed),
    }
    calibration = {name: round(figure, 4) for name, figure in figures.items()}
    write_calibration(
        loaded.path, calibration, reference.judged_by(distances[right], typical=float(np.median(embedded[right])))
    )
    return calibration


def judged_files(loaded: Checkpoint, datasets: Sequence[LabelledCells], seed: int) -> list[Judged]:
    """Held-out cells, with labels that the checkpoint has, of the files that no headline figure is quoted on."""
    names = loaded.labels.names
    files = []
    for cells in datasets:
        rows = _some(np.flatnonzero(cells.held_out & np.isin(cells.label, names)), seed)
        if cells.name in HEADLINE or not len(rows):
            continue
        raw = score_cells(loaded, cells, rows)
        truth = np.array([names.index(str(label)) for label in cells.label[rows]])
        counts = cells.counts[rows]
        files.append(Judged(cells.name, raw, embed(loaded, counts, cells.measured), truth, counts, cells.measured))
    return files


def score_cells(loaded: Checkpoint, cells: LabelledCells, rows: np.ndarray) -> np.ndarray:
    """The language model's probabilities of the labels [N, L], each cell read by itself."""
    prompt = annotation_prompt(species=str(cells.species[0]))
    return _score(loaded.model, loaded.processor, cells, rows, prompt, loaded.labels.names)


def embed(loaded: Checkpoint, counts: csr_matrix, measured: np.ndarray) -> np.ndarray:
    """Embeddings [N, Z] as the tools make them."""
    encoder = SparseCellEncoder(loaded.model.cell_encoder)
    parts = [
        pooled(encode(encoder, AlignedCells(counts[start : start + 512], measured, 1.0, int(measured.sum()), None)))  # type: ignore[arg-type]
        for start in range(0, counts.shape[0], 512)
    ]
    return np.concatenate(parts)


def fit_reference(loaded: Checkpoint, datasets: Sequence[LabelledCells], seed: int) -> Reference:
    """Where the types of the training cells lie."""
    names, embeddings, types = loaded.labels.names, [], []
    for cells in datasets:
        known = np.flatnonzero(~cells.held_out & np.isin(cells.label, names))
        rows = np.sort(np.random.default_rng(seed).permutation(known)[:MOST_TRAINING_CELLS])
        if len(rows):
            embeddings.append(embed(loaded, cells.counts[rows], cells.measured))
            types.append(cells.label[rows])
    return Reference.fit(np.concatenate(embeddings), np.concatenate(types))


def in_context(
    loaded: Checkpoint, file: Judged, temperature: float, settings: ContextSettings, reference: Reference | None = None
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Of cells that are a file of their own: probabilities [N, L], distances [N] from training, and without markers."""
    alone = apply_temperature(file.raw, temperature)
    fit = partial(tissue_readers, loaded, file.measured)
    context = FileContext.of(
        loaded.labels, alone, file.embedding, settings, reference=reference, counts=file.counts, fit=fit
    )
    distance = np.zeros(len(alone)) if reference is None else reference.distance(file.embedding)
    nearest = context.nearest(file.embedding)
    surprise, _ = context.surprise(file.counts)
    away = (context.distances(distance, nearest, surprise), context.distances(distance, nearest))
    return context.apply(alone, nearest, file.counts), *away


def fit_context(
    loaded: Checkpoint, files: Sequence[Judged], temperature: float, reference: Reference | None
) -> ContextSettings:
    """The strongest of CONTEXTS that costs the files nothing, with its temperature."""
    most = [file for file in files if file.measured.mean() >= MOST_OF_GENES] or list(files)
    mixture, truth = together(most, MIXTURE), np.concatenate([file.truth for file in files])
    before = [_judge(apply_temperature(file.raw, temperature), file.truth) for file in (*files, mixture)]
    for settings in CONTEXTS:
        if settings.asks_readers and loaded.populations is None:
            continue  # nothing to learn from
        found = [in_context(loaded, file, temperature, settings, reference)[0] for file in files]
        softer = fit_temperature(np.concatenate(found), truth)
        found = [apply_temperature(each, softer) for each in found]
        mixed, *_ = in_context(loaded, mixture, temperature, settings, reference)
        found.append(apply_temperature(mixed, softer))
        after = [_judge(each, file.truth) for each, file in zip(found, (*files, mixture), strict=True)]
        gained = np.array(after) - np.array(before)  # [files + 1, 2] accuracy, loss
        mean = gained[:-1].mean(axis=0)
        logger.info("context %s: accuracy %+.4f, loss %+.4f, mixture %+.4f", settings, *mean, gained[-1, 0])
        if mean[0] >= -MOST_ACCURACY_LOST and mean[1] <= MOST_LOSS_GAINED and gained[-1, 0] >= -MOST_LOST_BY_MIXTURE:
            return replace(settings, temperature=softer)
    return ContextSettings()


def _judge(probabilities: np.ndarray, truth: np.ndarray) -> tuple[float, float]:
    """Accuracy, and mean loss of the true label."""
    likelihood = probabilities[np.arange(len(truth)), truth]
    return float((probabilities.argmax(axis=1) == truth).mean()), float(-np.log(np.clip(likelihood, 1e-6, 1.0)).mean())


def fit_broader(types: BroaderTypes, probabilities: np.ndarray, truth: np.ndarray) -> float:
    """The least of BROADER_ABOVE from which on the types given are right often enough; the greatest if none is."""
    for above in BROADER_ABOVE:
        position, _ = types.narrowest(probabilities, above)
        given = position >= 0
        if given.any() and types.members[position[given], truth[given]].mean() >= BROADER_RIGHT:
            return above
    return max(BROADER_ABOVE) if len(truth) else SURE_ABOVE


def fit_cluster_cells(probabilities: Sequence[np.ndarray], truth: Sequence[np.ndarray], seed: int) -> float:
    """How many independent cells a cluster of many is worth, so that made-up noisy clusters get honest confidence."""
    rng, losses = np.random.default_rng(seed), {worth: [] for worth in CLUSTER_WORTHS}  # type: dict[float, list[float]]
    for of_file, labels in zip(probabilities, truth, strict=True):
        composition = of_file.mean(axis=0)
        for label, n_cells in zip(*np.unique(labels, return_counts=True), strict=True):
            main, others = np.flatnonzero(labels == label), np.flatnonzero(labels != label)
            for purity in CLUSTER_PURITIES:
                n_main = round(purity * CLUSTER_SIZE)
                if n_cells < LEAST_OF_TYPE or len(others) < CLUSTER_SIZE - n_main:
                    continue
                cells = np.concatenate([rng.choice(main, n_main), rng.choice(others, CLUSTER_SIZE - n_main)])
                for worth, found in losses.items():
                    chance = cluster_probabilities(of_file[cells], composition, worth)[label]
                    found.append(-float(np.log(max(chance, 1e-6))))
    if not losses[CLUSTER_CELLS]:
        return CLUSTER_CELLS
    return min(losses, key=lambda worth: float(np.mean(losses[worth])))


def fit_temperature(probabilities: np.ndarray, truth: np.ndarray) -> float:
    """The temperature that makes the true labels likeliest: probabilities [N, C], truth [N] -> between 0.25 and 10."""

    def loss(log_temperature: float) -> float:
        calibrated = apply_temperature(probabilities, float(np.exp(log_temperature)))
        return float(-np.log(np.clip(calibrated[np.arange(len(truth)), truth], 1e-12, 1.0)).mean())

    return float(np.exp(minimize_scalar(loss, bounds=(np.log(0.25), np.log(10.0)), method="bounded").x))


def _drug_scores(
    model: InstructCellForConditionalGeneration,
    processor: InstructCellProcessor,
    datasets: Sequence[LabelledCells],
    seed: int,
) -> tuple[np.ndarray, np.ndarray]:
    scores, truth = [], []
    for cells in datasets:
        for names, responses in cells.drugs:
            for name in np.unique(names):
                rows = _some(np.flatnonzero(cells.held_out & (names == name) & (responses != "")), seed)
                if len(rows):
                    prompt = drug_prompt(str(name))  # as the tools ask
                    scores.append(_score(model, processor, cells, rows, prompt, DRUG_ANSWERS))
                    truth += [DRUG_ANSWERS.index(str(response)) for response in responses[rows]]
    return np.concatenate(scores), np.array(truth)


def _some(rows: np.ndarray, seed: int) -> np.ndarray:
    return np.sort(np.random.default_rng(seed).permutation(rows)[:MOST_CELLS])


def _score(
    model: InstructCellForConditionalGeneration,
    processor: InstructCellProcessor,
    cells: LabelledCells,
    rows: np.ndarray,
    prompt: str,
    answers: Sequence[str],
) -> np.ndarray:
    measured = np.broadcast_to(cells.measured, (len(rows), len(cells.measured)))
    prompts = [Prompt.parse(prompt)] * len(rows)
    with torch.no_grad():
        return np.asarray(score_labels(model, processor, prompts, cells.counts[rows], measured, list(answers)))
