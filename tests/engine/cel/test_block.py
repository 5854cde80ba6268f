"""``cel.block``: off unless asked for, the same as bindings, and mistakes stay where they were written."""

from __future__ import annotations

import re
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.cel import CompileError, Environment, EvaluationError
from engine.cel.block import Rewritten
from engine.cel.source import Source
from tests.engine.cel.expressions import VARIABLES, activations, expressions

ENVIRONMENT = Environment({"x": "dyn"}, blocks=True)
EVERYTHING = Environment(VARIABLES, blocks=True)


def evaluate(text: str, **values: Any) -> Any:
    return ENVIRONMENT.compile(text).function(SimpleNamespace(**values))


def mistakes(text: str, environment: Environment = ENVIRONMENT) -> list[str]:
    with pytest.raises(CompileError) as caught:
        environment.compile(text)
    return [str(issue) for issue in caught.value.issues]


def outcome(text: str, values: dict[str, Any]) -> object:
    """Return what an expression gives: its value or what it fails with, or its mistakes without places."""
    try:
        return repr(EVERYTHING.compile(text).function(SimpleNamespace(**values)))
    except EvaluationError as error:
        return type(error), str(error)
    except CompileError as error:
        return sorted(issue.message for issue in error.issues)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("cel.block([1], 2)", 2),
        ("cel.block([1, cel.index(0) + 1], cel.index(1) * 10)", 20),
        ("cel.block([{'a': [1, 2]}, size([1, 2])], cel.index(0).a[0] + cel.index(1))", 3),
        ("cel.block([optional.of(1)], [?cel.index(0), 2])", [1, 2]),
        ("cel.block([1], cel.index(0)) + cel.block([2], cel.index(0))", 3),
        ("cel.block([cel.block([1, 2], cel.index(1))], cel.index(0))", 2),
        ("cel.block([[1]], cel.index(0).map(cel.iterVar(0, 0), cel.iterVar(0, 0) + 1))", [2]),
        ("[1].map(cel.iterVar(0, 0), [2].map(cel.iterVar(1, 0), cel.iterVar(0, 0)))", [[1]]),
        ("cel.bind(cel.accuVar(0, 0), 1, cel.accuVar(0,0) + 1)", 2),
        ("cel . block ( [ 1 ] // of one value\n, cel\n.index( 0 ))", 1),
    ],
)
def test_values_are_used_by_number(text: str, value: object) -> None:
    """An index is the value of that number in the list, and a variable's name that of the macro around it."""
    assert evaluate(text) == value


@pytest.mark.parametrize(
    "text", ["cel.block([1], cel.index(0))", "cel.index(0)", "[1].map(cel.iterVar(0, 0), 1)"]
)
def test_an_environment_has_to_ask_for_blocks(text: str) -> None:
    """Where nobody asked for blocks, as for policies, none of their forms is known."""
    assert mistakes(text, Environment({}))


def test_a_failure_counts_only_where_the_value_is_used() -> None:
    """A value that cannot be computed does not matter until it is used."""
    text = "cel.block([1 / x, cel.index(0) > 1], x == 0 || cel.index(1))"
    assert evaluate(text, x=0) is True
    assert evaluate(text, x=1) is False
    with pytest.raises(EvaluationError, match="division by zero"):
        evaluate("cel.block([1 / x, cel.index(0) > 1], cel.index(1))", x=0)


def test_strings_and_comments_are_left_alone() -> None:
    """What looks like a form of a block, or like a bracket of one, inside of a string is text."""
    text = 'cel.block(["cel.index(0), x)]" + \'[\'], cel.index(0) + "cel.iterVar(0, 0)") // cel.block([)'
    assert evaluate(text) == "cel.index(0), x)][cel.iterVar(0, 0)"


@pytest.mark.parametrize(
    "text",
    [
        "cel.block([1])",
        "cel.block([1), 2]",
        "cel.block([1, 2)",
        "cel.block([1] + [2], 3)",
        "cel.block([1], 2, 3)",
        "cel.block([], 1)",
        "cel.block([?optional.of(1)], 1)",
        "cel.block(x, 1)",
        "cel.index(-1)",
        "cel.index(x)",
        "cel.iterVar(0)",
        "x.cel.block([1], 2)",
        "excel.block([1], 2)",
    ],
)
def test_a_malformed_block_is_no_expression(text: str) -> None:
    """Rewriting makes nothing valid that is not a block: its list is written out, its result follows."""
    assert mistakes(text)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("cel.block([1, y], z)", ["1:15: undeclared reference to 'y' (in container '')"]),
        ("cel.block([1,\n 'é', y], true)", ["2:7: undeclared reference to 'y' (in container '')"]),
        ("cel.block([1, 2], cel.index(0) + y)", ["1:34: undeclared reference to 'y' (in container '')"]),
        ("cel.block([1], cel.index(1))", ["1:16: undeclared reference to 'cel_index_1' (in container '')"]),
        ("cel.block([cel.index(0)], 1)", ["1:12: undeclared reference to 'cel_index_0' (in container '')"]),
        ("cel.block([duration('x')], 1)", ["1:21: invalid duration argument"]),
    ],
)
def test_mistakes_are_placed_in_the_text_as_it_was_written(text: str, expected: list[str]) -> None:
    """A mistake is told with its line and column in the text before rewriting."""
    assert mistakes(text)[: len(expected)] == expected


def test_the_failing_part_is_underlined_in_the_text_as_it_was_written() -> None:
    """A failure at run time is placed in the text before rewriting."""
    expression = ENVIRONMENT.compile("cel.block(['é', {'a': 1},\n  cel.index(1).b], cel.index(2))")
    with pytest.raises(EvaluationError) as caught:
        expression.function(SimpleNamespace())
    place = expression.locate(caught.value)
    assert (place.line, place.column) == (2, 3)
    assert place.excerpt == f"  cel.index(1).b], cel.index(2))\n  {'^' * len('cel.index(1).b')}"


def test_a_block_of_very_many_values_is_refused() -> None:
    """As many values as the parser's limit of nesting allows, more are refused in words."""
    many = ", ".join(map(str, range(1_000)))
    assert mistakes(f"cel.block([{many}], cel.index(999))") == [
        "1:1: expression is nested too deeply: at most 32 levels"
    ]


@given(expressions("dyn"), expressions("bool", bound=("first",)), activations)
def test_a_block_means_what_bindings_mean(value: str, result: str, values: dict[str, Any]) -> None:
    """A block of any value and any result has the outcome that ``cel.bind`` has."""
    by_number = re.sub(r"\bfirst\b", "cel.index(0)", result)
    bound = outcome(f"cel.bind(first, {value}, {result})", values)
    assert outcome(f"cel.block([{value}], {by_number})", values) == bound


@given(st.text("cel.()[]{}, \n'\"/\\1é"), st.data())
def test_a_text_without_a_block_stays_as_it_is(text: str, data: st.DataObject) -> None:
    """Rewriting changes nothing but blocks: neither the text nor the places in it."""
    start, end = sorted(data.draw(st.tuples(st.integers(0, len(text)), st.integers(0, len(text)))))
    rewritten = Rewritten(text)
    assert rewritten.text == text
    assert rewritten.span(start, end) == Source(text).span(start, end)
