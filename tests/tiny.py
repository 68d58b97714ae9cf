"""A tiny model with random weights, real gene symbols and a whole checkpoint folder, made on the spot."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import torch
from anndata import AnnData
from transformers import Qwen3Config, T5Config

from instructcell.checkpoint import save_checkpoint
from instructcell.drugs import DrugSet
from instructcell.genes import load_gene_table
from instructcell.labels import Label, LabelSet
from instructcell.model import InstructCellForConditionalGeneration
from instructcell.processor import InstructCellProcessor, build_tokenizer

N_PROFILES = 5
N_EMBEDDINGS = 2
N_GENES = 200
MARKERS = {  # cell type: (Cell Ontology id, marker genes)
    "type B pancreatic cell": ("CL:0000169", ["INS", "IAPP", "MAFA", "PDX1", "NKX6-1", "DLK1", "G6PC2"]),
    "pancreatic A cell": ("CL:0000171", ["GCG", "TTR", "ARX", "IRX2", "LOXL4", "CRYBA2"]),
    "pancreatic D cell": ("CL:0000173", ["SST", "RBP4", "HHEX", "LEPR", "BCHE"]),
    "B cell": ("CL:0000236", ["MS4A1", "CD79A", "CD79B", "CD19", "BANK1", "IGHM"]),
    "CD4-positive, alpha-beta T cell": ("CL:0000624", ["CD3D", "CD3E", "CD4", "IL7R", "CCR7", "LEF1"]),
    "CD8-positive, alpha-beta T cell": ("CL:0000625", ["CD8A", "CD8B", "GZMK", "CD2", "TRAC"]),
    "natural killer cell": ("CL:0000623", ["NKG7", "GNLY", "KLRD1", "PRF1", "NCAM1", "KLRF1"]),
    "CD14-positive monocyte": ("CL:0001054", ["LYZ", "CD14", "S100A8", "S100A9", "FCN1", "VCAN"]),
}
PANCREATIC = tuple(MARKERS)[:3]
TEXTS = [
    "annotate: ",
    "human pancreatic islet | annotate: which type is this cell?",
    "response to gefitinib: ",
    "generate ",
    "markers of ",
    "sensitive",
    "resistant",
    "These cells look like ",
    *MARKERS,
    *(name.lower() for name in MARKERS),
]


def tiny_genes(n_genes: int = N_GENES) -> list[str]:
    """Real HGNC symbols, the markers first."""
    markers = [gene for _, genes in MARKERS.values() for gene in genes]
    table = load_gene_table()
    coding = table.loc[table["biotype"] == "protein_coding", "symbol"]
    others = (symbol for symbol in coding if symbol not in set(markers))
    return [*markers, *(next(others) for _ in range(n_genes - len(markers)))]


def make_processor(*, is_encoder_decoder: bool = True, n_embeddings: int = N_EMBEDDINGS) -> InstructCellProcessor:
    tokenizer = build_tokenizer(TEXTS * 4, vocab_size=400)
    genes = tiny_genes()
    ids = load_gene_table().set_index("symbol")["ensembl_id"].fillna("")
    return InstructCellProcessor(
        tokenizer,
        genes,
        [ids.get(gene, "") for gene in genes],
        n_embeddings=n_embeddings,
        is_encoder_decoder=is_encoder_decoder,
        lowercase_instructions=is_encoder_decoder,
        prompt_suffix=tokenizer.eos_token if is_encoder_decoder else "\n",
    )


def tiny_t5_config() -> T5Config:
    return T5Config(
        d_model=32,
        d_ff=64,
        d_kv=16,
        num_heads=2,
        num_layers=2,
        num_decoder_layers=2,
        dropout_rate=0.0,
        feed_forward_proj="gated-gelu",
    )


def tiny_qwen_config() -> Qwen3Config:
    return Qwen3Config(
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=1,
        head_dim=16,
    )


def make_model(
    processor: InstructCellProcessor, *, n_classes: int = 0, seed: int = 0
) -> InstructCellForConditionalGeneration:
    """A tiny T5 or Qwen3, after the processor's family, with random weights."""
    torch.manual_seed(seed)
    config = tiny_t5_config() if processor.is_encoder_decoder else tiny_qwen_config()
    model = InstructCellForConditionalGeneration.from_backbone(
        config,
        processor,
        encoder={"n_latent": 8, "n_hidden": 16, "dropout": 0.0, "n_profiles": N_PROFILES},
        decoder={"n_latent": 4, "n_hidden": 16, "n_components": 2, "dispersion_rank": 2},
        n_classes=n_classes,
        n_signal_classes=n_classes,
    ).eval()
    model.cell_encoder.profiles.set_profiles((2 * torch.randn(N_PROFILES, len(processor.genes))).softmax(dim=-1))
    return model


def tiny_labels() -> LabelSet:
    return LabelSet(
        Label(
            name,
            id=id_,
            tissues=("pancreatic islet",) if name in PANCREATIC else ("PBMC",),
            species=("human", "mouse") if name in PANCREATIC else ("human",),
            n_training_cells=100,
            can_generate=name != "natural killer cell",
        )
        for name, (id_, _) in MARKERS.items()
    )


def make_tiny_checkpoint(folder: str | Path) -> Path:
    """Write a whole checkpoint folder with a tiny random T5."""
    processor = make_processor()
    calibration = {"temperature": 1.0, "unknown_below": 0.05, "drug_temperature": 1.0}
    return save_checkpoint(
        folder,
        make_model(processor, n_classes=len(MARKERS)),
        processor,
        tiny_labels(),
        DrugSet.default(["gefitinib", "PLX4720"]),
        calibration,
        evaluation={"accuracy": None},
        readme="# tiny\n\nRandom weights, for tests.\n",
    )


def make_adata(n_cells: int = 60, seed: int = 0) -> AnnData:
    """Negative-binomial counts over the tiny genes; each cell overexpresses the markers of its obs["cell_type"]."""
    rng = np.random.default_rng(seed)
    genes = tiny_genes()
    types = rng.permutation(np.resize(list(MARKERS), n_cells))
    mean = np.full((n_cells, len(genes)), 0.5)
    for row, name in enumerate(types):
        mean[row, [genes.index(gene) for gene in MARKERS[name][1]]] = 12.0
    mean *= rng.lognormal(0.0, 0.3, (n_cells, 1))
    counts = rng.poisson(rng.gamma(2.0, mean / 2.0)).astype(np.float32)
    obs = pd.DataFrame({"cell_type": types}, index=[f"cell{i}" for i in range(n_cells)])
    return AnnData(counts, obs=obs, var=pd.DataFrame(index=genes))
