"""Looking things up: marker genes, gene functions and cell type definitions, with their source.

    load_index().search("what marks a delta cell?")     passages, exact names first, then by meaning
    answer_knowledge("what does GCG do?")               one cited answer, or a plain statement that there is none
    markers("delta cell"), markers(genes=["GZMB"])      the marker table, forwards and backwards
    marker_evidence(counts, genes, measured, type)      the markers that these very cells express

Names are loaded when they are first used.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from instructcell.retrieval.answers import KnowledgeAnswer, answer_knowledge
    from instructcell.retrieval.grounding import MarkerEvidence, expressed_markers, marker_evidence
    from instructcell.retrieval.index import MarkerIndex, load_index
    from instructcell.retrieval.marker_table import MarkerTable, load_marker_table, markers
    from instructcell.retrieval.passages import Passage
    from instructcell.retrieval.sentence_encoder import SentenceEncoder, load_sentence_encoder

__all__ = [
    "KnowledgeAnswer",
    "MarkerEvidence",
    "MarkerIndex",
    "MarkerTable",
    "Passage",
    "SentenceEncoder",
    "answer_knowledge",
    "expressed_markers",
    "load_index",
    "load_marker_table",
    "load_sentence_encoder",
    "marker_evidence",
    "markers",
]

_ROOMS = {
    "answers": ("KnowledgeAnswer", "answer_knowledge"),
    "grounding": ("MarkerEvidence", "expressed_markers", "marker_evidence"),
    "index": ("MarkerIndex", "load_index"),
    "marker_table": ("MarkerTable", "load_marker_table", "markers"),
    "passages": ("Passage",),
    "sentence_encoder": ("SentenceEncoder", "load_sentence_encoder"),
}
_HOME = {name: room for room, names in _ROOMS.items() for name in names}


def __getattr__(name: str) -> Any:
    if name in _HOME:
        return getattr(importlib.import_module(f"instructcell.retrieval.{_HOME[name]}"), name)
    raise AttributeError(f"module 'instructcell.retrieval' has no attribute '{name}'")


def __dir__() -> list[str]:
    return sorted(__all__)
