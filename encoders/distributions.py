"""The distributions of counts and of the decoder's latent.

Negative binomial in the mean / inverse-dispersion form of single-cell models (Lopez et al. 2018, scVI): variance = mu
+ mu^2 / theta.
"""

from __future__ import annotations

import torch
from torch import Tensor

_EPS = 1e-8


def negative_binomial_log_prob(counts: Tensor, mean: Tensor, dispersion: Tensor) -> Tensor:
    """Log-probability of counts [.., G] under NB(mean [.., G], inverse dispersion theta [.., G]) -> [.., G].

    Non-integer counts (ambient-corrected matrices) are allowed: the gamma functions interpolate.
    """
    log_total = torch.log(dispersion + mean + _EPS)
    return (
        dispersion * (torch.log(dispersion + _EPS) - log_total)
        + counts * (torch.log(mean + _EPS) - log_total)
        + torch.lgamma(counts + dispersion)
        - torch.lgamma(dispersion)
        - torch.lgamma(counts + 1.0)
    )


def sample_negative_binomial(mean: Tensor, dispersion: Tensor, generator: torch.Generator | None = None) -> Tensor:
    """Integer counts [.., G] from NB(mean, theta), as a Poisson whose rate is gamma distributed."""
    rate = torch._standard_gamma(dispersion.expand_as(mean).contiguous(), generator=generator) * (mean / dispersion)
    return torch.poisson(rate, generator=generator).to(torch.int64)


def normal_log_prob(x: Tensor, mean: Tensor, log_std: Tensor) -> Tensor:
    """Elementwise log-density of a normal; all three broadcast."""
    return -0.5 * ((x - mean) * torch.exp(-log_std)).square() - log_std - 0.9189385332046727  # log(sqrt(2 pi))
