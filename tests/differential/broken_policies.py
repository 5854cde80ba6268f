"""Valid sets of policies, broken in seeded random ways: one to three faults a set.

A set is a handful of policies of all kinds that import and build on each other. Every name in it ends in the
number of its case, so that many sets can lie in one store without knowing of each other. A *break* is a
function that damages one set in place, as data; :data:`TEXT_BREAKS` damage the text of one file.

Cerbos works in two phases, of which the second one asks for the first to have gone well: :data:`READING` has
the breaks that it finds in the first, :data:`COMPILING` those of the second.
"""

from __future__ import annotations

import copy
import json
import random
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import yaml

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

API = "api.cerbos.dev/v1"
EMPTY = "---\n"

Policies = dict[str, Any]
"""Policies and schemas as data, by path."""

SEED_SET = """
common_{n}.yaml:
  derivedRoles:
    name: roles_{n}
    constants: {{local: {{limit: 10}}}}
    variables: {{import: [vars_{n}], local: {{mine: "R.attr.owner == P.id"}}}}
    definitions:
      - {{name: owner, parentRoles: [user, admin], condition: {{match: {{expr: V.mine}}}}}}
      - name: manager
        parentRoles: ["*"]
        condition:
          match:
            all:
              of:
                - {{expr: 'P.attr.level > C.limit'}}
                - any: {{of: [{{expr: V.flagged}}, {{expr: 'R.attr.team in P.attr.teams'}}]}}
more_{n}.yaml:
  derivedRoles:
    name: others_{n}
    definitions:
      - {{name: guest, parentRoles: [user]}}
      - {{name: neighbour, parentRoles: [user], condition: {{match: {{expr: 'R.attr.city == P.attr.city'}}}}}}
vars_{n}.yaml:
  exportVariables:
    name: vars_{n}
    definitions:
      flagged: R.attr.flagged == true
      late: now() > timestamp("2024-01-01T00:00:00Z")
consts_{n}.yaml:
  exportConstants:
    name: consts_{n}
    definitions: {{MAX: 5, WORDS: [a, b], DEEP: {{x: 1.5}}}}
doc_{n}.yaml:
  resourcePolicy:
    resource: doc_{n}
    version: default
    importDerivedRoles: [roles_{n}, others_{n}]
    variables:
      import: [vars_{n}]
      local: {{big: R.attr.amount > C.MAX, both: V.big && V.flagged}}
    constants:
      import: [consts_{n}]
      local: {{small: 1}}
    schemas:
      principalSchema: {{ref: 'cerbos:///case_{n}/person.json'}}
      resourceSchema: {{ref: 'cerbos:///case_{n}/doc.json', ignoreWhen: {{actions: [create, 'view:*']}}}}
    rules:
      - {{actions: [view, 'view:*'], effect: EFFECT_ALLOW, roles: [user], name: viewing}}
      - actions: [edit]
        effect: EFFECT_ALLOW
        derivedRoles: [owner, manager]
        condition: {{match: {{expr: V.both}}}}
        output: {{when: {{ruleActivated: '"yes"', conditionNotMet: '"no"'}}}}
      - actions: [delete]
        effect: EFFECT_DENY
        roles: ['*']
        condition:
          match:
            none:
              of:
                - {{expr: 'R.attr.status == "open"'}}
                - {{expr: 'C.small > R.attr.count'}}
      - {{actions: [share], effect: EFFECT_ALLOW, derivedRoles: [guest], roles: [admin]}}
doc_{n}_acme.yaml:
  resourcePolicy:
    resource: doc_{n}
    version: default
    scope: acme_{n}
    scopePermissions: SCOPE_PERMISSIONS_REQUIRE_PARENTAL_CONSENT_FOR_ALLOWS
    rules:
      - actions: [view]
        effect: EFFECT_ALLOW
        roles: [user]
        condition: {{match: {{expr: R.attr.public}}}}
doc_{n}_acme_hr.yaml:
  resourcePolicy:
    resource: doc_{n}
    version: default
    scope: acme_{n}.hr
    importDerivedRoles: [roles_{n}]
    rules:
      - {{actions: ['*'], effect: EFFECT_ALLOW, derivedRoles: [owner]}}
ann_{n}.yaml:
  principalPolicy:
    principal: ann_{n}
    version: default
    variables: {{local: {{dev: 'R.attr.dev == true'}}}}
    rules:
      - resource: doc_{n}
        actions:
          - {{action: view, effect: EFFECT_ALLOW, condition: {{match: {{expr: V.dev}}}}}}
          - {{action: 'edit:*', effect: EFFECT_DENY, name: no_edit, output: {{expr: '"x"'}}}}
      - resource: 'other_{n}:*'
        actions: [{{action: '*', effect: EFFECT_DENY}}]
ann_{n}_acme.yaml:
  principalPolicy:
    principal: ann_{n}
    version: default
    scope: bcme_{n}
    rules: [{{resource: doc_{n}, actions: [{{action: edit, effect: EFFECT_ALLOW}}]}}]
clerk_{n}.yaml:
  rolePolicy:
    role: clerk_{n}
    scope: ccme_{n}
    parentRoles: [user]
    rules:
      - {{resource: doc_{n}, allowActions: [view, 'edit:*'], condition: {{match: {{expr: 'R.attr.open'}}}}}}
      - {{resource: 'x_{n}:*', allowActions: ['*'], name: all}}
_schemas/case_{n}/person.json:
  $schema: https://json-schema.org/draft/2020-12/schema
  type: object
  properties: {{level: {{type: number}}, teams: {{type: array, items: {{type: string}}}}}}
_schemas/case_{n}/doc.json:
  type: object
  required: [owner]
  properties: {{owner: {{type: string}}, place: {{$ref: place.json}}}}
_schemas/case_{n}/place.json: {{type: object, properties: {{city: {{type: string}}}}}}
"""


