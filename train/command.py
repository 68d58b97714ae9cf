"""`instructcell train`, `instructcell evaluate` and `instructcell compare`."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from collections.abc import Sequence

    from instructcell.checkpoint import Checkpoint
    from train.datasets import LabelledCells
    from train.recipe import Recipe

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
RECALIBRATE = Annotated[
    bool,
    typer.Option(
        "--recalibrate", help="Train nothing: fit the confidence figures of the finished checkpoint again (minutes)."
    ),
]
BACKBONE = Annotated[
    str | None, typer.Option("--backbone", help="Another language model: a folder or hub id, T5 or causal.")
]

SMALL = Annotated[bool, typer.Option("--small", help="What two cores carry (recipes of the literature).")]


def train(
    recipe: RECIPE = "mini",
    data: DATA = None,
    runs: RUNS = Path("runs"),
    output: OUTPUT = None,
    backbone: BACKBONE = None,
    recalibrate: RECALIBRATE = False,
    small: SMALL = False,
) -> None:
    """Train a checkpoint from a recipe; an interrupted run goes on where it stopped.

    Recipes of the literature (emcell, cellama, genept_w, genept_s, screader, scmpt) are measured on held-out cells.

    \b
    Example:
      instructcell train mini --data data
      instructcell train mini --data data --recalibrate -o checkpoints/mini
      instructcell train mini --backbone Qwen/Qwen3-0.6B -o checkpoints/qwen
      instructcell train emcell --small --data data
      accelerate launch --config_file train/accelerate/ddp.yaml -m instructcell.cli train emcell --data data
    """
    from train.literature.recipe import is_literature

    if is_literature(recipe):
        _train_literature(recipe, data, runs, output, backbone, small)
        return
    from instructcell.checkpoint import SHIPPED
    from instructcell.errors import ConfigError
    from train.build import Run
    from train.calibrate import fit_calibration
    from train.calibrate import recalibrate as calibrate_again
    from train.datasets import find_data
    from train.distil import fit_readout
    from train.recipe import load_recipe, with_backbone

    logging.basicConfig(level=logging.INFO, format="%(message)s")
    settings = load_recipe(recipe)
    if backbone:
        settings = with_backbone(settings, backbone)
        if output is None:
            raise ConfigError("another backbone needs a folder of its own; give --output")
    if recalibrate:
        _recalibrate(output or SHIPPED / settings.output, settings, find_data(data))
        return
    run = Run(settings, find_data(data), runs / settings.output)
    run.train()
    calibration = fit_calibration(run.model, run.processor, run.labels, run.datasets, seed=settings.seed)
    readout = fit_readout(
        run.model, run.processor, run.labels, run.datasets, calibration, settings.augmentation, seed=settings.seed
    )
    folder = output or SHIPPED / settings.output
    run.save(folder, calibration, readout)
    _write_populations(folder, run.datasets, settings.seed)
    calibrate_again(folder, run.datasets, seed=settings.seed)
    _finish(folder, run.datasets, settings.seed)
    typer.echo(f"The checkpoint is in {folder}. Measure it with `instructcell evaluate`.")


def _recalibrate(folder: Path, recipe: Recipe, data: Path) -> None:
    """Fit calibration.json, reference.safetensors and the read-out's threshold of a finished checkpoint again."""
    from instructcell.checkpoint import load_checkpoint
    from train.calibrate import recalibrate
    from train.datasets import load_datasets
    from train.distil import judge_again
    from train.evaluation.splits import refuse_another_recipe

    checkpoint = load_checkpoint(folder)
    datasets = load_datasets(recipe, data, checkpoint.processor.genes)
    refuse_another_recipe(checkpoint.labels, {cells.name: cells for cells in datasets})
    _write_populations(checkpoint.path, datasets, recipe.seed)
    figures = recalibrate(checkpoint.path, datasets, seed=recipe.seed)
    judge_again(load_checkpoint(checkpoint.path), datasets, recipe.augmentation, recipe.seed)
    _finish(checkpoint.path, datasets, recipe.seed)
    typer.echo(f"{checkpoint.path}: " + ", ".join(f"{name} {figure:g}" for name, figure in figures.items()))


def _write_populations(folder: Path, datasets: Sequence[LabelledCells], seed: int) -> None:
    """Fit the decoder's populations, from which the linear reader learns that calibration asks."""
    from instructcell.checkpoint import load_checkpoint
    from train.populations import write_populations

    write_populations(folder, load_checkpoint(folder), datasets, seed=seed)


def _finish(folder: Path, datasets: Sequence[LabelledCells], seed: int) -> None:
    """Put an offset for every drug, and how patients respond, into calibration.json."""
    from instructcell.checkpoint import load_checkpoint
    from train.drug_offsets import fit_offsets, write_offsets
    from train.patient_response import fit_patients, write_patients

    checkpoint = load_checkpoint(folder)
    write_offsets(folder, fit_offsets(checkpoint, datasets, seed=seed, say=typer.echo))
    write_patients(folder, fit_patients(datasets, checkpoint.processor.genes, say=typer.echo))


def _train_literature(
    recipe: str, data: Path | None, runs: Path, output: Path | None, backbone: str | None, small: bool
) -> None:
    """A system of the literature, from its recipe to its figures."""
    from train.datasets import find_data
    from train.literature.recipe import load_literature_recipe
    from train.literature.train import run_recipe

    settings = load_literature_recipe(recipe)
    if backbone:
        settings = settings.with_backbone(backbone)
    folder = output or runs / (f"{settings.output}-small" if small else settings.output)
    run_recipe(settings, find_data(data), runs, folder=folder, small=small, say=typer.echo)
    typer.echo(f"What was trained, and its figures, are in {folder}.")


