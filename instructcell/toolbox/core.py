"""One typed toolbox: every tool has one implementation, whoever calls it.

    box = Toolbox(checkpoint="mini")
    box.open("cells.h5ad")
    box.run("annotate").facts["composition"]
    box.run("generate", cell_type="B cell", n=50).cells

The chat, the terminal, Python, HTTP and a language model call the same tools with the same arguments and get the same
`Result`. A tool that takes long is a generator of `Progress`; `run` waits for its end.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Generator, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from anndata import AnnData
from plotly.graph_objects import Figure
from pydantic import ValidationError

from instructcell import pl, tools
from instructcell.bulk import Screen, load_screen
from instructcell.bulk_drugs import ScreenedDrug
from instructcell.cells import read
from instructcell.checkpoint import Checkpoint
from instructcell.drugs import Drug, DrugSet
from instructcell.errors import InstructCellError
from instructcell.events import Progress
from instructcell.toolbox.arguments import Arguments, problem
from instructcell.workspace import DataFile, Result, Step, Workspace, unique_name

Steps = Generator[Progress, None, Result]
LAY_OUT = "lay_out"  # the step of a script that keeps a map
SCREENS = "GDSC1 and GDSC2, cancer cell lines"
Implementation = Callable[["Toolbox", Any], Steps]


@dataclass(frozen=True)
class Tool:
    """One tool: what it is called, what it does, what it takes.

    `needs_cells`: it is of no use before a file is loaded. `logged`: a script that repeats the session repeats it.
    """

    name: str
    description: str
    arguments: type[Arguments]
    implementation: Implementation
    needs_cells: bool = True
    logged: bool = True

    def schema(self) -> dict[str, Any]:
        """Name, description and JSON schema of the arguments, as language models and MCP take them."""
        return {"name": self.name, "description": self.description, "parameters": self.arguments.model_json_schema()}


TOOLS: dict[str, Tool] = {}


def tool(
    arguments: type[Arguments], description: str, *, needs_cells: bool = True, logged: bool = True
) -> Callable[[Implementation], Implementation]:
    """Register a generator function as the tool of its name."""

    def register(implementation: Implementation) -> Implementation:
        name = implementation.__name__
        TOOLS[name] = Tool(name, description, arguments, implementation, needs_cells, logged)
        return implementation

    return register


class Toolbox:
    """The tools over one workspace.

    Parameters
    ----------
    workspace
        Files, selections and results of one user; a new one by default.
    checkpoint
        Name or folder of a checkpoint, or a loaded one.
    folder
        Where `export` writes; a temporary folder by default, which the owner of the toolbox deletes.

    Examples
    --------
    >>> box = Toolbox()
    >>> box.run("markers", cell_type="delta cell").table
    """

    def __init__(
        self,
        workspace: Workspace | None = None,
        checkpoint: str | Path | Checkpoint = "mini",
        folder: str | Path | None = None,
    ) -> None:
        """Nothing is loaded before it is used."""
        self._folder = None if folder is None else Path(folder)
        self.workspace = Workspace() if workspace is None else workspace
        self.transcript: Callable[[], str] | None = None  # the conversation as HTML, where there is one
        self._checkpoint: str | Path | Checkpoint = checkpoint

    @property
    def checkpoint(self) -> Checkpoint:
        """The loaded checkpoint."""
        self._checkpoint = tools.open_checkpoint(self._checkpoint)
        return self._checkpoint

    @property
    def folder(self) -> Path:
        """Where files are written."""
        if self._folder is None:
            self._folder = Path(tempfile.mkdtemp(prefix="instructcell-"))
        self._folder.mkdir(parents=True, exist_ok=True)
        return self._folder

    @property
    def drugs(self) -> DrugSet:
        """The drugs the checkpoint was trained on."""
        return tools.drugs_of(self.checkpoint)

    @cached_property
    def answerable(self) -> DrugSet:
        """The same, and beside them the drugs of the cell-line screens, which the bulk route answers."""
        return DrugSet(self.drugs, also=map(as_drug, self.screen.drugs))

    @cached_property
    def screen(self) -> Screen:
        """The screens of cell lines that the bulk route learned from."""
        return load_screen()

    @property
    def able(self) -> list[str]:
        """Cell types that can be generated, the best known first."""
        able = [label for label in self.checkpoint.labels if label.can_generate]
        return [label.name for label in sorted(able, key=lambda label: -label.n_training_cells)]

    def open(self, source: str | Path | AnnData, name: str = "", *, replace_file: bool = False) -> DataFile:
        """Take cells in: a file or folder that `ic.read` knows, or an AnnData.

        Parameters
        ----------
        name
            How to call them; the file's name by default, with a number where it is taken.
        replace_file
            Take the place of a file of the same name.

        Raises
        ------
        InstructCellError
            The cells cannot be used; what was loaded stays.
        """
        path = "" if isinstance(source, AnnData) else str(source)
        wanted = name or (Path(path).name if path else "the data")
        self.workspace.check_count(wanted if replace_file else "")
        adata = read(source)
        report = tools.look_at(adata, self.checkpoint)
        tools.align_rows(adata, self.checkpoint, report, np.arange(1))  # too few known genes are told at once
        if not replace_file:
            wanted = unique_name(wanted, self.workspace.files)
        return self.workspace.add(DataFile(wanted, adata, report, path, stamp_of(path)))

    def run(self, name: str, /, **arguments: Any) -> Result:
        """Call a tool and wait for its result.

        Raises
        ------
        InstructCellError
            There is no such tool, its arguments cannot be used, or the tool says what is wrong.
        """
        steps = self.steps(name, **arguments)
        while True:
            try:
                next(steps)
            except StopIteration as end:
                return end.value

    def steps(self, name: str, /, **arguments: Any) -> Steps:
        """Call a tool, yielding `Progress` while it works; the result is kept in the workspace and returned."""
        called = self.find(name)
        try:
            asked = called.arguments(**{key: value for key, value in arguments.items() if value is not None})
        except ValidationError as error:
            raise problem(name, error) from None
        if called.needs_cells:
            self.workspace.require()
        with self.workspace.step(name):
            found = yield from called.implementation(self, asked)
            given = asked.short()
            figures = {title: partial(self._draw, found.file, draw) for title, draw in found.figures.items()}
            result = replace(found, tool=name, arguments=given, facts=plain(found.facts), figures=figures)
            if called.logged:
                self.workspace.log(Step(name, given, self.workspace.state.current))
                result = self.workspace.keep(result)
        return result

    def lay_out(self, file: str) -> None:
        """Keep the map of a file's embedding in its obsm, as drawing it does; a script repeats it."""
        adata = self.workspace.require(file).adata
        before = adata.obsm.get(pl.MAP)
        if pl.map_positions(adata) is not before:
            self.workspace.log(Step(LAY_OUT, {"file": file}, file))

    def _draw(self, file: str, draw: Callable[[], Figure]) -> Figure:
        """A figure; where drawing it leaves a new map in the file, a script has to repeat that."""
        known = self.workspace.files.get(file)
        before = None if known is None else known.adata.obsm.get(pl.MAP)
        figure = draw()
        if known is not None and known.adata.obsm.get(pl.MAP) is not before:
            self.workspace.log(Step(LAY_OUT, {"file": file}, file))
        return figure

    @staticmethod
    def find(name: str) -> Tool:
        """The tool of a name.

        Raises
        ------
        InstructCellError
            There is none; the message names all.
        """
        if name not in TOOLS:
            raise InstructCellError(f"there is no tool '{name}'; there are: {', '.join(TOOLS)}")
        return TOOLS[name]

    def schemas(self) -> Iterator[dict[str, Any]]:
        """Each tool's name, description and JSON schema."""
        for one in TOOLS.values():
            yield one.schema()


