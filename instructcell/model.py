"""The model: cells in, text and pseudo-cells out, around any Hugging Face language model.

    counts -> cell encoder -> projector -> put at <CELL> positions -> language model -> text
                                                                  -> hidden state at <SIGNAL> -> cell decoder -> counts
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoModelForSeq2SeqLM,
    GenerationConfig,
    GenerationMixin,
    PretrainedConfig,
    PreTrainedModel,
)
from transformers.cache_utils import Cache
from transformers.utils import ModelOutput
from transformers.utils.generic import can_return_tuple

from encoders import CellDecoder, CellDecoderConfig, CellEncoder, CellEncoderConfig, Projector, ProjectorConfig
from instructcell.config import InstructCellConfig
from instructcell.processor import IGNORED_LABEL, InstructCellProcessor


@dataclass
class InstructCellOutput(ModelOutput):
    """What a forward pass gives; losses are scalars and absent where the batch held nothing to score.

    loss = text_loss + generation_weight x (generation_nll + kl_weight x generation_kl + library_loss)
           + readout_weight x readout_loss + signal_weight x signal_loss
    """

    loss: Tensor | None = None
    logits: Tensor | None = None  # [B, L, V]
    text_loss: Tensor | None = None
    generation_nll: Tensor | None = None
    generation_kl: Tensor | None = None
    library_loss: Tensor | None = None
    readout_loss: Tensor | None = None
    signal_loss: Tensor | None = None
    signal_hidden: Tensor | None = None  # [M, D], signals in the order of the flattened batch
    cell_embeddings: Tensor | None = None  # [N, K, Z]
    past_key_values: Cache | None = None
    hidden_states: tuple[Tensor, ...] | None = None
    attentions: tuple[Tensor, ...] | None = None
    decoder_hidden_states: tuple[Tensor, ...] | None = None
    decoder_attentions: tuple[Tensor, ...] | None = None
    cross_attentions: tuple[Tensor, ...] | None = None
    encoder_last_hidden_state: Tensor | None = None
    encoder_hidden_states: tuple[Tensor, ...] | None = None
    encoder_attentions: tuple[Tensor, ...] | None = None


class InstructCellForConditionalGeneration(PreTrainedModel, GenerationMixin):
    """A language model that reads cells and writes text and pseudo-cells.

    Arguments of `forward`; cells are listed in the order of their places over the flattened batch, signals likewise:

    input_ids, attention_mask
        [B, T]; each cell stands on K consecutive <CELL> positions.
    counts, measured
        Cells of the prompts: counts [N, G] >= 0 on a linear scale of any unit, measured [N, G] or [G] bool.
    labels
        T5: answer ids [B, L]. Causal: [B, T] aligned with input_ids, -100 on the prompt.
    signal_counts, signal_measured
        What the M signals of the answers shall become: raw counts [M, G] and [M, G] or [G] bool.
    example_weight
        [B] weights of the rows in the text loss.
    cell_targets
        [N, C] bool: the leaf classes a cell may be; a row without any is ignored.
    signal_targets
        [M, S] bool: the kind of cells (type, study, condition) that was asked for, so that the state at <SIGNAL> holds
        it before the decoder needs it.
    kl_weight
        Warm-up weight of the decoder's KL term, 0..1.
    num_items_in_batch
        Accepted for `Trainer` and ignored: losses are means.
    """

    config_class = InstructCellConfig
    main_input_name = "input_ids"
    supports_gradient_checkpointing = True
    accepts_loss_kwargs = False  # the loss is a mean over examples: Trainer divides it among accumulated batches
    _supports_sdpa = True
    _supports_flash_attn = True
    _supports_flex_attn = True
    _supports_attention_backend = True
    # Counts span five orders of magnitude, more than 16 bits hold.
    _keep_in_fp32_modules_strict = ["cell_encoder", "cell_decoder", "cell_classifier", "signal_classifier"]

    def __init__(self, config: InstructCellConfig, lm: PreTrainedModel | None = None) -> None:
        super().__init__(config)
        auto = AutoModelForSeq2SeqLM if config.is_encoder_decoder else AutoModelForCausalLM
        self.lm = lm if lm is not None else auto.from_config(config.backbone_config)
        self.cell_encoder = CellEncoder(config.encoder_config)
        self.projector = Projector(config.projector_config)
        self.cell_decoder = CellDecoder(config.decoder_config)
        classes, kinds = config.n_classes, config.n_signal_classes
        self.cell_classifier = nn.Linear(config.encoder_config.n_latent, classes) if classes else None
        self.signal_classifier = nn.Linear(config.hidden_size, kinds) if kinds else None
        self.generation_config = GenerationConfig.from_dict(self.lm.generation_config.to_dict())
        self._keep_own_initialisation()
        self.post_init()

    @classmethod
    def from_backbone(
        cls,
        backbone: str | Path | PretrainedConfig,
        processor: InstructCellProcessor,
        *,
        encoder: Mapping[str, Any] | None = None,
        decoder: Mapping[str, Any] | None = None,
        **settings: Any,
    ) -> InstructCellForConditionalGeneration:
        """Build a new model around a language model.

        Parameters
        ----------
        backbone
            Path or hub id of pretrained weights, or a config for a language model trained from scratch.
        processor
            Its tokenizer sets the vocabulary, its genes the width of encoder and decoder.
        encoder, decoder
            Fields of `CellEncoderConfig` and `CellDecoderConfig` other than those the processor and backbone set.
        settings
            Further fields of `InstructCellConfig`: n_classes, n_signal_classes, generation_weight, readout_weight,
            label_smoothing.
        """
        lm = _load_backbone(backbone, processor)
        width, n_genes = int(lm.config.get_text_config().hidden_size), len(processor.genes)
        encoder_config = CellEncoderConfig(
            **{**(encoder or {}), "n_genes": n_genes, "n_embeddings": processor.n_embeddings}
        )
        config = InstructCellConfig(
            backbone_config=lm.config,
            encoder=asdict(encoder_config),
            projector=asdict(ProjectorConfig(encoder_config.n_latent, width)),
            decoder=asdict(CellDecoderConfig(**{**(decoder or {}), "n_genes": n_genes, "n_condition": width})),
            cell_token_id=processor.cell_token_id,
            signal_token_id=processor.signal_token_id,
            **settings,
        )
        return cls(config, lm)

    # ---- forward

    @can_return_tuple
    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        counts: Tensor | None = None,
        measured: Tensor | None = None,
        labels: Tensor | None = None,
        signal_counts: Tensor | None = None,
        signal_measured: Tensor | None = None,
        *,
        example_weight: Tensor | None = None,
        cell_targets: Tensor | None = None,
        signal_targets: Tensor | None = None,
        kl_weight: float = 1.0,
        inputs_embeds: Tensor | None = None,
        encoder_outputs: ModelOutput | None = None,
        decoder_input_ids: Tensor | None = None,
        decoder_attention_mask: Tensor | None = None,
        past_key_values: Cache | None = None,
        position_ids: Tensor | None = None,
        use_cache: bool | None = None,
        logits_to_keep: int | Tensor = 0,
        num_items_in_batch: Tensor | int | None = None,
        **kwargs: Any,
    ) -> InstructCellOutput:
        """Score a batch, or step through generation; the class lists the arguments.

        Raises
        ------
        ValueError
            The number of cells or signals differs from the places for them.
        """
        embeddings = None if counts is None else self.encode_cells(counts, measured)  # [N, K, Z]
        if inputs_embeds is None and input_ids is not None:
            inputs_embeds = self._embed(input_ids, embeddings)  # [B, T, D]
        if labels is not None and decoder_input_ids is None and self.config.is_encoder_decoder:
            decoder_input_ids = self.shift_right(labels)  # [B, L]
        result = self._run_lm(
            decoder_input_ids if self.config.is_encoder_decoder else input_ids,
            inputs_embeds=inputs_embeds,
            attention_mask=attention_mask,
            encoder_outputs=encoder_outputs,
            decoder_input_ids=decoder_input_ids,
            decoder_attention_mask=decoder_attention_mask,
            past_key_values=past_key_values,
            position_ids=position_ids,
            use_cache=use_cache,
            logits_to_keep=logits_to_keep,
            **kwargs,
        )
        result.cell_embeddings = embeddings
        if labels is not None:
            self._score_text(result, labels, example_weight)
        if signal_counts is not None:
            self._score_signals(result, signal_counts, signal_measured, kl_weight)
        if cell_targets is not None:
            self._score_readout(result, cell_targets)
        if signal_targets is not None:
            self._score_signal_readout(result, signal_targets)
        return result

    def encode_cells(self, counts: Tensor, measured: Tensor | None = None) -> Tensor:
        """Cell embeddings [N, K, Z] of counts [N, G]; measured [N, G] or [G] bool, None = every gene."""
        dtype = next(self.cell_encoder.parameters()).dtype
        measured = torch.ones_like(counts, dtype=torch.bool) if measured is None else measured
        return self.cell_encoder(counts.to(dtype), measured)

    def read_out(self, embeddings: Tensor) -> Tensor:
        """Logits over the leaf classes [N, C] from cell embeddings [N, K, Z]."""
        if self.cell_classifier is None:
            raise ValueError("this model has no read-out; build it with n_classes > 0")
        return self.cell_classifier(self.cell_encoder.pool(embeddings))

    def signals(self, sequences: Tensor, input_ids: Tensor, attention_mask: Tensor, **cells: Tensor | None) -> Tensor:
        """Hidden states [M, D] at the <SIGNAL>s of generated sequences, for `cell_decoder.sample`.

        Parameters
        ----------
        sequences
            What `generate` returned: T5 [B, L] from the start token on, causal [B, T + L] with the prompt.
        input_ids, attention_mask
            Of the prompts [B, T].
        cells
            `counts` and `measured` of the prompts.
        """
        if self.config.is_encoder_decoder:
            output = self(input_ids, attention_mask, decoder_input_ids=sequences, **cells)
        else:
            answer_mask = attention_mask.new_ones(sequences.shape[0], sequences.shape[1] - input_ids.shape[1])
            output = self(sequences, torch.cat([attention_mask, answer_mask], dim=1), **cells)
        if output.signal_hidden is None:
            return self.cell_decoder.dispersion_base.new_zeros(0, self.config.hidden_size)
        return output.signal_hidden

    # ---- generation

    @torch.no_grad()
    def generate(  # type: ignore[override]
        self,
        inputs: Tensor | None = None,
        generation_config: GenerationConfig | None = None,
        *,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        counts: Tensor | None = None,
        measured: Tensor | None = None,
        **kwargs: Any,
    ) -> Any:
        """`GenerationMixin.generate` with cells: streamers, logits processors, sampling and beams as usual.

        input_ids, attention_mask [B, T], counts [N, G], measured [N, G] or [G]. The cells are embedded once, before the
        first step.
        """
        input_ids = inputs if input_ids is None else input_ids
        if input_ids is not None:
            if attention_mask is None:
                attention_mask = (input_ids != self.generation_config.pad_token_id).long()
            embeddings = None if counts is None else self.encode_cells(counts, measured)
            kwargs["inputs_embeds"] = self._embed(input_ids, embeddings)
        # An encoder-decoder reads the embeddings alone; a causal answer follows the prompt's ids.
        prompt = None if self.config.is_encoder_decoder else input_ids
        return super().generate(  # type: ignore[misc]
            prompt, generation_config, attention_mask=attention_mask, **kwargs
        )

    # ---- steps of the forward pass

    def _run_lm(self, tokens: Tensor | None, **arguments: Any) -> InstructCellOutput:
        """The language model's outputs and its state at every <SIGNAL> of `tokens`, the side that writes the answer."""
        fresh = arguments["past_key_values"] is None
        if fresh and arguments["position_ids"] is None and not self.config.is_encoder_decoder:
            arguments["position_ids"] = _positions(arguments["attention_mask"])
        at_signal = self._signal_positions(tokens, arguments["past_key_values"])
        if at_signal is not None:
            arguments["output_hidden_states"] = True
        known = _arguments_of(type(self.lm))  # type: ignore[arg-type]
        given = {key: value for key, value in arguments.items() if value is not None and key in known}
        outputs = self.lm(**given)
        return InstructCellOutput(
            **{key: value for key, value in outputs.items() if key in InstructCellOutput.__dataclass_fields__},
            signal_hidden=None if at_signal is None else _last_hidden(outputs)[at_signal],  # [M, D]
        )

    def _embed(self, input_ids: Tensor, embeddings: Tensor | None) -> Tensor:
        """Prompt embeddings [B, T, D] with the cells in their places."""
        embeds = self.get_input_embeddings()(input_ids)
        if embeddings is None:
            n_slots = int((input_ids == self.config.cell_token_id).sum())
            if n_slots:
                raise ValueError(f"the prompts hold {n_slots} <CELL> positions but no counts were given")
            return embeds
        cells = self.projector(embeddings.to(next(self.projector.parameters()).dtype))  # [N, K, D]
        return inject_cells(embeds, input_ids, cells, self.config.cell_token_id)

    def shift_right(self, labels: Tensor) -> Tensor:
        """Answer ids to decoder input: start token first, padding where labels are ignored."""
        start = torch.full_like(labels[:, :1], self.generation_config.decoder_start_token_id)
        shifted = torch.cat([start, labels[:, :-1]], dim=1)
        return shifted.masked_fill(shifted == IGNORED_LABEL, self.generation_config.pad_token_id)

    def _signal_positions(self, tokens: Tensor | None, past_key_values: Cache | None) -> Tensor | None:
        """Where the input token is <SIGNAL> [B, L], or None; steps of `generate` need no signals."""
        if tokens is None or past_key_values is not None:
            return None
        at_signal = tokens == self.config.signal_token_id
        return at_signal if bool(at_signal.any()) else None

    def _score_text(self, result: InstructCellOutput, labels: Tensor, example_weight: Tensor | None) -> None:
        logits: Tensor = result["logits"]
        if not self.config.is_encoder_decoder:  # position t predicts token t + 1
            logits, labels = logits[:, :-1], labels[:, 1:]
        result.text_loss = text_loss(logits, labels, example_weight, self.config.label_smoothing)
        self._add_loss(result, result.text_loss)

    def _score_signals(
        self, result: InstructCellOutput, counts: Tensor, measured: Tensor | None, kl_weight: float
    ) -> None:
        dtype = next(self.cell_decoder.parameters()).dtype
        hidden = result.signal_hidden
        hidden = counts.new_zeros(0, self.config.hidden_size, dtype=dtype) if hidden is None else hidden.to(dtype)
        if hidden.shape[0] != counts.shape[0]:
            raise ValueError(f"the answers hold {hidden.shape[0]} <SIGNAL>s but {counts.shape[0]} cells were given")
        measured = torch.ones_like(counts, dtype=torch.bool) if measured is None else measured
        parts = self.cell_decoder.loss(hidden, counts.to(dtype), measured, kl_weight)
        result.generation_nll, result.generation_kl, result.library_loss = parts.nll, parts.kl, parts.library
        total = parts.nll + kl_weight * parts.kl + parts.library
        self._add_loss(result, self.config.generation_weight * total)

    def _score_readout(self, result: InstructCellOutput, targets: Tensor) -> None:
        if result.cell_embeddings is None:
            raise ValueError("cell_targets were given without counts")
        result.readout_loss = readout_loss(self.read_out(result.cell_embeddings), targets)
        self._add_loss(result, self.config.readout_weight * result.readout_loss)

    def _score_signal_readout(self, result: InstructCellOutput, targets: Tensor) -> None:
        if self.signal_classifier is None:
            raise ValueError("signal_targets were given but this model has no n_signal_classes; build it with some")
        if result.signal_hidden is not None:
            result.signal_loss = readout_loss(self.signal_classifier(result.signal_hidden.float()), targets)
            self._add_loss(result, self.config.signal_weight * result.signal_loss)

    @staticmethod
    def _add_loss(result: InstructCellOutput, loss: Tensor) -> None:
        result.loss = loss if result.loss is None else result.loss + loss

    # ---- what transformers asks of a model

    def get_input_embeddings(self) -> nn.Module:
        return self.lm.get_input_embeddings()

    def set_input_embeddings(self, value: nn.Module) -> None:
        self.lm.set_input_embeddings(value)

    def get_output_embeddings(self) -> nn.Module | None:
        return self.lm.get_output_embeddings()

    def set_output_embeddings(self, new_embeddings: nn.Module) -> None:
        self.lm.set_output_embeddings(new_embeddings)

    def get_encoder(self, modality: str | None = None) -> nn.Module:
        return self.lm.get_encoder(modality)

    def get_decoder(self) -> nn.Module:
        return self.lm.get_decoder()

    def _keep_own_initialisation(self) -> None:
        """Cell modules start as their constructors left them, not as transformers would draw them."""
        if self.cell_decoder.dispersion_base.device.type == "meta":
            return
        readouts = (self.cell_classifier, self.signal_classifier)
        for part in (self.cell_encoder, self.projector, self.cell_decoder, *readouts):
            for module in part.modules() if part is not None else ():
                module._is_hf_initialized = True  # type: ignore[assignment]

    def _init_weights(self, module: nn.Module) -> None:
        """Draw a cell module's weights when a checkpoint lacks them, as torch does."""
        reset: Any = getattr(module, "reset_parameters", None)
        if reset is not None:
            reset()


