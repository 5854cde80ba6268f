"""Policies in MySQL; the server is MariaDB, which Debian has."""

from __future__ import annotations

import logging
import time
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest

from engine.storage import Listing, RefusedError, Revisioned, StoreError, Watchable, Writable, open_store
from engine.storage.sql.mysql_dsn import Dsn
from tests.engine.storage.contract import (
    Calls,
    DisablingContract,
    LookingContract,
    RetryingContract,
    StoreContract,
    WatchedContract,
    closed,
    policy,
)
from tests.engine.storage.database_places import RETRIES, Database, DatabaseContract, rule_policy
from tests.engine.storage.database_servers import PASSWORD

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.engine.storage.database_servers import Mysql


@pytest.fixture
def changer(mysql_server: Mysql) -> Iterator[Database]:
    server = mysql_server
    dsn = server.dsn(server.database())
    place = Database("mysql", {"dsn": dsn, "connRetry": RETRIES}, stop=server.stop, start=server.start)
    yield place
    place.close()
    if server._process is None:
        server.start()


@pytest.fixture
def store(changer: Database) -> Iterator[Any]:
    store = changer.open()
    yield store
    store.close()


class TestMysqlStore(
    StoreContract, WatchedContract, LookingContract, RetryingContract, DisablingContract, DatabaseContract
):
    """A database of MariaDB keeps the contract of all stores."""

    has_revision = True
    unreachable = r"mysql `127\.0\.0\.1:\d+/policies\d+`: Can't connect to MySQL server"


def test_it_can_all_that_stores_can(store: Any) -> None:
    """The store meets each of the small interfaces."""
    for ability in (Watchable, Listing, Writable, Revisioned):
        assert isinstance(store, ability)


def test_a_change_by_hand_is_noticed(store: Any, changer: Database, mysql_server: Mysql) -> None:
    """Whoever changes the tables is found out at the next look."""
    changer.put("a.yaml", policy("a"))
    store.read()
    calls = Calls()
    store.watch(calls)
    calls.wait_until_quiet(0.5)
    before = calls.count
    with mysql_server.connect(store._arguments["database"]) as connection:
        connection.cursor().execute("UPDATE policy SET disabled = true")
    calls.wait_for_more_than(before)
    assert dict(store.read().files) == {}


# --- limits -----------------------------------------------------------------------------------------------


def test_a_server_that_hangs_is_given_up(changer: Database, mysql_server: Mysql) -> None:
    """A server that takes what is sent and never answers holds up a reading for a limited time only."""
    dsn = f"{changer.settings['dsn']}&timeout=2s&readTimeout=2s"
    with closed(open_store("mysql", {**changer.settings, "dsn": dsn})) as store:
        store.read()
        mysql_server.pause()
        try:
            began = time.monotonic()
            with pytest.raises(StoreError, match="timed out"):
                store.read()
            assert time.monotonic() - began < 30
        finally:
            mysql_server.resume()
        assert dict(store.read().files) == {}


def test_what_does_not_fit_is_refused(store: Any) -> None:
    """A policy that Cerbos's tables cannot hold is refused, and not cut off."""
    large = rule_policy("large", importDerivedRoles=[f"roles-{number}" for number in range(9000)])
    assert len(large) > 65535
    with pytest.raises(RefusedError, match="Data too long for column 'definition'"):
        store.put_policies([rule_policy("small"), large])
    with pytest.raises(RefusedError, match="Data too long for column 'name'"):
        store.put_policies([rule_policy("x" * 1025)])
    assert store.list_policies() == []


# --- being let in -----------------------------------------------------------------------------------------


def _cipher(store: Any) -> str:
    with store.reading() as connection:
        found: str = connection.exec_driver_sql("SHOW STATUS LIKE 'Ssl_cipher'").one()[1]
        return found


def test_tls(changer: Database, mysql_server: Mysql, tmp_path: Path) -> None:
    """The connection is encrypted, and the server's certificate and name are checked, as the settings say."""
    database = changer.writer._arguments["database"]
    block = {"ours": {"caCert": str(mysql_server.authority)}}
    localhost = mysql_server.dsn(database, "&tls=ours").replace("127.0.0.1", "localhost")
    with closed(open_store("mysql", {"dsn": localhost, "tls": block})) as store:
        store.read()
        assert _cipher(store)
    for name in ("ours", "true"):  # another name than the certificate's; another authority
        settings = {"dsn": mysql_server.dsn(database, f"&tls={name}"), "tls": block}
        store = open_store("mysql", {**settings, "connRetry": {"maxAttempts": 0}})
        with closed(store), pytest.raises(StoreError, match=r"(?i)certificate"):
            store.read()
    for name, encrypted in {"skip-verify": True, "preferred": True, "false": False}.items():
        with closed(open_store("mysql", {"dsn": mysql_server.dsn(database, f"&tls={name}")})) as store:
            store.read()
            assert bool(_cipher(store)) is encrypted


def test_errors_tell_no_password(changer: Database, caplog: pytest.LogCaptureFixture) -> None:
    """A wrong password is in no error and in no log."""
    caplog.set_level(logging.DEBUG)
    dsn = changer.settings["dsn"].replace("s3cr3t", "wr0ng")
    retries = {"maxAttempts": 1, "initialInterval": 0.01, "maxInterval": 0.01}
    with closed(open_store("mysql", {"dsn": dsn, "connRetry": retries})) as store:
        with pytest.raises(StoreError, match="Access denied") as told:
            store.read()
        assert "wr0ng" not in f"{told.value!r} {caplog.text} {store!r}"
        assert "trying again" in caplog.text


