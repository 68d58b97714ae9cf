"""Files of cells are read, or refused in one sentence."""

from __future__ import annotations

import gzip
import pickle
import zipfile
from pathlib import Path

import h5py
import numpy as np
import pandas as pd
import pytest
from odd_cells import gene_names, human_genes, make_adata, make_counts

from instructcell.cells import read
from instructcell.errors import GeneAlignmentError, InstructCellError, MatrixError, ReadError


def table(path: Path, *, turned: bool = False, sep: str = ",") -> Path:
    adata = make_adata()
    frame = adata.to_df()
    (frame.T if turned else frame).to_csv(path, sep=sep)
    return path


def write_10x(path: Path, *, version: int) -> Path:
    adata = make_adata()
    matrix, symbols = adata.X.tocsr().astype(np.int32), list(adata.var_names)
    with h5py.File(path, "w") as file:
        group = file.create_group("matrix" if version == 3 else "GRCh38")
        for key in ("data", "indices", "indptr"):
            group[key] = getattr(matrix, key)
        group["shape"] = np.array(matrix.shape[::-1])
        group["barcodes"] = np.array(adata.obs_names, dtype="S")
        ids, names = np.array(gene_names(symbols, "ensembl_id"), dtype="S"), np.array(symbols, dtype="S")
        if version == 3:
            features = group.create_group("features")
            features["id"], features["name"] = ids, names
            features["feature_type"] = np.array(["Gene Expression"] * len(symbols), dtype="S")
            features["genome"] = np.array(["GRCh38"] * len(symbols), dtype="S")
        else:
            group["genes"], group["gene_names"] = ids, names
    return path


def test_an_h5ad_comes_back_as_it_was_written(tmp_path):
    adata = make_adata()
    adata.write_h5ad(tmp_path / "cells.h5ad")
    again = read(tmp_path / "cells.h5ad")
    assert np.array_equal(again.X.toarray(), adata.X.toarray())
    assert list(again.var_names) == list(adata.var_names)
    assert "instructcell_read" not in again.uns


def test_what_anndata_does_not_know_is_left_out_and_noted(tmp_path):
    make_adata().write_h5ad(tmp_path / "c.h5ad")
    with h5py.File(tmp_path / "c.h5ad", "a") as file:
        file["hello"] = 1
    adata = read(tmp_path / "c.h5ad")
    assert adata.shape == (40, 300)
    assert adata.uns["instructcell_read"]["notes"] == ["what anndata does not know was left out: hello"]


@pytest.mark.parametrize("version", [2, 3])
@pytest.mark.parametrize("name", ["cells.h5", "cells.h5ad"])
def test_a_10x_file_is_known_by_its_content(tmp_path, version, name):
    adata = read(write_10x(tmp_path / name, version=version))
    assert np.array_equal(adata.X.toarray(), make_counts())
    assert list(adata.var_names) == human_genes()


@pytest.mark.parametrize("turned", [False, True])
@pytest.mark.parametrize(("name", "sep"), [("c.csv", ","), ("c.tsv", "\t"), ("c.csv.gz", ","), ("c.txt", ";")])
def test_a_table_is_read_either_way_round(tmp_path, turned, name, sep):
    adata = read(table(tmp_path / name, turned=turned, sep=sep))
    assert np.array_equal(adata.X.toarray(), make_counts())
    assert list(adata.obs_names[:2]) == ["cell0", "cell1"]
    assert list(adata.var_names) == human_genes()
    assert ("instructcell_read" in adata.uns) == turned


def test_a_table_that_R_wrote_has_no_name_over_its_row_names(tmp_path):
    path = table(tmp_path / "r.tsv", turned=True, sep="\t")
    path.write_text(path.read_text().removeprefix("\t"))
    assert read(path).shape == (40, 300)


def test_a_table_without_cell_names_keeps_its_first_gene(tmp_path):
    make_adata().to_df().to_csv(tmp_path / "c.csv", index=False)
    adata = read(tmp_path / "c.csv")
    assert adata.shape == (40, 300)
    assert list(adata.obs_names[:2]) == ["0", "1"]


def test_words_beside_the_numbers_become_annotation(tmp_path):
    frame = make_adata().to_df()
    frame.insert(0, "cell_type", ["alpha", "beta"] * 20)
    frame.to_csv(tmp_path / "c.csv")
    adata = read(tmp_path / "c.csv")
    assert adata.obs["cell_type"].tolist()[:2] == ["alpha", "beta"]
    assert adata.n_vars == 300


def test_repeated_gene_names_of_a_table_are_kept_as_written(tmp_path):
    frame = make_adata().to_df()
    frame.columns = [frame.columns[1], *frame.columns[1:]]
    frame.to_csv(tmp_path / "c.csv")
    assert read(tmp_path / "c.csv").var_names[:2].tolist() == [human_genes()[1]] * 2


