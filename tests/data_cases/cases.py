"""Files as people bring them: how each is made, and what the doctor must say of it."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd
import scipy.sparse as sp
from anndata import AnnData
from disguises import (
    LN2,
    LN10,
    N_CELLS,
    N_GENES,
    counts,
    droplets,
    full_length,
    lognorm,
    make,
    names,
    older_names,
    rpkm,
    size_factors,
    symbols,
    to_total,
    tpm,
    variable_genes,
    with_nan,
    z_scores,
)

from instructcell.errors import GeneAlignmentError, InstructCellError, MatrixError


@dataclass(frozen=True)
class Case:
    """One file.

    Attributes
    ----------
    make
        The file.
    verdict
        Fields of the report and their values.
    says
        Patterns that the card must hold.
    given
        What the user says: layer, scale, species, gene_column.
    exact
        Share of the demo's counts that must come back unchanged; None where they cannot or were changed by the case.
    refused, words
        The error, and what its message must hold.
    aligned
        Whether the case is about aligning with a model's genes rather than about the report alone.
    """

    make: Callable[[], AnnData]
    verdict: dict[str, Any] = field(default_factory=dict)
    says: tuple[str, ...] = ()
    given: dict[str, Any] = field(default_factory=dict)
    exact: float | None = None
    refused: type[InstructCellError] | None = None
    words: str = ""
    aligned: bool = False


def scale(kind: str, *, base: float | None = None, target: float | None = None, **more: Any) -> dict[str, Any]:
    return {"scale": kind, "log_base": base, "target_sum": target, **more}


RAW = scale("counts", counts_recovered=False, matrix="X")
LOGNORM = scale("log1p", base=math.e, target=1e4, counts_recovered=True)


def depth_corrected() -> np.ndarray:
    """Counts brought to the median depth and rounded, as sctransform corrects them."""
    depth = counts().sum(axis=1, keepdims=True)
    return np.round(counts() / (depth / np.median(depth)))


def with_more_features(features: list[str], depth: float) -> AnnData:
    """The demo cells with features behind the genes that are none, each of about `depth` counts in every cell."""
    more = np.random.default_rng(4).poisson(depth, (N_CELLS, len(features)))
    return make(np.hstack([counts(), more]), [*symbols(), *features])


def human_panel_with_mouse_genes() -> AnnData:
    """Human cells of a thousand genes, counted against both genomes, so that most names are of the mouse."""
    matrix = np.hstack([counts()[:, :1000], (counts() * 0.02).round()])
    human = [f"GRCh38_{name}" for name in symbols()[:1000]]
    return make(matrix, human + [f"mm10___{name}" for name in names("mouse_symbol")])


def cells_of_two_species() -> AnnData:
    """A barnyard: two thirds of the cells are human, one third are mouse."""
    human = np.arange(N_CELLS) % 3 > 0
    matrix = np.hstack([counts() * human[:, None], counts() * ~human[:, None]])
    return make(matrix, [f"GRCh38_{name}" for name in symbols()] + [f"mm10___{name}" for name in names("mouse_symbol")])


def of(matrix: Callable[[], np.ndarray], verdict: dict[str, Any], **more: Any) -> Case:
    """A case whose X is a matrix over the demo genes."""
    form = more.pop("form", "csr")
    return Case(lambda: make(matrix(), form=form), verdict, **more)


def named(genes: Callable[[], list[str]], says: tuple[str, ...] = (), *, least: int = N_GENES, **verdict: Any) -> Case:
    """Raw counts under other gene names."""
    known = {"n_known_genes": least} if least == N_GENES else {"n_known_genes_at_least": least}
    return Case(lambda: make(genes=genes()), {**RAW, **known, **verdict}, says)


def layered(x: np.ndarray | None, *, raw: AnnData | None = None, **layers: object) -> AnnData:
    """An AnnData with matrices in several places."""
    adata = make(counts() if x is None else x)
    if raw is not None:
        adata.raw = raw
    for name, values in layers.items():
        adata.layers[name] = values
    if x is None:
        adata.X = None
    return adata


def panel(n: int, values: np.ndarray) -> AnnData:
    """Some of the genes only, the totals of the cells being those over all."""
    chosen = variable_genes(n)
    return make(values[:, chosen], [symbols()[gene] for gene in chosen])


def with_column(name: str, values: list[str], genes: list[str], **more: list[str]) -> AnnData:
    adata = make(genes=genes)
    for column, entries in {name: values, **more}.items():
        adata.var[column] = entries
    return adata


def twice(n: int, matrix: np.ndarray | None = None, suffix: str = "") -> AnnData:
    """The first n genes stand a second time at the end."""
    matrix = counts() if matrix is None else matrix
    genes = [*symbols(), *(f"{name}{suffix}" for name in symbols()[:n])]
    return make(np.hstack([matrix, matrix[:, :n]]), genes)


def replaced(changes: dict[str, str]) -> list[str]:
    """The demo symbols with some last ones replaced: name -> the symbol whose place it takes is of no matter."""
    kept = [name for name in symbols() if name not in changes.values()]
    return [*kept[: N_GENES - len(changes)], *changes]


def barnyard(prefix: bool) -> AnnData:
    """Human cells measured against both genomes: a few counts fall on mouse genes."""
    mouse = names("mouse_symbol")[:3500]
    few = np.random.default_rng(2).binomial(counts()[:, :3500].astype(int), 0.05)
    genes = [f"GRCh38_{name}" for name in symbols()] if prefix else symbols()
    other = [f"mm10_{name}" for name in mouse] if prefix else mouse
    return make(np.hstack([counts(), few]), [*genes, *other])


def antibodies() -> AnnData:
    """Ten antibodies that bear names of genes, with counts far above those of genes."""
    adata = make(np.hstack([counts(), np.full((N_CELLS, 10), 500.0)]), [*symbols(), *(f"CD{n}" for n in range(1, 11))])
    adata.var["feature_types"] = ["Gene Expression"] * N_GENES + ["Antibody Capture"] * 10
    return adata


def mitochondria(names: list[str]) -> AnnData:
    """A third of every cell's counts in one gene of the mitochondria."""
    matrix = counts().copy()
    matrix[:, 0] = np.round(matrix[:, 1:].sum(axis=1) / 2)
    return make(matrix, names)


