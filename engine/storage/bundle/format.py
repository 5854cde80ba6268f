"""A bundle: policies in one file, with a list of them that is signed (``docs/bundles.md``).

::

    extauthz-bundle/1                           what it is
    ed25519 0123456789abcdef <base64>           a signature: key id, 64 bytes; one to eight lines
    manifest 1234                               how many bytes of manifest follow
    {"created": ..., "files": [...], ...}       the manifest, JSON
    ...                                         the contents of the files, in the order of the manifest

What is signed is :data:`DOMAIN` and the manifest as it stands. Before a signature is known to be good, only
the lines in front are looked at, by one regular expression; the manifest vouches for every byte that follows.
"""

from __future__ import annotations

import base64
import datetime
import json
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from cryptography.exceptions import InvalidSignature

from engine.storage import StoreError
from engine.storage.bundle.keys import key_id
from engine.storage.packed import Entry, PackedError, packed, read_entries, unpacked

if TYPE_CHECKING:
    import os
    from collections.abc import Iterable, Mapping

    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

FORMAT: Final = 1
DOMAIN: Final = b"extauthz bundle manifest, format 1\n"
"""What is signed before the manifest, so that no signature that was made for something else fits."""
MAX_SIGNATURES: Final = 8
MAX_BYTES: Final = 64 * 1024 * 1024
"""The largest bundle that is read, unless the configuration says otherwise."""
MAX_SEQUENCE: Final = 2**53 - 1
"""The largest integer that every reader of JSON holds exactly."""
TIME_FORMAT: Final = "%Y-%m-%dT%H:%M:%SZ"
NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")

_MAGIC = b"extauthz-bundle/"
_ANY_FORMAT = re.compile(rb"extauthz-bundle/([1-9][0-9]{0,4})\n")
_HEADER = re.compile(
    rb"extauthz-bundle/1\n"
    rb"((?:ed25519 [0-9a-f]{16} [A-Za-z0-9+/]{86}==\n){1,8})"
    rb"manifest ([1-9][0-9]{0,9})\n"
)
_KEYS = frozenset(("format", "name", "sequence", "version", "created", "files"))


class BundleError(StoreError):
    """A bundle is not to be trusted, or not one at all."""


@dataclass(frozen=True, slots=True)
class Manifest:
    """What a bundle says of itself."""

    name: str
    """What it is a bundle of; whoever follows one name takes no other."""

    sequence: int
    """Grows with each bundle of a name; which of two is the newer one."""

    created: datetime.datetime
    """In UTC, whole seconds."""

    entries: tuple[Entry, ...] = ()
    version: str = ""
    """What people call it."""

    def document(self) -> bytes:
        """Write the manifest; the same one is always written the same way."""
        value = {
            "format": FORMAT,
            "name": self.name,
            "sequence": self.sequence,
            "version": self.version,
            "created": self.created.strftime(TIME_FORMAT),
            "files": [entry.document() for entry in self.entries],
        }
        return json.dumps(value, indent=1, ensure_ascii=False, sort_keys=True).encode() + b"\n"

    @property
    def revision(self) -> str:
        """What the state of a store is called that this bundle is."""
        return f"{self.name}#{self.sequence}" + (f" ({self.version})" if self.version else "")


@dataclass(frozen=True, slots=True)
class Bundle:
    """A bundle whose signature is good and whose contents are those of its manifest."""

    manifest: Manifest
    files: Mapping[str, bytes]
    signed_by: tuple[str, ...]
    """The ids of the trusted keys that signed it."""


# --- writing ----------------------------------------------------------------------------------------------


def write_bundle(
    contents: Mapping[str, bytes],
    keys: Iterable[Ed25519PrivateKey],
    *,
    name: str,
    sequence: int,
    created: datetime.datetime,
    version: str = "",
) -> bytes:
    """Make a bundle; the same arguments make the same bytes, whatever the order of *contents*.

    Raises:
        BundleError: what is to be in it could not be read again.

    """
    entries, payload = packed(contents)
    moment = created.astimezone(datetime.UTC).replace(microsecond=0)
    manifest = Manifest(name, sequence, moment, entries, version).document()
    parse_manifest(manifest)  # what readers would refuse is not written
    signed = sorted((key_id(key.public_key()), key.sign(DOMAIN + manifest)) for key in keys)
    if not 1 <= len(signed) <= MAX_SIGNATURES:
        raise BundleError(f"a bundle has one to {MAX_SIGNATURES} signatures, not {len(signed)}")
    lines = [f"ed25519 {name} {base64.b64encode(signature).decode()}\n" for name, signature in signed]
    head = "".join((f"extauthz-bundle/{FORMAT}\n", *lines, f"manifest {len(manifest)}\n"))
    return head.encode() + manifest + payload


# --- reading ----------------------------------------------------------------------------------------------


