"""The way of a request, from bytes to bytes: what is allowed, and what happens when things go wrong."""

from __future__ import annotations

import asyncio
import json
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import yaml
from envoy_data_plane.envoy.config.core.v3 import HeaderValueOptionHeaderAppendAction
from hypothesis import given, settings
from hypothesis import strategies as st

from extauthz import wire
from tests.extauthz.key_server import fault_server, hang, response
from tests.extauthz.requests import check_request
from tests.extauthz.service import ask, service, user_token

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from envoy_data_plane.envoy.service.auth import v3 as auth

    from extauthz.app import App
    from extauthz.request import HttpRequest, Limits

FAILURES = yaml.safe_load((Path(__file__).parent.parent / "cases" / "failures.yaml").read_text())
URL = "https://api.example.com"
OVERWRITE = HeaderValueOptionHeaderAppendAction.OVERWRITE_IF_EXISTS_OR_ADD
RECORD = {"id": "1", "ownerId": "alice", "region": "EMEA", "amount": 12}


class Shared:
    """One service for all tests that leave it as it is."""

    def __init__(self, runner: asyncio.Runner, made: App, times: int) -> None:
        self._runner = runner
        self._made = made
        self._times = times

    def ask(self, request: bytes) -> auth.CheckResponse:
        for _ in range(self._times - 1):
            self._runner.run(ask(self._made, request))
        return self._runner.run(ask(self._made, request))


@pytest.fixture(scope="module", params=["asked once", "asked often"])
def shared(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shared]:
    """Run a service whose sources and remote keys nobody answers for.

    What is asked often is answered by the short ways and the engine's functions, where there are any.
    """
    often = request.param == "asked often"
    with asyncio.Runner() as runner, pytest.MonkeyPatch.context() as patch:
        if often:
            patch.setattr("engine.decider.USES", 1)
        context = service(tmp_path_factory.mktemp("policies"))
        yield Shared(runner, runner.run(context.__aenter__()), 3 if often else 1)
        runner.run(context.__aexit__(None, None, None))


def sent(options: Any) -> dict[str, str]:
    """Give header options by name, values of one name joined as an upstream would."""
    found: dict[str, str] = {}
    for option in options:
        found[option.header.key] = ",".join(filter(None, (found.get(option.header.key), option.header.value)))
    return found


def metadata(answer: auth.CheckResponse) -> dict[str, Any]:
    assert answer.dynamic_metadata is not None
    return dict(answer.dynamic_metadata.to_dict())


def status(answer: auth.CheckResponse) -> int:
    assert answer.status is not None
    return answer.status.code


def token_of(case: Mapping[str, Any]) -> str | None:
    given_token = case.get("token", {})
    if isinstance(given_token, dict):
        return user_token(**given_token)
    return None if given_token == "none" else given_token.removeprefix("raw:")


def request_of(case: Mapping[str, Any]) -> bytes:
    bearer = token_of(case)
    headers = list(case.get("send", {}).items())
    if bearer is not None:
        headers += [("authorization", f"Bearer {bearer}")] * (2 if case.get("repeat") else 1)
    if "body" in case:
        headers.append(("content-type", case.get("type", "application/json")))
    return check_request(
        case.get("method", "GET"),
        URL + case["path"],
        headers,
        body=case.get("body"),
        truncated=case.get("truncated", False),
    )


@pytest.mark.parametrize("name", FAILURES)
def test_what_goes_wrong_ends_as_the_table_says(name: str, shared: Shared) -> None:
    """Each row of the failure table has its gRPC code, HTTP status, reason and headers."""
    case = FAILURES[name]
    answer = shared.ask(request_of(case))
    assert status(answer) == case["code"], metadata(answer)
    if case["code"] == 0:
        assert answer.ok_response is not None
        assert metadata(answer)["reason"] == case["reason"]
        return
    refusal = answer.denied_response if case["code"] != 14 else answer.error_response
    assert refusal is not None
    assert refusal.status is not None
    assert refusal.status.code == case["status"]
    headers = sent(refusal.headers)
    assert {name: headers.get(name) for name in case.get("headers", {})} == case.get("headers", {})
    if "reason" in case:
        assert metadata(answer)["reason"] == case["reason"]
        assert headers["content-type"] == "application/problem+json"
        problem = json.loads(refusal.body)
        assert (problem["status"], problem["reason"]) == (case["status"], case["reason"])
        assert problem["decisionId"] == metadata(answer)["decision_id"]


