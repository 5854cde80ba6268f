"""Constant folding: what cel-go does to a checked expression before anything is known (``cel/folding.go``).

It shows in a filter only where an expression is not evaluated when the plan is made: behind a ``?:`` that is
not decided, for one.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from engine.cel import TypeValue
from engine.cel.nodes import Call, Comprehension, Const, Node, Select
from engine.plan.partial import is_known
from engine.plan.tree import (
    AND,
    CONDITIONAL,
    OR,
    children,
    const,
    free_names,
    is_literal,
    literal,
    mapped,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from engine.plan.partial import Evaluation

UNFOLDED = frozenset(("now", "timeSince"))
"""An expression with one of these is left as it is."""


class _Unfoldable(Exception):  # noqa: N818 - not an error, the end of an attempt
    """A constant part fails, or cannot be written: then cel-go leaves the whole expression as it is."""


def folded(node: Node, evaluation: Callable[[], Evaluation]) -> Node:
    """Return the tree with its constant parts evaluated; *evaluation* makes one that knows nothing."""
    if _mentions(node, UNFOLDED):
        return node
    try:
        return _written(_folded(node, evaluation))
    except _Unfoldable:
        return node


def _mentions(node: Node, functions: frozenset[str]) -> bool:
    if isinstance(node, Call) and node.function in functions:
        return True
    return any(_mentions(part, functions) for part in children(node))


def _folded(node: Node, evaluation: Callable[[], Evaluation]) -> Node:
    if isinstance(node, Comprehension) and not free_names(node):
        return _value(node, evaluation, required=False)
    changed = mapped(node, lambda part: _folded(part, evaluation))
    if isinstance(changed, Call):
        shorter = _shortened(changed)
        if shorter is not None:
            return shorter
    if isinstance(changed, (Call, Select)) and all(map(is_literal, children(changed))):
        return _value(changed, evaluation, required=True)
    return changed


def _value(node: Node, evaluation: Callable[[], Evaluation], *, required: bool) -> Node:
    """Return the value of a constant node as a literal, for now of any type."""
    value = evaluation().value(node)
    if is_known(value):
        return const(value)
    if required:
        raise _Unfoldable
    return node


def _written(node: Node) -> Node:
    """Return the tree with every value in a form that can be written."""
    if not isinstance(node, Const):
        return mapped(node, _written)
    if isinstance(node.value, TypeValue):
        return node
    found = literal(node.value)
    if found is None:
        raise _Unfoldable
    return found


def _shortened(node: Call) -> Node | None:
    """Return the operand that a call comes to whatever the others are."""
    match node:
        case Call(function=function) if function in {AND, OR}:
            return _junction(node)
        case Call(function=function, arguments=(Const(value=bool(decided)), then, otherwise)) if (
            function == CONDITIONAL
        ):
            return then if decided else otherwise
    return None


def _junction(node: Call) -> Node | None:
    decisive = node.function == OR
    for argument, other in zip(node.arguments, reversed(node.arguments), strict=True):
        if isinstance(argument, Const) and argument.value is decisive:
            return argument
        if isinstance(argument, Const) and argument.value is (not decisive) and other.type.name == "bool":
            return other
    return None
