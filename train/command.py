"""`instructcell train` and `instructcell evaluate`."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Annotated

import typer

RECIPE = Annotated[str, typer.Argument(help="A recipe that ships (mini) or a YAML file.")]
DATA = Annotated[
    Path | None, typer.Option("--data", help="Folder with the training files; found beside the project by default.")
]
RUNS = Annotated[
    Path,
    typer.Option("--runs", help="Where checkpoints of the run, curves and logs are kept; a run resumes from there."),
]
OUTPUT = Annotated[
    Path | None,
    typer.Option("--output", "-o", help="Folder of the finished checkpoint; by default the one that ships."),
]
BACKBONE = Annotated[
    str | None, typer.Option("--backbone", help="Another language model: a folder or hub id, T5 or causal.")
]


def train(
    recipe: RECIPE = "mini",
    data: DATA = None,
    runs: RUNS = Path("runs"),
    output: OUTPUT = None,
    backbone: BACKBONE = None,
) -> None:
    """Train a checkpoint from a recipe; an interrupted run goes on where it stopped.

    \b
    Example:
      instructcell train mini --data data
      instructcell train mini --backbone Qwen/Qwen3-0.6B -o checkpoints/qwen
    """
    from instructcell.checkpoint import SHIPPED
    from instructcell.errors import ConfigError
    from train.build import Run
    from train.calibrate import fit_calibration
    from train.datasets import find_data
    from train.distil import fit_readout
    from train.recipe import load_recipe, with_backbone

    logging.basicConfig(level=logging.INFO, format="%(message)s")
    settings = load_recipe(recipe)
    if backbone:
        settings = with_backbone(settings, backbone)
        if output is None:
            raise ConfigError("another backbone needs a folder of its own; give --output")
    run = Run(settings, find_data(data), runs / settings.output)
    run.train()
    calibration = fit_calibration(run.model, run.processor, run.labels, run.datasets, seed=settings.seed)
    readout = fit_readout(
        run.model, run.processor, run.labels, run.datasets, calibration, settings.augmentation, seed=settings.seed
    )
    folder = output or SHIPPED / settings.output
    run.save(folder, calibration, readout)
    typer.echo(f"The checkpoint is in {folder}. Measure it with `instructcell evaluate`.")


MODEL = Annotated[str, typer.Option("--model", help="Checkpoint: the name of a shipped one, a folder or a hub id.")]
RECIPE_OPTION = Annotated[str, typer.Option("--recipe", help="The recipe whose held-out cells are used.")]
JSON = Annotated[bool, typer.Option("--json", help="Print the result as JSON and write nothing.")]


def evaluate(model: MODEL = "mini", recipe: RECIPE_OPTION = "mini", data: DATA = None, json: JSON = False) -> None:
    """Measure a checkpoint on held-out cells and write evaluation.json and its model card.

    \b
    Example:
      instructcell evaluate --model mini --data data
    """
    from json import dumps

    from instructcell.checkpoint import load_checkpoint
    from train.card import update_readme, write_card
    from train.datasets import find_data
    from train.evaluate import Evaluation, write_evaluation
    from train.recipe import load_recipe

    settings, checkpoint = load_recipe(recipe), load_checkpoint(model)
    say = (lambda text: typer.echo(text, err=True)) if json else typer.echo
    result = Evaluation(checkpoint, settings, find_data(data), say).run()
    if json:
        typer.echo(dumps(result, default=float))
        return
    write_evaluation(result, checkpoint.path)
    typer.echo(f"The model card is {write_card(checkpoint, settings, result, checkpoint.path)}.")
    if update_readme(Path("README.md"), result):
        typer.echo("The tables of README.md are written anew.")
