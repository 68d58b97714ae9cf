"""Which cells are meant: the conditions of `Cells` turned into positions and a name to call them by."""

from __future__ import annotations

from collections.abc import Generator

import numpy as np
import pandas as pd

from instructcell import tools
from instructcell.checkpoint import Checkpoint
from instructcell.errors import InstructCellError
from instructcell.events import Progress
from instructcell.labels import load_ontology
from instructcell.retrieval.names import load_name_book
from instructcell.toolbox.arguments import EITHER, UNSURE, Cells
from instructcell.toolbox.core import Toolbox
from instructcell.workspace import DataFile, Selection

# How long-standing tools name the columns that hold clusters.
CLUSTER_COLUMNS = ("leiden", "louvain", "seurat_clusters", "cluster", "clusters", "kmeans", "phenograph")
OWN_CLUSTERS = "instructcell_cluster"

Condition = tuple[np.ndarray, str]  # which cells [N] meet it, and how they are called
Conditions = Generator[Progress, None, list[Condition]]


def chosen(box: Toolbox, cells: Cells) -> Generator[Progress, None, Selection]:
    """The cells that meet every condition; what a condition needs (types, clusters) is computed if it is not there.

    Raises
    ------
    InstructCellError
        A condition names what is not there, or no cell meets all of them.
    """
    kept = _kept(box, cells)
    file = box.workspace.require(cells.file or (kept.file if kept is not None else ""))
    conditions = [] if kept is None else [(mask_of(kept.rows, file.adata.n_obs), kept.name)]
    conditions += yield from _by_answers(box, file, cells)
    conditions += yield from _by_columns(box, file, cells)
    conditions += _by_place(file, cells, conditions)
    if not conditions:
        return Selection(file.name, file.name, np.arange(file.adata.n_obs))
    mask = np.logical_and.reduce([mask for mask, _ in conditions])
    name = " & ".join(dict.fromkeys(name for _, name in conditions))
    if cells.others:
        mask, name = ~mask, f"all but {name}"
    if not mask.any():
        raise InstructCellError(f"none of the {file.adata.n_obs:,} cells of {file.name} is in '{name}'; choose others")
    return Selection(name, file.name, np.flatnonzero(mask))


def mask_of(rows: np.ndarray, n: int) -> np.ndarray:
    """Positions [k] as a mask [n]."""
    mask = np.zeros(n, dtype=bool)
    mask[rows] = True
    return mask


def is_all(cells: Cells) -> bool:
    """Whether every cell of a file is meant."""
    return cells == Cells(file=cells.file)


def with_subtypes(checkpoint: Checkpoint, name: str) -> list[str]:
    """A label and the labels below it in the Cell Ontology; also of a type of the ontology that is no label."""
    label = checkpoint.labels.find(name)
    asked = label.id if label is not None else load_name_book().cell_type(name)
    called = name if label is None else label.name
    if not asked or (label is not None and label.name != load_ontology().name(asked) and _shares_id(checkpoint, asked)):
        return [called]
    below = [other.name for other in checkpoint.labels if other.id and load_ontology().is_a(other.id, asked)]
    return list(dict.fromkeys([called, *below]))


def clusters_of(box: Toolbox, file: DataFile) -> Generator[Progress, None, pd.Series]:
    """The clusters of a file: its own column, else the one computed here; computed now when there is none."""
    column = cluster_column(file.adata.obs)
    if column is None:
        yield from box.steps("cluster", file=file.name)
        column = OWN_CLUSTERS
    return file.adata.obs[column].astype(str)


def cluster_column(obs: pd.DataFrame) -> str | None:
    """The column that holds clusters: computed here, else one of a usual name, else None."""
    if OWN_CLUSTERS in obs:
        return OWN_CLUSTERS
    names = {str(name).lower(): str(name) for name in obs.columns}
    return next((names[name] for name in CLUSTER_COLUMNS if name in names), None)


def listed(names: list[str], word: str) -> str:
    """ "0, 1 and 2"."""
    return f" {word} ".join(part for part in (", ".join(names[:-1]), names[-1]) if part)


def _names_of(box: Toolbox, name: str) -> list[str]:
    return [tools.UNKNOWN] if name == tools.UNKNOWN else with_subtypes(box.checkpoint, name)


def _shares_id(checkpoint: Checkpoint, id: str) -> bool:
    """Whether several labels stand for one term, of which each is meant by its own name."""
    return sum(label.id == id for label in checkpoint.labels) > 1


def _kept(box: Toolbox, cells: Cells) -> Selection | None:
    """The kept selection that is named, if one is."""
    if not cells.selection:
        return None
    kept = box.workspace.state.selections.get(cells.selection)
    if kept is None:
        known = ", ".join(box.workspace.state.selections) or "none"
        raise InstructCellError(f"found no selection '{cells.selection}'; kept are: {known}")
    return kept


