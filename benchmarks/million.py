"""A file larger than memory: `instructcell annotate` beside only reading it, and beside CellTypist on some cells.

    python benchmarks/million.py                       (or `make bench-million`)
    python benchmarks/million.py --cells 20000 --no-peers

The demo islet cells are tiled into an .h5ad of 1,000,000 cells x 20,000 genes (CSR, gzip, as most files come). Then,
each in a process of its own: reading the matrix in rows and doing nothing with it, and the whole command
`instructcell annotate FILE -o OUT.h5ad`, imports, model, copying and writing included. CellTypist labels 20,000 of the
cells in its own environment (see peers.py), timed without imports, with and without reading and writing its file.
Everything written is removed at the end.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import shutil
import subprocess
import sys
import tempfile
import time
import zlib
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pandas as pd
import scipy.sparse as sp
from anndata import AnnData
from anndata.io import sparse_dataset, write_elem

HERE = Path(__file__).resolve().parent
RESULTS = HERE / "results" / "million.json"
N_CELLS, N_GENES = 1_000_000, 20_000
PEER_CELLS = 20_000
READ_CELLS = 2048  # rows of one read
CHUNK = 131_072  # values of one compressed chunk on disk, about
LEVEL = 4  # of gzip; h5py's own default
BYTES_PER_CELL = 6_000  # of input, and of output, for the check of free space
MOST_GIGABYTES, LEAST_SPEED, LEAST_OF_READING, LEAST_OF_PEER = 4.0, 3000.0, 0.4, 4.0


# ---- the file


def demo_cells(n_genes: int) -> AnnData:
    """The demo islet cells, raw counts over `n_genes` genes, with the authors' types in obs["label"]."""
    from instructcell.cells import read
    from instructcell.resources import demo_path

    cells = read(demo_path("islets"))
    cells = cells[:, : min(n_genes, cells.n_vars)].copy()
    cells.obs["label"] = cells.obs["cell_type"].astype(str)
    return cells


