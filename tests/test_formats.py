"""Every kind of file people have is read to the same cells: written on the spot from the demo cells that ship."""

from __future__ import annotations

import gzip
import io
import json
import shutil
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path

import anndata
import h5py
import numpy as np
import pandas as pd
import pytest
import scipy.io
import scipy.sparse as sp
import zarr
from anndata import AnnData
from anndata.io import write_elem

from instructcell.cells import KINDS, SUFFIXES, read
from instructcell.errors import MatrixError, ReadError
from instructcell.matrix import matrices
from instructcell.reading import on_disk
from instructcell.resources import demo_path

N_CELLS, N_GENES = 30, 200


@pytest.fixture(scope="module")
def cells() -> AnnData:
    """Some demo cells with their genes, counts in X."""
    whole = anndata.read_h5ad(demo_path("islets"))
    genes = np.argsort(-np.asarray(whole.X.sum(axis=0)).ravel(), kind="stable")[:N_GENES]
    adata = whole[:N_CELLS, np.sort(genes)].copy()
    return AnnData(sp.csr_matrix(adata.X, dtype=np.float32), obs=adata.obs, var=adata.var[[]])


def dense(matrix: object) -> np.ndarray:
    return np.asarray(matrix.toarray() if hasattr(matrix, "toarray") else matrix)


def same(adata: AnnData, cells: AnnData) -> bool:
    return (
        list(adata.obs_names) == list(cells.obs_names)
        and list(adata.var_names) == list(cells.var_names)
        and np.array_equal(dense(adata.X[:]), dense(cells.X))
    )


# ---- AnnData


@pytest.mark.parametrize("compression", [None, "gzip", "lzf"])
@pytest.mark.parametrize("layout", [sp.csr_matrix, sp.csc_matrix, dense])
@pytest.mark.parametrize("backed", [False, True])
def test_an_h5ad_of_any_layout_and_compression(cells, tmp_path, compression, layout, backed):
    adata = cells.copy()
    adata.X = layout(cells.X)
    adata.write_h5ad(tmp_path / "c.h5ad", compression=compression)
    assert same(read(tmp_path / "c.h5ad", backed=backed), cells)


def test_tables_of_cells_may_hold_categories_nullable_values_and_text(cells, tmp_path):
    adata = cells.copy()
    adata.obs["kind"] = pd.Categorical(["a", "b", None] * 10)
    adata.obs["number"] = pd.array([1, None, 3] * 10, dtype="Int32")
    adata.obs["flag"] = pd.array([True, None, False] * 10, dtype="boolean")
    adata.obs["text"] = [f"Zürich {i}" for i in range(N_CELLS)]
    adata.write_h5ad(tmp_path / "c.h5ad")
    again = read(tmp_path / "c.h5ad")
    assert again.obs["kind"].isna().sum() == again.obs["number"].isna().sum() == again.obs["flag"].isna().sum() == 10
    assert again.obs["text"].iloc[3] == "Zürich 3"


def test_nullable_text_is_read(cells, tmp_path):
    adata = cells.copy()
    adata.obs["text"] = pd.array(["a", None, "c"] * 10, dtype="string")
    with anndata.settings.override(allow_write_nullable_strings=True):
        adata.write_h5ad(tmp_path / "c.h5ad", convert_strings_to_categoricals=False)
    assert read(tmp_path / "c.h5ad").obs["text"].isna().sum() == 10


def write_old(path: Path, adata: AnnData, *, raw: bool = False) -> Path:
    """As anndata 0.6 wrote it: tables as compound datasets, categories in uns, `h5sparse_format` on the matrix."""
    matrix = adata.X.tocsr()
    with h5py.File(path, "w") as file:
        for name in ("X", "raw.X") if raw else ("X",):
            group = file.create_group(name)
            group.attrs["h5sparse_format"], group.attrs["h5sparse_shape"] = "csr", matrix.shape
            for key in ("data", "indices", "indptr"):
                group.create_dataset(key, data=getattr(matrix, key), maxshape=(None,))
        names = np.array(list(adata.obs_names), dtype="S")
        obs = np.zeros(adata.n_obs, dtype=[("index", names.dtype), ("kind", "i1"), ("depth", "f8")])
        obs["index"], obs["kind"], obs["depth"] = names, np.arange(adata.n_obs) % 2, 1.5
        names = np.array(list(adata.var_names), dtype="S")
        var = np.zeros(adata.n_vars, dtype=[("index", names.dtype)])
        var["index"] = names
        file["obs"], file["var"] = obs, var
        if raw:
            file["raw.var"] = var
        file["uns/kind_categories"] = np.array(["alpha", "beta"], dtype=h5py.string_dtype())
        file["obsm"] = np.zeros(adata.n_obs, dtype=[("X_pca", "f4", (3,))])
    return path