def doublets() -> np.ndarray:
    """A fifth of the cells five times as deep."""
    even = np.random.default_rng(4).binomial(
        counts().astype(int), np.minimum(1, 2500 / counts().sum(axis=1, keepdims=True))
    )
    even[::5] *= 1
    deep = even.astype(np.float64)
    deep[::5] = np.random.default_rng(6).poisson(deep[::5] * 5)
    return deep


def half() -> sp.csr_matrix:
    """A sparse matrix of float16, which scipy stores but can hardly use."""
    values = sp.csr_matrix(lognorm())
    return sp.csr_matrix((values.data.astype(np.float16), values.indices, values.indptr), shape=values.shape)


def estimated() -> np.ndarray:
    """Counts of which a fifth were shared among genes, as kallisto does."""
    matrix = counts().copy()
    shared = np.random.default_rng(8).random(matrix.shape) < 0.2
    return np.where(shared & (matrix > 1), matrix - 0.37, matrix)


def ambient_removed() -> np.ndarray:
    """Counts less an estimated ambient share, not rounded."""
    ambient = counts().mean(axis=0) * np.random.default_rng(9).uniform(0.02, 0.2, (N_CELLS, 1))
    return np.maximum(counts() - ambient, 0)


def hinted() -> AnnData:
    adata = make(np.log1p(rpkm()) / LN2)
    adata.uns["log1p"] = {"base": 2.0}
    return adata


def empty_cells(n: int) -> np.ndarray:
    matrix = counts().copy()
    matrix[:n] = 0
    return matrix


def renamed_cells() -> AnnData:
    adata = make()
    adata.obs_names = ["same", "same", *adata.obs_names[2:]]
    return adata


def numbers() -> list[str]:
    return [str(i) for i in range(N_GENES)]


