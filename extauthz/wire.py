"""Bytes of ``envoy.service.auth.v3`` to our values and back.

Decoding parses with the compiled codec of :mod:`engine.messages` and copies out only what every request
needs; the rest is read on first use. Encoding writes the few fields of an answer directly: a CheckResponse is
made of strings and lengths, and building it through message objects takes several times as long.

The rules of the protocol that our answers obey: code 0 goes with ``ok_response`` and with nothing else; a
denial is 7 or 16 (Envoy made every other code an error once, PR 34951, and may again); every header says both
``append`` and ``append_action`` (Envoy 1.37.0 looks at one, other versions at the other; with neither, a
client's own copy of an identity header survives); ``dynamic_metadata`` is the outer one, as the inner one is
deprecated and would override it.
"""

from __future__ import annotations

import math
import re
import struct
from functools import lru_cache
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final, Protocol
from urllib.parse import quote, unquote

from google.protobuf.message import DecodeError

from engine.messages import SCHEMA_SUFFIX, classes
from extauthz.request import (
    COMMON_METHODS,
    LIMITS,
    NOTHING,
    HttpRequest,
    Limits,
    Peer,
    clean_target,
    header_faults,
    read_authority,
    read_headers,
)
from extauthz.response import Allow, Answer, DecisionMetadata, Deny, Failure, GrpcCode, Header

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping

    from engine.model import JsonValue
    from extauthz.response import Metadata

_SCHEMA: Final = Path(__file__).with_name(f"check_request{SCHEMA_SUFFIX}").read_bytes()
CheckRequest: Final[Any] = classes(_SCHEMA, "envoy.service.auth.v3.CheckRequest")[0]
"""Made at run time: nothing for mypy to know."""


class WireError(ValueError):
    """The bytes are no CheckRequest about an HTTP request.

    Answer it with a denial, not with a failure: what a client sent may be the cause, and a gateway with
    ``failure_mode_allow`` lets a request through on failures (Envoy CVE-2024-23324).
    """


class UnsendableError(ValueError):
    """An answer holds what must never be sent: a header that is none, a status that would not deny.

    Nothing is repaired: two principals whose names differ in a control character must not become one. Answer
    with :data:`FAILURE` (or, for a denial, with the same denial without its headers).
    """


# --- bytes to a request -------------------------------------------------------------------------------------

UNREAD: Final[Mapping[str, str]] = MappingProxyType({})
NO_REPEATS: Final[Mapping[str, tuple[str, ...]]] = MappingProxyType({})
PARTIAL_BODY: Final = "x-envoy-auth-partial-body"  # set by Envoy, which removes a client's copy
_blank: Final = object.__new__
"""Makes an object whose fields are set by whoever asked for it."""


def decode(data: bytes, limits: Limits = LIMITS) -> HttpRequest:
    """Read a serialized CheckRequest.

    Raises:
        WireError: not a CheckRequest, or one without an HTTP request (the network filter's).

    """
    try:
        attributes = CheckRequest.FromString(data).attributes
    except DecodeError as error:
        raise WireError(f"not a CheckRequest: {error}") from error
    usual = _read_usual(attributes, len(data), limits)
    if usual is not None:
        return usual
    request = _blank(_ReceivedRequest)
    request.read(attributes, len(data), limits)
    if not request.method and not attributes.request.HasField("http"):
        raise WireError("a CheckRequest without an HTTP request: is it the network filter that asks?")
    return request


class Headers(Protocol):
    """Values by lower-case name."""

    def get(self, name: str, /) -> str | None:
        """Return the value of a header, None if it is not there."""


def _read_usual(attributes: Any, size: int, limits: Limits) -> _ReceivedRequest | None:
    """Read a request in which all is as it nearly always is, as :meth:`_ReceivedRequest.read` would.

    None for any other. Usual is: headers in one form, each there once, in lower case, within the limits; a
    line that they agree with; a common method, a clean path, a valid host.
    """
    http = attributes.request.http
    joined = http.headers
    headers: Headers = joined
    names: Iterable[str] = joined
    count = len(joined)
    told_apart = None
    if http.HasField("header_map"):
        fields = http.header_map.headers
        told_apart = {field.key: field for field in fields}
        if count or len(told_apart) != len(fields):
            return None
        headers, names, count = _RawHeaders(told_apart), told_apart, len(told_apart)
    method, target, host = http.method, http.path, http.host
    if (
        size > limits.header_bytes
        or count > limits.headers
        or headers.get(":path") != target
        or headers.get(":authority") != host
        or headers.get("host") is not None
        or method not in COMMON_METHODS
    ):
        return None
    together = "".join(names)
    read = clean_target(target, limits)
    named, port, fault = read_authority(host)
    if together != together.lower() or read is None or fault:
        return None
    request = _blank(_ReceivedRequest)
    request.message, request.http = attributes, http
    request.plain_headers = headers
    request.plain_names = "_" not in together and "." not in together
    request._repeated = None if told_apart is None else NO_REPEATS  # noqa: SLF001  # this is its constructor
    request.method, request.target, request.host, request.port = method, target, named, port
    request.path, request.segments, request.query_string, request.path_faults = read
    request.faults = ()
    return request


