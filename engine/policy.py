"""Policies as typed, frozen values: what :mod:`engine.load` reads and :mod:`engine.compile` compiles.

The fields are those of Cerbos's policy format; a place in a policy is its path in the document
(``("resourcePolicy", "rules", 0, "condition")``), from which the document finds line and column.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from engine import names

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from engine.document import Document
    from engine.model import Effect, JsonValue


class ScopePermissions(enum.Enum):
    """What an allow in a scope means for the scopes above it; unset means to override them."""

    UNSPECIFIED = "SCOPE_PERMISSIONS_UNSPECIFIED"
    OVERRIDE_PARENT = "SCOPE_PERMISSIONS_OVERRIDE_PARENT"
    REQUIRE_PARENTAL_CONSENT = "SCOPE_PERMISSIONS_REQUIRE_PARENTAL_CONSENT_FOR_ALLOWS"


@dataclass(frozen=True, slots=True)
class Expr:
    """One CEL expression."""

    text: str


@dataclass(frozen=True, slots=True)
class All:
    """True when every part is."""

    of: tuple[Match, ...]


@dataclass(frozen=True, slots=True)
class Any_:  # noqa: N801 - `Any` is taken
    """True when a part is."""

    of: tuple[Match, ...]


@dataclass(frozen=True, slots=True)
class None_:  # noqa: N801 - `None` is taken
    """True when no part is."""

    of: tuple[Match, ...]


Match = Expr | All | Any_ | None_


@dataclass(frozen=True, slots=True)
class Condition:
    """When a rule or a derived role applies; *script* is a thing of the past that compiling refuses."""

    match: Match | None = None
    script: str = ""


@dataclass(frozen=True, slots=True)
class When:
    """Expressions of an output: for a rule that applied, for a rule whose condition was not met."""

    rule_activated: str = ""
    condition_not_met: str = ""


@dataclass(frozen=True, slots=True)
class OutputRule:
    """What a rule says besides its effect; *expr* is the old name of ``when.ruleActivated``."""

    expr: str = ""
    when: When = field(default_factory=When)

    @property
    def rule_activated(self) -> str:
        """The expression for a rule that applied, empty when there is none."""
        return self.when.rule_activated or self.expr


@dataclass(frozen=True, slots=True)
class Variables:
    """Named expressions: sets to import, and the policy's own."""

    imports: tuple[str, ...] = ()
    local: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Constants:
    """Named JSON values: sets to import, and the policy's own."""

    imports: tuple[str, ...] = ()
    local: Mapping[str, JsonValue] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class IgnoreWhen:
    """Actions for which a schema is not applied."""

    actions: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Schema:
    """A JSON Schema for attributes, by reference."""

    ref: str
    ignore_when: IgnoreWhen | None = None


@dataclass(frozen=True, slots=True)
class Schemas:
    """The schemas of a resource policy."""

    principal_schema: Schema | None = None
    resource_schema: Schema | None = None


@dataclass(frozen=True, slots=True)
class ResourceRule:
    """A rule of a resource policy."""

    actions: tuple[str, ...]
    effect: Effect
    roles: tuple[str, ...] = ()
    derived_roles: tuple[str, ...] = ()
    condition: Condition | None = None
    name: str = ""
    output: OutputRule | None = None


@dataclass(frozen=True, slots=True)
class ResourcePolicy:
    """Who may do what to resources of one kind."""

    resource: str
    version: str
    scope: str = ""
    import_derived_roles: tuple[str, ...] = ()
    rules: tuple[ResourceRule, ...] = ()
    schemas: Schemas | None = None
    variables: Variables = field(default_factory=Variables)
    constants: Constants = field(default_factory=Constants)
    scope_permissions: ScopePermissions = ScopePermissions.UNSPECIFIED

    @property
    def key(self) -> str:
        """The policy key."""
        return names.resource_key(self.resource, self.version, self.scope)


@dataclass(frozen=True, slots=True)
class PrincipalAction:
    """What one principal may or may not do to a kind of resource."""

    action: str
    effect: Effect
    condition: Condition | None = None
    name: str = ""
    output: OutputRule | None = None


@dataclass(frozen=True, slots=True)
class PrincipalRule:
    """The rules of a principal policy for one kind of resource (or a glob of kinds)."""

    resource: str
    actions: tuple[PrincipalAction, ...] = ()


@dataclass(frozen=True, slots=True)
class PrincipalPolicy:
    """Exceptions for one principal; they come before the resource policies."""

    principal: str
    version: str
    scope: str = ""
    rules: tuple[PrincipalRule, ...] = ()
    variables: Variables = field(default_factory=Variables)
    constants: Constants = field(default_factory=Constants)
    scope_permissions: ScopePermissions = ScopePermissions.UNSPECIFIED

    @property
    def key(self) -> str:
        """The policy key."""
        return names.principal_key(self.principal, self.version, self.scope)


