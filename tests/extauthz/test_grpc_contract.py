"""What both gRPC transports do, asked by a real client: the server is a process, as it is in earnest."""

from __future__ import annotations

import json
import threading
from typing import TYPE_CHECKING, Any

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from tests.extauthz.processes import METHOD, Process, Start, waited
from tests.extauthz.raw_grpc import Answered, asked, begun, frame
from tests.extauthz.serving import FAILURES

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

LIMIT = 10_000
SERVICE = "envoy.service.auth.v3.Authorization"
OK = "0"

_HealthStub: Any = health_pb2_grpc.HealthStub  # its methods are not in the stubs


class Serving:
    """A running server, and a channel to it."""

    def __init__(self, process: Process, transport: str) -> None:
        self.process = process
        self.transport = transport
        self.address = process.grpc
        self.channel = grpc.insecure_channel(self.address, options=[("grpc.use_local_subchannel_pool", 1)])
        self.health = _HealthStub(self.channel)

    def call(self, request: bytes, timeout: float = 10) -> grpc.Future[bytes]:
        check: grpc.UnaryUnaryMultiCallable[bytes, bytes] = self.channel.unary_unary(METHOD)
        return check.future(request, timeout=timeout, wait_for_ready=True)

    def ask(self, request: bytes = b"question") -> bytes:
        """Ask; the answer, without the number of the process in it."""
        return self.call(request).result().split(b" ", 1)[1]

    def failure(self, request: bytes, timeout: float = 10) -> grpc.RpcError:
        error = self.call(request, timeout).exception()
        assert isinstance(error, grpc.RpcError)
        return error

    def counted(self, what: str) -> int:
        return int(json.loads(self.call(b"state").result())[what])

    def state(self, service: str = "") -> str:
        answer = self.health.Check(health_pb2.HealthCheckRequest(service=service), timeout=10)
        return health_pb2.HealthCheckResponse.ServingStatus.Name(answer.status)


@pytest.fixture(scope="module", params=["grpcio", "envoy"])
def it(request: pytest.FixtureRequest) -> Iterator[Serving]:
    """Serve with each of the transports."""
    start = Start(request.param)
    process = start(more={"advanced": {"grpc": {"maxRecvMsgSizeBytes": LIMIT}}})
    process.wait_until_ready()
    serving = Serving(process, request.param)
    yield serving
    serving.channel.close()
    start.end()


def test_the_answer_is_the_authorizers_bytes(it: Serving) -> None:
    """Request and answer travel as the bytes that they are."""
    assert it.ask(b"\x00\xff \r\n") == b"\x00\xff \r\n"


def test_an_answer_may_be_awaited(it: Serving) -> None:
    """An authorizer that has to wait returns an awaitable, and its answer is sent when it is there."""
    assert it.ask(b"later") == b"later"


def test_many_at_once(it: Serving) -> None:
    """Requests that are under way at the same time on one connection get each its own answer."""
    calls = {b"%d" % number: it.call(b"%d" % number) for number in range(200)}
    assert all(call.result().split()[1] == request for request, call in calls.items())


def test_a_call_that_says_nothing_holds_no_other_up(it: Serving) -> None:
    """Answers may go out together, but none waits for a message that does not come."""
    with begun(it.address):
        assert it.ask() == b"question"
        calls = [it.call(b"%d" % number) for number in range(3)]
        assert [call.result().split()[1] for call in calls] == [b"0", b"1", b"2"]


def test_a_check_that_fails_fails_alone(it: Serving) -> None:
    """Of many that are under way, those that have an answer get it, whatever happens to others."""
    calls = [it.call(b"raise" if number % 5 == 0 else b"%d" % number) for number in range(100)]
    outcomes = [call.exception() or call.result().split()[1] for call in calls]
    failed = [number for number, outcome in enumerate(outcomes) if isinstance(outcome, grpc.RpcError)]
    assert failed == list(range(0, 100, 5))
    assert all(outcomes[number] == b"%d" % number for number in range(100) if number % 5)


ONLY_ENVOY = pytest.mark.parametrize("it", ["envoy"], indirect=True, scope="module")
"""For what grpcio does not look at, or does in another way."""


