"""What was fetched, on disk: git objects, and which commit came last.

Objects are named by what they hold, so a process may be killed at any moment: what it leaves is complete or
is not looked at, and no state mixes the files of two commits. What cannot be used any more is fetched anew
beside it, and takes its place by a rename.

Several processes may share a directory: whoever uses it holds its lock, which the system takes back from a
process that is killed.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import stat
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Final

from dulwich.object_store import DiskObjectStore
from dulwich.objects import Commit, ObjectID, parse_tree
from dulwich.pack import write_pack_from_container
from dulwich.refs import Ref
from dulwich.repo import Repo

from engine.storage import StoreError
from engine.storage.git.exchange import client_for, said_clearly
from engine.storage.git.remote import RefusedError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from dulwich.client import FetchPackResult
    from dulwich.object_store import BaseObjectStore

    from engine.storage.git.exchange import Exchange

LOCK: Final = "extauthz.lock"
"""The file that makes a directory ours. It is the first that is made in it."""

CLONE: Final = "clone"
ASIDE: Final = "aside-"
"""How directories begin that are being filled or thrown away."""

MAX_PACKS: Final = 50
"""Each update is one more pack to look through; after so many of them everything is fetched anew."""

LOCK_INTERVAL: Final = 0.02

SUBMODULE: Final = 0o160000
"""The type of an entry that names a commit elsewhere."""


class UnusableError(Exception):
    """What is on disk cannot be used: a part is missing, or is not what it should be."""


class Directory:
    """The ``checkoutDir``."""

    def __init__(self, path: Path) -> None:
        self.path = path

    @contextlib.contextmanager
    def locked(self, exchange: Exchange) -> Iterator[None]:
        """Let no other process use the directory, which is made if need be.

        Raises:
            StoreError: it cannot be had, is somebody else's, or is in use for too long.

        """
        try:
            lock = os.open(self._own_file(), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise StoreError(f"cannot use `{self.path}` (`checkoutDir`): {error.strerror}") from None
        try:
            while not _taken(lock):
                time.sleep(min(LOCK_INTERVAL, exchange.remaining))
            self._clean()
            yield
        finally:
            os.close(lock)

    def _own_file(self) -> Path:
        self.path.mkdir(mode=0o700, parents=True, exist_ok=True)
        file = self.path / LOCK
        if not file.exists() and any(self.path.iterdir()) and not file.exists():
            raise RefusedError(
                f"`{self.path}` (`checkoutDir`) holds something that is not ours: it is left as it is; "
                "choose another directory, or an empty one"
            )
        return file

    def _clean(self) -> None:
        """Remove what a process has left that was killed."""
        for left in self.path.glob(f"{ASIDE}*"):
            shutil.rmtree(left, ignore_errors=True)

    @property
    def clone(self) -> Clone:
        """The clone in use."""
        return Clone(self.path / CLONE)

    @contextlib.contextmanager
    def anew(self) -> Iterator[Clone]:
        """Fill an empty clone beside the one in use; it takes its place if nothing goes wrong."""
        try:
            aside = Path(tempfile.mkdtemp(prefix=ASIDE, dir=self.path))
        except OSError as error:
            raise StoreError(f"cannot write to `{self.path}` (`checkoutDir`): {error.strerror}") from None
        try:
            yield Clone(aside / CLONE)
            if (self.path / CLONE).exists():
                (self.path / CLONE).rename(aside / "before")
            (aside / CLONE).rename(self.path / CLONE)
        finally:
            shutil.rmtree(aside, ignore_errors=True)


def _taken(lock: int) -> bool:
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


class Clone:
    """Objects, and the commit of the last update."""

    def __init__(self, path: Path) -> None:
        self._path = path

    @property
    def is_usable(self) -> bool:
        """Whether there is a clone, and not one with too many packs."""
        packs = self._path / "objects" / "pack"
        return packs.is_dir() and sum(1 for _ in packs.glob("*.pack")) < MAX_PACKS

    @property
    def commit(self) -> ObjectID | None:
        """The commit of the last update."""
        try:
            text = (self._path / "commit").read_bytes()
        except OSError:
            return None
        return ObjectID(text) if len(text) == 40 and text.isalnum() else None

    @commit.setter
    def commit(self, commit: ObjectID) -> None:
        new = self._path / "commit.new"
        new.write_bytes(commit)
        new.replace(self._path / "commit")

    @contextlib.contextmanager
    def opened(self) -> Iterator[DiskObjectStore]:
        """Open the objects; whatever turns out to be wrong with them comes out as :class:`UnusableError`."""
        objects = self._path / "objects"
        try:
            if objects.is_dir():
                _remove_leftovers(objects / "pack")
                store = DiskObjectStore(objects)
            else:
                self._path.mkdir()
                store = DiskObjectStore.init(objects)
            try:
                yield store
            finally:
                _close(store)
        except (StoreError, UnusableError):
            raise
        except Exception as error:  # half a file can make the library fail in any way
            raise UnusableError(repr(error)) from error


def _close(store: DiskObjectStore) -> None:
    """Close the packs; one of which a part is still referred to closes when that goes."""
    with contextlib.suppress(BufferError):
        store.close()


def _remove_leftovers(packs: Path) -> None:
    """Remove files that were not finished: those with other names, and packs without an index."""
    for file in packs.iterdir():
        whole = file.name.startswith("pack-") and file.suffix in (".pack", ".idx")
        if not whole or not (file.with_suffix(".idx").exists() and file.with_suffix(".pack").exists()):
            file.unlink()


class _Haves:
    """Tells a server what we have: one commit, without the ones before it."""

    def __init__(self, commit: ObjectID | None) -> None:
        self.shallow = set() if commit is None else {commit}
        self._left = [] if commit is None else [commit]

    def __next__(self) -> ObjectID | None:
        return self._left.pop() if self._left else None

    def ack(self, commit: ObjectID) -> None:
        """Take note that the server has it too: there is no more to tell."""

    def nak(self) -> None:
        """Take note that it has not."""


def fetch(exchange: Exchange, objects: DiskObjectStore, branch: str, have: ObjectID | None) -> ObjectID:
    """Bring the objects of the last commit of *branch*, and return its id; nothing of its history.

    *have* is a commit whose objects are all there.

    Raises:
        StoreError: they cannot be had.

    """
    ref = Ref(b"refs/heads/" + branch.encode())
    bring = _copy if exchange.remote.protocol == "file" else _ask
    file, commit, abort = objects.add_pack()
    try:
        with said_clearly():
            found = bring(exchange, objects, ref, have, file.write)
    except BaseException:
        abort()
        raise
    if found == have:
        abort()
    else:
        commit()
    return found


def _ask(
    exchange: Exchange,
    _: DiskObjectStore,
    ref: Ref,
    have: ObjectID | None,
    write: Callable[[bytes], int],
) -> ObjectID:
    """Let a server send a pack of what is new."""
    found: list[ObjectID] = []

    def wanted(refs: Mapping[Ref, ObjectID], depth: int | None = None) -> list[ObjectID]:
        del depth
        found.append(_last(refs, ref))
        return [] if found[0] == have else found

    with contextlib.closing(client_for(exchange)) as client:
        result: FetchPackResult = client.fetch_pack(
            exchange.remote.path, wanted, _Haves(have), write, depth=1, ref_prefix=[ref]
        )
    if result.object_format not in (None, "sha1"):
        raise RefusedError(f"repositories with object format `{result.object_format}` cannot be read")
    return found[0]


def _last(refs: Mapping[Ref, ObjectID], ref: Ref) -> ObjectID:
    if ref not in refs:
        raise RefusedError(f"there is no branch `{ref.decode().removeprefix('refs/heads/')}`")
    return refs[ref]


def _copy(
    exchange: Exchange,
    objects: DiskObjectStore,
    ref: Ref,
    have: ObjectID | None,
    write: Callable[[bytes], int],
) -> ObjectID:
    """Pack what is new in a repository on this machine."""

    def written(data: bytes | bytearray | memoryview) -> int:
        _ = exchange.remaining  # there is no connection to cut
        return write(bytes(data))

    with contextlib.closing(Repo(exchange.remote.path)) as source:
        found = _last(source.get_refs(), ref)
        if found != have:
            before = None if have is None else _tree_of(objects, have)
            there: BaseObjectStore = source.object_store
            tree = _tree_of(there, found)
            new = dict.fromkeys([found, *_new_below(there, tree, objects, before)])
            write_pack_from_container(
                written,
                source.object_store,
                [(each, None) for each in new],
                source.object_format,
                deltify=False,
                reuse_deltas=False,  # to look for some takes longer than all the rest
            )
    return found


def _tree_of(objects: BaseObjectStore, commit: ObjectID) -> ObjectID:
    return ObjectID(Commit.from_string(objects.get_raw(commit)[1]).tree)


def _new_below(
    there: BaseObjectStore, tree: ObjectID, here: BaseObjectStore, before: ObjectID | None
) -> Iterator[ObjectID]:
    """Yield *tree*, and what is below it *there* and is not in the same place below *before*, *here*."""
    if tree == before:
        return
    yield tree
    known = {name: (mode, each) for name, mode, each in _entries(here, before)} if before else {}
    for name, mode, each in _entries(there, tree):
        old_mode, old = known.get(name, (0, None))
        if each == old or stat.S_IFMT(mode) == SUBMODULE:
            continue
        if stat.S_ISDIR(mode):
            yield from _new_below(there, each, here, old if stat.S_ISDIR(old_mode) else None)
        else:
            yield each


def _entries(objects: BaseObjectStore, tree: ObjectID) -> Iterator[tuple[bytes, int, ObjectID]]:
    for name, mode, each in parse_tree(objects.get_raw(tree)[1], 20):
        yield name, mode, ObjectID(each)
