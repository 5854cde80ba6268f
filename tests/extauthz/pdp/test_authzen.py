"""The AuthZEN calls: what they decide, what they refuse, and where they say they are."""

from __future__ import annotations

import json
import time
from functools import cache
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine import Engine
from extauthz.keysets import InlineOrigin, KeyFormat, KeySet
from extauthz.pdp import Code, Pdp, PdpError, RequestLimits, protojson
from extauthz.pdp.authzen import AuthZen, origin
from extauthz.pdp.authzen_messages import (
    AccessEvaluationBatchRequest,
    AccessEvaluationRequest,
    Action,
    MetadataRequest,
    Resource,
    Subject,
)
from extauthz.pdp.auxdata import AuxDataReader
from extauthz.pdp.protojson import FormatError
from tests.extauthz.pdp.authzen_cases import AUX_DATA, POLICIES, cases

if TYPE_CHECKING:
    from collections.abc import Mapping


@cache
def engine() -> Engine:
    return Engine.from_directory(POLICIES)


async def authzen(limits: RequestLimits | None = None) -> AuthZen:
    origin = InlineOrigin(AUX_DATA["jwt"]["keySets"][0]["local"]["data"])
    keys = KeySet("company", origin, form=KeyFormat(), refresh_interval=3600)
    await keys.start()
    return AuthZen(Pdp(engine(), AuxDataReader({"company": keys}), lambda: "call", limits=limits))


async def evaluation(request: Mapping[str, Any]) -> Any:
    asked = protojson.decode(AccessEvaluationRequest, json.dumps(request).encode())
    return protojson.write(await (await authzen()).access_evaluation(asked))


async def batch(request: Mapping[str, Any], limits: RequestLimits | None = None) -> Any:
    asked = protojson.decode(AccessEvaluationBatchRequest, json.dumps(request).encode())
    return protojson.write(await (await authzen(limits)).access_evaluation_batch(asked))


def named(table: str) -> list[Any]:
    return [pytest.param(case, id=case["it"]) for case in cases(table)]


@pytest.mark.parametrize("case", named("evaluation"))
async def test_evaluation(case: dict[str, Any]) -> None:
    """An evaluation is decided, or refused, as the table says."""
    if "refused" in case:
        with pytest.raises(PdpError) as caught:
            await evaluation(case["request"])
        assert (caught.value.code.name, caught.value.message) == ("INVALID_ARGUMENT", case["refused"])
    else:
        assert await evaluation(case["request"]) == case["want"]


@pytest.mark.parametrize("case", named("batch"))
async def test_batch(case: dict[str, Any]) -> None:
    """A batch is decided, or refused, as the table says."""
    if "refused" in case:
        with pytest.raises(PdpError) as caught:
            await batch(case["request"])
        assert (caught.value.code.name, caught.value.message) == ("INVALID_ARGUMENT", case["refused"])
    else:
        assert await batch(case["request"]) == case["want"]


# --- a batch is many evaluations --------------------------------------------------------------------------

SUBJECTS = st.fixed_dictionaries(
    {"type": st.sampled_from(["user", "editor"]), "id": st.sampled_from(["alice", "bob"])},
    optional={"properties": st.sampled_from([{"cerbos.roles": ["editor"]}, {"cerbos.roles": ["user"]}])},
)
RESOURCES = st.fixed_dictionaries(
    {"type": st.just("document"), "id": st.sampled_from(["1", "2"])},
    optional={
        "properties": st.sampled_from([{"public": True}, {"owner": "alice"}, {"cerbos.scope": "acme"}])
    },
)
ACTIONS = st.fixed_dictionaries({"name": st.sampled_from(["read", "edit", "burn"])})
CONTEXTS = st.sampled_from([{}, {"cerbos.includeMeta": True}, {"cerbos.requestId": "r"}])
PARTS = {"subject": SUBJECTS, "resource": RESOURCES, "action": ACTIONS, "context": CONTEXTS}


