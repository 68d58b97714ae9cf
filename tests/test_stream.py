"""Files larger than memory: the same numbers as in memory, and an interrupted run that goes on."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from dataclasses import replace
from pathlib import Path

import anndata as ad
import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp
import tiny

from instructcell import batches, stream, tools
from instructcell.batches import Reading
from instructcell.checkpoint import load_checkpoint
from instructcell.errors import GeneAlignmentError, InstructCellError, MatrixError
from instructcell.output import OutputError

N_CELLS = 90


@pytest.fixture(scope="module")
def checkpoint(tiny_checkpoint):
    return load_checkpoint(tiny_checkpoint)


@pytest.fixture
def cells(tmp_path: Path) -> Path:
    """A file with everything a file may hold."""
    return write_cells(tmp_path / "cells.h5ad")


@pytest.fixture(autouse=True)
def small_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pieces, reads and parts of a few cells, so that a small file has many of each."""
    monkeypatch.setattr(batches, "READ_CELLS", 16)
    monkeypatch.setattr(stream, "PART_CELLS", 16)


def write_cells(path: Path, n_cells: int = N_CELLS) -> Path:
    adata = tiny.make_adata(n_cells)
    adata.X = sp.csr_matrix(adata.X)
    adata.layers["counts"] = adata.X.copy()
    adata.obs["donor"] = pd.Categorical(np.resize(["d1", "d2"], n_cells))
    adata.uns["note"] = {"nested": {"by": "a user"}}
    adata.obsm["X_pca"] = np.random.default_rng(0).normal(size=(n_cells, 3))
    adata.write_h5ad(path, compression="gzip")
    return path


def results(path: Path) -> dict[str, np.ndarray]:
    """Everything a tool wrote, as arrays."""
    adata = ad.read_h5ad(path)
    columns = {name: adata.obs[name].to_numpy() for name in adata.obs if name.startswith("instructcell")}
    return columns | {name: adata.obsm[name] for name in adata.obsm if name.startswith("X_instructcell")}


def assert_same(one: dict[str, np.ndarray], other: dict[str, np.ndarray]) -> None:
    """Equal to the last bit."""
    assert one and one.keys() == other.keys()
    for name, values in one.items():
        assert values.dtype == other[name].dtype
        np.testing.assert_array_equal(values, other[name], err_msg=name)


class Broken(Exception):
    """The machine went down."""


def break_off(after: int, error: type[BaseException] = Broken):
    """Let the scoring end with an error after so many pieces."""
    score, seen = tools.scored, []

    def scored(*arguments, **settings):
        for item in score(*arguments, **settings):
            yield item
            seen.append(item)
            if len(seen) == after:
                raise error

    patch = pytest.MonkeyPatch()
    patch.setattr(tools, "scored", scored)
    return patch


# ---- the same numbers


@pytest.mark.parametrize("batch_size", [7, 16, 256])
def test_annotation_from_disk_equals_annotation_in_memory_bit_for_bit(cells, checkpoint, tmp_path, batch_size):
    adata = ad.read_h5ad(cells)
    inside = tools.annotate(adata, checkpoint=checkpoint, tissue="PBMC", batch_size=batch_size)
    adata.write_h5ad(tmp_path / "memory.h5ad")
    outside = stream.annotate(
        cells, tmp_path / "disk.h5ad", checkpoint=checkpoint, tissue="PBMC", batch_size=batch_size
    )
    assert_same(results(tmp_path / "disk.h5ad"), results(tmp_path / "memory.h5ad"))
    pd.testing.assert_frame_equal(outside.table, inside.table)
    written, kept = (ad.read_h5ad(tmp_path / f"{name}.h5ad").uns["instructcell"] for name in ("disk", "memory"))
    assert json.dumps(written, default=str, sort_keys=True) == json.dumps(kept, default=str, sort_keys=True)


def test_embedding_and_drug_response_from_disk_equal_those_in_memory(cells, checkpoint, tmp_path):
    adata = ad.read_h5ad(cells)
    tools.embed(adata, checkpoint=checkpoint, batch_size=8)
    stream.embed(cells, tmp_path / "embedded.h5ad", checkpoint=checkpoint, batch_size=8)
    tools.drug_response(adata, drug="gefitinib", checkpoint=checkpoint, batch_size=8)
    stream.drug_response(cells, tmp_path / "drug.h5ad", drug="gefitinib", checkpoint=checkpoint, batch_size=8)
    embedded, drug = results(tmp_path / "embedded.h5ad"), results(tmp_path / "drug.h5ad")
    adata.write_h5ad(tmp_path / "memory.h5ad")
    assert_same(embedded | drug, results(tmp_path / "memory.h5ad"))