def valid_set(number: int) -> Policies:
    """Return a set in which nothing is wrong."""
    made: Policies = yaml.safe_load(SEED_SET.format(n=number))
    for path, value in made.items():
        if not path.startswith("_schemas/"):
            made[path] = {"apiVersion": API, **value}
    return made


@dataclass
class Case:
    """A broken set: its files as text, and what was done to it."""

    number: int
    files: dict[str, str]
    breaks: list[str] = field(default_factory=list)


Break = Callable[[random.Random, Policies, int], str]
"""Damages a set in place; says what it did, or nothing when it found nothing to damage."""


# -- finding something to damage ---------------------------------------------------------------------------


def bodies(policies: Policies, *kinds: str) -> list[dict[str, Any]]:
    """Return the bodies of the policies of some kinds (all kinds by default)."""
    return [
        body
        for path, policy in sorted(policies.items())
        if not path.startswith("_schemas/") and isinstance(policy, dict)
        for kind, body in policy.items()
        if isinstance(body, dict) and (kind in kinds if kinds else kind != "metadata")
    ]


def rules(policies: Policies) -> list[dict[str, Any]]:
    """Return the rules of all resource policies."""
    return [
        rule
        for body in bodies(policies, "resourcePolicy")
        for rule in body.get("rules") or []
        if isinstance(rule, dict)
    ]


def nested(value: Any) -> Iterator[Any]:
    """Yield *value* and everything in it."""
    yield value
    items = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    for item in items:
        yield from nested(item)


def expressions(policies: Policies) -> list[dict[str, Any]]:
    """Return the mappings with an ``expr``."""
    return [
        found
        for body in bodies(policies)
        for found in nested(body)
        if isinstance(found, dict) and isinstance(found.get("expr"), str)
    ]


def messages(policies: Policies) -> list[dict[str, Any]]:
    """Return every mapping whose keys are fields, not names."""
    found = []
    for body in bodies(policies):
        waiting: list[tuple[str, Any]] = [("", body)]
        while waiting:
            key, value = waiting.pop()
            if isinstance(value, dict):
                if key not in ("local", "definitions"):
                    found.append(value)
                waiting += [(name, item) for name, item in value.items() if name != "local"]
            elif isinstance(value, list):
                waiting += [("", item) for item in value]
    return found


