"""Checkpoints: folders that hold all a model needs to answer, loadable without a network.

    config.json model.safetensors generation_config.json     the model (safetensors only)
    tokenizer.json tokenizer_config.json processor_config.json genes.tsv
    labels.json drugs.json calibration.json                  what it may answer, and how sure it may be
    readout.safetensors                                      fast labels for large tables (optional)
    reference.safetensors                                    where training cells lie, to tell unseen types (optional)
    evaluation.json README.md                                how good it is (optional)
"""

from __future__ import annotations

import hashlib
import json
import re
import shutil
import tempfile
import threading
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch
from huggingface_hub import snapshot_download
from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError, RepositoryNotFoundError
from safetensors import SafetensorError
from torch import Tensor
from transformers.utils import logging as transformers_logging

from instructcell.drugs import Drug, DrugSet
from instructcell.errors import CheckpointError
from instructcell.labels import LabelSet
from instructcell.model import InstructCellForConditionalGeneration
from instructcell.populations import POPULATIONS, Populations, load_populations
from instructcell.processor import InstructCellProcessor
from instructcell.readout import LabelReadout, load_readout, save_readout
from instructcell.reference import REFERENCE, Reference, load_reference, save_reference

SHIPPED = Path(__file__).parent / "checkpoints"
WEIGHTS = "model.safetensors"
CALIBRATION = "calibration.json"
REQUIRED = (
    "config.json",
    WEIGHTS,
    "tokenizer.json",
    "tokenizer_config.json",
    "processor_config.json",
    "genes.tsv",
    "labels.json",
    "drugs.json",
    "calibration.json",
)
HUB_ID = re.compile(r"[\w.-]+/[\w.-]+")
_LOADING = threading.Lock()  # two requests for one checkpoint load it once


@dataclass(frozen=True)
class Checkpoint:
    """A loaded checkpoint, ready to answer.

    `hash` is the sha256 of the weights, `calibration` holds temperature, unknown_below, drug_temperature and what
    `train.calibrate` fits of context, back-off and clusters, and perhaps drug_offsets {drug: log-odds}; `card` is what
    evaluation.json says. `readout` names the cells of large tables, `reference` knows where training cells lie and
    `populations` what each kind of them was like to the decoder; None where none was fitted.
    """

    model: InstructCellForConditionalGeneration = field(repr=False)
    processor: InstructCellProcessor = field(repr=False)
    labels: LabelSet = field(repr=False)
    drugs: DrugSet = field(repr=False)
    calibration: dict[str, Any]
    path: Path
    hash: str
    card: dict[str, Any] = field(repr=False)
    readout: LabelReadout | None = field(default=None, repr=False)
    reference: Reference | None = field(default=None, repr=False)
    populations: Populations | None = field(default=None, repr=False)


def shipped_checkpoints() -> list[str]:
    """Names of the checkpoints that ship in the package."""
    return sorted(path.parent.name for path in SHIPPED.glob("*/config.json"))


def load_checkpoint(name_or_path: str | Path = "mini", device: str | torch.device = "cpu") -> Checkpoint:
    """Load a checkpoint; one that is loaded already is returned as it is.

    Parameters
    ----------
    name_or_path
        Name of a shipped checkpoint, a folder, or a hub id "owner/name", which is downloaded once.
    device
        Where the model shall live.

    Raises
    ------
    CheckpointError
        There is no such checkpoint, or it is incomplete or broken.

    Examples
    --------
    >>> checkpoint = load_checkpoint("mini")  # doctest: +SKIP
    >>> checkpoint.labels.names[:2]  # doctest: +SKIP
    ['B cell', 'CD14-positive monocyte']
    """
    folder = _find(name_or_path)
    _check_complete(folder)
    with _LOADING:
        return _load(folder, str(device), _written(folder))