def test_what_a_user_says_of_the_file_reaches_the_doctor(cells, checkpoint, tmp_path):
    stream.annotate(
        cells, tmp_path / "out.h5ad", checkpoint=checkpoint, reading=Reading(layer="counts", species="mouse")
    )
    arguments = ad.read_h5ad(tmp_path / "out.h5ad").uns["instructcell"]["arguments"]
    assert (arguments["layer"], arguments["species"]) == ("counts", "mouse")
    with pytest.raises(MatrixError, match="no such layer"):
        stream.annotate(cells, checkpoint=checkpoint, reading=Reading(layer="no such layer"))


def test_without_an_output_nothing_is_written(cells, checkpoint, tmp_path):
    result = stream.annotate(cells, checkpoint=checkpoint)
    assert len(result.table) == N_CELLS
    assert [path.name for path in tmp_path.iterdir()] == ["cells.h5ad"]


def test_a_value_that_is_no_number_is_found_where_it_is_read_and_leaves_nothing(
    cells, checkpoint, tmp_path, monkeypatch
):
    report = tools.inspect(ad.read_h5ad(cells), genes=checkpoint.processor.genes)
    adata = ad.read_h5ad(cells)
    adata.X[50, 3] = np.nan
    adata.write_h5ad(cells)
    monkeypatch.setattr(tools, "look", lambda *_: report)  # as if only a part had been looked at
    with pytest.raises(MatrixError, match=r"cell50 \(row 50\)"):
        stream.annotate(cells, tmp_path / "out.h5ad", checkpoint=checkpoint, batch_size=8)
    assert [path.name for path in tmp_path.iterdir()] == ["cells.h5ad"]


def test_a_very_large_file_is_judged_by_a_part_and_annotated_as_a_whole(cells, checkpoint, monkeypatch):
    whole = stream.annotate(cells, checkpoint=checkpoint)
    monkeypatch.setattr(batches, "SURVEY_CELLS", 40)
    monkeypatch.setattr(batches, "SURVEY_BLOCKS", 4)
    part = stream.annotate(cells, checkpoint=checkpoint)
    assert part.report.evidence["cells_examined"] == 40
    assert any("judged by 40 of its 90 cells" in warning for warning in part.report.warnings)
    assert (part.report.n_cells, part.report.matrix) == (N_CELLS, whole.report.matrix)
    pd.testing.assert_frame_equal(part.table, whole.table)


# ---- interruptions


@pytest.mark.parametrize("after", [1, 5, 9])
def test_an_interrupted_run_goes_on_to_the_result_of_an_uninterrupted_one(
    cells, checkpoint, tmp_path, monkeypatch, after
):
    stream.annotate(cells, tmp_path / "whole.h5ad", checkpoint=checkpoint, batch_size=8)
    output = tmp_path / "out.h5ad"
    patch = break_off(after)
    with pytest.raises(Broken):
        stream.annotate(cells, output, checkpoint=checkpoint, batch_size=8)
    patch.undo()
    assert not output.exists()
    seen = []
    stream.annotate(
        cells, output, checkpoint=checkpoint, batch_size=8, resume=True, progress=lambda *step: seen.append(step)
    )
    assert seen[0][0] == after * 8  # it did not begin anew
    assert_same(results(output), results(tmp_path / "whole.h5ad"))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["cells.h5ad", "out.h5ad", "whole.h5ad"]


def test_a_damaged_part_and_those_behind_it_are_made_again(cells, checkpoint, tmp_path, monkeypatch):
    stream.embed(cells, tmp_path / "whole.h5ad", checkpoint=checkpoint, batch_size=8)
    patch = break_off(8)
    with pytest.raises(Broken):
        stream.embed(cells, tmp_path / "out.h5ad", checkpoint=checkpoint, batch_size=8)
    patch.undo()
    parts = sorted((tmp_path / "out.h5ad.partial").glob("part-*.npz"))
    assert len(parts) == 4
    parts[1].write_bytes(parts[1].read_bytes()[:50])
    (tmp_path / "out.h5ad.partial" / "part-000000000064-000000000080.unfinished").write_bytes(b"half")
    seen = []
    stream.embed(
        cells,
        tmp_path / "out.h5ad",
        checkpoint=checkpoint,
        batch_size=8,
        resume=True,
        progress=lambda *step: seen.append(step),
    )
    assert seen[0][0] == 16
    assert_same(results(tmp_path / "out.h5ad"), results(tmp_path / "whole.h5ad"))


