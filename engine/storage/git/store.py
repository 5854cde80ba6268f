"""The driver: the last commit of a branch, fetched when it is asked for and at an interval."""

from __future__ import annotations

import hashlib
import logging
import os
import threading
from dataclasses import dataclass, field, replace
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any, Final

from engine.storage import Snapshot, StoreError
from engine.storage.git.clone import Directory, UnusableError, fetch
from engine.storage.git.commit import read_commit
from engine.storage.git.exchange import Exchange
from engine.storage.git.remote import RefusedError, Remote, refuse_unknown
from engine.storage.polling import Looks, Poller, with_retries
from engine.storage.tree import snapshot_of

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from dulwich.object_store import DiskObjectStore
    from dulwich.objects import ObjectID

    from engine.storage.git.clone import Clone

logger = logging.getLogger(__name__)

KEYS: Final = (
    "protocol",
    "url",
    "branch",
    "subDir",
    "checkoutDir",
    "updatePollInterval",
    "operationTimeout",
    "ssh",
    "https",
)
BRANCH: Final = "master"
OPERATION_TIMEOUT: Final = 60.0

ATTEMPTS: Final = 4
FIRST_DELAY: Final = 0.25
LONGEST_DELAY: Final = 4.0
"""How a server is waited for that cannot be reached at the start."""


@dataclass(frozen=True, slots=True)
class Options:
    """What to read and how often to look; times in seconds."""

    branch: str = BRANCH
    directory: str = ""
    """Inside the repository, with ``/``; empty: all of it."""
    poll_interval: float = 0.0
    """0: only when told to."""
    timeout: float = OPERATION_TIMEOUT


@dataclass(frozen=True, slots=True)
class _State:
    """What was read last."""

    commit: ObjectID
    snapshot: Snapshot
    blobs: Mapping[ObjectID, bytes] = field(repr=False)


