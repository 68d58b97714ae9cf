"""The doctor's report: what a file holds, in numbers, in JSON and as a card of a few lines."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from typing import Any

import numpy as np

from instructcell.coverage import Coverage, coverage_of
from instructcell.scale import Scale


@dataclass(frozen=True)
class DatasetReport:
    """What the doctor found in a file.

    Attributes
    ----------
    n_cells, n_genes
        Size of the chosen matrix.
    matrix
        "X", "raw.X" or "layers['name']".
    scale, target_sum, counts_recovered, scale_detail
        "counts", "log1p", "sqrt", "asinh", "linear" or "scaled"; the total cells were normalised to, where it shows;
        whether counts come back from the normalised values; and the whole verdict.
    species, id_type, gene_column
        "human" or "mouse"; kind of gene names; the column of `var` that held them (None: var_names).
    technology
        "UMI", "full-length" or "unknown".
    n_known_genes
        Genes of the file that the gene table knows.
    coverage, n_shared_genes
        Share and number of the model's genes that the file measured; None when no model genes were given.
    counts_coverage, marker_coverage, markers_lost
        Share of the cells' counts in genes of the model; share of the label markers that the file measured, and the
        cell types that lose more than half of theirs; None and empty when no model genes were given.
    mitochondrial_share
        Median share of a cell's counts in mitochondrial genes; None when the file has no such gene.
    n_empty_cells, n_nearly_empty_cells
        Cells without any count, and cells (among them the empty ones) with next to none, as in unfiltered droplets.
    deep_cell_share
        Share of the cells that are more than three times as deep as the median cell, as doublets are.
    n_duplicate_genes, n_merged_genes
        Gene names that repeat an earlier one, and names whose gene an earlier name means already: they are summed.
    n_duplicate_cells, n_identical_cells
        Cell names that repeat an earlier one, and cells whose every value equals that of an earlier cell.
    n_left_out_genes, left_out_share
        Genes of the other species in a file that mixes human and mouse, or features that are no genes (antibodies),
        and their share of the counts.
    median_genes_per_cell, median_counts_per_cell
        Depth; counts only where counts are there.
    warnings
        Sentences a user should read.
    evidence
        The numbers behind the verdicts.
    gene_symbols, gene_weights
        Human symbol of each gene of the chosen matrix, None where unknown; and its share of the counts.
    """

    n_cells: int
    n_genes: int
    matrix: str
    scale: str
    species: str
    id_type: str
    n_known_genes: int
    scale_detail: Scale
    gene_column: str | None = None
    target_sum: float | None = None
    counts_recovered: bool = False
    technology: str = "unknown"
    coverage: float | None = None
    n_shared_genes: int | None = None
    counts_coverage: float | None = None
    marker_coverage: float | None = None
    markers_lost: dict[str, list[str]] = field(default_factory=dict)
    mitochondrial_share: float | None = None
    n_empty_cells: int = 0
    n_nearly_empty_cells: int = 0
    deep_cell_share: float = 0.0
    n_duplicate_genes: int = 0
    n_merged_genes: int = 0
    n_duplicate_cells: int = 0
    n_identical_cells: int = 0
    n_left_out_genes: int = 0
    left_out_share: float = 0.0
    median_genes_per_cell: float = 0.0
    median_counts_per_cell: float | None = None
    warnings: tuple[str, ...] = ()
    evidence: dict[str, Any] = field(default_factory=dict)
    gene_symbols: tuple[str | None, ...] = field(default=(), repr=False)
    gene_weights: np.ndarray = field(default_factory=lambda: np.zeros(0), repr=False, compare=False)

    def with_genes(self, genes: Sequence[str], markers: Mapping[str, Sequence[str]] | None = None) -> DatasetReport:
        """The same report with the coverage of a model's genes, and of its label markers where they are given."""
        weights = self.gene_weights if len(self.gene_weights) else np.zeros(len(self.gene_symbols))
        found = coverage_of(self.gene_symbols, weights, genes, markers)
        earlier = set(self._coverage.warnings) if self.coverage is not None else set()
        return replace(
            self,
            n_shared_genes=found.n_shared,
            coverage=found.share,
            counts_coverage=found.counts_share,
            marker_coverage=found.marker_share,
            markers_lost=found.markers_lost,
            warnings=(*(warning for warning in self.warnings if warning not in earlier), *found.warnings),
        )

    @property
    def _coverage(self) -> Coverage:
        """The coverage that an earlier `with_genes` found."""
        share = self.counts_coverage if self.counts_coverage is not None else 1.0
        return Coverage(0, self.n_shared_genes or 0, share, self.marker_coverage, self.markers_lost)

    def to_dict(self) -> dict[str, Any]:
        """Plain values only, ready for JSON."""
        left_out = {"scale_detail", "gene_symbols", "gene_weights"}
        plain = {f.name: getattr(self, f.name) for f in fields(self) if f.name not in left_out}
        return plain | {
            "warnings": list(self.warnings),
            "scale_words": self.scale_detail.words,
            "exactness": self.scale_detail.exactness,
            "evidence": dict(self.evidence),
        }

    def to_markdown(self, title: str | None = None) -> str:
        """A dataset card of a few lines, for the chat and the terminal."""
        genes = f"{self.n_genes:,} genes ({self.n_known_genes:,} known, {self.id_type}"
        genes += f" in var[{self.gene_column!r}])" if self.gene_column else ")"
        exact = f" ({self.scale_detail.exactness})" if self.scale_detail.exactness else ""
        lines = [
            f"**{title or 'Dataset'}**: {self.n_cells:,} cells, {genes}",
            "",
            f"- species: {self.species}" + (" (through one-to-one human orthologs)" if self.species == "mouse" else ""),
            f"- matrix: {self.matrix}, {self.scale_detail.words}"
            + (f"; counts recovered{exact}" if self.counts_recovered else ""),
            f"- depth: {self.median_genes_per_cell:,.0f} genes per cell (median)"
            + (f", {self.median_counts_per_cell:,.0f} counts" if self.median_counts_per_cell is not None else "")
            + (f", {self.technology}" if self.technology != "unknown" else ""),
        ]
        if self.coverage is not None:
            of_counts = f", {self.counts_coverage:.0%} of the cells' counts" if self.counts_coverage is not None else ""
            lines.append(
                f"- coverage: {self.n_shared_genes:,} of the model's genes measured ({self.coverage:.0%}){of_counts}"
            )
        if self.mitochondrial_share is not None:
            lines.append(f"- mitochondrial: {self.mitochondrial_share:.1%} of counts (median)")
        lines += [f"- note: {warning}" for warning in self.warnings]
        return "\n".join(lines)
