"""The divergences, from the other side: the real Cerbos answers as the tables say that it does."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest
import yaml

from engine import json_value
from tests.differential.oracle import OracleError, cerbos
from tests.differential.sides import Answer, Cerbos, Configuration, asking_cerbos
from tests.engine.tables import EFFECTS
from tests.engine.test_divergences import LISTED, TABLES

if TYPE_CHECKING:
    from collections.abc import Iterator
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
    listed = check["cerbos"]
    # Where Cerbos wavers from start to start, each of its answers is listed.
    answers = listed.get("wavers", [listed])
    differences = [tuple(_differences(found, theirs)) for theirs in answers]
    assert () in differences, f"{found} is none of the answers listed: {differences}"


def _differences(found: Answer, theirs: dict[str, Any]) -> Iterator[str]:
    """Name the parts of an answer that are not as *theirs* says; what it does not say may be anything."""
    policies = {action: policy for action, _, policy, _ in found.actions}
    said = [
        {"src": src, "action": action, "value": json.loads(value)}
        for src, action, value, error in found.outputs
        if not error
    ]
    parts = {
        "actions": {action: effect for action, effect, _, _ in found.actions},
        "policies": {action: policies[action] for action in theirs.get("policies", {})},
        "outputs": said,
        "derivedRoles": list(found.derived_roles),
        "errors": list(found.evaluation_errors),
    }
    expected = {**parts, "policies": {}, **json_value(theirs)}
    expected["actions"] = {action: EFFECTS[word].value for action, word in theirs["actions"].items()}
    return (name for name, part in parts.items() if part != expected[name])


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
