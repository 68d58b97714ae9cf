"""Finding cells by what is said of them: free text read as cell types and genes, or genes alone.

A text is read by the names in it first and by its meaning second: the sentence encoder finds the cell type definitions,
gene programmes (`programmes`) and gene descriptions nearest to it. Cells whose label is one of the types are taken by
their label; a label that is only broader, or that overlaps in the ontology ("cytotoxic T cell" and a CD8 T cell),
leaves the choice among its cells to the marker genes; and without any such label the genes alone decide.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache

import numpy as np
import pandas as pd
from anndata import AnnData

from instructcell.analysis.gene_expression import expression_values
from instructcell.analysis.measured import MeasuredCells, Rows, checked_rows, measured_cells
from instructcell.analysis.programmes import meant_by
from instructcell.doctor import DatasetReport
from instructcell.errors import GeneAlignmentError, InstructCellError
from instructcell.labels import load_ontology
from instructcell.retrieval.index import MarkerIndex, load_index
from instructcell.retrieval.marker_table import MarkerTable, load_marker_table
from instructcell.retrieval.names import load_name_book
from instructcell.retrieval.passages import Kind, Passage
from instructcell.tasks import CELL_TYPE, CELL_TYPE_ID, CONFIDENCE, UNKNOWN, AnnotationResult

MEANT, SURELY_MEANT = 0.57, 0.85  # cosine of a definition with a text that names no gene, and with one that does
NEAR_THE_BEST = 0.1  # cosine below the nearest definition, within which a further one is meant as well
MOST_TYPES, MOST_GENES, MARKERS_OF_A_TYPE = 4, 6, 10
MARKER_WEIGHT = 0.5  # of a type's best marker, where a gene that is named weighs 1
SURE = 0.5  # probability of being one of the types, from which a cell is taken by its label
LEAST_SCORE = 0.15  # of the genes: below it no cell is taken, wherever the threshold lies
LEAST_MEASURED = 0.25  # of the genes' weight, that a file must have measured for genes alone to decide
LEAST_LEVEL = 1.0  # log(1 + counts per 10,000): a gene that no cell has more of does not count as high in any
MAKES = re.compile(r"\b(?:make|produce|secrete|release)s?\s+([\w -]{3,40})", re.IGNORECASE)
BY_LABEL, BY_BOTH, BY_GENES = "annotation", "annotation and genes", "genes"
NAMED = "named "  # how the reason begins for what the text itself names
READ_COLUMNS = ["kind", "name", "id", "weight", "why", "source"]


@dataclass(frozen=True)
class Found:
    """Cells that fit what was asked for.

    Attributes
    ----------
    asked
        The text, or the genes.
    rows
        Positions of the cells that fit, the best first.
    table
        One row per cell that was looked at, in the order of the file: `score` (0..1), `label_score` (probability of
        being one of the types; NaN without labels), `gene_score` (NaN without genes), `chosen`, and for `find_by_gene`
        a column for each gene with its log(1 + counts per 10,000).
    read_as
        What the text was read as: `kind` ("cell type" or "gene"), `name`, `id`, `weight`, `why`, `source`.
    how
        "annotation", "annotation and genes" or "genes": what the choice rests on.
    threshold
        Of the genes' score, NaN where the labels alone decided.
    not_measured
        Genes that were meant but that the file does not have.
    """

    asked: str
    rows: np.ndarray
    table: pd.DataFrame
    read_as: pd.DataFrame
    how: str
    threshold: float
    not_measured: tuple[str, ...] = ()

    @property
    def n_found(self) -> int:
        """How many cells fit."""
        return len(self.rows)

    @property
    def share(self) -> float:
        """Share of the cells that were looked at."""
        return len(self.rows) / len(self.table)


def find_by_gene(
    adata: AnnData,
    genes: str | Sequence[str],
    *,
    above: float = 0.0,
    all: bool = True,
    rows: Rows = None,
    report: DatasetReport | None = None,
) -> Found:
    """Cells that express genes.

    Parameters
    ----------
    genes
        Symbols, aliases, Ensembl ids or mouse symbols.
    above
        A cell has a gene when its log(1 + counts per 10,000) is above this; 0: any count.
    all
        Whether a cell must have all of the genes, or any.
    rows
        Positions of the cells to look at; all for None.

    Raises
    ------
    GeneAlignmentError
        None of the genes was measured, or one of several that a cell must all have.
    InstructCellError
        No cell was chosen.

    Examples
    --------
    >>> find_by_gene(adata, ["CD3E", "CD8A"]).n_found  # doctest: +SKIP
    """
    measured = measured_cells(adata, report, rows)
    found = measured.find(genes)
    lacking = [*found.not_measured, *found.unknown]
    if all and lacking:
        raise GeneAlignmentError(
            f"the file did not measure {', '.join(lacking)}, so no cell can be said to have all of the genes; "
            f"ask for {', '.join(found.genes)} alone"
        )
    values = expression_values(measured, found)
    has = values > above
    chosen = (has.all(axis=1) if all else has.any(axis=1)).to_numpy()
    level = values / np.maximum(values.max(axis=0), LEAST_LEVEL)
    score = (level.min(axis=1) if all else level.max(axis=1)).to_numpy()
    given = {gene: name for name, gene in found.read_as.items()}
    read = [_read("gene", gene, gene, 1.0, f"{NAMED}{given[gene]!r}", "the question") for gene in found.genes]
    table = pd.DataFrame({"score": score, "label_score": np.nan, "gene_score": score, "chosen": chosen}, values.index)
    return Found(
        asked=", ".join(found.genes),
        rows=_best_first(measured.rows, score, chosen),
        table=table.join(values),
        read_as=pd.DataFrame(read, columns=READ_COLUMNS),
        how=BY_GENES,
        threshold=float(above),
        not_measured=found.not_measured,
    )


def find_by_text(
    adata: AnnData,
    text: str,
    *,
    annotation: AnnotationResult | None = None,
    rows: Rows = None,
    report: DatasetReport | None = None,
    index: MarkerIndex | None = None,
) -> Found:
    """Cells that a text describes: "cytotoxic T cells", "cells that secrete insulin", "dividing cells".

    Parameters
    ----------
    text
        A few words or a sentence.
    annotation
        Labels of all cells; those that `ic.tl.annotate` wrote into obs for None, and genes alone without either.
    rows
        Positions of the cells to look at; all for None.
    index
        What the text is looked up in; the shipped index for None.

    Raises
    ------
    InstructCellError
        The text describes no cell type and no gene that the tables know, or none that this file could show.

    Examples
    --------
    >>> find_by_text(adata, "cells that secrete insulin").read_as  # doctest: +SKIP
    """
    chosen = checked_rows(rows, adata.n_obs)
    types, named = read_text(text, index or load_index())
    if types.empty and (named["why"].str.startswith(NAMED)).all():
        return replace(find_by_gene(adata, list(named["id"]), rows=rows, report=report), asked=text)
    labels = _labels(adata, annotation, chosen)
    weights = label_weights(types, labels[["id", "name"]].drop_duplicates() if labels is not None else None)
    measured = measured_cells(adata, report, None if rows is None else chosen)
    genes = gene_weights(types, named)
    present = {gene: weight for gene, weight in genes["weight"].items() if gene in measured.column}
    lacking = tuple(str(gene) for gene in genes.index if gene not in measured.column)
    gene_score = _gene_score(measured, present)
    label_score = np.full(len(chosen), np.nan) if labels is None else _label_score(labels, weights)
    too_few = sum(present.values()) < LEAST_MEASURED * genes["weight"].sum() or not present
    if too_few and not (weights > 0).any():
        raise InstructCellError(
            f"{_words(types, genes)} was understood, but no cell here is labelled so and the file measures "
            f"{len(present)} of the {len(genes)} genes; ask for a type or a gene of this file"
        )
    how, taken, threshold = _choose(label_score, gene_score, weights)
    score = gene_score if how == BY_GENES else _joined(label_score, gene_score)
    table = pd.DataFrame(
        {"score": score, "label_score": label_score, "gene_score": gene_score, "chosen": taken}, measured.cells
    )
    return Found(
        asked=text,
        rows=_best_first(chosen, score, taken),
        table=table,
        read_as=_read_table(types, genes, present),
        how=how,
        threshold=threshold,
        not_measured=lacking,
    )


# ---- from words to cell types and genes


def read_text(text: str, index: MarkerIndex) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Cell types and genes that a text names or, where it names none, is nearest to in meaning.

    Returns two tables with the columns of `Found.read_as`.

    Raises
    ------
    InstructCellError
        Nothing is named and nothing is near enough.
    """
    book = index.names or load_name_book()
    ontology = load_ontology()
    types = [
        _read("cell type", ontology.name(m.id), m.id, 1.0, f"{NAMED}{m.written!r}", f"Cell Ontology {m.id}")
        for m in book.cell_types(text)
    ]
    genes = [_read("gene", m.id, m.id, 1.0, f"{NAMED}{m.written!r}", "the question") for m in book.genes(text)]
    programme = None if types or genes or MAKES.search(text) else meant_by(text)
    near = [] if types else _nearest(index, text, "ontology", MOST_TYPES, SURELY_MEANT if genes else MEANT)
    if programme is not None and (not near or programme[1] >= near[0].score):
        why = f"{programme[0].name}, near in meaning ({programme[1]:.2f})"
        genes = [_read("gene", gene, gene, 1.0, why, programme[0].source) for gene in programme[0].genes]
        near = []
    types += [_read("cell type", one.title, one.id, one.score, _near(one), one.source) for one in near]
    if not types and not genes:
        found = _nearest(index, text, "gene", MOST_GENES, MEANT)
        genes = [_read("gene", one.id, one.id, one.score, _near(one), one.source) for one in found]
    if not types and not genes:
        raise InstructCellError(
            f"found no cell type, gene or function in {text.strip()[:80]!r}; expected a description such as "
            "'cytotoxic T cells', 'cells that secrete insulin' or 'cells with GZMB'"
        )
    return pd.DataFrame(types, columns=READ_COLUMNS), pd.DataFrame(genes, columns=READ_COLUMNS)


