"""What a sentence asks for: the intent by meaning, the slots by what the data and the resources know.

The intent is the vote of the nearest exemplars of `resources/intents.tsv` in the sentence encoder's space. Slots (cell
type, drug, gene, numbers, which cells) are found in the words. When neither settles what is meant, the request says
what it wavers between and the session asks back.

"""

from __future__ import annotations

import csv
import hashlib
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import TypeVar

import numpy as np
import pandas as pd

from instructcell.drugs import Drug, DrugSet
from instructcell.errors import ResourceError
from instructcell.labels import Label, LabelSet
from instructcell.resources import RESOURCES
from instructcell.retrieval import SentenceEncoder, load_sentence_encoder
from instructcell.retrieval.names import load_name_book
from instructcell.retrieval.sentence_encoder import WEIGHTS_SHA256

ANNOTATE, SUBSET, GENERATE, DRUG = "annotate", "annotate_subset", "generate", "drug"
MARKERS, GENE, DESCRIBE, DOWNLOAD = "markers", "gene", "describe", "download"
HELP, SMALL_TALK, OUT_OF_SCOPE = "help", "small_talk", "out_of_scope"
INTENTS = (ANNOTATE, SUBSET, GENERATE, DRUG, MARKERS, GENE, DESCRIBE, DOWNLOAD, HELP, SMALL_TALK, OUT_OF_SCOPE)

VECTORS = RESOURCES / "index" / "intents.npz"
NEIGHBOURS = 8  # exemplars that vote
SHARPNESS = 0.06  # cosine difference at which a vote falls to 1/e
FAR = 0.32  # a sentence that is nearer to no exemplar than this is out of scope
CLEAR = 0.2  # lead in votes below which the slots, or the user, decide
MAX_VALUES = 200  # a column with more values than this is no grouping

# How long-standing tools name the columns that hold clusters.
CLUSTER_COLUMNS = ("leiden", "louvain", "seurat_clusters", "cluster", "clusters", "kmeans", "phenograph")
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
DRUG_ENDINGS = "inib|ciclib|lisib|parib|mab|platin|taxel|rubicin|mycin|citabine|trexate|zomib|limus|vir|statin|afenib"
# Columns that hold cell types: their values name types, so that they select cells only beside the column's name.
TYPE_COLUMNS = frozenset(
    ("cell_type", "celltype", "cell_types", "annotation", "annotations", "labels", "label", "cell_label", "bulk_labels")
)
# Words that neither begin nor end a name.
FILLERS = frozenset(
    """
    a about again all also am an and answer any are as ask at be been best both by call called can cell cells
    cluster come count counts data dataset did do does download draw drug drugs each expect export few file find
    first for from gene generate genes get give group groups had has have help her here him how i if in inside into
    is it its kind last like list look lot make many mark marker markers marks may me mean more most much my name
    need new next no not now of ok on one only or other our out over people please possible predict pseudo random
    real resistant respond response sample samples save see sensitive show simulate single some something sort state
    such synthetic table take talk tell than that the their them then there these they thing think this those to too
    treat treated treatment try type types up us use very want was we well were what when where which who why will
    with work would write yes you your
    """.split()  # noqa: SIM905 - a list of words reads best as text
)
Found = TypeVar("Found")


@dataclass(frozen=True)
class Selection:
    """Cells that a sentence points at: their positions and how to call them."""

    rows: np.ndarray
    name: str


@dataclass(frozen=True)
class Request:
    """An understood sentence; slots that it does not fill are None.

    `wavers` holds the second intent when the first is not clear; `unknown_drug` and `unknown_type` what was named but
    is not known.
    """

    text: str
    intent: str
    wavers: str | None = None
    cell_type: Label | None = None
    unknown_type: str | None = None
    drug: Drug | None = None
    unknown_drug: str | None = None
    gene: str | None = None
    n: int | None = None
    library_size: float | None = None
    seed: int | None = None
    species: str | None = None
    tissue: str | None = None
    selection: Selection | None = None


