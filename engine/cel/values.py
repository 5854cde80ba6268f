"""CEL values that Python has no type for, and the errors of evaluation.

null, bool, int, double, string, bytes, list and map are ``None``, ``bool``, ``int``, ``float``, ``str``,
``bytes``, ``list`` and ``dict``. The rest is here. Values never change once made: a ``list`` or ``dict`` that
an expression has returned may be shared with its input.
"""

from __future__ import annotations

import datetime
import re
from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

NANOSECONDS = 1_000_000_000
"""Nanoseconds in a second."""

EPOCH_ORDINAL = datetime.date(1970, 1, 1).toordinal()
EPOCH = datetime.datetime(1970, 1, 1, tzinfo=datetime.UTC)
PLAIN_LENGTH, PLAIN_MARKS = 20, "--T::Z"
"""What the commonest timestamps have where no digits are, each third character: ``2024-01-01T00:00:00Z``."""

DAYS_OF_400_YEARS = 146_097
"""The Gregorian calendar repeats itself, weekdays included, after so many days."""

SECONDS_OF_DAY = 86_400

MIN_TIMESTAMP_SECONDS = -62_135_596_800  # 0001-01-01T00:00:00Z
MAX_TIMESTAMP_SECONDS = 253_402_300_799  # 9999-12-31T23:59:59Z

INT_MIN, INT_MAX = -(2**63), 2**63 - 1
UINT_MAX = 2**64 - 1

RFC3339 = re.compile(
    r"(\d{4})-(\d\d)-(\d\d)T(\d\d):(\d\d):(\d\d)(?:\.(\d{1,18}))?(?:Z|([+-])(\d\d):(\d\d))", re.ASCII
)

DURATION_PART = re.compile(r"(?:(\d{1,20})(?:\.(\d{0,20}))?|\.(\d{1,20}))(ns|us|µs|μs|ms|s|m|h)", re.ASCII)
DURATION_UNITS = {
    "ns": 1,
    "us": 1_000,
    "µs": 1_000,
    "μs": 1_000,
    "ms": 1_000_000,
    "s": NANOSECONDS,
    "m": 60 * NANOSECONDS,
    "h": 3_600 * NANOSECONDS,
}


class EvaluationError(Exception):
    """An expression failed at run time; the message is worded as in cel-go, on which users may rely."""


class NoSuchOverload(EvaluationError):  # noqa: N818 - CEL's own name for it
    """An operator or function is not defined for the types of its operands; *call* says which, if known."""

    def __init__(self, call: str = "") -> None:
        super().__init__(f"no such overload: {call}" if call else "no such overload")


class UInt(int):
    """A CEL ``uint``: compares equal to the same ``int`` or ``double``, but is a type of its own."""

    __slots__ = ()

    def __repr__(self) -> str:
        return f"{int(self)}u"


