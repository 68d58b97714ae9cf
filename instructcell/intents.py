"""What a sentence asks for: the intent by meaning, the slots by what the data and the resources know.

The intent is the vote of the nearest exemplars in the sentence encoder's space and of a logistic regression on them:
those of `resources/intents.tsv`, written by hand, and of `resources/requests.tsv`, rendered by the phrasing grammar of
training (`python -m train.requests`), without the phrasings that are kept for evaluation. Slots (cell type, drug, gene,
numbers, which cells) are found in the words. When neither settles what is meant, the request says
what it wavers between and the session asks back.

"""

from __future__ import annotations

import csv
import hashlib
import re
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, lru_cache

import numpy as np
import pandas as pd
from rapidfuzz import fuzz, process

from instructcell import slots
from instructcell.drugs import DrugMention, DrugSet
from instructcell.errors import ResourceError
from instructcell.labels import Label, LabelSet, load_ontology
from instructcell.resources import RESOURCES
from instructcell.retrieval import SentenceEncoder, load_sentence_encoder
from instructcell.retrieval.names import Mention, load_name_book
from instructcell.retrieval.sentence_encoder import WEIGHTS_SHA256
from instructcell.toolbox.arguments import ALL, Cells
from instructcell.toolbox.cells import CLUSTER_COLUMNS, OWN_CLUSTERS, cluster_column
from instructcell.toolbox.data import groupings

ANNOTATE, SUBSET, GENERATE, DRUG = "annotate", "annotate_subset", "generate", "drug"
MARKERS, GENE, DESCRIBE, DOWNLOAD = "markers", "gene", "describe", "download"
HELP, SMALL_TALK, OUT_OF_SCOPE = "help", "small_talk", "out_of_scope"
QUALITY, CLUSTER, EXPLAIN, FIND, EXPRESSION = "quality", "cluster", "explain", "find", "expression"
COMPARE, REAL, RANK, COMPARE_DRUG = "compare", "compare_real", "rank_drugs", "compare_drug"
SELECT, MAP, UNDO, RESTART = "select", "map", "undo", "restart"
INTENTS = (
    ANNOTATE, SUBSET, GENERATE, DRUG, MARKERS, GENE, DESCRIBE, DOWNLOAD, HELP, SMALL_TALK, OUT_OF_SCOPE,
    QUALITY, CLUSTER, EXPLAIN, FIND, EXPRESSION, COMPARE, REAL, RANK, COMPARE_DRUG, SELECT, MAP, UNDO, RESTART,
)  # fmt: skip
ABOUT_CELLS = (ANNOTATE, SUBSET, DRUG, QUALITY, EXPLAIN, FIND, EXPRESSION, RANK, COMPARE_DRUG, COMPARE, SELECT)

VECTORS = RESOURCES / "index" / "intents.npz"
REQUESTS = "requests.tsv"
NEIGHBOURS = 8  # exemplars that vote
SHARPNESS = 0.06  # cosine difference at which a vote falls to 1/e
FAR = 0.32  # a sentence that is nearer to no exemplar than this is out of scope
SPELLED = 75  # rapidfuzz ratio from which an unknown word is a known one with a typing error
REGULARISATION = 30.0  # C of the logistic regression
CLEAR = 0.2  # lead in votes below which the slots, or the user, decide

NUMBER_WORDS = {
    "one": 1, "two": 2, "three": 3, "four": 4, "five": 5, "six": 6, "seven": 7, "eight": 8, "nine": 9, "ten": 10,
    "dozen": 12, "fifteen": 15, "sixteen": 16, "twenty": 20, "thirty": 30, "forty": 40, "fifty": 50, "sixty": 60,
    "eighty": 80, "hundred": 100, "thousand": 1000,
}  # fmt: skip
DEPTH_WORDS = r"(?:counts?|umis?|reads?|transcripts|molecules)"
SPECIES_WORDS = {
    "human": "human",
    "homo sapiens": "human",
    "mouse": "mouse",
    "murine": "mouse",
    "mus musculus": "mouse",
}
POINTING = re.compile(r"\b(clusters?|groups?|first|last|only|where|cells?\s+#?\d+)\b", re.IGNORECASE)
WHAT_IS = r"(?:(?:what(?:'s|\s+is|\s+are)|define|explain|tell me about)\s+)?(?:(?:an?|the)\s+)?"
FOLLOW_UP = re.compile(r"^\s*(and|what about|how about|now|also|then|same|or|but|again)\b", re.IGNORECASE)
PLACE = re.compile(r"^\s*(?:in|on|of|for|among|within)\b", re.IGNORECASE)  # "in the alpha cells?"
# Columns that hold cell types: their values name types, so that they select cells only beside the column's name.
TYPE_COLUMN = re.compile(r"type|annot|label|class|ident", re.IGNORECASE)
# What stands before a value that points at cells, and behind it.
POINTS_BEFORE = (
    r"(?:in|from|of|for|on|only|just|where|within|among|inside|about)\s+(?:(?:the|all|my|our|those|only|group)\s+)*"
)
POINTS_BEHIND = r"\s+(?:cells?|samples?|group|condition|donors?|patients?|only)\b"
# A question how many there are, or whether there are any, is about all types: no choice among those it names.
COUNTING = re.compile(
    r"\b(?:how\s+(?:many|much)|fraction|share|proportions?|percent\w*|number|count|(?:are|is)\s+there|any"
    r"|(?:have|contain|find|see)s?)\b",
    re.IGNORECASE,
)
BETWEEN_CHOICES = re.compile(
    r"\s*(?:[,;/]|\b(?:or|and|vs|versus)\b\.?)(?:\s*(?:or|and|an?|the|rather)\b)*\s*", re.IGNORECASE
)
# Where a drug of any name stands beside one that is known, or alone: "gefitinib or aspirin", "would aspirin work".
ANY_NAME = r"([A-Za-z][\w-]{3,})"
DRUG_BEFORE = re.compile(rf"(?<![\w-]){ANY_NAME}\s*(?:\b(?:or|and|vs\.?|versus|plus)\b|[+/])\s*$", re.IGNORECASE)
DRUG_BEHIND = re.compile(
    rf"\s*(?:\b(?:or|vs\.?|versus|than|plus|as\s+well\s+as|compared\s+(?:to|with)|instead\s+of)\b|[+/])\s*{ANY_NAME}"
    rf"|\s*\band\s+{ANY_NAME}(?=\s*(?:$|[?.!,;]|(?:work|kill|help|on|in|for|together|combined)\b))",
    re.IGNORECASE,
)
DRUG_ACTS = re.compile(
    rf"\b(?:would|does|will|can|could)\s+{ANY_NAME}\s+(?:work|kill|help|act|affect|be)\b", re.IGNORECASE
)
DRUG_LAST = re.compile(
    rf"\b(?:to|about|with|by|on|against|than)\s+{ANY_NAME}(?:\s+treatment)?\s*[?.!]*\s*$", re.IGNORECASE
)
# Words that neither begin nor end a name.
FILLERS = frozenset(
    """
    a about again all also am an and answer any are as ask at be been best both by call called can cell cells
    cluster come count counts data dataset did do does download draw drug drugs each else expect export few file find
    first for from gene generate genes get give group groups had has have help her here him how i if in inside into
    is it its kind last like list look lot make many mark marker markers marks may me mean more most much my name
    need neither new next no not now of ok on one only or other others our out over people please possible predict
    pseudo random real resistant respond response sample samples save see sensitive show simulate single some something
    sort state such synthetic table take talk tell than that the their them then there these they thing think this
    those to too treat treated treatment try type types up us use very want was we well were what when where which
    who why will with work would write yes you your
    """.split()  # noqa: SIM905 - a list of words reads best as text
)
Spans = Sequence[tuple[int, int]]  # first character and the one after the last


