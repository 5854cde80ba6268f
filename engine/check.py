"""``(table, input) -> decision``: pure, synchronous, and without a clock but the one it is given.

The walk is Cerbos's (``internal/ruletable/check.go``): for each action first the policies of the principal,
then those of the resource; for each role of the principal the scopes from the leaf to the root; in a scope
every row, until one denies. Denying wins inside one role and scope only; one role that is allowed is enough.
What nothing allows is denied.

Each condition is evaluated once per check at most, and each policy's variables when one of its rows is looked
at for the first time; where expressions may read ``runtime.action``, once per action.
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
    from collections.abc import Callable, Mapping

    from engine.model import CheckInput, Evaluation, JsonValue, ValidationError
    from engine.rules import Clause, DerivedRole, Outcome, Parameters, Row, RuleTable
    from engine.targets import Stage, Step, Target, Way

_new = tuple.__new__
"""Makes a named tuple in a third of the time, where all its fields are at hand."""

_DENY = Effect.DENY
_ALLOW = Effect.ALLOW


def check(
    table: RuleTable,
    question: CheckInput,
    *,
    now: Timestamp | Callable[[], Timestamp] | None = None,
    evaluation: Evaluation | None = None,
) -> Decision:
    """Decide each action of *question*.

    *now* is what ``now()`` says (a function is called when the time is asked for, once), by default the time
    of the call; *evaluation* says what an error means, by default what the table's settings say.
    """
    return Check(table, question, now, evaluation or table.settings.evaluation).decide()


def validation_errors(targets: tuple[Asked, ...], question: CheckInput) -> tuple[ValidationError, ...]:
    """Return what is wrong with the attributes of *question*; *targets* are what :func:`targets_of` says."""
    attributes = targets[-1][0].attributes if targets else None
    if attributes is None:
        return ()
    return attributes.errors(question.principal.attr, question.resource.attr, question.actions)


Asked = tuple["Target", tuple[str, ...]]
"""Whose policies are asked, and for which roles."""

UNDECIDED = ActionDecision(_DENY, NO_MATCH)
"""The decision when no policy has anything to say."""


def targets_of(table: RuleTable, question: CheckInput) -> tuple[Asked, ...]:
    """Return what is asked: first the policies of the principal, then those of the resource."""
    settings = table.settings
    resource = question.resource
    version = resource.policy_version or settings.default_policy_version
    scope = resource.scope or settings.default_scope
    if scope:
        scope = names.scope_value(scope)
    target = table.target(resource.kind, version, scope)
    about_resource = () if target is None or not target.exists else ((target, question.principal.roles),)
    if table.principal_ids:
        about_principal = _about_principal(table, question, version, resource_known=bool(about_resource))
        return (*about_principal, *about_resource)
    return about_resource


def _about_principal(
    table: RuleTable, question: CheckInput, version: str, *, resource_known: bool
) -> tuple[Asked, ...]:
    """Return the principal's policies; their rows know no roles, so one way is enough, if there is a role."""
    settings = table.settings
    principal = question.principal
    own_version = principal.policy_version or settings.default_policy_version
    scope = names.scope_value(principal.scope or settings.default_scope)
    target = table.principal_target(principal.id, own_version, scope, question.resource.kind, version)
    if target is None or not (resource_known or table.knows_principals(own_version, scope)):
        return ()
    return ((target, ("",) if principal.roles else ()),)


# -- what expressions see ----------------------------------------------------------------------------------


class Runtime:
    """The value behind ``runtime``."""

    __slots__ = ("_failed", "_names", "action")

    def __init__(self, active: list[str], failed: list[str], action: str) -> None:
        self._names = active
        self._failed = failed
        self.action = action
        """The action that is being decided; policies see it where the settings say so."""

    @property
    def effective_derived_roles(self) -> list[str]:
        """The derived roles that are active in the current scope, sorted."""
        if self._failed:
            listed = ", ".join(self._failed)
            raise EvaluationError(f"failed to compute effective derived roles [{listed}]")
        return self._names


class _LongNames:
    """The long names of ``C``, ``V`` and ``G``."""

    __slots__ = ()

    C: Mapping[str, JsonValue]
    V: Mapping[str, Any]

    @property
    def constants(self) -> Mapping[str, JsonValue]:
        return self.C

    @property
    def variables(self) -> Mapping[str, Any]:
        return self.V

    @property
    def globals(self) -> Mapping[str, JsonValue]:
        found: Mapping[str, JsonValue] = self.G  # type: ignore[attr-defined] # a property of both classes
        return found


