"""What a text encoder with an MLP rests on: integrated gradients and LIME over genes, summed over cells of a type.

Needs captum (extra `literature`). A gene's attribution is the sum over its tokens; ten cells per type are added up, and
the ten genes with the largest sums are held against the marker table (scMPT 2025).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from encoders import CellSentenceEncoder
from instructcell.errors import ConfigError

CELLS_PER_TYPE = 10
TOP_GENES = 10
STEPS = 20  # of the path of integrated gradients
PERTURBED = 100  # sentences that LIME reads per cell


@dataclass(frozen=True)
class Attribution:
    """Top genes of a type by both methods, and how many of them are known markers."""

    label: str
    cells: int
    gradients: tuple[str, ...]
    lime: tuple[str, ...]
    known_gradients: float  # share of the top genes in the marker table
    known_lime: float
    agreement: float  # share of the top genes that both methods name


def explain(
    encoder: CellSentenceEncoder,
    head: nn.Module,
    counts: Tensor,
    truth: np.ndarray,
    labels: Sequence[str],
    markers: Mapping[str, Sequence[str]],
    *,
    cells_per_type: int = CELLS_PER_TYPE,
    seed: int = 0,
) -> list[Attribution]:
    """Both methods on some cells of every type that has markers.

    Parameters
    ----------
    head
        Sentence vector [N, D] -> logits [N, C] in the order of `labels`.
    counts, truth
        Cells [N, G] over the encoder's genes, and their types [N].
    markers
        Type -> its known marker genes.

    Raises
    ------
    ConfigError
        captum is not installed.
    """
    require_captum()
    found = []
    for code, label in enumerate(labels):
        rows = np.flatnonzero(truth == label)[:cells_per_type]
        if not len(rows) or not markers.get(label):
            continue
        sentences = encoder.sentences(counts[rows])
        by_gradient, by_lime = {}, {}
        for cell, words in enumerate(sentences):
            words = words[: encoder.fits(words)]
            _add(by_gradient, words, gradients(encoder, head, words, code))
            _add(by_lime, words, lime(encoder, head, words, code, seed=seed + cell))
        tops = [_top(sums) for sums in (by_gradient, by_lime)]
        shares = [sum(gene in set(markers[label]) for gene in top) / TOP_GENES for top in tops]
        both = len(set(tops[0]) & set(tops[1])) / TOP_GENES
        found.append(Attribution(label, len(rows), *map(tuple, tops), *shares, both))  # type: ignore[arg-type]
    return found


def gradients(encoder: CellSentenceEncoder, head: nn.Module, words: list[str], code: int) -> np.ndarray:
    """Integrated gradients of a class from an empty sentence to the cell's: one number per word."""
    from captum.attr import LayerIntegratedGradients

    model = encoder.model
    features, spans = _tokens(encoder, words)
    pad = model.tokenizer.pad_token_id
    ids = features["input_ids"]
    baseline = torch.where(spans[None] >= 0, torch.full_like(ids, pad), ids)

    def score(input_ids: Tensor) -> Tensor:
        mask = torch.ones_like(input_ids)
        output = model({**_others(features, len(input_ids)), "input_ids": input_ids, "attention_mask": mask})
        return head(nn.functional.normalize(output["sentence_embedding"], dim=-1))

    words_layer = model[0].auto_model.get_input_embeddings()
    method = LayerIntegratedGradients(score, words_layer)
    values = method.attribute(ids, baselines=baseline, target=code, n_steps=STEPS, internal_batch_size=8)
    return _per_word(values.sum(dim=-1)[0].detach(), spans, len(words))


def lime(encoder: CellSentenceEncoder, head: nn.Module, words: list[str], code: int, *, seed: int = 0) -> np.ndarray:
    """LIME: sentences without some of the words, and a weighted linear model of the class's probability."""
    from captum.attr import Lime

    present = torch.ones(1, len(words))

    @torch.no_grad()
    def score(kept: Tensor) -> Tensor:
        texts = [
            encoder.frame.format(
                n=int(row.sum()), words=encoder.separator.join(w for w, k in zip(words, row, strict=True) if k > 0.5)
            )
            for row in kept
        ]
        vectors = encoder.model.encode(
            texts, normalize_embeddings=True, convert_to_tensor=True, show_progress_bar=False
        )
        return head(vectors.cpu()).softmax(dim=-1)

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        method = Lime(score, interpretable_model=_ridge())
        values = method.attribute(present, target=code, n_samples=PERTURBED, perturbations_per_eval=32)
    return values[0].detach().numpy()


