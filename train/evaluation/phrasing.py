"""Requests in words that training never saw: does the answer depend on how one asks?

Two views. The model itself, asked in many phrasings about the same cells: accuracy of each phrasing beside that of the
canonical one. And the chat's way in: whether the router takes a phrasing for what it asks, with the right type or drug.
"""

from __future__ import annotations

from functools import partial
from random import Random
from typing import Any

import numpy as np
from scipy import sparse

from instructcell import intents, requests
from instructcell.generation import begins_with_cells, generate_cells, score_labels
from instructcell.processor import Prompt
from instructcell.prompts import DRUG_ANSWERS, drug_prompt, generation_prompt
from instructcell.router import load_router
from instructcell.tools import drugs_of
from train import metrics
from train.evaluation.bench import Bench
from train.evaluation.generation import real_cells
from train.evaluation.tasks import PhrasingTask, Target
from train.instructions import CellRecord, InstructionSettings, instruction, load_catalog
from train.phrasings import Task
from train.templates import CELLS

ANNOTATE = f"annotate: {CELLS}"
PLAIN = InstructionSettings(options=0.0, guess=0.0, contradiction=0.0, canonical=0.0)
PER_FILE = 24  # cells of each file, each asked about once in one phrasing
PSEUDO_CELLS = 3  # made for each phrasing
INTENTS: dict[Task, tuple[str, ...]] = {
    "annotation": (requests.ANNOTATE, requests.SUBSET),
    "drug": (requests.DRUG,),
    "generation": (requests.GENERATE,),
    "markers": (requests.MARKERS,),
}


def measure(bench: Bench, task: PhrasingTask, seed: int = 0) -> dict[str, Any]:
    """One phrasing per cell over all files; then many phrasings of each kind of request on the same cells."""
    result = {**one_phrasing_per_cell(bench, seed), "tasks": {}}
    result["tasks"]["annotation"] = _annotation(bench, task, seed)
    if task.drug and task.drug_target is not None:
        result["tasks"]["drug"] = _drug(bench, task, task.drug_target, seed)
    if task.generation is not None:
        result["tasks"]["generation"] = _generation(bench, task, seed)
    result["routed"] = _routed(bench, task, seed)
    bench.say(
        f"unseen phrasings: {result['accuracy']['value']:.3f}, canonical {result['canonical']['value']:.3f}; "
        + ", ".join(f"{k} {v['accuracy']:.3f} ({v['canonical']:.3f})" for k, v in result["tasks"].items())
        + "; routed "
        + ", ".join(f"{k} {v['right']:.3f}" for k, v in result["routed"].items())
    )
    return result


# ---- the model


def one_phrasing_per_cell(bench: Bench, seed: int) -> dict[str, Any]:
    """Held-out cells of every file, each asked about in one unseen phrasing and in the canonical one."""
    rng, text = np.random.default_rng(seed), Random(seed)
    counts, measured, truth, prompts = [], [], [], []
    for cells in bench.datasets.values():
        rows = np.flatnonzero(cells.held_out & np.isin(cells.label, bench.checkpoint.labels.names))
        for row in rng.choice(rows, min(PER_FILE, len(rows)), replace=False):
            record = CellRecord(str(cells.label[row]), species=str(cells.species[row]), tissue=str(cells.tissue[row]))
            prompts.append(_phrase("annotation", record, text))
            counts.append(cells.counts[row])
            measured.append(cells.measured)
            truth.append(record.label)
    stacked, masks, right = sparse.vstack(counts).tocsr(), np.stack(measured), np.array(truth)
    asked, canonical = (_best(bench, given, stacked, masks) for given in (prompts, [ANNOTATE] * len(truth)))
    return {
        "cells": len(truth),
        "accuracy": metrics.bootstrap(metrics.accuracy, right, asked).to_dict(),
        "canonical": metrics.bootstrap(metrics.accuracy, right, canonical).to_dict(),
    }


