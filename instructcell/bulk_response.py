"""Drug response of any cells by the bulk-to-cell route: per cell, per group of cells, ranked over drugs, and compared.

What the cell-line screens taught (`instructcell.bulk`) is applied to single cells and to pooled cells. A prediction is
relative to the screened cell lines and is no statement about patients.
"""

from __future__ import annotations

from collections.abc import Generator, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import pandas as pd
import scipy.sparse as sp
from anndata import AnnData
from scipy.special import ndtr
from scipy.stats import false_discovery_control, mannwhitneyu

from instructcell.align import AlignedCells
from instructcell.batches import AS_FOUND, Reading, aligned_pieces
from instructcell.bulk import ROUTE, Screen, load_screen, percentile
from instructcell.bulk_drugs import LEAST_SPEARMAN, ScreenedDrug
from instructcell.checkpoint import Checkpoint
from instructcell.doctor import DatasetReport
from instructcell.errors import ConfigError, DrugError, GeneAlignmentError
from instructcell.prompts import DRUG_ANSWERS
from instructcell.tasks import DRUG_RESPONSE, P_SENSITIVE, Arrays, Task

SENSITIVITY, PERCENTILE = "instructcell_sensitivity", "instructcell_sensitivity_percentile"
CELLS_AT_ONCE = 512
MOST_CELLS = 2000  # of a group, drawn by seed
LEAST_CELLS = 5  # of a group
LEAST_COVERAGE = 0.05  # of the screens' genes
LOW_COVERAGE = 0.3  # below it the answer says so
INTERVAL = 0.9
WIDTH = 1.645  # standard deviations on either side that hold 90 %
LEAST_REPLICATES = 3  # on each side of a test on donors
ALL_CELLS = "all cells"
CAVEAT = (
    "Learned from cancer cell lines in culture: a percentile compares these cells with the lines, and is no statement "
    "about a patient."
)


@dataclass(frozen=True)
class BulkDrugResult:
    """Predicted sensitivity to one drug per cell.

    Attributes
    ----------
    drug
        The drug, with how well it was predicted on held-out lines.
    table
        One row per cell, indexed by its name: `sensitivity` (normal score over the lines; positive: more sensitive than
        the middle line), `low` and `high` (90 % interval), `percentile` of the lines that are less sensitive,
        `p_sensitive` (probability of more than the middle line), `response`.
    rows
        Positions of the cells in the AnnData.
    coverage
        Share of the screens' genes that the file measured.
    """

    drug: ScreenedDrug
    table: pd.DataFrame
    rows: np.ndarray
    report: DatasetReport
    coverage: float
    route: str = ROUTE

    @property
    def sensitive_share(self) -> float:
        """Share of the cells predicted to be more sensitive than the middle cell line."""
        return float((self.table["response"] == DRUG_ANSWERS[0]).mean())

    @property
    def mean_percentile(self) -> float:
        """Mean over the cells of the percentile among the lines."""
        return float(self.table["percentile"].mean())

    @property
    def notes(self) -> tuple[str, ...]:
        """What a reader must know: the route, how well the drug was predicted, and what limits the answer."""
        first = f"Route: {self.route}. {self.drug.name}: {self.drug.held_out_words}."
        return notes_of(self.report, self.coverage, first)


