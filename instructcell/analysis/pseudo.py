"""Pseudo-cells beside the real cells of a file: distance, zeros, spread and markers, each with what real cells reach.

MMD as in the InstructCell paper: in the principal components of the real cells' log-normalised expression, with a
Gaussian kernel of several widths. The floor is the distance between two halves of the real cells of a type.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
import scipy.sparse as sp
from anndata import AnnData
from sklearn.decomposition import PCA
from sklearn.metrics.pairwise import euclidean_distances, rbf_kernel

from instructcell.analysis.measured import MeasuredCells, groups_of, measured_cells
from instructcell.doctor import DatasetReport
from instructcell.errors import InstructCellError
from instructcell.tasks import CELL_TYPE

LEAST_CELLS = 10  # of a type, generated and real
MOST_CELLS = 2000  # real cells that are looked at
N_COMPONENTS, N_DRAWS, N_BINS = 50, 5, 12
N_MARKERS = 50  # of each type, by log fold change in the real cells
LEAST_SHARE = 0.05  # of the real cells of a type that express a marker
BANDWIDTHS = (0.5, 1.0, 2.0)  # times the median distance


@dataclass(frozen=True)
class Realness:
    """How far pseudo-cells look like real ones.

    Attributes
    ----------
    table
        One row per type: `cell_type`, `generated`, `real` (cells), `mmd` (generated to real), `mmd_floor` (one half of
        the real cells to the other), `mmd_ratio`, `zero_fraction`, `zero_fraction_real`, `marker_correlation` (of the
        log fold changes of the type's markers against the other real cells), `marker_correlation_floor` (of half of
        the real cells), `median_counts`, `median_counts_real` (NaN where the file holds no counts).
    curve
        Zero fraction and variance over bins of genes by their mean: `cells` ("real" or "generated"), `mean`,
        `zero_fraction`, `variance`; of counts, or of log expression where the file holds no counts.
    variance_correlation
        Between the genes' log variances, generated and real.
    n_genes
        Genes that were compared: measured in the file and known to the checkpoint.
    not_compared
        Types without enough cells on both sides, each with the reason.
    """

    table: pd.DataFrame
    curve: pd.DataFrame
    variance_correlation: float
    n_genes: int
    not_compared: dict[str, str]

    @property
    def mmd_ratio(self) -> float:
        """Mean distance to real cells over the mean distance between real cells; 1 would be perfect."""
        return float(self.table["mmd"].mean() / max(self.table["mmd_floor"].mean(), 1e-12))


def compare_with_real(
    generated: AnnData,
    real: AnnData,
    *,
    real_types: str | Sequence[object] | pd.Series = CELL_TYPE,
    report: DatasetReport | None = None,
    seed: int = 0,
) -> Realness:
    """Compare pseudo-cells with the real cells of a file, type by type.

    Parameters
    ----------
    generated
        What `ic.tl.generate` returned, or several of them together: counts over human symbols, obs `cell_type`.
    real
        The file's cells.
    real_types
        Column of obs with the types of the real cells, or one value per cell.
    report
        What the doctor said of the real cells, to spare a second look.
    seed
        Of the draws of real cells.

    Raises
    ------
    InstructCellError
        The pseudo-cells have no types, or no type has enough cells on both sides.

    Examples
    --------
    >>> compare_with_real(pseudo, adata).table[["cell_type", "mmd_ratio"]]  # doctest: +SKIP
    """
    if "cell_type" not in generated.obs:
        raise InstructCellError("found no obs 'cell_type' in the pseudo-cells; generate them with ic.tl.generate")
    if isinstance(real_types, str) and real_types == CELL_TYPE and CELL_TYPE not in real.obs:
        raise InstructCellError("the real cells have no types yet; run ic.tl.annotate(adata) first, or name a column")
    kinds = groups_of(real, real_types, np.arange(real.n_obs))
    assert kinds is not None
    made = generated.obs["cell_type"].astype(str).to_numpy()
    types, not_compared = _types(made, kinds.to_numpy())
    rows = _sample(kinds.to_numpy(), types, seed)
    measured = measured_cells(real, report, rows)
    genes = [gene for gene in map(str, generated.var_names) if gene in measured.column]
    if len(genes) < 2:
        raise InstructCellError(f"found {len(genes)} genes of the pseudo-cells in the file, expected at least 2")
    there = _Side.of(measured.counts[:, [measured.column[gene] for gene in genes]], kinds.to_numpy()[rows])
    here = _Side.of(sp.csr_matrix(generated[:, genes].X), made)
    space = _Space(there.expression, seed)
    table = pd.DataFrame([_judge(name, here, there, space, measured, seed) for name in types])
    curve, correlation = _curves(here.only(types), there.only(types), counts=measured.are_counts)
    return Realness(table, curve, correlation, len(genes), not_compared)


def _types(made: np.ndarray, real: np.ndarray) -> tuple[list[str], dict[str, str]]:
    """Types with enough cells on both sides, and the reason for the others."""
    types, why = [], {}
    for name in dict.fromkeys(made):
        n_made, n_real = int((made == name).sum()), int((real == name).sum())
        if n_made >= LEAST_CELLS and n_real >= 2 * LEAST_CELLS:
            types.append(str(name))
        else:
            why[str(name)] = f"{n_made} generated and {n_real} real cells, expected {LEAST_CELLS} and {2 * LEAST_CELLS}"
    if not types:
        listed = "; ".join(f"{name}: {reason}" for name, reason in why.items())
        raise InstructCellError(f"no type has enough cells to compare ({listed}); generate more, or other types")
    return types, why


def _sample(kinds: np.ndarray, types: Sequence[str], seed: int) -> np.ndarray:
    """Positions of real cells to look at: all, or a draw that keeps every compared type, in the file's order."""
    if len(kinds) <= MOST_CELLS:
        return np.arange(len(kinds))
    rng = np.random.default_rng(seed)
    each = MOST_CELLS // (2 * len(types))
    kept = [rng.permutation(np.flatnonzero(kinds == name))[:each] for name in types]
    others = rng.permutation(np.flatnonzero(~np.isin(kinds, list(types))))[: MOST_CELLS - sum(map(len, kept))]
    return np.sort(np.concatenate([*kept, others]))


