"""Tiny text models with random weights, made on the spot: a causal LM and a sentence-transformers encoder."""

from __future__ import annotations

from pathlib import Path

import tiny
import torch
from sentence_transformers import SentenceTransformer
from sentence_transformers.base.modules import Transformer
from sentence_transformers.sentence_transformer.modules import Pooling
from tokenizers import Regex, Tokenizer, models, normalizers, pre_tokenizers, processors
from transformers import BertConfig, BertModel, PreTrainedTokenizerFast, Qwen3Config, Qwen3ForCausalLM

from instructcell.literature.frames import FRAMES, GENERATION_FRAME
from instructcell.processor import build_tokenizer

CONTEXT = 64  # tokens of the sentence encoder


def sentence_model(folder: Path, *, seed: int = 0) -> SentenceTransformer:
    """A one-layer BERT whose words are the tiny genes, with mean pooling; words of large spread tell cells apart."""
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", *tiny.tiny_genes(), "genes", "ranked", "by", "expression"]
    backend = Tokenizer(models.WordLevel({word: i for i, word in enumerate(words)}, unk_token="[UNK]"))
    backend.normalizer, backend.pre_tokenizer = normalizers.NFC(), pre_tokenizers.Split(Regex("[,:; ]+"), "removed")
    backend.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", pair="[CLS] $A [SEP] $B [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=backend, unk_token="[UNK]", pad_token="[PAD]", cls_token="[CLS]", sep_token="[SEP]",
        model_max_length=CONTEXT,
    )  # fmt: skip
    torch.manual_seed(seed)
    config = BertConfig(
        vocab_size=len(words), hidden_size=32, num_hidden_layers=1, num_attention_heads=2, intermediate_size=32,
        max_position_embeddings=CONTEXT, initializer_range=0.3,
    )  # fmt: skip
    BertModel(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    transformer = Transformer(str(folder), max_seq_length=CONTEXT)
    model = SentenceTransformer(modules=[transformer, Pooling(32)], device="cpu")
    model.eval()
    return model


def causal_lm(folder: Path, *, context: int = 512, seed: int = 0) -> Path:
    """A two-layer Qwen3 and its tokenizer in a folder."""
    texts = [*FRAMES, GENERATION_FRAME, " ".join(tiny.tiny_genes()), *tiny.MARKERS]
    tokenizer = build_tokenizer(texts * 4, vocab_size=600)
    torch.manual_seed(seed)
    config = Qwen3Config(
        vocab_size=len(tokenizer), hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=2,
        num_key_value_heads=1, head_dim=16, max_position_embeddings=context, eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )  # fmt: skip
    Qwen3ForCausalLM(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder
