"""How the files of this folder were made: each was written by the anndata version in its name, from demo cells.

    python make.py choose cells.npz                 # in this project's environment
    python make.py write cells.npz 0.7.8.h5ad.gz    # where that anndata is installed; Python 3.6 or later

`pip install --no-deps --target OLD anndata==0.7.8` beside `numpy==1.24.4 pandas==1.5.3 h5py==3.8.0 scipy==1.10.1
natsort packaging python-dateutil pytz six array-api-compat exceptiongroup` in another folder, both on the PYTHONPATH of
a Python 3.11, runs them all, 0.6.22.post1 too. 0.9.2 and 0.10.9 write the same bytes as 0.8.0: one file stands for the
three.
"""

import gzip
import os
import sys
import tempfile

import numpy as np

N_CELLS, N_GENES = 24, 120


def choose(path):
    """Some demo islet cells over genes of high expression, with what a file may hold beside them, as plain arrays."""
    import anndata

    from instructcell.resources import demo_path

    cells = anndata.read_h5ad(demo_path("islets"))
    cells = cells[np.linspace(0, cells.n_obs - 1, N_CELLS).astype(int)]
    genes = np.sort(np.argsort(-np.asarray(cells.X.sum(axis=0)).ravel(), kind="stable")[:N_GENES])
    counts = cells.X[:, genes].toarray().astype(np.float32)
    np.savez(
        path,
        counts=counts,
        cells=np.array(list(cells.obs_names), dtype="U"),
        genes=np.array(list(cells.var_names[genes]), dtype="U"),
        types=np.array(list(cells.obs["cell_type"].astype(str)), dtype="U"),
        pca=np.linalg.svd(np.log1p(counts), full_matrices=False)[0][:, :3].astype(np.float32),
    )


def make(path):
    """The AnnData that every version writes: raw, a layer, columns of each type, embeddings and nested records."""
    import anndata
    import pandas as pd
    import scipy.sparse as sp

    stored = np.load(path)
    counts = sp.csr_matrix(stored["counts"])
    scaled = stored["counts"] / stored["counts"].sum(axis=1, keepdims=True) * np.float32(1e4)
    obs = pd.DataFrame({"cell_type": pd.Categorical(stored["types"])}, index=stored["cells"].astype(object))
    obs["n_counts"] = stored["counts"].sum(axis=1)
    obs["n_genes"] = (stored["counts"] > 0).sum(axis=1).astype(np.int64)
    obs["doublet"] = np.arange(N_CELLS) % 7 == 0
    obs["barcode"] = [f"AACG-{i}" for i in range(N_CELLS)]
    var = pd.DataFrame({"n_cells": (stored["counts"] > 0).sum(axis=0)}, index=stored["genes"].astype(object))
    var["highly_variable"] = np.arange(N_GENES) % 2 == 0
    var["chromosome"] = pd.Categorical(np.where(np.arange(N_GENES) % 3 == 0, "chr1", "chr2"))
    adata = anndata.AnnData(sp.csr_matrix(np.log1p(scaled)), obs=obs, var=var)
    adata.raw = anndata.AnnData(counts, obs=obs[[]], var=var[["n_cells"]])
    adata.layers["counts"] = counts
    adata.layers["dense"] = np.log1p(scaled)
    adata.obsm["X_pca"], adata.obsm["X_umap"] = stored["pca"], stored["pca"][:, :2]
    adata.varm["PCs"] = np.ones((N_GENES, 3), np.float32)
    adata.uns["pca"] = {"variance": np.array([3.0, 2.0, 1.0]), "params": {"zero_center": True, "use": "hvg"}}
    adata.uns["title"] = "islets"
    adata.uns["cell_type_colors"] = np.array(["#1f77b4", "#ff7f0e"], dtype=object)
    adata.uns["neighbors_k"] = 15
    return adata


def write(path, target):
    """The AnnData as .h5ad, packed by gzip without a time stamp."""
    adata = make(path)
    name = os.path.join(tempfile.mkdtemp(), "old.h5ad")
    adata.write(name)
    with open(name, "rb") as plain, open(target, "wb") as file, gzip.GzipFile("", "wb", 9, file, mtime=0) as packed:
        packed.write(plain.read())


if __name__ == "__main__":
    {"choose": choose, "write": write}[sys.argv[1]](*sys.argv[2:])