class GitStore:
    """A store that is a directory of a branch of a git repository."""

    def __init__(self, remote: Remote, checkout: Path, options: Options | None = None) -> None:
        """*checkout* is a directory for what is fetched; several processes may share it."""
        self.remote = remote
        self.looks = Looks()
        self._directory = Directory(checkout)
        self._options = options or Options()
        self._state: _State | None = None
        self._lock = threading.Lock()
        self._exchange: Exchange | None = None
        self._closed = False
        self._poller: Poller | None = None
        self._told = ""
        self._found: Snapshot | StoreError | None = None

    @classmethod
    def from_settings(cls, settings: Mapping[str, Any]) -> GitStore:
        """Make a store from Cerbos's ``storage.git`` block, durations in seconds.

        Raises:
            StoreError: a setting is missing, unknown, or does not fit.

        """
        refuse_unknown(settings, KEYS, "the git driver")
        remote = Remote.from_settings(settings)
        timeout = settings.get("operationTimeout")
        options = Options(
            settings.get("branch") or BRANCH,
            _inside(settings.get("subDir") or ""),
            settings.get("updatePollInterval") or 0.0,
            OPERATION_TIMEOUT if timeout is None else timeout,
        )
        if options.timeout <= 0:
            raise StoreError("`operationTimeout` of the git driver has to be more than 0")
        checkout = settings.get("checkoutDir")
        return cls(remote, Path(checkout) if checkout else default_checkout(remote), options)

    # -- reading -------------------------------------------------------------------------------------------

    def read(self) -> Snapshot:
        """Fetch, and return the files of the branch's last commit.

        Raises:
            StoreError: they cannot be had.

        """
        with self._lock:
            found, self._found = self._found, None
            if found is None:
                found = self._outcome(with_patience=self._state is None)
        if isinstance(found, StoreError):
            raise found
        return found

    def close(self) -> None:
        """End everything that is under way."""
        self._closed = True
        exchange = self._exchange
        if exchange is not None:
            exchange.cut("the store is closed")
        if self._poller is not None:
            self._poller.stop()

    def _outcome(self, *, with_patience: bool) -> Snapshot | StoreError:
        """Update, and keep what came of it, to know whether the next look finds something else."""
        try:
            snapshot = self._patiently_updated() if with_patience else self._update()
        except StoreError as error:
            self._told = str(error)
            return error
        self._told = snapshot.revision
        return snapshot

    def _patiently_updated(self) -> Snapshot:
        """Try some times, unless that is of no use."""

        def attempt() -> Snapshot | RefusedError:
            try:
                return self._update()
            except RefusedError as error:
                return error

        found = with_retries(attempt, attempts=ATTEMPTS, first_delay=FIRST_DELAY, longest_delay=LONGEST_DELAY)
        if isinstance(found, RefusedError):
            raise found
        return found

    def _update(self) -> Snapshot:
        """Fetch, and read what has changed."""
        try:
            with self.looks.counted(), Exchange(self.remote, self._options.timeout) as exchange:
                self._exchange = exchange
                if self._closed:
                    raise RefusedError("the store is closed")
                with self._directory.locked(exchange):
                    self._state = self._updated(exchange)
        except StoreError as error:
            kind = RefusedError if isinstance(error, RefusedError) else StoreError
            where = f"branch `{self._options.branch}` of `{self.remote}`"
            raise kind(f"cannot read {where}: {error}") from None
        finally:
            self._exchange = None
        return self._state.snapshot

    def _updated(self, exchange: Exchange) -> _State:
        if self._directory.clone.is_usable:
            try:
                return self._fetched(exchange, self._directory.clone)
            except UnusableError as error:
                logger.warning(
                    "the clone in `%s` cannot be used, it is fetched anew: %s", self._directory.path, error
                )
        try:
            with self._directory.anew() as clone, clone.opened() as objects:
                commit = clone.commit = fetch(exchange, objects, self._options.branch, None)
            with self._directory.clone.opened() as objects:
                return self._read(objects, commit)
        except UnusableError as error:
            raise StoreError(f"what was fetched cannot be used: {error}") from None

    def _fetched(self, exchange: Exchange, clone: Clone) -> _State:
        """Bring a clone up to date, and read it."""
        with clone.opened() as objects:
            before = clone.commit
            have = before if before is not None and before in objects else None
            commit = clone.commit = fetch(exchange, objects, self._options.branch, have)
            return self._read(objects, commit)

    def _read(self, objects: DiskObjectStore, commit: ObjectID) -> _State:
        before = self._state
        if before is not None and before.commit == commit:
            return before
        found = read_commit(objects, commit, self._options.directory, {} if before is None else before.blobs)
        snapshot = snapshot_of(
            found.contents, None if before is None else before.snapshot, revision=commit.decode()
        )
        faults = tuple(sorted((*snapshot.faults, *found.faults)))
        return _State(commit, replace(snapshot, faults=faults), found.blobs)

    # -- watching ------------------------------------------------------------------------------------------

    def watch(self, changed: Callable[[], object]) -> None:
        """Look at the interval, and call *changed* when there is another commit, or another error."""
        if self._options.poll_interval > 0 and self._poller is None:
            self._poller = Poller("git-store", self._options.poll_interval, lambda: self._look(changed))
            self._poller.start()

    def _look(self, changed: Callable[[], object]) -> None:
        with self._lock:
            before = self._told
            found = self._outcome(with_patience=False)
            if self._told == before or self._closed:
                return
            self._found = found  # for the reading that *changed* leads to
        changed()


def default_checkout(remote: Remote) -> Path:
    """Return a directory in the user's cache, one for each repository.

    Raises:
        StoreError: the user has none.

    """
    try:
        cache = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    except RuntimeError:
        raise StoreError("this user has no home directory: the git driver needs a `checkoutDir`") from None
    name = hashlib.sha256(str(remote).encode()).hexdigest()[:16]
    return Path(cache) / "extauthz" / "git" / name


def _inside(directory: str) -> str:
    path = PurePosixPath(directory)
    if path.is_absolute() or ".." in path.parts:
        raise StoreError(f"`subDir` has to be a path inside the repository, and `{directory}` is none")
    return "" if not path.parts else str(path)
