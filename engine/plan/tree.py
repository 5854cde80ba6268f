"""Syntax trees as a plan changes them: copies, names put in place of others, values as literals.

The nodes are :mod:`engine.cel.nodes`'s. What is made here stands nowhere in a text and has no type.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from typing import Any

from engine.cel import Duration, RecordValue, Timestamp, UInt, macros
from engine.cel.nodes import (
    DYN,
    Call,
    Comprehension,
    Const,
    Entry,
    Ident,
    ListLiteral,
    MapLiteral,
    MessageLiteral,
    Node,
    Select,
    Span,
)

NOWHERE = Span(1, 0, 1, 0)
TEXT_CONVERSIONS: Mapping[type, str] = {Duration: "duration", Timestamp: "timestamp"}
SIMPLE = frozenset({bool, bytes, float, int, type(None), str, UInt})

AND, OR, NOT = "_&&_", "_||_", "!_"
DEFINED = "@defined"
"""What ``has(V.x)`` becomes when ``x`` takes the place of its name: whether it can be computed."""

INDEX, IN, CONDITIONAL = "_[_]", "@in", "_?_:_"


def call(function: str, *arguments: Node) -> Call:
    """Make a call."""
    return Call(NOWHERE, DYN, function, arguments)


def const(value: object) -> Const:
    """Make a literal of a simple value."""
    return Const(NOWHERE, DYN, value)


def literal(value: Any) -> Node | None:
    """Make the tree that has *value*; ``None`` for values that no tree has: records, types, addresses."""
    kind = value.__class__
    if kind in SIMPLE:
        return const(value)
    if kind in TEXT_CONVERSIONS:
        return call(TEXT_CONVERSIONS[kind], const(str(value)))
    if kind is list or kind is tuple:
        elements = [literal(item) for item in value]
        made = tuple(item for item in elements if item is not None)
        return ListLiteral(NOWHERE, DYN, made) if len(made) == len(elements) else None
    if isinstance(value, Mapping) and kind is not RecordValue:
        pairs = [(literal(key), literal(item)) for key, item in value.items()]
        entries = tuple(Entry(NOWHERE, key, item) for key, item in pairs if key and item)
        return MapLiteral(NOWHERE, DYN, entries) if len(entries) == len(pairs) else None
    return None


def is_literal(node: Node) -> bool:
    """Tell whether a tree holds nothing but values."""
    if isinstance(node, (ListLiteral, MapLiteral, MessageLiteral)):
        return all(map(is_literal, children(node)))
    return isinstance(node, Const)


def children(node: Node) -> Iterator[Node]:
    """Yield the parts of a node, in order."""
    match node:
        case Select():
            yield node.operand
        case Call():
            yield from node.arguments
        case ListLiteral():
            yield from node.elements
        case MapLiteral() | MessageLiteral():
            for entry in node.entries:
                yield entry.key
                yield entry.value
        case Comprehension():
            yield from (node.range, node.start, node.condition, node.step, node.result)


def mapped(node: Node, change: Callable[[Node], Node]) -> Node:
    """Return a new node like *node* with each of its parts changed."""
    match node:
        case Select():
            return replace(node, operand=change(node.operand))
        case Call():
            return replace(node, arguments=tuple(map(change, node.arguments)))
        case ListLiteral():
            return replace(node, elements=tuple(map(change, node.elements)))
        case MapLiteral() | MessageLiteral():
            entries = (replace(one, key=change(one.key), value=change(one.value)) for one in node.entries)
            return replace(node, entries=tuple(entries))
        case Comprehension():
            return replace(
                node,
                range=change(node.range),
                start=change(node.start),
                condition=change(node.condition),
                step=change(node.step),
                result=change(node.result),
            )
    return replace(node)


def copied(node: Node) -> Node:
    """Return a tree of new nodes: what is noted of one place must not be read at another."""
    return mapped(node, copied)


# --- names --------------------------------------------------------------------------------------------------


def bound_names(loop: Comprehension) -> frozenset[str]:
    """Return the names that a loop binds in its body."""
    return frozenset((loop.variable, loop.second_variable, loop.accumulator)) - {""}


def free_names(node: Node) -> frozenset[str]:
    """Return the names of a tree that nothing inside of it binds."""
    if isinstance(node, Ident):
        return frozenset((node.name,))
    if isinstance(node, Comprehension):
        body = free_names(node.condition) | free_names(node.step) - bound_names(node)
        result = free_names(node.result) - {node.accumulator}
        return free_names(node.range) | free_names(node.start) | (body - bound_names(node)) | result
    return frozenset().union(*map(free_names, children(node)))


def put(node: Node, values: Mapping[str, Node]) -> Node:
    """Return the tree with the free names among *values* replaced."""
    if not values:
        return node
    if isinstance(node, Ident):
        found = None if node.rooted else values.get(node.name)
        return node if found is None else copied(found)
    if isinstance(node, Comprehension):
        return _put_in_loop(node, values)
    return mapped(node, lambda part: put(part, values))


def _put_in_loop(loop: Comprehension, values: Mapping[str, Node]) -> Node:
    inside = {name: value for name, value in values.items() if name not in bound_names(loop)}
    after = {name: value for name, value in values.items() if name != loop.accumulator}
    return replace(
        loop,
        range=put(loop.range, values),
        start=put(loop.start, values),
        condition=put(loop.condition, inside),
        step=put(loop.step, inside),
        result=put(loop.result, after),
    )


def without_bindings(node: Node) -> Node:
    """Replace the names of ``cel.bind`` by what they stand for, which evaluates to the same.

    A binding stays whose value has a name that means something else where the binding is used.
    """
    changed = mapped(node, without_bindings)
    if not isinstance(changed, Comprehension) or changed.accumulator.startswith("@"):
        return changed
    macro = macros.recognise(changed)
    if not isinstance(macro, macros.Bind) or _captures(macro.body, macro.name, free_names(macro.value)):
        return changed
    return put(macro.body, {macro.name: macro.value})


def _captures(node: Node, name: str, free: frozenset[str]) -> bool:
    """Tell whether *name* is used inside of a loop that binds one of the *free* names."""
    if isinstance(node, Comprehension) and bound_names(node) & free and name in free_names(node):
        return True
    return any(_captures(part, name, free) for part in children(node))


def is_member_of(node: Node, names: frozenset[str]) -> bool:
    """Tell whether *node* selects a field of a variable that is one of *names*."""
    return isinstance(node, Select) and isinstance(node.operand, Ident) and node.operand.name in names
