"""The ``storage`` block of the configuration: one block for each driver, with Cerbos's keys.

A driver's block checks what a person wrote; the driver itself gets plain values
(:meth:`StorageBlock.options`) and knows nothing of the file.

Annotations are evaluated here (no ``from __future__ import annotations``): pydantic reads them.
"""

import datetime
from collections.abc import Iterator, Mapping
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field

from engine.storage import DRIVERS
from extauthz.blocks import Block, Complaint, Duration, NonEmpty, PositiveDuration, fault, unknown

LATER_DRIVERS = ("blob", "overlay", "hub")


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
    sqlite3: SqliteStorage | None = None
    postgres: PostgresStorage | None = None
    mysql: MysqlStorage | None = None
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
