"""Which pages of other origins a browser lets use the API (https://fetch.spec.whatwg.org/#http-cors-protocol)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    Headers = list[tuple[bytes, bytes]]

ANY: Final = "*"
DEFAULT_HEADERS: Final = ("accept", "content-type", "user-agent", "x-requested-with")
METHODS: Final = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE"})

ASKED_METHOD: Final = "access-control-request-method"
ASKED_HEADERS: Final = "access-control-request-headers"
VARY: Final = (b"vary", b"Origin")
VARY_PREFLIGHT: Final = (
    b"vary",
    b"Origin, Access-Control-Request-Method, Access-Control-Request-Headers",
)


@dataclass(frozen=True, slots=True)
class Cors:
    """The rules of ``server.cors``. An origin may hold one ``*`` that stands for anything."""

    origins: tuple[str, ...] = (ANY,)
    headers: tuple[str, ...] = DEFAULT_HEADERS
    """Of requests, beyond those that need no permission."""
    max_age: int = 0
    """Seconds for which a browser may remember the answer; 0 leaves that to the browser."""

    def answer(self, origin: str | None) -> Headers:
        """Make the headers of an ordinary answer to a page of *origin*."""
        return [VARY, *self._allowed(origin)]

    def preflight(self, headers: Mapping[str, str]) -> Headers:
        """Make the headers of the answer to a browser that asks before it sends; without permission, none."""
        method, asked = headers.get(ASKED_METHOD, ""), headers.get(ASKED_HEADERS, "")
        allowed = self._allowed(headers.get("origin"))
        if not allowed or method not in METHODS or not self._accepts(asked):
            return [VARY_PREFLIGHT]
        made = [VARY_PREFLIGHT, *allowed, (b"access-control-allow-methods", method.encode())]
        if asked:
            made.append((b"access-control-allow-headers", asked.encode("latin-1")))
        if self.max_age:
            made.append((b"access-control-max-age", str(self.max_age).encode()))
        return made

    def _allowed(self, origin: str | None) -> Headers:
        if not origin:
            return []
        if ANY in self.origins:
            return [(b"access-control-allow-origin", b"*")]
        if any(_matches(pattern, origin) for pattern in self.origins):
            return [(b"access-control-allow-origin", origin.encode("latin-1"))]
        return []

    def _accepts(self, asked: str) -> bool:
        known = {name.lower() for name in self.headers}
        return ANY in known or all(name in known for name in _names(asked))


def _names(header: str) -> Iterable[str]:
    return (name for each in header.split(",") if (name := each.strip().lower()))


def _matches(pattern: str, origin: str) -> bool:
    before, star, after = pattern.lower().partition("*")
    origin = origin.lower()
    if not star:
        return origin == before
    return len(origin) >= len(before) + len(after) and origin.startswith(before) and origin.endswith(after)
