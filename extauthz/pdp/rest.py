"""The PDP API over HTTP: one ASGI application, as Cerbos's gateway answers.

What a client sends is bounded before anything is made of it, and every answer is JSON, refusals too: ``code``
(gRPC's number), ``message`` and perhaps ``details``.
"""

from __future__ import annotations

import asyncio
import logging
import urllib.parse
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from extauthz.pdp import protojson, query
from extauthz.pdp.apart import apart
from extauthz.pdp.cors import ASKED_METHOD
from extauthz.pdp.errors import Code, PdpError, invalid
from extauthz.pdp.method import Caller
from extauthz.pdp.schema import message_type

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping, MutableMapping

    from extauthz.pdp.cors import Cors
    from extauthz.pdp.method import Answer, Guard, Method

    Message = MutableMapping[str, Any]
    Receive = Callable[[], Awaitable[Message]]
    Send = Callable[[Message], Awaitable[None]]
    Page = tuple[bytes, Mapping[str, str]]
    """A body and its headers."""
    Health = Callable[[str], bool | None]
    """Whether a gRPC service (empty: all) may be asked; None when there is none of that name."""

logger = logging.getLogger(__name__)

HEALTH_PATH: Final = "/_cerbos/health"
LARGE: Final = 64 * 1024
"""Bytes from which on a body is read in a thread, so that others do not wait for it."""
JSON: Final = (b"content-type", b"application/json")
CHALLENGE: Final = (b"www-authenticate", b'Basic realm="admin", charset="UTF-8"')
NOT_STORED: Final = (b"cache-control", b"no-store")
"""What a GET answers depends on headers that a cache in between does not look at."""
DISABLED: Final = {
    "/admin/": "Admin service is disabled by the configuration",
    "/api/playground/": "Playground service is disabled by the configuration",
    "/api/explain/": "Explain service is disabled by the configuration",
}


@dataclass(frozen=True, slots=True)
class Limits:
    """What a client may take of us."""

    max_body_bytes: int = 4 * 1024 * 1024
    read_timeout: float = 30.0
    """Seconds for the body of a request; 0: as long as it takes."""


@dataclass(frozen=True, slots=True)
class Response:
    """An answer, ready to be sent."""

    status: int
    body: bytes
    headers: list[tuple[bytes, bytes]] = field(default_factory=lambda: [JSON])


class _Gone(Exception):  # noqa: N818  # it says what happened
    """The client has left."""


@dataclass(frozen=True, slots=True)
class _Request:
    """A request of which the body is still to come."""

    verb: str
    path: str
    query: Mapping[str, list[str]]
    headers: Mapping[str, str]
    tls: bool
    peer: str
    receive: Receive

    @property
    def caller(self) -> Caller:
        """Who asks."""
        return Caller(self.headers, self.tls, self.peer)

    @property
    def pretty(self) -> bool:
        """Whether the answer is for human eyes."""
        return "pretty" in self.query or self.headers.get("accept") == "application/json+pretty"


class Rest:
    """The application. *health* tells the state of services; *pages* are served to GET as they are."""

    def __init__(
        self,
        answers: Mapping[Method, Answer],
        *,
        health: Health,
        version: str,
        cors: Cors | None = None,
        limits: Limits | None = None,
        pages: Mapping[str, Page] | None = None,
        guards: Mapping[str, Guard] | None = None,
        refusals: Mapping[str, tuple[str, str]] | None = None,
    ) -> None:
        """Serve *answers*.

        *guards*: by service, who lets callers pass before the body is read; *refusals*: paths that have no
        answer, with their service and why.
        """
        self._health = health
        self._guards = guards or {}
        self._cors = cors
        self._limits = limits or Limits()
        self._version = [(b"grpc-metadata-cerbos-version", version.encode())]
        self._routes: dict[str, dict[str, Callable[[_Request], Awaitable[Response]]]] = {
            HEALTH_PATH: {"GET": self._state}
        }
        for method, answer in answers.items():
            call = self._call(method, answer)
            for verb, path in ((method.verb, method.path), *method.also):
                self._routes.setdefault(path, {})[verb] = call
        for path, page in (pages or {}).items():
            self._routes.setdefault(path, {})["GET"] = _page(page)
        for path, (service, message) in (refusals or {}).items():
            self._routes.setdefault(path, {})["GET"] = self._refuse(service, message)
        self._disabled = {
            prefix: message
            for prefix, message in DISABLED.items()
            if not any(path.startswith(prefix) for path in self._routes)
        }

    async def __call__(self, scope: MutableMapping[str, Any], receive: Receive, send: Send) -> None:
        """Answer one request (ASGI)."""
        if scope["type"] != "http":
            return
        request = _request(scope, receive)
        try:
            response = await self._response(request)
        except _Gone:
            return
        await _send(response, send)

    async def _response(self, request: _Request) -> Response:
        if self._cors is None:
            return await self._answer(request)
        if request.verb == "OPTIONS" and ASKED_METHOD in request.headers:
            return Response(204, b"", self._cors.preflight(request.headers))
        response = await self._answer(request)
        response.headers.extend(self._cors.answer(request.headers.get("origin")))
        return response

    async def _answer(self, request: _Request) -> Response:
        try:
            return await self._route(request)(request)
        except PdpError as error:
            return _refusal(error, pretty=request.pretty)
        except _Gone:
            raise
        except Exception:
            logger.exception("a call over HTTP failed")
            return _refusal(PdpError(Code.INTERNAL, "the call failed"), pretty=request.pretty)

    def _route(self, request: _Request) -> Callable[[_Request], Awaitable[Response]]:
        verbs = self._routes.get(request.path)
        if verbs is None:
            for prefix, message in self._disabled.items():
                if request.path.startswith(prefix):
                    raise PdpError(Code.UNIMPLEMENTED, message)
            raise PdpError(Code.NOT_FOUND, "Not Found")
        if request.verb not in verbs:
            raise PdpError(Code.UNIMPLEMENTED, "Method Not Allowed")
        return verbs[request.verb]

    # -- calls ---------------------------------------------------------------------------------------------

    def _call(self, method: Method, answer: Answer) -> Callable[[_Request], Awaitable[Response]]:
        headers = [JSON, *self._version, *([NOT_STORED] if method.verb == "GET" else [])]
        write = _written_in_thread if method.long else _written

        guard = self._guards.get(method.service)

        async def call(request: _Request) -> Response:
            if guard is not None:
                await guard(request.caller)
            message = await self._message(method, request)
            answered = await answer(message, lambda: request.caller)
            return Response(200, await write(answered, pretty=request.pretty), [*headers])

        return call

    def _refuse(self, service: str, message: str) -> Callable[[_Request], Awaitable[Response]]:
        async def refuse(request: _Request) -> Response:
            if service in self._guards:
                await self._guards[service](request.caller)
            raise PdpError(Code.UNIMPLEMENTED, message)

        return refuse

    async def _message(self, method: Method, request: _Request) -> Any:
        if method.in_query:
            return query.decode(method.request, request.query)
        body = b"" if method.verb == "GET" else await _body(request, self._limits)
        return await _decoded(method.request, body)

    async def _state(self, request: _Request) -> Response:
        (service,) = request.query.get("service", [""])[:1]
        serving = self._health(service)
        if serving is None:
            raise PdpError(Code.NOT_FOUND, "unknown service")
        if not serving:
            raise PdpError(Code.UNAVAILABLE, "status:NOT_SERVING")
        return Response(200, b'{"status":"SERVING"}\n')


