"""What all flows of a session share: the files and results, the talk so far, and how a tool is called and told of."""

from __future__ import annotations

import re
from collections.abc import Generator, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from anndata import AnnData

from instructcell import slots, tools
from instructcell.answers import answer_of
from instructcell.checkpoint import Checkpoint
from instructcell.doctor import DatasetReport
from instructcell.errors import InstructCellError
from instructcell.events import Event, FigureReady, Progress, TableReady, TextDelta
from instructcell.requests import Request, Topic
from instructcell.toolbox import Toolbox
from instructcell.toolbox.arguments import ALL, EITHER, Cells
from instructcell.toolbox.cells import OWN_CLUSTERS, chosen
from instructcell.workspace import Result, Workspace

Answer = Generator[Event, None, None]
Called = Generator[Event, None, Result]
WRITING = ("annotate", "drug_response", "cluster")  # tools that write answers into the file
ORDER = ("first", "last", "random", "others")  # conditions whose meaning depends on those before them
ONES = re.compile(r"\bones\b", re.IGNORECASE)
AMONG = re.compile(r"\b(?:among|of|in)\s+(?:them|those|these|which)\b", re.IGNORECASE)


@dataclass
class Turn:
    """One question and what was answered; `events` without progress and text, `results` what the answer rests on."""

    question: str
    answer: str = ""
    events: list[Event] = field(default_factory=list)
    results: list[Result] = field(default_factory=list)


@dataclass(frozen=True)
class Choice:
    """Cells that were kept for what follows, as a selection, and the conditions by which they were chosen."""

    cells: Cells
    by: Cells

    def clashes(self, said: Cells) -> bool:
        """Whether other cells are named in the way in which these were chosen: beta cells after "only alpha cells"."""
        return bool({*self.by.short(), *ORDER, "selection", "file"} & {*said.short()})


