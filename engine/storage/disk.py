"""Policies in a directory, watched for changes.

Links to files are followed, links to directories are not, but for ``_schemas`` itself, as in Cerbos (which
suits Kubernetes' ConfigMaps).

People and tools do not replace a directory in one step. A state is handed out only when nothing changed while
it was read and the last change is a moment ago; a file that has just become empty is given time to be filled.
"""

from __future__ import annotations

import os
import stat
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import watchfiles

from engine.document import MAX_BYTES, Fault
from engine.storage import Snapshot, StoreError
from engine.storage.archive import ArchiveStore, is_archive
from engine.storage.tree import MISPLACED_SCHEMAS, SCHEMAS, enters, is_misplaced, is_policy_file, is_schema

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

QUIET = 0.05
"""Seconds without a change after which a burst of edits counts as over."""

PATIENCE = 40
"""How often a reading is repeated because of changes; then the last consistent state is handed out."""

FILLING = 0.5
"""Seconds that a file that has become empty is given to be filled."""

LOOK_AROUND = 2.0
"""Seconds after which the watch makes sure that the directory is still the same one."""


class Stamp(NamedTuple):
    """What tells that a file has changed."""

    modified: int
    changed: int
    size: int
    inode: int


@dataclass(frozen=True, slots=True)
class _Read:
    """A file's content, and when and in which state it was read."""

    stamp: Stamp
    content: bytes
    at: int

    def is_current(self, stamp: Stamp) -> bool:
        """Tell whether the file is the same; what changed within a tick of the reading may look so."""
        return self.stamp == stamp and self.at - stamp.modified > _TICK


_TICK = 100_000_000
_NANOSECONDS = 1_000_000_000


