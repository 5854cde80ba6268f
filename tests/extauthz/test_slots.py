"""Slots give what they say, or fail: nothing is silently absent, or of another type than wanted."""

from __future__ import annotations

import timeit
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from engine.cel import Timestamp
from engine.model import Principal, Resource
from extauthz import reasons
from extauthz.facts import DecisionFacts, Facts
from extauthz.request import HttpRequest, Peer
from extauthz.slots import (
    MISSING,
    VARIABLES,
    AttributeTemplate,
    Scope,
    Slot,
    SlotError,
    SlotFault,
    Want,
    compile_slot,
)

CASES = Path(__file__).parents[1] / "cases" / "slots"
WANTS = {want.name.lower(): want for want in Want}


def load(name: str) -> Any:
    return yaml.safe_load((CASES / f"{name}.yaml").read_text(encoding="utf-8"))


class Expenses:
    """A route, as far as slots see it."""

    name = "expenses"


@pytest.fixture
def facts() -> Facts:
    """One request with everything that the tables ask for."""
    body = b'{"amount": 12.5}'
    known = Facts(
        HttpRequest(
            method="POST",
            host="h",
            target="/api/expenses/42?page=2&name=a+b%2Bc&tag=a&tag=b&semi=1;x=2",
            headers=[
                *(("x-tenant", "acme"), ("x-twice", "1"), ("x-twice", "2")),
                *(("content-type", "application/json"), ("cookie", "sid=c00kie; twice=1; twice=2")),
            ],
            body=body,
            size=len(body),
            time=1704164645.0,
            source=Peer("10.0.0.1", 4711, "spiffe://cluster.local/ns/shop/sa/web"),
            context={"stage": "test"},
            metadata={"ns": {"key": "value"}},
        )
    )
    known.path = {"id": "42", "number": 7, "rest": ""}
    known.route = Expenses()
    known.claims = {
        "sub": "alice",
        "realm": {"roles": ["user", "admin", "user"]},
        "https://example.com/roles": ["editor"],
        "number": 12345.0,
        "fraction": 1.5,
        "yes": True,
        "nothing": None,
        "empty": "",
    }
    known.principal = Principal("alice", ("user", "admin"), {"region": "EMEA"})
    known.resource = Resource("expense", "42", {"amount": 12.5}, "v1", "acme")
    known.action = "read"
    known.decision = DecisionFacts("d1", "EFFECT_DENY", "resource.expense.vdefault", "", "own")
    known.outputs = {"reason": "other region", "limits": {"max": 3.0}}
    known.reason = "policy.denied"
    return known


def name_of(case: dict[str, Any]) -> str:
    return f"{case['slot']} as {case['want']}"


def check(case: dict[str, Any], scope: Scope, facts: Facts) -> None:
    slot = compile_slot(case["slot"], scope, WANTS[case["want"]])
    if "fails" in case:
        with pytest.raises(SlotError) as failed:
            slot(facts)
        assert failed.value.reason == case["fails"]
        assert case["says"] in str(failed.value)
        return
    value = slot(facts)
    expected = MISSING if case["gives"] == "missing" else case["gives"]
    assert (list(value) if isinstance(value, tuple) else value) == expected
    assert not isinstance(value, int) or isinstance(value, bool)  # JSON numbers are doubles


@pytest.mark.parametrize("case", load("values"), ids=name_of)
def test_slots_of_routes(case: dict[str, Any], facts: Facts) -> None:
    """Every form of slot gives the value, or the failure, that ``values.yaml`` says."""
    check(case, Scope.ROUTE, facts)


@pytest.mark.parametrize("case", load("answers"), ids=name_of)
def test_slots_of_answers(case: dict[str, Any], facts: Facts) -> None:
    """Slots of answers see principal, resource, action, decision, outputs and reason."""
    check(case, Scope.RESPONSE, facts)


def test_every_reason_of_a_failure_denies() -> None:
    """No failure of a slot has a reason that lets a request through."""
    cases = [*load("values"), *load("answers"), *load("bodies")]
    codes = {case["fails"] for case in cases if "fails" in case}
    assert len(codes) > 5
    assert all(reasons.reason(code).status >= 400 for code in codes)


