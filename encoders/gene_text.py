"""Genes as texts: the embedding of what is known of a gene stands for the gene, and a cell is what its genes say.

    GenePT-w     expression [N, G] x gene vectors [G, D] -> the expression-weighted mean [N, D]
    scReader     the genes by rank [N, L] -> vector + rank encoding -> projector -> frozen language model
                 instruction + genes + <cls> -> state at <cls> -> classifier

After GenePT (Chen and Zou 2023) and scReader / scInterpreter (Li et al. 2024). Human and mouse share the gene vectors
through orthologs, so nothing here knows of species.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from encoders.sentence import rank_genes

N_LAYERS = 5  # of the projector


def weighted_mean(expression: Tensor, gene_vectors: Tensor) -> Tensor:
    """GenePT-w: the mean of the gene vectors, weighted by expression, of unit length.

    expression [N, G] >= 0 (usually log-normalised), gene_vectors [G, D] -> [N, D]; a cell without any is zero.
    """
    return F.normalize(expression.to(gene_vectors.dtype) @ gene_vectors, dim=-1)


def rank_encoding(n_ranks: int, width: int) -> Tensor:
    """Sines and cosines of the rank [R, W], as positions are encoded in the Transformer (Vaswani et al. 2017)."""
    if width % 2:
        raise ValueError(f"the width of a rank encoding must be even, got {width}")
    ranks = torch.arange(n_ranks, dtype=torch.float32).unsqueeze(1)
    rates = torch.exp(torch.arange(0, width, 2, dtype=torch.float32) * (-math.log(10_000.0) / width))
    angles = ranks * rates
    return torch.stack([angles.sin(), angles.cos()], dim=-1).flatten(1)


def ranked_genes(counts: Tensor, n_genes: int, known: Tensor) -> Tensor:
    """The first `n_genes` expressed genes of each cell that have a vector, padded with -1.

    counts [N, G] >= 0, known [G] bool -> [N, L] int64, L the longest of them.
    """
    rows = rank_genes(counts * known.to(counts.dtype), n_genes)
    return nn.utils.rnn.pad_sequence(rows, batch_first=True, padding_value=-1)


def _standardised(vectors: Tensor) -> Tensor:
    """[G, D] with mean 0 and deviation 1 in each dimension; a dimension that does not vary is zero."""
    centred = vectors - vectors.mean(dim=0)
    return centred / centred.square().mean(dim=0).sqrt().clamp_min(torch.finfo(vectors.dtype).eps)


@dataclass(frozen=True)
class GeneReaderConfig:
    """Sizes of the trained parts around the language model."""

    n_vector: int  # width of the gene vectors
    n_classes: int
    n_genes: int = 2048  # of a cell that are read
    n_rank: int = 64  # width of the rank encoding
    n_hidden: int = 1024  # of projector and classifier
    with_lm: bool = True  # False: the GenePT baseline, the mean of the projected genes to the classifier
    dropout: float = 0.1


class GeneReader(nn.Module):
    """Genes by rank -> scores of the classes.

    Parameters
    ----------
    gene_vectors
        [G, D], one per gene; each dimension is brought to mean 0 and deviation 1 over the genes. Texts about genes are
        much alike, and what tells them apart would be lost beside the rank encoding.
    lm
        A causal language model that takes `inputs_embeds`; it is frozen here. None for the baseline without it.
    instruction
        Token ids of the question put before the genes [I].
    """

    gene_vectors: Tensor
    ranks: Tensor
    instruction: Tensor

    def __init__(
        self,
        config: GeneReaderConfig,
        gene_vectors: Tensor,
        lm: nn.Module | None = None,
        instruction: Sequence[int] = (),
    ) -> None:
        super().__init__()
        if config.with_lm and lm is None:
            raise ValueError("a GeneReader with_lm needs a language model")
        self.config = config
        self.register_buffer("gene_vectors", _standardised(gene_vectors.float()), persistent=False)
        self.register_buffer("ranks", rank_encoding(config.n_genes, config.n_rank), persistent=False)
        self.register_buffer("instruction", torch.tensor(list(instruction), dtype=torch.long), persistent=False)
        self.lm = lm.requires_grad_(False).eval() if lm is not None and config.with_lm else None
        words = self.lm.get_input_embeddings().weight if self.lm is not None else None  # type: ignore[operator]
        self.n_model = config.n_hidden if words is None else int(words.shape[1])
        # The projector ends at the size that the words of the language model have.
        self.scale = 1.0 if words is None else float(words.detach().float().square().mean().sqrt())
        self.projector = self._projector()
        self.cls = nn.Parameter(torch.randn(self.n_model) * self.scale)
        self.classifier = nn.Sequential(
            nn.LayerNorm(self.n_model),
            nn.Linear(self.n_model, config.n_hidden),
            nn.ReLU(),
            nn.Dropout(config.dropout),
            nn.Linear(config.n_hidden, config.n_classes),
        )

    def _projector(self) -> nn.Sequential:
        config = self.config
        widths = [config.n_vector + config.n_rank, *[config.n_hidden] * (N_LAYERS - 1), self.n_model]
        layers: list[nn.Module] = []
        for width, wider in zip(widths[:-1], widths[1:], strict=True):
            linear = nn.Linear(width, wider)
            nn.init.kaiming_normal_(linear.weight, nonlinearity="relu")  # the usual start passes little on
            nn.init.zeros_(linear.bias)
            layers += [linear, nn.ReLU()]
        return nn.Sequential(*layers[:-1], nn.LayerNorm(self.n_model, elementwise_affine=False))

    def train(self, mode: bool = True) -> GeneReader:
        """Training mode of the trained parts; the language model stays in evaluation."""
        super().train(mode)
        if self.lm is not None:
            self.lm.eval()
        return self

    def trained_state(self) -> dict[str, Tensor]:
        """What training changes: projector, <cls> and classifier."""
        return {name: value for name, value in self.state_dict().items() if not name.startswith("lm.")}

    def load_trained_state(self, state: dict[str, Tensor]) -> None:
        """Take what `trained_state` gave; the language model stays as it is."""
        missing, unexpected = self.load_state_dict(state, strict=False)
        lost = [name for name in missing if not name.startswith("lm.")]
        if lost or unexpected:
            raise ValueError(f"the state lacks {lost} and has {list(unexpected)} too many")

    def project(self, genes: Tensor) -> Tensor:
        """Genes by rank [N, L], -1 where padded -> vectors of the language model's size [N, L, D]."""
        vectors = self.gene_vectors[genes.clamp_min(0)]  # [N, L, V]
        ranks = self.ranks[: genes.shape[1]].expand(len(genes), -1, -1)
        return self.projector(torch.cat([vectors, ranks], dim=-1)) * self.scale

    def embed(self, genes: Tensor) -> Tensor:
        """Genes by rank [N, L] -> the state at <cls>, or the mean of the projected genes without the model [N, D]."""
        cells, mask = self.project(genes), genes >= 0
        if self.lm is None:
            weight = mask.unsqueeze(-1).to(cells.dtype)
            return (cells * weight).sum(dim=1) / weight.sum(dim=1).clamp_min(1.0)
        words = self.lm.get_input_embeddings()  # type: ignore[operator]
        asked = words(self.instruction).expand(len(genes), -1, -1)  # [N, I, D]
        last = self.cls.to(asked.dtype).expand(len(genes), 1, -1)
        embeds = torch.cat([asked, cells.to(asked.dtype), last], dim=1)
        ones = mask.new_ones(len(genes), 1)
        attended = torch.cat([ones.expand(-1, asked.shape[1]), mask, ones], dim=1).long()
        places = (attended.cumsum(dim=1) - 1).clamp_min(0)  # padding between the genes and <cls> takes no place
        hidden = self.lm(
            inputs_embeds=embeds,
            attention_mask=attended,
            position_ids=places,
            output_hidden_states=True,
            use_cache=False,
        ).hidden_states[-1]
        return hidden[:, -1].float()

    def forward(self, genes: Tensor) -> Tensor:
        """Genes by rank [N, L] -> logits [N, C]."""
        return self.classifier(self.embed(genes))
