"""Training cells of each kind in the decoder's latent space: which kinds a request means, what is drawn and fitted."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy import sparse

from instructcell import tools
from instructcell.checkpoint import load_checkpoint
from instructcell.errors import CheckpointError
from instructcell.populations import Kind, Populations, load_populations, save_populations
from train.populations import PRIOR_COUNTS, log_ratio

KINDS = (
    Kind("B cell", "human", "PBMC", "", 3.0),
    Kind("B cell", "human", "PBMC (lupus patients)", "", 1.0),
    Kind("B cell", "human", "PBMC (lupus patients)", "IFN-beta stimulated", 1.0),
    Kind("B cell", "mouse", "lung", "", 1.0),
    Kind("T cell", "human", "PBMC (lupus patients)", "", 1.0),
)


def made_up(n_latent: int = 3, n_genes: int = 6) -> Populations:
    """Cells of kind k at latent 10 k, with depths 100, 1,000 and 10,000."""
    k, cells = len(KINDS), 3
    mean = np.repeat(10.0 * np.arange(k), cells)[:, None] * np.ones(n_latent)
    depth = np.tile(np.log([100.0, 1000, 10000]), k)
    ratio = np.arange(k)[:, None] * np.ones(n_genes)
    return Populations(KINDS, cells * np.arange(k + 1), mean, np.full_like(mean, -9.0), depth, ratio, "w")


@pytest.mark.parametrize(
    ("said", "kinds"),
    [
        ({}, (0, 1, 3)),
        ({"species": "Human"}, (0, 1)),
        ({"tissue": "pbmc"}, (0,)),
        ({"tissue": "PBMC (lupus patients)"}, (1,)),
        ({"tissue": "PBMC (healthy)"}, (0, 1)),
        ({"condition": "IFN-beta  stimulated"}, (2,)),
        ({"condition": "heat shock"}, None),
        ({"species": "mouse", "tissue": "PBMC"}, None),
    ],
)
def test_a_request_means_the_kinds_that_fit_what_it_says(said, kinds) -> None:
    found = made_up().like("B cell", **said)
    assert (found and found.kinds) == kinds


def test_a_type_without_a_population_has_none() -> None:
    assert made_up().like("T cell", tissue="PBMC").kinds == (4,)
    assert made_up().like("hepatocyte") is None


def test_kinds_are_drawn_by_weight_with_their_own_correction() -> None:
    drawn = made_up().like("B cell", species="human").draw(4000, None, torch.Generator().manual_seed(0))
    kind = (drawn.latent[:, 0] / 10).round()
    assert set(kind.tolist()) == {0.0, 1.0} and (kind == 0).float().mean() == pytest.approx(0.75, abs=0.03)
    torch.testing.assert_close(drawn.log_ratio[:, 0], kind)
    assert sorted(set(drawn.log_library.exp().round().int().tolist())) == [100, 1000, 10000]


def test_cells_near_the_depth_asked_for_are_drawn_and_get_that_depth() -> None:
    source = made_up()
    source.mean[:, 0] = source.log_library  # so that a latent tells its cell
    wanted = torch.full((50,), 900.0)
    drawn = source.like("B cell", species="mouse").draw(50, wanted, torch.Generator().manual_seed(0))
    torch.testing.assert_close(drawn.latent[:, 0].exp(), torch.full((50,), 1000.0), atol=5, rtol=0)
    torch.testing.assert_close(drawn.log_library, torch.log(wanted))


def test_what_is_saved_is_loaded_but_not_for_other_weights(tmp_path) -> None:
    save_populations(made_up(), tmp_path)
    found = load_populations(tmp_path, "w")
    assert found.kinds == KINDS and found.starts.tolist() == made_up().starts.tolist()
    np.testing.assert_allclose(found.log_library, made_up().log_library, atol=1e-2)
    with pytest.raises(CheckpointError, match="fitted to other weights"):
        load_populations(tmp_path, "another")
    assert load_populations(tmp_path / "nowhere", "w") is None
    (tmp_path / "populations.safetensors").write_bytes(b"broken")
    with pytest.raises(CheckpointError, match="cannot be loaded"):
        load_populations(tmp_path, "w")


def test_the_correction_is_the_mean_of_the_cells_with_the_decoder_as_prior() -> None:
    counts, measured = sparse.csr_matrix([[8.0, 2, 0], [30.0, 10, 0]]), np.array([True, True, False])
    shares = np.array([0.2, 0.2, 0.6])
    few = log_ratio(counts, measured, shares)
    expected = (0.775 * 50 + PRIOR_COUNTS * 0.5) / (50 + PRIOR_COUNTS)
    np.testing.assert_allclose(few, [np.log(expected / 0.5), np.log((1 - expected) / 0.5), 0], atol=1e-9)
    many = log_ratio(counts * 1e9, measured, shares)
    np.testing.assert_allclose(many, np.log([0.775 / 0.5, 0.225 / 0.5, 1]), atol=1e-4)


def test_pseudo_cells_of_a_checkpoint_with_populations_follow_them(tiny_checkpoint) -> None:
    plain = load_checkpoint(tiny_checkpoint)
    label = next(label.name for label in plain.labels if label.can_generate)
    n_genes, n_latent = len(plain.processor.genes), plain.model.config.decoder_config.n_latent
    ratio = np.where(np.arange(n_genes) == 7, 12.0, 0.0)[None]  # the eighth gene takes nearly all counts
    populations = Populations(
        (Kind(label),), np.array([0, 1]), np.zeros((1, n_latent)), np.full((1, n_latent), -9.0), np.array([7.0]), ratio
    )
    checkpoint = replace(plain, populations=populations)
    made = tools.generate(cell_type=label, n=20, checkpoint=checkpoint, seed=3)
    assert made.X[:, 7].sum() / made.X.sum() > 0.9
    assert (made.X != tools.generate(cell_type=label, n=20, checkpoint=checkpoint, seed=3).X).nnz == 0
    other = tools.generate(cell_type=label, n=20, checkpoint=checkpoint, seed=3, condition="heat shock")
    alone = tools.generate(cell_type=label, n=20, checkpoint=plain, seed=3, condition="heat shock")
    assert (other.X != alone.X).nnz == 0 and other.X[:, 7].sum() / other.X.sum() < 0.5
