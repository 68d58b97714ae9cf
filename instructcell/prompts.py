"""The short canonical prompts that tools use for batch work; training renders them among its phrasings."""

from __future__ import annotations

from instructcell.processor import CELLS_FIELD

DRUG_ANSWERS = ("sensitive", "resistant")


def annotation_prompt(*, species: str | None = None, tissue: str | None = None) -> str:
    """Ask for the cell type of one cell: ``human pancreatic islet | annotate: {cells}``."""
    return f"{_context(species, tissue)}annotate: {CELLS_FIELD}"


def drug_prompt(drug: str, *, species: str | None = None, tissue: str | None = None) -> str:
    """Ask for the response of one cell: ``response to gefitinib: {cells}``."""
    return f"{_context(species, tissue)}response to {_plain(drug)}: {CELLS_FIELD}"


def generation_prompt(
    cell_type: str, *, species: str | None = None, tissue: str | None = None, condition: str | None = None
) -> str:
    """Ask for one pseudo-cell: ``human PBMC | generate B cell:``."""
    return f"{_context(species, tissue, condition)}generate {_plain(cell_type)}:"


def marker_prompt(cell_type: str) -> str:
    """Ask for marker genes: ``markers of pancreatic A cell:``."""
    return f"markers of {_plain(cell_type)}:"


def _context(species: str | None, tissue: str | None, condition: str | None = None) -> str:
    sample = " ".join(_plain(word) for word in (species, tissue) if word)
    known = ", ".join(part for part in (sample, _plain(condition or "")) if part)
    return f"{known} | " if known else ""


def _plain(text: str) -> str:
    """One line of text that cannot pass for the cells' place."""
    return " ".join(text.replace("{", "(").replace("}", ")").split())
