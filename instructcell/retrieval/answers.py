"""Answers from the tables alone: what marks a cell type, what a gene does, which cells genes point to, what a cell is.

Each answer cites its source. A question that no entry supports is answered with a plain statement that it is not.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from functools import lru_cache

import pandas as pd

from instructcell.retrieval.index import MarkerIndex, load_index
from instructcell.retrieval.marker_table import COLUMNS, MarkerTable, load_marker_table
from instructcell.retrieval.names import NameBook, load_name_book, plain_words
from instructcell.retrieval.passages import Passage, gene_passage, load_passages

MARKERS_NAMED = 10
TYPES_NAMED = 5
NEAR_THE_BEST = 0.5  # share of the best score from which a further cell type is named
ENTRIES_QUOTED = 3
LONGEST_QUOTE = 320  # characters
SCOPE = "I can look up what marks a cell type, what a gene does, which cells genes point to, and what a cell type is."

# Asks for people, dates, amounts or advice: nothing the tables hold, whichever cell or gene is named.
OUT_OF_SCOPE = re.compile(
    r"^\W*(who\b|whose\b|when\b|how (?:much|many|long|old|often|big|expensive)\b"
    r"|how (?:do|can|should|to)\b(?!.*\b(?:mark|distinguish|identif|recogni|differ|tell apart))"
    r"|where can i\b|should i\b)"
    r"|\b(?:price|cost|weather|discovered|invented|nobel)\b",
    re.IGNORECASE,
)
ASKS_CELLS = re.compile(
    r"\b(?:which|what|whose|list|find)\s+(?:\w+\s+){0,2}(?:cells?|cell[- ]types?|types?|populations?)\b"
    r"|\bcell[- ]types?\b|\bcells? (?:that|with|which|express)|\b(?:who|where)\b.*\bexpress|\bexpressed (?:in|by)\b"
    r"|\bmarkers? of (?:what|which)\b|\bpoints? to\b",
    re.IGNORECASE,
)
ASKS_MARKERS = re.compile(
    r"\bmark(?:s|er|ers|ed|ing)?\b|\bsignatures?\b|\bgenes?\b|\bexpress\w*|\bidentif\w*|\brecogni[sz]e\w*"
    r"|\btell apart\b|\bdistinguish\w*|\bdifferen\w+",
    re.IGNORECASE,
)
ASKS_WHAT_IT_IS = re.compile(
    r"\b(?:what(?:'s|\s+is|\s+are)|define|describe|explain)\s+(?!the\b)(?:\w+\s+)?(?!mark|signature|gene)\w+",
    re.IGNORECASE,
)
# Questions of a fixed form, whose subject must be something the tables know.
SUBJECT_FORMS = tuple(
    re.compile(form, re.IGNORECASE)
    for form in (
        r"^(?:what|which)\s+(?:genes\s+)?(?:marks?|identif(?:y|ies)|defines?)\s+(?P<subject>[^,;]+?)[\s?.!]*$",
        r"\b(?:markers?|marker genes|signature)\s+(?:genes\s+)?(?:of|for)\s+(?P<subject>[^,;]+?)[\s?.!]*$",
        r"^(?P<subject>[^,;]+?)\s+(?:markers?|marker genes|signature)[\s?.!]*$",
        r"^what\s+(?:does|do)\s+(?P<subject>[^,;]+?)\s+(?:do|encode|code for|stand for|mean)[\s?.!]*$",
        r"^(?:what(?:'s|\s+is|\s+are)|define|describe|explain|tell me about)\s+(?P<subject>[^,;]+?)[\s?.!]*$",
        r"^(?:what is\s+)?(?:the\s+)?(?:function|role)\s+of\s+(?P<subject>[^,;]+?)[\s?.!]*$",
        r"^(?P<subject>\S+)\s+(?:function|role|gene)[\s?.!]*$",
    )
)
LEADING = re.compile(r"^(?:an?|the|some|all|any|gene|genes|protein|typical|human|mouse)\s+", re.IGNORECASE)
TRAILING = re.compile(r"\s+(?:gene|protein)s?$", re.IGNORECASE)
LONGEST_SUBJECT = 5  # words; a longer one is a description, to be understood by meaning
WORDS_OF_FORM = frozenset(
    """
    a an and are between by cell difference do does for from function gene human in is marker mouse negative not of on
    or positive protein role the to type what which with
    """.split()  # noqa: SIM905
)


@dataclass(frozen=True)
class KnowledgeAnswer:
    """An answer from the tables.

    Attributes
    ----------
    text
        The answer in Markdown, with its source; or the statement that no entry supports one.
    passages
        What it rests on, best first.
    supported
        Whether it rests on anything.
    table
        The markers behind it in the columns of `markers`, or None.
    """

    text: str
    passages: tuple[Passage, ...] = ()
    supported: bool = True
    table: pd.DataFrame | None = None


def answer_knowledge(
    question: str, *, index: MarkerIndex | None = None, table: MarkerTable | None = None, names: NameBook | None = None
) -> KnowledgeAnswer:
    """Answer a question about markers, genes or cell types from the index, with the source.

    Parameters
    ----------
    question
        One question or a few words.
    index, table, names
        What to look in; the shipped ones by default.

    Examples
    --------
    >>> answer_knowledge("what marks a delta cell?").text.split(" by ")[1][:3]
    'SST'
    >>> answer_knowledge("who won the world cup?").supported
    False
    """
    library = _Library(index or load_index(), table or load_marker_table(), names or load_name_book())
    if OUT_OF_SCOPE.search(question):
        return _unsupported("No entry of the marker, gene and cell type tables answers that.")
    types = [mention.id for mention in library.names.cell_types(question)]
    genes = [mention.id for mention in library.names.genes(question)]
    subject = subject_of(question)
    if subject and not types and not genes:
        types, genes = _meant_by(subject, library.names)
    unknown = _unknown_words(subject, library) if subject else []
    if unknown:
        listed = ", ".join(f"“{word}”" for word in unknown)
        return _unsupported(f"No entry of the marker, gene and cell type tables mentions {listed}.")
    if types and genes and (ASKS_MARKERS.search(question) or ASKS_CELLS.search(question)):
        return _relation(genes, types, library)
    if genes:
        return _cells_of(genes, library) if ASKS_CELLS.search(question) else _functions(genes, library)
    if types:
        markers_only = bool(ASKS_MARKERS.search(question)) and not ASKS_WHAT_IT_IS.search(question)
        return _types(types, library, markers_only=markers_only)
    return _nearest(question, library)


@dataclass(frozen=True)
class _Library:
    """Everything an answer is looked up in."""

    index: MarkerIndex
    table: MarkerTable
    names: NameBook


def subject_of(question: str) -> str:
    """What a question of a fixed form is about ("flurbo cell" of "what marks a flurbo cell?"), "" for others."""
    for form in SUBJECT_FORMS:
        match = form.search(question.strip())
        if match:
            subject = match.group("subject").strip(" \"'“”‘’")
            while LEADING.match(subject):
                subject = LEADING.sub("", subject)
            subject = TRAILING.sub("", subject)
            return subject if len(subject.split()) <= LONGEST_SUBJECT else ""
    return ""


def _meant_by(subject: str, names: NameBook) -> tuple[list[str], list[str]]:
    """The type or the gene that the whole subject is a name of, a typing error allowed."""
    symbol = names.gene(subject) if len(subject) > 1 else None
    if symbol:
        return [], [symbol]
    cl_id = names.cell_type(subject)
    return ([cl_id], []) if cl_id else ([], [])


def _unknown_words(subject: str, library: _Library) -> list[str]:
    """Words of a subject that neither a name nor any passage holds."""
    if library.names.cell_type(subject) or library.names.gene(subject):
        return []
    covered = {word for found in library.names.genes(subject) for word in plain_words(found.written)}
    left = {written: plain_words(written) for written in re.findall(r"[^\W\d_][^\W_]*", subject)}
    known = WORDS_OF_FORM | covered | _vocabulary()
    return [written for written, plain in left.items() if not known.issuperset(plain)]


@lru_cache(maxsize=1)
def _vocabulary() -> frozenset[str]:
    """Every plain word of the passages and of the cell types' names."""
    found = set(re.findall(r"[a-z0-9]+", " ".join(passage.text for passage in load_passages()).lower()))
    names = load_name_book()
    return frozenset(found.union(*names.types_in_text, *map(plain_words, found)))


