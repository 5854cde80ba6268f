"""The way to a decision, as data: what :func:`engine.explain.explain` returns.

Everything is there in the order in which the check met it. Rules and expressions are given as the objects of
the rule table, so that those who count what a test reached can tell them apart; their places in the policies
are looked up when they are asked for.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from collections.abc import Iterator

    from engine.model import ActionDecision, CheckInput, Decision, Effect, JsonValue, Output
    from engine.rules import Clause, DerivedRole, Row

ConditionOutcome = Literal["true", "false", "error", "not evaluated"]
"""What a condition or a part of it came to; ``error``: a failed expression leaves it open."""

RuleOutcome = Literal[
    "activated", "condition not met", "derived role not held", "error", "not reached", "denied by an error"
]
"""What became of a rule that concerns the action and the role.

``error``: an expression failed, so the rule does not grant. ``denied by an error``: an expression failed, and
that denies (a rule that denies in the mode ``safe``, any rule in the mode ``strict``). ``not reached``: an
earlier rule of the scope had denied.
"""

DerivedRoleOutcome = Literal["active", "inactive", "failed", "no parent role"]

PassedOver = Literal[
    "action does not match", "role does not match", "resource does not match", "nothing against it"
]
"""Why a rule of a policy was not considered: it does not concern the question, or it is an entry of a role
policy that lists the action without a condition."""


@dataclass(frozen=True, slots=True)
class Reference:
    """Something that an expression reads, and what was there."""

    name: str
    """As expressions write it: ``R.attr.owner``."""

    value: JsonValue = None
    error: str = ""

    def to_json(self) -> dict[str, JsonValue]:
        """Return the name, and the value or the error."""
        return {"name": self.name, **({"error": self.error} if self.error else {"value": self.value})}


@dataclass(frozen=True, slots=True)
class Condition:
    """A condition, or a part of it, and what it came to."""

    kind: Literal["expr", "all", "any", "none"]
    outcome: ConditionOutcome
    parts: tuple[Condition, ...] = ()
    clause: Clause | None = None
    """The expression of an ``expr``."""

    value: JsonValue = None
    """What an ``expr`` evaluated to."""

    error: str = ""
    excerpt: str = ""
    """The failing part of the expression, underlined."""

    references: tuple[Reference, ...] = ()

    @property
    def leaves(self) -> Iterator[Condition]:
        """The expressions of the condition, in order."""
        if self.kind == "expr":
            yield self
        for part in self.parts:
            yield from part.leaves

    def to_json(self) -> dict[str, JsonValue]:
        """Return the condition as nested objects."""
        if self.clause is None:
            return {"kind": self.kind, "outcome": self.outcome, "of": _json(self.parts)}
        evaluated = not self.error and self.outcome != "not evaluated"
        return {
            "kind": self.kind,
            "outcome": self.outcome,
            "expression": self.clause.text,
            "place": self.clause.place,
            **({"value": self.value} if evaluated else {}),
            **_filled(error=self.error, excerpt=self.excerpt, references=_json(self.references)),
        }


@dataclass(frozen=True, slots=True)
class DerivedRoleExplanation:
    """A derived role of a scope: whether the principal holds it."""

    derived_role: DerivedRole
    outcome: DerivedRoleOutcome
    condition: Condition | None = None

    def to_json(self) -> dict[str, JsonValue]:
        """Return the name, the place, the outcome and the condition."""
        return _filled(
            name=self.derived_role.name,
            place=self.derived_role.place,
            outcome=self.outcome,
            condition=_json(self.condition),
        )


@dataclass(frozen=True, slots=True)
class RuleExplanation:
    """A rule that concerns the action and the role: what became of it."""

    row: Row
    outcome: RuleOutcome
    derived_role: DerivedRoleExplanation | None = None
    condition: Condition | None = None
    output: Output | None = None

    @property
    def rewritten(self) -> bool:
        """The row denies where its author allows: *condition* is the author's, inverted."""
        return self.row.effect is not self.row.authored_effect and self.row.match is not None

    def to_json(self) -> dict[str, JsonValue]:
        """Return the rule, what became of it and why."""
        row = self.row
        return _filled(
            name=row.name,
            source=row.source,
            place=row.place,
            effect=_effect(row.effect),
            authoredEffect=_effect(row.authored_effect),
            rolePolicy=row.from_role_policy,
            outcome=self.outcome,
            derivedRole=_json(self.derived_role),
            condition=_json(self.condition),
            output=_output(self.output),
        )


@dataclass(frozen=True, slots=True)
class OtherRule:
    """A rule of a policy that was looked at which does not concern the question."""

    row: Row
    reason: PassedOver

    def to_json(self) -> dict[str, JsonValue]:
        """Return the rule and the reason."""
        row = self.row
        role = row.derived_role.name if row.derived_role else ""
        return _filled(
            name=row.name, source=row.source, place=row.place, derivedRole=role, reason=self.reason
        )