async def test_threads_take_turns(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whichever threads ask, one request is attempted at a time; each has its answer, and is counted."""
    request = check_request("GET", f"{URL}/nothing/like/that", [])
    decode, inside, seen = wire.decode, 0, set[int]()

    def slowly(data: bytes, limits: Limits) -> HttpRequest:
        nonlocal inside
        inside += 1
        seen.add(inside)
        time.sleep(0.001)
        inside -= 1
        return decode(data, limits)

    async with service(tmp_path) as made:
        before = sum(made.authorizer.answered.values())
        monkeypatch.setattr(wire, "decode", slowly)
        asked = (asyncio.to_thread(made.authorizer.check, request) for _ in range(40))
        answers = await asyncio.gather(*asked)
        assert seen == {1}
        assert len({*answers}) == 40 == sum(made.authorizer.answered.values()) - before


async def test_an_allow_tells_the_upstream_who_asks_and_why(tmp_path: Path) -> None:
    """A policy's allow carries principal, roles and an output; everything of ours replaces the client's."""
    async with (
        fault_server(response(json.dumps(RECORD).encode())) as api,
        service(tmp_path, api=api.url("")) as made,
    ):
        request = check_request(
            url=f"{URL}/expenses/1?a=b",
            headers={"x-authz-principal": "root", "x_authz_roles": "admin", "x-authz.basis": "none"},
            token=user_token(roles=["user", "auditor"]),
        )
        answer = await ask(made, request)
    assert status(answer) == 0
    allowed = answer.ok_response
    assert allowed is not None
    assert sent(allowed.headers) == {
        "x-authz-principal": "alice",
        "x-authz-roles": "user,auditor",
        "x-authz-basis": "owner",
    }
    assert {"authorization", "x_authz_roles", "x-authz.basis"} <= set(allowed.headers_to_remove)
    assert set(allowed.headers_to_remove).isdisjoint(sent(allowed.headers))
    assert sent(allowed.response_headers_to_add) == {"x-policy": "resource.expense.vdefault"}
    found = metadata(answer)
    assert found.pop("decision_id")
    assert found == {
        "route": "expense",
        "action": "read",
        "reason": "policy.allowed",
        "policy": "resource.expense.vdefault",
    }


async def test_a_denial_tells_the_client_why(tmp_path: Path) -> None:
    """The output of the rule that did not hold becomes the reason in a header."""
    record = json.dumps({**RECORD, "ownerId": "bob"}).encode()
    async with fault_server(response(record)) as api, service(tmp_path, api=api.url("")) as made:
        answer = await ask(made, check_request(url=f"{URL}/expenses/1", token=user_token()))
    assert status(answer) == 7
    assert answer.denied_response is not None
    assert sent(answer.denied_response.headers)["x-denial-reason"] == "expense 1 is not yours"


def test_an_open_route_removes_owned_headers_too(shared: Shared) -> None:
    """Where nobody is asked who they are, nobody can say it either."""
    answer = shared.ask(check_request(url=f"{URL}/healthz", headers={"x-authz-roles": "admin"}))
    assert status(answer) == 0
    assert answer.ok_response is not None
    owned = {"x-authz-principal", "x-authz-roles", "x-authz-basis"}
    assert owned <= set(answer.ok_response.headers_to_remove)


def test_an_owned_header_without_a_value_is_removed(shared: Shared) -> None:
    """A header whose output is absent must not arrive as the client sent it."""
    answer = shared.ask(check_request(url=f"{URL}/open", headers={"x-authz-basis": "owner"}))
    assert answer.ok_response is not None
    assert "x-authz-basis" in answer.ok_response.headers_to_remove
    assert "x-authz-basis" not in sent(answer.ok_response.headers)


@pytest.mark.parametrize(
    ("query", "removed"),
    [
        ("", ["debug", "region"]),
        ("?region=NA", ["debug", "region"]),
        ("?%72egion=NA&%6fwner=bob&x=%72egion", ["%6fwner", "%72egion", "debug", "region"]),
        ("?debu%67=1", ["debu%67", "debug", "region"]),
    ],
)
def test_a_controlled_parameter_cannot_be_spelled_around(
    query: str, removed: list[str], shared: Shared
) -> None:
    """Parameters that a route sets or removes are removed in every other spelling as well."""
    answer = shared.ask(check_request(url=f"{URL}/list{query}", token=user_token()))
    assert answer.ok_response is not None
    changed = [(each.key, each.value) for each in answer.ok_response.query_parameters_to_set]
    assert changed == [("owner", "alice")]
    assert sorted(answer.ok_response.query_parameters_to_remove) == removed


async def test_a_record_is_awaited_and_then_remembered(tmp_path: Path) -> None:
    """The first request for a record waits for the source, the next one is answered at once."""
    async with (
        fault_server(response(json.dumps(RECORD).encode())) as api,
        service(tmp_path, api=api.url("")) as made,
    ):
        request = check_request(url=f"{URL}/expenses/1", token=user_token())
        first = made.authorizer.check(request)
        assert not isinstance(first, bytes)
        await first
        assert isinstance(made.authorizer.check(request), bytes)
        assert [each.target for each in api.received] == ["/expenses/1"]


async def test_a_source_without_a_cache_is_asked_once_for_each_request(tmp_path: Path) -> None:
    """What was fetched for a request serves this very request, although nothing is remembered."""
    async with (
        fault_server(response(json.dumps(RECORD).encode())) as api,
        service(tmp_path, api=api.url("")) as made,
    ):
        request = check_request(url=f"{URL}/uncached/1", token=user_token())
        assert status(await ask(made, request)) == 0
        assert status(await ask(made, request)) == 0
        assert len(api.received) == 2


@pytest.mark.parametrize(("path", "code"), [("/expenses/1", 404), ("/uncached/1", 403)])
async def test_a_record_that_is_not_there_denies(path: str, code: int, tmp_path: Path) -> None:
    """A 404 of the source is a 404 to the client, or with ``notFound: empty`` a record without attributes."""
    async with fault_server(response(b"{}", 404)) as api, service(tmp_path, api=api.url("")) as made:
        answer = await ask(made, check_request(url=URL + path, token=user_token()))
    assert status(answer) == 7
    assert answer.denied_response is not None
    assert answer.denied_response.status is not None
    assert answer.denied_response.status.code == code


async def test_a_source_that_hangs_is_a_failure_in_time(tmp_path: Path) -> None:
    """A source that does not answer within its timeout is a failure with a reason of its own."""
    hanging = fault_server(hang(response(b"{}")))
    async with hanging as api, service(tmp_path, api=api.url(""), timeout="50ms") as made:
        async with asyncio.timeout(5):
            answer = await ask(made, check_request(url=f"{URL}/expenses/1", token=user_token()))
        api.released.set()
    assert status(answer) == 14
    assert metadata(answer)["reason"] == "source.timeout"


def test_a_denial_that_cannot_be_sent_stays_a_denial(shared: Shared) -> None:
    """An output that no header can carry takes the decoration off a denial, not the denial."""
    request = check_request(url=f"{URL}/act/forbid-newline", headers={"x-id": "1"}, token=user_token())
    answer = shared.ask(request)
    assert status(answer) == 7
    assert answer.denied_response is not None
    assert answer.denied_response.status is not None
    assert answer.denied_response.status.code == 403
    assert "x-denial-reason" not in sent(answer.denied_response.headers)


async def test_a_bug_of_ours_is_a_failure(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """An exception that nobody expects ends in an error answer without its text, and in the log with it."""
    async with service(tmp_path) as made:

        def explode(*_: object) -> None:
            raise ZeroDivisionError("secret")

        monkeypatch.setattr(made.authorizer, "_decide", explode)
        answer = await ask(made, check_request(url=f"{URL}/open", token=user_token()))
    assert status(answer) == 14
    assert answer.error_response is not None
    assert "secret" not in answer.error_response.body
    assert metadata(answer)["reason"] == "internal"
    assert "secret" in caplog.text


def test_bytes_that_are_no_request_are_denied(shared: Shared) -> None:
    """What cannot be read is turned away, also where a gateway lets requests through on failures."""
    answer = shared.ask(b"\xff\xff\xff")
    assert status(answer) == 7
    assert metadata(answer)["reason"] == "request.malformed"


async def test_a_refusal_that_fails_is_a_failure(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """If even the making of a refusal fails, the answer is still an error answer, never an exception."""
    async with service(tmp_path) as made:

        def explode(*_: object) -> None:
            raise ZeroDivisionError

        monkeypatch.setattr(made.authorizer, "_refusal", explode)
        answer = await ask(made, check_request(url=f"{URL}/nowhere"))
    assert status(answer) == 14
    assert answer.error_response is not None


# --- invariants of answers (field notes, section 6.3) -----------------------------------------------------

paths = st.one_of(
    st.sampled_from(
        ["/healthz", "/open", "/expenses/1", "/list", "/internal", "/files/a%2fb", "/act/look", "/broken"]
    ),
    st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=20).map(lambda text: "/" + text),
)
names = st.sampled_from(
    ["x-authz-roles", "X-Authz-Roles", "x_authz_roles", "authorization", "cookie", "x-id", "host"]
)
values = st.one_of(
    st.text(st.characters(codec="utf-8"), max_size=20), st.sampled_from(["Bearer x", "sid=1", "*"])
)


@settings(max_examples=200, deadline=None)
@given(
    method=st.sampled_from(["GET", "POST", "DELETE", "OPTIONS", "get", "CONNECT", ""]),
    path=paths,
    headers=st.lists(st.tuples(names, values), max_size=6),
    authenticated=st.booleans(),
    raw=st.booleans(),
    both=st.booleans(),
    body=st.one_of(st.none(), st.text(max_size=20)),
)
def test_every_answer_keeps_the_invariants(
    shared: Shared,
    method: str,
    path: str,
    headers: list[tuple[str, str]],
    authenticated: bool,
    raw: bool,
    both: bool,
    body: str | None,
) -> None:
    """Code 0 comes only with an allow of a policy or a route, and headers are as Envoy needs them."""
    request = check_request(
        method,
        URL + path,
        headers,
        token=user_token() if authenticated else None,
        body=body,
        raw=raw,
        both=both,
    )
    answer = shared.ask(request)
    found = metadata(answer)
    assert {"decision_id", "reason"} <= set(found) <= {"decision_id", "route", "action", "reason", "policy"}
    code = status(answer)
    assert (code == 0) == (found["reason"] in {"policy.allowed", "route.allowed"})
    assert (code == 0) == (answer.ok_response is not None)
    assert (code in {7, 16}) == (answer.denied_response is not None)
    assert (code == 14) == (answer.error_response is not None)
    if answer.ok_response is not None:
        _check_allow(answer.ok_response)
    if answer.denied_response is not None:
        assert answer.denied_response.status is not None
        assert 300 <= answer.denied_response.status.code <= 599


def _check_allow(allowed: auth.OkHttpResponse) -> None:
    assert allowed.dynamic_metadata is None
    owned = {"x-authz-principal", "x-authz-roles", "x-authz-basis", "x-tenant"}
    set_names = {option.header.key for option in allowed.headers if option.header is not None}
    assert owned <= set_names | set(allowed.headers_to_remove)
    assert set_names.isdisjoint(allowed.headers_to_remove)
    seen: set[str] = set()
    for option in allowed.headers:
        assert option.header is not None
        first = option.header.key not in seen
        assert option.append is (not first)
        assert (option.append_action == OVERWRITE) == first
        seen.add(option.header.key)


@settings(max_examples=200, deadline=None)
@given(data=st.binary(max_size=300))
def test_no_bytes_whatsoever_are_allowed(shared: Shared, data: bytes) -> None:
    """Bytes that chance made are answered, and never with code 0 unless they ask for an open route."""
    answer = shared.ask(data)
    assert status(answer) != 0 or metadata(answer)["route"] in {"GET /healthz", "/open"}
