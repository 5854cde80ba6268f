"""What the type checker leaves open: literals that cannot be read, and namespaces used as values.

Also what an expression refers to, which the caller needs to know before it is evaluated.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from engine.cel import nodes
from engine.cel.library import network, regex
from engine.cel.nodes import INT, STRING, Node, Span, Type
from engine.cel.runtime import to_duration, to_timestamp
from engine.cel.values import EvaluationError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

LITERALS: Mapping[str, tuple[int, Callable[[Any], object]]] = {
    "cidr": (0, network.parse_cidr),
    "duration": (0, to_duration),
    "ip": (0, network.parse_ip),
    "matches": (1, regex.compiled),
    "regex.extract": (1, regex.compiled),
    "regex.extractAll": (1, regex.compiled),
    "regex.replace": (1, regex.compiled),
    "timestamp": (0, to_timestamp),
}
"""Functions with an argument whose literal has a form: which argument, and what reads it."""


@dataclass(frozen=True, slots=True)
class Mistake:
    """Something wrong at a place."""

    span: Span
    message: str


@dataclass(slots=True)
class Survey:
    """What a walk over an expression found."""

    mistakes: list[Mistake] = field(default_factory=list)
    identifiers: set[str] = field(default_factory=set)
    references: set[tuple[str, ...]] = field(default_factory=set)


def survey(root: Node, namespaces: Mapping[str, str]) -> Survey:
    """Walk over an expression; *namespaces* maps identifiers that are only selected from to their types."""
    found = Survey()
    _Walk(found, namespaces).visit(root, frozenset())
    return found


class _Walk:
    def __init__(self, found: Survey, namespaces: Mapping[str, str]) -> None:
        self._found = found
        self._namespaces = namespaces

    def visit(self, node: Node, bound: frozenset[str]) -> None:
        """Look at *node* and everything in it; *bound* are the variables of the comprehensions around it."""
        path = _path(node)
        if path and (path[0] not in bound or _is_rooted(node)):
            self._found.identifiers.add(path[0])
            self._found.references.add(path)
            if len(path) == 1 and path[0] in self._namespaces:
                self._mistake(node.span, f"`{path[0]}` can only be selected from: `{path[0]}.name`")
            return
        misused = self._check(node, bound)
        for child, names in children(node):
            if not any(child is known for known in misused):
                self.visit(child, bound | names)

    def _check(self, node: Node, bound: frozenset[str]) -> tuple[Node, ...]:
        """Look at *node* itself; returns the nodes in it that nothing more need be said about."""
        if isinstance(node, nodes.Call):
            return self._check_call(node, bound)
        if isinstance(node, nodes.Comprehension) and self._is_namespace(node.range, bound):
            kind = self._type(node.range, bound)
            limits = "cannot be range of a comprehension (must be list, map, or dynamic)"
            self._mistake(node.range.span, f"expression of type '{kind}' {limits}")
            return (node.range,)
        return ()

    def _check_call(self, node: nodes.Call, bound: frozenset[str]) -> tuple[Node, ...]:
        place, read = LITERALS.get(node.function, (len(node.arguments), str))
        literal = node.arguments[place] if place < len(node.arguments) else None
        if isinstance(literal, nodes.Const) and literal.type in {STRING, INT}:
            try:
                read(literal.value)
            except EvaluationError:
                self._mistake(literal.span, f"invalid {node.function} argument")
        if node.function == "flatten" and len(node.arguments) == 1 and not _nests(node.arguments[0].type):
            message = f"found no matching overload for 'flatten' applied to '{node.arguments[0].type}.()'"
            self._mistake(node.sign or node.span, message)
        misused = tuple(argument for argument in node.arguments if self._is_namespace(argument, bound))
        if misused:
            types = ", ".join(str(self._type(argument, bound)) for argument in node.arguments)
            self._mistake(
                node.sign or node.span,
                f"found no matching overload for '{node.function}' applied to '({types})'",
            )
        return misused

    def _is_namespace(self, node: Node, bound: frozenset[str]) -> bool:
        return (
            isinstance(node, nodes.Ident)
            and node.name in self._namespaces
            and (node.rooted or node.name not in bound)
        )

    def _type(self, node: Node, bound: frozenset[str]) -> Type:
        if isinstance(node, nodes.Ident) and self._is_namespace(node, bound):
            return Type(self._namespaces[node.name])
        return node.type

    def _mistake(self, span: Span, message: str) -> None:
        self._found.mistakes.append(Mistake(span, message))


def _nests(kind: Type) -> bool:
    """Tell whether ``flatten`` of cel-go, which without a depth asks for lists in a list, takes the type."""
    return kind.name != "list" or not kind.parameters or kind.parameters[0].name in {"list", "dyn"}


def _is_rooted(node: Node) -> bool:
    while isinstance(node, nodes.Select):
        node = node.operand
    return isinstance(node, nodes.Ident) and node.rooted


def _path(node: Node) -> tuple[str, ...]:
    """``R.attr.region`` as names; empty when *node* is something else than selections from a variable."""
    names: list[str] = []
    while isinstance(node, nodes.Select):
        names.append(node.field)
        node = node.operand
    return (node.name, *reversed(names)) if isinstance(node, nodes.Ident) else ()


NOTHING: frozenset[str] = frozenset()


def children(node: Node) -> Iterator[tuple[Node, frozenset[str]]]:
    """Return the nodes directly inside of *node*, each with the variables that *node* binds for it."""
    match node:
        case nodes.Select(operand=operand):
            yield operand, NOTHING
        case nodes.Call(arguments=parts) | nodes.ListLiteral(elements=parts):
            yield from ((part, NOTHING) for part in parts)
        case nodes.MapLiteral(entries=entries) | nodes.MessageLiteral(entries=entries):
            yield from ((part, NOTHING) for entry in entries for part in (entry.key, entry.value))
        case nodes.Comprehension():
            yield from _children_of_loop(node)


def _children_of_loop(node: nodes.Comprehension) -> Iterator[tuple[Node, frozenset[str]]]:
    accumulator = frozenset({node.accumulator})
    elements = accumulator | {node.variable, node.second_variable}
    yield node.range, NOTHING
    yield node.start, NOTHING
    yield node.condition, elements
    yield node.step, elements
    yield node.result, accumulator
