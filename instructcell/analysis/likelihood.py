"""Why one type and not another, gene by gene, by the reference profiles that the cell encoder compares cells with.

The log-likelihood ratio of a cell's counts under two profiles is a sum over the measured genes, so each gene's part in
it is exact and nothing is left over: a gene with the share s of the counts, and the shares a and b of the profiles
(renormalised to the measured genes, as the encoder does), adds

    s * log(a / b) - a + b

The last two terms sum to zero over the genes. They make a gene speak for the profile whose share it is nearer to: a
gene that these cells lack and the second profile has speaks for the first.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from instructcell.checkpoint import Checkpoint
from instructcell.labels import Label

PER = 1_000.0  # counts: the ratio is told for so many
AS_COUNTS = 1e4  # a profile is read as a cell of so many counts


@dataclass(frozen=True)
class ProfileRatio:
    """Natural log of how much likelier 1,000 counts of these cells are under one type's profile than another's.

    Attributes
    ----------
    contribution
        Each gene's part [G], 0 where it was not measured; above 0 it speaks for the first type.
    more_in_first
        Whether the first type's profile has more of the gene [G] bool.
    total
        Their sum.
    """

    contribution: Tensor
    more_in_first: Tensor

    @property
    def total(self) -> float:
        """The log-likelihood ratio of 1,000 counts."""
        return float(self.contribution.sum())


def profile_ratio(
    checkpoint: Checkpoint, counts: Tensor, measured: Tensor, label: Label, other: Label
) -> ProfileRatio | None:
    """The ratio of two labels' profiles for some cells, mean over them; None where either label has no profile.

    counts [N, G] on a linear scale, measured [G] bool. Of several profiles of a label (there is one for each training
    study), the one that these cells are likest is taken.
    """
    profiles = checkpoint.model.cell_encoder.profiles
    if profiles is None or checkpoint.readout is None:
        return None
    owners = profile_labels(checkpoint)
    names = checkpoint.labels
    sides = [owners == names.index(one.name) for one in (label, other)]
    if not all(bool(side.any()) for side in sides):
        return None
    known = measured.to(torch.float32)
    seen = counts * known
    shares = (seen / seen.sum(1, keepdim=True).clamp_min(torch.finfo(seen.dtype).tiny)).mean(0)  # [G]
    log_share = profiles.log_profiles.float() - profiles.explained(known).unsqueeze(-1)  # [P, G]
    likelihood = log_share @ shares  # [P]
    first, second = (log_share[int(torch.where(side, likelihood, -torch.inf).argmax())] for side in sides)
    added = shares * (first - second) - first.exp() + second.exp()
    return ProfileRatio(PER * added * known, first > second)


@torch.no_grad()
def profile_labels(checkpoint: Checkpoint) -> Tensor:
    """Position of the label that each reference profile [P] is read as, when it is read like a cell."""
    profiles = checkpoint.model.cell_encoder.profiles
    assert profiles is not None and checkpoint.readout is not None
    shares = profiles.log_profiles.float().exp()
    everything = torch.ones(shares.shape[1], dtype=torch.bool, device=shares.device)
    embeddings = checkpoint.model.encode_cells(shares * AS_COUNTS, everything).float()
    species = embeddings.new_zeros(len(shares), 2)  # not said
    return checkpoint.readout(embeddings, species).argmax(-1)
