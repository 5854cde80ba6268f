"""The policies that were loaded: their conditional rules by number, their variables and constants.

A policy is taken by itself: it need not compile together with others for its conditions to be tried out.
Sets that it imports count when they have been loaded too.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from engine import names
from engine import policy as p
from engine.compile import compile_policies
from engine.load import PolicyError, load_policy
from engine.storage import StoreError, open_store

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping
    from pathlib import Path

    from engine.document import Path as DocumentPath
    from engine.model import JsonValue
    from engine.rules import RuleTable, Settings


class LoadError(Exception):
    """Policies that cannot be loaded; the message has a line for each fault."""


@dataclass(frozen=True, slots=True)
class NumberedRule:
    """A rule, or a derived role, that has a condition."""

    policy: p.Policy
    path: DocumentPath
    name: str
    says: str
    """What follows when the condition holds: ``allow view for user``."""

    match: p.Match
    output: p.OutputRule | None = None

    def said(self, *, activated: bool) -> str:
        """Return the output's expression for the outcome of the condition, empty when there is none."""
        if self.output is None:
            return ""
        return self.output.rule_activated if activated else self.output.when.condition_not_met

    @property
    def place(self) -> str:
        """``file:line``."""
        place = self.policy.document.place(self.path)
        self.policy.document.forget_nodes()
        return f"{self.policy.file}:{place.line}"


@dataclass(slots=True)
class Loaded:
    """Policies by file, in the order in which they were loaded; a file that is loaded again is replaced."""

    policies: dict[str, p.Policy] = field(default_factory=dict)
    current: p.Policy | None = None
    """The policy whose variables and constants are seen."""

    def load(self, path: Path) -> list[p.Policy]:
        """Load a file, or all policies of a directory.

        Raises:
            LoadError: nothing was loaded.

        """
        found = _read_directory(path) if path.is_dir() else _read_file(path)
        if not found:
            raise LoadError(f"there is no policy in `{path}`")
        self.policies.update((policy.file, policy) for policy in found)
        self.current = found[-1]
        return found

    @property
    def rules(self) -> list[NumberedRule]:
        """The rules that have a condition; a rule's index is its number."""
        return [rule for policy in self.policies.values() for rule in _rules(policy)]

    def see(self, policy: p.Policy) -> None:
        """Let the variables and constants be those of *policy*."""
        self.current = policy

    @property
    def variables(self) -> dict[str, str]:
        """The variables of the current policy: imported ones, then its own."""
        policy = self.current
        if policy is None:
            return {}
        body = policy.body
        if isinstance(body, p.ExportVariables):
            return dict(body.definitions)
        if isinstance(body, p.ExportConstants):
            return {}
        imported = self._definitions(map(names.export_variables_key, body.variables.imports))
        return {**imported, **body.variables.local, **policy.variables}

    @property
    def constants(self) -> dict[str, JsonValue]:
        """The constants of the current policy: imported ones, then its own."""
        body = None if self.current is None else self.current.body
        if body is None or isinstance(body, p.ExportVariables):
            return {}
        if isinstance(body, p.ExportConstants):
            return dict(body.definitions)
        imported = self._definitions(map(names.export_constants_key, body.constants.imports))
        return {**imported, **body.constants.local}

    @property
    def missing_imports(self) -> list[str]:
        """The keys of sets that loaded policies import and that were not loaded."""
        known = {policy.key for policy in self.policies.values()}
        wanted = {key for policy in self.policies.values() for key in policy.imports}
        return sorted(wanted - known)

    def table(self, settings: Settings) -> RuleTable:
        """Compile everything that was loaded.

        Raises:
            LoadError: the policies do not compile together.

        """
        try:
            return compile_policies(self.policies.values(), settings)
        except PolicyError as error:
            raise LoadError(f"the loaded policies do not compile:\n{error}") from None

    def _definitions(self, keys: Iterable[str]) -> dict[str, JsonValue]:
        wanted = set(keys)
        found: dict[str, JsonValue] = {}
        for policy in self.policies.values():
            if policy.key in wanted and isinstance(policy.body, (p.ExportConstants, p.ExportVariables)):
                found.update(policy.body.definitions)
        return found


def _read_file(path: Path) -> list[p.Policy]:
    try:
        content = path.read_bytes()
    except OSError as error:
        raise LoadError(f"cannot read `{path}`: {error.strerror}") from None
    return [policy for policy in [_policy(content, str(path))] if policy is not None]


def _read_directory(path: Path) -> list[p.Policy]:
    try:
        store = open_store("disk", {"directory": str(path)})
        snapshot = store.read()
    except StoreError as error:
        raise LoadError(str(error)) from None
    store.close()
    faults = [str(fault) for fault in snapshot.faults]
    found: list[p.Policy] = []
    for file, content in snapshot.files.items():
        try:
            policy = _policy(content, str(path / file))
        except LoadError as error:
            faults.append(str(error))
        else:
            found += [policy] if policy is not None else []
    if faults:
        raise LoadError("\n".join(faults))
    return found


def _policy(content: bytes, file: str) -> p.Policy | None:
    try:
        return load_policy(content, file)
    except PolicyError as error:
        raise LoadError(str(error)) from None


# -- rules -------------------------------------------------------------------------------------------------


def _rules(policy: p.Policy) -> Iterator[NumberedRule]:
    listed = _LISTED.get(type(policy.body))
    if listed is not None:
        for path, name, says, condition, output in listed(policy.body):
            if condition is not None and condition.match is not None:
                yield NumberedRule(policy, path, name, says, condition.match, output)


_Listed = tuple["DocumentPath", str, str, p.Condition | None, p.OutputRule | None]

_VERBS = {"EFFECT_ALLOW": "allow", "EFFECT_DENY": "deny"}


def _resource_rules(body: p.ResourcePolicy) -> Iterator[_Listed]:
    for index, rule in enumerate(body.rules):
        name = names.resource_rule_name(rule.name, index + 1)
        holders = ", ".join((*rule.roles, *rule.derived_roles))
        says = f"{_VERBS[rule.effect.value]} {', '.join(rule.actions)} for {holders}"
        yield ("resourcePolicy", "rules", index), name, says, rule.condition, rule.output


def _principal_rules(body: p.PrincipalPolicy) -> Iterator[_Listed]:
    for position, rule in enumerate(body.rules):
        for index, action in enumerate(rule.actions):
            name = names.principal_rule_name(action.name, rule.resource, index + 1)
            says = f"{_VERBS[action.effect.value]} {action.action} on {rule.resource} for {body.principal}"
            path = ("principalPolicy", "rules", position, "actions", index)
            yield path, name, says, action.condition, action.output


def _role_rules(body: p.RolePolicy) -> Iterator[_Listed]:
    for index, rule in enumerate(body.rules):
        says = f"leave {', '.join(rule.allow_actions)} on {rule.resource} to {body.role}"
        yield ("rolePolicy", "rules", index), rule.name, says, rule.condition, rule.output


def _derived_roles(body: p.DerivedRoles) -> Iterator[_Listed]:
    for index, role in enumerate(body.definitions):
        says = f"give the derived role {role.name} to {', '.join(role.parent_roles)}"
        yield ("derivedRoles", "definitions", index), role.name, says, role.condition, None


_LISTED: Mapping[type, Callable[[Any], Iterator[_Listed]]] = {
    p.ResourcePolicy: _resource_rules,
    p.PrincipalPolicy: _principal_rules,
    p.RolePolicy: _role_rules,
    p.DerivedRoles: _derived_roles,
}