def write_tiled(cells: AnnData, path: Path, n_cells: int) -> None:
    """`cells` over and over up to `n_cells` rows, written as a CSR .h5ad; the tile is compressed once.

    A chunk is a whole part of the tile, so a tile's few last values that fill no chunk are left out.
    """
    tile = sp.csr_matrix(cells.X)
    n_chunks = max(1, round(tile.nnz / CHUNK))
    length = tile.nnz // n_chunks
    values, genes = tile.data[: n_chunks * length], tile.indices[: n_chunks * length].astype(np.int32)
    starts = np.minimum(tile.indptr, n_chunks * length).astype(np.int64)
    n_tiles, n_rest = divmod(n_cells, tile.shape[0])
    with h5py.File(path, "w") as file:
        file.attrs.update({"encoding-type": "anndata", "encoding-version": "0.1.0"})
        group = file.create_group("X")
        shape = np.array([n_cells, tile.shape[1]])
        group.attrs.update({"encoding-type": "csr_matrix", "encoding-version": "0.1.0", "shape": shape})
        total = n_tiles * len(values) + int(starts[n_rest])
        for name, array in (("data", values), ("indices", genes)):
            dataset = group.create_dataset(
                name, (total,), array.dtype, chunks=(length,), compression="gzip", compression_opts=LEVEL
            )
            packed = [zlib.compress(array[i * length : (i + 1) * length].tobytes(), LEVEL) for i in range(n_chunks)]
            for chunk in range(n_tiles * n_chunks):
                dataset.id.write_direct_chunk((chunk * length,), packed[chunk % n_chunks])
            dataset[n_tiles * len(values) :] = array[: starts[n_rest]]
        tiles = (np.arange(n_tiles, dtype=np.int64) * len(values))[:, None] + starts[None, :-1]
        group["indptr"] = np.concatenate([tiles.ravel(), n_tiles * len(values) + starts[: n_rest + 1]])
        names = pd.Index([f"cell{i}" for i in range(n_cells)])
        write_elem(file, "obs", pd.DataFrame({"tile": np.arange(n_cells) // tile.shape[0]}, index=names))
        write_elem(file, "var", pd.DataFrame(index=cells.var_names))
        for name in ("layers", "obsm", "varm", "obsp", "varp", "uns"):
            write_elem(file, name, {})


# ---- what is measured, each in a process of its own


def job_read(path: Path) -> dict[str, Any]:
    """Seconds to read every row of X and do nothing with it."""
    started = time.perf_counter()
    with h5py.File(path, "r") as file:
        matrix = sparse_dataset(file["X"])
        for start in range(0, matrix.shape[0], READ_CELLS):
            matrix[start : start + READ_CELLS]
    return {"seconds": time.perf_counter() - started}


def run_measured(command: list[str]) -> tuple[float, float]:
    """Seconds and peak resident memory in GB of a command; its standard output goes away."""
    from speed import gigabytes

    started = time.perf_counter()
    process = subprocess.Popen([sys.executable, *command], stdout=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        sys.exit(f"{' '.join(command)} ended with exit code {process.returncode}; its message stands above")
    return time.perf_counter() - started, gigabytes(usage.ru_maxrss)


def read_seconds(path: Path) -> float:
    """`job_read` in a fresh process."""
    done = subprocess.run([sys.executable, __file__, "--job", str(path)], check=True, stdout=subprocess.PIPE, text=True)
    return float(json.loads(done.stdout)["seconds"])


def check_annotated(path: Path, n_cells: int) -> dict[str, int | str]:
    """The result holds a label for every cell: how many types there are and which engine named them."""
    from anndata.io import read_elem

    with h5py.File(path, "r") as file:
        types = read_elem(file["obs/instructcell_cell_type"])
        engine = read_elem(file["uns/instructcell/arguments/engine"])
        if len(types) != n_cells or file["obsm/X_instructcell"].shape[0] != n_cells:
            sys.exit(f"{path.name} holds results of {len(types):,} cells, expected {n_cells:,}")
    return {"types": len(types.categories), "engine": str(engine)}


def measure(n_cells: int, n_genes: int, model: str, engine: str, folder: Path, *, peers: bool) -> dict[str, Any]:
    """Write the file, read it, annotate it, read it again, and ask CellTypist about some of its cells."""
    source, output = folder / "cells.h5ad", folder / "annotated.h5ad"
    cells = demo_cells(n_genes)
    say(f"writing {n_cells:,} cells x {cells.n_vars:,} genes")
    write_tiled(cells, source, n_cells)
    say("only reading")
    reading = [read_seconds(source)]
    say("instructcell annotate")
    command = ["-m", "instructcell.cli", "annotate", str(source), "-o", str(output), "--quiet"]
    seconds, peak = run_measured([*command, "--model", model, "--engine", engine])
    found = check_annotated(output, n_cells)
    output.unlink()
    say("only reading, once more")
    reading.append(read_seconds(source))
    result: dict[str, Any] = {
        "cells": n_cells,
        "genes": cells.n_vars,
        "values_per_cell": round(sp.csr_matrix(cells.X).nnz / cells.n_obs),
        "gigabytes": round(source.stat().st_size / 1024**3, 2),
        **found,
        "annotate": {
            "seconds": round(seconds, 1),
            "cells_per_second": round(n_cells / seconds),
            "peak_gigabytes": round(peak, 2),
        },
        "only_read": {
            "seconds": [round(one, 1) for one in reading],
            "cells_per_second": round(n_cells / min(reading)),
        },
    }
    result["share_of_reading_speed"] = round(min(reading) / seconds, 3)
    if peers:
        say(f"CellTypist on {min(PEER_CELLS, n_cells):,} of the cells")
        result["celltypist"] = celltypist(cells, source, folder)
        for name in ("", "_file_to_file"):
            speed = result["celltypist"][f"cells_per_second{name}"]
            result[f"times_celltypist{name}"] = round(result["annotate"]["cells_per_second"] / speed, 2)
    return result


def celltypist(known: AnnData, source: Path, folder: Path) -> dict[str, Any]:
    """CellTypist trained on the demo cells, on the first cells of the file."""
    from peers import make_environment, run_celltypist

    make_environment(with_scvi=False)
    with h5py.File(source, "r") as file:
        counts = sparse_dataset(file["X"])[:PEER_CELLS]
    unseen = AnnData(counts, var=known.var[[]])
    unseen.obs["label"] = ""
    answers = run_celltypist(known, unseen, "the demo cells", folder)
    return {
        "tool": answers.tool,
        "cells": unseen.n_obs,
        "seconds": round(answers.seconds, 2),
        "cells_per_second": round(unseen.n_obs / answers.seconds),
        "cells_per_second_file_to_file": round(unseen.n_obs / answers.file_seconds),
    }


# ---- what comes out


def describe(model: str) -> dict[str, Any]:
    """Which checkpoint, on which machine."""
    import torch

    from instructcell import __version__
    from instructcell.checkpoint import load_checkpoint

    return {
        "instructcell": __version__,
        "checkpoint": load_checkpoint(model).hash,
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "load": round(os.getloadavg()[0], 1),
        "python": platform.python_version(),
        "torch": torch.__version__,
    }


def markdown(found: dict[str, Any]) -> str:
    annotate, reading = found["annotate"], found["only_read"]
    rows = [
        ("peak resident memory, GB", annotate["peak_gigabytes"], f"< {MOST_GIGABYTES:g}"),
        ("cells/s, whole command", annotate["cells_per_second"], f">= {LEAST_SPEED:,.0f}"),
        ("cells/s, only reading", reading["cells_per_second"], ""),
        ("share of the reading speed", found["share_of_reading_speed"], f">= {LEAST_OF_READING:g}"),
    ]
    if "celltypist" in found:
        peer = found["celltypist"]
        about = f"{peer['tool']} on {peer['cells']:,} of them"
        rows += [
            (f"cells/s, {about}, file to file", peer["cells_per_second_file_to_file"], ""),
            ("times CellTypist, file to file", found["times_celltypist_file_to_file"], f">= {LEAST_OF_PEER:g}"),
            (f"cells/s, {about}, from memory, labels only", peer["cells_per_second"], ""),
            ("times CellTypist that neither reads nor writes", found["times_celltypist"], ""),
        ]
    head = (
        f"{found['cells']:,} cells x {found['genes']:,} genes, {found['gigabytes']:g} GB, engine {found['engine']}, "
        f"{found['cores']} CPU cores, load before {found['load']}, checkpoint {found['checkpoint'][:16]}."
    )
    lines = [f"| {what} | {value:,} | {goal} |" for what, value, goal in rows]
    return "\n".join([head, "", "| what | measured | goal |", "|---|---|---|", *lines])


def say(text: str) -> None:
    print(f"... {text}", file=sys.stderr, flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description="Annotate a file larger than memory.")
    parser.add_argument("--cells", type=int, default=N_CELLS, help="how many cells to tile")
    parser.add_argument("--genes", type=int, default=N_GENES, help="how many genes they have")
    parser.add_argument("--model", default="mini", help="name or folder of a checkpoint")
    parser.add_argument("--engine", default="auto", help="as for instructcell annotate")
    parser.add_argument("--folder", type=Path, help="where to write; must have room (a temporary folder by default)")
    parser.add_argument("--no-peers", action="store_true", help="leave CellTypist out")
    parser.add_argument("--json", action="store_true", help="print JSON and no table")
    parser.add_argument("--job", type=Path, help=argparse.SUPPRESS)
    chosen = parser.parse_args()
    if chosen.job:
        print(json.dumps(job_read(chosen.job)))
        return
    about = describe(chosen.model)
    with tempfile.TemporaryDirectory(prefix="instructcell-million-", dir=chosen.folder) as name:
        free, needed = shutil.disk_usage(name).free, 2 * BYTES_PER_CELL * chosen.cells
        if free < needed:
            sys.exit(f"{name} has {free / 1024**3:.1f} GB free, {needed / 1024**3:.1f} are needed; give --folder")
        found = measure(
            chosen.cells, chosen.genes, chosen.model, chosen.engine, Path(name), peers=not chosen.no_peers
        )
    result = {**about, **found}
    content = json.dumps(result, indent=1)
    if chosen.cells == N_CELLS:
        RESULTS.parent.mkdir(parents=True, exist_ok=True)
        RESULTS.write_text(content + "\n", encoding="utf-8")
    print(content if chosen.json else markdown(result))


if __name__ == "__main__":
    main()
