"""A conversation about cells: text in, typed events out.

    session = Session(adata)
    for event in session.send("Which cell types are these?"):
        ...

The session keeps the loaded cells, the results and the turns of one user; nothing is shared between sessions but the
models. It understands a sentence (`intents`), calls the tools that answer it (`tools`, `retrieval`) and puts what they
returned into words (`answers`). Text inside an uploaded file is data and changes nothing.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Generator, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from anndata import AnnData

from instructcell import answers, intents, pl, tools
from instructcell.batches import Reading
from instructcell.cells import read
from instructcell.checkpoint import Checkpoint
from instructcell.context import FileContext
from instructcell.doctor import DatasetReport
from instructcell.drugs import Drug, DrugSet
from instructcell.errors import DrugError, InstructCellError, LabelError
from instructcell.events import CellsGenerated, Event, Failed, FigureReady, Progress, TableReady, TextDelta
from instructcell.generation import stream_answer
from instructcell.intents import Request, Selection
from instructcell.labels import load_ontology
from instructcell.output import write_h5ad
from instructcell.retrieval import MarkerEvidence, answer_knowledge, load_index
from instructcell.retrieval.grounding import percent
from instructcell.retrieval.names import load_name_book

USUAL_PSEUDO_CELLS, MOST_PSEUDO_CELLS = 50, 20_000  # in one answer: when no number is said, and at most
FIRST_LOOK, READ_TOGETHER = 64, 16  # cells sampled for the opening sentence, and of them read in one prompt
EVIDENCE_TYPES = 4  # cell types whose markers are cited
READ_BACK = 64  # pseudo-cells that the model reads back

Answer = Generator[Event, None, None]
MEANINGS = {
    intents.ANNOTATE: "name the cell types of all cells",
    intents.SUBSET: "name the cell types of some of the cells",
    intents.GENERATE: "generate new cells",
    intents.DRUG: "predict the response to a drug",
    intents.MARKERS: "list the marker genes of a cell type",
    intents.GENE: "say what a gene does",
    intents.DESCRIBE: "describe the data",
    intents.DOWNLOAD: "hand out the results",
    intents.HELP: "say what I can do",
    intents.SMALL_TALK: "chat",
    intents.OUT_OF_SCOPE: "answer something else",
}


# A later "and 10 more" goes on from these; a download or a greeting in between changes nothing.
CONTINUED = (intents.ANNOTATE, intents.SUBSET, intents.GENERATE, intents.DRUG, intents.MARKERS, intents.GENE)


YES, NO = {"yes", "yep", "sure", "correct", "right"}, {"no", "nope"}


@dataclass
class Turn:
    """One question and what was answered; `events` without progress and text."""

    question: str
    answer: str = ""
    events: list[Event] = field(default_factory=list)


class Session:
    """One user's conversation about one set of cells.

    Parameters
    ----------
    adata
        Cells to talk about; None: `load` them later or ask general questions.
    checkpoint
        Name or folder of a checkpoint, or a loaded one.

    Attributes
    ----------
    adata, report, name
        The loaded cells, what the doctor found, and what they are called.
    annotation, generated
        The latest annotation of all cells with the checkpoint's own types, and the latest pseudo-cells.
    latest
        The latest result that was written into `adata`, of all cells or of some.
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

    def __init__(self, adata: AnnData | None = None, *, checkpoint: str | Path | Checkpoint = "mini") -> None:
        self._checkpoint: str | Path | Checkpoint = checkpoint
        self.adata: AnnData | None = None
        self.report: DatasetReport | None = None
        self.name = ""
        self.latest: tools.AnnotationResult | tools.DrugResult | None = None
        self.drug_result: tools.DrugResult | None = None
        self.generated: AnnData | None = None
        self.history: list[Turn] = []
        self._last: Request | None = None
        self._offers: list[Request] = []  # what was asked back: "yes" or "the first" takes the first
        self._contexts: dict[tuple[str | None, str | None], FileContext] = {}  # of the file, by what was said of it
        self._annotations: dict[tuple[str, ...], tools.AnnotationResult] = {}  # of all cells, by the types allowed
        self._written: set[str] = set()  # columns of obs that hold answers of this session
        self._n_generations = 0
        self._flows: dict[str, Callable[[Request], Answer]] = {
            intents.ANNOTATE: self._annotate,
            intents.SUBSET: self._annotate,
            intents.GENERATE: self._generate,
            intents.DRUG: self._drug,
            intents.MARKERS: self._markers,
            intents.GENE: self._gene,
            intents.DESCRIBE: self._describe,
            intents.DOWNLOAD: self._download,
            intents.HELP: self._help,
            intents.SMALL_TALK: self._small_talk,
            intents.OUT_OF_SCOPE: self._out_of_scope,
        }
        if adata is not None:
            self._take(adata, "the data")

    @property
    def checkpoint(self) -> Checkpoint:
        """The loaded checkpoint."""
        self._checkpoint = tools.open_checkpoint(self._checkpoint)
        return self._checkpoint

    @property
    def annotation(self) -> tools.AnnotationResult | None:
        """The latest annotation of all cells with the checkpoint's own types."""
        return self._annotations.get(())

    def warm_up(self) -> None:
        """Load what the first answer needs, so that it need not wait."""
        self.checkpoint  # noqa: B018 - a property that loads
        intents.load_router()
        load_index()
        load_name_book()

    def load(self, source: str | Path | AnnData, *, name: str = "") -> list[Event]:
        """Take cells into the session; what was loaded before stays if they cannot be read.

        Parameters
        ----------
        source
            A file or folder that `instructcell.cells.read` knows, or an AnnData.
        name
            How to call them; the file's name by default.

        Returns
        -------
        list of Event
            What the doctor says of them, or `Failed`.
        """
        title = name or (Path(source).name if isinstance(source, (str, Path)) else "the data")
        try:
            self._take(read(source), title)
        except InstructCellError as error:
            return [failure(error)]
        assert self.adata is not None and self.report is not None
        return [
            TextDelta(f"**{answers.quoted(title)}** is loaded.\n\n{self.report.to_markdown()}\n"),
            TableReady("dataset", _card(self.report)),
        ]

    def send(self, text: str) -> Iterator[Event]:
        """Answer one sentence, event by event; leaving the loop early stops the work.

        An input that cannot be used becomes a `Failed` event and the session goes on.
        """
        turn = Turn(text)
        self.history.append(turn)
        try:
            for event in self._answer(text):
                _keep(turn, event)
                yield event
        except InstructCellError as error:
            failed = failure(error)
            _keep(turn, failed)
            yield failed

    def suggestions(self) -> list[str]:
        """Questions that fit what is loaded and known, the most useful first."""
        able, drugs = self._able, self._drugs.names
        types: list[str] = []
        if self.annotation is not None:
            found = self.annotation.composition["cell_type"]
            types = [name for name in found if name != tools.UNKNOWN]
        asked = [] if self.adata is None else ["Which cell types are these?"] if not types else []
        example = next((name for name in types if name in able), able[0] if able else "B cell")
        asked += [f"Generate 50 {example}s" if able else "", f"What marks a {types[0] if types else example}?"]
        asked += [f"Would {drugs[0]} work on these cells?"] if drugs and self.adata is not None else []
        asked += ["Describe the data"] if self.adata is not None else ["What does GCG do?"]
        return [question for question in (*asked, "What can you do?") if question]

    def clear(self) -> None:
        """Forget the conversation and the results; the loaded cells stay."""
        self.history.clear()
        self.generated = None
        self._n_generations = 0
        self._forget_results()

    def save_annotated(self, path: str | Path) -> Path:
        """Write the loaded cells with all results so far as .h5ad and return the path.

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

    def _take(self, adata: AnnData, name: str) -> None:
        report = tools.look_at(adata, self.checkpoint)
        tools.align_rows(adata, self.checkpoint, report, np.arange(1))  # too few known genes are told at once
        self.adata, self.report, self.name = adata, report, name
        self._contexts.clear()
        self._forget_results()

    def _forget_results(self) -> None:
        self.latest = self.drug_result = self._last = None
        self._offers = []
        self._annotations.clear()
        self._written.clear()

    def _answer(self, text: str) -> Answer:
        if not text.strip():
            yield TextDelta("There was no question in that. *Help* shows what you can ask.")
            return
        request = self._resolve(text) or intents.understand(
            text,
            router=intents.load_router(),
            labels=self.checkpoint.labels,
            drugs=self._drugs,
            obs=None if self.adata is None else self.adata.obs,
            last=self._last,
        )
        if request.wavers is not None:
            sure = replace(request, wavers=None)
            self._offers = [sure, replace(sure, intent=request.wavers)]
            first, second = MEANINGS[request.intent], MEANINGS[request.wavers]
            yield TextDelta(
                f"I am not sure what you mean. Shall I **{first}** (the first) or **{second}** (the second)?"
            )
            return
        if request.intent in CONTINUED:
            self._last = request
        yield from self._flows[request.intent](request)

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
        return offers[0] if words & {"first", "1", "former", *YES} else None

    @property
    def _drugs(self) -> DrugSet:
        return tools.drugs_of(self.checkpoint)

    @property
    def _able(self) -> list[str]:
        """Cell types that can be generated, the best known first."""
        able = [label for label in self.checkpoint.labels if label.can_generate]
        return [label.name for label in sorted(able, key=lambda label: -label.n_training_cells)]

    # ---- what are these cells?

    def _annotate(self, request: Request) -> Answer:
        if self.adata is None or self.report is None:
            yield from self._needs_cells("To name cell types I need cells.")
            return
        selection = request.selection
        if selection is None and request.intent == intents.SUBSET:
            yield TextDelta(answers.which_cells_text(self.adata.n_obs, intents.groupings(self.adata.obs)))
            return
        if selection is not None and len(selection.rows) < self.adata.n_obs:
            yield from self._annotate_some(request, selection)
            return
        if self.annotation is not None and request.cell_type is not None and not request.labels:
            yield from self._share(request, self.annotation)
            return
        result = yield from self._annotation_of_all(request)
        yield from self._composition(request, result, self.name)
        yield FigureReady("composition", pl.composition(self.adata))
        yield from self._grounds(result)
        yield TextDelta(answers.weakness_text(result))
        yield Progress(0, 1, "drawing the map")
        yield FigureReady("map", pl.umap(self.adata))
        yield Progress(1, 1, "drawing the map")

    def _annotation_of_all(self, request: Request) -> Generator[Event, None, tools.AnnotationResult]:
        """The annotation of all cells among the types that were named, or all; made once and kept."""
        assert self.adata is not None
        result = self._annotations.get(request.labels)
        if result is None or request.tissue or request.species:
            yield from self._first_look(request, np.arange(self.adata.n_obs))
            result = yield from _run(self._annotation_steps(request, None), "annotating cells")
            self._annotations[request.labels] = result
            self._written.update(tools.obs_columns(result))  # the tool wrote them
            self.latest = result
        self._keep_annotation(request, result, "")
        return result

    def _annotate_some(self, request: Request, selection: Selection) -> Answer:
        yield from self._first_look(request, selection.rows)
        result = yield from _run(self._annotation_steps(request, selection.rows), "annotating cells")
        self._keep_annotation(request, result, selection.name)
        yield from self._composition(request, result, selection.name)
        yield TableReady("cells", result.table.rename_axis("cell").reset_index())
        yield from self._grounds(result)
        yield TextDelta(answers.weakness_text(result))

    def _keep_annotation(self, request: Request, result: tools.AnnotationResult, selected: str) -> None:
        """Write the types of all or some cells into obs."""
        columns = tools.obs_columns(result)
        given = {"labels": list(request.labels), "tissue": request.tissue}
        self._keep_result("annotate", request, result, columns, {**given, "selection": selected})

    def _keep_result(
        self,
        command: str,
        request: Request,
        result: tools.AnnotationResult | tools.DrugResult,
        columns: Mapping[str, pd.Series],
        arguments: Mapping[str, Any],
    ) -> None:
        """Write results into obs: every cell holds its latest answer, "" or NaN where it was not asked about."""
        if self.adata is None or result is self.latest:
            return
        for name, values in columns.items():
            number = pd.api.types.is_numeric_dtype(values)
            n_cells = self.adata.n_obs
            whole: Any = np.full(n_cells, np.nan, np.float32) if number else np.full(n_cells, "", object)
            if name in self._written:
                whole[:] = self.adata.obs[name].to_numpy()
            whole[result.rows] = values.to_numpy()
            self.adata.obs[name] = whole if number else pd.Categorical(whole)
        self._written.update(columns)
        given = {"species": request.species, **arguments}
        tools._record(self.adata, command, self.checkpoint, result.report, given)
        self.latest = result

    def _share(self, request: Request, result: tools.AnnotationResult) -> Answer:
        """How many cells of one type there are, with the markers that say so; the annotation is there already."""
        assert request.cell_type is not None
        label = request.cell_type
        text = answers.share_text(result, label.name, _with_subtypes(self.checkpoint, label.name))
        found = self._evidence(label.name, label.id, result)
        yield TextDelta(f"{text}\n{answers.evidence_text([] if found is None else [found])}")

    def _annotation_steps(self, request: Request, rows: np.ndarray | None) -> tools.Steps[tools.AnnotationResult]:
        assert self.adata is not None
        said = (request.species, request.tissue)
        result = yield from tools.annotate_steps(
            self.adata,
            checkpoint=self.checkpoint,
            reading=Reading(species=request.species),
            tissue=request.tissue,
            rows=rows,
            report=self.report,
            labels=request.labels or None,
            context=self._contexts.get(said) or True,
        )
        if result.context is not None:
            self._contexts[said] = result.context
        return result

    def _composition(self, request: Request, result: tools.AnnotationResult, whose: str) -> Answer:
        label = request.cell_type
        if label is not None and len(result.table) > 1 and not request.labels:
            share = answers.share_text(result, label.name, _with_subtypes(self.checkpoint, label.name))
            yield TextDelta(f"\n\n{share}")
        yield TextDelta(answers.composition_text(result, answers.titled(whose)))
        if request.labels:
            yield TextDelta(answers.choices_text(request.labels))
        if len(result.table) > 1:
            yield TableReady("cell types", result.composition)

    def _first_look(self, request: Request, rows: np.ndarray) -> Answer:
        """The opening: the language model itself reads cells of the most frequent kind in a small sample.

        Its sentence is said when it is whole: only then is it known to agree with the scores.
        """
        assert self.adata is not None and self.report is not None
        sample = rows
        if len(rows) > FIRST_LOOK:
            sample = np.sort(np.random.default_rng(0).choice(rows, FIRST_LOOK, replace=False))
        guesses = tools.finish(self._annotation_steps(request, sample)).table["best_guess"].to_numpy()
        kind = str(pd.Series(guesses).value_counts().index[0])
        together = sample[guesses == kind][:READ_TOGETHER]
        cells = tools.align_rows(self.adata, self.checkpoint, self.report, together)
        processor = self.checkpoint.processor
        prompt = processor.prompt(request.text, len(together))
        pieces = stream_answer(
            self.checkpoint.model, processor, prompt, cells.counts, cells.measured, max_new_tokens=48
        )
        said = " ".join("".join(pieces).split())
        names = self.checkpoint.labels.names
        yield TextDelta(answers.first_look_text(said, kind, len(together), len(sample), names))

    def _grounds(self, result: tools.AnnotationResult) -> Answer:
        """The markers the largest groups express, and what the reading rests on."""
        assert self.adata is not None
        evidence = []
        known = result.composition[result.composition["cell_type"] != tools.UNKNOWN]
        for row in known.head(EVIDENCE_TYPES).itertuples():
            found = self._evidence(row.cell_type, row.cell_type_id, result)
            evidence += [found] if found is not None else []
        yield TextDelta(answers.evidence_text(evidence))
        table = tools.evidence_frame(evidence)
        if len(table):
            yield TableReady("markers", table)
        yield TextDelta(answers.coverage_text(result.report))
        yield TextDelta(answers.context_text(result))

    def _evidence(self, name: str, cl_id: str, result: tools.AnnotationResult) -> MarkerEvidence | None:
        """Marker evidence for the cells that were called `name`; None where no source lists markers of it."""
        assert self.adata is not None
        rows = result.rows[(result.table["cell_type"] == name).to_numpy()]
        if len(rows) == 0:
            return None
        try:
            found = tools.evidence_of(
                self.adata, cl_id or name, rows, checkpoint=self.checkpoint, report=self.report, max_cells=300
            )
        except LabelError:
            return None
        return replace(found, cell_type=name)

    # ---- new cells

    def _generate(self, request: Request) -> Answer:
        labels = self.checkpoint.labels
        if request.cell_type is None and request.unknown_type is None:
            yield TextDelta(f"Which cell type shall I generate? I can do: {'; '.join(self._able)}.")
            return
        named = request.cell_type.name if request.cell_type else str(request.unknown_type)
        label = tools.find_generable(labels, named)
        n = USUAL_PSEUDO_CELLS if request.n is None else request.n
        if n > MOST_PSEUDO_CELLS:
            raise InstructCellError(
                f"{n:,} pseudo-cells were asked for, expected at most {MOST_PSEUDO_CELLS:,} in one answer. "
                "Ask for fewer, or use the command line: instructcell generate."
            )
        seed = self._n_generations if request.seed is None else request.seed
        yield Progress(0, n, "generating cells")
        pseudo = tools.generate(
            cell_type=label.name,
            n=n,
            tissue=request.tissue,
            species=request.species,
            library_size=request.library_size,
            seed=seed,
            checkpoint=self.checkpoint,
        )
        self._n_generations += 1
        self.generated = pseudo
        yield Progress(n, n, "generating cells")
        yield TextDelta(answers.generated_text(pseudo, self._read_back(pseudo, label.name)))
        yield CellsGenerated(pseudo)

    def _read_back(self, pseudo: AnnData, cell_type: str) -> str:
        rows = np.arange(min(pseudo.n_obs, READ_BACK))
        try:
            back = tools.finish(tools.annotate_steps(pseudo, checkpoint=self.checkpoint, rows=rows))
        except InstructCellError:  # cells of a very small library may hold nothing to read
            return "Their counts are too few to be read back."
        share = float(back.table["best_guess"].isin(_with_subtypes(self.checkpoint, cell_type)).mean())
        seed = pseudo.uns[tools.RUN]["seed"]
        return f"Read back, {percent(share)} of {len(rows)} are called {cell_type}. Seed {seed}."

    # ---- drugs

    def _drug(self, request: Request) -> Answer:
        if not request.drugs:
            yield TextDelta(f"Which drug do you mean? I know: {', '.join(self._drugs.names)}.")
            return
        known = list({mention.drug.name: mention.drug for mention in request.drugs if mention.drug}.values())
        yield from self._refuse_drugs(request, bool(known))
        if known and self.adata is None:
            for drug in known:
                yield TextDelta(f"**{drug.name}** is a drug I was trained on.{answers.drug_facts(drug)}\n")
            yield from self._needs_cells("To predict a response I need cells.")
            return
        for drug in known:
            yield from self._response(request, drug, "drug response" if len(known) == 1 else f"response to {drug.name}")
        if len(known) > 1:
            yield TextDelta("\nEach drug was read by itself; what they do together is not predicted.\n")

    def _refuse_drugs(self, request: Request, others_known: bool) -> Answer:
        """Refuse each drug that is not known by its name; a likely typing error is asked back."""
        unknown = [mention for mention in request.drugs if mention.drug is None]
        if not unknown:
            return
        meant = {mention.meant.name: mention.meant for mention in unknown if mention.meant is not None}
        if len(meant) == 1:
            (drug,) = meant.values()
            self._offers = [replace(request, drugs=(replace(request.drugs[0], drug=drug, meant=None),))]
            if not others_known and len(unknown) == 1:
                yield TextDelta(
                    f"{answers.quoted(unknown[0].written)} is not a drug I was trained on. "
                    f"Did you mean **{drug.name}**? (*Yes*, or name one of: {', '.join(self._drugs.names)}.)"
                )
                return
        refusal = self._drugs.refusal(list(dict.fromkeys(mention.written for mention in unknown)))
        if not others_known:
            raise DrugError(refusal)
        yield TextDelta(f"{refusal}\n\n")

    def _response(self, request: Request, drug: Drug, title: str) -> Answer:
        """Predict the response of the chosen cells to one drug; `title` names its table and figure."""
        assert self.adata is not None
        selection = request.selection or self._cells_called(request)
        rows = None if selection is None else selection.rows
        whose = answers.titled(self.name if selection is None else selection.name)
        n_cells = self.adata.n_obs if rows is None else len(rows)
        yield TextDelta(f"Reading {n_cells:,} cells for their response to {drug.name}.\n\n")
        self._set_aside(drug)
        steps = tools.drug_response_steps(
            self.adata, drug=drug.name, checkpoint=self.checkpoint, rows=rows, report=self.report
        )
        result = yield from _run(steps, f"response to {drug.name}")
        self.drug_result = result
        columns = {tools.DRUG_RESPONSE: result.table["response"], tools.P_SENSITIVE: result.table["p_sensitive"]}
        if selection is None:
            self._written.update(columns)  # the tool wrote them
            self.latest = result
        else:
            self._keep_result(
                "drug_response", request, result, columns, {"drug": drug.name, "selection": selection.name}
            )
        types = None if self.annotation is None else self.annotation.table["cell_type"].iloc[result.rows]
        yield TextDelta(answers.drug_text(result, whose, types))
        yield TableReady(title, result.table.rename_axis("cell").reset_index())
        yield FigureReady(title, pl.probabilities(result.table["p_sensitive"], types))
        yield TextDelta(answers.coverage_text(result.report, "The cells"))

    def _set_aside(self, drug: Drug) -> None:
        """Keep the response to another drug in columns that bear its name."""
        before = self.drug_result
        if self.adata is None or before is None or before.drug.name == drug.name:
            return
        for column in (tools.DRUG_RESPONSE, tools.P_SENSITIVE):
            self.adata.obs[f"{column}_{re.sub(r'[^0-9A-Za-z]+', '_', before.drug.name)}"] = self.adata.obs[column]
            self._written.discard(column)

    def _cells_called(self, request: Request) -> Selection | None:
        """ "the T cells": the cells that were called so."""
        if request.cell_type is None or self.annotation is None:
            return None
        names = _with_subtypes(self.checkpoint, request.cell_type.name)
        rows = np.flatnonzero(self.annotation.table["cell_type"].isin(names))
        return Selection(rows, f"cells called {request.cell_type.name}") if len(rows) else None

    # ---- knowledge

    def _markers(self, request: Request) -> Answer:
        known = answer_knowledge(request.text)
        if not known.supported and request.cell_type is not None:
            known = answer_knowledge(f"what marks a {request.cell_type.name}?")
        yield TextDelta(f"{known.text}\n")
        mentions = load_name_book().cell_types(request.text)
        name = mentions[0].id if mentions else request.cell_type.name if request.cell_type else None
        if not known.supported or name is None:
            return
        try:
            yield TableReady("markers", tools.markers(name))
        except LabelError:
            return
        yield from self._seen_here(request)

    def _seen_here(self, request: Request) -> Answer:
        """Whether the loaded cells that were called so express the markers."""
        label, result = request.cell_type, self.annotation
        if label is None or result is None:
            return
        found = self._evidence(label.name, label.id, result)
        if found is not None:
            yield TextDelta(f"\nIn your cells called {label.name}: {found.sentence(4)}\n")

    def _gene(self, request: Request) -> Answer:
        yield TextDelta(f"{answer_knowledge(request.text).text}\n")

    # ---- the rest

    def _describe(self, request: Request) -> Answer:
        if self.adata is None or self.report is None:
            yield from self._needs_cells("No data is loaded yet.")
            return
        yield TextDelta(answers.describe_text(self.adata, self.report))
        yield TableReady("dataset", _card(self.report))

    def _download(self, request: Request) -> Answer:
        if self.generated is not None and (self.latest is None or self._last_made() is self.generated):
            yield TextDelta(f"Here are the {self.generated.n_obs:,} pseudo-cells of the last request.")
            yield CellsGenerated(self.generated)
        elif self.latest is not None:
            yield TextDelta(
                "The cells with all results so far can be saved as .h5ad; the counts are unchanged, and cells that "
                "were not asked about have no entry."
            )
        else:
            yield TextDelta("There is nothing to hand out yet: ask for cell types or for new cells first.")

    def _last_made(self) -> AnnData | None:
        """The pseudo-cells, if the latest result is pseudo-cells."""
        for turn in reversed(self.history):
            for event in reversed(turn.events):
                if isinstance(event, CellsGenerated):
                    return event.adata
                if isinstance(event, TableReady) and event.name not in ("markers", "dataset"):
                    return None
        return None

    def _help(self, request: Request) -> Answer:
        yield TextDelta(answers.help_text(self._able, self._drugs.names, self.adata))

    def _small_talk(self, request: Request) -> Answer:
        loaded = f" {answers.titled(self.name)} is loaded." if self.adata is not None else ""
        yield TextDelta(
            f"Hello! I read single-cell expression: cell types, new cells, drug response, markers.{loaded} "
            "Ask me something about cells, or say *help*."
        )

    def _out_of_scope(self, request: Request) -> Answer:
        known = answer_knowledge(request.text)
        if known.supported:
            yield TextDelta(f"{known.text}\n")
            return
        yield TextDelta(
            "I cannot answer that. I name cell types, generate cells, predict responses to the drugs I know, and look "
            "up marker genes and gene functions; *help* shows examples."
        )

    def _needs_cells(self, reason: str) -> Answer:
        yield TextDelta(f"{reason} Upload an .h5ad, a 10x .h5 or a .csv/.tsv table, or pick an example.")


def failure(error: InstructCellError) -> Failed:
    """An error as an event: what is wrong, and what to do about it."""
    text = str(error).strip()
    for separator in (". ", "; "):
        message, found, remedy = text.rpartition(separator)
        if found:
            return Failed(message + separator.strip().replace(";", "."), remedy[:1].upper() + remedy[1:])
    return Failed(text)


def _run(steps: tools.Steps[tools.Result], what: str) -> Generator[Event, None, tools.Result]:
    """Progress events while a tool works, then its result."""
    while True:
        try:
            done, total = next(steps)
        except StopIteration as end:
            return end.value
        yield Progress(done, total, what)


def _keep(turn: Turn, event: Event) -> None:
    if isinstance(event, TextDelta):
        turn.answer += event.text
    elif not isinstance(event, Progress):
        turn.events.append(event)


def _with_subtypes(checkpoint: Checkpoint, name: str) -> list[str]:
    """A label and the labels below it in the Cell Ontology."""
    asked = checkpoint.labels.find(name)
    if asked is None or not asked.id:
        return [name]
    below = [label for label in checkpoint.labels if label.id and load_ontology().is_a(label.id, asked.id)]
    return list(dict.fromkeys([name, *(label.name for label in below)]))


def _card(report: DatasetReport) -> pd.DataFrame:
    """The doctor's report as a table of two columns."""
    shown = {
        "cells": f"{report.n_cells:,}",
        "genes": f"{report.n_genes:,}",
        "species": report.species,
        "gene names": report.id_type,
        "matrix": f"{report.matrix} ({report.scale})",
        "model genes measured": f"{report.n_shared_genes or 0:,} ({percent(report.coverage or 0.0)})",
    }
    return pd.DataFrame({"property": list(shown), "value": list(shown.values())})
