"""Ten thousand policies in each store: how long until they are in force, in how much memory, and a change.

Each engine runs in a process of its own, so that its memory is its own; this file is also that process. The
servers are those of the tests; a store whose server is missing is left out.
"""

from __future__ import annotations

import contextlib
import json
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from engine import CheckInput, Effect, Engine, Principal, Resource
from engine.storage import open_store
from tests.bench import remote_stores
from tests.bench.measure import Measurement
from tests.engine.storage.contract import policy
from tests.engine.storage.database_places import message
from tests.engine.storage.database_servers import (
    Mysql,
    Postgres,
    mysql_program,
    postgres_programs,
    running,
)
from tests.engine.storage.git_servers import Repository

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

POLICIES = 10_000
POLL_INTERVAL = 1.0
"""Seconds: of the time until a change counts, this is half on the average."""

CHANGES = 5
PATIENCE = 120.0


class Place(NamedTuple):
    """A store to be measured, and how its policies are changed all at once."""

    driver: str
    settings: Mapping[str, Any]
    put: Callable[[Mapping[str, bytes]], object]


def stores(_rounds: int) -> Iterator[Measurement]:
    """Measure each store that can be had here."""
    for make in (_disk, _git, _blob, _bundle, _sqlite3, _postgres, _mysql):
        with tempfile.TemporaryDirectory(prefix="stores-") as folder, make(Path(folder)) as place:
            if place is not None:
                yield from _measured(place)


def _measured(place: Place) -> Iterator[Measurement]:
    place.put({f"kind{number}.yaml": _policy(f"kind{number}", "read") for number in range(POLICIES)})
    with _engine(place) as (loaded, wait_for):
        yield Measurement("stores", f"{place.driver}: loaded", loaded["seconds"], "s")
        yield Measurement("stores", f"{place.driver}: memory", loaded["memory"], "MiB", budget=300.0)
        times = sorted(_change(place, wait_for, f"action{number}") for number in range(CHANGES))
        yield Measurement(
            "stores",
            f"{place.driver}: a change counts",
            times[CHANGES // 2],
            "s",
            low=times[0],
            high=times[-1],
        )


def _change(place: Place, wait_for: Callable[[str], None], action: str) -> float:
    place.put({"kind7.yaml": _policy("kind7", action)})
    began = time.perf_counter()
    wait_for(action)
    return time.perf_counter() - began


def _policy(kind: str, action: str) -> bytes:
    variables = {"local": {"is_owner": "R.attr.owner == P.id", "is_open": "R.attr.status == 'OPEN'"}}
    return policy(kind, action, variables=variables)


# --- the stores -------------------------------------------------------------------------------------------


@contextlib.contextmanager
def _disk(folder: Path) -> Iterator[Place]:
    def put(contents: Mapping[str, bytes]) -> None:
        for path, content in contents.items():
            new = folder / f".{path}"
            new.write_bytes(content)
            new.replace(folder / path)

    yield Place("disk", {"directory": str(folder), "watchForChanges": True}, put)


@contextlib.contextmanager
def _git(folder: Path) -> Iterator[Place]:
    repository = Repository(folder / "policies.git")
    settings = {"protocol": "file", "url": f"file://{repository.path}", "branch": "main"}
    polled = {"checkoutDir": str(folder / "clone"), "updatePollInterval": POLL_INTERVAL}
    yield Place("git", {**settings, **polled}, repository.commit)


@contextlib.contextmanager
def _blob(folder: Path) -> Iterator[Place | None]:
    with remote_stores.bucket(folder) as found:
        yield None if found is None else _polled("blob", *found)


@contextlib.contextmanager
def _bundle(folder: Path) -> Iterator[Place]:
    with remote_stores.bundle(folder) as found:
        yield _polled("bundle", *found)


def _polled(driver: str, settings: Mapping[str, Any], put: Callable[[Mapping[str, bytes]], object]) -> Place:
    return Place(driver, {**settings, "updatePollInterval": POLL_INTERVAL}, put)


@contextlib.contextmanager
def _sqlite3(folder: Path) -> Iterator[Place]:
    with _database("sqlite3", {"dsn": f"file:{folder}/policies.sqlite"}) as place:
        yield place


@contextlib.contextmanager
def _postgres(_folder: Path) -> Iterator[Place | None]:
    programs = postgres_programs()
    if programs is None:
        yield None
        return
    with running(Postgres(programs)) as server:
        settings = {"url": server.url(server.database("postgres"))}
        with _database("postgres", settings) as place:
            yield place


@contextlib.contextmanager
def _mysql(_folder: Path) -> Iterator[Place | None]:
    program = mysql_program()
    if program is None:
        yield None
        return
    with running(Mysql(program)) as server:
        settings = {"dsn": server.dsn(server.database())}
        with _database("mysql", settings) as place:
            yield place


@contextlib.contextmanager
def _database(driver: str, settings: Mapping[str, Any]) -> Iterator[Place]:
    writer: Any = open_store(driver, settings)
    try:
        yield Place(
            driver,
            {**settings, "updatePollInterval": POLL_INTERVAL},
            lambda contents: writer.put_policies(map(message, contents.values())),
        )
    finally:
        writer.close()


# --- the process ------------------------------------------------------------------------------------------


@contextlib.contextmanager
def _engine(place: Place) -> Iterator[tuple[dict[str, float], Callable[[str], None]]]:
    """Run an engine; yield what loading took, and what waits until it allows an action."""
    process = subprocess.Popen(  # noqa: S603 - this file
        [sys.executable, "-m", "tests.bench.stores", place.driver, json.dumps(place.settings)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        encoding="utf-8",
    )
    assert process.stdin is not None
    assert process.stdout is not None

    def wait_for(action: str) -> None:
        process.stdin.write(f"{action}\n")  # type: ignore[union-attr]  # it is there, see above
        process.stdin.flush()  # type: ignore[union-attr]
        assert process.stdout.readline() == f"{action}\n", "the change does not count"  # type: ignore[union-attr]

    try:
        yield json.loads(process.stdout.readline()), wait_for
    finally:
        process.communicate(timeout=PATIENCE)


def main(driver: str, settings: str) -> None:
    """Load the policies, tell what it took, and tell of each action on standard input when it is allowed."""
    store = open_store(driver, json.loads(settings))
    began = time.perf_counter()
    with Engine.from_store(store, watch=True) as engine:
        seconds = time.perf_counter() - began
        memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        _tell(json.dumps({"seconds": seconds, "memory": memory}))
        for line in sys.stdin:
            _tell(line.strip() if _is_allowed(engine, line.strip()) else "")


def _is_allowed(engine: Engine, action: str) -> bool:
    """Wait until the policy of `kind7` allows *action*; false when it does not in the end."""
    asked = CheckInput(Principal("ann", ("user",)), Resource("kind7", "1"), (action,))
    end = time.monotonic() + PATIENCE
    while engine.check(asked).actions[action].effect is not Effect.ALLOW:
        if time.monotonic() > end:
            return False
        time.sleep(0.002)
    return True


def _tell(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main(*sys.argv[1:])
