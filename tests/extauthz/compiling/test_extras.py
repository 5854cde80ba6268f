"""`extauthz compile` with coverage reports, a threshold, a cross-check."""

from __future__ import annotations

import json
from html.parser import HTMLParser
from typing import TYPE_CHECKING, Any

import pytest
from click.testing import CliRunner

from engine import cross_check
from engine.cross_check import CrossCheckReport, Disagreement
from extauthz.cli import main
from extauthz.compiling import second_look

if TYPE_CHECKING:
    from pathlib import Path

    from click.testing import Result

POLICY = """\
apiVersion: api.cerbos.dev/v1
resourcePolicy:
  resource: document
  version: default
  rules:
    - name: read
      actions: [read]
      effect: EFFECT_ALLOW
      roles: [user]
      condition: {match: {expr: 'R.attr.title != "<b>" && now() > timestamp("2000-01-01T00:00:00Z")'}}
    - {name: purge, actions: [purge], effect: EFFECT_DENY, roles: [user]}
"""
SUITE = """\
name: documents
options: {now: "2024-01-01T00:00:00Z"}
principals: {ann: {id: ann, roles: [user]}}
resources: {one: {kind: document, id: one, attr: {title: "<i>"}}}
tests:
  - name: reading
    input: {principals: [ann], resources: [one], actions: [read]}
    expected: [{principal: ann, resource: one, actions: {read: EFFECT_ALLOW}}]
"""


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    policies = tmp_path / "policies"
    policies.mkdir()
    (policies / "document.yaml").write_text(POLICY)
    (policies / "document_test.yaml").write_text(SUITE)
    return policies


def run(directory: Path, *options: str) -> Result:
    return CliRunner().invoke(main, ["compile", str(directory), *options])


def test_coverage_as_text(directory: Path) -> None:
    """The table and the list of what is missing follow the results of the tests."""
    result = run(directory, "--coverage", "text")
    assert result.exit_code == 0
    assert "document.yaml    1/2         1/2" in result.stdout
    assert "document.yaml:11:7 rule `purge`: no test asks for it" in result.stdout


def test_coverage_as_json(directory: Path, tmp_path: Path) -> None:
    """The file has the documented form; folders on the way are made."""
    file = tmp_path / "out" / "coverage.json"
    assert run(directory, "--coverage", f"json:{file}").exit_code == 0
    report = json.loads(file.read_bytes())
    assert (report["version"], report["questions"]) == (1, 1)
    assert report["total"] == {"covered": 2, "marks": 4, "percent": 50.0}
    (policy,) = report["policies"]
    assert policy["policy"] == "resource.document.vdefault"
    assert policy["items"][0] == {
        "kind": "rule",
        "name": "read",
        "rule": "",
        "path": "$.resourcePolicy.rules[0]",
        "line": 6,
        "column": 7,
        "lastLine": 10,
        "covered": True,
        "used": True,
        "marks": {"activated": 1},
        "gap": "",
        "notes": [],
    }


class Page(HTMLParser):
    VOID = ("meta",)

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def page_of(directory: Path, tmp_path: Path) -> tuple[str, Page]:
    file = tmp_path / "coverage.html"
    assert run(directory, "--coverage", f"html:{file}").exit_code == 0
    text = file.read_text()
    return text, Page(text)


def test_the_page_needs_nothing_else(directory: Path, tmp_path: Path) -> None:
    """No script, no other file, no other host; the browser is told to hold the page to it."""
    text, page = page_of(directory, tmp_path)
    names = {tag for tag, _ in page.tags}
    assert names.isdisjoint({"script", "link", "img", "iframe", "object"})
    assert not any("style" in attrs or "src" in attrs for _, attrs in page.tags)
    assert all((attrs["href"] or "").startswith("#") for tag, attrs in page.tags if tag == "a")
    security = next(attrs["content"] for tag, attrs in page.tags if "http-equiv" in attrs)
    assert (security or "").startswith("default-src 'none'; style-src 'sha256-")
    assert "url(" not in text
    assert page.open == []


