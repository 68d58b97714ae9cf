"""`ic.tl.embed(adata, encoder=...)`: what an encoder of the literature makes of every cell, written into obsm.

sentence    the cell's genes by rank, as a sentence, to a text encoder                     X_sentence
gene_text   the mean of what is written about its genes, weighted by expression            X_gene_text
fusion      the sentence beside the expression encoder, or beside any obsm of the user     X_fusion
"""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
import torch.nn.functional as F
from anndata import AnnData
from torch import Tensor

from encoders import CellSentenceEncoder, SentenceConfig, weighted_mean
from instructcell.batches import AS_FOUND, Reading
from instructcell.errors import ConfigError, InstructCellError
from instructcell.literature.frames import EMBEDDING_FRAME
from instructcell.literature.gene_texts import gene_texts, gene_vector_steps
from instructcell.literature.reading import CELLS_AT_ONCE, NamedCells, read_named
from instructcell.literature.text_encoder import INSTALLED, load_text_encoder
from instructcell.literature.trained import kind_of, load_fusion, load_reader

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer

ENCODERS = ("expression", "sentence", "gene_text", "fusion")
OBSM = {"sentence": "X_sentence", "gene_text": "X_gene_text", "fusion": "X_fusion"}
SEEN = {
    "expression": "the counts of the measured genes",
    "sentence": "the names of the expressed genes in order of expression, as text",
    "gene_text": "descriptions of the genes, weighted by their expression or in its order",
    "fusion": "a text view (genes by rank) and an expression view of each cell",
}
RECORD = "instructcell_encoders"  # key in uns

Steps = Generator[tuple[int, int], None, np.ndarray]


@dataclass(frozen=True)
class TextOptions:
    """What the encoders of the literature are told beside the cells.

    Attributes
    ----------
    text_encoder
        A sentence-transformers model, its folder or hub id; None: the installed all-MiniLM-L6-v2.
    sentence
        How a cell becomes words; None: every expressed gene that the encoder's context takes.
    frame
        Text around the words, with "{words}" and, if wanted, "{n}".
    gene_table
        Table of gene descriptions; None: the shipped one.
    expression
        For "fusion": a key of obsm, or None for the expression encoder of the checkpoint.
    model
        Folder of a trained fusion or gene reader, whose inner view is then written.
    cache
        Folder of kept gene vectors.
    """

    text_encoder: str | Path | SentenceTransformer | None = None
    sentence: SentenceConfig = field(default_factory=lambda: SentenceConfig(n_genes=None))
    frame: str = EMBEDDING_FRAME
    gene_table: str | Path | None = None
    expression: str | None = None
    model: str | Path | None = None
    cache: str | Path | None = None

    def to_record(self) -> dict[str, Any]:
        """As a record holds it: names instead of objects, "" for what was not given."""
        named = {"gene_table": self.gene_table, "expression": self.expression, "model": self.model}
        sentence = {name: "" if value is None else value for name, value in asdict(self.sentence).items()}
        return {
            "text_encoder": name_of(self.text_encoder),
            "frame": self.frame,
            **{name: str(value or "") for name, value in named.items()},
            **{f"sentence_{name}": value for name, value in sentence.items()},
        }


def text_steps(
    adata: AnnData,
    encoder: str,
    options: TextOptions,
    *,
    obsm: str | None = None,
    reading: Reading = AS_FOUND,
    expression_view: np.ndarray | None = None,
) -> Steps:
    """Embed every cell, yielding (done, total); at the end obsm and the record in uns are written.

    Parameters
    ----------
    expression_view
        For "fusion", what the checkpoint's expression encoder makes of the cells [N, Z].

    Raises
    ------
    ConfigError
        There is no such encoder.
    """
    if encoder not in OBSM:
        raise ConfigError(f"there is no encoder '{encoder}'; choose one of {', '.join(ENCODERS)}")
    cells = read_named(adata, reading)
    if encoder == "gene_text":
        vectors = yield from _gene_text(cells, options)
    else:
        vectors = yield from _sentences(cells, options)
        if encoder == "fusion":
            vectors = _fused(adata, vectors, options, expression_view)
    found = np.ascontiguousarray(vectors.numpy(), np.float32)
    key = obsm or OBSM[encoder]
    adata.obsm[key] = found
    remember(adata, key, encoder, {**options.to_record(), "n_genes_measured": len(cells.genes)})
    return found


def _sentences(cells: NamedCells, options: TextOptions) -> Generator[tuple[int, int], None, Tensor]:
    model = load_text_encoder(options.text_encoder)
    encode = CellSentenceEncoder(model, cells.genes, options.sentence, frame=options.frame)
    parts: list[Tensor] = []
    for counts in cells.pieces():
        parts.append(encode(counts, sum(map(len, parts))))
        yield sum(map(len, parts)), cells.n_cells
    return torch.cat(parts)


