"""SPIFFE IDs, trust domains and matchers: Cerbos's functions, by section 2 of the SPIFFE-ID standard."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, TypeVar

from engine.cel.library.arguments import elements
from engine.cel.library.declaration import Declaration
from engine.cel.values import EvaluationError, NoSuchOverload

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

Kind = TypeVar("Kind")

SCHEME = "spiffe://"
MAX_ID = 2048
"""Characters; the standard says that an ID is at most 2048 bytes long."""

TRUST_DOMAIN = re.compile(r"[a-z0-9._-]+")
SEGMENT = re.compile(r"[A-Za-z0-9._-]*")
TRUST_DOMAIN_CHARACTERS = (
    "trust domain characters are limited to lowercase letters, numbers, dots, dashes, and underscores"
)


class SpiffeError(ValueError):
    """A text is no SPIFFE ID; the message says why."""


@dataclass(frozen=True, slots=True, eq=False)
class TrustDomain:
    """The name of a trust domain (``cerbos.lib.spiffeTrustDomain``); equal to a string that stands for it."""

    type_name: ClassVar[str] = "cerbos.lib.spiffeTrustDomain"

    name: str

    @classmethod
    def parse(cls, text: str) -> TrustDomain:
        """Read a name, or the trust domain of an ID; raises :class:`SpiffeError`."""
        if ":/" in text:
            return SpiffeID.parse(text).trust_domain
        if not text:
            raise SpiffeError("trust domain is missing")
        if not TRUST_DOMAIN.fullmatch(text) or len(text) > MAX_ID:
            raise SpiffeError(TRUST_DOMAIN_CHARACTERS)
        return cls(text)

    def __eq__(self, other: object) -> bool:
        if type(other) is TrustDomain:
            return self.name == other.name
        return type(other) is str and self._stands_for(other)

    def _stands_for(self, text: str) -> bool:
        try:
            return TrustDomain.parse(text).name == self.name
        except SpiffeError:
            return False

    def __hash__(self) -> int:
        return hash((TrustDomain, self.name))

    def __str__(self) -> str:
        return self.name


@dataclass(frozen=True, slots=True, eq=False)
class SpiffeID:
    """An ID (``cerbos.lib.spiffeID``): a trust domain and a path; equal to a string that is the same ID."""

    type_name: ClassVar[str] = "cerbos.lib.spiffeID"

    trust_domain: TrustDomain
    path: str

    @classmethod
    def parse(cls, text: str) -> SpiffeID:
        """Read ``spiffe://trust-domain/path``; raises :class:`SpiffeError`."""
        if not text:
            raise SpiffeError("cannot be empty")
        if not text.startswith(SCHEME):
            raise SpiffeError("scheme is missing or invalid")
        name, slash, path = text.removeprefix(SCHEME).partition("/")
        if not name:
            raise SpiffeError("trust domain is missing")
        if len(text) > MAX_ID:
            raise SpiffeError(f"longer than {MAX_ID} characters")
        return cls(TrustDomain.parse(name), _path(slash + path))

    def __eq__(self, other: object) -> bool:
        return type(other) in {SpiffeID, str} and str(self) == str(other)

    def __hash__(self) -> int:
        return hash((SpiffeID, self.trust_domain, self.path))

    def __str__(self) -> str:
        return f"{SCHEME}{self.trust_domain}{self.path}"


def _path(path: str) -> str:
    """*path* when it is valid: empty, or segments after slashes; raises :class:`SpiffeError`."""
    segments = path.split("/")[1:]
    for position, segment in enumerate(segments, start=1):
        fault = _segment_fault(segment, last=position == len(segments))
        if fault:
            raise SpiffeError(fault)
    return path


def _segment_fault(segment: str, *, last: bool) -> str:
    if not segment:
        return "path cannot have a trailing slash" if last else "path cannot contain empty segments"
    if segment in {".", ".."}:
        return "path cannot contain dot segments"
    if not SEGMENT.fullmatch(segment):
        return "path segment characters are limited to letters, numbers, dots, dashes, and underscores"
    return ""


@dataclass(frozen=True, slots=True, eq=False)
class Matcher:
    """A test of IDs (``cerbos.lib.spiffeMatcher``); equal to nothing, not even to itself."""

    type_name: ClassVar[str] = "cerbos.lib.spiffeMatcher"

    accepts: Callable[[SpiffeID], bool]

    def __eq__(self, other: object) -> bool:
        return False

    __hash__ = None  # type: ignore[assignment]  # nothing to look it up by


def _text(value: object) -> str:
    if type(value) is not str:
        raise NoSuchOverload
    return value


def _id(value: object, fault: str = "failed to parse SPIFFE ID") -> SpiffeID:
    if type(value) is SpiffeID:
        return value
    try:
        return SpiffeID.parse(_text(value))
    except SpiffeError as error:
        raise EvaluationError(f"{fault}: {error}") from None