def _page(page: Page) -> Callable[[_Request], Awaitable[Response]]:
    body, named = page
    headers = [(name.lower().encode(), value.encode()) for name, value in named.items()]

    async def show(_: _Request) -> Response:
        return Response(200, body, [*headers])

    return show


# --- requests ---------------------------------------------------------------------------------------------


def _request(scope: MutableMapping[str, Any], receive: Receive) -> _Request:
    asked = urllib.parse.parse_qs(
        scope["query_string"].decode("latin-1"), keep_blank_values=True, max_num_fields=None
    )
    headers = {name.decode("latin-1").lower(): value.decode("latin-1") for name, value in scope["headers"]}
    peer = (scope.get("client") or ("",))[0]
    return _Request(
        scope["method"], scope["path"], asked, headers, scope.get("scheme") == "https", peer, receive
    )


async def _body(request: _Request, limits: Limits) -> bytes:
    """Read the body; raises :class:`PdpError` when it is too large or takes too long."""
    announced = request.headers.get("content-length", "")
    if announced.isdigit() and len(announced) < 20:
        _check_size(int(announced), limits.max_body_bytes)
    try:
        async with asyncio.timeout(limits.read_timeout or None):
            return await _read(request.receive, limits.max_body_bytes)
    except TimeoutError:
        raise PdpError(Code.DEADLINE_EXCEEDED, "the body took too long to arrive") from None


async def _read(receive: Receive, most: int) -> bytes:
    chunks, size, more = [], 0, True
    while more:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise _Gone
        chunk = message.get("body", b"")
        size += len(chunk)
        _check_size(size, most)
        chunks.append(chunk)
        more = message.get("more_body", False)
    return b"".join(chunks)


def _check_size(size: int, most: int) -> None:
    if size > most:
        raise PdpError(Code.TOO_LARGE, f"grpc: received message larger than max ({size} vs. {most})")


async def _decoded(cls: type[Any], body: bytes) -> Any:
    try:
        if len(body) < LARGE:
            return protojson.decode(cls, body)
        return await apart(protojson.decode, cls, body)
    except protojson.FormatError as error:
        raise invalid(str(error)) from None


# --- responses --------------------------------------------------------------------------------------------


async def _written(message: Any, *, pretty: bool) -> bytes:
    return protojson.encode(message, pretty=pretty)


async def _written_in_thread(message: Any, *, pretty: bool) -> bytes:
    return await apart(protojson.encode, message, pretty=pretty)


def _refusal(error: PdpError, *, pretty: bool) -> Response:
    document: dict[str, Any] = {"code": error.code.number, "message": error.message}
    if error.details:
        document["details"] = [_detail(each) for each in error.details]
    headers = [JSON, (b"connection", b"close")] if error.code in _UNREAD else [JSON]
    if error.code is Code.UNAUTHENTICATED:
        headers.append(CHALLENGE)
    return Response(error.code.http_status, protojson.dump(document, pretty=pretty), headers)


def _detail(detail: Any) -> dict[str, Any]:
    full_name = message_type(type(detail)).full_name
    return {"@type": f"type.googleapis.com/{full_name}", **protojson.write(detail)}


_UNREAD: Final = frozenset({Code.TOO_LARGE, Code.DEADLINE_EXCEEDED})
"""Refusals by which part of a body was not read: what follows on the connection is no request."""


async def _send(response: Response, send: Send) -> None:
    headers = response.headers
    if response.status != 204:
        headers.append((b"content-length", str(len(response.body)).encode()))
    await send({"type": "http.response.start", "status": response.status, "headers": headers})
    await send({"type": "http.response.body", "body": response.body})
