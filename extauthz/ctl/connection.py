"""How a server is reached and by which credentials: options, environment, ``~/.netrc``."""

from __future__ import annotations

import contextlib
import netrc
import os
import socket
import ssl
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

import grpc
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

DEFAULT_SERVER: Final = "localhost:3593"
MAX_ANSWER: Final = 64 * 1024 * 1024
"""Bytes of an answer; a server sends less, but policies may be large."""
CONNECTING: Final = 10.0
"""Seconds to fetch a certificate that is not going to be verified."""


class CtlError(Exception):
    """A command could not be carried out; worded for the person who gave it."""


@dataclass(frozen=True, slots=True)
class Connection:
    """Where a server is and how to talk to it."""

    server: str = DEFAULT_SERVER
    """``host:port`` or ``unix:/path``."""
    username: str = ""
    password: str = ""
    ca_cert: Path | None = None
    client_cert: Path | None = None
    client_key: Path | None = None
    insecure: bool = False
    """The server's certificate is not verified."""
    plaintext: bool = False
    """There is no TLS."""
    timeout: float = 60.0
    """Seconds for each call."""

    @contextlib.contextmanager
    def channel(self) -> Iterator[grpc.Channel]:
        """Open a channel; raises :class:`CtlError`."""
        options: list[tuple[str, str | int]] = [
            ("grpc.enable_http_proxy", 0),
            ("grpc.max_receive_message_length", MAX_ANSWER),
        ]
        if self.plaintext:
            with grpc.insecure_channel(self.server, options) as channel:
                yield channel
            return
        root = _read(self.ca_cert)
        if self.insecure:
            root, name = _shown_certificate(self.server)
            options.append(("grpc.ssl_target_name_override", name))
        credentials = grpc.ssl_channel_credentials(root, _read(self.client_key), _read(self.client_cert))
        with grpc.secure_channel(self.server, credentials, options) as channel:
            yield channel


def netrc_credentials(server: str, environment: Mapping[str, str] = os.environ) -> tuple[str, str]:
    """Return user and password of a server in ``$NETRC`` or ``~/.netrc``, empty where there are none.

    Raises:
        CtlError: the file cannot be read.

    """
    named = environment.get("NETRC")
    file = Path(named) if named else Path.home() / ".netrc"
    if server.startswith("unix:") or not file.is_file():
        return "", ""
    try:
        found = netrc.netrc(file).authenticators(_host(server))
    except (OSError, netrc.NetrcParseError) as error:
        raise CtlError(f"cannot read `{file}`: {error}") from None
    return ("", "") if found is None else (found[0], found[2] or "")


def _host(server: str) -> str:
    return server.rpartition(":")[0].strip("[]")


def _read(file: Path | None) -> bytes | None:
    if file is None:
        return None
    try:
        return file.read_bytes()
    except OSError as error:
        raise CtlError(f"cannot read `{file}`: {error.strerror}") from None


def _shown_certificate(server: str) -> tuple[bytes, str]:
    """Return the certificate that a server shows, and a name in it: gRPC has no way not to verify.

    Trusting exactly what is shown comes to the same.
    """
    host, _, port = server.rpartition(":")
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    try:
        with (
            socket.create_connection((host.strip("[]"), int(port)), timeout=CONNECTING) as plain,
            context.wrap_socket(plain, server_hostname=host.strip("[]")) as wrapped,
        ):
            shown = wrapped.getpeercert(binary_form=True) or b""
    except (OSError, ValueError) as error:
        raise CtlError(f"cannot connect to `{server}` with TLS: {error}") from None
    certificate = x509.load_der_x509_certificate(shown)
    return certificate.public_bytes(Encoding.PEM), _name_in(certificate) or host


def _name_in(certificate: x509.Certificate) -> str:
    with contextlib.suppress(x509.ExtensionNotFound):
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        found = [*names.get_values_for_type(x509.DNSName)]
        found += [str(address) for address in names.get_values_for_type(x509.IPAddress)]
        return found[0].replace("*", "any", 1) if found else ""
    return ""
