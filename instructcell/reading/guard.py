"""Whether an HDF5 file can be opened safely: asked in a short-lived process before this one touches the file.

The HDF5 library holds Python's global lock while it works, so a loop in it could not be stopped from a thread. The
other process (`probe`) may use `PROBE_MEMORY` and `PROBE_SECONDS` of processor time; waiting for a slow disk or a busy
machine does not count, only `timeout` bounds that. Of a large file it leaves parts unread (see `probe`); what is wrong
with them shows when they are read, as an error.
"""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import psutil

from instructcell.errors import ReadError
from instructcell.reading import probe

PROBE_MEMORY = 3 * 2**29  # address space: 1.5 GB
PROBE_SECONDS = 5  # a usual file takes less than half a second
LITTLE_WORK = 5.0  # seconds of processor time: less is waiting, for a disk or a turn
MOST_PATIENCE = 10  # times `timeout`
SPARE_MEMORY = 2**28  # left to the rest of the program
READ_IN_ROWS = "Open it with backed=True, as `instructcell annotate` does, or bring fewer cells."
FEWER_CELLS = "Bring fewer cells, or save them as .h5ad, which can be read in rows."


def check_hdf5(path: Path, *, timeout: float | None = 30.0) -> dict[str, int]:
    """Look through an HDF5 file in another process.

    Parameters
    ----------
    path
        The file.
    timeout
        Seconds after which a look that still works is given up (ten times as many when it mostly waits for the disk or
        the processor); None: the file is trusted and nothing is checked.

    Returns
    -------
    dict
        Bytes that each dataset takes in memory, by its path in the file; empty where nothing was checked.

    Raises
    ------
    ReadError
        The file is damaged, makes the library hang or crash, or draws on other files.

    Examples
    --------
    >>> sizes = check_hdf5(Path("cells.h5ad"))  # doctest: +SKIP
    """
    if timeout is None or not sys.executable:
        return {}
    command = [sys.executable, "-P", probe.__file__, os.fspath(path), str(PROBE_MEMORY), str(PROBE_SECONDS)]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
    with subprocess.Popen(
        command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environment
    ) as process:
        try:
            told, complaints = _wait(process, path, timeout)
        except BaseException:  # also when somebody presses Ctrl-C meanwhile
            process.kill()
            raise
    if process.returncode == probe.NO_H5PY:
        return {}
    if process.returncode < 0:
        raise ReadError(f"{path.name} is damaged: {_end_of(-process.returncode)}. Copy or download it again.")
    try:
        found = json.loads(told)
    except ValueError as error:
        words = complaints.decode(errors="replace").strip().splitlines()
        raise RuntimeError(f"the check of {path.name} ended with {process.returncode}: {words[-1:]}") from error
    if "lacks" in found:
        raise ReadError(
            f"{path.name} is compressed with {found['lacks']}, which needs hdf5plugin; it is not installed. Install it "
            "with pip install 'instructcell[hdf5plugin]', or save the file with gzip or lzf compression."
        )
    if "fault" in found:
        raise damaged(path.name, found["fault"])
    return {str(name): int(size) for name, size in found["sizes"].items()}


def _wait(process: subprocess.Popen[bytes], path: Path, timeout: float) -> tuple[bytes, bytes]:
    """What the probe wrote. One that got little of the processor is not looping but waits: for a disk or its turn."""
    patience = timeout
    while True:
        try:
            return process.communicate(timeout=timeout)
        except subprocess.TimeoutExpired as error:
            worked = sum(psutil.Process(process.pid).cpu_times()[:2])
            if worked < LITTLE_WORK and patience < MOST_PATIENCE * timeout:
                patience += timeout
                continue
            raise ReadError(
                f"{path.name} could not be looked through within {patience:.0f} s; it is damaged or lies on a very "
                "slow disk. Copy it to this machine's own disk, or download it again."
            ) from error


def check_memory(name: str, needed: int, remedy: str = READ_IN_ROWS) -> None:
    """Refuse what cannot fit before it is read; `needed` in bytes.

    Raises
    ------
    ReadError
        Says how much it takes and how much there is.
    """
    free = psutil.virtual_memory().available - SPARE_MEMORY
    if needed > free:
        raise ReadError(
            f"{name} needs {needed / 2**30:,.1f} GB of memory to be read, and {max(free, 0) / 2**30:,.1f} GB are free. "
            f"{remedy}"
        )


def damaged(name: str, words: str) -> ReadError:
    """The error for a file that a reader could not make sense of, in its words."""
    truncated = re.search(r"eof = (\d+).*stored_eof = (\d+)", words)
    if truncated:
        there, expected = (int(n) for n in truncated.groups())
        return ReadError(
            f"{name} is truncated: {there:,} of {expected:,} bytes are there. Copy or download it again, "
            "and wait until the upload is complete."
        )
    if "lock" in words and "unable to" in words:
        return ReadError(f"{name} is being written by another program. Close it there, then read it again.")
    detail = " ".join(words.split())[:160].rstrip(" .")
    return ReadError(
        f"{name} cannot be read as cells; it is damaged or of another program ({detail}). "
        "Copy it again, or open and save it with a current anndata."
    )


def _end_of(number: int) -> str:
    if number in (signal.SIGXCPU if hasattr(signal, "SIGXCPU") else -1, signal.SIGKILL if os.name == "posix" else -1):
        return f"following its structure did not end within {PROBE_SECONDS} s of work"
    return f"the HDF5 library crashed on it ({signal.Signals(number).name})"
