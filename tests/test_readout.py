"""The fast read-out: fitted to the language model, saved with it, and used for large tables."""

from __future__ import annotations

import shutil
from dataclasses import replace

import numpy as np
import pytest
import tiny
import torch

from instructcell import tasks, tools
from instructcell.checkpoint import load_checkpoint, save_checkpoint
from instructcell.errors import CheckpointError, ConfigError
from instructcell.readout import READOUT, LabelReadout, ReadoutConfig, load_readout, save_readout, species_code
from train import distil
from train.distil import Lessons, certain_above, fit, named


@pytest.fixture(scope="module")
def checkpoint(tiny_checkpoint):
    return load_checkpoint(tiny_checkpoint)


def tiny_readout(checkpoint, certain: float = 0.0) -> LabelReadout:
    torch.manual_seed(0)
    encoder = checkpoint.model.config.encoder_config
    config = ReadoutConfig(encoder.n_embeddings, encoder.n_latent, len(checkpoint.labels), 16, certain)
    return LabelReadout(config).eval()


def with_readout(checkpoint, certain: float):
    return replace(checkpoint, readout=tiny_readout(checkpoint, certain))


# ---- as a module


def test_probabilities_sum_to_one_and_the_species_matters(checkpoint):
    readout = tiny_readout(checkpoint)
    embeddings = torch.randn(5, readout.config.n_embeddings, readout.config.n_latent)
    human, mouse, unknown = (
        tasks.read_labels(readout, embeddings, species_code(name)) for name in ("human", "mouse", None)
    )
    np.testing.assert_allclose(human.sum(1), 1, rtol=1e-5)
    assert not np.allclose(human, mouse) and not np.allclose(human, unknown)


def test_a_saved_readout_gives_the_same_answers(checkpoint, tmp_path):
    readout = tiny_readout(checkpoint).half().float()
    readout.config = replace(readout.config, weights="abc", certain_above=0.7)
    save_readout(readout, tmp_path)
    loaded = load_readout(tmp_path, "abc")
    assert loaded.config == readout.config
    embeddings, code = torch.randn(3, readout.config.n_embeddings, readout.config.n_latent), torch.zeros(3, 2)
    torch.testing.assert_close(loaded(embeddings, code), readout(embeddings, code), rtol=0, atol=0)


def test_a_readout_of_other_weights_or_a_damaged_one_is_refused(checkpoint, tmp_path):
    readout = tiny_readout(checkpoint)
    readout.config = replace(readout.config, weights="abc")
    path = save_readout(readout, tmp_path)
    with pytest.raises(CheckpointError, match="other weights"):
        load_readout(tmp_path, "def")
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(CheckpointError, match="copy the checkpoint again"):
        load_readout(tmp_path, "abc")
    path.unlink()
    assert load_readout(tmp_path, "abc") is None


def test_a_checkpoint_is_saved_and_loaded_with_its_readout(checkpoint, tmp_path):
    folder = save_checkpoint(
        tmp_path / "checkpoint",
        checkpoint.model,
        checkpoint.processor,
        checkpoint.labels,
        checkpoint.drugs,
        checkpoint.calibration,
        readout=tiny_readout(checkpoint, 0.5),
    )
    loaded = load_checkpoint(folder)
    assert loaded.readout.config.certain_above == 0.5
    assert loaded.readout.config.weights == loaded.hash
    shutil.copytree(folder, tmp_path / "mixed")
    few = LabelReadout(replace(loaded.readout.config, n_labels=2))
    save_readout(few, tmp_path / "mixed")
    with pytest.raises(CheckpointError, match=READOUT):
        load_checkpoint(tmp_path / "mixed")


# ---- which engine


def test_auto_takes_the_language_model_for_small_tables_and_the_readout_for_large_ones(checkpoint):
    fast = with_readout(checkpoint, 0.0)
    assert tasks.choose_engine("auto", fast, tasks.MOST_FOR_LM) == "lm"
    assert tasks.choose_engine("auto", fast, tasks.MOST_FOR_LM + 1) == "readout"
    assert tasks.choose_engine("auto", checkpoint, 10**9) == "lm"
    assert tasks.choose_engine("lm", fast, 10**9) == "lm"
    with pytest.raises(CheckpointError, match="engine 'lm'"):
        tasks.choose_engine("readout", checkpoint, 10)
    with pytest.raises(ConfigError, match="auto, lm, readout"):
        tasks.choose_engine("warp", checkpoint, 10)


