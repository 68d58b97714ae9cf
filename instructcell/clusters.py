"""A cluster named from all of its cells.

A cluster holds cells of its own type and others that a clustering put there. Each cell is therefore explained by the
cluster's type or by what the file holds in general, and the type under which all cells are likeliest wins:

    score(type) = mean over cells of log( purity * p(type | cell) + (1 - purity) * sum over types of p * share in file )

So a cell counts for a type only as far as the file as a whole does not explain it, and one cell that is far off counts
no more than its background.
"""

from __future__ import annotations

import numpy as np
import pandas as pd

PURITY = 0.5  # share of a cluster that is taken to be of its own type
CLUSTER_CELLS = 8.0  # independent cells that a large cluster is worth, where calibration.json has no other figure


def cluster_scores(probabilities: np.ndarray, composition: np.ndarray) -> np.ndarray:
    """Mean evidence [L] of a cluster's cells [n, L] in a file with shares [L] of the labels."""
    others = probabilities @ composition  # [n] likelihood under the file as a whole
    return np.log(PURITY * probabilities + (1 - PURITY) * others[:, None] + 1e-9).mean(axis=0)


def cluster_probabilities(
    probabilities: np.ndarray, composition: np.ndarray, worth: float = CLUSTER_CELLS
) -> np.ndarray:
    """Probabilities [L] of a cluster's type.

    Parameters
    ----------
    probabilities, composition
        Of the labels for each cell [n, L], and their shares in the file [L].
    worth
        Cells of a cluster err together: more than so many count as so many.

    Examples
    --------
    >>> cells = np.array([[0.9, 0.1], [0.8, 0.2], [0.1, 0.9]])
    >>> cluster_probabilities(cells, np.array([0.5, 0.5])).argmax()
    np.int64(0)
    """
    scores = cluster_scores(probabilities, composition) * min(float(len(probabilities)), worth)
    raised = np.exp(scores - scores.max())
    return raised / raised.sum()


def clusters_of(groups: pd.Series) -> dict[str, np.ndarray]:
    """Positions of the cells of each cluster, by name in order of size; cells without a cluster are left out."""
    texts = groups.astype(object).where(groups.notna(), "").astype(str).to_numpy()
    names, sizes = np.unique(texts[texts != ""], return_counts=True)
    return {str(name): np.flatnonzero(texts == name) for name in names[np.argsort(-sizes, kind="stable")]}
