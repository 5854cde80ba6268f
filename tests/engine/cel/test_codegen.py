"""What the generated Python looks like, and that it is right where Python and CEL differ."""

from __future__ import annotations

import ast
import re
import warnings
from types import SimpleNamespace
from typing import Any

import pytest

from engine.cel import Environment, EvaluationError, Expression
from engine.cel.environment import GLOBALS
from engine.cel.library import FUNCTIONS
from engine.cel.macros import ACCUMULATOR, recognise
from engine.cel.nodes import BOOL, INT, Call, Comprehension, Const, Ident, ListLiteral, Node, Span, Type
from tests.engine.cel.policies import activation, environment

ENVIRONMENT = environment()
ANYTHING = Environment(dict.fromkeys("abcdxyz", "dyn"))


def code(expression: Expression) -> str:
    """Return the generated code, without the parts that all functions have."""
    lines = expression.dump().split("\n")
    return re.sub(r"_\d+\b", "", "\n".join(line.strip() for line in lines[2:-2]))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("P.attr.region == 'EMEA'", "return activation.P.attr['region'] == 'EMEA'"),
        ("P.id == request.principal.id", "return activation.P.id == activation.request.principal.id"),
        ("'manager' in P.roles", "return 'manager' in activation.P.roles"),
        ("has(P.attr.region)", "return 'region' in activation.P.attr"),
        ("V.limit == 'a'", "return activation.V['limit'] == 'a'"),
        ("headers.host.startsWith('a')", "return activation.headers['host'].startswith('a')"),
        ("P.attr.ok == true", "return activation.P.attr['ok'] is True"),
        ("P.attr.none != null", "return activation.P.attr['none'] is not None"),
        ("P.attr.level == 3", "return activation.P.attr['level'] == 3"),
        ("P.attr.kind in ['a', 'b']", "return activation.P.attr['kind'] in ('a', 'b')"),
        (
            "size(P.roles) > 1 && has(P.attr.a)",
            "return len(activation.P.roles) > 1 and 'a' in activation.P.attr",
        ),
        ("P.id != '' ? P.id : 'none'", "return activation.P.id if activation.P.id != '' else 'none'"),
        (
            "timestamp('2024-01-01T00:00:00Z') > now()",
            "return constant.nanoseconds > activation.now.nanoseconds",
        ),
        (
            "P.attr.level < 5",
            "return held < 5 if (held := activation.P.attr['level']).__class__ is float else less(held, 5)",
        ),
        (
            "P.roles.exists(r, r == 'a')",
            "found = False\nfor r in activation.P.roles:\nif r == 'a':\nfound = True\nbreak\nreturn found",
        ),
        ("{'a': x, 'b': 1}", "return {'a': activation.x, 'b': 1}"),
    ],
)
def test_typical_conditions_are_plain_python(text: str, expected: str) -> None:
    """What the checker's types settle is not asked again at run time."""
    assert code(ENVIRONMENT.compile(text)) == expected


def test_dump_is_the_code_that_runs() -> None:
    """The dump is Python, and evaluates as the expression does."""
    expression = ENVIRONMENT.compile("P.attr.region == 'EMEA' && P.roles.exists(r, r == 'manager')")
    names = dict(GLOBALS)
    exec(expression.dump(), names)  # noqa: S102 - that is the test
    assert names["expression"](activation(), None) is expression.function(activation()) is True


@pytest.mark.parametrize(
    "text",
    [
        "1 == 2",
        "dyn(null) == 1",
        "dyn(1) == null",
        "true == dyn('a')",
        "[1] == dyn(null)",
        "{'a': 1} == dyn(true)",
        "dyn(null).a",
        "dyn('a')['b']",
        "dyn([1])['b']",
        "{'a': 1}['b']",
        "{'a': 1}.b",
        "[1][0]",
        "'a'.startsWith('b')",
        "dyn(null)['a']",
        "has(dyn('a').b)",
        "'a' in dyn('b')",
        "-9223372036854775807 - 1 < 0",
        "dyn(1)[0]",
        "(1 == 2) == dyn(null) ? 1 : 2",
        "dyn(true)['a']",
        "!true && !(1 == 1)",
    ],
)
def test_no_expression_makes_python_warn(text: str) -> None:
    """Generated code is free of what Python takes for mistakes, such as ``is`` beside a literal."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert ANYTHING.compile(text)


def test_every_function_that_code_can_name_exists() -> None:
    """The names of the library's functions are different Python names, and all of them can be called."""
    names = {f"cel_{re.sub('[^A-Za-z0-9]', '_', name)}" for name in FUNCTIONS}
    assert len(names) == len(FUNCTIONS)
    assert all(callable(GLOBALS[name]) for name in names)


def test_generated_code_reaches_nothing_else() -> None:
    """Generated code has no builtins but the few that it needs."""
    function: Any = ENVIRONMENT.compile("x == 1").function
    assert function.__globals__ is GLOBALS
    assert GLOBALS["__builtins__"] == {}


def alternating(levels: int) -> str:
    """Nest ``&&`` and ``||`` in each other, each operand such that it can fail."""
    text = "a.x == 0"
    for level in range(levels):
        text = f"({text}) {'&&' if level % 2 else '||'} b.x{level} == {level}"
    return text


def nested(levels: int, macro: str) -> str:
    text = "true"
    for level in range(levels):
        text = f"a.{macro}(v{level}, {text})"
    return text


