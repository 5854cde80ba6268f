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
    from collections.abc import Callable, Mapping

    from engine.document import Fault


class StoreError(Exception):
    """The policies could not be read; the message says what and where."""


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
    "git": Driver("engine.storage.git.store:GitStore", extra="git"),
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
