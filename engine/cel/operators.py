"""Operators and functions that become Python of their own, rather than a call.

Where the types of the operands are known, Python's operator is CEL's. Where one is ``dyn``, the Python class
that it has most often is tried inline, and :mod:`engine.cel.runtime` does the rest. Python differs from CEL
in that ``True == 1``, in that it compares ints and doubles exactly, and in that ``in`` takes an object to be
equal to itself (NaN is not).
"""

from __future__ import annotations

import ast
import itertools
from typing import TYPE_CHECKING

from engine.cel import nodes
from engine.cel.generator import Generator, Part, are_total, is_single, subscript
from engine.cel.library import regex
from engine.cel.nodes import (
    BOOL,
    BYTES,
    DOUBLE,
    DURATION,
    DYN,
    INT,
    NULL,
    STRING,
    TIMESTAMP,
    UINT,
    Node,
    Type,
)
from engine.cel.syntax import Syntax
from engine.cel.values import INT_MAX, INT_MIN, Duration, Timestamp, UInt

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

NUMBERS = frozenset({INT, UINT, DOUBLE})

PLAIN = frozenset({STRING, BYTES, TIMESTAMP, DURATION})
"""Types whose values Python compares with anything as CEL does."""

SINGLE_TIME: Sequence[set[Type]] = ({TIMESTAMP}, {DURATION})
SINGLE_ORDERED: Sequence[set[Type]] = ({STRING}, {BYTES}, {BOOL})

TRIED_CLASS = {STRING: "str", INT: "float", UINT: "float", DOUBLE: "float"}
"""The class that a ``dyn`` operand most often has beside one of a type: numbers of requests are doubles."""

EXACT_INTEGERS = 2**53
"""Up to here every integer is a double."""

MAX_REPEATED = 12
"""Size in nodes up to which a piece of code is written twice rather than evaluated by the runtime."""

MAX_TUPLE = 16
"""Constants that are compared one by one; more are looked up in a set."""

# --- equality and order -------------------------------------------------------------------------------------


def equality(generator: Generator, node: nodes.Call) -> Part:
    """Generate ``==`` and ``!=``."""
    at = Syntax(node.span)
    left, right = generator.values(node.arguments)
    operator, identity, function = EQUALITY[node.function]
    types, total = {left.type, right.type}, left.total and right.total
    if types in SINGLE_TIME:
        return Part(at.compare(_moment(at, left), operator(), _moment(at, right)), BOOL, total)
    if types & {NULL, BOOL} and is_single(left.tree) and is_single(right.tree):
        return Part(
            at.compare(left.tree, identity(), right.tree), BOOL, total
        )  # there is one object for each value
    if types & PLAIN or _compare_exactly(types) or any(map(_is_harmless_number, node.arguments)):
        return Part(at.compare(left.tree, operator(), right.tree), BOOL, total)
    if types & NUMBERS and not any(map(_is_exact, node.arguments)):
        return Part(at.call(function, left.tree, right.tree), BOOL)
    python_class = "float" if types & NUMBERS else "str"
    return _tried(generator, at, (left, right), Attempt(operator(), python_class, function))


def order(generator: Generator, node: nodes.Call) -> Part:
    """Generate ``<``, ``<=``, ``>``, ``>=``."""
    at = Syntax(node.span)
    left, right = generator.values(node.arguments)
    operator, function = ORDER[node.function]
    types, total = {left.type, right.type}, left.total and right.total
    if types in SINGLE_TIME:
        return Part(at.compare(_moment(at, left), operator(), _moment(at, right)), BOOL, total)
    if _compare_exactly(types) or types in SINGLE_ORDERED:
        return Part(at.compare(left.tree, operator(), right.tree), BOOL, total)
    python_class = TRIED_CLASS.get(next(iter(types - {DYN}), DYN))
    if python_class is None or (python_class == "float" and not any(map(_is_exact, node.arguments))):
        return Part(at.call(function, left.tree, right.tree), BOOL)
    return _tried(generator, at, (left, right), Attempt(operator(), python_class, function))


class Attempt:
    """A comparison with *operator* where an operand has *python_class*, else a call of *function*."""

    __slots__ = ("function", "operator", "python_class")

    def __init__(self, operator: ast.cmpop, python_class: str, function: str) -> None:
        self.operator = operator
        self.python_class = python_class
        self.function = function


