"""Cerbos's engine corpora: whole decisions over its store of policies."""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING, Any

import pytest
import yaml

from engine import AuxData, CheckInput, Decision, Engine, json_value
from tests import questions as read
from tests.conformance.suite import corpus, parameters

if TYPE_CHECKING:
    from collections.abc import Iterator

STRICT_SCOPES = ("cerbos/engine", "cerbos/engine_strict_scope_search")
LENIENT_SCOPES = ("cerbos/engine", "cerbos/engine_lenient_scope_search")


def cases(name: str) -> Iterator[tuple[str, Any]]:
    for path in sorted(corpus(name).glob("*.yaml")):
        yield path.stem, yaml.safe_load(path.read_text())


def all_cases(names: tuple[str, ...]) -> list[Any]:
    return [found for name in names for found in parameters(name, cases(name))]


@cache
def engine(*, lenient_scope_search: bool) -> Engine:
    return Engine.from_directory(
        corpus("cerbos/store"), globals={"environment": "test"}, lenient_scope_search=lenient_scope_search
    )


def question(given: dict[str, Any]) -> CheckInput:
    principal, resource = given["principal"], given["resource"]
    aux_data = given.get("auxData", {})
    return CheckInput(
        read.principal(principal),
        read.resource(resource),
        tuple(given["actions"]),
        AuxData(json_value(aux_data.get("jwt", {})), json_value(aux_data.get("jwts", {}))),
    )


def answer(decision: Decision) -> dict[str, Any]:
    return {
        "actions": {
            action: (found.effect.value, found.policy, found.scope)
            for action, found in decision.actions.items()
        },
        "effectiveDerivedRoles": sorted(decision.effective_derived_roles),
        "outputs": sorted(
            ((out.src, out.action, out.value, out.error) for out in decision.outputs), key=lambda out: out[0]
        ),
        "evaluationErrors": [(error.expression, error.message) for error in decision.evaluation_errors],
    }


def wanted(output: dict[str, Any]) -> dict[str, Any]:
    return {
        "actions": {
            action: (found["effect"], found.get("policy", ""), found.get("scope", ""))
            for action, found in output["actions"].items()
        },
        "effectiveDerivedRoles": sorted(output.get("effectiveDerivedRoles", [])),
        "outputs": [
            (out["src"], out["action"], json_value(out.get("val")), out.get("error", ""))
            for out in output.get("outputs", [])
        ],
        "evaluationErrors": [
            (error["celError"]["expression"], error["celError"]["message"])
            for error in output.get("evaluationErrors", [])
        ],
    }


def compare(case: dict[str, Any], *, lenient_scope_search: bool) -> None:
    asked = engine(lenient_scope_search=lenient_scope_search)
    decisions = asked.check_many(map(question, case["inputs"]))
    assert [answer(decision) for decision in decisions] == [wanted(output) for output in case["wantOutputs"]]
    for log in case.get("wantDecisionLogs", []):
        # The log has the inputs once more, with what came of them.
        logged = asked.check_many(map(question, log["checkResources"]["inputs"]))
        assert list(map(answer, logged)) == list(map(wanted, log["checkResources"]["outputs"]))
        assert trail(asked, logged) == log.get("auditTrail", {}).get("effectivePolicies", {})


def trail(asked: Engine, decisions: list[Decision]) -> dict[str, Any]:
    """Return the policies that were looked at, with what the log says about where each is from."""
    keys = {key for decision in decisions for key in decision.effective_policies}
    policies = asked.table.policies
    return {key: {"attributes": {"driver": "disk", "source": policies[key].policy.file}} for key in keys}


@pytest.mark.parametrize("case", all_cases(STRICT_SCOPES))
def test_decisions(case: dict[str, Any]) -> None:
    """Effects, deciding policies, derived roles, outputs, errors and the audit trail are Cerbos's."""
    compare(case, lenient_scope_search=False)


@pytest.mark.parametrize("case", all_cases(LENIENT_SCOPES))
def test_decisions_with_lenient_scope_search(case: dict[str, Any]) -> None:
    """The same, where a scope that has no policy falls back to the scopes above it."""
    compare(case, lenient_scope_search=True)
