"""Where a claim can be checked: the tables and figures of the result that it came from.

Every piece of an answer's text about cells bears the id of its result (`TextDelta.evidence`). What was shown with that
result, or else what the result holds, is its ground; a count rests on the annotation that it counts in as well.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from instructcell.errors import InstructCellError
from instructcell.events import Event, FigureReady, TableReady
from instructcell.workspace import Result, Workspace

TABLE, FIGURE = "table", "figure"
Shown = TableReady | FigureReady


@dataclass(frozen=True)
class Ground:
    """One table or figure (`kind`) called `name`, of the result `evidence`."""

    evidence: str
    kind: str
    name: str


def grounds_of(evidence: str, workspace: Workspace, told: Iterable[Event]) -> tuple[Ground, ...]:
    """The tables and figures behind a result, under the names by which the events so far (`told`) showed them.

    Raises
    ------
    InstructCellError
        There is no such result: it was taken back.
    """
    result = workspace.result(evidence)
    known = [_ground(event) for event in told if isinstance(event, Shown) and event.evidence == evidence]
    if known:
        return tuple(dict.fromkeys(known))
    own = [Ground(evidence, TABLE, name) for name in result.tables]
    own += [Ground(evidence, FIGURE, name) for name in result.figures]
    return (*_below(result, workspace), *own)


def reveal(ground: Ground, workspace: Workspace, told: Iterable[Event]) -> Shown:
    """The table or figure itself, as it was shown, or drawn now.

    Raises
    ------
    InstructCellError
        Its result was taken back.
    """
    if ground.evidence not in {result.id for result in workspace.state.results}:
        raise InstructCellError(f"the result behind '{ground.name}' was taken back; ask again to have it anew")
    for event in told:
        if isinstance(event, Shown) and _ground(event) == ground:
            return event
    result = workspace.result(ground.evidence)
    if ground.kind == TABLE:
        return TableReady(ground.name, result.tables[ground.name], ground.evidence)
    return FigureReady(ground.name, result.figures[ground.name](), ground.evidence)


def _ground(event: Shown) -> Ground:
    return Ground(event.evidence, TABLE if isinstance(event, TableReady) else FIGURE, event.name)


def _below(result: Result, workspace: Workspace) -> tuple[Ground, ...]:
    """The annotation that a count was read from."""
    annotation = workspace.latest("annotate", file=result.file) if result.tool == "count_cells" else None
    if annotation is None:
        return ()
    return tuple(Ground(annotation.id, TABLE, name) for name in list(annotation.tables)[:1])
