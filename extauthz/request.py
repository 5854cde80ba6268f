"""The HTTP request under decision, whatever carried it: its canonical path, its host, its headers.

An upstream and an authorizer that read one request differently are an open door: ``/app/..%2fadmin`` is one
place to the first and another to the second. So a path has exactly one spelling here,
:func:`canonical_target` finds it, and says with a stable code (:data:`PATH_FAULTS`) what kept the path from
being spelled that way to begin with. A request with a fault is to be refused, unless its route relaxes that
very fault by name.
"""

from __future__ import annotations

import ipaddress
import re
import string
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from types import MappingProxyType
from typing import TYPE_CHECKING, Final, NamedTuple
from urllib.parse import quote, unquote_to_bytes

from engine.cel.values import NANOSECONDS, Timestamp

if TYPE_CHECKING:
    from engine.model import JsonValue

NOTHING: Mapping[str, JsonValue] = MappingProxyType({})


@dataclass(frozen=True, slots=True)
class Limits:
    """How large a request may be. A client can go beyond, so doing that is a fault and not an error."""

    path: int = 8 * 1024
    """Characters of the path, without the query."""
    segments: int = 256
    """Segments of the path: more would make reading and matching a path expensive."""
    headers: int = 256
    """Header fields; Envoy's own default is 100."""
    header_bytes: int = 128 * 1024
    """All names and joined values together; Envoy's own default is 60 KiB."""


LIMITS: Final = Limits()


@dataclass(frozen=True, slots=True)
class Peer:
    """One end of the connection to the gateway (``AttributeContext.Peer``).

    *address* is an IP address, the path of a Unix socket or the name of an internal listener. *principal* is
    what the peer's certificate proved: its URI SAN, else its DNS SAN, else its subject. *certificate* is PEM
    text and there only if the gateway sends it (``include_peer_certificate``). *service* comes from a request
    header, so nothing proves it.
    """

    address: str = ""
    port: int = 0
    principal: str = ""
    certificate: str = ""
    service: str = ""
    labels: Mapping[str, str] = field(default_factory=lambda: NOTHING)


NO_PEER: Final = Peer()


# --- the target of a request --------------------------------------------------------------------------------

PATH_FAULTS: Final[Mapping[str, str]] = MappingProxyType(
    {
        "path.authority": "the target names another host than the request",
        "path.backslash": "a backslash, written as such or as `%5C`",
        "path.control": "a control character, or a space that is not written `%20`",
        "path.disagreement": "the path and the header `:path` differ",
        "path.dot_segment": "a `.` or `..` segment, in any spelling",
        "path.double_encoding": "an escape that decodes to another escape, such as `%252e`",
        "path.empty_segment": "two slashes in a row",
        "path.encoded_parameters": "an encoded semicolon `%3B`",
        "path.encoded_slash": "an encoded slash `%2F`",
        "path.encoding": "a `%` that begins no escape, or bytes that are not UTF-8",
        "path.fragment": "a `#` that is not written `%23`",
        "path.not_absolute": "no path that begins with `/`",
        "path.nul": "a NUL character",
        "path.parameters": "a semicolon",
        "path.query": "a control character, a space or a `#` in the query",
        "path.too_long": "more characters or segments than the limit",
    }
)
"""Every reason for which a path is refused, with what it means."""

RELAXABLE: Final = frozenset(
    {
        "path.backslash",
        "path.control",
        "path.dot_segment",
        "path.double_encoding",
        "path.empty_segment",
        "path.encoded_parameters",
        "path.encoded_slash",
        "path.fragment",
        "path.parameters",
    }
)
"""The faults a route may accept. What it then gets: dot segments resolved (RFC 3986 §5.2.4), double slashes
merged, parameters cut off (a raw ``;`` up to the end of its segment), a fragment cut off; every other
character stays in its segment as data. The other faults leave no path to speak of."""


class Target(NamedTuple):
    """A request target, read.

    *path* has one spelling only: segments divided by ``/``, where a character stands for itself if RFC 3986
    lets it stand in a segment (``pchar``, ``;`` excepted), and is percent-encoded UTF-8 with upper-case
    digits otherwise. *segments* are the same path decoded: ``/a/b%20c`` is ``("a", "b c")``, ``/a/`` is
    ``("a", "")``, ``/`` is ``("",)``. With a fault that cannot be relaxed the path is empty and has no
    segments.
    """

    path: str
    segments: tuple[str, ...]
    query_string: str
    faults: tuple[str, ...] = ()


