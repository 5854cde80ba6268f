"""Small worlds for plans: policies of all kinds about one kind of resource, principals, and resources.

Everything comes from a seeded ``random.Random``. Conditions are chosen so that most of them depend on the
resource, and so that attributes are often missing or of an unexpected type.
"""

from __future__ import annotations

import json
from random import Random
from typing import TYPE_CHECKING, Any

from engine import Engine, Principal, Resource, json_value
from engine.compile import Compiler
from engine.load import load_policy
from engine.rules import Settings

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

Json = dict[str, Any]

API = "api.cerbos.dev/v1"
SCOPES = ("", "acme", "acme.hr")
ROLES = ("user", "manager", "guest")
ACTIONS = ("view", "edit")
CONSENT = "SCOPE_PERMISSIONS_REQUIRE_PARENTAL_CONSENT_FOR_ALLOWS"

EXPRESSIONS = (
    "R.attr.owner == P.id",
    "R.attr.owner != P.id",
    "!(R.attr.owner == P.id)",
    "R.attr.public",
    "!R.attr.public",
    "R.attr.amount < 10.0",
    "R.attr.amount >= P.attr.limit",
    "R.attr.amount + 1.0 > 3.0",
    "R.attr.amount + 1 > 3",
    "R.attr.team in P.attr.teams",
    "!(R.attr.team in P.attr.teams)",
    "R.attr.team in ['red']",
    "R.attr.team in []",
    "R.attr.team in P.attr.name",
    "P.attr.name in R.attr.tags",
    "'a' in R.attr.tags && R.attr.amount > 1",
    "R.attr.team == 'red' || R.attr.gone == 1",
    "R.attr.gone == 1 || R.attr.public",
    "R.attr.gone.deep == 1",
    "P.attr.gone == R.attr.team",
    "P.attr.gone == R.attr.team || R.attr.public",
    "P.attr.grades[R.attr.team] == 'high'",
    "P.attr.levels[R.attr.team] < 5",
    "P.attr.people[R.attr.owner].rank >= 2",
    "'x' in P.attr.lists[R.attr.team]",
    "P.attr.teams.exists(t, t == R.attr.team)",
    "P.attr.teams.all(t, t != R.attr.team)",
    "P.attr.teams.exists(t, R.attr.public ? t == 'red' : t == R.attr.team)",
    "P.attr.teams.exists_one(t, t == R.attr.team)",
    "R.attr.tags.exists(t, t == P.attr.name)",
    "R.attr.tags.all(t, t.startsWith('a'))",
    "R.attr.tags.exists(t, t in P.attr.teams)",
    "R.attr.tags.exists_one(t, t == 'a')",
    "R.attr.tags.filter(t, t != 'a').size() > 0",
    "R.attr.tags.map(t, t + 'x') == ['ax']",
    "R.attr.items.exists(i, i.kind == P.attr.name && i.n > 1)",
    "R.attr.items.map(i, i.n > 1, i.kind) == ['abc']",
    "size(R.attr.tags) > 1",
    "R.attr.public ? R.attr.amount > 1.0 : P.attr.limit > 1.0",
    "R.attr.public ? P.attr.flag : R.attr.team == 'red'",
    "(P.attr.flag ? R.attr.team : R.attr.owner) == 'red'",
    "R.attr.text.startsWith(P.attr.name)",
    "R.attr.text.contains('b') && !R.attr.text.endsWith('c')",
    "R.attr.text.matches('^a.c$')",
    "R.attr.text.lowerAscii() == 'abc'",
    "R.attr.when < timestamp('2024-03-01T00:00:00Z')",
    "timestamp(R.attr.when) < now()",
    "R.attr.nothing == null",
    "R.attr.any == P.attr.any",
    "R.attr['team'] == 'red'",
    "R.attr.map[P.attr.name] == 1",
    "R.attr.map['abc'] == 1.0",
    "R.id == '1'",
    "R.id.startsWith(P.attr.name)",
    "R.kind == 'doc' && R.attr.public",
    "R.scope == 'acme' || R.attr.public",
    "V.owns",
    "!V.owns",
    "V.fails == 1",
    "V.fails == 1 || V.owns",
    "V.limit > R.attr.amount",
    "C.teams.exists(t, t == R.attr.team)",
    "R.attr.amount == G.limit",
    "hasIntersection(R.attr.tags, P.attr.teams)",
    "cel.bind(o, R.attr.owner, o == P.id || o == 'bob')",
    "'owner' in runtime.effectiveDerivedRoles",
    "size(runtime.effectiveDerivedRoles) > 0",
    "R.attr.team",
    "true",
    "false",
    "1",
    "P.attr.gone == 1",
)

