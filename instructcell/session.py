"""A conversation about cells: text in, typed events out.

    session = Session(adata)
    for event in session.send("Which cell types are these?"):
        ...

The session keeps the files, the results and the turns of one user; nothing is shared between sessions but the models.
It understands a sentence (`intents`, `slots`), calls the tools that answer it (`toolbox`) and puts what they returned
into words (`answers`). Text inside an uploaded file is data and changes nothing.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Generator, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from anndata import AnnData

from instructcell import answers, ellipsis, intents, requests, sentences, slots, tools
from instructcell.answers import answer_of
from instructcell.checkpoint import Checkpoint
from instructcell.doctor import DatasetReport
from instructcell.drugs import Drug
from instructcell.errors import DrugError, InstructCellError
from instructcell.events import CellsGenerated, Event, Failed, FigureReady, FilesReady, Progress, TableReady, TextDelta
from instructcell.following import completed
from instructcell.grounds import Ground, grounds_of, reveal
from instructcell.mentions import numbers_of_types
from instructcell.output import write_h5ad
from instructcell.requests import Request, Topic
from instructcell.retrieval import answer_knowledge, load_index
from instructcell.retrieval.names import ambiguous_name, load_name_book
from instructcell.router import load_router
from instructcell.toolbox import Toolbox
from instructcell.toolbox.arguments import ALL, EITHER, MOST_PSEUDO_CELLS, Cells
from instructcell.toolbox.cells import OWN_CLUSTERS, cluster_column
from instructcell.toolbox.core import as_drug, stamp_of
from instructcell.toolbox.data import card, groupings
from instructcell.toolbox.desk import examples, types_found
from instructcell.toolbox.types import resolve_type
from instructcell.transcript import conversation_html
from instructcell.workspace import DataFile, Result, Workspace

USUAL_PSEUDO_CELLS = 50  # when no number is said
FINER = 2.0  # times the resolution, for "finer clusters"
WRITING = ("annotate", "drug_response", "cluster")  # tools that write answers into the file
CHANGING = (*WRITING, "open", "use_file", "select", "find_by_text", "generate")  # tools that a step back takes back
MARKERS_IN_TALK = 5  # of a type that was looked up: "do my cells express them?"
CELLS_TABLE = "cells"

Answer = Generator[Event, None, None]
Called = Generator[Event, None, Result]
MEANINGS = {
    requests.ANNOTATE: "name the cell types of all cells",
    requests.SUBSET: "name the cell types of some of the cells",
    requests.GENERATE: "generate new cells",
    requests.DRUG: "predict the response to a drug",
    requests.MARKERS: "list the marker genes of a cell type",
    requests.GENE: "say what a gene does",
    requests.DESCRIBE: "describe the data",
    requests.DOWNLOAD: "hand out the results",
    requests.HELP: "say what I can do",
    requests.SMALL_TALK: "chat",
    requests.OUT_OF_SCOPE: "answer something else",
    requests.QUALITY: "judge the quality of the cells",
    requests.CLUSTER: "cluster the cells",
    requests.EXPLAIN: "explain why cells were called so",
    requests.FIND: "find cells by what they are like",
    requests.EXPRESSION: "say which cells express a gene",
    requests.COMPARE: "compare two groups of cells",
    requests.REAL: "compare the pseudo-cells with real ones",
    requests.RANK: "rank the drugs I know for these cells",
    requests.COMPARE_DRUG: "compare the response to a drug between groups",
    requests.SELECT: "choose some of the cells",
    requests.MAP: "draw the map",
    requests.UNDO: "take the last step back",
    requests.RESTART: "start again",
    requests.COUNT: "count cells",
    requests.DRUG_FACTS: "say what I know of drugs",
}
# A later "and 10 more" goes on from these; a download or a greeting in between changes nothing.
CONTINUED = (
    requests.ANNOTATE, requests.SUBSET, requests.GENERATE, requests.DRUG, requests.MARKERS, requests.GENE,
    requests.QUALITY, requests.EXPLAIN, requests.EXPRESSION, requests.RANK, requests.SELECT, requests.FIND,
    requests.COMPARE, requests.CLUSTER, requests.COMPARE_DRUG, requests.COUNT, requests.MAP,
)  # fmt: skip
YES, NO = {"yes", "yep", "sure", "correct", "right"}, {"no", "nope"}
ORDER = ("first", "last", "random", "others")  # conditions whose meaning depends on those before them
SWITCHES = re.compile(
    r"\b(?:switch|use|go|change|back|talk|open|turn)\b.*\b(?:to|about|file|data\s?set|sample|use)\b|^\W*use\b", re.I
)
SWITCHES_FIRST = re.compile(
    r"^\W*(?:(?:please|now|ok|okay|and|then|let'?s|let us|can (?:you|we)|could (?:you|we)|i want to)\W+)*"
    r"(?:use|take|switch|go|change|return|back)\b",
    re.I,
)
LEADS = re.compile(
    r"^\W*(?:(?:please|can you|could you|now|and|ok)\W+)*"
    r"(?:find|show|search|look|locate|identify|get|pick|where\s+are|which|are\s+there)"
    r"(?:\s+(?:me|out|up|for|through|the\s+data|my\s+data|any|all|in))*(?:\s+(?:of\s+)?(?:the|my|these))?\s+(?=\S)",
    re.IGNORECASE,
)
RANKED = re.compile(r"\b(?:the\s+)?(first|top|best|second|third)\s+(?:one|drug|hit|of\s+them|on\s+the\s+list)\b", re.I)
ONES = re.compile(r"\bones\b", re.IGNORECASE)
AMONG = re.compile(r"\b(?:among|of|in)\s+(?:them|those|these|which)\b", re.IGNORECASE)


@dataclass
class Turn:
    """One question and what was answered; `events` without progress and text, `results` what the answer rests on."""

    question: str
    answer: str = ""
    events: list[Event] = field(default_factory=list)
    results: list[Result] = field(default_factory=list)


class Session:
    """One user's conversation about cells.

    Parameters
    ----------
    adata
        Cells to talk about; None: `load` them later or ask general questions.
    checkpoint
        Name or folder of a checkpoint, or a loaded one.
    folder
        Where exported files are written; a temporary folder by default.

    Attributes
    ----------
    workspace, toolbox
        The files, selections and results; and the tools over them, for going on in Python.
    history
        The turns so far.

    Raises
    ------
    MatrixError
        `adata` holds no usable expression.

    Examples
    --------
    >>> session = Session(adata)
    >>> for event in session.send("Which cell types are these?"):
    ...     print(event)
    """

    def __init__(
        self,
        adata: AnnData | None = None,
        *,
        checkpoint: str | Path | Checkpoint = "mini",
        folder: str | Path | None = None,
    ) -> None:
        self.workspace = Workspace()
        self.toolbox = Toolbox(self.workspace, checkpoint, folder)
        self.history: list[Turn] = []
        self._last: Request | None = None
        self._last_file = ""  # that it was about
        self._previous = ""  # intent of the turn before
        self._foci: dict[str, Cells] = {}  # per file, the cells that were talked about
        self._topic = Topic()
        self._compared: Cells | None = None  # both groups of the latest comparison
        self._offers: list[Request] = []  # what was asked back: "yes" or "the first" takes the first
        self._flows: dict[str, Callable[[Request], Answer]] = {
            requests.ANNOTATE: self._annotate,
            requests.SUBSET: self._annotate,
            requests.GENERATE: self._generate,
            requests.DRUG: self._drug,
            requests.MARKERS: self._knowledge,
            requests.GENE: self._knowledge,
            requests.DESCRIBE: self._describe,
            requests.DOWNLOAD: self._download,
            requests.HELP: self._help,
            requests.SMALL_TALK: self._small_talk,
            requests.OUT_OF_SCOPE: self._out_of_scope,
            requests.QUALITY: self._quality,
            requests.CLUSTER: self._cluster,
            requests.EXPLAIN: self._explain,
            requests.FIND: self._find,
            requests.EXPRESSION: self._expression,
            requests.COMPARE: self._compare,
            requests.REAL: self._compare_real,
            requests.RANK: self._rank,
            requests.COMPARE_DRUG: self._compare_drug,
            requests.SELECT: self._select,
            requests.MAP: self._map,
            requests.UNDO: self._undo,
            requests.RESTART: self._restart,
            requests.COUNT: self._count,
            requests.DRUG_FACTS: self._drug_facts,
        }
        self.toolbox.transcript = self.transcript
        if adata is not None:
            self.toolbox.open(adata, "the data")

    # ---- what is there

    @property
    def _focus(self) -> Cells:
        """The cells of the current file that were talked about."""
        return self._foci.get(self.name, ALL)

    @_focus.setter
    def _focus(self, cells: Cells) -> None:
        self._foci[self.name] = cells

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

    def grounds(self, evidence: str) -> tuple[Ground, ...]:
        """The tables and figures in which the claims of a result can be checked; none when it was taken back."""
        return grounds_of(evidence, self.workspace, self._told) if evidence in self.evidence else ()

    def reveal(self, ground: Ground) -> TableReady | FigureReady:
        """Show a table or figure again.

        Raises
        ------
        InstructCellError
            Its result was taken back.
        """
        return reveal(ground, self.workspace, self._told)

    def file_of(self, evidence: str) -> str:
        """The file that a result is about; "" when it is about none."""
        return self.workspace.result(evidence).file

    @property
    def _told(self) -> Iterator[Event]:
        return (event for turn in self.history for event in turn.events)

    def warm_up(self) -> None:
        """Load what the first answer needs, so that it need not wait."""
        self.checkpoint  # noqa: B018 - a property that loads
        self.toolbox.answerable  # noqa: B018 - as above
        load_router()
        load_index()
        load_name_book()

    def load(self, source: str | Path | AnnData, *, name: str = "") -> list[Event]:
        """Take cells into the session beside those that are there, and talk about them.

        A name that is taken gets a number. A file that is loaded already is taken up again as it was left, or read
        anew if it has changed meanwhile.

        Parameters
        ----------
        source
            A file or folder that `instructcell.cells.read` knows, or an AnnData.
        name
            How to call them; the file's name by default.

        Returns
        -------
        list of Event
            What the doctor says of them, or `Failed`, and then everything is as it was.
        """
        known = self._known(source, name)
        if known is not None and known.stamp == stamp_of(known.path):
            self.workspace.use(known.name)
            return [TextDelta(f"**{answers.quoted(known.name)}** is loaded already; we talk about it as we left it.\n")]
        try:
            taken = name if known is None else known.name
            file = self.open(source, taken, replace_file=known is not None)
        except InstructCellError as error:
            return [failure(error)]
        others = ", ".join(answers.quoted(other) for other in self.files if other != file.name)
        beside = f" {others} stays loaded beside it.\n" if others else ""
        return [
            TextDelta(f"**{answers.quoted(file.name)}** is loaded.{beside}\n\n{file.report.to_markdown()}\n"),
            TableReady("dataset", card(file)),
        ]

    def open(self, source: str | Path | AnnData, name: str = "", *, replace_file: bool = False) -> DataFile:
        """Take cells in as `Toolbox.open` does, and talk about them from now on.

        Raises
        ------
        InstructCellError
            The cells cannot be used; everything is as it was.
        """
        file = self.toolbox.open(source, name, replace_file=replace_file)
        self._focus, self._last, self._offers, self._topic, self._compared = ALL, None, [], Topic(), None
        return file

    def _known(self, source: str | Path | AnnData, name: str) -> DataFile | None:
        """The loaded file that came from the same path, under the same name where one is given."""
        if isinstance(source, AnnData):
            return None
        same = [file for file in self.workspace.files.values() if file.path == str(source)]
        return next((file for file in same if name in ("", file.name)), None)

    def suggestions(self) -> list[str]:
        """Questions that fit what is loaded and known, the most useful first."""
        return [*examples(self.toolbox), "What can you do?"]

    def clear(self) -> None:
        """Forget the conversation and the results; the loaded cells stay, as they came."""
        self.history.clear()
        self.workspace.restart()
        self._forget()

    def save_annotated(self, path: str | Path) -> Path:
        """Write the cells that are talked about with all results so far as .h5ad and return the path.

        Raises
        ------
        InstructCellError
            No cells are loaded, or the file cannot be written.
        """
        if self.adata is None:
            raise InstructCellError("found no loaded cells, expected some to save; load a file first")
        return write_h5ad(self.adata, Path(path))

    def save_generated(self, path: str | Path) -> Path:
        """Write the latest pseudo-cells as .h5ad and return the path."""
        if self.generated is None:
            raise InstructCellError("found no pseudo-cells to save; ask for some first, e.g. 'generate 50 B cells'")
        return write_h5ad(self.generated, Path(path))

    def transcript(self) -> str:
        """The conversation as one HTML page that opens without a network; "" when nothing was answered yet."""
        about = f"About {', '.join(self.files)}." if self.files else "Without cells."
        about += f" Checkpoint {Path(self.checkpoint.path).name} ({self.checkpoint.hash})."
        return conversation_html(self.history, about, self.evidence)

    def export(self, what: str) -> Path:
        """Write "conversation" (one HTML page) or "script" (Python that repeats the steps) and return the path.

        Raises
        ------
        InstructCellError
            There is nothing of it yet.
        """
        return self.toolbox.run("export", what=what).payload[0]

    # ---- a turn

    def send(self, text: str) -> Iterator[Event]:
        """Answer one sentence, event by event; leaving the loop early stops the work.

        An input that cannot be used becomes a `Failed` event and the session goes on.
        """
        yield from self._taken(text, self._answer(text))

    def show(self, text: str) -> None:
        """Answer one sentence in a notebook: words, tables and figures appear under its cell as they come.

        Raises
        ------
        ConfigError
            IPython, which notebooks run on, is not installed.

        Examples
        --------
        >>> session.show("Which cell types are these?")  # doctest: +SKIP
        """
        from instructcell.notebook import show

        show(self, text)

    def choose(self, positions: Sequence[int], *, evidence: str = "") -> Iterator[Event]:
        """Make cells that were marked in a figure "these cells", event by event.

        Parameters
        ----------
        positions
            Of the cells in their file; the first is 0.
        evidence
            Id of the result that the figure belongs to, which says the file; the current one by default.
        """
        yield from self._taken("choose the marked cells", self._marked(tuple(positions), evidence))

    def use(self, name: str) -> Iterator[Event]:
        """Talk about another of the loaded files, event by event."""
        yield from self._taken(f"use {name}", self._use(name))

    def close_file(self, name: str) -> Iterator[Event]:
        """Forget a loaded file with what was found of it, event by event."""
        yield from self._taken(f"close {name}", self._close(name))

    def _taken(self, text: str, answer: Answer) -> Iterator[Event]:
        """One turn of the conversation, which `undo` takes back as one step."""
        turn = Turn(text)
        self.history.append(turn)
        try:
            with self.workspace.step(text.strip(), (self._last, self._focus, self._topic)):
                for event in answer:
                    _keep(turn, event)
                    yield event
        except InstructCellError as error:
            failed = failure(error)
            _keep(turn, failed)
            yield failed

    def _answer(self, text: str) -> Answer:
        if not text.strip():
            yield TextDelta("There was no question in that. *Help* shows what you can ask.")
            return
        offered = self._resolve(text)
        if offered is not None:
            yield from self._do(offered)
            return
        if (short := ambiguous_name(text)) is not None:
            yield from self._which_type(text, *short)
            return
        if self._last is not None and slots.REPEATS.match(text):
            yield from self._do(self._last if self._last_file == self.name else _anew(self._last))
            return
        for number, part in enumerate(sentences.parts_of(text)):
            if number:
                yield TextDelta("\n\n")
            yield from self._do(self._understood(part.text, corrects=part.corrects))
            if self._offers:
                break

    def _understood(self, text: str, *, corrects: bool = False) -> Request:
        talk = self._talk()
        filled = ellipsis.filled(sentences.spelled_out(self._with_ranked_drug(text)), talk)
        request = intents.understand(
            filled.text,
            router=load_router(),
            labels=self.checkpoint.labels,
            drugs=self.toolbox.answerable,
            obs=None if self.adata is None else self.adata.obs,
            last=self._last,
            topic=self._topic,
            files=self.files,
            current=self.name,
            made=self.generated is not None,
            corrects=corrects or filled.corrects,
            previous=self._previous,
        )
        rank = None if self.adata is None else ellipsis.asks_rank(filled.text, talk)
        return request if rank is None else replace(request, intent=requests.COUNT, wavers=None, rank=rank)

    def _talk(self) -> ellipsis.Talk:
        """What the talk so far supplies to a sentence that leaves it out."""
        clusters: list[str] = []
        if self.adata is not None and (column := cluster_column(self.adata.obs)) is not None:
            clusters = list(self.adata.obs[column].astype(str).value_counts().index)
        types = [] if self.workspace.file is None else types_found(self.toolbox, self.workspace.file)
        made = None
        if self._last is not None and self._last.intent == requests.GENERATE:
            latest = self.workspace.latest("generate")
            made = None if latest is None else int(latest.facts["n"])
        return ellipsis.Talk(self._topic.kind, tuple(map(str, clusters)), tuple(types), made)

    def _of_file(self, request: Request) -> Request:
        """The request without the file's name; the one before once more where nothing is left: "and in pbmc?"."""
        stem = re.escape(request.file.partition(".")[0])
        rest = re.sub(
            rf"(?:{re.escape(request.file)}|\b{stem}\b)(?:\s+(?:file|data\s?set|sample|data))?", " ", request.text
        )
        if not sentences.residue(rest) and self._last is not None:
            return _anew(self._last)
        return replace(self._understood(rest), file="")

    def _with_ranked_drug(self, text: str) -> str:
        """A text with "the first one" after a ranking of drugs replaced by that drug's name."""
        ranked = self.workspace.latest("rank_drugs")
        match = RANKED.search(text)
        if self._last is None or self._last.intent != requests.RANK or ranked is None or match is None:
            return text
        place = {"second": 1, "third": 2}.get(match[1].lower(), 0)
        drugs = [row["drug"] for row in ranked.facts["groups"][0]["drugs"]]
        return f"{text[: match.start()]}{drugs[place]}{text[match.end() :]}" if place < len(drugs) else text

    def _do(self, request: Request) -> Answer:
        """Answer an understood request, or ask back when it is not clear."""
        if request.file and slots.CLOSES_FILE.search(request.text):
            yield from self._close(request.file)
            return
        switches = (
            SWITCHES_FIRST.match(request.text) or request.text.strip() == request.file or _only_names_file(request)
        )
        if request.file and (request.file != self.name or switches):
            result = yield from self._call("use_file", file=request.file)
            if switches or (SWITCHES.search(request.text) and not sentences.ASKS.match(request.text)):
                yield TextDelta(answer_of(result), result.id)
                return
            request = self._of_file(request)
        elif not request.file and slots.WHICH_FILE.search(request.text) and SWITCHES.search(request.text):
            loaded = ", ".join(map(answers.quoted, self.files)) or "none yet"
            yield TextDelta(f"Which file do you mean? Loaded: {loaded}.")
            return
        if request.wavers is not None:
            sure = replace(request, wavers=None)
            self._offers = [sure, replace(sure, intent=request.wavers)]
            first, second = MEANINGS[request.intent], MEANINGS[request.wavers]
            yield TextDelta(
                f"I am not sure what you mean. Shall I **{first}** (the first) or **{second}** (the second)?"
            )
            return
        request = completed(request, self._last, self._topic)
        self._previous = request.intent
        if request.intent in CONTINUED:
            self._last, self._last_file = request, self.name
        self._topic = self._topic.after(request)
        yield from self._flows[request.intent](request)

    def _which_type(self, text: str, written: str, meanings: tuple[str, ...]) -> Answer:
        """Ask back which type a short name means; the answer names it or its place."""
        pattern = re.compile(rf"\b{re.escape(written)}\b")
        self._offers = [self._understood(pattern.sub(f"{meaning}s", text)) for meaning in meanings[:2]]
        first, second = meanings[:2]
        yield TextDelta(
            f"{answers.quoted(written)} may stand for **{first}s** (the first) or **{second}s** (the second): which do "
            "you mean?"
        )

    def _resolve(self, text: str) -> Request | None:
        """The request that was asked back about, if this is the answer to it."""
        offers, self._offers = self._offers, []
        words = set(re.findall(r"\w+", text.lower()))
        if not offers or len(words) > 6:
            return None
        if len(offers) == 1:
            refused = replace(offers[0], drugs=()) if words and words <= NO else None
            return offers[0] if words & YES else refused
        if words & {"second", "2", "latter"}:
            return offers[1]
        named = {mention.id for mention in load_name_book().cell_types(text)}
        if named and offers[0].type_name != offers[1].type_name:
            meant = [one for one in offers if load_name_book().cell_type(one.type_name) in named]
            return meant[0] if len(meant) == 1 else None
        return offers[0] if words & {"first", "1", "former", *YES} else None

    # ---- calling tools and telling what they found

    def _call(self, tool: str, /, **arguments: Any) -> Called:
        """Call a tool; its result is what this turn may talk of, and its cells are the cells talked about."""
        result = yield from self.toolbox.steps(tool, **arguments)
        self.history[-1].results.append(result)
        if isinstance(arguments.get("cells"), Cells):
            self._focus = arguments["cells"]
        return result

    def _tell(self, result: Result, *, text: bool = True) -> Answer:
        """Words first, then tables, then figures, which may take a while to draw."""
        if text:
            yield TextDelta(answer_of(result), result.id)
        for name, table in result.tables.items():
            yield TableReady(name, table, result.id)
        for name, draw in result.figures.items():
            yield Progress(0, 1, f"drawing the {name}")
            yield FigureReady(name, draw(), result.id)
            yield Progress(1, 1, f"drawing the {name}")

    def _ask(self, tool: str, /, **arguments: Any) -> Answer:
        """Call a tool and tell what it found."""
        result = yield from self._call(tool, **arguments)
        yield from self._tell(result)

    def _cells(self, request: Request, *, types: bool = True) -> Generator[Event, None, Cells]:
        """Which cells a request is about: what it says, within the cells talked about if it points at them."""
        said = request.cells or ALL
        if types and request.type_name:
            said = said.model_copy(update={"cell_type": _types_said(request)})
        # "The bright ones" are named, "the unsure ones" are of those talked about.
        ones = ONES.search(request.text) is not None and not (said.column or said.cluster or said.cell_type)
        back = request.points_back or request.points_here or ones
        if slots.THE_OTHERS.search(request.text) and said == ALL and self._focus != ALL:
            return self._focus.model_copy(update={"others": True})
        of_type = self._focus == Cells(cell_type=self._focus.cell_type)
        if request.type_name and of_type and not slots.THE_OTHERS.search(request.text):
            return said  # "alpha cells, how many of them?" after talk of beta cells
        if not back or slots.EVERYTHING.search(request.text) or self._focus == ALL:
            return said
        if said == ALL or said == self._focus:
            return self._focus
        base, given = self._focus.short(), said.short()
        if set(ORDER) & {*base, *given} or set(base) & set(given):
            kept = yield from self._call("select", cells=self._focus)
            assert kept.selection is not None
            return said.model_copy(update={"selection": kept.selection.name})
        return Cells(**{**base, **given})

    def _needs_cells(self, reason: str) -> Answer:
        yield TextDelta(f"{reason} Upload an .h5ad, a 10x .h5 or a .csv/.tsv table, or pick an example.")

    # ---- what are these cells?

    def _annotate(self, request: Request) -> Answer:
        if self.adata is None:
            yield from self._needs_cells("To name cell types I need cells.")
            return
        points = request.points_back or (
            request.points_here
            and (request.intent == requests.SUBSET or self.workspace.selected or self._focus == self._compared)
        )
        if request.intent == requests.SUBSET and request.cells is None and not points:
            groups = {name: sorted(values.unique()) for name, values in groupings(self.adata.obs).items()}
            yield TextDelta(answers.which_cells_text(self.adata.n_obs, groups))
            return
        if not points:
            request = replace(request, points_here=False)
        if request.rank is not None:
            yield from self._ranked(request.rank, request)
            return
        counted = slots.COUNTS.search(request.text) or slots.COMPOSITION.search(request.text)
        if counted and request.column and not request.labels:
            yield from self._count(request)
            return
        cells = yield from self._cells(request, types=False)
        counts = request.type_name and not request.labels
        if counts and (cells == ALL or slots.COUNTS.search(request.text) or AMONG.search(request.text)):
            yield from self._share(request, cells)
            return
        yield from self._look(cells)
        yield from self._ask("annotate", cells=cells, **_given(request, "labels", "tissue", "species"))

    def _look(self, cells: Cells) -> Answer:
        """The opening of an annotation, unless it is known already."""
        look = yield from self._call("first_look", cells=cells)
        yield TextDelta(answer_of(look))

    def _share(self, request: Request, cells: Cells) -> Answer:
        """How many cells of one type there are, with the markers that say so."""
        if self.annotation is None:
            yield from self._look(ALL)
            result = yield from self._call("annotate", **_given(request, "tissue", "species"))
            found = yield from self._call("count_cells", cells=cells, cell_type=request.type_name)
            yield TextDelta(f"\n\n{answer_of(found)}", found.id)
            yield from self._tell(result)
        else:
            found = yield from self._call("count_cells", cells=cells, cell_type=request.type_name)
            yield TextDelta(answer_of(found), found.id)
        self._focus = cells.model_copy(update={"cell_type": request.type_name}) if not cells.cell_type else cells

    def _explain(self, request: Request) -> Answer:
        if self.adata is None:
            yield from self._needs_cells("To explain a label I need cells.")
            return
        subject, why_not = _subject_and_rival(request)
        named = Cells() if request.cells is None else request.cells
        cells = named if named != ALL else self._focus
        if subject and (cells == ALL or (why_not and not (request.points_back or request.points_here))):
            cells = Cells(cell_type=subject)
        yield from self._ask("explain", cells=cells, why_not=why_not)

    def _count(self, request: Request) -> Answer:
        """How many there are: of several types, by group, of the chosen cells, or all but a type."""
        if self.adata is None:
            yield from self._needs_cells("To count cells I need some.")
            return
        if request.rank is not None and not request.types:
            yield from self._ranked(request.rank, request)
            return
        cells = yield from self._cells(request, types=False)
        column = request.column
        if not column and slots.WHICH_GROUP_HAS.search(request.text):
            column = self._grouping_said(request.text)
        if column == tools.CELL_TYPE and not request.type_name:
            column = ""
        types = request.types or ((request.type_name,) if request.type_name else ())
        for name in types:
            if self.checkpoint.labels.find(name) is None and load_name_book().cell_type(name) is None:
                resolve_type(self.toolbox, name)
        if slots.BOTH.search(request.text) and not types:
            types, cells = self._topic.types or tuple(group.cell_type for group in self._topic.groups), ALL
        if slots.NOT_OF_TYPE.search(request.text) and types:
            cells, types = cells.model_copy(update={"cell_type": EITHER.join(types), "others": True}), ()
        if not column and len(types) < 2 and not (types or cells != ALL):
            cells = self._focus
        for number, name in enumerate(types or ("",)):
            if number:
                yield TextDelta("\n")
            yield from self._ask("count_cells", cells=cells, cell_type=name, by=column)
        if len(types) == 1 and not cells.cell_type:
            self._focus = cells.model_copy(update={"cell_type": types[0]})
        elif types and not cells.cell_type:
            self._focus = cells.model_copy(update={"cell_type": EITHER.join(types)})

    def _ranked(self, rank: ellipsis.Rank, request: Request) -> Answer:
        """Which group is the largest, or has another place by size; it is what is talked of from then on."""
        assert self.adata is not None
        column = request.column
        if not column and rank.kind == ellipsis.CLUSTER:
            column = cluster_column(self.adata.obs) or OWN_CLUSTERS
        if self.annotation is None:
            yield from self._call("annotate")
        result = yield from self._call("count_cells", by=column, place=rank.place)
        yield from self._tell(result)
        named = result.facts["named"]
        if not column:
            self._focus, self._topic = Cells(cell_type=named), replace(self._topic, types=(named,))
        elif rank.kind == ellipsis.CLUSTER:
            self._focus = Cells(cluster=named)
        else:
            self._focus = Cells(column=column, value=named)

    def _grouping_said(self, text: str) -> str:
        """The column that "which cluster", "which donor" means."""
        match = re.search(r"\b(?:which|what)\s+(?:\w+\s+)?(\w+?)s?\b", text, re.IGNORECASE)
        assert self.adata is not None
        for word in re.findall(r"\w+", text)[:6]:
            if match and (column := slots.find_column(f"by {word}", self.adata.obs)):
                return column
        return ""

    # ---- the file

    def _describe(self, request: Request) -> Answer:
        if self.adata is None:
            yield from self._needs_cells("No data is loaded yet.")
            return
        yield from self._ask("describe")

    def _use(self, name: str) -> Answer:
        """Words only: where the cells are shown, their card is."""
        result = yield from self._call("use_file", file=name)
        yield TextDelta(answer_of(result), result.id)

    def _close(self, name: str) -> Answer:
        result = yield from self._call("close_file", file=name)
        self._foci.pop(name, None)
        self._last, self._offers = None, []
        yield from self._tell(result)

    def _quality(self, request: Request) -> Answer:
        if self.adata is None:
            yield from self._needs_cells("To judge the quality I need cells.")
            return
        cells = yield from self._cells(request)
        column = request.column
        if not column and cells == ALL and slots.EACH_GROUP.search(request.text):
            column = self._grouping_said(request.text)
        yield from self._prepare(column)
        yield from self._ask("quality", cells=cells, by=column)

    def _cluster(self, request: Request) -> Answer:
        if self.adata is None:
            yield from self._needs_cells("To cluster I need cells.")
            return
        before = self.workspace.latest("cluster", file=self.name)
        resolution = 1.0 if before is None else float(before.facts["resolution"])
        if match := slots.RESOLUTION.search(request.text):
            resolution = float(match[1])
        elif re.search(r"\b(?:finer|higher|more|smaller|double|twice)\b", request.text, re.IGNORECASE):
            resolution *= FINER
        elif re.search(r"\b(?:coarser|lower|fewer|larger|bigger|half|halve)\b", request.text, re.IGNORECASE):
            resolution /= FINER
        yield from self._ask("cluster", resolution=resolution)

    def _select(self, request: Request) -> Answer:
        if self.adata is None:
            yield from self._needs_cells("To choose cells I need some.")
            return
        if slots.BRINGS_BACK.search(request.text) and self._chose_last():
            yield from self._undo(request)
            return
        said = ALL if slots.EVERYTHING.search(request.text) and not request.genes else self._said(request)
        if said == ALL and slots.OTHERS.search(request.text) and request.points_back and self._focus != ALL:
            said = self._focus.model_copy(update={"others": not self._focus.others})  # "drop them"
        elif said == ALL and not slots.EVERYTHING.search(request.text) and slots.THE_OTHERS.search(request.text):
            said = self._focus.model_copy(update={"others": not self._focus.others})
        elif (
            said == ALL
            and not slots.EVERYTHING.search(request.text)
            and not re.search(r"\ball\b|\bevery\b", request.text, re.IGNORECASE)
            and not (request.points_back or request.points_here)
        ):
            groups = {name: sorted(values.unique()) for name, values in groupings(self.adata.obs).items()}
            yield TextDelta(answers.which_cells_text(self.adata.n_obs, groups))
            return
        elif slots.OTHERS.search(request.text) and not slots.EVERYTHING.search(request.text):
            said = said.model_copy(update={"others": True})
        cells: Cells | None = None
        try:
            cells = yield from self._within(request, said)
            result = yield from self._call("select", cells=cells)
        except InstructCellError:
            if cells == said:
                raise
            result = yield from self._call("select", cells=said)
        if result.selection is not None:
            kept = self.workspace.selected
            self._focus = Cells(selection=kept.name) if kept is not None else ALL
        yield from self._tell(result)

    def _chose_last(self) -> bool:
        """Whether the last step that can be taken back chose or excluded cells."""
        changes = [step.tool for step in self.workspace.state.steps if step.tool in CHANGING]
        return changes[-1:] == ["select"] and bool(self.workspace.undoable)

    def _marked(self, positions: tuple[int, ...], evidence: str) -> Answer:
        if not positions:
            raise InstructCellError(
                "No cell is marked. Draw around some cells of the map with the lasso, then ask again"
            )
        file = self.workspace.result(evidence).file if evidence else self.name
        result = yield from self._call("select", cells=Cells(file=file, positions=positions))
        kept = self.workspace.selected
        self._focus = Cells(selection=kept.name) if kept is not None else ALL
        self._offers = []
        yield from self._tell(result)

    def _said(self, request: Request) -> Cells:
        """The conditions that a request states, a gene among them."""
        said = request.cells or ALL
        if request.type_name:
            said = said.model_copy(update={"cell_type": _types_said(request)})
        if request.genes:
            said = said.model_copy(update={"expresses": request.genes[0]})
        return said

    def _within(self, request: Request, said: Cells) -> Generator[Event, None, Cells]:
        """The conditions within the cells talked about, if the request points at them."""
        return (yield from self._cells(replace(request, cells=None if said == ALL else said, type_name="")))

    def _map(self, request: Request) -> Answer:
        if self.adata is None:
            yield from self._needs_cells("To draw a map I need cells.")
            return
        colour = request.genes[0] if request.genes else request.column
        if not colour and re.search(r"\bclusters?\b(?!\s*\d)", request.text, re.IGNORECASE):
            colour = "cluster"
        if not colour and (request.points_back or request.points_here or request.cells or request.type_name):
            cells = yield from self._cells(request)
            yield from self._ask("draw_map", cells=cells)
            return
        yield from self._ask("draw_map", colour=colour)

    # ---- genes and groups

    def _find(self, request: Request) -> Answer:
        if self.adata is None:
            yield from self._needs_cells("To find cells I need some.")
            return
        if request.genes and slots.EXPRESSES.search(request.text):
            yield from self._select(request)
            return
        phrase = re.sub(
            r"^\W*(?:(?:and|now|also|then|what\s+about|how\s+about)\s+)+", "", request.text, flags=re.IGNORECASE
        )
        phrase = ONES.sub("cells", LEADS.sub("", phrase)).strip(" ?.!") or request.text
        cells = self._focus if AMONG.search(request.text) else ALL
        result = yield from self._call("find_by_text", text=AMONG.sub("", phrase).strip(), cells=cells)
        if result.selection is not None:
            self._focus = Cells(selection=result.selection.name)
        yield from self._tell(result)

    def _expression(self, request: Request) -> Answer:
        if not request.genes:
            yield TextDelta("Which gene do you mean? Name it by its symbol, such as *GCG*.")
            return
        if self.adata is None:
            yield from self._knowledge(request)
            return
        cells = yield from self._cells(request)
        within = self._selected_by_words() if cells == ALL and not _everywhere(request.text) else None
        cells = cells if within is None else within
        column = request.column
        if not column and slots.EACH_GROUP.search(request.text) and slots.MOST_OF_IT.search(request.text):
            column = self._grouping_said(request.text)
        yield from self._prepare(column)
        yield from self._ask("expression", cells=cells, genes=request.genes, by=column)
        named = slots.WHICH_EXPRESS.search(request.text) and not slots.COUNTS.search(request.text)
        if named and len(request.genes) == 1:  # "which cells have GHRL?", "those"
            self._focus = cells.model_copy(update={"expresses": request.genes[0]})
        if within is not None:
            yield TextDelta("\nThis is within the chosen cells; say *in all cells* to ask about all of them.\n")

    def _selected_by_words(self) -> Cells | None:
        """The cells that were chosen last, if cells are chosen; those that a search found are not chosen by it."""
        kept = self.workspace.selected
        chose = [step.tool for step in self.workspace.state.steps if step.tool in ("select", "find_by_text")]
        return Cells(selection=kept.name) if kept is not None and chose[-1:] == ["select"] else None

    def _prepare(self, column: str) -> Answer:
        """Make the answers that a column of ours holds, where it is not there."""
        assert self.adata is not None
        if column == tools.CELL_TYPE and tools.CELL_TYPE not in self.workspace.written(self.name):
            yield from self._call("annotate")
        if column == OWN_CLUSTERS and OWN_CLUSTERS not in self.adata.obs:
            yield from self._call("cluster")

    def _compare(self, request: Request) -> Answer:
        if self.adata is None:
            yield from self._needs_cells("To compare groups I need cells.")
            return
        groups = request.groups
        if len(groups) == 1 and groups[0] != self._focus and slots.POINTS_BACK.search(request.text):
            groups = (self._focus, *groups) if self._focus != ALL else groups
        if not groups and self._focus != ALL:
            groups = (self._focus,)
        if request.column and len(groups) < 2:
            cells = yield from self._cells(request)
            yield from self._prepare(request.column)
            yield from self._ask("compare", cells=cells, by=request.column, genes=request.genes)
            return
        if not groups:
            yield TextDelta(
                "Which groups shall I compare? Name two, such as *compare B cells with T cells*, or one against the "
                "rest: *what is special about cluster 1?*"
            )
            return
        if len(request.groups) > 1 and (request.points_back or request.points_here):
            groups = tuple(self._of_these(group) for group in groups)
        against = groups[1] if len(groups) > 1 else None
        if against is None and slots.ONLY_IN.search(request.text):
            against = self._rest_of_type(groups[0])
        yield from self._ask("compare", cells=groups[0], against=against, genes=request.genes)
        yield from self._now_both(groups)

    def _of_these(self, group: Cells) -> Cells:
        """A group within the cells talked about, where it says something else: "treated vs vehicle in those"."""
        base, given = self._focus.short(), group.short()
        clash = {*base} & {*given} or {"others", *ORDER} & {*base, *given} or {"cell_type", "selection"} & {*given}
        return group if clash else Cells(**{**base, **given})

    def _rest_of_type(self, group: Cells) -> Cells | None:
        """The cells of the same type in the other groups: "only in the monocytes" holds monocytes against monocytes."""
        assert self.adata is not None
        column = group.column or (cluster_column(self.adata.obs) if group.cluster else None)
        if not group.cell_type or not column:
            return None
        said = set((group.value or group.cluster).split(EITHER))
        others = [value for value in self.adata.obs[column].astype(str).unique() if value not in said]
        return Cells(cell_type=group.cell_type, column=column, value=EITHER.join(others)) if others else None

    def _now_both(self, groups: tuple[Cells, ...]) -> Answer:
        """After two groups were compared, "these cells" are the cells of both, and that is said."""
        self._topic = replace(self._topic, groups=groups if len(groups) > 1 else self._topic.groups)
        both = slots.either(groups) if len(groups) > 1 else None
        if both is not None:
            self._focus = self._compared = both
            yield TextDelta(
                "\n*These cells* now means both groups; say *the first group* or *the second group* for one of them.\n"
            )

    # ---- new cells

    def _generate(self, request: Request) -> Answer:
        if len(request.types) > 1 and request.cells is None:
            yield from self._generate_each(request)
            return
        like = request.cells
        if like is None and (request.like or (request.points_back and request.cell_type is None)):
            like = self._focus
        named = request.cell_type.name if request.cell_type else request.unknown_type
        if named is None and (like is None or self.adata is None):
            yield TextDelta(f"Which cell type shall I generate? I can do: {'; '.join(self.toolbox.able)}.")
            return
        usual = 1 if slots.ONE.search(request.text) else USUAL_PSEUDO_CELLS
        n = usual if request.n is None else request.n
        if n < 1:
            raise InstructCellError(f"found n={n}, expected at least 1 pseudo-cell; ask for 1 or more")
        if n > MOST_PSEUDO_CELLS:
            raise InstructCellError(
                f"{n:,} pseudo-cells were asked for, expected at most {MOST_PSEUDO_CELLS:,} in one answer. "
                "Ask for fewer, or use the command line: instructcell generate."
            )
        if named is not None:
            named = tools.find_generable(self.checkpoint.labels, named).name
        seed = self.workspace.state.n_generations if request.seed is None else request.seed
        given = _given(request, "tissue", "species", "library_size")
        result = yield from self._call("generate", cell_type=named, n=n, like=like, seed=seed, **given)
        yield from self._tell(result)
        assert result.cells is not None
        yield CellsGenerated(result.cells)
        if request.on_map and self.adata is not None:
            yield TextDelta("\n")
            yield from self._ask("compare_with_real")

    def _generate_each(self, request: Request) -> Answer:
        """Pseudo-cells of several types, one after the other."""
        numbers = numbers_of_types(request.text, self.checkpoint.labels)
        for name in request.types:
            label = tools.find_generable(self.checkpoint.labels, name)
            one = replace(request, types=(label.name,), type_name=label.name, cell_type=label)
            yield from self._generate(replace(one, n=numbers.get(name, request.n)))
            yield TextDelta("\n")

    def _compare_real(self, request: Request) -> Answer:
        if self.generated is None:
            yield TextDelta("There are no pseudo-cells yet. Ask for some first: *generate 50 B cells*.")
            return
        if self.adata is None:
            yield from self._needs_cells("To compare them I need real cells.")
            return
        yield from self._ask("compare_with_real", cells=request.cells)

    # ---- drugs

    def _drug(self, request: Request) -> Answer:
        names = ", ".join(self.toolbox.drugs.names)
        if not request.drugs:
            n = len(self.toolbox.screen.drugs)
            whom = f" for {answers.quoted(request.type_name)}" if request.type_name else ""
            yield TextDelta(f"Which drug do you mean{whom}? I know {names}, and {n:,} drugs of cell-line screens.")
            return
        known = list({mention.drug.name: mention.drug for mention in request.drugs if mention.drug}.values())
        yield from self._refuse_drugs(request, bool(known))
        if known and self.adata is None:
            for drug in known:
                facts = {"target": drug.target, "studies": list(drug.studies), "drug_note": drug.note}
                own = self.toolbox.drugs.find(drug.name) is not None
                how = "I was trained on" if own else "of the cell-line screens I learned from"
                yield TextDelta(f"**{drug.name}** is a drug {how}.{answers.drug_facts_text(facts)}\n")
            yield from self._needs_cells("To predict a response I need cells.")
            return
        if not known:
            return
        cells = yield from self._cells(request)
        for drug in known:
            yield from self._response(drug, cells, "drug response" if len(known) == 1 else f"response to {drug.name}")
        if len(known) > 1:
            yield TextDelta("\nEach drug was read by itself; what they do together is not predicted.\n")

    def _refuse_drugs(self, request: Request, others_known: bool) -> Answer:
        """Refuse each drug that is not known by its name; a likely typing error is asked back."""
        unknown = [mention for mention in request.drugs if mention.drug is None]
        if not unknown:
            return
        drugs = self.toolbox.drugs
        meant = {mention.meant.name: mention.meant for mention in unknown if mention.meant is not None}
        if len(meant) == 1:
            (drug,) = meant.values()
            self._offers = [replace(request, drugs=(replace(request.drugs[0], drug=drug, meant=None),))]
            if not others_known and len(unknown) == 1:
                yield TextDelta(
                    f"{answers.quoted(unknown[0].written)} is not a drug I was trained on. "
                    f"Did you mean **{drug.name}**? (*Yes*, or name one of: {', '.join(drugs.names)}.)"
                )
                return
        written, screened = list(dict.fromkeys(mention.written for mention in unknown)), self.toolbox.screen.drugs
        refusal = " ".join([drugs.refusal(written), *map(screened.refusal, written)])
        if not meant and len(written) == 1 and (near := screened.misspelt(written[0])) is not None:
            self._offers = [replace(request, drugs=(replace(unknown[0], drug=as_drug(near)),))]  # for "yes"
        if not others_known:
            raise DrugError(refusal)
        yield TextDelta(f"{refusal}\n\n")

    def _response(self, drug: Drug, cells: Cells, title: str) -> Answer:
        """Predict the response of the chosen cells to one drug; `title` names its table and figure."""
        yield TextDelta(f"Reading the cells for their response to {drug.name}.\n\n")
        result = yield from self._call("drug_response", drug=drug.name, cells=cells)
        own = f"response to {drug.name}"
        renamed = replace(
            result,
            tables={title if name == own else name: table for name, table in result.tables.items()},
            figures={title if name == own else name: draw for name, draw in result.figures.items()},
        )
        yield from self._tell(renamed)

    def _rank(self, request: Request) -> Answer:
        if self.adata is None:
            yield from self._needs_cells("To rank drugs I need cells.")
            return
        yield TextDelta("Ranking the drugs of the cell-line screens.\n\n")
        if len(request.groups) > 1:
            yield from self._ask("rank_drugs", cells=request.groups[0], against=request.groups[1])
            return
        cells = yield from self._cells(request)
        yield from self._prepare(request.column)
        yield from self._ask("rank_drugs", cells=cells, by=request.column)

    def _compare_drug(self, request: Request) -> Answer:
        if self.adata is None:
            yield from self._needs_cells("To compare groups I need cells.")
            return
        drug = next((mention.drug for mention in request.drugs if mention.drug is not None), None)
        if drug is None:  # refused by its name, or asked for
            yield from self._drug(request)
            return
        groups = request.groups
        if len(groups) > 1 or (groups and not request.column):
            against = groups[1] if len(groups) > 1 else None
            yield from self._ask("compare_drug", drug=drug.name, cells=groups[0], against=against)
            yield from self._now_both(groups)
            return
        by = request.column or self._grouping_said(request.text) or tools.CELL_TYPE
        yield from self._prepare(by)
        yield from self._ask("compare_drug", drug=drug.name, by=by)

    def _drug_facts(self, request: Request) -> Answer:
        """What is known of drugs: names, targets, how well their predictions hold."""
        known = [mention.drug.name for mention in request.drugs if mention.drug is not None]
        target = slots.TARGET_CLASS.search(request.text)
        asked = known[0] if known else target[1] if target else ""
        if asked.lower() in ("drug", "any", "which", "other", "an", "the", "kinase"):
            asked = "" if asked.lower() != "kinase" else asked
        yield from self._ask("known_drugs", query=asked)

    # ---- knowledge

    def _knowledge(self, request: Request) -> Answer:
        question = request.text
        if request.type_name and not answer_knowledge(question).supported:
            question = f"what marks a {request.type_name}?"
        elif request.gene and not answer_knowledge(question).supported:
            question = f"what does {request.gene} do?"
        result = yield from self._call("knowledge", question=question)
        tables = dict(result.tables) if request.intent == requests.MARKERS else {}
        yield from self._tell(replace(result, tables=tables))
        if request.intent == requests.MARKERS and result.facts["supported"] and "markers" in result.tables:
            top = tuple(map(str, result.tables["markers"]["gene"].head(MARKERS_IN_TALK)))
            self._topic = replace(self._topic, genes=top)  # "is it in my cells?"
        label = request.cell_type
        if request.intent == requests.MARKERS and label is not None and result.facts["supported"] and self.annotation:
            found = yield from self._call("count_cells", cell_type=label.name)
            if found.notes:
                yield TextDelta(f"\nIn your cells called {found.notes[0]}\n", found.id)

    # ---- the rest

    def _download(self, request: Request) -> Answer:
        low = request.text.lower()
        what = next((what for what, words in EXPORTS.items() if re.search(words, low)), "")
        pseudo = self.generated is not None and (self.latest is None or self._made_last())
        if not what and pseudo:
            assert self.generated is not None
            yield TextDelta("Here are the pseudo-cells of the last request. ")
            yield CellsGenerated(self.generated)
            what = "pseudo"
        elif not what and self.latest is not None:
            yield TextDelta(
                "The cells with all results so far are saved as .h5ad; the counts are unchanged, and cells that were "
                "not asked about have no entry. *Export all this* hands out tables and a script as well. "
            )
            what = "annotated"
        elif not what and not any(result.tables for result in self.workspace.state.results):
            yield TextDelta("There is nothing to hand out yet: ask for cell types or for new cells first.")
            return
        result = yield from self._call("export", what=what or "tables")
        yield from self._tell(result)
        yield FilesReady(result.payload)

    def _made_last(self) -> bool:
        """Whether the pseudo-cells are younger than what was written into the file."""
        made = self.workspace.latest("generate", *WRITING)
        return made is not None and made.tool == "generate"

    def _undo(self, request: Request) -> Answer:
        result = yield from self._call("undo")
        if result.payload is not None and result.payload.mark is not None:
            self._last, self._focus, self._topic = result.payload.mark
        yield from self._tell(result)

    def _restart(self, request: Request) -> Answer:
        result = yield from self._call("restart")
        self._forget()
        yield from self._tell(result)

    def _forget(self) -> None:
        self._last, self._previous, self._offers, self._topic, self._compared = None, "", [], Topic(), None
        self._foci.clear()

    def _help(self, request: Request) -> Answer:
        yield from self._ask("help")

    def _small_talk(self, request: Request) -> Answer:
        loaded = f" {answers.titled(self.name)} is loaded." if self.adata is not None else ""
        yield TextDelta(
            f"Hello! I read single-cell expression: cell types, new cells, drug response, markers.{loaded} "
            "Ask me something about cells, or say *help*."
        )

    def _out_of_scope(self, request: Request) -> Answer:
        names = load_name_book()
        asks_other = slots.INJECTION.search(request.text) or slots.NOT_READ.search(request.text)
        if (names.genes(request.text) or names.cell_types(request.text)) and not asks_other:
            result = yield from self._call("knowledge", question=request.text[:2000])
            if result.facts["supported"]:
                yield TextDelta(answer_of(result))
                return
        yield TextDelta(
            "I cannot answer that. I name cell types, generate cells, predict responses to the drugs I know, and look "
            "up marker genes and gene functions; *help* shows examples."
        )


