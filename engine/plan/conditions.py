"""Conditions, evaluated as far as what is known goes: what remains of each is a formula.

What an error means depends on the evaluation mode, as in a check:

* ``lenient``: the expression that fails is false (Cerbos);
* ``strict``: the action is denied (Cerbos with ``strictEvaluation``);
* ``safe``: the expression counts as what keeps its rule from granting: in a rule that allows the condition
  does not hold, in one that denies it does, also where the expression stands inside of ``none``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from engine import conditions as c
from engine.cel import EvaluationError
from engine.cel.nodes import Ident, Select
from engine.conditions import NOT_BOOLEAN, Abandoned
from engine.model import Effect
from engine.model import EvaluationError as ErrorEntry
from engine.plan import formula, tree
from engine.plan.convert import Converter
from engine.plan.filter import AND, OR
from engine.plan.formula import CONSTANTS, Formula, opposite, truth
from engine.plan.known import UNKNOWN, Known
from engine.plan.model import PlanError
from engine.plan.partial import Budget, Evaluation, Failed
from engine.plan.reshape import reshaped

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from engine.cel import Timestamp
    from engine.cel.nodes import Node
    from engine.conditions import Match
    from engine.model import Evaluation as Mode
    from engine.plan.model import PlanInput
    from engine.plan.prepared import Prepared
    from engine.rules import Clause, Parameters, RuleTable

    DerivedRoles = Callable[[], Node]
    """Gives the tree that takes the place of ``runtime.effectiveDerivedRoles``, or raises."""

RUNTIME = frozenset(("runtime",))
DERIVED_ROLES = frozenset(("effectiveDerivedRoles", "effective_derived_roles"))


class Conditions:
    """Evaluates the conditions of one plan."""

    def __init__(
        self, table: RuleTable, prepared: Prepared, question: PlanInput, now: Timestamp, mode: Mode
    ) -> None:
        self._table = table
        self._prepared = prepared
        self._question = question
        self._now = now
        self._mode = mode
        self.action = ""
        """The action that is planned."""
        self.exact = mode == "safe"
        """The filter has to fail where a check would."""
        self._budget = Budget()
        self._known: dict[tuple[Parameters, str], Known] = {}
        self._errors: dict[tuple[str, str], ErrorEntry] = {}
        self._decided = False
        self._converter = Converter(presence=self.exact)

    @property
    def errors(self) -> tuple[ErrorEntry, ...]:
        """What has failed so far, each expression and message once, in order."""
        return tuple(self._errors[key] for key in sorted(self._errors))

    def formula(
        self,
        match: Match | None,
        parameters: Parameters,
        derived_roles: DerivedRoles,
        effect: Effect = Effect.ALLOW,
        *,
        decided: bool = False,
    ) -> Formula:
        """Return what is left of a condition of a rule that has *effect*.

        Raises:
            Abandoned: an expression fails, in the mode ``strict``; with *decided* also in ``safe``.
            PlanError: an expression cannot be said as a filter.

        """
        if match is None:
            return CONSTANTS[True]
        work = _Condition(self, parameters, derived_roles)
        before, self._decided = self._decided, decided
        try:
            return work.formula(match, effect is Effect.DENY)
        finally:
            self._decided = before

    def expression(
        self, clause: Clause, parameters: Parameters, derived_roles: DerivedRoles, failed: bool
    ) -> Formula:
        """Return what is left of one expression; *failed* is its value in ``safe`` should it fail."""
        try:
            return self._expression(clause, parameters, derived_roles, failed)
        except PlanError as error:
            raise PlanError(f"{error} in condition `{clause.text}` ({clause.place})") from error
        except RecursionError:
            message = f"condition `{clause.text}` ({clause.place}) is nested too deeply to be planned"
            raise PlanError(message) from None

    def _expression(
        self, clause: Clause, parameters: Parameters, derived_roles: DerivedRoles, failed: bool
    ) -> Formula:
        node = self._prepared.tree(clause, parameters)
        try:
            node = with_derived_roles(node, derived_roles)
        except EvaluationError as error:
            if self._mode == "strict":
                raise Abandoned from None
            return self._failure(clause, Failed(error, node), failed)
        evaluation = self._evaluation(parameters)
        value = evaluation.value(node)
        if isinstance(value, Failed):
            return self._failure(clause, value, failed)
        if value is UNKNOWN:
            return self._residual(evaluation.residual(node), parameters, failed)
        if isinstance(value, bool):
            return CONSTANTS[value]
        if self._mode != "safe":
            return CONSTANTS[False]
        return self._failure(clause, Failed(EvaluationError(NOT_BOOLEAN), node), failed)

    def _residual(self, node: Node, parameters: Parameters, failed: bool) -> Formula:
        self._converter.operand(node)  # what cannot be said is an error even if it would vanish, as in Cerbos
        worth = failed if self.exact else None
        left = reshaped(node, lambda variables: self._evaluation(parameters, variables), worth)
        return formula.part(left, self._converter.operand(left))

    def _evaluation(
        self, parameters: Parameters, variables: Mapping[str, object] | None = None
    ) -> Evaluation:
        key = parameters, self.action
        known = self._known.get(key)
        if known is None:
            known = Known(self._question, self.action, parameters.constants, self._table.globals, self._now)
            self._known[key] = known
        return Evaluation(known, self._budget, variables, exact=self.exact)

    def _failure(self, clause: Clause, failure: Failed, failed: bool) -> Formula:
        key = clause.text, str(failure.error)
        if key not in self._errors:
            excerpt = clause.expression.excerpt(failure.node.span)
            self._errors[key] = ErrorEntry(clause.text, key[1], clause.place, excerpt)
        if self._mode == "strict" or (self._decided and self._mode == "safe"):
            raise Abandoned
        return CONSTANTS[failed if self._mode == "safe" else False]


class _Condition:
    """One condition: its tree, evaluated expression by expression."""

    __slots__ = ("_conditions", "_derived_roles", "_parameters")

    def __init__(self, conditions: Conditions, parameters: Parameters, derived_roles: DerivedRoles) -> None:
        self._conditions = conditions
        self._parameters = parameters
        self._derived_roles = derived_roles

    def formula(self, match: Match, failed: bool) -> Formula:
        """Return what is left of a part of the condition; *failed* is what a failure counts as in it."""
        if isinstance(match, c.Leaf):
            return self._conditions.expression(match.clause, self._parameters, self._derived_roles, failed)
        if isinstance(match, c.All):
            return self._joined(AND, match.parts, failed)
        if isinstance(match, c.Any_):
            return self._joined(OR, match.parts, failed)
        return self._none(match.parts, not failed)

    def _joined(self, operator: str, parts: Sequence[Match], failed: bool) -> Formula:
        decisive = operator == OR
        left: list[Formula] = []
        for match in parts:
            found = self.formula(match, failed)
            value = truth(found)
            if value is decisive:
                return found
            if value is None:
                left.append(found)
        return _of(operator, left, not decisive)

    def _none(self, parts: Sequence[Match], failed: bool) -> Formula:
        left: list[Formula] = []
        for match in parts:
            found = self.formula(match, failed)
            value = truth(found)
            if value:
                return CONSTANTS[False]
            if value is None:
                left.append(opposite(found))
        return _of(AND, left, True)


def _of(operator: str, left: Sequence[Formula], neutral: bool) -> Formula:
    if not left:
        return CONSTANTS[neutral]
    return left[0] if len(left) == 1 else formula.join(operator, left)


def with_derived_roles(node: Node, derived_roles: DerivedRoles) -> Node:
    """Return the tree with ``runtime.effectiveDerivedRoles`` replaced."""
    if tree.is_member_of(node, RUNTIME) and isinstance(node, Select) and node.field in DERIVED_ROLES:
        return tree.copied(derived_roles())
    if isinstance(node, Ident):
        return node
    return tree.mapped(node, lambda part: with_derived_roles(part, derived_roles))
