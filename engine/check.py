"""``(table, input) -> decision``: pure, synchronous, and without a clock but the one it is given.

The walk is Cerbos's (``internal/ruletable/check.go``): for each action first the policies of the principal,
then those of the resource; for each role of the principal the scopes from the leaf to the root; in a scope
every row, until one denies. Denying wins inside one role and scope only; one role that is allowed is enough.
What nothing allows is denied.

Each condition is evaluated once per check at most, and each policy's variables when one of its rows is looked
at for the first time.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from engine import names
from engine.cel import EvaluationError, Timestamp
from engine.conditions import Abandoned, both, met
from engine.model import NO_MATCH, ActionDecision, Decision, Effect, Output
from engine.model import EvaluationError as ErrorEntry
from engine.outputs import to_json
from engine.rules import NOTHING, Namespace

if TYPE_CHECKING:
    from collections.abc import Mapping

    from engine.model import CheckInput, JsonValue
    from engine.rules import (
        Clause,
        DerivedRole,
        Outcome,
        Parameters,
        Row,
        RuleTable,
        Stage,
        Target,
    )

_DENY = Effect.DENY
_ALLOW = Effect.ALLOW


def check(table: RuleTable, question: CheckInput, *, now: Timestamp | None = None) -> Decision:
    """Decide each action of *question*; *now* is what ``now()`` says, by default the time of the call."""
    settings = table.settings
    resource = question.resource
    version = resource.policy_version or settings.default_policy_version
    scope = resource.scope or settings.default_scope
    if scope:
        scope = names.scope_value(scope)
    target = table.target(resource.kind, version, scope)
    principal = _principal_target(table, question, version) if table.principal_ids else None
    if (target is None or not target.exists) and principal is None:
        return Decision(dict.fromkeys(question.actions, _NO_MATCH))
    return _Check(table, question, target, principal, now).decide()


def _principal_target(table: RuleTable, question: CheckInput, version: str) -> Target | None:
    settings = table.settings
    principal = question.principal
    own_version = principal.policy_version or settings.default_policy_version
    scope = names.scope_value(principal.scope or settings.default_scope)
    return table.principal_target(principal.id, own_version, scope, question.resource.kind, version)


_NO_MATCH = ActionDecision(_DENY, NO_MATCH)


class Runtime:
    """The value behind ``runtime``."""

    __slots__ = ("_failed", "_names")

    def __init__(self, active: list[str], failed: list[str]) -> None:
        self._names = active
        self._failed = failed

    @property
    def effective_derived_roles(self) -> list[str]:
        """The derived roles that are active in the current scope, sorted."""
        if self._failed:
            listed = ", ".join(self._failed)
            raise EvaluationError(f"failed to compute effective derived roles [{listed}]")
        return self._names


DerivedRoleNames = tuple[list[str], list[str]]
"""The derived roles of a scope that are active, and those that an error leaves open."""

_NO_DERIVED_ROLES: DerivedRoleNames = ([], [])


_EMPTY = Namespace()


class Activation:
    """The variables that the expressions of one policy see during one check, one attribute each."""

    __slots__ = ("C", "P", "R", "V", "_check", "request")

    def __init__(self, check: _Check) -> None:
        question = check.question
        self.request = question
        self.P = question.principal
        self.R = question.resource
        self.C = self.V = _EMPTY
        self._check = check

    def define(self, parameters: Parameters) -> None:
        """Set constants and variables; a variable that fails is left out."""
        self.C = parameters.constants
        if parameters.variables:
            self.V = values = Namespace()
            for name, clause in parameters.variables:
                try:
                    values[name] = clause.expression.function(self)
                except EvaluationError as error:
                    self.note(clause, error)

    @property
    def constants(self) -> Mapping[str, JsonValue]:
        """``C`` by its long name."""
        return self.C

    @property
    def variables(self) -> Mapping[str, Any]:
        """``V`` by its long name."""
        return self.V

    @property
    def G(self) -> Mapping[str, JsonValue]:  # noqa: N802 - CEL's name
        """The globals of the configuration."""
        return self._check.table.globals

    @property
    def globals(self) -> Mapping[str, JsonValue]:
        """``G`` by its long name."""
        return self._check.table.globals

    @property
    def runtime(self) -> Runtime:
        """What the check has found out so far."""
        return Runtime(*self._check.derived_roles)

    @property
    def now(self) -> Timestamp:
        """The time of the check."""
        return self._check.now

    def note(self, clause: Clause, error: EvaluationError) -> None:
        """Keep an error for the decision."""
        self._check.note(clause, error)


class _Check:
    """One check under way."""

    __slots__ = (
        "_activations",
        "_base",
        "_effective",
        "_entries",
        "_errors",
        "_now",
        "_outcomes",
        "_principal",
        "_stages",
        "_target",
        "derived_roles",
        "question",
        "table",
    )

    def __init__(
        self,
        table: RuleTable,
        question: CheckInput,
        target: Target | None,
        principal: Target | None,
        now: Timestamp | None,
    ) -> None:
        self.table = table
        self.question = question
        self.derived_roles = _NO_DERIVED_ROLES
        self._target = target
        self._principal = principal
        self._now = now
        self._activations: dict[Parameters, Activation] = {}
        self._base: Activation | None = None
        self._outcomes: dict[Row | DerivedRole, Outcome] = {}
        self._stages: dict[Stage, DerivedRoleNames] = {}
        self._effective: tuple[str, ...] = ()
        self._entries: list[Output] = []
        self._errors: dict[tuple[str, str], ErrorEntry] | None = None

    def decide(self) -> Decision:
        decisions: dict[str, ActionDecision] = {}
        for action in self.question.actions:
            try:
                decisions[action] = self._decision(action)
            except _Stopped as stopped:
                decisions[action] = stopped.decision
        errors = self._errors
        return Decision(
            decisions,
            tuple(self._entries),
            self._effective,
            tuple(errors[key] for key in sorted(errors)) if errors else (),
        )

    @property
    def now(self) -> Timestamp:
        if self._now is None:
            self._now = Timestamp(time.time_ns())
        return self._now

    def note(self, clause: Clause, error: EvaluationError) -> None:
        """Keep an error once per expression and message."""
        if self._errors is None:
            self._errors = {}
        key = (clause.text, str(error))
        if key not in self._errors:
            excerpt = clause.expression.locate(error).excerpt
            self._errors[key] = ErrorEntry(clause.text, key[1], clause.place, excerpt)

    # -- the walk ------------------------------------------------------------------------------------------

    def _decision(self, action: str) -> ActionDecision:
        roles = self.question.principal.roles
        if self._principal is not None and roles:
            self.derived_roles = _NO_DERIVED_ROLES
            # The rows of a principal policy know no roles: one pass is enough.
            decision = self._role(self._principal, action, "")
            if decision is not None:
                return decision
        target = self._target
        if target is None:
            return _NO_MATCH
        first: ActionDecision | None = None
        for role in roles:
            decision = self._role(target, action, role)
            if decision is not None:
                if decision.effect is _ALLOW:
                    return decision
                first = first or decision
        return first or target.default

    def _role(self, target: Target, action: str, role: str) -> ActionDecision | None:
        """Walk the scopes for one role; ``None`` when no rule decides."""
        for index, stage in enumerate(target.stages):
            if stage.derived_roles:
                self.derived_roles = self._stages.get(stage) or self._enter(index, target)
            else:
                self.derived_roles = _NO_DERIVED_ROLES
            rows = target.rows(index, action, role)
            decided = self._rows(rows, action) if rows else None
            # In a scope that needs consent an allow only passes the question up.
            if decided is not None and (decided.effect is _DENY or not stage.consent):
                return target.decision(decided)
        return None

    def _rows(self, rows: tuple[Row, ...], action: str) -> Row | None:
        """Return the first row that denies, or else the first one that allows."""
        allowing = None
        outcomes = self._outcomes
        for row in rows:
            if row.always:
                applies: bool | None = True
            elif row in outcomes:
                applies = outcomes[row]
            else:
                applies = outcomes[row] = self._applies(row)
            if applies:
                if row.rule_activated is not None:
                    self._say(row, row.rule_activated, action)
                if row.effect is _DENY:
                    return row
                if allowing is None and row.effect is _ALLOW:
                    allowing = row
            elif applies is False and row.condition_not_met is not None:
                self._say(row, row.condition_not_met, action)
        return allowing

    # -- rows ----------------------------------------------------------------------------------------------

    def _applies(self, row: Row) -> bool | None:
        """Tell whether a rule applies; ``None`` when the principal does not hold its derived role."""
        try:
            # Made even if nothing needs it here: variables that fail are noted when a row is looked at.
            activation = self._activations.get(row.parameters) or self._activation(row.parameters)
            held = True if row.derived_role is None else self._holds(row.derived_role)
            if held is False or (held is None and row.effect is not _DENY):
                return None
            outcome = True if row.condition is None else row.condition(activation)
        except Abandoned:
            raise _Stopped(ActionDecision(_DENY, row.policy, row.scope, row.name)) from None
        if held and outcome is not None:
            return outcome
        return met(both(held, outcome), row.effect)

    def _holds(self, derived_role: DerivedRole) -> Outcome:
        condition = derived_role.condition
        if condition is None:
            return True
        outcomes = self._outcomes
        if derived_role in outcomes:
            return outcomes[derived_role]
        parameters = derived_role.parameters
        held = condition(self._activations.get(parameters) or self._activation(parameters))
        if not derived_role.reads_runtime:
            outcomes[derived_role] = held
        return held

    def _activation(self, parameters: Parameters) -> Activation:
        """Return an activation for expressions that see *parameters*.

        The first one serves two: expressions that need no parameters do not mind those of others.
        """
        base = self._base
        if base is None:
            base = self._base = Activation(self)
        if parameters is not NOTHING:
            made = base if base.C is _EMPTY else Activation(self)
            made.define(parameters)
        else:
            made = base
        self._activations[parameters] = made
        return made

    def _say(self, row: Row, clause: Clause, action: str) -> None:
        activation = self._activations.get(row.parameters) or self._activation(row.parameters)
        try:
            value = clause.expression.function(activation)
            entry = Output(row.source, action, value if type(value) is str else to_json(value))
        except EvaluationError as error:
            entry = Output(row.source, action, None, str(error))
        self._entries.append(entry)

    # -- derived roles -------------------------------------------------------------------------------------

    def _enter(self, index: int, target: Target) -> DerivedRoleNames:
        """Work out which derived roles are active in a scope, once per check."""
        active: list[str] = []
        failed: list[str] = []
        for derived_role in target.derived_roles(index, self.question.principal.roles):
            try:
                held = self._holds(derived_role)
            except Abandoned:
                held = None
            if held:
                active.append(derived_role.name)
            elif held is None:
                failed.append(derived_role.name)
        if active:
            before = self._effective
            self._effective = tuple(sorted({*before, *active})) if before else tuple(active)
        found = self._stages[target.stages[index]] = (active, failed)
        return found


class _Stopped(Exception):  # noqa: N818 - not an error, the end of an action
    """An error has decided the action (evaluation mode ``strict``)."""

    def __init__(self, decision: ActionDecision) -> None:
        super().__init__()
        self.decision = decision