SCALES = {
    "raw counts, csr int32": of(lambda: counts().astype(np.int32), RAW, exact=1.0),
    "raw counts, csr float32": of(lambda: counts().astype(np.float32), RAW, exact=1.0),
    "raw counts, csr float64": of(counts, RAW, exact=1.0),
    "raw counts, csc": of(counts, RAW, exact=1.0, form="csc"),
    "raw counts, dense float64": of(counts, RAW, exact=1.0, form="dense"),
    "raw counts, dense int64": of(lambda: counts().astype(np.int64), RAW, exact=1.0, form="dense"),
    "raw counts, dense uint16": of(lambda: counts().astype(np.uint16), RAW, exact=1.0, form="dense"),
    "raw counts, csr array": of(lambda: sp.csr_array(counts()), RAW, exact=1.0, form="as it is"),
    "CP10k and log1p, float32": of(lognorm, LOGNORM, exact=1.0),
    "CP10k and log1p, float64 dense": of(lambda: lognorm("float64"), LOGNORM, exact=1.0, form="dense"),
    "CP10k and log1p, float16": of(lambda: lognorm("float16"), LOGNORM, exact=0.995, form="dense"),
    "CP10k and log1p, sparse float16": of(half, LOGNORM, exact=0.995, form="as it is"),
    "CP10k and log1p, csc": of(lognorm, LOGNORM, exact=1.0, form="csc"),
    "CP10k and log1p, three decimals": of(lambda: np.round(lognorm("float64"), 3), LOGNORM, exact=0.995),
    "CP10k and log1p, six digits": of(lambda: np.round(lognorm("float64"), 5), LOGNORM, exact=1.0),
    "median total and log1p": of(
        lambda: lognorm(target=5231.0), LOGNORM | {"target_sum": 5231.0}, says=("normalised to 5,231",), exact=1.0
    ),
    "CP100k and log1p": of(lambda: lognorm(target=1e5), LOGNORM | {"target_sum": 1e5}, exact=1.0),
    "CPM and log1p": of(lambda: lognorm(target=1e6), LOGNORM | {"target_sum": 1e6}, exact=1.0),
    "CP10k and log2": of(lambda: lognorm("float64") / LN2, LOGNORM | {"log_base": 2.0}, exact=1.0),
    "CPM and log2": of(
        lambda: lognorm("float64", 1e6) / LN2, LOGNORM | {"log_base": 2.0, "target_sum": 1e6}, exact=1.0
    ),
    "CP10k and log10": of(lambda: lognorm("float64") / LN10, LOGNORM | {"log_base": 10.0}, exact=1.0),
    "CPM and log10, float32": of(
        lambda: (lognorm("float64", 1e6) / LN10).astype(np.float32),
        LOGNORM | {"log_base": 10.0, "target_sum": 1e6},
        exact=1.0,
    ),
    "log1p twice": of(
        lambda: np.log1p(lognorm("float64")), LOGNORM, says=("taken twice", "counts recovered"), exact=1.0
    ),
    "CP10k, not logged": of(lambda: to_total(counts()), scale("linear", target=1e4, counts_recovered=True), exact=1.0),
    "CPM": of(lambda: to_total(counts(), 1e6), scale("linear", target=1e6, counts_recovered=True), exact=1.0),
    "CPM of two decimals": of(
        lambda: np.round(to_total(counts(), 1e6), 2), scale("linear", target=1e6, counts_recovered=True), exact=1.0
    ),
    "log1p of raw counts": of(
        lambda: np.log1p(counts()), scale("log1p", base=math.e, counts_recovered=True), exact=1.0
    ),
    "log2 of raw counts": of(
        lambda: np.log1p(counts()) / LN2, scale("log1p", base=2.0, counts_recovered=True), exact=1.0
    ),
    "size factors and log2": of(
        lambda: np.log1p(counts() / size_factors()) / LN2, scale("log1p", base=2.0, counts_recovered=True), exact=1.0
    ),
    "size factors, not logged": of(
        lambda: counts() / size_factors(), scale("linear", counts_recovered=True), exact=1.0
    ),
    "2,000 variable genes of CP10k and log1p": Case(
        lambda: panel(2000, lognorm()), LOGNORM | {"n_genes": 2000}, exact=0.99
    ),
    "2,000 variable genes of raw counts": Case(lambda: panel(2000, counts()), RAW | {"n_genes": 2000}, exact=1.0),
    "300 variable genes of CP10k and log1p": Case(lambda: panel(300, lognorm()), LOGNORM, exact=0.9),
    "300 variable genes of CPM": Case(
        lambda: panel(300, to_total(counts(), 1e6)), scale("linear", target=1e6, counts_recovered=True), exact=0.9
    ),
    "TPM": of(tpm, scale("linear", target=1e6, counts_recovered=False), says=("TPM or CPM-like",)),
    "TPM and log2": of(lambda: np.log1p(tpm()) / LN2, scale("log1p", base=2.0, target=1e6, counts_recovered=False)),
    "TPM and log1p": of(lambda: np.log1p(tpm()), scale("log1p", base=math.e, target=1e6, counts_recovered=False)),
    "TPM and log10": of(lambda: np.log1p(tpm()) / LN10, scale("log1p", base=10.0, target=1e6, counts_recovered=False)),
    "TPM and log2 twice": of(
        lambda: np.log2(np.log2(tpm() + 1) + 1),
        scale("log1p", base=2.0, target=1e6, counts_recovered=False),
        says=("taken twice",),
    ),
    "RPKM": of(rpkm, scale("linear", counts_recovered=False), says=("RPKM, FPKM or TPM-like",)),
    "RPKM and log2, base named by the file": Case(hinted, scale("log1p", base=2.0, counts_recovered=False)),
    "RPKM and log2, base unknown": of(
        lambda: np.log1p(rpkm()) / LN2, {"scale": "log1p", "counts_recovered": False}, says=("base of the logarithm",)
    ),
    "CP10k rounded to whole numbers": of(
        lambda: np.round(to_total(counts())), scale("linear", target=1e4), says=("rounded to whole numbers",)
    ),
    "CPM rounded to whole numbers": of(
        lambda: np.round(to_total(counts(), 1e6)), scale("linear", target=1e6), says=("rounded to whole numbers",)
    ),
    "TPM rounded to whole numbers": of(
        lambda: np.round(tpm()), scale("linear", target=1e6), says=("rounded to whole numbers",)
    ),
    "CP10k and log1p rounded to whole numbers": of(
        lambda: np.round(lognorm()), scale("log1p", base=math.e, counts_recovered=False), says=("rounded",)
    ),
    "counts times ten": of(
        lambda: counts() * 10, scale("linear", counts_recovered=True), says=("each times 10",), exact=1.0
    ),
    "every cell downsampled to one total": of(
        lambda: np.random.default_rng(0).multinomial(900, to_total(counts(), 1.0)), RAW, says=("downsampled to 900",)
    ),
    "collision-corrected UMIs": of(
        lambda: -4096 * np.log1p(-counts() / 4096), scale("counts"), says=("4096 barcodes",)
    ),
    "detected or not": of(lambda: counts() > 0, RAW | {"technology": "unknown"}, says=("zeros and ones",)),
    "estimated counts": of(estimated, scale("counts"), says=("estimated counts",)),
    "counts less ambient RNA": of(ambient_removed, scale("linear", counts_recovered=False)),
    "z-scores shifted above zero": of(
        lambda: z_scores() - z_scores().min(axis=0), scale("scaled"), says=("scaled per gene",)
    ),
    "log values divided by each gene's spread": of(
        lambda: lognorm("float64") / (lognorm("float64").std(axis=0) + 1e-9), scale("scaled"), says=("scaled per gene",)
    ),
    "z-scores shifted by one number": of(
        lambda: z_scores() - z_scores().min(), scale("scaled"), says=("scaled per gene",)
    ),
    "read counts of full-length cDNA": of(full_length, RAW | {"technology": "full-length"}),
    "TPM of full-length cDNA": of(
        lambda: tpm(full_length()), {"scale": "linear", "target_sum": 1e6, "technology": "full-length"}
    ),
    "square root of raw counts": of(
        lambda: np.sqrt(counts()), scale("sqrt", counts_recovered=True), says=("square root of raw counts",), exact=1.0
    ),
    "square root of CP10k": of(
        lambda: np.sqrt(to_total(counts())), scale("sqrt", target=1e4, counts_recovered=True), exact=1.0
    ),
    "square root of CP10k, said": of(
        lambda: np.sqrt(to_total(counts())), scale("sqrt", counts_recovered=True, target=1e4), given={"scale": "sqrt"}
    ),
    "arcsinh of counts with a cofactor": of(
        lambda: np.arcsinh(counts() / 5),
        scale("asinh", counts_recovered=True),
        says=("arcsinh of raw counts, each times 0.2",),
        exact=1.0,
    ),
    "arcsinh of CP10k": of(
        lambda: np.arcsinh(to_total(counts())), scale("asinh", target=1e4, counts_recovered=True), exact=1.0
    ),
    "arcsinh of TPM": of(lambda: np.arcsinh(tpm() / 1e5), scale("asinh", target=10.0, counts_recovered=False)),
    "acosh, a variance-stabilised count": of(
        lambda: np.arccosh(0.1 * counts() + 1) / np.sqrt(0.05),
        scale("linear", counts_recovered=False),
        says=("unknown function.*bring the raw counts",),
    ),
    "shares of a cell": of(
        lambda: to_total(counts(), 1.0), scale("linear", target=1.0, counts_recovered=True), exact=1.0
    ),
    "halves": of(
        lambda: counts() / 2, scale("linear", counts_recovered=True), says=("raw counts, each times 0.5",), exact=1.0
    ),
    "counts with a little noise": of(
        lambda: np.abs(counts() + (counts() > 0) * np.random.default_rng(0).normal(0, 0.01, counts().shape)),
        RAW | {"technology": "UMI"},
        says=("whole numbers but for a little noise",),
    ),
    "corrected counts and log1p, as sctransform": of(
        lambda: np.log1p(depth_corrected()),
        scale("log1p", base=math.e, counts_recovered=False),
        says=("corrected for depth",),
    ),
    "a little below whole numbers": of(
        lambda: counts() * np.random.default_rng(2).uniform(0.8, 0.95, counts().shape),
        scale("linear", counts_recovered=False),
        says=("corrected for ambient RNA",),
    ),
    "each gene to one largest value": of(
        lambda: lognorm("float64") / np.maximum(lognorm("float64").max(axis=0), 1e-9),
        scale("scaled", counts_recovered=False),
        says=("scaled per gene to one largest value",),
    ),
    "ranks within each cell": of(
        lambda: (np.argsort(np.argsort(counts(), axis=1), axis=1) * (counts() > 0)).astype(float),
        scale("scaled", counts_recovered=False),
        says=("ranks of the genes within each cell",),
    ),
    "a pseudocount in every value": of(
        lambda: np.log2(to_total(counts() + 0.3, 1e6) + 1),
        scale("log1p", base=2.0, target=1e6, counts_recovered=False),
        says=("100% of the values are above zero",),
    ),
    "counts are UMIs": of(counts, RAW | {"technology": "UMI"}),
    "recovered counts are UMIs": of(lognorm, LOGNORM | {"technology": "UMI"}),
}

