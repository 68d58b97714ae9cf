"""Sizes of the cell encoder, projector and decoder; saved with the weights."""

from __future__ import annotations

from dataclasses import dataclass, fields


def _require_positive(config: object, *names: str) -> None:
    for name in names:
        value = getattr(config, name)
        if value < 1:
            raise ValueError(f"{type(config).__name__}.{name} must be at least 1, got {value}")


@dataclass(frozen=True)
class CellEncoderConfig:
    """Counts of one cell [G] -> K embeddings [K, Z]."""

    n_genes: int
    n_embeddings: int = 4  # K: how many tokens one cell becomes
    n_latent: int = 128  # Z
    n_hidden: int = 256
    n_blocks: int = 1
    dropout: float = 0.1
    n_profiles: int = 0  # reference profiles that a cell is compared with

    def __post_init__(self) -> None:
        _require_positive(self, "n_genes", "n_embeddings", "n_latent", "n_hidden")
        if self.n_profiles < 0:
            raise ValueError(f"CellEncoderConfig.n_profiles must be at least 0, got {self.n_profiles}")
        if not 0.0 <= self.dropout < 1.0:
            raise ValueError(f"CellEncoderConfig.dropout must be in [0, 1), got {self.dropout}")


@dataclass(frozen=True)
class ProjectorConfig:
    """Cell embeddings [K, Z] -> the width of the language model [K, D]."""

    n_latent: int
    n_model: int  # D

    def __post_init__(self) -> None:
        _require_positive(self, "n_latent", "n_model")


@dataclass(frozen=True)
class CellDecoderConfig:
    """Hidden state at <SIGNAL> [D] -> counts of one cell [G]."""

    n_genes: int
    n_condition: int  # D: width of the language model's hidden state
    n_latent: int = 24
    n_hidden: int = 256
    n_components: int = 8  # of the mixture prior over the latent and the library size
    dispersion_rank: int = 16

    def __post_init__(self) -> None:
        _require_positive(self, *(field.name for field in fields(self)))
