"""gRPC ``Authorization/Check``, ``grpc.health.v1`` and further services on gRPC's core (:mod:`.core`).

Two threads share the work. A Check is answered in the thread of the server, unless something has to be
fetched for it. That, and every other call, goes to the event loop. Requests and answers pass as the bytes
that they are on the wire; gRPC never sees a message class.
"""

from __future__ import annotations

import asyncio
import logging
from pathlib import Path
from typing import TYPE_CHECKING, Final

import grpc

from extauthz.transport.address import Address, listen_error
from extauthz.transport.calls import CHECK_FAILED, QUIET, Options, Refusal, Services
from extauthz.transport.core import Core, CoreCall
from extauthz.transport.handlers import CHECK_PATH, FAILURES, INTERNAL, Handlers

if TYPE_CHECKING:
    from extauthz.certificates import Certificates, Material
    from extauthz.readiness import Readiness
    from extauthz.transport.calls import Authorizer, Pairs
    from extauthz.transport.core import Arrival
    from extauthz.transport.handlers import Handler

logger = logging.getLogger(__name__)

HOLD: Final = 0.05
"""Seconds that answers are held back, at most, around the GOAWAY. Envoy's default timeout is 0.2 s."""
SETTLED: Final = 0.01
"""Seconds without an arrival that end the hold early, and the time GOAWAY gets to reach the clients."""
LOOK: Final = 0.005
"""Seconds between two looks at the other thread."""


def arguments(options: Options) -> list[tuple[str, int]]:
    """Write the options as gRPC channel arguments (``grpc/impl/channel_arg_names.h``)."""
    named = {
        "grpc.so_reuseport": 1,
        "grpc.max_receive_message_length": options.max_receive_bytes,
        "grpc.max_concurrent_streams": options.max_concurrent_streams,
        "grpc.max_connection_age_ms": _milliseconds(options.max_connection_age),
        "grpc.max_connection_age_grace_ms": _milliseconds(options.max_connection_age_grace),
        "grpc.server_handshake_timeout_ms": _milliseconds(options.connection_timeout),
        "grpc.http2.min_ping_interval_without_data_ms": _milliseconds(options.min_ping_interval),
        "grpc.keepalive_permit_without_calls": 1,
    }
    return [(name, value) for name, value in named.items() if value > 0]


def _milliseconds(seconds: float) -> int:
    return min(round(seconds * 1000), 2**31 - 1)


