"""Which cell types and genes a sentence names: the names of the ontology and the gene table, found in running text."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING

from instructcell.labels import CellOntology, cl_id, load_ontology, name_words

if TYPE_CHECKING:
    from instructcell.genes import NameIndex

# What the bench says -> Cell Ontology id, for names that neither the ontology nor the labels' synonyms have, or give to
# a type without markers.
LAB_NAMES: dict[str, str] = {
    "pp cell": "CL:0002275",
    "pancreatic polypeptide cell": "CL:0002275",
    "ghrelin cell": "CL:0005019",
    "stellate cell": "CL:0002410",
    "treg": "CL:0000815",
    "ctl": "CL:0000910",
    "t helper cell": "CL:0000912",
    "th1": "CL:0000545",
    "th2": "CL:0000546",
    "th17": "CL:0000899",
    "tfh": "CL:0002038",
    "gdt": "CL:0000798",
    "mait": "CL:0000940",
    "mait cell": "CL:0000940",
    "nkt": "CL:0000814",
    "nkt cell": "CL:0000814",
    "nk t cell": "CL:0000814",
    "nk": "CL:0000623",
    "ilc": "CL:0001065",
    "dc": "CL:0000451",
    "dcs": "CL:0000451",
    "pdc": "CL:0000784",
    "cdc": "CL:0000990",
    "cdc1": "CL:0002394",
    "cdc2": "CL:0002399",
    "hsc": "CL:0000037",
    "hspc": "CL:0008001",
    "rbc": "CL:0000232",
    "red cell": "CL:0000232",
    "thrombocyte": "CL:0000233",
    "microglia": "CL:0000129",
    "opc": "CL:0002453",
    "glia": "CL:0000125",
    "endothelium": "CL:0000115",
    "epithelium": "CL:0000066",
    "smc": "CL:0000192",
    "msc": "CL:0000134",
    "at1": "CL:0002062",
    "at1 cell": "CL:0002062",
    "at2": "CL:0002063",
    "at2 cell": "CL:0002063",
    "alveolar type 1 cell": "CL:0002062",
    "alveolar type 2 cell": "CL:0002063",
    "cancer cell": "CL:0001064",
    "tumor cell": "CL:0001064",
    "tumour cell": "CL:0001064",
    "mono": "CL:0000576",
    "monos": "CL:0000576",
    "macros": "CL:0000235",
    "neutros": "CL:0000775",
    "basos": "CL:0000767",
    "fibros": "CL:0000057",
    "astros": "CL:0000127",
    "oligos": "CL:0000128",
    "erythros": "CL:0000232",
    "schwann": "CL:0002573",
    "tuft": "CL:0002204",
    "blood vessel cell": "CL:0000115",
    "vessel cell": "CL:0000115",
    **{
        f"{hormone} {word}": id
        for hormone, id in {
            "insulin": "CL:0000169",
            "glucagon": "CL:0000171",
            "somatostatin": "CL:0000173",
            "ghrelin": "CL:0005019",
            "pancreatic polypeptide": "CL:0002275",
        }.items()
        for word in ("cell", "producer", "producing cell", "secreting cell", "secretor", "maker", "releasing cell")
    },
}

# Short names that mean two types about equally often: which is meant is asked back.
AMBIGUOUS_NAMES: dict[str, tuple[str, str]] = {
    "endo": ("endothelial cell", "endocrine cell"),
    "endos": ("endothelial cell", "endocrine cell"),
    "epis": ("epithelial cell", "epidermal cell"),
    "mesos": ("mesothelial cell", "mesenchymal cell"),
    "PCs": ("plasma cell", "Purkinje cell"),
    "KCs": ("Kupffer cell", "keratinocyte"),
    "SCs": ("Schwann cell", "stem cell"),
    "MCs": ("mast cell", "mesangial cell"),
}

# Surface antigens of several chains, or whose name several genes list -> the gene that is meant at the bench.
SURFACE_ANTIGENS: dict[str, str] = {
    "CD3": "CD3E",
    "CD8": "CD8A",
    "CD16": "FCGR3A",
    "CD20": "MS4A1",
    "CD25": "IL2RA",
    "CD64": "FCGR1A",
    "CD79": "CD79A",
}

# English words that are also gene symbols: in small letters they mean the word.
ORDINARY_WORDS = frozenset(
    """
    ace age app arc are art bad ball bank base best bid bite bright cad call camp can cap caps car cast
    cat cell chad chat chip clock coil copa cope des eng era eras fact fame fan fast fat fig find fish
    flower fry gap gem get great had hal has hat hit how hr impact kin large mag mal mall mark max met
    mia mice mpi mvp nail nodal notch numb oscar pack palm pam pc pdf pen phase pip plan pole poll por
    prep pry ran rat rest ring sea self sell set she ship si sky sms son spring star step strap sync
    tank tec the time timeless top trap trio tub type via vip was what who
    """.split()  # noqa: SIM905
)

# One-word names that people give to datasets' labels, but that in a sentence mean something wider.
TISSUE_WORDS = frozenset(
    """
    alpha basal beta blast cell delta epsilon gamma late mast plasma progenitor stem
    """.split()  # noqa: SIM905
)

SPELT_CL_ID = re.compile(r"\bCL[:_]\d{7}\b", re.IGNORECASE)
PARTED = re.compile(r"\([^)]*$|^[^(]*\)|[;:!?]\s|\.\s")  # no name goes on from one bracket or sentence into the next
WORD = re.compile(r"[^\W_]+")
SYMBOL = re.compile(r"[^\W_](?:[\w.\-@]*\w)?")
AND_WORDS = frozenset({"and", "or", "vs", "v", "versus", "from"})
LONGEST_NAME = 12  # words
TOO_BROAD = frozenset(
    {"CL:0000000", "CL:0000003", "CL:0000255", "CL:2000001"}
)  # "cell", "PBMC": every cell of a file is one
Key = tuple[str, ...]


@dataclass(frozen=True)
class Mention:
    """A name found in a text: what it means (a Cell Ontology id or a gene symbol) and the characters it covers."""

    id: str
    written: str
    start: int
    end: int


@dataclass(frozen=True)
class NameBook:
    """Names of cell types and genes, for finding them in text.

    Attributes
    ----------
    ontology
        The cell types and their names.
    human, mouse
        How the genes of each species are called.
    orthologs
        Mouse symbol -> human symbol.
    types_in_text
        Plain words of a cell type's name -> id, for the names that are safe to look for inside a sentence.
    titles
        Plain words of a gene's full name ("glucagon") -> symbol.
    """

    ontology: CellOntology
    human: NameIndex
    mouse: NameIndex
    orthologs: Mapping[str, str]
    types_in_text: Mapping[Key, str]
    titles: Mapping[Key, str]

    def cell_type(self, name: str) -> str | None:
        """Cell Ontology id that a whole name stands for (id, name, synonym, plural, one typing error), or None."""
        known = self.types_in_text.get(plain_words(name))
        return known or next(iter(self.ontology.find(name, n=1)), None)

    def gene(self, name: str) -> str | None:
        """Human symbol that a whole name stands for (symbol in any case, alias, mouse symbol, full name), or None."""
        from instructcell.genes import find_gene

        name = name.strip()
        if name not in self.human.approved and name.upper() in SURFACE_ANTIGENS:
            return SURFACE_ANTIGENS[name.upper()]
        return find_gene(name) or self.titles.get(plain_words(name))

    def cell_types(self, text: str) -> list[Mention]:
        """Cell types that a text names, in its order; the longest name wins, each type once."""
        by_id = [
            Mention(cl_id(match.group(0)) or "", match.group(0), match.start(), match.end())
            for match in SPELT_CL_ID.finditer(text)
            if cl_id(match.group(0)) in self.ontology
        ]
        spans = _spans(text)
        named = [mention for mention in _longest(text, spans, self.types_in_text) if mention.id not in TOO_BROAD]
        shared = [m for mention in named for m in _sharing_its_head(text, spans, mention, self.types_in_text)]
        return _apart(by_id + named + shared, [])

    def genes(self, text: str) -> list[Mention]:
        """Genes that a text names, in its order, outside the names of cell types ("CD8 T cell" names no gene)."""
        shouted = text.upper() == text
        found = [
            Mention(symbol, match.group(0), match.start(), match.end())
            for match in SYMBOL.finditer(text)
            if (symbol := self._symbol_in_text(match.group(0), shouted=shouted))
        ]
        return _apart(found + _longest(text, _spans(text), self.titles), self.cell_types(text))

    def _symbol_in_text(self, token: str, *, shouted: bool) -> str | None:
        """The gene a word of a sentence means; a word that is also English only in capitals."""
        if not any(map(str.isalpha, token)):  # "6.3" is an alias of a gene, and a number
            return None
        key, how = self.human.find(token)
        looks_like_symbol = any(map(str.isdigit, token)) or (token.isupper() and not shouted)
        if len(token) < 2 or (token.lower() in ORDINARY_WORDS and (shouted or not token.isupper())):
            return None
        if how == "symbol" or (how in ("case", "ensembl") and len(token) > 2):
            return key
        if len(token) > 2 and looks_like_symbol and token.upper() in SURFACE_ANTIGENS:
            return SURFACE_ANTIGENS[token.upper()]
        mouse, mouse_how = self.mouse.find(token)
        if mouse is not None and mouse_how in ("symbol", "ensembl") and (len(token) > 2):
            return self.orthologs.get(mouse)
        return key if len(token) > 2 and looks_like_symbol else None


def ambiguous_name(text: str) -> tuple[str, tuple[str, str]] | None:
    """A short name in a text that means two types, and these; capitals count: "PCs" are cells, "pcs" are pieces.

    >>> ambiguous_name("how many endos?")
    ('endos', ('endothelial cell', 'endocrine cell'))
    """
    written = next((word for word in WORD.findall(text) if word in AMBIGUOUS_NAMES), None)
    return None if written is None else (written, AMBIGUOUS_NAMES[written])


@lru_cache(maxsize=1)
def load_name_book() -> NameBook:
    """Names of the shipped ontology and gene table, made once per process."""
    from instructcell.genes import load_gene_table, shipped_indices
    from instructcell.resources import read_table

    ontology = load_ontology()
    human, mouse, orthologs = shipped_indices()
    table = load_gene_table()
    coding = table[table["biotype"] == "protein_coding"]
    titles = _titles(dict(zip(coding["symbol"], coding["name"], strict=True)))
    finer = read_table("finer_labels.tsv")
    types = types_in_text(ontology, dict(zip(finer["name"], finer["id"], strict=True)))
    return NameBook(ontology, human, mouse, orthologs, types, titles)


def plain_words(text: str) -> Key:
    """Words of a text as names are compared: small letters, Greek spelt out, singular, "+" and "positive" left out.

    >>> plain_words("CD8+ T-cells")
    ('cd8', 't', 'cell')
    """
    return tuple(word for word, _, _ in _spans(text))


def types_in_text(ontology: CellOntology, finer: Mapping[str, str] | None = None) -> dict[Key, str]:
    """Plain words -> id. Lab names go before preferred names, those before what people say, that before synonyms.

    `finer` holds labels that are finer than their term, such as "quiescent pancreatic stellate cell".
    A single word of up to three letters is taken only from `LAB_NAMES`: "PD" in a sentence is rarely the neuron.
    """
    lab = {plain_words(name): id for name, id in LAB_NAMES.items() if id in ontology}
    preferred = {plain_words(term.name): id for id, term in sorted(ontology.terms.items(), reverse=True)}
    said = {plain_words(name): id for name, id in ontology.bench_names.items()}
    synonyms = {plain_words(other): id for id, term in ontology.terms.items() for other in term.synonyms}
    labels = {plain_words(name): id for name, id in (finer or {}).items()}
    names = {**synonyms, **said, **labels, **preferred, **lab}
    return {
        key: id
        for key, id in names.items()
        if key in lab or len(key) > 1 or (len(key) == 1 and len(key[0]) > 3 and key[0] not in TISSUE_WORDS)
    }


def _titles(gene_titles: Mapping[str, str]) -> dict[Key, str]:
    """Plain words of a full gene name -> symbol; short or ordinary single words are left out."""
    titles: dict[Key, str] = {}
    for symbol, title in sorted(gene_titles.items()):
        key = plain_words(title)
        if len(key) > 1 or (key and len(key[0]) > 4 and key[0] not in ORDINARY_WORDS):
            titles.setdefault(key, symbol)
            if key[0] == "keratin":  # as antibodies are sold
                titles.setdefault(("cytokeratin", *key[1:]), symbol)
    return titles


def _spans(text: str) -> list[tuple[str, int, int]]:
    """Plain words with where they stand in the text."""
    return [
        (word, match.start(), match.end())
        for match in WORD.finditer(text)
        for word in name_words(match.group(0))
        if word != "positive"
    ]


def _longest(text: str, spans: list[tuple[str, int, int]], names: Mapping[Key, str]) -> list[Mention]:
    """Names in a text, longest first at each word, none overlapping."""
    found, at = [], 0
    while at < len(spans):
        for length in range(min(LONGEST_NAME, len(spans) - at), 0, -1):
            meant = names.get(tuple(word for word, _, _ in spans[at : at + length]))
            start, end = spans[at][1], spans[at + length - 1][2]
            if meant and not PARTED.search(text[start:end]):
                found.append(Mention(meant, text[start:end], start, end))
                at += length - 1
                break
        at += 1
    return found


def _sharing_its_head(
    text: str, spans: list[tuple[str, int, int]], mention: Mention, names: Mapping[Key, str]
) -> list[Mention]:
    """The type that leaves its last words to the next one: "alpha" of "alpha and beta cells"."""
    key = plain_words(mention.written)
    first = next(at for at, (_, start, _) in enumerate(spans) if start >= mention.start)
    if first < 2 or spans[first - 1][0] not in AND_WORDS:
        return []
    for length in range(min(4, first - 1), 0, -1):
        before = spans[first - 1 - length : first - 1]
        for head in range(1, len(key)):
            meant = names.get((*(word for word, _, _ in before), *key[head:]))
            if meant and meant != mention.id:
                start, end = before[0][1], before[-1][2]
                return [Mention(meant, text[start:end], start, end)]
    return []


def _apart(found: list[Mention], taken: list[Mention]) -> list[Mention]:
    """Mentions in order, each id once, none overlapping `taken` or an earlier mention."""
    kept: list[Mention] = []
    for mention in sorted(found, key=lambda m: (m.start, -m.end)):
        clash = any(mention.start < other.end and other.start < mention.end for other in [*taken, *kept])
        if not clash and mention.id not in {other.id for other in kept}:
            kept.append(mention)
    return kept
