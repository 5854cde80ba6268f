"""The calls of the PDP API on values: limits, the time, evaluation modes, what goes wrong inside."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from engine.engine import Engine
from engine.load import PolicyError
from extauthz.decision_ids import decision_ids
from extauthz.pdp import Code, Pdp, PdpError, RequestLimits, calls
from extauthz.pdp.apart import apart
from extauthz.pdp.auxdata import AuxDataReader
from extauthz.pdp.calls import LONG_TEXT, MANY, MANY_VALUES
from extauthz.pdp.messages import (
    AttributesMap,
    BatchEffects,
    BatchEntry,
    CheckResourceBatchRequest,
    CheckResourceSetRequest,
    CheckResourcesRequest,
    EffectMeta,
    InstanceEffects,
    PlanResource,
    PlanResourcesRequest,
    Principal,
    Resource,
    ResourceEntry,
    ResourceSet,
    ResultMeta,
    ServerInfoRequest,
)

if TYPE_CHECKING:
    from pathlib import Path

POLICY = """
apiVersion: api.cerbos.dev/v1
resourcePolicy:
  resource: doc
  version: default
  rules:
    - {actions: [view], effect: EFFECT_ALLOW, roles: [user], condition: {match: {expr: R.attr.open}}}
    - {actions: [view], effect: EFFECT_DENY, roles: [user], condition: {match: {expr: R.attr.missing == 1}}}
    - {actions: [now], effect: EFFECT_ALLOW, roles: [user], output: {when: {ruleActivated: now()}}}
