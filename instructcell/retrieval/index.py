"""The index: passages as vectors in FAISS, searched by the names in a question first and by its meaning second."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, get_args

import numpy as np

from instructcell.errors import ConfigError, ResourceError
from instructcell.retrieval.names import NameBook, load_name_book
from instructcell.retrieval.passages import Kind, Passage, digest, kind_ranges, load_passages
from instructcell.retrieval.sentence_encoder import WEIGHTS_SHA256, SentenceEncoder, load_sentence_encoder

if TYPE_CHECKING:
    import faiss

VECTORS, MANIFEST = "passages.faiss", "index.json"
QUANTISER = "SQ6"  # 6 bits a dimension: the nearest passages of 97 % of exact search in three quarters of the int8 size
# Cosine between a question and its nearest passage, from which the passage is taken to answer it. Calibrated on the
# questions of tests/test_retrieval.py: most that the tables can answer lie above, those about anything else below.
SUPPORT = 0.45


@dataclass(frozen=True)
class Manifest:
    """What an index was built from."""

    passages_sha256: str
    weights_sha256: str
    n_passages: int
    quantiser: str


class MarkerIndex:
    """Passages that can be searched.

    Parameters
    ----------
    passages
        The passages, grouped by kind.
    vectors
        A FAISS inner-product index with one vector for each passage, in the same order.
    encoder
        Turns a question into a unit vector of the same space; None loads the shipped encoder when it is first needed.
    names
        Finds the cell types and genes a question names; None leaves out the search by name.
    """

    def __init__(
        self,
        passages: Sequence[Passage],
        vectors: faiss.Index,
        *,
        encoder: SentenceEncoder | None = None,
        names: NameBook | None = None,
    ) -> None:
        if vectors.ntotal != len(passages):
            raise ResourceError(
                f"the index holds {vectors.ntotal} vectors for {len(passages)} passages; build it again."
            )
        self.passages = passages
        self.names = names
        self._vectors = vectors
        self._encoder = encoder
        self._ranges = kind_ranges(passages)
        self._at: dict[tuple[str, str], int] = {(passage.kind, passage.id): at for at, passage in enumerate(passages)}

    def __len__(self) -> int:
        return len(self.passages)

    def search(self, text: str, k: int = 8, kind: Kind | None = None, *, min_score: float = SUPPORT) -> list[Passage]:
        """Passages that answer a text, best first: those of the names in it (score 1), then the nearest by meaning.

        Parameters
        ----------
        text
            A question or a few words.
        k
            The most passages to return.
        kind
            "markers", "gene" or "ontology" for passages of one kind only.
        min_score
            Passages found by meaning that are less near (cosine) are left out.

        Returns
        -------
        list of Passage
            Empty when nothing supports an answer.

        Raises
        ------
        ConfigError
            If `kind` is none of the three.

        Examples
        --------
        >>> load_index().search("what marks a delta cell?", k=1)[0].title
        'pancreatic D cell'
        """
        if kind is not None and kind not in get_args(Kind):
            raise ConfigError(f"kind {kind!r} is not one of {', '.join(get_args(Kind))}; leave it out to search all.")
        found = self.named(text, kind)
        have = {(passage.kind, passage.id) for passage in found}
        near = self.nearest(text, k + len(found), kind) if len(found) < k else []
        found += [p for p in near if p.score >= min_score and (p.kind, p.id) not in have]
        return found[:k]

    def named(self, text: str, kind: Kind | None = None) -> list[Passage]:
        """Passages of the cell types and genes that a text names, in its order, with score 1."""
        if self.names is None:
            return []
        mentions = [(m.start, "gene", m.id) for m in self.names.genes(text)]
        mentions += [(m.start, each, m.id) for m in self.names.cell_types(text) for each in ("markers", "ontology")]
        passages = (self.get(each, id) for _, each, id in sorted(mentions, key=lambda m: m[0]) if kind in (None, each))
        return [replace(passage, score=1.0) for passage in passages if passage is not None]

    def nearest(self, text: str, k: int, kind: Kind | None = None) -> list[Passage]:
        """The k passages nearest in meaning, with their cosine as score, whether or not they are near enough."""
        import faiss

        if not text.strip() or k < 1:
            return []
        span = self._ranges.get(kind, range(0)) if kind else range(len(self.passages))
        options = faiss.SearchParameters(sel=faiss.IDSelectorRange(span.start, span.stop))  # type: ignore[call-arg]
        encoder = self._encoder or load_sentence_encoder()
        scores, positions = self._vectors.search(encoder.encode([text]), min(k, len(span)) or 1, params=options)
        pairs = zip(scores[0].tolist(), positions[0].tolist(), strict=True)
        return [replace(self.passages[at], score=float(score)) for score, at in pairs if at >= 0]

    def get(self, kind: str, id: str) -> Passage | None:
        """The passage of a kind about a Cell Ontology id or gene symbol, or None."""
        at = self._at.get((kind, id))
        return None if at is None else self.passages[at]


@lru_cache(maxsize=1)
def load_index() -> MarkerIndex:
    """The shipped index, read once per process; the sentence encoder is loaded with the first question that needs it.

    Raises
    ------
    ResourceError
        If the index is missing, or was built from other tables or other weights than those that are installed.
    """
    from instructcell.resources import RESOURCES

    passages = load_passages()
    return MarkerIndex(passages, read_vectors(RESOURCES / "index", passages), names=load_name_book())


def make_vectors(vectors: np.ndarray, quantiser: str = QUANTISER) -> faiss.Index:
    """A FAISS inner-product index of unit vectors [n, D], float32."""
    import faiss

    index = faiss.index_factory(vectors.shape[1], quantiser, faiss.METRIC_INNER_PRODUCT)
    index.train(vectors)
    index.add(vectors)
    return index


def write_vectors(folder: Path, index: faiss.Index, passages: Sequence[Passage]) -> Manifest:
    """Write an index and what it was built from."""
    import faiss

    manifest = Manifest(digest(passages), WEIGHTS_SHA256, len(passages), QUANTISER)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / VECTORS).write_bytes(faiss.serialize_index(index).tobytes())
    (folder / MANIFEST).write_text(json.dumps(asdict(manifest), indent=2) + "\n", encoding="utf-8")
    return manifest


def read_vectors(folder: Path, passages: Sequence[Passage]) -> faiss.Index:
    """Read an index that belongs to these passages.

    Raises
    ------
    ResourceError
        If it is missing or stale.
    """
    import faiss

    if not (folder / VECTORS).is_file() or not (folder / MANIFEST).is_file():
        raise ResourceError(
            f"no search index was found in {folder}; expected {VECTORS} and {MANIFEST}. "
            "Reinstall the package, or run `make resources` in a clone."
        )
    manifest = Manifest(**json.loads((folder / MANIFEST).read_text(encoding="utf-8")))
    wanted = digest(passages)
    if manifest.passages_sha256 != wanted or manifest.weights_sha256 != WEIGHTS_SHA256:
        raise ResourceError(
            f"the search index is stale: it was built from passages {manifest.passages_sha256[:12]} and weights "
            f"{manifest.weights_sha256[:12]}, the installed ones are {wanted[:12]} and {WEIGHTS_SHA256[:12]}. "
            "Reinstall the package, or run `python -m instructcell.retrieval.build` in a clone."
        )
    return faiss.deserialize_index(np.frombuffer((folder / VECTORS).read_bytes(), dtype=np.uint8))
