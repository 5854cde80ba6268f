"""Where policies come from: drivers by name, and what the engine expects of them.

A driver is a row in :data:`DRIVERS` and a class that is imported on first use. It can be read, and it may be
able to be watched; what it can do is told by the small interfaces below, one for each ability.
"""

from __future__ import annotations

import importlib
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

from engine.document import did_you_mean

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from engine.document import Fault


class StoreError(Exception):
    """The policies could not be read; the message says what and where."""


class RefusedError(StoreError):
    """What was asked for cannot be done, and nothing of it was; the store itself is well."""


class IntegrityError(RefusedError):
    """Policies cannot be deleted or disabled, because others need them.

    *descendants* maps a policy to those in scopes below it, *dependents* to those that import it, themselves
    or through another one.
    """

    def __init__(
        self, descendants: Mapping[str, Sequence[str]], dependents: Mapping[str, Sequence[str]]
    ) -> None:
        self.descendants = descendants
        self.dependents = dependents
        above = [f"`{policy}` is above {_list(below)}" for policy, below in descendants.items()]
        needed = [f"`{policy}` is needed by {_list(by)}" for policy, by in dependents.items()]
        super().__init__("; ".join((*above, *needed)))


@dataclass(frozen=True, slots=True)
class Snapshot:
    """One consistent state of a store.

    *files* maps paths inside the store (with ``/``) to contents; an unchanged file keeps its ``bytes``
    object. *schemas* holds the JSON Schemas the same way, *faults* what is wrong with the store as such.
    *revision* names the state in the store's own words (a commit, a version), where it has any.
    """

    files: Mapping[str, bytes]
    schemas: Mapping[str, bytes] = field(default_factory=dict)
    faults: tuple[Fault, ...] = ()
    revision: str = ""


class Store(Protocol):
    """A place that policies are read from."""

    def read(self) -> Snapshot:
        """Return the current state.

        Raises:
            StoreError: there is no consistent state to be had.

        """

    def close(self) -> None:
        """Let go of files, connections and threads."""


@runtime_checkable
class Watchable(Protocol):
    """A store that notices changes by itself."""

    def watch(self, changed: Callable[[], object]) -> None:
        """Call *changed*, from a thread of the store, whenever policies may have changed, until closed."""


@runtime_checkable
class Telling(Protocol):
    """A store that can hand out a state although not all is well with it."""

    def notice(self) -> str:
        """Say what a person should know about the state that was handed out last; nothing when all is well.

        It is called often, from any thread, and must neither wait nor raise.
        """


# --- what a store can do beyond being read ----------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class PolicyFilter:
    """Which policies to list. An empty condition holds for all.

    *name*, *scope* and *version* are regular expressions (RE2) that have to be found somewhere in what the
    policy says; case matters.
    """

    name: str = ""
    scope: str = ""
    version: str = ""
    ids: tuple[str, ...] = ()
    include_disabled: bool = False


@dataclass(frozen=True, slots=True)
class StoredPolicy:
    """A policy as a store holds it.

    *id* is its policy key (``resource.doc.vdefault/acme``), *definition* the serialized message
    ``cerbos.policy.v1.Policy`` (:mod:`engine.policy_messages`), in which *disabled* is already said.
    """

    id: str
    definition: bytes
    disabled: bool = False


@runtime_checkable
class Listing(Protocol):
    """A store that can show each thing that it holds, also what is disabled and so not in a snapshot.

    All methods raise :class:`StoreError` when the store cannot be reached, within its time limits.
    """

    def list_policies(self, chosen: PolicyFilter = ...) -> list[str]:
        """Return the ids of policies, by kind, name, version and scope.

        Raises:
            RefusedError: a regular expression is none.

        """

    def get_policies(self, ids: Iterable[str]) -> list[StoredPolicy]:
        """Return policies in the order of *ids*; what is not there is left out."""

    def list_schemas(self) -> list[str]:
        """Return the ids of the schemas (``person.json``, ``common/address.json``), sorted."""

    def get_schemas(self, ids: Iterable[str]) -> dict[str, bytes]:
        """Return schemas in the order of *ids*; what is not there is left out."""


