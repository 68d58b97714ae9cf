"""What one user works on: files by name, chosen cells, results with ids, and the way back.

Nothing here knows of language or of models. A snapshot keeps references to tables and matrices, not copies: results
are written as new columns and never change in place, so that an earlier state costs next to nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from anndata import AnnData
from plotly.graph_objects import Figure

from instructcell.doctor import DatasetReport
from instructcell.errors import InstructCellError

MOST_STEPS_BACK = 100
MOST_FILES = 10  # at a time
MOST_BYTES = 4 * 1024**3  # that the matrices of all files may take when there are several


@dataclass(frozen=True)
class DataFile:
    """Cells under a name: what the doctor said of them, and the path they came from ("" when they came from memory)."""

    name: str
    adata: AnnData
    report: DatasetReport
    path: str = ""
    stamp: tuple[int, int] = (0, 0)  # of the file at `path` when it was read: time of its last change, size

    @property
    def n_bytes(self) -> int:
        """What its matrices take in memory."""
        matrices = [self.adata.X, *self.adata.layers.values()]
        matrices += [] if self.adata.raw is None else [self.adata.raw.X]
        return sum(_n_bytes(matrix) for matrix in matrices)


@dataclass(frozen=True)
class Selection:
    """Chosen cells of one file: their positions [n] and what they are called."""

    name: str
    file: str
    rows: np.ndarray

    def __len__(self) -> int:
        """How many cells there are."""
        return len(self.rows)


@dataclass(frozen=True)
class Result:
    """What a tool found; an answer may say nothing else.

    Attributes
    ----------
    tool, arguments
        The tool and what it was asked, as JSON can hold it.
    facts
        Name -> value: text, Python numbers, lists and dicts of them.
    tables, figures
        By name, the most telling first. A figure is drawn when it is asked for.
    sources
        What knowledge that is not in the cells was taken from.
    notes
        Texts of those sources, quoted.
    file, selection
        The cells it is about.
    cells
        Pseudo-cells that were made.
    id
        Its name as evidence ("r3"), given when the workspace keeps it.
    payload
        What the computation returned, for those who go on with it.
    """

    tool: str
    facts: Mapping[str, Any]
    tables: Mapping[str, pd.DataFrame] = field(default_factory=dict)
    figures: Mapping[str, Callable[[], Figure]] = field(default_factory=dict, repr=False)
    sources: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    file: str = ""
    selection: Selection | None = None
    cells: AnnData | None = field(default=None, repr=False)
    arguments: Mapping[str, Any] = field(default_factory=dict)
    id: str = ""
    payload: Any = field(default=None, repr=False, compare=False)

    @property
    def table(self) -> pd.DataFrame | None:
        """The most telling table."""
        return next(iter(self.tables.values()), None)

    @property
    def figure(self) -> Figure | None:
        """The most telling figure, drawn now."""
        draw = next(iter(self.figures.values()), None)
        return None if draw is None else draw()


@dataclass(frozen=True)
class Step:
    """One call of a tool that a script can repeat; `file` was the current one when it ended."""

    tool: str
    arguments: Mapping[str, Any]
    file: str = ""


@dataclass(frozen=True)
class Columns:
    """What a file's AnnData holds beside its counts, by reference."""

    obs: pd.DataFrame
    obsm: Mapping[str, Any]
    obsp: Mapping[str, Any]
    uns: Mapping[str, Any]

    @classmethod
    def of(cls, adata: AnnData) -> Columns:
        """What is there now."""
        return cls(adata.obs.copy(deep=False), dict(adata.obsm), dict(adata.obsp), dict(adata.uns))

    def put_back(self, adata: AnnData) -> None:
        """Give an AnnData what was there."""
        adata.obs = self.obs.copy(deep=False)
        for mapping, kept in ((adata.obsm, self.obsm), (adata.obsp, self.obsp), (adata.uns, self.uns)):
            for name in [name for name in mapping if name not in kept or mapping[name] is not kept[name]]:
                del mapping[name]
            for name, value in kept.items():
                if name not in mapping:
                    mapping[name] = value