@pytest.mark.parametrize("raw", [False, True])
@pytest.mark.parametrize("backed", [False, True])
def test_an_h5ad_of_anndata_0_6(cells, tmp_path, raw, backed):
    adata = read(write_old(tmp_path / "old.h5ad", cells, raw=raw), backed=backed)
    assert same(adata, cells)
    assert adata.obs["kind"].tolist()[:2] == ["alpha", "beta"]
    assert (adata.raw is not None) == raw
    assert not raw or np.array_equal(dense(adata.raw.X[:]), dense(cells.X))


def test_an_h5ad_of_anndata_0_7_has_categories_beside_its_columns(cells, tmp_path):
    cells.write_h5ad(tmp_path / "c.h5ad")
    with h5py.File(tmp_path / "c.h5ad", "a") as file:
        del file.attrs["encoding-type"], file["obs"]
        obs = file.create_group("obs")
        obs.attrs["encoding-type"], obs.attrs["encoding-version"] = "dataframe", "0.1.0"
        obs.attrs["_index"], obs.attrs["column-order"] = "_index", ["kind"]
        obs["_index"] = np.array(list(cells.obs_names), dtype=h5py.string_dtype())
        obs["kind"] = (np.arange(N_CELLS) % 2).astype(np.int8)
        obs["__categories/kind"] = np.array(["alpha", "beta"], dtype=h5py.string_dtype())
        obs["kind"].attrs["categories"] = obs["__categories/kind"].ref
    adata = read(tmp_path / "c.h5ad")
    assert same(adata, cells)
    assert adata.obs["kind"].tolist()[:3] == ["alpha", "beta", "alpha"]


@pytest.mark.parametrize("zarr_format", [2, 3])
@pytest.mark.parametrize("backed", [False, True])
@pytest.mark.parametrize("pack", ["folder", "zip", "zip with a folder"])
def test_zarr_as_a_folder_and_in_a_zip(cells, tmp_path, zarr_format, backed, pack):
    with anndata.settings.override(zarr_write_format=zarr_format):
        cells.write_zarr(tmp_path / "c.zarr")
    path = tmp_path / "c.zarr"
    if pack != "folder":
        inside = {"root_dir": tmp_path, "base_dir": "c.zarr"} if "with" in pack else {"root_dir": path}
        path = Path(shutil.make_archive(str(tmp_path / "c.zarr"), "zip", **inside))
    adata = read(path, backed=backed)
    assert same(adata, cells)
    assert hasattr(adata.X, "group") == (backed and "with" not in pack)


def test_zarr_that_needs_a_pickle_is_never_opened(cells, tmp_path):
    cells.write_zarr(tmp_path / "c.zarr")
    array = tmp_path / "c.zarr" / "obs" / "_index" / ".zarray"
    array.write_text(json.dumps(json.loads(array.read_text()) | {"filters": [{"id": "pickle", "protocol": 5}]}))
    with pytest.raises(ReadError, match="'pickle'.*can run code and is never opened"):
        read(tmp_path / "c.zarr")


# ---- left on disk


@pytest.mark.parametrize("kind", ["h5ad", "zarr"])
def test_matrices_on_disk_give_rows_by_slice_and_by_index(cells, tmp_path, kind):
    adata = cells.copy()
    adata.layers["dense"], adata.layers["csc"] = dense(cells.X), cells.X.tocsc()
    adata.raw = cells
    getattr(adata, f"write_{kind}")(tmp_path / f"c.{kind}")
    opened = read(tmp_path / f"c.{kind}", backed=True)
    assert opened.uns["instructcell_read"]["file"] == f"c.{kind}"
    assert hasattr(opened.X, "group") and hasattr(opened.raw.X, "group")
    assert isinstance(opened.layers["dense"], h5py.Dataset | zarr.Array)
    rows = np.array([0, 3, 7, N_CELLS - 1])
    for matrix in (opened.X, opened.raw.X, opened.layers["dense"], opened.layers["csc"]):
        assert np.array_equal(dense(matrix[rows]), dense(cells.X)[rows])
        assert np.array_equal(dense(matrix[2:9]), dense(cells.X)[2:9])


