"""Marker genes: which genes mark a cell type, and which cell types a set of genes points to."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from collections.abc import Set as AbstractSet
from functools import lru_cache

import numpy as np
import pandas as pd

from instructcell.errors import LabelError

COLUMNS = ["cell_type", "cl_id", "gene", "weight", "n_sources", "source"]
FEW_SOURCES = 10  # a type described by this many sources counts half as much as one described by very many
NARROWER = 0.75  # a broad type gives way to a narrower one that reaches this share of its score,
SAME_EVIDENCE = (
    0.4  # and this share of its sources: what is known of the broad type is then mostly known of the narrower
)
WELL_KNOWN = 20  # sources from which the markers of a broad type may speak for the narrower ones without markers
TELLING = 0.5  # narrowness from which they may


class MarkerTable:
    """Weighted marker genes of cell types.

    Parameters
    ----------
    table
        One row per (cell type, gene) with the columns ``cell_type``, ``cl_id``, ``gene``, ``weight`` (float; larger is
        better supported, comparable within a type), ``n_sources`` (int; sources that describe the type) and ``source``.
    broader
        Id of a type -> the ids of all types above it.
    """

    def __init__(self, table: pd.DataFrame, broader: Mapping[str, AbstractSet[str]] | None = None) -> None:
        self._broader = dict(broader or {})
        ordered = table[COLUMNS].sort_values(["cl_id", "weight", "gene"], ascending=[True, False, True])
        self.table = ordered.reset_index(drop=True)
        self._rows = {str(cl_id): rows for cl_id, rows in self.table.groupby("cl_id").indices.items()}
        self._rows_of_gene = {str(gene): rows for gene, rows in self.table.groupby("gene").indices.items()}
        self._strength = _strength(self.table)
        self._cl_ids = self.table["cl_id"].tolist()
        self._sources = self.table.groupby("cl_id")["n_sources"].first().to_dict()
        self._narrowness = self._measure_narrowness()

    @property
    def cl_ids(self) -> list[str]:
        """Ids of the cell types that have markers, sorted."""
        return sorted(self._rows)

    def __contains__(self, cl_id: str) -> bool:
        return cl_id in self._rows

    def of_type(self, cl_id: str, n: int | None = None) -> pd.DataFrame:
        """Markers of one cell type, best first; no rows if the type has none."""
        rows = self._rows.get(cl_id, np.zeros(0, dtype=np.int64))
        return self.table.iloc[rows[:n]].reset_index(drop=True)

    def owner(self, cl_id: str) -> str | None:
        """The type whose markers speak for a type: itself, or its narrowest broader type that is known well enough.

        None if it has no markers and what lies above is described by few sources or says little ("epithelial cell").
        """
        if cl_id in self:
            return cl_id
        telling = [
            above
            for above in self._broader.get(cl_id, ())
            if self._sources.get(above, 0) >= WELL_KNOWN and self._narrowness[above] >= TELLING
        ]
        return min(telling, key=lambda above: (-len(self._broader.get(above, ())), above), default=None)

    def specificity(self, gene: str) -> float:
        """How much a marker narrows down the type, 0 (marks every type) to 1 (marks one)."""
        bearers = len(self._rows_of_gene.get(gene, ()))
        return 1.0 - float(np.log(max(bearers, 1)) / np.log(max(len(self._rows), 2)))

    def types_marked_by(self, genes: Sequence[str], n: int | None = None) -> pd.DataFrame:
        """Cell types that these genes point to, best first.

        A broad type ("lymphocyte") is left out when a narrower one ("B cell") is pointed to nearly as well.

        Parameters
        ----------
        genes
            Human gene symbols.
        n
            How many types to return; all by default.

        Returns
        -------
        DataFrame
            ``cl_id``, ``cell_type``, ``score`` (0..1: the specificity-weighted mean of each gene's weight relative to
            the type's best marker, less for types with few sources and for broad ones) and ``genes`` (those that mark
            the type, ", " between).
        """
        points: dict[str, float] = {}
        hits: dict[str, list[str]] = {}
        weights = {gene: self.specificity(gene) for gene in dict.fromkeys(genes)}
        for gene, weight in weights.items():
            for row in self._rows_of_gene.get(gene, ()):
                cl_id = self._cl_ids[row]
                strength = self._strength[row] * self._narrowness[cl_id]
                points[cl_id] = points.get(cl_id, 0.0) + weight * strength
                hits.setdefault(cl_id, []).append(gene)
        total = sum(weights.values()) or 1.0
        best = sorted(self._narrowest(points), key=lambda cl_id: (-points[cl_id], cl_id))[:n]
        rows = [(cl_id, self._name(cl_id), points[cl_id] / total, ", ".join(hits[cl_id])) for cl_id in best]
        return pd.DataFrame(rows, columns=["cl_id", "cell_type", "score", "genes"])

    def _measure_narrowness(self) -> dict[str, float]:
        """1 for a type with no type below it, towards 0 for one above all."""
        below = dict.fromkeys(self._rows, 0)
        for cl_id in self._rows:
            for above in self._broader.get(cl_id, ()):
                if above in below:
                    below[above] += 1
        most = np.log(len(self._rows) + 1)
        return {cl_id: float(np.sqrt(1 - np.log(1 + count) / most)) for cl_id, count in below.items()}

    def _narrowest(self, points: Mapping[str, float]) -> set[str]:
        """The types that no narrower type stands in for."""
        replaced = {
            above
            for cl_id, score in points.items()
            for above in self._broader.get(cl_id, ())
            if score >= NARROWER * points.get(above, float("inf"))
            and self._sources[cl_id] >= SAME_EVIDENCE * self._sources[above]
        }
        return set(points) - replaced

    def _name(self, cl_id: str) -> str:
        return str(self.table.at[self._rows[cl_id][0], "cell_type"])


def _strength(table: pd.DataFrame) -> np.ndarray:
    """Weight of each row relative to the best of its type, less where few sources describe the type: [rows], 0..1."""
    best = table.groupby("cl_id")["weight"].transform("max").to_numpy()
    sources = table["n_sources"].to_numpy(dtype=float)
    return table["weight"].to_numpy() / best * sources / (sources + FEW_SOURCES)


def markers(
    query: str | Sequence[str] | None = None, *, genes: str | Sequence[str] | None = None, n: int = 20
) -> pd.DataFrame:
    """Marker genes of a cell type, or the cell types that genes mark.

    Parameters
    ----------
    query
        A cell type (name, synonym, lab name, plural or Cell Ontology id) or several.
    genes
        Gene symbols (a list, or one string with commas between); each may be an alias. Ignored when `query` is given.
    n
        For `query`, how many genes of each type; for `genes`, how many types.

    Returns
    -------
    DataFrame
        ``cell_type``, ``cl_id``, ``gene``, ``weight`` (support summed over the sources; comparable within one type),
        ``n_sources`` (sources that describe the type), ``source``. Best first.

    Raises
    ------
    LabelError
        If a cell type is unknown or has no markers, or no gene is known.

    Examples
    --------
    >>> markers("delta cell", n=3)["gene"].tolist()[0]
    'SST'
    >>> markers(genes=["GZMB", "PRF1"], n=5)["gene"].unique().tolist()
    ['GZMB', 'PRF1']
    """
    if query is not None:
        asked = [query] if isinstance(query, str) else list(query)
        return pd.concat([_markers_of(name, n) for name in asked], ignore_index=True)
    if genes is None:
        raise LabelError(
            "neither a cell type nor genes were given; name a cell type ('delta cell') or genes (GZMB,PRF1)."
        )
    return _types_of(genes.replace(";", ",").split(",") if isinstance(genes, str) else genes, n)


def _markers_of(name: str, n: int) -> pd.DataFrame:
    cl_id = find_cell_type(name)
    table = load_marker_table()
    owner = table.owner(cl_id)
    found = table.of_type(owner or cl_id, n)
    if owner is None:
        raise LabelError(
            f"no source lists markers of {name!r} ({cl_id}) or of a broader type; ask for a neighbouring cell type."
        )
    return found


def _types_of(names: Sequence[str], n: int) -> pd.DataFrame:
    from instructcell.retrieval.names import load_name_book

    book = load_name_book()
    known = [symbol for name in names if (symbol := book.gene(name))]
    if not known:
        raise LabelError(
            f"none of the genes {', '.join(map(repr, names))} is known; give human gene symbols such as GZMB,PRF1."
        )
    table = load_marker_table()
    types = table.types_marked_by(known, n)
    rows = [marked[marked["gene"].isin(known)] for marked in map(table.of_type, types["cl_id"])]
    return pd.concat(rows, ignore_index=True) if rows else table.table.iloc[:0].copy()


def find_cell_type(name: str) -> str:
    """Cell Ontology id that a name stands for.

    Raises
    ------
    LabelError
        If no cell type has that name.
    """
    from instructcell.retrieval.names import load_name_book

    book = load_name_book()
    found = book.cell_type(name)
    if found is None:
        raise LabelError(
            f"no cell type is called {name!r}; expected a name, synonym or id of the Cell Ontology, such as "
            "'pancreatic D cell', 'delta cell' or CL:0000173."
        )
    return found


@lru_cache(maxsize=1)
def load_marker_table() -> MarkerTable:
    """The shipped marker table, read once per process."""
    from instructcell.labels import load_ontology
    from instructcell.resources import read_table

    broader = {id: term.distances.keys() for id, term in load_ontology().terms.items()}
    table = read_table("markers.tsv.gz").rename(columns={"name": "cell_type"})
    return MarkerTable(table.astype({"weight": float, "n_sources": int}), broader)