def save_checkpoint(
    folder: str | Path,
    model: InstructCellForConditionalGeneration,
    processor: InstructCellProcessor,
    labels: LabelSet,
    drugs: Iterable[Drug | Mapping[str, Any]],
    calibration: Mapping[str, Any],
    *,
    evaluation: Mapping[str, Any] | None = None,
    readme: str | None = None,
    readout: LabelReadout | None = None,
    dtype: torch.dtype = torch.float16,
) -> Path:
    """Write a whole checkpoint folder, or nothing: it is written beside and takes the folder's place at the end.

    Parameters
    ----------
    folder
        Where to; an older checkpoint there is replaced.
    calibration
        temperature, unknown_below, drug_temperature.
    evaluation, readme
        Contents of evaluation.json and README.md, left out when None.
    readout
        Fast labels for large tables, fitted to this model.
    dtype
        Of the weights on disk; they are loaded as float32.

    Raises
    ------
    CheckpointError
        `folder` holds something that is no checkpoint.
    """
    folder = Path(folder)
    if folder.exists() and any(folder.iterdir()) and not (folder / "config.json").exists():
        raise CheckpointError(f"{folder} holds files but no checkpoint; give a new or an empty folder")
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{folder.name}-", dir=folder.parent) as beside:
        new, old = Path(beside) / "new", Path(beside) / "old"
        with _quiet():
            model.save_pretrained(new, state_dict=_state_dict(model, dtype))
        shutil.copymode(new / "config.json", new / WEIGHTS)  # safetensors writes for its owner alone
        processor.save_pretrained(new)
        labels.to_json(new / "labels.json")
        DrugSet.of(drugs).to_json(new / "drugs.json")
        _write_json(new / "calibration.json", calibration)
        if evaluation is not None:
            _write_json(new / "evaluation.json", evaluation)
        if readme is not None:
            (new / "README.md").write_text(readme, encoding="utf-8")
        if readout is not None:
            readout.config = replace(readout.config, weights=_sha256(new / WEIGHTS))
            save_readout(readout, new)
        if folder.exists():
            folder.rename(old)
        new.rename(folder)
    return folder


def write_calibration(folder: str | Path, calibration: Mapping[str, float], reference: Reference | None) -> None:
    """Put other calibration figures, and the reference if there is one, into a checkpoint folder."""
    folder = Path(folder)
    _write_json(folder / CALIBRATION, calibration)
    if reference is not None:
        save_reference(replace(reference, weights=_sha256(folder / WEIGHTS)), folder)


def _written(folder: Path) -> tuple[int, ...]:
    """When the files were written that a recalibration or a training changes."""
    return tuple(
        path.stat().st_mtime_ns if path.is_file() else 0
        for path in (folder / name for name in (WEIGHTS, CALIBRATION, REFERENCE, POPULATIONS))
    )


def _find(name_or_path: str | Path) -> Path:
    """The folder of a checkpoint."""
    name = str(name_or_path)
    if name in shipped_checkpoints():
        return SHIPPED / name
    if Path(name).is_dir():
        return Path(name).resolve()
    if HUB_ID.fullmatch(name):
        return _download(name)
    shipped = ", ".join(shipped_checkpoints()) or "none"
    raise CheckpointError(
        f"no checkpoint '{name}': it is neither a folder nor one that ships with InstructCell ({shipped}). "
        "Give one of these names, the path of a checkpoint folder or a hub id such as owner/name."
    )


def _download(hub_id: str) -> Path:
    try:
        return Path(snapshot_download(hub_id, allow_patterns=["*.json", "*.safetensors", "*.tsv", "*.md", "*.jinja"]))
    except (HfHubHTTPError, LocalEntryNotFoundError, RepositoryNotFoundError, OSError) as error:
        raise CheckpointError(
            f"'{hub_id}' is no folder here and could not be fetched from the hub ({type(error).__name__}). "
            "Check the spelling, or download the folder and give its path."
        ) from error


def _check_complete(folder: Path) -> None:
    missing = [name for name in REQUIRED if not (folder / name).is_file()]
    if missing:
        raise CheckpointError(
            f"{folder} is no complete checkpoint, it lacks {', '.join(missing)}. "
            "Copy the whole folder, or write it again with `instructcell train`."
        )
    found = _read_json(folder / "config.json").get("model_type")
    if found != "instructcell":
        raise CheckpointError(
            f"{folder} holds a '{found}' model, expected 'instructcell'. To build on that language model, train with "
            "`instructcell train --backbone` and give the folder that it writes."
        )


