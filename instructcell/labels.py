"""Cell types: the Cell Ontology, and the labels a checkpoint knows under every name people give them.

Names are compared by a key that forgets case, Greek letters, hyphens, plurals and the word "cell"; ``find`` returns
what carries the name exactly, else what is a typing error away, else nothing. It never guesses between two types.
"""

from __future__ import annotations

import difflib
import json
import re
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any

from instructcell.errors import LabelError
from instructcell.resources import read_table

CL_ID = re.compile(r"CL[:_](\d{7})", re.IGNORECASE)
GREEK = str.maketrans({"α": "alpha", "β": "beta", "γ": "gamma", "δ": "delta", "ε": "epsilon"})
CELL_WORDS = frozenset({"cell", "cel", "cll", "celll"})
SAME_WORDS = {"nkt": "natural killer t", "lymphocyte": "cell", "haematopoietic": "hematopoietic", "tumour": "tumor"}
LEFT_OUT = frozenset({"the", "positive", "thymus", "derived", *CELL_WORDS})
NOT_PLURAL = ("ss", "us", "is", "as", "os")
N_CELLS = re.compile(r"\d+\s+(cells?)?", re.IGNORECASE)  # "20 cells" is a number of cells, "2-cell" an embryo's stage
FUZZY = 0.87  # difflib ratio from which two keys are a typing error apart


def name_words(name: str) -> list[str]:
    """The words of a cell type's name in their plain form.

    >>> name_words("CD8+ T-cells")
    ['cd8', 'positive', 't', 'cell']
    """
    text = unicodedata.normalize("NFKC", name).casefold().translate(GREEK)
    text = re.sub(r"(?<=[a-z0-9])\+", " positive ", text)
    text = re.sub(r"(?<=\d)-(?=[\s/,]|$)", " negative ", text)
    words = re.findall(r"[a-z0-9]+", text)
    words = [
        word[:-1] if len(word) > 3 and word.endswith("s") and not word.endswith(NOT_PLURAL) else word for word in words
    ]
    return " ".join(SAME_WORDS.get(word, word) for word in words).split() if len(words) > 1 else words


def name_key(name: str) -> str:
    """What the names of one cell type share: "CD8+ T cells" and "CD8-positive, alpha-beta T cell" are ``cd8 t``."""
    words = name_words(name)
    if any(re.fullmatch(r"cd\d+", word) for word in words):  # a CD4 or CD8 T cell is meant to be alpha-beta
        words = re.sub(r"\balpha beta\b", "", " ".join(words)).split()
    kept = [word for i, word in enumerate(words) if word not in LEFT_OUT or (i and words[i - 1].isdigit())]
    return " ".join(kept)


def bag_key(key: str) -> str:
    """The words of a key in alphabetic order: "naive B" and "B, naive"."""
    return " ".join(sorted(key.split()))


def close_keys(key: str, keys: Iterable[str]) -> list[tuple[float, str]]:
    """(ratio, key) of the keys a typing error away, best first; letters and numbers that name a type must agree."""
    if len(key) < 4:
        return []
    names = _short_words(key)
    matcher = difflib.SequenceMatcher(b=key)
    found = []
    for other in keys:
        if abs(len(other) - len(key)) > 3 or _short_words(other) != names:
            continue
        matcher.set_seq1(other)
        if matcher.real_quick_ratio() >= FUZZY and matcher.quick_ratio() >= FUZZY and matcher.ratio() >= FUZZY:
            found.append((matcher.ratio(), other))
    return sorted(found, key=lambda pair: (-pair[0], pair[1]))


def _short_words(key: str) -> list[str]:
    """The words of a key that a slip of the finger must not change: "t", "b", "cd8", "16"."""
    return sorted(word for word in key.split() if len(word) < 3 or any(map(str.isdigit, word)))


def cl_id(text: str) -> str | None:
    """``CL:0000169`` for any spelling of a Cell Ontology id, None when the text is not one."""
    match = CL_ID.fullmatch(text.strip())
    return f"CL:{match.group(1)}" if match else None