@dataclass(frozen=True)
class Selection:
    """Cells that a sentence points at: their positions, how to call them, and the same as a tool takes it."""

    rows: np.ndarray
    name: str
    cells: Cells = ALL


Found = tuple[Selection, tuple[int, int]]  # and where the words stand that say so


@dataclass(frozen=True)
class Request:
    """An understood sentence; slots that it does not fill are None.

    `wavers` holds the second intent when the first is not clear; `unknown_type` what was named but is not known;
    `drugs` every drug that was named, known or not; `labels` the cell types to choose among, when there are several.
    """

    text: str
    intent: str
    wavers: str | None = None
    cell_type: Label | None = None
    unknown_type: str | None = None
    labels: tuple[str, ...] = ()
    drugs: tuple[DrugMention, ...] = ()
    gene: str | None = None
    n: int | None = None
    library_size: float | None = None
    seed: int | None = None
    species: str | None = None
    tissue: str | None = None
    selection: Selection | None = None
    type_name: str = ""  # of the checkpoint, else of the ontology
    genes: tuple[str, ...] = ()
    cells: Cells | None = None  # what the sentence says of which cells, types aside
    groups: tuple[Cells, ...] = ()  # two groups to compare
    points_back: bool = False  # "them", "those": the cells that were talked about
    points_here: bool = False  # "these": the chosen cells, else all
    like: bool = False  # "like these"
    on_map: bool = False
    why_not: str = ""
    column: str = ""  # a column of obs to group or colour by
    file: str = ""


class Router:
    """Intent recognition by exemplars.

    Parameters
    ----------
    encoder
        Texts -> unit vectors.
    exemplars
        (intent, text) pairs.
    vectors
        Of the exemplars [E, D], to spare the encoding.
    n_spelled
        So many of the first exemplars are spelled rightly; all by default.
    weights
        Of the regression, a row of D weights and an intercept for each intent in alphabetical order [I, D + 1], to
        spare the fit.
    """

    def __init__(
        self,
        encoder: SentenceEncoder,
        exemplars: Sequence[tuple[str, str]],
        vectors: np.ndarray | None = None,
        n_spelled: int | None = None,
        weights: np.ndarray | None = None,
    ) -> None:
        self.encoder = encoder
        self.intents = np.asarray([intent for intent, _ in exemplars])
        self.texts = [text for _, text in exemplars][:n_spelled]
        self.vectors = encoder.encode([text for _, text in exemplars]) if vectors is None else vectors
        self.weights = self.fit() if weights is None else weights

    def fit(self) -> np.ndarray:
        """Weights of a logistic regression that weighs the intents alike, however many exemplars they have."""
        from sklearn.linear_model import LogisticRegression

        regression = LogisticRegression(C=REGULARISATION, class_weight="balanced", max_iter=500)
        regression.fit(self.vectors, self.intents)
        coefficients, intercepts = regression.coef_, regression.intercept_
        if len(coefficients) == 1:  # of two intents only the second one's are kept
            coefficients, intercepts = np.vstack([-coefficients, coefficients]) / 2, np.array([-1, 1]) * intercepts / 2
        return np.column_stack([coefficients, intercepts]).astype(np.float32)

    def chances(self, vector: np.ndarray) -> pd.Series:
        """What the regression makes of a sentence's vector [D]: a probability per intent."""
        scores = self.weights[:, :-1] @ vector + self.weights[:, -1]
        raised = np.exp(scores - scores.max())
        return pd.Series(raised / raised.sum(), np.unique(self.intents))

    def spelled(self, text: str) -> str:
        """The text with words that no exemplar has replaced by the one they nearly are: "wich cel" -> "which cell"."""
        return re.sub(r"[A-Za-z]{3,}", lambda match: self._known_word(match[0]), text)

    def _known_word(self, word: str) -> str:
        low = word.lower()
        if low in self._vocabulary or word.isupper():
            return word
        near = process.extractOne(low, self._common, scorer=fuzz.ratio, score_cutoff=SPELLED)
        return word if near is None else near[0]

    @cached_property
    def _vocabulary(self) -> Counter[str]:
        """Words of the exemplars with how often they occur."""
        return Counter(re.findall(r"[a-z]+", " ".join(self.texts).lower()))

    @cached_property
    def _common(self) -> list[str]:
        """Words that occur more than once: a typing error in an exemplar is none of them."""
        return [word for word, n in self._vocabulary.most_common() if n > 1 and len(word) > 2]

    def votes(self, text: str) -> list[tuple[str, float]]:
        """Intents with their share of the vote, the strongest first."""
        vector = self.encoder.encode([text])[0]  # [D]
        similarity = self.vectors @ vector  # [E]
        nearest = np.argsort(-similarity)[:NEIGHBOURS]
        if similarity[nearest[0]] < FAR:
            return [(OUT_OF_SCOPE, 1.0)]
        weights = np.exp((similarity[nearest] - similarity[nearest[0]]) / SHARPNESS)
        votes = pd.Series(weights).groupby(self.intents[nearest]).sum()
        shares = (votes / votes.sum()).add(self.chances(vector), fill_value=0.0).sort_values(ascending=False) / 2
        return [(str(intent), float(share)) for intent, share in shares.items()]


