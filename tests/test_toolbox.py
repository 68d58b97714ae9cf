"""The toolbox and its workspace: typed arguments, plain facts, steps that can be taken back and repeated."""

from __future__ import annotations

import json
import math
import runpy
import sys

import anndata as ad
import numpy as np
import pandas as pd
import pytest

from instructcell.checkpoint import load_checkpoint
from instructcell.errors import InstructCellError
from instructcell.events import Progress
from instructcell.output import safe_cells
from instructcell.toolbox import TOOLS, Toolbox
from instructcell.toolbox.script import script_of
from instructcell.workspace import unique_name

ANSWERS = ["instructcell_cell_type", "instructcell_cell_type_id", "instructcell_confidence"]


@pytest.fixture(scope="module")
def checkpoint(tiny_checkpoint):
    return load_checkpoint(tiny_checkpoint)


@pytest.fixture
def adata(synthetic_adata):
    cells = synthetic_adata.copy()
    cells.obs["leiden"] = pd.Categorical([str(i % 3) for i in range(cells.n_obs)])
    cells.obs["condition"] = ["stim" if i % 2 else "ctrl" for i in range(cells.n_obs)]
    return cells


@pytest.fixture
def box(adata, checkpoint, tiny_screen):
    toolbox = Toolbox(checkpoint=checkpoint)
    toolbox.open(adata, "cells")
    return toolbox


def numbers_are_plain(value) -> bool:
    if isinstance(value, dict):
        return all(map(numbers_are_plain, value.values()))
    if isinstance(value, list):
        return all(map(numbers_are_plain, value))
    return value is None or type(value) in (bool, int, str) or (type(value) is float and not math.isnan(value))


def test_every_tool_has_a_schema_that_json_can_hold(box):
    schemas = list(box.schemas())
    assert {schema["name"] for schema in schemas} == set(TOOLS)
    assert all(schema["description"].endswith(".") for schema in schemas)
    json.dumps(schemas)


@pytest.mark.parametrize(
    ("name", "arguments"),
    [
        ("describe", {}),
        ("annotate", {}),
        ("annotate", {"cells": {"first": 3}}),
        ("count_cells", {"cell_type": "B cell"}),
        ("select", {"cells": {"cluster": "1"}}),
        ("drug_response", {"drug": "gefitinib"}),
        ("rank_drugs", {"cells": {"random": 6}}),
        ("drug_response", {"drug": "Islettinib", "cells": {"first": 9}}),
        ("rank_drugs", {"by": "condition"}),
        ("compare_drug", {"drug": "gefitinib", "by": "condition"}),
        ("markers", {"cell_type": "delta cell"}),
        ("knowledge", {"question": "What does GCG do?"}),
        ("embed", {}),
        ("help", {}),
    ],
)
def test_facts_are_plain_and_say_whose_cells(box, name, arguments):
    result = box.run(name, **arguments)
    assert numbers_are_plain(dict(result.facts))
    json.dumps(result.facts)
    assert result.tool == name
    if "cells" in TOOLS[name].arguments.model_fields:
        assert result.facts["n_cells"] > 0


def test_results_have_ids_that_are_never_used_twice(box):
    first = box.run("annotate")
    assert box.workspace.result(first.id) is first
    box.run("undo")
    assert box.run("annotate").id != first.id
    with pytest.raises(InstructCellError, match="no result"):
        box.workspace.result(first.id)


@pytest.mark.parametrize(
    ("arguments", "rows"),
    [
        ({}, None),
        ({"first": 3}, [0, 1, 2]),
        ({"last": 2}, [-2, -1]),
        ({"positions": [4, 1]}, [1, 4]),
        ({"cluster": "2", "first": 2}, [2, 5]),
        ({"column": "condition", "value": "stim", "first": 2}, [1, 3]),
        ({"first": 3, "others": True}, list(range(3, 10))),
    ],
)
def test_conditions_are_joined(box, adata, arguments, rows):
    chosen = box.run("select", cells=arguments).selection.rows.tolist()
    n = adata.n_obs
    assert chosen[:7] == (list(range(n)) if rows is None else [row % n for row in rows])[:7]


def test_a_selection_is_kept_under_its_name(box):
    box.run("select", cells={"cluster": "1"}, name="mine")
    assert box.workspace.selected.name == "mine"
    few = box.run("select", cells={"selection": "mine", "first": 2})
    assert few.selection.rows.tolist() == [1, 4]
    mine = box.workspace.state.selections["mine"]
    assert box.run("annotate", cells={"selection": "mine"}).facts["n_cells"] == len(mine)


