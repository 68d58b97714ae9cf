"""A training run from recipe to checkpoint folder: data, vocabulary, tokenizer, stages, labels, calibration."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor
from transformers import T5Config

from instructcell.checkpoint import save_checkpoint
from instructcell.drugs import DrugSet
from instructcell.genes import load_gene_table
from instructcell.labels import Label, LabelSet, is_narrower
from instructcell.model import InstructCellForConditionalGeneration
from instructcell.processor import InstructCellProcessor, Prompt, build_tokenizer
from instructcell.readout import LabelReadout
from instructcell.resources import resource_path
from train.collator import (
    CellCollator,
    CellDataset,
    Example,
    InstructionCollator,
    InstructionDataset,
    answer_of,
    generation_strata,
)
from train.datasets import LabelledCells, load_datasets
from train.instructions import Catalog, corpus, instruction, load_catalog
from train.profiles import reference_profiles
from train.recipe import Recipe, Stage
from train.trainer import DecoderCollator, DecoderDataset, DecoderStage, EncoderStage, SignalBank, run_stage
from train.vocabulary import choose_genes

logger = logging.getLogger("instructcell.train")
N_CORPUS = 60_000
N_PHRASINGS = 96  # of each generation request, for the decoder stage
CANONICAL_SHARE = 0.6  # of these; the tools ask in the canonical phrasing
MARKERS_PER_LABEL = 40
STREAMS = {"instructions": 0, "words": 1}  # of examples, told apart by their seed


class Run:
    """Everything a recipe makes, step by step; what is finished is kept in `folder` and reused."""

    def __init__(self, recipe: Recipe, data: Path, folder: Path) -> None:
        self.recipe, self.data, self.folder = recipe, data, folder
        folder.mkdir(parents=True, exist_ok=True)
        torch.manual_seed(recipe.seed)
        self.genes, self.datasets = self._load_cells()
        self.labels = label_set(self.datasets)
        self.targets = cell_targets(self.datasets, self.labels)
        tissues = {label.name: label.tissues for label in self.labels}
        self.catalog = load_catalog(tissues, [label.name for label in self.labels])
        self.processor = self._build_processor()
        self.model = self._build_model()

    def train(self) -> None:
        """Run the stages; each resumes where it stopped."""
        stages, seed = self.recipe.stages, self.recipe.seed
        augmentation = self.recipe.augmentation
        logger.info("cell encoder")
        encoder_stage = EncoderStage(self.model.cell_encoder, self.model.cell_classifier)
        cells = CellDataset(self.datasets, seed, stages.encoder.steps * stages.encoder.batch_size)
        collator: Any = CellCollator(self.datasets, self.targets, augmentation)
        run_stage("encoder", encoder_stage, stages.encoder, cells, collator, self.folder, seed=seed)

        if stages.words is not None:
            logger.info("language model on words: requests without cells")
            self.model.config.signal_weight = stages.words.signal_weight
            texts = self.instructions("words", stages.words)
            collator = InstructionCollator(self.processor, self.datasets, self.targets, None)
            run_stage("words", self.model, stages.words, texts, collator, self.folder, seed=seed)

        logger.info("whole model on instructions")
        self.model.config.signal_weight = stages.instructions.signal_weight
        examples = self.instructions("instructions", stages.instructions)
        joint = self.recipe.joint_decoder
        collator = InstructionCollator(
            self.processor, self.datasets, self.targets, augmentation, with_signal_counts=joint
        )
        run_stage("instructions", self.model, stages.instructions, examples, collator, self.folder, seed=seed, kl=joint)

        logger.info("pseudo-cell decoder")
        bank = SignalBank(self.model, collator, self.generation_requests(examples))
        self.model.cell_decoder.fit_signal_scale(torch.cat(list(bank.states.values())))
        pairs = DecoderDataset(self.datasets, bank, seed, stages.decoder.steps * stages.decoder.batch_size)
        decoder = DecoderStage(self.model.cell_decoder)
        run_stage(
            "decoder", decoder, stages.decoder, pairs, DecoderCollator(self.datasets), self.folder, seed=seed, kl=True
        )

    def instructions(self, name: str, stage: Stage) -> InstructionDataset:
        """The examples of a stage of the whole model; each stage has a stream of its own."""
        seed = (self.recipe.seed, STREAMS[name])
        length = stage.steps * stage.batch_size
        return InstructionDataset(
            self.datasets, self.recipe, self.catalog, length, stage.tasks, seed=seed, batch_size=stage.batch_size
        )

    def generation_requests(self, examples: InstructionDataset) -> dict[Any, list[Example]]:
        """Many phrasings of a request for every kind of cell the decoder trains on."""
        requests: dict[Any, list[Example]] = {}
        for dataset, kind, rows, _ in generation_strata(self.datasets).groups:
            rng = Random(f"{self.recipe.seed}/{dataset}/{kind}")
            record, settings = (
                examples.record(dataset, rows[0]),
                replace(examples.hints(dataset), canonical=CANONICAL_SHARE),
            )
            rendered = [
                instruction(
                    "generation", record, rng, catalog=self.catalog, settings=settings, n_signals=1 + (i % 8 == 7)
                )
                for i in range(N_PHRASINGS)
            ]
            requests[dataset, kind] = [
                Example("generation", Prompt.parse(r.prompt, 0), answer_of(r.answer)) for r in rendered
            ]
        return requests

    def save(self, folder: Path, calibration: Mapping[str, float], readout: LabelReadout | None = None) -> None:
        """Write the checkpoint folder, weights in half precision."""
        drugs = DrugSet.default()
        save_checkpoint(folder, self.model, self.processor, self.labels, drugs, dict(calibration), readout=readout)

    # ---- parts

    def _load_cells(self) -> tuple[list[str], list[LabelledCells]]:
        """Read the files and choose the genes; the choice is kept, so a resumed run has the same."""
        every_gene = list(load_gene_table()["symbol"])
        datasets = load_datasets(self.recipe, self.data, every_gene)
        kept = self.folder / "genes.txt"
        if kept.exists():
            columns = pd.Index(every_gene).get_indexer(kept.read_text(encoding="utf-8").split())
        else:
            markers = label_markers({id_ for cells in datasets for id_ in cells.label_id})
            columns = choose_genes(datasets, every_gene, self.recipe.n_genes, markers)
            kept.write_text("\n".join(every_gene[j] for j in columns), encoding="utf-8")
        return [every_gene[j] for j in columns], [cells.on_genes(columns) for cells in datasets]

    def _build_processor(self) -> InstructCellProcessor:
        kept = self.folder / "processor"
        if kept.is_dir():
            return InstructCellProcessor.from_pretrained(kept)
        ensembl = load_gene_table().drop_duplicates("symbol").set_index("symbol")["ensembl_id"].fillna("")
        ids = [str(ensembl.get(gene, "")) for gene in self.genes]
        n_embeddings = self.recipe.encoder.get("n_embeddings", 4)
        if isinstance(self.recipe.backbone, str):
            processor = InstructCellProcessor.from_backbone(
                self.recipe.backbone, self.genes, ensembl_ids=ids, n_embeddings=n_embeddings
            )
        else:
            tokenizer = build_tokenizer(
                tokenizer_texts(self.catalog, self.recipe.seed), self.recipe.backbone["vocab_size"]
            )
            processor = InstructCellProcessor(
                tokenizer,
                self.genes,
                ids,
                n_embeddings=n_embeddings,
                lowercase_instructions=True,
                prompt_suffix=tokenizer.eos_token,
            )
        processor.save_pretrained(kept)
        return processor

    def _build_model(self) -> InstructCellForConditionalGeneration:
        backbone = self.recipe.backbone
        config = (
            backbone
            if isinstance(backbone, str)
            else T5Config(
                feed_forward_proj="gated-gelu_pytorch_tanh",  # as "gated-gelu", computed by torch in one step
                tie_word_embeddings=True,
                **{k: v for k, v in backbone.items() if k != "vocab_size"},
            )
        )
        profiles = reference_profiles(self.datasets) if self.recipe.profiles else None
        model = InstructCellForConditionalGeneration.from_backbone(
            config,
            self.processor,
            encoder={**self.recipe.encoder, "n_profiles": 0 if profiles is None else len(profiles)},
            decoder=self.recipe.decoder,
            n_classes=len(self.labels),
            n_signal_classes=len(generation_strata(self.datasets).groups),
            label_smoothing=self.recipe.label_smoothing,
            generation_weight=self.recipe.generation_weight,
        )
        model.cell_decoder.init_gene_bias(mean_share(self.datasets))
        if profiles is not None:
            model.cell_encoder.profiles.set_profiles(profiles)
        return model


def label_set(datasets: Sequence[LabelledCells]) -> LabelSet:
    """The labels of the training cells, most frequent tissues and all names included."""
    generated = {(d, kind.split("\t")[0]) for d, kind, _, _ in generation_strata(datasets).groups}
    rows: dict[str, dict[str, Any]] = {}
    for d, cells in enumerate(datasets):
        for row in cells.training_rows:
            if cells.dataset_label[row] in cells.entry.ignore_labels:
                continue
            name = str(cells.label[row])
            entry = rows.setdefault(
                name,
                {
                    "id": str(cells.label_id[row]),
                    "synonyms": {},
                    "tissues": {},
                    "species": {},
                    "n": 0,
                    "can_generate": False,
                },
            )
            entry["synonyms"].setdefault(str(cells.dataset_label[row]))
            entry["tissues"].setdefault(str(cells.tissue[row]))
            entry["species"].setdefault(str(cells.species[row]))
            entry["n"] += 1
            entry["can_generate"] |= (d, name) in generated
    catalog = load_catalog()
    labels = []
    for name in sorted(rows):
        entry = rows[name]
        synonyms = dict.fromkeys([*catalog.named(name)[1:], *entry["synonyms"]])
        labels.append(
            Label(
                name=name,
                id=entry["id"],
                synonyms=tuple(s for s in synonyms if s != name),
                tissues=tuple(t for t in entry["tissues"] if t),
                species=tuple(s for s in entry["species"] if s),
                n_training_cells=entry["n"],
                can_generate=bool(entry["can_generate"]),
            )
        )
    return LabelSet(labels)


def cell_targets(datasets: Sequence[LabelledCells], labels: LabelSet) -> list[Tensor]:
    """For each data set [N, C] bool: its label and the narrower ones that its study does not use.

    A study that says "T cell" does not contradict one that says "regulatory T cell"; but where one study uses both a
    broad and a narrow label, its cells of the broad label are not the narrow ones.
    """
    narrower = _narrower(labels)  # [C, C]
    names = [label.name for label in labels]
    index = {name: i for i, name in enumerate(names)}
    targets = []
    for cells in datasets:
        own = torch.tensor([name in set(cells.label) for name in names])
        allowed = torch.zeros(len(names) + 1, len(names), dtype=torch.bool)  # the last row: a label outside the set
        allowed[:-1] = narrower & ~own
        allowed[torch.arange(len(names)), torch.arange(len(names))] = True
        targets.append(allowed[torch.tensor([index.get(str(label), len(names)) for label in cells.label])])
    return targets


def _narrower(labels: LabelSet) -> Tensor:
    """[C, C] bool: the second label is a narrower type of the first."""
    return torch.tensor([[is_narrower(narrow, broad) for narrow in labels] for broad in labels])


def label_markers(ids: set[str]) -> set[str]:
    """The best marker genes of the labels' Cell Ontology terms."""
    table = pd.read_csv(resource_path("markers.tsv.gz"), sep="\t")
    table = table[table["cl_id"].isin(ids)].sort_values("weight", ascending=False)
    return set(table.groupby("cl_id").head(MARKERS_PER_LABEL)["gene"])


def mean_share(datasets: Sequence[LabelledCells]) -> Tensor:
    """Mean share of each gene in the counts of the cells the decoder trains on [G], over the files that measured it."""
    total, weight = np.zeros(len(datasets[0].measured)), np.zeros(len(datasets[0].measured))
    for d in sorted({d for d, *_ in generation_strata(datasets).groups}):
        counts = datasets[d].counts[datasets[d].training_rows]
        sums = np.asarray(counts.sum(axis=0)).ravel()
        total += sums / sums.sum() * datasets[d].measured.mean()
        weight += datasets[d].measured
    share = total / np.maximum(weight, 1)
    return torch.tensor(share / share.sum(), dtype=torch.float32)


def tokenizer_texts(catalog: Catalog, seed: int) -> list[str]:
    """Prompts in lower case and answers in their own."""
    return [text for prompt, answer in corpus(N_CORPUS, seed, catalog=catalog) for text in (prompt.lower(), answer)]
