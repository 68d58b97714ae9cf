"""Twenty people at once: errors, whose cells are whose, and how long the first words of each answer take.

    python benchmarks/load.py                      (or `make bench-load`)
    python benchmarks/load.py --users 40 --cells 500 --json

One `instructcell chat` is started as a user starts it. Every user is a gradio_client with cells of its own (no other
has as many, and their names say whose they are), opens them and asks, one question after the other without a pause, all
users at the same time. One more user has a large file annotated meanwhile: it must not keep the others waiting.
"""

from __future__ import annotations

import argparse
import json
import re
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
from speed import describe, free_port, peak_of, wait_for_page

QUESTIONS = (
    "Describe the data",
    "Which cell types are these?",
    "How many beta cells are there?",
    "What marks a delta cell?",
    "Would gefitinib work on these cells?",
    "Generate 20 beta cells",
)
LONG = "Which cell types are these?"
GOAL_SECONDS = 5.0  # to the first words of an answer, the median over all questions of all users
PATIENT: dict[str, Any] = {"trust_env": False, "timeout": 600}  # seconds; what takes long is measured, not cut off
OWNER = re.compile(r"\buser(?:\d\d|XX)\b")
RESULTS = Path(__file__).parent / "results" / "load.json"


@dataclass
class User:
    """One user: how many cells are his, and what he met.

    `first` and `whole` are seconds per question to the first words of its answer and to its end.
    """

    name: str
    n_cells: int
    opened: float = 0.0
    first: dict[str, float] = field(default_factory=dict)
    whole: dict[str, float] = field(default_factory=dict)
    errors: list[str] = field(default_factory=list)
    strange: list[str] = field(default_factory=list)  # what was seen of other users
    ended: float = 0.0  # on the clock of `time.monotonic`


def write_cells(folder: Path, user: User) -> Path:
    """The demo islet cells, repeated up to the number of the user, under names that say whose they are."""
    import numpy as np
    import pandas as pd
    from anndata import AnnData

    from instructcell.cells import read
    from instructcell.resources import demo_path

    cells = read(demo_path("islets"))
    obs = pd.DataFrame({"owner": user.name}, index=[f"{user.name}-{i}" for i in range(user.n_cells)])
    path = folder / f"{user.name}.h5ad"
    AnnData(cells.X[np.resize(np.arange(cells.n_obs), user.n_cells)], obs=obs, var=cells.var[[]]).write_h5ad(path)
    return path


def visit(address: str, user: User, file: Path, start: threading.Barrier, questions: tuple[str, ...]) -> None:
    """Open the file, ask the questions, and look at whose cells the answers are about."""
    from gradio_client import Client, handle_file

    try:
        client = Client(address, verbose=False, httpx_kwargs=PATIENT)
        start.wait()
        begun = time.monotonic()
        opened = client.predict(handle_file(str(file)), "", api_name="/open_file")
        user.opened = time.monotonic() - begun
        look(user, opened, opened["facts"]["n_cells"])
        for question in questions:
            ask(client, user, question)
        (path,) = client.predict("annotated", api_name="/export")
        look_at_file(user, Path(path))
    except Exception as error:  # noqa: BLE001 - whatever it is, it is counted and told
        user.errors.append(f"{type(error).__name__}: {error}"[:300])
    user.ended = time.monotonic()


def ask(client: Any, user: User, question: str) -> None:
    """One question: its first words, its end, and what it says."""
    begun = time.monotonic()
    said: dict[str, Any] = {}
    for said in client.submit(question, api_name="/ask"):
        if question not in user.first and said.get("answer", "").strip():
            user.first[question] = time.monotonic() - begun
    user.whole[question] = time.monotonic() - begun
    if said.get("failure"):
        user.errors.append(f"{question}: {said['failure']}"[:300])
    types = said.get("tables", {}).get("cell types")
    look(user, said, sum(row["cells"] for row in types) if types else None)


def look(user: User, said: dict[str, Any], n_cells: int | None) -> None:
    """Note what does not belong to this user: another number of cells, another user's name."""
    text = json.dumps(said)
    if n_cells is not None and n_cells != user.n_cells:
        user.strange.append(f"{n_cells} cells instead of {user.n_cells}")
    user.strange += sorted(set(OWNER.findall(text)) - {user.name})


def look_at_file(user: User, path: Path) -> None:
    """The same of the annotated file that he takes home."""
    import anndata

    given = anndata.read_h5ad(path)
    if given.n_obs != user.n_cells or set(given.obs["owner"].astype(str)) != {user.name}:
        user.strange.append(f"a file of {given.n_obs} cells of {sorted(set(given.obs['owner'].astype(str)))}")


