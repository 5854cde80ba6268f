"""Policies in PostgreSQL."""

from __future__ import annotations

import contextlib
import logging
import threading
import time
from typing import TYPE_CHECKING, Any

import psycopg
import pytest

from engine.storage import Listing, Revisioned, StoreError, Watchable, Writable, open_store
from engine.storage.sql.postgres import connection_parameters
from tests.engine.storage.contract import (
    Calls,
    DisablingContract,
    LookingContract,
    RetryingContract,
    StoreContract,
    WatchedContract,
    closed,
    eventually,
    policy,
)
from tests.engine.storage.database_places import RETRIES, Database, DatabaseContract, rule_policy
from tests.engine.storage.database_servers import PASSWORD

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.engine.storage.database_servers import Postgres


@pytest.fixture
def changer(postgres_server: Postgres) -> Iterator[Database]:
    server = postgres_server
    url = server.url(server.database("postgres"))
    place = Database(
        "postgres",
        {"url": url, "connRetry": RETRIES, "queryTimeout": 20.0},
        stop=server.stop,
        start=server.start,
    )
    yield place
    place.close()
    if server._process is None:
        server.start()


@pytest.fixture
def store(changer: Database) -> Iterator[Any]:
    store = changer.open()
    yield store
    store.close()


class TestPostgresStore(
    StoreContract, WatchedContract, LookingContract, RetryingContract, DisablingContract, DatabaseContract
):
    """A PostgreSQL database keeps the contract of all stores."""

    has_revision = True
    unreachable = r"postgres `127\.0\.0\.1:\d+/policies\d+`: .*Connection refused"


def test_it_can_all_that_stores_can(store: Any) -> None:
    """The store meets each of the small interfaces."""
    for ability in (Watchable, Listing, Writable, Revisioned):
        assert isinstance(store, ability)


def _database(place: Database) -> str:
    name: str = place.writer._parameters["dbname"]
    return name


# --- noticing changes -------------------------------------------------------------------------------------


def test_another_replica_hears_of_a_change_at_once(changer: Database) -> None:
    """What one of us changes is told to the others by the database: nobody waits for the next look."""
    settings = {**changer.settings, "updatePollInterval": 3600.0}
    store: Any
    with closed(open_store("postgres", settings)) as store:
        store.read()
        calls = Calls()
        store.watch(calls)
        eventually(lambda: _listeners(changer) == 1)
        calls.wait_until_quiet(0.3)
        before = calls.count
        changer.put("a.yaml", policy("a"))
        calls.wait_for_more_than(before)


def test_a_change_by_hand_is_heard_of_with_our_triggers(postgres_server: Postgres) -> None:
    """With the triggers that we offer, whoever changes the tables is heard."""
    database = postgres_server.database("postgres", "postgres_notify")
    store: Any
    place = Database(
        "postgres", {"url": postgres_server.url(database)}, stop=lambda: None, start=lambda: None
    )
    with closed(place.open()) as store:
        store._poll_interval = 3600.0
        place.put("a.yaml", policy("a"))
        store.read()
        calls = Calls()
        store.watch(calls)
        eventually(lambda: _listeners(place) == 1)
        calls.wait_until_quiet(0.3)
        before = calls.count
        with postgres_server.connect(database) as connection:
            connection.execute("UPDATE cerbos.policy SET disabled = true")
        calls.wait_for_more_than(before)
        assert dict(store.read().files) == {}
    place.close()


def test_listening_begins_again(changer: Database, postgres_server: Postgres, store: Any) -> None:
    """When the connection that listens breaks, another one is made, and what was missed is found."""
    store._poll_interval = 3600.0
    store.read()
    calls = Calls()
    store.watch(calls)
    eventually(lambda: _listeners(changer) == 1)
    (first,) = _listener_ids(changer)
    calls.wait_until_quiet(0.3)
    with postgres_server.connect("postgres") as connection:
        connection.execute("SELECT pg_terminate_backend(%s)", (first,))
    before = calls.count
    changer.put("a.yaml", policy("a"))
    calls.wait_for_more_than(before)
    eventually(lambda: _listener_ids(changer) not in ([], [first]))
    calls.wait_until_quiet(0.3)
    before = calls.count
    changer.put("a.yaml", policy("a", "edit"))
    calls.wait_for_more_than(before)


