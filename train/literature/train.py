"""One recipe from start to end: cells, training, held-out figures; what `instructcell train emcell` runs."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from instructcell.errors import ConfigError
from instructcell.literature.neighbours import require_two_classes
from train.literature import protocol
from train.literature.cells import load_split
from train.literature.recipe import LiteratureRecipe, to_record
from train.literature.systems import SYSTEMS, System
from train.recipe import load_recipe


def run_recipe(
    recipe: LiteratureRecipe,
    data: Path,
    runs: Path,
    *,
    folder: Path | None = None,
    small: bool = False,
    say: Callable[[str], None] = print,
) -> dict[str, Any]:
    """Train a system and measure it on the held-out cells of its recipe.

    Parameters
    ----------
    folder
        Of what is trained; by default that of the recipe's name in `runs`, which also keeps what recipes share.

    Returns
    -------
    dict
        The figures, which are also written to `metrics.json` beside what was trained.

    Raises
    ------
    LabelError
        Training or test cells have one type only.
    """
    entries = recipe.data or load_recipe("mini").data[1:3]
    known, unseen = load_split(entries, data, recipe.label, recipe.seed)
    seen = np.isin(unseen.labels, np.unique(known.labels))
    if not seen.any():
        raise ConfigError(f"{recipe.output}: no held-out cell has a type of the training cells; hold out other groups")
    unseen = unseen[np.flatnonzero(seen)]
    require_two_classes(unseen.labels, "the held-out cells")
    settings = recipe.chosen(small=small)
    folder = folder or runs / recipe.output
    system: System = SYSTEMS[recipe.system](settings, folder, runs, recipe.seed)
    say(f"{recipe.system}: {len(known):,} training and {len(unseen):,} held-out cells over {len(known.genes):,} genes")
    system.fit(known)
    result = {
        "system": recipe.system,
        "settings": to_record(settings),
        "training_cells": len(known),
        "test_cells": len(unseen),
        "left_out": int((~seen).sum()),
        **protocol.measure(unseen.labels, system.predict(unseen)),
    }
    if int(os.environ.get("RANK", "0")) == 0:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "metrics.json").write_text(json.dumps(result, indent=1), encoding="utf-8")
    say(", ".join(f"{name} {result[name]:.3f}" for name in protocol.FIGURES))
    return result
