"""Who asks: from the credentials of a request to an engine principal.

A token is verified once and then remembered by its text until it expires, so that the usual request costs one
look-up. What is remembered is bound to the key that verified it: when that key leaves its set, the token is
verified anew, and refused.

The texts themselves are the keys of the memory, not digests of them: a ``dict`` hashes with a secret of the
process and compares a text only when all 64 bits agree, so timing tells nothing about remembered tokens, and
it is several times faster than SHA-256. Whoever can read the memory of the process sees the tokens of running
requests anyway.
"""

from __future__ import annotations

import datetime
import re
import time
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from engine.model import EMPTY, NO_AUX_DATA, AuxData, Principal, json_value
from extauthz.keysets import KeySetUnavailable, KeysWanted
from extauthz.recent import Recent
from extauthz.slots import MISSING, SlotError
from extauthz.tokens import TokenRefused, TokenRules, Verifier

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from engine.model import JsonValue
    from extauthz.facts import Facts
    from extauthz.keysets import Keys, KeySet
    from extauthz.request import HttpRequest
    from extauthz.slots import Slot
    from extauthz.tokens import VerifiedToken

__all__ = [
    "Identified",
    "Identity",
    "JwtIdentity",
    "KeySetUnavailable",
    "KeysWanted",
    "PrincipalSlots",
    "TokenPlace",
    "TokenRules",
    "Unauthenticated",
]

MAX_REMEMBERED = 10_000
MAX_REMEMBERED_CHARACTERS = 16 * 1024 * 1024


# --- answers ----------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Identified:
    """Who asks, as the engine takes it."""

    principal: Principal
    claims: Mapping[str, JsonValue] = field(default_factory=lambda: EMPTY)
    """The verified claims as they stand in the token; empty for the anonymous principal."""
    aux_data: AuxData = NO_AUX_DATA
    """The claims in the form in which Cerbos's policies see them, see :func:`cerbos_claims`."""
    anonymous: bool = False


class Unauthenticated(Exception):  # noqa: N818  # the state, as RFC 9110 names the status
    """The request does not prove who asks.

    *reason* is the stable code, *description* a sentence for the client, *detail* one for the log;
    *www_authenticate* is the value of that header (RFC 6750 §3). None of them repeats anything the client
    sent.
    """

    def __init__(self, reason: str, description: str, www_authenticate: str, detail: str = "") -> None:
        self.reason = reason
        self.description = description
        self.www_authenticate = www_authenticate
        self.detail = detail or description
        super().__init__(f"{reason}: {self.detail}")


INVALID_REQUEST, INVALID_TOKEN = "invalid_request", "invalid_token"

REFUSALS: Mapping[str, tuple[str, str]] = {
    "authn.missing": ("", "a token is needed"),
    "authn.ambiguous_credentials": (INVALID_REQUEST, "credentials were sent more than once"),
    "authn.malformed": (INVALID_TOKEN, "the token is malformed"),
    "authn.too_large": (INVALID_TOKEN, "the token is too large"),
    "authn.algorithm": (INVALID_TOKEN, "the algorithm of the token is not accepted"),
    "authn.unknown_key": (INVALID_TOKEN, "the key of the token is not known"),
    "authn.signature": (INVALID_TOKEN, "the signature of the token is wrong"),
    "authn.issuer": (INVALID_TOKEN, "the issuer of the token is not accepted"),
    "authn.audience": (INVALID_TOKEN, "the token is not meant for this audience"),
    "authn.expired": (INVALID_TOKEN, "the token has expired"),
    "authn.not_yet_valid": (INVALID_TOKEN, "the token is not valid yet"),
    "authn.claims": (INVALID_TOKEN, "the claims of the token are not acceptable"),
}
"""Reason: RFC 6750 error code (none when nothing was sent, §3.1) and description."""


