"""Cross-checks of whole policies: what is compared, what is found, what is told."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from engine import CheckInput, Principal, Resource, RuleTable, compile_policies, load_policy
from engine.check import check
from engine.cross_check import CrossCheck, is_available

if TYPE_CHECKING:
    from collections.abc import Callable

    import pytest

POLICY = """\
apiVersion: api.cerbos.dev/v1
resourcePolicy:
  resource: document
  version: default
  variables: {local: {large: R.attr.size > 10}}
  rules:
    - actions: [read]
      effect: EFFECT_ALLOW
      roles: [user]
      condition: {match: {any: {of: [{expr: V.large}, {expr: "R.attr.owner == P.id"}]}}}
      output: {when: {ruleActivated: '"because " + P.id'}}
    - actions: [read]
      effect: EFFECT_DENY
      roles: [user]
      condition: {match: {expr: "has(P.scope) || hierarchy('a').size() == 2"}}
"""


def table() -> RuleTable:
    policy = load_policy(POLICY, "document.yaml")
    assert policy is not None
    return compile_policies([policy])


def question(**attributes: Any) -> CheckInput:
    return CheckInput(Principal("ann", ("user",), {}), Resource("document", "1", attributes), ("read",))


def test_cel_python_is_there() -> None:
    """The development environment has the extra."""
    assert is_available()


def test_everything_that_is_evaluated_is_compared() -> None:
    """Variables, conditions and outputs of a check are all compared, and agree."""
    second = CrossCheck()
    plain, observed = table(), None
    observed = second.table(plain)
    asked = question(size=5.0, owner="ann")
    assert check(observed, asked).outputs == check(plain, asked).outputs
    assert second.report.compared == 4
    assert second.report.expressions == 4
    assert dict(second.report.not_compared) == {
        "cel-python cannot tell whether a field of a record is set": 1
    }
    assert second.report.ok


def wrongly(function: Callable[[Any], Any]) -> Callable[[Any], Any]:
    return lambda activation: not function(activation)


def test_a_disagreement_is_told_with_its_place_and_inputs(monkeypatch: pytest.MonkeyPatch) -> None:
    """A wrong answer of ours is found, and both answers are told, with what the expression saw."""
    plain = table()
    row = next(row for policy in plain.policies.values() for row in policy.rows)
    clause = next(clause for clause in row.clauses if clause.text == "R.attr.owner == P.id")
    monkeypatch.setattr(clause.expression, "function", wrongly(clause.expression.function))
    second = CrossCheck()
    observed = second.table(plain)
    for _ in range(2):
        check(observed, question(size=5.0, owner="bob"))
    (found,) = second.report.disagreements
    assert (found.place, found.ours, found.theirs) == ("document.yaml:10:62", "true", "false")
    assert found.inputs == {"P.id": '"ann"', "R.attr.owner": '"bob"'}
    assert "cel-python: false" in str(found)
    assert not second.report.ok
    assert second.report.to_json()["disagreements"][0]["expression"] == "R.attr.owner == P.id"


def test_failures_agree_whatever_they_say() -> None:
    """An expression that fails in both is no disagreement, though the words differ."""
    second = CrossCheck()
    check(second.table(table()), question(size="large"))
    assert second.report.ok
    assert second.report.compared == 3
