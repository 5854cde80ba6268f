"""A server to start in tests: the real process life around an authorizer made of a few lines.

Usage: ``python serving.py '{"settings": {...}, "pause": 0.5}'``: the ``server`` block of a configuration, and
beside it the :class:`Behaviour`. Every request is answered with ``<pid> <request>``, so that a test sees
which process answered.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
import sys
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from extauthz import logs
from extauthz.config import Server
from extauthz.envoy_worker import Program
from extauthz.figures import DECISIONS
from extauthz.hosted import Hosted, Loaded
from extauthz.readiness import Component, Status
from extauthz.server import serve

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from extauthz.figures import Figures


@dataclass
class Behaviour:
    """What the service does, as told by the test."""

    pause: float = 0.0
    """Seconds before an answer."""
    ready_after: float = 0.0
    ready: bool = True
    fail_build: bool = False
    start_takes: float = 0.0
    started: float = field(default_factory=time.monotonic)


def _raise(error: BaseException) -> Any:
    raise error


def _endless() -> Any:
    return _endless()


async def _raise_later() -> Any:
    raise ValueError("the database password is hunter2")


async def _cancelled() -> Any:
    raise asyncio.CancelledError


FAILURES: dict[bytes, Callable[[], Any]] = {
    b"raise": lambda: _raise(ValueError("the database password is hunter2")),
    b"raise later": _raise_later,
    b"exit of Python": lambda: _raise(SystemExit(7)),
    b"recursion": _endless,
    b"cancelled": _cancelled,
    b"empty": lambda: b"",
    b"None": lambda: None,
    b"text": lambda: "text",
    b"bytearray": lambda: bytearray(b"x"),
    b"empty later": lambda: asyncio.sleep(0, b""),
    b"None later": lambda: asyncio.sleep(0),
}
"""What an authorizer must never do, and what does it."""


class Echo:
    """An authorizer that obeys its requests."""

    def __init__(self, behaviour: Behaviour) -> None:
        self.behaviour = behaviour
        self.asked = 0
        """Requests that came, without those for the state."""
        self.cancelled = 0

    def check(self, request: bytes) -> bytes | Awaitable[bytes]:
        if request == b"state":
            return json.dumps({"asked": self.asked, "cancelled": self.cancelled}).encode()
        self.asked += 1
        if request in FAILURES:
            answer: bytes | Awaitable[bytes] = FAILURES[request]()
            return answer
        if request == b"exit":
            os._exit(3)
        if request in {b"ready", b"not ready"}:
            self.behaviour.ready = request == b"ready"
        if request == b"sleep":
            return self._later(request, 60)
        if request == b"later":
            return self._later(request, 0.01)
        if self.behaviour.pause:
            return self._later(request, self.behaviour.pause)
        return self._answer(request)

    async def _later(self, request: bytes, seconds: float) -> bytes:
        try:
            await asyncio.sleep(seconds)
        except asyncio.CancelledError:
            self.cancelled += 1
            raise
        return self._answer(request)

    def _answer(self, request: bytes) -> bytes:
        return b"%d %s" % (os.getpid(), request)


class EchoApp:
    def __init__(self, behaviour: Behaviour) -> None:
        if behaviour.fail_build:
            raise ValueError("policies are broken")
        self.behaviour = behaviour
        self.authorizer = Echo(behaviour)
        self.pdp = None

    def readiness(self) -> Status:
        since_start = time.monotonic() - self.behaviour.started
        ready = self.behaviour.ready and since_start >= self.behaviour.ready_after
        return Status((Component("policies", ready, "" if ready else "not loaded yet"),))

    def figures(self) -> Figures:
        return {DECISIONS: {("allow", "policy.allowed"): self.authorizer.asked}}

    def share_reloads(self, tell: Callable[[], None]) -> None:
        self.tell = tell

    async def start(self) -> None:
        await asyncio.sleep(self.behaviour.start_takes)

    async def reload(self) -> None:
        logging.getLogger("echo").info("told to reload", extra={"worker": os.getpid()})

    async def stop(self) -> None:
        logging.getLogger("echo").info("app stopped")


def loaded(text: str) -> Loaded:
    """Read the argument: what is served, and how."""
    argument = json.loads(text)
    settings = Server.model_validate(argument.pop("settings"))
    return Loaded(settings, lambda: EchoApp(Behaviour(**argument)))


def main(text: str) -> int:
    logs.configure(style="json")
    read = loaded(text)
    hosted = Program(app="tests.extauthz.serving:app", environment={ARGUMENT: text}, log_format="json")
    return serve(read.server, read.build, hosted)


ARGUMENT = "SERVING"
app = Hosted(lambda: loaded(os.environ[ARGUMENT]))
"""The same service, inside an Envoy."""


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