@dataclass(frozen=True)
class DrugRanking:
    """Drugs by predicted sensitivity, group by group.

    Attributes
    ----------
    table
        One row per group and drug, the most sensitive first: `group`, `cells`, `drug`, `target`, `sensitivity` of the
        pooled cells with `low` and `high` (90 % interval), `percentile`, `held_out_spearman`, `n_lines`.
    comparison
        One row per pair of groups and drug, the surest first: `group`, `against`, `drug`, `difference` (of mean
        sensitivity), `auc` (probability that one of `group` is the more sensitive), `p_value` (Mann-Whitney),
        `q_value` (Benjamini-Hochberg over the drugs of a pair), `n`, `n_against`. Empty with one group.
    unit
        What was compared: "cell", or the name of the column of replicates.
    left_out
        Names of screened drugs that were predicted too badly on held-out lines to be ranked.
    """

    table: pd.DataFrame
    comparison: pd.DataFrame
    unit: str
    left_out: tuple[str, ...]
    report: DatasetReport
    coverage: float
    route: str = ROUTE
    drugs: tuple[ScreenedDrug, ...] = field(default=(), repr=False)

    @property
    def groups(self) -> list[str]:
        """The groups in the order of the table."""
        return list(dict.fromkeys(self.table["group"]))

    def top(self, group: str | None = None, n: int = 10) -> pd.DataFrame:
        """The `n` drugs to which a group (the first, without one) is most sensitive."""
        wanted = self.groups[0] if group is None else group
        return self.table[self.table["group"] == wanted].head(n)

    @property
    def notes(self) -> tuple[str, ...]:
        """What a reader must know."""
        median = float(np.median([drug.spearman for drug in self.drugs]))
        left_out = f"; {len(self.left_out)} with less than {LEAST_SPEARMAN} were left out" if self.left_out else ""
        first = (
            f"Route: {self.route}. {len(self.drugs)} drugs, predicted on held-out cell lines with a median Spearman of "
            f"{median:.2f}{left_out}."
        )
        found = notes_of(self.report, self.coverage, first)
        if len(self.comparison) and self.unit == "cell":
            found += (
                "The test takes cells as independent. Cells of one sample are not: with several donors compare donors "
                "(replicate: their column).",
            )
        return found


def notes_of(report: DatasetReport, coverage: float, first: str) -> tuple[str, ...]:
    """The route, then what limits it on this file."""
    found: tuple[str, ...] = (first, CAVEAT)
    if report.species == "mouse":
        found += ("These are mouse cells, read through their human counterparts: the lines are human.",)
    if coverage < LOW_COVERAGE:
        found += (f"The file measured {coverage:.0%} of the genes that the prediction reads, so it is less sure.",)
    return found


class BulkResponse(Task[BulkDrugResult]):
    """How sensitive every cell is to one drug, relative to the screened cell lines.

    Raises
    ------
    DrugError
        The drug is not known, was predicted too badly on held-out lines, or resembles no screened drug.
    """

    command = "drug_response"
    obs = (DRUG_RESPONSE, P_SENSITIVE, SENSITIVITY, PERCENTILE)

    def __init__(
        self,
        loaded: Checkpoint,
        report: DatasetReport,
        *,
        drug: str,
        smiles: str = "",
        target: str = "",
        screen: Screen | None = None,
        force: bool = False,
    ) -> None:
        self.loaded, self.report, self.force = loaded, report, force
        self.screen = screen or load_screen()
        self.drug, self.weights = find_screened(self.screen, drug, smiles=smiles, target=target)
        self.what = f"response to {self.drug.name}"
        self.cells_at_once = CELLS_AT_ONCE
        self.coverage = 0.0
        self.arguments = {
            "drug": self.drug.name, "route": ROUTE, "smiles": smiles, "target": target,
            "held_out_spearman": self.drug.spearman,
        }  # fmt: skip

    @property
    def genes(self) -> Sequence[str]:
        return self.screen.genes

    def score(self, cells: AlignedCells) -> Arrays:
        self.coverage = checked_coverage(cells, force=self.force)
        scores = self.screen.scores(cells.counts, cells.measured)
        sensitivity = self.screen.sensitivity(scores) @ self.weights
        return {"sensitivity": sensitivity, "error": self.drug.residual * self.screen.widening(scores)}

    def result(self, arrays: Arrays, names: pd.Index, rows: np.ndarray) -> BulkDrugResult:
        table = sensitivity_columns(arrays["sensitivity"], arrays["error"])
        table["p_sensitive"] = ndtr(arrays["sensitivity"] / np.maximum(arrays["error"], 1e-6))
        table["response"] = np.where(table["p_sensitive"] >= 0.5, *DRUG_ANSWERS)
        coverage = self.coverage or self.report.with_genes(self.genes).coverage or 0.0  # resumed at the end
        return BulkDrugResult(self.drug, table.set_index(names), rows, self.report, coverage)

    def store(self, adata: AnnData, result: BulkDrugResult) -> None:
        table = result.table
        adata.obs[DRUG_RESPONSE] = pd.Categorical(table["response"], categories=list(DRUG_ANSWERS))
        for column, name in ((P_SENSITIVE, "p_sensitive"), (SENSITIVITY, "sensitivity"), (PERCENTILE, "percentile")):
            adata.obs[column] = table[name].to_numpy(np.float32)


