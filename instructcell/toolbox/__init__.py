"""The typed toolbox: what a chat, the terminal, Python, HTTP and language models can do with cells.

box = Toolbox()
box.open("cells.h5ad")
box.run("annotate").facts["composition"]
"""

from __future__ import annotations

from instructcell.toolbox import data, desk, drugs, knowledge, measured, pseudo, types  # noqa: F401 - they register tools
from instructcell.toolbox.arguments import Cells
from instructcell.toolbox.core import TOOLS, Steps, Tool, Toolbox

__all__ = ["TOOLS", "Cells", "Steps", "Tool", "Toolbox"]
