"""One store, and another one while the first cannot be read.

A circuit breaker decides between the two, as in Cerbos: after a number of failures of the base, one right
after the other within a window, the fallback is in force; after a while the base is tried again, and is back
in force with its first state. Until that number is reached, a failure of the base is a failure: what was in
force stays so. Only at the start, when nothing is in force, one failure is enough.
"""

from __future__ import annotations

import dataclasses
import logging
import threading
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from engine.storage import Snapshot, Store, StoreError, Telling, Watchable, open_store
from engine.storage.polling import Looking, Looks, Poller

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

logger = logging.getLogger(__name__)

MOST_BETWEEN: Final = 30.0
"""Seconds at most between two questions to a base that fails."""

KEYS = frozenset(
    (
        "baseDriver",
        "fallbackDriver",
        "fallbackErrorThreshold",
        "fallbackErrorWindow",
        "baseRetryInterval",
        "drivers",
        "followed",
    )
)


@dataclass
class Breaker:
    """Counts failures, and says which of two is to be asked. Times are in seconds, by a monotonic clock."""

    threshold: int
    window: float
    retry: float
    clock: Callable[[], float] = time.monotonic
    _failures: list[float] = field(default_factory=list)
    _open_until: float | None = None

    @property
    def is_open(self) -> bool:
        """Whether the fallback is in force, be it time to try the base again or not."""
        return self._open_until is not None

    @property
    def asks_base(self) -> bool:
        """Whether the base is to be asked: all is well, or it is time to try it again (half-open)."""
        return self._open_until is None or self.clock() >= self._open_until

    def succeeded(self) -> None:
        """Take note that the base gave a state."""
        self._failures.clear()
        self._open_until = None

    def failed(self, *, at_once: bool = False) -> None:
        """Take note that it did not; *at_once* when there is nothing else to go on with."""
        now = self.clock()
        self._failures = [*(at for at in self._failures if now - at < self.window), now]
        if at_once or self.is_open or len(self._failures) >= self.threshold:
            self._open_until = now + self.retry


@dataclass(frozen=True, slots=True)
class Layer:
    """One of the two stores, and what it is called."""

    driver: str
    store: Store
    followed: bool = True
    """Whether its changes are to take effect."""

    def read(self) -> Snapshot:
        """Return its state, which says whose it is.

        Raises:
            StoreError: there is none to be had.

        """
        found = self.store.read()
        revision = f"{self.driver} {found.revision}" if found.revision else self.driver
        return dataclasses.replace(found, revision=revision)


