"""The question that a plan answers, and the answer."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from engine.model import EMPTY, NO_AUX_DATA

if TYPE_CHECKING:
    from collections.abc import Mapping

    from engine.model import AuxData, EvaluationError, Principal, Resource, ValidationError
    from engine.plan.filter import Operand

Kind = Literal["KIND_ALWAYS_ALLOWED", "KIND_ALWAYS_DENIED", "KIND_CONDITIONAL"]

ALWAYS_ALLOWED: Kind = "KIND_ALWAYS_ALLOWED"
ALWAYS_DENIED: Kind = "KIND_ALWAYS_DENIED"
CONDITIONAL: Kind = "KIND_CONDITIONAL"


class PlanError(Exception):
    """There is no plan for the question: a condition cannot be said as a filter.

    The message names the condition and where it stands.
    """


class PlanInput(NamedTuple):
    """A question: to which resources may *principal* do all of *actions*.

    *resource* says what is known of them: the kind, and those attributes that all of them share; its id is
    empty.
    """

    principal: Principal
    resource: Resource
    actions: tuple[str, ...]
    aux_data: AuxData = NO_AUX_DATA
    request_id: str = ""


class Plan(NamedTuple):
    """The answer: all resources, none, or those for which *condition* holds.

    *debug* is the filter in one line, or ``NO_MATCH`` where no policy says anything. *matched_scopes* gives
    for each action the last scope that contributed to the filter. *evaluation_errors* are the conditions that
    failed with what is known already.
    """

    kind: Kind
    condition: Operand | None = None
    debug: str = ""
    matched_scopes: Mapping[str, str] = EMPTY
    validation_errors: tuple[ValidationError, ...] = ()
    evaluation_errors: tuple[EvaluationError, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """Return the filter as Cerbos's API has it: ``{"kind": ..., "condition": ...}``."""
        if self.condition is None:
            return {"kind": self.kind}
        return {"kind": self.kind, "condition": self.condition.to_json()}
