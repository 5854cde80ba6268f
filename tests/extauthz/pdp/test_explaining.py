"""ExplainResources: the answers of CheckResources with the way to them, and not more than one can bear."""

from __future__ import annotations

import asyncio
import gc
import json
import time
from random import Random
from typing import TYPE_CHECKING, Any

import httpx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.compile import compile_policies
from engine.document import parse
from engine.engine import Engine
from engine.load import PolicyError, load_document
from engine.rules import Settings
from extauthz.pdp import Code, Pdp, PdpError, RequestLimits, explaining, protojson
from extauthz.pdp.auxdata import AuxDataReader
from extauthz.pdp.explaining import Explaining
from extauthz.pdp.messages import CheckResourcesRequest, Principal, Resource, ResourceEntry
from extauthz.pdp.service import PdpService
from extauthz.pdp.services import OURS
from extauthz.transport.http import application
from tests.differential.policies import policy_set
from tests.differential.requests import request as random_request
from tests.engine.tables import MODES
from tests.extauthz.key_server import token
from tests.extauthz.pdp.running import running
from tests.extauthz.pdp.test_auxdata import key_set

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from extauthz.pdp.rest import Rest

POLICY = """
apiVersion: api.cerbos.dev/v1
resourcePolicy:
  resource: doc
  version: default
  rules:
    - name: open
      actions: [view]
      effect: EFFECT_ALLOW
      roles: [user]
      condition: {match: {expr: R.attr.open == true}}
    - name: mine
      actions: [edit]
      effect: EFFECT_ALLOW
      roles: ["*"]
      condition: {match: {expr: request.auxData.jwt.sub == P.id}}
    - name: failing
      actions: [fail]
      effect: EFFECT_DENY
      roles: [user]
      condition: {match: {expr: R.attr.x > 1}}
    - {name: any, actions: [fail], effect: EFFECT_ALLOW, roles: [user]}
    - name: all
      actions: ["*"]
      effect: EFFECT_DENY
      roles: ["*"]
      condition: {match: {expr: size(R.attr) > 9}}
"""
PATH = "/api/explain/resources"
QUESTION = {
    "requestId": "r1",
    "includeMeta": True,
    "principal": {"id": "ann", "roles": ["user"]},
    "resources": [
        {"actions": ["view", "edit"], "resource": {"kind": "doc", "id": "1", "attr": {"open": True}}},
        {"actions": ["view"], "resource": {"kind": "other", "id": "2", "attr": {"n": 2.5}}},
    ],
}


