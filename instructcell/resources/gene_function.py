"""One line on what a gene does, from its Gene Ontology annotation.

Terms are taken where they are neither too broad nor too narrow to tell a reader something (about 100 genes is best),
experimental evidence first, and a term is left out when a narrower one that says the same is taken.
"""

from __future__ import annotations

import math
import sqlite3
from collections import defaultdict
from pathlib import Path

# Evidence codes of the Gene Ontology: by experiment or a curator's statement; by phylogeny or review; else electronic.
EXPERIMENT = frozenset({"EXP", "IDA", "IPI", "IMP", "IGI", "IEP", "TAS", "HDA", "HMP", "HEP", "IC"})
REVIEWED = frozenset({"IBA", "ISS", "ISO", "NAS", "RCA", "ISA"})
PARTS = (("mf", "", 2), ("bp", "takes part in ", 3), ("cc", "found in ", 2))
UNTELLING = frozenset(
    {
        "protein binding",
        "identical protein binding",
        "molecular_function",
        "biological_process",
        "cellular_component",
        "protein homodimerization activity",
        "protein heterodimerization activity",
    }
)
TELLING_SIZE = 100  # genes under a term that make it most useful to name


def function_lines(genes: Path, terms: Path) -> dict[str, str]:
    """Entrez id -> a line such as "hormone activity; takes part in ...; found in ..." from org.Hs.eg.db and GO.db."""
    parts: dict[str, list[str]] = defaultdict(list)
    with sqlite3.connect(genes) as gene_db, sqlite3.connect(terms) as term_db:
        names = dict(term_db.execute("select go_id, term from go_term"))
        for aspect, lead, most in PARTS:
            sizes = dict(
                gene_db.execute(f"select go_id, count(distinct _id) from go_{aspect}_all group by go_id")  # noqa: S608
            )
            below = offspring(term_db, aspect)
            for gene, evidence in go_annotations(gene_db, aspect).items():
                chosen = choose_terms(evidence, sizes, below, names, most)
                if chosen:
                    parts[gene].append(lead + ", ".join(names[term] for term in chosen))
    return {gene: "; ".join(lines) for gene, lines in parts.items()}


def go_annotations(database: sqlite3.Connection, aspect: str) -> dict[str, dict[str, int]]:
    """Entrez id -> GO id -> rank of its best evidence (2 experiment, 1 reviewed, 0 electronic)."""
    found: dict[str, dict[str, int]] = defaultdict(dict)
    query = f"select gene_id, go_id, evidence from go_{aspect} join genes using (_id) where evidence != 'ND'"  # noqa: S608
    for gene, term, code in database.execute(query):
        rank = 2 if code in EXPERIMENT else 1 if code in REVIEWED else 0
        found[gene][term] = max(rank, found[gene].get(term, 0))
    return found


def offspring(database: sqlite3.Connection, aspect: str) -> dict[str, set[str]]:
    """GO id -> all narrower terms."""
    below: dict[str, set[str]] = defaultdict(set)
    query = (
        f"select upper.go_id, lower.go_id from go_{aspect}_offspring as link "  # noqa: S608
        "join go_term as upper on upper._id = link._id join go_term as lower on lower._id = link._offspring_id"
    )
    for upper, lower in database.execute(query):
        below[upper].add(lower)
    return below


def choose_terms(
    evidence: dict[str, int], sizes: dict[str, int], below: dict[str, set[str]], names: dict[str, str], most: int
) -> list[str]:
    """Up to ``most`` terms of one aspect, the most telling first."""

    def score(term: str) -> float:
        return 0.6 * evidence[term] - abs(math.log10(sizes.get(term, 1) / TELLING_SIZE))

    candidates = [term for term in evidence if names.get(term, "cellular_component") not in UNTELLING]
    candidates.sort(key=lambda term: (-score(term), names[term]))
    chosen: list[str] = []
    for term in candidates:
        if not any(term in below[other] or other in below[term] for other in chosen):
            chosen.append(term)
        if len(chosen) == most:
            break
    return chosen