class _Activation(_LongNames):
    """What the expressions of a policy see that has variables or constants, one attribute each."""

    __slots__ = ("C", "P", "R", "V", "_check", "request")

    def __init__(self, check: Check, parameters: Parameters) -> None:
        self.request = check.request
        self.P = check.P
        self.R = check.R
        self.C = parameters.constants
        self.V = _EMPTY
        self._check = check
        if parameters.variables:
            self._define(parameters)

    def _define(self, parameters: Parameters) -> None:
        """Set the variables; one that fails is left out."""
        self.V = values = Namespace()
        for name, clause in parameters.variables:
            try:
                values[name] = clause.expression.function(self)
            except EvaluationError as error:
                self.note(clause, error)

    @property
    def G(self) -> Mapping[str, JsonValue]:  # noqa: N802 - CEL's name
        return self._check.G

    @property
    def runtime(self) -> Runtime:
        return self._check.runtime

    @property
    def now(self) -> Timestamp:
        return self._check.now

    @property
    def evaluation(self) -> Evaluation:
        return self._check.evaluation

    def note(self, clause: Clause, error: EvaluationError) -> None:
        self._check.note(clause, error)


DerivedRoleNames = tuple[list[str], list[str]]
"""The derived roles of a scope that are active, and those that an error leaves open."""

_NO_DERIVED_ROLES: DerivedRoleNames = ([], [])

_EMPTY = Namespace()


class Clock:
    """Tells the time of a check, which it takes when it is first asked."""

    __slots__ = ("_now",)

    def __init__(self, now: Timestamp | Callable[[], Timestamp] | None) -> None:
        self._now = now

    @property
    def now(self) -> Timestamp:
        """The time of the check."""
        now = self._now
        if not isinstance(now, Timestamp):
            now = self._now = Timestamp(time.time_ns()) if now is None else now()
        return now