def _nearest(index: MarkerIndex, text: str, kind: Kind, n: int, least: float) -> list[Passage]:
    """The passages of a kind that a text may mean: near enough, and nearly as near as the nearest."""
    made = MAKES.search(text)
    queries = [text, f"{made.group(1)} secreting cell"] if made and kind == "ontology" else [text]
    found: dict[str, Passage] = {}
    for query in queries:
        for passage in index.nearest(query, n, kind):
            if passage.id not in found or passage.score > found[passage.id].score:
                found[passage.id] = passage
    near = sorted(found.values(), key=lambda passage: -passage.score)[:n]
    return [one for one in near if one.score >= max(least, near[0].score - NEAR_THE_BEST)]


def _near(passage: Passage) -> str:
    return f"near in meaning ({passage.score:.2f})"


def label_weights(types: pd.DataFrame, labels: pd.DataFrame | None) -> pd.Series:
    """How well each label fits the types, by name: the type's weight at or below it, half of it above or beside it."""
    if labels is None:
        return pd.Series(dtype=float)
    found = {}
    for label in labels.itertuples():
        fits = [row.weight * _relation(str(label.id), str(row.id)) for row in types.itertuples()]
        found[str(label.name)] = max(fits, default=0.0)
    return pd.Series(found, dtype=float)


