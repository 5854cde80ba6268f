"""What a condition saw: its expressions evaluated one by one, with what each of them read.

This is for explanations. It decides nothing and keeps no errors, but stops where the condition's own function
stops, and comes to the same outcome.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from engine.cel import EvaluationError
from engine.conditions import NOT_BOOLEAN, All, Any_, Leaf, None_
from engine.explain.explanation import Condition, Reference
from engine.expressions import ATTRIBUTES, IDENTIFIERS
from engine.outputs import to_json

if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Literal

    from engine.conditions import Activation, Match
    from engine.explain.explanation import ConditionOutcome
    from engine.model import JsonValue
    from engine.rules import Clause

_KINDS: Mapping[type, Literal["all", "any", "none"]] = {All: "all", Any_: "any", None_: "none"}
_OPPOSITE: Mapping[ConditionOutcome, ConditionOutcome] = {"true": "false", "false": "true"}


def condition_seen(match: Match, activation: Activation) -> Condition:
    """Evaluate a condition as a check does, and return what each part of it came to."""
    if isinstance(match, Leaf):
        return _expression_seen(match.clause, activation)
    settles: ConditionOutcome = "false" if isinstance(match, All) else "true"
    parts: list[Condition] = []
    for part in match.parts:
        parts.append(condition_seen(part, activation))
        if parts[-1].outcome == settles or _stops(parts[-1], activation):
            break
    outcome = _together([part.outcome for part in parts], settles)
    if isinstance(match, None_):
        outcome = _OPPOSITE.get(outcome, outcome)
    parts += [not_evaluated(part) for part in match.parts[len(parts) :]]
    return Condition(_KINDS[type(match)], outcome, tuple(parts))


def not_evaluated(match: Match) -> Condition:
    """Return a condition that did not matter any more."""
    if isinstance(match, Leaf):
        return Condition("expr", "not evaluated", clause=match.clause)
    return Condition(_KINDS[type(match)], "not evaluated", tuple(map(not_evaluated, match.parts)))


def _stops(part: Condition, activation: Activation) -> bool:
    return part.outcome == "error" and activation.evaluation == "strict"


def _together(outcomes: list[ConditionOutcome], settles: ConditionOutcome) -> ConditionOutcome:
    if settles in outcomes:
        return settles
    return "error" if "error" in outcomes else _OPPOSITE[settles]


def _expression_seen(clause: Clause, activation: Activation) -> Condition:
    references = references_seen(clause, activation)
    try:
        value = clause.expression.function(activation)
    except EvaluationError as error:
        outcome: ConditionOutcome = "false" if activation.evaluation == "lenient" else "error"
        excerpt = clause.expression.locate(error).excerpt
        return Condition(
            "expr", outcome, clause=clause, error=str(error), excerpt=excerpt, references=references
        )
    if isinstance(value, bool):
        outcome = "true" if value else "false"
        return Condition("expr", outcome, clause=clause, value=value, references=references)
    if activation.evaluation == "safe":
        return Condition("expr", "error", clause=clause, error=NOT_BOOLEAN, references=references)
    return Condition("expr", "false", clause=clause, value=_shown(value), references=references)


def references_seen(clause: Clause, activation: object) -> tuple[Reference, ...]:
    """Return what an expression reads of the check's variables, sorted by name, and what was there."""
    paths = sorted(path for path in clause.expression.references if path[0] in IDENTIFIERS)
    return tuple(_reference(path, activation) for path in paths)


def _reference(path: tuple[str, ...], activation: object) -> Reference:
    name = ".".join(path)
    try:
        value = getattr(activation, path[0])
        for field in path[1:]:
            value = _selected(value, field)
    except EvaluationError as error:
        return Reference(name, error=str(error))
    return Reference(name, _shown(value))


def _selected(value: Any, field: str) -> Any:
    if isinstance(value, dict):
        if field not in value:
            # The namespaces of the policy word this themselves.
            return value[field] if hasattr(value, "__missing__") else _fail(f"no such key: {field}")
        return value[field]
    if field in ATTRIBUTES and hasattr(type(value), ATTRIBUTES[field]):
        return getattr(value, ATTRIBUTES[field])
    return _fail(f"no such field '{field}'")


def _fail(message: str) -> Any:
    raise EvaluationError(message)


def _shown(value: Any) -> JsonValue:
    """Return a value as JSON; what JSON does not know, as text."""
    if hasattr(value, "_asdict"):
        return {field: _shown(item) for field, item in value._asdict().items()}
    if isinstance(value, tuple):
        value = list(value)
    try:
        return to_json(value)
    except EvaluationError:
        return str(value)
