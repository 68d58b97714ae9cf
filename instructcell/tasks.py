"""What is computed of every cell: its label, its response to a drug, or its embedding.

A task turns a piece of aligned cells into arrays with one entry per cell, and the arrays of all pieces into a result
that it writes into an AnnData. Tools keep the arrays in memory, a stream keeps them on disk; the numbers are the same.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, ClassVar, Generic, TypeVar

import numpy as np
import pandas as pd
import scipy.sparse as sp
import torch
from anndata import AnnData
from torch import Tensor

from encoders import CellEncoder, SparseCellEncoder
from instructcell.align import AlignedCells
from instructcell.batches import AS_FOUND, Reading, aligned_pieces, contradicted_species
from instructcell.broader import SURE_ABOVE, BroaderTypes
from instructcell.checkpoint import Checkpoint
from instructcell.clusters import CLUSTER_CELLS, cluster_probabilities, clusters_of
from instructcell.context import (
    OBS_COLUMNS,
    SAMPLE_CELLS,
    SAMPLE_CELLS_BY_LM,
    ContextSettings,
    FileContext,
    TissueHint,
    sample_rows,
)
from instructcell.doctor import DatasetReport
from instructcell.drugs import Drug, DrugSet, drug_offset
from instructcell.errors import CheckpointError, ConfigError, LabelError
from instructcell.generation import score_labels
from instructcell.labels import LabelSet, is_narrower
from instructcell.patient_response import PatientResponse, in_words, memory_scores, patient_column, patients_of
from instructcell.processor import Prompt
from instructcell.prompts import DRUG_ANSWERS, annotation_prompt, drug_prompt
from instructcell.readout import LabelReadout, species_code
from instructcell.tissue_readers import tissue_readers

UNKNOWN = "unknown"
CELL_TYPE, CELL_TYPE_ID = "instructcell_cell_type", "instructcell_cell_type_id"
CONFIDENCE, EMBEDDING, RUN = "instructcell_confidence", "X_instructcell", "instructcell"
BROADER_TYPE, BROADER_TYPE_ID = "instructcell_broader_type", "instructcell_broader_type_id"
BROADER_CONFIDENCE, FAMILIARITY = "instructcell_broader_confidence", "instructcell_familiarity"
RESEMBLES = "instructcell_resembles"
CLUSTER_TYPE, CLUSTER_TYPE_ID = "instructcell_cluster_type", "instructcell_cluster_type_id"
CLUSTER_CONFIDENCE = "instructcell_cluster_confidence"
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
        `runner_up`, `runner_up_probability`; among the checkpoint's own types also `broader_type`, `broader_type_id`,
        `broader_confidence`: the narrowest type, the cell type itself or one above it, that is sure ("unknown" where
        none is); `familiarity`, where the checkpoint has a reference: the share of known cells that lie as far from
        training as this one, and `resembles`, the type that the markers of a cell too unfamiliar to be named look like
        ("" for the others). Probabilities and shares between 0 and 1.
    embedding
        [N, Z] what the cell encoder makes of each cell.
    rows
        Positions of the cells in the AnnData.
    engine, n_by_lm
        "lm" or "readout", and how many cells the language model itself has read.
    context
        What the file as a whole said of its cells; None where it was not asked.
    clusters
        Where clusters were named, one row each: `cells`, `cell_type`, `cell_type_id`, `confidence`, `runner_up`,
        `runner_up_probability`, `share` (of its cells that were named so one by one).
    notes
        What was set aside of what was said.
    """

    table: pd.DataFrame
    embedding: np.ndarray
    rows: np.ndarray
    report: DatasetReport
    checkpoint: Checkpoint = field(repr=False)
    engine: str = "lm"
    n_by_lm: int = 0
    context: FileContext | None = None
    clusters: pd.DataFrame | None = None
    notes: tuple[str, ...] = ()

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
    def resembles(self) -> pd.DataFrame:
        """What cells too unfamiliar to be named look like by their markers: type and number of cells; most first."""
        if "resembles" not in self.table:
            return pd.DataFrame({"cell_type": [], "cells": []})
        named = self.table.loc[self.table["resembles"] != "", "resembles"]
        return named.value_counts().rename_axis("cell_type").rename("cells").reset_index()

    @property
    def broader(self) -> pd.DataFrame:
        """Cells of which only a broader type is sure: type, id, number of cells and mean confidence; most first."""
        table = self.table
        columns = ["broader_type", "broader_type_id", "cells", "mean_confidence"]
        if "broader_type" not in table:
            return pd.DataFrame(columns=columns)
        only = table[(table["broader_type"] != table["best_guess"]) & (table["broader_type"] != UNKNOWN)]
        groups = only.groupby(["broader_type", "broader_type_id"], observed=True)["broader_confidence"]
        found = groups.agg(cells="size", mean_confidence="mean").reset_index()
        return found.sort_values(["cells", "broader_type"], ascending=[False, True], ignore_index=True)[columns]

    @property
    def context_words(self) -> list[str]:
        """What was made of the file as a whole and of what was said of it, as sentences."""
        return [*self.notes, *([] if self.context is None else self.context.sentences)]

    @property
    def engine_words(self) -> str:
        """Which reader named the cells, as a phrase."""
        if self.engine == "lm":
            return "read by the language model"
        return f"read by the fast read-out, {self.n_by_lm:,} of {len(self.table):,} cells by the language model"


