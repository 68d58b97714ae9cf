"""Results in words: every number and every name in an answer comes from a result of a tool.

Names that come from a user's file are data: they are quoted, shortened and cannot format the text around them.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from instructcell.retrieval.grounding import percent
from instructcell.tools import UNKNOWN
from instructcell.workspace import Result

SHOWN_TYPES = 8  # cell types named in the text; the table has all
SHOWN_GENES = 6
LONGEST_QUOTE = 60  # characters of a user's own words
NO_DECISION = "It is a graded prediction from expression, for research; it is not a treatment decision."
PLACES = {2: "second", 3: "third", 4: "fourth", 5: "fifth"}
Facts = Mapping[str, Any]


def answer_of(result: Result) -> str:
    """The text of a result (Markdown)."""
    return TEXTS[result.tool](result)


# ---- types


def first_look_text(result: Result) -> str:
    """The opening: what the language model wrote of cells of one kind, if it agrees with the scores."""
    facts = result.facts
    one = facts["n_sampled"] == 1
    several = f"{facts['n_read']} cells of the most frequent kind in a sample of {facts['n_sampled']}"
    if facts["said"]:
        return f"{facts['said'].rstrip('.')}. *(The model on {'this cell' if one else several}.)*"
    return f"At a first look, {'this cell reads' if one else f'{several} read'} as **{facts['kind']}**."


def annotation_text(result: Result) -> str:
    """Shares and mean confidence of the types, the markers behind them, what it rests on, and its weak points."""
    facts, whose = result.facts, titled(result.facts["cells"])
    if facts["n_cells"] == 1:
        text = _one_cell_text(facts["cell"], whose)
    else:
        text = f"\n\n**{whose}: {many(facts['n_cells'], 'cell')}**\n\n{_composition(facts)}\n"
    if facts["labels"]:
        text += choices_text(facts["labels"])
    if result.notes:
        text += "\n**Markers in these cells**\n\n" + "\n".join(f"- {note}" for note in result.notes) + "\n"
    return text + coverage_text(facts["coverage"]) + _context_text(facts) + _weak_text(facts)


def choices_text(labels: Sequence[str]) -> str:
    """That the answer was chosen among the user's own types."""
    return (
        f"\nThis is among the types you named: {', '.join(labels)}. The confidence is the probability of the type "
        "itself, so that a cell of another type comes out low or *unknown*.\n"
    )


def _composition(facts: Facts) -> str:
    known = [row for row in facts["composition"] if row["cell_type"] != UNKNOWN]
    lines = [
        f"- **{row['cell_type']}**: {row['cells']:,} ({percent(row['share'])}), "
        f"mean confidence {row['mean_confidence']:.2f}"
        for row in known[:SHOWN_TYPES]
    ]
    if rest := known[SHOWN_TYPES:]:
        names = ", ".join(f"{row['cell_type']} {row['cells']:,}" for row in rest)
        lines.append(f"- smaller groups: {names}")
    if facts["n_unknown"]:
        share = percent(facts["unknown_share"])
        strangers = [f"{row['cell_type']} ({row['cells']:,})" for row in facts.get("resembles", [])]
        also = f"; some look unlike all I know, by their markers like {', '.join(strangers)}" if strangers else ""
        lines.append(f"- *unknown* (no type was likely enough): {facts['n_unknown']:,} ({share}){also}")
    return "\n".join(lines)


def _one_cell_text(cell: Facts, whose: str) -> str:
    second = ""
    if cell["runner_up"]:
        second = f"; the runner-up is {cell['runner_up']} with {cell['runner_up_probability']:.2f}"
    if cell["cell_type"] == UNKNOWN:
        guess = f"The best guess is {cell['best_guess']} with a probability of {cell['confidence']:.2f}"
        return f"\n\n**{whose}**: unknown. {guess}, too little to call it{second}.{_broader_of(cell)}\n"
    name = f"{cell['cell_type']} ({cell['cell_type_id']})" if cell["cell_type_id"] else cell["cell_type"]
    return f"\n\n**{whose}**: **{name}**, confidence {cell['confidence']:.2f}{second}.{_broader_of(cell)}\n"


def _broader_of(cell: Facts) -> str:
    """The broader type that is sure of one cell, where its own is not."""
    broader = cell.get("broader_type", UNKNOWN)
    if broader in (UNKNOWN, cell["best_guess"]):
        return ""
    return f" Sure is the broader type: {broader}, {cell['broader_confidence']:.2f}."