def _types(cl_ids: list[str], library: _Library, *, markers_only: bool) -> KnowledgeAnswer:
    """What marks the types, after what they are unless only markers were asked for."""
    parts, passages, tables = [], [], []
    for cl_id in cl_ids[:TYPES_NAMED]:
        definition = library.index.get("ontology", cl_id)
        if definition is not None and not markers_only:
            parts.append(f"{definition.text} ({definition.source})")
            passages.append(definition)
        owner = library.table.owner(cl_id)
        if owner is not None:
            found = library.table.of_type(owner, MARKERS_NAMED)
            parts.append(_marker_sentence(cl_id, found, library.names))
            tables.append(found)
            passages += [passage for passage in [library.index.get("markers", owner)] if passage is not None]
    if not parts:
        name = library.names.ontology.name(cl_ids[0])
        lacking = "markers" if markers_only else "markers or a definition"
        return _unsupported(f"No source of the tables lists {lacking} of {name} ({cl_ids[0]}).")
    table = pd.concat(tables, ignore_index=True) if tables else None
    return KnowledgeAnswer("\n\n".join(parts), _certain(passages), table=table)


def _marker_sentence(cl_id: str, found: pd.DataFrame, names: NameBook) -> str:
    """ "**pancreatic D cell** (CL:0000173) is marked by SST (weight 70.3), ... (CellConsensus 1.2.0, 21 sources)"."""
    asked, owner = names.ontology.name(cl_id), str(found["cell_type"].iloc[0])
    genes = [f"{row.gene} ({row.weight:.3g})" for row in found.itertuples()]
    genes[0] = genes[0].replace("(", "(weight ")
    lead = f"**{asked}** ({cl_id}) is marked by"
    if found["cl_id"].iloc[0] != cl_id:
        lead = f"No source lists markers of {asked} ({cl_id}). The broader type **{owner}** is marked by"
    return f"{lead} {', '.join(genes)} [{_cite(found)}; a weight is the support summed over the sources]."


