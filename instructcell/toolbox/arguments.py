"""What the tools can be asked: typed arguments, the same for a chat, a script, HTTP and a language model."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from instructcell.errors import InstructCellError

MOST_PSEUDO_CELLS = 20_000  # in one call
EITHER = " | "  # between several types, clusters or values of which a cell may have any
UNSURE = 0.8  # a call below this calibrated confidence is counted as weak


class Arguments(BaseModel):
    """Arguments of a tool: nothing unknown is taken, nothing changes later."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    def short(self) -> dict[str, Any]:
        """What was given, as JSON can hold it."""
        return self.model_dump(mode="json", exclude_defaults=True)


class Cells(Arguments):
    """Which cells of a file; a cell must meet every condition that is given, and none given means all cells."""

    file: Annotated[str, Field(description="Name of a loaded file; the current one by default.")] = ""
    selection: Annotated[str, Field(description="Name of a selection that was kept.")] = ""
    cell_type: Annotated[
        str,
        Field(
            description="Cells annotated as this type or a subtype of it, or 'unknown'; several as 'B cell | T cell'."
        ),
    ] = ""
    cluster: Annotated[str, Field(description="Cells of this cluster; of several as '0 | 1'.")] = ""
    column: Annotated[str, Field(description="Column of obs that must hold `value`.")] = ""
    value: Annotated[str, Field(description="Value of `column`; several as 'stim | ctrl'.")] = ""
    confidence_below: Annotated[float | None, Field(ge=0, le=1, description="Annotated less confidently.")] = None
    confidence_above: Annotated[float | None, Field(ge=0, le=1, description="Annotated at least so confidently.")] = (
        None
    )
    response: Annotated[str, Field(description="Predicted 'sensitive' or 'resistant' to the drug asked last.")] = ""
    expresses: Annotated[str, Field(description="Cells with counts of this gene.")] = ""
    first: Annotated[int | None, Field(ge=1, description="The first so many cells.")] = None
    last: Annotated[int | None, Field(ge=1, description="The last so many cells.")] = None
    random: Annotated[int | None, Field(ge=1, description="So many cells drawn at random.")] = None
    positions: Annotated[tuple[int, ...], Field(description="Positions in the file, the first cell is 0.")] = ()
    names: Annotated[tuple[str, ...], Field(description="Names of cells (barcodes).")] = ()
    others: Annotated[bool, Field(description="All cells of the file but these.")] = False


ALL = Cells()


class OfCells(Arguments):
    """Arguments of a tool that is about cells."""

    cells: Annotated[Cells, Field(description="Which cells.")] = ALL


class Nothing(Arguments):
    """No arguments."""


class OfFile(Arguments):
    """Arguments of a tool that is about a whole file."""

    file: Annotated[str, Field(description="Name of a loaded file; the current one by default.")] = ""


class Annotate(OfCells):
    """Arguments of `annotate`."""

    labels: Annotated[tuple[str, ...], Field(description="Choose among these cell types only.")] = ()
    species: Annotated[str | None, Field(description="human or mouse, where the file does not tell.")] = None
    tissue: Annotated[str | None, Field(description="What is known of the sample.")] = None


class Count(OfCells):
    """Arguments of `count_cells`."""

    cell_type: Annotated[str, Field(description="The type to count, its subtypes with it; all types when empty.")] = ""
    by: Annotated[str, Field(description="Column of obs in whose groups to count.")] = ""
    place: Annotated[
        int | None,
        Field(ge=-100, le=100, description="Name the group of this place by size: 1 the largest, -1 the smallest."),
    ] = None


class Quality(OfCells):
    """Arguments of `quality`."""

    by: Annotated[str, Field(description="Column of obs whose groups are judged one by one.")] = ""


class Cluster(OfFile):
    """Arguments of `cluster`."""

    resolution: Annotated[float, Field(gt=0, le=10, description="Higher: more and smaller clusters.")] = 1.0


class Embed(OfFile):
    """Arguments of `embed`."""

    encoder: Annotated[
        str,
        Field(
            pattern="^(expression|sentence|gene_text|fusion)$",
            description="expression; sentence (names of the genes by rank), gene_text (what is written about the "
            "genes), or fusion (sentence and expression).",
        ),
    ] = "expression"


class Explain(OfCells):
    """Arguments of `explain`."""

    why_not: Annotated[str, Field(description="A type to argue against.")] = ""


class FindByText(OfCells):
    """Arguments of `find_by_text`."""

    text: Annotated[str, Field(min_length=2, description="What the cells are like, in words.")]
    n: Annotated[int | None, Field(ge=1, description="So many of the best.")] = None


