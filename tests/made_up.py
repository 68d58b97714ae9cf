"""Small made-up data files under the names of real ones, and a recipe that trains on them in seconds."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import anndata as ad
import numpy as np
import pandas as pd
import tiny
from scipy import sparse

from train.recipe import DataEntry, DrugEntry, Recipe, Stage, Stages

ISLETS, BLOOD, LUNG = "pancreas_baron_human_donors234", "pbmc_zheng_sorted", "lung_lines_mixology_celseq2"
KINDS = {  # file: {the authors' label: genes that its made-up cells express}
    ISLETS: {
        "beta": tiny.MARKERS["type B pancreatic cell"][1],
        "alpha": tiny.MARKERS["pancreatic A cell"][1],
        "delta": tiny.MARKERS["pancreatic D cell"][1],
    },
    BLOOD: {
        "CD19+ B": tiny.MARKERS["B cell"][1],
        "CD56+ NK": tiny.MARKERS["natural killer cell"][1],
        "CD14+ Monocyte": tiny.MARKERS["CD14-positive monocyte"][1],
    },
    LUNG: {"HCC827": ["EGFR", "KRT19", "CDH1", "MET"], "H1975": ["VIM", "FN1", "AXL", "CD44"]},
}
GENES = [*tiny.tiny_genes(150), *(gene for genes in KINDS[LUNG].values() for gene in genes)]


def made_up_cells(file: str, n_cells: int, seed: int) -> ad.AnnData:
    """Counts in which each cell expresses the genes of its kind; the obs columns of the real file."""
    rng = np.random.default_rng(seed)
    kinds = KINDS[file]
    label = np.resize(list(kinds), n_cells)
    mean = np.full((n_cells, len(GENES)), 0.4)
    for row, kind in enumerate(label):
        mean[row, [GENES.index(gene) for gene in kinds[kind]]] = 12.0
    obs = pd.DataFrame({"cell_type": label, "species": "human"}, index=[f"{file}-{i}" for i in range(n_cells)])
    if file == ISLETS:
        obs["tissue"], obs["donor"] = "pancreatic islet", np.repeat(["human2", "human3", "human4"], n_cells // 3)
    elif file == BLOOD:
        obs["tissue"], obs["tech"] = "PBMC", "10x 3p v1"
    else:
        obs["tissue"], obs["batch"] = "lung cell line", np.repeat(["p1", "p2"], n_cells // 2)
        obs["response_gefitinib"] = np.where(label == "HCC827", "sensitive", "resistant")
    counts = sparse.csr_matrix(rng.poisson(mean).astype(np.float32))
    return ad.AnnData(counts, obs=obs, var=pd.DataFrame(index=GENES))


def write_data(folder: Path) -> Path:
    """Three small files."""
    for seed, (file, n_cells) in enumerate({ISLETS: 90, BLOOD: 60, LUNG: 40}.items()):
        made_up_cells(file, n_cells, seed).write_h5ad(folder / f"{file}.h5ad")
    return folder


def micro_recipe() -> Recipe:
    """A recipe that reads the made-up files and trains 24 steps."""
    stage = Stage(steps=6, batch_size=8, learning_rate=1e-3)
    words = dataclasses.replace(stage, steps=2, tasks={"generation": 0.7, "markers": 0.3})
    gefitinib = DrugEntry("response_gefitinib", "sensitive", "resistant", name="gefitinib")
    return Recipe(
        data=(
            DataEntry(ISLETS, hold_out={"donor": ["human4"]}),
            DataEntry(BLOOD, hold_out=0.2, weight=0.5),
            DataEntry(LUNG, hold_out={"batch": ["p2"]}, generation=0, drug=(gefitinib,)),
        ),
        stages=Stages(encoder=stage, instructions=stage, decoder=stage, words=words),
        output="micro",
        n_genes=120,
        encoder={"n_embeddings": 2, "n_latent": 8, "n_hidden": 16, "dropout": 0.1},
        profiles=True,
        decoder={"n_latent": 4, "n_hidden": 16, "n_components": 2, "dispersion_rank": 2},
        backbone={
            "d_model": 32,
            "d_ff": 64,
            "num_layers": 1,
            "num_decoder_layers": 1,
            "num_heads": 2,
            "d_kv": 16,
            "vocab_size": 400,
            "dropout_rate": 0.1,
        },
        tasks={"annotation": 0.4, "generation": 0.3, "drug": 0.2, "markers": 0.1},
    )
