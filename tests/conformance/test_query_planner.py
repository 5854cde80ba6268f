"""Cerbos's corpus of plans: its policies, its principals, and the filters they lead to."""

from __future__ import annotations

import json
from functools import cache
from typing import TYPE_CHECKING, Any

import pytest
import yaml

from engine import AuxData, Engine, json_value
from engine.cel import Timestamp
from engine.plan import PlanInput
from tests import questions as read
from tests.conformance.suite import corpus, parameters

if TYPE_CHECKING:
    from collections.abc import Iterator

NAME = "cerbos/query_planner"
NOW = Timestamp.parse("2024-01-16T10:18:27.395+13:00")
FACTS = AuxData(jwt={"customInt": 42.0})


def cases(*suites: str) -> Iterator[tuple[str, Any]]:
    for suite in suites:
        for path in sorted((corpus(NAME) / "suite" / suite).glob("*.yaml")):
            document = yaml.safe_load(path.read_text())
            for number, test in enumerate(document["tests"]):
                yield f"{path.stem}-{number}", (document["principal"], test)


@cache
def engine(*, lenient_scope_search: bool) -> Engine:
    return Engine.from_directory(
        corpus(NAME) / "policies",
        globals={"environment": "test"},
        lenient_scope_search=lenient_scope_search,
    )


def question(principal: dict[str, Any], test: dict[str, Any]) -> PlanInput:
    resource = test["resource"]
    return PlanInput(
        read.principal(principal),
        read.resource(resource),
        tuple(test.get("actions") or (test["action"],)),
        FACTS,
    )


def in_order(node: Any) -> Any:
    """Sort the operands of every expression: in which order they come says nothing."""
    if isinstance(node, list):
        return sorted(map(in_order, node), key=lambda item: json.dumps(item, sort_keys=True))
    if not isinstance(node, dict) or "value" in node:
        return json_value(node)
    return {key: in_order(item) for key, item in node.items() if item != []}


def compare(case: tuple[dict[str, Any], dict[str, Any]], *, lenient_scope_search: bool) -> None:
    principal, test = case
    plan = engine(lenient_scope_search=lenient_scope_search).plan(question(principal, test), now=NOW)
    assert in_order(plan.to_json()) == in_order(test["want"])


STRICT = parameters(NAME, cases("common", "strict_scope_search"))
LENIENT = parameters(NAME, cases("common", "lenient_scope_search"))


@pytest.mark.parametrize("case", STRICT)
def test_plans(case: tuple[dict[str, Any], dict[str, Any]]) -> None:
    """The filter of each plan is Cerbos's."""
    compare(case, lenient_scope_search=False)


@pytest.mark.parametrize("case", LENIENT)
def test_plans_with_lenient_scope_search(case: tuple[dict[str, Any], dict[str, Any]]) -> None:
    """The same, where a scope that has no policy falls back to the scopes above it."""
    compare(case, lenient_scope_search=True)
