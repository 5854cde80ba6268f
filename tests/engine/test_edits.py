"""However a state of the store is reached, it means the same.

Random policies are edited at random. Each state is loaded four times: from nothing, after the state before,
with a cache on disk, and again with what that cache then holds. Faults, warnings, decisions, explanations and
plans have to be equal, with every place in them.
"""

from __future__ import annotations

import json
import tempfile
from dataclasses import replace
from random import Random
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine import AuxData, CheckInput, Engine, PolicyError, RuleTable, Settings, Snapshot
from engine.artefacts import workshop
from engine.cel import Timestamp
from engine.engine import Loader
from engine.plan import PlanError, PlanInput
from tests import questions as read
from tests.differential import requests
from tests.differential.policies import ACTIONS, KINDS, policy_set

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

Json = dict[str, Any]

NOW = Timestamp.parse("2024-06-01T12:00:00Z")

SCHEMA = {
    "type": "object",
    "properties": {"text": {"type": "string"}, "number": {"type": "number"}, "yes": {"type": "boolean"}},
}
SETTINGS = (
    Settings(),
    Settings(runtime_action=True, evaluation="safe"),
    Settings(schema_enforcement="warn", evaluation="strict"),
)


class World:
    """The files of a store, and who edits them."""

    def __init__(self, seed: int) -> None:
        self.random = Random(seed)  # noqa: S311 - repeatable, not secret
        self.policies: dict[str, Json] = policy_set(self.random)
        self.contents: dict[str, bytes] = {}
        self.schemas = {"_schemas/doc.json": json.dumps(SCHEMA).encode()}
        for policy in self.policies.values():
            body = policy.get("resourcePolicy")
            if body is not None and not body.get("scope") and self.random.random() < 0.5:
                body["schemas"] = {"resourceSchema": {"ref": "cerbos:///doc.json"}}

    def snapshot(self) -> Snapshot:
        """Return the state; a file that is as it was keeps its object."""
        now = {
            name: json.dumps(policy, indent=1, ensure_ascii=False).encode()
            for name, policy in self.policies.items()
        }
        self.contents = {
            name: self.contents[name] if self.contents.get(name) == content else content
            for name, content in sorted(now.items())
        }
        return Snapshot(self.contents, self.schemas)

    def edit(self) -> None:
        """Change something, perhaps for the worse."""
        self.random.choice(EDITS)(self)

    def some_policy(self) -> Json:
        """Return a policy to be changed."""
        name = self.random.choice(sorted(self.policies))
        found: Json = json.loads(json.dumps(self.policies[name]))
        self.policies[name] = found
        return found

    def some_rule(self) -> Json | None:
        """Return a rule of a policy to be changed, ``None`` where there is none."""
        policy = self.some_policy()
        rules = next(
            (body["rules"] for body in policy.values() if isinstance(body, dict) and body.get("rules")), None
        )
        return self.random.choice(rules) if rules else None


def _turn_effect(world: World) -> None:
    rule = world.some_rule()
    if rule is not None and "effect" in rule:
        rule["effect"] = "EFFECT_DENY" if rule["effect"] == "EFFECT_ALLOW" else "EFFECT_ALLOW"


def _condition(world: World, text: str) -> None:
    rule = world.some_rule()
    if rule is not None and "actions" in rule and "effect" in rule:
        rule["condition"] = {"match": {"all": {"of": [{"expr": "R.attr.yes"}, {"expr": text}]}}}


def _set(world: World, kind: str, field: str, value: Callable[[str], Any]) -> None:
    """Change a definition in a set that others import."""
    policy = world.some_policy()
    for name in policy.get(kind, {}).get(field, {}):
        policy[kind][field][name] = value(name)


def _derived(world: World) -> None:
    for definition in world.some_policy().get("derivedRoles", {}).get("definitions", ()):
        definition["parentRoles"] = [world.random.choice(("user", "*", "admin"))]
        definition["condition"] = {
            "match": {"expr": world.random.choice(("R.attr.yes", "P.attr.no", "R.attr.gone"))}
        }


def _misimport(world: World) -> None:
    body = world.some_policy().get("resourcePolicy")
    if body is not None:
        body.setdefault("importDerivedRoles", []).append("nobody_knows")


def _rename(world: World) -> None:
    name = world.random.choice(sorted(world.policies))
    world.policies[f"{world.random.choice('az')}{name}"] = world.policies.pop(name)


def _delete(world: World) -> None:
    if len(world.policies) > 1:
        del world.policies[world.random.choice(sorted(world.policies))]


def _revive(world: World) -> None:
    """Bring policies of another set in."""
    for name, policy in policy_set(Random(world.random.randint(0, 50))).items():  # noqa: S311 - as above
        if world.random.random() < 0.3:
            world.policies[name] = policy


def _disable(world: World) -> None:
    policy = world.some_policy()
    policy["disabled"] = not policy.get("disabled", False)


def _edit_schema(world: World) -> None:
    kind = world.random.choice(("string", "number"))
    changed = {**SCHEMA, "properties": {"text": {"type": kind}}, "additionalProperties": kind == "string"}
    world.schemas = {"_schemas/doc.json": json.dumps(changed).encode()}