@dataclass(frozen=True)
class State:
    """Everything that a step may change; never changed in place."""

    files: Mapping[str, DataFile] = field(default_factory=dict)
    current: str = ""
    selections: Mapping[str, Selection] = field(default_factory=dict)
    selected: str = ""
    pointed: Mapping[str, str] = field(default_factory=dict)  # per file, what was selected when another was taken up
    results: tuple[Result, ...] = ()
    pseudo: AnnData | None = None
    pseudo_result: str = ""  # id of the result that made them
    memory: Mapping[tuple[str, ...], Any] = field(default_factory=dict)  # what tools need not compute again
    written: Mapping[str, frozenset[str]] = field(default_factory=dict)  # per file, columns that hold answers
    steps: tuple[Step, ...] = ()
    n_generations: int = 0


@dataclass(frozen=True)
class Snapshot:
    """A state to go back to, what led away from it, and a mark of whoever asked."""

    label: str
    state: State
    columns: Mapping[str, Columns]
    mark: Any = None

    def beside(self, file: DataFile, columns: Columns) -> Snapshot:
        """The same, as if the file had been there."""
        return replace(self, state=_with_file(self.state, file), columns={**self.columns, file.name: columns})

    def without(self, name: str) -> Snapshot:
        """The same, as if the file had never been there."""
        kept = {key: columns for key, columns in self.columns.items() if key != name}
        return replace(self, state=_without_file(self.state, name), columns=kept)


