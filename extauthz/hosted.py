"""extauthz inside an Envoy: what pyvoy imports there, and its life.

An Envoy with pyvoy's module starts Python, imports ``extauthz.hosted:app`` and calls it (ASGI). Two kinds of
Envoy do that: a worker of ``extauthz serve``, which was told its place by the process that started it
(:mod:`extauthz.envoy_worker`), and a gateway, which is its own master and leaves when it likes.

Envoy waits for the start (ASGI's lifespan) before it listens; a start that fails ends it. So no request is
ever answered by a service that is not there.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import logging
import os
import re
import signal
import socket
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import httpx
import orjson

from extauthz import logs
from extauthz.board import Board
from extauthz.certificates import Certificates
from extauthz.transport.address import Address, listen
from extauthz.transport.asgi import GrpcApplication, WithoutTask, task_unless_begun
from extauthz.transport.calls import QUIET, Options
from extauthz.transport.envoy import PYTHON
from extauthz.worker import Ports, StartError, Worker, explain

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

    from extauthz.config import Server
    from extauthz.readiness import Readiness
    from extauthz.transport.asgi import Receive, Scope, Send
    from extauthz.transport.calls import Authorizer, Services
    from extauthz.worker import App

    Load = Callable[[], "Loaded"]
    Answering = Coroutine[Any, Any, None] | WithoutTask

logger = logging.getLogger(__name__)

PLACE: Final = "EXTAUTHZ_PLACE"
"""Environment variable that holds a :class:`Place`, as JSON."""
CONFIG: Final = "EXTAUTHZ_CONFIG"

RELOAD: Final = b"r"
LEAVE: Final = b"l"
RELOADED: Final = b"\xff"
"""Says to the other process that policies were changed by hand: all workers are to reload."""

SETTLED: Final = 0.05
"""Seconds between two looks whether Envoy has sent all answers."""
LINGER: Final = 2.0
"""Seconds after the first GOAWAY in which clients close their connections; one without a request in all that
time hears of none, and is closed with the process."""
_ACTIVE: Final = re.compile(r"downstream_(cx|rq)_active: (\d+)")
ADMIN_TIMEOUT: Final = 5.0


@dataclass(frozen=True, slots=True)
class Place:
    """What a worker's Envoy is told by the process that started it; numbers are descriptors."""

    index: int
    workers: int
    board: int
    control: int
    """Says :data:`RELOAD` or :data:`LEAVE`, a second time for leave at once; the end says that the other
    process has gone. The exit code goes back."""
    http: int
    log: int
    admin: str
    """Path of the unix socket of Envoy's administration."""
    log_level: str
    log_format: str

    def write(self) -> str:
        """Write the value of the environment variable."""
        return orjson.dumps(self).decode()

    @classmethod
    def read(cls) -> Place | None:
        """Read the environment variable; None in an Envoy that nobody of ours has started."""
        text = os.environ.get(PLACE)
        return None if text is None else cls(**orjson.loads(text))


@dataclass(frozen=True, slots=True)
class Loaded:
    """A configuration, as far as this module needs it."""

    server: Server
    build: Callable[[], App]


