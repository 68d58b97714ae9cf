"""Turn what a data set knows about its cells into requests and answers.

A `CellRecord` holds the facts of one example (label, species, tissue, ...). `instruction` decides what the request
mentions of them, lists options, doubts the label or misleads about the tissue now and then, and lets `train.templates`
render it.
"""

from __future__ import annotations

import csv
import gzip
import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import lru_cache
from random import Random

from instructcell.drugs import KNOWN_DRUGS
from instructcell.resources import resource_path
from train.phrasings import TASKS, Task
from train.templates import CANONICAL_SHARE, CELLS, NOISE, SIGNAL, RenderContext, Rendered, render

RESPONSES = ("sensitive", "resistant")
N_MARKERS = 8
MAX_OPTIONS = 8
HEMATOPOIETIC_CELL, ENDOTHELIAL_CELL = "CL:0000988", "CL:0000115"

# Drugs of the measured sets with the names people use for them; phrasings speak of "an EGFR inhibitor", of one gene.
DRUG_NAMES = {drug.name: (drug.name, *drug.synonyms) for drug in KNOWN_DRUGS}
DRUG_TARGETS = {drug.name: re.split(r"\W", drug.target)[0] for drug in KNOWN_DRUGS if not drug.name.startswith("anti-")}

# Labels that may both fit a cell although the ontology derives neither from the other.
OVERLAPPING = (
    ("regulatory T cell", "CD4-positive, alpha-beta T cell"),
    ("regulatory T cell", "CD4-positive helper T cell"),
    ("regulatory T cell", "CD4-positive, alpha-beta memory T cell"),
    ("CD4-positive helper T cell", "CD4-positive, alpha-beta memory T cell"),
    ("effector memory CD8-positive, alpha-beta T cell", "CD8-positive, alpha-beta cytotoxic T cell"),
    ("naive T cell", "CD4-positive, alpha-beta T cell"),
    ("naive T cell", "CD8-positive, alpha-beta T cell"),
    ("myeloid cell", "dendritic cell"),
    ("plasma cell", "B cell"),
)


@dataclass(frozen=True)
class CellRecord:
    """The facts of one example; "" is unknown.

    `label` is a name of the label set, `response` "sensitive" or "resistant" (to `drug`), `markers` the genes a text
    question about the label is answered with (the catalog's when empty), best first.
    """

    label: str = ""
    species: str = ""
    tissue: str = ""
    technology: str = ""
    condition: str = ""
    drug: str = ""
    response: str = ""
    markers: tuple[str, ...] = ()


@dataclass(frozen=True)
class InstructionSettings:
    """How often a request mentions what is known, and how rough it is; all are probabilities."""

    species: float = 0.6
    tissue: float = 0.5
    technology: float = 0.15
    options: float = 0.15
    guess: float = 0.05
    contradiction: float = 0.02
    target: float = 0.2
    canonical: float = CANONICAL_SHARE
    noise: float = NOISE

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            if not 0 <= value <= 1:
                raise ValueError(f"{name} must be a probability, got {value}")


@dataclass(frozen=True)
class Catalog:
    """What is known about the labels as such.

    `names` are the names of each label, the canonical one first; `neighbours` the labels found in the same data sets;
    `relatives` the broader and narrower labels, which are never offered as an alternative; `tissues` where a label
    was seen; `widespread` the labels that may turn up in any tissue; `markers` their genes, best first.
    """

    names: Mapping[str, tuple[str, ...]]
    neighbours: Mapping[str, frozenset[str]] = field(default_factory=dict)
    relatives: Mapping[str, frozenset[str]] = field(default_factory=dict)
    tissues: Mapping[str, frozenset[str]] = field(default_factory=dict)
    widespread: frozenset[str] = frozenset()
    markers: Mapping[str, tuple[str, ...]] = field(default_factory=dict)

    @property
    def labels(self) -> tuple[str, ...]:
        return tuple(self.names)

    def named(self, label: str) -> tuple[str, ...]:
        """Every name of a label; a label that is not in the catalog has its own."""
        return self.names.get(label, (label,))

    def others(self, label: str) -> list[str]:
        """Labels that cannot be meant when `label` is right."""
        kin = self.relatives.get(label, frozenset())
        return [other for other in self.names if other != label and other not in kin]


