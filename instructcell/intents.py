"""What a sentence asks for: the intent by meaning, the slots by what the data and the resources know.

The intent is the vote of the nearest exemplars (`router`), unless words of command, or the request before, settle it;
slots (`mentions`, `pointing`, `slots`) are found in the words. When neither settles what is meant, the request says
what it wavers between and the session asks back.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial

import pandas as pd

from instructcell import sentences, slots
from instructcell.commands import NARROWED, NARROWER, command, of_drug, order, points_at, speaks_of_calls, within_talk
from instructcell.comparands import with_groups
from instructcell.drugs import DrugSet
from instructcell.filling import first_clause, protected, question, read, words_of_command
from instructcell.following import continued, standing_alone
from instructcell.labels import LabelSet
from instructcell.mentions import (
    FILLERS,
    drug_by_place,
    generic,
    unknown_type,
)
from instructcell.requests import (
    ANNOTATE,
    COMPARE,
    COMPARE_DRUG,
    COUNT,
    DESCRIBE,
    DRUG,
    DRUG_FACTS,
    EXPLAIN,
    EXPRESSION,
    FIND,
    GENE,
    GENERATE,
    HELP,
    MAP,
    MARKERS,
    OUT_OF_SCOPE,
    QUALITY,
    RANK,
    REAL,
    RESTART,
    SELECT,
    SMALL_TALK,
    SUBSET,
    UNDO,
    Request,
    Topic,
)
from instructcell.retrieval.names import load_name_book
from instructcell.router import Router
from instructcell.tools import CELL_TYPE

SURE = 0.7  # probability from which the reader's intent stands unless the slots contradict it
CERTAIN = 0.9  # the same for starting again, which forgets results
LIKELY = 0.12  # probability from which an intent is thought of where none is sure
READS = (MARKERS, EXPLAIN, GENE, EXPRESSION)  # the model answers what is asked of a type with a cell of it as well
CLEAR = 0.2  # lead in votes below which the slots, or the user, decide
POINTING = re.compile(r"\b(clusters?|groups?|first|last|only|where|cells?\s+#?\d+)\b", re.IGNORECASE)
WHAT_IS = (
    r"(?:(?:what(?:'s|\s+is|\s+are)(?:\s+(?:exactly|actually))?|what\s+exactly\s+(?:is|are)|define|explain"
    r"|tell me about)\s+)?(?:(?:an?|the)\s+)?"
)


def understand(
    text: str,
    *,
    router: Router,
    labels: LabelSet,
    drugs: DrugSet,
    obs: pd.DataFrame | None = None,
    last: Request | None = None,
    topic: Topic | None = None,
    files: Sequence[str] = (),
    current: str = "",
    made: bool = False,
    corrects: bool = False,
    previous: str = "",
    makes_cells: Callable[[str], bool] | None = None,
) -> Request:
    """Read one sentence of the user.

    Parameters
    ----------
    labels, drugs
        What the checkpoint knows.
    obs
        The loaded cells' table, for "cluster 3" or "the first 20 cells"; None when nothing is loaded.
    last, topic
        The request before, for "and beta cells?"; and what was talked of, for "which type has most of it?".
    files
        Names of the loaded files, the first loaded first.
    current
        The one that is talked about.
    made
        Whether there are pseudo-cells to talk about.
    corrects
        Whether it takes the place of the request before: "no, I meant cluster 3".
    previous
        The intent of the turn before, whatever it was; `last` is the latest one that can be gone on with.
    makes_cells
        Whether the model itself would answer a sentence with a pseudo-cell; asked where the reader is in doubt.
    """
    topic = Topic() if topic is None else topic
    known_words = words_of_command() | protected(obs, files)
    text = sentences.mended(sentences.spelled_out(text), router.common | sentences.LINKING, known_words)
    slots_of = partial(read, labels=labels, drugs=drugs, obs=obs, files=files, topic=topic, current=current)
    text = question(text, slots_of)
    request = slots_of(text)
    if last is not None:
        rest = sentences.without_rejected(text)
        again = slots_of(rest)
        request = again if rest != text and again.fragment else request
        request = request if request.fragment else first_clause(text, slots_of) or request
    votes = router.votes(request.text, generic(request.text, request, router.spelled), previous=previous)
    decided = _followed(request, votes, last, corrects=corrects)
    if decided is not None and _stands_for_itself(request, decided, *votes[0], loaded=obs is not None):
        decided = None
    if decided is None:
        request = _inherited(request, votes[0][0], topic)
        decided = _decide(request, votes, topic, loaded=obs is not None, made=made, makes_cells=makes_cells)
    of_drug = last is not None and last.intent in (DRUG, COMPARE_DRUG) and topic.drugs and not request.genes
    if decided.intent == COMPARE and of_drug and slots.ACTS.search(text):
        decided = replace(
            decided, intent=COMPARE_DRUG, drugs=topic.drugs[:1]
        )  # "who suffers more, the NK or the B cells?"
    if decided.intent in (COMPARE, COMPARE_DRUG) or (decided.intent == RANK and slots.COMPARES.search(text)):
        decided = with_groups(decided, labels, drugs, obs, topic)
    return decided


def _followed(
    request: Request, votes: list[tuple[str, float]], last: Request | None, *, corrects: bool
) -> Request | None:
    """The request before with the slots of this one, where this one is no question of its own."""
    if (
        slots.RESTORES.search(request.text)
        or slots.UNDO.search(request.text)
        or slots.RESTART.search(request.text)
        or slots.KEPT_FROM_NOW.search(request.text)
        or request.file
    ):
        return None
    if last is None:
        return None
    if last.intent == COMPARE and request.genes and last.groups and slots.AMONG_GENES.search(request.text):
        return replace(request, intent=COMPARE, groups=last.groups)
    if last.intent == MAP and request.genes and not slots.COUNTS.search(request.text) and slots.IT.search(request.text):
        return replace(request, intent=MAP)
    if request.type_name and last.intent == EXPLAIN and slots.NOT_THAT.match(request.text):
        return replace(request, intent=EXPLAIN, why_not=request.type_name)
    if request.type_name and slots.SELECTED.search(request.text) and not slots.COUNTS.search(request.text):
        return replace(request, intent=SELECT)
    if last.intent == EXPRESSION and slots.IN_HOW_MANY.match(request.text) and not request.drugs:
        return continued(replace(request, fragment=True), last)
    if last.intent == QUALITY and len(request.values) > 1 and slots.WORSE.search(request.text) and not request.genes:
        return replace(request, intent=QUALITY, column=request.values[0].column, cells=None)
    spares = last.intent == RANK and slots.SPARES.search(request.text)
    if spares and request.type_name and not request.drugs and not slots.ASKS_DRUG.search(request.text):
        return continued(replace(request, fragment=True), last)
    if slots.ALL_NOW.match(request.text) and last.intent in (ANNOTATE, SUBSET, EXPRESSION, DRUG, RANK, QUALITY):
        return continued(replace(request, fragment=True, cells=None), last)
    counts = last.intent == MAP and re.match(r"^\W*(?:and\s+)?count\b", request.text, re.IGNORECASE)
    if counts:
        return None
    if request.fragment or corrects:
        found = continued(request, last, corrects=corrects)
        return None if found is None else _filled(found)
    return None


def _stands_for_itself(request: Request, followed: Request, best: str, share: float, *, loaded: bool) -> bool:
    """Whether a fragment asks for something else than the sentence before it, by its words: "INS by gate"."""
    if not loaded or best == followed.intent or share < SURE or followed.replaces is not None:
        return False
    if best == COUNT and slots.COMPOSITION.search(request.text):
        return True
    return best == EXPRESSION and bool(request.genes) and followed.intent in (COMPARE, EXPLAIN, QUALITY)


def _inherited(request: Request, best: str, topic: Topic) -> Request:
    """A gene or drug that only "it" names: "show it on the map", "which cluster does it hit most?"."""
    it = slots.IT.search(request.text)
    if topic.genes and not request.genes and not request.drugs:
        wants = (best == EXPRESSION and not request.column) or (best in (MAP, GENE) and it)
        most = slots.MOST_OF_IT.search(request.text) and slots.EACH_GROUP.search(request.text)
        if wants or most:
            text = slots.IT.sub(topic.genes[0], request.text, count=1) if best == GENE else request.text
            return replace(request, genes=topic.genes, gene=topic.genes[0], text=text)
    of_a_type = request.type_name and not (request.genes or request.drugs or request.column)
    if of_a_type and topic.column and slots.WHO_HAS_MOST.match(request.text):
        return replace(request, column=topic.column)
    asks_any = slots.SUCH_CELLS.search(request.text) or slots.ANY_OF_IT.match(request.text)
    if topic.types and not request.types and asks_any and not (request.genes or request.cells):
        name = topic.types[0]
        text = f"{request.text} ({name})" if best in (MARKERS, GENE) else request.text
        return replace(request, type_name=name, types=(name,), points_back=False, text=text)
    looks_up = slots.WHICH_GENES.search(request.text) and best in (MARKERS, EXPLAIN, GENE, HELP, DESCRIBE, OUT_OF_SCOPE)
    if topic.types and looks_up and not (request.types or request.genes or request.cells or points_at(request)):
        name = topic.types[0]
        return replace(request, type_name=name, types=(name,), text=f"{request.text} ({name})")
    if (
        topic.drugs
        and not request.drugs
        and slots.DRUG_KNOWLEDGE.search(request.text)
        and not slots.DRUGS.search(request.text)
    ):
        return replace(request, drugs=topic.drugs[:1])
    by_response = request.cells is not None and request.cells.response
    if topic.drugs and not by_response and not request.drugs and not request.genes and slots.ACTS.search(request.text):
        asks_which = slots.WHICH_DRUG.search(request.text) or slots.DRUGS.search(request.text)
        held = slots.EACH_GROUP.search(request.text) or slots.COMPARES.search(request.text) or request.column
        if not asks_which and (it or held):
            return replace(request, drugs=topic.drugs[:1])
    return request


def _decide(
    request: Request,
    votes: list[tuple[str, float]],
    topic: Topic,
    *,
    loaded: bool,
    made: bool,
    makes_cells: Callable[[str], bool] | None,
) -> Request:
    """The intent from words of command, the slots, the votes, and what the model itself makes of the sentence."""
    if (sure := _sure(request, *votes[0], topic, loaded=loaded, made=made)) is not None:
        return _filled(replace(request, intent=sure))
    if makes_cells is not None and _may_ask_for_cells(request, votes, loaded=loaded) and makes_cells(request.text):
        return _filled(replace(request, intent=GENERATE))
    votes = _supported(request, [vote for vote in votes if vote[0] != RESTART])  # it loses results
    (best, share), second = votes[0], votes[1] if len(votes) > 1 else (None, 0.0)
    clear = share - second[1] >= CLEAR
    within = within_talk(request, best) if loaded else None
    settled = within or command(request, best, loaded=loaded, made=made)
    if settled is not None:
        return _filled(replace(request, intent=settled))
    if request.fragment and (alone := standing_alone(request, best, loaded=loaded)) is not None:
        return _filled(replace(request, intent=alone))
    unheard = _unheard_type(request) if loaded and not request.type_name and best not in (QUALITY, FIND) else ""
    if unheard:
        return replace(request, intent=COUNT, types=(unheard,), type_name=unheard)
    named = next((mention.written for mention in load_name_book().cell_types(request.text)), "")
    groups = slots.COMPARES.search(request.text) or request.column or slots.EACH_GROUP.search(request.text)
    apart = (GENE, HELP, DRUG_FACTS, COMPARE_DRUG) if groups else (GENE, HELP, DRUG_FACTS)
    if request.knows_drug and best not in apart:
        best, clear = DRUG, True
    if best == ANNOTATE and request.selection is not None:
        best, clear = SUBSET, True
    if not clear and request.n is not None and named and {best, second[0]} & {GENERATE, SUBSET}:
        best, clear = GENERATE, True  # "give me 5 Kupffer cells"
    unclear_markers = not clear and MARKERS in (best, second[0]) and request.n is None
    only_named = re.fullmatch(rf"{WHAT_IS}{re.escape(named)}", request.text.strip(" ?.!"), re.IGNORECASE)
    if named and best != GENERATE and (unclear_markers or only_named):
        best, clear = MARKERS, True  # "what is a Kupffer cell?", "Kupffer cells?"
    if best == SUBSET and request.cells is None and not points_at(request) and not POINTING.search(request.text):
        best, clear = ANNOTATE, True
    if best in (EXPRESSION, FIND, COMPARE) and not loaded and (request.gene or named or topic.types):
        best, clear = (GENE if request.gene and not named else MARKERS), True
    if loaded and request.cells is not None and best in (COMPARE, SELECT) and not slots.COMPARES.search(request.text):
        asks = best == COMPARE or slots.SHOWS_CELLS.search(request.text)
        best, clear = (SUBSET, True) if asks else (best, clear)
    pair = {best, second[0]}
    if not clear and pair == {SUBSET, SELECT} and request.cells is not None and not sentences.ASKS.match(request.text):
        best, clear = SELECT, True  # "the unknown ones"
    if not clear and (pair == {ANNOTATE, SUBSET} or share >= 0.5):
        clear = True
    if not clear and GENE in pair and request.genes and pair & {HELP, SMALL_TALK, OUT_OF_SCOPE}:
        best, clear = GENE, True  # "what purpose does GCG serve?"
    if not clear and pair == {MARKERS, GENE}:
        best, clear = (GENE if request.gene is not None and request.cell_type is None else MARKERS), True
    if not clear and pair <= {HELP, SMALL_TALK, OUT_OF_SCOPE, DESCRIBE, DRUG_FACTS}:
        clear = True
    return _filled(replace(request, intent=best, wavers=None if clear else second[0]))


def _sure(request: Request, best: str, share: float, topic: Topic, *, loaded: bool, made: bool) -> str | None:
    """The intent that the reader is sure of, in the words of the slots; None where it is not, or they contradict it."""
    settled = order(request, loaded=loaded)
    if settled is not None or share < (CERTAIN if best in (RESTART, UNDO) else SURE):
        return settled
    if _contradicted(request, best, topic, loaded=loaded):
        return None
    known_drug = request.knows_drug
    for settle in NARROWER.get(best, ()):
        found = settle(request, best, loaded=loaded, made=made, known_drug=known_drug)
        if found in NARROWED:
            return found
    text, about = request.text, request.cells is not None or points_at(request)
    if loaded and (within := within_talk(request, best)) is not None:
        return within
    if best in (ANNOTATE, SUBSET):
        if request.column and request.column != CELL_TYPE and slots.EACH_GROUP.search(text) and not request.labels:
            return COUNT  # "which cell types are in each cluster"
        by_group = request.column and slots.COMPOSITION.search(text)
        placed = best == SUBSET and (request.points_here or POINTING.search(text) is not None)
        some = request.cells is not None or request.points_back or placed
        return COUNT if by_group else SUBSET if some else ANNOTATE
    if best == COUNT:
        whole = slots.COMPOSITION.search(text) and not (request.column or request.type_name or about)
        rejects = slots.NOT_OF_TYPE.search(text)
        return ANNOTATE if whole else COUNT if rejects or _counts_groups(request) or not request.type_name else ANNOTATE
    if best == MARKERS and loaded and request.cells is not None and re.search(r"\btypes?\b", text, re.IGNORECASE):
        return SUBSET  # "HD02 on its own, cell types"
    if best == MARKERS and loaded and not request.type_name and (about or request.column):
        return MARKERS if topic.types and slots.TEXTBOOK.search(text) else COMPARE
    if best == COMPARE and made and slots.REAL.search(text) and slots.COMPARES.search(text):
        return REAL  # "now compare them to the real delta cells"
    if best == MARKERS and request.genes and not request.type_name:
        return GENE  # "is CLEC4C a good marker?"
    if best == COMPARE_DRUG and not request.drugs and sentences.COMMAND.match(text) and not of_drug(request):
        return COMPARE  # "compare cluster 0 with cluster 1", after talk of a drug
    if best == OUT_OF_SCOPE and loaded and slots.WHICH_DRUG.search(text):
        return RANK  # "which drug should I give my patient?": told with what it is worth
    return best


def _may_ask_for_cells(request: Request, votes: list[tuple[str, float]], *, loaded: bool) -> bool:
    """Whether the reader, unsure, thinks of pseudo-cells too, and no name speaks against it: "B cell, counts out".

    There the model's own reading counts, which is of little use elsewhere: without a cell at hand it begins to make
    one of most questions.
    """
    near = [intent for intent, share in votes[: 2 if loaded else 3] if share >= LIKELY]
    named = request.type_name and not (request.genes or request.drugs or request.column or request.cells is not None)
    reads = votes[0][0] in READS or votes[1][0] in READS[:2]
    return bool(GENERATE in near and not reads and named and not points_at(request))


def _contradicted(request: Request, best: str, topic: Topic, *, loaded: bool) -> bool:
    """Whether what a sentence names does not go with an intent, or its words are more than a name."""
    text = request.text
    known_drug = request.knows_drug
    if request.fragment and slots.CHOOSES.search(text):
        return True  # "only the sensitive ones"
    if best in (UNDO, SMALL_TALK) and slots.CLUSTERING.search(text):
        return True
    if best in (ANNOTATE, SUBSET):
        everyday = not any(not mention.written.islower() for mention in load_name_book().genes(text))  # "ids"
        return known_drug or bool(request.genes and not everyday)
    if best == COUNT:
        titled = request.cells is not None and slots.WHICH_ARE.match(text)
        return bool(request.genes or known_drug or not loaded or titled)
    if best == EXPRESSION:
        return not (loaded and (request.genes or topic.genes))
    if best in (DRUG, COMPARE_DRUG, DRUG_FACTS):
        return not (topic.drugs or request.drugs or slots.DRUGS.search(text) or slots.ACTS.search(text))
    if best == SELECT:
        return not loaded or not (request.cells is not None or points_at(request) or request.type_name or request.genes)
    if best in (OUT_OF_SCOPE, HELP, SMALL_TALK):
        has = bool(request.genes and slots.THEY_HAVE.search(text))
        return loaded and (request.cells is not None or has or speaks_of_calls(text))
    return best in (COMPARE, EXPLAIN, MAP, FIND, REAL) and not loaded


def _unheard_type(request: Request) -> str:
    """A type that no table knows: "what about unicorn cells?"; "" where other names stand or words that are none."""
    match = slots.OF_CELLS.match(request.text)
    if match is None or request.genes or request.drugs or request.cells is not None or request.column:
        return ""
    words = match[1].split()
    return "" if FILLERS & {word.lower() for word in words} else f"{match[1]} cell"


def _supported(request: Request, votes: list[tuple[str, float]]) -> list[tuple[str, float]]:
    """The votes for what the sentence has words of; a count of one type or of all is the annotation's to tell."""
    shares: dict[str, float] = {}
    without = 0.0
    for intent, share in votes:
        if intent == COUNT and not _counts_groups(request):
            intent = ANNOTATE
        if _has_support(request, intent):
            shares[intent] = shares.get(intent, 0.0) + share
        else:
            without += share
    # it sounds like a question about cells, and is about none
    if request.cells is None and without > max(shares.values(), default=0.0):
        shares[OUT_OF_SCOPE] = shares.get(OUT_OF_SCOPE, 0.0) + without
    return sorted(shares.items(), key=lambda vote: -vote[1])