"""
ANN = Principal("ann", roles=("user",))
OPEN, SHUT = {"open": True}, {"open": False}


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Engine:
    """Load the policy."""
    directory: Path = tmp_path_factory.mktemp("policies")
    (directory / "doc.yaml").write_text(POLICY, encoding="utf-8")
    return Engine.from_directory(directory)


def made(engine: Any, **options: Any) -> Pdp:
    """Make the calls on an engine."""
    return Pdp(engine, AuxDataReader({}), decision_ids(), **options)


def entry(*actions: str, id: str = "1", attr: Any = OPEN) -> ResourceEntry:  # noqa: A002  # the field's name
    """Ask about one document."""
    return ResourceEntry(actions, Resource("doc", id=id, attr=attr))


async def test_reasons(engine: Engine) -> None:
    """Who wants to know is told which policy decided."""
    request = CheckResourcesRequest("r", True, ANN, (entry("view"),))
    (result,) = (await made(engine).check_resources(request)).results
    assert result.meta == ResultMeta({"view": EffectMeta("resource.doc.vdefault")})
    (plain,) = (await made(engine).check_resources(request._replace(include_meta=False))).results
    assert plain.meta is None


@pytest.mark.parametrize(("mode", "effect"), [("lenient", "ALLOW"), ("strict", "DENY"), ("safe", "DENY")])
async def test_modes(engine: Engine, mode: Any, effect: str) -> None:
    """What a failing condition of a DENY rule means is chosen for the API alone."""
    pdp = made(engine, evaluation=mode)
    answer = await pdp.check_resources(CheckResourcesRequest(principal=ANN, resources=(entry("view"),)))
    assert answer.results[0].actions == {"view": f"EFFECT_{effect}"}


async def test_the_same_time_for_all(engine: Engine) -> None:
    """`now()` is one moment in a call, however many resources it names."""
    request = CheckResourcesRequest(principal=ANN, resources=(entry("now"),) * 50)
    answer = await made(engine).check_resources(request)
    assert len({result.outputs[0].val for result in answer.results}) == 1


@pytest.fixture(name="threads")
def counted_threads(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """List what is called in a thread."""
    threads = []
    in_thread = apart

    async def counted(*args: Any) -> Any:
        threads.append(args)
        return await in_thread(*args)

    monkeypatch.setattr(calls, "apart", counted)
    return threads


async def test_many_actions_are_decided_beside_the_loop(engine: Engine, threads: list[Any]) -> None:
    """A request of many actions has its answer from a thread: the same answer."""
    actions = tuple(f"a{n}" for n in range(49))
    entries = tuple(entry("view", *actions, id=str(n)) for n in range(MANY // 50 + 1))
    answer = await made(engine).check_resources(CheckResourcesRequest(principal=ANN, resources=entries))
    assert len(threads) == 1
    assert [result.resource.id for result in answer.results if result.resource] == [
        str(n) for n in range(len(entries))
    ]
    assert all(result.actions["view"] == "EFFECT_ALLOW" for result in answer.results)


MUCH = {
    "numbers": {"much": list(range(MANY_VALUES))},
    "members": {str(n): n for n in range(MANY_VALUES + 1)},
    "lists": {"much": [[n] * 10 for n in range(MANY_VALUES // 10)]},
    "text": {"much": "x" * MANY_VALUES * LONG_TEXT},
}
LITTLE = {"open": True, "few": list(range(10)), "text": "x" * 100, "more": {"a": [1, {"b": 2}]}}


@pytest.mark.parametrize("attr", MUCH.values(), ids=MUCH)
@pytest.mark.parametrize("of", ["principal", "resource"])
async def test_many_values_are_looked_at_beside_the_loop(
    engine: Engine, threads: list[Any], of: str, attr: Any
) -> None:
    """Conditions on many values may take long: checks and plans over them have answers from a thread."""
    principal = ANN._replace(attr=attr) if of == "principal" else ANN
    resource = attr if of == "resource" else OPEN
    calls = made(engine)
    await calls.check_resources(CheckResourcesRequest("", False, principal, (entry("view", attr=resource),)))
    assert len(threads) == 1
    planned = PlanResource("doc", attr=resource)
    await calls.plan_resources(PlanResourcesRequest("", "view", (), principal, planned))
    assert len(threads) == 2


async def test_many_roles_are_looked_at_beside_the_loop(engine: Engine, threads: list[Any]) -> None:
    """Each role is a way through the policies: a principal of many has the answer from a thread."""
    principal = ANN._replace(roles=tuple(f"r{n}" for n in range(MANY_VALUES + 1)))
    await made(engine).check_resources(CheckResourcesRequest("", False, principal, (entry("view"),)))
    assert len(threads) == 1


async def test_little_is_decided_at_once(engine: Engine, threads: list[Any]) -> None:
    """An ordinary request does not pay for a thread."""
    request = CheckResourcesRequest("", False, ANN._replace(attr=LITTLE), (entry("view", attr=LITTLE),) * 5)
    calls = made(engine)
    await calls.check_resources(request)
    await calls.plan_resources(PlanResourcesRequest("", "view", (), request.principal, PlanResource("doc")))
    assert threads == []


async def test_deciding_ends(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    """A request whose decisions take too long is refused between two of them."""
    monkeypatch.setattr("extauthz.pdp.calls.DECIDING", -1.0)
    with pytest.raises(PdpError, match="ask about fewer resources") as caught:
        await made(engine).check_resources(CheckResourcesRequest("", False, ANN, (entry("view"),)))
    assert caught.value.code is Code.TOO_LARGE


async def test_a_set(engine: Engine) -> None:
    """The deprecated call on instances answers by instance, with reasons when they are wanted."""
    instances = {"1": AttributesMap(OPEN), "2": AttributesMap(SHUT)}
    request = CheckResourceSetRequest(
        "r", ("view",), ANN, ResourceSet("doc", instances=instances), include_meta=True
    )
    answer = await made(engine).check_resource_set(request)
    assert answer.resource_instances == {
        "1": InstanceEffects({"view": "EFFECT_ALLOW"}),
        "2": InstanceEffects({"view": "EFFECT_DENY"}),
    }
    assert answer.meta is not None
    assert answer.meta.resource_instances["2"].actions["view"].matched_policy == "resource.doc.vdefault"


async def test_a_batch(engine: Engine) -> None:
    """The deprecated call on a batch answers in order."""
    request = CheckResourceBatchRequest(
        "r", ANN, tuple(BatchEntry(("view",), Resource("doc", id=name)) for name in ("1", "2"))
    )
    answer = await made(engine).check_resource_batch(request)
    assert answer.results == tuple(BatchEffects(name, {"view": "EFFECT_DENY"}) for name in ("1", "2"))


@pytest.mark.parametrize(
    ("asked", "answered"),
    [
        ({"action": "view"}, {"action": "view", "actions": ()}),
        ({"actions": ("view",)}, {"action": "", "actions": ("view",)}),
    ],
)
async def test_a_plan(engine: Engine, asked: dict[str, Any], answered: dict[str, Any]) -> None:
    """A plan repeats how it was asked for, and says in which form the filter is."""
    request = PlanResourcesRequest(principal=ANN, resource=PlanResource("doc"), include_meta=True, **asked)
    answer = await made(engine).plan_resources(request)
    assert {name: getattr(answer, name) for name in answered} == answered
    assert answer.filter is not None
    assert answer.filter.kind == "KIND_CONDITIONAL"
    assert answer.meta is not None
    assert "request.resource.attr.open" in answer.meta.filter_debug


LIMITS = RequestLimits(2, 2)
TOO_MANY_ACTIONS = "number of actions (3) exceeds configured limit (2)"
TOO_MANY_RESOURCES = "number of resources in batch (3) exceeds configured limit (2)"
THREE = ("a", "b", "c")


@pytest.mark.parametrize(
    ("call", "request_", "told"),
    [
        ("check_resources", CheckResourcesRequest("", False, ANN, (entry(*THREE),)), TOO_MANY_ACTIONS),
        ("check_resources", CheckResourcesRequest("", False, ANN, (entry("a"),) * 3), TOO_MANY_RESOURCES),
        (
            "check_resource_set",
            CheckResourceSetRequest("", THREE, ANN, ResourceSet("doc", instances={"1": AttributesMap()})),
            TOO_MANY_ACTIONS,
        ),
        (
            "check_resource_set",
            CheckResourceSetRequest(
                "", ("a",), ANN, ResourceSet("doc", instances={name: AttributesMap() for name in THREE})
            ),
            TOO_MANY_RESOURCES,
        ),
        (
            "check_resource_batch",
            CheckResourceBatchRequest("", ANN, (BatchEntry(THREE, Resource("doc", id="1")),)),
            TOO_MANY_ACTIONS,
        ),
        (
            "check_resource_batch",
            CheckResourceBatchRequest("", ANN, (BatchEntry(("a",), Resource("doc", id="1")),) * 3),
            TOO_MANY_RESOURCES,
        ),
        ("plan_resources", PlanResourcesRequest("", "", THREE, ANN, PlanResource("doc")), TOO_MANY_ACTIONS),
    ],
)
async def test_limits(engine: Engine, call: str, request_: Any, told: str) -> None:
    """Every call is limited in actions and resources, with Cerbos's words."""
    with pytest.raises(PdpError) as error:
        await getattr(made(engine, limits=LIMITS), call)(request_)
    assert (error.value.code, error.value.message) == (Code.INVALID_ARGUMENT, told)


