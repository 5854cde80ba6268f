"""A bundle as an object in a bucket: ``s3://bucket/path/to/policies.bundle?region=...``."""

from __future__ import annotations

from typing import TYPE_CHECKING

from engine.storage import StoreError
from engine.storage.bucket import Bucket, parse_address
from engine.storage.bundle.sources import Fetched
from engine.storage.packed import why_unsafe

if TYPE_CHECKING:
    from engine.storage.bundle.sources import Settings


class BucketSource:
    """One object, downloaded when its ETag is another one."""

    def __init__(self, settings: Settings) -> None:
        address, self._path = parse_address(settings.url, what="url")
        if not self._path:
            raise StoreError(f"the `url` must name an object in `{address.shown}`")
        if reason := why_unsafe(self._path):
            raise StoreError(f"the name of the object in `{address.shown}` {reason}")
        self._max_bytes = settings.max_bytes
        self._bucket = Bucket(
            address, request_timeout=settings.request_timeout, download_timeout=settings.download_timeout
        )

    def fetch(self, known: str) -> Fetched | None:
        """Ask for the object's ETag, and for the object when that is a new one."""
        found = self._bucket.read_unless(self._path, known, self._max_bytes)
        return None if found is None else Fetched(found[1], found[0])