def find_screened(screen: Screen, name: str, *, smiles: str = "", target: str = "") -> tuple[ScreenedDrug, np.ndarray]:
    """A drug and what each screened drug counts in its prediction [D]: itself, or those that a new one resembles.

    Raises
    ------
    DrugError
        The name is not known and neither structure nor target is given, or the drug cannot be predicted.
    """
    position = screen.drugs.find(name)
    if position is None and (smiles or target):
        drug, weights = screen.new_drug(name, smiles=smiles, target=target)
    else:
        position = screen.drugs.get(name) if position is None else position
        drug, weights = screen.drugs[position], np.eye(len(screen.drugs), dtype=np.float32)[position]
    if not drug.reliable:
        raise DrugError(
            f"{drug.name} cannot be answered from expression: {drug.held_out_words}, and at least {LEAST_SPEARMAN} is "
            "asked for. Ask for another drug of the same target, or rank all drugs."
        )
    return drug, weights


def checked_coverage(cells: AlignedCells, *, force: bool) -> float:
    """Share of the screens' genes that the file measured; a GeneAlignmentError when it is far too small."""
    if cells.coverage < LEAST_COVERAGE and not force:
        raise GeneAlignmentError(
            f"found {cells.n_shared:,} of the {len(cells.measured):,} genes that drug sensitivity is read from "
            f"({cells.coverage:.0%}), expected at least {LEAST_COVERAGE:.0%}; bring the file with all its genes, or go "
            "on with --few-genes-ok."
        )
    return cells.coverage


def sensitivity_columns(sensitivity: np.ndarray, error: np.ndarray) -> pd.DataFrame:
    """Sensitivity with its 90 % interval and its percentile among the lines."""
    return pd.DataFrame(
        {
            "sensitivity": sensitivity,
            "low": sensitivity - WIDTH * error,
            "high": sensitivity + WIDTH * error,
            "percentile": percentile(sensitivity),
        }
    )


# ---- ranking and comparing