@runtime_checkable
class Writable(Protocol):
    """A store that can be changed. Each call is one transaction: all of it is done, or nothing.

    When a call returns, the change is durable, and whoever watches the store is called soon. That the
    policies make sense together is for the engine to find out; the store looks no further than it says here.
    All methods raise :class:`StoreError` when the store cannot be reached, within its time limits; whether
    the change was made is then unknown, and repeating the call does no harm.
    """

    def put_policies(self, definitions: Iterable[bytes]) -> None:
        """Add policies, or replace those of the same key.

        Each is a serialized ``cerbos.policy.v1.Policy``; two of the same key are refused.

        Raises:
            RefusedError: one is no policy, or the store cannot hold it.

        """

    def delete_policies(self, ids: Iterable[str]) -> int:
        """Take policies away; return how many there were.

        Raises:
            IntegrityError: others that stay need one of them.

        """

    def disable_policies(self, ids: Iterable[str]) -> int:
        """Keep policies, but out of force; return how many there are.

        Raises:
            IntegrityError: others that stay in force need one of them.

        """

    def enable_policies(self, ids: Iterable[str]) -> int:
        """Put disabled policies in force; return how many there are."""

    def put_schemas(self, schemas: Mapping[str, bytes]) -> None:
        """Add or replace JSON Schemas by id (a path such as ``common/address.json``).

        Raises:
            RefusedError: one is no JSON, or its id is none.

        """

    def delete_schemas(self, ids: Iterable[str]) -> int:
        """Take schemas away; return how many there were. Policies that need them are not looked for."""


@runtime_checkable
class Revisioned(Protocol):
    """A store that remembers what policies were before."""

    def purge_revisions(self, keep_last: int = 0) -> int:
        """Forget revisions, but for the newest *keep_last* of each policy; return how many were forgotten.

        Raises:
            StoreError: the store cannot be reached.

        """


# --- drivers ----------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Driver:
    """A kind of store: ``module:class``, and the extra of this package that it needs, if any."""

    target: str
    extra: str = ""

    def open(self, settings: Mapping[str, Any]) -> Store:
        """Make a store from the driver's block of the configuration.

        Raises:
            StoreError: the extra is not installed, or the settings do not fit.

        """
        module, _, name = self.target.partition(":")
        try:
            cls = getattr(importlib.import_module(module), name)
        except ImportError as error:
            hint = f"; install `extauthz[{self.extra}]`" if self.extra else ""
            raise StoreError(f"the driver needs `{error.name}`{hint}") from error
        store: Store = cls.from_settings(settings)
        return store


DRIVERS: Mapping[str, Driver] = {
    "disk": Driver("engine.storage.disk:DiskStore"),
    "blob": Driver("engine.storage.blob:BlobStore", extra="blob"),
    "bundle": Driver("engine.storage.bundle.store:BundleStore"),
    "git": Driver("engine.storage.git.store:GitStore", extra="git"),
    "sqlite3": Driver("engine.storage.sql.sqlite3:SqliteStore", extra="sqlite3"),
    "postgres": Driver("engine.storage.sql.postgres:PostgresStore", extra="postgres"),
    "overlay": Driver("engine.storage.overlay:OverlayStore"),
    "mysql": Driver("engine.storage.sql.mysql:MysqlStore", extra="mysql"),
}


def open_store(driver: str, settings: Mapping[str, Any]) -> Store:
    """Open the store that a configuration names.

    Raises:
        StoreError: there is no such driver, or it cannot be opened.

    """
    found = DRIVERS.get(driver)
    if found is None:
        hint = did_you_mean(driver, DRIVERS) or f"one of {', '.join(DRIVERS)}"
        raise StoreError(f"unknown storage driver `{driver}` ({hint})")
    return found.open(settings)


def _list(names: Iterable[str]) -> str:
    return ", ".join(f"`{name}`" for name in names)