PCHARS: Final = string.ascii_letters + string.digits + "!$&'()*+,-.:=@_~"  # RFC 3986 §3.3 `pchar`, but no `;`
CLEAN_TARGET: Final = re.compile(
    rf"(/[{re.escape(PCHARS)}/]*)(?:\?([!$-~]*))?"  # a query of printable ASCII but `"` and `#`
).fullmatch
CLEAN_SEGMENT: Final = re.compile(r"[!$&'()*+,\-.0-9:=@A-Z_a-z~]*").fullmatch
PCHAR: Final = "!$&'()*+,=:@"  # what `quote` may leave besides the unreserved characters

BAD_QUERY: Final = re.compile(r"[\x00-\x20#\x7f]").search
BAD_ESCAPE: Final = re.compile(r"%(?![0-9A-Fa-f]{2})").search
ESCAPE: Final = re.compile(r"%[0-9A-Fa-f]{2}").search
CONTROL: Final = re.compile(r"[\x01-\x1f\x7f-\x9f]").search
SUSPICIOUS: Final = re.compile(r"[\x00-\x1f/;\\\x7f-\x9f]|%[0-9A-Fa-f]{2}|\A\.{1,2}\Z").search
SEPARATOR: Final = re.compile(r"[/\\]")
DOTS: Final = frozenset({".", ".."})


def canonical_target(target: str, limits: Limits = LIMITS) -> Target:
    """Read a target in origin form (``/path?query``), as RFC 9112 §3.2.1 calls it.

    Nearly every path is clean as it comes, and :func:`clean_target` sees that in about a microsecond. The
    others go through :func:`careful_target`, which gives the same answer for the clean ones.
    """
    clean = clean_target(target, limits)
    return careful_target(target, limits) if clean is None else Target(*clean)


def clean_target(target: str, limits: Limits) -> tuple[str, tuple[str, ...], str, tuple[()]] | None:
    """Return the fields of a :class:`Target` if *target* is surely spelled as it should be, else None.

    A segment that begins with a dot is left to :func:`careful_target`. The result is a plain tuple because a
    named one takes as long to make and to take apart as all the rest.
    """
    clean = CLEAN_TARGET(target)
    if clean is None:
        return None
    path, query = clean.groups("")
    if len(path) > limits.path or "//" in path or "/." in path:
        return None
    segments = tuple(path[1:].split("/"))
    return (path, segments, query, ()) if len(segments) <= limits.segments else None


def careful_target(target: str, limits: Limits = LIMITS) -> Target:
    """Read any target in origin form, character by character where need be."""
    path, _, query = target.partition("?")
    if not path.startswith("/"):
        return unreadable("path.not_absolute")
    if len(path) > limits.path or path.count("/") > limits.segments:
        return unreadable("path.too_long")
    path, mark, _ = path.partition("#")
    faults = {"path.fragment": None} if mark else {}
    if BAD_QUERY(query):
        faults["path.query"] = None
    read = [_read_segment(segment) for segment in path[1:].split("/")]
    for segment in read:
        faults.update(dict.fromkeys(segment.faults))
    if not faults.keys() <= RELAXABLE:
        return Target("", (), "", tuple(faults))
    texts = [segment.text for segment in read]
    if not all(texts[:-1]):  # an empty last segment is a trailing slash
        faults["path.empty_segment"] = None
    segments = _without_empty(_without_dots(texts))
    return Target("/" + "/".join(map(_spell, segments)), tuple(segments), query, tuple(faults))


def unreadable(fault: str) -> Target:
    """Return the target that stands for no path at all."""
    return Target("", (), "", (fault,))


def _spell(segment: str) -> str:
    return segment if CLEAN_SEGMENT(segment) else quote(segment, safe=PCHAR)


class _Segment(NamedTuple):
    text: str
    faults: tuple[str, ...] = ()


def _read_segment(raw: str) -> _Segment:
    """Decode one segment and say what is wrong with it."""
    if CLEAN_SEGMENT(raw) and raw not in DOTS:
        return _Segment(raw)
    named, parameters, _ = raw.partition(";")  # `parameters` is the semicolon itself
    if BAD_ESCAPE(named):
        return _Segment("", ("path.encoding",))
    try:
        text = unquote_to_bytes(named).decode()
    except UnicodeError:  # not UTF-8, or a lone surrogate of Python's
        return _Segment("", ("path.encoding",))
    spaced = " " in named
    if not (parameters or spaced or SUSPICIOUS(text)):
        return _Segment(text)
    found = ["path.parameters"] if parameters else []
    found += [fault for fault, test in SEGMENT_FAULTS.items() if test(text)]
    if spaced and "path.control" not in found:
        found.append("path.control")
    return _Segment(text, tuple(found))


