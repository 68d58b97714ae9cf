"""Labelled cells for training and evaluation, aligned to one gene vocabulary and split by the recipe.

file -> read, inspect, align (as for a user's file) -> labels through the label map -> training and held-out rows
"""

from __future__ import annotations

import csv
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from importlib.resources import files
from pathlib import Path

import anndata as ad
import numpy as np
import pandas as pd
from scipy import sparse

from instructcell.align import align_genes
from instructcell.cells import read
from instructcell.doctor import inspect
from instructcell.errors import ConfigError, ReadError
from instructcell.genes import load_gene_table
from train.recipe import DataEntry, DrugEntry, Recipe

DATA_PLACES = (Path("data"), Path("../shared/data"))


@dataclass(frozen=True)
class LabelledCells:
    """The cells of one file on the gene vocabulary.

    counts csr [N, G] on a linear scale, measured [G] bool; the string arrays have one entry per cell, "" if unknown.
    """

    entry: DataEntry
    counts: sparse.csr_matrix
    measured: np.ndarray
    is_counts: bool  # whether counts are molecule counts, as the decoder needs
    dataset_label: np.ndarray  # the authors' name
    label: np.ndarray  # the name of the label map
    label_id: np.ndarray
    species: np.ndarray
    tissue: np.ndarray
    technology: np.ndarray
    condition: np.ndarray
    drugs: tuple[
        tuple[np.ndarray, np.ndarray], ...
    ]  # (drug name, response "sensitive" / "resistant" / "") per drug entry
    held_out: np.ndarray  # [N] bool
    donor: np.ndarray | None = None  # [N] names, "" if unknown

    @property
    def name(self) -> str:
        return self.entry.file

    @property
    def training_rows(self) -> np.ndarray:
        return np.flatnonzero(~self.held_out)

    def on_genes(self, columns: np.ndarray) -> LabelledCells:
        """The same cells on a subset of the genes, columns [G'] of the present ones."""
        return replace(self, counts=self.counts[:, columns].tocsr(), measured=self.measured[columns])


def find_data(folder: str | Path | None = None) -> Path:
    """The folder with the training files: the one named, or `data`, or one shared beside the project.

    Raises
    ------
    ConfigError
        No such folder.
    """
    places = [Path(folder)] if folder else [*DATA_PLACES]
    for place in places:
        if place.is_dir() and any(place.glob("*.h5ad")):
            return place
    raise ConfigError(
        f"no training data: looked for .h5ad files in {', '.join(map(str, places))}. The model card lists the "
        "accessions; name the folder that holds the files with --data."
    )


def load_datasets(recipe: Recipe, folder: Path, genes: Sequence[str] | None = None) -> list[LabelledCells]:
    """Read every file of the recipe, aligned to `genes` (human symbols; None = every gene of the gene table)."""
    genes = list(load_gene_table()["symbol"]) if genes is None else list(genes)
    return [load_dataset(entry, folder, genes, recipe.seed) for entry in recipe.data]


def load_dataset(entry: DataEntry, folder: Path, genes: Sequence[str], seed: int) -> LabelledCells:
    """Read one file of the recipe."""
    path = folder / f"{entry.file}.h5ad"
    if not path.is_file():
        raise ReadError(
            f"the recipe names {entry.file}, but {path} does not exist; get it (see the model card) or remove the entry"
        )
    adata = read(path)
    report = inspect(adata)
    aligned = align_genes(adata, genes, report)
    obs = adata.obs
    names = label_map(entry.file)
    dataset_label = obs["cell_type"].astype(str).to_numpy()
    unknown = sorted(set(dataset_label) - set(names))
    if unknown:
        raise ConfigError(f"{entry.file}: labels {unknown} are not in the label map; add them to label_map.tsv")
    return LabelledCells(
        entry=entry,
        counts=aligned.counts,
        measured=aligned.measured,
        is_counts=report.scale == "counts" or report.counts_recovered,
        dataset_label=dataset_label,
        label=np.array([names[x][0] for x in dataset_label]),
        label_id=np.array([names[x][1] for x in dataset_label]),
        species=_column(obs, "species"),
        tissue=_column(obs, "tissue"),
        technology=_column(obs, "tech"),
        condition=_condition(obs),
        drugs=tuple(_responses(obs, drug) for drug in entry.drug),
        held_out=hold_out(obs, entry, seed),
        donor=_column(obs, "donor"),
    )


