"""Cerbos's inspect corpus: what policies refer to, as they are written and as they are compiled."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest
import yaml

from engine import PolicyError, Settings, compile_policies, json_value, load_policy
from engine.document import json_path
from engine.inspection import inspect_policies, inspect_table
from tests.conformance.suite import corpus, parameters

if TYPE_CHECKING:
    from collections.abc import Iterator

    from engine.document import Fault
    from engine.policy import Policy

CORPUS = "cerbos/inspect"


def cases() -> Iterator[tuple[str, Any]]:
    for path in sorted(corpus(CORPUS).glob("*.yaml")):
        yield path.stem, yaml.safe_load(path.read_text())


def policies(case: dict[str, Any]) -> list[Policy]:
    found = [
        load_policy(yaml.safe_dump(document, sort_keys=False), f"{number}.yaml", spanning=False)
        for number, document in enumerate(case["inputs"])
    ]
    return [policy for policy in found if policy is not None]


def in_order(result: dict[str, Any]) -> dict[str, Any]:
    """Return a result as the engine has it: lists sorted, numbers as attributes have them."""
    return {
        field: sorted(json_value(value), key=_text) if isinstance(value, list) else value
        for field, value in result.items()
    }


def _text(value: Any) -> str:
    return json.dumps(value, sort_keys=True)


def results(found: dict[str, Any]) -> dict[str, Any]:
    return {key: in_order(inspection) for key, inspection in found.items()}


@pytest.mark.parametrize("case", parameters(CORPUS, cases()))
def test_policies_as_written(case: dict[str, Any]) -> None:
    """Each policy is listed with what it refers to and where that is defined, compiling or not."""
    expected = case["policiesExpectation"]
    found = inspect_policies(policies(case))
    got = {key: inspection.to_json() for key, inspection in found.policies.items()}
    assert results(got) == results(expected["policies"])
    assert list(found.missing) == sorted(expected.get("missingPolicies", []))


def check_faults(faults: tuple[Fault, ...], expected: dict[str, Any]) -> None:
    """Compare kinds and paths: lines are those of a text that Cerbos writes itself.

    A load failure of Cerbos's hides the compile errors, which we report as well.
    """
    failures = expected.get("indexBuildErrors", {}).get("loadFailures", [])
    paths = {json_path(fault.path) for fault in faults}
    assert {failure["errorDetails"]["position"]["path"] for failure in failures} <= paths
    if not failures:
        assert {(fault.kind, json_path(fault.path)) for fault in faults} == {
            (error["error"], error["position"]["path"])
            for error in expected["compileErrors"]["compileErrors"]
        }


@pytest.mark.parametrize("case", parameters(CORPUS, cases()))
def test_policies_as_compiled(case: dict[str, Any]) -> None:
    """Of compiled policies only what decisions can reach is listed; what does not compile is said instead."""
    expected = case["policySetsExpectation"]
    try:
        table = compile_policies(policies(case), Settings())
    except PolicyError as error:
        check_faults(error.faults, expected)
        return
    got = {key: inspection.to_json() for key, inspection in inspect_table(table).items()}
    assert results(got) == results(expected["policySets"])