class Workspace:
    """Files, selections, results and the way back.

    Attributes
    ----------
    state
        What is there now.

    Examples
    --------
    >>> workspace = Workspace()
    >>> workspace.add(DataFile("cells.h5ad", adata, report))
    >>> with workspace.step("annotate"):
    ...     workspace.keep(Result("annotate", {"n_cells": 3}))
    >>> workspace.undo().label
    'annotate'
    """

    def __init__(self) -> None:
        """Begin with nothing."""
        self.state = State()
        self._n_results = 0  # never goes back: an id means one result for ever
        self._past: list[Snapshot] = []
        self._original: dict[str, Columns] = {}
        self._depth = 0
        self._went_back = False

    # ---- files

    @property
    def files(self) -> Mapping[str, DataFile]:
        """The files by name."""
        return self.state.files

    @property
    def file(self) -> DataFile | None:
        """The file that is talked about."""
        return self.state.files.get(self.state.current)

    def add(self, file: DataFile) -> DataFile:
        """Take a file in and talk about it from now on; a file of the same name is replaced, with what it led to.

        Raises
        ------
        InstructCellError
            So many files are held, or so large ones, that there is no room for another.
        """
        self._check_room(file)
        if file.name in self.state.files:
            self.remove(file.name)
        columns = Columns.of(file.adata)
        self._original[file.name] = columns
        self._past = [snapshot.beside(file, columns) for snapshot in self._past]  # no step back takes an upload back
        opened = Step("open", {"name": file.name}, file.name)
        self.state = replace(
            self.state, files={**self.state.files, file.name: file}, steps=(*self.state.steps, opened)
        )
        self.use(file.name)
        return file

    def remove(self, name: str) -> None:
        """Forget a file, its selections and what is remembered of it."""
        self.require(name)
        self.state = _without_file(self.state, name)
        self._original.pop(name, None)
        self._past = [snapshot.without(name) for snapshot in self._past if snapshot.state.current != name]
        self._went_back = self._depth > 0  # a step back does not bring it back

    def check_count(self, name: str = "") -> None:
        """Raise when there is no room for one more file, whatever its size; one of that name would be replaced."""
        if name not in self.state.files and len(self.state.files) >= MOST_FILES:
            raise InstructCellError(
                f"{len(self.state.files)} files are loaded, and no more than {MOST_FILES} are held at a time; close "
                f"one first, such as: close {next(iter(self.state.files))}"
            )

    def _check_room(self, file: DataFile) -> None:
        self.check_count(file.name)
        others = [other for name, other in self.state.files.items() if name != file.name]
        held = sum(other.n_bytes for other in others)
        if others and held + file.n_bytes > MOST_BYTES:
            raise InstructCellError(
                f"{file.name} takes {file.n_bytes / 1024**3:.1f} GB of memory beside the {held / 1024**3:.1f} GB of "
                f"the {len(others)} loaded files, and no more than {MOST_BYTES / 1024**3:.0f} GB are held at a time; "
                f"close one first, such as: close {others[0].name}"
            )

    def require(self, name: str = "") -> DataFile:
        """The file of a name, or the current one.

        Raises
        ------
        InstructCellError
            There is none; the message names those that are there.
        """
        if not self.state.files:
            raise InstructCellError(
                "No cells are loaded; this needs some. Upload an .h5ad, a 10x .h5 or a .csv/.tsv table, or pick an "
                "example"
            )
        found = self.state.files.get(name or self.state.current)
        if found is None:
            raise InstructCellError(f"found no file '{name}'; loaded are: {', '.join(self.state.files)}")
        return found

    def use(self, name: str) -> DataFile:
        """Talk about this file from now on."""
        found = self.require(name)
        if found.name != self.state.current:
            pointed = {**self.state.pointed, self.state.current: self.state.selected}
            self.state = replace(
                self.state, current=found.name, selected=pointed.get(found.name, ""), pointed=pointed
            )
        return found

    # ---- selections

    @property
    def selected(self) -> Selection | None:
        """These cells."""
        return self.state.selections.get(self.state.selected)

    def select(self, selection: Selection) -> Selection:
        """Keep chosen cells under their name; they are "these cells" from now on.

        A name that cells of another file have already gets the file's name behind it.
        """
        if len(selection.rows) == 0:
            raise InstructCellError(f"no cell is in '{selection.name}'; choose cells in another way")
        other = self.state.selections.get(selection.name)
        if other is not None and other.file != selection.file:
            selection = replace(selection, name=f"{selection.name} of {selection.file}")
        self.use(selection.file)
        kept = {**self.state.selections, selection.name: selection}
        self.state = replace(self.state, selections=kept, selected=selection.name)
        return selection

    def point_at(self, name: str) -> None:
        """Make a kept selection "these cells"; "" for all cells of the file."""
        if name and name not in self.state.selections:
            raise InstructCellError(
                f"found no selection '{name}'; kept are: {', '.join(self.state.selections) or 'none'}"
            )
        self.state = replace(self.state, selected=name)

    # ---- results

    def keep(self, result: Result) -> Result:
        """Keep a result and give it an id."""
        self._n_results += 1
        kept = replace(result, id=f"r{self._n_results}")
        made = {} if kept.cells is None else {"pseudo": kept.cells, "pseudo_result": kept.id}
        self.state = replace(self.state, results=(*self.state.results, kept), **made)
        return kept

    def result(self, id: str) -> Result:
        """The result of an id."""
        for result in self.state.results:
            if result.id == id:
                return result
        raise InstructCellError(
            f"found no result '{id}'; there are: {', '.join(r.id for r in self.state.results) or 'none'}"
        )

    def latest(self, *tools: str, file: str = "") -> Result | None:
        """The latest result of one of the tools (of any, when none is named), about a file where one is named."""
        for result in reversed(self.state.results):
            if (not tools or result.tool in tools) and (not file or result.file == file):
                return result
        return None

    def remember(self, file: str, *key: str, value: Any) -> None:
        """Keep what was computed of a file, so that it need not be computed again."""
        self.state = replace(self.state, memory={**self.state.memory, (file, *key): value})

    def recall(self, file: str, *key: str) -> Any:
        """What was kept of a file under a key, or None."""
        return self.state.memory.get((file, *key))

    def written(self, file: str) -> frozenset[str]:
        """Columns of a file's obs that hold answers of this workspace."""
        return self.state.written.get(file, frozenset())

    def note_written(self, file: str, *columns: str, forget: bool = False) -> None:
        """Columns of a file's obs hold answers from now on, or no more."""
        now = self.written(file) - set(columns) if forget else self.written(file) | set(columns)
        self.state = replace(self.state, written={**self.state.written, file: now})

    def count_generation(self) -> None:
        """One more time pseudo-cells were made."""
        self.state = replace(self.state, n_generations=self.state.n_generations + 1)

    def log(self, step: Step) -> None:
        """Note a call, for the script."""
        self.state = replace(self.state, steps=(*self.state.steps, step))

    # ---- the way back

    @contextmanager
    def step(self, label: str, mark: Any = None) -> Iterator[None]:
        """What happens inside is one step, which `undo` takes back; steps inside a step belong to it.

        Results alone (a question that was answered) are no step: only what changes files, selections or pseudo-cells.
        """
        self._depth += 1
        before = None if self._depth > 1 else self._snapshot(label, mark)
        try:
            yield
        finally:
            self._depth -= 1
            went_back, self._went_back = self._went_back, self._went_back and before is None
            if before is not None and not went_back and self._changed(before):
                self._past = [*self._past[1 - MOST_STEPS_BACK :], before]

    def undo(self) -> Snapshot | None:
        """Take the last step back and return what was before it; None when there is none."""
        if not self._past:
            return None
        before = self._past.pop()
        self._put_back(before.state, before.columns)
        self._went_back = self._depth > 0
        return before

    @property
    def undoable(self) -> tuple[str, ...]:
        """What can be taken back, the latest first."""
        return tuple(snapshot.label for snapshot in reversed(self._past))

    def restart(self) -> None:
        """Forget everything but the files, which are as they came."""
        opened = tuple(step for step in self.state.steps if step.tool == "open")
        state = State(files=self.state.files, current=self.state.current, steps=opened)
        self._put_back(state, self._original)
        self._past.clear()
        self._went_back = self._depth > 0

    def _snapshot(self, label: str, mark: Any) -> Snapshot:
        columns = {name: Columns.of(file.adata) for name, file in self.state.files.items()}
        return Snapshot(label, self.state, columns, mark)

    def _changed(self, before: Snapshot) -> bool:
        then, now = before.state, self.state
        same = ("files", "current", "selected", "selections", "pseudo", "written")
        if any(
            getattr(then, name) is not getattr(now, name) for name in same if getattr(then, name) or getattr(now, name)
        ):
            return True
        return any(
            list(kept.obs.columns) != list(self.state.files[name].adata.obs.columns)
            for name, kept in before.columns.items()
            if name in self.state.files
        )

    def _put_back(self, state: State, columns: Mapping[str, Columns]) -> None:
        for name, kept in columns.items():
            if name in state.files:
                kept.put_back(state.files[name].adata)
        self.state = state


