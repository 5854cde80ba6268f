"""Files that are there as a whole or not at all, whenever the process is killed or the power fails."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import tempfile
import time
from typing import TYPE_CHECKING

from engine.storage import StoreError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

TEMPORARY = ".part"
"""What the names of files end in that are being written."""

LOCK_PATIENCE = 10.0
"""Seconds that another process may take for what it does with a directory."""


def write_atomically(path: Path, content: bytes, mode: int = 0o600) -> None:
    """Put *content* at *path* in one step that lasts, with *mode*: only the owner may read it.

    Raises:
        OSError: it cannot be written; what was there before still is.

    """
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=TEMPORARY)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(content)
            os.fchmod(file.fileno(), mode)
            file.flush()
            os.fsync(file.fileno())
        os.replace(name, path)  # noqa: PTH105 - a name that mkstemp made
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(name)  # noqa: PTH108 - the same
        raise
    _sync_directory(path.parent)


def _sync_directory(directory: Path) -> None:
    """Make the new name last as well."""
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def read_bounded(path: Path, max_bytes: int) -> bytes | None:
    """Return what is at *path*, ``None`` when nothing is.

    Raises:
        StoreError: it cannot be read, or is larger than *max_bytes*.

    """
    try:
        with path.open("rb") as file:
            content = file.read(max_bytes + 1)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise StoreError(f"cannot read `{path}`: {error.strerror}") from error
    if len(content) > max_bytes:
        raise StoreError(f"`{path}` is larger than {max_bytes} bytes")
    return content


def prepared(directory: Path, setting: str) -> Path:
    """Make sure that *directory* is there and can be written, and sweep out what a killed process left.

    Raises:
        StoreError: it cannot be; the message names the *setting* that would mend it.

    """
    try:
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        with locked(directory):
            for left in directory.glob(f".*{TEMPORARY}"):
                left.unlink(missing_ok=True)
    except OSError as error:
        reason = f"cannot write to `{directory}` ({error.strerror}): set `{setting}` to another directory"
        raise StoreError(reason) from error
    return directory


@contextlib.contextmanager
def locked(directory: Path) -> Iterator[None]:
    """Keep other processes that use *directory* (the workers beside this one) out meanwhile.

    Raises:
        OSError: the lock cannot be had, or not within :data:`LOCK_PATIENCE`.

    """
    descriptor = os.open(directory / ".lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        _lock(descriptor)
        yield
    finally:
        os.close(descriptor)  # and with it goes the lock


def _lock(descriptor: int) -> None:
    """Wait for the lock; a process that holds it and hangs is not waited for without end."""
    end = time.monotonic() + LOCK_PATIENCE
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() > end:
                raise OSError(errno.EAGAIN, "another process keeps it locked") from None
            time.sleep(0.01)
        else:
            return


def cache_directory(name: str) -> str:
    """Return where a driver keeps what it may lose, by the XDG base directory specification."""
    base = os.environ.get("XDG_CACHE_HOME", "")
    root = base if os.path.isabs(base) else os.path.expanduser("~/.cache")  # noqa: PTH111, PTH117 - texts
    return os.path.join(root, "extauthz", name)  # noqa: PTH118 - the same
