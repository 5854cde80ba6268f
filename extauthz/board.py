"""What the processes that share a port know of each other: one state each, in shared memory.

A probe reaches any one of the workers, and its answer has to speak for all of them.
"""

from __future__ import annotations

import enum
import mmap
import os
import tempfile

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
    """One byte for each worker, written by that worker and read by all.

    A forked process sees the same memory; one that was started anew finds it by the descriptor of a file that
    has no name.
    """

    def __init__(self, workers: int, file: int | None = None) -> None:
        """*file* is the descriptor of a board that is there already."""
        self.file = _nameless(workers) if file is None else file
        self._states = mmap.mmap(self.file, workers)

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


def _nameless(size: int) -> int:
    """Make a file of *size* zeros that only its descriptor leads to."""
    if hasattr(os, "memfd_create"):  # in memory: the file system may be read-only
        file = os.memfd_create("extauthz-board")
    else:
        with tempfile.TemporaryFile() as made:
            file = os.dup(made.fileno())
    os.ftruncate(file, size)
    return file