def _functions(symbols: list[str], library: _Library) -> KnowledgeAnswer:
    """What genes do, and which cell types they mark."""
    parts, passages = [], []
    for symbol in symbols[:TYPES_NAMED]:
        passage = library.index.get("gene", symbol) or _passage_of_gene(symbol)
        passages.append(passage)
        parts.append(f"**{symbol}**{passage.text.removeprefix(symbol)} [{passage.source}]{_marks(symbol, library)}")
    return KnowledgeAnswer("\n\n".join(parts), _certain(passages))


def _marks(symbol: str, library: _Library) -> str:
    """A sentence on the cell types a gene marks, "" if none."""
    types = _worth_naming(library.table.types_marked_by([symbol], TYPES_NAMED))
    if types.empty:
        return ""
    cited = _cite(library.table.of_type(types["cl_id"].iloc[0]), count=False)
    return f" As a marker it points to {_listed(types['cell_type'].tolist()[:3])} [{cited}]."


def _worth_naming(types: pd.DataFrame) -> pd.DataFrame:
    """The types whose score comes near the best one's."""
    return types[types["score"] >= NEAR_THE_BEST * types["score"].max()]


def _passage_of_gene(symbol: str) -> Passage:
    """The passage of a gene that the index leaves out (a non-coding gene without a known function)."""
    from instructcell.genes import load_gene_table

    table = load_gene_table()
    return gene_passage(table[table["symbol"] == symbol].iloc[0].to_dict())


