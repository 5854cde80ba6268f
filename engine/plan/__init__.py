"""Plans: for which resources may a principal do something, as a filter that a data store can apply.

:meth:`engine.Engine.plan` answers with a :class:`Plan`. ``engine.plan.adapters`` turns one into a predicate
of Python or a condition of SQLAlchemy.
"""

from __future__ import annotations

from engine.plan.filter import Expression, Operand, Value, Variable
from engine.plan.model import (
    ALWAYS_ALLOWED,
    ALWAYS_DENIED,
    CONDITIONAL,
    Kind,
    Plan,
    PlanError,
    PlanInput,
)
from engine.plan.walk import plan

__all__ = [
    "ALWAYS_ALLOWED",
    "ALWAYS_DENIED",
    "CONDITIONAL",
    "Expression",
    "Kind",
    "Operand",
    "Plan",
    "PlanError",
    "PlanInput",
    "Value",
    "Variable",
    "plan",
]
