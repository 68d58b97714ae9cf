"""Cells as sentences: the names of the expressed genes, the most expressed first, and back again.

    counts [N, G] -> ranked genes -> words -> text -> vectors [N, D] by a text encoder that the caller hands in
    words -> log expression by rank [N, G]

After Cell2Sentence (Levine et al. 2024), GenePT-s (Chen and Zou 2023), CELLama (Choi et al. 2024) and the ablations of
scMPT (2025).
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Any

import torch
from torch import Tensor

HASHED = ("no", "consistent", "per_instance")
SHUFFLED = ("no", "all", "in_context", "top")
HASH_LENGTH = 10  # hexadecimal characters of SHA-256
TOP_SHARE = 0.1  # of the genes in context that the option "top" shuffles


@dataclass(frozen=True)
class SentenceConfig:
    """How a cell becomes words; the options after `n_genes` take away what an encoder may rest on.

    Attributes
    ----------
    n_genes
        The most expressed genes that are named (K); None: every expressed gene.
    hash_genes
        "consistent": each gene name is replaced by one hash; "per_instance": by another one wherever it stands.
    shuffle
        "all": the expressed genes in random order, before the cut to `n_genes`; "in_context": the named ones;
        "top": the first tenth of these.
    fraction
        Share of the named genes that is kept, from the front.
    seed
        Of the hashes and orders.
    """

    n_genes: int | None = 200
    hash_genes: str = "no"
    shuffle: str = "no"
    fraction: float = 1.0
    seed: int = 0

    def __post_init__(self) -> None:
        if self.n_genes is not None and self.n_genes < 1:
            raise ValueError(f"SentenceConfig.n_genes must be at least 1 or None, got {self.n_genes}")
        if self.hash_genes not in HASHED:
            raise ValueError(f"SentenceConfig.hash_genes must be one of {', '.join(HASHED)}, got {self.hash_genes!r}")
        if self.shuffle not in SHUFFLED:
            raise ValueError(f"SentenceConfig.shuffle must be one of {', '.join(SHUFFLED)}, got {self.shuffle!r}")
        if not 0.0 < self.fraction <= 1.0:
            raise ValueError(f"SentenceConfig.fraction must be in (0, 1], got {self.fraction}")


def rank_genes(counts: Tensor, n_genes: int | None = None) -> list[Tensor]:
    """Positions of the expressed genes of each cell, the most expressed first.

    counts [N, G] >= 0 in any unit -> N tensors of at most `n_genes` positions. Genes without counts are left out; equal
    counts keep the order of the genes, so a cell has one sentence.
    """
    order = torch.argsort(counts, dim=-1, descending=True, stable=True)  # [N, G]
    expressed = (counts > 0).sum(dim=-1)
    kept = expressed if n_genes is None else expressed.clamp_max(n_genes)
    return [row[: int(n)] for row, n in zip(order, kept, strict=True)]


class CellSentences:
    """Counts over a list of genes -> the words of each cell.

    Parameters
    ----------
    genes
        Names of the genes [G].
    fits
        How many of a cell's words a context takes; all of them when not given. "all" shuffles before it cuts.
    """

    def __init__(
        self, genes: Sequence[str], config: SentenceConfig, fits: Callable[[list[str]], int] | None = None
    ) -> None:
        self.genes, self.config = list(genes), config
        self._fits = fits or len

    def __call__(self, counts: Tensor, first_cell: int = 0) -> list[list[str]]:
        """counts [N, G] -> the words of N cells; `first_cell` is the position of the first, which seeds its order."""
        config = self.config
        before = None if config.shuffle == "all" else config.n_genes
        return [
            self._words([self.genes[i] for i in ranked.tolist()], first_cell + row)
            for row, ranked in enumerate(rank_genes(counts, before))
        ]

    def _words(self, names: list[str], cell: int) -> list[str]:
        config = self.config
        generator = torch.Generator().manual_seed((config.seed << 32) + cell)
        if config.shuffle == "all":
            names = _shuffled(names, generator)[: config.n_genes]
        words = self._hashed(names, cell)
        words = words[: self._fits(words)]
        if config.shuffle == "in_context":
            words = _shuffled(words, generator)
        elif config.shuffle == "top":
            n_top = math.ceil(TOP_SHARE * len(words))
            words = _shuffled(words[:n_top], generator) + words[n_top:]
        return words[: math.ceil(config.fraction * len(words))]

    def _hashed(self, names: list[str], cell: int) -> list[str]:
        if self.config.hash_genes == "no":
            return names
        instance = f"/{cell}" if self.config.hash_genes == "per_instance" else ""
        keys = (f"{self.config.seed}/{name}{instance}" for name in names)
        return [hashlib.sha256(key.encode()).hexdigest()[:HASH_LENGTH] for key in keys]


def _shuffled(words: list[str], generator: torch.Generator) -> list[str]:
    return [words[i] for i in torch.randperm(len(words), generator=generator).tolist()]


class CellSentenceEncoder:
    """Cells -> vectors by a text encoder, which stays as it is.

    Parameters
    ----------
    model
        A `SentenceTransformer`, or anything with its `encode`, `tokenizer` and `max_seq_length`.
    frame
        The text around the words: "{n}" stands for their number and "{words}" for the words.
    separator
        Between two words.
    """

    def __init__(
        self,
        model: Any,
        genes: Sequence[str],
        config: SentenceConfig,
        *,
        frame: str = "{words}",
        separator: str = " ",
    ) -> None:
        self.model, self.frame, self.separator = model, frame, separator
        self.room = self._room()  # tokens for the words; None: no limit
        self.sentences = CellSentences(genes, config, self.fits)

    def texts(self, counts: Tensor, first_cell: int = 0) -> list[str]:
        """counts [N, G] -> N texts that fit the model's context."""
        words = self.sentences(counts, first_cell)
        return [self.frame.format(n=len(one), words=self.separator.join(one)) for one in words]

    def __call__(self, counts: Tensor, first_cell: int = 0, batch_size: int = 32) -> Tensor:
        """counts [N, G] -> unit vectors [N, D] float32."""
        vectors = self.model.encode(
            self.texts(counts, first_cell),
            batch_size=batch_size,
            normalize_embeddings=True,
            show_progress_bar=False,
            convert_to_numpy=True,
        )
        return torch.as_tensor(vectors, dtype=torch.float32)

    def fits(self, words: list[str]) -> int:
        """How many of the words, from the front, the model's context takes."""
        if self.room is None or not words:
            return len(words)
        text = self.separator.join(words[: self.room])  # a word takes at least one token
        tokens = self.model.tokenizer(text, add_special_tokens=False, return_offsets_mapping=True, verbose=False)
        spans = tokens["offset_mapping"]
        if len(spans) <= self.room:
            return min(len(words), self.room)
        ends = accumulate(len(word) + len(self.separator) for word in words[: self.room])
        cut = spans[self.room - 1][1] if self.room else 0  # where the last token ends that has room
        return sum(end - len(self.separator) <= cut for end in ends)

    def _room(self) -> int | None:
        limit = self.model.max_seq_length
        if limit is None:
            return None
        taken = self.model.tokenizer(self.frame.format(n=999, words=""))["input_ids"]
        return max(0, int(limit) - len(taken))


