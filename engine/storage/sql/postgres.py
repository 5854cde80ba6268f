"""Policies in PostgreSQL, in the tables that Cerbos has there.

The tables must be there (``ddl/postgres.sql``). Each change that this service makes is told to the others
(``NOTIFY``); ``ddl/postgres_notify.sql`` has triggers that tell of all changes. Whoever does not hear of a
change finds it at the next look.
"""

from __future__ import annotations

import contextlib
import logging
import os
import re
import socket
import threading
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import parse_qsl, unquote, urlsplit

import psycopg
from psycopg import pq
from sqlalchemy import func, select
from sqlalchemy.dialects.postgresql import insert

from engine.storage import StoreError
from engine.storage.sql.server import ServerStore
from engine.storage.sql.settings import SERVER_SETTINGS, Server, check_known

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from psycopg.abc import PQGen
    from sqlalchemy import ColumnElement, Connection, Table
    from sqlalchemy.sql.dml import Insert

logger = logging.getLogger(__name__)

CHANNEL: Final = "extauthz_policies"
CONNECT_TIMEOUT: Final = 10
GRACE: Final = 2.0
"""Seconds beyond its own limit that the server is given to say that a query took too long."""

LISTEN_AGAIN: Final = 2.0
"""Seconds after which it is tried again to listen for changes."""

DEFAULTS: Final[Mapping[str, str]] = {
    "connect_timeout": str(CONNECT_TIMEOUT),
    "application_name": "extauthz",
    "keepalives_idle": "30",
    "keepalives_interval": "10",
    "keepalives_count": "3",
    "tcp_user_timeout": "30000",
}
"""What a connection is made with where the URL does not say otherwise: no peer that is gone is waited for."""

PGX_ONLY: Final = frozenset(
    (
        "default_query_exec_mode",
        "statement_cache_capacity",
        "statement_cache_mode",
        "description_cache_capacity",
        "min_read_buffer_size",
        "prefer_simple_protocol",
    )
)
"""Parameters of Cerbos's driver that have no meaning here."""

_PAIR: Final = re.compile(r"\s*(\w+)\s*=\s*('(?:[^'\\]|\\.)*'|(?:[^\s\\']|\\.)*)\s*")


def connection_parameters(url: str) -> dict[str, str]:
    """Read a connection URL (or ``key=value`` pairs) as Cerbos's driver does, for libpq.

    What libpq does not know is a setting of the session, such as ``search_path``.

    Raises:
        StoreError: it is neither; the message never repeats it, for it holds a password.

    """
    given = _from_url(url) if url.startswith(("postgres://", "postgresql://")) else _from_pairs(url)
    known = {option.keyword.decode() for option in pq.Conninfo.get_defaults()}
    if "database" in given:
        given["dbname"] = given.pop("database")
    parameters = {name: value for name, value in given.items() if name in known}
    session = {name: value for name, value in given.items() if name not in known | PGX_ONLY}
    options = [parameters.pop("options", ""), *(_option(*each) for each in session.items())]
    return {**DEFAULTS, **parameters, "options": " ".join(filter(None, options))}


def _from_url(url: str) -> dict[str, str]:
    try:
        parts = urlsplit(url)
        hosts = parts.netloc.rpartition("@")[2]
        names, ports = zip(*(_host_and_port(each) for each in hosts.split(",")), strict=True)
    except ValueError:
        raise StoreError("the `url` of the postgres driver is no URL") from None
    found = {
        "user": unquote(parts.username or ""),
        "password": unquote(parts.password or ""),
        "host": ",".join(names),
        "port": ",".join(ports) if any(ports) else "",
        "dbname": unquote(parts.path.removeprefix("/")),
    }
    return {name: value for name, value in found.items() if value} | dict(parse_qsl(parts.query))


def _host_and_port(text: str) -> tuple[str, str]:
    """Split ``host:5432`` and ``[::1]:5432``."""
    found = re.fullmatch(r"(\[[^\]]*\]|[^:\[\]]*)(?::(\d*))?", text)
    if found is None:
        raise ValueError
    return unquote(found[1].strip("[]")), found[2] or ""


def _from_pairs(text: str) -> dict[str, str]:
    found, end = {}, 0
    while end < len(text):
        pair = _PAIR.match(text, end)
        if pair is None or pair.end() == end:
            raise StoreError("the `url` of the postgres driver is neither a URL nor `key=value` pairs")
        value = pair[2][1:-1] if pair[2].startswith("'") else pair[2]
        found[pair[1]] = re.sub(r"\\(.)", r"\1", value)
        end = pair.end()
    if not found:
        raise StoreError("the `url` of the postgres driver is empty")
    return found


def _option(name: str, value: str) -> str:
    """Write a setting of the session for libpq's ``options``, where a backslash makes a space literal."""
    if not re.fullmatch(r"[A-Za-z_][\w.]*", name):
        raise StoreError("a parameter in the `url` of the postgres driver has no proper name")
    escaped = re.sub(r"([\\\s])", r"\\\1", value)
    return f"-c {name}={escaped}"


def _named(parameters: Mapping[str, str]) -> str:
    """Name the database for messages, without credentials."""
    host = parameters.get("host", "localhost")
    port = f":{parameters['port']}" if "port" in parameters else ""
    return f"postgres `{host}{port}/{parameters.get('dbname', '')}`"


