"""Cerbos's own list functions, global and member, with their deprecated names."""

from __future__ import annotations

from itertools import compress
from typing import TYPE_CHECKING, Any

from engine.cel.library.arguments import elements
from engine.cel.library.declaration import Declaration, everywhere
from engine.cel.library.membership import all_among, among, any_among

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

TWO_LISTS = ("list<~A>", "list<~A>")


def has_intersection(first: object, second: object) -> bool:
    """Whether the lists have an element in common."""
    return any_among(elements(first), elements(second))


def intersect(first: object, second: object) -> list[Any]:
    """Return the elements of the shorter list that are in the other, in their order, repeated ones included.

    Of equally long lists the first counts as the shorter one.
    """
    shorter, longer = elements(first), elements(second)
    if len(shorter) > len(longer):
        shorter, longer = longer, shorter
    return list(compress(shorter, among(shorter, longer)))


def exclude(first: object, second: object) -> list[Any]:
    """Return the elements of the first list that are not in the second, in their order."""
    kept = elements(first)
    return [value for value, found in zip(kept, among(kept, elements(second)), strict=True) if not found]


def is_subset(first: object, second: object) -> bool:
    """Whether every element of the first list is in the second."""
    return all_among(elements(first), elements(second))


FUNCTIONS: Mapping[str, Callable[..., Any]] = {
    "hasIntersection": has_intersection,
    "has_intersection": has_intersection,
    "intersect": intersect,
    "except": exclude,
    "isSubset": is_subset,
    "is_subset": is_subset,
}

DECLARATIONS: tuple[Declaration, ...] = (
    *everywhere("hasIntersection", TWO_LISTS, "bool"),
    *everywhere("has_intersection", TWO_LISTS, "bool"),
    *everywhere("intersect", TWO_LISTS, "list<~A>"),
    *everywhere("except", TWO_LISTS, "list<~A>"),
    *everywhere("isSubset", TWO_LISTS, "bool"),
    *everywhere("is_subset", TWO_LISTS, "bool"),
)
