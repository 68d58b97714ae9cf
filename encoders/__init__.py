"""Cells to vectors and back, in torch alone.

A leaf package: it knows nothing of text, AnnData or files, and imports nothing else of this project.
"""

from encoders.config import CellDecoderConfig, CellEncoderConfig, ProjectorConfig
from encoders.decoder import CellDecoder, DecoderLoss, Latents
from encoders.expression import CellEncoder, SparseCellEncoder, normalise_expression
from encoders.fusion import Fusion, FusionConfig
from encoders.gene_text import GeneReader, GeneReaderConfig, ranked_genes, weighted_mean
from encoders.profiles import ProfileLikelihood
from encoders.projector import Projector
from encoders.sentence import CellSentenceEncoder, CellSentences, RankFit, SentenceConfig, rank_genes

__all__ = [
    "CellDecoder",
    "CellDecoderConfig",
    "CellEncoder",
    "CellEncoderConfig",
    "CellSentenceEncoder",
    "CellSentences",
    "DecoderLoss",
    "Fusion",
    "FusionConfig",
    "GeneReader",
    "GeneReaderConfig",
    "Latents",
    "ProfileLikelihood",
    "Projector",
    "ProjectorConfig",
    "RankFit",
    "SentenceConfig",
    "SparseCellEncoder",
    "normalise_expression",
    "rank_genes",
    "ranked_genes",
    "weighted_mean",
]
