"""Tiny things that tests share; nothing is downloaded."""

from __future__ import annotations

from pathlib import Path

import pytest
import tiny
import tiny_screen as screens
import torch
from anndata import AnnData

from instructcell.bulk import Screen
from instructcell.model import InstructCellForConditionalGeneration
from instructcell.processor import InstructCellProcessor

THREADS = torch.get_num_threads()


@pytest.fixture(autouse=True)
def as_many_threads_as_a_new_process() -> None:
    """The last digits of a product depend on the threads, and libraries under test may have set others."""
    torch.set_num_threads(THREADS)


@pytest.fixture(scope="session")
def tiny_processor() -> InstructCellProcessor:
    return tiny.make_processor()


@pytest.fixture(scope="session")
def tiny_causal_processor() -> InstructCellProcessor:
    return tiny.make_processor(is_encoder_decoder=False)


@pytest.fixture
def tiny_t5_model(tiny_processor: InstructCellProcessor) -> InstructCellForConditionalGeneration:
    return tiny.make_model(tiny_processor, n_classes=3)


@pytest.fixture
def tiny_qwen_model(tiny_causal_processor: InstructCellProcessor) -> InstructCellForConditionalGeneration:
    return tiny.make_model(tiny_causal_processor, n_classes=3)


@pytest.fixture(scope="session")
def tiny_checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A saved checkpoint folder with a tiny random T5."""
    return tiny.make_tiny_checkpoint(tmp_path_factory.mktemp("checkpoints") / "tiny")


@pytest.fixture
def tiny_screen(monkeypatch: pytest.MonkeyPatch) -> Screen:
    """The made-up screen in the place of the one that ships, for every toolbox."""
    made_up = screens.made_up_screen()
    monkeypatch.setattr("instructcell.toolbox.core.load_screen", lambda: made_up)
    return made_up


@pytest.fixture
def synthetic_adata() -> AnnData:
    return tiny.make_adata()
