"""What a sentence asks for: the intent by meaning, the slots by what the data and the resources know.

The intent is the vote of the nearest exemplars (`router`), unless words of command, or the request before, settle it;
slots (`mentions`, `pointing`, `slots`) are found in the words. When neither settles what is meant, the request says
what it wavers between and the session asks back.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from functools import cache, partial

import pandas as pd

from instructcell import sentences, slots
from instructcell.drugs import DrugSet
from instructcell.following import continued, standing_alone
from instructcell.labels import LabelSet
from instructcell.mentions import (
    FILLERS,
    ask_for_unknown,
    drug_by_place,
    find_cell_type,
    find_choices,
    find_drugs,
    find_genes,
    find_numbers,
    find_species,
    find_tissue,
    gene_of_cells,
    generic,
    named_types,
    title_of,
    type_name,
    unknown_gene,
    unknown_type,
    without,
    written_type,
)
from instructcell.pointing import beyond, find_selection, mentioned_values
from instructcell.requests import (
    ANNOTATE,
    CLUSTER,
    COMPARE,
    COMPARE_DRUG,
    COUNT,
    DESCRIBE,
    DOWNLOAD,
    DRUG,
    DRUG_FACTS,
    EMBED,
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
from instructcell.retrieval.names import LAB_NAMES, Mention, load_name_book
from instructcell.router import Router
from instructcell.toolbox.arguments import ALL, EITHER, Cells
from instructcell.toolbox.data import groupings

SURE = 0.7  # probability from which the reader's intent stands unless the slots contradict it
CERTAIN = 0.9  # the same for starting again, which forgets results
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
    """
    topic = Topic() if topic is None else topic
    protected = words_of_command() | _protected(obs, files)
    text = sentences.mended(sentences.spelled_out(text), router.common, protected)
    slots_of = partial(read, labels=labels, drugs=drugs, obs=obs, files=files, topic=topic, current=current)
    text = _question(text, slots_of)
    request = slots_of(text)
    if last is not None and not request.fragment:
        rest = sentences.without_rejected(text)
        again = slots_of(rest)
        request = again if rest != text and again.fragment else request
    votes = router.votes(request.text, generic(request.text, request, router.spelled), previous=previous)
    decided = _followed(request, votes, last, corrects=corrects)
    if decided is not None and _stands_for_itself(request, decided, *votes[0], loaded=obs is not None):
        decided = None
    if decided is None:
        request = _inherited(request, votes[0][0], topic)
        decided = _decide(request, votes, topic, loaded=obs is not None, made=made)
    if decided.intent in (COMPARE, COMPARE_DRUG) or (decided.intent == RANK and slots.COMPARES.search(text)):
        decided = _with_groups(decided, labels, drugs, obs, topic)
    return decided


