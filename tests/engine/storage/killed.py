"""Kills a process in the middle of a store's updates, again and again, and looks at what the next one reads.

For every driver that keeps something on disk::

    with updates(changer), Victims("git", settings) as victims:
        for _ in range(tries()):
            assert_whole(victims.kill_and_read())

This file is also the program that is killed: it waits for orders, and forks a process for each, so that a try
costs milliseconds and not the start of an interpreter.
"""

from __future__ import annotations

import contextlib
import json
import os
import random
import select
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn, Self

from engine.storage import StoreError, open_store
from tests.engine.storage.contract import Changer, actions, policy

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

ROOT = Path(__file__).parents[3]

KINDS = tuple(f"kind{number}" for number in range(12))

LONGEST = 0.12
"""Seconds after which a process is killed at the latest, counted from its first look at the store."""

READ_TIMEOUT = 60.0

IMPORTS_WHEN_READ = ("bundle",)
"""Drivers that import more at the first reading, and leave no threads behind that a fork would lose."""


def tries() -> int:
    """How often to kill: enough to notice a mistake, in CI as often as was promised."""
    return 200 if os.environ.get("CI") == "true" else 25


def assert_whole(files: Mapping[str, str]) -> int:
    """Fail unless *files* are those of one version; return which."""
    found = actions({path: content.encode() for path, content in files.items()})
    versions = set(found.values())
    assert sorted(found) == sorted(KINDS), found
    assert len(versions) == 1, found
    return int(versions.pop().removeprefix("version"))


@contextlib.contextmanager
def updates(changer: Changer) -> Iterator[list[int]]:
    """Change every policy at once, one version after the other; the list ends with the last one."""
    done: list[int] = []
    ended = threading.Event()

    def change(version: int) -> None:
        changer.together({f"{kind}.yaml": policy(kind, f"version{version}") for kind in KINDS})
        done.append(version)

    def change_on() -> None:
        version = 1
        while not ended.is_set():
            change(version)
            version += 1

    change(0)
    thread = threading.Thread(target=change_on)
    thread.start()
    try:
        yield done
    finally:
        ended.set()
        thread.join()


class Victims:
    """Processes that update a store and are killed while they do."""

    def __init__(self, driver: str, settings: Mapping[str, Any], *, seed: int | None = None) -> None:
        """*seed* makes the moments the same each time."""
        self._random = random.Random(seed)  # noqa: S311  # no secret
        self._process = subprocess.Popen(  # noqa: S603  # this file
            [sys.executable, __file__, driver, json.dumps(settings)],
            env={**os.environ, "PYTHONPATH": str(ROOT)},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            encoding="utf-8",
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.close()
        try:
            self._process.wait(READ_TIMEOUT)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._process.stdout.close()

    def kill_and_read(self) -> dict[str, str]:
        """Kill a process at a random moment of its updates, and return the files that the next one reads."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(f"{self._random.uniform(0, LONGEST)}\n")
        self._process.stdin.flush()
        answer: dict[str, Any] = json.loads(self._process.stdout.readline())
        assert "error" not in answer, answer
        files: dict[str, str] = answer["files"]
        return files


# --- the program ------------------------------------------------------------------------------------------


def main(driver: str, settings: str) -> None:
    """Obey orders: each is how many seconds a process may live; answer with what the next one reads."""
    options = json.loads(settings)
    # What a driver imports is imported before anybody forks, so that no time is spent on it.
    store = open_store(driver, options)
    if driver in IMPORTS_WHEN_READ:
        store.read()
    store.close()
    for line in sys.stdin:
        _kill(driver, options, float(line))
        sys.stdout.write(_read(driver, options) + "\n")
        sys.stdout.flush()


def _kill(driver: str, options: Mapping[str, Any], seconds: float) -> None:
    begun_read, begun_write = os.pipe()
    pid = os.fork()
    if pid == 0:
        _update(driver, options, begun_write)
    os.close(begun_write)
    os.read(begun_read, 1)
    os.close(begun_read)
    time.sleep(seconds)
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)


def _update(driver: str, options: Mapping[str, Any], begun: int) -> NoReturn:
    """Read the store without end; a failure only ends the process sooner, and the next one will tell."""
    try:
        store = open_store(driver, options)
        os.write(begun, b".")
        while True:
            store.read()
    finally:
        os._exit(1)


def _read(driver: str, options: Mapping[str, Any]) -> str:
    """Read the store once, in a process of its own, as a start does."""
    told_read, told_write = os.pipe()
    pid = os.fork()
    if pid == 0:
        _tell(driver, options, told_write)
    os.close(told_write)
    text = b""
    with open(told_read, "rb", buffering=0) as told:  # noqa: PTH123  # a descriptor
        while select.select([told], [], [], READ_TIMEOUT)[0] and (more := told.read(65536)):
            text += more
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)  # it has told everything, or hangs
    os.waitpid(pid, 0)
    return text.decode() or '{"error": "the next start hangs, or crashed"}'


def _tell(driver: str, options: Mapping[str, Any], told: int) -> NoReturn:
    try:
        files = open_store(driver, options).read().files
        answer = {"files": {path: content.decode() for path, content in files.items()}}
        with os.fdopen(told, "w", encoding="utf-8") as writing:
            writing.write(json.dumps(answer))
    except StoreError as error:
        os.write(told, json.dumps({"error": str(error)}).encode())
    finally:
        os._exit(0)


if __name__ == "__main__":
    main(*sys.argv[1:])