class _RawHeaders:
    """Headers told apart, each there once: messages ``HeaderValue`` by name, whose values are read late."""

    __slots__ = ("fields",)

    def __init__(self, fields: Mapping[str, Any]) -> None:
        self.fields = fields

    def get(self, name: str) -> str | None:
        """Return the value of a header, as :func:`_told_apart` reads it."""
        field = self.fields.get(name)
        if field is None:
            return None
        raw: bytes = field.raw_value
        try:
            text = raw.decode()
        except UnicodeDecodeError:
            text = raw.decode(errors="replace")
        value: str = text or field.value
        return value


class _ReceivedRequest(HttpRequest):
    """A request whose less used attributes are read from its message when they are first asked for.

    An empty slot makes Python call ``__getattr__``; the slot is filled there, and from then on it is a plain
    attribute.
    """

    __slots__ = ("http", "message", "plain_headers", "plain_names")

    message: Any
    """The AttributeContext."""
    http: Any
    """Its HttpRequest."""
    plain_headers: Headers | None
    """The headers as they came, if they can be asked directly: every name is lower case, and there once.

    For joined headers that may be settled when the first one is asked for (no empty slot here: filling one
    takes a microsecond).
    """
    plain_names: bool
    """Whether all names are lower case, and there is no ``_`` and no ``.`` in any."""

    def read(self, attributes: Any, size: int, limits: Limits) -> None:
        """Read a CheckRequest of *size* bytes, whatever is in it."""
        http = attributes.request.http
        self.message, self.http = attributes, http
        joined, told_apart = http.headers, http.header_map.headers if http.HasField("header_map") else ()
        if told_apart:
            self._init_told_apart(told_apart, joined, limits)
        else:
            self._repeated, self.plain_headers = None, UNREAD
            self._settle(http.method, http.path, http.host, joined.get, limits)
        if len(joined) + len(told_apart) > limits.headers or size > limits.header_bytes:
            self.faults += header_faults(len(joined) + len(told_apart), self.headers, limits)

    def _init_told_apart(self, told_apart: Any, joined: Mapping[str, str], limits: Limits) -> None:
        http = self.http
        self._take(told_apart)
        agreed = not joined or self._add(joined)
        self._settle(http.method, http.path, http.host, self.headers.get, limits)
        if not agreed:
            self.faults += ("header.disagreement",)

    def _take(self, fields: Any) -> None:
        """Take the headers told apart (``encode_raw_headers``)."""
        self.headers, self._repeated = read_headers(_told_apart(fields))
        self.header_names = tuple(self.headers)
        self.plain_headers = None

    def _add(self, joined: Mapping[str, str]) -> bool:
        """Add what only the joined headers have; return whether they say the same of the others.

        Envoy sends headers in one form only, but nothing says that every sender does.
        """
        also, _ = read_headers(joined.items())
        agreed = all(
            value == ",".join(self.header_values(name))
            for name, value in also.items()
            if name in self.headers
        )
        self.headers = {**also, **self.headers}
        self.header_names = tuple(self.headers)
        return agreed

    def header(self, name: str) -> str | None:
        plain = self.plain_headers
        if plain is UNREAD:
            plain = self.look_at_names()
        return self.headers.get(name) if plain is None else plain.get(name)

    def look_at_names(self) -> Headers | None:
        """Return :attr:`plain_headers`, settled if they are not yet."""
        if self.plain_headers is not UNREAD:
            return self.plain_headers
        joined = self.http.headers
        together = "".join(joined)
        self.plain_headers = joined if together == together.lower() else None
        return self.plain_headers

    def __getattr__(self, name: str) -> Any:
        read = READ_LATE.get(name)
        if read is None:
            raise AttributeError(f"an HttpRequest has no `{name}`", name=name, obj=self)
        value = read(self)
        setattr(self, name, value)
        return value