def _has_dots(text: str) -> bool:
    """Whether dot segments show when *text* is divided at slashes and backslashes, and cut at semicolons."""
    parts = SEPARATOR.split(text)
    return any(part.partition(";")[0] in DOTS for part in parts)


SEGMENT_FAULTS: Final[Mapping[str, Callable[[str], object]]] = {
    "path.nul": lambda text: "\0" in text,
    "path.control": CONTROL,
    "path.double_encoding": ESCAPE,
    "path.backslash": lambda text: "\\" in text,
    "path.encoded_slash": lambda text: "/" in text,
    "path.encoded_parameters": lambda text: ";" in text,
    "path.dot_segment": _has_dots,
}


def _without_dots(segments: list[str]) -> list[str]:
    """Resolve dot segments as RFC 3986 §5.2.4 does; a path never climbs above its root."""
    if DOTS.isdisjoint(segments):
        return segments
    resolved: list[str] = []
    for segment in segments:
        if segment == "..":
            del resolved[-1:]
        elif segment != ".":
            resolved.append(segment)
    if segments[-1] in DOTS:
        resolved.append("")
    return resolved


def _without_empty(segments: list[str]) -> list[str]:
    """Merge slashes, after dot segments were resolved: in this order Envoy does it too."""
    return [*filter(None, segments[:-1]), segments[-1]]


# --- the host -----------------------------------------------------------------------------------------------


class Authority(NamedTuple):
    """``host:port``, read: lower case, no trailing dot, IPv6 literals in brackets and in shortest form."""

    host: str
    port: int | None = None
    fault: str = ""


HOST: Final = re.compile(r"([a-z0-9_-]+(?:\.[a-z0-9_-]+)*)\.?(?::([0-9]{1,5}))?").fullmatch
IPV6: Final = re.compile(r"\[([0-9a-f:.]{2,45})\](?::([0-9]{1,5}))?").fullmatch
MAX_HOST: Final = 255  # RFC 1035 §2.3.4, with room for a port being no concern
INVALID_HOST: Final = Authority("", fault="host.invalid")
USERINFO: Final = Authority("", fault="host.userinfo")
DEFAULT_PORT: Final = {"http": 80, "https": 443}


def read_authority(text: str) -> Authority:
    """Read the value of ``:authority`` or ``Host``.

    ``API.Example.com.:443`` is the host ``api.example.com`` and port 443. Faults: ``host.userinfo`` (RFC 9110
    §4.2.4 bids to treat it as an error), ``host.invalid``.
    """
    return _read_authority(text) if len(text) <= MAX_HOST else INVALID_HOST


@lru_cache(maxsize=1024)
def _read_authority(text: str) -> Authority:
    if not text.isascii():  # before `lower`, which would make a `k` of the Kelvin sign
        return INVALID_HOST
    if "@" in text:
        return USERINFO
    if not text:
        return Authority("")
    named = HOST(text.lower())
    if named:
        return _with_port(named[1], named[2])
    literal = IPV6(text.lower())
    return _ipv6(literal[1], literal[2]) if literal else INVALID_HOST


def _ipv6(literal: str, port: str | None) -> Authority:
    try:
        return _with_port(f"[{ipaddress.IPv6Address(literal).compressed}]", port)
    except ValueError:
        return INVALID_HOST


def _with_port(host: str, port: str | None) -> Authority:
    if port is None:
        return Authority(host)
    number = int(port)
    return Authority(host, number) if number < 65536 else INVALID_HOST


def same_authority(one: Authority, other: Authority, scheme: str = "") -> bool:
    """Whether both name the same place; a missing port is the scheme's own."""
    default = DEFAULT_PORT.get(scheme)
    ports = {default if authority.port is None else authority.port for authority in (one, other)}
    return one.host == other.host and len(ports) == 1 and not (one.fault or other.fault)


ABSOLUTE_FORM: Final = re.compile(
    r"(https?)://([^/?#\\]*)((?:[/?#].*)?)", re.IGNORECASE | re.DOTALL
).fullmatch


def read_target(method: str, target: str, authority: Authority, limits: Limits = LIMITS) -> Target:
    """Read a target in any form of RFC 9112 §3.2.

    The absolute form is read as its path if it names the request's own host, the asterisk form belongs to
    OPTIONS, and the authority form (CONNECT) has no path that a route could match.
    """
    if target.startswith("/"):
        return canonical_target(target, limits)
    if target == "*" and method == "OPTIONS":
        return Target("*", (), "")
    absolute = ABSOLUTE_FORM(target)
    if absolute is None:
        return unreadable("path.not_absolute")
    scheme, named, rest = absolute.groups()
    if not same_authority(read_authority(named), authority, scheme.lower()):
        return unreadable("path.authority")
    return canonical_target(rest if rest.startswith("/") else "/" + rest, limits)