# -- breaks that keep a policy from being read (first phase) -----------------------------------------------


def unknown_field(rng: random.Random, policies: Policies, _n: int) -> str:
    target = rng.choice(messages(policies))
    name = rng.choice(("effects", "resources", "Name", "x-y", "allow_action", "when.x", "rule"))
    target[name] = rng.choice(("a", 1, True, [1], {"a": 1}))
    return f"unknown field {name}"


def required_field(rng: random.Random, policies: Policies, _n: int) -> str:
    named = (
        "resource",
        "version",
        "principal",
        "role",
        "name",
        "effect",
        "actions",
        "action",
        "allowActions",
    )
    wanted = [(body, name) for body in messages(policies) for name in named if name in body]
    target, name = rng.choice(wanted)
    if rng.random() < 0.6:
        del target[name]
        return f"no {name}"
    target[name] = None if rng.random() < 0.3 else [] if isinstance(target[name], list) else ""
    return f"empty {name}"


def bad_name(rng: random.Random, policies: Policies, _n: int) -> str:
    named = (
        *(
            (body, name)
            for body in bodies(policies)
            for name in ("resource", "version", "scope", "principal", "role", "name")
        ),
        *((rule, "name") for rule in rules(policies)),
    )
    target, name = rng.choice([(body, name) for body, name in named if name in body])
    target[name] = rng.choice(
        ("a*", "b c", "-x", "é", "a..b", ".a", "1x", "[a]", "a/b", "a@b", "x" * 80, "a.", "!", "a?b")
    )
    return f"{name} is {target[name]}"


def bad_list_item(rng: random.Random, policies: Policies, _n: int) -> str:
    listed = (
        "actions",
        "roles",
        "derivedRoles",
        "parentRoles",
        "allowActions",
        "importDerivedRoles",
        "import",
    )
    found = [
        (name, body[name])
        for body in messages(policies)
        for name in listed
        if isinstance(body.get(name), list) and body[name] and isinstance(body[name][0], str)
    ]
    name, items = rng.choice(found)
    items.append(rng.choice((items[0], "", "a b", "c*d")))
    return f"{name} has {items[-1]!r}"


def bad_word(rng: random.Random, policies: Policies, _n: int) -> str:
    found = [
        (body, name) for body in messages(policies) for name in ("effect", "scopePermissions") if name in body
    ]
    target, name = rng.choice(found)
    target[name] = rng.choice(
        ("ALLOW", "EFFECT_ALOW", "EFFECT_NO_MATCH", "EFFECT_UNSPECIFIED", "", 9, 0, "effect_allow")
    )
    return f"{name} is {target[name]!r}"


def repeated_name(rng: random.Random, policies: Policies, _n: int) -> str:
    found = [
        items
        for body in bodies(policies)
        for key in ("rules", "definitions", "actions")
        for items in [
            value[key]
            for value in nested(body)
            if isinstance(value, dict) and isinstance(value.get(key), list)
        ]
        if len(items) > 1 and isinstance(items[0], dict)
    ]
    items = rng.choice(found)
    if "resource" in items[0] and "actions" in items[0]:
        items[-1]["resource"] = items[0]["resource"]
    else:
        items[0]["name"] = items[-1]["name"] = "twice"
    return "a name twice"


def two_of_one(rng: random.Random, policies: Policies, _n: int) -> str:
    if rng.random() < 0.3:
        paths = [path for path in sorted(policies) if not path.startswith("_schemas/")]
        path = rng.choice(paths)
        policies[path]["exportConstants"] = {"name": "second", "definitions": {"a": 1}}
        return "two kinds of policy in one"
    target = rng.choice(expressions(policies))
    if rng.random() < 0.5:
        target["all"] = {"of": [{"expr": "true"}]}
        return "expr and all"
    target.clear()
    return "no operator"