def _by_answers(box: Toolbox, file: DataFile, cells: Cells) -> Conditions:
    """Cells by what was found of them: type, confidence, response."""
    found: list[Condition] = []
    if cells.cell_type or cells.confidence_below is not None or cells.confidence_above is not None:
        if tools.CELL_TYPE not in box.workspace.written(file.name):
            yield from box.steps("annotate", cells=Cells(file=file.name))
        types = file.adata.obs[tools.CELL_TYPE].astype(str)
        sure = file.adata.obs[tools.CONFIDENCE].to_numpy(float)
        if cells.cell_type:
            each = [_names_of(box, name) for name in cells.cell_type.split(EITHER)]
            called = listed([names[0] for names in each], "or")
            found.append((types.isin([name for names in each for name in names]).to_numpy(), f"cells called {called}"))
        if cells.confidence_below is not None:
            usual = cells.confidence_below == UNSURE
            name = (
                f"the unsure cells (confidence below {UNSURE:g})"
                if usual
                else f"cells with a confidence below {cells.confidence_below:g}"
            )
            found.append((sure < cells.confidence_below, name))
        if cells.confidence_above is not None:
            usual = cells.confidence_above == UNSURE
            name = (
                f"the sure cells (confidence of at least {UNSURE:g})"
                if usual
                else f"cells with a confidence of at least {cells.confidence_above:g}"
            )
            found.append((sure >= cells.confidence_above, name))
    if cells.response:
        if tools.DRUG_RESPONSE not in box.workspace.written(file.name):
            raise InstructCellError(
                f"no response to a drug was predicted yet, so no cell is known to be {cells.response}; "
                f"ask for one first: {', '.join(box.drugs.names)}"
            )
        predicted = file.adata.obs[tools.DRUG_RESPONSE].astype(str)
        found.append(((predicted == cells.response).to_numpy(), f"the {cells.response} cells"))
    return found


def _by_columns(box: Toolbox, file: DataFile, cells: Cells) -> Conditions:
    """Cells by the file's own columns, by cluster, and by a gene they express."""
    found: list[Condition] = []
    obs = file.adata.obs
    if cells.cluster:
        clusters = yield from clusters_of(box, file)
        said = cells.cluster.split(EITHER)
        for one in said:
            _require_value(clusters, one, "cluster")
        called = f"cluster{'s' if len(said) > 1 else ''} {listed(said, 'and')}"
        found.append((clusters.isin(said).to_numpy(), called))
    if cells.column:
        if cells.column not in obs:
            raise InstructCellError(
                f"found no column '{cells.column}' in obs; there are: {', '.join(map(str, obs.columns))}"
            )
        values = obs[cells.column].astype(str)
        said = [cells.value] if (values == cells.value).any() else cells.value.split(EITHER)
        for one in said:
            _require_value(values, one, cells.column)
        found.append((values.isin(said).to_numpy(), f"{cells.column} {listed(said, 'or')}"))
    if cells.expresses:
        from instructcell.analysis import find_by_gene

        hit = find_by_gene(file.adata, cells.expresses, report=file.report)
        found.append((mask_of(np.asarray(hit.rows), len(obs)), f"cells that express {cells.expresses}"))
    return found


def _by_place(file: DataFile, cells: Cells, others: list[Condition]) -> list[Condition]:
    """Cells by position or name; "the first 20" counts among those that meet the other conditions."""
    n = file.adata.n_obs
    found: list[Condition] = []
    if cells.positions:
        rows = np.asarray(cells.positions)
        if rows.min() < 0 or rows.max() >= n:
            raise InstructCellError(
                f"found a position of {rows.max():,} (cell {rows.max() + 1:,}), expected 0 to {n - 1:,}: "
                f"the file has {n:,} cells"
            )
        found.append((mask_of(rows, n), _positions_called(np.unique(rows))))
    if cells.names:
        rows = np.flatnonzero(file.adata.obs_names.isin(cells.names))
        found.append(
            (mask_of(rows, n), f"cell {cells.names[0]}" if len(cells.names) == 1 else f"{len(rows):,} named cells")
        )
    among = np.arange(n)
    if others or found:
        among = np.flatnonzero(np.logical_and.reduce([mask for mask, _ in (*others, *found)]))
    if cells.first is not None:
        rows = among[: cells.first]
        found.append((mask_of(rows, n), f"the first {len(rows):,} cells" if len(rows) > 1 else "the first cell"))
    if cells.last is not None:
        rows = among[-cells.last :]
        found.append((mask_of(rows, n), f"the last {len(rows):,} cells" if len(rows) > 1 else "the last cell"))
    if cells.random is not None:
        rows = np.random.default_rng(0).choice(among, min(cells.random, len(among)), replace=False)
        found.append((mask_of(rows, n), f"{len(rows):,} random cells"))
    return found


def _positions_called(rows: np.ndarray) -> str:
    """Positions as people count, from 1."""
    if len(rows) == 1:
        return f"cell {rows[0] + 1:,}"
    if rows[-1] - rows[0] == len(rows) - 1:
        return f"cells {rows[0] + 1:,} to {rows[-1] + 1:,}"
    return f"{len(rows):,} chosen cells"


def _require_value(values: pd.Series, value: str, what: str) -> None:
    if not (values == value).any():
        listed = ", ".join(sorted(values.unique(), key=lambda text: (len(text), text))[:15])
        raise InstructCellError(f"found no {what} '{value}'; there are: {listed}")
