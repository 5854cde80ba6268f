"""What the calls of a gRPC port come to, whatever carries them: Check, services, health, reflection.

Nothing but an answer of the authorizer's, or of a service's, ends with the status OK.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from typing import TYPE_CHECKING, Any, Final, Protocol

from google.protobuf.message import DecodeError
from grpc_health.v1 import health_pb2

from extauthz.transport.calls import (
    CHECK_FAILED,
    HEALTH_INTERVAL,
    HEALTH_NAMES,
    HEALTH_SERVICE,
    LEAVING,
    SERVICE,
    Refusal,
    Services,
    is_ready,
)

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Iterator, Mapping

    from extauthz.readiness import Readiness
    from extauthz.transport.calls import Authorizer, Pairs, Procedure

    Handler = Callable[["Call"], Awaitable[None]]

logger = logging.getLogger(__name__)

CHECK_PATH: Final = f"/{SERVICE}/Check"

# Status codes (grpc/doc/statuscodes.md).
DEADLINE_EXCEEDED: Final = 4
NOT_FOUND: Final = 5
RESOURCE_EXHAUSTED: Final = 8
UNIMPLEMENTED: Final = 12
INTERNAL: Final = 13
UNAVAILABLE: Final = 14

FAILURES: Final = (Exception, asyncio.CancelledError, SystemExit, KeyboardInterrupt)
"""What must not end a call without an answer, nor what runs the calls, which nobody would start again."""


class ClientGone(Exception):  # noqa: N818  # it says what happened
    """The client does not wait for an answer any more."""


class Call(Protocol):
    """One call: what comes of it and what is answered."""

    path: str

    def metadata(self) -> Mapping[str, str]:
        """Return the metadata that came with the call, of repeated ones the last, and who it came from."""
        ...

    def time_left(self) -> float | None:
        """Return for how many seconds the client waits; None: for any time, or it leaves when it is over."""
        ...

    async def message(self) -> bytes:
        """Return the one message of a unary call.

        Raises:
            Refusal: there is none, or it cannot be read.
            ClientGone: before it was there.

        """
        ...

    def messages(self) -> AsyncGenerator[bytes]:
        """Read messages as they come, until the client has no more; raises as :meth:`message` does."""
        ...

    async def gone(self) -> None:
        """Return when the client has gone."""

    async def has_gone(self) -> bool:
        """Tell whether the client has gone, when it has sent all that it will."""
        ...

    async def answer(self, message: bytes, initial: Pairs) -> None:
        """Send the one answer of a unary call; *initial* is metadata that goes before it."""

    async def stream(self, message: bytes) -> None:
        """Send one of several answers; :meth:`end` or :meth:`refuse` has to follow."""

    async def end(self) -> None:
        """End the answers of :meth:`stream` well."""

    async def refuse(self, refusal: Refusal, initial: Pairs = ()) -> None:
        """End the call with an error."""


class Handlers:
    """How each call is answered. Make it and run calls on the same event loop."""

    def __init__(
        self, authorizer: Authorizer, readiness: Readiness, services: Services | None = None
    ) -> None:
        self._authorize = authorizer.check
        self._services = services or Services()
        self.service_names = (*HEALTH_NAMES, *self._services.procedures)
        """Of the health service; the empty one is the server."""
        self.received = 0
        """Calls that arrived since the start; health and reflection do not count."""
        self.unanswered = 0
        """Such calls under way now, without those that are answered at once."""
        self.leaving: Pairs = ()
        """Metadata that goes before every answer: that this host is going, when it is."""
        self._health = Health(self.service_names, readiness)
        self._handlers: dict[str, Handler] = dict(self._made_handlers())

    def _made_handlers(self) -> Iterator[tuple[str, Handler]]:
        yield CHECK_PATH, self._check
        yield f"/{HEALTH_SERVICE}/Check", self._health.check
        yield f"/{HEALTH_SERVICE}/Watch", self._health.watch
        for service, procedures in self._services.procedures.items():
            for name, procedure in procedures.items():
                yield f"/{service}/{name}", self._unary(procedure, self._services.metadata)
        yield from _reflection(self._services)

    async def run(self, call: Call, handler: Handler | None = None) -> None:
        """Answer *call* with what its path says, or with *handler*. Never raises."""
        try:
            await (handler or self._handlers.get(call.path, _unknown))(call)
        except Refusal as refusal:
            await call.refuse(refusal, self.leaving)
        except ClientGone:
            pass
        except FAILURES:
            logger.exception("a call failed; the client gets an error, not an answer")
            await call.refuse(Refusal(INTERNAL, "the call failed"), self.leaving)

    def later(self, answer: bytes | Awaitable[bytes]) -> Handler:
        """Make the handler of a Check that the authorizer was asked about and has not answered yet."""

        async def handle(call: Call) -> None:
            with self._under_way():
                told = await _told(call, answer)
            await call.answer(told, self.leaving)

        return handle

    async def _check(self, call: Call) -> None:
        request = await call.message()
        self.received += 1
        try:
            answer = self._authorize(request)
        except Exception:
            logger.exception("a check failed; the client gets an error, not an answer")
            raise Refusal(INTERNAL, CHECK_FAILED) from None
        await self.later(answer)(call)

    def _unary(self, procedure: Procedure, initial: Pairs) -> Handler:
        async def handle(call: Call) -> None:
            request = await call.message()
            self.received += 1
            with self._under_way():
                answer = await _waited(call, procedure(request, call.metadata))
            await call.answer(answer, (*initial, *self.leaving))

        return handle

    @contextlib.contextmanager
    def _under_way(self) -> Iterator[None]:
        self.unanswered += 1
        try:
            yield
        finally:
            self.unanswered -= 1

    def leave(self) -> None:
        """From now on tell Envoy with every answer that this host is going; health says NOT_SERVING."""
        self.leaving = LEAVING
        self._health.leave()

    def end(self) -> None:
        """Let those go who watch the health."""
        self._health.end()


async def _waited(call: Call, answering: Awaitable[bytes]) -> bytes:
    """Wait for an answer as long as the client does.

    Raises:
        Refusal: the deadline has passed first.
        ClientGone: the client has gone first.

    """
    answer, gone = asyncio.ensure_future(answering), asyncio.ensure_future(call.gone())
    try:
        await asyncio.wait({answer, gone}, timeout=call.time_left(), return_when=asyncio.FIRST_COMPLETED)
        if answer.cancelled():  # by itself: nobody else has
            logger.error("a call cancelled itself; the client gets an error, not an answer")
            raise Refusal(INTERNAL, CHECK_FAILED)
        if answer.done():
            return answer.result()
        if gone.done():
            raise ClientGone
        raise Refusal(DEADLINE_EXCEEDED, "the deadline has passed")
    finally:
        gone.cancel()
        answer.cancel()


async def _told(call: Call, answer: bytes | Awaitable[bytes]) -> bytes:
    """Wait for *answer*, if need be, and make sure that it is one: to Envoy an empty message is an ALLOW."""
    try:
        told: object = answer if isinstance(answer, bytes) else await _waited(call, answer)
    except (Refusal, ClientGone):
        raise
    except Exception:  # TypeError too: it is something else
        logger.exception("a check failed; the client gets an error, not an answer")
        raise Refusal(INTERNAL, CHECK_FAILED) from None
    if type(told) is bytes and told:
        return told
    logger.error("a check had no answer; the client gets an error")
    raise Refusal(INTERNAL, CHECK_FAILED)


async def _unknown(_: Call) -> None:
    raise Refusal(UNIMPLEMENTED, "method not found")


# --- health, reflection -----------------------------------------------------------------------------------


class Health:
    """``grpc.health.v1``."""

    def __init__(self, names: tuple[str, ...], readiness: Readiness) -> None:
        """*names* are the services whose state is told; the empty one is the server."""
        self._names = frozenset(names)
        self._readiness = readiness
        self._leaving = False
        self._ended = asyncio.Event()

    async def check(self, call: Call) -> None:
        """Tell the state of a service."""
        name = _asked(await call.message())
        if name not in self._names:
            raise Refusal(NOT_FOUND, "there is no service of that name")
        await call.answer(_state(self._state(name)), ())

    async def watch(self, call: Call) -> None:
        """Tell the state, and every change of it, until the client or the server goes."""
        name = _asked(await call.message())
        told = None
        while True:
            state = self._state(name)
            if state != told:
                await call.stream(_state(state))
                told = state
            if self._ended.is_set():
                raise Refusal(UNAVAILABLE, "the server is stopping")
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._ended.wait(), HEALTH_INTERVAL)
            if await call.has_gone():
                raise ClientGone

    def leave(self) -> None:
        """Say NOT_SERVING from now on."""
        self._leaving = True

    def end(self) -> None:
        """Let every watcher go."""
        self._ended.set()

    def _state(self, name: str) -> int:
        response = health_pb2.HealthCheckResponse
        if name not in self._names:
            return response.SERVICE_UNKNOWN
        return response.SERVING if not self._leaving and is_ready(self._readiness) else response.NOT_SERVING


def _asked(message: bytes) -> str:
    try:
        return health_pb2.HealthCheckRequest.FromString(message).service
    except DecodeError:
        raise Refusal(INTERNAL, "the message is not a HealthCheckRequest") from None


def _state(state: int) -> bytes:
    return health_pb2.HealthCheckResponse(status=state).SerializeToString()


def _reflection(services: Services) -> Iterator[tuple[str, Handler]]:
    """Let clients such as grpcurl ask what there is; only for services whose descriptors we have."""
    if services.pool is None:
        return
    from grpc_reflection.v1alpha import reflection, reflection_pb2  # noqa: PLC0415  # brings all of grpcio

    servicer = reflection.aio.ReflectionServicer(service_names=[*services.procedures], pool=services.pool)

    async def info(call: Call) -> None:
        requests = (_reflected(message) async for message in call.messages())
        answers: AsyncIterator[Any] = servicer.ServerReflectionInfo(requests, None)  # type: ignore[assignment]  # so it is
        async for response in answers:
            await call.stream(response.SerializeToString())
        await call.end()

    def _reflected(message: bytes) -> reflection_pb2.ServerReflectionRequest:
        try:
            return reflection_pb2.ServerReflectionRequest.FromString(message)
        except DecodeError:
            raise Refusal(INTERNAL, "the message is not a ServerReflectionRequest") from None

    yield f"/{reflection.SERVICE_NAME}/ServerReflectionInfo", info
