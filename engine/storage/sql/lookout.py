"""Looking for changes at an interval, and at once when somebody says that there is one."""

from __future__ import annotations

import logging
import threading
import time
from typing import TYPE_CHECKING, Final

from engine.storage.polling import varied

if TYPE_CHECKING:
    from collections.abc import Callable

logger = logging.getLogger(__name__)

QUIET: Final = 0.1
"""Seconds without a word of a change after which a burst of them counts as over."""

LONGEST_BURST: Final = 1.0
"""Seconds after which changes are looked for although there is more word of them."""


class Lookout:
    """Calls something at an interval and when woken, from a thread of its own, until it is stopped."""

    def __init__(self, name: str, interval: float, look: Callable[[], object]) -> None:
        """*interval* in seconds, 0 for only when woken; *name* is the thread's."""
        self._interval = interval
        self._look = look
        self._wake = threading.Event()
        self._stop = False
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)

    def start(self) -> None:
        """Begin; the first look comes after one interval."""
        self._thread.start()

    def wake(self) -> None:
        """Look soon; a burst of calls is one look."""
        self._wake.set()

    def stop(self, timeout: float = 5.0) -> None:
        """End. A look under way is waited for, *timeout* seconds at most."""
        self._stop = True
        self._wake.set()
        if self._thread.is_alive() and self._thread is not threading.current_thread():
            self._thread.join(timeout)

    def _run(self) -> None:
        while True:
            woken = self._wake.wait(self._wait())
            if woken:
                self._settle()
            if self._stop:
                return
            try:
                self._look()
            except Exception:  # whatever it is, the next look may find all well again
                logger.exception("looking for changes failed")

    def _wait(self) -> float | None:
        if not self._interval:
            return None
        return varied(self._interval)

    def _settle(self) -> None:
        """Wait for the end of a burst."""
        end = time.monotonic() + LONGEST_BURST
        while not self._stop and time.monotonic() < end:
            self._wake.clear()
            if not self._wake.wait(QUIET):
                return
        self._wake.clear()