class Timestamp:
    """A point in time, to the nanosecond, between the years 1 and 9999 (``google.protobuf.Timestamp``).

    *nanoseconds* counts from 1970-01-01T00:00:00Z. *offset* is how many seconds east of UTC the clock was
    that it was read from: it shows in the text form and nowhere else, as in cel-go. Raises
    :class:`EvaluationError` outside of the range.
    """

    __slots__ = ("nanoseconds", "offset")

    nanoseconds: int
    offset: int

    def __init__(self, nanoseconds: int, offset: int = 0) -> None:
        if not MIN_TIMESTAMP_SECONDS <= nanoseconds // NANOSECONDS <= MAX_TIMESTAMP_SECONDS:
            raise EvaluationError("timestamp overflow")
        self.nanoseconds = nanoseconds
        self.offset = offset

    @classmethod
    def parse(cls, text: str) -> Timestamp:
        """Read RFC 3339 text; raises :class:`EvaluationError` when it is not."""
        if len(text) == PLAIN_LENGTH and text[4::3] == PLAIN_MARKS:
            try:
                since = datetime.datetime.fromisoformat(text) - EPOCH
            except ValueError:
                pass  # perhaps the year 0, which CEL has a message for
            else:
                return cls((since.days * SECONDS_OF_DAY + since.seconds) * NANOSECONDS)
        found = RFC3339.fullmatch(text)
        try:
            seconds = _epoch_seconds(*found.groups()[:6]) if found else None
        except ValueError:  # no such day or hour
            seconds = None
        if found is None or seconds is None:
            raise _no_timestamp(text)
        fraction, sign, hours, minutes = found.groups()[6:]
        offset = _offset_seconds(text, sign, hours, minutes)
        return cls((seconds - offset) * NANOSECONDS + _nanoseconds(fraction), offset)

    @classmethod
    def from_datetime(cls, moment: datetime.datetime) -> Timestamp:
        """Convert an aware ``datetime``."""
        since = moment - datetime.datetime(1970, 1, 1, tzinfo=datetime.UTC)
        return cls((since.days * SECONDS_OF_DAY + since.seconds) * NANOSECONDS + since.microseconds * 1_000)

    def to_datetime(self, zone: datetime.tzinfo = datetime.UTC) -> datetime.datetime:
        """Return the moment in *zone*, cut to microseconds; raises ``OverflowError`` where no date is."""
        moment = datetime.datetime(1970, 1, 1, tzinfo=datetime.UTC) + datetime.timedelta(
            microseconds=self.nanoseconds // 1_000
        )
        return moment.astimezone(zone)

    @property
    def utc(self) -> str:
        """RFC 3339 in UTC, with as many digits after the second as it takes."""
        return _rfc3339(self.nanoseconds, 0)

    def __str__(self) -> str:
        """RFC 3339 with the offset that the timestamp was read with."""
        return _rfc3339(self.nanoseconds, self.offset)

    def __repr__(self) -> str:
        return f"Timestamp({str(self)!r})"

    def __hash__(self) -> int:
        return hash((Timestamp, self.nanoseconds))

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Timestamp) and self.nanoseconds == other.nanoseconds

    def __lt__(self, other: Timestamp) -> bool:
        return self.nanoseconds < other.nanoseconds if isinstance(other, Timestamp) else NotImplemented

    def __le__(self, other: Timestamp) -> bool:
        return self.nanoseconds <= other.nanoseconds if isinstance(other, Timestamp) else NotImplemented

    def __gt__(self, other: Timestamp) -> bool:
        return self.nanoseconds > other.nanoseconds if isinstance(other, Timestamp) else NotImplemented

    def __ge__(self, other: Timestamp) -> bool:
        return self.nanoseconds >= other.nanoseconds if isinstance(other, Timestamp) else NotImplemented


def _no_timestamp(text: str) -> EvaluationError:
    return EvaluationError(f'invalid RFC 3339 timestamp "{text[:64]}"')


def _epoch_seconds(year: str, month: str, day: str, hour: str, minute: str, second: str) -> int:
    clock = datetime.time(int(hour), int(minute), int(second))
    cycle = 0 if int(year) else 1  # `date` has no year 0
    date = datetime.date(int(year) + 400 * cycle, int(month), int(day))
    days = date.toordinal() - DAYS_OF_400_YEARS * cycle - EPOCH_ORDINAL
    return ((days * 24 + clock.hour) * 60 + clock.minute) * 60 + clock.second


def calendar_date(seconds: int) -> tuple[datetime.date, int]:
    """Return the date of a local epoch second, and how many years to add to it.

    A time zone can move a timestamp into the years 0 and 10000, which ``date`` does not have.
    """
    ordinal = seconds // SECONDS_OF_DAY + EPOCH_ORDINAL
    if ordinal < 1:
        return datetime.date.fromordinal(ordinal + DAYS_OF_400_YEARS), -400
    if ordinal > datetime.date.max.toordinal():
        return datetime.date.fromordinal(ordinal - DAYS_OF_400_YEARS), 400
    return datetime.date.fromordinal(ordinal), 0


