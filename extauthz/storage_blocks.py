"""The ``storage`` block of the configuration: one block for each driver, with Cerbos's keys.

A driver's block checks what a person wrote; the driver itself gets plain values
(:meth:`StorageBlock.options`) and knows nothing of the file.

Annotations are evaluated here (no ``from __future__ import annotations``): pydantic reads them.
"""

import datetime
from collections.abc import Iterator, Mapping
from typing import Annotated, Any, Literal

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

LATER_DRIVERS = ("hub",)


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


def _known_driver(value: object) -> object:
    if value in LATER_DRIVERS:
        raise fault("there is no Cerbos Hub here: the driver `bundle` follows signed bundles of policies")
    if isinstance(value, str) and value not in DRIVERS:
        raise fault(unknown("storage driver", value, list(DRIVERS)))
    return value


def _overlaid_driver(value: object) -> object:
    if value == "overlay":
        raise fault("an overlay lies over other drivers, not over itself")
    return _known_driver(value)


class OverlayStorage(StorageBlock):
    """One driver, and another one while the first cannot be read."""

    base_driver: Annotated[str, BeforeValidator(_overlaid_driver)]
    fallback_driver: Annotated[str, BeforeValidator(_overlaid_driver)]
    fallback_error_threshold: Annotated[int, Field(ge=1)] = 5
    fallback_error_window: PositiveDuration = datetime.timedelta(minutes=5)
    base_retry_interval: PositiveDuration = datetime.timedelta(seconds=60)

    def _complaints(self) -> Iterator[Complaint]:
        if self.base_driver == self.fallback_driver:
            yield ("fallbackDriver",), "`baseDriver` and `fallbackDriver` are the same"


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
    password: str = Field(default="", repr=False)
    bearer_token: str = Field(default="", repr=False)
    ca_cert: str = ""

    def _complaints(self) -> Iterator[Complaint]:
        if self.bearer_token and (self.username or self.password):
            yield ("bearerToken",), "give a `bearerToken`, or `username` and `password`, not both"


class OciAccess(Block):
    """How a registry is reached."""

    username: str = ""
    password: str = Field(default="", repr=False)
    ca_cert: str = ""


class BundleStorage(StorageBlock):
    """Policies in a signed bundle."""

    url: Annotated[NonEmpty, Field(repr=False)]
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


class ConnectionPool(Block):
    """Which connections to a database are kept; 0 is no limit."""

    max_life_time: Duration = datetime.timedelta()
    max_idle_time: Duration = datetime.timedelta()
    max_open: Annotated[int, Field(ge=0)] = 0
    max_idle: Annotated[int, Field(ge=0)] = 2


class ConnectionRetries(Block):
    """How a database is waited for at the start."""

    max_attempts: Annotated[int, Field(ge=0)] = 3
    initial_interval: PositiveDuration = datetime.timedelta(milliseconds=500)
    max_interval: PositiveDuration = datetime.timedelta(seconds=60)

    def _complaints(self) -> Iterator[Complaint]:
        if self.max_interval < self.initial_interval:
            yield ("maxInterval",), "`maxInterval` is not below `initialInterval`"


class SqliteStorage(StorageBlock):
    """Policies in an SQLite database."""

    dsn: Annotated[NonEmpty, Field(repr=False)]
    update_poll_interval: Duration = datetime.timedelta(seconds=10)


class ServerStorage(StorageBlock):
    """Policies in a database server."""

    conn_pool: ConnectionPool = ConnectionPool()
    conn_retry: ConnectionRetries = ConnectionRetries()
    skip_schema_check: bool = False
    update_poll_interval: Duration = datetime.timedelta(seconds=10)
    query_timeout: Duration = datetime.timedelta(seconds=30)


class PostgresStorage(ServerStorage):
    """Policies in PostgreSQL."""

    url: Annotated[NonEmpty, Field(repr=False)]


class MysqlTls(Block):
    """The certificates of a connection; without `caCert` the system's authorities count."""

    cert: str = ""
    key: str = ""
    ca_cert: str = ""

    def _complaints(self) -> Iterator[Complaint]:
        if bool(self.cert) != bool(self.key):
            yield (), "`cert` and `key` go together"


class MysqlStorage(ServerStorage):
    """Policies in MySQL or MariaDB."""

    dsn: Annotated[NonEmpty, Field(repr=False)]
    tls: Mapping[str, MysqlTls] = Field(default_factory=dict)
    server_pub_key: Mapping[str, NonEmpty] = Field(default_factory=dict)


class Storage(Block):
    """Where policies come from."""

    driver: Annotated[str, BeforeValidator(_known_driver)]
    disk: DiskStorage = DiskStorage()
    git: GitStorage | None = None
    blob: BlobStorage | None = None
    sqlite3: SqliteStorage | None = None
    postgres: PostgresStorage | None = None
    mysql: MysqlStorage | None = None
    overlay: OverlayStorage | None = None
    hub: Any = None
    bundle: BundleStorage | None = None

    def _complaints(self) -> Iterator[Complaint]:
        needed = [self.driver]
        if self.driver == "overlay" and self.overlay is not None:
            needed += [self.overlay.base_driver, self.overlay.fallback_driver]
        for driver in needed:
            if getattr(self, driver) is None:
                yield ("driver",), f"the driver `{driver}` needs a block `{driver}` beside it"

    @property
    def chosen(self) -> StorageBlock:
        """The block of the driver in use."""
        block: StorageBlock = getattr(self, self.driver)
        return block

    def options(self) -> dict[str, object]:
        """Return the settings of the driver in use, as the driver takes them."""
        if self.driver != "overlay" or self.overlay is None:
            return self.chosen.options()
        drivers = {self.overlay.base_driver, self.overlay.fallback_driver}
        beneath: dict[str, StorageBlock] = {driver: getattr(self, driver) for driver in drivers}
        return self.overlay.options() | {
            "drivers": {driver: block.options() for driver, block in beneath.items()},
            "followed": [driver for driver, block in beneath.items() if block.follows],
        }
