"""YAML and JSON text to typed policies, each fault with its place, all faults of a file at once.

The fields, their names and their rules are those of Cerbos's ``policy.proto``; messages are worded as
Cerbos's parser words them, with a hint where a near miss is known.
"""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any

from engine import document as documents
from engine import names
from engine import policy as p
from engine.fields import (
    Choice,
    Entries,
    Field,
    Many,
    Message,
    OneOf,
    Reading,
    boolean,
    describe,
    equals,
    json,
    matches,
    not_empty,
    some_text,
    text,
    unique,
    unsigned,
)
from engine.model import Effect

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from engine.document import Document, Fault, Path

API_VERSION = "api.cerbos.dev/v1"


class PolicyError(Exception):
    """Policies that cannot be used; *faults* are sorted by file and place."""

    def __init__(self, faults: Iterable[Fault]) -> None:
        self.faults = tuple(sorted(faults))
        super().__init__("\n".join(map(str, self.faults)))


def load_policy(text: str | bytes, file: str, *, spanning: bool = True) -> p.Policy | None:
    """Read the policy of one file, ``None`` when the file holds nothing (or comments only).

    *spanning* says whether rules that span several fields are checked too, as a store does.

    Raises:
        PolicyError: with every fault of the file.

    """
    try:
        document = documents.parse(text, file)
    except documents.DocumentError as error:
        raise PolicyError(error.faults) from None
    return None if document.value is None else load_document(document, spanning=spanning)


def load_document(document: Document, *, spanning: bool = True) -> p.Policy:
    """Read the policy of one document.

    Raises:
        PolicyError: with every fault of the document.

    """
    if not isinstance(document.value, dict):
        message = "invalid document: contents are not valid YAML or JSON"
        hint = f"a policy is a mapping, this is {describe(document.value)}"
        raise PolicyError([document.fault(message, kind=documents.PARSE_ERROR, hint=hint)])
    reading = Reading(document)
    arguments = POLICY(reading, document.value, ())
    policy = _policy(document, arguments) if reading.well_formed else None
    if policy is not None and spanning and not policy.disabled:
        _check_names(reading, policy)
    document.release()
    if policy is None or not reading.well_formed:
        raise PolicyError(reading.faults)
    return policy


def _policy(document: Document, arguments: dict[str, Any]) -> p.Policy:
    body = next(value for name, value in arguments.items() if name in BODIES)
    rest = {name: value for name, value in arguments.items() if name not in BODIES}
    rest.pop("api_version")
    rest.pop("editor_hint", None)
    return p.Policy(body=body, document=document, **rest)


# -- the tables --------------------------------------------------------------------------------------------

NAME = matches(r"^[^!*?\[\]{}]+$")
VERSION = matches(r"^[\w]+$")
SCOPE = matches(r"^(^$|\.|[0-9a-zA-Z][\w\-]*(\.\w[\w\-]*)*)$")
SET_NAME = matches(r"^[\w\-\.]+$")
# Cerbos repeats a repetition, which is slow to refuse; without the outer one it means the same.
RULE_NAME = matches(r"^([a-zA-Z][\w\@\.\-]*)?$", shown=r"^([a-zA-Z][\w\@\.\-]*)*$")

EFFECT = Choice(
    {"EFFECT_ALLOW": Effect.ALLOW, "EFFECT_DENY": Effect.DENY, 1: Effect.ALLOW, 2: Effect.DENY},
    ("EFFECT_NO_MATCH", "EFFECT_UNSPECIFIED"),
)
SCOPE_PERMISSIONS = Choice(
    {permissions.value: permissions for permissions in p.ScopePermissions}
    | dict(enumerate(p.ScopePermissions))
)


def _version(value: str) -> str:
    return not_empty(value) or VERSION(value)


def _name(value: str) -> str:
    return not_empty(value) or NAME(value)


def _set_name(value: str) -> str:
    return not_empty(value) or SET_NAME(value)


