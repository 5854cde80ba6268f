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

from extauthz.board import Board
from extauthz.certificates import CertificateError, Certificates
from extauthz.supervisor import Supervisor
from extauthz.transport.address import Address, AddressError, ListenError, Reservation, listen, reserve
from extauthz.transport.calls import Options
from extauthz.worker import Ports, Worker

if TYPE_CHECKING:
    import socket
    from collections.abc import Callable

    from extauthz.config import Server
    from extauthz.worker import App

logger = logging.getLogger(__name__)

CANNOT_START: Final = 1
"""Exit code when an address, a certificate or a part of the service is not to be had."""


class StartError(Exception):
    """A part of the service cannot be had; worded for the person who can mend it."""


@dataclass(frozen=True, slots=True)
class _Opened:
    """What is opened once, before there are workers."""

    grpc: Reservation
    http: socket.socket
    certificates: Certificates | None
    board: Board


def serve(settings: Server, build: Callable[[], App]) -> int:
    """Serve until SIGTERM or SIGINT; return the exit code.

    *build* makes the service, once in each worker. 0: stopped without losing a request. 1: could not start,
    or was told twice to stop and cut requests off.
    """
    try:
        opened = _open(settings)
    except (AddressError, ListenError, CertificateError) as error:
        logger.critical("cannot start: %s", error)
        return CANNOT_START
    if opened.grpc.shared:
        logger.warning("another process shares `%s`: it gets some of the requests", opened.grpc.address)
    run = functools.partial(_run_worker, settings, opened, build)
    if settings.workers == 1:
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
    worker = Worker(_ports(settings, opened), build, opened.board, index, parent=parent, leave_on=leave_on)
    try:
        return worker.run()
    except Exception as error:
        _explain(error)
        return CANNOT_START


def _explain(error: Exception) -> None:
    """Say why the service could not start: in words, or with its traceback when it is a bug of ours."""
    if isinstance(error, StartError | ListenError | CertificateError):
        logger.critical("cannot start: %s", error)
    else:
        logger.critical("cannot start", exc_info=error)


def _ports(settings: Server, opened: _Opened) -> Ports:
    limits = settings.advanced.grpc
    drain_timeout = settings.drain_timeout.total_seconds()
    options = Options(
        max_receive_bytes=limits.max_recv_msg_size_bytes,
        max_concurrent_streams=limits.max_concurrent_streams,
        max_connection_age=limits.max_connection_age.total_seconds(),
        max_connection_age_grace=drain_timeout,
        connection_timeout=limits.connection_timeout.total_seconds(),
    )
    return Ports(
        opened.grpc.address,
        opened.http,
        options,
        opened.certificates,
        _socket_mode(settings),
        drain_timeout,
        settings.advanced.http.idle_timeout.total_seconds(),
    )
