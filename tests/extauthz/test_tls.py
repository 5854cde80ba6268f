"""TLS on both ports: certificates, client certificates, and files that change under a running server."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import shutil
import socket
import ssl
from typing import TYPE_CHECKING

import grpc
import pytest
from cryptography import x509

from extauthz.certificates import CertificateError, Certificates, server_context
from extauthz.readiness import Status
from extauthz.transport.address import Address, listen
from extauthz.transport.calls import SERVICE
from extauthz.transport.grpcio import GrpcServer
from extauthz.transport.http import HttpServer, application
from tests.e2e.certificates import issue

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

NAME = "localhost"
CLIENT = "client"


@pytest.fixture
def pki(tmp_path: Path) -> Path:
    """Issue a server's and a client's certificate, and the same from two other CAs."""
    for place in ("now", "next", "stranger"):
        issue(tmp_path / place, NAME, CLIENT)
    return tmp_path


def certificates(directory: Path, *, client_ca: bool = False) -> Certificates:
    ca = str(directory / "ca.crt") if client_ca else None
    return Certificates(str(directory / f"{NAME}.crt"), str(directory / f"{NAME}.key"), ca)


def replace(target: Path, source: Path) -> None:
    """Put the files of *source* in place of those of *target*, each at once, as careful tools do."""
    for file in source.iterdir():
        copy = target / f"{file.name}.new"
        shutil.copy(file, copy)
        copy.replace(target / file.name)


class Echo:
    def check(self, request: bytes) -> bytes:
        return request


@contextlib.asynccontextmanager
async def serving(settings: Certificates) -> AsyncIterator[str]:
    server = GrpcServer(Echo(), Status, Address("127.0.0.1", 0), certificates=settings)
    port = await server.start()
    try:
        yield f"127.0.0.1:{port}"
    finally:
        await server.stop()


async def asked(address: str, ca: Path, client: Path | None = None) -> str:
    """Ask over a new connection; return ``answered`` or the name of the error's code."""
    key, certificate = (None, None) if client is None else (read(client, "key"), read(client, "crt"))
    trust = grpc.ssl_channel_credentials((ca / "ca.crt").read_bytes(), key, certificate)
    options = [("grpc.ssl_target_name_override", NAME), ("grpc.use_local_subchannel_pool", 1)]
    async with grpc.aio.secure_channel(address, trust, options=options) as channel:
        check: grpc.aio.UnaryUnaryMultiCallable[bytes, bytes] = channel.unary_unary(f"/{SERVICE}/Check")
        try:
            return "answered" if await check(b"x", timeout=5) == b"x" else "wrong"
        except grpc.aio.AioRpcError as error:
            return error.code().name


def read(directory: Path, suffix: str) -> bytes:
    return (directory / f"{CLIENT}.{suffix}").read_bytes()


async def test_grpc_over_tls(pki: Path) -> None:
    """A client that trusts the CA is answered; one that does not has no connection."""
    async with serving(certificates(pki / "now")) as address:
        assert await asked(address, pki / "now") == "answered"
        assert await asked(address, pki / "stranger") == "UNAVAILABLE"


async def test_a_client_certificate_is_demanded(pki: Path) -> None:
    """With a CA, a client must show a certificate that it signed: none and a stranger's are refused."""
    async with serving(certificates(pki / "now", client_ca=True)) as address:
        assert await asked(address, pki / "now", client=pki / "now") == "answered"
        assert await asked(address, pki / "now") == "UNAVAILABLE"
        assert await asked(address, pki / "now", client=pki / "stranger") == "UNAVAILABLE"


async def test_changed_files_are_used_for_new_connections(pki: Path) -> None:
    """When certificate, key and CA change, the next connection gets the new ones, and clients need the CA."""
    now = pki / "now"
    issued = pki / "issued"
    shutil.copytree(now, issued)
    async with serving(certificates(now, client_ca=True)) as address:
        assert await asked(address, issued, client=issued) == "answered"
        replace(now, pki / "next")
        assert await asked(address, pki / "next", client=pki / "next") == "answered"
        assert await asked(address, issued, client=issued) == "UNAVAILABLE"
        assert await asked(address, pki / "next", client=issued) == "UNAVAILABLE"


async def test_a_swapped_link_is_a_change(pki: Path) -> None:
    """Kubernetes swaps a symbolic link under the paths; that is noticed too."""
    (pki / "link").symlink_to(pki / "now")
    async with serving(certificates(pki / "link")) as address:
        assert await asked(address, pki / "now") == "answered"
        (pki / "link.new").symlink_to(pki / "next")
        os.replace(pki / "link.new", pki / "link")  # noqa: PTH105  # Path.replace resolves nothing either; as kubelet
        assert await asked(address, pki / "next") == "answered"


