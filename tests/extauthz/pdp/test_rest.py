"""The PDP API over HTTP, as its clients see it: places, codes, bodies, limits, other origins."""

from __future__ import annotations

import asyncio
import json
import logging
from typing import TYPE_CHECKING, Any

import httpx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from engine.engine import Engine
from extauthz.decision_ids import decision_ids
from extauthz.pdp import Pdp
from extauthz.pdp.auxdata import AuxDataReader
from extauthz.pdp.cors import Cors
from extauthz.pdp.rest import Limits, Rest
from extauthz.pdp.service import PdpService
from extauthz.pdp.version import version
from extauthz.transport.http import application

if TYPE_CHECKING:
    from pathlib import Path

POLICY = """
apiVersion: api.cerbos.dev/v1
resourcePolicy:
  resource: doc
  version: default
  rules:
    - actions: [view]
      effect: EFFECT_ALLOW
      roles: [user]
      output: {when: {ruleActivated: '"seen by " + P.id'}}
    - {actions: [endless], effect: EFFECT_ALLOW, roles: [user], output: {when: {ruleActivated: 1.0 / 0.0}}}
"""
CHECK = "/api/check/resources"
QUESTION = {
    "requestId": "r1",
    "principal": {"id": "ann", "roles": ["user"]},
    "resources": [{"actions": ["view", "edit"], "resource": {"kind": "doc", "id": "1"}}],
}


@pytest.fixture(scope="module")
def pdp(tmp_path_factory: pytest.TempPathFactory) -> Pdp:
    """Make the calls, on one policy."""
    directory: Path = tmp_path_factory.mktemp("policies")
    (directory / "doc.yaml").write_text(POLICY, encoding="utf-8")
    return Pdp(Engine.from_directory(directory), AuxDataReader({}), decision_ids())


def health(service: str) -> bool | None:
    """Know two services, of which one is not well."""
    return {"": True, "sick": False}.get(service)


def rest(pdp: Pdp, **options: Any) -> Rest:
    """Make the application."""
    return PdpService(pdp, **options).rest(health)


async def ask(app: Rest, path: str, body: object = None, verb: str = "", **options: Any) -> httpx.Response:
    """Send one request; *body* is JSON, or bytes as they are."""
    transport = httpx.ASGITransport(application(lambda: None, app))  # type: ignore[arg-type]  # readiness is not asked
    content = body if isinstance(body, bytes) else None if body is None else json.dumps(body)
    async with httpx.AsyncClient(transport=transport, base_url="http://pdp.example.com") as client:
        return await client.request(
            verb or ("GET" if body is None else "POST"), path, content=content, **options
        )


# --- calls ------------------------------------------------------------------------------------------------


async def test_an_answer(pdp: Pdp) -> None:
    """A check is answered in JSON, with our version and an id of the call."""
    answer = await ask(rest(pdp), CHECK, QUESTION)
    assert answer.status_code == 200
    assert answer.headers["content-type"] == "application/json"
    assert answer.headers["grpc-metadata-cerbos-version"] == version()
    body = answer.json()
    assert len(body.pop("cerbosCallId")) == 26
    assert body == {
        "requestId": "r1",
        "results": [
            {
                "resource": {"id": "1", "kind": "doc"},
                "actions": {"view": "EFFECT_ALLOW", "edit": "EFFECT_DENY"},
                "outputs": [
                    {"src": "resource.doc.vdefault#rule-001", "action": "view", "val": "seen by ann"}
                ],
            }
        ],
    }


@pytest.mark.parametrize("asking", [{"params": "pretty"}, {"headers": {"accept": "application/json+pretty"}}])
async def test_pretty(pdp: Pdp, asking: dict[str, Any]) -> None:
    """Whoever asks for it gets text in lines, for answers and for refusals."""
    assert "\n" in (await ask(rest(pdp), CHECK, QUESTION, **asking)).text
    assert "\n" in (await ask(rest(pdp), CHECK, {"foo": 1}, **asking)).text
    assert "\n" not in (await ask(rest(pdp), CHECK, QUESTION)).text


async def test_a_number_without_end_is_an_error_of_the_output(pdp: Pdp) -> None:
    """JSON has no infinity: where Cerbos fails with 500, the decision stands and the output says why not."""
    question = {**QUESTION, "resources": [{"actions": ["endless"], "resource": {"kind": "doc", "id": "1"}}]}
    answer = await ask(rest(pdp), CHECK, question)
    (result,) = answer.json()["results"]
    assert result["actions"] == {"endless": "EFFECT_ALLOW"}
    assert result["outputs"][0]["error"]
    assert "val" not in result["outputs"][0]


async def test_server_info(pdp: Pdp) -> None:
    """The version compares like that of the Cerbos whose API this is, and says who we are."""
    answer = await ask(rest(pdp), "/api/server_info")
    assert answer.json() == {"version": version()}
    assert version().startswith("0.55.0+extauthz.")


