"""Tune the reader of requests: `python -m train.router [--rank 16] [--epochs 4] [--data OTHER.tsv]`.

Low-rank changes (peft) of the sentence encoder and a linear read-out learn the intents of the exemplars; one of twenty
exemplars is held out, to say how good they are and to fit the temperature. Writes `resources/router.safetensors`.
"""

from __future__ import annotations

import argparse
import zlib
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from random import Random

import numpy as np
import torch
from safetensors.torch import save_file
from torch.nn import functional as F

from instructcell import intents, router
from instructcell.drugs import DrugSet
from instructcell.labels import LabelSet
from instructcell.mentions import generic
from instructcell.requests import INTENTS, SMALL_TALK, Topic
from instructcell.retrieval.sentence_encoder import WEIGHTS_SHA256, load_encoder_parts
from instructcell.router import Exemplar
from instructcell.tools import drugs_of, open_checkpoint
from train.asides import AFTER, BEFORE

HELD_OUT = 20  # one of so many exemplars
BATCH = 32
LEARNING_RATE = 1e-3
WITHOUT_PREVIOUS = 0.3  # share of follow-ups that are shown without the turn before
WITH_ANOTHER = 0.15  # share of the others that are shown behind some turn
WITH_ASIDES = 0.2  # share that is shown with a sentence before or behind it that asks for nothing
SMOOTHING = 0.05


class Reader(torch.nn.Module):
    """The encoder with low-rank changes, and the read-out.

    Parameters
    ----------
    rank
        Of the changes.
    names
        Of the intents.
    """

    def __init__(self, rank: int, names: Sequence[str]) -> None:
        from peft import LoraConfig, get_peft_model

        super().__init__()
        self.tokenizer, base = load_encoder_parts()
        config = LoraConfig(
            r=rank,
            lora_alpha=2 * rank,
            lora_dropout=0.05,
            target_modules=list(router.TARGETS),
            exclude_modules=".*pooler.*",
        )
        self.encoder = get_peft_model(base, config)
        self.scale = config.lora_alpha / rank
        self.dropout = torch.nn.Dropout(0.1)
        self.names = tuple(names)
        self.readout = torch.nn.Linear(base.config.hidden_size, len(names))

    def forward(self, texts: Sequence[str], previous: Sequence[str]) -> torch.Tensor:
        """Texts (n of them) -> scores of the intents [n, intents]."""
        tokens = router.encoded(self.tokenizer, texts, previous)
        return self.readout(self.dropout(router.embed(self.encoder, tokens)))

    def kept(self) -> dict[str, torch.Tensor]:
        """What is written: the changes by the layer they belong to, and the read-out."""
        tensors = {"weight": self.readout.weight, "bias": self.readout.bias}
        for name, tensor in self.encoder.state_dict().items():
            for factor in "AB":
                if name.endswith(f".lora_{factor}.default.weight"):
                    layer = name.removeprefix("base_model.model.").removesuffix(f".lora_{factor}.default.weight")
                    tensors[f"{layer}.{factor}"] = tensor
        return {name: tensor.detach().half().contiguous() for name, tensor in tensors.items()}


def wordings(exemplars: Sequence[Exemplar], labels: LabelSet, drugs: DrugSet) -> list[tuple[str, ...]]:
    """Each sentence as it is written, and with its names taken out as the conversation does."""
    words = router.Spelling([exemplar.text for exemplar in router.read_exemplars()])
    found = []
    for exemplar in exemplars:
        request = intents.read(exemplar.text, labels=labels, drugs=drugs, obs=None, files=(), topic=Topic())
        found.append(tuple(dict.fromkeys((exemplar.text, generic(exemplar.text, request, words.spelled)))))
    return found


def held_out(exemplar: Exemplar) -> bool:
    """Whether an exemplar is kept for judging; decided by its text."""
    return zlib.crc32(exemplar.text.lower().encode()) % HELD_OUT == 0


