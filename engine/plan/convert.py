"""A residual tree becomes an operand of the filter (Cerbos, ``planner/ast.go``, ``planner/lambda.go``)."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from engine.cel import TypeValue, macros
from engine.cel.nodes import (
    DYN,
    Call,
    Comprehension,
    Const,
    Ident,
    ListLiteral,
    MapLiteral,
    MessageLiteral,
    Node,
    Select,
)
from engine.plan import tree
from engine.plan.filter import LONG_NAMES, TRUE, Expression, Operand, Value, Variable, value_text
from engine.plan.model import PlanError
from engine.plan.tree import DEFINED, IN

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence


OPERATORS: Mapping[str, str] = {
    "!_": "not",
    "@in": "in",
    "_!=_": "ne",
    "_%_": "mod",
    "_&&_": "and",
    "_*_": "mult",
    "_+_": "add",
    "_-_": "sub",
    "_/_": "div",
    "_<=_": "le",
    "_<_": "lt",
    "_==_": "eq",
    "_>=_": "ge",
    "_>_": "gt",
    "_?_:_": "if",
    "_[_]": "index",
    "_||_": "or",
}
"""The operator of a filter for each operator of CEL; any other function keeps its name."""

OPTIONAL_FUNCTIONS = frozenset(
    (
        "_?._",
        "_[?_]",
        "first",
        "hasValue",
        "last",
        "optFlatMap",
        "optMap",
        "optional.none",
        "optional.of",
        "optional.ofNonZeroValue",
        "optional.unwrap",
        "or",
        "orValue",
        "regex.extract",
        "unwrapOpt",
        "value",
    )
)
"""Functions that take or make optional values, which a filter has no word for."""

NO_OPTIONALS = "optional values are not supported in query plans"


class Converter:
    """Converts trees; with *presence* the filter asks whether an attribute is there (``has``).

    Without it ``has`` is taken for true, as in Cerbos: a column is always there.
    """

    def __init__(self, *, presence: bool = False) -> None:
        self._presence = presence

    def operand(self, node: Node) -> Operand:
        """Return the operand that *node* is.

        Raises:
            PlanError: the tree has something that no filter can say.

        """
        convert: Callable[[Converter, Any], Operand] = NODES[type(node)]
        return convert(self, node)

    def const(self, node: Const) -> Operand:
        """Convert a literal."""
        if isinstance(node.value, TypeValue):
            return Variable(node.value.name)
        if isinstance(node.value, float) and not math.isfinite(node.value):
            raise PlanError("JSON has no infinite numbers, and none that is not a number")
        return Value(node.value)

    def ident(self, node: Ident) -> Operand:
        """Convert a name."""
        return Variable(node.name)

    def select(self, node: Select) -> Operand:
        """Convert a selection: of a variable it is a longer name."""
        if node.test_only:
            return self._presence_of(node)
        operand = self.operand(node.operand)
        if isinstance(operand, Variable) and not isinstance(node.operand, Const) and "." not in node.field:
            return Variable(f"{operand.name}.{node.field}")
        return Expression("get-field", (operand, Variable(node.field)))

    def _presence_of(self, node: Select) -> Operand:
        if not self._presence:
            return TRUE
        operand = self.operand(node.operand)
        if isinstance(operand, Variable):
            return Expression("has", (Variable(f"{operand.name}.{node.field}"),))
        return Expression("has", (Expression("get-field", (operand, Variable(node.field))),))

    def _variable_defined(self) -> Operand:
        if self._presence:
            raise PlanError("whether a variable is there cannot be asked of what depends on the resource")
        return TRUE

    def call(self, node: Call) -> Operand:
        """Convert a call; the target of a member is the first operand."""
        if node.function == DEFINED:
            return self._variable_defined()
        if node.function in OPTIONAL_FUNCTIONS:
            raise PlanError(f"{NO_OPTIONALS}: {node.function}")
        arguments = node.arguments
        if node.function == IN and isinstance(arguments[1], MapLiteral):
            arguments = (arguments[0], _keys(arguments[1]))
        name = OPERATORS.get(node.function, node.function)
        return Expression(name, tuple(map(self.operand, arguments)))

    def list_literal(self, node: ListLiteral) -> Operand:
        """Convert ``[a, b]``: a value if all of it is known."""
        if node.optional:
            raise PlanError(f"{NO_OPTIONALS}: optional list element")
        operands = tuple(map(self.operand, node.elements))
        simple = all(isinstance(element, Const) for element in node.elements)
        values = [operand.value for operand in operands if isinstance(operand, Value)]
        return Value(values) if simple and len(values) == len(operands) else Expression("list", operands)

    def map_literal(self, node: MapLiteral | MessageLiteral) -> Operand:
        """Convert ``{a: b}``."""
        if any(entry.optional for entry in node.entries):
            raise PlanError(f"{NO_OPTIONALS}: optional map entry")
        pairs = ((self.operand(entry.key), self.operand(entry.value)) for entry in node.entries)
        return Expression("struct", tuple(Expression("set-field", pair) for pair in pairs))

    def comprehension(self, loop: Comprehension) -> Operand:
        """Convert a macro: the range, and a lambda of what is asked of each element."""
        lambda_ = _lambda(_selected(loop) if _is_selecting(loop) else loop)
        hidden = RESERVED.intersection(lambda_.variables)
        if hidden:
            raise PlanError(f"the variable `{min(hidden)}` of a loop hides the one of that name")
        over = lambda_.over
        if isinstance(over, MapLiteral) and lambda_.operator not in OVER_MAPS:
            over = _keys(over)
        names = [Variable(name) for name in lambda_.variables if name]
        bodies = map(self.operand, lambda_.bodies)
        return Expression(lambda_.operator, (self.operand(over), Expression("lambda", (*bodies, *names))))


RESERVED = frozenset(("request", "runtime", *LONG_NAMES, *LONG_NAMES.values()))
"""Names that mean something else in a filter than the variable of a loop."""


class _Lambda:
    """A macro as a filter has it."""

    __slots__ = ("bodies", "operator", "over", "variables")

    def __init__(self, operator: str, over: Node, bodies: Sequence[Node], variables: Sequence[str]) -> None:
        self.operator = operator
        self.over = over
        self.bodies = bodies
        self.variables = variables


OVER_MAPS = frozenset({"transformMap", "transformMapEntry", "transformList"})
SORTED = "@sortByAssociatedKeys"


def _lambda(loop: Comprehension) -> _Lambda:
    variables = loop.variable, loop.second_variable
    match macro := macros.recognise(loop):
        case macros.Quantifier():
            name = "exists" if macro.stops_at else "all"
            return _Lambda(name, loop.range, (macro.predicate,), variables)
        case macros.Count():
            return _Lambda("exists_one", loop.range, (macro.predicate,), variables)
        case macros.Collect():
            name, bodies = _collected(loop, macro)
            return _Lambda(name, loop.range, bodies, variables)
        case macros.Insert():
            name = "transformMap" if len(macro.items) == 2 else "transformMapEntry"
            predicate = () if macro.predicate is None else (macro.predicate,)
            return _Lambda(name, loop.range, (*predicate, macro.items[-1]), variables)
        case macros.Bind():
            found = _sorting(macro)
            if found is not None:
                return found
    raise PlanError("a loop that is no macro cannot be planned")


def _collected(loop: Comprehension, macro: macros.Collect) -> tuple[str, tuple[Node, ...]]:
    """Return the operator and the bodies of ``map``, ``filter`` and ``transformList``."""
    if macro.predicate is None:
        return "transformList" if loop.second_variable else "map", (macro.item,)
    if not loop.second_variable and _is_element(loop, macro.item):
        return "filter", (macro.predicate,)
    return "transformList", (macro.predicate, macro.item)


def _is_selecting(loop: Comprehension) -> bool:
    """Tell whether a loop is ``map`` with a condition for which Cerbos has ``filter``, losing what is mapped.

    What is mapped is no call then.
    """
    macro = macros.recognise(loop)
    return (
        isinstance(macro, macros.Collect)
        and macro.predicate is not None
        and not loop.second_variable
        and not isinstance(macro.item, Call)
        and not _is_element(loop, macro.item)
    )


def _selected(loop: Comprehension) -> Comprehension:
    """Return ``map`` over ``filter`` for ``map`` with a condition."""
    macro = macros.recognise(loop)
    assert isinstance(macro, macros.Collect)  # noqa: S101 - see _is_selecting
    element = Ident(loop.span, DYN, loop.variable)
    passing = replace(loop, step=_adding(loop, element, macro.predicate))
    return replace(loop, range=passing, step=_adding(loop, macro.item, None))


def _adding(loop: Comprehension, item: Node, predicate: Node | None) -> Node:
    so_far = Ident(loop.span, DYN, loop.accumulator)
    added = tree.call("_+_", so_far, ListLiteral(loop.span, DYN, (item,)))
    return added if predicate is None else tree.call(tree.CONDITIONAL, predicate, added, so_far)


def _is_element(loop: Comprehension, item: Node) -> bool:
    return isinstance(item, Ident) and item.name == loop.variable


def _sorting(macro: macros.Bind) -> _Lambda | None:
    """Return ``sortBy``, which the parser expands to a binding and a function over keys."""
    match macro.body:
        case Call(function=function, arguments=(*_, Comprehension() as loop)) if function == SORTED:
            keys = macros.recognise(loop)
            if isinstance(keys, macros.Collect):
                return _Lambda("sortBy", macro.value, (keys.item,), (loop.variable,))
    return None


def _keys(node: MapLiteral) -> ListLiteral:
    """Return the keys of a map, in order, so that the filter is the same each time."""
    keys = sorted((entry.key for entry in node.entries), key=_key_order)
    return ListLiteral(node.span, node.type, tuple(keys))


def _key_order(key: Node) -> tuple[str, str]:
    if not isinstance(key, Const):
        return ("", repr(key))
    return (type(key.value).__name__, value_text(key.value))


NODES: Mapping[type[Node], Callable[[Converter, Any], Operand]] = {
    Call: Converter.call,
    Comprehension: Converter.comprehension,
    Const: Converter.const,
    Ident: Converter.ident,
    ListLiteral: Converter.list_literal,
    MapLiteral: Converter.map_literal,
    MessageLiteral: Converter.map_literal,
    Select: Converter.select,
}
