"""Cells that a cell-sentence model writes, beside InstructCell's pseudo-cells, against held-out cells of a column.

    rows: real training cells (the floor), the same through sentences, both models, independent Poisson genes
    figures: MMD per type, S-KNN and R-KNN in the principal components of the held-out cells (see `train.metrics`)

A sentence becomes expression by the line from rank to log expression that was fitted to the training cells, so its
cells have no more genes than it names. The row "training cells as sentences" says what that alone costs.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from scipy import sparse

from encoders import CellSentences, SentenceConfig
from instructcell import tools
from instructcell.checkpoint import Checkpoint
from instructcell.errors import ConfigError
from instructcell.literature.neighbours import require_two_classes
from train import baselines, metrics
from train.evaluation.generation import mean_of
from train.literature.cells import Cells
from train.literature.recipe import CausalSettings
from train.literature.systems import EmCell

FLOOR_DRAWS = 5
REAL, AS_SENTENCES, POISSON = "real training cells", "training cells as sentences", "independent Poisson per type"
OURS, WRITTEN = "InstructCell", "cell sentences (emcell)"


@dataclass(frozen=True)
class Writing:
    """Whose cells are written, and by a model of which settings.

    Attributes
    ----------
    column
        Of the comparison: the model learns from its training cells and is judged by its test cells.
    settings
        That differ from those of the recipe `emcell`; `generation_share` must be above 0.
    least_cells
        Test cells of a type that is judged.
    """

    column: str
    settings: dict[str, Any] = field(default_factory=dict)
    least_cells: int = 5
    seed: int = 0


def judge_writing(
    asked: Writing,
    settings: CausalSettings,
    known: Cells,
    unseen: Cells,
    checkpoint: Checkpoint,
    folder: Path,
    runs: Path,
    *,
    say: Callable[[str], None] = print,
) -> dict[str, Any]:
    """As many cells of each type as there are test cells, by both models, as JSON holds it.

    Raises
    ------
    ConfigError
        The model of these settings does not learn to write.
    LabelError
        Fewer than two types have enough test cells and can be made by the checkpoint.
    """
    if settings.generation_share <= 0:
        raise ConfigError("writing: generation_share is 0, expected above 0; a model that only names cells writes none")
    held = _held(asked, known, unseen, checkpoint)
    system = EmCell(settings, folder, runs, asked.seed)
    system.fit(known)
    fit = system.model.settings.rank_fit
    assert fit is not None  # every model that is trained here has one
    kinds = [(str(name), int(size)) for name, size in zip(*np.unique(held.labels, return_counts=True), strict=True)]
    species = str(held.species[0])
    say(f"  writing {len(held)} cells of {len(kinds)} types")
    written = [system.model.generate(name, size, species=species, seed=asked.seed) for name, size in kinds]
    space = metrics.RealSpace(held.counts, held.labels, asked.seed)
    rng = np.random.default_rng(asked.seed)
    drawn = [_like(known, held.labels, rng) for _ in range(FLOOR_DRAWS)]
    sentences = CellSentences(known.genes, SentenceConfig(settings.n_genes))
    as_sentences, _ = fit.expression(sentences(drawn[0].dense()), known.genes)
    poisson = baselines.independent_poisson(known.counts, known.labels, held.labels, asked.seed)
    expression = {
        POISSON: metrics.log_normalise(poisson),
        OURS: metrics.log_normalise(_pseudo_cells(kinds, species, held, checkpoint, asked.seed)),
        AS_SENTENCES: as_sentences.numpy(),
        WRITTEN: np.log1p(sparse.vstack([cells.X for cells in written]).toarray()),
    }
    floor = mean_of([_judged(space, metrics.log_normalise(cells.counts), held.labels) for cells in drawn])
    rows = {REAL: floor} | {name: _judged(space, values, held.labels) for name, values in expression.items()}
    words, foreign = (sum(int(cells.obs[key].sum()) for cells in written) for key in ("n_words", "n_foreign"))
    return {
        "rows": {name: {**row, "mmd_ratio": _ratio(row["mmd"], floor["mmd"])} for name, row in rows.items()},
        "cells": len(held),
        "types": [name for name, _ in kinds],
        "n_genes": settings.n_genes,
        "words_per_cell": round(words / len(held), 2),
        "foreign_words": round(foreign / max(words, 1), 4),
        "rank_fit_r2": round(fit.r2, 4),
        "steps": settings.max_steps,
        "learned_from": min(len(known), settings.max_cells or len(known)),
    }


def _held(asked: Writing, known: Cells, unseen: Cells, checkpoint: Checkpoint) -> Cells:
    """The test cells of the types that are judged, sorted by type."""
    able = [label.name for label in checkpoint.labels if label.can_generate]
    types, sizes = np.unique(unseen.labels, return_counts=True)
    kept = types[(sizes >= asked.least_cells) & np.isin(types, able) & np.isin(types, known.labels)]
    require_two_classes(kept, f"the types with {asked.least_cells} test cells that the checkpoint can make")
    rows = np.flatnonzero(np.isin(unseen.labels, kept))
    return unseen[rows[np.argsort(unseen.labels[rows], kind="stable")]]


def _like(known: Cells, asked: np.ndarray, rng: np.random.Generator) -> Cells:
    """Training cells of the types that were asked for, again and again where there are fewer."""
    chosen = []
    for name, size in zip(*np.unique(asked, return_counts=True), strict=True):
        rows = np.flatnonzero(known.labels == name)
        chosen.append(rng.choice(rows, size, replace=len(rows) < size))
    return known[np.concatenate(chosen)]


def _pseudo_cells(
    kinds: list[tuple[str, int]], species: str, held: Cells, checkpoint: Checkpoint, seed: int
) -> sparse.csr_matrix:
    """InstructCell's cells over the column's genes [N, G]."""
    place = {gene: i for i, gene in enumerate(checkpoint.processor.genes)}
    columns = [place[gene] for gene in held.genes]
    made = [
        tools.generate(cell_type=name, n=size, species=species, seed=seed, checkpoint=checkpoint).X[:, columns]
        for name, size in kinds
    ]
    return sparse.vstack(made).tocsr()


def _judged(space: metrics.RealSpace, expression: np.ndarray, labels: np.ndarray) -> dict[str, Any]:
    """Figures of log expression [N, G], which is not scaled again: a sentence has not all of a cell's counts."""
    return space.judge(space.pca.transform(expression), labels)


def _ratio(mmd: dict[str, float], floor: dict[str, float]) -> float:
    """Mean over types of MMD divided by that of real cells."""
    return round(float(np.mean([mmd[name] / max(floor[name], 1e-9) for name in floor])), 4)


__all__ = ["Writing", "judge_writing"]