def test_the_page_shows_the_source_with_its_marks(directory: Path, tmp_path: Path) -> None:
    """Every line of a policy is there; lines of items have a state, and words for what is missing."""
    text, page = page_of(directory, tmp_path)
    lines = [attrs for tag, attrs in page.tags if tag == "tr" and (attrs.get("id") or "").startswith("f1l")]
    assert len(lines) == len(POLICY.splitlines())
    states = {attrs["id"]: attrs["class"] for attrs in lines}
    assert states["f1l6"] == "covered in-partial"
    assert states["f1l10"] == "partial in-partial"
    assert states["f1l11"] == "missed in-missed"
    assert states["f1l1"] == ""
    titles = {attrs["id"]: attrs.get("title") for attrs in lines}
    assert titles["f1l10"] == "partly covered; never false"
    assert '<a href="#f1l11">document.yaml:11</a> rule <code>purge</code>: no test asks for it' in text


def test_the_page_escapes_what_policies_say(directory: Path, tmp_path: Path) -> None:
    """Markup in a policy is text in the page."""
    text, _ = page_of(directory, tmp_path)
    assert "<b>" not in text
    assert "&lt;b&gt;" in text


@pytest.mark.parametrize(("least", "code"), [("50", 0), ("50.1", 4)])
def test_a_threshold(directory: Path, least: str, code: int) -> None:
    """Coverage below the threshold fails as tests do, and names what is missing first."""
    result = run(directory, "--fail-under", least)
    assert result.exit_code == code
    first = "first of what is missing: document.yaml:10: condition"
    complaint = f"extauthz: error: coverage is 50 %, not {least} %; {first}"
    assert (complaint in result.stderr) is bool(code)


def test_machines_read_standard_output_alone(directory: Path) -> None:
    """Where the results are for a machine, the table goes to standard error."""
    result = run(directory, "--test-output", "json", "--coverage", "text", "--cross-check")
    assert json.loads(result.stdout)["summary"]["overallResult"] == "RESULT_PASSED"
    assert "not covered:" in result.stderr
    assert "cross-check: 0 evaluations" in result.stderr


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        (("--coverage", "xml:x"), "`xml` is no format: there are text, json, html"),
        (("--coverage", "html"), "say where to put it: `html:FILE`"),
        (("--coverage", "text:"), "`text:` names no file"),
        (("--fail-under", "101"), "101"),
        (("--cross-check", "--skip-tests"), "need the tests"),
    ],
)
def test_wrong_options(directory: Path, options: tuple[str, ...], complaint: str) -> None:
    """What cannot be meant is refused as a wrong command line."""
    result = run(directory, *options)
    assert result.exit_code == 2
    assert complaint in result.stderr


def test_a_report_is_no_policy(directory: Path) -> None:
    """A report that the next run would read as a policy is refused."""
    result = run(directory, "--coverage", f"json:{directory / 'coverage.json'}")
    assert result.exit_code == 2
    assert "would be read as a policy" in result.stderr


def test_the_extra_has_to_be_installed(directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without cel-python the option says how to get it."""
    monkeypatch.setattr(cross_check, "is_available", lambda: False)
    result = run(directory, "--cross-check")
    assert result.exit_code == 2
    assert "pip install" in result.stderr


def test_a_cross_check(directory: Path) -> None:
    """It is said how much was compared, and why the rest was not."""
    (directory / "document.yaml").write_text(POLICY.replace("now()", 'timestamp("2024-01-01T00:00:00Z")'))
    result = run(directory, "--cross-check")
    assert result.exit_code == 0
    assert (
        "cross-check: 1 evaluation of 1 expression compared with cel-python, 0 disagreements" in result.stdout
    )
    result = run(directory, "--cross-check", "--coverage", "text")
    assert result.exit_code == 0


def test_a_disagreement_fails(directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The command fails with the place, the expression, both answers and the inputs."""
    found = Disagreement("document.yaml:10:31", "R.attr.x", {"R.attr.x": "[1]"}, "1", "2")
    report = CrossCheckReport(1, 1, {}, (found,))

    def answer(*_: Any) -> CrossCheckReport:
        return report

    monkeypatch.setattr(second_look, "cross_checked", answer)
    result = run(directory, "--cross-check")
    assert result.exit_code == 4
    assert str(found) in result.stdout
    assert "R.attr.x = [1]" in result.stdout
    assert "cel-python disagrees about 1 expression" in result.stderr
