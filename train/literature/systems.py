"""Every system of the comparison behind one face: fit on labelled cells, then name others.

A prediction is [S, N]: one row per seed, usually one. What a system fits lies in its folder, so that a second run finds
it there.
"""

from __future__ import annotations

import hashlib
import json
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from sklearn.neural_network import MLPClassifier
from torch import Tensor

from encoders import CellSentenceEncoder, CellSentences, SentenceConfig, weighted_mean
from instructcell import tools
from instructcell.checkpoint import Checkpoint
from instructcell.drugs import DrugSet
from instructcell.errors import LabelError
from instructcell.literature.cell_sentence_lm import CellSentenceLM
from instructcell.literature.embed import gene_matrix, log_normalise
from instructcell.literature.frames import CELLAMA_FRAME, EMBEDDING_FRAME
from instructcell.literature.gene_texts import gene_texts, gene_vectors
from instructcell.literature.language import open_language_model
from instructcell.literature.neighbours import require_two_classes, vote
from instructcell.literature.rerank import ask_types, rerank
from instructcell.literature.text_encoder import fingerprint, load_text_encoder
from instructcell.literature.trained import (
    TrainedFusion,
    TrainedReader,
    build_reader,
    kind_of,
    load_fusion,
    load_reader,
)
from train.baselines import logistic_regression, nearest_neighbours
from train.literature import causal
from train.literature.backbones import find_backbone
from train.literature.cells import Cells, some
from train.literature.heads import train_fusion, train_reader
from train.literature.recipe import to_record
from train.metrics import log_normalise as log_expression

CELLAMA_GENES = 20  # named in a sentence of CELLama where nothing else is asked for
AT_ONCE = 256


class System(ABC):
    """One way to read a cell.

    Parameters
    ----------
    settings
        See `train.literature.recipe`.
    folder
        Where what is fitted lies.
    runs
        Where gene vectors, sentence vectors and backbones lie, which systems share.

    Attributes
    ----------
    recall
        Whether vectors that were made before are taken as they are; False where the time to make them is measured.
    spared
        CPU seconds that the vectors which were taken had cost when they were made.
    """

    name: ClassVar[str]

    def __init__(self, settings: Any, folder: Path, runs: Path, seed: int = 0) -> None:
        self.settings, self.folder, self.runs, self.seed = settings, folder, runs, seed
        self.labels: tuple[str, ...] = ()
        self.recall, self.spared = True, 0.0

    def fit(self, cells: Cells) -> None:
        """Learn from labelled cells.

        Raises
        ------
        LabelError
            The cells have one type only.
        """
        require_two_classes(cells.labels, "the training cells")
        self.labels = tuple(sorted(set(map(str, cells.labels))))
        self._fit(some(cells, self.settings.max_cells or None, self.seed))

    @abstractmethod
    def _fit(self, cells: Cells) -> None: ...

    @abstractmethod
    def predict(self, cells: Cells) -> np.ndarray:
        """Labels [S, N]."""

    def vectors(self, cells: Cells) -> np.ndarray | None:
        """What the system's encoder makes of cells [N, D] before anything is learned; None where it has none."""
        return None

    def learned(self, cells: Cells) -> np.ndarray | None:
        """The view that the system's classifier reads after training [N, D]; None where it learns none."""
        return None

    def sentences(
        self,
        cells: Cells,
        text_encoder: str,
        config: SentenceConfig,
        frame: str = EMBEDDING_FRAME,
        separator: str = " ",
    ) -> np.ndarray:
        """Unit vectors [N, D] of the cells' sentences, which systems share."""

        def read() -> np.ndarray:
            return embed_sentences(cells, text_encoder, config, frame=frame, separator=separator)

        if not self.recall:
            return read()
        key = key_of(cells, f"sentences {text_encoder} {config} {frame!r} {separator!r}")
        found, seconds = cached(self.runs / "vectors", key, read)
        self.spared += seconds
        return found

    def codes(self, cells: Cells) -> Tensor:
        """Class of each cell [N]."""
        return torch.tensor([self.labels.index(str(label)) for label in cells.labels])


class EmCell(System):
    """A causal language model fine-tuned on cell sentences."""

    name = "emcell"

    def _fit(self, cells: Cells) -> None:
        backbone = find_backbone(self.settings.backbone, self.runs)
        causal.fine_tune(cells, self.settings, self.folder, backbone=backbone, seed=self.seed)
        self.model = CellSentenceLM.load(self.folder)

    def predict(self, cells: Cells) -> np.ndarray:
        return causal.predict(self.model, cells, self.labels)[None]


