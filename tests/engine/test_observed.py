"""Observed tables: they decide as the table they were made from, and tell how."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from hypothesis import given
from hypothesis import strategies as st

from engine import CheckInput, Evaluation, Principal, Resource, RuleTable, compile_policies, load_policy
from engine.cel import EvaluationError
from engine.check import check
from engine.observed import Observer, observed

if TYPE_CHECKING:
    from engine.document import Document, Path
    from engine.rules import Clause, DerivedRole, Outcome, Row

POLICIES = {
    "root.yaml": """\
apiVersion: api.cerbos.dev/v1
resourcePolicy:
  resource: document
  version: default
  importDerivedRoles: [roles]
  variables: {local: {large: R.attr.size > 10, failing: R.attr.nothing}}
  rules:
    - actions: ["*"]
      effect: EFFECT_ALLOW
      derivedRoles: [owner]
      output: {when: {ruleActivated: '"owner"', conditionNotMet: '"not"'}}
    - actions: [read, list]
      effect: EFFECT_ALLOW
      roles: [user, clerk]
      condition: {match: {all: {of: [{expr: V.large}, {none: {of: [{expr: R.attr.secret}]}}]}}}
      output: {when: {ruleActivated: '"size " + string(R.attr.size)', conditionNotMet: P.id}}
    - actions: [read]
      effect: EFFECT_DENY
      roles: [user]
      condition: {match: {expr: '"owner" in runtime.effectiveDerivedRoles && R.attr.secret'}}
""",
    "scoped.yaml": """\
apiVersion: api.cerbos.dev/v1
resourcePolicy:
  resource: document
  version: default
  scope: acme
  scopePermissions: SCOPE_PERMISSIONS_REQUIRE_PARENTAL_CONSENT_FOR_ALLOWS
  rules:
    - {actions: [read], effect: EFFECT_ALLOW, roles: [user], condition: {match: {expr: R.attr.size > 5}}}
    - {actions: [list], effect: EFFECT_ALLOW, roles: ["*"]}
""",
    "roles.yaml": """\
apiVersion: api.cerbos.dev/v1
derivedRoles:
  name: roles
  definitions:
    - {name: owner, parentRoles: [user], condition: {match: {expr: R.attr.owner == P.id}}}
""",
    "clerk.yaml": """\
apiVersion: api.cerbos.dev/v1
rolePolicy:
  role: clerk
  version: default
  rules:
    - resource: document
      allowActions: [read]
      condition: {match: {expr: R.attr.size < 20}}
      output: {when: {ruleActivated: '"clerk"', conditionNotMet: '"too large"'}}
    - {resource: document, allowActions: [list]}
""",
    "ann.yaml": """\
apiVersion: api.cerbos.dev/v1
principalPolicy:
  principal: ann
  version: default
  rules:
    - resource: document
      actions: [{action: purge, effect: EFFECT_ALLOW, condition: {match: {expr: R.attr.secret}}}]
""",
}


def table() -> RuleTable:
    loaded = [load_policy(text, file) for file, text in POLICIES.items()]
    return compile_policies([policy for policy in loaded if policy is not None])


PLAIN = table()
OBSERVED = observed(PLAIN, Observer())

attributes = st.fixed_dictionaries(
    {},
    optional={
        "size": st.sampled_from([1.0, 7.0, 15.0, 30.0, "large"]),
        "owner": st.sampled_from(["ann", "bob"]),
        "secret": st.sampled_from([True, False, "yes"]),
    },
)
questions = st.builds(
    lambda name, roles, attr, scope, actions: CheckInput(
        Principal(name, tuple(roles), {}), Resource("document", "1", attr, scope=scope), tuple(actions)
    ),
    st.sampled_from(["ann", "bob"]),
    st.lists(st.sampled_from(["user", "clerk", "guest"]), min_size=1, max_size=2, unique=True),
    attributes,
    st.sampled_from(["", "acme"]),
    st.lists(st.sampled_from(["read", "list", "purge"]), min_size=1, unique=True),
)


@given(questions, st.sampled_from(["lenient", "strict", "safe"]))
def test_an_observed_table_decides_as_its_original(question: CheckInput, evaluation: Evaluation) -> None:
    """Decisions, outputs and errors do not depend on whether somebody watches."""
    watched = check(OBSERVED, question, evaluation=evaluation)
    assert watched == check(PLAIN, question, evaluation=evaluation)


class Diary(Observer):
    def __init__(self) -> None:
        self.events: list[tuple[Any, ...]] = []

    def looked_at(self, row: Row) -> None:
        self.events.append(("looked at", row.source))

    def decided(self, subject: Row | DerivedRole, outcome: Outcome) -> None:
        self.events.append(("decided", subject.name, outcome))

    def combined(self, document: Document, path: Path, outcome: Outcome) -> None:
        self.events.append(("combined", path[-1], outcome))

    def evaluated(self, clause: Clause, activation: Any, result: Any) -> None:
        del activation
        self.events.append(
            ("evaluated", clause.text, str(result) if isinstance(result, EvaluationError) else result)
        )


def diary_of(roles: tuple[str, ...], action: str, attr: dict[str, Any], scope: str = "") -> list[Any]:
    diary = Diary()
    resource = Resource("document", "1", attr, scope=scope)
    check(observed(PLAIN, diary), CheckInput(Principal("bob", roles, {}), resource, (action,)))
    return diary.events


def test_events_come_in_the_order_of_the_check() -> None:
    """Derived roles first; a rule is looked at before its parts are evaluated and its outcome is known."""
    events = diary_of(("user",), "list", {"size": 15.0, "owner": "ann", "secret": False})
    assert events == [
        ("evaluated", "R.attr.owner == P.id", False),
        ("decided", "owner", False),
        ("evaluated", "R.attr.size > 10", True),
        ("looked at", "resource.document.vdefault#rule-001"),
        ("looked at", "resource.document.vdefault#rule-002"),
        ("evaluated", "V.large", True),
        ("evaluated", "R.attr.secret", False),
        ("combined", 1, True),
        ("combined", "match", True),
        ("decided", "rule-002", True),
        ("evaluated", '"size " + string(R.attr.size)', "size 15"),
    ]


def test_the_condition_of_the_author_is_told() -> None:
    """A rule that the table turned around is reported as it was written."""
    events = diary_of(("user",), "read", {"size": 7.0, "owner": "ann"}, scope="acme")
    assert ("decided", "rule-001", True) in events
    assert ("evaluated", "R.attr.size > 5", True) in events


def test_what_a_role_policy_does_not_list_is_told() -> None:
    """The refusal of a role policy is looked at like a rule."""
    events = diary_of(("clerk",), "purge", {"size": 7.0})
    assert ("looked at", "role.clerk.vdefault#") in events
    assert ("decided", "", True) in events


def test_failures_are_told() -> None:
    """An expression that fails is told with its error, and fails all the same."""
    events = diary_of(("user",), "purge", {})
    assert ("evaluated", "R.attr.owner == P.id", "no such key: owner") in events
