"""gRPC over ASGI, for a server that passes HTTP/2 trailers on: pyvoy, inside an Envoy.

The server speaks HTTP/2; what gRPC lays on top is done here: message frames, status and trailers, deadlines,
limits (grpc/doc/PROTOCOL-HTTP2.md). With pyvoy, a Check that is answered at once takes a short way with
nothing on it that can be left out, not even a task; everything else, refusals too, takes the general one.

Nothing but an answer of the authorizer's, or of a service's, ends with the status OK.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import logging
import re
import struct
import urllib.parse
from functools import partial
from typing import TYPE_CHECKING, Any, Final

from extauthz.transport.calls import CHECK_FAILED, LEAVING, PEER, Options, Refusal, Services
from extauthz.transport.handlers import (
    CHECK_PATH,
    DEADLINE_EXCEEDED,
    FAILURES,
    INTERNAL,
    RESOURCE_EXHAUSTED,
    UNIMPLEMENTED,
    ClientGone,
    Handlers,
)

if TYPE_CHECKING:
    from collections.abc import (
        AsyncGenerator,
        AsyncIterator,
        Awaitable,
        Callable,
        Coroutine,
        Mapping,
        MutableMapping,
    )

    from extauthz.readiness import Readiness
    from extauthz.transport.calls import Authorizer, Pairs
    from extauthz.transport.handlers import Handler

    Message = MutableMapping[str, Any]
    Scope = MutableMapping[str, Any]
    Receive = Callable[[], Awaitable[Message]]
    Send = Callable[[Message], Awaitable[None]]

logger = logging.getLogger(__name__)

GONE_INTERVAL: Final = 0.25
"""Seconds between two looks whether a client still waits for an answer that takes long. pyvoy tells only when
it is asked: as long as the client is there, ``receive`` gives the end of the request again and again."""

TOGETHER: Final = 8
"""Answers that are sent one after the other, so that Envoy's thread is woken once for them all. More of them
would have the two threads wait for each other."""

_PREFIX: Final = struct.Struct(">BI")
"""Of a message: whether it is compressed, and its length in bytes."""
_pack: Final = _PREFIX.pack
_CONTENT_TYPE: Final = (b"content-type", b"application/grpc")
_TRAILERS: Final = (b"te", b"trailers")
_CONTENT_TYPES: Final = frozenset({b"application/grpc", b"application/grpc+proto"})
_NO_COMPRESSION: Final = (("grpc-accept-encoding", "identity"),)
_SECONDS: Final = {b"H": 3600.0, b"M": 60.0, b"S": 1.0, b"m": 1e-3, b"u": 1e-6, b"n": 1e-9}
_TIMEOUT: Final = re.compile(rb"([0-9]{1,8})([HMSmun])")
_PLAIN: Final = "".join(chr(code) for code in range(0x20, 0x7F) if chr(code) != "%")
"""What stands for itself in ``grpc-message``."""


def _encoded(pairs: Pairs) -> list[tuple[bytes, bytes]]:
    """Write metadata as headers; binary values in base64 without padding."""
    return [
        (name.encode(), base64.b64encode(value).rstrip(b"=") if isinstance(value, bytes) else value.encode())
        for name, value in pairs
    ]


def _start(initial: Pairs) -> Message:
    return {
        "type": "http.response.start",
        "status": 200,
        "headers": [_CONTENT_TYPE, *_encoded(initial)],
        "trailers": True,
    }


def _body(message: bytes, *, more: bool = False) -> Message:
    framed = _pack(0, len(message)) + message
    return {"type": "http.response.body", "body": framed, "more_body": more}


_USUAL_START: Final = _start(())
_LAST_START: Final = _start(LEAVING)
_OK: Final = {"type": "http.response.trailers", "headers": [(b"grpc-status", b"0")]}


class GrpcApplication(Handlers):
    """The gRPC port, as an ASGI application. Make it and call it on the same event loop."""

    def __init__(
        self,
        authorizer: Authorizer,
        readiness: Readiness,
        *,
        options: Options | None = None,
        services: Services | None = None,
    ) -> None:
        super().__init__(authorizer, readiness, services)
        self._max_bytes = (options or Options()).max_receive_bytes
        self._start = _USUAL_START
        self._loop = asyncio.get_running_loop()
        self._expected = 0
        """Checks whose message has not come yet."""
        self._answers: list[tuple[Send, Message]] = []
        """To be sent, soon or with others."""
        self._tasks: set[asyncio.Task[None]] = set()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one call (ASGI, type ``http``), whatever server it is that asks."""
        await self._general(_Call(scope, receive, send, self._max_bytes))

    def begin(self, scope: Scope, receive: Receive, send: Send) -> Coroutine[Any, Any, None] | WithoutTask:
        """Answer one call of pyvoy's, on a loop whose tasks :func:`task_unless_begun` makes.

        pyvoy passes no coroutines: its ``send`` has sent when it returns, its ``receive`` has asked and gives
        a future. Only a request without a body it describes at once, as often as it is asked.
        """
        if scope["path"] == CHECK_PATH:
            receiving = receive()
            if isinstance(receiving, asyncio.Future):
                self._expected += 1
                receiving.add_done_callback(partial(self._received, scope, receive, send))
                return WITHOUT_TASK
        return self._general(_Call(scope, receive, send, self._max_bytes))

    def _received(
        self, scope: Scope, receive: Receive, send: Send, receiving: asyncio.Future[Message]
    ) -> None:
        """Answer a Check, of which a part or all has come."""
        self._expected -= 1
        event = receiving.result()
        frame: bytes = event.get("body", b"")
        size = len(frame) - 5
        headers = scope["headers"]
        # In line, as everything here: what nearly all requests are, a message in order and nothing after it.
        if (
            event.get("more_body")
            or not 0 <= size <= self._max_bytes
            or frame[:5] != _pack(0, size)
            or _CONTENT_TYPE not in headers
            or _TRAILERS not in headers
            or scope["method"] != "POST"
        ):
            self._go_on(self._general(_Call(scope, receive, send, self._max_bytes, event)))
            return
        self.received += 1
        try:
            answer = self._authorize(frame[5:])
        except FAILURES:
            logger.exception("a check failed; the client gets an error, not an answer")
            call = _Call(scope, receive, send, self._max_bytes)
            self._go_on(call.refuse(Refusal(INTERNAL, CHECK_FAILED), self.leaving))
            return
        if type(answer) is not bytes or not answer:
            call = _Call(scope, receive, send, self._max_bytes)
            self._go_on(self._general(call, self.later(answer)))
            return
        answers = self._answers
        answers.append((send, {"type": "http.response.body", "body": _pack(0, len(answer)) + answer}))
        if not self._expected or len(answers) == TOGETHER:
            self._send()
        elif len(answers) == 1:
            self._loop.call_soon(self._send)

    def _send(self) -> None:
        """Send what has been answered. There is nothing to wait for: of each body it is the only part."""
        start = self._start
        answers, self._answers = self._answers, []
        for send, body in answers:
            try:
                send(start)
                send(body)
                send(_OK)
            except Exception:  # the others are to have theirs
                logger.exception("an answer could not be sent")

    def _go_on(self, answering: Coroutine[Any, Any, None]) -> None:
        """Let a call that was begun without a task have one."""
        task = self._loop.create_task(answering)
        self._tasks.add(task)  # the loop would not keep it
        task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and task.exception() is not None:
            logger.warning("a call could not be answered: %r", task.exception())

    async def _general(self, call: _Call, handler: Handler | None = None) -> None:
        """Answer *call* with what its path says, or with *handler*, if it is one of gRPC's."""
        try:
            call.check_headers()
        except Refusal as refusal:
            await call.refuse(refusal, self.leaving)
        else:
            await self.run(call, handler)

    def leave(self) -> None:
        """From now on tell Envoy with every answer that this host is going; health says NOT_SERVING."""
        super().leave()
        self._start = _LAST_START


