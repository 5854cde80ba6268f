"""Cerbos's hierarchies: paths of segments such as ``acme.sales.emea``, and how two of them are related."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from engine.cel.library.arguments import bounded_list, string, strings
from engine.cel.library.declaration import Declaration
from engine.cel.values import EvaluationError, NoSuchOverload

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

DELIMITER = "."


@dataclass(frozen=True, slots=True)
class Hierarchy:
    """A path from the root down (``cerbos.lib.hierarchy``)."""

    type_name: ClassVar[str] = "cerbos.lib.hierarchy"
    hashable: ClassVar[bool] = True
    sized: ClassVar[bool] = True

    segments: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.segments)

    def __getitem__(self, position: object) -> str:
        """Return the segment at *position*, counted from 0; raises :class:`EvaluationError`."""
        if type(position) is not int:
            raise NoSuchOverload
        if not 0 <= position < len(self.segments):
            raise EvaluationError("index out of range")
        return self.segments[position]

    def is_above(self, other: Hierarchy) -> bool:
        """Whether *other* begins with all of this path, or is the same."""
        return other.segments[: len(self.segments)] == self.segments


def hierarchy(value: object, delimiter: object = DELIMITER) -> Hierarchy:
    """Return the path in a string, split at *delimiter*, or that of a list of its segments."""
    if type(value) is Hierarchy:
        return value
    if type(value) is str:
        return Hierarchy(_segments(value, string(delimiter)))
    return Hierarchy(tuple(strings(value)))


def _segments(text: str, delimiter: str) -> tuple[str, ...]:
    bounded_list(text.count(delimiter))
    return tuple(text.split(delimiter) if delimiter else text)


def _paths(first: object, second: object) -> tuple[Hierarchy, Hierarchy]:
    if type(first) is Hierarchy and type(second) is Hierarchy:
        return first, second
    raise NoSuchOverload


def ancestor_of(first: object, second: object) -> bool:
    """Whether the second path goes on from the first."""
    upper, lower = _paths(first, second)
    return len(upper) < len(lower) and upper.is_above(lower)


def descendent_of(first: object, second: object) -> bool:
    """Whether the first path goes on from the second."""
    return ancestor_of(second, first)


def immediate_parent_of(first: object, second: object) -> bool:
    """Whether the second path is the first and one segment more."""
    upper, lower = _paths(first, second)
    return len(upper) + 1 == len(lower) and upper.is_above(lower)


def immediate_child_of(first: object, second: object) -> bool:
    """Whether the first path is the second and one segment more."""
    return immediate_parent_of(second, first)


def sibling_of(first: object, second: object) -> bool:
    """Whether the paths differ in their last segment at most."""
    one, other = _paths(first, second)
    return len(one) == len(other) and one.segments[:-1] == other.segments[:-1]


def overlaps(first: object, second: object) -> bool:
    """Whether one path goes on from the other, or they are the same."""
    one, other = _paths(first, second)
    return one.is_above(other) or other.is_above(one)


def common_ancestors(first: object, second: object) -> Hierarchy:
    """Return the segments that both paths begin with; of equally long paths the last one does not count."""
    one, other = _paths(first, second)
    end = min(len(one), len(other)) - (len(one) == len(other))
    pairs = zip(one.segments[: max(end, 0)], other.segments, strict=False)
    common = next((position for position, (left, right) in enumerate(pairs) if left != right), max(end, 0))
    return Hierarchy(one.segments[:common])


RELATIONS: Mapping[str, Callable[[object, object], bool]] = {
    "ancestorOf": ancestor_of,
    "descendentOf": descendent_of,
    "immediateParentOf": immediate_parent_of,
    "immediateChildOf": immediate_child_of,
    "siblingOf": sibling_of,
    "overlaps": overlaps,
}

FUNCTIONS: Mapping[str, Callable[..., Any]] = {
    "hierarchy": hierarchy,
    "commonAncestors": common_ancestors,
    **RELATIONS,
}

PATH = Hierarchy.type_name
TYPES: tuple[str, ...] = (PATH,)

DECLARATIONS: tuple[Declaration, ...] = (
    Declaration("hierarchy", "hierarchy_string", ("string",), PATH),
    Declaration("hierarchy", "hierarchy_string_string", ("string", "string"), PATH),
    Declaration("hierarchy", "hierarchy_stringarray", ("list<string>",), PATH),
    *(Declaration(name, name, (PATH, PATH), "bool", member=True) for name in RELATIONS),
    Declaration("commonAncestors", "commonAncestors", (PATH, PATH), PATH, member=True),
    Declaration("size", "hierarchy_size", (PATH,), "int", member=True),
    Declaration("_[_]", "hierarchy_index", (PATH, "int"), "string"),
)
