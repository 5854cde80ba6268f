"""The ``storage`` block of the configuration: one block for each driver, with Cerbos's keys.

A driver's block checks what a person wrote; the driver itself gets plain values
(:meth:`StorageBlock.options`) and knows nothing of the file.

Annotations are evaluated here (no ``from __future__ import annotations``): pydantic reads them.
"""

import datetime
from collections.abc import Iterator
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field

from engine.storage import DRIVERS
from extauthz.blocks import Block, Complaint, Duration, NonEmpty, PositiveDuration, fault, unknown

LATER_DRIVERS = ("blob", "sqlite3", "postgres", "mysql", "overlay", "hub")


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


class GitSsh(Block):
    """Who reads a repository over ssh."""

    user: NonEmpty = "git"
    private_key_file: str = ""
    password: str = Field(default="", repr=False)
    known_hosts_file: str = ""


class GitHttps(Block):
    """Who reads a repository over HTTPS."""

    username: str = ""
    password: str = Field(default="", repr=False)


class GitStorage(StorageBlock):
    """Policies in a branch of a git repository."""

    protocol: Literal["file", "http", "https", "ssh"]
    url: NonEmpty
    branch: NonEmpty = "master"
    sub_dir: str = ""
    checkout_dir: str = ""
    update_poll_interval: Duration = datetime.timedelta()
    operation_timeout: PositiveDuration = datetime.timedelta(seconds=60)
    ssh: GitSsh | None = None
    https: GitHttps | None = None

    @property
    def follows(self) -> bool:
        """Unless it is never looked at again."""
        return bool(self.update_poll_interval)

    def _complaints(self) -> Iterator[Complaint]:
        if self.protocol == "ssh" and (self.ssh is None or not self.ssh.private_key_file):
            yield ("protocol",), "the protocol `ssh` needs a key in `ssh.privateKeyFile`"


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
    git: GitStorage | None = None
    blob: Any = None
    sqlite3: Any = None
    postgres: Any = None
    mysql: Any = None
    overlay: Any = None
    hub: Any = None

    def _complaints(self) -> Iterator[Complaint]:
        if getattr(self, self.driver) is None:
            yield ("driver",), f"the driver `{self.driver}` needs a block `{self.driver}` beside it"

    @property
    def chosen(self) -> StorageBlock:
        """The block of the driver in use."""
        block: StorageBlock = getattr(self, self.driver)
        return block
