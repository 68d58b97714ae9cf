"""What can be asked for, and a sentence that is understood: an intent and its slots."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from instructcell.drugs import DrugMention
from instructcell.ellipsis import Rank
from instructcell.labels import Label
from instructcell.toolbox.arguments import ALL, Cells
from instructcell.toolbox.cells import CLUSTER_COLUMNS, OWN_CLUSTERS

ANNOTATE, SUBSET, GENERATE, DRUG = "annotate", "annotate_subset", "generate", "drug"
MARKERS, GENE, DESCRIBE, DOWNLOAD = "markers", "gene", "describe", "download"
HELP, SMALL_TALK, OUT_OF_SCOPE = "help", "small_talk", "out_of_scope"
QUALITY, CLUSTER, EXPLAIN, FIND, EXPRESSION = "quality", "cluster", "explain", "find", "expression"
COMPARE, REAL, RANK, COMPARE_DRUG = "compare", "compare_real", "rank_drugs", "compare_drug"
SELECT, MAP, UNDO, RESTART = "select", "map", "undo", "restart"
COUNT, DRUG_FACTS, EMBED = "count", "drug_facts", "embed"
INTENTS = (
    ANNOTATE, SUBSET, GENERATE, DRUG, MARKERS, GENE, DESCRIBE, DOWNLOAD, HELP, SMALL_TALK, OUT_OF_SCOPE,
    QUALITY, CLUSTER, EXPLAIN, FIND, EXPRESSION, COMPARE, REAL, RANK, COMPARE_DRUG, SELECT, MAP, UNDO, RESTART,
    COUNT, DRUG_FACTS, EMBED,
)  # fmt: skip


MOST_NAMED = 6  # genes that a talk keeps in mind


@dataclass(frozen=True)
class Selection:
    """Cells that a sentence points at: their positions, how to call them, and the same as a tool takes it."""

    rows: np.ndarray
    name: str
    cells: Cells = ALL


@dataclass(frozen=True)
class Request:
    """An understood sentence; slots that it does not fill are None.

    `wavers` holds the second intent when the first is not clear; `unknown_type` what was named but is not known;
    `drugs` every drug that was named, known or not; `labels` the cell types to choose among, when there are several.
    """

    text: str
    intent: str
    wavers: str | None = None
    cell_type: Label | None = None
    unknown_type: str | None = None
    labels: tuple[str, ...] = ()
    drugs: tuple[DrugMention, ...] = ()
    gene: str | None = None
    n: int | None = None
    library_size: float | None = None
    seed: int | None = None
    species: str | None = None
    tissue: str | None = None
    selection: Selection | None = None
    type_name: str = ""  # of the checkpoint, else of the ontology
    types: tuple[str, ...] = ()  # all types that are named
    genes: tuple[str, ...] = ()
    cells: Cells | None = None  # what the sentence says of which cells, types aside
    groups: tuple[Cells, ...] = ()  # two groups to compare
    values: tuple[Cells, ...] = ()  # groups of the file that are named
    points_back: bool = False  # "them", "those": the cells that were talked about
    points_here: bool = False  # "these": the chosen cells, else all
    like: bool = False  # "like these"
    on_map: bool = False
    why_not: str = ""
    column: str = ""  # a column of obs to group or colour by
    file: str = ""
    replaces: Cells | None = None  # what it stands for: "cluster 2 instead of cluster 1"
    rank: Rank | None = None  # which group by size is asked about
    fragment: bool = False  # names and no question: "and cluster 3?"

    @property
    def knows_drug(self) -> bool:
        """Whether a drug is named that is known."""
        return any(mention.drug is not None for mention in self.drugs)


@dataclass(frozen=True)
class Topic:
    """What was talked of last: genes, drugs, types, two groups that were held against each other, and what groups are.

    `kind` is "cluster" or "type" by which of them was named last; a bare number is a cluster after talk of clusters.
    `named` holds the genes of the last requests, the earliest first, for "all three"; `found` those that a comparison
    told of; `column` the one that cells were grouped by.
    """

    genes: tuple[str, ...] = ()
    drugs: tuple[DrugMention, ...] = ()
    groups: tuple[Cells, ...] = ()
    types: tuple[str, ...] = ()
    kind: str = ""
    named: tuple[str, ...] = ()
    found: tuple[str, ...] = ()
    column: str = ""

    def after(self, request: Request) -> Topic:
        """The topic once a request was answered."""
        known = tuple(mention for mention in request.drugs if mention.drug is not None)
        several = tuple(Cells(cell_type=name) for name in request.types) if len(request.types) > 1 else self.groups
        return Topic(
            request.genes or self.genes,
            known or self.drugs,
            request.groups if len(request.groups) > 1 else several,
            request.types or self.types,
            _kind(request) or self.kind,
            tuple(dict.fromkeys((*(gene for gene in self.named if gene not in request.genes), *request.genes)))[
                -MOST_NAMED:
            ],
            self.found,
            request.column or self.column,
        )


def _kind(request: Request) -> str:
    """Whether a request is about clusters or about types; "" where it is about neither."""
    cells = [one for one in (request.cells, *request.groups) if one is not None]
    columns = {request.column, *(one.column for one in cells)} - {""}
    if request.intent == CLUSTER or any(one.cluster for one in cells) or columns & {OWN_CLUSTERS, *CLUSTER_COLUMNS}:
        return "cluster"
    if request.type_name or request.types or request.intent in (ANNOTATE, GENERATE):
        return "type"
    return ""
