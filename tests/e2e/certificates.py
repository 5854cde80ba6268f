"""A certificate authority for a test."""

from __future__ import annotations

import datetime
from typing import TYPE_CHECKING

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

if TYPE_CHECKING:
    from pathlib import Path

LIFETIME = datetime.timedelta(days=1)


def issue(directory: Path, *names: str) -> None:
    """Write ``ca.crt`` and, for each of *names*, ``NAME.crt`` and ``NAME.key`` for that DNS name."""
    directory.mkdir(parents=True)
    authority = ec.generate_private_key(ec.SECP256R1())
    root = _builder("test CA", "test CA", authority.public_key())
    root = root.add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
    _write(directory / "ca.crt", root.sign(authority, hashes.SHA256()))
    for name in names:
        key = ec.generate_private_key(ec.SECP256R1())
        leaf = _builder(name, "test CA", key.public_key())
        leaf = leaf.add_extension(x509.SubjectAlternativeName([x509.DNSName(name)]), critical=False)
        _write(directory / f"{name}.crt", leaf.sign(authority, hashes.SHA256()))
        (directory / f"{name}.key").write_bytes(_pem(key))


def _builder(subject: str, issuer: str, key: ec.EllipticCurvePublicKey) -> x509.CertificateBuilder:
    now = datetime.datetime.now(datetime.UTC)
    builder = (
        x509.CertificateBuilder().subject_name(_name(subject)).issuer_name(_name(issuer)).public_key(key)
    )
    builder = builder.serial_number(x509.random_serial_number())
    return builder.not_valid_before(now - LIFETIME).not_valid_after(now + LIFETIME)


def _name(common: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common)])


def _write(file: Path, certificate: x509.Certificate) -> None:
    file.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))


def _pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    form = serialization.PrivateFormat.PKCS8
    return key.private_bytes(serialization.Encoding.PEM, form, serialization.NoEncryption())
