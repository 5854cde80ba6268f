"""Whether a value is among others, by CEL's equality and without comparing each with each.

In CEL ``1 == 1.0 == 1u``, but ``true != 1``, and NaN equals nothing. Python's hashing agrees on the numbers
and not on the rest, so a value is looked up by a *key*: values that have keys are equal when these are.
What has none is compared: records, SPIFFE IDs, and ints beyond a double's precision, which equal doubles
that do not equal each other.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from engine.cel.runtime import equals
from engine.cel.values import Duration, EvaluationError, Optional, Timestamp, TypeValue, UInt

MAX_COMPARISONS = 1_000_000
"""Pairs that are compared one by one at most, where values have no key."""

FEW_COMPARISONS = 64
"""Pairs up to which comparing them is quicker than looking up."""

DIRECTLY_EQUAL = frozenset({str, bytes, type(None), Timestamp, Duration, TypeValue})
"""Types whose Python equality with any other value is that of CEL."""

EXACT_INTEGERS = 2**53
"""Up to here a double has every integer."""


class NoKeyError(Exception):
    """The value can only be compared, not looked up."""


def key(value: Any) -> Any:
    """Return the hashable stand-in for *value*; raises :class:`NoKeyError` when there is none."""
    kind = type(value)
    if kind in DIRECTLY_EQUAL:
        return value
    make = KEYS.get(kind)
    if make is not None:
        return make(value)
    if getattr(kind, "hashable", False):
        return value
    if isinstance(value, Mapping):
        return _mapping_key(value)
    raise NoKeyError


def _int_key(value: int) -> int:
    if -EXACT_INTEGERS <= value <= EXACT_INTEGERS:
        return value
    raise NoKeyError


def _double_key(value: float) -> Any:
    return object() if math.isnan(value) else value  # NaN equals nothing, not even itself


def _bool_key(value: bool) -> tuple[str, bool]:
    return "bool", value


def _list_key(value: Sequence[Any]) -> tuple[str, tuple[Any, ...]]:
    return "list", tuple([key(item) for item in value])


def _mapping_key(value: Mapping[Any, Any]) -> tuple[str, frozenset[Any]]:
    return "map", frozenset([(key(name), key(item)) for name, item in value.items()])


def _optional_key(value: Optional) -> tuple[str, Any]:
    return "optional", (key(value.value),) if value.has_value else ()


KEYS: Mapping[type, Any] = {
    int: _int_key,
    UInt: _int_key,
    float: _double_key,
    bool: _bool_key,
    list: _list_key,
    tuple: _list_key,
    dict: _mapping_key,
    Optional: _optional_key,
}


def keys(values: Sequence[Any]) -> list[Any] | None:
    """Return the keys of all *values* in order, or None when one of them has no key."""
    try:
        return [value if type(value) in DIRECTLY_EQUAL else key(value) for value in values]
    except NoKeyError:
        return None


def among(values: Sequence[Any], others: Sequence[Any]) -> list[bool]:
    """For each of *values*, whether an equal one is in *others*."""
    if len(values) * len(others) <= FEW_COMPARISONS:
        return [_holds(others, value) for value in values]
    left, right = keys(values), keys(others)
    if left is None or right is None:
        return _compared(values, others)
    known = set(right)
    return [item in known for item in left]


def any_among(values: Sequence[Any], others: Sequence[Any]) -> bool:
    """Whether *values* and *others* have an element in common."""
    return True in among(values, others)


def all_among(values: Sequence[Any], others: Sequence[Any]) -> bool:
    """Whether each of *values* is in *others*."""
    return False not in among(values, others)


def _holds(others: Sequence[Any], value: Any) -> bool:
    if type(value) in DIRECTLY_EQUAL:
        return value in others
    return any(equals(value, other) for other in others)


def _compared(values: Sequence[Any], others: Sequence[Any]) -> list[bool]:
    if len(values) * len(others) > MAX_COMPARISONS:
        raise EvaluationError(f"more than {MAX_COMPARISONS} comparisons of list elements")
    return [_holds(others, value) for value in values]


def distinct(values: Sequence[Any]) -> list[Any]:
    """Return the first of each group of equal *values*, in their order."""
    found = keys(values)
    if found is None:
        return _distinct_compared(values)
    first: dict[Any, Any] = {}
    for item, value in zip(found, values, strict=True):
        first.setdefault(item, value)
    return list(first.values())


def _distinct_compared(values: Sequence[Any]) -> list[Any]:
    kept: list[Any] = []
    for position, value in enumerate(values):
        if position * len(kept) > MAX_COMPARISONS:
            raise EvaluationError(f"more than {MAX_COMPARISONS} comparisons of list elements")
        if not any(equals(value, other) for other in kept):
            kept.append(value)
    return kept