class Router:
    """Nearest-exemplar intent recognition.

    Parameters
    ----------
    encoder
        Texts -> unit vectors.
    exemplars
        (intent, text) pairs.
    vectors
        Of the exemplars [E, D], to spare the encoding.
    """

    def __init__(
        self, encoder: SentenceEncoder, exemplars: Sequence[tuple[str, str]], vectors: np.ndarray | None = None
    ) -> None:
        self.encoder = encoder
        self.intents = np.asarray([intent for intent, _ in exemplars])
        self.vectors = encoder.encode([text for _, text in exemplars]) if vectors is None else vectors

    def votes(self, text: str) -> list[tuple[str, float]]:
        """Intents with their share of the vote, the strongest first."""
        similarity = self.vectors @ self.encoder.encode([text])[0]  # [E]
        nearest = np.argsort(-similarity)[:NEIGHBOURS]
        if similarity[nearest[0]] < FAR:
            return [(OUT_OF_SCOPE, 1.0)]
        weights = np.exp((similarity[nearest] - similarity[nearest[0]]) / SHARPNESS)
        votes = pd.Series(weights).groupby(self.intents[nearest]).sum().sort_values(ascending=False)
        return [(str(intent), float(vote)) for intent, vote in (votes / votes.sum()).items()]


@lru_cache(maxsize=1)
def load_router() -> Router:
    """The router over the shipped exemplars; loaded once per process."""
    exemplars = read_exemplars()
    return Router(load_sentence_encoder(), exemplars, read_vectors(exemplars))


def read_exemplars() -> list[tuple[str, str]]:
    """(intent, text) pairs of resources/intents.tsv."""
    try:
        with (RESOURCES / "intents.tsv").open(encoding="utf-8", newline="") as file:
            rows = [(row["intent"], row["text"]) for row in csv.DictReader(file, delimiter="\t")]
    except FileNotFoundError as error:
        raise ResourceError("intents.tsv is missing from instructcell/resources; install InstructCell again") from error
    strange = sorted({intent for intent, _ in rows} - set(INTENTS))
    if strange:
        raise ResourceError(f"intents.tsv names unknown intents: {', '.join(strange)}; expected {', '.join(INTENTS)}")
    return rows


def read_vectors(exemplars: Sequence[tuple[str, str]]) -> np.ndarray | None:
    """The exemplars' vectors [E, D] from the index, or None where they were made from other texts."""
    if not VECTORS.is_file():
        return None
    with np.load(VECTORS, allow_pickle=False) as saved:
        return saved["vectors"].astype(np.float32) if str(saved["texts"]) == _fingerprint(exemplars) else None


def write_vectors() -> None:
    """Encode the exemplars and keep their vectors beside the index; part of `make resources`."""
    exemplars = read_exemplars()
    vectors = Router(load_sentence_encoder(), exemplars).vectors
    np.savez_compressed(VECTORS, vectors=vectors.astype(np.float16), texts=_fingerprint(exemplars))


def _fingerprint(exemplars: Sequence[tuple[str, str]]) -> str:
    texts = "\n".join(text for _, text in exemplars)
    return hashlib.sha256(f"{WEIGHTS_SHA256}\n{texts}".encode()).hexdigest()