def _told_apart(fields: Any) -> list[tuple[str, str]]:
    """Read messages ``HeaderValue``: names, and values from ``raw_value`` or, if that is empty, ``value``.

    Bytes that are not UTF-8 show as U+FFFD. So a ``:path`` with such bytes differs from ``http.path``, where
    Envoy puts ``!``, and the request is refused.
    """
    try:
        return [(field.key, field.raw_value.decode() or field.value) for field in fields]
    except UnicodeDecodeError:
        return [(field.key, field.raw_value.decode(errors="replace") or field.value) for field in fields]


def _headers(request: _ReceivedRequest) -> Mapping[str, str]:
    plain = request.look_at_names()
    if plain is None:
        return read_headers(request.http.headers.items())[0]
    return {name: plain.get(name) or "" for name in request.header_names}  # `dict(plain)` takes longer


def _header_names(request: _ReceivedRequest) -> tuple[str, ...]:
    plain = request.look_at_names()
    if isinstance(plain, _RawHeaders):
        return tuple(plain.fields)
    return tuple(request.headers if plain is None else request.http.headers)


def _body(request: _ReceivedRequest) -> bytes:
    body: bytes = request.http.raw_body or request.http.body.encode()
    return body


def _time(request: _ReceivedRequest) -> float:
    time = request.message.request.time
    seconds: float = time.seconds + time.nanos / 1e9
    return seconds


def _peer(message: Any) -> Peer:
    address, port = _address(message.address)
    certificate, labels = message.certificate, message.labels
    return Peer(
        address,
        port,
        message.principal,
        unquote(certificate) if certificate else "",  # Envoy sends URL-encoded PEM
        message.service,
        dict(labels) if labels else NOTHING,
    )


def _address(address: Any) -> tuple[str, int]:
    socket = address.socket_address
    name = socket.address or address.pipe.path or address.envoy_internal_address.server_listener_name
    return name, socket.port_value


def _metadata(message: Any) -> dict[str, dict[str, JsonValue]]:
    return {namespace: _plain_struct(struct) for namespace, struct in message.filter_metadata.items()}


def _plain_struct(struct: Any) -> dict[str, JsonValue]:
    return {name: _plain_value(value) for name, value in struct.fields.items()}


def _plain_value(value: Any) -> JsonValue:
    """Read a ``google.protobuf.Value``. Its depth is bounded: the codec refuses more than 100 levels."""
    kind = value.WhichOneof("kind")
    if kind == "struct_value":
        return _plain_struct(value.struct_value)
    if kind == "list_value":
        return [_plain_value(item) for item in value.list_value.values]
    return None if kind in {None, "null_value"} else getattr(value, kind)


READ_LATE: Final[Mapping[str, Callable[[_ReceivedRequest], object]]] = {
    "body": _body,
    "body_truncated": lambda request: request.header(PARTIAL_BODY) == "true",
    "context": lambda request: dict(request.message.context_extensions),
    "destination": lambda request: _peer(request.message.destination),
    "header_names": _header_names,
    "headers": _headers,
    "id": lambda request: request.http.id,
    "metadata": lambda request: _metadata(request.message.metadata_context),
    "plain_names": lambda _: False,  # nobody has looked
    "protocol": lambda request: request.http.protocol,
    "route_metadata": lambda request: _metadata(request.message.route_metadata_context),
    "scheme": lambda request: request.http.scheme.lower(),
    "size": lambda request: request.http.size,
    "sni": lambda request: request.message.tls_session.sni,
    "source": lambda request: _peer(request.message.source),
    "time": _time,
}


# --- an answer to bytes -------------------------------------------------------------------------------------

# Tags of the fields we write: field number << 3 | wire type (protobuf encoding); 2 is "a length, then that
# many bytes".

# CheckResponse 1, 2, 3, 4, 5
STATUS, DENIED, OK, DYNAMIC_METADATA, ERROR = b"\x0a", b"\x12", b"\x1a", b"\x22", b"\x2a"
# OkHttpResponse 2, 5, 6, 7, 8
OK_HEADERS, OK_REMOVE, OK_RESPONSE_HEADERS = b"\x12", b"\x2a", b"\x32"
OK_SET_QUERY, OK_REMOVE_QUERY = b"\x3a", b"\x42"
# DeniedHttpResponse 1, 2, 3
DENIED_STATUS, DENIED_HEADERS, DENIED_BODY = b"\x0a", b"\x12", b"\x1a"
# google.rpc.Status 1 and envoy.type.v3.HttpStatus 1, a varint
CODE = b"\x08"
# HeaderValue, QueryParameter and every entry of a map 1, 2
KEY, VALUE = b"\x0a", b"\x12"
# Struct 1, ListValue 1
FIELDS, VALUES = b"\x0a", b"\x0a"
# Value 1 (a varint), 2 (8 bytes), 3, 4 (a varint), 5, 6
NULL, NUMBER, STRING, BOOL, STRUCT, LIST = b"\x08", b"\x11", b"\x1a", b"\x20", b"\x2a", b"\x32"

