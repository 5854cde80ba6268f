"""What the processes that share a port know of each other: a state and a record each, in shared memory.

A probe or a scrape reaches any one of the workers, and its answer has to speak for all of them.
"""

from __future__ import annotations

import enum
import mmap
import os
import struct
import tempfile
import zlib
from typing import Final

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


RECORD: Final = 256 * 1024
"""Bytes of a record with its heading, at most. What is not used takes no memory."""
ATTEMPTS: Final = 3
"""How often a record is looked for: one who writes fast may be at both places while we read."""
_HEADING: Final = struct.Struct("<QII")
"""Number of the record, its length, and a checksum over number and text."""


class TooLongError(ValueError):
    """There is no room for a record."""


class Board:
    """A state and a record for each worker, written by that worker and read by all.

    A record has two places that take turns, and a checksum. So one that is half written, by a process that
    is at it or was killed at it, is not read: the one before it is.

    A forked process sees the same memory; one that was started anew finds it by the descriptor of a file that
    has no name.
    """

    def __init__(self, workers: int, file: int | None = None) -> None:
        """*file* is the descriptor of a board that is there already."""
        self.workers = workers
        size = workers + 2 * workers * RECORD
        self.file = _nameless(size) if file is None else file
        self._memory = mmap.mmap(self.file, size)

    def __getitem__(self, worker: int) -> State:
        return State(self._memory[worker])

    def __setitem__(self, worker: int, state: State) -> None:
        self._memory[worker] = state

    def tell(self, worker: int, text: bytes) -> None:
        """Write the record of *worker*. Only one process may do so at a time, and only one thread.

        Raises:
            TooLongError: *text* has more bytes than there is room for; the record of before stays.

        """
        if len(text) > RECORD - _HEADING.size:
            raise TooLongError(f"{len(text)} bytes, and there is room for {RECORD - _HEADING.size}")
        number = self._latest(worker)[0] + 1
        start = self._place(worker, number)
        self._memory[start + _HEADING.size : start + _HEADING.size + len(text)] = text
        _HEADING.pack_into(self._memory, start, number, len(text), _checksum(number, text))

    def told(self, worker: int) -> bytes:
        """Return the last record of *worker*, from whatever process; nothing when there is none."""
        return self._latest(worker)[1]

    def _latest(self, worker: int) -> tuple[int, bytes]:
        """Return the last whole record and its number, 0 when there is none."""
        latest = (0, b"")
        for _ in range(ATTEMPTS):
            latest = max(self._record(self._place(worker, turn)) for turn in (0, 1))
            if latest[0]:
                break
        return latest

    def _place(self, worker: int, number: int) -> int:
        return self.workers + (2 * worker + number % 2) * RECORD

    def _record(self, start: int) -> tuple[int, bytes]:
        number, length, checksum = _HEADING.unpack_from(self._memory, start)
        if length <= RECORD - _HEADING.size:
            text = self._memory[start + _HEADING.size : start + _HEADING.size + length]
            if number and checksum == _checksum(number, text):
                return number, text
        return 0, b""

    def others(self, worker: int) -> tuple[Component, ...]:
        """Sum up the workers beside *worker* as one part of its readiness; none when it is alone."""
        count = self.workers
        if count == 1:
            return ()
        reasons = [
            f"worker {other + 1} of {count} {_IN_WORDS[state]}"
            for other in range(count)
            if other != worker and (state := self[other]) in _IN_WORDS
        ]
        return (Component("other workers", not reasons, ", ".join(reasons)),)


def _checksum(number: int, text: bytes) -> int:
    return zlib.crc32(text, zlib.crc32(number.to_bytes(8, "little")))


def _nameless(size: int) -> int:
    """Make a file of *size* zeros that only its descriptor leads to."""
    if hasattr(os, "memfd_create"):  # in memory: the file system may be read-only
        file = os.memfd_create("extauthz-board")
    else:
        with tempfile.TemporaryFile() as made:
            file = os.dup(made.fileno())
    os.ftruncate(file, size)
    return file
