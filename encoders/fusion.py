"""Two views of a cell in one classifier, the encoders behind them frozen (scMPT 2025).

    text embedding [N, T]       -> dense, ReLU -> [N, H]  \
                                                            concatenated [N, 2H] -> logits [N, C]
    expression embedding [N, E] -> dense, ReLU -> [N, H]  /
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn


@dataclass(frozen=True)
class FusionConfig:
    """Widths of the two embeddings, of the dense layers and of the answer."""

    n_text: int
    n_expression: int
    n_classes: int
    n_hidden: int = 4096

    def __post_init__(self) -> None:
        for name in ("n_text", "n_expression", "n_classes", "n_hidden"):
            if getattr(self, name) < 1:
                raise ValueError(f"FusionConfig.{name} must be at least 1, got {getattr(self, name)}")


class Fusion(nn.Module):
    """Text [N, T] and expression [N, E] embeddings -> logits [N, C]; a softmax of them gives probabilities."""

    shift_text: Tensor
    scale_text: Tensor
    shift_expression: Tensor
    scale_expression: Tensor

    def __init__(self, config: FusionConfig) -> None:
        super().__init__()
        self.config = config
        for name, width in (("text", config.n_text), ("expression", config.n_expression)):
            self.register_buffer(f"shift_{name}", torch.zeros(width))
            self.register_buffer(f"scale_{name}", torch.ones(width))
        self.from_text = nn.Linear(config.n_text, config.n_hidden)
        self.from_expression = nn.Linear(config.n_expression, config.n_hidden)
        self.activate = nn.ReLU()
        self.output = nn.Linear(2 * config.n_hidden, config.n_classes)

    def standardise(self, text: Tensor, expression: Tensor) -> None:
        """Take mean and spread of the training embeddings [N, T], [N, E], so that neither view drowns the other."""
        for name, values in (("text", text), ("expression", expression)):
            getattr(self, f"shift_{name}").copy_(values.mean(dim=0))
            spread = values.std(dim=0, unbiased=False)
            getattr(self, f"scale_{name}").copy_(torch.where(spread > 1e-6, spread, torch.ones_like(spread)))

    def embed(self, text: Tensor, expression: Tensor) -> Tensor:
        """The concatenated dense layers [N, 2H]."""
        text = (text - self.shift_text) / self.scale_text
        expression = (expression - self.shift_expression) / self.scale_expression
        return torch.cat([self.activate(self.from_text(text)), self.activate(self.from_expression(expression))], dim=-1)

    def forward(self, text: Tensor, expression: Tensor) -> Tensor:
        return self.output(self.embed(text, expression))