@lru_cache(maxsize=1)
def load_router() -> Router:
    """The router over the shipped exemplars; loaded once per process."""
    written, exemplars = len(read_exemplars()), all_exemplars()
    vectors, weights = read_vectors(exemplars)
    return Router(load_sentence_encoder(), exemplars, vectors, written, weights)


def all_exemplars() -> list[tuple[str, str]]:
    """(intent, text) pairs: those written by hand, then those of the phrasing grammar."""
    return [*read_exemplars(), *read_exemplars(REQUESTS)]


def read_exemplars(name: str = "intents.tsv") -> list[tuple[str, str]]:
    """(intent, text) pairs of a table of the resources."""
    try:
        with (RESOURCES / name).open(encoding="utf-8", newline="") as file:
            rows = [(row["intent"], row["text"]) for row in csv.DictReader(file, delimiter="\t")]
    except FileNotFoundError as error:
        raise ResourceError(f"{name} is missing from instructcell/resources; install InstructCell again") from error
    strange = sorted({intent for intent, _ in rows} - set(INTENTS))
    if strange:
        raise ResourceError(f"{name} names unknown intents: {', '.join(strange)}; expected {', '.join(INTENTS)}")
    return rows


def read_vectors(exemplars: Sequence[tuple[str, str]]) -> tuple[np.ndarray | None, np.ndarray | None]:
    """The exemplars' vectors [E, D] and the regression's weights, or None where they were made from other texts."""
    if not VECTORS.is_file():
        return None, None
    with np.load(VECTORS, allow_pickle=False) as saved:
        if str(saved["texts"]) != _fingerprint(exemplars):
            return None, None
        return saved["vectors"].astype(np.float32), saved["weights"]


def write_vectors() -> None:
    """Encode the exemplars and keep their vectors and the regression's weights; part of `make resources`."""
    exemplars = all_exemplars()
    made = Router(load_sentence_encoder(), exemplars)
    np.savez_compressed(
        VECTORS, vectors=made.vectors.astype(np.float16), weights=made.weights, texts=_fingerprint(exemplars)
    )


def _fingerprint(exemplars: Sequence[tuple[str, str]]) -> str:
    texts = "\n".join("\t".join(exemplar) for exemplar in exemplars)
    return hashlib.sha256(f"{WEIGHTS_SHA256}\n{texts}".encode()).hexdigest()


def understand(
    text: str,
    *,
    router: Router,
    labels: LabelSet,
    drugs: DrugSet,
    obs: pd.DataFrame | None = None,
    last: Request | None = None,
    files: Sequence[str] = (),
    current: str = "",
    made: bool = False,
) -> Request:
    """Read one sentence of the user.

    Parameters
    ----------
    labels, drugs
        What the checkpoint knows.
    obs
        The loaded cells' table, for "cluster 3" or "the first 20 cells"; None when nothing is loaded.
    last
        The request before, for "and beta cells?".
    files
        Names of the loaded files, the first loaded first.
    current
        The one that is talked about.
    made
        Whether there are pseudo-cells to talk about.
    """
    text = re.sub(r"\bcel(s?)\b", r"cell\1", text)  # mistyped; CEL in capitals is a gene
    names = load_name_book()
    types, genes = names.cell_types(text), _genes(text, obs)
    named_drugs = find_drugs(text, drugs, [(mention.start, mention.end) for mention in (*types, *genes)])
    taken = [(mention.start, mention.end) for mention in types]
    taken += [(mention.start, mention.end) for mention in named_drugs]
    selection, rest = find_selection(text, obs, taken)
    n, library_size, seed = find_numbers(slots.RESOLUTION.sub(" ", rest))
    for mention in named_drugs:  # no cell type is meant by a drug's name, however near it is to one
        rest = rest.replace(mention.written, " ")
    cell_type = find_cell_type(rest, labels)
    column = slots.find_column(text, obs)
    request = Request(
        text=text,
        intent=HELP,
        cell_type=cell_type,
        type_name=_type_name(cell_type, types),
        labels=find_choices(text, labels),
        drugs=named_drugs,
        gene=genes[0].id if genes else None,
        genes=tuple(dict.fromkeys(mention.id for mention in genes)),
        n=n,
        library_size=library_size,
        seed=seed,
        species=_species(text),
        tissue=find_tissue(text, labels),
        selection=selection,
        cells=slots.find_cells(text, obs, None if selection is None else selection.cells),
        points_back=slots.POINTS_BACK.search(text) is not None,
        points_here=slots.POINTS_HERE.search(text) is not None,
        like=slots.LIKE.search(text) is not None,
        on_map=slots.ON_MAP.search(text) is not None,
        column=column,
        file=slots.find_file(text, files, current),
    )
    votes = router.votes(generic(text, request, router.spelled))
    short = 3 if request.cells is None else 5  # "the last 10 cells?" goes on as well
    goes_on = FOLLOW_UP.match(text) or (PLACE.match(text) and len(text.split()) < 6) or len(text.split()) <= short
    follow_up = last is not None and bool(goes_on)
    decided = _decide(request, votes, last if follow_up else None, loaded=obs is not None, made=made)
    if decided.intent in (COMPARE, COMPARE_DRUG) or (decided.intent == RANK and slots.COMPARES.search(text)):
        decided = replace(decided, groups=_groups(text, types, labels, drugs, obs, column))
        versus = re.search(r"\b(?:vs|versus)\b", text, re.IGNORECASE)
        if decided.intent == COMPARE_DRUG and versus and len(decided.groups) < 2 and decided.drugs:
            decided = replace(decided, intent=DRUG)  # "gefitinib vs these cells?"
    return decided


