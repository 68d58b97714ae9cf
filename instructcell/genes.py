"""Gene names: the gene table, and what the names of a file mean as approved human symbols.

A name is read as the first of these that fits: Ensembl id (version ignored), approved symbol, approved symbol in
another case, previous symbol, alias, the last two in another case, and at last the name without what tools add to it
(``GRCh38_INS``, ``INS__chr11``, ``HLA.A``). So a name that is an approved symbol is never taken for an alias.

Where several genes claim one previous symbol or alias, a protein-coding gene goes before others, then the lower HGNC
number. A previous symbol or alias of a gene that the same list also holds under its approved symbol stays unknown: in
that file it means something else. Mouse names give the human symbol of their counterpart.
"""

from __future__ import annotations

import difflib
import re
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import TYPE_CHECKING

from instructcell.errors import GeneAlignmentError
from instructcell.resources import read_table

if TYPE_CHECKING:
    import pandas as pd

HUMAN, MOUSE = "human", "mouse"
SPECIES_NAMES = {
    "human": HUMAN,
    "homo sapiens": HUMAN,
    "h. sapiens": HUMAN,
    "hsapiens": HUMAN,
    "hs": HUMAN,
    "ncbitaxon:9606": HUMAN,
    "mouse": MOUSE,
    "mus musculus": MOUSE,
    "m. musculus": MOUSE,
    "mmusculus": MOUSE,
    "mm": MOUSE,
    "ncbitaxon:10090": MOUSE,
}
GENE_SOURCE = "HGNC and MGI (2026-06-25), NCBI Gene and Gene Ontology (2022)"

ENSEMBL_ID = re.compile(r"(ENS(?:MUS)?G\d{11})(?:\.\d+)?(?:_PAR_Y)?", re.IGNORECASE)
ENSEMBL_INSIDE = re.compile(r"(?<![A-Za-z0-9])(ENS(?:MUS)?G\d{11})", re.IGNORECASE)
GENOME_PREFIX = re.compile(r"^(?:GRCh3[78]|GRCm3[89]|hg19|hg38|mm10|mm39)[_-]+", re.IGNORECASE)
CHROMOSOME_SUFFIX = re.compile(r"__chr[\w]+$", re.IGNORECASE)
REPEAT_SUFFIX = re.compile(r"[.]\d{1,2}$")
TITLE_CASE = re.compile(r"^[A-Z][a-z]")
MIXED_SHARE = 0.1  # of the known names, from which a second kind of id makes a list "mixed"


@lru_cache(maxsize=1)
def load_gene_table() -> pd.DataFrame:
    """The gene table: one row per approved human gene, sorted by symbol; text, "" where unknown.

    Columns
    -------
    symbol, name, aliases (';'), previous (';'), ensembl_id, entrez_id, mouse_symbol, mouse_ensembl_id, function,
    ensembl_other (';'), mouse_homology ("one2one", "principal" or "same_symbol"), mouse_aliases (';'), biotype, hgnc_id

    The frame is shared between callers: copy it before changing it.

    Examples
    --------
    >>> table = load_gene_table().set_index("symbol")
    >>> table.loc["GCG", "name"]
    'glucagon'
    """
    return read_table("genes.tsv.gz")


def species_name(species: str) -> str:
    """ "human" or "mouse" for what a user calls the species.

    Raises
    ------
    GeneAlignmentError
        If it is another species.
    """
    found = SPECIES_NAMES.get(species.strip().lower())
    if found is None:
        raise GeneAlignmentError(f"species {species!r} is not known; genes can be read as 'human' or 'mouse'.")
    return found


