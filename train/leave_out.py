"""What the cell encoder and its read-out make of a study, or of a cell type, that training never saw.

The whole model takes an hour to train, its cell encoder minutes: so a study is left out, the encoder stage of the
recipe is run on the others, and the read-out is asked about the study. Every finished study is kept in the run folder,
and an interrupted one goes on where it stopped.

    recipe - study -> genes, labels -> encoder stage -> probabilities of the left-out cells -> the same in their file,
    free / among the target's labels, beside baselines refitted on the other studies of its kind
"""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from scipy import sparse
from torch import nn

from encoders import CellEncoder, CellEncoderConfig
from instructcell import tasks
from instructcell.context import ContextSettings, FileContext, plain_tissue
from instructcell.genes import load_gene_table
from instructcell.labels import LabelSet, load_ontology
from instructcell.readers import mean_share, softmax
from instructcell.reference import Reference
from instructcell.tissue_readers import CELLS_PER_KIND, LEAST_CELLS, TissueReaders, fit_readers
from train import baselines, metrics
from train.build import cell_targets, label_markers, label_set
from train.collator import CellCollator, CellDataset
from train.datasets import LabelledCells, load_datasets
from train.evaluation.bench import Bench
from train.evaluation.tasks import LeaveStudiesOutTask, LeaveTypesOutTask, LeftOut, load_task
from train.profiles import reference_profiles
from train.recipe import Recipe
from train.trainer import EncoderStage, run_stage
from train.vocabulary import choose_genes

logger = logging.getLogger("instructcell.train")
ALL_CELLS_BATCH = 512
TEMPERATURES = np.geomspace(0.25, 8.0, 51)
CONTEXT = ContextSettings(  # as `train.calibrate` chooses it for `mini`
    0.05, 0.5, 0.905, linear_weight=3.0, marker_weight=4.0, own_weight=3.0
)
RESULT = f"result-{hashlib.sha256(repr((5, CONTEXT)).encode()).hexdigest()[:8]}.json"  # of a study, in this context
LEAST_SHARED_LABELS = 2  # a study that shares fewer with the target is no baseline by itself


# ---- the encoder alone


