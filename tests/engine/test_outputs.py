"""CEL values as JSON."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.cel import NONE, Duration, EvaluationError, Optional, Timestamp, TypeValue, UInt
from engine.expressions import environment
from engine.outputs import DEEPEST, to_json


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (None, None),
        (True, True),
        ("text", "text"),
        (1.5, 1.5),
        (7, 7.0),
        (UInt(7), 7.0),
        (2**53 - 1, float(2**53 - 1)),
        (2**53, "9007199254740992"),
        (-(2**63), "-9223372036854775808"),
        (UInt(2**64 - 1), "18446744073709551615"),
        (b"\x00\xff", "AP8="),
        (Timestamp.parse("2026-01-02T03:04:05.120Z"), "2026-01-02T03:04:05.12Z"),
        (Duration.parse("1h30m"), "5400s"),
        (Duration.parse("-1.5s"), "-1.5s"),
        (Duration.parse("1ns"), "0.000000001s"),
        (Duration.parse("1704060000.123456789s"), "1704060000.1234567s"),
        (Timestamp.parse("2026-01-02T03:04:05-04:30"), "2026-01-02T03:04:05-04:30"),
        (Optional.of([1]), [1.0]),
        ([1, "a", [None]], [1.0, "a", [None]]),
        ({"a": {"b": 2}}, {"a": {"b": 2.0}}),
    ],
)
def test_values(value: object, expected: Any) -> None:
    """Each type has its form."""
    found = to_json(value)
    assert found == expected
    assert type(found) is type(expected)


@pytest.mark.parametrize(
    "value",
    [
        float("nan"),
        float("inf"),
        float("-inf"),
        {1: "a"},
        {True: "a"},
        TypeValue("int"),
        NONE,
        [[float("nan")]],
        {"a": {2: 1}},
    ],
)
def test_what_has_no_form_is_an_error(value: object) -> None:
    """Infinities, maps with other keys than strings, types and empty optionals have no place in JSON."""
    with pytest.raises(EvaluationError):
        to_json(value)


@pytest.mark.parametrize(
    ("expression", "message"),
    [
        ("type(1)", "type conversion not supported for 'type'"),
        ("[hierarchy('a')]", "unsupported native conversion from hierarchy to '*structpb.Value'"),
        ("spiffeMatchAny()", "unsupported native conversion from SPIFFEMatcher to '*structpb.Value'"),
        ("ip('1.2.3.4')", "unsupported type conversion to '*structpb.Value'"),
        ("optional.none()", "optional.none() dereference"),
        ("{1: 'x'}", "unsupported type conversion from 'int' to string"),
        ("{true: 'x'}", "type conversion error from bool to 'string'"),
    ],
)
def test_refusals_are_worded_as_in_cerbos(expression: str, message: str) -> None:
    """What an output cannot be is said in the words that Cerbos puts into the entry."""
    with pytest.raises(EvaluationError, match=f"^{re.escape(message)}$"):
        to_json(environment().compile(expression).function(object()))


def test_depth_is_limited() -> None:
    """Nesting without end is an error, not a crash."""
    value: object = "x"
    for _ in range(DEEPEST + 1):
        value = [value]
    with pytest.raises(EvaluationError, match="nested deeper"):
        to_json(value)


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.floats() | st.text() | st.binary(),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3) | st.integers(), inner, max_size=3)
    ),
    max_leaves=10,
)


@given(VALUES)
def test_whatever_comes_out_is_json(value: object) -> None:
    """The result can be written as JSON, or there is an error."""
    try:
        found = to_json(value)
    except EvaluationError:
        return
    json.dumps(found, allow_nan=False)
