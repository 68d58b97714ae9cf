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
from train.literature.systems import SYSTEMS, System

WARM = 8  # cells that are named before the clock runs: what is loaded once is not counted
ENOUGH = 1000  # cells for a system that is fast,
SHORT = 10.0  # that is, names all test cells in fewer seconds


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
    wall, cpu, seeds = _clocked(system, job.unseen)
    cells = len(job.unseen)
    if wall < SHORT and cells < ENOUGH:  # what a call costs once would be counted for too few cells
        cells = ENOUGH
        wall, cpu, seeds = _clocked(system, job.unseen[np.resize(np.arange(len(job.unseen)), cells)])
    per_1000 = 1000 / cells / seeds
    return {
        "seconds_per_1000": round(wall * per_1000, 3),
        "cpu_seconds_per_1000": round(cpu * per_1000, 3),
        "peak_mb": round(peak_mb(), 1),
        "cells": cells,
        "threads": job.threads,
    }


def _clocked(system: System, cells: Cells) -> tuple[float, float, int]:
    """Seconds by the clock and of all cores, and how many seeds the answers are of."""
    wall, cpu = time.perf_counter(), time.process_time()
    seeds = len(system.predict(cells))
    return time.perf_counter() - wall, time.process_time() - cpu, seeds


def peak_mb() -> float:
    """The most memory that this process has held, MB."""
    memory = psutil.Process().memory_info()
    if hasattr(memory, "peak_wset"):  # Windows
        return memory.peak_wset / 1024**2
    import resource
    import sys

    unit = 1024**2 if sys.platform == "darwin" else 1024  # bytes there, kilobytes elsewhere
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / unit