# ---- the ontology


@dataclass(frozen=True)
class Term:
    """One term of the Cell Ontology; ``distances`` are the steps up to each ancestor."""

    id: str
    name: str
    definition: str
    synonyms: tuple[str, ...]
    distances: Mapping[str, int]


class CellOntology:
    """The Cell Ontology's terms by id and by name.

    Examples
    --------
    >>> ontology = load_ontology()
    >>> ontology.name("CL:0000169")
    'type B pancreatic cell'
    >>> ontology.is_a("CL:0000169", "CL:0000163")
    True
    """

    def __init__(self, terms: Iterable[Term], bench_names: Mapping[str, str] | None = None) -> None:
        """Index the terms.

        Parameters
        ----------
        bench_names
            Further names -> id, as people say them ("beta cell"); they go before the ontology's own synonyms.
        """
        self.terms = {term.id: term for term in terms}
        self.bench_names = dict(bench_names or {})

    def __contains__(self, id: object) -> bool:
        """Whether an id is a term in use."""
        return id in self.terms

    def __len__(self) -> int:
        """How many terms there are."""
        return len(self.terms)

    def term(self, id: str) -> Term:
        """The term of an id.

        Raises
        ------
        LabelError
            If the ontology has no such term.
        """
        found = self.terms.get(cl_id(id) or id)
        if found is None:
            raise LabelError(f"{id!r} is not a term of the Cell Ontology; an id such as CL:0000169 is expected.")
        return found

    def name(self, id: str) -> str:
        """The term's name."""
        return self.term(id).name

    def definition(self, id: str) -> str:
        """The term's definition, "" when the ontology gives none."""
        return self.term(id).definition

    def synonyms(self, id: str) -> tuple[str, ...]:
        """Other names of the term."""
        return self.term(id).synonyms

    def parents(self, id: str) -> set[str]:
        """The ids one step up."""
        return {ancestor for ancestor, steps in self.term(id).distances.items() if steps == 1}

    def ancestors(self, id: str) -> set[str]:
        """All ids above a term, without the term itself."""
        return set(self.term(id).distances)

    def is_a(self, id: str, ancestor: str) -> bool:
        """Whether a term is ``ancestor`` or below it; False for an id the ontology does not have."""
        return id == ancestor or (id in self.terms and ancestor in self.terms[id].distances)

    def distance(self, id: str, ancestor: str) -> int | None:
        """Steps from a term up to ``ancestor`` (0 for itself), None when it is not above."""
        return 0 if id == ancestor else self.terms[id].distances.get(ancestor) if id in self.terms else None

    def find(self, text: str, n: int = 5) -> list[str]:
        """Ids that a text names, best first: id, name, synonym, other word order, and last a typing error.

        Parameters
        ----------
        n
            The most ids to return.
        """
        direct = cl_id(text)
        if direct is not None:
            return [direct] if direct in self.terms else []
        key = name_key(text)
        if not key or N_CELLS.fullmatch(text.strip()):
            return []
        names, synonyms, bags = self._keys
        found = [*names.get(key, ()), *synonyms.get(key, ()), *bags.get(bag_key(key), ())]
        if not found:
            near = [other for _, other in close_keys(key, [*names, *synonyms])]
            found = [id for other in near for id in (*names.get(other, ()), *synonyms.get(other, ()))]
        return list(dict.fromkeys(found))[:n]

    @cached_property
    def _keys(self) -> tuple[dict[str, list[str]], dict[str, list[str]], dict[str, list[str]]]:
        """Ids by the key of their name, by the keys of their synonyms, and by both without word order.

        Of terms that share a key, the one with the fewest words comes first ("T cell" before "alpha-beta T cell").
        """
        names: dict[str, list[str]] = defaultdict(list)
        synonyms: dict[str, list[str]] = defaultdict(list)
        bags: dict[str, list[str]] = defaultdict(list)
        for term in sorted(self.terms.values(), key=lambda term: (len(name_words(term.name)), term.id)):
            key = name_key(term.name)
            names[key].append(term.id)
            bags[bag_key(key)].append(term.id)
        official = [(synonym, term.id) for term in self.terms.values() for synonym in term.synonyms]
        for synonym, id in (*self.bench_names.items(), *official):
            key = name_key(synonym)
            synonyms[key].append(id)
            bags[bag_key(key)].append(id)
        return names, synonyms, bags


def is_narrower(narrow: Label, broad: Label) -> bool:
    """Whether a label is a narrower type of another; a label finer than its ontology term covers nothing but itself."""
    ontology = load_ontology()
    return broad.id != narrow.id and ontology.name(broad.id) == broad.name and ontology.is_a(narrow.id, broad.id)


@lru_cache(maxsize=1)
def load_ontology() -> CellOntology:
    """The shipped Cell Ontology, read once."""
    rows = read_table("ontology.tsv.gz").to_dict("records")
    ids = {row["name"]: row["id"] for row in rows}
    spoken = read_table("label_synonyms.tsv").to_dict("records")
    return CellOntology(
        bench_names={row["synonym"]: ids[row["name"]] for row in spoken if row["name"] in ids},
        terms=(
            Term(
                id=row["id"],
                name=row["name"],
                definition=row["definition"],
                synonyms=tuple(filter(None, row["synonyms"].split(";"))),
                distances=_distances(row["ancestors"]),
            )
            for row in rows
        ),
    )


def _distances(ancestors: str) -> dict[str, int]:
    """Ancestor -> steps, from the table's ``CL:0000163=3;...``."""
    pairs = (pair.partition("=") for pair in ancestors.split(";") if pair)
    return {id: int(steps) for id, _, steps in pairs}


# ---- the labels of a checkpoint


@dataclass(frozen=True)
class Label:
    """One answer a checkpoint can give to "which type is this cell?".

    ``id`` is its Cell Ontology id or ""; several labels may share an id where they are finer than the ontology's term.
    """

    name: str
    id: str = ""
    synonyms: tuple[str, ...] = ()
    tissues: tuple[str, ...] = ()
    species: tuple[str, ...] = ()
    n_training_cells: int = 0
    can_generate: bool = False

    @classmethod
    def of(cls, record: Mapping[str, Any]) -> Label:
        """A label from a record of ``labels.json``.

        Raises
        ------
        LabelError
            If the record has no name or has unknown fields.
        """
        strange = sorted(set(record) - {field.name for field in fields(cls)})
        if strange or not record.get("name"):
            problem = f"unknown fields {', '.join(strange)}" if strange else "no name"
            raise LabelError(f"a label has {problem}; expected {', '.join(field.name for field in fields(cls))}.")
        lists = {key: tuple(record.get(key, ())) for key in ("synonyms", "tissues", "species")}
        return cls(**{**record, **lists})


