"""``options.now``: RFC 3339 text, with the complaints of Go's ``time.Parse``, which Cerbos shows.

The layout is read piece by piece; the first piece that does not fit is named with what is left of the text.
Where Go is lenient (an hour of one digit, a comma before the fraction), so is this.
"""

from __future__ import annotations

import datetime
import re
from typing import TYPE_CHECKING, Any

from engine.cel import EvaluationError, Timestamp
from engine.fields import describe

if TYPE_CHECKING:
    from engine.document import Path
    from engine.fields import Reading

LAYOUT = "2006-01-02T15:04:05.999999999Z07:00"

_PIECES = tuple(
    (name, re.compile(pattern, re.ASCII))
    for name, pattern in (
        ("2006", r"(?P<year>\d{4})"),
        ("-", "-"),
        ("01", r"(?P<month>\d{2})"),
        ("-", "-"),
        ("02", r"(?P<day>\d{2})"),
        ("T", "T"),
        ("15", r"(?P<hour>\d{1,2})"),
        (":", ":"),
        ("04", r"(?P<minute>\d{2})"),
        (":", ":"),
        ("05", r"(?P<second>\d{2})(?:[.,](?P<fraction>\d+))?"),
        ("Z07:00", r"Z|(?P<sign>[+-])(?P<hours>\d{2}):(?P<minutes>\d{2})"),
    )
)
_RANGES = (
    ("hour", 0, 23, "hour"),
    ("minute", 0, 59, "minute"),
    ("second", 0, 59, "second"),
    ("hours", 0, 24, "time zone offset hour"),
    ("minutes", 0, 60, "time zone offset minute"),
    ("month", 1, 12, "month"),
)


def timestamp(reading: Reading, value: Any, path: Path) -> Timestamp | None:
    """Read a point in time."""
    if not isinstance(value, str):
        reading.misshapen(f"expected a timestamp, found {describe(value)}", path)
        return None
    try:
        return parse_time(value)
    except ValueError as error:
        reading.misshapen(f'invalid timestamp value "{value}": {error}', path)
        return None


def parse_time(text: str) -> Timestamp:
    """Read RFC 3339 text.

    Raises:
        ValueError: the text is none; the message is Go's.

    """
    parts: dict[str, str] = {}
    position = 0
    for name, expression in _PIECES:
        found = expression.match(text, position)
        if found is None:
            message = f'parsing time "{text}" as "{LAYOUT}": cannot parse "{text[position:]}" as "{name}"'
            raise ValueError(message)
        parts |= {part: piece for part, piece in found.groupdict().items() if piece is not None}
        position = found.end()
    if position < len(text):
        raise ValueError(f'parsing time "{text}": extra text: "{text[position:]}"')
    return _moment(text, parts)


def _moment(text: str, parts: dict[str, str]) -> Timestamp:
    for part, lowest, highest, word in _RANGES:
        if part in parts and not lowest <= int(parts[part]) <= highest:
            raise ValueError(f'parsing time "{text}": {word} out of range')
    seconds = _day(text, parts) * 86_400 + _seconds(parts, "hour", "minute") + int(parts["second"])
    if "sign" in parts:
        offset = _seconds(parts, "hours", "minutes")
        seconds += offset if parts["sign"] == "-" else -offset
    nanoseconds = int(parts.get("fraction", "")[:9].ljust(9, "0"))
    try:
        return Timestamp(seconds * 1_000_000_000 + nanoseconds)
    except EvaluationError:
        where = "before 0001-01-01" if seconds < 0 else "after 9999-12-31"
        raise ValueError(f"proto: timestamp (seconds:{seconds}) {where}") from None


def _day(text: str, parts: dict[str, str]) -> int:
    """Return the days since 1970; the year 0, which Python has not, is a leap year before the year 1."""
    year, month, day = int(parts["year"]), int(parts["month"]), int(parts["day"])
    try:
        if year == 0:  # as long as the year 400
            return datetime.date(400, month, day).toordinal() - _CYCLE - _EPOCH
        return datetime.date(year, month, day).toordinal() - _EPOCH
    except ValueError:
        raise ValueError(f'parsing time "{text}": day out of range') from None


_EPOCH = datetime.date(1970, 1, 1).toordinal()
_CYCLE = 146_097
"""The days of four centuries."""


def _seconds(parts: dict[str, str], hours: str, minutes: str) -> int:
    return int(parts[hours]) * 3600 + int(parts[minutes]) * 60
