"""Time and memory of a fitted system, measured in a process of its own, so that no other system's memory is counted."""

from __future__ import annotations

import multiprocessing
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import psutil

from train.literature.cells import Cells
from train.literature.systems import SYSTEMS

WARM = 8  # cells that are named before the clock runs: what is loaded once is not counted


@dataclass(frozen=True)
class Job:
    """A system that was fitted in `folder`, and cells that it shall name."""

    system: str
    settings: Any
    folder: Path
    runs: Path
    known: Cells
    unseen: Cells
    seed: int = 0
    threads: int = 2


def measure_cost(job: Job) -> dict[str, float]:
    """Seconds per 1,000 cells (by the clock, and of all cores together) and the most memory of the process, MB."""
    context = multiprocessing.get_context("spawn")
    with context.Pool(1) as pool:  # an error of the system is raised here
        return pool.apply(_name_cells, (job,))


def _name_cells(job: Job) -> dict[str, float]:
    import torch

    torch.set_num_threads(job.threads)
    system = SYSTEMS[job.system](job.settings, job.folder, job.runs, job.seed)
    system.fit(job.known)
    system.recall = False  # vectors of the test cells were kept; here the time to make them counts
    system.predict(job.unseen[np.arange(min(WARM, len(job.unseen)))])
    wall, cpu = time.perf_counter(), time.process_time()
    seeds = len(system.predict(job.unseen))
    per_1000 = 1000 / len(job.unseen) / seeds
    return {
        "seconds_per_1000": round((time.perf_counter() - wall) * per_1000, 3),
        "cpu_seconds_per_1000": round((time.process_time() - cpu) * per_1000, 3),
        "peak_mb": round(peak_mb(), 1),
        "threads": job.threads,
    }


def peak_mb() -> float:
    """The most memory that this process has held, MB."""
    memory = psutil.Process().memory_info()
    if hasattr(memory, "peak_wset"):  # Windows
        return memory.peak_wset / 1024**2
    import resource
    import sys

    unit = 1024**2 if sys.platform == "darwin" else 1024  # bytes there, kilobytes elsewhere
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / unit
