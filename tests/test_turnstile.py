"""Who computes next when many conversations share the cores."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest

from instructcell.turnstile import FRESH_SECONDS, PATIENCE, Turnstile

WAIT = 120  # seconds that no machine needs; only a deadlock does


class Clock:
    """Seconds that go forward when they are told to."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


class Steps:
    """A turn whose steps each wait to be let through, take some seconds of the clock, and note themselves."""

    def __init__(self, name: str, clock: Clock, seconds: list[float], done: list[str]) -> None:
        self.name, self.clock, self.seconds, self.done = name, clock, seconds, done
        self.entered, self.go = threading.Semaphore(0), threading.Semaphore(0)

    def __iter__(self) -> Iterator[str]:
        for second in self.seconds:
            self.entered.release()
            assert self.go.acquire(timeout=WAIT)
            self.clock.now += second
            self.done.append(self.name)
            yield self.name


def place(n: int = 1) -> tuple[Turnstile, Clock]:
    clock = Clock()
    return Turnstile(n, clock=clock, set_threads=lambda _: None), clock


def run(turnstile: Turnstile, steps: Steps) -> threading.Thread:
    thread = threading.Thread(target=lambda: list(turnstile.paced(iter(steps))), daemon=True)
    thread.start()
    return thread


def wait_until_waiting(turnstile: Turnstile, n: int) -> None:
    with turnstile._changed:
        assert turnstile._changed.wait_for(lambda: turnstile.n_waiting == n, timeout=WAIT)


def test_a_turn_gives_what_its_generator_gives() -> None:
    assert list(Turnstile().paced(iter("abc"))) == ["a", "b", "c"]


def test_an_error_goes_through_and_gives_the_place_back() -> None:
    def broken() -> Iterator[int]:
        yield 1
        raise KeyError("a bug")

    turnstile, _ = place()
    with pytest.raises(KeyError):
        list(turnstile.paced(broken()))
    assert list(turnstile.paced(iter("ab"))) == ["a", "b"]


def test_leaving_early_closes_the_generator_and_gives_the_place_back() -> None:
    closed = []

    def endless() -> Iterator[int]:
        try:
            while True:
                yield 1
        finally:
            closed.append(True)

    turnstile, _ = place()
    steps = turnstile.paced(endless())
    assert next(steps) == 1
    steps.close()
    assert closed == [True] and list(turnstile.paced(iter("a"))) == ["a"]


def test_a_new_turn_goes_before_a_long_one() -> None:
    turnstile, clock = place()
    done: list[str] = []
    long, short = Steps("long", clock, [10.0] * 3, done), Steps("short", clock, [0.1] * 2, done)
    threads = [run(turnstile, long)]
    assert long.entered.acquire(timeout=WAIT)
    threads.append(run(turnstile, short))
    assert short.entered.acquire(timeout=WAIT)  # the place for new turns: the long step has not even ended
    long.go.release()
    short.go.release(2)
    long.go.release(2)
    for thread in threads:
        thread.join(timeout=WAIT)
        assert not thread.is_alive()
    assert sorted(done) == ["long"] * 3 + ["short"] * 2


def test_who_has_used_least_goes_first_and_patience_counts() -> None:
    turnstile, clock = place()
    from instructcell.turnstile import _Turn

    greedy, modest, patient = _Turn(used=9.0, since=0.0), _Turn(used=1.0, since=0.0), _Turn(used=9.0, since=0.0)
    turnstile._waiting = [greedy, modest]
    assert turnstile._next() is modest
    clock.now = 9.0 * PATIENCE
    fresh = _Turn(used=0.0, since=clock.now)
    turnstile._waiting = [fresh, patient]
    assert turnstile._next() is fresh
    clock.now += 1.0
    fresh.since = clock.now
    assert turnstile._next() is patient


def test_no_more_run_at_once_than_there_are_places_and_one_for_new_turns() -> None:
    from instructcell.turnstile import _Turn

    turnstile, _ = place(2)
    turnstile._running = [_Turn(), _Turn()]
    old, new = _Turn(used=FRESH_SECONDS), _Turn(used=1.0)
    turnstile._waiting = [old]
    assert turnstile._next() is None
    turnstile._waiting = [old, new]
    assert turnstile._next() is new
    turnstile._running.append(new)
    turnstile._waiting = [_Turn()]
    assert turnstile._next() is None


def test_the_threads_are_shared_among_those_that_run() -> None:
    told: list[int] = []
    turnstile = Turnstile(set_threads=told.append)
    turnstile.n_cores = 8
    list(turnstile.paced(iter("a")))
    turnstile._running = [object()] * 3  # type: ignore[list-item]
    turnstile.n_places = 8
    steps = turnstile.paced(iter("a"))
    next(steps)
    assert told[0] == 8 and told[-1] == 2


def test_many_turns_at_once_all_end() -> None:
    turnstile = Turnstile(2, set_threads=lambda _: None)
    done: list[str] = []
    threads = [
        threading.Thread(target=lambda i=i: done.extend(turnstile.paced(f"{i}." for _ in range(50))), daemon=True)
        for i in range(24)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=WAIT)
    assert len(done) == 24 * 50 and not turnstile._running and turnstile.n_waiting == 0