def empty_of(rng: random.Random, policies: Policies, _n: int) -> str:
    target = rng.choice(expressions(policies))
    target.clear()
    target[rng.choice(("all", "any", "none"))] = rng.choice(({"of": []}, {}, {"of": [{}]}))
    return "empty of"


def wrong_shape(rng: random.Random, policies: Policies, _n: int) -> str:
    target = rng.choice(messages(policies))
    if not target:
        return ""
    name = rng.choice(sorted(target))
    before = target[name]
    wrong = [value for value in ("text", ["a"], {"a": "b"}) if not isinstance(value, type(before))]
    target[name] = rng.choice(wrong)
    return f"{name} of another shape"


def api_version(rng: random.Random, policies: Policies, _n: int) -> str:
    path = rng.choice([path for path in sorted(policies) if not path.startswith("_schemas/")])
    policies[path]["apiVersion"] = rng.choice(("v1", "", "api.cerbos.dev/v2", 1))
    return "another apiVersion"


# -- breaks between files (first phase) --------------------------------------------------------------------


def missing_import(rng: random.Random, policies: Policies, _n: int) -> str:
    found = [
        body[name]
        for body in messages(policies)
        for name in ("importDerivedRoles", "import")
        if isinstance(body.get(name), list) and body[name]
    ]
    rng.choice(found).append("nowhere")
    return "an import of nothing"


def removed_file(rng: random.Random, policies: Policies, _n: int) -> str:
    path = rng.choice([path for path in sorted(policies) if not path.startswith("_schemas/")])
    del policies[path]
    return f"without {path}"


def disabled(rng: random.Random, policies: Policies, _n: int) -> str:
    path = rng.choice([path for path in sorted(policies) if not path.startswith("_schemas/")])
    policies[path]["disabled"] = True
    return f"{path} is disabled"


def duplicate(rng: random.Random, policies: Policies, n: int) -> str:
    path = rng.choice([path for path in sorted(policies) if not path.startswith("_schemas/")])
    policies[f"copy_{n}.yaml"] = copy.deepcopy(policies[path])
    return f"{path} twice"


def orphan(rng: random.Random, policies: Policies, n: int) -> str:
    path = rng.choice([path for path in sorted(policies) if "resourcePolicy" in (policies[path] or {})])
    made = copy.deepcopy(policies[path])
    made["resourcePolicy"]["scope"] = rng.choice((f"dcme_{n}.x.y", f"acme_{n}.it.x", f"ccme_{n}.z"))
    policies[f"orphan_{n}.yaml"] = made
    return f"scope {made['resourcePolicy']['scope']}"


# -- breaks that do not compile (second phase) -------------------------------------------------------------

BAD_EXPRESSIONS = (
    "1 +",
    "R.attr.x ==",
    "unknown",
    "nope(1)",
    "R.id + 1",
    "R.nope == 1",
    "'a' == 1",
    "size(1)",
    "P.roles.foo",
    'timestamp("x")',
    'duration("1x")',
    'R.id.matches("(")',
    "V['x']",
    "V.nope",
    "C.nope",
    "variables.nope && constants.nope",
    "[1, 2",
    '"abc',
    "a.b.c",
    "R.attr.list.exists(x)",
    "P.attr.all(x, y, z, 1)",
    "1 = 2",
    "R..attr",
    "request.nope",
    "true && 1",
    "!1",
    "1 ? 2 : 3",
    "{1: }",
    "has(R)",
    "1 in 2",
    "'x' < 1",
    "hierarchy(R.id).nope()",
    "",
)


def bad_expression(rng: random.Random, policies: Policies, _n: int) -> str:
    target = rng.choice(expressions(policies))
    target["expr"] = rng.choice(BAD_EXPRESSIONS)
    return f"expr {target['expr']!r}"


