"""What an expression does with attributes: which it reads, and of which JSON types it needs them to be.

Attributes and claims are JSON: their numbers are doubles, and they are never timestamps, durations or bytes.
Hence some operations on them can be told to fail before any request comes, without knowing a schema.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple

from engine.cel import checks, nodes
from engine.cel.nodes import BOOL, DOUBLE, DYN, INT, NULL, STRING, UINT, Call, Comprehension, Const, Node

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from engine.cel.nodes import Span, Type

Attribute = tuple[str, ...]
"""``("P", "attr", "team")``, ``("R", "attr", ...)`` or ``("jwt", name, ...)``, however it was written."""

Kinds = frozenset[str]

NONE: Kinds = frozenset()
ANY: Kinds = frozenset(("null", "boolean", "number", "string", "array", "object"))
"""The types of JSON values."""

FAILS = "always fails"
FALSE = "is never true"
TRUE = "is always true"


class Read(NamedTuple):
    """An attribute that is read."""

    attribute: Attribute
    span: Span


class Demand(NamedTuple):
    """An operation that works only if an attribute is of one of *kinds*, and what becomes of it otherwise.

    *values* are the JSON constants that the attribute is compared with, if these are known.
    """

    attribute: Attribute
    kinds: Kinds
    outcome: str
    span: Span
    place: Span
    """Where the attribute stands; *span* is the whole operation."""

    function: str = ""
    """The operator or function."""

    other: Node | None = None
    values: tuple[object, ...] | None = None


@dataclass(slots=True)
class Uses:
    """Everything an expression does with attributes."""

    reads: list[Read] = field(default_factory=list)
    guarded: set[Attribute] = field(default_factory=set)
    """Attributes that the expression asks for with ``has()`` or ``.?`` before it relies on them."""

    demands: list[Demand] = field(default_factory=list)
    as_condition: Demand | None = None
    """What a condition asks of the attribute that it consists of."""


def uses(root: Node) -> Uses:
    """Look at an expression."""
    walk = _Walk()
    walk.visit(root, frozenset())
    before = len(walk.found.demands)
    walk.demand(root, frozenset(), _BOOLEAN, FALSE, root)
    if len(walk.found.demands) > before:
        walk.found.as_condition = walk.found.demands.pop()
    return walk.found


class _Walk:
    def __init__(self) -> None:
        self.found = Uses()

    def visit(self, node: Node, bound: frozenset[str]) -> None:
        attribute = attribute_of(node, bound)
        if attribute:
            asks = isinstance(node, nodes.Select) and node.test_only
            if asks or _is_optional(node):
                self.found.guarded.add(attribute)
            else:
                self.found.reads.append(Read(attribute, node.span))
            return
        if isinstance(node, Call):
            self._call(node, bound)
        if isinstance(node, Comprehension):
            self.demand(node.range, bound, _COLLECTIONS, FAILS, node.range)
        for child, names in checks.children(node):
            self.visit(child, bound | names)

    def demand(
        self,
        node: Node,
        bound: frozenset[str],
        kinds: Kinds,
        outcome: str,
        whole: Node,
        other: Node | None = None,
        values: tuple[object, ...] | None = None,
    ) -> None:
        attribute = attribute_of(node, bound)
        tested = isinstance(node, nodes.Select) and node.test_only
        if attribute and not tested and not _is_optional(node):
            place = node.span
            function = whole.function if isinstance(whole, Call) else ""
            self.found.demands.append(
                Demand(attribute, kinds, outcome, whole.span, place, function, other, values)
            )

    def _call(self, node: Call, bound: frozenset[str]) -> None:
        if node.function in _PAIRS and len(node.arguments) == 2:
            left, right = node.arguments
            self._pair(node, left, right, bound)
            self._pair(node, right, left, bound)
        elif node.function == "@in":
            self._membership(node, bound)
        elif node.function in _EVERY:
            for argument in node.arguments:
                self.demand(argument, bound, _EVERY[node.function], FAILS, node)
        elif node.function in _FIRST and node.arguments:
            self.demand(node.arguments[0], bound, _FIRST[node.function], FAILS, node)

    def _pair(self, node: Call, here: Node, other: Node, bound: frozenset[str]) -> None:
        kinds_for, outcome = _PAIRS[node.function]
        kinds = kinds_for(other.type)
        if kinds is not None:
            values = _constants([other]) if outcome != FAILS else None
            self.demand(here, bound, kinds, outcome, node, other, values)

    def _membership(self, node: Call, bound: frozenset[str]) -> None:
        here, collection = node.arguments
        self.demand(collection, bound, _COLLECTIONS, FAILS, node)
        if isinstance(collection, nodes.ListLiteral) and collection.elements:
            kinds = [json_kinds(element.type) for element in collection.elements]
            if all(kind is not None for kind in kinds):
                together: Kinds = NONE.union(*(kind for kind in kinds if kind is not None))
                values = _constants(collection.elements)
                self.demand(here, bound, together, FALSE, node, None, values)


# -- attributes --------------------------------------------------------------------------------------------

_ROOTS: Mapping[tuple[str, ...], Attribute] = {
    ("P", "attr"): ("P", "attr"),
    ("R", "attr"): ("R", "attr"),
    ("request", "principal", "attr"): ("P", "attr"),
    ("request", "resource", "attr"): ("R", "attr"),
    ("request", "auxData", "jwt"): ("jwt",),
    ("request", "aux_data", "jwt"): ("jwt",),
}


def attribute_of(node: Node, bound: frozenset[str]) -> Attribute:
    """Return the attribute that *node* reads, empty when it does something else; *bound* hides variables."""
    steps: list[str] = []
    while not isinstance(node, nodes.Ident):
        taken = _step(node)
        if taken is None:
            return ()
        node, step = taken
        steps.append(step)
    if node.name in bound and not node.rooted:
        return ()
    path = (*node.name.split("."), *reversed(steps))
    for length in (2, 3):
        root = _ROOTS.get(path[:length])
        if root and len(path) > length:
            return (*root, *path[length:])
    return ()


def _step(node: Node) -> tuple[Node, str] | None:
    """Return what *node* selects from, and the name that it selects."""
    if isinstance(node, nodes.Select):
        return node.operand, node.field
    if isinstance(node, Call) and node.function in ("_[_]", "_?._", "_[?_]") and len(node.arguments) == 2:
        operand, key = node.arguments
        if isinstance(key, Const) and isinstance(key.value, str):
            return operand, key.value
    return None


def _is_optional(node: Node) -> bool:
    """Tell whether the value may be absent without harm: ``.?x`` anywhere on the way to it."""
    while True:
        if isinstance(node, Call) and node.function in ("_?._", "_[?_]"):
            return True
        taken = _step(node)
        if taken is None:
            return False
        node = taken[0]


# -- types -------------------------------------------------------------------------------------------------

_COLLECTIONS = frozenset(("array", "object"))
_BOOLEAN = frozenset(("boolean",))
_NUMBER = frozenset(("number",))
_TEXT = frozenset(("string",))

_JSON: Mapping[str, Kinds] = {
    BOOL.name: _BOOLEAN,
    DOUBLE.name: _NUMBER,
    INT.name: _NUMBER,
    NULL.name: frozenset(("null",)),
    STRING.name: _TEXT,
    UINT.name: _NUMBER,
    "list": frozenset(("array",)),
    "map": frozenset(("object",)),
}


def json_kinds(kind: Type) -> Kinds | None:
    """Return the types of JSON that can equal a CEL value; ``None`` when its type is not known."""
    return None if kind == DYN or kind.name in ("wrapper", "optional_type") else _JSON.get(kind.name, NONE)


def _ordered(kind: Type) -> Kinds | None:
    kinds = json_kinds(kind)
    return None if kinds is None else kinds & {"boolean", "number", "string"}


def _added(kind: Type) -> Kinds | None:
    if kind == DYN:
        return frozenset(("array", "number", "string"))
    return {DOUBLE.name: _NUMBER, STRING.name: _TEXT, "list": frozenset(("array",))}.get(kind.name, NONE)


def _calculated(kind: Type) -> Kinds | None:
    return _NUMBER if kind in (DYN, DOUBLE) else NONE


def _never(_kind: Type) -> Kinds | None:
    return NONE


_PAIRS: Mapping[str, tuple[Callable[[Type], Kinds | None], str]] = {
    "_==_": (json_kinds, FALSE),
    "_!=_": (json_kinds, TRUE),
    "_<_": (_ordered, FAILS),
    "_<=_": (_ordered, FAILS),
    "_>_": (_ordered, FAILS),
    "_>=_": (_ordered, FAILS),
    "_+_": (_added, FAILS),
    "_-_": (_calculated, FAILS),
    "_*_": (_calculated, FAILS),
    "_/_": (_calculated, FAILS),
    "_%_": (_never, FAILS),
}
"""Operators on two values: what an attribute on one side has to be, by the type of the other side."""

_EVERY: Mapping[str, Kinds] = {"_&&_": _BOOLEAN, "_||_": _BOOLEAN, "!_": _BOOLEAN, "-_": _NUMBER}
_FIRST: Mapping[str, Kinds] = {
    "_?_:_": _BOOLEAN,
    "contains": _TEXT,
    "duration": _TEXT,
    "endsWith": _TEXT,
    "lowerAscii": _TEXT,
    "matches": _TEXT,
    "size": frozenset(("array", "object", "string")),
    "startsWith": _TEXT,
    "timestamp": _TEXT,
    "upperAscii": _TEXT,
}
"""Functions by what their first argument, or target, has to be."""


def _constants(elements: list[Node] | tuple[Node, ...]) -> tuple[object, ...] | None:
    """Return the JSON values of literals, ``None`` when one of *elements* is none."""
    values = tuple(_json_values(elements))
    return values if len(values) == len(elements) else None


def _json_values(elements: list[Node] | tuple[Node, ...]) -> Iterator[object]:
    for element in elements:
        if isinstance(element, Const) and element.type in (BOOL, DOUBLE, INT, NULL, STRING, UINT):
            value = element.value
            is_number = element.type in (DOUBLE, INT, UINT)
            yield float(value) if is_number else value  # type: ignore[arg-type]  # the type says it is one