def _with_file(state: State, file: DataFile) -> State:
    """The state with a file more; what is talked about stays. A script opens it from here on."""
    opened = (*state.steps, Step("open", {"name": file.name}, file.name))
    files = {**state.files, file.name: file}
    if not state.current:
        return replace(state, files=files, current=file.name, steps=opened)
    return replace(state, files=files, steps=(*opened, Step("use_file", {"file": state.current}, state.current)))


def _without_file(state: State, name: str) -> State:
    """The state without a file and what it led to."""
    files = {key: file for key, file in state.files.items() if key != name}
    kept = {key: chosen for key, chosen in state.selections.items() if chosen.file != name}
    current = state.current if state.current in files else next(reversed(files), "")
    pointed = {key: chosen for key, chosen in state.pointed.items() if key != name}
    selected = state.selected if state.current == current else pointed.get(current, "")
    steps = tuple(step for step in state.steps if step.file != name)
    if current and current != state.current:
        steps = (*steps, Step("use_file", {"file": current}, current))
    return replace(
        state,
        files=files,
        current=current,
        selections=kept,
        selected=selected if selected in kept else "",
        pointed=pointed,
        results=tuple(result for result in state.results if result.file != name),
        memory={key: value for key, value in state.memory.items() if key[0] != name},
        written={key: value for key, value in state.written.items() if key != name},
        steps=steps,
    )


def _n_bytes(matrix: Any) -> int:
    """What a dense or sparse matrix takes in memory; one that lies on disk takes none."""
    if isinstance(matrix, np.ndarray):
        return matrix.nbytes
    parts = [getattr(matrix, name, None) for name in ("data", "indices", "indptr")]
    return sum(part.nbytes for part in parts if isinstance(part, np.ndarray))


def unique_name(wanted: str, taken: Mapping[str, Any]) -> str:
    """A name that is not taken: "cells.h5ad", then "cells (2).h5ad"."""
    if wanted not in taken:
        return wanted
    stem, suffix = (Path(wanted).stem, Path(wanted).suffix) if "." in wanted else (wanted, "")
    n = 2
    while f"{stem} ({n}){suffix}" in taken:
        n += 1
    return f"{stem} ({n}){suffix}"
