"""What is known about one request, under the names that expressions use.

What takes work (query, cookies, body, peer) is read late, when a slot asks for it, and strictly: what an
upstream could read in another way than we do is a :class:`FactError`, never a guess.
"""

from __future__ import annotations

import re
import time
import urllib.parse
from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final, Generic, NamedTuple, Protocol, Self, TypeVar, overload

from engine.cel.values import EvaluationError, Timestamp
from engine.model import Principal, Resource
from extauthz import strict_json

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from engine.model import JsonValue
    from extauthz.request import HttpRequest

V = TypeVar("V")

MAX_QUERY_PARAMETERS: Final = 1000
MAX_BODY_BYTES: Final = 64 * 1024
MAX_SPIFFE_ID: Final = 2048
"""Bytes of a SPIFFE ID (SPIFFE-ID standard, §2.3)."""

# Reasons, as in :mod:`extauthz.reasons`.
MAPPING: Final = "mapping.request"
BODY_MALFORMED: Final = "body.malformed"
BODY_MISSING: Final = "body.missing"
BODY_TOO_LARGE: Final = "body.too_large"
BODY_TRUNCATED: Final = "body.truncated"
BODY_TYPE: Final = "body.unsupported_type"


class FactError(EvaluationError):
    """Something about the request cannot be had: a body cut off, a query that is not UTF-8.

    *reason* is a stable code (:mod:`extauthz.reasons`). It is an :class:`EvaluationError`, so that it passes
    through expressions. The message repeats nothing of the request but names.
    """

    def __init__(self, reason: str, message: str) -> None:
        self.reason = reason
        super().__init__(message)


# --- values that expressions see ----------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class PeerFacts:
    """The client's end of the connection to the gateway. What is not known is empty."""

    address: str = ""
    port: int = 0
    principal: str = ""
    trust_domain: str = ""
    namespace: str = ""
    service_account: str = ""


class DecisionFacts(NamedTuple):
    """What was decided, for the slots of answers."""

    id: str = ""
    effect: str = ""
    """``EFFECT_ALLOW`` or ``EFFECT_DENY``."""
    policy: str = ""
    scope: str = ""
    rule: str = ""


class Named(Protocol):
    """A route, as far as expressions see it."""

    @property
    def name(self) -> str:
        """Its id, or what it matches."""


@dataclass(frozen=True, slots=True)
class _NoRoute:
    name: str = ""


# --- facts ------------------------------------------------------------------------------------------------


class _Late(Generic[V]):
    """An attribute that is computed when it is first asked for, and a plain one from then on.

    As a descriptor without ``__set__`` it gives way to what it has put into the instance.
    """

    def __init__(self, compute: Callable[[Any], V]) -> None:
        self._compute = compute
        self.__doc__ = compute.__doc__

    def __set_name__(self, owner: type, name: str) -> None:
        self._name = name

    @overload
    def __get__(self, instance: None, owner: type) -> Self: ...
    @overload
    def __get__(self, instance: object, owner: type) -> V: ...
    def __get__(self, instance: object | None, owner: type) -> Self | V:
        if instance is None:
            return self
        value = instance.__dict__[self._name] = self._compute(instance)
        return value


NO_VALUES: Final[Mapping[str, Any]] = MappingProxyType({})


