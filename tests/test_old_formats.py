"""Files that old versions of anndata really wrote (data/old_formats/make.py): read, and given back unchanged."""

from __future__ import annotations

import gzip
from pathlib import Path

import anndata as ad
import h5py
import numpy as np
import pandas as pd
import pytest
from test_output import assert_unchanged

from instructcell import stream, tools
from instructcell.batches import Reading
from instructcell.cells import read
from instructcell.checkpoint import load_checkpoint
from instructcell.doctor import inspect
from instructcell.output import write_h5ad
from instructcell.resources import demo_path

FEW_GENES = Reading(force=True)  # the tiny model shares only a handful with the small files
STORED = sorted((Path(__file__).parent / "data" / "old_formats").glob("*.h5ad.gz"))


@pytest.fixture(scope="module")
def checkpoint(tiny_checkpoint):
    return load_checkpoint(tiny_checkpoint)


@pytest.fixture(params=STORED, ids=lambda path: path.name.removesuffix(".h5ad.gz"))
def old_file(request, tmp_path) -> Path:
    path = tmp_path / "old.h5ad"
    path.write_bytes(gzip.decompress(request.param.read_bytes()))
    return path


def as_chosen() -> ad.AnnData:
    """The counts that make.py chose, from the demo cells themselves."""
    cells = ad.read_h5ad(demo_path("islets"))
    cells = cells[np.linspace(0, cells.n_obs - 1, 24).astype(int)]
    return cells[:, np.sort(np.argsort(-np.asarray(cells.X.sum(axis=0)).ravel(), kind="stable")[:120])].copy()


def test_three_layouts_are_here():
    assert [path.name for path in STORED] == ["0.6.22.post1.h5ad.gz", "0.7.8.h5ad.gz", "0.8.0.h5ad.gz"]


@pytest.mark.parametrize("backed", [False, True])
def test_every_part_of_an_old_file_is_read(old_file, backed):
    adata, cells = read(old_file, backed=backed), as_chosen()
    assert list(adata.obs_names) == list(cells.obs_names) and list(adata.var_names) == list(cells.var_names)
    assert (adata.raw.X[:] != cells.X).nnz == 0 and (adata.layers["counts"][:] != cells.X).nnz == 0
    assert list(adata.obs["cell_type"]) == list(cells.obs["cell_type"].astype(str))
    assert isinstance(adata.obs["cell_type"].dtype, pd.CategoricalDtype)
    assert list(adata.obs["n_counts"]) == list(cells.X.sum(axis=1).A1) and adata.obs["doublet"].sum() == 4
    assert list(adata.obs["barcode"][:2]) == ["AACG-0", "AACG-1"] and adata.var["highly_variable"].sum() == 60
    assert adata.obsm["X_pca"].shape == (24, 3) and adata.varm["PCs"].shape == (120, 3)
    assert adata.uns["title"] == "islets" and list(adata.uns["pca"]["variance"]) == [3.0, 2.0, 1.0]
    assert adata.uns["pca"]["params"]["use"] == "hvg" and list(adata.uns["cell_type_colors"]) == ["#1f77b4", "#ff7f0e"]
    report = inspect(adata)
    assert (report.matrix, report.scale, report.species) == ("layers['counts']", "counts", "human")


@pytest.mark.filterwarnings("ignore::anndata.OldFormatWarning")
@pytest.mark.parametrize("way", ["on disk", "in memory"])
def test_an_old_file_comes_back_unchanged_and_scanpy_and_cellxgene_take_it(old_file, checkpoint, tmp_path, way):
    import scanpy as sc

    output = tmp_path / "out.h5ad"
    if way == "on disk":
        result = stream.annotate(old_file, output, checkpoint=checkpoint, reading=FEW_GENES)
    else:
        adata = read(old_file)
        result = tools.annotate(adata, checkpoint=checkpoint, force=True)
        write_h5ad(adata, output)
    after = sc.read_h5ad(output)
    assert_unchanged(ad.read_h5ad(old_file), after)
    assert list(after.obs["instructcell_cell_type"].astype(str)) == list(result.table["cell_type"])
    assert_fit_for_cellxgene(output)
    sc.pp.neighbors(after, use_rep="X_instructcell", n_neighbors=5, method="gauss")
    sc.tl.diffmap(after, n_comps=3)
    sc.tl.rank_genes_groups(after, "cell_type", layer="dense", use_raw=False, method="t-test", groups=["beta"])
    after.write_h5ad(tmp_path / "again.h5ad")
    assert_unchanged(ad.read_h5ad(output), without(ad.read_h5ad(tmp_path / "again.h5ad")))


def without(adata: ad.AnnData) -> ad.AnnData:
    """The cells as they were before scanpy worked on them."""
    for name in ("neighbors", "diffmap_evals", "rank_genes_groups"):
        adata.uns.pop(name, None)
    for name in ("distances", "connectivities"):
        del adata.obsp[name]
    del adata.obsm["X_diffmap"]
    return adata


def assert_fit_for_cellxgene(path: Path) -> None:
    """What cellxgene asks of an .h5ad: unique names, a CSR X, columns of one kind, an embedding to draw."""
    with h5py.File(path) as file:
        stored = file["X"].attrs
        form = stored["encoding-type"] if "encoding-type" in stored else stored["h5sparse_format"]
        assert (form.decode() if isinstance(form, bytes) else form).startswith("csr")
    adata = ad.read_h5ad(path)
    assert adata.obs_names.is_unique and adata.var_names.is_unique
    for frame in (adata.obs, adata.var):
        assert frame.columns.is_unique
        for name, column in frame.items():
            values = column.cat.categories if isinstance(column.dtype, pd.CategoricalDtype) else column
            assert pd.api.types.infer_dtype(values, skipna=False) in ("string", "integer", "floating", "boolean"), name
    drawn = [key for key in adata.obsm if key.startswith("X_")]
    assert "X_instructcell" in drawn
    for key in drawn:
        values = adata.obsm[key]
        assert values.shape[0] == adata.n_obs and values.shape[1] >= 2
        assert values.dtype.kind == "f" and np.isfinite(values).all()
