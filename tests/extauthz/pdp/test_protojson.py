"""The JSON form of messages: what is read, what is refused and how, and that hostile text is bounded."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import pytest
import yaml
from cerbos.request.v1 import request_pb2
from cerbos.response.v1 import response_pb2
from google.protobuf import json_format
from hypothesis import example, given, settings
from hypothesis import strategies as st

from extauthz.pdp.messages import (
    CheckResourcesRequest,
    CheckResourcesResponse,
    OutputEntry,
    PlanResourcesResponse,
    Principal,
    ResourceEntry,
)
from extauthz.pdp.positions import spot
from extauthz.pdp.protojson import MAX_VALUES, FormatError, decode, encode, write
from extauthz.pdp.schema import ABSENT
from extauthz.pdp.services import CODEC
from tests.extauthz.pdp.strategies import CHECK_REQUESTS, CHECK_RESPONSES, PLAN_RESPONSES

CASES = Path(__file__).parents[2] / "cases/pdp"
REFUSED = yaml.safe_load((CASES / "refused_json.yaml").read_text(encoding="utf-8"))


# --- reading ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("case", REFUSED, ids=lambda case: case["text"][:40])
def test_refusals(case: dict[str, str]) -> None:
    """What is not the JSON of a request is refused with a sentence that says what and where."""
    with pytest.raises(FormatError) as error:
        decode(CheckResourcesRequest, case["text"].encode())
    assert str(error.value) == case["says"]


@pytest.mark.parametrize("text", ["", " \n", "{}", '{"requestId":null,"principal":null,"resources":null}'])
def test_nothing_is_an_empty_message(text: str) -> None:
    """No body, an empty object and nulls all say nothing."""
    assert decode(CheckResourcesRequest, text.encode()) == CheckResourcesRequest()


def test_both_spellings() -> None:
    """Names are read as JSON and as protobuf write them; attributes are read as they are."""
    text = b'{"request_id":"r","includeMeta":true,"principal":{"attr":{"policy_version":null,"x":[1]}}}'
    request = decode(CheckResourcesRequest, text)
    assert request == CheckResourcesRequest("r", True, Principal(attr={"policy_version": None, "x": [1.0]}))
    assert type(request.principal.attr["x"][0]) is float


@settings(max_examples=80, deadline=None)
@given(CHECK_REQUESTS)
def test_requests_are_read_as_the_official_classes_write_them(request: CheckResourcesRequest) -> None:
    """The JSON of an official client means what its author wrote."""
    official = request_pb2.CheckResourcesRequest.FromString(CODEC.encoder(CheckResourcesRequest)(request))
    assert decode(CheckResourcesRequest, json_format.MessageToJson(official).encode()) == request
    kept = json_format.MessageToJson(official, preserving_proto_field_name=True)
    assert decode(CheckResourcesRequest, kept.encode()) == request


# --- writing ----------------------------------------------------------------------------------------------


@settings(max_examples=80, deadline=None)
@given(CHECK_RESPONSES)
def test_responses_are_written_as_the_official_classes_read_them(response: CheckResourcesResponse) -> None:
    """An official client reads from our JSON what we meant."""
    official = json_format.Parse(encode(response), response_pb2.CheckResourcesResponse())
    assert CODEC.decoder(CheckResourcesResponse)(official.SerializeToString()) == response


@settings(max_examples=60, deadline=None)
@given(PLAN_RESPONSES)
def test_plans_are_written_as_the_official_classes_read_them(response: PlanResourcesResponse) -> None:
    """An official client reads the same filter, however deep."""
    official = json_format.Parse(encode(response), response_pb2.PlanResourcesResponse())
    assert CODEC.decoder(PlanResourcesResponse)(official.SerializeToString()) == response


def test_defaults_are_left_out_and_nulls_are_not() -> None:
    """A field with its default value is not written; an output that is null is one."""
    assert write(CheckResourcesResponse()) == {}
    assert write(OutputEntry("s", None, "a")) == {"src": "s", "val": None, "action": "a"}
    assert write(OutputEntry("s", ABSENT, "a", "e")) == {"src": "s", "action": "a", "error": "e"}


def test_numbers() -> None:
    """Whole numbers are written without a fraction, as Cerbos writes them, wherever they stand."""
    assert encode(OutputEntry(val=[5.0, 1.5, -0.0, {"a": 7.0}])) == b'{"val":[5,1.5,0,{"a":7}]}'


def test_for_human_eyes() -> None:
    """Pretty text says the same in lines."""
    message = OutputEntry("s", {"a": 1.0})
    text = encode(message, pretty=True)
    assert b"\n" in text
    assert json.loads(text) == json.loads(encode(message))


# --- places -----------------------------------------------------------------------------------------------


@given(
    st.recursive(st.integers(), lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner)), st.data()
)
def test_places_are_found(value: Any, data: st.DataObject) -> None:
    """The text at the place of a value is the value's, in any layout."""
    path: list[str | int] = []
    at = value
    while isinstance(at, (list, dict)) and at and data.draw(st.booleans()):
        step = data.draw(st.sampled_from(sorted(at) if isinstance(at, dict) else range(len(at))))
        path.append(step)
        at = at[step]
    text = json.dumps(
        value, indent=data.draw(st.sampled_from([None, 1])), ensure_ascii=data.draw(st.booleans())
    )
    found = spot(text.encode(errors="surrogatepass") if text.isascii() else text.encode(), path)
    line = text.split("\n")[found.line - 1]
    assert line[found.column - 1 :].startswith(found.token)
    assert found.token == (str(at) if isinstance(at, int) else json.dumps(at)[0])


