"""What a sentence names: cell types, drugs, genes, numbers, species, tissue."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence

import pandas as pd

from instructcell.drugs import DrugMention, DrugSet
from instructcell.labels import Label, LabelSet, load_ontology
from instructcell.requests import Request
from instructcell.retrieval.names import Mention, load_name_book
from instructcell.toolbox.data import groupings

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


def find_cell_type(text: str, labels: LabelSet) -> Label | None:
    """The label that a text names: exactly as the ontology or the bench does, else with a typing error."""
    for mention in load_name_book().cell_types(text):
        label = labels.find(mention.id) or labels.find(mention.written)
        if label is not None:
            return label
    return _first_run(text, labels.find, longest=6)


def written_type(text: str, labels: LabelSet) -> str:
    """The words by which `find_cell_type` finds a label that no name book has; "" when there are none."""
    found = ""

    def keep(run: str) -> Label | None:
        nonlocal found
        label = labels.find(run)
        found = run if label is not None and not found else found
        return label

    _first_run(text, keep, longest=6)
    return found


EXPLAINING = re.compile(r"^\W*(?:(?:please|now|and|can\s+you|could\s+you)\W+)*(?:explain|justify|why)\b", re.IGNORECASE)


def find_choices(text: str, labels: LabelSet) -> tuple[str, ...]:
    """The cell types that a text offers to choose among: two or more names joined by commas, "or", "and" or "vs".

    They are called as the checkpoint or the ontology calls them. Empty where the text counts cells instead.
    """
    if COUNTING.search(text) or EXPLAINING.match(text):
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
    masked = without(text, [(mention.start, mention.end) for mention in load_name_book().cell_types(text)])
    cuts = [cut.span() for cut in BETWEEN_CHOICES.finditer(masked)]
    starts, ends = [0, *(end for _, end in cuts)], [*(start for start, _ in cuts), len(text)]
    return [text[start:end] for start, end in zip(starts, ends, strict=True)]


def _choice(part: str, labels: LabelSet) -> tuple[str, bool, bool, bool]:
    """What one part of a list names, whether that is a known type, and whether words lead up to it and follow it."""
    names = load_name_book()
    if mentions := names.cell_types(part):
        one = mentions[-1]
        return title_of(one.id, labels), True, bool(part[: one.start].strip()), bool(part[one.end :].strip(" .?!"))
    words = [word for word in re.findall(r"[\w+-]+", part) if word.lower() not in ("cell", "cells")]
    for word in dict.fromkeys((*words[-1:], *words[:1])):  # "alpha" and "delta" of "labels alpha, beta, delta please"
        if word.lower() in FILLERS:
            continue
        meant = [title_of(mention.id, labels) for mention in names.cell_types(f"{word} cells") if mention.start == 0]
        if not meant and len(word) > 3 and (label := labels.find(word)) is not None:
            meant = [label.name]
        if meant:
            return meant[0], True, word != words[0], word != words[-1]
    telling = 0 < len(words) <= 3 and not FILLERS & {word.lower() for word in words}
    return " ".join(words) if telling else "", False, False, False


def title_of(cl_id: str, labels: LabelSet) -> str:
    """How the checkpoint, else the ontology, calls a type."""
    label = labels.find(cl_id)
    return load_ontology().name(cl_id) if label is None else label.name


def without(text: str, spans: Spans) -> str:
    """The text with the characters of the spans blotted out; all others stay where they are."""
    for start, end in spans:
        text = f"{text[:start]}{chr(0) * (end - start)}{text[end:]}"
    return text


UNKNOWN_GENE = re.compile(
    r"\b(?:express(?:es|ed|ing)?|expression\s+of|positive\s+for|levels?\s+of|plot)\s+([A-Z][A-Z0-9]{2,}(?:-[A-Z0-9]+)?)\b"
)
GENE_CELLS = re.compile(
    r"(?<![\w-])([A-Z][A-Z0-9]{1,9})(?:\+|[- ]positive|[- ]negative)\s*(?:cells?|ones)?(?=\W*$|\s+(?:cells?|ones)\b)"
)


def unknown_gene(text: str) -> str:
    """What stands where a gene stands, written as one, that no table has: "how many cells express ABCXYZ1?"."""
    match = UNKNOWN_GENE.search(text)
    return match[1] if match and not load_name_book().genes(text) else ""


def gene_of_cells(text: str) -> Mention | None:
    """The gene by which cells are named: "INS+ cells", which are the cells with INS whatever type they are."""
    match = GENE_CELLS.search(text)
    symbol = load_name_book().gene(match[1]) if match else None
    return None if match is None or symbol is None else Mention(symbol, match[0], *match.span())


def find_genes(text: str, obs: pd.DataFrame | None) -> list[Mention]:
    """Genes that a text names, but for words that are values of the data: "ctrl" is a condition before it is CTRL."""
    values = set() if obs is None else {value.lower() for each in groupings(obs).values() for value in each.unique()}
    return [gene for gene in load_name_book().genes(text) if gene.written.lower() not in values]


def type_name(label: Label | None, types: Sequence[Mention]) -> str:
    """What the checkpoint, else the ontology, calls the type that is named."""
    if label is not None:
        return label.name
    return load_ontology().name(types[0].id) if types else ""


BARE_TYPE = re.compile(
    r"\b(?:not|than|from|versus|vs\.?|against|with|to|and|or)\s+(?:an?\s+|the\s+)?([A-Za-z]\w+)\W*$", re.IGNORECASE
)


def named_types(text: str, mentions: Sequence[Mention], cell_type: Label | None, labels: LabelSet) -> tuple[str, ...]:
    """All types of a sentence as the checkpoint, else the ontology, calls them: "alpha, beta and delta cells"."""
    names = [_label_name(mention, labels) for mention in mentions]
    if (bare := BARE_TYPE.search(text)) and bare[1].lower() not in FILLERS:  # "why not acinar?", "delta than beta?"
        meant = [one for one in load_name_book().cell_types(f"{bare[1]} cells") if one.start == 0]
        names += [name for one in meant if (name := _label_name(one, labels)) not in names]
    names += [choice for choice in _listed_types(text, labels) if not any(choice in name for name in names)]
    if not names and cell_type is not None:
        names = [cell_type.name]
    return tuple(dict.fromkeys(names))


def _label_name(mention: Mention, labels: LabelSet) -> str:
    """A named type as the checkpoint calls it: by its id, by the words used, else as the ontology does."""
    label = labels.find(mention.id) or labels.find(mention.written)
    return load_ontology().name(mention.id) if label is None else label.name


def _listed_types(text: str, labels: LabelSet) -> list[str]:
    """Known types of a list that leave their last word to the end: "alpha, beta, delta"."""
    chosen = [_choice(part, labels) for part in _parts(text)]
    known = [name for name, is_known, *_ in chosen if is_known]
    return known if len(known) > 1 else []


def ask_for_unknown(text: str) -> bool:
    """Whether a word stands where a drug's name stands: "would aspirin work?"."""
    return bool(drug_by_place(text))


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


