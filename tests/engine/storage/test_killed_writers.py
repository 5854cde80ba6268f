"""A process may be killed at any moment of a write to a database: what it leaves is one whole version."""

from __future__ import annotations

import signal
from typing import TYPE_CHECKING, Any

from engine.storage import open_store
from tests.engine.storage.contract import closed
from tests.engine.storage.killed import assert_whole, tries
from tests.engine.storage.killed_writer import Writers

if TYPE_CHECKING:
    from pathlib import Path

    from tests.engine.storage.database_servers import Mysql, Postgres, Server


FEWER = max(10, tries() // 4)
"""How often to kill where nothing lies on the writer's own disk, or where it is the same in other clothes."""


def kill_writers(driver: str, settings: dict[str, Any], times: int) -> None:
    """Kill writers, and look at what each leaves, with a store that stays and with one that is new."""
    seen = []
    with closed(open_store(driver, settings)) as staying, Writers(driver, settings) as writers:
        staying.read()
        for number in range(times):
            writers.kill()
            files = {path: content.decode() for path, content in staying.read().files.items()}
            seen.append(assert_whole(files))
            if number % 10 == 0:
                with closed(open_store(driver, settings)) as new:
                    assert {path: content.decode() for path, content in new.read().files.items()} == files
    assert len(set(seen)) > 1
    assert seen == sorted(seen), "an old version came back"


def kill_server(server: Server, driver: str, settings: dict[str, Any]) -> None:
    """Kill the server itself while policies are put; started again, it has one whole version."""
    with Writers(driver, settings) as writers:
        writers.kill()
        server.stop(signal.SIGKILL)
        server.start()
    with closed(open_store(driver, settings)) as store:
        assert_whole({path: content.decode() for path, content in store.read().files.items()})


def test_sqlite3(tmp_path: Path) -> None:
    """A journal that a killed writer leaves is rolled back by the next who opens the file."""
    kill_writers("sqlite3", {"dsn": f"file:{tmp_path}/policies.sqlite"}, tries())


def test_sqlite3_with_a_log(tmp_path: Path) -> None:
    """The same with a write-ahead log."""
    kill_writers("sqlite3", {"dsn": f"file:{tmp_path}/policies.sqlite?_pragma=journal_mode(WAL)"}, FEWER)


def test_postgres(postgres_server: Postgres) -> None:
    """A transaction whose client is gone is rolled back."""
    settings = {"url": postgres_server.url(postgres_server.database("postgres"))}
    kill_writers("postgres", settings, FEWER)
    kill_server(postgres_server, "postgres", settings)


def test_mysql(mysql_server: Mysql) -> None:
    """A transaction whose client is gone is rolled back."""
    settings = {"dsn": mysql_server.dsn(mysql_server.database())}
    kill_writers("mysql", settings, FEWER)
    kill_server(mysql_server, "mysql", settings)
