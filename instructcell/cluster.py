"""Atlases on many machines: blocks of cells fan out over Ray Data, each block becomes one part, parts become one table.

    shards (zarr or .h5ad) -> blocks -> workers, each with the checkpoint -> OUTPUT/parts/*.csv.gz -> cell_types.csv.gz

A part is named after its block and appears whole or not at all. A worker that dies has its block done by another one,
which writes the same part; a run that is started again does what is missing. So no cell is lost, and none is doubled.
"""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from anndata import AnnData

from instructcell import tools
from instructcell.batches import Reading
from instructcell.cells import read
from instructcell.doctor import DatasetReport
from instructcell.errors import ConfigError, InstructCellError
from instructcell.tasks import choose_engine

BLOCK_CELLS = 8192
PARTS, TABLE = "parts", "cell_types.csv.gz"
COLUMNS = ("cell_type", "cell_type_id", "confidence")
RETRIES = 3  # of a block whose worker died


@dataclass(frozen=True)
class Block:
    """Cells `start` to `stop` of a shard, and the file that their part becomes."""

    shard: str
    start: int
    stop: int
    part: str


@dataclass(frozen=True)
class Job:
    """What every worker must know."""

    output: str
    checkpoint: str = "mini"
    engine: str = "readout"
    tissue: str | None = None
    reading: Reading = Reading()


def annotate_shards(
    shards: Sequence[str | Path],
    output: str | Path,
    *,
    workers: int = 2,
    checkpoint: str = "mini",
    engine: str = "auto",
    tissue: str | None = None,
    reading: Reading | None = None,
    block_cells: int = BLOCK_CELLS,
    worker: type | None = None,
) -> Path:
    """Name the type of every cell of an atlas on a Ray cluster; what an earlier run finished is not done again.

    Parameters
    ----------
    shards
        Zarr folders or .h5ad files, at paths that every machine sees.
    output
        Folder of the parts and of the table.
    workers
        Processes that hold a checkpoint each.
    checkpoint
        Name or folder of a checkpoint.
    engine
        As for `ic.tl.annotate`, decided by the number of cells of the whole atlas.
    worker
        Class of the workers, `BlockAnnotator` or one made from it.

    Returns
    -------
    Path
        `cell_types.csv.gz`: shard, cell, cell_type, cell_type_id, confidence, in the order of the shards.

    Raises
    ------
    ConfigError
        Ray is not installed, or the folder holds parts of another run.
    InstructCellError
        A block stayed without its part; the others are kept.

    Examples
    --------
    >>> annotate_shards(sorted(Path("atlas").glob("*.zarr")), "named", workers=16)  # doctest: +SKIP
    """
    ray = require_ray()
    output = Path(output).resolve()
    (output / PARTS).mkdir(parents=True, exist_ok=True)
    blocks = plan(shards, block_cells)
    n_cells = sum(block.stop - block.start for block in blocks)
    loaded = tools.open_checkpoint(checkpoint)
    engine = choose_engine(engine, loaded, n_cells)
    job = Job(str(output), checkpoint, engine, tissue, reading or Reading())
    _same_job(output, {**asdict(job), "output": "", "hash": loaded.hash, "blocks": [block.part for block in blocks]})
    waiting = [block for block in blocks if not (output / PARTS / block.part).is_file()]
    if waiting:
        _fan_out(ray, waiting, job, min(workers, len(waiting)), worker or BlockAnnotator)
    return gather(blocks, output)


def _same_job(output: Path, said: dict[str, Any]) -> None:
    """Note what the parts are made with; refuse a folder whose parts were made with something else."""
    path, text = output / "job.json", json.dumps(said, sort_keys=True)
    if path.is_file() and path.read_text(encoding="utf-8") != text:
        raise ConfigError(
            f"{output} holds parts of another run (other shards, checkpoint or options); give another folder"
        )
    path.write_text(text, encoding="utf-8")


def _fan_out(ray: Any, blocks: Sequence[Block], job: Job, workers: int, worker: type) -> None:
    # Only names go in and numbers come out: cells and results never travel through the object store.
    data = ray.data.from_items([asdict(block) for block in blocks], override_num_blocks=len(blocks))
    done = data.map_batches(
        worker,
        fn_constructor_args=(job,),
        batch_size=1,
        compute=ray.data.ActorPoolStrategy(size=workers),
        num_cpus=1,
        max_restarts=-1,
        max_task_retries=RETRIES,
    )
    for _ in done.iter_batches(batch_size=None):
        pass


