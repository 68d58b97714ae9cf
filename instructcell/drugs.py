"""The drugs a checkpoint was trained on, under the names people use; any other drug is refused by name."""

from __future__ import annotations

import difflib
import json
import re
import unicodedata
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from functools import cached_property
from pathlib import Path
from typing import Any

from instructcell.errors import DrugError

TYPO = 0.85  # difflib ratio from which a long word is taken for a drug's name with a typing error
TYPO_LETTERS = 7  # only words at least this long: "anti-PDL1" is not "anti-PD1" mistyped


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
        ("PLX-4720", "vemurafenib", "Zelboraf", "PLX4032", "RG7204"),
        "BRAF V600E",
        ("Ho 2018 (GSE108383)",),
        "PLX4720 is a near analogue of vemurafenib (Zelboraf). All cells are of one melanoma line, A375, and of its "
        "resistant sub-line.",
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


def drug_key(name: str) -> str:
    """A drug's name without case, spaces and signs; "and", "plus" and "+" are one.

    >>> drug_key("Anti-PD-1")
    'antipd1'
    """
    text = unicodedata.normalize("NFKC", name).casefold()
    text = re.sub(r"\b(and|plus|with)\b|[+&/]", " + ", text)
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

    def __init__(self, drugs: Iterable[Drug | Mapping[str, Any]]) -> None:
        """Keep the drugs in their order."""
        self.drugs = tuple(drug if isinstance(drug, Drug) else Drug.of(drug) for drug in drugs)

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
        """The drug a text names, by name or synonym, alone or within a few words, or with a typing error; else None.

        Two drugs of a known combination, named together, are the combination.
        """
        key = drug_key(text)
        if key in self._keys:
            return self.drugs[self._keys[key]]
        words = re.findall(r"[\w+-]+", text)
        runs = [
            " ".join(words[start : start + size]) for size in (4, 3, 2, 1) for start in range(len(words) - size + 1)
        ]
        named = [self._keys[key] for key in map(drug_key, runs) if key in self._keys]
        if named:
            return self._combination(set(named)) or self.drugs[named[0]]
        mistyped = {found for word in words if (found := self._mistyped(drug_key(word))) is not None}
        return self.drugs[mistyped.pop()] if len(mistyped) == 1 else None

    def get(self, text: str) -> Drug:
        """Like `find`, but a drug that is not known is an error.

        Raises
        ------
        DrugError
            If no drug of the set is named; the message lists those that are known.
        """
        drug = self.find(text)
        if drug is None:
            near = self.close_to(text, 1)
            hint = f" The nearest name is {near[0]}, which is another drug." if near else ""
            known = ", ".join(self.names) or "none"
            raise DrugError(f"{text!r} is not a drug this checkpoint was trained on. It knows: {known}.{hint}")
        return drug

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

    def _combination(self, named: set[int]) -> Drug | None:
        """The drug that is the combination of those named, when there is one."""
        parts = {target for i in named for target in self.drugs[i].target.split(" and ")}
        wanted = sorted(parts)
        return next(
            (drug for drug in self.drugs if len(parts) > 1 and sorted(drug.target.split(" and ")) == wanted), None
        )

    def _mistyped(self, key: str) -> int | None:
        """Position of the drug whose one-word name a long word misspells."""
        if len(key) < TYPO_LETTERS or not key.isalpha():
            return None
        near = difflib.get_close_matches(key, [other for other in self._keys if other.isalpha()], n=1, cutoff=TYPO)
        return self._keys[near[0]] if near else None

    @cached_property
    def _keys(self) -> dict[str, int]:
        """Positions by key of name, then of synonyms."""
        keys = {drug_key(drug.name): i for i, drug in enumerate(self.drugs)}
        for i, drug in enumerate(self.drugs):
            for synonym in drug.synonyms:
                keys.setdefault(drug_key(synonym), i)
        return keys
