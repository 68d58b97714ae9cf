"""What InstructCell can do with an AnnData: one implementation for the chat, the terminal and Python.

Each tool takes cells, reads them in batches and writes its results into `obs`, `obsm` and `uns["instructcell"]`; `X`
and the columns that were there stay as they are. The `*_steps` generators do the work and report `(done, total)` after
every batch; the plain functions run them to the end.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Generator, Iterator, Sequence
from dataclasses import dataclass, field
from importlib import metadata
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import pandas as pd
import scipy.sparse as sp
import torch
from anndata import AnnData

from instructcell import __version__
from instructcell.align import AlignedCells, align_genes
from instructcell.checkpoint import Checkpoint, load_checkpoint
from instructcell.doctor import DatasetReport, inspect
from instructcell.drugs import Drug, DrugSet
from instructcell.errors import InstructCellError, LabelError
from instructcell.generation import generate_cells, score_labels
from instructcell.labels import Label, LabelSet
from instructcell.processor import Prompt
from instructcell.prompts import DRUG_ANSWERS, annotation_prompt, drug_prompt, generation_prompt
from instructcell.retrieval import MarkerEvidence, marker_evidence, markers

__all__ = [
    "AnnotationResult",
    "DrugResult",
    "annotate",
    "annotate_steps",
    "drug_response",
    "drug_response_steps",
    "embed",
    "embed_steps",
    "generate",
    "inspect",
    "markers",
]

UNKNOWN = "unknown"
CELL_TYPE, CELL_TYPE_ID = "instructcell_cell_type", "instructcell_cell_type_id"
CONFIDENCE, EMBEDDING, RUN = "instructcell_confidence", "X_instructcell", "instructcell"
DRUG_RESPONSE, P_SENSITIVE = "instructcell_drug_response", "instructcell_p_sensitive"

ProgressCallback = Callable[[int, int, str], None]
Result = TypeVar("Result")
Steps = Generator[tuple[int, int], None, Result]


@dataclass(frozen=True)
class AnnotationResult:
    """Cell types with calibrated probabilities.

    Attributes
    ----------
    table
        One row per cell, indexed by its name: `cell_type` (or "unknown"), `cell_type_id`, `confidence`, `best_guess`,
        `runner_up`, `runner_up_probability`; probabilities between 0 and 1.
    embedding
        [N, Z] what the cell encoder makes of each cell.
    rows
        Positions of the cells in the AnnData.
    """

    table: pd.DataFrame
    embedding: np.ndarray
    rows: np.ndarray
    report: DatasetReport
    checkpoint: Checkpoint = field(repr=False)

    @property
    def coverage(self) -> float:
        """Share of the checkpoint's genes that the file measured."""
        return float(self.report.coverage or 0.0)

    @property
    def composition(self) -> pd.DataFrame:
        """Per cell type: id, number of cells, share of all cells and mean confidence; the largest first."""
        groups = self.table.groupby("cell_type", observed=True)
        table = pd.DataFrame(
            {
                "cell_type_id": groups["cell_type_id"].first(),
                "cells": groups.size(),
                "share": groups.size() / len(self.table),
                "mean_confidence": groups["confidence"].mean(),
            }
        )
        return table.sort_values(["cells", "mean_confidence"], ascending=False).reset_index()

    @property
    def unknown_share(self) -> float:
        """Share of the cells whose best label was too uncertain to be given."""
        return float((self.table["cell_type"] == UNKNOWN).mean())


@dataclass(frozen=True)
class DrugResult:
    """Predicted response per cell: `table` holds `response` and `p_sensitive` (0..1), indexed by the cells' names."""

    drug: Drug
    table: pd.DataFrame
    rows: np.ndarray
    report: DatasetReport
    checkpoint: Checkpoint = field(repr=False)

    @property
    def sensitive_share(self) -> float:
        """Share of the cells predicted sensitive."""
        return float((self.table["response"] == DRUG_ANSWERS[0]).mean())