@lru_cache(maxsize=4096)
def _relation(label: str, cell_type: str) -> float:
    """1 where every cell of the label is of the type, 0.5 where some may be, 0 where none is."""
    ontology = load_ontology()
    if label not in ontology or cell_type not in ontology:
        return 0.0
    name = f" {ontology.name(cell_type)}"

    def is_one(id: str) -> bool:  # the ontology leaves out that a "CD8-positive, alpha-beta cytotoxic T cell" is one
        return ontology.is_a(id, cell_type) or ontology.name(id).endswith(name)

    if is_one(label):
        return 1.0
    some = ontology.is_a(cell_type, label)
    return 0.5 if some or any(is_one(id) for id, term in ontology.terms.items() if label in term.distances) else 0.0


def gene_weights(types: pd.DataFrame, named: pd.DataFrame, table: MarkerTable | None = None) -> pd.DataFrame:
    """Genes to look at, with the columns of `Found.read_as` and indexed by symbol: those named, then markers."""
    table = table or load_marker_table()
    rows = {str(row["id"]): dict(row) for row in named.to_dict("records")}
    for kind in types.to_dict("records"):
        owner = table.owner(str(kind["id"]))
        markers = table.of_type(owner, 3 * MARKERS_OF_A_TYPE) if owner else table.of_type("")
        strength = [w * table.specificity(gene) for gene, w in zip(markers["gene"], markers["weight"], strict=True)]
        order = np.argsort(-np.asarray(strength), kind="stable")[:MARKERS_OF_A_TYPE]
        for at in order:
            marker, best = markers.iloc[at], strength[order[0]] or 1.0
            weight = float(MARKER_WEIGHT * kind["weight"] * strength[at] / best)
            if weight > rows.get(marker["gene"], {}).get("weight", 0.0):
                why = f"marker of {marker['cell_type']}"
                rows[marker["gene"]] = _read("gene", marker["gene"], marker["gene"], weight, why, marker["source"])
    frame = pd.DataFrame(list(rows.values()), columns=READ_COLUMNS)
    return frame.set_index(frame["id"].rename("gene")).sort_values("weight", ascending=False, kind="stable")


def _read(kind: str, name: str, id: str, weight: float, why: str, source: str) -> dict[str, object]:
    return {"kind": kind, "name": name, "id": id, "weight": float(weight), "why": why, "source": source}


def _read_table(types: pd.DataFrame, genes: pd.DataFrame, present: Mapping[str, float]) -> pd.DataFrame:
    """What was read and can be seen in this file: the types, then the genes that were measured."""
    seen = genes[genes.index.isin(list(present))]
    parts = [part for part in (types, seen) if len(part)]
    return pd.concat(parts, ignore_index=True) if parts else types


def _words(types: pd.DataFrame, genes: pd.DataFrame) -> str:
    return ", ".join([*types["name"], *genes["name"]][:3])


