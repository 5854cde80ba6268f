"""An authorizer that fails in every way there is, to be held by a gateway or by a worker of its own.

``app`` is what pyvoy calls, as ``extauthz.hosted:app`` in earnest. What goes wrong is told by the request's
path; ``/ok`` is allowed.
"""

from __future__ import annotations

import asyncio
import os
import signal
import time
from typing import TYPE_CHECKING, Any

from extauthz import wire
from extauthz.config import Server
from extauthz.hosted import Hosted, Loaded
from extauthz.readiness import Status
from extauthz.response import Allow

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from extauthz.figures import Figures

PORT = "SABOTAGE_HTTP"
"""Environment variable: where the HTTP side listens."""


def _raise(error: BaseException) -> Any:
    raise error


async def _raise_later() -> bytes:
    raise ValueError


async def _never() -> bytes:
    await asyncio.sleep(600)
    return wire.encode(Allow())


FAULTS: dict[bytes, Callable[[], Any]] = {
    b"/raises": lambda: _raise(ValueError()),
    b"/raises-later": _raise_later,
    b"/exits": lambda: _raise(SystemExit(0)),
    b"/answers-nothing": lambda: b"",
    b"/answers-none": lambda: None,
    b"/answers-rubbish": lambda: b"\xff\xff\xff rubbish",
    b"/never-answers": _never,
    b"/stands-still": lambda: time.sleep(2.5),
}
DEATHS: dict[bytes, int] = {b"/is-killed": signal.SIGKILL, b"/crashes": signal.SIGSEGV}


class Saboteur:
    def check(self, request: bytes) -> bytes | Awaitable[bytes]:
        for path, number in DEATHS.items():
            if path in request:
                os.kill(os.getpid(), number)
                time.sleep(60)
        for path, fault in FAULTS.items():
            if path in request:
                answer: bytes | Awaitable[bytes] = fault()
                return answer
        return wire.encode(Allow()) if b"/ok" in request else b""


class SabotagedApp:
    authorizer = Saboteur()
    pdp = None

    def readiness(self) -> Status:
        return Status()

    def figures(self) -> Figures:
        return {}

    def share_reloads(self, tell: Callable[[], None]) -> None:
        pass

    async def start(self) -> None:
        pass

    async def reload(self) -> None:
        pass

    async def stop(self) -> None:
        pass


def loaded() -> Loaded:
    return Loaded(Server.model_validate({"httpListenAddr": os.environ[PORT]}), SabotagedApp)


app = Hosted(loaded)
