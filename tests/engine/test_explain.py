"""Explanations: the same answers as a check, and the way to them."""

from __future__ import annotations

import json
from random import Random
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine import CheckInput, Effect, Engine, Principal, Resource, Settings
from engine.check import check
from engine.compile import compile_policies
from engine.document import parse
from engine.explain import explain
from engine.load import load_document
from tests.differential.policies import policy_set
from tests.differential.requests import request
from tests.differential.sides import questions
from tests.engine.tables import MODES, rows

if TYPE_CHECKING:
    from engine.explain.explanation import Explanation, RuleExplanation, Walk
    from engine.rules import RuleTable

ROWS = dict(rows())


def table_of(texts: dict[str, str], **options: Any) -> RuleTable:
    policies = [load_document(parse(text, name)) for name, text in texts.items()]
    return compile_policies(policies, Settings(**options))


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 2**32), st.sampled_from(MODES), st.booleans())
def test_an_explanation_gives_the_answer_of_the_check(seed: int, mode: Any, lenient: bool) -> None:
    """Whatever the policies and the question, explaining decides the same, and every part fits the answer."""
    random = Random(seed)  # noqa: S311 - reproducible, not secret
    texts = {
        name: json.dumps(policy, ensure_ascii=False)
        for name, policy in policy_set(random).items()
        if "/_" not in name
    }
    table = table_of(texts, evaluation=mode, lenient_scope_search=lenient, globals={"env": "test"})
    for question in questions(request(random, 4)):
        explanation = explain(table, question)
        assert explanation.decision == check(table, question)
        consistent(explanation)


def consistent(explanation: Explanation) -> None:
    """Check that the parts of an explanation lead to its decision."""
    assert [action.action for action in explanation.actions] == list(explanation.decision.actions)
    outputs = [rule.output for rule in explanation.rules if rule.output is not None]
    assert tuple(outputs) == explanation.decision.outputs
    for action in explanation.actions:
        assert action.decision == explanation.decision.actions[action.action]
        decided = [walk.decision for walk in action.walks if walk.decision is not None]
        allowed = [decision for decision in decided if decision.effect is Effect.ALLOW]
        assert action.decision == (allowed or decided or [action.decision])[0]
        for walk in action.walks:
            leads_to_its_decision(walk)
    for rule in explanation.rules:
        fits_its_condition(rule)
    json.dumps(explanation.to_json(), allow_nan=False)
    assert all(line.isprintable() for line in explanation.to_text().split("\n"))


def leads_to_its_decision(walk: Walk) -> None:
    last = walk.scopes[-1]
    effects = [
        Effect.DENY if rule.outcome == "denied by an error" else rule.row.effect
        for rule in last.rules
        if rule.outcome in {"activated", "denied by an error"}
    ]
    if walk.decision is not None:
        assert walk.decision.scope == last.scope
        assert (Effect.DENY in effects) == (walk.decision.effect is Effect.DENY)
        assert walk.decision.effect in effects


def fits_its_condition(rule: RuleExplanation) -> None:
    came_to = None if rule.condition is None else rule.condition.outcome
    held = None if rule.derived_role is None else rule.derived_role.outcome
    fits = {
        "activated": came_to in {None, "true"} and held in {None, "active"},
        "condition not met": came_to == "false" and held != "inactive",
        "derived role not held": held == "inactive" and came_to is None,
        "error": "error" in {came_to, held} or held == "failed",
        "denied by an error": came_to == "error" or held == "failed",
        "not reached": came_to is None,
    }
    assert fits[rule.outcome], rule


@pytest.mark.parametrize("name", ROWS)
def test_decision_tables_are_explained(name: str) -> None:
    """Each check of the decision tables is explained with its own answer."""
    row = ROWS[name]
    table, question = row.rule_table(), row.question
    explanation = explain(table, question, now=row.now)
    assert explanation.decision == check(table, question, now=row.now)
    consistent(explanation)