class Check(Clock, _LongNames):
    """One check under way, and what the expressions see that need neither variables nor constants."""

    __slots__ = (
        "C",
        "P",
        "R",
        "V",
        "_activations",
        "_effective",
        "_entries",
        "_errors",
        "_invalid",
        "_outcomes",
        "_stages",
        "_trail",
        "action",
        "derived_roles",
        "evaluation",
        "request",
        "table",
    )

    def __init__(
        self,
        table: RuleTable,
        question: CheckInput,
        now: Timestamp | Callable[[], Timestamp] | None,
        evaluation: Evaluation,
    ) -> None:
        self._now = now
        self.table = table
        self.evaluation = evaluation
        self.request = question
        self.P = question.principal
        self.R = question.resource
        self.C = self.V = _EMPTY
        self.action = ""
        self.derived_roles = _NO_DERIVED_ROLES
        self._activations: dict[Parameters, _Activation] = {}
        self._outcomes: dict[Row | DerivedRole, Outcome] = {}
        self._stages: dict[Stage, DerivedRoleNames] = {}
        self._effective: tuple[str, ...] = ()
        self._entries: list[Output] = []
        self._errors: dict[tuple[str, str], ErrorEntry] | None = None
        self._trail: tuple[str, ...] = ()
        self._invalid: tuple[ValidationError, ...] = ()

    @property
    def G(self) -> Mapping[str, JsonValue]:  # noqa: N802 - CEL's name
        """The globals of the configuration."""
        return self.table.globals

    @property
    def runtime(self) -> Runtime:
        """What the check has found out so far."""
        return Runtime(*self.derived_roles, self.action)

    def note(self, clause: Clause, error: EvaluationError) -> None:
        """Keep an error for the decision, once per expression and message."""
        if self._errors is None:
            self._errors = {}
        key = (clause.text, str(error))
        if key not in self._errors:
            excerpt = clause.expression.locate(error).excerpt
            self._errors[key] = ErrorEntry(clause.text, key[1], clause.place, excerpt)

    # -- the walk ------------------------------------------------------------------------------------------

    def decide(self) -> Decision:
        """Decide every action."""
        question, table = self.request, self.table
        actions = question.actions
        asked = targets_of(table, question)
        if self.R.scope or self.P.scope:
            self._strip_scopes()
        if table.attributes:
            self._invalid = validation_errors(asked, question)
            if self._invalid and table.settings.schema_enforcement == "reject":
                refusal = ActionDecision(_DENY, asked[-1][0].key)
                return Decision(dict.fromkeys(actions, refusal), validation_errors=self._invalid)
        decisions: dict[str, ActionDecision] = {}
        for action in actions:
            self.action = action
            if table.reads_action:
                self._forget()
            decisions[action] = self._decision(action, asked)
        if self._activations:
            self._activations.clear()  # they refer to the check: without them it goes without the collector
        return self._result(decisions)

    def _strip_scopes(self) -> None:
        """Let expressions see scopes as they are compared, without the dot that may lead them."""
        question = self.request
        self.P = self.P._replace(scope=names.scope_value(self.P.scope))
        self.R = self.R._replace(scope=names.scope_value(self.R.scope))
        self.request = question._replace(principal=self.P, resource=self.R)

    def _forget(self) -> None:
        """Drop what may depend on the action."""
        self._activations.clear()
        self._outcomes.clear()
        self._stages.clear()

    def _result(self, decisions: dict[str, ActionDecision]) -> Decision:
        errors = self._errors
        return _new(
            Decision,
            (
                decisions,
                tuple(self._entries),
                self._effective,
                tuple(errors[key] for key in sorted(errors)) if errors else (),
                self._invalid,
                self._trail,
            ),
        )

    def _follow(self, policies: tuple[str, ...]) -> None:
        """Add policies that were looked at to the trail; mostly they are the very ones that it has."""
        known = self._trail
        if policies != known:
            self._trail = tuple(sorted({*known, *policies})) if known else policies

    def _decision(self, action: str, asked: tuple[Asked, ...]) -> ActionDecision:
        denying: Row | None = None
        for target, roles in asked:
            for way in target.ways(action, roles):
                try:
                    row = self._walk(way)
                except Stopped as stopped:
                    return stopped.decision
                if row is not None:
                    if row.effect is _ALLOW:
                        return target.decision(row)
                    denying = denying or row
            if denying is not None:
                return target.decision(denying)
        return asked[-1][0].default if asked else UNDECIDED

    def _walk(self, way: Way) -> Row | None:
        """Return the row that decides for one role, ``None`` when none does."""
        for step in way:
            if step.derived_roles:
                self.derived_roles = self._stages.get(step.stage) or self._enter(step)
            else:
                self.derived_roles = _NO_DERIVED_ROLES
            if step.rows:
                row = self._deciding(step)
                # In a scope that needs consent an allow only passes the question up.
                if row is not None and (row.effect is _DENY or not step.consent):
                    return row
        return None

    def _deciding(self, step: Step) -> Row | None:
        """Return the first row of a scope that denies, or else the first one that allows."""
        allowing = None
        outcomes = self._outcomes
        for row in step.rows:
            if row.always:
                applies: bool | None = True
            elif row in outcomes:
                applies = outcomes[row]
            else:
                applies = outcomes[row] = self._applies(row, step)
            if applies:
                if row.rule_activated is not None:
                    self._say(row, row.rule_activated)
                if row.effect is _DENY:
                    self._follow(step.looked_at(row))
                    return row
                if allowing is None and row.effect is _ALLOW:
                    allowing = row
            elif applies is False and row.condition_not_met is not None:
                self._say(row, row.condition_not_met)
        if self._trail != step.policies:
            self._follow(step.policies)
        return allowing

    # -- rows ----------------------------------------------------------------------------------------------

    def _applies(self, row: Row, step: Step) -> bool | None:
        """Tell whether a rule applies; ``None`` when the principal does not hold its derived role."""
        try:
            # Made even if nothing needs it here: variables that fail are noted when a row is looked at.
            activation = self if row.parameters is NOTHING else self._activation(row.parameters)
            role = row.derived_role
            held = True if role is None else self._outcomes.get(role) or self._holds(role)
            if held is False or (held is None and row.effect is not _DENY):
                return None
            outcome = True if row.condition is None else row.condition(activation)
        except Abandoned:
            self._follow(step.looked_at(row))
            raise Stopped(row) from None
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
        held = condition(self if parameters is NOTHING else self._activation(parameters))
        if not derived_role.reads_runtime:
            outcomes[derived_role] = held
        return held

    def _activation(self, parameters: Parameters) -> _Activation:
        found = self._activations.get(parameters)
        if found is None:
            found = self._activations[parameters] = _Activation(self, parameters)
        return found

    def _say(self, row: Row, clause: Clause) -> None:
        activation = self if row.parameters is NOTHING else self._activation(row.parameters)
        try:
            value = clause.expression.function(activation)
            value = value if type(value) is str else to_json(value)
            entry = _new(Output, (row.source, self.action, value, ""))
        except EvaluationError as error:
            entry = Output(row.source, self.action, None, str(error))
        self._entries.append(entry)

    # -- derived roles -------------------------------------------------------------------------------------

    def _enter(self, step: Step) -> DerivedRoleNames:
        """Work out which derived roles are active in a scope, once per check."""
        active: list[str] = []
        failed: list[str] = []
        for derived_role in step.derived_roles:
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
        found = self._stages[step.stage] = (active, failed)
        return found


class Stopped(Exception):  # noqa: N818 - not an error, the end of an action
    """An error in the condition of *row* has decided the action (evaluation mode ``strict``)."""

    def __init__(self, row: Row) -> None:
        super().__init__()
        self.row = row

    @property
    def decision(self) -> ActionDecision:
        """The denial, in the name of the rule that failed."""
        return ActionDecision(_DENY, self.row.policy, self.row.scope, self.row.name)
