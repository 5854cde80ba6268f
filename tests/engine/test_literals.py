"""Values as CEL text: typing the text in again gives the value again."""

from __future__ import annotations

import math
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.cel import NONE, Duration, Environment, Optional, Timestamp, TypeValue, UInt
from engine.literals import literal

ENVIRONMENT = Environment({})

scalars = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(2**63), 2**63 - 1),
    st.integers(0, 2**64 - 1).map(UInt),
    st.floats(allow_nan=False, allow_infinity=False),
    st.text(),
    st.binary(),
    st.integers(-(2**40), 2**40).map(lambda seconds: Duration(seconds * 1_000)),
    st.integers(-(10**18), 10**18).map(Timestamp),
)
values = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner, max_size=4),
    max_leaves=12,
)


def evaluated(text: str) -> Any:
    return ENVIRONMENT.compile(text).function(SimpleNamespace())


@given(values)
def test_a_value_can_be_typed_in_again(value: Any) -> None:
    """Compiling and evaluating the text of a value gives an equal value of the same type."""
    again = evaluated(literal(value))
    assert again == value
    assert type(again) is type(value)


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (Optional.of(1), "optional.of(1)"),
        (NONE, "optional.none()"),
        (TypeValue("int"), "int"),
        (math.inf, 'double("Infinity")'),
        ("\x1b[31m", r'"\u001b[31m"'),
        ("\u202e", r'"\U0000202e"'),
    ],
)
def test_special_values(value: object, text: str) -> None:
    """What has no literal is written as what makes it; characters that a terminal obeys are escaped."""
    assert literal(value) == text


def test_long_lists_are_broken_into_lines() -> None:
    """A list that is longer than a line has a line for each element."""
    assert literal(["x" * 30, "y" * 30, ["z" * 30]]) == "\n".join(
        ("[", f'  "{"x" * 30}",', f'  "{"y" * 30}",', f'  ["{"z" * 30}"]', "]")
    )


def test_deep_values_end() -> None:
    """A value that is nested without end is cut off."""
    value: list[Any] = []
    value.append(value)
    assert "..." in literal(value)