def _scope(reading: Reading, value: Any, path: Path) -> str:
    scope = text(reading, value, path)
    return "" if scope == "." else scope


def _role_version(reading: Reading, value: Any, path: Path) -> str:
    return text(reading, value, path) or names.DEFAULT_VERSION


def _role_policy_permissions(value: p.ScopePermissions) -> str:
    allowed = sorted(one.value for one in p.ScopePermissions if one is not p.ScopePermissions.OVERRIDE_PARENT)
    return f"must be one of [{', '.join(allowed)}]" if value is p.ScopePermissions.OVERRIDE_PARENT else ""


def _match(reading: Reading, value: Any, path: Path) -> Any:
    return MATCH(reading, value, path)


def _match_tree(cls: Callable[..., Any]) -> Message:
    of = Field("of", "of", Many(_match), (not_empty,), required=True)
    return Message(cls, of)


def _only_value(**arguments: Any) -> Any:
    return next(iter(arguments.values()))


def _expr(reading: Reading, value: Any, path: Path) -> p.Expr:
    return p.Expr(text(reading, value, path))


MATCH = Message(
    _only_value,
    Field("all", "all", _match_tree(p.All)),
    Field("any", "any", _match_tree(p.Any_)),
    Field("none", "none", _match_tree(p.None_)),
    Field("expr", "expr", _expr),
    one_of=OneOf("op", ("all", "any", "none", "expr")),
)
CONDITION = Message(
    p.Condition,
    Field("match", "match", MATCH),
    Field("script", "script", text),
    one_of=OneOf("condition", ("match", "script")),
)
OUTPUT = Message(
    p.OutputRule,
    Field("expr", "expr", text),
    Field(
        "when",
        "when",
        Message(
            p.When,
            Field("ruleActivated", "rule_activated", text),
            Field("conditionNotMet", "condition_not_met", text),
        ),
    ),
)

_IMPORTS = Field("import", "imports", Many(text, (SET_NAME,)), (unique,))
_VARIABLES = Field(
    "variables", "variables", Message(p.Variables, _IMPORTS, Field("local", "local", Entries(text)))
)
_CONSTANTS = Field(
    "constants", "constants", Message(p.Constants, _IMPORTS, Field("local", "local", Entries(json)))
)
_PERMISSIONS = Field("scopePermissions", "scope_permissions", SCOPE_PERMISSIONS)
_SCOPE = Field("scope", "scope", _scope, (SCOPE,))
_CONDITION = Field("condition", "condition", CONDITION)
_OUTPUT = Field("output", "output", OUTPUT)
_RULE_NAME = Field("name", "name", text, (RULE_NAME,))
_EFFECT = Field("effect", "effect", EFFECT, required=True)
_ROLES = Many(text, (some_text,))

