"""Fine-tuning of a causal language model on cell sentences, by Hugging Face's Trainer.

The same call runs on one process and under `accelerate launch` with any of the files in `train/accelerate`: the batch
of a step is the same cells in the same order, whoever shares it.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.utils.data import Dataset, SequentialSampler
from transformers import DataCollatorForSeq2Seq, Trainer, TrainingArguments
from transformers.trainer_utils import get_last_checkpoint

from encoders import CellSentences, RankFit, SentenceConfig
from instructcell.errors import ConfigError
from instructcell.literature.cell_sentence_lm import SETTINGS, CellSentenceLM, CellSentenceSettings
from instructcell.literature.frames import ask_cell, ask_type, draw_frame
from instructcell.literature.language import answer_ids, load_causal_lm, require_context
from train.literature.cells import Cells
from train.literature.recipe import CausalSettings

IGNORED = -100
FIT_CELLS = 500  # that the line from rank to expression is fitted to
AT_ONCE = 64  # cells named between two readings of counts
SAVE_EVERY = 200  # steps
WORKING = "steps"  # folder of the last checkpoint of an unfinished run


class SentenceItems(Dataset):
    """Prompt and answer of every cell, once per epoch in a new order and frame; only the answer is learned.

    Raises
    ------
    LanguageModelError
        A prompt is longer than the model can read.
    """

    def __init__(self, cells: Cells, model: Any, tokenizer: Any, settings: CausalSettings, seed: int) -> None:
        self.cells, self.tokenizer, self.settings, self.seed = cells, tokenizer, settings, seed
        words = CellSentences(cells.genes, SentenceConfig(settings.n_genes))
        self.sentences = [one for start in range(0, len(cells), 256) for one in words(cells.dense(start, start + 256))]
        epochs = max(1, int(np.ceil(settings.epochs)))
        orders = [np.random.default_rng([seed, epoch]).permutation(len(cells)) for epoch in range(epochs)]
        self.order = np.concatenate(orders)[: round(settings.epochs * len(cells))]
        longest = max(range(len(cells)), key=lambda i: len(" ".join(self.sentences[i])))
        for item in np.flatnonzero(self.order == longest)[:1]:
            require_context(model, len(self[int(item)]["input_ids"]), f"a sentence of {settings.n_genes} genes")

    def __len__(self) -> int:
        return len(self.order)

    def __getitem__(self, item: int) -> dict[str, list[int]]:
        cell = int(self.order[item])
        species, words = str(self.cells.species[cell]), self.sentences[cell]
        rng = np.random.default_rng([self.seed, 1, item])
        if rng.random() < self.settings.generation_share:
            prompt = ask_cell(str(self.cells.labels[cell]), len(words), species=species)
            answer = " ".join(words)
        else:
            prompt = ask_type(words, species=species, frame=draw_frame(item, self.seed))
            answer = str(self.cells.labels[cell])
        asked, said = self.tokenizer(prompt)["input_ids"], answer_ids(self.tokenizer, answer)
        ids = [*asked, *said]
        return {"input_ids": ids, "attention_mask": [1] * len(ids), "labels": [IGNORED] * len(asked) + said}


class InOrder(Trainer):
    """Items in index order: a run of two processes reads what a run of one reads."""

    def _get_train_sampler(self, *args: Any) -> SequentialSampler:
        return SequentialSampler(self.train_dataset)


def fine_tune(cells: Cells, settings: CausalSettings, folder: Path, *, backbone: str, seed: int) -> Path:
    """Train and save a cell-sentence model; a run that was interrupted goes on from its last checkpoint.

    Returns
    -------
    Path
        The folder, with weights, tokenizer, `cell_sentences.json` and the loss curve in `curve.json`.
    """
    if (folder / SETTINGS).is_file():
        return folder
    torch.manual_seed(seed)
    model, tokenizer = load_causal_lm(backbone)
    items = SentenceItems(cells, model, tokenizer, settings, seed)
    if settings.lora_rank:
        model = with_lora(model, settings)
    working = folder / WORKING
    trainer = InOrder(
        model=model,
        args=arguments(settings, working, seed),
        train_dataset=items,
        data_collator=DataCollatorForSeq2Seq(tokenizer, label_pad_token_id=IGNORED),
        processing_class=tokenizer,
    )
    trainer.train(resume_from_checkpoint=get_last_checkpoint(str(working)) if working.is_dir() else None)
    save(trainer, tokenizer, cells, settings, folder)
    return folder


def arguments(settings: CausalSettings, working: Path, seed: int) -> TrainingArguments:
    """AdamW with warm-up; the batch is shared by the processes and cut into micro batches.

    Raises
    ------
    ConfigError
        The batch cannot be shared evenly.
    """
    world = int(os.environ.get("WORLD_SIZE", "1"))
    share, rest = divmod(settings.batch_size, world)
    micro = settings.micro_batch or share
    if rest or not share or share % micro:
        raise ConfigError(
            f"a batch of {settings.batch_size} cannot be shared by {world} processes in micro batches of {micro}; "
            "choose a batch_size that both divide"
        )
    return TrainingArguments(
        output_dir=str(working),
        num_train_epochs=1,  # the items hold every epoch
        max_steps=settings.max_steps or -1,
        per_device_train_batch_size=micro,
        gradient_accumulation_steps=share // micro,
        learning_rate=settings.learning_rate,
        warmup_steps=settings.warmup,  # below 1: a share of the steps
        weight_decay=settings.weight_decay,
        gradient_checkpointing=settings.gradient_checkpointing,
        bf16=settings.bf16 and fast_bf16(),
        use_cpu=not torch.cuda.is_available(),
        save_steps=SAVE_EVERY,
        save_total_limit=1,
        logging_steps=1,
        report_to=[],
        remove_unused_columns=False,
        dataloader_pin_memory=False,
        dataloader_drop_last=False,
        disable_tqdm=False,
        seed=seed,
    )


def fast_bf16() -> bool:
    """Whether this machine multiplies in bfloat16; a processor that does not takes longer with it than without."""
    if torch.cuda.is_available():
        return torch.cuda.is_bf16_supported()
    able = torch.cpu.get_capabilities()
    return bool(able.get("avx512_bf16") or able.get("amx_bf16") or able.get("bf16"))


def with_lora(model: Any, settings: CausalSettings) -> Any:
    """Low-rank adapters beside every linear layer; only they are trained."""
    try:
        from peft import LoraConfig, get_peft_model
    except ImportError as error:
        raise ConfigError(
            "lora_rank needs the package peft; install it with: pip install 'instructcell[qwen]'"
        ) from error
    config = LoraConfig(
        r=settings.lora_rank,
        lora_alpha=settings.lora_alpha,
        lora_dropout=settings.lora_dropout,
        target_modules="all-linear",
        task_type="CAUSAL_LM",
    )
    return get_peft_model(model, config)


def save(trainer: Trainer, tokenizer: Any, cells: Cells, settings: CausalSettings, folder: Path) -> None:
    """The whole model in a folder, adapters merged; written by the first process."""
    if not settings.lora_rank:
        trainer.save_model(str(folder))  # every process takes part where the weights are sharded
    if trainer.is_world_process_zero():
        folder.mkdir(parents=True, exist_ok=True)
        if settings.lora_rank:
            whole: Any = trainer.accelerator.unwrap_model(trainer.model)
            whole.merge_and_unload().save_pretrained(folder)
        tokenizer.save_pretrained(folder)
        curve = [{"step": row["step"], "loss": row["loss"]} for row in trainer.state.log_history if "loss" in row]
        (folder / "curve.json").write_text(json.dumps(curve), encoding="utf-8")
        fit = RankFit.fit(cells.dense(0, FIT_CELLS), settings.n_genes)
        labels = tuple(sorted(set(map(str, cells.labels))))
        CellSentenceSettings(labels, settings.n_genes, cells.genes, fit).save(folder)
        shutil.rmtree(folder / WORKING, ignore_errors=True)  # only an unfinished run goes on from there
    trainer.accelerator.wait_for_everyone()


def predict(model: CellSentenceLM, cells: Cells, labels: Sequence[str] | None = None) -> np.ndarray:
    """Labels [N] of a fine-tuned model."""
    words = CellSentences(cells.genes, SentenceConfig(model.settings.n_genes))
    found = np.full(len(cells), "", dtype=object)
    for species in np.unique(cells.species):  # which the prompt names
        rows = np.flatnonzero(cells.species == species)
        for part in np.split(rows, range(AT_ONCE, len(rows), AT_ONCE)):
            named = model.name(words(cells[part].dense()), labels=labels, species=str(species))
            found[part] = [label for label, _ in named]
    return found.astype(str)
