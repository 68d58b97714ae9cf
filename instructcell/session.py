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
from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

from anndata import AnnData

from instructcell import answers, ellipsis, intents, requests, sentences, slots
from instructcell.answers import answer_of
from instructcell.checkpoint import Checkpoint
from instructcell.errors import InstructCellError
from instructcell.events import Event, Failed, FigureReady, Progress, TableReady, TextDelta
from instructcell.flows import FLOWS, choosing, files
from instructcell.flows.conversation import Answer, Conversation, Turn
from instructcell.following import completed
from instructcell.generation import begins_with_cells
from instructcell.grounds import Ground, grounds_of, reveal
from instructcell.output import write_h5ad
from instructcell.requests import Request, Topic
from instructcell.retrieval import load_index
from instructcell.retrieval.names import ambiguous_name, load_name_book
from instructcell.router import load_router
from instructcell.toolbox.arguments import ALL
from instructcell.toolbox.cells import cluster_column
from instructcell.toolbox.core import stamp_of
from instructcell.toolbox.data import card
from instructcell.toolbox.desk import examples, types_found
from instructcell.transcript import conversation_html
from instructcell.workspace import DataFile

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
    requests.EMBED: "embed the cells",
}
# A later "and 10 more" goes on from these; a download or a greeting in between changes nothing.
CONTINUED = (
    requests.ANNOTATE, requests.SUBSET, requests.GENERATE, requests.DRUG, requests.MARKERS, requests.GENE,
    requests.QUALITY, requests.EXPLAIN, requests.EXPRESSION, requests.RANK, requests.SELECT, requests.FIND,
    requests.COMPARE, requests.CLUSTER, requests.COMPARE_DRUG, requests.COUNT, requests.MAP,
)  # fmt: skip
ANALYSES = (
    requests.COMPARE, requests.COMPARE_DRUG, requests.EXPRESSION, requests.QUALITY, requests.RANK, requests.DRUG,
)  # fmt: skip
YES, NO = {"yes", "yep", "sure", "correct", "right"}, {"no", "nope"}
UNASKED = (  # what a sentence that only names a file is taken for
    requests.SELECT, requests.HELP, requests.SMALL_TALK, requests.OUT_OF_SCOPE, requests.DESCRIBE, requests.RANK,
    requests.DOWNLOAD, requests.UNDO, requests.RESTART,
)  # fmt: skip
SWITCHES = re.compile(
    r"\b(?:switch|use|go|change|back|talk|open|turn|begin|start|work|continue)\b.*\b(?:to|about|with|on|file|data\s?set|sample|use)\b"
    r"|^\W*use\b",
    re.I,
)
SWITCHES_FIRST = re.compile(
    r"^\W*(?:(?:please|now|ok|okay|and|then|let'?s|let us|can (?:you|we)|could (?:you|we)|i want to)\W+)*"
    r"(?:use|take|switch|go|change|return|back|work\s+(?:with|on)|set|make|activate)\b",
    re.I,
)
SHORTEST_REQUEST = 2  # words behind what is out of scope that are no request of their own
RANKED = re.compile(r"\b(?:the\s+)?(first|top|best|second|third)\s+(?:one|drug|hit|of\s+them|on\s+the\s+list)\b", re.I)