@dataclass(frozen=True)
class ResolvedGenes:
    """What the names of a file mean.

    Attributes
    ----------
    symbols
        Approved human symbol of each name, None where the name is unknown or has no human counterpart.
    species
        "human" or "mouse": what the names were read as.
    id_type
        "symbol", "ensembl", "alias" (most names are outdated or other names) or "mixed".
    counts
        How the names were matched: ensembl, symbol, case, previous, alias, cleaned, no_ortholog, unknown.
    """

    symbols: list[str | None]
    species: str
    id_type: str
    counts: dict[str, int] = field(default_factory=dict)

    @property
    def n_found(self) -> int:
        """How many names have a human symbol."""
        return sum(symbol is not None for symbol in self.symbols)

    @property
    def share_found(self) -> float:
        """Share of the names that have a human symbol, 0..1."""
        return self.n_found / len(self.symbols) if self.symbols else 0.0


@dataclass(frozen=True)
class NameIndex:
    """How one species' genes are called; every value is the key of a gene (its symbol in that species)."""

    approved: frozenset[str]
    approved_case: Mapping[str, str]
    ensembl: Mapping[str, str]
    previous: Mapping[str, str]
    alias: Mapping[str, str]
    previous_case: Mapping[str, str]
    alias_case: Mapping[str, str]

    def find(self, name: str) -> tuple[str | None, str]:
        """The gene a name means and how it was matched; (None, "unknown") when it means none."""
        ensembl = ENSEMBL_ID.fullmatch(name)
        if ensembl:
            key = self.ensembl.get(ensembl.group(1).upper())
            return (key, "ensembl") if key else (None, "unknown")
        if name in self.approved:
            return name, "symbol"
        folded = name.upper()
        for how, table, wanted in (
            ("case", self.approved_case, folded),
            ("previous", self.previous, name),
            ("alias", self.alias, name),
            ("previous", self.previous_case, folded),
            ("alias", self.alias_case, folded),
        ):
            if wanted in table:
                return table[wanted], how
        return None, "unknown"

    def find_cleaned(self, name: str) -> tuple[str | None, str]:
        """Like `find`, and once more without what tools add to a name."""
        key, how = self.find(name)
        if key is not None:
            return key, how
        for candidate in cleaned_names(name):
            key, how = self.find(candidate)
            if key is not None:
                return key, "ensembl" if how == "ensembl" else "cleaned"
        return None, "unknown"


class GeneResolver:
    """Reads the gene names of a file as approved human symbols.

    Examples
    --------
    >>> resolver = GeneResolver()
    >>> resolver.resolve(["ENSG00000115263.16", "ins", "MARCH1", "no such gene"]).symbols
    ['GCG', 'INS', 'MARCHF1', None]
    >>> resolver.resolve(["Gcg", "Ins2", "Ptprc"]).symbols
    ['GCG', 'INS', 'PTPRC']
    """

    def __init__(self, table: pd.DataFrame | None = None) -> None:
        """Index a gene table; the shipped one when none is given (that index is made once and shared)."""
        self.human, self.mouse, self.orthologs = shipped_indices() if table is None else build_indices(table)
        self.human_to_mouse = {human: mouse for mouse, human in self.orthologs.items()}

    def recognise_species(self, names: Iterable[str]) -> str:
        """The species that names belong to, from Ensembl prefixes, known symbols, and last from their case."""
        votes: Counter[str] = Counter()
        for name in names:
            ensembl = ENSEMBL_INSIDE.search(name)
            if ensembl:
                votes[MOUSE if ensembl.group(1).upper().startswith("ENSMUSG") else HUMAN] += 1
            elif name in self.human.approved or name in self.human.previous:
                votes[HUMAN] += 1
            elif name in self.mouse.approved or name in self.mouse.previous:
                votes[MOUSE] += 1
            else:
                votes["mouse-like" if TITLE_CASE.match(name) else "other"] += 1
        if votes[HUMAN] or votes[MOUSE]:
            return MOUSE if votes[MOUSE] > votes[HUMAN] else HUMAN
        return MOUSE if votes["mouse-like"] > votes["other"] else HUMAN

    def resolve(self, names: Sequence[str], species: str | None = None) -> ResolvedGenes:
        """Approved human symbols of gene names.

        Parameters
        ----------
        names
            Symbols, Ensembl ids (with or without version), previous symbols or aliases; kinds may be mixed.
        species
            "human" or "mouse" when it is known; recognised from the names otherwise.

        Raises
        ------
        GeneAlignmentError
            If ``species`` is neither.
        """
        names = [str(name).strip() for name in names]
        species = self.recognise_species(names) if species is None else species_name(species)
        index = self.mouse if species == MOUSE else self.human
        matches = [index.find_cleaned(name) for name in names]
        if species == MOUSE:  # mouse cells are at times already named by human symbols
            matches = [self._mouse_or_human(match, name) for match, name in zip(matches, names, strict=True)]
        approved = {key for key, how in matches if how in ("symbol", "case")}
        counts: Counter[str] = Counter()
        symbols: list[str | None] = []
        for key, how in matches:
            if how in ("previous", "alias", "cleaned") and key in approved:
                key, how = None, "unknown"
            symbol = self.orthologs.get(key, "") if key is not None and species == MOUSE else key
            counts["no_ortholog" if symbol == "" else how] += 1
            symbols.append(symbol or None)
        return ResolvedGenes(symbols, species, id_type(counts), dict(counts))

    def _mouse_or_human(self, match: tuple[str | None, str], name: str) -> tuple[str | None, str]:
        """A mouse match, or the mouse counterpart of an exact human symbol or human Ensembl id."""
        if match[0] is not None:
            return match
        key, how = self.human.find(name)
        if key is None or how not in ("symbol", "ensembl"):
            return None, "unknown"
        counterpart = self.human_to_mouse.get(key)
        return (counterpart, how) if counterpart else (None, "unknown")