# --- headers -----------------------------------------------------------------------------------------------

HeaderLookup = Callable[[str], str | None]


JOINED_BY: Final = {"cookie": "; "}


def read_headers(fields: Iterable[tuple[str, str]]) -> tuple[dict[str, str], dict[str, tuple[str, ...]]]:
    """Return the value of each header by lower-case name, and the separate values of those that are repeated.

    Repeated ones are joined with ``,`` as Envoy does, cookies with ``; `` (RFC 9113 §8.2.3).
    """
    joined: dict[str, str] = {}
    repeated: dict[str, list[str]] = {}
    for sent, value in fields:
        name = sent.lower()
        if name != sent and not sent.isascii():  # the Kelvin sign is no `k`
            name = sent
        if name in joined:
            repeated.setdefault(name, [joined[name]]).append(value)
        else:
            joined[name] = value
    for name, values in repeated.items():
        joined[name] = JOINED_BY.get(name, ",").join(values)
    return joined, {name: tuple(values) for name, values in repeated.items()}


def header_faults(count: int, joined: Mapping[str, str], limits: Limits) -> tuple[str, ...]:
    """Hold the number and the size of headers against the limits."""
    size = sum(len(name) + len(joined[name]) for name in joined)
    found = {"header.too_many": count > limits.headers, "header.too_large": size > limits.header_bytes}
    return tuple(fault for fault, over in found.items() if over)


# --- the request --------------------------------------------------------------------------------------------

TOKEN: Final = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]{1,128}").fullmatch  # RFC 9110 §5.6.2, bounded
COMMON_METHODS: Final = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})

REQUEST_FAULTS: Final[Mapping[str, str]] = MappingProxyType(
    {
        "header.disagreement": "the two lists of headers that the gateway sent contradict each other",
        "header.too_large": "more bytes of headers than the limit",
        "header.too_many": "more headers than the limit",
        "host.disagreement": "the host and the header `:authority` or `host` differ",
        "host.invalid": "the host is neither a name nor an address",
        "host.userinfo": "the host has a user name before it",
        "method.invalid": "the method is not a token",
    }
)
"""Every reason, besides those of its path, for which a request is refused before anyone asks who sent it."""