@dataclass(frozen=True, slots=True)
class ScopeExplanation:
    """One scope on the way: its derived roles, its rules, and how the way went on from there."""

    scope: str
    policies: tuple[str, ...]
    """The policies that stand in this scope: the target's own, and those of the roles."""

    derived_roles: tuple[DerivedRoleExplanation, ...]
    rules: tuple[RuleExplanation, ...]
    others: tuple[OtherRule, ...]
    end: str
    """How the way went on from here."""

    @property
    def placed(self) -> Iterator[Row | DerivedRole | Clause]:
        """Everything in the scope that has a place in a policy."""
        yield from (rule.row for rule in self.rules)
        yield from (rule.row for rule in self.others)
        roles = (*self.derived_roles, *(rule.derived_role for rule in self.rules if rule.derived_role))
        yield from (role.derived_role for role in roles)
        for condition in (*(rule.condition for rule in self.rules), *(role.condition for role in roles)):
            if condition is not None:
                yield from (leaf.clause for leaf in condition.leaves if leaf.clause)

    def to_json(self) -> dict[str, JsonValue]:
        """Return everything in the scope."""
        return {
            "scope": self.scope,
            "policies": list(self.policies),
            "derivedRoles": _json(self.derived_roles),
            "rules": _json(self.rules),
            "otherRules": _json(self.others),
            "end": self.end,
        }


@dataclass(frozen=True, slots=True)
class Walk:
    """The way of one role through the scopes of the principal's or the resource's policies."""

    kind: Literal["principal", "resource"]
    policy: str
    """The key under which the decision is reported."""

    role: str
    """Empty for the policies of the principal, which know no roles."""

    roles: tuple[str, ...]
    """The role, and by role policies its parents."""

    scopes: tuple[ScopeExplanation, ...]
    decision: ActionDecision | None

    def to_json(self) -> dict[str, JsonValue]:
        """Return the scopes of the way, and what it led to."""
        return _filled(
            kind=self.kind,
            policy=self.policy,
            role=self.role,
            roles=list(self.roles),
            scopes=_json(self.scopes),
            decision=_decision(self.decision),
        )


@dataclass(frozen=True, slots=True)
class ActionExplanation:
    """The decision about one action, and the ways that led to it."""

    action: str
    decision: ActionDecision
    walks: tuple[Walk, ...]
    reason: str

    def to_json(self) -> dict[str, JsonValue]:
        """Return the decision, the reason and the ways."""
        return {
            "action": self.action,
            "decision": _decision(self.decision),
            "reason": self.reason,
            "walks": _json(self.walks),
        }


@dataclass(frozen=True, slots=True)
class Explanation:
    """A question, its answer, and for each action the way to it."""

    question: CheckInput
    decision: Decision
    actions: tuple[ActionExplanation, ...]
    notes: tuple[str, ...] = ()
    """What may surprise about the question."""

    @property
    def rules(self) -> Iterator[RuleExplanation]:
        """Every rule that was considered, in order; one and the same may come up several times."""
        return (rule for scope in self._scopes for rule in scope.rules)

    @property
    def _scopes(self) -> Iterator[ScopeExplanation]:
        return (scope for action in self.actions for walk in action.walks for scope in walk.scopes)

    def to_json(self) -> dict[str, JsonValue]:
        """Return everything as a JSON object with lowerCamel names."""
        decision = self.decision
        self.find_places()
        return _filled(
            requestId=self.question.request_id,
            resourceId=self.question.resource.id,
            notes=list(self.notes),
            actions=_json(self.actions),
            effectiveDerivedRoles=list(decision.effective_derived_roles),
            outputs=[_output(output) for output in decision.outputs],
            evaluationErrors=[dict(error._asdict()) for error in decision.evaluation_errors],
            validationErrors=[dict(error._asdict()) for error in decision.validation_errors],
            effectivePolicies=list(decision.effective_policies),
        )

    def to_text(self) -> str:
        """Return everything as indented text for a terminal."""
        from engine.explain.text import text  # noqa: PLC0415 - who wants data does not need the text

        self.find_places()
        return text(self)

    def find_places(self) -> None:
        """Look all places up at once, before any is asked for: each document is read again only once."""
        found = [part for scope in self._scopes for part in scope.placed]
        for part in found:
            part.document.place(part.path)
        for part in found:
            part.document.forget_nodes()


def _filled(**fields: JsonValue) -> dict[str, JsonValue]:
    """Return an object without the fields that are empty; ``False`` and numbers are values like any other."""
    return {name: value for name, value in fields.items() if value not in (None, "", [], {})}


def _json(part: Any) -> JsonValue:
    if part is None:
        return None
    return [each.to_json() for each in part] if isinstance(part, tuple) else part.to_json()


def _effect(effect: Effect | None) -> str:
    return "" if effect is None else effect.value


def _decision(decision: ActionDecision | None) -> JsonValue:
    if decision is None:
        return None
    return _filled(
        effect=decision.effect.value, policy=decision.policy, scope=decision.scope, rule=decision.rule
    )


def _output(output: Output | None) -> JsonValue:
    if output is None:
        return None
    said = {"error": output.error} if output.error else {"value": output.value}
    return {"src": output.src, "action": output.action, **said}
