"""A smaller question that shows the same."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from engine.model import NO_AUX_DATA

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from engine.comparison.cases import Case
    from engine.model import CheckInput, JsonValue


def size(question: CheckInput) -> int:
    """Return how much there is to read in a question."""
    principal, resource = question.principal, question.resource
    return len(repr((principal.roles, principal.attr, resource.attr, question.aux_data, question.actions)))


def shrunk(case: Case, shows: Callable[[Case], bool]) -> Case:
    """Leave out roles, attributes and claims one by one as long as the case still *shows* what it does."""
    smaller = True
    while smaller:
        smaller = False
        for question in _smaller(case.input):
            candidate = replace(case, input=question)
            if shows(candidate):
                case, smaller = candidate, True
                break
    return case


def _smaller(question: CheckInput) -> Iterator[CheckInput]:
    principal, resource = question.principal, question.resource
    for roles in _without_each(principal.roles):
        if roles:
            yield question._replace(principal=principal._replace(roles=roles))
    for attr in _without_key(principal.attr):
        yield question._replace(principal=principal._replace(attr=attr))
    for attr in _without_key(resource.attr):
        yield question._replace(resource=resource._replace(attr=attr))
    if question.aux_data != NO_AUX_DATA:
        for claims in _without_key(question.aux_data.jwt):
            yield question._replace(aux_data=question.aux_data._replace(jwt=claims))
    for actions in _without_each(question.actions):
        if actions:
            yield question._replace(actions=actions)


def _without_each(items: tuple[str, ...]) -> Iterator[tuple[str, ...]]:
    return (items[:at] + items[at + 1 :] for at in range(len(items)))


def _without_key(values: Mapping[str, JsonValue]) -> Iterator[dict[str, JsonValue]]:
    return ({name: value for name, value in values.items() if name != left_out} for left_out in values)
