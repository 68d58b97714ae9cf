"""On which scale is a matrix? Raw counts, log(x + 1), linear but normalised, or scaled per gene: read from the numbers.

Two facts decide most files. A normalised UMI matrix still holds whole numbers in disguise: within one cell every value
is a multiple of one UMI, the smallest value of the cell, once the right logarithm is undone. And where whole numbers
are gone (TPM, RPKM) the totals of the cells are equal only after the right logarithm is undone.

Square roots and inverse hyperbolic sines (arcsinh, with any cofactor) show in the same way. Whole numbers are not
always counts: normalised values that were rounded lack the ones that every counted cell has, or bring every cell to the
same total, rounded logarithms end at about ten however deep the cell, and ranks never repeat within a cell.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
import scipy.sparse as sp

from instructcell.errors import MatrixError

Kind = Literal["counts", "log1p", "sqrt", "asinh", "linear", "scaled"]
Evidence = dict[str, float | int | str | bool]

WHOLE = 1e-3  # how far a stored count may be from a whole number
NOISE = 0.05  # how far counts that went through a conversion may be from whole numbers
NEAR = 0.05  # how far a multiple of one UMI may be from a whole number after a logarithm was undone
FEW_UMI = 20.0  # only small multiples are evidence: large ones are near a whole number by rounding error alone
LARGEST_LOG = 25.0  # log2 of 33 million: no logarithm of expression is larger
LARGEST_LOG_TWICE = 6.0  # log2(1 + LARGEST_LOG) is 4.7
LARGEST_NATURAL_LOG = 14.0  # log(1e6 + 1) is 13.8
TOLERANCES = (1e-3, 1e-2, 0.05, 0.1)  # how far recovered counts lie from whole numbers, as it is told
ENOUGH_GENES = 50  # detected genes from which a counted cell surely holds a one
DEEP_TOTAL = 1000  # total from which a counted cell surely has a gene above LARGEST_NATURAL_LOG
USUAL_TARGETS = (1e4, 1e6, 1e5, 1e3)
BARCODE_COUNTS = (
    256,
    1024,
    4096,
    16384,
    65536,
)  # distinct UMIs of 4 to 8 bases
BASE_WORDS = {math.e: "natural log", 2.0: "log2", 10.0: "log10"}
SCALE_NAMES: dict[str, tuple[Kind, float | None]] = {
    **dict.fromkeys(("counts", "raw", "umi", "reads", "raw counts"), ("counts", None)),
    **dict.fromkeys(("log1p", "log", "ln", "natural log", "lognorm", "logcounts"), ("log1p", math.e)),
    "log2": ("log1p", 2.0),
    "log10": ("log1p", 10.0),
    **dict.fromkeys(("sqrt", "square root"), ("sqrt", None)),
    **dict.fromkeys(("asinh", "arcsinh"), ("asinh", None)),
    **dict.fromkeys(("linear", "normalised", "normalized", "cpm", "cp10k", "tpm", "rpkm", "fpkm"), ("linear", None)),
    **dict.fromkeys(("scaled", "z-score", "zscore"), ("scaled", None)),
}


@dataclass(frozen=True)
class Scale:
    """What the numbers of a matrix are, and how to get back to a linear scale.

    Attributes
    ----------
    kind
        "counts", "log1p" (any base), "sqrt", "asinh", "linear" (normalised, not logged) or "scaled" (each gene divided
        by its spread, or ranks).
    words
        The verdict as a phrase for people.
    log_base, log_twice
        Base of log(x + 1) when kind is "log1p", and whether it was taken twice.
    target_sum
        Total that each cell was normalised to, where the file shows it.
    counts_recovered
        Whether counts come back by dividing each cell by its smallest non-zero value.
    evidence
        The numbers behind the verdict. Where counts were recovered, `recovered_share` of the values lie within
        `recovered_within` of a whole number.
    """

    kind: Kind
    words: str
    log_base: float | None = None
    log_twice: bool = False
    target_sum: float | None = None
    counts_recovered: bool = False
    evidence: Evidence = field(default_factory=dict)

    @property
    def exactness(self) -> str:
        """How exactly counts came back: "within 0.001 of whole numbers in 99.8% of values"; "" where they did not."""
        if not self.counts_recovered or "recovered_share" not in self.evidence:
            return ""
        share = float(self.evidence["recovered_share"])
        said = "all values" if share == 1.0 else f"{min(share, 0.999):.1%} of values"
        return f"within {self.evidence['recovered_within']:g} of whole numbers in {said}"


def recognise_scale(sample: sp.csr_matrix, *, log_hint: float | None = None, declared: str | None = None) -> Scale:
    """Say on which scale a matrix is.

    Parameters
    ----------
    sample
        Rows of the matrix, csr [n, G], finite and non-negative; a few hundred cells are enough.
    log_hint
        Base that the file itself names (scanpy writes ``uns["log1p"]``), used only where the numbers do not decide.
    declared
        What the user says the scale is, one of `SCALE_NAMES`; believed, and compared with the numbers.

    Returns
    -------
    Scale
        The verdict with its evidence.

    Raises
    ------
    MatrixError
        `declared` is no known scale, or no value of the matrix can be on it.
    """
    sample = _without_zeros(sample)
    values, starts = sample.data, _starts(sample)
    if values.size == 0:
        return Scale("counts", "no values above zero", evidence={"largest_value": 0.0})
    whole = share_whole(values)
    evidence: Evidence = {"largest_value": float(values.max()), "whole_number_share": round(whole, 4)}
    if declared is not None:
        return _declared(declared, values, starts, evidence)
    if whole == 1.0:
        return _recognise_whole(values, starts, evidence)
    near_whole = _recognise_near_whole(values, evidence)
    if near_whole is not None:
        return near_whole
    if values.max() <= LARGEST_LOG:
        return _recognise_small(values, starts, evidence, log_hint)
    return _recognise_large(values, starts, evidence, whole)


def scale_named(name: str) -> tuple[Kind, float | None]:
    """Kind and base of the logarithm for what a user calls a scale.

    Raises
    ------
    MatrixError
        If no scale is called so.
    """
    found = SCALE_NAMES.get(name.strip().lower())
    if found is None:
        raise MatrixError(
            f"scale {name!r} is not known; expected counts, log1p, log2, log10, sqrt, asinh, linear (CPM, TPM, "
            "RPKM) or scaled."
        )
    return found


def to_linear(rows: sp.csr_matrix, scale: Scale) -> sp.csr_matrix:
    """Bring rows of a matrix to a non-negative linear scale; counts where they can be recovered.

    Parameters
    ----------
    rows
        csr [n, G] as stored in the file, over **all** genes of the file (one UMI is the smallest value of a cell).
    scale
        What `recognise_scale` said about the matrix.

    Returns
    -------
    scipy.sparse.csr_matrix
        float32 [n, G], which may share its places with `rows`. Each cell depends on that cell alone, so chunks of any
        size give the same result.
    """
    if scale.kind not in UNDO and not scale.counts_recovered:  # linear as it is
        linear = sp.csr_matrix((rows.data.astype(np.float32), rows.indices, rows.indptr), shape=rows.shape)
        if not linear.data.all():
            linear = linear.copy()  # the places are those of `rows` until here
            linear.eliminate_zeros()
        return linear
    linear = _without_zeros(rows)
    if scale.kind == "log1p":
        linear.data = _undo_log(linear.data, scale.log_base or math.e, twice=scale.log_twice)
    elif scale.kind in UNDO:
        linear.data = UNDO[scale.kind](linear.data)
    if scale.counts_recovered:
        linear.data = _counts_from_units(linear.data, linear.indptr)
    linear.data = linear.data.astype(np.float32)
    return linear


def per_gene_scaled(gene_sd: np.ndarray, gene_largest: np.ndarray | None = None) -> Evidence | None:
    """Evidence that every gene was divided by its spread [G] or brought to one largest value [G]; None if not so.

    In expression, whatever its logarithm, spreads differ several-fold between genes; after z-scoring (also when shifted
    to be non-negative, also on a subset of the cells) they are nearly equal and near one.
    """
    if gene_largest is not None and (seen := gene_largest[gene_largest > 0]).size >= 20:
        common = float(np.median(seen))
        share = float(np.mean(np.isclose(seen, common, rtol=1e-5)))
        if share > 0.9:
            return {"gene_largest_value": round(common, 4), "genes_that_reach_it_share": round(share, 4)}
    varying = gene_sd[gene_sd > 1e-6]
    if varying.size < 20:
        return None
    low, middle, high = (float(q) for q in np.quantile(varying, [0.25, 0.5, 0.75]))
    if high / low > 1.2 or not 0.7 < middle < 1.4:
        return None
    return {
        "gene_sd_quartile_25": round(low, 3),
        "gene_sd_median": round(middle, 3),
        "gene_sd_quartile_75": round(high, 3),
    }


def _declared(name: str, values: np.ndarray, starts: np.ndarray, evidence: Evidence) -> Scale:
    """The scale that the user names; counts are still recovered from it where they come out whole."""
    kind, base = scale_named(name)
    evidence["decided_by"] = "you"
    if kind == "counts":
        return Scale("counts", "counts, as you said", evidence=evidence)
    if kind == "scaled":
        return Scale("scaled", "scaled per gene, as you said", evidence=evidence)
    if base is not None and values.max() * math.log(base) > LARGEST_LOG:
        raise MatrixError(
            f"The largest value is {values.max():,.6g}, so the values cannot be {BASE_WORDS[base]}(x + 1) as you said; "
            "expected values up to about 20. Name another scale, or leave it to be recognised."
        )
    if base is not None:
        linear = _undo_log(values, base)
    else:
        linear = UNDO[kind](values) if kind in ROOT_WORDS else values
    share = _share_of_whole_multiples(linear, values, starts)
    evidence["whole_multiples_share"] = round(share, 4)
    if share >= 0.9:
        return _recovered(kind if kind in ROOT_WORDS else base or 1.0, linear, starts, evidence)
    if kind in ROOT_WORDS:
        return Scale(kind, f"{ROOT_WORDS[kind]} of normalised values, as you said", evidence=evidence)
    if base is None:
        return Scale("linear", "normalised and not logged, as you said", evidence=evidence)
    return Scale("log1p", f"{BASE_WORDS[base]}(x + 1) of normalised values, as you said", base, evidence=evidence)


def share_whole(values: np.ndarray) -> float:
    """Share of values above zero that are whole numbers; one near zero is none."""
    return float(np.mean((np.abs(values - np.round(values)) <= WHOLE) & (values >= 0.5)))


def _recognise_near_whole(values: np.ndarray, evidence: Evidence) -> Scale | None:
    """Counts that a correction or a conversion has moved a little away from whole numbers; None for anything else.

    Values below 1.5 tell nothing: the logarithm of base 2 of one count and one is one as well.
    """
    telling = values[values >= 1.5]
    if telling.size < 20:
        return None
    off = float(np.mean(np.abs(telling - np.round(telling))))
    for n_barcodes in BARCODE_COUNTS:  # a cell with k of n distinct UMIs was written as -n log(1 - k / n)
        umis = -n_barcodes * np.expm1(-values / n_barcodes)
        after = np.abs(umis - np.round(umis))
        share = float(np.mean(after < 0.01))
        if share > 0.98 and float(np.mean(after[values >= 1.5])) < 0.3 * off and values.max() > LARGEST_LOG:
            evidence |= {"umi_barcodes": n_barcodes, "whole_after_correction_share": round(share, 4)}
            words = f"UMI counts corrected for collisions among {n_barcodes} barcodes"
            return Scale("counts", words, evidence=evidence)
    near = float(np.mean(np.abs(telling - np.round(telling)) <= NOISE))
    if near < 0.98 or float(np.mean(np.abs(values - np.maximum(np.round(values), 1)) <= NOISE)) < 0.98:
        return None
    evidence |= {"near_whole_share": round(near, 4), "mean_distance_from_whole": round(off, 6)}
    return Scale("counts", "raw counts (whole numbers but for a little noise)", evidence=evidence)


def _recognise_whole(values: np.ndarray, starts: np.ndarray, evidence: Evidence) -> Scale:
    """Whole numbers: counts, unless they look like normalised values that were rounded."""
    if values.max() <= 1:
        return Scale("counts", "only zeros and ones (detected or not)", evidence=evidence)
    detected = np.diff(np.append(starts, values.size))
    if _are_ranks(values, starts, detected):
        words = "ranks of the genes within each cell; how much they differ is lost"
        return Scale("scaled", words, evidence=evidence | {"decided_by": "no value repeats within a cell"})
    step = int(np.gcd.reduce(np.round(values).astype(np.int64)))
    if step > 1 and values.max() > 2 * step:
        evidence |= {"common_factor": step}
        words = f"raw counts, each times {step:,}"
        return Scale("linear", words, counts_recovered=True, evidence=evidence | _exactness(values, starts))
    totals = np.add.reduceat(values, starts)
    smallest, largest = np.minimum.reduceat(values, starts), np.maximum.reduceat(values, starts)
    rich, deep = detected >= ENOUGH_GENES, totals >= DEEP_TOTAL
    at_smallest = np.add.reduceat(values == np.repeat(smallest, detected), starts) / detected
    stepped = (smallest > 1) & (at_smallest > 0.2)  # the ones have become twos or more; reads have all small numbers
    without_ones = float(np.mean(stepped[rich])) if rich.sum() >= 5 else 0.0
    flat = float(np.mean(largest[deep] <= LARGEST_NATURAL_LOG)) if deep.sum() >= 5 else 0.0
    spread = _spread_of_totals(values, starts)
    evidence |= {"cells_without_ones_share": round(without_ones, 4)}
    if flat > 0.9 or (without_ones > 0.05 and values.max() <= LARGEST_NATURAL_LOG):
        evidence |= {"decided_by": "rounded", "flat_share": round(flat, 4)}
        words = "natural log(x + 1) of normalised values, rounded to whole numbers (much is lost)"
        return Scale("log1p", words, math.e, evidence=evidence)
    target = _round_target(float(np.median(totals))) if spread < 0.1 else None
    per_million = target in (1e5, 1e6) and 1e-9 < spread < 0.02
    if without_ones > 0.05 or per_million:
        evidence |= {"decided_by": "rounded", "spread_of_totals": round(spread, 4)}
        to_target = f" to about {target:,.0f} per cell" if target else ""
        words = f"normalised{to_target} and rounded to whole numbers, not logged"
        return Scale("linear", words, target_sum=target, evidence=evidence)
    words = "raw counts (whole numbers)"
    if starts.size >= 20 and spread <= 1e-9:
        words += f", every cell downsampled to {totals[0]:,.0f}"
    return Scale("counts", words, evidence=evidence)


def _are_ranks(values: np.ndarray, starts: np.ndarray, detected: np.ndarray) -> bool:
    """Whether no two genes of a cell have the same value, which counts of many genes always have."""
    rich = np.flatnonzero(detected >= ENOUGH_GENES)[:20]
    distinct = [np.unique(values[starts[i] : starts[i] + detected[i]]).size == detected[i] for i in rich]
    return len(distinct) > 0 and all(distinct)


def _recognise_small(values: np.ndarray, starts: np.ndarray, evidence: Evidence, hint: float | None) -> Scale:
    """Values up to 25 that are not whole: nearly always a logarithm; which one, the cells themselves tell."""
    linear = {(base, False): _undo_log(values, base) for base in BASE_WORDS} | {(1.0, False): values}
    if values.max() <= LARGEST_LOG_TWICE:
        linear |= {(base, True): _undo_log(values, base, twice=True) for base in (math.e, 2.0)}
    shares = {key: _share_of_whole_multiples(v, values, starts) for key, v in linear.items()}
    (base, twice) = _best_of(shares, linear, starts)
    evidence["whole_multiples_share"] = round(shares[base, twice], 4)
    corrected = _recognise_corrected(linear[base, twice], starts, base, evidence)
    if corrected is not None:
        return corrected
    if base == 1.0 and shares[base, twice] >= 0.9:  # small values are nearly their own arcsinh
        curved = UNDO["asinh"](values)
        if _spread_of_totals(curved, starts) < min(1e-3, 0.1 * _spread_of_totals(values, starts)):
            evidence["decided_by"] = "whole multiples of one UMI"
            return _recovered("asinh", curved, starts, evidence)
    if shares[base, twice] >= 0.9:
        evidence["decided_by"] = "whole multiples of one UMI"
        return _recovered(base, linear[base, twice], starts, evidence, twice=twice)
    spread = {key: _spread_of_totals(v, starts) for key, v in linear.items()}
    root = _recognise_root(values, starts, evidence, least_spread=min(spread.values()))
    if root is not None:
        return root
    (base, twice), second = sorted(spread, key=lambda key: spread[key])[:2]
    if spread[base, twice] < 0.05 and spread[base, twice] < 0.5 * spread[second]:
        target = _round_target(float(np.median(np.add.reduceat(linear[base, twice], starts))))
        evidence |= {"decided_by": "equal totals per cell", "spread_of_totals": round(spread[base, twice], 4)}
        if base == 1.0:
            words = f"normalised to about {target:,.6g} per cell, not logged"
            return Scale("linear", words, target_sum=target, evidence=evidence)
        words = f"{_log_words(base, twice=twice)} of values normalised to about {target:,.0f} per cell"
        return Scale("log1p", words, base, log_twice=twice, target_sum=target, evidence=evidence)

    evidence["decided_by"] = "uns['log1p']" if hint else "assumed from the range"
    base = hint or (2.0 if values.max() > LARGEST_NATURAL_LOG else math.e)
    words = f"{BASE_WORDS.get(base, f'log base {base:g}')}(x + 1) of normalised values"
    return Scale("log1p", words, base, evidence=evidence)


def _best_of(
    shares: Mapping[tuple[float, bool], float], linear: Mapping[tuple[float, bool], np.ndarray], starts: np.ndarray
) -> tuple[float, bool]:
    """The logarithm with the most whole multiples; of several as good (values far below one) equal totals decide."""
    best = max(shares, key=lambda key: shares[key])
    if shares[best] < 0.9:
        return best
    spread = {key: _spread_of_totals(linear[key], starts) for key in shares if shares[key] > shares[best] - 0.05}
    evenest = min(spread, key=lambda key: spread[key])
    return evenest if spread[evenest] < min(1e-3, 0.1 * spread[best]) else best


def _recognise_large(values: np.ndarray, starts: np.ndarray, evidence: Evidence, whole: float) -> Scale:
    """Values above 25 that are not all whole: linear; corrected counts, CPM of counts, or TPM and RPKM."""
    share = _share_of_whole_multiples(values, values, starts)
    evidence["whole_multiples_share"] = round(share, 4)
    spread = _spread_of_totals(values, starts)
    if share < 0.9 and (root := _recognise_root(values, starts, evidence, least_spread=spread)) is not None:
        return root
    if whole >= 0.5:
        return Scale("counts", f"estimated counts ({whole:.0%} are whole numbers)", evidence=evidence)
    if share >= 0.9:
        return _recovered(1.0, values, starts, evidence)
    evidence["spread_of_totals"] = round(spread, 4)
    if spread < 0.05:
        target = _round_target(float(np.median(np.add.reduceat(values, starts))))
        words = f"TPM or CPM-like (about {target:,.0f} per cell), not logged"
        return Scale("linear", words, target_sum=target, evidence=evidence)
    if _are_function_of_counts(values):
        words = "counts behind an unknown function (variance-stabilised?)"
        return Scale("linear", words, evidence=evidence | {"decided_by": "few distinct values"})
    few = values[values <= 5]
    below = float(np.median(np.ceil(few) - few)) if few.size else 0.5  # 0.5 by chance
    evidence["median_below_whole"] = round(below, 4)
    if below < 0.3:
        words = "counts corrected for ambient RNA or the like (a little below whole numbers)"
        return Scale("linear", words, evidence=evidence)
    return Scale("linear", "RPKM, FPKM or TPM-like, not logged", evidence=evidence)


def _are_function_of_counts(values: np.ndarray) -> bool:
    """Whether the same few values stand in all cells, as after acosh or Freeman-Tukey; decimals alone do not count."""
    if values.size < 2000 or np.mean(np.abs(values * 1e4 - np.round(values * 1e4)) < 1e-2) > 0.9:
        return False
    return bool(np.unique(values.astype(np.float32)).size < 0.05 * values.size)


def _recognise_root(values: np.ndarray, starts: np.ndarray, evidence: Evidence, *, least_spread: float) -> Scale | None:
    """Square roots or arcsinh: whole multiples of one UMI, or equal totals, once undone; None for neither.

    The totals must be far more equal than any logarithm makes them (`least_spread`): of large values arcsinh is one.
    """
    for kind, words in ROOT_WORDS.items():
        if kind == "asinh" and values.max() > LARGEST_LOG:
            continue
        linear = UNDO[kind](values)
        share = _share_of_whole_multiples(linear, values, starts)
        if share >= 0.95:
            evidence |= {"whole_multiples_share": round(share, 4), "decided_by": "whole multiples of one UMI"}
            return _recovered(kind, linear, starts, evidence)
        spread = _spread_of_totals(linear, starts)
        if spread < min(1e-3, 0.1 * least_spread):
            target = _round_target(float(np.median(np.add.reduceat(linear, starts))))
            evidence |= {"decided_by": "equal totals per cell", "spread_of_totals": round(spread, 6)}
            return Scale(
                kind,
                f"{words} of values normalised to about {target:,.6g} per cell",
                None,
                False,
                target,
                False,
                evidence,
            )
    return None


def _recognise_corrected(linear: np.ndarray, starts: np.ndarray, base: float, evidence: Evidence) -> Scale | None:
    """Logarithms of whole numbers that are no plain counts, as sctransform corrects them: some cells lack the ones."""
    smallest = np.minimum.reduceat(linear, starts)
    few = linear[linear <= 1e3]
    if base == 1.0 or few.size == 0 or np.mean(np.abs(few - np.maximum(np.round(few), 1)) < 0.02) < 0.98:
        return None
    ones = float(np.mean(np.abs(smallest - 1.0) < 0.02))
    if ones < 0.3 or ones > 0.99:  # none: counts times a factor; all: plain counts
        return None
    evidence |= {"decided_by": "whole numbers, not all cells with ones", "cells_without_ones_share": round(1 - ones, 4)}
    words = f"{BASE_WORDS[base]}(x + 1) of whole numbers that were corrected for depth (as sctransform does)"
    return Scale("log1p", words, base, evidence=evidence)


def _recovered(
    base: float | Kind, linear: np.ndarray, starts: np.ndarray, evidence: Evidence, *, twice: bool = False
) -> Scale:
    """The verdict when values are whole multiples of one UMI once that logarithm, "sqrt" or "asinh" is undone."""
    one_umi = np.minimum.reduceat(linear, starts)
    evidence |= {"one_umi_median": float(np.median(one_umi)), **_exactness(linear, starts)}
    target = None
    if np.allclose(one_umi, 1.0, atol=1e-3):
        of = "raw counts"
    elif one_umi.size >= 5 and np.allclose(one_umi, one_umi[0], rtol=1e-3):
        of = f"raw counts, each times {one_umi[0]:.6g}"
    else:
        target = _target_of(linear, starts, one_umi, evidence)
        of = f"counts normalised to {target:,.0f} per cell" if target else "normalised counts"
    if isinstance(base, str):
        words = f"{ROOT_WORDS[base]} of {of}"
        return Scale(base, words, target_sum=target, counts_recovered=True, evidence=evidence)
    if base == 1.0:
        return Scale("linear", f"{of}, not logged", target_sum=target, counts_recovered=True, evidence=evidence)
    words = f"{_log_words(base, twice=twice)} of {of}"
    return Scale("log1p", words, base, twice, target_sum=target, counts_recovered=True, evidence=evidence)


def _log_words(base: float, *, twice: bool) -> str:
    return f"{BASE_WORDS[base]}(x + 1)" + (" taken twice" if twice else "")


def _target_of(linear: np.ndarray, starts: np.ndarray, one_umi: np.ndarray, evidence: Evidence) -> float | None:
    """Total that cells were normalised to: equal totals show it; in a panel, target / one UMI is a whole library."""
    spread = _spread_of_totals(linear, starts)
    evidence["spread_of_totals"] = round(spread, 4)
    if spread < 0.02:
        return _round_target(float(np.median(np.add.reduceat(linear, starts))))
    for target in USUAL_TARGETS:
        libraries = target / one_umi
        libraries = libraries[(libraries > 10) & (libraries < 20_000)]
        if libraries.size < 5:
            continue
        share = float(np.mean(np.abs(libraries - np.round(libraries)) < 0.1))
        if share >= 0.9:
            evidence["whole_libraries_share"] = round(share, 4)
            return target
    return None


def _square(values: np.ndarray) -> np.ndarray:
    """x from its square root; negative zeros and the like stay what they are."""
    return values * values


def _undo_asinh(values: np.ndarray) -> np.ndarray:
    """x / cofactor from arcsinh(x / cofactor)."""
    with np.errstate(over="ignore"):
        return np.sinh(values)


def _undo_log(values: np.ndarray, base: float, *, twice: bool = False) -> np.ndarray:
    """x from log_base(x + 1)."""
    with np.errstate(over="ignore"):
        linear = np.expm1(values * math.log(base))
        return np.expm1(linear * math.log(base)) if twice else linear


def _share_of_whole_multiples(linear: np.ndarray, stored: np.ndarray, starts: np.ndarray) -> float:
    """Share of small values that are whole multiples of their cell's smallest value; chance gives 0.1."""
    smallest = np.minimum.reduceat(linear, starts)
    if _is_decimal_step(np.minimum.reduceat(stored, starts)):
        return 0.0
    with np.errstate(over="ignore", invalid="ignore"):
        multiples = linear / np.repeat(smallest, np.diff(np.append(starts, linear.size)))
    telling = multiples[(multiples > 1.001) & (multiples <= FEW_UMI)]
    if telling.size < 3:
        return 0.0
    return float(np.mean(np.abs(telling - np.round(telling)) < NEAR))


