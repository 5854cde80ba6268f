"""Look-ups: attributes that are not in the request, read from the service that has them.

A record is one JSON object behind an address such as ``http://expenses.internal/api/expenses/{id}``.
Parameters come from clients, so the address is built to stay in its template whatever they hold. Records are
remembered for a short time, equal look-ups share one request, and there is a limit to those under way: beyond
it a look-up fails at once instead of queueing behind a slow service. No failure ever looks like an empty
record.
"""

from __future__ import annotations

import asyncio
import re
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final
from urllib.parse import quote, urlsplit

from extauthz import strict_json
from extauthz.facts import MAPPING
from extauthz.fetch import FetchError, FetchTimeout, fetch
from extauthz.recent import Recent
from extauthz.slots import MISSING, SlotError

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Mapping, Sequence

    import httpx

    from engine.model import JsonValue
    from extauthz.facts import Facts
    from extauthz.slots import Slot

    Record = dict[str, JsonValue]

TIMEOUT = 0.2
TTL = 5.0
NOT_FOUND_TTL = 1.0
"""Seconds, at most, for which a 404 is remembered: it slows guessing, and a new record is soon seen."""
MAX_RECORDS = 10_000
MAX_RECORD_BYTES = 64 * 1024
MAX_REMEMBERED_BYTES = 64 * 1024 * 1024
MAX_UNDER_WAY = 64
MAX_PARAMETER = 512


# --- outcomes ---------------------------------------------------------------------------------------------


class SourceError(Exception):
    """A look-up gave no record; *reason* is the stable code, *detail* for the log."""

    reason = ""

    def __init__(self, source: str, detail: str) -> None:
        self.source = source
        self.detail = detail
        super().__init__(f"source `{source}`: {detail}")


class SourceNotFound(SourceError):  # noqa: N818  # the outcome, as HTTP names it
    """There is no such record: the service says so (404)."""

    reason = "source.not_found"


class SourceUnavailable(SourceError):  # noqa: N818  # the state
    """Whether there is a record is not known. *reason* tells a timeout and a useless answer from the rest."""

    def __init__(self, source: str, reason: str, detail: str) -> None:
        self.reason = reason
        super().__init__(source, detail)


SOURCE_REASONS: Final = frozenset(
    {"source.invalid", "source.not_found", "source.timeout", "source.unavailable"}
)
"""Every reason that these errors have."""


class SourceWanted(Exception):  # noqa: N818  # a request to the caller, not an error
    """The record has to be fetched: await :meth:`fetch`."""

    def __init__(self, fetch: Callable[[], Coroutine[None, None, Record]]) -> None:
        self.fetch = fetch
        """Gives the record; raises :class:`SourceNotFound` or :class:`SourceUnavailable`."""
        super().__init__()


# --- addresses --------------------------------------------------------------------------------------------

PARAMETER = re.compile(r"\{([A-Za-z_][A-Za-z0-9_]*)\}")
PLAIN = re.compile(rf"[A-Za-z0-9_~-][A-Za-z0-9._~-]{{0,{MAX_PARAMETER - 1}}}").fullmatch
"""Values that mean the same encoded or not, and are no dot segment in any company."""
CONTROL = re.compile(r"[\x00-\x1f\x7f]")
SLASH = re.compile(r"[/\\]")
DOTS = frozenset({".", ".."})


class UrlTemplate:
    """An address with ``{name}`` in its path or query; a value never becomes more than one part of it.

    Everything but unreserved characters is percent-encoded. What an encoding does not make harmless, because
    servers exist that decode before they look, is refused: dot segments, also between encoded slashes;
    control characters; and, in the path, an empty value, which would name another resource.
    """

    def __init__(self, text: str) -> None:
        """Read *text*, an ``http`` or ``https`` URL; raise ``ValueError`` with what is wrong with it."""
        self.text = text
        pieces = PARAMETER.split(text)
        literals, names = pieces[::2], pieces[1::2]
        _check_template(literals)
        in_path = ["?" not in "".join(literals[: number + 1]) for number in range(len(names))]
        self._start = literals[0]
        self._rest = tuple(zip(names, in_path, literals[1:], strict=True))

    @property
    def parameters(self) -> frozenset[str]:
        """The names it needs values for."""
        return frozenset(name for name, _, _ in self._rest)

    def fill(self, parameters: Mapping[str, object]) -> str:
        """Build the address; raise :class:`~extauthz.slots.SlotError` when a value cannot stand in it."""
        url = self._start
        for name, in_path, literal in self._rest:
            value = parameters.get(name)
            if type(value) is not str or not PLAIN(value):
                value = _encoded(name, _spelled(name, value), in_path)
            url += value + literal
        return url


def _check_template(literals: Sequence[str]) -> None:
    static = "".join(literals)
    if not re.fullmatch(r"[!-~]+", static) or "#" in static or "\\" in static:
        raise ValueError("a URL is printable ASCII without spaces, backslashes and fragment")
    if "{" in static or "}" in static:
        raise ValueError("braces go around a name: `{id}`")
    if len(literals) > 1 and literals[0].count("/") < 3:
        raise ValueError("parameters may stand in the path and the query, not before them")
    parts = urlsplit(static)
    if parts.scheme not in ("http", "https") or not parts.hostname or (parts.port or 1) < 1:
        raise ValueError("not an http or https URL")
    if parts.username is not None or parts.password is not None:
        raise ValueError("no user and password in a URL: send a header")
    # INVARIANT (no dot segment without parameters, no parameter that is one): so none can arise from both
    if not DOTS.isdisjoint(parts.path.split("/")):
        raise ValueError("a URL with dot segments: write where they lead")


