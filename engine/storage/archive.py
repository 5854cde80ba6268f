"""A tree of files in an archive: zip, tar or compressed tar, by the ends of their names as in Cerbos.

An archive comes from somebody else and is read as hostile. It is used as a whole or refused as a whole, with
all that is wrong with its members. Sizes are counted while members are read; what an archive says of them
counts for nothing. Nothing is ever written to disk.
"""

from __future__ import annotations

import contextlib
import gzip
import io
import os
import re
import stat
import tarfile
import zipfile
import zlib
from pathlib import Path
from typing import IO, TYPE_CHECKING, Final

from engine.document import MAX_BYTES
from engine.storage import Snapshot, StoreError
from engine.storage.tree import EXTENSIONS, SCHEMAS, snapshot_of

if TYPE_CHECKING:
    from collections.abc import Iterator

SUFFIXES: Final = (".zip", ".tar", ".tgz", ".gz")
"""``.gz`` is for ``.tar.gz``, and a compressed tar archive too if there is no ``.tar`` before it."""

MAX_ARCHIVE: Final = 128 * 1024 * 1024
"""Bytes of the archive itself."""

MAX_TOTAL: Final = 256 * 1024 * 1024
"""Bytes of everything that is unpacked."""

MAX_MEMBERS: Final = 100_000
MAX_DEPTH: Final = 64
MAX_TOLD: Final = 10
"""How many faulty members a message names."""

_BLOCK: Final = 1024 * 1024
_END_OF_TAR: Final = bytes(1024)
_ENCRYPTED: Final = 0x1
_UTF8: Final = 0x800
_DRIVE: Final = re.compile(r"[A-Za-z]:")


def is_archive(path: str | os.PathLike[str]) -> bool:
    """Tell whether *path* is a file and its name that of an archive."""
    return Path(path).name.lower().endswith(SUFFIXES) and not Path(path).is_dir()


class ArchiveStore:
    """A store that is an archive, read again whenever it is asked for and never watched."""

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self._path = Path(path)
        self._before: Snapshot | None = None

    def read(self) -> Snapshot:
        """Return what the archive holds.

        Raises:
            StoreError: it cannot be read, or is refused.

        """
        snapshot = snapshot_of(read_archive(self._path), self._before)
        self._before = snapshot
        return snapshot

    def close(self) -> None:
        """Let go of nothing: an archive is only open while it is read."""


def read_archive(path: str | os.PathLike[str]) -> dict[str, bytes]:
    """Return all files of an archive, by path; those that can be no policy, schema or test have no content.

    Raises:
        StoreError: it cannot be read, or is refused.

    """
    path = Path(path)
    try:
        with path.open("rb") as file:
            found = os.fstat(file.fileno())
            if not stat.S_ISREG(found.st_mode) or found.st_size > MAX_ARCHIVE:
                raise _RefusedError(f"it is no file of at most {MAX_ARCHIVE >> 20} MiB")
            read = _read_zip if path.name.lower().endswith(".zip") else _read_tar
            return read(file, zipped=not path.name.lower().endswith(".tar"))
    except _RefusedError as error:
        raise StoreError(f"the archive `{path}` is refused: {error}") from None
    except OSError as error:
        if error.errno is not None:
            raise StoreError(f"cannot read `{path}`: {error.strerror}") from None
        raise _broken(path, error) from None
    except UnicodeDecodeError:
        raise StoreError(f"the archive `{path}` is refused: it has names that are not UTF-8") from None
    except (
        zipfile.BadZipFile,
        tarfile.TarError,
        zlib.error,
        EOFError,
        ValueError,
        NotImplementedError,
        RuntimeError,
    ) as error:
        raise _broken(path, error) from None


class _RefusedError(Exception):
    """The archive is not to be used."""


def _broken(path: Path, error: Exception) -> StoreError:
    return StoreError(f"the archive `{path}` is broken or not whole: {error}")