def hold_out(obs: pd.DataFrame, entry: DataEntry, seed: int) -> np.ndarray:
    """Which cells training never sees [N] bool: whole groups, or a seeded share of each label.

    Raises
    ------
    ConfigError
        A column or group of the recipe is not in the file.
    """
    if entry.use == "evaluation":
        return np.ones(len(obs), bool)
    if isinstance(entry.hold_out, Mapping):
        held = np.zeros(len(obs), bool)
        for column, groups in entry.hold_out.items():
            if column not in obs:
                raise ConfigError(
                    f"{entry.file}: hold_out names the column {column!r}; obs has {', '.join(obs.columns)}"
                )
            values = obs[column].astype(str).to_numpy()
            missing = sorted(set(map(str, groups)) - set(values))
            if missing:
                raise ConfigError(f"{entry.file}: {column} has no group {missing}; it has {sorted(set(values))}")
            held |= np.isin(values, list(map(str, groups)))
        return held
    return _hold_out_share(obs["cell_type"].astype(str).to_numpy(), float(entry.hold_out), seed)


def _hold_out_share(labels: np.ndarray, share: float, seed: int) -> np.ndarray:
    """A seeded share of the cells of each label, none of a label with fewer than five cells."""
    rng = np.random.default_rng(seed)
    held = np.zeros(len(labels), bool)
    for label in np.unique(labels):
        rows = np.flatnonzero(labels == label)
        if len(rows) >= 5:
            held[rng.permutation(rows)[: max(1, round(share * len(rows)))]] = True
    return held


def label_map(file: str) -> dict[str, tuple[str, str]]:
    """The authors' label -> (name, Cell Ontology id) for one data file."""
    text = files("instructcell.resources").joinpath("label_map.tsv").read_text(encoding="utf-8")
    rows = csv.DictReader(text.splitlines(), delimiter="\t")
    return {row["dataset_label"]: (row["name"], row["id"]) for row in rows if row["file"] == file}


def _column(obs: pd.DataFrame, name: str) -> np.ndarray:
    return obs[name].astype(str).to_numpy() if name in obs else np.full(len(obs), "")


def _condition(obs: pd.DataFrame) -> np.ndarray:
    """What was done to the cells, in words a prompt can use."""
    condition = _column(obs, "condition")
    stimulus = _column(obs, "drug")
    words = np.where(condition == "stim", np.char.add(stimulus.astype(str), " stimulated"), condition)
    return np.where(np.isin(words, ["ctrl", "healthy", "nan"]), "", words)


def _responses(obs: pd.DataFrame, drug: DrugEntry) -> tuple[np.ndarray, np.ndarray]:
    """Drug name and response per cell; "" where the cell has none."""
    if drug.response_column not in obs:
        raise ConfigError(f"drug entry: no column {drug.response_column!r} in obs ({', '.join(obs.columns)})")
    names = np.full(len(obs), drug.name, dtype=object) if drug.name else obs[drug.name_column].astype(str).to_numpy()
    values = obs[drug.response_column].astype(str).map({drug.sensitive: "sensitive", drug.resistant: "resistant"})
    return names.astype(str), values.fillna("").to_numpy().astype(str)


def to_adata(cells: LabelledCells, rows: Iterable[int], genes: Sequence[str]) -> ad.AnnData:
    """Some cells as AnnData on their measured genes, for baselines and for trying the product on held-out cells."""
    index = np.asarray(list(rows))
    measured = np.flatnonzero(cells.measured)
    obs = pd.DataFrame(
        {
            "label": cells.label[index],
            "label_id": cells.label_id[index],
            "species": cells.species[index],
            "tissue": cells.tissue[index],
        },
        index=[f"cell{i}" for i in index],
    )
    var = pd.DataFrame(index=[genes[j] for j in measured])
    return ad.AnnData(cells.counts[index][:, measured].tocsr(), obs=obs, var=var)
