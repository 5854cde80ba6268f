"""The HTTP port: an ASGI application served by uvicorn on the loop of the gRPC server."""

from __future__ import annotations

import asyncio
import contextlib
import json
from typing import TYPE_CHECKING, Final, Protocol

import uvicorn
from starlette.applications import Starlette
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import BaseRoute, Mount, Route

if TYPE_CHECKING:
    import socket
    import ssl
    from collections.abc import Awaitable, Callable, Iterator

    from starlette.requests import Request
    from starlette.types import ASGIApp, Receive, Scope, Send

    from extauthz.readiness import Readiness

GRACE: Final = 2.0
"""Seconds for HTTP requests under way at the end."""


METRICS: Final = ("/metrics", "/_cerbos/metrics")
"""Where metrics are; the second is Cerbos's place."""


class Scrape(Protocol):
    """Writes the metrics."""

    async def __call__(self, accept: str, /) -> tuple[bytes, str]:
        """Return them, and their media type: one of those in *accept*, as far as it is known."""
        ...


async def _at_once() -> None:
    pass


def application(
    readiness: Readiness,
    rest: ASGIApp | None = None,
    scrape: Scrape | None = None,
    turn: Callable[[], Awaitable[None]] = _at_once,
) -> Starlette:
    """Make the application.

    ``/healthz`` answers 200 as long as the event loop turns, and *turn* returns: what answers calls has come
    to the next one. Restart the process when there is no answer.
    ``/readyz`` answers 200 when requests may come and 503 otherwise, with each part and its reason as JSON.
    *scrape* writes the metrics, if there are to be any. Everything else is *rest*'s.
    """

    async def healthz(_: Request) -> Response:
        await turn()
        return PlainTextResponse("ok\n", headers=_NOT_STORED)

    async def readyz(_: Request) -> Response:
        status = readiness()
        body = json.dumps(status.document(), indent=1, ensure_ascii=False) + "\n"
        return Response(
            body, status_code=200 if status.ready else 503, media_type="application/json", headers=_NOT_STORED
        )

    own: list[BaseRoute] = [Route("/healthz", healthz), Route("/readyz", readyz)]
    if scrape is not None:
        own += [Route(path, _metrics(scrape)) for path in METRICS]
    return Starlette(routes=own if rest is None else [*own, Mount("", app=rest)])


def _metrics(scrape: Scrape) -> Callable[[Request], Awaitable[Response]]:
    async def metrics(request: Request) -> Response:
        body, media_type = await scrape(request.headers.get("accept", ""))
        return Response(body, headers={**_NOT_STORED, "content-type": media_type})

    return metrics


async def not_found(scope: Scope, receive: Receive, send: Send) -> None:
    """Answer that there is nothing here."""
    await JSONResponse({"code": 5, "message": "Not Found"}, 404)(scope, receive, send)


async def unavailable(scope: Scope, receive: Receive, send: Send) -> None:
    """Answer that there will be something here."""
    await JSONResponse({"code": 14, "message": "the server is starting"}, 503)(scope, receive, send)


_NOT_STORED: Final = {"cache-control": "no-store"}


class _Uvicorn(uvicorn.Server):
    """uvicorn, without its hands on the signals: the process decides when to stop."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


class HttpServer:
    """The HTTP port of one process. The socket is the caller's and may be shared with other processes."""

    def __init__(
        self,
        app: ASGIApp,
        listener: socket.socket,
        *,
        tls: ssl.SSLContext | None = None,
        idle_timeout: float = 120.0,
    ) -> None:
        """*idle_timeout* is in seconds: how long a connection may be without a request."""
        config = uvicorn.Config(
            app,
            log_config=None,
            access_log=False,
            lifespan="off",
            proxy_headers=False,
            server_header=False,
            ws="none",
            timeout_keep_alive=max(1, round(idle_timeout)),
            timeout_graceful_shutdown=round(GRACE),
        )
        config.load()
        config.ssl = tls
        self._server = _Uvicorn(config)
        self._listener = listener
        self._serving: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Serve from now on, in a task of the running loop."""
        self._serving = asyncio.create_task(self._server.serve(sockets=[self._listener]))

    async def stop(self) -> None:
        """Close the port; requests under way have :data:`GRACE` seconds."""
        self._server.should_exit = True
        if self._serving is not None:
            await self._serving
