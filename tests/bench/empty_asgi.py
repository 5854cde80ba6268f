"""Nothing on the transport ``envoy``: what pyvoy calls inside Envoy, the same bytes for every request."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from extauthz import wire
from extauthz.response import Allow

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, MutableMapping

    Message = MutableMapping[str, Any]

_ANSWER: Final = wire.encode(Allow())
_START: Final = {
    "type": "http.response.start",
    "status": 200,
    "headers": [(b"content-type", b"application/grpc")],
    "trailers": True,
}
_BODY: Final = {
    "type": "http.response.body",
    "body": b"\0" + len(_ANSWER).to_bytes(4, "big") + _ANSWER,
    "more_body": False,
}
_END: Final = {"type": "http.response.trailers", "headers": [(b"grpc-status", b"0")]}


async def app(
    scope: Message, receive: Callable[[], Awaitable[Message]], send: Callable[[Message], Awaitable[None]]
) -> None:
    """Answer one call, or the start and the end of the server (ASGI's lifespan)."""
    if scope["type"] == "lifespan":
        while (event := await receive())["type"] != "lifespan.shutdown":
            await send({"type": f"{event['type']}.complete"})
        await send({"type": "lifespan.shutdown.complete"})
        return
    await receive()
    await send(_START)
    await send(_BODY)
    await send(_END)
