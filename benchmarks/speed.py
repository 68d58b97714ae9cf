"""How fast and how large: first words, annotation, pseudo-cells, the command line and the chat page.

    python benchmarks/speed.py                    (or `make bench`)
    python benchmarks/speed.py --cells 10000 --repeats 5 --json

Every job runs in fresh processes of its own, so that its peak memory is its own; every figure is the smallest, the
median and the largest over the repeats. The cells are the demo islet cells, repeated up to the number asked for.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import resource
import socket
import statistics
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import httpx

QUESTIONS = {
    "cell types": "Which cell types are these?",
    "pseudo-cells": "Generate 50 beta cells",
    "drug response": "Would gefitinib work on these cells?",
    "markers": "What marks a delta cell?",
}
SESSION_QUESTIONS = {
    "cluster": "Cluster the cells",
    "annotate": "Which cell types are these?",
    "explain": "Why are these beta cells?",
}
N_PSEUDO_CELLS = 1000
START_SECONDS, ANSWER_SECONDS = 120, 300
BUDGETS = {  # DESIGN: two CPU cores, for 3,000 cells
    "first words": 1.0,
    "annotate": 15.0,
    "peak memory": 3.0,
    "chat: answers": 20.0,
    "explain": 5.0,
    "cluster and annotate": 25.0,
}


@dataclass(frozen=True)
class Measured:
    """A quantity over the repeats, in `unit`; `budget` is what its median must stay below."""

    what: str
    unit: str
    values: tuple[float, ...]
    budget: float | None = None

    def row(self) -> str:
        low, middle, high = min(self.values), statistics.median(self.values), max(self.values)
        budget = "" if self.budget is None else f"< {self.budget:g}"
        return f"| {self.what} | {self.unit} | {low:.2f} | {middle:.2f} | {high:.2f} | {len(self.values)} | {budget} |"


# ---- jobs, each in a process of its own


def job_first_words(file: Path, model: str, repeats: int) -> dict[str, Any]:
    """Seconds from a question to the first words of its answer and to its end: in a new session over cells read before.

    A drug answer begins by saying how many cells are read; only its end says when the prediction is there.
    """
    from instructcell.checkpoint import load_checkpoint
    from instructcell.events import TextDelta
    from instructcell.session import Session

    checkpoint = load_checkpoint(model)
    Session(checkpoint=checkpoint).warm_up()  # as the chat does while the page opens
    first: dict[str, list[float]] = {name: [] for name in QUESTIONS}
    whole: dict[str, list[float]] = {name: [] for name in QUESTIONS}
    for _ in range(repeats):
        for name, question in QUESTIONS.items():
            session = Session(checkpoint=checkpoint)
            session.load(file)
            started = time.perf_counter()
            words = [time.perf_counter() - started for event in session.send(question) if isinstance(event, TextDelta)]
            first[name].append(words[0])
            whole[name].append(time.perf_counter() - started)
    return {"first": first, "whole": whole}


def job_annotate(file: Path, model: str, repeats: int) -> dict[str, Any]:
    """Seconds to read the file and, apart, to annotate it."""
    from instructcell import tools
    from instructcell.cells import read
    from instructcell.checkpoint import load_checkpoint

    checkpoint = load_checkpoint(model)
    reading, annotating = [], []
    for _ in range(repeats):
        started = time.perf_counter()
        adata = read(file)
        reading.append(time.perf_counter() - started)
        started = time.perf_counter()
        tools.annotate(adata, checkpoint=checkpoint)
        annotating.append(time.perf_counter() - started)
    return {"reading": reading, "annotating": annotating}


def job_generate(file: Path, model: str, repeats: int) -> dict[str, Any]:
    """Seconds to make pseudo-cells of the first type that can be made."""
    from instructcell import tools
    from instructcell.checkpoint import load_checkpoint

    checkpoint = load_checkpoint(model)
    kind = next(label.name for label in checkpoint.labels if label.can_generate)
    seconds = []
    for seed in range(repeats):
        started = time.perf_counter()
        tools.generate(cell_type=kind, n=N_PSEUDO_CELLS, seed=seed, checkpoint=checkpoint)
        seconds.append(time.perf_counter() - started)
    return {"generating": seconds}


def job_session(file: Path, model: str, repeats: int) -> dict[str, Any]:
    """Seconds of whole answers in a new session over cells read before: why, and clusters and then types.

    The explanation is of cells that were annotated before; clusters and types are of cells that nothing is known of.
    """
    from instructcell.checkpoint import load_checkpoint
    from instructcell.session import Session

    checkpoint = load_checkpoint(model)
    Session(checkpoint=checkpoint).warm_up()
    seconds: dict[str, list[float]] = {"explain": [], "cluster": [], "annotate": []}
    for _ in range(repeats):
        session = Session(checkpoint=checkpoint)
        session.load(file)
        for name, question in SESSION_QUESTIONS.items():
            started = time.perf_counter()
            answered = list(session.send(question))
            seconds[name].append(time.perf_counter() - started)
            if session.history[-1].results[-1].tool != name:
                sys.exit(f"'{question}' was answered by {[type(event).__name__ for event in answered]}, not by {name}")
    return seconds


JOBS: dict[str, Callable[[Path, str, int], dict[str, Any]]] = {
    "first-words": job_first_words,
    "annotate": job_annotate,
    "generate": job_generate,
    "session": job_session,
}


def run_job(name: str, file: Path, model: str, repeats: int) -> dict[str, Any]:
    """One job in a fresh process: what it measured and its `peak` memory in GB."""
    command = [sys.executable, __file__, "--job", name, "--file", str(file), "--model", model]
    done = subprocess.run([*command, "--repeats", str(repeats)], stdout=subprocess.PIPE, text=True)
    if done.returncode:
        sys.exit(f"the job {name} failed with exit code {done.returncode}; its message stands above")
    return json.loads(done.stdout.splitlines()[-1])


# ---- the command line and the page, as users start them


def run_command_line(file: Path, model: str, repeats: int, folder: Path) -> tuple[list[float], list[float]]:
    """Whole runs of `instructcell annotate`: seconds and peak memory in GB, imports and writing included."""
    seconds, peaks = [], []
    for i in range(repeats):
        command = ["annotate", str(file), "-o", str(folder / f"annotated{i}.h5ad"), "--model", model, "--quiet"]
        started = time.perf_counter()
        process = subprocess.Popen([sys.executable, "-m", "instructcell.cli", *command], stdout=subprocess.DEVNULL)
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        if process.returncode:
            sys.exit(f"instructcell annotate ended with exit code {process.returncode}; its message stands above")
        seconds.append(time.perf_counter() - started)
        peaks.append(gigabytes(usage.ru_maxrss))
    return seconds, peaks


def visit_chat(file: Path, model: str, folder: Path) -> tuple[float, float, float, float | None]:
    """Start `instructcell chat FILE` and ask a question as soon as the page is up.

    Returns
    -------
    Seconds from the start until the page is served, until the cells are shown and until the first words of the answer;
    peak memory of the server in GB where the system tells it.
    """
    port = free_port()
    command = [sys.executable, "-m", "instructcell.cli", "chat", str(file), "--model", model, "--port", str(port)]
    started = time.perf_counter()
    with (folder / "chat.log").open("w") as log:
        server = subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT)
    try:
        with httpx.Client(base_url=f"http://127.0.0.1:{port}", trust_env=False, timeout=ANSWER_SECONDS) as browser:
            wait_for_page(browser, server, folder / "chat.log")
            served = time.perf_counter() - started
            greeting, asking = page_events(browser)
            visitor = uuid.uuid4().hex
            for _ in call_page(browser, visitor, greeting, []):
                pass
            read = time.perf_counter() - started
            for message in call_page(browser, visitor, asking, [None, QUESTIONS["cell types"]]):
                if answers(message, QUESTIONS["cell types"]):
                    break
            answered = time.perf_counter() - started
        return served, read, answered, peak_of(server.pid)
    finally:
        server.terminate()
        server.wait(timeout=30)


def wait_for_page(browser: httpx.Client, server: subprocess.Popen, log: Path) -> None:
    """Return when the page is answered with 200."""
    end = time.monotonic() + START_SECONDS
    while time.monotonic() < end:
        if server.poll() is not None:
            sys.exit(f"the chat stopped with exit code {server.returncode}:\n{log.read_text()}")
        try:
            if browser.get("/").status_code == httpx.codes.OK:
                return
        except httpx.TransportError:
            pass
        time.sleep(0.05)
    sys.exit(f"the chat did not serve its page within {START_SECONDS} s:\n{log.read_text()}")


def page_events(browser: httpx.Client) -> tuple[int, int]:
    """Numbers of the page's events: what happens when it opens, and when the question is sent."""
    found: dict[str, int] = {}
    for event in browser.get("/config").json()["dependencies"]:
        if not event.get("backend_fn", True):
            continue  # done by the browser alone
        for _, trigger in event["targets"]:
            found.setdefault(trigger, event["id"])
    return found["load"], found["submit"]


