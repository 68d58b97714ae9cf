"""Training of the small parts around frozen encoders: scMPT's fusion head and the gene reader."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.data import Dataset, SequentialSampler
from transformers import Trainer, TrainingArguments

from encoders import Fusion, FusionConfig, GeneReader
from train.literature.causal import fast_bf16
from train.literature.recipe import FusionSettings, ReaderSettings


def train_fusion(text: Tensor, expression: Tensor, codes: Tensor, settings: FusionSettings, seed: int) -> Fusion:
    """AdamW with an exponentially falling rate, on embeddings [N, T], [N, E] with classes [N]."""
    generator = torch.Generator().manual_seed(seed)
    torch.manual_seed(seed)
    n_classes = int(codes.max()) + 1
    model = Fusion(FusionConfig(text.shape[1], expression.shape[1], n_classes, settings.n_hidden))
    model.standardise(text, expression)
    optimizer = torch.optim.AdamW(model.parameters(), lr=settings.learning_rate, weight_decay=settings.weight_decay)
    schedule = torch.optim.lr_scheduler.ExponentialLR(optimizer, settings.decay)
    for _ in range(settings.epochs):
        for rows in torch.randperm(len(codes), generator=generator).split(settings.batch_size):
            loss = F.cross_entropy(model(text[rows], expression[rows]), codes[rows])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        schedule.step()
    return model.eval()


class RankedItems(Dataset):
    """Genes by rank [N, L] with classes [N], each epoch in an order of its own."""

    def __init__(self, ranks: Tensor, codes: Tensor, epochs: int, seed: int) -> None:
        self.ranks, self.codes = ranks, codes
        orders = [np.random.default_rng([seed, epoch]).permutation(len(codes)) for epoch in range(epochs)]
        self.order = np.concatenate(orders)

    def __len__(self) -> int:
        return len(self.order)

    def __getitem__(self, item: int) -> dict[str, Tensor]:
        cell = int(self.order[item])
        return {"genes": self.ranks[cell], "labels": self.codes[cell]}


class ReaderWithLoss(nn.Module):
    """A gene reader as Trainer wants it."""

    def __init__(self, reader: GeneReader) -> None:
        super().__init__()
        self.reader = reader

    def forward(self, genes: Tensor, labels: Tensor) -> dict[str, Tensor]:
        logits = self.reader(genes)
        return {"loss": F.cross_entropy(logits, labels), "logits": logits}


class ReaderTrainer(Trainer):
    """Items in index order; what is saved leaves out the frozen language model."""

    def _get_train_sampler(self, *args: Any) -> SequentialSampler:
        return SequentialSampler(self.train_dataset)


def train_reader(
    reader: GeneReader, ranks: Tensor, codes: Tensor, settings: ReaderSettings, folder: Path, seed: int
) -> GeneReader:
    """Projector, <cls> and classifier on genes by rank [N, L] with classes [N]; the language model stays frozen."""
    torch.manual_seed(seed)
    arguments = TrainingArguments(
        output_dir=str(folder / "steps"),
        num_train_epochs=1,  # the items hold every epoch
        max_steps=settings.max_steps or -1,
        per_device_train_batch_size=settings.batch_size,
        learning_rate=settings.learning_rate,
        warmup_steps=settings.warmup_steps,
        bf16=settings.bf16 and fast_bf16(),
        use_cpu=not torch.cuda.is_available(),
        save_strategy="no",
        logging_steps=10,
        report_to=[],
        remove_unused_columns=False,
        dataloader_pin_memory=False,
        seed=seed,
    )
    items = RankedItems(ranks, codes, settings.epochs, seed)
    wrapped = ReaderWithLoss(reader)
    ReaderTrainer(model=wrapped, args=arguments, train_dataset=items).train()
    return reader.cpu().eval()
