"""Key sets: the public keys that tokens are verified with, where they come from, and how they stay fresh.

A :class:`KeySet` holds an immutable :class:`Keys` and replaces it when its origin (a file, inline data, a
URL) has something else. It is refreshed in the background. A key id that is not in it is worth one more
fetch, but strangers choose key ids: fetches are shared, a cool-down lies between them, and ids known to be
absent are not asked for again. When the origin cannot be reached, the keys of before serve on, for as long as
the configuration lets them.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import hashlib
import logging
import math
import re
import time
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Protocol

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec, ed448, ed25519, rsa
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    PublicFormat,
    load_pem_private_key,
    load_pem_public_key,
)
from jwt import PyJWK
from jwt.algorithms import Algorithm, get_default_algorithms
from jwt.exceptions import PyJWTError

from extauthz import strict_json
from extauthz.fetch import FetchError, fetch

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable, Mapping

    import httpx

    from engine.model import JsonValue

log = logging.getLogger(__name__)

MAX_BYTES = 1024 * 1024
MAX_KEYS = 128
MAX_CANDIDATES = 8
"""How many keys are tried for a token that does not name one."""
MAX_ABSENT = 1024
MAX_ABSENT_KID = 128
MIN_RSA_BITS, MAX_RSA_BITS = 2048, 16384
"""RFC 7518 §3.3 asks for at least 2048; verifying with a giant key would take milliseconds."""
COOLDOWN = 30.0
RETRY = 2.0
"""Seconds between attempts while there are no keys at all: every request fails then, so waiting longer helps
nobody."""
TIMEOUT = 5.0
FILE_INTERVAL = 2.0
"""Seconds between two looks at a key set in a file."""
REMOTE_INTERVAL = 3600.0


# --- algorithms -------------------------------------------------------------------------------------------

EC_ALGORITHM = {"secp256r1": "ES256", "secp384r1": "ES384", "secp521r1": "ES512", "secp256k1": "ES256K"}
HMAC_BITS = {"HS256": 256, "HS384": 384, "HS512": 512}
RSA_ALGORITHMS = frozenset({"RS256", "RS384", "RS512", "PS256", "PS384", "PS512"})
OKP_ALGORITHM = {ed25519.Ed25519PublicKey: "Ed25519", ed448.Ed448PublicKey: "Ed448"}


def _verifiers() -> dict[str, Algorithm]:
    """PyJWT's verifiers for what keys can do here; ``none`` is not among them."""
    known = get_default_algorithms()
    names = {*RSA_ALGORITHMS, *EC_ALGORITHM.values(), *HMAC_BITS, "EdDSA"}
    return {name: known[name] for name in names} | dict.fromkeys(OKP_ALGORITHM.values(), known["EdDSA"])


VERIFIERS: Mapping[str, Algorithm] = MappingProxyType(_verifiers())
"""Algorithms that may be configured (RFC 7518 §3.1, RFC 8037, RFC 9864)."""


# --- keys -------------------------------------------------------------------------------------------------


class KeySetError(Exception):
    """The text or the origin of a key set is unusable; worded for the person who can mend it."""


@dataclass(frozen=True, slots=True)
class Key:
    """One verification key. *kid* is ``None`` for a key that has no id and fits any token.

    *algorithms* follow from the key itself, never from a token: a public RSA key cannot become an HMAC
    secret.
    """

    kid: str | None
    algorithms: frozenset[str]
    material: Any = field(repr=False, compare=False)
    fingerprint: bytes = field(repr=False)

    def verifies(self, algorithm: str, message: bytes, signature: bytes) -> bool:
        """Tell whether *signature* over *message* was made with this key and *algorithm*."""
        return algorithm in self.algorithms and bool(
            VERIFIERS[algorithm].verify(message, self.material, signature)
        )


@dataclass(frozen=True, slots=True)
class Keys:
    """The keys of a set at one moment, and what was left out of it and why."""

    members: tuple[Key, ...]
    remarks: tuple[str, ...] = ()
    by_kid: Mapping[str | None, tuple[Key, ...]] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        grouped: dict[str | None, tuple[Key, ...]] = {}
        for key in self.members:
            grouped[key.kid] = (*grouped.get(key.kid, ()), key)
        object.__setattr__(self, "by_kid", MappingProxyType(grouped))

    def candidates(self, kid: str | None) -> tuple[Key, ...]:
        """Give the keys that a token with this *kid* (``None``: without one) may be signed with."""
        if kid is None:
            return self.members
        return self.by_kid.get(kid, ()) + self.by_kid.get(None, ())