PLACES = {
    "log values in X, counts in a layer": Case(
        lambda: layered(np.log1p(tpm()), counts=sp.csr_matrix(counts())),
        RAW | {"matrix": "layers['counts']"},
        says=(r"layers\['counts'\] was used; X",),
        exact=1.0,
    ),
    "z-scores in X, counts in raw": Case(
        lambda: layered(z_scores(), raw=make()), RAW | {"matrix": "raw.X"}, says=("X: holds negative",), exact=1.0
    ),
    "z-scores in X, log values in raw": Case(
        lambda: layered(z_scores(), raw=make(lognorm())), LOGNORM | {"matrix": "raw.X"}, exact=1.0
    ),
    "z-scores in X, counts in a layer": Case(
        lambda: layered(z_scores(), raw_counts=counts()), RAW | {"matrix": "layers['raw_counts']"}, exact=1.0
    ),
    "variable genes in X, all genes in raw": Case(
        lambda: layered_panel(), LOGNORM | {"matrix": "raw.X", "n_genes": N_GENES}, exact=1.0
    ),
    "no X, counts in a layer": Case(
        lambda: layered(None, umi=sp.csr_matrix(counts())), RAW | {"matrix": "layers['umi']"}, exact=1.0
    ),
    "NaN in the counts layer, counts in X": Case(
        lambda: layered(counts(), counts=with_nan(np.nan)), RAW | {"matrix": "X"}, exact=1.0
    ),
    "spliced and unspliced beside X": Case(
        lambda: layered(counts(), spliced=np.floor(counts() * 0.8), unspliced=np.ceil(counts() * 0.2)), RAW, exact=1.0
    ),
    "log values in X beside spliced counts": Case(
        lambda: layered(lognorm(), spliced=np.floor(counts() * 0.8), unspliced=np.ceil(counts() * 0.2)),
        LOGNORM | {"matrix": "X"},
        exact=1.0,
    ),
    "spliced counts alone": Case(
        lambda: layered(None, spliced=counts(), unspliced=np.ceil(counts() * 0.2)),
        RAW | {"matrix": "layers['spliced']"},
        exact=1.0,
    ),
    "a scaled layer beside counts": Case(lambda: layered(counts(), scaled=z_scores()), RAW, exact=1.0),
    "detected or not in X, counts in a layer": Case(
        lambda: layered((counts() > 0).astype(float), counts=counts()), RAW | {"matrix": "layers['counts']"}, exact=1.0
    ),
    "log values in X, the same cells' counts in raw": Case(
        lambda: layered(lognorm(), raw=make()), RAW | {"matrix": "raw.X"}, exact=1.0
    ),
    "X that was asked for": Case(
        lambda: layered(lognorm(), counts=counts()), LOGNORM | {"matrix": "X"}, given={"layer": "X"}, exact=1.0
    ),
    "raw that was asked for": Case(
        lambda: layered(counts(), raw=make(lognorm())), LOGNORM | {"matrix": "raw.X"}, given={"layer": "raw"}, exact=1.0
    ),
}

