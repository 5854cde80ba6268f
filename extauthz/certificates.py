"""The server's certificate, read again when its files change.

Kubernetes, cert-manager and ACME clients replace certificates under a running server. Both ports ask here
before every handshake; a look at the files costs a few microseconds. What does not fit together (a
certificate that was replaced before its key, a file half written) is reported once and the old pair stays.
"""

from __future__ import annotations

import logging
import os
import ssl
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_pem_private_key

if TYPE_CHECKING:
    from datetime import datetime

    from cryptography.hazmat.primitives.asymmetric.types import (
        CertificatePublicKeyTypes,
        PrivateKeyTypes,
        PublicKeyTypes,
    )

logger = logging.getLogger(__name__)

MAX_BYTES: Final = 1024 * 1024
"""Of one file: a certificate chain has a few kilobytes."""

Stamp = tuple[tuple[int, int, int, int], ...]
"""What tells one state of the files from another: device, inode, size and time of change of each."""


class CertificateError(Exception):
    """The files cannot be used; the message names the file and what is wrong with it."""


@dataclass(frozen=True, slots=True)
class Material:
    """What the files held at one moment: PEM, checked to fit together."""

    certificate: bytes
    key: bytes
    client_ca: bytes | None
    expires: datetime

    def __repr__(self) -> str:
        return f"Material(expires={self.expires:%Y-%m-%d})"  # never the key


class Certificates:
    """A certificate, its key and, for client certificates, the CA that has to have signed them.

    Threads of gRPC and the event loop ask at the same time.
    """

    def __init__(self, certificate: str, key: str, client_ca: str | None = None) -> None:
        """Read the files.

        Raises:
            CertificateError: a file is missing or wrong: the start is refused.

        """
        self._paths = (certificate, key, *([client_ca] if client_ca is not None else ()))
        self._lock = threading.Lock()
        self._seen = self._stamp()
        self._material = _read(*self._paths)

    @property
    def wants_client_certificate(self) -> bool:
        """Whether clients have to show a certificate."""
        return len(self._paths) == 3

    @property
    def files(self) -> tuple[str, str]:
        """The paths of certificate and key, for OpenSSL, which reads only files."""
        return self._paths[0], self._paths[1]

    def current(self) -> Material:
        """Return what the files hold now or, while they are not usable, what they held before."""
        with self._lock:
            try:
                stamp = self._stamp()
                if stamp != self._seen:
                    self._seen = stamp  # a fault is reported once for each state of the files
                    self._material = _read(*self._paths)
                    logger.info("certificate read again, valid until %s", self._material.expires.isoformat())
            except CertificateError as error:
                logger.error(
                    "%s; the certificate read before stays in use", error
                )  # no traceback: a person reads it
            return self._material

    def _stamp(self) -> Stamp:
        return tuple(_stamp_of(path) for path in self._paths)


def _stamp_of(path: str) -> tuple[int, int, int, int]:
    try:
        found = os.stat(path)  # noqa: PTH116  # on every handshake; follows the links that Kubernetes swaps
    except OSError:
        return (0, 0, 0, 0)
    return (found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns)


def _read(certificate: str, key: str, client_ca: str | None = None) -> Material:
    chain, secret = _content(certificate), _content(key)
    first = _certificates(certificate, chain)[0]
    if _public(_private_key(key, secret).public_key()) != _public(first.public_key()):
        raise CertificateError(f"`{key}` is not the key of the certificate in `{certificate}`")
    roots = None if client_ca is None else _content(client_ca)
    if client_ca is not None and roots is not None:
        _certificates(client_ca, roots)
    return Material(chain, secret, roots, first.not_valid_after_utc)


def _content(path: str) -> bytes:
    try:
        with Path(path).open("rb") as file:
            content = file.read(MAX_BYTES + 1)
    except OSError as error:
        raise CertificateError(f"cannot read `{path}`: {(error.strerror or str(error)).lower()}") from error
    if len(content) > MAX_BYTES:
        raise CertificateError(f"`{path}` has more than {MAX_BYTES} bytes: is it a PEM file?")
    return content


def _certificates(path: str, pem: bytes) -> list[x509.Certificate]:
    try:
        return x509.load_pem_x509_certificates(pem)
    except ValueError as error:
        raise CertificateError(f"`{path}` holds no usable PEM certificate") from error


def _private_key(path: str, pem: bytes) -> PrivateKeyTypes:
    try:
        return load_pem_private_key(pem, password=None)
    except (ValueError, TypeError) as error:  # TypeError: the key has a password
        raise CertificateError(f"`{path}` holds no usable PEM key without a password") from error


def _public(key: PublicKeyTypes | CertificatePublicKeyTypes) -> bytes:
    return key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)


def server_context(certificates: Certificates) -> ssl.SSLContext:
    """Make the TLS settings of the HTTP port; every handshake gets the certificate that is current then.

    A client certificate is verified when one is shown but not demanded, as Cerbos does: probes have none.
    """
    latest = certificates.current()
    context = _context(certificates, latest)
    front = _context(certificates, latest)

    def choose(connection: ssl.SSLObject | ssl.SSLSocket, name: str | None, original: ssl.SSLContext) -> None:
        nonlocal latest, context
        del name, original  # one certificate for all names
        material = certificates.current()
        if material is not latest:
            latest = material
            context = _rebuilt(certificates, material, context)
        connection.context = context

    front.sni_callback = (
        choose  # called at the start of every handshake, whether the client sends a name or not
    )
    return front


def _rebuilt(certificates: Certificates, material: Material, previous: ssl.SSLContext) -> ssl.SSLContext:
    try:
        return _context(certificates, material)
    except (ssl.SSLError, OSError):
        logger.exception("the new certificate cannot be used for HTTP; the one before stays in use")
        return previous


def _context(certificates: Certificates, material: Material) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.load_cert_chain(*certificates.files)
    if material.client_ca is not None:
        context.load_verify_locations(cadata=material.client_ca.decode("ascii", "replace"))
        context.verify_mode = ssl.CERT_OPTIONAL
    return context
