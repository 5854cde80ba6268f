"""cel-python as the second opinion: it agrees, or says that it has none."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import HealthCheck, assume, given, settings

from engine.cel import CompileError, Environment, EvaluationError, Timestamp, UInt
from engine.cross_check import LIMITS, same
from engine.cross_check.cel_python import (
    LOOSE,
    NotComparable,
    Program,
    SecondError,
    contained,
    from_cel_python,
    to_cel_python,
)
from tests.engine.cel.expressions import VARIABLES, activations, expressions

ENVIRONMENT = Environment(VARIABLES)


def theirs(text: str, variables: dict[str, Any]) -> Any:
    with contained():
        program = Program(text)
        try:
            return program.evaluate(variables)
        except SecondError as error:
            return EvaluationError(str(error))


@given(text=expressions("bool") | expressions("dyn"), data=activations)
@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_there_are_no_false_alarms(text: str, data: dict[str, Any]) -> None:
    """Whatever is compared, over values of every type, comes out the same."""
    try:
        expression = ENVIRONMENT.compile(text)
    except CompileError:
        assume(False)
    try:
        ours: Any = expression.function(SimpleNamespace(**data))
    except EvaluationError as error:
        ours = error
    failed = isinstance(ours, EvaluationError)
    assume(not (failed and LIMITS.search(str(ours))))
    try:
        found = theirs(text, {name: data[name] for name in expression.identifiers})
        with contained():
            loose = LOOSE.keys() & Program(text).calls
    except NotComparable:
        return
    assert same(ours, found) or (failed and loose)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1 + 2 * 3", 7),
        ("-7 / 2", -3),
        ("-7 % 2", -1),
        ("1 == 1.0 && x.a == 1", True),
        ("x.a > 0", True),
        ("[1, 'a', null] == [1.0, 'a', null]", True),
        ("'a' == 1", False),
        ("true == 1", False),
        ("x.b == null", False),
        ("'b' in x", True),
        ("1 / 0 > 1 || true", True),
        ("'a' in ['b', 1, 'a']", True),
        ("[1, 2, 3].filter(i, i > 1).map(i, i * 2)", [4, 6]),
        ("[1, 2].all(i, i > 0) ? 'yes' : 'no'", "yes"),
        ("[[1], [2]].exists(l, l.exists(i, i == 2))", True),
        ("'abc'.startsWith('ab') && 'abc'.matches('b.$') && size('é😀') == 2", True),
        ("timestamp('2024-02-29T12:30:00Z').getDayOfYear()", 59),
        ("timestamp('2024-01-01T00:00:00Z') + duration('1h') > timestamp('2024-01-01T00:59:59Z')", True),
        ("uint(7) - 2u", UInt(5)),
        (r"'a\n\u00e9\x41\101'", "a\né" + "AA"),
    ],
)
def test_what_both_know_is_compared(text: str, value: Any) -> None:
    """cel-python, with what it was taught, gives CEL's value with CEL's type."""
    assert same(value, theirs(text, {"x": {"a": 1.0, "b": []}}))


@pytest.mark.parametrize(
    "text",
    [
        "x.zzz",
        "x.a + 1",
        "[1][1]",
        "[1][-1]",
        "'abc'[0]",
        "1 / 0",
        "9223372036854775807 + 1",
        "!x.a",
        "x.a && true",
        "size(x.a)",
        "x.a.startsWith('a')",
        "1 in 'a1'",
        "true < x.a",
        "-true",
    ],
)
def test_what_fails_fails_in_both(text: str) -> None:
    """What is an error of CEL is none that cel-python would overlook."""
    assert isinstance(theirs(text, {"x": {"a": 1.0}}), EvaluationError)


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("x.?a", "does not parse"),
        ("hierarchy('a.b')", "does not know `hierarchy`"),
        ("x.all(k, v, v == 1)", "does not know `all/3`"),
        ("string(1.5)", "Python's way"),
        ("int('0x10')", "by other rules"),
        ("bool('yes')", "other words"),
        ("1.0 / 0.0", "sign"),
        (r"'\?'", "misreads"),
        ("timestamp('tomorrow')", "timestamps"),
        ("duration('1.5h')", "floating point"),
        ("{1: 2} == {1: 2}", "keys"),
        ("9007199254740993 == x.big", "2^53"),
        ("nobody", "does not know a name"),
    ],
)
def test_what_cel_python_is_wrong_about_is_not_compared(text: str, why: str) -> None:
    """Its known faults are found where an evaluation gets to them, and give the reason."""
    with pytest.raises(NotComparable, match=why.replace("^", r"\^").replace("(", r"\(")):
        theirs(text, {"x": {"a": 1.0, "big": 9007199254740992.0}})


def test_values_survive_the_way_there_and_back() -> None:
    """A value of ours is the same after it was one of cel-python's."""
    value = {"a": [None, True, 1, UInt(2), 1.5, "x", b"y", Timestamp(1_000)]}
    assert same(value, from_cel_python(to_cel_python(value)))


def test_nanoseconds_are_beyond_it() -> None:
    """cel-python's times end at microseconds."""
    with pytest.raises(NotComparable, match="nanoseconds"):
        to_cel_python(Timestamp(1))
