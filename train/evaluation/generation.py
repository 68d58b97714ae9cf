"""Pseudo-cells against held-out real cells, beside other real cells (the floor) and cells with independent genes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy import sparse

from instructcell import tools
from train import baselines, metrics, realism
from train.evaluation import peers
from train.evaluation.bench import Bench
from train.evaluation.tasks import GenerationTask, PseudoCells

FLOOR_DRAWS = 5
SEPARATOR = "\t"  # between type and condition


@dataclass(frozen=True)
class RealCells:
    """Held-out and training cells of one file, of the types that can be judged."""

    held: sparse.csr_matrix  # [N, G] over the measured genes
    asked: np.ndarray  # [N] types (with conditions) of the held-out cells, sorted
    known: sparse.csr_matrix  # [M, G]
    known_types: np.ndarray
    genes: np.ndarray  # columns of the checkpoint's genes

    def like_known(self, rng: np.random.Generator) -> np.ndarray:
        """Training cells, as many of each type as there are held-out ones (again and again where there are fewer)."""
        chosen = []
        for name, size in zip(*np.unique(self.asked, return_counts=True), strict=True):
            rows = np.flatnonzero(self.known_types == name)
            chosen.append(rng.choice(rows, size, replace=len(rows) < size))
        return np.concatenate(chosen)


def measure(bench: Bench, task: GenerationTask) -> dict[str, Any]:
    """The first set's figures, and under "sets" those of every set."""
    sets = {wanted.file: measure_set(bench, task, wanted) for wanted in task.sets}
    first = sets[task.sets[0].file]
    return {**first, "file": task.sets[0].file, "sets": sets}


def measure_set(bench: Bench, task: GenerationTask, wanted: PseudoCells) -> dict[str, Any]:
    """Distances, gene statistics and usefulness of the pseudo-cells of one file's types."""
    real = real_cells(bench, wanted)
    space = metrics.RealSpace(real.held, real.asked, bench.recipe.seed)
    profile = realism.GeneProfile(real.held, real.asked)
    pseudo = [pseudo_cells(bench, wanted, real, seed) for seed in task.seeds]
    judged = [_judge(space, profile, counts, real.asked) for counts in pseudo]
    floor = _floor(space, profile, real, bench.recipe.seed)
    poisson = baselines.independent_poisson(real.known, real.known_types, real.asked, task.seeds[0])
    noise = _judge(space, profile, poisson, real.asked)
    result = {
        "cells": len(real.asked),
        "types": len(np.unique(real.asked)),
        "seeds": list(task.seeds),
        "pseudo": mean_of(judged),
        "pseudo_spread": {
            key: round(float(np.std([j[key] for j in judged])), 4) for key in ("mean_mmd", "s_knn", "r_knn")
        },
        "real_training": floor,
        "independent_poisson": noise,
        "training_use": _training_use(real, pseudo[0], poisson, bench.recipe.seed),
        "real_curves": realism.curves(profile.zeros, profile.mean, profile.variance),
        "scvi": _scvi(bench, task, real, space, profile, floor),
    }
    result["mmd_ratio"] = _ratio(result["pseudo"]["mmd"], floor["mmd"])
    result["mmd_ratio_poisson"] = _ratio(noise["mmd"], floor["mmd"])
    use = result["training_use"]
    use["share_of_real"] = round(use["pseudo"] / max(use["real"], 1e-9), 4)
    bench.say(
        f"pseudo-cells like {wanted.file}: MMD x{result['mmd_ratio']:.2f} of real (Poisson "
        f"x{result['mmd_ratio_poisson']:.2f}), S-KNN {result['pseudo']['s_knn']:.3f} (real {floor['s_knn']:.3f}), "
        f"R-KNN {result['pseudo']['r_knn']:.3f} (real {floor['r_knn']:.3f}), marker log-FC "
        f"{result['pseudo']['marker_logfc']:.3f} (real {floor['marker_logfc']:.3f}), trained on them "
        f"x{use['share_of_real']:.3f}"
    )
    return result