@dataclass(frozen=True)
class Groups:
    """The groups that are ranked: their names, the rows of their cells, and the replicate of each row ("" without)."""

    names: tuple[str, ...]
    rows: tuple[np.ndarray, ...]
    replicates: tuple[np.ndarray, ...]
    sizes: tuple[int, ...]
    unit: str = "cell"

    @classmethod
    def of(
        cls,
        adata: AnnData,
        groupby: str | None = None,
        compare: Sequence[str] | None = None,
        replicate: str | None = None,
        rows: np.ndarray | None = None,
        seed: int = 0,
    ) -> Groups:
        """Groups of a file's cells, each of at most 2,000 cells drawn by the seed.

        Raises
        ------
        ConfigError
            A column or group is not in the file, a group has too few cells, or `compare` comes without `groupby`.
        """
        chosen = np.arange(adata.n_obs) if rows is None else np.asarray(rows)
        labels = _column(adata, groupby)[chosen] if groupby else np.full(len(chosen), ALL_CELLS, dtype=object)
        if compare is not None and groupby is None:
            raise ConfigError("found groups to compare but no column that holds them; name it with groupby.")
        known = [str(name) for name in pd.unique(pd.Series(labels).dropna())]
        wanted = sorted(known) if compare is None else [str(name) for name in compare]
        missing = [name for name in wanted if name not in known]
        if missing:
            raise ConfigError(f"found no cells with {groupby} {', '.join(missing)}; it has {', '.join(sorted(known))}.")
        members = {name: chosen[labels == name] for name in wanted}
        if compare is None and len(wanted) > 1:
            members = {name: found for name, found in members.items() if len(found) >= LEAST_CELLS}
        if not members:
            raise ConfigError(f"no group of '{groupby}' has {LEAST_CELLS} cells; choose a coarser column.")
        return cls.named(adata, members, replicate, seed)

    @classmethod
    def named(
        cls, adata: AnnData, members: Mapping[str, np.ndarray], replicate: str | None = None, seed: int = 0
    ) -> Groups:
        """Groups from the positions of their cells, each of at most 2,000 cells drawn by the seed.

        Raises
        ------
        ConfigError
            A group has too few cells, or the column of replicates is not in the file.
        """
        rng, units = np.random.default_rng(seed), _column(adata, replicate) if replicate else None
        picked = []
        for name, rows in members.items():
            if len(rows) < LEAST_CELLS:
                raise ConfigError(f"found {len(rows)} cells of '{name}', expected at least {LEAST_CELLS}.")
            drawn = rng.choice(rows, MOST_CELLS, replace=False) if len(rows) > MOST_CELLS else rows
            picked.append(np.sort(drawn))
        of_units = tuple(np.full(len(r), "", object) if units is None else units[r] for r in picked)
        return cls(tuple(members), tuple(picked), of_units, tuple(map(len, members.values())), replicate or "cell")


def _column(adata: AnnData, name: str) -> np.ndarray:
    """A column of obs as text; a ConfigError that lists the columns if there is none."""
    if name not in adata.obs:
        columns = ", ".join(map(str, adata.obs.columns)) or "none"
        raise ConfigError(f"found no column '{name}' in obs; it has {columns}.")
    return adata.obs[name].astype(str).to_numpy(dtype=object)


def rank_steps(
    adata: AnnData,
    groups: Groups,
    report: DatasetReport,
    *,
    reading: Reading = AS_FOUND,
    screen: Screen | None = None,
    drugs: Sequence[str] | None = None,
) -> Generator[tuple[int, int], None, DrugRanking]:
    """Rank the drugs for every group, yielding (done, total) cells.

    Raises
    ------
    DrugError
        One of `drugs` is not known or was predicted too badly.
    GeneAlignmentError
        The file measured too few of the genes.
    """
    screen = screen or load_screen()
    positions = _ranked(screen, drugs)
    total, done = sum(map(len, groups.rows)), 0
    pooled, single, coverage = [], [], 0.0
    for rows in groups.rows:
        profile, parts = np.zeros(len(screen.genes)), []
        for cells in aligned_pieces(adata, screen.genes, report, rows, at_once=CELLS_AT_ONCE, reading=reading):
            coverage = checked_coverage(cells, force=reading.force)
            profile += to_same_depth(cells.counts).sum(axis=0).A1
            parts.append(screen.sensitivity(screen.scores(cells.counts, cells.measured))[:, positions])
            measured = cells.measured
            done += cells.counts.shape[0]
            yield done, total
        pooled.append(screen.scores(profile[None], measured)[0])
        single.append(np.concatenate(parts))
    return DrugRanking(
        table=_ranking(screen, groups, np.stack(pooled), positions),
        comparison=_comparisons(screen, groups, single, positions),
        unit=groups.unit,
        left_out=tuple(drug.name for drug in screen.drugs if not drug.reliable),
        report=report,
        coverage=coverage,
        drugs=tuple(screen.drugs[i] for i in positions),
    )


def to_same_depth(counts: sp.csr_matrix) -> sp.csr_matrix:
    """Every cell scaled to 10,000 counts, so that deep cells do not speak for a group."""
    totals = np.asarray(counts.sum(axis=1)).ravel()
    return sp.diags(1e4 / np.maximum(totals, 1e-9)) @ counts


