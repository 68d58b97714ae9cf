"""The expression encoder: counts of the measured genes -> K embeddings per cell.

Written to carry across studies: only relative expression over the genes a file measured enters, once as mean-scaled log
expression and once as detected / not detected, so that depth, unit and panel of the file matter little. Beside these
sums over genes stands how like each reference profile the cell is (see encoders.profiles), where there are any.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from encoders.config import CellEncoderConfig
from encoders.layers import ResidualBlock
from encoders.profiles import ProfileLikelihood


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
        self.profiles = ProfileLikelihood(config.n_profiles, config.n_genes) if config.n_profiles else None
        self.from_profiles = (
            nn.Linear(self.profiles.n_features, config.n_hidden) if self.profiles is not None else None
        )
        self.activate = nn.GELU()
        self.dropout = nn.Dropout(config.dropout)
        self.blocks = nn.ModuleList(ResidualBlock(config.n_hidden, config.dropout) for _ in range(config.n_blocks))
        self.to_embeddings = nn.Linear(config.n_hidden, config.n_embeddings * config.n_latent)
        self.output_norm = nn.LayerNorm(config.n_latent)

    def forward(self, counts: Tensor, measured: Tensor) -> Tensor:
        expression, detection = normalise_expression(counts, measured)  # [N, G] each
        sums = self.from_expression(expression) + self.from_detection(detection)
        return self.embed_sums(sums, self.profiles(counts, measured) if self.profiles is not None else None)

    def embed_sums(self, sums: Tensor, likeness: Tensor | None = None) -> Tensor:
        """From the sums over genes [N, H] and the features of the reference profiles [N, F] to embeddings [N, K, Z]."""
        hidden = self.input_norm(sums)  # first, so the fewer genes of a small panel do not shrink the signal
        if self.from_profiles is not None:
            hidden = hidden + self.from_profiles(likeness)
        hidden = self.dropout(self.activate(hidden))
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

    It holds the weights as they are when it is made, turned so that a gene's are together, and on a CPU in half
    precision, as checkpoints store them: reading them is most of its work.
    """

    def __init__(self, encoder: CellEncoder) -> None:
        self.encoder = encoder
        self.expression, self.detection = (
            self._by_gene(layer.weight) for layer in (encoder.from_expression, encoder.from_detection)
        )  # [G, H] each
        profiles = encoder.profiles
        self.log_profiles = None if profiles is None else profiles.log_profiles.t().contiguous()  # [G, P]
        self._explained: tuple[Tensor, Tensor] | None = None  # of the panel asked about last

    def __call__(self, values: Tensor, columns: Tensor, starts: Tensor, measured: Tensor) -> Tensor:
        """What the encoder gives, up to rounding.

        The cells lie one after another: values [V] float > 0, their genes columns [V] and where each cell begins,
        starts [N], both int of one dtype; measured [G] bool are the genes measured in all of them -> [N, K, Z]. Each
        cell is summed by itself, so its sums do not depend on the cells beside it.
        """
        ends = torch.cat([starts[1:], starts.new_tensor([len(values)])])
        lengths = (ends - starts).long()
        total = torch.segment_reduce(values, "sum", lengths=lengths, unsafe=True)  # [N]
        floor = torch.finfo(values.dtype).tiny
        mean = (total / max(int(measured.sum()), 1)).clamp_min(floor).repeat_interleave(lengths)  # [V]
        sums = _sums(self.expression, columns, starts, torch.log1p(values / mean))
        sums += _sums(self.detection, columns, starts)
        profiles = self.encoder.profiles
        if profiles is None or self.log_profiles is None:
            return self.encoder.embed_sums(sums)
        mean_log = _sums(self.log_profiles, columns, starts, values) / total.clamp_min(floor).unsqueeze(-1)
        return self.encoder.embed_sums(sums, profiles.features(mean_log, self._explained_by(measured), total > 0))

    @staticmethod
    def _by_gene(weight: Tensor) -> Tensor:
        """Weights [.., G] -> [G, ..]."""
        by_gene = weight.detach().t().contiguous()
        return by_gene.half() if by_gene.device.type == "cpu" else by_gene

    def _explained_by(self, measured: Tensor) -> Tensor:
        """The profiles' log shares on a panel [P]; files are read in many batches of one panel."""
        if self._explained is None or not torch.equal(self._explained[0], measured):
            assert self.encoder.profiles is not None
            self._explained = measured, self.encoder.profiles.explained(measured.float())
        return self._explained[1]


def _sums(table: Tensor, columns: Tensor, starts: Tensor, weights: Tensor | None = None) -> Tensor:
    """Sums of the table's rows [G, H] over each cell's genes, weighted or not -> float [N, H]."""
    weights = None if weights is None else weights.to(table.dtype)
    return F.embedding_bag(columns, table, starts, mode="sum", per_sample_weights=weights).float()
