"""The life of one serving process: start, serve, leave without losing a request."""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import gc
import logging
import os
import signal
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Protocol

import uvloop

from extauthz.board import Board, State
from extauthz.certificates import CertificateError, Certificates, server_context
from extauthz.export import Export, ExportError
from extauthz.readiness import Component, Status
from extauthz.tally import Tally
from extauthz.transport.address import ListenError
from extauthz.transport.http import HttpServer, application, not_found, unavailable

if TYPE_CHECKING:
    import socket

    from starlette.types import ASGIApp, Receive, Scope, Send

    from extauthz.figures import Figures
    from extauthz.readiness import Readiness
    from extauthz.transport.calls import Authorizer, Services

logger = logging.getLogger(__name__)

STATE_INTERVAL: Final = 0.25
"""Seconds between two looks at the own readiness for the other workers."""
APP_STOP: Final = 5.0
"""Seconds that the application has to close its files and connections."""


YOUNG: Final = 5_000
"""Allocations between two looks for garbage in cycles: few enough to be gone through in a millisecond or two.
A Check leaves none when all goes well."""


def _settle_memory() -> None:
    """Take what was loaded out of the sight of the collector, which would walk all of it again and again.

    It does not walk it now either: loading leaves nothing in cycles, and to find that out takes 0.7 s with
    10,000 policies.
    """
    _trim_heap()
    gc.freeze()
    gc.set_threshold(YOUNG, *gc.get_threshold()[1:])


def _trim_heap() -> None:
    """Give back what loading took and left: glibc keeps it otherwise, some 50 MiB after 10,000 policies."""
    with contextlib.suppress(OSError, AttributeError):  # another C library
        ctypes.CDLL(None).malloc_trim(0)


class PdpApi(Protocol):
    """The PDP API, for both ports."""

    def rpc(self) -> Services:
        """Return what the gRPC port serves."""
        ...

    def rest(self, health: Callable[[str], bool | None]) -> ASGIApp:
        """Make the application of the HTTP port; *health* tells the state of gRPC services by name."""
        ...


class StartError(Exception):
    """A part of the service cannot be had; worded for the person who can mend it."""


class GrpcPort(Protocol):
    """The gRPC port of one process, whatever serves it."""

    @property
    def service_names(self) -> tuple[str, ...]:
        """Of the health service; the empty one is the server."""
        ...

    @property
    def unanswered(self) -> int:
        """Calls under way now."""
        ...

    async def turn(self) -> None:
        """Return when what answers calls has done what it is doing now; never, if it hangs."""
        ...

    async def start(self) -> object:
        """Listen and serve; raises :class:`~extauthz.transport.address.ListenError`."""
        ...

    async def drain(self, timeout: float) -> None:
        """Leave without losing a request, within *timeout* seconds."""
        ...

    async def stop(self) -> None:
        """End at once: requests under way get an error."""
        ...


OpenGrpc = Callable[["Authorizer", "Readiness", "Services | None"], GrpcPort]
"""Makes the gRPC port, which is not listening yet."""


class App(Protocol):
    """The parts of the service that decide; made and started in the process that serves them."""

    @property
    def authorizer(self) -> Authorizer:
        """What answers requests."""
        ...

    @property
    def pdp(self) -> PdpApi | None:
        """The PDP API, when it is to be served."""
        ...

    def readiness(self) -> Status:
        """Tell the state of policies, key sets and sources."""
        ...

    def figures(self) -> Figures:
        """Tell what was counted since the start, and how things are now."""
        ...

    def share_reloads(self, tell: Callable[[], None]) -> None:
        """Call *tell* when policies were reloaded or changed here by hand: others beside us are to reload."""
        ...

    async def start(self) -> None:
        """Fetch and watch what has to be fetched and watched."""
        ...

    async def reload(self) -> None:
        """Read the policies again. Never raises."""
        ...

    async def stop(self) -> None:
        """Let go of everything."""
        ...