def _tried(generator: Generator, at: Syntax, operands: tuple[Part, Part], attempt: Attempt) -> Part:
    """Compare inline when the operand that is ``dyn`` has the class it has most often."""
    left, right = operands
    dynamic, other = (left, right) if left.type == DYN else (right, left)
    in_order = dynamic is left or other.total  # the check evaluates the dynamic one first
    if dynamic.type != DYN or not in_order or not _is_small(other.tree):
        return Part(at.call(attempt.function, left.tree, right.tree), BOOL)
    held = generator.fresh("held")
    check = at.is_a(at.named(held, dynamic.tree), attempt.python_class)
    first, second = (at.name(held), other.tree) if dynamic is left else (other.tree, at.name(held))
    compared = at.compare(first, attempt.operator, second)
    return Part(at.choose(check, compared, at.call(attempt.function, first, second)), BOOL)


def _moment(at: Syntax, part: Part) -> ast.expr:
    return at.attribute(part.tree, "nanoseconds")


def _is_small(tree: ast.expr) -> bool:
    return sum(1 for _ in itertools.islice(ast.walk(tree), MAX_REPEATED + 1)) <= MAX_REPEATED


def _compare_exactly(types: set[Type]) -> bool:
    """Tell whether Python compares numbers as CEL does, which makes an int beside a double a double."""
    return types <= NUMBERS and (len(types) == 1 or DOUBLE not in types)


def _is_exact(node: Node) -> bool:
    """Tell whether Python compares *node* with a double as CEL does."""
    if isinstance(node, nodes.Const) and isinstance(node.value, int):
        return abs(node.value) <= EXACT_INTEGERS
    return node.type == DOUBLE


def _is_harmless_number(node: Node) -> bool:
    """Tell whether *node* is a number that no bool equals in Python, as 0 and 1 do."""
    value = node.value if isinstance(node, nodes.Const) and node.type in NUMBERS else None
    return isinstance(value, (int, float)) and value not in {0, 1} and abs(value) <= EXACT_INTEGERS


# --- membership ---------------------------------------------------------------------------------------------


def membership(generator: Generator, node: nodes.Call) -> Part:
    """Generate ``in``."""
    at = Syntax(node.span)
    literal = _searchable(at, *node.arguments)
    if literal is not None:
        sought = generator.value(node.arguments[0])
        return Part(at.compare(sought.tree, ast.In(), literal), BOOL, sought.total)
    element, container = generator.in_order(
        [(generator.value, node.arguments[0]), (generator.searched, node.arguments[1])]
    )
    if _is_plain_search(element.type, container.type):
        total = element.total and container.total
        return Part(at.compare(element.tree, ast.In(), container.tree), BOOL, total)
    if container.type == DYN and element.type in PLAIN and element.total and _is_small(element.tree):
        return _search_list(generator, at, element, container)
    if container.type == DYN and element.type in {DYN, STRING}:
        return _search_list_for_text(generator, at, element, container)
    return Part(at.call("contains", element.tree, container.tree), BOOL)


def _search_list(generator: Generator, at: Syntax, element: Part, container: Part) -> Part:
    """Search inline when the container turns out to be a list."""
    held = generator.fresh("held")
    check = at.is_a(at.named(held, container.tree), "list")
    found = at.compare(element.tree, ast.In(), at.name(held))
    return Part(at.choose(check, found, at.call("contains", element.tree, at.name(held))), BOOL)


def _search_list_for_text(generator: Generator, at: Syntax, element: Part, container: Part) -> Part:
    """Search inline when a string is looked for in what turns out to be a list."""
    sought, held = generator.fresh("sought"), generator.fresh("held")
    # `|` evaluates both sides, so that both variables have a value.
    is_other = (
        at.is_no(at.named(sought, element.tree), "str"),
        at.is_no(at.named(held, container.tree), "list"),
    )
    found = at.compare(at.name(sought), ast.In(), at.name(held))
    searched = at.call("contains", at.name(sought), at.name(held))
    return Part(at.choose(at.binary(is_other[0], ast.BitOr(), is_other[1]), searched, found), BOOL)


def _searchable(at: Syntax, element: Node, container: Node) -> ast.expr | None:
    """Generate a list of constants as a tuple, or as a set where that is faster and elements are hashable."""
    if not isinstance(container, nodes.ListLiteral) or container.optional:
        return None
    constants = [
        at.constant(item.value)
        for item in container.elements
        if isinstance(item, nodes.Const) and _is_searchable(item)
    ]
    if len(constants) < len(container.elements):
        return None
    return at.set(constants) if element.type == STRING and len(constants) > MAX_TUPLE else at.tuple(constants)