def _annotation(bench: Bench, task: PhrasingTask, seed: int) -> dict[str, Any]:
    """Each phrasing is asked about the same cells of its file."""
    shares, canonical = [], []
    n_phrasings = -(-task.phrasings // len(task.targets))
    for target in task.targets:
        cells, rows = bench.datasets[target.file], _some(bench, target, task.cells, seed)
        record = CellRecord(str(cells.label[rows[0]]), species=str(cells.species[0]), tissue=str(cells.tissue[0]))
        prompts = phrasings("annotation", record, n_phrasings, seed)
        truth = cells.label[rows]
        said = _best(bench, np.repeat(prompts, len(rows)), _tiled(cells.counts[rows], len(prompts)), cells.measured)
        shares.append((said.reshape(len(prompts), -1) == truth).mean(axis=1))
        plain = _best(bench, [ANNOTATE] * len(rows), cells.counts[rows], cells.measured)
        canonical.append(float((plain == truth).mean()))
    return _spread(np.concatenate(shares), float(np.mean(canonical)), task.cells)


def _drug(bench: Bench, task: PhrasingTask, target: Target, seed: int) -> dict[str, Any]:
    cells = bench.datasets[target.file]
    names, responses = next((n, r) for n, r in cells.drugs if task.drug in n)
    rows = bench.tested(target)
    rows = rows[(names[rows] == task.drug) & (responses[rows] != "")]
    rows = np.random.default_rng(seed).permutation(rows)[: task.cells]
    record = CellRecord(
        drug=task.drug, response=str(responses[rows[0]]), species=str(cells.species[0]), tissue=str(cells.tissue[0])
    )
    prompts = phrasings("drug", record, task.phrasings, seed)
    answers = list(DRUG_ANSWERS)
    said = _best(
        bench, np.repeat(prompts, len(rows)), _tiled(cells.counts[rows], len(prompts)), cells.measured, answers
    )
    plain = _best(bench, [drug_prompt(task.drug)] * len(rows), cells.counts[rows], cells.measured, answers)
    shares = (said.reshape(len(prompts), -1) == responses[rows]).mean(axis=1)
    return _spread(shares, float((plain == responses[rows]).mean()), len(rows))


def _generation(bench: Bench, task: PhrasingTask, seed: int) -> dict[str, Any]:
    """The type of the pseudo-cells, as their nearest real cells have it."""
    wanted = task.generation
    assert wanted is not None
    real, rng = real_cells(bench, wanted), Random(seed)
    space = metrics.RealSpace(real.held, real.asked, seed)
    types = [str(name) for name in np.unique(real.asked)]
    per_type = -(-task.phrasings // len(types))
    asked, prompts = [], []
    for name in types:
        record = CellRecord(name, species=wanted.species, tissue=wanted.tissue)
        prompts += phrasings("generation", record, per_type, rng.randrange(2**31))
        asked += [name] * per_type
    canonical = [
        generation_prompt(name, species=wanted.species or None, tissue=wanted.tissue or None) for name in asked
    ]
    right = [
        np.array([_made_right(bench, prompt, name, space, real.genes, i) for i, (prompt, name) in enumerate(pairs)])
        for pairs in (zip(prompts, asked, strict=True), zip(canonical, asked, strict=True))
    ]
    return _spread(right[0], float(right[1].mean()), PSEUDO_CELLS)


def _made_right(bench: Bench, prompt: str, name: str, space: metrics.RealSpace, genes: np.ndarray, seed: int) -> float:
    """Share of a few pseudo-cells whose nearest real cells are of the type asked for."""
    parsed = Prompt.parse(prompt, 0)
    made = generate_cells(bench.checkpoint.model, bench.checkpoint.processor, parsed, PSEUDO_CELLS, seed=seed)
    points = space.place(made.numpy()[:, genes])
    return metrics.real_knn(points, np.full(PSEUDO_CELLS, name), space.points, space.labels)


def _spread(shares: np.ndarray, canonical: float, cells: int) -> dict[str, Any]:
    """Accuracy over phrasings: mean, spread and the worst, beside the canonical phrasing."""
    return {
        "phrasings": len(shares),
        "cells_per_phrasing": cells,
        "accuracy": round(float(shares.mean()), 4),
        "canonical": round(canonical, 4),
        "standard_deviation": round(float(shares.std()), 4),
        "worst_twentieth": round(float(np.quantile(shares, 0.05)), 4),
        "histogram": np.histogram(shares, bins=10, range=(0, 1))[0].tolist(),
    }


def _best(
    bench: Bench, prompts: Any, counts: sparse.csr_matrix, measured: np.ndarray, answers: list[str] | None = None
) -> np.ndarray:
    """The likeliest answer to each prompt about its cell [N]."""
    names = answers or bench.checkpoint.labels.names
    parsed = [Prompt.parse(str(prompt)) for prompt in prompts]
    scores = score_labels(bench.checkpoint.model, bench.checkpoint.processor, parsed, counts, measured, names)
    return np.array(names)[np.asarray(scores).argmax(1)]


def _some(bench: Bench, target: Target, n: int, seed: int) -> np.ndarray:
    return np.sort(np.random.default_rng(seed).permutation(bench.known_rows(target))[:n])


def _tiled(counts: sparse.csr_matrix, times: int) -> sparse.csr_matrix:
    return sparse.vstack([counts] * times).tocsr()


# ---- the words


def phrasings(task: Task, record: CellRecord, n: int, seed: int) -> list[str]:
    """`n` prompts about a record that all differ, from phrasings that training never sees."""
    rng, found = Random(seed), dict[str, None]()
    for _ in range(50 * n):
        found.setdefault(_phrase(task, record, rng))
        if len(found) == n:
            break
    return list(found)


def _phrase(task: Task, record: CellRecord, rng: Random) -> str:
    return instruction(task, record, rng, catalog=load_catalog(), settings=PLAIN, held_out=True).prompt


# ---- the chat's way in


def _routed(bench: Bench, task: PhrasingTask, seed: int) -> dict[str, Any]:
    """Share of unseen phrasings that the chat takes for what they ask, and asks back about."""
    labels, text = bench.checkpoint.labels, Random(seed)
    able = [label.name for label in labels if label.can_generate]
    marked = [label for label in labels.names if load_catalog().markers.get(label)]
    drug = task.drug or next((str(found.name) for found in drugs_of(bench.checkpoint)), "")
    records: dict[Task, Any] = {
        "annotation": lambda: CellRecord(text.choice(labels.names), species="human", tissue="PBMC"),
        "drug": lambda: CellRecord(drug=drug, response=DRUG_ANSWERS[0], species="human"),
        "generation": lambda: CellRecord(text.choice(able), species="human"),
        "markers": lambda: CellRecord(text.choice(marked)),
    }
    return {
        kind: _routing(bench, kind, [(record := make(), _phrase(kind, record, text)) for _ in range(task.phrasings)])
        for kind, make in records.items()
        if (kind != "generation" or able) and (kind != "markers" or marked) and (kind != "drug" or drug)
    }


def _routing(bench: Bench, kind: Task, asked: list[tuple[CellRecord, str]]) -> dict[str, Any]:
    """A request whose type or drug is missed counts as wrong; one that is asked back about as neither."""
    right, unsure, wrong = 0, 0, []
    drugs, labels = drugs_of(bench.checkpoint), bench.checkpoint.labels
    makes_cells = partial(begins_with_cells, bench.checkpoint.model, bench.checkpoint.processor)
    for record, prompt in asked:
        sentence = " ".join(prompt.replace(CELLS, "these cells").split())
        request = intents.understand(
            sentence, router=load_router(), labels=labels, drugs=drugs, makes_cells=makes_cells
        )
        meant = request.intent in INTENTS[kind]
        if kind == "drug":
            meant &= [mention.drug and mention.drug.name for mention in request.drugs] == [record.drug]
        elif kind in ("generation", "markers"):
            meant &= request.cell_type is not None and request.cell_type.name == record.label
        if request.wavers is not None:
            unsure += 1
        elif meant:
            right += 1
        else:
            wrong.append(f"{sentence} -> {request.intent}")
    return {
        "phrasings": len(asked),
        "right": round(right / len(asked), 4),
        "asked_back": round(unsure / len(asked), 4),
        "wrong": wrong[:5],
    }
