"""The pseudo-cell decoder: hidden state at <SIGNAL> -> counts.

A conditional variational model. The condition c is the language model's hidden state at <SIGNAL>; the latent z
carries what differs between cells of one condition. Prior over (z, log library size): a Gaussian mixture whose
parameters are read from c, so that sampling from the prior covers sub-populations and the depth that goes with them.
Counts are negative binomial around library size x softmax over genes. Unmeasured genes take no part in the
likelihood: a cell's library size over all genes is its measured total divided by the share of expression the model
places on the measured genes.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor, nn

from encoders.config import CellDecoderConfig
from encoders.distributions import negative_binomial_log_prob, normal_log_prob, sample_negative_binomial
from encoders.expression import normalise_expression
from encoders.layers import ResidualBlock


class DecoderLoss(NamedTuple):
    """Scalars in nats per measured gene; their sum is the negative evidence bound per gene."""

    nll: Tensor
    kl: Tensor
    library: Tensor


class Prior(NamedTuple):
    """A Gaussian mixture over the latent and the log library size, one per row."""

    logits: Tensor  # [M, C]
    mean: Tensor  # [M, C, L]
    log_std: Tensor  # [M, C, L]
    library_mean: Tensor  # [M, C] of log(counts)
    library_log_std: Tensor  # [M, C]


class Latents(NamedTuple):
    """Latent cells that were drawn elsewhere than from the prior, one per row."""

    latent: Tensor  # [M, L]
    log_library: Tensor  # [M] of counts
    log_ratio: Tensor  # [M, G] added to the log shares of the genes


class CellDecoder(nn.Module):
    """signal [M, D] (+ library size [M]) -> counts [M, G]."""

    signal_mean: Tensor  # [D] of the states at <SIGNAL>
    signal_std: Tensor

    def __init__(self, config: CellDecoderConfig) -> None:
        super().__init__()
        self.config = config
        hidden, latent, components = config.n_hidden, config.n_latent, config.n_components
        self.register_buffer("signal_mean", torch.zeros(config.n_condition))
        self.register_buffer("signal_std", torch.ones(config.n_condition))
        self.condition = nn.Sequential(
            nn.LayerNorm(config.n_condition), nn.Linear(config.n_condition, hidden), nn.GELU(), ResidualBlock(hidden)
        )
        self.prior_head = nn.Linear(hidden, components * (2 * latent + 3))
        self.from_expression = nn.Linear(config.n_genes, hidden, bias=False)
        self.posterior = nn.Sequential(nn.LayerNorm(hidden), nn.GELU(), nn.Linear(hidden, 2 * latent))
        self.from_latent = nn.Linear(latent, hidden)
        self.trunk = nn.Sequential(ResidualBlock(hidden), nn.LayerNorm(hidden))
        self.to_genes = nn.Linear(hidden, config.n_genes)
        self.dispersion_base = nn.Parameter(torch.zeros(config.n_genes))
        self.dispersion_low_rank = nn.Sequential(
            nn.Linear(hidden, config.dispersion_rank, bias=False),
            nn.Linear(config.dispersion_rank, config.n_genes, bias=False),
        )

    def fit_signal_scale(self, signals: Tensor) -> None:
        """Standardise the states at <SIGNAL> by those of many requests, signals [M, D].

        What requests have in common is large beside what sets cell types apart; without this the conditions look alike.
        """
        self.signal_mean.copy_(signals.mean(0))
        self.signal_std.copy_(signals.std(0).clamp_min(1e-4))

    def init_gene_bias(self, mean_share: Tensor) -> None:
        """Start the softmax over genes at the mean share of each gene in the training counts, mean_share [G]."""
        with torch.no_grad():
            self.to_genes.bias.copy_(torch.log(mean_share + 1e-7))

    def loss(self, signal: Tensor, counts: Tensor, measured: Tensor, kl_weight: float = 1.0) -> DecoderLoss:
        """Negative evidence bound of counts [M, G] >= 0 given signal [M, D]; measured [M, G] or [G] bool.

        `kl_weight` below 1 (warm-up) frees the bits of the latent; the returned `kl` is not multiplied by it.
        Returns zeros that still carry a gradient path when M = 0.
        """
        if signal.shape[0] == 0:
            zero = torch.stack([parameter.sum() for parameter in self.parameters()]).sum() * 0.0
            return DecoderLoss(zero, zero, zero)
        measured = measured.to(counts.dtype).expand_as(counts)
        counts = counts * measured
        condition = self._condition(signal)  # [M, H]
        prior = self._prior(condition)
        mean, log_std = self._posterior(counts, measured, condition)  # [M, L] each
        noise = torch.randn_like(mean)
        latent = mean + noise * log_std.exp()
        log_share, dispersion = self._decode(latent, condition)  # [M, G] each

        total = counts.sum(-1, keepdim=True)  # [M, 1] over the measured genes
        measured_share = (log_share.exp() * measured).sum(-1, keepdim=True).clamp_min(1e-6)
        rate = total * log_share.exp() / measured_share  # [M, G]; sums to the measured total over the measured genes
        log_prob = negative_binomial_log_prob(counts, rate, dispersion) * measured
        n_measured = measured.sum(-1).clamp_min(1.0)  # [M]
        nll = -(log_prob.sum(-1) / n_measured)

        log_library = torch.log((total / measured_share).squeeze(-1).detach().clamp_min(1.0))  # [M]
        log_posterior = normal_log_prob(latent, mean, log_std).sum(-1)  # [M]
        joint = self._prior_log_prob(prior, latent, log_library)  # [M]
        marginal = self._prior_log_prob(prior, latent, None)  # [M]
        kl = (log_posterior - marginal) / n_measured
        library = (marginal - joint) / n_measured  # -log p(library | z)
        return DecoderLoss(nll.mean(), kl.mean(), library.mean())

    @torch.no_grad()
    def sample(
        self,
        signal: Tensor,
        library_size: Tensor | None = None,
        generator: torch.Generator | None = None,
        latents: Latents | None = None,
        genes: Tensor | None = None,
    ) -> Tensor:
        """Integer counts [M, G] for signal [M, D]; [M, g] of some `genes` (positions [g]) alone.

        library_size [M]: expected total counts over all genes of the checkpoint; None draws it as learned for
        the condition. `latents` are used in place of draws from the prior. The same generator state gives the same
        cells.
        """
        condition = self._condition(signal)
        if latents is None:
            latent, log_library = self._draw(self._prior(condition), library_size, generator)
        else:
            latent, log_library = latents.latent.to(signal), latents.log_library.to(signal)
        log_share, dispersion = self._decode(latent, condition)
        if latents is not None:
            log_share = torch.log_softmax(log_share + latents.log_ratio.to(signal), dim=-1)
        rate = torch.exp(log_share + log_library.unsqueeze(-1))
        if genes is not None:
            rate, dispersion = rate[:, genes], dispersion[:, genes]
        return sample_negative_binomial(rate, dispersion, generator)

    def _draw(
        self, prior: Prior, library_size: Tensor | None, generator: torch.Generator | None
    ) -> tuple[Tensor, Tensor]:
        """A latent [M, L] and a log library [M] from the prior."""
        logits = prior.logits
        if library_size is not None:  # the sub-population that goes with the depth asked for
            log_library = torch.log(library_size.clamp_min(1.0)).to(logits.dtype)
            logits = logits + normal_log_prob(log_library.unsqueeze(-1), prior.library_mean, prior.library_log_std)
        component = torch.multinomial(torch.softmax(logits, -1), 1, generator=generator)  # [M, 1]
        index = component.unsqueeze(-1).expand(-1, -1, self.config.n_latent)
        mean, log_std = prior.mean.gather(1, index).squeeze(1), prior.log_std.gather(1, index).squeeze(1)
        latent = (
            mean + torch.randn(mean.shape, generator=generator, dtype=mean.dtype, device=mean.device) * log_std.exp()
        )
        if library_size is None:
            centre = prior.library_mean.gather(1, component).squeeze(1)
            spread = prior.library_log_std.gather(1, component).squeeze(1).exp()
            noise = torch.randn(centre.shape, generator=generator, dtype=centre.dtype, device=centre.device)
            log_library = centre + noise.clamp(-2.5, 2.5) * spread  # no absurd depths from the normal's tails
        return latent, log_library

    @torch.no_grad()
    def encode(self, signal: Tensor, counts: Tensor, measured: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and log standard deviation [M, L] of real cells' latents: signal [M, D], counts and measured [M, G]."""
        measured = measured.to(counts.dtype).expand_as(counts)
        return self._posterior(counts * measured, measured, self._condition(signal))

    @torch.no_grad()
    def shares(self, signal: Tensor, latent: Tensor) -> Tensor:
        """Expected share of each gene [M, G] for signal [M, D] and latent [M, L]; rows sum to one."""
        return self._decode(latent, self._condition(signal))[0].exp()

    def _condition(self, signal: Tensor) -> Tensor:
        return self.condition((signal - self.signal_mean) / self.signal_std)

    def _prior(self, condition: Tensor) -> Prior:
        latent, components = self.config.n_latent, self.config.n_components
        parameters = self.prior_head(condition).unflatten(-1, (components, 2 * latent + 3))
        logits, library_mean, library_log_std = parameters[..., 0], parameters[..., 1], parameters[..., 2]
        mean, log_std = parameters[..., 3:].split(latent, dim=-1)
        return Prior(
            logits,
            mean,
            log_std.clamp(-4.0, 2.0),
            library_mean + math.log(2000.0),  # a usual depth of droplet data, in counts
            -3.0 * torch.sigmoid(library_log_std),  # one population's depths spread by less than e-fold
        )

    def _posterior(self, counts: Tensor, measured: Tensor, condition: Tensor) -> tuple[Tensor, Tensor]:
        expression, _ = normalise_expression(counts, measured)
        mean, log_std = self.posterior(self.from_expression(expression) + condition).chunk(2, dim=-1)
        return mean, log_std.clamp(-6.0, 2.0)

    def _decode(self, latent: Tensor, condition: Tensor) -> tuple[Tensor, Tensor]:
        """Log share of each gene [M, G] (sums to one) and inverse dispersion theta [M, G]."""
        hidden = self.trunk(condition + self.from_latent(latent))
        log_share = torch.log_softmax(self.to_genes(hidden), dim=-1)
        log_dispersion = self.dispersion_base + self.dispersion_low_rank(condition)
        return log_share, torch.exp(log_dispersion.clamp(-6.0, 8.0))

    @staticmethod
    def _prior_log_prob(prior: Prior, latent: Tensor, log_library: Tensor | None) -> Tensor:
        """log p(z) [M], or log p(z, library) when log_library [M] is given."""
        log_prob = torch.log_softmax(prior.logits, -1)
        log_prob = log_prob + normal_log_prob(latent.unsqueeze(1), prior.mean, prior.log_std).sum(-1)
        if log_library is not None:
            log_prob = log_prob + normal_log_prob(log_library.unsqueeze(-1), prior.library_mean, prior.library_log_std)
        return torch.logsumexp(log_prob, dim=-1)