@dataclass(frozen=True, slots=True)
class KeyFormat:
    """How the text of a key set is read, with Cerbos's names for it.

    *secrets* lets ``oct`` keys in; they have no business in a document that is served to everybody.
    """

    pem: bool = False
    optional_alg: bool = False
    optional_kid: bool = False
    secrets: bool = True


JWKS = KeyFormat()


def parse_keys(text: bytes, form: KeyFormat = JWKS) -> Keys:
    """Read a JWK set, a single JWK, or PEM blocks: public keys, certificates, private keys' public halves.

    A key that cannot be used for verifying here is left out with a remark. Raises :class:`KeySetError` when
    the text is not such a document, or no key of it is usable.
    """
    found, remarks = _pem_keys(text) if form.pem else _jwk_keys(text, form)
    if not found:
        raise KeySetError("; ".join(remarks) or "there are no keys in it")
    return Keys(tuple(found), tuple(remarks))


def _jwk_keys(text: bytes, form: KeyFormat) -> tuple[list[Key], list[str]]:
    found: list[Key] = []
    remarks: list[str] = []
    for index, member in enumerate(_jwk_members(text)):
        try:
            found.append(_jwk_key(member, form))
        except KeySetError as error:  # worded as Cerbos words it
            remarks.append(f"failed to validate key at idx {index}: {error}")
    return found, remarks


def _jwk_members(text: bytes) -> list[JsonValue]:
    try:
        document = strict_json.parse_object(text)
    except strict_json.StrictJsonError as error:
        raise KeySetError(f"not a JWK set: {error}") from None
    members = document.get("keys", [document] if "kty" in document else None)
    if not isinstance(members, list):
        raise KeySetError("not a JWK set: it has no list `keys`")
    if len(members) > MAX_KEYS:
        raise KeySetError(f"more than {MAX_KEYS} keys")
    return members


PUBLIC_MEMBERS = ("kty", "crv", "x", "y", "n", "e", "k")


def _jwk_key(jwk: JsonValue, form: KeyFormat) -> Key:
    if not isinstance(jwk, dict):
        raise KeySetError("not a JSON object")
    _check_use(jwk)
    kid = _member(jwk, "kid", "key ID (kid)", optional=form.optional_kid)
    algorithm = _member(jwk, "alg", "algorithm (alg)", optional=form.optional_alg)
    if jwk.get("kty") == "oct" and not form.secrets:
        raise KeySetError("a secret (kty=oct) in a public key set")
    return _key(kid, _jwk_material(jwk), algorithm)


def _check_use(jwk: dict[str, JsonValue]) -> None:
    operations = jwk.get("key_ops", ["verify"])
    if jwk.get("use", "sig") != "sig" or not (
        isinstance(operations, list) and {"verify", "sign"} & {*map(str, operations)}
    ):
        raise KeySetError("not a key for signatures (use, key_ops)")


def _member(jwk: dict[str, JsonValue], name: str, title: str, *, optional: bool) -> str | None:
    value = jwk.get(name)
    if value is None and optional:
        return None
    if value is None:
        raise KeySetError(f"missing {title}; `insecure.optional{name.capitalize()}: true` accepts such keys")
    if not isinstance(value, str):
        raise KeySetError(f"invalid {title}")
    if not value:
        raise KeySetError(f"empty {title}" if name == "kid" else f"invalid {title}")
    return value


def _jwk_material(jwk: dict[str, JsonValue]) -> Any:
    """Build the key with PyJWT, from the public members only: a private key never gets into memory."""
    public = {name: jwk[name] for name in PUBLIC_MEMBERS if name in jwk}
    hint = {"oct": "HS256", "RSA": "RS256", "OKP": "EdDSA"}.get(
        str(jwk.get("kty"))
    )  # any of the family: it only parses
    try:
        return PyJWK(public, hint).key
    except (PyJWTError, UnsupportedAlgorithm, ValueError, TypeError, KeyError, AttributeError):
        raise KeySetError(f"not a usable key of type `{str(jwk.get('kty'))[:32]}`") from None


PEM_BLOCK = re.compile(rb"-----BEGIN ([A-Z0-9 ]{1,64})-----[^-]*-----END \1-----")


def _pem_keys(text: bytes) -> tuple[list[Key], list[str]]:
    found: list[Key] = []
    remarks: list[str] = []
    for index, block in enumerate(PEM_BLOCK.finditer(text)):
        if index == MAX_KEYS:
            raise KeySetError(f"more than {MAX_KEYS} keys")
        try:
            found.append(_key(None, _pem_material(block[1].decode(), block[0]), None))
        except (KeySetError, ValueError, TypeError, UnsupportedAlgorithm) as error:
            remarks.append(f"failed to validate key at idx {index}: {error}")
    return found, remarks