GENES = {
    "symbols": named(symbols, id_type="symbol", species="human"),
    "Ensembl ids": named(lambda: names("ensembl_id"), id_type="ensembl", species="human"),
    "Ensembl ids with versions": named(
        lambda: [f"{name}.{i % 17 + 1}" for i, name in enumerate(names("ensembl_id"))], id_type="ensembl"
    ),
    "Entrez ids": named(lambda: names("entrez_id"), id_type="entrez", species="human"),
    "mouse Entrez ids": named(
        lambda: names("mouse_entrez_id"), ("orthologs",), least=3900, id_type="entrez", species="mouse"
    ),
    "Entrez ids that became floats": named(lambda: [f"{name}.0" for name in names("entrez_id")], id_type="entrez"),
    "symbols in lower case": named(lambda: [name.lower() for name in symbols()], least=3990, id_type="symbol"),
    "older symbols and aliases": named(older_names, least=3900, id_type="alias", species="human"),
    "half symbols, half Ensembl ids": named(lambda: [*symbols()[:2000], *names("ensembl_id")[2000:]], id_type="mixed"),
    "symbol and Ensembl id in one": named(
        lambda: [f"{a}_{b}" for a, b in zip(symbols(), names("ensembl_id"), strict=True)], id_type="ensembl"
    ),
    "dots for dashes": named(lambda: [name.replace("-", ".") for name in symbols()], least=3990),
    "genome prefix": named(lambda: [f"GRCh38_{name}" for name in symbols()], species="human"),
    "genome prefix with a release": named(lambda: [f"GRCh38-2024-A_{name}" for name in symbols()], species="human"),
    "prefix of an annotation file": named(lambda: [f"gene-{name}" for name in symbols()], species="human"),
    "prefix of an assay": named(lambda: [f"rna_{name}" for name in names("mouse_symbol")], species="mouse"),
    "quotes around names": named(lambda: [f'"{name}"' for name in symbols()]),
    "names as Python prints bytes": named(lambda: [f"b'{name}'" for name in symbols()]),
    "symbol and number, as TCGA": named(lambda: [f"{name}|{row}" for row, name in enumerate(symbols())], least=3990),
    "symbol and Entrez id in brackets": named(
        lambda: [f"{name} ({number})" for name, number in zip(symbols(), names("entrez_id"), strict=True)], least=3990
    ),
    "chromosome suffix": named(lambda: [f"{name}__chr1" for name in symbols()], species="human"),
    "blanks around names": named(lambda: [f" {name} " for name in symbols()]),
    "mouse symbols": named(lambda: names("mouse_symbol"), ("orthologs",), species="mouse", id_type="symbol"),
    "mouse Ensembl ids": named(lambda: names("mouse_ensembl_id"), species="mouse", id_type="ensembl"),
    "mouse genome prefix": named(lambda: [f"mm10___{name}" for name in names("mouse_symbol")], species="mouse"),
    "mouse symbols in capitals, species given": Case(
        lambda: make(genes=[name.upper() for name in names("mouse_symbol")]),
        RAW | {"species": "mouse", "n_known_genes_at_least": 3900},
        given={"species": "Mus musculus"},
    ),
    "two genomes with prefixes": Case(
        lambda: barnyard(True),
        RAW | {"species": "human", "n_known_genes": N_GENES, "n_left_out_genes": 3500},
        says=("mixes human and mouse genes and was read as human; 3,500 mouse genes with 4% of the counts",),
    ),
    "two genomes without prefixes": Case(
        lambda: barnyard(False),
        RAW | {"species": "human", "n_left_out_genes_at_least": 3400},
        says=("mixes human and mouse",),
    ),
    "two genomes, mouse asked for": Case(
        lambda: barnyard(True), RAW | {"species": "mouse", "n_known_genes": 3500}, given={"species": "mouse"}
    ),
    "dates of a spreadsheet": named(
        lambda: replaced({"2-Sep": "SEPTIN2", "7-Mar": "MARCHF7", "11-Sep": "SEPTIN11"}),
        ("turned into dates were mended: 3",),
    ),
    "months before days": named(
        lambda: replaced({"Sep-02": "SEPTIN2", "Mar-07": "MARCHF7"}), ("turned into dates were mended: 2",)
    ),
    "dates as a database writes them": named(
        lambda: replaced({"2021-09-02": "SEPTIN2", "2021-03-07 00:00:00": "MARCHF7"}), ("were mended: 2",)
    ),
    "dates as numbers of days": named(lambda: replaced({"44441": "SEPTIN2", "44262": "MARCHF7"}), ("were mended: 2",)),
    "a date that two genes can be": named(
        lambda: replaced({"1-Mar": "MARCHF1"} | dict.fromkeys(("x1",), "MTARC1")),
        ("1-Mar was MARCHF1 or MTARC1; it was read as MARCHF1",),
        least=N_GENES - 1,
    ),
    "numbered genes, symbols in a column": Case(
        lambda: with_column("feature_name", symbols(), numbers()),
        RAW | {"gene_column": "feature_name", "n_known_genes": N_GENES},
    ),
    "numbered genes, symbols in a column of another spelling": Case(
        lambda: with_column("Gene.Symbol", symbols(), numbers()),
        RAW | {"gene_column": "Gene.Symbol", "n_known_genes": N_GENES},
    ),
    "numbered genes, symbols in a column of any name": Case(
        lambda: with_column("Description", symbols(), numbers()),
        RAW | {"gene_column": "Description", "n_known_genes": N_GENES},
    ),
    "sums of reads below the genes": Case(
        lambda: with_more_features(["__no_feature", "__ambiguous", "N_unmapped"], 1e5),
        RAW | {"n_left_out_genes": 3, "n_known_genes": N_GENES},
        says=("3 features are not gene expression",),
    ),
    "spike-ins": Case(
        lambda: with_more_features([f"ERCC-{number:05d}" for number in range(2, 22)], 500),
        RAW | {"n_left_out_genes": 20},
        says=("20 features are not gene expression.*spike-ins",),
    ),
    "antibodies without types": Case(
        lambda: with_more_features(["CD3_TotalSeqB", "CD19_TotalSeqB", "ADT-CD4", "Hashtag1"], 300),
        RAW | {"n_left_out_genes": 4},
    ),
    "a human panel beside all mouse genes": Case(
        human_panel_with_mouse_genes,
        RAW | {"species": "human", "n_known_genes": 1000},
        says=("mixes human and mouse genes and was read as human",),
    ),
    "cells of two species": Case(
        cells_of_two_species,
        RAW | {"species": "human"},
        says=("% of the cells are mostly mouse",),
    ),
    "numbered genes, ids and symbols in columns": Case(
        lambda: with_column("gene_ids", names("ensembl_id"), numbers(), my_notes=["x"] * N_GENES),
        RAW | {"gene_column": "gene_ids", "id_type": "ensembl"},
    ),
    "a column that was asked for": Case(
        lambda: with_column("mine", names("ensembl_id"), symbols()),
        RAW | {"gene_column": "mine", "id_type": "ensembl"},
        given={"gene_column": "mine"},
    ),
    "repeated symbols, counts": Case(
        lambda: twice(50),
        RAW | {"n_duplicate_genes": 50, "n_merged_genes": 50},
        says=("50 gene names repeat an earlier one; their counts are summed",),
    ),
    "repeated symbols, log values": Case(
        lambda: twice(50, lognorm()), LOGNORM | {"n_duplicate_genes": 50, "target_sum": ...}, says=("summed",)
    ),
    "repeated symbols that were numbered": Case(
        lambda: twice(50, suffix="-1"),
        RAW | {"n_merged_genes": 50},
        says=("50 gene names mean a gene that is there already",),
    ),
    "two names of one gene": Case(
        lambda: make(np.hstack([counts(), counts()[:, :1]]), [*symbols(), f"{names('ensembl_id')[0]}.3"]),
        RAW | {"n_merged_genes": 1, "n_duplicate_genes": 0},
    ),
    "genes without a name": Case(
        lambda: make(genes=[*symbols()[:3000], *[""] * 500, *["nan"] * 500]),
        RAW | {"n_known_genes": 3000, "n_duplicate_genes": 0},
    ),
    "antibodies beside genes": Case(
        antibodies, RAW | {"n_known_genes": N_GENES, "n_left_out_genes_at_least": 3}, says=("not gene expression",)
    ),
    "half of the names unknown": Case(
        lambda: make(genes=[*(f"feature{i}" for i in range(3000)), *symbols()[3000:]]),
        RAW | {"n_known_genes": 1000},
        says=("only 1,000 of 4,000 gene names are known",),
    ),
    "numbered genes and no names": Case(
        lambda: make(genes=numbers()),
        RAW | {"id_type": "number", "n_known_genes": 0},
        says=("no Entrez ids of human or mouse",),
    ),
}

