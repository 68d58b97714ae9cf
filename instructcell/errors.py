"""What a user can get wrong: errors that say what was found, what was expected and what to do.

The command line and the chat print an `InstructCellError` as one sentence without a traceback; anything else is a bug
and keeps its traceback.
"""


class InstructCellError(Exception):
    """A mistake in the input that its owner can mend; the message says how."""


class ReadError(InstructCellError):
    """A file cannot be read as single-cell expression."""


class MatrixError(InstructCellError):
    """No matrix of the file can be used as expression (empty, negative, NaN, unknown scale)."""


class GeneAlignmentError(InstructCellError):
    """Too few genes of the file are known to the model."""


class LabelError(InstructCellError):
    """A cell type that was asked for is not one the checkpoint knows."""


class DrugError(InstructCellError):
    """A drug that was asked for is not one the checkpoint knows."""


class CheckpointError(InstructCellError):
    """A checkpoint folder is missing, incomplete or made for another version."""


class ResourceError(InstructCellError):
    """A shipped resource is missing or fails its hash check."""


class ConfigError(InstructCellError):
    """A recipe or config file holds an unknown key or a value out of range."""


class LanguageModelError(InstructCellError):
    """A generative language model cannot be reached, is of the wrong kind, or is given more than it can read."""


class GeneTextError(InstructCellError):
    """A table of gene descriptions cannot be read, or describes too few of the genes."""