def test_a_large_matrix_by_genes_is_turned_once_on_disk_in_small_blocks(cells, tmp_path, monkeypatch):
    monkeypatch.setattr(on_disk, "CSC_IN_MEMORY", 0)
    monkeypatch.setattr(on_disk, "BLOCK_ENTRIES", 101)
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "temporary"))
    (tmp_path / "temporary").mkdir()
    adata = cells.copy()
    adata.X = cells.X.tocsc()
    adata.X[3] = 0  # a cell without anything
    adata.X = sp.csc_matrix(dense(adata.X))
    adata.write_h5ad(tmp_path / "c.h5ad")
    opened = read(tmp_path / "c.h5ad", backed=True)
    assert opened.X.format == "csr" and "turned" in opened.uns["instructcell_read"]["notes"][0]
    rows = opened.X[0:N_CELLS]
    rows.check_format(full_check=True)
    assert rows.has_sorted_indices and np.array_equal(rows.toarray(), dense(adata.X))
    assert list((tmp_path / "temporary").iterdir())
    del opened, rows
    assert not list((tmp_path / "temporary").iterdir())


def test_a_matrix_on_disk_whose_pointers_do_not_fit_is_refused(cells, tmp_path):
    cells.write_h5ad(tmp_path / "c.h5ad")
    with h5py.File(tmp_path / "c.h5ad", "a") as file:
        file["X/indptr"][4] = 10**9
    with pytest.raises(ReadError, match="pointers of a sparse matrix"):
        read(tmp_path / "c.h5ad", backed=True)


@pytest.mark.parametrize("shape", [(N_CELLS, 3), (N_CELLS + 1,), ()])
def test_a_column_that_does_not_fit_its_table_is_named(cells, tmp_path, shape):
    cells.write_h5ad(tmp_path / "c.h5ad")
    with h5py.File(tmp_path / "c.h5ad", "a") as file:
        del file["obs/donor/codes"]
        file["obs/donor/codes"] = np.zeros(shape, dtype=np.int8)
    with pytest.raises(ReadError, match="column 'donor' of /obs does not fit"):
        read(tmp_path / "c.h5ad")


def test_damage_that_shows_only_in_the_rows_is_a_sentence(cells, tmp_path):
    cells.write_h5ad(tmp_path / "c.h5ad")
    with h5py.File(tmp_path / "c.h5ad", "a") as file:
        file["X/indices"][5] = N_GENES
    opened = read(tmp_path / "c.h5ad", backed=True)
    with pytest.raises(MatrixError, match="the file is damaged"):
        matrices(opened)[0].sample()


# ---- 10x


def write_trio(folder: Path, cells: AnnData, *, version: int = 3, prefix: str = "", packed: bool = True) -> Path:
    """A matrix folder as Cell Ranger writes it; version 2 has genes.tsv and nothing packed."""
    folder.mkdir(parents=True, exist_ok=True)
    ending = ".gz" if packed else ""
    genes = [f"ENSG{i:011d}\t{name}" for i, name in enumerate(cells.var_names)]
    genes = [f"{line}\tGene Expression" for line in genes] if version == 3 else genes
    content = {
        f"{prefix}barcodes.tsv": "\n".join(cells.obs_names) + "\n",
        f"{prefix}{'features' if version == 3 else 'genes'}.tsv": "\n".join(genes) + "\n",
    }
    buffer = io.BytesIO()
    scipy.io.mmwrite(buffer, cells.X.T.tocoo().astype(int))
    content[f"{prefix}matrix.mtx"] = buffer.getvalue().decode()
    for name, text in content.items():
        data = text.encode()
        (folder / f"{name}{ending}").write_bytes(gzip.compress(data) if packed else data)
    return folder


@pytest.mark.parametrize("version", [2, 3])
@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("prefix", ["", "GSM123_lane1_"])
def test_a_10x_folder_and_its_matrix(cells, tmp_path, version, packed, prefix):
    folder = write_trio(tmp_path / "filtered", cells, version=version, packed=packed, prefix=prefix)
    adata = read(folder)
    assert same(adata, cells)
    assert adata.var["gene_ids"].iloc[0] == "ENSG00000000000"
    assert same(read(next(folder.glob("*.mtx*"))), cells)