@pytest.mark.parametrize("change", ["input", "arguments"])
def test_another_input_or_other_arguments_cannot_be_continued(cells, checkpoint, tmp_path, monkeypatch, change):
    patch = break_off(3)
    with pytest.raises(Broken):
        stream.annotate(cells, tmp_path / "out.h5ad", checkpoint=checkpoint, batch_size=8)
    patch.undo()
    labels = None
    if change == "input":
        write_cells(cells, N_CELLS - 1)
    else:
        labels = ["B cell", "T cell"]
    with pytest.raises(OutputError, match="holds another run.*without --resume") as refusal:
        stream.annotate(
            cells, tmp_path / "out.h5ad", checkpoint=checkpoint, batch_size=8, labels=labels, resume=True
        )
    assert ("labels" in str(refusal.value)) == (change == "arguments")
    stream.annotate(cells, tmp_path / "out.h5ad", checkpoint=checkpoint, batch_size=8, labels=labels)
    assert ad.read_h5ad(tmp_path / "out.h5ad").n_obs == (N_CELLS - 1 if change == "input" else N_CELLS)


def test_a_file_that_is_refused_leaves_nothing(checkpoint, tmp_path):
    adata = tiny.make_adata(20)
    adata.var_names = [f"thing{i}" for i in range(adata.n_vars)]
    adata.write_h5ad(tmp_path / "cells.h5ad")
    with pytest.raises(GeneAlignmentError, match="0 of 200 model genes"):
        stream.annotate(tmp_path / "cells.h5ad", tmp_path / "out.h5ad", checkpoint=checkpoint)
    assert [path.name for path in tmp_path.iterdir()] == ["cells.h5ad"]


def test_a_folder_of_other_files_is_never_removed(cells, checkpoint, tmp_path):
    folder = tmp_path / "out.h5ad.partial"
    folder.mkdir()
    (folder / "thesis.txt").write_text("years of work")
    with pytest.raises(OutputError, match="other files"):
        stream.embed(cells, tmp_path / "out.h5ad", checkpoint=checkpoint)
    assert (folder / "thesis.txt").read_text() == "years of work"


def test_ctrl_c_leaves_no_broken_file_and_the_reader_ends(cells, checkpoint, tmp_path, monkeypatch):
    patch = break_off(2, KeyboardInterrupt)
    with pytest.raises(KeyboardInterrupt):
        stream.embed(cells, tmp_path / "out.h5ad", checkpoint=checkpoint, batch_size=8)
    patch.undo()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["cells.h5ad", "out.h5ad.partial"]
    for thread in threading.enumerate():
        if thread.name == "instructcell-reader":
            thread.join(timeout=120)
            assert not thread.is_alive()


