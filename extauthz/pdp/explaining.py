"""ExplainResources: the answers of CheckResources, each with the way to it. The call is ours, not Cerbos's.

An explanation is as long as the policies have rules, times actions and roles, and repeats attribute values;
so work and answer are bounded beforehand, and one request is explained at a time, in a thread.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final

from engine.check import targets_of
from extauthz.pdp.apart import apart
from extauthz.pdp.calls import result
from extauthz.pdp.errors import PdpError, invalid
from extauthz.pdp.explain_messages import ExplainedEntry, ExplainResourcesResponse

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from engine.explain.explanation import Explanation
    from engine.model import CheckInput, JsonValue
    from engine.rules import RuleTable
    from engine.targets import Stage, Target
    from extauthz.pdp import messages
    from extauthz.pdp.calls import Pdp

MAX_PARTS: Final = 200_000
"""Rules and attribute values in the explanations of one request: about a second of work."""
MAX_CHARACTERS: Final = 4 * 1024 * 1024
"""In the explanations of one request."""
LONG_TEXT: Final = 64
"""Characters of a text that count as one value: expressions may copy it, into errors too."""
FEWER: Final = "ask about fewer resources, actions or roles, or give fewer attributes"


class Explaining:
    """Explains what a :class:`~extauthz.pdp.calls.Pdp` decides."""

    def __init__(self, pdp: Pdp) -> None:
        self._pdp = pdp
        self._turn = asyncio.Lock()

    async def explain_resources(self, request: messages.CheckResourcesRequest) -> ExplainResourcesResponse:
        """Decide each action on each resource, and tell why."""
        questions = await self._pdp.questions(request)
        async with self._turn:
            results = await apart(self._results, request, questions)
        return ExplainResourcesResponse(request.request_id, results, self._pdp.new_call_id())

    def _results(
        self, request: messages.CheckResourcesRequest, questions: Sequence[CheckInput]
    ) -> tuple[ExplainedEntry, ...]:
        table = self._pdp.table
        if not _bearable(table, questions):
            raise _too_long("work")
        resources = [entry.resource for entry in request.resources]
        explanations = self._pdp.explain(table, questions)
        found = explained(resources, explanations, include_meta=request.include_meta)
        if not _fits([entry.explanation for entry in found], MAX_CHARACTERS):
            raise _too_long("answer")
        return found


def explained(
    resources: Iterable[Any], explanations: Iterable[Explanation], *, include_meta: bool
) -> tuple[ExplainedEntry, ...]:
    """Make the answer for each resource: what CheckResources says, and the explanation."""
    return tuple(
        ExplainedEntry(
            *result(resource, each.decision, include_meta=include_meta), explanation=each.to_json()
        )
        for resource, each in zip(resources, explanations, strict=True)
    )


def _too_long(what: str) -> PdpError:
    return invalid(f"explaining this would take too long an answer ({what}): {FEWER}")


# --- how long it would be ---------------------------------------------------------------------------------


def _bearable(table: RuleTable, questions: Sequence[CheckInput]) -> bool:
    """Tell whether the questions can be explained, without doing much for those that cannot."""
    room = MAX_PARTS - sum(_named(table, question) for question in questions)
    for question in questions:
        if room < 0:
            break
        room -= _shown(table, question)
    return room >= 0


def _named(table: RuleTable, question: CheckInput) -> int:
    """Estimate, from above, how many rules are named: for each action and role every one on the way."""
    named = (len(roles) * sum(map(_rules, target.stages)) for target, roles in targets_of(table, question))
    return len(question.actions) * sum(named)


def _shown(table: RuleTable, question: CheckInput) -> int:
    """Estimate how many values are shown: each rule that concerns the question may read all that there is."""
    considered = sum(
        _considered(target, action, roles)
        for target, roles in targets_of(table, question)
        for action in question.actions
    )
    facts = (question.principal.attr, question.resource.attr, *question.aux_data)
    return considered and considered * _count(facts)


def _rules(stage: Stage) -> int:
    policies = (stage.policy, *stage.role_policies.values())
    return 1 + sum(1 for policy in policies if policy is not None for _ in policy.rows)


def _considered(target: Target, action: str, roles: tuple[str, ...]) -> int:
    return sum(len(step.rows) + len(step.derived_roles) for way in target.ways(action, roles) for step in way)


def _count(value: Any) -> int:
    """Count the values in *value*, long texts as several; what requests hold is not nested deep."""
    if isinstance(value, str):
        return 1 + len(value) // LONG_TEXT
    if isinstance(value, (list, tuple)):
        return 1 + sum(map(_count, value))
    if isinstance(value, Mapping):
        return 1 + sum(map(_count, value.values()))
    return 1


def _fits(value: JsonValue, room: int) -> bool:
    """Tell whether *value* has at most *room* characters as JSON, nearly; looks at no more than that."""
    waiting = [value]
    while waiting and room >= 0:
        each = waiting.pop()
        match each:
            case str():
                room -= len(each) + 4
            case dict():
                room -= sum(len(name) + 4 for name in each) + 2
                waiting.extend(each.values())
            case list():
                room -= len(each) + 2
                waiting.extend(each)
            case _:
                room -= 6
    return room >= 0