def read(
    text: str,
    *,
    labels: LabelSet,
    drugs: DrugSet,
    obs: pd.DataFrame | None,
    files: Sequence[str],
    topic: Topic,
    current: str = "",
) -> Request:
    """The slots that a sentence fills; what it asks for is still open."""
    again = partial(read, labels=labels, drugs=drugs, obs=obs, files=files, topic=topic, current=current)
    if (swapped := _instead(text, again, obs)) is not None:
        return swapped
    names = load_name_book()
    types, genes = names.cell_types(text), find_genes(text, obs)
    if (of_cells := gene_of_cells(text)) is not None:
        types = [mention for mention in types if not _meet(mention, of_cells)]
        genes = [*(gene for gene in genes if not _meet(gene, of_cells)), of_cells]
    named_drugs = find_drugs(text, drugs, [(mention.start, mention.end) for mention in (*types, *genes)])
    values = tuple(mentioned_values(text, obs))
    of_file = set() if obs is None else {value.lower() for each in groupings(obs).values() for value in each.unique()}
    named_drugs = tuple(drug for drug in named_drugs if drug.drug is not None or drug.written.lower() not in of_file)
    taken = [(mention.start, mention.end) for mention in types]
    taken += [(mention.start, mention.end) for mention in named_drugs]
    selection, rest = find_selection(text, obs, taken)
    n, library_size, seed = find_numbers(slots.RESOLUTION.sub(" ", rest))
    apart = [gene for gene in genes if not any(gene.start < m.end and m.start < gene.end for m in types)]
    # No cell type is meant by a drug's or a gene's name, however near it is; but "NGN3 high progenitor" is a type.
    title = written_type(rest, labels)
    of_genes = [gene.written for gene in apart if gene.written == title or gene.written not in title]
    for written in (*(drug.written for drug in named_drugs), *of_genes):
        rest = rest.replace(written, " ")
    cell_type = find_cell_type(rest, labels)
    cells = slots.find_cells(text, obs, None if selection is None else selection.cells)
    if cells is None:
        cells = beyond(text, obs)
    if cells is None and (of_pair := slots.find_group_again(text, topic.groups)) is not None:
        cells = of_pair
    column = slots.find_column(text, obs) or slots.column_of_composition(text, obs)
    several = mentioned_values(without(text, taken), obs)
    if several and (cells is None or cells.column == several[0].column):  # "in healthy and in sle"
        column = column or several[0].column
        if not slots.COMPARES.search(text) and not slots.VERSUS.search(text):
            cells = slots.either_unless_all(several, obs)
    request = Request(
        text=text,
        intent=HELP,
        cell_type=cell_type,
        type_name=type_name(cell_type, types),
        types=named_types(without(text, [(gene.start, gene.end) for gene in apart]), types, cell_type, labels),
        labels=find_choices(text, labels),
        drugs=named_drugs,
        gene=genes[0].id if genes else None,
        genes=tuple(dict.fromkeys(mention.id for mention in genes)) or tuple(filter(None, [unknown_gene(text)])),
        n=n,
        library_size=library_size,
        seed=seed,
        species=find_species(text),
        tissue=find_tissue(text, labels),
        selection=selection,
        values=values,
        cells=cells,
        points_back=slots.POINTS_BACK.search(text) is not None,
        points_here=slots.POINTS_HERE.search(text) is not None,
        like=slots.LIKE.search(text) is not None,
        on_map=slots.ON_MAP.search(text) is not None,
        column=column,
        file=slots.find_file(text, files, current),
    )
    for mention in types:
        rest = rest.replace(mention.written, " ")
    if request.column:
        rest = slots.BY.sub(" ", rest)
    rest = slots.RESPONSE.sub(" ", slots.UNSURE_WORDS.sub(" ", slots.EVERYTHING.sub(" ", rest)))
    if cell_type is not None and not types:
        rest = rest.replace(written_type(rest, labels), " ")
    if slots.EXCEPT.search(text) and (request.type_name or request.cells is not None):
        named = EITHER.join(request.types) or request.type_name
        apart_from = (request.cells or ALL).model_copy(
            update={"others": True, **({"cell_type": named} if named else {})}
        )
        request = replace(request, cells=apart_from, type_name="", types=(), cell_type=None, labels=())
    fragment = sentences.is_fragment(text, re.sub(r"\S*\d\S*", " ", rest)) and not slots.WHICH_DRUG.search(text)
    fragment = fragment or slots.LIKEWISE.search(text) is not None
    return replace(request, fragment=fragment)


def _instead(text: str, read_part: Callable[[str], Request], obs: pd.DataFrame | None) -> Request | None:
    """ "Cluster 2 instead of cluster 1", "donors instead of clusters": the first part, in the place of the second."""
    match = slots.INSTEAD_OF.match(text)
    if match is None or slots.WHY.search(text):
        return None
    columns = [slots.find_column(f"by {part.split()[-1]}", obs) for part in (match["new"], match["old"])]
    if all(columns):
        return replace(read_part(match["new"]), text=text, column=columns[0], fragment=True)
    parts = []
    for part in (match["new"], match["old"]):
        found = read_part(part)
        bare = not found.type_name and found.cells is None
        parts.append(read_part(f"{part} cells") if bare else found)
    new, old = parts
    stands = old.cells or ALL
    stands = stands.model_copy(update={"cell_type": old.type_name}) if old.type_name else stands
    if not new.fragment or stands == ALL or not (new.type_name or new.cells):
        return None
    return replace(new, text=text, replaces=stands)


def _meet(mention: Mention, other: Mention) -> bool:
    return mention.start < other.end and other.start < mention.end


def _question(text: str, read_part: Callable[[str], Request]) -> str:
    """A text without leading sentences that name nothing and ask nothing: "That is a lot. Are you sure?"."""
    said = re.split(r"(?<=[.!])\s+(?=\w)", text)
    while len(said) > 1:
        part = read_part(said[0])
        named = part.type_name or part.genes or part.drugs or part.cells or part.column or part.n or part.file
        if named or part.points_back or sentences.ASKS.match(said[0]) or sentences.COMMAND.match(said[0]):
            break
        said = said[1:]
    return " ".join(said)


