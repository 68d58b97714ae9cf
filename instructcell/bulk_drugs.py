"""The drugs of the cell-line screens (GDSC): names, what is known of each, and which of them a new drug resembles."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from functools import cached_property
from typing import Any

import numpy as np
import scipy.sparse as sp

from instructcell.drugs import ANALOGUES, TYPO, drug_key
from instructcell.errors import DrugError

LEAST_SPEARMAN = 0.2  # on held-out lines; a drug that was predicted worse is not answered
LEAST_SIMILARITY = 0.15  # 0..1 of the nearest screened drug, below which a drug outside the screen is not answered
NEAR_NAME = 0.7  # difflib ratio from which a name is asked back
GRAMS = (1, 2, 3, 4)  # lengths of the pieces of a SMILES string that are compared
COMMON_TARGET = re.compile(r"[A-Za-z][\w-]+")
PLAIN_WORDS = frozenset("and or of the inhibitor inhibitors agonist antagonist target targets kinase receptor".split())


@dataclass(frozen=True)
class ScreenedDrug:
    """One drug of the screens, or a new one described by its structure or target.

    Attributes
    ----------
    n_lines
        Cell lines on which it was measured; 0: none, the prediction is an extrapolation from drugs that resemble it.
    spearman, spearman_tissue
        Rank correlation of predicted with measured sensitivity on held-out lines, and on lines of held-out tissues;
        for a new drug the median over screened drugs that were left out and resembled others as much.
    residual
        Standard deviation of (measured - predicted) on held-out lines, in standard deviations of the measured.
    neighbours, any_drug_spearman
        Of a new drug: the screened drugs it resembles most, and the Spearman of knowing nothing of the drug.
    """

    name: str
    synonyms: tuple[str, ...] = ()
    target: str = ""
    smiles: str = ""
    n_lines: int = 0
    spearman: float = 0.0
    spearman_tissue: float = 0.0
    residual: float = 1.0
    neighbours: tuple[str, ...] = ()
    any_drug_spearman: float = 0.0

    @classmethod
    def of(cls, record: Mapping[str, Any]) -> ScreenedDrug:
        """A drug from a record of the weights file."""
        known = {name.name for name in fields(cls)}
        values: dict[str, Any] = {
            key: tuple(value) if isinstance(value, list) else value for key, value in record.items()
        }
        return cls(**{key: value for key, value in values.items() if key in known})

    @property
    def screened(self) -> bool:
        """Whether it was measured on cell lines."""
        return self.n_lines > 0

    @property
    def reliable(self) -> bool:
        """Whether it was predicted well enough on held-out lines to be answered."""
        return self.spearman >= LEAST_SPEARMAN

    @property
    def held_out_words(self) -> str:
        """How well the drug was predicted where it could be checked, as a phrase."""
        figure = f"Spearman {self.spearman:.2f}"
        if self.screened:
            tissues = f", {self.spearman_tissue:.2f} on lines of tissues left out" if self.spearman_tissue else ""
            return f"{figure} on cell lines left out ({self.n_lines} lines measured){tissues}"
        near = ", ".join(self.neighbours)
        return (
            f"never screened: extrapolated from all drugs, most from {near}; screened drugs left out in the same "
            f"way reach {figure} on cell lines left out, knowing nothing of the drug {self.any_drug_spearman:.2f}"
        )

    def to_record(self) -> dict[str, Any]:
        """The drug as the weights file holds it."""
        return {key: value for key, value in asdict(self).items() if value not in ("", (), 0)}


class ScreenedDrugs(Sequence[ScreenedDrug]):
    """The drugs of the screens, found under any of their names but never under a name that is only near.

    Examples
    --------
    >>> drugs = ScreenedDrugs([ScreenedDrug("Erlotinib", ("Tarceva",)), ScreenedDrug("Afatinib")])
    >>> drugs.find("tarceva")
    0
    >>> drugs.find("apatinib") is None
    True
    >>> drugs.close_to("apatinib")
    ['Afatinib']
    """

    def __init__(self, drugs: Iterable[ScreenedDrug]) -> None:
        self.drugs = tuple(drugs)

    def __len__(self) -> int:
        """How many drugs there are."""
        return len(self.drugs)

    def __getitem__(self, index: int) -> ScreenedDrug:  # type: ignore[override]
        """The drug at a position."""
        return self.drugs[index]

    @property
    def names(self) -> list[str]:
        """The drugs' names in order."""
        return [drug.name for drug in self.drugs]

    def find(self, text: str) -> int | None:
        """Position of the drug a text names; case, spaces and signs do not matter, letters do."""
        return self._keys.get(drug_key(text))

    def close_to(self, text: str, n: int = 3) -> list[str]:
        """Names of the drugs, at most `n`, one of whose names is written most like a text."""
        key, ratios = drug_key(text), dict.fromkeys(range(len(self)), 0.0)
        for other, i in self._keys.items():
            matcher = difflib.SequenceMatcher(None, key, other)
            if matcher.real_quick_ratio() >= NEAR_NAME and matcher.quick_ratio() >= NEAR_NAME:
                ratios[i] = max(ratios[i], matcher.ratio())
        best = sorted((i for i in ratios if ratios[i] >= NEAR_NAME), key=lambda i: (-ratios[i], i))
        return [self.drugs[i].name for i in best[:n]]

    def misspelt(self, text: str) -> ScreenedDrug | None:
        """The one drug whose own name a text nearly is; None if it is none, or as near to two."""
        key = drug_key(text)
        near = difflib.get_close_matches(key, [drug_key(drug.name) for drug in self], n=2, cutoff=TYPO)
        return self.drugs[self._keys[near[0]]] if len(near) == 1 else None

    def refusal(self, text: str) -> str:
        """Why a name that is not known is not answered, with the nearest names asked back."""
        near = self.close_to(text)
        asked = f" Did you mean {' or '.join(near)}? Ask again with that name." if near else ""
        return (
            f"'{text}' is none of the {len(self):,} drugs that were screened on cell lines (GDSC).{asked} A drug "
            "outside the screens can be described by its structure or target (smiles, target)."
        )

    def get(self, text: str) -> int:
        """Like `find`; a DrugError that asks the nearest names back if the text is none."""
        position = self.find(text)
        if position is None:
            raise DrugError(self.refusal(text))
        return position

    @cached_property
    def _keys(self) -> dict[str, int]:
        """Positions by key of name, then of synonyms; a near analogue is no synonym."""
        analogues = {drug_key(name) for names in ANALOGUES.values() for name in names}
        keys = {drug_key(drug.name): i for i, drug in enumerate(self.drugs)}
        for i, drug in enumerate(self.drugs):
            for synonym in drug.synonyms:
                if (key := drug_key(synonym)) not in analogues:
                    keys.setdefault(key, i)
        return keys


