"""The drugs a checkpoint was trained on, under the names people use; any other drug is refused by name."""

from __future__ import annotations

import difflib
import json
import math
import re
import unicodedata
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from functools import cached_property
from pathlib import Path
from typing import Any

from instructcell.errors import DrugError

TYPO = 0.85  # difflib ratio from which a long word may be a drug's name with a typing error
TYPO_LETTERS = 7  # only words at least this long: "anti-PDL1" is not "anti-PD1" mistyped
LONGEST_NAME = 8  # words
LEAST_LETTERS = 4  # of a drug's name of another route in a sentence

# Drugs that are near to a known one but are not it: never answered as the known one, whatever a checkpoint's file says.
ANALOGUES = {"PLX4720": ("vemurafenib", "Zelboraf", "PLX4032", "RG7204")}
# How the names of drugs end (the stems of their international nonproprietary names).
ENDINGS = (
    "inib fenib ciclib lisib parib rasib degib zomib toclax mab platin taxel tecan rubicin mycin citabine trexate "
    "trexed poside blastine cristine olimus zolomide domide lutamide oxifen estrant trozole inostat vastatin formin "
    "sone solone ciclovir"
).split()
WORD = re.compile(r"[^\W_]+")
UNKNOWN = (
    re.compile(rf"\b[A-Za-z][\w-]+(?:{'|'.join(ENDINGS)})\b", re.IGNORECASE),
    re.compile(r"\b[Aa]nti[- ]?(?:[A-Z][\w-]*|[a-z-]+\d\w*)"),  # "anti-PDL1"
    re.compile(r"\b(?!GS[EM]\d|ENS)[A-Z]{2,4}-?\d{3,}\w*\b(?!\s+(?:cells?|lines?)\b)"),  # "AZD9291"
)
TOGETHER = re.compile(r"\s*(?:\+|&|\b(?:and|plus)\b)\s*", re.IGNORECASE)


@dataclass(frozen=True)
class Drug:
    """One drug: its name in prompts, other names, target, the studies of its cells, and what a reader must know."""

    name: str
    synonyms: tuple[str, ...] = ()
    target: str = ""
    studies: tuple[str, ...] = ()
    note: str = ""

    @classmethod
    def of(cls, record: Mapping[str, Any]) -> Drug:
        """A drug from a record of ``drugs.json``.

        Raises
        ------
        DrugError
            If the record has no name or has unknown fields.
        """
        strange = sorted(set(record) - {field.name for field in fields(cls)})
        if strange or not record.get("name"):
            problem = f"unknown fields {', '.join(strange)}" if strange else "no name"
            raise DrugError(f"a drug has {problem}; expected {', '.join(field.name for field in fields(cls))}.")
        lists = {key: tuple(record.get(key, ())) for key in ("synonyms", "studies")}
        return cls(**{**record, **lists})


@dataclass(frozen=True)
class DrugMention:
    """A drug that a sentence names: the words, where they stand, and the known drug if it is one.

    `meant` is the known drug whose name the words may misspell.
    """

    written: str
    start: int
    end: int
    drug: Drug | None = None
    meant: Drug | None = None