def _listener_ids(place: Database) -> list[int]:
    asked = "SELECT pid FROM pg_stat_activity WHERE datname = current_database() AND query LIKE 'LISTEN%%'"
    with place.writer.engine.connect() as connection:
        return [pid for (pid,) in connection.exec_driver_sql(asked)]


def _listeners(place: Database) -> int:
    return len(_listener_ids(place))


def test_ids_that_are_committed_late_are_noticed(store: Any, postgres_server: Postgres) -> None:
    """A change that took its revision id early and is committed late is found after higher ones."""
    database = store._parameters["dbname"]
    store.put_policies([rule_policy("a")])
    with postgres_server.connect(database) as late, postgres_server.connect(database) as quick:
        late.autocommit = False
        late.execute("UPDATE cerbos.policy SET disabled = true")
        quick.execute("INSERT INTO cerbos.policy_revision (action, id) VALUES ('UPDATE', 1)")
        store.read()
        seen = store._told
        calls = Calls()
        store._look(calls)
        assert calls.count == 0
        late.commit()
        store._look(calls)
        assert calls.count == 1
        assert store._told.revision == seen.revision


# --- time limits ------------------------------------------------------------------------------------------


def test_a_server_that_hangs_is_given_up(changer: Database, postgres_server: Postgres) -> None:
    """A server that takes what is sent and never answers holds up a reading for a limited time only."""
    url = f"{changer.settings['url']}&connect_timeout=2"
    with closed(open_store("postgres", {**changer.settings, "url": url, "queryTimeout": 2.0})) as store:
        store.read()
        postgres_server.pause()
        try:
            began = time.monotonic()
            with pytest.raises(StoreError, match=r"no answer within 4 s|timeout expired"):
                store.read()
            assert time.monotonic() - began < 30
        finally:
            postgres_server.resume()
        assert dict(store.read().files) == {}


def test_a_query_that_takes_too_long_is_ended(changer: Database, postgres_server: Postgres) -> None:
    """A lock that somebody holds is waited for as long as the settings say."""
    with closed(open_store("postgres", {**changer.settings, "queryTimeout": 2.0})) as store:
        store.read()
        with postgres_server.connect(store._parameters["dbname"]) as other, other.transaction():  # type: ignore[attr-defined]  # our class
            other.execute("LOCK TABLE cerbos.policy IN ACCESS EXCLUSIVE MODE")
            with pytest.raises(StoreError, match="statement timeout"):
                store.read()
        assert dict(store.read().files) == {}


def test_idle_connections_are_not_used_again(changer: Database) -> None:
    """Connections are as idle as the pool's settings allow, and no more of them than they allow."""
    for idle, same in ((3600.0, True), (0.001, False)):
        pool = {"maxIdleTime": idle, "maxOpen": 2, "maxIdle": 1, "maxLifeTime": 3600.0}
        with closed(open_store("postgres", {**changer.settings, "connPool": pool})) as store:
            first = _backend(store)
            time.sleep(0.05)
            assert (_backend(store) == first) is same


def _backend(store: Any) -> int:
    with store.reading() as connection:
        found: int = connection.exec_driver_sql("SELECT pg_backend_pid()").scalar_one()
        return found


# --- being let in -----------------------------------------------------------------------------------------


