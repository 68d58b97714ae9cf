"""How much of a model a file measures: its genes, the cells' counts that lie in them, and the markers that are lost."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache

import numpy as np

from instructcell.resources import read_table

LOW = 0.6  # share of counts or of markers below which a report warns
N_MARKERS = 10  # heaviest markers of a type that stand for it


@dataclass(frozen=True)
class Coverage:
    """What a file measures of a model's genes.

    Attributes
    ----------
    n_genes, n_shared
        Genes of the model, and how many of them the file measured.
    counts_share
        Share of the cells' counts (linear scale, in a sample of cells) that lie in genes of the model, 0..1.
    marker_share
        Share of the label markers that the file measured, 0..1; None when there are none.
    markers_lost
        Cell type -> its markers that the file lacks, for types that lose more than half of them, worst first.
    """

    n_genes: int
    n_shared: int
    counts_share: float
    marker_share: float | None = None
    markers_lost: dict[str, list[str]] = field(default_factory=dict)

    @property
    def share(self) -> float:
        """Share of the model's genes that the file measured, 0..1."""
        return self.n_shared / max(self.n_genes, 1)

    @property
    def warnings(self) -> list[str]:
        """What a user should know before trusting an answer; empty when coverage is good."""
        said = []
        if self.counts_share < LOW:
            said.append(
                f"only {self.counts_share:.0%} of the cells' counts lie in genes that the model knows: answers are "
                "less certain"
            )
        if self.marker_share is not None and self.marker_share < LOW:
            worst = [f"{name} ({', '.join(genes[:4])})" for name, genes in list(self.markers_lost.items())[:4]]
            more = len(self.markers_lost) - len(worst)
            others = f" and {more} more types" if more > 0 else ""
            hit = f"; most are lost for {', '.join(worst)}{others}" if worst else ""
            said.append(f"the file measured only {self.marker_share:.0%} of the markers of the model's cell types{hit}")
        return said


def coverage_of(
    symbols: Sequence[str | None],
    weights: np.ndarray,
    genes: Sequence[str],
    markers: Mapping[str, Sequence[str]] | None = None,
) -> Coverage:
    """Compare the genes of a file with those of a model.

    Parameters
    ----------
    symbols
        Human symbol of each gene of the file [n], None where unknown.
    weights
        Share of the cells' counts in each gene of the file [n].
    genes
        Human symbols of the model's genes.
    markers
        Cell type -> its marker genes, as `label_markers` gives them; those of all types of the label map for None.

    Examples
    --------
    >>> coverage_of(["INS", None], np.array([0.75, 0.25]), ["INS", "GCG"]).counts_share
    0.75
    """
    known, there = set(genes), {symbol for symbol in symbols if symbol is not None}
    in_model = np.fromiter((symbol in known for symbol in symbols), dtype=bool, count=len(symbols))
    counts_share = float(np.asarray(weights)[in_model].sum())
    markers = known_markers() if markers is None else markers
    if not markers:
        return Coverage(len(known), len(known & there), counts_share)
    wanted = {gene for of_type in markers.values() for gene in of_type}
    lost = {name: [gene for gene in of_type if gene not in there] for name, of_type in markers.items()}
    share_lost = {name: len(genes) / len(markers[name]) for name, genes in lost.items() if markers[name]}
    worst = sorted((name for name in share_lost if share_lost[name] > 0.5), key=lambda name: -share_lost[name])
    return Coverage(
        len(known),
        len(known & there),
        counts_share,
        marker_share=len(wanted & there) / len(wanted),
        markers_lost={name: lost[name] for name in worst},
    )


@lru_cache(maxsize=1)
def known_markers() -> dict[str, list[str]]:
    """The markers of every cell type of the label map, which the shipped checkpoint knows."""
    return label_markers(read_table("label_map.tsv")["id"])


def label_markers(label_ids: Iterable[str], n: int = N_MARKERS) -> dict[str, list[str]]:
    """The heaviest markers of cell types, by name; types without markers are left out.

    Parameters
    ----------
    label_ids
        Cell Ontology ids ("CL:0000169").
    n
        How many markers stand for a type.

    Examples
    --------
    >>> "INS" in label_markers(["CL:0000169"])["type B pancreatic cell"]
    True
    """
    wanted = set(label_ids)
    table = read_table("markers.tsv.gz")
    chosen = table[table["cl_id"].isin(wanted)]
    return {str(name): genes.tolist()[:n] for name, genes in chosen.groupby("name", sort=False)["gene"]}
