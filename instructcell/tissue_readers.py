"""Readers of the types of a file's tissues on the file's own genes: a linear one and one of marker genes.

Training cells do not ship; pseudo-cells like them are made instead.

    tissues of the file -> kinds of training cells there -> pseudo-cells (decoder and `populations`)
                        -> genes that the file and the kinds have measured -> logistic regression (`readers`)
                        -> their markers' mean and spread (`marker_reader`)
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Protocol

import numpy as np
import scipy.sparse as sp
import torch

from encoders import CellDecoder, Latents
from instructcell.context import ContextSettings, plain_tissue
from instructcell.generation import request_states
from instructcell.marker_reader import MarkerGenes, Markers, Moments, markers_of
from instructcell.populations import Population
from instructcell.processor import Prompt
from instructcell.readers import LinearReader, Reader, telling_genes
from instructcell.unseen_types import UnseenTypes, unrelated_types

if TYPE_CHECKING:
    from instructcell.checkpoint import Checkpoint

IN_FAMILIAR = 1 / 3  # of the linear reader's weight in files like the training studies
TELLS_NOTHING, TELLS_MUCH = 0.1, 0.3  # measured shares of the markers' weight that are worth none and all of its word
MANY_GENES, LEAST_OF_PANELS = (
    1000,
    0.25,
)  # of a file from which on markers have their weight, and what small panels leave
CELLS_PER_KIND = 150
LEAST_CELLS = 10  # of a kind, fewer teach nothing of it
MEASURED_BY = 0.5  # share of the kinds that must have measured a gene: what the others have of it is guessed


@dataclass(frozen=True)
class TissueReaders:
    """What reads the types of some tissues from `n_genes` genes of a file; None is a reader that knows too little.

    `unseen` tells cells of types that no training cell has.
    """

    linear: LinearReader | None
    markers: Markers | None
    n_genes: int
    unseen: UnseenTypes | None = None

    def asked(
        self,
        probabilities: np.ndarray,
        counts: sp.csr_matrix,
        settings: ContextSettings,
        strange: float,
        enough: float,
    ) -> list[tuple[Reader, float]]:
        """Those that are asked about a file, in turn, with their weights; markers in strange files alone.

        Parameters
        ----------
        probabilities, counts
            Of the sample's cells [M, L] and [M, G].
        strange
            How unlike the training studies the file is, 0..1.
        enough
            What a file of so few cells leaves of the weights, 0..1.
        """
        readers: list[tuple[Reader, float]] = []
        of_linear = settings.linear_weight * (IN_FAMILIAR + (1.0 - IN_FAMILIAR) * strange) * enough
        if self.linear is not None and of_linear > 0:
            readers.append((self.linear, of_linear))
            probabilities = self.linear.beside(probabilities, counts, of_linear)
        of_markers = settings.marker_weight * strange * enough * self._told_by_markers
        if self.markers is not None and of_markers > 0:
            readers.append((self.markers.in_file(probabilities, counts), of_markers))
        return readers

    @property
    def _told_by_markers(self) -> float:
        """What the markers' word is worth, 0..1: few say little, and small panels look strange by themselves."""
        measured = 0.0 if self.markers is None else self.markers.measured
        told = (measured - TELLS_NOTHING) / (TELLS_MUCH - TELLS_NOTHING)
        return float(np.clip(told, 0.0, 1.0) * np.clip(self.n_genes / MANY_GENES, LEAST_OF_PANELS, 1.0))


# ---- which cells they learn from


class Examples(Protocol):
    """Cells of one label from one study."""

    @property
    def label(self) -> int:
        """Position among the labels."""
        ...

    @property
    def measured(self) -> np.ndarray:
        """[G] bool: genes that the study has measured."""
        ...

    @property
    def share(self) -> np.ndarray:
        """[G] mean share of each gene in a cell's counts."""
        ...

    def cells(self, genes: np.ndarray) -> sp.csr_matrix:
        """Counts [n, G]; only those of some `genes` are asked for."""
        ...


