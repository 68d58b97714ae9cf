"""Files larger than memory: annotate, embed or predict, row by row from disk to disk, and go on after an interruption.

    file -> rows read ahead by a thread -> model -> parts in OUTPUT.partial/ -> a copy of the file with the results

The results are those of `instructcell.tools`, to the last bit: the same cells are scored together wherever a run
begins. A run that is interrupted, even killed, leaves its finished parts; `resume=True` continues behind them.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import zipfile
from collections.abc import Callable, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from anndata import AnnData

from instructcell import __version__, tools
from instructcell.batches import AS_FOUND, Reading
from instructcell.bulk import load_screen
from instructcell.bulk_response import BulkDrugResult, BulkResponse, find_screened
from instructcell.cells import read
from instructcell.checkpoint import Checkpoint
from instructcell.doctor import DatasetReport
from instructcell.errors import InstructCellError
from instructcell.output import Copy, OutputError, add_results, beside, can_copy, write_h5ad
from instructcell.tasks import (
    EMBED_CELLS,
    RUN,
    Annotation,
    AnnotationResult,
    Arrays,
    DrugResponse,
    DrugResult,
    Embedding,
    Task,
)

PART_CELLS = 8192  # cells whose results are kept in one part, at least
EDGE = 1024**2  # bytes at both ends of a file that its fingerprint covers

Result = TypeVar("Result")
MakeTask = Callable[[Checkpoint, DatasetReport, int], Task[Result]]


def annotate(
    source: str | Path,
    output: str | Path | None = None,
    *,
    checkpoint: str | Path | Checkpoint = "mini",
    labels: Sequence[str] | None = None,
    tissue: str | None = None,
    reading: Reading = AS_FOUND,
    engine: str = "auto",
    batch_size: int = 256,
    context: bool = True,
    by: str | None = None,
    resume: bool = False,
    progress: tools.ProgressCallback | None = None,
) -> AnnotationResult:
    """Name the type of every cell of a file; memory grows with a batch, not with the file.

    Parameters
    ----------
    source
        Cells; an .h5ad or a zarr folder is read in rows, any other kind as a whole.
    output
        A copy of the file with the results, .h5ad, or .zarr for a zarr folder; it appears whole at the end. None:
        nothing is written.
    checkpoint, labels, tissue, engine, batch_size, context, by
        As for `instructcell.tools.annotate`.
    reading
        How to read the file where the doctor's verdict is not wanted; also names the species.
    resume
        Continue an interrupted run with the same input, output and arguments.
    progress
        Called with (done, total, what) after every batch.

    Raises
    ------
    OutputError
        The output cannot be written, or `resume` finds a run with another input or other arguments.
    LabelError, MatrixError, GeneAlignmentError, ReadError
        As `annotate` and `read` raise them.

    Examples
    --------
    >>> annotate("million_cells.h5ad", "annotated.h5ad").composition  # doctest: +SKIP
    """

    def task(loaded: Checkpoint, report: DatasetReport, n_cells: int) -> Annotation:
        return Annotation(
            loaded,
            report,
            n_cells=n_cells,
            labels=labels,
            species=reading.species,
            tissue=tissue,
            engine=engine,
            batch_size=batch_size,
            context=context,
            by=by,
        )

    return _run(task, source, output, checkpoint, reading, resume=resume, progress=progress)


def embed(
    source: str | Path,
    output: str | Path | None = None,
    *,
    checkpoint: str | Path | Checkpoint = "mini",
    reading: Reading = AS_FOUND,
    batch_size: int = EMBED_CELLS,
    resume: bool = False,
    progress: tools.ProgressCallback | None = None,
) -> np.ndarray:
    """The cell encoder's view of every cell of a file, [N, Z] float32; parameters as for `annotate`."""

    def task(loaded: Checkpoint, report: DatasetReport, n_cells: int) -> Embedding:
        return Embedding(loaded, report, batch_size=batch_size)

    return _run(task, source, output, checkpoint, reading, resume=resume, progress=progress)


