"""The input doctor: which matrix of a file to use, its scale and its genes, each verdict with its evidence."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, fields, replace
from typing import Any

import numpy as np
import pandas as pd
import scipy.sparse as sp
from anndata import AnnData

from instructcell.errors import MatrixError
from instructcell.genes import GeneResolver, ResolvedGenes
from instructcell.matrix import Matrix, Survey, matrices, matrix_named, survey
from instructcell.scale import Scale, log_hint_of, per_gene_scaled, recognise_scale, to_linear

# Columns of `var` where files keep the names that var_names lack, best known first.
GENE_COLUMNS = (
    "gene_symbols", "gene_symbol", "gene_name", "gene_names", "feature_name", "symbol", "symbols", "hgnc_symbol",
    "gene_short_name", "name", "gene", "genes", "gene_ids", "gene_id", "ensembl_id", "ensembl", "ensembl_gene_id",
    "feature_id", "feature_ids", "_index", "index",
)  # fmt: skip
COUNT_NAMES = ("counts", "raw_counts", "count", "umi", "umis", "raw", "X_raw", "raw_count")
NOT_EXPRESSION = ("unspliced", "ambiguous", "velocity", "variance", "spanning", "mask", "fit_", "pval", "zscore")


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
        "counts", "log1p", "linear" or "scaled"; the total cells were normalised to, where it shows; whether counts come
        back from the normalised values; and the whole verdict.
    species, id_type, gene_column
        "human" or "mouse"; kind of gene names; the column of `var` that held them (None: var_names).
    n_known_genes
        Genes of the file that the gene table knows.
    coverage, n_shared_genes
        Share and number of the model's genes that the file measured; None when no model genes were given.
    mitochondrial_share
        Median share of a cell's counts in mitochondrial genes; None when the file has no such gene.
    n_empty_cells, n_duplicate_genes, n_duplicate_cells
        Cells without any count, gene names and cell names that repeat an earlier one.
    median_genes_per_cell, median_counts_per_cell
        Depth; counts only where counts are there.
    warnings
        Sentences a user should read.
    evidence
        The numbers behind the verdicts.
    gene_symbols
        Human symbol of each gene of the chosen matrix, None where unknown.
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
    coverage: float | None = None
    n_shared_genes: int | None = None
    mitochondrial_share: float | None = None
    n_empty_cells: int = 0
    n_duplicate_genes: int = 0
    n_duplicate_cells: int = 0
    median_genes_per_cell: float = 0.0
    median_counts_per_cell: float | None = None
    warnings: tuple[str, ...] = ()
    evidence: dict[str, Any] = field(default_factory=dict)
    gene_symbols: tuple[str | None, ...] = field(default=(), repr=False)

    def with_genes(self, genes: Sequence[str]) -> DatasetReport:
        """The same report with the coverage of a model's genes."""
        shared = len(set(self.gene_symbols) & set(genes))
        return replace(self, n_shared_genes=shared, coverage=shared / max(len(genes), 1))

    def to_dict(self) -> dict[str, Any]:
        """Plain values only, ready for JSON."""
        left_out = {"scale_detail", "gene_symbols"}
        plain = {f.name: getattr(self, f.name) for f in fields(self) if f.name not in left_out}
        return plain | {
            "warnings": list(self.warnings),
            "scale_words": self.scale_detail.words,
            "evidence": dict(self.evidence),
        }

    def to_markdown(self, title: str | None = None) -> str:
        """A dataset card of a few lines, for the chat and the terminal."""
        genes = f"{self.n_genes:,} genes ({self.n_known_genes:,} known, {self.id_type}"
        genes += f" in var[{self.gene_column!r}])" if self.gene_column else ")"
        lines = [
            f"**{title or 'Dataset'}**: {self.n_cells:,} cells, {genes}",
            "",
            f"- species: {self.species}" + (" (through one-to-one human orthologs)" if self.species == "mouse" else ""),
            f"- matrix: {self.matrix}, {self.scale_detail.words}"
            + ("; counts recovered" if self.counts_recovered else ""),
            f"- depth: {self.median_genes_per_cell:,.0f} genes per cell (median)"
            + (f", {self.median_counts_per_cell:,.0f} counts" if self.median_counts_per_cell is not None else ""),
        ]
        if self.coverage is not None:
            lines.append(f"- coverage: {self.n_shared_genes:,} of the model's genes measured ({self.coverage:.0%})")
        if self.mitochondrial_share is not None:
            lines.append(f"- mitochondrial: {self.mitochondrial_share:.1%} of counts (median)")
        lines += [f"- note: {warning}" for warning in self.warnings]
        return "\n".join(lines)