def _ranked(screen: Screen, drugs: Sequence[str] | None) -> np.ndarray:
    """Positions of the drugs to rank."""
    if drugs is None:
        return np.array([i for i, drug in enumerate(screen.drugs) if drug.reliable])
    return np.array([screen.drugs.find(find_screened(screen, name)[0].name) for name in drugs])


def _ranking(screen: Screen, groups: Groups, scores: np.ndarray, positions: np.ndarray) -> pd.DataFrame:
    drugs = [screen.drugs[i] for i in positions]
    sensitivity = screen.sensitivity(scores)[:, positions]  # [groups, drugs]
    error = np.array([drug.residual for drug in drugs]) * screen.widening(scores)[:, None]
    tables = []
    for i, name in enumerate(groups.names):
        first = pd.DataFrame({"drug": [drug.name for drug in drugs], "target": [drug.target for drug in drugs]})
        first.insert(0, "group", name)
        first.insert(1, "cells", groups.sizes[i])
        table = pd.concat([first, sensitivity_columns(sensitivity[i], error[i])], axis=1)
        table["held_out_spearman"] = [drug.spearman for drug in drugs]
        table["n_lines"] = [drug.n_lines for drug in drugs]
        tables.append(table.sort_values("sensitivity", ascending=False, kind="stable"))
    return pd.concat(tables, ignore_index=True)


def _comparisons(screen: Screen, groups: Groups, single: list[np.ndarray], positions: np.ndarray) -> pd.DataFrame:
    """Two groups against one another; of more, each against all others."""
    columns = ["group", "against", "drug", "difference", "auc", "p_value", "q_value", "n", "n_against"]
    names = [screen.drugs[i].name for i in positions]
    everyone = range(len(single))
    pairs = [(0, [1])] if len(single) == 2 else [(i, [j for j in everyone if j != i]) for i in everyone]
    tables = []
    for one, others in pairs:
        if not others:
            continue
        left = by_unit(single[one], groups.replicates[one], groups.unit)
        replicates = np.concatenate([groups.replicates[j] for j in others])
        right = by_unit(np.concatenate([single[j] for j in others]), replicates, groups.unit)
        against = groups.names[others[0]] if len(others) == 1 else "the other groups"
        tables.append(compared(left, right, names).assign(group=groups.names[one], against=against)[columns])
    return pd.concat(tables, ignore_index=True) if tables else pd.DataFrame(columns=columns)


def by_unit(values: np.ndarray, replicates: np.ndarray, unit: str) -> np.ndarray:
    """Values of cells [n, D] as they are, or their means per replicate [units, D].

    Raises
    ------
    ConfigError
        A side has too few replicates for a test.
    """
    if unit == "cell":
        return values
    names = pd.unique(pd.Series(replicates))
    if len(names) < LEAST_REPLICATES:
        raise ConfigError(
            f"found {len(names)} '{unit}' on one side of the comparison, expected at least {LEAST_REPLICATES}; compare "
            "cells instead (leave the replicates out)."
        )
    return np.stack([values[replicates == name].mean(axis=0) for name in names])


def compared(left: np.ndarray, right: np.ndarray, drugs: Sequence[str]) -> pd.DataFrame:
    """Mann-Whitney test of every drug between two sides, [n, D] and [m, D], with Benjamini-Hochberg over the drugs."""
    test = mannwhitneyu(left, right, axis=0)
    p_value = np.nan_to_num(test.pvalue, nan=1.0)
    table = pd.DataFrame(
        {
            "drug": list(drugs),
            "difference": left.mean(axis=0) - right.mean(axis=0),
            "auc": test.statistic / (len(left) * len(right)),
            "p_value": p_value,
            "q_value": false_discovery_control(p_value),
            "n": len(left),
            "n_against": len(right),
        }
    )
    order = np.lexsort((-np.abs(table["difference"]), table["q_value"]))  # a tiny p-value may be 0 for many
    return table.iloc[order].reset_index(drop=True)


__all__ = ["INTERVAL", "BulkDrugResult", "BulkResponse", "DrugRanking", "Groups", "find_screened", "rank_steps"]
