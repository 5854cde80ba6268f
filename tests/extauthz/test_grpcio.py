"""What is grpcio's own about the gRPC port; what both transports do is in test_grpc_contract.py."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from typing import TYPE_CHECKING, Any

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from extauthz.readiness import Status
from extauthz.transport.address import Address, ListenError
from extauthz.transport.calls import SERVICE, Options
from extauthz.transport.core import MAX_TAKEN, Core
from extauthz.transport.grpcio import GrpcServer, arguments

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable
    from pathlib import Path

METHOD = f"/{SERVICE}/Check"
LEAVING = ("x-envoy-immediate-health-check-fail", "true")


_HealthStub: Any = health_pb2_grpc.HealthStub  # its methods are not in the stubs


class Stub:
    """An authorizer made of one function."""

    def __init__(self, check: Callable[[bytes], bytes | Awaitable[bytes]]) -> None:
        self.check = check


class Serving:
    """A running server and a channel to it."""

    def __init__(self, server: GrpcServer, channel: grpc.aio.Channel) -> None:
        self.server = server
        self.channel = channel
        self.health = _HealthStub(channel)

    def ask(self, request: bytes = b"question", timeout: float = 5) -> grpc.aio.UnaryUnaryCall[bytes, bytes]:
        call: grpc.aio.UnaryUnaryMultiCallable[bytes, bytes] = self.channel.unary_unary(METHOD)
        return call(request, timeout=timeout)

    async def state(self, service: str = "") -> str:
        answer = await self.health.Check(health_pb2.HealthCheckRequest(service=service))
        return health_pb2.HealthCheckResponse.ServingStatus.Name(answer.status)


def ready() -> Status:
    return Status()


@contextlib.asynccontextmanager
async def serving(
    check: Callable[[bytes], bytes | Awaitable[bytes]],
    *,
    readiness: Callable[[], Status] = ready,
    options: Options | None = None,
) -> AsyncIterator[Serving]:
    server = GrpcServer(Stub(check), readiness, Address("127.0.0.1", 0), options=options)
    port = await server.start()
    try:
        async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
            yield Serving(server, channel)
    finally:
        await server.stop()


async def failure(call: Awaitable[object]) -> grpc.aio.AioRpcError:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call
    return caught.value


def echo(request: bytes) -> bytes:
    return b"answer to " + request


async def test_a_client_that_waits_no_longer_gets_no_ok() -> None:
    """A deadline that passes ends the check and is DEADLINE_EXCEEDED for the client."""
    cancelled = asyncio.Event()

    async def slow(_: bytes) -> bytes:
        try:
            await asyncio.sleep(30)
        except asyncio.CancelledError:
            cancelled.set()
            raise
        return b"too late"

    async with serving(slow) as it:
        assert (await failure(it.ask(timeout=0.1))).code() is grpc.StatusCode.DEADLINE_EXCEEDED
        await asyncio.wait_for(cancelled.wait(), 5)
        assert it.server.unanswered == 0


async def test_a_check_is_answered_beside_the_loop() -> None:
    """A check runs in the thread of the server, what is awaited for one on the loop."""
    threads: dict[bytes, int] = {}

    async def later(request: bytes) -> bytes:
        threads[request] = threading.get_ident()
        return echo(request)

    def check(request: bytes) -> bytes | Awaitable[bytes]:
        if request == b"later":
            return later(request)
        threads[request] = threading.get_ident()
        return echo(request)

    async with serving(check) as it:
        assert await it.ask(b"now") == b"answer to now"
        assert await it.ask(b"later") == b"answer to later"
    assert threads[b"later"] == threading.get_ident() != threads[b"now"]


async def test_a_check_that_hangs_is_seen() -> None:
    """``turn`` does not return while a check runs, so that ``/healthz`` has no answer; afterwards it does."""
    entered, release = threading.Event(), threading.Event()

    def hang(request: bytes) -> bytes:
        entered.set()
        release.wait(20)
        return echo(request)

    async with serving(hang) as it:
        await asyncio.wait_for(it.server.turn(), 5)
        call = it.ask(timeout=20)
        await asyncio.to_thread(entered.wait, 10)
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(it.server.turn(), 0.2)
        release.set()
        await asyncio.wait_for(it.server.turn(), 5)
        assert await call == b"answer to question"


async def test_a_thread_that_has_failed_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    """Should the server's thread fail, ``/healthz`` has no answer any more, and a stop does not wait."""
    monkeypatch.setattr(Core, "_handle_events", lambda _: 1 // 0)
    async with serving(echo) as it:
        await asyncio.to_thread(it.server._core.ended.wait, 5)
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(it.server.turn(), 0.2)
        await asyncio.wait_for(it.server.stop(), 5)


class Arrived:
    """A call to be answered, as far as that goes."""

    def __init__(self, begin: Callable[..., object]) -> None:
        self.call = self
        self.start_server_batch = begin


def test_an_answer_that_cannot_be_sent_keeps_no_other_from_going() -> None:
    """Of answers that go together one may fail: the others' clients wait, and the thread has to go on."""
    sent: list[object] = []
    core = Core((), on_call=sent.append, unary={})
    for begin in (lambda *begun: sent.append(begun), lambda *_: 1 / 0, lambda *begun: sent.append(begun)):
        core.answer(Arrived(begin), b"answer", None)
    core._send_answers()
    assert len(sent) == 2


def test_events_without_end_hold_no_answer_up() -> None:
    """Clients may send so much that there is always another event; an answer goes out nevertheless."""

    class Endless:
        completion_type = "an event"

        def poll(self, deadline: float | None = None) -> Endless:
            return self

    sent: list[object] = []
    core = Core((), on_call=sent.append, unary={})
    core._queue, core._expected = Endless(), 1
    core.answer(Arrived(lambda *begun: sent.append(begun)), b"answer", None)
    for _ in range(MAX_TAKEN):
        core._next_event()
        assert not sent
    core._next_event()
    assert len(sent) == 1


async def test_an_end_under_load_is_an_end() -> None:
    """A server that is stopped while calls come ends; each call has its own answer, or an error."""

    async def later(request: bytes) -> bytes:
        await asyncio.sleep(0)
        return echo(request)

    async def asking(it: Serving, number: int) -> None:
        while True:
            request = b"%d" % number
            try:
                assert await it.ask(request) == echo(request)
            except grpc.aio.AioRpcError:
                return
            number += 10

    def check(request: bytes) -> bytes | Awaitable[bytes]:
        return later(request) if request.endswith(b"1") else echo(request)

    for _ in range(20):
        async with serving(check) as it, asyncio.TaskGroup() as group:
            for number in range(10):
                group.create_task(asking(it, number))
            await asyncio.sleep(0.05)
            await asyncio.wait_for(it.server.stop(), 5)


async def test_an_authorizer_that_cancels_itself_gives_no_ok() -> None:
    """A CancelledError out of the authorizer never becomes an answer."""

    async def cancelled(_: bytes) -> bytes:
        raise asyncio.CancelledError

    async with serving(cancelled) as it:
        assert (await failure(it.ask())).code() is grpc.StatusCode.INTERNAL


async def test_health_survives_a_readiness_that_fails() -> None:
    """When the state cannot be found out, health says NOT_SERVING, and looks again."""
    broken = True

    def readiness() -> Status:
        if broken:
            raise ValueError("no state")
        return Status()

    async with serving(echo, readiness=readiness) as it:
        assert await it.state() == "NOT_SERVING"
        broken = False
        await until(it.state, "SERVING")


async def until(look: Callable[[], Awaitable[object]], wanted: object) -> None:
    async with asyncio.timeout(5):
        while await look() != wanted:
            await asyncio.sleep(0.05)


async def test_draining_answers_what_comes_and_what_is_under_way() -> None:
    """While it drains, a server answers old and new requests, and tells Envoy that it is going."""
    release = asyncio.Event()

    async def check(request: bytes) -> bytes:
        if request == b"slow":
            await release.wait()
        return echo(request)

    async with serving(check) as it:
        slow = it.ask(b"slow", timeout=20)
        assert LEAVING not in tuple(await it.ask().initial_metadata())
        draining = asyncio.create_task(it.server.drain(10))
        await until(it.state, "NOT_SERVING")
        new = it.ask()
        assert await new == b"answer to question"
        assert LEAVING in tuple(await new.initial_metadata())
        await asyncio.sleep(1.5)  # quiet: the clients have been told to go
        assert not draining.done()
        release.set()
        assert await slow == b"answer to slow"
        await asyncio.wait_for(draining, 5)


async def test_draining_ends_with_its_time() -> None:
    """What is not answered when the time to drain is over gets an error."""

    async def never(_: bytes) -> bytes:
        await asyncio.sleep(60)
        return b"never"

    async with serving(never) as it:
        call = it.ask(timeout=20)
        await asyncio.sleep(0.1)
        await asyncio.wait_for(it.server.drain(0.5), 5)
        assert (await failure(call)).code() in {grpc.StatusCode.CANCELLED, grpc.StatusCode.UNAVAILABLE}


async def test_watching_health_does_not_hold_a_server_up() -> None:
    """A client that watches health sees NOT_SERVING, then the end; the drain does not wait for it."""
    async with serving(echo) as it:
        seen: list[int] = []
        watch = it.health.Watch(health_pb2.HealthCheckRequest())

        async def look() -> None:
            async for answer in watch:
                seen.append(answer.status)  # noqa: PERF401  # the stream ends with an exception

        looking = asyncio.create_task(look())
        await asyncio.sleep(0.1)
        async with asyncio.timeout(5):
            await it.server.drain(10)
        assert (await failure(looking)).code() is grpc.StatusCode.UNAVAILABLE
        assert seen == [health_pb2.HealthCheckResponse.SERVING, health_pb2.HealthCheckResponse.NOT_SERVING]


async def test_a_unix_socket_is_served_with_its_mode(tmp_path: Path) -> None:
    """A unix socket answers like a port, and has the file mode that was asked for."""
    path = tmp_path / "check.sock"
    server = GrpcServer(Stub(echo), ready, Address(path=str(path)), socket_mode=0o660)
    await server.start()
    async with grpc.aio.insecure_channel(f"unix:{path}") as channel:
        assert await Serving(server, channel).ask() == b"answer to question"
    assert path.stat().st_mode & 0o777 == 0o660
    await server.stop()


async def test_an_address_that_cannot_be_had_is_refused_in_words(tmp_path: Path) -> None:
    """An address that gRPC cannot bind is a ListenError that names it."""
    server = GrpcServer(Stub(echo), ready, Address(path=str(tmp_path / "no" / "check.sock")))
    with pytest.raises(ListenError, match=r"cannot listen on `unix:.*check\.sock`"):
        await server.start()
    await server.stop()


def test_options_as_grpc_names_them() -> None:
    """Limits become channel arguments; a 0 that means "no limit" is left out."""
    written = dict(arguments(Options(max_concurrent_streams=0, max_connection_age=600)))
    assert written["grpc.max_connection_age_ms"] == 600_000
    assert written["grpc.so_reuseport"] == 1
    assert "grpc.max_concurrent_streams" not in written
