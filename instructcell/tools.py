"""What InstructCell can do with an AnnData: one implementation for the chat, the terminal and Python.

Each tool takes cells, reads them in batches and writes its results into `obs`, `obsm` and `uns["instructcell"]`; `X`
and the columns that were there stay as they are. The `*_steps` generators do the work and report `(done, total)` after
every batch; the plain functions run them to the end.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Generator, Iterator, Sequence
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
import pandas as pd
import scipy.sparse as sp
import torch
from anndata import AnnData

from instructcell import __version__, batches
from instructcell.align import AlignedCells
from instructcell.batches import AS_FOUND, Reading, aligned_pieces, look, side_by_side
from instructcell.bulk import Screen, load_screen
from instructcell.bulk_response import BulkDrugResult, BulkResponse, DrugRanking, Groups, find_screened, rank_steps
from instructcell.checkpoint import Checkpoint, load_checkpoint
from instructcell.context import FileContext
from instructcell.coverage import label_markers
from instructcell.doctor import DatasetReport, inspect
from instructcell.drugs import Drug, DrugSet
from instructcell.errors import ConfigError, DrugError, InstructCellError, LabelError
from instructcell.generation import generate_cells
from instructcell.labels import Label, LabelSet, load_ontology
from instructcell.processor import Prompt
from instructcell.prompts import generation_prompt
from instructcell.retrieval import MarkerEvidence, marker_evidence, markers
from instructcell.retrieval.names import load_name_book
from instructcell.tasks import (
    BROADER_CONFIDENCE,
    BROADER_TYPE,
    BROADER_TYPE_ID,
    CELL_TYPE,
    CELL_TYPE_ID,
    CLUSTER_CONFIDENCE,
    CLUSTER_TYPE,
    CLUSTER_TYPE_ID,
    CONFIDENCE,
    DRUG_RESPONSE,
    EMBED_CELLS,
    EMBEDDING,
    FAMILIARITY,
    P_SENSITIVE,
    RESEMBLES,
    RUN,
    UNKNOWN,
    Annotation,
    AnnotationResult,
    Arrays,
    DrugResponse,
    DrugResult,
    Embedding,
    Task,
    calibrate,
    obs_columns,
)

if TYPE_CHECKING:
    from instructcell.literature.embed import TextOptions

__all__ = [
    "BROADER_CONFIDENCE",
    "BROADER_TYPE",
    "BROADER_TYPE_ID",
    "CELL_TYPE",
    "CELL_TYPE_ID",
    "CLUSTER_CONFIDENCE",
    "CLUSTER_TYPE",
    "CLUSTER_TYPE_ID",
    "CONFIDENCE",
    "DRUG_RESPONSE",
    "EMBEDDING",
    "FAMILIARITY",
    "P_SENSITIVE",
    "RESEMBLES",
    "RUN",
    "UNKNOWN",
    "AnnotationResult",
    "BulkDrugResult",
    "DrugRanking",
    "DrugResult",
    "annotate",
    "annotate_steps",
    "bulk_drug_response_steps",
    "calibrate",
    "drug_response",
    "drug_response_steps",
    "embed",
    "embed_steps",
    "generate",
    "inspect",
    "markers",
    "obs_columns",
    "rank_drugs",
    "rank_drugs_steps",
]

MOST_THREADS = 8  # that score side by side; each holds a piece in memory
ROUTES = ("auto", "cell", "bulk")  # of a drug's response
ProgressCallback = Callable[[int, int, str], None]
Result = TypeVar("Result")
Steps = Generator[tuple[int, int], None, Result]


def annotate(
    adata: AnnData,
    *,
    checkpoint: str | Path | Checkpoint = "mini",
    labels: Sequence[str] | None = None,
    species: str | None = None,
    tissue: str | None = None,
    layer: str | None = None,
    scale: str | None = None,
    gene_column: str | None = None,
    force: bool = False,
    engine: str = "auto",
    batch_size: int = 256,
    context: bool = True,
    by: str | None = None,
    progress: ProgressCallback | None = None,
) -> AnnotationResult:
    """Name the type of every cell and write it into `adata`.

    Parameters
    ----------
    adata
        Cells x genes; raw counts or log-normalised values, human or mouse, symbols or Ensembl ids.
    checkpoint
        Name or folder of a checkpoint, or a loaded one.
    labels
        Your own cell types; the checkpoint's finer types are summed into them. None: the checkpoint's types.
    species, tissue
        What is known about the sample; species is recognised when not given.
    layer, scale, gene_column
        Which matrix to read, what its values are and which column of `var` names the genes, each instead of the
        doctor's verdict (see `ic.pp.inspect`).
    force
        Go on with a file that measured very few of the model's genes.
    engine
        "lm": the language model reads every cell. "readout": a fast read-out of the cell embeddings does, and leaves
        to the language model the cells it is not certain of. "auto": "lm" up to 20,000 cells, "readout" above.
    batch_size
        Cells the language model reads at once.
    context
        Whether the file as a whole counts: the tissue its cells look like makes the types of other tissues less likely,
        and a cell leans towards its neighbours where the model doubts. False: each cell is read by itself.
    by
        Column of obs that holds clusters: each is also named from all of its cells.
    progress
        Called with (done, total, what) after every batch.

    Returns
    -------
    AnnotationResult
        `adata` gains obs `instructcell_cell_type`, `instructcell_cell_type_id`, `instructcell_confidence`, obsm
        `X_instructcell` and uns `instructcell`; without `labels` also `instructcell_broader_type`,
        `instructcell_broader_type_id` and `instructcell_broader_confidence`, the narrowest type that is sure: the cell
        type, or one above it in the Cell Ontology; with a checkpoint that knows where its training cells lie
        `instructcell_familiarity`, 0..1 and small for cells of unseen types; with `by`
        `instructcell_cluster_type`, `instructcell_cluster_type_id` and `instructcell_cluster_confidence`.

    Raises
    ------
    LabelError
        One of `labels` matches no type the checkpoint knows, or `by` names no column of clusters.
    MatrixError, GeneAlignmentError
        The file holds no usable expression, or too few known genes.
    CheckpointError
        engine="readout" and the checkpoint has none.

    Examples
    --------
    >>> result = annotate(adata, tissue="pancreatic islet")
    >>> result.composition
    >>> annotate(adata, by="leiden").clusters
    """
    steps = annotate_steps(
        adata,
        checkpoint=checkpoint,
        labels=labels,
        tissue=tissue,
        reading=Reading(layer, scale, species, gene_column, force),
        engine=engine,
        batch_size=batch_size,
        context=context,
        by=by,
    )
    return finish(steps, Annotation.what, progress)


def annotate_steps(
    adata: AnnData,
    *,
    checkpoint: str | Path | Checkpoint = "mini",
    labels: Sequence[str] | None = None,
    tissue: str | None = None,
    reading: Reading = AS_FOUND,
    engine: str = "auto",
    batch_size: int = 256,
    rows: Sequence[int] | np.ndarray | None = None,
    report: DatasetReport | None = None,
    context: bool | FileContext = True,
    by: str | None = None,
) -> Steps[AnnotationResult]:
    """Work of `annotate`, yielding (done, total) after every batch.

    With `rows` only those cells are read and nothing is written to `adata`; its other cells are still their context. A
    `report`, and a `context` of the same file and words, spare a second look at it.
    """
    loaded = open_checkpoint(checkpoint)
    report = _report(adata, loaded, report, reading)
    task = Annotation(
        loaded,
        report,
        n_cells=adata.n_obs if rows is None else len(rows),
        labels=labels,
        species=reading.species,
        tissue=tissue,
        engine=engine,
        batch_size=batch_size,
        context=context,
        by=by,
    )
    return (yield from work(task, adata, reading, rows))


def embed(
    adata: AnnData,
    *,
    encoder: str = "expression",
    obsm: str | None = None,
    text: TextOptions | None = None,
    checkpoint: str | Path | Checkpoint = "mini",
    species: str | None = None,
    layer: str | None = None,
    scale: str | None = None,
    gene_column: str | None = None,
    force: bool = False,
    batch_size: int = EMBED_CELLS,
    progress: ProgressCallback | None = None,
) -> np.ndarray:
    """Write an encoder's view of every cell into obsm and return it.

    Parameters
    ----------
    encoder
        "expression": the checkpoint's cell encoder (obsm `X_instructcell`). "sentence": the cell as a ranked list of
        gene names, read by a text encoder. "gene_text": descriptions of its genes, weighted by expression. "fusion":
        sentence and expression beside each other.
    obsm
        Key to write instead of the usual one (`X_sentence`, `X_gene_text`, `X_fusion`).
    text
        Text encoder, sentence, gene table and ablations, see `instructcell.literature.embed.TextOptions`.
    species, layer, scale, gene_column, force
        As for `annotate`.

    Returns
    -------
    numpy.ndarray
        [N, Z] float32.

    Raises
    ------
    ConfigError
        There is no such encoder.

    Examples
    --------
    >>> embed(adata).shape
    >>> embed(adata, encoder="sentence", obsm="X_ranked")
    """
    reading = Reading(layer, scale, species, gene_column, force)
    steps = embed_steps(adata, checkpoint=checkpoint, reading=reading, batch_size=batch_size)
    if encoder == "expression":
        earlier = adata.obsm.get(EMBEDDING)
        embedding = finish(steps, Embedding.what, progress)
        if obsm is not None and obsm != EMBEDDING:
            adata.obsm[obsm] = adata.obsm.pop(EMBEDDING)
            if earlier is not None:
                adata.obsm[EMBEDDING] = earlier
        return embedding
    from instructcell.literature.embed import TextOptions, text_steps

    options, view = text or TextOptions(), None
    if encoder == "fusion" and options.expression is None:
        view = finish(steps, Embedding.what, progress)
    steps = text_steps(adata, encoder, options, obsm=obsm, reading=reading, expression_view=view)
    return finish(steps, f"embedding cells by {encoder}", progress)


def embed_steps(
    adata: AnnData,
    *,
    checkpoint: str | Path | Checkpoint = "mini",
    reading: Reading = AS_FOUND,
    batch_size: int = EMBED_CELLS,
    report: DatasetReport | None = None,
) -> Steps[np.ndarray]:
    """Work of `embed`, yielding (done, total) after every batch."""
    loaded = open_checkpoint(checkpoint)
    report = _report(adata, loaded, report, reading)
    return (yield from work(Embedding(loaded, report, batch_size=batch_size), adata, reading))


def drug_response(
    adata: AnnData,
    *,
    drug: str,
    route: str = "auto",
    smiles: str = "",
    target: str = "",
    checkpoint: str | Path | Checkpoint = "mini",
    species: str | None = None,
    tissue: str | None = None,
    layer: str | None = None,
    scale: str | None = None,
    gene_column: str | None = None,
    force: bool = False,
    batch_size: int = 256,
    progress: ProgressCallback | None = None,
) -> DrugResult | BulkDrugResult:
    """Predict for every cell whether it is sensitive or resistant to a drug and write it into `adata`.

    Parameters
    ----------
    drug
        Name or synonym of a drug the checkpoint was trained on, or that was screened on cancer cell lines (GDSC).
    route
        "cell": the checkpoint, which learned from cells with a measured response. "bulk": the screens of cell lines.
        "auto": the checkpoint where it knows the drug, else the screens.
    smiles, target
        Structure and target of a drug that is neither; it is extrapolated from screened drugs that resemble it.
    species, tissue, layer, scale, gene_column, force
        As for `annotate`.

    Returns
    -------
    DrugResult or BulkDrugResult
        By the route. `adata` gains obs `instructcell_drug_response` (sensitive / resistant) and
        `instructcell_p_sensitive` (0..1); by the bulk route, where sensitive means more so than the middle cell line,
        also `instructcell_sensitivity` (normal score) and `instructcell_sensitivity_percentile` (0..100).

    Raises
    ------
    DrugError
        The drug is not known (near names are asked back), or cannot be predicted from expression.

    Examples
    --------
    >>> drug_response(adata, drug="gefitinib").sensitive_share
    >>> drug_response(adata, drug="erlotinib").notes
    """
    reading = Reading(layer, scale, species, gene_column, force)
    loaded = open_checkpoint(checkpoint)
    if choose_route(loaded, drug, route, described=bool(smiles or target)) == "bulk":
        bulk = bulk_drug_response_steps(
            adata, drug=drug, smiles=smiles, target=target, checkpoint=loaded, reading=reading
        )
        return finish(bulk, f"response to {drug}", progress)
    steps = drug_response_steps(
        adata, drug=drug, checkpoint=loaded, tissue=tissue, reading=reading, batch_size=batch_size
    )
    return finish(steps, f"response to {drug}", progress)


def drug_response_steps(
    adata: AnnData,
    *,
    drug: str,
    checkpoint: str | Path | Checkpoint = "mini",
    tissue: str | None = None,
    reading: Reading = AS_FOUND,
    batch_size: int = 256,
    rows: Sequence[int] | np.ndarray | None = None,
    report: DatasetReport | None = None,
) -> Steps[DrugResult]:
    """Work of `drug_response` by the checkpoint, yielding (done, total).

    With `rows` only those cells are read and nothing is written.
    """
    loaded = open_checkpoint(checkpoint)
    find_drug(loaded, drug)  # refused before the file is looked at
    report = _report(adata, loaded, report, reading)
    task = DrugResponse(loaded, report, drug=drug, tissue=tissue, batch_size=batch_size)
    return (yield from work(task, adata, reading, rows))


def bulk_drug_response_steps(
    adata: AnnData,
    *,
    drug: str,
    smiles: str = "",
    target: str = "",
    checkpoint: str | Path | Checkpoint = "mini",
    reading: Reading = AS_FOUND,
    rows: Sequence[int] | np.ndarray | None = None,
    report: DatasetReport | None = None,
    screen: Screen | None = None,
) -> Steps[BulkDrugResult]:
    """Work of `drug_response` by the screens of cell lines, yielding (done, total); `rows` as above."""
    screen = screen or load_screen()
    find_screened(screen, drug, smiles=smiles, target=target)  # refused before the file is looked at
    loaded = open_checkpoint(checkpoint)
    report = _report(adata, loaded, report, reading)
    task = BulkResponse(loaded, report, drug=drug, smiles=smiles, target=target, screen=screen, force=reading.force)
    return (yield from work(task, adata, reading, rows))


def rank_drugs(
    adata: AnnData,
    *,
    groupby: str | None = None,
    compare: Sequence[str] | None = None,
    replicate: str | None = None,
    drugs: Sequence[str] | None = None,
    species: str | None = None,
    layer: str | None = None,
    scale: str | None = None,
    gene_column: str | None = None,
    force: bool = False,
    seed: int = 0,
    progress: ProgressCallback | None = None,
) -> DrugRanking:
    """Which drugs would hit these cells? All screened drugs by predicted sensitivity, group by group.

    Parameters
    ----------
    groupby
        Column of obs that holds the groups (clusters, types, samples); None: all cells are one group.
    compare
        Two or more of its groups, to rank and test only these; None: every group, each tested against all others.
    replicate
        Column of obs that holds donors or samples: then their means are tested, not cells.
    drugs
        Names, to rank only these; None: every drug that was predicted well enough on held-out lines.
    species, layer, scale, gene_column, force
        As for `annotate`.
    seed
        Of the cells drawn from groups of more than 2,000.

    Returns
    -------
    DrugRanking
        Table of groups and drugs, tests between groups, and notes on how far to trust them; nothing is written into
        `adata`.

    Raises
    ------
    ConfigError
        A column or group is not in the file, or too small.
    DrugError
        One of `drugs` is not known, or cannot be predicted from expression.

    Examples
    --------
    >>> rank_drugs(adata, groupby="leiden", compare=["0", "1"]).comparison.head()
    """
    reading = Reading(layer, scale, species, gene_column, force)
    steps = rank_drugs_steps(
        adata, groupby=groupby, compare=compare, replicate=replicate, drugs=drugs, reading=reading, seed=seed
    )
    return finish(steps, "ranking drugs", progress)


def rank_drugs_steps(
    adata: AnnData,
    *,
    groupby: str | None = None,
    compare: Sequence[str] | None = None,
    replicate: str | None = None,
    drugs: Sequence[str] | None = None,
    reading: Reading = AS_FOUND,
    rows: Sequence[int] | np.ndarray | None = None,
    groups: Groups | None = None,
    report: DatasetReport | None = None,
    screen: Screen | None = None,
    seed: int = 0,
) -> Steps[DrugRanking]:
    """Work of `rank_drugs`, yielding (done, total); with `rows` only those cells are ranked.

    `groups`, instead of `groupby` and `compare`, are any cells, whether or not a column tells them apart.
    """
    screen = screen or load_screen()
    if groups is None:
        groups = Groups.of(adata, groupby, compare, replicate, None if rows is None else np.asarray(rows), seed)
    report = report or look(adata, screen.genes, reading)
    return (yield from rank_steps(adata, groups, report, reading=reading, screen=screen, drugs=drugs))


def choose_route(
    loaded: Checkpoint, drug: str, route: str = "auto", *, described: bool = False, screen: Screen | None = None
) -> str:
    """ "cell" where the checkpoint knows the drug, else "bulk"; a route that was asked for is kept.

    Raises
    ------
    ConfigError
        There is no such route.
    DrugError
        Neither route knows the drug, and it was not `described` by structure or target either.
    """
    if route not in ROUTES:
        raise ConfigError(f"there is no route '{route}'; choose one of {', '.join(ROUTES)}")
    if route != "auto":
        return route
    known = drugs_of(loaded)
    if known.find(drug) is not None:
        return "cell"
    screened = (screen or load_screen()).drugs
    if described or screened.find(drug) is not None:
        return "bulk"
    raise DrugError(f"{known.refusal([drug])} {screened.refusal(drug)}")


def work(
    task: Task[Result], adata: AnnData, reading: Reading, rows: Sequence[int] | np.ndarray | None = None
) -> Steps[Result]:
    """Score the chosen cells piece by piece; the result of all cells is written into `adata`."""
    task.prepare(adata, reading)
    chosen = np.arange(adata.n_obs) if rows is None else np.asarray(rows)
    parts: list[Arrays] = []
    for done, part in scored(task, adata, reading, chosen):
        parts.append(part)
        yield done, len(chosen)
    arrays = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
    result = task.result(arrays, adata.obs_names[chosen], chosen)
    if rows is None:
        keep(task, adata, reading, result)
    return result


def scored(task: Task[Result], adata: AnnData, reading: Reading, rows: np.ndarray) -> Iterator[tuple[int, Arrays]]:
    """Yield (cells done, what the task found of the piece) over the chosen rows."""
    done, n_threads = 0, min(torch.get_num_threads(), MOST_THREADS)
    pieces = aligned_pieces(adata, task.genes, task.report, rows, at_once=task.cells_at_once, reading=reading)
    # By the whole file, so that a run that goes on computes as the one that was interrupted did.
    if task.alone and n_threads > 1 and adata.n_obs > n_threads * task.cells_at_once:
        found = side_by_side(lambda cells: (cells.counts.shape[0], task.score(cells)), pieces, n_threads)
    else:
        found = ((cells.counts.shape[0], task.score(cells)) for cells in pieces)
    for n_cells, arrays in found:
        done += n_cells
        yield done, arrays


def keep(task: Task[Result], adata: AnnData, reading: Reading, result: Result) -> None:
    """Write the result of all cells into `adata`, with the record of the run."""
    task.store(adata, result)
    _record(adata, task.command, task.loaded, task.report, {**reading.to_dict(), **task.arguments})


def generate(
    *,
    cell_type: str,
    n: int = 100,
    tissue: str | None = None,
    species: str | None = None,
    library_size: float | None = None,
    condition: str | None = None,
    like: AnnData | None = None,
    layer: str | None = None,
    scale: str | None = None,
    gene_column: str | None = None,
    force: bool = False,
    seed: int = 0,
    checkpoint: str | Path | Checkpoint = "mini",
    batch_size: int = 256,
) -> AnnData:
    """Make pseudo-cells of a type: integer counts over the checkpoint's genes.

    Parameters
    ----------
    cell_type
        Name, synonym or Cell Ontology id of a type the checkpoint can generate.
    n
        How many cells.
    tissue, species, condition
        Of the sample; kept in `obs`.
    library_size
        Total counts of a cell; None: drawn as the model learned it.
    like
        Cells whose species and library sizes are followed where these are not given.
    layer, scale, gene_column, force
        How to read `like`, as for `annotate`.
    seed
        Same seed, same cells.

    Returns
    -------
    AnnData
        Counts (int32 CSR) in X, symbols as var_names, `ensembl_id` in var, the conditions in obs, uns `instructcell`.

    Raises
    ------
    LabelError
        The type is unknown (the message names close ones) or was too rare in training to be generated.

    Examples
    --------
    >>> pseudo = generate(cell_type="B cell", n=50, tissue="PBMC", seed=0)
    """
    loaded = open_checkpoint(checkpoint)
    label = find_generable(loaded.labels, cell_type)
    if n < 1:
        raise InstructCellError(f"found n={n}, expected at least 1 pseudo-cell; ask for 1 or more")
    if library_size is not None and not 0 < library_size < 1e8:
        raise InstructCellError(f"found a library size of {library_size:g}, expected a positive number of counts")
    depth: float | list[float] | None = library_size
    if like is not None:
        reading = Reading(layer, scale, species, gene_column, force)
        report = look_at(like, loaded, reading)
        species = species or report.species
        depth = depth or _library_sizes(like, loaded, report, reading, n, seed)
    given = {"species": species, "tissue": tissue, "condition": condition}
    prompt = generation_prompt(label.name, **given)
    counts = generate_cells(
        loaded.model,
        loaded.processor,
        Prompt.parse(prompt),
        n,
        library_size=depth,
        seed=seed,
        batch_size=batch_size,
        population=None if loaded.populations is None else loaded.populations.like(label.name, **given),
    )
    pseudo = _pseudo_cells(np.asarray(counts), label, given, seed, loaded)
    arguments = {"cell_type": label.name, "n": n, "library_size": library_size, "like": like is not None, **given}
    _record(pseudo, "generate", loaded, None, {**arguments, "batch_size": batch_size}, seed=seed)
    return pseudo


def _report(adata: AnnData, loaded: Checkpoint, report: DatasetReport | None, reading: Reading) -> DatasetReport:
    """The doctor's report with the coverage of the checkpoint's genes."""
    if report is None:
        return look_at(adata, loaded, reading)
    return report if report.coverage is not None else report.with_genes(loaded.processor.genes)


def look_at(adata: AnnData, loaded: Checkpoint, reading: Reading = AS_FOUND) -> DatasetReport:
    """The doctor's report on a file, with the genes of a checkpoint and the markers of its labels that the file has."""
    markers = label_markers(label.id for label in loaded.labels if label.id)
    return look(adata, loaded.processor.genes, reading, markers)


