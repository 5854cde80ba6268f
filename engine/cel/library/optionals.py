"""Optional values: how they are made and opened. ``optMap`` and ``optFlatMap`` are macros over these."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from engine.cel.library.arguments import elements
from engine.cel.library.declaration import Declaration
from engine.cel.values import (
    MIN_TIMESTAMP_SECONDS,
    NANOSECONDS,
    NONE,
    Duration,
    NoSuchOverload,
    Optional,
    RecordValue,
    Timestamp,
)

ZEROS: Mapping[type, Any] = {
    Timestamp: Timestamp(MIN_TIMESTAMP_SECONDS * NANOSECONDS),  # Go's zero time: the start of the year 1
    Duration: Duration(0),
}


def of_non_zero(value: Any) -> Optional:
    """Return an optional that holds *value*, or none for its type's zero value (``''``, ``0``, ``[]``)."""
    return NONE if is_zero(value) else Optional.of(value)


def is_zero(value: Any) -> bool:
    """Whether *value* is the zero value of its type, as cel-go's ``Zeroer`` defines it."""
    if value is None or isinstance(value, (bool, int, float, str, bytes, list, tuple, Mapping)):
        return not value
    if isinstance(value, RecordValue):
        return not any(value.has(field) for field in value)
    return bool(ZEROS.get(type(value)) == value)


def has_value(optional: object) -> bool:
    """Whether *optional* holds something."""
    return _optional(optional).has_value


def value_of(optional: object) -> Any:
    """Return what *optional* holds; an error when it holds nothing."""
    return _optional(optional).value


def either(optional: object, other: object) -> Any:
    """Return *optional* when it holds something, else *other*."""
    return optional if _optional(optional).has_value else _optional(other)


def value_or(optional: object, default: Any) -> Any:
    """Return what *optional* holds, else *default*."""
    held = _optional(optional)
    return held.value if held.has_value else default


def unwrap(values: object) -> list[Any]:
    """Give what the optionals of a list hold, without those that hold nothing."""
    return [optional.value for optional in map(_optional, elements(values)) if optional.has_value]


def _optional(value: object) -> Optional:
    if type(value) is not Optional:
        raise NoSuchOverload
    return value


FUNCTIONS: Mapping[str, Callable[..., Any]] = {
    "optional.of": Optional.of,
    "optional.none": lambda: NONE,
    "optional.ofNonZeroValue": of_non_zero,
    "hasValue": has_value,
    "value": value_of,
    "or": either,
    "orValue": value_or,
    "optional.unwrap": unwrap,
    "unwrapOpt": unwrap,
}

OPTIONALS = ("list<optional_type<~A>>",)

DECLARATIONS: tuple[Declaration, ...] = (
    Declaration("optional.unwrap", "optional_unwrap", OPTIONALS, "list<~A>"),
    Declaration("unwrapOpt", "optional_unwrapOpt", OPTIONALS, "list<~A>", member=True),
)
