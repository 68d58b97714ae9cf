"""Sentences about results: every number in them was returned by a tool.

Names that come from a user's file are data: they are quoted, shortened and cannot format the text around them.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
from anndata import AnnData

from instructcell.doctor import DatasetReport
from instructcell.drugs import Drug
from instructcell.retrieval import MarkerEvidence
from instructcell.retrieval.grounding import percent
from instructcell.tools import CELL_TYPE, P_SENSITIVE, UNKNOWN, AnnotationResult, DrugResult

SHOWN_TYPES = 8  # cell types named in the text; the table has all
SURE = 0.8  # a call below this calibrated confidence is counted as weak


def first_look_text(said: str, kind: str, n_read: int, n_sampled: int, names: Sequence[str]) -> str:
    """The opening: what the language model wrote of `n_read` cells of one kind, if it agrees with the scores."""
    several = f"{n_read} cells of the most frequent kind in a sample of {n_sampled}"
    if says_of_its_cells(said, kind, names):
        return f"{said.rstrip('.')}. *(The model on {'this cell' if n_sampled == 1 else several}.)*"
    return f"At a first look, {'this cell reads' if n_sampled == 1 else f'{several} read'} as **{kind}**."


def says_of_its_cells(said: str, kind: str, names: Sequence[str]) -> bool:
    """Whether the language model wrote a sentence that names the type the scores give, and no other of `names`."""
    low, kind = said.lower(), kind.lower()
    bare = low.rstrip(".") in {kind, *(name.lower() for name in names)}
    if kind not in low or bare or len(said) > 300:
        return False
    rest = low.replace(kind, " ")
    return not any(name.lower() in rest for name in names if name.lower() not in kind)


def composition_text(result: AnnotationResult, whose: str) -> str:
    """Shares and mean confidence of the cell types of `whose` cells."""
    table = result.composition
    if len(result.table) == 1:
        return _one_cell_text(result.table.iloc[0], whose)
    known = table[table["cell_type"] != UNKNOWN]
    lines = [
        f"- **{row.cell_type}**: {row.cells:,} ({percent(row.share)}), mean confidence {row.mean_confidence:.2f}"
        for row in known.head(SHOWN_TYPES).itertuples()
    ]
    rest = known.iloc[SHOWN_TYPES:]
    if len(rest):
        names = ", ".join(rest["cell_type"])
        lines.append(f"- {len(rest)} smaller groups, {int(rest['cells'].sum()):,} cells: {names}")
    if result.unknown_share:
        cells = int((result.table["cell_type"] == UNKNOWN).sum())
        lines.append(f"- *unknown* (no type was likely enough): {cells:,} ({percent(result.unknown_share)})")
    return f"\n\n**{whose}: {len(result.table):,} cells**\n\n" + "\n".join(lines) + "\n"


def choices_text(labels: Sequence[str]) -> str:
    """That the answer was chosen among the user's own types."""
    return (
        f"\nThis is among the types you named: {', '.join(labels)}. The confidence is the probability of the type "
        "itself, so that a cell of another type comes out low or *unknown*.\n"
    )


def _one_cell_text(row: pd.Series, whose: str) -> str:
    second = (
        f"; the runner-up is {row['runner_up']} with {row['runner_up_probability']:.2f}" if row["runner_up"] else ""
    )
    if row["cell_type"] == UNKNOWN:
        guess = f"The best guess is {row['best_guess']} with a probability of {row['confidence']:.2f}"
        return f"\n\n**{whose}**: unknown. {guess}, too little to call it{second}.{_broader_of(row)}\n"
    name = f"{row['cell_type']} ({row['cell_type_id']})" if row["cell_type_id"] else row["cell_type"]
    return f"\n\n**{whose}**: **{name}**, confidence {row['confidence']:.2f}{second}.{_broader_of(row)}\n"


def _broader_of(row: pd.Series) -> str:
    """The broader type that is sure of one cell, where its own is not."""
    broader = row.get("broader_type", UNKNOWN)
    if broader in (UNKNOWN, row["best_guess"]):
        return ""
    return f" Sure is the broader type: {broader}, {row['broader_confidence']:.2f}."


def share_text(result: AnnotationResult, asked: str, names: Sequence[str]) -> str:
    """How many of the cells are of the type that was asked about, its subtypes counted."""
    hits = result.table["cell_type"].isin(list(names))
    n, total = int(hits.sum()), len(result.table)
    if n == 0:
        return f"None of the {total:,} cells was called {asked}."
    found = result.table.loc[hits, "cell_type"].value_counts()
    parts = "" if list(found.index) == [asked] else f" ({', '.join(f'{k} {v:,}' for k, v in found.items())})"
    sure = result.table.loc[hits, "confidence"].mean()
    return f"{n:,} of {total:,} cells ({percent(n / total)}) were called {asked}{parts}; mean confidence {sure:.2f}."