EDITS: tuple[Callable[[World], None], ...] = (
    _turn_effect,
    _turn_effect,
    lambda world: _condition(world, "R.attr.number > 2.0"),
    lambda world: _condition(world, "R.attr.text.matches('^a') && now() > timestamp('2020-01-01T00:00:00Z')"),
    lambda world: _condition(world, "R.attr.number ==== 2"),
    lambda world: _condition(world, "V.nothing_like_that && R.attr.number + 1 > 2"),
    lambda world: _set(world, "exportVariables", "definitions", lambda _: "R.attr.number"),
    lambda world: _set(world, "exportConstants", "definitions", lambda name: [name, 2]),
    _derived,
    _misimport,
    _rename,
    _delete,
    _revive,
    _disable,
    _edit_schema,
    lambda world: world.some_policy().update(surplus=1),
)


def loaded(loader: Loader, snapshot: Snapshot) -> RuleTable | PolicyError:
    try:
        return loader.table(snapshot)
    except PolicyError as error:
        return error


def told(found: RuleTable | PolicyError, seed: int) -> Iterator[Any]:
    """Yield everything that somebody may see of a table, or what is said instead."""
    if isinstance(found, PolicyError):
        yield [(fault, fault.path, fault.kind, fault.hint) for fault in found.faults]
        return
    yield [(fault, fault.path, fault.kind, fault.hint) for fault in found.warnings]
    yield sorted(found.policies)
    engine, random = Engine(found), Random(seed)  # noqa: S311 - as above
    for _ in range(4):
        asked = requests.request(random, 2)
        who = read.principal(asked["principal"])
        for entry in asked["resources"]:
            question = CheckInput(who, read.resource(entry["resource"]), tuple(entry["actions"]), AuxData({}))
            yield engine.check(question, now=NOW)
            yield engine.explain(question, now=NOW).to_json()
        what = read.resource({"kind": random.choice(KINDS), "attr": {}})
        try:
            yield engine.plan(PlanInput(who, what, (random.choice(ACTIONS),)), now=NOW)
        except PlanError as error:
            yield str(error)


@pytest.fixture(autouse=True)
def few_are_many(monkeypatch: pytest.MonkeyPatch) -> None:
    """Take the cache for the smallest stores too; no other processes, each takes half a second to start."""
    monkeypatch.setattr(workshop, "MANY", 1)


@given(seed=st.integers(0, 10**6), edits=st.integers(1, 6), how=st.sampled_from(SETTINGS))
@settings(max_examples=12)
def test_a_state_means_the_same_however_it_was_reached(seed: int, edits: int, how: Settings) -> None:
    """Files loaded after others, or by what a cache holds, are as if they were loaded first and alone."""
    world = World(seed)
    with tempfile.TemporaryDirectory() as cache:
        going_on = Loader(how)
        kept = Loader(how, cache=cache, processes=1)
        for _ in range(edits + 1):
            snapshot = world.snapshot()
            ways = {
                "from nothing": Loader(how),
                "after others": going_on,
                "with a cache, after others": kept,
                "with a cache": Loader(how, cache=cache, processes=1),
            }
            found = {name: list(told(loaded(loader, snapshot), seed)) for name, loader in ways.items()}
            for name in ways:
                assert found[name] == found["from nothing"], name
            world.edit()


def test_a_changed_rule_takes_the_short_way(monkeypatch: pytest.MonkeyPatch) -> None:
    """What the property above compares is not always the long way: a changed rule is put in by itself."""
    tables: list[RuleTable | None] = []
    short_way = Loader._table_like_before

    def noting(self: Loader, snapshot: Snapshot) -> RuleTable | None:
        tables.append(short_way(self, snapshot))
        return tables[-1]

    world = World(3)
    loader = Loader(Settings())
    before = loader.table(world.snapshot())
    monkeypatch.setattr(Loader, "_table_like_before", noting)
    while not tables or tables[-1] is before:
        _turn_effect(world)
        after = loader.table(world.snapshot())
        assert tables[-1] is after


def test_settings_that_change_a_meaning_have_artefacts_of_their_own() -> None:
    """What was kept under one setting is not used under another that compiles texts differently."""
    text = "runtime.action == 'view'"
    policy = {
        "apiVersion": "api.cerbos.dev/v1",
        "resourcePolicy": {
            "resource": "doc",
            "version": "default",
            "rules": [
                {
                    "actions": ["view"],
                    "roles": ["*"],
                    "effect": "EFFECT_ALLOW",
                    "condition": {"match": {"expr": text}},
                }
            ],
        },
    }
    snapshot = Snapshot({"doc.yaml": json.dumps(policy).encode()})
    with tempfile.TemporaryDirectory() as cache:
        knows = Settings(runtime_action=True)
        Loader(knows, cache=cache).table(snapshot)
        with pytest.raises(PolicyError, match="undefined field 'action'"):
            Loader(replace(knows, runtime_action=False), cache=cache).table(snapshot)
