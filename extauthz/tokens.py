"""JSON Web Tokens: from a text to verified claims, or to the reason why not.

Rules of RFC 7515 (JWS), RFC 7519 (JWT) and RFC 8725 (best practice) that leave a choice are settled strictly:
the algorithm is one that the configuration names *and* the key allows; nothing in the token says where keys
are (``jku``, ``x5u``, ``jwk``, ``x5c`` are not looked at) and its ``kid`` is only compared; issuer, audience
and expiry are always checked; what is encrypted, nested or critical is refused.

Keys and signatures are PyJWT's. Reading the token is done here: PyJWT 2 accepts duplicate keys and numbers
written as strings, reads the system's clock, and looks at every character of a token in Python, which for one
of 16 KiB costs more than the signature.
"""

from __future__ import annotations

import base64
import binascii
import re
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from extauthz import strict_json
from extauthz.keysets import MAX_CANDIDATES, VERIFIERS
from extauthz.recent import Recent

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from engine.model import JsonValue
    from extauthz.keysets import Key, Keys, KeySet

MAX_BYTES = 16 * 1024
MAX_REMEMBERED = 10_000
"""Tokens in ``auxData`` that were verified, for each key set."""
MAX_REMEMBERED_CHARACTERS = 16 * 1024 * 1024
"""Of all of them together: what they hold in memory is a few times that."""
TOKEN = re.compile(r"([A-Za-z0-9_-]++)\.([A-Za-z0-9_-]++)\.([A-Za-z0-9_-]*+)")


class TokenRefused(Exception):  # noqa: N818  # refusing is what happened
    """The token is not good; *reason* is the stable code, *detail* is for the log and names no secret."""

    def __init__(self, reason: str, detail: str) -> None:
        self.reason = reason
        self.detail = detail
        super().__init__(f"{reason}: {detail}")


@dataclass(frozen=True, slots=True)
class TokenRules:
    """What a token has to fulfil. *leeway* is in seconds and goes for ``exp``, ``nbf`` and ``iat``."""

    issuers: tuple[str, ...]
    audiences: tuple[str, ...]
    algorithms: frozenset[str]
    leeway: float = 0.0
    max_bytes: int = MAX_BYTES
    required_claims: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if not (self.issuers and self.audiences and self.algorithms):
            raise ValueError("issuers, audiences and algorithms must each name at least one")
        unsupported = sorted(self.algorithms - VERIFIERS.keys())
        if unsupported:
            raise ValueError(
                f"unsupported algorithm `{unsupported[0]}`; supported: {', '.join(sorted(VERIFIERS))}"
            )
        if not self.leeway >= 0:
            raise ValueError("the leeway must not be negative")


@dataclass(frozen=True, slots=True)
class VerifiedToken:
    """The claims of a token that was good when verified, and what it stays good by.

    *expires* is the end in seconds since the epoch, leeway included; *key* verified it and was one of *keys*.
    """

    claims: Mapping[str, JsonValue]
    expires: float
    key: Key
    keys: Keys | None


class Verifier:
    """Verifies tokens of one issuer against one key set."""

    def __init__(self, key_set: KeySet, rules: TokenRules, *, clock: Callable[[], float] = time.time) -> None:
        self.key_set = key_set
        self.rules = rules
        self._clock = clock

    def verify(self, token: str) -> VerifiedToken:
        """Verify *token*.

        The issuer is compared before a key is looked for, so that a stranger's token does not make us fetch
        keys. Raises :class:`TokenRefused`; :class:`~extauthz.keysets.KeysWanted` and
        :class:`~extauthz.keysets.KeySetUnavailable` when the key is not at hand.
        """
        head, body, signature = _split(token, self.rules.max_bytes)
        header, claims = _object(head, "header"), _object(body, "payload")
        _check_plain(header)
        _check_issuer(claims, self.rules.issuers)
        algorithm = _algorithm(header, self.rules.algorithms)
        keys = self.key_set.keys
        candidates = _able(self.key_set.candidates(_kid(header)), algorithm)
        key = _signer(
            candidates, algorithm, token.rpartition(".")[0].encode(), _decode(signature, "signature")
        )
        _check_audience(claims, self.rules.audiences)
        expires = _check_times(claims, self._clock(), self.rules.leeway)
        _check_required(claims, self.rules.required_claims)
        return VerifiedToken(claims, expires, key, keys)


class AnyIssuerVerifier:
    """Verifies tokens of anyone, for anyone, as Cerbos's ``auxData`` does: signature and times alone.

    Who calls the PDP API says whose token it passes on; policies see its claims and judge. Without a
    *key_set* signatures are not looked at. *leeway* is in seconds, for ``exp``, ``nbf`` and ``iat``. What has
    been verified is remembered for as long as the key set has the same keys; times are looked at every time.
    """

    def __init__(
        self, key_set: KeySet | None, *, leeway: float = 0.0, clock: Callable[[], float] = time.time
    ) -> None:
        self.key_set = key_set
        self._leeway = leeway
        self._clock = clock
        self._memory: Recent[tuple[dict[str, JsonValue], Keys | None]] = Recent(
            MAX_REMEMBERED, MAX_REMEMBERED_CHARACTERS
        )

    def verify(self, token: str) -> dict[str, JsonValue]:
        """Return the claims of *token*, which are not to be changed.

        Raises as :meth:`Verifier.verify` does.
        """
        keys = None if self.key_set is None else self.key_set.keys
        known = self._memory.get(token)
        if known is not None and known[1] is keys:
            claims = known[0]
        else:
            claims = self._verified(token)
            self._memory.put(token, (claims, keys), len(token))
        _check_optional_times(claims, self._clock(), self._leeway)
        return claims

    def _verified(self, token: str) -> dict[str, JsonValue]:
        head, body, signature = _split(token, MAX_BYTES)
        header, claims = _object(head, "header"), _object(body, "payload")
        _check_plain(header)
        if self.key_set is not None:
            algorithm = _algorithm(header, frozenset(VERIFIERS))
            candidates = _able(self.key_set.candidates(_kid(header)), algorithm)
            _signer(candidates, algorithm, token.rpartition(".")[0].encode(), _decode(signature, "signature"))
        return claims