@pytest.mark.parametrize(
    ("name", "arguments", "words"),
    [
        ("fly", {}, "there is no tool 'fly'"),
        ("annotate", {"cell": 3}, "annotate cannot use 'cell'"),
        ("generate", {"cell_type": "B cell", "n": 0}, "'n'"),
        ("select", {"cells": {"cluster": "77"}}, "there are: 0, 1, 2"),
        ("select", {"cells": {"column": "nothing", "value": "x"}}, "no column 'nothing'"),
        ("select", {"cells": {"positions": [10**6]}}, "expected 0 to"),
        ("select", {"cells": {"selection": "gone"}}, "no selection 'gone'"),
        ("describe", {"file": "other"}, "no file 'other'"),
        ("select", {"cells": {"response": "resistant"}}, "no response to a drug"),
        ("compare_with_real", {}, "no pseudo-cells"),
        ("export", {}, "nothing to hand out"),
    ],
)
def test_what_cannot_be_used_is_one_clear_error(box, name, arguments, words):
    with pytest.raises(InstructCellError, match=words):
        box.run(name, **arguments)


def test_a_tool_that_needs_cells_says_so(checkpoint):
    with pytest.raises(InstructCellError, match="No cells are loaded"):
        Toolbox(checkpoint=checkpoint).run("annotate")


def test_long_work_is_reported(box, adata):
    steps = list(box.steps("annotate"))
    assert steps[-1] == Progress(adata.n_obs, adata.n_obs, "annotating cells")


# ---- the way back


def test_undo_takes_one_step_back_and_leaves_no_trace(box, adata):
    before = adata.obs.copy()
    box.run("annotate")
    types = adata.obs["instructcell_cell_type"].astype(str).tolist()
    box.run("annotate", cells={"first": 2}, labels=["B cell"])
    assert set(adata.obs["instructcell_cell_type"].iloc[:2].astype(str)) <= {"B cell", "unknown"}
    assert box.run("undo").facts["undone"] == "annotate"
    assert adata.obs["instructcell_cell_type"].astype(str).tolist() == types
    box.run("undo")
    pd.testing.assert_frame_equal(adata.obs, before)
    assert "X_instructcell" not in adata.obsm and "instructcell" not in adata.uns
    assert box.run("undo").facts["undone"] == ""


def test_questions_are_no_steps(box):
    box.run("select", cells={"first": 2})
    box.run("describe")
    box.run("markers", cell_type="delta cell")
    assert box.workspace.undoable == ("select",)


def test_steps_inside_a_step_are_taken_back_together(box, adata):
    with box.workspace.step("both", mark=7):
        box.run("annotate")
        box.run("select", cells={"first": 2})
    assert box.workspace.undoable == ("both",)
    assert box.workspace.undo().mark == 7
    assert box.workspace.selected is None and not set(ANSWERS) & set(adata.obs)


def test_a_snapshot_holds_references_not_copies(box, adata):
    depth = adata.obsm["X_own"] = np.zeros((adata.n_obs, 2))
    with box.workspace.step("one"):
        box.run("annotate")
    before = box.workspace._past[-1].columns["cells"]
    assert before.obsm["X_own"] is depth
    assert np.shares_memory(before.obs["leiden"].cat.codes.to_numpy(), adata.obs["leiden"].cat.codes.to_numpy())


def test_starting_again_leaves_the_files_as_they_came(box, adata):
    before = adata.obs.copy()
    box.run("annotate")
    box.run("drug_response", drug="gefitinib")
    box.run("restart")
    pd.testing.assert_frame_equal(adata.obs, before)
    assert list(box.workspace.files) == ["cells"] and box.workspace.state.results == ()
    assert box.workspace.undoable == ()


# ---- several files


def test_files_have_names_and_one_is_talked_about(box, adata):
    second = box.open(adata[:20].copy(), "cells")
    assert second.name == "cells (2)"
    assert box.run("describe").facts["n_cells"] == 20
    assert box.run("use_file", file="cells").facts["n_cells"] == adata.n_obs
    box.run("annotate", cells={"file": "cells (2)"})
    assert "instructcell_cell_type" not in adata.obs
    box.workspace.remove("cells (2)")
    assert list(box.workspace.files) == ["cells"] and box.workspace.file.name == "cells"