class HttpRequest:
    """One HTTP request. Read only: one request is shared by everything that looks at it.

    It has slots and an ordinary constructor instead of being a frozen dataclass because that is several times
    faster to make, and because what few requests need is read only when asked for (see :mod:`extauthz.wire`).

    Args:
        headers: name and value of each header field, in order; repeated names are told apart.

    """

    __slots__ = (
        "_repeated",
        "body",
        "body_truncated",
        "context",
        "destination",
        "faults",
        "header_names",
        "headers",
        "host",
        "id",
        "metadata",
        "method",
        "path",
        "path_faults",
        "port",
        "protocol",
        "query_string",
        "route_metadata",
        "scheme",
        "segments",
        "size",
        "sni",
        "source",
        "target",
        "time",
    )

    id: str
    method: str
    """As sent: ``get`` is not ``GET`` (RFC 9110 §9.1)."""
    scheme: str
    host: str
    """Lower case, without port and trailing dot; an IPv6 address in brackets; empty when there is none, or no
    valid one."""
    port: int | None
    protocol: str
    """``HTTP/1.1``, ``HTTP/2``, ..."""
    target: str
    """As sent, with the query."""
    path: str
    """Canonical, without the query; see :class:`Target`."""
    segments: tuple[str, ...]
    """The path decoded."""
    query_string: str
    path_faults: tuple[str, ...]
    """Codes of :data:`PATH_FAULTS`. Not empty: refuse, unless the route relaxes each one."""
    faults: tuple[str, ...]
    """Codes of :data:`REQUEST_FAULTS`. Not empty: refuse."""
    headers: Mapping[str, str]
    """By lower-case name, pseudo headers included; a repeated one joined with ``,`` (cookies with ``; ``)."""
    header_names: tuple[str, ...]
    """Lower case, each once."""
    body: bytes
    """What the gateway sent of it; empty unless it is configured to (``with_request_body``)."""
    size: int
    """Bytes of the whole body, -1 when unknown."""
    body_truncated: bool
    """The body was longer than the gateway sends. Nothing may be read from a truncated one."""
    time: float
    """When the gateway received the request: seconds since the epoch, 0 when unknown."""
    source: Peer
    """The client's end."""
    destination: Peer
    """The gateway's end."""
    context: Mapping[str, str]
    """The route's ``context_extensions``: the gateway's configuration, out of a client's reach."""
    metadata: Mapping[str, Mapping[str, JsonValue]]
    """The request's dynamic metadata, by namespace (``metadata_context``)."""
    route_metadata: Mapping[str, Mapping[str, JsonValue]]
    """The gateway's route's metadata, by namespace."""
    sni: str
    """The server name of the TLS handshake (``include_tls_session``)."""

    _repeated: Mapping[str, tuple[str, ...]] | None
    """The values of headers that were sent more than once; None if the gateway did not tell them apart."""

    def __init__(
        self,
        *,
        method: str = "GET",
        target: str = "/",
        host: str = "",
        headers: Iterable[tuple[str, str]] = (),
        id: str = "",  # noqa: A002  # the field's name
        scheme: str = "",
        protocol: str = "",
        body: bytes = b"",
        size: int = -1,
        body_truncated: bool = False,
        time: float = 0.0,
        source: Peer = NO_PEER,
        destination: Peer = NO_PEER,
        context: Mapping[str, str] = NOTHING,
        metadata: Mapping[str, Mapping[str, JsonValue]] = NOTHING,
        route_metadata: Mapping[str, Mapping[str, JsonValue]] = NOTHING,
        sni: str = "",
        limits: Limits = LIMITS,
    ) -> None:
        fields = list(headers)
        self.headers, self._repeated = read_headers(fields)
        self.header_names = tuple(self.headers)
        self._settle(method, target, host, self.headers.get, limits)
        self.faults += header_faults(len(fields), self.headers, limits)
        self.id, self.scheme, self.protocol = id, scheme, protocol
        self.body, self.size, self.body_truncated = body, size, body_truncated
        self.time, self.sni = time, sni
        self.source, self.destination = source, destination
        self.context, self.metadata, self.route_metadata = context, metadata, route_metadata

    def _settle(self, method: str, target: str, host: str, header: HeaderLookup, limits: Limits) -> None:
        """Settle method, path and host, and hold them against what the headers say of them.

        What is not given is taken from its pseudo header; what is given twice must be the same.
        """
        named_path, named_host, named_host_too = header(":path"), header(":authority"), header("host")
        self.method = method = method or header(":method") or ""
        self.target = target = target or named_path or ""
        host = host or named_host or named_host_too or ""
        authority = read_authority(host)
        self.host, self.port, fault = authority
        if named_path is None or named_path == target:
            read = clean_target(target, limits) or read_target(method, target, authority, limits)
        else:
            read = unreadable("path.disagreement")
        self.path, self.segments, self.query_string, self.path_faults = read
        if named_host == host and named_host_too is None and method in COMMON_METHODS and not fault:
            self.faults = ()
        else:
            self.faults = _line_faults(method, authority, (named_host, named_host_too))

    def header(self, name: str) -> str | None:
        """Return the value of the header *name* (lower case), joined if repeated, or None."""
        return self.headers.get(name)

    def header_values(self, name: str) -> tuple[str, ...]:
        """Return the values of the header *name* (lower case), one for each time it was sent.

        A gateway that sends joined headers (Envoy without ``encode_raw_headers``) does not tell how many
        there were: then there is one value, and :meth:`ambiguous` says whether it may be several.
        """
        if self._repeated and name in self._repeated:
            return self._repeated[name]
        value = self.header(name)
        return () if value is None else (value,)

    def ambiguous(self, name: str) -> bool:
        """Whether the header *name* (lower case) was, or may have been, sent more than once.

        A joined value with a comma in it may have been two. For a header whose own syntax has no comma, such
        as ``Authorization: Bearer``, that is certain.
        """
        if self._repeated is not None:
            return name in self._repeated
        return "," in (self.header(name) or "")

    @property
    def timestamp(self) -> Timestamp:
        """:attr:`time` as expressions see it."""
        return Timestamp(round(self.time * NANOSECONDS))

    def __repr__(self) -> str:
        return f"<HttpRequest {self.method} {self.host}{self.path}>"  # a query may hold secrets


def _line_faults(method: str, authority: Authority, named: Iterable[str | None]) -> tuple[str, ...]:
    """Say what is wrong with a method and a host, and whether a header names another host."""
    found = [] if TOKEN(method) else ["method.invalid"]
    if authority.fault:
        found.append(authority.fault)
    elif any(name is not None and not same_authority(read_authority(name), authority) for name in named):
        found.append("host.disagreement")
    return tuple(found)
