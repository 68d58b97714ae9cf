"""A reader of marker genes, asked beside the language model: which of a tissue's types has its markers high in a cell.

Markers come from the literature (the table of `resources`, sources in NOTICE), not from the training studies, so they
hold where a study looks like none of these.

    markers of the tissue's types -> weights of genes
    the file's cells as they were named so far, and cells of types it lacks -> mean and spread of each gene
    a cell -> how far its genes lie above the mean -> score of each type -> probabilities

"High" has to mean higher than in the tissue's other types. The mean over a file would not do: in a file of one type
half of the cells would lie below it. So every type of the tissue counts equally for the mean, those of the file as they
look in the file, the others as they look in training.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import lru_cache

import numpy as np
import scipy.sparse as sp

from instructcell.readers import Reader, log_expression, softmax
from instructcell.resources import read_table

MOST_MARKERS = 60  # of a type, heaviest first
LEAST_MARKERS = 3  # measured: fewer tell nothing of a type
SHARPNESS = 2.0  # of the probabilities: log odds of one spread of a single marker
MOST_SPREADS = 3.0  # that one gene may lie from the mean
LEAST_SPREAD = 0.1  # of log expression: a gene that hardly varies says little
FROM_TRAINING = 10.0  # cells of training that stand beside a type's cells in the file
LEAST = 1e-3  # no type is impossible


@dataclass(frozen=True)
class MarkerGenes:
    """Where the markers are, and what a cell's log expression of them is over.

    Attributes
    ----------
    total
        [g] positions among the checkpoint's genes: log expression is of counts per 10,000 of these.
    marking
        [m] positions within `total` of the genes that mark something.
    """

    total: np.ndarray
    marking: np.ndarray

    def expression(self, counts: sp.csr_matrix) -> np.ndarray:
        """Log expression [n, m] of cells with counts [n, G]."""
        return log_expression(counts, self.total)[:, self.marking].toarray()

    def scores(
        self, counts: sp.csr_matrix, centre: np.ndarray, spread: np.ndarray, *weights: sp.csr_matrix
    ) -> tuple[list[np.ndarray], np.ndarray]:
        """How high the markers are of cells with counts [n, G], and which cells express any of the genes [n] bool.

        Each gene counts by how many spreads [m] it lies above the mean [m], within bounds.

        Parameters
        ----------
        weights
            [m, C] of the types, for scores [n, C]; several for several. A type has few of the genes.
        """
        expression = log_expression(counts, self.total)[:, self.marking]
        spread = np.maximum(spread, LEAST_SPREAD)
        nothing = np.clip(-centre / spread, -MOST_SPREADS, MOST_SPREADS)  # of a gene that is not expressed
        above = sp.csr_matrix(expression, dtype=np.float64)  # sparse: the same for a cell in whatever company
        gene = above.indices
        above.data = np.clip((above.data - centre[gene]) / spread[gene], -MOST_SPREADS, MOST_SPREADS) - nothing[gene]
        return [(above @ some).toarray() + nothing @ some for some in weights], np.diff(above.indptr) > 0


@dataclass(frozen=True)
class Moments:
    """Mean and mean square [T, m] of the markers' log expression in training cells of types `labels` [T].

    NaN where no study of a type has measured a gene.
    """

    labels: np.ndarray
    mean: np.ndarray = field(repr=False)
    square: np.ndarray = field(repr=False)

    @classmethod
    def of(
        cls, labels: Sequence[int], counts: Sequence[sp.csr_matrix], measured: Sequence[np.ndarray], genes: MarkerGenes
    ) -> Moments:
        """Of groups of training cells with counts [n, G], of studies that measured [G]; groups of one type alike."""
        names, groups = np.unique(labels, return_inverse=True)
        rows: list[list[np.ndarray]] = [[] for _ in names]  # of each type [2, m]
        for group, some, has in zip(groups, counts, measured, strict=True):
            expression = genes.expression(some)
            both = np.stack([expression.mean(axis=0), (expression**2).mean(axis=0)])
            rows[group].append(np.where(has[genes.total[genes.marking]], both, np.nan))
        mean, square = np.stack([_mean(np.stack(of_type)) for of_type in rows], axis=1)
        return cls(names, mean, square)

    def in_file(self, probabilities: np.ndarray, expression: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Mean and spread [m] over types that count equally, of cells [M, m] named with probabilities [M, L]."""
        of_type = probabilities[:, self.labels]
        known = ~np.isnan(self.mean)
        prior = FROM_TRAINING * known + 1e-9
        cells = of_type.sum(axis=0)[:, None] + prior
        mean = (of_type.T @ expression + prior * np.where(known, self.mean, 0.0)) / cells
        square = (of_type.T @ expression**2 + prior * np.where(known, self.square, 0.0)) / cells
        centre = mean.mean(axis=0)
        return centre, np.sqrt(np.maximum(square.mean(axis=0) - centre**2, 0.0))


def _mean(stacked: np.ndarray) -> np.ndarray:
    """Mean over the first axis without NaN; NaN where all have it."""
    known = (~np.isnan(stacked)).sum(axis=0)
    return np.where(known > 0, np.nansum(stacked, axis=0) / np.maximum(known, 1), np.nan)


