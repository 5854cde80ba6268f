"""Where JSON Schemas come from: the store's ``_schemas`` folder, files, web servers.

Schemas are read when policies are loaded and never while a question is answered. Whoever writes policies may
name any URL and any file that the process can reach, as in Cerbos: policy authors are trusted with that, and
clients, who are not, have no way to it. What is read is bounded in size and time all the same, and a web
server cannot send the reader to anything but another web server.
"""

from __future__ import annotations

import json
import stat
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import SplitResult, unquote, urljoin, urlsplit

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    import httpx

DIRECTORY = "_schemas"
"""The folder of a store that holds schemas."""

MAX_BYTES = 1024 * 1024
"""Schemas larger than this are refused."""

TIMEOUT = 5.0
"""Seconds that a web server has for its whole answer."""

REDIRECTS = 5
"""How often a web server may point elsewhere."""


class SchemaError(Exception):
    """A schema cannot be used; the message says why."""


class MissingSchemaError(SchemaError):
    """There is no schema at a URL."""


@dataclass(slots=True)
class Sources:
    """Documents by URL, each read once.

    *files* are the store's, with paths that begin with ``_schemas/``. *fetch* gets what is behind a web URL,
    and may raise :class:`SchemaError`.
    """

    files: Mapping[str, bytes]
    fetch: Callable[[str], bytes]
    fetched: dict[str, bytes] = field(default_factory=dict)
    """What came from the web; it outlives a change of the store."""

    _documents: dict[str, Any] = field(default_factory=dict)

    def document(self, url: str) -> Any:
        """Return the parsed JSON at *url* (without a fragment).

        Raises:
            SchemaError: it cannot be read, or is not JSON.

        """
        if url not in self._documents:
            self._documents[url] = parsed(self._read(url), url)
        return self._documents[url]

    def _read(self, url: str) -> bytes:
        parts = urlsplit(url)
        read = _READERS.get(parts.scheme)
        if read is None:
            raise SchemaError(f"no Loader found for {url}")
        return read(self, url, parts)

    def _from_store(self, _url: str, parts: SplitResult) -> bytes:
        path = f"{DIRECTORY}/{unquote(parts.path).removeprefix('/')}"
        if path not in self.files:
            raise MissingSchemaError(path)
        return self.files[path]

    def _from_file(self, _url: str, parts: SplitResult) -> bytes:
        return read_file(unquote(parts.path))

    def _from_web(self, url: str, _parts: SplitResult) -> bytes:
        if url not in self.fetched:
            self.fetched[url] = self.fetch(url)
        return self.fetched[url]

    def _nowhere(self, url: str, _parts: SplitResult) -> bytes:
        raise MissingSchemaError(url)


_READERS: Mapping[str, Callable[[Sources, str, SplitResult], bytes]] = {
    "": Sources._nowhere,  # noqa: SLF001 - the table belongs to the class
    "cerbos": Sources._from_store,  # noqa: SLF001
    "file": Sources._from_file,  # noqa: SLF001
    "http": Sources._from_web,  # noqa: SLF001
    "https": Sources._from_web,  # noqa: SLF001
}


def read_file(path: str) -> bytes:
    """Read a file of the machine.

    Raises:
        SchemaError: there is none, it is not an ordinary file, or too large.

    """
    try:
        if not stat.S_ISREG(Path(path).stat().st_mode):
            raise SchemaError(f"read {path}: not an ordinary file")
        with Path(path).open("rb") as file:
            content = file.read(MAX_BYTES + 1)
    except FileNotFoundError:
        raise MissingSchemaError(path) from None
    except (OSError, ValueError) as error:  # ValueError: a NUL byte in the path
        raise SchemaError(f"open {path}: {getattr(error, 'strerror', None) or error}") from None
    _bounded(content, path)
    return content


def _bounded(content: bytes | bytearray, name: str) -> None:
    if len(content) > MAX_BYTES:
        raise SchemaError(f"{name} is larger than {MAX_BYTES} bytes")


def parsed(content: bytes, url: str) -> Any:
    """Parse JSON.

    What follows the first value is a fault, but one that is told later: Cerbos says first whether that value
    is a schema at all.

    Raises:
        SchemaError: it is not JSON.

    """
    _bounded(content, url)
    try:
        text = content.decode("utf-8-sig").lstrip()
        value, end = json.JSONDecoder(parse_constant=_no_constant).raw_decode(text)
    except (ValueError, RecursionError) as error:
        raise SchemaError(f"invalid json {url}: {_told(error)}") from None
    rest = text[end:].strip()
    return TrailingText(value, rest[:1]) if rest else value


@dataclass(frozen=True, slots=True)
class TrailingText:
    """A JSON value with something behind it that does not belong there."""

    value: Any
    character: str


def _no_constant(word: str) -> Any:
    raise ValueError(f"invalid number {word}")


def _told(error: Exception) -> str:
    if isinstance(error, json.JSONDecodeError):
        return f"{error.msg} (line {error.lineno}, column {error.colno})"
    return "nested too deeply" if isinstance(error, RecursionError) else str(error)


# -- the web -----------------------------------------------------------------------------------------------


def fetch(url: str) -> bytes:
    """Get a schema from a web server.

    Raises:
        MissingSchemaError: the server says that there is none.
        SchemaError: it cannot be had in time and size.

    """
    import httpx  # noqa: PLC0415 - few policies need it

    deadline = time.monotonic() + TIMEOUT
    try:
        with httpx.Client(timeout=TIMEOUT, follow_redirects=False, trust_env=False) as client:
            return _followed(client, url, deadline)
    except httpx.InvalidURL as error:
        raise SchemaError(f"Get {json.dumps(url)}: {error}") from None
    except httpx.HTTPError as error:
        raise SchemaError(f"Get {json.dumps(url)}: {error or type(error).__name__}") from None


def _followed(client: httpx.Client, url: str, deadline: float) -> bytes:
    here = url
    accepted = {"accept": "application/schema+json, application/json"}
    for _ in range(REDIRECTS + 1):
        with client.stream("GET", here, headers=accepted) as got:
            if not got.has_redirect_location:
                return _body(got, url, deadline)
            here = urljoin(here, got.headers["location"])
        _in_time(url, deadline)
        if urlsplit(here).scheme not in ("http", "https"):
            raise SchemaError(f"{url} leads to {here}, which is no web page")
    raise SchemaError(f"{url} leads elsewhere more than {REDIRECTS} times")


def _body(response: httpx.Response, url: str, deadline: float) -> bytes:
    if response.status_code == 404:
        raise MissingSchemaError(url)
    if response.status_code != 200:
        raise SchemaError(f"{url} returned status code {response.status_code}")
    body = bytearray()
    for chunk in response.iter_bytes():
        body += chunk
        _bounded(body, url)
        _in_time(url, deadline)
    return bytes(body)


def _in_time(url: str, deadline: float) -> None:
    if time.monotonic() > deadline:
        raise SchemaError(f"{url} took longer than {TIMEOUT:g} s")