def _genes(text: str, obs: pd.DataFrame | None) -> list[Mention]:
    """Genes that a text names, but for words that are values of the data: "ctrl" is a condition before it is CTRL."""
    values = set() if obs is None else {value.lower() for each in groupings(obs).values() for value in each.unique()}
    return [gene for gene in load_name_book().genes(text) if gene.written.lower() not in values]


def _type_name(label: Label | None, types: Sequence[Mention]) -> str:
    """What the checkpoint, else the ontology, calls the type that is named."""
    if label is not None:
        return label.name
    return load_ontology().name(types[0].id) if types else ""


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
        name = _type_name(find_cell_type(rest, labels), mentions)
        if name:
            cells = (cells or ALL).model_copy(update={"cell_type": name})
        words = " ".join(word for word in re.findall(r"[\w-]+", part) if word.lower() not in FILLERS)
        if cells is None and words and obs is not None:
            cells = slots.near_value(words, obs)
        if cells is None and (meant := load_name_book().cell_types(f"{words} cells")):  # "alpha" of "alpha and beta"
            cells = Cells(cell_type=_title(meant[0].id, labels)) if meant[0].start == 0 else None
        return cells

    found = slots.find_groups(text, types, parse, column, obs)
    return tuple(
        one.model_copy(update={"cell_type": label.name})
        if one.cell_type and (label := labels.find(one.cell_type))
        else one
        for one in found
    )


def _decide(
    request: Request, votes: list[tuple[str, float]], last: Request | None, *, loaded: bool, made: bool
) -> Request:
    """The intent from words of command, the request before, the slots, and from the votes."""
    (best, share), second = votes[0], votes[1] if len(votes) > 1 else (None, 0.0)
    clear = share - second[1] >= CLEAR
    command = _command(request, best, last, loaded=loaded, made=made)
    if command is not None:
        return _filled(replace(request, intent=command))
    named = next((mention.written for mention in load_name_book().cell_types(request.text)), "")
    groups = slots.COMPARES.search(request.text) or request.column or slots.EACH_GROUP.search(request.text)
    apart = (GENE, HELP, COMPARE_DRUG) if groups else (GENE, HELP)
    if any(mention.drug is not None for mention in request.drugs) and best not in apart:
        best, clear = DRUG, True
        if last is not None and last.intent == DRUG and request.cells is None and not request.type_name:
            request = replace(request, points_back=True)  # "and PLX4720?" is about the same cells
    elif last is not None and (continued := _continue(request, last)) is not None:
        return _filled(continued)
    if best == ANNOTATE and request.selection is not None:
        best, clear = SUBSET, True
    if not clear and request.n is not None and named and {best, second[0]} & {GENERATE, SUBSET}:
        best, clear = GENERATE, True  # "give me 5 Kupffer cells"
    unclear_markers = not clear and MARKERS in (best, second[0]) and request.n is None
    alone = re.fullmatch(rf"{WHAT_IS}{re.escape(named)}", request.text.strip(" ?.!"), re.IGNORECASE)
    if named and best != GENERATE and (unclear_markers or alone):
        best, clear = MARKERS, True  # "what is a Kupffer cell?", "Kupffer cells?"
    if best == SUBSET and request.cells is None and not _points_at(request) and not POINTING.search(request.text):
        best, clear = ANNOTATE, True
    if best in (EXPRESSION, FIND, COMPARE) and not loaded and (request.gene or named):
        best, clear = (MARKERS if named else GENE), True
    if loaded and request.cells is not None and best in (COMPARE, SELECT) and not slots.COMPARES.search(request.text):
        asks = best == COMPARE or slots.SHOWS_CELLS.search(request.text)
        best, clear = (SUBSET, True) if asks else (best, clear)
    pair = {best, second[0]}
    if not clear and (pair == {ANNOTATE, SUBSET} or share >= 0.5):
        clear = True
    if not clear and pair == {MARKERS, GENE}:
        best, clear = (GENE if request.gene is not None and request.cell_type is None else MARKERS), True
    if not clear and pair <= {HELP, SMALL_TALK, OUT_OF_SCOPE, DESCRIBE}:
        clear = True
    return _filled(replace(request, intent=best, wavers=None if clear else second[0]))


def _filled(request: Request) -> Request:
    """What only the intent tells: a drug by its place, a type that is not known."""
    if request.intent == DRUG and not request.drugs:
        request = replace(request, drugs=_named_last(request.text))
    if request.intent in (GENERATE, MARKERS) and request.cell_type is None:
        request = replace(request, unknown_type=_unknown_type(request.text))
    return request


