"""The command line: `instructcell VERB`. Each verb reads, calls one tool of the library and prints what came back.

Exit codes: 0 done; 2 the input cannot be used (one message, nothing written); 1 a bug of ours (with its traceback).
Verbs of other packages (chat, train, evaluate) join through the entry-point group `instructcell.commands`.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterable
from dataclasses import dataclass, field
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer.core import TyperGroup

from instructcell import __version__
from instructcell.errors import InstructCellError, LabelError
from instructcell.output import check_output, write_h5ad
from instructcell.terminal import Terminal, records

if TYPE_CHECKING:
    import pandas as pd
    from anndata import AnnData

    from instructcell.events import Event

COMMAND_GROUP = "instructcell.commands"
VERBS = ("chat", "ask", "inspect", "annotate", "generate", "drug", "markers", "train", "evaluate")

File = Annotated[
    Path, typer.Argument(metavar="FILE", help="Cells: .h5ad, 10x .h5, .csv or .tsv, also gzipped.", show_default=False)
]
Output = Annotated[Path | None, typer.Option("--output", "-o", help="Write the cells with the results here (.h5ad).")]
Model = Annotated[str, typer.Option("--model", help="Checkpoint: the name of a shipped one, a folder or a hub id.")]
Species = Annotated[str | None, typer.Option("--species", help="human or mouse; recognised when not given.")]
Tissue = Annotated[str | None, typer.Option("--tissue", help="Where the cells come from, e.g. 'pancreatic islet'.")]
Layer = Annotated[str | None, typer.Option("--layer", help="Layer to read; found when not given.")]
Force = Annotated[bool, typer.Option("--force", help="Replace the output file if it exists.")]
Json = Annotated[bool, typer.Option("--json", help="Print the result as JSON.")]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="No progress and no remarks.")]


def _example(*commands: str) -> str:
    """Help text that is shown line by line, so that a command can be copied."""
    return "\b\nExample:\n" + "\n".join(f"  {command}" for command in commands)


class Verbs(TyperGroup):
    """The verbs in the order of a first visit; a mistake in the input becomes one message and exit code 2."""

    def list_commands(self, ctx: Any) -> list[str]:
        order = {verb: position for position, verb in enumerate(VERBS)}
        return sorted(self.commands, key=lambda verb: (order.get(verb, len(order)), verb))

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except InstructCellError as error:
            typer.echo(f"instructcell: {error}", err=True)
            raise typer.Exit(2) from None


app = typer.Typer(
    cls=Verbs,
    help="Ask single cells questions in plain language.",
    epilog=_example("instructcell annotate cells.h5ad -o annotated.h5ad"),
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"instructcell {__version__}")
        raise typer.Exit


@app.callback()
def settings(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version and stop.")
    ] = False,
) -> None:
    """Ask single cells questions in plain language."""
    warnings.simplefilter("ignore")  # libraries' remarks are for us; the user gets one clear message
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")


@app.command(epilog=_example('instructcell ask cells.h5ad "Which cell types are these?"'))
def ask(
    words: Annotated[
        list[str], typer.Argument(metavar="[FILE] QUESTION", help="Cells to ask about, if any, then what to know.")
    ],
    output: Annotated[Path | None, typer.Option("--output", "-o", help="Write generated cells here (.h5ad).")] = None,
    model: Model = "mini",
    force: Force = False,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Ask one question in the terminal.

    With a file the question is about its cells, without one it is a general question.
    """
    if len(words) > 2:
        raise typer.BadParameter(f"found {len(words)} words, expected [FILE] QUESTION; put the question in quotes")
    file, question = (Path(words[0]) if len(words) == 2 else None), words[-1]
    if file is None and Path(question).is_file():
        raise typer.BadParameter(f"{question} is a file; put a question after it")
    if output is not None:
        check_output(output, inputs=[file] if file else [], force=force)
    from instructcell.session import Session

    terminal = Terminal(as_json=as_json, quiet=quiet)
    session = Session(_read(file, terminal) if file else None, checkpoint=model)
    with terminal.progress("thinking"):
        answer = _follow(session.send(question), terminal)
    if answer.failure:
        raise InstructCellError(answer.failure)
    if answer.generated is not None:
        _keep(answer.generated, output, terminal)
    terminal.document({"file": file, "question": question, **answer.to_dict()})


