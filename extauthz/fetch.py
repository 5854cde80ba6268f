"""One bounded HTTP GET: for key sets and for look-ups.

Nothing is followed, stored or taken from the environment: no redirects, cookies, proxies or ``netrc``. Time
and size have limits, and every way to fail becomes one of two errors here.
"""

from __future__ import annotations

import asyncio
import ssl
from dataclasses import dataclass
from http.cookiejar import CookieJar, DefaultCookiePolicy
from typing import TYPE_CHECKING

import httpx

if TYPE_CHECKING:
    from collections.abc import Mapping

ATTEMPTS = 2
"""A kept-alive connection may be closed by the other side just as it is used again; GET may be repeated (RFC
9110 §9.2.2)."""


class FetchError(Exception):
    """There is no usable response; the message says why, and holds nothing that came from the other side."""


class FetchTimeout(FetchError):  # noqa: N818  # named after what happened, as httpx and asyncio do
    """The response was not complete in time."""


@dataclass(frozen=True, slots=True)
class Fetched:
    """A complete response."""

    status: int
    body: bytes


def client(max_connections: int) -> httpx.AsyncClient:
    """Make a client for :func:`fetch`: HTTP/1.1 with keep-alive, and the system's trust store."""
    return httpx.AsyncClient(
        verify=ssl.create_default_context(),
        trust_env=False,
        follow_redirects=False,
        cookies=CookieJar(DefaultCookiePolicy(allowed_domains=[])),
        timeout=None,  # noqa: S113  # fetch() bounds the whole exchange, which per-phase timeouts do not
        limits=httpx.Limits(max_connections=max_connections, max_keepalive_connections=max_connections),
        headers={"user-agent": "extauthz", "accept": "application/json", "accept-encoding": "identity"},
    )


async def fetch(
    http: httpx.AsyncClient,
    url: str,
    *,
    timeout: float,
    max_bytes: int,
    headers: Mapping[str, str] | None = None,
) -> Fetched:
    """GET *url* within *timeout* seconds; a body of more than *max_bytes* is an error as soon as it is known.

    Raises :class:`FetchTimeout` and :class:`FetchError`.
    """
    try:
        async with asyncio.timeout(timeout):
            return await _attempt(http, url, headers, max_bytes, ATTEMPTS)
    except (TimeoutError, httpx.TimeoutException):
        raise FetchTimeout(f"no complete response within {timeout:g} s") from None
    except httpx.RemoteProtocolError:
        raise FetchError("the response is not valid HTTP, or ended early") from None
    except (httpx.HTTPError, httpx.InvalidURL, httpx.StreamError, OSError) as error:
        raise FetchError(_reason(error)) from error


async def _attempt(
    http: httpx.AsyncClient, url: str, headers: Mapping[str, str] | None, max_bytes: int, attempts: int
) -> Fetched:
    try:
        async with http.stream("GET", url, headers=headers) as response:
            return Fetched(response.status_code, await _body(response, max_bytes))
    except (httpx.RemoteProtocolError, httpx.ReadError, httpx.WriteError):
        if attempts == 1:
            raise
    return await _attempt(http, url, headers, max_bytes, attempts - 1)


async def _body(response: httpx.Response, max_bytes: int) -> bytes:
    if response.headers.get("content-encoding", "identity") != "identity":
        raise FetchError("the response is compressed although that was not asked for")
    body = bytearray()
    async for chunk in response.aiter_raw():  # as it arrives: nothing is expanded before it is counted
        body += chunk
        if len(body) > max_bytes:
            raise FetchError(f"the response is larger than {max_bytes} bytes")
    return bytes(body)


def _reason(error: Exception) -> str:
    if isinstance(error, httpx.ConnectError):
        return "cannot connect: " + (str(error) or type(error).__name__)
    return f"{type(error).__name__}: {error}"