class ByEmbedding(System):
    """An embedding of the cell, then the nearest labelled cells or scikit-learn's MLP."""

    frame: ClassVar[str] = EMBEDDING_FRAME
    separator: ClassVar[str] = " "
    usual_genes: ClassVar[int] = 0  # 0: what the context takes

    def vectors(self, cells: Cells) -> np.ndarray:
        config = sentence_config(self.settings, self.usual_genes, self.seed)
        return self.sentences(cells, self.settings.text_encoder, config, self.frame, self.separator)

    def _fit(self, cells: Cells) -> None:
        self.known, self.truth = self.vectors(cells), cells.labels
        if self.settings.head == "mlp":
            self.mlp = MLPClassifier(random_state=self.seed).fit(self.known, self.truth)

    def predict(self, cells: Cells) -> np.ndarray:
        vectors = self.vectors(cells)
        if self.settings.head == "mlp":
            return self.mlp.predict(vectors)[None]
        return vote(self.known, self.truth, vectors, self.settings.neighbours).labels[None]


class GenePTS(ByEmbedding):
    """GenePT-s: every expressed gene by rank, as many as the text encoder reads."""

    name = "genept_s"


class Cellama(ByEmbedding):
    """CELLama: a sentence of the few top genes."""

    name = "cellama"
    frame = CELLAMA_FRAME
    separator = ", "
    usual_genes = CELLAMA_GENES


class GenePTW(ByEmbedding):
    """GenePT-w: the expression-weighted mean of gene-text vectors."""

    name = "genept_w"

    def vectors(self, cells: Cells) -> np.ndarray:
        texts = gene_texts(cells.genes, self.settings.gene_table or None)
        encoder = load_text_encoder(self.settings.text_encoder or None)
        vectors = gene_vectors(texts, encoder, cache=self.runs / "vectors")
        matrix = gene_matrix(list(cells.genes), vectors)
        return by_pieces(cells, lambda counts, _: weighted_mean(log_normalise(counts), matrix))


class ScReader(System):
    """Gene texts by rank through a projector into a frozen language model."""

    name = "screader"

    def _fit(self, cells: Cells) -> None:
        if kind_of(self.folder) == "gene_reader":
            self.reader = load_reader(self.folder, cache=self.runs / "vectors")
            return
        settings = self.settings
        reader = build_reader(
            cells.genes,
            self.labels,
            backbone=find_backbone(settings.backbone, self.runs) if settings.backbone else None,
            text_encoder=settings.text_encoder or None,
            gene_table=settings.gene_table or None,
            cache=self.runs / "vectors",
            n_genes=settings.n_genes,
            n_rank=settings.n_rank,
            n_hidden=settings.n_hidden,
        )
        ranks = torch.cat([_padded(part, settings.n_genes) for part in ranked_pieces(reader, cells)])
        train_reader(reader.model, ranks, self.codes(cells), settings, self.folder, self.seed)
        reader.save(self.folder)
        self.reader = reader

    def learned(self, cells: Cells) -> np.ndarray:
        return by_pieces(cells, lambda counts, _: self.reader.embed(counts, cells.genes))

    def predict(self, cells: Cells) -> np.ndarray:
        parts = [
            self.reader.probabilities(cells.dense(start, start + AT_ONCE), cells.genes)
            for start in range(0, len(cells), AT_ONCE)
        ]
        return np.array(self.reader.labels)[np.concatenate(parts).argmax(axis=1)][None]


class ScMPT(System):
    """scMPT: the text view and the expression view in one head, or one of them alone with an MLP."""

    name = "scmpt"

    def _fit(self, cells: Cells) -> None:
        settings = self.settings
        folders = [self.folder / f"seed{seed}" for seed in range(settings.seeds)]
        if settings.views == "both" and all(kind_of(folder) == "fusion" for folder in folders):
            self.heads = [load_fusion(folder) for folder in folders]
            return
        text, expression = self.views(cells)
        if settings.views != "both":
            one = text if settings.views == "text" else expression
            self.mlps = [
                MLPClassifier(random_state=self.seed + seed).fit(one, cells.labels) for seed in range(settings.seeds)
            ]
            return
        inputs = {"text_encoder": settings.text_encoder, "expression": settings.obsm or settings.checkpoint}
        self.heads = []
        for seed, folder in enumerate(folders):
            model = train_fusion(
                torch.from_numpy(text), torch.from_numpy(expression), self.codes(cells), settings, self.seed + seed
            )
            self.heads.append(TrainedFusion(model, self.labels, inputs))
            self.heads[-1].save(folder)

    def predict(self, cells: Cells) -> np.ndarray:
        text, expression = self.views(cells)
        if self.settings.views != "both":
            one = text if self.settings.views == "text" else expression
            return np.stack([mlp.predict(one) for mlp in self.mlps])
        views = torch.from_numpy(text), torch.from_numpy(expression)
        return np.stack([np.array(head.labels)[head.probabilities(*views).argmax(axis=1)] for head in self.heads])

    def learned(self, cells: Cells) -> np.ndarray | None:
        """The fused view of the first seed."""
        if self.settings.views != "both":
            return None
        text, expression = (torch.from_numpy(view) for view in self.views(cells))
        with torch.inference_mode():
            return self.heads[0].model.embed(text, expression).numpy()

    def views(self, cells: Cells) -> tuple[np.ndarray, np.ndarray]:
        """Text [N, T] and expression [N, E] embeddings; one that is not wanted is empty."""
        wanted, nothing = self.settings.views, np.zeros((len(cells), 0), np.float32)
        text = expression = nothing
        if wanted != "expression":
            text = self.sentences(cells, self.settings.text_encoder, sentence_config(self.settings, 0, self.seed))
        if wanted != "text":
            expression = self._expression(cells)
        return text, expression

    def _expression(self, cells: Cells) -> np.ndarray:
        if not self.settings.obsm:
            return embed_expression(cells, self.settings.checkpoint)
        if self.settings.obsm not in cells.obsm:
            raise LabelError(
                f"the cells have no {self.settings.obsm!r} in obsm (they have {', '.join(cells.obsm) or 'none'}); "
                "compute it in every file first, or name a checkpoint"
            )
        return cells.obsm[self.settings.obsm]


