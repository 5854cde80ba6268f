"""The transport and nothing else: the same bytes for every request. ``python empty_server.py PORT``."""

from __future__ import annotations

import asyncio
import signal
import sys

import uvloop

from extauthz import wire
from extauthz.readiness import Status
from extauthz.response import Allow
from extauthz.transport.address import Address
from extauthz.transport.grpcio import GrpcServer

ANSWER = wire.encode(Allow())
LISTENING = "listening"
"""Printed when requests may come."""


class Nothing:
    """An authorizer that does not look."""

    def check(self, request: bytes) -> bytes:
        """Answer."""
        return ANSWER


async def main(port: int) -> None:
    """Serve until SIGTERM."""
    leaving = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, leaving.set)
    server = GrpcServer(Nothing(), Status, Address.parse(f"127.0.0.1:{port}"))
    await server.start()
    sys.stdout.write(f"{LISTENING}\n")
    sys.stdout.flush()
    await leaving.wait()
    await server.stop()


if __name__ == "__main__":
    uvloop.run(main(int(sys.argv[1])))