def annotate(
    adata: AnnData,
    *,
    checkpoint: str | Path | Checkpoint = "mini",
    labels: Sequence[str] | None = None,
    species: str | None = None,
    tissue: str | None = None,
    layer: str | None = None,
    batch_size: int = 256,
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
    layer
        Layer to read instead of the matrix that fits best.
    batch_size
        Cells read at once; memory grows with it.
    progress
        Called with (done, total, what) after every batch.

    Returns
    -------
    AnnotationResult
        `adata` gains obs `instructcell_cell_type`, `instructcell_cell_type_id`, `instructcell_confidence`, obsm
        `X_instructcell` and uns `instructcell`.

    Raises
    ------
    LabelError
        One of `labels` matches no type the checkpoint knows.
    MatrixError, GeneAlignmentError
        The file holds no usable expression, or too few known genes.

    Examples
    --------
    >>> result = annotate(adata, tissue="pancreatic islet")
    >>> result.composition
    """
    steps = annotate_steps(
        adata, checkpoint=checkpoint, labels=labels, species=species, tissue=tissue, layer=layer, batch_size=batch_size
    )
    return finish(steps, "annotating cells", progress)


def annotate_steps(
    adata: AnnData,
    *,
    checkpoint: str | Path | Checkpoint = "mini",
    labels: Sequence[str] | None = None,
    species: str | None = None,
    tissue: str | None = None,
    layer: str | None = None,
    batch_size: int = 256,
    rows: Sequence[int] | np.ndarray | None = None,
    report: DatasetReport | None = None,
) -> Steps[AnnotationResult]:
    """Work of `annotate`, yielding (done, total) after every batch.

    With `rows` only those cells are read and nothing is written to `adata`. A `report` spares a second look at it.
    """
    loaded = open_checkpoint(checkpoint)
    groups = None if labels is None else _project(loaded.labels, labels)
    report = _report(adata, loaded, report, layer, species)
    species = species or report.species
    prompt = annotation_prompt(species=species, tissue=tissue)
    chosen = np.arange(adata.n_obs) if rows is None else np.asarray(rows)
    scores = yield from _score(adata, loaded, report, chosen, prompt, loaded.labels.names, "temperature", batch_size)
    table = _annotation_table(scores.probabilities, loaded, groups, adata.obs_names[chosen])
    result = AnnotationResult(table, scores.embedding, chosen, report, loaded)
    if rows is None:
        adata.obs[CELL_TYPE] = pd.Categorical(table["cell_type"])
        adata.obs[CELL_TYPE_ID] = pd.Categorical(table["cell_type_id"])
        adata.obs[CONFIDENCE] = table["confidence"].to_numpy(np.float32)
        adata.obsm[EMBEDDING] = scores.embedding
        arguments = {"labels": list(labels or []), "species": species, "tissue": tissue, "layer": layer}
        _record(adata, "annotate", loaded, report, {**arguments, "batch_size": batch_size})
    return result


def embed(
    adata: AnnData,
    *,
    checkpoint: str | Path | Checkpoint = "mini",
    species: str | None = None,
    layer: str | None = None,
    batch_size: int = 256,
    progress: ProgressCallback | None = None,
) -> np.ndarray:
    """Write the cell encoder's view of every cell into obsm `X_instructcell` and return it.

    Returns
    -------
    numpy.ndarray
        [N, Z] float32.

    Examples
    --------
    >>> embed(adata).shape
    """
    steps = embed_steps(adata, checkpoint=checkpoint, species=species, layer=layer, batch_size=batch_size)
    return finish(steps, "embedding cells", progress)


def embed_steps(
    adata: AnnData,
    *,
    checkpoint: str | Path | Checkpoint = "mini",
    species: str | None = None,
    layer: str | None = None,
    batch_size: int = 256,
    report: DatasetReport | None = None,
) -> Steps[np.ndarray]:
    """Work of `embed`, yielding (done, total) after every batch."""
    loaded = open_checkpoint(checkpoint)
    report = _report(adata, loaded, report, layer, species)
    rows, parts = np.arange(adata.n_obs), []
    for done, counts, measured in _batches(adata, loaded, report, rows, batch_size):
        parts.append(_pooled(loaded, counts, measured))
        yield done, adata.n_obs
    adata.obsm[EMBEDDING] = np.concatenate(parts)
    _record(adata, "embed", loaded, report, {"species": species, "layer": layer, "batch_size": batch_size})
    return adata.obsm[EMBEDDING]


def drug_response(
    adata: AnnData,
    *,
    drug: str,
    checkpoint: str | Path | Checkpoint = "mini",
    species: str | None = None,
    tissue: str | None = None,
    layer: str | None = None,
    batch_size: int = 256,
    progress: ProgressCallback | None = None,
) -> DrugResult:
    """Predict for every cell whether it is sensitive or resistant to a drug and write it into `adata`.

    Parameters
    ----------
    drug
        Name or synonym of a drug the checkpoint was trained on.

    Returns
    -------
    DrugResult
        `adata` gains obs `instructcell_drug_response` (sensitive / resistant) and `instructcell_p_sensitive` (0..1).

    Raises
    ------
    DrugError
        The checkpoint does not know the drug; the message lists those it knows.

    Examples
    --------
    >>> drug_response(adata, drug="gefitinib").sensitive_share
    """
    steps = drug_response_steps(
        adata, drug=drug, checkpoint=checkpoint, species=species, tissue=tissue, layer=layer, batch_size=batch_size
    )
    return finish(steps, f"response to {drug}", progress)


def drug_response_steps(
    adata: AnnData,
    *,
    drug: str,
    checkpoint: str | Path | Checkpoint = "mini",
    species: str | None = None,
    tissue: str | None = None,
    layer: str | None = None,
    batch_size: int = 256,
    rows: Sequence[int] | np.ndarray | None = None,
    report: DatasetReport | None = None,
) -> Steps[DrugResult]:
    """Work of `drug_response`, yielding (done, total); with `rows` only those cells are read and nothing is written."""
    loaded = open_checkpoint(checkpoint)
    known = find_drug(loaded, drug)
    report = _report(adata, loaded, report, layer, species)
    prompt = drug_prompt(known.name)
    chosen = np.arange(adata.n_obs) if rows is None else np.asarray(rows)
    scores = yield from _score(
        adata, loaded, report, chosen, prompt, list(DRUG_ANSWERS), "drug_temperature", batch_size
    )
    sensitive = scores.probabilities[:, 0]
    response = np.where(sensitive >= 0.5, *DRUG_ANSWERS)
    table = pd.DataFrame({"response": response, "p_sensitive": sensitive}, index=adata.obs_names[chosen])
    if rows is None:
        adata.obs[DRUG_RESPONSE] = pd.Categorical(response, categories=list(DRUG_ANSWERS))
        adata.obs[P_SENSITIVE] = sensitive.astype(np.float32)
        arguments = {"drug": known.name, "species": species, "tissue": tissue, "layer": layer}
        _record(adata, "drug_response", loaded, report, {**arguments, "batch_size": batch_size})
    return DrugResult(known, table, chosen, report, loaded)


def generate(
    *,
    cell_type: str,
    n: int = 100,
    tissue: str | None = None,
    species: str | None = None,
    library_size: float | None = None,
    condition: str | None = None,
    like: AnnData | None = None,
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
        report = inspect(like, species=species, genes=loaded.processor.genes)
        species = species or report.species
        depth = depth or _library_sizes(like, loaded, report, n, seed)
    prompt = generation_prompt(label.name, species=species, tissue=tissue, condition=condition)
    counts = generate_cells(
        loaded.model,
        loaded.processor,
        Prompt.parse(prompt),
        n,
        library_size=depth,
        seed=seed,
        batch_size=batch_size,
    )
    given = {"species": species, "tissue": tissue, "condition": condition}
    pseudo = _pseudo_cells(np.asarray(counts), label, given, seed, loaded)
    arguments = {"cell_type": label.name, "n": n, "library_size": library_size, "like": like is not None, **given}
    _record(pseudo, "generate", loaded, None, {**arguments, "batch_size": batch_size}, seed=seed)
    return pseudo


def _report(
    adata: AnnData, loaded: Checkpoint, report: DatasetReport | None, layer: str | None, species: str | None
) -> DatasetReport:
    """The doctor's report with the coverage of the checkpoint's genes."""
    if report is None:
        return inspect(adata, layer=layer, species=species, genes=loaded.processor.genes)
    return report if report.coverage is not None else report.with_genes(loaded.processor.genes)


def _library_sizes(like: AnnData, loaded: Checkpoint, report: DatasetReport, n: int, seed: int) -> list[float] | None:
    """Total counts over the checkpoint's genes of `n` cells drawn from a file; None where it holds no counts."""
    if report.scale != "counts" and not report.counts_recovered:
        return None
    rng = np.random.default_rng(seed)
    rows = np.sort(rng.choice(like.n_obs, min(like.n_obs, 2000), replace=False))
    totals = np.asarray(align_rows(like, loaded, report, rows).counts.sum(axis=1)).ravel()
    totals = totals[totals > 0]
    return rng.choice(totals, n).tolist() if len(totals) else None


def evidence_of(
    adata: AnnData,
    cell_type: str,
    rows: np.ndarray,
    *,
    checkpoint: str | Path | Checkpoint = "mini",
    report: DatasetReport | None = None,
    max_cells: int = 500,
) -> MarkerEvidence:
    """Markers of a type that the cells at `rows` truly express, against up to `max_cells` of the other cells.

    Raises
    ------
    LabelError
        The ontology does not know the type.
    """
    loaded = open_checkpoint(checkpoint)
    report = _report(adata, loaded, report, None, None)
    others = np.setdiff1d(np.arange(adata.n_obs), rows)
    rng = np.random.default_rng(0)
    inside, outside = (
        np.sort(rng.choice(cells, max_cells, replace=False)) if len(cells) > max_cells else np.asarray(cells)
        for cells in (rows, others)
    )
    here = align_rows(adata, loaded, report, inside)
    there = align_rows(adata, loaded, report, outside).counts if len(outside) else None
    return marker_evidence(here.counts, loaded.processor.genes, here.measured, cell_type, background=there)


def evidence_table(
    adata: AnnData, *, checkpoint: str | Path | Checkpoint = "mini", n_types: int = 6, n_genes: int = 4
) -> pd.DataFrame:
    """The markers that the largest annotated types express: one row per type and gene, ready for `ic.pl.evidence`."""
    if CELL_TYPE not in adata.obs:
        raise InstructCellError(f"found no '{CELL_TYPE}' in adata.obs; run ic.tl.annotate(adata) first")
    loaded = open_checkpoint(checkpoint)
    report = inspect(adata, genes=loaded.processor.genes)
    named = adata.obs[CELL_TYPE].astype(str)
    ids = dict(zip(named, adata.obs[CELL_TYPE_ID].astype(str), strict=True))
    found = [
        evidence_of(adata, ids[name] or name, np.flatnonzero(named == name), checkpoint=loaded, report=report)
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


def calibrate(probabilities: np.ndarray, temperature: float) -> np.ndarray:
    """Soften (temperature > 1) or sharpen probabilities [N, L] and let every row sum to 1."""
    logits = np.log(np.clip(probabilities.astype(np.float64), 1e-8, 1.0)) / temperature
    odds = np.exp(logits - logits.max(axis=1, keepdims=True))
    return odds / odds.sum(axis=1, keepdims=True)


def find_generable(labels: LabelSet, cell_type: str) -> Label:
    """The label that `cell_type` names, if cells of it can be generated; a LabelError that names close ones if not."""
    able = [label.name for label in labels if label.can_generate]
    label = labels.find(cell_type)
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


def drugs_of(loaded: Checkpoint) -> DrugSet:
    """The drugs a checkpoint was trained on."""
    return DrugSet.of(loaded.drugs)


def find_drug(loaded: Checkpoint, name: str) -> Drug:
    """The drug that `name` names; a DrugError with the list of known ones if the checkpoint does not know it."""
    return drugs_of(loaded).get(name)


@dataclass(frozen=True)
class _Scores:
    probabilities: np.ndarray  # [N, L] calibrated
    embedding: np.ndarray  # [N, Z]


def _score(
    adata: AnnData,
    loaded: Checkpoint,
    report: DatasetReport,
    rows: np.ndarray,
    prompt: str,
    answers: list[str],
    temperature: str,
    batch_size: int,
) -> Steps[_Scores]:
    """Calibrated probabilities of the legal answers for each chosen cell."""
    probabilities, embeddings, parsed = [], [], Prompt.parse(prompt)
    for done, counts, measured in _batches(adata, loaded, report, rows, batch_size):
        raw = score_labels(loaded.model, loaded.processor, [parsed] * len(counts), counts, measured, answers)
        probabilities.append(np.asarray(raw))
        embeddings.append(_pooled(loaded, counts, measured))
        yield done, len(rows)
    calibrated = calibrate(np.concatenate(probabilities), float(loaded.calibration.get(temperature, 1.0)))
    return _Scores(calibrated, np.concatenate(embeddings))


def _batches(
    adata: AnnData, loaded: Checkpoint, report: DatasetReport, rows: np.ndarray, batch_size: int
) -> Iterator[tuple[int, torch.Tensor, torch.Tensor]]:
    """Yield (cells done, counts [N, G], measured [N, G]) of the chosen rows; only one batch is dense at a time."""
    if len(rows) == 0:
        raise InstructCellError("found no cells to read, expected at least one; choose other cells")
    device = next(loaded.model.parameters()).device
    for start in range(0, len(rows), batch_size):
        chosen = rows[start : start + batch_size]
        aligned = align_rows(adata, loaded, report, chosen)
        counts = torch.from_numpy(aligned.counts.toarray()).float().to(device)
        measured = torch.from_numpy(np.asarray(aligned.measured)).to(device).expand(len(chosen), -1)
        yield start + len(chosen), counts, measured


def align_rows(adata: AnnData, loaded: Checkpoint, report: DatasetReport, rows: np.ndarray) -> AlignedCells:
    """The chosen rows over the checkpoint's genes."""
    if len(rows) and np.array_equal(rows, np.arange(rows[0], rows[0] + len(rows))):
        return align_genes(adata, loaded.processor.genes, report, rows=slice(int(rows[0]), int(rows[-1]) + 1))
    return align_genes(adata, loaded.processor.genes, report, rows=rows)


@torch.inference_mode()
def _pooled(loaded: Checkpoint, counts: torch.Tensor, measured: torch.Tensor) -> np.ndarray:
    embeddings = loaded.model.encode_cells(counts, measured)  # [N, K, Z]
    return loaded.model.cell_encoder.pool(embeddings).float().cpu().numpy()  # [N, Z]


def _project(labels: LabelSet, user_labels: Sequence[str]) -> list[tuple[str, list[int]]]:
    """Each of the user's labels with our label positions summed into it; every one must match something."""
    wanted = [label.strip() for label in user_labels if label.strip()]
    if not wanted:
        raise LabelError("found an empty list of labels, expected at least one cell type; leave it out to use all")
    groups = [(label, list(indices)) for label, indices in labels.project(wanted)]
    for label, indices in groups:
        if not indices:
            close = ", ".join(labels.close_to(label, 5))
            raise LabelError(f"no cell type of this checkpoint falls under '{label}'. Close ones: {close}")
    return groups


def _annotation_table(
    probabilities: np.ndarray, loaded: Checkpoint, groups: list[tuple[str, list[int]]] | None, names: pd.Index
) -> pd.DataFrame:
    """The best and the second label per cell, summed into the user's labels where given."""
    if groups is None:
        titles, ids = list(loaded.labels.names), [label.id for label in loaded.labels]
    else:
        titles = [title for title, _ in groups]
        ids = [label.id if (label := loaded.labels.find(title)) else "" for title in titles]
        probabilities = np.stack([probabilities[:, indices].sum(axis=1) for _, indices in groups], axis=1)
    order = np.argsort(-probabilities, axis=1, kind="stable")  # [N, L]
    first, confidence = order[:, 0], np.take_along_axis(probabilities, order[:, :1], axis=1)[:, 0]
    second = order[:, 1] if probabilities.shape[1] > 1 else None
    given = confidence >= float(loaded.calibration.get("unknown_below", 0.0))
    title, cl_id = np.asarray(titles, dtype=object), np.asarray(ids, dtype=object)
    return pd.DataFrame(
        {
            "cell_type": np.where(given, title[first], UNKNOWN),
            "cell_type_id": np.where(given, cl_id[first], ""),
            "confidence": np.clip(confidence, 0.0, 1.0),
            "best_guess": title[first],
            "runner_up": "" if second is None else title[second],
            "runner_up_probability": 0.0 if second is None else probabilities[np.arange(len(second)), second],
        },
        index=names,
    )


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
