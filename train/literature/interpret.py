"""What text encoders and language models know of markers: attributions, likeness of markers, and a quiz.

    top genes of a type by integrated gradients and by LIME, beside the genes that simply stand first
    cosine of marker genes of one type and of different types, for gene texts, symbols and hashed symbols
    questions "which one of these genes is a marker of ...?" to a generative model
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from sklearn.neural_network import MLPClassifier

from encoders import CellSentenceEncoder, SentenceConfig
from encoders.sentence import HASH_LENGTH
from instructcell.errors import LabelError
from instructcell.literature.frames import EMBEDDING_FRAME
from instructcell.literature.gene_texts import gene_texts, gene_vectors
from instructcell.literature.language import open_language_model
from instructcell.literature.rerank import marker_quiz
from instructcell.literature.text_encoder import load_text_encoder
from instructcell.retrieval import markers
from train.literature import attribution, protocol
from train.literature.backbones import find_backbone
from train.literature.cells import Cells
from train.literature.systems import by_pieces


@dataclass(frozen=True)
class Interpretation:
    """Which cells and models are asked.

    Attributes
    ----------
    column
        Of the comparison, whose training cells the classifier learns from and whose test cells are explained.
    n_genes
        Named in a sentence.
    n_types
        The most frequent types of the test cells that are explained.
    n_markers
        Of a type in the marker table, the best first, that count as known.
    quiz
        A backbone that sits the quiz; "": none.
    """

    column: str
    text_encoder: str = ""
    n_genes: int = 50
    n_types: int = 6
    cells_per_type: int = 10
    n_markers: int = 50
    quiz: str = ""
    seed: int = 0


def interpret(
    asked: Interpretation, known: Cells, unseen: Cells, runs: Path, *, say: Callable[[str], None] = print
) -> dict[str, Any]:
    """All three, as JSON holds them; LabelError where fewer than two types have known markers."""
    genes = set(known.genes)
    table = {label: own for label in np.unique(known.labels) if (own := known_markers(str(label), genes, asked))}
    if len(table) < 2:
        raise LabelError(
            f"{len(table)} of the {len(np.unique(known.labels))} types of '{asked.column}' have known markers, "
            "expected at least two; interpret a column of cell types that the marker table knows"
        )
    found = explain_types(asked, known, unseen, table)
    say(f"  attributions of {len(found['types'])} types")
    found["likeness"] = likeness(asked, table, runs)
    if asked.quiz:
        model = open_language_model(find_backbone(asked.quiz, runs))
        found["quiz"] = {"model": asked.quiz, **asdict(marker_quiz(table, model, seed=asked.seed))}
    return found


def known_markers(label: str, genes: set[str], asked: Interpretation) -> list[str]:
    """Markers of a type that the cells' file measured, the best first; none where no source knows the type."""
    try:
        return [gene for gene in markers(label, n=asked.n_markers)["gene"] if gene in genes]
    except LabelError:
        return []


def explain_types(
    asked: Interpretation, known: Cells, unseen: Cells, table: Mapping[str, Sequence[str]]
) -> dict[str, Any]:
    """Top genes of the most frequent types, by a small classifier on the vectors of sentences."""
    attribution.require_captum()
    encoder = CellSentenceEncoder(
        load_text_encoder(asked.text_encoder or None), known.genes, SentenceConfig(asked.n_genes), frame=EMBEDDING_FRAME
    )
    mlp = MLPClassifier(random_state=asked.seed).fit(by_pieces(known, encoder), known.labels)
    names, sizes = np.unique(unseen.labels, return_counts=True)
    frequent = [str(names[i]) for i in np.argsort(-sizes, kind="stable") if names[i] in table][: asked.n_types]
    chosen = np.concatenate([np.flatnonzero(unseen.labels == name)[: asked.cells_per_type] for name in frequent])
    explained = attribution.explain(
        encoder,
        attribution.sentence_head(mlp),
        unseen[chosen].dense(),
        unseen.labels[chosen],
        [str(label) for label in mlp.classes_],
        {name: table[name] for name in frequent},
        cells_per_type=asked.cells_per_type,
        seed=asked.seed,
    )
    accuracy = float((mlp.predict(by_pieces(unseen, encoder)) == unseen.labels).mean())
    rows = []
    for row in explained:
        sentences = encoder.sentences(unseen[np.flatnonzero(unseen.labels == row.label)[: row.cells]].dense())
        first, all_words = first_genes(sentences), {word for words in sentences for word in words}
        own = set(table[row.label])
        rows.append(
            {
                **asdict(row),
                "first": first,
                "known_first": sum(gene in own for gene in first) / attribution.TOP_GENES,
                "known_by_chance": round(len(all_words & own) / len(all_words), 4),
            }
        )
    return {"accuracy": round(accuracy, 4), "n_genes": asked.n_genes, "types": rows}


def first_genes(sentences: Sequence[Sequence[str]]) -> list[str]:
    """The genes that stand first over all the sentences: what a rank alone would put on top."""
    points: dict[str, float] = {}
    for words in sentences:
        for place, word in enumerate(words):
            points[word] = points.get(word, 0.0) + len(words) - place
    return sorted(points, key=lambda word: (-points[word], word))[: attribution.TOP_GENES]


def likeness(asked: Interpretation, table: Mapping[str, Sequence[str]], runs: Path) -> dict[str, Any]:
    """Mean cosine of markers of one type and of different types, by what the encoder reads of a gene."""
    model = load_text_encoder(asked.text_encoder or None)
    genes = sorted({gene for own in table.values() for gene in own})
    hashed = {gene: hashlib.sha256(gene.encode()).hexdigest()[:HASH_LENGTH] for gene in genes}
    views = {
        "gene texts": gene_vectors(gene_texts(genes), model, cache=runs / "vectors"),
        "symbols": _encoded(model, {gene: gene for gene in genes}),
        "hashed symbols": _encoded(model, hashed),
    }
    return {name: protocol.marker_similarity(vectors, table) for name, vectors in views.items()}


def _encoded(model: Any, texts: Mapping[str, str]) -> dict[str, np.ndarray]:
    found = model.encode(list(texts.values()), normalize_embeddings=True, show_progress_bar=False)
    return dict(zip(texts, np.asarray(found, np.float32), strict=True))


__all__ = ["Interpretation", "interpret"]