def _points_at(request: Request) -> bool:
    return request.points_back or request.points_here


def _command(request: Request, best: str, last: Request | None, *, loaded: bool, made: bool) -> str | None:
    """The intent that words of command settle, whatever the votes say; None where they do not."""
    text = request.text
    if slots.UNDO.search(text):
        return UNDO
    if slots.RESTART.search(text):
        return RESTART
    if best in (OUT_OF_SCOPE, HELP, SMALL_TALK) and not (
        request.type_name or request.gene or request.cells or request.drugs
    ):
        return None
    known_drug = any(mention.drug is not None for mention in request.drugs)
    if last is not None and (
        (last.intent == EXPRESSION and request.genes and not slots.COUNTS.search(text))
        or (last.intent == GENERATE and request.n is not None and not request.genes and request.cells is None)
    ):
        return None  # a follow-up of the request before
    for settle in (
        _why,
        _judging,
        _offering,
        _about_pseudo,
        _about_drugs,
        _making,
        _about_genes,
        _choosing,
        _comparing,
    ):
        found = settle(request, best, loaded=loaded, made=made, known_drug=known_drug)
        if found is not None:
            return found
    return None


def _why(request: Request, best: str, *, loaded: bool, **_: bool) -> str | None:
    about = request.type_name or request.cells is not None or _points_at(request) or len(request.text.split()) <= 4
    asks = slots.WHY.search(request.text) or (slots.WHY_NOT.search(request.text) and request.type_name)
    return EXPLAIN if loaded and asks and about and not request.drugs and not request.gene else None


def _judging(request: Request, best: str, *, loaded: bool, **_: bool) -> str | None:
    """ "Run QC on the first 30 cells", but not "how good are the pseudo-cells?" """
    return QUALITY if slots.QUALITY.search(request.text) and not slots.MAKES.search(request.text) else None


def _offering(request: Request, best: str, **_: bool) -> str | None:
    """ "Are these T cells, B cells or monocytes?" """
    if not request.labels or request.drugs or request.genes or slots.COMPARES.search(request.text):
        return None
    if best not in (ANNOTATE, SUBSET, EXPLAIN, FIND, SELECT):
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
    if (
        request.on_map
        and (request.points_back or generated)
        and not re.search(r"\bcolou?r", request.text)
        and not making
    ):
        return REAL
    return None


def _about_drugs(request: Request, best: str, *, known_drug: bool, **_: bool) -> str | None:
    if known_drug:
        several = len({mention.drug.name for mention in request.drugs if mention.drug is not None}) > 1
        compares = slots.COMPARES.search(request.text) or request.column
        return COMPARE_DRUG if compares and not several else None
    if request.drugs:  # a drug that is not known is refused by name
        return None
    asks = slots.WHICH_DRUG.search(request.text) and best not in (HELP, OUT_OF_SCOPE, GENE, MARKERS, DESCRIBE)
    return RANK if asks or best == RANK else None


def _making(request: Request, best: str, *, loaded: bool, **_: bool) -> str | None:
    if not slots.MAKES.search(request.text) or best in (DOWNLOAD, HELP, OUT_OF_SCOPE, REAL, CLUSTER, UNDO):
        return None
    wanted = request.n is not None or request.type_name or request.like
    return GENERATE if wanted and best in (GENERATE, ANNOTATE, SUBSET, SELECT, MARKERS, DESCRIBE, FIND, MAP) else None


def _about_genes(request: Request, best: str, *, loaded: bool, **_: bool) -> str | None:
    """ "How many of those express GZMB?"; cells that express a gene are chosen by it, if that is what is asked."""
    written = {mention.written.lower() == mention.id.lower() for mention in load_name_book().genes(request.text)}
    if best == FIND and written == {False}:  # "cells that secrete insulin"
        return None
    if not loaded or not request.genes or re.search(r"\bmark(?:s|ers?)\b", request.text, re.IGNORECASE):
        return None
    if best == MAP or (request.on_map and not slots.COUNTS.search(request.text)):
        return MAP
    if slots.COUNTS.search(request.text) and slots.AMOUNT.search(request.text):
        return EXPRESSION
    if slots.EXPRESSES.search(request.text) and slots.CHOOSES.search(request.text):
        return SELECT
    if best in (EXPRESSION, FIND) or (
        slots.AMOUNT.search(request.text) and best in (GENE, SELECT, ANNOTATE, SUBSET, QUALITY)
    ):
        return None if best == GENE and not (_points_at(request) or request.cells or request.type_name) else EXPRESSION
    return None


def _choosing(request: Request, best: str, *, loaded: bool, **_: bool) -> str | None:
    if not loaded or best in (RANK, QUALITY, GENERATE, DRUG, COMPARE_DRUG, DOWNLOAD, EXPRESSION, HELP):
        return None
    if best in (EXPLAIN, COMPARE) and (slots.COMPARES.search(request.text) or slots.WHY.search(request.text)):
        return None
    named = request.cells is not None or request.type_name
    if slots.CHOOSES.search(request.text) and (named or best == SELECT):
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
    if not loaded or known_drug or best in (GENE, HELP, OUT_OF_SCOPE):
        return None
    groups = request.cells is not None or request.type_name or _points_at(request) or request.column
    special = slots.SPECIAL.search(request.text) and best in (COMPARE, EXPLAIN, DESCRIBE, SUBSET, MARKERS, ANNOTATE)
    likely = best == COMPARE or (best == MARKERS and request.cells is not None)
    return COMPARE if groups and (special or (likely and slots.COMPARES.search(request.text))) else None