def test_of_several_prefixes_the_matrix_finds_its_own_tables(cells, tmp_path):
    write_trio(tmp_path, cells, prefix="GSM1_")
    write_trio(tmp_path, cells[:10].copy(), prefix="GSM1_lane2_")
    assert read(tmp_path / "GSM1_matrix.mtx.gz").n_obs == N_CELLS
    assert read(tmp_path / "GSM1_lane2_matrix.mtx.gz").n_obs == 10
    with pytest.raises(ReadError, match="2 files of cells .*Choose one"):
        read(tmp_path)


def test_the_filtered_matrix_of_a_cell_ranger_run_is_taken(cells, tmp_path):
    write_trio(tmp_path / "outs" / "filtered_feature_bc_matrix", cells)
    write_trio(tmp_path / "outs" / "raw_feature_bc_matrix", cells[:5].copy())
    assert same(read(tmp_path / "outs"), cells)


def test_a_matrix_of_cells_by_genes_is_read_the_right_way(cells, tmp_path):
    scipy.io.mmwrite(tmp_path / "cells_x_genes.mtx", cells.X.tocoo())
    (tmp_path / "cells_x_genes.genes.txt").write_text("\n".join(cells.var_names))
    (tmp_path / "cells_x_genes.barcodes.txt").write_text("\n".join(cells.obs_names))
    assert same(read(tmp_path / "cells_x_genes.mtx"), cells)


def test_features_that_are_no_genes_are_left_out_and_noted(cells, tmp_path):
    folder = write_trio(tmp_path / "f", cells, packed=False)
    lines = (folder / "features.tsv").read_text().splitlines()
    lines[:3] = [line.replace("Gene Expression", "Antibody Capture") for line in lines[:3]]
    (folder / "features.tsv").write_text("\n".join(lines))
    adata = read(folder)
    assert same(adata, cells[:, 3:])
    assert "3 Antibody Capture" in adata.uns["instructcell_read"]["notes"][0]


def test_a_matrix_without_its_tables_says_what_is_missing(cells, tmp_path):
    folder = write_trio(tmp_path / "f", cells)
    (folder / "barcodes.tsv.gz").unlink()
    with pytest.raises(ReadError, match="needs one barcodes.tsv beside it"):
        read(folder)


def test_tables_of_another_matrix_are_refused(cells, tmp_path):
    folder = write_trio(tmp_path / "f", cells, packed=False)
    (folder / "barcodes.tsv").write_text("a\nb\n")
    with pytest.raises(ReadError, match="lists 200 genes and barcodes.tsv 2 cells"):
        read(folder)


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("200 30 999999999", "more than it can hold"),
        ("200 30 -1", "no line of rows"),
        ("99999999999 99999999999 10", "is 99,999,999,999 x"),
        ("200 30", "no line of rows"),
    ],
)
def test_a_matrix_whose_first_line_is_wrong_is_refused_before_memory_is_taken(cells, tmp_path, line, words):
    folder = write_trio(tmp_path / "f", cells, packed=False)
    text = (folder / "matrix.mtx").read_text().splitlines()
    at = next(i for i, written in enumerate(text) if not written.startswith("%"))
    text[at] = line
    (folder / "matrix.mtx").write_text("\n".join(text))
    with pytest.raises(ReadError, match=words):
        read(folder)


@pytest.mark.parametrize("packed", [False, True])
def test_zero_bytes_between_the_numbers_are_refused_before_the_compiled_reader_sees_them(cells, tmp_path, packed):
    folder = write_trio(tmp_path / "f", cells, packed=packed)
    matrix = next(folder.glob("matrix.mtx*"))
    content = gzip.decompress(matrix.read_bytes()) if packed else matrix.read_bytes()
    content = content[:-40] + b"\0" * 8 + content[-32:]
    matrix.write_bytes(gzip.compress(content) if packed else content)
    with pytest.raises(ReadError, match="zero bytes"):
        read(folder)
    matrix.write_bytes(b"\x1f\x8b" + bytes(range(200)))
    with pytest.raises(ReadError):
        read(folder)