# --- what a slot knows about itself -----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("written", "identifiers", "parameters"),
    [
        ("x", set(), set()),
        ("{a}-{b}", {"path"}, {"a", "b"}),
        ({"claim": "sub"}, {"claims"}, set()),
        ({"header": "x"}, {"headers"}, set()),
        ({"query": "x"}, {"query"}, set()),
        ({"cookie": "x"}, {"cookies"}, set()),
        ({"expr": "path.a + claims.b + body.c"}, {"path", "claims", "body"}, {"a"}),
        ({"expr": "'x'"}, set(), set()),
        ([{"claim": "sub"}, "{a}"], {"claims", "path"}, {"a"}),
    ],
)
def test_a_slot_knows_what_it_looks_at(written: Any, identifiers: set[str], parameters: set[str]) -> None:
    """Variables and path parameters are known, so that what depends on a token alone can be remembered."""
    slot = compile_slot(written, Scope.ROUTE, Want.VALUE)
    assert slot.identifiers == frozenset(identifiers)
    assert slot.parameters == frozenset(parameters)


@pytest.mark.parametrize(
    ("written", "needs"),
    [
        ({"claim": "sub"}, True),
        ({"claim": "sub", "default": "x"}, False),
        ({"claim": "sub", "optional": True}, False),
        ({"header": "x"}, False),
        (["x", {"claim": "sub"}], True),
    ],
)
def test_a_slot_knows_whether_it_fails_without_claims(written: Any, needs: bool) -> None:
    """A claim without a default cannot be had from the anonymous principal."""
    assert compile_slot(written, Scope.ROUTE, Want.VALUE).needs_claims is needs


@pytest.mark.parametrize("scope", Scope)
def test_variables_are_those_of_the_scope(scope: Scope) -> None:
    """A slot sees what is known where it stands, and nothing that comes later."""
    every = set().union(*VARIABLES.values())
    for variable in every:
        written = {"expr": f"{variable} == {variable}"}
        if variable in VARIABLES[scope]:
            compile_slot(written, scope, Want.VALUE)
        else:
            with pytest.raises(SlotFault, match="undeclared reference"):
                compile_slot(written, scope, Want.VALUE)


def test_facts_have_every_variable(facts: Facts) -> None:
    """What an expression may name, the facts have."""
    for scope in Scope:
        for variable in VARIABLES[scope]:
            assert hasattr(facts, variable)


# --- types ------------------------------------------------------------------------------------------------

TYPES = {
    "'x'": {"name", "text", "texts", "header", "parameter", "value"},
    "1": {"name", "text", "header", "parameter", "value"},
    "1u": {"name", "text", "header", "parameter", "value"},
    "claims.x": {"name", "text", "texts", "header", "parameter", "value"},
    "1.5": {"header", "value"},
    "true": {"header", "value"},
    "null": {"header", "value"},
    "['x']": {"texts", "header", "value"},
    "[claims.x]": {"texts", "header", "value"},
    "[1.5]": {"header", "value"},
    "[['x']]": {"value"},
    "{'a': 'x'}": {"value"},
    "{1: 'x'}": set(),
    "b'x'": {"value"},
    "request.time": {"header", "value"},
    "duration('1s')": {"header", "value"},
    "claims.?x": {"header", "parameter", "value"},
    "optional.of(true)": {"header", "value"},
    "optional.of({1: 2})": set(),
    "type(1)": set(),
    "request": {"value"},
    "[request]": {"value"},
}


@pytest.mark.parametrize("expression", TYPES)
@pytest.mark.parametrize("want", WANTS)
def test_wrong_types_are_found_when_the_file_is_read(expression: str, want: str) -> None:
    """An expression whose type can never be what is wanted is refused, any other is not."""
    if want in TYPES[expression]:
        assert isinstance(compile_slot({"expr": expression}, Scope.ROUTE, WANTS[want]), Slot)
    else:
        with pytest.raises(SlotFault, match="is of type"):
            compile_slot({"expr": expression}, Scope.ROUTE, WANTS[want])


