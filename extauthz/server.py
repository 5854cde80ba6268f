"""From settings to a serving process, or several.

With one worker this process serves. With more it only supervises, and the workers share its ports: each
listens on the gRPC address with ``SO_REUSEPORT``, so that the kernel spreads connections, and all accept from
one HTTP socket. Whichever worker a probe of ``/readyz`` reaches answers for all (:mod:`extauthz.board`).
"""

from __future__ import annotations

import functools
import logging
import signal
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from extauthz import envoy_worker
from extauthz.board import Board
from extauthz.certificates import CertificateError, Certificates
from extauthz.envoy_worker import Plan, Program
from extauthz.supervisor import Supervisor
from extauthz.transport import envoy
from extauthz.transport.address import Address, AddressError, ListenError, Reservation, listen, reserve
from extauthz.transport.calls import Options
from extauthz.transport.grpcio import GrpcServer
from extauthz.worker import Ports, Worker, explain

if TYPE_CHECKING:
    import socket
    from collections.abc import Callable

    from extauthz.config import Server
    from extauthz.readiness import Readiness
    from extauthz.transport.calls import Authorizer, Services
    from extauthz.worker import App, OpenGrpc

logger = logging.getLogger(__name__)

CANNOT_START: Final = 1
"""Exit code when an address, a certificate or a part of the service is not to be had."""


@dataclass(frozen=True, slots=True)
class _Opened:
    """What is opened once, before there are workers."""

    grpc: Reservation
    http: socket.socket
    certificates: Certificates | None
    board: Board


def serve(settings: Server, build: Callable[[], App], hosted: Program | None = None) -> int:
    """Serve until SIGTERM or SIGINT; return the exit code.

    *build* makes the service, once in each worker; with the transport `envoy`, *hosted* tells what does.
    0: stopped without losing a request. 1: could not start, or was told twice to stop and cut requests off.
    """
    try:
        if settings.transport == "envoy":
            envoy.look_for_it()
        opened = _open(settings)
        run = (
            functools.partial(_run_worker, settings, opened, build)
            if settings.transport == "grpcio"
            else functools.partial(_run_envoy, _plan(settings, opened, hosted or Program()))
        )
    except (AddressError, ListenError, CertificateError, envoy.MissingError) as error:
        logger.critical("cannot start: %s", error)
        return CANNOT_START
    if opened.grpc.shared:
        logger.warning("another process shares `%s`: it gets some of the requests", opened.grpc.address)
    if settings.workers == 1 and settings.transport == "grpcio":
        return run(0, None)
    supervisor = Supervisor(
        settings.workers, run, opened.board, drain_timeout=settings.drain_timeout.total_seconds()
    )
    return supervisor.run()


def _open(settings: Server) -> _Opened:
    grpc = Address.parse(settings.grpc_listen_addr)
    http = Address.parse(settings.http_listen_addr)
    if grpc.is_unix and settings.workers > 1:
        raise ListenError(
            f"cannot listen on `{grpc}` with {settings.workers} workers, as a unix socket has one process: "
            "set `workers: 1`, or listen on a port"
        )
    certificates = _certificates(settings)
    held = reserve(grpc)
    listener = listen(http, mode=_socket_mode(settings))
    logger.info(
        "listening",
        extra={"grpc": str(held.address), "http": _bound_to(http, listener), "workers": settings.workers},
    )
    return _Opened(held, listener, certificates, Board(settings.workers))


def _certificates(settings: Server) -> Certificates | None:
    tls = settings.tls
    return None if tls is None else Certificates(tls.cert, tls.key, tls.ca_cert)


def _socket_mode(settings: Server) -> int | None:
    mode = settings.uds_file_mode
    return mode if isinstance(mode, int) else None


def _bound_to(address: Address, listener: socket.socket) -> str:
    return str(address if address.is_unix else address.with_port(listener.getsockname()[1]))


def _run_worker(
    settings: Server, opened: _Opened, build: Callable[[], App], index: int, parent: int | None
) -> int:
    """Be a worker; *parent* is None when there is no supervisor."""
    leave_on = (signal.SIGTERM,) if parent is not None else (signal.SIGTERM, signal.SIGINT)
    worker = Worker(
        _ports(settings, opened),
        build,
        opened.board,
        index,
        grpc=_grpcio(settings, opened),
        parent=parent,
        leave_on=leave_on,
    )
    try:
        return worker.run()
    except Exception as error:
        explain(error)
        return CANNOT_START


def _run_envoy(plan: Plan, index: int, parent: int) -> int:
    """Be a worker whose gRPC port is an Envoy's."""
    try:
        return envoy_worker.run(plan, index, parent)
    except Exception as error:
        explain(error)
        return CANNOT_START


def _grpcio(settings: Server, opened: _Opened) -> OpenGrpc:
    def grpc(authorizer: Authorizer, readiness: Readiness, services: Services | None) -> GrpcServer:
        return GrpcServer(
            authorizer,
            readiness,
            opened.grpc.address,
            options=_options(settings),
            certificates=opened.certificates,
            socket_mode=_socket_mode(settings),
            services=services,
        )

    return grpc


def _plan(settings: Server, opened: _Opened, hosted: Program) -> Plan:
    held = opened.grpc.socket
    mode = _socket_mode(settings)
    return Plan(
        hosted,
        envoy.pipe_address(opened.grpc.address, mode) if held is None else envoy.socket_address(held),
        opened.http,
        opened.board,
        settings.workers,
        _options(settings),
        opened.certificates,
        settings.drain_timeout.total_seconds(),
    )


def _options(settings: Server) -> Options:
    limits = settings.advanced.grpc
    return Options(
        max_receive_bytes=limits.max_recv_msg_size_bytes,
        max_concurrent_streams=limits.max_concurrent_streams,
        max_connection_age=limits.max_connection_age.total_seconds(),
        max_connection_age_grace=settings.drain_timeout.total_seconds(),
        connection_timeout=limits.connection_timeout.total_seconds(),
    )


def _ports(settings: Server, opened: _Opened) -> Ports:
    return Ports(
        opened.http,
        opened.certificates,
        settings.drain_timeout.total_seconds(),
        settings.advanced.http.idle_timeout.total_seconds(),
        settings.metrics_enabled,
    )