KNOWN_DRUGS = (
    Drug(
        "gefitinib",
        ("Iressa", "ZD1839", "ZD-1839"),
        "EGFR",
        ("Tian 2019 (GSE118767), response from GDSC1",),
        "The response was measured on whole cell lines, so identity of the line and response cannot be told apart.",
    ),
    Drug(
        "afatinib",
        ("Gilotrif", "Giotrif", "BIBW2992", "BIBW 2992"),
        "EGFR, ERBB2",
        ("Tian 2019 (GSE118767), response from GDSC1",),
        "The response was measured on whole cell lines, so identity of the line and response cannot be told apart.",
    ),
    Drug(
        "PLX4720",
        ("PLX-4720",),
        "BRAF V600E",
        ("Ho 2018 (GSE108383)",),
        "All cells are of one melanoma line, A375, and of its resistant sub-line.",
    ),
    Drug(
        "anti-PD1",
        (
            "anti-PD-1",
            "PD1 blockade",
            "PD-1 blockade",
            "PD-1 inhibitor",
            "PD1 antibody",
            "anti-PDCD1",
            "pembrolizumab",
            "Keytruda",
            "nivolumab",
            "Opdivo",
        ),
        "PDCD1 (PD-1)",
        ("Sade-Feldman 2018 (GSE120575)",),
        "Sensitive means that the patient responded; the label is the patient's, not the cell's.",
    ),
    Drug(
        "anti-CTLA4",
        ("anti-CTLA-4", "CTLA4 blockade", "CTLA-4 blockade", "CTLA-4 inhibitor", "ipilimumab", "Yervoy"),
        "CTLA4",
        ("Sade-Feldman 2018 (GSE120575)",),
        "Sensitive means that the patient responded; the label is the patient's, not the cell's.",
    ),
    Drug(
        "anti-CTLA4+PD1",
        (
            "anti-PD1+CTLA4",
            "anti-CTLA4/PD1",
            "anti-CTLA4 + anti-PD1",
            "anti-CTLA4 plus anti-PD1",
            "combined PD-1 and CTLA-4 blockade",
            "ipilimumab and nivolumab",
            "nivolumab and ipilimumab",
            "ipilimumab and pembrolizumab",
        ),
        "CTLA4 and PDCD1 (PD-1)",
        ("Sade-Feldman 2018 (GSE120575)",),
        "Sensitive means that the patient responded; the label is the patient's, not the cell's.",
    ),
)


def drug_offset(calibration: Mapping[str, Any], drug: str) -> float:
    """What is added to a drug's log-odds of "sensitive": `drug_offsets` of calibration.json, 0 where it says nothing.

    Raises
    ------
    DrugError
        The offset is not a finite number.
    """
    value = dict(calibration.get("drug_offsets", {})).get(drug, 0.0)
    if not isinstance(value, (int, float)) or not math.isfinite(value):
        raise DrugError(f"calibration.json holds {value!r} as the offset of {drug}; a finite number is expected.")
    return float(value)


def drug_key(name: str) -> str:
    """A drug's name without case, spaces and signs; "and", "plus" and "+" are one.

    >>> drug_key("Anti-PD-1")
    'antipd1'
    """
    text = unicodedata.normalize("NFKC", name).casefold()
    text = re.sub(r"\b(and|plus)\b|[+&]", " + ", text)
    return re.sub(r"[^a-z0-9+]", "", text)