DRUG_NAMED = re.compile(  # "would the drug floxamorbin kill them", but not "drug response"
    r"\b(?:drug|compound|medicine|inhibitor)\s+(?:called\s+|named\s+)?(?!respon|sensit|resist|screen|target|data|list|name|rank|effect"
    r"|treat|candidat|librar|combin|action|class|that|which|would|could|should|works?\b|hits?\b|kills?\b|against|facts|knowl|predict"
    r"|quest|tested|with|from|these|those|them|this|here|there|table|column|score)([A-Za-z][\w-]{4,})",
    re.IGNORECASE,
)


def drug_by_place(text: str) -> tuple[DrugMention, ...]:
    """A drug of any name where only its place tells it: "sensitive to unobtainium?"."""
    named = _unknown_drug(DRUG_NAMED.search(text))
    found = (named, _unknown_drug(DRUG_ACTS.search(text)), _unknown_drug(DRUG_LAST.search(text)))
    return tuple(mention for mention in found if mention is not None)[:1]


def _overlaps(mention: DrugMention, spans: Spans) -> bool:
    return any(mention.start < end and start < mention.end for start, end in spans)


def find_tissue(text: str, labels: LabelSet) -> str | None:
    """A tissue of the checkpoint's labels that the text names, the longest first."""
    low = f" {' '.join(_words(text))} "
    named = [tissue for label in labels for tissue in label.tissues if f" {' '.join(_words(tissue))} " in low]
    return max(named, key=len) if named else None


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
            depth, text = float(number_of(match[1])), text.replace(match[0], " ", 1)
            break
    match = re.search(rf"(?<![\w+-])({number})(?![\w+])", text, re.IGNORECASE)
    n = number_of(match[1]) if match and match[1].lower() != "one" else None  # "the one with most counts" is no number
    return n, depth, seed


def numbers_of_types(text: str, labels: LabelSet) -> dict[str, int]:
    """How many of each type are asked for: "10 acinar cells and 5 ductal cells"."""
    found = {}
    for mention in load_name_book().cell_types(text):
        if before := re.search(r"(?<![\w.,])(\d[\d,]*)\s+(?:\w+\s+){0,2}$", text[: mention.start]):
            found[_label_name(mention, labels)] = number_of(before[1])
    return found


def number_of(text: str) -> int:
    word = text.strip().lower().replace(",", "")
    if word in NUMBER_WORDS:
        return NUMBER_WORDS[word]
    return int(float(word.removesuffix("k").strip()) * (1000 if word.endswith("k") else 1))


def find_species(text: str) -> str | None:
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


def unknown_type(text: str) -> str | None:
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