@cache
def words_of_command() -> frozenset[str]:
    """Words that the patterns of `slots` look for, and of the bench's names: none of them is a typing error."""
    patterns = [value.pattern for value in vars(slots).values() if isinstance(value, re.Pattern)]
    words = {
        word for pattern in patterns for word in re.findall(r"[a-z]{3,}", re.sub(r"\\[a-zA-Z]", " ", pattern.lower()))
    }
    named = {word for name in LAB_NAMES for one in name.split() for word in (one, f"{one}s")}
    return frozenset(words | sentences.LINKING | FILLERS | named)


def _protected(obs: pd.DataFrame | None, files: Sequence[str]) -> set[str]:
    """Words of the data, which are no typing errors."""
    words: Iterable[str] = files
    if obs is not None:
        values = [value for each in groupings(obs).values() for value in each.unique()]
        words = [*files, *map(str, obs.columns), *values]
    return {word for text in words for word in re.findall(r"[a-z]+", text.lower())}


def _followed(
    request: Request, votes: list[tuple[str, float]], last: Request | None, *, corrects: bool
) -> Request | None:
    """The request before with the slots of this one, where this one is no question of its own."""
    if (
        slots.RESTORES.search(request.text)
        or slots.UNDO.search(request.text)
        or slots.RESTART.search(request.text)
        or request.file
    ):
        return None
    if last is None:
        return None
    if last.intent == COMPARE and request.genes and last.groups and slots.AMONG_GENES.search(request.text):
        return replace(request, intent=COMPARE, groups=last.groups)
    if last.intent == MAP and request.genes and not slots.COUNTS.search(request.text) and slots.IT.search(request.text):
        return replace(request, intent=MAP)
    if request.fragment or corrects:
        found = continued(request, last, corrects=corrects)
        return None if found is None else _filled(found)
    return None


def _stands_for_itself(request: Request, followed: Request, best: str, share: float, *, loaded: bool) -> bool:
    """Whether a fragment asks for something else than the sentence before it, by its words: "INS by gate"."""
    if not loaded or best == followed.intent or share < SURE or followed.replaces is not None:
        return False
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
    looks_up = slots.WHICH_GENES.search(request.text) and best in (MARKERS, EXPLAIN, GENE, HELP, DESCRIBE, OUT_OF_SCOPE)
    if topic.types and looks_up and not (request.types or request.genes or request.cells or _points_at(request)):
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


def _with_groups(request: Request, labels: LabelSet, drugs: DrugSet, obs: pd.DataFrame | None, topic: Topic) -> Request:
    """The request with the groups it compares; those of the comparison before for "which of the two"."""
    if request.groups:
        return request
    if slots.BOTH.search(request.text) and len(topic.groups) > 1:
        return replace(request, groups=topic.groups)
    types = load_name_book().cell_types(request.text)
    found = _groups(request.text, types, labels, drugs, obs, request.column)
    request = replace(request, groups=found)
    versus = re.search(r"\b(?:vs|versus)\b", request.text, re.IGNORECASE)
    if request.intent == COMPARE_DRUG and versus and len(found) < 2 and not request.column and request.drugs:
        return replace(request, intent=DRUG)  # "gefitinib vs these cells?"
    return request


def _groups(
    text: str, types: Sequence[Mention], labels: LabelSet, drugs: DrugSet, obs: pd.DataFrame | None, column: str
) -> tuple[Cells, ...]:
    """The two groups that a sentence compares."""

    def parse(part: str) -> Cells | None:
        mentions = load_name_book().cell_types(part)
        spans = [(mention.start, mention.end) for mention in mentions]
        spans += [(drug.start, drug.end) for drug in find_drugs(part, drugs)]
        placed, rest = find_selection(part, obs, spans)
        cells = slots.find_cells(part, obs, None if placed is None else placed.cells)
        for gene in find_genes(part, obs):
            rest = rest.replace(gene.written, " ")
        name = type_name(find_cell_type(rest, labels), mentions)
        if name:
            cells = (cells or ALL).model_copy(update={"cell_type": name})
        words = " ".join(word for word in re.findall(r"[\w-]+", part) if word.lower() not in FILLERS)
        if cells is None and words and obs is not None:
            cells = slots.near_value(words, obs)
        if cells is None and (meant := load_name_book().cell_types(f"{words} cells")):  # "alpha" of "alpha and beta"
            cells = Cells(cell_type=title_of(meant[0].id, labels)) if meant[0].start == 0 else None
        return cells

    free = without(text, [(mention.start, mention.end) for mention in types])
    values = mentioned_values(free, obs)
    placed, _ = find_selection(text, obs)
    among = {"cell_type": title_of(types[0].id, labels)} if len(types) == 1 else {}
    if placed is not None and placed.cells.cluster and EITHER not in placed.cells.cluster:
        among["cluster"] = placed.cells.cluster
    if among and len(values) == 2:  # "treated vs vehicle in the alpha cells"
        return tuple(value.model_copy(update=among) for value in values)
    found = slots.find_groups(text, types, parse, column, obs, values)
    return tuple(
        one.model_copy(update={"cell_type": label.name})
        if one.cell_type and (label := labels.find(one.cell_type))
        else one
        for one in found
    )


