"""Explains a decision: the check itself, watched.

A check is made as any other, by a class that overrides its steps to write down what they came to; nothing of
the decision is worked out here, so an explanation cannot differ from the answer that it explains. Only what a
condition saw is found by evaluating its expressions once more (:mod:`engine.explain.seen`).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from engine.check import Check, Stopped
from engine.explain.explanation import (
    ActionExplanation,
    DerivedRoleExplanation,
    Explanation,
    OtherRule,
    RuleExplanation,
    ScopeExplanation,
    Walk,
)
from engine.explain.seen import condition_seen
from engine.model import Effect
from engine.rules import NOTHING, PrincipalRule, RoleRule

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from engine.cel import Timestamp
    from engine.check import Asked, DerivedRoleNames
    from engine.conditions import Activation
    from engine.explain.explanation import Condition, DerivedRoleOutcome, PassedOver, RuleOutcome
    from engine.model import ActionDecision, CheckInput, Decision, Evaluation, Output
    from engine.rules import CompiledPolicy, DerivedRole, Parameters, Row, RuleTable
    from engine.targets import Stage, Step, Target, Way


def explain(
    table: RuleTable,
    question: CheckInput,
    *,
    now: Timestamp | Callable[[], Timestamp] | None = None,
    evaluation: Evaluation | None = None,
) -> Explanation:
    """Decide *question* as :func:`engine.check.check` does, and tell the whole way to the decision."""
    watched = _WatchedCheck(table, question, now, evaluation or table.settings.evaluation)
    decision = watched.decide()
    notes = tuple(_notes(table, question))
    return Explanation(question, decision, tuple(watched.actions) or _refused(decision), notes)


def _notes(table: RuleTable, question: CheckInput) -> Iterator[str]:
    default = table.settings.default_policy_version
    own = question.principal.policy_version or default
    asked = question.resource.policy_version or default
    if own != asked and question.principal.id in table.principal_ids:
        yield (
            f"policies of the principal are looked up in the version of the resource, `{asked}`, as in "
            f"Cerbos; the principal's own version `{own}` makes no difference"
        )


def _refused(decision: Decision) -> tuple[ActionExplanation, ...]:
    reason = "the attributes do not keep to their schema, and no rule was looked at"
    return tuple(ActionExplanation(action, found, (), reason) for action, found in decision.actions.items())


class _WatchedCheck(Check):
    """A check that writes down what it does."""

    __slots__ = ("_derived", "_pending", "_rules", "_walks", "actions")

    def __init__(
        self,
        table: RuleTable,
        question: CheckInput,
        now: Timestamp | Callable[[], Timestamp] | None,
        evaluation: Evaluation,
    ) -> None:
        super().__init__(table, question, now, evaluation)
        self.actions: list[ActionExplanation] = []
        self._walks: list[Walk] = []
        self._pending: Iterator[tuple[Target, str]] = iter(())
        self._derived: dict[Stage, dict[DerivedRole, DerivedRoleExplanation]] = {}
        self._rules: dict[Stage, tuple[RuleExplanation, ...]] = {}

    # -- the steps of the check, watched -------------------------------------------------------------------

    def _decision(self, action: str, asked: tuple[Asked, ...]) -> ActionDecision:
        self._walks = []
        # INVARIANT (check): one way is walked for each target and role, in this order.
        self._pending = ((target, role) for target, roles in asked for role in roles)
        decision = super()._decision(action, asked)
        walks = tuple(self._walks)
        self.actions.append(ActionExplanation(action, decision, walks, _reason(decision, walks, asked)))
        return decision

    def _walk(self, way: Way) -> Row | None:
        target, role = next(self._pending)
        self._rules = {}
        try:
            row = super()._walk(way)
        except Stopped as stopped:
            self._walks.append(self._walked(target, role, stopped.decision))
            raise
        if target.stages:
            self._walks.append(self._walked(target, role, None if row is None else target.decision(row)))
        return row

    def _enter(self, step: Step) -> DerivedRoleNames:
        # Before the names are set: conditions here see what the scope before had in `runtime`.
        self._derived[step.stage] = {role: self._derived_role(role) for role in step.derived_roles}
        return super()._enter(step)

    def _deciding(self, step: Step) -> Row | None:
        said = len(self._entries)
        try:
            row = super()._deciding(step)
        except Stopped as stopped:
            self._rules[step.stage] = tuple(self._considered(step, said, stopped.row))
            raise
        self._rules[step.stage] = tuple(self._considered(step, said))
        return row

    # -- what is written down ------------------------------------------------------------------------------

    def _considered(self, step: Step, said: int, failing: Row | None = None) -> Iterator[RuleExplanation]:
        """Yield the rules of a step; *said* counts the outputs before it, *failing* stopped the check."""
        outputs = iter(self._entries[said:])
        over = False
        for row in step.rows:
            if over:
                yield RuleExplanation(row, "not reached")
            elif row is failing:
                over = True
                yield self._rule(row, True, None)
            else:
                applies = row.always or self._outcomes[row]
                yield self._rule(row, applies, next(outputs) if _speaks(row, applies) else None)
                over = applies is True and row.effect is Effect.DENY

    def _rule(self, row: Row, applies: bool | None, output: Output | None) -> RuleExplanation:
        derived = None if row.derived_role is None else self._derived_role(row.derived_role)
        condition = None
        if row.match is not None and (derived is None or derived.outcome != "inactive"):
            condition = condition_seen(row.match, self._sees(row.parameters))
        return RuleExplanation(row, _outcome(applies, derived, condition), derived, condition, output)

    def _derived_role(self, role: DerivedRole) -> DerivedRoleExplanation:
        if role.match is None:
            return DerivedRoleExplanation(role, "active")
        condition = condition_seen(role.match, self._sees(role.parameters))
        return DerivedRoleExplanation(role, _HELD[condition.outcome], condition)

    def _sees(self, parameters: Parameters) -> Activation:
        return self if parameters is NOTHING else self._activation(parameters)

    def _walked(self, target: Target, role: str, decision: ActionDecision | None) -> Walk:
        """Put the way of a role together; when something was decided, it ended with the last rules seen."""
        last = None if decision is None else next(reversed(self._rules))
        scopes = []
        for stage in target.stages:
            scopes.append(self._scope(stage, target, role, decision if stage is last else None))
            if stage is last:
                break
        roles = target.role_set(role) if role else ()
        return Walk("resource" if role else "principal", target.key, role, roles, tuple(scopes), decision)

    def _scope(
        self, stage: Stage, target: Target, role: str, decision: ActionDecision | None
    ) -> ScopeExplanation:
        rules = self._rules.get(stage, ())
        roles = target.role_set(role)
        policies = [stage.policy, *(stage.role_policies.get(one) for one in roles)]
        considered = {rule.row for rule in rules}
        return ScopeExplanation(
            stage.scope,
            tuple(policy.key for policy in policies if policy is not None),
            tuple(self._derived_roles(stage)),
            rules,
            tuple(other for other in self._others(stage, roles) if other.row not in considered),
            _end(stage, target, rules, decision),
        )

    def _derived_roles(self, stage: Stage) -> Iterator[DerivedRoleExplanation]:
        known = self._derived.get(stage, {})
        for role in stage.derived_roles:
            yield known.get(role) or DerivedRoleExplanation(role, "no parent role")

    def _others(self, stage: Stage, roles: tuple[str, ...]) -> Iterator[OtherRule]:
        """Yield the rules of a scope, each with the reason for which it would not concern the question."""
        for role, policy in stage.role_policies.items():
            yield from self._passed_over(policy, None if role in roles else "role does not match")
        if stage.policy is not None:
            yield from self._passed_over(stage.policy)

    def _passed_over(self, policy: CompiledPolicy, why: PassedOver | None = None) -> Iterator[OtherRule]:
        for rule in policy.rules:
            if isinstance(rule, PrincipalRule):
                yield OtherRule(rule.row, self._mismatch(rule.resource, rule.action))
            elif isinstance(rule, RoleRule):
                yield OtherRule(rule.row, why or self._mismatch(rule.resource, rule.actions))
            else:
                matches = rule.actions(self.action)
                reason: PassedOver = "role does not match" if matches else "action does not match"
                yield from (OtherRule(row, reason) for _, row in rule.rows)

    def _mismatch(self, resource: Callable[[str], bool], action: Callable[[str], bool]) -> PassedOver:
        if not resource(self.R.kind):
            return "resource does not match"
        return "nothing against it" if action(self.action) else "action does not match"


_HELD: Mapping[str, DerivedRoleOutcome] = {"true": "active", "false": "inactive", "error": "failed"}


def _speaks(row: Row, applies: bool | None) -> bool:
    if applies:
        return row.rule_activated is not None
    return applies is False and row.condition_not_met is not None


def _outcome(
    applies: bool | None, derived: DerivedRoleExplanation | None, condition: Condition | None
) -> RuleOutcome:
    failed = (derived is not None and derived.outcome == "failed") or (
        condition is not None and condition.outcome == "error"
    )
    if failed:
        return "denied by an error" if applies else "error"
    if applies is None:
        return "derived role not held"
    return "activated" if applies else "condition not met"


def _end(
    stage: Stage, target: Target, rules: tuple[RuleExplanation, ...], decision: ActionDecision | None
) -> str:
    """Say how the way went on from a scope."""
    if decision is not None:
        how = "denies" if decision.effect is Effect.DENY else "allows, and no rule of the scope denies"
        return f"the way ends: {_rule_called(decision)} {how}"
    goes_on = "the way ends: there is no scope above" if stage is target.stages[-1] else "the way goes on"
    allowing = any(rule.outcome == "activated" and rule.row.effect is Effect.ALLOW for rule in rules)
    if allowing:
        return f"{goes_on}; what is allowed here needs the consent of a scope above"
    return f"{goes_on}; nothing decides here"


def _rule_called(decision: ActionDecision) -> str:
    return f"rule `{decision.rule}`" if decision.rule else f"`{decision.policy}` does not grant that, which"


def _reason(decision: ActionDecision, walks: tuple[Walk, ...], asked: tuple[Asked, ...]) -> str:
    """Say in a sentence what decided."""
    if not asked:
        return "no policy is about this kind of resource, in this version and scope"
    deciding = next((walk for walk in walks if walk.decision == decision), None)
    if deciding is None:
        return "no rule decides, and what nothing allows is denied"
    word = "allowed" if decision.effect is Effect.ALLOW else "denied"
    if deciding.kind == "principal":
        return f"{word} by the principal's own policies, which come before those of the resource"
    if decision.effect is Effect.ALLOW:
        return f"allowed for the role `{deciding.role}`, and one role is enough"
    return f"denied for the role `{deciding.role}`, and allowed for no other"
