"""The command line: `instructcell VERB`. Each verb reads, calls one tool of the library and prints what came back.

Exit codes: 0 done; 2 the input cannot be used (one message, nothing written); 1 a bug of ours (with its traceback);
130 interrupted.
Verbs of other packages (chat, train, evaluate) join through the entry-point group `instructcell.commands`.
"""

from __future__ import annotations

import os
import warnings
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer.core import TyperGroup

from instructcell import __version__
from instructcell.errors import InstructCellError, LabelError
from instructcell.output import check_output, safe_cells, write_h5ad
from instructcell.terminal import Terminal, records

if TYPE_CHECKING:
    import pandas as pd
    from anndata import AnnData

    from instructcell.batches import Reading
    from instructcell.bulk_response import BulkDrugResult
    from instructcell.session import Session
    from instructcell.tasks import DrugResult

INTERRUPTED = 130  # exit code, as shells have it for Ctrl-C
COMMAND_GROUP = "instructcell.commands"
VERBS = (
    "chat", "ask", "inspect", "annotate", "embed", "generate", "drug", "markers", "mcp", "train", "evaluate", "compare"
)  # fmt: skip

File = Annotated[
    Path, typer.Argument(metavar="FILE", help="Cells: .h5ad, 10x .h5, .csv or .tsv, also gzipped.", show_default=False)
]
Output = Annotated[
    Path | None,
    typer.Option("--output", "-o", help="Write the cells with the results here: .h5ad, or .zarr for a zarr folder."),
]
Model = Annotated[str, typer.Option("--model", help="Checkpoint: the name of a shipped one, a folder or a hub id.")]
Species = Annotated[str | None, typer.Option("--species", help="human or mouse; recognised when not given.")]
Tissue = Annotated[str | None, typer.Option("--tissue", help="Where the cells come from, e.g. 'pancreatic islet'.")]
Layer = Annotated[str | None, typer.Option("--layer", help="Matrix to read: X, raw or a layer; found when not given.")]
Scale = Annotated[
    str | None,
    typer.Option("--scale", help="What its values are: counts, log1p, log2, log10, linear or scaled; recognised else."),
]
GeneColumn = Annotated[
    str | None, typer.Option("--gene-column", help="Column of var that names the genes; found when not given.")
]
FewGenes = Annotated[
    bool, typer.Option("--few-genes-ok", help="Go on with a file that measured very few of the model's genes.")
]
Resume = Annotated[
    bool, typer.Option("--resume", help="Continue an interrupted run with the same input, output and options.")
]
Force = Annotated[bool, typer.Option("--force", help="Replace the output file if it exists.")]
Llm = Annotated[
    str | None,
    typer.Option("--llm", help="Speak through this chat model: provider:model, or the address of a local server."),
]
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
        except KeyboardInterrupt:
            typer.echo(
                "instructcell: interrupted; no half-written file was left. annotate, embed and drug with -o continue "
                "with --resume",
                err=True,
            )
            raise typer.Exit(INTERRUPTED) from None


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


