"""Policies as messages: ``cerbos.policy.v1.Policy``, as databases hold them and the Admin API sends them.

The messages are declared here once, by the names and numbers of the published ``policy.proto``; the tests
hold them against Cerbos's own classes. Test suites are left out. The descriptors live in a pool of our own,
as in :mod:`engine.messages`; another pool may take :data:`FILES`.

The JSON form is protobuf's, which is what :mod:`engine.load` reads.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from google.protobuf import (
    descriptor_pb2,
    descriptor_pool,
    json_format,
    message_factory,
    struct_pb2,
    wrappers_pb2,
)
from google.protobuf.message import DecodeError

from engine import names

if TYPE_CHECKING:
    from collections.abc import Mapping

    from google.protobuf.message import Message

FieldProto = descriptor_pb2.FieldDescriptorProto

EFFECT_PACKAGE: Final = "cerbos.effect.v1"
POLICY_PACKAGE: Final = "cerbos.policy.v1"


class NotAPolicyError(ValueError):
    """What should be a policy is none; the message says why."""


# --- the declarations -------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Declared:
    """A field: its number, its name, and what it holds.

    *type* is a scalar, a message of this package, or a full name; with *many* it is repeated, with *map* it
    is the values of a map from strings.
    """

    number: int
    name: str
    type: str
    many: bool = False
    map: bool = False
    oneof: str = ""
    json_name: str = ""


_F = Declared
_VALUE: Final = "google.protobuf.Value"

EFFECTS: Final = ("EFFECT_UNSPECIFIED", "EFFECT_ALLOW", "EFFECT_DENY", "EFFECT_NO_MATCH")
SCOPE_PERMISSIONS: Final = (
    "SCOPE_PERMISSIONS_UNSPECIFIED",
    "SCOPE_PERMISSIONS_OVERRIDE_PARENT",
    "SCOPE_PERMISSIONS_REQUIRE_PARENTAL_CONSENT_FOR_ALLOWS",
)

DECLARATIONS: Final[Mapping[str, tuple[Declared, ...]]] = {
    "Policy": (
        _F(1, "api_version", "string"),
        _F(2, "disabled", "bool"),
        _F(3, "description", "string"),
        _F(4, "metadata", "Metadata"),
        _F(5, "resource_policy", "ResourcePolicy", oneof="policy_type"),
        _F(6, "principal_policy", "PrincipalPolicy", oneof="policy_type"),
        _F(7, "derived_roles", "DerivedRoles", oneof="policy_type"),
        _F(10, "export_variables", "ExportVariables", oneof="policy_type"),
        _F(11, "role_policy", "RolePolicy", oneof="policy_type"),
        _F(12, "export_constants", "ExportConstants", oneof="policy_type"),
        _F(8, "variables", "string", map=True),
        _F(9, "json_schema", "string", json_name="$schema"),
    ),
    "SourceAttributes": (_F(1, "attributes", _VALUE, map=True),),
    "Metadata": (
        _F(1, "source_file", "string"),
        _F(2, "annotations", "string", map=True),
        _F(3, "hash", "google.protobuf.UInt64Value"),
        _F(4, "store_identifer", "string"),
        _F(5, "store_identifier", "string"),
        _F(6, "source_attributes", "SourceAttributes"),
    ),
    "ResourcePolicy": (
        _F(1, "resource", "string"),
        _F(2, "version", "string"),
        _F(3, "import_derived_roles", "string", many=True),
        _F(4, "rules", "ResourceRule", many=True),
        _F(5, "scope", "string"),
        _F(6, "schemas", "Schemas"),
        _F(7, "variables", "Variables"),
        _F(8, "scope_permissions", "ScopePermissions"),
        _F(9, "constants", "Constants"),
    ),
    "ResourceRule": (
        _F(1, "actions", "string", many=True),
        _F(2, "derived_roles", "string", many=True),
        _F(3, "roles", "string", many=True),
        _F(4, "condition", "Condition"),
        _F(5, "effect", "cerbos.effect.v1.Effect"),
        _F(6, "name", "string"),
        _F(7, "output", "Output"),
    ),
    "RolePolicy": (
        _F(1, "role", "string", oneof="policy_type"),
        _F(6, "version", "string"),
        _F(5, "parent_roles", "string", many=True),
        _F(2, "scope", "string"),
        _F(3, "rules", "RoleRule", many=True),
        _F(4, "scope_permissions", "ScopePermissions"),
        _F(7, "variables", "Variables"),
        _F(8, "constants", "Constants"),
    ),
    "RoleRule": (
        _F(1, "resource", "string"),
        _F(2, "allow_actions", "string", many=True),
        _F(3, "condition", "Condition"),
        _F(4, "name", "string"),
        _F(5, "output", "Output"),
    ),
    "PrincipalPolicy": (
        _F(1, "principal", "string"),
        _F(2, "version", "string"),
        _F(3, "rules", "PrincipalRule", many=True),
        _F(4, "scope", "string"),
        _F(5, "variables", "Variables"),
        _F(6, "scope_permissions", "ScopePermissions"),
        _F(7, "constants", "Constants"),
    ),
    "PrincipalRule": (
        _F(1, "resource", "string"),
        _F(2, "actions", "PrincipalRule.Action", many=True),
    ),
    "PrincipalRule.Action": (
        _F(1, "action", "string"),
        _F(2, "condition", "Condition"),
        _F(3, "effect", "cerbos.effect.v1.Effect"),
        _F(4, "name", "string"),
        _F(5, "output", "Output"),
    ),
    "DerivedRoles": (
        _F(1, "name", "string"),
        _F(2, "definitions", "RoleDef", many=True),
        _F(3, "variables", "Variables"),
        _F(4, "constants", "Constants"),
    ),
    "RoleDef": (
        _F(1, "name", "string"),
        _F(2, "parent_roles", "string", many=True),
        _F(3, "condition", "Condition"),
    ),
    "ExportConstants": (_F(1, "name", "string"), _F(2, "definitions", _VALUE, map=True)),
    "Constants": (_F(1, "import", "string", many=True), _F(2, "local", _VALUE, map=True)),
    "ExportVariables": (_F(1, "name", "string"), _F(2, "definitions", "string", map=True)),
    "Variables": (_F(1, "import", "string", many=True), _F(2, "local", "string", map=True)),
    "Condition": (
        _F(1, "match", "Match", oneof="condition"),
        _F(2, "script", "string", oneof="condition"),
    ),
    "Match": (
        _F(1, "all", "Match.ExprList", oneof="op"),
        _F(2, "any", "Match.ExprList", oneof="op"),
        _F(3, "none", "Match.ExprList", oneof="op"),
        _F(4, "expr", "string", oneof="op"),
    ),
    "Match.ExprList": (_F(1, "of", "Match", many=True),),
    "Output": (_F(1, "expr", "string"), _F(2, "when", "Output.When")),
    "Output.When": (_F(1, "rule_activated", "string"), _F(2, "condition_not_met", "string")),
    "Schemas": (
        _F(1, "principal_schema", "Schemas.Schema"),
        _F(2, "resource_schema", "Schemas.Schema"),
    ),
    "Schemas.IgnoreWhen": (_F(1, "actions", "string", many=True),),
    "Schemas.Schema": (_F(1, "ref", "string"), _F(2, "ignore_when", "Schemas.IgnoreWhen")),
}
"""The messages of ``cerbos.policy.v1``; one that stands in another follows it."""

# --- their descriptors ------------------------------------------------------------------------------------

_SCALARS: Final = {"string": FieldProto.TYPE_STRING, "bool": FieldProto.TYPE_BOOL}
_ENUMS: Final = {
    "ScopePermissions": f".{POLICY_PACKAGE}.ScopePermissions",
    "cerbos.effect.v1.Effect": f".{EFFECT_PACKAGE}.Effect",
}
_WELL_KNOWN: Final = (struct_pb2.DESCRIPTOR, wrappers_pb2.DESCRIPTOR)


def _effect_file() -> descriptor_pb2.FileDescriptorProto:
    file = descriptor_pb2.FileDescriptorProto(name=EFFECT_PACKAGE, package=EFFECT_PACKAGE, syntax="proto3")
    _add_enum(file, "Effect", EFFECTS)
    return file


def _policy_file() -> descriptor_pb2.FileDescriptorProto:
    file = descriptor_pb2.FileDescriptorProto(name=POLICY_PACKAGE, package=POLICY_PACKAGE, syntax="proto3")
    file.dependency.extend([EFFECT_PACKAGE, *(each.name for each in _WELL_KNOWN)])
    _add_enum(file, "ScopePermissions", SCOPE_PERMISSIONS)
    described: dict[str, descriptor_pb2.DescriptorProto] = {}
    for path, fields in DECLARATIONS.items():
        parent, _, name = path.rpartition(".")
        among = described[parent].nested_type if parent else file.message_type
        message = described[path] = among.add(name=name)
        for field in fields:
            _add_field(message, field, path)
    return file


def _add_enum(file: descriptor_pb2.FileDescriptorProto, name: str, values: tuple[str, ...]) -> None:
    enum = file.enum_type.add(name=name)
    for number, value in enumerate(values):
        enum.value.add(name=value, number=number)


def _add_field(message: descriptor_pb2.DescriptorProto, field: Declared, path: str) -> None:
    kind, type_name = _type(field.type)
    if field.map:
        kind, type_name = FieldProto.TYPE_MESSAGE, _add_entry(message, field, path)
    added = message.field.add(
        name=field.name,
        number=field.number,
        type=kind,
        type_name=type_name,
        json_name=field.json_name or _json_name(field.name),
        label=FieldProto.LABEL_REPEATED if field.many or field.map else FieldProto.LABEL_OPTIONAL,
    )
    if field.oneof:
        if field.oneof not in [each.name for each in message.oneof_decl]:
            message.oneof_decl.add(name=field.oneof)
        added.oneof_index = [each.name for each in message.oneof_decl].index(field.oneof)


def _add_entry(message: descriptor_pb2.DescriptorProto, field: Declared, path: str) -> str:
    """Add the message that stands for an entry of a map (protobuf encoding, "Maps"); return its name."""
    entry = message.nested_type.add(name=f"{field.name.title().replace('_', '')}Entry")
    entry.options.map_entry = True
    kind, type_name = _type(field.type)
    single = FieldProto.LABEL_OPTIONAL
    entry.field.add(name="key", number=1, type=FieldProto.TYPE_STRING, label=single, json_name="key")
    entry.field.add(name="value", number=2, type=kind, type_name=type_name, label=single, json_name="value")
    return f".{POLICY_PACKAGE}.{path}.{entry.name}"


def _type(name: str) -> tuple[descriptor_pb2.FieldDescriptorProto.Type.ValueType, str | None]:
    if name in _SCALARS:
        return _SCALARS[name], None
    if name in _ENUMS:
        return FieldProto.TYPE_ENUM, _ENUMS[name]
    well_known = name.startswith("google.protobuf.")
    return FieldProto.TYPE_MESSAGE, f".{name}" if well_known else f".{POLICY_PACKAGE}.{name}"


def _json_name(name: str) -> str:
    return re.sub(r"_([a-z])", lambda letter: letter[1].upper(), name)


FILES: Final = (_effect_file(), _policy_file())
"""What declares the messages, for another pool; each named after its package, those it needs first."""


def _policy_class() -> type[Message]:
    pool = descriptor_pool.DescriptorPool()
    for known in _WELL_KNOWN:
        pool.AddSerializedFile(known.serialized_pb)
    for file in FILES:
        pool.AddSerializedFile(file.SerializeToString())
    return message_factory.GetMessageClass(pool.FindMessageTypeByName(f"{POLICY_PACKAGE}.Policy"))


Policy: Final[Any] = _policy_class()
"""The compiled class of ``cerbos.policy.v1.Policy``."""

# --- forms ------------------------------------------------------------------------------------------------


def decode(definition: bytes) -> Any:
    """Read a serialized policy.

    Raises:
        NotAPolicyError: it is none.

    """
    try:
        return Policy.FromString(definition)
    except DecodeError:
        raise NotAPolicyError(f"not a `{POLICY_PACKAGE}.Policy`") from None


def encode(policy: Any) -> bytes:
    """Serialize a policy; the same policy always gives the same bytes."""
    serialized: bytes = policy.SerializeToString(deterministic=True)
    return serialized


def to_json(policy: Any) -> dict[str, Any]:
    """Return the JSON form of a policy.

    Raises:
        NotAPolicyError: it holds a number that JSON has not.

    """
    try:
        return json_format.MessageToDict(policy)
    except (json_format.SerializeToJsonError, ValueError) as error:
        raise NotAPolicyError(str(error)) from None


def from_json(document: Mapping[str, Any]) -> Any:
    """Make a policy of its JSON form (names in either spelling).

    Raises:
        NotAPolicyError: a name or a value does not fit.

    """
    try:
        return json_format.ParseDict(dict(document), Policy())
    except json_format.ParseError as error:
        raise NotAPolicyError(str(error)) from None


# --- identity ---------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Coordinates:
    """What tells a policy from all others, by the words of Cerbos's tables."""

    kind: str
    """RESOURCE, PRINCIPAL, ROLE, DERIVED_ROLES, EXPORT_VARIABLES or EXPORT_CONSTANTS."""

    name: str
    version: str = ""
    scope: str = ""

    @property
    def key(self) -> str:
        """The policy key: ``resource.doc.vdefault/acme``; for a kind that nobody knows, something like it."""
        if self.kind in _VERSIONED:
            return _VERSIONED[self.kind](self.name, self.version, self.scope)
        if self.kind in _SETS:
            return _SETS[self.kind](self.name)
        return f"{self.kind.lower()}.{self.name}"


