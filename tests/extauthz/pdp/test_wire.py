"""The protobuf form of messages, held against the official generated classes."""

from __future__ import annotations

import math

import pytest
from cerbos.request.v1 import request_pb2
from cerbos.response.v1 import response_pb2
from google.protobuf import json_format
from hypothesis import given, settings

from extauthz.pdp.messages import CheckResourcesRequest, CheckResourcesResponse, PlanResourcesResponse
from extauthz.pdp.services import CODEC
from extauthz.pdp.wire import WireError
from tests.extauthz.pdp.strategies import CHECK_REQUESTS, CHECK_RESPONSES, PLAN_RESPONSES


@settings(max_examples=80, deadline=None)
@given(CHECK_REQUESTS)
def test_requests(request: CheckResourcesRequest) -> None:
    """What an official client sends is what its author wrote."""
    data = CODEC.encoder(CheckResourcesRequest)(request)
    again = request_pb2.CheckResourcesRequest.FromString(data).SerializeToString()
    assert CODEC.decoder(CheckResourcesRequest)(again) == request


@settings(max_examples=80, deadline=None)
@given(CHECK_RESPONSES)
def test_responses(response: CheckResourcesResponse) -> None:
    """What an official client reads is what we meant, field by field."""
    official = response_pb2.CheckResourcesResponse.FromString(CODEC.encoder(CheckResourcesResponse)(response))
    assert official.request_id == response.request_id
    assert [each.resource.id for each in official.results] == [
        each.resource.id if each.resource else "" for each in response.results
    ]
    assert CODEC.decoder(CheckResourcesResponse)(official.SerializeToString()) == response


@settings(max_examples=60, deadline=None)
@given(PLAN_RESPONSES)
def test_plans(response: PlanResourcesResponse) -> None:
    """A filter comes through as it is."""
    official = response_pb2.PlanResourcesResponse.FromString(CODEC.encoder(PlanResourcesResponse)(response))
    assert CODEC.decoder(PlanResourcesResponse)(official.SerializeToString()) == response


@pytest.mark.parametrize(
    "data",
    [b"\xff", b"\x0a\xff", b"\x0a\x01\xff", b"\x1a\x05abc", b"\x0b" * 5000],
    ids=["tag", "length", "utf-8", "short", "groups"],
)
def test_what_is_no_message(data: bytes) -> None:
    """Bytes that are no request are refused, in words that name what was expected."""
    with pytest.raises(WireError, match=r"not a `cerbos\.request\.v1\.CheckResourcesRequest`"):
        CODEC.decoder(CheckResourcesRequest)(data)


def nested(levels: int) -> bytes:
    """Make a request with an attribute nested that deep."""
    value: object = 1
    for _ in range(levels):
        value = {"a": value}
    made = json_format.ParseDict({"principal": {"attr": {"x": value}}}, request_pb2.CheckResourcesRequest())
    return made.SerializeToString()


def test_nesting_is_bounded() -> None:
    """Attributes nest as deep as anyone writes them, and not as deep as an attacker would."""
    assert CODEC.decoder(CheckResourcesRequest)(nested(20))
    deep = b"\x08\x01"
    for _ in range(200):  # a list in a list, each a Value in a ListValue
        inner = b"\x0a" + _length(deep) + deep
        deep = b"\x32" + _length(inner) + inner
    entry = b"\x0a\x01x\x12" + _length(deep) + deep
    principal = b"\x22" + _length(entry) + entry
    with pytest.raises(WireError):
        CODEC.decoder(CheckResourcesRequest)(b"\x1a" + _length(principal) + principal)


def _length(data: bytes) -> bytes:
    """Write a length as protobuf does."""
    number, found = len(data), bytearray()
    while number > 127:
        found.append(number & 127 | 128)
        number >>= 7
    return bytes([*found, number])


def test_a_value_that_holds_nothing_is_null() -> None:
    """A `google.protobuf.Value` without a kind reads as null, and numbers are taken as they are."""
    made = request_pb2.CheckResourcesRequest()
    made.principal.attr["empty"].SetInParent()
    made.principal.attr["nan"].number_value = math.nan
    attr = CODEC.decoder(CheckResourcesRequest)(made.SerializeToString()).principal.attr
    assert attr["empty"] is None
    assert math.isnan(attr["nan"])