@lru_cache(maxsize=4)
def _load(folder: Path, device: str, written: tuple[int, ...]) -> Checkpoint:
    """Read a folder; `written`, when its files were, makes a rewritten checkpoint load anew."""
    try:
        with _quiet():
            loaded: Any = InstructCellForConditionalGeneration.from_pretrained(
                folder, dtype=torch.float32, use_safetensors=True, local_files_only=True, output_loading_info=True
            )
        model, info = loaded
        processor = InstructCellProcessor.from_pretrained(folder, local_files_only=True)
    except (OSError, ValueError, KeyError, RuntimeError, TypeError, SafetensorError) as error:
        raise CheckpointError(
            f"{folder} cannot be loaded: {error}. It may be damaged or made for another version; copy it again."
        ) from error
    wrong = sorted(info["missing_keys"])[:3] + sorted(info["unexpected_keys"])[:3]
    if wrong:
        raise CheckpointError(f"the weights in {folder} do not fit its config ({', '.join(wrong)}); copy it again.")
    labels, digest = LabelSet.from_json(folder / "labels.json"), _sha256(folder / WEIGHTS)
    readout = load_readout(folder, digest)
    _check_fit(folder, model, processor, labels, readout)
    return Checkpoint(
        model=model.to(device).eval(),
        processor=processor,
        labels=labels,
        drugs=DrugSet.from_json(folder / "drugs.json"),
        calibration=_read_json(folder / "calibration.json"),
        path=folder,
        hash=digest,
        card=_read_json(folder / "evaluation.json") if (folder / "evaluation.json").is_file() else {},
        readout=None if readout is None else readout.to(device),
        reference=load_reference(folder, digest),
        populations=load_populations(folder, digest),
    )


def _check_fit(
    folder: Path,
    model: InstructCellForConditionalGeneration,
    processor: InstructCellProcessor,
    labels: LabelSet,
    readout: LabelReadout | None,
) -> None:
    for found, expected, what in (
        (readout.config.n_labels if readout else len(labels), len(labels), "labels in readout.safetensors"),
        (len(processor.genes), model.config.n_genes, "genes in genes.tsv"),
        (processor.n_embeddings, model.config.n_embeddings, "tokens per cell in processor_config.json"),
        (processor.cell_token_id, model.config.cell_token_id, "as the id of the cell token"),
        (processor.signal_token_id, model.config.signal_token_id, "as the id of the signal token"),
    ):
        if found != expected:
            raise CheckpointError(
                f"{folder} mixes two checkpoints: found {found} {what}, expected {expected}. Copy the whole folder."
            )


def _state_dict(model: InstructCellForConditionalGeneration, dtype: torch.dtype) -> dict[str, Tensor]:
    """The weights in a narrower dtype, each tied weight once; what overflows it stays as it is."""
    state = {}
    for name, tensor in model.state_dict().items():
        if name in model.all_tied_weights_keys:
            continue
        narrow = tensor.to(dtype) if tensor.is_floating_point() else tensor
        kept = narrow if bool(torch.isfinite(narrow).all()) else tensor
        state[name] = kept.contiguous()
    return state


@contextmanager
def _quiet() -> Iterator[None]:
    """Without the progress bars of transformers."""
    shown = transformers_logging.is_progress_bar_enabled()
    transformers_logging.disable_progress_bar()
    try:
        yield
    finally:
        if shown:
            transformers_logging.enable_progress_bar()


def _read_json(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise CheckpointError(f"{path} is no valid JSON ({error}); copy the checkpoint again.") from error
    if not isinstance(content, dict):
        raise CheckpointError(f"{path} holds no object but a {type(content).__name__}; copy the checkpoint again.")
    return content


def _write_json(path: Path, content: Mapping[str, Any]) -> None:
    path.write_text(json.dumps(dict(content), indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