class Challenges:
    """The ``WWW-Authenticate`` values of one realm, made once."""

    def __init__(self, realm: str) -> None:
        """*realm* is shown to people by browsers; printable ASCII."""
        if not re.fullmatch(r"[ -~]*", realm):
            raise ValueError("the realm may hold printable ASCII characters only")
        quoted = realm.replace("\\", "\\\\").replace('"', '\\"')
        self._values = {reason: _challenge(quoted, *refusal) for reason, refusal in REFUSALS.items()}

    def refuse(self, reason: str, detail: str = "") -> Unauthenticated:
        """Make the refusal for *reason*, one of :data:`REFUSALS`."""
        return Unauthenticated(reason, REFUSALS[reason][1], self._values[reason], detail)


def _challenge(realm: str, error: str, description: str) -> str:
    challenge = f'Bearer realm="{realm}"'
    return f'{challenge}, error="{error}", error_description="{description}"' if error else challenge


# --- where tokens are -------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class TokenPlace:
    """A header or a cookie that may hold a token; exactly one of the two names is set.

    A header's token follows *scheme* (compared case-insensitively, RFC 9110 §11.1); an empty one means that
    the value is the token. A header with another scheme holds no token.
    """

    header: str = ""
    cookie: str = ""
    scheme: str = "Bearer"

    def __post_init__(self) -> None:
        if bool(self.header) == bool(self.cookie):
            raise ValueError("a token is in a header or in a cookie")
        object.__setattr__(self, "header", self.header.lower())
        object.__setattr__(self, "scheme", self.scheme.lower() if self.header else "")

    def find(self, facts: Facts) -> str | None:
        """Give what the request has here, not yet looked into; None when there is nothing.

        Raises :class:`TokenRefused` when there are two cookies of the name.
        """
        if self.header:
            return facts.request.header(self.header)
        values = facts.cookie_values.get(self.cookie, ())
        if len(values) > 1:
            raise TokenRefused("authn.ambiguous_credentials", f"several cookies `{self.cookie}`")
        return values[0] if values else None

    def token(self, request: HttpRequest, text: str) -> str | None:
        """Cut the token out of *text*, which :meth:`find` gave; None when it is of another scheme.

        Raises :class:`TokenRefused` when there may be two credentials: a repeated header, also one that a
        gateway has joined with commas, which no token contains.
        """
        if self.cookie:
            return text
        if self._repeated(request, text):
            raise TokenRefused("authn.ambiguous_credentials", f"several values in the header `{self.header}`")
        if not self.scheme:
            return text.strip(" \t")
        return text[len(self.scheme) :].strip(" \t") if self._has_scheme(text) else None

    def _has_scheme(self, text: str) -> bool:
        end = len(self.scheme)
        return text[:end].lower() == self.scheme and text[end : end + 1] in ("", " ", "\t", ",")

    def _repeated(self, request: HttpRequest, text: str) -> bool:
        if len(request.header_values(self.header)) > 1:
            return True
        if "," not in text:
            return False
        # A single header of a scheme with parameters (Digest) has commas too; it is no business of ours.
        return not self.scheme or any(self._has_scheme(part.lstrip(" \t")) for part in text.split(","))


BEARER = TokenPlace(header="authorization")


# --- principals -------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class PrincipalSlots:
    """How a principal is made of the facts."""

    id: Slot
    roles: Slot
    attr: Mapping[str, Slot]
    policy_version: Slot | None = None
    scope: Slot | None = None

    @property
    def claims_only(self) -> bool:
        """Whether the principal follows from the claims alone, so that it can be remembered with them."""
        optional = [slot for slot in (self.policy_version, self.scope) if slot is not None]
        return all(map(_of_claims, (self.id, self.roles, *self.attr.values(), *optional)))

    def build(self, facts: Facts) -> Principal:
        """Make the principal.

        Raises :class:`TokenRefused` when the claims do not give one, and :class:`~extauthz.slots.SlotError`
        when something else that it depends on is missing.
        """
        return Principal(
            _text(_ask(self.id, facts), "id"),
            _roles(_ask(self.roles, facts)),
            _attributes(self.attr, facts),
            _optional_text(self.policy_version, facts, "policy version"),
            _optional_text(self.scope, facts, "scope"),
        )


def _of_claims(slot: Slot) -> bool:
    return slot.identifiers <= {"claims"}


