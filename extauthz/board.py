"""What the processes that share a port know of each other: one state each, in shared memory.

A probe reaches any one of the workers, and its answer has to speak for all of them.
"""

from __future__ import annotations

import enum
import mmap

from extauthz.readiness import Component


class State(enum.IntEnum):
    """Where a worker is in its life."""

    STARTING = 0
    """Not there yet, or gone and about to be started again."""
    WAITING = 1
    """Running, but a part of it is not ready."""
    READY = 2
    LEAVING = 3


_IN_WORDS = {State.STARTING: "is starting", State.WAITING: "is not ready", State.LEAVING: "is stopping"}


class Board:
    """One byte for each worker, written by that worker and read by all. Make it before forking."""

    def __init__(self, workers: int) -> None:
        self._states = mmap.mmap(-1, workers)  # anonymous and shared: a forked process sees the same memory

    def __getitem__(self, worker: int) -> State:
        return State(self._states[worker])

    def __setitem__(self, worker: int, state: State) -> None:
        self._states[worker] = state

    def others(self, worker: int) -> tuple[Component, ...]:
        """Sum up the workers beside *worker* as one part of its readiness; none when it is alone."""
        count = len(self._states)
        if count == 1:
            return ()
        reasons = [
            f"worker {other + 1} of {count} {_IN_WORDS[state]}"
            for other in range(count)
            if other != worker and (state := self[other]) in _IN_WORDS
        ]
        return (Component("other workers", not reasons, ", ".join(reasons)),)