class Broken:
    """An engine that fails."""

    def __init__(self, error: Exception) -> None:
        self.error = error

    def check_many(self, *_: Any, **__: Any) -> None:
        raise self.error

    def plan(self, *_: Any, **__: Any) -> None:
        raise self.error


@pytest.mark.parametrize(
    ("error", "code", "checked", "planned"),
    [
        (
            ValueError("the inside"),
            Code.INTERNAL,
            "Policy check failed",
            "Resources query plan request failed",
        ),
        (
            PolicyError([]),
            Code.FAILED_PRECONDITION,
            "Check failed due to invalid policy",
            "Resources query plan failed due to invalid policy",
        ),
    ],
    ids=["bug", "policy"],
)
async def test_failures(
    error: Exception, code: Code, checked: str, planned: str, caplog: pytest.LogCaptureFixture
) -> None:
    """What goes wrong in the engine is told in Cerbos's words; the cause is in the log alone."""
    pdp = made(Broken(error))
    with pytest.raises(PdpError) as failed:
        await pdp.check_resources(CheckResourcesRequest(principal=ANN, resources=(entry("view"),)))
    assert (failed.value.code, failed.value.message) == (code, checked)
    with pytest.raises(PdpError) as failed:
        await pdp.plan_resources(PlanResourcesRequest("", "view", (), ANN, PlanResource("doc")))
    assert (failed.value.code, failed.value.message) == (code, planned)
    assert len(caplog.records) == 2


async def test_server_info(engine: Engine) -> None:
    """The server says its version."""
    assert (await made(engine).server_info(ServerInfoRequest())).version
