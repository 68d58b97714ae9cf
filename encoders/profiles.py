"""How like each of the reference profiles a cell is, over the genes that its file measured.

A reference profile is the mean expression of one cell type in one study, as shares that sum to one. A cell is compared
with all of them by the likelihood of its counts under a multinomial of each profile's shares, renormalised to the
measured genes, and the profiles then compete for the cell. Few genes are enough to tell profiles apart, and profiles of
several studies cover what differs between them, so this carries to small panels and to foreign studies.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

SHARPNESS = (3.0, 10.0)  # of the competition: a soft one and one that nearly picks the likeliest profile
SHARE_SCALE = 5.0  # shares of about a hundred profiles are small beside the standardised likelihoods


class ProfileLikelihood(nn.Module):
    """Counts of the measured genes -> what each of P reference profiles explains of a cell."""

    log_profiles: Tensor  # [P, G]

    def __init__(self, n_profiles: int, n_genes: int) -> None:
        super().__init__()
        self.register_buffer("log_profiles", torch.zeros(n_profiles, n_genes))

    @property
    def n_features(self) -> int:
        """Per cell: a standardised log-likelihood and the shares of each competition, for every profile."""
        return (1 + len(SHARPNESS)) * len(self.log_profiles)

    def set_profiles(self, shares: Tensor) -> None:
        """Take reference profiles [P, G], each of positive shares that sum to one."""
        if shares.shape != self.log_profiles.shape or not bool((shares > 0).all()):
            raise ValueError(
                f"expected positive shares {list(self.log_profiles.shape)}, got {list(shares.shape)} with a minimum of "
                f"{float(shares.min()):g}"
            )
        # As they are stored, so that a loaded encoder gives what the trained one gave.
        self.log_profiles.copy_(shares.log().half().float())

    def forward(self, counts: Tensor, measured: Tensor) -> Tensor:
        """counts [N, G] >= 0 on a linear scale of any unit, measured [N, G] or [G] bool -> features [N, F]."""
        measured = measured.to(counts.dtype).expand_as(counts)
        counts = counts * measured
        total = counts.sum(-1, keepdim=True)
        shares = torch.where(total > 0, counts / total.clamp_min(torch.finfo(counts.dtype).tiny), counts)
        return self.features(shares @ self.log_profiles.T, self.explained(measured), total.squeeze(-1) > 0)

    def explained(self, measured: Tensor) -> Tensor:
        """Log of each profile's share on the measured genes: measured [.., G] float -> [.., P]."""
        return torch.log((measured @ self.log_profiles.exp().T).clamp_min(torch.finfo(measured.dtype).tiny))

    def features(self, mean_log: Tensor, explained: Tensor, has_counts: Tensor) -> Tensor:
        """Standardised log-likelihoods and shares of the competitions.

        mean_log [N, P]: mean log share of a cell's counts under each profile; explained [N, P] or [P] as above;
        has_counts [N] bool, False where a cell is empty: it is as like every profile -> [N, F].
        """
        likelihood = torch.where(has_counts.unsqueeze(-1), mean_log - explained, torch.zeros_like(mean_log))
        centred = likelihood - likelihood.mean(-1, keepdim=True)
        spread = centred.square().mean(-1, keepdim=True).clamp_min(1e-8).sqrt()
        standard = centred / spread
        shares = [SHARE_SCALE * F.softmax(sharpness * standard, dim=-1) for sharpness in SHARPNESS]
        return torch.cat([standard, *shares], dim=-1)
