"""Fair timing on a noisy machine: cases take turns in short bursts, and medians are compared.

Two cases measured one after the other differ by what else the machine was doing. Here each round runs every
case once, in an order that rotates, so that a slow moment strikes all of them; a case's time is the median
over the rounds, and its ratio to the first case is the median of the rounds' ratios.
"""

from __future__ import annotations

import gc
import statistics
import time
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

BURST = 0.002
"""Seconds that one case runs in a round: long beside the clock's grain, short beside a scheduler's slice."""


@dataclass(frozen=True, slots=True)
class Case:
    """Something to be timed. *budget* is the most that its median may be, in microseconds."""

    run: Callable[[], object]
    budget: float | None = None


@dataclass(frozen=True, slots=True)
class Measurement:
    """One figure. *low* and *high* are the 10th and the 90th percentile of the rounds."""

    phase: str
    case: str
    value: float
    unit: str = "µs"
    low: float | None = None
    high: float | None = None
    ratio: float | None = None
    """To the phase's first case."""
    budget: float | None = None
    more_is_better: bool = False

    @property
    def within_budget(self) -> bool | None:
        """Whether the budget is kept; None if there is none."""
        if self.budget is None:
            return None
        return self.value >= self.budget if self.more_is_better else self.value <= self.budget


def paired(phase: str, cases: Mapping[str, Case], rounds: int) -> Iterator[Measurement]:
    """Time *cases* against each other; the first one is what the others are compared with."""
    repeats = {name: _repeats(case.run) for name, case in cases.items()}
    times: dict[str, list[float]] = {name: [] for name in cases}
    with _without_garbage_collection():
        for number in range(rounds):
            for name in _rotated(list(cases), number):
                times[name].append(_burst(cases[name].run, repeats[name]))
    first = times[next(iter(cases))]
    for name, case in cases.items():
        ratios = [one / other for one, other in zip(times[name], first, strict=True)]
        yield Measurement(
            phase,
            name,
            statistics.median(times[name]),
            low=_percentile(times[name], 10),
            high=_percentile(times[name], 90),
            ratio=statistics.median(ratios),
            budget=case.budget,
        )


def empty_call() -> float:
    """Microseconds for a call of nothing: what figures from different machines can be divided by."""
    return statistics.median(_burst(lambda: None, 10_000) for _ in range(51))


def _burst(run: Callable[[], object], repeats: int) -> float:
    """Microseconds of processor time for one call, the loop around it included (some 20 ns).

    Processor time of this thread: what others run on the same machine in the meantime is not counted.
    """
    start = time.thread_time()
    for _ in range(repeats):
        run()
    return (time.thread_time() - start) / repeats * 1e6


def _repeats(run: Callable[[], object]) -> int:
    """How many calls fill a burst, once caches are warm: the first calls do what is never done again."""
    for _ in range(8):
        run()
    repeats = 1
    while (taken := _burst(run, repeats) * repeats / 1e6) < BURST / 4:
        repeats *= 4
    return max(1, round(repeats * BURST / taken))


def _rotated(names: list[str], by: int) -> list[str]:
    by %= len(names)
    return names[by:] + names[:by]


def _percentile(times: list[float], percent: int) -> float:
    return sorted(times)[len(times) * percent // 100]


@contextmanager
def _without_garbage_collection() -> Iterator[None]:
    """Collect before and not during: a collection would be charged to whoever allocates next."""
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        gc.enable()
