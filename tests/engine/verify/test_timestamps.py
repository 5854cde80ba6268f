"""``options.now``: which texts are points in time, and the complaints about the others."""

from __future__ import annotations

import contextlib
import datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.cel import Timestamp
from engine.verify.timestamps import LAYOUT, parse_time


@pytest.mark.parametrize(
    ("text", "same"),
    [
        ("2022-08-02T15:00:00Z", "2022-08-02T15:00:00Z"),
        ("2022-08-02T15:00:00.5+02:00", "2022-08-02T13:00:00.5Z"),
        ("2022-08-02T15:00:00,25-01:30", "2022-08-02T16:30:00.25Z"),
        ("2022-08-02T5:00:00Z", "2022-08-02T05:00:00Z"),
        ("2022-08-02T15:00:00.1234567891Z", "2022-08-02T15:00:00.123456789Z"),
        ("0001-01-01T00:00:00Z", "0001-01-01T00:00:00Z"),
    ],
)
def test_good(text: str, same: str) -> None:
    """RFC 3339 is read as Go reads it, which is a little more than the standard."""
    assert parse_time(text) == Timestamp.parse(same)


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("", f'parsing time "" as "{LAYOUT}": cannot parse "" as "2006"'),
        ("2022-2-30", f'parsing time "2022-2-30" as "{LAYOUT}": cannot parse "2-30" as "01"'),
        ("2022-02-01 15", f'parsing time "2022-02-01 15" as "{LAYOUT}": cannot parse " 15" as "T"'),
        (
            "2022-02-01T15:01:01+0100",
            f'parsing time "2022-02-01T15:01:01+0100" as "{LAYOUT}": cannot parse "+0100" as "Z07:00"',
        ),
        ("2022-02-01T15:01:01Zx", 'parsing time "2022-02-01T15:01:01Zx": extra text: "x"'),
        ("2022-13-01T00:00:00Z", 'parsing time "2022-13-01T00:00:00Z": month out of range'),
        ("2022-02-30T00:00:00Z", 'parsing time "2022-02-30T00:00:00Z": day out of range'),
        ("2022-02-01T24:00:00Z", 'parsing time "2022-02-01T24:00:00Z": hour out of range'),
        (
            "2022-02-01T15:01:01+25:00",
            'parsing time "2022-02-01T15:01:01+25:00": time zone offset hour out of range',
        ),
        ("0000-01-01T00:00:00Z", "proto: timestamp (seconds:-62167219200) before 0001-01-01"),
        ("9999-12-31T23:59:59-01:00", "proto: timestamp (seconds:253402304399) after 9999-12-31"),
    ],
)
def test_bad(text: str, complaint: str) -> None:
    """Each complaint is the one that Cerbos shows, from Go's ``time.Parse``."""
    with pytest.raises(ValueError, match=r".") as raised:
        parse_time(text)
    assert str(raised.value) == complaint


@given(st.datetimes(timezones=st.just(datetime.UTC)))
def test_every_datetime_is_read_back(moment: datetime.datetime) -> None:
    """What Python writes as RFC 3339 is read as the same moment."""
    assert parse_time(moment.isoformat().replace("+00:00", "Z")) == Timestamp.from_datetime(moment)


@given(st.text(max_size=30))
def test_any_text_is_a_time_or_a_complaint(text: str) -> None:
    """Nothing but ``ValueError`` comes of text that is no time."""
    with contextlib.suppress(ValueError):
        assert isinstance(parse_time(text), Timestamp)
