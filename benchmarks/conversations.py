"""Scripted conversations over the demo cells: what share of the turns is right?

    python benchmarks/conversations.py [--only NAME] [--folder FOLDER] [--quiet]

tests/conversations/*.yaml hold the turns and what each answer must contain or do. A turn is right when all of it holds
and when the answer states nothing that no tool returned. Exit code 1 below the goal. benchmarks/unseen/ holds
conversations that nothing was tuned to: `--folder benchmarks/unseen --quiet` says how new ones go.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import anndata as ad
import yaml

from instructcell.checkpoint import load_checkpoint
from instructcell.events import CellsGenerated, Event, Failed, FigureReady, FilesReady, TableReady
from instructcell.grounded import Returned, unsupported
from instructcell.resources import demo_path
from instructcell.session import Session, Turn
from instructcell.workspace import Result

FOLDER = Path(__file__).resolve().parent.parent / "tests" / "conversations"
GOAL = 0.95
KEYS = {"say", "tool", "has", "lacks", "cells", "made", "gives", "failed", "arguments", "facts"}
GIVES = {"cells": CellsGenerated, "figure": FigureReady, "table": TableReady, "files": FilesReady}


@dataclass(frozen=True)
class Conversation:
    """Turns over demo cells: the file's name ("" for none), and of its cells every so many-th."""

    name: str
    turns: list[dict[str, Any]]
    data: str = "islets"
    every: int = 4
    quick: bool = False
    obs: dict[str, list[str]] = field(default_factory=dict)  # columns to add, their values in turn


def conversations(folder: Path = FOLDER) -> Iterator[Conversation]:
    """All conversations of the YAML files.

    Raises
    ------
    ValueError
        A turn holds a key that means nothing.
    """
    for path in sorted(folder.glob("*.yaml")):
        for record in yaml.safe_load(path.read_text(encoding="utf-8")):
            one = Conversation(**record)
            for turn in one.turns:
                if strange := set(turn) - KEYS:
                    raise ValueError(f"{path.name}, {one.name}: unknown keys {sorted(strange)}; known: {sorted(KEYS)}")
            yield one


def play(conversation: Conversation, checkpoint: Any) -> Iterator[tuple[dict[str, Any], Turn, list[str]]]:
    """Each turn with what was answered and what is wrong with it."""
    session = Session(checkpoint=checkpoint)
    for number, name in enumerate(filter(None, conversation.data.split())):
        cells = demo(name)[number :: conversation.every].copy()
        for column, values in conversation.obs.items():
            cells.obs[column] = [values[i % len(values)] for i in range(cells.n_obs)]
        session.load(cells, name=f"{name}.h5ad")
    for turn in conversation.turns:
        events = list(session.send(turn["say"]))
        told = session.history[-1]
        yield turn, told, problems(turn, told, events)


@cache
def demo(name: str) -> ad.AnnData:
    """Demo cells, read once."""
    return ad.read_h5ad(demo_path(name))


def problems(turn: dict[str, Any], told: Turn, events: list[Event]) -> list[str]:
    """What an answer lacks or has too much."""
    failed = " ".join(f"{event.message} {event.remedy}" for event in events if isinstance(event, Failed))
    answer = f"{told.answer} {failed}"
    low, found = answer.replace("\\", "").lower(), []  # as it is read: an underscore is escaped in Markdown
    found += [f"lacks {words!r}" for words in _listed(turn.get("has")) if not _has(low, words)]
    found += [f"has {words!r}" for words in _listed(turn.get("lacks")) if words.lower() in low]
    tools = [result.tool for result in told.results]
    found += [f"did not call {tool}, but {tools}" for tool in _listed(turn.get("tool")) if tool not in tools]
    if bool(failed) != bool(turn.get("failed", False)):
        found.append(f"failed: {failed}" if failed else "did not fail")
    main = [result for result in told.results if result.tool in _listed(turn.get("tool"))] or told.results
    if "cells" in turn:
        called = [_cells_of(result) for result in main]
        right = any(str(turn["cells"]).lower() in name.lower() for name in called)
        found += [] if right else [f"the cells are {called}, not {turn['cells']!r}"]
    if "made" in turn:
        made = [result.facts.get("n") for result in main]
        found += [] if turn["made"] in made else [f"made {made}, not {turn['made']}"]
    for key, wanted in turn.get("facts", {}).items():
        values = [result.facts.get(key) for result in main]
        found += [] if wanted in values else [f"{key} is {values}, not {wanted!r}"]
    for key, wanted in turn.get("arguments", {}).items():
        values = [result.arguments.get(key) for result in main]
        found += [] if wanted in values else [f"argument {key} is {values}, not {wanted!r}"]
    for kind in _listed(turn.get("gives")):
        found += [] if any(isinstance(event, GIVES[kind]) for event in events) else [f"gives no {kind}"]
    if told.results:
        claims = unsupported(told.answer, Returned.by(told.results, told.question))
        found += [f"states {claim!r}, which no tool returned" for claim in claims]
    return found


def _cells_of(result: Result) -> str:
    """What the cells of a result are called, with the type that was counted and the groups that were compared."""
    named = [result.facts.get("cells", "")]
    if result.tool == "count_cells":
        named.append(result.facts.get("cell_type", ""))
    if result.tool == "compare":
        named += [group["name"] for group in result.facts.get("groups", [])]
    return " / ".join(map(str, filter(None, named)))


def _has(low: str, words: str) -> bool:
    return any(part.strip().lower() in low for part in words.split("|"))


def _listed(value: Any) -> list[str]:
    return [] if value is None else [str(one) for one in value] if isinstance(value, list) else [str(value)]


def main() -> int:
    """Play all conversations and print the share of right turns."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--only", default="", help="conversations whose name holds this")
    parser.add_argument("--folder", type=Path, default=FOLDER, help="of other conversations, e.g. benchmarks/unseen")
    parser.add_argument("--quiet", action="store_true", help="only the last line")
    parser.add_argument("--model", default="mini", help="checkpoint")
    asked = parser.parse_args()
    checkpoint = load_checkpoint(asked.model)
    right = total = whole = n = 0
    for one in conversations(asked.folder):
        if asked.only not in one.name:
            continue
        wrong = 0
        for turn, _, found in play(one, checkpoint):
            total, right, wrong = total + 1, right + (not found), wrong + bool(found)
            if found and not asked.quiet:
                print(f"{one.name}: {turn['say']!r}: {'; '.join(found)}", flush=True)
        whole, n = whole + (not wrong), n + 1
    if not total:
        print("no conversation of that name", file=sys.stderr)
        return 2
    print(f"{right} of {total} turns right ({right / total:.1%}), {whole} of {n} conversations without a wrong turn")
    return 0 if right / total >= GOAL else 1


if __name__ == "__main__":
    sys.exit(main())