def _is_searchable(node: nodes.Const) -> bool:
    if isinstance(node.value, UInt):
        return False
    return isinstance(node.value, str) or _is_harmless_number(node)


def _is_plain_search(element: Type, container: Type) -> bool:
    """Tell whether Python's ``in`` is CEL's."""
    if container.name == "list":
        return element in PLAIN or container.parameters[0] in PLAIN
    return container.name == "map" and element == STRING


# --- arithmetic ---------------------------------------------------------------------------------------------


def arithmetic(generator: Generator, node: nodes.Call) -> Part:
    """Generate ``+``, ``-``, ``*``, ``/``, ``%``; what ``+`` joins is copied, and so gone through."""
    at = Syntax(node.span)
    through = generator.gone_through if node.function == "_+_" else generator.value
    left, right = generator.in_order([(through, argument) for argument in node.arguments])
    operator, function = ARITHMETIC[node.function]
    if operator is not None and left.type == right.type == DOUBLE:
        return Part(at.binary(left.tree, operator(), right.tree), DOUBLE, left.total and right.total)
    if operator is not None and left.type == right.type == INT:
        return _checked_int(generator, at, at.binary(left.tree, operator(), right.tree))
    if node.function == "_+_" and left.type == right.type and left.type in {STRING, BYTES}:
        if not generator.loops and any(isinstance(argument, nodes.Const) for argument in node.arguments):
            # No text gets long by a literal that is added once, so its length need not be looked at.
            return Part(at.binary(left.tree, ast.Add(), right.tree), node.type)
        return Part(at.call("join", left.tree, right.tree), node.type)
    return Part(at.call(function, left.tree, right.tree), node.type)


def _checked_int(generator: Generator, at: Syntax, tree: ast.expr) -> Part:
    """Generate an int that has to be in its range."""
    held = generator.fresh("held")
    within = at.within(INT_MIN, at.named(held, tree), INT_MAX)
    return Part(at.choose(within, at.name(held), at.call("overflow")), INT)


def minus(generator: Generator, node: nodes.Call) -> Part:
    """Generate the ``-`` before an operand."""
    at, operand = Syntax(node.span), generator.value(node.arguments[0])
    if operand.type == DOUBLE:
        return Part(at.minus(operand.tree), DOUBLE, operand.total)
    return Part(at.call("negate", operand.tree), node.type)


def negation(generator: Generator, node: nodes.Call) -> Part:
    """Generate ``!``."""
    operand = generator.truth(node.arguments[0])
    return Part(Syntax(node.span).opposite(operand.tree), BOOL, operand.total)


# --- access -------------------------------------------------------------------------------------------------


def index(generator: Generator, node: nodes.Call) -> Part:
    """Generate ``container[key]``."""
    at = Syntax(node.span)
    container, key = generator.in_order(
        [(generator.operand, node.arguments[0]), (generator.value, node.arguments[1])]
    )
    kind, literal = container.type.name, node.arguments[1]
    if kind == "map" and key.type == STRING:
        return Part(subscript(at, container.tree, key.tree), node.type)
    if kind == "dyn" and isinstance(literal, nodes.Const) and isinstance(literal.value, str):
        return generator.selected(at, container, literal.value, node.type)
    return Part(at.call(INDEX.get(kind, "index"), container.tree, key.tree), node.type)


def optional_access(generator: Generator, node: nodes.Call) -> Part:
    """Generate ``operand.?field`` and ``container[?key]``."""
    operand, key = generator.values(node.arguments)
    function = "select_optional" if node.function == "_?._" else "index_optional"
    return Part(Syntax(node.span).call(function, operand.tree, key.tree), node.type)


def size(generator: Generator, node: nodes.Call) -> Part:
    """Generate ``size(x)`` and ``x.size()``."""
    at, operand = Syntax(node.span), generator.operand(node.arguments[0])
    if operand.type.name in SIZED:
        return Part(at.call("len", operand.tree), INT, operand.total)
    return Part(at.call("size", operand.tree), INT)


def forgotten(generator: Generator, node: nodes.Call) -> Part:
    """Generate ``dyn(x)``: the value, of which the checker has forgotten the type."""
    part = generator.value(node.arguments[0])
    return Part(part.tree, DYN, part.total)


# --- functions ----------------------------------------------------------------------------------------------