class Facts:
    """Everything that is known about one request.

    It fills up on the request's way: the request; then the route and its path parameters; then the claims;
    then principal, resource and action; then the decision, its outputs and its reason.
    """

    path: Mapping[str, object] = NO_VALUES
    """The captures of the route's path, by name: text, or an ``int`` for ``{name:int}``."""
    route: Named = _NoRoute()
    claims: Mapping[str, JsonValue] = NO_VALUES
    """Of the verified token; empty for the anonymous principal."""
    principal: Principal = Principal("", ())
    resource: Resource = Resource("", "")
    action: str = ""
    decision: DecisionFacts = DecisionFacts()
    outputs: Mapping[str, JsonValue] = NO_VALUES
    """What the rules had to say, by name."""
    reason: str = ""

    def __init__(self, request: HttpRequest, max_body_bytes: int = MAX_BODY_BYTES) -> None:
        self.request = request
        self.max_body_bytes = max_body_bytes

    @_Late
    def now(self) -> Timestamp:
        """Return the time of the decision, the same for everything in it."""
        return Timestamp(time.time_ns())

    @_Late
    def headers(self) -> Mapping[str, str]:
        """Return the headers by lower-case name; a repeated one joined with ``,``."""
        return self.request.headers

    @_Late
    def context(self) -> Mapping[str, str]:
        """Return the context extensions that the gateway's configuration gives the route."""
        return self.request.context

    @_Late
    def metadata(self) -> Mapping[str, Mapping[str, JsonValue]]:
        """Return the request's dynamic metadata, by namespace."""
        return self.request.metadata

    @_Late
    def peer(self) -> PeerFacts:
        """Return the client's end of the connection to the gateway."""
        source = self.request.source
        trust_domain, namespace, service_account = split_spiffe_id(source.principal)
        return PeerFacts(
            source.address, source.port, source.principal, trust_domain, namespace, service_account
        )

    @_Late
    def query_values(self) -> Mapping[str, tuple[str, ...]]:
        """Return all values of each query parameter, in order."""
        return parse_query(self.request.query_string)

    @_Late
    def query(self) -> Mapping[str, str]:
        """Return the query parameters; looking at one that is given twice is a :class:`FactError`."""
        return _single(self.query_values, "query parameter")

    @_Late
    def cookie_values(self) -> Mapping[str, tuple[str, ...]]:
        """Return all values of each cookie, in order."""
        return parse_cookies(self.request.header_values("cookie"))

    @_Late
    def cookies(self) -> Mapping[str, str]:
        """Return the cookies; looking at one that is sent twice is a :class:`FactError`."""
        return _single(self.cookie_values, "cookie")

    @_Late
    def body(self) -> JsonValue:
        """Return the JSON body; an empty map when there is none."""
        return read_body(self.request, self.max_body_bytes)


class _Repeated:
    """Stands in a map for a value that was given more than once. Comparing it with anything fails."""

    def __eq__(self, other: object) -> bool:
        raise FactError(MAPPING, "a value that is given more than once has no single value")

    __hash__ = None  # type: ignore[assignment]  # the language's way of saying that it cannot be hashed


_REPEATED: Final = _Repeated()


class _SingleValues(dict[str, Any]):
    """A map of what was given once. Looking at what was given more than once is a :class:`FactError`."""

    def __init__(self, values: Mapping[str, tuple[str, ...]], kind: str) -> None:
        super().__init__({name: found[0] if len(found) == 1 else _REPEATED for name, found in values.items()})
        self._kind = kind

    def __getitem__(self, name: str) -> Any:
        return self._checked(name, super().__getitem__(name))

    def get(self, name: str, default: Any = None) -> Any:
        return self._checked(name, super().get(name, default))

    def items(self) -> Any:
        return {name: self._checked(name, value) for name, value in super().items()}.items()

    def values(self) -> Any:
        return dict(self.items()).values()

    def _checked(self, name: str, value: Any) -> Any:
        if value is _REPEATED:
            raise FactError(MAPPING, f"the {self._kind} `{name}` is given more than once")
        return value


def _single(values: Mapping[str, tuple[str, ...]], kind: str) -> dict[str, Any]:
    if all(len(found) == 1 for found in values.values()):
        return {name: found[0] for name, found in values.items()}
    return _SingleValues(values, kind)


# --- query ------------------------------------------------------------------------------------------------

_BAD_ESCAPE = re.compile(r"%(?![0-9A-Fa-f]{2})").search


def parse_query(text: str) -> dict[str, tuple[str, ...]]:
    """Read ``a=1&b=2&a=3`` as ``application/x-www-form-urlencoded``, the way upstreams do (WHATWG URL, §5.1).

    Only ``&`` separates: ``;`` is data. ``+`` is a space. A name without ``=`` has an empty value.

    Raises:
        FactError: an escape that is none, bytes that are not UTF-8, or more than 1,000 parameters.

    """
    if not text:
        return {}
    if "&" not in text and "%" not in text and "+" not in text:
        name, _, value = text.partition("=")
        return {name: (value,)}
    pairs = text.split("&", MAX_QUERY_PARAMETERS)
    if len(pairs) > MAX_QUERY_PARAMETERS:
        raise FactError(MAPPING, f"the query has more than {MAX_QUERY_PARAMETERS} parameters")
    named = [pair.partition("=")[::2] for pair in pairs if pair]
    return _grouped(_decoded(named, text) if "%" in text or "+" in text else named)


def _decoded(pairs: Iterable[tuple[str, ...]], text: str) -> list[tuple[str, ...]]:
    if _BAD_ESCAPE(text):
        raise FactError(MAPPING, "the query has a `%` that begins no escape")
    try:
        return [(_form_decoded(name), _form_decoded(value)) for name, value in pairs]
    except UnicodeDecodeError:
        raise FactError(MAPPING, "the query is not UTF-8") from None


def _form_decoded(text: str) -> str:
    return urllib.parse.unquote_to_bytes(text.replace("+", " ")).decode()