def test_each_file_keeps_its_own_selection_and_undo_reaches_back_over_an_upload(box, adata):
    first = box.workspace.state.current
    box.run("select", cells={"first": 4})
    box.run("annotate")
    box.open(adata[:20].copy(), "second")
    assert box.workspace.selected is None
    box.run("select", cells={"first": 4})
    assert box.workspace.selected.name == "the first 4 cells of second"
    box.run("use_file", file=first)
    assert box.workspace.selected.name == "the first 4 cells" and box.workspace.selected.file == first
    box.run("use_file", file="second")
    assert box.workspace.selected.file == "second"
    labels = []
    while box.workspace.undoable:
        labels.append(box.run("undo").facts["undone"])
    assert labels == ["use_file", "use_file", "select", "annotate", "select"]
    assert list(box.workspace.files) == [first, "second"] and box.workspace.state.current == first
    assert not set(ANSWERS) & set(adata.obs)


def test_a_closed_file_takes_its_results_along_and_no_others(box, adata):
    first = box.workspace.state.current
    box.run("annotate")
    box.open(adata[:20].copy(), "second")
    box.run("annotate")
    closed = box.run("close_file", file="second")
    assert closed.facts["files"] == [first] == [closed.facts["file"]]
    assert {result.file for result in box.workspace.state.results} == {first}
    assert box.workspace.undoable == ("annotate",)
    box.run("undo")
    assert not set(ANSWERS) & set(adata.obs) and list(box.workspace.files) == [first]
    box.run("close_file", file=first)
    with pytest.raises(InstructCellError, match="No cells are loaded"):
        box.run("describe")


def test_no_more_files_are_held_than_there_is_room_for(box, adata, monkeypatch):
    from instructcell import workspace

    with monkeypatch.context() as few:
        few.setattr(workspace, "MOST_FILES", 1)
        with pytest.raises(InstructCellError, match="1 files are loaded.*close one first"):
            box.open(adata.copy(), "second")
    monkeypatch.setattr(workspace, "MOST_BYTES", box.workspace.file.n_bytes + 1)
    with pytest.raises(InstructCellError, match="GB of memory beside"):
        box.open(adata.copy(), "second")
    box.open(adata.copy(), box.workspace.state.current, replace_file=True)  # makes room itself
    assert len(box.workspace.files) == 1


def test_a_script_opens_and_switches_files_as_the_session_did(box, adata):
    first = box.workspace.state.current
    box.run("annotate")
    box.open(adata[:20].copy(), "second")
    box.open(adata[:10].copy(), "third")
    box.run("undo")
    box.run("quality")
    box.run("use_file", file="third")
    box.run("close_file", file="third")
    again = {}
    current = ""
    for step in box.workspace.state.steps:
        current = step.arguments["name"] if step.tool == "open" else step.arguments.get("file", current)
        again[step.tool] = current
    assert again["quality"] == first and current == box.workspace.state.current == "second"
    assert "third" not in str(box.workspace.state.steps)


def test_a_name_is_made_unique():
    assert unique_name("a.h5ad", {}) == "a.h5ad"
    assert unique_name("a.h5ad", {"a.h5ad": 1, "a (2).h5ad": 1}) == "a (3).h5ad"


# ---- handing out


def test_the_script_repeats_what_was_not_taken_back(box, adata, tmp_path, monkeypatch):
    fresh = adata.copy()
    fresh.write_h5ad(tmp_path / "cells.h5ad")
    box.run("annotate")
    box.run("annotate", cells={"cluster": "1"}, labels=["B cell", "natural killer cell"])
    box.run("drug_response", drug="gefitinib")
    box.run("undo")
    box.run("select", cells={"first": 4})
    box.run("drug_response", drug="gefitinib", cells={"selection": "the first 4 cells"})
    script = script_of(box.workspace, box.checkpoint)
    assert script.count("drug_response") == 1
    (tmp_path / "again.py").write_text(script)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["again.py", "cells.h5ad"])
    runpy.run_path("again.py", run_name="__main__")
    (path,) = box.run("export", what="annotated").payload
    ours, theirs = ad.read_h5ad(path), ad.read_h5ad(tmp_path / "cells_instructcell.h5ad")
    pd.testing.assert_frame_equal(ours.obs, theirs.obs)
    assert (ours.X != theirs.X).sum() == 0
    assert np.array_equal(ours.obsm["X_instructcell"], theirs.obsm["X_instructcell"])


def test_export_writes_files_whose_names_stay_in_the_folder(adata, checkpoint, tmp_path):
    box = Toolbox(checkpoint=checkpoint, folder=tmp_path)
    box.open(adata, "../../evil/../name.h5ad")
    box.run("annotate")
    box.run("generate", cell_type=box.able[0], n=3)
    result = box.run("export")
    assert all(path.is_relative_to(tmp_path) and path.is_file() for path in result.payload)
    assert {"pseudo_cells.h5ad", "repeat_these_steps.py"} <= set(result.facts["files"])
    assert any(name.endswith("_instructcell.h5ad") for name in result.facts["files"])


