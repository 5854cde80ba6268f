"""Policies in a directory, watched for changes.

Links to files are followed, links to directories are not, but for ``_schemas`` itself, as in Cerbos (which
suits Kubernetes' ConfigMaps).

People and tools do not replace a directory in one step. A state is handed out only when nothing changed while
it was read and the last change is a moment ago; a file that has just become empty is given time to be filled.

A reading looks at every file, but for one that the watch asks for: where it has seen nothing but files being
written, only those are looked at again. A whole reading follows as soon as there is rest, so that nothing
stays unseen should the watch have missed something.
"""

from __future__ import annotations

import os
import stat
import threading
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

import watchfiles

from engine.document import MAX_BYTES, Fault
from engine.patched import Patched
from engine.storage import Snapshot, StoreError
from engine.storage.archive import ArchiveStore, is_archive
from engine.storage.tree import (
    MISPLACED_SCHEMAS,
    SCHEMAS,
    counts,
    enters,
    is_misplaced,
    is_policy_file,
    is_schema,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping

T = TypeVar("T")

QUIET = 0.03
"""Seconds without a change after which a burst of edits counts as over."""

PATIENCE = 70
"""How often a reading is repeated because of changes; then the last consistent state is handed out."""

FILLING = 0.5
"""Seconds that a file that has become empty is given to be filled."""

SLICE, BREATH = 128, 0.0003
"""Where nothing is known to have changed, so many files are looked at between two rests of so many seconds:
the interpreter is for those who have something to do."""

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


MANY = 256
"""So many files written at once are found again by a whole reading."""

_TICK = 100_000_000
_NANOSECONDS = 1_000_000_000


class DiskStore:
    """A store that is a directory of files."""

    def __init__(self, directory: str | os.PathLike[str]) -> None:
        self.directory = Path(directory)
        self._read_before: Patched[str, _Read] = Patched({})
        self._state: _State | None = None
        """The last state handed out, if what has changed since is known."""
        self._written: frozenset[str] | None = None
        """What the watch, whose thread alone uses this, has seen change; ``None``: possibly everything."""
        self._at_rest = False
        """The watch has seen nothing change, and makes sure."""
        self._reading = threading.Lock()
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
        with self._reading:
            written, before, self._state = self._known_changes(), self._state, None
            for _ in range(PATIENCE):
                state = self._read_once(before, written)
                if state is not None:
                    self._state = state
                    return state.snapshot
                time.sleep(QUIET)
        raise StoreError(f"`{self.directory}` keeps changing while it is read")

    def _known_changes(self) -> frozenset[str] | None:
        """Return the files that alone have to be looked at, ``None`` when it is all of them."""
        return self._written if threading.current_thread() is self._thread else None

    def close(self) -> None:
        """Stop watching."""
        self._stop.set()
        if self._thread is not None and self._thread is not threading.current_thread():
            self._thread.join(timeout=5)

    def _read_once(self, before: _State | None, written: frozenset[str] | None) -> _State | None:
        """Return the state, ``None`` when it is changing; *written* is all that can differ from *before*."""
        listing = None if before is None or written is None else self._list_again(before.listing, written)
        looked_at = frozenset() if listing is None or written is None else written
        listing = listing or self._list()
        stamps = {path: listing.stamps[path] for path in looked_at} if looked_at else listing.stamps
        if self._read_before and self._is_moving(stamps):
            return None
        try:
            read = {path: self._content(path, stamp) for path, stamp in stamps.items()}
        except OSError:
            return None  # gone, or not there yet
        if not self._is_unchanged(read):
            return None
        if before is None or not looked_at:
            self._read_before = Patched(read)
            files, schemas = _contents(read)
            state = _State(listing, Patched(files), Patched(schemas))
            return state if before is None else state.like(before)
        self._read_before = self._read_before.patched(read)
        return before.updated(listing, read)

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
        content = contents(self.directory / path, stamp.size)
        if before is not None and before.content == content:
            content = before.content  # the same object tells the engine that nothing changed
        return _Read(stamp, content, at)

    # -- walking -------------------------------------------------------------------------------------------

    def _list_again(self, listing: _Listing, written: frozenset[str]) -> _Listing | None:
        """Return *listing* with the present stamps of files *written*, ``None`` if there is more to it.

        That is so if one of them was no file then, or is none now: directories may have come or gone.
        """
        stamps = {}
        for path in written:
            try:
                found = (self.directory / path).lstat()
            except OSError:
                return None
            if path not in listing.stamps or not stat.S_ISREG(found.st_mode):
                return None
            stamps[path] = _stamp(found)
        return _Listing(listing.stamps.patched(stamps), listing.faults)

    def _list(self) -> _Listing:
        stamps: dict[str, Stamp] = {}
        faults: list[Fault] = []
        linked = (self.directory / SCHEMAS).is_symlink()
        try:
            for entry, path in self._unhurried(self._walk(self.directory, "", faults)):
                found = entry.stat()
                linked = linked or entry.is_symlink()
                if stat.S_ISREG(found.st_mode):
                    stamps[path] = self._known_stamp(path, _stamp(found))
        except OSError as error:
            reason = f"cannot read `{error.filename or self.directory}`: {error.strerror}"
            raise StoreError(reason) from error
        return _Listing(Patched(stamps), tuple(faults), linked)

    def _unhurried(self, items: Iterable[T]) -> Iterator[T]:
        """Yield *items*, with rests if there is no hurry: that is, in the thread of the watch."""
        rests = self._at_rest and threading.current_thread() is self._thread
        for number, item in enumerate(items, start=1):
            yield item
            if rests and number % SLICE == 0:
                time.sleep(BREATH)

    def _known_stamp(self, path: str, stamp: Stamp) -> Stamp:
        """Return the stamp that the file was read with if it is the same: one object instead of two."""
        before = self._read_before.get(path)
        return before.stamp if before is not None and before.stamp == stamp else stamp

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
        # What happened before the watch was set up was not seen: look once in any case.
        whole_is_due, first = True, True
        try:
            for changes in self._changes():
                replaced = self._identity() != identity
                written = None if first or replaced or not changes else self._files_among(changes)
                if written is None and (changes or whole_is_due or replaced):
                    self._look_everywhere(changed, at_rest=not changes and not replaced)
                    whole_is_due, first = False, False
                elif written is not None:
                    whole_is_due = True
                    self._look_at(written, changed)
                if replaced or self._identity() != identity:
                    return
        except OSError:
            self._stop.wait(LOOK_AROUND)

    def _look_everywhere(self, changed: Callable[[], object], *, at_rest: bool) -> None:
        """Call *changed*, with a reading that looks at all files."""
        self._at_rest = at_rest
        try:
            changed()
        finally:
            self._at_rest = False

    def _look_at(self, written: frozenset[str], changed: Callable[[], object]) -> None:
        """Call *changed*, with a reading that looks at no files but those *written*."""
        self._written = written
        try:
            if written:
                changed()
        finally:
            self._written = None

    def _files_among(self, changes: set[tuple[watchfiles.Change, str]]) -> frozenset[str] | None:
        """Return the known files among *changes*, ``None`` if there may be more to them.

        Files that do not count are left out: what editors and tools write beside the one that is meant.
        """
        state = self._state
        if state is None or state.listing.linked or len(changes) > MANY:
            return None
        found = set()
        for _, name in changes:
            path = self._inside(name)
            if path in state.listing.stamps:
                found.add(path)
            elif not path or not self._is_beside(path, state.listing):
                return None
        return frozenset(found)

    def _inside(self, name: str) -> str:
        """Return the path in the store of what the watch calls *name*, empty if it is not inside."""
        path = os.path.relpath(name, self.directory)
        return "" if path == os.curdir or path.startswith(os.pardir) else path.replace(os.sep, "/")

    def _is_beside(self, path: str, listing: _Listing) -> bool:
        """Tell whether at *path* is, or was, a file that does not count: no directory, and no link to one."""
        if counts(path):
            return False
        try:
            return stat.S_ISREG((self.directory / path).lstat().st_mode)
        except OSError:
            return not any(known.startswith(f"{path}/") for known in listing.stamps)

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
    stamps: Patched[str, Stamp]
    faults: tuple[Fault, ...]
    linked: bool = False
    """A file or directory is reached by a link: what changes behind it is told under another name."""


@dataclass(frozen=True, slots=True)
class _State:
    """What was handed out, and the files as they were then."""

    listing: _Listing
    files: Patched[str, bytes]
    schemas: Patched[str, bytes]

    @property
    def snapshot(self) -> Snapshot:
        """What is handed out."""
        return Snapshot(self.files, self.schemas, self.listing.faults)

    def like(self, before: _State) -> _State:
        """Return this state, with the mappings of the one *before* where they are the same."""
        listing = replace(self.listing, stamps=_same(self.listing.stamps, before.listing.stamps))
        return _State(listing, _same(self.files, before.files), _same(self.schemas, before.schemas))

    def updated(self, listing: _Listing, read: Mapping[str, _Read]) -> _State:
        """Return the state in which the files that were *read* again have their present contents."""
        files, schemas = _contents(read)
        return _State(listing, self.files.patched(files), self.schemas.patched(schemas))


def _same(now: Patched[str, T], before: Patched[str, T]) -> Patched[str, T]:
    """Return the mapping *before* if there is no difference: that of it is found quickly afterwards."""
    return before if now.differs(before) == [] else now


def _contents(read: Mapping[str, _Read]) -> tuple[dict[str, bytes], dict[str, bytes]]:
    """Return the contents of files and of schemas."""
    schemas = {path: found.content for path, found in read.items() if is_schema(path)}
    return {path: found.content for path, found in read.items() if path not in schemas}, schemas


def contents(file: Path, size: int) -> bytes:
    """Return what is in a *file* of about that *size*; of one that is too large, enough to tell so.

    No more is asked for than is needed: what is left of a buffer of the largest size stays a mapping of its
    own, at least a page, and Linux allows a process some 65,000 of those.
    """
    with file.open("rb") as opened:
        content = opened.read(min(size, MAX_BYTES) + 1)
        return content if len(content) <= size else content + opened.read(MAX_BYTES + 1)


def _counts(name: str, path: str) -> bool:
    """Tell whether a file is to be read: policies by their names, and all that a schema may refer to."""
    return is_schema(path) or is_policy_file(name)


def _is_linked_directory(entry: os.DirEntry[str]) -> bool:
    return entry.is_symlink() and entry.is_dir()


def _stamp(found: os.stat_result) -> Stamp:
    return Stamp(found.st_mtime_ns, found.st_ctime_ns, found.st_size, found.st_ino)
