"""Back-off: the narrowest type that is sure, a label or a Cell Ontology term above several labels.

"T cell" at 0.97 says more than "CD4-positive memory T cell" at 0.41.
"""

from __future__ import annotations

import numpy as np
import torch

from instructcell.labels import LabelSet, load_ontology

SURE_ABOVE = 0.9  # calibrated probability from which on a type is sure, where calibration.json has no other
MOST_WORDS = 3  # of a term's name; longer ones are not how cells are called
# Terms that group cells by one property, not by kind: no answer to "which type is this cell?"
GROUPING_TERMS = frozenset(
    {
        "CL:0000000",  # cell
        "CL:0000255",  # eukaryotic cell
        "CL:0002242",  # nucleate cell
        "CL:0000226",  # single nucleate cell
        "CL:0000219",  # motile cell
        "CL:0000151",  # secretory cell
        "CL:1100001",  # secretory epithelial cell
        "CL:0000167",  # peptide hormone secreting cell
        "CL:0000154",  # protein secreting cell
        "CL:0000325",  # stuff accumulating cell
        "CL:0011115",  # precursor cell
        "CL:0011026",  # progenitor cell
        "CL:0002319",  # neural cell (the ontology puts the pancreatic D cell here)
        "CL:0002076",  # endo-epithelial cell
        "CL:0001061",  # abnormal cell
        "CL:0001063",  # neoplastic cell
        "CL:0000164",  # enteroendocrine cell (the ontology puts islet cells here)
    }
)


class BroaderTypes:
    """The labels of a checkpoint and the terms above several of them, the narrowest first.

    Attributes
    ----------
    names, ids
        Of the A types.
    members
        [A, L] bool: the labels that each type covers.

    Examples
    --------
    >>> types = BroaderTypes(LabelSet([{"name": "naive B cell", "id": "CL:0000788"}, {"name": "T cell"}]))
    >>> types.names
    ['naive B cell', 'T cell']
    """

    def __init__(self, labels: LabelSet) -> None:
        above = [_terms_of(label.name, label.id) for label in labels]  # narrower labels name their broader ones here
        own = {(label.id if _is_term(label.name, label.id) else f"#{i}"): i for i, label in enumerate(labels)}
        covered: dict[str, set[int]] = {key: {i} for key, i in own.items()}
        for i, terms in enumerate(above):
            for term in terms:
                covered.setdefault(term, set()).add(i)
        chosen = _distinct({key: those for key, those in covered.items() if key in own or _is_broad(key, those)}, own)
        ontology = load_ontology()
        self.names = [labels[own[key]].name if key in own else ontology.name(key) for key in chosen]
        self.ids = [labels[own[key]].id if key in own else key for key in chosen]
        self.members = np.zeros((len(chosen), len(labels)), bool)
        for row, key in enumerate(chosen):
            self.members[row, sorted(covered[key])] = True

    def narrowest(self, probabilities: np.ndarray, above: float) -> tuple[np.ndarray, np.ndarray]:
        """Position of the narrowest type that is at least `above` likely, and its probability.

        probabilities [N, L] -> positions [N] int32 (-1: no type is), probabilities [N] (0 there)
        """
        members = torch.from_numpy(self.members).double()
        chances = (torch.from_numpy(probabilities.astype(np.float64)) @ members.T).numpy()  # [N, A]
        sure = chances >= above
        first = sure.argmax(axis=1)
        found = sure.any(axis=1)
        confidence = np.where(found, np.minimum(chances[np.arange(len(first)), first], 1.0), 0.0)
        return np.where(found, first, -1).astype(np.int32), confidence


def _is_term(name: str, id_: str) -> bool:
    """Whether a label is the ontology's term itself, not finer than it."""
    ontology = load_ontology()
    return id_ in ontology and ontology.name(id_) == name


def _terms_of(name: str, id_: str) -> set[str]:
    """The terms above a label; a label finer than its term lies below that too."""
    ontology = load_ontology()
    if id_ not in ontology:
        return set()
    return ontology.ancestors(id_) | (set() if _is_term(name, id_) else {id_})


def _is_broad(term: str, covered: set[int]) -> bool:
    """Whether a term covers several labels and is a kind of cell in common words."""
    ontology = load_ontology()
    if len(covered) < 2 or term in GROUPING_TERMS or term not in ontology:
        return False
    name = ontology.name(term)
    return "," not in name and not name.startswith("mature ") and len(name.split()) <= MOST_WORDS


def _distinct(covered: dict[str, set[int]], own: dict[str, int]) -> list[str]:
    """One type per set of labels, the narrowest first: a label before a term, then the term with most above it."""
    ontology = load_ontology()

    def depth(key: str) -> int:
        return len(ontology.ancestors(key)) if key in ontology else 0

    order = sorted(covered, key=lambda key: (len(covered[key]), key not in own, own.get(key, 0), -depth(key), key))
    seen: set[frozenset[int]] = set()
    chosen = []
    for key in order:
        those = frozenset(covered[key])
        if those not in seen or key in own:
            seen.add(those)
            chosen.append(key)
    return chosen
