"""A linear reader of a file's own genes, asked beside the language model: logistic regression on pseudo-cells.

What the language model learned of its training studies carries over to others unevenly. A linear model of the types of
the file's tissues, fitted to just the genes that the file has measured, errs elsewhere (docs/trials.md), so both are
asked. Training cells do not ship; pseudo-cells like them are made instead.

    tissues of the file -> kinds of training cells there -> pseudo-cells (decoder and `populations`)
                        -> genes that the file and the kinds have measured -> logistic regression -> probabilities
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import TYPE_CHECKING, Protocol

import numpy as np
import scipy.sparse as sp
import torch

from encoders import CellDecoder, Latents
from instructcell.context import plain_tissue, softmax
from instructcell.generation import request_states
from instructcell.populations import Population
from instructcell.processor import Prompt

if TYPE_CHECKING:
    from instructcell.checkpoint import Checkpoint

CELLS_PER_KIND = 150
LEAST_CELLS = 10  # of a kind, fewer teach nothing of it
MOST_GENES = 3000  # those that tell the kinds apart
MEASURED_BY = 0.5  # share of the kinds that must have measured a gene: what the others have of it is guessed
PER_CELL = 1e4  # counts that cells are scaled to
STRENGTH = 0.1  # inverse of the penalty on weights, of genes scaled to at most 1
LEAST = 1e-4  # no label is impossible
ITERATIONS, TOLERANCE = 200, 1e-3


@dataclass(frozen=True)
class LinearReader:
    """Logistic regression over some genes for some labels.

    Attributes
    ----------
    genes
        [g] positions among the checkpoint's genes.
    weights, bias
        [g, T] and [T] of log expression.
    labels
        [T] positions among the checkpoint's L labels; of the others it has nothing to say.
    """

    genes: np.ndarray
    weights: np.ndarray = field(repr=False)
    bias: np.ndarray = field(repr=False)
    labels: np.ndarray

    @classmethod
    def fit(cls, counts: sp.csr_matrix, labels: np.ndarray, genes: np.ndarray) -> LinearReader | None:
        """Of cells with counts [M, G] and labels [M] (positions), over some genes [g]; None with one label alone."""
        from sklearn.linear_model import LogisticRegression  # a second to import, for what not every command needs

        names, codes = np.unique(labels, return_inverse=True)
        if len(names) < 2 or not len(genes):
            return None
        expression = log_expression(counts, genes)
        largest = np.maximum(expression.max(axis=0).toarray().ravel(), 1e-6)
        model = LogisticRegression(C=STRENGTH, max_iter=ITERATIONS, tol=TOLERANCE, class_weight="balanced")
        model.fit(expression.toarray() / largest, codes)
        weights, bias = model.coef_, model.intercept_
        if len(names) == 2:  # the odds of the second
            weights, bias = np.concatenate([-weights, weights]) / 2, np.concatenate([-bias, bias]) / 2
        return cls(genes, (weights / largest).T.astype(np.float32), bias.astype(np.float32), names)

    def probabilities(self, counts: sp.csr_matrix) -> np.ndarray:
        """Of its own labels [N, T], for cells [N, G]."""
        return self._read(log_expression(counts, self.genes))

    def _read(self, expression: sp.csr_matrix) -> np.ndarray:
        return softmax(expression @ self.weights + self.bias)

    def beside(self, probabilities: np.ndarray, counts: sp.csr_matrix, weight: float) -> np.ndarray:
        """The language model's probabilities [N, L] of cells [N, G] with this reader's, their logarithms averaged.

        The language model's word stands of labels that this reader does not know, and of cells without its genes.

        Parameters
        ----------
        weight
            Of this reader; the language model's is 1.
        """
        expression = log_expression(counts, self.genes)
        said = np.maximum(probabilities, LEAST)
        known = probabilities[:, self.labels].sum(axis=1, keepdims=True)
        said[:, self.labels] = np.maximum(self._read(expression) * known, LEAST)
        both = softmax((np.log(np.maximum(probabilities, 1e-6)) + weight * np.log(said)) / (1.0 + weight))
        expressed = np.asarray(expression.sum(axis=1)) > 0  # [N, 1]
        return np.where(expressed, both, probabilities)


def log_expression(counts: sp.csr_matrix, genes: np.ndarray) -> sp.csr_matrix:
    """log(1 + counts per 10,000 over some genes) [N, g] of cells [N, G], sparse."""
    some = sp.csr_matrix(counts[:, genes], dtype=np.float32)
    total = np.maximum(np.asarray(some.sum(axis=1)).ravel(), 1.0)
    scaled = sp.csr_matrix(sp.diags((PER_CELL / total).astype(np.float32)) @ some)
    scaled.data = np.log1p(scaled.data)
    return scaled


# ---- which cells it learns from


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


def fit_reader(examples: Sequence[Examples], measured: np.ndarray) -> LinearReader | None:
    """The reader of the examples' labels on the genes of a file; None with examples of fewer than two labels.

    Parameters
    ----------
    measured
        [G] bool: the genes of the file.
    """
    positions = np.array([each.label for each in examples], int)
    if len(set(positions)) < 2:
        return None
    by_most = np.mean([each.measured for each in examples], axis=0) >= MEASURED_BY
    genes = telling_genes(np.stack([each.share for each in examples]), by_most & measured)
    counts = [each.cells(genes) for each in examples]
    of_cell = np.repeat(positions, [some.shape[0] for some in counts])
    return LinearReader.fit(sp.csr_matrix(sp.vstack(counts)), of_cell, genes)


def telling_genes(shares: np.ndarray, usable: np.ndarray) -> np.ndarray:
    """Positions of the usable [G] genes in which kinds with mean shares [K, G] differ most, at most MOST_GENES."""
    spread = np.where(usable, np.log1p(shares * PER_CELL).std(axis=0), -1.0)
    best = np.argsort(-spread, kind="stable")[: min(MOST_GENES, int(usable.sum()))]
    return np.sort(best)


# ---- pseudo-cells like a checkpoint's training cells


def linear_reader(loaded: Checkpoint, measured: np.ndarray, tissues: Iterable[str]) -> LinearReader | None:
    """The reader of the types that are known from some tissues; None where the checkpoint has no cells of them.

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


@lru_cache(maxsize=8)  # a file is asked about often, and a reader is small
def _fitted(source: _Source, measured: bytes, tissues: tuple[str, ...]) -> LinearReader | None:
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
    return fit_reader(drawn, np.frombuffer(measured, bool))


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
