"""The extension functions against a second implementation: the evaluator of ``cel-expr-python`` (C++).

Where the two are known to differ, Cerbos decides, and the arguments here stay clear of it.
"""

from __future__ import annotations

import functools
import json
import math
from typing import Any

import pytest
from cel_expr_python import cel  # type: ignore[import-untyped]  # the wheel has no py.typed
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from engine.cel.library import FUNCTIONS
from engine.cel.values import EvaluationError, Optional

EXTENSIONS = ("encoders", "lists", "math", "optional", "regex", "sets", "strings")
ENVIRONMENT = cel.NewEnv(
    config=cel.NewEnvConfigFromYaml(
        json.dumps({"name": "second-opinion", "extensions": [{"name": name} for name in EXTENSIONS]})
    ),
    variables=dict.fromkeys("abcd", cel.Type.DYN),
)
FAILED = object()

words = st.text("abAB ,é😀", max_size=6)
positions = st.integers(-1, 8)
doubles = st.floats(width=64) | st.sampled_from(
    [0.5, -0.5, 1.5, 2.5, 0.49999999999999994, 4503599627370497.5]
)
ints = st.integers(-(2**63), 2**63 - 1)
int_lists = st.lists(st.integers(-3, 3), max_size=5)
patterns = st.sampled_from(
    ["", "a", "a*", "[ab]+", "(a|b)", "(a)?b", "^a", "b$", "é", ".", "(?i)AB", "\\s", "x?", "(b*)"]
)


def ours(name: str, *arguments: Any) -> Any:
    try:
        value = FUNCTIONS[name](*arguments)
    except EvaluationError:
        return FAILED
    if isinstance(value, Optional):
        return ("optional", value.value) if value.has_value else ("optional",)
    return value


@functools.cache
def compiled(expression: str) -> Any:
    return ENVIRONMENT.compile(expression)


def theirs(expression: str, *arguments: Any) -> Any:
    try:
        result = compiled(expression).eval(data=dict(zip("abcd", arguments, strict=False)))
    except RuntimeError:
        return FAILED
    return FAILED if result.type() == cel.Type.ERROR else result.plain_value()


def agree(expression: str, name: str, *arguments: Any) -> None:
    one, other = ours(name, *arguments), theirs(expression, *arguments)
    if isinstance(one, float) and isinstance(other, float) and math.isnan(one):
        assert math.isnan(other)
    else:
        assert one == other, f"{name}{arguments}"


@settings(max_examples=60, deadline=None)
@given(words, words, words, positions, positions)
def test_strings_agree(text: str, part: str, other: str, start: int, end: int) -> None:
    """Functions on strings give the same value, or fail, in both implementations."""
    agree("a.contains(b)", "contains", text, part)
    agree("a.startsWith(b)", "startsWith", text, part)
    agree("a.endsWith(b)", "endsWith", text, part)
    agree("a.charAt(b)", "charAt", text, start)
    agree("a.substring(b)", "substring", text, start)
    if end != len(text):  # cel-cpp takes the end of the text for out of range
        agree("a.substring(b, c)", "substring", text, start, end)
    agree("a.lowerAscii()", "lowerAscii", text)
    agree("a.upperAscii()", "upperAscii", text)
    agree("a.replace(b, c)", "replace", text, part, other)
    agree("a.replace(b, c, d)", "replace", text, part, other, start)
    if text or part:
        agree("a.split(b)", "split", text, part)
        agree("a.split(b, c)", "split", text, part, start)
    agree("a.trim()", "trim", text)
    agree("a.reverse()", "reverse", text)
    agree("strings.quote(a)", "strings.quote", text)
    agree("a.join(b)", "join", [text, part, other], other)
    if 0 <= start < len(text):
        agree("a.indexOf(b, c)", "indexOf", text, part, start)
        agree("a.lastIndexOf(b, c)", "lastIndexOf", text, part, start)


@settings(max_examples=60, deadline=None)
@given(doubles, ints, ints, st.integers(0, 80))
def test_math_agrees(double: float, first: int, second: int, places: int) -> None:
    """Functions on numbers give the same value, or fail, in both implementations."""
    for function in ("ceil", "floor", "round", "trunc", "abs", "sign", "sqrt", "isNaN", "isInf", "isFinite"):
        agree(f"math.{function}(a)", f"math.{function}", double)
    for function in ("abs", "sign", "bitNot"):
        agree(f"math.{function}(a)", f"math.{function}", first)
    for function in ("bitAnd", "bitOr", "bitXor"):
        agree(f"math.{function}(a, b)", f"math.{function}", first, second)
    for function in ("bitShiftLeft", "bitShiftRight"):
        agree(f"math.{function}(a, b)", f"math.{function}", first, places)
    agree("math.greatest(a, b)", "math.@max", first, second)
    agree("math.least(a, b)", "math.@min", first, second)


@settings(max_examples=60, deadline=None)
@given(int_lists, int_lists, positions, positions)
def test_lists_and_sets_agree(first: list[int], second: list[int], start: int, end: int) -> None:
    """Functions on lists give the same value, or fail, in both implementations."""
    agree("a.slice(b, c)", "slice", first, start, end)
    agree("a.distinct()", "distinct", first)
    agree("a.reverse()", "reverse", first)
    agree("a.sort()", "sort", first)
    agree("a.flatten()", "flatten", [first, 1, [second]])
    agree("a.flatten(b)", "flatten", [first, 1, [second]], start)
    agree("lists.range(a)", "lists.range", abs(start))
    for function in ("contains", "equivalent", "intersects"):
        agree(f"sets.{function}(a, b)", f"sets.{function}", first, second)


@settings(max_examples=60, deadline=None)
@given(words, patterns, st.sampled_from(["", "x", "[\\0]", "\\\\"]), positions)
def test_regular_expressions_agree(text: str, pattern: str, template: str, count: int) -> None:
    """Matching, extracting and replacing give the same value, or fail, in both implementations."""
    agree("a.matches(b)", "matches", text, pattern)
    if pattern and not set(pattern) & set("*?^"):  # cel-cpp finds empty and anchored matches its own way
        agree("regex.extractAll(a, b)", "regex.extractAll", text, pattern)
        agree("regex.replace(a, b, c, d)", "regex.replace", text, pattern, template, count)


@pytest.mark.parametrize("verb", ["s", "d", "f", "e", "b", "o", "x", "X", ".2f", ".0e", ".3e"])
@settings(max_examples=40, deadline=None)
@given(value=st.one_of(doubles, ints, words, st.booleans(), int_lists, st.none()))
def test_formats_agree(verb: str, value: Any) -> None:
    """A clause writes the same text, or fails, in both implementations."""
    assume(verb not in {"s", "d"} or not isinstance(value, float))
    one, other = ours("format", f"<%{verb}>", [value]), theirs("a.format([b])", f"<%{verb}>", value)
    assert one == other, f"{verb} of {value!r}"
