"""gRPC ``Authorization/Check``, ``grpc.health.v1`` and further services on grpcio's asyncio server.

Requests and answers pass as the bytes they are on the wire; grpcio never sees a message class.

Measured with h2load on two cores, an empty handler, 900-byte requests, CPU of the server for each request:
grpcio 1.85.1 on asyncio's own loop 425-505 us, on uvloop 350-405 us; its thread server 435 us with one thread
and 560 us with eight. ``grpc.minimal_stack``, ``grpc.http2.bdp_probe`` and methods registered with the core
changed less than the noise. On asyncio's loop grpcio 1.75.0 takes 290-325 us, 1.83.2 335-440 us and 1.85.1
425-505 us: grpc/grpc#43092 has the first part of that loss.
"""

from __future__ import annotations

import asyncio
import logging
import urllib.parse
from pathlib import Path
from typing import TYPE_CHECKING, Final

import grpc
from grpc_health.v1 import health, health_pb2
from grpc_reflection.v1alpha import reflection, reflection_pb2

from extauthz.transport.address import Address, listen_error
from extauthz.transport.calls import (
    CHECK_FAILED,
    HEALTH_INTERVAL,
    HEALTH_NAMES,
    HEALTH_SERVICE,
    LEAVING,
    PEER,
    QUIET,
    SERVICE,
    Options,
    Refusal,
    Services,
    is_ready,
)

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator, Mapping

    from extauthz.certificates import Certificates, Material
    from extauthz.readiness import Readiness
    from extauthz.transport.calls import Authorizer, Pairs, Procedure

    _Context = grpc.aio.ServicerContext[bytes, bytes]
    _HealthContext = grpc.aio.ServicerContext[health_pb2.HealthCheckRequest, health_pb2.HealthCheckResponse]

logger = logging.getLogger(__name__)

HOLD: Final = 0.05
"""Seconds that answers are held back, at most, around the GOAWAY. Envoy's default timeout is 0.2 s."""
SETTLED: Final = 0.01
"""Seconds without an arrival that end the hold early, and the time GOAWAY gets to reach the clients."""

_STATUS_CODES: Final = {code.value[0]: code for code in grpc.StatusCode}


def _metadata(context: _Context) -> Mapping[str, str]:
    """Return the metadata that came with a call, of repeated ones the last, and who it came from."""
    pairs = context.invocation_metadata() or ()
    return {name: value for name, value in pairs if isinstance(value, str)} | {PEER: _host(context.peer())}


def _host(peer: str) -> str:
    """Return the address in ``ipv4:192.0.2.1:5000`` or ``ipv6:[2001:db8::1]:5000``; none of unix sockets."""
    family, _, rest = urllib.parse.unquote(peer).partition(":")
    return rest.rpartition(":")[0].strip("[]") if family in {"ipv4", "ipv6"} else ""


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


class CheckService:
    """The calls of the port, and what has to be known to end them without losing a request."""

    def __init__(self, authorizer: Authorizer) -> None:
        self._check = authorizer.check
        self.received = 0
        """Calls that arrived since the start."""
        self.unanswered = 0
        """Calls under way now."""
        self._leaving = False
        self._held: asyncio.Event | None = None

    def procedure(
        self, procedure: Procedure, initial: Pairs
    ) -> Callable[[bytes, _Context], Awaitable[bytes]]:
        """Make a method of *procedure*; with each of its answers go the metadata *initial*."""

        async def answer(request: bytes, context: _Context) -> bytes:
            self.received += 1
            self.unanswered += 1
            try:
                answered = await procedure(request, lambda: _metadata(context))
                if self._held is not None:
                    await self._held.wait()
                await context.send_initial_metadata((*initial, *LEAVING) if self._leaving else initial)
            except Refusal as refusal:
                await context.abort(_STATUS_CODES[refusal.code], refusal.message, refusal.trailing)
                raise AssertionError from None  # abort has raised
            finally:
                self.unanswered -= 1
            return answered

        return answer

    async def check(self, request: bytes, context: _Context) -> bytes:
        """Answer one Check. What is not an answer of the authorizer's becomes a gRPC error, never an OK."""
        self.received += 1
        self.unanswered += 1
        try:
            answer = self._check(request)
            if not isinstance(answer, bytes):
                answer = await answer
            if self._leaving:
                await self._leave(context)
        except Exception:
            logger.exception("a check failed; the client gets an error, not an answer")
        else:
            if type(answer) is bytes and answer:
                return answer
            logger.error("a check had no answer; the client gets an error")
        finally:
            self.unanswered -= 1
        await context.abort(grpc.StatusCode.INTERNAL, CHECK_FAILED)
        raise AssertionError  # abort has raised

    async def _leave(self, context: _Context) -> None:
        if self._held is not None:
            await self._held.wait()
        await context.send_initial_metadata(LEAVING)

    def leave(self) -> None:
        """From now on tell Envoy with every answer that this host is going."""
        self._leaving = True

    def hold(self) -> None:
        """Keep answers back until :meth:`release`."""
        self._leaving = True
        self._held = asyncio.Event()

    def release(self) -> None:
        """Send what :meth:`hold` kept back."""
        if self._held is not None:
            self._held.set()


