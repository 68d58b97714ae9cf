"""The building blocks that encoder and decoder share."""

from __future__ import annotations

from torch import Tensor, nn


class ResidualBlock(nn.Module):
    """x [.., H] -> x + MLP(LayerNorm(x)) [.., H]."""

    def __init__(self, width: int, dropout: float = 0.0) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.expand = nn.Linear(width, 2 * width)
        self.activate = nn.GELU()
        self.dropout = nn.Dropout(dropout)
        self.contract = nn.Linear(2 * width, width)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.contract(self.dropout(self.activate(self.expand(self.norm(x)))))