class GrpcServer:
    """The gRPC port of one process. Make it, :meth:`start` it and :meth:`drain` it on the same event loop."""

    def __init__(
        self,
        authorizer: Authorizer,
        readiness: Readiness,
        address: Address,
        *,
        options: Options | None = None,
        certificates: Certificates | None = None,
        socket_mode: int | None = None,
        services: Services | None = None,
    ) -> None:
        self.calls = Handlers(authorizer, readiness, services)
        self._authorize = authorizer.check
        self._initial: Pairs | None = None
        """What goes before every answer to a Check."""
        self._address = address
        self._certificates = certificates
        self._socket_mode = socket_mode
        self._loop = asyncio.get_running_loop()
        self._running: set[asyncio.Task[None]] = set()
        self._core = Core(
            arguments(options or Options()), on_call=self._run_later, unary={CHECK_PATH: self._check}
        )

    @property
    def service_names(self) -> tuple[str, ...]:
        """Of the health service; the empty one is the server."""
        return self.calls.service_names

    @property
    def unanswered(self) -> int:
        """Calls under way now."""
        return self.calls.unanswered

    # --- calls --------------------------------------------------------------------------------------------

    def _check(self, arrival: Arrival, request: bytes) -> None:
        """Answer one Check, in the thread of the server.

        What is not an answer of the authorizer's becomes a gRPC error, never an OK.
        """
        self.calls.received += 1
        try:
            answer = self._authorize(request)
        except FAILURES:
            logger.exception("a check failed; the client gets an error, not an answer")
            self._core.refuse(arrival, Refusal(INTERNAL, CHECK_FAILED), self._initial)
            return
        if type(answer) is bytes and answer:
            self._core.answer(arrival, answer, self._initial)
        else:
            self._run_later(arrival, self.calls.later(answer))

    def _run_later(self, arrival: Arrival, handler: Handler | None = None) -> None:
        self._loop.call_soon_threadsafe(self._run, arrival, handler)

    def _run(self, arrival: Arrival, handler: Handler | None) -> None:
        call = CoreCall(self._core, arrival)
        task = self._loop.create_task(self.calls.run(call, handler), name=f"call of {call.path}")
        self._running.add(task)
        task.add_done_callback(self._running.discard)

    # --- life ---------------------------------------------------------------------------------------------

    async def start(self) -> int:
        """Listen and serve; return the port (meaningless for a unix socket).

        Raises:
            ListenError: the address cannot be had.

        """
        port = self._listen()
        self._core.start()
        if self._socket_mode is not None and self._address.is_unix and not self._address.is_abstract:
            Path(self._address.path).chmod(self._socket_mode)
        return port

    def _listen(self) -> int:
        certificates = self._certificates
        port = self._core.listen(
            self._address.grpc_target(), None if certificates is None else credentials(certificates)
        )
        if port == 0:
            raise listen_error(self._address, OSError("gRPC could not bind it"))
        return port

    async def drain(self, timeout: float) -> None:
        """Leave without losing a request, within *timeout* seconds.

        Health says NOT_SERVING and every answer tells Envoy that this host is going, while requests are
        answered as before: whoever routes to us (health checks, Kubernetes endpoints) has time to stop. When
        it is quiet, or half of the time has passed, clients get GOAWAY and what is under way gets the rest.
        """
        until = self._loop.time() + timeout
        self.calls.leave()
        self._initial = self.calls.leaving
        await self._until_quiet(QUIET, self._loop.time() + timeout / 2)
        # gRPC core drops, as CANCELLED, every request that comes between the start of its shutdown and the
        # client's receipt of GOAWAY (grpc/grpc#41785). Clients wait for answers before they ask again: with
        # answers held back for a moment hardly a request comes in that gap.
        self._core.hold()
        self.calls.end()
        await self._until_quiet(SETTLED, self._loop.time() + HOLD)
        self._loop.call_later(SETTLED, self._core.release)
        await self._end(max(until - self._loop.time(), SETTLED))

    async def turn(self) -> None:
        """Return when the thread of the server has done what it is doing now; never, if it has failed."""
        event = self._core.event
        while event is not None and self._core.event is event:
            await asyncio.sleep(LOOK)

    async def _until_quiet(self, span: float, deadline: float) -> None:
        """Return when no Check has arrived for *span* seconds, or at *deadline*."""
        seen = -1
        while seen != self.calls.received and self._loop.time() < deadline:
            seen = self.calls.received
            await asyncio.sleep(min(span, max(deadline - self._loop.time(), 0)))

    async def stop(self) -> None:
        """End at once: requests under way get an error."""
        self.calls.end()
        self._core.release()
        await self._end(0.0)

    async def _end(self, grace: float) -> None:
        """Give calls *grace* seconds to end, then cancel them."""
        self._core.shut_down()
        deadline = self._loop.time() + grace
        while not self._core.ended.is_set() and self._loop.time() < deadline:
            await asyncio.sleep(LOOK)
        self._core.cancel_calls()
        while not self._core.ended.is_set():
            await asyncio.sleep(LOOK)
        await asyncio.sleep(LOOK)  # what came last has begun then: it can be cancelled
        for task in self._running:
            task.cancel()
        await asyncio.gather(*self._running, return_exceptions=True)


def credentials(certificates: Certificates) -> grpc.ServerCredentials:
    """TLS, with the certificate that is current at each handshake; with a CA a client must show one too."""
    used = certificates.current()

    def changed() -> grpc.ServerCertificateConfiguration | None:
        nonlocal used
        material = certificates.current()
        if material is used:
            return None  # gRPC keeps what it has
        used = material
        return _configuration(material)

    return grpc.dynamic_ssl_server_credentials(
        _configuration(used),
        changed,  # type: ignore[arg-type]  # the stubs do not know that None means "as before"
        require_client_authentication=certificates.wants_client_certificate,
    )


def _configuration(material: Material) -> grpc.ServerCertificateConfiguration:
    return grpc.ssl_server_certificate_configuration(
        [(material.key, material.certificate)], root_certificates=material.client_ca
    )