@pytest.mark.parametrize("pointers", [[0, 5, -1], [0, 2**31 - 1, -(2**31)], [1, 3, 5], [0, 4, 2]])
def test_pointers_of_a_sparse_matrix_that_do_not_rise_are_refused(tmp_path, pointers):
    path = tmp_path / "c.h5ad"
    AnnData(sp.csr_matrix(np.ones((2, 5), np.float32))).write_h5ad(path)
    with h5py.File(path, "r+") as file:
        file["X/indptr"][:] = np.array(pointers, np.int32)
    for backed in (False, True):
        with pytest.raises((ReadError, MatrixError), match="pointers"):
            matrices(read(path, backed=backed))[0].sample()


# ---- loom, MuData


def write_loom(path: Path, cells: AnnData) -> Path:
    with h5py.File(path, "w") as file:
        file.create_dataset("matrix", data=dense(cells.X).T, chunks=(64, 16), compression="gzip")
        file["layers/spliced"] = dense(cells.X).T * 2
        file["row_attrs/Gene"] = np.array(list(cells.var_names), dtype=h5py.string_dtype())
        file["row_attrs/Accession"] = np.array([f"ENSG{i}" for i in range(N_GENES)], dtype="S")
        file["col_attrs/CellID"] = np.array(list(cells.obs_names), dtype="S")
        file["col_attrs/Tissue"] = np.array(["caf&#233;"] * N_CELLS, dtype="S")
        file["row_graphs"], file["col_graphs"] = np.zeros(0), np.zeros(0)
    return path


def test_a_loom_is_turned_and_keeps_its_layers(cells, tmp_path, monkeypatch):
    monkeypatch.setattr("instructcell.reading.hdf5.BLOCK_VALUES", 1000)
    adata = read(write_loom(tmp_path / "c.loom", cells))
    assert same(adata, cells)
    assert np.array_equal(dense(adata.layers["spliced"]), 2 * dense(cells.X))
    assert adata.var["Accession"].iloc[5] == "ENSG5" and adata.obs["Tissue"].iloc[0] == "café"


def write_mudata(path: Path, parts: dict[str, AnnData]) -> Path:
    with h5py.File(path, "w") as file:
        file.attrs["encoding-type"], file.attrs["axis"] = "MuData", 0
        for name, part in parts.items():
            write_elem(file, f"mod/{name}", part)
    return path


def test_the_rna_of_a_mudata_is_read(cells, tmp_path):
    proteins = AnnData(np.ones((N_CELLS, 3), dtype=np.float32), obs=pd.DataFrame(index=cells.obs_names))
    adata = read(write_mudata(tmp_path / "c.h5mu", {"prot": proteins, "rna": cells}))
    assert same(adata, cells)
    assert adata.uns["instructcell_read"]["notes"] == ["the part rna of a MuData file was read, not prot"]
    with pytest.raises(ReadError, match="holds atac, prot; expected one part called rna"):
        read(write_mudata(tmp_path / "d.h5mu", {"prot": proteins, "atac": cells}))


# ---- archives


def as_h5ad(folder: Path, cells: AnnData) -> Path:
    cells.write_h5ad(folder / "c.h5ad")
    return folder / "c.h5ad"


def as_csv(folder: Path, cells: AnnData) -> Path:
    cells.to_df().to_csv(folder / "c.csv")
    return folder / "c.csv"


def as_trio(folder: Path, cells: AnnData) -> Path:
    return write_trio(folder / "filtered_feature_bc_matrix", cells)


@pytest.mark.parametrize("make", [as_h5ad, as_csv, as_trio])
@pytest.mark.parametrize("form", ["zip", "gztar", "tar"])
def test_an_archive_of_one_file_or_matrix(cells, tmp_path, make, form):
    (tmp_path / "in").mkdir()
    make(tmp_path / "in", cells)
    (tmp_path / "in" / "__MACOSX").mkdir()
    (tmp_path / "in" / "__MACOSX" / "._c.h5ad").write_bytes(b"rubbish")
    adata = read(shutil.make_archive(str(tmp_path / "packed"), form, tmp_path / "in"))
    assert same(adata, cells)
    assert "was read from packed" in adata.uns["instructcell_read"]["notes"][0]


def test_a_gzipped_h5ad_is_unpacked(cells, tmp_path):
    (tmp_path / "c.h5ad.gz").write_bytes(gzip.compress(as_h5ad(tmp_path, cells).read_bytes()))
    assert same(read(tmp_path / "c.h5ad.gz"), cells)