class BoundedConnection(psycopg.Connection[Any]):
    """A connection that waits for no answer longer than it is told, and is closed when it has to."""

    longest_wait: float | None = None

    def wait(self, gen: PQGen[Any], interval: float = 0.1, timeout: float | None = None) -> Any:
        """Wait for an answer.

        Raises:
            psycopg.OperationalError: there was none in time.

        """
        try:
            return super().wait(gen, interval, self.longest_wait if timeout is None else timeout)
        except psycopg.errors._WaitTimeout:  # noqa: SLF001 - the driver has no public name for it
            self.pgconn.finish()  # an answer that comes later must not be taken for that to another query
            raise psycopg.OperationalError(f"no answer within {self.longest_wait:g} s") from None


class PostgresStore(ServerStore):
    """A store that is a PostgreSQL database."""

    driver = "postgres"
    dialect = "postgresql+psycopg"

    def __init__(self, parameters: Mapping[str, str], server: Server | None = None) -> None:
        """*parameters* are libpq's (:func:`connection_parameters`)."""
        server = Server() if server is None else server
        self._parameters = dict(parameters)
        self._query_timeout = server.query_timeout
        self._listener: _Listener | None = None
        super().__init__(_named(parameters), server)

    @classmethod
    def from_settings(cls, settings: Mapping[str, Any]) -> PostgresStore:
        """Make a store from the ``storage.postgres`` block; Cerbos's keys and ours.

        Raises:
            StoreError: a setting is missing, unknown or does not fit.

        """
        check_known("the postgres driver", settings, ("url", *SERVER_SETTINGS))
        if not settings.get("url"):
            raise StoreError("the postgres driver needs a `url`")
        return cls(connection_parameters(settings["url"]), Server.from_settings(settings))

    def connect(self) -> BoundedConnection:
        """Make a connection."""
        connection = BoundedConnection.connect(
            **self._parameters,  # type: ignore[arg-type]  # all are libpq's parameters, which are text
            prepare_threshold=None,  # poolers such as PgBouncer cannot keep prepared statements
        )
        try:
            connection.longest_wait = self._query_timeout + GRACE if self._query_timeout else None
            milliseconds = round(self._query_timeout * 1000)
            connection.execute("SELECT set_config('statement_timeout', %s, false)", (str(milliseconds),))
            connection.commit()
        except BaseException:
            connection.close()
            raise
        return connection

    @contextlib.contextmanager
    def reading(self) -> Iterator[Connection]:
        """Open a transaction on one snapshot."""
        with self._engine.connect() as opened:
            connection = opened.execution_options(isolation_level="REPEATABLE READ", postgresql_readonly=True)
            with connection.begin():
                yield connection

    @contextlib.contextmanager
    def writing(self) -> Iterator[Connection]:
        """Open a transaction, and tell of it when it is committed."""
        with super().writing() as connection:
            yield connection
            connection.execute(select(func.pg_notify(CHANNEL, "")))

    def digest(self, column: ColumnElement[Any]) -> ColumnElement[Any]:
        """Return SHA-256 of a column of bytes, or of text in UTF-8."""
        return func.sha256(column if _holds_bytes(column) else func.convert_to(column, "UTF8"))

    def upsert(self, table: Table, rows: Sequence[Mapping[str, Any]]) -> Insert:
        """Return the statement that inserts rows, or replaces them."""
        statement = insert(table).values(list(rows))
        kept = {name: statement.excluded[name] for name in rows[0] if name != "id"}
        return statement.on_conflict_do_update(index_elements=["id"], set_=kept)

    # -- hearing of changes --------------------------------------------------------------------------------

    def listen(self) -> None:
        """Listen on a connection of its own, from a thread of its own."""
        self._listener = _Listener(self._parameters, self.wake, self.where)
        self._listener.start()

    def close(self) -> None:
        """Stop watching and listening, and close all connections."""
        if self._listener is not None:
            self._listener.stop()
        super().close()


def _holds_bytes(column: ColumnElement[Any]) -> bool:
    return column.type.python_type is bytes


class _Listener:
    """Hears ``NOTIFY`` on a connection that is made again whenever it breaks."""

    def __init__(self, parameters: Mapping[str, str], heard: Callable[[], object], where: str) -> None:
        self._parameters = parameters
        self._heard = heard
        self._where = where
        self._stop = threading.Event()
        self._connection: psycopg.Connection[Any] | None = None
        self._thread = threading.Thread(target=self._run, name="postgres-listener", daemon=True)

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def stop(self, timeout: float = 5.0) -> None:
        """End; *timeout* in seconds."""
        self._stop.set()
        connection = self._connection
        if connection is not None:
            _cut(connection)
        if self._thread is not threading.current_thread():
            self._thread.join(timeout)

    def _run(self) -> None:
        told = False
        while not self._stop.is_set():
            try:
                self._listen()
            except psycopg.Error as error:
                if not told and not self._stop.is_set():
                    logger.warning(
                        "%s: cannot listen for changes, they are looked for: %s",
                        self._where,
                        _first_line(error),
                    )
                told = True
            else:
                told = False
            self._stop.wait(LISTEN_AGAIN)

    def _listen(self) -> None:
        with psycopg.connect(**self._parameters, autocommit=True) as connection:  # type: ignore[arg-type]  # see above
            self._connection = connection
            connection.execute(f"LISTEN {CHANNEL}")
            self._heard()  # what happened while nobody listened
            while not self._stop.is_set():
                for _ in connection.notifies(timeout=60.0):
                    self._heard()


def _cut(connection: psycopg.Connection[Any]) -> None:
    """End the connection under a thread that waits on it."""
    with (
        contextlib.suppress(OSError, psycopg.Error),
        socket.socket(fileno=os.dup(connection.fileno())) as end,
    ):
        end.shutdown(socket.SHUT_RDWR)


def _first_line(error: BaseException) -> str:
    return str(error).strip().partition("\n")[0]
