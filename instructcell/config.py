"""What a model is built from: a language-model backbone, the cell modules' sizes and the weights of the losses."""

from __future__ import annotations

from typing import Any, ClassVar

from transformers import AutoConfig, PretrainedConfig
from transformers.configuration_utils import SubConfigSpec

from encoders import CellDecoderConfig, CellEncoderConfig, ProjectorConfig
from instructcell.errors import ConfigError


class InstructCellConfig(PretrainedConfig):
    """Configuration of `InstructCellForConditionalGeneration`.

    Parameters
    ----------
    backbone_config
        Config of any `AutoModelForSeq2SeqLM` or `AutoModelForCausalLM`, or its dict.
    encoder, projector, decoder
        Fields of `CellEncoderConfig`, `ProjectorConfig` and `CellDecoderConfig`.
    cell_token_id, signal_token_id
        Ids of the two special tokens in the tokenizer.
    n_classes
        Leaf classes of the auxiliary read-out from the pooled cell embedding; 0 leaves it out.
    n_signal_classes
        Kinds of cells that the auxiliary read-out from the state at <SIGNAL> tells apart; 0 leaves it out.
    generation_weight, readout_weight, signal_weight
        Weights of the pseudo-cell loss and of the two read-out losses beside the text loss, whose weight is 1.
    label_smoothing
        Of the text loss, in [0, 1).

    Raises
    ------
    ConfigError
        The cell modules' sizes are unknown or do not fit each other.
    """

    model_type = "instructcell"
    sub_configs_defaults: ClassVar[dict[str, SubConfigSpec]] = {
        "backbone_config": SubConfigSpec(config_class=AutoConfig, model_type="t5")
    }
    keys_to_ignore_at_inference: ClassVar[list[str]] = [
        "text_loss",
        "generation_nll",
        "generation_kl",
        "library_loss",
        "readout_loss",
        "signal_loss",
        "signal_hidden",
        "cell_embeddings",
        "past_key_values",
        "encoder_last_hidden_state",
    ]

    backbone_config: Any = None  # a PretrainedConfig once built
    encoder: dict[str, Any] | None = None
    projector: dict[str, Any] | None = None
    decoder: dict[str, Any] | None = None
    cell_token_id: int = -1
    signal_token_id: int = -1
    n_classes: int = 0
    n_signal_classes: int = 0
    generation_weight: float = 1.0
    readout_weight: float = 1.0
    signal_weight: float = 1.0
    label_smoothing: float = 0.0

    def __post_init__(self, **kwargs: Any) -> None:
        # A new outer config would reset the attention of the backbone it is given.
        kwargs.setdefault("attn_implementation", getattr(self.backbone_config, "_attn_implementation", None))
        super().__post_init__(**kwargs)
        self.is_encoder_decoder = bool(self.backbone_config.is_encoder_decoder)
        if self.encoder is not None:  # transformers also builds the config bare, to compare with its defaults
            self._check()

    def _check(self) -> None:
        try:
            encoder, projector, decoder = self.encoder_config, self.projector_config, self.decoder_config
        except (TypeError, ValueError) as error:
            raise ConfigError(f"the sizes of the cell modules cannot be used: {error}") from error
        width = self.hidden_size
        for found, expected, what in (
            (projector.n_latent, encoder.n_latent, "projector.n_latent must equal encoder.n_latent"),
            (projector.n_model, width, "projector.n_model must equal the backbone's hidden size"),
            (decoder.n_condition, width, "decoder.n_condition must equal the backbone's hidden size"),
            (decoder.n_genes, encoder.n_genes, "decoder.n_genes must equal encoder.n_genes"),
        ):
            if found != expected:
                raise ConfigError(f"{what}: found {found}, expected {expected}")
        if not 0.0 <= self.label_smoothing < 1.0:
            raise ConfigError(f"label_smoothing must be in [0, 1), found {self.label_smoothing}")

    @property
    def encoder_config(self) -> CellEncoderConfig:
        return CellEncoderConfig(**(self.encoder or {}))

    @property
    def projector_config(self) -> ProjectorConfig:
        return ProjectorConfig(**(self.projector or {}))

    @property
    def decoder_config(self) -> CellDecoderConfig:
        return CellDecoderConfig(**(self.decoder or {}))

    @property
    def n_genes(self) -> int:
        """G: how many genes the checkpoint knows."""
        return self.encoder_config.n_genes

    @property
    def n_embeddings(self) -> int:
        """K: how many tokens one cell becomes."""
        return self.encoder_config.n_embeddings

    @property
    def hidden_size(self) -> int:
        """D: width of the backbone."""
        return int(self.backbone_config.get_text_config().hidden_size)

    @property
    def vocab_size(self) -> int:
        return int(self.backbone_config.get_text_config().vocab_size)

    def get_text_config(self, decoder: bool | None = None, encoder: bool | None = None) -> PretrainedConfig:
        """The backbone's: transformers would otherwise take our `decoder` sizes for a text decoder."""
        return self.backbone_config.get_text_config(decoder=decoder, encoder=encoder)


AutoConfig.register(InstructCellConfig.model_type, InstructCellConfig, exist_ok=True)
