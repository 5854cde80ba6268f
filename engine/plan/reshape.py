"""What a filter can say instead of what is left of a condition: comparisons instead of look-ups and loops.

* The bodies of the loops that are left are evaluated as far as they go, the loop's variables being unknown.
* A map that is known, indexed by something that is not, becomes a choice of its keys.
* ``exists`` and ``all`` over at most ten known elements become ``||`` and ``&&``.
* What is known takes the place of its name also in parts that were not evaluated.

The second and third only where they are the whole condition, as in Cerbos (``planner/struct_matcher.go``).
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from engine.cel import macros
from engine.cel.nodes import Call, Comprehension, Const, Ident, ListLiteral, MapLiteral, Node, Select
from engine.plan.known import UNKNOWN
from engine.plan.partial import is_known
from engine.plan.tree import (
    AND,
    IN,
    INDEX,
    NOT,
    OR,
    bound_names,
    call,
    const,
    copied,
    free_names,
    is_literal,
    literal,
    mapped,
    put,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from engine.plan.partial import Evaluation

    Evaluate = Callable[[Mapping[str, object]], Evaluation]
    """Makes an evaluation with values for the variables of loops."""

MAX_UNROLLED = 10

COMPARISONS = frozenset(("_==_", "_!=_", "_<_", "_<=_", "_>_", "_>=_"))


def reshaped(node: Node, evaluate: Evaluate, failed: bool | None = None) -> Node:
    """Return the residual of a condition in the form that a filter can say best.

    *failed* is what the condition is worth should it fail; ``None``: it is false then, as in Cerbos.
    """
    inside = _loops(node, evaluate, {})
    changed = _chosen(inside, failed=failed is True) or _unrolled(inside, evaluate)
    made = inside if changed is None else _evaluated(copied(changed), evaluate, {})
    return completed(made, evaluate, frozenset())


def _evaluated(node: Node, evaluate: Evaluate, variables: Mapping[str, object]) -> Node:
    evaluation = evaluate(variables)
    evaluation.value(node)
    return evaluation.residual(node)


# --- what was not evaluated ---------------------------------------------------------------------------------


def completed(node: Node, evaluate: Evaluate, bound: frozenset[str]) -> Node:
    """Put values also where nothing was evaluated: behind a ``?:`` that is not decided, for one.

    Cerbos leaves names there that its client does not know. *bound* are the names of the loops around.
    """
    names = free_names(node)
    if not names:
        return node
    if not names & bound:
        value = evaluate({}).value(copied(node))
        if is_known(value):
            return literal(value) or node
        if value is not UNKNOWN and not isinstance(node, (Call, Comprehension)):
            return node
    if isinstance(node, Comprehension):
        bound |= bound_names(node)
    return mapped(node, lambda part: completed(part, evaluate, bound))


# --- loops that stay ----------------------------------------------------------------------------------------


def _loops(node: Node, evaluate: Evaluate, variables: Mapping[str, object]) -> Node:
    """Evaluate the bodies of the loops in a tree."""
    if not isinstance(node, Comprehension):
        return mapped(node, lambda part: _loops(part, evaluate, variables))
    over = _loops(node.range, evaluate, variables)
    if not isinstance(node.step, Call):  # a binding
        start, result = (_loops(part, evaluate, variables) for part in (node.start, node.result))
        return replace(node, range=over, start=start, result=result)
    inside = dict(variables)
    inside.update((name, UNKNOWN) for name in (node.variable, node.second_variable) if name)
    return replace(node, range=over, step=_step(node.step, node.accumulator, evaluate, inside))


def _step(step: Call, accumulator: str, evaluate: Evaluate, variables: Mapping[str, object]) -> Call:
    """Evaluate what a loop asks of an element: the operand of its step that is not the accumulator."""
    first = step.arguments[0]
    place = 1 if isinstance(first, Ident) and first.name == accumulator else 0
    body = copied(step.arguments[place])
    left = _loops(_evaluated(body, evaluate, variables), evaluate, variables)
    arguments = (*step.arguments[:place], left, *step.arguments[place + 1 :])
    return replace(step, arguments=arguments)


# --- look-ups -----------------------------------------------------------------------------------------------


def _chosen(node: Node, *, failed: bool) -> Node | None:
    """Turn ``{k: v, ...}[unknown] == constant`` into ``unknown == k && v == constant || ...``.

    A key that the map has not fails the condition: with *failed* that counts as true.
    """
    if not isinstance(node, Call) or len(node.arguments) != 2:
        return None
    left, right = node.arguments
    if node.function in COMPARISONS and isinstance(right, Const):
        return _choice(left, lambda value: call(node.function, value, right), failed=failed)
    if node.function == IN and isinstance(left, Const):
        return _choice(right, lambda value: call(node.function, left, value), failed=failed)
    return None


def _choice(lookup: Node, compared: Callable[[Node], Node], *, failed: bool) -> Node | None:
    field = ""
    if isinstance(lookup, Select) and not lookup.test_only:
        field, lookup = lookup.field, lookup.operand
    match lookup:
        case Call(function=function, arguments=(MapLiteral() as known, Select() as key)) if function == INDEX:
            entries = sorted(known.entries, key=lambda entry: _text(entry.key))
            options = [
                call(AND, call("_==_", key, entry.key), compared(_selected(entry.value, field)))
                for entry in entries
            ]
            if failed and entries:
                keys = ListLiteral(lookup.span, lookup.type, tuple(entry.key for entry in entries))
                options.append(call(NOT, call(IN, key, keys)))
            return _joined(OR, options) if options else None
    return None


def _selected(value: Node, field: str) -> Node:
    return Select(value.span, value.type, value, field) if field else value


def _text(key: Node) -> str:
    return key.value if isinstance(key, Const) and isinstance(key.value, str) else ""


def _joined(function: str, options: Sequence[Node]) -> Node:
    *before, joined = options
    for option in reversed(before):
        joined = call(function, option, joined)
    return joined


# --- short loops --------------------------------------------------------------------------------------------


def _unrolled(node: Node, evaluate: Evaluate) -> Node | None:
    """Turn a short ``exists`` or ``all`` over known elements into ``||`` or ``&&``."""
    if not isinstance(node, Comprehension) or not is_literal(node.range):
        return None
    macro = macros.recognise(node)
    if not isinstance(macro, macros.Quantifier):
        return None
    turns = list(_turns(node))
    if not 0 < len(turns) <= MAX_UNROLLED:
        return None
    options = [_turn(macro.predicate, bound, evaluate) for bound in turns]
    return _joined(OR if macro.stops_at else AND, options)


def _turns(loop: Comprehension) -> Iterator[dict[str, Node]]:
    """Yield what the variables of a loop over a literal are, turn by turn."""
    over = loop.range
    if isinstance(over, ListLiteral):
        for position, element in enumerate(over.elements):
            if loop.second_variable:
                yield {loop.variable: const(position), loop.second_variable: element}
            else:
                yield {loop.variable: element}
    elif isinstance(over, MapLiteral):
        for entry in over.entries:
            bound = {loop.variable: entry.key}
            yield {**bound, loop.second_variable: entry.value} if loop.second_variable else bound


def _turn(predicate: Node, bound: Mapping[str, Node], evaluate: Evaluate) -> Node:
    """Return what the predicate of a loop comes to in one turn.

    The names are also put in the place of what was not evaluated, where Cerbos leaves them without a meaning.
    """
    values = {name: evaluate({}).value(node) for name, node in bound.items()}
    return put(_evaluated(copied(predicate), evaluate, values), bound)
