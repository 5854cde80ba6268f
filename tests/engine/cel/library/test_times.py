"""Calendar fields against Python's ``datetime``; the tables have the ends of the calendar."""

from __future__ import annotations

import datetime
import zoneinfo
from types import SimpleNamespace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.cel.library import FUNCTIONS
from engine.cel.library.times import time_since
from engine.cel.values import Duration, EvaluationError, Timestamp

ZONES = (
    "UTC",
    "Europe/Berlin",
    "America/St_Johns",
    "Asia/Kathmandu",
    "Pacific/Kiritimati",
    "Africa/Monrovia",
)

moments = st.datetimes(
    datetime.datetime(2, 1, 1),
    datetime.datetime(9998, 12, 31),
    timezones=st.just(datetime.UTC),
)


@settings(deadline=None)
@given(moments, st.sampled_from(ZONES))
def test_fields_are_those_of_datetime(moment: datetime.datetime, zone: str) -> None:
    """In every zone and century the accessors give the fields that ``datetime`` has."""
    value, local = Timestamp.from_datetime(moment), moment.astimezone(zoneinfo.ZoneInfo(zone))
    wanted = {
        "getFullYear": local.year,
        "getMonth": local.month - 1,
        "getDate": local.day,
        "getDayOfMonth": local.day - 1,
        "getDayOfWeek": local.isoweekday() % 7,
        "getDayOfYear": local.timetuple().tm_yday - 1,
        "getHours": local.hour,
        "getMinutes": local.minute,
        "getSeconds": local.second,
        "getMilliseconds": local.microsecond // 1000,
    }
    assert {name: FUNCTIONS[name](value, zone) for name in wanted} == wanted


@settings(deadline=None)
@given(moments, st.sampled_from("+-"), st.integers(0, 23), st.integers(0, 59))
def test_fixed_offsets_move_the_clock(moment: datetime.datetime, sign: str, hours: int, minutes: int) -> None:
    """``+hh:mm`` and ``-hh:mm`` move the clock by so much."""
    offset = datetime.timedelta(hours=hours, minutes=minutes) * (1 if sign == "+" else -1)
    local = moment.astimezone(datetime.timezone(offset))
    value, zone = Timestamp.from_datetime(moment), f"{sign}{hours:02}:{minutes:02}"
    assert FUNCTIONS["getHours"](value, zone) == local.hour
    assert FUNCTIONS["getMinutes"](value, zone) == local.minute
    assert FUNCTIONS["getDate"](value, zone) == local.day


@pytest.mark.parametrize("zone", ["", "Nowhere", "Europe", "../UTC", "/etc/localtime", "UTC\0", "+1", "é"])
def test_unknown_zones_are_errors(zone: str) -> None:
    """A name that the tz database has not is an error that names it; no name at all is UTC."""
    if not zone:
        assert FUNCTIONS["getHours"](Timestamp(0), zone) == 0
        return
    with pytest.raises(EvaluationError, match="unknown time zone"):
        FUNCTIONS["getHours"](Timestamp(0), zone)


def test_time_since_stops_at_the_ends_of_the_range() -> None:
    """Further back than 292 years counts as 292 years, as in Go, instead of failing."""
    early, late = Timestamp.parse("0001-01-01T00:00:00Z"), Timestamp.parse("9999-01-01T00:00:00Z")
    assert time_since(SimpleNamespace(now=late), early) == Duration(2**63 - 1)
    assert time_since(SimpleNamespace(now=early), late) == Duration(-(2**63))