def call_page(browser: httpx.Client, visitor: str, event: int, data: list[Any]) -> Iterator[dict[str, Any]]:
    """Trigger an event as the page itself does and yield the server's messages until it is done."""
    call = {"data": data, "fn_index": event, "session_hash": visitor, "trigger_id": None, "event_data": None}
    browser.post("/gradio_api/queue/join", json=call).raise_for_status()
    with browser.stream("GET", "/gradio_api/queue/data", params={"session_hash": visitor}) as stream:
        for line in stream.iter_lines():
            if not line.startswith("data:"):
                continue
            message = json.loads(line.removeprefix("data:"))
            yield message
            if message["msg"] in ("process_completed", "close_stream"):
                if not message.get("success", True):
                    sys.exit(f"the page answered with an error: {message}")
                return


def answers(message: dict[str, Any], question: str) -> bool:
    """Whether a message from the server holds words of the assistant that follow the question."""
    said = json.dumps(message.get("output", {}))
    return '"assistant"' in said[said.rfind(question) :] if question in said else '"assistant"' in said


def free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


def peak_of(pid: int) -> float | None:
    """Peak memory of a running process in GB, from /proc where there is one."""
    status = Path(f"/proc/{pid}/status")
    if not status.is_file():
        return None
    line = next(line for line in status.read_text().splitlines() if line.startswith("VmHWM"))
    return int(line.split()[1]) / 1024**2


