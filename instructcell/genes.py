"""Gene names: the gene table, and what the names of a file mean as approved human symbols.

A name is read as the first of these that fits: Ensembl id (version ignored), approved symbol, approved symbol in
another case, previous symbol, alias, the last two in another case, the name without what tools add to it
(``GRCh38_INS``, ``INS__chr11``, ``HLA.A``, ``gene-INS``, ``b'INS'``, ``INS|3630``), and at last the gene behind a date
that a spreadsheet made of it (``1-Mar``). So a name that is an approved symbol is never taken for an alias. A list of
numbers is read as Entrez ids, which no two species share, unless the numbers only count the genes.

Where several genes claim one previous symbol or alias, a protein-coding gene goes before others, then the lower HGNC
number. A previous symbol or alias of a gene that the same list also holds under its approved symbol stays unknown: in
that file it means something else.

Mouse names give the human symbol of their counterpart: the one-to-one ortholog, or where a human gene has several
mouse counterparts the one that bears its name, else the best conserved (INS: Ins2); the others (Ins1) are left out, so
that no human gene is the sum of several mouse genes. A list that mixes human and mouse genes (two genomes in one
reference), told by a tenth of the names or of the counts, is read as the species with more counts; the other species'
genes are left out and named in the report.
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
from instructcell.spreadsheet import names_behind_date

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
FEWEST_CLEAR = 20  # gene names of one species that outweigh what was said
GENOME_PREFIX = re.compile(
    r"^(GRCh3[78]|GRCm3[89]|hg19|hg38|mm9|mm10|mm39|human|mouse)(?:-\d{4}-[A-Z])?[_-]+", re.IGNORECASE
)
CHROMOSOME_SUFFIX = re.compile(r"__chr[\w]+$", re.IGNORECASE)
KEY_PREFIX = re.compile(
    r"^(?:gene|rna|sct|symbol)[_:-]", re.IGNORECASE
)  # of Seurat's assays, of NCBI's and Ensembl's GFF
PARTS = re.compile(r"[|,;()\s]+")
QUOTED = re.compile(r"""b?(["'])(.*)\1""")  # also as Python prints bytes
REPEAT_SUFFIX = re.compile(r"[.]\d{1,2}$")
NUMBERED = re.compile(r"(.+)[-_]\d{1,3}")  # as var_names_make_unique numbers names that repeat
NCBI_NAME = re.compile(r"(?:LOC|GeneID:|entrez:|ncbigene:)(\d+)", re.IGNORECASE)
BLANK = {"", "nan", "none", "na", "n/a", "<na>", "null"}  # what stands where a gene has no name
TITLE_CASE = re.compile(r"^[A-Z][a-z]")
MIXED_SHARE = 0.1  # of the known names, from which a second kind of id or a second species makes a list mixed
UNKNOWN, OTHER_SPECIES = "unknown", "other_species"
Match = tuple[str | None, str]  # key of a gene (None: no gene) and how it was found


@lru_cache(maxsize=1)
def load_gene_table() -> pd.DataFrame:
    """The gene table: one row per approved human gene, sorted by symbol; text, "" where unknown.

    Columns
    -------
    symbol, name, aliases (';'), previous (';'), ensembl_id, entrez_id, mouse_symbol, mouse_ensembl_id, function,
    ensembl_other (';'), mouse_homology ("one2one", "principal" or "same_symbol"), mouse_aliases (';'), biotype,
    hgnc_id, mouse_entrez_id

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
        "symbol", "ensembl", "entrez", "alias" (most names are outdated or other names), "mixed" or "number" (the names
        only number the genes).
    counts
        How the names were matched: ensembl, entrez, symbol, case, previous, alias, cleaned, date (mended), no_ortholog,
        other_species, unknown.
    left_out
        Positions of names of the other species, in a list that mixes both.
    notes
        Sentences about names that could be read in more than one way.
    """

    symbols: list[str | None]
    species: str
    id_type: str
    counts: dict[str, int] = field(default_factory=dict)
    left_out: tuple[int, ...] = ()
    notes: tuple[str, ...] = ()

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
    entrez: Mapping[str, str] = field(default_factory=dict)

    def find(self, name: str) -> tuple[str | None, str]:
        """The gene a name means and how it was matched; (None, UNKNOWN) when it means none."""
        ensembl = ENSEMBL_ID.fullmatch(name)
        if ensembl:
            key = self.ensembl.get(ensembl.group(1).upper())
            return (key, "ensembl") if key else (None, UNKNOWN)
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
        return None, UNKNOWN

    def find_cleaned(self, name: str) -> tuple[str | None, str]:
        """Like `find`, and once more without what tools add to a name."""
        key, how = self.find(name)
        if key is not None:
            return key, how
        for candidate in cleaned_names(name):
            key, how = self.find(candidate)
            if key is not None:
                return key, "ensembl" if how == "ensembl" else "cleaned"
        numbered = NCBI_NAME.fullmatch(name)
        key = self.entrez.get(numbered.group(1)) if numbered else None
        return (key, "entrez") if key else (None, UNKNOWN)


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
        """The species of a list: from genome and Ensembl prefixes, known symbols, and last from their case."""
        names = list(names)
        return self._species_of([self._species_named(name) for name in names], names, None)

    def resolve(
        self, names: Sequence[str], species: str | None = None, *, weights: Sequence[float] | None = None
    ) -> ResolvedGenes:
        """Approved human symbols of gene names.

        Parameters
        ----------
        names
            Symbols, Ensembl ids (with or without version), Entrez ids, previous symbols or aliases; kinds may be mixed.
        species
            "human" or "mouse" when it is known; recognised from the names otherwise.
        weights
            How much each name counts when a list mixes both species, usually the counts of each gene; equal for None.

        Raises
        ------
        GeneAlignmentError
            If ``species`` is neither.
        """
        names = [unquoted(str(name).strip()) for name in names]
        if species is not None:
            species = species_name(species)
        if share_of_numbers(names) > 0.5:
            return self._resolve_numbers(names, species, weights)
        belongs = [self._species_named(name) for name in names]
        mixed = both_species(belongs) or self._both_in_counts(names, belongs, weights)
        species = species or self._species_of(belongs, names, weights if mixed else None)
        matches = self._matches(names, belongs, species, mixed=mixed)
        notes = self._mend_dates(names, matches, species)
        self._forget_repeats(names, matches)
        counts: Counter[str] = Counter()
        symbols: list[str | None] = []
        for key, how in matches:
            symbol = self.orthologs.get(key, "") if key is not None and species == MOUSE else key
            counts["no_ortholog" if symbol == "" else how] += 1
            symbols.append(symbol or None)
        left_out = tuple(row for row, (_, how) in enumerate(matches) if how == OTHER_SPECIES)
        return ResolvedGenes(symbols, species, id_type(counts), dict(counts), left_out, tuple(notes))

    def contradicts(self, names: Sequence[str], species: str) -> bool:
        """Whether gene names are clearly of the other species than was said.

        Ensembl ids are; mouse symbols are not human ones; human symbols may stand for mouse genes' orthologs.
        """
        said = species_name(species)
        named = [(name, self._species_named(name)) for name in map(str, names)]
        clear = [whose for name, whose in named if whose and (said == HUMAN or ENSEMBL_INSIDE.search(name))]
        return len(clear) >= FEWEST_CLEAR and sum(whose != said for whose in clear) > 0.9 * len(clear)

    def _species_named(self, name: str) -> str | None:
        """The species whose gene a name is, or None where it could be either."""
        prefix = GENOME_PREFIX.match(name)
        if prefix:
            return MOUSE if prefix.group(1).lower().startswith(("mm", "grcm", "mouse")) else HUMAN
        ensembl = ENSEMBL_INSIDE.search(name)
        if ensembl:
            return MOUSE if ensembl.group(1).upper().startswith("ENSMUSG") else HUMAN
        numbered = NCBI_NAME.fullmatch(name)
        if numbered:
            return self._species_numbered(numbered.group(1))
        if KEY_PREFIX.match(name):
            name = KEY_PREFIX.sub("", name)
        if name in self.human.approved or name in self.human.previous:
            return HUMAN
        if name not in self.mouse.approved and len(parts := PARTS.split(name)) > 1:
            return self._species_named(parts[0])
        return MOUSE if name in self.mouse.approved or name in self.mouse.previous else None

    def _species_numbered(self, entrez: str) -> str | None:
        """The species of an Entrez id, or None where the table does not have it."""
        if entrez in self.human.entrez:
            return HUMAN
        return MOUSE if entrez in self.mouse.entrez else None

    def _species_of(self, belongs: Sequence[str | None], names: Sequence[str], weights: Sequence[float] | None) -> str:
        """The species with more names, of a mixed list the one with more weight; for unknown names by their case."""
        each = [1.0] * len(names) if weights is None or sum(weights) == 0 else weights
        votes = {HUMAN: 0.0, MOUSE: 0.0, None: 0.0}
        for vote, weight in zip(belongs, each, strict=True):
            votes[vote] += weight
        if votes[HUMAN] or votes[MOUSE]:
            return MOUSE if votes[MOUSE] > votes[HUMAN] else HUMAN
        mouse_like = sum(bool(TITLE_CASE.match(name)) for name in names)
        return MOUSE if mouse_like > len(names) - mouse_like else HUMAN

    def _both_in_counts(
        self, names: Sequence[str], belongs: Sequence[str | None], weights: Sequence[float] | None
    ) -> bool:
        """Whether the species of fewer names holds a tenth of the counts; names that both use tell nothing."""
        if weights is None or sum(weights) == 0:
            return False
        held, n_names = {HUMAN: 0.0, MOUSE: 0.0}, {HUMAN: 0, MOUSE: 0}
        for name, whose, weight in zip(names, belongs, weights, strict=True):
            if whose is not None and not (name in self.mouse.approved and name in self.human.approved):
                held[whose] += weight
                n_names[whose] += 1
        fewer = min(n_names, key=lambda species: n_names[species])
        return n_names[fewer] >= 20 and held[fewer] > MIXED_SHARE * sum(held.values())

    def _matches(
        self, names: Sequence[str], belongs: Sequence[str | None], species: str, *, mixed: bool
    ) -> list[Match]:
        """The gene each name means. In a mixed list only names that are clearly of the chosen species are read."""
        index = self.mouse if species == MOUSE else self.human
        matches: list[Match] = []
        for name, whose in zip(names, belongs, strict=True):
            if name.lower() in BLANK and name not in self.human.approved:
                matches.append((None, UNKNOWN))
                continue
            if mixed and whose != species:
                matches.append((None, UNKNOWN if whose is None else OTHER_SPECIES))
                continue
            if whose not in (None, species) and GENOME_PREFIX.match(name):
                matches.append((None, OTHER_SPECIES))
                continue
            match = index.find_cleaned(name)
            if species == MOUSE and match[0] is None:  # mouse cells are at times already named by human symbols
                match = self._human_counterpart(name)
            matches.append(match)
        return matches

    def _human_counterpart(self, name: str) -> Match:
        """The mouse counterpart of an exact human symbol or human Ensembl id."""
        key, how = self.human.find(name)
        counterpart = self.human_to_mouse.get(key) if key is not None and how in ("symbol", "ensembl") else None
        return (counterpart, how) if counterpart else (None, UNKNOWN)

    def _mend_dates(self, names: Sequence[str], matches: list[Match], species: str) -> list[str]:
        """Read dates as the genes they were, in place; sentences about those that could have been several.

        The gene is the first of the family whose gene the list does not hold under another name. Two names that are
        the same date (1-Mar for MARCH1 and for MARC1) cannot be told apart and stay unknown.
        """
        numbers = share_of_numbers(names) > 0.05
        dates = {
            row: behind
            for row, (key, _) in enumerate(matches)
            if key is None and (behind := names_behind_date(names[row], serials=not numbers))
        }
        if not dates:
            return []
        present = {key for key, _ in matches if key is not None}
        times, notes = Counter(behind[0] for behind in dates.values()), []
        for row, behind in dates.items():
            keys = [key for name in behind if (key := self.human.find(name)[0]) is not None]
            if species == MOUSE:
                keys = [self.human_to_mouse[key] for key in keys if key in self.human_to_mouse]
            free = [key for key in keys if key not in present]
            if times[behind[0]] > 1 and len(keys) > 1:
                notes.append(f"{names[row]} stands {times[behind[0]]} times for {' and '.join(keys)}; it was left out")
            elif free:
                matches[row] = (free[0], "date")
                if len(free) > 1:
                    notes.append(f"{names[row]} was {free[0]} or {' or '.join(free[1:])}; it was read as {free[0]}")
        mended = sum(how == "date" for _, how in matches)
        said = [f"gene names that a spreadsheet had turned into dates were mended: {mended:,}"] if mended else []
        return said + list(dict.fromkeys(notes))

    def _forget_repeats(self, names: Sequence[str], matches: list[Match]) -> None:
        """An older name of a gene that the list also holds under its symbol means something else there: unknown.

        A name that was only numbered because it repeats (INS-1 beside INS) is its gene all the same.
        """
        approved = {key for key, how in matches if how in ("symbol", "case")}
        there: dict[str, int] | None = None
        for row, (key, how) in enumerate(matches):
            if how in ("previous", "alias", "cleaned") and key in approved and not REPEAT_SUFFIX.search(names[row]):
                matches[row] = (None, UNKNOWN)
            elif how in (UNKNOWN, "alias") and (numbered := NUMBERED.fullmatch(names[row])):
                there = {name: at for at, name in enumerate(names)} if there is None else there
                first = there.get(numbered.group(1))
                if first is not None and matches[first][0] is not None:
                    matches[row] = (matches[first][0], "cleaned")

    def _resolve_numbers(
        self, names: Sequence[str], species: str | None, weights: Sequence[float] | None
    ) -> ResolvedGenes:
        """Names that are numbers: Entrez ids of human or mouse genes, unless they only number the genes."""
        numbers = [name.removesuffix(".0") for name in names]
        belongs = [self._species_numbered(number) for number in numbers]
        species = species or self._species_of(belongs, names, weights if both_species(belongs) else None)
        n_known = sum(whose is not None for whose in belongs)
        if running_numbers(names) or species not in belongs or n_known < 0.3 * len(names):
            return ResolvedGenes([None] * len(names), species, "number", {UNKNOWN: len(names)})
        keys = [(self.mouse if species == MOUSE else self.human).entrez.get(number) for number in numbers]
        symbols = [self.orthologs[key] if key is not None and species == MOUSE else key for key in keys]
        left_out = tuple(row for row, whose in enumerate(belongs) if whose not in (None, species))
        counts = {"entrez": n_known - len(left_out), OTHER_SPECIES: len(left_out), UNKNOWN: len(names) - n_known}
        found = {how: n for how, n in counts.items() if n}
        return ResolvedGenes(symbols, species, "entrez", found, left_out)


def both_species(belongs: Sequence[str | None]) -> bool:
    """Whether a list holds genes of both species: a tenth of the known names, and 20 of them, are of the lesser one."""
    votes = Counter(belongs)
    lesser = min(votes[HUMAN], votes[MOUSE])
    return lesser >= 20 and lesser > MIXED_SHARE * (votes[HUMAN] + votes[MOUSE])


def share_of_numbers(names: Sequence[str]) -> float:
    """Share of the names that are whole numbers."""
    return sum(name.removesuffix(".0").isdigit() for name in names) / max(len(names), 1)


def running_numbers(names: Sequence[str]) -> bool:
    """Whether numbers only count the genes (0, 1, 2, ...) instead of naming them."""
    numbers = {int(name.removesuffix(".0")) for name in names if name.removesuffix(".0").isdigit()}
    return len(numbers) > 0.9 * (max(numbers) - min(numbers) + 1) and min(numbers) <= 1


def id_type(counts: Mapping[str, int]) -> str:
    """What kind of names a list holds, from how they were matched."""
    ensembl = counts.get("ensembl", 0)
    symbols = sum(counts.get(how, 0) for how in ("symbol", "case", "cleaned", "date"))
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
    if KEY_PREFIX.match(bare):
        yield KEY_PREFIX.sub("", bare)
    if len(parts := [part for part in PARTS.split(bare) if part]) > 1:  # "INS|3630", "INS (3630)"
        yield from (part for part in parts if not part.isdigit())
    if "." in bare:
        yield bare.replace(".", "-")
        if REPEAT_SUFFIX.search(bare):
            yield REPEAT_SUFFIX.sub("", bare)
            yield REPEAT_SUFFIX.sub("", bare).replace(".", "-")


def unquoted(name: str) -> str:
    """A name without the quotes that a table kept around it."""
    found = QUOTED.fullmatch(name)
    return found.group(2).strip() if found else name


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
    entrez = _numbers(rows, "entrez_id", symbol)
    human = name_index(symbol, human_ids, _claims(rows["previous"], symbol), _claims(rows["aliases"], symbol), entrez)
    with_mouse = rows[rows["mouse_symbol"] != ""]
    mouse_keys = with_mouse["mouse_symbol"].tolist()
    mouse_ids = _first(zip(with_mouse["mouse_ensembl_id"], mouse_keys, strict=True))
    mouse_names = _claims(with_mouse["mouse_aliases"], mouse_keys)
    mouse_entrez = _numbers(with_mouse, "mouse_entrez_id", mouse_keys)
    mouse_index = name_index(mouse_keys, mouse_ids, {}, mouse_names, mouse_entrez)
    return human, mouse_index, _first(zip(mouse, symbol, strict=True))


def name_index(
    symbols: list[str],
    ensembl: dict[str, str],
    previous: dict[str, str],
    alias: dict[str, str],
    entrez: dict[str, str] | None = None,
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
        entrez=entrez or {},
    )


def _numbers(rows: pd.DataFrame, column: str, keys: Sequence[str]) -> dict[str, str]:
    """Entrez id -> key, for a table that has them."""
    return _first(zip(rows[column], keys, strict=True)) if column in rows else {}


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
