"""Text encoders: any sentence-transformers model, by folder or hub id, or the all-MiniLM-L6-v2 that is installed."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import TYPE_CHECKING, Any

from instructcell.errors import LanguageModelError
from instructcell.retrieval.sentence_encoder import PACKAGE, WEIGHTS_SHA256, _check_weights, _weights_folder

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer

INSTALLED = "all-MiniLM-L6-v2"


def load_text_encoder(model: str | Path | SentenceTransformer | None = None) -> SentenceTransformer:
    """A sentence-transformers model; None or "all-MiniLM-L6-v2": the one that is installed with InstructCell.

    A name that is no folder is a hub id, which is downloaded once.

    Raises
    ------
    LanguageModelError
        There is no such model, or it is no text encoder.
    """
    from sentence_transformers import SentenceTransformer

    if isinstance(model, SentenceTransformer):
        return model
    if model is None or str(model) == INSTALLED:
        folder = _weights_folder(PACKAGE)
        _check_weights(folder / "model.safetensors", WEIGHTS_SHA256)
        return SentenceTransformer(str(folder), local_files_only=True)
    if Path(model).is_dir() and not any((Path(model) / name).is_file() for name in ("modules.json", "config.json")):
        raise LanguageModelError(
            f"{model} is no text encoder: expected modules.json or config.json in it; give the folder or hub id of a "
            "sentence-transformers model, such as BAAI/bge-large-en-v1.5"
        )
    try:
        return SentenceTransformer(str(model))
    except (OSError, ValueError, KeyError) as error:
        first = str(error).strip().splitlines()[0]
        raise LanguageModelError(
            f"found no text encoder at {model} ({first}); give the folder or hub id of a sentence-transformers model"
        ) from error


def fingerprint(model: Any) -> str:
    """A hash of a model's weights: two models with one fingerprint give the same vectors."""
    import torch

    digest = hashlib.sha256()
    for name, value in sorted(model.state_dict().items()):
        digest.update(name.encode())
        digest.update(value.detach().cpu().contiguous().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()[:16]
