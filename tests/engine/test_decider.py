"""Decision functions: the answers of the walk, where nothing fails; else none."""

from __future__ import annotations

import dis
import itertools
import json
from random import Random
from types import MappingProxyType
from typing import TYPE_CHECKING, Any
from unittest import mock

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine import CheckInput, Effect, Engine, Principal, Resource, Settings, decider
from engine.cel import Timestamp
from engine.check import check
from engine.compile import compile_policies
from engine.document import parse
from engine.load import load_document
from engine.model import NO_AUX_DATA
from engine.observed import Observer, observed
from engine.policy import ResourcePolicy
from tests.differential.policies import policy_set
from tests.differential.requests import request
from tests.differential.sides import questions
from tests.engine.tables import MODES, rows

if TYPE_CHECKING:
    from collections.abc import Iterator

    from engine.decider import Function
    from engine.model import Decision
    from engine.rules import RuleTable

ROWS = dict(rows())


def singles(question: CheckInput) -> list[CheckInput]:
    return [question._replace(actions=(action,)) for action in question.actions]


def answer(function: Function, question: CheckInput) -> Decision | None:
    """Return what a function says, ``None`` where it leaves the question to the walk."""
    principal, resource = question.principal, question.resource
    try:
        return function(principal, resource, principal.attr, resource.attr, question.aux_data, None)
    except Exception:
        return None


def table_of(policies: dict[str, Any], **options: Any) -> RuleTable:
    """Compile policies as YAML has them, by file name."""
    texts = {name: json.dumps(policy, ensure_ascii=False) for name, policy in policies.items()}
    loaded = [load_document(parse(text, name)) for name, text in texts.items()]
    return compile_policies(loaded, Settings(**options))


def generated(seed: int, mode: Any, lenient: bool) -> tuple[RuleTable, list[CheckInput]]:
    random = Random(seed)  # noqa: S311 - reproducible, not secret
    policies = {name: policy for name, policy in policy_set(random).items() if "/_" not in name}
    settled = {"limit": 10.0, "place": "test"}
    table = table_of(policies, evaluation=mode, lenient_scope_search=lenient, globals=settled)
    return table, [aimed(question, table, random) for question in questions(request(random, 20))]


def aimed(question: CheckInput, table: RuleTable, random: Random) -> CheckInput:
    """Let a question be about a resource that a policy is about, asked in roles that its rules know."""
    bodies = [policy.policy.body for policy in table.policies.values()]
    about = [body for body in bodies if isinstance(body, ResourcePolicy)]
    if not about or random.random() < 0.2:
        return question
    body = random.choice(about)
    resource = question.resource._replace(kind=body.resource, policy_version=body.version, scope=body.scope)
    known = {role for rule in body.rules for role in rule.roles if not {"*", "?"} & set(role)}
    roles = random.sample(sorted({*known, "user", "employee"}), 2)
    return question._replace(resource=resource, principal=question.principal._replace(roles=tuple(roles)))


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 2**32), st.sampled_from(MODES), st.booleans())
def test_a_function_gives_the_answer_of_the_walk(seed: int, mode: Any, lenient: bool) -> None:
    """Whatever the policies and the question, an engine that has functions says what the walk says."""
    table, asked = generated(seed, mode, lenient)
    engine = Engine(table)
    with mock.patch.object(decider, "USES", 1):
        for question in asked:
            if question.principal.id not in table.principal_ids:
                for single in singles(question):
                    decider.decision_function(table, single)  # an engine would only log that it failed
            expected = check(table, question)
            assert [engine.check(question) for _ in range(len(question.actions) + 1)][-1] == expected
        assert engine.check_many(asked) == [check(table, question) for question in asked]


def test_most_questions_have_a_function() -> None:
    """Nearly all generated questions that the walk answers without a failure are answered by a function."""
    answered = clean = 0
    for seed in range(8):
        table, asked = generated(seed, "lenient", True)
        for question in itertools.chain.from_iterable(map(singles, asked)):
            if question.principal.id in table.principal_ids or check(table, question).evaluation_errors:
                continue
            clean += 1
            function = decider.decision_function(table, question)
            answered += function is not None and answer(function, question) is not None
    assert answered > 0.8 * clean


@pytest.mark.parametrize("name", ROWS)
def test_decision_tables_are_answered_by_functions(name: str) -> None:
    """Each check of the decision tables has the same answer from an engine that has functions."""
    row = ROWS[name]
    table, engine = row.rule_table(), Engine(row.rule_table())
    with mock.patch.object(decider, "USES", 1):
        for question in (*singles(row.question), row.question):
            expected = check(table, question, now=row.now)
            assert [engine.check(question, now=row.now) for _ in range(3)] == [expected] * 3


