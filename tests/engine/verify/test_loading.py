"""Suites and fixtures: what is read, and how faults are worded and placed."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.verify import BrokenSuite, Suite, load_suites

GOOD = """\
name: Documents
principals: {ann: {id: ann, roles: [user], attr: {level: 3}}}
resources: {doc: {kind: doc, id: "1"}}
tests:
  - name: reading
    input: {principals: [ann], resources: [doc], actions: [view]}
    expected:
      - {principal: ann, resource: doc, actions: {view: EFFECT_ALLOW}}
"""


def load(text: str, **fixtures: str) -> Suite | BrokenSuite:
    """Read one suite, with fixtures in files beside it."""
    files = {f"a/testdata/{name}.yaml": content.encode() for name, content in fixtures.items()}
    (found,) = load_suites({"a/it_test.yaml": text.encode()} | files)
    return found


def broken(text: str, **fixtures: str) -> list[str]:
    """Read a suite that is broken; return the lines of its error."""
    found = load(text, **fixtures)
    assert isinstance(found, BrokenSuite), found
    return found.error.split("\n")


def test_a_suite_is_read() -> None:
    """Numbers of attributes are doubles, and what is not given is empty."""
    found = load(GOOD)
    assert isinstance(found, Suite)
    assert (found.name, found.file, found.options) == ("Documents", "a/it_test.yaml", None)
    assert found.principals["ann"].attr == {"level": 3.0}
    assert type(found.principals["ann"].attr["level"]) is float
    assert found.tests[0].expected[0].principal == "ann"


def test_all_faults_are_reported_at_once() -> None:
    """Fields are placed at their names, items where they begin; what is missing comes last, unplaced."""
    text = """\
name: ""
principals: {v_v: {id: ""}}
tests:
  - name: a
    input: {resources: [""], actions: [view, view]}
    expected:
      - principal: ann
        principals: [bob]
        resource: doc
        actions: {view: EFFECT_UNSPECIFIED}
"""
    assert broken(text) == [
        "failed to load test suite:",
        "1:1 name: value is required",
        '2:20 principals["vV"].id: value is required',
        "5:5 tests[0].input: principals or principalGroups must be present",
        "5:25 tests[0].input.resources[0]: must be at least 1 characters",
        "5:30 tests[0].input.actions: repeated value must contain unique items",
        "7:18 tests[0].expected[0]: principal and principals may not both be present",
        '10:25 tests[0].expected[0].actions["view"]: must be one of [EFFECT_ALLOW, EFFECT_DENY]',
        'principals["vV"].roles: value is required',
    ]


def test_an_unknown_field_is_suggested_its_neighbour() -> None:
    """Whoever misspells a field is told the one that was meant."""
    found = load(GOOD.replace("actions: [view]", "action: [view]"))
    assert isinstance(found, BrokenSuite)
    assert found.error == 'failed to load test suite:\n6:50 unknown field "action"'
    assert [fault.hint for fault in found.faults] == ["did you mean `actions`?"]


@pytest.mark.parametrize("text", ["", "# nothing yet\n", "---\n"])
def test_a_suite_without_content_is_an_error(text: str) -> None:
    """A file that was to hold tests does not pass because it holds none."""
    assert broken(text) == ["failed to load test suite:", "the file holds no test suite"]


def test_fixtures_come_from_the_folder_beside() -> None:
    """Fixtures of ``testdata`` serve where the suite defines none of its own."""
    found = load(
        GOOD, principals="principals: {bob: {id: bob, roles: [user]}}", auxData="auxData: {t: {jwt: {a: 1}}}"
    )
    assert isinstance(found, Suite)
    assert set(found.shared.principals) == {"bob"}
    assert found.shared.aux_data["t"].jwt == {"a": 1.0}


def test_fixtures_of_other_folders_are_not_seen() -> None:
    """Only the folder beside a suite is its own."""
    files = {
        "it_test.yaml": GOOD.encode(),
        "b/testdata/principals.yaml": b"principals: {bob: {id: bob, roles: [user]}}",
        "b/testdata/nested_test.yaml": b"not a suite, as it is in testdata",
    }
    (found,) = load_suites(files)
    assert isinstance(found, Suite)
    assert not found.shared.principals


@pytest.mark.parametrize(
    ("content", "error"),
    [
        ("principals: {bob: {id: bob, roles: [user], foo: 1}}", '1:44 unknown field "foo"'),
        ("principalGroups: {g: {principals: [bob]}}", 'missing fixture "bob" referenced in group "g"'),
    ],
)
def test_broken_fixtures_break_the_suite(content: str, error: str) -> None:
    """The error names the folder; the suite keeps its name."""
    found = load(GOOD, principals=content)
    assert isinstance(found, BrokenSuite)
    assert found.name == "Documents"
    head, tail = "failed to load test fixtures from a/testdata: failed to load principals:", error
    assert found.error.split() == f"{head} {tail}".split()


def test_a_fixture_file_without_content_has_no_fixtures() -> None:
    """An empty file of fixtures is none."""
    assert isinstance(load(GOOD, principals="# to come\n"), Suite)


@given(st.binary(max_size=200))
def test_any_bytes_are_a_suite_or_a_fault(content: bytes) -> None:
    """Whatever a file holds, reading it ends with a suite or with an error that has words."""
    (found,) = load_suites({"it_test.yaml": content})
    assert isinstance(found, Suite) or found.error


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.text(max_size=5),
        lambda inner: (
            st.lists(inner, max_size=3)
            | st.dictionaries(
                st.sampled_from(
                    ("name", "tests", "input", "expected", "actions", "principals", "options", "now")
                ),
                inner,
                max_size=4,
            )
        ),
        max_leaves=15,
    )
)
def test_any_values_are_a_suite_or_a_fault(value: object) -> None:
    """Known fields with odd values are refused with words, whatever they are."""
    import json  # noqa: PLC0415 - only here

    (found,) = load_suites({"it_test.json": json.dumps(value).encode()})
    assert isinstance(found, Suite) or found.error