def understand(
    text: str,
    *,
    router: Router,
    labels: LabelSet,
    drugs: DrugSet,
    obs: pd.DataFrame | None = None,
    last: Request | None = None,
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
    """
    selection, rest = find_selection(text, obs)
    n, library_size, seed = find_numbers(rest)
    request = Request(
        text=text,
        intent=HELP,
        cell_type=find_cell_type(rest, labels),
        drug=find_drug_name(text, drugs),
        gene=find_gene(text),
        n=n,
        library_size=library_size,
        seed=seed,
        species=_species(rest),
        tissue=find_tissue(rest, labels),
        selection=selection,
    )
    votes = router.votes(_generic(text, request))
    follow_up = last is not None and (FOLLOW_UP.match(text) is not None or len(text.split()) <= 3)
    return _decide(request, votes, last if follow_up else None)


def _decide(request: Request, votes: list[tuple[str, float]], last: Request | None) -> Request:
    """The intent from the votes, then from the slots, then from the request before."""
    (best, share), second = votes[0], votes[1] if len(votes) > 1 else (None, 0.0)
    clear = share - second[1] >= CLEAR
    named = next((mention.written for mention in load_name_book().cell_types(request.text)), "")
    if request.drug is not None and best not in (GENE, HELP):
        best, clear = DRUG, True
    elif last is not None and (continued := _continue(request, last)) is not None:
        return continued
    if best == ANNOTATE and request.selection is not None:
        best, clear = SUBSET, True
    if not clear and request.n is not None and named and {best, second[0]} & {GENERATE, SUBSET}:
        best, clear = GENERATE, True  # "give me 5 Kupffer cells"
    unclear_markers = not clear and MARKERS in (best, second[0]) and not request.n
    alone = re.fullmatch(rf"{WHAT_IS}{re.escape(named)}", request.text.strip(" ?.!"), re.IGNORECASE)
    if named and best != GENERATE and (unclear_markers or alone):
        best, clear = MARKERS, True  # "what is a Kupffer cell?", "Kupffer cells?"
    if best == SUBSET and request.selection is None and not POINTING.search(request.text):
        best, clear = ANNOTATE, True
    pair = {best, second[0]}
    if not clear and pair == {ANNOTATE, SUBSET}:
        clear = True
    if not clear and pair == {MARKERS, GENE}:
        best, clear = (GENE if request.gene is not None and request.cell_type is None else MARKERS), True
    if not clear and pair <= {HELP, SMALL_TALK, OUT_OF_SCOPE}:
        clear = True
    if best == DRUG and request.drug is None:
        request = replace(request, unknown_drug=_unknown_drug(request.text))
    if best in (GENERATE, MARKERS) and request.cell_type is None:
        request = replace(request, unknown_type=_unknown_type(request.text))
    return replace(request, intent=best, wavers=None if clear else second[0])


def _continue(request: Request, last: Request) -> Request | None:
    """ "And 20 alpha cells?": the request before with the slots of this one; None if this one stands for itself."""
    if last.intent == GENERATE and (request.cell_type or request.n) and not request.gene and not request.selection:
        return replace(
            request,
            intent=GENERATE,
            cell_type=request.cell_type or last.cell_type,
            n=request.n or last.n,
            species=request.species or last.species,
            tissue=request.tissue or last.tissue,
            library_size=request.library_size or last.library_size,
        )
    if last.intent == MARKERS and request.cell_type and not request.gene:
        return replace(request, intent=MARKERS)
    if last.intent in (MARKERS, GENE) and request.gene and not request.cell_type:
        return replace(request, intent=GENE)
    if last.intent in (ANNOTATE, SUBSET) and request.selection is not None and not request.gene:
        return replace(request, intent=SUBSET)
    if last.intent == DRUG and request.selection is not None:
        return replace(request, intent=DRUG, drug=last.drug)
    if (
        last.intent == DRUG
        and (name := _unknown_drug(request.text)) is not None
        and not (request.gene or request.cell_type)
    ):
        return replace(request, intent=DRUG, unknown_drug=name)
    return None


# ---- slots


def find_cell_type(text: str, labels: LabelSet) -> Label | None:
    """The label that a text names: exactly as the ontology or the bench does, else with a typing error."""
    for mention in load_name_book().cell_types(text):
        label = labels.find(mention.id) or labels.find(mention.written)
        if label is not None:
            return label
    return _first_run(text, labels.find, longest=6)


def find_drug_name(text: str, drugs: DrugSet) -> Drug | None:
    """The drug the checkpoint knows that a text names."""
    return drugs.find(text)


def find_tissue(text: str, labels: LabelSet) -> str | None:
    """A tissue of the checkpoint's labels that the text names, the longest first."""
    low = f" {' '.join(_words(text))} "
    named = [tissue for label in labels for tissue in label.tissues if f" {' '.join(_words(tissue))} " in low]
    return max(named, key=len) if named else None


def find_gene(text: str) -> str | None:
    """Human symbol of the first gene that a text names, outside the names of cell types."""
    mentions = load_name_book().genes(text)
    return mentions[0].id if mentions else None


def find_selection(text: str, obs: pd.DataFrame | None) -> tuple[Selection | None, str]:
    """The cells a sentence points at, and the sentence without those words.

    Understood: "the first 20 cells", "cell 17", "cells 5 to 9", "30 random cells", a cell's own name, "cluster 3 of
    leiden", "condition stim", "where donor is human2".
    """
    if obs is None or len(obs) == 0:
        return None, text
    for find in (_by_position, _by_name, _by_column):
        found, words = find(text, obs)
        if found is not None:
            return found, text.replace(words, " ", 1)
    return None, text


def groupings(obs: pd.DataFrame) -> dict[str, pd.Series]:
    """Columns that sort the cells into groups, as text."""
    found = {}
    for column in obs.columns:
        values = obs[column]
        whole = pd.api.types.is_integer_dtype(values) or isinstance(values.dtype, pd.CategoricalDtype)
        texts = pd.api.types.is_object_dtype(values) or pd.api.types.is_string_dtype(values)
        if not str(column).startswith("instructcell_") and (whole or texts) and 1 < values.nunique() <= MAX_VALUES:
            found[str(column)] = values.astype(str)
    return found


def _by_position(text: str, obs: pd.DataFrame) -> tuple[Selection | None, str]:
    n, number = len(obs), rf"(\d[\d,]*|{'|'.join(NUMBER_WORDS)})"
    if match := re.search(rf"\b(first|last)\s+(?:{number}\s+)?cells?\b", text, re.IGNORECASE):
        end, k = match[1].lower(), min(_number(match[2] or "one"), n)
        rows = np.arange(k) if end == "first" else np.arange(n - k, n)
        return Selection(rows, f"the {end} {k:,} cells" if k > 1 else f"the {end} cell"), match[0]
    random = rf"\b(?:{number}\s+random(?:ly\s+\w+)?\s+cells?|random\s+{number}\s+cells?)\b"
    if match := re.search(random, text, re.IGNORECASE):
        k = min(_number(match[1] or match[2]), n)
        rows = np.sort(np.random.default_rng(0).choice(n, k, replace=False))
        return Selection(rows, f"{k:,} random cells"), match[0]
    if match := re.search(r"\bcells\s+#?(\d+)\s*(?:-|to|through|\u2013)\s*#?(\d+)\b", text, re.IGNORECASE):
        start, stop = sorted((int(match[1]), int(match[2])))
        rows = np.arange(max(start, 1) - 1, min(stop, n))
        return (Selection(rows, f"cells {start:,} to {min(stop, n):,}"), match[0]) if len(rows) else (None, "")
    if match := re.search(r"\bcell\s+(?:number\s+|no\.?\s+|#\s*)?(\d+)\b", text, re.IGNORECASE):
        position = int(match[1]) - 1
        return (
            (Selection(np.array([position]), f"cell {position + 1:,}"), match[0]) if 0 <= position < n else (None, "")
        )
    return None, ""


def _by_name(text: str, obs: pd.DataFrame) -> tuple[Selection | None, str]:
    for word in re.findall(r"[\w.:|-]{5,}", text):
        word = word.rstrip(".:-")
        if any(letter.isdigit() or letter in "_-|:." for letter in word) and word in obs.index:
            return Selection(np.flatnonzero(obs.index == word), f"cell {word}"), word
    return None, ""


def _by_column(text: str, obs: pd.DataFrame) -> tuple[Selection | None, str]:
    """A value of a grouping column, named with its column; or alone, where only one column has it."""
    alone: list[tuple[Selection, str]] = []
    for column, values in groupings(obs).items():
        name = re.escape(column).replace("_", r"[_\s]")
        names = rf"(?:{name}|cluster|group)" if column.lower() in CLUSTER_COLUMNS else name
        for value in sorted(values.unique(), key=len, reverse=True):
            word = rf"(?<!\w)[\"'`]?{re.escape(value)}[\"'`]?(?!\w)"
            before = rf"(?<!\w){names}s?(?:\s+(?:is|equals?|number|no\.?))?\s*[=:#]*\s*{word}"
            behind = rf"(?:\s+(?:of|in|from)\s+(?:the\s+)?{name}(?:\s+column)?)?"
            chosen = Selection(np.flatnonzero(values == value), f"{column} {value}")
            if match := re.search(rf"{before}{behind}|{word}\s+{names}(?!\w)", text, re.IGNORECASE):
                return chosen, match[0]
            telling = len(value) >= 3 and not value.isdigit() and value.lower() not in FILLERS
            if telling and column.lower() not in TYPE_COLUMNS:
                match = re.search(rf"{word}(?:\s+(?:cells?|samples?))?", text, re.IGNORECASE)
                alone += [(chosen, match[0])] if match else []
    return alone[0] if len(alone) == 1 else (None, "")


def find_numbers(text: str) -> tuple[int | None, float | None, int | None]:
    """How many cells, how many counts each, and the seed; None what is not said."""
    seed = None
    if match := re.search(r"\bseed\s*(?:of|is|=|:)?\s*(\d{1,9})\b", text, re.IGNORECASE):
        seed, text = int(match[1]), text.replace(match[0], " ", 1)
    number = rf"\d[\d,]*(?:\.\d+)?\s*k?|{'|'.join(NUMBER_WORDS)}"
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


def _generic(text: str, request: Request) -> str:
    """The sentence with its names replaced by ones the exemplars use: a rare name shall not hide the question."""
    if request.drug is not None:
        for name in (request.drug.name, *request.drug.synonyms):
            text = re.sub(rf"(?<!\w){re.escape(name)}(?!\w)", "gefitinib", text, flags=re.IGNORECASE)
    names = load_name_book()
    for mention in reversed(names.cell_types(text)):
        known = "beta cells" if mention.written.endswith("s") else "beta cell"
        text = f"{text[: mention.start]}{known}{text[mention.end :]}"
    for mention in reversed(names.genes(text)):
        text = f"{text[: mention.start]}GCG{text[mention.end :]}"
    return text


def _unknown_drug(text: str) -> str | None:
    """The word that most looks like a drug's name: by its ending, or where a drug's name stands."""
    if match := re.search(rf"\b([A-Za-z][\w-]{{2,}}(?:{DRUG_ENDINGS})|[A-Z]{{2,4}}-?\d{{3,}}\w*)\b", text):
        return match[1]
    if match := re.search(
        r"\b(?:to|about|with|by|on|against)\s+([A-Za-z][\w-]{3,})(?:\s+treatment)?\s*[?.!]*\s*$", text
    ):
        return None if match[1].lower() in FILLERS else match[1]
    return None


def _unknown_type(text: str) -> str | None:
    """What was meant as a cell type: a type of the ontology, else the words before "cells"."""
    mentions = load_name_book().cell_types(text)
    if mentions:
        return mentions[0].written
    if match := re.search(r"((?:[A-Za-z][\w+/-]*\s+){1,3})cells?\b", text):
        words = [word for word in match[1].split() if word.lower() not in FILLERS]
        return f"{' '.join(words)} cell" if words else None
    return None


def _first_run(text: str, find: Callable[[str], Found | None], *, longest: int) -> Found | None:
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
