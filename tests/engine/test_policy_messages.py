"""Policies as protobuf messages, held against Cerbos's own classes."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import yaml
from cerbos.effect.v1 import effect_pb2
from cerbos.policy.v1 import policy_pb2
from google.protobuf import json_format

from engine import policy_messages
from engine.load import load_policy
from engine.policy_messages import NotAPolicyError, Policy


def fields(message: Any) -> dict[str, tuple[Any, ...]]:
    """Return what tells a message's fields on the wire and in JSON."""
    return {
        field.name: (
            field.number,
            field.type,
            field.json_name,
            field.is_repeated,
            field.message_type.full_name if field.message_type else None,
            field.enum_type.full_name if field.enum_type else None,
            field.containing_oneof.name if field.containing_oneof else None,
        )
        for field in message.fields
    }


def reached(message: Any, found: dict[str, Any]) -> dict[str, Any]:
    """Return the descriptors of a message and all that it refers to."""
    if message.full_name not in found:
        found[message.full_name] = message
        for field in message.fields:
            if field.message_type is not None:
                reached(field.message_type, found)
    return found


OURS = reached(Policy.DESCRIPTOR, {})
THEIRS = reached(policy_pb2.Policy.DESCRIPTOR, {})


def test_the_messages_are_those_of_cerbos() -> None:
    """A policy refers to the same messages."""
    assert OURS.keys() == THEIRS.keys()
    declared = {f"{policy_messages.POLICY_PACKAGE}.{name}" for name in policy_messages.DECLARATIONS}
    assert declared <= OURS.keys()


@pytest.mark.parametrize("name", sorted(THEIRS))
def test_the_fields_are_those_of_cerbos(name: str) -> None:
    """Each message has the same fields: numbers, types, names in JSON."""
    assert fields(OURS[name]) == fields(THEIRS[name])


def test_the_enumerations_are_those_of_cerbos() -> None:
    """Their values have the same names and numbers."""
    assert tuple(effect_pb2.Effect.keys()) == policy_messages.EFFECTS
    assert tuple(policy_pb2.ScopePermissions.keys()) == policy_messages.SCOPE_PERMISSIONS
    assert list(policy_pb2.ScopePermissions.values()) == [0, 1, 2]


DOCUMENTS: list[dict[str, Any]] = [
    {
        "resourcePolicy": {
            "resource": "leave-request",
            "version": "v1",
            "scope": "acme.hr",
            "scopePermissions": "SCOPE_PERMISSIONS_OVERRIDE_PARENT",
            "importDerivedRoles": ["common", "common", "hr-roles"],
            "variables": {"import": ["vars"], "local": {"a": "1", "b": "V.a + 1"}},
            "constants": {"import": ["consts"], "local": {"c": [1.5, {"d": None}, True, "x"]}},
            "schemas": {"resourceSchema": {"ref": "cerbos:///a.json", "ignoreWhen": {"actions": ["x"]}}},
            "rules": [
                {
                    "name": "r",
                    "actions": ["*"],
                    "roles": ["user"],
                    "effect": "EFFECT_DENY",
                    "condition": {"match": {"all": {"of": [{"expr": "true"}, {"none": {"of": []}}]}}},
                    "output": {"when": {"ruleActivated": "'a'", "conditionNotMet": "'b'"}},
                }
            ],
        }
    },
    {
        "principalPolicy": {
            "principal": "bob@example.com",
            "version": "default",
            "scope": ".",
            "rules": [{"resource": "x", "actions": [{"action": "a", "effect": "EFFECT_ALLOW"}]}],
        }
    },
    {"derivedRoles": {"name": "a b", "variables": {"import": ["vars"]}, "definitions": [{"name": "o"}]}},
    {"exportVariables": {"name": "vars", "definitions": {"a": "1"}}},
    {"exportConstants": {"name": "consts", "definitions": {"a": 1, "b": "x"}}},
    {"rolePolicy": {"role": "admin", "scope": "acme", "parentRoles": ["x"], "constants": {"import": ["c"]}}},
]