def coverage_text(facts: Facts, title: str = "What this rests on") -> str:
    """What a reading rests on: genes, species, the matrix and what the doctor noticed."""
    coverage = facts["coverage"] or 0.0
    genes = f"{facts['n_shared_genes'] or 0:,} of the model's genes were measured ({percent(coverage)})"
    absent = "" if coverage >= 0.995 else "; the others count as unmeasured, not as zero"
    orthologs = ", mouse genes read through their one-to-one human orthologs" if facts["species"] == "mouse" else ""
    lines = [f"{genes}{absent}{orthologs}."]
    if facts["scale"] != "counts":
        how = "counts were recovered from it" if facts["counts_recovered"] else "read on its own scale"
        lines.append(f"The matrix ({quoted(facts['matrix'])}) is {facts['scale']}, not counts; {how}.")
    warnings = [f"{warning[:1].upper()}{warning[1:]}" for warning in facts["warnings"]]
    lines += [warning if warning.endswith((".", "!")) else f"{warning}." for warning in warnings]
    return f"\n**{title}.** {' '.join(lines)}\n"


def _context_text(facts: Facts) -> str:
    """What was made of the file as a whole."""
    return f"\n**Context.** {' '.join(facts['context'])}\n" if facts["context"] else ""


def _weak_text(facts: Facts) -> str:
    """How many calls are uncertain, and between which types they waver."""
    if facts["n_cells"] < 2:
        return ""
    limit = facts["unsure_below"]
    if not facts["n_weak"]:
        return f"\n**Weak points.** No cell falls below a confidence of {limit:g}.\n"
    between = ""
    if facts["doubt"] and facts["doubt"]["between"][1]:
        first, second = facts["doubt"]["between"]
        between = f" Most often ({many(facts['doubt']['cells'], 'cell')}) the doubt is between {first} and {second}."
    said = (
        f"{many(facts['n_weak'], 'cell')} ({percent(facts['weak_share'])}) {'has' if facts['n_weak'] == 1 else 'have'} "
        f"a confidence below {limit:g}.{between}"
    )
    return f"\n**Weak points.** {said}{_broader_text(facts['broader'])}\n"


def _broader_text(broader: Sequence[Facts]) -> str:
    """The broader types that are sure where the cell type is not."""
    if not broader:
        return ""
    named = ", ".join(
        f"{row['broader_type']} ({row['cells']:,} {'cell' if row['cells'] == 1 else 'cells'}, "
        f"{row['mean_confidence']:.2f})"
        for row in broader
    )
    return f" Sure at a broader type only: {named}."


def count_text(result: Result) -> str:
    """How many of the cells are of the type that was asked about, its subtypes counted; in each group, if asked."""
    facts = result.facts
    asked, n, total, whose = facts["cell_type"], facts["n"], facts["n_cells"], titled(facts["cells"])
    if "place" in facts:
        return _place_text(facts)
    if not asked:
        of_all = f" of {facts['n_all']:,}" if facts["n_all"] != total else ""
        share = f" ({percent(facts['share_of_all'])})" if of_all else ""
        shown = list(facts["parts"].items())[:SHOWN_TYPES]
        named = ", ".join(f"{name} {count:,} ({percent(facts['shares'][name])})" for name, count in shown)
        more = " and others in the table" if len(facts["parts"]) > SHOWN_TYPES else ""
        cells = "cell" if total == 1 else "cells"
        text = f"**{whose}**: {total:,}{of_all} {cells}{share}. They were called {named}{more}.\n"
    elif n == 0:
        return f"None of the {many(total, 'cell')} ({whose}) was called {asked}.\n"
    else:
        parts = "" if list(facts["parts"]) == [asked] else f" ({_counted(facts['parts'].items())})"
        text = (
            f"{n:,} of {many(total, 'cell')} ({percent(facts['share'])}; {whose}) {'was' if n == 1 else 'were'} called "
            f"{asked}{parts}; "
            f"mean confidence {facts['mean_confidence']:.2f}.\n"
        )
    if facts.get("by"):
        text += f"\nBy {quoted(_column_name(facts['by']))}:\n\n" + "".join(
            _group_line(row, asked, facts["by"]) for row in facts["groups"]
        )
    if facts.get("agreement"):
        alike = facts["agreement"]
        column = quoted(_column_name(facts["by"]))
        text += (
            f"\nMy types agree with {column} in {alike['n']:,} of {many(alike['of'], 'cell')} "
            f"({percent(alike['share'])}): the same type, or one a kind of the other.\n"
        )
    return text + "".join(f"\n- {note}\n" for note in result.notes)


def _place_text(facts: Facts) -> str:
    """The group of a place by size, and the others behind it."""
    place, by = facts["place"], facts.get("by", "")
    ordinal = PLACES.get(abs(place), f"{abs(place)}th")
    which = ("largest" if place > 0 else "smallest") if abs(place) == 1 else ""
    which = which or (f"{ordinal} largest" if place > 0 else f"{ordinal} smallest")
    named = titled(facts["named"]) if not by else _group_name(by, facts["named"])
    kind = quoted(_column_name(by)) if by else "cell type"
    text = (
        f"The {which} of {many(facts['n_groups'], 'group')} by {kind} is **{named}**: {facts['named_n']:,} of "
        f"{many(facts['n'], 'cell')} ({percent(facts['named_share'])}; {titled(facts['cells'])}).\n"
    )
    if by:
        rows = sorted(facts["groups"], key=lambda row: -row["n"])
        sizes = [(_group_name(by, row["group"]), row["n"]) for row in rows]
    else:
        sizes = list(facts["parts"].items())
    return f"{text}\nBy size: {_counted(sizes[:SHOWN_TYPES])}.\n"


