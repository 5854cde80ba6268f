"""The rules of requests, held against protovalidate, with which Cerbos checks them."""

from __future__ import annotations

from typing import Any

import protovalidate
import pytest
from buf.validate import validate_pb2  # type: ignore[import-untyped]  # generated, without types
from cerbos.request.v1 import request_pb2
from google.protobuf import json_format
from hypothesis import example, given, settings
from hypothesis import strategies as st

from extauthz.pdp import admin_messages, messages, protojson
from extauthz.pdp.errors import Code, PdpError
from extauthz.pdp.messages import CheckResourcesRequest, ResourceEntry
from extauthz.pdp.services import CODEC
from extauthz.pdp.validation import MAX_VIOLATIONS, check
from extauthz.pdp.violations import Violations, quoted

PAIRS = {
    messages.CheckResourcesRequest: request_pb2.CheckResourcesRequest,
    messages.CheckResourceSetRequest: request_pb2.CheckResourceSetRequest,
    messages.CheckResourceBatchRequest: request_pb2.CheckResourceBatchRequest,
    messages.PlanResourcesRequest: request_pb2.PlanResourcesRequest,
    admin_messages.ListPoliciesRequest: request_pb2.ListPoliciesRequest,
    admin_messages.DeletePolicyRequest: request_pb2.DeletePolicyRequest,
    admin_messages.EnablePolicyRequest: request_pb2.EnablePolicyRequest,
    admin_messages.GetSchemaRequest: request_pb2.GetSchemaRequest,
    admin_messages.AddOrUpdateSchemaRequest: request_pb2.AddOrUpdateSchemaRequest,
}

NAMES = st.sampled_from(["", "a", "b", "a-b", "é", "a.b", ".", "a.b-c", "-x", "a..b", "a\n", 'q"'])
VALUES: st.SearchStrategy[Any] = st.sampled_from([None, True, 1, "x", [], {}, {"": 1}])
ATTRIBUTES = st.dictionaries(NAMES, VALUES, max_size=3)
ACTIONS = st.lists(NAMES, max_size=4)


def _some(**fields: st.SearchStrategy[Any]) -> st.SearchStrategy[dict[str, Any]]:
    return st.fixed_dictionaries({}, optional=fields)


PRINCIPAL = _some(id=NAMES, policyVersion=NAMES, roles=ACTIONS, attr=ATTRIBUTES, scope=NAMES)
RESOURCE = _some(kind=NAMES, policyVersion=NAMES, id=NAMES, attr=ATTRIBUTES, scope=NAMES)
ENTRIES = st.lists(_some(actions=ACTIONS, resource=RESOURCE), max_size=3)
TOKEN = _some(token=NAMES, keySetId=NAMES)
AUX_DATA = _some(jwt=TOKEN, jwts=st.dictionaries(NAMES, TOKEN, max_size=2))
CONTEXT = _some(annotations=ATTRIBUTES)
INSTANCES = st.dictionaries(NAMES, _some(attr=ATTRIBUTES), max_size=2)
SET = _some(kind=NAMES, policyVersion=NAMES, scope=NAMES, instances=INSTANCES)
PLANNED = _some(kind=NAMES, policyVersion=NAMES, scope=NAMES, attr=ATTRIBUTES)
MANY = st.lists(NAMES | st.integers(0, 40).map(str), max_size=24)
IDS = _some(id=st.lists(NAMES | st.just("x" * 256) | st.integers(0, 40).map(str), max_size=24))
SCHEMA = _some(id=NAMES | st.just("y" * 256), definition=st.sampled_from(["", "e30=", "MDEyMzQ1Njc4OQ=="]))
REQUESTS = st.one_of(
    st.tuples(
        st.just(admin_messages.ListPoliciesRequest),
        _some(policyId=st.lists(NAMES, max_size=30), nameRegexp=NAMES),
    ),
    st.tuples(st.just(admin_messages.DeletePolicyRequest), IDS),
    st.tuples(st.just(admin_messages.EnablePolicyRequest), IDS),
    st.tuples(st.just(admin_messages.GetSchemaRequest), IDS),
    st.tuples(
        st.just(admin_messages.AddOrUpdateSchemaRequest), _some(schemas=st.lists(SCHEMA, max_size=101))
    ),
    st.tuples(
        st.just(messages.CheckResourcesRequest),
        _some(
            requestId=NAMES, principal=PRINCIPAL, resources=ENTRIES, auxData=AUX_DATA, requestContext=CONTEXT
        ),
    ),
    st.tuples(
        st.just(messages.CheckResourceSetRequest),
        _some(principal=PRINCIPAL, actions=ACTIONS, resource=SET, auxData=AUX_DATA),
    ),
    st.tuples(
        st.just(messages.CheckResourceBatchRequest),
        _some(principal=PRINCIPAL, resources=ENTRIES, auxData=AUX_DATA),
    ),
    st.tuples(
        st.just(messages.PlanResourcesRequest),
        _some(
            principal=PRINCIPAL,
            action=NAMES,
            actions=MANY,
            resource=PLANNED,
            auxData=AUX_DATA,
            requestContext=CONTEXT,
        ),
    ),
)


