"""What is computed of every cell: its label, its response to a drug, or its embedding.

A task turns a piece of aligned cells into arrays with one entry per cell, and the arrays of all pieces into a result
that it writes into an AnnData. Tools keep the arrays in memory, a stream keeps them on disk; the numbers are the same.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, Generic, TypeVar

import numpy as np
import pandas as pd
import scipy.sparse as sp
import torch
from anndata import AnnData
from torch import Tensor

from encoders import CellEncoder, SparseCellEncoder
from instructcell.align import AlignedCells
from instructcell.checkpoint import Checkpoint
from instructcell.doctor import DatasetReport
from instructcell.drugs import Drug, DrugSet
from instructcell.errors import CheckpointError, ConfigError, LabelError
from instructcell.generation import score_labels
from instructcell.labels import LabelSet
from instructcell.processor import Prompt
from instructcell.prompts import DRUG_ANSWERS, annotation_prompt, drug_prompt
from instructcell.readout import LabelReadout, species_code

UNKNOWN = "unknown"
CELL_TYPE, CELL_TYPE_ID = "instructcell_cell_type", "instructcell_cell_type_id"
CONFIDENCE, EMBEDDING, RUN = "instructcell_confidence", "X_instructcell", "instructcell"
DRUG_RESPONSE, P_SENSITIVE = "instructcell_drug_response", "instructcell_p_sensitive"

ENGINES = ("auto", "lm", "readout")
MOST_FOR_LM = 20_000  # cells; "auto" reads larger tables with the read-out
EMBED_CELLS = 2048  # cells embedded together

Arrays = dict[str, np.ndarray]  # one entry per cell along the first axis
Result = TypeVar("Result")


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
    engine, n_by_lm
        "lm" or "readout", and how many cells the language model itself has read.
    """

    table: pd.DataFrame
    embedding: np.ndarray
    rows: np.ndarray
    report: DatasetReport
    checkpoint: Checkpoint = field(repr=False)
    engine: str = "lm"
    n_by_lm: int = 0

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

    @property
    def engine_words(self) -> str:
        """Which reader named the cells, as a phrase."""
        if self.engine == "lm":
            return "read by the language model"
        return f"read by the fast read-out, {self.n_by_lm:,} of {len(self.table):,} cells by the language model"


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


class Task(ABC, Generic[Result]):
    """One thing to compute of every cell.

    Attributes
    ----------
    command, what
        Its name in records, and in progress bars.
    obs, obsm
        The columns and arrays that `store` writes.
    cells_at_once
        Cells scored together. Their number changes the last digits of a float, so a stream keeps to it.
    arguments
        What was asked for, as records hold it.
    """

    command: ClassVar[str]
    obs: ClassVar[tuple[str, ...]] = ()
    obsm: ClassVar[tuple[str, ...]] = ()
    what: str
    cells_at_once: int
    arguments: dict[str, Any]

    def __init__(self, loaded: Checkpoint, report: DatasetReport) -> None:
        self.loaded, self.report = loaded, report
        self.encoder = SparseCellEncoder(loaded.model.cell_encoder)

    @abstractmethod
    def score(self, cells: AlignedCells) -> Arrays:
        """What is found of a piece of cells."""

    @abstractmethod
    def result(self, arrays: Arrays, names: pd.Index, rows: np.ndarray) -> Result:
        """All pieces together, with the cells' names [N] and positions [N]."""

    @abstractmethod
    def store(self, adata: AnnData, result: Result) -> None:
        """Write the result of all cells into obs and obsm."""