def real_cells(bench: Bench, wanted: PseudoCells) -> RealCells:
    """The cells of the types that the checkpoint can generate and that are frequent enough to be judged."""
    cells = bench.datasets[wanted.file]
    labels = bench.checkpoint.labels
    able = np.isin(cells.label, [label.name for label in labels if label.can_generate])
    able &= ~np.isin(cells.dataset_label, cells.entry.ignore_labels)
    kinds = cells.label
    if wanted.conditions:
        kinds = np.char.add(np.char.add(cells.label.astype(str), SEPARATOR), cells.condition.astype(str))
    held, known = np.flatnonzero(cells.held_out & able), np.flatnonzero(~cells.held_out & able)
    types, sizes = np.unique(kinds[held], return_counts=True)
    kept = types[(sizes >= wanted.least_cells) & np.isin(types, kinds[known])]
    held, known = held[np.isin(kinds[held], kept)], known[np.isin(kinds[known], kept)]
    held = held[np.argsort(kinds[held], kind="stable")]
    genes = np.flatnonzero(cells.measured)
    return RealCells(
        held=cells.counts[held][:, genes].tocsr(),
        asked=kinds[held],
        known=cells.counts[known][:, genes].tocsr(),
        known_types=kinds[known],
        genes=genes,
    )


def pseudo_cells(bench: Bench, wanted: PseudoCells, real: RealCells, seed: int) -> sparse.csr_matrix:
    """As many pseudo-cells of each type as there are held-out ones, by the product's own tool [N, G]."""
    made = []
    for kind, size in zip(*np.unique(real.asked, return_counts=True), strict=True):
        name, _, condition = str(kind).partition(SEPARATOR)
        adata = tools.generate(
            cell_type=name,
            n=int(size),
            tissue=wanted.tissue or None,
            species=wanted.species or None,
            condition=condition or None,
            seed=seed,
            checkpoint=bench.checkpoint,
        )
        made.append(adata.X[:, real.genes])
    return sparse.vstack(made).tocsr()


def _judge(
    space: metrics.RealSpace, profile: realism.GeneProfile, counts: realism.Counts, asked: np.ndarray
) -> dict[str, Any]:
    return {**space.judge(space.place(counts), asked), **profile.judge(counts, asked)}


def _floor(space: metrics.RealSpace, profile: realism.GeneProfile, real: RealCells, seed: int) -> dict[str, Any]:
    """The same figures of training cells, drawn several times: what real cells reach."""
    rng = np.random.default_rng(seed)
    return mean_of([_judge(space, profile, real.known[real.like_known(rng)], real.asked) for _ in range(FLOOR_DRAWS)])


def mean_of(judged: list[dict[str, Any]]) -> dict[str, Any]:
    """Figures averaged over draws, key by key; lists (curves) are the first draw's."""
    first = judged[0]
    result: dict[str, Any] = {}
    for key, value in first.items():
        if isinstance(value, dict):
            result[key] = mean_of([j[key] for j in judged])
        elif isinstance(value, list):
            result[key] = value
        else:
            result[key] = float(np.mean([j[key] for j in judged]))
    return result


def _training_use(real: RealCells, pseudo: sparse.csr_matrix, poisson: np.ndarray, seed: int) -> dict[str, float]:
    """Accuracy on held-out real cells of logistic regression trained on as many real or made cells."""
    chosen = real.like_known(np.random.default_rng(seed))
    sources = {
        "real": (real.known[chosen], real.known_types[chosen]),
        "pseudo": (pseudo, real.asked),
        "poisson": (poisson, real.asked),
    }
    return realism.train_on_one_test_on_real(sources, real.held, real.asked)


def _scvi(
    bench: Bench,
    task: GenerationTask,
    real: RealCells,
    space: metrics.RealSpace,
    profile: realism.GeneProfile,
    floor: dict[str, Any],
) -> dict[str, Any]:
    """scVI trained on the same training cells, sampled from its prior and from its posterior predictive."""
    given = real.known, real.known_types, real.asked, task.scvi_epochs, task.seeds[0]
    made = peers.generate(bench.peers, *given, bench.runs / "peers")
    if made is None:
        return {"prior": peers.NOT_RUN, "posterior": peers.NOT_RUN}
    result = {}
    for source, counts in made.items():
        judged = _judge(space, profile, counts, real.asked)
        result[source] = {**judged, "mmd_ratio": _ratio(judged["mmd"], floor["mmd"])}
        bench.say(f"  scVI {source}: MMD x{result[source]['mmd_ratio']:.2f}, R-KNN {judged['r_knn']:.3f}")
    return result


def _ratio(mmd: dict[str, float], floor: dict[str, float]) -> float:
    """Mean over types of MMD divided by that of real cells."""
    return float(np.mean([mmd[name] / max(floor[name], 1e-9) for name in floor]))