@given(
    whole=st.fixed_dictionaries(PARTS), parts=st.lists(st.fixed_dictionaries({}, optional=PARTS), min_size=1)
)
@settings(deadline=None, max_examples=60)
async def test_a_batch_is_many_evaluations(whole: dict[str, Any], parts: list[dict[str, Any]]) -> None:
    """A batch decides what each of its evaluations, completed and sent alone, decides."""
    found = await batch({**whole, "evaluations": parts})
    alone = [await evaluation({**whole, **part}) for part in parts]
    assert [each["decision"] for each in found["evaluations"]] == [each["decision"] for each in alone]


# --- limits -----------------------------------------------------------------------------------------------

SUBJECT = {"type": "user", "id": "alice"}
DOCUMENT = {"type": "document", "id": "1"}
READ = {"name": "read"}
LIMITS = RequestLimits(max_actions_per_resource=2, max_resources_per_request=3)


def documents(*names: object) -> list[dict[str, Any]]:
    return [{"resource": {"type": "document", "id": str(name)}} for name in names]


@pytest.mark.parametrize(
    ("evaluations", "refused"),
    [
        (documents(*range(7)), "number of evaluations (7) exceeds configured limit (6)"),
        (documents(*range(4)), "number of resources in batch (4) exceeds configured limit (3)"),
        (documents(1, 1, 1), "number of actions (3) exceeds configured limit (2)"),
    ],
)
async def test_too_much_is_refused(evaluations: list[dict[str, Any]], refused: str) -> None:
    """A request with too many evaluations, resources or evaluations of one resource is told the limit."""
    with pytest.raises(PdpError) as caught:
        await batch({"subject": SUBJECT, "action": READ, "evaluations": evaluations}, LIMITS)
    assert caught.value.message == refused


@pytest.mark.parametrize(
    "evaluations",
    [
        documents(1, 1, 2, 2, 3, 3),
        [{"resource": DOCUMENT, "subject": {"type": "user", "id": name}} for name in "abcd"],
        [{"resource": DOCUMENT, "context": {"cerbos.auxData": {"jwt": {"token": ""}}}}, *documents(1, 1)],
    ],
)
async def test_what_the_limits_allow_is_answered(evaluations: list[dict[str, Any]]) -> None:
    """The limits count what one subject asks with one token, so as many as they allow are answered."""
    answered = await batch({"subject": SUBJECT, "action": READ, "evaluations": evaluations}, LIMITS)
    assert len(answered["evaluations"]) == len(evaluations)


# --- hostile requests -------------------------------------------------------------------------------------

JSON = st.recursive(
    st.none() | st.booleans() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(
                [
                    "cerbos.roles",
                    "cerbos.scope",
                    "cerbos.auxData",
                    "cerbos.includeMeta",
                    "jwt",
                    "jwts",
                    "token",
                    "x",
                ]
            ),
            inner,
            max_size=3,
        )
    ),
    max_leaves=10,
)


async def decided_or_refused(request: Mapping[str, Any]) -> bool:
    """Tell whether the answer is a decision, or the request is at fault."""
    try:
        return isinstance((await evaluation(request))["decision"], bool)
    except FormatError:
        return True
    except PdpError as refused:
        return refused.code is Code.INVALID_ARGUMENT


@given(st.fixed_dictionaries({"subject": JSON, "resource": JSON, "action": JSON, "context": JSON}))
@settings(deadline=None)
async def test_any_json_is_answered_or_refused(asked: dict[str, Any]) -> None:
    """Whatever JSON comes is decided or refused; it never makes us fail."""
    assert await decided_or_refused(asked)


@given(JSON, JSON, JSON)
@settings(deadline=None)
async def test_any_properties_are_answered_or_refused(subject: Any, resource: Any, context: Any) -> None:
    """The same for requests whose form is right: what is in their properties and context may be anything."""
    request = {
        "subject": {**SUBJECT, "properties": {"cerbos.roles": subject, "cerbos.scope": subject}},
        "resource": {**DOCUMENT, "properties": {"x": resource, "cerbos.scope": resource}},
        "action": READ,
        "context": {"cerbos.auxData": context, "cerbos.includeMeta": True},
    }
    assert await decided_or_refused(request)


