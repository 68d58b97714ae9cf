"""Measuring a checkpoint on held-out cells, beside refitted baselines in the same run.

    recipe's held-out rows -> the product's own tools -> figures with intervals -> evaluation.json -> model card

Every cell goes the way a user's cell goes: file, doctor, alignment, language model, calibrated label.
"""

from __future__ import annotations

import json
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
from anndata import AnnData
from scipy import sparse

from instructcell import tools
from instructcell.cells import read
from instructcell.checkpoint import Checkpoint
from instructcell.generation import score_labels
from instructcell.labels import load_ontology
from instructcell.processor import Prompt
from instructcell.prompts import DRUG_ANSWERS
from train import baselines, metrics
from train.datasets import LabelledCells, load_dataset
from train.instructions import CellRecord, instruction, load_catalog
from train.recipe import Recipe

ISLETS = ("pancreas_baron_human_donors234", "pancreas_grun_muraro")
# What a baseline may be refitted on: training cells of the same kind of sample, named as the target names them.
REFIT_ON = {"pancreas_baron_human_donor1": ("pancreas_baron_human_donors234",), "pancreas_grun_muraro": ISLETS}
GENERATED = "pbmc_zheng_sorted"
GENERATION_TISSUE = "PBMC"
FLOOR_DRAWS = 5
N_PHRASINGS = 24
Say = Callable[[str], None]