class _Members:
    """The members of an archive, each looked at before it is read."""

    def __init__(self) -> None:
        self._contents: dict[str, bytes] = {}
        self._directories: set[str] = set()
        self._faults: list[str] = []
        self._total = 0
        self._count = 0

    def named(self, name: str, *, is_directory: bool, fault: str = "") -> str | None:
        """Return the path of a member that is to be read; *fault* is what is wrong with it as such."""
        self._count += 1
        if self._count > MAX_MEMBERS:
            raise _RefusedError(f"it has more than {MAX_MEMBERS} members")
        path = name.rstrip("/") if is_directory else name
        path = path.removeprefix("./")
        if is_directory and path in ("", "."):
            return None
        fault = fault or _fault(path) or ("is there twice" if path in self._contents else "")
        if fault:
            self._faults.append(f"`{_shown(name)}` {fault}")
            return None
        if is_directory:
            self._directories.add(path)
            return None
        self._contents[path] = b""
        self._directories.update(_parents(path))
        return path if not self._faults and _matters(path) else None

    def take(self, path: str, file: IO[bytes]) -> None:
        """Read a member's content."""
        content = file.read(MAX_BYTES + 1)
        if len(content) > MAX_BYTES:
            raise _RefusedError(f"`{_shown(path)}` has more than {MAX_BYTES >> 20} MiB")
        self._total += len(content)
        if self._total > MAX_TOTAL:
            raise _RefusedError(f"its files are more than {MAX_TOTAL >> 20} MiB together")
        self._contents[path] = content

    def all(self) -> dict[str, bytes]:
        """Return the contents, if there was nothing wrong."""
        both = sorted(self._directories & self._contents.keys())
        self._faults += [f"`{_shown(path)}` is a file and a directory" for path in both]
        if self._faults:
            more = len(self._faults) - MAX_TOLD
            told = self._faults[:MAX_TOLD] + ([f"and {more} more"] if more > 0 else [])
            raise _RefusedError("; ".join(told))
        return self._contents


def _fault(path: str) -> str:
    """Say what is wrong with a member's name."""
    parts = path.split("/")
    if path.startswith("/") or _DRIVE.match(path):
        return "is an absolute path"
    if "\\" in path:
        return "has a backslash in its name"
    if ".." in parts:
        return "leads out of the archive"
    if "" in parts or "." in parts or not path.isprintable():
        return "is no path"
    return "is nested too deep" if len(parts) > MAX_DEPTH else ""


def _parents(path: str) -> Iterator[str]:
    while "/" in path:
        path = path.rpartition("/")[0]
        yield path


def _matters(path: str) -> bool:
    return path.lower().endswith(EXTENSIONS) or SCHEMAS in path.split("/")


def _shown(name: str) -> str:
    printable = name.encode("utf-8", "backslashreplace").decode()
    return "".join(char if char.isprintable() else "?" for char in printable)[:200]


# --- zip --------------------------------------------------------------------------------------------------


def _read_zip(file: IO[bytes], *, zipped: bool) -> dict[str, bytes]:
    del zipped
    members = _Members()
    with zipfile.ZipFile(file) as archive:
        for info in archive.infolist():
            path = members.named(info.orig_filename, is_directory=info.is_dir(), fault=_zip_fault(info))
            if path is not None:
                with archive.open(info) as member:
                    members.take(path, member)
    return members.all()


def _zip_fault(info: zipfile.ZipInfo) -> str:
    kind = stat.S_IFMT(info.external_attr >> 16)  # 0 when it was not made by a Unix
    if info.flag_bits & _ENCRYPTED:
        return "is encrypted"
    if not info.orig_filename.isascii() and not info.flag_bits & _UTF8:
        return "has a name that is not UTF-8"
    if kind not in (0, stat.S_IFREG, stat.S_IFDIR):
        return "is a link or a device"
    return ""


# --- tar --------------------------------------------------------------------------------------------------


def _read_tar(file: IO[bytes], *, zipped: bool) -> dict[str, bytes]:
    with gzip.GzipFile(fileobj=file) if zipped else contextlib.nullcontext(file) as source:
        data = _bounded(source)
    if not data.endswith(_END_OF_TAR):
        # A tar archive that was cut between two members looks like one with fewer members.
        raise EOFError("its end is missing")
    members = _Members()
    with tarfile.open(fileobj=io.BytesIO(data), mode="r:", encoding="utf-8", errors="strict") as archive:
        for info in archive:
            path = members.named(info.name, is_directory=info.isdir(), fault=_tar_fault(info))
            if path is not None:
                member = archive.extractfile(info)
                if member is None:
                    raise EOFError(f"`{_shown(path)}` has no content")
                members.take(path, member)
        if data[archive.offset :].strip(b"\0"):
            raise EOFError("there is something after its end")  # which a damaged member looks like too
    return members.all()


def _bounded(source: IO[bytes] | gzip.GzipFile) -> bytes:
    data = bytearray()
    while more := source.read(_BLOCK):
        data += more
        if len(data) > MAX_TOTAL:
            raise _RefusedError(f"it unpacks to more than {MAX_TOTAL >> 20} MiB")
    return bytes(data)


def _tar_fault(info: tarfile.TarInfo) -> str:
    if info.issym() or info.islnk():
        return "is a link"
    if info.issparse() or not (info.isreg() or info.isdir()):
        return "is a device, or something else that is no file"
    return ""