@pytest.mark.parametrize("request_", sorted(FAILURES), ids=bytes.decode)
def test_what_is_not_an_answer_is_an_error(it: Serving, request_: bytes) -> None:
    """An exception or an empty answer of the authorizer's is a gRPC error that tells nothing, never an OK.

    A check that is cancelled, or that wants to end Python, is an error like any other.
    """
    lines = len(it.process.lines)
    error = it.failure(request_)
    assert (error.code(), error.details()) == (grpc.StatusCode.INTERNAL, "the check failed")
    waited(lambda: any(line["level"] == "error" for line in it.process.lines[lines:]))
    assert it.ask() == b"question", "the next one is answered"


def test_a_deadline_ends_the_check(it: Serving) -> None:
    """A deadline that passes ends the check and is DEADLINE_EXCEEDED for the client."""
    before = it.counted("cancelled")
    assert it.failure(b"sleep", timeout=0.2).code() is grpc.StatusCode.DEADLINE_EXCEEDED
    waited(lambda: it.counted("cancelled") == before + 1)


def test_a_client_that_leaves_ends_the_check(it: Serving) -> None:
    """A check whose client has gone does not run on."""
    before = it.counted("cancelled")
    arrived = it.counted("asked")
    call = it.call(b"sleep", timeout=60)
    waited(lambda: it.counted("asked") == arrived + 1)
    call.cancel()
    waited(lambda: it.counted("cancelled") == before + 1)


def test_a_request_above_the_limit_is_refused(it: Serving) -> None:
    """A message above ``maxRecvMsgSizeBytes`` does not reach the authorizer; one of that size does."""
    assert it.ask(b"x" * LIMIT)
    before = it.counted("asked")
    for size in (LIMIT + 1, 50 * LIMIT):
        assert it.failure(b"x" * size).code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert it.counted("asked") == before


@pytest.mark.parametrize("path", [f"/{SERVICE}/Other", "/other.Service/Check", f"/{SERVICE}/Check/", "/x"])
def test_other_methods_do_not_exist(it: Serving, path: str) -> None:
    """What is not served is UNIMPLEMENTED."""
    other: grpc.UnaryUnaryMultiCallable[bytes, bytes] = it.channel.unary_unary(path)
    with pytest.raises(grpc.RpcError) as caught:
        other(b"question", timeout=10)
    assert caught.value.code() is grpc.StatusCode.UNIMPLEMENTED


WRONG: dict[str, tuple[Callable[[str], Answered], str]] = {
    "no message": (lambda address: asked(address, b""), "13"),
    "no body": (asked, "13"),
    "half a frame": (lambda address: asked(address, b"\0\0\0"), "13"),
    "half a message": (lambda address: asked(address, frame(b"question", size=100)), "13"),
    "two messages": (lambda address: asked(address, frame(b"question"), frame(b"another")), "13"),
    "an unknown flag": (lambda address: asked(address, frame(b"question", flag=2)), "13"),
    "compressed by nothing": (lambda address: asked(address, frame(b"question", flag=1)), "13"),
    "compressed by something": (lambda address: with_headers(address, 1, {"grpc-encoding": "snappy"}), "12"),
    "no te: trailers": (lambda address: with_headers(address, 0, {"te": None}), "13"),
    "not gRPC": (lambda address: with_headers(address, 0, {"content-type": "text/plain"}), "HTTP 415"),
    "gRPC-Web": (
        lambda address: with_headers(address, 0, {"content-type": "application/grpc-web"}),
        "HTTP 415",
    ),
    "no content type": (lambda address: with_headers(address, 0, {"content-type": None}), "HTTP 415"),
    "GET": (lambda address: asked(address, frame(b"question"), method="GET"), "HTTP 405"),
}
"""Requests that break gRPC's rules, and how they are answered inside Envoy."""
LENIENT = {
    "two messages",
    "an unknown flag",
    "compressed by nothing",
    "no te: trailers",
    "not gRPC",
    "gRPC-Web",
    "no content type",
}
"""What grpcio does not look at."""


def with_headers(address: str, flag: int, headers: dict[str, str | None]) -> Answered:
    return asked(address, frame(b"question", flag=flag), headers=headers)


@pytest.mark.parametrize("name", sorted(WRONG.keys() - LENIENT))
def test_what_is_not_a_call_is_never_ok(it: Serving, name: str) -> None:
    """A request that breaks gRPC's rules does not reach the authorizer and is not answered with OK."""
    is_never_ok(it, name)


