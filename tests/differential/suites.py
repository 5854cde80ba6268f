"""Random test suites, from a seed, for the policies below.

Expectations are right and wrong; fixtures stand inside and beside the suite, in groups, in YAML and JSON;
some suites are broken, in one way each, so that it is clear which of its faults a suite is refused for.
"""

from __future__ import annotations

import json
import random
from typing import TYPE_CHECKING, Any

import yaml

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

Json = dict[str, Any]

POLICIES = """
apiVersion: api.cerbos.dev/v1
derivedRoles:
  name: roles
  definitions:
    - {name: owner, parentRoles: [user], condition: {match: {expr: R.attr.owner == P.id}}}
    - {name: recent, parentRoles: ["*"], condition: {match: {expr: "timeSince(R.attr.at) < duration('24h')"}}}
---
apiVersion: api.cerbos.dev/v1
resourcePolicy:
  resource: doc
  version: default
  importDerivedRoles: [roles]
  variables: {local: {public: R.attr.public == true, half: "R.attr.size / R.attr.parts"}}
  rules:
    - actions: [view, "view:*"]
      effect: EFFECT_ALLOW
      roles: [user, guest]
      condition: {match: {expr: V.public}}
      output:
        when:
          ruleActivated: '{"who": P.id, "what": [R.id, 1, 2.5, null, true]}'
          conditionNotMet: '"private"'
    - {actions: ["*"], effect: EFFECT_ALLOW, derivedRoles: [owner], name: own,
       output: {when: {ruleActivated: 'R.attr.size'}}}
    - {actions: [edit], effect: EFFECT_ALLOW, derivedRoles: [recent]}
    - {actions: [split], effect: EFFECT_ALLOW, roles: [user], condition: {match: {expr: V.half > 1.0}},
       output: {when: {ruleActivated: 'V.half', conditionNotMet: '1 / 0'}}}
    - {actions: [delete], effect: EFFECT_DENY, roles: ["*"], condition: {match: {expr: G.frozen == true}}}
    - {actions: [wait], effect: EFFECT_ALLOW, roles: [user],
       condition: {match: {expr: "now() > timestamp('2024-06-01T00:00:00Z')"}},
       output: {when: {ruleActivated: 'string(now())'}}}
    - {actions: [sign], effect: EFFECT_ALLOW, roles: [user],
       condition: {match: {expr: "'admin' in request.auxData.jwt.groups"}}}
---
apiVersion: api.cerbos.dev/v1
resourcePolicy:
  resource: doc
  version: default
  scope: acme
  rules:
    - {actions: [view], effect: EFFECT_DENY, roles: [guest]}
    - {actions: [share], effect: EFFECT_ALLOW, roles: [user], output: {expr: '"shared in " + R.scope'}}
---
apiVersion: api.cerbos.dev/v1
resourcePolicy:
  resource: doc
  version: v2
  rules:
    - {actions: [view, edit], effect: EFFECT_ALLOW, roles: [admin]}
---
apiVersion: api.cerbos.dev/v1
resourcePolicy:
  resource: form
  version: default
  schemas: {resourceSchema: {ref: "cerbos:///form.json"}}
  rules:
    - {actions: ["*"], effect: EFFECT_ALLOW, roles: [user]}
---
apiVersion: api.cerbos.dev/v1
principalPolicy:
  principal: root
  version: default
  rules:
    - {resource: "*", actions: [{action: delete, effect: EFFECT_ALLOW, name: all}]}
"""
FORM = '{"type": "object", "properties": {"size": {"type": "number"}}, "required": ["size"]}'
ACTIONS = ("view", "view:list", "edit", "split", "delete", "wait", "sign", "share", "none")
SOURCES = (
    "doc.vdefault#rule-001",
    "doc.vdefault#own",
    "doc.vdefault#rule-004",
    "doc.vdefault/acme#rule-002",
    "x#y",
)
VALUES: tuple[Any, ...] = (
    "private",
    4,
    None,
    True,
    1,
    2.0,
    "shared in acme",
    {"who": "ann", "what": ["1", 1, 2.5, None, True]},
    [],
)
NOW = ("2024-06-02T00:00:00Z", "2024-01-01T10:00:00.5+02:00", "2030-01-01T00:00:00Z")