class HealthService(health.aio.HealthServicer):
    """``grpc.health.v1``: grpcio's own, except that watching ends when the server does."""

    def __init__(self, names: tuple[str, ...] = HEALTH_NAMES) -> None:
        """*names* are the services whose state is told; the empty one is the server."""
        super().__init__()
        self._names = names
        self._ended = asyncio.Event()

    async def Watch(  # noqa: N802  # the method's name in the protocol
        self, request: health_pb2.HealthCheckRequest, context: _HealthContext
    ) -> None:
        """Report every change until the client or the server goes; a stop must not wait for a watcher."""
        watching = asyncio.ensure_future(super().Watch(request, context))
        ended = asyncio.ensure_future(self._ended.wait())
        try:
            await asyncio.wait({watching, ended}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            ended.cancel()
            watching.cancel()
        await asyncio.gather(watching, return_exceptions=True)
        await context.abort(grpc.StatusCode.UNAVAILABLE, "the server is stopping")

    def end(self) -> None:
        """Let every watcher go."""
        self._ended.set()

    async def show(self, *, serving: bool) -> None:
        """Set the state of the server and of each service."""
        response = health_pb2.HealthCheckResponse
        for name in self._names:
            await self.set(name, response.SERVING if serving else response.NOT_SERVING)


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
        self.checks = CheckService(authorizer)
        served = services or Services()
        self.service_names = (*HEALTH_NAMES, *served.procedures)
        """Of the health service; the empty one is the server."""
        self._health = HealthService(self.service_names)
        self._readiness = readiness
        self._address = address
        self._certificates = certificates
        self._socket_mode = socket_mode
        self._watching: asyncio.Task[None] | None = None
        self._server = grpc.aio.server(options=arguments(options or Options()))
        self._server.add_generic_rpc_handlers(
            (
                _check_handler(self.checks),
                _health_handler(self._health),
                *_service_handlers(self.checks, served),
                *_reflection_handlers(served),
            )
        )

    @property
    def unanswered(self) -> int:
        """Calls under way now."""
        return self.checks.unanswered

    async def start(self) -> int:
        """Listen and serve; return the port (meaningless for a unix socket).

        Raises:
            ListenError: the address cannot be had.

        """
        await self._show_health()
        port = self._listen()
        await self._server.start()
        if self._socket_mode is not None and self._address.is_unix and not self._address.is_abstract:
            Path(self._address.path).chmod(self._socket_mode)
        self._watching = asyncio.create_task(self._watch_readiness())
        return port

    def _listen(self) -> int:
        target = self._address.grpc_target()
        try:
            if self._certificates is None:
                return self._server.add_insecure_port(target)
            return self._server.add_secure_port(target, credentials(self._certificates))
        except RuntimeError as error:
            raise listen_error(self._address, error) from error

    async def _watch_readiness(self) -> None:
        while True:
            await asyncio.sleep(HEALTH_INTERVAL)
            await self._show_health()

    async def _show_health(self) -> None:
        await self._health.show(serving=is_ready(self._readiness))

    async def drain(self, timeout: float) -> None:
        """Leave without losing a request, within *timeout* seconds.

        Health says NOT_SERVING and every answer tells Envoy that this host is going, while requests are
        answered as before: whoever routes to us (health checks, Kubernetes endpoints) has time to stop. When
        it is quiet, or half of the time has passed, clients get GOAWAY and what is under way gets the rest.
        """
        loop = asyncio.get_running_loop()
        until = loop.time() + timeout
        await self._stop_health()
        self.checks.leave()
        await self._until_quiet(QUIET, loop.time() + timeout / 2)
        # gRPC core drops, as CANCELLED, every request that comes between the start of its shutdown and the
        # client's receipt of GOAWAY (grpc/grpc#41785). Clients wait for answers before they ask again: with
        # answers held back for a moment hardly a request comes in that gap.
        self.checks.hold()
        self._health.end()
        await self._until_quiet(SETTLED, loop.time() + HOLD)
        loop.call_later(SETTLED, self.checks.release)
        await self._server.stop(max(until - loop.time(), SETTLED))

    async def _stop_health(self) -> None:
        if self._watching is not None:
            self._watching.cancel()
        await self._health.enter_graceful_shutdown()

    async def _until_quiet(self, span: float, deadline: float) -> None:
        """Return when no Check has arrived for *span* seconds, or at *deadline*."""
        loop = asyncio.get_running_loop()
        seen = -1
        while seen != self.checks.received and loop.time() < deadline:
            seen = self.checks.received
            await asyncio.sleep(min(span, max(deadline - loop.time(), 0)))

    async def stop(self) -> None:
        """End at once: requests under way get an error."""
        if self._watching is not None:
            self._watching.cancel()
        self._health.end()
        self.checks.release()
        await self._server.stop(None)


def _check_handler(service: CheckService) -> grpc.GenericRpcHandler:
    # Without serializers: bytes in, bytes out.
    check: grpc.RpcMethodHandler[bytes, bytes] = grpc.unary_unary_rpc_method_handler(service.check)
    return grpc.method_handlers_generic_handler(SERVICE, {"Check": check})


def _service_handlers(checks: CheckService, services: Services) -> Iterator[grpc.GenericRpcHandler]:
    for name, procedures in services.procedures.items():
        methods: dict[str, grpc.RpcMethodHandler[bytes, bytes]] = {
            method: grpc.unary_unary_rpc_method_handler(checks.procedure(procedure, services.metadata))
            for method, procedure in procedures.items()
        }
        yield grpc.method_handlers_generic_handler(name, methods)


def _reflection_handlers(services: Services) -> Iterator[grpc.GenericRpcHandler]:
    """Let clients such as grpcurl ask what there is; only for services whose descriptors we have."""
    if services.pool is None:
        return
    servicer = reflection.aio.ReflectionServicer(service_names=[*services.procedures], pool=services.pool)
    info = grpc.stream_stream_rpc_method_handler(
        servicer.ServerReflectionInfo,
        reflection_pb2.ServerReflectionRequest.FromString,
        reflection_pb2.ServerReflectionResponse.SerializeToString,
    )
    yield grpc.method_handlers_generic_handler(reflection.SERVICE_NAME, {"ServerReflectionInfo": info})


def _health_handler(service: HealthService) -> grpc.GenericRpcHandler:
    """Register by name only: methods registered with the core slow the main loop of grpcio 1.85 down."""
    decode, encode = (
        health_pb2.HealthCheckRequest.FromString,
        health_pb2.HealthCheckResponse.SerializeToString,
    )
    check = grpc.unary_unary_rpc_method_handler(service.Check, decode, encode)
    watch = grpc.unary_stream_rpc_method_handler(service.Watch, decode, encode)
    return grpc.method_handlers_generic_handler(HEALTH_SERVICE, {"Check": check, "Watch": watch})


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
