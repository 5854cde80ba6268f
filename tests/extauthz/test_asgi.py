"""The gRPC port as an ASGI application, for servers other than pyvoy; with pyvoy the contract tests run."""

from __future__ import annotations

import asyncio
from typing import Any

from extauthz.readiness import Status
from extauthz.transport.asgi import GrpcApplication
from extauthz.transport.handlers import CHECK_PATH


class Echo:
    """Answers every check with the question."""

    def check(self, request: bytes) -> bytes:
        return request


async def test_a_server_whose_send_has_to_be_awaited_sends_everything() -> None:
    """Start, message and trailers arrive in order where nothing is sent before it is awaited."""
    sent: list[Any] = []
    message = b"\0\0\0\0\x03abc"

    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": message, "more_body": False}

    async def send(event: Any) -> None:
        await asyncio.sleep(0)
        sent.append(event)

    scope = {
        "type": "http",
        "path": CHECK_PATH,
        "method": "POST",
        "headers": [(b"content-type", b"application/grpc"), (b"te", b"trailers")],
    }
    application = GrpcApplication(Echo(), Status)
    await application(scope, receive, send)
    assert [event["type"].rpartition(".")[2] for event in sent] == ["start", "body", "trailers"]
    assert sent[1]["body"] == message
    assert sent[2]["headers"] == [(b"grpc-status", b"0")]
