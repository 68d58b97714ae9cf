"""Tools that name cells: annotation of all or some, how many there are of a type, why, and a first look."""

from __future__ import annotations

from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
from anndata import AnnData
from plotly.graph_objects import Figure

from instructcell import pl, tools
from instructcell.batches import Reading
from instructcell.errors import InstructCellError, LabelError
from instructcell.events import Progress
from instructcell.generation import stream_answer
from instructcell.labels import load_ontology
from instructcell.retrieval import MarkerEvidence
from instructcell.retrieval.names import load_name_book
from instructcell.toolbox.arguments import UNSURE, Annotate, Cells, Count, OfCells
from instructcell.toolbox.cells import OWN_CLUSTERS, chosen, clusters_of, with_subtypes
from instructcell.toolbox.core import Steps, Toolbox, reported, tool
from instructcell.workspace import DataFile, Result, Selection

FIRST_LOOK, READ_TOGETHER = 32, 16  # cells sampled for the opening sentence, and of them read in one prompt
EVIDENCE_TYPES, EVIDENCE_GENES = 4, 4  # cell types whose markers are cited, and how many of each
LEAST_LABELLED = 0.8  # of the cells in groups called after a cell type, for these groups to be labels
GROUP_TYPES = 4  # cell types that are told of each group
SHOWN_BROADER = 3  # broader types, of cells that are sure of no narrower one


@tool(Annotate, "Name the cell type of all or some cells, with calibrated confidence and the markers they express.")
def annotate(box: Toolbox, asked: Annotate) -> Steps:
    """Write the types into obs; cells that were not asked about keep theirs."""
    selection = yield from chosen(box, asked.cells)
    file = box.workspace.use(selection.file)
    everything = len(selection.rows) == file.adata.n_obs
    result = yield from _annotation(box, file, selection, asked, everything=everything)
    given = {"labels": list(asked.labels), "tissue": asked.tissue, "selection": "" if everything else selection.name}
    columns = tools.obs_columns(result)
    write_answers(box, file, selection.rows, columns, ("annotate", result.report, {"species": asked.species, **given}))
    evidence = _evidence(box, file, result)
    markers = tools.evidence_frame(evidence, EVIDENCE_GENES)
    tables = {
        "cell types": result.composition,
        "cells": result.table.rename_axis("cell").reset_index(),
        "markers": markers,
    }
    if everything:
        del tables["cells"]
    return Result(
        "annotate",
        facts={**about(selection), **_annotation_facts(result), "labels": list(asked.labels)},
        tables={name: table for name, table in tables.items() if len(table)},
        figures=_figures(file) if everything else {},
        sources=tuple(dict.fromkeys(str(source) for source in markers["source"])),
        notes=(*(f"{found.cell_type}: {found.sentence(EVIDENCE_GENES)}" for found in evidence),),
        file=file.name,
        selection=selection,
        payload=result,
    )


@tool(Count, "How many of the cells are of a type, its subtypes counted with it; or of each type, and in each group.")
def count_cells(box: Toolbox, asked: Count) -> Steps:
    """Count in the annotation, which is made when it is not there."""
    selection = yield from chosen(box, asked.cells)
    file = box.workspace.require(selection.file)
    table = yield from annotated(box, file)
    table = table.iloc[selection.rows]
    names = with_subtypes(box.checkpoint, asked.cell_type) if asked.cell_type else []
    hits = table["cell_type"].isin(names) if names else pd.Series(True, index=table.index)
    found = table.loc[hits, "cell_type"].value_counts()
    n = int(hits.sum())
    facts = {
        **about(selection),
        "cell_type": names[0] if names else "",
        "n": n,
        "share": n / len(table),
        "n_all": file.adata.n_obs,
        "mean_confidence": table.loc[hits, "confidence"].mean() if n else None,
        "parts": {str(name): int(count) for name, count in found.items()},
    }
    facts["shares"] = {name: count / len(table) for name, count in facts["parts"].items()}
    facts["share_of_all"] = facts["n_cells"] / file.adata.n_obs
    tables, sizes = {}, found
    if asked.by:
        groups = (yield from grouped_by(box, file, asked.by)).iloc[selection.rows]
        counted = _counted_by(table["cell_type"], hits, groups)
        facts |= {"by": asked.by, "groups": counted}
        tables["counts by group"] = counted
        facts["agreement"] = None if names else _agreement(box, table["cell_type"], groups)
        sizes = groups[hits.to_numpy()].value_counts()
    if asked.place is not None:
        facts |= _at_place(sizes, asked.place, n)
    evidence = _evidence_of(box, file, names[0], selection.rows[hits.to_numpy()]) if names else None
    if evidence is not None and evidence.supported:
        tables["markers"] = tools.evidence_frame([evidence], EVIDENCE_GENES)
    notes = () if evidence is None else (f"{evidence.cell_type}: {evidence.sentence(EVIDENCE_GENES)}",)
    figures = {} if names and not asked.by else {"composition": _composition(file, selection.rows, asked.by)}
    return Result(
        "count_cells", facts, tables=tables, figures=figures, notes=notes, file=file.name, selection=selection
    )