STUCK_RUN = """
import sys
from instructcell import batches, stream, tasks
batches.READ_CELLS = stream.PART_CELLS = 16
score, scored = tasks.Annotation.score, []
def stuck(self, cells):
    scored.append(cells)
    if len(scored) == 6:
        print("stuck", flush=True)
        sys.stdin.read()  # until the process is killed
    return score(self, cells)
tasks.Annotation.score = stuck
stream.annotate(sys.argv[1], sys.argv[2], checkpoint=sys.argv[3], batch_size=8)
"""


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="no kill -9 on this system")
def test_a_killed_run_is_continued_to_the_result_of_an_uninterrupted_one(cells, checkpoint, tmp_path, tiny_checkpoint):
    output = tmp_path / "out.h5ad"
    process = subprocess.Popen(
        [sys.executable, "-c", STUCK_RUN, str(cells), str(output), str(tiny_checkpoint)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    assert process.stdin is not None and process.stdout is not None
    assert process.stdout.readline() == b"stuck\n"  # on the sixth piece
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    process.stdin.close(), process.stdout.close()
    assert not output.exists() and list((tmp_path / "out.h5ad.partial").glob("part-*.npz"))
    seen = []
    stream.annotate(
        cells, output, checkpoint=checkpoint, batch_size=8, resume=True, progress=lambda *step: seen.append(step)
    )
    assert 0 < seen[0][0] < N_CELLS
    stream.annotate(cells, tmp_path / "whole.h5ad", checkpoint=checkpoint, batch_size=8)
    assert_same(results(output), results(tmp_path / "whole.h5ad"))
    assert not (tmp_path / "out.h5ad.partial").exists()


# ---- reading ahead


def test_items_come_in_order_and_an_error_comes_where_it_arose():
    def items():
        yield from range(5)
        raise InstructCellError("the sixth is missing")

    seen = []
    with pytest.raises(InstructCellError, match="sixth"):
        for item in batches.ahead(items(), 2):
            seen.append(item)
    assert seen == [0, 1, 2, 3, 4]


def test_the_reader_waits_when_nobody_takes_and_ends_when_the_loop_is_left():
    made = []

    def items():
        for number in range(1000):
            made.append(number)
            yield number

    loop = batches.ahead(items(), 3)
    assert next(loop) == 0
    time.sleep(0.3)
    assert len(made) <= 6
    loop.close()
    assert len(made) < 10


def test_pieces_are_cut_by_position_wherever_a_run_begins(checkpoint):
    adata = tiny.make_adata(50)
    report = tools.inspect(adata, genes=checkpoint.processor.genes)
    genes = checkpoint.processor.genes

    def pieces(first: int) -> list[sp.csr_matrix]:
        rows = np.arange(first, 50)
        return [piece.counts for piece in batches.aligned_pieces(adata, genes, report, rows, at_once=8)]

    whole, later = pieces(0), pieces(24)
    assert [piece.shape[0] for piece in whole] == [8] * 6 + [2]
    for one, other in zip(whole[3:], later, strict=True):
        assert (one != other).nnz == 0


def test_sparse_encoding_equals_dense_encoding(checkpoint):
    import torch

    from encoders import SparseCellEncoder
    from instructcell.tasks import encode

    adata = tiny.make_adata(20)
    adata.X[3] = 0  # an empty cell
    report = tools.inspect(adata, genes=checkpoint.processor.genes)
    cells = tools.align_rows(adata, checkpoint, report, np.arange(20))
    measured = cells.measured.copy()
    measured[-50:] = False  # genes the file lacks
    kept = sp.csr_matrix(cells.counts.multiply(measured))  # with zeros that are stored
    cells = replace(cells, counts=kept, measured=measured)
    with torch.inference_mode():
        dense = checkpoint.model.encode_cells(torch.from_numpy(cells.counts.toarray()), torch.from_numpy(measured))
    found = encode(SparseCellEncoder(checkpoint.model.cell_encoder), cells)
    torch.testing.assert_close(found, dense, rtol=0, atol=2e-3)  # its weights are in half precision; norms are 1


def test_pieces_that_are_made_side_by_side_come_in_order_and_leave_the_threads_as_they_were():
    import torch

    from instructcell.batches import side_by_side

    before, threads = torch.get_num_threads(), set()

    def double(number: int) -> int:
        threads.add(torch.get_num_threads())
        return 2 * number

    assert list(side_by_side(double, iter(range(50)), 3)) == [2 * number for number in range(50)]
    assert threads == {1} and torch.get_num_threads() == before
    with pytest.raises(ZeroDivisionError):
        list(side_by_side(lambda number: 1 // (3 - number), iter(range(50)), 2))
    first = side_by_side(double, iter(range(50)), 2)
    assert next(first) == 0
    first.close()
    assert torch.get_num_threads() == before


def test_a_large_file_is_scored_side_by_side_to_the_same_result(checkpoint, tmp_path):
    import torch

    source, found = tmp_path / "cells.h5ad", {}
    tiny.make_adata(100).write_h5ad(source)
    for n_threads in (1, 2):
        torch.set_num_threads(n_threads)
        found[n_threads] = stream.embed(source, checkpoint=checkpoint, batch_size=16)
    np.testing.assert_allclose(found[2], found[1], rtol=0, atol=1e-5)
    torch.set_num_threads(2)
    whole = tools.embed(ad.read_h5ad(source), checkpoint=checkpoint, batch_size=16)
    np.testing.assert_array_equal(found[2], whole)