def _group_line(row: Facts, asked: str, by: str) -> str:
    """One group of a count."""
    if asked:
        share = percent(row["share"])
        return f"- {_group_name(by, row['group'])}: {row['n']:,} of {many(row['cells'], 'cell')} ({share})\n"
    return f"- {_group_name(by, row['group'])}: {many(row['cells'], 'cell')} ({row['types']})\n"


def explain_text(result: Result) -> str:
    """Why a type, and why not another."""
    facts = result.facts
    label, other = facts["label"], facts["runner_up"]
    called = f"{facts['n_called']:,} of {many(facts['n_cells'], 'cell')}" if facts["n_cells"] > 1 else "This cell"
    were = "were" if facts["n_cells"] > 1 else "was"
    opening = f"**{titled(facts['cells'])}**: {called} {were} called **{label}**"
    chances = (
        f"the reader gives it {facts['probability']:.3f}, and {facts['runner_up_probability']:.3f} to **{other}**"
        f"{'' if facts['asked_against'] and not facts['already'] else ', the runner-up'}"
    )
    lines = [f"{opening}; {chances} (mean over {facts['n_read']:,})."]
    if facts["already"]:
        asked = facts["asked_against"]
        kind = "" if asked == label else f": {label} is a kind of {asked}"
        lines.insert(0, f"They are called {asked} already{kind}.\n")
    for role, words in (
        ("supports", f"Speak for {label} and against {other}"),
        ("absent", f"{other[:1].upper()}{other[1:]} has more of, and these cells lack or have little of"),
        ("contradicts", f"Speak for {other}"),
        ("missing", f"Markers of {label} that these cells lack"),
    ):
        genes = facts[role][:SHOWN_GENES]
        if genes:
            bare = ", ".join(gene["gene"] for gene in genes)
            lines.append(f"- {words}: {bare if role in ('missing', 'absent') else _shares(genes)}.")
    lines += [f"- Markers: {note}" for note in result.notes[1:]]
    how = (
        "by attribution through the encoder and checked by leaving each out"
        if facts["likelihood_ratio"] is None
        else "by their parts in the log-likelihood ratio of the two reference profiles "
        f"({facts['likelihood_ratio']:.1f} for {facts['per_counts']:,.0f} counts, above 0 for {label}), "
        "which add up exactly"
    )
    lines.append(
        f"\nThe genes were found {how}; the table has them with their attribution, what the odds lose without "
        "each, and the source of each marker."
    )
    return "\n".join(lines) + "\n"


def _shares(genes: Sequence[Facts]) -> str:
    marker = {"label": "; a marker", "both": "; marks both", "runner-up": "; a marker of the other"}
    return ", ".join(
        f"{gene['gene']} (in {percent(gene['share'], decimals=0)}{marker.get(gene.get('marks', ''), '')})"
        for gene in genes
    )


def _counted(items: Any) -> str:
    return ", ".join(f"{name} {count:,}" for name, count in items)


def _types(rows: Sequence[Facts]) -> str:
    shown = ", ".join(f"{row['cell_type'] or 'not annotated'} {row['cells']:,}" for row in rows[:SHOWN_TYPES])
    return f"{shown}{' and others in the table' if len(rows) > SHOWN_TYPES else ''}"


# ---- the file


def describe_text(result: Result) -> str:
    """The doctor's report and the columns of the file."""
    columns = [f"- {quoted(column['name'])}: {_values(column)}" for column in result.facts["columns"]]
    if len(result.facts["files"]) > 1:
        names = ", ".join(map(titled, result.facts["files"]))
        columns.append(f"\nLoaded are {names}; this is **{titled(result.facts['file'])}**.")
    listed = "\n\n**Columns of obs**\n\n" + "\n".join(columns) if columns else ""
    others = result.facts["other_files"]
    beside = f"\n\nLoaded beside it: {', '.join(map(quoted, others))}.\n" if others else ""
    return f"{result.facts['report']}{listed}{beside}\n"


def _values(column: Facts) -> str:
    if "least" in column:
        return f"{column['least']:.4g} to {column['most']:.4g}"
    n, top = column["n_values"], column["top"]
    if n > 50:
        return f"{many(n, 'value')}"
    more = ", and others" if n > len(top) else ""
    return ", ".join(f"{quoted(name)} {count:,}" for name, count in top.items()) + more