class Maker:
    """Makes suites from one seed."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)  # noqa: S311 - to be repeatable is its purpose
        self.scopeless = False
        """No option of the suite changes scopes, so that it may have resources with a schema: Cerbos forgets
        schemas where a scope has no policy of its own (divergence ``schemas-below-their-policy``)."""

    def maybe(self, chance: float) -> bool:
        return self.random.random() < chance

    def some(self, choices: Any, least: int = 1, most: int = 3) -> list[Any]:
        choices = list(choices)
        return self.random.sample(choices, min(len(choices), self.random.randint(least, most)))

    def principal(self) -> Json:
        found: Json = {
            "id": self.random.choice(("ann", "bob", "root")),
            "roles": self.some(("user", "guest", "admin", "other")),
        }
        return found | self.place()

    def resource(self) -> Json:
        attributes = {
            "owner": self.random.choice(("ann", "bob", 5)),
            "public": self.random.choice((True, False, "true")),
            "size": self.random.choice((4, 4.5, "big", 0)),
            "parts": self.random.choice((2, 1.5, "2")),
            "at": self.random.choice(("2024-06-01T12:00:00Z", "2029-12-31T23:00:00Z", "never")),
        }
        kept = {name: value for name, value in attributes.items() if self.maybe(0.8)}
        if self.scopeless and self.maybe(0.4):
            return {"kind": "form", "id": "f", "attr": kept}
        kind = self.random.choice(("doc", "doc", "doc", "unknown"))
        return {"kind": kind, "id": self.random.choice("123"), "attr": kept} | self.place()

    def place(self) -> Json:
        found = {}
        if self.maybe(0.15):
            found["policyVersion"] = self.random.choice(("v2", "default", "v3"))
        if self.maybe(0.2):
            found["scope"] = self.random.choice(("acme", "acme.hr", "."))
        return found

    def options(self) -> Json:
        found: Json = {}
        if self.maybe(0.85):
            found["now"] = self.random.choice(NOW)
        if self.maybe(0.3):
            found["globals"] = {"frozen": self.random.choice((True, False, "yes"))}
        if self.maybe(0.15):
            found["defaultPolicyVersion"] = "v2"
        if not self.scopeless and self.maybe(0.2):
            found["defaultScope"] = self.random.choice(("acme", "acme.x"))
        if not self.scopeless and self.maybe(0.2):
            found["lenientScopeSearch"] = True
        if self.maybe(0.2):
            found["strictEvaluation"] = True
        return found

    def named(self, prefix: str, make: Callable[[], Json]) -> Json:
        return {f"{prefix}{letter}": make() for letter in "abcd"[: self.random.randint(1, 4)]}

    def groups(self, field: str, members: Json) -> Json:
        return {f"g_{letter}": {field: self.some(members)} for letter in "xy"[: self.random.randint(0, 2)]}

    def suite(self) -> tuple[Json, dict[str, Json]]:
        """Return a suite and the files of its ``testdata``."""
        self.scopeless = self.maybe(0.3)
        principals, resources = self.named("p_", self.principal), self.named("r.", self.resource)
        groups = {
            "principalGroups": self.groups("principals", principals),
            "resourceGroups": self.groups("resources", resources),
        }
        tokens = {"tok": {"jwt": {"groups": self.some(("admin", "staff"))}}}
        beside: dict[str, Json] = {}
        suite: Json = {"name": self.random.choice(("Suite", "Other suite", "S&<'\">"))}
        kinds = (
            ("principals", principals, "principalGroups"),
            ("resources", resources, "resourceGroups"),
        )
        for kind, fixtures, group in kinds:
            where = beside.setdefault(kind, {}) if self.maybe(0.4) else suite
            where[kind] = fixtures
            if groups[group]:
                where[group] = groups[group]
        if self.maybe(0.3):
            beside[self.random.choice(("auxdata", "auxData", "aux_data"))] = {"auxData": tokens}
        else:
            suite["auxData"] = tokens
        if self.maybe(0.7):
            suite["options"] = self.options()
        if self.maybe(0.3):
            suite["description"] = "what it is about"
        if self.maybe(0.05):
            suite |= {"skip": True} | ({"skipReason": "not now"} if self.maybe(0.5) else {})
        suite["tests"] = [
            self.test(f"test {number}", principals, resources, groups)
            for number in range(self.random.randint(1, 3))
        ]
        return suite, beside

    def test(self, name: str, principals: Json, resources: Json, groups: Json) -> Json:
        asked: Json = {"actions": self.some(ACTIONS, 1, 5)}
        chosen = {
            "principals": self.chosen(asked, "principal", principals, groups["principalGroups"]),
            "resources": self.chosen(asked, "resource", resources, groups["resourceGroups"]),
        }
        if self.maybe(0.4):
            asked["auxData"] = "tok"
        test: Json = {"name": name, "input": asked, "expected": self.expected(asked, chosen)}
        if self.maybe(0.1):
            test |= {"skip": True} | ({"skipReason": "later"} if self.maybe(0.5) else {})
        if self.maybe(0.3):
            test["options"] = self.options()
        return test

    def chosen(self, asked: Json, kind: str, fixtures: Json, groups: Json) -> list[str]:
        """Choose some fixtures for the input, by name or by group; return the names."""
        found: list[str] = []
        if groups and self.maybe(0.4):
            asked[f"{kind}Groups"] = self.some(groups)
            found = [name for group in asked[f"{kind}Groups"] for name in groups[group][f"{kind}s"]]
        if not found or self.maybe(0.5):
            asked[f"{kind}s"] = self.some(fixtures)
            found += asked[f"{kind}s"]
        return list(dict.fromkeys(found))

    def expected(self, asked: Json, chosen: dict[str, list[str]]) -> list[Json]:
        """Return expectations that do not contradict each other: each pair is named once at most."""
        pairs = [(who, what) for who in chosen["principals"] for what in chosen["resources"]]
        named = self.some(pairs, 1, 4)
        found = []
        for who, what in named:
            effects = {action: self.effect() for action in self.some(asked["actions"])}
            entry: Json = {"actions": effects}
            entry |= {"principals": [who]} if self.maybe(0.3) else {"principal": who}
            entry |= {"resources": [what]} if self.maybe(0.3) else {"resource": what}
            if self.maybe(0.5):
                entry["outputs"] = [self.outputs(action) for action in self.some(asked["actions"], 1, 2)]
            found.append(entry)
        return found

    def effect(self) -> str:
        return "EFFECT_ALLOW" if self.maybe(0.6) else "EFFECT_DENY"

    def outputs(self, action: str) -> Json:
        entries = []
        for source in self.some(SOURCES, 1, 3):
            entry: Json = {"src": f"resource.{source}"}
            if self.maybe(0.9):
                entry["val"] = self.random.choice(VALUES)
            entries.append(entry)
        return {"action": action, "expected": entries}

    # -- what is broken ------------------------------------------------------------------------------------

    def broken(self, suite: Json, beside: dict[str, Json]) -> None:
        """Break a suite in one way."""
        test = suite["tests"][0]
        self.random.choice(BREAKS)(suite, test, beside)


def _unknown_fixture(kind: str) -> Callable[[Json, Json, Any], None]:
    def change(_suite: Json, test: Json, _beside: Any) -> None:
        test["input"][f"{kind}s"] = ["nobody"]
        test["input"].pop(f"{kind}Groups", None)
        for entry in test["expected"]:
            entry.pop(f"{kind}s", None)
            entry[kind] = "nobody"

    return change


def _expect_unasked(_suite: Json, test: Json, _beside: Any) -> None:
    test["expected"][-1]["actions"]["unasked"] = "EFFECT_ALLOW"


def _expect_unasked_output(_suite: Json, test: Json, _beside: Any) -> None:
    test["expected"][-1]["outputs"] = [{"action": "unasked", "expected": [{"src": "x", "val": 1}]}]


def _expect_other_pair(_suite: Json, test: Json, _beside: Any) -> None:
    test["expected"].append({"principal": "else", "resource": "other", "actions": _first_effect(test)})


def _contradict(_suite: Json, test: Json, _beside: Any) -> None:
    entry = test["expected"][0]
    action, effect = next(iter(entry["actions"].items()))
    other = "EFFECT_DENY" if effect == "EFFECT_ALLOW" else "EFFECT_ALLOW"
    test["expected"].append({**entry, "actions": {action: other}})


def _contradict_output(_suite: Json, test: Json, _beside: Any) -> None:
    entry = {**test["expected"][0]}
    action = next(iter(entry["actions"]))
    for value in (1, True):
        outputs = [{"action": action, "expected": [{"src": "a#b", "val": value}]}]
        test["expected"].append({**entry, "outputs": outputs})
    test["expected"][0].pop("outputs", None)


def _first_effect(test: Json) -> Json:
    action, effect = next(iter(test["expected"][0]["actions"].items()))
    return {action: effect}


def _missing_group(_suite: Json, test: Json, _beside: Any) -> None:
    test["input"]["resourceGroups"] = ["g_none"]


def _missing_member(suite: Json, _test: Json, _beside: Any) -> None:
    suite["principalGroups"] = {"g_x": {"principals": ["nobody"]}}


def _missing_member_beside(_suite: Json, _test: Json, beside: dict[str, Json]) -> None:
    beside.setdefault("resources", {})["resourceGroups"] = {"g_z": {"resources": ["nothing"]}}


def _repeated_name(suite: Json, test: Json, _beside: Any) -> None:
    suite["tests"].append({**test})


def _unknown_aux_data(_suite: Json, test: Json, _beside: Any) -> None:
    test["input"]["auxData"] = "nothing"


def _unknown_field(_suite: Json, test: Json, _beside: Any) -> None:
    test["input"]["acton"] = 1


def _unspecified_effect(_suite: Json, test: Json, _beside: Any) -> None:
    test["expected"][0]["actions"] = {"view:x_y": "EFFECT_UNSPECIFIED"}


def _no_tests(suite: Json, _test: Json, _beside: Any) -> None:
    suite["tests"] = []


def _no_principal(_suite: Json, test: Json, _beside: Any) -> None:
    test["input"].pop("principals", None)
    test["input"].pop("principalGroups", None)


def _principal_twice(_suite: Json, test: Json, _beside: Any) -> None:
    test["expected"][0] |= {"principal": "a", "principals": ["b"]}


def _no_roles(suite: Json, _test: Json, _beside: Any) -> None:
    suite["principals"] = {"p_a": {"id": "ann", "roles": []}}


def _bad_version(suite: Json, _test: Json, _beside: Any) -> None:
    suite["resources"] = {"one": {"kind": "doc", "id": "1", "policyVersion": "a-b"}}


def _bad_time(text: str) -> Callable[[Json, Json, Any], None]:
    def change(suite: Json, _test: Json, _beside: Any) -> None:
        suite["options"] = {"now": text}

    return change


def _both_tokens(suite: Json, _test: Json, _beside: Any) -> None:
    suite["auxData"] = {"tok": {"jwt": {"a": 1}, "jwts": {"x": {"claims": {"b": 1}}}}}


def _repeated_action(_suite: Json, test: Json, _beside: Any) -> None:
    test["input"]["actions"] = ["view", "view"]


BREAKS = (
    _unknown_fixture("principal"),
    _unknown_fixture("resource"),
    _expect_unasked,
    _expect_unasked_output,
    _expect_other_pair,
    _contradict,
    _contradict_output,
    _missing_group,
    _missing_member,
    _missing_member_beside,
    _repeated_name,
    _unknown_aux_data,
    _unknown_field,
    _unspecified_effect,
    _no_tests,
    _no_principal,
    _principal_twice,
    _no_roles,
    _bad_version,
    _bad_time("2024-13-01T00:00:00Z"),
    _bad_time("2024-02-30T00:00:00Z"),
    _bad_time("tomorrow"),
    _bad_time("2024-01-01T00:00:00"),
    _both_tokens,
    _repeated_action,
)


def write(root: Path, seed: int, suites: int) -> None:
    """Write policies, and suites in a folder each."""
    for number, document in enumerate(POLICIES.strip().split("\n---\n")):
        (root / f"policy{number}.yaml").write_text(document)
    (root / "_schemas").mkdir()
    (root / "_schemas/form.json").write_text(FORM)
    maker = Maker(seed)
    for number in range(suites):
        suite, beside = maker.suite()
        if maker.maybe(0.3):
            maker.broken(suite, beside)
        folder = root / f"s{number:03d}"
        (folder / "testdata").mkdir(parents=True)
        dump(folder / "it_test.yaml", suite, flow=maker.maybe(0.3))
        for name, content in beside.items():
            if maker.maybe(0.2):
                (folder / f"testdata/{name}.json").write_text(json.dumps(content))
            else:
                dump(folder / f"testdata/{name}.yaml", content, flow=None)


def dump(path: Path, value: Json, *, flow: bool | None) -> None:
    """Write YAML as people do, or with all on one line."""
    path.write_text(
        yaml.dump(value, sort_keys=False, default_flow_style=flow, width=10_000, Dumper=_NoAliases)
    )


class _NoAliases(yaml.SafeDumper):
    def ignore_aliases(self, _data: Any) -> bool:
        return True
