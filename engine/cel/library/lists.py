"""The ``lists`` extension of cel-go: parts, order, repetition. Lists are never changed, always made anew."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from engine.cel.library import membership
from engine.cel.library.arguments import MAX_ELEMENTS, bounded_list, elements, integer
from engine.cel.values import NONE, Duration, EvaluationError, Optional, Timestamp, UInt

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

MAX_FLATTEN_DEPTH = 100
"""Levels that ``flatten`` goes down at most."""

COMPARABLE = frozenset({bool, int, UInt, float, str, bytes, Timestamp, Duration})


def part(values: object, start: object, end: object) -> list[Any]:
    """Return the elements from *start* up to but not including *end* (``slice``)."""
    items, first, last = elements(values), integer(start), integer(end)
    fault = _slice_fault(first, last, len(items))
    if fault:
        raise EvaluationError(f"cannot slice({first}, {last}), {fault}")
    return list(items[first:last])


def _slice_fault(first: int, last: int, size: int) -> str:
    if first < 0 or last < 0:
        return "negative indexes not supported"
    if first > last:
        return "start index must be less than or equal to end index"
    return f"list is length {size}" if last > size else ""


def flatten(values: object, depth: object = 1) -> list[Any]:
    """Return the elements, with those of lists inside in their place, *depth* levels down."""
    levels, items = integer(depth), elements(values)
    if levels < 0:
        raise EvaluationError("level must be non-negative")
    for _ in range(min(levels, MAX_FLATTEN_DEPTH)):
        if not any(map(_is_list, items)):
            return list(items)
        items = _flattened(items)
    if levels > MAX_FLATTEN_DEPTH and any(map(_is_list, items)):
        raise EvaluationError(f"lists nested deeper than {MAX_FLATTEN_DEPTH} levels cannot be flattened")
    return list(items)


def _is_list(value: object) -> bool:
    return isinstance(value, (list, tuple))


def _flattened(items: Sequence[Any]) -> list[Any]:
    bounded_list(sum(len(item) if _is_list(item) else 1 for item in items))
    flat: list[Any] = []
    for item in items:
        flat.extend(item if _is_list(item) else (item,))
    return flat


def sort(values: object) -> list[Any]:
    """Return the elements in ascending order; they must be of one type that has an order."""
    return sort_by_keys(values, values)


def sort_by_keys(values: object, keys: object) -> list[Any]:
    """Return the elements in the ascending order of their *keys* (what ``sortBy`` becomes)."""
    items, order = elements(values), elements(keys)
    if len(items) != len(order):
        raise EvaluationError(
            "@sortByAssociatedKeys() expected a list of the same size as the associated keys list, "
            f"but got {len(items)} and {len(order)} elements respectively"
        )
    _require_comparable(order)
    return [items[position] for position in sorted(range(len(items)), key=order.__getitem__)]


def _require_comparable(keys: Sequence[Any]) -> None:
    kinds = set(map(type, keys))
    if not kinds <= COMPARABLE:
        raise EvaluationError("list elements must be comparable")
    if len(kinds) > 1:
        raise EvaluationError("list elements must have the same type")


def distinct(values: object) -> list[Any]:
    """Return the elements without those equal to an earlier one."""
    return membership.distinct(elements(values))


def reverse(values: object) -> Any:
    """Return a list or a string from its end to its beginning."""
    if type(values) is str:
        return values[::-1]
    return list(reversed(elements(values)))


def count_up(size: object) -> list[int]:
    """Return the ints from 0 to *size* - 1 (``lists.range``)."""
    number = integer(size)
    if number < 0:
        raise EvaluationError(f"lists.range: size must be non-negative, got {number}")
    if number > MAX_ELEMENTS:
        raise EvaluationError(f"lists.range: size {number} exceeds maximum allowed ({MAX_ELEMENTS})")
    return list(range(number))


def first(values: object) -> Optional:
    """Return the first element, or none of an empty list."""
    items = elements(values)
    return Optional.of(items[0]) if items else NONE


def last(values: object) -> Optional:
    """Return the last element, or none of an empty list."""
    items = elements(values)
    return Optional.of(items[-1]) if items else NONE


FUNCTIONS: Mapping[str, Callable[..., Any]] = {
    "slice": part,
    "flatten": flatten,
    "sort": sort,
    "@sortByAssociatedKeys": sort_by_keys,
    "distinct": distinct,
    "reverse": reverse,
    "lists.range": count_up,
    "first": first,
    "last": last,
}
