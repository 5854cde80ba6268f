"""The store that follows a signed bundle."""

from __future__ import annotations

import datetime
import logging
import threading
from typing import TYPE_CHECKING, Any

from engine.storage import Snapshot, StoreError
from engine.storage.atomic import cache_directory
from engine.storage.bundle.format import MAX_BYTES, BundleError
from engine.storage.bundle.keys import pinned
from engine.storage.bundle.last_good import LastGood, Trust
from engine.storage.bundle.sources import Settings, open_source
from engine.storage.polling import Poller, with_retries
from engine.storage.tree import snapshot_of
from engine.storage.web import Access

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from engine.storage.bundle.format import Bundle
    from engine.storage.bundle.sources import Fetched, Source

logger = logging.getLogger(__name__)

ATTEMPTS = 3
"""How often the source is asked at the start, before the bundle on disk is used or the start fails."""
FIRST_DELAY = 0.5
LONGEST_DELAY = 5.0

KEYS = frozenset(
    (
        "url",
        "name",
        "publicKeys",
        "updatePollInterval",
        "requestTimeout",
        "downloadTimeout",
        "cacheDir",
        "allowRollback",
        "maxAge",
        "maxBytes",
        "https",
        "oci",
    )
)


class BundleStore:
    """A store that is the latest bundle of a source, or the last good one on disk."""

    def __init__(
        self,
        source: Source,
        last_good: LastGood,
        trust: Trust,
        *,
        interval: float = 0.0,
        max_age: float = 0.0,
        now: Callable[[], datetime.datetime] = lambda: datetime.datetime.now(datetime.UTC),
    ) -> None:
        """*interval* between two looks and *max_age* of a bundle in seconds; 0 is never, and any age."""
        self._source = source
        self._last_good = last_good
        self._trust = trust
        self._interval = interval
        self._max_age = max_age
        self._now = now
        self._lock = threading.RLock()
        self._tag = ""
        self._refused: BundleError | None = None
        self._bundle: Bundle | None = None
        self._snapshot: Snapshot | None = None
        self._handed_out: Snapshot | None = None
        self._announced: Snapshot | None = None
        self._found: StoreError | None = None
        self._failure = ""
        self._from_disk = False
        self._poller: Poller | None = None

    @classmethod
    def from_settings(cls, settings: Mapping[str, Any]) -> BundleStore:
        """Make a store from the ``storage.bundle`` block.

        Raises:
            StoreError: a setting is missing, unknown or cannot be used.

        """
        unknown = sorted(settings.keys() - KEYS)
        if unknown:
            raise StoreError(f"unknown setting `{unknown[0]}` of the bundle driver")
        for needed in ("url", "name"):
            if not settings.get(needed):
                raise StoreError(f"the bundle driver needs a `{needed}`")
        trust = Trust(
            pinned(settings.get("publicKeys") or ()), settings["name"], settings.get("maxBytes") or MAX_BYTES
        )
        directory = settings.get("cacheDir") or cache_directory("bundle")
        return cls(
            open_source(_source_settings(settings, trust.max_bytes)),
            LastGood.within(directory, trust, allow_rollback=bool(settings.get("allowRollback"))),
            trust,
            interval=settings.get("updatePollInterval") or 0.0,
            max_age=settings.get("maxAge") or 0.0,
        )

    # -- reading -------------------------------------------------------------------------------------------

    def read(self) -> Snapshot:
        """Return what is in the latest bundle; at the start, when there is none to be had, in that on disk.

        Raises:
            StoreError: the source cannot be reached, or what it offers may not be taken; and this is not the
                start, or nothing is on disk.

        """
        with self._lock:
            found, self._found = self._found, None
            if found is not None:
                raise found
            if self._snapshot is None:
                self._first()
            elif self._snapshot is self._handed_out:
                self._refresh(attempts=1)
            # else it was found just now, by the watch
            return self._hand_out()

    def notice(self) -> str:
        """Say what is not well although policies are in force: the source, or the age of the bundle."""
        bundle = self._bundle
        if bundle is None:
            return ""
        if self._failure:
            return f"{self._failure}{'; the bundle on disk is used' if self._from_disk else ''}"
        age = (self._now() - bundle.manifest.created).total_seconds()
        if self._max_age and age > self._max_age:
            return f"the bundle was made {_hours(age)} ago, and `maxAge` is {_hours(self._max_age)}"
        return ""

    def close(self) -> None:
        """Stop looking for new bundles."""
        if self._poller is not None:
            self._poller.stop()

    def _hand_out(self) -> Snapshot:
        if self._snapshot is None:
            raise StoreError("the source says that nothing is new, to the first question")
        self._handed_out = self._snapshot
        return self._snapshot

    def _first(self) -> None:
        """Find what to start with."""
        kept = self._last_good.read()
        try:
            self._refresh(ATTEMPTS)
        except StoreError as error:
            if kept is None:
                raise
            logger.warning("%s; bundle %s on disk is used", error, kept.manifest.revision)
            self._from_disk = True
            self._put_in_force(kept)

    def _refresh(self, attempts: int) -> None:
        """Take a newer bundle if there is one.

        Raises:
            StoreError: nobody knows whether there is one, or it may not be taken.

        """
        try:
            self._take_latest(attempts)
        except StoreError as error:
            self._failure = str(error)
            raise
        self._failure, self._from_disk = "", False

    def _take_latest(self, attempts: int) -> None:
        fetched = with_retries(
            lambda: self._source.fetch(self._tag),
            attempts=attempts,
            first_delay=FIRST_DELAY,
            longest_delay=LONGEST_DELAY,
        )
        if fetched is not None:
            self._take(fetched)
        elif self._refused is not None:
            raise self._refused

    def _take(self, fetched: Fetched) -> None:
        """Put a bundle in force that has just come, if it may be taken."""
        self._tag, self._refused = fetched.tag, None
        try:
            bundle = self._trust.opened(fetched.data)
            self._last_good.take(bundle, fetched.data)
        except BundleError as error:
            self._refused = error  # it is not downloaded again to be refused again
            raise
        except StoreError:
            self._tag = ""  # it may be taken as soon as it can be kept
            raise
        if self._bundle is None or self._bundle.manifest != bundle.manifest:
            self._put_in_force(bundle)

    def _put_in_force(self, bundle: Bundle) -> None:
        self._bundle = bundle
        self._snapshot = snapshot_of(bundle.files, self._snapshot, bundle.manifest.revision)

    # -- watching ------------------------------------------------------------------------------------------

    def watch(self, changed: Callable[[], object]) -> None:
        """Call *changed* from a thread of its own when there is a new bundle, until :meth:`close`."""
        if self._interval:
            self._poller = Poller("bundle-store", self._interval, lambda: self._look(changed))
            self._poller.start()

    def _look(self, changed: Callable[[], object]) -> None:
        with self._lock:
            failed_before, self._found = self._failure, None
            try:
                self._refresh(attempts=1)
            except StoreError as error:
                if str(error) == failed_before:
                    return
                self._found = error  # what there is to say, without asking again
            is_new = self._snapshot is not self._announced and self._snapshot is not self._handed_out
            self._announced = self._snapshot
        if self._found or failed_before or is_new:
            changed()


def _source_settings(settings: Mapping[str, Any], max_bytes: int) -> Settings:
    """Return how the source is reached; a block of another kind of source would be without effect.

    Raises:
        StoreError: there is such a block, or two ways to show who asks.

    """
    scheme = settings["url"].partition(":")[0]
    kind = {"http": "https"}.get(scheme, scheme)
    for block in ("https", "oci"):
        if settings.get(block) and block != kind:
            raise StoreError(f"the block `{block}` has no effect with a `url` that begins with `{scheme}:`")
    block = settings.get(kind) or {}
    access = Access(block.get("username") or "", block.get("password") or "", block.get("bearerToken") or "")
    if access.bearer_token and (access.username or access.password):
        raise StoreError("give a `bearerToken`, or `username` and `password`, not both")
    return Settings(
        settings["url"],
        settings.get("requestTimeout") or 5.0,
        settings.get("downloadTimeout") or 60.0,
        max_bytes,
        access,
        block.get("caCert") or "",
    )


def _hours(seconds: float) -> str:
    return f"{seconds / 3600:.1f} h"
