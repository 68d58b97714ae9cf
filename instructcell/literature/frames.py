"""The words around a cell sentence: fifteen ways to ask for the type, one to ask for a cell, those of a choice.

"{n}" is the number of genes, "{species}" the species, "{words}" the genes, "{label}" a cell type and "{options}" a
list of them. The type, or the genes, follow the prompt as its answer.
"""

from __future__ import annotations

import numpy as np

FRAMES = (
    "These {n} genes of one {species} cell run from the highest to the lowest expression: {words}. Name its type:",
    "One {species} cell, read as its {n} strongest genes, strongest first: {words}. The cell is of type:",
    "Which type of {species} cell expresses these {n} genes, in this order of strength? {words}. Answer:",
    "Gene ranking of a single {species} cell ({n} names, falling expression): {words}. Annotation:",
    "Take the {n} top genes of a {species} cell, sorted from most to least transcribed: {words}. Its identity is:",
    "A {species} cell was sequenced. Its {n} leading transcripts, by falling abundance: {words}. Cell type:",
    "Read this profile of a {species} cell, {n} gene names with the most abundant in front: {words}. It belongs to:",
    "For a {species} cell the {n} most expressed genes are, in order: {words}. An expert would call this cell:",
    "Profile: {words}. These are the {n} top genes of a {species} cell by rank. The matching cell type is:",
    "Someone lists the {n} genes that a {species} cell uses most, beginning with the first: {words}. Its type must be:",
    "Below stand {n} genes of a {species} cell; each is expressed at least as much as the next. {words}. Label:",
    "Name the {species} cell type whose expression, ordered downwards over {n} genes, reads {words}. Type:",
    "Transcript ranking, {n} entries, one {species} cell, highest count first: {words}. What is this cell?",
    "From the order of {n} expressed genes one can tell a {species} cell. Here it is {words}. This cell is a:",
    "Annotate a {species} cell from its {n} best expressed genes in falling order: {words}. Annotation of the cell:",
)
GENERATION_FRAME = "Write the {n} most expressed genes of a {species} {label}, the strongest first:"
EMBEDDING_FRAME = "genes ranked by expression {words}"
CELLAMA_FRAME = "The top genes of this cell are {words}"
ZERO_SHOT_LINE = "Reply with the name of one of these cell types and nothing else: {options}.\n"
RERANK_FRAME = (
    "The most expressed genes of one {species} cell, strongest first: {words}.\n"
    "A classifier proposes these types, the likeliest first: {options}.\n"
    "Choose the type that the genes support best. If you are unsure, choose the first.\n"
    "Reply with the name of one proposed type and nothing else.\nCell type:"
)
QUIZ_FRAME = (
    "Which one of these genes is a marker of the cell type {label}: {options}?\n"
    "Reply with one gene from the list and nothing else.\nGene:"
)


def draw_frame(item: int, seed: int) -> str:
    """One of the fifteen frames, drawn for an item; the same item and seed draw the same frame."""
    return FRAMES[int(np.random.default_rng([seed, item]).integers(len(FRAMES)))]


def ask_type(words: list[str], *, species: str = "", frame: str = FRAMES[0]) -> str:
    """The prompt that asks for the type of a cell."""
    return _tidy(frame.format(n=len(words), species=species, words=" ".join(words)))


def ask_type_of(options: list[str], words: list[str], *, species: str = "", frame: str = FRAMES[0]) -> str:
    """The same prompt for a model that was not fine-tuned, under a line that names the types."""
    return ZERO_SHOT_LINE.format(options="; ".join(options)) + ask_type(words, species=species, frame=frame)


def ask_cell(label: str, n_genes: int, *, species: str = "") -> str:
    """The prompt that asks for the sentence of a cell."""
    return _tidy(GENERATION_FRAME.format(n=n_genes, species=species, label=label))


def ask_choice(frame: str, options: list[str], *, words: list[str] = (), species: str = "", label: str = "") -> str:  # type: ignore[assignment]
    """A prompt with options in their order."""
    return _tidy(frame.format(species=species, words=" ".join(words), options="; ".join(options), label=label))


def _tidy(text: str) -> str:
    """Without the gap that a species leaves that is not known."""
    return "\n".join(" ".join(line.split()) for line in text.splitlines())
