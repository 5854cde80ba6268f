"""Where we differ from Cerbos on purpose: changes to our engine that make it answer as Cerbos does.

A difference is explained when, with one or several of these changes, our engine gives exactly Cerbos's
answer; ``tests/conformance/divergences.yaml`` has the reason for each of them.
"""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any
from unittest import mock

from engine import check, names, rules
from engine.cel import EvaluationError
from engine.globs import rule_matcher

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping

    from engine.rules import CompiledPolicy, Parameters, RoleRule, Row, RuleTable
    from engine.targets import Selection, Stage, Step, Target


def _matches(rule: RoleRule, _authored: str, kind: str) -> bool:
    return rule.resource(kind)


def _listing(policy: CompiledPolicy, kind: str) -> Iterator[RoleRule]:
    """Return the entries of a role policy that are about *kind*."""
    body: Any = policy.policy.body
    for rule, authored in zip(policy.rules, body.rules, strict=True):
        if _matches(rule, authored.resource, kind):
            yield rule


@contextlib.contextmanager
def sanitised_kinds() -> Iterator[None]:
    """Match the patterns of role and principal policies against the kind as it stands in policy keys."""
    principal_stage = rules.RuleTable._principal_stage

    def matches(_rule: RoleRule, authored: str, kind: str) -> bool:
        return rule_matcher(authored)(names.sanitised(kind))

    def role_rows(policy: CompiledPolicy | None, kind: str, action: str) -> Iterable[Row]:
        if policy is None:
            return ()
        listed = [rule.row for rule in _listing(policy, kind) if rule.actions(action)]
        if not listed:
            return [policy.refusal] if policy.refusal else []
        return [row for row in listed if row.effect is not None or row.rule_activated is not None]

    def narrowed(table: RuleTable, kind: str, version: str, scope: str) -> bool:
        return any(any(_listing(policy, kind)) for policy in table._roles.get((version, scope), {}).values())

    def quirky_principal_stage(
        table: RuleTable, policy: CompiledPolicy | None, scope: str, kind: str, policies: tuple[str, ...]
    ) -> Stage:
        return principal_stage(table, policy, scope, names.sanitised(kind), policies)

    with (
        mock.patch(f"{__name__}._matches", matches),
        mock.patch.object(rules, "_role_rows", role_rows),
        mock.patch.object(rules.RuleTable, "_narrowed", narrowed),
        mock.patch.object(rules.RuleTable, "_principal_stage", quirky_principal_stage),
    ):
        yield


@contextlib.contextmanager
def role_policy_hole() -> Iterator[None]:
    """Ask role policies only in scopes that have some rule about the kind for one of the roles."""
    original = rules.RuleTable._resource_stage

    def resource_stage(
        table: RuleTable,
        policy: CompiledPolicy | None,
        kind: str,
        version: str,
        scope: str,
        policies: tuple[str, ...],
    ) -> Stage:
        stage = original(table, policy, kind, version, scope, policies)
        select = stage.selection
        narrowing = table._roles.get((version, scope), {})

        def visible(roles: tuple[str, ...]) -> bool:
            own = policy.rules if policy else ()
            if any(selects.count(roles) for rule in own for selects, _ in rule.rows):
                return True
            return any(any(_listing(narrowing[role], kind)) for role in roles if role in narrowing)

        def seen(action: str) -> Selection:
            selected = select(action)
            return lambda roles: selected(roles) if visible(roles) else ()

        stage.selection = seen
        return stage

    with mock.patch.object(rules.RuleTable, "_resource_stage", resource_stage):
        yield


class _Remembered(dict[Any, Any]):
    """Outcomes of conditions that forget, once told, that the principal did not hold the derived role."""

    def __setitem__(self, key: Any, outcome: Any) -> None:
        super().__setitem__(key, False if outcome is None else outcome)


@contextlib.contextmanager
def conditions_of_derived_roles_not_held() -> Iterator[None]:
    """Say ``conditionNotMet`` of a rule whose derived role is not held, from the second time on."""
    original = check.Check.__init__

    def init(self: check.Check, *arguments: Any) -> None:
        original(self, *arguments)
        self._outcomes = _Remembered()

    with mock.patch.object(check.Check, "__init__", init):
        yield


@contextlib.contextmanager
def failing_variables_are_null() -> Iterator[None]:
    """Let a variable that fails be null where the effective derived roles of a scope are worked out."""
    original = check.Check._enter

    def define(self: check._Activation, parameters: Parameters) -> None:
        self.V = values = rules.Namespace()
        for name, clause in parameters.variables:
            try:
                values[name] = clause.expression.function(self)
            except EvaluationError as error:
                values[name] = None
                self.note(clause, error)

    def enter(self: check.Check, step: Step) -> check.DerivedRoleNames:
        kept = self._activations, self._outcomes
        self._activations, self._outcomes = {}, {}
        try:
            with mock.patch.object(check._Activation, "_define", define):
                return original(self, step)
        finally:
            self._activations, self._outcomes = kept

    with mock.patch.object(check.Check, "_enter", enter):
        yield


@contextlib.contextmanager
def schemas_of_scopes_with_a_policy() -> Iterator[None]:
    """Hold attributes against schemas only where the scope of the resource has a policy of its own."""
    original = rules.RuleTable._resource_target

    def target(table: RuleTable, kind: str, version: str, scope: str, chain: tuple[str, ...]) -> Target:
        found = original(table, kind, version, scope, chain)
        if (names.sanitised(kind), version, scope) not in table._resources:
            found.attributes = None
        return found

    with mock.patch.object(rules.RuleTable, "_resource_target", target):
        yield


QUIRKS: Mapping[str, Callable[[], Any]] = {
    "sanitised-kinds": sanitised_kinds,
    "role-policy-hole": role_policy_hole,
    "condition-not-met-without-the-derived-role": conditions_of_derived_roles_not_held,
    "failing-variables-of-derived-roles": failing_variables_are_null,
    "schemas-below-their-policy": schemas_of_scopes_with_a_policy,
}
"""Changes to our engine, by the id of the divergence."""
