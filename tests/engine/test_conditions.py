"""Conditions: what an error means, and that the rest of the condition is weighed against it."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine import policy as p
from engine.cel import Environment, EvaluationError
from engine.conditions import (
    Abandoned,
    Match,
    both,
    clauses_of,
    condition_of,
    inverted,
    match_of,
    meaning,
    met,
)
from engine.document import parse
from engine.model import Effect, Evaluation
from engine.rules import Clause, Outcome

ENVIRONMENT = Environment({"x": "dyn"})
DOCUMENT = parse("a: 1", "x.yaml")
LEAVES = {"true": True, "false": False, "x.missing": None}

LEAF = st.sampled_from([*LEAVES]).map(p.Expr)
TREES = st.recursive(
    LEAF,
    lambda inner: st.builds(
        lambda kind, of: kind(tuple(of)),
        st.sampled_from([p.All, p.Any_, p.None_]),
        st.lists(inner, min_size=1, max_size=3),
    ),
    max_leaves=8,
)


class Activation:
    """Stands in for the activation of a check."""

    def __init__(self, evaluation: Evaluation = "lenient") -> None:
        self.evaluation = evaluation
        self.x: dict[str, object] = {}
        self.noted = 0

    def note(self, _clause: Clause, _error: EvaluationError) -> None:
        """Count errors."""
        self.noted += 1


def evaluate(match: p.Match, mode: Evaluation) -> Outcome:
    return condition_of(tree(match))(Activation(mode))


def tree(match: p.Match) -> Match:
    return match_of(match, lambda text: Clause(ENVIRONMENT.compile(text), DOCUMENT, ()))


def possible(match: p.Match) -> set[bool]:
    """Return the values a condition can have, whatever the expressions that fail would have been."""
    if isinstance(match, p.Expr):
        value = LEAVES[match.text]
        return {True, False} if value is None else {value}
    parts = [possible(part) for part in match.of]
    if isinstance(match, p.All):
        return _both_ways([True in part for part in parts], [part == {True} for part in parts])
    found = _both_ways_any(parts)
    return found if isinstance(match, p.Any_) else {not value for value in found}


def _both_ways(can_be_true: list[bool], must_be_true: list[bool]) -> set[bool]:
    return ({True} if all(can_be_true) else set()) | (set() if all(must_be_true) else {False})


def _both_ways_any(parts: list[set[bool]]) -> set[bool]:
    can = {True} if any(True in part for part in parts) else set()
    return can | ({False} if all(False in part for part in parts) else set())


@given(TREES)
def test_safe_evaluation_decides_only_what_an_error_cannot_change(match: p.Match) -> None:
    """A condition is undecided exactly when the failing expressions could make it either."""
    values = possible(match)
    assert evaluate(match, "safe") == (values.pop() if len(values) == 1 else None)


def plainly(match: p.Match) -> bool:
    if isinstance(match, p.Expr):
        return LEAVES[match.text] is True
    parts = [plainly(part) for part in match.of]
    return all(parts) if isinstance(match, p.All) else any(parts) == isinstance(match, p.Any_)


@given(TREES)
def test_lenient_evaluation_takes_an_error_for_false(match: p.Match) -> None:
    """Each expression that fails counts as false, as in Cerbos."""
    assert evaluate(match, "lenient") is plainly(match)


@given(TREES)
def test_strict_evaluation_stops_at_the_first_error(match: p.Match) -> None:
    """Strict evaluation gives the same answer, or none."""
    try:
        assert evaluate(match, "strict") is plainly(match)
    except Abandoned:
        assert "x.missing" in repr(match)


def test_what_an_error_means() -> None:
    """False when lenient, undecided when safe, the end when strict."""
    assert meaning("lenient") is False
    assert meaning("safe") is None
    with pytest.raises(Abandoned):
        meaning("strict")


@pytest.mark.parametrize(
    ("outcome", "effect", "applies"),
    [
        (True, Effect.ALLOW, True),
        (False, Effect.ALLOW, False),
        (None, Effect.ALLOW, False),
        (None, Effect.DENY, True),
        (None, None, False),
        (False, Effect.DENY, False),
    ],
)
def test_an_undecided_condition_denies_and_never_allows(
    outcome: Outcome, effect: Effect | None, applies: bool
) -> None:
    """A rule that denies applies when in doubt, any other does not."""
    assert met(outcome, effect) is applies


def test_both() -> None:
    """False wins over undecided, and undecided over true."""
    assert [both(a, b) for a in (True, False, None) for b in (True, False, None)] == [
        True, False, None, False, False, False, None, False, None,
    ]  # fmt: skip


@given(TREES, st.sampled_from(["lenient", "safe"]))
def test_inverted(match: p.Match, mode: Evaluation) -> None:
    """The inverted condition is the opposite, and undecided where the condition is."""
    outcome = evaluate(match, mode)
    opposite = condition_of(inverted(tree(match)))(Activation(mode))
    assert opposite is (None if outcome is None else not outcome)


@given(TREES)
def test_a_tree_keeps_the_expressions_in_order(match: p.Match) -> None:
    """The expressions of a condition are those that its author wrote, in order."""
    assert [clause.text for clause in clauses_of(tree(match))] == texts(match)


def texts(match: p.Match) -> list[str]:
    return [match.text] if isinstance(match, p.Expr) else [text for part in match.of for text in texts(part)]


@pytest.mark.parametrize(
    ("mode", "outcome", "noted"), [("lenient", False, 0), ("strict", False, 0), ("safe", None, 1)]
)
def test_a_condition_that_is_no_boolean(mode: Evaluation, outcome: Outcome, noted: int) -> None:
    """A value that is no boolean is false without a word, as in Cerbos; an error in the mode ``safe``."""
    activation = Activation(mode)
    assert condition_of(tree(p.Expr("'text'")))(activation) is outcome
    assert activation.noted == noted
