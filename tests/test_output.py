"""Writing: what a user's file held comes through unchanged, and any reader can take what we wrote."""

from __future__ import annotations

from pathlib import Path

import anndata as ad
import h5py
import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp
import tiny

from instructcell import stream, tools
from instructcell.checkpoint import load_checkpoint
from instructcell.output import OutputError, beside, check_output, tidy_columns, write_h5ad

OURS = (
    "instructcell_cell_type", "instructcell_cell_type_id", "instructcell_confidence",
    "instructcell_broader_type", "instructcell_broader_type_id", "instructcell_broader_confidence", "X_instructcell",
)  # fmt: skip


@pytest.fixture(scope="module")
def checkpoint(tiny_checkpoint):
    return load_checkpoint(tiny_checkpoint)


# ---- files of several kinds


def rich_cells() -> ad.AnnData:
    """Cells with a bit of everything that an .h5ad may hold."""
    adata = tiny.make_adata(40)
    rng = np.random.default_rng(0)
    adata.raw = adata.copy()
    adata = adata[:, :150].copy()
    adata.layers["counts"] = sp.csc_matrix(adata.X)
    adata.layers["dense"] = np.log1p(adata.X)
    adata.obs["cluster"] = pd.Categorical(np.resize(["b", "a", "c"], 40), categories=["c", "b", "a"], ordered=True)
    adata.obs["passed"] = pd.array([True, None] * 20, dtype="boolean")
    adata.obs["age"] = pd.array([1, None] * 20, dtype="Int64")
    adata.obs["score"] = rng.normal(size=40).astype(np.float32)
    adata.var["length"] = np.arange(150)
    adata.obsm["X_umap"] = rng.normal(size=(40, 2))
    adata.obsm["table"] = pd.DataFrame({"one": np.arange(40)}, index=adata.obs_names)
    adata.varm["loadings"] = rng.normal(size=(150, 4))
    adata.obsp["near"] = sp.random(40, 40, 0.1, format="csr", random_state=0)
    adata.uns["colours"] = np.array(["red", "blue"])
    adata.uns["nested"] = {"deep": {"number": 3, "flag": True, "list": np.arange(3)}, "words": "kept"}
    return adata


def write_csr(path: Path) -> None:
    adata = rich_cells()
    adata.X = sp.csr_matrix(adata.X)
    adata.write_h5ad(path, compression="gzip")


def write_csc(path: Path) -> None:
    adata = rich_cells()
    adata.X = sp.csc_matrix(adata.X)
    adata.write_h5ad(path, compression="lzf")


def write_dense(path: Path) -> None:
    rich_cells().write_h5ad(path)


def write_annotated_before(path: Path) -> None:
    adata = rich_cells()
    adata.obs[OURS[0]] = "somebody else's"
    adata.obsm[OURS[3]] = np.zeros((40, 2))
    adata.uns["instructcell"] = {"command": "drug_response", "arguments": {}}
    adata.write_h5ad(path)


def write_bare(path: Path) -> None:
    """Only X, obs and var, as other programs write it."""
    tiny.make_adata(40).write_h5ad(path)
    with h5py.File(path, "r+") as file:
        for name in ("layers", "obsm", "varm", "obsp", "varp", "uns"):
            del file[name]


def write_with_old_categories(path: Path) -> None:
    """anndata 0.7: the categories of obs stand in a group of their own."""
    adata = tiny.make_adata(40)
    adata.write_h5ad(path)
    with h5py.File(path, "r+") as file:
        obs = file["obs"]
        names, index = obs["cell_type/categories"][:], np.asarray(obs["cell_type/codes"])
        order = list(obs.attrs["column-order"])
        del obs["cell_type"]
        categories = obs.create_group("__categories").create_dataset("cell_type", data=names)
        categories.attrs["ordered"] = np.bool_(False)
        obs.create_dataset("cell_type", data=index)
        obs["cell_type"].attrs["categories"] = categories.ref
        obs.attrs.update({"encoding-type": "dataframe", "encoding-version": "0.1.0", "column-order": order})
        for key in ("encoding-type", "encoding-version"):
            del file.attrs[key]
            del file["X"].attrs[key]