CELLS = {
    "repeated cell names": Case(renamed_cells, RAW | {"n_duplicate_cells": 1}, says=("1 cell names repeat",)),
    "the same cells twice": Case(
        lambda: make(np.vstack([counts(), counts()])),
        RAW | {"n_identical_cells": N_CELLS},
        says=("exactly the values",),
    ),
    "empty cells": of(lambda: empty_cells(9), RAW | {"n_empty_cells": 9}, says=("9 cells have no counts",)),
    "unfiltered droplets": of(
        droplets, RAW | {"n_nearly_empty_cells": 3000}, says=("3,000 of 3,120 barcodes hold next to nothing",)
    ),
    "droplets of log values": of(
        lambda: np.log1p(to_total(droplets())), {"scale": "log1p", "log_base": math.e, "counts_recovered": True}
    ),
    "a fifth five times as deep": of(doublets, RAW | {"deep_cell_share_at_least": 0.15}, says=("may be doublets",)),
    "a third mitochondrial": Case(
        lambda: mitochondria(["MT-ND1", *symbols()[1:]]), RAW | {"mitochondrial_share": 1 / 3}, says=("33.3%",)
    ),
    "a third mitochondrial, mouse": Case(
        lambda: mitochondria(["mt-Nd1", *names("mouse_symbol")[1:]]),
        RAW | {"mitochondrial_share": 1 / 3, "species": "mouse"},
    ),
    "one cell": of(lambda: counts()[:1], RAW | {"n_cells": 1}),
    "one cell of log values": of(
        lambda: lognorm()[:1], {"scale": "log1p", "counts_recovered": True, "log_base": math.e}
    ),
    "three cells of log values": of(lambda: lognorm()[:3], {"scale": "log1p", "counts_recovered": True}),
}