def _gene_text(cells: NamedCells, options: TextOptions) -> Generator[tuple[int, int], None, Tensor]:
    if options.model is not None:
        reader = load_reader(options.model, cache=options.cache)
        return (yield from _pieces(cells, lambda counts: reader.embed(counts, cells.genes)))
    known = yield from gene_vector_steps(
        gene_texts(cells.genes, options.gene_table), load_text_encoder(options.text_encoder), cache=options.cache
    )
    matrix = gene_matrix(cells.genes, known)
    return (yield from _pieces(cells, lambda counts: weighted_mean(log_normalise(counts), matrix)))


def _pieces(cells: NamedCells, embed: Any) -> Generator[tuple[int, int], None, Tensor]:
    parts: list[Tensor] = []
    for counts in cells.pieces(at_once=CELLS_AT_ONCE):
        parts.append(embed(counts))
        yield sum(map(len, parts)), cells.n_cells
    return torch.cat(parts)


def _fused(adata: AnnData, text: Tensor, options: TextOptions, view: np.ndarray | None) -> Tensor:
    """The trained head's dense layers, or both views at unit length beside each other."""
    expression = torch.from_numpy(np.asarray(expression_of(adata, options.expression, view), np.float32))
    if options.model is None:
        return torch.cat([text, F.normalize(expression, dim=-1)], dim=-1)
    head = load_fusion(options.model)
    for name, given, wanted in (
        ("text", text, head.model.config.n_text),
        ("expression", expression, head.model.config.n_expression),
    ):
        if given.shape[1] != wanted:
            raise InstructCellError(
                f"the fusion in {options.model} was trained on {name} embeddings of width {wanted}, found "
                f"{given.shape[1]}; use the same encoders: {head.inputs}"
            )
    with torch.inference_mode():
        return head.model.embed(text, expression)


def expression_of(adata: AnnData, key: str | None, view: np.ndarray | None) -> np.ndarray:
    """The expression side of a fusion: an obsm of the user, or what was computed."""
    if key is None:
        if view is None:
            raise InstructCellError("a fusion needs an expression embedding; name a key of obsm or a checkpoint")
        return view
    if key not in adata.obsm:
        found = ", ".join(adata.obsm) or "none"
        raise InstructCellError(f"found no '{key}' in obsm (it has {found}); compute it first or name another")
    values = np.asarray(adata.obsm[key], dtype=np.float32)
    if values.ndim != 2 or not np.isfinite(values).all():
        raise InstructCellError(f"obsm['{key}'] holds NaN or is no table of numbers; a fusion needs one row per cell")
    return values


def gene_matrix(genes: list[str], vectors: dict[str, np.ndarray]) -> Tensor:
    """Vectors of the genes [G, D]; zero for a gene without a text, which then adds nothing to a mean."""
    width = len(next(iter(vectors.values())))
    return torch.from_numpy(np.stack([vectors.get(gene, np.zeros(width, np.float32)) for gene in genes]))


def log_normalise(counts: Tensor) -> Tensor:
    """Counts [N, G] -> log(1 + counts per 10,000)."""
    total = counts.sum(dim=-1, keepdim=True).clamp_min(torch.finfo(counts.dtype).tiny)
    return torch.log1p(counts / total * 1e4)


def name_of(text_encoder: Any) -> str:
    """A text encoder as a record names it."""
    if text_encoder is None or isinstance(text_encoder, (str, Path)):
        return str(text_encoder or INSTALLED)
    return str(getattr(text_encoder.model_card_data, "base_model", None) or type(text_encoder).__name__)


def remember(adata: AnnData, key: str, encoder: str, arguments: dict[str, Any]) -> None:
    """Note in uns which encoder wrote an obsm, and what it saw."""
    earlier = dict(adata.uns.get(RECORD, {}))
    adata.uns[RECORD] = {**earlier, key: {"encoder": encoder, "saw": SEEN[encoder], **arguments}}


def describe_encoders(adata: AnnData) -> str:
    """Which encoder saw what, in sentences for a reader; one per embedding that was made."""
    from instructcell.tasks import EMBEDDING

    said = []
    if EMBEDDING in adata.obsm:
        said.append(f"{EMBEDDING}: the expression encoder, which saw {SEEN['expression']}.")
    for key, record in adata.uns.get(RECORD, {}).items():
        by = f" through {record['text_encoder']}" if record.get("text_encoder") else ""
        said.append(f"{key}: the {record['encoder'].replace('_', '-')} encoder{by}, which saw {record['saw']}.")
    return "\n".join(said) or "No encoder has seen these cells yet; annotate or embed them first."


__all__ = ["ENCODERS", "TextOptions", "describe_encoders", "gene_matrix", "kind_of", "log_normalise", "text_steps"]