def drug_response(
    source: str | Path,
    output: str | Path | None = None,
    *,
    drug: str,
    route: str = "auto",
    smiles: str = "",
    target: str = "",
    checkpoint: str | Path | Checkpoint = "mini",
    tissue: str | None = None,
    reading: Reading = AS_FOUND,
    batch_size: int = 256,
    resume: bool = False,
    progress: tools.ProgressCallback | None = None,
) -> DrugResult | BulkDrugResult:
    """Predict for every cell of a file whether it responds to a drug.

    Parameters are those of `annotate` and of `instructcell.tools.drug_response`.
    """
    loaded = tools.open_checkpoint(checkpoint)
    where: Any = {"checkpoint": loaded, "reading": reading, "resume": resume, "progress": progress}
    if tools.choose_route(loaded, drug, route, described=bool(smiles or target)) == "bulk":
        find_screened(load_screen(), drug, smiles=smiles, target=target)  # refused before the file is opened

        def bulk_task(loaded: Checkpoint, report: DatasetReport, n_cells: int) -> BulkResponse:
            return BulkResponse(loaded, report, drug=drug, smiles=smiles, target=target, force=reading.force)

        return _run(bulk_task, source, output, **where)
    tools.find_drug(loaded, drug)

    def task(loaded: Checkpoint, report: DatasetReport, n_cells: int) -> DrugResponse:
        return DrugResponse(loaded, report, drug=drug, tissue=tissue, batch_size=batch_size)

    return _run(task, source, output, **where)


def _run(
    make: MakeTask[Result],
    source: str | Path,
    output: str | Path | None,
    checkpoint: str | Path | Checkpoint,
    reading: Reading,
    *,
    resume: bool,
    progress: tools.ProgressCallback | None,
) -> Result:
    """Open, look, score what is not done yet, and write."""
    source, say = Path(source), progress or (lambda done, total, what: None)
    if resume and output is None:
        raise OutputError("an interrupted run is found by its output; name the file that it was writing")
    adata = read(source, backed=True)
    loaded = tools.open_checkpoint(checkpoint)
    task = make(loaded, tools.look_at(adata, loaded, reading), adata.n_obs)
    if output is None:
        return tools.finish(tools.work(task, adata, reading), task.what, progress)
    output = Path(output)
    if output.suffix != ".h5ad" and not can_copy(source, output):
        raise OutputError(f"{source.name} is no zarr folder, so the result cannot be one; call it {output.stem}.h5ad")
    task.prepare(adata, reading)
    asked = {**reading.to_dict(), **task.arguments, "command": task.command, "checkpoint": loaded.hash}
    partial = PartialRun(output, {"input": fingerprint(source), "arguments": asked | _versions()}, resume=resume)
    copy = Copy(source, partial.folder / f"output{output.suffix}") if can_copy(source, output) else None
    try:
        if copy is not None:
            copy.start()
        _score(task, adata, reading, partial, say)
    except BaseException as error:
        if copy is not None:
            copy.give_up()
        if isinstance(error, InstructCellError) and not isinstance(error, OutputError):
            partial.remove()  # the file has to be mended: nothing to continue
        raise
    result = task.result(partial.arrays(), adata.obs_names, np.arange(adata.n_obs))
    tools.keep(task, adata, reading, result)
    say(adata.n_obs, adata.n_obs, f"writing {output.name}")
    write_results(task, adata, copy, output)
    partial.remove()
    return result


def _score(
    task: Task[Any], adata: AnnData, reading: Reading, partial: PartialRun, say: tools.ProgressCallback
) -> None:
    """Score the rows behind those that are done, and keep them part by part, also what is there on Ctrl-C."""
    first, total, waiting = partial.n_done, adata.n_obs, Waiting()
    say(first, total, task.what)
    if first == total:
        return
    try:
        for done, arrays in tools.scored(task, adata, reading, np.arange(first, total)):
            waiting.add(arrays)
            if waiting.n_cells >= PART_CELLS:
                partial.keep(waiting.take())
            say(first + done, total, task.what)
    except InstructCellError:
        raise
    except BaseException:
        partial.keep(waiting.take())
        raise
    partial.keep(waiting.take())


class Waiting:
    """Arrays of pieces that are not on disk yet."""

    def __init__(self) -> None:
        self.pieces: list[Arrays] = []
        self.n_cells = 0

    def add(self, arrays: Arrays) -> None:
        """Take in one piece."""
        self.pieces.append(arrays)
        self.n_cells += n_cells_of(arrays)

    def take(self) -> Arrays:
        """All pieces as one, which leaves none; no arrays when there are none."""
        pieces, self.pieces, self.n_cells = self.pieces, [], 0
        return {name: np.concatenate([piece[name] for piece in pieces]) for name in pieces[0]} if pieces else {}


def write_results(task: Task[Any], adata: AnnData, copy: Copy | None, output: Path) -> None:
    """The copy of the input with the results; without one, what is in memory."""
    if copy is None:
        write_h5ad(adata, output)
        return
    with beside(output, copy.target):
        copy.finish()
        add_results(copy.target, adata, obs=task.obs, obsm=task.obsm, uns=[RUN])


# ---- what is done so far