def _library_sizes(
    like: AnnData, loaded: Checkpoint, report: DatasetReport, reading: Reading, n: int, seed: int
) -> list[float] | None:
    """Total counts over the checkpoint's genes of `n` cells drawn from a file; None where it holds no counts."""
    if report.scale != "counts" and not report.counts_recovered:
        return None
    rng = np.random.default_rng(seed)
    rows = np.sort(rng.choice(like.n_obs, min(like.n_obs, 2000), replace=False))
    aligned = batches.align_rows(like, loaded.processor.genes, report, rows, reading)
    totals = np.asarray(aligned.counts.sum(axis=1)).ravel()
    totals = totals[totals > 0]
    return rng.choice(totals, n).tolist() if len(totals) else None


def evidence_of(
    adata: AnnData,
    cell_type: str,
    rows: np.ndarray,
    *,
    checkpoint: str | Path | Checkpoint = "mini",
    report: DatasetReport | None = None,
    reading: Reading = AS_FOUND,
    max_cells: int = 500,
) -> MarkerEvidence:
    """Markers of a type that the cells at `rows` truly express, against up to `max_cells` of the other cells.

    Raises
    ------
    LabelError
        The ontology does not know the type.
    """
    loaded = open_checkpoint(checkpoint)
    report = _report(adata, loaded, report, reading)
    others = np.setdiff1d(np.arange(adata.n_obs), rows)
    rng = np.random.default_rng(0)
    inside, outside = (
        np.sort(rng.choice(cells, max_cells, replace=False)) if len(cells) > max_cells else np.asarray(cells)
        for cells in (rows, others)
    )
    genes = loaded.processor.genes
    here = batches.align_rows(adata, genes, report, inside, reading)
    there = batches.align_rows(adata, genes, report, outside, reading).counts if len(outside) else None
    return marker_evidence(here.counts, loaded.processor.genes, here.measured, cell_type, background=there)