def inspect(
    adata: AnnData,
    *,
    layer: str | None = None,
    species: str | None = None,
    gene_column: str | None = None,
    genes: Sequence[str] | None = None,
) -> DatasetReport:
    """Find the matrix to use and say what it holds; nothing in `adata` is changed.

    Parameters
    ----------
    adata
        Cells by genes.
    layer
        Matrix to use instead of the doctor's choice: "X", "raw" or a layer's name.
    species
        "human" or "mouse" instead of the doctor's verdict.
    gene_column
        Column of `var` that holds the gene names, instead of the doctor's choice.
    genes
        The model's genes (human symbols); with them the report tells the coverage.

    Returns
    -------
    DatasetReport
        Verdicts with their evidence.

    Raises
    ------
    MatrixError
        No matrix can be used: no cells, no genes, all zero, NaN or infinite, negative.

    Examples
    --------
    >>> import numpy as np, anndata
    >>> adata = anndata.AnnData(np.array([[3.0, 0, 1], [0, 5, 2]]))
    >>> adata.var_names = ["INS", "GCG", "SST"]
    >>> inspect(adata).scale
    'counts'
    """
    if adata.n_obs == 0 or (adata.n_vars == 0 and adata.raw is None):
        raise MatrixError(
            f"The file holds {adata.n_obs:,} cells and {adata.n_vars:,} genes; expected at least one of each. "
            "Check the filters that wrote it."
        )
    matrix, found, scale, verdicts = _choose(adata, layer)
    column, resolved = _gene_names(matrix.var, species, gene_column)
    sample = to_linear(matrix.sample(), scale)
    mitochondrial = _mitochondrial_share(sample, matrix.var.index, resolved.symbols)
    counts_there = scale.kind == "counts" or scale.counts_recovered
    depth = np.asarray(sample.sum(axis=1)).ravel() if scale.counts_recovered else found.totals
    report = DatasetReport(
        n_cells=matrix.shape[0],
        n_genes=matrix.shape[1],
        matrix=matrix.name,
        scale=scale.kind,
        scale_detail=scale,
        target_sum=scale.target_sum,
        counts_recovered=scale.counts_recovered,
        species=resolved.species,
        id_type=resolved.id_type,
        gene_column=column,
        n_known_genes=resolved.n_found,
        mitochondrial_share=mitochondrial,
        n_empty_cells=int((found.detected == 0).sum()),
        n_duplicate_genes=int(_names(matrix.var, column).duplicated().sum()),
        n_duplicate_cells=int(adata.obs_names.duplicated().sum()),
        median_genes_per_cell=float(np.median(found.detected)),
        median_counts_per_cell=float(np.median(depth)) if counts_there else None,
        evidence={**scale.evidence, "matrices": verdicts},
        gene_symbols=tuple(resolved.symbols),
    )
    report = replace(report, warnings=tuple(_warnings(report, adata)))
    return report if genes is None else report.with_genes(genes)


@dataclass(frozen=True)
class Candidate:
    """A matrix that could be used, how it compares (smaller is better), and what a sample of it looks like."""

    matrix: Matrix
    rank: tuple[int, int, int, int]
    words: str


