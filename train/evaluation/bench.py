"""A checkpoint, the recipe's cells on its genes, and the answers the product gave about the test cells.

Every cell goes the way a user's cell goes: file, doctor, alignment, language model, calibrated label.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pandas as pd
from anndata import AnnData

from instructcell import tools
from instructcell.cells import read
from instructcell.checkpoint import Checkpoint
from instructcell.context import OBS_COLUMNS
from instructcell.labels import is_narrower
from train.datasets import LabelledCells, load_dataset
from train.evaluation.splits import refuse_leaks, tested_rows
from train.evaluation.tasks import Target
from train.recipe import Recipe

Say = Callable[[str], None]


@dataclass(frozen=True)
class Answers:
    """What `annotate` said of a target's test cells: those whose label the checkpoint has, and the others."""

    rows: np.ndarray  # [N] in the file
    truth: np.ndarray  # [N] names of labels
    free: pd.DataFrame  # one row per cell, as AnnotationResult.table
    among: pd.DataFrame  # the same with the file's own labels as options
    coverage: float  # share of the checkpoint's genes that the file measured
    outside: pd.DataFrame  # free answers about test cells whose label the checkpoint lacks
    outside_truth: np.ndarray

    @property
    def best(self) -> np.ndarray:
        return self.free["best_guess"].to_numpy(str)

    @property
    def confidence(self) -> np.ndarray:
        return self.free["confidence"].to_numpy(float)

    @property
    def correct(self) -> np.ndarray:
        """Whether the best guess is the label [N] bool."""
        return self.best == self.truth


@dataclass
class Bench:
    """What the measurements share; answers are computed once per target."""

    checkpoint: Checkpoint
    recipe: Recipe
    data: Path
    say: Say = print
    peers: Path | None = None  # python of the peers' environment; None: they are not run
    runs: Path = Path("runs")  # where slow tasks keep what they trained
    datasets: dict[str, LabelledCells] = field(default_factory=dict)
    _files: dict[str, AnnData] = field(default_factory=dict, repr=False)
    _answers: dict[str, Answers] = field(default_factory=dict, repr=False)
    _checked: set[str] = field(default_factory=set, repr=False)

    def __post_init__(self) -> None:
        genes = self.checkpoint.processor.genes
        for entry in self.recipe.data:
            self.datasets[entry.file] = load_dataset(entry, self.data, genes, self.recipe.seed)

    def file(self, name: str, rows: np.ndarray | None = None) -> AnnData:
        """Some cells of a file as a user would have them, a copy; all of them (no copy) without `rows`.

        The copy has no column that names its tissue: figures shall not depend on what a file says of itself.
        """
        if name not in self._files:
            self._files[name] = read(self.data / f"{name}.h5ad")
        whole = self._files[name]
        if rows is None:
            return whole
        some = whole[rows].copy()
        some.obs = some.obs.drop(columns=[name for name in OBS_COLUMNS if name in some.obs])
        return some

    def obs(self, name: str) -> pd.DataFrame:
        return self.file(name).obs

    def column(self, name: str, column: str, rows: np.ndarray) -> np.ndarray | None:
        """A column of the cells as text [N]; None without a column or with fewer than two groups."""
        if not column:
            return None
        values = self.obs(name)[column].astype(str).to_numpy()[rows]
        return values if len(np.unique(values)) > 1 else None

    def tested(self, target: Target) -> np.ndarray:
        """Rows of the target's test cells, after the check that nothing leaks."""
        self.recipe.entry(target.file)
        rows = tested_rows(self.obs(target.file), self.datasets[target.file], target)
        if repr(target) not in self._checked:
            refuse_leaks(target, rows, self.datasets, {name: self.obs(name) for name in self.datasets})
            self._checked.add(repr(target))
        return rows

    def known_rows(self, target: Target) -> np.ndarray:
        """Rows of the test cells whose label the checkpoint has."""
        rows = self.tested(target)
        return rows[np.isin(self.datasets[target.file].label[rows], self.checkpoint.labels.names)]

    def answers(self, target: Target) -> Answers:
        """The free answers about all test cells and, with the file's labels as options, about those it can know."""
        key = f"{target.file} {target.test}"
        if key not in self._answers:
            self._answers[key] = self._ask(target)
        return self._answers[key]

    def _ask(self, target: Target) -> Answers:
        cells, rows = self.datasets[target.file], self.tested(target)
        inside = np.isin(cells.label[rows], self.checkpoint.labels.names)
        free = tools.annotate(self.file(target.file, rows), checkpoint=self.checkpoint)
        truth = cells.label[rows[inside]]
        options = sorted(set(truth))
        among = tools.annotate(self.file(target.file, rows[inside]), checkpoint=self.checkpoint, labels=options)
        return Answers(
            rows=rows[inside],
            truth=truth,
            free=free.table[inside],
            among=among.table,
            coverage=free.coverage,
            outside=free.table[~inside],
            outside_truth=cells.label[rows[~inside]],
        )

    def is_or_narrower(self, answer: str, truth: str) -> bool:
        """Whether an answer is the true label or a narrower type of it."""
        if answer == truth:
            return True
        broad, narrow = self.checkpoint.labels.find(truth), self.checkpoint.labels.find(answer)
        return narrow is not None and broad is not None and is_narrower(narrow, broad)