def ours(request: Any) -> tuple[str, Violations] | None:
    """Return how a request is refused here."""
    try:
        check(request)
    except PdpError as error:
        refusal = error
    else:
        return None
    assert refusal.code is Code.INVALID_ARGUMENT
    return refusal.message, refusal.details[0]


def theirs(request: Any) -> validate_pb2.Violations:
    """Return what protovalidate finds."""
    found = protovalidate.collect_violations(request)
    data = b"".join(protovalidate.ViolationsPb(violations=[each.proto]).to_binary() for each in found)
    return validate_pb2.Violations.FromString(data)


@settings(max_examples=400, deadline=None)
@given(REQUESTS)
@example((messages.PlanResourcesRequest, {"actions": [str(n) for n in range(21)]}))
@example((messages.PlanResourcesRequest, {"actions": ["a", "a"] + [str(n) for n in range(21)]}))
def test_the_same_faults_as_protovalidate(case: tuple[type[Any], dict[str, Any]]) -> None:
    """What is refused, where, by which rule, in which words and order: all as protovalidate has it."""
    cls, document = case
    official = json_format.ParseDict(document, PAIRS[cls]())
    wanted = theirs(official)
    found = ours(CODEC.decoder(cls)(official.SerializeToString(deterministic=True)))
    if not wanted.violations:
        assert found is None
        return
    assert found is not None
    data = CODEC.encoder(Violations)(found[1])
    assert in_order(wanted) == in_order(validate_pb2.Violations.FromString(data))


def in_order(found: validate_pb2.Violations) -> list[str]:
    """Write violations for comparing: maps have no order, and only Go's library tells `forKey: false`."""
    for each in found.violations:
        if not each.for_key:
            each.ClearField("for_key")
    return sorted(json_format.MessageToJson(each) for each in found.violations)


def test_the_words_of_a_refusal() -> None:
    """One fault stands in the line, several in a list, each with its place."""
    request = CheckResourcesRequest(
        principal=messages.Principal("a", roles=("r", "r")), resources=(ResourceEntry(),)
    )
    told = ours(request)
    assert told is not None
    assert told[0] == (
        "validation errors:\n - principal.roles: repeated value must contain unique items\n"
        " - resources[0].actions: value is required\n - resources[0].resource: value is required"
    )
    one = ours(messages.PlanResourcesRequest(principal=messages.Principal("a", roles=("r",)), action="x"))
    assert one is not None
    assert one[0] == "validation error: resource: value is required"


def test_faults_are_told_up_to_a_limit() -> None:
    """A request of many faults does not get an answer many times as long."""
    request = CheckResourcesRequest(resources=(ResourceEntry(),) * 10_000)
    told = ours(request)
    assert told is not None
    assert len(told[1].violations) == MAX_VIOLATIONS


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("a", '"a"'),
        ('"\\', '"\\"\\\\"'),
        ("\n\x00", '"\\n\\x00"'),
        ("é", '"é"'),
        ("\u2028\U000e0001", '"\\u2028\\U000e0001"'),
    ],
)
def test_keys_are_shown_as_go_shows_them(text: str, shown: str) -> None:
    """A key of a map stands in a path in quotes, with what cannot be seen escaped."""
    assert quoted(text) == shown


def test_what_is_right_passes() -> None:
    """A request that keeps the rules is not refused."""
    document = b"""{"principal": {"id": "a", "roles": ["r"], "attr": {"x": null}, "scope": "a.b-c"},
        "resources": [{"actions": ["view"], "resource": {"kind": "k", "id": "1", "policyVersion": "v_1"}}]}"""
    check(protojson.decode(CheckResourcesRequest, document))
