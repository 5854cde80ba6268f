"""Calendar fields of timestamps and lengths of durations; the clock of a check.

Fields are computed from the count of seconds, not with ``datetime``: a time zone can move a timestamp into
the years 0 and 10000, which ``datetime`` does not have.
"""

from __future__ import annotations

import datetime
import functools
import re
import zoneinfo
from typing import TYPE_CHECKING, Any, Protocol

from engine.cel.library.declaration import Declaration, everywhere
from engine.cel.values import (
    INT_MAX,
    INT_MIN,
    MAX_TIMESTAMP_SECONDS,
    MIN_TIMESTAMP_SECONDS,
    NANOSECONDS,
    SECONDS_OF_DAY,
    Duration,
    EvaluationError,
    NoSuchOverload,
    Timestamp,
    calendar_date,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

FIXED_OFFSET = re.compile(r"([+-]?)(\d{1,2}):(\d{1,2})", re.ASCII)
"""``05:30``, ``+05:30``, ``-9:30``: hours and minutes east of UTC, or west."""

CACHED_ZONES = 256
MAX_ZONE_NAME = 64
"""Characters; the longest name of the tz database has 32."""

ZONE_MARGIN = 3 * SECONDS_OF_DAY
"""How far from the ends of the calendar a zone's rules are asked: they do not change there."""


@functools.lru_cache(maxsize=CACHED_ZONES)
def _zone(name: str) -> datetime.tzinfo | int:
    """Look up a zone of the tz database, or the seconds of a fixed offset; raises :class:`EvaluationError`.

    Go's ``Local`` is not a zone here: what a policy says must not depend on the machine.
    """
    fixed = FIXED_OFFSET.fullmatch(name)
    if fixed:
        seconds = (int(fixed[2]) * 60 + int(fixed[3])) * 60
        return -seconds if fixed[1] == "-" else seconds
    return 0 if name in {"", "UTC"} else _named(name)


def _named(name: str) -> datetime.tzinfo:
    try:
        if len(name) <= MAX_ZONE_NAME:
            return zoneinfo.ZoneInfo(name)
    except (zoneinfo.ZoneInfoNotFoundError, ValueError, OSError):
        pass  # no such name, a path outside of the database, a folder of it
    raise EvaluationError(f"unknown time zone {name[:MAX_ZONE_NAME]}")


def _offset(name: object, seconds: int) -> int:
    """Seconds to add to UTC in the zone called *name* at the epoch second *seconds*."""
    if type(name) is not str:
        raise NoSuchOverload
    zone = _zone(name)
    if isinstance(zone, int):
        return zone
    within = min(max(seconds, MIN_TIMESTAMP_SECONDS + ZONE_MARGIN), MAX_TIMESTAMP_SECONDS - ZONE_MARGIN)
    offset = datetime.datetime.fromtimestamp(within, zone).utcoffset()
    return offset.days * SECONDS_OF_DAY + offset.seconds if offset else 0


def _year(seconds: int) -> int:
    date, years = calendar_date(seconds)
    return date.year + years


def _day_of_year(seconds: int) -> int:
    date, _ = calendar_date(seconds)
    return date.toordinal() - date.replace(month=1, day=1).toordinal()


CALENDAR_FIELDS: Mapping[str, Callable[[int], int]] = {
    "getFullYear": _year,
    "getMonth": lambda seconds: calendar_date(seconds)[0].month - 1,
    "getDate": lambda seconds: calendar_date(seconds)[0].day,
    "getDayOfMonth": lambda seconds: calendar_date(seconds)[0].day - 1,
    "getDayOfWeek": lambda seconds: (seconds // SECONDS_OF_DAY + 4) % 7,  # 1970-01-01 was a Thursday
    "getDayOfYear": _day_of_year,
    "getHours": lambda seconds: seconds // 3600 % 24,
    "getMinutes": lambda seconds: seconds // 60 % 60,
    "getSeconds": lambda seconds: seconds % 60,
}
"""What a timestamp's accessor says of its seconds since the epoch, moved to the time zone asked for."""

DURATION_UNITS: Mapping[str, int] = {
    "getHours": 3600 * NANOSECONDS,
    "getMinutes": 60 * NANOSECONDS,
    "getSeconds": NANOSECONDS,
    "getMilliseconds": NANOSECONDS // 1000,
}
"""Nanoseconds in the unit a duration's accessor counts: the whole length, not what larger units leave."""


def _units(duration: Duration, unit: int) -> int:
    """Whole units, cut towards zero as in Go."""
    count = abs(duration.nanoseconds) // unit
    return -count if duration.nanoseconds < 0 else count


def _accessor(name: str) -> Callable[..., int]:
    field, unit = CALENDAR_FIELDS[name], DURATION_UNITS.get(name)

    def accessor(value: object, zone: object = None) -> int:
        if type(value) is Timestamp:
            seconds = value.nanoseconds // NANOSECONDS
            return field(seconds if zone is None else seconds + _offset(zone, seconds))
        if type(value) is Duration and unit is not None and zone is None:
            return _units(value, unit)
        raise NoSuchOverload

    return accessor


def milliseconds(value: object, zone: object = None) -> int:
    """Return the milliseconds of a timestamp's second; those of all of a duration (as in Cerbos)."""
    if type(value) is Timestamp:
        if zone is not None:
            _offset(zone, 0)
        return value.nanoseconds % NANOSECONDS // DURATION_UNITS["getMilliseconds"]
    if type(value) is Duration and zone is None:
        return _units(value, DURATION_UNITS["getMilliseconds"])
    raise NoSuchOverload


class Clock(Protocol):
    """What tells the time of the check; to ask may be noticed (a test that gives no time is in error)."""

    @property
    def now(self) -> Timestamp:
        """The time of the check."""


def now(clock: Clock) -> Timestamp:
    """Return the time of the check, the same throughout one request (Cerbos's ``now()``)."""
    return clock.now


def time_since(clock: Clock, moment: object) -> Duration:
    """How long before the time of the check *moment* was; ends of the range stand for more, as in Go."""
    if type(moment) is not Timestamp:
        raise NoSuchOverload
    return Duration(min(max(clock.now.nanoseconds - moment.nanoseconds, INT_MIN), INT_MAX))


FUNCTIONS: Mapping[str, Callable[..., Any]] = {
    **{name: _accessor(name) for name in CALENDAR_FIELDS},
    "getMilliseconds": milliseconds,
    "now": now,
    "timeSince": time_since,
}

NEEDS_NOW: frozenset[str] = frozenset({"now", "timeSince"})
"""Functions that get a :class:`Clock` as their first argument, before those of the expression."""

DECLARATIONS: tuple[Declaration, ...] = (
    Declaration("now", "now", (), "google.protobuf.Timestamp"),
    *everywhere("timeSince", ("google.protobuf.Timestamp",), "google.protobuf.Duration"),
)