@app.command("inspect", epilog=_example("instructcell inspect cells.h5ad"))
def inspect_file(
    file: File,
    layer: Layer = None,
    species: Species = None,
    model: Model = "mini",
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Say what a file holds and how it will be read.

    Which matrix, which scale, which gene names, which species, and how many of the model's genes were measured.
    """
    from instructcell.checkpoint import load_checkpoint
    from instructcell.doctor import inspect

    terminal = Terminal(as_json=as_json, quiet=quiet)
    adata = _read(file, terminal)
    with terminal.progress("looking at the cells"):
        report = inspect(adata, layer=layer, species=species, genes=load_checkpoint(model).processor.genes)
    terminal.text(report.to_markdown(file.name))
    terminal.document({"file": file, **report.to_dict()})


@app.command(epilog=_example("instructcell annotate cells.h5ad -o annotated.h5ad --tissue 'pancreatic islet'"))
def annotate(
    file: File,
    output: Output = None,
    labels: Annotated[
        str | None, typer.Option("--labels", help="Your own cell types, separated by commas; cells get one of these.")
    ] = None,
    species: Species = None,
    tissue: Tissue = None,
    layer: Layer = None,
    model: Model = "mini",
    force: Force = False,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Name the type of every cell.

    Writes obs instructcell_cell_type, instructcell_cell_type_id and instructcell_confidence and obsm X_instructcell;
    X and the columns that were there stay as they are.
    """
    if output is not None:
        check_output(output, inputs=[file], force=force)
    from instructcell import tools

    terminal = Terminal(as_json=as_json, quiet=quiet)
    adata = _read(file, terminal)
    chosen = None if labels is None else labels.split(",")
    with terminal.progress("annotating cells") as progress:
        result = tools.annotate(
            adata, checkpoint=model, labels=chosen, species=species, tissue=tissue, layer=layer, progress=progress
        )
    _keep(adata, output, terminal)
    terminal.table(result.composition, f"{adata.n_obs:,} cells, {result.coverage:.0%} of the model's genes measured")
    terminal.document(
        {
            "file": file,
            "output": output,
            "n_cells": adata.n_obs,
            "gene_coverage": result.coverage,
            "composition": records(result.composition),
            "cells": records(result.table.rename_axis("cell").reset_index()),
        }
    )


@app.command(epilog=_example("instructcell generate --cell-type 'B cell' -n 100 --tissue PBMC -o pseudo.h5ad"))
def generate(
    cell_type: Annotated[
        str, typer.Option("--cell-type", help="Name, synonym or Cell Ontology id.", show_default=False)
    ],
    output: Annotated[
        Path, typer.Option("--output", "-o", help="Write the pseudo-cells here (.h5ad).", show_default=False)
    ],
    n: Annotated[int, typer.Option("-n", min=1, help="How many cells.")] = 100,
    tissue: Tissue = None,
    species: Annotated[str | None, typer.Option("--species", help="human or mouse.")] = None,
    library_size: Annotated[
        float | None, typer.Option("--library-size", help="Counts per cell; as in the training data when not given.")
    ] = None,
    condition: Annotated[
        str | None, typer.Option("--condition", help="State of the sample, e.g. 'stimulated'.")
    ] = None,
    like: Annotated[
        Path | None, typer.Option("--like", help="Cells whose species and library size are followed.")
    ] = None,
    seed: Annotated[int, typer.Option("--seed", help="Same seed, same cells.")] = 0,
    model: Model = "mini",
    force: Force = False,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Make pseudo-cells of a type.

    Integer counts over the model's genes, with the conditions in obs.
    """
    check_output(output, inputs=[like] if like else [], force=force)
    from instructcell import tools

    terminal = Terminal(as_json=as_json, quiet=quiet)
    pattern = _read(like, terminal) if like else None
    with terminal.progress("making pseudo-cells"):
        pseudo = tools.generate(
            cell_type=cell_type,
            n=n,
            tissue=tissue,
            species=species,
            library_size=library_size,
            condition=condition,
            like=pattern,
            seed=seed,
            checkpoint=model,
        )
    _keep(pseudo, output, terminal)
    summary = _pseudo_summary(pseudo)
    terminal.text(
        f"{summary['n_cells']:,} pseudo-cells of type {summary['cell_type']}: counts of {summary['n_genes']:,} genes, "
        f"median library size {summary['median_library_size']:,.0f}, seed {seed}"
    )
    terminal.document({"output": output, "seed": seed, **summary})


@app.command(epilog=_example("instructcell drug cells.h5ad --drug gefitinib -o response.h5ad"))
def drug(
    file: File,
    drug: Annotated[str, typer.Option("--drug", help="Name or synonym of a drug the model knows.", show_default=False)],
    output: Output = None,
    species: Species = None,
    tissue: Tissue = None,
    layer: Layer = None,
    model: Model = "mini",
    force: Force = False,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Predict each cell's response to a drug.

    Writes obs instructcell_drug_response (sensitive or resistant) and instructcell_p_sensitive. A prediction from
    expression, for research only.
    """
    if output is not None:
        check_output(output, inputs=[file], force=force)
    from instructcell import tools

    terminal = Terminal(as_json=as_json, quiet=quiet)
    adata = _read(file, terminal)
    with terminal.progress(f"response to {drug}") as progress:
        result = tools.drug_response(
            adata, drug=drug, checkpoint=model, species=species, tissue=tissue, layer=layer, progress=progress
        )
    _keep(adata, output, terminal)
    mean = float(result.table["p_sensitive"].mean())
    terminal.text(
        f"{result.drug.name}: {result.sensitive_share:.1%} of {adata.n_obs:,} cells predicted sensitive "
        f"(mean probability {mean:.2f}). A prediction from expression, for research only."
    )
    terminal.document(
        {
            "file": file,
            "output": output,
            "drug": result.drug.name,
            "n_cells": adata.n_obs,
            "sensitive_share": result.sensitive_share,
            "mean_p_sensitive": mean,
            "cells": records(result.table.rename_axis("cell").reset_index()),
        }
    )


@app.command(epilog=_example("instructcell markers 'delta cell'", "instructcell markers --genes INS,IAPP,GCG"))
def markers(
    query: Annotated[
        str | None, typer.Argument(metavar="QUERY", help="A cell type, a gene or a question.", show_default=False)
    ] = None,
    genes: Annotated[
        str | None, typer.Option("--genes", help="Genes, separated by commas: which types do they mark?")
    ] = None,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Look up marker genes, with their sources.

    The genes that mark a cell type, the cell types that genes mark, or what a gene does.
    """
    if (query is None) == (genes is None):
        raise typer.BadParameter("give either a QUERY or --genes A,B,C")
    from instructcell import tools

    terminal = Terminal(as_json=as_json, quiet=quiet)
    wanted = None if genes is None else [gene.strip() for gene in genes.split(",") if gene.strip()]
    try:
        found = tools.markers(query, genes=wanted)
    except LabelError:
        if query is None:
            raise
        _print_knowledge(query, terminal)
        return
    if found.empty:
        terminal.text(f"Nothing in the index supports an answer to '{query or genes}'.")
    else:
        terminal.table(found)
    terminal.document({"query": query, "genes": wanted, "results": records(found)})


def _print_knowledge(query: str, terminal: Terminal) -> None:
    """What the index says to a question that names no cell type; a LabelError if nothing supports an answer."""
    from instructcell.retrieval import answer_knowledge

    answer = answer_knowledge(query)
    if not answer.supported:
        raise LabelError(
            f"nothing in the index supports an answer to '{query}'; expected a cell type, a gene or a question about "
            "one, such as 'delta cell', GCG or 'what does GCG do?'"
        )
    terminal.text(answer.text)
    sources = [{"title": passage.title, "source": passage.source} for passage in answer.passages]
    terminal.document({"query": query, "answer": answer.text, "results": sources})


@dataclass
class _Answer:
    """What the session said, gathered for JSON and for the files to write."""

    text: str = ""
    tables: dict[str, pd.DataFrame] = field(default_factory=dict)
    generated: AnnData | None = None
    failure: str = ""

    def to_dict(self) -> dict[str, Any]:
        tables = {name: records(table) for name, table in self.tables.items()}
        generated = None if self.generated is None else _pseudo_summary(self.generated)
        return {"answer": self.text, "tables": tables, "generated": generated}


def _follow(events: Iterable[Event], terminal: Terminal) -> _Answer:
    """Print a session's events as they come; figures belong to the chat page."""
    from instructcell.events import CellsGenerated, Failed, Progress, TableReady, TextDelta

    answer = _Answer()
    for event in events:
        match event:
            case Progress(done, total, what):
                terminal.step(done, total, what)
            case TextDelta(text):
                answer.text += text
                terminal.text(text, newline=False)
            case TableReady(name, table):
                answer.tables[name] = table
                terminal.text("")
                terminal.table(table, name)
            case CellsGenerated(adata, _):
                answer.generated = adata
            case Failed(message, remedy):
                answer.failure = f"{message} {remedy}".strip()
    terminal.text("")
    return answer


def _read(file: Path, terminal: Terminal) -> AnnData:
    from instructcell.cells import read

    with terminal.progress(f"reading {file.name}"):
        return read(file)


def _keep(adata: AnnData, output: Path | None, terminal: Terminal) -> None:
    """Write the result, or say that nothing was written."""
    if output is None:
        terminal.remark("nothing written; name a file with -o to keep the result")
        return
    with terminal.progress(f"writing {output.name}"):
        write_h5ad(adata, output)
    terminal.remark(f"written to {output}")


def _pseudo_summary(pseudo: AnnData) -> dict[str, Any]:
    return {
        "n_cells": pseudo.n_obs,
        "n_genes": pseudo.n_vars,
        "cell_type": str(pseudo.obs["cell_type"].iloc[0]),
        "median_library_size": float(pseudo.obs["library_size"].median()),
    }


def _load_plugins() -> None:
    """Add the verbs of other packages; one that cannot be loaded says why when it is called."""
    for entry in metadata.entry_points(group=COMMAND_GROUP):
        try:
            command = entry.load()
        except ImportError as error:
            _add_unavailable(entry, error)
            continue
        if isinstance(command, typer.Typer):
            app.add_typer(command, name=entry.name)
        else:
            app.command(entry.name)(command)


def _add_unavailable(entry: metadata.EntryPoint, error: ImportError) -> None:
    message = (
        f"the command '{entry.name}' could not be loaded from {entry.value}: {error}. Install InstructCell again with "
        "what it needs, and see that no other package of that name stands before it on Python's path."
    )

    @app.command(
        entry.name,
        help=f"Not available: {error}.",
        context_settings={"allow_extra_args": True, "ignore_unknown_options": True},
    )
    def explain() -> None:
        raise InstructCellError(message)


_load_plugins()


def main() -> None:
    """Entry point of the console script."""
    app()


if __name__ == "__main__":
    main()