@pytest.mark.parametrize("fault", ["other key", "no certificate", "gone", "empty"])
async def test_files_that_do_not_fit_change_nothing(
    pki: Path, fault: str, caplog: pytest.LogCaptureFixture
) -> None:
    """A wrong key, rubbish or nothing: the old pair serves on, and that is reported once."""
    now = pki / "now"
    async with serving(certificates(now)) as address:
        break_files(now, pki / "next", fault)
        for _ in range(3):
            assert await asked(address, now) == "answered"
        errors = [line for line in caplog.records if line.levelno == logging.ERROR]
        assert len(errors) == 1
        assert "the certificate read before stays in use" in errors[0].message
        replace(now, pki / "next")
        assert await asked(address, pki / "next") == "answered"


def break_files(now: Path, other: Path, fault: str) -> None:
    certificate, key = now / f"{NAME}.crt", now / f"{NAME}.key"
    if fault == "other key":
        shutil.copy(other / f"{NAME}.key", key)
    elif fault == "no certificate":
        certificate.write_text("rubbish", encoding="utf-8")
    elif fault == "gone":
        certificate.unlink()
    else:
        key.write_bytes(b"")


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ({"certificate": "missing.pem"}, "cannot read `.*missing.pem`: no such file or directory"),
        (
            {"key": "next/localhost.key"},
            "`.*localhost.key` is not the key of the certificate in `.*localhost.crt`",
        ),
        ({"certificate": "now/localhost.key"}, "`.*localhost.key` holds no usable PEM certificate"),
        ({"key": "now/localhost.crt"}, "`.*localhost.crt` holds no usable PEM key"),
        ({"client_ca": "now/localhost.key"}, "`.*localhost.key` holds no usable PEM certificate"),
    ],
)
def test_a_start_with_unusable_files_is_refused(pki: Path, change: dict[str, str], complaint: str) -> None:
    """At the start, files that cannot be used are an error that names the file."""
    paths = {"certificate": "now/localhost.crt", "key": "now/localhost.key", **change}
    with pytest.raises(CertificateError, match=complaint):
        Certificates(**{name: str(pki / path) for name, path in paths.items()})


def test_a_key_is_not_shown(pki: Path) -> None:
    """The key does not stand in the representation that a log or a traceback would show."""
    assert "KEY" not in repr(certificates(pki / "now").current())


# --- HTTP -------------------------------------------------------------------------------------------------


@contextlib.asynccontextmanager
async def https(settings: Certificates) -> AsyncIterator[tuple[str, int]]:
    with listen(Address("127.0.0.1", 0)) as listener:
        server = HttpServer(application(Status), listener, tls=server_context(settings))
        server.start()
        yield listener.getsockname()
        await server.stop()


def handshake(where: tuple[str, int], ca: Path, client: Path | None = None) -> x509.Certificate:
    """Connect, ask, and return the server's certificate."""
    context = ssl.create_default_context(cafile=str(ca / "ca.crt"))
    if client is not None:
        context.load_cert_chain(client / f"{CLIENT}.crt", client / f"{CLIENT}.key")
    with (
        socket.create_connection(where, timeout=5) as raw,
        context.wrap_socket(raw, server_hostname=NAME) as it,
    ):
        it.sendall(b"GET /healthz HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n")
        if not (answer := it.recv(64)):  # in TLS 1.3 a client certificate is refused after the handshake
            raise ConnectionError
        assert answer.startswith(b"HTTP/1.1 200")
        shown = it.getpeercert(binary_form=True)
        assert shown is not None
        return x509.load_der_x509_certificate(shown)


async def test_https_reads_changed_files_again(pki: Path) -> None:
    """The HTTP port shows the certificate that is in the files, and keeps it when they are broken."""
    now = pki / "now"
    shutil.copytree(now, pki / "issued")
    async with https(certificates(now)) as where:
        first = await asyncio.to_thread(handshake, where, pki / "issued")
        replace(now, pki / "next")
        second = await asyncio.to_thread(handshake, where, pki / "next")
        assert first.serial_number != second.serial_number
        break_files(now, pki / "issued", "other key")
        assert await asyncio.to_thread(handshake, where, pki / "next") == second


async def test_probes_need_no_client_certificate(pki: Path) -> None:
    """On the HTTP port a client certificate is verified when there is one, but probes come without."""
    async with https(certificates(pki / "now", client_ca=True)) as where:
        await asyncio.to_thread(handshake, where, pki / "now")
        await asyncio.to_thread(handshake, where, pki / "now", pki / "now")
        with pytest.raises((ssl.SSLError, ConnectionError)):
            await asyncio.to_thread(handshake, where, pki / "now", pki / "stranger")
