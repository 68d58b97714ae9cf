"""The short canonical prompts that tools use for batch work; training renders them among its phrasings."""

from __future__ import annotations

CELLS = "{cells}"  # where the cells' placeholders go; the processor puts them there
DRUG_ANSWERS = ("sensitive", "resistant")


def annotation_prompt(*, species: str | None = None, tissue: str | None = None) -> str:
    """Ask for the cell type of one cell: ``human pancreatic islet | annotate: {cells}``."""
    return f"{_context(species, tissue)}annotate: {CELLS}"


def drug_prompt(drug: str, *, species: str | None = None, tissue: str | None = None) -> str:
    """Ask for the response of one cell: ``response to gefitinib: {cells}``."""
    return f"{_context(species, tissue)}response to {_plain(drug)}: {CELLS}"


def generation_prompt(
    cell_type: str, *, species: str | None = None, tissue: str | None = None, condition: str | None = None
) -> str:
    """Ask for one pseudo-cell: ``human PBMC | generate B cell:``."""
    return f"{_context(species, tissue, condition)}generate {_plain(cell_type)}:"


def marker_prompt(cell_type: str) -> str:
    """Ask for marker genes: ``markers of pancreatic A cell:``."""
    return f"markers of {_plain(cell_type)}:"


def _context(*words: str | None) -> str:
    given = [_plain(word) for word in words if word]
    return f"{' '.join(given)} | " if given else ""


def _plain(text: str) -> str:
    """One line of text that cannot pass for the cells' place."""
    return " ".join(text.replace("{", "(").replace("}", ")").split())
