"""Fitting anew what lies beside a checkpoint's weights: the command line that those fits share."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from instructcell.checkpoint import Checkpoint, load_checkpoint
from instructcell.errors import InstructCellError
from train.datasets import LabelledCells, find_data, load_dataset
from train.recipe import DataEntry, Recipe, load_recipe

Write = Callable[[Checkpoint, Recipe, list[LabelledCells]], None]


def refit(
    module: str, purpose: str, wanted: Callable[[DataEntry], bool], write: Write, arguments: Sequence[str] | None = None
) -> int:
    """Read the files of a recipe that are wanted, fit and write; 0 done, 2 the data or the checkpoint cannot be had.

    Parameters
    ----------
    module, purpose
        What is run as `python -m`, and its docstring, whose first line the help says.
    wanted
        Whether a file of the recipe is read.
    write
        Fits to the files and writes into the checkpoint's folder.
    """
    parser = argparse.ArgumentParser(prog=f"python -m {module}", description=purpose.split("\n")[0])
    parser.add_argument("--model", default="mini", help="checkpoint: a shipped one or a folder (default: %(default)s)")
    parser.add_argument("--recipe", default="mini", help="the recipe it was trained with (default: %(default)s)")
    parser.add_argument("--data", type=Path, help="folder with the training files")
    options = parser.parse_args(arguments)
    try:
        checkpoint, recipe, data = load_checkpoint(options.model), load_recipe(options.recipe), find_data(options.data)
        genes = checkpoint.processor.genes
        datasets = [load_dataset(entry, data, genes, recipe.seed) for entry in recipe.data if wanted(entry)]
        write(checkpoint, recipe, datasets)
    except InstructCellError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0