def fit_readers(
    examples: Sequence[Examples], measured: np.ndarray, ids: Sequence[str], genes: Sequence[str]
) -> TissueReaders | None:
    """Readers of the examples' labels on the genes of a file; None with examples of fewer than two labels.

    Parameters
    ----------
    measured
        [G] bool: the genes of the file.
    ids
        Cell Ontology ids of all labels [L].
    genes
        Symbols of the checkpoint's genes [G].
    """
    positions = np.array([each.label for each in examples], int)
    labels = sorted(set(positions.tolist()))
    if len(labels) < 2:
        return None
    by_most = np.mean([each.measured for each in examples], axis=0) >= MEASURED_BY
    telling = telling_genes(np.stack([each.share for each in examples]), by_most & measured)
    of_types = [ids[label] for label in labels]
    marking = {gene for id in [*ids, *unrelated_types(frozenset(ids))] for gene, _ in markers_of(id)}
    markers = [i for i, gene in enumerate(genes) if measured[i] and gene in marking]
    needed = np.union1d(telling, markers).astype(int)
    counts = [each.cells(needed) for each in examples]
    of_cell = np.repeat(positions, [some.shape[0] for some in counts])
    found = MarkerGenes(needed, np.searchsorted(needed, markers))
    moments = Moments.of(positions.tolist(), counts, [each.measured for each in examples], found)
    linear = LinearReader.fit(sp.csr_matrix(sp.vstack(counts)), of_cell, telling)
    symbols = [genes[i] for i in markers]
    of_markers = Markers.of(labels, of_types, symbols, found, moments)
    return TissueReaders(linear, of_markers, int(measured.sum()), UnseenTypes.of(ids, symbols, found, moments))


# ---- pseudo-cells like a checkpoint's training cells


def tissue_readers(loaded: Checkpoint, measured: np.ndarray, tissues: Iterable[str]) -> TissueReaders | None:
    """The readers of the types that are known from some tissues; None where the checkpoint has no cells of them.

    Parameters
    ----------
    measured
        [G] bool: the genes of the file.
    tissues
        Without remarks in brackets, as `context` names them.
    """
    if loaded.populations is None:
        return None
    return _fitted(_Source(loaded), np.asarray(measured, bool).tobytes(), tuple(sorted(tissues)))


class _Source:
    """A checkpoint as it is in memory, told from others that have the same weights and other labels."""

    def __init__(self, loaded: Checkpoint) -> None:
        self.loaded = loaded

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Source) and self.loaded is other.loaded

    def __hash__(self) -> int:
        return id(self.loaded)


@lru_cache(maxsize=8)  # a file is asked about often, and readers are small
def _fitted(source: _Source, measured: bytes, tissues: tuple[str, ...]) -> TissueReaders | None:
    loaded, populations = source.loaded, source.loaded.populations
    assert populations is not None
    known, sizes = set(loaded.labels.names), np.diff(populations.starts)
    kinds = [
        k
        for k, kind in enumerate(populations.kinds)
        if plain_tissue(kind.tissue) in tissues and kind.label in known and sizes[k] >= LEAST_CELLS
    ]
    if not kinds:
        return None
    asked = [Prompt.parse(populations.kinds[k].request) for k in kinds]
    states = request_states(loaded.model, loaded.processor, asked).split(1)
    drawn = [_Drawn.of(loaded, k, state) for k, state in zip(kinds, states, strict=True)]
    ids = [label.id for label in loaded.labels]
    return fit_readers(drawn, np.frombuffer(measured, bool), ids, loaded.processor.genes)


@dataclass(frozen=True)
class _Drawn:
    """Latent cells of a kind, with what the language model hands to the decoder for it [1, D]."""

    label: int
    measured: np.ndarray
    share: np.ndarray
    decoder: CellDecoder
    state: torch.Tensor
    latents: Latents
    seed: int

    @classmethod
    def of(cls, loaded: Checkpoint, k: int, state: torch.Tensor) -> _Drawn:
        populations = loaded.populations
        assert populations is not None
        n = min(CELLS_PER_KIND, int(np.diff(populations.starts)[k]))
        latents = Population(populations, (k,)).draw(n, None, torch.Generator().manual_seed(k))
        decoder, ratio = loaded.model.cell_decoder, populations.log_ratio[k].astype(np.float32)
        share = decoder.shares(state, latents.latent.mean(dim=0, keepdim=True).to(state))[0].cpu().numpy()
        corrected = share * np.exp(ratio)
        label = loaded.labels.names.index(populations.kinds[k].label)
        return cls(label, ratio != 0, corrected / corrected.sum(), decoder, state, latents, k)

    def cells(self, genes: np.ndarray) -> sp.csr_matrix:
        n = len(self.latents.latent)
        generator = torch.Generator(device=self.state.device).manual_seed(self.seed)
        state, some = self.state.expand(n, -1), torch.from_numpy(genes).to(self.state.device)
        drawn = self.decoder.sample(state, None, generator, self.latents, some).cpu().numpy()
        found = sp.csr_matrix(drawn.astype(np.float32))
        return sp.csr_matrix((found.data, genes[found.indices], found.indptr), shape=(n, len(self.share)))
