"""The ``sets`` extension of cel-go: lists taken as sets, by CEL equality."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from engine.cel.library.arguments import elements
from engine.cel.library.membership import all_among, any_among

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping


def contains(whole: object, part: object) -> bool:
    """Whether every element of *part* is in *whole*."""
    return all_among(elements(part), elements(whole))


def equivalent(first: object, second: object) -> bool:
    """Whether each list contains every element of the other; order and repetition do not count."""
    left, right = elements(first), elements(second)
    return all_among(left, right) and all_among(right, left)


def intersects(first: object, second: object) -> bool:
    """Whether the lists have an element in common."""
    return any_among(elements(first), elements(second))


FUNCTIONS: Mapping[str, Callable[..., Any]] = {
    "sets.contains": contains,
    "sets.equivalent": equivalent,
    "sets.intersects": intersects,
}