def quality_text(result: Result) -> str:
    """Depth, mitochondrial share, doublet-like depth, outliers."""
    facts = result.facts
    depth = (
        "the file holds no counts" if facts["median_counts"] is None else f"median {facts['median_counts']:,.0f} counts"
    )
    mito = "no mitochondrial gene was measured"
    if facts["mitochondrial_share"] is not None:
        mito = f"median mitochondrial share {percent(facts['mitochondrial_share'])}"
    lines = [
        f"**Quality of {titled(facts['cells'])}** ({many(facts['n_cells'], 'cell')}): {depth}, median "
        f"{facts['median_genes']:,.0f} genes per cell; {mito}.",
        f"- {many(facts['n_deep'], 'cell')} ({percent(facts['deep_share'])}) {_are(facts['n_deep'])} more than three "
        "times as deep as the median cell, as doublets are.",
        f"- {many(facts['n_low_quality'], 'cell')} ({percent(facts['low_quality_share'])}) "
        f"{_are(facts['n_low_quality'])} outliers in depth, genes or mitochondrial share.",
    ]
    lines += [_quality_line(row, facts["by"]) for row in facts["groups"]]
    lines += [f"- {warning[:1].upper()}{warning[1:]}" for warning in facts["warnings"]]
    return "\n".join(lines) + "\n"


def _quality_line(row: Facts, by: str) -> str:
    """The quality of one group."""
    depth = "" if row["median_counts"] is None else f"median {row['median_counts']:,.0f} counts, "
    share = row["mitochondrial_share"]
    mito = "" if share is None else f", median mitochondrial share {percent(share)}"
    return (
        f"- {_group_name(by, row['group'])} ({many(row['cells'], 'cell')}): {depth}median {row['median_genes']:,.0f} "
        f"genes{mito}; {percent(row['low_quality_share'])} outliers"
    )


def cluster_text(result: Result) -> str:
    """The clusters with the type that most of their cells were called."""
    facts = result.facts
    made = f"Leiden, resolution {facts['resolution']:g}"
    lines = [f"**{many(facts['n_clusters'], 'cluster')}** of {many(facts['n_cells'], 'cell')} ({made}):\n"]
    for row in facts["clusters"]:
        mostly = f", mostly {row['mostly']} ({percent(row['share_of_cluster'])})" if row.get("mostly") else ""
        lines.append(f"- cluster {row['cluster']}: {many(row['cells'], 'cell')} ({percent(row['share'])}){mostly}")
    return "\n".join(lines) + "\n"


def embed_text(result: Result) -> str:
    """Where an encoder's view of the cells is now, and what the encoder saw."""
    facts = result.facts
    by = f" through {facts['text_encoder']}" if facts["text_encoder"] else ""
    return (
        f"The **{facts['encoder'].replace('_', '-')} encoder**{by} has read {facts['n_cells']:,} cells: "
        f"{facts['width']:,} numbers per cell are in obsm {quoted(facts['key'])}. It saw {facts['saw']}.\n"
    )


def select_text(result: Result) -> str:
    """Which cells are "these" from now on."""
    facts = result.facts
    share = percent(facts["share"])
    text = f"**{titled(facts['cells'])}**: {facts['n_cells']:,} of {many(facts['n_all'], 'cell')} ({share})."
    if facts.get("types"):
        text += f" They were called {_types(facts['types'])}."
    return text + (" *These cells* now means them.\n" if facts["n_cells"] < facts["n_all"] else " All cells again.\n")


def find_text(result: Result) -> str:
    """Which cells were found, and what the words were read as."""
    facts = result.facts
    read_as = ", ".join(f"{row['name']} ({row['why']})" for row in facts["read_as"][:3])
    if facts["n_cells"] == 0:
        return f"No cell of the {facts['n_among']:,} fits that. I read it as {read_as}.\n"
    text = (
        f"**{facts['n_cells']:,} of {many(facts['n_among'], 'cell')}** ({percent(facts['share'])}) fit, by their "
        f"{facts['how']}. I read it as {read_as}."
    )
    if facts.get("types"):
        text += f" They were called {_types(facts['types'])}."
    return f"{text} *These cells* now means them.\n"


def map_text(result: Result) -> str:
    """What the map is coloured by."""
    facts = result.facts
    if "n_shown" in facts:
        shown = f"{titled(facts['cells'])} ({facts['n_shown']:,})"
        return f"The map of {many(facts['n_cells'], 'cell')}, with {shown} in front.\n"
    return f"The map of {many(facts['n_cells'], 'cell')}, coloured by {quoted(_column_name(facts['coloured_by']))}.\n"


def use_file_text(result: Result) -> str:
    """Which file is talked about."""
    facts = result.facts
    others = [name for name in facts["files"] if name != facts["file"]]
    told = f" {' and '.join(map(titled, others))} {'are' if len(others) > 1 else 'is'} kept as well." if others else ""
    return (
        f"We now talk about **{titled(facts['file'])}**: {many(facts['n_cells'], 'cell')}, "
        f"{many(facts['n_genes'], 'gene')}.{told}\n"
    )


