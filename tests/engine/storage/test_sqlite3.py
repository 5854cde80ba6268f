"""Policies in SQLite."""

from __future__ import annotations

import contextlib
import sqlite3
from typing import TYPE_CHECKING, Any

import pytest

from engine.storage import Listing, Revisioned, StoreError, Watchable, Writable, open_store
from engine.storage.sql.sqlite3 import Dsn
from tests.engine.storage.contract import DisablingContract, LookingContract, StoreContract, WatchedContract
from tests.engine.storage.database_places import Database, DatabaseContract, rule_policy

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

OLD_TABLES = """
CREATE TABLE policy (id UNSIGNED BIG INT NOT NULL PRIMARY KEY, kind VARCHAR(128) NOT NULL,
  name VARCHAR(1024) NOT NULL, version VARCHAR(128) NOT NULL, description TEXT,
  disabled BOOLEAN default false, definition BLOB);
CREATE TABLE policy_revision (revision_id INTEGER PRIMARY KEY AUTOINCREMENT, action VARCHAR(64),
  id UNSIGNED BIG INT, kind VARCHAR(128), name VARCHAR(1024), version VARCHAR(128), description TEXT,
  disabled BOOLEAN, definition BLOB, update_timestamp DATETIME DEFAULT CURRENT_TIMESTAMP);
CREATE TRIGGER policy_on_insert AFTER INSERT ON policy BEGIN
  INSERT INTO policy_revision(action, id) VALUES('INSERT', new.id); END;
"""
"""What a Cerbos before 0.13 made."""


@pytest.fixture
def changer(tmp_path: Path) -> Iterator[Database]:
    file = tmp_path / "place" / "policies.sqlite"
    file.parent.mkdir()
    away = tmp_path / "away"
    place = Database(
        "sqlite3",
        {"dsn": f"file:{file}?mode=rwc&_fk=true"},
        stop=lambda: file.parent.rename(away),
        start=lambda: away.rename(file.parent),
    )
    yield place
    place.close()


@pytest.fixture
def store(changer: Database) -> Iterator[Any]:
    store = changer.open()
    yield store
    store.close()


class TestSqliteStore(StoreContract, WatchedContract, LookingContract, DisablingContract, DatabaseContract):
    """A database in a file keeps the contract of all stores."""

    has_revision = True
    unreachable = r"sqlite3 `.*policies\.sqlite`: unable to open database file"


class TestSqliteStoreInMemory(DatabaseContract):
    """A database in memory does what databases do."""

    @pytest.fixture
    def changer(self) -> Iterator[Database]:
        place = Database("sqlite3", {"dsn": ":memory:?_fk=true"}, stop=lambda: None, start=lambda: None)
        yield place
        place.close()

    @pytest.fixture
    def store(self, changer: Database) -> Any:
        """Return the one that makes the changes: nobody else sees what it has in memory."""
        return changer.writer


def test_it_can_all_that_stores_can(store: Any) -> None:
    """The store meets each of the small interfaces."""
    for ability in (Watchable, Listing, Writable, Revisioned):
        assert isinstance(store, ability)


def test_old_tables_are_brought_up_to_date(tmp_path: Path) -> None:
    """The tables of a Cerbos that knew no scopes get what they lack, and what they hold stays."""
    file = tmp_path / "old.sqlite"
    with contextlib.closing(sqlite3.connect(file)) as old:
        old.executescript(OLD_TABLES)
    store = open_store("sqlite3", {"dsn": f"file:{file}"})
    store.put_policies([rule_policy("doc", "acme")])  # type: ignore[attr-defined]  # see the test above
    assert list(store.read().files) == ["resource.doc.vdefault/acme"]
    store.close()
    with contextlib.closing(sqlite3.connect(file)) as connection:
        assert connection.execute("SELECT scope FROM policy_revision").fetchall() == [("acme",)]
        assert connection.execute("SELECT version, dirty FROM schema_migrations").fetchall() == [(1, 0)]