SAID = {
    "log values said to be counts": of(
        lognorm,
        scale("counts"),
        given={"scale": "raw"},
        says=("you said the scale; the numbers look like natural log",),
    ),
    "counts said to be counts": of(counts, RAW, given={"scale": "counts"}, exact=1.0),
    "log2 values said to be log2": of(
        lambda: np.log1p(rpkm()) / LN2, scale("log1p", base=2.0, counts_recovered=False), given={"scale": "log2"}
    ),
    "log10 values said to be log10": of(
        lambda: lognorm("float64") / LN10,
        LOGNORM | {"log_base": 10.0},
        given={"scale": "log10"},
        exact=1.0,
    ),
    "RPKM said to be linear": of(rpkm, scale("linear"), given={"scale": "RPKM"}),
    "rounded values said to be counts": of(
        lambda: np.round(to_total(counts())), scale("counts"), given={"scale": "counts"}, says=("you said the scale",)
    ),
    "shifted z-scores said to be scaled": of(
        lambda: z_scores() - z_scores().min(axis=0), scale("scaled"), given={"scale": "scaled"}
    ),
}


def refused(make_it: Callable[[], AnnData], error: type[InstructCellError], words: str, **given: Any) -> Case:
    return Case(make_it, refused=error, words=words, given=given)