def storm(address: str, users: list[User], long: User, files: dict[str, Path]) -> None:
    """Everybody at once: the users ask all questions, each beginning with another one, and `long` only the one."""
    start = threading.Barrier(len(users) + 1)
    threads = [threading.Thread(target=visit, args=(address, long, files[long.name], start, (LONG,)))]
    for i, user in enumerate(users):
        turned = (*QUESTIONS[i % len(QUESTIONS) :], *QUESTIONS[: i % len(QUESTIONS)])
        threads.append(threading.Thread(target=visit, args=(address, user, files[user.name], start, turned)))
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def measure(n_users: int, n_cells: int, n_long: int, model: str) -> dict[str, Any]:
    """Start the chat, let the users in, and say what they met."""
    users = [User(f"user{i:02d}", n_cells + i) for i in range(n_users)]
    long = User("userXX", n_long)
    with tempfile.TemporaryDirectory(prefix="instructcell-load-") as name:
        folder = Path(name)
        files = {user.name: write_cells(folder, user) for user in (*users, long)}
        port = free_port()
        command = [sys.executable, "-m", "instructcell.cli", "chat", "--model", model, "--port", str(port)]
        with (folder / "chat.log").open("w") as log:
            server = subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT)
        try:
            address = f"http://127.0.0.1:{port}"
            with httpx.Client(base_url=address, trust_env=False) as browser:
                wait_for_page(browser, server, folder / "chat.log")
            warm_up(address)
            begun = time.monotonic()
            storm(address, users, long, files)
            return summary(users, long, time.monotonic() - begun, begun, peak_of(server.pid))
        finally:
            server.terminate()
            server.wait(timeout=60)


def warm_up(address: str) -> None:
    """Wait until the models are loaded; what that takes is measured by speed.py."""
    from gradio_client import Client

    Client(address, verbose=False, httpx_kwargs=PATIENT).predict("What does GCG do?", api_name="/ask")


def summary(users: list[User], long: User, seconds: float, begun: float, peak: float | None) -> dict[str, Any]:
    """Medians and extremes over all questions of all users, and per question."""
    first = [value for user in users for value in user.first.values()]
    everybody = [*users, long]
    return {
        "users": len(users),
        "questions": sum(len(user.whole) for user in users),
        "errors": [f"{user.name}: {text}" for user in everybody for text in user.errors],
        "cells of others seen": [f"{user.name}: {text}" for user in everybody for text in user.strange],
        "first words": spread(first),
        "open file": spread([user.opened for user in users]),
        "per question": {
            question: {
                "first words": spread([user.first[question] for user in users if question in user.first]),
                "whole answer": spread([user.whole[question] for user in users if question in user.whole]),
            }
            for question in QUESTIONS
        },
        "large file": {
            "cells": long.n_cells,
            "whole answer": long.whole.get(LONG),
            "users done before it": sum(user.ended < long.ended for user in users),
        },
        "users' last answers": spread([user.ended - begun for user in users]),
        "seconds": seconds,
        "server peak memory, GB": peak,
        "goal: median first words, s": GOAL_SECONDS,
    }


def spread(values: list[float]) -> dict[str, float]:
    """Smallest, median, 95th percentile and largest."""
    ordered = sorted(values) or [float("nan")]
    late = ordered[min(len(ordered) - 1, round(0.95 * (len(ordered) - 1)))]
    return {"min": ordered[0], "median": statistics.median(ordered), "p95": late, "max": ordered[-1]}


def markdown(about: dict[str, Any], found: dict[str, Any]) -> str:
    def row(what: str, values: dict[str, float]) -> str:
        return f"| {what} | " + " | ".join(f"{values[name]:.2f}" for name in ("min", "median", "p95", "max")) + " |"

    peak = found["server peak memory, GB"]
    return "\n".join(
        [
            f"Checkpoint {about['checkpoint'][:16]}, {about['cores']} CPU cores, torch {about['torch']}; load average "
            f"before: {about['load']}.",
            f"{found['users']} users, {found['questions']} questions in {found['seconds']:.0f} s, "
            f"{len(found['errors'])} errors, {len(found['cells of others seen'])} times cells of others; "
            f"peak memory of the server {'unknown' if peak is None else f'{peak:.2f} GB'}.",
            f"The large file ({found['large file']['cells']:,} cells) was annotated meanwhile; "
            f"{found['large file']['users done before it']} users were done before it.",
            "",
            "| seconds | min | median | 95 % | max |",
            "|---|---|---|---|---|",
            row(f"**first words, all questions** (goal: median < {GOAL_SECONDS:g})", found["first words"]),
            row("open a file", found["open file"]),
            *(
                row(f"{what}: {question}", values[what])
                for question, values in found["per question"].items()
                for what in ("first words", "whole answer")
            ),
            *found["errors"],
            *found["cells of others seen"],
        ]
    )


def main() -> None:
    parser = argparse.ArgumentParser(description="Many users at once at one chat.")
    parser.add_argument("--users", type=int, default=20)
    parser.add_argument("--cells", type=int, default=200, help="of the first user; every other has one more")
    parser.add_argument("--large", type=int, default=3000, help="cells of the user whose annotation goes on meanwhile")
    parser.add_argument("--model", default="mini", help="name or folder of a checkpoint")
    parser.add_argument("--json", action="store_true", help="print JSON and no table")
    parser.add_argument("--output", type=Path, default=RESULTS, help="where the JSON is written")
    chosen = parser.parse_args()
    about = describe(chosen.model, chosen.cells)
    found = measure(chosen.users, chosen.cells, chosen.large, chosen.model)
    content = json.dumps({**about, **found}, indent=1)
    chosen.output.parent.mkdir(parents=True, exist_ok=True)
    chosen.output.write_text(content + "\n", encoding="utf-8")
    print(content if chosen.json else markdown(about, found))
    if found["errors"] or found["cells of others seen"]:
        sys.exit(1)


if __name__ == "__main__":
    main()