def _continue(request: Request, last: Request) -> Request | None:
    """ "And 20 alpha cells?": the request before with the slots of this one; None if this one stands for itself."""
    asks = request.cell_type is not None or request.n is not None
    if last.intent == GENERATE and asks and not request.gene and not request.selection:
        return replace(
            request,
            intent=GENERATE,
            cell_type=request.cell_type or last.cell_type,
            n=last.n if request.n is None else request.n,
            like=last.like and request.cell_type is None,
            species=request.species or last.species,
            tissue=request.tissue or last.tissue,
            library_size=last.library_size if request.library_size is None else request.library_size,
        )
    if last.intent == MARKERS and request.cell_type and not request.gene:
        return replace(request, intent=MARKERS)
    if last.intent == EXPRESSION and (request.genes or request.cells or request.type_name):
        return replace(request, intent=EXPRESSION, genes=request.genes or last.genes, points_back=not request.cells)
    if last.intent in (MARKERS, GENE) and request.gene and not request.cell_type:
        return replace(request, intent=GENE)
    if last.intent == DRUG and (request.selection is not None or request.cells is not None):
        return replace(request, intent=DRUG, drugs=request.drugs or last.drugs)
    if last.intent == DRUG and not (request.gene or request.cell_type):
        named = request.drugs or _named_last(request.text)
        return replace(request, intent=DRUG, drugs=named) if named else None
    if last.intent == DRUG and request.cell_type is not None:
        return replace(request, intent=DRUG, drugs=last.drugs)
    if last.intent in (QUALITY, EXPLAIN, RANK, SELECT) and (request.cells is not None or request.type_name):
        return replace(request, intent=last.intent)
    if last.intent in (ANNOTATE, SUBSET) and request.cells is not None and not request.gene:
        return replace(request, intent=SUBSET)
    if last.intent in (ANNOTATE, SUBSET) and request.type_name and not request.gene:
        return replace(request, intent=ANNOTATE)
    return None


# ---- slots


def find_cell_type(text: str, labels: LabelSet) -> Label | None:
    """The label that a text names: exactly as the ontology or the bench does, else with a typing error."""
    for mention in load_name_book().cell_types(text):
        label = labels.find(mention.id) or labels.find(mention.written)
        if label is not None:
            return label
    return _first_run(text, labels.find, longest=6)


def find_choices(text: str, labels: LabelSet) -> tuple[str, ...]:
    """The cell types that a text offers to choose among: two or more names joined by commas, "or", "and" or "vs".

    They are called as the checkpoint or the ontology calls them. Empty where the text counts cells instead.
    """
    if COUNTING.search(text):
        return ()
    runs: list[dict[str, bool]] = [{}]  # name -> whether it is known
    for part in _parts(text):
        name, known, leads, ends = _choice(part, labels)
        if not name or (leads and runs[-1]):
            runs.append({})
        if name:
            runs[-1].setdefault(name, known)
        if ends:
            runs.append({})
    longest = max(runs, key=lambda run: sum(run.values()))
    return tuple(longest) if sum(longest.values()) > 1 else ()


def _parts(text: str) -> list[str]:
    """A text cut at its commas, "or" and "and", except those inside a name: "CD4-positive, alpha-beta T cell"."""
    masked = _without(text, [(mention.start, mention.end) for mention in load_name_book().cell_types(text)])
    cuts = [cut.span() for cut in BETWEEN_CHOICES.finditer(masked)]
    starts, ends = [0, *(end for _, end in cuts)], [*(start for start, _ in cuts), len(text)]
    return [text[start:end] for start, end in zip(starts, ends, strict=True)]


def _choice(part: str, labels: LabelSet) -> tuple[str, bool, bool, bool]:
    """What one part of a list names, whether that is a known type, and whether words lead up to it and follow it."""
    names = load_name_book()
    if mentions := names.cell_types(part):
        one = mentions[-1]
        return _title(one.id, labels), True, bool(part[: one.start].strip()), bool(part[one.end :].strip(" .?!"))
    words = [word for word in re.findall(r"[\w+-]+", part) if word.lower() not in ("cell", "cells")]
    for word in dict.fromkeys((*words[-1:], *words[:1])):  # "alpha" and "delta" of "labels alpha, beta, delta please"
        if word.lower() in FILLERS:
            continue
        meant = [_title(mention.id, labels) for mention in names.cell_types(f"{word} cells") if mention.start == 0]
        if not meant and len(word) > 3 and (label := labels.find(word)) is not None:
            meant = [label.name]
        if meant:
            return meant[0], True, word != words[0], word != words[-1]
    telling = 0 < len(words) <= 3 and not FILLERS & {word.lower() for word in words}
    return " ".join(words) if telling else "", False, False, False


def _title(cl_id: str, labels: LabelSet) -> str:
    """How the checkpoint, else the ontology, calls a type."""
    label = labels.find(cl_id)
    return load_ontology().name(cl_id) if label is None else label.name


def _without(text: str, spans: Spans) -> str:
    """The text with the characters of the spans blotted out; all others stay where they are."""
    for start, end in spans:
        text = f"{text[:start]}{chr(0) * (end - start)}{text[end:]}"
    return text


def find_drugs(text: str, drugs: DrugSet, taken: Spans = ()) -> tuple[DrugMention, ...]:
    """Every drug that a text names, known or not, outside the spans of other names."""
    found = [mention for mention in drugs.mentions(text) if _stands(mention, drugs, taken)]
    known = [mention for mention in found if mention.drug is not None]
    places = [DRUG_BEFORE.search(text, 0, mention.start) for mention in known]
    places += [DRUG_BEHIND.match(text, mention.end) for mention in known]
    places += [DRUG_ACTS.search(text)] if known else []
    for match in filter(None, places):
        other = _unknown_drug(match)
        if other is not None and not _overlaps(other, [*taken, *((one.start, one.end) for one in found)]):
            found.append(other)
    return tuple(sorted(found, key=lambda mention: mention.start))


