"""Recipes of the literature: which system, on which cells, with the paper's settings and with small ones.

An unknown key is an error that names the nearest known one. `small` holds what differs where two cores must do.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import yaml

from instructcell.errors import ConfigError
from train.recipe import RECIPES, DataEntry, read_settings, settings_of


@dataclass(frozen=True)
class CausalSettings:
    """A causal language model fine-tuned on cell sentences (EmCellLLM, Cell2Sentence)."""

    backbone: str = "Qwen/Qwen3-8B"  # or a cell-sentence model, whose training then goes on
    n_genes: int = 200
    epochs: float = 5
    batch_size: int = 128  # over all processes
    micro_batch: int = 0  # of one process at once; 0: its whole share
    learning_rate: float = 1e-5
    warmup: float = 0.1  # share of the steps
    weight_decay: float = 0.01
    max_steps: int = 0  # 0: what the epochs take
    lora_rank: int = 0  # 0: every weight is trained
    lora_alpha: int = 32
    lora_dropout: float = 0.05
    generation_share: float = 0.0  # of the items that ask for a cell instead of its type
    gradient_checkpointing: bool = False
    bf16: bool = False
    max_cells: int = 0  # trained on; 0: all


@dataclass(frozen=True)
class NeighbourSettings:
    """A text embedding of the cell and its nearest labelled neighbours, or a small head (CELLama, GenePT)."""

    text_encoder: str = ""  # "": the installed all-MiniLM-L6-v2
    n_genes: int = 0  # named in a sentence; 0: what the context takes
    gene_table: str = ""  # for genept_w; "": the shipped gene texts
    head: str = "knn"  # or "mlp"
    neighbours: int = 10
    hash_genes: str = "no"
    shuffle: str = "no"
    fraction: float = 1.0
    max_cells: int = 0

    def __post_init__(self) -> None:
        if self.head not in ("knn", "mlp"):
            raise ConfigError(f"head must be knn or mlp, got {self.head!r}")


@dataclass(frozen=True)
class ReaderSettings:
    """Gene texts by rank, a projector and a frozen language model (scReader); backbone "" is GenePT's head alone."""

    backbone: str = "meta-llama/Llama-2-13b-hf"
    text_encoder: str = ""
    gene_table: str = ""
    n_genes: int = 2048
    n_rank: int = 64
    n_hidden: int = 4096
    epochs: int = 10
    batch_size: int = 64
    learning_rate: float = 5e-5
    warmup_steps: int = 1000
    max_steps: int = 0
    bf16: bool = False
    max_cells: int = 0


@dataclass(frozen=True)
class FusionSettings:
    """Text and expression embeddings in one classifier (scMPT)."""

    text_encoder: str = "llmrails/ember-v1"
    n_genes: int = 0
    checkpoint: str = "mini"  # its cell encoder is the expression side
    obsm: str = ""  # an embedding of the files instead, such as X_scGPT
    n_hidden: int = 4096
    epochs: int = 20
    batch_size: int = 64
    learning_rate: float = 1e-4
    decay: float = 0.9  # of the learning rate, per epoch
    weight_decay: float = 0.01
    seeds: int = 5
    views: str = "both"  # "text" or "expression": the single encoders with scikit-learn's MLP
    max_cells: int = 0

    def __post_init__(self) -> None:
        if self.views not in ("both", "text", "expression"):
            raise ConfigError(f"views must be both, text or expression, got {self.views!r}")


@dataclass(frozen=True)
class RerankSettings:
    """The top three types of the neighbours put to a language model (scMPT); `zero_shot` leaves out the neighbours."""

    model: str = ""  # a folder or hub id; with a url, the name of the endpoint's model
    url: str = ""
    checkpoint: str = "mini"
    n_genes: int = 100
    zero_shot: bool = False
    max_cells: int = 0


@dataclass(frozen=True)
class PlainSettings:
    """InstructCell's checkpoint, or a baseline that has nothing to set."""

    checkpoint: str = "mini"
    max_cells: int = 0


SETTINGS: dict[str, type] = {
    "emcell": CausalSettings,
    "cellama": NeighbourSettings,
    "genept_s": NeighbourSettings,
    "genept_w": NeighbourSettings,
    "screader": ReaderSettings,
    "scmpt": FusionSettings,
    "rerank": RerankSettings,
    "instructcell": PlainSettings,
    "logistic regression": PlainSettings,
    "10-NN": PlainSettings,
    "majority": PlainSettings,
}


@dataclass(frozen=True)
class LiteratureRecipe:
    """A run of one system."""

    system: str
    output: str
    note: str = ""
    seed: int = 0
    label: str = "cell_type"  # obs column that is learned
    data: tuple[DataEntry, ...] = ()
    settings: dict[str, Any] = field(default_factory=dict)
    small: dict[str, Any] = field(default_factory=dict)  # settings that differ on two cores

    def __post_init__(self) -> None:
        settings_for(self.system, self.settings, self.output)
        settings_for(self.system, {**self.settings, **self.small}, f"{self.output}: small")

    def chosen(self, *, small: bool = False) -> Any:
        """The settings of the system, as a dataclass."""
        return settings_for(self.system, {**self.settings, **(self.small if small else {})}, self.output)

    def with_backbone(self, backbone: str) -> LiteratureRecipe:
        """The same recipe around another language model."""
        name = "text_encoder" if "backbone" not in SETTINGS[self.system].__dataclass_fields__ else "backbone"
        return replace(
            self, settings={**self.settings, name: backbone}, small={**self.small, name: backbone},
            output=f"{self.output}-{Path(backbone).name.lower()}",
        )  # fmt: skip


def settings_for(system: str, content: Mapping[str, Any], where: str) -> Any:
    """Checked settings of a system.

    Raises
    ------
    ConfigError
        There is no such system, or it has no such setting.
    """
    if system not in SETTINGS:
        raise ConfigError(f"{where}: there is no system {system!r}; choose one of {', '.join(SETTINGS)}")
    return settings_of(SETTINGS[system], content, f"{where}: settings")


def is_literature(name_or_path: str | Path) -> bool:
    """Whether a recipe names a system of the literature."""
    path = recipe_path(name_or_path)
    if not path.is_file():
        return False
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except yaml.YAMLError:
        return False
    return isinstance(content, Mapping) and "system" in content


def load_literature_recipe(name_or_path: str | Path) -> LiteratureRecipe:
    """Read a recipe that ships (`emcell`) or a YAML file; ConfigError where it cannot be used."""
    path = recipe_path(name_or_path)
    if not path.is_file():
        raise ConfigError(f"no recipe at {path}; give a YAML file or the name of one that ships")
    return read_settings(LiteratureRecipe, path)


def recipe_path(name_or_path: str | Path) -> Path:
    """The file of a recipe: a path, or the name of one that ships (`recipes/emcell.yaml` is one as well)."""
    path = Path(name_or_path)
    if path.is_file():
        return path
    shipped = RECIPES / (path.name if path.suffix else f"{path.name}.yaml")
    return shipped if shipped.is_file() or not path.suffix else path


def to_record(settings: Any) -> dict[str, Any]:
    """Settings as JSON holds them."""
    return asdict(settings)
