"""Looking again: at an interval, and after a failure."""

from __future__ import annotations

import contextlib
import logging
import random
import threading
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol, TypeVar, runtime_checkable

from engine.storage import StoreError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

logger = logging.getLogger(__name__)

T = TypeVar("T")

JITTER = 0.1
"""The part of an interval by which it is varied, so that many replicas do not ask at the same moment."""

_chance = random.Random()  # noqa: S311 - no secret; of our own, as a program may count on the common one


def varied(interval: float) -> float:
    """Return *interval*, a little longer or shorter each time."""
    return interval * _chance.uniform(1 - JITTER, 1 + JITTER)


@dataclass(slots=True)
class Looks:
    """How often a store has asked the place it follows, also when nothing was new: what metrics tell."""

    made: int = 0
    failed: int = 0
    last_success: float = 0.0
    """Seconds since the epoch; 0 for never."""

    @contextlib.contextmanager
    def counted(self) -> Iterator[None]:
        """Count one look, which is what runs inside; one that raises has failed."""
        self.made += 1
        try:
            yield
        except BaseException:
            self.failed += 1
            raise
        self.last_success = time.time()


@runtime_checkable
class Looking(Protocol):
    """A store that looks for changes by itself, and counts how often."""

    @property
    def looks(self) -> Looks:
        """How often so far; the same object each time."""


class Poller:
    """Calls something at an interval, from a thread of its own, until it is stopped."""

    def __init__(self, name: str, interval: float, call: Callable[[], object]) -> None:
        """*interval* in seconds; *name* is the thread's."""
        self._interval = interval
        self._call = call
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)

    def start(self) -> None:
        """Begin; the first call comes after one interval."""
        self._thread.start()

    def stop(self, timeout: float = 5.0) -> None:
        """End. A call under way is waited for, *timeout* seconds at most."""
        self._stop.set()
        if self._thread.is_alive() and self._thread is not threading.current_thread():
            self._thread.join(timeout)

    def _run(self) -> None:
        while not self._stop.wait(varied(self._interval)):
            try:
                self._call()
            except Exception:  # whatever it is, the next look may find all well again
                logger.exception("looking for changes failed")


def with_retries(attempt: Callable[[], T], *, attempts: int, first_delay: float, longest_delay: float) -> T:
    """Return what *attempt* returns; when the store cannot be had, wait and try again, longer each time.

    *attempts* is how often at most, the first one included; delays are in seconds.

    Raises:
        StoreError: that of the last attempt.

    """
    for number in range(1, attempts):
        try:
            return attempt()
        except StoreError as error:
            delay = min(first_delay * 2.0 ** (number - 1), longest_delay)
            logger.warning("%s; trying again in %.1f s", error, delay)
            time.sleep(delay)
    return attempt()
