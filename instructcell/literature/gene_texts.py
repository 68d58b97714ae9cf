"""What is known of each gene, as a text, and its vector; a gene is embedded once and its vector kept.

shipped gene table, or any NCBI-style table by path -> texts -> text encoder -> vectors [G, D], cached by text
"""

from __future__ import annotations

import hashlib
import os
import tempfile
from collections.abc import Generator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file

from instructcell.errors import GeneTextError
from instructcell.genes import GeneResolver, load_gene_table
from instructcell.literature.text_encoder import fingerprint

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer

# What a part of the text may be called in a table, in the order in which the parts are read.
COLUMNS = {
    "name": ("full_name", "name", "gene_name", "official_full_name", "description"),
    "type": ("type", "gene_type", "type_of_gene", "biotype"),
    "expression": ("organ_expression", "expression"),
    "summary": ("summary", "function", "gene_summary"),
}
SYMBOL = ("symbol", "gene", "gene_symbol", "official_symbol")
LEAST_GENES = 20  # with a text, of the genes that are asked about
AT_ONCE = 2048  # genes embedded between two saves

def gene_texts(genes: Sequence[str], table: str | Path | None = None) -> dict[str, str]:
    """A description of each gene that has one: symbol, full name, type, organs, summary.

    Parameters
    ----------
    genes
        Approved human symbols.
    table
        A .tsv or .csv file (also gzipped) with a column of symbols and columns of full names and summaries, as NCBI
        Gene gives them; None: the gene table that ships.

    Raises
    ------
    GeneTextError
        The table cannot be read, or fewer than 20 of the genes have a text.

    Examples
    --------
    >>> gene_texts(load_gene_table()["symbol"])["GCG"].split(";")[0]
    'GCG: glucagon'
    """
    known = _shipped() if table is None else read_gene_texts(table)
    found = {gene: known[gene] for gene in genes if gene in known}
    if len(found) < min(LEAST_GENES, len(genes)):
        missing = ", ".join([gene for gene in genes if gene not in known][:5])
        raise GeneTextError(
            f"{len(found)} of {len(genes):,} genes have a text in {table or 'the shipped gene table'} (without one: "
            f"{missing} ...), expected at least {LEAST_GENES}. Give a table of the same species' symbols."
        )
    return found


def read_gene_texts(path: str | Path) -> dict[str, str]:
    """Symbol -> text from a table; symbols are brought to the approved ones."""
    path = Path(path)
    if not path.is_file():
        raise GeneTextError(f"found no table of gene texts at {path}; give a .tsv or .csv file with symbol and summary")
    try:
        frame = pd.read_csv(path, sep="," if ".csv" in path.suffixes else "\t", dtype=str, keep_default_na=False)
    except (pd.errors.ParserError, UnicodeDecodeError, EOFError, OSError) as error:
        raise GeneTextError(f"{path.name} is no readable table: {error}") from error
    frame.columns = [str(column).strip().lower().replace(" ", "_") for column in frame.columns]
    symbol = _column(frame, SYMBOL)
    parts = {part: _column(frame, names) for part, names in COLUMNS.items()}
    if symbol is None or (parts["name"] is None and parts["summary"] is None):
        raise GeneTextError(
            f"{path.name} has the columns {', '.join(frame.columns)}; expected one of symbols ({', '.join(SYMBOL)}) "
            "and one of full names or summaries (full_name, summary)"
        )
    approved = GeneResolver().resolve(frame[symbol].tolist()).symbols
    return _texts(frame, approved, parts)


def _shipped() -> dict[str, str]:
    table = load_gene_table()
    parts = {"name": "name", "type": "biotype", "expression": None, "summary": "function"}
    return _texts(table, table["symbol"].tolist(), parts)


def _column(frame: pd.DataFrame, names: Sequence[str]) -> str | None:
    return next((name for name in names if name in frame.columns), None)


def _texts(frame: pd.DataFrame, symbols: Sequence[str | None], parts: Mapping[str, str | None]) -> dict[str, str]:
    """Texts of the genes of which more than the symbol is known; the first row of a symbol counts."""
    columns = [frame[column].astype(str).str.strip().tolist() for column in parts.values() if column is not None]
    texts: dict[str, str] = {}
    for symbol, *values in zip(symbols, *columns, strict=True):
        said = [value.replace("_", " ") if len(value) < 30 else value for value in values if value]
        if symbol and said and symbol not in texts:
            texts[symbol] = f"{symbol}: " + "; ".join(said)
    return texts


def gene_vectors(
    texts: Mapping[str, str], encoder: SentenceTransformer, *, cache: str | Path | None = None
) -> dict[str, np.ndarray]:
    """Unit vector [D] float32 of each gene; only texts that this encoder has not read before are embedded.

    `cache` is the folder of kept vectors, by default `instructcell` in the user's cache folder.
    """
    steps = gene_vector_steps(texts, encoder, cache=cache)
    while True:
        try:
            next(steps)
        except StopIteration as end:
            return end.value


def gene_vector_steps(
    texts: Mapping[str, str], encoder: SentenceTransformer, *, cache: str | Path | None = None
) -> Generator[tuple[int, int], None, dict[str, np.ndarray]]:
    """Work of `gene_vectors`, yielding (done, total) of the texts that are embedded."""
    folder = Path(cache) if cache is not None else cache_folder()
    path = folder / f"gene_vectors-{fingerprint(encoder)}.safetensors"
    known = _kept(path)
    keys = {gene: hashlib.sha256(text.encode()).hexdigest()[:32] for gene, text in texts.items()}
    new = {key: texts[gene] for gene, key in keys.items() if key not in known}
    waiting = list(new)
    for start in range(0, len(waiting), AT_ONCE):
        part = waiting[start : start + AT_ONCE]
        found = encoder.encode(
            [new[key] for key in part], batch_size=64, normalize_embeddings=True, show_progress_bar=False
        )
        known |= dict(zip(part, np.asarray(found, np.float32), strict=True))
        _keep(path, known)  # an interrupted run goes on from here
        yield min(start + AT_ONCE, len(waiting)), len(waiting)
    return {gene: known[key] for gene, key in keys.items()}


def cache_folder() -> Path:
    """Where vectors are kept between runs."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "instructcell"


def _kept(path: Path) -> dict[str, np.ndarray]:
    if not path.is_file():
        return {}
    try:
        arrays = load_file(path)
    except (SafetensorError, OSError):  # half written by another program: it is made anew
        return {}
    keys = [bytes(row).hex() for row in arrays["keys"]]
    return dict(zip(keys, arrays["vectors"], strict=True))


def _keep(path: Path, known: Mapping[str, np.ndarray]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    keys = np.frombuffer(bytes.fromhex("".join(known)), np.uint8).reshape(len(known), -1)
    with tempfile.NamedTemporaryFile(dir=path.parent, delete=False) as file:
        name = file.name
    save_file({"keys": keys, "vectors": np.stack(list(known.values()))}, name)
    os.replace(name, path)


__all__ = ["cache_folder", "gene_texts", "gene_vector_steps", "gene_vectors", "read_gene_texts"]
