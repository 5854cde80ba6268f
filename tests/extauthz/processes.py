"""Servers of ``serving.py`` in processes of their own, for tests of what a serving process does."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self, TypeVar

import grpc
import httpx
from grpc_health.v1 import health_pb2, health_pb2_grpc

if TYPE_CHECKING:
    from collections.abc import Callable

METHOD = "/envoy.service.auth.v3.Authorization/Check"
ROOT = Path(__file__).parents[2]
Found = TypeVar("Found")
_HealthStub: Any = health_pb2_grpc.HealthStub  # its methods are not in the stubs


def waited(look: Callable[[], Found], seconds: float = 60) -> Found:
    """Look until there is something, and return it."""
    until = time.monotonic() + seconds
    while not (found := look()):
        assert time.monotonic() < until, f"waited {seconds} s in vain"
        time.sleep(0.02)
    return found


def children_of(pid: int) -> list[int]:
    """Find the processes that *pid* has started."""
    with contextlib.suppress(FileNotFoundError):
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text(encoding="ascii")
        return [int(child) for child in children.split()]
    return []


class Process:
    """A server of ``serving.py`` in a process of its own; its log is read as it comes."""

    def __init__(self, settings: dict[str, Any], behaviour: dict[str, Any]) -> None:
        arguments = json.dumps({"settings": settings, **behaviour})
        self.popen = subprocess.Popen(  # noqa: S603  # our own script
            [sys.executable, str(ROOT / "tests/extauthz/serving.py"), arguments],
            env={**os.environ, "PYTHONPATH": str(ROOT)},
            stderr=subprocess.PIPE,
            encoding="utf-8",
        )
        self.lines: list[dict[str, Any]] = []
        self._reading = threading.Thread(target=self._read, daemon=True)
        self._reading.start()

    def _read(self) -> None:
        assert self.popen.stderr is not None
        with self.popen.stderr as stream:
            for line in stream:
                self.lines.append(json.loads(line) if line.startswith("{") else {"message": line.strip()})

    def logged(self, text: str) -> dict[str, Any] | None:
        return next((line for line in self.lines if text in line["message"]), None)

    def wait_for_log(self, text: str) -> dict[str, Any]:
        found = waited(lambda: self.logged(text))
        assert found is not None
        return found

    @property
    def grpc(self) -> str:
        return str(self.wait_for_log("listening")["grpc"])

    @property
    def http(self) -> str:
        return f"http://{self.wait_for_log('listening')['http']}"

    def readiness(self) -> httpx.Response | None:
        with contextlib.suppress(httpx.TransportError):
            return httpx.get(f"{self.http}/readyz")
        return None

    def is_ready(self) -> bool:
        answer = self.readiness()
        return answer is not None and answer.status_code == 200

    def wait_until_ready(self) -> None:
        waited(self.is_ready)

    def signal(self, number: int = signal.SIGTERM) -> None:
        self.popen.send_signal(number)

    def exit_code(self) -> int:
        code = self.popen.wait(60)
        self._reading.join(5)
        return code

    def descendants(self) -> list[int]:
        """Find the processes that this one started, and those that they did."""
        children = children_of(self.popen.pid)
        return [*children, *(each for child in children for each in children_of(child))]

    def workers(self) -> list[int]:
        """Find the processes that answer: the last ones of the tree."""
        return [pid for pid in self.descendants() if not children_of(pid)] or [self.popen.pid]


class Start:
    """Starts servers and ends them with the test."""

    def __init__(self, transport: str) -> None:
        self.transport = transport
        self.running: list[Process] = []

    def __call__(
        self,
        grpc: str = "127.0.0.1:0",
        http: str = "127.0.0.1:0",
        *,
        workers: int = 1,
        drain: str = "4s",
        more: dict[str, Any] | None = None,
        **behaviour: Any,
    ) -> Process:
        """Start a server; *more* goes into the ``server`` block, *behaviour* see ``serving.py``."""
        settings = {
            "transport": self.transport,
            "grpcListenAddr": grpc,
            "httpListenAddr": http,
            "workers": workers,
            "drainTimeout": drain,
            **(more or {}),
        }
        process = Process(settings, behaviour)
        self.running.append(process)
        return process

    def end(self) -> None:
        for process in self.running:
            pids = process.descendants() if process.popen.poll() is None else []
            process.popen.kill()
            process.popen.wait(10)
            for pid in pids:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)


class Client:
    """Asks over connections of its own."""

    def __init__(self, address: str) -> None:
        self.channel = grpc.insecure_channel(address, options=[("grpc.use_local_subchannel_pool", 1)])
        self._check: grpc.UnaryUnaryMultiCallable[bytes, bytes] = self.channel.unary_unary(METHOD)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.channel.close()

    def ask(self, request: bytes = b"question") -> bytes:
        return self._check(request, timeout=10, wait_for_ready=True)

    def asking(self, request: bytes) -> grpc.Future[bytes]:
        return self._check.future(request, timeout=20, wait_for_ready=True)

    def health(self) -> str:
        answer = _HealthStub(self.channel).Check(health_pb2.HealthCheckRequest(), timeout=5)
        return health_pb2.HealthCheckResponse.ServingStatus.Name(answer.status)


def answering_process(answer: bytes) -> int:
    return int(answer.split()[0])