# --- reading ----------------------------------------------------------------------------------------------


def _split(token: str, max_bytes: int) -> tuple[str, str, str]:
    if len(token) > max_bytes:
        raise TokenRefused("authn.too_large", f"longer than {max_bytes} bytes")
    parts = TOKEN.fullmatch(token)
    if parts is None:
        shape = "encrypted (JWE)" if token.count(".") == 4 else "not three parts of base64url"
        raise TokenRefused("authn.malformed", f"the token is {shape}")
    return parts[1], parts[2], parts[3]


def _decode(part: str, name: str) -> bytes:
    """Decode base64url without padding (RFC 7515 §2), in the one canonical spelling of the bytes."""
    try:
        data = base64.urlsafe_b64decode(part + "==")
    except binascii.Error:
        raise TokenRefused("authn.malformed", f"the {name} is not base64url") from None
    if base64.urlsafe_b64encode(data).rstrip(b"=") != part.encode():
        raise TokenRefused("authn.malformed", f"the {name} is not canonical base64url")
    return data


def _object(part: str, name: str) -> dict[str, JsonValue]:
    try:
        return strict_json.parse_object(_decode(part, name))
    except strict_json.StrictJsonError as error:
        raise TokenRefused("authn.malformed", f"the {name} is {error}") from None


def _check_plain(header: dict[str, JsonValue]) -> None:
    """Refuse what would have to be understood (RFC 7515 §4.1.11), unpacked or decrypted first."""
    for name in ("crit", "b64", "zip", "enc"):
        if name in header:
            raise TokenRefused("authn.malformed", f"the header has `{name}`")
    if str(header.get("cty", "")).upper().removeprefix("APPLICATION/") == "JWT":
        raise TokenRefused("authn.malformed", "the token holds another token")


def _algorithm(header: dict[str, JsonValue], allowed: frozenset[str]) -> str:
    algorithm = header.get("alg")
    if not isinstance(algorithm, str) or algorithm not in allowed:
        raise TokenRefused("authn.algorithm", "the algorithm is not one of the configured ones")
    return algorithm


def _kid(header: dict[str, JsonValue]) -> str | None:
    kid = header.get("kid")
    if "kid" in header and not isinstance(kid, str):
        raise TokenRefused("authn.malformed", "`kid` is not a string")
    return kid


# --- the signature ----------------------------------------------------------------------------------------


def _able(candidates: tuple[Key, ...], algorithm: str) -> tuple[Key, ...]:
    if not candidates:
        raise TokenRefused("authn.unknown_key", "the key set has no key with this `kid`")
    able = tuple(key for key in candidates if algorithm in key.algorithms)
    if not able:
        raise TokenRefused("authn.algorithm", "the key is not for this algorithm")
    if len(able) > MAX_CANDIDATES:
        raise TokenRefused("authn.unknown_key", "the token names no key and too many fit")
    return able


def _signer(candidates: tuple[Key, ...], algorithm: str, message: bytes, signature: bytes) -> Key:
    for key in candidates:
        if key.verifies(algorithm, message, signature):
            return key
    raise TokenRefused("authn.signature", "the signature is wrong")


# --- the claims -------------------------------------------------------------------------------------------


def _check_issuer(claims: dict[str, JsonValue], issuers: tuple[str, ...]) -> None:
    if claims.get("iss") not in issuers:
        raise TokenRefused("authn.issuer", "`iss` is not one of the configured issuers")


def _check_audience(claims: dict[str, JsonValue], audiences: tuple[str, ...]) -> None:
    claimed = claims.get("aud")
    if not any(audience in audiences for audience in (claimed if isinstance(claimed, list) else [claimed])):
        raise TokenRefused("authn.audience", "`aud` names none of the configured audiences")


def _check_times(claims: dict[str, JsonValue], now: float, leeway: float) -> float:
    """Check ``exp``, ``nbf`` and ``iat`` (RFC 7519 §4.1.4 to §4.1.6); return the end of the token's life."""
    if "exp" not in claims:
        raise TokenRefused("authn.claims", "`exp` is missing")
    _check_optional_times(claims, now, leeway)
    return _seconds(claims, "exp") + leeway


def _check_optional_times(claims: dict[str, JsonValue], now: float, leeway: float) -> None:
    """Check those of ``exp``, ``nbf`` and ``iat`` that the token has."""
    if "exp" in claims and now >= _seconds(claims, "exp") + leeway:
        raise TokenRefused("authn.expired", "`exp` is in the past")
    for name in ("nbf", "iat"):
        if name in claims and _seconds(claims, name) > now + leeway:
            raise TokenRefused("authn.not_yet_valid", f"`{name}` is in the future")


def _seconds(claims: dict[str, JsonValue], name: str) -> float:
    value = claims[name]
    if isinstance(value, float):  # every JSON number is a float here, and a bool is none
        return value
    raise TokenRefused("authn.claims", f"`{name}` is not a number")


def _check_required(claims: dict[str, JsonValue], required: tuple[str, ...]) -> None:
    for name in required:
        if claims.get(name) in (None, "", [], {}):
            raise TokenRefused("authn.claims", f"`{name}` is missing")
