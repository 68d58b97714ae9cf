"""A causal language model that was fine-tuned on cell sentences (Cell2Sentence, EmCellLLM): cell -> type, type -> cell.

A folder holds the model, its tokenizer and `cell_sentences.json`: labels, genes per sentence, species and the line from
rank to expression. `train.literature` makes one.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import scipy.sparse as sp
import torch
from anndata import AnnData

from encoders import CellSentences, RankFit, SentenceConfig
from instructcell.batches import AS_FOUND, Reading
from instructcell.errors import LabelError, LanguageModelError
from instructcell.literature.frames import ask_cell, ask_type
from instructcell.literature.language import load_causal_lm, require_context, score_options, to_device
from instructcell.literature.reading import read_named

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

SETTINGS = "cell_sentences.json"


@dataclass(frozen=True)
class CellSentenceSettings:
    """What a fine-tuned model knows beside its weights."""

    labels: tuple[str, ...]
    n_genes: int
    genes: tuple[str, ...]  # symbols that a sentence may name
    rank_fit: RankFit | None = None

    def save(self, folder: str | Path) -> None:
        text = json.dumps(asdict(self), ensure_ascii=False)
        (Path(folder) / SETTINGS).write_text(text, encoding="utf-8")

    @classmethod
    def load(cls, folder: str | Path) -> CellSentenceSettings:
        path = Path(folder) / SETTINGS
        if not path.is_file():
            raise LanguageModelError(
                f"{folder} has no {SETTINGS}, so it was not trained here on cell sentences; train one with "
                "`instructcell train emcell --backbone FOLDER`"
            )
        content = json.loads(path.read_text(encoding="utf-8"))
        fit = content["rank_fit"]
        return cls(
            tuple(content["labels"]),
            int(content["n_genes"]),
            tuple(content["genes"]),
            RankFit(**fit) if fit else None,
        )


class CellSentenceLM:
    """A fine-tuned model, ready to name and to write cells.

    Examples
    --------
    >>> model = CellSentenceLM.load("runs/emcell")  # doctest: +SKIP
    >>> model.annotate(adata)  # doctest: +SKIP
    """

    def __init__(
        self, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, settings: CellSentenceSettings
    ) -> None:
        self.model, self.tokenizer, self.settings = model.eval(), tokenizer, settings

    @classmethod
    def load(cls, folder: str | Path, device: str | torch.device | None = None) -> CellSentenceLM:
        """From a folder.

        Raises
        ------
        LanguageModelError
            The folder holds no causal model, or none that was trained on cell sentences.
        """
        settings = CellSentenceSettings.load(folder)
        model, tokenizer = load_causal_lm(folder)
        return cls(to_device(model, device), tokenizer, settings)

    def annotate(
        self, adata: AnnData, *, labels: Sequence[str] | None = None, reading: Reading = AS_FOUND
    ) -> pd.DataFrame:
        """The likeliest type of each cell and its probability among the types, indexed by the cells' names."""
        cells = read_named(adata, reading)
        words = CellSentences(cells.genes, SentenceConfig(self.settings.n_genes))
        rows = [
            row for counts in cells.pieces() for row in self.name(words(counts), labels=labels, species=cells.species)
        ]
        return pd.DataFrame(rows, columns=["cell_type", "confidence"], index=adata.obs_names)

    def name(
        self, sentences: Sequence[list[str]], *, labels: Sequence[str] | None = None, species: str = ""
    ) -> Iterator[tuple[str, float]]:
        """Type and probability of each cell sentence; the answer is always one of the labels."""
        options = list(labels or self.settings.labels)
        for words in sentences:
            prompt = ask_type(words, species=species)
            probabilities = score_options(self.model, self.tokenizer, prompt, options).softmax(dim=-1)
            best = int(probabilities.argmax())
            yield options[best], float(probabilities[best])

    @torch.inference_mode()
    def write(
        self,
        label: str,
        n: int,
        *,
        n_genes: int | None = None,
        species: str = "",
        temperature: float = 1.0,
        seed: int = 0,
    ) -> list[list[str]]:
        """Sentences of `n` new cells of a type, drawn from the model.

        Raises
        ------
        LabelError
            The model was not trained on the type.
        """
        if label not in self.settings.labels:
            raise LabelError(f"the model knows no cell type '{label}'; it knows {', '.join(self.settings.labels)}")
        n_genes = n_genes or self.settings.n_genes
        prompt = self.tokenizer(ask_cell(label, n_genes, species=species), return_tensors="pt").to(self.model.device)
        longest = max(len(self.tokenizer(f" {gene}", add_special_tokens=False)["input_ids"]) for gene in self._probe())
        room = n_genes * longest
        require_context(self.model, prompt["input_ids"].shape[1] + n_genes, "the prompt and the genes asked for")
        limit = getattr(self.model.config, "max_position_embeddings", None)
        if limit is not None:
            room = min(room, limit - prompt["input_ids"].shape[1])
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            made = self.model.generate(
                **prompt, do_sample=True, temperature=temperature, top_k=0, max_new_tokens=room, num_return_sequences=n,
                pad_token_id=self.tokenizer.pad_token_id, eos_token_id=self.tokenizer.eos_token_id,
            )  # fmt: skip
        texts = self.tokenizer.batch_decode(made[:, prompt["input_ids"].shape[1] :], skip_special_tokens=True)
        return [text.split()[:n_genes] for text in texts]

    def generate(self, label: str, n: int, *, species: str = "", temperature: float = 1.0, seed: int = 0) -> AnnData:
        """New cells of a type as expression: sentences, turned back by the line from rank to expression.

        X holds counts per 10,000 over the model's genes; obs says how many words of a sentence named no gene.

        Raises
        ------
        LanguageModelError
            The model was trained without the line from rank to expression.
        """
        if self.settings.rank_fit is None:
            raise LanguageModelError(
                "the model has no line from rank to expression; train it with generation_share above 0"
            )
        sentences = self.write(label, n, species=species, temperature=temperature, seed=seed)
        expression, foreign = self.settings.rank_fit.expression(sentences, self.settings.genes)
        obs = pd.DataFrame(
            {"cell_type": label, "pseudo": True, "n_words": [len(words) for words in sentences], "n_foreign": foreign},
            index=[f"sentence_{seed}_{i}" for i in range(n)],
        )
        counts = sp.csr_matrix(np.expm1(expression.numpy()))
        return AnnData(counts, obs=obs, var=pd.DataFrame(index=list(self.settings.genes)))

    def _probe(self) -> list[str]:
        """Some genes, to see how many tokens one takes."""
        return list(self.settings.genes[:: max(1, len(self.settings.genes) // 200)])