MODEL = Annotated[str, typer.Option("--model", help="Checkpoint: the name of a shipped one, a folder or a hub id.")]
RECIPE_OPTION = Annotated[str, typer.Option("--recipe", help="The recipe that the checkpoint was trained with.")]
JSON = Annotated[bool, typer.Option("--json", help="Print the result as JSON and write nothing.")]
TASKS = Annotated[
    str,
    typer.Option(
        "--tasks", help="Kinds of train/tasks or YAML files, separated by commas; by default all that take seconds."
    ),
]
SLOW = Annotated[bool, typer.Option("--slow", help="Also the tasks that train without a study or a type (hours).")]
PEERS = Annotated[
    bool, typer.Option("--peers", help="Also run CellTypist, scANVI and scVI, in .venv-peers (see make bench-peers).")
]
REPORT = Annotated[
    Path | None, typer.Option("--report", help="The HTML report; by default evaluation.html beside the run.")
]


def evaluate(
    model: MODEL = "mini",
    recipe: RECIPE_OPTION = "mini",
    data: DATA = None,
    runs: RUNS = Path("runs"),
    tasks: TASKS = "",
    slow: SLOW = False,
    peers: PEERS = False,
    report: REPORT = None,
    json: JSON = False,
) -> None:
    """Measure a checkpoint on held-out cells; write evaluation.json, its model card and an HTML report.

    In the project's folder the tables of README.md and docs/results.md are written anew as well.

    \b
    Example:
      instructcell evaluate --model mini --data data
      instructcell evaluate --tasks drug,my_task.yaml --json
      instructcell evaluate --tasks leave_studies_out
    """
    from instructcell.checkpoint import load_checkpoint
    from train.datasets import find_data
    from train.evaluate import Evaluation, carry_over, to_json
    from train.evaluation.peers import find_environment
    from train.evaluation.tasks import load_tasks
    from train.recipe import load_recipe

    chosen = load_tasks([name.strip() for name in tasks.split(",") if name.strip()], slow=slow)
    settings, checkpoint = load_recipe(recipe), load_checkpoint(model)
    evaluation = Evaluation(
        checkpoint,
        settings,
        find_data(data),
        say=(lambda text: typer.echo(text, err=True)) if json else typer.echo,
        peers=find_environment() if peers else None,
        runs=runs,
        tasks=chosen,
    )
    result = evaluation.run()
    if json:
        typer.echo(to_json(result))
        return
    report = report or runs / settings.output / "evaluation.html"
    _write(checkpoint, settings, carry_over(result, checkpoint.path), report)


def compare(
    recipe: Annotated[str, typer.Argument(help="`compare`, which ships, or a YAML file.")] = "compare",
    data: DATA = None,
    runs: RUNS = Path("runs"),
    docs: Annotated[Path, typer.Option("--docs", help="Folder of comparison.md and its pictures.")] = Path("docs"),
    peers: PEERS = False,
    kept_only: Annotated[
        bool, typer.Option("--kept-only", help="Measure nothing: write the page from what was measured before.")
    ] = False,
    json: JSON = False,
) -> None:
    """Measure every system of the literature and the baselines on the same cells; write docs/comparison.md.

    Figures are kept one by one in RUNS/compare: a run that was interrupted, or got one more system, measures the rest.
    In the project's folder benchmarks/results/comparison.json is written as well.

    \b
    Example:
      instructcell compare recipes/compare.yaml --data data
      instructcell compare --peers
    """
    from instructcell.checkpoint import load_checkpoint
    from train.datasets import find_data
    from train.evaluate import to_json
    from train.evaluation.bench import Bench
    from train.evaluation.peers import find_environment
    from train.literature.compare import Comparison, load_compare
    from train.literature.report import without_answers, write_comparison
    from train.recipe import load_recipe

    def say(text: str) -> None:
        typer.echo(text, err=json)

    wanted = load_compare(recipe)
    environment = find_environment() if peers else None
    bench = Bench(load_checkpoint(wanted.checkpoint), load_recipe(wanted.recipe), find_data(data), say=say, runs=runs)
    result = Comparison(wanted, bench, runs / "compare", say=say, peers=environment, kept_only=kept_only).run()
    if json:
        typer.echo(to_json(result))
    else:
        results = docs.parent / "benchmarks" / "results"
        if results.is_dir():  # the project's folder
            (results / "comparison.json").write_text(to_json(without_answers(result)) + "\n", encoding="utf-8")
        typer.echo(f"The comparison is {write_comparison(result, docs)}.")


def _write(checkpoint: Checkpoint, recipe: Recipe, result: dict[str, Any], report: Path) -> None:
    """Everything that shows the figures."""
    from train.card import update_readme, write_card
    from train.evaluate import write_evaluation
    from train.report import write_report, write_results

    write_evaluation(result, checkpoint.path)
    typer.echo(f"The model card is {write_card(checkpoint, recipe, result, checkpoint.path)}.")
    typer.echo(f"The report is {write_report(result, report)}.")
    if update_readme(Path("README.md"), result):
        typer.echo(f"The tables of README.md and {write_results(result, Path('docs'))} are written anew.")
