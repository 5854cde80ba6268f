"""Conditions as functions, and what an error means in them.

A condition of a policy (``all``, ``any``, ``none``, ``expr``) becomes a tree of compiled expressions
(:func:`match_of`), and the tree becomes nested closures (:func:`condition_of`). The tree stays beside the
function for those who look into a condition instead of asking it: explanations, coverage, plans.

A condition is true, false, or ``None``: undecided, because an expression failed and the rest does not settle
the matter. Only the evaluation mode ``safe`` leaves anything undecided; what an error means is decided in
:func:`meaning` and nowhere else.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from engine import policy as p
from engine.cel import EvaluationError
from engine.model import Effect

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from engine.model import Evaluation
    from engine.rules import Clause, Condition, Outcome


@dataclass(frozen=True, slots=True, eq=False)
class Leaf:
    """One expression: holds if its value is true."""

    clause: Clause


@dataclass(frozen=True, slots=True, eq=False)
class All:
    """Holds if all *parts* do."""

    parts: tuple[Match, ...]


@dataclass(frozen=True, slots=True, eq=False)
class Any_:  # noqa: N801 - `any` of the policy language; `Any` is a name of Python's
    """Holds if one of *parts* does."""

    parts: tuple[Match, ...]


@dataclass(frozen=True, slots=True, eq=False)
class None_:  # noqa: N801 - `none` of the policy language
    """Holds if none of *parts* does."""

    parts: tuple[Match, ...]


Match = Leaf | All | Any_ | None_
"""A compiled condition as a tree."""


class Activation(Protocol):
    """What conditions ask of the object that expressions read their variables from."""

    @property
    def evaluation(self) -> Evaluation:
        """What an error means."""

    def note(self, clause: Clause, error: EvaluationError) -> None:
        """Keep an error for the decision."""


NOT_BOOLEAN = "the condition is not a boolean"


def match_of(match: p.Match, clause: Callable[[str], Clause]) -> Match:
    """Build the tree of a condition; *clause* compiles the text of one expression, in order."""
    if isinstance(match, p.Expr):
        return Leaf(clause(match.text))
    return _TREES[type(match)](tuple(match_of(part, clause) for part in match.of))


_TREES: Mapping[type, Callable[[tuple[Match, ...]], Match]] = {p.All: All, p.Any_: Any_, p.None_: None_}


def inverted(match: Match) -> Match:
    """Return the condition that holds when *match* does not."""
    return None_((match,))


def clauses_of(match: Match | None) -> Iterator[Clause]:
    """Yield the expressions of a condition, in order."""
    if isinstance(match, Leaf):
        yield match.clause
    elif match is not None:
        for part in match.parts:
            yield from clauses_of(part)


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


def condition_of(match: Match) -> Condition:
    """Build the function for a condition."""
    if isinstance(match, Leaf):
        return _expression(match.clause)
    return combined(match, [condition_of(part) for part in match.parts])


def combined(match: All | Any_ | None_, parts: Sequence[Condition]) -> Condition:
    """Build the function for a condition of the kind of *match* from those of its *parts*."""
    return _COMBINATORS[type(match)](parts)


def _expression(clause: Clause) -> Condition:
    function = clause.expression.function

    def check(activation: Activation) -> Outcome:
        try:
            value = function(activation)
        except EvaluationError as error:
            return failed(clause, error, activation)
        if value is True or value is False:
            return value
        return not_boolean(clause, activation)

    return check


def failed(clause: Clause, error: EvaluationError, activation: Activation) -> Outcome:
    """Note that an expression failed, and return what the condition is worth then."""
    activation.note(clause, error)
    return meaning(activation.evaluation)


def not_boolean(clause: Clause, activation: Activation) -> Outcome:
    """Return what a condition is worth whose value is no boolean.

    Cerbos takes it for false and says nothing, in its strict mode too; in ``safe`` it is an error.
    """
    if activation.evaluation != "safe":
        return False
    return failed(clause, EvaluationError(NOT_BOOLEAN), activation)


def _all(parts: Sequence[Condition]) -> Condition:
    if len(parts) == 1:
        return parts[0]

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
    if len(parts) == 1:
        return parts[0]

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
    condition = _any(parts)

    def check(activation: Activation) -> Outcome:
        outcome = condition(activation)
        return None if outcome is None else not outcome

    return check


_COMBINATORS: Mapping[type, Callable[[Sequence[Condition]], Condition]] = {
    All: _all,
    Any_: _any,
    None_: _none,
}