# --- a call without a task --------------------------------------------------------------------------------


class WithoutTask:
    """What stands for the task of a call that needs none, as far as pyvoy looks at it."""

    def add_done_callback(self, callback: object) -> None:
        """Forget *callback*: pyvoy would learn whether the call has failed, but we answer failures too."""


WITHOUT_TASK: Final = WithoutTask()


def task_unless_begun(
    loop: asyncio.AbstractEventLoop,
    answering: Coroutine[Any, Any, Any] | WithoutTask,
    **options: Any,
) -> asyncio.Task[Any] | WithoutTask:
    """Make the task of a coroutine; :meth:`GrpcApplication.begin` has none (a task factory of asyncio's).

    pyvoy gives whatever the application returns to ``loop.create_task``. A task is a coroutine, two turns of
    the loop and a callback more than a call needs that is answered at once.
    """
    if isinstance(answering, WithoutTask):
        return answering
    return asyncio.Task(answering, loop=loop, **options)


# --- a call -----------------------------------------------------------------------------------------------


class _NotGrpc(Refusal):
    """The request is not one of gRPC's, and its answer is one of plain HTTP."""


class _Call:
    """One call, in general: what came of it and what was answered so far."""

    def __init__(
        self, scope: Scope, receive: Receive, send: Send, max_bytes: int, first: Message | None = None
    ) -> None:
        """*first* is an event that was received already."""
        self.path: str = scope["path"]
        self._method = scope["method"]
        self._headers: dict[bytes, bytes] = dict(scope["headers"])
        self._peer: str = (scope.get("client") or ("",))[0]
        self._receive, self._send = receive, send
        self._max_bytes = max_bytes
        self._first = first
        self._deadline = self._read_deadline()
        self._started = False

    def _read_deadline(self) -> float | None:
        """Return the time until which the client waits; one that cannot be read is none."""
        found = _TIMEOUT.fullmatch(self._headers.get(b"grpc-timeout", b""))
        if found is None:
            return None
        return asyncio.get_running_loop().time() + int(found[1]) * _SECONDS[found[2]]

    def metadata(self) -> Mapping[str, str]:
        """Return the metadata that came with the call, of repeated ones the last, and who it came from."""
        found = {
            name.decode("latin-1"): value.decode("latin-1")
            for name, value in self._headers.items()
            if not name.endswith(b"-bin")
        }
        return found | {PEER: self._peer}

    def check_headers(self) -> None:
        """Make sure that this is a call of gRPC's.

        Raises:
            Refusal: it is not.

        """
        if self._method != "POST":
            raise _NotGrpc(405, "gRPC calls are POST requests")
        if self._headers.get(b"content-type", b"").split(b";")[0] not in _CONTENT_TYPES:
            raise _NotGrpc(415, "the content type has to be application/grpc")
        if self._headers.get(_TRAILERS[0]) != _TRAILERS[1]:
            raise Refusal(INTERNAL, "trailers do not reach the client: there is no `te: trailers`")

    # --- what comes ---------------------------------------------------------------------------------------

    async def message(self) -> bytes:
        """Return the one message of a unary call.

        Raises:
            Refusal: there is none, there are several, or it cannot be read.
            ClientGone: before it was there.

        """
        found: bytes | None = None
        async with contextlib.aclosing(self.messages()) as messages:
            async for message in messages:
                if found is not None:
                    raise Refusal(INTERNAL, "more than one message for a call that takes one")
                found = message
        if found is None:
            raise Refusal(INTERNAL, "no message")
        return found

    async def messages(self) -> AsyncGenerator[bytes]:
        """Read messages as they come, until the client has no more; raises as :meth:`message` does."""
        held = bytearray()
        async for part in self._parts():
            held += part
            while (size := self._size(held)) is not None and len(held) >= 5 + size:
                message = bytes(held[5 : 5 + size])
                del held[: 5 + size]
                yield message
        if held:
            raise Refusal(INTERNAL, "the request ends in the middle of a message")

    async def _parts(self) -> AsyncIterator[bytes]:
        while True:
            event = self._first or await self._in_time()
            self._first = None
            if event["type"] == "http.disconnect":
                raise ClientGone
            yield event.get("body", b"")
            if not event.get("more_body"):
                return

    async def _in_time(self) -> Message:
        try:
            async with asyncio.timeout_at(self._deadline):
                return await self._next()
        except TimeoutError:
            raise Refusal(DEADLINE_EXCEEDED, "the deadline has passed") from None

    def _size(self, held: bytearray) -> int | None:
        """Return the size of the first message in *held*; None when its frame has not come yet."""
        if len(held) < _PREFIX.size:
            return None
        compressed, size = _PREFIX.unpack_from(held)
        if compressed == 1:
            encoding = self._headers.get(b"grpc-encoding", b"identity")
            if encoding == b"identity":  # grpc/doc/compression.md, "Specification", on the test cases
                raise Refusal(INTERNAL, "a message is flagged as compressed, but no compression is named")
            raise Refusal(UNIMPLEMENTED, "compressed messages are not supported", _NO_COMPRESSION)
        if compressed:
            raise Refusal(INTERNAL, "malformed frame")
        if size > self._max_bytes:
            raise Refusal(RESOURCE_EXHAUSTED, f"the message is larger than {self._max_bytes} bytes")
        return int(size)

    # --- waiting ------------------------------------------------------------------------------------------

    def time_left(self) -> float | None:
        """Return for how many seconds the client waits; None: for any time."""
        return None if self._deadline is None else self._deadline - asyncio.get_running_loop().time()

    async def gone(self) -> None:
        """Return when the client has gone."""
        while not await self.has_gone():
            await asyncio.sleep(GONE_INTERVAL)

    async def has_gone(self) -> bool:
        """Tell whether the client has gone, when it has sent all that it will."""
        event = await self._next()
        return bool(event["type"] == "http.disconnect")

    async def _next(self) -> Message:
        """Receive; pyvoy's futures must not be cancelled, as it does not look before it sets a result."""
        return await asyncio.shield(asyncio.ensure_future(self._receive()))

    # --- what goes ----------------------------------------------------------------------------------------

    async def answer(self, message: bytes, initial: Pairs) -> None:
        """Send the one answer of a unary call."""
        await self._send(_start(initial))
        await self._send(_body(message))
        await self._send(_OK)

    async def stream(self, message: bytes) -> None:
        """Send one of several answers; :meth:`end` or :meth:`refuse` has to follow."""
        if not self._started:
            self._started = True
            await self._send(_start(()))
        await self._send(_body(message, more=True))

    async def end(self) -> None:
        """End the answers of :meth:`stream` well."""
        await self._ended([(b"grpc-status", b"0")])

    async def refuse(self, refusal: Refusal, initial: Pairs = ()) -> None:
        """End the call with an error; without an answer before, in one frame of headers ("Trailers-Only")."""
        if isinstance(refusal, _NotGrpc):
            await self._single(refusal.code, [(b"content-type", b"text/plain")], refusal.message.encode())
            return
        status = [
            (b"grpc-status", str(refusal.code).encode()),
            (b"grpc-message", urllib.parse.quote(refusal.message, safe=_PLAIN).encode()),
            *_encoded(refusal.trailing),
        ]
        if self._started:
            await self._ended(status)
        else:
            await self._single(200, [_CONTENT_TYPE, *_encoded(initial), *status], b"")

    async def _ended(self, status: list[tuple[bytes, bytes]]) -> None:
        await self._send({"type": "http.response.body", "body": b""})
        await self._send({"type": "http.response.trailers", "headers": status})

    async def _single(self, status: int, headers: list[tuple[bytes, bytes]], body: bytes) -> None:
        await self._send({"type": "http.response.start", "status": status, "headers": headers})
        await self._send({"type": "http.response.body", "body": body})
