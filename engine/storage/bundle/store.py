"""The store that follows a signed bundle."""

from __future__ import annotations

import datetime
from typing import TYPE_CHECKING, Any

from engine.storage import Snapshot, StoreError
from engine.storage.atomic import cache_directory
from engine.storage.bundle.format import MAX_BYTES, BundleError
from engine.storage.bundle.keys import pinned
from engine.storage.bundle.last_good import LastGood, Trust
from engine.storage.bundle.sources import Settings, open_source
from engine.storage.following import Following
from engine.storage.tree import snapshot_of
from engine.storage.web import Access

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from engine.storage.bundle.format import Bundle
    from engine.storage.bundle.sources import Fetched, Source
    from engine.storage.polling import Looks

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
        self._max_age = max_age
        self._now = now
        self._tag = ""
        self._refused: BundleError | None = None
        self._bundle: Bundle | None = None
        self._snapshot: Snapshot | None = None
        self._following = Following("bundle-store", interval, self._latest, self._kept)

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
        return self._following.read()

    @property
    def looks(self) -> Looks:
        """How often the place was asked."""
        return self._following.looks

    def notice(self) -> str:
        """Say what is not well although policies are in force: the source, or the age of the bundle."""
        failure, bundle = self._following.notice(), self._bundle
        if failure or bundle is None:
            return failure
        age = (self._now() - bundle.manifest.created).total_seconds()
        if self._max_age and age > self._max_age:
            return f"the bundle was made {_hours(age)} ago, and `maxAge` is {_hours(self._max_age)}"
        return ""

    def watch(self, changed: Callable[[], object]) -> None:
        """Call *changed* from a thread of its own when there is a new bundle, until :meth:`close`."""
        self._following.watch(changed)

    def close(self) -> None:
        """Stop looking for new bundles."""
        self._following.close()

    # -- bundles -------------------------------------------------------------------------------------------

    def _latest(self) -> Snapshot:
        fetched = self._source.fetch(self._tag)
        if fetched is not None:
            return self._taken(fetched)
        if self._refused is not None:
            raise self._refused.with_traceback(None)  # or each raising would add to the one before
        if self._snapshot is None:
            raise StoreError("the source says that nothing is new, to the first question")
        return self._snapshot

    def _kept(self, _: StoreError) -> Snapshot | None:
        """Return what is on disk, whatever is wrong with the source: it is signed like any other bundle."""
        bundle = self._last_good.read()
        return None if bundle is None else self._put_in_force(bundle)

    def _taken(self, fetched: Fetched) -> Snapshot:
        """Return the state of a bundle that has just come, if it may be taken."""
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
        return self._put_in_force(bundle)

    def _put_in_force(self, bundle: Bundle) -> Snapshot:
        if self._snapshot is None or self._bundle is None or self._bundle.manifest != bundle.manifest:
            self._bundle = bundle
            self._snapshot = snapshot_of(bundle.files, self._snapshot, bundle.manifest.revision)
        return self._snapshot


def _source_settings(settings: Mapping[str, Any], max_bytes: int) -> Settings:
    """Return how the source is reached; a block of another kind of source would be without effect.

    Raises:
        StoreError: there is such a block, or two ways to show who asks.

    """
    scheme = settings["url"].partition(":")[0]
    kind = {"http": "https"}.get(scheme, scheme)
    for other in ("https", "oci"):
        if settings.get(other) and other != kind:
            raise StoreError(f"the block `{other}` has no effect with a `url` that begins with `{scheme}:`")
    block: Mapping[str, Any] = settings.get(kind) or {}
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