def write_with_old_tables(path: Path) -> None:
    """anndata 0.6: obs and var are tables of fixed-width text, X has no mark of its encoding."""
    adata = tiny.make_adata(40)
    kinds = pd.Categorical(adata.obs["cell_type"])
    with h5py.File(path, "w") as file:
        matrix = sp.csr_matrix(adata.X)
        group = file.create_group("X")
        group.attrs.update({"h5sparse_format": b"csr", "h5sparse_shape": np.array(matrix.shape)})
        for name in ("data", "indices", "indptr"):
            group[name] = getattr(matrix, name)
        obs = np.empty(40, dtype=[("index", "S12"), ("cell_type", "i1"), ("depth", "f4")])
        obs["index"], obs["cell_type"], obs["depth"] = list(adata.obs_names), kinds.codes, np.arange(40)
        var = np.empty(adata.n_vars, dtype=[("index", "S20"), ("length", "i4")])
        var["index"], var["length"] = list(adata.var_names), np.arange(adata.n_vars)
        file["obs"], file["var"] = obs, var
        obsm = np.empty(40, dtype=[("X_pca", "f4", (2,))])
        obsm["X_pca"] = np.arange(80).reshape(40, 2)
        file["obsm"] = obsm
        uns = file.create_group("uns")
        uns["cell_type_categories"] = np.array(list(kinds.categories), dtype="S40")
        uns["note"] = "kept"


KINDS = (
    write_csr, write_csc, write_dense, write_annotated_before, write_bare, write_with_old_categories,
    write_with_old_tables,
)  # fmt: skip


def assert_unchanged(before: ad.AnnData, after: ad.AnnData) -> None:
    """All that was there is there as it was."""
    assert_equal(before.X, after.X)
    theirs = [name for name in before.obs if name not in OURS]
    assert [name for name in after.obs if name not in OURS] == theirs
    pd.testing.assert_frame_equal(after.obs[theirs], before.obs[theirs])
    pd.testing.assert_frame_equal(after.var, before.var)
    for name in ("layers", "obsm", "varm", "obsp", "varp"):
        ours, held = getattr(after, name), getattr(before, name)
        assert set(held) - set(OURS) == set(ours) - set(OURS)
        for key in set(held) - set(OURS):
            assert_equal(held[key], ours[key])
    assert (before.raw is None) == (after.raw is None)
    if before.raw is not None:
        assert_equal(before.raw.X, after.raw.X)
        pd.testing.assert_frame_equal(after.raw.var, before.raw.var)
    assert_equal(*({k: v for k, v in dict(one.uns).items() if k != "instructcell"} for one in (before, after)))


def assert_equal(one: object, other: object) -> None:
    if isinstance(one, dict):
        assert isinstance(other, dict) and one.keys() == other.keys()
        for key in one:
            assert_equal(one[key], other[key])
    elif sp.issparse(one):
        assert type(one) is type(other) and one.dtype == other.dtype and (one != other).nnz == 0
    elif isinstance(one, pd.DataFrame):
        pd.testing.assert_frame_equal(one, other)
    else:
        np.testing.assert_array_equal(one, other)
        assert np.asarray(one).dtype == np.asarray(other).dtype


@pytest.mark.parametrize("write", KINDS, ids=lambda write: write.__name__)
def test_a_file_comes_through_unchanged_with_the_results_beside_it(write, checkpoint, tmp_path):
    source, output = tmp_path / "cells.h5ad", tmp_path / "out.h5ad"
    write(source)
    before, content = ad.read_h5ad(source), source.read_bytes()
    result = stream.annotate(source, output, checkpoint=checkpoint)
    after = ad.read_h5ad(output)
    assert_unchanged(before, after)
    assert list(after.obs["instructcell_cell_type"].astype(str)) == list(result.table["cell_type"])
    np.testing.assert_array_equal(after.obsm["X_instructcell"], result.embedding)
    assert after.uns["instructcell"]["command"] == "annotate"
    assert source.read_bytes() == content


@pytest.mark.parametrize("write", KINDS[:3], ids=lambda write: write.__name__)
def test_cells_written_from_memory_come_through_unchanged(write, checkpoint, tmp_path):
    write(tmp_path / "cells.h5ad")
    adata = ad.read_h5ad(tmp_path / "cells.h5ad")
    tools.annotate(adata, checkpoint=checkpoint)
    write_h5ad(adata, tmp_path / "out.h5ad")
    assert_unchanged(ad.read_h5ad(tmp_path / "cells.h5ad"), ad.read_h5ad(tmp_path / "out.h5ad"))


def test_the_result_is_what_scanpy_and_cellxgene_ask_for(checkpoint, tmp_path):
    import scanpy as sc

    write_csr(tmp_path / "cells.h5ad")
    stream.annotate(tmp_path / "cells.h5ad", tmp_path / "out.h5ad", checkpoint=checkpoint)
    with h5py.File(tmp_path / "out.h5ad") as file:
        obs = file["obs"]
        assert set(obs.attrs["column-order"]) | {obs.attrs["_index"]} == set(obs)
        column = obs["instructcell_cell_type"]
        assert column.attrs["encoding-type"] == "categorical"
        assert column["codes"][:].min() >= 0 and column["codes"][:].max() < len(column["categories"])
        assert obs["instructcell_confidence"].dtype == np.float32
    adata = sc.read_h5ad(tmp_path / "out.h5ad")
    assert adata.obs_names.is_unique
    sc.pp.neighbors(adata, use_rep="X_instructcell", n_neighbors=5, method="gauss")
    sc.tl.rank_genes_groups(adata, "instructcell_cell_type", method="t-test", use_raw=False, groups=[
        name for name, n in adata.obs["instructcell_cell_type"].value_counts().items() if n > 1
    ][:1])  # fmt: skip


