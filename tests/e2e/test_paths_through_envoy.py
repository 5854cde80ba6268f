"""Attacks on the reading of a path, byte for byte, through a real Envoy."""

from __future__ import annotations

from typing import Any

import httpx
import pytest

from tests.e2e.harness import Gateway, cases
from tokens import ADMINISTRATOR

CANONICAL = {"/api/expenses/1", "/api/expenses/%31", "/api/%65xpenses/1"}
"""What the API may be asked for: one path, unreserved characters encoded or not (RFC 3986 §6.2.2.2)."""


@pytest.mark.parametrize("listener", ["gateway", "bare"])
@pytest.mark.parametrize("row", cases("paths_through_envoy"), ids=lambda row: row["target"])
def test_path(request: pytest.FixtureRequest, listener: str, row: dict[str, Any]) -> None:
    """A path that is not canonical does not reach the API; one that the gateway made canonical arrives so."""
    client: Gateway = request.getfixturevalue(listener)
    reply = client.raw(row["target"].encode("latin-1"), who=ADMINISTRATOR)
    assert reply.status == row[listener], reply
    if reply.status == httpx.codes.OK:
        assert reply.arrived["target"].split("?")[0] in CANONICAL
    else:
        assert reply.arrivals == ()


@pytest.mark.parametrize("listener", ["gateway", "bare"])
@pytest.mark.parametrize("method", [b"get", b"TRACE", b"CONNECT", b"OPTIONS", b"BREW", b"HEAD"])
def test_method(request: pytest.FixtureRequest, listener: str, method: bytes) -> None:
    """A method that no route names is refused, in whatever case, even for an administrator."""
    client: Gateway = request.getfixturevalue(listener)
    reply = client.raw(b"/api/expenses/1", b"x-http-method-override: GET", method=method, who=ADMINISTRATOR)
    assert httpx.codes.is_client_error(reply.status)
    assert reply.arrivals == ()
