"""Tools about drugs: the predicted response, which of the known drugs would act most, and two groups held together."""

from __future__ import annotations

import re
from collections.abc import Generator
from typing import Any

import numpy as np
import pandas as pd

from instructcell import pl, tools
from instructcell.bulk_response import LEAST_CELLS, PERCENTILE, SENSITIVITY, BulkDrugResult, DrugRanking, Groups
from instructcell.drugs import Drug
from instructcell.errors import DrugError, InstructCellError
from instructcell.events import Progress
from instructcell.retrieval.names import load_name_book
from instructcell.toolbox.arguments import Cells, CompareDrug, DrugFacts, DrugOf, RankDrugs
from instructcell.toolbox.cells import chosen, cluster_column, mask_of
from instructcell.toolbox.core import SCREENS, Steps, Toolbox, as_drug, reported, tool
from instructcell.toolbox.types import about, coverage_facts, grouped_by, write_answers
from instructcell.workspace import DataFile, Result, Selection

ANSWERS = {
    tools.DRUG_RESPONSE: "response",
    tools.P_SENSITIVE: "p_sensitive",
    SENSITIVITY: "sensitivity",  # of the bulk route only, as is the next
    PERCENTILE: "percentile",
}
MOST_GROUPS = 30
SHOWN_DRUGS = 8  # in the text; the tables have all
SURE = 0.05  # q-value below which two groups are told to differ
OTHERS = "all other cells"


@tool(
    DrugOf,
    "Predict which of the cells are sensitive and which resistant to a drug: from single cells where the checkpoint "
    "was trained on it, else from the screens of cancer cell lines (GDSC).",
)
def drug_response(box: Toolbox, asked: DrugOf) -> Steps:
    """Write the response into obs; that to the drug before is kept in columns that bear its name."""
    drug, route = named_drug(box, asked.drug)
    selection = yield from chosen(box, asked.cells)
    file = box.workspace.use(selection.file)
    result = yield from _predicted(box, file, drug, route, selection)
    _set_aside(box, file, drug)
    columns = {column: result.table[name] for column, name in ANSWERS.items() if name in result.table}
    whole = len(selection.rows) == file.adata.n_obs
    given = {"drug": drug.name, "route": route, "selection": "" if whole else selection.name}
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
            **drug_facts(drug, route),
            "n_sensitive": n,
            "sensitive_share": n / len(p),
            "n_resistant": len(p) - n,
            "mean_p": p.mean(),
            "mean_percentile": result.mean_percentile if isinstance(result, BulkDrugResult) else None,
            "spearman": result.drug.spearman if isinstance(result, BulkDrugResult) else None,
            "by_type": _by_type(p, types),
            "coverage": coverage_facts(result.report),
        },
        tables={f"response to {drug.name}": table},
        figures={f"response to {drug.name}": lambda: pl.probabilities(p, types)},
        sources=drug.studies,
        notes=result.notes,
        file=file.name,
        selection=selection,
        payload=result,
    )


@tool(RankDrugs, "Rank the drugs of the cancer cell-line screens (GDSC) by the predicted sensitivity of the cells.")
def rank_drugs(box: Toolbox, asked: RankDrugs) -> Steps:
    """Rank for the pooled cells of each group and test the groups against one another; nothing is written into obs."""
    selection = yield from chosen(box, asked.cells)
    file = box.workspace.require(selection.file)
    groups = yield from _ranked_groups(box, asked, selection)
    steps = tools.rank_drugs_steps(file.adata, groups=groups, report=file.report, screen=box.screen)
    ranking = yield from reported(steps, "ranking drugs")
    shown = groups.names if asked.by else groups.names[:1]
    above = ranking.comparison
    if len(above):
        above = above[(above["q_value"] < SURE) & (above["difference"] > 0) & above["group"].isin(shown)]
    return Result(
        "rank_drugs",
        facts={
            **about(selection),
            "groups": [_group_facts(ranking, above, name) for name in shown],
            "against": groups.names[1] if len(groups.names) == 2 else "the other groups",
            "compared": len(groups.names) > 1,
            "unit": ranking.unit,
            "n_drugs": len(ranking.drugs),
            "known": _places(box, ranking, shown[0]),
            "others": [drug.name for drug in box.drugs if box.screen.drugs.find(drug.name) is None],
            "q_below": SURE,
        },
        tables={
            name: table
            for name, table in (("drugs", ranking.table), ("drugs between groups", ranking.comparison))
            if len(table)
        },
        sources=(SCREENS,),
        notes=ranking.notes,
        file=file.name,
        selection=selection,
        payload=ranking,
    )