def bad_variable(rng: random.Random, policies: Policies, _n: int) -> str:
    found = [
        body.setdefault("variables", {}).setdefault("local", {})
        for body in bodies(policies, "resourcePolicy", "principalPolicy", "derivedRoles", "rolePolicy")
        if isinstance(body.get("variables", {}), dict)
    ] + [
        body["definitions"]
        for body in bodies(policies, "exportVariables")
        if isinstance(body.get("definitions"), dict)
    ]
    definitions = rng.choice(found)
    made = rng.choice(
        (
            {"x1": rng.choice(BAD_EXPRESSIONS)},
            {"a": "V.b", "b": "V.a"},
            {"a": "V.a + 1"},
            {"a": "V.b", "b": "V.c", "c": "V.a && V.b"},
            {"a": "V.b", "b": "V.a", "c": "V.d", "d": "V.c"},
            {"true": "1"},
            {"in": "1"},
            {"a-b": "1"},
            {"1a": "1"},
            {"flagged": "true"},
            {"late": "V.zzz"},
            {"a": "C.zzz", "b": "V.a"},
            {"MAX": "1"},
        )
    )
    definitions.update(made)
    return f"variables {made}"


def bad_constant(rng: random.Random, policies: Policies, _n: int) -> str:
    found = [
        body.setdefault("constants", {}).setdefault("local", {})
        for body in bodies(policies, "resourcePolicy", "principalPolicy", "derivedRoles", "rolePolicy")
        if isinstance(body.get("constants", {}), dict)
    ] + [
        body["definitions"]
        for body in bodies(policies, "exportConstants")
        if isinstance(body.get("definitions"), dict)
    ]
    definitions = rng.choice(found)
    made: dict[str, Any] = rng.choice(
        ({"null": 1}, {"a-b": 1}, {"MAX": 1}, {"WORDS": [1]}, {"ok": None}, {"é": 1}, {"small": 2})
    )
    definitions.update(made)
    return f"constants {made}"


def no_roles(rng: random.Random, policies: Policies, _n: int) -> str:
    rule = rng.choice(rules(policies))
    rule.pop("roles", None)
    rule.pop("derivedRoles", None)
    return "a rule without roles"


def unknown_role(rng: random.Random, policies: Policies, _n: int) -> str:
    found = rules(policies)
    for rule in rng.sample(found, min(2, len(found))):
        rule.setdefault("derivedRoles", []).append(rng.choice(("nobody", "ownr", "owner", "guest")))
    return "derived roles of nowhere"


def ambiguous_role(_rng: random.Random, policies: Policies, _n: int) -> str:
    for body in bodies(policies, "derivedRoles"):
        if body.get("name", "").startswith("others"):
            body["definitions"].append({"name": "owner", "parentRoles": ["user"]})
    return "a derived role twice"


def empty_output(rng: random.Random, policies: Policies, _n: int) -> str:
    rng.choice(rules(policies))["output"] = rng.choice(
        ({}, {"when": {}}, {"expr": ""}, {"when": {"ruleActivated": ""}})
    )
    return "an empty output"


def bad_output(rng: random.Random, policies: Policies, _n: int) -> str:
    wrong = rng.choice(BAD_EXPRESSIONS)
    word = rng.choice(("ruleActivated", "conditionNotMet"))
    rng.choice(rules(policies))["output"] = {"expr": wrong} if rng.random() < 0.3 else {"when": {word: wrong}}
    return f"output {wrong!r}"


def script(rng: random.Random, policies: Policies, _n: int) -> str:
    rng.choice(rules(policies))["condition"] = {"script": "return true"}
    return "a script"


def bad_schema(rng: random.Random, policies: Policies, n: int) -> str:
    if rng.random() < 0.5:
        found = [
            body["schemas"]
            for body in bodies(policies, "resourcePolicy")
            if isinstance(body.get("schemas"), dict)
        ]
        if not found:
            return ""
        asked = rng.choice(found)
        ref = rng.choice(
            (f"cerbos:///case_{n}/nowhere.json", "nowhere.json", "file:///nowhere.json", "ftp://x/y.json")
        )
        asked[rng.choice(("principalSchema", "resourceSchema"))] = {"ref": ref}
        return f"schema {ref}"
    path = rng.choice([path for path in sorted(policies) if path.startswith("_schemas/")])
    if rng.random() < 0.3:
        del policies[path]
        return f"without {path}"
    policies[path] = rng.choice(
        (
            "text",
            1,
            {"type": "strng"},
            {"properties": []},
            {"$ref": "nowhere.json"},
            {"required": "a"},
            {"minLength": -1},
        )
    )
    return f"{path} is {policies[path]!r}"


