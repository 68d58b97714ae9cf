"""What the training cells of each kind were like in the decoder's latent space, for pseudo-cells that are like them.

The decoder's own prior is a mixture of a few Gaussians read from the request, and the mean of what it makes of a kind
of cells is a little blurred towards its neighbours. So beside the weights stand, for every kind (type, study and
condition), where its training cells lie in the latent space, with their depths, and by how much the mean expression of
its cells differs from what the decoder makes of them. A request that fits no kind is answered by the decoder alone.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from safetensors import safe_open
from safetensors.numpy import save_file
from torch import Tensor

from encoders import Latents
from instructcell.beside import load_beside
from instructcell.prompts import generation_prompt

POPULATIONS = "populations.safetensors"
ARRAYS = ("starts", "mean", "log_std", "log_library", "log_ratio")
DEPTH_SPREAD = 0.35  # of the log library: how near to a depth asked for the cells are that stand for it
REMARKS = re.compile(r"\s*\([^)]*\)")


@dataclass(frozen=True)
class Kind:
    """Training cells of one type, study and condition; `weight` is their share in the training of the decoder."""

    label: str
    species: str = ""
    tissue: str = ""
    condition: str = ""
    weight: float = 1.0

    @property
    def request(self) -> str:
        """The prompt that asks for a cell of the kind."""
        given = {"species": self.species or None, "tissue": self.tissue or None, "condition": self.condition or None}
        return generation_prompt(self.label, **given)


@dataclass(frozen=True)
class Populations:
    """The latent cells of K kinds.

    Attributes
    ----------
    kinds
        K of them.
    starts
        [K + 1] where the cells of each kind begin among all M cells.
    mean, log_std
        [M, L] of each cell's posterior.
    log_library
        [M] log of its counts over all genes of the checkpoint.
    log_ratio
        [K, G] log of the kind's mean share of each gene over what the decoder makes it; 0 where it was not measured.
    weights
        sha256 of the model it was fitted to.
    """

    kinds: tuple[Kind, ...]
    starts: np.ndarray
    mean: np.ndarray
    log_std: np.ndarray
    log_library: np.ndarray
    log_ratio: np.ndarray
    weights: str = ""

    def like(
        self, label: str, *, species: str | None = None, tissue: str | None = None, condition: str | None = None
    ) -> Population | None:
        """The kinds that a request means; None where what it says fits none of them.

        What a request leaves open fits every kind, but for the condition: cells nothing was done to are preferred.
        """
        found = [i for i, kind in enumerate(self.kinds) if kind.label == label]
        if species:
            found = [i for i in found if self.kinds[i].species.casefold() == species.casefold()]
        if tissue:
            found = self._of_tissue(found, tissue)
        if condition:
            found = [i for i in found if _plain(self.kinds[i].condition) == _plain(condition)]
        else:
            found = [i for i in found if not self.kinds[i].condition] or found
        return Population(self, tuple(found)) if found else None

    def _of_tissue(self, kinds: Sequence[int], tissue: str) -> list[int]:
        """Those of a tissue, else those of the tissue without what stands in brackets."""
        exact = [i for i in kinds if _plain(self.kinds[i].tissue) == _plain(tissue)]
        plain = _plain(REMARKS.sub("", tissue))
        return exact or [i for i in kinds if _plain(REMARKS.sub("", self.kinds[i].tissue)) == plain]


@dataclass(frozen=True)
class Population:
    """The cells of a few kinds, each kind drawn by its weight and each of its cells alike."""

    source: Populations
    kinds: tuple[int, ...]

    def draw(self, n: int, library_size: Tensor | None, generator: torch.Generator) -> Latents:
        """Latent cells like the training cells: those near a depth where library_size [n] asks for one."""
        source = self.source
        rows = np.concatenate([np.arange(source.starts[k], source.starts[k + 1]) for k in self.kinds])
        of_kind = np.repeat(self.kinds, [source.starts[k + 1] - source.starts[k] for k in self.kinds])
        shares = np.array([source.kinds[k].weight for k in self.kinds])
        sizes = np.array([(of_kind == k).sum() for k in self.kinds])
        chance = torch.from_numpy(np.log(np.repeat(shares / sizes, sizes))).expand(n, -1)  # [n, rows]
        log_library = torch.from_numpy(source.log_library[rows].astype(np.float32))
        wanted = None if library_size is None else torch.log(library_size.clamp_min(1.0)).float().cpu()
        if wanted is not None:
            chance = chance - ((log_library - wanted.unsqueeze(1)) / DEPTH_SPREAD).square().clamp_max(50.0) / 2
        drawn = torch.multinomial(torch.softmax(chance, dim=-1), 1, replacement=True, generator=generator).squeeze(1)
        mean, log_std = (torch.from_numpy(a[rows].astype(np.float32))[drawn] for a in (source.mean, source.log_std))
        ratio = torch.from_numpy(source.log_ratio[of_kind[drawn.numpy()]].astype(np.float32))  # [n, G]
        noise = torch.randn(mean.shape, generator=generator)
        depth = log_library[drawn] if wanted is None else wanted
        return Latents(mean + noise * log_std.exp(), depth, ratio)


def _plain(text: str) -> str:
    return " ".join(text.casefold().split())


def save_populations(populations: Populations, folder: Path) -> Path:
    """Write them into a checkpoint folder, numbers in half precision."""
    path = folder / POPULATIONS
    arrays = {name: np.ascontiguousarray(getattr(populations, name)) for name in ARRAYS}
    arrays = {name: array if name == "starts" else array.astype(np.float16) for name, array in arrays.items()}
    config = {"weights": populations.weights, "kinds": [asdict(kind) for kind in populations.kinds]}
    save_file(arrays, path, metadata={"config": json.dumps(config)})
    path.chmod(0o644)  # safetensors writes for its owner alone
    return path


def load_populations(folder: Path, weights: str) -> Populations | None:
    """Those of a checkpoint folder, None where it has none.

    Parameters
    ----------
    weights
        sha256 of the model beside it.

    Raises
    ------
    CheckpointError
        The file is damaged, or was fitted to other weights.
    """
    remedy = (
        f"fit it anew with `python -m train.populations`, or delete {POPULATIONS}: pseudo-cells then come from the "
        "decoder alone."
    )
    return load_beside(folder / POPULATIONS, weights, _read, lambda populations: populations.weights, remedy)


def _read(path: Path) -> Populations:
    with safe_open(path, framework="numpy") as file:
        config = json.loads(file.metadata()["config"])
        kinds = tuple(Kind(**kind) for kind in config["kinds"])
        starts, mean, log_std, log_library, log_ratio = (file.get_tensor(name) for name in ARRAYS)
    return Populations(kinds, starts, mean, log_std, log_library, log_ratio, config["weights"])