def _decide(request: Request, votes: list[tuple[str, float]], topic: Topic, *, loaded: bool, made: bool) -> Request:
    """The intent from words of command, the slots, and the votes."""
    if (sure := _sure(request, *votes[0], topic, loaded=loaded, made=made)) is not None:
        return _filled(replace(request, intent=sure))
    votes = _supported(request, [vote for vote in votes if vote[0] != RESTART])  # it loses results
    (best, share), second = votes[0], votes[1] if len(votes) > 1 else (None, 0.0)
    clear = share - second[1] >= CLEAR
    command = _command(request, best, loaded=loaded, made=made)
    if command is not None:
        return _filled(replace(request, intent=command))
    if request.fragment and (alone := standing_alone(request, best, loaded=loaded)) is not None:
        return _filled(replace(request, intent=alone))
    unheard = _unheard_type(request) if loaded and not request.type_name and best not in (QUALITY, FIND) else ""
    if unheard:
        return replace(request, intent=COUNT, types=(unheard,), type_name=unheard)
    named = next((mention.written for mention in load_name_book().cell_types(request.text)), "")
    groups = slots.COMPARES.search(request.text) or request.column or slots.EACH_GROUP.search(request.text)
    apart = (GENE, HELP, DRUG_FACTS, COMPARE_DRUG) if groups else (GENE, HELP, DRUG_FACTS)
    if any(mention.drug is not None for mention in request.drugs) and best not in apart:
        best, clear = DRUG, True
    if best == ANNOTATE and request.selection is not None:
        best, clear = SUBSET, True
    if not clear and request.n is not None and named and {best, second[0]} & {GENERATE, SUBSET}:
        best, clear = GENERATE, True  # "give me 5 Kupffer cells"
    unclear_markers = not clear and MARKERS in (best, second[0]) and request.n is None
    only_named = re.fullmatch(rf"{WHAT_IS}{re.escape(named)}", request.text.strip(" ?.!"), re.IGNORECASE)
    if named and best != GENERATE and (unclear_markers or only_named):
        best, clear = MARKERS, True  # "what is a Kupffer cell?", "Kupffer cells?"
    if best == SUBSET and request.cells is None and not _points_at(request) and not POINTING.search(request.text):
        best, clear = ANNOTATE, True
    if best in (EXPRESSION, FIND, COMPARE) and not loaded and (request.gene or named):
        best, clear = (MARKERS if named else GENE), True
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
    settled = _order(request, loaded=loaded)
    if settled is not None or share < (CERTAIN if best == RESTART else SURE):
        return settled
    if _contradicted(request, best, topic, loaded=loaded):
        return None
    known_drug = any(mention.drug is not None for mention in request.drugs)
    for settle in NARROWER.get(best, ()):
        found = settle(request, best, loaded=loaded, made=made, known_drug=known_drug)
        if found in NARROWED:
            return found
    text, about = request.text, request.cells is not None or _points_at(request)
    if best in (ANNOTATE, SUBSET):
        by_group = request.column and slots.COMPOSITION.search(text)
        placed = best == SUBSET and (request.points_here or POINTING.search(text) is not None)
        some = request.cells is not None or request.points_back or placed
        return COUNT if by_group else SUBSET if some else ANNOTATE
    if best == COUNT:
        whole = slots.COMPOSITION.search(text) and not (request.column or request.type_name or about)
        rejects = slots.NOT_OF_TYPE.search(text)
        return ANNOTATE if whole else COUNT if rejects or _counts_groups(request) or not request.type_name else ANNOTATE
    if best == MARKERS and loaded and not request.type_name and (about or request.column):
        return COMPARE
    if best == MARKERS and request.genes and not request.type_name:
        return GENE  # "is CLEC4C a good marker?"
    if best == COMPARE_DRUG and not request.drugs and sentences.COMMAND.match(text) and not _of_drug(request):
        return COMPARE  # "compare cluster 0 with cluster 1", after talk of a drug
    if best == OUT_OF_SCOPE and loaded and slots.WHICH_DRUG.search(text):
        return RANK  # "which drug should I give my patient?": told with what it is worth
    return best


