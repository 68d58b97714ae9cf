"""Cell Ontology terms, the marker table by Cell Ontology id, and the label map's check against the ontology.

``ontology.tsv.gz``   id, name, definition, synonyms (';'), parents (';' of CL ids), ancestors (';' of CL id=distance)
``markers.tsv.gz``    cl_id, name, gene, weight, n_sources, source; per type the heaviest genes, heaviest first
"""

from __future__ import annotations

import io
import json
import pickle
from pathlib import Path
from typing import Any

from instructcell.errors import ResourceError
from instructcell.resources.packages import PACKAGES, arrow_module, fetch, wheel_member

ONTOLOGY_MEMBER = "cellxgene_ontology_guide/data/CL-ontology-v2026-03-26.json.zst"
MARKER_MEMBER = "cellconsensus/data/consensus_cache_full.pkl"
ONTOLOGY_COLUMNS = ("id", "name", "definition", "synonyms", "parents", "ancestors")
MARKER_COLUMNS = ("cl_id", "name", "gene", "weight", "n_sources", "source")
MARKERS_PER_TYPE = 60


def build_ontology(cache: Path) -> list[dict[str, str]]:
    """The terms of the Cell Ontology that are in use, sorted by id."""
    packed = wheel_member(fetch("cellxgene-ontology-guide", cache), ONTOLOGY_MEMBER)
    with arrow_module("pyarrow", cache).CompressedInputStream(io.BytesIO(packed), "zstd") as stream:
        terms: dict[str, Any] = json.loads(stream.read())
    return [ontology_row(key, terms[key]) for key in sorted(terms) if not terms[key]["deprecated"]]


def ontology_row(key: str, term: dict[str, Any]) -> dict[str, str]:
    """One term; ancestors nearest first, parents are those at distance 1."""
    ancestors = sorted(term["ancestors"].items(), key=lambda pair: (pair[1], pair[0]))
    return {
        "id": key,
        "name": one_line(term["label"]),
        "definition": one_line(term.get("description", "")),
        "synonyms": ";".join(sorted(one_line(name).replace(";", ",") for name in term.get("synonyms", []))),
        "parents": ";".join(ancestor for ancestor, distance in ancestors if distance == 1),
        "ancestors": ";".join(f"{ancestor}={distance}" for ancestor, distance in ancestors),
    }


def one_line(text: str) -> str:
    """Text without tabs and line breaks."""
    return " ".join(text.split())


class PlainUnpickler(pickle.Unpickler):
    """Reads the markers' pickle, which holds dicts, text and numbers; anything else is refused."""

    def find_class(self, module: str, name: str) -> Any:  # noqa: ANN401  (the signature of pickle)
        raise ResourceError(f"the marker file asks for {module}.{name}; plain dicts, text and numbers were expected.")


def build_markers(cache: Path, symbols: set[str], ontology: dict[str, str]) -> list[dict[str, str]]:
    """The heaviest marker genes of each Cell Ontology id that is in use; genes are approved symbols only."""
    content = wheel_member(fetch("cellconsensus", cache), MARKER_MEMBER)
    tables = PlainUnpickler(io.BytesIO(content)).load()
    source = f"CellConsensus {PACKAGES['cellconsensus'].version}"
    rows = []
    for key in sorted(tables["consensus"].keys() & ontology.keys()):
        weights = {gene: weight for gene, weight in tables["consensus"][key].items() if gene in symbols}
        heaviest = sorted(weights.items(), key=lambda pair: (-pair[1], pair[0]))[:MARKERS_PER_TYPE]
        rows += [
            {
                "cl_id": key,
                "name": ontology[key],
                "gene": gene,
                "weight": f"{weight:.6g}",
                "n_sources": str(tables["n_sources"][key]),
                "source": source,
            }
            for gene, weight in heaviest
        ]
    return rows


def check_label_map(rows: list[dict[str, str]], ontology: dict[str, str]) -> list[dict[str, str]]:
    """The labels that are finer than their Cell Ontology term (their name is not the term's), once each.

    Raises
    ------
    ResourceError
        If an id is not in the ontology, a row lacks a field, one name has two ids, or a name is another term's.
    """
    wrong: list[str] = []
    finer: dict[str, dict[str, str]] = {}
    ids: dict[str, str] = {}
    by_name = {name: key for key, name in ontology.items()}
    for row in rows:
        name, key = row["name"], row["id"]
        if not (row["file"] and row["dataset_label"] and name) or key not in ontology:
            wrong.append(f"{row['file']} / {row['dataset_label']}: {key or 'no id'} is not in the Cell Ontology")
        elif ids.setdefault(name, key) != key:
            wrong.append(f"{name}: both {ids[name]} and {key}")
        elif by_name.get(name, key) != key:
            wrong.append(f"{name}: given {key}, but that is the name of {by_name[name]}")
        elif ontology[key] != name:
            finer[name] = {"name": name, "id": key, "term": ontology[key]}
    if wrong:
        raise ResourceError(f"label_map.tsv does not agree with the Cell Ontology: {'; '.join(wrong)}.")
    return [finer[name] for name in sorted(finer)]