@pytest.mark.parametrize(
    ("verb", "path", "status", "body"),
    [
        ("POST", "/api/nope", 404, {"code": 5, "message": "Not Found"}),
        ("GET", "/api/check/resources/", 404, {"code": 5, "message": "Not Found"}),
        ("GET", CHECK, 501, {"code": 12, "message": "Method Not Allowed"}),
        ("PUT", "/api/server_info", 501, {"code": 12, "message": "Method Not Allowed"}),
        ("OPTIONS", CHECK, 501, {"code": 12, "message": "Method Not Allowed"}),
        (
            "POST",
            "/admin/policy",
            501,
            {"code": 12, "message": "Admin service is disabled by the configuration"},
        ),
        (
            "POST",
            "/api/playground/validate",
            501,
            {"code": 12, "message": "Playground service is disabled by the configuration"},
        ),
        ("GET", "/_cerbos/health", 200, {"status": "SERVING"}),
        ("GET", "/_cerbos/health?service=sick", 503, {"code": 14, "message": "status:NOT_SERVING"}),
        ("GET", "/_cerbos/health?service=other", 404, {"code": 5, "message": "unknown service"}),
        ("POST", CHECK, 400, {"code": 3, "message": 'proto: (line 1:2): unknown field "foo"'}),
    ],
)
async def test_codes(pdp: Pdp, verb: str, path: str, status: int, body: object) -> None:
    """What is not there, not for this verb or not right has Cerbos's code and words."""
    answer = await ask(rest(pdp), path, {"foo": 1} if verb == "POST" else None, verb)
    assert (answer.status_code, answer.json()) == (status, body)


async def test_broken_rules_come_with_details(pdp: Pdp) -> None:
    """A request that breaks a rule is told which, in a form for programs too."""
    answer = await ask(rest(pdp), CHECK, {**QUESTION, "principal": {"id": "ann"}})
    assert answer.status_code == 400
    body = answer.json()
    assert body["message"] == "validation error: principal.roles: value is required"
    (detail,) = body["details"]
    assert detail["@type"] == "type.googleapis.com/buf.validate.Violations"
    assert detail["violations"][0]["field"]["elements"][1] == {
        "fieldNumber": 3,
        "fieldName": "roles",
        "fieldType": "TYPE_STRING",
    }


