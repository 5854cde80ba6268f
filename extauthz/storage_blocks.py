"""The ``storage`` block of the configuration: one block for each driver, with Cerbos's keys.

A driver's block checks what a person wrote; the driver itself gets plain values
(:meth:`StorageBlock.options`) and knows nothing of the file.

Annotations are evaluated here (no ``from __future__ import annotations``): pydantic reads them.
"""

import datetime
from collections.abc import Iterator
from typing import Annotated, Any

from pydantic import AfterValidator, BeforeValidator, Field

from engine.storage import DRIVERS
from extauthz.blocks import (
    Block,
    Complaint,
    Duration,
    NonEmpty,
    PositiveDuration,
    fault,
    not_empty,
    unknown,
)

LATER_DRIVERS = ("git", "sqlite3", "postgres", "mysql", "overlay", "hub")


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


class BlobStorage(StorageBlock):
    """Policies as objects in a bucket."""

    bucket: NonEmpty
    prefix: str = ""
    work_dir: str = ""
    update_poll_interval: Duration = datetime.timedelta()
    request_timeout: PositiveDuration = datetime.timedelta(seconds=5)
    download_timeout: PositiveDuration = datetime.timedelta(seconds=60)
    start_from_work_dir: bool = True
    ca_cert: str = ""

    @property
    def follows(self) -> bool:
        """Unless it is never looked at again."""
        return bool(self.update_poll_interval)


class PublicKey(Block):
    """A key whose signature on a bundle counts."""

    file: NonEmpty | None = None
    data: NonEmpty | None = None

    def _complaints(self) -> Iterator[Complaint]:
        if (self.file is None) == (self.data is None):
            yield (), "a public key has either `file` or `data`"


class HttpsAccess(Block):
    """How a web server is reached."""

    username: str = ""
    password: str = ""
    bearer_token: str = ""
    ca_cert: str = ""

    def _complaints(self) -> Iterator[Complaint]:
        if self.bearer_token and (self.username or self.password):
            yield ("bearerToken",), "give a `bearerToken`, or `username` and `password`, not both"


class OciAccess(Block):
    """How a registry is reached."""

    username: str = ""
    password: str = ""
    ca_cert: str = ""


class BundleStorage(StorageBlock):
    """Policies in a signed bundle."""

    url: NonEmpty
    name: NonEmpty
    public_keys: Annotated[tuple[PublicKey, ...], AfterValidator(not_empty)]
    update_poll_interval: Duration = datetime.timedelta(minutes=1)
    request_timeout: PositiveDuration = datetime.timedelta(seconds=5)
    download_timeout: PositiveDuration = datetime.timedelta(seconds=60)
    cache_dir: str = ""
    allow_rollback: bool = False
    max_age: Duration = datetime.timedelta()
    max_bytes: Annotated[int, Field(ge=1024, le=2**30)] = 64 * 2**20
    https: HttpsAccess | None = None
    oci: OciAccess | None = None

    @property
    def follows(self) -> bool:
        """Unless it is never looked at again."""
        return bool(self.update_poll_interval)


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
    blob: BlobStorage | None = None
    sqlite3: Any = None
    postgres: Any = None
    mysql: Any = None
    overlay: Any = None
    hub: Any = None
    bundle: BundleStorage | None = None

    def _complaints(self) -> Iterator[Complaint]:
        if getattr(self, self.driver) is None:
            yield ("driver",), f"the driver `{self.driver}` needs a block `{self.driver}` beside it"

    @property
    def chosen(self) -> StorageBlock:
        """The block of the driver in use."""
        block: StorageBlock = getattr(self, self.driver)
        return block