# ------------------------------------------------------------------------------------------------ instructions


def instruction(
    task: Task,
    record: CellRecord,
    rng: Random,
    *,
    catalog: Catalog,
    settings: InstructionSettings | None = None,
    n_cells: int = 1,
    n_signals: int = 1,
    held_out: bool = False,
) -> Rendered:
    """Render a request about a record and its answer.

    Parameters
    ----------
    task : {"annotation", "generation", "drug", "markers"}
    record : CellRecord
        The facts; "annotation", "generation" and "markers" need `label`, "drug" needs `drug` and `response`.
    rng : random.Random
    catalog : Catalog
        Names, neighbours and relatives of the labels.
    settings : InstructionSettings, optional
    n_cells, n_signals : int
        Cells the prompt holds; pseudo-cells the answer holds.
    held_out : bool
        Use only phrasings that training never sees.

    Returns
    -------
    Rendered
        `prompt` with one `{cells}` for all cells (none for generation and markers), `answer` with `n_signals`
        times `{signal}` for generation.

    Raises
    ------
    ValueError
        When the record lacks what the task needs.

    Examples
    --------
    >>> record = CellRecord(label="B cell", species="human", tissue="PBMC")
    >>> instruction("annotation", record, Random(3), catalog=Catalog({"B cell": ("B cell",)})).prompt
    'human PBMC | annotate: {cells}'
    """
    settings = settings or InstructionSettings()
    context = _mention(record, rng, settings)
    if task == "annotation":
        context = _annotation(replace(context, label=record.label, n_cells=n_cells), record, rng, catalog, settings)
    elif task == "drug":
        context = _drug(replace(context, n_cells=n_cells), record, rng, settings)
    elif task == "generation":
        names = catalog.named(record.label) if record.label else ()
        context = replace(context, label=record.label, cell_type=names, condition=record.condition, n_signals=n_signals)
    else:
        markers = record.markers or catalog.markers.get(record.label, ())
        names = catalog.named(record.label) if record.label else ()
        context = replace(context, label=record.label, cell_type=names, technology="", markers=markers)
    return render(task, context, rng, held_out=held_out, noise=settings.noise, canonical_share=settings.canonical)


def _mention(record: CellRecord, rng: Random, settings: InstructionSettings) -> RenderContext:
    """The facts about the sample that this request mentions."""
    return RenderContext(
        species=record.species if rng.random() < settings.species else "",
        tissue=record.tissue if rng.random() < settings.tissue else "",
        technology=record.technology if rng.random() < settings.technology else "",
    )


def _annotation(
    context: RenderContext, record: CellRecord, rng: Random, catalog: Catalog, settings: InstructionSettings
) -> RenderContext:
    """List options, guess at a label or mislead about the tissue, at most one of the three."""
    chance = rng.random()
    if chance < settings.options:
        options, answer = _options(record.label, rng, catalog)
        return replace(context, options=options, label=answer)
    chance -= settings.options
    if 0 <= chance < settings.guess:
        right = rng.random() < 0.5
        others = catalog.others(record.label)
        guessed = record.label if right or not others else rng.choice(others)
        return replace(context, guess=rng.choice(catalog.named(guessed)), guess_right=guessed == record.label)
    chance -= settings.guess
    if 0 <= chance < settings.contradiction and (wrong := _wrong_tissues(record.label, catalog)):
        return replace(context, tissue=rng.choice(wrong), technology="", contradicted=True)
    return context


def _drug(context: RenderContext, record: CellRecord, rng: Random, settings: InstructionSettings) -> RenderContext:
    if record.drug and record.response not in RESPONSES:
        raise ValueError(f"a drug response is {' or '.join(RESPONSES)}, got {record.response!r}")
    return replace(
        context,
        drug=record.drug,
        drug_names=DRUG_NAMES.get(record.drug, (record.drug,)),
        drug_target=DRUG_TARGETS.get(record.drug, "") if rng.random() < settings.target else "",
        response=record.response,
        options=tuple(rng.sample(RESPONSES, 2)) if rng.random() < settings.options else (),
    )