def _has_support(request: Request, intent: str) -> bool:
    """Whether a sentence has a word of what an intent is about, where it cannot do without."""
    text = request.text
    about_cells = request.cells is not None or request.type_name or points_at(request) or request.column
    if intent == COMPARE:
        return bool(
            about_cells or slots.COMPARES.search(text) or slots.BOTH.search(text) or slots.TOP_GENES.search(text)
        )
    if intent in (DRUG, COMPARE_DRUG, RANK, DRUG_FACTS):
        return bool(request.drugs or slots.DRUGS.search(text) or slots.ACTS.search(text) or slots.TRIES.search(text))
    if intent == EXPRESSION:
        return bool(request.genes or slots.AMOUNT.search(text) or slots.EXPRESSES.search(text))
    return True


def _counts_groups(request: Request) -> bool:
    """Whether a count needs more than the annotation's: several types, groups, or chosen cells."""
    pointed = request.cells is not None or points_at(request) or slots.LEFT.search(request.text)
    grouped = request.column or slots.BOTH.search(request.text) or slots.WHICH_GROUP_HAS.search(request.text)
    return bool(len(request.types) > 1 or grouped or (pointed and not request.type_name))


def _filled(request: Request) -> Request:
    """What only the intent tells: a drug by its place, a type that is not known."""
    if request.intent == DRUG and not request.drugs and not request.values:
        request = replace(request, drugs=drug_by_place(request.text))
    if request.intent in (GENERATE, MARKERS) and request.cell_type is None:
        request = replace(request, unknown_type=unknown_type(request.text) or request.unknown_type)
    return request