def _trust_domain(value: object) -> TrustDomain:
    if type(value) is TrustDomain:
        return value
    try:
        return TrustDomain.parse(_text(value))
    except SpiffeError as error:
        raise EvaluationError(f"failed to parse SPIFFE trust domain: {error}") from None


def spiffe_id(value: object) -> SpiffeID:
    """Return the ID that a string is."""
    return _id(value)


def spiffe_trust_domain(value: object) -> TrustDomain:
    """Return the trust domain that a string names, or that of an ID."""
    return value.trust_domain if type(value) is SpiffeID else _trust_domain(value)


def path(value: object) -> str:
    """Return the path of an ID, empty or with a leading slash."""
    return _exactly(SpiffeID, value).path


def trust_domain(value: object) -> TrustDomain:
    """Return the trust domain of an ID."""
    return _exactly(SpiffeID, value).trust_domain


def is_member_of(value: object, domain: object) -> bool:
    """Whether an ID is in a trust domain."""
    return bool(_exactly(SpiffeID, value).trust_domain == _exactly(TrustDomain, domain))


def name(value: object) -> str:
    """Return the name of a trust domain."""
    return str(_exactly(TrustDomain, value))


def identity(value: object) -> object:
    """Return the value, whose type the checker forgets; of a trust domain, its ID as a string."""
    return f"{SCHEME}{value}" if type(value) is TrustDomain else value


def _exactly(kind: type[Kind], value: object) -> Kind:
    if type(value) is not kind:
        raise NoSuchOverload
    return value


def match_any() -> Matcher:
    """Return a matcher that takes every ID."""
    return Matcher(lambda _: True)


def match_exact(value: object) -> Matcher:
    """Return a matcher that takes one ID."""
    return Matcher(_id(value).__eq__)


def match_one_of(values: object) -> Matcher:
    """Return a matcher that takes the IDs of a list; a list with a text that is none has no matcher."""
    return Matcher(frozenset(_ids(elements(values))).__contains__)


def _ids(values: Sequence[object]) -> list[SpiffeID]:
    try:
        return [_id(value) for value in values]
    except EvaluationError:
        raise NoSuchOverload from None


def match_trust_domain(value: object) -> Matcher:
    """Return a matcher that takes the IDs of a trust domain."""
    wanted = _trust_domain(value)
    return Matcher(lambda candidate: bool(candidate.trust_domain == wanted))


def matches_id(matcher: object, value: object) -> bool:
    """Whether a matcher takes an ID, or the one that a string is."""
    test: Matcher = _exactly(Matcher, matcher)
    return test.accepts(_id(value, "invalid SPIFFE ID"))


FUNCTIONS: Mapping[str, Callable[..., Any]] = {
    "spiffeID": spiffe_id,
    "spiffeTrustDomain": spiffe_trust_domain,
    "path": path,
    "trustDomain": trust_domain,
    "isMemberOf": is_member_of,
    "name": name,
    "id": identity,
    "spiffeMatchAny": match_any,
    "spiffeMatchExact": match_exact,
    "spiffeMatchOneOf": match_one_of,
    "spiffeMatchTrustDomain": match_trust_domain,
    "matchesID": matches_id,
}

ID, DOMAIN, MATCHER = SpiffeID.type_name, TrustDomain.type_name, Matcher.type_name
TYPES: tuple[str, ...] = (ID, DOMAIN, MATCHER)

DECLARATIONS: tuple[Declaration, ...] = (
    Declaration("spiffeID", "spiffeID_string", ("string",), ID),
    Declaration("spiffeTrustDomain", "spiffeTrustDomain_string", ("string",), DOMAIN),
    Declaration("path", "path", (ID,), "string", member=True),
    Declaration("trustDomain", "trustDomain", (ID,), DOMAIN, member=True),
    Declaration("isMemberOf", "isMemberOf", (ID, DOMAIN), "bool", member=True),
    Declaration("name", "name", (DOMAIN,), "string", member=True),
    Declaration("id", "id", (DOMAIN,), "string", member=True),
    Declaration("id", "id_overload", ("dyn",), "dyn"),
    Declaration("spiffeMatchAny", "spiffeMatchAny", (), MATCHER),
    Declaration("spiffeMatchExact", "spiffeMatchExact_spiffeID", (ID,), MATCHER),
    Declaration("spiffeMatchExact", "spiffeMatchExact_string", ("string",), MATCHER),
    Declaration("spiffeMatchOneOf", "spiffeMatchOneOf_spiffeIDList", (f"list<{ID}>",), MATCHER),
    Declaration("spiffeMatchOneOf", "spiffeMatchOneOf_stringList", ("list<string>",), MATCHER),
    Declaration("spiffeMatchTrustDomain", "spiffeMatchTrustDomain_spiffeTrustDomain", (DOMAIN,), MATCHER),
    Declaration("spiffeMatchTrustDomain", "spiffeMatchTrustDomain_string", ("string",), MATCHER),
    Declaration("matchesID", "matchesID_spiffeID", (MATCHER, ID), "bool", member=True),
    Declaration("matchesID", "matchesID_string", (MATCHER, "string"), "bool", member=True),
)
