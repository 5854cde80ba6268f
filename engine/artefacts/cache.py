"""Artefacts on disk: a private directory of packs, each written once, whole, and read only if it is sound.

Reading an artefact means to run what it says, so nothing is read that anybody else can have written: the
directory and every pack belong to the user that this process runs as, nobody else may read or write them, and
no link is followed on the way. Each pack begins with the digest of the rest, by which one that is cut off or
damaged is told, and with the edition that it is of, so that no other version's is used.

A pack is written beside its place and moved there, so processes do not see each other's half-written ones.
What takes more than the given room goes, the oldest first. Nothing here is ever needed: whatever is wrong,
the answer is that nothing is known.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import logging
import os
import secrets
import stat
import struct
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

logger = logging.getLogger(__name__)

MAX_BYTES = 256 * 1024 * 1024
"""How much a cache takes by default: about 40,000 policies of three conditions."""

MAGIC = b"extauthz artefacts 1\n"
DIGEST_SIZE = KEY_SIZE = 32
SUFFIX = ".pack"
UNFINISHED = ".part"

FEW = 6
"""So many packs of an edition may there be before those that were of use are put together."""

ABANDONED = 3600.0
"""Seconds after which what a process has begun to write and not finished is removed."""

WAIT = 60.0
"""Seconds that one process waits for another that compiles as much as it would have to."""

_LOCK = "lock"
_HEADER = struct.Struct("<Q")


class CacheError(Exception):
    """The directory cannot be used; the message says why."""


@dataclass(frozen=True, slots=True)
class CacheSettings:
    """Where artefacts are kept, and how many bytes they may take together."""

    directory: Path
    max_bytes: int = MAX_BYTES


class Pack:
    """One file of artefacts, as it was read."""

    def __init__(self, name: str, content: bytes, start: int) -> None:
        """*content* has been found sound up to *start*.

        Raises:
            ValueError, struct.error: its table does not fit its size.

        """
        self.name = name
        (count,) = _HEADER.unpack_from(content, start)
        table = start + _HEADER.size
        sizes_at = table + count * KEY_SIZE
        self._content = memoryview(content)
        sizes = struct.unpack_from(f"<{count}I", content, sizes_at)
        offset = sizes_at + 4 * count
        self._places: dict[bytes, tuple[int, int]] = {}
        for number, size in enumerate(sizes):
            key = content[table + number * KEY_SIZE : table + (number + 1) * KEY_SIZE]
            self._places[key] = offset, offset + size
            offset += size
        if offset != len(content):
            raise ValueError("the table does not fit the size")

    def get(self, key: bytes) -> memoryview | None:
        """Return an artefact, ``None`` if it is not here."""
        place = self._places.get(key)
        return None if place is None else self._content[place[0] : place[1]]


def pack(edition: bytes, artefacts: Mapping[bytes, bytes | memoryview]) -> list[bytes | memoryview]:
    """Return the parts of a pack."""
    sizes = struct.pack(f"<{len(artefacts)}I", *map(len, artefacts.values()))
    rest = [_HEADER.pack(len(artefacts)), b"".join(artefacts), sizes, *artefacts.values()]
    digest = hashlib.blake2b(edition, digest_size=DIGEST_SIZE)
    for part in rest:
        digest.update(part)
    return [MAGIC, edition, digest.digest(), *rest]


class Cache:
    """The packs of one edition in one directory.

    Every method opens the directory anew and checks it; none raises anything but :class:`CacheError`.
    """

    def __init__(self, settings: CacheSettings, edition: bytes) -> None:
        self._settings = settings
        self._edition = edition
        self._prefix = edition.hex()[:16]

    def read(self) -> list[Pack]:
        """Return the packs, the newest first. One that cannot be used is removed."""
        packs = []
        with self._opened() as directory:
            for name in self._names(directory, self._prefix):
                content = self._content(directory, name)
                found = None if content is None else self._checked(name, content)
                if found is not None:
                    packs.append(found)
                    _touch(directory, name)
                else:
                    _remove(directory, name)
        return packs

    def write(self, artefacts: Mapping[bytes, bytes | memoryview], instead_of: tuple[str, ...] = ()) -> None:
        """Add a pack; those named *instead_of* are not needed beside it."""
        parts = pack(self._edition, artefacts)
        size = sum(map(len, parts))
        if size > self._settings.max_bytes:
            raise CacheError(f"{size} bytes are more than the {self._settings.max_bytes} that it may take")
        with self._opened() as directory:
            name = f"{self._prefix}-{secrets.token_hex(8)}"
            _write(directory, name, parts)
            for old in instead_of:
                _remove(directory, old)
            self._make_room(directory)

    @contextlib.contextmanager
    def alone(self) -> Iterator[bool]:
        """Let one process at a time do the work of many: yields whether another one has done some meanwhile.

        That another one is slow, or hangs, holds nobody up for longer than :data:`WAIT`.
        """
        with self._opened() as directory:
            lock = os.open(
                _LOCK, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600, dir_fd=directory
            )
        # What goes wrong inside, with the directory closed again, is nothing of the cache's.
        try:
            yield _locked(lock)
        finally:
            os.close(lock)

    # -- the directory -------------------------------------------------------------------------------------

    @contextlib.contextmanager
    def _opened(self) -> Iterator[int]:
        """Give a descriptor of the directory, which nobody else can have written to."""
        path = self._settings.directory
        try:
            path.mkdir(mode=0o700, parents=True, exist_ok=True)
            directory = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
        except OSError as error:
            raise CacheError(f"cannot open `{path}`: {error.strerror}") from None
        try:
            told = _unsafe(os.fstat(directory))
            if told:
                raise CacheError(f"`{path}` {told}")
            yield directory
        except OSError as error:
            raise CacheError(f"cannot use `{path}`: {error.strerror}") from None
        finally:
            os.close(directory)

    def _names(self, directory: int, prefix: str = "") -> list[str]:
        """Return the names of packs that begin with *prefix*, the newest first."""
        found = [name for name in os.listdir(directory) if name.startswith(prefix) and name.endswith(SUFFIX)]
        return sorted(found, key=lambda name: -_modified(directory, name))

    def _content(self, directory: int, name: str) -> bytes | None:
        """Return what a pack holds, ``None`` if it is gone, not ours, or too large."""
        try:
            file = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=directory)
        except OSError:
            return None
        with os.fdopen(file, "rb") as opened:
            found = os.fstat(file)
            if _unsafe(found) or not stat.S_ISREG(found.st_mode) or found.st_nlink != 1:
                return None
            if found.st_size > self._settings.max_bytes:
                return None
            return opened.read(found.st_size)

    def _checked(self, name: str, content: bytes) -> Pack | None:
        start = len(MAGIC) + len(self._edition) + DIGEST_SIZE
        if content[: start - DIGEST_SIZE] != MAGIC + self._edition:
            return None
        digest = hashlib.blake2b(self._edition, digest_size=DIGEST_SIZE)
        digest.update(memoryview(content)[start:])
        if digest.digest() != content[start - DIGEST_SIZE : start]:
            logger.warning("`%s` in the cache `%s` is damaged: removed", name, self._settings.directory)
            return None
        try:
            return Pack(name, content, start)
        except (ValueError, struct.error):
            return None

    def _make_room(self, directory: int) -> None:
        """Remove what was abandoned, and the packs that were of no use for the longest time."""
        for name in os.listdir(directory):
            if name.endswith(UNFINISHED) and time.time() - _modified(directory, name) > ABANDONED:
                _remove(directory, name)
        taken = 0
        for name in self._names(directory):
            with contextlib.suppress(FileNotFoundError):
                taken += os.stat(name, dir_fd=directory, follow_symlinks=False).st_size
            if taken > self._settings.max_bytes:
                _remove(directory, name)


def _unsafe(found: os.stat_result) -> str:
    """Say why a directory or file may have been written by somebody else, empty if it cannot."""
    if found.st_uid != os.geteuid():
        return "belongs to another user"
    if found.st_mode & 0o077:
        return "can be used by other users: its mode has to be 0700"
    return ""


def _locked(lock: int) -> bool:
    """Wait for the lock, not for ever; return whether there was any need to."""
    end = time.monotonic() + WAIT
    waited = False
    while True:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            waited = True
            if time.monotonic() > end:
                logger.warning("another process has been compiling for %.0f s: not waiting for it", WAIT)
                return True
            time.sleep(0.05)
        except OSError:
            return waited  # no locks on this file system
        else:
            return waited


def _write(directory: int, name: str, parts: list[bytes | memoryview]) -> None:
    unfinished = f"{name}{UNFINISHED}"
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    file = os.open(unfinished, flags, 0o600, dir_fd=directory)
    try:
        with os.fdopen(file, "wb") as opened:
            os.fchmod(file, 0o600)
            opened.writelines(parts)
        os.rename(unfinished, f"{name}{SUFFIX}", src_dir_fd=directory, dst_dir_fd=directory)
    except BaseException:
        _remove(directory, unfinished)
        raise


def _remove(directory: int, name: str) -> None:
    with contextlib.suppress(OSError):
        os.unlink(name, dir_fd=directory)


def _touch(directory: int, name: str) -> None:
    with contextlib.suppress(OSError):
        os.utime(name, dir_fd=directory, follow_symlinks=False)


def _modified(directory: int, name: str) -> float:
    try:
        return os.stat(name, dir_fd=directory, follow_symlinks=False).st_mtime
    except OSError:
        return 0.0