# -- single cases ------------------------------------------------------------------------------------------

ALICE = Principal("alice", ("user", "manager"), {"region": "EMEA"})
DOCUMENT = Resource("doc", "1", {"owner": "alice", "region": "EMEA", "tags": ["a", "b"]})


def rule(effect: str = "ALLOW", roles: str = "*", condition: str = "", **rest: Any) -> dict[str, Any]:
    found: dict[str, Any] = {"actions": ["read"], "effect": f"EFFECT_{effect}", "roles": [roles], **rest}
    return found | ({"condition": {"match": {"expr": condition}}} if condition else {})


def policies(*rules: dict[str, Any], **rest: Any) -> dict[str, Any]:
    body = {"resource": "doc", "version": "default", "rules": list(rules), **rest}
    return {"doc.yaml": {"apiVersion": "api.cerbos.dev/v1", "resourcePolicy": body}}


def function_of(table: RuleTable, principal: Principal = ALICE) -> Function:
    function = decider.decision_function(table, CheckInput(principal, DOCUMENT, ("read",)))
    assert function is not None
    return function


def answered(table: RuleTable, resource: Resource = DOCUMENT) -> Decision:
    """Return what the function says, which has to be what the walk says."""
    question = CheckInput(ALICE, resource, ("read",))
    found = answer(function_of(table), question)
    assert found == check(table, question)
    return found


def test_a_condition_is_evaluated_once_for_all_roles() -> None:
    """A rule for any role is asked once, although each role of the principal meets it."""
    condition = "R.attr.tags.exists(tag, tag == 'z')"
    table = table_of(policies(rule(roles="user", condition=condition), rule(condition=condition)))
    assert answered(table).actions["read"].effect is Effect.DENY
    reading = dis.Bytecode(function_of(table))
    assert sum(instruction.argval == "tags" for instruction in reading) == 2  # once for each rule


def test_denying_one_role_leaves_the_other() -> None:
    """A rule that denies one role ends the way of that role only."""
    denying = rule("DENY", "user", "R.attr.owner == P.id", name="denies")
    table = table_of(policies(denying, rule(roles="manager", name="allows"), rule(roles="user")))
    assert answered(table).actions["read"].rule == "allows"
    alone = table_of(policies(denying, rule(roles="user")))
    assert answered(alone).actions["read"].rule == "denies"
    other = DOCUMENT._replace(attr={"owner": "bob"})
    assert answered(alone, other).actions["read"].effect is Effect.ALLOW


def test_an_output_is_as_the_walk_has_it() -> None:
    """Outputs are converted, and those of conditions that are not met are there too."""
    said = {"when": {"ruleActivated": "{'tags': R.attr.tags, 'size': size(R.attr.tags)}"}}
    refused = {"when": {"conditionNotMet": "'owner is ' + R.attr.owner"}}
    table = table_of(policies(rule(output=said), rule(condition="P.id == 'bob'", output=refused)))
    values = [output.value for output in answered(table).outputs]
    assert values == [{"tags": ["a", "b"], "size": 2.0}, "owner is alice"]


def test_constants_variables_and_globals_are_known() -> None:
    """Expressions read `C`, `V` and `G` by their short and their long names."""
    rest = {
        "constants": {"local": {"places": ["EMEA"], "limit": 2}},
        "variables": {"local": {"many": "size(R.attr.tags) >= C.limit", "here": "R.attr.region in C.places"}},
    }
    condition = "V.many && variables.here && globals.env == 'test' && constants.limit == 2.0"
    table = table_of(policies(rule(condition=condition), **rest), globals={"env": "test"})
    assert answered(table).actions["read"].effect is Effect.ALLOW


def test_names_of_policies_do_not_meet_names_of_the_function() -> None:
    """Whatever a policy calls its variables, they are not taken for those that the function needs."""
    names = (
        "role_1",
        "met_2",
        "P",
        "P_attr",
        "allowed",
        "active",
        "constant_3",
        "outputs",
        "V",
        "aux",
        "R_id",
    )
    loops = " && ".join(f"[1, 2].exists({name}, {name} == 2)" for name in names)
    local = dict.fromkeys(names, "R.attr.owner == 'alice'")
    read = " && ".join(f"V.{name}" for name in names)
    rest = {"variables": {"local": local}}
    table = table_of(policies(rule(condition=f"{loops} && {read} && R.id == '1'"), rule(), **rest))
    assert answered(table).actions["read"].effect is Effect.ALLOW


