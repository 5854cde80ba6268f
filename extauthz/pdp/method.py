"""What a call of the API is: its names in gRPC and over HTTP, its messages, and who called."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple


class Caller(NamedTuple):
    """What a call may know of how it came: headers or metadata in lower case, and whether over TLS."""

    headers: Mapping[str, str]
    tls: bool = False
    peer: str = ""
    """The address of the other end of the connection, without port; empty where it has none."""


@dataclass(frozen=True, slots=True)
class Method:
    """A call of the API: its names in gRPC and over HTTP, and the messages."""

    service: str
    name: str
    verb: str
    path: str
    request: type[Any]
    response: type[Any]
    long: bool = False
    """The response may be so long that it is written in a thread."""
    also: tuple[tuple[str, str], ...] = ()
    """Further verbs and paths of the same call."""
    in_query: bool = False
    """Over HTTP the request is in the query string, and a body means nothing."""


Answer = Callable[[Any, Callable[[], Caller]], Awaitable[Any]]
"""From a request, and what tells who sent it, to the response; raises
:class:`~extauthz.pdp.errors.PdpError`."""

Guard = Callable[[Caller], Awaitable[None]]
"""Lets a caller pass before anything is made of the request, or raises
:class:`~extauthz.pdp.errors.PdpError`."""