POLICY = """
apiVersion: api.cerbos.dev/v1
variables: {mine: R.attr.owner == P.id, broken: R.attr.gone + 1}
resourcePolicy:
  resource: doc
  version: default
  importDerivedRoles: [roles]
  rules:
    - name: closed
      actions: [edit]
      effect: EFFECT_DENY
      roles: ["*"]
      condition:
        match:
          any: {of: [{expr: R.attr.status == "CLOSED"}, {all: {of: [{expr: R.attr.locked}, {expr: V.mine}]}}]}
    - {name: editors, actions: [edit], effect: EFFECT_ALLOW, derivedRoles: [owner], output: {expr: R.id}}
    - {name: admins, actions: [edit], effect: EFFECT_ALLOW, roles: [admin]}
    - {name: readers, actions: [read], effect: EFFECT_ALLOW, roles: [user]}
    - {name: broken, actions: [br], effect: EFFECT_DENY, roles: ["*"], condition: {match: {expr: V.broken}}}
    - {name: after, actions: [br], effect: EFFECT_ALLOW, roles: [user]}
"""
ROLES = """
apiVersion: api.cerbos.dev/v1
derivedRoles:
  name: roles
  definitions:
    - {name: owner, parentRoles: [user], condition: {match: {expr: R.attr.owner == P.id}}}
"""
ANN = Principal("ann", ("user",))


def explained(
    action: str, attr: dict[str, Any], *, mode: Any = "lenient", principal: Principal = ANN
) -> Explanation:
    table = table_of({"doc.yaml": POLICY, "roles.yaml": ROLES}, evaluation=mode)
    return explain(table, CheckInput(principal, Resource("doc", "7", attr), (action,)))


def rules_of(explanation: Explanation) -> dict[str, RuleExplanation]:
    return {rule.row.name: rule for rule in explanation.rules}


def test_a_condition_shows_what_it_saw() -> None:
    """Each expression has its value and what it read; what did not matter any more was not evaluated."""
    explanation = explained("edit", {"owner": "ann", "status": "CLOSED", "locked": True})
    condition = rules_of(explanation)["closed"].condition
    assert condition is not None
    status, locked, mine = condition.leaves
    assert [leaf.outcome for leaf in (condition, status, locked, mine)] == [
        "true", "true", "not evaluated", "not evaluated",
    ]  # fmt: skip
    assert [(seen.name, seen.value) for seen in status.references] == [("R.attr.status", "CLOSED")]
    assert status.clause is not None
    assert status.clause.place == "doc.yaml:15:29"
    assert rules_of(explanation)["editors"].outcome == "not reached"
    assert "denied for the role `user`" in explanation.actions[0].reason


def test_a_rule_shows_its_derived_role_and_its_output() -> None:
    """A rule that holds through a derived role says so; its output stands with it."""
    rule = rules_of(explained("edit", {"owner": "ann", "status": "", "locked": False}))["editors"]
    assert (rule.outcome, rule.output and rule.output.value) == ("activated", "7")
    assert rule.derived_role is not None
    assert rule.derived_role.outcome == "active"
    rule = rules_of(explained("edit", {"owner": "bob", "status": "", "locked": False}))["editors"]
    assert (rule.outcome, rule.condition) == ("derived role not held", None)


def test_what_does_not_concern_the_question_says_why() -> None:
    """Every other rule of the policy is listed, with what keeps it from being considered."""
    others = explained("edit", {}).actions[0].walks[0].scopes[0].others
    assert {other.row.name: other.reason for other in others} == {
        "admins": "role does not match",
        "readers": "action does not match",
        "broken": "action does not match",
        "after": "action does not match",
    }


@pytest.mark.parametrize(
    ("mode", "broken", "after", "effect"),
    [
        ("lenient", "condition not met", "activated", Effect.ALLOW),
        ("strict", "denied by an error", "not reached", Effect.DENY),
        ("safe", "denied by an error", "not reached", Effect.DENY),
    ],
)
def test_errors_are_explained(mode: Any, broken: str, after: str, effect: Effect) -> None:
    """What an error does to a rule is told as the mode of evaluation has it, with the error itself."""
    explanation = explained("br", {}, mode=mode)
    rules = rules_of(explanation)
    assert (rules["broken"].outcome, rules["after"].outcome) == (broken, after)
    assert explanation.decision.actions["br"].effect is effect
    assert rules["broken"].condition is not None
    assert rules["broken"].condition.error == "undefined field 'broken'"
    assert rules["broken"].condition.references[0].error == "undefined field 'broken'"


def test_a_value_that_is_no_boolean_is_shown() -> None:
    """A condition whose value is no boolean is false, and the value is shown."""
    policy = POLICY.replace("{expr: V.broken}", "{expr: R.attr.text}").replace("R.attr.gone + 1", "1")
    table = table_of({"doc.yaml": policy, "roles.yaml": ROLES})
    asked = CheckInput(ANN, Resource("doc", "7", {"text": "x"}), ("br",))
    condition = rules_of(explain(table, asked))["broken"].condition
    assert condition is not None
    assert (condition.outcome, condition.value) == ("false", "x")
    assert 'false (not a boolean: "x")' in explain(table, asked).to_text()
    safe = rules_of(explain(table, asked, evaluation="safe"))["broken"]
    assert (safe.outcome, safe.condition and safe.condition.error) == (
        "denied by an error",
        "the condition is not a boolean",
    )


