"""Peers in their own environment: CellTypist and scANVI for labels, scVI for pseudo-cells.

They are run only when asked for (`--peers`), with the Python of an environment that holds them (`make bench-peers`
makes one in .venv-peers); this package never imports them. What they answered to the same cells is kept in the run
folder, so that a table shows them without running them again.
"""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from anndata import AnnData, read_h5ad
from scipy import sparse

from instructcell.errors import ConfigError

ENVIRONMENT = Path(".venv-peers")
SCRIPT = Path(__file__).with_name("run_peer.py")
ANNOTATORS = ("CellTypist", "scANVI")
NOT_RUN = "not run"


def find_environment(folder: str | Path = ENVIRONMENT) -> Path:
    """The Python of the peers' environment.

    Raises
    ------
    ConfigError
        There is none.
    """
    python = Path(folder) / ("Scripts/python.exe" if sys.platform == "win32" else "bin/python")
    if not python.exists():
        raise ConfigError(
            f"no peers in {folder}: expected {python}. Make them with `make bench-peers ARGS=--scvi`, or leave out "
            "--peers."
        )
    return python


def annotate(
    python: Path | None,
    counts: sparse.csr_matrix,
    labels: np.ndarray,
    test: sparse.csr_matrix,
    genes: Sequence[str],
    kept: Path,
) -> dict[str, np.ndarray] | None:
    """Labels of the test cells by each peer, trained on counts [M, G] with labels [M]; those in `kept` first.

    None where nothing is kept and no Python of theirs is given.
    """
    path = kept / f"labels-{_key(counts, labels, test, np.array(genes))}.json"
    if not path.is_file():
        if python is None:
            return None
        said = ask(python, counts, labels, test, genes)
        _write(path, lambda to: to.write_text(json.dumps({peer: said[peer]["labels"] for peer in ANNOTATORS})))
    answers = json.loads(path.read_text(encoding="utf-8"))
    return {peer: np.array(answers[peer]) for peer in ANNOTATORS}


def ask(
    python: Path,
    counts: sparse.csr_matrix,
    labels: np.ndarray,
    test: sparse.csr_matrix,
    genes: Sequence[str],
) -> dict[str, dict[str, Any]]:
    """What `run_peer.py` says of each peer: labels of the test cells, seconds and memory."""
    answers = {}
    with tempfile.TemporaryDirectory(prefix="instructcell-peers-") as name:
        train, unseen, out = (Path(name) / file for file in ("train.h5ad", "test.h5ad", "out.json"))
        _adata(counts, genes, labels).write_h5ad(train)
        _adata(test, genes, np.full(test.shape[0], "")).write_h5ad(unseen)
        for peer in ANNOTATORS:
            run(python, peer.lower(), train, unseen, out)
            answers[peer] = json.loads(out.read_text(encoding="utf-8"))
    return answers


def generate(
    python: Path | None,
    counts: sparse.csr_matrix,
    labels: np.ndarray,
    asked: np.ndarray,
    epochs: int,
    seed: int,
    kept: Path,
) -> dict[str, sparse.csr_matrix] | None:
    """scVI's cells of the types asked for [N]: from its prior, and around its training cells (posterior predictive).

    Those in the folder `kept` first; None where nothing is kept and no Python of scVI's is given.
    """
    key = _key(counts, labels, asked, np.array([epochs, seed]))
    paths = {source: kept / f"scvi-{source}-{key}.npz" for source in ("prior", "posterior")}
    if python is not None and not all(path.is_file() for path in paths.values()):
        for source, cells in _generated(python, counts, labels, asked, epochs, seed).items():
            _write(paths[source], lambda to, cells=cells: sparse.save_npz(to, cells))
    if not all(path.is_file() for path in paths.values()):
        return None
    return {source: sparse.load_npz(path).tocsr() for source, path in paths.items()}


def _key(*given: sparse.csr_matrix | np.ndarray) -> str:
    """What was given, as a short hash."""
    found = hashlib.sha256()
    for part in given:
        if sparse.issparse(part):
            rows = sparse.csr_matrix(part)
            found.update(repr(rows.shape).encode() + rows.indices.tobytes() + rows.data.tobytes())
        else:
            found.update("\n".join(map(str, part)).encode())
    return found.hexdigest()[:16]


def _write(path: Path, write: Callable[[Path], object]) -> None:
    """A file that is there whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_name(f"unfinished-{path.name}")
    write(unfinished)
    unfinished.replace(path)


def _generated(
    python: Path, counts: sparse.csr_matrix, labels: np.ndarray, asked: np.ndarray, epochs: int, seed: int
) -> dict[str, sparse.csr_matrix]:
    made = {}
    with tempfile.TemporaryDirectory(prefix="instructcell-peers-") as name:
        train, wanted, out = (Path(name) / file for file in ("train.h5ad", "asked.json", "out.h5ad"))
        _adata(counts, [f"gene{j}" for j in range(counts.shape[1])], labels).write_h5ad(train)
        wanted.write_text(json.dumps(asked.tolist()), encoding="utf-8")
        run(python, "scvi", train, wanted, out, "--epochs", str(epochs), "--seed", str(seed), "--both")
        found = read_h5ad(out)
        made["prior"] = sparse.csr_matrix(found.X)
        made["posterior"] = sparse.csr_matrix(found.layers["posterior"])
    return made


def run(python: Path, *arguments: str | Path) -> None:
    """`run_peer.py` in the peers' environment; its own words go to stderr."""
    subprocess.run([python, SCRIPT, *arguments], check=True, stdout=sys.stderr)


def _adata(counts: sparse.csr_matrix, genes: Sequence[str], labels: np.ndarray) -> AnnData:
    names = [f"cell{i}" for i in range(counts.shape[0])]
    obs, var = pd.DataFrame({"label": labels}, index=names), pd.DataFrame(index=list(genes))
    return AnnData(sparse.csr_matrix(counts, dtype=np.float32), obs=obs, var=var)
