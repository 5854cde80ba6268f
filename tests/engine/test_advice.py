"""Warnings: what looks like a mistake in policies that can be used."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from engine import Settings, Snapshot
from engine.engine import Loader

CASES = yaml.safe_load((Path(__file__).parents[1] / "cases/advice.yaml").read_text())
SCHEMA: dict[str, Any] = CASES["schema"]


def warnings(policies: dict[str, Any], *, enforced: bool) -> list[str]:
    files = {
        name: yaml.safe_dump({"apiVersion": "api.cerbos.dev/v1", **policy}).encode()
        for name, policy in policies.items()
    }
    settings = Settings(schema_enforcement="warn" if enforced else "none")
    table = Loader(settings).table(Snapshot(files, {"_schemas/doc.json": json.dumps(SCHEMA).encode()}))
    return [f"{fault.message} ({fault.hint})" if fault.hint else fault.message for fault in table.warnings]


def policy(**changes: Any) -> dict[str, Any]:
    rule = {"actions": ["a"], "effect": "EFFECT_ALLOW", "roles": ["user"], **changes.pop("rule", {})}
    body = {
        "resource": "doc",
        "version": "default",
        "schemas": {"resourceSchema": {"ref": "cerbos:///doc.json"}},
        "rules": [rule, *changes.pop("more", [])],
        **changes,
    }
    return {"doc.yaml": {"resourcePolicy": body}}


@pytest.mark.parametrize("case", [pytest.param(case, id=case["expr"]) for case in CASES["conditions"]])
def test_conditions(case: dict[str, Any]) -> None:
    """What a condition does with attributes that cannot be is told, and nothing else."""
    condition = {"match": {"expr": case["expr"]}}
    assert warnings(policy(rule={"condition": condition}), enforced=True) == case["says"]


@pytest.mark.parametrize("case", [pytest.param(case, id=case["why"]) for case in CASES["policies"]])
def test_policies(case: dict[str, Any]) -> None:
    """Rules that cannot decide and patterns that match nothing are told, without a schema."""
    assert warnings(case["files"], enforced=False) == case["says"]


def test_schemas_that_are_not_enforced_are_not_looked_into() -> None:
    """Without enforcement an attribute that the schema does not have is nobody's business."""
    condition = {"match": {"expr": "R.attr.ownr == P.id"}}
    assert warnings(policy(rule={"condition": condition}), enforced=False) == []
