"""Policies in an SQLite database, in memory or in a file.

The tables are made and brought up to date by us, as Cerbos does it, with Cerbos's mark of having done so
(``schema_migrations``), so that either of us opens a file of the other.
"""

from __future__ import annotations

import contextlib
import hashlib
import importlib.resources
import re
import sqlite3
import threading
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import parse_qsl, quote, urlencode

from sqlalchemy import Connection, Engine, create_engine, event, func, text
from sqlalchemy.dialects.sqlite import insert
from sqlalchemy.pool import NullPool, StaticPool

from engine.storage import StoreError
from engine.storage.sql.settings import POLL_INTERVAL, Retries, check_known
from engine.storage.sql.store import DatabaseStore
from engine.storage.sql.tables import TABLES

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from sqlalchemy import ColumnElement, Table
    from sqlalchemy.sql.dml import Insert

BUSY_TIMEOUT: Final = 5.0
"""Seconds that a writer waits for another one."""

SQLITE_PARAMETERS: Final = frozenset(("mode", "cache", "psow", "nolock", "immutable", "vfs"))
"""What SQLite itself knows in a file's URI (https://www.sqlite.org/uri.html)."""

IGNORED_PARAMETERS: Final = frozenset(
    ("_fk", "_foreign_keys", "_time_format", "_txlock", "_time_integer_format")
)
"""Of the drivers for Go. Foreign keys are always enforced here, and writers always lock at once."""

_PRAGMA: Final = re.compile(r"(?P<name>\w+)(?:\((?P<called>[\w\-'\" ]*)\)|=(?P<set>[\w\-'\" ]*))?")
MIGRATION: Final = 1
"""The version of the tables that we know, in ``schema_migrations``."""


@dataclass(frozen=True, slots=True)
class Dsn:
    """A data source name as Go's drivers for SQLite read it: a path or ``file:`` URI, and parameters."""

    path: str
    in_memory: bool
    parameters: Mapping[str, str] = field(default_factory=dict)
    pragmas: tuple[str, ...] = ()
    busy_timeout: float = BUSY_TIMEOUT

    @classmethod
    def parse(cls, text: str) -> Dsn:
        """Read a data source name.

        Raises:
            StoreError: it has a parameter that nobody knows.

        """
        path, _, query = text.removeprefix("file:").partition("?")
        path = path.removeprefix("//") if text.startswith("file://") else path
        given, pragmas, busy = {}, [], BUSY_TIMEOUT
        for name, value in parse_qsl(query, keep_blank_values=True):
            if name == "_pragma":
                pragmas.append(_pragma(value))
            elif name in {"_busy_timeout", "_timeout"}:
                busy = _milliseconds(name, value)
            elif name in SQLITE_PARAMETERS:
                given[name] = value
            elif name not in IGNORED_PARAMETERS:
                raise StoreError(f"unknown parameter `{name}` in the `dsn` of the sqlite3 driver")
        in_memory = path in {"", ":memory:"} or given.get("mode") == "memory"
        return cls(path or ":memory:", in_memory, given, tuple(pragmas), busy)

    @property
    def uri(self) -> str:
        """The URI that SQLite opens."""
        query = urlencode(self.parameters)
        return f"file:{quote(self.path, safe='/:')}{f'?{query}' if query else ''}"


def _pragma(text: str) -> str:
    found = _PRAGMA.fullmatch(text)
    if found is None:
        raise StoreError(f"`{text}` is no pragma, in the `dsn` of the sqlite3 driver")
    value = found["called"] if found["called"] is not None else found["set"]
    return f"PRAGMA {found['name']}" + ("" if value is None else f" = {value}")


def _milliseconds(name: str, value: str) -> float:
    if not value.isdecimal():
        raise StoreError(f"`{name}` is a number of milliseconds, in the `dsn` of the sqlite3 driver")
    return int(value) / 1000