@dataclass
class Evaluation:
    """A checkpoint, the recipe's cells on its genes, and what has been measured."""

    checkpoint: Checkpoint
    recipe: Recipe
    data: Path
    say: Say = print
    datasets: dict[str, LabelledCells] = field(default_factory=dict)

    def __post_init__(self) -> None:
        genes = self.checkpoint.processor.genes
        for entry in self.recipe.data:
            self.datasets[entry.file] = load_dataset(entry, self.data, genes, self.recipe.seed)

    def run(self, seed: int = 0) -> dict[str, Any]:
        """All figures, ready for evaluation.json."""
        started = time.time()
        result: dict[str, Any] = {
            "checkpoint": self.checkpoint.hash,
            "seed": seed,
            "splits": {name: _split_row(cells) for name, cells in self.datasets.items()},
            "annotation": {name: self.annotation(name) for name in self.datasets},
            "generation": self.generation(seed),
            "drug": self.drug(),
            "phrasing": self.phrasing(seed),
        }
        if self.checkpoint.readout is not None:
            result["readout"] = {name: self.readout(name) for name in self.datasets}
        result["minutes"] = round((time.time() - started) / 60, 1)
        return result

    # ---- annotation

    def annotation(self, name: str) -> dict[str, Any]:
        """The held-out cells of one file, free and with the file's own labels as options, beside refitted baselines."""
        cells = self.datasets[name]
        rows = np.flatnonzero(cells.held_out & np.isin(cells.label, self.checkpoint.labels.names))
        n_outside = int(cells.held_out.sum() - len(rows))
        truth, adata = cells.label[rows], self._file(name, rows)
        free = tools.annotate(adata, checkpoint=self.checkpoint)
        given = sorted(set(truth))
        options = tools.annotate(adata.copy(), checkpoint=self.checkpoint, labels=given)
        answer, best = (free.table[column].to_numpy(str) for column in ("cell_type", "best_guess"))
        confidence = free.table["confidence"].to_numpy()
        legal = set(self.checkpoint.labels.names) | {tools.UNKNOWN}
        right = answer == truth
        result = {
            "cells": len(rows),
            "cells_with_labels_outside_the_checkpoint": n_outside,
            "coverage": round(free.coverage, 4),
            "accuracy": metrics.bootstrap(metrics.accuracy, truth, answer).to_dict(),
            "macro_f1": metrics.bootstrap(metrics.macro_f1, truth, answer).to_dict(),
            "accuracy_or_narrower": round(
                float(np.mean([self._is_or_narrower(a, t) for a, t in zip(answer, truth, strict=True)])), 4
            ),
            "accuracy_with_options": metrics.bootstrap(
                metrics.accuracy, truth, options.table["best_guess"].to_numpy(str)
            ).to_dict(),
            "macro_f1_with_options": metrics.bootstrap(
                metrics.macro_f1, truth, options.table["best_guess"].to_numpy(str)
            ).to_dict(),
            "unknown": round(float((answer == tools.UNKNOWN).mean()), 4),
            "ece": round(metrics.expected_calibration_error(confidence, best == truth), 4),
            "illegal_labels": int((~np.isin(answer, list(legal))).sum()),
            "baselines": self._refitted(name, rows, truth),
        }
        self.say(
            f"{name}: accuracy {right.mean():.3f}, options {result['accuracy_with_options']['value']:.3f}, baselines "
            + ", ".join(f"{k} {v['accuracy']:.3f}" for k, v in result["baselines"].items())
        )
        return result

    def _refitted(self, name: str, rows: np.ndarray, truth: np.ndarray) -> dict[str, Any]:
        target = self.datasets[name]
        sources = [self.datasets[s] for s in REFIT_ON.get(name, (name,))]
        genes = np.logical_and.reduce([target.measured, *(source.measured for source in sources)])
        counts = sparse.vstack([source.counts[source.training_rows] for source in sources]).tocsr()
        labels = np.concatenate([source.label[source.training_rows] for source in sources])
        if len(np.unique(labels)) < 2:
            return {}  # nothing to tell apart
        predicted = baselines.refit_and_predict(counts, labels, target.counts[rows], genes)
        return {
            model: {"accuracy": round(metrics.accuracy(truth, p), 4), "macro_f1": round(metrics.macro_f1(truth, p), 4)}
            for model, p in predicted.items()
        }

    def _is_or_narrower(self, answer: str, truth: str) -> bool:
        """Whether an answer is the true label or a narrower type of it."""
        if answer == truth:
            return True
        broad, narrow = self.checkpoint.labels.find(truth), self.checkpoint.labels.find(answer)
        ontology = load_ontology()
        if narrow is None or broad is None or broad.id == narrow.id or ontology.name(broad.id) != broad.name:
            return False
        return ontology.is_a(narrow.id, broad.id)

    # ---- the fast read-out

    def readout(self, name: str) -> dict[str, Any]:
        """The read-out beside the language model on the held-out cells of one file, also with the tissue named."""
        cells = self.datasets[name]
        rows = np.flatnonzero(cells.held_out)
        adata, truth = self._file(name, rows), cells.label[rows]
        tissues = Counter(str(tissue) for tissue in cells.tissue[rows] if tissue).most_common(1)
        result: dict[str, Any] = {"cells": len(rows)}
        for words, tissue in (("", None), *(("_with_tissue", tissue) for tissue, _ in tissues)):
            slow, fast = (
                tools.annotate(adata.copy(), checkpoint=self.checkpoint, tissue=tissue, engine=engine)
                for engine in ("lm", "readout")
            )
            ours, theirs = (found.table["cell_type"].to_numpy(str) for found in (fast, slow))
            result[f"same_label{words}"] = int((ours == theirs).sum())
            result[f"left_to_the_language_model{words}"] = fast.n_by_lm
            result[f"accuracy{words}"] = round(metrics.accuracy(truth, ours), 4)
            result[f"accuracy_of_the_language_model{words}"] = round(metrics.accuracy(truth, theirs), 4)
        share = result["same_label"] / len(rows)
        self.say(f"{name}: the read-out says what the language model says of {share:.2%} of the held-out cells")
        return result

    # ---- pseudo-cells

    def generation(self, seed: int) -> dict[str, Any]:
        """Pseudo-cells of the sorted populations beside real training cells, in the space of held-out real cells."""
        cells = self.datasets[GENERATED]
        held, known = np.flatnonzero(cells.held_out), cells.training_rows
        genes = np.flatnonzero(cells.measured)
        space = metrics.RealSpace(cells.counts[held][:, genes], cells.label[held], seed)
        types, sizes = np.unique(cells.label[held], return_counts=True)
        rng = np.random.default_rng(seed)
        made, asked = [], np.repeat(types, sizes)
        for name, size in zip(types, sizes, strict=True):
            made.append(
                tools.generate(
                    cell_type=name, n=int(size), tissue=GENERATION_TISSUE, seed=seed, checkpoint=self.checkpoint
                ).X[:, genes]
            )
        pseudo = space.judge(space.place(sparse.vstack(made).tocsr()), asked)
        floors = []
        for _ in range(FLOOR_DRAWS):
            chosen = np.concatenate(
                [
                    rng.choice(known[cells.label[known] == t], s, replace=False)
                    for t, s in zip(types, sizes, strict=True)
                ]
            )
            floors.append(space.judge(space.place(cells.counts[chosen][:, genes]), asked))
        poisson = baselines.independent_poisson(cells.counts[known][:, genes], cells.label[known], asked, seed)
        noise = space.judge(space.place(poisson), asked)
        floor = {key: float(np.mean([f[key] for f in floors])) for key in ("mean_mmd", "s_knn", "r_knn")}
        per_type = {t: float(np.mean([f["mmd"][t] for f in floors])) for t in types}
        result = {
            "cells": len(held),
            "types": len(types),
            "pseudo": pseudo,
            "real_training": {**floor, "mmd": per_type},
            "independent_poisson": noise,
            "mmd_ratio": _ratio(pseudo["mmd"], per_type),
            "mmd_ratio_poisson": _ratio(noise["mmd"], per_type),
        }
        self.say(
            f"pseudo-cells: MMD x{result['mmd_ratio']:.2f} of real (Poisson x{result['mmd_ratio_poisson']:.2f}), "
            f"S-KNN {pseudo['s_knn']:.3f} (real {floor['s_knn']:.3f}), "
            f"R-KNN {pseudo['r_knn']:.3f} (real {floor['r_knn']:.3f})"
        )
        return result

    # ---- drug response

    def drug(self) -> list[dict[str, Any]]:
        """Held-out cells of every file with measured responses, beside logistic regression on the training cells."""
        results = []
        for name, cells in self.datasets.items():
            for names, responses in cells.drugs:
                for drugs in _together(names, cells):
                    results.append(self._drug(name, drugs, names, responses))
        return results

    def _drug(self, name: str, drugs: tuple[str, ...], names: np.ndarray, responses: np.ndarray) -> dict[str, Any]:
        cells = self.datasets[name]
        usable = np.isin(names, drugs) & (responses != "")
        rows, known = np.flatnonzero(usable & cells.held_out), np.flatnonzero(usable & ~cells.held_out)
        score = np.zeros(len(rows))
        for drug in drugs:
            of_drug = names[rows] == drug
            if of_drug.any():
                result = tools.drug_response(self._file(name, rows[of_drug]), drug=drug, checkpoint=self.checkpoint)
                score[of_drug] = result.table["p_sensitive"].to_numpy()
        sensitive = (responses[rows] == DRUG_ANSWERS[0]).astype(int)
        genes = np.flatnonzero(cells.measured)
        model = baselines.logistic_regression().fit(
            metrics.log_normalise(cells.counts[known][:, genes]), responses[known] == DRUG_ANSWERS[0]
        )
        baseline = model.predict_proba(metrics.log_normalise(cells.counts[rows][:, genes]))[:, 1]
        donors = self._groups(name, rows)
        figures: dict[str, Any] = {
            "file": name,
            "drugs": list(drugs),
            "cells": len(rows),
            "sensitive": int(sensitive.sum()),
        }
        for label, scores in (("instructcell", score), ("logistic_regression", baseline)):
            figures[label] = {
                "balanced_accuracy": metrics.bootstrap(
                    metrics.balanced_accuracy, sensitive, (scores >= 0.5).astype(int), groups=donors
                ).to_dict(),
                "auroc": metrics.bootstrap(metrics.auroc, sensitive, scores, groups=donors).to_dict(),
            }
        if donors is not None:
            figures["resampled_by"] = "patient"
        ours, base = figures["instructcell"], figures["logistic_regression"]
        self.say(
            f"{'/'.join(drugs)} ({name}): balanced accuracy {ours['balanced_accuracy']['value']:.3f}, "
            f"AUROC {ours['auroc']['value']:.3f}; logistic regression {base['auroc']['value']:.3f}"
        )
        return figures

    def _groups(self, name: str, rows: np.ndarray) -> np.ndarray | None:
        """Patients of the cells, for a bootstrap over patients; None where there are no patients."""
        held = self.recipe.entry(name).hold_out
        if not isinstance(held, dict) or "donor" not in held:
            return None
        return self._file(name, rows).obs["donor"].astype(str).to_numpy()

    # ---- phrasing

    def phrasing(self, seed: int) -> dict[str, Any]:
        """Annotation in phrasings that training never saw, on held-out cells, against the canonical one."""
        catalog, labels = load_catalog(), self.checkpoint.labels.names
        rng, text = np.random.default_rng(seed), Random(seed)
        counts, measured, truth, prompts = [], [], [], []
        for cells in self.datasets.values():
            rows = np.flatnonzero(cells.held_out & np.isin(cells.label, labels))
            for row in rng.choice(rows, min(N_PHRASINGS, len(rows)), replace=False):
                record = CellRecord(
                    label=str(cells.label[row]), species=str(cells.species[row]), tissue=str(cells.tissue[row])
                )
                settings = _plain_settings()
                prompts.append(
                    instruction("annotation", record, text, catalog=catalog, settings=settings, held_out=True).prompt
                )
                counts.append(cells.counts[row])
                measured.append(cells.measured)
                truth.append(record.label)
        stacked, masks = sparse.vstack(counts).tocsr(), np.stack(measured)
        asked = self._best(prompts, stacked, masks)
        canonical = self._best(["annotate: {cells}"] * len(truth), stacked, masks)
        right = np.array(truth)
        result = {
            "cells": len(truth),
            "accuracy": metrics.bootstrap(metrics.accuracy, right, asked).to_dict(),
            "canonical": metrics.bootstrap(metrics.accuracy, right, canonical).to_dict(),
        }
        self.say(f"unseen phrasings: {result['accuracy']['value']:.3f}, canonical {result['canonical']['value']:.3f}")
        return result

    def _best(self, prompts: list[str], counts: sparse.csr_matrix, measured: np.ndarray) -> np.ndarray:
        names = self.checkpoint.labels.names
        parsed = [Prompt.parse(prompt) for prompt in prompts]
        scores = score_labels(self.checkpoint.model, self.checkpoint.processor, parsed, counts, measured, names)
        return np.array(names)[np.asarray(scores).argmax(1)]

    def _file(self, name: str, rows: np.ndarray) -> AnnData:
        """Some cells of a file as a user would have them."""
        return read(self.data / f"{name}.h5ad")[rows].copy()


