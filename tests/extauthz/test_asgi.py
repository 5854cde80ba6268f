"""The gRPC port as an ASGI application, beside what the contract tests see of it through pyvoy."""

from __future__ import annotations

import asyncio
from typing import Any, Final

from extauthz.readiness import Status
from extauthz.transport.asgi import TOGETHER, WITHOUT_TASK, GrpcApplication, task_unless_begun
from extauthz.transport.handlers import CHECK_PATH

SCOPE: Final = {
    "type": "http",
    "path": CHECK_PATH,
    "method": "POST",
    "headers": [(b"content-type", b"application/grpc"), (b"te", b"trailers")],
}
MESSAGE: Final = b"\0\0\0\0\x03abc"


class Echo:
    """Answers every check with the question."""

    def check(self, request: bytes) -> bytes:
        return request


class Broken:
    """Fails at every check."""

    def check(self, request: bytes) -> bytes:
        raise SystemExit(3)


def _told(sent: list[Any]) -> list[str]:
    return [event["type"].rpartition(".")[2] for event in sent]


async def test_a_server_whose_send_has_to_be_awaited_sends_everything() -> None:
    """Start, message and trailers arrive in order where nothing is sent before it is awaited."""
    sent: list[Any] = []

    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": MESSAGE, "more_body": False}

    async def send(event: Any) -> None:
        await asyncio.sleep(0)
        sent.append(event)

    application = GrpcApplication(Echo(), Status)
    await application(SCOPE, receive, send)
    assert _told(sent) == ["start", "body", "trailers"]
    assert sent[1]["body"] == MESSAGE
    assert sent[2]["headers"] == [(b"grpc-status", b"0")]


class Begun:
    """A call as pyvoy makes one: its message comes when it is told to."""

    def __init__(self, application: GrpcApplication, *, failing: bool = False) -> None:
        self.sent: list[Any] = []
        self._failing = failing
        self._coming: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self.answering = application.begin(SCOPE, self._receive, self._send)

    def come(self, message: bytes = MESSAGE) -> None:
        """Let the message come."""
        self._coming.set_result({"type": "http.request", "body": message, "more_body": False})

    def _receive(self) -> asyncio.Future[Any]:
        return self._coming

    def _send(self, event: Any) -> Any:
        if self._failing:
            raise OSError("gone")
        self.sent.append(event)
        done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        done.set_result(None)
        return done


async def _turns() -> None:
    for _ in range(5):
        await asyncio.sleep(0)


async def test_answers_do_not_wait_for_a_message_that_does_not_come() -> None:
    """A call that was begun and says nothing holds nobody up, however few the answers are."""
    application = GrpcApplication(Echo(), Status)
    silent, other = Begun(application), Begun(application)
    other.come()
    await _turns()
    assert _told(other.sent) == ["start", "body", "trailers"]
    assert silent.sent == []


async def test_answers_that_are_sent_together_are_each_sent_whole() -> None:
    """More calls than go together, their messages all there in one turn: each gets its own answer, once."""
    application = GrpcApplication(Echo(), Status)
    calls = [Begun(application) for _ in range(2 * TOGETHER + 1)]
    for number, call in enumerate(calls):
        call.come(b"\0\0\0\0\1" + bytes([number]))
    await _turns()
    assert [_told(call.sent) for call in calls] == [["start", "body", "trailers"]] * len(calls)
    assert [call.sent[1]["body"][5] for call in calls] == list(range(len(calls)))


async def test_an_answer_that_cannot_be_sent_keeps_no_other_from_going() -> None:
    """Of answers that go together one may fail: its client has gone, the others' clients wait."""
    application = GrpcApplication(Echo(), Status)
    calls = [Begun(application, failing=number == 1) for number in range(3)]
    for call in calls:
        call.come()
    await _turns()
    assert [len(call.sent) for call in calls] == [3, 0, 3]


async def test_a_check_that_fails_is_answered_though_it_has_no_task() -> None:
    """The client hears INTERNAL, whatever the authorizer raises; so do those who come after it."""
    application = GrpcApplication(Broken(), Status)
    calls = [Begun(application), Begun(application)]
    for call in calls:
        call.come()
    await _turns()
    for call in calls:
        assert (b"grpc-status", b"13") in call.sent[0]["headers"]


async def test_only_what_has_begun_without_a_task_goes_without_one() -> None:
    """The loop makes tasks of coroutines as ever, with their names."""
    asyncio.get_running_loop().set_task_factory(task_unless_begun)  # type: ignore[arg-type]  # see hosted.py
    task = asyncio.create_task(asyncio.sleep(0, "done"), name="mine")
    assert await task == "done"
    assert task.get_name() == "mine"
    begun = Begun(GrpcApplication(Echo(), Status))
    assert asyncio.get_running_loop().create_task(begun.answering) is WITHOUT_TASK  # type: ignore[arg-type,comparison-overlap]  # as pyvoy does