@dataclass(frozen=True, slots=True)
class RoleRule:
    """The actions a role keeps on a kind of resource (or a glob of kinds)."""

    resource: str
    allow_actions: tuple[str, ...] = ()
    condition: Condition | None = None
    name: str = ""
    output: OutputRule | None = None


@dataclass(frozen=True, slots=True)
class RolePolicy:
    """A role narrowed to a list of permitted actions; it never grants by itself."""

    role: str
    version: str = names.DEFAULT_VERSION
    scope: str = ""
    parent_roles: tuple[str, ...] = ()
    rules: tuple[RoleRule, ...] = ()
    variables: Variables = field(default_factory=Variables)
    constants: Constants = field(default_factory=Constants)
    scope_permissions: ScopePermissions = ScopePermissions.UNSPECIFIED

    @property
    def key(self) -> str:
        """The policy key."""
        return names.role_key(self.role, self.version, self.scope)


@dataclass(frozen=True, slots=True)
class RoleDefinition:
    """A derived role: one of *parent_roles*, and a condition."""

    name: str
    parent_roles: tuple[str, ...]
    condition: Condition | None = None


@dataclass(frozen=True, slots=True)
class DerivedRoles:
    """A set of derived roles that resource policies import."""

    name: str
    definitions: tuple[RoleDefinition, ...]
    variables: Variables = field(default_factory=Variables)
    constants: Constants = field(default_factory=Constants)

    @property
    def key(self) -> str:
        """The policy key."""
        return names.derived_roles_key(self.name)


@dataclass(frozen=True, slots=True)
class ExportVariables:
    """Named expressions for other policies to import."""

    name: str
    definitions: Mapping[str, str] = field(default_factory=dict)

    @property
    def key(self) -> str:
        """The policy key."""
        return names.export_variables_key(self.name)


@dataclass(frozen=True, slots=True)
class ExportConstants:
    """Named JSON values for other policies to import."""

    name: str
    definitions: Mapping[str, JsonValue] = field(default_factory=dict)

    @property
    def key(self) -> str:
        """The policy key."""
        return names.export_constants_key(self.name)


Body = ResourcePolicy | PrincipalPolicy | RolePolicy | DerivedRoles | ExportVariables | ExportConstants


@dataclass(frozen=True, slots=True)
class SourceAttributes:
    """Where a store found a policy (driver, path, commit, ...)."""

    attributes: Mapping[str, JsonValue] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Metadata:
    """What a store or an author noted about a policy; it does not change decisions."""

    source_file: str = ""
    annotations: Mapping[str, str] = field(default_factory=dict)
    hash: int | None = None
    store_identifier: str = ""
    source_attributes: SourceAttributes | None = None


@dataclass(frozen=True, slots=True, eq=False)
class Policy:
    """One policy file. Equality is identity: an unchanged file keeps its object, and all compiled from it."""

    body: Body
    document: Document
    key: str = field(init=False)
    """The policy key."""

    imports: tuple[str, ...] = field(init=False)
    """The keys of the sets that the policy imports."""

    disabled: bool = False
    description: str = ""
    metadata: Metadata = field(default_factory=Metadata)
    variables: Mapping[str, str] = field(default_factory=dict)
    """Top-level variables, deprecated: they join the policy's own."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "key", self.body.key)
        object.__setattr__(self, "imports", tuple(_imports(self.body)))

    @property
    def file(self) -> str:
        """The file's path inside its store."""
        return self.document.file


def _imports(body: Body) -> Iterator[str]:
    if isinstance(body, ResourcePolicy):
        yield from map(names.derived_roles_key, body.import_derived_roles)
    if not isinstance(body, (ExportVariables, ExportConstants)):
        yield from map(names.export_constants_key, body.constants.imports)
        yield from map(names.export_variables_key, body.variables.imports)


def expressions_of(part: object) -> Iterator[str]:
    """Yield the texts of all expressions in a policy, or in a part of one."""
    if isinstance(part, Policy):
        yield from expressions_of(part.body)
        yield from part.variables.values()
    elif isinstance(part, Expr):
        yield part.text
    elif isinstance(part, OutputRule):
        yield from filter(None, (part.rule_activated, part.when.condition_not_met))
    elif isinstance(part, Variables):
        yield from part.local.values()
    elif isinstance(part, ExportVariables):
        yield from part.definitions.values()
    elif isinstance(part, tuple):
        for one in part:
            yield from expressions_of(one)
    elif isinstance(part, _WITH_EXPRESSIONS):
        for field_name in part.__dataclass_fields__:
            yield from expressions_of(getattr(part, field_name))


_WITH_EXPRESSIONS = (
    All,
    Any_,
    Condition,
    DerivedRoles,
    None_,
    PrincipalAction,
    PrincipalPolicy,
    PrincipalRule,
    ResourcePolicy,
    ResourceRule,
    RoleDefinition,
    RolePolicy,
    RoleRule,
)


ImportedSet = DerivedRoles | ExportVariables | ExportConstants
"""Policies that decide nothing by themselves: others import them by name."""