def _grouped(pairs: Sequence[tuple[str, ...]]) -> dict[str, tuple[str, ...]]:
    once: dict[str, tuple[str, ...]] = {name: (value,) for name, value in pairs}
    if len(once) == len(pairs):
        return once
    found: dict[str, list[str]] = {}
    for name, value in pairs:
        found.setdefault(name, []).append(value)
    return {name: tuple(values) for name, values in found.items()}


# --- cookies ----------------------------------------------------------------------------------------------


def parse_cookies(lines: Iterable[str]) -> dict[str, tuple[str, ...]]:
    """Read ``Cookie`` headers (RFC 6265 §5.4).

    Pairs are divided by ``;``, white space around them is dropped. Double quotes around a value belong to the
    syntax (§4.1.1) and are taken off. Names are case-sensitive.
    What has no ``=`` is no cookie.
    """
    pairs = (pair.partition("=") for line in lines for pair in line.split(";"))
    return _grouped(
        [(name.strip(" \t"), _unquoted(value.strip(" \t"))) for name, equals, value in pairs if equals]
    )


def _unquoted(value: str) -> str:
    return value[1:-1] if len(value) > 1 and value[0] == value[-1] == '"' else value


# --- body -------------------------------------------------------------------------------------------------

_JSON_TYPE = re.compile(r"application/(?:[a-z0-9!#$&^_.-]+\+)?json", re.ASCII)
_CHARSETS = frozenset({"utf-8", "utf8"})
_WITH_BODY = frozenset({"POST", "PUT", "PATCH"})


def read_body(request: HttpRequest, max_bytes: int) -> JsonValue:
    """Read a JSON body; the empty map stands for none.

    Raises:
        FactError: the body is cut off, too large, not JSON by its content type or by its text, or was not
        sent along by
            the gateway although there is one, or may be.

    """
    if request.body_truncated:
        raise FactError(BODY_TRUNCATED, "the gateway sent only the beginning of the body")
    if not request.body:
        if _may_have_body(request):
            raise FactError(
                BODY_MISSING, "there is no body, or the gateway did not send it (`with_request_body`)"
            )
        return {}
    if len(request.body) > max_bytes:
        raise FactError(BODY_TOO_LARGE, f"the body is larger than {max_bytes} bytes")
    _check_type(request)
    try:
        return strict_json.parse(request.body)
    except strict_json.StrictJsonError as error:
        raise FactError(BODY_MALFORMED, str(error)) from None


def _may_have_body(request: HttpRequest) -> bool:
    """Whether the upstream could find a body where we got none."""
    length = request.header("content-length")
    if length is not None:
        return length.strip() != "0"
    return request.size > 0 or request.method in _WITH_BODY or request.header("transfer-encoding") is not None


def _check_type(request: HttpRequest) -> None:
    types = request.header_values("content-type")
    kind, *parameters = types[0].lower().split(";") if len(types) == 1 else [""]
    charsets = {
        value.strip(' \t"') for name, _, value in map(_partition, parameters) if name.strip() == "charset"
    }
    if not _JSON_TYPE.fullmatch(kind.strip()) or not charsets <= _CHARSETS:
        raise FactError(BODY_TYPE, "the content type of the body is not JSON in UTF-8")
    if request.header("content-encoding") not in {None, "", "identity"}:
        raise FactError(BODY_TYPE, "the body is compressed")


def _partition(parameter: str) -> tuple[str, str, str]:
    return parameter.partition("=")


# --- SPIFFE -----------------------------------------------------------------------------------------------

_SPIFFE_ID = re.compile(r"spiffe://([a-z0-9._-]{1,255})((?:/[A-Za-z0-9._-]+)*)", re.ASCII)
_WORKLOAD = re.compile(r"/ns/([^/]+)/sa/([^/]+)")


def split_spiffe_id(text: str) -> tuple[str, str, str]:
    """Split a SPIFFE ID into trust domain, namespace and service account (Istio's ``/ns/NS/sa/SA``).

    Strict, by the SPIFFE-ID standard §2: lower-case trust domain, no escapes, no port, no empty or dot
    segments. What is not a SPIFFE ID gives three empty texts; one with another path gives only the trust
    domain.
    """
    found = _SPIFFE_ID.fullmatch(text) if len(text) <= MAX_SPIFFE_ID else None
    if found is None or not {".", ".."}.isdisjoint(found[2].split("/")):
        return "", "", ""
    workload = _WORKLOAD.fullmatch(found[2])
    return (found[1], workload[1], workload[2]) if workload else (found[1], "", "")
