"""Decisions, by the tables in ``tests/cases/engine``, and what holds for all of them."""

from __future__ import annotations

import pytest

from engine import CheckInput, Effect, Principal, Resource
from engine.check import check
from engine.rules import REMEMBERED
from tests.engine.tables import MODES, Row, by_action, has_modes, outputs, rows

ROWS = dict(rows())


@pytest.mark.parametrize("name", ROWS)
def test_decision_table(name: str) -> None:
    """Each check of each table is answered as it says."""
    row = ROWS[name]
    decision = check(row.rule_table(), row.question, now=row.now)
    assert {action: found.effect for action, found in decision.actions.items()} == row.effects
    for key, attribute in (("policies", "policy"), ("scopes", "scope"), ("rules", "rule")):
        expected = row.check.get(key, {})
        assert by_action(decision, attribute, expected) == expected
    if "outputs" in row.check:
        assert outputs(decision) == row.check["outputs"]
    if "derivedRoles" in row.check:
        assert list(decision.effective_derived_roles) == row.check["derivedRoles"]
    if "errors" in row.check:
        found = [f"{error.expression}: {error.message}" for error in decision.evaluation_errors]
        assert found == row.check["errors"]


def nothing_fails(row: Row) -> bool:
    return (
        not has_modes(row.check) and not check(row.rule_table(), row.question, now=row.now).evaluation_errors
    )


@pytest.mark.parametrize("name", [name for name, row in ROWS.items() if nothing_fails(row)])
def test_modes_agree_where_nothing_fails(name: str) -> None:
    """Where no expression fails, the evaluation mode makes no difference."""
    row = ROWS[name]
    lenient = check(row.rule_table(), row.question, now=row.now)
    for mode in MODES[1:]:
        other = Row(row.table, row.check, mode)
        assert check(other.rule_table(), row.question, now=row.now) == lenient


@pytest.mark.parametrize("name", ROWS)
def test_safe_never_allows_what_lenient_denies(name: str) -> None:
    """Safe and strict evaluation only ever take something away."""
    row = ROWS[name]
    lenient = check(Row(row.table, row.check, "lenient").rule_table(), row.question, now=row.now)
    for mode in MODES[1:]:
        other = check(Row(row.table, row.check, mode).rule_table(), row.question, now=row.now)
        for action, found in other.actions.items():
            if found.effect is Effect.ALLOW:
                assert lenient.actions[action].effect is Effect.ALLOW


def test_actions_are_decided_independently() -> None:
    """Asked together or one by one, actions get the same answer."""
    for row in ROWS.values():
        table, question = row.rule_table(), row.question
        together = check(table, question, now=row.now)
        for action in question.actions:
            alone = check(table, question._replace(actions=(action,)), now=row.now)
            assert alone.actions[action] == together.actions[action]


def test_memory_stays_bounded_under_hostile_requests() -> None:
    """Ever new actions, roles and kinds do not make a table grow without limit, and answers stay right."""
    row = ROWS["action_globs-1-lenient"]
    table = row.rule_table()
    for number in range(REMEMBERED + 500):
        asked = CheckInput(Principal("x", (f"role{number}",)), Resource("doc", "1"), (f"view:{number}",))
        assert check(table, asked).actions[f"view:{number}"].effect is Effect.DENY
    target = table.target("doc", "default", "")
    assert target is not None
    assert target.remembered <= REMEMBERED
    assert check(table, row.question).actions["view:public"].effect is Effect.ALLOW


def test_errors_name_their_place() -> None:
    """An evaluation error says where the expression stands, and underlines what failed."""
    row = ROWS["errors_in_conditions-1-safe"]
    error = check(row.rule_table(), row.question).evaluation_errors[0]
    file, line, column = error.place.split(":")
    assert file == "0.yaml"
    assert int(line) > 1
    assert int(column) > 1
    assert error.excerpt.splitlines()[1].strip("^ ") == ""
    assert "^" in error.excerpt
