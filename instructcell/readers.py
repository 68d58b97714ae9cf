"""Readers of expression that are asked beside the language model: linear ones, of cells whose types are known.

    counts -> log expression over a reader's genes -> probabilities of its labels -> averaged with the language model's

What the language model learned of its training studies carries over to others unevenly; these readers err elsewhere
(docs/trials.md). `tissue_readers` makes those of a tissue's types, `own_reader` makes one of a file's own cells.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import scipy.sparse as sp

MOST_GENES = 3000  # those that tell the kinds apart
PER_CELL = 1e4  # counts that cells are scaled to
STRENGTH = 0.1  # inverse of the penalty on weights, of genes scaled to at most 1
LEAST = 1e-4  # no label is impossible
ITERATIONS, TOLERANCE = 200, 1e-3
OWN_GENES = 200  # of a file that tell its types apart: few, so that what only looks like its studies is left out
LEAST_OWN, MOST_OWN, SUREST = 10, 150, 0.5  # cells of a type that a file's own reader needs and takes; of them the half


class Reader:
    """What names some labels from counts.

    Attributes
    ----------
    labels
        [T] positions among the checkpoint's L labels; of the others it has nothing to say.
    column
        [T] of its C probabilities, the one that a label shares with those it cannot be told from.
    """

    labels: np.ndarray
    column: np.ndarray

    def read(self, counts: sp.csr_matrix) -> tuple[np.ndarray, np.ndarray]:
        """Probabilities [N, C] of cells with counts [N, G], and which cells express anything that it reads [N] bool."""
        raise NotImplementedError

    def beside(self, probabilities: np.ndarray, counts: sp.csr_matrix, weight: float) -> np.ndarray:
        """Others' probabilities [N, L] of cells [N, G] with this reader's, their logarithms averaged.

        The others' word stands of labels that this reader does not know, and of cells without its genes.

        Parameters
        ----------
        weight
            Of this reader; the others' is 1.
        """
        said, expressed = self.read(counts)
        known, columns = probabilities[:, self.labels], np.eye(said.shape[1])[self.column]  # [N, T], [T, C]
        together = (known @ columns)[:, self.column]
        alike = np.where(together > 0, known / np.maximum(together, 1e-12), 1.0 / columns.sum(axis=0)[self.column])
        own = np.maximum(probabilities, LEAST)
        own[:, self.labels] = np.maximum(said[:, self.column] * alike * known.sum(axis=1, keepdims=True), LEAST)
        both = softmax((np.log(np.maximum(probabilities, 1e-6)) + weight * np.log(own)) / (1.0 + weight))
        return np.where(expressed[:, None], both, probabilities)


@dataclass(frozen=True)
class LinearReader(Reader):
    """Logistic regression over some genes for some labels.

    Attributes
    ----------
    genes
        [g] positions among the checkpoint's genes.
    weights, bias
        [g, T] and [T] of log expression.
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

    @property
    def column(self) -> np.ndarray:  # type: ignore[override]
        """Every label has its own."""
        return np.arange(len(self.labels))

    def read(self, counts: sp.csr_matrix) -> tuple[np.ndarray, np.ndarray]:
        expression = log_expression(counts, self.genes)
        return softmax(expression @ self.weights + self.bias), np.asarray(expression.sum(axis=1)).ravel() > 0


def own_reader(probabilities: np.ndarray, counts: sp.csr_matrix) -> LinearReader | None:
    """A linear reader of a file's own cells, each taken for what the others named it; None with fewer than two types.

    It learns the types as they look in this file, in few genes, from the cells that were named surest (self-training,
    Yarowsky 1995): what a study has of its own, platform or stage, is the same on both sides of its boundaries.

    Parameters
    ----------
    probabilities, counts
        [M, L] and [M, G] of a sample of the file.
    """
    said, confidence = probabilities.argmax(axis=1), probabilities.max(axis=1)
    groups = []
    for label in np.unique(said):
        mine = np.flatnonzero(said == label)
        if len(mine) >= LEAST_OWN:
            surest = mine[np.argsort(-confidence[mine], kind="stable")]
            groups.append(surest[: min(MOST_OWN, int(SUREST * len(mine)))])
    if len(groups) < 2:
        return None
    genes = telling_genes(np.stack([mean_share(counts[rows]) for rows in groups]), most=OWN_GENES)
    rows = np.concatenate(groups)
    return LinearReader.fit(counts[rows], said[rows], genes)


def telling_genes(shares: np.ndarray, usable: np.ndarray | None = None, most: int = MOST_GENES) -> np.ndarray:
    """Positions of at most `most` genes in which kinds with mean shares [K, G] differ most, of the usable ones [G]."""
    spread = np.log1p(shares * PER_CELL).std(axis=0)
    usable = spread > 0 if usable is None else usable
    best = np.argsort(-np.where(usable, spread, -1.0), kind="stable")[: min(most, int(usable.sum()))]
    return np.sort(best)


def mean_share(counts: sp.csr_matrix) -> np.ndarray:
    """Mean share [G] of each gene in the counts [n, G] of a cell."""
    total = np.maximum(np.asarray(counts.sum(axis=1)).ravel(), 1.0)
    return np.asarray((1.0 / total) @ counts).ravel() / counts.shape[0]


def log_expression(counts: sp.csr_matrix, genes: np.ndarray) -> sp.csr_matrix:
    """log(1 + counts per 10,000 over some genes) [N, g] of cells [N, G], sparse."""
    some = sp.csr_matrix(counts[:, genes], dtype=np.float32)
    total = np.maximum(np.asarray(some.sum(axis=1)).ravel(), 1.0)
    scaled = sp.csr_matrix(sp.diags((PER_CELL / total).astype(np.float32)) @ some)
    scaled.data = np.log1p(scaled.data)
    return scaled


def softmax(scores: np.ndarray) -> np.ndarray:
    """Over the last axis [N, L]."""
    exponents = np.exp(scores - scores.max(axis=-1, keepdims=True))
    return np.asarray(exponents / exponents.sum(axis=-1, keepdims=True))
