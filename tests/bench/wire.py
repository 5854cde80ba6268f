"""Phases at the edges: a request's bytes to values, its path to its canonical form, an answer to bytes."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING, Any

from envoy_data_plane.envoy.service.auth import v3 as auth

from extauthz import wire
from extauthz.request import canonical_target, careful_target
from extauthz.response import Allow, Deny, GrpcCode, Header
from tests.bench.measure import Case, Measurement, paired
from tests.extauthz.requests import check_request
from tests.message_schemas import fast_classes

if TYPE_CHECKING:
    from collections.abc import Iterator

TARGET = "/api/expenses/5b1f0f0a-8d7e-4f5a-9b0c-444455556666?fields=id,amount"
TOKEN = "eyJ" + "x" * 500
BROWSER = {
    "accept": "application/json",
    "accept-encoding": "gzip, deflate, br",
    "accept-language": "en-GB,en;q=0.9",
    "cookie": "sid=0123456789abcdef; theme=dark",
    "traceparent": "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
    "user-agent": "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/140.0",
    "x-envoy-internal": "true",
    "x-forwarded-for": "192.0.2.10",
    "x-forwarded-proto": "https",
    "x-request-id": "5b1f0f0a-8d7e-4f5a-9b0c-444455556666",
}


def typical_request(**more: Any) -> bytes:
    """Serialize a browser's GET with a token: 15 headers, about 1.2 KB."""
    return check_request("GET", f"https://api.example.com{TARGET}", BROWSER, token=TOKEN, **more)


def decode(rounds: int) -> Iterator[Measurement]:
    """Read a CheckRequest, and then what is read late."""
    plain, told_apart = typical_request(), typical_request(raw=True)
    many = check_request(headers={f"x-header-{number}": "value" for number in range(96)}, token=TOKEN)
    cases = {
        "parse only": Case(lambda: wire.CheckRequest.FromString(plain)),
        "request": Case(lambda: wire.decode(plain), budget=4),
        "request, one header": Case(lambda: wire.decode(plain).header("authorization")),
        "request, all headers": Case(lambda: wire.decode(plain).headers),
        "request, peer and context": Case(lambda: _peer_and_context(plain)),
        "request, header_map": Case(lambda: wire.decode(told_apart).header("authorization")),
        "100 headers": Case(lambda: wire.decode(many).header("authorization")),
        "envoy-data-plane": Case(lambda: auth.CheckRequest.parse(plain)),
    }
    return paired("decode", cases, rounds)


def _peer_and_context(data: bytes) -> object:
    request = wire.decode(data)
    return request.source, request.context


def canonicalise(rounds: int) -> Iterator[Measurement]:
    """Find the canonical path of a target."""
    longest, dots = "/" + "%61" * 2730, "/%2e%2e;x" * 255
    cases = {
        "clean": Case(lambda: canonical_target(TARGET), budget=2),
        "clean, the careful way": Case(lambda: careful_target(TARGET)),
        "encoded space": Case(lambda: canonical_target("/api/expenses/a%20b")),
        "traversal": Case(lambda: canonical_target("/api/..%2f..%2Fadmin/%2e%2e;x/y")),
        "8 KiB of escapes": Case(lambda: canonical_target(longest)),
        "255 dot segments": Case(lambda: canonical_target(dots)),
    }
    return paired("canonicalise", cases, rounds)


METADATA = {
    "decision_id": "01JABCDEFGHJKMNPQRSTVWXYZ0",
    "route": "expenses",
    "action": "read",
    "reason": "policy",
}
ALLOW = Allow(
    headers=(
        Header("x-authz-principal", "alice@example.com"),
        Header("x-authz-roles", "user,manager"),
        Header("x-approver", "bob@example.com"),
    ),
    metadata=METADATA,
)
DENY = Deny(
    403,
    GrpcCode.PERMISSION_DENIED,
    (
        Header("content-type", "application/problem+json"),
        Header("x-denial-reason", "another region's expense"),
    ),
    '{"type": "about:blank", "title": "Forbidden", "status": 403, "detail": "another region\'s expense"}',
    METADATA,
)


def encode(rounds: int) -> Iterator[Measurement]:
    """Write a CheckResponse. Header values are remembered; *new* ones are seen for the first time."""
    (response,) = fast_classes(auth.CheckResponse)
    numbers = itertools.count()
    cases = {
        "allow": Case(lambda: wire.encode(ALLOW), budget=3),
        "making a new allow": Case(lambda: _new_allow(next(numbers))),
        "making and encoding it": Case(lambda: wire.encode(_new_allow(next(numbers)))),
        "bare allow": Case(lambda: wire.encode(Allow())),
        "deny": Case(lambda: wire.encode(DENY)),
        "allow by message objects": Case(lambda: _by_message_objects(response)),
    }
    return paired("encode", cases, rounds)


def _new_allow(number: int) -> Allow:
    """Three headers, of which one is new, and a new decision id."""
    _, *others = ALLOW.headers
    new = Header("x-authz-principal", f"user-{number}@example.com")
    return Allow(headers=(new, *others), metadata={**METADATA, "decision_id": f"01JABCDEFGHJKMNPQRS{number}"})


def _by_message_objects(response: Any) -> bytes:
    """Encode what ``allow`` encodes through protobuf's objects: the way not taken."""
    message = response()
    message.status.SetInParent()
    for header in ALLOW.headers:
        option = message.ok_response.headers.add()
        option.header.key, option.header.value = header.name, header.value
        option.append.SetInParent()
        option.append_action = 2
    fields = message.dynamic_metadata.fields
    for name, value in METADATA.items():
        fields[name].string_value = value
    serialized: bytes = message.SerializeToString()
    return serialized
