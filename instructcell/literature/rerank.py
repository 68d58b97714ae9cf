"""A language model with general knowledge has the last word on cell types (scMPT), or the only one, and sits a quiz.

What was answered is kept: each answer is yielded as it comes, and a run that ends early has its cells up to there.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from instructcell.errors import LabelError
from instructcell.literature.frames import QUIZ_FRAME, RERANK_FRAME, ask_choice, ask_type_of, draw_frame
from instructcell.literature.language import LanguageModel

QUIZ_OPTIONS = 4


def rerank(
    sentences: Sequence[Sequence[str]],
    candidates: Sequence[Sequence[str]],
    model: LanguageModel,
    *,
    species: str = "",
) -> Iterator[str]:
    """The type that a language model chooses among each cell's candidates, the likeliest of which stand first.

    A cell with one candidate is not asked about; an answer that names no candidate counts as unsure: the first.

    Parameters
    ----------
    sentences
        The words of each cell, see `encoders.CellSentences`.
    candidates
        Of each cell, see `instructcell.literature.neighbours.vote`.
    """
    for words, options in zip(sentences, candidates, strict=True):
        options = list(options)
        if len(options) == 1:
            yield options[0]
            continue
        prompt = ask_choice(RERANK_FRAME, options, words=list(words), species=species)
        yield options[model.choose(prompt, options) or 0]


def ask_types(
    sentences: Sequence[Sequence[str]],
    labels: Sequence[str],
    model: LanguageModel,
    *,
    species: str = "",
    first_cell: int = 0,
    seed: int = 0,
) -> Iterator[str]:
    """The type that a language model gives each cell without having learned from any; "" if it names none of them.

    The prompts are those that a cell-sentence model is fine-tuned on, one of the fifteen frames drawn per cell, under a
    line with all types. `first_cell` is the position of the first cell, which draws its frame.
    """
    options = list(labels)
    if len(options) < 2:
        raise LabelError(f"found {len(options)} types to choose from, expected at least two")
    for cell, words in enumerate(sentences, start=first_cell):
        prompt = ask_type_of(options, list(words), species=species, frame=draw_frame(cell, seed))
        chosen = model.choose(prompt, options)
        yield "" if chosen is None else options[chosen]


@dataclass(frozen=True)
class QuizResult:
    """How often a language model tells a marker from genes that mark other types."""

    accuracy: float
    chance: float
    n_questions: int
    wrong: tuple[tuple[str, str, str], ...]  # type, marker, what was said


def marker_quiz(
    markers: Mapping[str, Sequence[str]], model: LanguageModel, *, per_type: int = 3, seed: int = 0
) -> QuizResult:
    """Ask for the one marker of a type among markers of the other types.

    Parameters
    ----------
    markers
        Type -> its marker genes, the best first.

    Raises
    ------
    LabelError
        Fewer than two types, or no type has a gene that the others lack.
    """
    rng = np.random.default_rng(seed)
    questions: list[tuple[str, str, list[str]]] = []
    for label, genes in markers.items():
        others = sorted({gene for name, of in markers.items() if name != label for gene in of} - set(genes))
        own = [gene for gene in genes if all(gene not in of for name, of in markers.items() if name != label)]
        for gene in own[:per_type] if len(others) >= QUIZ_OPTIONS - 1 else []:
            drawn = [others[i] for i in rng.choice(len(others), QUIZ_OPTIONS - 1, replace=False)]
            questions.append((label, gene, [str(x) for x in rng.permutation([gene, *drawn])]))
    if not questions:
        raise LabelError(f"no quiz can be made of {len(markers)} types; give two or more with markers of their own")
    wrong = []
    for label, gene, options in questions:
        chosen = model.choose(ask_choice(QUIZ_FRAME, options, label=label), options)
        if chosen is None or options[chosen] != gene:
            wrong.append((label, gene, "" if chosen is None else options[chosen]))
    return QuizResult(1 - len(wrong) / len(questions), 1 / QUIZ_OPTIONS, len(questions), tuple(wrong))
