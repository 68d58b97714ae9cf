"""New cells, and how they compare with real ones."""

from __future__ import annotations

from dataclasses import replace

from instructcell import slots, tools
from instructcell.errors import InstructCellError
from instructcell.events import CellsGenerated, TextDelta
from instructcell.flows.conversation import ONES, Answer, Conversation, given
from instructcell.mentions import numbers_of_types
from instructcell.requests import Request
from instructcell.toolbox.arguments import MOST_PSEUDO_CELLS

USUAL_PSEUDO_CELLS = 50  # when no number is said


def generate(talk: Conversation, request: Request) -> Answer:
    """Make pseudo-cells of a type, or like the cells talked about."""
    if len(request.types) > 1 and request.cells is None:
        yield from _generate_each(talk, request)
        return
    like = request.cells
    points = request.points_back or request.points_here
    if like is None and (request.like or (points and request.cell_type is None)):
        like = talk.focus
    named = request.cell_type.name if request.cell_type else request.unknown_type
    if named is None and like is None and ONES.search(request.text) and talk.topic.types:
        named = talk.topic.types[0]  # "make me 60 artificial ones"
    if named is None and (like is None or talk.adata is None):
        yield TextDelta(f"Which cell type shall I generate? I can do: {'; '.join(talk.toolbox.able)}.")
        return
    usual = 1 if slots.ONE.search(request.text) else USUAL_PSEUDO_CELLS
    n = usual if request.n is None else request.n
    if n < 1:
        raise InstructCellError(f"found n={n}, expected at least 1 pseudo-cell; ask for 1 or more")
    if n > MOST_PSEUDO_CELLS:
        raise InstructCellError(
            f"{n:,} pseudo-cells were asked for, expected at most {MOST_PSEUDO_CELLS:,} in one answer. "
            "Ask for fewer, or use the command line: instructcell generate."
        )
    if named is not None:
        label = tools.find_generable(talk.checkpoint.labels, named)
        named = label.name if talk.checkpoint.labels.find(named) is not None else named
    seed = talk.workspace.state.n_generations if request.seed is None else request.seed
    also = given(request, "tissue", "species", "library_size")
    result = yield from talk.call("generate", cell_type=named, n=n, like=like, seed=seed, **also)
    yield from talk.tell(result)
    assert result.cells is not None
    yield CellsGenerated(result.cells)
    if request.on_map and talk.adata is not None:
        yield TextDelta("\n")
        yield from talk.ask("compare_with_real")


def _generate_each(talk: Conversation, request: Request) -> Answer:
    """Pseudo-cells of several types, one after the other."""
    numbers = numbers_of_types(request.text, talk.checkpoint.labels)
    for name in request.types:
        label = tools.find_generable(talk.checkpoint.labels, name)
        known = talk.checkpoint.labels.find(name) is not None
        one = replace(
            request,
            types=(label.name,),
            type_name=label.name,
            cell_type=label if known else None,
            unknown_type=None if known else name,
        )
        yield from generate(talk, replace(one, n=numbers.get(name, request.n)))
        yield TextDelta("\n")


def compare_real(talk: Conversation, request: Request) -> Answer:
    """Hold the pseudo-cells against real ones."""
    if talk.generated is None:
        yield TextDelta("There are no pseudo-cells yet. Ask for some first: *generate 50 B cells*.")
        return
    if talk.adata is None:
        yield from talk.needs_cells("To compare them I need real cells.")
        return
    yield from talk.ask("compare_with_real", cells=request.cells)
