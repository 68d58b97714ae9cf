"""A session as a Python script that repeats every step with the same tools."""

from __future__ import annotations

from pathlib import Path

from instructcell import __version__
from instructcell.checkpoint import SHIPPED, Checkpoint
from instructcell.resources import DEMO_CELLS, demo_path
from instructcell.toolbox.core import LAY_OUT
from instructcell.workspace import DataFile, Workspace

HEAD = '''"""Repeats a session of InstructCell {version} (checkpoint {checkpoint}, {hash}).

Run it beside the files, or name them in this order: python {name} {files}
"""

import sys
from pathlib import Path

from instructcell.output import write_h5ad
{imports}from instructcell.toolbox import Toolbox

FILES = {{
{paths}}}
for name, given in zip(list(FILES), sys.argv[1:]):
    FILES[name] = given

box = Toolbox(checkpoint={source!r})
if box.checkpoint.hash != {hash!r}:
    print("This is another checkpoint than that of the session; its answers may differ.", file=sys.stderr)
'''
TAIL = """
for file in box.workspace.files.values():
    if box.workspace.written(file.name):
        print(write_h5ad(file.adata, Path(f"{Path(file.name).stem}_instructcell.h5ad")))
if box.workspace.state.pseudo is not None:
    print(write_h5ad(box.workspace.state.pseudo, Path("pseudo_cells.h5ad")))
"""


def script_of(workspace: Workspace, checkpoint: Checkpoint, name: str = "repeat_these_steps.py") -> str:
    """The steps that were not taken back, as Python source.

    Files are opened under their names from the folder it runs in, or from the paths it is given; the demo cells from
    the package.
    """
    files = list(workspace.files.values())
    lines = [f"    {file.name!r}: {_path(file)},\n" for file in files]
    demo = any("demo_path" in line for line in lines)
    head = HEAD.format(
        version=__version__,
        checkpoint=Path(checkpoint.path).name,
        hash=checkpoint.hash,
        source=_source(checkpoint),
        name=name,
        files=" ".join(f"FILE{i + 1}" for i in range(len(files))),
        imports="from instructcell.resources import demo_path\n" if demo else "",
        paths="".join(lines),
    )
    return head + "".join(_call(step.tool, dict(step.arguments)) for step in workspace.state.steps) + TAIL


def _source(checkpoint: Checkpoint) -> str:
    """What names the checkpoint on this machine: the name of a shipped one, the folder of another."""
    path = Path(checkpoint.path)
    return path.name if path == SHIPPED / path.name else str(path)


def _path(file: DataFile) -> str:
    """Where a file is opened from, as source."""
    if file.path:
        for name in DEMO_CELLS:
            if Path(file.path).resolve() == Path(demo_path(name)).resolve():
                return f"demo_path({name!r})"
    return repr(file.name)


def _call(tool: str, arguments: dict[str, object]) -> str:
    if tool == "open":
        return f"box.open(FILES[{arguments['name']!r}], {arguments['name']!r})\n"
    if tool == LAY_OUT:
        return f"box.lay_out({arguments['file']!r})\n"
    given = "".join(f", {name}={value!r}" for name, value in arguments.items())
    return f"box.run({tool!r}{given})\n"
