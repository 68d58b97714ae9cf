"""The input doctor: which matrix of a file to use, its scale and its genes, each verdict with its evidence.

What repeats. A file in which more than half of the gene names repeat an earlier one is malformed and refused. Fewer
repeats, and names of one gene under two spellings, are summed on the linear scale and said; on a scale where sums mean
nothing (scaled per gene) they are refused as well.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd
import scipy.sparse as sp
from anndata import AnnData

from instructcell.coverage import LOW
from instructcell.errors import GeneAlignmentError, MatrixError
from instructcell.genes import BLANK, GENOME_PREFIX, GeneResolver, ResolvedGenes
from instructcell.matrix import LARGEST, Matrix, Survey, matrices, matrix_named, survey
from instructcell.report import DatasetReport
from instructcell.scale import Scale, log_hint_of, per_gene_scaled, recognise_scale, scale_named, to_linear

__all__ = ["DatasetReport", "inspect"]

# Columns of `var` where files keep the names that var_names lack, best known first.
GENE_COLUMNS = (
    "gene_symbols", "gene_symbol", "gene_name", "gene_names", "feature_name", "symbol", "symbols", "hgnc_symbol",
    "gene_short_name", "name", "gene", "genes", "gene_ids", "gene_id", "ensembl_id", "ensembl", "ensembl_gene_id",
    "feature_id", "feature_ids", "external_gene_name", "features", "_index", "index",
)  # fmt: skip
COUNT_NAMES = ("counts", "raw_counts", "count", "umi", "umis", "raw", "X_raw", "raw_count")
NOT_EXPRESSION = ("unspliced", "ambiguous", "velocity", "variance", "spanning", "mask", "fit_", "pval", "zscore")
# Antibodies and hashtags as 10x and Seurat name them, spike-ins, and the sums below the genes of HTSeq and STAR.
NOT_GENES = (
    r"(?i:.*[_-]TotalSeq[-_]?[ABCD]?.*|(?:adt|hto|prot)[_:-].+|hashtag[_-]?\d+.*|ERCC[-.]\d{5}"
    r"|__(?:no_feature|ambiguous|too_low_aqual|not_aligned|alignment_not_unique)|N_(?:unmapped|multimapping|nofeature"
    r"|ambiguous))"
)
FEATURE_TYPES = ("feature_types", "feature_type", "modality")  # columns of `var` that tell genes from antibodies
DENSE = 0.9  # share of values above zero that no counts reach
MOST_COLUMNS = 8  # of words in `var` that are looked at for gene names
MANY_GENES = 500  # genes from which no cell expresses nearly all
MOST = 0.5  # of the gene names: when more repeat, the file is malformed
DEEP = 3.0  # times the median depth, from which a cell may be a doublet
MANY_DEEP = 0.15  # share of such cells from which the report warns; kinds of cells differ in depth as well
NEARLY_EMPTY = 100  # counts at most of a droplet that holds no cell, where other droplets hold far more


def inspect(
    adata: AnnData,
    *,
    layer: str | None = None,
    scale: str | None = None,
    species: str | None = None,
    gene_column: str | None = None,
    genes: Sequence[str] | None = None,
    markers: Mapping[str, Sequence[str]] | None = None,
) -> DatasetReport:
    """Find the matrix to use and say what it holds; nothing in `adata` is changed.

    Parameters
    ----------
    adata
        Cells by genes; may be backed: rows are read in chunks, once.
    layer
        Matrix to use instead of the doctor's choice: "X", "raw" or a layer's name.
    scale
        "counts", "log1p", "log2", "log10", "sqrt", "asinh", "linear" (also "cpm", "tpm", "rpkm") or "scaled" instead
        of the doctor's verdict.
    species
        "human" or "mouse" instead of the doctor's verdict.
    gene_column
        Column of `var` that holds the gene names, instead of the doctor's choice.
    genes
        The model's genes (human symbols); with them the report tells the coverage.
    markers
        Cell type -> marker genes (`instructcell.coverage.label_markers`), to tell with `genes` which of them the file
        lacks; those of the shipped checkpoint's types for None.

    Returns
    -------
    DatasetReport
        Verdicts with their evidence.

    Raises
    ------
    MatrixError
        No matrix can be used: no cells, no genes, all zero, NaN or infinite, negative. Or `layer`, `scale` or
        `gene_column` names nothing.
    GeneAlignmentError
        Most gene names repeat an earlier one, some repeat in a matrix scaled per gene, or `species` is not known.

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
    if scale is not None:
        scale_named(scale)  # refused before any work
    matrix, found, verdict, verdicts = _choose(adata, layer, scale)
    sample = to_linear(matrix.sample(), verdict)
    totals = np.asarray(sample.sum(axis=0)).ravel()
    weights = totals / max(totals.sum(), 1e-12)  # [G] share of the sampled cells' counts
    column, resolved = _gene_names(matrix.var, species, gene_column, weights)
    names = _names(matrix.var, column)
    others = _other_features(matrix.var, names)
    symbols = [None if other else symbol for symbol, other in zip(resolved.symbols, others, strict=True)]
    _refuse_repeats(names, symbols, verdict, column)
    depth = _depth(found, sample, verdict)
    technology, technology_evidence = _technology(sample, verdict)
    known = {symbol for symbol in symbols if symbol is not None}
    counts_there = verdict.kind == "counts" or verdict.counts_recovered
    left_out = sorted({*resolved.left_out, *np.flatnonzero(others).tolist()})
    left_out_share = float(weights[left_out].sum())
    weights = np.where(others, 0.0, weights) / max(1.0 - float(weights[others].sum()), 1e-12)
    report = DatasetReport(
        n_cells=matrix.shape[0],
        n_genes=matrix.shape[1],
        matrix=matrix.name,
        scale=verdict.kind,
        scale_detail=verdict,
        target_sum=verdict.target_sum,
        counts_recovered=verdict.counts_recovered,
        species=resolved.species,
        id_type=resolved.id_type,
        gene_column=column,
        technology=technology,
        n_known_genes=sum(symbol is not None for symbol in symbols),
        mitochondrial_share=_mitochondrial_share(sample, names, symbols),
        n_empty_cells=int((found.detected == 0).sum()),
        n_nearly_empty_cells=_nearly_empty(depth) if counts_there and len(depth) == matrix.shape[0] else 0,
        deep_cell_share=_deep_share(depth),
        n_duplicate_genes=_n_repeats(names),
        n_merged_genes=sum(symbol is not None for symbol in symbols) - len(known),
        n_duplicate_cells=int(adata.obs_names.duplicated().sum()),
        n_identical_cells=_identical(found),
        n_left_out_genes=len(left_out),
        left_out_share=left_out_share,
        median_genes_per_cell=float(np.median(found.detected)),
        median_counts_per_cell=float(np.median(depth)) if counts_there else None,
        evidence={
            **verdict.evidence,
            **technology_evidence,
            "gene_names": dict(resolved.counts),
            "known_genes_counts_share": round(float(weights[[s is not None for s in symbols]].sum()), 4),
            "matrices": verdicts,
            **_of_other_species(sample, resolved),
        },
        gene_symbols=tuple(symbols),
        gene_weights=weights,
    )
    report = replace(report, warnings=tuple(_warnings(report, adata, resolved)))
    return report if genes is None else report.with_genes(genes, markers)