class Annotation(Task[AnnotationResult]):
    """The cell type of every cell.

    Parameters
    ----------
    labels
        The user's own types, into which the checkpoint's are summed; None: the checkpoint's.
    species, tissue
        What the prompt says of the sample.
    engine
        "lm": the language model reads every cell. "readout": the fast read-out does, and leaves to the language model
        what it is not certain of. "auto": by `n_cells`.

    Raises
    ------
    LabelError
        One of `labels` matches nothing.
    """

    command = "annotate"
    obs = (CELL_TYPE, CELL_TYPE_ID, CONFIDENCE)
    obsm = (EMBEDDING,)
    what = "annotating cells"

    def __init__(
        self,
        loaded: Checkpoint,
        report: DatasetReport,
        *,
        n_cells: int,
        labels: Sequence[str] | None = None,
        species: str | None = None,
        tissue: str | None = None,
        engine: str = "auto",
        batch_size: int = 256,
    ) -> None:
        super().__init__(loaded, report)
        self.groups = None if labels is None else _project(loaded.labels, labels)
        species = species or report.species
        self.prompt = annotation_prompt(species=species, tissue=tissue)
        self.engine, self.batch_size = choose_engine(engine, loaded, n_cells), batch_size
        self.species = species_code(species)
        self.cells_at_once = batch_size if self.engine == "lm" else EMBED_CELLS
        asked = {"labels": list(labels or []), "species": species, "tissue": tissue}
        self.arguments = {**asked, "engine": self.engine, "batch_size": batch_size}

    def score(self, cells: AlignedCells) -> Arrays:
        embeddings = encode(self.encoder, cells)  # [n, K, Z]
        raw, by_lm = self._probabilities(cells, embeddings)
        probabilities = calibrate(raw, float(self.loaded.calibration.get("temperature", 1.0)))
        if self.groups is not None:
            probabilities = np.stack([probabilities[:, of].sum(axis=1) for _, of in self.groups], axis=1)
        return {"embedding": pooled(embeddings), "by_lm": by_lm, **best_two(probabilities)}

    def _probabilities(self, cells: AlignedCells, embeddings: Tensor) -> tuple[np.ndarray, np.ndarray]:
        """Probabilities of the checkpoint's labels [n, L], and which cells the language model read [n]."""
        names, n = self.loaded.labels.names, cells.counts.shape[0]
        if self.engine == "lm":
            return ask_lm(self.loaded, cells, self.prompt, names, self.batch_size), np.ones(n, bool)
        readout = require_readout(self.loaded)
        probabilities = read_labels(readout, embeddings, self.species)
        unsure = probabilities.max(axis=1) < readout.config.certain_above
        if unsure.any():
            asked = AlignedCells(cells.counts[unsure], cells.measured, cells.coverage, cells.n_shared, cells.report)
            probabilities[unsure] = ask_lm(self.loaded, asked, self.prompt, names, self.batch_size)
        return probabilities, unsure

    def result(self, arrays: Arrays, names: pd.Index, rows: np.ndarray) -> AnnotationResult:
        table = self._table(arrays, names)
        by_lm = int(arrays["by_lm"].sum())
        return AnnotationResult(table, arrays["embedding"], rows, self.report, self.loaded, self.engine, by_lm)

    def _table(self, arrays: Arrays, names: pd.Index) -> pd.DataFrame:
        labels = self.loaded.labels
        if self.groups is None:
            titles, ids = list(labels.names), [label.id for label in labels]
        else:
            titles = [title for title, _ in self.groups]
            ids = [label.id if (label := labels.find(title)) else "" for title in titles]
        title, cl_id = np.asarray([*titles, ""], dtype=object), np.asarray([*ids, ""], dtype=object)  # -1 is ""
        given = arrays["confidence"] >= float(self.loaded.calibration.get("unknown_below", 0.0))
        return pd.DataFrame(
            {
                "cell_type": np.where(given, title[arrays["first"]], UNKNOWN),
                "cell_type_id": np.where(given, cl_id[arrays["first"]], ""),
                "confidence": np.clip(arrays["confidence"], 0.0, 1.0),
                "best_guess": title[arrays["first"]],
                "runner_up": title[arrays["second"]],
                "runner_up_probability": arrays["runner_up_probability"],
            },
            index=names,
        )

    def store(self, adata: AnnData, result: AnnotationResult) -> None:
        adata.obs[CELL_TYPE] = pd.Categorical(result.table["cell_type"])
        adata.obs[CELL_TYPE_ID] = pd.Categorical(result.table["cell_type_id"])
        adata.obs[CONFIDENCE] = result.table["confidence"].to_numpy(np.float32)
        adata.obsm[EMBEDDING] = result.embedding


class DrugResponse(Task[DrugResult]):
    """Whether every cell is sensitive or resistant to a drug.

    Raises
    ------
    DrugError
        The checkpoint does not know the drug.
    """

    command = "drug_response"
    obs = (DRUG_RESPONSE, P_SENSITIVE)

    def __init__(
        self,
        loaded: Checkpoint,
        report: DatasetReport,
        *,
        drug: str,
        tissue: str | None = None,
        batch_size: int = 256,
    ) -> None:
        super().__init__(loaded, report)
        self.drug = DrugSet.of(loaded.drugs).get(drug)
        self.what = f"response to {self.drug.name}"
        self.prompt = drug_prompt(self.drug.name)
        self.cells_at_once = batch_size
        self.arguments = {"drug": self.drug.name, "tissue": tissue, "batch_size": batch_size}

    def score(self, cells: AlignedCells) -> Arrays:
        raw = ask_lm(self.loaded, cells, self.prompt, DRUG_ANSWERS, self.cells_at_once)
        calibrated = calibrate(raw, float(self.loaded.calibration.get("drug_temperature", 1.0)))
        return {"p_sensitive": calibrated[:, 0]}

    def result(self, arrays: Arrays, names: pd.Index, rows: np.ndarray) -> DrugResult:
        sensitive = arrays["p_sensitive"]
        response = np.where(sensitive >= 0.5, *DRUG_ANSWERS)
        table = pd.DataFrame({"response": response, "p_sensitive": sensitive}, index=names)
        return DrugResult(self.drug, table, rows, self.report, self.loaded)

    def store(self, adata: AnnData, result: DrugResult) -> None:
        adata.obs[DRUG_RESPONSE] = pd.Categorical(result.table["response"], categories=list(DRUG_ANSWERS))
        adata.obs[P_SENSITIVE] = result.table["p_sensitive"].to_numpy(np.float32)


