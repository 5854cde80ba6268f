"""JSON that can be read in one way only."""

from __future__ import annotations

import json
import math
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.model import json_value
from extauthz.strict_json import MAX_DEPTH, StrictJsonError, parse, parse_object

VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(10**40), 10**40)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(exclude_categories=["Cs"])),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(st.text(st.characters(exclude_categories=["Cs"])), inner)
    ),
    max_leaves=20,
)


@given(VALUES, st.booleans())
@settings(deadline=None)
def test_values_are_read(value: Any, ascii_only: bool) -> None:
    """What the standard library writes is read as the engine has values: every number a float."""
    text = json.dumps(value, ensure_ascii=ascii_only).encode()
    assert parse(text) == json_value(value)


@given(st.binary(max_size=60) | st.text('{}[]",:1.e-tfn\\u0 ', max_size=30).map(str.encode))
@settings(deadline=None)
def test_any_bytes(text: bytes) -> None:
    """Any bytes are a value or an error; a value holds finite floats and text that can be encoded."""
    try:
        value = parse(text)
    except StrictJsonError:
        return
    again = json.dumps(value, ensure_ascii=False, allow_nan=False).encode()
    assert parse(again) == value


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ('{"a": 1, "a": 1}', "the key `a` is given twice"),
        ('{"a": 1, "\\u0061": 2}', "the key `a` is given twice"),
        ('[{"b": {"c": 1, "d": 2, "c": 3}}]', "the key `c` is given twice"),
        ('{"": 1, "": 2}', "the key `` is given twice"),
        ("NaN", "not valid JSON"),
        ("-Infinity", "not valid JSON"),
        ("1e400", "not valid JSON"),
        ("-1e400", "not valid JSON"),
        ("9" * 400, "not valid JSON"),
        ("01", "not valid JSON"),
        ("'a'", "not valid JSON"),
        ("[1,]", "not valid JSON"),
        ("{} {}", "not valid JSON"),
        ("// a\n{}", "not valid JSON"),
        ('"a\nb"', "not valid JSON"),
        ('"\\ud800"', "not valid JSON"),
        ("\ufeff{}", "not valid JSON"),
        ("", "not valid JSON"),
    ],
)
def test_what_is_refused(text: str, why: str) -> None:
    """What two readers could understand in two ways, or not at all, is refused with the reason."""
    with pytest.raises(StrictJsonError, match=why):
        parse(text.encode())


def test_long_keys_are_cut_in_messages() -> None:
    """A message shows the beginning of a key only."""
    with pytest.raises(StrictJsonError) as error:
        parse(json.dumps({"k" * 5000: 1})[:-1].encode() + b', "' + b"k" * 5000 + b'": 2}')
    assert len(str(error.value)) < 100


@pytest.mark.parametrize(("opening", "closing"), [("[", "]"), ('{"a":', "}")])
def test_depth(opening: str, closing: str) -> None:
    """64 levels are read, 65 are refused, and so are hundreds of thousands."""
    for depth in (1, MAX_DEPTH):
        assert parse((opening * depth + "1" + closing * depth).encode())
    for depth in (MAX_DEPTH + 1, 1000, 200_000):
        with pytest.raises(StrictJsonError):
            parse((opening * depth + "1" + closing * depth).encode())


def test_numbers() -> None:
    """Whole numbers are floats too, and minus zero stays what it is."""
    assert math.copysign(1, parse(b"-0")) == -1.0
    assert [type(number) for number in parse(b"[1, 1.5, 123456789012345678901234567890]")] == [float] * 3


def test_objects() -> None:
    """Where an object is needed, nothing else will do."""
    assert parse_object(b'{"a": []}') == {"a": []}
    for text in (b"[]", b"null", b'"{}"', b"1"):
        with pytest.raises(StrictJsonError, match="not a JSON object"):
            parse_object(text)
