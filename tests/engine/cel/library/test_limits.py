"""Hostile arguments: what could grow without bounds, or take forever, fails instead."""

from __future__ import annotations

from typing import Any

import pytest

from engine.cel.library import FUNCTIONS, NEEDS_NOW
from engine.cel.library.arguments import MAX_ELEMENTS, MAX_TEXT
from engine.cel.library.lists import MAX_FLATTEN_DEPTH
from engine.cel.library.regex import MAX_PATTERN
from engine.cel.values import EvaluationError, NoSuchOverload, Timestamp


def nested(depth: int) -> list[Any]:
    value: list[Any] = []
    for _ in range(depth):
        value = [value]
    return value


TOO_MUCH: list[tuple[str, tuple[Any, ...]]] = [
    ("lists.range", (MAX_ELEMENTS + 1,)),
    ("lists.range", (2**63 - 1,)),
    ("flatten", ([[0] * (MAX_ELEMENTS // 2)] * 3,)),
    ("flatten", (nested(MAX_FLATTEN_DEPTH + 5), 2**62)),
    ("replace", ("a" * 3000, "a", "b" * 3000)),
    ("replace", ("a" * 3000, "", "b" * 3000)),
    ("join", (["a" * 3000] * 3000,)),
    ("join", ([""] * 3000, "b" * 3000)),
    ("split", ("," * (MAX_ELEMENTS + 1), ",")),
    ("split", ("a" * (MAX_ELEMENTS + 1), "")),
    ("format", ("%s" * 2000, ["a" * 3000] * 2000)),
    ("format", ("%s", [["a" * 3000] * 2000])),
    ("format", ("%.101f", [1.0])),
    ("format", (f"%.{'9' * 5000}f", [1.0])),
    ("hierarchy", ("." * (MAX_ELEMENTS + 1),)),
    ("json.encode", (["a" * 3000] * 2000,)),
    ("regex.replace", ("a" * 3000, "a", "b" * 3000)),
    ("regex.extractAll", ("x" * 30_000, "x.*y|x")),
    ("matches", ("a", "[a]" * MAX_PATTERN)),
    ("matches", ("a", "((a{100}){100}){100}")),
    ("getHours", (Timestamp(0), "A" * 100_000)),
    ("getHours", (Timestamp(0), "/etc/passwd")),
    ("getHours", (Timestamp(0), "\0")),
    ("ip", ("1" * 100_000,)),
    ("cidr", ("1.1.1.1/" + "9" * 5000,)),
    ("inIPAddrRange", ("1.1.1.1", "1.1.1.1/" + "9" * 5000)),
    ("spiffeID", ("spiffe://td/" + "a" * 5000,)),
    ("math.bitShiftLeft", (1, -(2**62))),
]


@pytest.mark.parametrize(("name", "arguments"), TOO_MUCH, ids=[name for name, _ in TOO_MUCH])
def test_excess_is_refused(name: str, arguments: tuple[Any, ...]) -> None:
    """A result, a depth or a pattern beyond its limit is an evaluation error."""
    with pytest.raises(EvaluationError):
        FUNCTIONS[name](*arguments)


@pytest.mark.parametrize("name", ["join", "replace", "lists.range"])
def test_results_up_to_the_limit_are_made(name: str) -> None:
    """The limits themselves are within bounds."""
    arguments: dict[str, tuple[Any, ...]] = {
        "join": (["a" * 1000] * (MAX_TEXT // 1000),),
        "replace": ("a" * (MAX_TEXT // 1000), "a", "b" * 1000),
        "lists.range": (MAX_ELEMENTS,),
    }
    assert len(FUNCTIONS[name](*arguments[name])) in {MAX_TEXT, MAX_ELEMENTS}


def test_catastrophic_patterns_take_linear_time() -> None:
    """A pattern that makes backtracking engines run for ages is answered at once."""
    assert FUNCTIONS["matches"]("a" * 50_000 + "!", "^(a+)+$") is False


def test_deeply_nested_values_do_not_exhaust_the_stack_silently() -> None:
    """Nesting beyond what Python recurses into is an error that expressions report as their own."""
    with pytest.raises((EvaluationError, RecursionError)):
        FUNCTIONS["json.encode"](nested(100_000))


IDENTITY_LIKE = {"id", "optional.of", "optional.ofNonZeroValue", "json.encode", "now", "optional.none"}
"""Functions that take any value, or none at all."""


@pytest.mark.parametrize("name", sorted(set(FUNCTIONS) - IDENTITY_LIKE - {"spiffeMatchAny"}))
def test_arguments_of_no_overload_are_refused(name: str) -> None:
    """Every function raises for a value of a type that it has no overload for, wherever that stands."""
    for count in range(1, 5):
        arguments = (Timestamp(0),) * (name in NEEDS_NOW) + (object(),) * count
        with pytest.raises((NoSuchOverload, TypeError)):
            FUNCTIONS[name](*arguments)
