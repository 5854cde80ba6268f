"""Hostile texts and hostile data: everything that could grow is bounded."""

from __future__ import annotations

import time
from types import SimpleNamespace
from typing import Any

import pytest

from engine.cel import CompileError, Environment, EvaluationError, runtime
from engine.cel.frontend import MAX_LENGTH
from engine.cel.library import arguments, regex

ENVIRONMENT = Environment({"x": "dyn", "l": "list<dyn>", "s": "string"})


def fails(text: str, **values: Any) -> str:
    with pytest.raises(EvaluationError) as failure:
        ENVIRONMENT.compile(text).function(SimpleNamespace(**values))
    return str(failure.value)


def refused(text: str) -> str:
    with pytest.raises(CompileError) as refusal:
        ENVIRONMENT.compile(text)
    return str(refusal.value)


def test_a_text_has_a_greatest_length() -> None:
    """A text beyond the limit is refused before it is parsed."""
    assert refused("1" + " " * MAX_LENGTH) == f"1:1: expression is longer than {MAX_LENGTH} characters"


@pytest.mark.parametrize(
    "text",
    [
        "(" * 500 + "1" + ")" * 500,
        "[" * 500 + "]" * 500,
        "+".join(["1"] * 500),
        "x" + ".a" * 500,
        "true ? 1 : " * 500 + "1",
    ],
)
def test_nesting_has_a_greatest_depth(text: str) -> None:
    """A text that nests too deeply is refused, in words."""
    assert refused(text) == "1:1: expression is nested too deeply: at most 32 levels"


@pytest.mark.parametrize(
    "text",
    [
        f"[{','.join(['1'] * 20_000)}].size()",
        f"x in [{','.join(['7'] * 20_000)}] ? 1 : 20000",
        f"size({{{','.join(f'{number}: 0' for number in range(5_000))}}}) * 4",
        f"{'!' * 40_000}true ? 20000 : 1",
        " && ".join(["true"] * 2_000) + " ? 20000 : 1",
        f"size('{'a' * 20_000}')",
    ],
)
def test_large_texts_within_the_limits_compile(text: str) -> None:
    """What is long but flat is compiled without recursion getting in the way."""
    assert ENVIRONMENT.compile(text).function(SimpleNamespace(x=1.0)) == 20_000


def test_a_lone_surrogate_is_refused() -> None:
    """Text that is no Unicode is refused instead of breaking the parser."""
    assert refused("'\ud800'") == "1:1: expression is not valid Unicode text"


@pytest.mark.parametrize(
    "text",
    [
        "l.exists(a, l.exists(b, a + b == 1.5))",
        "l.map(a, l.map(b, a))",
        "l.all(a, !l.all(b, l.exists(c, c == b)))",
        "l.exists_one(a, l.filter(b, b == a).size() == 5)",
        "l.transformMap(i, a, l.map(b, b))",
        "cel.bind(m, l, l.map(a, m.map(b, b)))",
        "l.exists(a, false && l.exists(b, true) || l.all(c, l.exists(d, d < 0.0)))",
    ],
)
def test_macros_inside_of_macros_have_a_budget(text: str) -> None:
    """The steps of inner loops are counted: what would take minutes fails within moments."""
    begin = time.process_time()
    assert (
        fails(text, l=[float(number) for number in range(3_000)])
        == "more than 1000000 steps in nested macros"
    )
    assert time.process_time() - begin < 3


@pytest.mark.parametrize(
    "text",
    [
        "l.all(a, !(s in l) || a == 0.5)",
        "l.all(a, !(a in x) || a == 0.5)",
        "l.all(a, !s.contains(string(a) + 'b'))",
        "l.all(a, !x.contains(string(a) + 'b'))",
        "l.all(a, s.matches('[^b]$'))",
        "l.all(a, (s + 'b') != '')",
        "l.all(a, size(l + [a]) > 1)",
        "l.all(a, !hasIntersection(l, [a + 0.5]))",
        "l.all(a, s.replace('c', 'b') != '')",
        "l.map(a, l.slice(0, 1).all(b, x in l))",
    ],
)
def test_what_is_gone_through_in_a_loop_counts(text: str) -> None:
    """A search or a copy in a loop takes as many steps as it has to look at."""
    begin = time.process_time()
    numbers = [float(number) for number in range(40_000)]
    for other in (numbers, "a" * 800_000):
        try:
            ENVIRONMENT.compile(text).function(SimpleNamespace(l=numbers, s="a" * 800_000, x=other))
        except EvaluationError as error:
            failure = str(error)
    assert failure in {"more than 1000000 steps in nested macros", "no such overload"}
    assert time.process_time() - begin < 2


def test_what_belongs_to_the_element_of_a_loop_is_free() -> None:
    """The parts of all elements together are no larger than the data: to go through them is free."""
    elements = [{"name": "a" * 100, "tags": ["x"] * 100} for _ in range(20_000)]
    for text in (
        "l.all(e, 'x' in e.tags && e.name.contains('a') && e.name.matches('a$'))",
        "l.map(e, e.name + '!').size() > 1",
    ):
        assert ENVIRONMENT.compile(text).function(SimpleNamespace(l=elements)) is True