def close_file_text(result: Result) -> str:
    """Which file is gone, and which is talked about."""
    facts = result.facts
    text = f"{titled(facts['closed'])} is closed, with its selections and results."
    if facts["file"]:
        return f"{text} We now talk about **{titled(facts['file'])}** ({many(facts['n_cells'], 'cell')}).\n"
    return f"{text} No cells are loaded now.\n"


def _group_name(column: str, value: str) -> str:
    """A group as it is told: a bare number says nothing without what it numbers."""
    name = _column_name(column)
    return (
        titled(f"{'cluster' if 'cluster' in name or name == 'leiden' else name} {value}")
        if value.isdigit()
        else titled(value)
    )


def _column_name(column: str) -> str:
    """A column as it may be spoken of: ours without their prefix, the file's own as they are written."""
    ours = column.removeprefix("instructcell_")
    return ours.replace("_", " ") if ours != column else column


# ---- genes


def expression_text(result: Result) -> str:
    """Who expresses genes, and how much."""
    facts = result.facts
    lines = []
    for row in facts["genes"]:
        own = facts["own_names"].get(row["gene"], [])
        called = f" ({', '.join(own)} in this file)" if own else ""
        lines.append(
            f"**{row['gene']}**{called} is expressed by {row['expressing']:,} of {many(row['cells'], 'cell')} "
            f"({percent(row['share_of_cells'])}; {titled(facts['cells'])}), mean {row['mean']:.2f} "
            f"{facts['unit']}."
        )
        groups = [group for group in facts["groups"] if group["gene"] == row["gene"] and group["expressing"]]
        groups = sorted(groups, key=lambda group: -group["mean"])[:SHOWN_TYPES]
        if len(facts["groups"]) > len(facts["genes"]):
            lines += [
                f"- {_group_name(facts['by'], group['group'])}: {group['expressing']:,} of {group['cells']:,} "
                f"({percent(group['share_of_cells'])}), mean {group['mean']:.2f}"
                for group in groups
            ]
            if not groups:
                names = list(dict.fromkeys(str(group["group"]) for group in facts["groups"]))[:SHOWN_TYPES]
                lines.append(f"- in none of them: {', '.join(_group_name(facts['by'], name) for name in names)}")
    if facts["not_measured"]:
        lines.append(f"Not measured in this file: {', '.join(facts['not_measured'])}; nothing can be said of them.")
    for name, near in facts["unknown"].items():
        meant = f" Did you mean {' or '.join(near)}?" if near else ""
        lines.append(f"No gene is called {quoted(name)}.{meant}")
    return "\n".join(lines) + "\n"


def compare_text(result: Result) -> str:
    """The genes that differ most between two groups."""
    facts = result.facts
    if "each" in facts:
        return _each_group_text(result)
    first, second = facts["groups"]
    lines = [
        f"**{titled(first['name'])}** ({many(first['cells'], 'cell')}) and **{titled(second['name'])}** "
        f"({second['cells']:,}): {facts['n_significant']:,} of {many(facts['n_tested'], 'gene')} differ "
        f"({facts['test']})."
    ]
    for name, genes in facts["higher"].items():
        told = ", ".join(
            f"{gene['gene']} (log2 fold change {abs(gene['log2_fold_change']):.1f})" for gene in genes[:SHOWN_GENES]
        )
        lines.append(f"- higher in {titled(name)}: {told or 'none'}")
        points = [row["cell_type"] for row in facts["types"] if row["higher_in"] == name]
        if points:
            lines.append(f"  - these genes point to {', '.join(points[:2])}")
    lines += _asked_genes(facts, titled(first["name"]), titled(second["name"]))
    sources = f" Sources: {'; '.join(result.sources)}." if result.sources else ""
    return "\n".join(lines) + f"\n\nThe tables list more genes and what they mean.{sources}\n"


def _asked_genes(facts: Facts, first: str, second: str) -> list[str]:
    """What a comparison says of the genes that were asked about."""
    lines = [
        f"- **{row['gene']}**: in {percent(row['share_a'], decimals=0)} of {first} and "
        f"{percent(row['share_b'], decimals=0)} of {second}; {abs(row['log2_fold_change']):.1f} log2 "
        f"{'higher' if row['log2_fold_change'] > 0 else 'lower'} in {first}, adjusted p = {row['p_adjusted']:.2g}"
        f"{'' if row['significant'] else ' (not significant)'}"
        for row in facts.get("asked", ())
    ]
    if facts.get("not_tested"):
        lines.append(
            f"- not tested, as too few of these cells have it or the file lacks it: {', '.join(facts['not_tested'])}"
        )
    return lines