@dataclass(frozen=True)
class Candidate:
    """A matrix that could be used, how it compares (smaller is better), and what a sample of it looks like."""

    matrix: Matrix
    rank: tuple[int, int, int, int]
    words: str
    scale: Scale | None = None


def _choose(adata: AnnData, layer: str | None, declared: str | None) -> tuple[Matrix, Survey, Scale, dict[str, str]]:
    """The best usable matrix, its survey and scale, and a verdict on every candidate by name."""
    hint = log_hint_of(adata.uns)
    candidates = sorted((_judge(matrix, hint) for matrix in _expression(adata, layer)), key=lambda c: c.rank)
    verdicts = {candidate.matrix.name: candidate.words for candidate in candidates}
    for matrix, scale in ((candidate.matrix, candidate.scale) for candidate in candidates):
        found = survey(matrix, adata.obs_names, spread=scale is not None and _undecided(scale, matrix))
        if found.fault is None and scale is not None:
            scale = _scale_of(matrix, found, scale)
            if declared is not None:
                scale = _as_declared(matrix, declared, scale)
            return matrix, found, scale, verdicts | {matrix.name: scale.words}
        verdicts[matrix.name] = found.fault or "holds only zeros"
    if not verdicts:
        raise MatrixError(
            "The file holds no matrix of expression: no X, raw or layer with genes. Save it again with X."
        )
    first, *others = verdicts.items()
    also = f" Nor can {', '.join(name for name, _ in others)} be used." if others else ""
    raise MatrixError(f"{first[0]} {first[1]}.{also} {_remedy(first[1], layer)}")