class DrugSet(Sequence[Drug]):
    """The drugs a checkpoint knows.

    Examples
    --------
    >>> drugs = DrugSet.default()
    >>> drugs.find("Iressa").name
    'gefitinib'
    >>> drugs.find("erlotinib") is None
    True
    """

    def __init__(self, drugs: Iterable[Drug | Mapping[str, Any]], *, also: Iterable[Drug] = ()) -> None:
        """Keep the drugs in their order.

        Parameters
        ----------
        also
            Drugs that another route answers: `mentions` finds them under their names, and nothing is guessed to be one.
        """
        self.drugs = tuple(drug if isinstance(drug, Drug) else Drug.of(drug) for drug in drugs)
        self.also = tuple(also)

    @classmethod
    def of(cls, drugs: Iterable[Drug | Mapping[str, Any]]) -> DrugSet:
        """A set from drugs or records; a set is returned as it is."""
        return drugs if isinstance(drugs, DrugSet) else cls(drugs)

    @classmethod
    def default(cls, names: Sequence[str] | None = None) -> DrugSet:
        """The drugs of the training data; those called ``names`` when given, in that order."""
        every = cls(KNOWN_DRUGS)
        return every if names is None else cls(every.get(name) for name in names)

    def __len__(self) -> int:
        """How many drugs there are."""
        return len(self.drugs)

    def __iter__(self) -> Iterator[Drug]:
        """The drugs in order."""
        return iter(self.drugs)

    def __getitem__(self, index: int) -> Drug:  # type: ignore[override]
        """The drug at a position."""
        return self.drugs[index]

    @property
    def names(self) -> list[str]:
        """The drugs' names in order."""
        return [drug.name for drug in self.drugs]

    def find(self, text: str) -> Drug | None:
        """The drug whose name or synonym a text is, None when it is none; case, spaces and signs do not matter.

        Two drugs of a known combination joined by "and", "plus" or "+" are the combination.
        """
        known = [mention.drug for mention in self._known(text) if mention.written == text.strip()]
        return known[0] if known else None

    def get(self, text: str) -> Drug:
        """Like `find`, but a drug that is not known is an error.

        Raises
        ------
        DrugError
            If the text is not a drug of the set; the message lists those that are known.
        """
        drug = self.find(text)
        if drug is None:
            raise DrugError(self.refusal([text]))
        return drug

    def mentions(self, text: str) -> list[DrugMention]:
        """Every drug that a sentence names, in its order, known or not.

        A drug that is not known is recognised by how such names are formed ("-inib", "-mab", "AZD9291"), or by being
        nearly a name of a known one.

        Examples
        --------
        >>> [(m.written, m.drug and m.drug.name) for m in DrugSet.default().mentions("Iressa or erlotinib?")]
        [('Iressa', 'gefitinib'), ('erlotinib', None)]
        """
        found = self._known(text)
        patterns = [match for pattern in (self._analogue_names, *UNKNOWN) for match in pattern.finditer(text)]
        words = re.finditer(r"[^\W\d_]+", text)
        for match in (*patterns, *(word for word in words if self._misspelt(word[0]) or self._nearly_other(word[0]))):
            if not any(match.start() < other.end and other.start < match.end() for other in found):
                found.append(DrugMention(match[0], *match.span(), meant=self._misspelt(match[0])))
        return sorted(found, key=lambda mention: mention.start)

    def refusal(self, names: Sequence[str]) -> str:
        """Why drugs that are not known are not answered, which ones are known, and the nearest name."""
        listed = ", ".join(repr(name) for name in names)
        are = "is not a drug" if len(names) == 1 else "are no drugs"
        text = f"{listed} {are} this checkpoint was trained on. It knows: {', '.join(self.names) or 'none'}."
        for name in names:
            near, meant, analogue = self.close_to(name, 1), self._misspelt(name), self._analogue_of(name)
            if analogue is not None:
                text += f" {analogue.name} is a near analogue of {name}; ask for it by its own name."
            elif meant is not None:
                text += f" By {name}, did you mean {meant.name}?"
            elif near:
                text += f" The name nearest to {name} is {near[0]}, which is another drug."
        return text

    def close_to(self, text: str, n: int = 3) -> list[str]:
        """Names of the drugs whose names are written most like a text."""
        key = drug_key(text)
        ratios = dict.fromkeys(range(len(self)), 0.0)
        for other, i in self._keys.items():
            ratios[i] = max(ratios[i], difflib.SequenceMatcher(None, key, other).ratio())
        return [self.drugs[i].name for i in sorted(ratios, key=lambda i: (-ratios[i], i)) if ratios[i] >= 0.6][:n]

    @classmethod
    def from_json(cls, path: str | Path) -> DrugSet:
        """Read ``drugs.json`` of a checkpoint.

        Raises
        ------
        DrugError
            If the file is not a list of drugs.
        """
        try:
            records = json.loads(Path(path).read_text(encoding="utf-8"))
        except json.JSONDecodeError as error:
            raise DrugError(f"{path} is not JSON ({error}); a list of drugs is expected.") from error
        if not isinstance(records, list):
            raise DrugError(f"{path} holds a {type(records).__name__}; a list of drugs is expected.")
        return cls(records)

    def to_json(self, path: str | Path) -> None:
        """Write ``drugs.json``."""
        Path(path).write_text(json.dumps(self.to_records(), indent=1, ensure_ascii=False) + "\n", encoding="utf-8")

    def to_records(self) -> list[dict[str, Any]]:
        """The drugs as plain dicts, as in ``drugs.json``."""
        return [
            {key: list(value) if isinstance(value, tuple) else value for key, value in asdict(drug).items()}
            for drug in self
        ]

    def _known(self, text: str) -> list[DrugMention]:
        """The known names in a text, the longest at each word; parts of a known combination as one."""
        words, found, at = list(WORD.finditer(text)), [], 0
        while at < len(words):
            for last in range(min(at + LONGEST_NAME, len(words)) - 1, at - 1, -1):
                start, end = words[at].start(), words[last].end()
                key = drug_key(text[start:end])
                drug = self.drugs[self._keys[key]] if key in self._keys else self._other_keys.get(key)
                if drug is not None:
                    found.append(DrugMention(text[start:end], start, end, drug))
                    at = last
                    break
            at += 1
        return self._joined(text, found)

    def _joined(self, text: str, found: list[DrugMention]) -> list[DrugMention]:
        """The same mentions, neighbours that are the parts of a known combination made one."""
        joined: list[DrugMention] = []
        for mention in found:
            before = joined[-1] if joined else None
            if before is not None and TOGETHER.fullmatch(text, before.end, mention.start):
                both = self._combination(before.drug, mention.drug)
                if both is not None:
                    joined[-1] = DrugMention(text[before.start : mention.end], before.start, mention.end, both)
                    continue
            joined.append(mention)
        return joined

    def _combination(self, *parts: Drug | None) -> Drug | None:
        """The drug that is the combination of others, when there is one."""
        targets = {target for drug in parts if drug is not None for target in drug.target.split(" and ")}
        single = len(targets) < 2 or any(drug is not None and " and " in drug.target for drug in parts)
        return None if single else next((drug for drug in self if set(drug.target.split(" and ")) == targets), None)

    def _misspelt(self, word: str) -> Drug | None:
        """The drug whose one-word name a long word may misspell."""
        key = drug_key(word)
        if len(key) < TYPO_LETTERS or not key.isalpha() or key in self._keys or self._analogue_of(word):
            return None
        near = difflib.get_close_matches(key, [other for other in self._keys if other.isalpha()], n=1, cutoff=TYPO)
        return self.drugs[self._keys[near[0]]] if near else None

    def _nearly_other(self, word: str) -> bool:
        """Whether a long word is nearly the name of a drug of another route."""
        key = drug_key(word)
        if len(key) < TYPO_LETTERS or not key.isalpha():
            return False
        return bool(difflib.get_close_matches(key, self._other_words, n=1, cutoff=TYPO))

    def _analogue_of(self, name: str) -> Drug | None:
        """The drug of the set that a drug outside it is a near analogue of."""
        key = drug_key(name)
        return next((drug for drug in self if key in map(drug_key, ANALOGUES.get(drug.name, ()))), None)

    @cached_property
    def _analogue_names(self) -> re.Pattern[str]:
        names = [re.escape(name) for others in ANALOGUES.values() for name in others]
        return re.compile(rf"\b(?:{'|'.join(names)})\b", re.IGNORECASE)

    @cached_property
    def _keys(self) -> dict[str, int]:
        """Positions by key of name, then of synonyms; an analogue is no synonym."""
        keys = {drug_key(drug.name): i for i, drug in enumerate(self.drugs)}
        for i, drug in enumerate(self.drugs):
            others = {drug_key(name) for name in ANALOGUES.get(drug.name, ())}
            for synonym in drug.synonyms:
                if (key := drug_key(synonym)) not in others:
                    keys.setdefault(key, i)
        return keys

    @cached_property
    def _other_words(self) -> list[str]:
        """One-word names of the drugs of another route that may be misspelt."""
        return [key for key in self._other_keys if key.isalpha() and len(key) >= TYPO_LETTERS]

    @cached_property
    def _other_keys(self) -> dict[str, Drug]:
        """The drugs of another route by key; a bare number or a very short word in a sentence is none of them."""
        keys: dict[str, Drug] = {}
        for drug in self.also:
            for name in (drug.name, *drug.synonyms):
                if len(key := drug_key(name)) >= LEAST_LETTERS and not key.isdigit():
                    keys.setdefault(key, drug)
        return keys
