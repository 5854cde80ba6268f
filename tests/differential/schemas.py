"""Random schemas, policies that ask them of attributes, and attributes that come near to keeping to them."""

from __future__ import annotations

from random import Random
from typing import TYPE_CHECKING, Any

from tests.differential.run import Tally, tallied
from tests.differential.sides import Configuration

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from tests.differential.sides import Files

Json = dict[str, Any]

API = "api.cerbos.dev/v1"
CONFIGURATIONS = (
    Configuration("warn", schema_enforcement="warn"),
    Configuration("reject", schema_enforcement="reject"),
)
KINDS = ("doc", "album:object", "note")
SCOPES = ("", "acme", "acme.hr")
ACTIONS = ("view", "edit", "view:public")
IGNORED = (["view"], ["view", "edit"], ["*"], ["view*"], ["e?it"])
NAMES = ("a", "b", "c", "deep", "list", "x/y~ z", "ü")
TEXTS = ("", "a", "abc", "2024-01-01", "2024-01-01T00:00:00Z", "1.2.3.4", "a@b.com", "https://a.b/c", "ünï")
NUMBERS = (0, 1, -2, 2.5, 3, 10, 1e21, 0.1)
FORMATS = ("date", "date-time", "ipv4", "email", "uri", "no-such-format")
PATTERNS = ("^a", "[0-9]{4}", "^$")

RESOURCES, REQUESTS = 50, 10


def compared(seed: int) -> Tally:
    """Compare one set of schemas, made from *seed*."""
    random = Random(seed)  # noqa: S311 - nothing secret: the same seed has to make the same schemas
    files = schema_set(random)
    asked = [request(random) for _ in range(REQUESTS)]
    return tallied(files, CONFIGURATIONS[seed % len(CONFIGURATIONS)], asked)


# -- policies ----------------------------------------------------------------------------------------------


def schema_set(random: Random) -> Files:
    """Return schemas and policies that refer to them, by the name of their file."""
    files: Json = {"_schemas/principal.json": schema(random), "_schemas/shared/parts.json": _shared(random)}
    for index in range(len(KINDS)):
        files[f"_schemas/{index}.json"] = schema(random)
        for scope in SCOPES[: random.randint(1, len(SCOPES))]:
            files[f"{index}_{scope}.json"] = {
                "apiVersion": API,
                "resourcePolicy": _policy(random, index, scope),
            }
    return files


def _policy(random: Random, index: int, scope: str) -> Json:
    rule = {
        "actions": ["view*", "edit"],
        "effect": random.choice(("EFFECT_ALLOW", "EFFECT_DENY")),
        "roles": ["user"],
    }
    body: Json = {"resource": KINDS[index], "version": "default", "rules": [rule], "schemas": {}}
    if scope:
        body["scope"] = scope
    for field, name in (("principalSchema", "principal"), ("resourceSchema", str(index))):
        if random.random() < 0.8:
            body["schemas"][field] = {"ref": f"cerbos:///{name}.json"}
            if random.random() < 0.3:
                body["schemas"][field]["ignoreWhen"] = {"actions": random.choice(IGNORED)}
    return body


# -- schemas -----------------------------------------------------------------------------------------------


def schema(random: Random) -> Json:
    """Return a schema of attributes."""
    found = _object(random, 2)
    if random.random() < 0.2:
        found["$schema"] = "http://json-schema.org/draft-07/schema#"
    return found


def _shared(random: Random) -> Json:
    return {"$defs": {"part": _value(random, 0)}}


def _value(random: Random, depth: int) -> Any:
    makers: list[Callable[[Random, int], Any]] = [_text, _text, _number, _chosen, _typed]
    if depth:
        makers += [_object, _list, _combined, _referred]
    return random.choice(makers)(random, depth - 1)


def _some(random: Random, keywords: Mapping[str, Any]) -> Json:
    return {name: value for name, value in keywords.items() if random.random() < 0.4}


def _text(random: Random, _depth: int) -> Json:
    limits = {
        "minLength": 2,
        "maxLength": 4,
        "pattern": random.choice(PATTERNS),
        "format": random.choice(FORMATS),
    }
    return {"type": "string"} | _some(random, limits)


def _number(random: Random, _depth: int) -> Json:
    limits = {"minimum": 1, "maximum": 2.5, "exclusiveMinimum": 0, "exclusiveMaximum": 10, "multipleOf": 2}
    return {"type": random.choice(("number", "integer"))} | _some(random, limits)


def _chosen(random: Random, _depth: int) -> Json:
    options = random.sample(("a", "abc", 1, 2.5, True, None), random.randint(1, 3))
    return random.choice(({"enum": options}, {"const": options[0]}))


def _typed(random: Random, _depth: int) -> Any:
    types = random.sample(("string", "number", "boolean", "null", "object", "array"), 2)
    return random.choice(({"type": types}, {"type": types[0]}, True, {"not": {"type": types[0]}}))


def _object(random: Random, depth: int) -> Json:
    names = random.sample(NAMES, random.randint(1, 4))
    limits = {
        "required": random.sample(NAMES, 2),
        "additionalProperties": random.choice((False, {"type": "string"})),
        "minProperties": 1,
        "maxProperties": 3,
        "propertyNames": {"maxLength": 4},
        "patternProperties": {"^l": {"type": "array"}},
    }
    return {"type": "object", "properties": {name: _value(random, depth) for name in names}} | _some(
        random, limits
    )


def _list(random: Random, depth: int) -> Json:
    limits = {
        "items": _value(random, depth),
        "minItems": 1,
        "maxItems": 2,
        "uniqueItems": True,
        "contains": {"type": "string"},
    }
    return {"type": "array"} | _some(random, limits)


def _combined(random: Random, depth: int) -> Json:
    branches = [_value(random, depth), _value(random, depth)]
    return {random.choice(("anyOf", "allOf", "oneOf")): branches}


def _referred(_random: Random, _depth: int) -> Json:
    return {"$ref": "cerbos:///shared/parts.json#/$defs/part"}


# -- attributes --------------------------------------------------------------------------------------------


def request(random: Random) -> Json:
    """Return a request of ``CheckResources`` about several resources."""
    principal: Json = {
        "id": "ann",
        "roles": [random.choice(("user", "guest"))],
        "attr": attributes(random, 2),
    }
    return {"principal": principal, "resources": [_entry(random) for _ in range(RESOURCES)]}


def _entry(random: Random) -> Json:
    resource: Json = {"kind": random.choice((*KINDS, "unknown")), "id": "1", "attr": attributes(random, 2)}
    scope = random.choice(SCOPES)
    if scope:
        resource["scope"] = scope
    return {"actions": random.sample(ACTIONS, random.randint(1, 2)), "resource": resource}


def attributes(random: Random, depth: int) -> Json:
    """Return attributes, of any types."""
    return {name: _attribute(random, depth) for name in random.sample(NAMES, random.randint(0, 5))}


def _attribute(random: Random, depth: int) -> Any:
    chance = random.random()
    if depth and chance < 0.2:
        return attributes(random, depth - 1)
    if depth and chance < 0.4:
        return [_attribute(random, depth - 1) for _ in range(random.randint(0, 3))]
    kinds: Sequence[Sequence[Any]] = (TEXTS, TEXTS, NUMBERS, NUMBERS, (True, False, None))
    return random.choice(random.choice(kinds))