@pytest.mark.parametrize("levels", [1, 8, 13, 20, 28])
def test_operands_nest_deeper_than_pythons_blocks(levels: int) -> None:
    """Python allows twenty blocks in each other; operands nested deeper than that still absorb failures."""
    expression = ANYTHING.compile(alternating(levels))
    values = SimpleNamespace(a={}, b={f"x{levels - 1}": float(levels - 1)})
    if levels % 2:
        assert expression.function(values) is True
    else:
        with pytest.raises(EvaluationError, match="no such key: x"):
            expression.function(values)
        assert expression.function(SimpleNamespace(a={}, b={f"x{levels - 1}": -1.0})) is False


@pytest.mark.parametrize(("macro", "value"), [("exists", True), ("all", True), ("exists_one", True)])
def test_macros_nest_deeper_than_pythons_blocks(macro: str, value: object) -> None:
    """Macros inside of macros work at any depth that the parser allows."""
    assert ANYTHING.compile(nested(10, macro)).function(SimpleNamespace(a=[1.0])) is value


def test_variables_of_nested_macros_are_told_apart() -> None:
    """An inner variable hides an outer one of the same name, and only inside."""
    text = "[1, 2].map(x, [x].map(x, x * 10)[0] + x)"
    assert ANYTHING.compile(text).function(SimpleNamespace()) == [11, 22]
    assert ANYTHING.compile("[1, 2].exists(x, x == 2) && x == 5").function(SimpleNamespace(x=5)) is True


def test_failures_are_reported_in_the_order_of_the_text() -> None:
    """Of two operands that fail, the first is reported, although the second needs statements before."""
    values = SimpleNamespace(a={}, b=[1.0])
    for text in (
        "a.first + size(b.map(v, a.second))",
        "[a.first, b.map(v, a.second)]",
        "a.first in b.filter(v, a.second)",
        "b.map(v, v)[a.first] == 1",
        "{a.first: 1, 'k': b.exists(v, a.second)}",
        "string(a.first).charAt(size(b.filter(v, a.second)))",
    ):
        with pytest.raises(EvaluationError, match="no such key: first"):
            ANYTHING.compile(text).function(values)


def test_a_branch_that_is_not_taken_is_not_evaluated() -> None:
    """Statements of a branch run only if the branch is taken."""
    values = SimpleNamespace(a={}, b=[1.0], c=True)
    assert ANYTHING.compile("c ? 1 : size(b.map(v, a.none))").function(values) == 1
    assert ANYTHING.compile("!c ? size(b.map(v, a.none)) : 2").function(values) == 2
    assert ANYTHING.compile("optional.of(1).orValue(size(b.map(v, a.none)))").function(values) == 1
    assert ANYTHING.compile("c || b.all(v, a.none)").function(values) is True


def test_a_failure_in_one_round_of_a_loop_is_not_that_of_the_next() -> None:
    """What failed for one element of an outer loop does not count for the next."""
    text = "b.map(v, a.exists(w, w.x == v))"
    values = SimpleNamespace(b=[1.0, 2.0], a=[{}, {"x": 1.0}, {"x": 2.0}])
    assert ANYTHING.compile(text).function(values) == [True, True]
    text = "b.map(v, (v == 1.0 ? a.none == 1 : false) || v > 0.0)"
    assert ANYTHING.compile(text).function(SimpleNamespace(a={}, b=[1.0, 2.0])) == [True, True]


SPAN = Span(1, 0, 1, 1)


def fold(*, condition: Node, step: Node, result: Node) -> Comprehension:
    """Make a loop over ``[1, 2, 3]`` that counts from 10, in a form that no macro has."""
    elements = tuple(Const(SPAN, INT, number) for number in (1, 2, 3))
    numbers = ListLiteral(SPAN, Type("list", (INT,)), elements)
    start = Const(SPAN, INT, 10)
    return Comprehension(SPAN, INT, "i", "", numbers, ACCUMULATOR, start, condition, step, result)


def total() -> Ident:
    return Ident(SPAN, INT, ACCUMULATOR)


def test_a_loop_that_is_no_macro_is_a_fold() -> None:
    """A loop of an unknown form runs step by step while its condition holds, and ends in its result."""
    less = Call(SPAN, BOOL, "_<_", (total(), Const(SPAN, INT, 13)))
    strict = Call(SPAN, BOOL, "@not_strictly_false", (less,))
    step = Call(SPAN, INT, "_+_", (total(), Ident(SPAN, INT, "i")))
    loop = fold(condition=strict, step=step, result=Call(SPAN, INT, "_*_", (total(), Const(SPAN, INT, 2))))
    assert recognise(loop) is None
    generated = ENVIRONMENT._generated("x", loop)
    names = dict(GLOBALS)
    module = compile(ast.Module([generated.definition], []), "<fold>", "exec")
    exec(module, names)  # noqa: S102 - that is the test
    assert names["expression"](None, None) == 26


def test_loops_that_only_look_like_macros_are_none() -> None:
    """A loop is a macro only if its start, condition, step and result all are those of the macro."""
    true, one = Const(SPAN, BOOL, value=True), Const(SPAN, INT, 1)
    counting = Call(SPAN, INT, "_?_:_", (true, Call(SPAN, INT, "_+_", (total(), one)), total()))
    assert recognise(fold(condition=true, step=counting, result=total())) is None
    assert (
        recognise(fold(condition=true, step=Call(SPAN, BOOL, "_||_", (total(), true)), result=total()))
        is None
    )
