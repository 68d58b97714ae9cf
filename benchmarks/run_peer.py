"""One peer on given cells; runs in .venv-peers and knows nothing of InstructCell. Called by peers.py.

    run_peer.py celltypist TRAIN.h5ad TEST.h5ad OUT.json
    run_peer.py scvi       TRAIN.h5ad ASKED.json OUT.h5ad --epochs 100 --seed 0

Files hold raw counts in X and the label in obs["label"].
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from importlib.metadata import version
from pathlib import Path

import anndata as ad
import numpy as np


def celltypist(train: Path, test: Path, out: Path, repeats: int) -> None:
    """Train CellTypist with its defaults and label the test cells; times start from counts in memory."""
    import celltypist as package
    import scanpy as sc

    known, unseen = ad.read_h5ad(train), ad.read_h5ad(test)
    started = time.perf_counter()
    _log_normalise(sc, known)
    model = package.train(known, labels="label", feature_selection=False)
    trained = time.perf_counter() - started
    seconds = []
    for _ in range(repeats):
        cells = unseen.copy()
        started = time.perf_counter()
        _log_normalise(sc, cells)
        predicted = package.annotate(cells, model=model, majority_voting=False).predicted_labels["predicted_labels"]
        seconds.append(time.perf_counter() - started)
    result = {
        "labels": [str(label) for label in predicted],
        "train_seconds": trained,
        "annotate_seconds": statistics.median(seconds),
        "version": version("celltypist"),
        "sklearn": version("scikit-learn"),
    }
    out.write_text(json.dumps(result), encoding="utf-8")


def _log_normalise(sc, adata: ad.AnnData) -> None:
    """log(1 + counts per 10,000), what CellTypist expects."""
    sc.pp.normalize_total(adata, target_sum=1e4)
    sc.pp.log1p(adata)


def scvi(train: Path, asked: Path, out: Path, epochs: int, seed: int) -> None:
    """Train scVI with the type as its batch; sample cells: latent from the prior, depth from real cells of the type."""
    import scvi as package
    import torch

    package.settings.seed = seed
    adata = ad.read_h5ad(train)
    package.model.SCVI.setup_anndata(adata, batch_key="label")
    model = package.model.SCVI(adata, gene_likelihood="nb")
    started = time.perf_counter()
    model.train(max_epochs=epochs, accelerator="cpu", enable_progress_bar=True)
    trained = time.perf_counter() - started
    codes = {name: i for i, name in enumerate(adata.obs["label"].astype("category").cat.categories)}
    totals = np.asarray(adata.X.sum(axis=1)).ravel()
    rng, parts = np.random.default_rng(seed), []
    types = np.array(json.loads(asked.read_text(encoding="utf-8")))
    module = model.module.eval()
    for name in types:
        depth = rng.choice(totals[(adata.obs["label"] == name).to_numpy()])
        with torch.no_grad():
            made = module.generative(
                z=torch.randn(1, module.n_latent),
                library=torch.log(torch.tensor([[float(depth)]])),
                batch_index=torch.tensor([[codes[name]]]),
            )
        parts.append(made["px"].sample().numpy()[0])
    counts = np.stack(parts).astype(np.float32)
    result = ad.AnnData(counts, var=adata.var[[]], obs={"label": types})
    result.uns["run"] = {"version": version("scvi-tools"), "epochs": epochs, "train_seconds": trained}
    result.write_h5ad(out)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("peer", choices=("celltypist", "scvi"))
    parser.add_argument("train", type=Path)
    parser.add_argument("test", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--repeats", type=int, default=3, help="of the timing of CellTypist; the median counts")
    parser.add_argument("--epochs", type=int, default=100)
    parser.add_argument("--seed", type=int, default=0)
    chosen = parser.parse_args()
    if chosen.peer == "celltypist":
        celltypist(chosen.train, chosen.test, chosen.out, chosen.repeats)
    else:
        scvi(chosen.train, chosen.test, chosen.out, chosen.epochs, chosen.seed)


if __name__ == "__main__":
    main()