def test_cells_the_readout_is_unsure_of_are_read_by_the_language_model(checkpoint):
    adata = tiny.make_adata(50)
    slow = tools.annotate(adata.copy(), checkpoint=checkpoint, engine="lm")
    never_sure = tools.annotate(adata.copy(), checkpoint=with_readout(checkpoint, 1.01), engine="readout")
    np.testing.assert_allclose(never_sure.table["confidence"], slow.table["confidence"], atol=1e-5)
    assert list(never_sure.table["best_guess"]) == list(slow.table["best_guess"])
    assert never_sure.n_by_lm == slow.n_by_lm == 50
    always_sure = tools.annotate(adata, checkpoint=with_readout(checkpoint, 0.0), engine="readout")
    assert always_sure.n_by_lm == 0
    assert adata.uns["instructcell"]["arguments"]["engine"] == "readout"
    assert "0 of 50 cells by the language model" in always_sure.engine_words
    probabilities = always_sure.table["confidence"]
    some = with_readout(checkpoint, float(np.median(probabilities)))
    mixed = tools.annotate(tiny.make_adata(50), checkpoint=some, engine="readout")
    assert 0 < mixed.n_by_lm < 50
    by_readout = (mixed.table["confidence"] - always_sure.table["confidence"]).abs() < 1e-9
    assert by_readout.sum() >= 50 - mixed.n_by_lm


# ---- fitting


def lessons(n: int = 2000, n_labels: int = 4) -> Lessons:
    """A language model whose answer follows from the embedding, more surely for some cells than for others."""
    generator = torch.Generator().manual_seed(1)
    embeddings = torch.randn(n, 2, 6, generator=generator)
    logits = 3 * embeddings.flatten(1)[:, :n_labels]
    kept_back = torch.rand(n, generator=generator) < 0.3
    return Lessons(embeddings, torch.zeros(n, 2), torch.softmax(logits, 1), kept_back)


def test_a_fitted_readout_names_what_the_language_model_names(checkpoint):
    everything = lessons()
    fitted, judged = everything.of(~everything.kept_back), everything.of(everything.kept_back)
    torch.manual_seed(0)
    readout = LabelReadout(ReadoutConfig(2, 6, 4, 32))
    calibration = {"temperature": 1.0, "unknown_below": 0.3}
    fit(readout, fitted, steps=300, generator=torch.Generator().manual_seed(0))
    same = named(distil.answers(readout, judged), calibration) == named(judged.probabilities.numpy(), calibration)
    assert same.mean() > 0.9
    threshold = certain_above(readout, judged, calibration)
    sure = distil.answers(readout, judged).max(1) >= threshold
    assert 0.3 < sure.mean() < 1
    assert (~same & sure).sum() <= distil.MOST_DIFFERENT * len(same)


def test_the_threshold_is_where_the_readout_begins_to_differ(monkeypatch):
    monkeypatch.setattr(distil, "MOST_DIFFERENT", 0.003)
    judged, calibration = lessons(200), {"temperature": 1.0, "unknown_below": 0.0}
    readout = LabelReadout(ReadoutConfig(2, 6, 4, 8))
    right = judged.probabilities.numpy()
    monkeypatch.setattr(distil, "answers", lambda *_: right)
    assert certain_above(readout, judged, calibration) == pytest.approx(right.max(1).min())
    wrong = replace(judged, probabilities=judged.probabilities.flip(1))
    assert certain_above(readout, wrong, calibration) > right.max(1).max() - 1e-6  # only the surest, or none


def test_an_uncertain_answer_is_unknown():
    probabilities = np.array([[0.5, 0.5], [0.1, 0.9]])
    assert list(named(probabilities, {"temperature": 1.0, "unknown_below": 0.6})) == [-1, 1]
