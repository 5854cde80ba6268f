"""Random sets of policies of every kind, from a seeded ``random.Random``.

Names are drawn from small vocabularies, so that policies and requests meet. What the real Cerbos refuses is
not made here: every scope has its ancestors, imports exist, names are defined once.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from engine.cel import CompileError, Environment
from engine.expressions import environment
from tests.differential import expressions
from tests.differential.folding import misfolded

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from random import Random

Json = dict[str, Any]

API = "api.cerbos.dev/v1"
KINDS = ("doc", "leave_request", "album:object", "a-b", "doc2", "x.y")
VERSIONS = ("default", "v2", "20210210")
SCOPES = ("acme", "acme.hr", "acme.hr.uk", "acme.it", "other")
ROLES = ("user", "employee", "manager", "admin", "team-a", "team:b", "acme_admin")
PRINCIPALS = ("alice", "bob", "d:x", "svc-1")
ACTIONS = ("view", "view:public", "edit", "edit:a:b", "delete", "vie", "share", "a", "b")
ACTION_PATTERNS = (
    *ACTIONS,
    "*",
    "view:*",
    "**",
    "edit:**",
    "vie?",
    "{a,b}",
    "[ab]",
    "v*",
    "*e*",
    "{view,edit}*",
    "?*",
)
ROLE_PATTERNS = (*ROLES, *ROLES, "*", "team*", "team:*", "*er", "adm?n")
KIND_PATTERNS = (*KINDS, *KINDS, "*", "doc*", "album:*", "**", "a*", "{doc,x.y}*", "*_request")
DERIVED = ("owner", "same_team", "anyone", "reviewer")
SIMPLE = (
    "R.attr.yes",
    "R.attr.text == 'abc'",
    "R.attr.number > 1.0",
    "R.attr.gone == 1",
    "P.attr.no",
    "P.id == 'alice'",
    "'a' in R.attr.tags",
    "R.attr.map.a == 1",
    "has(R.attr.any)",
    "true",
    "false",
    "R.attr.nothing == null",
    "'text'",
    "R.attr.any",
    "1 == 1 || R.attr.gone.x",
    "size(R.attr.tags) > 1",
    "R.scope == 'acme'",
    "P.scope == '' && R.policyVersion == ''",
    "hasIntersection(P.roles, ['user', 'admin'])",
    "R.id.startsWith('1')",
    "R.kind == 'doc'",
    "G.limit > 5",
    "globals.place == 'test'",
    "G.unknown == 1",
    "request.auxData.jwt.sub == 'x'",
    "timeSince(timestamp('2020-01-01T00:00:00Z')) > duration('1h')",
)


@dataclass
class World:
    """What policies of one set may refer to, and the choices that have to be the same throughout it."""

    random: Random
    policies: dict[str, Json] = field(default_factory=dict)
    permissions: dict[str, str] = field(default_factory=dict)
    derived: dict[str, tuple[str, ...]] = field(default_factory=dict)
    variables: dict[str, tuple[str, ...]] = field(default_factory=dict)
    constants: dict[str, tuple[str, ...]] = field(default_factory=dict)
    schemas: tuple[str, ...] = ()

    def maybe(self, chance: float) -> bool:
        """Return true with a probability."""
        return self.random.random() < chance

    def some(self, choices: Sequence[str], most: int) -> list[str]:
        """Return one to *most* different choices."""
        return self.random.sample(sorted(set(choices)), self.random.randint(1, min(most, len(set(choices)))))


@dataclass(frozen=True)
class Names:
    """The variables and constants that the expressions of one policy may use."""

    variables: tuple[str, ...] = ()
    constants: tuple[str, ...] = ()


def policy_set(random: Random) -> dict[str, Json]:
    """Return the policies of one set, by the name of their file."""
    world = World(random)
    for scope in ("", *SCOPES):
        world.permissions[scope] = random.choice(
            (
                "",
                "",
                "SCOPE_PERMISSIONS_OVERRIDE_PARENT",
                "SCOPE_PERMISSIONS_REQUIRE_PARENTAL_CONSENT_FOR_ALLOWS",
            )
        )
    for library, most in _LIBRARIES:
        for number in range(random.randint(0, most)):
            library(world, number)
    for policy, least, most in _POLICIES:
        for _ in range(random.randint(least, most)):
            policy(world)
    _agree_on_permissions(world.policies)
    return world.policies


def _agree_on_permissions(policies: dict[str, Json]) -> None:
    """Leave out the permissions of scopes where Cerbos would see a conflict.

    It takes role policies, and in the root scope also libraries, for policies that say something else; which
    it notices from the third policy of a scope on.
    """
    bodies = [body for policy in policies.values() for body in policy.values() if isinstance(body, dict)]
    for scope in {body.get("scope", "") for body in bodies}:
        inside = [body for body in bodies if body.get("scope", "") == scope]
        scoped = [body for body in inside if body.keys() & {"resource", "principal"}]
        if len(scoped) < len(inside) > 2:
            for body in scoped:
                body.pop("scopePermissions", None)


# -- libraries ---------------------------------------------------------------------------------------------


def _export_variables(world: World, number: int) -> None:
    names = [f"shared{number}_{index}" for index in range(world.random.randint(1, 3))]
    definitions = {name: _value_text(world, Names()) for name in names}
    world.variables[f"vars{number}"] = tuple(names)
    body = {"name": f"vars{number}", "definitions": definitions}
    world.policies[f"vars{number}.json"] = {"apiVersion": API, "exportVariables": body}


def _export_constants(world: World, number: int) -> None:
    names = [f"fixed{number}_{index}" for index in range(world.random.randint(1, 3))]
    definitions = {name: world.random.choice(CONSTANTS) for name in names}
    world.constants[f"consts{number}"] = tuple(names)
    body = {"name": f"consts{number}", "definitions": definitions}
    world.policies[f"consts{number}.json"] = {"apiVersion": API, "exportConstants": body}


CONSTANTS: tuple[Any, ...] = (1, 2.5, "abc", True, None, ["a", "b"], {"a": 1, "b": [None]}, 7, -1)


def _derived_roles(world: World, number: int) -> None:
    body: Json = {"name": f"roles{number}"}
    names = _parameters(world, body)
    definitions = []
    for role in world.some(DERIVED, 3):
        definition: Json = {"name": f"{role}{number}", "parentRoles": world.some((*ROLES, "*"), 3)}
        if world.maybe(0.7):
            definition["condition"] = _condition(world, names)
        definitions.append(definition)
    world.derived[f"roles{number}"] = tuple(definition["name"] for definition in definitions)
    body["definitions"] = definitions
    world.policies[f"roles{number}.json"] = {"apiVersion": API, "derivedRoles": body}


# -- policies ----------------------------------------------------------------------------------------------


def _with_ancestors(world: World, name: str, body: Callable[[str], Json], kind: str, scope: str) -> None:
    """Add a policy in *scope* and the ancestors that it needs, as far as they are not there."""
    while True:
        path = f"{kind}_{name}_{scope}.json".replace(":", "~")
        if path not in world.policies:
            world.policies[path] = {"apiVersion": API, kind: body(scope)}
        if not scope:
            return
        scope = scope.rpartition(".")[0]


def _scope(world: World, chance: float = 0.6) -> str:
    return world.random.choice(SCOPES) if world.maybe(chance) else ""


def _resource_policy(world: World) -> None:
    kind = world.random.choice(KINDS)
    version = world.random.choice(("default", "default", *VERSIONS))
    _with_ancestors(
        world,
        f"{kind}_{version}",
        lambda scope: _resource_body(world, kind, version, scope),
        "resourcePolicy",
        _scope(world),
    )


def _resource_body(world: World, kind: str, version: str, scope: str) -> Json:
    body: Json = {"resource": kind, "version": version, **_scoped(world, scope)}
    names = _parameters(world, body)
    imports = world.some(sorted(world.derived), 2) if world.derived and world.maybe(0.6) else []
    if imports:
        body["importDerivedRoles"] = imports
    held = [role for one in imports for role in world.derived[one]]
    count = 0 if world.maybe(0.1) else world.random.randint(1, 5)
    body["rules"] = [_resource_rule(world, names, held, index) for index in range(count)]
    return body


def _resource_rule(world: World, names: Names, held: list[str], index: int) -> Json:
    rule: Json = {"actions": world.some(ACTION_PATTERNS, 3), "effect": _effect(world)}
    if not held or world.maybe(0.7):
        rule["roles"] = world.some(ROLE_PATTERNS, 3)
    if held and ("roles" not in rule or world.maybe(0.3)):
        rule["derivedRoles"] = world.some(held, 2)
    _conclude(world, rule, names, f"named-{index}", runtime=True)
    return rule


def _principal_policy(world: World) -> None:
    principal = world.random.choice(PRINCIPALS)
    version = world.random.choice(("default", "default", "v2"))
    _with_ancestors(
        world,
        f"{principal}_{version}",
        lambda scope: _principal_body(world, principal, version, scope),
        "principalPolicy",
        _scope(world, 0.4),
    )


def _principal_body(world: World, principal: str, version: str, scope: str) -> Json:
    body: Json = {"principal": principal, "version": version, **_scoped(world, scope)}
    names = _parameters(world, body)
    rules = []
    for position, pattern in enumerate(world.some(KIND_PATTERNS, 3)):
        actions = [
            _principal_action(world, names, f"p{position}-{index}")
            for index in range(world.random.randint(1, 3))
        ]
        rules.append({"resource": pattern, "actions": actions})
    body["rules"] = rules if world.maybe(0.95) else []
    return body


def _principal_action(world: World, names: Names, name: str) -> Json:
    action: Json = {"action": world.random.choice(ACTION_PATTERNS), "effect": _effect(world)}
    _conclude(world, action, names, name, runtime=False)
    return action


def _role_policy(world: World) -> None:
    role = world.random.choice(ROLES)
    version = world.random.choice(("default", "default", "default", "v2"))
    scope = _scope(world)
    path = f"role_{role}_{version}_{scope}.json".replace(":", "~")
    if path in world.policies:
        return
    body: Json = {"role": role, "version": version}
    if scope:
        body["scope"] = scope
    if world.maybe(0.6):
        body["parentRoles"] = [parent for parent in world.some(ROLES, 2) if parent != role] or ["user"]
    names = _parameters(world, body)
    # Entries about the same kind share what their conditions come to, in Cerbos, by chance.
    conditional = world.maybe(0.5)
    patterns = world.some(KINDS if conditional else KIND_PATTERNS, 3)
    body["rules"] = [_role_rule(world, names, pattern, conditional=conditional) for pattern in patterns]
    world.policies[path] = {"apiVersion": API, "rolePolicy": body}


def _role_rule(world: World, names: Names, pattern: str, *, conditional: bool) -> Json:
    rule: Json = {"resource": pattern, "allowActions": world.some(ACTION_PATTERNS, 4)}
    _conclude(world, rule, names, "", runtime=True)
    if not conditional:
        rule.pop("condition", None)
    return rule


def _effect(world: World) -> str:
    return "EFFECT_DENY" if world.maybe(0.3) else "EFFECT_ALLOW"


def _scoped(world: World, scope: str) -> Json:
    found: Json = {"scope": scope} if scope else {}
    if world.permissions[scope]:
        found["scopePermissions"] = world.permissions[scope]
    return found


def _parameters(world: World, body: Json) -> Names:
    """Give a policy variables and constants, its own and imported; some are used, some not."""
    constants = _defined(
        world, body, "constants", world.constants, lambda _: world.random.choice(CONSTANTS), ()
    )
    known = tuple(constants)
    own: list[str] = []

    def variable(name: str) -> str:
        text = _value_text(world, Names(tuple(own), known))
        own.append(name)
        return text

    variables = _defined(world, body, "variables", world.variables, variable, ())
    return Names(tuple(variables), known)


def _defined(
    world: World,
    body: Json,
    block: str,
    libraries: dict[str, tuple[str, ...]],
    value: Callable[[str], Any],
    names: tuple[str, ...],
) -> list[str]:
    found, made = list(names), {}
    imports = [one for one in sorted(libraries) if world.maybe(0.4)]
    found += [name for one in imports for name in libraries[one]]
    for index in range(world.random.choice((0, 0, 1, 2))):
        name = f"{block[0]}{index}"
        made[name] = value(name)
        found.append(name)
    entry = {key: content for key, content in (("import", imports), ("local", made)) if content}
    if entry:
        body[block] = entry
    return found


# -- conditions and outputs --------------------------------------------------------------------------------


def _conclude(world: World, rule: Json, names: Names, name: str, *, runtime: bool) -> None:
    """Give a rule a condition, an output and a name, or not."""
    if world.maybe(0.55):
        rule["condition"] = _condition(world, names, runtime=runtime)
    if world.maybe(0.35):
        whens = [when for when in ("ruleActivated", "conditionNotMet") if world.maybe(0.6)] or [
            "ruleActivated"
        ]
        rule["output"] = {"when": {when: _output_text(world, names, runtime=runtime) for when in whens}}
    if name and world.maybe(0.3):
        rule["name"] = name


def _condition(world: World, names: Names, *, runtime: bool = False) -> Json:
    return {"match": _match(world, names, 2, runtime=runtime)}


def _match(world: World, names: Names, depth: int, *, runtime: bool) -> Json:
    if depth and world.maybe(0.3):
        parts = [_match(world, names, depth - 1, runtime=runtime) for _ in range(world.random.randint(1, 3))]
        return {world.random.choice(("all", "any", "none")): {"of": parts}}
    return {"expr": _boolean_text(world, names, runtime=runtime)}


def _boolean_text(world: World, names: Names, *, runtime: bool) -> str:
    chance = world.random.random()
    if runtime and chance < 0.08:
        return f"'{world.random.choice(DERIVED)}0' in runtime.effectiveDerivedRoles"
    if names.variables and chance < 0.3:
        return world.random.choice(("V.{}", "variables.{} == 1", "V.{} != null")).format(
            world.random.choice(names.variables)
        )
    if names.constants and chance < 0.4:
        attribute = world.random.choice(("text", "number", "any"))
        return f"C.{world.random.choice(names.constants)} == R.attr.{attribute}"
    if chance < 0.75:
        return world.random.choice(SIMPLE)
    return expression(world.random, "bool", 2)


def _value_text(world: World, names: Names) -> str:
    chance = world.random.random()
    if names.variables and chance < 0.3:
        return f"V.{world.random.choice(names.variables)}"
    if names.constants and chance < 0.5:
        return f"[constants.{world.random.choice(names.constants)}]"
    if chance < 0.8:
        return world.random.choice(SIMPLE)
    return expression(world.random, world.random.choice(("dyn", "bool", "int", "string")), 1)


@functools.cache
def _environment() -> Environment:
    return environment()


def expression(random: Random, kind: str, depth: int) -> str:
    """Return an expression that the checker accepts and Cerbos does not get wrong.

    One that is not accepted would cost the whole set.
    """
    while True:
        text = expressions.expression(random, kind, depth)
        try:
            _environment().compile(text)
        except CompileError:
            continue
        if not misfolded(text):
            return text


def _output_text(world: World, names: Names, *, runtime: bool) -> str:
    chance = world.random.random()
    if runtime and chance < 0.03:
        return "runtime.effectiveDerivedRoles"
    if chance < 0.3:
        return world.random.choice(OUTPUTS)
    if chance < 0.6:
        return _value_text(world, names)
    return expression(world.random, world.random.choice(("dyn", "string", "list", "map", "int", "double")), 2)


OUTPUTS = (
    "R",
    "P",
    "request",
    "P.roles",
    "R.attr",
    "{'id': R.id, 'who': P.id}",
    "R.attr.gone",
    "[1, 2u, 3.5, null, 'x', b'x']",
    "timestamp('2024-01-01T00:00:00Z')",
    "duration('1h')",
    "9007199254740993",
    "1/0",
    "'%s by %s'.format([R.id, P.id])",
)

_LIBRARIES: tuple[tuple[Callable[[World, int], None], int], ...] = (
    (_export_constants, 2),
    (_export_variables, 2),
    (_derived_roles, 3),
)
_POLICIES: tuple[tuple[Callable[[World], None], int, int], ...] = (
    (_resource_policy, 3, 8),
    (_principal_policy, 0, 3),
    (_role_policy, 0, 4),
)
