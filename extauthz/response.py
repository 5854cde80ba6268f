"""What an answer is made of, whatever carries it."""

from __future__ import annotations

import enum
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

    from engine.model import JsonValue

NOTHING: Mapping[str, JsonValue] = MappingProxyType({})


class GrpcCode(enum.IntEnum):
    """The ``google.rpc.Code`` values that a CheckResponse of ours may carry."""

    OK = 0
    PERMISSION_DENIED = 7
    UNAVAILABLE = 14
    UNAUTHENTICATED = 16


@dataclass(frozen=True, slots=True)
class Header:
    """One header to set. The first of a name replaces what is there, one with *append* adds a value."""

    name: str
    value: str
    append: bool = False


@dataclass(frozen=True, slots=True)
class Allow:
    """Let the request through (``OkHttpResponse``)."""

    headers: tuple[Header, ...] = ()
    """Set on the request to the upstream."""
    remove_headers: tuple[str, ...] = ()
    """Removed from the request to the upstream."""
    response_headers: tuple[Header, ...] = ()
    """Set on the response to the client."""
    set_query: tuple[tuple[str, str], ...] = ()
    remove_query: tuple[str, ...] = ()
    metadata: Mapping[str, JsonValue] = field(default_factory=lambda: NOTHING)
    """Dynamic metadata: decision id, route, action, reason."""


@dataclass(frozen=True, slots=True)
class Deny:
    """Turn the request away (``DeniedHttpResponse``); *code* is 7 or 16, see Envoy PR 34951."""

    status: int
    code: GrpcCode
    headers: tuple[Header, ...] = ()
    body: str = ""
    metadata: Mapping[str, JsonValue] = field(default_factory=lambda: NOTHING)


@dataclass(frozen=True, slots=True)
class Failure:
    """No decision could be made (``CheckResponse.error_response``, Envoy 1.37): never an allow."""

    status: int = 503
    headers: tuple[Header, ...] = ()
    body: str = ""
    metadata: Mapping[str, JsonValue] = field(default_factory=lambda: NOTHING)


Answer = Allow | Deny | Failure