class Session(Conversation):
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
        super().__init__(checkpoint, folder)
        self.toolbox.transcript = self.transcript
        if adata is not None:
            self.toolbox.open(adata, "the data")

    # ---- what is there

    def grounds(self, evidence: str) -> tuple[Ground, ...]:
        """The tables and figures in which the claims of a result can be checked; none when it was taken back."""
        return grounds_of(evidence, self.workspace, self.told) if evidence in self.evidence else ()

    def reveal(self, ground: Ground) -> TableReady | FigureReady:
        """Show a table or figure again.

        Raises
        ------
        InstructCellError
            Its result was taken back.
        """
        return reveal(ground, self.workspace, self.told)

    def file_of(self, evidence: str) -> str:
        """The file that a result is about; "" when it is about none."""
        return self.workspace.result(evidence).file

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
        self.focus, self.last, self.offers, self.topic, self.compared = ALL, None, [], Topic(), None
        self.kept = None
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
        self.forget()

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
        yield from self._taken("choose the marked cells", choosing.marked(self, tuple(positions), evidence))

    def use(self, name: str) -> Iterator[Event]:
        """Talk about another of the loaded files, event by event."""
        yield from self._taken(f"use {name}", files.use(self, name))

    def close_file(self, name: str) -> Iterator[Event]:
        """Forget a loaded file with what was found of it, event by event."""
        yield from self._taken(f"close {name}", files.close(self, name))

    def _taken(self, text: str, answer: Answer) -> Iterator[Event]:
        """One turn of the conversation, which `undo` takes back as one step."""
        turn = Turn(text)
        self.history.append(turn)
        try:
            with self.workspace.step(text.strip(), (self.last, self.focus, self.topic, self.kept)):
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
            written, meanings = short
            called = [name for name in meanings if name in self._talk().types]
            if len(called) != 1:
                yield from self._which_type(text, written, meanings)
                return
            text = re.sub(rf"\b{re.escape(written)}\b", f"{called[0]}s", text)
        if self.last is not None and slots.REPEATS.match(text):
            yield from self._do(self.last if self.last_file == self.name else _anew(self.last))
            return
        refused = False
        for number, part in enumerate(sentences.parts_of(text)):
            if refused and len(part.text.split()) <= SHORTEST_REQUEST:
                continue  # "phone the clinic and tell them"
            if number:
                yield TextDelta("\n\n")
            request = self._understood(part.text, corrects=part.corrects)
            refused = request.intent == requests.OUT_OF_SCOPE
            yield from self._do(request)
            if self.offers:
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
            last=self.last,
            topic=self.topic,
            files=self.files,
            current=self.name,
            made=self.generated is not None,
            corrects=corrects or filled.corrects,
            previous=self.previous,
            makes_cells=partial(begins_with_cells, self.checkpoint.model, self.checkpoint.processor),
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
        if self.last is not None and self.last.intent == requests.GENERATE:
            latest = self.workspace.latest("generate")
            made = None if latest is None else int(latest.facts["n"])
        analysed = self.last is not None and self.last.intent in ANALYSES
        return ellipsis.Talk(self.topic.kind, tuple(map(str, clusters)), tuple(types), made, analysed)

    def _of_file(self, request: Request) -> Request:
        """The request without the file's name; the one before once more where nothing is left: "and in pbmc?"."""
        stem = re.escape(request.file.partition(".")[0])
        rest = re.sub(
            rf"(?:{re.escape(request.file)}|\b{stem}\b)(?:\s+(?:file|data\s?set|sample|data))?", " ", request.text
        )
        if tissue := _tissue_of(request):
            rest = re.sub(rf"\b{tissue}\b", " ", rest, flags=re.IGNORECASE)
        if not sentences.residue(rest) and self.last is not None:
            return _anew(self.last)
        return replace(self._understood(rest), file="")

    def _with_ranked_drug(self, text: str) -> str:
        """A text with "the first one" after a ranking of drugs replaced by that drug's name."""
        ranked = self.workspace.latest("rank_drugs")
        match = RANKED.search(text)
        if self.last is None or self.last.intent != requests.RANK or ranked is None or match is None:
            return text
        place = {"second": 1, "third": 2}.get(match[1].lower(), 0)
        drugs = [row["drug"] for row in ranked.facts["groups"][0]["drugs"]]
        return f"{text[: match.start()]}{drugs[place]}{text[match.end() :]}" if place < len(drugs) else text

    def _do(self, request: Request) -> Answer:
        """Answer an understood request, or ask back when it is not clear."""
        if request.file and slots.CLOSES_FILE.search(request.text):
            yield from files.close(self, request.file)
            return
        switches = (
            SWITCHES_FIRST.match(request.text) or request.text.strip() == request.file or _only_names_file(request)
        )
        switches = switches or _only_chooses_file(request) or _only_names_tissue(request)
        if request.file and (request.file != self.name or switches):
            result = yield from self.call("use_file", file=request.file)
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
            self.offers = [sure, replace(sure, intent=request.wavers)]
            first, second = MEANINGS[request.intent], MEANINGS[request.wavers]
            yield TextDelta(
                f"I am not sure what you mean. Shall I **{first}** (the first) or **{second}** (the second)?"
            )
            return
        request = completed(request, self.last, self.topic)
        self.previous = request.intent
        if request.intent in CONTINUED:
            self.last, self.last_file = request, self.name
        self.topic = self.topic.after(request)
        self.narrowed = False
        yield from FLOWS[request.intent](self, request)
        if self.narrowed and self.kept is not None and request.intent != requests.SELECT:
            yield TextDelta("\nThis is within the chosen cells; say *in all cells* to ask about all of them.\n")

    def _which_type(self, text: str, written: str, meanings: tuple[str, ...]) -> Answer:
        """Ask back which type a short name means; the answer names it or its place."""
        pattern = re.compile(rf"\b{re.escape(written)}\b")
        self.offers = [self._understood(pattern.sub(f"{meaning}s", text)) for meaning in meanings[:2]]
        first, second = meanings[:2]
        yield TextDelta(
            f"{answers.quoted(written)} may stand for **{first}s** (the first) or **{second}s** (the second): which do "
            "you mean?"
        )

    def _resolve(self, text: str) -> Request | None:
        """The request that was asked back about, if this is the answer to it."""
        offers, self.offers = self.offers, []
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


