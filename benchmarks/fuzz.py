"""Thousands of damaged files, each read, inspected and aligned: only clear errors may come out.

    python benchmarks/fuzz.py                         (or `make bench-fuzz`: 5,000 cases)
    python benchmarks/fuzz.py --cases 300 --seed 1 --only h5ad

Case number i of a seed is always the same file. The cases are made from the demo cells that ship: bytes turned, cut,
swapped or repeated, and the structure changed on purpose (shapes, pointers, types, attributes, links, pickles). Worker
processes are used again until one hangs, crashes or grows; every case that is neither read nor refused with an
`InstructCellError` counts as a failure and is kept with its traceback.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import platform
import sys
import tempfile
import time
import traceback
import warnings
from collections import Counter
from dataclasses import asdict, dataclass, field
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import h5py
import psutil
from fuzz_cases import CANARY, demo_cells, make_case, write_sources

from instructcell.align import align_genes
from instructcell.cells import read
from instructcell.doctor import inspect
from instructcell.errors import InstructCellError

RESULTS = Path(__file__).parent / "results" / "fuzz.json"
N_CASES, SECONDS, MEMORY = 5_000, 30.0, 2 * 2**30
HARD_MEMORY = 8 * 2**30  # address space of a worker: protects the machine, far above what may count as passed
MODEL_GENES = 250
PASSED = ("read", "refused")


@dataclass
class Outcome:
    """What became of one case: read, refused, traceback, hang, crash, memory or executed."""

    case: int
    kind: str
    mutation: str
    status: str
    words: str = ""
    seconds: float = 0.0
    megabytes: float = 0.0


# ---- one case


def run_case(case: int, path: Path, kind: str, mutation: str) -> Outcome:
    """Read a case, inspect it and align some of its cells."""
    outcome = Outcome(case, kind, mutation, "read")
    canary = Path(tempfile.gettempdir()) / CANARY
    started, worked = time.perf_counter(), sum(os.times()[:4])
    reset_peak()
    try:
        adata = read(path, backed=case % 4 == 3)
        report = inspect(adata)
        align_genes(adata, model_genes(), report, rows=slice(0, 16))
    except InstructCellError as error:
        outcome.status, outcome.words = "refused", str(error)
        if "\n" in outcome.words or len(outcome.words) > 1500:
            outcome.status, outcome.words = "traceback", f"not one sentence: {outcome.words[:300]}"
    except Exception:
        outcome.status, outcome.words = "traceback", traceback.format_exc()
    outcome.seconds, worked = round(time.perf_counter() - started, 3), sum(os.times()[:4]) - worked
    peak = peak_memory()
    outcome.megabytes = round(peak / 2**20, 1)
    if canary.exists():
        outcome.status = "executed"
    elif peak > MEMORY:
        outcome.status, outcome.words = "memory", f"{outcome.status}: {outcome.words}"
    elif outcome.seconds > SECONDS and worked > SECONDS / 3:  # less work means that others had the processor
        outcome.status, outcome.words = "hang", f"{outcome.status}: {outcome.words}"
    return outcome


def model_genes() -> list[str]:
    """Genes that a model could ask for: of the whole file, so that a good file aligns."""
    if not _GENES:
        _GENES.extend(map(str, demo_cells().var_names[:MODEL_GENES]))
    return _GENES


_GENES: list[str] = []


def reset_peak() -> None:
    """Let the system forget how large this process was (Linux); elsewhere the peak is of the worker's whole life."""
    try:
        Path("/proc/self/clear_refs").write_text("5")
    except OSError:
        return


def peak_memory() -> int:
    """Largest resident memory since `reset_peak`, in bytes."""
    try:
        status = Path("/proc/self/status").read_text()
    except OSError:
        import resource

        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    return int(status.split("VmHWM:")[1].split()[0]) * 1024


# ---- the workers


def work(pipe: Connection, seed: int, sources: str, only: str | None) -> None:
    """Run the cases that come through the pipe, one after the other."""
    import resource

    warnings.simplefilter("ignore")
    resource.setrlimit(resource.RLIMIT_AS, (HARD_MEMORY, HARD_MEMORY))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    model_genes()
    while (case := pipe.recv()) is not None:
        with tempfile.TemporaryDirectory(prefix="fuzz-") as folder:
            tempfile.tempdir = folder
            path, kind, mutation = make_case(case, seed, Path(sources), Path(folder), only)
            pipe.send((kind, mutation))
            outcome = run_case(case, path, kind, mutation)
            tempfile.tempdir = None
        pipe.send(outcome)


@dataclass
class Worker:
    """A process that takes cases, replaced when it hangs or dies."""

    seed: int
    sources: Path
    only: str | None
    process: Any = None
    pipe: Any = None
    running: Outcome | None = None
    since: float = 0.0  # on the clock
    worked: float = 0.0  # seconds of processor time before this case

    def give(self, case: int) -> None:
        """Start a case, in a new process if need be."""
        if self.process is None or not self.process.is_alive():
            context = multiprocessing.get_context("spawn")
            self.pipe, theirs = context.Pipe()
            arguments = (theirs, self.seed, str(self.sources), self.only)
            self.process = context.Process(target=work, args=arguments, daemon=True)
            self.process.start()
            theirs.close()
        self.running = Outcome(case, "", "", "crash")
        self.since = float("inf")  # the clock starts when the case is made
        self.pipe.send(case)

    def look(self, seconds: float) -> Outcome | None:
        """The outcome when there is one; a hang or a crash is one as well."""
        try:
            while self.pipe.poll(0.01):
                message = self.pipe.recv()
                if isinstance(message, Outcome):
                    return message
                self.running.kind, self.running.mutation = message
                self.since, self.worked = time.monotonic(), self._work()
        except (EOFError, OSError):
            self.process.join()
            self.running.words = f"the process ended with {self.process.exitcode}"
            self.process = None
            return self.running
        waited = time.monotonic() - self.since
        if waited > 20 * seconds or (waited > 2 * seconds and self._work() - self.worked > seconds):
            self.process.kill()
            self.process.join()
            self.process = None
            self.running.status, self.running.seconds = "hang", round(waited, 1)
            return self.running
        return None

    def _work(self) -> float:
        return sum(psutil.Process(self.process.pid).cpu_times()[:2])

    def end(self) -> None:
        """Let the process end."""
        if self.process is not None:
            self.pipe.send(None)
            self.process.join(10)