def _composition(file: DataFile, rows: np.ndarray, by: str) -> Callable[[], Figure]:
    """The types of chosen cells as bars, in each group where groups are asked for."""
    columns = [tools.CELL_TYPE, by] if by and by != tools.CELL_TYPE else [tools.CELL_TYPE]
    shown = AnnData(obs=file.adata.obs[columns].iloc[rows])
    return lambda: pl.composition(shown, by=columns[1] if len(columns) > 1 else None)


def _at_place(sizes: pd.Series, place: int, n: int) -> dict[str, Any]:
    """The group of a place by size, as facts: 1 is the largest, -1 the smallest.

    Raises
    ------
    InstructCellError
        There are not so many groups.
    """
    known = sizes[(sizes > 0) & (sizes.index.astype(str) != tools.UNKNOWN)]
    if not 1 <= abs(place) <= len(known):
        raise InstructCellError(f"found {len(known)} groups, expected a place from 1 to {len(known)}")
    at = place - 1 if place > 0 else place
    count = int(known.iloc[at])
    return {
        "place": place,
        "named": str(known.index[at]),
        "named_n": count,
        "named_share": count / n,
        "n_groups": len(known),
    }


def grouped_by(box: Toolbox, file: DataFile, column: str) -> Generator[Progress, None, pd.Series]:
    """A column of obs as text [N]; clusters and types are made when they are asked for and not there."""
    if column == OWN_CLUSTERS:
        return (yield from clusters_of(box, file))
    if column == tools.CELL_TYPE:
        return (yield from annotated(box, file))["cell_type"]
    if column not in file.adata.obs:
        known = ", ".join(map(str, file.adata.obs.columns))
        raise InstructCellError(f"found no column '{column}' in obs; there are: {known}")
    return file.adata.obs[column].astype(str)


def _agreement(box: Toolbox, types: pd.Series, groups: pd.Series) -> dict[str, Any] | None:
    """How many cells [N] are of the type that their group is called after, or of one above or below it.

    None where most groups are not called after types of the Cell Ontology: they are no labels.
    """
    ontology = load_ontology()
    own = {name: _type_meant(name) for name in groups.unique()}
    found = {name: label.id for name in types.unique() if (label := box.checkpoint.labels.find(name)) is not None}
    pairs = [(theirs, found.get(kind)) for group, kind in zip(groups, types, strict=True) if (theirs := own[group])]
    if len(pairs) < LEAST_LABELLED * len(groups):
        return None
    alike = sum(bool(ours and (ontology.is_a(ours, theirs) or ontology.is_a(theirs, ours))) for theirs, ours in pairs)
    return {"n": alike, "of": len(pairs), "share": alike / len(pairs)}


def _type_meant(name: str) -> str | None:
    """The type that a label of a file stands for: "T cell:CD4" or "beta", by the longest name in it."""
    book = load_name_book()
    mentions = [*book.cell_types(name), *book.cell_types(f"{name} cell")]
    return max(mentions, key=lambda mention: len(mention.written)).id if mentions else None


def _counted_by(types: pd.Series, hits: pd.Series, groups: pd.Series) -> pd.DataFrame:
    """One row per group: `group`, `cells`, `n` of them that were asked about, `share`, and the commonest `types`."""
    rows = []
    for name in sorted(groups.unique(), key=lambda text: (len(text), text)):
        inside = (groups == name).to_numpy()
        top = types[inside].value_counts().head(GROUP_TYPES)
        n = int(hits.to_numpy()[inside].sum())
        told = "; ".join(f"{kind} {count / inside.sum():.0%}" for kind, count in top.items())
        rows.append({"group": str(name), "cells": int(inside.sum()), "n": n, "share": n / inside.sum(), "types": told})
    return pd.DataFrame(rows)