def _cells_of(symbols: list[str], library: _Library) -> KnowledgeAnswer:
    """The cell types that genes point to."""
    types = _worth_naming(library.table.types_marked_by(symbols, TYPES_NAMED))
    if types.empty:
        return _unsupported(f"No source of the tables lists {_listed(symbols)} among the markers of a cell type.")
    marked = [library.table.of_type(cl_id) for cl_id in types["cl_id"]]
    table = pd.concat([rows[rows["gene"].isin(symbols)] for rows in marked], ignore_index=True)
    shown = [f"{row.cell_type} ({row.genes}; score {row.score:.2f})" for row in types.itertuples()]
    what = "mark" if len(symbols) > 1 else "marks"
    text = f"**{_listed(symbols)}** {what}, best first: {'; '.join(shown)} [{_cite(table, count=False)}]."
    unlisted = [symbol for symbol in symbols if not table["gene"].eq(symbol).any()]
    if unlisted:
        text += f" {_listed(unlisted)}: not among the markers of these types."
    passages = [passage for id in types["cl_id"] if (passage := library.index.get("markers", id)) is not None]
    return KnowledgeAnswer(text, _certain(passages), table=table)


def _relation(symbols: list[str], cl_ids: list[str], library: _Library) -> KnowledgeAnswer:
    """Whether genes are markers of types."""
    parts, passages, rows = [], [], []
    for cl_id in cl_ids[:TYPES_NAMED]:
        owner = library.table.owner(cl_id)
        if owner is None:
            continue
        found = library.table.of_type(owner)
        passages += [passage for passage in [library.index.get("markers", owner)] if passage is not None]
        for symbol in symbols[:TYPES_NAMED]:
            parts.append(_is_marker(symbol, found) + ("" if symbol in set(found["gene"]) else _marks(symbol, library)))
        rows.append(found[found["gene"].isin(symbols)])
    if not parts:
        return _unsupported("No source of the tables lists markers of that cell type.")
    table = pd.concat(rows, ignore_index=True)[COLUMNS]
    return KnowledgeAnswer("\n\n".join(parts), _certain(passages), table=table)


def _is_marker(symbol: str, found: pd.DataFrame) -> str:
    """One sentence: whether a gene stands among the markers of a type, and where."""
    name, at = found["cell_type"].iloc[0], found.index[found["gene"] == symbol]
    if len(at):
        row = found.loc[at[0]]
        return (
            f"Yes: **{symbol}** is listed as a marker of {name}, rank {at[0] + 1} of {len(found)}, "
            f"weight {row['weight']:.3g} [{_cite(found)}]."
        )
    return f"**{symbol}** is not among the {len(found)} best markers of {name} [{_cite(found)}]."


def _nearest(question: str, library: _Library) -> KnowledgeAnswer:
    """The entries nearest in meaning to a question that names nothing exactly, quoted."""
    found = library.index.search(question, ENTRIES_QUOTED)
    if not found:
        return _unsupported("No entry of the marker, gene and cell type tables supports an answer to that.")
    quotes = [f"- {_shortened(passage.text)} [{passage.source}]" for passage in found]
    return KnowledgeAnswer("The nearest entries of the tables:\n\n" + "\n".join(quotes), tuple(found))


def _unsupported(why: str) -> KnowledgeAnswer:
    return KnowledgeAnswer(f"{why} {SCOPE}", supported=False)


def _cite(found: pd.DataFrame, *, count: bool = True) -> str:
    source, n_sources = str(found["source"].iloc[0]), int(found["n_sources"].iloc[0])
    return f"{source}, {n_sources} source{'' if n_sources == 1 else 's'}" if count else source


def _certain(passages: list[Passage]) -> tuple[Passage, ...]:
    return tuple(replace(passage, score=1.0) for passage in passages)


def _listed(names: list[str]) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"


def _shortened(text: str) -> str:
    return text if len(text) <= LONGEST_QUOTE else text[:LONGEST_QUOTE].rsplit(" ", 1)[0] + " ..."