class Conversation:
    """Files, results and turns of one user, and what was talked of last.

    Attributes
    ----------
    workspace, toolbox
        The files, selections and results; and the tools over them.
    history
        The turns so far.
    last, last_file
        The request that a follow-up goes on from, and the file it was about.
    previous
        Intent of the turn before.
    topic
        Genes, drugs, types and groups that were talked of last.
    kept
        The cells that were kept for what follows ("only the T cells from now on"), which every later question is about
        unless it names others or all.
    offers
        What was asked back: "yes" or "the first" takes the first.
    """

    def __init__(self, checkpoint: str | Path | Checkpoint, folder: str | Path | None) -> None:
        self.workspace = Workspace()
        self.toolbox = Toolbox(self.workspace, checkpoint, folder)
        self.history: list[Turn] = []
        self.last: Request | None = None
        self.last_file = ""  # that it was about
        self.previous = ""  # intent of the turn before
        self.foci: dict[str, Cells] = {}  # per file, the cells that were talked about
        self.choices: dict[str, Choice] = {}  # per file, the cells that were kept for what follows
        self.narrowed = False  # whether this answer is about the kept cells though the sentence did not say so
        self.topic = Topic()
        self.compared: Cells | None = None  # both groups of the latest comparison
        self.offers: list[Request] = []  # what was asked back: "yes" or "the first" takes the first

    @property
    def files(self) -> tuple[str, ...]:
        """Names of the loaded files, the first loaded first."""
        return tuple(self.workspace.files)

    @property
    def checkpoint(self) -> Checkpoint:
        """The loaded checkpoint."""
        return self.toolbox.checkpoint

    @property
    def adata(self) -> AnnData | None:
        """The cells that are talked about."""
        return None if self.workspace.file is None else self.workspace.file.adata

    @property
    def report(self) -> DatasetReport | None:
        """What the doctor found in them."""
        return None if self.workspace.file is None else self.workspace.file.report

    @property
    def name(self) -> str:
        """What they are called."""
        return self.workspace.state.current

    @property
    def generated(self) -> AnnData | None:
        """The latest pseudo-cells."""
        return self.workspace.state.pseudo

    @property
    def annotation(self) -> tools.AnnotationResult | None:
        """The annotation of all cells with the checkpoint's own types."""
        return self.workspace.recall(self.name, "annotate")

    @property
    def drug_result(self) -> tools.DrugResult | None:
        """The latest predicted response."""
        found = self.workspace.latest("drug_response")
        return None if found is None else found.payload

    @property
    def latest(self) -> Result | None:
        """The latest result that was written into the cells that are talked about."""
        return self.workspace.latest(*WRITING, file=self.name)

    @property
    def evidence(self) -> frozenset[str]:
        """Ids of the results that stand; those that were taken back are not among them."""
        return frozenset(result.id for result in self.workspace.state.results)

    @property
    def focus(self) -> Cells:
        """The cells of the current file that were talked about."""
        return self.foci.get(self.name, ALL)

    @focus.setter
    def focus(self, cells: Cells) -> None:
        self.foci[self.name] = cells

    @property
    def kept(self) -> Choice | None:
        """The cells of the current file that were kept for what follows."""
        return self.choices.get(self.name)

    @kept.setter
    def kept(self, choice: Choice | None) -> None:
        if choice is None:
            self.choices.pop(self.name, None)
        else:
            self.choices[self.name] = choice

    def among_kept(self, said: Cells, text: str) -> Cells:
        """What a sentence says of which cells, within those that were kept, unless it names others or all."""
        if self.kept is None or everywhere(text) or self.kept.clashes(said):
            return said
        self.narrowed = True
        return Cells(**{**said.short(), "selection": self.kept.cells.selection})

    @property
    def told(self) -> Iterator[Event]:
        """All events so far, turn by turn."""
        return (event for turn in self.history for event in turn.events)

    def call(self, tool: str, /, **arguments: Any) -> Called:
        """Call a tool; its result is what this turn may talk of, and its cells are the cells talked about."""
        result = yield from self.toolbox.steps(tool, **arguments)
        self.history[-1].results.append(result)
        cells = arguments.get("cells")
        if isinstance(cells, Cells) and not (cells == ALL and arguments.get("by")):  # a view of all groups
            self.focus = cells
        return result

    def tell(self, result: Result, *, text: bool = True) -> Answer:
        """Words first, then tables, then figures, which may take a while to draw."""
        if text:
            yield TextDelta(answer_of(result), result.id)
        for name, table in result.tables.items():
            yield TableReady(name, table, result.id)
        for name, draw in result.figures.items():
            yield Progress(0, 1, f"drawing the {name}")
            yield FigureReady(name, draw(), result.id)
            yield Progress(1, 1, f"drawing the {name}")

    def ask(self, tool: str, /, **arguments: Any) -> Answer:
        """Call a tool and tell what it found."""
        result = yield from self.call(tool, **arguments)
        yield from self.tell(result)

    def cells_of(self, request: Request, *, types: bool = True) -> Generator[Event, None, Cells]:
        """Which cells a request is about: what it says, within the cells talked about if it points at them."""
        said = request.cells or ALL
        if types and request.type_name:
            said = said.model_copy(update={"cell_type": types_said(request)})
        # "The bright ones" are named, "the unsure ones" are of those talked about.
        ones = ONES.search(request.text) is not None and not (said.column or said.cluster or said.cell_type)
        back = request.points_back or request.points_here or ones
        if slots.THE_OTHERS.search(request.text) and said == ALL and self.focus != ALL:
            return self.focus.model_copy(update={"others": True})
        of_type = self.focus == Cells(cell_type=self.focus.cell_type)
        if request.type_name and of_type and not slots.THE_OTHERS.search(request.text):
            return said  # "alpha cells, how many of them?" after talk of beta cells
        if request.column and request.column in (self.focus.column, self.kept.by.column if self.kept else ""):
            return said  # "INS by patient" after talk of one of them
        if not back or everywhere(request.text) or self.focus == ALL or self._nobody(self.focus):
            return self.among_kept(said, request.text)
        if said == ALL or said == self.focus:
            return self.focus
        base, given = self.focus.short(), said.short()
        if set(ORDER) & {*base, *given} or set(base) & set(given):
            kept = yield from self.call("select", cells=self.focus)
            assert kept.selection is not None
            return said.model_copy(update={"selection": kept.selection.name})
        return Cells(**{**base, **given})

    def needs_cells(self, reason: str) -> Answer:
        """Say what cells are needed for, and how to bring some."""
        yield TextDelta(f"{reason} Upload an .h5ad, a 10x .h5 or a .csv/.tsv table, or pick an example.")

    def prepare(self, column: str) -> Answer:
        """Make the answers that a column of ours holds, where it is not there."""
        assert self.adata is not None
        if column == tools.CELL_TYPE and tools.CELL_TYPE not in self.workspace.written(self.name):
            yield from self.call("annotate")
        if column == OWN_CLUSTERS and OWN_CLUSTERS not in self.adata.obs:
            yield from self.call("cluster")

    def grouping_said(self, text: str) -> str:
        """The column that "which cluster", "which donor" means."""
        match = re.search(r"\b(?:which|what)\s+(?:\w+\s+)?(\w+?)s?\b", text, re.IGNORECASE)
        assert self.adata is not None
        for word in re.findall(r"\w+", text)[:6]:
            if match and (column := slots.find_column(f"by {word}", self.adata.obs)):
                return column
        return ""

    def now_both(self, groups: tuple[Cells, ...]) -> Answer:
        """After two groups were compared, "these cells" are the cells of both, and that is said."""
        self.topic = replace(self.topic, groups=groups if len(groups) > 1 else self.topic.groups)
        both = slots.either(groups) if len(groups) > 1 else None
        if both is not None:
            self.focus = self.compared = both
            yield TextDelta(
                "\n*These cells* now means both groups; say *the first group* or *the second group* for one of them.\n"
            )

    def _nobody(self, cells: Cells) -> bool:
        """Whether no cell was called by the type of cells talked about, who are asked about no further."""
        if self.annotation is None or cells != Cells(cell_type=cells.cell_type) or not cells.cell_type:
            return False
        return not self.holds(cells)

    def holds(self, cells: Cells) -> bool:
        """Whether there are such cells."""
        try:
            for _ in chosen(self.toolbox, cells):
                pass
        except InstructCellError:
            return False
        return True

    def now_of_type(self, request: Request) -> None:
        """After knowledge of one type that cells here were called, "they" are these cells."""
        if self.annotation is None or len(request.types) != 1:
            return
        found = self.checkpoint.labels.find(request.type_name)
        if found is not None and (self.annotation.table["cell_type"] == found.name).any():
            self.focus = Cells(cell_type=found.name)

    def forget(self) -> None:
        self.last, self.previous, self.offers, self.topic, self.compared = None, "", [], Topic(), None
        self.foci.clear()
        self.choices.clear()


def everywhere(text: str) -> bool:
    """Whether a sentence says that all cells are meant."""
    return any(words.search(text) for words in (slots.EVERYTHING, slots.IN_EVERYTHING, slots.WHOLE_FILE))


def types_said(request: Request) -> str:
    """The types that a request is about as `Cells` takes them: one, or all of a list."""
    listed = request.types if request.type_name in request.types else ()
    return EITHER.join(listed) if len(listed) > 1 else request.type_name


def given(request: Request, *names: str) -> dict[str, Any]:
    """The slots of a request that are filled."""
    return {name: value for name in names if (value := getattr(request, name)) not in (None, (), "")}
