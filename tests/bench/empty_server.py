"""A transport and nothing else, the same bytes for all: ``python empty_server.py TRANSPORT PORT``."""

from __future__ import annotations

import asyncio
import signal
import sys
from typing import TYPE_CHECKING, Final

import grpc
import uvloop

from extauthz import wire
from extauthz.readiness import Status
from extauthz.response import Allow
from extauthz.transport.address import Address
from extauthz.transport.calls import SERVICE
from extauthz.transport.grpcio import GrpcServer

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping

ANSWER = wire.encode(Allow())
LISTENING = "listening"
"""Printed when requests may come."""


class Nothing:
    """An authorizer that does not look."""

    def check(self, request: bytes) -> bytes:
        """Answer."""
        return ANSWER


async def _ours(address: str) -> Callable[[], Awaitable[object]]:
    server = GrpcServer(Nothing(), Status, Address.parse(address))
    await server.start()
    return server.stop


async def _asyncio(address: str) -> Callable[[], Awaitable[object]]:
    async def check(request: bytes, context: object) -> bytes:
        return ANSWER

    server = grpc.aio.server(options=[("grpc.so_reuseport", 1)])
    method: grpc.RpcMethodHandler[bytes, bytes] = grpc.unary_unary_rpc_method_handler(check)
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(SERVICE, {"Check": method}),))
    server.add_insecure_port(address)
    await server.start()
    return lambda: server.stop(None)


OURS: Final = "ours"
ASYNCIO: Final = "asyncio"
TRANSPORTS: Final[Mapping[str, Callable[[str], Awaitable[Callable[[], Awaitable[object]]]]]] = {
    OURS: _ours,
    ASYNCIO: _asyncio,
}
"""Ours, and grpcio's own server as everybody can have it; each starts, and returns what ends it."""


async def main(transport: str, port: int) -> None:
    """Serve until SIGTERM."""
    leaving = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, leaving.set)
    end = await TRANSPORTS[transport](f"127.0.0.1:{port}")
    sys.stdout.write(f"{LISTENING}\n")
    sys.stdout.flush()
    await leaving.wait()
    await end()


if __name__ == "__main__":
    uvloop.run(main(sys.argv[1], int(sys.argv[2])))