def id_type(counts: Mapping[str, int]) -> str:
    """What kind of names a list holds, from how they were matched."""
    ensembl = counts.get("ensembl", 0)
    symbols = counts.get("symbol", 0) + counts.get("case", 0) + counts.get("cleaned", 0)
    older = counts.get("previous", 0) + counts.get("alias", 0)
    known = ensembl + symbols + older
    if known and min(ensembl, symbols + older) > MIXED_SHARE * known:
        return "mixed"
    if ensembl > symbols + older:
        return "ensembl"
    return "alias" if older > symbols else "symbol"


def cleaned_names(name: str) -> Iterable[str]:
    """The names that may stand behind one that a tool has changed, the likeliest first."""
    ensembl = ENSEMBL_INSIDE.search(name)
    if ensembl:  # "INS_ENSG00000254647": the id first, then, should it be a retired one, the symbol beside it
        yield ensembl.group(1)
        name = ENSEMBL_INSIDE.sub("", name).strip("_-|:. ")
    bare = CHROMOSOME_SUFFIX.sub("", GENOME_PREFIX.sub("", name))
    yield bare
    if "." in bare:
        yield bare.replace(".", "-")
        if REPEAT_SUFFIX.search(bare):
            yield REPEAT_SUFFIX.sub("", bare)
            yield REPEAT_SUFFIX.sub("", bare).replace(".", "-")


@lru_cache(maxsize=1)
def shipped_indices() -> tuple[NameIndex, NameIndex, dict[str, str]]:
    """The indices of the shipped gene table."""
    return build_indices(load_gene_table())


def build_indices(table: pd.DataFrame) -> tuple[NameIndex, NameIndex, dict[str, str]]:
    """The human index, the mouse index, and mouse symbol -> human symbol."""
    order = sorted(range(len(table)), key=_claim_order(table))  # the first to claim a name keeps it
    rows = table.iloc[order]
    symbol, mouse = rows["symbol"].tolist(), rows["mouse_symbol"].tolist()
    human_ids = {**_claims(rows["ensembl_other"], symbol), **_first(zip(rows["ensembl_id"], symbol, strict=True))}
    human = name_index(symbol, human_ids, _claims(rows["previous"], symbol), _claims(rows["aliases"], symbol))
    with_mouse = rows[rows["mouse_symbol"] != ""]
    mouse_keys = with_mouse["mouse_symbol"].tolist()
    mouse_ids = _first(zip(with_mouse["mouse_ensembl_id"], mouse_keys, strict=True))
    mouse_index = name_index(mouse_keys, mouse_ids, {}, _claims(with_mouse["mouse_aliases"], mouse_keys))
    return human, mouse_index, _first(zip(mouse, symbol, strict=True))


