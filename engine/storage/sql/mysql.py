"""Policies in MySQL or MariaDB, in the tables that Cerbos has there.

The tables must be there (``ddl/mysql.sql``). Changes are looked for at an interval: the server cannot tell.
"""

from __future__ import annotations

import contextlib
import ssl
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NoReturn

import pymysql
from sqlalchemy import func
from sqlalchemy.dialects.mysql import insert

from engine.storage import StoreError
from engine.storage.sql.mysql_dsn import Dsn
from engine.storage.sql.server import ServerStore
from engine.storage.sql.settings import SERVER_SETTINGS, Server, check_known

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from sqlalchemy import ColumnElement, Connection, Table
    from sqlalchemy.sql.dml import Insert

CONNECT_TIMEOUT: Final = 10.0

SESSION: Final = "SET time_zone = '+00:00', sql_mode = CONCAT(@@sql_mode, ',STRICT_ALL_TABLES')"
"""Timestamps are compared, and what does not fit must be refused: some servers would cut it off."""


@dataclass(frozen=True, slots=True)
class Tls:
    """How the connection is secured; without *context* if the server can, by whatever certificate."""

    context: ssl.SSLContext | None = None
    off: bool = False

    @classmethod
    def named(cls, name: str, blocks: Mapping[str, Any]) -> Tls:
        """Return what the parameter ``tls`` of a DSN means; *blocks* are those of the configuration.

        Raises:
            StoreError: there is no such block, or its files cannot be used.

        """
        match name.lower():
            case "" | "preferred":
                return cls()
            case "false" | "0":
                return cls(off=True)
            case "true" | "1":
                return cls(ssl.create_default_context())
            case "skip-verify":
                return cls(_unverified())
        if name not in blocks:
            raise StoreError(
                f"the `dsn` of the mysql driver names `tls={name}`, and there is no `tls.{name}`"
            )
        return cls(_context(name, blocks[name]))


def _unverified() -> ssl.SSLContext:
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context


def _context(name: str, block: Mapping[str, Any]) -> ssl.SSLContext:
    check_known(f"`tls.{name}` of the mysql driver", block, ("cert", "key", "caCert"))
    cert, key = block.get("cert"), block.get("key")
    if bool(cert) != bool(key):
        raise StoreError(f"`tls.{name}` of the mysql driver: `cert` and `key` go together")
    try:
        context = ssl.create_default_context(cafile=block.get("caCert") or None)
        if cert:
            context.load_cert_chain(cert, key)
    except (OSError, ssl.SSLError) as error:
        raise StoreError(f"`tls.{name}` of the mysql driver: {error}") from None
    return context


def _public_key(name: str, files: Mapping[str, str]) -> bytes | None:
    if not name:
        return None
    if name not in files:
        raise StoreError(
            f"the `dsn` of the mysql driver names the `serverPubKey` `{name}`, and there is none"
        )
    try:
        return Path(files[name]).read_bytes()
    except OSError as error:
        raise StoreError(f"`serverPubKey.{name}` of the mysql driver: {error}") from None


class _NoClearPassword:
    """Stands for a way to log in that would send the password as it is."""

    def __init__(self, _connection: Any) -> None:
        pass

    def authenticate(self, _packet: Any) -> NoReturn:
        """Refuse.

        Raises:
            pymysql.OperationalError: always.

        """
        raise pymysql.OperationalError(
            2059,
            "the server wants the password in clear text: that needs `allowCleartextPasswords=true` and TLS",
        )


class MysqlStore(ServerStore):
    """A store that is a database of MySQL or MariaDB."""

    driver = "mysql"
    dialect = "mysql+pymysql"

    def __init__(
        self,
        dsn: Dsn,
        server: Server | None = None,
        *,
        tls: Tls | None = None,
        public_key: bytes | None = None,
    ) -> None:
        """*public_key* of the server (PEM) encrypts the password where TLS does not."""
        server = Server() if server is None else server
        self._arguments = _arguments(dsn, Tls() if tls is None else tls, public_key, server.query_timeout)
        super().__init__(f"mysql `{dsn.where}/{dsn.database}`", server)

    @classmethod
    def from_settings(cls, settings: Mapping[str, Any]) -> MysqlStore:
        """Make a store from the ``storage.mysql`` block; Cerbos's keys and ours.

        Raises:
            StoreError: a setting is missing, unknown or does not fit.

        """
        check_known("the mysql driver", settings, ("dsn", "tls", "serverPubKey", *SERVER_SETTINGS))
        if not settings.get("dsn"):
            raise StoreError("the mysql driver needs a `dsn`")
        dsn = Dsn.parse(settings["dsn"])
        return cls(
            dsn,
            Server.from_settings(settings),
            tls=Tls.named(dsn.tls, settings.get("tls") or {}),
            public_key=_public_key(dsn.server_public_key, settings.get("serverPubKey") or {}),
        )

    def connect(self) -> pymysql.Connection[Any]:
        """Make a connection."""
        return pymysql.connect(**self._arguments)

    @contextlib.contextmanager
    def reading(self) -> Iterator[Connection]:
        """Open a transaction on one snapshot: InnoDB's is that of the first query."""
        with self._engine.connect() as opened:
            connection = opened.execution_options(isolation_level="REPEATABLE READ")
            with connection.begin():
                yield connection

    def digest(self, column: ColumnElement[Any]) -> ColumnElement[Any]:
        """Return SHA-256 of a column, in hexadecimal digits."""
        return func.sha2(column, 256)

    def upsert(self, table: Table, rows: Sequence[Mapping[str, Any]]) -> Insert:
        """Return the statement that inserts rows, or replaces them."""
        statement = insert(table).values(list(rows))
        kept = {name: statement.inserted[name] for name in rows[0] if name != "id"}
        return statement.on_duplicate_key_update(kept)


def _arguments(dsn: Dsn, tls: Tls, public_key: bytes | None, query_timeout: float) -> dict[str, Any]:
    """Return what the driver connects with."""
    if dsn.clear_passwords and tls.context is None:
        raise StoreError("`allowCleartextPasswords` in the `dsn` of the mysql driver needs TLS (`tls=true`)")
    refused = {} if dsn.clear_passwords else {"mysql_clear_password": _NoClearPassword}
    return {
        **({"unix_socket": dsn.socket} if dsn.socket else {"host": dsn.host, "port": dsn.port}),
        "user": dsn.user,
        "password": dsn.password.encode(),
        "database": dsn.database,
        "charset": dsn.charset,
        "collation": dsn.collation or None,
        "connect_timeout": dsn.timeout or CONNECT_TIMEOUT,
        "read_timeout": dsn.read_timeout or query_timeout or None,
        "write_timeout": dsn.write_timeout or query_timeout or None,
        "ssl": tls.context,
        "ssl_disabled": tls.off,
        "server_public_key": public_key,
        "auth_plugin_map": refused,
        "init_command": SESSION,
        "local_infile": False,
        # Rows that an update finds count, whether they change or not: as everywhere else.
        "client_flag": pymysql.constants.CLIENT.FOUND_ROWS,
    }
