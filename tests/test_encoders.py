"""The cell modules alone: normalisation, encoder, distributions, decoder."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy import stats

from encoders import (
    CellDecoder,
    CellDecoderConfig,
    CellEncoder,
    CellEncoderConfig,
    ProfileLikelihood,
    normalise_expression,
)
from encoders.distributions import negative_binomial_log_prob, sample_negative_binomial
from encoders.profiles import SHARE_SCALE

G = 40


@pytest.fixture
def counts() -> torch.Tensor:
    return torch.poisson(torch.full((6, G), 2.0), generator=torch.Generator().manual_seed(0))


@pytest.fixture(params=[0, 4], ids=["sums alone", "with profiles"])
def encoder(request: pytest.FixtureRequest) -> CellEncoder:
    torch.manual_seed(0)
    encoder = CellEncoder(CellEncoderConfig(G, n_embeddings=3, n_latent=8, n_hidden=16, n_profiles=request.param))
    if encoder.profiles is not None:
        encoder.profiles.set_profiles((3 * torch.rand(request.param, G)).softmax(-1))
    return encoder.eval()


@pytest.fixture
def decoder() -> CellDecoder:
    torch.manual_seed(0)
    return CellDecoder(CellDecoderConfig(G, n_condition=12, n_latent=4, n_hidden=16, n_components=3))


def test_the_scale_of_a_cell_changes_nothing(encoder: CellEncoder, counts: torch.Tensor) -> None:
    measured = torch.ones(G, dtype=torch.bool)
    torch.testing.assert_close(encoder(counts, measured), encoder(counts * 250.0, measured), rtol=1e-4, atol=1e-4)


def test_an_unmeasured_gene_is_not_a_zero(encoder: CellEncoder, counts: torch.Tensor) -> None:
    measured = torch.ones(G, dtype=torch.bool)
    absent = measured.clone()
    absent[: G // 2] = False
    as_zero = counts.clone()
    as_zero[:, : G // 2] = 0.0
    assert not torch.allclose(encoder(counts, absent), encoder(as_zero, measured), atol=1e-3)


def test_counts_of_unmeasured_genes_are_never_looked_at(encoder: CellEncoder, counts: torch.Tensor) -> None:
    absent = torch.ones(G, dtype=torch.bool)
    absent[:5] = False
    other = counts.clone()
    other[:, :5] = 99.0
    torch.testing.assert_close(encoder(counts, absent), encoder(other, absent))


def test_a_cell_without_counts_gives_finite_embeddings(encoder: CellEncoder) -> None:
    embeddings = encoder(torch.zeros(2, G), torch.zeros(G, dtype=torch.bool))
    assert embeddings.shape == (2, 3, 8)
    assert embeddings.isfinite().all()


def test_normalised_expression_has_mean_one_before_the_logarithm(counts: torch.Tensor) -> None:
    expression, detected = normalise_expression(counts, torch.ones(G, dtype=torch.bool))
    torch.testing.assert_close(torch.expm1(expression).mean(1), torch.ones(6))
    assert torch.equal(detected.bool(), counts > 0)


def test_likeness_to_profiles_is_the_multinomial_likelihood_of_the_measured_genes() -> None:
    shares = torch.tensor([[0.5, 0.25, 0.125, 0.125], [0.1, 0.1, 0.4, 0.4], [0.25, 0.25, 0.25, 0.25]])
    profiles = ProfileLikelihood(3, 4)
    profiles.set_profiles(shares)
    counts = torch.tensor([[6.0, 3.0, 1.0, 7.0]])
    measured = torch.tensor([True, True, True, False])
    panel = shares[:, :3].double() / shares[:, :3].double().sum(1, keepdim=True)
    expected = np.array([stats.multinomial.logpmf([6, 3, 1], 10, p / p.sum()) for p in panel.numpy()])
    expected = (expected - expected.mean()) / expected.std()
    found = profiles(counts, measured)
    assert found.shape == (1, profiles.n_features)
    np.testing.assert_allclose(found[0, :3], expected, atol=5e-3)  # profiles are stored in half precision
    soft, sharp = found[0, 3:6] / SHARE_SCALE, found[0, 6:] / SHARE_SCALE
    np.testing.assert_allclose([soft.sum(), sharp.sum()], 1.0, rtol=1e-5)
    assert soft.argmax() == sharp.argmax() == expected.argmax() and sharp.max() > soft.max()


def test_an_empty_cell_is_as_like_every_profile() -> None:
    profiles = ProfileLikelihood(3, 4)
    profiles.set_profiles(torch.rand(3, 4).softmax(-1))
    features = profiles(torch.zeros(1, 4), torch.tensor([True, True, False, True]))
    assert torch.equal(features[0, :3], torch.zeros(3))
    torch.testing.assert_close(features[0, 3:], torch.full((6,), SHARE_SCALE / 3))


def test_profiles_that_are_no_shares_are_refused() -> None:
    with pytest.raises(ValueError, match=r"expected positive shares \[3, 4\], got \[3, 4\] with a minimum of 0"):
        ProfileLikelihood(3, 4).set_profiles(torch.zeros(3, 4))


@pytest.mark.parametrize("mean, theta", [(0.3, 0.5), (4.0, 2.0), (80.0, 10.0)])
def test_negative_binomial_agrees_with_scipy(mean: float, theta: float) -> None:
    k = torch.arange(0.0, 30.0)
    ours = negative_binomial_log_prob(k, torch.tensor(mean), torch.tensor(theta))
    theirs = stats.nbinom.logpmf(k.numpy(), theta, theta / (theta + mean))
    np.testing.assert_allclose(ours, theirs, rtol=2e-3, atol=1e-4)


def test_sampled_counts_have_the_mean_and_variance_of_the_distribution() -> None:
    mean, theta = torch.full((40_000,), 5.0), torch.tensor(2.0)
    drawn = sample_negative_binomial(mean, theta, torch.Generator().manual_seed(0)).double()
    assert drawn.mean().item() == pytest.approx(5.0, rel=0.03)
    assert drawn.var().item() == pytest.approx(5.0 + 25.0 / 2.0, rel=0.06)


def test_decoder_loss_is_finite_for_an_empty_cell_and_for_a_panel(decoder: CellDecoder, counts: torch.Tensor) -> None:
    panel = torch.ones(6, G, dtype=torch.bool)
    panel[2:, 10:] = False
    counts[0] = 0.0
    loss = decoder.loss(torch.randn(6, 12), counts, panel)
    assert all(term.isfinite() for term in loss)


def test_unmeasured_genes_take_no_part_in_the_decoder_loss(decoder: CellDecoder, counts: torch.Tensor) -> None:
    panel = torch.ones(G, dtype=torch.bool)
    panel[30:] = False
    other = counts.clone()
    other[:, 30:] = 50.0
    signal, losses = torch.randn(6, 12), []
    for cells in (counts, other):
        torch.manual_seed(1)
        losses.append(decoder.loss(signal, cells, panel).nll)
    torch.testing.assert_close(*losses)


def test_the_same_generator_gives_the_same_pseudo_cells(decoder: CellDecoder) -> None:
    signal = torch.randn(4, 12)
    first, second = (decoder.sample(signal, generator=torch.Generator().manual_seed(7)) for _ in range(2))
    assert torch.equal(first, second)
    assert first.dtype == torch.int64 and (first >= 0).all()
    assert not torch.equal(first, decoder.sample(signal, generator=torch.Generator().manual_seed(8)))


def test_a_library_size_that_is_asked_for_is_followed(decoder: CellDecoder) -> None:
    cells = decoder.sample(torch.randn(200, 12), torch.full((200,), 5000.0), torch.Generator().manual_seed(0))
    assert cells.sum(1).double().mean().item() == pytest.approx(5000.0, rel=0.1)


def test_decoder_learns_two_kinds_of_cells() -> None:
    """Trained on two profiles of different depth, samples follow the profile and the depth of their condition."""
    torch.manual_seed(0)
    decoder = CellDecoder(CellDecoderConfig(20, n_condition=2, n_latent=2, n_hidden=32, n_components=2))
    condition = torch.eye(2).repeat(64, 1)  # [128, 2]
    profile = torch.full((2, 20), 0.5)
    profile[0, :10], profile[1, 10:] = 200.0, 50.0
    optimizer = torch.optim.Adam(decoder.parameters(), lr=0.01)
    for _ in range(300):
        loss = decoder.loss(condition, torch.poisson(profile.repeat(64, 1)), torch.ones(20, dtype=torch.bool))
        optimizer.zero_grad()
        sum(loss).backward()
        optimizer.step()
    made = decoder.sample(condition, generator=torch.Generator().manual_seed(0)).double()
    share = made[:, :10].sum(1) / made.sum(1)
    assert share[0::2].mean() > 0.9 and share[1::2].mean() < 0.2
    assert made[0::2].sum(1).mean().item() == pytest.approx(2005.0, rel=0.2)
    assert made[1::2].sum(1).mean().item() == pytest.approx(505.0, rel=0.2)


@pytest.mark.parametrize("field", ["n_genes", "n_latent"])
def test_a_size_of_nothing_is_refused_by_name(field: str) -> None:
    with pytest.raises(ValueError, match=field):
        CellEncoderConfig(**{"n_genes": 5, field: 0})


def test_a_negative_number_of_profiles_is_refused() -> None:
    with pytest.raises(ValueError, match="n_profiles must be at least 0, got -1"):
        CellEncoderConfig(n_genes=5, n_profiles=-1)