@tool(CompareDrug, "Compare the predicted response to a drug between groups of cells, with a rank test.")
def compare_drug(box: Toolbox, asked: CompareDrug) -> Steps:
    """Mann-Whitney U for two groups, Kruskal-Wallis for more; cells of one donor are not independent, which is said."""
    drug, route = named_drug(box, asked.drug)
    first = yield from chosen(box, asked.cells)
    file = box.workspace.require(first.file)
    groups = yield from _groups(box, asked, first)
    rows = np.unique(np.concatenate(list(groups.values())))
    result = yield from _predicted(box, file, drug, route, Selection("the groups", file.name, rows))
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
        **drug_facts(drug, route),
        "groups": table,
        **_tested([p[m].to_numpy() for m in groups.values()]),
    }
    return Result(
        "compare_drug",
        facts={**facts, "n_cells": len(rows)},
        tables={f"response to {drug.name} by group": table},
        figures={f"response to {drug.name} by group": lambda: pl.probabilities(p, name)},
        sources=drug.studies,
        notes=result.notes,
        file=file.name,
    )


@tool(
    DrugFacts,
    "What is known of drugs: which can be asked about, their targets, and how well their predictions hold.",
    needs_cells=False,
)
def known_drugs(box: Toolbox, asked: DrugFacts) -> Steps:
    """One drug, the drugs of a target, or all."""
    table = _all_drugs(box)
    query = asked.query.strip()
    if query:
        try:
            drug, route = named_drug(box, query)
            shown = table[(table["drug"] == drug.name) & (table["route"] == route)]
        except DrugError:
            gene = load_name_book().gene(query) or query
            hit = [
                any(re.search(rf"(?<![A-Za-z]){re.escape(word)}", target, re.IGNORECASE) for word in (query, gene))
                for target in table["target"]
            ]
            shown = table[hit]
    else:
        shown = table
    facts = {
        "query": query,
        "n": len(shown),
        "n_known": len(table),
        "drugs": shown.head(SHOWN_DRUGS * 2),
        "single_cell": box.drugs.names,
        "n_screened": len(box.screen.drugs),
        "median_spearman": float(np.median([drug.spearman for drug in box.screen.drugs])),
        "notes": {drug.name: drug.note for drug in box.drugs if drug.name in set(shown["drug"])},
    }
    studies = [study for drug in box.drugs if drug.name in set(shown["drug"]) for study in drug.studies]
    tables = {"drugs": shown} if len(shown) else {}
    return Result("drug_facts", facts, tables=tables, sources=tuple(dict.fromkeys((*studies, SCREENS))))
    yield


def _all_drugs(box: Toolbox) -> pd.DataFrame:
    """Every drug that can be asked about: `drug`, `target`, `route`, `held_out_spearman` (NaN on the cell route)."""
    own = [(drug.name, drug.target, "cell", np.nan) for drug in box.drugs]
    screened = [(drug.name, drug.target, "bulk", drug.spearman) for drug in box.screen.drugs]
    columns = ["drug", "target", "route", "held_out_spearman"]
    table = pd.DataFrame([*own, *screened], columns=columns)
    order = table.sort_values(["route", "held_out_spearman"], ascending=[False, False], kind="stable")
    return order.reset_index(drop=True)


def named_drug(box: Toolbox, name: str) -> tuple[Drug, str]:
    """The drug that a name is, and the route that answers it: "cell" or "bulk".

    Raises
    ------
    DrugError
        Neither route knows it; the message names near ones.
    """
    route = tools.choose_route(box.checkpoint, name, screen=box.screen)
    if route == "cell":
        return box.drugs.get(name), route
    return as_drug(box.screen.drugs[box.screen.drugs.get(name)]), route


def drug_facts(drug: Drug, route: str) -> dict[str, Any]:
    """What is known of a drug, and the route that answers it."""
    known = {"drug": drug.name, "target": drug.target, "studies": list(drug.studies), "drug_note": drug.note}
    return {**known, "route": route}


def _predicted(
    box: Toolbox, file: DataFile, drug: Drug, route: str, selection: Selection
) -> Generator[Progress, None, tools.DrugResult | BulkDrugResult]:
    """The response of chosen cells to a drug; the latest of each drug and selection is kept."""
    key = ("drug_response", drug.name, _fingerprint(selection.rows))
    known = box.workspace.recall(file.name, *key)
    if known is not None:
        return known
    given: dict[str, Any] = {"drug": drug.name, "checkpoint": box.checkpoint, "rows": selection.rows}
    if route == "bulk":
        steps: Any = tools.bulk_drug_response_steps(file.adata, **given, report=file.report, screen=box.screen)
    else:
        steps = tools.drug_response_steps(file.adata, **given, report=file.report)
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
    obs = file.adata.obs
    for column in set(ANSWERS) & box.workspace.written(file.name):
        obs[f"{column}_{re.sub(r'[^0-9A-Za-z]+', '_', before)}"] = obs.pop(column)
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