class Embedding(Task[np.ndarray]):
    """What the cell encoder makes of every cell, [N, Z]."""

    command = "embed"
    obsm = (EMBEDDING,)
    what = "embedding cells"

    def __init__(self, loaded: Checkpoint, report: DatasetReport, *, batch_size: int = EMBED_CELLS) -> None:
        super().__init__(loaded, report)
        self.cells_at_once = batch_size
        self.arguments = {"batch_size": batch_size}

    def score(self, cells: AlignedCells) -> Arrays:
        return {"embedding": pooled(encode(self.encoder, cells))}

    def result(self, arrays: Arrays, names: pd.Index, rows: np.ndarray) -> np.ndarray:
        return arrays["embedding"]

    def store(self, adata: AnnData, result: np.ndarray) -> None:
        adata.obsm[EMBEDDING] = result


# ---- cells to numbers


@torch.inference_mode()
def encode(encoder: SparseCellEncoder, cells: AlignedCells) -> Tensor:
    """Cell embeddings [n, K, Z] of aligned cells."""
    counts = cells.counts
    if not counts.data.all():  # a zero that is stored would count as detected
        counts = counts.copy()
        counts.eliminate_zeros()
    values, columns, starts = (
        torch.from_numpy(np.asarray(array, dtype)).to(encoder.expression.device)
        for array, dtype in ((counts.data, np.float32), (counts.indices, np.int64), (counts.indptr[:-1], np.int64))
    )
    measured = torch.from_numpy(np.asarray(cells.measured, bool)).to(encoder.expression.device)
    return encoder(values, columns, starts, measured)


@torch.inference_mode()
def pooled(embeddings: Tensor) -> np.ndarray:
    """[n, K, Z] -> [n, Z] float32."""
    return CellEncoder.pool(embeddings).float().cpu().numpy()


def ask_lm(
    loaded: Checkpoint, cells: AlignedCells, prompt: str, answers: Sequence[str], batch_size: int
) -> np.ndarray:
    """The language model's probabilities of the legal answers [n, L]."""
    counts: Any = sp.csr_matrix(cells.counts)
    prompts = [Prompt.parse(prompt)] * counts.shape[0]
    scores = score_labels(
        loaded.model, loaded.processor, prompts, counts, cells.measured, list(answers), batch_size=batch_size
    )
    return scores.numpy()


@torch.inference_mode()
def read_labels(readout: LabelReadout, embeddings: Tensor, species: Tensor) -> np.ndarray:
    """The read-out's probabilities of the checkpoint's labels [n, L]."""
    code = species.to(embeddings).expand(len(embeddings), -1)  # [n, 2]
    return readout(embeddings.float(), code).exp().cpu().numpy()


def calibrate(probabilities: np.ndarray, temperature: float) -> np.ndarray:
    """Soften (temperature > 1) or sharpen probabilities [N, L] and let every row sum to 1."""
    logits = np.log(np.clip(probabilities.astype(np.float64), 1e-8, 1.0)) / temperature
    odds = np.exp(logits - logits.max(axis=1, keepdims=True))
    return odds / odds.sum(axis=1, keepdims=True)


def best_two(probabilities: np.ndarray) -> Arrays:
    """Positions and probabilities of the likeliest label and of the next one (-1 and 0 where there is none)."""
    order = np.argsort(-probabilities, axis=1, kind="stable")[:, :2]  # [N, 2]
    chances = np.take_along_axis(probabilities, order, axis=1)
    single = probabilities.shape[1] == 1
    return {
        "first": order[:, 0].astype(np.int32),
        "confidence": chances[:, 0],
        "second": np.full(len(order), -1, np.int32) if single else order[:, 1].astype(np.int32),
        "runner_up_probability": np.zeros(len(order)) if single else chances[:, 1],
    }


def choose_engine(engine: str, loaded: Checkpoint, n_cells: int) -> str:
    """ "lm" or "readout" from what was asked for.

    Raises
    ------
    ConfigError
        There is no such engine.
    CheckpointError
        The read-out was asked for and the checkpoint has none.
    """
    if engine not in ENGINES:
        raise ConfigError(f"there is no engine '{engine}'; choose one of {', '.join(ENGINES)}")
    if engine == "auto":
        return "readout" if n_cells > MOST_FOR_LM and loaded.readout is not None else "lm"
    if engine == "readout":
        require_readout(loaded)
    return engine


def require_readout(loaded: Checkpoint) -> LabelReadout:
    """The checkpoint's read-out, or a CheckpointError that says how to go on without."""
    if loaded.readout is None:
        raise CheckpointError(
            f"the checkpoint {loaded.path.name} has no fast read-out (readout.safetensors); let the language model "
            "read all cells (engine 'lm'), or train the checkpoint with `instructcell train`, which fits one"
        )
    return loaded.readout


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
