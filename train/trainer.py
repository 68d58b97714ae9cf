"""Training in stages, each a resumable run of Hugging Face's `Trainer`.

encoder       cell encoder + read-out on single cells: what carries across studies
words         the language model on requests without cells: names in, text and a state at <SIGNAL> that holds the type
instructions  the whole model on rendered instructions: text, drug response, <SIGNAL>
decoder       the pseudo-cell decoder alone, on the frozen model's states at <SIGNAL>
"""

from __future__ import annotations

import json
import shutil
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers
from torch import Tensor, nn
from torch.utils.data import SequentialSampler
from transformers import Trainer, TrainerCallback, TrainingArguments, get_cosine_schedule_with_warmup
from transformers.trainer import TRAINER_STATE_NAME
from transformers.trainer_utils import get_last_checkpoint

from encoders import CellDecoder, CellEncoder
from instructcell.model import InstructCellForConditionalGeneration
from instructcell.processor import IGNORED_LABEL
from train.collator import TASKS, CellChoice, CellTensors, Example, generation_strata
from train.datasets import LabelledCells
from train.recipe import Stage

KL_WARMUP = 0.3  # share of a stage over which the weight of the decoder's KL term rises to 1
SAVE_EVERY = 300  # steps
LOG_EVERY = 50
QUERY_RATE = 0.125  # T5 does not scale its attention: queries start 1/sqrt(d_kv) as large as keys and step alike


class EncoderStage(nn.Module):
    """Cell encoder and read-out; the loss is -log of the probability on the labels a cell may have."""

    def __init__(self, encoder: CellEncoder, classifier: nn.Linear) -> None:
        super().__init__()
        self.encoder, self.classifier = encoder, classifier

    def forward(self, counts: Tensor, measured: Tensor, cell_targets: Tensor) -> dict[str, Tensor]:
        log_probability = torch.log_softmax(self.classifier(self.encoder.pool(self.encoder(counts, measured))), dim=-1)
        allowed = torch.logsumexp(log_probability.masked_fill(~cell_targets, float("-inf")), dim=-1)  # [N]
        smooth = -log_probability.mean()  # label smoothing: sorted and clustered labels are never certain
        return {"loss": -0.95 * allowed.mean() + 0.05 * smooth, "readout": -allowed.mean().detach()}


class DecoderStage(nn.Module):
    """The decoder on cached states at <SIGNAL>."""

    def __init__(self, decoder: CellDecoder) -> None:
        super().__init__()
        self.decoder = decoder

    def forward(
        self, signal: Tensor, signal_counts: Tensor, signal_measured: Tensor, kl_weight: float = 1.0
    ) -> dict[str, Tensor]:
        loss = self.decoder.loss(signal, signal_counts, signal_measured, kl_weight)
        total = loss.nll + kl_weight * loss.kl + loss.library
        return {"loss": total, "nll": loss.nll.detach(), "kl": loss.kl.detach(), "library": loss.library.detach()}


class StageTrainer(Trainer):
    """Examples in index order, KL warm-up, and a curve for every task and loss term."""

    curve_terms: tuple[str, ...] = ()

    def __init__(self, *args: Any, kl_steps: int = 0, kl_weight: float = 1.0, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.kl_steps, self.kl_weight = kl_steps, kl_weight
        self.terms: dict[str, list[float]] = defaultdict(list)

    def _get_train_sampler(self, *args: Any) -> SequentialSampler:
        return SequentialSampler(self.train_dataset)

    def compute_loss(
        self, model: nn.Module, inputs: dict[str, Any], return_outputs: bool = False, **kwargs: Any
    ) -> Any:
        task = inputs.pop("task", None)
        if self.kl_steps:
            inputs["kl_weight"] = self.kl_weight * min(1.0, (self.state.global_step + 1) / self.kl_steps)
        outputs = model(**inputs)
        self._record(outputs, inputs, task)
        return (outputs["loss"], outputs) if return_outputs else outputs["loss"]

    def _record(self, outputs: Mapping[str, Any], inputs: Mapping[str, Any], task: Tensor | None) -> None:
        for name in (
            "readout",
            "readout_loss",
            "signal_loss",
            "nll",
            "generation_nll",
            "kl",
            "generation_kl",
            "library",
            "library_loss",
        ):
            if outputs.get(name) is not None:
                self.terms[name.removesuffix("_loss").removeprefix("generation_")].append(float(outputs[name].detach()))
        if task is None:
            return
        with torch.no_grad():
            per_example = text_loss_per_example(outputs["logits"], inputs["labels"])  # [B]
        for index, name in enumerate(TASKS):
            of_task = per_example[task == index]
            if len(of_task):
                self.terms[f"text/{name}"].append(float(of_task.mean()))

    def log(self, logs: dict[str, float], *args: Any, **kwargs: Any) -> None:
        logs |= {name: round(float(np.mean(values)), 5) for name, values in self.terms.items()}
        self.terms.clear()
        super().log(logs, *args, **kwargs)


def text_loss_per_example(logits: Tensor, labels: Tensor) -> Tensor:
    """Mean token cross-entropy of each answer: logits [B, L, V], labels [B, L] -> [B]."""
    losses = nn.functional.cross_entropy(
        logits.transpose(1, 2).float(), labels, ignore_index=IGNORED_LABEL, reduction="none"
    )
    scored = labels != IGNORED_LABEL
    return losses.sum(-1) / scored.sum(-1).clamp_min(1)


class CurveWriter(TrainerCallback):
    """Appends every logged point to `curves.jsonl`."""

    def __init__(self, path: Path, stage: str) -> None:
        self.path, self.stage = path, stage

    def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, float] | None = None, **kwargs: Any) -> None:
        if logs and "loss" in logs:
            with self.path.open("a", encoding="utf-8") as file:
                file.write(json.dumps({"stage": self.stage, "step": state.global_step, **logs}) + "\n")


