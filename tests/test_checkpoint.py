"""A checkpoint folder is whole or not there at all, and says what is wrong with it."""

from __future__ import annotations

import json
import shutil

import pytest
import tiny
import torch
from safetensors.torch import load_file

from instructcell import checkpoint as module
from instructcell.checkpoint import REQUIRED, load_checkpoint, save_checkpoint, shipped_checkpoints
from instructcell.errors import CheckpointError
from instructcell.processor import Prompt


@pytest.fixture
def folder(tiny_checkpoint, tmp_path):
    """A copy that a test may damage."""
    return shutil.copytree(tiny_checkpoint, tmp_path / "copy")


def test_a_checkpoint_loads_as_float32_and_answers(tiny_checkpoint):
    loaded = load_checkpoint(tiny_checkpoint)
    assert {tensor.dtype for tensor in load_file(tiny_checkpoint / "model.safetensors").values()} == {torch.float16}
    assert {p.dtype for p in loaded.model.parameters()} == {torch.float32}
    assert not loaded.model.training
    assert loaded.labels.names == list(tiny.MARKERS)
    assert [drug.name for drug in loaded.drugs] == ["gefitinib", "PLX4720"]
    assert loaded.calibration["temperature"] == 1.0
    assert loaded.card == {"accuracy": None}
    assert len(loaded.hash) == 64
    ids = loaded.model.generate(**loaded.processor([Prompt.about("markers of B cell:")]), max_new_tokens=2)
    assert ids.shape[0] == 1


def test_everyone_may_read_a_saved_checkpoint(tiny_checkpoint):
    assert len({path.stat().st_mode for path in tiny_checkpoint.iterdir()}) == 1


def test_half_precision_on_disk_moves_the_logits_little(tiny_processor, tiny_t5_model, tmp_path):
    path = save_checkpoint(tmp_path / "c", tiny_t5_model, tiny_processor, tiny.tiny_labels(), [], {})
    batch = {**tiny_processor([Prompt.parse("annotate: {cells}")]), "counts": torch.ones(1, tiny.N_GENES)}
    batch["decoder_input_ids"] = torch.tensor([[0, 5]])
    back = load_checkpoint(path).model
    torch.testing.assert_close(back(**batch).logits, tiny_t5_model(**batch).logits, atol=0.02, rtol=0.02)


def test_weights_that_half_precision_cannot_hold_stay_whole(tiny_processor, tiny_t5_model, tmp_path):
    tiny_t5_model.projector.layers[0].weight.data[0, 0] = 1e6
    path = save_checkpoint(tmp_path / "c", tiny_t5_model, tiny_processor, tiny.tiny_labels(), [], {})
    assert load_checkpoint(path).model.projector.layers[0].weight[0, 0] == 1e6


def test_a_checkpoint_is_loaded_once_and_again_when_rewritten(folder):
    first = load_checkpoint(folder)
    assert load_checkpoint(str(folder)) is first
    tiny.make_tiny_checkpoint(folder)
    second = load_checkpoint(folder)
    assert second is not first
    assert second.hash == first.hash


@pytest.mark.parametrize("name", REQUIRED)
def test_a_folder_that_lacks_a_file_says_which(folder, name):
    (folder / name).unlink()
    with pytest.raises(CheckpointError, match=name):
        load_checkpoint(folder)


def test_what_is_not_a_checkpoint_is_refused(tmp_path):
    with pytest.raises(CheckpointError, match="neither a folder nor one that ships"):
        load_checkpoint("no-such-checkpoint")
    with pytest.raises(CheckpointError, match="lacks config.json"):
        load_checkpoint(tmp_path)


def test_a_plain_language_model_is_refused_with_the_way_to_use_it(folder):
    (folder / "config.json").write_text(json.dumps({"model_type": "t5"}))
    with pytest.raises(CheckpointError, match="--backbone"):
        load_checkpoint(folder)


def test_damaged_files_give_one_message(folder):
    weights = folder / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:1000])
    with pytest.raises(CheckpointError, match="cannot be loaded"):
        load_checkpoint(folder)
    (folder / "config.json").write_text("{")
    with pytest.raises(CheckpointError, match="no valid JSON"):
        load_checkpoint(folder)


def test_files_of_two_checkpoints_do_not_mix(folder):
    genes = (folder / "genes.tsv").read_text().splitlines()
    (folder / "genes.tsv").write_text("\n".join(genes[:-1]) + "\n")
    with pytest.raises(CheckpointError, match="199 genes"):
        load_checkpoint(folder)


def test_missing_weights_are_not_drawn_at_random(folder):
    from safetensors.torch import save_file

    weights = load_file(folder / "model.safetensors")
    weights.pop("projector.layers.0.weight")
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(CheckpointError, match="projector.layers.0.weight"):
        load_checkpoint(folder)


def test_a_save_that_fails_leaves_the_old_checkpoint(folder, tiny_processor, tiny_t5_model):
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    with pytest.raises(TypeError):
        save_checkpoint(folder, tiny_t5_model, tiny_processor, tiny.tiny_labels(), [], {"temperature": object()})
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before
    assert [path.name for path in folder.parent.iterdir()] == [folder.name]


def test_a_folder_with_other_files_is_not_replaced(tiny_processor, tiny_t5_model, tmp_path):
    (tmp_path / "thesis.txt").write_text("years of work")
    with pytest.raises(CheckpointError, match="no checkpoint"):
        save_checkpoint(tmp_path, tiny_t5_model, tiny_processor, tiny.tiny_labels(), [], {})
    assert (tmp_path / "thesis.txt").exists()


def test_a_shipped_checkpoint_is_found_by_name(folder, monkeypatch):
    monkeypatch.setattr(module, "SHIPPED", folder.parent)
    assert shipped_checkpoints() == ["copy"]
    assert load_checkpoint("copy").path == folder


def test_a_hub_that_cannot_be_reached_is_one_message(monkeypatch):
    def unreachable(*args, **kwargs):
        raise OSError("no network")

    monkeypatch.setattr(module, "snapshot_download", unreachable)
    with pytest.raises(CheckpointError, match="could not be fetched"):
        load_checkpoint("owner/name")