class BlockAnnotator:
    """A worker: holds the checkpoint, and turns blocks into parts."""

    def __init__(self, job: Job) -> None:
        self.job = job
        self.checkpoint = tools.open_checkpoint(job.checkpoint)

    def __call__(self, batch: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        rows = zip(batch["shard"], batch["start"], batch["stop"], batch["part"], strict=True)
        blocks = [Block(str(shard), int(start), int(stop), str(part)) for shard, start, stop, part in rows]
        for block in blocks:
            self.annotate(block)
        return {"cells": np.array([block.stop - block.start for block in blocks])}

    def annotate(self, block: Block) -> None:
        """Write the part of a block."""
        adata, report = _opened(block.shard, str(self.checkpoint.path), self.job.reading)
        steps = tools.annotate_steps(
            adata,
            checkpoint=self.checkpoint,
            tissue=self.job.tissue,
            reading=self.job.reading,
            engine=self.job.engine,
            rows=np.arange(block.start, block.stop),
            report=report,
        )
        table = tools.finish(steps).table[list(COLUMNS)]
        table.insert(0, "cell", table.index.astype(str))
        table.insert(0, "shard", Path(block.shard).name)
        write_part(table, Path(self.job.output) / PARTS / block.part)


@lru_cache(maxsize=4)
def _opened(shard: str, checkpoint: str, reading: Reading) -> tuple[AnnData, DatasetReport]:
    """A shard and the doctor's report on the whole of it, once per worker."""
    adata = read(shard, backed=True)
    return adata, tools.look_at(adata, tools.open_checkpoint(checkpoint), reading)


def plan(shards: Sequence[str | Path], block_cells: int = BLOCK_CELLS) -> list[Block]:
    """Every cell of every shard in exactly one block.

    Raises
    ------
    InstructCellError
        There is no shard, or one is named twice.
    """
    paths = [Path(shard).resolve() for shard in shards]
    if not paths or len(set(paths)) != len(paths):
        raise InstructCellError(f"found {len(paths)} shards, {len(set(paths))} of them different; name each shard once")
    blocks = []
    for number, path in enumerate(paths):
        n_cells = read(path, backed=True).n_obs
        for start in range(0, n_cells, block_cells):
            stop = min(start + block_cells, n_cells)
            blocks.append(Block(str(path), start, stop, f"{number:05d}-{path.stem}-{start:010d}-{stop:010d}.csv.gz"))
    return blocks


def write_part(table: pd.DataFrame, path: Path) -> None:
    """A table in its place, whole or not at all."""
    with tempfile.NamedTemporaryFile(dir=path.parent, suffix=".partial", delete=False) as file:
        name = file.name
    table.to_csv(name, index=False, compression="gzip")
    os.replace(name, path)


def gather(blocks: Sequence[Block], output: Path) -> Path:
    """All parts as one table, after the count of cells of every part.

    Raises
    ------
    InstructCellError
        A part is missing or holds another number of cells than its block.
    """
    missing = [block.part for block in blocks if not (output / PARTS / block.part).is_file()]
    if missing:
        raise InstructCellError(
            f"{len(missing)} of {len(blocks)} blocks have no result yet (first {missing[0]}); run again to do them"
        )
    tables = []
    for block in blocks:
        part = pd.read_csv(output / PARTS / block.part, dtype=str, keep_default_na=False)
        if len(part) != block.stop - block.start:
            raise InstructCellError(
                f"{block.part} holds {len(part)} cells, expected {block.stop - block.start}; delete it and run again"
            )
        tables.append(part)
    write_part(pd.concat(tables, ignore_index=True), output / TABLE)
    return output / TABLE


def require_ray() -> Any:
    """Ray with Ray Data; a ConfigError that names the extra where it is not installed."""
    try:
        import ray
        import ray.data
    except ImportError as error:
        raise ConfigError(
            f"annotation on a cluster needs Ray ({error}); install it with: pip install 'instructcell[cluster]'"
        ) from error
    return ray