def run_stage(
    name: str,
    model: nn.Module,
    stage: Stage,
    dataset: Any,
    collator: Any,
    folder: Path,
    *,
    seed: int,
    kl: bool = False,
) -> None:
    """Train one stage, or continue it from its last checkpoint in `folder/name`; the model is changed in place."""
    output = folder / name
    done = output / "done"
    if done.exists():
        restore(model, output)
        return
    optimizer = torch.optim.AdamW(
        _parameter_groups(model, stage), lr=stage.learning_rate, betas=(0.9, stage.beta2), fused=True
    )
    schedule = get_cosine_schedule_with_warmup(optimizer, int(stage.warmup * stage.steps), stage.steps)
    transformers.logging.set_verbosity_error()
    arguments = TrainingArguments(
        output_dir=str(output),
        max_steps=stage.steps,
        per_device_train_batch_size=stage.batch_size,
        max_grad_norm=1.0,
        logging_steps=LOG_EVERY,
        save_steps=SAVE_EVERY,
        save_total_limit=1,
        report_to=[],
        remove_unused_columns=False,
        dataloader_pin_memory=False,
        disable_tqdm=False,  # a bar with the time left, whatever the verbosity
        dataloader_drop_last=True,
        seed=seed,
    )
    trainer = StageTrainer(
        model=model,
        args=arguments,
        train_dataset=dataset,
        data_collator=collator,
        optimizers=(optimizer, schedule),
        callbacks=[CurveWriter(folder / "curves.jsonl", name)],
        kl_steps=int(KL_WARMUP * stage.steps) if kl else 0,
        kl_weight=stage.kl_weight,
    )
    trainer.train(resume_from_checkpoint=_last_whole_checkpoint(output))
    trainer.save_model(str(output))
    done.touch()


def _last_whole_checkpoint(output: Path) -> str | None:
    """The newest checkpoint of a stage; what was being written when the run was killed is removed."""
    for folder in output.glob("checkpoint-*"):
        if not (folder / TRAINER_STATE_NAME).is_file():  # written last
            shutil.rmtree(folder)
    return get_last_checkpoint(str(output)) if output.is_dir() else None


def restore(model: nn.Module, output: Path) -> None:
    """Load the weights that a finished stage left."""
    from safetensors.torch import load_model

    load_model(model, str(output / "model.safetensors"), strict=False)


def _parameter_groups(model: nn.Module, stage: Stage) -> list[dict[str, Any]]:
    """Matrices decay, vectors do not; the encoder may learn at a rate of its own, and T5's queries learn slower."""
    groups: dict[tuple[bool, float], list[Tensor]] = defaultdict(list)
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            rate = stage.learning_rate
            if stage.encoder_learning_rate is not None and name.startswith(("cell_encoder.", "cell_classifier.")):
                rate = stage.encoder_learning_rate
            elif name.endswith(".q.weight"):
                rate *= QUERY_RATE
            groups[parameter.ndim >= 2, rate].append(parameter)
    return [
        {"params": parameters, "weight_decay": stage.weight_decay if decays else 0.0, "lr": rate}
        for (decays, rate), parameters in groups.items()
    ]


class SignalBank:
    """The model's states at <SIGNAL> for many phrasings of every generation request, computed once.

    One list of states [n, D] per (data set, label and condition).
    """

    def __init__(
        self, model: InstructCellForConditionalGeneration, collator: Any, groups: Mapping[Any, Sequence[Example]]
    ) -> None:
        model.eval()
        self.states: dict[Any, Tensor] = {}
        for key, examples in groups.items():
            batch = collator([Example(e.task, e.prompt, e.answer) for e in examples])
            batch.pop("task")
            with torch.no_grad():
                self.states[key] = model(**{k: v.to(model.device) for k, v in batch.items()}).signal_hidden.cpu()


class DecoderDataset(torch.utils.data.Dataset):
    """(state at <SIGNAL>, real cell) pairs for the decoder stage."""

    def __init__(self, datasets: Sequence[LabelledCells], bank: SignalBank, seed: int, length: int) -> None:
        self.strata, self.bank, self.seed, self.length = generation_strata(datasets), bank, seed, length

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, index: int) -> tuple[Tensor, CellChoice]:
        rng = np.random.default_rng((self.seed, 2, index))
        dataset, kind, rows = self.strata.draw(rng)
        states = self.bank.states[dataset, kind]
        return states[int(rng.integers(len(states)))], CellChoice(dataset, int(rng.choice(rows)))


class DecoderCollator:
    """Pairs -> signal [M, D], signal_counts [M, G], signal_measured [M, G]."""

    def __init__(self, datasets: Sequence[LabelledCells]) -> None:
        self.cells = CellTensors(datasets, None)

    def __call__(self, pairs: Sequence[tuple[Tensor, CellChoice]]) -> dict[str, Tensor]:
        counts, measured = self.cells([choice for _, choice in pairs], [0] * len(pairs))
        return {
            "signal": torch.stack([state for state, _ in pairs]),
            "signal_counts": counts,
            "signal_measured": measured,
        }
