"""Policies as objects in a bucket, one object a file.

A bucket has no way to change several objects at once, and lists them page by page. So a state is handed out
only when every object in it was read as it was listed, and another listing afterwards says the same.
"""

from __future__ import annotations

import hashlib
import json
import logging
import re
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from engine.document import MAX_BYTES, Fault
from engine.storage import Snapshot, StoreError
from engine.storage.atomic import cache_directory, locked, prepared, read_bounded, write_atomically
from engine.storage.bucket import Bucket, GoneError, Listed, UnreachableError, parse_address
from engine.storage.following import Following
from engine.storage.packed import PackedError, packed, read_entries, unpacked, why_unsafe
from engine.storage.tree import counts, faults_of, snapshot_of

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from engine.storage.polling import Looks

logger = logging.getLogger(__name__)

LISTINGS: Final = 8
"""How often the bucket is listed before it counts as never at rest."""
PAUSE: Final = 0.05
"""Seconds before the second listing of a bucket that is changing; twice as long before each further one."""
DOWNLOADS: Final = 16
"""Objects that are downloaded at the same time."""
MAX_TOTAL: Final = 256 * 1024 * 1024
"""Bytes of all policies together."""
MAX_FILE: Final = 2 * MAX_TOTAL
"""Bytes of a kept state: the policies, and the list of them."""

KEYS = frozenset(
    (
        "bucket",
        "prefix",
        "workDir",
        "updatePollInterval",
        "requestTimeout",
        "downloadTimeout",
        "startFromWorkDir",
        "caCert",
    )
)


class BlobStore:
    """A store that is what lies under a prefix of a bucket."""

    def __init__(
        self, bucket: Bucket, kept: KeptState, *, interval: float = 0.0, starts_from_kept: bool = True
    ) -> None:
        """*interval* between two looks in seconds; 0 for none."""
        self._bucket = bucket
        self._kept_state = kept
        self._starts_from_kept = starts_from_kept
        self._objects: dict[str, Held] = {}
        self._listing: _Listing | None = None
        self._snapshot: Snapshot | None = None
        self._following = Following("blob-store", interval, self._latest, self._kept)

    @classmethod
    def from_settings(cls, settings: Mapping[str, Any]) -> BlobStore:
        """Make a store from the ``storage.blob`` block.

        Raises:
            StoreError: a setting is missing, unknown or cannot be used.

        """
        unknown = sorted(settings.keys() - KEYS)
        if unknown:
            raise StoreError(f"unknown setting `{unknown[0]}` of the blob driver")
        if not settings.get("bucket"):
            raise StoreError("the blob driver needs a `bucket`")
        address, path = parse_address(settings["bucket"])
        if path:
            raise StoreError(f"the `bucket` must be `{address.shown}`: what is behind it is the `prefix`")
        prefix = (settings.get("prefix") or "").strip("/")
        if prefix and (reason := why_unsafe(prefix)):
            raise StoreError(f"the `prefix` of the blob driver {reason}")
        bucket = Bucket(
            address,
            prefix,
            request_timeout=settings.get("requestTimeout") or 5.0,
            download_timeout=settings.get("downloadTimeout") or 60.0,
            ca_file=settings.get("caCert") or "",
        )
        directory = prepared(Path(settings.get("workDir") or cache_directory("blob")), "workDir")
        from_kept = settings.get("startFromWorkDir")
        return cls(
            bucket,
            KeptState(directory, f"{settings['bucket']} {prefix}"),
            interval=settings.get("updatePollInterval") or 0.0,
            starts_from_kept=True if from_kept is None else from_kept,
        )

    # -- what stores do ------------------------------------------------------------------------------------

    def read(self) -> Snapshot:
        """Return a state that the bucket was in as a whole; at the start the kept one if there is no answer.

        Raises:
            StoreError: the bucket cannot be reached, refuses, or never comes to rest.

        """
        return self._following.read()

    @property
    def looks(self) -> Looks:
        """How often the place was asked."""
        return self._following.looks

    def notice(self) -> str:
        """Say why the state may not be the latest."""
        return self._following.notice()

    def watch(self, changed: Callable[[], object]) -> None:
        """Call *changed* from a thread of its own when the bucket has changed, until :meth:`close`."""
        self._following.watch(changed)

    def close(self) -> None:
        """Stop looking for changes."""
        self._following.close()

    # -- states --------------------------------------------------------------------------------------------

    def _latest(self) -> Snapshot:
        listing = self._list()
        if self._snapshot is None:
            self._objects = self._kept_state.read() or {}
        elif listing == self._listing:
            return self._snapshot
        for number in range(LISTINGS):
            if number:
                time.sleep(min(PAUSE * 2.0 ** (number - 1), 1.0))
                listing = self._list()
            objects = self._downloaded(listing)
            if objects is not None and self._list() == listing:
                return self._put_in_force(listing, objects)
        raise StoreError(f"`{self._bucket.shown}` keeps changing while it is read")

    def _kept(self, error: StoreError) -> Snapshot | None:
        """Return the last whole state. A bucket that answers and refuses is believed."""
        if not self._starts_from_kept or not isinstance(error, UnreachableError):
            return None
        objects = self._kept_state.read()
        if objects is None:
            return None
        self._objects = objects
        return self._made(objects, ())

    def _list(self) -> _Listing:
        counted: dict[str, Listed] = {}
        paths: list[str] = []
        faults: list[Fault] = []
        for found in self._bucket.listing():
            paths.append(found.path)
            if not counts(found.path):
                continue
            reason = _why_unusable(found)
            if reason:
                shown = found.path if found.path.isprintable() else ascii(found.path)
                faults.append(Fault(shown, 0, 0, f"the object {reason}"))
            else:
                counted[found.path] = found
        total = sum(found.size for found in counted.values())
        if total > MAX_TOTAL:
            raise StoreError(
                f"the policies in `{self._bucket.shown}` are {total} bytes, more than {MAX_TOTAL}"
            )
        return _Listing(counted, (*faults, *faults_of(paths)))

    def _downloaded(self, listing: _Listing) -> dict[str, Held] | None:
        """Return the objects of a listing, ``None`` when they are not all as listed any more.

        Those that are here already are not asked for, nor is one that comes now asked for again.
        """
        missing = [
            found
            for path, found in listing.objects.items()
            if path not in self._objects or self._objects[path].etag != found.etag
        ]
        with ThreadPoolExecutor(DOWNLOADS, "blob-download") as pool:
            arrived = list(pool.map(self._download, missing))
        come = {found.path: held for found, held in zip(missing, arrived, strict=True) if held is not None}
        self._objects |= come
        if len(come) < len(missing):
            return None
        return {path: self._objects[path] for path in listing.objects}

    def _download(self, found: Listed) -> Held | None:
        try:
            return Held(found.etag, self._bucket.read(found.path, found.etag, MAX_BYTES))
        except GoneError:
            return None

    def _put_in_force(self, listing: _Listing, objects: dict[str, Held]) -> Snapshot:
        self._objects, self._listing = objects, listing
        if not listing.faults:
            self._kept_state.write(objects)
        return self._made(objects, listing.faults)

    def _made(self, objects: Mapping[str, Held], faults: tuple[Fault, ...]) -> Snapshot:
        contents = {path: held.content for path, held in objects.items()}
        self._snapshot = replace(snapshot_of(contents, self._snapshot), faults=faults)
        return self._snapshot