def _stands(mention: DrugMention, drugs: DrugSet, taken: Spans) -> bool:
    """Whether a drug is meant where a gene or type stands too: one of the checkpoint, or one with a longer name."""
    if mention.drug is None:
        return not _overlaps(mention, taken)
    return mention.drug in drugs or not any(start <= mention.start and mention.end <= end for start, end in taken)


def _unknown_drug(match: re.Match[str] | None) -> DrugMention | None:
    """What stands where a drug's name stands, unless it is an everyday word."""
    if match is None or match[match.lastindex or 0].lower() in FILLERS:
        return None
    return DrugMention(match[match.lastindex or 0], *match.span(match.lastindex or 0))


def _named_last(text: str) -> tuple[DrugMention, ...]:
    """A drug of any name where only its place tells it: "sensitive to unobtainium?"."""
    found = (_unknown_drug(DRUG_ACTS.search(text)), _unknown_drug(DRUG_LAST.search(text)))
    return tuple(mention for mention in found if mention is not None)[:1]


def _overlaps(mention: DrugMention, spans: Spans) -> bool:
    return any(mention.start < end and start < mention.end for start, end in spans)


def find_tissue(text: str, labels: LabelSet) -> str | None:
    """A tissue of the checkpoint's labels that the text names, the longest first."""
    low = f" {' '.join(_words(text))} "
    named = [tissue for label in labels for tissue in label.tissues if f" {' '.join(_words(tissue))} " in low]
    return max(named, key=len) if named else None


def find_selection(text: str, obs: pd.DataFrame | None, taken: Spans = ()) -> tuple[Selection | None, str]:
    """The cells a sentence points at, and the sentence without those words.

    Understood: "the first 20 cells", "cell 17", "cells 5 to 9", "30 random cells", a cell's own name, "cluster 3 of
    leiden", "condition stim", "where donor is human2", "in donor human2", "the human2 cells".

    Parameters
    ----------
    taken
        Where the sentence names cell types and drugs: values of a column that are written there select cells only as
        "where drug is anti-PD1".
    """
    if obs is None or len(obs) == 0:
        return None, text
    found = _by_position(text, obs) or _by_name(text, obs) or _by_cluster(text, obs) or _by_column(text, obs, taken)
    if found is None:
        return None, text
    selection, (start, end) = found
    return selection, f"{text[:start]} {text[end:]}"


def _by_position(text: str, obs: pd.DataFrame) -> Found | None:
    n, number = len(obs), rf"(\d[\d,]*|{'|'.join(NUMBER_WORDS)})"
    if match := re.search(rf"\b(first|last)\s+(?:{number}\s+)?cells?\b", text, re.IGNORECASE):
        end, k = match[1].lower(), min(_number(match[2] or "one"), n)
        rows = np.arange(k) if end == "first" else np.arange(n - k, n)
        cells = Cells(first=k) if end == "first" else Cells(last=k)
        return Selection(rows, f"the {end} {k:,} cells" if k > 1 else f"the {end} cell", cells), match.span()
    random = rf"\b(?:{number}\s+random(?:ly\s+\w+)?\s+cells?|random\s+{number}\s+cells?)\b"
    if match := re.search(random, text, re.IGNORECASE):
        k = min(_number(match[1] or match[2]), n)
        rows = np.sort(np.random.default_rng(0).choice(n, k, replace=False))
        return Selection(rows, f"{k:,} random cells", Cells(random=k)), match.span()
    if match := re.search(r"\bcells\s+#?(\d+)\s*(?:-|to|through|\u2013)\s*#?(\d+)\b", text, re.IGNORECASE):
        start, stop = sorted((int(match[1]), int(match[2])))
        rows = np.arange(max(start, 1) - 1, min(stop, n))
        chosen = Selection(rows, f"cells {start:,} to {min(stop, n):,}", Cells(positions=tuple(rows.tolist())))
        return (chosen, match.span()) if len(rows) else None
    if match := re.search(r"\bcell\s+(?:number\s+|no\.?\s+|#\s*)?(\d+)\b", text, re.IGNORECASE):
        position = int(match[1]) - 1
        if not 0 <= position < n:
            return None
        return Selection(np.array([position]), f"cell {position + 1:,}", Cells(positions=(position,))), match.span()
    return None


def _by_name(text: str, obs: pd.DataFrame) -> Found | None:
    for match in re.finditer(r"[\w.:|-]{4,}[\w|]", text):
        word = match[0]
        if any(letter.isdigit() or letter in "_-|:." for letter in word) and word in obs.index:
            return Selection(np.flatnonzero(obs.index == word), f"cell {word}", Cells(names=(word,))), match.span()
    return None


def _by_cluster(text: str, obs: pd.DataFrame) -> Found | None:
    """ "cluster 3" where the file has no clusters of its own: the ones that are computed here."""
    if cluster_column(obs) not in (None, OWN_CLUSTERS):
        return None
    match = re.search(r"\bclusters?\s*(?:number|no\.?|#)?\s*(\d+)\b(?!\s+(?:of|in)\s+\w)", text, re.IGNORECASE)
    if match is None:
        return None
    values = obs[OWN_CLUSTERS].astype(str) if OWN_CLUSTERS in obs else pd.Series("", index=obs.index)
    rows = np.flatnonzero(values == match[1])
    if OWN_CLUSTERS in obs and len(rows) == 0:
        return None
    return Selection(rows, f"cluster {match[1]}", Cells(cluster=match[1])), match.span()