def stamp_of(path: str | Path) -> tuple[int, int]:
    """By what a file on disk is known again: when it was changed last, and its size; zeros where there is none."""
    if not path or not Path(path).exists():
        return 0, 0
    found = Path(path).stat()
    return found.st_mtime_ns, found.st_size


def as_drug(screened: ScreenedDrug) -> Drug:
    """A drug of the cell-line screens, with how well it was predicted on lines that were left out as its note."""
    note = f"How well it was predicted: {screened.held_out_words}."
    return Drug(screened.name, screened.synonyms, screened.target, (SCREENS,), note)


def reported(steps: tools.Steps[Any], what: str) -> Generator[Progress, None, Any]:
    """The (done, total) of a computation as `Progress`; returns what it returns."""
    while True:
        try:
            done, total = next(steps)
        except StopIteration as end:
            return end.value
        yield Progress(done, total, what)


def plain(value: Any) -> Any:
    """The same with Python's own numbers and texts: no numpy, no NaN."""
    if isinstance(value, Mapping):
        return {str(key): plain(one) for key, one in value.items()}
    if isinstance(value, pd.DataFrame):
        return [plain(row) for row in value.to_dict(orient="records")]
    if isinstance(value, (list, tuple, set, frozenset, np.ndarray, pd.Index, pd.Series)):
        return [plain(one) for one in (value.tolist() if hasattr(value, "tolist") else value)]
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, float):
        return None if value != value else value  # NaN is nothing
    return value if value is None or isinstance(value, (bool, int, str)) else str(value)