@pytest.mark.parametrize("lenient", [False, True])
async def test_a_long_scope_takes_no_time(lenient: bool) -> None:
    """A scope of a million parts is one that no policy has, and that is found out at once."""
    engine = Engine.from_directory(POLICIES, lenient_scope_search=lenient)
    asked = AccessEvaluationRequest(
        Subject("user", "alice"),
        Resource("document", "1", {"cerbos.scope": "a." * 1_000_000 + "a"}),
        Action("burn"),
    )
    began = time.process_time()
    answered = await AuthZen(Pdp(engine, AuxDataReader({}), lambda: "call")).access_evaluation(asked)
    assert answered.decision is False
    assert time.process_time() - began < 5  # minutes, where each part is looked at with all before it


# --- where we are reached ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("headers", "tls", "found"),
    [
        ({}, False, "http://localhost"),
        ({"host": "pdp.example.com"}, False, "http://pdp.example.com"),
        ({"host": "pdp.example.com:3592"}, True, "https://pdp.example.com:3592"),
        ({"host": "10.0.0.1:80"}, False, "http://10.0.0.1:80"),
        ({"host": "[::1]:3592"}, False, "http://[::1]:3592"),
        ({"host": "pdp", "x-forwarded-proto": "https"}, False, "https://pdp"),
        ({"host": "pdp", "x-forwarded-proto": "http"}, True, "http://pdp"),
        ({"host": "pdp", "x-forwarded-proto": "HTTPS, http"}, False, "https://pdp"),
        ({"host": "pdp", "x-forwarded-proto": "gopher"}, False, "http://pdp"),
        ({"host": "pdp", "x-forwarded-host": "api.example.com"}, True, "https://api.example.com"),
        ({"host": "pdp", "x-forwarded-host": "api.example.com, inner:80"}, True, "https://api.example.com"),
        ({"host": "pdp", "x-forwarded-host": ""}, False, "http://pdp"),
    ],
)
def test_origin(headers: dict[str, str], tls: bool, found: str) -> None:
    """The proxy in front knows best how clients reach us, then the request itself."""
    assert origin(headers, tls=tls) == found


@pytest.mark.parametrize("name", ["host", "x-forwarded-host"])
@pytest.mark.parametrize(
    "host",
    [
        'evil"/x',
        "evil/x",
        "evil\\x",
        "user@evil",
        "evil?x",
        "evil#x",
        "evil%2fx",
        "e vil",
        "evil\t.x",
        "<script>",
        "-evil",
        "evil:0",
        "evil:65536",
        "evil:x",
        "evil:",
        ":80",
        "::1",
        "[::1",
        "[fe80::1%25eth0]",
        "[1.2.3.4]",
        "ëvil",
        "a" * 254,
    ],
)
def test_what_is_no_host_is_refused(name: str, host: str) -> None:
    """A header that does not hold a host is not repeated in addresses that clients follow."""
    with pytest.raises(PdpError) as caught:
        origin({"host": "pdp", name: host}, tls=False)
    assert (caught.value.code.name, caught.value.message) == (
        "INVALID_ARGUMENT",
        f"the header {name} does not hold a host",
    )


async def test_metadata_names_the_calls() -> None:
    """The metadata tells where the calls are, from where the client is."""
    found = await (await authzen()).metadata(MetadataRequest(), "https://pdp.example.com")
    assert protojson.write(found) == {
        "policy_decision_point": "https://pdp.example.com",
        "access_evaluation_endpoint": "https://pdp.example.com/access/v1/evaluation",
        "access_evaluations_endpoint": "https://pdp.example.com/access/v1/evaluations",
    }