# ---- what are these cells?


# ---- genes and groups


# ---- drugs


# ---- the rest


def _only_names_file(request: Request) -> bool:
    """Whether a sentence says no more than which file: "other file now, the islets"."""
    if not request.file or not slots.WHICH_FILE.search(request.text):
        return False
    names = re.findall(r"[a-z0-9]+", request.file.lower())
    rest = re.sub(
        rf"\b(?:{'|'.join(map(re.escape, names))}|{slots.FILES}|next|previous)\b", " ", request.text, flags=re.I
    )
    return not sentences.ASKS.match(request.text) and not sentences.residue(rest)


def _tissue_of(request: Request) -> str:
    """The word for a tissue by which a sentence names a file: "blood" for pbmc.h5ad; "" where it names it otherwise."""
    match = slots.OF_TISSUE.match(request.text.lower()) if request.file else None
    return "" if match is None or match[1] in request.file.lower() else match[1]


def _only_names_tissue(request: Request) -> bool:
    """ "Now the blood", but not "the same for the blood"."""
    return bool(_tissue_of(request)) and not re.search(r"\b(?:same|for|in|with|about)\b", request.text, re.IGNORECASE)


def _only_chooses_file(request: Request) -> bool:
    """Whether a file is named as it is called and nothing else: "I want to work on islets.h5ad"."""
    rest = re.sub(re.escape(request.file), " ", request.text, flags=re.IGNORECASE)
    names = load_name_book()
    named = names.genes(rest) or names.cell_types(rest) or request.drugs or request.cells or request.column
    whole = request.file.lower() in request.text.lower() and "." in request.file
    return whole and not named and not sentences.ASKS.match(request.text) and request.intent in UNASKED


def _anew(request: Request) -> Request:
    """A request for another file: what it said of cells of the one before is left out."""
    intent = requests.ANNOTATE if request.intent == requests.SUBSET else request.intent
    return replace(
        request, intent=intent, cells=None, selection=None, points_back=False, points_here=False, groups=(), file=""
    )


def failure(error: InstructCellError) -> Failed:
    """An error as an event: what is wrong, and what to do about it."""
    text = str(error).strip()
    for separator in (". ", "; "):
        message, found, remedy = text.rpartition(separator)
        if found:
            return Failed(message + separator.strip().replace(";", "."), remedy[:1].upper() + remedy[1:])
    return Failed(text)


def _keep(turn: Turn, event: Event) -> None:
    if isinstance(event, TextDelta):
        turn.answer += event.text
    elif not isinstance(event, Progress):
        turn.events.append(event)