@pytest.fixture(scope="module")
def policies(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Write the policy."""
    directory = tmp_path_factory.mktemp("policies")
    (directory / "doc.yaml").write_text(POLICY, encoding="utf-8")
    return directory


@pytest.fixture(scope="module")
def engine(policies: Path) -> Engine:
    """Load the policy."""
    return Engine.from_directory(policies)


def made(engine: Any, **options: Any) -> Pdp:
    """Make the calls on an engine."""
    return Pdp(engine, AuxDataReader({"idp": key_set("idp", "rsa")}), lambda: "call", **options)


def question(
    *actions: str, roles: Sequence[str] = ("user",), attr: Mapping[str, Any]
) -> CheckResourcesRequest:
    """Ask about one document."""
    entry = ResourceEntry(actions, Resource("doc", id="1", attr=attr))
    return CheckResourcesRequest("r", principal=Principal("ann", roles=tuple(roles)), resources=(entry,))


async def explained(pdp: Pdp, request: CheckResourcesRequest) -> Any:
    """Explain, and return the answer as it is written."""
    return protojson.write(await Explaining(pdp).explain_resources(request))


def rest(pdp: Pdp, *, explain: bool = True) -> Rest:
    """Make the application."""
    return PdpService(pdp, explain=explain).rest(lambda _: True)


async def ask(app: Rest, body: object, path: str = PATH) -> httpx.Response:
    """Send one request."""
    transport = httpx.ASGITransport(application(lambda: None, app))  # type: ignore[arg-type]  # readiness is not asked
    async with httpx.AsyncClient(transport=transport, base_url="http://pdp.example.com") as client:
        return await client.post(path, content=json.dumps(body))


# --- answers ----------------------------------------------------------------------------------------------


def random_engine(random: Random) -> Engine:
    """Make an engine of policies of every kind."""
    texts = {
        name: json.dumps(policy, ensure_ascii=False)
        for name, policy in policy_set(random).items()
        if "/_" not in name
    }
    return Engine(compile_policies([load_document(parse(texts[name], name)) for name in texts], Settings()))


@settings(max_examples=12, deadline=None)
@given(st.integers(0, 2**32), st.sampled_from(MODES))
def test_what_is_explained_is_what_is_decided(seed: int, mode: Any) -> None:
    """Whatever the policies and the request, the answer is that of CheckResources, with explanations."""
    random = Random(seed)  # noqa: S311 - reproducible, not secret
    pdp = made(random_engine(random), evaluation=mode)
    body = json.dumps(random_request(random, 3) | {"includeMeta": True}).encode()
    request = protojson.decode(CheckResourcesRequest, body)
    answer = asyncio.run(explained(pdp, request))
    explanations = [result.pop("explanation") for result in answer["results"]]
    assert answer == protojson.write(asyncio.run(pdp.check_resources(request)))
    for result, explanation in zip(answer["results"], explanations, strict=True):
        said = {each["action"]: each["decision"]["effect"] for each in explanation["actions"]}
        assert said == result["actions"]


async def test_an_answer(engine: Engine) -> None:
    """An answer over HTTP has what CheckResources says, and for each action the way to it."""
    answer = await ask(rest(made(engine)), QUESTION)
    assert answer.status_code == 200
    first, second = answer.json()["results"]
    assert first["actions"] == {"view": "EFFECT_ALLOW", "edit": "EFFECT_DENY"}
    assert first["meta"]["actions"]["view"] == {"matchedPolicy": "resource.doc.vdefault"}
    view, edit = first["explanation"]["actions"]
    rule, _ = view["walks"][0]["scopes"][0]["rules"]
    assert (rule["name"], rule["outcome"], rule["place"]) == ("open", "activated", "doc.yaml:7:7")
    assert rule["condition"]["references"] == [{"name": "R.attr.open", "value": True}]
    assert edit["walks"][0]["scopes"][0]["rules"][0]["condition"]["error"] == "no such key: sub"
    assert second["explanation"]["actions"][0]["reason"].startswith("no policy is about this kind")


async def test_claims_of_verified_tokens_are_read(engine: Engine) -> None:
    """A token is verified as for CheckResources, and what it says is shown."""
    good = {"jwt": {"token": token({"sub": "ann", "exp": int(time.time()) + 60})}}
    (result, _) = (await ask(rest(made(engine)), QUESTION | {"auxData": good})).json()["results"]
    assert result["actions"]["edit"] == "EFFECT_ALLOW"
    condition = result["explanation"]["actions"][1]["walks"][0]["scopes"][0]["rules"][0]["condition"]
    assert {"name": "request.auxData.jwt.sub", "value": "ann"} in condition["references"]


@pytest.mark.parametrize(
    ("mode", "outcome"), [("lenient", "condition not met"), ("safe", "denied by an error")]
)
async def test_modes(engine: Engine, mode: Any, outcome: str) -> None:
    """What an error means is what it means for CheckResources."""
    answer = await explained(made(engine, evaluation=mode), question("fail", attr={}))
    (walk,) = answer["results"][0]["explanation"]["actions"][0]["walks"]
    assert walk["scopes"][0]["rules"][0]["outcome"] == outcome


# --- refusals ---------------------------------------------------------------------------------------------


FAULTY: list[dict[str, Any]] = [
    {"foo": 1},
    {},
    QUESTION | {"resources": [{"actions": ["a", "a"], "resource": {"kind": "doc", "id": "1"}}]},
    QUESTION | {"resources": [{"actions": ["a", "b", "c"], "resource": {"kind": "doc", "id": "1"}}]},
    QUESTION | {"resources": [{"actions": ["a"], "resource": {"kind": "doc", "id": "1"}}] * 3},
    QUESTION | {"auxData": {"jwt": {"token": "a.b.c"}}},
]


@pytest.mark.parametrize("body", FAULTY)
async def test_what_checking_refuses_explaining_refuses(engine: Engine, body: dict[str, Any]) -> None:
    """Rules, limits and tokens are those of CheckResources, and so are the words."""
    app = rest(made(engine, limits=RequestLimits(2, 2)))
    refused, wanted = await ask(app, body), await ask(app, body, "/api/check/resources")
    assert (refused.status_code, refused.json()) == (wanted.status_code, wanted.json())
    assert refused.status_code == 400


async def test_off(engine: Engine) -> None:
    """Where explanations are off, the call answers as a service that is disabled."""
    answer = await ask(rest(made(engine), explain=False), QUESTION)
    assert answer.status_code == 501
    assert answer.json() == {"code": 12, "message": "Explain service is disabled by the configuration"}


def test_not_over_grpc(engine: Engine) -> None:
    """Over gRPC nothing is explained."""
    assert OURS not in PdpService(made(engine), explain=True).rpc().procedures


@pytest.mark.parametrize(
    ("failure", "code"), [(PolicyError([]), Code.FAILED_PRECONDITION), (ZeroDivisionError(), Code.INTERNAL)]
)
async def test_failures_tell_nothing(
    engine: Engine, failure: Exception, code: Code, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What goes wrong inside is told in Cerbos's words alone."""

    def fail(*_: Any, **__: Any) -> None:
        raise failure

    monkeypatch.setattr("extauthz.pdp.calls.explain", fail)
    with pytest.raises(PdpError) as error:
        await explained(made(engine), question("view", attr={}))
    assert error.value.code is code
    assert error.value.message.startswith(("Policy check failed", "Check failed due to invalid policy"))


# --- bounds -----------------------------------------------------------------------------------------------


ACTIONS = [f"a{index}" for index in range(49)]


@pytest.mark.parametrize(
    ("roles", "attr", "too_much"),
    [
        ([f"r{index}" for index in range(20_000)], {}, "work"),
        (["user"], {"many": [[1.0] * 400] * 500}, "work"),
        (["user"], {"long": "x" * 3_000_000}, "work"),
        ([f"r{index}" for index in range(120)], {}, "answer"),
    ],
)
async def test_an_answer_is_not_many_times_its_request(
    engine: Engine, roles: Any, attr: Any, too_much: str
) -> None:
    """Roles, values or texts that would make an explanation too long are refused, and that at once."""
    started = time.monotonic()
    with pytest.raises(PdpError) as error:
        await explained(made(engine), question("all", *ACTIONS, roles=roles, attr=attr))
    assert time.monotonic() - started < 20
    assert error.value.code is Code.INVALID_ARGUMENT
    assert error.value.message.endswith(f"({too_much}): {explaining.FEWER}")


async def test_what_is_just_short_enough_is_answered(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    """The bound of an answer is the length of its explanations, as good as exactly."""
    request = question("view", "edit", attr={"open": True, "ünï": [1.0, None, {"a": "b"}]})
    answer = await explained(made(engine), request)
    length = len(json.dumps([each["explanation"] for each in answer["results"]], ensure_ascii=False))
    monkeypatch.setattr(explaining, "MAX_CHARACTERS", length + length // 10)
    assert await explained(made(engine), request) == answer
    monkeypatch.setattr(explaining, "MAX_CHARACTERS", length - length // 10)
    with pytest.raises(PdpError):
        await explained(made(engine), request)


@settings(max_examples=8, deadline=None)
@given(st.integers(0, 2**32))
def test_the_estimate_is_from_above(seed: int) -> None:
    """An explanation never names more rules than was estimated."""
    random = Random(seed)  # noqa: S311 - reproducible, not secret
    pdp = made(random_engine(random))
    body = json.dumps(random_request(random, 2)).encode()
    questions = asyncio.run(pdp.questions(protojson.decode(CheckResourcesRequest, body)))
    for asked, explanation in zip(questions, pdp.explain(pdp.table, questions), strict=True):
        scopes = [s for action in explanation.actions for walk in action.walks for s in walk.scopes]
        named = sum(len(scope.rules) + len(scope.others) for scope in scopes)
        assert named <= explaining._named(pdp.table, asked)


async def test_others_do_not_wait(engine: Engine) -> None:
    """While something long is explained, the event loop goes on."""
    request = question("all", *ACTIONS, roles=["user", *(f"r{n}" for n in range(20))], attr={})
    waits = []

    async def watch() -> None:
        while True:
            before = time.monotonic()
            await asyncio.sleep(0.001)
            waits.append(time.monotonic() - before)

    gc.freeze()  # to walk through what other tests have left would hold the loop up as well
    try:
        watching = asyncio.create_task(watch())
        await asyncio.sleep(0)
        started = time.monotonic()
        await Explaining(made(engine)).explain_resources(request)
        took = time.monotonic() - started
        watching.cancel()
    finally:
        gc.unfreeze()
    assert len(waits) > 3
    assert max(waits) < max(0.5 * took, 0.25)


# --- the configuration ------------------------------------------------------------------------------------


@pytest.mark.parametrize("explain", [False, True])
def test_the_configuration_switches_it_on(policies: Path, explain: bool) -> None:
    """`pdp.explain` decides whether there is the call, and whether the document tells of it."""
    said = "pdp: {explain: true}\n" if explain else ""
    text = f"{said}storage: {{driver: disk, disk: {{directory: {policies}}}}}\n"
    with running(text) as service, service.served.client() as client:
        answer = client.post(PATH, json=QUESTION)
        paths = client.get("/schema/swagger.json").json()["paths"]
    assert answer.status_code == (200 if explain else 501)
    assert (PATH in paths) is explain