def _groups(
    box: Toolbox, asked: CompareDrug | RankDrugs, first: Selection
) -> Generator[Progress, None, dict[str, np.ndarray]]:
    """The groups to compare: the values of a column among the chosen cells, or two groups."""
    file = box.workspace.require(first.file)
    if asked.by:
        values = (yield from grouped_by(box, file, asked.by)).iloc[first.rows]
        numbers = "cluster " if asked.by == cluster_column(file.adata.obs) else ""
        groups = {
            f"{numbers if name.isdigit() else ''}{name}": first.rows[(values == name).to_numpy()]
            for name in sorted(values.unique(), key=lambda text: (text.isdigit() and len(text), text))
            if name
        }
    else:
        second = yield from _second(box, asked.against, first)
        groups = {first.name: first.rows, second.name: second.rows}
    if not 2 <= len(groups) <= MOST_GROUPS:
        raise InstructCellError(f"found {len(groups)} groups to compare, expected 2 to {MOST_GROUPS}; name two groups")
    return groups


def _ranked_groups(box: Toolbox, asked: RankDrugs, first: Selection) -> Generator[Progress, None, Groups]:
    """The chosen cells, held against another group or all other cells; or the groups of a column."""
    file = box.workspace.require(first.file)
    replicate = asked.replicate or None
    if asked.by or asked.against is not None:
        groups = yield from _groups(box, asked, first)
        if asked.by:  # small groups cannot be ranked
            groups = {name: rows for name, rows in groups.items() if len(rows) >= LEAST_CELLS} or groups
        return Groups.named(file.adata, groups, replicate)
    rest = np.flatnonzero(~mask_of(first.rows, file.adata.n_obs))
    groups = {first.name: first.rows}
    if len(rest) >= LEAST_CELLS:
        groups[OTHERS] = rest
    return Groups.named(file.adata, groups, replicate)


def _group_facts(ranking: DrugRanking, above: pd.DataFrame, name: str) -> dict[str, Any]:
    """The first drugs of a group, and those to which it is surely more sensitive than what it is held against."""
    columns = ["drug", "target", "percentile", "held_out_spearman"]
    top = ranking.top(name, SHOWN_DRUGS)
    more = above[above["group"] == name] if len(above) else above
    more = more.sort_values("difference", ascending=False, kind="stable")
    return {
        "group": name,
        "cells": int(top["cells"].iloc[0]),
        "drugs": top[columns],
        "n_more": len(more),
        "more": more[["drug", "difference", "q_value"]].head(SHOWN_DRUGS),
    }


def _places(box: Toolbox, ranking: DrugRanking, group: str) -> list[dict[str, Any]]:
    """Where the drugs of the checkpoint stand in a group's ranking, those that were screened."""
    table = ranking.table[ranking.table["group"] == group].reset_index(drop=True)
    places = []
    for drug in box.drugs:
        position = box.screen.drugs.find(drug.name)
        hits = table.index[table["drug"] == box.screen.drugs[position].name] if position is not None else []
        if len(hits):
            percentile = float(table.loc[hits[0], "percentile"])
            places.append({"drug": drug.name, "place": int(hits[0]) + 1, "percentile": percentile})
    return places


def _second(box: Toolbox, against: Cells | None, first: Selection) -> Generator[Progress, None, Selection]:
    if against is not None:
        return (yield from chosen(box, against))
    n = box.workspace.require(first.file).adata.n_obs
    rest = np.flatnonzero(~mask_of(first.rows, n))
    if len(rest) == 0:
        raise InstructCellError(
            "all cells are one group; name two groups to compare, or a column such as the condition"
        )
    return Selection(OTHERS, first.file, rest)


def _tested(groups: list[np.ndarray]) -> dict[str, Any]:
    from scipy.stats import kruskal, mannwhitneyu

    if min(map(len, groups)) < 3 or len(np.unique(np.concatenate(groups))) < 2:
        return {"test": "", "p_value": None}
    if len(groups) == 2:
        found = mannwhitneyu(*groups)
        return {"test": "Mann-Whitney U test", "p_value": float(found.pvalue)}
    return {"test": "Kruskal-Wallis test", "p_value": float(kruskal(*groups).pvalue)}
