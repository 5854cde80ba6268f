"""Decisions, by the tables in ``tests/cases/engine``, and what holds for all of them."""

from __future__ import annotations

from dataclasses import replace

import pytest

from engine import CheckInput, Effect, Principal, Resource
from engine.check import check
from engine.targets import REMEMBERED
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
    if "effectivePolicies" in row.check:
        assert list(decision.effective_policies) == row.check["effectivePolicies"]
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


def test_a_check_may_say_how_it_is_evaluated() -> None:
    """The mode of a check comes before that of the settings, and nothing of it is left for the next."""
    row = ROWS["errors_in_conditions-1-safe"]
    expected = {mode: check(Row(row.table, row.check, mode).rule_table(), row.question) for mode in MODES}
    for settings in MODES:
        table = Row(row.table, row.check, settings).rule_table()
        for mode in (*MODES, *reversed(MODES)):
            assert check(table, row.question, evaluation=mode) == expected[mode]  # type: ignore[arg-type]  # one of MODES
        assert check(table, row.question) == expected[settings]


def test_a_table_with_other_settings() -> None:
    """The same policies answer by other settings, and the table they come from is as it was."""
    row = ROWS["scopes-1-lenient"]
    table = row.rule_table()
    asked = CheckInput(Principal("x", ("user",)), Resource("doc", "1", scope="nowhere"), ("view",))
    before = check(table, asked)
    lenient = table.with_settings(replace(table.settings, lenient_scope_search=True, globals={"a": 1}))
    assert check(lenient, asked) == check(row_with(row, lenientScopeSearch=True).rule_table(), asked)
    assert check(lenient, asked) != before
    assert check(table, asked) == before
    assert (lenient.globals, table.globals) == ({"a": 1}, {})


def row_with(row: Row, **options: object) -> Row:
    return Row({**row.table, **options}, row.check, row.mode)


def test_what_is_compiled_in_cannot_be_set_later() -> None:
    """A table cannot be told afterwards that expressions may read the action."""
    table = ROWS["scopes-1-lenient"].rule_table()
    with pytest.raises(ValueError, match="runtime_action"):
        table.with_settings(replace(table.settings, runtime_action=True))
