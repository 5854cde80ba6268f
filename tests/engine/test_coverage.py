"""Coverage: which marks questions leave on policies, and how gaps are worded."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from engine import CheckInput, Principal, Resource, compile_policies, load_policy
from engine.coverage import Coverage, Item, Recorder, Total, measure

if TYPE_CHECKING:
    from collections.abc import Sequence

POLICIES = {
    "a.yaml": """\
apiVersion: api.cerbos.dev/v1
resourcePolicy:
  resource: document
  version: default
  importDerivedRoles: [roles]
  variables:
    local:
      base: R.attr.size
      large: V.base > 10.0
      idle: "1"
  rules:
    - name: own
      actions: [read, print]
      effect: EFFECT_ALLOW
      derivedRoles: [owner]
    - name: small
      actions: [read]
      effect: EFFECT_ALLOW
      roles: [user]
      condition:
        match:
          all:
            of:
              - expr: '!V.large'
              - none: {of: [{expr: R.attr.secret}]}
      output:
        when:
          ruleActivated: '"small"'
          conditionNotMet: R.attr.why
    - actions: [purge]
      effect: EFFECT_DENY
      roles: [user]
""",
    "clerk.yaml": """\
apiVersion: api.cerbos.dev/v1
rolePolicy:
  role: clerk
  version: default
  parentRoles: [user]
  rules:
    - {resource: document, allowActions: [read], condition: {match: {expr: R.attr.size < 5.0}}}
""",
    "off.yaml": """\
apiVersion: api.cerbos.dev/v1
disabled: true
resourcePolicy: {resource: off, version: default, rules: [{actions: [a], effect: EFFECT_ALLOW, roles: [b]}]}
""",
    "roles.yaml": """\
apiVersion: api.cerbos.dev/v1
derivedRoles:
  name: roles
  definitions:
    - {name: owner, parentRoles: [user], condition: {match: {expr: R.attr.owner == P.id}}}
    - {name: nobody, parentRoles: [user], condition: {match: {expr: "false"}}}