def _ask(slot: Slot, facts: Facts) -> Any:
    try:
        return slot.function(facts)
    except SlotError as error:
        if _of_claims(slot):
            raise TokenRefused("authn.claims", str(error)) from None
        raise


def _attributes(slots: Mapping[str, Slot], facts: Facts) -> dict[str, JsonValue]:
    values = {name: _ask(slot, facts) for name, slot in slots.items()}
    return {name: json_value(value) for name, value in values.items() if value is not MISSING}


def _text(value: object, name: str) -> str:
    if isinstance(value, str) and value:
        return value
    raise TokenRefused("authn.claims", f"the principal's {name} is not a non-empty string")


def _optional_text(slot: Slot | None, facts: Facts, name: str) -> str:
    value = "" if slot is None else _ask(slot, facts)
    return "" if value in (None, MISSING, "") else _text(value, name)


def _roles(value: object) -> tuple[str, ...]:
    """Read roles: a list of non-empty strings, or one such string; each role once, in the order given."""
    listed = [value] if isinstance(value, str) else value
    if not isinstance(listed, list | tuple):
        raise TokenRefused("authn.claims", "the principal's roles are not a list")
    return tuple(dict.fromkeys(_text(role, "role") for role in listed))


def cerbos_claims(claims: Mapping[str, JsonValue]) -> dict[str, JsonValue]:
    """Give *claims* as ``request.auxData.jwt`` has them in Cerbos.

    ``aud`` is a list; ``exp``, ``nbf`` and ``iat`` are RFC 3339 texts in whole seconds, and left out when
    they are beyond the calendar.
    """
    shown = dict(claims)
    if isinstance(shown.get("aud"), str):
        shown["aud"] = [shown["aud"]]
    for name in ("exp", "nbf", "iat"):
        if name in shown:
            text = _rfc3339(shown.pop(name))
            shown |= {name: text} if text else {}
    return shown


def _rfc3339(seconds: JsonValue) -> str:
    try:
        moment = datetime.datetime.fromtimestamp(int(seconds), datetime.UTC)
    except (OverflowError, ValueError, OSError):
        return ""
    return moment.strftime("%Y-%m-%dT%H:%M:%SZ")


# --- identity ---------------------------------------------------------------------------------------------


class JwtIdentity:
    """One kind of token: where it is, how it is verified, and whom it stands for."""

    def __init__(
        self,
        key_set: KeySet,
        rules: TokenRules,
        principal: PrincipalSlots,
        *,
        places: Sequence[TokenPlace] = (BEARER,),
        clock: Callable[[], float] = time.time,
    ) -> None:
        self.key_set = key_set
        self.places = tuple(places)
        self.verify: Callable[[str], VerifiedToken] = Verifier(key_set, rules, clock=clock).verify
        self._principal = principal
        self.fixed = principal.claims_only
        """Whether the claims alone make the principal."""

    def remember(self, token: VerifiedToken, facts: Facts) -> _Remembered:
        """Keep what follows from a verified token alone."""
        facts.claims = token.claims
        principal = self._principal.build(facts) if self.fixed else NOBODY
        identified = Identified(principal, token.claims, AuxData(jwt=cerbos_claims(token.claims)))
        return _Remembered(self, identified, token)

    def complete(self, identified: Identified, facts: Facts) -> Identified:
        """Add what depends on this very request."""
        return identified if self.fixed else replace(identified, principal=self._principal.build(facts))


NOBODY = Principal("", ())
"""Stands in for a principal that is made per request; never leaves this module."""


class _Remembered:
    """A verified token, for as long as it and its key are good."""

    __slots__ = ("entry", "expires", "fixed", "identified", "key", "key_set", "keys")

    def __init__(self, entry: JwtIdentity, identified: Identified, token: VerifiedToken) -> None:
        self.entry = entry
        self.identified = identified
        self.expires = token.expires
        self.key = token.key
        self.key_set = entry.key_set
        self.keys: Keys | None = token.keys
        self.fixed = identified.principal is not NOBODY

    def good(self, now: float) -> bool:
        """Tell whether the token is still to be trusted."""
        if now >= self.expires:
            return False
        keys = self.key_set.keys
        if keys is not self.keys:
            if keys is None or self.key not in keys.members:
                return False
            self.keys = keys
        return True