def require_captum() -> None:
    """A ConfigError that names the extra where captum is not installed."""
    try:
        import captum  # noqa: F401
    except ImportError as error:
        raise ConfigError(
            "attributions need captum; install it with: pip install 'instructcell[literature]'"
        ) from error


def _ridge() -> Any:
    from captum._utils.models.linear_model import SkLearnRidge

    return SkLearnRidge(alpha=1.0)


def _tokens(encoder: CellSentenceEncoder, words: list[str]) -> tuple[dict[str, Tensor], Tensor]:
    """The model's features of one sentence, and the word of each token [T], -1 where it is none."""
    text = encoder.frame.format(n=len(words), words=encoder.separator.join(words))
    tokenizer = encoder.model.tokenizer
    read = tokenizer(
        text, return_tensors="pt", return_offsets_mapping=True, truncation=True,
        max_length=encoder.model.max_seq_length,
    )  # fmt: skip
    offsets = read.pop("offset_mapping")[0].tolist()
    starts, at = [], len(encoder.frame.format(n=len(words), words="\0").split("\0")[0])
    for word in words:
        starts.append((at, at + len(word)))
        at += len(word) + len(encoder.separator)
    ends = np.array([end for _, end in starts])
    spans = []
    for start, end in offsets:
        word = int(np.searchsorted(ends, end)) if end > start else len(words)
        spans.append(word if word < len(words) and end > starts[word][0] else -1)
    device = encoder.model.device
    return {name: value.to(device) for name, value in read.items()}, torch.tensor(spans)


def _others(features: Mapping[str, Tensor], n: int) -> dict[str, Tensor]:
    """Features beside ids and mask, for a batch."""
    return {
        name: value.expand(n, -1) for name, value in features.items() if name not in ("input_ids", "attention_mask")
    }


def _per_word(values: Tensor, spans: Tensor, n_words: int) -> np.ndarray:
    sums = torch.zeros(n_words + 1)
    sums.index_add_(0, torch.where(spans >= 0, spans, torch.full_like(spans, n_words)), values.cpu().float())
    return sums[:n_words].numpy()


def _add(sums: dict[str, float], words: Sequence[str], values: np.ndarray) -> None:
    for word, value in zip(words, values, strict=True):
        sums[word] = sums.get(word, 0.0) + float(value)


def _top(sums: Mapping[str, float]) -> list[str]:
    """The genes with the largest positive sums."""
    return [gene for gene, value in sorted(sums.items(), key=lambda row: (-row[1], row[0])) if value > 0][:TOP_GENES]


def sentence_head(mlp: Any) -> nn.Module:
    """scikit-learn's fitted MLPClassifier of more than two classes as a module: vectors [N, D] -> logits [N, C]."""
    layers: list[nn.Module] = []
    for weight, bias in zip(mlp.coefs_, mlp.intercepts_, strict=True):
        linear = nn.Linear(weight.shape[0], weight.shape[1])
        linear.weight.data = torch.tensor(weight.T, dtype=torch.float32)
        linear.bias.data = torch.tensor(bias, dtype=torch.float32)
        layers += [linear, nn.ReLU()]
    if layers[-2].out_features == 1:  # type: ignore[union-attr]  # two classes: one logit for the second
        last: nn.Linear = layers[-2]  # type: ignore[assignment]
        two = nn.Linear(last.in_features, 2)
        two.weight.data = torch.cat([torch.zeros_like(last.weight.data), last.weight.data])
        two.bias.data = torch.cat([torch.zeros_like(last.bias.data), last.bias.data])
        layers[-2] = two
    return nn.Sequential(*layers[:-1])