""",
}


def ask(role: str, action: str, **attr: Any) -> CheckInput:
    return CheckInput(Principal("ann", (role,), {}), Resource("document", "1", attr), (action,))


def covered(*questions: CheckInput) -> Coverage:
    loaded = [load_policy(text, file) for file, text in POLICIES.items()]
    policies = [policy for policy in loaded if policy is not None]
    table = compile_policies(policies)
    recorder = Recorder()
    observed = recorder.table(table)
    for question in questions:
        recorder.ask(observed, question)
    return measure(policies, table, recorder)


def items(coverage: Coverage, kind: str = "") -> dict[str, Item]:
    return {
        f"{item.kind} {item.name}": item
        for policy in coverage.policies
        for item in policy.items
        if item.kind.startswith(kind)
    }


def marks(item: Item) -> dict[str, int]:
    return dict(item.marks)


def test_without_questions_nothing_is_covered() -> None:
    """Every mark is missing, each with words for it; what nothing refers to does not count."""
    coverage = covered()
    assert coverage.questions == 0
    assert coverage.total.covered == 0
    assert [policy.file for policy in coverage.policies] == ["a.yaml", "clerk.yaml", "roles.yaml"]
    assert {name: item.gap for name, item in items(coverage).items() if not item.implied} == {
        "variable base": "no test evaluates an expression that refers to it",
        "variable large": "no test evaluates an expression that refers to it",
        "variable idle": "",
        "rule own": "no test asks for it",
        "rule small": "no test asks for it",
        "rule rule-003": "no test asks for it",
        "rule entry 1": "no test asks for it",
        "refusal what is not listed": "no test asks for anything that the policy does not list",
        "derived role owner": "no test asks by a principal that could take it on",
        "derived role nobody": "",
    }


def test_what_no_rule_refers_to_is_said_and_not_counted() -> None:
    """An unused variable or derived role has no marks."""
    found = items(covered())
    for name in ("variable idle", "derived role nobody"):
        assert not found[name].is_used
        assert found[name].notes == ("no rule refers to it",)
    assert not found["condition false"].is_used


def test_a_rule_is_activated() -> None:
    """A question that a rule allows leaves a mark on the rule, its condition, its output and variables."""
    found = items(covered(ask("user", "read", size=1.0, secret=False, owner="bob")))
    assert marks(found["rule small"]) == {"activated": 1}
    assert marks(found["condition all"]) == {"true": 1, "false": 0}
    assert marks(found["condition !V.large"]) == {"true": 1, "false": 0}
    assert marks(found["condition none"]) == {"true": 1, "false": 0}
    assert marks(found["condition R.attr.secret"]) == {"true": 0, "false": 1}
    assert marks(found['output "small"']) == {"emitted": 1}
    assert marks(found["variable base"]) == {"read": 1}
    assert found["condition all"].gap == "never false"
    assert found["output R.attr.why"].gap == "no test in which the condition is not met"
    assert found["rule own"].gap == "looked at once, but no principal held its derived role"
    assert found["derived role owner"].gap == "looked at once, but its condition never held"


def test_what_is_not_evaluated_gets_no_mark() -> None:
    """Where the first part settles a condition, the others have not been tested."""
    found = items(covered(ask("user", "read", size=11.0)))
    assert marks(found["condition none"]) == {"true": 0, "false": 0}
    assert found["condition R.attr.secret"].gap == "never evaluated"
    assert not found["condition R.attr.secret"].implied
    assert found["rule small"].gap == "looked at once, but its condition never held"


def test_failures_are_no_outcome() -> None:
    """An expression that only failed is not covered, and says so; so is an output."""
    found = items(covered(ask("user", "read"), ask("user", "read", size=1.0)))
    assert found["condition R.attr.owner == P.id"].gap == "evaluated 2 times, but neither true nor false"
    assert found["condition R.attr.secret"].notes == ("it failed once",)
    assert found["output R.attr.why"].gap == "failed each time"
    assert found["variable base"].notes == ("it failed once",)


def test_both_outcomes_cover_a_condition() -> None:
    """With both outcomes nothing is missing."""
    found = items(
        covered(
            ask("user", "read", size=1.0, secret=False, owner="ann"),
            ask("user", "read", size=1.0, secret=True, owner="bob", why="secret"),
            ask("user", "read", size=11.0, owner="bob", why="large"),
        )
    )
    gaps = {name for name, item in items_of(found, "a.yaml").items() if item.gap}
    assert gaps == {"rule rule-003"}
    assert found["derived role owner"].covered
    assert found["rule own"].notes == ("no test asks for `print`",)


def items_of(found: dict[str, Item], file: str) -> dict[str, Item]:
    roots = {"a.yaml": "resourcePolicy", "clerk.yaml": "rolePolicy"}
    return {name: item for name, item in found.items() if item.path[0] == roots[file]}


@pytest.mark.parametrize(
    ("questions", "rule", "condition", "refusal"),
    [
        ([ask("clerk", "read", size=1.0)], 1, {"true": 1, "false": 0}, 0),
        ([ask("clerk", "read", size=7.0)], 0, {"true": 0, "false": 1}, 0),
        ([ask("clerk", "purge", size=1.0)], 0, {"true": 0, "false": 0}, 1),
    ],
)
def test_role_policies(
    questions: Sequence[CheckInput], rule: int, condition: dict[str, int], refusal: int
) -> None:
    """An entry is activated when it leaves the action; what is not listed is an item of its own."""
    found = items(covered(*questions))
    assert marks(found["rule entry 1"]) == {"activated": rule}
    assert marks(found["condition R.attr.size < 5.0"]) == condition
    assert marks(found["refusal what is not listed"]) == {"activated": refusal}


def test_items_know_their_place() -> None:
    """A rule reaches from its first to its last line, an expression is where it stands."""
    found = items(covered())
    assert (found["rule small"].line, found["rule small"].last_line) == (16, 29)
    assert (found["condition !V.large"].line, found["condition !V.large"].column) == (24, 23)
    assert found["condition R.attr.secret"].rule == "small"
    assert found["rule rule-003"].last_line == 32


def test_totals() -> None:
    """Marks are counted by policy and kind; only what is complete is 100 %."""
    policy = covered(ask("user", "purge", owner="ann")).policies[0]
    assert policy.totals()["rule"] == Total(1, 3)
    assert str(Total(999_999, 1_000_000)) == "999999/1000000 99.9 %"
    assert Total(0, 0).percent == 100.0
