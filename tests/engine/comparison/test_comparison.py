"""Comparisons: what differs between two rule tables is found, told once, and shown by a small question."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest
import yaml

from engine.comparison import LogError, compare, from_decision_log, from_suites, generated
from engine.engine import Loader
from engine.model import Effect
from engine.rules import Settings
from engine.storage import Snapshot

if TYPE_CHECKING:
    from engine.rules import RuleTable

ROLES = """
apiVersion: api.cerbos.dev/v1
derivedRoles:
  name: roles
  definitions: [{name: owner, parentRoles: [user], condition: {match: {expr: R.attr.owner == P.id}}}]
"""
POLICY = """
apiVersion: api.cerbos.dev/v1
resourcePolicy:
  resource: expense
  version: default
  importDerivedRoles: [roles]
  rules:
    - {name: own, actions: [read], effect: EFFECT_ALLOW, derivedRoles: [owner]}
    - name: small
      actions: [approve]
      effect: EFFECT_ALLOW
      roles: [manager]
      condition: {match: {all: {of: [{expr: R.attr.amount < 100.0}, {expr: R.attr.region == P.attr.region}]}}}
      output: {when: {ruleActivated: '"small"'}}
    - name: closed
      actions: ["*"]
      effect: EFFECT_DENY
      roles: ["*"]
      condition: {match: {expr: R.attr.closed}}
"""
SUITE = """
name: expenses
principals: {ann: {id: ann, roles: [manager], attr: {region: EMEA}}}
resources: {small: {id: "1", kind: expense, attr: {amount: 150, region: EMEA, closed: false}}}
tests:
  - name: approving
    input: {principals: [ann], resources: [small], actions: [approve]}
    expected: [{principal: ann, resource: small, actions: {approve: EFFECT_DENY}}]
"""


def table(policy: str = POLICY, **more: str) -> RuleTable:
    texts = {"roles.yaml": ROLES, "expense.yaml": policy, **more}
    return Loader(Settings()).table(Snapshot({path: text.encode() for path, text in texts.items()}))


def changes(policy: str, old: str = POLICY) -> list[str]:
    before, after = table(old), table(policy)
    comparison = compare(before, after, generated(before, after, limit=1000))
    assert comparison.asked == {"generated": 1000}
    return [str(change) for change in comparison.changes]


def test_the_same_policies_decide_the_same() -> None:
    """Policies that are only written differently change nothing."""
    reordered = yaml.safe_load(POLICY)
    rules = reordered["resourcePolicy"]["rules"]
    rules[0], rules[1] = rules[1], rules[0]
    assert changes(yaml.safe_dump(reordered)) == []


OWN = "resource.expense.vdefault"
GRANTED = f"expense: approve: deny ({OWN}) -> allow ({OWN}, small)"


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        ("roles: [manager]", "roles: [manager, clerk]", [GRANTED]),
        ("< 100.0", "< 101.0", [GRANTED]),
        ("< 100.0", "<= 100.0", [GRANTED]),
        ("R.attr.region == P", "R.attr.region != P", [
            GRANTED,
            f"expense: approve: allow ({OWN}, small) -> deny ({OWN})",
        ]),
        ("derivedRoles: [owner]", "roles: [user]", [f"expense: read: deny ({OWN}) -> allow ({OWN}, own)"]),
        ("expr: R.attr.closed", "expr: R.attr.closed && false", [
            f"expense: approve: deny ({OWN}, closed) -> allow ({OWN}, small)",
            f"expense: read: deny ({OWN}, closed) -> allow ({OWN}, own)",
        ]),
        ("'\"small\"'", "'\"little\"'", [f"expense: approve: allow, but {OWN}#small says something else"]),
    ],
)  # fmt: skip
def test_a_changed_rule_is_found(old: str, new: str, expected: list[str]) -> None:
    """A role more, a bound moved by one, a condition turned round: made-up questions show it."""
    found = changes(POLICY.replace(old, new))
    assert [change for change in expected if change not in found] == []


def test_grants_come_first() -> None:
    """What is allowed now is listed before what is denied now."""
    before, after = table(), table(POLICY.replace("R.attr.region == P", "R.attr.region != P"))
    found = compare(before, after, generated(before, after, limit=1000)).changes
    assert [change.allows_more for change in found] == sorted(
        (change.allows_more for change in found), reverse=True
    )


def test_an_example_is_small() -> None:
    """A question that was made up keeps only what the difference needs."""
    before, after = table(), table(POLICY.replace("derivedRoles: [owner]", "roles: [user]"))
    (change, *_) = compare(before, after, generated(before, after, limit=1000)).changes
    question = change.example.input
    assert (question.principal.roles, question.actions) == (("user",), ("read",))
    assert (question.principal.attr, question.resource.attr) == ({}, {})


def test_the_same_questions_every_time() -> None:
    """What is made up depends on the policies and the seed alone."""
    one, same, other = (
        [case.input for case in generated(table(), table(), limit=50, seed=seed)] for seed in (0, 0, 1)
    )
    assert one == same != other


def test_nothing_to_ask_about() -> None:
    """Without policies there are no questions."""
    empty = Loader(Settings()).table(Snapshot({}))
    assert compare(empty, empty, generated(empty, empty, limit=10)).asked == {}


def test_a_kind_that_is_gone() -> None:
    """A policy that is taken away loses what it allowed; a new one grants."""
    before, after = table(), Loader(Settings()).table(Snapshot({}))
    gone = compare(before, after, generated(before, after, limit=300)).changes
    assert {(change.action, change.allows_more) for change in gone} == {("approve", False), ("read", False)}


def test_principal_and_role_policies_are_asked_about() -> None:
    """Policies about a principal or a role count as well."""
    principal = """