def _contradicted(request: Request, best: str, topic: Topic, *, loaded: bool) -> bool:
    """Whether what a sentence names does not go with an intent, or its words are more than a name."""
    text = request.text
    known_drug = any(mention.drug is not None for mention in request.drugs)
    if request.fragment and slots.CHOOSES.search(text):
        return True  # "only the sensitive ones"
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
        return not loaded or not (
            request.cells is not None or _points_at(request) or request.type_name or request.genes
        )
    if best in (OUT_OF_SCOPE, HELP, SMALL_TALK):
        hints = (slots.DOUBT, slots.SETTLED, slots.HOW_SURE)
        return loaded and (request.cells is not None or any(hint.search(text) for hint in hints))
    return best in (COMPARE, EXPLAIN, MAP, FIND, REAL) and not loaded


def _of_drug(request: Request) -> bool:
    """Whether a sentence speaks of a drug without its name."""
    words = (slots.DRUGS, slots.IT, slots.SENSITIVE)
    return any(word.search(request.text) for word in words)


def _order(request: Request, *, loaded: bool) -> str | None:
    """What words of command settle, whatever they are about: undo, restart, and what is never done."""
    text = request.text
    if slots.UNDO.search(text):
        return UNDO
    if slots.RESTART.search(text):
        return RESTART
    if text.strip(" ?!.").lower() == HELP:
        return HELP
    if slots.INJECTION.search(text) or slots.NOT_READ.search(text):
        return OUT_OF_SCOPE
    if loaded and (slots.OF_COLUMN.search(text) or slots.OF_ENCODERS.search(text)):
        return DESCRIBE
    if slots.EMBEDS.search(text):
        return EMBED
    if loaded and slots.RESTORES.search(text) and not request.file:
        return SELECT
    if (
        loaded
        and request.cells is not None
        and request.cells.response
        and not (request.drugs or slots.DRUGS.search(text))
    ):
        if slots.COMPARES.search(text):
            return COMPARE  # of the response predicted before: "how do they differ from the sensitive ones?"
        return SELECT if slots.WHO_RESPONDS.search(text) else None
    return None


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
    about_cells = request.cells is not None or request.type_name or _points_at(request) or request.column
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
    pointed = request.cells is not None or _points_at(request) or slots.LEFT.search(request.text)
    grouped = request.column or slots.BOTH.search(request.text) or slots.WHICH_GROUP_HAS.search(request.text)
    return bool(len(request.types) > 1 or grouped or (pointed and not request.type_name))


def _filled(request: Request) -> Request:
    """What only the intent tells: a drug by its place, a type that is not known."""
    if request.intent == DRUG and not request.drugs:
        request = replace(request, drugs=drug_by_place(request.text))
    if request.intent in (GENERATE, MARKERS) and request.cell_type is None:
        request = replace(request, unknown_type=unknown_type(request.text))
    return request


def _points_at(request: Request) -> bool:
    return request.points_back or request.points_here


# ---- words of command


def _command(request: Request, best: str, *, loaded: bool, made: bool) -> str | None:
    """The intent that words of command settle, whatever the votes say; None where they do not."""
    text = request.text
    names = request.type_name or request.gene or request.cells or request.drugs or request.column
    hints = (slots.DOUBT, slots.SETTLED, slots.HOW_SURE)
    pointed = loaded and (_points_at(request) or any(hint.search(text) for hint in hints))
    if best in (OUT_OF_SCOPE, HELP, SMALL_TALK) and not (names or pointed):
        return None
    known_drug = any(mention.drug is not None for mention in request.drugs)
    for settle in (
        _about_drug_facts,
        _why,
        _judging,
        _labelling,
        _counting,
        _offering,
        _about_pseudo,
        _about_drugs,
        _making,
        _comparing_gene,
        _about_genes,
        _choosing,
        _comparing,
        _mapping,
        _looking_up,
    ):
        found = settle(request, best, loaded=loaded, made=made, known_drug=known_drug)
        if found is not None:
            return found
    return None