class PartialRun:
    """The results of an unfinished run, in the folder OUTPUT.partial.

    run.json says of which input and arguments; part-FIRST-LAST.npz hold the arrays of consecutive cells. A part is
    written beside its name and synced before it gets it, so one that is there is whole.

    Parameters
    ----------
    output
        Where the result will stand.
    run
        Fingerprint of the input and the arguments.
    resume
        Go on with what is there; otherwise the run begins anew.

    Raises
    ------
    OutputError
        `resume`, and what is there belongs to another input or other arguments; or the folder is somebody else's.
    """

    def __init__(self, output: Path, run: dict[str, Any], *, resume: bool) -> None:
        self.folder = output.with_name(f"{output.name}.partial")
        self.manifest = self.folder / "run.json"
        run = json.loads(json.dumps(run, default=str))
        if self.folder.exists() and not self.manifest.is_file() and any(self.folder.iterdir()):
            raise OutputError(f"{self.folder} is needed for parts of the result but holds other files; move it away")
        if resume and self.manifest.is_file():
            self._check(run)
        else:
            self.remove()
            self.folder.mkdir()
            write_synced(self.manifest, json.dumps(run, indent=1).encode())
        self.parts = self._whole_parts()

    @property
    def n_done(self) -> int:
        """How many cells, from the first on, are done."""
        return self.parts[-1][1] if self.parts else 0

    def keep(self, arrays: Arrays) -> None:
        """Keep the results of the next cells."""
        if not arrays:
            return
        first = self.n_done
        last = first + n_cells_of(arrays)
        path = self.folder / f"part-{first:012d}-{last:012d}.npz"
        beside_it = path.with_suffix(".unfinished")
        try:
            with beside_it.open("wb") as file:
                np.savez(file, **arrays)  # type: ignore[arg-type]
                file.flush()
                os.fsync(file.fileno())
            os.replace(beside_it, path)
        except OSError as error:
            beside_it.unlink(missing_ok=True)
            raise OutputError(
                f"{path} could not be written ({error}); free some space and continue with --resume"
            ) from error
        self.parts.append((first, last, path))

    def arrays(self) -> Arrays:
        """The results of all cells done, in the order of the file."""
        found: Arrays = {}
        for first, last, path in self.parts:
            with np.load(path, allow_pickle=False) as part:
                for name in part.files:
                    values = part[name]
                    if name not in found:
                        found[name] = np.empty((self.n_done, *values.shape[1:]), values.dtype)
                    found[name][first:last] = values
        return found

    def remove(self) -> None:
        """Forget the run."""
        if self.folder.exists():
            shutil.rmtree(self.folder)

    def _check(self, run: dict[str, Any]) -> None:
        try:
            kept = json.loads(self.manifest.read_text(encoding="utf-8"))
            differing = [
                f"{name} was {kept[group].get(name)!r} and is {value!r}"
                for group in ("input", "arguments")
                for name, value in run[group].items()
                if kept[group].get(name) != value
            ]
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise OutputError(f"{self.manifest} is damaged; start again without --resume") from error
        if differing:
            raise OutputError(
                f"{self.folder} holds another run: {'; '.join(differing)}. Give the same input and arguments to "
                "continue it, or start again without --resume"
            )

    def _whole_parts(self) -> list[tuple[int, int, Path]]:
        """The parts from the first cell on, up to a gap or a damaged one; what lies behind is removed."""
        parts: list[tuple[int, int, Path]] = []
        for path in sorted(self.folder.glob("part-*")):
            first, last = (int(number) for number in path.stem.split("-")[1:])
            if path.suffix == ".npz" and first == (parts[-1][1] if parts else 0) and zipfile.is_zipfile(path):
                parts.append((first, last, path))
            else:
                path.unlink()
        return parts


def n_cells_of(arrays: Arrays) -> int:
    """How many cells the arrays are of."""
    return len(next(iter(arrays.values())))


def write_synced(path: Path, content: bytes) -> None:
    """Write a small file that is on disk when this returns."""
    with path.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


def fingerprint(source: Path) -> dict[str, Any]:
    """What tells one input from another without reading it all: names, sizes, times, and both ends of a file."""
    files = sorted(path for path in source.rglob("*") if path.is_file()) if source.is_dir() else [source]
    digest = hashlib.sha256()
    for path in files:
        stat = path.stat()
        digest.update(f"{path.relative_to(source.parent)} {stat.st_size} {stat.st_mtime_ns}\n".encode())
    if source.is_file():
        with source.open("rb") as file:
            digest.update(file.read(EDGE))
            file.seek(max(0, source.stat().st_size - EDGE))
            digest.update(file.read(EDGE))
    return {"file": source.name, "bytes": sum(path.stat().st_size for path in files), "digest": digest.hexdigest()}


def _versions() -> dict[str, str]:
    """What else the last digits of a result depend on."""
    return {"instructcell": __version__, "torch": metadata.version("torch")}