def test_cell_names_that_repeat_are_numbered(checkpoint, tmp_path):
    adata = tiny.make_adata(40)
    adata.obs_names = ["same"] * 40
    adata.write_h5ad(tmp_path / "cells.h5ad")
    result = stream.annotate(tmp_path / "cells.h5ad", tmp_path / "out.h5ad", checkpoint=checkpoint)
    written = ad.read_h5ad(tmp_path / "out.h5ad")
    assert written.obs_names.is_unique and list(written.obs_names) == list(result.table.index)


# ---- columns that no .h5ad can hold


def test_columns_get_names_and_types_that_can_be_written(tmp_path):
    adata = tiny.make_adata(4)
    odd = pd.DataFrame(
        {
            "_index": [1, 2, 3, 4],
            "mixed": [1, "two", 3.5, None],
            "day": pd.to_datetime(["2020-01-01"] * 4),
            "flag": np.array([True, None, False, True], dtype=object),
            "number": np.array([1, 2.5, None, 3], dtype=object),
            7: ["a", "b", "c", "d"],
            "kind": pd.Categorical([1, "one", 1, "one"]),
        },
        index=["a", "b", "c", "d"],
    )
    odd.insert(7, "mixed", [0, 1, 2, 3], allow_duplicates=True)
    adata.obs_names = ["x", "x", "y", "y"]
    adata.obs = odd.set_axis(adata.obs_names)
    kept = adata.obs.copy()
    write_h5ad(adata, tmp_path / "out.h5ad")
    obs = ad.read_h5ad(tmp_path / "out.h5ad").obs
    assert list(obs) == ["_index_column", "mixed", "day", "flag", "number", "7", "kind", "mixed_1"]
    assert list(obs["mixed"].astype(object).fillna("")) == ["1", "two", "3.5", ""]
    assert obs["day"].astype(str).str.startswith("2020-01-01").all()
    assert list(obs["flag"].fillna(False)) == [True, False, False, True]
    assert obs["number"].iloc[1] == 2.5 and np.isnan(obs["number"].iloc[2])
    assert list(obs["kind"]) == ["1", "one", "1", "one"]
    assert list(obs.index) == ["x", "x-1", "y", "y-1"]
    pd.testing.assert_frame_equal(adata.obs, kept)  # the user's own cells stay as they are


def test_columns_in_order_stay_as_they_are():
    frame = rich_cells().obs
    pd.testing.assert_frame_equal(tidy_columns(frame), frame)


def test_what_cannot_be_written_is_one_message_and_no_file(tmp_path):
    adata = tiny.make_adata(4)
    adata.uns["thing"] = object()
    with pytest.raises(OutputError, match="no .h5ad can"):
        write_h5ad(adata, tmp_path / "out.h5ad")
    assert not list(tmp_path.iterdir())


# ---- beside, then into place


def test_what_was_there_stays_when_writing_fails(tmp_path):
    path = tmp_path / "out.h5ad"
    path.write_text("precious")
    with pytest.raises(OutputError, match="No space left"), beside(path) as part:
        part.write_text("half")
        raise OSError(28, "No space left on device")
    with pytest.raises(KeyboardInterrupt), beside(path) as part:
        part.write_text("half")
        raise KeyboardInterrupt
    assert path.read_text() == "precious" and len(list(tmp_path.iterdir())) == 1


def test_a_zarr_folder_is_replaced_as_a_whole(tmp_path):
    path = tmp_path / "out.zarr"
    path.mkdir()
    (path / "zarr.json").write_text("old")
    with beside(path) as part:
        part.mkdir()
        (part / "zarr.json").write_text("new")
    assert (path / "zarr.json").read_text() == "new" and len(list(tmp_path.iterdir())) == 1


@pytest.mark.parametrize(("name", "formats"), [("out.csv", (".h5ad",)), ("out.h5ad", (".zarr",))])
def test_another_format_is_refused_by_name(tmp_path, name, formats):
    with pytest.raises(OutputError, match=f"call it out\\{formats[0]}"):
        check_output(tmp_path / name, formats=formats)