async def test_a_bug_is_told_without_its_text(
    pdp: Pdp, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What fails inside is a 500 that says nothing of the inside; the log has it."""

    async def fail(_: object) -> None:
        raise ValueError("the inside")

    monkeypatch.setattr(pdp, "server_info", fail)
    with caplog.at_level(logging.ERROR):
        answer = await ask(rest(pdp), "/api/server_info")
    assert (answer.status_code, answer.json()) == (500, {"code": 13, "message": "the call failed"})
    assert "the inside" in caplog.text


# --- bodies -----------------------------------------------------------------------------------------------


async def test_large_bodies(pdp: Pdp) -> None:
    """A body may have as many bytes as the limit says, whether or not its length is announced."""
    app = rest(pdp, body_limits=Limits(max_body_bytes=1000))
    fits = b'{"requestId":"' + b"a" * 984 + b'"}'

    async def parts(body: bytes) -> Any:
        for at in range(0, len(body), 100):
            yield body[at : at + 100]

    assert (await ask(app, CHECK, fits)).json()["message"].startswith("validation errors")
    for body in (fits + b" ", parts(fits + b" ")):
        transport = httpx.ASGITransport(app)
        async with httpx.AsyncClient(transport=transport, base_url="http://a") as client:
            answer = await client.post(CHECK, content=body)
        assert answer.status_code == 413
        assert answer.json()["code"] == 8
        assert answer.headers["connection"] == "close"


async def test_large_bodies_are_read_beside_the_loop(pdp: Pdp) -> None:
    """While a body of megabytes is read, the loop goes on."""
    turns = 0

    async def count() -> None:
        nonlocal turns
        while True:
            await asyncio.sleep(0)
            turns += 1

    body = b'{"principal":{"attr":{"a":[' + b"0," * 150_000 + b"0]}}}"
    counting = asyncio.create_task(count())
    answer = await ask(rest(pdp), CHECK, body)
    counting.cancel()
    assert answer.status_code == 400
    assert turns > 20


async def _scope(app: Rest, receive: Any) -> list[Any]:
    sent: list[Any] = []

    async def send(message: Any) -> None:
        sent.append(message)

    scope = {"type": "http", "method": "POST", "path": CHECK, "query_string": b"", "headers": []}
    await app(scope, receive, send)
    return sent


async def test_slow_bodies(pdp: Pdp) -> None:
    """A body that does not come is not waited for."""
    app = rest(pdp, body_limits=Limits(read_timeout=0.01))
    sent = await _scope(app, lambda: asyncio.sleep(60))
    assert sent[0]["status"] == 408


async def test_clients_that_leave(pdp: Pdp) -> None:
    """Nobody is answered who has gone."""

    async def gone() -> dict[str, str]:
        return {"type": "http.disconnect"}

    assert await _scope(rest(pdp), gone) == []


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.binary(max_size=100)
    | st.recursive(
        st.none() | st.booleans() | st.floats() | st.text(max_size=3),
        lambda inner: (
            st.lists(inner, max_size=3)
            | st.dictionaries(
                st.sampled_from(
                    [
                        "principal",
                        "resources",
                        "id",
                        "roles",
                        "attr",
                        "kind",
                        "resource",
                        "actions",
                        "auxData",
                        "jwt",
                    ]
                ),
                inner,
                max_size=4,
            )
        ),
    ).map(lambda value: json.dumps(value).encode())
)
def test_any_body_is_answered(pdp: Pdp, body: bytes) -> None:
    """Whatever is sent, the answer is a decision or a refusal, never a failure."""
    answer = asyncio.run(ask(rest(pdp), CHECK, body))
    assert answer.status_code in {200, 400}
    assert "code" in answer.json() or "cerbosCallId" in answer.json()


# --- other origins ----------------------------------------------------------------------------------------

PAGE = "https://app.example.com"
PREFLIGHT = {"origin": PAGE, "access-control-request-method": "POST"}


async def test_cors(pdp: Pdp) -> None:
    """By default pages of any origin may ask, with the usual headers; other headers get no permission."""
    app = rest(pdp, cors=Cors())
    answer = await ask(app, CHECK, QUESTION, headers={"origin": PAGE})
    assert answer.headers["access-control-allow-origin"] == "*"
    assert answer.headers["vary"] == "Origin"
    asked = {**PREFLIGHT, "access-control-request-headers": "content-type"}
    before = await ask(app, CHECK, verb="OPTIONS", headers=asked)
    assert before.status_code == 204
    assert before.headers["access-control-allow-headers"] == "content-type"
    assert before.headers["access-control-allow-methods"] == "POST"
    asked["access-control-request-headers"] = "content-type,x-secret"
    refused = await ask(app, CHECK, verb="OPTIONS", headers=asked)
    assert (refused.status_code, "access-control-allow-origin" in refused.headers) == (204, False)


async def test_without_cors(pdp: Pdp) -> None:
    """When it is disabled nothing is said about origins."""
    answer = await ask(rest(pdp), CHECK, QUESTION, headers={"origin": PAGE})
    assert "access-control-allow-origin" not in answer.headers
    assert (await ask(rest(pdp), CHECK, verb="OPTIONS", headers=PREFLIGHT)).status_code == 501


@pytest.mark.parametrize(
    ("pattern", "origin", "allowed"),
    [
        (PAGE, PAGE, True),
        (PAGE, PAGE.upper(), True),
        (PAGE, "https://app.example.com.evil.example", False),
        ("https://*.example.com", PAGE, True),
        ("https://*.example.com", "https://example.com", False),
        ("https://*.example.com", "https://app.example.com.evil.example", False),
        ("https://a*a.example", "https://a.example", False),
        ("*", "null", True),
        (PAGE, "", False),
    ],
)
def test_origins(pattern: str, origin: str, allowed: bool) -> None:
    """An origin is allowed when it is listed, or fits a pattern with one star."""
    names = [name for name, _ in Cors((pattern,)).answer(origin)]
    assert (b"access-control-allow-origin" in names) is allowed


def test_preflight_answers_may_be_remembered() -> None:
    """The browser is told for how long."""
    assert (b"access-control-max-age", b"60") in Cors(max_age=60).preflight(PREFLIGHT)
    assert all(name != b"access-control-max-age" for name, _ in Cors().preflight(PREFLIGHT))


# --- pages, logs ------------------------------------------------------------------------------------------


async def test_pages(pdp: Pdp) -> None:
    """The explorer and the description of the API are there unless they are switched off."""
    page = await ask(rest(pdp), "/")
    assert page.headers["content-type"].startswith("text/html")
    assert "content-security-policy" in page.headers
    assert (await ask(rest(pdp), "/schema/swagger.json")).json()["swagger"] == "2.0"
    assert (await ask(rest(pdp, explorer=False), "/")).status_code == 404


async def test_payloads_are_logged_when_asked_for(pdp: Pdp, caplog: pytest.LogCaptureFixture) -> None:
    """With `logRequestPayloads` the log has what was asked and answered, otherwise it has not."""
    with caplog.at_level(logging.INFO):
        await ask(rest(pdp), CHECK, QUESTION)
        assert "ann" not in str([vars(record) for record in caplog.records])
        await ask(rest(pdp, log_payloads=True), CHECK, QUESTION)
    contents = [vars(record)["content"] for record in caplog.records if hasattr(record, "content")]
    assert json.loads(contents[0]) == QUESTION
    assert "EFFECT_ALLOW" in contents[1]
