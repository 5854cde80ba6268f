"""Cerbos's corpora for attribute schemas in the engine: what breaks a schema is reported, or refused."""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING, Any

import pytest
import yaml

from engine import AuxData, CheckInput, Decision, Engine, Settings
from tests import questions as read
from tests.conformance.suite import corpus, parameters

if TYPE_CHECKING:
    from collections.abc import Iterator

    from engine.rules import SchemaEnforcement

WARN = "cerbos/engine_schema_enforcement/warn"
REJECT = "cerbos/engine_schema_enforcement/reject"


def cases(name: str) -> Iterator[tuple[str, Any]]:
    for path in sorted(corpus(name).glob("*.yaml")):
        yield path.stem, yaml.safe_load(path.read_text())


@cache
def engine(enforcement: SchemaEnforcement) -> Engine:
    settings = Settings(globals={"environment": "test"}, schema_enforcement=enforcement)
    return Engine.from_directory(corpus("cerbos/store"), settings=settings)


def question(given: dict[str, Any]) -> CheckInput:
    principal, resource = given["principal"], given["resource"]
    return CheckInput(
        read.principal(principal),
        read.resource(resource),
        tuple(given["actions"]),
        AuxData(),
    )


def answer(decision: Decision) -> dict[str, Any]:
    return {
        "actions": {
            action: (found.effect.value, found.policy, found.scope)
            for action, found in decision.actions.items()
        },
        "validationErrors": sorted(map(tuple, decision.validation_errors)),
        "effectiveDerivedRoles": sorted(decision.effective_derived_roles),
        "outputs": sorted((out.src, out.action) for out in decision.outputs),
    }


def wanted(output: dict[str, Any]) -> dict[str, Any]:
    return {
        "actions": {
            action: (found["effect"], found.get("policy", ""), found.get("scope", ""))
            for action, found in output["actions"].items()
        },
        "validationErrors": sorted(
            (error["path"], error["message"], error["source"]) for error in output.get("validationErrors", [])
        ),
        "effectiveDerivedRoles": sorted(output.get("effectiveDerivedRoles", [])),
        "outputs": sorted((out["src"], out["action"]) for out in output.get("outputs", [])),
    }


def compare(case: dict[str, Any], enforcement: SchemaEnforcement) -> None:
    found = [answer(decision) for decision in engine(enforcement).check_many(map(question, case["inputs"]))]
    assert found == [wanted(output) for output in case["wantOutputs"]]


@pytest.mark.parametrize("case", parameters(WARN, cases(WARN)))
def test_warn(case: dict[str, Any]) -> None:
    """What breaks a schema is reported, and the rules decide all the same."""
    compare(case, "warn")


@pytest.mark.parametrize("case", parameters(REJECT, cases(REJECT)))
def test_reject(case: dict[str, Any]) -> None:
    """What breaks a schema is reported, and every action is denied without asking a rule."""
    compare(case, "reject")