def _pem_material(label: str, block: bytes) -> Any:
    if label == "CERTIFICATE":
        return x509.load_pem_x509_certificate(block).public_key()
    if label.endswith("PUBLIC KEY"):
        return load_pem_public_key(block)
    if label.endswith("PRIVATE KEY"):
        return load_pem_private_key(block, password=None).public_key()
    raise KeySetError(f"a PEM block `{label}` holds no key")


def _key(kid: str | None, material: Any, algorithm: str | None) -> Key:
    able = _algorithms(material)
    if algorithm is not None and algorithm not in able:
        raise KeySetError(f"invalid algorithm (alg) `{algorithm[:32]}` for this type of key")
    return Key(kid, able if algorithm is None else frozenset({algorithm}), material, _fingerprint(material))


def _algorithms(material: Any) -> frozenset[str]:
    """Tell what a key can verify, from its type, curve and size alone (RFC 8725 §3.1)."""
    if isinstance(material, rsa.RSAPublicKey):
        if not MIN_RSA_BITS <= material.key_size <= MAX_RSA_BITS:
            raise KeySetError(
                f"an RSA key of {material.key_size} bits; {MIN_RSA_BITS} to {MAX_RSA_BITS} are accepted"
            )
        return RSA_ALGORITHMS
    if isinstance(material, ec.EllipticCurvePublicKey) and material.curve.name in EC_ALGORITHM:
        return frozenset({EC_ALGORITHM[material.curve.name]})
    if isinstance(material, ed25519.Ed25519PublicKey | ed448.Ed448PublicKey):
        return frozenset({"EdDSA", "Ed25519" if isinstance(material, ed25519.Ed25519PublicKey) else "Ed448"})
    if isinstance(material, bytes):
        return _hmac_algorithms(len(material) * 8)
    raise KeySetError(f"`{type(material).__name__}` keys are not used for signatures of tokens")


def _hmac_algorithms(bits: int) -> frozenset[str]:
    able = frozenset(name for name, least in HMAC_BITS.items() if bits >= least)  # RFC 7518 §3.2
    if not able:
        raise KeySetError("a secret shorter than 256 bits")
    return able


def _fingerprint(material: Any) -> bytes:
    if not isinstance(material, bytes):
        material = material.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    return hashlib.sha256(material).digest()


# --- origins ----------------------------------------------------------------------------------------------


class Origin(Protocol):
    """Where the text of a key set comes from."""

    place: str
    """File or URL, for people."""

    async def read(self, *, known: bool) -> bytes | None:
        """Give the text; ``None`` when the text of before is *known* to the caller and has not changed.

        Raises :class:`KeySetError` when it cannot be had.
        """


class InlineOrigin:
    """A text that stands in the configuration (Cerbos's ``local.data``, base64)."""

    place = "inline data"

    def __init__(self, data: str) -> None:
        """Take *data* as base64, or raise :class:`KeySetError`."""
        try:
            self._text = base64.b64decode("".join(data.split()), validate=True)
        except binascii.Error as error:
            raise KeySetError(f"the inline data is not base64: {error}") from None

    async def read(self, *, known: bool) -> bytes | None:
        """Give the text."""
        return None if known else self._text


class FileOrigin:
    """A file, read again when its identity, size or time of change differs."""

    def __init__(self, path: str | Path) -> None:
        self.place = str(path)
        self._path = Path(path)
        self._seen: tuple[int, ...] = ()

    async def read(self, *, known: bool) -> bytes | None:
        """Give the content."""
        return await asyncio.to_thread(self._read, known)  # a network file system may take its time

    def _read(self, known: bool) -> bytes | None:
        try:
            stat = self._path.stat()
            version = (stat.st_dev, stat.st_ino, stat.st_size, stat.st_mtime_ns)
            if known and version == self._seen:
                return None
            with self._path.open("rb") as file:
                text = file.read(MAX_BYTES + 1)
        except OSError as error:
            raise KeySetError(f"cannot read `{self.place}`: {error.strerror or error}") from None
        if len(text) > MAX_BYTES:
            raise KeySetError(f"`{self.place}` is larger than {MAX_BYTES} bytes")
        self._seen = version
        return text


