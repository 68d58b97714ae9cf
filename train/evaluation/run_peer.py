"""One peer on given cells; a script for .venv-peers that imports nothing of InstructCell.

    run_peer.py celltypist TRAIN.h5ad TEST.h5ad OUT.json
    run_peer.py scanvi     TRAIN.h5ad TEST.h5ad OUT.json --epochs 50 --seed 0
    run_peer.py scvi       TRAIN.h5ad ASKED.json OUT.h5ad --epochs 100 --seed 0

Files hold raw counts in X and the label in obs["label"]. Called by `instructcell evaluate --peers` and by
benchmarks/peers.py.
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

UNLABELLED = "unlabelled"
N_NEIGHBOURS = 10


def celltypist(train: Path, test: Path, out: Path, repeats: int) -> None:
    """Train CellTypist with its defaults and label the test cells.

    The time to annotate starts from counts in memory; the time of a file adds reading and writing it.
    """
    import celltypist as package
    import scanpy as sc

    known = ad.read_h5ad(train)
    started = time.perf_counter()
    unseen = ad.read_h5ad(test)
    around = time.perf_counter() - started
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
    started = time.perf_counter()
    unseen.obs["predicted"] = predicted.to_numpy()
    unseen.write_h5ad(out.with_suffix(".h5ad"))
    around += time.perf_counter() - started
    result = {
        "labels": [str(label) for label in predicted],
        "train_seconds": trained,
        "annotate_seconds": statistics.median(seconds),
        "file_seconds": statistics.median(seconds) + around,
        "version": version("celltypist"),
        "sklearn": version("scikit-learn"),
        "peak_mb": _peak_mb(),
    }
    out.write_text(json.dumps(result), encoding="utf-8")


def _log_normalise(sc, adata: ad.AnnData) -> None:
    """log(1 + counts per 10,000), what CellTypist expects."""
    sc.pp.normalize_total(adata, target_sum=1e4)
    sc.pp.log1p(adata)


def _peak_mb() -> float:
    """Most memory that this process held, MB; 0 where the system does not say."""
    try:
        import resource
    except ImportError:  # Windows
        return 0.0
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def scanvi(train: Path, test: Path, out: Path, epochs: int, seed: int) -> None:
    """scVI on training and test cells together, then scANVI with the training labels; a batch each.

    Beside scANVI's labels stand those of the ten nearest training cells in scVI's latent space, "scvi_labels".
    """
    import scvi as package
    from sklearn.neighbors import KNeighborsClassifier

    package.settings.seed = seed
    known, unseen = ad.read_h5ad(train), ad.read_h5ad(test)
    unseen.obs["label"] = UNLABELLED
    together = ad.concat({"train": known, "test": unseen}, label="batch", index_unique="-")
    started = time.perf_counter()
    package.model.SCVI.setup_anndata(together, batch_key="batch")
    base = package.model.SCVI(together, gene_likelihood="nb")
    base.train(max_epochs=epochs, accelerator="cpu", enable_progress_bar=True)
    latent, based = base.get_latent_representation(), time.perf_counter() - started
    nearest = KNeighborsClassifier(min(N_NEIGHBOURS, known.n_obs)).fit(latent[: known.n_obs], known.obs["label"])
    model = package.model.SCANVI.from_scvi_model(base, unlabeled_category=UNLABELLED, labels_key="label")
    model.train(max_epochs=max(1, epochs // 4), accelerator="cpu", enable_progress_bar=True)
    trained = time.perf_counter() - started
    predicted = np.asarray(model.predict(together))[known.n_obs :]
    result = {
        "labels": [str(label) for label in predicted],
        "scvi_labels": [str(label) for label in nearest.predict(latent[known.n_obs :])],
        "scvi_seconds": based,
        "train_seconds": trained,
        "peak_mb": _peak_mb(),
        "version": version("scvi-tools"),
    }
    out.write_text(json.dumps(result), encoding="utf-8")


def scvi(train: Path, asked: Path, out: Path, epochs: int, seed: int, both: bool) -> None:
    """Train scVI with the type as its batch; sample cells: latent from the prior, depth from real cells of the type.

    With `both`, the layer "posterior" holds cells sampled around training cells of the type instead.
    """
    import scvi as package

    package.settings.seed = seed
    adata = ad.read_h5ad(train)
    package.model.SCVI.setup_anndata(adata, batch_key="label")
    model = package.model.SCVI(adata, gene_likelihood="nb")
    started = time.perf_counter()
    model.train(max_epochs=epochs, accelerator="cpu", enable_progress_bar=True)
    trained = time.perf_counter() - started
    types = np.array(json.loads(asked.read_text(encoding="utf-8")))
    result = ad.AnnData(_from_prior(model, adata, types, seed), var=adata.var[[]], obs={"label": types})
    if both:
        result.layers["posterior"] = _around_cells(model, adata, types, seed)
    result.uns["run"] = {"version": version("scvi-tools"), "epochs": epochs, "train_seconds": trained}
    result.write_h5ad(out)


def _from_prior(model, adata: ad.AnnData, types: np.ndarray, seed: int) -> np.ndarray:
    import torch

    codes = {name: i for i, name in enumerate(adata.obs["label"].astype("category").cat.categories)}
    totals = np.asarray(adata.X.sum(axis=1)).ravel()
    rng, parts, module = np.random.default_rng(seed), [], model.module.eval()
    for name in types:
        depth = rng.choice(totals[(adata.obs["label"] == name).to_numpy()])
        with torch.no_grad():
            made = module.generative(
                z=torch.randn(1, module.n_latent),
                library=torch.log(torch.tensor([[float(depth)]])),
                batch_index=torch.tensor([[codes[name]]]),
            )
        parts.append(made["px"].sample().numpy()[0])
    return np.stack(parts).astype(np.float32)


def _around_cells(model, adata: ad.AnnData, types: np.ndarray, seed: int) -> np.ndarray:
    """Posterior predictive samples of one training cell per cell asked for."""
    rng = np.random.default_rng(seed)
    labels = adata.obs["label"].to_numpy(str)
    rows = np.array([rng.choice(np.flatnonzero(labels == name)) for name in types])
    made = model.posterior_predictive_sample(indices=rows, n_samples=1)
    dense = made.todense() if hasattr(made, "todense") else np.asarray(made)
    return np.asarray(dense, dtype=np.float32).reshape(len(types), -1)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("peer", choices=("celltypist", "scanvi", "scvi"))
    parser.add_argument("train", type=Path)
    parser.add_argument("test", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--repeats", type=int, default=3, help="of the timing of CellTypist; the median counts")
    parser.add_argument("--epochs", type=int, default=50)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--both", action="store_true", help="scvi: also sample around training cells")
    chosen = parser.parse_args()
    if chosen.peer == "celltypist":
        celltypist(chosen.train, chosen.test, chosen.out, chosen.repeats)
    elif chosen.peer == "scanvi":
        scanvi(chosen.train, chosen.test, chosen.out, chosen.epochs, chosen.seed)
    else:
        scvi(chosen.train, chosen.test, chosen.out, chosen.epochs, chosen.seed, chosen.both)


if __name__ == "__main__":
    main()