@pytest.mark.parametrize("document", DOCUMENTS)
def test_forms(document: dict[str, Any]) -> None:
    """The JSON form and the bytes are those of Cerbos's class, there and back."""
    document = {"apiVersion": "api.cerbos.dev/v1", "$schema": "x", "metadata": {"hash": "7"}, **document}
    policy = policy_messages.from_json(document)
    official = json_format.ParseDict(document, policy_pb2.Policy())
    encoded = policy_messages.encode(policy)
    assert encoded == official.SerializeToString(deterministic=True)
    assert policy_messages.to_json(policy) == json_format.MessageToDict(official)
    assert policy_messages.decode(encoded) == policy


KEYS = [
    ("RESOURCE", "leave-request", "v1", "acme.hr", "resource.leave_request.vv1/acme.hr"),
    ("PRINCIPAL", "bob@example.com", "default", "", "principal.bob_example.com.vdefault"),
    ("DERIVED_ROLES", "a b", "", "", "derived_roles.a b"),
    ("EXPORT_VARIABLES", "vars", "", "", "export_variables.vars"),
    ("EXPORT_CONSTANTS", "consts", "", "", "export_constants.consts"),
    ("ROLE", "admin", "default", "acme", "role.admin.vdefault/acme"),
]


@pytest.mark.parametrize(("document", "expected"), list(zip(DOCUMENTS, KEYS, strict=True)))
def test_identity(document: dict[str, Any], expected: tuple[str, str, str, str, str]) -> None:
    """Coordinates and keys are those of Cerbos: a dot is the root scope, roles have a default version."""
    found = policy_messages.coordinates(policy_messages.from_json(document))
    assert (found.kind, found.name, found.version, found.scope, found.key) == expected


def test_needs() -> None:
    """What a policy imports, each once, and the scopes above it."""
    policies = [policy_messages.from_json(document) for document in DOCUMENTS]
    assert [policy_messages.dependencies(policy) for policy in policies] == [
        (
            "derived_roles.common",
            "derived_roles.hr_roles",
            "export_variables.vars",
            "export_constants.consts",
        ),
        (),
        ("export_variables.vars",),
        (),
        (),
        ("export_constants.c",),
    ]
    above = [policy_messages.ancestors(policy_messages.coordinates(policy)) for policy in policies]
    assert above == [("resource.leave_request.vv1/acme", "resource.leave_request.vv1"), (), (), (), (), ()]


def test_what_is_no_policy() -> None:
    """Bytes, documents and messages that are no policies are told."""
    with pytest.raises(NotAPolicyError, match="not a `cerbos"):
        policy_messages.decode(b"\xff")
    with pytest.raises(NotAPolicyError, match="resourcePolicies"):
        policy_messages.from_json({"resourcePolicies": {}})
    with pytest.raises(NotAPolicyError, match="needs one of the kinds"):
        policy_messages.coordinates(Policy())
    with pytest.raises(NotAPolicyError, match="needs a name"):
        policy_messages.coordinates(policy_messages.from_json({"derivedRoles": {}}))
    policy = policy_messages.from_json({"exportConstants": {"name": "c", "definitions": {"a": 1}}})
    policy.export_constants.definitions["a"].number_value = math.nan
    with pytest.raises(NotAPolicyError):
        policy_messages.to_json(policy)


def _policies() -> list[tuple[str, Any]]:
    """Return the policies of the engine's cases: each rule of the language is in one of them."""
    files = sorted((Path(__file__).parents[1] / "cases" / "engine").glob("*.yaml"))
    return [
        (f"{file.name} {number}", policy)
        for file in files
        for number, policy in enumerate(yaml.load(file.read_text(), yaml.CSafeLoader).get("policies", ()))
    ]


def test_the_engine_reads_the_json_form() -> None:
    """What a policy says as a document it says as a message too."""
    policies = _policies()
    assert len(policies) > 50
    for name, document in policies:
        direct = load_policy(yaml.safe_dump(document), "a")
        message = policy_messages.encode(policy_messages.from_json(document))
        through = load_policy(yaml.safe_dump(policy_messages.to_json(policy_messages.decode(message))), "a")
        assert direct is not None
        assert through is not None
        for part in ("key", "body", "imports", "disabled", "description", "variables"):
            assert getattr(through, part) == getattr(direct, part), name
