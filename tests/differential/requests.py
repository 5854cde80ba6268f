"""Random requests to the policies of :mod:`tests.differential.policies`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from tests.differential import policies

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from random import Random

TYPICAL: Mapping[str, Sequence[Any]] = {
    "text": ("abc", "a", "", "ünï→😀", "10"),
    "number": (3, 0, -0.5, 1e300, 42, 2**53 + 2),
    "tags": (["a", "b"], [], ["a", "b", "a"]),
    "map": ({"a": 1, "b": "x"}, {}, {"a": {"b": [1]}}),
    "nothing": (None,),
    "mixed": ([1, "a", None, True], [], [1.5, [1]]),
    "any": ("a", 2, None, True, [1, 2, "a"], {"a": "z"}, "2024-01-01T00:00:00Z"),
    "list": ([1, 2], [[1], ["a"]], [{"a": 1}]),
    "yes": (True, False),
    "when": ("2024-01-01T00:00:00Z", "2024-01-01T00:00:00.123456789+02:00", "2016-02-30T00:00:00Z"),
}
"""Attributes of resources, with values of the type that expressions expect."""

ODD: Sequence[Any] = (None, True, 0, "x", [], {}, [None], {"a": None}, -1.5, "true", {"b": {"a": 1}})
"""Values for attributes that are not what is expected."""


def request(random: Random, resources: int) -> dict[str, Any]:
    """Return a request of ``CheckResources`` about several resources."""
    found: dict[str, Any] = {
        "principal": principal(random),
        "resources": [_entry(random) for _ in range(resources)],
    }
    return found


def principal(random: Random) -> dict[str, Any]:
    """Return the principal of a request."""
    roles = random.sample(policies.ROLES, random.choice((1, 1, 2, 3)))
    who: dict[str, Any] = {"id": random.choice((*policies.PRINCIPALS, "carol")), "roles": roles}
    attributes = {
        name: random.choice(ODD if random.random() < 0.3 else usual)
        for name, usual in (("any", TYPICAL["any"]), ("other", (1.5, 0)), ("no", (False, True)))
        if random.random() < 0.8
    }
    return who | ({"attr": attributes} if attributes else {}) | _place(random)


def attributes(random: Random) -> dict[str, Any]:
    """Return the attributes of a resource."""
    return {
        name: random.choice(ODD if random.random() < 0.1 else usual)
        for name, usual in TYPICAL.items()
        if random.random() < 0.85
    }


def _entry(random: Random) -> dict[str, Any]:
    kind = random.choice((*policies.KINDS, *policies.KINDS, "unknown", "a_b", "ünï", "album_object"))
    resource: dict[str, Any] = {
        "kind": kind,
        "id": random.choice(("1", "2", "x")),
        "attr": attributes(random),
    }
    actions = random.sample((*policies.ACTIONS, "view:x:y", "anything"), random.randint(1, 4))
    return {"actions": actions, "resource": resource | _place(random)}


def _place(random: Random) -> dict[str, Any]:
    """Return a version and a scope, each given or not."""
    found = {}
    if random.random() < 0.3:
        found["policyVersion"] = random.choice((*policies.VERSIONS, "v2", "default", "v9"))
    if random.random() < 0.6:
        found["scope"] = random.choice(
            (*policies.SCOPES, "acme.none", "acme.hr.uk.x", "nowhere", "acme", ".")
        )
    return found
