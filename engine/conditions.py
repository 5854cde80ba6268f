"""Conditions as functions, and what an error means in them.

A condition tree (``all``, ``any``, ``none``, ``expr``) becomes nested closures over the compiled expressions.
A condition is true, false, or ``None``: undecided, because an expression failed and the rest does not settle
the matter. Only the evaluation mode ``safe`` leaves anything undecided; what an error means is decided in
:func:`meaning` and nowhere else.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from engine import policy as p
from engine.cel import EvaluationError
from engine.model import Effect

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from engine.check import Activation
    from engine.model import Evaluation
    from engine.rules import Clause, Condition, Outcome


class Abandoned(Exception):  # noqa: N818 - not an error, the end of an evaluation
    """An expression failed in the evaluation mode ``strict``: the action is denied at once."""


def meaning(evaluation: Evaluation) -> Outcome:
    """Decide what a condition's expression is worth that failed at run time.

    Raises:
        Abandoned: in the mode ``strict``.

    """
    if evaluation == "strict":
        raise Abandoned
    return None if evaluation == "safe" else False


def met(outcome: Outcome, effect: Effect | None) -> bool:
    """Tell whether a rule applies; an undecided condition makes a rule apply that denies, and no other."""
    return effect is Effect.DENY if outcome is None else outcome


def both(first: Outcome, second: Outcome) -> Outcome:
    """Return whether two conditions hold together: false wins over undecided."""
    if first is False or second is False:
        return False
    return None if first is None or second is None else True


def negated(condition: Condition) -> Condition:
    """Return the condition that holds when *condition* does not."""

    def check(activation: Activation) -> Outcome:
        outcome = condition(activation)
        return None if outcome is None else not outcome

    return check


def condition_of(match: p.Match, clause: Callable[[str], Clause], evaluation: Evaluation) -> Condition:
    """Build the function for a condition; *clause* compiles the text of one expression."""
    if isinstance(match, p.Expr):
        return _expression(clause(match.text), evaluation)
    parts = [condition_of(part, clause, evaluation) for part in match.of]
    return _COMBINATORS[type(match)](parts)


def _expression(clause: Clause, evaluation: Evaluation) -> Condition:
    function = clause.expression.function

    def check(activation: Activation) -> Outcome:
        try:
            value = function(activation)
        except EvaluationError as error:
            activation.note(clause, error)
            return meaning(evaluation)
        return value is True

    def check_safe(activation: Activation) -> Outcome:
        try:
            value = function(activation)
        except EvaluationError as error:
            activation.note(clause, error)
            return None
        if value is True or value is False:
            return value
        activation.note(clause, EvaluationError("the condition is not a boolean"))
        return None

    return check_safe if evaluation == "safe" else check


def _all(parts: Sequence[Condition]) -> Condition:
    def check(activation: Activation) -> Outcome:
        outcome: Outcome = True
        for part in parts:
            found = part(activation)
            if found is False:
                return False
            if found is None:
                outcome = None
        return outcome

    return check


def _any(parts: Sequence[Condition]) -> Condition:
    def check(activation: Activation) -> Outcome:
        outcome: Outcome = False
        for part in parts:
            found = part(activation)
            if found:
                return True
            if found is None:
                outcome = None
        return outcome

    return check


def _none(parts: Sequence[Condition]) -> Condition:
    return negated(_any(parts))


_COMBINATORS: Mapping[type, Callable[[Sequence[Condition]], Condition]] = {
    p.All: _all,
    p.Any_: _any,
    p.None_: _none,
}
