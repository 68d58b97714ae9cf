"""Recipes: everything that decides a training run, read from YAML into checked dataclasses.

An unknown key is an error that names the nearest known one.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields, is_dataclass, replace
from difflib import get_close_matches
from pathlib import Path
from typing import Any, get_args, get_type_hints

import yaml

from instructcell.errors import ConfigError

RECIPES = Path(__file__).parent / "recipes"


@dataclass(frozen=True)
class DrugEntry:
    """Where a file keeps a drug response: `name`, or the column that names the drug per cell."""

    response_column: str
    sensitive: str
    resistant: str
    name: str = ""
    name_column: str = ""

    def __post_init__(self) -> None:
        if bool(self.name) == bool(self.name_column):
            raise ConfigError("a drug entry needs either name or name_column, not both and not neither")


@dataclass(frozen=True)
class DataEntry:
    """One file of the data folder and how it is used."""

    file: str
    use: str = "training"  # or "evaluation": no cell of it is trained on
    hold_out: Any = None  # {obs column: [groups]} or the share of each label
    weight: float = 1.0  # in the sampling of cells for annotation
    ignore_labels: tuple[str, ...] = ()
    generation: float = 1.0  # weight in the sampling of cells to generate; 0 = its counts never train the decoder
    generation_labels: tuple[str, ...] = ()  # only these, when given
    hint: str = "sometimes"  # "always": generation prompts state species, tissue and condition
    drug: tuple[DrugEntry, ...] = ()

    def __post_init__(self) -> None:
        if self.use not in ("training", "evaluation"):
            raise ConfigError(f"data entry {self.file}: use must be training or evaluation, got {self.use!r}")
        if self.use == "training" and not self.hold_out:
            raise ConfigError(
                f"data entry {self.file}: state hold_out, groups or a share; every file keeps cells for testing"
            )
        if self.hint not in ("sometimes", "always"):
            raise ConfigError(f"data entry {self.file}: hint must be sometimes or always, got {self.hint!r}")


@dataclass(frozen=True)
class Augmentation:
    """What training does to a cell so that depth, unit and panel of a new file matter little; see mini.yaml."""

    thinning: float = 0.5
    thinning_floor: float = 0.1
    power: float = 0.5
    power_spread: float = 0.3
    panel: float = 0.6
    panel_floor: float = 0.02
    gene_scale: float = 0.5


@dataclass(frozen=True)
class Stage:
    """Length and optimiser of one stage of training."""

    steps: int
    batch_size: int
    learning_rate: float
    weight_decay: float = 0.01
    encoder_learning_rate: float | None = None
    warmup: float = 0.05  # share of the steps
    tasks: dict[str, float] | None = None  # shares of this stage's batches, where they differ from the recipe's
    beta2: float = 0.999  # of AdamW
    signal_weight: float = 1.0  # of the loss at <SIGNAL>, whose gradients are ten times those of the text
    kl_weight: float = 1.0  # of the decoder's latent at the end of its warm-up; above 1 the condition explains more

    def __post_init__(self) -> None:
        if self.steps < 1 or self.batch_size < 1:
            raise ConfigError(f"steps and batch_size must be at least 1, got {self.steps} and {self.batch_size}")


@dataclass(frozen=True)
class Stages:
    """Encoder with a read-out, language model on words, the whole model on instructions, the decoder alone."""

    encoder: Stage
    instructions: Stage
    decoder: Stage
    words: Stage | None = None  # requests without cells: the language model learns to read names at little cost


@dataclass(frozen=True)
class Recipe:
    """A training run."""

    data: tuple[DataEntry, ...]
    stages: Stages
    output: str
    note: str = ""  # what a reader of the model card must know about the run
    seed: int = 0
    n_genes: int = 12000
    encoder: dict[str, Any] = field(default_factory=dict)
    profiles: bool = False  # the cell encoder also compares each cell with the mean of every label in every study
    decoder: dict[str, Any] = field(default_factory=dict)
    backbone: Any = field(default_factory=dict)  # sizes of a T5 from scratch, or a path or hub id
    label_smoothing: float = 0.0
    joint_decoder: bool = False  # the decoder learns along with the instructions, not only in its own stage
    generation_weight: float = 1.0  # then: of its loss (per gene) beside the text loss (per token)
    augmentation: Augmentation = Augmentation()
    tasks: dict[str, float] = field(default_factory=lambda: {"annotation": 1.0})

    def entry(self, file: str) -> DataEntry:
        """The data entry of a file by name."""
        for entry in self.data:
            if entry.file == file:
                return entry
        raise ConfigError(f"the recipe has no data entry {file!r}; it has {', '.join(e.file for e in self.data)}")


def load_recipe(name_or_path: str | Path) -> Recipe:
    """Read a recipe that ships (`mini`) or a YAML file.

    Raises
    ------
    ConfigError
        The file is missing, is not YAML, or holds a key or value that is not known.
    """
    path = Path(name_or_path)
    if not path.suffix:
        path = RECIPES / f"{name_or_path}.yaml"
    if not path.is_file():
        shipped = ", ".join(sorted(p.stem for p in RECIPES.glob("*.yaml")))
        raise ConfigError(f"no recipe at {path}. Give a YAML file or one of the recipes that ship: {shipped}.")
    return read_settings(Recipe, path)


def read_settings(cls: type, path: Path) -> Any:
    """A dataclass from a YAML file that is there; ConfigError where it is no YAML or holds what is not known."""
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except yaml.YAMLError as error:
        raise ConfigError(f"{path.name} is not valid YAML: {error}") from error
    return settings_of(cls, content, path.name)


def settings_of(cls: type, content: Any, where: str) -> Any:
    """A dataclass from a mapping, key by key."""
    if not isinstance(content, Mapping):
        raise ConfigError(
            f"{where}: expected a mapping with the keys of {cls.__name__}, found {type(content).__name__}"
        )
    known = [f.name for f in fields(cls)]
    for key in content:
        if key not in known:
            near = get_close_matches(str(key), known, n=1)
            raise ConfigError(
                f"{where}: unknown key {key!r}"
                + (f"; did you mean {near[0]!r}?" if near else f"; known: {', '.join(known)}")
            )
    hints = get_type_hints(cls)
    try:
        return cls(**{key: _convert(hints[key], value, f"{where}: {key}") for key, value in content.items()})
    except TypeError as error:
        raise ConfigError(f"{where}: {error}") from error


def _convert(hint: Any, value: Any, where: str) -> Any:
    arguments = get_args(hint)
    nested = next((a for a in (hint, *arguments) if is_dataclass(a)), None)
    if nested is not None and getattr(hint, "__origin__", None) is not tuple:
        return settings_of(nested, value, where)
    if getattr(hint, "__origin__", None) is tuple:
        rows = value if isinstance(value, list) else [value]
        return tuple(_convert(arguments[0], row, where) for row in rows)
    if hint is float or (float in arguments and type(None) in arguments):
        return None if value is None else float(value)
    return value


def with_backbone(recipe: Recipe, backbone: str) -> Recipe:
    """The same recipe around another language model, under an output name of its own."""
    return replace(recipe, backbone=backbone, output=f"{recipe.output}-{Path(backbone).name.lower()}")
