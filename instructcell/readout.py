"""A fast reading of cell types for large tables: cell embeddings to label probabilities, without the language model.

The read-out is fitted to the language model's own probabilities (`train.distil`), so it names what the language model
would name; a cell of which it is less certain than `certain_above` is left to the language model itself.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from instructcell.beside import load_beside

READOUT = "readout.safetensors"
SPECIES = ("human", "mouse")


@dataclass(frozen=True)
class ReadoutConfig:
    """Sizes of a read-out, and how sure it must be to answer by itself.

    `weights` is the sha256 of the model it was fitted to.
    """

    n_embeddings: int  # K
    n_latent: int  # Z
    n_labels: int  # L
    n_hidden: int = 512
    certain_above: float = 0.0
    weights: str = ""

    def __post_init__(self) -> None:
        if min(self.n_embeddings, self.n_latent, self.n_labels, self.n_hidden) < 1:
            raise ValueError(f"sizes must be at least 1, got {self}")


class LabelReadout(nn.Module):
    """Cell embeddings [N, K, Z] and the species -> log probabilities of the labels [N, L]."""

    def __init__(self, config: ReadoutConfig) -> None:
        super().__init__()
        self.config = config
        width = config.n_embeddings * config.n_latent + len(SPECIES)
        self.direct = nn.Linear(width, config.n_labels)
        self.expand = nn.Linear(width, config.n_hidden)
        self.mix = nn.Linear(config.n_hidden, config.n_hidden)
        self.contract = nn.Linear(config.n_hidden, config.n_labels)
        self.activate = nn.GELU()

    def forward(self, embeddings: Tensor, species: Tensor) -> Tensor:
        """embeddings [N, K, Z], species [N, 2] (human, mouse; zeros where unknown) -> [N, L]."""
        inputs = torch.cat([embeddings.flatten(1), species], dim=1)  # [N, K * Z + 2]
        hidden = self.activate(self.expand(inputs))
        hidden = hidden + self.activate(self.mix(hidden))
        return torch.log_softmax(self.direct(inputs) + self.contract(hidden), dim=-1)


def species_code(species: str | None) -> Tensor:
    """[2] float: which species a prompt names."""
    return torch.tensor([float(species == name) for name in SPECIES])


def save_readout(readout: LabelReadout, folder: Path) -> Path:
    """Write the read-out into a checkpoint folder, in half precision."""
    path = folder / READOUT
    state = {name: tensor.half().contiguous() for name, tensor in readout.state_dict().items()}
    save_file(state, path, metadata={"config": json.dumps(asdict(readout.config))})
    path.chmod(0o644)  # safetensors writes for its owner alone
    return path


def load_readout(folder: Path, weights: str) -> LabelReadout | None:
    """The read-out of a checkpoint folder, None where it has none.

    Parameters
    ----------
    weights
        sha256 of the model beside it.

    Raises
    ------
    CheckpointError
        The file is damaged, or was fitted to other weights.
    """
    remedy = f"copy the whole checkpoint again, or delete {READOUT}: all cells are then read by the language model."
    return load_beside(folder / READOUT, weights, _read, lambda readout: readout.config.weights, remedy)


def _read(path: Path) -> LabelReadout:
    with safe_open(path, framework="pt") as file:
        readout = LabelReadout(ReadoutConfig(**json.loads(file.metadata()["config"])))
        readout.load_state_dict({name: file.get_tensor(name).float() for name in file.keys()})  # noqa: SIM118
    return readout.eval()