def test_missing_tables_are_told_at_once(mysql_server: Mysql) -> None:
    """Tables that are not there are all named, with what makes them, and not waited for."""
    with mysql_server.connect() as connection:
        connection.cursor().execute("CREATE DATABASE empty_one")
    with closed(open_store("mysql", {"dsn": mysql_server.dsn("empty_one")})) as store:
        began = time.monotonic()
        with pytest.raises(StoreError) as told:
            store.read()
        assert time.monotonic() - began < 10
    for table in ("policy", "policy_dependency", "policy_ancestor", "policy_revision", "attr_schema_defs"):
        assert f"`{table}` (Table 'empty_one.{table}' doesn't exist)" in str(told.value)
    assert "python -m engine.storage.sql.ddl mysql" in str(told.value)
    skipping = {"dsn": mysql_server.dsn("empty_one"), "skipSchemaCheck": True}
    with closed(open_store("mysql", skipping)) as store, pytest.raises(StoreError, match="policy_revision"):
        store.read()


def test_a_user_who_may_only_read(changer: Database, mysql_server: Mysql) -> None:
    """A gateway needs no right but to read."""
    changer.put("a.yaml", policy("a"))
    database = changer.writer._arguments["database"]
    with mysql_server.connect() as connection:
        cursor = connection.cursor()
        cursor.execute(f"CREATE USER reader_{database}@'%%' IDENTIFIED BY %s", (PASSWORD,))
        cursor.execute(f"GRANT SELECT ON {database}.* TO reader_{database}@'%'")
    with closed(open_store("mysql", {"dsn": mysql_server.dsn(database, user=f"reader_{database}")})) as store:
        assert list(store.read().files) == ["resource.a.vdefault"]
        with pytest.raises(StoreError, match="command denied"):
            store.put_policies([rule_policy("b")])  # type: ignore[attr-defined]  # our class


def test_no_password_in_clear_text() -> None:
    """A server that asks for the password as it is gets none, unless the settings say so and there is TLS."""
    store: Any = open_store("mysql", {"dsn": "u:p@/d"})
    (plugin,) = store._arguments["auth_plugin_map"].values()
    with pytest.raises(Exception, match="clear text"):
        plugin(None).authenticate(None)
    allowed: Any = open_store("mysql", {"dsn": "u:p@/d?allowCleartextPasswords=1&tls=true"})
    assert allowed._arguments["auth_plugin_map"] == {}
    with pytest.raises(StoreError, match="needs TLS"):
        open_store("mysql", {"dsn": "u:p@/d?allowCleartextPasswords=1"})


# --- settings ---------------------------------------------------------------------------------------------

PLAIN = Dsn("d")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("/d", PLAIN),
        ("u@/d", replace(PLAIN, user="u")),
        ("u:p@ss:w/rd@tcp(h:1)/d", replace(PLAIN, user="u", password="p@ss:w/rd", host="h", port=1)),
        ("u:p@tcp([::1]:3307)/d", replace(PLAIN, user="u", password="p", host="::1", port=3307)),
        ("u@tcp(h)/a%2Fb", replace(PLAIN, user="u", host="h", database="a/b")),
        ("u@unix(/run/my.sock)/d", replace(PLAIN, user="u", socket="/run/my.sock")),
        (
            "/d?timeout=1m30s&readTimeout=200ms&writeTimeout=1.5s&parseTime=true&charset=utf8mb4,utf8",
            replace(PLAIN, timeout=90.0, read_timeout=0.2, write_timeout=1.5),
        ),
        (
            "/d?tls=ours&serverPubKey=k&collation=c",
            replace(PLAIN, tls="ours", server_public_key="k", collation="c"),
        ),
    ],
)
def test_names_of_data_sources(text: str, expected: Dsn) -> None:
    """A DSN is read as Go's driver reads it."""
    assert Dsn.parse(text) == expected


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({}, "needs a `dsn`"),
        ({"dsn": "/d", "dns": 1}, "unknown setting `dns` of the mysql driver"),
        ({"dsn": "u:secret@tcp(h)"}, "lacks the `/`"),
        ({"dsn": "u:secret@tcp(h)/"}, "names no database"),
        ({"dsn": "u:secret@udp(h)/d"}, "`udp`"),
        ({"dsn": "u:secret@tcp(h/d"}, "no address"),
        ({"dsn": "/d?tlz=1"}, "unknown parameter `tlz`"),
        ({"dsn": "/d?timeout=5"}, "no duration"),
        ({"dsn": "/d?tls=ours"}, "there is no `tls.ours`"),
        ({"dsn": "/d?tls=ours", "tls": {"ours": {"caCert": "/nowhere.pem"}}}, "`tls.ours` .*No such file"),
        ({"dsn": "/d?tls=ours", "tls": {"ours": {"cert": "/a.pem"}}}, "`cert` and `key` go together"),
        ({"dsn": "/d?tls=ours", "tls": {"ours": {"ca": "/a.pem"}}}, "unknown setting `ca` of `tls.ours`"),
        ({"dsn": "/d?serverPubKey=k"}, "names the `serverPubKey` `k`"),
        ({"dsn": "/d?serverPubKey=k", "serverPubKey": {"k": "/nowhere"}}, "`serverPubKey.k` .*No such file"),
    ],
)
def test_settings(settings: dict[str, Any], said: str) -> None:
    """The driver takes Cerbos's settings and ours, and no others; no error repeats the password."""
    with pytest.raises(StoreError, match=said) as told:
        open_store("mysql", settings)
    assert "secret" not in str(told.value)
