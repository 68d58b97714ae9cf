"""The expression encoder: counts of the measured genes -> K embeddings per cell.

Written to carry across studies: only relative expression over the genes a file measured enters, once as mean-scaled log
expression and once as detected / not detected, so that depth, unit and panel of the file matter little.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from encoders.config import CellEncoderConfig
from encoders.layers import ResidualBlock


def normalise_expression(counts: Tensor, measured: Tensor) -> tuple[Tensor, Tensor]:
    """Mean-scaled log expression and the detected channel, both zero where a gene is unmeasured.

    counts [N, G] >= 0 on a linear scale of any unit, measured [N, G] or [G] bool -> two tensors [N, G].
    Each cell is divided by its own mean over the measured genes before log1p, so multiplying a cell by a constant
    changes nothing; a cell without any count gives zeros.
    """
    measured = measured.to(counts.dtype).expand_as(counts)
    counts = counts * measured
    n_measured = measured.sum(-1, keepdim=True).clamp_min(1.0)
    mean = counts.sum(-1, keepdim=True) / n_measured
    scaled = torch.where(mean > 0, counts / mean.clamp_min(torch.finfo(counts.dtype).tiny), counts)
    return torch.log1p(scaled), (counts > 0).to(counts.dtype)


class CellEncoder(nn.Module):
    """Counts [N, G] + measured [N, G] -> embeddings [N, K, Z]."""

    def __init__(self, config: CellEncoderConfig) -> None:
        super().__init__()
        self.config = config
        self.from_expression = nn.Linear(config.n_genes, config.n_hidden, bias=False)
        self.from_detection = nn.Linear(config.n_genes, config.n_hidden, bias=False)
        self.input_norm = nn.LayerNorm(config.n_hidden)
        self.activate = nn.GELU()
        self.dropout = nn.Dropout(config.dropout)
        self.blocks = nn.ModuleList(ResidualBlock(config.n_hidden, config.dropout) for _ in range(config.n_blocks))
        self.to_embeddings = nn.Linear(config.n_hidden, config.n_embeddings * config.n_latent)
        self.output_norm = nn.LayerNorm(config.n_latent)

    def forward(self, counts: Tensor, measured: Tensor) -> Tensor:
        expression, detection = normalise_expression(counts, measured)  # [N, G] each
        return self.embed_sums(self.from_expression(expression) + self.from_detection(detection))

    def embed_sums(self, hidden: Tensor) -> Tensor:
        """From the sums over genes [N, H] to embeddings [N, K, Z]."""
        # LayerNorm comes first, so the fewer genes of a small panel do not shrink the signal.
        hidden = self.dropout(self.activate(self.input_norm(hidden)))
        for block in self.blocks:
            hidden = block(hidden)
        embeddings = self.to_embeddings(hidden).unflatten(-1, (self.config.n_embeddings, self.config.n_latent))
        return self.output_norm(embeddings)  # [N, K, Z]

    @staticmethod
    def pool(embeddings: Tensor) -> Tensor:
        """One vector per cell, the mean of its K embeddings: [N, K, Z] -> [N, Z]."""
        return embeddings.mean(dim=-2)


class SparseCellEncoder:
    """An encoder that reads only the counts above zero, many times as fast for cells of which most genes are zero.

    It holds the weights as they are when it is made, turned so that a gene's are together.
    """

    def __init__(self, encoder: CellEncoder) -> None:
        self.encoder = encoder
        self.expression, self.detection = (
            layer.weight.detach().t().contiguous() for layer in (encoder.from_expression, encoder.from_detection)
        )  # [G, H] each

    def __call__(self, values: Tensor, columns: Tensor, starts: Tensor, n_measured: int) -> Tensor:
        """What the encoder gives, up to rounding.

        The cells lie one after another: values [V] float > 0, their genes columns [V] and where each cell begins,
        starts [N], both int of one dtype; `n_measured` genes were measured in all of them -> [N, K, Z]. Each cell is
        summed by itself, so its sums do not depend on the cells beside it.
        """
        ends = torch.cat([starts[1:], starts.new_tensor([len(values)])])
        lengths = (ends - starts).long()
        mean = torch.segment_reduce(values, "sum", lengths=lengths, unsafe=True) / max(n_measured, 1)  # [N]
        mean = mean.clamp_min(torch.finfo(values.dtype).tiny).repeat_interleave(lengths)  # [V]
        return self.encoder.embed_sums(
            F.embedding_bag(columns, self.expression, starts, mode="sum", per_sample_weights=torch.log1p(values / mean))
            + F.embedding_bag(columns, self.detection, starts, mode="sum")
        )
