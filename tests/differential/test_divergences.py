"""The divergences, from the other side: the real Cerbos answers as the tables say that it does."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest
import yaml

from engine import json_value
from tests.differential.oracle import OracleError, cerbos
from tests.differential.sides import Cerbos, Configuration, asking_cerbos
from tests.engine.tables import EFFECTS
from tests.engine.test_divergences import LISTED, TABLES

if TYPE_CHECKING:
    from pathlib import Path


def request(table: dict[str, Any], asked: dict[str, Any]) -> dict[str, Any]:
    resource = {"id": "1", "attr": {}, **asked["resource"]}
    principal = asked.get("principal") or table["principal"]
    return {
        "principal": principal,
        "resources": [{"resource": resource, "actions": list(asked["actions"])}],
    }


def shows(asked: Cerbos, table: dict[str, Any], check: dict[str, Any]) -> None:
    """Ask Cerbos one check, and compare what the table says of its answer."""
    (found,) = asked.answers(request(table, check))
    assert not found.failure
    theirs = check["cerbos"]
    if theirs.get("wavers"):
        return
    effects = {action: effect for action, effect, _, _ in found.actions}
    assert effects == {action: EFFECTS[word].value for action, word in theirs["actions"].items()}
    policies = {action: policy for action, _, policy, _ in found.actions}
    assert {action: policies[action] for action in theirs.get("policies", {})} == theirs.get("policies", {})
    said = [
        {"src": src, "action": action, "value": json.loads(value)}
        for src, action, value, error in found.outputs
        if not error
    ]
    assert said == json_value(theirs.get("outputs", said))
    assert list(found.derived_roles) == theirs.get("derivedRoles", list(found.derived_roles))
    errors = list(found.evaluation_errors)
    assert errors == theirs.get("errors", errors)


@pytest.mark.parametrize("name", TABLES)
def test_their_side(name: str, tmp_path: Path) -> None:
    """Cerbos still does what the list of divergences says; a difference that has gone is taken off it."""
    table = TABLES[name]
    for index, policy in enumerate(table["policies"]):
        (tmp_path / f"{index}.yaml").write_text(yaml.safe_dump(policy))
    configuration = Configuration(name)
    if not table.get("cerbos", {}).get("starts", True):
        with pytest.raises(OracleError), cerbos(tmp_path, configuration.blocks()):
            pytest.fail("Cerbos accepts the policies")
        return
    with asking_cerbos(tmp_path, configuration) as asked:
        for check in table["checks"]:
            shows(asked, table, check)
    assert LISTED[name]