class Rerank(System):
    """A language model chooses among the types of the nearest cells, or among all types."""

    name = "rerank"

    def _fit(self, cells: Cells) -> None:
        model = find_backbone(self.settings.model, self.runs)
        self.model = open_language_model(model, self.settings.url or None)
        self.truth = cells.labels
        if not self.settings.zero_shot:
            self.known = embed_expression(cells, self.settings.checkpoint)

    def predict(self, cells: Cells) -> np.ndarray:
        words = CellSentences(cells.genes, SentenceConfig(self.settings.n_genes))
        sentences = [s for start in range(0, len(cells), AT_ONCE) for s in words(cells.dense(start, start + AT_ONCE))]
        species = str(cells.species[0]) if len(cells) else ""
        if self.settings.zero_shot:
            ask = partial(ask_types, labels=self.labels, model=self.model, species=species, seed=self.seed)
            return self._answered(cells, lambda done: ask(sentences[done:], first_cell=done))
        named = vote(self.known, self.truth, embed_expression(cells, self.settings.checkpoint)).candidates
        return self._answered(cells, lambda done: rerank(sentences[done:], named[done:], self.model, species=species))

    def _answered(self, cells: Cells, ask: Callable[[int], Iterator[str]]) -> np.ndarray:
        """Answers, each kept as it comes: when the model stops answering, the next run goes on behind the last one."""
        if not self.recall:
            return np.array(list(ask(0)))[None]
        asked = [to_record(self.settings), self.labels, self.seed]
        path = self.folder / f"answers-{key_of(cells, json.dumps(asked, sort_keys=True))}.jsonl"
        whole = path.read_text(encoding="utf-8").rpartition("\n")[0] if path.is_file() else ""
        found = [str(json.loads(line)) for line in whole.splitlines()]
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("".join(f"{json.dumps(answer)}\n" for answer in found), encoding="utf-8")
        with path.open("a", encoding="utf-8") as file:
            for answer in ask(len(found)):
                file.write(f"{json.dumps(answer)}\n")
                file.flush()
                found.append(answer)
        return np.array(found)[None]


class InstructCellSystem(System):
    """The checkpoint as it is, told only which labels there are; it learns nothing from the training cells."""

    name = "instructcell"
    checkpoint: Checkpoint | None = None  # a loaded one, where there is one
    drugs: np.ndarray | None = None  # per cell, where the response to a drug is asked

    def _fit(self, cells: Cells) -> None:
        self.loaded = self.checkpoint or tools.open_checkpoint(self.settings.checkpoint)

    def vectors(self, cells: Cells) -> np.ndarray:
        return embed_expression(cells, self.loaded)

    def predict(self, cells: Cells) -> np.ndarray:
        if set(self.labels) <= {"sensitive", "resistant"}:
            return self._responses(cells)[None]
        known = [label for label in self.labels if self._knows(label)]
        require_two_classes(np.array(known), "the labels that the checkpoint knows")
        found = tools.annotate(cells.to_adata(), checkpoint=self.loaded, labels=known)
        return found.table["best_guess"].to_numpy(str)[None]

    def _knows(self, label: str) -> bool:
        return any(indices for _, indices in self.loaded.labels.project([label]))

    def _responses(self, cells: Cells) -> np.ndarray:
        """By the drug of each patient (the cells' groups say "patient / drug")."""
        drugs = np.array([group.rpartition(" / ")[2] for group in cells.groups])
        known = DrugSet.of(self.loaded.drugs)
        found = np.full(len(cells), "", dtype=object)
        for drug in np.unique(drugs):
            rows = np.flatnonzero(drugs == drug)
            asked = tools.drug_response(cells[rows].to_adata(), drug=known.get(drug).name, checkpoint=self.loaded)
            found[rows] = asked.table["response"].to_numpy(str)
        return found.astype(str)