def test_tls(changer: Database, postgres_server: Postgres) -> None:
    """The connection is encrypted, and the server's certificate and name are checked, as the URL says."""
    database = _database(changer)
    secure = f"search_path=cerbos&sslmode=verify-full&sslrootcert={postgres_server.authority}"
    url = postgres_server.url(database, secure)
    with closed(open_store("postgres", {"url": url.replace("127.0.0.1", "localhost")})) as store:
        store.read()
        with store.reading() as connection:  # type: ignore[attr-defined]  # our class
            used = "SELECT ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid()"
            assert connection.exec_driver_sql(used).scalar_one() is True
    once = {"connRetry": {"maxAttempts": 0}}
    with (
        closed(open_store("postgres", {"url": url, **once})) as store,
        pytest.raises(StoreError, match="certificate"),
    ):
        store.read()


def test_errors_tell_no_password(changer: Database, caplog: pytest.LogCaptureFixture) -> None:
    """A wrong password is in no error and in no log."""
    caplog.set_level(logging.DEBUG)
    url = changer.settings["url"].replace("s3cr3t", "wr0ng")
    retries = {"maxAttempts": 1, "initialInterval": 0.01, "maxInterval": 0.01}
    with closed(open_store("postgres", {"url": url, "connRetry": retries})) as store:
        with pytest.raises(StoreError, match="password authentication failed") as told:
            store.read()
        assert "wr0ng" not in f"{told.value!r} {caplog.text} {store!r}"
        assert "trying again" in caplog.text


def test_missing_tables_are_told_at_once(postgres_server: Postgres) -> None:
    """Tables that are not there are all named, with what makes them, and not waited for."""
    url = postgres_server.url(postgres_server.database())
    with closed(open_store("postgres", {"url": url})) as store:
        began = time.monotonic()
        with pytest.raises(StoreError) as told:
            store.read()
        assert time.monotonic() - began < 10
    for table in ("policy", "policy_dependency", "policy_ancestor", "policy_revision", "attr_schema_defs"):
        assert f"`{table}` (relation " in str(told.value)
    assert "python -m engine.storage.sql.ddl postgres" in str(told.value)


def test_tables_need_not_be_checked(postgres_server: Postgres) -> None:
    """With the check skipped, the first statement finds out."""
    url = postgres_server.url(postgres_server.database())
    with closed(open_store("postgres", {"url": url, "skipSchemaCheck": True})) as store:
        with pytest.raises(StoreError, match='relation "policy_revision" does not exist') as told:
            store.read()
        assert "LINE" not in str(told.value)


def test_a_user_who_may_only_read(changer: Database, postgres_server: Postgres) -> None:
    """A gateway needs no right but to read."""
    changer.put("a.yaml", policy("a"))
    database = _database(changer)
    with postgres_server.connect(database) as connection:
        connection.execute(f"CREATE USER reader_{database} PASSWORD '{PASSWORD}'".encode())
        connection.execute(f"GRANT USAGE ON SCHEMA cerbos TO reader_{database}".encode())
        connection.execute(f"GRANT SELECT ON ALL TABLES IN SCHEMA cerbos TO reader_{database}".encode())
    with closed(
        open_store("postgres", {"url": postgres_server.url(database, user=f"reader_{database}")})
    ) as store:
        assert list(store.read().files) == ["resource.a.vdefault"]
        with pytest.raises(StoreError, match="permission denied"):
            store.put_policies([rule_policy("b")])  # type: ignore[attr-defined]  # our class


