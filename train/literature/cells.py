"""Labelled cells as the systems of the literature take them: counts over named genes, a label and a species each."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from anndata import AnnData
from scipy import sparse
from torch import Tensor

from instructcell.cells import read
from instructcell.errors import ConfigError, LabelError, ReadError
from instructcell.genes import load_gene_table
from instructcell.literature.neighbours import require_two_classes
from instructcell.literature.reading import read_named
from train.datasets import hold_out, label_map
from train.recipe import DataEntry

LEAST_GENES = 50  # that all files of a run must share


@dataclass(frozen=True)
class Cells:
    """counts csr [N, G] on a linear scale over `genes` [G]; labels and species [N] text."""

    counts: sparse.csr_matrix
    genes: tuple[str, ...]
    labels: np.ndarray
    species: np.ndarray
    names: np.ndarray
    groups: np.ndarray  # of patients or donors, "" where not known
    obsm: dict[str, np.ndarray]  # embeddings that came with the file

    def __len__(self) -> int:
        return self.counts.shape[0]

    def __getitem__(self, rows: np.ndarray) -> Cells:
        obsm = {key: values[rows] for key, values in self.obsm.items()}
        return Cells(
            self.counts[rows],
            self.genes,
            self.labels[rows],
            self.species[rows],
            self.names[rows],
            self.groups[rows],
            obsm,
        )

    def dense(self, start: int = 0, end: int | None = None) -> Tensor:
        """Counts [n, G] float32 of some consecutive cells."""
        return torch.from_numpy(self.counts[start:end].toarray().astype(np.float32, copy=False))

    def to_adata(self) -> AnnData:
        """As a user would bring them, without the labels; mouse cells under the symbols of their own genes."""
        genes = list(self.genes)
        if set(self.species) == {"mouse"}:
            own = load_gene_table().set_index("symbol")["mouse_symbol"]
            genes = [own.get(gene, "") or gene for gene in genes]
        obs = pd.DataFrame({"species": self.species}, index=self.names)
        adata = AnnData(self.counts, obs=obs, var=pd.DataFrame(index=genes))
        for key, values in self.obsm.items():
            adata.obsm[key] = values
        return adata

    def on_genes(self, genes: Sequence[str]) -> Cells:
        """The same cells over some of their genes."""
        place = {gene: i for i, gene in enumerate(self.genes)}
        columns = [place[gene] for gene in genes]
        return replace(self, counts=self.counts[:, columns].tocsr(), genes=tuple(genes))


def join(parts: Sequence[Cells]) -> Cells:
    """Cells of several files over the genes that all measured.

    Raises
    ------
    ConfigError
        The files share fewer than 50 genes.
    """
    if len(parts) == 1:
        return parts[0]
    shared = set(parts[0].genes).intersection(*(part.genes for part in parts))
    if len(shared) < LEAST_GENES:
        raise ConfigError(
            f"the {len(parts)} files share {len(shared)} genes, expected at least {LEAST_GENES}; leave out the smallest"
        )
    genes = sorted(shared)
    parts = [part.on_genes(genes) for part in parts]
    keys = set(parts[0].obsm).intersection(*(part.obsm for part in parts))
    return Cells(
        sparse.vstack([part.counts for part in parts]).tocsr(),
        tuple(genes),
        *(np.concatenate([getattr(part, name) for part in parts]) for name in ("labels", "species", "names", "groups")),
        {key: np.concatenate([part.obsm[key] for part in parts]) for key in sorted(keys)},
    )


def some(cells: Cells, most: int | None, seed: int) -> Cells:
    """About so many cells, drawn so that every label keeps its share, and at least two cells where it has them."""
    if most is None or len(cells) <= most:
        return cells
    rng = np.random.default_rng(seed)
    chosen = []
    for label in np.unique(cells.labels):
        rows = np.flatnonzero(cells.labels == label)
        keep = max(min(2, len(rows)), round(most * len(rows) / len(cells)))
        chosen.append(rng.permutation(rows)[:keep])
    return cells[np.sort(np.concatenate(chosen))]


def load_split(entries: Sequence[DataEntry], folder: Path, label: str, seed: int) -> tuple[Cells, Cells]:
    """Training and held-out cells of the files of a recipe, labelled by an obs column.

    Names of the label map stand for the authors' where the column is `cell_type`.

    Raises
    ------
    ReadError
        A file is missing.
    LabelError
        A file has no such column, or the training cells have one type only.
    """
    training, held_out = [], []
    for entry in entries:
        path = folder / f"{entry.file}.h5ad"
        if not path.is_file():
            raise ReadError(f"the recipe names {entry.file}, but {path} does not exist; get it or remove the entry")
        adata = read(path)
        if label not in adata.obs:
            raise LabelError(f"{entry.file} has no column {label!r} to learn; obs has {', '.join(adata.obs.columns)}")
        cells = cells_of(adata, _names(entry.file, adata.obs[label].astype(str).to_numpy(), label))
        held = hold_out(adata.obs, entry, seed)
        kept = ~np.isin(adata.obs[label].astype(str), [*entry.ignore_labels, "nan"])
        training.append(cells[np.flatnonzero(~held & kept)])
        held_out.append(cells[np.flatnonzero(held & kept)])
    known, unseen = join([c for c in training if len(c)]), join([c for c in held_out if len(c)])
    require_two_classes(known.labels, "the training cells")
    genes = sorted(set(known.genes) & set(unseen.genes))
    return known.on_genes(genes), unseen.on_genes(genes)


def cells_of(adata: AnnData, labels: np.ndarray, group_column: str = "donor") -> Cells:
    """The cells of a file over the genes it measured."""
    named = read_named(adata)
    counts = sparse.vstack([sparse.csr_matrix(piece.numpy()) for piece in named.pieces()]).tocsr()
    groups: Any = adata.obs[group_column].astype(str).to_numpy() if group_column in adata.obs else ""
    return Cells(
        counts,
        tuple(named.genes),
        labels,
        np.full(len(labels), named.species),
        adata.obs_names.to_numpy(str),
        np.broadcast_to(np.asarray(groups, dtype=str), len(labels)).copy(),
        {key: np.asarray(values, np.float32) for key, values in adata.obsm.items() if np.ndim(values) == 2},
    )


def _names(file: str, labels: np.ndarray, column: str) -> np.ndarray:
    names = label_map(file) if column == "cell_type" else {}
    return np.array([names[x][0] if x in names else x for x in labels])