def evidence_text(evidence: Sequence[MarkerEvidence]) -> str:
    """The markers that each group truly expresses, with their source."""
    lines = [f"- {found.cell_type}: {found.sentence(4)}" for found in evidence]
    return "\n**Markers in these cells**\n\n" + "\n".join(lines) + "\n" if lines else ""


def coverage_text(report: DatasetReport, title: str = "What this rests on") -> str:
    """What the reading rests on: genes, species, the matrix and what the doctor noticed."""
    coverage = report.coverage or 0.0
    genes = f"{report.n_shared_genes or 0:,} of the model's genes were measured ({percent(coverage)})"
    absent = "" if coverage >= 0.995 else "; the others count as unmeasured, not as zero"
    orthologs = ", mouse genes read through their one-to-one human orthologs" if report.species == "mouse" else ""
    lines = [f"{genes}{absent}{orthologs}."]
    if report.scale != "counts":
        how = "counts were recovered from it" if report.counts_recovered else "read on its own scale"
        lines.append(f"The matrix ({quoted(report.matrix)}) is {report.scale}, not counts; {how}.")
    warnings = [f"{warning[:1].upper()}{warning[1:]}" for warning in map(str, report.warnings)]
    lines += [warning if warning.endswith((".", "!")) else f"{warning}." for warning in warnings]
    return f"\n**{title}.** {' '.join(lines)}\n"


def context_text(result: AnnotationResult) -> str:
    """What was made of the file as a whole."""
    said = result.context_words
    return f"\n**Context.** {' '.join(said)}\n" if said else ""


def weakness_text(result: AnnotationResult) -> str:
    """How many calls are uncertain, and between which types they waver."""
    if len(result.table) < 2:
        return ""
    weak = result.table[result.table["confidence"] < SURE]
    if weak.empty:
        return f"\n**Weak points.** No cell falls below a confidence of {SURE:g}.\n"
    pairs = weak.groupby(["best_guess", "runner_up"], observed=True).size().sort_values(ascending=False)
    (first, second), n = pairs.index[0], int(pairs.iloc[0])
    between = f" Most often ({n:,} cells) the doubt is between {first} and {second}." if second else ""
    share = len(weak) / len(result.table)
    said = f"{len(weak):,} cells ({percent(share)}) have a confidence below {SURE:g}.{between}{_broader_text(result)}"
    return f"\n**Weak points.** {said}\n"


def _broader_text(result: AnnotationResult) -> str:
    """The broader types that are sure where the cell type is not."""
    found = result.broader.head(3)
    if found.empty:
        return ""
    named = ", ".join(
        f"{row.broader_type} ({row.cells:,} {'cell' if row.cells == 1 else 'cells'}, {row.mean_confidence:.2f})"
        for row in found.itertuples()
    )
    return f" Sure at a broader type only: {named}."


def drug_text(result: DrugResult, whose: str, by: pd.Series | None) -> str:
    """Shares of the predicted response, by cell type where it is known, and what limits the prediction."""
    p, n = result.table["p_sensitive"], len(result.table)
    sensitive = int((result.table["response"] == "sensitive").sum())
    text = (
        f"**{result.drug.name}**, {whose}: {sensitive:,} of {n:,} cells ({percent(sensitive / n)}) "
        f"are predicted sensitive, {n - sensitive:,} resistant; mean probability of being sensitive {p.mean():.2f}.\n"
    )
    if by is not None and by.nunique() > 1:
        groups = p.groupby(by.to_numpy()).agg(["size", "mean"]).sort_values("size", ascending=False).head(SHOWN_TYPES)
        lines = [f"- {name}: mean {row['mean']:.2f} ({int(row['size']):,} cells)" for name, row in groups.iterrows()]
        text += "\nMean probability by cell type:\n\n" + "\n".join(lines) + "\n"
    return text + drug_facts(result.drug)


def drug_facts(drug: Drug) -> str:
    """What the checkpoint knows of a drug, and what its prediction is not."""
    target = f" Target: {drug.target}." if drug.target else ""
    studies = f" Learned from: {', '.join(drug.studies)}." if drug.studies else ""
    note = f" {drug.note}" if drug.note else ""
    return (
        f"\n**What this rests on.**{target}{studies}{note} "
        "On other kinds of cells than those it is extrapolation. It is a graded prediction from expression, for "
        "research; it is not a treatment decision.\n"
    )


