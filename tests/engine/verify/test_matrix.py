"""Tables to single tests: the order, what is expected of whom, and contradictions."""

from __future__ import annotations

from typing import Any

import pytest
import yaml

from engine.model import Effect
from engine.verify import Suite, load_suites
from engine.verify.matrix import MOST_PAIRS, expand, same_value
from engine.verify.suites import UNSET, SuiteError

FIXTURES: dict[str, Any] = {
    "principals": {name: {"id": name, "roles": ["user"]} for name in ("ann", "bob", "cyd")},
    "principalGroups": {"pair": {"principals": ["bob", "ann"]}},
    "resources": {name: {"kind": "doc", "id": name} for name in ("one", "two")},
    "resourceGroups": {"both": {"resources": ["two", "one"]}},
    "auxData": {"token": {"jwt": {"iss": "us"}}},
}
VIEW = {"view": "EFFECT_ALLOW"}


def suite(asked: dict[str, Any], *expected: dict[str, Any]) -> Suite:
    """Return a suite with one test."""
    test = {"name": "T", "input": {"actions": ["view", "edit"], **asked}, "expected": list(expected)}
    text = yaml.safe_dump({"name": "S", "tests": [test], **FIXTURES})
    (found,) = load_suites({"it_test.yaml": text.encode()})
    assert isinstance(found, Suite), found
    return found


def test_every_principal_meets_every_resource() -> None:
    """Names come first, then members of groups, each once; the principal changes last."""
    asked = {"principals": ["cyd", "ann"], "principalGroups": ["pair"], "resourceGroups": ["both"]}
    tests = expand(suite(asked, {"principal": "cyd", "resource": "one", "actions": VIEW}))
    assert [(test.principal, test.resource) for test in tests] == [
        (who, what) for who in ("cyd", "ann", "bob") for what in ("two", "one")
    ]
    assert [test.expected.effects for test in tests] == [{}, {"view": Effect.ALLOW}, {}, {}, {}, {}]


def test_a_test_carries_its_question() -> None:
    """The fixtures become the question, with the claims of the token that the test names."""
    (test,) = expand(
        suite(
            {"principals": ["ann"], "resources": ["one"], "auxData": "token"},
            {"principal": "ann", "resource": "one", "actions": VIEW},
        )
    )
    assert test.input.principal.id == "ann"
    assert test.input.resource.kind == "doc"
    assert test.input.actions == ("view", "edit")
    assert test.input.aux_data.jwt == {"iss": "us"}


def test_expectations_that_agree_are_put_together() -> None:
    """Several entries may speak of one pair, about other actions or outputs, or the same again."""
    ann_one = {"principal": "ann", "resource": "one"}
    outputs = [{"action": "edit", "expected": [{"src": "a#b"}, {"src": "a#c", "val": None}]}]
    (test,) = expand(
        suite(
            {"principals": ["ann"], "resources": ["one"]},
            {**ann_one, "actions": VIEW},
            {**ann_one, "actions": {"edit": "EFFECT_DENY", **VIEW}, "outputs": outputs},
            {**ann_one, "actions": VIEW, "outputs": outputs},
        )
    )
    assert test.expected.effects == {"view": Effect.ALLOW, "edit": Effect.DENY}
    assert test.expected.outputs == {"edit": {"a#b": UNSET, "a#c": None}}


@pytest.mark.parametrize(
    ("asked", "expected", "error"),
    [
        ({"principals": ["eve"]}, {}, 'principal "eve" not found'),
        ({"resources": ["none"]}, {}, 'resource "none" not found'),
        ({"auxData": "none"}, {}, 'auxData "none" not found'),
        ({"principalGroups": ["none"]}, {}, 'principal group "none" not found'),
        ({"resourceGroups": ["none"]}, {}, 'principal group "none" not found'),
        (
            {},
            {"principal": "bob"},
            (
                'found an expectation for principal "bob" and resource "one", '
                "but at least one of these is not present in input"
            ),
        ),
        (
            {},
            {"actions": {"zap": "EFFECT_ALLOW", "fix": "EFFECT_ALLOW", **VIEW}},
            "found expectations for actions that do not exist in the input actions list: [fix,zap]",
        ),
        (
            {},
            {"outputs": [{"action": "zap", "expected": [{"src": "x"}]}]},
            "found output expectations for actions that are not in the input actions list: [zap]",
        ),
    ],
)
def test_what_does_not_fit_is_named(asked: dict[str, Any], expected: dict[str, Any], error: str) -> None:
    """A test that refers to something that is not there, or expects what it does not ask, is refused."""
    base = {"principal": "ann", "resource": "one", "actions": VIEW}
    named = {"principals": ["ann"], "resources": ["one"]} | asked
    if "principals" in asked or "resources" in asked:
        base |= {"principal": named["principals"][0], "resource": named["resources"][0]}
    with pytest.raises(SuiteError) as raised:
        expand(suite(named, base | expected))
    assert raised.value.text == f'invalid test "T": {error}'


def test_contradictions_are_named() -> None:
    """The same pair cannot be expected to be allowed and denied; ``true`` is another output than 1."""
    base = {"principals": ["ann"], "resources": ["one"], "actions": VIEW}
    asked = {"principals": ["ann"], "resources": ["one"]}
    with pytest.raises(SuiteError, match='principal "ann" performing action "view" on resource "one"'):
        expand(suite(asked, base, base | {"actions": {"view": "EFFECT_DENY"}}))
    entries = [
        {"outputs": [{"action": "view", "expected": [{"src": "x", "val": value}]}]} for value in (1, True)
    ]
    with pytest.raises(
        SuiteError, match='found inconsistent expectations for output "x" from principal "ann"'
    ):
        expand(suite(asked, *(base | entry for entry in entries)))


def test_a_matrix_has_a_limit() -> None:
    """A small file cannot ask for any number of questions."""
    count = int(MOST_PAIRS**0.5) + 1
    people = {f"p{number}": {"id": "x", "roles": ["user"]} for number in range(count)}
    things = {f"r{number}": {"kind": "doc", "id": "x"} for number in range(count)}
    test = {
        "name": "T",
        "input": {"principals": list(people), "resources": list(things), "actions": ["view"]},
        "expected": [{"principal": "p0", "resource": "r0", "actions": VIEW}],
    }
    content = {"name": "S", "tests": [test], "principals": people, "resources": things}
    (found,) = load_suites({"it_test.yaml": yaml.safe_dump(content).encode()})
    assert isinstance(found, Suite)
    with pytest.raises(SuiteError, match=f"are more than {MOST_PAIRS} pairs"):
        expand(found)


@pytest.mark.parametrize(
    ("first", "second", "same"),
    [
        (1.0, 1.0, True),
        (1.0, True, False),
        ([1.0, {"a": None}], [1.0, {"a": None}], True),
        ({"a": 1.0}, {"a": 1.0, "b": None}, False),
        ([1.0], [1.0, 1.0], False),
        (UNSET, None, False),
    ],
)
def test_values_are_compared_as_json(first: Any, second: Any, same: bool) -> None:
    """Types count, and so does a ``null`` that is there."""
    assert same_value(first, second) is same
