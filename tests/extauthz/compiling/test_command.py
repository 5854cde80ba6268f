"""``extauthz compile``: what is written where, in which format, and the exit codes."""

from __future__ import annotations

import json
import shutil
from typing import TYPE_CHECKING, Any
from xml.etree import ElementTree

import pytest
from click.testing import CliRunner

from extauthz.cli import main

if TYPE_CHECKING:
    from pathlib import Path

    from click.testing import Result

POLICY = """\
apiVersion: api.cerbos.dev/v1
resourcePolicy:
  resource: doc
  version: default
  rules:
    - {actions: [view], effect: EFFECT_ALLOW, roles: [user], output: {expr: '"seen by " + P.id'}}
"""
SUITE = """\
name: Documents
principals: {ann: {id: ann, roles: [user]}, bob: {id: bob, roles: [user]}}
resources: {doc: {kind: doc, id: "1"}}
tests:
  - name: reading
    input: {principals: [ann, bob], resources: [doc], actions: [view, edit]}
    expected:
      - {principal: ann, resource: doc, actions: {view: EFFECT_ALLOW}}
"""
TREE = """\
Test results
└─┬Documents (doc_test.yaml) [3 OK] [1 FAILED]
  └─┬reading
    └─┬bob
      └─┬doc
        └─┬view [FAILED]
          └──OUTCOME: expected: EFFECT_DENY, actual: EFFECT_ALLOW

4 tests executed [3 OK] [1 FAILED]
"""
LIST = """\
Test results
Documents (doc_test.yaml) [3 OK] [1 FAILED]
  reading
    bob
      doc
        view [FAILED]
          OUTCOME: expected: EFFECT_DENY, actual: EFFECT_ALLOW

4 tests executed [3 OK] [1 FAILED]
"""


@pytest.fixture
def store(tmp_path: Path) -> Path:
    """Return a directory with a policy and a suite of which one test fails."""
    (tmp_path / "doc.yaml").write_text(POLICY)
    (tmp_path / "doc_test.yaml").write_text(SUITE)
    return tmp_path


def run(*arguments: object) -> Result:
    return CliRunner().invoke(main, ["compile", *map(str, arguments)])


@pytest.mark.parametrize(("format_", "text"), [("tree", TREE), ("list", LIST)])
def test_results_as_text(store: Path, format_: str, text: str) -> None:
    """The tree and the list are those of ``cerbos compile``; the last line of standard error says it."""
    result = run(store, "--output", format_)
    assert (result.exit_code, result.stdout) == (4, text)
    assert result.stderr == "extauthz: error: tests failed\n"


def test_results_in_pretty(store: Path) -> None:
    """Each suite has a line, and each failure says why the decision came about."""
    result = run(store, "-o", "pretty")
    assert result.stdout.startswith("✗ Documents (doc_test.yaml) [3 OK] [1 FAILED]\n")
    assert "✗ Documents > reading > bob > doc > view\n" in result.stdout
    assert "rule `rule-001` (ALLOW): activated" in result.stdout
    assert "ann" not in result.stdout


def test_results_as_json(store: Path) -> None:
    """JSON is all of standard output; totals come last."""
    result = run(store, "--test-output=json")
    assert result.exit_code == 4
    found = json.loads(result.stdout)
    assert found["summary"] == {
        "overallResult": "RESULT_FAILED",
        "testsCount": 4,
        "resultCounts": [{"result": "RESULT_PASSED", "count": 3}, {"result": "RESULT_FAILED", "count": 1}],
    }
    assert list(found["suites"][0]) == ["file", "name", "summary", "testCases"]
    assert "explanation" not in result.stdout
    assert "explanation" in run(store, "--test-output=json", "--verbose").stdout


def test_results_as_junit(store: Path) -> None:
    """XML is all of standard output, with a line break at its end."""
    result = run(store, "--test-output=junit")
    suites = ElementTree.fromstring(result.stdout)  # noqa: S314 - our own text
    assert suites.attrib == {"errors": "0", "failures": "1", "skipped": "0", "tests": "4"}
    assert len(suites.findall("testsuite/testcase")) == 4
    assert result.stdout.endswith("</testsuites>\n")