@pytest.mark.parametrize(
    ("version", "dirty", "said"), [(2, 0, "later version"), (1, 1, "broken off by another program")]
)
def test_tables_that_we_do_not_know_are_left_alone(
    tmp_path: Path, version: int, dirty: int, said: str
) -> None:
    """A later version of the tables, or one in the middle of a migration, is not touched."""
    file = tmp_path / "new.sqlite"
    with contextlib.closing(sqlite3.connect(file)) as new:
        new.executescript("CREATE TABLE schema_migrations (version uint64, dirty bool)")
        new.execute("INSERT INTO schema_migrations VALUES (?, ?)", (version, dirty))
        new.commit()
    store = open_store("sqlite3", {"dsn": f"file:{file}"})
    with pytest.raises(StoreError, match=said):
        store.read()
    store.close()
    with contextlib.closing(sqlite3.connect(file)) as untouched:
        assert [name for (name,) in untouched.execute("SELECT name FROM sqlite_master")] == [
            "schema_migrations"
        ]


@pytest.mark.parametrize(
    ("text", "uri", "in_memory"),
    [
        (":memory:?_fk=true", "file::memory:", True),
        ("", "file::memory:", True),
        ("file:/x y/a.sqlite?mode=rwc&_fk=true", "file:/x%20y/a.sqlite?mode=rwc", False),
        ("file:///x/a.sqlite?cache=shared", "file:/x/a.sqlite?cache=shared", False),
        ("policies.sqlite", "file:policies.sqlite", False),
        ("file:shared?mode=memory", "file:shared?mode=memory", True),
    ],
)
def test_names_of_data_sources(text: str, uri: str, in_memory: bool) -> None:
    """A DSN is read as Go's drivers read it."""
    dsn = Dsn.parse(text)
    assert (dsn.uri, dsn.in_memory) == (uri, in_memory)


def test_settings_of_the_connection(tmp_path: Path) -> None:
    """Pragmas and the time that a writer waits stand in the DSN."""
    dsn = Dsn.parse("a?_pragma=journal_mode(WAL)&_pragma=synchronous=1&_busy_timeout=250")
    assert dsn.pragmas == ("PRAGMA journal_mode = WAL", "PRAGMA synchronous = 1")
    assert dsn.busy_timeout == 0.25
    file = tmp_path / "policies.sqlite"
    with contextlib.closing(
        open_store("sqlite3", {"dsn": f"file:{file}?_pragma=journal_mode(WAL)"})
    ) as store:
        store.read()
        with contextlib.closing(sqlite3.connect(file)) as connection:
            assert connection.execute("PRAGMA journal_mode").fetchone() == ("wal",)


def test_another_writer_is_not_waited_for_without_end(tmp_path: Path) -> None:
    """When a writer holds the database too long, a change is an error, and reading goes on."""
    file = tmp_path / "policies.sqlite"
    with contextlib.closing(open_store("sqlite3", {"dsn": f"file:{file}?_busy_timeout=100"})) as store:
        store.read()
        with contextlib.closing(sqlite3.connect(file, isolation_level=None)) as other:
            other.execute("BEGIN IMMEDIATE")
            with pytest.raises(StoreError, match="database is locked"):
                store.put_policies([rule_policy("doc")])  # type: ignore[attr-defined]  # see above
            assert dict(store.read().files) == {}


def test_a_database_may_be_there_only_to_be_read(tmp_path: Path) -> None:
    """Opened read-only, it is read, and a change is an error."""
    file = tmp_path / "policies.sqlite"
    with contextlib.closing(open_store("sqlite3", {"dsn": f"file:{file}"})) as store:
        store.put_policies([rule_policy("doc")])  # type: ignore[attr-defined]  # see above
    with contextlib.closing(open_store("sqlite3", {"dsn": f"file:{file}?mode=ro"})) as store:
        assert list(store.read().files) == ["resource.doc.vdefault"]
        with pytest.raises(StoreError, match="readonly"):
            store.put_policies([rule_policy("other")])  # type: ignore[attr-defined]  # see above


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({}, "needs a `dsn`"),
        ({"dsn": "a", "dns": "b"}, "unknown setting `dns` of the sqlite3 driver .*`dsn`"),
        ({"dsn": "a?mood=rw"}, "unknown parameter `mood`"),
        ({"dsn": "a?_pragma=x;DROP TABLE policy"}, "is no pragma"),
        ({"dsn": "a?_busy_timeout=5s"}, "number of milliseconds"),
    ],
)
def test_settings(settings: dict[str, Any], said: str) -> None:
    """The driver takes Cerbos's settings and ours, and no others."""
    with pytest.raises(StoreError, match=said):
        open_store("sqlite3", settings)