class RemoteOrigin:
    """A URL that answers GET with 200 and a JWK set. Redirects are not followed."""

    def __init__(
        self, http: httpx.AsyncClient, url: str, *, timeout: float = TIMEOUT, max_bytes: int = MAX_BYTES
    ) -> None:
        self.place = url
        self._http = http
        self._timeout = timeout
        self._max_bytes = max_bytes

    async def read(self, *, known: bool) -> bytes | None:
        """GET the text. What a server has is never known beforehand."""
        try:
            response = await fetch(self._http, self.place, timeout=self._timeout, max_bytes=self._max_bytes)
        except FetchError as error:
            raise KeySetError(f"cannot fetch `{self.place}`: {error}") from None
        if response.status != 200:
            hint = "; give the address that it redirects to" if 300 <= response.status < 400 else ""
            raise KeySetError(f"`{self.place}` answered with status {response.status}{hint}")
        return response.body


# --- key sets ---------------------------------------------------------------------------------------------


class KeysWanted(Exception):  # noqa: N818  # a request to the caller, not an error
    """The answer needs keys that may be had: await :meth:`fetch`, then ask again."""

    def __init__(self, key_set: KeySet) -> None:
        self.key_set = key_set
        super().__init__(key_set.id)

    def fetch(self) -> Awaitable[None]:
        """Load the key set, together with everyone else who waits for it. Never fails."""
        return self.key_set.fetch()


class KeySetUnavailable(Exception):  # noqa: N818  # the name says the state
    """No keys at hand and none to be had now: a failure of ours (503), not of the client's token."""

    reason = "keys.unavailable"

    def __init__(self, key_set_id: str) -> None:
        self.key_set_id = key_set_id
        super().__init__(f"the key set `{key_set_id}` is not available")


@dataclass(frozen=True, slots=True)
class KeySetStatus:
    """The state of a key set, for people and metrics. Times: seconds since the epoch, 0 for never."""

    id: str
    place: str
    keys: int
    loaded_at: float
    """When the origin last confirmed or replaced the keys."""
    failing_since: float
    """Since when every attempt has failed; 0 while the last one succeeded. With keys at hand: stale keys
    serve."""
    error: str
    """What the last attempt failed with."""
    remarks: tuple[str, ...]
    """Keys left out, and why."""