# HeaderValueOption 1 is the header; 2 is `append`, a message with a bool; 3 is `append_action`, whose value
# 0, which needs no bytes, is APPEND_IF_EXISTS_OR_ADD.
HEADER: Final = b"\x0a"
OVERWRITE: Final = b"\x12\x00\x18\x02"  # append {value: false}, append_action OVERWRITE_IF_EXISTS_OR_ADD
APPEND: Final = b"\x12\x02\x08\x01"  # append {value: true}, append_action APPEND_IF_EXISTS_OR_ADD

MAX_HEADER_VALUE: Final = 16 * 1024
MAX_DEPTH: Final = 30  # levels of metadata; a codec gives up at 100 messages, and each level is three
MAX_CACHED: Final = 512  # longer values are not worth remembering

HEADER_NAME: Final = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]{1,256}").fullmatch  # RFC 9110 §5.1: a token
HEADER_VALUE: Final = re.compile(r"[\t -~\x80-\U0010ffff]*").fullmatch  # RFC 9110 §5.5: no control characters


NOT_UNICODE: Final = "the answer holds text that is not Unicode: {}"


def encode(answer: Answer) -> bytes:
    """Write a serialized CheckResponse.

    On the request to the upstream the first value of a header name always replaces what the client sent, and
    any further one is added to it. On responses to the client the same, unless the first one says ``append``.

    Raises:
        UnsendableError: a header name that is no token, a header value with a control character or
            surrounding white space or longer than 16 KiB, a status that does not fit the answer, metadata
            that are not JSON values or too deep, text with lone surrogates.

    """
    try:
        return ENCODE[type(answer)](answer)
    except UnicodeEncodeError as error:
        raise UnsendableError(NOT_UNICODE.format(error)) from error


def _encode_allow(answer: Allow) -> bytes:
    parts = _header_fields(OK_HEADERS, answer.headers, may_append=False)
    if answer.remove_headers:
        parts.append(_removals(answer.remove_headers))
    if answer.response_headers:
        parts += _header_fields(OK_RESPONSE_HEADERS, answer.response_headers, may_append=True)
    if answer.set_query or answer.remove_query:
        parts += _query_fields(answer)
    return ALLOWED + _sized(OK, b"".join(parts)) + _dynamic_metadata(answer.metadata)


class PlainAllow:
    """An allow that sets and removes headers on the way to the upstream, and nothing else.

    So are the answers of nearly all routes. What can be written when the configuration is loaded is written
    then; the bytes are those that :func:`encode` gives for the same answer.
    """

    __slots__ = ("_headers", "removals")

    def __init__(
        self, headers: Iterable[tuple[str, Callable[[Any], tuple[str, ...]]]], removals: tuple[str, ...]
    ) -> None:
        """Prepare an answer that sets *headers*, and removes *removals* whatever it sets.

        With each name, which is there once, goes what gives its values for the facts of a request.
        """
        self._headers = tuple(headers)
        self.removals = _removals(removals)

    def write(self, facts: Any, more_removals: Iterable[str], metadata: DecisionMetadata) -> bytes:
        """Write the answer for a request; a header without a value is removed.

        Raises:
            UnsendableError: as :func:`encode` does.
            extauthz.slots.SlotError: a header's value cannot be had.

        """
        content = b""
        absent: tuple[str, ...] = ()
        decision_id, route, action, reason, policy = metadata
        try:
            for name, function in self._headers:
                texts = function(facts)
                if texts:
                    write = upstream_header if len(",".join(texts)) <= MAX_CACHED else _any_header
                    content += write(name, texts)
                else:
                    absent += (name,)
            content += self.removals
            if absent or more_removals:
                content += _removals((*absent, *more_removals))
            size = len(content)
            written_id = decision_id.encode()
            surrounding = around_decision if len(action) <= MAX_CACHED else _around_any
            before, after = surrounding(len(written_id), route, action, reason, policy)
        except UnicodeEncodeError as error:
            raise UnsendableError(NOT_UNICODE.format(error)) from error
        opening = ALLOWED_OK[size] if size < len(ALLOWED_OK) else ALLOWED + _opened(OK, size)
        return opening + content + before + written_id + after