def _plain_settings() -> Any:
    from train.instructions import InstructionSettings

    return InstructionSettings(options=0.0, guess=0.0, contradiction=0.0, canonical=0.0)


def _together(names: np.ndarray, cells: LabelledCells) -> list[tuple[str, ...]]:
    """Drugs measured on one another's cells apart, drugs of one trial (a drug per patient) together."""
    found = [str(name) for name in np.unique(names[cells.held_out])]
    return [tuple(found)] if len(found) > 1 else [(name,) for name in found]


def _ratio(mmd: dict[str, float], floor: dict[str, float]) -> float:
    """Mean over types of MMD divided by that of real cells."""
    return float(np.mean([mmd[name] / floor[name] for name in floor]))


def _split_row(cells: LabelledCells) -> dict[str, Any]:
    held = cells.entry.hold_out
    rule = (
        "all cells"
        if cells.entry.use == "evaluation"
        else held
        if isinstance(held, dict)
        else f"{held:.0%} of each label"
    )
    return {"training": int((~cells.held_out).sum()), "held_out": int(cells.held_out.sum()), "rule": rule}


def write_evaluation(result: dict[str, Any], folder: Path) -> Path:
    """Write evaluation.json into a checkpoint folder."""
    path = folder / "evaluation.json"
    path.write_text(json.dumps(result, indent=1, ensure_ascii=False, default=float) + "\n", encoding="utf-8")
    return path