PRESENCE = (
    "has(R.attr.owner)",
    "!has(R.attr.team)",
    "has(R.attr.map.abc)",
    "has(R.attr.tags) && 'a' in R.attr.tags",
    "has(P.attr.name) && R.attr.public",
)
"""Expressions that ask whether an attribute is there."""

PRINCIPAL = {
    "name": "abc",
    "teams": ["red", "blue", "a"],
    "limit": 5,
    "flag": True,
    "any": [1, "a"],
    "grades": {"red": "high", "blue": "low"},
    "levels": {"red": 3, "blue": 9},
    "people": {"alice": {"rank": 3}, "bob": {"rank": 1}, "carol": {}},
    "lists": {"red": ["x", "y"], "blue": []},
}

USUAL: Mapping[str, Sequence[Any]] = {
    "amount": (0, 3, 5, 7, 20.5),
    "any": ([1, "a"], "abc", 1),
    "items": ([{"kind": "abc", "n": 2}, {"kind": "x"}], [], [{"kind": "abc", "n": 5}]),
    "map": ({"abc": 1}, {}),
    "nothing": (None, 1),
    "owner": ("alice", "bob", "carol"),
    "public": (True, False),
    "tags": (["a"], ["a", "b"], [], ["red", "abc"]),
    "team": ("red", "blue", "green"),
    "text": ("abc", "abcc", "xbx", "ABC"),
    "when": ("2024-01-01T00:00:00Z", "2024-06-01T00:00:00Z"),
}
ODD: Sequence[Any] = (None, 1, "x", True, [], {}, ["a", 1])


def seeded(seed: int) -> Random:
    """Return a source of randomness that gives the same again for the same *seed*."""
    return Random(seed)  # noqa: S311 - for test data


def engine(random: Random, *, expressions: Sequence[str] = EXPRESSIONS, consent: bool = True) -> Engine:
    """Return an engine over random policies; with *consent* some scopes need that of the scopes above."""
    found = (load_policy(content, path) for path, content in documents(random, expressions, consent))
    policies = [policy for policy in found if policy is not None]
    table = Compiler(Settings(globals={"limit": 5.0})).compile(policies)
    return Engine(table)


def documents(random: Random, expressions: Sequence[str], consent: bool) -> list[tuple[str, bytes]]:
    """Return the policies as files."""
    choices = (None, None, CONSENT) if consent else (None,)
    permissions = {scope: random.choice(choices) for scope in SCOPES}
    found = [_derived_roles(random, expressions)]
    found += [_resource_policy(random, scope, permissions[scope], expressions) for scope in SCOPES]
    if random.random() < 0.4:
        found += [_principal_policy(random, permissions[""], expressions)]
    if random.random() < 0.4:
        found += [_role_policy(random, random.choice(SCOPES), expressions)]
    return [(f"{number}.json", json.dumps(policy).encode()) for number, policy in enumerate(found)]


def _derived_roles(random: Random, expressions: Sequence[str]) -> Json:
    plain = [text for text in expressions if "runtime" not in text and "V." not in text and "C." not in text]
    definitions = [
        {"name": "owner", "parentRoles": ["user"], "condition": _condition(random, plain)},
        {"name": "reader", "parentRoles": ["*"], "condition": _condition(random, plain)},
        {"name": "anyone", "parentRoles": ["guest", "manager"]},
    ]
    return {"apiVersion": API, "derivedRoles": {"name": "roles", "definitions": definitions}}