def inject_cells(embeds: Tensor, input_ids: Tensor, cells: Tensor, cell_token_id: int) -> Tensor:
    """Put cell embeddings at the <CELL> positions of prompts.

    embeds [B, T, D], input_ids [B, T], cells [N, K, D] -> [B, T, D]
    """
    mask = input_ids == cell_token_id  # [B, T]
    slots, given = int(mask.sum()), cells.shape[0] * cells.shape[1]
    if slots != given:
        raise ValueError(
            f"the prompts hold {slots} <CELL> positions but {given} cell embeddings were given "
            f"({cells.shape[0]} cells of {cells.shape[1]})"
        )
    return embeds.masked_scatter(mask.unsqueeze(-1), cells.to(embeds.dtype))


def text_loss(logits: Tensor, labels: Tensor, weight: Tensor | None = None, label_smoothing: float = 0.0) -> Tensor:
    """Cross-entropy, the mean over each row's answer tokens, then the weighted mean over rows.

    logits [B, L, V], labels [B, L] with -100 where ignored, weight [B] or None -> scalar. Rows without answer tokens do
    not count.
    """
    losses = F.cross_entropy(
        logits.float().transpose(1, 2),
        labels,
        ignore_index=IGNORED_LABEL,
        reduction="none",
        label_smoothing=label_smoothing,
    )  # [B, L]
    n_tokens = (labels != IGNORED_LABEL).sum(1)  # [B]
    per_row = losses.sum(1) / n_tokens.clamp_min(1)
    weight = torch.ones_like(per_row) if weight is None else weight.to(per_row.dtype)
    weight = weight * (n_tokens > 0)
    return (per_row * weight).sum() / weight.sum().clamp_min(torch.finfo(per_row.dtype).tiny)