def evidence_table(
    adata: AnnData,
    *,
    checkpoint: str | Path | Checkpoint = "mini",
    reading: Reading | None = None,
    n_types: int = 6,
    n_genes: int = 4,
) -> pd.DataFrame:
    """The markers that the largest annotated types express: one row per type and gene, ready for `ic.pl.evidence`.

    The file is read as the annotation read it, unless `reading` says otherwise.
    """
    if CELL_TYPE not in adata.obs:
        raise InstructCellError(f"found no '{CELL_TYPE}' in adata.obs; run ic.tl.annotate(adata) first")
    loaded = open_checkpoint(checkpoint)
    reading = reading or Reading.of_record(adata.uns.get(RUN, {}).get("arguments", {}))
    report = look_at(adata, loaded, reading)
    named = adata.obs[CELL_TYPE].astype(str)
    ids = dict(zip(named, adata.obs[CELL_TYPE_ID].astype(str), strict=True))
    found = [
        evidence_of(
            adata, ids[name] or name, np.flatnonzero(named == name), checkpoint=loaded, report=report, reading=reading
        )
        for name in named[named != UNKNOWN].value_counts().index[:n_types]
    ]
    return evidence_frame(found, n_genes)


def evidence_frame(found: Sequence[MarkerEvidence], n_genes: int = 4) -> pd.DataFrame:
    """Evidence for several types as one table."""
    columns = ["cell_type", "gene", "share_of_cells", "mean", "source"]
    parts = [one.table.head(n_genes).assign(cell_type=one.cell_type) for one in found if one.supported]
    return pd.concat(parts, ignore_index=True)[columns] if parts else pd.DataFrame(columns=columns)


