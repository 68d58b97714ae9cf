"""What can be looked up: one short passage per marker set, gene and cell type definition, each with its source."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

import pandas as pd

Kind = Literal["markers", "gene", "ontology"]
KINDS: tuple[Kind, ...] = ("markers", "gene", "ontology")
GENE_SOURCE = "HGNC, Gene Ontology"
ONTOLOGY_SOURCE = "Cell Ontology"
MARKERS_SHOWN = 20
LONGEST_KEY = 240  # characters; what a passage is about stands in its first words


@dataclass(frozen=True)
class Passage:
    """One entry of the index.

    Attributes
    ----------
    kind
        "markers" (the markers of a cell type), "gene" (what a gene does) or "ontology" (what a cell type is).
    id
        Cell Ontology id, or gene symbol.
    title, text, source
        What it is about, what it says, who says so.
    score
        Nearness to the query, -1..1; 1 for what the query names.
    genes
        Human symbols it names, the best marker first.
    """

    kind: Kind
    id: str
    title: str
    text: str
    source: str
    score: float = 0.0
    genes: tuple[str, ...] = ()

    @property
    def key(self) -> str:
        """The beginning of the text, which is what the passage is found by."""
        return self.text if len(self.text) <= LONGEST_KEY else self.text[:LONGEST_KEY].rsplit(" ", 1)[0]


def build_passages(markers: pd.DataFrame, genes: pd.DataFrame, ontology: pd.DataFrame) -> list[Passage]:
    """All passages, grouped by kind in the order of `KINDS`, sorted by id within a kind.

    Parameters
    ----------
    markers, genes, ontology
        The tables ``markers.tsv.gz``, ``genes.tsv.gz`` and ``ontology.tsv.gz`` of the resources, as text.
    """
    return [*_marker_passages(markers), *_gene_passages(genes, set(markers["gene"])), *_definition_passages(ontology)]


@lru_cache(maxsize=1)
def load_passages() -> tuple[Passage, ...]:
    """The passages of the shipped tables, built once per process."""
    from instructcell.resources import read_table

    return tuple(build_passages(*(read_table(f"{name}.tsv.gz") for name in ("markers", "genes", "ontology"))))


def digest(passages: Iterable[Passage]) -> str:
    """Hex sha256 of what the passages are found by: an index belongs to exactly these."""
    found = hashlib.sha256()
    for passage in passages:
        found.update(f"{passage.kind}\t{passage.id}\t{passage.key}\n".encode())
    return found.hexdigest()


def _marker_passages(markers: pd.DataFrame) -> list[Passage]:
    passages = []
    for cl_id, rows in markers.groupby("cl_id", sort=True):
        genes, name = tuple(rows["gene"][:MARKERS_SHOWN]), rows["name"].iloc[0]
        source = _with_count(rows["source"].iloc[0], int(rows["n_sources"].iloc[0]))
        passages.append(
            Passage("markers", str(cl_id), name, f"Marker genes of {name}: {', '.join(genes)}.", source, genes=genes)
        )
    return passages


def _gene_passages(genes: pd.DataFrame, marking: set[str]) -> list[Passage]:
    """Protein-coding genes, and others that mark a type or have a known function."""
    told = (genes["biotype"] == "protein_coding") | (genes["function"] != "") | genes["symbol"].isin(marking)
    return [gene_passage(row) for row in genes[told].sort_values("symbol").to_dict("records")]


def gene_passage(row: dict[str, str]) -> Passage:
    """The passage of one row of the gene table."""
    symbol, name, function = row["symbol"], row["name"], row["function"]
    says = f"{symbol} ({name}): {function}." if function else f"{symbol} ({name}): no function is recorded."
    return Passage("gene", symbol, f"{symbol} ({name})", says, GENE_SOURCE, genes=(symbol,))


def _definition_passages(ontology: pd.DataFrame) -> list[Passage]:
    passages = []
    for row in ontology[ontology["definition"] != ""].sort_values("id").to_dict("records"):
        text = f"{row['name']}: {row['definition']}"
        passages.append(Passage("ontology", row["id"], row["name"], text, f"{ONTOLOGY_SOURCE} {row['id']}"))
    return passages


def _with_count(source: str, n_sources: int) -> str:
    return f"{source}, {n_sources} source{'' if n_sources == 1 else 's'}"


def kind_ranges(passages: Sequence[Passage]) -> dict[Kind, range]:
    """Where each kind stands among passages that are grouped by kind."""
    ranges: dict[Kind, range] = {}
    for kind in KINDS:
        at = [position for position, passage in enumerate(passages) if passage.kind == kind]
        if at:
            ranges[kind] = range(at[0], at[-1] + 1)
    return ranges