class DiskStore:
    """A store that is a directory of files."""

    def __init__(self, directory: str | os.PathLike[str]) -> None:
        self.directory = Path(directory)
        self._read_before: dict[str, _Read] = {}
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None

    @classmethod
    def from_settings(cls, settings: Mapping[str, Any]) -> DiskStore | ArchiveStore:
        """Make a store from Cerbos's ``storage.disk`` block; whether to watch is for whoever opens it.

        The ``directory`` may be an archive.

        Raises:
            StoreError: a setting is missing or unknown.

        """
        unknown = sorted(settings.keys() - {"directory", "watchForChanges"})
        if unknown:
            raise StoreError(f"unknown setting `{unknown[0]}` of the disk driver")
        if not settings.get("directory"):
            raise StoreError("the disk driver needs a `directory`")
        directory = settings["directory"]
        return ArchiveStore(directory) if is_archive(directory) else cls(directory)

    # -- reading -------------------------------------------------------------------------------------------

    def read(self) -> Snapshot:
        """Return a state of the directory in which no change is under way.

        Raises:
            StoreError: the directory cannot be read, or never comes to rest.

        """
        for _ in range(PATIENCE):
            snapshot = self._read_once()
            if snapshot is not None:
                return snapshot
            time.sleep(QUIET)
        raise StoreError(f"`{self.directory}` keeps changing while it is read")

    def close(self) -> None:
        """Stop watching."""
        self._stop.set()
        if self._thread is not None and self._thread is not threading.current_thread():
            self._thread.join(timeout=5)

    def _read_once(self) -> Snapshot | None:
        """Return the state, ``None`` when it is changing."""
        listing = self._list()
        if self._read_before and self._is_moving(listing.stamps):
            return None
        try:
            read = {path: self._content(path, stamp) for path, stamp in listing.stamps.items()}
        except OSError:
            return None  # gone, or not there yet
        if not self._is_unchanged(read):
            return None
        self._read_before = read
        schemas = {path: found.content for path, found in read.items() if is_schema(path)}
        files = {path: found.content for path, found in read.items() if path not in schemas}
        return Snapshot(files, schemas, listing.faults)

    def _is_unchanged(self, read: Mapping[str, _Read]) -> bool:
        """Tell whether the files are still as they were listed, if any had to be read.

        All of them: links that are replaced while files are listed would show a part of each state.
        """
        if all(self._read_before.get(path) is found for path, found in read.items()):
            return True
        root = os.fspath(self.directory)
        try:
            return all(
                _stamp(os.stat(f"{root}/{path}")) == found.stamp  # noqa: PTH116 - half the time, for thousands
                for path, found in read.items()
            )
        except OSError:
            return False

    def _is_moving(self, stamps: Mapping[str, Stamp]) -> bool:
        now = time.time_ns()
        return any(self._just_changed(path, stamp, now) for path, stamp in stamps.items())

    def _just_changed(self, path: str, stamp: Stamp, now: int) -> bool:
        before = self._read_before.get(path)
        if before is not None and before.stamp == stamp:
            return False
        emptied = stamp.size == 0 and before is not None and before.content != b""
        rest = FILLING if emptied else QUIET
        return abs(now - max(stamp.modified, stamp.changed)) < rest * _NANOSECONDS

    def _content(self, path: str, stamp: Stamp) -> _Read:
        before = self._read_before.get(path)
        if before is not None and before.is_current(stamp):
            return before
        at = time.time_ns()
        with (self.directory / path).open("rb") as file:
            content = file.read(MAX_BYTES + 1)
        if before is not None and before.content == content:
            content = before.content  # the same object tells the engine that nothing changed
        return _Read(stamp, content, at)

    # -- walking -------------------------------------------------------------------------------------------

    def _list(self) -> _Listing:
        stamps: dict[str, Stamp] = {}
        faults: list[Fault] = []
        try:
            for entry, path in self._walk(self.directory, "", faults):
                found = entry.stat()
                if stat.S_ISREG(found.st_mode):
                    stamps[path] = _stamp(found)
        except OSError as error:
            reason = f"cannot read `{error.filename or self.directory}`: {error.strerror}"
            raise StoreError(reason) from error
        return _Listing(stamps, tuple(faults))

    def _walk(
        self, directory: Path, prefix: str, faults: list[Fault]
    ) -> Iterator[tuple[os.DirEntry[str], str]]:
        """Yield the files that count, in the order of their paths."""
        with os.scandir(directory) as entries:
            ordered = sorted(entries, key=lambda entry: entry.name)
        for entry in ordered:
            path = f"{prefix}{entry.name}"
            if entry.is_dir(follow_symlinks=path == SCHEMAS):
                if self._enters(entry.name, path, faults):
                    yield from self._walk(Path(entry.path), f"{path}/", faults)
            elif _counts(entry.name, path) and not _is_linked_directory(entry):
                yield entry, path

    def _enters(self, name: str, path: str, faults: list[Fault]) -> bool:
        if is_misplaced(name, path):
            faults.append(Fault(path, 0, 0, MISPLACED_SCHEMAS))
        return enters(name, path)

    # -- watching ------------------------------------------------------------------------------------------

    def watch(self, changed: Callable[[], object]) -> None:
        """Call *changed* from a thread of its own whenever files may have changed, until :meth:`close`."""
        self._thread = threading.Thread(target=self._watch, args=(changed,), name="disk-store", daemon=True)
        self._thread.start()

    def _watch(self, changed: Callable[[], object]) -> None:
        while not self._stop.is_set():
            identity = self._identity()
            if identity is None:  # the directory is away; tell so, and wait for it
                changed()
                self._stop.wait(LOOK_AROUND)
                continue
            self._watch_directory(changed, identity)

    def _watch_directory(self, changed: Callable[[], object], identity: tuple[int, int]) -> None:
        """Watch until the directory is replaced by another one, or the store is closed."""
        first = True
        try:
            for changes in self._changes():
                # What happened before the watch was set up was not seen: look once in any case.
                if changes or first or self._identity() != identity:
                    changed()
                first = False
                if self._identity() != identity:
                    return
        except OSError:
            self._stop.wait(LOOK_AROUND)

    def _changes(self) -> Iterator[set[Any]]:
        return watchfiles.watch(
            self.directory,
            watch_filter=None,
            debounce=500,
            step=int(QUIET * 1000),
            stop_event=self._stop,
            rust_timeout=int(LOOK_AROUND * 1000),
            yield_on_timeout=True,
            raise_interrupt=False,
        )

    def _identity(self) -> tuple[int, int] | None:
        try:
            found = self.directory.stat()
        except OSError:
            return None
        return found.st_dev, found.st_ino


@dataclass(frozen=True, slots=True)
class _Listing:
    stamps: Mapping[str, Stamp]
    faults: tuple[Fault, ...]


def _counts(name: str, path: str) -> bool:
    """Tell whether a file is to be read: policies by their names, and all that a schema may refer to."""
    return is_schema(path) or is_policy_file(name)


def _is_linked_directory(entry: os.DirEntry[str]) -> bool:
    return entry.is_symlink() and entry.is_dir()


def _stamp(found: os.stat_result) -> Stamp:
    return Stamp(found.st_mtime_ns, found.st_ctime_ns, found.st_size, found.st_ino)