def _as_declared(matrix: Matrix, declared: str, seen: Scale) -> Scale:
    """The scale that the user names; where the numbers say otherwise, the evidence keeps what they say."""
    scale = recognise_scale(matrix.sample(), declared=declared)
    agrees = scale.kind == seen.kind and scale.log_base == seen.log_base
    return scale if agrees else replace(scale, evidence={**scale.evidence, "numbers_say": seen.words})


def _remedy(fault: str, layer: str | None) -> str:
    if "NaN" in fault:
        return (
            "Expected finite numbers. NaN often comes from joining files with different genes: join on the shared ones "
            "(join='inner'), or remove these cells or genes, and save the file again."
        )
    if "negative" in fault:
        hint = "Choose another layer" if layer else "Bring the raw counts (in X, raw or a layer named counts)"
        return f"Expected counts or log-normalised values, which are never negative. {hint}."
    if "too large" in fault:
        return "Expected counts or normalised values. Look for a slip or an overflow there, and save the file again."
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
    spliced = matrix.name == "layers['spliced']"  # a part of the counts: only where these are not to be had
    place = 0 if matrix.name == "X" else 1 if named_counts else 2 if matrix.name == "raw.X" else 3
    if not matrix.numeric:
        return Candidate(matrix, (4, 0, 0, place), "holds no numbers")
    sample = matrix.sample()
    if not np.isfinite(sample.data).all():
        return Candidate(matrix, (3, 0, 0, place), "holds NaN or infinite values")
    if (sample.data < 0).any():
        words = "holds negative values (it looks z-scored, centred, regressed or corrected)"
        return Candidate(matrix, (2, 0, 0, place), words)
    if sample.nnz and sample.data.max() > LARGEST:
        return Candidate(matrix, (3, 0, 0, place), "holds values too large for expression")
    scale = recognise_scale(sample, log_hint=hint)
    if scale.evidence["largest_value"] == 0.0:
        return Candidate(matrix, (4, 0, 0, place), "holds only zeros", scale)
    exact = scale.kind == "counts" and scale.evidence["whole_number_share"] == 1.0
    group = 0 if (exact and scale.evidence["largest_value"] != 1) or scale.counts_recovered else 1
    rank = (group, -matrix.shape[1], 2 if spliced else 0 if scale.kind == "counts" else 1, place)
    return Candidate(matrix, rank, scale.words, scale)


def _undecided(scale: Scale, matrix: Matrix) -> bool:
    """Whether only the spread of the genes can tell normalised values from values scaled per gene.

    Scaled values that were shifted to be non-negative have equal totals as well, but no zeros.
    """
    if scale.counts_recovered or scale.kind in ("counts", "scaled"):
        return False
    if scale.target_sum is None:
        return True
    sample = matrix.sample()
    return sample.nnz > DENSE * sample.shape[0] * sample.shape[1]


def _scale_of(matrix: Matrix, found: Survey, scale: Scale) -> Scale:
    """The scale of a surveyed matrix: the sample's verdict, corrected by what only the whole matrix shows."""
    if scale.evidence["largest_value"] == 0.0:  # a file so empty that the sample met no value
        scale = replace(scale, words="too few values to tell; taken as counts")
    filled = float(found.detected.mean()) / max(matrix.shape[1], 1)
    evidence = {**scale.evidence, "largest_value": found.largest, "filled_share": round(filled, 4)}
    spreads = None
    if found.gene_sd is not None and matrix.shape[0] >= 20:
        spreads = per_gene_scaled(found.gene_sd, found.gene_largest)
    if spreads is not None:
        words = "scaled per gene and shifted to be non-negative; differences between genes are lost"
        if "gene_largest_value" in spreads:
            words = "scaled per gene to one largest value; differences between genes are lost"
        return Scale("scaled", words, evidence={**evidence, **spreads})
    if scale.kind == "counts" and evidence.get("whole_number_share") == 1.0 and not found.all_whole:
        return replace(scale, words="mostly whole numbers (estimated or corrected counts)", evidence=evidence)
    return replace(scale, evidence=evidence)