def misaligned(genes: Callable[[], list[str]], words: str) -> Case:
    """Raw counts whose genes a model cannot know."""
    return Case(lambda: make(genes=genes()), refused=GeneAlignmentError, words=words, aligned=True)


FAULTS = {
    "NaN": refused(
        lambda: make(with_nan(np.nan)), MatrixError, "1 NaN or infinite value, the first in cell cell5 .row 5., gene"
    ),
    "a value that overflowed": refused(
        lambda: make(with_nan(1e33)), MatrixError, "too large for expression, up to 1e\\+33 .*cell5"
    ),
    "an infinite value": refused(lambda: make(with_nan(np.inf)), MatrixError, "NaN or infinite.*cell5"),
    "a logarithm of zero": refused(
        lambda: make(np.log(np.where(counts() == 0, np.nan, counts())), form="dense"), MatrixError, "NaN or infinite"
    ),
    "genes missing after a join": refused(
        lambda: make(np.where(np.arange(N_GENES) < 100, np.nan, counts())), MatrixError, "100 genes in all.*inner"
    ),
    "NaN everywhere": refused(lambda: make(np.full((5, 30), np.nan)), MatrixError, "150 NaN"),
    "z-scores alone": refused(
        lambda: make(z_scores()), MatrixError, "negative values, down to -.*Bring the raw counts"
    ),
    "residuals of a regression": refused(
        lambda: make(lognorm() - lognorm().mean(axis=1, keepdims=True)), MatrixError, "negative.*regressed"
    ),
    "one negative value": refused(
        lambda: make(with_nan(-3.0)), MatrixError, "1 negative value, down to -3 .the first in cell cell5, gene"
    ),
    "z-scores though counts are there, X asked for": refused(
        lambda: layered(z_scores(), counts=counts()), MatrixError, "negative.*Choose another layer", layer="X"
    ),
    "zeros only": refused(lambda: make(np.zeros((20, 50))), MatrixError, "only zeros"),
    "no cells": refused(lambda: make(counts()[:0]), MatrixError, "0 cells.*expected at least one"),
    "no genes": refused(lambda: make(counts()[:, :0]), MatrixError, "0 genes.*expected at least one"),
    "no matrix": refused(lambda: AnnData(obs=pd.DataFrame(index=["a"]), var=make().var), MatrixError, "no matrix of"),
    "text for numbers": refused(
        lambda: make(np.full((5, 30), "high", dtype=object), form="as it is"), MatrixError, "not numbers"
    ),
    "a layer that is not there": refused(lambda: make(), MatrixError, "no matrix named 'umi'.*holds X", layer="umi"),
    "a scale that does not exist": refused(
        lambda: make(), MatrixError, "'cube root' is not known; expected counts", scale="cube root"
    ),
    "counts said to be log2": refused(lambda: make(), MatrixError, "cannot be log2", scale="log2"),
    "a species that is not read": refused(
        lambda: make(), GeneAlignmentError, "'zebrafish' is not known", species="zebrafish"
    ),
    "a column that is not there": refused(lambda: make(), MatrixError, "no gene column 'names'", gene_column="names"),
    "most names repeat": refused(
        lambda: make(genes=symbols()[:1500] * 2 + symbols()[:1000]),
        GeneAlignmentError,
        "2,500 of 4,000 gene names in var_names repeat.*expected one name per gene",
    ),
    "one name for all genes": refused(
        lambda: make(genes=["INS"] * N_GENES), GeneAlignmentError, "repeat an earlier one"
    ),
    "repeated genes scaled per gene": refused(
        lambda: twice(5, z_scores() - z_scores().min(axis=0)), GeneAlignmentError, "5 genes stand twice.*be summed"
    ),
    "unknown names": misaligned(lambda: [f"feature{i}" for i in range(N_GENES)], "0 of .* model genes.*feature0"),
    "peaks": misaligned(lambda: [f"chr1:{i}000-{i}500" for i in range(N_GENES)], "genomic intervals"),
    "transcripts": misaligned(lambda: [f"ENST{i:011d}.2" for i in range(N_GENES)], "transcripts: sum them per gene"),
    "genes of the zebrafish": misaligned(lambda: [f"ENSDARG{i:011d}" for i in range(N_GENES)], "another species"),
    "numbers for names": misaligned(numbers, "no Entrez ids of human or mouse"),
    "cells and genes turned around": Case(
        lambda: make().T.copy(), refused=GeneAlignmentError, words="transpose the file", aligned=True
    ),
}


def layered_panel() -> AnnData:
    """Centred values of variable genes in X, log values of all genes in raw: what scanpy's tutorial leaves."""
    adata = make(lognorm())
    adata.raw = adata
    adata = adata[:, variable_genes(500)].copy()
    adata.X = adata.X.toarray() - adata.X.toarray().mean(axis=0)
    return adata


CASES = {**SCALES, **PLACES, **GENES, **CELLS, **SAID, **FAULTS}