def gigabytes(max_rss: int) -> float:
    """ru_maxrss in GB: Linux counts kilobytes, macOS bytes."""
    return max_rss / 1024 ** (3 if sys.platform == "darwin" else 2)


# ---- everything together


def write_cells(path: Path, n_cells: int) -> None:
    """The demo islet cells, repeated up to `n_cells`, as a file of raw counts."""
    import numpy as np
    import pandas as pd
    from anndata import AnnData

    from instructcell.cells import read
    from instructcell.resources import demo_path

    cells = read(demo_path("islets"))
    obs = pd.DataFrame(index=[f"cell{i}" for i in range(n_cells)])
    AnnData(cells.X[np.resize(np.arange(cells.n_obs), n_cells)], obs=obs, var=cells.var[[]]).write_h5ad(path)


def measure(n_cells: int, model: str, repeats: int, say: Callable[[str], None]) -> list[Measured]:
    """Run every job on `n_cells` cells."""
    with tempfile.TemporaryDirectory(prefix="instructcell-bench-") as name:
        folder = Path(name)
        file = folder / "cells.h5ad"
        write_cells(file, n_cells)
        say("first words of an answer")
        words = run_job("first-words", file, model, repeats)
        say(f"annotating {n_cells:,} cells")
        work = run_job("annotate", file, model, repeats)
        say(f"generating {N_PSEUDO_CELLS:,} pseudo-cells")
        made = run_job("generate", file, model, repeats)
        say("clusters, types and an explanation")
        asked = run_job("session", file, model, repeats)
        say("instructcell annotate")
        whole, whole_peaks = run_command_line(file, model, repeats, folder)
        say("instructcell chat")
        visits = [visit_chat(file, model, folder) for _ in range(repeats)]
    served, read, answered, chat_peaks = zip(*visits, strict=True)
    annotating, many, memory = work["annotating"], f"{n_cells:,} cells", BUDGETS["peak memory"]
    peaks = tuple(peak for peak in chat_peaks if peak is not None)
    rows = [
        *(Measured(f"first words: {q}", "s", tuple(s), BUDGETS["first words"]) for q, s in words["first"].items()),
        *(Measured(f"whole answer: {q}", "s", tuple(s)) for q, s in words["whole"].items()),
        Measured("first words: peak memory", "GB", (words["peak"],), memory),
        Measured(f"read {many}", "s", tuple(work["reading"])),
        Measured(f"annotate {many}", "s", tuple(annotating), BUDGETS["annotate"] if n_cells <= 3000 else None),
        Measured(f"annotate {many}", "cells/s", tuple(n_cells / s for s in annotating)),
        Measured("annotate: peak memory", "GB", (work["peak"],), memory),
        Measured("explain: whole answer", "s", tuple(asked["explain"]), BUDGETS["explain"]),
        Measured(
            f"cluster and annotate {many}: whole answers",
            "s",
            tuple(map(sum, zip(asked["cluster"], asked["annotate"], strict=True))),
            BUDGETS["cluster and annotate"] if n_cells <= 3000 else None,
        ),
        Measured("cluster, annotate, explain: peak memory", "GB", (asked["peak"],), memory),
        Measured(f"generate {N_PSEUDO_CELLS:,} cells", "s", tuple(made["generating"])),
        Measured("generate: peak memory", "GB", (made["peak"],), memory),
        Measured(f"`instructcell annotate`, {many}, whole command", "s", tuple(whole)),
        Measured("`instructcell annotate`: peak memory", "GB", tuple(whole_peaks), memory),
        Measured("`instructcell chat`: page served", "s", served),
        Measured(f"`instructcell chat`: {many} read and shown", "s", read),
        Measured("`instructcell chat`: first words of the first answer", "s", answered, BUDGETS["chat: answers"]),
    ]
    return [*rows, *([Measured("`instructcell chat`: peak memory", "GB", peaks, memory)] if peaks else [])]