@dataclass(frozen=True, slots=True)
class Held:
    """The content of an object, and the ETag that it had."""

    etag: str
    content: bytes


@dataclass(frozen=True, slots=True)
class _Listing:
    """The objects that count, and what is wrong with others."""

    objects: Mapping[str, Listed]
    faults: tuple[Fault, ...]


def _why_unusable(found: Listed) -> str:
    """Say why an object cannot be a policy although it is called like one."""
    reason = why_unsafe(found.path)
    if reason:
        return f"has a name that {reason}"
    return f"is larger than {MAX_BYTES} bytes" if found.size > MAX_BYTES else ""


class KeptState:
    """The last whole state of a bucket, in one file that is there as a whole or not at all."""

    def __init__(self, directory: Path, whose: str) -> None:
        """*whose* tells one bucket from another in the same directory."""
        self._directory = directory
        self.file = directory / f"{hashlib.sha256(whose.encode()).hexdigest()[:32]}.state"

    def read(self) -> dict[str, Held] | None:
        """Return the state; ``None`` when there is none, or it is damaged."""
        try:
            data = read_bounded(self.file, MAX_FILE)
            return None if data is None else _parsed(data)
        except (StoreError, PackedError) as error:
            logger.warning("the state in `%s` is not used: %s", self.file, error)
            return None

    def write(self, objects: Mapping[str, Held]) -> None:
        """Keep a state. What cannot be kept is no reason not to use it."""
        entries, payload = packed({path: held.content for path, held in objects.items()})
        listed = {
            "etags": [objects[entry.path].etag for entry in entries],
            "files": [entry.document() for entry in entries],
        }
        manifest = json.dumps(listed, ensure_ascii=False).encode()
        body = b"%d\n%b%b" % (len(manifest), manifest, payload)
        try:
            with locked(self._directory):
                write_atomically(self.file, _HEAD % hashlib.sha256(body).hexdigest().encode() + body)
        except OSError as error:
            logger.warning("cannot keep the state in `%s`: %s", self.file, error.strerror)


_HEAD = b"extauthz-bucket-state/1 %b\n"
_FORM = re.compile(rb"extauthz-bucket-state/1 ([0-9a-f]{64})\n")
_LENGTH = re.compile(rb"([0-9]{1,10})\n")


def _parsed(data: bytes) -> dict[str, Held]:
    head = _FORM.match(data)
    if head is None or hashlib.sha256(data[head.end() :]).hexdigest().encode() != head[1]:
        raise PackedError("it is damaged, or of another version")
    length = _LENGTH.match(data, head.end())
    if length is None:
        raise PackedError("it is damaged")
    start = length.end() + int(length[1])
    value = json.loads(data[length.end() : start])
    entries = read_entries(value["files"])
    contents = unpacked(entries, data[start:])
    return {
        entry.path: Held(etag, contents[entry.path])
        for entry, etag in zip(entries, value["etags"], strict=True)
    }
