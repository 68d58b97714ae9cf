"""Who is tested, and proof that training saw none of them.

A test cell is refused when its group (donor, batch, study, technology or species, as the task claims) also holds cells
that the checkpoint's recipe or a baseline trains on, or when the very same expression does.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping

import numpy as np
import pandas as pd
from scipy import sparse

from instructcell.errors import ConfigError
from instructcell.labels import LabelSet
from train.build import label_set
from train.datasets import LabelledCells
from train.evaluation.tasks import SPLITS, Target

WITHIN_STUDY = ("donor", "batch")  # an id such as "1" means something only within its study


def tested_rows(obs: pd.DataFrame, cells: LabelledCells, target: Target) -> np.ndarray:
    """Rows of the cells that a target tests: the groups it names, or what the recipe holds out.

    Raises
    ------
    ConfigError
        A column or group that the target names is not in the file.
    """
    if not target.test:
        return np.flatnonzero(cells.held_out)
    chosen = np.zeros(len(obs), bool)
    for column, groups in target.test.items():
        values = _column(obs, column, target.file)
        missing = sorted(set(map(str, groups)) - set(values))
        if missing:
            raise ConfigError(f"{target.file}: {column} has no group {missing}; it has {sorted(set(values))}")
        chosen |= np.isin(values, list(map(str, groups)))
    return np.flatnonzero(chosen)


def refuse_leaks(
    target: Target, rows: np.ndarray, datasets: Mapping[str, LabelledCells], obs: Mapping[str, pd.DataFrame]
) -> None:
    """Stop when a group of the test cells, or one of the cells themselves, is trained on.

    Parameters
    ----------
    rows
        Of the test cells in the target's file.
    datasets, obs
        Of every file of the recipe.

    Raises
    ------
    ConfigError
        Something leaks; the message names the group, the file and the number of cells.
    """
    if target.split != "cell":
        tested = set(group_keys(obs[target.file], target, target.file)[rows])
        for name, cells in datasets.items():
            known = cells.training_rows
            if not len(known):
                continue
            trained = group_keys(obs[name], target, name)[known]
            if target.split in WITHIN_STUDY and _same_study(obs, target.file, name) and "" in trained:
                raise ConfigError(
                    f"{target.file}: cannot tell whether a {target.split} of the test stands in training, because "
                    f"{name} is of the same study and has no column {target.group_column!r}"
                )
            shared = sorted(tested & set(trained) - {""})
            if shared:
                n_leaked = int(np.isin(trained, shared).sum())
                raise ConfigError(
                    f"{target.file}: the test is said to hold out by {target.split}, but {', '.join(shared)} also has "
                    f"{n_leaked} training cells in {name}. Test other groups, or hold these out of the training."
                )
    _refuse_copies(target.file, rows, datasets)


def group_keys(obs: pd.DataFrame, target: Target, file: str) -> np.ndarray:
    """The group of every cell of a file [N], "" where the file does not say; donors and batches carry their study."""
    own = file == target.file
    if own and target.constant:
        values = np.full(len(obs), target.constant, dtype=object)
    else:
        column = target.group_column
        if own or column in obs:
            values = _column(obs, column, file).astype(object)
        else:
            values = np.full(len(obs), "", dtype=object)
    if target.split in WITHIN_STUDY:
        studies = obs["study"].astype(str).to_numpy() if "study" in obs else np.full(len(obs), file)
        values = np.array([f"{study}/{value}" if value else "" for study, value in zip(studies, values, strict=True)])
    return values.astype(str)


def _same_study(obs: Mapping[str, pd.DataFrame], one: str, other: str) -> bool:
    if one == other:
        return True
    if "study" not in obs[one] or "study" not in obs[other]:
        return False
    return bool(set(obs[one]["study"].astype(str)) & set(obs[other]["study"].astype(str)))


def _refuse_copies(file: str, rows: np.ndarray, datasets: Mapping[str, LabelledCells]) -> None:
    tested = set(fingerprints(datasets[file].counts, rows))
    for name, cells in datasets.items():
        copies = tested & set(fingerprints(cells.counts, cells.training_rows))
        if copies:
            raise ConfigError(
                f"{file}: {len(copies)} test cells have the very expression of training cells of {name}; "
                "hold these out of the training, or test others"
            )


def fingerprints(counts: sparse.csr_matrix, rows: np.ndarray) -> list[bytes]:
    """A hash of each chosen cell's expression; cells with hardly any are left out, as they may agree by chance."""
    found = []
    for row in rows:
        start, end = counts.indptr[row : row + 2]
        if end - start >= 20:
            content = counts.indices[start:end].tobytes() + counts.data[start:end].tobytes()
            found.append(hashlib.blake2b(content, digest_size=16).digest())
    return found


def refuse_another_recipe(labels: LabelSet, datasets: Mapping[str, LabelledCells]) -> None:
    """Stop when the checkpoint was not trained on the recipe's training cells: its test cells may be trained on.

    Raises
    ------
    ConfigError
        The number of training cells of a label differs.
    """
    said = {label.name: label.n_training_cells for label in labels}
    found = {label.name: label.n_training_cells for label in label_set(list(datasets.values()))}
    differing = sorted(name for name in said.keys() | found.keys() if said.get(name) != found.get(name))
    if differing:
        name = differing[0]
        raise ConfigError(
            f"the checkpoint was not trained with this recipe: it learned '{name}' from {said.get(name, 0)} cells, the "
            f"recipe has {found.get(name, 0)} ({len(differing)} labels differ). Name its own recipe with --recipe, or "
            "train it anew; otherwise cells that it was trained on may be tested."
        )


def describe(target: Target) -> str:
    """What was held out, in words."""
    words = {"cell": "other cells of the same samples", "technology": "an unseen technology"}
    column = target.group_column
    name = column if column not in ("", SPLITS[target.split]) else target.split
    return words.get(target.split, f"an unseen {name}")


def _column(obs: pd.DataFrame, column: str, file: str) -> np.ndarray:
    if column not in obs:
        raise ConfigError(f"{file}: no column {column!r} to split by; obs has {', '.join(map(str, obs.columns))}")
    return obs[column].astype(str).to_numpy()
