"""Values in results, as JSON and XML write them."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.verify.junit import _cdata, _escaped
from engine.verify.results import json_line, plain


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (1.0, "1"),
        (-0.5, "-0.5"),
        (12345678901234567890.0, "12345678901234567000"),
        (1e21, "1e+21"),
        (1e20, "100000000000000000000"),
        ({"b": [1.0, None], "a": "é<"}, '{"a":"é<","b":[1,null]}'),
    ],
)
def test_numbers_are_written_as_protobuf_does(value: object, text: str) -> None:
    """Whole numbers have no fraction, and no more digits than the double has."""
    assert json_line(value) == text


@given(st.floats(allow_nan=False, allow_infinity=False))
def test_no_number_changes(number: float) -> None:
    """The digits that are left out are none that the double had."""
    assert math.isclose(float(plain(number)), number, rel_tol=0.0, abs_tol=0.0)


@given(st.text())
def test_xml_text_can_be_read_back(text: str) -> None:
    """Whatever a name or output holds, the document stays well formed, and what XML can say is kept."""
    from xml.etree import ElementTree  # noqa: PLC0415 - our own text, and only here

    element = ElementTree.fromstring(f'<a b="{_escaped(text)}"><c>{_cdata(text)}</c></a>')  # noqa: S314 - ours
    said = element.find("c")
    assert said is not None
    if text.isprintable():
        assert element.get("b") == text
        assert (said.text or "") == text
