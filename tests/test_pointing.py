"""Groups of the file in a sentence: values, columns and files by the words people use for them."""

from __future__ import annotations

import pandas as pd
import pytest

from instructcell.pointing import find_selection, mentioned_value, mentioned_values
from instructcell.slots import find_column, find_file
from instructcell.toolbox.arguments import Cells

N = 12
OBS = pd.DataFrame(
    {
        "condition": ["control", "stim"] * 6,
        "batch": ["run7", "run8", "run9"] * 4,
        "genotype": ["KO", "WT"] * 6,
        "sex": ["F", "M"] * 6,
        "lane": ["b1", "b2"] * 6,
        "my_label": ["groupA", "groupB"] * 6,
        "cell_type": ["beta", "alpha"] * 6,
    },
    index=[f"cell{i}" for i in range(N)],
)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("which genes go up with stim", Cells(column="condition", value="stim")),
        ("what changes in stimulated cells", Cells(column="condition", value="stim")),
        ("is b1 any different", Cells(column="lane", value="b1")),
        ("run7 against run8", None),
        ("what do beta cells express", None),
    ],
)
def test_one_value_is_found_wherever_it_stands_and_a_type_is_none(text, value):
    assert mentioned_value(text, OBS) == value


def test_values_of_a_genotype_are_groups_though_its_name_holds_type():
    found = mentioned_values("beta cell proportion in KO vs WT", OBS)
    assert found == (Cells(column="genotype", value="KO"), Cells(column="genotype", value="WT"))


@pytest.mark.parametrize(
    ("text", "column"),
    [
        ("how many cells per run", "batch"),
        ("is there a change between the 3 batches", "batch"),
        ("we pooled them, see the column sex", "sex"),
        ("predict the response per cell", ""),
        ("do the same with cluster 2", ""),
    ],
)
def test_a_column_is_found_by_its_name_or_by_what_its_groups_are_called(text, column):
    assert find_column(text, OBS) == column


@pytest.mark.parametrize(
    ("text", "cells"),
    [
        ("keep only F", Cells(column="sex", value="F")),
        ("restrict to stim", Cells(column="condition", value="stim")),
        ("what are the groupA cells", Cells(column="my_label", value="groupA")),
        ("what are the beta cells", None),
        ("I only want F to be kept", None),
    ],
)
def test_values_are_chosen_by_their_name_and_types_are_not(text, cells):
    found, _ = find_selection(text, OBS)
    assert (found and found.cells) == cells


@pytest.mark.parametrize(
    ("text", "file"),
    [
        ("now the blood", "pbmc.h5ad"),
        ("and the same for the pancreas, please", "islets.h5ad"),
        ("which blood cells are these", ""),
        ("now the lung", ""),
    ],
)
def test_a_file_is_meant_by_its_tissue_when_nothing_else_is_said(text, file):
    assert find_file(text, ["islets.h5ad", "pbmc.h5ad"], "islets.h5ad") == file