def _spelled(name: str, value: object) -> str:
    if isinstance(value, str):
        return value
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    raise SlotError(MAPPING, f"`{name}` is neither text nor a whole number")


def _encoded(name: str, text: str, in_path: bool) -> str:
    if len(text) > MAX_PARAMETER:
        raise SlotError(MAPPING, f"`{name}` is longer than {MAX_PARAMETER} characters")
    if CONTROL.search(text):
        raise SlotError(MAPPING, f"`{name}` has a control character")
    if in_path and (not text or any(part.partition(";")[0] in DOTS for part in SLASH.split(text))):
        raise SlotError(MAPPING, f"`{name}` is empty or has a dot segment")
    try:
        return quote(text, safe="")
    except UnicodeEncodeError:
        raise SlotError(MAPPING, f"`{name}` is not valid Unicode") from None


# --- sources ----------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Missing:
    """Stands in the memory for a record that the service does not have."""

    detail: str


class HttpSource:
    """Records behind a URL template, by GET.

    Only a 200 with one JSON object is a record; 404 says that there is none; everything else is a failure.
    *timeout* is for the whole exchange, *ttl* how long a record is remembered (0: not at all), both in
    seconds.
    """

    def __init__(
        self,
        name: str,
        url: UrlTemplate,
        http: httpx.AsyncClient,
        *,
        headers: Mapping[str, Slot] | None = None,
        timeout: float = TIMEOUT,
        ttl: float = TTL,
        max_records: int = MAX_RECORDS,
        max_bytes: int = MAX_RECORD_BYTES,
        max_under_way: int = MAX_UNDER_WAY,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.name = name
        self.url = url
        self._http = http
        self._headers = tuple((name.lower(), slot) for name, slot in (headers or {}).items())
        self._timeout, self._max_bytes, self._max_under_way = timeout, max_bytes, max_under_way
        self._ttl, self._not_found_ttl = ttl, min(ttl, NOT_FOUND_TTL)
        self._clock = clock
        self._memory: Recent[tuple[float, Record | _Missing]] = Recent(max_records, MAX_REMEMBERED_BYTES)
        self._under_way: dict[str, asyncio.Task[Record]] = {}

    def get(self, facts: Facts) -> Record:
        """Give the record for a request, from memory.

        The record is shared: it must not be changed. Raises :class:`SourceWanted` when it has to be fetched,
        :class:`SourceNotFound` when it is known that there is none, and :class:`~extauthz.slots.SlotError`
        when the request does not give what the address and the headers need.
        """
        url = key = self.url.fill(facts.path)
        headers = self._header_values(facts) if self._headers else {}
        if headers:
            key = "\n".join((url, *(f"{name}:{value}" for name, value in headers.items())))
        remembered = self._memory.get(key)
        if remembered is not None and self._clock() < remembered[0]:
            return self._found(remembered[1])
        raise SourceWanted(lambda: self._share(key, url, headers))

    def _found(self, record: Record | _Missing) -> Record:
        if isinstance(record, _Missing):
            raise SourceNotFound(self.name, record.detail)
        return record

    def _header_values(self, facts: Facts) -> dict[str, str]:
        values = ((name, slot.function(facts)) for name, slot in self._headers)
        return {name: self._header_value(name, value) for name, value in values if value is not MISSING}

    def _header_value(self, name: str, value: object) -> str:
        if isinstance(value, str) and re.fullmatch(r"[\t -~]*", value):
            return value
        raise SlotError(MAPPING, f"the header `{name}` for `{self.name}` is not printable ASCII text")

    async def _share(self, key: str, url: str, headers: dict[str, str]) -> Record:
        """Fetch, with all who want the same; one who stops waiting does not stop it for the others."""
        task = self._under_way.get(key)
        if task is None:
            if len(self._under_way) >= self._max_under_way:
                raise SourceUnavailable(self.name, "source.unavailable", "too many look-ups are under way")
            task = asyncio.create_task(self._fetch(key, url, headers), name=f"source {self.name}")
            self._under_way[key] = task
            task.add_done_callback(lambda done: self._landed(key, done))
        return await asyncio.shield(task)

    def _landed(self, key: str, task: asyncio.Task[Record]) -> None:
        del self._under_way[key]
        if not task.cancelled():
            task.exception()  # seen: nobody may be waiting any more

    async def _fetch(self, key: str, url: str, headers: dict[str, str]) -> Record:
        try:
            response = await fetch(
                self._http, url, timeout=self._timeout, max_bytes=self._max_bytes, headers=headers
            )
        except FetchTimeout as error:
            raise SourceUnavailable(self.name, "source.timeout", str(error)) from None
        except FetchError as error:
            raise SourceUnavailable(self.name, "source.unavailable", str(error)) from None
        record, ttl = self._read(response.status, response.body)
        if ttl > 0:
            self._memory.put(key, (self._clock() + ttl, record), len(key) + len(response.body))
        return self._found(record)

    def _read(self, status: int, body: bytes) -> tuple[Record | _Missing, float]:
        if status == 404:
            return _Missing("the service has no such record"), self._not_found_ttl
        if status != 200:
            raise SourceUnavailable(
                self.name, "source.unavailable", f"the service answered with status {status}"
            )
        try:
            return strict_json.parse_object(body), self._ttl
        except strict_json.StrictJsonError as error:
            raise SourceUnavailable(self.name, "source.invalid", f"the record is {error}") from None
