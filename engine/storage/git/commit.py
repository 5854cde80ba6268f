"""The files of one commit, read from git's objects, each of which is what its name says.

The rules are those of a directory: :mod:`engine.storage.tree` says which files count; links to files are
followed where they stay inside the repository, links to directories are not. Submodules are no part of it.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from posixpath import normpath
from typing import TYPE_CHECKING, Final, NamedTuple

from dulwich.objects import Blob, Commit, ObjectID, Tree, parse_tree

from engine.document import MAX_BYTES, Fault
from engine.storage.git.clone import UnusableError
from engine.storage.git.remote import RefusedError
from engine.storage.tree import counts, enters, is_misplaced

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from dulwich.object_store import DiskObjectStore

MAX_FILES: Final = 200_000
MAX_DEPTH: Final = 64
MAX_TOTAL: Final = 512 * 1024 * 1024
"""Bytes of all files together: trees that refer to each other can mean far more than they hold."""

MAX_LINKS: Final = 8
"""Links one after the other until there is a file."""

_TREE, _FILE, _LINK, _TYPE = 0o040000, 0o100000, 0o120000, 0o170000


@dataclass(frozen=True, slots=True)
class Files:
    """What a directory of a commit holds."""

    contents: Mapping[str, bytes]
    """By path; a file that is no policy has no content."""
    faults: tuple[Fault, ...]
    blobs: Mapping[ObjectID, bytes] = field(repr=False)
    """The contents by the names that git has for them."""


class _Entry(NamedTuple):
    name: str
    type: int
    id: ObjectID


def read_commit(
    objects: DiskObjectStore, commit: ObjectID, directory: str, known: Mapping[ObjectID, bytes]
) -> Files:
    """Read the files below *directory* (``""``: all); what is *known* is not read again.

    Raises:
        UnusableError: an object is missing, or damaged.
        RefusedError: there is no such directory, or more in it than can be policies.

    """
    return _Reader(objects, commit, known).read(directory)


class _Reader:
    def __init__(self, objects: DiskObjectStore, commit: ObjectID, known: Mapping[ObjectID, bytes]) -> None:
        self._objects = objects
        self._commit = commit
        self._known = known
        self._contents: dict[str, bytes] = {}
        self._blobs: dict[ObjectID, bytes] = {}
        self._faults: list[Fault] = []
        self._trees: dict[ObjectID, tuple[_Entry, ...]] = {}
        self._total = 0

    def read(self, directory: str) -> Files:
        root = self._root()
        top = self._found(root, directory)
        if top is None or top.type != _TREE:
            raise RefusedError(
                f"there is no directory `{directory}` (`subDir`) in commit {self._commit.decode()}"
            )
        for path, entry in self._walk(top.id, "", 0):
            self._take(root, directory, path, entry)
        return Files(self._contents, tuple(self._faults), self._blobs)

    def _root(self) -> ObjectID:
        commit = Commit.from_string(self._raw(self._commit, Commit.type_num))
        return ObjectID(commit.tree)

    # -- the tree ------------------------------------------------------------------------------------------

    def _walk(self, tree: ObjectID, prefix: str, depth: int) -> Iterator[tuple[str, _Entry]]:
        if depth > MAX_DEPTH:
            raise RefusedError(f"directories are nested more than {MAX_DEPTH} deep in `{prefix}`")
        for entry in self._entries(tree):
            path = f"{prefix}{entry.name}"
            if entry.type != _TREE:
                yield path, entry
            elif enters(entry.name, path):
                yield from self._walk(entry.id, f"{path}/", depth + 1)
            elif is_misplaced(entry.name, path):
                yield f"{path}/", entry  # that there is one is the fault

    def _take(self, root: ObjectID, directory: str, path: str, entry: _Entry) -> None:
        if len(self._contents) >= MAX_FILES:
            raise RefusedError(f"there are more than {MAX_FILES} files")
        if not counts(path) or entry.type not in (_FILE, _LINK):
            if entry.type in (_FILE, _TREE):
                self._contents[path] = b""
            return
        file = self._followed(root, directory, path, entry) if entry.type == _LINK else entry
        if file is not None:
            self._contents[path] = self._content(file.id)

    def _entries(self, tree: ObjectID) -> tuple[_Entry, ...]:
        found = self._trees.get(tree)
        if found is None:
            raw = parse_tree(self._raw(tree, Tree.type_num), 20)
            found = tuple(
                _Entry(name.decode("utf-8", "backslashreplace"), mode & _TYPE, ObjectID(sha))
                for name, mode, sha in raw
            )
            names = {entry.name for entry in found}
            if len(names) != len(found) or any("/" in name or name in ("", ".", "..") for name in names):
                raise RefusedError(
                    f"tree {tree.decode()} has names that are no names of files, or has one twice"
                )
            self._trees[tree] = found
        return found

    def _found(self, root: ObjectID, path: str) -> _Entry | None:
        """Return what is at *path*, links not followed."""
        entry = _Entry("", _TREE, root)
        for part in path.split("/") if path else ():
            if entry.type != _TREE:
                return None
            below = (each for each in self._entries(entry.id) if each.name == part)
            found = next(below, None)
            if found is None:
                return None
            entry = found
        return entry

    def _followed(self, root: ObjectID, directory: str, path: str, link: _Entry) -> _Entry | None:
        """Return the file that a link leads to; None when that is no file, and a fault when it is nothing."""
        at = f"{directory}/{path}" if directory else path
        entry: _Entry | None = link
        for _ in range(MAX_LINKS):
            if entry is None or entry.type != _LINK:
                break
            target = self._content(entry.id).decode("utf-8", "backslashreplace")
            at = (
                normpath(f"{at.rpartition('/')[0]}/{target}".lstrip("/"))
                if not target.startswith("/")
                else ".."
            )
            entry = None if at == ".." or at.startswith("../") else self._found(root, at)
        if entry is None or entry.type == _LINK:
            self._faults.append(Fault(path, 0, 0, "the link leads to nothing inside of the repository"))
        return entry if entry is not None and entry.type == _FILE else None

    # -- objects -------------------------------------------------------------------------------------------

    def _content(self, blob: ObjectID) -> bytes:
        """Return what a file holds; of one that is too large, as much as shows it."""
        found = self._blobs.get(blob)
        if found is None:
            found = self._known.get(blob)
            if found is None:
                found = self._raw(blob, Blob.type_num)[: MAX_BYTES + 1]
            self._blobs[blob] = found
        self._total += len(found)
        if self._total > MAX_TOTAL:
            raise RefusedError(f"the files are more than {MAX_TOTAL >> 20} MiB together")
        return found

    def _raw(self, name: ObjectID, kind: int) -> bytes:
        """Return an object's bytes, if they are those that its name stands for."""
        try:
            number, data = self._objects.get_raw(name)
        except KeyError:
            raise UnusableError(f"object {name.decode()} is missing") from None
        head = b"%s %d\0" % (_TYPE_NAMES[kind], len(data))
        if number != kind or hashlib.sha1(head + data, usedforsecurity=False).hexdigest().encode() != name:
            raise UnusableError(f"object {name.decode()} is not what it should be")
        return data


_TYPE_NAMES = {Commit.type_num: b"commit", Tree.type_num: b"tree", Blob.type_num: b"blob"}
