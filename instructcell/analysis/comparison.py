"""Two groups of cells side by side: the genes that differ, in both directions, and what the tables say of them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd
import scipy.sparse as sp
from anndata import AnnData
from scipy import stats

from instructcell.analysis.measured import MeasuredCells, Rows, checked_rows, measured_cells
from instructcell.doctor import DatasetReport
from instructcell.errors import InstructCellError
from instructcell.genes import gene_card
from instructcell.retrieval.marker_table import load_marker_table

LEAST_CELLS = 3
LEAST_SHARE, LEAST_BEARERS = 0.05, 3  # a gene is tested that so many cells of either group have
SIGNIFICANT = 0.05  # adjusted p-value
TOP_GENES = 10  # of each direction, whose meaning is looked up
TOP_TYPES = 3  # cell types each direction points to
BLOCK_VALUES = 4_000_000  # of a dense block of genes
METHOD = "Wilcoxon rank-sum test, tie-corrected; p-values adjusted by Benjamini-Hochberg"


@dataclass(frozen=True)
class Comparison:
    """The difference between two groups of cells.

    Attributes
    ----------
    names, n_a, n_b
        What the groups are called and how many cells each has.
    table
        One row per tested gene, those higher in the first group first, then those higher in the second, each from the
        clearest difference on: `gene` (human symbol), `symbol` (as the file writes it), `higher_in`, `score` (z of the
        test, above zero where the first group is higher), `log2_fold_change` (of the first over the second),
        `p_adjusted`, `significant`, `share_a`, `share_b`, `mean_a`, `mean_b` (log(1 + counts per 10,000)).
    meaning
        What the gene table says of the clearest genes: `higher_in`, `gene`, `says`, `source`.
    types
        Cell types the clearest genes point to: `higher_in`, `cell_type`, `cl_id`, `score`, `genes`, `source`.
    method, tested
        The test, and how many genes were tested.
    """

    names: tuple[str, str]
    n_a: int
    n_b: int
    table: pd.DataFrame
    meaning: pd.DataFrame
    types: pd.DataFrame
    tested: int
    method: str = METHOD

    def top(self, group: str, n: int = TOP_GENES) -> pd.DataFrame:
        """The clearest significant genes that are higher in one of the two groups."""
        rows = self.table[(self.table["higher_in"] == group) & self.table["significant"]]
        return rows.head(n).reset_index(drop=True)

    @property
    def n_significant(self) -> int:
        """How many genes differ at an adjusted p-value below 0.05."""
        return int(self.table["significant"].sum())


def compare(
    adata: AnnData,
    a: Rows,
    b: Rows = None,
    *,
    names: tuple[str, str] = ("these cells", "the other cells"),
    report: DatasetReport | None = None,
    n_top: int = TOP_GENES,
) -> Comparison:
    """Compare two groups of cells gene by gene.

    Parameters
    ----------
    a, b
        Positions of the cells of each group, or masks over all cells; `b` None: all cells that are not in `a`.
    names
        What to call the groups.
    report
        What the doctor said of the file, to spare a second look.
    n_top
        Genes of each direction whose meaning is looked up.

    Raises
    ------
    InstructCellError
        A group has fewer than three cells, or a cell is in both.

    Examples
    --------
    >>> compare(adata, adata.obs.condition == "stim", adata.obs.condition == "ctrl").top("these cells")
    ... # doctest: +SKIP
    """
    first = np.unique(checked_rows(a, adata.n_obs, f"cells of {names[0]}"))
    rest = np.setdiff1d(np.arange(adata.n_obs), first) if b is None else np.asarray(b)
    if len(first) < LEAST_CELLS or rest.size < LEAST_CELLS:
        few, n = (names[0], len(first)) if len(first) < LEAST_CELLS else (names[1], rest.size)
        raise InstructCellError(f"found {n} cells in {few!r}, expected at least {LEAST_CELLS} to compare; choose more")
    second = np.unique(checked_rows(rest, adata.n_obs, f"cells of {names[1]}"))
    if len(second) < LEAST_CELLS:
        raise InstructCellError(
            f"found {len(second)} cells in {names[1]!r}, expected at least {LEAST_CELLS} to compare; choose more"
        )
    both = np.intersect1d(first, second)
    if len(both):
        raise InstructCellError(
            f"found {len(both):,} cells in both {names[0]!r} and {names[1]!r}, expected groups without common cells"
        )
    if names[0] == names[1]:
        raise InstructCellError(f"both groups are called {names[0]!r}; give two names")
    measured = measured_cells(adata, report, np.concatenate([first, second]))
    table = _differences(measured, len(first), names)
    meaning, types = _meanings(table, names, n_top)
    return Comparison(names, len(first), len(second), table, meaning, types, len(table))


def _differences(measured: MeasuredCells, n_a: int, names: tuple[str, str]) -> pd.DataFrame:
    """The test of every gene that enough cells have."""
    values = measured.log_expression
    here, there = values[:n_a], values[n_a:]
    bearers = [np.asarray(part.getnnz(axis=0)).ravel() for part in (here, there)]
    shares = [bearers[0] / n_a, bearers[1] / there.shape[0]]
    enough = [(n >= min(LEAST_BEARERS, part.shape[0])) & (share >= LEAST_SHARE)
              for n, share, part in zip(bearers, shares, (here, there), strict=True)]  # fmt: skip
    tested = np.flatnonzero(enough[0] | enough[1])
    if not len(tested):
        raise InstructCellError(
            f"found no gene that at least {LEAST_BEARERS} cells and {LEAST_SHARE:.0%} of either group have, "
            "expected some to compare; choose larger groups"
        )
    means = [np.asarray(part.mean(axis=0)).ravel() for part in (here, there)]
    score, adjusted = _rank_test(values[:, tested], n_a)
    fold = [np.expm1(mean[tested]) + 1e-2 for mean in means]  # a hundredth of a count per 10,000: no division by zero
    table = pd.DataFrame(
        {
            "gene": [measured.genes[at] for at in tested],
            "symbol": [measured.symbols[at] for at in tested],
            "higher_in": np.where(score >= 0, names[0], names[1]),
            "score": score,
            "log2_fold_change": np.log2(fold[0] / fold[1]),
            "p_adjusted": adjusted,
            "significant": adjusted < SIGNIFICANT,
            "share_a": shares[0][tested],
            "share_b": shares[1][tested],
            "mean_a": means[0][tested],
            "mean_b": means[1][tested],
        }
    )
    order = np.lexsort((table["gene"], -table["score"].abs(), table["score"] < 0))
    return table.iloc[order].reset_index(drop=True)


def _rank_test(values: sp.csr_matrix, n_a: int) -> tuple[np.ndarray, np.ndarray]:
    """z [M] and adjusted p [M] of the rank-sum test of the first `n_a` rows against the others.

    Equals scanpy's `rank_genes_groups(method="wilcoxon", tie_correct=True)`, which compiles code for twenty seconds
    when it is first called. The variance of the ranks holds the correction for ties.
    """
    by_column = values.tocsc()
    n, n_genes = values.shape
    size = max(1, BLOCK_VALUES // n)
    score = np.zeros(n_genes)
    for start in range(0, n_genes, size):
        ranks = stats.rankdata(by_column[:, start : start + size].toarray(), axis=0) - (n + 1) / 2
        spread = np.sqrt(n_a * (n - n_a) / (n * (n - 1)) * (ranks**2).sum(axis=0))
        above = ranks[:n_a].sum(axis=0)
        score[start : start + size] = np.divide(above, spread, out=np.zeros(len(above)), where=spread > 0)
    return score, stats.false_discovery_control(2 * stats.norm.sf(np.abs(score)))


def _meanings(table: pd.DataFrame, names: tuple[str, str], n_top: int) -> tuple[pd.DataFrame, pd.DataFrame]:
    """What the gene table and the marker table say of the clearest genes of each direction."""
    says: list[dict[str, object]] = []
    points: list[dict[str, object]] = []
    markers = load_marker_table()
    for name in names:
        genes = table.loc[(table["higher_in"] == name) & table["significant"], "gene"].head(n_top).tolist()
        for gene in genes:
            card = _card(gene)
            if card is not None:
                says.append({"higher_in": name, "gene": gene, "says": card[0], "source": card[1]})
        for row in markers.types_marked_by(genes, TOP_TYPES).itertuples() if genes else ():
            source = str(markers.of_type(str(row.cl_id), 1)["source"].iloc[0])
            points.append(
                {"higher_in": name, "cell_type": row.cell_type, "cl_id": row.cl_id, "score": float(row.score),  # type: ignore[arg-type]
                 "genes": row.genes, "source": source}
            )  # fmt: skip
    return (
        pd.DataFrame(says, columns=["higher_in", "gene", "says", "source"]),
        pd.DataFrame(points, columns=["higher_in", "cell_type", "cl_id", "score", "genes", "source"]),
    )


def _card(gene: str) -> tuple[str, str] | None:
    """What the gene table says of a gene and its source; None for a name it does not have."""
    try:
        card = gene_card(gene)
    except InstructCellError:
        return None
    return (card.text, card.source) if card.symbol == gene else None
