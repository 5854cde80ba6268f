"""Timestamps, durations, optionals and maps of mixed keys as values."""

from __future__ import annotations

import datetime
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.cel import Duration, EvaluationError, NoSuchOverload, Optional, Timestamp, TypeValue, UInt
from engine.cel.runtime import equals, text_of_double
from engine.cel.values import INT_MAX, INT_MIN, NONE, MixedMap

moments = st.datetimes(
    min_value=datetime.datetime(1, 1, 2),
    max_value=datetime.datetime(9999, 12, 30),
    timezones=st.sampled_from((datetime.UTC, datetime.timezone(datetime.timedelta(hours=5, minutes=30)))),
)
nanoseconds = st.integers(INT_MIN, INT_MAX)


@settings(deadline=None)
@given(moments)
def test_timestamps_read_what_python_writes(moment: datetime.datetime) -> None:
    """RFC 3339 text of a moment is read as that moment, in any time zone."""
    read = Timestamp.parse(moment.isoformat())
    assert read == Timestamp.from_datetime(moment)
    assert read.to_datetime() == moment


def nanoseconds_read(text: str) -> int | None:
    try:
        return Timestamp.parse(text).nanoseconds
    except EvaluationError:
        return None


@settings(deadline=None, max_examples=400)
@given(st.from_regex(r"[012]\d\d\d-[01]\d-[0-3]\dT[0-2]\d:[0-6]\d:[0-6\u0664\s+]\dZ", fullmatch=True))
def test_the_commonest_form_is_read_as_all_others(text: str) -> None:
    """The form that is read in a faster way means what it means in another one, or is as wrong as that."""
    assert nanoseconds_read(text) == nanoseconds_read(f"{text[:-1]}+00:00")


@settings(deadline=None)
@given(st.integers(-62_135_596_800 * 10**9, 253_402_300_800 * 10**9 - 1))
def test_timestamps_read_what_they_write(count: int) -> None:
    """The text of a timestamp is that timestamp, to the nanosecond."""
    assert Timestamp.parse(str(Timestamp(count))).nanoseconds == count


@settings(deadline=None)
@given(st.integers(INT_MIN + 2**12, INT_MAX - 2**12))
def test_durations_read_what_they_write(count: int) -> None:
    """The text of a duration is that duration, to the precision of a double of seconds, as in Go.

    The very longest are written as a little more than can be read, in Go too.
    """
    assert abs(Duration.parse(str(Duration(count))).nanoseconds - count) <= 1 + abs(count) * 2**-52


@pytest.mark.parametrize(
    ("text", "count"),
    [
        ("1h30m", 5_400_000_000_000),
        ("-1.5s", -1_500_000_000),
        ("+0.25ms", 250_000),
        ("1us", 1_000),
        ("1µs1μs", 2_000),
        ("0", 0),
        ("-0", 0),
        (".5s", 500_000_000),
        ("1.s", 1_000_000_000),
        ("0.0000000019s", 1),
        ("-9223372036854775808ns", INT_MIN),
    ],
)
def test_durations_are_written_as_in_go(text: str, count: int) -> None:
    """A duration is a chain of numbers with units."""
    assert Duration.parse(text).nanoseconds == count


