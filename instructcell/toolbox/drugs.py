"""Tools about drugs: the predicted response, which of the known drugs would act most, and two groups held together."""

from __future__ import annotations

import re
from collections.abc import Generator
from typing import Any

import numpy as np
import pandas as pd

from instructcell import pl, tools
from instructcell.drugs import Drug
from instructcell.errors import InstructCellError
from instructcell.events import Progress
from instructcell.toolbox.arguments import CompareDrug, DrugOf, OfCells
from instructcell.toolbox.cells import chosen, mask_of
from instructcell.toolbox.core import Steps, Toolbox, reported, tool
from instructcell.toolbox.types import about, coverage_facts, write_answers
from instructcell.workspace import DataFile, Result, Selection

ANSWERS = (tools.DRUG_RESPONSE, tools.P_SENSITIVE)
MOST_GROUPS = 30


@tool(DrugOf, "Predict which of the cells are sensitive and which resistant to a drug the checkpoint was trained on.")
def drug_response(box: Toolbox, asked: DrugOf) -> Steps:
    """Write the response into obs; that to the drug before is kept in columns that bear its name."""
    drug = box.drugs.get(asked.drug)
    selection = yield from chosen(box, asked.cells)
    file = box.workspace.use(selection.file)
    result = yield from _predicted(box, file, drug, selection)
    _set_aside(box, file, drug)
    columns = {tools.DRUG_RESPONSE: result.table["response"], tools.P_SENSITIVE: result.table["p_sensitive"]}
    whole = len(selection.rows) == file.adata.n_obs
    given = {"drug": drug.name, "selection": "" if whole else selection.name}
    write_answers(box, file, selection.rows, columns, ("drug_response", result.report, given))
    box.workspace.remember(file.name, "drug", value=drug.name)
    p = result.table["p_sensitive"]
    types = _types(box, file, selection.rows)
    table = result.table.rename_axis("cell").reset_index()
    n = int((result.table["response"] == "sensitive").sum())
    return Result(
        "drug_response",
        facts={
            **about(selection),
            **drug_facts(drug),
            "n_sensitive": n,
            "sensitive_share": n / len(p),
            "n_resistant": len(p) - n,
            "mean_p": p.mean(),
            "by_type": _by_type(p, types),
            "coverage": coverage_facts(result.report),
        },
        tables={f"response to {drug.name}": table},
        figures={f"response to {drug.name}": lambda: pl.probabilities(p, types)},
        sources=drug.studies,
        file=file.name,
        selection=selection,
        payload=result,
    )


@tool(OfCells, "Rank the known drugs by the predicted response of the cells.")
def rank_drugs(box: Toolbox, asked: OfCells) -> Steps:
    """Predict the response to every known drug; nothing is written into obs."""
    selection = yield from chosen(box, asked.cells)
    file = box.workspace.require(selection.file)
    rows = []
    for drug in box.drugs:
        result = yield from _predicted(box, file, drug, selection)
        p = result.table["p_sensitive"]
        rows.append(
            {
                "drug": drug.name,
                "target": drug.target,
                "sensitive_share": float((result.table["response"] == "sensitive").mean()),
                "mean_p_sensitive": float(p.mean()),
                "studies": "; ".join(drug.studies),
            }
        )
    table = pd.DataFrame(rows).sort_values(["mean_p_sensitive", "sensitive_share"], ascending=False, ignore_index=True)
    sources = tuple(dict.fromkeys(study for drug in box.drugs for study in drug.studies))
    facts = {**about(selection), "drugs": table.drop(columns="studies"), "n_drugs": len(table)}
    return Result("rank_drugs", facts, tables={"drugs": table}, sources=sources, file=file.name, selection=selection)


@tool(CompareDrug, "Compare the predicted response to a drug between groups of cells, with a rank test.")
def compare_drug(box: Toolbox, asked: CompareDrug) -> Steps:
    """Mann-Whitney U for two groups, Kruskal-Wallis for more; cells of one donor are not independent, which is said."""
    drug = box.drugs.get(asked.drug)
    file, groups = yield from _groups(box, asked)
    rows = np.unique(np.concatenate(list(groups.values())))
    result = yield from _predicted(box, file, drug, Selection("the groups", file.name, rows))
    p = pd.Series(result.table["p_sensitive"].to_numpy(), index=rows)
    table = pd.DataFrame(
        [
            {
                "group": name,
                "cells": len(members),
                "mean_p_sensitive": float(p[members].mean()),
                "median_p_sensitive": float(p[members].median()),
                "sensitive_share": float((p[members] >= 0.5).mean()),
            }
            for name, members in groups.items()
        ]
    ).sort_values("mean_p_sensitive", ascending=False, ignore_index=True)
    name = pd.Series("", index=rows)
    for group, members in groups.items():
        name[members] = group
    facts = {
        "file": file.name,
        **drug_facts(drug),
        "groups": table,
        **_tested([p[m].to_numpy() for m in groups.values()]),
    }
    return Result(
        "compare_drug",
        facts={**facts, "n_cells": len(rows)},
        tables={f"response to {drug.name} by group": table},
        figures={f"response to {drug.name} by group": lambda: pl.probabilities(p, name)},
        sources=drug.studies,
        file=file.name,
    )