def _options(label: str, rng: Random, catalog: Catalog) -> tuple[tuple[str, ...], str]:
    """The label among others in any order, and how the list calls it: all canonically, or each by any of its names."""
    others = catalog.others(label)
    near = [other for other in others if other in catalog.neighbours.get(label, frozenset())]
    pool = near if near and rng.random() < 0.6 else others
    chosen = [label, *rng.sample(pool, min(len(pool), rng.randint(1, MAX_OPTIONS - 1)))]
    plain = rng.random() < 0.5
    listed = {name: name if plain else rng.choice(catalog.named(name)) for name in chosen}
    rng.shuffle(chosen)
    return tuple(listed[name] for name in chosen), listed[label]


def _wrong_tissues(label: str, catalog: Catalog) -> list[str]:
    """Tissues that a cell of this label is not from; none for types that occur everywhere."""
    own = catalog.tissues.get(label, frozenset())
    if not own or label in catalog.widespread:
        return []
    systems = {_system(tissue) for tissue in own}
    everywhere = {tissue for tissues in catalog.tissues.values() for tissue in tissues}
    return sorted(tissue for tissue in everywhere if _system(tissue) not in systems)


def _system(tissue: str) -> str:
    """The organ a tissue name speaks of, so that an embryonic pancreas does not contradict an islet."""
    for organ, words in (
        ("pancreas", ("pancrea", "islet")),
        ("blood", ("PBMC", "blood")),
        ("lung", ("lung",)),
        ("skin", ("melanoma",)),
        ("breast", ("breast",)),
        ("embryo", ("embryo", "zygote")),
    ):
        if any(word in tissue for word in words):
            return organ
    return tissue


# ----------------------------------------------------------------------------------------------------- catalog


@lru_cache(maxsize=1)
def _default_catalog() -> Catalog:
    synonyms = _read_synonyms()
    rows = _read("label_map.tsv")
    names: dict[str, dict[str, None]] = {}
    ids: dict[str, str] = {}
    files: dict[str, set[str]] = defaultdict(set)
    for row in rows:
        label = row["name"]
        ids[label] = row["id"]
        files[row["file"]].add(label)
        names.setdefault(label, dict.fromkeys((label, *synonyms.get(label, ()))))[row["dataset_label"]] = None
    neighbours = {label: frozenset().union(*(found for found in files.values() if label in found)) for label in names}
    ancestors, terms = _read_ontology(set(ids.values()))
    finer = {label for label, cl_id in ids.items() if terms.get(cl_id) != label}
    return Catalog(
        names=_unambiguous(names),
        neighbours=neighbours,
        relatives={label: _relatives(label, ids, ancestors, finer) for label in ids},
        widespread=frozenset(
            label for label, cl_id in ids.items() if {HEMATOPOIETIC_CELL, ENDOTHELIAL_CELL} & {cl_id, *ancestors[cl_id]}
        ),
        markers=_read_markers({cl_id: label for label, cl_id in ids.items() if label not in finer}),
    )


def load_catalog(tissues: Mapping[str, Iterable[str]] | None = None, labels: Iterable[str] | None = None) -> Catalog:
    """Read the catalog of the training labels from the shipped resources.

    Parameters
    ----------
    tissues : mapping of label to tissues, optional
        Where each label was seen in training; without it no request misleads about the tissue.
    labels : iterable of str, optional
        Keep these labels only (those of a recipe).
    """
    catalog = _default_catalog()
    kept = set(catalog.names if labels is None else labels)
    return replace(
        catalog,
        names={label: names for label, names in catalog.names.items() if label in kept},
        tissues={label: frozenset(found) for label, found in (tissues or {}).items() if label in kept},
    )


def _unambiguous(names: Mapping[str, Iterable[str]]) -> dict[str, tuple[str, ...]]:
    """Drop names that two labels share, in any case; a label keeps its own name."""
    owners: dict[str, set[str]] = defaultdict(set)
    for label, known in names.items():
        for name in known:
            owners[name.casefold()].add(label)
    return {
        label: tuple(name for name in known if name == label or len(owners[name.casefold()]) == 1)
        for label, known in names.items()
    }