@pytest.mark.parametrize(
    "text",
    [
        "",
        "-",
        "1",
        "1.5",
        "s",
        ".s",
        "1d",
        "1h 1m",
        "--1s",
        "1s-1s",
        "1e3s",
        "٣s",
        "9223372036854775808ns",
        "1" * 50 + "s",
    ],
)
def test_other_texts_are_no_durations(text: str) -> None:
    """What Go does not read, or does not fit, is refused."""
    with pytest.raises(EvaluationError):
        Duration.parse(text)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "2020-01-01",
        "2020-01-01T00:00:00",
        "2020-01-01 00:00:00Z",
        "2020-1-1T00:00:00Z",
        "2020-13-01T00:00:00Z",
        "2020-02-30T00:00:00Z",
        "2020-01-01T24:00:00Z",
        "2020-01-01T00:60:00Z",
        "2020-01-01T00:00:60Z",
        "2020-01-01T00:00:00.Z",
        "2020-01-01T00:00:00+24:00",
        "2020-01-01T00:00:00+00:60",
        "2020-01-01T00:00:00z",
        "0000-01-01T00:00:00Z",
        "0001-01-01T00:00:00+00:01",
        "9999-12-31T23:59:59-00:01",
        "٢020-01-01T00:00:00Z",
        "2020-01-01T00:00:00Z\n",
    ],
)
def test_other_texts_are_no_timestamps(text: str) -> None:
    """What is not RFC 3339, or not in the calendar, is refused."""
    with pytest.raises(EvaluationError):
        Timestamp.parse(text)


@settings(deadline=None)
@given(nanoseconds, nanoseconds)
def test_times_are_ordered_by_their_nanoseconds(left: int, right: int) -> None:
    """Durations and timestamps have the order and the equality of their counts, within their type only."""
    for kind in (Duration, Timestamp):
        try:
            first: Any = kind(left)
            second: Any = kind(right)
        except EvaluationError:
            continue
        assert (first < second, first <= second, first > second) == (
            left < right,
            left <= right,
            left > right,
        )
        assert (first == second, first >= second) == (left == right, left >= right)
        assert (hash(first) == hash(second)) is (left == right)
        assert first != left
        with pytest.raises(TypeError):
            assert first < left
    assert Duration(0) != Timestamp(0)


def test_an_unsigned_number_is_a_type_of_its_own() -> None:
    """A uint compares with numbers as a number does, and shows what it is."""
    assert UInt(1) == 1
    assert equals(UInt(1), 1.0)
    assert repr([UInt(1)]) == "[1u]"


def test_optionals_hold_a_value_or_nothing() -> None:
    """An optional gives what it holds, or fails in cel-go's words."""
    held = Optional.of(None)
    assert (held.has_value, held.value, NONE.has_value) == (True, None, False)
    assert (held, hash(held)) == (Optional.of(None), hash(Optional.of(None)))
    assert held != NONE
    assert (repr(held), repr(NONE)) == ("Optional.of(None)", "Optional.NONE")
    with pytest.raises(EvaluationError, match=r"optional\.none\(\) dereference"):
        _ = NONE.value


def test_a_map_can_have_bools_and_numbers_as_keys() -> None:
    """``true`` and ``1`` are two keys of a map, although Python takes them for one."""
    mixed = MixedMap([(True, "yes"), (1, "one"), ("k", "text")])
    assert (mixed[True], mixed[1], mixed[1.0], mixed["k"], len(mixed)) == ("yes", "one", "one", "text", 3)
    assert list(mixed) == [True, 1, "k"]
    assert False not in mixed
    assert equals(mixed, MixedMap([(1, "one"), (True, "yes"), ("k", "text")]))
    assert not equals(mixed, {1: "one", "k": "text"})
    assert repr(MixedMap([(1, 2)])) == "MixedMap([(1, 2)])"


def test_errors_and_types_show_what_they_are() -> None:
    """Messages are those of cel-go; values show themselves in a readable form."""
    assert str(NoSuchOverload()) == "no such overload"
    assert str(NoSuchOverload("int(list)")) == "no such overload: int(list)"
    assert str(TypeValue("int")) == "int"
    assert repr(Timestamp(0)) == "Timestamp('1970-01-01T00:00:00Z')"
    assert repr(Duration(-1)) == "Duration('-0.000000001s')"


@settings(deadline=None)
@given(st.floats(allow_nan=False))
def test_doubles_read_back_from_their_text(value: float) -> None:
    """The text of a double is the shortest that reads back as it, and of Go's form."""
    text = text_of_double(value)
    assert float(text) == value
    assert len(text) <= len(f"{value!r}") + 4
