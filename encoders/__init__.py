"""Cells to vectors and back, in torch alone.

A leaf package: it knows nothing of text, AnnData or files, and imports nothing else of this project.
"""

from encoders.config import CellDecoderConfig, CellEncoderConfig, ProjectorConfig
from encoders.decoder import CellDecoder, DecoderLoss
from encoders.expression import CellEncoder, SparseCellEncoder, normalise_expression
from encoders.profiles import ProfileLikelihood
from encoders.projector import Projector

__all__ = [
    "CellDecoder",
    "CellDecoderConfig",
    "CellEncoder",
    "CellEncoderConfig",
    "DecoderLoss",
    "ProfileLikelihood",
    "Projector",
    "ProjectorConfig",
    "SparseCellEncoder",
    "normalise_expression",
]