@dataclass(frozen=True)
class RankFit:
    """Log expression as a line in the log of the rank, fitted over the expressed genes of real cells.

    log(1 + counts per 10,000) = intercept + slope * log10(rank), rank 1 being the most expressed gene.
    """

    slope: float
    intercept: float
    r2: float

    @classmethod
    def fit(cls, counts: Tensor, n_genes: int | None = None) -> RankFit:
        """Least squares over the first `n_genes` expressed genes of counts [N, G] in a linear unit.

        Raises
        ------
        ValueError
            No cell expresses two genes.
        """
        total = counts.sum(dim=-1, keepdim=True)
        expression = torch.log1p(counts / total.clamp_min(torch.finfo(torch.float32).tiny) * 1e4).double()
        ranked = rank_genes(counts, n_genes)
        x = torch.cat([_log_ranks(len(row)) for row in ranked])
        if len(x) < 2 or float(x.max()) == 0.0:
            raise ValueError("a fit of expression to rank needs a cell that expresses at least two genes")
        y = torch.cat([cell[row] for cell, row in zip(expression, ranked, strict=True)])
        dx, dy = x - x.mean(), y - y.mean()
        slope = float((dx * dy).sum() / dx.square().sum())
        left = (dy - slope * dx).square().sum()
        return cls(slope, float(y.mean() - slope * x.mean()), float(1 - left / dy.square().sum().clamp_min(1e-12)))

    def expression(self, sentences: Iterable[Sequence[str]], genes: Sequence[str]) -> tuple[Tensor, list[int]]:
        """Sentences -> log(1 + counts per 10,000) [N, G] over `genes`, and how many words of each name no such gene.

        A gene that is named again stands at the mean of its places; a name that is no gene keeps its place.
        """
        column = {gene: i for i, gene in enumerate(genes)}
        rows, foreign = [], []
        for words in sentences:
            places: dict[int, list[int]] = {}
            for place, word in enumerate(words, start=1):
                if word in column:
                    places.setdefault(column[word], []).append(place)
            row = torch.zeros(len(genes))
            for gene, found in places.items():
                mean_place = sum(found) / len(found)
                row[gene] = max(0.0, self.intercept + self.slope * math.log10(mean_place))
            rows.append(row)
            foreign.append(sum(word not in column for word in words))
        return torch.stack(rows) if rows else torch.zeros(0, len(genes)), foreign


def _log_ranks(n: int) -> Tensor:
    return torch.log10(torch.arange(1, n + 1, dtype=torch.float64))


__all__ = ["CellSentenceEncoder", "CellSentences", "RankFit", "SentenceConfig", "rank_genes"]