def _choose(adata: AnnData, layer: str | None) -> tuple[Matrix, Survey, Scale, dict[str, str]]:
    """The best usable matrix, its survey and scale, and a verdict on every candidate by name."""
    hint = log_hint_of(adata.uns)
    candidates = sorted((_judge(matrix, hint) for matrix in _expression(adata, layer)), key=lambda c: c.rank)
    verdicts = {candidate.matrix.name: candidate.words for candidate in candidates}
    for matrix in (candidate.matrix for candidate in candidates):
        found = survey(matrix, adata.obs_names)
        if found.fault is None:
            scale = _scale_of(matrix, found, hint)
            return matrix, found, scale, verdicts | {matrix.name: scale.words}
        verdicts[matrix.name] = found.fault
    if not verdicts:
        raise MatrixError(
            "The file holds no matrix of expression: no X, raw or layer with genes. Save it again with X."
        )
    first, *others = verdicts.items()
    also = f" Nor can {', '.join(name for name, _ in others)} be used." if others else ""
    raise MatrixError(f"{first[0]} {first[1]}.{also} {_remedy(first[1], layer)}")


def _remedy(fault: str, layer: str | None) -> str:
    if "NaN" in fault:
        return "Expected finite numbers. Remove these cells or genes, or fill the values, and save the file again."
    if "negative" in fault:
        hint = "Choose another layer" if layer else "Bring the raw counts (in X, raw or a layer named counts)"
        return f"Expected counts or log-normalised values, which are never negative. {hint}."
    if "zeros" in fault:
        return "Expected counts. Check that the matrix was filled before it was saved."
    return "Expected a numeric matrix of cells by genes."


def _expression(adata: AnnData, layer: str | None) -> list[Matrix]:
    """The matrix that was asked for, or all that may hold the expression of the cells."""
    if layer is not None:
        return [matrix_named(adata, layer)]
    named = [m for m in matrices(adata) if not any(word in m.name.lower() for word in NOT_EXPRESSION)]
    return [matrix for matrix in named if matrix.shape[1] > 0]


def _judge(matrix: Matrix, hint: float | None) -> Candidate:
    """Rank a matrix from a sample: counts before normalised before unusable, then most genes, then the usual places."""
    named_counts = any(matrix.name.lower() == f"layers[{name.lower()!r}]" for name in COUNT_NAMES)
    place = 0 if matrix.name == "X" else 1 if named_counts else 2 if matrix.name == "raw.X" else 3
    if not matrix.numeric:
        return Candidate(matrix, (4, 0, 0, place), "holds no numbers")
    sample = matrix.sample()
    if not np.isfinite(sample.data).all():
        return Candidate(matrix, (3, 0, 0, place), "holds NaN or infinite values")
    if (sample.data < 0).any():
        return Candidate(matrix, (2, 0, 0, place), "holds negative values (it looks scaled, centred or corrected)")
    scale = recognise_scale(sample, log_hint=hint)
    if scale.evidence["largest_value"] == 0.0:
        return Candidate(matrix, (4, 0, 0, place), "holds only zeros")
    exact = scale.kind == "counts" and scale.evidence["whole_number_share"] == 1.0
    group = 0 if (exact and scale.evidence["largest_value"] != 1) or scale.counts_recovered else 1
    return Candidate(matrix, (group, -matrix.shape[1], 0 if scale.kind == "counts" else 1, place), scale.words)


