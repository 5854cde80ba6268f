"""The whole way to a decision, as data."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from engine.check import check

if TYPE_CHECKING:
    from engine.cel import Timestamp
    from engine.model import CheckInput, Decision, Evaluation
    from engine.rules import RuleTable


@dataclass(frozen=True, slots=True)
class Explanation:
    """A decision and the way to it."""

    decision: Decision


def explain(
    table: RuleTable,
    question: CheckInput,
    *,
    now: Timestamp | None = None,
    evaluation: Evaluation | None = None,
) -> Explanation:
    """Decide *question* as a check does, and tell the way to the decision."""
    return Explanation(check(table, question, now=now, evaluation=evaluation))