@dataclass(frozen=True)
class DrugResult:
    """Predicted response per cell: `table` holds `response` and `p_sensitive` (0..1), indexed by the cells' names.

    `notes` say what an answer rests on where it does not rest on the language model.
    """

    drug: Drug
    table: pd.DataFrame
    rows: np.ndarray
    report: DatasetReport
    checkpoint: Checkpoint = field(repr=False)
    notes: tuple[str, ...] = ()

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
    alone
        Whether pieces are best scored each by one core, side by side: small operations on many cells.
    cells_at_once
        Cells scored together. Their number changes the last digits of a float, so a stream keeps to it.
    arguments
        What was asked for, as records hold it.
    """

    command: ClassVar[str]
    obs: tuple[str, ...] = ()
    obsm: ClassVar[tuple[str, ...]] = ()
    what: str
    alone: bool = False
    cells_at_once: int
    arguments: dict[str, Any]

    def __init__(self, loaded: Checkpoint, report: DatasetReport) -> None:
        self.loaded, self.report = loaded, report
        self.encoder = SparseCellEncoder(loaded.model.cell_encoder)

    def prepare(self, adata: AnnData, reading: Reading) -> None:  # noqa: B027 - most tasks need nothing
        """See the file as a whole, before its pieces are scored."""

    @property
    def genes(self) -> Sequence[str]:
        """The genes that cells are aligned to."""
        return self.loaded.processor.genes

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
    context
        Whether the file as a whole is asked about each of its cells; or its context, found before.
    by
        Column of obs that holds clusters; each is named from all of its cells.

    Raises
    ------
    LabelError
        One of `labels` matches nothing.
    """

    command = "annotate"
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
        context: bool | FileContext = True,
        by: str | None = None,
    ) -> None:
        super().__init__(loaded, report)
        self.groups = None if labels is None else _project(loaded.labels, labels)
        self.broader_than = [] if self.groups is None else broader_than(loaded.labels, [of for _, of in self.groups])
        self.said_species, self.tissue, self.by = species or report.species, tissue, by
        species = self.said_species
        self.settings = ContextSettings.of(loaded.calibration)
        self.wants_context = context is True and not self.settings.is_neutral
        self.context = context if isinstance(context, FileContext) else None
        self.clusters: pd.Series | None = None
        self.notes: tuple[str, ...] = ()
        self.broader = BroaderTypes(loaded.labels) if self.groups is None else None
        self.obs = (
            *(CELL_TYPE, CELL_TYPE_ID, CONFIDENCE),
            *((BROADER_TYPE, BROADER_TYPE_ID, BROADER_CONFIDENCE) if self.broader is not None else ()),
            *((FAMILIARITY, RESEMBLES) if loaded.reference is not None else ()),
            *((CLUSTER_TYPE, CLUSTER_TYPE_ID, CLUSTER_CONFIDENCE) if by is not None else ()),
        )
        self._ask_for(tissue)
        self.engine, self.batch_size = choose_engine(engine, loaded, n_cells), batch_size
        self.species = species_code(species)
        self.alone = self.engine != "lm"
        self.cells_at_once = EMBED_CELLS if self.alone else batch_size
        asked = {"labels": list(labels or []), "species": species, "tissue": tissue}
        how = {"engine": self.engine, "batch_size": batch_size, "context": context is not False}
        self.arguments = {**asked, **how, **({} if by is None else {"by": by})}

    def _ask_for(self, tissue: str | None) -> None:
        """Name a tissue in the prompt, or none."""
        self.prompt = annotation_prompt(species=self.said_species, tissue=tissue)

    def prepare(self, adata: AnnData, reading: Reading) -> None:
        if contradicted_species(adata, reading) and reading.species != self.report.species:
            self.said_species = self.report.species
            self.species = species_code(self.said_species)
            self._ask_for(self.tissue)
            self.notes = (
                f"You said {reading.species}, but the genes are of {self.said_species}; the hint was set aside.",
            )
        if self.by is not None:
            self.clusters = cluster_column(adata, self.by)
        if self.wants_context and self.context is None:
            self.context = self._context(adata, reading)
        hint = None if self.context is None else self.context.hint
        if hint is not None and hint.by == "you" and hint.looks_like:
            self._ask_for(None)  # the cells win
        said = [*self.notes, *([] if self.context is None else self.context.sentences)]
        if said:
            self.arguments = {**self.arguments, "context_said": " ".join(said)}

    def _context(self, adata: AnnData, reading: Reading) -> FileContext:
        """The context that a sample of the file makes, whose cells are read without what was said of the tissue."""
        loaded, readout = self.loaded, self.loaded.readout
        rows = sample_rows(adata.n_obs, SAMPLE_CELLS if readout is not None else SAMPLE_CELLS_BY_LM)
        at_once = EMBED_CELLS if readout is not None else self.batch_size
        prompt = annotation_prompt(species=self.said_species)
        probabilities, embedding, counts = [], [], []
        measured = np.zeros(len(loaded.processor.genes), bool)
        for cells in aligned_pieces(
            adata, loaded.processor.genes, self.report, rows, at_once=at_once, reading=reading or AS_FOUND
        ):
            embeddings, measured = encode(self.encoder, cells), cells.measured
            embedding.append(pooled(embeddings))
            counts.append(cells.counts)
            probabilities.append(
                ask_lm(loaded, cells, prompt, loaded.labels.names, at_once)
                if readout is None
                else read_labels(readout, embeddings, self.species)
            )
        calibrated = calibrate(np.concatenate(probabilities), self._temperature)
        return FileContext.of(
            loaded.labels,
            calibrated,
            np.concatenate(embedding),
            self.settings,
            counts=sp.vstack(counts).tocsr(),
            fit=partial(tissue_readers, loaded, measured),
            reference=loaded.reference,
            hint=TissueHint(self.tissue) if self.tissue else tissue_of_file(adata),
        )

    @property
    def _temperature(self) -> float:
        return float(self.loaded.calibration.get("temperature", 1.0))

    def score(self, cells: AlignedCells) -> Arrays:
        embeddings = encode(self.encoder, cells)  # [n, K, Z]
        raw, by_lm = self._probabilities(cells, embeddings)
        embedding, probabilities = pooled(embeddings), calibrate(raw, self._temperature)
        nearest = None
        if self.context is not None:
            nearest = self.context.nearest(embedding)
            probabilities = self.context.apply(probabilities, nearest, cells.counts)
        arrays = {"embedding": embedding, "by_lm": by_lm}
        arrays |= self._familiarity(embedding, nearest, cells.counts) | self._broader(probabilities)
        probabilities = self._grouped(probabilities)
        if self.by is not None:
            arrays["probabilities"] = probabilities.astype(np.float32)
        return {**arrays, **best_two(probabilities)}

    def _grouped(self, probabilities: np.ndarray) -> np.ndarray:
        """Probabilities [n, L] summed into the user's types, where there are such."""
        if self.groups is None:
            return probabilities
        return summed(probabilities, [of for _, of in self.groups], self.broader_than)

    def _broader(self, probabilities: np.ndarray) -> Arrays:
        if self.broader is None:
            return {}
        above = float(self.loaded.calibration.get("broader_above", SURE_ABOVE))
        position, confidence = self.broader.narrowest(probabilities, above)
        return {"broader": position, "broader_confidence": confidence}

    def _familiarity(self, embedding: np.ndarray, nearest: np.ndarray | None, counts: sp.csr_matrix) -> Arrays:
        """How familiar cells are, and the unseen type whose markers stand out most in each, -1 for none."""
        reference = self.loaded.reference
        if reference is None:
            return {}
        distance, resembles = reference.distance(embedding), np.full(len(embedding), -1)
        if self.context is not None and nearest is not None:
            surprise, of_type = self.context.surprise(counts)
            distance = self.context.distances(distance, nearest, surprise)
            resembles = of_type if surprise is None else np.where(surprise > 0, of_type, -1)
        return {"familiarity": reference.familiarity(distance), "resembles": resembles}

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
        clusters = None if self.clusters is None else self._clusters(arrays, table, self.clusters.iloc[rows])
        return AnnotationResult(
            table,
            arrays["embedding"],
            rows,
            self.report,
            self.loaded,
            self.engine,
            by_lm,
            self.context,
            clusters,
            self.notes,
        )

    def _titles(self) -> tuple[np.ndarray, np.ndarray]:
        """Names and ids of the answers, "" for the position -1."""
        labels = self.loaded.labels
        if self.groups is None:
            titles, ids = list(labels.names), [label.id for label in labels]
        else:
            titles = [title for title, _ in self.groups]
            ids = [label.id if (label := labels.find(title)) else "" for title in titles]
        return np.asarray([*titles, ""], dtype=object), np.asarray([*ids, ""], dtype=object)

    def _given(self, confidence: np.ndarray, familiarity: np.ndarray | None) -> np.ndarray:
        """Whether an answer is sure enough, of cells [n] familiar enough, to be given."""
        calibration = self.loaded.calibration
        given = confidence >= float(calibration.get("unknown_below", 0.0))
        if familiarity is None:
            return given
        return given & (familiarity >= float(calibration.get("familiar_above", 0.0)))

    def _clusters(self, arrays: Arrays, table: pd.DataFrame, groups: pd.Series) -> pd.DataFrame:
        """The type of every cluster, from the probabilities of all of its cells."""
        title, cl_id = self._titles()
        probabilities, familiarity = arrays["probabilities"].astype(np.float64), arrays.get("familiarity")
        worth = float(self.loaded.calibration.get("cluster_cells", CLUSTER_CELLS))
        everything = probabilities.mean(axis=0)
        records = {}
        for name, cells in clusters_of(groups).items():
            best = best_two(cluster_probabilities(probabilities[cells], everything, worth)[None])
            first, second = best["first"][0], best["second"][0]
            known = None if familiarity is None else np.median(familiarity[cells], keepdims=True)
            given = bool(self._given(best["confidence"], known)[0])
            records[name] = {
                "cells": len(cells),
                "cell_type": title[first] if given else UNKNOWN,
                "cell_type_id": cl_id[first] if given else "",
                "confidence": float(best["confidence"][0]),
                "best_guess": title[first],
                "runner_up": title[second],
                "runner_up_probability": float(best["runner_up_probability"][0]),
                "share": float((table["best_guess"].to_numpy()[cells] == title[first]).mean()),
            }
        return pd.DataFrame.from_dict(records, orient="index").rename_axis("cluster")

    def _table(self, arrays: Arrays, names: pd.Index) -> pd.DataFrame:
        title, cl_id = self._titles()
        familiarity = arrays.get("familiarity")
        given = self._given(arrays["confidence"], familiarity)
        table = pd.DataFrame(
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
        strange = np.zeros(len(table), bool)
        if familiarity is not None:
            table["familiarity"] = familiarity
            strange = familiarity < float(self.loaded.calibration.get("familiar_above", 0.0))
            unseen = None if self.context is None else self.context.unseen
            names = np.asarray([*([] if unseen is None else unseen.names), ""], dtype=object)
            table["resembles"] = names[np.where(strange, arrays["resembles"], -1)]
        if self.broader is not None:
            position = np.where(strange, -1, arrays["broader"])
            table["broader_type"] = np.asarray([*self.broader.names, UNKNOWN], dtype=object)[position]
            table["broader_type_id"] = np.asarray([*self.broader.ids, ""], dtype=object)[position]
            table["broader_confidence"] = np.where(strange, 0.0, arrays["broader_confidence"])
        return table

    def store(self, adata: AnnData, result: AnnotationResult) -> None:
        for column, values in obs_columns(result).items():
            number = pd.api.types.is_numeric_dtype(values)
            adata.obs[column] = values.to_numpy(np.float32) if number else pd.Categorical(values)
        if result.clusters is not None and self.clusters is not None:
            of_cell = self.clusters.map(str)
            for column, name in ((CLUSTER_TYPE, "cell_type"), (CLUSTER_TYPE_ID, "cell_type_id")):
                adata.obs[column] = pd.Categorical(of_cell.map(result.clusters[name]).fillna("").to_numpy())
            adata.obs[CLUSTER_CONFIDENCE] = of_cell.map(result.clusters["confidence"]).to_numpy(np.float32)
        adata.obsm[EMBEDDING] = result.embedding


OBS_OF_TABLE = {  # column of obs: column of the result's table
    CELL_TYPE: "cell_type",
    CELL_TYPE_ID: "cell_type_id",
    CONFIDENCE: "confidence",
    BROADER_TYPE: "broader_type",
    BROADER_TYPE_ID: "broader_type_id",
    BROADER_CONFIDENCE: "broader_confidence",
    FAMILIARITY: "familiarity",
    RESEMBLES: "resembles",
}


def obs_columns(result: AnnotationResult) -> dict[str, pd.Series]:
    """What of a result goes into obs, by column."""
    return {column: result.table[name] for column, name in OBS_OF_TABLE.items() if name in result.table}


def cluster_column(adata: AnnData, by: str) -> pd.Series:
    """The clusters of the cells as text, missing where a cell has none.

    Raises
    ------
    LabelError
        There is no such column, it holds no clusters, or nearly every cell has one of its own.
    """
    if by not in adata.obs:
        there = ", ".join(map(str, adata.obs.columns)) or "none"
        raise LabelError(f"found no column '{by}' in obs, expected clusters; choose one of: {there}")
    values = adata.obs[by]
    texts = values.astype(object).where(values.notna(), None).map(lambda value: None if value is None else str(value))
    n_clusters = texts.nunique()
    if n_clusters == 0 or n_clusters > max(1, adata.n_obs // 2):
        raise LabelError(
            f"found {n_clusters:,} clusters for {adata.n_obs:,} cells in obs column '{by}', expected groups of several "
            "cells; choose a column that holds clusters"
        )
    return texts.replace("", None)


def tissue_of_file(adata: AnnData) -> TissueHint | None:
    """The one tissue that a column of obs names for all cells, if there is one."""
    for column in OBS_COLUMNS:
        if column in adata.obs:
            values = adata.obs[column].dropna().astype(str).unique()
            return TissueHint(" ".join(values[0].split())[:60], by="file") if len(values) == 1 else None
    return None


class DrugResponse(Task[DrugResult]):
    """Whether every cell is sensitive or resistant to a drug.

    The language model answers, but for drugs to which patients respond: there the cells of a patient are judged
    together (`instructcell.patient_response`).

    Raises
    ------
    DrugError
        The checkpoint does not know the drug.
    """

    command = "drug_response"
    obs: tuple[str, ...] = (DRUG_RESPONSE, P_SENSITIVE)

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
        self.by_patient = PatientResponse.of(loaded.calibration, self.drug.name)
        self.patient_column: str | None = None
        self.patients: np.ndarray | None = None

    def prepare(self, adata: AnnData, reading: Reading) -> None:
        if self.by_patient is None:
            return
        self.patient_column = patient_column(adata.obs)
        if self.patient_column is not None:
            self.patients = patients_of(adata.obs, self.patient_column)

    def score(self, cells: AlignedCells) -> Arrays:
        if self.by_patient is not None:
            return {"memory": memory_scores(cells.counts, cells.measured, self.genes)}
        raw = ask_lm(self.loaded, cells, self.prompt, DRUG_ANSWERS, self.cells_at_once)
        offset = drug_offset(self.loaded.calibration, self.drug.name)
        calibrated = calibrate(shifted(raw, offset), float(self.loaded.calibration.get("drug_temperature", 1.0)))
        return {"p_sensitive": calibrated[:, 0]}

    def result(self, arrays: Arrays, names: pd.Index, rows: np.ndarray) -> DrugResult:
        notes: tuple[str, ...] = ()
        if self.by_patient is None:
            sensitive = arrays["p_sensitive"]
        else:
            sensitive = self.by_patient.p_sensitive(
                arrays["memory"], None if self.patients is None else self.patients[rows]
            )
            notes = in_words(self.by_patient, self.patient_column, self._judged())
        response = np.where(sensitive >= 0.5, *DRUG_ANSWERS)
        table = pd.DataFrame({"response": response, "p_sensitive": sensitive}, index=names)
        return DrugResult(self.drug, table, rows, self.report, self.loaded, notes)

    def _judged(self) -> dict[str, Any] | None:
        """The figures of this drug on held-out patients, where they were measured."""
        return next((row for row in self.loaded.card.get("drug", ()) if self.drug.name in row["drugs"]), None)

    def store(self, adata: AnnData, result: DrugResult) -> None:
        adata.obs[DRUG_RESPONSE] = pd.Categorical(result.table["response"], categories=list(DRUG_ANSWERS))
        adata.obs[P_SENSITIVE] = result.table["p_sensitive"].to_numpy(np.float32)


class Embedding(Task[np.ndarray]):
    """What the cell encoder makes of every cell, [N, Z]."""

    command = "embed"
    obsm = (EMBEDDING,)
    what = "embedding cells"
    alone = True

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
        for array, dtype in ((counts.data, np.float32), (counts.indices, np.int32), (counts.indptr[:-1], np.int32))
    )
    measured = torch.from_numpy(np.asarray(cells.measured, bool)).to(encoder.expression.device)
    return encoder(values, columns, starts, measured)


@torch.inference_mode()
def pooled(embeddings: Tensor) -> np.ndarray:
    """[n, K, Z] -> [n, Z] float32."""
    return CellEncoder.pool(embeddings).float().cpu().numpy()


def ask_lm(loaded: Checkpoint, cells: AlignedCells, prompt: str, answers: Sequence[str], batch_size: int) -> np.ndarray:
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


def shifted(probabilities: np.ndarray, offset: float) -> np.ndarray:
    """Add an offset to the log-odds of the first of two answers; probabilities [N, 2] -> [N, 2], rows sum to 1."""
    odds = probabilities * np.array([np.exp(offset), 1.0])
    return odds / np.maximum(odds.sum(axis=1, keepdims=True), 1e-12)


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


def summed(
    probabilities: np.ndarray, groups: Sequence[Sequence[int]], broader: Sequence[tuple[int, list[int]]]
) -> np.ndarray:
    """Probabilities [..., L] summed within groups of labels [..., len(groups)].

    `broader` are labels outside the groups, each with the groups under it, which share what it has in the proportion of
    what they have: "T cell" is an answer for the T cells among the user's types.
    """
    own = np.stack([probabilities[..., of].sum(axis=-1) for of in groups], axis=-1)
    result, given = own.copy(), np.clip(own, 1e-12, None)
    for column, narrower in broader:
        shares = given[..., narrower] / given[..., narrower].sum(axis=-1, keepdims=True)
        result[..., narrower] += probabilities[..., [column]] * shares
    return result


def broader_than(labels: LabelSet, groups: Sequence[Sequence[int]]) -> list[tuple[int, list[int]]]:
    """Labels in none of the groups, each with the groups that are narrower than it, where there are such."""
    used = {column for group in groups for column in group}
    found = []
    for column in set(range(len(labels))) - used:
        narrower = [
            i for i, group in enumerate(groups) if all(is_narrower(labels[member], labels[column]) for member in group)
        ]
        found += [(column, narrower)] if narrower else []
    return sorted(found)


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
