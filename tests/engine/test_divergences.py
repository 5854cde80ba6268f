"""Where we differ from Cerbos on purpose: each divergence is listed, has its reason, and is shown by a table.

``tests/differential/test_divergences.py`` asks the real Cerbos the same.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import yaml

from engine import PolicyError
from engine.check import check
from tests.engine.tables import MODES, Row, by_action, outputs

if TYPE_CHECKING:
    from collections.abc import Iterator

TESTS = Path(__file__).resolve().parents[1]
LISTED: dict[str, Any] = {
    name: divergence
    for name, divergence in yaml.safe_load((TESTS / "conformance/divergences.yaml").read_text()).items()
    if "modes" in divergence  # those of the API's calls have tests of their own
}
TABLES: dict[str, Any] = {
    path.stem: yaml.safe_load(path.read_text())
    for path in sorted((TESTS / "cases/divergences").glob("*.yaml"))
}


def test_every_divergence_is_listed_and_shown() -> None:
    """Each divergence says what Cerbos does, what we do and why, and has a table; and the other way round."""
    assert LISTED.keys() == TABLES.keys()
    for divergence in LISTED.values():
        assert divergence.keys() == {"cerbos", "ours", "why", "modes"}
        assert set(divergence["modes"]) <= set(MODES)


def checks() -> Iterator[Any]:
    for name, table in TABLES.items():
        for index, asked in enumerate(table["checks"]):
            for mode in MODES:
                yield pytest.param(Row(table, asked, mode), id=f"{name}-{index + 1}-{mode}")


@pytest.mark.parametrize("row", list(checks()))
def test_our_side(row: Row) -> None:
    """We answer as the table says, in every mode of evaluation."""
    decision = check(row.rule_table(), row.question)
    assert {action: found.effect for action, found in decision.actions.items()} == row.effects
    expected = row.check.get("policies", {})
    assert by_action(decision, "policy", expected) == expected
    found = {
        "outputs": outputs(decision),
        "derivedRoles": list(decision.effective_derived_roles),
        "errors": [f"{error.expression}: {error.message}" for error in decision.evaluation_errors],
    }
    assert {key: value for key, value in found.items() if key in row.check} == {
        key: row.check[key] for key in found if key in row.check
    }


@pytest.mark.parametrize("name", [name for name, table in TABLES.items() if "refused" in table])
def test_what_we_refuse(name: str) -> None:
    """Policies that Cerbos accepts by mistake are refused, with the reason."""
    with pytest.raises(PolicyError, match=TABLES[name]["refused"]):
        Row(TABLES[name], {}, "lenient").rule_table()


@pytest.mark.parametrize("name", TABLES)
def test_the_table_shows_a_difference(name: str) -> None:
    """Some check, or whether the policies are accepted at all, is another for Cerbos."""
    table = TABLES[name]
    refused = "refused" in table
    differs = "cerbos" in table and table["cerbos"]["starts"] is refused
    for asked in table["checks"]:
        theirs = asked.get("cerbos", {})
        differs = differs or any(asked.get(key) != value for key, value in theirs.items())
    assert differs