def readout_loss(logits: Tensor, targets: Tensor) -> Tensor:
    """Minus the log probability of the allowed classes together; logits [N, C], targets [N, C] bool -> scalar."""
    known = targets.any(-1)  # [N]
    if not bool(known.any()):
        return logits.sum() * 0.0
    log_prob = torch.log_softmax(logits[known].float(), dim=-1)
    return -torch.logsumexp(log_prob.masked_fill(~targets[known], float("-inf")), dim=-1).mean()


@lru_cache(maxsize=8)
def _arguments_of(lm_class: type[nn.Module]) -> frozenset[str]:
    """The arguments that a language model's forward takes; those for its outputs are read by transformers' wrappers."""
    return frozenset(inspect.signature(lm_class.forward).parameters) | {"output_hidden_states", "output_attentions"}


def _positions(attention_mask: Tensor | None) -> Tensor | None:
    """Positions [B, T] counted from the first real token, so that left padding moves nothing."""
    return None if attention_mask is None else (attention_mask.long().cumsum(-1) - 1).clamp_min(0)


def _last_hidden(outputs: ModelOutput) -> Tensor:
    """Hidden states [B, L, D] on the side that writes the answer."""
    return (outputs.get("decoder_hidden_states") or outputs["hidden_states"])[-1]