def _relatives(
    label: str, ids: Mapping[str, str], ancestors: Mapping[str, frozenset[str]], finer: set[str]
) -> frozenset[str]:
    """Broader, narrower and overlapping labels; labels finer than their common term are siblings, not relatives."""
    own = ids[label]
    found = {other for pair in OVERLAPPING if label in pair for other in pair}
    for other, cl_id in ids.items():
        broader = cl_id in ancestors[own] and other not in finer
        narrower = own in ancestors[cl_id] and label not in finer
        same = cl_id == own and not (label in finer and other in finer)
        if broader or narrower or same:
            found.add(other)
    return frozenset(found - {label})


def _read(name: str) -> list[dict[str, str]]:
    content = resource_path(name).read_bytes()
    text = (gzip.decompress(content) if name.endswith(".gz") else content).decode("utf-8")
    return list(csv.DictReader(text.splitlines(), delimiter="\t", quoting=csv.QUOTE_NONE))


def _read_synonyms() -> dict[str, list[str]]:
    synonyms: dict[str, list[str]] = defaultdict(list)
    for row in _read("label_synonyms.tsv"):
        synonyms[row["name"]].append(row["synonym"])
    return synonyms


def _read_ontology(ids: set[str]) -> tuple[dict[str, frozenset[str]], dict[str, str]]:
    """Ancestors and names of Cell Ontology terms; `ancestors` is written "id=distance;id=distance"."""
    ancestors = dict.fromkeys(ids, frozenset[str]())
    terms = {}
    for row in _read("ontology.tsv.gz"):
        if row["id"] in ids:
            ancestors[row["id"]] = frozenset(part.split("=")[0] for part in row["ancestors"].split(";") if part)
            terms[row["id"]] = row["name"]
    return ancestors, terms


def _read_markers(labels: Mapping[str, str]) -> dict[str, tuple[str, ...]]:
    """The best genes of each label by id, as the marker table ranks them."""
    genes: dict[str, list[str]] = defaultdict(list)
    for row in _read("markers.tsv.gz"):
        label = labels.get(row["cl_id"])
        if label is not None and len(genes[label]) < N_MARKERS:
            genes[label].append(row["gene"])
    return {label: tuple(found) for label, found in genes.items()}


# ------------------------------------------------------------------------------------------------------ corpus

SAMPLES = (
    ("human", "pancreatic islet", "inDrop"),
    ("mouse", "pancreatic islet", "inDrop"),
    ("human", "pancreatic islet", "celseq2"),
    ("mouse", "embryonic pancreas E15.5", "10x 3p v2"),
    ("human", "PBMC", "10x 3p v1"),
    ("human", "PBMC (lupus patients)", "10x 5p"),
    ("human", "breast tumour", ""),
    ("mouse", "lung (healthy / tumour)", "inDrop"),
    ("human", "preimplantation embryo", ""),
    ("human", "melanoma tumour (CD45+)", "Smart-seq2"),
    ("human", "melanoma cell line", ""),
    ("human", "lung adenocarcinoma cell line", "CEL-seq2"),
)


def corpus(n: int, seed: int, *, catalog: Catalog | None = None) -> Iterator[tuple[str, str]]:
    """Yield `n` prompts and answers of all tasks, without the places of cells and signals, to train a tokenizer on.

    Labels and samples are combined at random: what matters is that every name and every word occurs.
    """
    rng, catalog = Random(seed), catalog or load_catalog()
    for number in range(n):
        label = catalog.labels[number % len(catalog.labels)]
        species, tissue, technology = rng.choice(SAMPLES)
        task = TASKS[rng.randrange(len(TASKS))]
        if task == "markers" and not catalog.markers.get(label):
            task = "generation"
        record = CellRecord(
            label=label,
            species=species,
            tissue=tissue,
            technology=technology,
            condition="IFN-beta stimulated" if rng.random() < 0.05 else "",
            drug=rng.choice(list(DRUG_NAMES)),
            response=rng.choice(RESPONSES),
        )
        cells, signals = rng.choice((1, 1, 2, 4, 8, 16)), rng.choice((1, 1, 1, 2, 4))
        rendered = instruction(task, record, rng, catalog=catalog, n_cells=cells, n_signals=signals)
        yield rendered.prompt.replace(CELLS, "").strip(), rendered.answer.replace(SIGNAL, "").strip()
