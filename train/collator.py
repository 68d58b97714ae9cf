"""From recipe and cells to batches.

`InstructionDataset` draws one example per index from a seed, so a resumed run sees what an uninterrupted one would;
`InstructionCollator` puts tokens, cells and targets into tensors.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from random import Random
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from instructcell.processor import SIGNAL, Answer, InstructCellProcessor, Prompt
from train.augment import augment_cell, gene_factors
from train.datasets import LabelledCells
from train.instructions import Catalog, CellRecord, InstructionSettings, instruction
from train.recipe import Augmentation, Recipe
from train.templates import SIGNAL as SIGNAL_FIELD

TASKS = ("annotation", "generation", "drug", "markers")
MAX_CELLS = 16
ALWAYS_HINT = InstructionSettings(species=1.0, tissue=1.0)


@dataclass(frozen=True)
class CellChoice:
    """One cell of one data set."""

    dataset: int
    row: int


@dataclass(frozen=True)
class Example:
    """One instruction: tokens-to-be, the cells of the prompt and the cells its signals shall become."""

    task: str
    prompt: Prompt
    answer: Answer
    cells: tuple[CellChoice, ...] = ()
    signals: tuple[CellChoice, ...] = ()
    seed: int = 0


def answer_of(text: str) -> Answer:
    """An answer whose {signal} fields are places for pseudo-cells."""
    parts: list[Any] = []
    for i, piece in enumerate(text.split(SIGNAL_FIELD)):
        parts += [SIGNAL] if i else []
        parts += [piece] if piece else []
    return Answer(tuple(parts))


class Strata:
    """Weighted groups of rows: a group is drawn by weight, a row of it uniformly."""

    def __init__(self, groups: Sequence[tuple[int, Any, np.ndarray, float]]) -> None:
        self.groups = [group for group in groups if len(group[2]) and group[3] > 0]
        weights = np.array([group[3] for group in self.groups], float)
        self.cumulative = np.cumsum(weights / weights.sum()) if len(weights) else weights

    def draw(self, rng: np.random.Generator) -> tuple[int, Any, np.ndarray]:
        dataset, key, rows, _ = self.groups[
            min(int(np.searchsorted(self.cumulative, rng.random())), len(self.groups) - 1)
        ]
        return dataset, key, rows


def annotation_strata(datasets: Sequence[LabelledCells]) -> Strata:
    """Labels of the training cells: square-root balanced over studies and, within a study, over labels."""
    groups = []
    for d, cells in enumerate(datasets):
        rows = cells.training_rows
        rows = rows[~np.isin(cells.dataset_label[rows], cells.entry.ignore_labels)]
        groups += _balanced(d, cells.label, rows, cells.entry.weight)
    return Strata(groups)


def generation_strata(datasets: Sequence[LabelledCells]) -> Strata:
    """As for annotation, but only cells whose molecule counts can train the decoder, by the recipe's weights."""
    groups = []
    for d, cells in enumerate(datasets):
        rows = cells.training_rows
        if not cells.is_counts or cells.entry.generation <= 0:
            continue
        rows = rows[~np.isin(cells.dataset_label[rows], cells.entry.ignore_labels)]
        if cells.entry.generation_labels:
            rows = rows[np.isin(cells.dataset_label[rows], cells.entry.generation_labels)]
        kinds = np.char.add(np.char.add(cells.label, "\t"), cells.condition)
        groups += _balanced(d, kinds, rows, cells.entry.generation)
    return Strata(groups)


def signal_targets(datasets: Sequence[LabelledCells]) -> list[Tensor]:
    """For each data set [N, S] bool: the kind of cells (data set, type and condition) that a row can be drawn for."""
    groups = generation_strata(datasets).groups
    targets = [torch.zeros(len(cells.label), len(groups), dtype=torch.bool) for cells in datasets]
    for kind, (dataset, _, rows, _) in enumerate(groups):
        targets[dataset][torch.from_numpy(rows), kind] = True
    return targets


def drug_strata(datasets: Sequence[LabelledCells]) -> Strata:
    """Responses of the training cells: drugs square-root balanced, the two responses equally often."""
    groups = []
    for d, cells in enumerate(datasets):
        for names, responses in cells.drugs:
            for name in np.unique(names):
                rows = cells.training_rows
                rows = rows[(names[rows] == name) & (responses[rows] != "")]
                present = np.unique(responses[rows])
                for response in present:
                    chosen = rows[responses[rows] == response]
                    groups.append((d, (str(name), str(response)), chosen, len(rows) ** 0.5 / len(present)))
    return Strata(groups)


def _balanced(
    dataset: int, kinds: np.ndarray, rows: np.ndarray, weight: float
) -> list[tuple[int, Any, np.ndarray, float]]:
    if not len(rows):
        return []
    found, sizes = np.unique(kinds[rows], return_counts=True)
    shares = np.sqrt(sizes) / np.sqrt(sizes).sum() * weight * len(rows) ** 0.5
    return [
        (dataset, str(kind), rows[kinds[rows] == kind], float(share)) for kind, share in zip(found, shares, strict=True)
    ]