def fit(
    reader: Reader, exemplars: Sequence[Exemplar], texts: Sequence[tuple[str, ...]], epochs: int, seed: int = 0
) -> None:
    """Tune the reader; each epoch shows every sentence once, in one of its wordings."""
    rng = Random(seed)
    rows = [(exemplar, words) for exemplar, words in zip(exemplars, texts, strict=True) if not held_out(exemplar)]
    number = {intent: at for at, intent in enumerate(reader.names)}
    many = np.bincount([number[exemplar.intent] for exemplar, _ in rows], minlength=len(number))
    weight = torch.tensor((many.mean() / np.maximum(many, 1)) ** 0.5, dtype=torch.float32)
    tuned = [parameter for parameter in reader.encoder.parameters() if parameter.requires_grad]
    groups = [{"params": tuned}, {"params": reader.readout.parameters()}]
    optimizer = torch.optim.AdamW(groups, lr=LEARNING_RATE, weight_decay=0.01)
    steps = epochs * (len(rows) // BATCH)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, [LEARNING_RATE, 3 * LEARNING_RATE], total_steps=steps, pct_start=0.1
    )
    reader.train()
    for step in range(steps):
        at = step % (len(rows) // BATCH)
        if at == 0:
            rng.shuffle(rows)
        shown = [_shown(exemplar, words, rng) for exemplar, words in rows[at * BATCH : (at + 1) * BATCH]]
        scores = reader([one.text for one in shown], [one.previous for one in shown])
        wanted = torch.tensor([number[one.intent] for one in shown])
        loss = F.cross_entropy(scores, wanted, weight=weight, label_smoothing=SMOOTHING)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(tuned, 1.0)
        optimizer.step()
        schedule.step()
        optimizer.zero_grad()
        if step % 100 == 0:
            print(f"step {step} of {steps}: loss {loss.item():.3f}", flush=True)


def _shown(exemplar: Exemplar, words: tuple[str, ...], rng: Random) -> Exemplar:
    previous = exemplar.previous
    if previous and rng.random() < WITHOUT_PREVIOUS:
        previous = ""
    elif not previous and rng.random() < WITH_ANOTHER:
        previous = rng.choice(INTENTS)
    text = rng.choice(words)
    if exemplar.intent != SMALL_TALK and rng.random() < WITH_ASIDES:
        before, behind = rng.choice(((True, False), (False, True), (True, True)))
        stop = "" if text.endswith((".", "?", "!")) else "."
        text = " ".join(
            [*([rng.choice(BEFORE)] if before else []), text + stop * behind, *([rng.choice(AFTER)] if behind else [])]
        )
    return replace(exemplar, text=text, previous=previous)


def judge(
    reader: Reader, exemplars: Sequence[Exemplar], texts: Sequence[tuple[str, ...]], show: int = 0
) -> tuple[float, float, int]:
    """Accuracy on the held-out exemplars, the temperature that suits them best, and their number."""
    reader.eval()
    rows = [(exemplar, words) for exemplar, words in zip(exemplars, texts, strict=True) if held_out(exemplar)]
    with torch.inference_mode():
        scores = torch.cat([reader(words, [one.previous] * len(words)).mean(dim=0)[None] for one, words in rows])
    truth = torch.tensor([reader.names.index(exemplar.intent) for exemplar, _ in rows])
    temperatures = torch.linspace(0.3, 2.5, 45)
    losses = [F.cross_entropy(scores / temperature, truth).item() for temperature in temperatures]
    for (exemplar, _), at, right in zip(rows, scores.argmax(dim=1), truth, strict=True):
        if at != right and show:
            print(f"{exemplar.intent} -> {reader.names[at]}: {exemplar.text!r} after {exemplar.previous!r}")
    accuracy = (scores.argmax(dim=1) == truth).float().mean().item()
    return accuracy, float(temperatures[int(np.argmin(losses))]), len(rows)


def main() -> None:
    """Tune, judge and write."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--rank", type=int, default=16, help="of the low-rank changes")
    parser.add_argument("--epochs", type=int, default=4)
    parser.add_argument("--out", type=Path, default=router.WEIGHTS)
    parser.add_argument("--show", action="store_true", help="list what is taken wrongly")
    asked = parser.parse_args()
    torch.manual_seed(0)
    checkpoint = open_checkpoint("mini")
    exemplars = [*router.read_exemplars(), *router.read_exemplars(router.REQUESTS)]
    texts = wordings(exemplars, checkpoint.labels, drugs_of(checkpoint))
    learned = {exemplar.intent for exemplar in exemplars}
    reader = Reader(asked.rank, [intent for intent in INTENTS if intent in learned])
    fit(reader, exemplars, texts, asked.epochs)
    accuracy, temperature, n = judge(reader, exemplars, texts, asked.show)
    about = {
        "encoder": WEIGHTS_SHA256,
        "intents": " ".join(reader.names),
        "scale": str(reader.scale),
        "temperature": f"{temperature:.3f}",
        "held_out": f"{accuracy:.4f} of {n}",
    }
    save_file(reader.kept(), asked.out, metadata=about)
    print(f"{accuracy:.3f} of {n} held-out exemplars right; temperature {temperature:.2f}; wrote {asked.out.name}")


if __name__ == "__main__":
    main()
