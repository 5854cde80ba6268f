"""Following a state elsewhere: asked for at an interval, announced once, handed out as a whole."""

from __future__ import annotations

import logging
import threading
from typing import TYPE_CHECKING

from engine.storage import StoreError
from engine.storage.polling import Looks, Poller, with_retries

if TYPE_CHECKING:
    from collections.abc import Callable

    from engine.storage import Snapshot

logger = logging.getLogger(__name__)

ATTEMPTS = 3
"""How often is asked at the start, before what is on disk is used or the start fails."""
FIRST_DELAY = 0.5
LONGEST_DELAY = 5.0


class Following:
    """Hands out the latest state. The state itself is somebody else's: *latest* and *kept* know it."""

    def __init__(
        self,
        name: str,
        interval: float,
        latest: Callable[[], Snapshot],
        kept: Callable[[StoreError], Snapshot | None],
    ) -> None:
        """*name* is that of the thread; *interval* between two looks in seconds, 0 for none.

        *latest* returns the state elsewhere, the same object as long as nothing has changed, or raises
        :class:`StoreError`. *kept* is asked when there is none to start with, with the reason: it returns a
        state of before, or ``None``. Neither is called by two threads at the same time.
        """
        self._name = name
        self._interval = interval
        self._latest = latest
        self._kept = kept
        self._lock = threading.RLock()
        self._current: Snapshot | None = None
        self._handed_out: Snapshot | None = None
        self._announced: Snapshot | None = None
        self._found: StoreError | None = None
        self._failure = ""
        self._started_from_kept = False
        self._poller: Poller | None = None
        self.looks = Looks()

    def read(self) -> Snapshot:
        """Return the latest state; at the start, when there is none to be had, the one that was kept.

        What a look has just found is not asked for again.

        Raises:
            StoreError: the latest state is not to be had, and this is not the start or nothing was kept.

        """
        with self._lock:
            found, self._found = self._found, None
            if found is not None:
                raise found
            if self._current is None:
                self._current = self._first()
            elif self._current is self._handed_out:
                self._current = self._ask()
            self._handed_out = self._current
            return self._current

    def notice(self) -> str:
        """Say why the state that was handed out may not be the latest; nothing when it is."""
        failure = self._failure
        return f"{failure}; what was kept on disk is used" if failure and self._started_from_kept else failure

    def watch(self, changed: Callable[[], object]) -> None:
        """Call *changed* when there is another state, when none is to be had, and when one is again."""
        if self._interval:
            self._poller = Poller(self._name, self._interval, lambda: self._look(changed))
            self._poller.start()

    def close(self) -> None:
        """Look no more."""
        if self._poller is not None:
            self._poller.stop()

    def _first(self) -> Snapshot:
        try:
            return with_retries(
                self._ask, attempts=ATTEMPTS, first_delay=FIRST_DELAY, longest_delay=LONGEST_DELAY
            )
        except StoreError as error:
            kept = self._kept(error)
            if kept is None:
                raise
            logger.warning("%s; what was kept on disk is used", error)
            self._started_from_kept = True
            return kept

    def _ask(self) -> Snapshot:
        try:
            with self.looks.counted():
                latest = self._latest()
        except StoreError as error:
            self._failure = str(error)
            raise
        self._failure, self._started_from_kept = "", False
        return latest

    def _look(self, changed: Callable[[], object]) -> None:
        with self._lock:
            failed_before, self._found = self._failure, None
            try:
                self._current = self._ask()
            except StoreError as error:
                if str(error) == failed_before:
                    return
                self._found = error
            is_new = self._current is not self._handed_out and self._current is not self._announced
            self._announced = self._current
        if self._found or failed_before or is_new:
            changed()