@app.command(
    epilog=_example('instructcell ask cells.h5ad "Which cell types are these?"', "instructcell ask cells.h5ad")
)
def ask(
    words: Annotated[
        list[str] | None,
        typer.Argument(metavar="[FILE] [QUESTION]", help="Cells to ask about, if any, then what to know."),
    ] = None,
    output: Annotated[Path | None, typer.Option("--output", "-o", help="Write generated cells here (.h5ad).")] = None,
    model: Model = "mini",
    llm: Llm = None,
    force: Force = False,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Ask one question in the terminal, or begin a conversation.

    With a file the question is about its cells, without one it is a general question. Without a question a
    conversation begins; lines that are piped in are answered one after the other, with --json one document each.
    """
    file, question = _file_and_question(words or [])
    if output is not None:
        if not question:
            raise typer.BadParameter("-o belongs to one question; in a conversation, 'export all this' writes files")
        check_output(output, inputs=[file] if file else [], force=force)
    terminal = Terminal(as_json=as_json, quiet=quiet)
    if not question:
        from instructcell.terminal_chat import converse

        converse(_open_conversation(file, terminal, model=model, llm=llm), terminal)
        return
    session = open_session(_read(file, terminal) if file else None, model=model, llm=llm)
    from instructcell.terminal_chat import follow

    with terminal.progress("thinking"):
        reply = follow(session.send(question), terminal)
    if reply.failure:
        raise InstructCellError(reply.failure)
    if reply.generated is not None:
        _keep(reply.generated, output, terminal)
    terminal.document({"file": file, "question": question, **reply.to_dict()})


def _file_and_question(words: list[str]) -> tuple[Path | None, str]:
    """What the words of `ask` are: a file, a question, both, or none."""
    from instructcell.reading.kinds import is_known

    if len(words) > 2:
        raise typer.BadParameter(f"found {len(words)} words, expected [FILE] [QUESTION]; put the question in quotes")
    if len(words) == 2:
        return Path(words[0]), words[1]
    if not words:
        return None, ""
    if Path(words[0]).exists():
        return Path(words[0]), ""
    if is_known(words[0]) and " " not in words[0]:
        raise InstructCellError(f"there is no file {words[0]}; give the path of a file of cells, or ask without one")
    return None, words[0]


def _open_conversation(file: Path | None, terminal: Terminal, *, model: str, llm: str | None) -> Session:
    """A session for a conversation, what it exports going to ./instructcell_results; a file is read and described."""
    from instructcell.terminal_chat import follow

    session = open_session(model=model, llm=llm, folder=Path("instructcell_results"))
    if file is not None:
        with terminal.progress(f"reading {file.name}"):
            said = follow(session.load(file), terminal)
        if said.failure:
            raise InstructCellError(said.failure)
    return session


def open_session(
    adata: AnnData | None = None, *, model: str = "mini", llm: str | None = None, folder: Path | None = None
) -> Session:
    """The built-in session, or one that speaks through a chat model."""
    from instructcell.session import Session

    if llm is None:
        return Session(adata, checkpoint=model, folder=folder)
    from instructcell.interop.agent import AgentSession

    return AgentSession(adata, llm=llm, checkpoint=model, folder=folder)


@app.command("mcp", epilog=_example("instructcell mcp cells.h5ad --folder data"))
def serve_mcp(
    files: Annotated[
        list[Path] | None, typer.Argument(metavar="[FILE]...", help="Cells to open with.", show_default=False)
    ] = None,
    model: Model = "mini",
    folder: Annotated[Path, typer.Option("--folder", help="Where the assistant may open files.")] = Path("."),
) -> None:
    """Serve the tools to an assistant over the Model Context Protocol (stdin and stdout)."""
    try:
        from instructcell.interop.mcp import serve
    except ImportError as error:
        raise InstructCellError(
            f"the package 'mcp' is not installed ({error}); run: pip install 'instructcell[mcp]'"
        ) from error
    serve(files or (), checkpoint=model, folder=folder)


@app.command("inspect", epilog=_example("instructcell inspect cells.h5ad"))
def inspect_file(
    file: File,
    layer: Layer = None,
    scale: Scale = None,
    species: Species = None,
    gene_column: GeneColumn = None,
    model: Model = "mini",
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Say what a file holds and how it will be read.

    Which matrix, which scale, which gene names, which species, and how many of the model's genes were measured.
    """
    from instructcell.align import why_refused
    from instructcell.batches import Reading
    from instructcell.checkpoint import load_checkpoint
    from instructcell.coverage import label_markers
    from instructcell.doctor import inspect

    terminal = Terminal(as_json=as_json, quiet=quiet)
    reading = Reading(layer, scale, species, gene_column)
    adata = _read(file, terminal, backed=True)
    loaded = load_checkpoint(model)
    markers = label_markers(label.id for label in loaded.labels if label.id)
    with terminal.progress("looking at the cells"):
        report = inspect(adata, **reading.for_doctor(), genes=loaded.processor.genes, markers=markers)
        refused = why_refused(adata, loaded.processor.genes, report)
    terminal.text(report.to_markdown(file.name))
    if refused:
        terminal.text(f"- **cannot be annotated as it is**: {refused}")
    terminal.document({"file": file, **report.to_dict(), "refused": refused})


@app.command(
    epilog=_example(
        "instructcell annotate cells.h5ad -o annotated.h5ad --tissue 'pancreatic islet'",
        "instructcell annotate cells.h5ad -o annotated.h5ad --by leiden",
        "instructcell annotate million_cells.h5ad -o annotated.h5ad --resume",
    )
)
def annotate(
    file: File,
    output: Output = None,
    labels: Annotated[
        str | None, typer.Option("--labels", help="Your own cell types, separated by commas; cells get one of these.")
    ] = None,
    species: Species = None,
    tissue: Tissue = None,
    layer: Layer = None,
    scale: Scale = None,
    gene_column: GeneColumn = None,
    few_genes_ok: FewGenes = False,
    engine: Annotated[
        str,
        typer.Option(
            "--engine",
            help="lm: the language model reads every cell. readout: a fast read-out does, and leaves to the language "
            "model what it is not certain of. auto: lm up to 20,000 cells, readout above.",
        ),
    ] = "auto",
    by: Annotated[
        str | None, typer.Option("--by", help="Column of obs that holds clusters: each is named from all of its cells.")
    ] = None,
    context: Annotated[
        bool,
        typer.Option(
            "--context/--no-context",
            help="The tissue that the file as a whole looks like, and a cell's neighbours, count; or each cell is read "
            "by itself.",
        ),
    ] = True,
    model: Model = "mini",
    resume: Resume = False,
    force: Force = False,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Name the type of every cell.

    Writes obs instructcell_cell_type, instructcell_cell_type_id and instructcell_confidence and obsm X_instructcell;
    without --labels also instructcell_broader_type, _id and _confidence: the narrowest type that is sure, the cell type
    or one above it. X and the columns that were there stay as they are. A file larger than memory is read in rows.
    """
    _check_streamed(file, output, force=force)
    from instructcell import stream
    from instructcell.batches import Reading

    terminal = Terminal(as_json=as_json, quiet=quiet)
    with terminal.progress(f"reading {file.name}") as progress:
        result = stream.annotate(
            file,
            output,
            checkpoint=model,
            labels=None if labels is None else labels.split(","),
            tissue=tissue,
            reading=Reading(layer, scale, species, gene_column, few_genes_ok),
            engine=engine,
            context=context,
            by=by,
            resume=resume,
            progress=progress,
        )
    _say_where(output, terminal)
    n_cells = len(result.table)
    measured = f"{n_cells:,} cells, {result.coverage:.0%} of the model's genes measured, {result.engine_words}"
    terminal.table(result.composition, measured)
    if len(result.broader):
        terminal.table(result.broader, "sure only at a broader type")
    if result.clusters is not None:
        terminal.table(result.clusters.reset_index(), f"clusters of {by}, each named from all of its cells")
    orthologs = ["Mouse genes were read through their one-to-one human orthologs."]
    remarks = [*(orthologs if result.report.species == "mouse" else []), *result.context_words]
    for sentence in remarks:
        terminal.remark(sentence)
    terminal.document(
        {
            "file": file,
            "output": output,
            "n_cells": n_cells,
            "gene_coverage": result.coverage,
            "engine": result.engine,
            "n_by_lm": result.n_by_lm,
            "context": remarks,
            "composition": records(result.composition),
            "broader": records(result.broader),
            "clusters": [] if result.clusters is None else records(result.clusters.reset_index()),
            "cells": records(result.table.rename_axis("cell").reset_index()) if as_json else [],
        }
    )


@app.command(epilog=_example("instructcell embed cells.h5ad -o embedded.h5ad"))
def embed(
    file: File,
    output: Annotated[
        Path, typer.Option("--output", "-o", help="Write the cells here: .h5ad, or .zarr.", show_default=False)
    ],
    layer: Layer = None,
    scale: Scale = None,
    species: Species = None,
    gene_column: GeneColumn = None,
    few_genes_ok: FewGenes = False,
    model: Model = "mini",
    resume: Resume = False,
    force: Force = False,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Write the cell encoder's view of every cell.

    Writes obsm X_instructcell, for neighbours, clustering and maps.
    """
    _check_streamed(file, output, force=force)
    from instructcell import stream
    from instructcell.batches import Reading

    terminal = Terminal(as_json=as_json, quiet=quiet)
    reading = Reading(layer, scale, species, gene_column, few_genes_ok)
    with terminal.progress(f"reading {file.name}") as progress:
        embedding = stream.embed(file, output, checkpoint=model, reading=reading, resume=resume, progress=progress)
    _say_where(output, terminal)
    n_cells, width = embedding.shape
    terminal.text(f"{n_cells:,} cells, {width} numbers each, in obsm X_instructcell")
    terminal.document({"file": file, "output": output, "n_cells": n_cells, "n_latent": width})


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
    layer: Layer = None,
    scale: Scale = None,
    gene_column: GeneColumn = None,
    few_genes_ok: FewGenes = False,
    seed: Annotated[int, typer.Option("--seed", help="Same seed, same cells.")] = 0,
    model: Model = "mini",
    force: Force = False,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Make pseudo-cells of a type.

    Integer counts over the model's genes, with the conditions in obs. --layer, --scale, --gene-column and
    --few-genes-ok say how to read the cells of --like.
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
            layer=layer,
            scale=scale,
            gene_column=gene_column,
            force=few_genes_ok,
            seed=seed,
            checkpoint=model,
        )
    _keep(pseudo, output, terminal)
    from instructcell.reply import pseudo_summary

    summary = pseudo_summary(pseudo)
    terminal.text(
        f"{summary['n_cells']:,} pseudo-cells of type {summary['cell_type']}: counts of {summary['n_genes']:,} genes, "
        f"median library size {summary['median_library_size']:,.0f}, seed {seed}"
    )
    terminal.document({"output": output, "seed": seed, **summary})


@app.command(
    epilog=_example(
        "instructcell drug cells.h5ad --drug gefitinib -o response.h5ad",
        "instructcell drug cells.h5ad --drug erlotinib --group-by cell_type",
        "instructcell drug cells.h5ad --drug all --group-by leiden --compare 0,1 -o ranking.csv",
        "instructcell drug cells.h5ad --drug mobocertinib --target EGFR",
    )
)
def drug(
    file: File,
    drug: Annotated[
        str, typer.Option("--drug", help="Name or synonym of a drug; 'all' ranks those screened.", show_default=False)
    ],
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", help="The cells with the results (.h5ad, .zarr); a ranking as .csv or .tsv."),
    ] = None,
    route: Annotated[
        str, typer.Option("--route", help="cell (measured on cells), bulk (cell lines, GDSC) or auto: cell, else bulk.")
    ] = "auto",
    smiles: Annotated[str, typer.Option("--smiles", help="Structure of a drug that was never screened.")] = "",
    target: Annotated[str, typer.Option("--target", help="Target of a drug that was never screened, e.g. EGFR.")] = "",
    group_by: Annotated[
        str | None, typer.Option("--group-by", help="Column of obs: pool each group's cells as well (bulk route).")
    ] = None,
    compare: Annotated[
        str | None, typer.Option("--compare", help="Groups of it, separated by commas, to test against one another.")
    ] = None,
    replicate: Annotated[
        str | None, typer.Option("--replicate", help="Column of donors or samples: test their means, not cells.")
    ] = None,
    top: Annotated[int, typer.Option("--top", min=1, help="How many drugs of each group are printed.")] = 10,
    species: Species = None,
    tissue: Tissue = None,
    layer: Layer = None,
    scale: Scale = None,
    gene_column: GeneColumn = None,
    few_genes_ok: FewGenes = False,
    model: Model = "mini",
    resume: Resume = False,
    force: Force = False,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Predict each cell's response to a drug, or rank the drugs that would hit these cells.

    Writes obs instructcell_drug_response (sensitive or resistant) and instructcell_p_sensitive; by the bulk route,
    where sensitive means more so than the middle cell line, also instructcell_sensitivity and its percentile among the
    lines. A prediction from expression, for research only.
    """
    from instructcell.batches import Reading

    terminal = Terminal(as_json=as_json, quiet=quiet)
    reading = Reading(layer, scale, species, gene_column, few_genes_ok)
    ranking = _Ranking(file, reading, group_by, compare, replicate, top)
    if drug.strip().lower() == "all":
        if output is not None:
            check_output(output, inputs=[file], force=force, formats=(".csv", ".tsv"))
        ranking.show(None, output, terminal)
        return
    _check_streamed(file, output, force=force)
    from instructcell import stream
    from instructcell.bulk_response import BulkDrugResult

    with terminal.progress(f"reading {file.name}") as progress:
        result = stream.drug_response(
            file,
            output,
            drug=drug,
            route=route,
            smiles=smiles,
            target=target,
            checkpoint=model,
            tissue=tissue,
            reading=reading,
            resume=resume,
            progress=progress,
        )
    _say_where(output, terminal)
    if isinstance(result, BulkDrugResult):
        document = _say_bulk(result, terminal)
        if group_by is not None and result.drug.screened:
            document |= ranking.show([result.drug.name], None, terminal, alone=False)
    else:
        document = _say_response(result, terminal)
    cells = records(result.table.rename_axis("cell").reset_index())
    terminal.document({"file": file, "output": output, **document, "n_cells": len(result.table), "cells": cells})


def _say_response(result: DrugResult, terminal: Terminal) -> dict[str, Any]:
    """Print the headline of a measured drug, and return it for JSON."""
    mean = float(result.table["p_sensitive"].mean())
    terminal.text(
        f"{result.drug.name}: {result.sensitive_share:.1%} of {len(result.table):,} cells predicted sensitive "
        f"(mean probability {mean:.2f}). A prediction from expression, for research only."
    )
    for note in result.notes:
        terminal.text(note)
    return {
        "drug": result.drug.name,
        "route": "cell",
        "sensitive_share": result.sensitive_share,
        "mean_p_sensitive": mean,
        "notes": list(result.notes),
    }


def _say_bulk(result: BulkDrugResult, terminal: Terminal) -> dict[str, Any]:
    """The same of a screened drug."""
    table, name = result.table, result.drug.name
    terminal.text(
        f"{name}: on average these {len(table):,} cells are predicted to be more sensitive than "
        f"{result.mean_percentile:.0f} % of the cell lines; {result.sensitive_share:.1%} of them more than the middle "
        "line. A prediction from expression, for research only."
    )
    for note in result.notes:
        terminal.text(note)
    return {
        "drug": name,
        "route": result.route,
        "sensitive_share": result.sensitive_share,
        "mean_p_sensitive": float(table["p_sensitive"].mean()),
        "mean_percentile": result.mean_percentile,
        "held_out_spearman": result.drug.spearman,
        "notes": list(result.notes),
    }


@dataclass(frozen=True)
class _Ranking:
    """How drugs are ranked and groups compared, as the options say."""

    file: Path
    reading: Reading
    group_by: str | None
    compare: str | None
    replicate: str | None
    top: int

    def show(
        self, drugs: list[str] | None, output: Path | None, terminal: Terminal, *, alone: bool = True
    ) -> dict[str, Any]:
        """Rank, print and write; returned for the JSON of another command unless it is `alone`."""
        from instructcell import tools
        from instructcell.cells import read

        compare = None if self.compare is None else [name.strip() for name in self.compare.split(",") if name.strip()]
        with terminal.progress(f"reading {self.file.name}") as progress:
            steps = tools.rank_drugs_steps(
                read(self.file, backed=True),
                groupby=self.group_by,
                compare=compare,
                replicate=self.replicate,
                drugs=drugs,
                reading=self.reading,
            )
            ranking = tools.finish(steps, "ranking drugs", progress)
        if drugs is not None:
            same = ["drug", "target", "held_out_spearman", "n_lines"]
            terminal.table(ranking.table.drop(columns=same), ", ".join(drugs))
        else:
            for group in ranking.groups:
                terminal.table(ranking.top(group, self.top).drop(columns=["group", "cells"]), group)
        if len(ranking.comparison):
            terminal.table(_surest(ranking.comparison, self.top), f"compared by {ranking.unit}")
        if alone:
            for note in ranking.notes:
                terminal.text(note)
        if output is not None:
            separator = "\t" if output.suffix == ".tsv" else ","
            written = ranking.comparison if len(ranking.comparison) else None
            safe_cells(ranking.table).to_csv(output, sep=separator, index=False)
            if written is not None:
                beside = output.with_name(f"{output.stem}_comparison{output.suffix}")
                safe_cells(written).to_csv(beside, sep=separator, index=False)
        found = {"groups": records(ranking.table), "comparison": records(ranking.comparison), "unit": ranking.unit}
        if alone:
            terminal.document({"file": self.file, "output": output, **found, "notes": list(ranking.notes)})
        return found


def _surest(comparison: pd.DataFrame, n: int) -> pd.DataFrame:
    """The first rows of every pair; p-values as text, since three decimals would show most as 0."""
    first = comparison.groupby(["group", "against"], sort=False).head(n)
    return first.assign(**{name: first[name].map("{:.1e}".format) for name in ("p_value", "q_value")})


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


def _read(file: Path, terminal: Terminal, *, backed: bool = False) -> AnnData:
    from instructcell.cells import read

    with terminal.progress(f"reading {file.name}"):
        return read(file, backed=backed)


def _check_streamed(file: Path, output: Path | None, *, force: bool) -> None:
    """Refuse an output that cannot be written before the work starts."""
    if output is not None:
        check_output(output, inputs=[file], force=force, formats=(".zarr",) if file.is_dir() else (".h5ad",))


def _keep(adata: AnnData, output: Path | None, terminal: Terminal) -> None:
    """Write generated cells, or say that nothing was written."""
    if output is not None:
        with terminal.progress(f"writing {output.name}"):
            write_h5ad(adata, output)
    _say_where(output, terminal)


def _say_where(output: Path | None, terminal: Terminal) -> None:
    if output is None:
        terminal.remark("nothing written; name a file with -o to keep the result")
    else:
        terminal.remark(f"written to {output}")


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