def _by_column(text: str, obs: pd.DataFrame, taken: Spans) -> Found | None:
    """A value of a grouping column, named with its column; or alone, where only one column has it."""
    alone: list[Found] = []
    free = _without(text, taken)
    for column, values in groupings(obs).items():
        name = re.escape(column).replace("_", r"[_\s]")
        names = rf"(?<!\w)(?:{name}|cluster|group)s?" if column.lower() in CLUSTER_COLUMNS else rf"(?<!\w){name}s?"
        for value in sorted(values.unique(), key=len, reverse=True):
            word = rf"(?<!\w)[\"'`]?{re.escape(value)}[\"'`]?(?!\w)"
            behind = rf"(?:\s+(?:of|in|from)\s+(?:the\s+)?{name}(?:\s+column)?)?"
            beside = rf"{names}(?:\s+(?:number|no\.?))?\s*[:#]*\s*{word}{behind}|{word}\s+{names}(?!\w)"
            stated = rf"{names}\s*(?:\b(?:is|equals?)\b|[=:]+)\s*{word}{behind}"
            cells = Cells(column=column, value=value)
            chosen = Selection(np.flatnonzero(values == value), f"{column} {value}", cells)
            if match := re.search(stated, text, re.IGNORECASE) or re.search(beside, free, re.IGNORECASE):
                return chosen, match.span()
            pointed = rf"\b{POINTS_BEFORE}({word}(?:\s+(?:cells?|samples?)\b)?)|({word}{POINTS_BEHIND})"
            match = re.search(rf"{pointed}|^\W*(?:and\s+)?({word})\W*$", free, re.IGNORECASE)
            if match and _points(column, value):
                alone.append((chosen, match.span(match.lastindex or 0)))
    return alone[0] if len(alone) == 1 else None


def _points(column: str, value: str) -> bool:
    """Whether a value may select cells without its column's name: a cell type is what the cells are asked about."""
    if TYPE_COLUMN.search(column) or len(value) < 3 or value.isdigit() or value.lower() in FILLERS:
        return False
    names = load_name_book()
    return not (names.cell_types(value) or names.cell_types(f"{value} cell"))


def find_numbers(text: str) -> tuple[int | None, float | None, int | None]:
    """How many cells, how many counts each, and the seed; None what is not said."""
    seed = None
    if match := re.search(r"\bseed\s*(?:of|is|=|:)?\s*(\d{1,9})\b", text, re.IGNORECASE):
        seed, text = int(match[1]), text.replace(match[0], " ", 1)
    number = rf"(?:(?<!\S)-)?\d[\d,]*(?:\.\d+)?\s*k?|{'|'.join(NUMBER_WORDS)}"
    depth = None
    patterns = (
        rf"\b({number})\s*{DEPTH_WORDS}\b",
        rf"\b(?:library\s+size|depth|total\s+counts?|library)\s*(?:of|is|=|:|about|around)?\s*({number})\b",
    )
    for pattern in patterns:
        if match := re.search(pattern, text, re.IGNORECASE):
            depth, text = float(_number(match[1])), text.replace(match[0], " ", 1)
            break
    match = re.search(rf"(?<![\w+-])({number})(?![\w+])", text, re.IGNORECASE)
    n = _number(match[1]) if match and match[1].lower() != "one" else None  # "the one with most counts" is no number
    return n, depth, seed


def _number(text: str) -> int:
    word = text.strip().lower().replace(",", "")
    if word in NUMBER_WORDS:
        return NUMBER_WORDS[word]
    return int(float(word.removesuffix("k").strip()) * (1000 if word.endswith("k") else 1))


def _species(text: str) -> str | None:
    found = re.search(rf"\b({'|'.join(SPECIES_WORDS)})\b", text, re.IGNORECASE)
    return SPECIES_WORDS[found[1].lower()] if found else None


def generic(text: str, request: Request, spelled: Callable[[str], str]) -> str:
    """The sentence with its names replaced by ones the exemplars use: a rare name shall not hide the question.

    What stands between the names is spelled as the exemplars are.
    """
    names = load_name_book()
    found = [(mention.start, mention.end, "gefitinib") for mention in request.drugs]
    for mention in names.cell_types(text):
        found.append((mention.start, mention.end, "beta cells" if mention.written.endswith("s") else "beta cell"))
    for mention in names.genes(text):
        if mention.written.lower() == mention.id.lower() or not mention.written.islower():
            found.append((mention.start, mention.end, "GCG"))  # not "insulin": its meaning is the word's
    parts, at = [], 0
    for start, end, known in sorted(found):
        if start >= at:
            parts += [spelled(text[at:start]), known]
            at = end
    return "".join([*parts, spelled(text[at:])])


def _unknown_type(text: str) -> str | None:
    """What was meant as a cell type: a type of the ontology, else the words before "cells"."""
    mentions = load_name_book().cell_types(text)
    if mentions:
        return mentions[0].written
    if match := re.search(r"((?:[A-Za-z][\w+/-]*\s+){1,3})cells?\b", text):
        words = [word for word in match[1].split() if word.lower() not in FILLERS]
        return f"{' '.join(words)} cell" if words else None
    return None


def _first_run(text: str, find: Callable[[str], Label | None], *, longest: int) -> Label | None:
    """What `find` makes of the longest run of words it knows; runs start and end with a telling word."""
    words = re.findall(r"[\w+./:-]*[\w+]", text)
    for size in range(min(longest, len(words)), 0, -1):
        for start in range(len(words) - size + 1):
            run = words[start : start + size]
            empty = run[0].lower() in FILLERS or run[-1].lower() in FILLERS - {"cell", "cells"}
            if empty or max(map(len, run)) < 3 or (size == 1 and len(run[0]) < 4):
                continue
            found = find(" ".join(run))
            if found is not None:
                return found
    return None


def _words(text: str) -> list[str]:
    return re.findall(r"[a-z0-9]+", text.lower())