# ---- from types and genes to cells


def _labels(adata: AnnData, annotation: AnnotationResult | None, rows: np.ndarray) -> pd.DataFrame | None:
    """Label, id and probability of the chosen cells with those of the runner-up, or None where nothing is labelled."""
    if annotation is not None:
        ids = {label.name: label.id for label in annotation.checkpoint.labels}
        table = annotation.table.reindex(adata.obs_names[rows])
        if table["best_guess"].isna().any():
            raise InstructCellError(
                "the annotation lacks some of the cells, expected all that are looked at; annotate all cells first"
            )
        given = dict(zip(table["cell_type"], table["cell_type_id"], strict=True))
        id_of = {**ids, **{name: id for name, id in given.items() if id}}
        frame = table.rename(columns={"best_guess": "name", "confidence": "p", "runner_up_probability": "p_next"})
        frame = frame.assign(id=[id_of.get(name, "") for name in frame["name"]])
        return frame.assign(next=frame["runner_up"])[["name", "id", "p", "next", "p_next"]]
    if CELL_TYPE not in adata.obs:
        return None
    obs = adata.obs.iloc[rows]
    sure = obs[CONFIDENCE].to_numpy(float) if CONFIDENCE in obs else np.ones(len(obs))
    named = obs[CELL_TYPE].astype(str)
    ids_of = obs[CELL_TYPE_ID].astype(str) if CELL_TYPE_ID in obs else pd.Series("", index=obs.index)
    p = np.where(named == UNKNOWN, 0.0, sure)
    return pd.DataFrame({"name": named, "id": ids_of, "p": p, "next": "", "p_next": 0.0}, index=obs.index)


def _label_score(labels: pd.DataFrame, weights: pd.Series) -> np.ndarray:
    """Probability of being one of the types [N], by the best guess and the runner-up."""
    first, second = (labels[name].map(weights).fillna(0.0).to_numpy(float) for name in ("name", "next"))
    return np.clip(first * labels["p"].to_numpy(float) + second * labels["p_next"].to_numpy(float), 0.0, 1.0)


def _gene_score(measured: MeasuredCells, weights: Mapping[str, float]) -> np.ndarray:
    """Weighted mean over genes of how high each stands in a cell, 0..1 [N]; NaN without genes."""
    if not weights:
        return np.full(measured.n_cells, np.nan)
    columns = np.array([measured.column[gene] for gene in weights])
    values = measured.log_expression[:, columns].toarray()
    top = np.array([np.quantile(v[v > 0], 0.95) if (v > 0).any() else 0.0 for v in values.T])
    level = np.clip(values / np.maximum(top, LEAST_LEVEL), 0.0, 1.0)
    weight = np.array(list(weights.values()))
    return level @ weight / weight.sum()


def _choose(label_score: np.ndarray, gene_score: np.ndarray, weights: pd.Series) -> tuple[str, np.ndarray, float]:
    """How cells are chosen, which are [N] bool, and the genes' threshold."""
    threshold = max(_two_groups(gene_score), LEAST_SCORE) if np.isfinite(gene_score).all() else float("nan")
    full = weights.max() if len(weights) else 0.0
    fits = label_score >= SURE * full
    if full > SURE and fits.any():  # a label that is one of the types
        return BY_LABEL, fits, float("nan")
    high = gene_score >= threshold if np.isfinite(threshold) else np.ones(len(gene_score), bool)
    if full > 0 and fits.any():
        return BY_BOTH, fits & high, threshold
    return BY_GENES, high, threshold


def _joined(label_score: np.ndarray, gene_score: np.ndarray) -> np.ndarray:
    """Labels first, genes to order those that are equally labelled."""
    return label_score if not np.isfinite(gene_score).all() else 0.7 * label_score + 0.3 * gene_score


def _two_groups(scores: np.ndarray) -> float:
    """The threshold that splits scores into two groups of least spread (Otsu 1979)."""
    ordered = np.sort(scores)
    n = len(ordered)
    if n < 2 or ordered[0] == ordered[-1]:
        return float(ordered[-1]) if n else 0.0
    below = np.cumsum(ordered)[:-1] / np.arange(1, n)
    above = (ordered.sum() - np.cumsum(ordered)[:-1]) / np.arange(n - 1, 0, -1)
    share = np.arange(1, n) / n
    between = np.where(ordered[1:] > ordered[:-1], share * (1 - share) * (above - below) ** 2, -1.0)
    at = int(np.argmax(between))
    return float((ordered[at] + ordered[at + 1]) / 2)


def _best_first(rows: np.ndarray, score: np.ndarray, chosen: np.ndarray) -> np.ndarray:
    """The chosen positions, the highest score first."""
    order = np.argsort(-score, kind="stable")
    return rows[order[chosen[order]]]