def _query_fields(answer: Allow) -> Iterator[bytes]:
    """Percent-encode keys and values: Envoy puts them into the query string as they are."""
    for key, value in answer.set_query:
        parameter = _sized(KEY, _quoted(key)) + _sized(VALUE, _quoted(value))
        yield _sized(OK_SET_QUERY, parameter)
    for name in answer.remove_query:
        yield _sized(OK_REMOVE_QUERY, quote(name, safe="%").encode())


def _quoted(text: str) -> bytes:
    return quote(text, safe="").encode()


def _encode_deny(answer: Deny) -> bytes:
    status = DENIED_CODES.get(answer.code)
    if status is None:
        raise UnsendableError(f"a denial has the gRPC code 7 or 16, not {answer.code}")
    if not 300 <= answer.status <= 599:
        raise UnsendableError(f"a denial has an HTTP status from 300 to 599, not {answer.status}")
    return status + _sized(DENIED, _denied_response(answer)) + _dynamic_metadata(answer.metadata)


def _encode_failure(answer: Failure) -> bytes:
    if not 400 <= answer.status <= 599:
        raise UnsendableError(f"a failure has an HTTP status from 400 to 599, not {answer.status}")
    return FAILED + _sized(ERROR, _denied_response(answer)) + _dynamic_metadata(answer.metadata)


ENCODE: Final[Mapping[type[Answer], Callable[[Any], bytes]]] = {
    Allow: _encode_allow,
    Deny: _encode_deny,
    Failure: _encode_failure,
}


def _denied_response(answer: Deny | Failure) -> bytes:
    parts = [_sized(DENIED_STATUS, CODE + _varint(answer.status))]
    parts += _header_fields(DENIED_HEADERS, answer.headers, may_append=True)
    if answer.body:
        parts.append(_sized(DENIED_BODY, answer.body.encode()))
    return b"".join(parts)


def _header_fields(tag: bytes, headers: Iterable[Header], *, may_append: bool) -> list[bytes]:
    seen: set[str] = set()
    fields = []
    for header in headers:
        name, value = header.name.lower(), header.value
        added = name in seen or (may_append and header.append)
        seen.add(name)
        write = _short_header_field if len(value) <= MAX_CACHED else _any_header_field
        fields.append(write(tag, header.name, value, APPEND if added else OVERWRITE))
    return fields


def _any_header_field(tag: bytes, name: str, value: str, how: bytes) -> bytes:
    """Write one ``HeaderValueOption``; *how* is its append fields. Short ones are remembered."""
    if not HEADER_NAME(name):
        raise UnsendableError(f"`{name[:80]!r}` is not a header name")
    if len(value) > MAX_HEADER_VALUE:
        raise UnsendableError(
            f"the value of the header `{name}` is longer than {MAX_HEADER_VALUE} characters"
        )
    # White space at the ends is no part of a value: the upstream would drop it, and ` admin` become `admin`.
    if not HEADER_VALUE(value) or value != value.strip(" \t"):
        raise UnsendableError(
            f"the value of the header `{name}` has control characters or surrounding white space"
        )
    header = _sized(KEY, name.lower().encode()) + _sized(VALUE, value.encode())
    return _sized(tag, _sized(HEADER, header) + how)


_short_header_field = lru_cache(maxsize=8192)(_any_header_field)


def _any_header(name: str, texts: tuple[str, ...]) -> bytes:
    """Write all values of one header for the upstream: the first replaces what the client sent."""
    return b"".join(_header_fields(OK_HEADERS, [Header(name, text) for text in texts], may_append=False))


upstream_header = lru_cache(maxsize=8192)(_any_header)
"""The same, remembered: for values of up to :data:`MAX_CACHED` characters in all."""


@lru_cache(maxsize=1024)
def _removals(names: tuple[str, ...]) -> bytes:
    """Write ``headers_to_remove``. Nearly every request of a route has the same ones."""
    return b"".join([_name_field(OK_REMOVE, name) for name in names])


def removal(name: str) -> bytes:
    """Write that a header is removed on the way to the upstream."""
    return _removals((name,))


def _name_field(tag: bytes, name: str) -> bytes:
    if not HEADER_NAME(name):
        raise UnsendableError(f"`{name[:80]!r}` is not a header name")
    return _sized(tag, name.lower().encode())


