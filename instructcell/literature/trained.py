"""Trained classifiers of the literature in folders: scMPT's fusion, and the gene reader (scReader, GenePT).

config.json          kind, sizes, labels, and what the inputs were made with
model.safetensors    what training changed; text encoders and language models stay where they are
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from encoders import Fusion, FusionConfig, GeneReader, GeneReaderConfig, ranked_genes
from instructcell.errors import CheckpointError
from instructcell.literature.gene_texts import gene_texts, gene_vectors
from instructcell.literature.language import load_causal_lm, require_context
from instructcell.literature.text_encoder import load_text_encoder

CONFIG, WEIGHTS = "config.json", "model.safetensors"
INSTRUCTION = "Which cell type do these gene embeddings describe?"


@dataclass(frozen=True)
class TrainedFusion:
    """scMPT: a head over a text and an expression embedding, and what these were made with."""

    model: Fusion
    labels: tuple[str, ...]
    inputs: Mapping[str, Any]  # text_encoder, n_genes, expression (a checkpoint, or an obsm key)

    def save(self, folder: str | Path) -> Path:
        return _save(folder, "fusion", asdict(self.model.config), self.labels, self.inputs, self.model.state_dict())

    @torch.inference_mode()
    def probabilities(self, text: Tensor, expression: Tensor) -> np.ndarray:
        """Embeddings [N, T], [N, E] -> [N, C]."""
        return self.model.eval()(text.float(), expression.float()).softmax(dim=-1).numpy()


@dataclass(frozen=True)
class TrainedReader:
    """scReader, or GenePT without the language model, with the genes that have a vector."""

    model: GeneReader
    labels: tuple[str, ...]
    genes: tuple[str, ...]
    inputs: Mapping[str, Any]  # backbone, text_encoder, gene_table

    def save(self, folder: str | Path) -> Path:
        config = asdict(self.model.config)
        inputs = {**self.inputs, "genes": list(self.genes)}
        return _save(folder, "gene_reader", config, self.labels, inputs, self.model.trained_state())

    @torch.inference_mode()
    def embed(self, counts: Tensor, genes: Sequence[str], batch_size: int = 16) -> Tensor:
        """Counts [N, G] over `genes` -> states at <cls> [N, D]."""
        ranks = self.ranks(counts, genes)
        return torch.cat([self.model.eval().embed(part) for part in ranks.split(batch_size)])

    @torch.inference_mode()
    def probabilities(self, counts: Tensor, genes: Sequence[str], batch_size: int = 16) -> np.ndarray:
        """Counts [N, G] over `genes` -> [N, C]."""
        return self.model.eval().classifier(self.embed(counts, genes, batch_size)).softmax(dim=-1).numpy()

    def ranks(self, counts: Tensor, genes: Sequence[str]) -> Tensor:
        """Counts [N, G] over `genes` -> positions among the reader's genes by rank [N, L], -1 where padded."""
        return ranks_among(counts, genes, self.genes, self.model.config.n_genes)


def ranks_among(counts: Tensor, genes: Sequence[str], known: Sequence[str], n_genes: int) -> Tensor:
    """Counts [N, G] over `genes` -> positions in `known` by rank [N, L], -1 where padded; other genes are left out."""
    place = {gene: i for i, gene in enumerate(known)}
    places = torch.tensor([place.get(gene, -1) for gene in genes], dtype=torch.long)
    ranked = ranked_genes(counts, n_genes, places >= 0)
    return torch.where(ranked >= 0, places[ranked.clamp_min(0)], ranked)


def build_reader(
    genes: Sequence[str],
    labels: Sequence[str],
    *,
    backbone: str | Path | None,
    text_encoder: str | None = None,
    gene_table: str | None = None,
    cache: str | Path | None = None,
    instruction: str = INSTRUCTION,
    **sizes: Any,
) -> TrainedReader:
    """An untrained reader of these genes and labels; `backbone` None is the GenePT baseline without language model.

    Raises
    ------
    GeneTextError
        Too few of the genes have a text.
    LanguageModelError
        The backbone is no causal model, or its context is too short for the genes.
    """
    texts = gene_texts(genes, gene_table)
    lm, asked, n_genes = None, [], sizes.get("n_genes", GeneReaderConfig.n_genes)
    if backbone is not None:  # looked at before the genes are embedded, which takes long
        lm, tokenizer = load_causal_lm(backbone)
        asked = tokenizer(instruction)["input_ids"]
        require_context(lm, len(asked) + n_genes + 1, f"an instruction with {n_genes} genes")
    vectors = gene_vectors(texts, load_text_encoder(text_encoder), cache=cache)
    matrix = torch.from_numpy(np.stack(list(vectors.values())))
    config = GeneReaderConfig(n_vector=matrix.shape[1], n_classes=len(labels), with_lm=lm is not None, **sizes)
    inputs = {
        "backbone": str(backbone) if backbone is not None else None,
        "text_encoder": text_encoder,
        "gene_table": str(gene_table) if gene_table else None,
        "instruction": instruction,
    }
    return TrainedReader(GeneReader(config, matrix, lm, asked), tuple(labels), tuple(vectors), inputs)


def load_fusion(folder: str | Path) -> TrainedFusion:
    """A fusion head from its folder; CheckpointError where there is none."""
    config, state = _load(folder, "fusion")
    model = Fusion(FusionConfig(**config["sizes"]))
    model.load_state_dict(state)
    return TrainedFusion(model.eval(), tuple(config["labels"]), config["inputs"])


def load_reader(folder: str | Path, *, cache: str | Path | None = None) -> TrainedReader:
    """A gene reader from its folder; CheckpointError where there is none."""
    config, state = _load(folder, "gene_reader")
    inputs, sizes = dict(config["inputs"]), dict(config["sizes"])
    genes = inputs.pop("genes")
    for derived in ("n_vector", "n_classes", "with_lm"):
        sizes.pop(derived)
    reader = build_reader(genes, config["labels"], cache=cache, **inputs, **sizes)
    reader.model.load_trained_state(state)
    return reader


def kind_of(folder: str | Path) -> str:
    """ "fusion" or "gene_reader"; "" where the folder holds neither."""
    path = Path(folder) / CONFIG
    if not path.is_file():
        return ""
    return str(json.loads(path.read_text(encoding="utf-8")).get("kind", ""))


def _save(
    folder: str | Path, kind: str, sizes: Any, labels: Sequence[str], inputs: Mapping[str, Any], state: Any
) -> Path:
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    content = {"kind": kind, "sizes": sizes, "labels": list(labels), "inputs": dict(inputs)}
    (folder / CONFIG).write_text(json.dumps(content, ensure_ascii=False, indent=1), encoding="utf-8")
    save_file({name: value.detach().cpu().contiguous() for name, value in state.items()}, folder / WEIGHTS)
    return folder


def _load(folder: str | Path, kind: str) -> tuple[dict[str, Any], dict[str, Tensor]]:
    folder = Path(folder)
    found = kind_of(folder)
    if found != kind or not (folder / WEIGHTS).is_file():
        raise CheckpointError(
            f"{folder} holds {found or 'no trained classifier'}, expected a {kind.replace('_', ' ')} with {CONFIG} and "
            f"{WEIGHTS}; train one with `instructcell train {'scmpt' if kind == 'fusion' else 'screader'}`"
        )
    return json.loads((folder / CONFIG).read_text(encoding="utf-8")), load_file(folder / WEIGHTS)