def _each_group_text(result: Result) -> str:
    """The clearest genes of every group against all the others."""
    facts = result.facts
    lines = [
        f"**Genes that are higher in each group of {quoted(_column_name(facts['by']))} than in all other cells:**\n"
    ]
    for row in facts["each"]:
        told = ", ".join(gene["gene"] for gene in row["genes"][:SHOWN_GENES]) or "none is clearly higher"
        lines.append(f"- {_group_name(facts['by'], row['group'])} ({many(row['cells'], 'cell')}): {told}")
        lines += [f"  {line}" for line in _asked_genes(row, titled(row["group"]), "all other cells")]
    if facts["too_small"]:
        lines.append(
            f"- too small, or all cells, to be compared: {', '.join(titled(name) for name in facts['too_small'])}"
        )
    return "\n".join(lines) + f"\n\n{facts['test']}. The table has fold changes and p-values.\n"


def known_drugs_text(result: Result) -> str:
    """Drugs that can be asked about, their targets, and how well predictions hold."""
    facts = result.facts
    if not facts["n"]:
        return (
            f"I know no drug or target called {quoted(facts['query'])}, of {many(facts['n_known'], 'drug')}. "
            f"Ask *which drugs do you know?* for the names.\n"
        )
    about = f" for {quoted(facts['query'])}" if facts["query"] else ""
    lines = [f"**{many(facts['n'], 'drug')}{about}**, of {facts['n_known']:,} that can be asked about:\n"]
    for row in facts["drugs"]:
        hold = (
            "learned from single cells"
            if row["route"] == "cell"
            else f"cell-line screens, Spearman {row['held_out_spearman']:.2f} on lines left out"
        )
        lines.append(f"- **{row['drug']}** (target {row['target'] or 'not known'}): {hold}")
    if facts["n"] > len(facts["drugs"]):
        lines.append("- and others in the table")
    lines += [f"\n{note}" for note in facts["notes"].values()]
    rests = (
        f"\n**How far to trust them.** Learned from single cells: {', '.join(facts['single_cell'])}. The "
        f"{facts['n_screened']:,} drugs of the screens of cancer cell lines were tested on cell lines that were left "
        f"out: median Spearman correlation {facts['median_spearman']:.2f} between predicted and measured. {NO_DECISION}"
    )
    return "\n".join(lines) + f"\n{rests} Sources: {'; '.join(result.sources)}.\n"


def knowledge_text(result: Result) -> str:
    """What the tables say, with its source."""
    return f"{result.facts['answer']}\n"


# ---- new cells


def generated_text(result: Result) -> str:
    """What was generated, and how the model itself reads it back."""
    facts = result.facts
    sample = " ".join(facts[name] for name in ("species", "tissue", "condition") if facts[name])
    like = f", like {titled(facts['like'])}" if facts["like"] else ""
    if facts["share_read_back"] is None:
        back = "Their counts are too few to be read back."
    else:
        share = percent(facts["share_read_back"])
        back = f"Read back, {share} of {facts['n_read_back']} are called {facts['cell_type']}. Seed {facts['seed']}."
    kind = ""
    if facts["kind_of"]:
        kind = f"*{titled(facts['kind_of'])}* is broader than what I can make: these are its kind that I know best. "
    return (
        f"Generated **{facts['n']:,} pseudo-cell{'s' if facts['n'] != 1 else ''}: {facts['cell_type']}**"
        f"{f' ({sample})' if sample else ''}{like}, integer counts over {many(facts['n_genes'], 'gene')}, "
        f"median library size {facts['median_library_size']:,}, median {many(facts['median_genes'], 'gene')} per cell. "
        f"{back}\n\n{kind}"
        "They are drawn from the model, not measured: use them for tests, simulation and augmentation, "
        "and do not mix them with real cells unmarked (`obs['pseudo']` marks them).\n"
    )


def realness_text(result: Result) -> str:
    """How alike generated and real cells are."""
    facts = result.facts
    lead = (
        f"**{facts['n_generated']:,} generated and {facts['n_real']:,} real cells: {facts['cell_type']}** "
        f"({titled(facts['cells'])})."
    )
    if "not_compared" in facts:
        return f"{lead} They cannot be compared in numbers: {facts['not_compared']}. The map shows where they fall.\n"
    counts = ""
    if facts["median_counts_real"] is not None:
        counts = f"\n- median counts: {facts['median_counts']:,.0f} generated, {facts['median_counts_real']:,.0f} real"
    correlation = ""
    if facts["marker_correlation"] is not None:
        floor = facts["marker_correlation_floor"]
        beside = "" if floor is None else f" ({floor:.2f} between two halves of the real cells)"
        correlation = f"\n- correlation of the markers' fold changes: {facts['marker_correlation']:.2f}{beside}"
    return (
        f"{lead}\n\n- distance (MMD) to the real cells {facts['mmd']:.3f}, between two halves of the real cells "
        f"{facts['mmd_floor']:.3f}: {facts['mmd_ratio']:.1f} times\n"
        f"- zeros: {percent(facts['zero_fraction'])} generated, {percent(facts['zero_fraction_real'])} real"
        f"{correlation}{counts}\n\nCompared over {many(facts['n_genes'], 'gene')}; the map shows both.\n"
    )