@dataclass(frozen=True)
class _Side:
    """Cells of one side over the compared genes: counts [N, G], log(1 + counts per 10,000) [N, G] and types [N]."""

    counts: sp.csr_matrix
    expression: np.ndarray
    types: np.ndarray

    @classmethod
    def of(cls, counts: sp.csr_matrix, types: np.ndarray) -> _Side:
        dense = counts.toarray().astype(np.float32)
        total = np.maximum(dense.sum(axis=1, keepdims=True), 1e-12)
        return cls(counts, np.log1p(dense / total * 1e4), types)

    def only(self, types: Sequence[str]) -> _Side:
        kept = np.flatnonzero(np.isin(self.types, list(types)))
        return _Side(self.counts[kept], self.expression[kept], self.types[kept])


class _Space:
    """Principal components of the real cells."""

    def __init__(self, expression: np.ndarray, seed: int) -> None:
        n_components = min(N_COMPONENTS, len(expression) - 1, expression.shape[1])
        self._pca = PCA(n_components, svd_solver="randomized", random_state=seed).fit(expression)

    def place(self, expression: np.ndarray) -> np.ndarray:
        return self._pca.transform(expression)


def _judge(
    name: str, here: _Side, there: _Side, space: _Space, measured: MeasuredCells, seed: int
) -> dict[str, object]:
    """The figures of one type."""
    rng = np.random.default_rng(seed)
    made, real = here.expression[here.types == name], there.expression[there.types == name]
    others = there.expression[there.types != name]
    made_points, real_points = space.place(made), space.place(real)
    size = min(len(made), len(real) // 2)
    mmd, floor = np.zeros(N_DRAWS), np.zeros(N_DRAWS)
    agree, agree_floor = np.zeros(N_DRAWS), np.zeros(N_DRAWS)
    change, markers = _markers(real, others)
    for draw in range(N_DRAWS):  # equally many cells on every side: the estimate depends on their number
        drawn, halves = rng.permutation(len(made))[:size], rng.permutation(len(real))
        one, other = halves[:size], halves[size : 2 * size]
        mmd[draw] = maximum_mean_discrepancy(made_points[drawn], real_points[one])
        floor[draw] = maximum_mean_discrepancy(real_points[other], real_points[one])
        agree[draw] = _correlation(change, _change(made[drawn], others), markers)
        agree_floor[draw] = _correlation(_change(real[one], others), _change(real[other], others), markers)
    total = np.asarray(here.counts.sum(axis=1)).ravel()[here.types == name]
    total_real = np.asarray(there.counts.sum(axis=1)).ravel()[there.types == name]
    return {
        "cell_type": name,
        "generated": len(made),
        "real": len(real),
        "mmd": float(mmd.mean()),
        "mmd_floor": float(floor.mean()),
        "mmd_ratio": float(mmd.mean() / max(floor.mean(), 1e-12)),
        "zero_fraction": float((made == 0).mean()),
        "zero_fraction_real": float((real == 0).mean()),
        "marker_correlation": float(agree.mean()),
        "marker_correlation_floor": float(agree_floor.mean()),
        "median_counts": float(np.median(total)),
        "median_counts_real": float(np.median(total_real)) if measured.are_counts else float("nan"),
    }


def maximum_mean_discrepancy(a: np.ndarray, b: np.ndarray, bandwidths: tuple[float, ...] = BANDWIDTHS) -> float:
    """MMD (not squared) between two sets of points, Gaussian kernels around the median distance in `b`.

    The biased estimate of Gretton et al. 2012, which is never negative.
    """
    distances = euclidean_distances(b)
    median = float(np.median(distances[np.triu_indices(len(b), 1)])) if len(b) > 1 else 1.0
    squared = 0.0
    for factor in bandwidths:
        gamma = 1.0 / (2.0 * (factor * max(median, 1e-12)) ** 2)
        squared += (
            rbf_kernel(a, a, gamma).mean() + rbf_kernel(b, b, gamma).mean() - 2.0 * rbf_kernel(a, b, gamma).mean()
        )
    return float(np.sqrt(max(squared / len(bandwidths), 0.0)))


def _change(cells: np.ndarray, others: np.ndarray) -> np.ndarray:
    """Mean log expression of cells minus that of the other real cells [G]."""
    return cells.mean(axis=0) - (others.mean(axis=0) if len(others) else 0.0)


def _markers(real: np.ndarray, others: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Changes of a type in the real cells [G], and the columns of the genes that change most either way."""
    change = _change(real, others)
    expressed = np.maximum((real > 0).mean(axis=0), (others > 0).mean(axis=0) if len(others) else 0.0) >= LEAST_SHARE
    strength = np.where(expressed, np.abs(change), -1.0)
    best = np.argsort(-strength, kind="stable")[:N_MARKERS]
    return change, best[strength[best] >= 0]


def _correlation(a: np.ndarray, b: np.ndarray, genes: np.ndarray) -> float:
    if len(genes) < 2 or not a[genes].std() or not b[genes].std():
        return 0.0
    return float(np.corrcoef(a[genes], b[genes])[0, 1])


def _curves(here: _Side, there: _Side, *, counts: bool) -> tuple[pd.DataFrame, float]:
    """Zeros and variance over bins of equally many genes, and the correlation of the genes' log variances."""
    statistics = {name: _statistics(side, counts=counts) for name, side in (("real", there), ("generated", here))}
    parts = []
    for name, found in statistics.items():
        seen = found[found["mean"] > 0].sort_values("mean", kind="stable")
        bins = np.minimum(np.arange(len(seen)) * N_BINS // max(len(seen), 1), N_BINS - 1)
        parts.append(seen.groupby(bins).mean().assign(cells=name))
    real, made = statistics["real"]["variance"].to_numpy(), statistics["generated"]["variance"].to_numpy()
    both = np.flatnonzero((real > 0) & (made > 0))
    correlation = _correlation(np.log(np.maximum(real, 1e-30)), np.log(np.maximum(made, 1e-30)), both)
    curve = pd.concat(parts, ignore_index=True)[["cells", "mean", "zero_fraction", "variance"]]
    return curve, correlation


def _statistics(side: _Side, *, counts: bool) -> pd.DataFrame:
    """Mean, zero fraction and variance of each gene."""
    values = side.counts.toarray().astype(np.float64) if counts else side.expression.astype(np.float64)
    return pd.DataFrame(
        {"mean": values.mean(axis=0), "zero_fraction": (values == 0).mean(axis=0), "variance": values.var(axis=0)}
    )