def generated_text(pseudo: AnnData, read_as: str) -> str:
    """What was generated, and how the model itself reads it back."""
    total = int(pseudo.obs["library_size"].median())
    genes = int(np.median(np.asarray((pseudo.X > 0).sum(axis=1))))
    given = [str(pseudo.obs[name].iloc[0]) for name in ("species", "tissue", "condition")]
    sample = " ".join(word for word in given if word)
    return (
        f"Generated **{pseudo.n_obs:,} pseudo-cells: {pseudo.obs['cell_type'].iloc[0]}**"
        f"{f' ({sample})' if sample else ''}, integer counts over {pseudo.n_vars:,} genes, median library size "
        f"{total:,}, median {genes:,} genes per cell. {read_as}\n\n"
        "They are drawn from the model, not measured: use them for tests, simulation and augmentation, "
        "and do not mix them with real cells unmarked (`obs['pseudo']` marks them).\n"
    )


def describe_text(adata: AnnData, report: DatasetReport) -> str:
    """The doctor's report and the columns of the file."""
    own = [name for name in adata.obs.columns if not str(name).startswith("instructcell_")]
    columns = [f"- {quoted(name)}: {_values_of(adata.obs[name])}" for name in own[:20]]
    listed = "\n\n**Columns of obs**\n\n" + "\n".join(columns) if columns else ""
    return f"{report.to_markdown()}{listed}\n"


def which_cells_text(n_cells: int, groups: Mapping[str, pd.Series]) -> str:
    """A question back: how cells of this file can be pointed at."""
    columns = [
        f"{quoted(name)} ({', '.join(map(quoted, sorted(values.unique())[:5]))})" for name, values in groups.items()
    ]
    by_group = f" or a group of {'; '.join(columns[:5])}" if columns else ""
    return (
        f"I do not find those cells. Name some of the {n_cells:,}: *the first 20 cells*, *cells 5 to 9*, *cell 17*, "
        f"a cell's own name{by_group}."
    )


def help_text(types: Sequence[str], drugs: Sequence[str], adata: AnnData | None) -> str:
    """What can be asked, with examples that fit what is loaded."""
    groups = "" if adata is None else _group_example(adata)
    cells = (
        f"- *Which cell types are these?* or *What are the first 20 cells?*{groups}\n- *Describe the data*\n"
        if adata is not None
        else "- upload cells (.h5ad, 10x .h5, .csv, .tsv), then ask *Which cell types are these?*\n"
    )
    example = types[0] if types else "B cell"
    responses = f"- *Would {drugs[0]} work on these cells?* (known: {', '.join(drugs)})\n" if drugs else ""
    return (
        "You can ask, in your own words:\n\n"
        f"{cells}- *Generate 50 {example}s with 3,000 counts each*, then *download*\n{responses}"
        f"- *What marks a {example}?* and *What does GCG do?*\n\n"
        f"I can generate {len(types)} cell types: {'; '.join(types)}.\n"
    )


def titled(name: str) -> str:
    """A name of ours or of a file, safe to stand in bold."""
    line = re.sub(r"\s+", " ", name).strip()[:80]
    return re.sub(r"([\\*_`<>\[\]#|~&$]|:(?=//)|(?<=www)\.)", r"\\\1", line, flags=re.IGNORECASE)


def quoted(text: object) -> str:
    """A name from a user's file as it may stand in an answer: one short line of code."""
    line = re.sub(r"\s+", " ", str(text)).replace("`", "'").strip()
    return f"`{line[:60]}{'…' if len(line) > 60 else ''}`"


def _values_of(values: pd.Series) -> str:
    n = values.nunique()
    if pd.api.types.is_numeric_dtype(values) and n > 12:
        return f"{values.min():.4g} to {values.max():.4g}"
    top = ", ".join(f"{quoted(name)} {count:,}" for name, count in values.value_counts().head(6).items())
    return f"{n:,} values" if n > 50 else f"{top}{f', and {n - 6} more' if n > 6 else ''}"


def _group_example(adata: AnnData) -> str:
    for column in adata.obs.columns:
        if column in (CELL_TYPE, P_SENSITIVE) or str(column).startswith("instructcell_"):
            continue
        values = adata.obs[column]
        if isinstance(values.dtype, pd.CategoricalDtype) and 1 < values.nunique() <= 50:
            value = quoted(values.iloc[0]).strip("`")
            return f" or *What are the cells with {quoted(column).strip('`')} {value}?*"
    return ""
