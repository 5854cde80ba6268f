"""Servers as processes that tests start, stop and start again."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import time
from typing import TYPE_CHECKING

import pytest

from tests.ports import free_port

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

PATIENCE = 20.0
"""Seconds that a server may take to listen: the machine may be busy."""


def required(program: str | Path) -> str:
    """Return the path of a program; without it the test is skipped, in CI it fails."""
    found = shutil.which(str(program))
    if found is None:
        reason = f"`{program}` is not installed (`make stores`; docker-registry is a package of Debian)"
        if os.environ.get("CI") == "true":
            pytest.fail(reason)
        pytest.skip(reason)
    return found


class ServerProcess:
    """A program that listens on a port of this machine."""

    def __init__(
        self,
        command: Callable[[int], Sequence[str]],
        log: Path,
        environment: Mapping[str, str] | None = None,
    ) -> None:
        """*command* makes the command line for a port."""
        self.port = free_port()
        self._command = command
        self._log = log
        self._environment = {**os.environ, **(environment or {})}
        self._process: subprocess.Popen[bytes] | None = None
        self.start()

    def start(self) -> None:
        """Start it if it does not run, on the port of before, and wait until it listens."""
        if self._process is not None:
            return
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(  # noqa: S603 - what the test says
                self._command(self.port), stdout=log, stderr=log, env=self._environment
            )
        end = time.monotonic() + PATIENCE
        while not self._listens():
            assert self._process.poll() is None, self._log.read_text(errors="replace")[-2000:]
            assert time.monotonic() < end, f"does not listen within {PATIENCE} s"
            time.sleep(0.02)

    def stop(self) -> None:
        """End it at once."""
        if self._process is not None:
            self._process.kill()
            self._process.wait(PATIENCE)
            self._process = None

    def pause(self) -> None:
        """Let it hang: connections are taken, nothing is answered."""
        assert self._process is not None
        self._process.send_signal(signal.SIGSTOP)

    def _listens(self) -> bool:
        with socket.socket() as probe:
            probe.settimeout(1)
            return probe.connect_ex(("127.0.0.1", self.port)) == 0
