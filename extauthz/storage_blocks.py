"""The ``storage`` block of the configuration: one block for each driver, with Cerbos's keys.

A driver's block checks what a person wrote; the driver itself gets plain values
(:meth:`StorageBlock.options`) and knows nothing of the file.

Annotations are evaluated here (no ``from __future__ import annotations``): pydantic reads them.
"""

import datetime
from typing import Annotated, Any

from pydantic import BeforeValidator

from engine.storage import DRIVERS
from extauthz.blocks import Block, NonEmpty, fault, unknown

LATER_DRIVERS = ("git", "blob", "sqlite3", "postgres", "mysql", "overlay", "hub")


class StorageBlock(Block):
    """The settings of one driver."""

    @property
    def follows(self) -> bool:
        """Whether changes are to take effect while the service runs."""
        return True

    def options(self) -> dict[str, object]:
        """Return the settings by Cerbos's names, as the driver takes them: durations in seconds."""
        return {name: _plain(value) for name, value in self.model_dump(by_alias=True).items()}


def _plain(value: Any) -> Any:
    if isinstance(value, datetime.timedelta):
        return value.total_seconds()
    if isinstance(value, dict):
        return {name: _plain(item) for name, item in value.items()}
    return value


class DiskStorage(StorageBlock):
    """Policies in a directory."""

    directory: NonEmpty = "policies"
    watch_for_changes: bool = False

    @property
    def follows(self) -> bool:
        """As the file says."""
        return self.watch_for_changes


def _known_driver(value: object) -> object:
    if value in LATER_DRIVERS:
        raise fault(f"the storage driver `{value}` is not built yet: use `disk`")
    if isinstance(value, str) and value not in DRIVERS:
        raise fault(unknown("storage driver", value, list(DRIVERS)))
    return value


class Storage(Block):
    """Where policies come from."""

    driver: Annotated[str, BeforeValidator(_known_driver)]
    disk: DiskStorage = DiskStorage()
    git: Any = None
    blob: Any = None
    sqlite3: Any = None
    postgres: Any = None
    mysql: Any = None
    overlay: Any = None
    hub: Any = None

    @property
    def chosen(self) -> StorageBlock:
        """The block of the driver in use."""
        block: StorageBlock = getattr(self, self.driver)
        return block