# ---- drugs


def drug_text(result: Result) -> str:
    """Shares of the predicted response, by cell type where it is known, and what limits the prediction."""
    facts = result.facts
    bulk = facts["route"] == "bulk"
    sensitive = "more sensitive than the middle cell line" if bulk else "sensitive"
    resistant = "the others less" if bulk else f"{facts['n_resistant']:,} resistant"
    text = (
        f"**{facts['drug']}**, {titled(facts['cells'])}: {facts['n_sensitive']:,} of {many(facts['n_cells'], 'cell')} "
        f"({percent(facts['sensitive_share'])}) are predicted {sensitive}, {resistant}; mean "
        f"probability of being sensitive {facts['mean_p']:.2f}"
    )
    text += f", mean percentile among the cell lines {facts['mean_percentile']:.1f}.\n" if bulk else ".\n"
    if facts["by_type"]:
        lines = [
            f"- {row['cell_type']}: mean {row['mean_p']:.2f} ({many(row['cells'], 'cell')})"
            for row in facts["by_type"][:SHOWN_TYPES]
        ]
        text += "\nMean probability by cell type:\n\n" + "\n".join(lines) + "\n"
    if bulk:
        return text + bulk_facts_text(result)
    return text + drug_facts_text(facts, result.notes) + coverage_text(facts["coverage"], "The cells")


def rank_text(result: Result) -> str:
    """The screened drugs by predicted sensitivity, and those that hit a group more than what it is held against."""
    facts = result.facts
    lines = [
        f"**{many(facts['n_drugs'], 'drug')} of the cell-line screens, by predicted sensitivity of the pooled cells**"
    ]
    for group in facts["groups"]:
        lines.append(f"\n**{titled(group['group'])}** ({many(group['cells'], 'cell')}), the most sensitive first:\n")
        lines += [
            f"- **{row['drug']}** (target {row['target'] or 'not known'}): percentile {row['percentile']:.1f} among "
            f"the cell lines; Spearman {row['held_out_spearman']:.2f} on lines left out"
            for row in group["drugs"]
        ]
        if facts["compared"]:
            lines.append(f"\n{_more_text(group, facts)}")
    if facts["known"]:
        places = "; ".join(
            f"{row['drug']} is number {row['place']} (percentile {row['percentile']:.1f})" for row in facts["known"]
        )
        lines.append(f"\nOf the drugs that I also know from single cells, {places}.")
    if facts["others"]:
        lines.append(f"\nNot among the screened drugs, ask for them by name: {', '.join(facts['others'])}.")
    return "\n".join(lines) + f"\n\n**What this rests on.** {' '.join(result.notes)} {NO_DECISION}\n"


def _more_text(group: Facts, facts: Facts) -> str:
    """The drugs to which a group is surely more sensitive than the rest."""
    against, limit = titled(facts["against"]), f"q < {facts['q_below']:g}"
    if not group["n_more"]:
        return f"To no drug is it surely more sensitive than {against} ({limit})."
    told = ", ".join(f"{row['drug']} (difference {row['difference']:.2f})" for row in group["more"])
    return f"It is more sensitive than {against} to {many(group['n_more'], 'drug')} ({limit}), most to: {told}."


def compare_drug_text(result: Result) -> str:
    """A drug's predicted response in groups, with the test."""
    facts = result.facts
    lines = [f"**Predicted response to {facts['drug']}**:\n"]
    lines += [
        f"- {titled(row['group'])} ({many(row['cells'], 'cell')}): mean probability of being sensitive "
        f"{row['mean_p_sensitive']:.2f}, {percent(row['sensitive_share'])} predicted sensitive"
        for row in facts["groups"]
    ]
    tested = "\n\nThere are too few cells, or too few different values, for a test."
    if facts["p_value"] is not None:
        tested = (
            f"\n\n{facts['test']}: p = {facts['p_value']:.2g}. Cells of one sample are not independent of each other, "
            "so that the p-value is too small; read it beside the difference of the means."
        )
    rests = bulk_facts_text(result) if facts["route"] == "bulk" else drug_facts_text(facts, result.notes)
    return "\n".join(lines) + tested + "\n" + rests


def bulk_facts_text(result: Result) -> str:
    """What a prediction from the cell-line screens rests on, and what it is not."""
    target = f"Target: {result.facts['target']}. " if result.facts["target"] else ""
    return f"\n**What this rests on.** {target}{' '.join(result.notes)} {NO_DECISION}\n"


