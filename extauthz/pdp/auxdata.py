"""``auxData``: from the tokens of a request to the claims that policies read."""

from __future__ import annotations

import asyncio
import datetime
import logging
from typing import TYPE_CHECKING, Final

from engine.model import NO_AUX_DATA, AuxData
from extauthz.keysets import KeySetUnavailable, KeysWanted
from extauthz.pdp.errors import invalid
from extauthz.tokens import AnyIssuerVerifier, TokenRefused

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from engine.model import JsonValue
    from extauthz.keysets import KeySet
    from extauthz.pdp import messages

logger = logging.getLogger(__name__)

REFUSED: Final = "invalid auxData"
"""All that a client is told (Cerbos's words); the cause is in the log."""
MAX_TOKENS: Final = 16
"""In one request: each may cost the verifying of a signature."""
MAX_FETCHES: Final = 3


class AuxDataReader:
    """Verifies the tokens of requests against the key sets of the configuration.

    With *verify* false signatures are not looked at (``auxData.jwt.disableVerification``), times still are.
    """

    def __init__(self, key_sets: Mapping[str, KeySet], *, leeway: float = 0.0, verify: bool = True) -> None:
        self._verify = verify
        self._unverified = AnyIssuerVerifier(None, leeway=leeway)
        self._verifiers = {name: AnyIssuerVerifier(keys, leeway=leeway) for name, keys in key_sets.items()}

    async def read(self, aux_data: messages.AuxData | None) -> AuxData:
        """Return the claims; raises :class:`~extauthz.pdp.errors.PdpError` when a token is not good."""
        if aux_data is None or (aux_data.jwt is None and not aux_data.jwts):
            return NO_AUX_DATA
        if len(aux_data.jwts) > MAX_TOKENS:
            raise invalid(f"number of tokens ({len(aux_data.jwts)}) exceeds the limit ({MAX_TOKENS})")
        try:
            if aux_data.jwt is not None:
                return AuxData(jwt=await self._claims(aux_data.jwt))
            claims = await asyncio.gather(*map(self._claims, aux_data.jwts.values()))
        except (TokenRefused, KeySetUnavailable) as error:
            logger.warning("auxData was refused: %s", error)
            raise invalid(REFUSED) from None
        return AuxData(
            jwts={name: {"claims": each} for name, each in zip(aux_data.jwts, claims, strict=True)}
        )

    async def _claims(self, token: messages.Token) -> dict[str, JsonValue]:
        if not token.token:
            return {}
        verifier = self._verifier(token.key_set_id)
        for _ in range(MAX_FETCHES):
            try:
                return _converted(verifier.verify(token.token.strip()))
            except KeysWanted as wanted:
                await wanted.fetch()
        raise KeySetUnavailable(token.key_set_id)

    def _verifier(self, key_set_id: str) -> AnyIssuerVerifier:
        if not self._verify:
            return self._unverified
        if not key_set_id and len(self._verifiers) == 1:
            return next(iter(self._verifiers.values()))
        if key_set_id not in self._verifiers:
            told = f"no key set `{key_set_id[:64]}`" if key_set_id else "the token names no key set"
            raise TokenRefused("authn.unknown_key", told)
        return self._verifiers[key_set_id]


# --- claims -----------------------------------------------------------------------------------------------


def _converted(claims: Mapping[str, JsonValue]) -> dict[str, JsonValue]:
    """Return the claims as Cerbos shows them to policies: ``aud`` as a list, times as text.

    Raises :class:`TokenRefused` when a claim of the standard is not of its type.
    """
    return {
        name: _CONVERSIONS[name](value) if name in _CONVERSIONS else value for name, value in claims.items()
    }


def _text(value: JsonValue) -> JsonValue:
    if isinstance(value, str):
        return value
    raise TokenRefused("authn.claims", "a claim that has to be text is not")


def _texts(value: JsonValue) -> JsonValue:
    return [_text(each) for each in (value if isinstance(value, list) else [value])]


CALENDAR_SECONDS: Final = 146_097 * 86_400
"""Of 400 years, after which the calendar is the same again."""


def _time(value: JsonValue) -> JsonValue:
    """Write seconds since the epoch as RFC 3339 does, in UTC; also beyond the year 9999, as Cerbos does."""
    if not isinstance(value, float) or value < 0:
        raise TokenRefused("authn.claims", "a time is not a number of seconds since the epoch")
    cycles, rest = divmod(int(value), CALENDAR_SECONDS)
    moment = datetime.datetime.fromtimestamp(rest, datetime.UTC)
    return f"{moment.year + 400 * cycles:04d}{moment:-%m-%dT%H:%M:%SZ}"


_CONVERSIONS: Final[Mapping[str, Callable[[JsonValue], JsonValue]]] = {
    "aud": _texts,
    "exp": _time,
    "iat": _time,
    "iss": _text,
    "jti": _text,
    "nbf": _time,
    "sub": _text,
}
"""The claims of RFC 7519 §4.1. One of another type is no token of that standard."""