def _about_drug_facts(request: Request, best: str, *, known_drug: bool, **_: bool) -> str | None:
    """ "Which EGFR inhibitors do you know?", "what is the target of gefitinib?", "how good are these predictions?" """
    asks = slots.DRUG_KNOWLEDGE.search(request.text) or (not request.drugs and slots.AN_INHIBITOR.search(request.text))
    return DRUG_FACTS if asks and (known_drug or slots.DRUGS.search(request.text) or best == DRUG_FACTS) else None


def _why(request: Request, best: str, *, loaded: bool, **_: bool) -> str | None:
    about = request.type_name or request.cells is not None or _points_at(request) or len(request.text.split()) <= 4
    asks = slots.WHY.search(request.text) or (slots.WHY_NOT.search(request.text) and request.type_name)
    doubts = slots.DOUBT.search(request.text) and not slots.COMPARES.search(request.text)
    if not loaded or request.drugs or request.gene:
        return None
    return EXPLAIN if (asks and about) or doubts else None


def _judging(request: Request, best: str, *, loaded: bool, **_: bool) -> str | None:
    """ "Run QC on the first 30 cells", but not "how good are the pseudo-cells?" """
    return QUALITY if slots.QUALITY.search(request.text) and not slots.MAKES.search(request.text) else None


def _labelling(request: Request, best: str, *, loaded: bool, **_: bool) -> str | None:
    """ "Annotate what is left"; a list of types is a choice among them."""
    if loaded and slots.HOW_SURE.search(request.text) and not request.drugs:
        return SUBSET if request.cells is not None or _points_at(request) else ANNOTATE
    if not loaded or not slots.LABELS_THEM.search(request.text) or request.labels or request.genes:
        return None
    return SUBSET if request.cells is not None or request.points_back else ANNOTATE


def _counting(request: Request, best: str, *, loaded: bool, known_drug: bool, **_: bool) -> str | None:
    """ "How many alpha, beta and delta cells?", "the composition per donor", "which cluster has the CD8 T cells?" """
    text = request.text
    if not loaded or known_drug or request.genes or slots.AMOUNT.search(text):
        return None
    if slots.MAKES.search(text) and not slots.THERE.search(text):
        return None
    if slots.PRESENCE.search(text) and request.type_name and best in (EXPLAIN, HELP, OUT_OF_SCOPE, SMALL_TALK, FIND):
        best = ANNOTATE
    if best in (QUALITY, EXPLAIN, DOWNLOAD, HELP, RANK, COMPARE_DRUG, REAL):
        return None
    if slots.AGREES.search(text) and request.column:
        return COUNT
    counts = slots.COUNTS.search(text) or slots.COMPOSITION.search(text)
    if counts and re.search(r"\b(?:genes?|features|donors?|samples?|files?|columns?|counts?\s+per)\b", text, re.I):
        counts = slots.COMPOSITION.search(text) if request.column else None
    if counts and slots.HOW_MANY_CLUSTERS.search(text):
        return CLUSTER
    if slots.WHICH_GROUP_HAS.search(text) and request.type_name:
        return COUNT
    if not counts:
        present = (slots.PRESENCE.search(text) or slots.WHICH_ARE.match(text)) and request.type_name and best != COMPARE
        return ANNOTATE if present and not slots.COMPARES.search(text) else None
    several = len(request.types) > 1 or request.column or slots.BOTH.search(text)
    whole = not request.type_name and (request.cells is not None or _points_at(request) or slots.LEFT.search(text))
    rejected = request.type_name and slots.NOT_OF_TYPE.search(text)
    if several or whole or rejected:
        return COUNT
    return ANNOTATE if request.type_name and request.n is None else None


def _offering(request: Request, best: str, **_: bool) -> str | None:
    """ "Are these T cells, B cells or monocytes?" """
    if not request.labels or request.drugs or request.genes or slots.COMPARES.search(request.text):
        return None
    if best not in (ANNOTATE, SUBSET, EXPLAIN, FIND, SELECT) or slots.CHOOSES.search(request.text):
        return None
    return ANNOTATE if request.cells is None else SUBSET