class OverlayStore:
    """A store that is one of two others, never a mix of both."""

    def __init__(self, base: Layer, fallback: Layer, breaker: Breaker) -> None:
        self._base = base
        self._fallback = fallback
        self._breaker = breaker
        self._lock = threading.RLock()
        self._failure = ""
        self._in_force: Layer | None = None
        self._poller: Poller | None = None
        self._looks = Looks()

    @classmethod
    def from_settings(cls, settings: Mapping[str, Any]) -> OverlayStore:
        """Make a store from the ``storage.overlay`` block; ``drivers`` has the blocks of the two drivers.

        Raises:
            StoreError: a setting is missing or unknown, or one of the drivers cannot be made with its own.

        """
        unknown = sorted(settings.keys() - KEYS)
        if unknown:
            raise StoreError(f"unknown setting `{unknown[0]}` of the overlay driver")
        for needed in ("baseDriver", "fallbackDriver"):
            if not settings.get(needed):
                raise StoreError(f"the overlay driver needs a `{needed}`")
        base, fallback = settings["baseDriver"], settings["fallbackDriver"]
        if base == fallback or "overlay" in (base, fallback):
            raise StoreError("`baseDriver` and `fallbackDriver` must be two drivers, and no overlay")
        blocks = settings.get("drivers") or {}
        followed = settings.get("followed")

        def layer(driver: str) -> Layer:
            follows = followed is None or driver in followed
            return Layer(driver, open_store(driver, blocks.get(driver) or {}), follows)

        below = layer(base)
        try:
            above = layer(fallback)
        except StoreError:
            below.store.close()
            raise
        threshold = settings.get("fallbackErrorThreshold") or 5
        window = settings.get("fallbackErrorWindow") or 300.0
        return cls(below, above, Breaker(threshold, window, settings.get("baseRetryInterval") or 60.0))

    # -- what stores do ------------------------------------------------------------------------------------

    def read(self) -> Snapshot:
        """Return the state of the base, or that of the fallback while the breaker is open.

        Raises:
            StoreError: the base cannot be read, and the breaker is not open yet; or neither can be.

        """
        with self._lock:
            if self._breaker.asks_base:
                try:
                    with self._looks.counted():
                        snapshot = self._base.read()
                    return self._handed_out(self._base, snapshot)
                except StoreError as error:
                    self._failed(error)
            return self._fallen_back()

    @property
    def looks(self) -> Looks:
        """How often the base was asked: by its own account, where it keeps one."""
        base = self._base.store
        return base.looks if isinstance(base, Looking) else self._looks

    def notice(self) -> str:
        """Say that the fallback is in force and why, and what the store in force has to say itself."""
        layer, failure = self._in_force, self._failure
        own = layer.store.notice() if layer is not None and isinstance(layer.store, Telling) else ""
        if layer is not self._fallback:
            return own
        told = (
            f"the fallback `{layer.driver}` is in force, as the base `{self._base.driver}` fails: {failure}"
        )
        return f"{told}; {own}" if own else told

    def watch(self, changed: Callable[[], object]) -> None:
        """Call *changed* when the store in force has changed, and when it is time for the other one."""
        for layer in (self._base, self._fallback):
            if layer.followed and isinstance(layer.store, Watchable):
                layer.store.watch(lambda layer=layer: self._changed(layer, changed))  # type: ignore[misc]  # bound to this round
        breaker = self._breaker
        between = min(MOST_BETWEEN, breaker.retry, breaker.window / (2 * breaker.threshold))
        self._poller = Poller("overlay-store", between, lambda: self._look(changed))
        self._poller.start()

    def close(self) -> None:
        """Let go of both stores."""
        if self._poller is not None:
            self._poller.stop()
        self._base.store.close()
        self._fallback.store.close()

    # -- which one -----------------------------------------------------------------------------------------

    def _handed_out(self, layer: Layer, snapshot: Snapshot) -> Snapshot:
        if layer is self._base:
            self._breaker.succeeded()
            self._failure = ""
        if layer is not self._in_force:
            logger.log(
                logging.WARNING if layer is self._fallback else logging.INFO,
                "policies come from the %s driver `%s`%s",
                "fallback" if layer is self._fallback else "base",
                layer.driver,
                f": {self._failure}" if self._failure else "",
            )
            self._in_force = layer
        return snapshot

    def _failed(self, error: StoreError) -> None:
        """Take note of a failure of the base.

        Raises:
            StoreError: the same, when the fallback is not to be used yet.

        """
        self._failure = str(error)
        self._breaker.failed(at_once=self._in_force is None)
        if not self._breaker.is_open:
            raise error

    def _fallen_back(self) -> Snapshot:
        try:
            return self._handed_out(self._fallback, self._fallback.read())
        except StoreError as error:
            base, fallback = self._base.driver, self._fallback.driver
            both = f"base `{base}`: {self._failure}; fallback `{fallback}`: {error}"
            raise StoreError(both) from error

    def _changed(self, layer: Layer, changed: Callable[[], object]) -> None:
        """Pass on what one of the two has to say, unless it does not matter now."""
        if layer is self._base or layer is self._in_force:
            changed()

    def _look(self, changed: Callable[[], object]) -> None:
        """Ask a base that fails once more: it may be well again, or has failed often enough."""
        if self._failure and (not self._breaker.is_open or self._breaker.asks_base):
            changed()