def _rfc3339(nanoseconds: int, offset: int) -> str:
    local = nanoseconds // NANOSECONDS + offset
    date, years = calendar_date(local)
    hours, minutes, seconds = local // 3600 % 24, local // 60 % 60, local % 60
    clock = f"{hours:02}:{minutes:02}:{seconds:02}{_fraction(nanoseconds % NANOSECONDS)}"
    return f"{date.year + years:04}-{date.month:02}-{date.day:02}T{clock}{_zone(offset)}"


def _zone(offset: int) -> str:
    minutes = abs(offset) // 60
    return f"{'-' if offset < 0 else '+'}{minutes // 60:02}:{minutes % 60:02}" if offset else "Z"


def _offset_seconds(text: str, sign: str | None, hours: str | None, minutes: str | None) -> int:
    if sign is None or hours is None or minutes is None:
        return 0
    if int(hours) > 23 or int(minutes) > 59:
        raise _no_timestamp(text)
    seconds = (int(hours) * 60 + int(minutes)) * 60
    return seconds if sign == "+" else -seconds


def _nanoseconds(fraction: str | None) -> int:
    return int(fraction[:9].ljust(9, "0")) if fraction else 0


def _fraction(nanoseconds: int) -> str:
    return f".{nanoseconds:09}".rstrip("0") if nanoseconds else ""


class Duration:
    """A length of time in *nanoseconds*, positive or negative (``google.protobuf.Duration``).

    Its range is that of a signed 64-bit count of nanoseconds, as in cel-go: about 292 years.
    Raises :class:`EvaluationError` outside of it.
    """

    __slots__ = ("nanoseconds",)

    nanoseconds: int

    def __init__(self, nanoseconds: int) -> None:
        if not INT_MIN <= nanoseconds <= INT_MAX:
            raise EvaluationError("integer overflow")
        self.nanoseconds = nanoseconds

    @classmethod
    def parse(cls, text: str) -> Duration:
        """Read Go's form (``1h30m``, ``-1.5s``, ``0``); raises :class:`EvaluationError` when it is not."""
        unsigned = text[1:] if text[:1] in {"-", "+"} else text
        if unsigned == "0":
            return cls(0)
        total, position = 0, 0
        while part := DURATION_PART.match(unsigned, position):
            total += _part_nanoseconds(part)
            position = part.end()
        nanoseconds = -total if text.startswith("-") else total
        if position == 0 or position != len(unsigned) or not INT_MIN <= nanoseconds <= INT_MAX:
            raise EvaluationError("type conversion error from 'string' to 'google.protobuf.Duration'")
        return cls(nanoseconds)

    def __str__(self) -> str:
        """Whole and fractional seconds: ``5400s``, ``-0.25s``; as many digits as a double has, as in Go."""
        seconds, rest = divmod(abs(self.nanoseconds), NANOSECONDS)
        text = f"{Decimal(repr(float(seconds) + rest / 1e9)):f}".removesuffix(".0")
        return f"{'-' if self.nanoseconds < 0 else ''}{text}s"

    def __repr__(self) -> str:
        return f"Duration({str(self)!r})"

    def __hash__(self) -> int:
        return hash((Duration, self.nanoseconds))

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Duration) and self.nanoseconds == other.nanoseconds

    def __lt__(self, other: Duration) -> bool:
        return self.nanoseconds < other.nanoseconds if isinstance(other, Duration) else NotImplemented

    def __le__(self, other: Duration) -> bool:
        return self.nanoseconds <= other.nanoseconds if isinstance(other, Duration) else NotImplemented

    def __gt__(self, other: Duration) -> bool:
        return self.nanoseconds > other.nanoseconds if isinstance(other, Duration) else NotImplemented

    def __ge__(self, other: Duration) -> bool:
        return self.nanoseconds >= other.nanoseconds if isinstance(other, Duration) else NotImplemented


def _part_nanoseconds(part: re.Match[str]) -> int:
    whole, fraction, only_fraction, unit = part.groups()
    size: int = DURATION_UNITS[unit]
    digits = fraction or only_fraction or ""
    parts: int = int(digits or "0") * size // 10 ** len(digits)
    return int(whole or "0") * size + parts