def test_scopes_are_read_as_they_are_compared() -> None:
    """Expressions see a scope without the dot that may lead it."""
    table = table_of(policies(rule(condition="R.scope == '' && P.scope == 'acme'")))
    dotted = ASKED._replace(principal=ALICE._replace(scope=".acme"), resource=DOCUMENT._replace(scope="."))
    found = answer(function_of(table), dotted)
    assert found == check(table, dotted)
    assert found.actions["read"].effect is Effect.ALLOW


def test_the_time_is_asked_once() -> None:
    """All expressions see the same time, that of the question if it has one."""
    table = table_of(policies(rule(condition="now() == now() && now() < timestamp('2030-01-01T00:00:00Z')")))
    moment = Timestamp.parse("2040-01-01T00:00:00Z")
    given, attr = (ALICE, DOCUMENT, ALICE.attr, DOCUMENT.attr, NO_AUX_DATA), Effect.ALLOW
    assert function_of(table)(*given, None).actions["read"].effect is attr
    assert function_of(table)(*given, moment).actions["read"].effect is Effect.DENY


@pytest.mark.parametrize(
    "condition",
    [
        "P == P",
        "'a' in runtime.effectiveDerivedRoles",
        "G.unknown == 1",
        " && ".join(["R.attr.owner == 'a long name'"] * 200),
    ],
)
def test_what_has_no_function(condition: str) -> None:
    """Records as a whole, `runtime`, names that are not there and very long conditions have none."""
    table = table_of(policies(rule(condition=condition)))
    assert decider.decision_function(table, CheckInput(ALICE, DOCUMENT, ("read",))) is None


def test_an_observed_table_has_no_functions() -> None:
    """Where someone listens to what is evaluated, it is evaluated by what he listens to."""
    table = observed(table_of(policies(rule())), Observer())
    assert decider.decision_function(table, CheckInput(ALICE, DOCUMENT, ("read",))) is None


# -- engines -----------------------------------------------------------------------------------------------

NAMED = policies(rule(condition="R.attr.owner == P.id", name="named"))
ASKED = CheckInput(ALICE, DOCUMENT, ("read",))
ANONYMOUS = ASKED._replace(resource=DOCUMENT._replace(attr={}))


def functions(engine: Engine) -> list[Function]:
    return list(engine._deciders.functions.values())


@pytest.fixture
def engine() -> Iterator[Engine]:
    """Give an engine that makes a function when a question is asked for the first time."""
    with mock.patch.object(decider, "USES", 1):
        yield Engine(table_of(NAMED))


def test_a_function_is_made_for_what_is_asked_often() -> None:
    """Until a question has been asked often, the walk answers it; then a function for all of its kind."""
    engine = Engine(table_of(NAMED))
    for _ in range(decider.USES - 1):
        engine.check(ASKED)
    assert functions(engine) == []
    engine.check(ASKED)
    assert len(functions(engine)) == 1
    with mock.patch("engine.engine.decide", side_effect=AssertionError("the walk was taken")):
        other = ASKED._replace(principal=ALICE._replace(id="bob"))
        assert engine.check(ASKED).actions["read"].rule == "named"
        assert engine.check(other).actions["read"].effect is Effect.DENY
        assert engine.check_action(ALICE, DOCUMENT, "read") == engine.check(ASKED)


def test_usual_questions_are_those_that_have_a_function() -> None:
    """Without a function there is no answer; nor for who has policies of their own, nor for what fails."""
    own = {
        "principal": "bob",
        "version": "default",
        "rules": [{"resource": "doc", "actions": [{"action": "read", "effect": "EFFECT_DENY"}]}],
    }
    bobs = {"bob.yaml": {"apiVersion": "api.cerbos.dev/v1", "principalPolicy": own}}
    engine = Engine(table_of(NAMED | bobs))
    bob = ALICE._replace(id="bob")
    assert engine.check_usual(ALICE, DOCUMENT, "read", ASKED.aux_data) is None
    with mock.patch.object(decider, "USES", 1):
        engine.check(ASKED)
    assert engine.check_usual(ALICE, DOCUMENT, "read", ASKED.aux_data) == engine.check(ASKED)
    assert engine.check_usual(bob, DOCUMENT, "read", ASKED.aux_data) is None
    assert engine.check_usual(ALICE, DOCUMENT, "write", ASKED.aux_data) is None
    with pytest.raises(KeyError):
        engine.check_usual(ALICE, ANONYMOUS.resource, "read", ASKED.aux_data)