def test_verbose_shows_what_passed_and_why_the_rest_did_not(store: Path) -> None:
    """Tests that passed are in the tree, with their outputs; failures have a trace each."""
    lines = run(store, "--verbose").stdout.splitlines()
    assert "    │   ├─┬view [OK]" in lines
    assert '    │   │     └──"seen by ann"' in lines
    assert lines[lines.index("TRACES") + 1] == "Documents - bob.doc.view"


@pytest.mark.parametrize(
    ("arguments", "code", "error"),
    [
        (["--test-filter=principal=ann"], 0, ""),
        (["--test-filter=nothing"], 1, "invalid test filter: invalid filter dimension format"),
        (["--run=reading"], 4, "tests failed"),
        (["--run=["], 1, "invalid run specification: error parsing regexp"),
        (["--skip-tests"], 0, ""),
        (["--output=xml"], 2, "Invalid value for '-o'"),
        (["--tests", "/nowhere"], 2, "Invalid value for '--tests'"),
    ],
)
def test_exit_codes(store: Path, arguments: list[str], code: int, error: str) -> None:
    """0 well, 1 not readable, 2 a wrong command line, 4 failed tests."""
    result = run(store, *arguments)
    assert result.exit_code == code
    assert error in result.stderr if error else result.stderr == ""