def test_writers_at_the_same_time(changer: Database) -> None:
    """Several writers of the same policies end well, and one of them was the last."""
    stores = [changer.open() for _ in range(3)]
    failed: list[Exception] = []

    def write(store: Any, number: int) -> None:
        try:
            for _ in range(10):
                store.put_policies([rule_policy(kind, importDerivedRoles=[f"r{number}"]) for kind in "abc"])
        except Exception as error:
            failed.append(error)

    threads = [threading.Thread(target=write, args=each) for each in zip(stores, range(3), strict=True)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for store in stores:
        store.close()
    assert failed == []
    assert len(changer.writer.read().files) == 3


# --- settings ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        (
            "postgres://u:p%40ss@db:6432/pol?search_path=a,b&sslmode=require&statement_cache_capacity=0",
            {
                "user": "u",
                "password": "p@ss",
                "host": "db",
                "port": "6432",
                "dbname": "pol",
                "sslmode": "require",
            },
        ),
        ("postgresql://db1,db2:1234/p", {"host": "db1,db2", "port": ",1234", "dbname": "p"}),
        ("postgres://[::1]:5/p", {"host": "::1", "port": "5", "dbname": "p"}),
        (
            "user=u password='a b\\'c' host=/var/run database=x",
            {"password": "a b'c", "host": "/var/run", "dbname": "x"},
        ),
    ],
)
def test_urls(url: str, expected: dict[str, str]) -> None:
    """A URL is read as Cerbos's driver reads it."""
    found = connection_parameters(url)
    assert expected.items() <= found.items()
    assert ("-c search_path=a,b" in found["options"]) == ("search_path" in url)
    assert "statement_cache_capacity" not in str(found)


def test_parameters_cannot_break_out() -> None:
    """What is not libpq's is one setting of the session, whatever it holds."""
    found = connection_parameters("postgres://h/d?search_path=a%20-c%20log_statement%3Dall")
    assert found["options"] == r"-c search_path=a\ -c\ log_statement=all"
    with pytest.raises(StoreError, match="no proper name"):
        connection_parameters("postgres://h/d?a%20b=c")


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({}, "needs a `url`"),
        ({"url": "postgres://h/d", "ulr": 1}, "unknown setting `ulr` of the postgres driver"),
        ({"url": "http://h"}, "neither a URL nor"),
        ({"url": "postgres://u:pw@h:x/d"}, "is no URL"),
        ({"url": "postgres://h/d", "connPool": {"maxOpne": 1}}, "unknown setting `maxOpne` of connPool"),
        ({"url": "postgres://h/d", "connPool": {"maxOpen": -1}}, "not negative"),
        ({"url": "postgres://h/d", "connRetry": {"maxAttempts": -1}}, "not negative"),
        ({"url": "postgres://h/d", "connRetry": {"initialInterval": 2, "maxInterval": 1}}, "not below"),
        ({"url": "postgres://h/d", "queryTimeout": -1}, "`queryTimeout` is not negative"),
    ],
)
def test_settings(settings: dict[str, Any], said: str) -> None:
    """The driver takes Cerbos's settings and ours, and no others; no error repeats the URL."""
    with pytest.raises(StoreError, match=said) as told:
        open_store("postgres", settings)
    assert "pw" not in str(told.value)


def test_the_tables_are_printed(capsys: pytest.CaptureFixture[str]) -> None:
    """What makes the tables can be had without the source."""
    from engine.storage.sql.ddl.__main__ import main  # noqa: PLC0415 - a program

    assert main(["postgres_notify"]) == 0
    assert "pg_notify('extauthz_policies'" in capsys.readouterr().out
    assert main(["oracle"]) == 2
    assert "mysql, postgres, postgres_notify, sqlite3" in capsys.readouterr().err


def test_a_connection_that_is_given_up_is_closed(postgres_server: Postgres) -> None:
    """A late answer can never be taken for that to another query."""
    from engine.storage.sql.postgres import BoundedConnection  # noqa: PLC0415 - beside what it tests

    arguments = {"user": "postgres", "password": PASSWORD, "host": "127.0.0.1", "port": postgres_server.port}
    with contextlib.closing(BoundedConnection.connect(dbname="postgres", **arguments)) as connection:  # type: ignore[arg-type]  # libpq's parameters
        connection.longest_wait = 0.2
        with pytest.raises(psycopg.OperationalError, match=r"no answer within 0\.2 s"):
            connection.execute("SELECT pg_sleep(5)")
        assert connection.closed