def test_the_budget_is_that_of_one_evaluation() -> None:
    """Each evaluation has the whole budget, and a single loop takes nothing from it."""
    expression = ENVIRONMENT.compile("l.all(a, l.exists(b, b == a))")
    values = SimpleNamespace(l=[float(number) for number in range(800)])
    assert [expression.function(values) for _ in range(3)] == [True] * 3
    assert ENVIRONMENT.compile("l.all(a, a >= 0.0)").function(SimpleNamespace(l=[1.0] * 1_200_000)) is True


def test_the_budget_holds_in_functions_of_deep_operands() -> None:
    """Loops that moved to a function of their own take from the same budget."""
    text = "l.exists(a, false)"
    for level in range(8):
        text = f"l.exists(v{level}, {text})"
    assert fails(text, l=[1.0] * 40) == "more than 1000000 steps in nested macros"


EXHAUSTED = "more than 1000000 steps in nested macros"


def test_what_functions_make_in_a_loop_is_counted() -> None:
    """A small request cannot have a loop build lists and texts until the memory is full."""
    assert fails("lists.range(int(x)).map(a, lists.range(1000))", x=1e6) == EXHAUSTED
    assert fails("l.map(a, s.replace('a', x))", l=[1.0] * 5_000, s="a" * 1_000, x="b" * 1_000) == EXHAUSTED
    assert fails("l.map(a, '%s'.format([s]))", l=[1.0] * 10_000, s="a" * 10_000) == EXHAUSTED


def test_patterns_of_a_request_are_counted() -> None:
    """Each pattern that a loop takes from data costs what compiling it may cost; a literal one is free."""
    patterns = [f"x{number}[a-z]+" for number in range(200)]
    for call in ("s.matches(p)", "regex.replace(s, p, '') == ''", "regex.extract(s, p).hasValue()"):
        assert fails(f"l.exists(p, {call})", l=patterns, s="y") == EXHAUSTED
    few = SimpleNamespace(l=patterns[:50], s="y")
    assert ENVIRONMENT.compile("l.exists(p, s.matches(p))").function(few) is False
    many = SimpleNamespace(l=["y"] * 10_000)
    assert ENVIRONMENT.compile("l.all(e, e.matches('^[x-z]$'))").function(many) is True


def test_a_pattern_that_is_none_is_compiled_once() -> None:
    """That a pattern is too large or wrong is remembered, as compiling it would take as long each time."""
    before = regex._outcome.cache_info().misses
    for _ in range(3):
        assert fails("s.matches(x)", s="", x="(never closed").startswith("error parsing regexp: ")
    assert regex._outcome.cache_info().misses == before + 1


@pytest.mark.parametrize("text", ["'%s'.format([l])", "json.encode(l)", "'%s'.format([{'a': l}])"])
def test_texts_are_measured_while_they_are_written(text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """What would be too long is not written first: the elements after the limit are never looked at."""
    monkeypatch.setattr(arguments, "MAX_TEXT", 1_000)
    beyond = [*["a" * 100] * 20, SimpleNamespace()]  # the last has no text: reaching it is another failure
    assert "exceeds the maximum of 1000" in fails(text, l=beyond)


def test_texts_cannot_be_doubled_without_end() -> None:
    """A text that grows with each binding reaches a limit, not the end of memory."""
    text = "b9"
    for level in range(9, 0, -1):
        text = f"cel.bind(b{level}, {'+'.join([f'b{level - 1}'] * 10)}, {text})"
    assert fails(f"cel.bind(b0, s, {text})", s="0123456789") == "a text of more than 10000000 characters"
    assert (
        fails("cel.bind(b, bytes(s), b + b)", s="a" * 6_000_000) == "a text of more than 10000000 characters"
    )
    assert fails("x + x", x="a" * 6_000_000) == "a text of more than 10000000 characters"


def test_lists_cannot_be_doubled_without_end() -> None:
    """A list that grows with each binding reaches a limit."""
    assert fails("l + l", l=[1.0] * 600_000) == "a list of more than 1000000 elements"


def deep(levels: int) -> list[Any]:
    value: list[Any] = []
    for _ in range(levels):
        value = [value]
    return value


@pytest.mark.parametrize("text", ["x == l", "x in [l]", "x != l", "[x] == [l]", "{'a': x} == {'a': l}"])
def test_deep_values_end_in_a_failure(text: str) -> None:
    """Comparing values that nest deeper than Python's stack fails as any expression can."""
    assert fails(text, x=deep(20_000), l=deep(20_000)) == "value is nested too deeply"


@pytest.mark.parametrize("text", ["9" * 5_000, "0." + "1" * 5_000, "1e" + "9" * 1_000, "-" * 5_000])
def test_long_numbers_are_refused_quickly(text: str) -> None:
    """A number of many digits is neither read nor allowed to keep the processor busy."""
    for function in ("int", "uint", "double"):
        if function == "double" and text.startswith("0."):
            continue
        assert "type conversion error" in fails(f"{function}(s)", s=text)


def test_the_limits_are_those_of_the_documentation() -> None:
    """The limits are named constants that other code and the documentation refer to."""
    assert (runtime.MAX_ITERATIONS, runtime.MAX_TEXT, runtime.MAX_ELEMENTS) == (
        1_000_000,
        10_000_000,
        1_000_000,
    )