SCHEMA = Message(
    p.Schema,
    Field("ref", "ref", text, (not_empty,), required=True),
    Field(
        "ignoreWhen",
        "ignore_when",
        Message(
            p.IgnoreWhen,
            Field("actions", "actions", Many(text, (some_text,)), (not_empty, unique), required=True),
        ),
    ),
)
RESOURCE_RULE = Message(
    p.ResourceRule,
    Field("actions", "actions", Many(text, (some_text,)), (not_empty, unique), required=True),
    _EFFECT,
    Field("roles", "roles", _ROLES, (unique,)),
    Field("derivedRoles", "derived_roles", Many(text, (SET_NAME,)), (unique,)),
    _CONDITION,
    _RULE_NAME,
    _OUTPUT,
)
RESOURCE_POLICY = Message(
    p.ResourcePolicy,
    Field("resource", "resource", text, (_name,), required=True),
    Field("version", "version", text, (_version,), required=True),
    _SCOPE,
    Field("importDerivedRoles", "import_derived_roles", Many(text, (SET_NAME,)), (unique,)),
    Field("rules", "rules", Many(RESOURCE_RULE)),
    Field(
        "schemas",
        "schemas",
        Message(
            p.Schemas,
            Field("principalSchema", "principal_schema", SCHEMA),
            Field("resourceSchema", "resource_schema", SCHEMA),
        ),
    ),
    _VARIABLES,
    _CONSTANTS,
    _PERMISSIONS,
)
PRINCIPAL_POLICY = Message(
    p.PrincipalPolicy,
    Field("principal", "principal", text, (_name,), required=True),
    Field("version", "version", text, (_version,), required=True),
    _SCOPE,
    Field(
        "rules",
        "rules",
        Many(
            Message(
                p.PrincipalRule,
                Field("resource", "resource", text, (not_empty,), required=True),
                Field(
                    "actions",
                    "actions",
                    Many(
                        Message(
                            p.PrincipalAction,
                            Field("action", "action", text, (not_empty,), required=True),
                            _EFFECT,
                            _CONDITION,
                            _RULE_NAME,
                            _OUTPUT,
                        )
                    ),
                    (not_empty,),
                    required=True,
                ),
            )
        ),
    ),
    _VARIABLES,
    _CONSTANTS,
    _PERMISSIONS,
)
ROLE_POLICY = Message(
    p.RolePolicy,
    Field("role", "role", text, (_name,), required=True),
    Field("version", "version", _role_version, (VERSION,)),
    _SCOPE,
    Field("parentRoles", "parent_roles", _ROLES, (unique,)),
    Field(
        "rules",
        "rules",
        Many(
            Message(
                p.RoleRule,
                Field("resource", "resource", text, (not_empty,), required=True),
                Field(
                    "allowActions",
                    "allow_actions",
                    Many(text, (some_text,)),
                    (not_empty, unique),
                    required=True,
                ),
                _CONDITION,
                _RULE_NAME,
                _OUTPUT,
            )
        ),
    ),
    _VARIABLES,
    _CONSTANTS,
    Field("scopePermissions", "scope_permissions", SCOPE_PERMISSIONS, (_role_policy_permissions,)),
)
DERIVED_ROLES = Message(
    p.DerivedRoles,
    Field("name", "name", text, (_set_name,), required=True),
    Field(
        "definitions",
        "definitions",
        Many(
            Message(
                p.RoleDefinition,
                Field("name", "name", text, (_set_name,), required=True),
                Field("parentRoles", "parent_roles", _ROLES, (not_empty, unique), required=True),
                _CONDITION,
            )
        ),
        (not_empty,),
        required=True,
    ),
    _VARIABLES,
    _CONSTANTS,
)
EXPORT_VARIABLES = Message(
    p.ExportVariables,
    Field("name", "name", text, (_set_name,), required=True),
    Field("definitions", "definitions", Entries(text)),
)
EXPORT_CONSTANTS = Message(
    p.ExportConstants,
    Field("name", "name", text, (_set_name,), required=True),
    Field("definitions", "definitions", Entries(json)),
)
METADATA = Message(
    p.Metadata,
    Field("sourceFile", "source_file", text),
    Field("annotations", "annotations", Entries(text)),
    Field("hash", "hash", unsigned),
    Field("storeIdentifier", "store_identifier", text),
    Field("storeIdentifer", "store_identifier", text),  # the old spelling is still in the schema
    Field(
        "sourceAttributes",
        "source_attributes",
        Message(p.SourceAttributes, Field("attributes", "attributes", Entries(json))),
    ),
)
BODIES: Mapping[str, tuple[str, Message]] = {
    "resource_policy": ("resourcePolicy", RESOURCE_POLICY),
    "principal_policy": ("principalPolicy", PRINCIPAL_POLICY),
    "derived_roles": ("derivedRoles", DERIVED_ROLES),
    "export_variables": ("exportVariables", EXPORT_VARIABLES),
    "role_policy": ("rolePolicy", ROLE_POLICY),
    "export_constants": ("exportConstants", EXPORT_CONSTANTS),
}
POLICY = Message(
    dict,
    Field("$schema", "editor_hint", text),
    Field("apiVersion", "api_version", text, (not_empty, equals(API_VERSION)), required=True),
    Field("disabled", "disabled", boolean),
    Field("description", "description", text),
    Field("metadata", "metadata", METADATA),
    Field("variables", "variables", Entries(text)),
    *(Field(name, attribute, message) for attribute, (name, message) in BODIES.items()),
    one_of=OneOf("policyType", tuple(name for name, _ in BODIES.values())),
)