def _dynamic_metadata(metadata: Metadata) -> bytes:
    if isinstance(metadata, DecisionMetadata):
        return _decision_metadata(metadata)
    return _sized(DYNAMIC_METADATA, _struct(metadata, MAX_DEPTH)) if metadata else b""


def _decision_metadata(metadata: DecisionMetadata) -> bytes:
    decision_id, route, action, reason, policy = metadata
    written_id = decision_id.encode()
    surrounding = around_decision if len(action) <= MAX_CACHED else _around_any
    before, after = surrounding(len(written_id), route, action, reason, policy)
    return before + written_id + after


def _around_any(length: int, route: str, action: str, reason: str, policy: str) -> tuple[bytes, bytes]:
    """Write the metadata of a decision but for its id, of *length* bytes: what is before it, and after it.

    That is the same for many a request, and remembered unless the action is a long one of a client's making.
    """
    _, *names = DecisionMetadata._fields
    after = _struct(dict(zip(names, (route, action, reason, policy), strict=True)), MAX_DEPTH)
    text = _opened(STRING, length)
    value = _opened(VALUE, len(text) + length) + text
    key = _sized(KEY, b"decision_id")
    entry = _opened(FIELDS, len(key) + len(value) + length) + key + value
    return _opened(DYNAMIC_METADATA, len(entry) + length + len(after)) + entry, after


around_decision = lru_cache(maxsize=4096)(_around_any)


def _struct(values: Mapping[str, JsonValue], depth: int) -> bytes:
    """Write the content of a ``google.protobuf.Struct``."""
    fields = []
    for name, value in values.items():
        fields.append(_sized(FIELDS, _sized(KEY, name.encode()) + _sized(VALUE, _value(value, depth))))
    return b"".join(fields)


def _value(value: JsonValue, depth: int) -> bytes:
    """Write the content of a ``google.protobuf.Value``."""
    if depth == 0:
        raise UnsendableError(f"the metadata are deeper than {MAX_DEPTH} levels")
    write = VALUE_OF.get(type(value))
    if write is None:
        raise UnsendableError(f"`{type(value).__name__}` is not a JSON value")
    return write(value, depth - 1)


def _number(value: float, _depth: int) -> bytes:
    if not math.isfinite(value):
        raise UnsendableError(f"`{value}` is not a JSON number")
    return NUMBER + struct.pack("<d", value)


def _list(values: Iterable[JsonValue], depth: int) -> bytes:
    return _sized(LIST, b"".join([_sized(VALUES, _value(value, depth)) for value in values]))


VALUE_OF: Final[Mapping[type, Callable[[Any, int], bytes]]] = {
    type(None): lambda _value, _depth: NULL + b"\x00",
    bool: lambda value, _depth: BOOL + (b"\x01" if value else b"\x00"),
    dict: lambda value, depth: _sized(STRUCT, _struct(value, depth)),
    float: _number,
    int: _number,
    list: _list,
    str: lambda value, _depth: _sized(STRING, value.encode()),
}


def _varint(number: int) -> bytes:
    """Write base 128, least significant group first (protobuf encoding)."""
    groups = bytearray()
    while number > 0x7F:
        groups.append(number & 0x7F | 0x80)
        number >>= 7
    groups.append(number)
    return bytes(groups)


LENGTHS: Final = tuple(map(_varint, range(2048)))


def _opened(tag: bytes, size: int) -> bytes:
    """Write the beginning of a field of *size* bytes."""
    return tag + _varint(size)


def _sized(tag: bytes, content: bytes) -> bytes:
    """Write one field with its length."""
    size = len(content)
    return tag + (LENGTHS[size] if size < 2048 else _varint(size)) + content


def _status(code: GrpcCode) -> bytes:
    return _sized(STATUS, CODE + _varint(code))


ALLOWED: Final = _sized(STATUS, b"")  # a message without its code: 0
ALLOWED_OK: Final = tuple(ALLOWED + _opened(OK, size) for size in range(2048))
"""The beginning of an allow, by the size of its ``ok_response``."""
DENIED_CODES: Final[Mapping[int, bytes]] = {
    code: _status(code) for code in (GrpcCode.PERMISSION_DENIED, GrpcCode.UNAUTHENTICATED)
}
FAILED: Final = _status(GrpcCode.UNAVAILABLE)

FAILURE: Final = encode(Failure())
"""The answer when no other can be made: 503, no headers, no body."""
