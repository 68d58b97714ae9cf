"""Annotation on a cluster: the plan, the parts, and a local Ray whose workers die half-way."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import tiny

from instructcell import cluster, tools
from instructcell.cells import read
from instructcell.cluster import PARTS, Block, BlockAnnotator, Job, annotate_shards, gather, plan
from instructcell.errors import ConfigError, InstructCellError


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    folder = tmp_path_factory.mktemp("atlas")
    for number, n_cells in enumerate((25, 14)):
        adata = tiny.make_adata(n_cells, seed=number)
        adata.obs_names = [f"s{number}-{name}" for name in adata.obs_names]
        adata.write_zarr(folder / f"shard{number}.zarr")
    return sorted(folder.glob("*.zarr"))


def test_every_cell_is_in_one_block(shards: list[Path]) -> None:
    blocks = plan(shards, 10)
    assert [(Path(b.shard).name, b.start, b.stop) for b in blocks] == [
        ("shard0.zarr", 0, 10), ("shard0.zarr", 10, 20), ("shard0.zarr", 20, 25),
        ("shard1.zarr", 0, 10), ("shard1.zarr", 10, 14),
    ]  # fmt: skip
    assert len({block.part for block in blocks}) == 5
    with pytest.raises(InstructCellError, match="name each shard once"):
        plan([shards[0], shards[0]])


def test_the_parts_of_all_blocks_are_the_annotation_of_the_shards(
    shards: list[Path], tiny_checkpoint: Path, tmp_path: Path
) -> None:
    (tmp_path / PARTS).mkdir()
    worker = BlockAnnotator(Job(str(tmp_path), str(tiny_checkpoint), engine="lm"))
    blocks = plan(shards, 10)
    with pytest.raises(InstructCellError, match="5 of 5 blocks have no result yet"):
        gather(blocks, tmp_path)
    columns = {
        name: np.array([getattr(block, name) for block in blocks]) for name in ("shard", "start", "stop", "part")
    }
    assert worker(columns)["cells"].tolist() == [10, 10, 5, 10, 4]
    found = pd.read_csv(gather(blocks, tmp_path), keep_default_na=False)
    expected = [tools.annotate(read(shard), checkpoint=tiny_checkpoint).table for shard in shards]
    assert found["cell"].tolist() == [name for table in expected for name in table.index]
    assert found["cell_type"].tolist() == [name for table in expected for name in table["cell_type"]]
    first = tmp_path / PARTS / blocks[0].part
    pd.read_csv(first).iloc[1:].to_csv(first, index=False)
    with pytest.raises(InstructCellError, match="holds 9 cells, expected 10; delete it"):
        gather(blocks, tmp_path)


def test_without_ray_the_extra_is_named(monkeypatch: pytest.MonkeyPatch, shards: list[Path], tmp_path: Path) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(ConfigError, match=r"pip install 'instructcell\[cluster\]'"):
        annotate_shards(shards, tmp_path)


class Mortal(BlockAnnotator):
    """A worker that dies once before it has written the part of one block, and once after it wrote that of another."""

    def annotate(self, block: Block) -> None:
        self._die_once("before", block, 10)
        super().annotate(block)
        self._die_once("after", block, 20)

    def _die_once(self, when: str, block: Block, start: int) -> None:
        mark = Path(self.job.output) / f"died-{when}"
        if block.start == start and not mark.exists():
            mark.touch()
            os._exit(1)


@pytest.mark.slow
def test_workers_that_die_lose_no_cell_and_double_none(
    shards: list[Path], tiny_checkpoint: Path, tmp_path: Path
) -> None:
    ray = pytest.importorskip("ray", reason="Ray is not installed: pip install 'instructcell[cluster]'")
    pytest.importorskip("ray.data", reason="Ray Data is not installed: pip install 'instructcell[cluster]'")
    from ray import cloudpickle

    paths = os.pathsep.join([*(path for path in sys.path if path), os.environ.get("PYTHONPATH", "")])
    ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False, runtime_env={"env_vars": {"PYTHONPATH": paths}})
    try:
        cloudpickle.register_pickle_by_value(sys.modules[__name__])
        table = annotate_shards(
            shards, tmp_path, workers=2, checkpoint=str(tiny_checkpoint), engine="lm", block_cells=10, worker=Mortal
        )
    finally:
        ray.shutdown()
    assert (tmp_path / "died-before").exists() and (tmp_path / "died-after").exists()
    found = pd.read_csv(table, keep_default_na=False)
    names = [name for shard in shards for name in read(shard).obs_names]
    assert found["cell"].tolist() == names and len(list((tmp_path / PARTS).iterdir())) == 5


def test_a_finished_atlas_is_gathered_without_new_work(
    shards: list[Path], tiny_checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / PARTS).mkdir()
    worker = BlockAnnotator(Job(str(tmp_path), str(tiny_checkpoint), engine="lm"))
    for block in plan(shards, 20):
        worker.annotate(block)
    monkeypatch.setattr(cluster, "require_ray", lambda: None)  # would fail if a block were handed to it
    table = annotate_shards(shards, tmp_path, checkpoint=str(tiny_checkpoint), engine="lm", block_cells=20)
    assert len(pd.read_csv(table)) == 39
    with pytest.raises(ConfigError, match="parts of another run"):
        annotate_shards(shards, tmp_path, checkpoint=str(tiny_checkpoint), engine="lm", block_cells=10)