@dataclass
class Report:
    """All outcomes of a run."""

    seed: int
    outcomes: list[Outcome] = field(default_factory=list)

    @property
    def failures(self) -> list[Outcome]:
        """Cases that were neither read nor refused."""
        return [outcome for outcome in self.outcomes if outcome.status not in PASSED]

    @property
    def slowest(self) -> float:
        """Seconds of the slowest case."""
        return max((outcome.seconds for outcome in self.outcomes), default=0.0)

    @property
    def largest(self) -> float:
        """Megabytes of the largest case."""
        return max((outcome.megabytes for outcome in self.outcomes), default=0.0)

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON: the counts, the limits, the machine, and every failure with its words."""
        counts = Counter((o.kind, o.mutation, o.status) for o in self.outcomes)
        rows = [{"kind": k, "damage": m, "status": s, "cases": n} for (k, m, s), n in sorted(counts.items())]
        return {
            "cases": len(self.outcomes),
            "seed": self.seed,
            "limits": {"seconds": SECONDS, "megabytes": MEMORY / 2**20},
            "statuses": dict(Counter(outcome.status for outcome in self.outcomes)),
            "slowest_seconds": self.slowest,
            "largest_megabytes": self.largest,
            "machine": {"python": platform.python_version(), "cpus": os.cpu_count(), "hdf5": h5py.version.hdf5_version},
            "slowest": [asdict(o) for o in sorted(self.outcomes, key=lambda o: -o.seconds)[:5]],
            "by_damage": rows,
            "failures": [asdict(outcome) for outcome in self.failures],
        }

    def to_markdown(self) -> str:
        """A row for each kind and damage, then the totals and the failures."""
        statuses = [*PASSED, *sorted({outcome.status for outcome in self.failures})]
        counts = Counter((o.kind, o.mutation, o.status) for o in self.outcomes)
        rows = sorted({(o.kind, o.mutation) for o in self.outcomes})
        lines = [f"| kind | damage | {' | '.join(statuses)} |", "|---|---|" + "---:|" * len(statuses)]
        lines += [f"| {k} | {m} | {' | '.join(str(counts[k, m, s]) for s in statuses)} |" for k, m in rows]
        n, bad = len(self.outcomes), len(self.failures)
        lines += [
            "",
            f"{n:,} cases of seed {self.seed}: {bad} failures; "
            f"slowest {self.slowest:.1f} s, largest {self.largest:,.0f} MB",
        ]
        for outcome in self.failures[:20]:
            lines.append(f"- case {outcome.case} ({outcome.kind}, {outcome.mutation}): {outcome.status}")
            lines += [f"      {line}" for line in outcome.words.strip().splitlines()[-3:]]
        return "\n".join(lines)


def fuzz(cases: range, *, seed: int = 0, workers: int = 2, only: str | None = None, quiet: bool = True) -> Report:
    """Run cases in worker processes.

    Parameters
    ----------
    cases
        Numbers of the cases.
    seed
        Which sequence of cases.
    workers
        Processes at a time.
    only
        "h5ad", "csv" or "mtx" for one kind alone.
    """
    report, waiting = Report(seed), list(cases)[::-1]
    with tempfile.TemporaryDirectory(prefix="fuzz-sources-") as name, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        write_sources(Path(name))
        idle = [Worker(seed, Path(name), only) for _ in range(min(workers, len(waiting)))]
        busy: list[Worker] = []
        while waiting or busy:
            while waiting and idle:
                busy.append(idle.pop())
                busy[-1].give(waiting.pop())
            for worker in list(busy):
                outcome = worker.look(SECONDS)
                if outcome is not None:
                    report.outcomes.append(outcome)
                    busy.remove(worker)
                    idle.append(worker)
                    if not quiet and len(report.outcomes) % 100 == 0:
                        n, bad = len(report.outcomes), len(report.failures)
                        print(f"... {n:,} of {len(cases):,}, {bad} failures", file=sys.stderr, flush=True)
        for worker in idle:
            worker.end()
    report.outcomes.sort(key=lambda outcome: outcome.case)
    return report


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cases", type=int, default=N_CASES)
    parser.add_argument("--first", type=int, default=0, help="number of the first case")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--only", choices=["h5ad", "csv", "mtx"])
    parser.add_argument("--json", action="store_true", help="print JSON and no table; write no file")
    chosen = parser.parse_args()
    cases = range(chosen.first, chosen.first + chosen.cases)
    started = time.monotonic()
    report = fuzz(cases, seed=chosen.seed, workers=chosen.workers, only=chosen.only, quiet=False)
    content = json.dumps(report.to_dict() | {"total_seconds": round(time.monotonic() - started, 1)}, indent=1)
    if chosen.cases >= N_CASES and chosen.only is None:
        RESULTS.parent.mkdir(exist_ok=True)
        RESULTS.write_text(content + "\n", encoding="utf-8")
    print(content if chosen.json else report.to_markdown())
    return 1 if report.failures else 0


if __name__ == "__main__":
    sys.exit(main())