# --- hostile text -----------------------------------------------------------------------------------------

MEBIBYTE = 1024 * 1024
SYNTAX = [b"{", b"}", b"[", b"]", b",", b":", b'"', b"\\", b"\\ud800", b"null", b"true"]
NUMBERS = [b"1e999", b"-", b"NaN", b"9" * 400]
MEMBERS = [b'"principal":', b'"attr":{"a":', b'"resources":[', b'"requestId":"']
PIECES = st.sampled_from([*SYNTAX, *NUMBERS, *MEMBERS, b"\xff", b"\x00"])


@settings(max_examples=300, deadline=None)
@given(st.binary(max_size=64) | st.lists(PIECES, max_size=24).map(b"".join))
@example(b"[" * 100_000)
@example(b'{"principal":{"attr":' + b'{"a":' * 65 + b"1" + b"}" * 67)
@example(b'{"requestId":"' + b"\\" * 9999)
@example(b"1" * 10_000)
def test_any_bytes_are_read_or_refused(text: bytes) -> None:
    """Whatever arrives, the answer is a message or a refusal, and a refusal is short."""
    try:
        read = decode(CheckResourcesRequest, text)
    except FormatError as error:
        read = str(error)
    assert isinstance(read, CheckResourcesRequest) or len(read) < 300


@pytest.mark.parametrize(
    "text",
    [
        b'{"principal":{"attr":{"a":[' + b"0," * (2 * MEBIBYTE) + b"0]}}}",
        b'{"resources":[' + b"{}," * MEBIBYTE + b"{}]}",
        b'{"principal":{"attr":{' + b",".join(b'"%d":[]' % n for n in range(300_000)) + b"}}}",
        b"[" * (4 * MEBIBYTE),
    ],
    ids=["numbers", "resources", "names", "depth"],
)
def test_counts_are_bounded(text: bytes) -> None:
    """A text of too many values is refused before anything is made of them."""
    started = time.process_time()
    with pytest.raises(FormatError, match=f"more than {MAX_VALUES} values"):
        decode(CheckResourcesRequest, text)
    assert time.process_time() - started < 1


def test_punctuation_in_texts_does_not_count() -> None:
    """Long prose with many commas is no text of many values."""
    prose = ",[{" * (MEBIBYTE // 2)
    assert decode(CheckResourcesRequest, json.dumps({"requestId": prose}).encode()).request_id == prose


def test_as_many_resources_as_fit() -> None:
    """What is under the limit is read, however many."""
    request = CheckResourcesRequest(resources=(ResourceEntry(("a",)),) * 40_000)
    assert decode(CheckResourcesRequest, encode(request)) == request