apiVersion: api.cerbos.dev/v1
principalPolicy:
  principal: root
  version: default
  rules: [{resource: "exp*", actions: [{action: "*", effect: EFFECT_ALLOW}]}]
"""
    before, after = table(), table(**{"root.yaml": principal})
    found = compare(before, after, generated(before, after, limit=300)).changes
    assert {change.new.policy for change in found} == {"principal.root.vdefault"}
    assert all(change.example.input.principal.id == "root" for change in found)


def test_what_suites_ask() -> None:
    """The questions of test suites are asked too, under the settings that the tests want."""
    before, after = table(), table(POLICY.replace("< 100.0", "< 200.0"))
    comparison = compare(before, after, from_suites(after, {"expense_test.yaml": SUITE.encode()}))
    (change,) = comparison.changes
    assert (comparison.asked, change.counts) == ({"test": 1}, {"test": 1})
    assert change.example.name == "expense_test.yaml: approving, ann, small"
    assert (change.old.effect, change.new.effect) == (Effect.DENY, Effect.ALLOW)


# --- decision logs ----------------------------------------------------------------------------------------


def entry(**more: Any) -> dict[str, Any]:
    question = {
        "principal": {"id": "ann", "roles": ["manager"], "attr": {"region": "EMEA"}},
        "resource": {"kind": "expense", "attr": {"amount": 150, "region": "EMEA", "closed": False}},
        "actions": ["approve"],
    }
    return {"timestamp": "2026-11-21T22:36:07.191764367Z", "checkResources": {"inputs": [question | more]}}


def test_what_was_asked_before() -> None:
    """Questions of a decision log are asked again, at the time at which they were asked."""
    lines = [json.dumps(entry()).encode(), b"\n", b'{"log.kind": "access"}', b'{"planResources": {}}']
    (case,) = from_decision_log(lines, "audit.log")
    assert (case.origin, case.name, str(case.now)) == ("log", "audit.log:1", "2026-11-21T22:36:07.191764Z")
    before, after = table(), table(POLICY.replace("< 100.0", "< 200.0"))
    (change,) = compare(before, after, [case]).changes
    assert change.counts == {"log": 1}


@pytest.mark.parametrize(
    "line",
    [
        b"{",
        b"[]",
        b'{"checkResources": {"inputs": [{}]}}',
        b'{"checkResources": {"inputs": [1]}}',
        b'{"timestamp": "yesterday"}',
        b"[" * 100_000,
        b"\xff",
        json.dumps(entry(actions=[1])).encode(),
        json.dumps(entry(principal={"id": 1, "roles": []})).encode(),
    ],
)
def test_a_line_that_is_no_entry(line: bytes) -> None:
    """A log that cannot be read is refused with the line, never read half."""
    with pytest.raises(LogError, match=r"audit.log:2:1: not an entry of a decision log"):
        list(from_decision_log([b"{}", line], "audit.log"))
