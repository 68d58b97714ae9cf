"""Tools that look things up: marker genes, gene functions and cell type definitions, each with its source."""

from __future__ import annotations

from typing import Any

import pandas as pd

from instructcell import tools
from instructcell.errors import InstructCellError, LabelError
from instructcell.retrieval import answer_knowledge
from instructcell.retrieval.answers import KnowledgeAnswer
from instructcell.retrieval.names import load_name_book
from instructcell.toolbox.arguments import Markers, Question
from instructcell.toolbox.core import Steps, Toolbox, tool
from instructcell.workspace import Result


@tool(
    Markers,
    "What marks a cell type, or which types genes mark; from the marker table, with sources.",
    needs_cells=False,
)
def markers(box: Toolbox, asked: Markers) -> Steps:
    """Markers of a type, or types of genes."""
    if bool(asked.cell_type) == bool(asked.genes):
        raise InstructCellError("markers takes a cell type or genes, one of the two; name a type such as 'delta cell'")
    if asked.genes:
        known = answer_knowledge(f"which cells express {' and '.join(asked.genes)}?")
        table = tools.markers(genes=list(asked.genes))
        return Result("markers", _facts(known, genes=list(asked.genes)), {"cell types": table}, **_cited(known))
    known = answer_knowledge(f"what marks a {asked.cell_type}?")
    name = load_name_book().cell_type(asked.cell_type) or asked.cell_type
    table = tools.markers(name)
    return Result("markers", _facts(known, cell_type=asked.cell_type), {"markers": table}, **_cited(known))
    yield


@tool(
    Question,
    "Answer a question about markers, genes or cell types from the tables, or say that they hold none.",
    needs_cells=False,
)
def knowledge(box: Toolbox, asked: Question) -> Steps:
    """One cited answer."""
    known = answer_knowledge(asked.question)
    tables: dict[str, pd.DataFrame] = {}
    mentions = load_name_book().cell_types(asked.question)
    if known.supported and mentions:
        try:
            tables["markers"] = tools.markers(mentions[0].id)
        except LabelError:
            tables = {}
    return Result("knowledge", _facts(known, types=[mention.id for mention in mentions]), tables, **_cited(known))
    yield


def _facts(known: KnowledgeAnswer, **others: Any) -> dict[str, Any]:
    return {"answer": known.text, "supported": known.supported, **others}


def _cited(known: KnowledgeAnswer) -> dict[str, Any]:
    sources = tuple(dict.fromkeys(passage.source for passage in known.passages))
    return {"sources": sources, "notes": (known.text, *(passage.text for passage in known.passages))}
