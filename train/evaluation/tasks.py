"""Tasks: what is measured on which cells, read from YAML into checked dataclasses, one class per kind.

    kind: annotation
    targets:
      - {file: pancreas_baron_mouse, split: donor}

The tasks that ship are in `train/tasks`; a path to a YAML file is a task as well.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from instructcell.errors import ConfigError
from train.recipe import settings_of

TASKS = Path(__file__).parent.parent / "tasks"
SPLITS = {  # what training must not have seen of a test cell: the obs column that names it
    "cell": "",
    "donor": "donor",
    "batch": "batch",
    "study": "study",
    "technology": "tech",
    "species": "species",
}


@dataclass(frozen=True)
class Target:
    """The test cells of one file, and what was never trained on with them."""

    file: str
    split: str = "cell"
    column: str = ""  # where it is not the split's usual one
    constant: str = ""  # the group of every cell, for a file that has no such column
    test: dict[str, Any] = field(default_factory=dict)  # {column: [groups]}; by default what the recipe holds out
    train_on: tuple[str, ...] = ()  # files whose training cells the baselines are refitted on; by default this file
    resample: str = ""  # obs column of patients or donors, redrawn whole for the intervals
    headline: bool = False  # shown in the README, and compared with the peers

    def __post_init__(self) -> None:
        if self.split not in SPLITS:
            raise ConfigError(f"target {self.file}: split must be one of {', '.join(SPLITS)}, got {self.split!r}")

    @property
    def group_column(self) -> str:
        return self.column or SPLITS[self.split]


@dataclass(frozen=True)
class AnnotationTask:
    """Cell types of held-out cells, free and among the file's own labels, beside refitted baselines."""

    targets: tuple[Target, ...]


@dataclass(frozen=True)
class PanelTask:
    """What remains of the accuracy when a file has measured few genes."""

    targets: tuple[Target, ...]
    cells: int = 250  # of each target
    random: tuple[int, ...] = (2000, 500, 200)  # genes of the file, drawn at random
    draws: int = 2
    markers: int = 200  # marker genes of the file's types


@dataclass(frozen=True)
class CalibrationTask:
    """Whether a confidence of 0.9 is right nine times out of ten; groups of annotation targets are pooled."""

    targets: tuple[Target, ...]
    coverage: float = 0.8  # share of the cells accepted, the most confident first


@dataclass(frozen=True)
class UnknownTask:
    """Confidence of cells whose label the checkpoint lacks, against the others of the same file."""

    targets: tuple[Target, ...]


@dataclass(frozen=True)
class PseudoCells:
    """One file whose types are generated and compared with its held-out cells."""

    file: str
    tissue: str = ""  # as a user would say it; "" says nothing
    species: str = ""
    conditions: bool = False  # ask for the condition of the cells as well, and compare within it
    least_cells: int = 10  # held-out cells of a type that is judged


@dataclass(frozen=True)
class GenerationTask:
    """Pseudo-cells against held-out real cells, beside other real cells (the floor) and independent Poisson genes."""

    sets: tuple[PseudoCells, ...]
    seeds: tuple[int, ...] = (0, 1, 2)
    scvi_epochs: int = 100  # with --peers


@dataclass(frozen=True)
class Potency:
    """Where a file keeps a drug's measured IC50 (log), to rank by."""

    drug: str
    column: str


@dataclass(frozen=True)
class DrugTask:
    """Measured drug responses of held-out cells."""

    targets: tuple[Target, ...]
    potency: tuple[Potency, ...] = ()


@dataclass(frozen=True)
class BulkTask:
    """The bulk-to-cell drug route: fitted anew on the screens with lines, tissues and the lines of a file held out."""

    file: str = ""  # single cells of screened lines, in obs `cell_line`; "" leaves that part out
    studies: tuple[str, ...] = ()  # whose cells show what technology does; never `file`
    slow: bool = True

    def __post_init__(self) -> None:
        if self.file in self.studies:
            raise ConfigError(f"bulk: {self.file} is tested, so it must not be among the studies")