READING: tuple[Break, ...] = (
    unknown_field,
    required_field,
    bad_name,
    bad_list_item,
    bad_word,
    repeated_name,
    two_of_one,
    empty_of,
    wrong_shape,
    api_version,
    missing_import,
    removed_file,
    disabled,
    duplicate,
    orphan,
    no_roles,
)
"""Breaks that keep Cerbos from compiling at all (some of them, at times, break nothing)."""

COMPILING: tuple[Break, ...] = (
    bad_expression,
    bad_variable,
    bad_constant,
    unknown_role,
    ambiguous_role,
    empty_output,
    bad_output,
    script,
    bad_schema,
)
"""Breaks that Cerbos finds when it compiles."""


# -- text --------------------------------------------------------------------------------------------------


def dumped(rng: random.Random, path: str, value: Any) -> str:
    """Write a policy as YAML in one of several styles, or as JSON."""
    if path.endswith(".json"):
        return json.dumps(value, indent=rng.choice((None, 2)))
    style = rng.choice((False, None, False))
    text: str = yaml.safe_dump(
        value,
        sort_keys=False,
        default_flow_style=style,
        indent=rng.choice((2, 4)),
        width=rng.choice((60, 120, 1000)),
        allow_unicode=True,
    )
    return f"---\n{text}" if rng.random() < 0.3 else text


def _line_twice(rng: random.Random, text: str) -> str:
    lines = text.splitlines()
    found = [
        index
        for index, line in enumerate(lines)
        if line.rstrip()[-1:] not in (":", "", ",", "-")
        and ": " in line
        and not line.lstrip().startswith("- ")
    ]
    if not found:
        return text
    index = rng.choice(found)
    return "\n".join([*lines[: index + 1], lines[index], *lines[index + 1 :]]) + "\n"


def _decorated(rng: random.Random, text: str) -> str:
    lines = text.splitlines()
    for _ in range(3):
        index = rng.randrange(len(lines))
        if lines[index] == "---":
            continue  # Cerbos 0.55 panics when nothing but a comment stands before it
        if lines[index].strip() and not lines[index].startswith(" "):
            lines.insert(index, "# a comment")
        lines[index] += rng.choice(("", "   ", " # and one"))
    return "\n".join(lines) + "\n"


TEXT_BREAKS: Mapping[str, Callable[[random.Random, str], str]] = {
    "two documents": lambda _, text: f"{text}---\n{text.removeprefix(EMPTY)}",
    "empty": lambda _, __: "",
    "comment": lambda _, __: "# nothing\n",
    "text": lambda _, __: "just text\n",
    "list": lambda _, __: "- a\n- b\n",
    "key twice": _line_twice,
    "comments and spaces": _decorated,
}


# -- cases -------------------------------------------------------------------------------------------------


def broken(seed: int, number: int, breaks: tuple[Break, ...]) -> Case:
    """Return one broken set; the same seed and number give the same one."""
    rng = random.Random(f"{seed}/{number}")  # noqa: S311 - for variety, not for secrets
    policies = valid_set(number)
    told = [rng.choice(breaks)(rng, policies, number) for _ in range(rng.choice((1, 1, 1, 2, 3)))]
    files = {path: dumped(rng, path, value) for path, value in policies.items()}
    if breaks is READING and rng.random() < 0.2:
        word = rng.choice(sorted(TEXT_BREAKS))
        path = rng.choice([path for path in sorted(files) if path.endswith(".yaml")])
        files[path] = TEXT_BREAKS[word](rng, files[path])
        told.append(f"{path}: {word}")
    return Case(number, files, told)