class KeySet:
    """The current keys of one origin.

    *refresh_interval* is the time between two background reads; after a failure *cooldown* is, if shorter.
    *cooldown* lies between the last read and one that an unknown key id may cause. *serve_stale* is how long
    keys serve after their origin last confirmed them. All in seconds; *clock* is monotonic, *wall* the time
    of day.
    """

    def __init__(
        self,
        id: str,  # noqa: A002  # Cerbos's word
        origin: Origin,
        *,
        form: KeyFormat = JWKS,
        refresh_interval: float = REMOTE_INTERVAL,
        cooldown: float = COOLDOWN,
        serve_stale: float = math.inf,
        clock: Callable[[], float] = time.monotonic,
        wall: Callable[[], float] = time.time,
    ) -> None:
        if cooldown <= 0 or refresh_interval <= 0:
            raise ValueError("the refresh interval and the cool-down must be longer than zero")
        self.id = id
        self.keys: Keys | None = None
        """``None`` until loaded, and when they are too old. INVARIANT (a new object only with new content):
        what was derived from the keys is good as long as this is the same object."""
        self._origin, self._form = origin, form
        self._refresh_interval, self._cooldown, self._serve_stale = refresh_interval, cooldown, serve_stale
        self._retry = min(cooldown, RETRY)
        self._clock, self._wall = clock, wall
        self._attempted = self._confirmed = -math.inf
        self._loaded_at = self._failing_since = 0.0
        self._error = ""
        self._wanted: set[str] = set()
        self._absent: dict[str, float] = {}
        self._flight: asyncio.Task[None] | None = None
        self._keeper: asyncio.Task[None] | None = None

    def candidates(self, kid: str | None) -> tuple[Key, ...]:
        """Give the keys that a token with this *kid* may be signed with; none when the id is unknown.

        Raises :class:`KeysWanted` when a fetch may bring the key and may be made now, and
        :class:`KeySetUnavailable` when there are no keys at all and none may be fetched now.
        """
        keys = self.keys
        if keys is None:
            if self._may_fetch():
                raise KeysWanted(self)
            raise KeySetUnavailable(self.id)
        found = keys.candidates(kid)
        if not found and kid is not None and not self._known_absent(kid) and self._may_fetch():
            self._want(kid)
            raise KeysWanted(self)
        return found

    async def fetch(self) -> None:
        """Read the origin once, shared by all who wait; the outcome is in :attr:`keys` and :meth:`status`."""
        if self._flight is None or self._flight.done():
            self._flight = asyncio.create_task(self._load(), name=f"key set {self.id}")
        await asyncio.shield(self._flight)  # one who stops waiting does not stop it for the others

    async def start(self) -> None:
        """Load for the first time, then keep fresh in the background until :meth:`stop`. Does not fail."""
        await self.fetch()
        self._keeper = asyncio.create_task(self._keep_fresh(), name=f"key set {self.id}, refresh")

    async def stop(self) -> None:
        """End what runs in the background."""
        running = [task for task in (self._keeper, self._flight) if task is not None]
        for task in running:
            task.cancel()
        await asyncio.gather(*running, return_exceptions=True)

    def status(self) -> KeySetStatus:
        """Tell how the set is doing."""
        members, remarks = (self.keys.members, self.keys.remarks) if self.keys else ((), ())
        return KeySetStatus(
            self.id,
            self._origin.place,
            len(members),
            self._loaded_at,
            self._failing_since,
            self._error,
            remarks,
        )

    def pause(self) -> float:
        """Tell for how many seconds to sleep: to the next read, or until the keys are too old."""
        interval = self._cooldown if self.keys is not None else self._retry
        due = self._attempted + (
            min(self._refresh_interval, interval) if self._failing_since else self._refresh_interval
        )
        if self.keys is not None:
            due = min(due, self._confirmed + self._serve_stale)
        return max(0.0, due - self._clock())

    async def _keep_fresh(self) -> None:
        while True:
            await asyncio.sleep(self.pause())
            await self.fetch()

    def _may_fetch(self) -> bool:
        """Tell whether waiting for a fetch makes sense: one is under way, or the cool-down is over."""
        under_way = self._flight is not None and not self._flight.done()
        cooldown = self._cooldown if self.keys is not None else self._retry
        return under_way or self._clock() - self._attempted >= cooldown

    async def _load(self) -> None:
        try:
            text = await self._origin.read(known=self.keys is not None and not self._error)
            keys = self.keys if text is None else parse_keys(text, self._form)
        except KeySetError as error:
            self._failed(str(error))
        except Exception as error:  # a bug of ours must not end the refreshing, and stale keys beat none
            log.exception("reading the key set %s failed unexpectedly", self.id)
            self._failed(f"unexpected {type(error).__name__}")
        else:
            self._succeeded(keys)
        finally:
            self._attempted = self._clock()
            self._wanted.clear()

    def _succeeded(self, keys: Keys | None) -> None:
        if keys != self.keys:
            log.info(
                "key set %s: %d keys from %s", self.id, len(keys.members) if keys else 0, self._origin.place
            )
            self.keys = keys
            self._absent.clear()
        self._remember_absent(self._wanted.difference(keys.by_kid if keys else ()))
        self._confirmed, self._loaded_at = self._clock(), self._wall()
        self._failing_since, self._error = 0.0, ""

    def _failed(self, error: str) -> None:
        self._failing_since = self._failing_since or self._wall()
        if error != self._error:
            log.warning("key set %s: %s", self.id, error)
        self._error = error
        if self._clock() - self._confirmed >= self._serve_stale:
            self.keys = None

    def _want(self, kid: str) -> None:
        if len(self._wanted) < MAX_ABSENT and len(kid) <= MAX_ABSENT_KID:
            self._wanted.add(kid)

    def _known_absent(self, kid: str) -> bool:
        return self._absent.get(kid, -math.inf) > self._clock()

    def _remember_absent(self, kids: Iterable[str]) -> None:
        """Answer further tokens with *kids* at once for two cool-downs: no waiting, no fetch."""
        until = self._clock() + 2 * self._cooldown
        for kid in kids:
            if len(self._absent) >= MAX_ABSENT:
                del self._absent[next(iter(self._absent))]
            self._absent[kid] = until


class KeySets:
    """All key sets of a configuration."""

    def __init__(self, members: Iterable[KeySet]) -> None:
        self._members = {member.id: member for member in members}

    def __getitem__(self, id: str) -> KeySet:  # noqa: A002  # Cerbos's word
        return self._members[id]

    async def start(self) -> None:
        """Load all sets side by side, as long as the slowest takes, and keep them fresh."""
        await asyncio.gather(*(member.start() for member in self._members.values()))

    async def stop(self) -> None:
        """End what runs in the background."""
        await asyncio.gather(*(member.stop() for member in self._members.values()))

    def status(self) -> tuple[KeySetStatus, ...]:
        """Tell how each set is doing."""
        return tuple(member.status() for member in self._members.values())
