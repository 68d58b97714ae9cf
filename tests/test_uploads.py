"""What a visitor may upload: archives, folders and loose files, through the page's handlers and a real session."""

from __future__ import annotations

import shutil
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path

import anndata
import pytest
import scipy.sparse as sp
import tiny
from anndata import AnnData
from test_formats import write_trio

from chat_ui import handlers
from chat_ui.handlers import Conversation, View
from instructcell.checkpoint import load_checkpoint
from instructcell.session import Session

N_CELLS = 30


@pytest.fixture(scope="module")
def cells() -> AnnData:
    made = tiny.make_adata(N_CELLS)
    made.X = sp.csr_matrix(made.X)
    return made


@pytest.fixture
def conversation(tiny_checkpoint: Path) -> Iterator[Conversation]:
    checkpoint = load_checkpoint(tiny_checkpoint)
    opened = handlers.open_conversation(lambda folder: Session(checkpoint=checkpoint, folder=folder))
    yield opened
    opened.close()


def zip_of_a_cell_ranger_folder(folder: Path, cells: AnnData) -> list[Path]:
    """As a Mac packs it, with its own notes on every file beside the files."""
    trio = folder / "filtered_feature_bc_matrix"
    trio.mkdir()
    write_trio(trio, cells)
    with zipfile.ZipFile(folder / "sample1.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        for path in sorted(trio.iterdir()):
            archive.write(path, f"{trio.name}/{path.name}")
            archive.writestr(f"__MACOSX/{trio.name}/._{path.name}", b"\0\5\x16\7 notes of a Mac")
    shutil.rmtree(trio)
    return [folder / "sample1.zip"]


def zip_of_loose_files(folder: Path, cells: AnnData) -> list[Path]:
    trio = folder / "loose"
    trio.mkdir()
    write_trio(trio, cells, packed=False)
    return [Path(shutil.make_archive(str(folder / "sample1"), "zip", trio))]


def zip_of_a_zarr_store(folder: Path, cells: AnnData) -> list[Path]:
    cells.write_zarr(folder / "cells.zarr")
    return [Path(shutil.make_archive(str(folder / "sample1"), "zip", folder, "cells.zarr"))]


def zip_of_an_h5ad(folder: Path, cells: AnnData) -> list[Path]:
    cells.write_h5ad(folder / "cells.h5ad")
    with zipfile.ZipFile(folder / "sample1.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.write(folder / "cells.h5ad", "cells.h5ad")
    return [folder / "sample1.zip"]


def the_three_files(folder: Path, cells: AnnData) -> list[Path]:
    trio = folder / "trio"
    trio.mkdir()
    write_trio(trio, cells)
    return sorted(trio.iterdir())


def last(views: Iterator[View]) -> View:
    return list(views)[-1]


@pytest.mark.parametrize(
    "make",
    [zip_of_a_cell_ranger_folder, zip_of_loose_files, zip_of_a_zarr_store, zip_of_an_h5ad, the_three_files],
)
def test_an_upload_is_read_answered_and_given_back_with_the_answers(
    conversation: Conversation, cells: AnnData, tmp_path: Path, make: Callable[[Path, AnnData], list[Path]]
) -> None:
    (uploaded,) = handlers.gather(conversation, make(tmp_path, cells))
    loaded = last(handlers.load(conversation, uploaded))
    assert "is loaded" in loaded.messages[-1]["content"], loaded.messages[-1]["content"]
    assert f">{N_CELLS}<" in loaded.card and uploaded.name in loaded.card
    answered = last(handlers.ask(conversation, "Which cell types are these?"))
    assert answered.annotated is not None
    given_back = anndata.read_h5ad(answered.annotated)
    assert given_back.obs["instructcell_cell_type"].notna().all()
    assert list(given_back.obs_names) == list(cells.obs_names) and given_back.n_vars == cells.n_vars
    assert (given_back.X != cells.X).nnz == 0


def test_a_zip_without_cells_is_one_sentence_and_the_chat_goes_on(
    conversation: Conversation, cells: AnnData, tmp_path: Path
) -> None:
    with zipfile.ZipFile(tmp_path / "thesis.zip", "w") as archive:
        archive.writestr("thesis/chapter1.docx", b"dear reader")
    refused = last(handlers.load(conversation, tmp_path / "thesis.zip"))
    assert "holds no cells" in refused.messages[-1]["content"]
    (zipped,) = zip_of_loose_files(tmp_path, cells)
    assert "is loaded" in last(handlers.load(conversation, zipped)).messages[-1]["content"]