@ONLY_ENVOY
@pytest.mark.parametrize("name", sorted(LENIENT))
def test_inside_of_envoy_the_rules_are_kept_more_strictly(it: Serving, name: str) -> None:
    """What grpcio lets pass is refused as well."""
    is_never_ok(it, name)


def is_never_ok(it: Serving, name: str) -> None:
    send, status = WRONG[name]
    before = it.counted("asked")
    answered = send(it.address)
    assert answered.status != OK
    assert it.transport == "grpcio" or answered.outcome == status
    assert it.counted("asked") == before


@ONLY_ENVOY
def test_a_compressed_message_is_told_what_would_do(it: Serving) -> None:
    """Who compresses in a way that is not known hears which ways are (grpc/doc/compression.md)."""
    answered = with_headers(it.address, 1, {"grpc-encoding": "snappy"})
    assert "identity" in answered.headers["grpc-accept-encoding"]


def test_a_message_may_come_in_pieces(it: Serving) -> None:
    """How a request is cut into DATA frames does not matter."""
    framed = frame(b"question")
    answered = asked(it.address, *(framed[index : index + 1] for index in range(len(framed))), b"")
    assert (answered.status, answered.body[5:].split()[1]) == (OK, b"question")


def test_health_follows_readiness(it: Serving) -> None:
    """Health is SERVING for the server and for Authorization when all parts are ready, else NOT_SERVING."""
    it.ask(b"not ready")
    waited(lambda: it.state() == "NOT_SERVING")
    assert it.state(SERVICE) == "NOT_SERVING"
    it.ask(b"ready")
    waited(lambda: it.state() == "SERVING")
    assert it.state(SERVICE) == "SERVING"
    with pytest.raises(grpc.RpcError) as caught:
        it.state("other")
    assert caught.value.code() is grpc.StatusCode.NOT_FOUND


def test_health_can_be_watched(it: Serving) -> None:
    """Whoever watches the health sees the state and each change of it; a service that is not there too."""
    response = health_pb2.HealthCheckResponse
    watch = it.health.Watch(health_pb2.HealthCheckRequest(service=SERVICE), timeout=60)
    assert next(watch).status == response.SERVING
    it.ask(b"not ready")
    assert next(watch).status == response.NOT_SERVING
    it.ask(b"ready")
    assert next(watch).status == response.SERVING
    watch.cancel()
    other = it.health.Watch(health_pb2.HealthCheckRequest(service="other"), timeout=60)
    assert next(other).status == response.SERVICE_UNKNOWN
    other.cancel()


@pytest.mark.parametrize("transport", ["grpcio", "envoy"])
def test_a_connection_ends_at_its_age_and_no_request_with_it(transport: str) -> None:
    """After ``maxConnectionAge`` a client has to connect anew, and not one request is lost by that."""
    start = Start(transport)
    process = start(pause=0.02, more={"advanced": {"grpc": {"maxConnectionAge": "500ms"}}})
    try:
        process.wait_until_ready()
        serving = Serving(process, transport)
        renewed = threading.Event()
        states: list[grpc.ChannelConnectivity] = []

        def note(state: grpc.ChannelConnectivity) -> None:
            states.append(state)
            if states.count(grpc.ChannelConnectivity.READY) > 1:
                renewed.set()

        serving.channel.subscribe(note, try_to_connect=True)
        calls = 0
        while not renewed.is_set() and calls < 5000:
            for call in [serving.call(b"question") for _ in range(4)]:
                assert call.result().endswith(b"question")
                calls += 1
        assert renewed.is_set()
        serving.channel.close()
    finally:
        start.end()


def test_watching_health_does_not_hold_a_server_up() -> None:
    """A client that watches health sees NOT_SERVING, then the end; the drain does not wait for it."""
    start = Start("envoy")
    process = start(drain="20s")
    try:
        process.wait_until_ready()
        serving = Serving(process, "envoy")
        watch = serving.health.Watch(health_pb2.HealthCheckRequest(), timeout=60)
        response = health_pb2.HealthCheckResponse
        assert next(watch).status == response.SERVING
        process.signal()
        assert next(watch).status == response.NOT_SERVING
        with pytest.raises(grpc.RpcError) as caught:
            next(watch)
        assert caught.value.code() is grpc.StatusCode.UNAVAILABLE
        assert process.exit_code() == 0
        serving.channel.close()
    finally:
        start.end()