def open_checkpoint(checkpoint: str | Path | Checkpoint = "mini") -> Checkpoint:
    """A checkpoint by name or folder, on the GPU where there is one; a loaded one is returned as it is."""
    if isinstance(checkpoint, Checkpoint):
        return checkpoint
    return load_checkpoint(checkpoint, "cuda" if torch.cuda.is_available() else "cpu")


def find_generable(labels: LabelSet, cell_type: str) -> Label:
    """The label that `cell_type` names, if cells of it can be generated; a LabelError that names close ones if not.

    A broader type than the checkpoint has ("monocyte") stands for the kind of it with the most training cells.
    """
    able = [label.name for label in labels if label.can_generate]
    label = labels.find(cell_type)
    if label is None and (kinds := _kinds_of(labels, cell_type)):
        return max(kinds, key=lambda kind: kind.n_training_cells)
    if label is None:
        close = [name for name in labels.close_to(cell_type, 5) if name in able] or able[:5]
        raise LabelError(
            f"'{cell_type}' is not a cell type this checkpoint knows. Close ones it can generate: {', '.join(close)}"
        )
    if not label.can_generate:
        raise LabelError(
            f"this checkpoint saw too few cells of type '{label.name}' to make new ones ({label.n_training_cells}). "
            f"It can generate: {', '.join(able)}"
        )
    return label