def test_an_archive_is_compiled_like_its_directory(
    store: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """The same results, tests included; what is refused is said, what is neither is a wrong command line."""
    elsewhere = tmp_path_factory.mktemp("elsewhere")
    archive = shutil.make_archive(str(elsewhere / "policies"), "gztar", store)
    from_directory, from_archive = run(store, "-o", "json"), run(archive, "-o", "json")
    assert from_archive.stdout == from_directory.stdout
    assert from_archive.exit_code == from_directory.exit_code == 4
    broken = elsewhere / "broken.zip"
    broken.write_bytes(b"PK")
    found = run(broken)
    assert (found.exit_code, "is broken or not whole" in found.stderr) == (1, True)
    text = elsewhere / "policies.txt"
    text.write_text("")
    assert run(text).exit_code == 2


def test_tests_may_be_elsewhere(store: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    """``--tests`` names the directory of the suites."""
    elsewhere = tmp_path_factory.mktemp("tests")
    (elsewhere / "its_test.yaml").write_text(SUITE.replace("principals: [ann, bob]", "principals: [ann]"))
    result = run(store, "--tests", elsewhere)
    assert (result.exit_code, result.stdout) == (
        0,
        "Test results\n└──Documents (its_test.yaml) [2 OK]\n\n2 tests executed [2 OK]\n",
    )


@pytest.mark.parametrize(
    ("arguments", "environment", "has_colours"),
    [
        ([], {}, False),
        (["--color=always"], {}, True),
        (["--color=always"], {"NO_COLOR": "1"}, True),
        (["--color=256", "--no-color"], {}, False),
        (["--color=never"], {}, False),
    ],
)
def test_colours(store: Path, arguments: list[str], environment: dict[str, str], has_colours: bool) -> None:
    """A pipe gets no colours unless they are asked for; whoever asks for them by name gets them."""
    found = CliRunner(env=environment).invoke(main, ["compile", str(store), *arguments])
    assert ("\x1b[" in found.stdout) is has_colours


def test_what_a_terminal_would_obey_is_escaped(store: Path) -> None:
    """Names in suites cannot clear the screen or write to the clipboard of whoever runs them."""
    (store / "doc_test.yaml").write_text(SUITE.replace("name: Documents", 'name: "\\e[2J\\u009b"'))
    for arguments in ([], ["-o", "pretty"], ["--verbose"]):
        shown = run(store, *arguments).stdout
        assert "\\x1b[2J\\x9b" in shown
        assert not any(character in shown for character in "\x1b\x9b")


def broken(store: Path) -> None:
    """Add policies that are wrong in many ways."""
    head = "apiVersion: api.cerbos.dev/v1\nresourcePolicy:\n  version: default\n"
    (store / "again.yaml").write_text(POLICY)
    (store / "scoped.yaml").write_text(f"{head}  resource: form\n  scope: a.b\n  rules: []\n")
    (store / "imports.yaml").write_text(
        f"{head}  resource: paper\n  importDerivedRoles: [none]\n"
        "  rules: [{actions: [a], effect: EFFECT_ALLOW, derivedRoles: [x]}]\n"
    )
    (store / "off.yaml").write_text(f"disabled: true\n{head}  resource: note\n  rules: []\n")


def test_what_is_wrong_with_a_store_as_json(store: Path) -> None:
    """What Cerbos calls lint errors has its members and its places."""
    broken(store)
    result = run(store, "--output=json")
    assert result.exit_code == 3
    assert result.stderr == "extauthz: error: failed to compile\n"
    found = json.loads(result.stdout)["lintErrors"]
    assert found["duplicate_defs"] == [
        {
            "file": "doc.yaml",
            "other_file": "again.yaml",
            "policy": "resource.doc.vdefault",
            "position": {"line": 1, "column": 11},
        }
    ]
    assert without_context(found["missing_imports"]) == [
        {
            "importing_file": "imports.yaml",
            "desc": "cannot find derived roles 'none' imported by policy resource.paper.vdefault",
            "importing_policy": "resource.paper.vdefault",
            "import_kind": "derived roles",
            "import_name": "none",
            "position": {"line": 5, "column": 24, "path": "$.resourcePolicy.importDerivedRoles[0]"},
        }
    ]
    assert found["missing_scope_details"] == [
        {"missing_policy": policy, "descendants": ["resource.form.vdefault/a.b"]}
        for policy in ("resource.form.vdefault", "resource.form.vdefault/a")
    ]
    assert found["disabled_defs"] == [
        {"file": "off.yaml", "policy": "resource.note.vdefault", "position": {"line": 1, "column": 9}}
    ]


def test_what_is_wrong_with_a_file_as_json(store: Path) -> None:
    """A file that cannot be read is a load failure, with its kind, place and an excerpt."""
    (store / "doc.yaml").write_text(POLICY.replace("version:", "verzion:"))
    (failure,) = json.loads(run(store, "--output=json").stdout)["lintErrors"]["load_failures"]
    details = failure.pop("error_details")
    assert failure == {"file": "doc.yaml", "error": 'unknown field "verzion"'}
    assert (details["kind"], details["position"]["line"], details["position"]["column"]) == (1, 4, 3)
    assert details["context"].splitlines()[3:5] == [">  4 |   verzion: default", "         ^"]


def test_what_is_wrong_with_an_expression_as_json(store: Path) -> None:
    """What is wrong with policies by themselves is a compile error."""
    (store / "doc.yaml").write_text(POLICY.replace('"seen by " + P.id', "P.id +"))
    (error,) = without_context(json.loads(run(store, "--output=json").stdout)["compileErrors"]["errors"])
    assert (error["file"], error["error"]) == ("doc.yaml", "invalid expression")
    assert error["position"] == {
        "line": 6,
        "column": 71,
        "path": "$.resourcePolicy.rules[0].output.expr",
    }


def test_what_is_wrong_as_text(store: Path) -> None:
    """People see every kind of fault in a section of its own."""
    broken(store)
    lines = run(store).stdout.splitlines()
    for heading, line in (
        ("Disabled policies", "off.yaml:1:9 resource.note.vdefault"),
        (
            "Missing scopes",
            (
                "scoped policy resource.form.vdefault is not found but is required by descendant policies "
                "resource.form.vdefault/a.b"
            ),
        ),
        (
            "Duplicate definitions",
            "doc.yaml:1:11 duplicate definition of resource.doc.vdefault (previous definition in again.yaml)",
        ),
        (
            "Missing imports",
            'imports.yaml:5:24 cannot find derived roles "none" imported by resource.paper.vdefault',
        ),
    ):
        assert lines[lines.index(heading) + 1] == line


def test_warnings_do_not_disturb_what_machines_read(store: Path) -> None:
    """What looks like a mistake is said on standard error, whatever the format."""
    (store / "doc.yaml").write_text(
        POLICY.replace("[view], effect", "[view], condition: {match: {expr: '\"x\"'}}, effect")
    )
    result = run(store, "--output=json")
    assert json.loads(result.stdout)["summary"]["testsCount"] == 4
    assert result.stderr.startswith("warning: doc.yaml:6:")


def without_context(entries: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [{key: value for key, value in entry.items() if key != "context"} for entry in entries]