class HostedPort:
    """The gRPC port of an Envoy, seen from inside it."""

    def __init__(self, application: GrpcApplication, admin: str | None) -> None:
        self.application = application
        self.service_names = application.service_names
        self.made = asyncio.Event()
        """Set when Envoy may begin to listen."""
        self._admin = admin
        self._at_once = asyncio.Event()

    @property
    def unanswered(self) -> int:
        """Calls under way now."""
        return self.application.unanswered

    async def turn(self) -> None:
        """Return at once: calls are answered on this very loop."""

    async def start(self) -> None:
        """Let Envoy listen; return when it does. In a gateway nobody can tell when."""
        self.made.set()
        if self._admin is None:
            return
        async with _administration(self._admin) as admin:
            while not await _listens(admin):
                await asyncio.sleep(SETTLED)

    async def drain(self, timeout: float) -> None:
        """Leave without losing a request, within *timeout* seconds, or at once when :meth:`stop` is called.

        As with grpcio, health says NOT_SERVING and answers tell Envoy that this host is going until it is
        quiet or half of the time has passed. Then Envoy sends GOAWAY with the next answer of each
        connection, in two steps (RFC 9113, 6.8), so that no request falls in between; what is under way
        gets the rest of the time.
        """
        loop = asyncio.get_running_loop()
        until = loop.time() + timeout
        self.application.leave()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout_at(until):
                await self._until_quiet(loop.time() + timeout / 2)
                self.application.end()  # whoever watches health is told, and holds nothing up
                await self._send_away()

    async def _until_quiet(self, deadline: float) -> None:
        loop = asyncio.get_running_loop()
        seen = -1
        while seen != self.application.received and loop.time() < deadline and not self._at_once.is_set():
            seen = self.application.received
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._at_once.wait(), min(QUIET, max(deadline - loop.time(), 0)))

    async def _send_away(self) -> None:
        if self._admin is None:
            return
        async with _administration(self._admin) as admin:
            await admin.post("/drain_listeners")  # whoever connects anew finds another process on the port
            await admin.post("/drain_listeners?graceful&skip_exit")  # from now on answers come with GOAWAY
            loop = asyncio.get_running_loop()
            idle_from = loop.time() + LINGER
            seen = -1
            while not self._at_once.is_set():
                active = await _active(admin)
                busy = seen != self.application.received or self.unanswered or active.get("rq", 0)
                if not busy and (not active.get("cx", 0) or loop.time() > idle_from):
                    return
                seen = self.application.received
                await asyncio.sleep(SETTLED)

    async def stop(self) -> None:
        """Wait no longer for answers."""
        self._at_once.set()


def _administration(path: str) -> httpx.AsyncClient:
    transport = httpx.AsyncHTTPTransport(uds=path)
    return httpx.AsyncClient(transport=transport, base_url="http://envoy", timeout=ADMIN_TIMEOUT)


async def _listens(admin: httpx.AsyncClient) -> bool:
    """Tell whether the Envoy around us has come up."""
    try:
        return (await admin.get("/ready")).status_code == httpx.codes.OK
    except httpx.TransportError:
        return False


async def _active(admin: httpx.AsyncClient) -> dict[str, int]:
    """Count requests (``rq``) and connections (``cx``) that Envoy still has; none when it does not answer."""
    try:
        stats = (
            await admin.get("/stats", params={"filter": r"^http\.grpc\.downstream_(cx|rq)_active$"})
        ).text
    except httpx.TransportError:
        return {}
    return {kind: int(count) for kind, count in _ACTIVE.findall(stats)}


class Hosted:
    """The ASGI application. *load* is called once, at the start."""

    _asgi_single_callable = True
    """Tells pyvoy that an instance is called with all three arguments, though it is no coroutine function."""

    def __init__(self, load: Load) -> None:
        self._load = load
        self._grpc: Callable[[Scope, Receive, Send], Answering] = _not_started
        self._port: HostedPort | None = None

    def __call__(self, scope: Scope, receive: Receive, send: Send) -> Answering:
        """Answer a call, or live (ASGI)."""
        if scope["type"] == "http":
            return self._grpc(scope, receive, send)
        return self._lifespan(receive, send)

    async def _lifespan(self, receive: Receive, send: Send) -> None:
        await receive()
        sys.executable = os.environ.get(PYTHON, sys.executable)
        place = Place.read()
        _log(place)
        try:
            living = await self._started(place)
        except Exception as error:
            explain(error)
            await send({"type": "lifespan.startup.failed", "message": "see above"})
            return
        await send({"type": "lifespan.startup.complete"})
        await receive()
        living.cancel()  # where it has ended already, this does nothing
        with contextlib.suppress(asyncio.CancelledError):
            await living
        await send({"type": "lifespan.shutdown.complete"})

    async def _started(self, place: Place | None) -> asyncio.Task[None]:
        """Start the service; return when Envoy may listen."""
        loaded = self._load()
        worker = self._worker(loaded, place)
        living = asyncio.create_task(_live(worker, place))
        while self._port is None or not self._port.made.is_set():
            if living.done():
                living.result()
                raise StartError("told to stop before it had started")
            await asyncio.wait({living}, timeout=0.01)
        return living

    def _worker(self, loaded: Loaded, place: Place | None) -> Worker:
        settings = loaded.server

        def grpc(authorizer: Authorizer, readiness: Readiness, services: Services | None) -> HostedPort:
            options = Options(max_receive_bytes=settings.advanced.grpc.max_recv_msg_size_bytes)
            application = GrpcApplication(authorizer, readiness, options=options, services=services)
            self._grpc = application.begin
            asyncio.get_running_loop().set_task_factory(task_unless_begun)  # type: ignore[arg-type]  # no task: pyvoy needs none
            self._port = HostedPort(application, None if place is None else place.admin)
            return self._port

        board = Board(1) if place is None else Board(place.workers, place.board)
        index = 0 if place is None else place.index
        tell = None if place is None else functools.partial(_tell_workers, place.control)
        return Worker(
            _ports(settings, place), loaded.build, board, index, grpc=grpc, leave_on=(), tell_workers=tell
        )