EXPORTS = {
    "pseudo": r"\b(?:pseudo-?\s?cells?|(?:generated|synthetic|simulated|fake|new)\s+(?:cells?|ones))\b",
    "script": r"\b(?:script|code|reproduce|repeat these|python)\b",
    "conversation": r"\b(?:conversation|chat|transcript|dialog(?:ue)?|html)\b",
    "all": r"\b(?:all|everything|results|session|zip)\b",
    "figures": r"\b(?:figures?|plots?|pictures?|drawings?|images?)\b",
    "tables": r"\b(?:tables?|csv|excel|spreadsheet|list)\b",
}


def _subject_and_rival(request: Request) -> tuple[str, str]:
    """The type that is asked about and the one it is held against: "why are they NK and not T cells?"."""
    names = list(request.types) or ([request.type_name] if request.type_name else [])
    if not names:
        return "", ""
    if len(names) > 1:
        return names[0], names[1]
    against = request.why_not or slots.WHY_NOT.search(request.text) or slots.CHALLENGES.search(request.text)
    held = request.cells is not None and slots.DOUBT.search(request.text) and not slots.CHALLENGES.search(request.text)
    return ("", names[0]) if against and not held else (names[0], "")


def _everywhere(text: str) -> bool:
    """Whether a sentence says that all cells are meant."""
    return slots.EVERYTHING.search(text) is not None or slots.IN_EVERYTHING.search(text) is not None