@dataclass(frozen=True)
class Markers:
    """Weights of genes for some types, before a file is seen.

    Attributes
    ----------
    labels, column
        [T] positions among the checkpoint's labels, and the column of each: types of one Cell Ontology term share it.
    weights
        [m, C], of unit length for a column whose markers are all measured; 0 for genes that mark other types.
    """

    labels: np.ndarray
    column: np.ndarray
    genes: MarkerGenes = field(repr=False)
    weights: np.ndarray = field(repr=False)
    moments: Moments = field(repr=False)

    @classmethod
    def of(
        cls, labels: Sequence[int], ids: Sequence[str], symbols: Sequence[str], genes: MarkerGenes, moments: Moments
    ) -> Markers | None:
        """The markers of types; None where fewer than two have enough that are measured.

        Parameters
        ----------
        labels, ids
            Positions [T] of the types, and their Cell Ontology ids. Types of one id are not told apart.
        symbols
            Of the marking genes [m].
        """
        known, weights = marker_weights(list(dict.fromkeys(ids)), symbols)
        if len(known) < 2:
            return None
        kept = [(label, known.index(id)) for label, id in zip(labels, ids, strict=True) if id in known]
        positions, column = (np.array(numbers) for numbers in zip(*kept, strict=True))
        return cls(positions, column, genes, weights, moments)

    @property
    def measured(self) -> float:
        """Share of what the markers could tell that is measured, 0..1, mean over the types."""
        return float((self.weights**2).sum(axis=0).mean())

    def in_file(self, probabilities: np.ndarray, counts: sp.csr_matrix) -> MarkerReader:
        """The reader for a file, of whose sample [M, G] the probabilities [M, L] are known so far."""
        centre, spread = self.moments.in_file(probabilities, self.genes.expression(counts))
        return MarkerReader(self.labels, self.column, self.genes, sp.csr_matrix(self.weights), centre, spread)


@dataclass(frozen=True)
class MarkerReader(Reader):
    """Markers with the mean and spread [m] of their genes in a file."""

    labels: np.ndarray
    column: np.ndarray
    genes: MarkerGenes = field(repr=False)
    weights: sp.csr_matrix = field(repr=False)
    centre: np.ndarray = field(repr=False)
    spread: np.ndarray = field(repr=False)

    def read(self, counts: sp.csr_matrix) -> tuple[np.ndarray, np.ndarray]:
        (scores,), expressed = self.genes.scores(counts, self.centre, self.spread, self.weights)
        said = np.maximum(softmax(SHARPNESS * scores), LEAST)
        return said / said.sum(axis=1, keepdims=True), expressed


# ---- the marker table


def marker_weights(
    ids: Sequence[str], symbols: Sequence[str], most: int = MOST_MARKERS
) -> tuple[list[str], np.ndarray]:
    """Weights [m, C] of genes for those of some Cell Ontology terms that have enough markers among them, and these.

    A column is of unit length where all markers of the term are among the genes: what is not measured says nothing.

    Parameters
    ----------
    symbols
        Of the genes [m].
    most
        Markers of a term, heaviest first.
    """
    place = {symbol: i for i, symbol in enumerate(symbols)}
    of_id = {id: dict(markers_of(id)[:most]) for id in ids}
    known = [id for id in ids if len(of_id[id].keys() & place.keys()) >= LEAST_MARKERS]
    marked = Counter(gene for id in known for gene in of_id[id])
    weights = np.zeros((len(symbols), len(known)))
    for k, id in enumerate(known):
        heaviest = max(of_id[id].values())
        of_gene = {  # what marks many of the types tells little
            gene: np.sqrt(weight / heaviest) * np.log((len(known) + 1) / marked[gene])
            for gene, weight in of_id[id].items()
        }
        length = np.sqrt(sum(weight**2 for weight in of_gene.values()))
        for gene in of_gene.keys() & place.keys():
            weights[place[gene], k] = of_gene[gene] / max(length, 1e-6)
    return known, weights


def markers_of(cell_type_id: str) -> tuple[tuple[str, float], ...]:
    """The markers of a Cell Ontology term with their weights, heaviest first; none for terms without."""
    return _marker_table()[0].get(cell_type_id, ())


def marked_types(least_sources: int) -> tuple[str, ...]:
    """Ids of the terms that at least so many sources describe."""
    return tuple(id for id, sources in _marker_table()[1].items() if sources >= least_sources)


@lru_cache(maxsize=1)
def _marker_table() -> tuple[dict[str, tuple[tuple[str, float], ...]], dict[str, int]]:
    table = read_table("markers.tsv.gz").astype({"weight": float, "n_sources": int})
    groups = table.sort_values("weight", ascending=False, kind="stable").groupby("cl_id", sort=True)
    heaviest = {
        str(id): tuple(zip(rows["gene"].astype(str), rows["weight"].astype(float), strict=True))[:MOST_MARKERS]
        for id, rows in groups
    }
    return heaviest, {str(id): int(sources) for id, sources in groups["n_sources"].max().items()}