# --- attributes -------------------------------------------------------------------------------------------


def test_attributes_that_are_missing_are_left_out(facts: Facts) -> None:
    """Optional slots without a value make no attribute; null is a value."""
    written = {"a": {"claim": "sub"}, "b": {"expr": "body.?nope"}, "c": {"claim": "nothing"}}
    slots = {name: compile_slot(slot, Scope.ROUTE, Want.VALUE) for name, slot in written.items()}
    assert AttributeTemplate(slots).fill(facts) == {"a": "alice", "c": None}


def test_an_attribute_that_fails_fails_all(facts: Facts) -> None:
    """There is no resource with some of its attributes."""
    slots = {"a": compile_slot({"expr": "body.nope"}, Scope.ROUTE, Want.VALUE)}
    with pytest.raises(SlotError):
        AttributeTemplate(slots).fill(facts)


# --- properties -------------------------------------------------------------------------------------------

JSON = st.recursive(
    st.none() | st.booleans() | st.floats() | st.integers() | st.text(max_size=5) | st.binary(max_size=3),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3) | st.integers(), inner, max_size=3)
    ),
    max_leaves=8,
)


def is_json(value: Any) -> bool:
    if isinstance(value, dict):
        return all(isinstance(key, str) and is_json(item) for key, item in value.items())
    if isinstance(value, list):
        return all(map(is_json, value))
    return value is None or isinstance(value, bool | float | str)


IS_WANTED: dict[Want, Any] = {
    Want.NAME: lambda value: isinstance(value, str) and value,
    Want.TEXT: lambda value: isinstance(value, str),
    Want.PARAMETER: lambda value: isinstance(value, str),
    Want.TEXTS: lambda value: isinstance(value, tuple) and all(isinstance(each, str) for each in value),
    Want.HEADER: lambda value: isinstance(value, tuple) and all(isinstance(each, str) for each in value),
    Want.VALUE: is_json,
}


@given(JSON, st.sampled_from(Want))
def test_a_value_is_what_is_wanted_or_a_failure(value: Any, want: Want) -> None:
    """Whatever a token or an expression says, the value has the wanted form, or the slot fails."""
    known = Facts(HttpRequest())
    known.claims = {"x": value}
    claim = [{"claim": "x"}] if is_json(value) else []  # tokens hold nothing else
    for written in (*claim, {"expr": "claims.x"}):
        try:
            given_value = compile_slot(written, Scope.ROUTE, want)(known)
        except SlotError:
            continue
        assert IS_WANTED[want](given_value)


@given(st.text(max_size=20))
def test_a_literal_is_a_template_or_a_fault(text: str) -> None:
    """Any text either has its braces in order, and then gives text, or is refused."""
    known = Facts(HttpRequest())
    known.path = dict.fromkeys("abc", "v")
    try:
        slot = compile_slot(text, Scope.ROUTE, Want.TEXT)
    except SlotFault:
        assert "{" in text or "}" in text
        return
    if slot.parameters <= known.path.keys():
        assert isinstance(slot(known), str)
    if "{" not in text and "}" not in text:
        assert slot(known) == text


def test_the_time_of_a_decision_is_one_moment(facts: Facts) -> None:
    """Two slots of one request that ask for the time get the same."""
    slots = [compile_slot({"expr": text}, Scope.ROUTE, Want.VALUE) for text in ("now()", "[now()][0]")]
    assert slots[0](facts) == slots[1](facts) == str(facts.now)
    assert isinstance(facts.now, Timestamp)


def test_slots_are_quick(facts: Facts) -> None:
    """Filling the usual slots of a request stays far below the time a decision may take."""
    written = ["{id}", {"claim": "sub"}, {"expr": "path.id"}, {"header": "x-tenant"}]
    slots = [compile_slot(each, Scope.ROUTE, Want.NAME) for each in written]
    best = min(timeit.repeat(lambda: [slot.function(facts) for slot in slots], number=200, repeat=20)) / 200
    assert best < 50e-6
