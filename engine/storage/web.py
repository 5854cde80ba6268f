"""Bounded HTTP for stores: time, size, and where it goes have limits; every failure becomes a StoreError.

Nothing is taken from the environment (no proxies, no ``netrc``) and nothing is kept (no cookies).
"""

from __future__ import annotations

import asyncio
import ssl
import urllib.parse
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from http.cookiejar import CookieJar, DefaultCookiePolicy
from typing import TYPE_CHECKING, Final

import httpx

from engine.storage import StoreError

if TYPE_CHECKING:
    from collections.abc import Mapping

MAX_REDIRECTS: Final = 5
LOOPBACK: Final = frozenset(("localhost", "127.0.0.1", "::1"))
"""Hosts that may be asked without TLS: what is said does not leave the machine."""


class RefusedAddressError(StoreError):
    """An address, or one that it leads to, is not one that may be asked."""


@dataclass(frozen=True, slots=True)
class Answer:
    """A complete answer of a server."""

    status: int
    headers: httpx.Headers
    body: bytes
    url: str
    """Who answered, after all redirects."""


@dataclass(frozen=True, slots=True)
class Access:
    """How to show who asks. The secrets in it are in no message and no ``repr``."""

    username: str = ""
    password: str = field(default="", repr=False)
    bearer_token: str = field(default="", repr=False)

    @property
    def is_given(self) -> bool:
        """Whether there is anything to show."""
        return bool(self.username or self.password or self.bearer_token)

    def header(self) -> dict[str, str]:
        """Return the header to send, if any (RFC 7617, RFC 6750)."""
        if self.bearer_token:
            return {"authorization": f"Bearer {self.bearer_token}"}
        if not self.is_given:
            return {}
        request = httpx.Request("GET", "https://unused")
        (filled,) = httpx.BasicAuth(self.username, self.password).auth_flow(request)
        return {"authorization": filled.headers["authorization"]}


def shown(url: str) -> str:
    """Return an address without what may be secret in it: user, password, query."""
    parts = urllib.parse.urlsplit(url)
    host = parts.netloc.rpartition("@")[2]
    return urllib.parse.urlunsplit((parts.scheme, host, parts.path, "", ""))


def check_address(url: str) -> None:
    """Refuse what is not ``https``, unless it stays on this machine.

    Raises:
        RefusedAddressError: with what to write instead.

    """
    try:
        parts = urllib.parse.urlsplit(url)
        host = parts.hostname
    except ValueError:
        raise RefusedAddressError("the address is not a URL") from None
    if parts.username is not None or parts.password is not None:
        raise RefusedAddressError(f"`{shown(url)}`: user and password have keys of their own, not in the URL")
    if not host:
        raise RefusedAddressError(f"`{shown(url)}` names no host")
    if parts.scheme != "https" and not (parts.scheme == "http" and host in LOOPBACK):
        raise RefusedAddressError(f"`{shown(url)}` must be an `https://` address")


def trust(ca_file: str = "") -> ssl.SSLContext:
    """Return how servers are verified: by the system's authorities, and those in *ca_file* if there is one.

    Raises:
        StoreError: the file cannot be used.

    """
    context = ssl.create_default_context()
    if ca_file:
        try:
            context.load_verify_locations(ca_file)
        except ssl.SSLError:
            raise StoreError(f"`{ca_file}` holds no certificates in PEM") from None
        except OSError as error:
            raise StoreError(f"cannot read the CA certificates `{ca_file}`: {error.strerror}") from error
    return context


class Web:
    """Asks web servers, from any thread, also from one that runs an event loop."""

    def __init__(self, tls: ssl.SSLContext, *, timeout: float, max_bytes: int) -> None:
        """*timeout* bounds a whole exchange, redirects included, in seconds; *max_bytes* each body."""
        self._tls = tls
        self._timeout = timeout
        self._max_bytes = max_bytes

    def ask(
        self,
        method: str,
        url: str,
        headers: Mapping[str, str] | None = None,
        *,
        content: bytes | None = None,
        max_bytes: int | None = None,
    ) -> Answer:
        """Send a request and return the whole answer, whatever its status.

        Redirects are followed, never to where :func:`check_address` forbids, and without the credentials when
        they lead to another origin.

        Raises:
            StoreError: there is no whole answer.

        """
        check_address(url)
        limit = self._max_bytes if max_bytes is None else max_bytes
        with ThreadPoolExecutor(1, "store-web") as aside:  # the caller's thread may run an event loop
            return aside.submit(
                lambda: asyncio.run(self._exchange(method, url, headers or {}, content, limit))
            ).result()

    async def _exchange(
        self, method: str, url: str, headers: Mapping[str, str], content: bytes | None, max_bytes: int
    ) -> Answer:
        try:
            async with (
                asyncio.timeout(self._timeout),
                self._client() as client,
                client.stream(method, url, headers=dict(headers), content=content) as response,
            ):
                return Answer(
                    response.status_code,
                    response.headers,
                    await _body(response, max_bytes),
                    str(response.url),
                )
        except (TimeoutError, httpx.TimeoutException):
            raise StoreError(f"`{shown(url)}` gave no whole answer within {self._timeout:g} s") from None
        except httpx.TooManyRedirects:
            raise StoreError(f"`{shown(url)}` leads through too many redirects") from None
        except (httpx.HTTPError, httpx.InvalidURL, httpx.StreamError, OSError) as error:
            raise StoreError(f"cannot reach `{shown(url)}`: {_reason(error)}") from None

    def _client(self) -> httpx.AsyncClient:
        return httpx.AsyncClient(
            verify=self._tls,
            trust_env=False,
            follow_redirects=True,
            max_redirects=MAX_REDIRECTS,
            cookies=CookieJar(DefaultCookiePolicy(allowed_domains=[])),
            timeout=self._timeout,
            headers={"user-agent": "extauthz", "accept-encoding": "identity"},
            event_hooks={"request": [_check_request]},
        )


async def _check_request(request: httpx.Request) -> None:
    """Look at each address before it is asked: the first one and those of redirects."""
    check_address(str(request.url))


async def _body(response: httpx.Response, max_bytes: int) -> bytes:
    if response.headers.get("content-encoding", "identity") != "identity":
        raise StoreError(f"`{shown(str(response.url))}` answers compressed, although that was not asked for")
    body = bytearray()
    async for chunk in response.aiter_raw():  # as it arrives: too much is noticed before it is all here
        body += chunk
        if len(body) > max_bytes:
            raise StoreError(f"what `{shown(str(response.url))}` answers is larger than {max_bytes} bytes")
    return bytes(body)


def _reason(error: Exception) -> str:
    """Say what happened; the library's messages hold addresses only of what was asked, never headers."""
    if isinstance(error, httpx.RemoteProtocolError):
        return "the answer is not valid HTTP, or ended early"
    if isinstance(error, httpx.ConnectError):
        return f"cannot connect: {error}" if str(error) else "cannot connect"
    return type(error).__name__
