"""What policies refer to: actions, attributes, variables, constants and derived roles, policy by policy.

There are two views, as in Cerbos's InspectPolicies. :func:`inspect_policies` reads policies as they are
written, whether or not they compile: it says where an imported name comes from and which names are defined
nowhere. :func:`inspect_table` reads what was compiled: only what decisions can reach.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from engine import names
from engine import policy as p
from engine.cel import CompileError
from engine.conditions import clauses_of
from engine.expressions import CONSTANTS, VARIABLES, environment
from engine.rules import NOTHING, Rule

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from engine.model import JsonValue
    from engine.rules import Clause, CompiledPolicy, Parameters, Row, RuleTable

Origin = Literal["KIND_LOCAL", "KIND_IMPORTED", "KIND_EXPORTED", "KIND_UNDEFINED", "KIND_UNKNOWN"]
"""Where a name is defined; unknown once policies are compiled, undefined when nobody defines it."""

Reference = tuple[str, ...]
"""A path that an expression selects, from its variable on: ``("R", "attr", "owner")``."""

PRINCIPAL_ATTRIBUTE = "KIND_PRINCIPAL_ATTRIBUTE"
RESOURCE_ATTRIBUTE = "KIND_RESOURCE_ATTRIBUTE"

_ATTRIBUTES: Mapping[Reference, str] = {
    ("P", "attr"): PRINCIPAL_ATTRIBUTE,
    ("request", "principal", "attr"): PRINCIPAL_ATTRIBUTE,
    ("R", "attr"): RESOURCE_ATTRIBUTE,
    ("request", "resource", "attr"): RESOURCE_ATTRIBUTE,
}


class Attribute(NamedTuple):
    """An attribute of the principal or of the resource that an expression reads."""

    kind: str
    name: str

    def to_json(self) -> dict[str, JsonValue]:
        """Return Cerbos's JSON form."""
        return {"kind": self.kind, "name": self.name}


class DerivedRoleUse(NamedTuple):
    """A derived role that a set exports, or that a resource policy's rules name."""

    name: str
    kind: Origin
    source: str = ""

    def to_json(self) -> dict[str, JsonValue]:
        """Return Cerbos's JSON form."""
        return _filled({"name": self.name, "kind": self.kind, "source": self.source})


class NamedValue(NamedTuple):
    """A variable (*value* is its expression) or a constant (*value* is a JSON value)."""

    name: str
    kind: Origin
    value: JsonValue = None
    source: str = ""
    used: bool = False

    def to_json(self) -> dict[str, JsonValue]:
        """Return Cerbos's JSON form."""
        found = {"name": self.name, "kind": self.kind, "source": self.source, "used": self.used}
        return _filled(found) | ({} if self.value is None else {"value": self.value})


@dataclass(frozen=True, slots=True)
class Inspection:
    """What one policy refers to, everything sorted by name."""

    policy_id: str
    actions: tuple[str, ...] = ()
    attributes: tuple[Attribute, ...] = ()
    derived_roles: tuple[DerivedRoleUse, ...] = ()
    constants: tuple[NamedValue, ...] = ()
    variables: tuple[NamedValue, ...] = ()

    def to_json(self) -> dict[str, JsonValue]:
        """Return Cerbos's JSON form (``InspectPoliciesResponse.Result``)."""
        return _filled(
            {
                "policyId": self.policy_id,
                "actions": list(self.actions),
                "attributes": [one.to_json() for one in self.attributes],
                "derivedRoles": [one.to_json() for one in self.derived_roles],
                "constants": [one.to_json() for one in self.constants],
                "variables": [one.to_json() for one in self.variables],
            }
        )


@dataclass(frozen=True, slots=True)
class Inspections:
    """The policies by key, and the keys of sets that are imported but not there."""

    policies: Mapping[str, Inspection]
    missing: tuple[str, ...] = ()


# --- as written -------------------------------------------------------------------------------------------


def inspect_policies(policies: Iterable[p.Policy]) -> Inspections:
    """Inspect policies as they are written; an expression that is not valid refers to nothing."""
    by_key = {policy.key: policy for policy in policies}
    reader = _References()
    found = {key: _Written(policy, by_key, reader).inspection() for key, policy in by_key.items()}
    missing = {key for policy in by_key.values() for key in policy.imports if key not in by_key}
    return Inspections(found, tuple(sorted(missing)))


