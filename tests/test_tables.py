"""Tables and matrices as other programs write them: decimal commas, blanks, titles, other encodings, other names."""

from __future__ import annotations

import tarfile
from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import pandas as pd
import pytest
import scipy.io
import scipy.sparse as sp
from odd_cells import human_genes, make_counts

from instructcell.cells import read
from instructcell.errors import ReadError

COUNTS, GENES = make_counts(20, 60), human_genes(60)
CELLS = [f"cell{row}" for row in range(20)]
HALVES = COUNTS / 2


def frame(values: np.ndarray = COUNTS) -> pd.DataFrame:
    return pd.DataFrame(values, index=CELLS, columns=GENES)


def decimal_commas(path: Path, sep: str) -> Path:
    frame(HALVES).to_csv(path, sep=sep, decimal=",")
    return path


def of_r(path: Path) -> Path:
    """write.table: blanks between, quotes around names, no name over the row names."""
    text = frame(HALVES).T.to_csv(sep=" ", quoting=2)
    path.write_text(text.removeprefix('"" '))
    return path


def with_blanks(path: Path) -> Path:
    path.write_text(frame(HALVES).to_string())
    return path


def with_title(path: Path) -> Path:
    path.write_text("Counts of the islets\n\n" + frame(HALVES).to_csv())
    return path


def of_gct(path: Path) -> Path:
    table = frame(HALVES).T
    table.insert(0, "Description", "na")
    path.write_text("#1.2\n60\t20\n" + table.to_csv(sep="\t", index_label="Name"))
    return path


def with_last_delimiter(path: Path) -> Path:
    path.write_text(frame(HALVES).to_csv().replace("\n", ",\n"))
    return path


def with_annotation(path: Path) -> Path:
    table = frame(HALVES)
    table.insert(0, "n_counts", HALVES.sum(axis=1))
    table["UMAP_1"], table["percent.mt"] = np.linspace(-5, 5, 20), 3.5
    table.to_csv(path)
    return path


def of_feature_counts(path: Path) -> Path:
    table = frame(HALVES).T
    for at, (name, value) in enumerate({"Chr": 1, "Start": 10, "End": 99, "Strand": "+", "Length": 90}.items()):
        table.insert(at, name, value)
    path.write_text("# Program:featureCounts\n" + table.to_csv(sep="\t", index_label="Geneid"))
    return path


TABLES: dict[str, Callable[[Path], Path]] = {
    "semicolons and decimal commas": lambda folder: decimal_commas(folder / "c.csv", ";"),
    "tabs and decimal commas": lambda folder: decimal_commas(folder / "c.tsv", "\t"),
    "R's write.table": lambda folder: of_r(folder / "c.txt"),
    "columns filled with blanks": lambda folder: with_blanks(folder / "c.txt"),
    "a title above the names": lambda folder: with_title(folder / "c.csv"),
    "GCT": lambda folder: of_gct(folder / "c.txt"),
    "a delimiter at the end of the lines": lambda folder: with_last_delimiter(folder / "c.csv"),
    "annotation of the cells": lambda folder: with_annotation(folder / "c.csv"),
    "featureCounts": lambda folder: of_feature_counts(folder / "c.txt"),
}


@pytest.mark.parametrize("name", TABLES)
def test_a_table_of_another_program_is_read(name, tmp_path):
    adata = read(TABLES[name](tmp_path))
    assert list(adata.var_names) == GENES
    assert list(adata.obs_names) == CELLS
    assert np.allclose(adata.X.toarray(), HALVES)


def test_text_that_is_no_utf_8_is_read_as_windows_wrote_it_and_noted(tmp_path):
    table = frame()
    table.index = [f"Zürich{row}" for row in range(20)]
    table.to_csv(tmp_path / "c.csv", encoding="cp1252")
    adata = read(tmp_path / "c.csv")
    assert adata.obs_names[3] == "Zürich3"
    assert "Windows-1252" in adata.uns["instructcell_read"]["notes"][0]


@pytest.mark.parametrize(
    ("genes", "cells"), [("all_genes.csv", "cell_metadata.csv"), ("quants_mat_cols.txt", "quants_mat_rows.txt")]
)
def test_a_matrix_of_split_pipe_and_of_alevin(genes, cells, tmp_path):
    scipy.io.mmwrite(tmp_path / "matrix.mtx", sp.coo_matrix(COUNTS))
    (tmp_path / genes).write_text("\n".join(GENES) + "\n")
    (tmp_path / cells).write_text("\n".join(CELLS) + "\n")
    adata = read(tmp_path)
    assert list(adata.var_names) == GENES
    assert np.array_equal(adata.X.toarray(), COUNTS)


@pytest.mark.parametrize("key", ["GeneSymbol", "featurekey"])
def test_the_genes_of_a_loom_may_have_any_name(key, tmp_path):
    with h5py.File(tmp_path / "c.loom", "w") as file:
        file["matrix"] = COUNTS.T
        file.create_group("layers")
        file["col_attrs/cellID"], file["row_attrs/chromosome"] = np.array(CELLS, "S"), np.array(["1"] * 60, "S")
        file[f"row_attrs/{key}"] = np.array(GENES, "S")
    adata = read(tmp_path / "c.loom")
    assert list(adata.var_names) == GENES
    assert list(adata.obs_names) == CELLS


def test_a_matrix_is_found_some_folders_below(tmp_path):
    folder = tmp_path / "run" / "sample" / "outs" / "matrices"
    folder.mkdir(parents=True)
    frame().to_csv(folder / "counts.csv")
    assert read(tmp_path / "run").shape == COUNTS.shape


def test_a_tar_of_a_zarr_store_says_how_to_bring_it(tmp_path):
    store = tmp_path / "c.zarr"
    store.mkdir()
    (store / ".zgroup").write_text("{}")
    with tarfile.open(tmp_path / "c.tar.gz", "w:gz") as archive:
        archive.add(store, arcname="c.zarr")
    with pytest.raises(ReadError, match="zip the store"):
        read(tmp_path / "c.tar.gz")