class _Entrance:
    """One place for tokens, the identities that take tokens from it, and those that came in already."""

    __slots__ = ("entries", "memory", "place")

    def __init__(
        self, place: TokenPlace, entries: tuple[JwtIdentity, ...], memory: Recent[_Remembered]
    ) -> None:
        self.place = place
        self.entries = entries
        self.memory = memory


class Identity:
    """Everything a configuration says about who asks.

    The first place, in the order of the entries and of their places, that holds a credential decides. Entries
    that share a place share its token: the one whose issuer it names verifies it.
    """

    def __init__(
        self,
        entries: Sequence[JwtIdentity],
        *,
        anonymous: Principal = Principal("anonymous", ("anonymous",)),  # noqa: B008  # frozen
        realm: str = "extauthz",
        max_remembered: int = MAX_REMEMBERED,
        clock: Callable[[], float] = time.time,
    ) -> None:
        places = dict.fromkeys(place for entry in entries for place in entry.places)
        self._entrances = tuple(
            _Entrance(
                place,
                tuple(entry for entry in entries if place in entry.places),
                Recent(max_remembered // len(places), MAX_REMEMBERED_CHARACTERS // len(places)),
            )
            for place in places
        )
        self._anonymous = Identified(anonymous, anonymous=True)
        self._challenges = Challenges(realm)
        self._clock = clock

    @property
    def only_header(self) -> str | None:
        """The one header that tells who asks; None: more than a header may have to be looked at."""
        if len(self._entrances) != 1:
            return None
        (entrance,) = self._entrances
        return entrance.place.header or None if all(entry.fixed for entry in entrance.entries) else None

    def known(self, text: str) -> Identified | None:
        """Tell who asks by the value of :attr:`only_header`; None: :meth:`identify` has to find it out."""
        young = self._entrances[0].memory.young.get(text)
        if young is None:
            return None
        remembered = young[0]
        if remembered.keys is not remembered.key_set.keys or self._clock() >= remembered.expires:
            return None
        return remembered.identified

    def identify(self, facts: Facts, anonymous_allowed: bool = False) -> Identified:
        """Tell who asks; sets ``facts.claims``.

        Without any credential the answer is the anonymous principal, where that is allowed; a bad credential
        is refused there too. Raises :class:`Unauthenticated`; :class:`KeysWanted` when keys have to be
        fetched first: await its ``fetch()``, then ask again; :class:`KeySetUnavailable` when there are none
        to be had.
        """
        try:
            for entrance in self._entrances:
                text = entrance.place.find(facts)
                if text is None:
                    continue
                young = entrance.memory.young.get(text)  # nearly every request ends here
                remembered = entrance.memory.get(text) if young is None else young[0]
                if remembered is not None and remembered.good(self._clock()):
                    facts.claims = remembered.identified.claims
                    if remembered.fixed:
                        return remembered.identified
                    return remembered.entry.complete(remembered.identified, facts)
                token = entrance.place.token(facts.request, text)
                if token is not None:
                    return self._verified(entrance, text, token, facts)
        except TokenRefused as error:
            raise self._challenges.refuse(error.reason, error.detail) from None
        if not anonymous_allowed:
            raise self._challenges.refuse("authn.missing")
        facts.claims = EMPTY
        return self._anonymous

    def _verified(self, entrance: _Entrance, text: str, token: str, facts: Facts) -> Identified:
        entrance.memory.drop(text)
        entry, verified = _first_verified(entrance.entries, token)
        remembered = entry.remember(verified, facts)
        entrance.memory.put(text, remembered, len(text))
        return entry.complete(remembered.identified, facts)


def _first_verified(entries: tuple[JwtIdentity, ...], token: str) -> tuple[JwtIdentity, VerifiedToken]:
    """Let the first entry that knows the token's issuer decide; any other refusal is final."""
    for entry in entries[:-1]:
        try:
            return entry, entry.verify(token)
        except TokenRefused as error:
            if error.reason != "authn.issuer":
                raise
    return entries[-1], entries[-1].verify(token)
