"""Plans: what is left of rules, where our plans are safer than Cerbos's, and what cannot be planned."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import yaml

from engine import Engine, Principal, Resource, json_value
from engine.cel import Timestamp
from engine.compile import Compiler
from engine.load import load_policy
from engine.plan import PlanError, PlanInput
from engine.rules import Settings

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from engine.model import Evaluation

TABLE = yaml.safe_load((Path(__file__).resolve().parents[2] / "cases/plans.yaml").read_text())
NOW = Timestamp.parse("2024-05-01T00:00:00Z")


def engine(policies: Sequence[dict[str, Any]]) -> Engine:
    read = (
        load_policy(json.dumps(policy).encode(), f"{number}.json") for number, policy in enumerate(policies)
    )
    return Engine(Compiler(Settings()).compile([policy for policy in read if policy is not None]))


def policy(rules: Sequence[dict[str, Any]], **more: Any) -> dict[str, Any]:
    body = {"resource": "doc", "version": "default", "rules": rules, **more}
    return {"apiVersion": "api.cerbos.dev/v1", "resourcePolicy": body}


def rule(effect: str, expression: str = "", role: str = "*") -> dict[str, Any]:
    found: dict[str, Any] = {"actions": ["view"], "effect": f"EFFECT_{effect}", "roles": [role]}
    return {**found, "condition": {"match": {"expr": expression}}} if expression else found


def of_principal(effect: str, expression: str = "") -> dict[str, Any]:
    action: dict[str, Any] = {"action": "view", "effect": f"EFFECT_{effect}"}
    if expression:
        action["condition"] = {"match": {"expr": expression}}
    body = {"principal": "alice", "version": "default", "rules": [{"resource": "doc", "actions": [action]}]}
    return {"apiVersion": "api.cerbos.dev/v1", "principalPolicy": body}


def planned(
    policies: Sequence[dict[str, Any]], mode: Evaluation = "lenient", known: dict[str, Any] | None = None
) -> str:
    """Return the debug string of Alice's plan."""
    alice = Principal("alice", ("user", "manager"), json_value(TABLE["principal"]))
    question = PlanInput(alice, Resource("doc", "", json_value(known or {})), ("view",))
    return engine(policies).plan(question, now=NOW, evaluation=mode).debug


def rows() -> Iterator[Any]:
    for row in TABLE["expressions"]:
        yield pytest.param(row, id=row["expression"])


@pytest.mark.parametrize("row", list(rows()))
def test_expressions(row: dict[str, Any]) -> None:
    """An expression leaves the filter that the table says, in Cerbos's modes and in ours."""
    allowing = [policy([rule("ALLOW", row["expression"])])]
    assert planned(allowing, known=row.get("known")) == row["filter"]
    assert planned(allowing, "safe", row.get("known")) == row.get("safe", row["filter"])


@pytest.mark.parametrize(
    ("policies", "filter_"),
    [
        ([policy([rule("ALLOW")]), of_principal("DENY")], "(false)"),
        ([policy([rule("ALLOW", "R.attr.x == 1")]), of_principal("DENY")], "(false)"),
        ([policy([rule("DENY", "R.attr.x == 2")]), of_principal("DENY")], "(false)"),
        (
            [policy([rule("DENY", "R.attr.x == 2")]), of_principal("ALLOW", "R.attr.y == 1")],
            "(eq request.resource.attr.y 1)",
        ),
    ],
)
def test_denials_of_two_policies(policies: list[dict[str, Any]], filter_: str) -> None:
    """A denial of the principal's is not forgotten, and what nothing allows is denied."""
    assert planned(policies) == filter_


@pytest.mark.parametrize(
    ("effect", "mode", "filter_"),
    [
        ("ALLOW", "lenient", "(false)"),
        ("ALLOW", "strict", "(false)"),
        ("ALLOW", "safe", "(false)"),
        ("DENY", "lenient", "(true)"),
        ("DENY", "strict", "(false)"),
        ("DENY", "safe", "(false)"),
    ],
)
def test_what_an_error_means(effect: str, mode: Evaluation, filter_: str) -> None:
    """An expression that fails for every resource means in each mode what it means in a check."""
    rules = [rule(effect, "P.attr.gone == 1")] + ([rule("ALLOW")] if effect == "DENY" else [])
    assert planned([policy(rules)], mode) == filter_


def test_errors_are_told() -> None:
    """A failure is reported with its place and the part of the expression that failed."""
    question = PlanInput(Principal("alice", ("user",)), Resource("doc", ""), ("view",))
    plan = engine(
        [policy([rule("ALLOW", "R.attr.x == 1 && P.attr.gone == 1"), rule("ALLOW", "P.attr.gone")])]
    ).plan(question)
    (error,) = plan.evaluation_errors
    assert (error.expression, error.message) == ("P.attr.gone", "no such key: gone")
    assert error.place.startswith("0.json:1:")
    assert error.excerpt.splitlines()[1].startswith("^")


@pytest.mark.parametrize(
    ("expression", "message"),
    [
        ("R.attr.?x.orValue(1) == 1", "optional values are not supported in query plans: orValue"),
        ("R.attr.list.exists(R, R.x == 1)", "hides"),
    ],
)
def test_what_cannot_be_planned(expression: str, message: str) -> None:
    """A condition that no filter can say is an error that names it and its place."""
    with pytest.raises(PlanError) as raised:
        planned([policy([rule("ALLOW", expression)])])
    assert message in str(raised.value)
    assert f"`{expression}` (0.json:1:" in str(raised.value)


def test_many_rules_do_not_nest_deeply() -> None:
    """A thousand rules for one action make a filter that can be walked."""
    rules = [rule("ALLOW", f"R.attr.x == {number}") for number in range(1000)]
    assert planned([policy(rules)]).count("(eq ") == 1000


def test_variables_that_double_are_refused() -> None:
    """Variables that refer to each other twice are not put in place without end."""
    variables = {"v0": "R.attr.x", **{f"v{n}": f"V.v{n - 1} + V.v{n - 1}" for n in range(1, 40)}}
    with pytest.raises(PlanError, match="operands once the variables are put in"):
        planned([policy([rule("ALLOW", "V.v39 == 1.0")], variables={"local": variables})])


def test_expressions_are_prepared_once() -> None:
    """The second plan of a table does not read its expressions again."""
    asked = engine([policy([rule("ALLOW", "R.attr.x == 1")])])
    question = PlanInput(Principal("alice", ("user",)), Resource("doc", ""), ("view",))
    first = asked.plan(question)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("engine.plan.prepared._prepared", None)
        assert asked.plan(question) == first