def drug_facts_text(facts: Facts, notes: Sequence[str] = ()) -> str:
    """What the checkpoint knows of a drug, and what its prediction is not."""
    target = f" Target: {facts['target']}." if facts["target"] else ""
    studies = f" Learned from: {', '.join(facts['studies'])}." if facts["studies"] else ""
    note = " ".join(["", *filter(None, (facts["drug_note"], *notes))])
    return (
        f"\n**What this rests on.**{target}{studies}{note} "
        f"On other kinds of cells than those it is extrapolation. {NO_DECISION}\n"
    )


# ---- the desk


def help_text(result: Result) -> str:
    """What can be asked, with examples that fit what is loaded."""
    facts = result.facts
    about = f"About **{titled(facts['file'])}** you" if facts["file"] else "You"
    upload = (
        "" if facts["file"] else "- upload cells (.h5ad, 10x .h5, .csv, .tsv), then ask *Which cell types are these?*\n"
    )
    examples = "".join(f"- *{titled(example)}*\n" for example in facts["examples"])
    after = "Then go on: *why?*, *and the others?*, *only the unsure ones*, *undo*, *start again*, *export all this*.\n"
    return (
        f"{about} can ask, in your own words:\n\n{upload}{examples}\n{after if facts['file'] else ''}\n"
        f"I can generate {facts['n_types']} cell types: {'; '.join(facts['types'])}. "
        f"Drugs I know: {', '.join(facts['drugs'])}. What I look up is from {', '.join(facts['sources'])}.\n"
    )


def undo_text(result: Result) -> str:
    """What was taken back."""
    if not result.facts["undone"]:
        return "There is no step to take back.\n"
    return f"Taken back: {quoted(result.facts['undone'])}. Everything is as it was before.\n"


def restart_text(result: Result) -> str:
    """What is left after a new start."""
    files = result.facts["files"]
    kept = (
        f" {', '.join(map(titled, files))} {'are' if len(files) > 1 else 'is'} still loaded, as uploaded."
        if files
        else ""
    )
    return f"We start again: results and selections are gone.{kept}\n"


def export_text(result: Result) -> str:
    """What was written."""
    names = ", ".join(quoted(name) for name in result.facts["files"])
    n = result.facts["n_files"]
    return f"{many(n, 'file')} {'is' if n == 1 else 'are'} ready: {names}.\n"


def which_cells_text(n_cells: int, groups: Mapping[str, Sequence[str]]) -> str:
    """A question back: how cells of this file can be pointed at."""
    columns = [f"{quoted(name)} ({', '.join(map(quoted, values[:5]))})" for name, values in groups.items()]
    by_group = f" or a group of {'; '.join(columns[:5])}" if columns else ""
    return (
        f"I do not find those cells. Name some of the {n_cells:,}: *the first 20 cells*, *cells 5 to 9*, *cell 17*, "
        f"a cell's own name{by_group}."
    )


def many(n: int, noun: str) -> str:
    """A number with its noun: "1 cell", "2,000 cells"."""
    return f"{n:,} {noun}{'' if n == 1 else 's'}"


def _are(n: int) -> str:
    return "is" if n == 1 else "are"


def titled(name: str) -> str:
    """A name of ours or of a file, safe to stand in bold."""
    line = re.sub(r"\s+", " ", name).strip()[:80]
    return re.sub(r"([\\*_`<>\[\]#|~&$]|:(?=//)|(?<=www)\.)", r"\\\1", line, flags=re.IGNORECASE)


def quoted(text: object) -> str:
    """A name from a user's file as it may stand in an answer: one short line of code."""
    line = re.sub(r"\s+", " ", str(text)).replace("`", "'").strip()
    if len(line) > LONGEST_QUOTE:  # cut between words: half a word may be a gene's name
        line = f"{line[: LONGEST_QUOTE + 1].rpartition(' ')[0] or line[:LONGEST_QUOTE]}…"
    return f"`{line}`"


TEXTS: dict[str, Callable[[Result], str]] = {
    "first_look": first_look_text,
    "annotate": annotation_text,
    "count_cells": count_text,
    "explain": explain_text,
    "describe": describe_text,
    "quality": quality_text,
    "cluster": cluster_text,
    "embed": embed_text,
    "select": select_text,
    "find_by_text": find_text,
    "find_by_gene": find_text,
    "draw_map": map_text,
    "use_file": use_file_text,
    "close_file": close_file_text,
    "expression": expression_text,
    "compare": compare_text,
    "markers": knowledge_text,
    "knowledge": knowledge_text,
    "generate": generated_text,
    "compare_with_real": realness_text,
    "drug_response": drug_text,
    "rank_drugs": rank_text,
    "compare_drug": compare_drug_text,
    "known_drugs": known_drugs_text,
    "help": help_text,
    "undo": undo_text,
    "restart": restart_text,
    "export": export_text,
}
