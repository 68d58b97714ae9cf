"""The checkpoint that ships: it answers on real cells, and its card tells of these weights."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest

from instructcell import tools
from instructcell.cells import read
from instructcell.checkpoint import Checkpoint, load_checkpoint
from instructcell.drugs import DrugSet
from instructcell.generation import begins_with_cells
from instructcell.resources import demo_path

ROOT = Path(__file__).resolve().parents[1]
LAB_NAMES = {  # of the demo's labels, as its study writes them
    "acinar": "pancreatic acinar cell",
    "activated_stellate": "activated pancreatic stellate cell",
    "alpha": "pancreatic A cell",
    "beta": "type B pancreatic cell",
    "delta": "pancreatic D cell",
    "ductal": "pancreatic ductal cell",
    "endothelial": "endothelial cell",
    "gamma": "pancreatic PP cell",
}


@pytest.fixture(scope="module")
def mini() -> Checkpoint:
    return load_checkpoint("mini")


def test_it_names_islet_cells_of_a_donor_it_never_saw(mini):
    adata = read(demo_path("islets"))
    written = adata.obs["cell_type"].astype(str)
    known = np.flatnonzero(written.isin(LAB_NAMES))
    chosen = np.sort(np.random.default_rng(0).choice(known, 60, replace=False))
    result = tools.annotate(adata[chosen].copy(), checkpoint=mini)
    right = result.table["best_guess"].to_numpy() == written.iloc[chosen].map(LAB_NAMES).to_numpy()
    assert right.mean() >= 0.9
    assert set(result.table["cell_type"]) <= {*mini.labels.names, tools.UNKNOWN}


def test_its_pseudo_cells_are_read_back_as_what_was_asked_for(mini):
    for cell_type in ("type B pancreatic cell", "B cell"):
        pseudo = tools.generate(cell_type=cell_type, n=12, seed=1, checkpoint=mini)
        back = tools.annotate(pseudo, checkpoint=mini).table["best_guess"]
        assert (back == cell_type).mean() >= 0.75
        again = tools.generate(cell_type=cell_type, n=12, seed=1, checkpoint=mini)
        assert (pseudo.X != again.X).nnz == 0


def test_it_predicts_a_response_for_each_of_its_drugs(mini):
    adata = read(demo_path("islets"))[:8].copy()
    assert len(mini.drugs) == len(DrugSet.default())
    for drug in mini.drugs:
        table = tools.drug_response(adata, drug=drug.name, checkpoint=mini).table
        assert table["p_sensitive"].between(0, 1).all()
        assert (table["response"] == np.where(table["p_sensitive"] >= 0.5, "sensitive", "resistant")).all()


def test_its_own_reading_tells_requests_for_pseudo_cells_from_names_of_genes(mini):
    def begins(text: str) -> bool:
        return begins_with_cells(mini.model, mini.processor, text)

    assert begins("endothelial cell, counts out")
    assert begins("roll me one plasma cell")
    assert not begins("which genes are markers of plasma cells?")


def test_the_evaluation_is_of_these_weights_and_stands_in_card_and_readme(mini):
    folder = Path(mini.path)
    evaluation = json.loads((folder / "evaluation.json").read_text())
    assert evaluation["checkpoint"] == mini.hash
    card, readme = (path.read_text() for path in (folder / "README.md", ROOT / "README.md"))
    for name in ("pancreas_baron_human_donor1", "pbmc_symphony_3tech"):
        figure = f"{evaluation['annotation'][name]['accuracy']['value']:.3f}"
        for text in (card, readme):
            rows = re.findall(rf"^\| {name} \|.*$", text, flags=re.MULTILINE)
            assert any(f"| {figure} [" in row for row in rows)