def test_no_cell_of_an_exported_table_is_a_formula(box, adata, tmp_path):
    adata.obs["note"] = pd.Categorical(["=HYPERLINK(1)", "-3", "fine"] * (adata.n_obs // 3))
    box.run("select", cells={"first": 6})
    text = "".join(path.read_text() for path in box.run("export", what="tables").payload)
    assert "'=HYPERLINK(1)" in text and "'-3" in text and ",=" not in text
    table = safe_cells(pd.DataFrame({"=a": ["@x", "y", None], "n": [-1.5, 2, 3]}))
    assert list(table) == ["'=a", "n"] and list(table["n"]) == [-1.5, 2, 3] and table["'=a"][0] == "'@x"
    assert table["'=a"].isna().sum() == 1


def test_figures_are_one_page_with_plotly_inside(box):
    box.run("annotate")
    (path,) = box.run("export", what="figures").payload
    page = path.read_text()
    assert page.count("Plotly.newPlot(") == 2 and page.count("<script>/**") == 1
    assert 'src="http' not in page and "composition (r1)" in page
    assert page.count('"modeBarButtonsToRemove": ["sendChartToCloud"') == 2, "a button that uploads the figure"
    with pytest.raises(InstructCellError, match="nothing to hand out"):
        box.run("export", what="conversation")


# ---- drugs by either route


def test_a_screened_drug_is_answered_by_the_bulk_route_with_how_well_it_was_predicted(box, adata):
    result = box.run("drug_response", drug="Insulix")
    assert (result.facts["route"], result.facts["drug"], result.facts["spearman"]) == ("bulk", "Islettinib", 0.6)
    assert result.facts["mean_percentile"] == pytest.approx(result.payload.table["percentile"].mean())
    assert any("no statement about a patient" in note for note in result.notes)
    assert adata.obs["instructcell_sensitivity"].notna().all()


def test_a_drug_of_the_checkpoint_is_answered_from_single_cells(box):
    result = box.run("drug_response", drug="gefitinib")
    assert (result.facts["route"], result.facts["spearman"], result.notes) == ("cell", None, ())


def test_the_answer_of_the_other_route_is_kept_under_the_drugs_name(box, adata):
    box.run("drug_response", drug="Islettinib")
    before = adata.obs["instructcell_sensitivity"].copy()
    box.run("drug_response", drug="gefitinib")
    assert "instructcell_sensitivity" not in adata.obs
    pd.testing.assert_series_equal(adata.obs["instructcell_sensitivity_Islettinib"], before, check_names=False)


def test_a_drug_that_no_route_knows_is_refused_with_near_names(box):
    with pytest.raises(InstructCellError, match="'Apatinib' is not a drug this checkpoint.*Did you mean Apatinol"):
        box.run("drug_response", drug="Apatinib")


def test_a_group_is_ranked_and_held_against_all_other_cells(box):
    box.run("drug_response", drug="Islettinib")
    result = box.run("rank_drugs", cells={"response": "sensitive"})
    (group,) = result.facts["groups"]
    assert group["drugs"][0]["drug"] == "Islettinib" and group["drugs"][0]["held_out_spearman"] == 0.6
    assert "Islettinib" in [row["drug"] for row in group["more"]]
    assert result.facts["against"] == "all other cells"
    assert set(result.tables) == {"drugs", "drugs between groups"}
    assert "Noisolol" not in set(result.tables["drugs"]["drug"])  # predicted too badly to be ranked


def test_the_groups_of_a_column_are_ranked_each(box):
    result = box.run("rank_drugs", by="leiden")
    assert [group["group"] for group in result.facts["groups"]] == ["cluster 0", "cluster 1", "cluster 2"]
    assert set(result.tables["drugs between groups"]["against"]) == {"the other groups"}


def test_too_few_cells_are_not_ranked(box):
    with pytest.raises(InstructCellError, match="found 3 cells of 'the first 3 cells', expected at least 5"):
        box.run("rank_drugs", cells={"first": 3})


def test_a_drug_of_the_screens_is_compared_between_groups(box):
    result = box.run("compare_drug", drug="Bcellimab", by="condition")
    assert result.facts["route"] == "bulk" and result.facts["p_value"] is not None
    assert "Bcellimab: Spearman 0.40" in " ".join(result.notes)