def _scale_of(matrix: Matrix, found: Survey, hint: float | None) -> Scale:
    """The scale of a surveyed matrix: the sample's verdict, corrected by what only the whole matrix shows."""
    scale = recognise_scale(matrix.sample(), log_hint=hint)
    evidence = {**scale.evidence, "largest_value": found.largest}
    undecided = not scale.counts_recovered and scale.target_sum is None and scale.kind in ("log1p", "linear")
    spreads = per_gene_scaled(found.gene_sd) if undecided and matrix.shape[0] >= 20 else None
    if spreads is not None:
        words = "scaled per gene and shifted to be non-negative; differences between genes are lost"
        return Scale("scaled", words, evidence={**evidence, **spreads})
    if scale.kind == "counts" and evidence.get("whole_number_share") == 1.0 and not found.all_whole:
        return replace(scale, words="mostly whole numbers (estimated or corrected counts)", evidence=evidence)
    return replace(scale, evidence=evidence)


def _names(var: pd.DataFrame, column: str | None) -> pd.Index:
    return pd.Index((var.index if column is None else var[column]).astype(str))


def _gene_names(var: pd.DataFrame, species: str | None, gene_column: str | None) -> tuple[str | None, ResolvedGenes]:
    """Where the gene names are and what they mean: var_names, unless a column of `var` is clearly better known."""
    resolver = GeneResolver()
    if gene_column is not None:
        if gene_column not in var.columns:
            there = ", ".join(map(str, var.columns)) or "no columns"
            raise MatrixError(
                f"There is no gene column {gene_column!r} in var, which holds {there}. Choose one of these."
            )
        return gene_column, resolver.resolve(list(_names(var, gene_column)), species=species)
    best: tuple[str | None, ResolvedGenes] = (None, resolver.resolve(list(_names(var, None)), species=species))
    n_best = best[1].n_found
    if n_best >= 0.9 * len(var):
        return best
    by_lower = {str(column).lower(): str(column) for column in var.columns}
    for column in (by_lower[name] for name in GENE_COLUMNS if name in by_lower):
        resolved = resolver.resolve(list(_names(var, column)), species=species)
        if resolved.n_found > 1.05 * n_best:
            best, n_best = (column, resolved), resolved.n_found
    return best


def _mitochondrial_share(sample: sp.csr_matrix, names: pd.Index, symbols: Sequence[str | None]) -> float | None:
    """Median share of mitochondrially encoded genes (MT-ND1, mt-Nd1) in the sampled cells, on the linear scale."""
    written = np.asarray(names.astype(str).str.upper().str.startswith("MT-"))
    encoded = written | np.array([(symbol or "").startswith("MT-") for symbol in symbols])
    totals = np.asarray(sample.sum(axis=1)).ravel()
    if not encoded.any() or not totals.any():
        return None
    return float(np.median(np.asarray(sample[:, encoded].sum(axis=1)).ravel()[totals > 0] / totals[totals > 0]))


def _warnings(report: DatasetReport, adata: AnnData) -> list[str]:
    """What a user should know before trusting an answer."""
    notes = [str(note) for note in dict(adata.uns.get("instructcell_read", {})).get("notes", [])]
    verdicts = report.evidence["matrices"]
    if report.matrix != "X" and "X" in verdicts:
        notes.append(f"{report.matrix} was used; X: {verdicts['X']}")
    if report.scale == "scaled":
        notes.append(
            "values are scaled per gene, not counts: answers are much less certain; bring raw counts if possible"
        )
    elif report.evidence.get("decided_by") == "assumed from the range":
        notes.append(
            f"the base of the logarithm could not be seen in the numbers; {report.scale_detail.words} was assumed"
        )
    if report.n_empty_cells:
        notes.append(f"{report.n_empty_cells:,} cells have no counts at all")
    if report.n_duplicate_genes:
        notes.append(f"{report.n_duplicate_genes:,} gene names repeat an earlier one; their counts are summed")
    if report.n_duplicate_cells:
        notes.append(f"{report.n_duplicate_cells:,} cell names repeat an earlier one")
    if report.n_known_genes < 0.6 * report.n_genes:
        share = report.n_known_genes / report.n_genes
        notes.append(f"only {report.n_known_genes:,} of {report.n_genes:,} gene names are known ({share:.0%})")
    return notes