def _about_pseudo(request: Request, best: str, *, made: bool, **_: bool) -> str | None:
    making = slots.MAKES.search(request.text) and (request.n is not None or request.type_name or request.like)
    generated = re.search(
        r"\b(?:generated|simulated|synthetic|pseudo|fake|artificial|virtual)\b", request.text, re.IGNORECASE
    )
    if not made or best == DOWNLOAD:
        return None
    if generated and request.n is None and best != HELP:
        held = slots.REAL.search(request.text) and slots.RESEMBLES.search(request.text)
        if held or (best == QUALITY and not slots.QUALITY.search(request.text)):
            return REAL
    if best == REAL or (
        slots.REAL.search(request.text) and (slots.COMPARES.search(request.text) or request.points_back)
    ):
        return REAL
    if request.points_back and slots.ANY_GOOD.search(request.text) and not request.genes:
        return REAL
    if (
        request.on_map
        and (request.points_back or generated)
        and not re.search(r"\bcolou?r", request.text)
        and not making
    ):
        return REAL
    return None


def _about_drugs(request: Request, best: str, *, known_drug: bool, **_: bool) -> str | None:
    text = request.text
    if not request.drugs and len(request.values) > 1 and best in (DRUG, COMPARE_DRUG) and not _of_drug(request):
        return COMPARE  # "the effect of IFNg compared to DMSO", where these are groups of the file
    if known_drug:
        several = len({mention.drug.name for mention in request.drugs if mention.drug is not None}) > 1
        compares = slots.COMPARES.search(text) or request.column or slots.EACH_GROUP.search(text)
        return COMPARE_DRUG if compares and not several else None
    if request.drugs:  # a drug that is not known is refused by name
        return None
    if best in (DRUG, RANK, OUT_OF_SCOPE, COMPARE_DRUG) and ask_for_unknown(text):
        return DRUG
    if request.cells is not None and request.cells.response and not slots.DRUGS.search(text):
        return None
    about_genes = slots.NO_DRUG_WORDS.search(text) and not slots.DRUGS.search(slots.BY.sub(" ", text))
    if about_genes or (request.column and slots.WHICH_GENES.search(text)):
        return None
    pointed = request.cells is not None or request.type_name or _points_at(request)
    if slots.TRIES.search(text) and pointed and best in (RANK, DRUG, COMPARE_DRUG, SELECT, EXPLAIN, OUT_OF_SCOPE):
        return RANK
    asks = slots.WHICH_DRUG.search(text) and best not in (HELP, OUT_OF_SCOPE, GENE, MARKERS, DESCRIBE)
    ranks = best == RANK and (slots.DRUGS.search(text) or slots.ACTS.search(text))
    return RANK if asks or ranks else None


def _making(request: Request, best: str, *, loaded: bool, **_: bool) -> str | None:
    if not slots.MAKES.search(request.text) or best in (DOWNLOAD, HELP, OUT_OF_SCOPE, REAL, CLUSTER, UNDO):
        return None
    wanted = request.n is not None or request.type_name or request.like
    return GENERATE if wanted and best in (GENERATE, ANNOTATE, SUBSET, SELECT, MARKERS, DESCRIBE, FIND, MAP) else None


def _comparing_gene(request: Request, best: str, *, loaded: bool, known_drug: bool, **_: bool) -> str | None:
    """ "Is KRT19 higher in ductal than in acinar cells?" """
    if not loaded or known_drug or not request.genes or best in (GENE, MARKERS):
        return None
    two = len(request.types) > 1 or slots.SPLIT_BETWEEN.search(request.text)
    return COMPARE if two and slots.COMPARES.search(request.text) else None


def _about_genes(request: Request, best: str, *, loaded: bool, **_: bool) -> str | None:
    """ "How many of those express GZMB?"; cells that express a gene are chosen by it, if that is what is asked."""
    written = {mention.written.lower() == mention.id.lower() for mention in load_name_book().genes(request.text)}
    if best == FIND and written == {False}:  # "cells that secrete insulin"
        return None
    if not loaded or not request.genes or re.search(r"\bmark(?:s|ers?)\b", request.text, re.IGNORECASE):
        return None
    if _which_express(request, best, loaded=loaded) and best in (GENE, MARKERS):
        return EXPRESSION
    if best == MAP or (request.on_map and not slots.COUNTS.search(request.text)):
        return MAP
    if slots.COUNTS.search(request.text) and slots.AMOUNT.search(request.text):
        return EXPRESSION
    if slots.MOST_OF_IT.search(request.text) and slots.EACH_GROUP.search(request.text):
        return EXPRESSION
    if slots.CHOOSES.search(request.text) and (
        slots.EXPRESSES.search(request.text) or slots.LACKS.search(request.text) or best == SELECT
    ):
        return SELECT
    if best in (EXPRESSION, FIND) or (
        slots.AMOUNT.search(request.text) and best in (GENE, SELECT, ANNOTATE, SUBSET, QUALITY, DESCRIBE, MARKERS)
    ):
        return None if best == GENE and not (_points_at(request) or request.cells or request.type_name) else EXPRESSION
    return None