def _names(var: pd.DataFrame, column: str | None) -> pd.Index:
    return pd.Index((var.index if column is None else var[column]).astype(str))


def _gene_names(
    var: pd.DataFrame, species: str | None, gene_column: str | None, weights: np.ndarray
) -> tuple[str | None, ResolvedGenes]:
    """Where the gene names are and what they mean: var_names, unless a column of `var` is clearly better known."""
    resolver = GeneResolver()
    if gene_column is not None:
        if gene_column not in var.columns:
            there = ", ".join(map(str, var.columns)) or "no columns"
            raise MatrixError(
                f"There is no gene column {gene_column!r} in var, which holds {there}. Choose one of these."
            )
        return gene_column, resolver.resolve(list(_names(var, gene_column)), species, weights=weights.tolist())
    best: tuple[str | None, ResolvedGenes] = (
        None,
        resolver.resolve(list(_names(var, None)), species, weights=weights.tolist()),
    )
    n_best = best[1].n_found
    if n_best >= 0.9 * len(var):
        return best
    for column in _gene_columns(var):
        resolved = resolver.resolve(list(_names(var, column)), species, weights=weights.tolist())
        if resolved.n_found > 1.05 * n_best:
            best, n_best = (column, resolved), resolved.n_found
    return best


def _gene_columns(var: pd.DataFrame) -> list[str]:
    """Columns of `var` that may name the genes: those called so, then other columns of many different words."""
    plain = {_plain(column): str(column) for column in var.columns}
    known = list(dict.fromkeys(plain[_plain(name)] for name in GENE_COLUMNS if _plain(name) in plain))
    words = [str(c) for c in var.columns if not pd.api.types.is_numeric_dtype(var[c].dtype) and str(c) not in known]
    many = [column for column in words if var[column].astype(str).nunique() > MOST * len(var)]
    return known + many[:MOST_COLUMNS]


def _plain(column: object) -> str:
    """ "Gene.Symbol", "gene_symbol" and "GeneSymbol" are one name."""
    return str(column).lower().translate({ord(sign): None for sign in "._- "})


def _other_features(var: pd.DataFrame, names: pd.Index) -> np.ndarray:
    """Which features [G] are no genes: antibodies, guides and peaks, spike-ins, and what counting programs add up.

    Some bear names of genes; 10x files tell them in a column of `var`, others by the form of the name.
    """
    found = np.asarray(names.str.fullmatch(NOT_GENES), dtype=bool)
    column = next((str(name) for name in var.columns if str(name).lower() in FEATURE_TYPES), None)
    if column is None:
        return found
    genes = var[column].astype(str).str.lower().isin(("gene expression", "gene", "rna", "gex")).to_numpy()
    return found | ~genes if genes.any() else found


def _of_other_species(sample: sp.csr_matrix, resolved: ResolvedGenes) -> dict[str, Any]:
    """In a file that mixes both species: the share of the sampled cells that are mostly of the one that is not read."""
    if not resolved.left_out:
        return {}
    totals = np.asarray(sample.sum(axis=1)).ravel()
    other = np.asarray(sample[:, list(resolved.left_out)].sum(axis=1)).ravel()
    return {"cells_of_other_species_share": round(float(np.mean(other > 0.5 * totals)), 4)}


def _n_repeats(names: pd.Index) -> int:
    """How many gene names repeat an earlier one; genes without a name do not count."""
    named = names[~names.str.lower().isin(BLANK)]
    return int(named.duplicated().sum())


def _refuse_repeats(names: pd.Index, symbols: Sequence[str | None], scale: Scale, column: str | None) -> None:
    """Refuse files whose repeated genes cannot be summed; see the module."""
    repeats, where = _n_repeats(names), "var_names" if column is None else f"var[{column!r}]"
    first = next(iter(names[names.duplicated()]), "")
    if repeats > MOST * len(names):
        raise GeneAlignmentError(
            f"{repeats:,} of {len(names):,} gene names in {where} repeat an earlier one (such as {first}); expected "
            "one name per gene. Name the column that holds the gene names (gene_column), or write the file again."
        )
    known = [symbol for symbol in symbols if symbol is not None]
    merged = len(known) - len(set(known))
    if scale.kind == "scaled" and merged:
        raise GeneAlignmentError(
            f"{merged:,} genes stand twice in {where} (such as {first or _first_repeat(known)}), and values scaled per "
            "gene cannot be summed; expected one row per gene. Bring the counts, or remove the repeats."
        )


