"""A client that sends what no gRPC library would: frames and headers as the test wants them."""

from __future__ import annotations

import socket
import struct
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import h2.config
import h2.connection
import h2.events

from tests.extauthz.processes import METHOD

if TYPE_CHECKING:
    from collections.abc import Iterator

PATIENCE = 3.0
"""Seconds without a word of the server after which there is no answer."""


@dataclass(slots=True)
class Answered:
    """What came back on the stream."""

    headers: dict[str, str] = field(default_factory=dict)
    trailers: dict[str, str] = field(default_factory=dict)
    body: bytes = b""
    reset: bool = False

    @property
    def status(self) -> str:
        """GRPC's status; empty when there was none."""
        return self.trailers.get("grpc-status") or self.headers.get("grpc-status", "")

    @property
    def outcome(self) -> str:
        """GRPC's status or, when there was none, HTTP's."""
        return self.status or f"HTTP {self.headers.get(':status')}"


def frame(message: bytes, *, flag: int = 0, size: int | None = None) -> bytes:
    """Frame a message; *size* is what the frame claims."""
    return struct.pack(">BI", flag, len(message) if size is None else size) + message


def asked(
    address: str,
    *chunks: bytes,
    path: str = METHOD,
    method: str = "POST",
    headers: dict[str, str | None] | None = None,
) -> Answered:
    """Send *chunks*, each in a DATA frame, and return what came; a header that is None is left out."""
    usual: dict[str, str | None] = {"content-type": "application/grpc", "te": "trailers"}
    wanted = {**usual, **(headers or {})}
    pseudo = [(":method", method), (":scheme", "http"), (":authority", address), (":path", path)]
    sent = [*pseudo, *((name, value) for name, value in wanted.items() if value is not None)]
    with _connected(address) as (connection, wire):
        connection.send_headers(1, sent, end_stream=not chunks)
        for index, chunk in enumerate(chunks, 1):
            connection.send_data(1, chunk, end_stream=index == len(chunks))
        wire.sendall(connection.data_to_send())
        return _answered(connection, wire)


@contextmanager
def begun(address: str) -> Iterator[None]:
    """Begin a call, and say nothing more."""
    pseudo = [(":method", "POST"), (":scheme", "http"), (":authority", address), (":path", METHOD)]
    with _connected(address) as (connection, wire):
        connection.send_headers(1, [*pseudo, ("content-type", "application/grpc"), ("te", "trailers")])
        wire.sendall(connection.data_to_send())
        yield


@contextmanager
def _connected(address: str) -> Iterator[tuple[h2.connection.H2Connection, socket.socket]]:
    host, _, port = address.rpartition(":")
    with socket.create_connection((host, int(port)), timeout=10) as wire:
        connection = h2.connection.H2Connection(h2.config.H2Configuration(header_encoding="utf-8"))
        connection.initiate_connection()
        yield connection, wire


def _answered(connection: h2.connection.H2Connection, wire: socket.socket) -> Answered:
    answered = Answered()
    wire.settimeout(PATIENCE)
    while data := _received(wire):
        for event in connection.receive_data(data):
            match event:
                case h2.events.ResponseReceived():
                    answered.headers = _texts(event.headers)
                case h2.events.TrailersReceived():
                    answered.trailers = _texts(event.headers)
                case h2.events.DataReceived():
                    answered.body += event.data or b""
                case h2.events.StreamReset():
                    answered.reset = True
                    return answered
                case h2.events.StreamEnded():
                    return answered
        wire.sendall(connection.data_to_send())
    answered.reset = True
    return answered


def _received(wire: socket.socket) -> bytes:
    """Read; nothing when the server has closed, or says nothing: grpcio waits on for what does not come."""
    try:
        return wire.recv(65536)
    except TimeoutError:
        return b""


def _texts(headers: object) -> dict[str, str]:
    assert isinstance(headers, list)
    return {str(name): str(value) for name, value in headers}