SCOPED = """
apiVersion: api.cerbos.dev/v1
resourcePolicy:
  resource: doc
  version: default
  scope: acme
  scopePermissions: SCOPE_PERMISSIONS_REQUIRE_PARENTAL_CONSENT_FOR_ALLOWS
  rules:
    - {name: open, actions: [read], effect: EFFECT_ALLOW, roles: ["*"], condition: {match: {expr: R.attr.a}}}
    - {name: always, actions: [edit], effect: EFFECT_ALLOW, roles: [user]}
"""
INTERN = """
apiVersion: api.cerbos.dev/v1
rolePolicy: {role: intern, scope: acme, parentRoles: [user], rules: [{resource: doc, allowActions: [read]}]}
"""


def scoped(action: str, role: str, attr: dict[str, Any]) -> Explanation:
    table = table_of({"doc.yaml": POLICY, "roles.yaml": ROLES, "acme.yaml": SCOPED, "intern.yaml": INTERN})
    question = CheckInput(Principal("ann", (role,)), Resource("doc", "7", attr, scope="acme"), (action,))
    return explain(table, question)


def test_a_rewritten_rule_says_what_its_author_wrote() -> None:
    """Where consent is needed, a conditional allow became a denial; the explanation shows both."""
    rule = rules_of(scoped("read", "user", {"a": False}))["open"]
    assert rule.rewritten
    assert (rule.row.effect, rule.row.authored_effect) == (Effect.DENY, Effect.ALLOW)
    assert rule.condition is not None
    assert (rule.condition.kind, rule.condition.outcome, rule.outcome) == ("none", "true", "activated")


def test_consent_is_explained() -> None:
    """An allow that needs consent passes the question up, and the scope says so."""
    explanation = scoped("edit", "user", {})
    scopes = explanation.actions[0].walks[0].scopes
    assert [scope.scope for scope in scopes] == ["acme", ""]
    assert scopes[0].end == "the way goes on; what is allowed here needs the consent of a scope above"


def test_a_role_policy_is_explained() -> None:
    """What a role policy does not list is refused by a row without a name, and its parents are shown."""
    explanation = scoped("edit", "intern", {})
    walk = explanation.actions[0].walks[0]
    assert walk.roles == ("intern", "user")
    refusal = walk.scopes[0].rules[0]
    assert (refusal.row.name, refusal.row.from_role_policy, refusal.outcome) == ("", True, "activated")
    assert walk.scopes[0].policies == ("resource.doc.vdefault/acme", "role.intern.vdefault/acme")
    assert "an action that the role policy does not list (DENY): activated" in explanation.to_text()
    assert "entry of the role policy: action does not match" in explanation.to_text()


def test_a_kind_without_policies_is_explained() -> None:
    """Where no policy is concerned there is no way to show, only the reason."""
    explanation = explain(
        table_of({"doc.yaml": POLICY, "roles.yaml": ROLES}), CheckInput(ANN, Resource("x", ""), ("a",))
    )
    assert explanation.actions[0].walks == ()
    assert explanation.actions[0].reason.startswith("no policy is about this kind")


def test_a_terminal_is_not_told_what_to_do() -> None:
    """Values with control characters are shown escaped."""
    principal = Principal("ann", ("user\x1b[2J\n",))
    text = explained("edit", {"owner": "\x9b31m\u202e"}, principal=principal).to_text()
    assert "\x1b" not in text
    assert "user\\x1b[2J\\n" in text
    text = explained("edit", {"status": "\x9b31m\u202e", "locked": False}).to_text()
    assert "\\x9b31m\\u202e" in text


def test_the_text_of_an_explanation() -> None:
    """The text reads from the decision down to what each expression read."""
    text = explained("edit", {"owner": "ann", "status": "OPEN", "locked": False}).to_text()
    assert text.splitlines() == EXPECTED.strip("\n").splitlines()