# -- rules that span fields --------------------------------------------------------------------------------


def _check_names(reading: Reading, policy: p.Policy) -> None:
    """Note names that stand twice in one policy, and top-level variables where they have no meaning."""
    body = policy.body
    check = _NAME_CHECKS.get(type(body))
    if check is not None:
        check(reading, body)
    no_variables = _NO_TOP_LEVEL_VARIABLES.get(type(body))
    if no_variables and policy.variables:
        message = f"{no_variables} policies do not support the deprecated top-level variables field"
        reading.refuse(message, ("variables",))


_NO_TOP_LEVEL_VARIABLES = {p.ExportVariables: "export variables", p.ExportConstants: "export constants"}


def _repeated(
    reading: Reading,
    items: Sequence[Any],
    name: Callable[[Any], str],
    path: Path,
    word: Callable[[str, int, int, str], str],
) -> None:
    """Note each of *items* (which stand at *path*) that has the name of an earlier one.

    *word* makes the message of the name, the later and the earlier number, and the earlier place.
    """
    first: dict[str, int] = {}
    for index, item in enumerate(items):
        found = name(item)
        if found and found in first:
            place = reading.document.token((*path, first[found]))
            at = f"{place.line}:{place.column}"
            reading.refuse(word(found, index + 1, first[found] + 1, at), (*path, index))
        first.setdefault(found, index)


def _rules_by_name(reading: Reading, body: p.ResourcePolicy) -> None:
    path = ("resourcePolicy", "rules")
    for index, rule in enumerate(body.rules):
        if not rule.roles and not rule.derived_roles:
            shown = rule.name or f"#{index + 1}"
            message = f"rule {shown} does not specify any roles or derived roles to match"
            reading.refuse(message, (*path, index))
    _repeated(
        reading,
        body.rules,
        lambda rule: str(rule.name),
        path,
        lambda name, later, earlier, at: (
            f'duplicate rule name "{name}": '
            f"rule #{later} has the same name as rule #{earlier} defined at {at}"
        ),
    )


def _actions_by_name(reading: Reading, body: p.PrincipalPolicy) -> None:
    path = ("principalPolicy", "rules")
    _repeated(
        reading,
        body.rules,
        lambda rule: str(rule.resource),
        path,
        lambda name, later, earlier, at: (
            f'duplicate resource "{name}" at rule #{later}: previous definition in rule #{earlier} at {at}'
        ),
    )
    for position, rule in enumerate(body.rules):
        _repeated(
            reading,
            rule.actions,
            lambda action: str(action.name),
            (*path, position, "actions"),
            functools.partial(_same_action, rule.resource),
        )


def _same_action(resource: str, name: str, later: int, earlier: int, at: str) -> str:
    here = f'action rule #{later} for resource "{resource}"'
    there = f"action rule #{earlier} defined at {at}"
    return f'duplicate action rule name "{name}": {here} has the same name as {there}'


def _definitions_by_name(reading: Reading, body: p.DerivedRoles) -> None:
    _repeated(
        reading,
        body.definitions,
        lambda definition: str(definition.name),
        ("derivedRoles", "definitions"),
        lambda name, later, earlier, at: (
            f'duplicate derived role definition "{name}": '
            f"definition #{later} has the same name as definition #{earlier} at {at}"
        ),
    )


_NAME_CHECKS: Mapping[type, Callable[[Reading, Any], None]] = {
    p.ResourcePolicy: _rules_by_name,
    p.PrincipalPolicy: _actions_by_name,
    p.DerivedRoles: _definitions_by_name,
}