def _kinds_of(labels: LabelSet, cell_type: str) -> list[Label]:
    """The labels below a type of the ontology of which cells can be generated."""
    id = load_name_book().cell_type(cell_type)
    return [] if id is None else [one for one in labels if one.can_generate and load_ontology().is_a(one.id, id)]


def drugs_of(loaded: Checkpoint) -> DrugSet:
    """The drugs a checkpoint was trained on."""
    return DrugSet.of(loaded.drugs)


def find_drug(loaded: Checkpoint, name: str) -> Drug:
    """The drug that `name` names; a DrugError with the list of known ones if the checkpoint does not know it."""
    return drugs_of(loaded).get(name)


def align_rows(adata: AnnData, loaded: Checkpoint, report: DatasetReport, rows: np.ndarray) -> AlignedCells:
    """The chosen rows over the checkpoint's genes."""
    return batches.align_rows(adata, loaded.processor.genes, report, rows)


def _pseudo_cells(
    counts: np.ndarray, label: Label, given: dict[str, str | None], seed: int, loaded: Checkpoint
) -> AnnData:
    """Counts [n, G] as an AnnData with the conditions in obs."""
    slug = re.sub(r"\W+", "_", label.name).strip("_")
    obs = pd.DataFrame(index=[f"{slug}_{seed}_{i}" for i in range(len(counts))])
    obs["cell_type"], obs["cell_type_id"], obs["pseudo"] = label.name, label.id, True
    for name, value in given.items():
        obs[name] = value or ""
    obs["library_size"] = counts.sum(axis=1)
    for name in ("cell_type", "cell_type_id", *given):
        obs[name] = pd.Categorical(obs[name])
    var = pd.DataFrame({"ensembl_id": loaded.processor.ensembl_ids}, index=pd.Index(loaded.processor.genes))
    return AnnData(sp.csr_matrix(counts.astype(np.int32)), obs=obs, var=var)