class Optional:
    """``optional_type(T)``: a value, or none. Made with :meth:`of` and :data:`NONE`."""

    __slots__ = ("_value", "has_value")

    has_value: bool

    def __init__(self, value: object = None, *, has_value: bool) -> None:
        self._value: Any = value
        self.has_value = has_value

    @classmethod
    def of(cls, value: object) -> Optional:
        """Return an optional that holds *value*."""
        return cls(value, has_value=True)

    @property
    def value(self) -> Any:
        """What it holds; raises :class:`EvaluationError` when it holds nothing."""
        if not self.has_value:
            raise EvaluationError("optional.none() dereference")
        return self._value

    def __getitem__(self, key: Any) -> Optional:
        """Select from what it holds, without failing: none when there is nothing, or no such key."""
        if not self.has_value:
            return NONE
        try:
            return Optional.of(self._value[key])
        except KeyError:
            return NONE

    def __repr__(self) -> str:
        return f"Optional.of({self._value!r})" if self.has_value else "Optional.NONE"

    def __hash__(self) -> int:
        return hash((Optional, self.has_value, self._value))

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Optional) and (self.has_value, self._value) == (
            other.has_value,
            other._value,
        )


NONE = Optional(has_value=False)
"""``optional.none()``."""


class MixedMap(Mapping[Any, Any]):
    """A map with bools and numbers as keys, which a ``dict`` would take for each other (``True == 1``)."""

    __slots__ = ("_entries",)

    def __init__(self, entries: Iterable[tuple[Any, Any]]) -> None:
        self._entries = {self._told_apart(key): (key, value) for key, value in entries}

    @staticmethod
    def _told_apart(key: Any) -> Any:
        return (bool, key) if isinstance(key, bool) else key

    def __getitem__(self, key: Any) -> Any:
        """Return the value of *key*; raises ``KeyError``."""
        return self._entries[self._told_apart(key)][1]

    def __contains__(self, key: Any) -> bool:
        return self._told_apart(key) in self._entries

    def __iter__(self) -> Iterator[Any]:
        return (key for key, _ in self._entries.values())

    def __len__(self) -> int:
        return len(self._entries)

    def __repr__(self) -> str:
        return f"MixedMap({list(self.items())!r})"


@dataclass(frozen=True, slots=True)
class TypeValue:
    """A CEL type as a value, the result of ``type(x)``: ``int``, ``list``, ``google.protobuf.Timestamp``."""

    name: str

    def __str__(self) -> str:
        return self.name


class RecordValue:
    """A record (``R``, ``P``, ``request``) that left its own variable: its object seen by CEL field names.

    Inside of an expression a record is read by attribute; where one becomes an ordinary value (in a list, as
    a result, as a variable of the policy), it travels as this.
    """

    __slots__ = ("_fields", "_object", "name")

    name: str

    def __init__(self, name: str, fields: Mapping[str, Any], record: object) -> None:
        self.name = name
        self._fields = fields
        self._object = record

    def __getitem__(self, field: str) -> Any:
        """Return the value of *field*; raises :class:`EvaluationError` for a field the record has not."""
        try:
            read = self._fields[field]
        except (KeyError, TypeError):
            raise EvaluationError(f"no such field '{field}'") from None
        return read(self._object)

    def __iter__(self) -> Iterator[str]:
        return iter(self._fields)

    def __len__(self) -> int:
        return len(self._fields)

    def has(self, field: str) -> bool:
        """Whether *field* is set to something other than its default (proto3 presence)."""
        value = self[field]
        return bool(value) or isinstance(value, RecordValue)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, RecordValue) or self.name != other.name:
            return False
        return self._object is other._object or all(self[field] == other[field] for field in self._fields)

    def __hash__(self) -> int:
        return hash((self.name, id(self._object)))

    def __repr__(self) -> str:
        return f"<{self.name} { {field: self[field] for field in self._fields} }>"
