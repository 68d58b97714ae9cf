"""Cell embeddings into the embedding space of the language model."""

from __future__ import annotations

from torch import Tensor, nn

from encoders.config import ProjectorConfig


class Projector(nn.Module):
    """[N, K, Z] -> [N, K, D]."""

    def __init__(self, config: ProjectorConfig) -> None:
        super().__init__()
        self.config = config
        self.layers = nn.Sequential(
            nn.Linear(config.n_latent, config.n_model),
            nn.GELU(),
            nn.Linear(config.n_model, config.n_model),
        )

    def forward(self, embeddings: Tensor) -> Tensor:
        return self.layers(embeddings)