def describe(model: str, n_cells: int) -> dict[str, Any]:
    """What was measured, and on which machine."""
    import torch

    from instructcell import __version__
    from instructcell.checkpoint import load_checkpoint

    return {
        "instructcell": __version__,
        "checkpoint": load_checkpoint(model).hash,
        "cells": n_cells,
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "load": round(os.getloadavg()[0], 1),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "machine": platform.machine(),
    }


def markdown(about: dict[str, Any], rows: list[Measured]) -> str:
    head = [
        f"Checkpoint {about['checkpoint'][:16]}, {about['cores']} CPU cores, torch {about['torch']}.",
        f"Load average of the machine before the first job: {about['load']}.",
        "",
        "| what | unit | min | median | max | repeats | budget |",
        "|---|---|---|---|---|---|---|",
    ]
    return "\n".join([*head, *(row.row() for row in rows)])


def main() -> None:
    parser = argparse.ArgumentParser(description="Measure speed and memory of InstructCell.")
    parser.add_argument("--cells", type=int, default=3000, help="how many cells to annotate")
    parser.add_argument("--repeats", type=int, default=3, help="of every measurement")
    parser.add_argument("--model", default="mini", help="name or folder of a checkpoint")
    parser.add_argument("--json", action="store_true", help="print JSON and no table")
    parser.add_argument("--output", type=Path, help="also write the JSON to this file")
    parser.add_argument("--job", choices=JOBS, help=argparse.SUPPRESS)
    parser.add_argument("--file", type=Path, help=argparse.SUPPRESS)
    chosen = parser.parse_args()
    if chosen.job:
        found = JOBS[chosen.job](chosen.file, chosen.model, chosen.repeats)
        print(json.dumps({**found, "peak": gigabytes(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)}))
        return
    about = describe(chosen.model, chosen.cells)
    rows = measure(
        chosen.cells, chosen.model, chosen.repeats, lambda text: print(f"... {text}", file=sys.stderr, flush=True)
    )
    content = json.dumps({**about, "measured": [asdict(row) for row in rows]}, indent=1)
    if chosen.output:
        chosen.output.parent.mkdir(parents=True, exist_ok=True)
        chosen.output.write_text(content + "\n", encoding="utf-8")
    print(content if chosen.json else markdown(about, rows))


if __name__ == "__main__":
    main()