def _is_decimal_step(smallest: np.ndarray) -> bool:
    """Whether the cells' smallest values are one and the same power of ten: rounding to decimals, not one UMI."""
    step = float(np.median(smallest))
    decimal = 10.0 ** round(math.log10(step))
    return (
        decimal < 1
        and math.isclose(step, decimal, rel_tol=1e-4)
        and float(np.mean(np.isclose(smallest, step, rtol=1e-4))) > 0.5
    )


def _spread_of_totals(linear: np.ndarray, starts: np.ndarray) -> float:
    """Coefficient of variation of the cells' totals; infinite for fewer than five cells."""
    if starts.size < 5:
        return math.inf
    with np.errstate(over="ignore", invalid="ignore"):
        totals = np.add.reduceat(linear, starts)
        spread = float(np.std(totals) / np.mean(totals))
    return spread if math.isfinite(spread) else math.inf


def _round_target(total: float) -> float:
    """A usual target when within one per cent of it, else the number as it is."""
    return next((target for target in USUAL_TARGETS if math.isclose(total, target, rel_tol=0.01)), total)


def _counts_from_units(linear: np.ndarray, indptr: np.ndarray) -> np.ndarray:
    """Divide each cell by one UMI and round; a cell that does not come out whole keeps its unrounded multiples."""
    filled = np.diff(indptr) > 0
    starts, lengths = indptr[:-1][filled], np.diff(indptr)[filled]
    if starts.size == 0:
        return linear
    multiples, solved = _multiples_of_one_umi(linear, starts, lengths)
    return np.where(np.repeat(solved, lengths), np.round(multiples), multiples)