class _References:
    """Reads references from expressions, each text once."""

    def __init__(self) -> None:
        self._environment = environment()
        self._known: dict[str, frozenset[Reference]] = {}

    def __call__(self, text: str) -> frozenset[Reference]:
        found = self._known.get(text)
        if found is None:
            found = self._known[text] = self._read(text)
        return found

    def _read(self, text: str) -> frozenset[Reference]:
        try:
            return self._environment.compile(text).references
        except CompileError:
            return frozenset()


class _Definition(NamedTuple):
    value: JsonValue
    kind: Origin
    source: str


class _Written:
    """One policy as it is written, among all others."""

    def __init__(self, policy: p.Policy, others: Mapping[str, p.Policy], references: _References) -> None:
        self._policy = policy
        self._others = others
        self._references = references
        body: Any = policy.body
        if isinstance(body, (p.ExportVariables, p.ExportConstants)):
            self._variables = self._constants = {}
        else:
            local = {**policy.variables, **body.variables.local}
            self._variables = self._defined(local, body.variables.imports, names.export_variables_key)
            self._constants = self._defined(
                body.constants.local, body.constants.imports, names.export_constants_key
            )

    def _defined(self, local: Mapping[str, Any], imports: Sequence[str], key: Any) -> dict[str, _Definition]:
        found: dict[str, _Definition] = {}
        for source in map(key, imports):
            other = self._others.get(source)
            if other is not None and isinstance(other.body, (p.ExportVariables, p.ExportConstants)):
                for name, value in other.body.definitions.items():
                    found[name] = _Definition(value, "KIND_IMPORTED", source)
        for name, value in local.items():
            found[name] = _Definition(value, "KIND_LOCAL", self._policy.key)
        return found

    def inspection(self) -> Inspection:
        """Inspect the policy."""
        policy = self._policy
        identifier = policy.metadata.store_identifier or policy.file
        if isinstance(policy.body, p.ExportConstants):
            return Inspection(identifier, constants=self._exported(policy.body))
        if isinstance(policy.body, p.ExportVariables):
            texts = policy.body.definitions.values()
            attributes = _attributes(path for text in texts for path in self._references(text))
            return Inspection(identifier, attributes=attributes, variables=self._exported(policy.body))
        return self._inspection(identifier, policy.body)

    def _exported(self, body: p.ExportVariables | p.ExportConstants) -> tuple[NamedValue, ...]:
        return tuple(
            NamedValue(name, "KIND_EXPORTED", value, self._policy.key)
            for name, value in sorted(body.definitions.items())
        )

    def _inspection(self, identifier: str, body: p.Body) -> Inspection:
        texts = tuple(_texts(body))
        used = self._used(texts)
        reached = [one.value for name, one in self._variables.items() if name in used or self._local(one)]
        paths = [path for text in (*texts, *reached) for path in self._references(text)]
        return Inspection(
            identifier,
            actions=_actions(body),
            attributes=_attributes(paths),
            derived_roles=tuple(self._derived_roles()),
            constants=self._listed(self._constants, _selected(paths, CONSTANTS), None),
            variables=self._listed(self._variables, used, "null"),
        )

    def _local(self, definition: _Definition) -> bool:
        return definition.source == self._policy.key

    def _used(self, texts: Iterable[str]) -> set[str]:
        """Return the variables that *texts* refer to, and those that these refer to."""
        waiting = [name for text in texts for name in _selected(self._references(text), VARIABLES)]
        used: set[str] = set()
        while waiting:
            name = waiting.pop()
            if name not in used:
                used.add(name)
                if name in self._variables:
                    waiting += _selected(self._references(self._variables[name].value), VARIABLES)
        return used

    def _listed(
        self, defined: Mapping[str, _Definition], used: set[str], nothing: str | None
    ) -> tuple[NamedValue, ...]:
        """List what is used or the policy's own; *nothing* stands for the value of what is undefined."""
        undefined = _Definition(nothing, "KIND_UNDEFINED", "")
        own = {name for name, one in defined.items() if self._local(one)}
        return tuple(
            NamedValue(name, one.kind, one.value, one.source, name in used)
            for name in sorted(own | used)
            for one in (defined.get(name, undefined),)
        )

    def _derived_roles(self) -> Iterator[DerivedRoleUse]:
        body = self._policy.body
        if isinstance(body, p.DerivedRoles):
            for definition in sorted(body.definitions, key=lambda one: one.name):
                yield DerivedRoleUse(definition.name, "KIND_EXPORTED", self._policy.key)
        elif isinstance(body, p.ResourcePolicy):
            sets = list(map(names.derived_roles_key, body.import_derived_roles))
            for name in sorted({name for rule in body.rules for name in rule.derived_roles}):
                sources = [key for key in sets if self._exports_role(key, name)]
                for source in sources:
                    yield DerivedRoleUse(name, "KIND_IMPORTED", source)
                if not sources:
                    yield DerivedRoleUse(name, "KIND_UNDEFINED")

    def _exports_role(self, key: str, name: str) -> bool:
        other = self._others.get(key)
        definitions = other.body.definitions if other and isinstance(other.body, p.DerivedRoles) else ()
        return any(definition.name == name for definition in definitions)