def _record(
    adata: AnnData,
    command: str,
    loaded: Checkpoint,
    report: DatasetReport | None,
    arguments: dict[str, Any],
    *,
    seed: int = 0,
) -> None:
    """Keep what was run in uns; an earlier run of another command stays under "earlier"."""
    previous = dict(adata.uns.get(RUN, {}))
    earlier = dict(previous.pop("earlier", {}))
    if previous.get("command", command) != command:
        earlier[str(previous["command"])] = previous
    earlier.pop(command, None)
    packages = ("torch", "transformers", "anndata")
    run: dict[str, Any] = {
        "command": command,
        "versions": {"instructcell": __version__, **{name: metadata.version(name) for name in packages}},
        "checkpoint": Path(loaded.path).name,
        "checkpoint_hash": loaded.hash,
        "seed": seed,
        "arguments": {name: "" if value is None else value for name, value in arguments.items()},
    }
    if report is not None:
        run["gene_coverage"] = float(report.coverage or 0.0)
    if earlier:
        run["earlier"] = earlier
    adata.uns[RUN] = run


def finish(steps: Steps[Result], what: str = "", progress: ProgressCallback | None = None) -> Result:
    """Run the steps to their end and hand back their result."""
    while True:
        try:
            done, total = next(steps)
        except StopIteration as end:
            return end.value
        if progress is not None:
            progress(done, total, what)
