"""Ed25519 keys that bundles are signed with (RFC 8032), as PEM files of OpenSSL's form."""

from __future__ import annotations

import base64
import binascii
import hashlib
import re
from typing import TYPE_CHECKING

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from engine.storage import StoreError

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

MAX_KEY_FILE = 64 * 1024
"""Bytes of a file of keys that are read."""

_PEM_BLOCK = re.compile(rb"-----BEGIN PUBLIC KEY-----.+?-----END PUBLIC KEY-----", re.DOTALL)


def key_id(key: Ed25519PublicKey) -> str:
    """Return what a key is called: the first 16 hexadecimal digits of the SHA-256 of its 32 bytes."""
    return hashlib.sha256(key.public_bytes_raw()).hexdigest()[:16]


def by_id(keys: Iterable[Ed25519PublicKey]) -> dict[str, Ed25519PublicKey]:
    """Return the keys by what they are called."""
    return {key_id(key): key for key in keys}


def public_keys(text: bytes, what: str) -> list[Ed25519PublicKey]:
    """Read public keys: PEM, any number of them, or one in base64 (the text of a PEM without its frame).

    Raises:
        StoreError: *what* holds none, or one of another kind.

    """
    blocks = _PEM_BLOCK.findall(text)
    if blocks:
        return [_public(block, what, pem=True) for block in blocks]
    try:
        return [_public(base64.b64decode(b"".join(text.split()), validate=True), what, pem=False)]
    except binascii.Error:
        raise StoreError(f"{what} holds no public key: it must be PEM, or base64") from None


def _public(data: bytes, what: str, *, pem: bool) -> Ed25519PublicKey:
    load = serialization.load_pem_public_key if pem else serialization.load_der_public_key
    try:
        key = load(data)
    except (ValueError, UnsupportedAlgorithm):
        raise StoreError(f"{what} holds no public key that can be read") from None
    if not isinstance(key, Ed25519PublicKey):
        raise StoreError(f"{what} holds a key that is not of Ed25519")
    return key


def private_key(text: bytes, what: str, password: bytes | None = None) -> Ed25519PrivateKey:
    """Read a private key in PEM (PKCS #8).

    Raises:
        StoreError: *what* holds none, or one of another kind, or the *password* is missing or wrong.

    """
    try:
        key = serialization.load_pem_private_key(text, password)
    except TypeError:  # how the library says that a password is missing, or is one too many
        wanted = (
            "is not encrypted, but there is a password" if password else "is encrypted: give its password"
        )
        raise StoreError(f"the key in {what} {wanted}") from None
    except (ValueError, UnsupportedAlgorithm):
        raise StoreError(f"{what} holds no private key that can be read") from None
    if not isinstance(key, Ed25519PrivateKey):
        raise StoreError(f"{what} holds a key that is not of Ed25519")
    return key


def private_pem(key: Ed25519PrivateKey, password: bytes | None = None) -> bytes:
    """Write a private key."""
    encryption: serialization.KeySerializationEncryption = (
        serialization.BestAvailableEncryption(password) if password else serialization.NoEncryption()
    )
    return key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, encryption)


def public_pem(key: Ed25519PublicKey) -> bytes:
    """Write a public key."""
    return key.public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)


def public_text(key: Ed25519PublicKey) -> str:
    """Write a public key in one line, for a configuration file."""
    der = key.public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
    return base64.b64encode(der).decode()


def pinned(entries: Iterable[Mapping[str, str]]) -> dict[str, Ed25519PublicKey]:
    """Read the keys that a configuration trusts, each entry a ``file`` or ``data``.

    Raises:
        StoreError: one cannot be read; or there is none.

    """
    found: list[Ed25519PublicKey] = []
    for entry in entries:
        if entry.get("file"):
            found += public_keys(_content(entry["file"]), f"`{entry['file']}`")
        else:
            found += public_keys((entry.get("data") or "").encode(), "an entry of `publicKeys`")
    if not found:
        raise StoreError("the bundle driver needs `publicKeys`: bundles that nobody vouches for are not used")
    return by_id(found)


def _content(file: str) -> bytes:
    try:
        with open(file, "rb") as opened:  # noqa: PTH123 - a name from the configuration, read once
            return opened.read(MAX_KEY_FILE)
    except OSError as error:
        raise StoreError(f"cannot read the public key `{file}`: {error.strerror}") from error
