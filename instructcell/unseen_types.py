"""Cells of types that a checkpoint never saw, told by marker genes of the types that it does not know.

How far a cell lies from training (`reference`) does not say enough: natural killer cells lie among T cells. But the
marker table describes hundreds of types. A cell in which the markers of one that the checkpoint does not know stand out
more than those of any that it knows is a stranger, and the table says what it looks like.

    marker table -> types known to the checkpoint, types related to none of these -> weights of genes
    a cell, against the mean of the tissue's types -> highest score of each side -> their difference
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import lru_cache

import numpy as np
import scipy.sparse as sp

from instructcell.labels import load_ontology
from instructcell.marker_reader import MarkerGenes, Moments, marked_types, marker_weights

LEAST_SOURCES = 20  # that describe a type, for it to be taken seriously
MOST_MARKERS = 30  # of a type, heaviest first
LEAST_MEASURED = 0.2  # share of a type's markers, by weight, that a file must have


@dataclass(frozen=True)
class UnseenTypes:
    """Weights of genes for the types that a checkpoint knows and for those that it does not.

    Attributes
    ----------
    ids
        [U] Cell Ontology ids of the types that it does not know.
    known, unseen
        [m, K] and [m, U], of unit length for a type whose markers are all measured.
    """

    ids: tuple[str, ...]
    genes: MarkerGenes = field(repr=False)
    known: sp.csr_matrix = field(repr=False)
    unseen: sp.csr_matrix = field(repr=False)
    moments: Moments = field(repr=False)

    @classmethod
    def of(
        cls, known: Sequence[str], symbols: Sequence[str], genes: MarkerGenes, moments: Moments
    ) -> UnseenTypes | None:
        """Beside a checkpoint's types; None where the file has measured too few markers.

        Parameters
        ----------
        known
            Cell Ontology ids of all of its labels.
        symbols
            Of the marking genes [m].
        """
        others = unrelated_types(frozenset(known))
        ids, weights = marker_weights([*dict.fromkeys(known), *others], symbols, MOST_MARKERS)
        is_other = np.array([id in set(others) for id in ids], bool)
        enough = (weights**2).sum(axis=0) >= LEAST_MEASURED
        told = is_other & enough
        if not told.any() or not (~is_other & enough).any():
            return None
        names = tuple(id for id, here in zip(ids, told, strict=True) if here)
        return cls(names, genes, sp.csr_matrix(weights[:, ~is_other]), sp.csr_matrix(weights[:, told]), moments)

    def in_file(self, probabilities: np.ndarray, counts: sp.csr_matrix) -> UnseenReader:
        """The same for a file, of whose sample [M, G] the probabilities [M, L] are known."""
        centre, spread = self.moments.in_file(probabilities, self.genes.expression(counts))
        return UnseenReader(self, centre, spread)


@dataclass(frozen=True)
class UnseenReader:
    """What tells strangers in one file: types, and the mean and spread [m] of their markers there."""

    types: UnseenTypes = field(repr=False)
    centre: np.ndarray = field(repr=False)
    spread: np.ndarray = field(repr=False)

    def read(self, counts: sp.csr_matrix) -> tuple[np.ndarray, np.ndarray]:
        """How much more of an unseen type's markers cells [n, G] have than of any known one's [n], and which type [n].

        0 for cells without any of these genes.
        """
        weights = self.types.unseen, self.types.known
        (unseen, known), expressed = self.types.genes.scores(counts, self.centre, self.spread, *weights)
        return np.where(expressed, unseen.max(axis=1) - known.max(axis=1), 0.0), unseen.argmax(axis=1)

    @property
    def names(self) -> list[str]:
        """Of the types."""
        terms = load_ontology().terms
        return [terms[id].name for id in self.types.ids]


@lru_cache(maxsize=8)
def unrelated_types(known: frozenset[str]) -> tuple[str, ...]:
    """Ids of well described types that are neither broader nor narrower than any of the known ones."""
    ontology = load_ontology()
    return tuple(
        id
        for id in marked_types(LEAST_SOURCES)
        if id in ontology.terms and not any(ontology.is_a(id, of) or ontology.is_a(of, id) for of in known if of)
    )