def _tell_workers(control: int) -> None:
    """Ask the process beside this Envoy to have all workers reload."""
    with contextlib.suppress(OSError):  # it is gone, and so are we soon
        os.write(control, RELOADED)


async def _not_started(scope: Scope, receive: Receive, send: Send) -> None:
    raise RuntimeError("a call before the start")


async def _live(worker: Worker, place: Place | None) -> None:
    """Let *worker* live its life; when it ends by itself, so does this Envoy."""
    if place is None:
        await worker.live()
        return
    control = socket.socket(fileno=place.control)
    control.setblocking(False)
    asyncio.get_running_loop().add_reader(control, _listen, control, worker)
    code = await worker.live()
    with contextlib.suppress(OSError):
        control.send(bytes([code]))
    os.kill(os.getpid(), signal.SIGTERM)


def _listen(control: socket.socket, worker: Worker) -> None:
    told = control.recv(16)
    for word in told:
        if word == RELOAD[0]:
            worker.reload()
        else:
            worker.leave()
    if not told:
        asyncio.get_running_loop().remove_reader(control)
        logger.error("the supervising process is gone: stopping")
        worker.leave()


def _ports(settings: Server, place: Place | None) -> Ports:
    tls = settings.tls
    certificates = None if tls is None else Certificates(tls.cert, tls.key, tls.ca_cert)
    if place is None:
        mode = settings.uds_file_mode
        http = listen(Address.parse(settings.http_listen_addr), mode=mode if isinstance(mode, int) else None)
        logger.info("inside a gateway", extra={"http": settings.http_listen_addr})
    else:
        http = socket.socket(fileno=place.http)
    return Ports(
        http,
        certificates,
        settings.drain_timeout.total_seconds(),
        settings.advanced.http.idle_timeout.total_seconds(),
        settings.metrics_enabled,
    )


def _log(place: Place | None) -> None:
    if place is None:
        level, style = (
            os.environ.get("EXTAUTHZ_LOG_LEVEL", "info"),
            os.environ.get("EXTAUTHZ_LOG_FORMAT", "auto"),
        )
        logs.configure(level=level, style=style)
        return
    # Standard error goes to the process that started us, which brings Envoy's lines into form; ours have it.
    stream = os.fdopen(place.log, "w", encoding="utf-8", buffering=1)
    logs.configure(level=place.log_level, style=place.log_format, stream=stream)


def _from_environment() -> Loaded:
    """Load the configuration file that the environment names."""
    # Here, not above: tests host services that need neither CEL nor Envoy's schemas.
    from extauthz.app import built  # noqa: PLC0415
    from extauthz.config import ConfigError, load  # noqa: PLC0415

    try:
        file = Path(os.environ[CONFIG])
    except KeyError:
        raise StartError(f"the environment variable `{CONFIG}` has to name the configuration file") from None
    try:
        loaded = load(file)
    except ConfigError as error:
        raise StartError(str(error)) from error
    for warning in loaded.warnings:
        logger.warning("%s", warning)
    return Loaded(loaded.config.server, lambda: built(loaded.config))


app: Final = Hosted(_from_environment)