def _only_names_file(request: Request) -> bool:
    """Whether a sentence says no more than which file: "other file now, the islets"."""
    if not request.file or not slots.WHICH_FILE.search(request.text):
        return False
    names = re.findall(r"[a-z0-9]+", request.file.lower())
    rest = re.sub(
        rf"\b(?:{'|'.join(map(re.escape, names))}|{slots.FILES}|next|previous)\b", " ", request.text, flags=re.I
    )
    return not sentences.ASKS.match(request.text) and not sentences.residue(rest)


def _anew(request: Request) -> Request:
    """A request for another file: what it said of cells of the one before is left out."""
    return replace(request, cells=None, selection=None, points_back=False, points_here=False, groups=(), file="")


def failure(error: InstructCellError) -> Failed:
    """An error as an event: what is wrong, and what to do about it."""
    text = str(error).strip()
    for separator in (". ", "; "):
        message, found, remedy = text.rpartition(separator)
        if found:
            return Failed(message + separator.strip().replace(";", "."), remedy[:1].upper() + remedy[1:])
    return Failed(text)


def _types_said(request: Request) -> str:
    """The types that a request is about as `Cells` takes them: one, or all of a list."""
    listed = request.types if request.type_name in request.types else ()
    return EITHER.join(listed) if len(listed) > 1 else request.type_name


def _given(request: Request, *names: str) -> dict[str, Any]:
    """The slots of a request that are filled."""
    return {name: value for name in names if (value := getattr(request, name)) not in (None, (), "")}


def _keep(turn: Turn, event: Event) -> None:
    if isinstance(event, TextDelta):
        turn.answer += event.text
    elif not isinstance(event, Progress):
        turn.events.append(event)