@tool(
    OfCells,
    "A quick look: what the language model says of cells of the most frequent kind in a small sample.",
    logged=False,
)
def first_look(box: Toolbox, asked: OfCells) -> Steps:
    """Score a sample, then let the model say in its own words what the most frequent kind of it is."""
    selection = yield from chosen(box, asked.cells)
    file = box.workspace.require(selection.file)
    rows = selection.rows
    if len(rows) > FIRST_LOOK:
        rows = np.sort(np.random.default_rng(0).choice(rows, FIRST_LOOK, replace=False))
    steps = tools.annotate_steps(file.adata, checkpoint=box.checkpoint, rows=rows, report=file.report, context=False)
    guesses = tools.finish(steps).table["best_guess"].to_numpy()
    kind = str(pd.Series(guesses).value_counts().index[0])
    together = rows[guesses == kind][:READ_TOGETHER]
    cells = tools.align_rows(file.adata, box.checkpoint, file.report, together)
    prompt = box.checkpoint.processor.prompt("Which cell type is this?", len(together))
    pieces = stream_answer(
        box.checkpoint.model, box.checkpoint.processor, prompt, cells.counts, cells.measured, max_new_tokens=48
    )
    said = " ".join("".join(pieces).split())
    if not agrees(said, kind, box.checkpoint.labels.names):
        said = ""
    facts = {**about(selection), "said": said, "kind": kind, "n_read": len(together), "n_sampled": len(rows)}
    return Result("first_look", facts=facts, file=file.name, selection=selection)
    yield  # a generator like all tools, though nothing is reported in between


def annotated(box: Toolbox, file: DataFile) -> Generator[Progress, None, pd.DataFrame]:
    """The latest types of all cells of a file [N]: `cell_type` and `confidence`; annotated now if they are not."""
    if tools.CELL_TYPE not in box.workspace.written(file.name) or not _complete(file):
        yield from box.steps("annotate", cells=Cells(file=file.name))
    obs = file.adata.obs
    return pd.DataFrame(
        {"cell_type": obs[tools.CELL_TYPE].astype(str), "confidence": obs[tools.CONFIDENCE].astype(float)}
    )


def about(selection: Selection) -> dict[str, Any]:
    """Facts that every result about cells has."""
    return {"file": selection.file, "cells": selection.name, "n_cells": len(selection.rows)}


def agrees(said: str, kind: str, names: Sequence[str]) -> bool:
    """Whether the language model wrote a sentence that names the type the scores give, and no other of `names`."""
    low, kind = said.lower(), kind.lower()
    bare = low.rstrip(".") in {kind, *(name.lower() for name in names)}
    if kind not in low or bare or len(said) > 300:
        return False
    rest = low.replace(kind, " ")
    return not any(name.lower() in rest for name in names if name.lower() not in kind)


def write_answers(
    box: Toolbox,
    file: DataFile,
    rows: np.ndarray,
    columns: Mapping[str, pd.Series],
    run: tuple[str, Any, Mapping[str, Any]],
) -> None:
    """Write answers [n] into obs: every cell holds its latest one, "" or NaN where it was not asked about.

    `run` is the command, the doctor's report and the arguments, as the record in uns holds them.
    """
    adata, written = file.adata, box.workspace.written(file.name)
    for name, values in columns.items():
        number = pd.api.types.is_numeric_dtype(values)
        whole: Any = np.full(adata.n_obs, np.nan, np.float32) if number else np.full(adata.n_obs, "", object)
        if name in written:
            whole[:] = adata.obs[name].to_numpy()
        whole[rows] = values.to_numpy()
        adata.obs[name] = whole if number else pd.Categorical(whole)
    box.workspace.note_written(file.name, *columns)
    command, report, arguments = run
    tools._record(adata, command, box.checkpoint, report, dict(arguments))


def _complete(file: DataFile) -> bool:
    return not (file.adata.obs[tools.CELL_TYPE].astype(str) == "").any()


def _annotation(
    box: Toolbox, file: DataFile, selection: Selection, asked: Annotate, *, everything: bool
) -> Generator[Progress, None, tools.AnnotationResult]:
    """The annotation of all or some cells; that of all cells is made once for each list of labels and kept."""
    key = ("annotate", *asked.labels)
    known = box.workspace.recall(file.name, *key) if everything else None
    if known is not None and not (asked.tissue or asked.species):
        return known
    steps = tools.annotate_steps(
        file.adata,
        checkpoint=box.checkpoint,
        reading=Reading(species=asked.species),
        tissue=asked.tissue,
        rows=None if everything else selection.rows,
        report=file.report,
        labels=asked.labels or None,
        context=box.workspace.recall(file.name, "context", asked.species or "", asked.tissue or "") or True,
    )
    result = yield from reported(steps, "annotating cells")
    if result.context is not None:
        box.workspace.remember(file.name, "context", asked.species or "", asked.tissue or "", value=result.context)
    if everything:
        box.workspace.remember(file.name, *key, value=result)
    return result


