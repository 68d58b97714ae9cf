"""Evidence for an answer: the markers of a cell type that these very cells express, and a sentence that cites them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from scipy import sparse

from instructcell.errors import GeneAlignmentError
from instructcell.retrieval.marker_table import MarkerTable, find_cell_type, load_marker_table

COLUMNS = [
    "gene",
    "symbol",
    "share_of_cells",
    "mean",
    "background_share",
    "background_mean",
    "weight",
    "specificity",
    "score",
    "n_sources",
    "source",
]
CELL_SCALE = 1e4  # means are per this many counts of a cell
BACKGROUND_FLOOR = 0.1  # added to both means before they are compared, in counts per CELL_SCALE
CANDIDATES = 30  # markers of a type that are looked at, by weight


@dataclass(frozen=True)
class MarkerEvidence:
    """What the expression of a group of cells says about one cell type.

    Attributes
    ----------
    cell_type, cl_id
        The type whose markers were looked at.
    marked_as
        Name of the type the markers belong to: the same, or the narrowest broader type that has any.
    n_cells
        Cells in the group.
    table
        Markers these cells express, best first: ``gene`` (human symbol), ``symbol`` (as the file writes it),
        ``share_of_cells`` (count > 0), ``mean`` (counts per 10,000), ``background_share`` and ``background_mean`` (NaN
        without other cells), ``weight``, ``specificity``, ``score``, ``n_sources``, ``source``.
    not_expressed
        Markers that were measured but are not expressed here, or no more than in the other cells.
    not_measured
        Markers the file does not have: nothing can be said about them.
    """

    cell_type: str
    cl_id: str
    marked_as: str
    n_cells: int
    table: pd.DataFrame
    not_expressed: tuple[str, ...]
    not_measured: tuple[str, ...]

    @property
    def supported(self) -> bool:
        """Whether these cells express any marker of the type."""
        return not self.table.empty

    def sentence(self, n: int = 3) -> str:
        """One sentence that cites the `n` best markers with their share of the cells and the source.

        Examples
        --------
        "INS in 98 % of these cells, IAPP in 91 % (markers of type B pancreatic cell: cellconsensus 1.2.0, 42 sources)."
        """
        if self.table.empty:
            return self._without_evidence()
        shown = self.table.head(n)
        claims = _claims(shown) if self.n_cells > 1 else _single_cell_claim(shown["symbol"].tolist())
        return f"{claims} ({self._citation(shown.iloc[0])})."

    def _citation(self, row: pd.Series) -> str:
        sources = int(row["n_sources"])
        return f"markers of {self.marked_as}: {row['source']}, {sources} source{'' if sources == 1 else 's'}"

    def _without_evidence(self) -> str:
        if not self.not_expressed and self.not_measured:
            absent = ", ".join(self.not_measured[:5])
            return f"The file measures none of the markers of {self.marked_as} (looked for {absent})."
        if self.not_expressed:
            absent = ", ".join(self.not_expressed[:3])
            return f"No marker of {self.marked_as} stands out in these cells (looked for {absent})."
        return f"No source lists markers of {self.cell_type}."


def expressed_markers(
    counts: sparse.spmatrix | np.ndarray,
    genes: Sequence[str],
    measured: np.ndarray,
    cell_type: str,
    *,
    background: sparse.spmatrix | np.ndarray | None = None,
    gene_names: Mapping[str, str] | None = None,
    n: int = 10,
) -> pd.DataFrame:
    """Markers of a cell type that these cells truly express, best first; the table of `marker_evidence`."""
    evidence = marker_evidence(counts, genes, measured, cell_type, background=background, gene_names=gene_names)
    return evidence.table.head(n)


def marker_evidence(
    counts: sparse.spmatrix | np.ndarray,
    genes: Sequence[str],
    measured: np.ndarray,
    cell_type: str,
    *,
    background: sparse.spmatrix | np.ndarray | None = None,
    gene_names: Mapping[str, str] | None = None,
    min_share: float = 0.2,
    table: MarkerTable | None = None,
) -> MarkerEvidence:
    """Look for the markers of a cell type in a group of cells.

    A marker counts as expressed when at least `min_share` of the cells have it and, where other cells of the same file
    are given, its mean is higher here than there: what floats through the whole sample (INS in islets) is no evidence.

    Parameters
    ----------
    counts
        Cells of the group, [N, G], non-negative on a linear scale.
    genes, measured
        Human symbol of each column, and whether the file has the gene, bool [G]; one it lacks is never claimed.
    cell_type
        Name or Cell Ontology id of the type that was predicted.
    background
        The other cells of the same file, [M, G].
    gene_names
        Human symbol -> the file's own name ("INS" -> "Ins2"), for what is shown.
    min_share
        Smallest share of cells, 0..1.
    table
        The shipped one by default.

    Raises
    ------
    GeneAlignmentError
        If the shapes of `counts`, `genes` and `measured` differ.
    LabelError
        If the cell type is unknown.
    """
    _check_shapes(counts, genes, measured, background)
    table = load_marker_table() if table is None else table
    cl_id = cell_type if cell_type in table else find_cell_type(cell_type)
    known = table.of_type(table.owner(cl_id) or cl_id, CANDIDATES)
    known["specificity"] = [table.specificity(gene) for gene in known["gene"]]
    column = {gene: at for at, gene in enumerate(genes) if measured[at]}
    found = _expression(known[known["gene"].isin(column)].reset_index(drop=True), counts, background, column)
    found["symbol"] = [(gene_names or {}).get(gene, gene) for gene in found["gene"]]
    shown = found[_is_expressed(found, min_share, compared=background is not None)]
    return MarkerEvidence(
        cell_type=cell_type,
        cl_id=cl_id,
        marked_as=str(known["cell_type"].iloc[0]) if len(known) else cell_type,
        n_cells=counts.shape[0],
        table=shown.sort_values(["score", "gene"], ascending=[False, True])[COLUMNS].reset_index(drop=True),
        not_expressed=tuple(found.loc[~found["gene"].isin(shown["gene"]), "symbol"]),
        not_measured=tuple(gene for gene in known["gene"] if gene not in column),
    )


def _check_shapes(
    counts: sparse.spmatrix | np.ndarray,
    genes: Sequence[str],
    measured: np.ndarray,
    background: sparse.spmatrix | np.ndarray | None,
) -> None:
    widths = {"counts": counts.shape[1], "genes": len(genes), "measured": len(measured)}
    if background is not None:
        widths["background"] = background.shape[1]
    if len(set(widths.values())) > 1:
        found = ", ".join(f"{name} {width}" for name, width in widths.items())
        raise GeneAlignmentError(
            f"the number of genes differs: {found}; give all of them over the same genes in the same order."
        )


def _expression(
    known: pd.DataFrame,
    counts: sparse.spmatrix | np.ndarray,
    background: sparse.spmatrix | np.ndarray | None,
    column: Mapping[str, int],
) -> pd.DataFrame:
    """The markers with their share, mean, background and score."""
    found = known.copy()
    at = np.array([column[gene] for gene in known["gene"]], dtype=np.int64)
    found["share_of_cells"], found["mean"] = _share_and_mean(counts, at)
    found["background_share"], found["background_mean"] = np.nan, np.nan
    contrast = np.ones(len(found))
    if background is not None and background.shape[0]:
        found["background_share"], found["background_mean"] = _share_and_mean(background, at)
        here, there = found["mean"] + BACKGROUND_FLOOR, found["background_mean"] + BACKGROUND_FLOOR
        contrast = (here / (here + there)).to_numpy()
    best = found["weight"].max() if len(found) else 1.0
    found["score"] = found["weight"] / best * found["specificity"] * contrast * found["share_of_cells"]
    return found


def _share_and_mean(counts: sparse.spmatrix | np.ndarray, at: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Share of cells with the gene, and mean per 10,000 counts of a cell: two arrays over the columns `at`."""
    matrix = sparse.csr_matrix(counts, dtype=np.float64)
    if matrix.shape[0] == 0 or len(at) == 0:
        return np.zeros(len(at)), np.zeros(len(at))
    library = np.asarray(matrix.sum(axis=1)).ravel()
    scale = np.divide(CELL_SCALE, library, out=np.zeros_like(library), where=library > 0)
    picked = matrix[:, at]
    share = np.asarray((picked > 0).sum(axis=0)).ravel() / matrix.shape[0]
    return share, np.asarray(picked.T @ scale).ravel() / matrix.shape[0]


def _is_expressed(found: pd.DataFrame, min_share: float, *, compared: bool) -> pd.Series:
    enough = found["share_of_cells"] >= min_share
    more = found["mean"] > found["background_mean"]
    return enough & (more | found["background_mean"].isna()) if compared else enough


def percent(share: float, *, decimals: int = 1) -> str:
    """ "91.3 %"; never 100 % for less than all, never 0 % for some."""
    step = 10.0**-decimals
    shown = np.clip(round(100 * share, decimals), step if share > 0 else 0, 100 if share >= 1 else 100 - step)
    return f"{shown:.{decimals}f} %"


def _claims(shown: pd.DataFrame) -> str:
    """ "INS in 98 % of these cells, IAPP in 91 %"."""
    pairs = zip(shown["symbol"], shown["share_of_cells"], strict=True)
    first, *rest = [f"{symbol} in {percent(share, decimals=0)}" for symbol, share in pairs]
    return ", ".join([f"{first} of these cells", *rest])


def _single_cell_claim(symbols: list[str]) -> str:
    listed = symbols[0] if len(symbols) == 1 else f"{', '.join(symbols[:-1])} and {symbols[-1]}"
    return f"This cell expresses {listed}"
