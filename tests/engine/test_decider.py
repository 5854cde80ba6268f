"""Decision functions: the answers of the walk, where nothing fails; else none."""

from __future__ import annotations

import json
from random import Random
from typing import TYPE_CHECKING, Any
from unittest import mock

from hypothesis import given, settings
from hypothesis import strategies as st

from engine import CheckInput, Engine, Settings, decider
from engine.check import check
from engine.compile import compile_policies
from engine.document import parse
from engine.load import load_document
from tests.differential.policies import policy_set
from tests.differential.requests import request
from tests.differential.sides import questions
from tests.engine.tables import MODES, rows

if TYPE_CHECKING:
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
    return table, [one for question in questions(request(random, 20)) for one in singles(question)]


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 2**32), st.sampled_from(MODES), st.booleans())
def test_a_function_gives_the_answer_of_the_walk(seed: int, mode: Any, lenient: bool) -> None:
    """Whatever the policies and the question, an engine that has functions says what the walk says."""
    table, asked = generated(seed, mode, lenient)
    engine = Engine(table)
    with mock.patch.object(decider, "USES", 1):
        for question in asked:
            if question.principal.id not in table.principal_ids:
                decider.decision_function(table, question)  # an engine would only log that it failed
            expected = check(table, question)
            assert [engine.check(question) for _ in range(3)] == [expected] * 3


def test_most_questions_have_a_function() -> None:
    """Nearly all generated questions that the walk answers without a failure are answered by a function."""
    made = answered = clean = 0
    for seed in range(12):
        table, asked = generated(seed, "lenient", True)
        for question in asked:
            if question.principal.id in table.principal_ids or check(table, question).evaluation_errors:
                continue
            clean += 1
            function = decider.decision_function(table, question)
            made += function is not None
            answered += function is not None and answer(function, question) is not None
    assert made > 0.8 * clean
    assert answered > 0.8 * clean