def test_a_read_me_beside_the_cells_does_not_matter_but_two_files_do(cells, tmp_path):
    with zipfile.ZipFile(tmp_path / "c.zip", "w") as archive:
        archive.write(as_h5ad(tmp_path, cells), "data/c.h5ad")
        archive.writestr("data/README.txt", "about")
    assert same(read(tmp_path / "c.zip"), cells)
    with zipfile.ZipFile(tmp_path / "c.zip", "a") as archive:
        archive.write(tmp_path / "c.h5ad", "data/d.h5ad")
    with pytest.raises(ReadError, match="2 files of cells"):
        read(tmp_path / "c.zip")


def zip_with(path: Path, name: str, data: bytes, mode: int = 0o100644) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        item = zipfile.ZipInfo(name)
        item.external_attr, item.compress_type = mode << 16, zipfile.ZIP_DEFLATED
        archive.writestr(item, data)
    return path


def way_out(folder: Path) -> Path:
    return zip_with(folder / "c.zip", "../../evil.csv", b"a,b\n1,2\n")


def absolute(folder: Path) -> Path:
    return zip_with(folder / "c.zip", "/tmp/evil.csv", b"a,b\n1,2\n")


def link(folder: Path) -> Path:
    return zip_with(folder / "c.zip", "c.csv", b"/etc/passwd", mode=0o120777)


def tar_link(folder: Path) -> Path:
    with tarfile.open(folder / "c.tar.gz", "w:gz") as archive:
        item = tarfile.TarInfo("c.csv")
        item.type, item.linkname = tarfile.SYMTYPE, "/etc/passwd"
        archive.addfile(item)
    return folder / "c.tar.gz"


def bomb(folder: Path) -> Path:
    return zip_with(folder / "c.zip", "c.csv", bytes(3 * 10**6))


def gzip_bomb(folder: Path) -> Path:
    (folder / "c.h5ad.gz").write_bytes(gzip.compress(bytes(3 * 10**6)))
    return folder / "c.h5ad.gz"


def many(folder: Path) -> Path:
    with zipfile.ZipFile(folder / "c.zip", "w") as archive:
        for i in range(60):
            archive.writestr(f"{i}.csv", "a,b")
    return folder / "c.zip"


def nothing_inside(folder: Path) -> Path:
    return zip_with(folder / "c.zip", "letter.docx", b"dear")


def archive_inside(folder: Path) -> Path:
    return zip_with(folder / "c.zip", "d.zip", way_out(folder).read_bytes())


def mangled(folder: Path) -> Path:
    path = zip_with(folder / "c.zip", "c.csv", b"cell,INS\n" + b"a,1\n" * 500)
    content = bytearray(path.read_bytes())
    content[45:60] = bytes(15)
    path.write_bytes(content)
    return path


def cut(folder: Path) -> Path:
    path = zip_with(folder / "c.zip", "c.csv", b"cell,INS\n" + b"a,1\n" * 500)
    path.write_bytes(path.read_bytes()[:-30])
    return path


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (way_out, "leads out of it"),
        (absolute, "leads out of it"),
        (link, "is a link"),
        (tar_link, "is a link"),
        (bomb, "unpack to more than"),
        (gzip_bomb, "unpack to more than"),
        (many, "more than 50 files"),
        (nothing_inside, "holds no cells"),
        (archive_inside, "holds another archive"),
        (mangled, "cannot be unpacked"),
        (cut, "damaged zip"),
    ],
)
def test_an_archive_that_is_unsafe_or_broken_is_refused(tmp_path, monkeypatch, make: Callable[[Path], Path], words):
    monkeypatch.setattr("instructcell.reading.archive.BOMB_BYTES", 10**6)
    monkeypatch.setattr("instructcell.reading.archive.MOST_FILES", 50)
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "temporary"))
    (tmp_path / "temporary").mkdir()
    (tmp_path / "in").mkdir()
    with pytest.raises(ReadError, match=words) as refused:
        read(make(tmp_path / "in"))
    assert "\n" not in str(refused.value)
    assert not list((tmp_path / "temporary").iterdir())
    assert not list(tmp_path.rglob("evil.csv"))


def test_the_kinds_name_their_suffixes():
    assert {".h5ad", ".zarr", ".h5", ".loom", ".h5mu", ".csv.gz", ".mtx.gz", ".zip"} <= set(SUFFIXES)
    assert set(KINDS) == {"AnnData", "10x", "MuData", "loom", "table", "archive"}