_VERSIONED: Final = {"RESOURCE": names.resource_key, "PRINCIPAL": names.principal_key, "ROLE": names.role_key}
_SETS: Final = {
    "DERIVED_ROLES": names.derived_roles_key,
    "EXPORT_VARIABLES": names.export_variables_key,
    "EXPORT_CONSTANTS": names.export_constants_key,
}


def coordinates(policy: Any) -> Coordinates:
    """Return which policy this is.

    Raises:
        NotAPolicyError: it is of no kind, or has no name.

    """
    kind, body = _kind_and_body(policy)
    match kind:
        case "resource_policy":
            found = Coordinates("RESOURCE", body.resource, body.version, names.scope_value(body.scope))
        case "principal_policy":
            found = Coordinates("PRINCIPAL", body.principal, body.version, names.scope_value(body.scope))
        case "role_policy":
            version = body.version or names.DEFAULT_VERSION
            found = Coordinates("ROLE", body.role, version, names.scope_value(body.scope))
        case "derived_roles" | "export_variables" | "export_constants":
            found = Coordinates(kind.upper(), body.name)
        case _:
            raise NotAPolicyError("a policy needs one of the kinds of policies in it")
    if not found.name:
        raise NotAPolicyError("a policy needs a name")
    return found


def _kind_and_body(policy: Any) -> tuple[str, Any]:
    kind = policy.WhichOneof("policy_type") or ""
    return kind, getattr(policy, kind) if kind else None


def dependencies(policy: Any) -> tuple[str, ...]:
    """Return the keys of the policies that this one imports, in order, each once."""
    kind, body = _kind_and_body(policy)
    found: dict[str, None] = {}
    if kind == "resource_policy":
        found.update(dict.fromkeys(map(names.derived_roles_key, body.import_derived_roles)))
    if kind in _IMPORTING:
        found.update(dict.fromkeys(map(names.export_variables_key, getattr(body.variables, "import"))))
        found.update(dict.fromkeys(map(names.export_constants_key, getattr(body.constants, "import"))))
    return tuple(found)


_IMPORTING: Final = frozenset(("resource_policy", "principal_policy", "role_policy", "derived_roles"))


def ancestors(found: Coordinates) -> tuple[str, ...]:
    """Return the keys of the policies in the scopes above, nearest first; role policies have none."""
    if found.kind not in {"RESOURCE", "PRINCIPAL"}:
        return ()
    make = _VERSIONED[found.kind]
    return tuple(make(found.name, found.version, scope) for scope in names.ancestors(found.scope))
