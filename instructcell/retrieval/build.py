"""Build the search index of the shipped tables: ``python -m instructcell.retrieval.build``, part of ``make resources``.

Passages that were encoded before come from a cache by their text, so a change of one table costs only what changed.
Nothing is done when the index already belongs to the tables.
"""

from __future__ import annotations

import argparse
import hashlib
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from instructcell.errors import InstructCellError, ResourceError
from instructcell.resources import RESOURCES
from instructcell.retrieval.index import VECTORS, make_vectors, read_vectors, write_vectors
from instructcell.retrieval.passages import load_passages
from instructcell.retrieval.sentence_encoder import WEIGHTS_SHA256, SentenceEncoder, load_sentence_encoder

CACHE = Path(__file__).parents[2] / ".cache" / "index"
PIECE = 1024  # texts encoded between two lines of progress


def main(arguments: Sequence[str] | None = None) -> int:
    """Build the index; 0 done, 2 a resource is missing."""
    parser = argparse.ArgumentParser(
        prog="python -m instructcell.retrieval.build", description=(__doc__ or "").split("\n")[0]
    )
    parser.add_argument("--force", action="store_true", help="build even if the index belongs to the tables")
    parser.add_argument("--cache", type=Path, default=CACHE, help="folder for encoded texts (default: %(default)s)")
    parser.add_argument(
        "--out", type=Path, default=RESOURCES / "index", help="folder to write to (default: the package's)"
    )
    options = parser.parse_args(arguments)
    try:
        if not options.force and is_current(options.out):
            print(f"the index in {options.out} belongs to the tables; nothing to do (--force builds it again)")
            return 0
        build(options.out, options.cache)
    except InstructCellError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


def is_current(folder: Path) -> bool:
    """Whether the index in a folder was built from the installed tables and weights."""
    try:
        read_vectors(folder, load_passages())
    except ResourceError:
        return False
    return True


def build(out: Path, cache: Path) -> None:
    """Encode every passage and write the index."""
    passages = load_passages()
    vectors = encode_with_cache([passage.key for passage in passages], load_sentence_encoder(), cache)
    manifest = write_vectors(out, make_vectors(vectors), passages)
    size = (out / VECTORS).stat().st_size / 1e6
    print(f"{manifest.n_passages:,} passages in {out / VECTORS}, {size:.1f} MB")


def encode_with_cache(texts: Sequence[str], encoder: SentenceEncoder, cache: Path) -> np.ndarray:
    """Unit vectors [n, D] of texts, rounded to 16 bits; what the cache holds is not encoded again.

    Similar lengths are encoded together, and the cache is written after every piece: a build that was stopped goes on.
    """
    path = cache / f"{WEIGHTS_SHA256[:12]}.npz"
    known = read_cache(path)
    missing = sorted({text for text in texts if text_key(text) not in known}, key=lambda text: (len(text), text))
    for start in range(0, len(missing), PIECE):
        piece = missing[start : start + PIECE]
        known |= dict(zip(map(text_key, piece), encoder.encode(piece).astype(np.float16), strict=True))
        write_cache(path, known)
        print(f"encoded {start + len(piece):,} of {len(missing):,} texts", file=sys.stderr, flush=True)
    return np.stack([known[text_key(text)] for text in texts]).astype(np.float32)


def text_key(text: str) -> str:
    """What a text is stored under."""
    return hashlib.sha256(text.encode()).hexdigest()[:32]


def read_cache(path: Path) -> dict[str, np.ndarray]:
    """Text key -> vector [D], float16; empty without a cache."""
    if not path.is_file():
        return {}
    with np.load(path, allow_pickle=False) as stored:
        return dict(zip(stored["keys"].tolist(), stored["vectors"], strict=True))


def write_cache(path: Path, known: dict[str, np.ndarray]) -> None:
    """Write the cache beside the old one and put it in its place."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(".partial.npz")
    np.savez(partial, keys=np.array(list(known)), vectors=np.stack(list(known.values())))
    partial.replace(path)


if __name__ == "__main__":
    sys.exit(main())
