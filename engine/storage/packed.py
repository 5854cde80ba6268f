"""Many files in one: a list of what there is, and the contents one after the other.

Nothing is compressed and nothing has to be interpreted to find a file, so there is nothing to be fooled by:
the list says how long each content is and what its SHA-256 is, and all of it is checked.
"""

from __future__ import annotations

import hashlib
import itertools
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

MAX_PATH = 1024
"""Characters of the longest path; S3's limit too."""


class PackedError(ValueError):
    """The list and the contents do not fit together, or the list is none; the message says where."""


class Entry(NamedTuple):
    """A file in the list."""

    path: str
    size: int
    sha256: str

    def document(self) -> dict[str, object]:
        """Write the entry as it stands in a JSON list."""
        return {"path": self.path, "size": self.size, "sha256": self.sha256}


def packed(contents: Mapping[str, bytes]) -> tuple[tuple[Entry, ...], bytes]:
    """Return the list, sorted by path, and the contents in its order."""
    entries = tuple(
        Entry(path, len(content), hashlib.sha256(content).hexdigest())
        for path, content in sorted(contents.items())
    )
    return entries, b"".join(contents[entry.path] for entry in entries)


def unpacked(entries: Iterable[Entry], payload: bytes) -> dict[str, bytes]:
    """Return the files, each checked against its hash.

    Raises:
        PackedError: the contents are not those of the list.

    """
    files: dict[str, bytes] = {}
    at = 0
    for entry in entries:
        content = payload[at : at + entry.size]
        if hashlib.sha256(content).hexdigest() != entry.sha256:
            raise PackedError(f"the content of `{entry.path}` is not what the list says")
        files[entry.path] = content
        at += entry.size
    if at != len(payload):
        raise PackedError(f"the contents are {len(payload)} bytes, the list says {at}")
    return files


def read_entries(value: object) -> tuple[Entry, ...]:
    """Read a list from parsed JSON, strictly: known keys, safe paths, sorted, none twice.

    Raises:
        PackedError: it is not such a list.

    """
    if not isinstance(value, list):
        raise PackedError("`files` must be a list")
    entries = tuple(_entry(item) for item in value)
    for before, entry in itertools.pairwise(entries):
        if before.path >= entry.path:
            raise PackedError(f"`{entry.path}` stands after `{before.path}`: the list must be sorted")
    return entries


def _entry(item: Any) -> Entry:
    if not isinstance(item, dict) or item.keys() != {"path", "size", "sha256"}:
        raise PackedError("an entry of `files` must have `path`, `size` and `sha256`")
    path, size, digest = item["path"], item["size"], item["sha256"]
    if not isinstance(path, str) or (reason := why_unsafe(path)):
        raise PackedError(f"the path {path!r} {reason if isinstance(path, str) else 'is not text'}")
    if type(size) is not int or size < 0:
        raise PackedError(f"the size of `{path}` is not a number of bytes")
    if not isinstance(digest, str) or len(digest) != 64:
        raise PackedError(f"the hash of `{path}` is not a SHA-256")
    return Entry(path, size, digest)


def why_unsafe(path: str) -> str:
    """Say what is wrong with a path that comes from elsewhere; nothing when it may be used.

    No path of a store is ever opened on a disk here. But it is shown to people and may be written out by
    them, so what could lead astray is refused.
    """
    if not path or len(path) > MAX_PATH:
        return "is empty or too long"
    if not path.isprintable():
        return "holds characters that cannot be printed"
    if "\\" in path:
        return "holds a backslash"
    if any(part in {"", ".", ".."} for part in path.split("/")):
        return "is absolute, or has empty, `.` or `..` parts"
    return ""