@dataclass
class EncoderRun:
    """The encoder stage of a recipe on some data sets: genes chosen, labels counted, encoder and read-out trained."""

    datasets: list[LabelledCells]
    labels: LabelSet
    columns: np.ndarray  # of the genes it was given
    targets: list[torch.Tensor]  # of each data set [N, C] bool: the labels that its cells may have
    encoder: CellEncoder
    classifier: nn.Linear
    temperature: float = 1.0  # fitted on held-out cells of the studies that it was trained on

    @classmethod
    def train(cls, recipe: Recipe, datasets: Sequence[LabelledCells], folder: Path, steps: int) -> EncoderRun:
        """Train on the cells that are not held out, or take up what `folder` holds.

        Parameters
        ----------
        datasets
            On every gene of the gene table, as `load_datasets` gives them.
        steps
            Of the encoder stage, in place of the recipe's.
        """
        folder.mkdir(parents=True, exist_ok=True)
        torch.manual_seed(recipe.seed)
        every_gene = list(load_gene_table()["symbol"])
        markers = label_markers({id_ for cells in datasets for id_ in cells.label_id[cells.training_rows]})
        columns = choose_genes(datasets, every_gene, recipe.n_genes, markers)
        chosen = [cells.on_genes(columns) for cells in datasets]
        labels = label_set(chosen)
        encoder = make_encoder(recipe, chosen)
        classifier = nn.Linear(encoder.config.n_latent, len(labels))
        stage = replace(recipe.stages.encoder, steps=steps)
        cells = CellDataset(chosen, recipe.seed, stage.steps * stage.batch_size)
        targets = cell_targets(chosen, labels)
        collator = CellCollator(chosen, targets, recipe.augmentation)
        run_stage("encoder", EncoderStage(encoder, classifier), stage, cells, collator, folder, seed=recipe.seed)
        run = cls(chosen, labels, columns, targets, encoder.eval(), classifier.eval())
        run.temperature = run.fit_temperature()
        return run

    def fit_temperature(self) -> float:
        """The temperature that makes the labels of held-out cells likeliest, of files that are trained on as well."""
        logits, allowed = [], []
        for cells, targets in zip(self.datasets, self.targets, strict=True):
            rows = np.flatnonzero(cells.held_out & targets.any(dim=1).numpy())
            if len(rows) and len(cells.training_rows):
                logits.append(self.read_out(cells, rows)[0])
                allowed.append(targets[rows].numpy())
        if not logits:
            return 1.0
        scores, may_be = np.concatenate(logits), np.concatenate(allowed)

        def loss(temperature: float) -> float:
            likelihood = (softmax(scores / temperature) * may_be).sum(axis=1)
            return float(-np.log(np.clip(likelihood, 1e-12, 1.0)).mean())

        return float(min(TEMPERATURES, key=loss))

    @torch.inference_mode()
    def read_out(self, cells: LabelledCells, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Logits [N, C] and embeddings [N, Z] of cells over the chosen genes."""
        measured = torch.from_numpy(cells.measured)
        logits, pooled = [], []
        for start in range(0, len(rows), ALL_CELLS_BATCH):
            counts = torch.from_numpy(cells.counts[rows[start : start + ALL_CELLS_BATCH]].toarray()).float()
            pooled.append(self.encoder.pool(self.encoder(counts, measured.expand(len(counts), -1))))
            logits.append(self.classifier(pooled[-1]))
        if not len(rows):
            return np.zeros((0, len(self.labels))), np.zeros((0, self.encoder.config.n_latent))
        return torch.cat(logits).numpy(), torch.cat(pooled).numpy()


def make_encoder(recipe: Recipe, datasets: Sequence[LabelledCells]) -> CellEncoder:
    """An untrained encoder as the recipe wants it, with the reference profiles of these data sets' training cells."""
    profiles = reference_profiles(datasets) if recipe.profiles else None
    n_profiles = 0 if profiles is None else len(profiles)
    config = CellEncoderConfig(**{**recipe.encoder, "n_genes": len(datasets[0].measured), "n_profiles": n_profiles})
    encoder = CellEncoder(config)
    if profiles is not None:
        encoder.profiles.set_profiles(profiles)
    return encoder


def label_groups(labels: LabelSet, target: Sequence[str], *, others: bool) -> list[tuple[str, list[int]]]:
    """The labels that a target uses, each with those of ours that it covers: its own and narrower ones.

    Parameters
    ----------
    labels
        Of the read-out.
    target
        Names of the target's labels; those that nothing of ours falls under are left out.
    others
        Whether the labels that fall under none of the target's compete too (a free answer).
    """
    groups = [(name, list(columns)) for name, columns in labels.project(list(target)) if columns]
    used = {column for _, columns in groups for column in columns}
    rest = [(label.name, [column]) for column, label in enumerate(labels) if column not in used]
    return [*groups, *rest] if others else groups


def summed(probabilities: np.ndarray, groups: Sequence[tuple[str, list[int]]]) -> np.ndarray:
    """Probabilities [N, C] summed within groups of labels [N, len(groups)]."""
    return np.stack([probabilities[:, columns].sum(axis=1) for _, columns in groups], axis=1)


# ---- a study left out


def measure_studies(bench: Bench, task: LeaveStudiesOutTask) -> dict[str, Any]:
    """Every study in turn; finished ones are read back."""
    folder, datasets = run_folder(bench, "studies", task.steps), None
    result: dict[str, Any] = {"recipe": recipe_key(bench.recipe), "steps": task.steps, "studies": {}}
    for study in task.studies:
        kept = folder / slug(study.name) / RESULT
        if not kept.is_file():
            datasets = datasets or load_datasets(bench.recipe, bench.data)
            bench.say(f"leaving out {study.name}")
            found = leave_study_out(bench.recipe, datasets, study, task, kept.parent)
            kept.write_text(json.dumps(found, default=float), encoding="utf-8")
        result["studies"][study.name] = found = json.loads(kept.read_text(encoding="utf-8"))
        bench.say(
            f"{study.name}: free {found['free']['value']:.3f}, among its labels {found['with_options']['value']:.3f}, "
            f"each cell by itself {found['alone']['value']:.3f}; best baseline "
            f"{found['best_baseline']['accuracy']:.3f} ({found['best_baseline']['name']}); ECE {found['ece']:.3f}"
        )
    return {**result, "mean": _mean_by_kind(result["studies"])}


def leave_study_out(
    recipe: Recipe, datasets: Sequence[LabelledCells], study: LeftOut, task: LeaveStudiesOutTask, folder: Path
) -> dict[str, Any]:
    """Train without one study and ask about all of its cells."""
    left = [_held_out_whole(cells) if cells.name in study.files else cells for cells in datasets]
    run = EncoderRun.train(recipe, left, folder, task.steps)
    kinds = {file: other.kind for other in task.studies for file in other.files}
    same_kind = [c for c in run.datasets if kinds.get(c.name) == study.kind and c.name not in study.files]
    reference = fit_reference(run)
    parts = [_ask(run, cells, reference) for cells in run.datasets if cells.name in study.files]
    truth, alone, free, among, confidence = (
        np.concatenate([part[key] for part in parts]) for key in ("truth", "alone", "free", "among", "confidence")
    )
    fitted = _baselines(run, same_kind, [c for c in run.datasets if c.name in study.files], parts)
    stranger = np.concatenate([part["stranger_confidence"] for part in parts])
    broader = np.concatenate([part["broader"] for part in parts])
    return {
        "kind": study.kind,
        "temperature": round(run.temperature, 3),
        "files": list(study.files),
        "cells": len(truth),
        "cells_with_labels_that_training_lacks": len(stranger),
        "alone": metrics.bootstrap(metrics.accuracy, truth, alone).to_dict(),
        "free": metrics.bootstrap(metrics.accuracy, truth, free).to_dict(),
        "broader": round(float((broader & (free != truth)).mean()), 4),
        "with_options": metrics.bootstrap(metrics.accuracy, truth, among).to_dict(),
        "macro_f1": round(metrics.macro_f1(truth, free), 4),
        "ece": round(metrics.expected_calibration_error(confidence, free == truth), 4),
        "accepted_at_80": round(metrics.accepted_accuracy(confidence, free == truth, 0.8), 4),
        "unknown_auroc": _stranger_auroc(confidence, stranger),
        "baselines": fitted,
        "best_baseline": max(fitted, key=lambda row: row["accuracy"], default={"name": "none", "accuracy": 0.0}),
        "per_class": metrics.per_class(truth, free),
        "confusion": metrics.confusion(truth, free),
        "risk_coverage": metrics.risk_coverage(confidence, free == truth),
    }


def _held_out_whole(cells: LabelledCells) -> LabelledCells:
    return replace(cells, entry=replace(cells.entry, use="evaluation"), held_out=np.ones(cells.counts.shape[0], bool))


def _ask(run: EncoderRun, cells: LabelledCells, reference: Reference) -> dict[str, np.ndarray]:
    """Answers about the cells of one file whose label has something of ours under it, and certainty of the others.

    `alone` is each cell by itself, `free` and `among` (the file's labels) have the file as context, as `annotate` does.
    """
    ignored = set(cells.label[np.isin(cells.dataset_label, cells.entry.ignore_labels)])
    used = sorted(set(cells.label) - ignored)
    groups, free_groups = (label_groups(run.labels, used, others=others) for others in (False, True))
    names, free_names = (np.array([name for name, _ in found]) for found in (groups, free_groups))
    rows = np.flatnonzero(np.isin(cells.label, names))
    strangers = np.flatnonzero(np.isin(cells.label, used) & ~np.isin(cells.label, names))
    together = np.concatenate([rows, strangers])
    logits, embedding = run.read_out(cells, together)
    alone = softmax(logits / run.temperature)
    counts, fit = cells.counts[together], partial(readers_of, run, cells.measured)
    context = FileContext.of(run.labels, alone, embedding, CONTEXT, reference=reference, counts=counts, fit=fit)
    seen = context.apply(alone, context.nearest(embedding), counts)
    free, among = summed(seen, free_groups), _shared(run.labels, seen[: len(rows)], groups)
    said = free_names[free[: len(rows)].argmax(axis=1)]
    return {
        "rows": rows,
        "truth": cells.label[rows],
        "alone": free_names[summed(alone[: len(rows)], free_groups).argmax(axis=1)],
        "free": said,
        "broader": _are_broader(run, cells, rows, said),
        "among": names[among.argmax(axis=1)],
        "confidence": free[: len(rows)].max(axis=1),
        "stranger_confidence": free[len(rows) :].max(axis=1),
    }


@dataclass(frozen=True)
class TrainingCells:
    """Training cells of one label of one study, for the readers; counts [n, G]."""

    label: int
    measured: np.ndarray
    counts: sparse.csr_matrix

    @property
    def share(self) -> np.ndarray:
        return mean_share(self.counts)

    def cells(self, genes: np.ndarray) -> sparse.csr_matrix:
        return self.counts


def readers_of(run: EncoderRun, measured: np.ndarray, tissues: Sequence[str]) -> TissueReaders | None:
    """Readers that learn from training cells, where what ships makes cells like them."""
    rng, names, examples = np.random.default_rng(0), run.labels.names, []
    for cells in run.datasets:
        rows = cells.training_rows
        there = np.array([plain_tissue(str(tissue)) in tissues for tissue in cells.tissue[rows]], bool)
        for name in np.unique(cells.label[rows[there]]):
            some = rng.permutation(rows[there & (cells.label[rows] == name)])[:CELLS_PER_KIND]
            if len(some) >= LEAST_CELLS and name in names:
                examples.append(TrainingCells(names.index(str(name)), cells.measured, cells.counts[np.sort(some)]))
    genes = np.array(list(load_gene_table()["symbol"]))[run.columns]
    return fit_readers(examples, measured, [label.id for label in run.labels], genes.tolist())


def _shared(labels: LabelSet, probabilities: np.ndarray, groups: Sequence[tuple[str, list[int]]]) -> np.ndarray:
    """Probabilities [N, C] summed within groups, broader labels shared among those under them, as `annotate` does."""
    columns = [of for _, of in groups]
    return tasks.summed(probabilities, columns, tasks.broader_than(labels, columns))


def _are_broader(run: EncoderRun, cells: LabelledCells, rows: np.ndarray, free: np.ndarray) -> np.ndarray:
    """Whether the free answer is a broader type of the cell's own [N] bool."""
    ontology, ids = load_ontology(), {label.name: label.id for label in run.labels}
    pairs = zip(cells.label_id[rows], (ids.get(str(name), "") for name in free), strict=True)
    return np.array([bool(own and said and own != said and ontology.is_a(str(own), said)) for own, said in pairs])


def _stranger_auroc(confidence: np.ndarray, stranger: np.ndarray) -> float | None:
    """How well low confidence tells cells of types that training lacks; None where there are none."""
    if not len(stranger):
        return None
    truth = np.concatenate([np.zeros(len(confidence)), np.ones(len(stranger))])
    return round(metrics.auroc(truth, -np.concatenate([confidence, stranger])), 4)


def _baselines(
    run: EncoderRun, sources: Sequence[LabelledCells], targets: Sequence[LabelledCells], parts: Sequence[dict[str, Any]]
) -> list[dict[str, Any]]:
    """Accuracy of models refitted on the other studies of the kind, all together and each alone, on shared genes."""
    known = {str(name) for part in parts for name in part["truth"]}
    groups: list[tuple[str, list[LabelledCells]]] = [("all of its kind", list(sources))] if len(sources) > 1 else []
    groups += [(cells.name, [cells]) for cells in sources]
    rows = []
    for name, members in groups:
        labels = _as_target_says(members, sorted(known))
        if len(set(np.concatenate(labels)) & known) < LEAST_SHARED_LABELS:
            continue
        right: dict[str, list[np.ndarray]] = {}
        for cells, part in zip(targets, parts, strict=True):
            genes = np.logical_and.reduce([cells.measured, *(member.measured for member in members)])
            counts = sparse.vstack([member.counts[member.training_rows] for member in members]).tocsr()
            said = baselines.refit_and_predict(counts, np.concatenate(labels), cells.counts[part["rows"]], genes)
            for model, answers in said.items():
                right.setdefault(model, []).append(answers == part["truth"])
        rows += [
            {"name": f"{model}, {name}", "accuracy": round(float(np.concatenate(found).mean()), 4)}
            for model, found in right.items()
        ]
    return rows


def _as_target_says(members: Sequence[LabelledCells], known: Sequence[str]) -> list[np.ndarray]:
    """The members' training labels, those that fall under one of the target's called as the target calls them."""
    labels = label_set(members)
    called = {labels[column].name: name for name, columns in labels.project(list(known)) for column in columns}
    return [np.array([called.get(str(x), str(x)) for x in member.label[member.training_rows]]) for member in members]


def _mean_by_kind(studies: Mapping[str, dict[str, Any]]) -> dict[str, dict[str, float]]:
    """Means over the studies of a kind, and over all."""
    kinds = list(dict.fromkeys(found["kind"] for found in studies.values()))
    result = {}
    for kind in [*kinds, "all"]:
        rows = [found for found in studies.values() if kind in ("all", found["kind"])]
        result[kind] = {
            **{
                key: round(float(np.mean([row[key]["value"] for row in rows])), 4)
                for key in ("alone", "free", "with_options")
                if all(key in row for row in rows)
            },
            "best_baseline": round(float(np.mean([row["best_baseline"]["accuracy"] for row in rows])), 4),
            "ece": round(float(np.mean([row["ece"] for row in rows])), 4),
            "accepted_at_80": round(float(np.mean([row["accepted_at_80"] for row in rows])), 4),
        }
    return result


# ---- a cell type left out


def measure_types(bench: Bench, task: LeaveTypesOutTask) -> dict[str, Any]:
    """Every fold in turn: how well does a score tell held-out cells of the types left out from the others?"""
    folder, datasets = run_folder(bench, "types", task.steps), None
    types: dict[str, Any] = {}
    for fold in task.folds:
        kept = folder / slug("-".join(fold)) / RESULT
        if not kept.is_file():
            datasets = datasets or load_datasets(bench.recipe, bench.data)
            bench.say(f"leaving out {', '.join(fold)}")
            found = leave_types_out(bench.recipe, datasets, fold, task, kept.parent)
            kept.write_text(json.dumps(found, default=float), encoding="utf-8")
        types |= json.loads(kept.read_text(encoding="utf-8"))
    scores = sorted({score for found in types.values() for score in found["auroc"]})
    means = {score: round(float(np.mean([f["auroc"][score] for f in types.values()])), 4) for score in scores}
    bench.say("types left out, mean AUROC: " + ", ".join(f"{name} {value:.3f}" for name, value in means.items()))
    return {"recipe": recipe_key(bench.recipe), "steps": task.steps, "types": types, "mean": means}


def leave_types_out(
    recipe: Recipe, datasets: Sequence[LabelledCells], fold: Sequence[str], task: LeaveTypesOutTask, folder: Path
) -> dict[str, Any]:
    """Train without some types and their relatives; judge the test cells of each type against those of known types."""
    gone = {name: related(name, datasets) for name in fold}
    every = set().union(*gone.values())
    left = [replace(cells, held_out=cells.held_out | np.isin(cells.label, list(every))) for cells in datasets]
    run = EncoderRun.train(recipe, left, folder, task.steps)
    reference, distances = _class_means(run), fit_reference(run)
    result = {}
    for name, family in gone.items():
        strange, known = [], []
        for before, cells in zip(datasets, run.datasets, strict=True):
            tested = before.held_out | np.isin(cells.label, list(family))
            strangers = np.flatnonzero(tested & (cells.label == name))
            if len(strangers) < task.least_cells:
                continue
            others = np.flatnonzero(before.held_out & np.isin(cells.label, run.labels.names))
            scores = _certainty(run, cells, np.concatenate([strangers, others]), reference, distances)
            strange.append({score: values[: len(strangers)] for score, values in scores.items()})
            known.append({score: values[len(strangers) :] for score, values in scores.items()})
        if strange and sum(len(k["probability"]) for k in known):
            result[name] = _aurocs(strange, known)
    return result


def related(name: str, datasets: Sequence[LabelledCells]) -> set[str]:
    """A label with those broader and narrower than it: with one of them in training it would not be unknown."""
    ids = {str(label): str(id_) for cells in datasets for label, id_ in zip(cells.label, cells.label_id, strict=True)}
    ontology, own = load_ontology(), ids.get(name, "")
    found = {name}
    for other, id_ in ids.items():
        if own and id_ and (ontology.is_a(own, id_) or ontology.is_a(id_, own)):
            found.add(other)
    return found


def _class_means(run: EncoderRun) -> np.ndarray:
    """Mean embedding of the training cells of every label [C, Z], of unit length."""
    sums: dict[str, np.ndarray] = {}
    for cells in run.datasets:
        rows = cells.training_rows
        if not len(rows):
            continue
        embedded = run.read_out(cells, rows)[1]
        for name in np.unique(cells.label[rows]):
            sums[str(name)] = sums.get(str(name), 0.0) + embedded[cells.label[rows] == name].sum(axis=0)
    means = np.stack(list(sums.values()))
    return means / np.linalg.norm(means, axis=1, keepdims=True)


def fit_reference(run: EncoderRun) -> Reference:
    """Where the types of the training cells lie."""
    parts = [(run.read_out(cells, cells.training_rows)[1], cells.label[cells.training_rows]) for cells in run.datasets]
    embeddings, types = zip(*(part for part in parts if len(part[1])), strict=True)
    return Reference.fit(np.concatenate(embeddings), np.concatenate(types))


def _certainty(
    run: EncoderRun, cells: LabelledCells, rows: np.ndarray, means: np.ndarray, distances: Reference
) -> dict[str, np.ndarray]:
    """Scores of how well the cells of a file fit what training saw, each higher for a surer answer [N]."""
    logits, embedded = run.read_out(cells, rows)
    probabilities = softmax(logits)
    ranked = np.sort(probabilities, axis=1)
    entropy = -(probabilities * np.log(np.clip(probabilities, 1e-12, 1))).sum(axis=1)
    similarity = embedded @ means.T / np.linalg.norm(embedded, axis=1, keepdims=True)
    alone, counts = softmax(logits / run.temperature), cells.counts[rows]
    fit = partial(readers_of, run, cells.measured)
    context = FileContext.of(run.labels, alone, embedded, CONTEXT, reference=distances, counts=counts, fit=fit)
    distance, (surprise, _) = distances.distance(embedded), context.surprise(counts)
    return {
        "probability": ranked[:, -1],
        "margin": ranked[:, -1] - (ranked[:, -2] if ranked.shape[1] > 1 else 0.0),
        "entropy": -entropy,
        "energy": np.log(np.exp(logits - logits.max(axis=1, keepdims=True)).sum(axis=1)) + logits.max(axis=1),
        "class mean": similarity.max(axis=1),
        "Mahalanobis": -distance,
        "Mahalanobis and markers": -context.distances(distance, context.nearest(embedded), surprise),
    }


def _aurocs(strange: Sequence[dict[str, np.ndarray]], known: Sequence[dict[str, np.ndarray]]) -> dict[str, Any]:
    """AUROC of every score, the mean over the files that hold the type."""
    per_file = []
    for unseen, seen in zip(strange, known, strict=True):
        truth = np.concatenate([np.ones(len(unseen["probability"])), np.zeros(len(seen["probability"]))])
        if len(np.unique(truth)) == 2:
            per_file.append(
                {score: metrics.auroc(truth, -np.concatenate([unseen[score], seen[score]])) for score in unseen}
            )
    return {
        "cells": int(sum(len(unseen["probability"]) for unseen in strange)),
        "files": len(per_file),
        "auroc": {score: round(float(np.mean([f[score] for f in per_file])), 4) for score in per_file[0]},
    }


# ---- what is kept


def run_folder(bench: Bench, what: str, steps: int) -> Path:
    """Where the runs without a study or type are kept, one folder per recipe and length."""
    return bench.runs / "leave-out" / f"{recipe_key(bench.recipe)}-{steps}" / what


def recipe_key(recipe: Recipe) -> str:
    """What of a recipe decides the encoder, as a short hash."""
    decisive = {
        "seed": recipe.seed,
        "n_genes": recipe.n_genes,
        "encoder": recipe.encoder,
        "augmentation": asdict(recipe.augmentation),
        "stage": asdict(replace(recipe.stages.encoder, steps=1)),
        "data": [asdict(entry) for entry in recipe.data],
    }
    return hashlib.sha256(json.dumps(decisive, sort_keys=True, default=str).encode()).hexdigest()[:12]


def slug(name: str) -> str:
    """A name as a folder."""
    return "".join(letter if letter.isalnum() else "_" for letter in name.lower())


def finished(bench: Bench, kind: str) -> dict[str, Any]:
    """The section of a slow task from the runs that are finished, without training anything; nothing without any.

    `missing` names the studies or types whose runs are not.
    """
    _, task = load_task(kind)
    is_studies = isinstance(task, LeaveStudiesOutTask)
    folder = run_folder(bench, "studies" if is_studies else "types", task.steps)

    def done(name: str) -> bool:
        return (folder / slug(name) / RESULT).is_file()

    if is_studies:
        missing = [study.name for study in task.studies if not done(study.name)]
        task = replace(task, studies=tuple(study for study in task.studies if done(study.name)))
        found = measure_studies(bench, task) if task.studies else {}
    else:
        missing = [name for fold in task.folds if not done("-".join(fold)) for name in fold]
        task = replace(task, folds=tuple(fold for fold in task.folds if done("-".join(fold))))
        found = measure_types(bench, task) if task.folds else {}
    return {kind: {**found, "missing": missing}} if found else {}


def as_table(found: Mapping[str, Any]) -> pd.DataFrame:
    """The studies of a leave-one-study-out result, one row each."""
    rows = {
        name: {
            "kind": row["kind"],
            "cells": row["cells"],
            "alone": row["alone"]["value"],
            "free": row["free"]["value"],
            "with_options": row["with_options"]["value"],
            "best_baseline": row["best_baseline"]["accuracy"],
            "baseline": row["best_baseline"]["name"],
            "ece": row["ece"],
            "accepted_at_80": row["accepted_at_80"],
        }
        for name, row in found["studies"].items()
    }
    return pd.DataFrame.from_dict(rows, orient="index")