class InstructionDataset(Dataset):
    """Examples by index; the same seed and index give the same example.

    Parameters
    ----------
    datasets : list of LabelledCells
    recipe : Recipe
        Its seed and task shares.
    catalog : Catalog
        Names, neighbours and markers of the labels.
    length : int
        How many examples there are.
    tasks : dict of str to float, optional
        Shares of the tasks; the recipe's by default.
    seed : tuple of int, optional
        Of the stream of examples; the recipe's by default.
    batch_size : int, optional
        Examples of a batch share the most cells a prompt may hold; the instruction stage's by default.
    """

    def __init__(
        self,
        datasets: Sequence[LabelledCells],
        recipe: Recipe,
        catalog: Catalog,
        length: int,
        tasks: dict[str, float] | None = None,
        *,
        seed: tuple[int, ...] | None = None,
        batch_size: int | None = None,
    ) -> None:
        self.datasets, self.recipe, self.catalog, self.length = datasets, recipe, catalog, length
        self.seed = (recipe.seed,) if seed is None else seed
        self.batch_size = batch_size or recipe.stages.instructions.batch_size
        self.strata = {
            "annotation": annotation_strata(datasets),
            "generation": generation_strata(datasets),
            "drug": drug_strata(datasets),
        }
        shares = tasks or recipe.tasks
        self.tasks = [
            task for task in TASKS if shares.get(task, 0) > 0 and (task == "markers" or self.strata[task].groups)
        ]
        self.shares = np.array([shares[task] for task in self.tasks])
        self.marked = [label for label in catalog.labels if catalog.markers.get(label)]

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, index: int) -> Example:
        rng = np.random.default_rng((*self.seed, index))
        text = Random(f"{self.seed}/{index}")
        task = self.tasks[rng.choice(len(self.tasks), p=self.shares / self.shares.sum())]
        if task == "markers":
            rendered = instruction("markers", CellRecord(label=text.choice(self.marked)), text, catalog=self.catalog)
            return Example(task, Prompt.parse(rendered.prompt, 0), answer_of(rendered.answer))
        return getattr(self, f"_{task}")(index, rng, text)

    def _annotation(self, index: int, rng: np.random.Generator, text: Random) -> Example:
        dataset, label, rows = self.strata["annotation"].draw(rng)
        chosen = rng.choice(rows, min(_n_cells(rng, self._most_cells(index), single=0.4), len(rows)), replace=False)
        record = self._record(dataset, chosen[0])
        rendered = instruction("annotation", record, text, catalog=self.catalog, n_cells=len(chosen))
        cells = tuple(CellChoice(dataset, int(row)) for row in chosen)
        return Example(
            "annotation", Prompt.parse(rendered.prompt, len(cells)), answer_of(rendered.answer), cells, seed=_seed(rng)
        )

    def _drug(self, index: int, rng: np.random.Generator, text: Random) -> Example:
        dataset, (drug, response), rows = self.strata["drug"].draw(rng)
        chosen = rng.choice(rows, min(_n_cells(rng, self._most_cells(index), single=0.6), len(rows)), replace=False)
        record = replace(self._record(dataset, chosen[0]), drug=drug, response=response)
        rendered = instruction("drug", record, text, catalog=self.catalog, n_cells=len(chosen))
        cells = tuple(CellChoice(dataset, int(row)) for row in chosen)
        return Example(
            "drug", Prompt.parse(rendered.prompt, len(cells)), answer_of(rendered.answer), cells, seed=_seed(rng)
        )

    def _generation(self, index: int, rng: np.random.Generator, text: Random) -> Example:
        dataset, _, rows = self.strata["generation"].draw(rng)
        n_signals = 1 if rng.random() < 0.8 else int(rng.integers(2, 5))
        chosen = rng.choice(rows, min(n_signals, len(rows)), replace=False)
        rendered = instruction(
            "generation",
            self._record(dataset, chosen[0]),
            text,
            catalog=self.catalog,
            settings=self.hints(dataset),
            n_signals=len(chosen),
        )
        signals = tuple(CellChoice(dataset, int(row)) for row in chosen)
        return Example(
            "generation", Prompt.parse(rendered.prompt, 0), answer_of(rendered.answer), signals=signals, seed=_seed(rng)
        )

    def _most_cells(self, index: int) -> int:
        """Cells a prompt may hold, one draw for a whole batch: prompts of like length need little padding."""
        rng = np.random.default_rng((*self.seed, 3, index // self.batch_size))
        return int(rng.choice([1, 4, MAX_CELLS], p=[0.5, 0.3, 0.2]))

    def hints(self, dataset: int) -> InstructionSettings:
        """How generation prompts about a data set speak of species and tissue."""
        return ALWAYS_HINT if self.datasets[dataset].entry.hint == "always" else InstructionSettings()

    def _record(self, dataset: int, row: int) -> CellRecord:
        cells = self.datasets[dataset]
        return CellRecord(
            label=str(cells.label[row]),
            species=str(cells.species[row]),
            tissue=str(cells.tissue[row]),
            technology=str(cells.technology[row]),
            condition=str(cells.condition[row]),
        )

    record = _record


def _n_cells(rng: np.random.Generator, most: int, *, single: float) -> int:
    """One cell, or 2 to `most`, small groups more often."""
    return 1 if most == 1 or rng.random() < single else int(np.exp(rng.uniform(np.log(2), np.log(most + 1))))


def _seed(rng: np.random.Generator) -> int:
    return int(rng.integers(2**31))


class CellTensors:
    """Dense counts and masks of chosen cells, augmented or as they are."""

    def __init__(self, datasets: Sequence[LabelledCells], augmentation: Augmentation | None) -> None:
        self.datasets, self.augmentation = datasets, augmentation
        self.n_genes = len(datasets[0].measured)

    def __call__(self, choices: Sequence[CellChoice], seeds: Sequence[int]) -> tuple[Tensor, Tensor]:
        """counts [N, G] float32 and measured [N, G] bool."""
        counts = np.zeros((len(choices), self.n_genes), np.float32)
        measured = np.zeros((len(choices), self.n_genes), bool)
        for n, (choice, seed) in enumerate(zip(choices, seeds, strict=True)):
            cells = self.datasets[choice.dataset]
            start, end = cells.counts.indptr[choice.row : choice.row + 2]
            values, columns, mask = cells.counts.data[start:end], cells.counts.indices[start:end], cells.measured
            if self.augmentation is not None:
                rng = np.random.default_rng(seed)
                values, mask = augment_cell(values, columns, mask, self.augmentation, rng, is_counts=cells.is_counts)
            counts[n, columns] = values
            measured[n] = mask
        if self.augmentation is not None and len(choices):
            counts *= gene_factors(self.n_genes, self.augmentation, np.random.default_rng(seeds[0]))
        return torch.from_numpy(counts), torch.from_numpy(measured)


class InstructionCollator:
    """Examples -> the arguments of the model's forward, and `task` [B] for the curves.

    The state at <SIGNAL> learns which kind of cells was asked for; with `with_signal_counts` the decoder learns along.
    """

    def __init__(
        self,
        processor: InstructCellProcessor,
        datasets: Sequence[LabelledCells],
        targets: Sequence[Tensor],
        augmentation: Augmentation | None,
        *,
        with_signal_counts: bool = False,
    ) -> None:
        self.processor, self.targets, self.with_signal_counts = processor, targets, with_signal_counts
        self.kinds = signal_targets(datasets)
        self.cells, self.signals = CellTensors(datasets, augmentation), CellTensors(datasets, None)

    def __call__(self, examples: Sequence[Example]) -> dict[str, Tensor]:
        batch = dict(self.processor([e.prompt for e in examples], [e.answer for e in examples]))
        batch["task"] = torch.tensor([TASKS.index(e.task) for e in examples])
        cells = [(choice, e.seed + i) for e in examples for i, choice in enumerate(e.cells)]
        if cells:
            choices, seeds = zip(*cells, strict=True)
            batch["counts"], batch["measured"] = self.cells(choices, seeds)
            batch["cell_targets"] = torch.stack([self.targets[choice.dataset][choice.row] for choice in choices])
        signals = [choice for e in examples for choice in e.signals]
        if signals:
            if self.with_signal_counts:
                batch["signal_counts"], batch["signal_measured"] = self.signals(signals, [0] * len(signals))
            batch["signal_targets"] = torch.stack([self.kinds[choice.dataset][choice.row] for choice in signals])
        return batch


class CellDataset(Dataset):
    """Single cells drawn as the annotation task draws them, for the encoder stage."""

    def __init__(self, datasets: Sequence[LabelledCells], seed: int, length: int) -> None:
        self.strata, self.seed, self.length = annotation_strata(datasets), seed, length

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, index: int) -> Example:
        rng = np.random.default_rng((self.seed, 1, index))
        dataset, _, rows = self.strata.draw(rng)
        return Example(
            "annotation", Prompt(()), Answer(()), (CellChoice(dataset, int(rng.choice(rows))),), seed=_seed(rng)
        )


class CellCollator:
    """Examples -> counts [N, G], measured [N, G], cell_targets [N, C]."""

    def __init__(
        self, datasets: Sequence[LabelledCells], targets: Sequence[Tensor], augmentation: Augmentation | None
    ) -> None:
        self.cells, self.targets = CellTensors(datasets, augmentation), targets

    def __call__(self, examples: Sequence[Example]) -> dict[str, Tensor]:
        choices = [e.cells[0] for e in examples]
        counts, measured = self.cells(choices, [e.seed for e in examples])
        return {
            "counts": counts,
            "measured": measured,
            "cell_targets": torch.stack([self.targets[c.dataset][c.row] for c in choices]),
        }