def name_index(
    symbols: list[str], ensembl: dict[str, str], previous: dict[str, str], alias: dict[str, str]
) -> NameIndex:
    """An index over names, with the case-insensitive tables made from the exact ones."""
    return NameIndex(
        approved=frozenset(symbols),
        approved_case=_first((symbol.upper(), symbol) for symbol in symbols),
        ensembl=ensembl,
        previous=previous,
        alias=alias,
        previous_case=_first((name.upper(), key) for name, key in previous.items()),
        alias_case=_first((name.upper(), key) for name, key in alias.items()),
    )


def _claim_order(table: pd.DataFrame) -> Callable[[int], tuple[bool, int]]:
    """Sort key of rows: protein-coding genes first, then the lower HGNC number."""
    coding = (table["biotype"] != "protein_coding").tolist()
    number = [int(value) if value.isdigit() else 10**9 for value in table["hgnc_id"]]
    return lambda row: (coding[row], number[row])


def _claims(joined: Iterable[str], keys: Sequence[str]) -> dict[str, str]:
    """Name -> key for ';'-joined names; the first claim of a name stands."""
    return _first((name, key) for names, key in zip(joined, keys, strict=True) for name in names.split(";"))


def _first(pairs: Iterable[tuple[str, str]]) -> dict[str, str]:
    """A dict of the pairs in which the first value given for a name stands; empty names are left out."""
    found: dict[str, str] = {}
    for name, key in pairs:
        if name:
            found.setdefault(name, key)
    return found


@dataclass(frozen=True)
class GeneCard:
    """What the gene table says of one gene, for an answer to a reader."""

    symbol: str
    name: str
    function: str
    aliases: tuple[str, ...]
    ensembl_id: str
    mouse_symbol: str
    source: str = GENE_SOURCE

    @property
    def text(self) -> str:
        """The card as one sentence or two: "GCG (glucagon): hormone activity; takes part in ..."."""
        known = self.function or "no function is recorded in the gene table"
        return f"{self.symbol} ({self.name or 'no full name'}): {known}."


def gene_card(name: str) -> GeneCard:
    """The card of a gene, asked for by symbol, alias, previous symbol or Ensembl id of human or mouse.

    Raises
    ------
    GeneAlignmentError
        If no gene is called so; the message offers the nearest symbols.

    Examples
    --------
    >>> gene_card("CD20").symbol
    'MS4A1'
    """
    symbol = find_gene(name)
    if symbol is None:
        near = difflib.get_close_matches(name.strip().upper(), _symbols(), n=3, cutoff=0.7)
        hint = f" Did you mean {', '.join(near)}?" if near else ""
        raise GeneAlignmentError(f"no human or mouse gene is called {name!r}; a symbol such as GCG is expected.{hint}")
    table = load_gene_table()
    row = table.iloc[_rows()[symbol]]
    others = [other for other in (*row["previous"].split(";"), *row["aliases"].split(";")) if other]
    return GeneCard(
        symbol=symbol,
        name=row["name"],
        function=row["function"],
        aliases=tuple(others),
        ensembl_id=row["ensembl_id"],
        mouse_symbol=row["mouse_symbol"],
    )


def find_gene(name: str) -> str | None:
    """Approved human symbol of one name (human names are tried before mouse names), None when no gene is called so."""
    human, mouse, orthologs = shipped_indices()
    key, _ = human.find(name.strip())
    if key is not None:
        return key
    key, _ = mouse.find(name.strip())
    return orthologs.get(key) if key is not None else None


@lru_cache(maxsize=1)
def _rows() -> dict[str, int]:
    """Symbol -> row of the gene table."""
    return {symbol: row for row, symbol in enumerate(load_gene_table()["symbol"])}


@lru_cache(maxsize=1)
def _symbols() -> list[str]:
    """All approved symbols."""
    return load_gene_table()["symbol"].tolist()
