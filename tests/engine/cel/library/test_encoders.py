"""Base64 and JSON against Python's own codecs."""

from __future__ import annotations

import base64
import json
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from engine.cel.library.encoders import decode_base64, encode_base64, encode_json
from engine.cel.values import EvaluationError

json_values = st.recursive(
    st.one_of(st.none(), st.booleans(), st.floats(allow_nan=False, allow_infinity=False), st.text()),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(st.text(), inner, max_size=3)),
    max_leaves=6,
)


@settings(deadline=None)
@given(json_values)
def test_json_reads_back_as_the_value(value: Any) -> None:
    """JSON text made of a value is read by another JSON reader as that value."""
    assert json.loads(encode_json(value), parse_int=float) == value


@settings(deadline=None)
@given(json_values)
def test_json_is_safe_in_html(value: Any) -> None:
    """JSON text holds no character that could end a script element."""
    assert not set(encode_json(value)) & set("<>&\u2028\u2029")


@settings(deadline=None)
@given(st.binary())
def test_base64_is_that_of_rfc_4648(data: bytes) -> None:
    """Encoding is the standard one; decoding takes it with and without padding and with line breaks."""
    text = encode_base64(data)
    assert text == base64.b64encode(data).decode()
    assert decode_base64(text) == decode_base64(text.rstrip("=")) == decode_base64("\r\n".join(text)) == data


@settings(deadline=None)
@given(st.text("AZaz09+/=-_ \n", max_size=12))
def test_arbitrary_text_is_base64_or_an_error(text: str) -> None:
    """What is decoded is what the standard decoder makes of it; all else is an evaluation error."""
    try:
        data = decode_base64(text)
    except EvaluationError:
        return
    digits = text.replace("\n", "").rstrip("=")
    assert data == base64.b64decode(digits + "=" * (-len(digits) % 4))
