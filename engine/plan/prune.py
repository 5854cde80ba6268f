"""What is left of a tree: known values take the place of the nodes that came to them."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, NamedTuple

from engine.cel import Optional
from engine.cel.nodes import Call, Comprehension, Entry, ListLiteral, MapLiteral, MessageLiteral, Node, Select
from engine.plan.known import UNKNOWN
from engine.plan.tree import AND, CONDITIONAL, IN, NOT, OR, const, literal

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping


class Pruned(NamedTuple):
    """A tree, and the value that it is known to have, or ``UNKNOWN``."""

    node: Node
    value: object = UNKNOWN


class Pruner:
    """Prunes one tree; *seen* has what each node came to, by the identity of the node.

    With *exact* nothing is left out that might fail.
    """

    def __init__(
        self, seen: Mapping[int, object], is_known: Callable[[object], bool], *, exact: bool = False
    ) -> None:
        self._shorter = EXACT if exact else SHORTER
        self._seen = seen
        self._is_known = is_known

    def residual(self, node: Node) -> Node:
        """Return what is left of *node*."""
        return self._pruned(node).node

    def _pruned(self, node: Node) -> Pruned:
        value = self._seen.get(id(node), UNKNOWN)
        if not self._is_known(value):
            value = UNKNOWN
        elif (written := literal(value)) is not None:
            return Pruned(written, value)
        match node:
            case Call():
                return self._call(node, value)
            case Select():
                return Pruned(replace(node, operand=self.residual(node.operand)), value)
            case ListLiteral():
                return Pruned(self._list(node), value)
            case MapLiteral() | MessageLiteral():
                return Pruned(replace(node, entries=tuple(map(self._entry, node.entries))), value)
            case Comprehension():
                # What its body came to is known of its last turn only.
                return Pruned(replace(node, range=self.residual(node.range)), value)
        return Pruned(node, value)

    def _call(self, node: Call, value: object) -> Pruned:
        arguments = [self._pruned(argument) for argument in node.arguments]
        made = Pruned(replace(node, arguments=tuple(argument.node for argument in arguments)), value)
        shorten = self._shorter.get(node.function)
        if shorten is None or id(node) not in self._seen:
            return made
        return shorten(made, *arguments)

    def _list(self, node: ListLiteral) -> ListLiteral:
        elements: list[Node] = []
        optional: set[int] = set()
        for position, element in enumerate(node.elements):
            value = self._seen.get(id(element), UNKNOWN)
            if position not in node.optional:
                elements.append(self.residual(element))
            elif not isinstance(value, Optional):
                optional.add(len(elements))
                elements.append(self.residual(element))
            elif value.has_value:
                elements.append(literal(value.value) or element)
        return replace(node, elements=tuple(elements), optional=frozenset(optional))

    def _entry(self, entry: Entry) -> Entry:
        return replace(entry, key=self.residual(entry.key), value=self.residual(entry.value))


def _junction(made: Pruned, left: Pruned, right: Pruned) -> Pruned:
    """Drop the operand of ``&&`` or ``||`` that is known, as the other one is not."""
    decisive = isinstance(made.node, Call) and made.node.function == OR
    for known, other in ((left, right), (right, left)):
        if isinstance(known.value, bool):
            return Pruned(const(decisive), decisive) if known.value is decisive else other
    return made


def _conditional(made: Pruned, condition: Pruned, then: Pruned, otherwise: Pruned) -> Pruned:
    if not isinstance(condition.value, bool):
        return made
    return then if condition.value else otherwise


def _membership(made: Pruned, _: Pruned, container: Pruned) -> Pruned:
    value = container.value
    empty = isinstance(value, (list, tuple, dict, str, bytes)) and not value
    return Pruned(const(False), False) if empty else made


def _negation(made: Pruned, operand: Pruned) -> Pruned:
    value = operand.value
    return Pruned(const(not value), not value) if isinstance(value, bool) else made


SHORTER: Mapping[str, Callable[..., Pruned]] = {
    AND: _junction,
    CONDITIONAL: _conditional,
    IN: _membership,
    NOT: _negation,
    OR: _junction,
}

EXACT = {function: shorten for function, shorten in SHORTER.items() if function != IN}
"""Without what takes an operand for present."""
