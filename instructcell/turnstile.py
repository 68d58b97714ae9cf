"""Who computes next, when many conversations share the cores: the one that has had the least of them.

    turnstile = Turnstile()
    for event in turnstile.paced(session.send("Which cell types are these?")):
        ...

A turn is taken step by step, a step being the work up to its next event, and as many steps run at once as there are
cores. Whoever waits with the least time used goes first ("least attained service"), so that the first words of a new
question never wait for the end of a long annotation, and two long ones go on side by side.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TypeVar

Item = TypeVar("Item")

FRESH_SECONDS = 2.0  # of use, up to which a turn may take the place that is kept for new ones
PATIENCE = 20.0  # so many seconds of waiting weigh as much as one of use: nobody waits for ever


@dataclass(eq=False)
class _Turn:
    """One turn of a conversation: what it has used, and since when it waits (seconds)."""

    used: float = 0.0
    since: float = 0.0

    def rank(self, now: float) -> float:
        """The smallest goes first."""
        return self.used - (now - self.since) / PATIENCE


class Turnstile:
    """Lets the steps of many turns through, a few at a time.

    Parameters
    ----------
    n_places
        Steps that run at the same time; the number of cores by default. One more place is kept for turns that have
        just begun, so that steps which cannot be interrupted do not keep everybody else waiting.
    clock
        Seconds that only go forward.
    set_threads
        Told before each step how many threads it should compute with; torch's by default.
    """

    def __init__(
        self,
        n_places: int | None = None,
        *,
        clock: Callable[[], float] = time.monotonic,
        set_threads: Callable[[int], None] | None = None,
    ) -> None:
        self.n_cores = _cores()
        self.n_places = n_places or self.n_cores
        self._clock = clock
        self._set_threads = set_threads or _set_torch_threads
        self._changed = threading.Condition()
        self._waiting: list[_Turn] = []
        self._running: list[_Turn] = []

    def paced(self, steps: Iterable[Item]) -> Generator[Item, None, None]:
        """The items of a generator, each computed when its turn has come; leaving the loop closes the generator."""
        turn, items = _Turn(), iter(steps)
        try:
            while True:
                with self._place(turn):
                    try:
                        item = next(items)
                    except StopIteration:
                        return
                yield item
        finally:
            close = getattr(items, "close", None)
            if close is not None:
                close()

    @property
    def n_waiting(self) -> int:
        """How many turns wait for a place."""
        return len(self._waiting)

    @contextmanager
    def _place(self, turn: _Turn) -> Iterator[None]:
        with self._changed:
            turn.since = self._clock()
            self._waiting.append(turn)
            self._changed.wait_for(lambda: self._next() is turn)
            self._waiting.remove(turn)
            self._running.append(turn)
            threads = max(1, self.n_cores // len(self._running))
            self._changed.notify_all()  # the place after this one may be free as well
        begun = self._clock()
        try:
            self._set_threads(threads)
            yield
        finally:
            with self._changed:
                turn.used += self._clock() - begun
                self._running.remove(turn)
                self._changed.notify_all()

    def _next(self) -> _Turn | None:
        """Who may go now, if anybody."""
        now = self._clock()
        ranked = sorted(self._waiting, key=lambda turn: turn.rank(now))
        if not ranked or len(self._running) < self.n_places:
            return ranked[0] if ranked else None
        if len(self._running) > self.n_places:
            return None
        return next((turn for turn in ranked if turn.used < FRESH_SECONDS), None)


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _set_torch_threads(n: int) -> None:
    """Threads of torch's operators in this thread; as many as before, when torch was given fewer on purpose."""
    import torch

    given = os.environ.get("OMP_NUM_THREADS", "")
    torch.set_num_threads(min(n, int(given)) if given.isdigit() and int(given) else n)
