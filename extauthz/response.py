"""What an answer is made of, whatever carries it.

The values are named tuples: as immutable as a frozen dataclass, and made in a fraction of the time, which
counts because several of them are made for every request.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from engine.model import JsonValue

NOTHING: Mapping[str, JsonValue] = MappingProxyType({})


class GrpcCode(enum.IntEnum):
    """The ``google.rpc.Code`` values that a CheckResponse of ours may carry."""

    OK = 0
    PERMISSION_DENIED = 7
    UNAVAILABLE = 14
    UNAUTHENTICATED = 16


class DecisionMetadata(NamedTuple):
    """What the gateway's access log is told of a decision, as dynamic metadata of these names."""

    decision_id: str
    route: str
    action: str
    reason: str
    policy: str


Metadata = DecisionMetadata | Mapping[str, "JsonValue"]


class Header(NamedTuple):
    """One header to set. The first of a name replaces what is there, one with *append* adds a value."""

    name: str
    value: str
    append: bool = False


class Allow(NamedTuple):
    """Let the request through (``OkHttpResponse``)."""

    headers: tuple[Header, ...] = ()
    """Set on the request to the upstream."""
    remove_headers: tuple[str, ...] = ()
    """Removed from the request to the upstream."""
    response_headers: tuple[Header, ...] = ()
    """Set on the response to the client."""
    set_query: tuple[tuple[str, str], ...] = ()
    remove_query: tuple[str, ...] = ()
    metadata: Metadata = NOTHING
    """Dynamic metadata: decision id, route, action, reason, policy."""


class Deny(NamedTuple):
    """Turn the request away (``DeniedHttpResponse``); *code* is 7 or 16, see Envoy PR 34951."""

    status: int
    code: GrpcCode
    headers: tuple[Header, ...] = ()
    body: str = ""
    metadata: Metadata = NOTHING


class Failure(NamedTuple):
    """No decision could be made (``CheckResponse.error_response``, Envoy 1.37): never an allow."""

    status: int = 503
    headers: tuple[Header, ...] = ()
    body: str = ""
    metadata: Metadata = NOTHING


Answer = Allow | Deny | Failure