def _multiples_of_one_umi(linear: np.ndarray, starts: np.ndarray, lengths: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Each value as a multiple of its cell's one UMI, and whether the cell [n] comes out in whole numbers.

    The smallest value of a cell says roughly what one UMI is; the small counts together then say it exactly, which
    float16 and tables of few decimals need for their large counts.
    """
    multiples = linear / np.repeat(np.minimum.reduceat(linear, starts), lengths)
    solved = np.zeros(starts.size, dtype=bool)
    for smallest_count in (1, 2, 3, 4):  # a shallow panel may hold no single UMI of a cell
        scaled = multiples * smallest_count if smallest_count > 1 else multiples
        telling = scaled <= FEW_UMI
        near = telling & (np.abs(scaled - np.round(scaled)) < NEAR)
        share = np.add.reduceat(near, starts, dtype=np.int64) / np.add.reduceat(telling, starts, dtype=np.int64)
        now = ~solved & (share >= 0.95)
        multiples = np.where(np.repeat(now, lengths), scaled, multiples) if smallest_count > 1 else multiples
        solved |= now
        if solved.all():
            break
    if np.abs(multiples - np.round(multiples)).max() < 10 * WHOLE:
        return multiples, solved  # the smallest value was exact
    for few in (FEW_UMI, 10 * FEW_UMI):
        whole = np.round(multiples)
        weight = whole * ((multiples <= few) & (np.abs(multiples - whole) < 2 * NEAR))
        bottom = np.add.reduceat(weight * whole, starts)
        one = np.where(bottom > 0, np.add.reduceat(weight * multiples, starts) / np.maximum(bottom, 1), 1.0)
        multiples = multiples / np.repeat(np.where(solved, one, 1.0), lengths)
    return multiples, solved


def _exactness(linear: np.ndarray, starts: np.ndarray) -> Evidence:
    """How near the recovered counts lie to whole numbers: the narrowest tolerance that nearly all values keep."""
    lengths = np.diff(np.append(starts, linear.size))
    multiples, solved = _multiples_of_one_umi(linear, starts, lengths)
    off = np.abs(multiples - np.round(multiples))
    shares = {tolerance: float(np.mean(off <= tolerance)) for tolerance in TOLERANCES}
    tolerance = next((t for t in TOLERANCES if shares[t] >= 0.95), TOLERANCES[-1])
    return {
        "recovered_within": tolerance,
        "recovered_share": round(shares[tolerance], 4),
        "recovered_cells_share": round(float(solved.mean()), 4),
    }


def _without_zeros(rows: sp.csr_matrix) -> sp.csr_matrix:
    """A float64 copy without stored zeros."""
    copy = sp.csr_matrix(rows, dtype=np.float64, copy=True)
    copy.eliminate_zeros()
    return copy


def _starts(rows: sp.csr_matrix) -> np.ndarray:
    """Where each non-empty row begins in rows.data, for reduceat."""
    return rows.indptr[:-1][np.diff(rows.indptr) > 0]


ROOT_WORDS: dict[Kind, str] = {"sqrt": "square root", "asinh": "arcsinh"}
UNDO: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "sqrt": _square,
    "asinh": _undo_asinh,
    "log1p": lambda values: _undo_log(values, math.e),
}


def log_hint_of(uns: Mapping[str, object]) -> float | None:
    """Base that scanpy noted when it took the logarithm, if it did."""
    note = uns.get("log1p")
    if not isinstance(note, Mapping):
        return None
    base = note.get("base")
    return float(base) if isinstance(base, int | float | np.number) and base > 1 else math.e