def _load_backbone(backbone: str | Path | PretrainedConfig, processor: InstructCellProcessor) -> PreTrainedModel:
    """A language model whose vocabulary holds the processor's tokens."""
    tokenizer = processor.tokenizer
    config = backbone if isinstance(backbone, PretrainedConfig) else AutoConfig.from_pretrained(backbone)
    auto = AutoModelForSeq2SeqLM if config.is_encoder_decoder else AutoModelForCausalLM
    if isinstance(backbone, PretrainedConfig):
        ids = {"pad_token_id": tokenizer.pad_token_id, "eos_token_id": tokenizer.eos_token_id}
        if config.is_encoder_decoder:
            ids["decoder_start_token_id"] = tokenizer.pad_token_id
        config = type(config).from_dict({**config.to_dict(), **ids, "vocab_size": len(tokenizer)})
        return auto.from_config(config)
    lm = auto.from_pretrained(backbone, dtype="auto")
    if lm.config.get_text_config().vocab_size < len(tokenizer):
        lm.resize_token_embeddings(len(tokenizer))
    settings = lm.generation_config
    settings.pad_token_id = tokenizer.pad_token_id
    if config.is_encoder_decoder and settings.decoder_start_token_id is None:
        settings.decoder_start_token_id = tokenizer.pad_token_id
    return lm


AutoModelForSeq2SeqLM.register(InstructCellConfig, InstructCellForConditionalGeneration, exist_ok=True)