class LabelSet(Sequence[Label]):
    """The labels of a checkpoint, in the order of its probabilities.

    Examples
    --------
    >>> labels = LabelSet.from_label_map(["pancreas_baron_human_donors234"])
    >>> labels.find("β-cells").name
    'type B pancreatic cell'
    """

    def __init__(self, labels: Iterable[Label | Mapping[str, Any]]) -> None:
        """Keep the labels in their order.

        Raises
        ------
        LabelError
            If a name occurs twice.
        """
        self.labels = tuple(label if isinstance(label, Label) else Label.of(label) for label in labels)
        twice = [name for name, times in Counter(self.names).items() if times > 1]
        if twice:
            raise LabelError(f"label names must differ, found twice: {', '.join(twice)}.")

    def __len__(self) -> int:
        """How many labels there are."""
        return len(self.labels)

    def __iter__(self) -> Iterator[Label]:
        """The labels in order."""
        return iter(self.labels)

    def __getitem__(self, index: int) -> Label:  # type: ignore[override]
        """The label at a position."""
        return self.labels[index]

    def __repr__(self) -> str:
        """A short form for sessions."""
        return f"LabelSet({len(self)} labels)"

    @property
    def names(self) -> list[str]:
        """The labels' names in order."""
        return [label.name for label in self.labels]

    def index(self, name: Any, *bounds: int) -> int:  # noqa: ANN401  (a label or its name)
        """Position of a label, given itself or its name."""
        return self.names.index(name, *bounds) if isinstance(name, str) else self.labels.index(name, *bounds)

    def find(self, text: str) -> Label | None:
        """The label a text names, None when it names none.

        Tried in this order: Cell Ontology id, name, synonym, the same words in another order, and last a typing error.
        An id that several finer labels share finds the one that bears the term's name, else nothing.
        """
        direct = cl_id(text)
        if direct is not None:
            return self._with_id(direct)
        if text in self._exact:
            return self.labels[self._exact[text]]
        key = name_key(text)
        if not key or N_CELLS.fullmatch(text.strip()) or (len(key) == 1 and key == text.strip()):
            return None  # a lone small letter is no cell type
        keys, bags = self._keys
        position = keys.get(key, bags.get(bag_key(key)))
        if position is None:
            near = close_keys(key, keys)
            best = {keys[other] for ratio, other in near if ratio == near[0][0]}
            position = best.pop() if len(best) == 1 else None
        return None if position is None else self.labels[position]

    def close_to(self, text: str, n: int = 5) -> list[str]:
        """Names of the labels nearest to a text, for a message: related in the ontology, then alike in letters."""
        found: list[str] = []
        exact = self.find(text)
        if exact is not None:
            found.append(exact.name)
        ontology = load_ontology()
        for id in ontology.find(text, 1):
            related = [(self._steps(label, id), i) for i, label in enumerate(self.labels)]
            found += [self.labels[i].name for steps, i in sorted(pair for pair in related if pair[0] is not None)]
        key = name_key(text)
        likeness = dict.fromkeys(range(len(self)), 0.0)
        for other, i in self._keys[0].items():
            shared = len(set(key.split()) & set(other.split()))
            likeness[i] = max(likeness[i], difflib.SequenceMatcher(None, key, other).ratio() + 0.3 * shared)
        found += [self.labels[i].name for i in sorted(likeness, key=lambda i: (-likeness[i], i)) if likeness[i] >= 0.5]
        return list(dict.fromkeys(found))[:n]

    def project(self, user_labels: Sequence[str]) -> list[tuple[str, list[int]]]:
        """Which of our labels are summed into each of the user's.

        A user's label takes the labels that it names and those below it in the Cell Ontology. A label that falls under
        several of the user's goes to the nearest one, so that no probability is counted twice. An empty list means that
        nothing of ours falls under it.

        Examples
        --------
        >>> labels = LabelSet.from_label_map(["pbmc_kang_ifnb_donor101"])
        >>> [(name, [labels[i].name for i in rows]) for name, rows in labels.project(["T cell", "monocyte"])]
        [('T cell', ['CD4-positive, alpha-beta T cell', 'CD8-positive, alpha-beta T cell']), \
('monocyte', ['CD14-positive monocyte', 'CD14-low, CD16-positive monocyte'])]
        """
        meanings = [self._meanings(text) for text in user_labels]
        taken: list[list[int]] = [[] for _ in user_labels]
        for position, label in enumerate(self.labels):
            distances = [(_distance(label, meant), i) for i, several in enumerate(meanings) for meant in several]
            reached = [(steps, i) for steps, i in distances if steps is not None]
            if reached:
                taken[min(reached)[1]].append(position)
        return list(zip(user_labels, taken, strict=True))

    @classmethod
    def from_label_map(cls, files: Sequence[str] | None = None) -> LabelSet:
        """The labels of the shipped label map, with every name the data sets, the bench and the ontology use.

        Parameters
        ----------
        files
            Names in the map's ``file`` column; all of them when None.

        Raises
        ------
        LabelError
            If the map does not have one of the files.
        """
        rows = read_table("label_map.tsv").to_dict("records")
        strange = sorted(set(files or ()) - {row["file"] for row in rows})
        if strange:
            raise LabelError(f"the label map has no file called {', '.join(strange)}.")
        ids = {row["name"]: row["id"] for row in rows if files is None or row["file"] in files}
        given: dict[str, list[str]] = defaultdict(list)
        for row in read_table("label_synonyms.tsv").to_dict("records"):
            given[row["name"]].append(row["synonym"])
        for row in rows:
            given[row["name"]].append(row["dataset_label"])
        ontology = load_ontology()
        for name, id in ids.items():
            if id in ontology and ontology.name(id) == name:
                given[name] += ontology.synonyms(id)
        return cls(
            Label(name, id, tuple(other for other in dict.fromkeys(given[name]) if other != name))
            for name, id in ids.items()
        )

    @classmethod
    def from_json(cls, path: str | Path) -> LabelSet:
        """Read ``labels.json`` of a checkpoint.

        Raises
        ------
        LabelError
            If the file is not a list of labels.
        """
        try:
            records = json.loads(Path(path).read_text(encoding="utf-8"))
        except json.JSONDecodeError as error:
            raise LabelError(f"{path} is not JSON ({error}); a list of labels is expected.") from error
        if not isinstance(records, list):
            raise LabelError(f"{path} holds a {type(records).__name__}; a list of labels is expected.")
        return cls(records)

    def to_json(self, path: str | Path) -> None:
        """Write ``labels.json``."""
        text = json.dumps(self.to_records(), indent=1, ensure_ascii=False)
        Path(path).write_text(text + "\n", encoding="utf-8")

    def to_records(self) -> list[dict[str, Any]]:
        """The labels as plain dicts, as in ``labels.json``."""
        return [
            {key: list(value) if isinstance(value, tuple) else value for key, value in asdict(label).items()}
            for label in self
        ]

    def _with_id(self, id: str) -> Label | None:
        """The label that stands for a Cell Ontology id."""
        bearers = [label for label in self.labels if label.id == id]
        if len(bearers) == 1:
            return bearers[0]
        ontology = load_ontology()
        return next((label for label in bearers if id in ontology and label.name == ontology.name(id)), None)

    def _meanings(self, text: str) -> list[Label]:
        """What a user's label means: a label of ours, else a term of the ontology, else our labels with its words."""
        ours = self.find(text)
        if ours is not None:
            return [ours]
        ontology = load_ontology()
        terms = [Label(ontology.name(id), id) for id in ontology.find(text, 1)]
        words = set(name_key(text).split())
        return terms or [label for label in self.labels if words and words <= set(name_key(label.name).split())]

    def _steps(self, label: Label, id: str) -> int | None:
        """Steps between a label and a term, one above the other; None when they are not."""
        ontology = load_ontology()
        down = ontology.distance(label.id, id)
        return ontology.distance(id, label.id) if down is None else down

    @cached_property
    def _exact(self) -> dict[str, int]:
        """Positions by name and by synonym as written; names before synonyms."""
        found = {label.name: i for i, label in enumerate(self.labels)}
        for i, label in enumerate(self.labels):
            for synonym in label.synonyms:
                found.setdefault(synonym, i)
        return found

    @cached_property
    def _keys(self) -> tuple[dict[str, int], dict[str, int]]:
        """Positions by key, and by key without word order; names before synonyms, then in the order of the set."""
        keys: dict[str, int] = {}
        for name, i in self._exact.items():
            keys.setdefault(name_key(name), i)
        keys.pop("", None)
        bags: dict[str, int] = {}
        for key, i in keys.items():
            bags.setdefault(bag_key(key), i)
        return keys, bags


def _distance(label: Label, meaning: Label) -> int | None:
    """How far ``label`` lies below what a user's label means: 0 the same, None not below it."""
    if label.name == meaning.name:
        return 0
    ontology = load_ontology()
    if not meaning.id or meaning.id not in ontology or ontology.name(meaning.id) != meaning.name:
        return None  # a finer label stands for itself alone, not for its whole term
    steps = ontology.distance(label.id, meaning.id)
    return None if steps is None else steps + 1