def _first_repeat(names: Sequence[str]) -> str:
    seen: set[str] = set()
    return next((name for name in names if name in seen or seen.add(name)), "")  # type: ignore[func-returns-value]


def _depth(found: Survey, sample: sp.csr_matrix, scale: Scale) -> np.ndarray:
    """Counts of each cell, of the sampled cells where counts were recovered; else the number of detected genes."""
    if scale.counts_recovered:
        return np.asarray(sample.sum(axis=1)).ravel()
    return found.totals if scale.kind == "counts" else found.detected.astype(np.float64)


def _nearly_empty(counts: np.ndarray) -> int:
    """Cells with a tenth of what a deep cell holds and at most 100 counts; the deep cell is sought among the top 3,000.

    This is how Cell Ranger tells cells from droplets of ambient RNA.
    """
    top = np.sort(counts)[-3000:]
    return int((counts <= min(NEARLY_EMPTY, np.quantile(top, 0.99) / 10)).sum())


def _deep_share(depth: np.ndarray) -> float:
    """Share of the cells that are more than three times as deep as the median cell."""
    depth = depth[depth > 0]
    return float(np.mean(depth > DEEP * np.median(depth))) if depth.size else 0.0


def _identical(found: Survey) -> int:
    """Cells of 20 genes or more whose every value equals that of an earlier cell."""
    prints = found.fingerprints[found.detected >= 20]
    return int(prints.size - np.unique(prints).size)


def _technology(sample: sp.csr_matrix, scale: Scale) -> tuple[str, dict[str, Any]]:
    """UMI or full-length, from how often a count is one: molecules are counted once, reads come in multitudes."""
    detected = np.diff(sample.indptr)
    if sample.nnz == 0 or "umi_barcodes" in scale.evidence:
        return ("UMI" if sample.nnz else "unknown"), {}
    evidence: dict[str, Any] = {"mean_detected_value": round(float(sample.data.mean()), 2)}
    if scale.kind == "counts" or scale.counts_recovered:
        ones = float(np.mean(np.abs(sample.data - 1) < 0.01))
        evidence["ones_share"] = round(ones, 4)
        if sample.data.max() <= 1:
            return "unknown", evidence
        if ones >= 0.3:
            return "UMI", evidence
        return ("full-length" if ones <= 0.2 and sample.data.mean() >= 10 else "unknown"), evidence
    by_length = scale.kind in ("linear", "log1p") and scale.evidence.get("decided_by") != "rounded"
    per_million = scale.target_sum == 1e6 or (scale.kind == "linear" and scale.target_sum is None)
    if by_length and per_million and np.median(detected) >= 2000:
        return "full-length", evidence | {"not_multiples_of_one_umi": True}
    return "unknown", evidence


def _mitochondrial_share(sample: sp.csr_matrix, names: pd.Index, symbols: Sequence[str | None]) -> float | None:
    """Median share of mitochondrially encoded genes (MT-ND1, mt-Nd1) in the sampled cells, on the linear scale."""
    bare = names.str.replace(GENOME_PREFIX, "", regex=True).str.upper()
    written = np.asarray(bare.str.startswith("MT-") | bare.str.startswith("MT."))
    encoded = written | np.array([(symbol or "").startswith("MT-") for symbol in symbols])
    totals = np.asarray(sample.sum(axis=1)).ravel()
    if not encoded.any() or not totals.any():
        return None
    return float(np.median(np.asarray(sample[:, encoded].sum(axis=1)).ravel()[totals > 0] / totals[totals > 0]))


def _warnings(report: DatasetReport, adata: AnnData, resolved: ResolvedGenes) -> list[str]:
    """What a user should know before trusting an answer."""
    notes = [str(note) for note in dict(adata.uns.get("instructcell_read", {})).get("notes", [])]
    return [*notes, *_matrix_warnings(report), *_cell_warnings(report), *_gene_warnings(report, resolved)]