def _annotation_facts(result: tools.AnnotationResult) -> dict[str, Any]:
    table = result.table
    weak = table[table["confidence"] < UNSURE]
    pairs = weak.groupby(["best_guess", "runner_up"], observed=True).size().sort_values(ascending=False)
    doubt = {} if pairs.empty else {"between": [str(name) for name in pairs.index[0]], "cells": int(pairs.iloc[0])}
    facts: dict[str, Any] = {
        "composition": result.composition,
        "n_unknown": int((table["cell_type"] == tools.UNKNOWN).sum()),
        "unknown_share": result.unknown_share,
        "resembles": result.resembles.head(SHOWN_BROADER).to_dict("records"),
        "n_weak": len(weak),
        "weak_share": len(weak) / len(table),
        "doubt": doubt,
        "unsure_below": UNSURE,
        "broader": result.broader.head(SHOWN_BROADER).to_dict("records"),
        "context": list(result.context_words),
        "engine": result.engine_words,
        "coverage": coverage_facts(result.report),
    }
    if len(table) == 1:
        facts["cell"] = {"name": str(table.index[0]), **table.iloc[0].to_dict()}
    return facts


def coverage_facts(report: Any) -> dict[str, Any]:
    """What a reading rests on: genes, species, the matrix and what the doctor noticed."""
    names = ("n_shared_genes", "coverage", "species", "matrix", "scale", "counts_recovered")
    return {**{name: getattr(report, name) for name in names}, "warnings": [str(text) for text in report.warnings]}


def _evidence(box: Toolbox, file: DataFile, result: tools.AnnotationResult) -> list[MarkerEvidence]:
    """The markers that the largest groups express."""
    known = result.composition[result.composition["cell_type"] != tools.UNKNOWN]
    found = []
    for name in known["cell_type"].head(EVIDENCE_TYPES):
        rows = result.rows[(result.table["cell_type"] == name).to_numpy()]
        found.append(_evidence_of(box, file, str(name), rows))
    return [one for one in found if one is not None]


def _evidence_of(box: Toolbox, file: DataFile, name: str, rows: np.ndarray) -> MarkerEvidence | None:
    """Marker evidence for cells called `name`; None without cells, or where no source lists markers of it."""
    if len(rows) == 0:
        return None
    label = box.checkpoint.labels.find(name)
    asked = label.id if label is not None and label.id else name
    try:
        found = tools.evidence_of(file.adata, asked, rows, checkpoint=box.checkpoint, report=file.report, max_cells=300)
    except LabelError:
        return None
    return replace(found, cell_type=name)


def _figures(file: DataFile) -> dict[str, Callable[[], Figure]]:
    adata = file.adata
    return {"composition": lambda: pl.composition(adata), "map": lambda: pl.umap(adata)}


def resolve_type(box: Toolbox, name: str) -> str:
    """The checkpoint's name for a type, or a LabelError that names close ones."""
    label = box.checkpoint.labels.find(name)
    if label is None:
        close = ", ".join(box.checkpoint.labels.close_to(name, 5))
        raise LabelError(f"'{name}' is not a cell type this checkpoint knows. Close ones: {close}")
    return label.name


def type_asked(box: Toolbox, name: str) -> str:
    """What the checkpoint, else the ontology, calls a type that was named."""
    label = box.checkpoint.labels.find(name)
    if label is not None:
        return label.name
    known = load_name_book().cell_type(name)
    return name if known is None else load_ontology().name(known)


def rival_of(box: Toolbox, file: DataFile, name: str, label: str, rows: np.ndarray) -> str:
    """The checkpoint's label that a type held against `label` stands for.

    A type with several labels below it ("monocyte") stands for the one that these cells are likest; "" where `label` is
    the type itself or one of them, so that there is nothing to hold against it.

    Raises
    ------
    LabelError
        The checkpoint knows no such type.
    """
    asked = box.checkpoint.labels.find(name)
    subtypes = with_subtypes(box.checkpoint, name) if asked is None else [asked.name]
    names = [one for one in subtypes if box.checkpoint.labels.find(one) is not None]
    if not names:
        resolve_type(box, name)  # raises, with close names
    if label in names:
        return ""
    if len(names) == 1:
        return names[0]
    read = np.sort(np.random.default_rng(0).permutation(rows)[:FIRST_LOOK])
    steps = tools.annotate_steps(
        file.adata, checkpoint=box.checkpoint, rows=read, report=file.report, labels=tuple(names), context=False
    )
    return str(tools.finish(steps).table["best_guess"].value_counts().index[0])


def most_frequent_type(box: Toolbox, selection: Selection) -> Generator[Progress, None, str]:
    """The type that most of the cells were called, unknown ones left out."""
    file = box.workspace.require(selection.file)
    table = yield from annotated(box, file)
    named = table["cell_type"].iloc[selection.rows]
    counts = named[named != tools.UNKNOWN].value_counts()
    if counts.empty:
        raise InstructCellError(f"all {len(named):,} cells of {selection.name} are unknown; name a cell type instead")
    return str(counts.index[0])