def open_bundle(data: bytes, trusted: Mapping[str, Ed25519PublicKey], name: str = "") -> Bundle:
    """Return what is in a bundle, after everything about it was checked; *name* is the one that is expected.

    Raises:
        BundleError: it is not a whole bundle of that name which one of the *trusted* keys signed.

    """
    text, payload, signed_by = verified(data, trusted)
    manifest = parse_manifest(text)
    if name and manifest.name != name:
        raise BundleError(f"the bundle is one of `{manifest.name}`, not of `{name}`")
    return _opened(manifest, payload, signed_by)


def verified(data: bytes, trusted: Mapping[str, Ed25519PublicKey]) -> tuple[bytes, bytes, tuple[str, ...]]:
    """Return manifest and contents, and the trusted keys that signed the manifest.

    Raises:
        BundleError: no trusted key did.

    """
    signatures, manifest, payload = _split(data)
    ours = [(each, signature) for each, signature in signatures if each in trusted]
    if not ours:
        signers = ", ".join(f"`{each}`" for each, _ in signatures)
        raise BundleError(f"the bundle is signed by {signers}, and no such key is trusted here")
    for each, signature in ours:
        try:
            trusted[each].verify(signature, DOMAIN + manifest)
        except InvalidSignature:
            raise BundleError(f"the signature of key `{each}` is not good: the bundle was changed") from None
    return manifest, payload, tuple(each for each, _ in ours)


def _split(data: bytes) -> tuple[list[tuple[str, bytes]], bytes, bytes]:
    head = _HEADER.match(data)
    if head is None:
        later = _ANY_FORMAT.match(data)
        if later is not None and int(later[1]) != FORMAT:
            raise BundleError("the bundle has a format that this version of extauthz does not know")
        raise BundleError("this is not a bundle")
    lines = [line.split(b" ") for line in head[1].splitlines()]
    signatures = [(each.decode(), base64.b64decode(signature)) for _, each, signature in lines]
    start, length = head.end(), int(head[2])
    if length > len(data) - start:
        raise BundleError("the bundle ends in the middle of its manifest")
    return signatures, data[start : start + length], data[start + length :]


def is_bundle(file: str | os.PathLike[str]) -> bool:
    """Tell whether a file begins as a bundle does, of whatever format."""
    try:
        with open(file, "rb") as opened:  # noqa: PTH123 - a name that somebody wrote
            return opened.read(len(_MAGIC)) == _MAGIC
    except OSError:
        return False


def open_unverified(data: bytes) -> Bundle:
    """Return what is in a bundle as it says itself, for people to look at; nobody has vouched for it.

    Raises:
        BundleError: it is no whole bundle.

    """
    _, text, payload = _split(data)
    return _opened(parse_manifest(text), payload, ())


def _opened(manifest: Manifest, payload: bytes, signed_by: tuple[str, ...]) -> Bundle:
    try:
        return Bundle(manifest, unpacked(manifest.entries, payload), signed_by)
    except PackedError as error:
        raise BundleError(f"the bundle is damaged: {error}") from None


def key_ids(data: bytes) -> tuple[str, ...]:
    """Return the ids of the keys that a bundle says it is signed with.

    Raises:
        BundleError: it is no bundle.

    """
    return tuple(each for each, _ in _split(data)[0])


def unverified_manifest(data: bytes) -> Manifest:
    """Return what a bundle says of itself, for people to look at; nobody has vouched for it.

    Raises:
        BundleError: it is no bundle.

    """
    return parse_manifest(_split(data)[1])


def parse_manifest(text: bytes) -> Manifest:
    """Read a manifest, strictly.

    Raises:
        BundleError: it is none.

    """
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        raise BundleError("the manifest is not JSON") from None
    if not isinstance(value, dict) or value.get("format") != FORMAT or value.keys() != _KEYS:
        raise BundleError("the manifest is not one of this format")
    try:
        return Manifest(
            _name(value["name"]),
            _sequence(value["sequence"]),
            _time(value["created"]),
            read_entries(value["files"]),
            _version(value["version"]),
        )
    except (PackedError, ValueError) as error:
        raise BundleError(f"the manifest is not one of this format: {error}") from None


def _name(value: Any) -> str:
    if not isinstance(value, str) or not NAME.fullmatch(value):
        raise ValueError(f"the name {value!r} must be up to 100 letters, digits, `.`, `_` and `-`")
    return value


def _sequence(value: Any) -> int:
    if type(value) is not int or not 0 < value <= MAX_SEQUENCE:
        raise ValueError(f"the sequence number {value!r} must be a whole number from 1 to {MAX_SEQUENCE}")
    return value


def _time(value: Any) -> datetime.datetime:
    if not isinstance(value, str):
        raise ValueError("the time `created` is not text")
    return datetime.datetime.strptime(value, TIME_FORMAT).replace(tzinfo=datetime.UTC)


def _version(value: Any) -> str:
    if not isinstance(value, str) or len(value) > 200 or not value.isprintable():
        raise ValueError("the version must be up to 200 printable characters")
    return value