class SqliteStore(DatabaseStore):
    """A store that is an SQLite database."""

    driver = "sqlite3"

    def __init__(self, dsn: Dsn, *, poll_interval: float = POLL_INTERVAL) -> None:
        super().__init__(f"sqlite3 `{dsn.path}`", poll_interval=poll_interval, retries=Retries(attempts=1))
        self._dsn = dsn
        # What is in memory lives in one connection, which one thread uses at a time.
        self._alone = threading.Lock() if dsn.in_memory else contextlib.nullcontext()
        self._engine = create_engine(
            "sqlite://",
            creator=self._connect,
            poolclass=StaticPool if dsn.in_memory else NullPool,
            hide_parameters=True,
        )
        event.listen(self._engine, "begin", _begin)

    @classmethod
    def from_settings(cls, settings: Mapping[str, Any]) -> SqliteStore:
        """Make a store from the ``storage.sqlite3`` block: Cerbos's ``dsn``, our ``updatePollInterval``.

        Raises:
            StoreError: a setting is missing, unknown or does not fit.

        """
        check_known("the sqlite3 driver", settings, ("dsn", "updatePollInterval"))
        if not settings.get("dsn"):
            raise StoreError("the sqlite3 driver needs a `dsn`")
        interval = settings.get("updatePollInterval")
        return cls(Dsn.parse(settings["dsn"]), poll_interval=POLL_INTERVAL if interval is None else interval)

    @property
    def engine(self) -> Engine:
        """The engine of SQLAlchemy."""
        return self._engine

    def _connect(self) -> sqlite3.Connection:
        connection = sqlite3.connect(
            self._dsn.uri,
            uri=True,
            timeout=self._dsn.busy_timeout,
            isolation_level=None,  # transactions begin where we say so
            check_same_thread=False,  # one at a time uses it
        )
        try:
            for pragma in (*self._dsn.pragmas, "PRAGMA foreign_keys = ON"):
                connection.execute(pragma)
            connection.create_function("sha256", 1, _sha256, deterministic=True)
        except BaseException:
            connection.close()
            raise
        return connection

    def prepare(self) -> None:
        """Make the tables, or bring those of an older Cerbos up to date.

        Raises:
            StoreError: another program is not done with them, or they are of a later version.

        """
        with self.reading() as connection:
            if _is_up_to_date(connection):
                return  # may well be a file that is only to be read
        with self.writing() as connection:
            version = _version(connection)
            if version > MIGRATION:
                raise StoreError(
                    f"{self.where} was written by a later version (its tables are of version {version})"
                )
            if _lacks_scope(connection):
                _run(connection, "sqlite3_scope.sql")
            _run(connection, "sqlite3.sql")

    @contextlib.contextmanager
    def reading(self) -> Iterator[Connection]:
        """Open a transaction that sees one state: SQLite's readers do."""
        with self._alone, self._engine.connect() as connection, connection.begin():
            yield connection

    @contextlib.contextmanager
    def writing(self) -> Iterator[Connection]:
        """Open a transaction that is the only one that writes."""
        with self._alone, self._engine.connect() as opened:
            connection = opened.execution_options(immediate=True)
            with connection.begin():
                yield connection

    def digest(self, column: ColumnElement[Any]) -> ColumnElement[Any]:
        """Return SHA-256 of a column, by a function of ours."""
        return func.sha256(column)

    def disconnect(self) -> None:
        """Close the connection; whoever uses it just now ends first."""
        with self._alone:
            super().disconnect()

    def upsert(self, table: Table, rows: Sequence[Mapping[str, Any]]) -> Insert:
        """Return the statement that inserts rows, or replaces them."""
        statement = insert(table).values(list(rows))
        kept = {name: statement.excluded[name] for name in rows[0] if name != "id"}
        return statement.on_conflict_do_update(index_elements=["id"], set_=kept)


def _begin(connection: Connection) -> None:
    immediate = connection.get_execution_options().get("immediate")
    connection.exec_driver_sql("BEGIN IMMEDIATE" if immediate else "BEGIN")


def _sha256(value: bytes | str | None) -> bytes | None:
    if value is None:
        return None
    return hashlib.sha256(value.encode() if isinstance(value, str) else value).digest()


def _columns(connection: Connection, table: str) -> set[str]:
    return {row.name for row in connection.execute(text(f"SELECT name FROM pragma_table_info('{table}')"))}  # noqa: S608 - a name of ours


def _lacks_scope(connection: Connection) -> bool:
    """Tell whether the tables are those of a Cerbos before 0.13."""
    columns = _columns(connection, "policy")
    return bool(columns) and "scope" not in columns


def _version(connection: Connection) -> int:
    if not _columns(connection, "schema_migrations"):
        return 0
    row = connection.execute(text("SELECT version, dirty FROM schema_migrations")).first()
    if row is not None and row.dirty:
        raise StoreError(
            "a migration of the tables has been broken off by another program: it has to be mended"
        )
    return 0 if row is None else int(row.version)


def _is_up_to_date(connection: Connection) -> bool:
    there = all(_columns(connection, table.name) >= set(table.columns.keys()) for table in TABLES)
    return there and _version(connection) == MIGRATION


def _run(connection: Connection, file: str) -> None:
    """Run statements of ours in the transaction (``executescript`` would commit)."""
    script = importlib.resources.files("engine.storage.sql.ddl").joinpath(file).read_text()
    statement = ""
    for line in script.splitlines(keepends=True):
        statement += line
        if sqlite3.complete_statement(statement):
            connection.exec_driver_sql(statement)
            statement = ""