def _matrix_warnings(report: DatasetReport) -> list[str]:
    notes, evidence, verdicts = [], report.evidence, report.evidence["matrices"]
    if report.matrix != "X" and "X" in verdicts:
        notes.append(f"{report.matrix} was used; X: {verdicts['X']}")
    if "numbers_say" in evidence:
        notes.append(f"you said the scale; the numbers look like {evidence['numbers_say']}")
    if report.scale == "scaled":
        notes.append(
            f"values are {_first_phrase(report)}, not counts: answers are much less certain; bring raw counts if "
            "possible"
        )
    elif evidence.get("decided_by") == "assumed from the range":
        notes.append(
            f"the base of the logarithm could not be seen in the numbers; {report.scale_detail.words} was assumed"
        )
    elif evidence.get("decided_by") == "few distinct values":
        notes.append(f"values are {report.scale_detail.words} and were read as they are; bring the raw counts")
    elif evidence.get("decided_by") == "rounded":
        notes.append("values were rounded after they were normalised, so small counts are lost; bring the raw counts")
    if report.scale != "scaled" and report.n_genes >= MANY_GENES and float(evidence.get("filled_share", 0)) > DENSE:
        notes.append(
            f"{float(evidence['filled_share']):.0%} of the values are above zero, as after imputation, batch "
            "correction or a shift, or in bulk samples: answers are less certain; bring the raw counts if possible"
        )
    return notes


def _first_phrase(report: DatasetReport) -> str:
    """ "scaled per gene", "ranks of the genes within each cell": the verdict without what follows from it."""
    words = report.scale_detail.words.split(";")[0].split(",")[0]
    return words.removesuffix(" and shifted to be non-negative")


def _cell_warnings(report: DatasetReport) -> list[str]:
    notes, n_cells = [], report.n_cells
    if report.n_nearly_empty_cells > 0.5 * n_cells:
        notes.append(
            f"{report.n_nearly_empty_cells:,} of {n_cells:,} barcodes hold next to nothing (unfiltered droplets?): "
            "keep the barcodes that hold cells, for example sc.pp.filter_cells(adata, min_counts=500)"
        )
    elif report.n_empty_cells:
        notes.append(f"{report.n_empty_cells:,} cells have no counts at all")
    if report.n_duplicate_cells:
        notes.append(f"{report.n_duplicate_cells:,} cell names repeat an earlier one")
    if report.n_identical_cells:
        notes.append(f"{report.n_identical_cells:,} cells hold exactly the values of an earlier cell")
    if report.deep_cell_share > MANY_DEEP:
        notes.append(
            f"{report.deep_cell_share:.0%} of the cells are more than {DEEP:g} times as deep as the median cell: some "
            "may be doublets"
        )
    return notes


def _gene_warnings(report: DatasetReport, resolved: ResolvedGenes) -> list[str]:
    notes = list(resolved.notes)
    if resolved.left_out:
        other = "mouse" if report.species == "human" else "human"
        notes.append(
            f"the file mixes human and mouse genes and was read as {report.species}; {len(resolved.left_out):,} "
            f"{other} genes with {report.left_out_share:.0%} of the counts were left out (choose with species)"
        )
        if (share := float(report.evidence.get("cells_of_other_species_share", 0.0))) > 0.02:
            notes.append(f"{share:.0%} of the cells are mostly {other}: read these with the species {other}")
    elif report.n_left_out_genes:
        notes.append(
            f"{report.n_left_out_genes:,} features are not gene expression (antibodies, guides, peaks, spike-ins, sums "
            f"of reads) and were left out, with {report.left_out_share:.0%} of the counts"
        )
    if report.n_duplicate_genes:
        notes.append(f"{report.n_duplicate_genes:,} gene names repeat an earlier one; their counts are summed")
    elif report.n_merged_genes:
        notes.append(f"{report.n_merged_genes:,} gene names mean a gene that is there already; their counts are summed")
    known = float(report.evidence["known_genes_counts_share"])
    known += report.left_out_share if resolved.left_out else 0.0
    if known < LOW:
        notes.append(
            f"only {report.n_known_genes:,} of {report.n_genes:,} gene names are known; they hold {known:.0%} of the "
            "counts"
        )
    if report.id_type == "number" and resolved.n_found == 0:
        notes.append(
            "gene names are numbers that are no Entrez ids of human or mouse genes; symbols or Ensembl ids are needed"
        )
    return notes
