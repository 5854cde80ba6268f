"""All policies of a store by key, and the rules that several files have to keep together."""

from __future__ import annotations

import copy
from collections import defaultdict
from typing import TYPE_CHECKING, Any

from engine import names
from engine import policy as p
from engine.document import Fault
from engine.globs import Matcher, is_glob, matcher
from engine.patched import Patched

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence

DUPLICATE_DEFINITION = "duplicate definition"
MISSING_POLICY = "missing policy definition"
SCOPE_PERMISSIONS = "scope permissions conflict"

BODY_NAMES: Mapping[type, str] = {
    p.ResourcePolicy: "resourcePolicy",
    p.PrincipalPolicy: "principalPolicy",
    p.RolePolicy: "rolePolicy",
    p.DerivedRoles: "derivedRoles",
    p.ExportVariables: "exportVariables",
    p.ExportConstants: "exportConstants",
}
"""The field of the policy document that holds each kind of policy."""


def kind_matcher(pattern: str) -> Matcher:
    """Return the matcher of a rule's ``resource``.

    A literal matches every kind that is the same in a policy key; a glob matches the kind as it was given or
    as it stands in the key.
    """
    if is_glob(pattern):
        matches = matcher(pattern)
        return lambda kind: matches(kind) or matches(names.sanitised(kind))
    expected = names.sanitised(pattern)
    return lambda kind: kind == pattern or names.sanitised(kind) == expected


def needs_consent(body: p.Body) -> bool:
    """Tell whether allows of a policy need the consent of the scopes above it."""
    permissions = getattr(body, "scope_permissions", None)
    return permissions is p.ScopePermissions.REQUIRE_PARENTAL_CONSENT


def outline(policy: p.Policy) -> tuple[object, ...]:
    """Return everything that matters to other policies, but for what importers take from a set.

    As long as the outlines stay the same, so do the rules that several files have to keep together.
    """
    return (
        policy.file,
        policy.key,
        policy.disabled,
        policy.imports,
        *_OUTLINES[type(policy.body)](policy.body),
    )


_OUTLINES: Mapping[type, Callable[[Any], tuple[object, ...]]] = {
    p.ResourcePolicy: lambda body: (body.resource, body.scope_permissions, body.schemas),
    p.PrincipalPolicy: lambda body: (body.principal, body.scope_permissions),
    p.RolePolicy: lambda body: (body,),
    p.DerivedRoles: lambda body: (body.name,),
    p.ExportVariables: lambda body: (body.name,),
    p.ExportConstants: lambda body: (body.name,),
}


class Library:
    """All enabled policies by key, and the faults that concern several files at once."""

    def __init__(self, policies: Iterable[p.Policy]) -> None:
        self.faults: list[Fault] = []
        by_key: dict[str, p.Policy] = {}
        for policy in sorted(policies, key=lambda policy: policy.file):
            if not policy.disabled:
                self._add(policy, by_key)
        self._by_key = Patched(by_key)
        self._role_rules = self._index_role_rules()
        self._check_ancestors()
        self._check_scope_permissions()

    def replaced(self, policies: Mapping[p.Policy, p.Policy]) -> Library:
        """Return a library in which other policies stand in for some, each with the same :func:`outline`."""
        library = copy.copy(self)
        by_key = {policy.key: policy for policy in policies.values()}
        library._by_key = self._by_key.patched(by_key)  # noqa: SLF001 - of the same class
        return library

    @property
    def policies(self) -> Collection[p.Policy]:
        """The policies, in the order of their files."""
        return self._by_key.values()

    def get(self, key: str) -> p.Policy | None:
        """Return the policy with *key*."""
        return self._by_key.get(key)

    def set_names(self, kind: type[p.ImportedSet]) -> Sequence[str]:
        """Return the names of all sets of a kind, for suggestions."""
        return [policy.body.name for policy in self.policies if isinstance(policy.body, kind)]

    def _add(self, policy: p.Policy, by_key: dict[str, p.Policy]) -> None:
        first = by_key.setdefault(policy.key, policy)
        if first is not policy:
            message = f"duplicate definition of {policy.key}, first defined in {first.file}"
            self.faults.append(policy.document.fault(message, (), token=True, kind=DUPLICATE_DEFINITION))

    def _check_ancestors(self) -> None:
        for policy in self.policies:
            body = policy.body
            if isinstance(body, (p.ResourcePolicy, p.PrincipalPolicy)):
                for key in self._missing_ancestors(body):
                    message = f'Missing ancestor policy "{key}"'
                    hint = f"{policy.key} needs it; it may be without rules"
                    self.faults.append(Fault(policy.file, 0, 0, message, kind=MISSING_POLICY, hint=hint))

    def _missing_ancestors(self, body: p.ResourcePolicy | p.PrincipalPolicy) -> Iterator[str]:
        for scope in names.ancestors(body.scope):
            if isinstance(body, p.PrincipalPolicy):
                key = names.principal_key(body.principal, body.version, scope)
            else:
                key = names.resource_key(body.resource, body.version, scope)
                if self._covered_by_role_policy(body, scope):
                    continue
            if key not in self._by_key:
                yield key

    def _covered_by_role_policy(self, body: p.ResourcePolicy, scope: str) -> bool:
        """Tell whether a role policy for the kind makes a scope exist for it."""
        rules = self._role_rules.get((body.version, scope), ())
        return any(kind_matcher(rule.resource)(body.resource) for rule in rules)

    def _index_role_rules(self) -> dict[tuple[str, str], list[p.RoleRule]]:
        found: dict[tuple[str, str], list[p.RoleRule]] = defaultdict(list)
        for policy in self.policies:
            if isinstance(policy.body, p.RolePolicy):
                scope = policy.body.scope
                found[policy.body.version, scope].extend(policy.body.rules)
        return found

    def _check_scope_permissions(self) -> None:
        """All policies of a scope must agree on what an allow means; unset means to override."""
        consenting: dict[str, list[p.Policy]] = defaultdict(list)
        overriding: dict[str, list[p.Policy]] = defaultdict(list)
        for policy in self.policies:
            if isinstance(policy.body, (p.ResourcePolicy, p.PrincipalPolicy)):
                groups = consenting if needs_consent(policy.body) else overriding
                groups[policy.body.scope].append(policy)
        for scope in sorted(consenting.keys() & overriding.keys()):
            for policy in consenting[scope]:
                message = f'policies of the scope "{scope}" have different scopePermissions'
                hint = f"{overriding[scope][0].file} overrides the parent scope"
                path = (BODY_NAMES[type(policy.body)], "scopePermissions")
                fault = policy.document.fault(message, path, key=True, kind=SCOPE_PERMISSIONS, hint=hint)
                self.faults.append(fault)