def test_repeated_cell_names_are_numbered_and_noted(tmp_path):
    adata = make_adata()
    adata.obs_names = ["same", "same", *adata.obs_names[2:]]
    adata.write_h5ad(tmp_path / "c.h5ad")
    again = read(tmp_path / "c.h5ad")
    assert again.obs_names.is_unique
    assert "1 cell names repeated" in again.uns["instructcell_read"]["notes"][0]


def test_an_anndata_in_memory_is_returned_as_it_is():
    adata = make_adata()
    assert read(adata) is adata


def test_a_table_longer_than_one_block_is_whole(tmp_path, monkeypatch):
    monkeypatch.setattr("instructcell.table.BLOCK_VALUES", 1000)
    assert np.array_equal(read(table(tmp_path / "c.csv")).X.toarray(), make_counts())


def text_as_h5ad(folder: Path) -> Path:
    return table(folder / "c.h5ad")


def truncated_h5ad(folder: Path) -> Path:
    make_adata().write_h5ad(folder / "c.h5ad")
    (folder / "c.h5ad").write_bytes((folder / "c.h5ad").read_bytes()[:-2000])
    return folder / "c.h5ad"


def truncated_gzip(folder: Path) -> Path:
    path = table(folder / "c.csv.gz")
    path.write_bytes(path.read_bytes()[:-200])
    return path


def pickle_as_h5ad(folder: Path) -> Path:
    (folder / "c.h5ad").write_bytes(pickle.dumps({"X": [1, 2, 3]}))
    return folder / "c.h5ad"


def foreign_hdf5(folder: Path) -> Path:
    with h5py.File(folder / "c.h5ad", "w") as file:
        file["hello"] = 1
    return folder / "c.h5ad"


def h5ad_with_indices_outside(folder: Path) -> Path:
    make_adata().write_h5ad(folder / "c.h5ad")
    with h5py.File(folder / "c.h5ad", "a") as file:
        file["X/indices"][5] = 10_000_000
    return folder / "c.h5ad"


def h5ad_without_matrix_type(folder: Path) -> Path:
    make_adata().write_h5ad(folder / "c.h5ad")
    with h5py.File(folder / "c.h5ad", "a") as file:
        file["X"].attrs["encoding-type"] = "unheard_of"
    return folder / "c.h5ad"


def empty_file(folder: Path) -> Path:
    (folder / "c.h5ad").write_bytes(b"")
    return folder / "c.h5ad"


def missing_file(folder: Path) -> Path:
    return folder / "nothing.h5ad"


def the_folder(folder: Path) -> Path:
    return folder


def unknown_extension(folder: Path) -> Path:
    (folder / "c.xlsx").write_bytes(b"PK\x03\x04")
    return folder / "c.xlsx"


def hdf5_as_csv(folder: Path) -> Path:
    make_adata().write_h5ad(folder / "c.h5ad")
    return (folder / "c.h5ad").rename(folder / "c.csv")


def csv_with_words(folder: Path) -> Path:
    path = table(folder / "c.csv")
    path.write_text(path.read_text().replace("\ncell7,0.0", "\ncell7,many", 1))
    return path


def ragged_csv(folder: Path) -> Path:
    path = table(folder / "c.csv")
    path.write_text(path.read_text() + "cell99" + ",1" * 400 + "\n")
    return path


def csv_of_one_line(folder: Path) -> Path:
    (folder / "c.csv").write_text("cell,TP53,INS\n")
    return folder / "c.csv"


def csv_without_delimiter(folder: Path) -> Path:
    (folder / "c.csv").write_text("TP53\n1\n2\n")
    return folder / "c.csv"


def utf16_tsv(folder: Path) -> Path:
    (folder / "c.tsv").write_bytes("cell\tTP53\na\t1\n".encode("utf-16"))
    return folder / "c.tsv"


def excel_as_csv(folder: Path) -> Path:
    with zipfile.ZipFile(folder / "c.csv", "w") as workbook:
        workbook.writestr("[Content_Types].xml", "<Types/>")
    return folder / "c.csv"


def csv_of_names_only(folder: Path) -> Path:
    (folder / "c.csv").write_text('"cell,TP53\na,1\nb,2\n')
    return folder / "c.csv"


def csv_with_a_long_word(folder: Path) -> Path:
    (folder / "c.csv").write_text(f"cell,TP53\nx,1\ny,{'a' * 5000}\nz,3\n")
    return folder / "c.csv"


