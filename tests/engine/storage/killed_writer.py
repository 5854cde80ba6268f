"""Kills processes in the middle of writing to a database, again and again.

This file is also the program that is killed. As in :mod:`tests.engine.storage.killed`, which does the same to
processes that only read, it waits for orders and forks a process for each.
"""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn, Self

from engine.storage import open_store
from tests.engine.storage.contract import policy
from tests.engine.storage.database_places import message
from tests.engine.storage.killed import KINDS

if TYPE_CHECKING:
    from collections.abc import Mapping

ROOT = Path(__file__).parents[3]
LONGEST = 0.15
"""Seconds after which a writer is killed at the latest, counted from its first write."""


class Writers:
    """Processes that put all policies anew, in one version after the other, and are killed while they do."""

    def __init__(self, driver: str, settings: Mapping[str, Any]) -> None:
        self._process = subprocess.Popen(  # noqa: S603 - this file
            [sys.executable, __file__, driver, json.dumps(settings)],
            env={**os.environ, "PYTHONPATH": str(ROOT)},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            encoding="utf-8",
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._process.communicate(timeout=60)

    def kill(self) -> None:
        """Let a process write, and kill it at a random moment."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(f"{random.uniform(0, LONGEST)}\n")  # noqa: S311 - no secret
        self._process.stdin.flush()
        assert self._process.stdout.readline() == "killed\n"


def main(driver: str, settings: str) -> None:
    """Obey orders: each is how many seconds a writer may live."""
    options = json.loads(settings)
    open_store(driver, options).close()  # what a driver imports is imported before anybody forks
    for number, line in enumerate(sys.stdin):
        begun_read, begun_write = os.pipe()
        pid = os.fork()
        if pid == 0:
            _write(driver, options, number * 1_000_000, begun_write)
        os.close(begun_write)
        os.read(begun_read, 1)
        os.close(begun_read)
        time.sleep(float(line))
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        sys.stdout.write("killed\n")
        sys.stdout.flush()


def _write(driver: str, options: Mapping[str, Any], version: int, begun: int) -> NoReturn:
    """Write without end; a failure only ends the process sooner, and whoever reads will tell."""
    try:
        store: Any = open_store(driver, options)
        while True:
            version += 1
            store.put_policies([message(policy(kind, f"version{version}")) for kind in KINDS])
            os.write(begun, b".")
    finally:
        os._exit(1)


if __name__ == "__main__":
    main(*sys.argv[1:])
