"""The exported script, run by itself in a process of its own, gives the session's files again, value for value."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import anndata as ad
import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp
import tiny
import torch
from anndata import AnnData

from instructcell.checkpoint import load_checkpoint
from instructcell.events import FilesReady
from instructcell.session import Session

ROOT = Path(__file__).parents[1]


@pytest.fixture
def cells(tmp_path: Path) -> Path:
    adata = tiny.make_adata(70)
    adata.obs["leiden"] = pd.Categorical([str(i % 3) for i in range(adata.n_obs)])
    adata.obs["condition"] = ["stim" if i % 2 else "ctrl" for i in range(adata.n_obs)]
    adata.X = sp.csr_matrix(adata.X)
    adata.write_h5ad(tmp_path / "cells.h5ad")
    return tmp_path / "cells.h5ad"


def same(one: Any, other: Any) -> bool:
    """Whether two parts of an AnnData hold the same values, to the last bit."""
    if isinstance(one, pd.DataFrame):
        pd.testing.assert_frame_equal(one, other, check_exact=True)
        return True
    if hasattr(one, "items"):
        return set(one) == set(other) and all(same(one[key], other[key]) for key in one)
    if sp.issparse(one):
        return one.shape == other.shape and (one != other).nnz == 0
    if isinstance(one, np.ndarray):
        return np.array_equal(one, other, equal_nan=one.dtype.kind == "f")
    return bool(one == other)


def differences(one: AnnData, other: AnnData) -> list[str]:
    names = ("X", "obs", "var", "uns", "obsm", "obsp", "layers", "varm")
    return [name for name in names if not same(getattr(one, name), getattr(other, name))]


def exported(session: Session, question: str) -> dict[str, Path]:
    events = list(session.send(question))
    return {path.name: path for event in events if isinstance(event, FilesReady) for path in event.paths}


def run_again(script: Path, folder: Path, *files: Path) -> None:
    """The script as a user runs it, with the threads of this process."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": str(torch.get_num_threads())}
    command = [sys.executable, str(script), *map(str, files)]
    run = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    assert "another checkpoint" not in run.stderr


TURNS = {
    "types, clusters and a map": ["Which cell types are these?", "cluster the cells", "show the map by cluster"],
    "undo": [
        "Which cell types are these?",
        "Would gefitinib work on these cells?",
        "cluster the cells with resolution 0.3",
        "undo",
        "undo",
        "Would PLX4720 work on these cells?",
    ],
    "selections": [
        "Which cell types are in cluster 1?",
        "only the first 12",
        "Would gefitinib work on these?",
        "Are the cells of cluster 2 B cells or natural killer cells?",
        "undo",
        "how many B cells are there?",
    ],
    "pseudo-cells": ["Which cell types are these?", "generate 7 B cells", "compare them with the real ones"],
    "started again": ["Which cell types are these?", "start again", "cluster the cells"],
}


@pytest.mark.parametrize("turns", TURNS.values(), ids=TURNS)
def test_the_script_gives_the_files_of_the_session_again(
    turns: list[str], cells: Path, tiny_checkpoint: Path, tmp_path: Path
) -> None:
    session = Session(checkpoint=load_checkpoint(tiny_checkpoint), folder=tmp_path / "exports")
    session.load(cells)
    for turn in turns:
        list(session.send(turn))
    files = exported(session, "export all this")
    ours = {name: path for name, path in files.items() if path.suffix == ".h5ad"}
    assert "cells_instructcell.h5ad" in ours
    again = tmp_path / "again"
    again.mkdir()
    run_again(files["repeat_these_steps.py"], again, cells)
    assert {path.name for path in again.glob("*.h5ad")} == set(ours)
    for name, path in ours.items():
        assert differences(ad.read_h5ad(path), ad.read_h5ad(again / name)) == [], name


def test_two_files_are_both_given_again(cells: Path, tiny_checkpoint: Path, tmp_path: Path) -> None:
    second = tmp_path / "more.h5ad"
    tiny.make_adata(40, seed=3).write_h5ad(second)
    session = Session(checkpoint=load_checkpoint(tiny_checkpoint), folder=tmp_path / "exports")
    for file in (cells, second):
        session.load(file)
        list(session.send("Which cell types are these?"))
    files = exported(session, "export all this")
    again = tmp_path / "again"
    again.mkdir()
    run_again(files["repeat_these_steps.py"], again, cells, second)
    for name in ("cells_instructcell.h5ad", "more_instructcell.h5ad"):
        assert differences(ad.read_h5ad(files[name]), ad.read_h5ad(again / name)) == []