def csv_of_one_endless_field(folder: Path) -> Path:
    (folder / "c.csv").write_text("cell,TP53\na," + "9" * 200_000 + "\n")
    return folder / "c.csv"


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (csv_of_names_only, "holds no numbers"),
        (csv_with_a_long_word, "'a{60}...' in row"),
        (utf16_tsv, "text in UTF-16.*Save it again as UTF-8"),
        (excel_as_csv, "Excel workbook"),
        (csv_of_one_endless_field, "field larger than"),
        (text_as_h5ad, "text file, not HDF5"),
        (truncated_h5ad, "truncated"),
        (truncated_gzip, "cannot be read as a table"),
        (pickle_as_h5ad, "pickle, which is never opened"),
        (foreign_hdf5, "holds hello"),
        (h5ad_with_indices_outside, "cannot be read as cells"),
        (h5ad_without_matrix_type, "cannot be read as cells"),
        (empty_file, "empty"),
        (missing_file, "does not exist"),
        (the_folder, "holds no cells but nothing"),
        (unknown_extension, "unknown kind"),
        (hdf5_as_csv, "HDF5 file, not what its name says"),
        (csv_with_words, "'many' in row 'cell7'"),
        (ragged_csv, "cannot be read as a table"),
        (csv_of_one_line, "1 line"),
        (csv_without_delimiter, "one column"),
    ],
)
def test_a_file_that_cannot_be_read_is_refused_in_one_sentence(tmp_path, make, words):
    path = make(tmp_path)
    with pytest.raises(ReadError, match=words) as refused:
        read(path)
    assert "\n" not in str(refused.value)
    assert len(str(refused.value)) < 400


def test_a_table_without_gene_names_says_what_it_found(tmp_path):
    frame = pd.DataFrame(
        np.eye(5), index=[f"site no {i}" for i in range(5)], columns=[f"trait no {i}" for i in range(5)]
    )
    frame.to_csv(tmp_path / "c.csv")
    with pytest.raises(GeneAlignmentError, match="rows begin site no 0.*columns begin trait no 0"):
        read(tmp_path / "c.csv")


@pytest.mark.parametrize("rows", [slice(0, 0), slice(0, 40)])
def test_a_file_without_cells_or_genes_is_refused(tmp_path, rows):
    adata = make_adata()
    adata = adata[rows] if rows.stop == 0 else adata[:, :0]
    adata.copy().write_h5ad(tmp_path / "c.h5ad")
    with pytest.raises(MatrixError, match="expected at least one of each"):
        read(tmp_path / "c.h5ad")


def test_a_matrix_of_words_is_refused(tmp_path):
    adata = make_adata()
    adata.X = np.full(adata.shape, "many")
    with pytest.raises(MatrixError, match="expected numbers"):
        read(adata)


PIECES = ("X", "X/data", "X/indices", "X/indptr", "obs", "obs/_index", "var", "var/_index", "uns", "layers")


@pytest.mark.parametrize("piece", PIECES)
def test_a_file_with_a_piece_missing_is_read_or_refused(tmp_path, piece):
    make_adata().write_h5ad(tmp_path / "c.h5ad")
    with h5py.File(tmp_path / "c.h5ad", "a") as file:
        del file[piece]
    try:
        adata = read(tmp_path / "c.h5ad")
    except InstructCellError as refused:
        assert "\n" not in str(refused)
    else:
        assert adata.shape == (40, 300)


@pytest.mark.parametrize("piece", PIECES)
def test_a_file_with_a_piece_of_the_wrong_kind_is_read_or_refused(tmp_path, piece):
    make_adata().write_h5ad(tmp_path / "c.h5ad")
    with h5py.File(tmp_path / "c.h5ad", "a") as file:
        del file[piece]
        file[piece] = np.array([b"odd", b"content"])
    try:
        read(tmp_path / "c.h5ad")
    except InstructCellError as refused:
        assert "\n" not in str(refused)


@pytest.mark.parametrize("kept", np.linspace(0.001, 0.999, 12))
def test_a_file_cut_anywhere_is_refused(tmp_path, kept):
    make_adata().write_h5ad(tmp_path / "whole.h5ad")
    whole = (tmp_path / "whole.h5ad").read_bytes()
    (tmp_path / "c.h5ad").write_bytes(whole[: int(kept * len(whole))])
    with pytest.raises(ReadError, match="truncated|cannot be read|not HDF5"):
        read(tmp_path / "c.h5ad")


def test_a_gzip_that_is_named_as_text_says_so(tmp_path):
    (tmp_path / "c.csv").write_bytes(gzip.compress(b"cell,TP53\na,1\n"))
    with pytest.raises(ReadError, match="gzip-compressed file, not what its name says"):
        read(tmp_path / "c.csv")


@pytest.mark.parametrize(
    ("name", "remedy"),
    [("cells.rds", "writeH5AD"), ("counts.xlsx", "CSV UTF-8"), ("lane1.fastq.gz", "count them per gene and cell")],
)
def test_files_of_other_programs_are_refused_with_the_way_from_there(tmp_path, name, remedy):
    (tmp_path / name).write_bytes(b"\x1f\x8bjunk")
    with pytest.raises(ReadError, match=f"is of an unknown kind.*{remedy}"):
        read(tmp_path / name)