def drug_facts(drug: Drug) -> dict[str, Any]:
    """What the checkpoint knows of a drug."""
    return {"drug": drug.name, "target": drug.target, "studies": list(drug.studies), "drug_note": drug.note}


def _predicted(
    box: Toolbox, file: DataFile, drug: Drug, selection: Selection
) -> Generator[Progress, None, tools.DrugResult]:
    """The response of chosen cells to a drug; the latest of each drug and selection is kept."""
    key = ("drug_response", drug.name, _fingerprint(selection.rows))
    known = box.workspace.recall(file.name, *key)
    if known is not None:
        return known
    steps = tools.drug_response_steps(
        file.adata, drug=drug.name, checkpoint=box.checkpoint, rows=selection.rows, report=file.report
    )
    result = yield from reported(steps, f"response to {drug.name}")
    box.workspace.remember(file.name, *key, value=result)
    return result


def _fingerprint(rows: np.ndarray) -> str:
    import hashlib

    return hashlib.sha256(np.asarray(rows, dtype=np.int64).tobytes()).hexdigest()


def _set_aside(box: Toolbox, file: DataFile, drug: Drug) -> None:
    """Keep the response to another drug in columns that bear its name."""
    before = box.workspace.recall(file.name, "drug")
    if before in (None, drug.name) or tools.DRUG_RESPONSE not in box.workspace.written(file.name):
        return
    for column in ANSWERS:
        file.adata.obs[f"{column}_{re.sub(r'[^0-9A-Za-z]+', '_', before)}"] = file.adata.obs[column]
    box.workspace.note_written(file.name, *ANSWERS, forget=True)


def _types(box: Toolbox, file: DataFile, rows: np.ndarray) -> pd.Series | None:
    if tools.CELL_TYPE not in box.workspace.written(file.name):
        return None
    types = file.adata.obs[tools.CELL_TYPE].astype(str).iloc[rows]
    return types.mask(types == "", "not annotated")


def _by_type(p: pd.Series, types: pd.Series | None) -> list[dict[str, Any]]:
    if types is None or types.nunique() < 2:
        return []
    groups = p.groupby(types.to_numpy()).agg(["size", "mean"]).sort_values("size", ascending=False)
    return [
        {"cell_type": str(name), "cells": int(row["size"]), "mean_p": float(row["mean"])}
        for name, row in groups.iterrows()
    ]


def _groups(box: Toolbox, asked: CompareDrug) -> Generator[Progress, None, tuple[DataFile, dict[str, np.ndarray]]]:
    """The groups to compare: the values of a column among the chosen cells, or two groups."""
    first = yield from chosen(box, asked.cells)
    file = box.workspace.require(first.file)
    if asked.by:
        if asked.by not in file.adata.obs:
            raise InstructCellError(
                f"found no column '{asked.by}' in obs; there are: {', '.join(map(str, file.adata.obs.columns))}"
            )
        values = file.adata.obs[asked.by].astype(str).iloc[first.rows]
        groups = {str(name): first.rows[(values == name).to_numpy()] for name in sorted(values.unique()) if name}
    else:
        second = yield from _second(box, asked, first)
        groups = {first.name: first.rows, second.name: second.rows}
    if not 2 <= len(groups) <= MOST_GROUPS:
        raise InstructCellError(f"found {len(groups)} groups to compare, expected 2 to {MOST_GROUPS}; name two groups")
    return file, groups


def _second(box: Toolbox, asked: CompareDrug, first: Selection) -> Generator[Progress, None, Selection]:
    if asked.against is not None:
        return (yield from chosen(box, asked.against))
    n = box.workspace.require(first.file).adata.n_obs
    rest = np.flatnonzero(~mask_of(first.rows, n))
    if len(rest) == 0:
        raise InstructCellError(
            "all cells are one group; name two groups to compare, or a column such as the condition"
        )
    return Selection("all other cells", first.file, rest)


def _tested(groups: list[np.ndarray]) -> dict[str, Any]:
    from scipy.stats import kruskal, mannwhitneyu

    if min(map(len, groups)) < 3 or len(np.unique(np.concatenate(groups))) < 2:
        return {"test": "", "p_value": None}
    if len(groups) == 2:
        found = mannwhitneyu(*groups)
        return {"test": "Mann-Whitney U test", "p_value": float(found.pvalue)}
    return {"test": "Kruskal-Wallis test", "p_value": float(kruskal(*groups).pvalue)}
