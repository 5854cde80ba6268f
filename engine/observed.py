"""A rule table that tells an observer what it evaluates while it answers checks.

The rows of a compiled table are copied. Conditions and expressions of the copies are the same functions, each
inside of one that reports what it gave: what is observed is what a check does, and a table that nobody
observes pays nothing.
"""

from __future__ import annotations

import copy
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from engine.cel import EvaluationError
from engine.conditions import Leaf, combined, condition_of
from engine.rules import NOTHING, Parameters, Rule

if TYPE_CHECKING:
    from collections.abc import Callable

    from engine.cel import Expression
    from engine.conditions import All, Any_, Match, None_
    from engine.document import Document, Path
    from engine.rules import Clause, CompiledPolicy, Condition, DerivedRole, Outcome, Row, RuleTable

STEPS = {"All": "all", "Any_": "any", "None_": "none"}
"""How the parts of a condition are called in a policy, by the name of their class."""


class Observer:
    """Is told what a table evaluates; subclasses listen to what they need.

    Within one check each condition is evaluated once at most, and each expression of it.
    """

    def looked_at(self, row: Row) -> None:
        """Notice that a rule concerns the action and a role of the principal."""

    def decided(self, subject: Row | DerivedRole, outcome: Outcome) -> None:
        """Notice whether the condition that the author wrote holds; what has none holds always.

        The condition of a rule for derived roles is asked only if the principal holds the role.
        """

    def combined(self, document: Document, path: Path, outcome: Outcome) -> None:
        """Notice what the ``all``, ``any`` or ``none`` at *path* came to."""

    def evaluated(self, clause: Clause, activation: Any, result: Any) -> None:
        """Notice the value of an expression, or the :class:`EvaluationError` that it failed with."""


def observed(table: RuleTable, observer: Observer) -> RuleTable:
    """Return a table that decides as *table* does, and tells *observer* how."""
    copies = _Copies(observer)
    watched = table.with_policies(copies.policy(policy) for policy in table.policies.values())
    watched.is_observed = True
    return watched


class _Copies:
    """Copies compiled policies; what they share is copied once and shared again."""

    def __init__(self, observer: Observer) -> None:
        self._observer = observer
        self._clauses: dict[Clause, Clause] = {}
        self._parameters: dict[Parameters, Parameters] = {NOTHING: NOTHING}
        self._roles: dict[DerivedRole, DerivedRole] = {}

    def policy(self, policy: CompiledPolicy) -> CompiledPolicy:
        """Copy a policy."""
        return replace(
            policy,
            rules=tuple(map(self._rule, policy.rules)),
            derived_roles=tuple(map(self._role, policy.derived_roles)),
            refusal=None if policy.refusal is None else self._row(policy.refusal),
        )

    def _rule(self, rule: Any) -> Any:
        if isinstance(rule, Rule):
            return replace(rule, rows=tuple((selector, self._row(row)) for selector, row in rule.rows))
        return replace(rule, row=self._row(rule.row))

    def _row(self, row: Row) -> Row:
        return replace(
            row,
            condition=self._row_condition(row),
            parameters=self._copied(row.parameters),
            derived_role=None if row.derived_role is None else self._asked_for(row, row.derived_role),
            rule_activated=row.rule_activated and self._clause(row.rule_activated),
            condition_not_met=row.condition_not_met and self._clause(row.condition_not_met),
            always=False,
        )

    def _row_condition(self, row: Row) -> Condition:
        """Return the row's condition; where the row turns the author's one around, that one is reported."""
        path = (*row.path, "condition", "match")
        if row.match is None or isinstance(row.match, Leaf) or row.effect is row.authored_effect:
            condition = None if row.match is None else self._condition(row.match, row.document, path)
            return self._reported(row, condition)
        authored = self._reported(row, self._condition(row.match.parts[0], row.document, path))
        return combined(row.match, [authored])

    def _asked_for(self, row: Row, role: DerivedRole) -> DerivedRole:
        """Return the row's own copy of its derived role: asking for it is looking at the row."""
        observer, condition = self._observer, role.condition

        def held(activation: Any) -> Outcome:
            observer.looked_at(row)
            return True if condition is None else condition(activation)

        return replace(role, condition=held)

    def _role(self, role: DerivedRole) -> DerivedRole:
        found = self._roles.get(role)
        if found is None:
            path = (*role.path, "condition", "match")
            condition = None if role.match is None else self._condition(role.match, role.document, path)
            found = self._roles[role] = replace(
                role,
                condition=self._reported(role, condition),
                parameters=self._copied(role.parameters),
            )
        return found

    def _reported(self, subject: Row | DerivedRole, condition: Condition | None) -> Condition:
        observer = self._observer
        looked_at = getattr(subject, "derived_role", subject) is None

        def check(activation: Any) -> Outcome:
            if looked_at:
                observer.looked_at(subject)  # type: ignore[arg-type] # only rows have a `derived_role`
            outcome = True if condition is None else condition(activation)
            observer.decided(subject, outcome)
            return outcome

        return check

    # -- parts ---------------------------------------------------------------------------------------------

    def _condition(self, match: Match, document: Document, path: Path) -> Condition:
        if isinstance(match, Leaf):
            return condition_of(Leaf(self._clause(match.clause)))
        here = (*path, STEPS[type(match).__name__], "of")
        parts = [self._condition(part, document, (*here, index)) for index, part in enumerate(match.parts)]
        return self._combined(match, parts, document, path)

    def _combined(
        self, match: All | Any_ | None_, parts: list[Condition], document: Document, path: Path
    ) -> Condition:
        observer, condition = self._observer, combined(match, parts)

        def check(activation: Any) -> Outcome:
            outcome = condition(activation)
            observer.combined(document, path, outcome)
            return outcome

        return check

    def _copied(self, parameters: Parameters) -> Parameters:
        found = self._parameters.get(parameters)
        if found is None:
            variables = tuple((name, self._clause(clause)) for name, clause in parameters.variables)
            found = self._parameters[parameters] = Parameters(parameters.constants, variables)
        return found

    def _clause(self, clause: Clause) -> Clause:
        found = self._clauses.get(clause)
        if found is None:
            expression: Expression = copy.copy(clause.expression)
            expression.function = self._function(clause)
            found = self._clauses[clause] = replace(clause, expression=expression)
        return found

    def _function(self, clause: Clause) -> Callable[[Any], Any]:
        observer, function = self._observer, clause.expression.function

        def evaluate(activation: Any) -> Any:
            try:
                value = function(activation)
            except EvaluationError as error:
                observer.evaluated(clause, activation, error)
                raise
            observer.evaluated(clause, activation, value)
            return value

        return evaluate