@dataclass(frozen=True, slots=True)
class Ports:
    """How a worker serves beside its gRPC port; the same for all workers."""

    http: socket.socket
    """Listening already; all workers accept from it."""
    certificates: Certificates | None = None
    drain_timeout: float = 30.0
    idle_timeout: float = 120.0
    """Seconds without a request after which an HTTP connection ends."""
    metrics: bool = True
    """Whether metrics can be asked for."""


class Worker:
    """One serving process. :meth:`run` is its life."""

    def __init__(
        self,
        ports: Ports,
        build: Callable[[], App],
        board: Board,
        index: int = 0,
        *,
        grpc: OpenGrpc,
        parent: int | None = None,
        leave_on: tuple[signal.Signals, ...] = (signal.SIGTERM, signal.SIGINT),
        tell_workers: Callable[[], None] | None = None,
    ) -> None:
        """*parent* is a file descriptor that ends (EOF) when the supervising process does.

        *tell_workers* lets all workers reload, where the process above this one is not the supervisor.
        """
        self._open_grpc = grpc
        self._ports = ports
        self._build = build
        self._board = board
        self._index = index
        self._tally = Tally(board, index, self._parts)
        self._export = Export(self._tally)
        self._parent = parent
        self._supervisor = None if parent is None else os.getppid()
        self._tell = tell_workers
        self._leave_on = leave_on
        self._app: App | None = None
        self._grpc: GrpcPort | None = None
        self._pdp_app: ASGIApp | None = None
        self._leaving = asyncio.Event()
        self._told_to_reload = asyncio.Event()
        self._at_once = asyncio.Event()

    def run(self) -> int:
        """Serve until a signal says stop; return the exit code: 0, or 1 when requests had to be cut off."""
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            return runner.run(self.live())

    def status(self) -> Status:
        """Tell the state of this process, and whether the workers beside it are ready."""
        parts = self._app.readiness().components if self._app is not None else ()
        return Status((*parts, self._own_component(), *self._board.others(self._index)))

    def _parts(self) -> Status:
        """Tell the state of this process, for metrics."""
        return Status((*self._own_status().components, self._own_component()))

    async def _turn(self) -> None:
        if self._grpc is not None:
            await self._grpc.turn()

    def _is_serving(self, service: str) -> bool | None:
        """Tell whether the gRPC service of that name may be asked; None when there is none."""
        if self._grpc is None or service not in self._grpc.service_names:
            return None if self._grpc is not None else False
        return self.status().ready

    def _own_component(self) -> Component:
        if self._leaving.is_set():
            return Component("server", ready=False, detail="is stopping")
        if self._grpc is None:
            return Component("server", ready=False, detail="is starting")
        return Component("server", ready=True)

    async def live(self) -> int:
        """Do what :meth:`run` does, on a loop that is there already."""
        self._listen_to_signals()
        http = self._http_server()
        http.start()
        beside = (asyncio.create_task(self._tell_others()), asyncio.create_task(self._reload_when_told()))
        try:
            if await self._started():
                await self._leaving.wait()
            self._board[self._index] = State.LEAVING
            return await self._leave()
        finally:
            for task in beside:
                task.cancel()
            await self._stop_app()
            self._tell_numbers()
            await self._export.stop()
            await http.stop()

    def _listen_to_signals(self) -> None:
        loop = asyncio.get_running_loop()
        for number in self._leave_on:
            loop.add_signal_handler(number, self.leave)
        if self._leave_on:
            loop.add_signal_handler(signal.SIGHUP, self.reload)
        if self._parent is not None:
            loop.add_reader(self._parent, self._on_parent_gone)

    def reload(self) -> None:
        """Read the policies again."""
        self._told_to_reload.set()

    def leave(self) -> None:
        """Stop when every request is answered; called again: stop at once."""
        if self._leaving.is_set():
            self._at_once.set()
        else:
            logger.info("stopping: requests under way are answered; a second signal ends at once")
            self._leaving.set()

    def _on_parent_gone(self) -> None:
        if self._parent is not None:
            asyncio.get_running_loop().remove_reader(self._parent)
        logger.error("the supervising process is gone: stopping")
        self._leaving.set()

    def _http_server(self) -> HttpServer:
        certificates = self._ports.certificates
        tls = None if certificates is None else server_context(certificates)
        scrape = self._export.scrape if self._ports.metrics else None
        app = application(self.status, self._rest, scrape, self._turn)
        return HttpServer(app, self._ports.http, tls=tls, idle_timeout=self._ports.idle_timeout)

    async def _rest(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve the PDP API over HTTP; before it is there, say so."""
        await (self._pdp_app or unavailable)(scope, receive, send)

    async def _started(self) -> bool:
        """Start, unless a signal comes first."""
        starting = asyncio.create_task(self._start())
        leaving = asyncio.create_task(self._leaving.wait())
        await asyncio.wait({starting, leaving}, return_when=asyncio.FIRST_COMPLETED)
        for task in (starting, leaving):
            if not task.done():
                task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await starting
        return self._grpc is not None

    async def _start(self) -> None:
        gc.disable()  # what is loaded is many objects, and no garbage
        try:
            await self._load()
        finally:
            gc.enable()
        self._show_state()

    async def _load(self) -> None:
        self._app = self._build()
        self._app.share_reloads(self._tell_workers)
        await self._app.start()
        self._tally.count(self._app.figures)
        self._start_pushing()
        pdp = self._app.pdp
        services = None if pdp is None else pdp.rpc()
        self._pdp_app = not_found if pdp is None else pdp.rest(self._is_serving)
        _settle_memory()
        server = self._open_grpc(self._app.authorizer, self._own_status, services)
        await server.start()
        self._grpc = server

    def _start_pushing(self) -> None:
        if self._index == 0:  # it speaks for all
            try:
                self._export.start_pushing()
            except ExportError as error:
                raise StartError(str(error)) from error

    def _tell_workers(self) -> None:
        """Let all workers reload, this one too, which finds nothing new then."""
        if self._tell is not None:
            self._tell()
        elif self._supervisor is not None and os.getppid() == self._supervisor:
            os.kill(self._supervisor, signal.SIGHUP)

    def _own_status(self) -> Status:
        """Tell the state for gRPC health: a connection is with this process alone."""
        return Status(self._app.readiness().components if self._app is not None else ())

    async def _tell_others(self) -> None:
        while True:
            await asyncio.sleep(STATE_INTERVAL)
            self._show_state()

    async def _reload_when_told(self) -> None:
        """Reload after SIGHUP; signals that come while policies are read are one more reload together."""
        while await self._told_to_reload.wait():
            self._told_to_reload.clear()
            if self._app is not None:
                await self._app.reload()

    def _show_state(self) -> None:
        if self._grpc is not None and not self._leaving.is_set():
            self._board[self._index] = State.READY if self._own_status().ready else State.WAITING
        self._tell_numbers()

    def _tell_numbers(self) -> None:
        """Let the others know what was counted here; nothing that goes wrong with it may do more harm."""
        try:
            self._tally.tell()
        except Exception:
            logger.exception("metrics of this worker stand still")

    async def _leave(self) -> int:
        """Drain the gRPC port; a second signal cuts that short."""
        if self._grpc is None:
            return 0
        draining = asyncio.create_task(self._grpc.drain(self._ports.drain_timeout))
        hurried = asyncio.create_task(self._at_once.wait())
        await asyncio.wait({draining, hurried}, return_when=asyncio.FIRST_COMPLETED)
        hurried.cancel()
        if draining.done():
            await draining
            return 0
        logger.warning("stopped at once", extra={"unanswered": self._grpc.unanswered})
        await self._grpc.stop()
        await draining
        return 1

    async def _stop_app(self) -> None:
        if self._app is None:
            return
        try:
            await asyncio.wait_for(self._app.stop(), APP_STOP)
        except Exception:
            logger.exception("a part of the service did not stop as it should")


def explain(error: Exception) -> None:
    """Say why the service could not start: in words, or with its traceback when it is a bug of ours."""
    if isinstance(error, StartError | ListenError | CertificateError):
        logger.critical("cannot start: %s", error)
    else:
        logger.critical("cannot start", exc_info=error)