class FindByGene(OfCells):
    """Arguments of `find_by_gene`."""

    gene: Annotated[str, Field(description="A gene, by symbol, alias or Ensembl id.")]


class Expression(OfCells):
    """Arguments of `expression`."""

    genes: Annotated[tuple[str, ...], Field(min_length=1, description="Genes, by symbol, alias or Ensembl id.")]
    by: Annotated[str, Field(description="Column of obs to group by; the cell types by default.")] = ""


class Compare(OfCells):
    """Arguments of `compare`."""

    against: Annotated[Cells | None, Field(description="The other group; all other cells by default.")] = None
    by: Annotated[str, Field(description="Column of obs: each of its groups is held against the others.")] = ""
    genes: Annotated[tuple[str, ...], Field(description="Genes to tell of, whether they differ or not.")] = ()
    n_genes: Annotated[int, Field(ge=1, le=500, description="Genes to list for each side.")] = 20


class Generate(Arguments):
    """Arguments of `generate`."""

    cell_type: Annotated[str, Field(description="Type of the pseudo-cells; the commonest of `like` by default.")] = ""
    n: Annotated[int, Field(ge=1, le=MOST_PSEUDO_CELLS, description="How many.")] = 50
    like: Annotated[Cells | None, Field(description="Real cells whose type, species and depth to follow.")] = None
    species: Annotated[str | None, Field(description="human or mouse.")] = None
    tissue: Annotated[str | None, Field(description="Tissue of the sample.")] = None
    condition: Annotated[str | None, Field(description="Condition of the sample.")] = None
    library_size: Annotated[float | None, Field(gt=0, lt=1e8, description="Counts per cell.")] = None
    seed: Annotated[int, Field(ge=0, description="Same seed, same cells.")] = 0


class DrugOf(OfCells):
    """Arguments of `drug_response`."""

    drug: Annotated[str, Field(min_length=1, max_length=200, description="Name or synonym of a drug.")]


class RankDrugs(OfCells):
    """Arguments of `rank_drugs`."""

    against: Annotated[Cells | None, Field(description="Another group; all other cells by default.")] = None
    by: Annotated[str, Field(description="Column of obs whose groups are ranked, instead of one group.")] = ""
    replicate: Annotated[str, Field(description="Column of obs with donors: then donors are compared, not cells.")] = ""


class CompareDrug(DrugOf):
    """Arguments of `compare_drug`."""

    against: Annotated[Cells | None, Field(description="The other group; all other cells by default.")] = None
    by: Annotated[str, Field(description="Column of obs whose groups are compared, instead of two groups.")] = ""


class DrugFacts(Arguments):
    """Arguments of `drug_facts`."""

    query: Annotated[str, Field(max_length=200, description="A drug, or a target such as EGFR; empty: all.")] = ""


class Markers(Arguments):
    """Arguments of `markers`."""

    cell_type: Annotated[str, Field(description="What marks this type?")] = ""
    genes: Annotated[tuple[str, ...], Field(description="Which types do these genes mark?")] = ()


class Question(Arguments):
    """Arguments of `knowledge`."""

    question: Annotated[
        str, Field(min_length=1, max_length=2000, description="A question about markers, genes, types.")
    ]


class Select(OfCells):
    """Arguments of `select`."""

    name: Annotated[str, Field(max_length=80, description="How to call them; by what they are when empty.")] = ""


class Map(OfFile):
    """Arguments of `draw_map`."""

    colour: Annotated[str, Field(description="Column of obs, or a gene; the cell types by default.")] = ""
    cells: Annotated[Cells, Field(description="Cells to show among the others.")] = ALL


class UseFile(Arguments):
    """Arguments of `use_file`."""

    file: Annotated[str, Field(description="Name of a loaded file.")]


class Export(Arguments):
    """Arguments of `export`."""

    what: Annotated[
        str,
        Field(
            pattern="^(all|annotated|pseudo|tables|figures|script|conversation)$",
            description="all, annotated, pseudo, tables, figures, script or conversation.",
        ),
    ] = "all"


def problem(tool: str, error: ValidationError) -> InstructCellError:
    """What is wrong with arguments, in one sentence."""
    first = error.errors()[0]
    where = ".".join(str(part) for part in first["loc"]) or "arguments"
    found = "" if first["type"] in ("missing", "extra_forbidden") else f", found {first.get('input')!r:.60}"
    return InstructCellError(f"{tool} cannot use '{where}': {first['msg'].lower()}{found}")