def _which_express(request: Request, best: str, *, loaded: bool, **_: bool) -> str | None:
    """ "Which cells express CD20?" where there are cells to look at."""
    return EXPRESSION if loaded and request.genes and slots.WHICH_EXPRESS.search(request.text) else None


def _choosing(request: Request, best: str, *, loaded: bool, **_: bool) -> str | None:
    if not loaded or best in (RANK, DRUG, COMPARE_DRUG, DOWNLOAD, EXPRESSION, HELP):
        return None
    chooses = slots.CHOOSES.search(request.text) and request.type_name and request.n is None
    if best in (QUALITY, GENERATE) and (not chooses or slots.MAKES.search(request.text)):
        return None
    if best in (EXPLAIN, COMPARE) and (slots.COMPARES.search(request.text) or slots.WHY.search(request.text)):
        return None
    named = request.cells is not None or request.type_name or _points_at(request)
    if slots.CHOOSES.search(request.text) and (named or best == SELECT) and not request.on_map:
        asks_types = re.search(
            r"\b(?:annotate|which types?|what (?:are|is|types?)|cell types?)\b", request.text, re.IGNORECASE
        )
        choices = best == ANNOTATE and request.labels
        return None if asks_types or choices else SELECT
    said = request.cells.short() if request.cells is not None else {}
    by_answers = {"confidence_below", "confidence_above", "response"} & set(said) or said.get("cell_type")
    shows = slots.SHOWS_CELLS.search(request.text) and not slots.COUNTS.search(request.text)
    return SELECT if by_answers and shows and best in (SELECT, ANNOTATE, SUBSET, MAP, FIND, EXPLAIN) else None


def _comparing(request: Request, best: str, *, loaded: bool, known_drug: bool, **_: bool) -> str | None:
    if not loaded or known_drug or best in (HELP, OUT_OF_SCOPE) or (best == GENE and request.gene):
        return None
    text = request.text
    groups = request.cells is not None or request.type_name or _points_at(request) or request.column
    special = slots.SPECIAL.search(text) and best in (COMPARE, EXPLAIN, DESCRIBE, SUBSET, MARKERS, ANNOTATE, GENE)
    likely = best == COMPARE or (best == MARKERS and (request.cells is not None or request.column))
    pair = len(request.types) > 1 or _points_at(request) or request.cells is not None or request.column
    differs = slots.COMPARES.search(text) and (
        likely
        or (pair and best not in (REAL, DRUG, RANK, COMPARE_DRUG, QUALITY, DOWNLOAD) and not slots.MAKES.search(text))
    )
    versus = slots.VERSUS.search(text) and best not in (REAL, DRUG, RANK, GENERATE)
    top = slots.TOP_GENES.search(text) and (request.cells is not None or _points_at(request) or request.column)
    return COMPARE if (groups and (special or differs or top)) or (groups and versus) else None


def _mapping(request: Request, best: str, *, loaded: bool, **_: bool) -> str | None:
    """ "Show them on the map" where nothing was generated."""
    if not loaded or not request.on_map or best in (DOWNLOAD, GENERATE, CLUSTER) or request.drugs:
        return None
    return MAP if best in (MAP, REAL) or request.points_back or request.points_here or request.column else None


def _looking_up(request: Request, best: str, **_: bool) -> str | None:
    """ "Which genes would tell me that I have some?" """
    asks = slots.WHICH_GENES.search(request.text) and request.type_name and best in (EXPLAIN, GENE, HELP, DESCRIBE)
    return MARKERS if asks and not (request.genes or request.cells or _points_at(request)) else None


# What words and slots narrow a sure intent down to: "show it on the map" is about a gene's expression, and a map.
NARROWER: dict[str, tuple[Callable[..., str | None], ...]] = {
    DRUG: (_about_drugs,),
    EXPRESSION: (_comparing_gene, _about_genes),
    GENE: (_which_express, _about_genes),
    MARKERS: (_which_express,),
    COMPARE_DRUG: (_about_drugs,),
    DESCRIBE: (_judging,),
    ANNOTATE: (_choosing,),
    SUBSET: (_choosing,),
}
NARROWED = (COMPARE_DRUG, COMPARE, SELECT, MAP, EXPRESSION, QUALITY)
