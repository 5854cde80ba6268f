"""Membership by key: as equality says, and not by comparing everything with everything."""

from __future__ import annotations

import math
from typing import Any
from unittest import mock

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.cel.library import FUNCTIONS, membership
from engine.cel.library.membership import MAX_COMPARISONS, NoKeyError, key, keys
from engine.cel.library.network import parse_cidr, parse_ip
from engine.cel.library.spiffe import SpiffeID
from engine.cel.runtime import equals
from engine.cel.values import (
    NONE,
    Duration,
    EvaluationError,
    Optional,
    RecordValue,
    Timestamp,
    TypeValue,
    UInt,
)

small = st.integers(-2, 2)
scalars = st.one_of(
    st.none(),
    st.booleans(),
    small,
    st.integers(0, 3).map(UInt),
    small.map(float),
    st.sampled_from([math.nan, math.inf, 2.0**53, 2**53, 0.5, -0.0]),
    st.text("ab1", max_size=2),
    st.binary(max_size=1),
    small.map(Timestamp),
    small.map(Duration),
    st.sampled_from([TypeValue("int"), parse_ip("1.1.1.1"), parse_ip("::1"), parse_cidr("1.1.1.1/8"), NONE]),
)
values = st.recursive(
    scalars,
    lambda inner: st.one_of(
        st.lists(inner, max_size=2),
        st.dictionaries(st.text("ab", max_size=1), inner, max_size=2),
        inner.map(Optional.of),
    ),
    max_leaves=4,
)
rounded = st.sampled_from([2**53 + 1, 2**53, 2.0**53, UInt(2**64 - 1), 2.0**64, -(2**53) - 1, -(2.0**53)])
lists = st.lists(values | rounded, max_size=6)


@settings(deadline=None)
@given(values, values)
def test_keys_are_equal_exactly_when_values_are(left: Any, right: Any) -> None:
    """Two values have the same key if, and only if, they are equal in CEL."""
    assert (key(left) == key(right)) == equals(left, right)


@pytest.mark.parametrize("few", [0, membership.FEW_COMPARISONS])
@settings(deadline=None)
@given(left=lists, right=lists)
def test_list_functions_agree_with_pairwise_comparison(few: int, left: list[Any], right: list[Any]) -> None:
    """Every function on lists as sets gives what comparing each element with each would give."""
    with mock.patch.object(membership, "FEW_COMPARISONS", few):
        check_list_functions(left, right)


def check_list_functions(left: list[Any], right: list[Any]) -> None:
    in_right = [any(equals(value, other) for other in right) for value in left]
    in_left = [any(equals(value, other) for other in left) for value in right]
    assert FUNCTIONS["hasIntersection"](left, right) is any(in_right)
    assert FUNCTIONS["sets.intersects"](left, right) is any(in_right)
    assert FUNCTIONS["isSubset"](left, right) is all(in_right)
    assert FUNCTIONS["sets.contains"](right, left) is all(in_right)
    assert FUNCTIONS["sets.equivalent"](left, right) is (all(in_right) and all(in_left))
    assert identical(FUNCTIONS["except"](left, right), picked(left, in_right, False))
    shorter, found = (right, in_left) if len(left) > len(right) else (left, in_right)
    assert identical(FUNCTIONS["intersect"](left, right), picked(shorter, found, True))


def picked(elements: list[Any], marks: list[bool], wanted: bool) -> list[Any]:
    return [element for element, mark in zip(elements, marks, strict=True) if mark is wanted]


def identical(left: list[Any], right: list[Any]) -> bool:
    return len(left) == len(right) and all(one is other for one, other in zip(left, right, strict=True))


@settings(deadline=None)
@given(lists)
def test_distinct_keeps_the_first_of_equal_elements(elements: list[Any]) -> None:
    """``distinct`` keeps an element when none that it has kept equals it."""
    kept: list[Any] = []
    for value in elements:
        if not any(equals(value, other) for other in kept):
            kept.append(value)
    assert identical(FUNCTIONS["distinct"](elements), kept)


def test_values_without_a_key_are_compared() -> None:
    """Records and SPIFFE IDs have no key and are still found by equality."""
    record = RecordValue("cerbos.Principal", {"id": lambda _: "ann"}, object())
    spiffe = SpiffeID.parse("spiffe://td/a")
    with pytest.raises(NoKeyError):
        key(record)
    assert keys([1, record]) is None
    assert FUNCTIONS["hasIntersection"]([spiffe], ["x", "spiffe://td/a"])
    assert FUNCTIONS["intersect"]([record, 1], [record]) == [record]
    assert FUNCTIONS["distinct"]([spiffe, 1, spiffe]) == [spiffe, 1]


def test_comparing_many_values_without_keys_is_refused() -> None:
    """Lists so long that comparing them would take millions of steps are refused, not compared."""
    spiffe = [SpiffeID.parse("spiffe://td/a")]
    with pytest.raises(EvaluationError, match="comparisons"):
        FUNCTIONS["hasIntersection"](
            spiffe * 1001, [str(number) for number in range(MAX_COMPARISONS // 1000)]
        )
    many = [SpiffeID.parse(f"spiffe://td/{number}") for number in range(2000)]
    with pytest.raises(EvaluationError, match="comparisons"):
        FUNCTIONS["distinct"](many)


def test_long_lists_of_scalars_are_looked_up() -> None:
    """Two lists of a hundred thousand strings, on which pairwise comparison would take hours, are quick."""
    left = [f"l{number}" for number in range(100_000)]
    right = [f"r{number}" for number in range(100_000)]
    assert FUNCTIONS["hasIntersection"](left, right) is False
    assert FUNCTIONS["distinct"](left + left) == left