def time(generator: Generator, node: nodes.Call) -> Part:
    """Generate ``timestamp(x)`` and ``duration(x)``; a literal is read once."""
    argument = node.arguments[0]
    if not isinstance(argument, nodes.Const) or not isinstance(argument.value, str):
        return generator.library_call(node)
    value = (Timestamp if node.function == "timestamp" else Duration).parse(argument.value)
    return Part(Syntax(node.span).name(generator.constant(value)), node.type, total=True)


def now(generator: Generator, node: nodes.Call) -> Part:
    """Generate ``now()``: the time of the check."""
    return Part(generator.now(Syntax(node.span)), TIMESTAMP)


def text_test(generator: Generator, node: nodes.Call) -> Part:
    """Generate ``startsWith``, ``endsWith``, ``contains`` as what ``str`` has for them."""
    at = Syntax(node.span)
    through = generator.gone_through if node.function == "contains" else generator.value
    text, other = generator.in_order([(through, node.arguments[0]), (generator.value, node.arguments[1])])
    test, function = TEXT_TESTS[node.function], generator.vocabulary.functions[node.function]
    if text.type == other.type == STRING:
        return Part(test(at, text.tree, other.tree), BOOL, are_total((text, other)))
    if text.type != DYN or other.type != STRING or not _is_small(other.tree):
        return Part(at.call(function, text.tree, other.tree), BOOL)
    held = generator.fresh("held")
    check = at.is_a(at.named(held, text.tree), "str")
    tested = test(at, at.name(held), other.tree)
    return Part(at.choose(check, tested, at.call(function, at.name(held), other.tree)), BOOL)


def matches(generator: Generator, node: nodes.Call) -> Part:
    """Generate ``matches``; a literal pattern is compiled once."""
    at, pattern = Syntax(node.span), node.arguments[1]
    if not isinstance(pattern, nodes.Const) or not isinstance(pattern.value, str):
        return generator.library_call(node)
    text, found = generator.gone_through(node.arguments[0]), generator.constant(regex.literal(pattern.value))
    if text.type == STRING:
        return Part(at.call(found, text.tree), BOOL, text.total)
    held = generator.fresh("held")
    check = at.is_a(at.named(held, text.tree), "str")
    return Part(at.choose(check, at.call(found, at.name(held)), at.call("no_such_overload")), BOOL)


# --- tables -------------------------------------------------------------------------------------------------

EQUALITY: Mapping[str, tuple[type[ast.cmpop], type[ast.cmpop], str]] = {
    "_==_": (ast.Eq, ast.Is, "equals"),
    "_!=_": (ast.NotEq, ast.IsNot, "differs"),
}

ORDER: Mapping[str, tuple[type[ast.cmpop], str]] = {
    "_<_": (ast.Lt, "less"),
    "_<=_": (ast.LtE, "less_equals"),
    "_>_": (ast.Gt, "greater"),
    "_>=_": (ast.GtE, "greater_equals"),
}

ARITHMETIC: Mapping[str, tuple[type[ast.operator] | None, str]] = {
    "_+_": (ast.Add, "add"),
    "_-_": (ast.Sub, "subtract"),
    "_*_": (ast.Mult, "multiply"),
    "_/_": (None, "divide"),
    "_%_": (None, "modulo"),
}
"""The operator of Python that does the same to ints and doubles, and the function for all operands."""

INDEX = {"map": "index_map", "list": "index_list"}
SIZED = frozenset({"string", "bytes", "list", "map"})

TEXT_TESTS: Mapping[str, Callable[[Syntax, ast.expr, ast.expr], ast.expr]] = {
    "contains": lambda at, text, other: at.compare(other, ast.In(), text),
    "endsWith": lambda at, text, other: at.call(at.attribute(text, "endswith"), other),
    "startsWith": lambda at, text, other: at.call(at.attribute(text, "startswith"), other),
}

CALLS: Mapping[str, Callable[[Generator, nodes.Call], Part]] = {
    **dict.fromkeys(EQUALITY, equality),
    **dict.fromkeys(ORDER, order),
    **dict.fromkeys(ARITHMETIC, arithmetic),
    **dict.fromkeys(TEXT_TESTS, text_test),
    "!_": negation,
    "-_": minus,
    "@in": membership,
    "_?._": optional_access,
    "_[?_]": optional_access,
    "_[_]": index,
    "duration": time,
    "dyn": forgotten,
    "matches": matches,
    "now": now,
    "size": size,
    "timestamp": time,
}
"""CEL functions with Python of their own."""