@pytest.mark.parametrize("actions", [(), ("read", "read"), ("read", "write", "read"), ("write", "read")])
def test_several_actions_are_answered_together(engine: Engine, actions: tuple[str, ...]) -> None:
    """No action, several, or one twice: the answer, its outputs among it, is that of the walk."""
    said = {"when": {"ruleActivated": "R.id"}}
    engine.replace(table_of(policies(rule(output=said), rule("DENY", actions=["write"], output=said))))
    question = ASKED._replace(actions=actions)
    expected = check(engine.table, question)
    assert [engine.check(question) for _ in range(4)] == [expected] * 4
    assert engine.check_many([question]) == [expected]


def test_what_fails_is_answered_by_the_walk(engine: Engine) -> None:
    """A missing attribute is an error of the decision, with its place in the policy, as ever."""
    engine.check(ASKED)
    (error,) = engine.check(ANONYMOUS).evaluation_errors
    assert error.message == "no such key: owner"
    assert error.place.startswith("doc.yaml:")
    assert "R.attr.owner" in error.excerpt
    assert engine.check(ANONYMOUS, evaluation="strict") == check(engine.table, ANONYMOUS, evaluation="strict")


def test_a_function_that_often_fails_rests(engine: Engine) -> None:
    """What fails again and again is not tried each time; after a while it is tried again."""
    engine.check(ASKED)
    made = functions(engine)
    for _ in range(decider.FAILURES):
        engine.check(ANONYMOUS)
    assert functions(engine) == []
    for _ in range(2 * decider.FAILURES):
        assert engine.check(ASKED).actions["read"].effect is Effect.ALLOW
    assert functions(engine) == made


def test_principals_with_policies_of_their_own_are_asked_about_those() -> None:
    """A function that others have made use of does not answer for a principal who has policies."""
    body = {
        "principal": "bob",
        "version": "default",
        "rules": [{"resource": "doc", "actions": [{"action": "read", "effect": "EFFECT_DENY"}]}],
    }
    own = {"bob.yaml": {"apiVersion": "api.cerbos.dev/v1", "principalPolicy": body}}
    engine = Engine(table_of(policies(rule()) | own))
    bob = ASKED._replace(principal=ALICE._replace(id="bob"))
    with mock.patch.object(decider, "USES", 1):
        for _ in range(3):
            assert engine.check(bob).actions["read"].effect is Effect.DENY
            assert engine.check(ASKED).actions["read"].effect is Effect.ALLOW


def test_functions_are_of_the_table_in_force(engine: Engine) -> None:
    """When other policies are put in force, no function of the old ones answers any more."""
    assert [engine.check(ASKED).actions["read"].effect for _ in range(3)] == [Effect.ALLOW] * 3
    engine.replace(table_of(policies(rule("DENY"))))
    assert [engine.check(ASKED).actions["read"].effect for _ in range(3)] == [Effect.DENY] * 3


def test_functions_and_counts_are_bounded(engine: Engine) -> None:
    """However many kinds of questions are asked, few of them are remembered; very long ones never are."""
    with mock.patch.object(decider, "FUNCTIONS", 8), mock.patch.object(decider, "COUNTED", 16):
        for number in range(100):
            for _ in range(2):
                engine.check(ASKED._replace(actions=(f"action-{number}",)))
            assert len(functions(engine)) <= 8
            assert len(engine._deciders._left) <= 16
        before = list(engine._deciders._left)
        engine.check(ASKED._replace(actions=("x" * decider.LONGEST,)))
        assert list(engine._deciders._left) == before


def test_a_bug_of_ours_costs_only_time(engine: Engine, caplog: pytest.LogCaptureFixture) -> None:
    """When a function cannot be made, that is logged once, and the walk goes on answering."""
    with mock.patch.object(decider, "decision_function", side_effect=RuntimeError("bug")):
        assert [engine.check(ASKED).actions["read"].effect for _ in range(3)] == [Effect.ALLOW] * 3
    assert len(caplog.records) == 1


def test_values_of_any_class_are_answered_by_the_walk(engine: Engine) -> None:
    """Attributes that are no `dict` and roles that are no tuple are made so, as without functions."""
    engine.check(ASKED)
    principal = Principal("alice", ["user"], MappingProxyType({}))  # type: ignore[arg-type] # on purpose
    question = CheckInput(principal, DOCUMENT, ("read",))
    assert engine.check(question) == engine.check_action(principal, DOCUMENT, "read")
    assert engine.check(question).actions["read"].effect is Effect.ALLOW
