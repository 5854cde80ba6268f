"""The whole service on loopback, in a thread of the tests: real configuration, ports and transports."""

from __future__ import annotations

import asyncio
import contextlib
import ssl
import threading
from dataclasses import dataclass
from typing import TYPE_CHECKING

import httpx
import uvloop

from extauthz import app, config
from extauthz.certificates import Certificates, server_context
from extauthz.transport.address import Address, listen
from extauthz.transport.calls import Options
from extauthz.transport.grpcio import GrpcServer
from extauthz.transport.http import HttpServer, application

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

MAX_MESSAGE = 4 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class Served:
    """Where the service is, as clients write it."""

    http: str
    """A base URL; over a unix socket the host in it means nothing."""
    http_socket: str | None
    """The path of the unix socket, if it is one."""
    grpc: str
    """A target of gRPC."""

    def client(self, *, ca: Path | None = None) -> httpx.Client:
        """Make a client of the HTTP port."""
        verify = False if ca is None else ssl.create_default_context(cafile=str(ca))
        transport = httpx.HTTPTransport(uds=self.http_socket, verify=verify)
        return httpx.Client(base_url=self.http, transport=transport, timeout=30)


class Running:
    """A service in its own thread, with its own event loop."""

    def __init__(
        self,
        text: str,
        environment: Mapping[str, str],
        *,
        sockets: Path | None = None,
        certificates: Certificates | None = None,
    ) -> None:
        """*sockets*: a directory for unix sockets, instead of ports."""
        self._settings = config.parse(text, "config.yaml", environment).config
        self._sockets = sockets
        self._certificates = certificates
        self._loop = uvloop.new_event_loop()
        self._ended: asyncio.Event | None = None
        self._ready = threading.Event()
        self._failure: BaseException | None = None
        self.served = Served("", None, "")
        self.app: app.App | None = None

    def start(self) -> None:
        """Serve, in a thread."""
        self._thread = threading.Thread(target=self._run, name="service")
        self._thread.start()
        self._ready.wait(60)
        if self._failure is not None:
            raise self._failure

    def stop(self) -> None:
        """End it, and wait until it has ended."""
        if self._ended is not None:
            self._loop.call_soon_threadsafe(self._ended.set)
        self._thread.join(60)

    def _run(self) -> None:
        try:
            self._loop.run_until_complete(self._live())
        except BaseException as error:
            self._failure = error
        finally:
            self._ready.set()
            self._loop.close()

    async def _live(self) -> None:
        self._ended = asyncio.Event()
        made = self.app = app.build(self._settings)
        await made.start()
        http, grpc = await self._serve(made)
        self._ready.set()
        await self._ended.wait()
        await grpc.stop()
        await http.stop()
        await made.stop()

    async def _serve(self, made: app.App) -> tuple[HttpServer, GrpcServer]:
        addresses = [self._address(name) for name in ("http", "grpc")]
        listener = listen(addresses[0])
        grpc = GrpcServer(
            made.authorizer,
            made.readiness,
            addresses[1],
            options=Options(),
            certificates=self._certificates,
            services=None if made.pdp is None else made.pdp.rpc(),
        )
        names = grpc.service_names
        rest = None if made.pdp is None else made.pdp.rest(lambda name: True if name in names else None)
        tls = None if self._certificates is None else server_context(self._certificates)
        http = HttpServer(application(made.readiness, rest), listener, tls=tls)
        http.start()
        port = await grpc.start()
        scheme = "http" if tls is None else "https"
        if self._sockets is not None:
            self.served = Served(f"{scheme}://localhost", addresses[0].path, f"unix:{addresses[1].path}")
        else:
            self.served = Served(
                f"{scheme}://localhost:{listener.getsockname()[1]}", None, f"localhost:{port}"
            )
        return http, grpc

    def _address(self, name: str) -> Address:
        if self._sockets is None:
            return Address.parse("127.0.0.1:0")
        return Address.parse(f"unix:{self._sockets / name}")


@contextlib.contextmanager
def running(
    text: str,
    environment: Mapping[str, str] | None = None,
    *,
    sockets: Path | None = None,
    certificates: Certificates | None = None,
) -> Iterator[Running]:
    """Serve what the configuration *text* says."""
    service = Running(text, environment or {}, sockets=sockets, certificates=certificates)
    service.start()
    try:
        yield service
    finally:
        service.stop()