# ---- drugs that resemble one another


def smiles_pieces(smiles: str) -> frozenset[str]:
    """The pieces of a SMILES string that are compared: runs of 1 to 4 characters, the largest fragment only."""
    fragment = max(smiles.split("."), key=len)
    return frozenset(fragment[i : i + n] for n in GRAMS for i in range(len(fragment) - n + 1))


def target_words(target: str) -> frozenset[str]:
    """The words of a target that are compared: "EGFR inhibitor" and "EGFR, ERBB2" share one."""
    return frozenset(word.upper() for word in COMMON_TARGET.findall(target)) - {word.upper() for word in PLAIN_WORDS}


def similarity(left: Sequence[ScreenedDrug], right: Sequence[ScreenedDrug]) -> np.ndarray:
    """How much drugs resemble one another, 0..1 [L, R]: half from the structures, half from the targets.

    Structures count by the square of the Tanimoto similarity of their SMILES pieces, since all share some; targets by
    the overlap of their words. What is not known of a drug resembles nothing.
    """
    structure = _tanimoto([smiles_pieces(drug.smiles) for drug in left], [smiles_pieces(drug.smiles) for drug in right])
    target = _tanimoto([target_words(drug.target) for drug in left], [target_words(drug.target) for drug in right])
    return 0.5 * structure**2 + 0.5 * target


def _tanimoto(left: list[frozenset[str]], right: list[frozenset[str]]) -> np.ndarray:
    """Shared over all pieces [L, R]."""
    vocabulary = {piece: i for i, piece in enumerate(sorted({piece for pieces in (*left, *right) for piece in pieces}))}
    a, b = (_incidence(pieces, vocabulary) for pieces in (left, right))
    shared = np.asarray((a @ b.T).todense(), dtype=float)
    sizes = [np.asarray(matrix.sum(axis=1), dtype=float).ravel() for matrix in (a, b)]
    union = sizes[0][:, None] + sizes[1][None, :] - shared
    return shared / np.where(union > 0, union, 1.0)


def _incidence(sets: list[frozenset[str]], vocabulary: Mapping[str, int]) -> sp.csr_matrix:
    columns = [vocabulary[piece] for pieces in sets for piece in sorted(pieces)]
    starts = np.concatenate([[0], np.cumsum([len(pieces) for pieces in sets])])
    return sp.csr_matrix((np.ones(len(columns)), columns, starts), shape=(len(sets), max(len(vocabulary), 1)))