def _parameters() -> Json:
    return {
        "variables": {
            "local": {"owns": "R.attr.owner == P.id", "fails": "P.attr.gone.x", "limit": "P.attr.limit * 2.0"}
        },
        "constants": {"local": {"teams": ["red", "green"]}},
    }


def _resource_policy(random: Random, scope: str, permissions: str | None, expressions: Sequence[str]) -> Json:
    body: Json = {"resource": "doc", "version": "default", "importDerivedRoles": ["roles"], **_parameters()}
    if scope:
        body["scope"] = scope
    if permissions:
        body["scopePermissions"] = permissions
    body["rules"] = [_rule(random, expressions) for _ in range(random.choice((0, 1, 2, 3, 4)))]
    return {"apiVersion": API, "resourcePolicy": body}


def _rule(random: Random, expressions: Sequence[str]) -> Json:
    rule: Json = {"actions": [random.choice(("*", *ACTIONS))], "effect": _effect(random)}
    if random.random() < 0.7:
        rule["roles"] = random.choice((["*"], ["user"], ["manager"], ["user", "guest"]))
    else:
        rule["derivedRoles"] = [random.choice(("owner", "reader", "anyone"))]
    if random.random() < 0.8:
        rule["condition"] = _condition(random, expressions)
    return rule


def _principal_policy(random: Random, permissions: str | None, expressions: Sequence[str]) -> Json:
    plain = [text for text in expressions if "runtime" not in text]
    actions: list[Json] = []
    for _ in range(random.choice((1, 2))):
        action: Json = {"action": random.choice(("*", *ACTIONS)), "effect": _effect(random)}
        if random.random() < 0.8:
            action["condition"] = _condition(random, plain)
        actions.append(action)
    body: Json = {"principal": "alice", "version": "default", **_parameters()}
    if permissions:
        body["scopePermissions"] = permissions
    body["rules"] = [{"resource": "doc", "actions": actions}]
    return {"apiVersion": API, "principalPolicy": body}


def _role_policy(random: Random, scope: str, expressions: Sequence[str]) -> Json:
    rules: list[Json] = []
    for _ in range(random.choice((1, 2))):
        rule: Json = {"resource": "doc", "allowActions": [random.choice(("*", *ACTIONS))]}
        if random.random() < 0.7:
            rule["condition"] = _condition(random, expressions)
        rules.append(rule)
    body: Json = {"role": "guest", "parentRoles": ["user"], **_parameters(), "rules": rules}
    return {"apiVersion": API, "rolePolicy": {**body, "scope": scope} if scope else body}


def _effect(random: Random) -> str:
    return random.choice(("EFFECT_ALLOW", "EFFECT_ALLOW", "EFFECT_DENY"))


def _condition(random: Random, expressions: Sequence[str]) -> Json:
    return {"match": _match(random, expressions, 2)}


def _match(random: Random, expressions: Sequence[str], depth: int) -> Json:
    if depth and random.random() < 0.35:
        parts = [_match(random, expressions, depth - 1) for _ in range(random.choice((1, 2, 3)))]
        return {random.choice(("all", "any", "none")): {"of": parts}}
    return {"expr": random.choice(expressions)}


def principal(random: Random, *, roles: int) -> Principal:
    """Return a principal with up to *roles* roles."""
    held = random.sample(ROLES, random.randint(1, roles))
    attributes = {name: value for name, value in PRINCIPAL.items() if random.random() < 0.9}
    return Principal(random.choice(("alice", "bob")), tuple(held), json_value(attributes))


def attributes(random: Random) -> dict[str, Any]:
    """Return the attributes of a resource, some of them missing or odd."""
    found: dict[str, Any] = json_value(
        {
            name: random.choice(ODD if random.random() < 0.1 else values)
            for name, values in USUAL.items()
            if random.random() < 0.85
        }
    )
    return found


def resource(random: Random, known: Mapping[str, Any], scope: str) -> Resource:
    """Return a resource that has the *known* attributes."""
    return Resource("doc", random.choice(("1", "2", "abc1")), {**attributes(random), **known}, scope=scope)