def _texts(body: p.Body) -> Iterator[str]:
    """Yield the expressions of a policy's conditions and outputs."""
    for rule in _rules(body):
        if rule.condition is not None and rule.condition.match is not None:
            yield from _leaves(rule.condition.match)
        output = getattr(rule, "output", None)
        if output is not None:
            yield from filter(None, (output.rule_activated, output.when.condition_not_met))


def _rules(body: Any) -> Iterator[Any]:
    if isinstance(body, p.DerivedRoles):
        yield from body.definitions
    elif isinstance(body, p.PrincipalPolicy):
        for rule in body.rules:
            yield from rule.actions
    elif isinstance(body, (p.ResourcePolicy, p.RolePolicy)):
        yield from body.rules


def _leaves(match: p.Match) -> Iterator[str]:
    if isinstance(match, p.Expr):
        yield match.text
    else:
        for part in match.of:
            yield from _leaves(part)


def _actions(body: p.Body) -> tuple[str, ...]:
    found: set[str] = set()
    for rule in _rules(body):
        if isinstance(rule, p.PrincipalAction):
            found.add(rule.action)
        elif isinstance(rule, p.ResourceRule):
            found.update(rule.actions)
        elif isinstance(rule, p.RoleRule):
            found.update(rule.allow_actions)
    return tuple(sorted(found))


# --- as compiled ------------------------------------------------------------------------------------------


def inspect_table(table: RuleTable) -> Mapping[str, Inspection]:
    """Inspect the compiled policies of *table*, by key."""
    return {key: _compiled(policy) for key, policy in table.policies.items()}


def _compiled(policy: CompiledPolicy) -> Inspection:
    rows = tuple(_rows(policy))
    parameters = {row.parameters for row in rows}
    roles = {row.derived_role for row in rows if row.derived_role is not None}
    clauses = [clause for row in rows for clause in _clauses(row)]
    clauses += [clause for role in roles for clause in clauses_of(role.match)]
    for block in (*parameters, *(role.parameters for role in roles)):
        clauses += [clause for _, clause in block.variables]
    return Inspection(
        policy.key,
        actions=_actions(policy.policy.body),
        attributes=_attributes(path for clause in clauses for path in clause.expression.references),
        derived_roles=tuple(
            DerivedRoleUse(name, "KIND_IMPORTED") for name in sorted({r.name for r in roles})
        ),
        constants=_kept({name: value for block in parameters for name, value in block.constants.items()}),
        variables=_kept(_variables(parameters)),
    )


def _rows(policy: CompiledPolicy) -> Iterator[Row]:
    for rule in policy.rules:
        if isinstance(rule, Rule):
            yield from (row for _, row in rule.rows)
        else:
            yield rule.row


def _clauses(row: Row) -> Iterator[Clause]:
    yield from clauses_of(row.match)
    yield from filter(None, (row.rule_activated, row.condition_not_met))


def _variables(parameters: Iterable[Parameters]) -> dict[str, str]:
    blocks = (block for block in parameters if block is not NOTHING)
    return {name: clause.text for block in blocks for name, clause in block.variables}


def _kept(values: Mapping[str, JsonValue]) -> tuple[NamedValue, ...]:
    return tuple(NamedValue(name, "KIND_UNKNOWN", value, used=True) for name, value in sorted(values.items()))


# --- both -------------------------------------------------------------------------------------------------


def _attributes(paths: Iterable[Reference]) -> tuple[Attribute, ...]:
    found = {Attribute(_ATTRIBUTES[path[:-1]], path[-1]) for path in map(_attribute, paths) if path}
    return tuple(sorted(found))


def _attribute(path: Reference) -> Reference:
    """Return the part of a path that names an attribute, empty when there is none."""
    return next((path[: len(start) + 1] for start in _ATTRIBUTES if path[: len(start)] == start < path), ())


def _selected(paths: Iterable[Reference], namespaces: Sequence[str]) -> set[str]:
    return {path[1] for path in paths if len(path) > 1 and path[0] in namespaces}


def _filled(fields: Mapping[str, JsonValue]) -> dict[str, JsonValue]:
    return {name: value for name, value in fields.items() if value}
