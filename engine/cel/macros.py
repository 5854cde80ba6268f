"""The macros of an expression, recognised in the loops that the parser expanded them to.

``list.exists(x, p)`` arrives as a fold with an accumulator. Here it becomes *exists* again, so that the
generator can write Python's own loop. A fold of any other form stays a fold.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from engine.cel.nodes import Call, Comprehension, Const, Ident, ListLiteral, MapLiteral, Node

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

ACCUMULATOR = "@result"
"""The accumulator of all macros but ``cel.bind``; no expression can use this name itself."""

UNUSED = "#unused"
"""The loop variable of a loop that only binds a name."""


@dataclass(frozen=True, slots=True)
class Bind:
    """``cel.bind(name, value, body)``."""

    name: str
    value: Node
    body: Node


@dataclass(frozen=True, slots=True)
class Quantifier:
    """``exists`` (*stops_at* true) and ``all`` (false): ends at the first element that decides."""

    predicate: Node
    stops_at: bool


@dataclass(frozen=True, slots=True)
class Count:
    """``exists_one``: whether the predicate holds for exactly one element."""

    predicate: Node


@dataclass(frozen=True, slots=True)
class Collect:
    """``map``, ``filter``, ``transformList``: a list of *item* for the elements that pass the filter."""

    item: Node
    predicate: Node | None


@dataclass(frozen=True, slots=True)
class Insert:
    """``transformMap`` (key and value), ``transformMapEntry`` (one map): a map of what each element adds."""

    items: tuple[Node, ...]
    predicate: Node | None


Macro = Bind | Quantifier | Count | Collect | Insert


def recognise(loop: Comprehension) -> Macro | None:
    """Return the macro that *loop* came from; None for a fold of another form."""
    found: Iterator[Macro | None] = (attempt(loop) for attempt in ATTEMPTS)
    return next((macro for macro in found if macro is not None), None)


def _bind(loop: Comprehension) -> Macro | None:
    if loop.variable == UNUSED and _is_const(loop.condition, value=False):
        return Bind(loop.accumulator, loop.start, loop.result)
    return None


def _quantifier(loop: Comprehension) -> Macro | None:
    for function, neutral in (("_&&_", True), ("_||_", False)):
        step = _step(loop.step, function)
        if step is not None and _is_const(loop.start, value=neutral) and _is_accumulator(loop.result):
            return Quantifier(step[0], stops_at=not neutral)
    return None


def _count(loop: Comprehension) -> Macro | None:
    step, predicate = _filtered(loop.step)
    added = _step(step, "_+_")
    compared = _step(loop.result, "_==_")
    if predicate is None or added is None or compared is None:
        return None
    counts = _is_const(loop.start, 0) and _is_const(added[0], 1) and _is_const(compared[0], 1)
    return Count(predicate) if counts else None


def _collect(loop: Comprehension) -> Macro | None:
    step, predicate = _filtered(loop.step)
    added = _step(step, "_+_")
    if added is None or not _is_empty_list(loop.start) or not _is_full_loop(loop):
        return None
    match added[0]:
        case ListLiteral(elements=(item,), optional=optional) if not optional:
            return Collect(item, predicate)
    return None


def _insert(loop: Comprehension) -> Macro | None:
    step, predicate = _filtered(loop.step)
    added = _step(step, "cel.@mapInsert")
    if added is None or not _is_empty_map(loop.start) or not _is_full_loop(loop):
        return None
    return Insert(tuple(added), predicate)


ATTEMPTS: Sequence[Callable[[Comprehension], Macro | None]] = (_bind, _quantifier, _count, _collect, _insert)


def _filtered(step: Node) -> tuple[Node, Node | None]:
    """Take ``p ? step : accumulator`` apart."""
    match step:
        case Call(function="_?_:_", arguments=(predicate, then, otherwise)) if _is_accumulator(otherwise):
            return then, predicate
    return step, None


def _step(node: Node, function: str) -> Sequence[Node] | None:
    """Return the other arguments of a call of *function* whose first is the accumulator."""
    match node:
        case Call(function=called, arguments=(first, *rest)) if called == function and _is_accumulator(first):
            return rest
    return None


def _is_full_loop(loop: Comprehension) -> bool:
    return _is_const(loop.condition, value=True) and _is_accumulator(loop.result)


def _is_accumulator(node: Node) -> bool:
    return isinstance(node, Ident) and node.name == ACCUMULATOR


def _is_const(node: Node, value: bool | int) -> bool:
    return isinstance(node, Const) and node.value is value


def _is_empty_list(node: Node) -> bool:
    return isinstance(node, ListLiteral) and not node.elements


def _is_empty_map(node: Node) -> bool:
    return isinstance(node, MapLiteral) and not node.entries