class Baseline(System):
    """A classifier of scikit-learn on log expression."""

    @abstractmethod
    def make(self, n_cells: int) -> Any:
        """The classifier, not fitted yet, for so many training cells."""

    def _fit(self, cells: Cells) -> None:
        self.genes = cells.genes
        self.model = self.make(len(cells)).fit(log_expression(cells.counts), cells.labels)

    def predict(self, cells: Cells) -> np.ndarray:
        return self.model.predict(log_expression(cells.on_genes(self.genes).counts)).astype(str)[None]


class LogisticRegressionSystem(Baseline):
    """Logistic regression on log expression."""

    name = "logistic regression"

    def make(self, n_cells: int) -> Any:
        return logistic_regression()


class TenNN(Baseline):
    """Ten nearest neighbours on log expression, cosine."""

    name = "10-NN"

    def make(self, n_cells: int) -> Any:
        return nearest_neighbours(n_cells)


class Majority(System):
    """Always the most frequent type."""

    name = "majority"

    def _fit(self, cells: Cells) -> None:
        names, sizes = np.unique(cells.labels, return_counts=True)
        self.most = str(names[sizes.argmax()])

    def predict(self, cells: Cells) -> np.ndarray:
        return np.full((1, len(cells)), self.most)


SYSTEMS: dict[str, type[System]] = {
    system.name: system
    for system in (
        InstructCellSystem, EmCell, Cellama, GenePTS, GenePTW, ScReader, ScMPT, Rerank, LogisticRegressionSystem, TenNN,
        Majority,
    )
}  # fmt: skip


# ---- embeddings


def sentence_config(settings: Any, usual: int, seed: int) -> SentenceConfig:
    """The words that settings ask for."""
    config = SentenceConfig(settings.n_genes or usual or None, seed=seed)
    ablations = {
        name: getattr(settings, name) for name in ("hash_genes", "shuffle", "fraction") if hasattr(settings, name)
    }
    return replace(config, **ablations)


def embed_sentences(
    cells: Cells, text_encoder: str, config: SentenceConfig, *, frame: str = EMBEDDING_FRAME, separator: str = " "
) -> np.ndarray:
    """Unit vectors [N, D] of the cells' sentences."""
    model = load_text_encoder(text_encoder or None)
    encode = CellSentenceEncoder(model, cells.genes, config, frame=frame, separator=separator)
    return by_pieces(cells, encode)


def embed_expression(cells: Cells, checkpoint: str | Checkpoint) -> np.ndarray:
    """The cell encoder of a checkpoint [N, Z]."""
    return np.asarray(tools.embed(cells.to_adata(), checkpoint=checkpoint), np.float32)


def by_pieces(cells: Cells, embed: Callable[[Tensor, int], Tensor]) -> np.ndarray:
    starts = range(0, len(cells), AT_ONCE)
    return torch.cat([embed(cells.dense(start, start + AT_ONCE), start) for start in starts]).numpy()


def ranked_pieces(reader: TrainedReader, cells: Cells) -> list[Tensor]:
    return [reader.ranks(cells.dense(start, start + AT_ONCE), cells.genes) for start in range(0, len(cells), AT_ONCE)]


def _padded(ranks: Tensor, width: int) -> Tensor:
    return torch.nn.functional.pad(ranks, (0, width - ranks.shape[1]), value=-1)


def key_of(cells: Cells, what: str) -> str:
    """A hash of cells, genes and what is made of them."""
    digest = hashlib.sha256(what.encode())
    for array in (cells.counts.data, cells.counts.indices, cells.counts.indptr):
        digest.update(np.ascontiguousarray(array).tobytes())
    digest.update("\n".join(cells.genes).encode())
    return digest.hexdigest()[:24]


def cached(folder: Path, key: str, make: Callable[[], np.ndarray]) -> tuple[np.ndarray, float]:
    """An array that is made once and kept, and the CPU seconds that it took where it was not made now."""
    path = folder / f"{key}.npz"
    if path.is_file():
        with np.load(path, allow_pickle=False) as kept:
            return kept["array"], float(kept["seconds"])
    started = time.process_time()
    array = make()
    folder.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(".partial.npz")
    np.savez(partial, array=array, seconds=time.process_time() - started)
    partial.replace(path)
    return array, 0.0


__all__ = ["SYSTEMS", "System", "cached", "embed_expression", "embed_sentences", "fingerprint", "key_of"]