EXPECTED = """
edit: ALLOW by resource.doc.vdefault, rule `editors`
  allowed for the role `user`, and one role is enough
  policies of the resource, role `user`
    root scope: resource.doc.vdefault
      derived role `owner`: active  [roles.yaml:6:7]
        R.attr.owner == P.id: true
          P.id = "ann"
          R.attr.owner = "ann"
      rule `closed` (DENY): condition not met  [doc.yaml:9:7]
        any of: false
          R.attr.status == "CLOSED": false
            R.attr.status = "OPEN"
          all of: false
            R.attr.locked: false
              R.attr.locked = false
            V.mine: not evaluated
      rule `editors` (ALLOW through derived role `owner`): activated  [doc.yaml:16:7]
        output: "7"
      rule `admins`: role does not match  [doc.yaml:17:7]
      rule `readers`: action does not match  [doc.yaml:18:7]
      rule `broken`: action does not match  [doc.yaml:19:7]
      rule `after`: action does not match  [doc.yaml:20:7]
      the way ends: rule `editors` allows, and no rule of the scope denies
"""


def test_json_has_places_and_leaves_empty_things_out() -> None:
    """The JSON form names places in the policies, and has no empty fields."""
    found = explained("edit", {"owner": "ann", "status": "OPEN", "locked": False}).to_json()
    scope = found["actions"][0]["walks"][0]["scopes"][0]
    assert scope["rules"][1] == {
        "name": "editors",
        "source": "resource.doc.vdefault#editors",
        "place": "doc.yaml:16:7",
        "effect": "EFFECT_ALLOW",
        "authoredEffect": "EFFECT_ALLOW",
        "rolePolicy": False,
        "outcome": "activated",
        "derivedRole": scope["derivedRoles"][0],
        "output": {"src": "resource.doc.vdefault#editors", "action": "edit", "value": "7"},
    }
    assert [error["message"] for error in found["evaluationErrors"]] == ["no such key: gone"]
    assert "validationErrors" not in found


def test_an_engine_explains(tmp_path: Any) -> None:
    """`Engine.explain` takes attributes as `Engine.check` does, and gives the same answer."""
    (tmp_path / "doc.yaml").write_text(POLICY)
    (tmp_path / "roles.yaml").write_text(ROLES)
    question = CheckInput(ANN, Resource("doc", "7", {"owner": "ann", "n": 1}), ("edit", "read"))
    with Engine.from_directory(tmp_path) as engine:
        assert engine.explain(question).decision == engine.check(question)
        assert engine.explain(question, evaluation="strict").decision == engine.check(
            question, evaluation="strict"
        )


REJECTING = """
apiVersion: api.cerbos.dev/v1
resourcePolicy:
  resource: doc
  version: default
  schemas: {resourceSchema: {ref: "cerbos:///doc.json"}}
  rules: [{actions: [read], effect: EFFECT_ALLOW, roles: [user]}]
"""


def test_rejected_attributes_are_explained() -> None:
    """Where attributes do not keep to their schema and that is enforced, no rule was looked at."""
    policies = [load_document(parse(REJECTING, "doc.yaml"))]
    schemas = {"_schemas/doc.json": json.dumps({"type": "object", "required": ["owner"]}).encode()}
    table = compile_policies(policies, Settings(schema_enforcement="reject"), schemas)
    explanation = explain(table, CheckInput(ANN, Resource("doc", "7", {}), ("read",)))
    assert explanation.decision.actions["read"].effect is Effect.DENY
    assert explanation.decision.validation_errors
    assert explanation.actions[0].walks == ()
    assert "do not keep to their schema" in explanation.actions[0].reason


@pytest.mark.parametrize(("version", "notes"), [("", 0), ("default", 0), ("v2", 1)])
def test_a_version_without_effect_is_noted(version: str, notes: int) -> None:
    """Policies of a principal go by the version of the resource; that another one was named is said."""
    policy = """
apiVersion: api.cerbos.dev/v1
principalPolicy:
  principal: ann
  version: default
  rules: [{resource: doc, actions: [{action: edit, effect: EFFECT_DENY}]}]
"""
    table = table_of({"doc.yaml": POLICY, "roles.yaml": ROLES, "ann.yaml": policy})
    asked = CheckInput(ANN._replace(policy_version=version), Resource("doc", "7"), ("edit",))
    explanation = explain(table, asked)
    assert explanation.decision.actions["edit"].rule == "doc_rule-001"
    assert len(explanation.notes) == notes
    assert all(note in explanation.to_text() for note in explanation.notes)
    bob = explain(table, asked._replace(principal=asked.principal._replace(id="bob")))
    assert bob.notes == ()