@dataclass(frozen=True)
class PhrasingTask:
    """Requests in words that training never saw, on the same cells as the canonical request."""

    targets: tuple[Target, ...]  # annotation
    drug: str = ""
    drug_target: Target | None = None
    generation: PseudoCells | None = None
    phrasings: int = 200  # of each kind of request
    cells: int = 12  # each phrasing is asked about


@dataclass(frozen=True)
class ClusterTask:
    """Groups of cells that are named together, pure and mixed."""

    targets: tuple[Target, ...]
    clusters: int = 60  # of each file
    cells: int = 16  # of each cluster
    purity: tuple[float, ...] = (1.0, 0.7, 0.5, 0.4)  # share of the main type
    most_cells: int = 1000  # of each file, that clusters are drawn from


@dataclass(frozen=True)
class ContextTask:
    """The file as context: with and without it, for files of one type, and for files of several tissues."""

    targets: tuple[Target, ...]
    mixtures: tuple[Any, ...] = ()  # lists of files put together
    most_cells: int = 1000  # of each file
    least_of_type: int = 20  # cells that make a file of one type


@dataclass(frozen=True)
class ReadoutTask:
    """The fast read-out of large tables beside the language model."""

    targets: tuple[Target, ...]


@dataclass(frozen=True)
class LeftOut:
    """A study that training is repeated without; studies of one kind stand in for it in the baselines."""

    name: str
    files: tuple[str, ...]
    kind: str


@dataclass(frozen=True)
class LeaveStudiesOutTask:
    """The cell encoder and its read-out trained without a study, asked about that study."""

    studies: tuple[LeftOut, ...]
    steps: int = 1500
    slow: bool = True


@dataclass(frozen=True)
class LeaveTypesOutTask:
    """The cell encoder and its read-out trained without some cell types: are these less sure than the others?"""

    folds: tuple[Any, ...]  # lists of types left out together, one or two of each tissue
    steps: int = 1500
    least_cells: int = 5  # test cells of a type, to be counted
    slow: bool = True


KINDS: dict[str, type] = {
    "annotation": AnnotationTask,
    "panels": PanelTask,
    "calibration": CalibrationTask,
    "unknown": UnknownTask,
    "generation": GenerationTask,
    "drug": DrugTask,
    "bulk": BulkTask,
    "phrasing": PhrasingTask,
    "clusters": ClusterTask,
    "context": ContextTask,
    "readout": ReadoutTask,
    "leave_studies_out": LeaveStudiesOutTask,
    "leave_types_out": LeaveTypesOutTask,
}
Task = Any  # one of the classes above


def load_tasks(names: Iterable[str] = (), *, slow: bool = False) -> dict[str, Task]:
    """The tasks by kind, in the order in which they run.

    Parameters
    ----------
    names
        Kinds that ship, or paths of YAML files; by default every task that ships and takes seconds.
    slow
        By default also those that train (minutes each).

    Raises
    ------
    ConfigError
        A task is not known, or its file holds a key or value that is not.

    Examples
    --------
    >>> list(load_tasks(["drug"]))
    ['drug']
    """
    chosen = list(names)
    tasks: dict[str, Task] = {}
    for name in chosen or KINDS:
        kind, task = load_task(name)
        if chosen or slow or not is_slow(task):
            tasks[kind] = task
    return {kind: tasks[kind] for kind in KINDS if kind in tasks}


def load_task(name: str) -> tuple[str, Task]:
    """(kind, task) of one that ships or of a YAML file."""
    path = Path(name) if Path(name).suffix else TASKS / f"{name}.yaml"
    if not path.is_file():
        raise ConfigError(f"no task {name!r}: give a YAML file or one of {', '.join(KINDS)}")
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except yaml.YAMLError as error:
        raise ConfigError(f"{path.name} is not valid YAML: {error}") from error
    kind = content.pop("kind", None) if isinstance(content, dict) else None
    if kind not in KINDS:
        raise ConfigError(f"{path.name}: kind must be one of {', '.join(KINDS)}, got {kind!r}")
    return kind, settings_of(KINDS[kind], content, path.name)


def is_slow(task: Task) -> bool:
    """Whether a task trains something."""
    return bool(getattr(task, "slow", False))
