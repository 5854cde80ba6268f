"""``extauthz diff``: states of policies from directories and commits, and how differences are told."""

from __future__ import annotations

import json
import re
import subprocess
from typing import TYPE_CHECKING, Any

import pytest
from click.testing import CliRunner, Result

from engine.comparison import Case, Change, Comparison, Said
from engine.model import CheckInput, Effect, Principal, Resource
from extauthz.cli import main
from extauthz.diffing.report import markdown

if TYPE_CHECKING:
    from pathlib import Path

POLICY = """
apiVersion: api.cerbos.dev/v1
resourcePolicy:
  resource: expense
  version: default
  rules:
    - name: small
      actions: [approve]
      effect: EFFECT_ALLOW
      roles: [manager]
      condition: {match: {expr: R.attr.amount < 100.0}}
      output: {when: {ruleActivated: '"approved `by` | " + P.id'}}
"""
LARGER = POLICY.replace("100.0", "200.0")


def diff(*arguments: object) -> Result:
    return CliRunner().invoke(main, ["diff", *map(str, arguments)])


@pytest.fixture
def old(tmp_path: Path) -> Path:
    return state(tmp_path / "old", POLICY)


@pytest.fixture
def new(tmp_path: Path) -> Path:
    return state(tmp_path / "new", LARGER)


def state(directory: Path, policy: str) -> Path:
    directory.mkdir(parents=True, exist_ok=True)
    (directory / "expense.yaml").write_text(policy)
    return directory


def test_no_difference(old: Path) -> None:
    """The same policies: exit code 0, and how much was asked."""
    result = diff(old, old)
    assert (result.exit_code, result.output) == (
        0,
        "no decision changes; 2,000 questions asked (2,000 generated)\n",
    )


def test_a_difference(old: Path, new: Path) -> None:
    """A decision that changes: exit code 1, a table, one question for each change."""
    result = diff(old, new, "--generated", 500)
    assert result.exit_code == 1
    assert "allowed now" in result.output
    assert "[manager] on" in result.output
    assert result.output.endswith("1 change: 1 allowed now; 500 questions asked (500 generated)\n")


def test_json(old: Path, new: Path) -> None:
    """The JSON holds the whole question, in the form of a decision log, which can be asked again."""
    report = json.loads(diff(old, new, "-o", "json").output)
    (change,) = report["changes"]
    assert (change["kind"], change["action"]) == ("expense", "approve")
    assert change["old"] == {"effect": "EFFECT_DENY", "policy": "resource.expense.vdefault", "rule": ""}
    assert change["new"]["rule"] == "small"
    assert change["example"]["input"]["principal"]["roles"] == ["manager"]
    assert 100 <= change["example"]["input"]["resource"]["attr"]["amount"] < 200


def test_markdown(old: Path, new: Path) -> None:
    """The Markdown is a table; what policies say cannot break out of it."""
    state(new, POLICY.replace("approved", "granted"))
    text = diff(old, new, "-o", "markdown").output
    (row,) = [line for line in text.splitlines() if line.startswith("| 🔵")]
    assert "granted 'by' \\| " in row
    assert row.replace("\\|", "").count("|") == 7


def test_markdown_of_hostile_texts() -> None:
    """Neither a backslash before a bar nor the name of a test gets out of its code and its cell."""
    name = "suite/![seen](https://tracker.example/) \\\\|`<img> @everyone"
    principal, resource = Principal("p", ("user",)), Resource("x\\|![](//y)", "r")
    case = Case("test", name, CheckInput(principal, resource, ("view",)))
    said = Said(Effect.DENY, "resource.x.vdefault", "")
    allowed = Said(Effect.ALLOW, "resource.x.vdefault", "r")
    change = Change(resource.kind, "view", said, allowed, "", {"test": 1}, case)
    text = markdown(Comparison({"test": 1}, (change,)), "a", "b")
    hostile = [line for line in text.splitlines() if "![" in line]
    assert len(hostile) == 2
    for line in hostile:
        assert "![" not in "".join(line.split("`")[::2])  # what is not in backticks
        assert not re.search(r"\\\\\|", line)


def test_policies_that_do_not_compile(old: Path, new: Path) -> None:
    """What is wrong with a side is told with its place; exit code 3."""
    state(new, POLICY.replace("R.attr.amount < 100.0", "R.attr.amount <"))
    result = diff(old, new)
    assert result.exit_code == 3
    assert "expense.yaml:11:27" in result.output
    assert "do not compile" in result.output


def test_decision_logs(old: Path, new: Path, tmp_path: Path) -> None:
    """What a decision log says was asked is asked again; a broken log is refused with its line."""
    example: dict[str, Any] = json.loads(diff(old, new, "-o", "json").output)["changes"][0]["example"]
    log = tmp_path / "audit.log"
    log.write_text(json.dumps({"checkResources": {"inputs": [example["input"]]}}))
    result = diff(old, new, "--generated", 0, "--log", log)
    assert result.exit_code == 1
    assert f"{log}:1" in result.output
    log.write_text("{}\n{")
    result = diff(old, new, "--log", log)
    assert (result.exit_code, f"{log}:2:1: not an entry" in result.output) == (2, True)


# --- commits ----------------------------------------------------------------------------------------------


def git(repository: Path, *arguments: str) -> None:
    who = ("-c", "user.name=test", "-c", "user.email=test@example.com", "-c", "commit.gpgsign=false")
    subprocess.run(["git", "-C", str(repository), *who, *arguments], check=True, capture_output=True)  # noqa: S603, S607 - git, with our own arguments


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    """Make a repository: first the old policies, then the new ones, tagged ``v2``."""
    made = tmp_path / "repository"
    state(made / "policies", POLICY)
    git(made.parent, "init", "-q", "-b", "main", str(made))
    for message, policy in (("first", POLICY), ("second", LARGER)):
        state(made / "policies", policy)
        git(made, "add", ".")
        git(made, "commit", "-q", "-m", message)
    git(made, "tag", "v2")
    return made


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (["main~1"], ["v2", "--dir", "policies"]),
        (["HEAD^:policies"], ["main:policies"]),
        (["main~:policies"], ["v2:policies/"]),
    ],
)
def test_commits(old: list[str], new: list[str], repository: Path) -> None:
    """Branches, tags and their ancestors are states too, of the whole repository or of a directory in it."""
    directory = [] if "--dir" in new else ["--dir", ""]
    result = diff(*old, *new, *directory, "--repo", repository, "--generated", 500)
    assert (result.exit_code, "1 change: 1 allowed now" in result.output) == (1, True), result.output


def test_a_commit_against_a_directory(repository: Path) -> None:
    """What is not committed yet can be compared with a branch."""
    state(repository / "policies", POLICY)
    assert diff("main:policies", repository / "policies", "--repo", repository).exit_code == 1
    assert diff("main~1:policies", repository / "policies", "--repo", repository).exit_code == 0


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("nowhere", "there is no file or directory `nowhere`, and no commit of that name"),
        ("main~9", "there is no file or directory `main~9`, and no commit of that name"),
        ("main:elsewhere", "there is no file in `elsewhere` of commit `main`"),
    ],
)
def test_a_state_that_is_not_there(name: str, message: str, repository: Path) -> None:
    """A name that means nothing is told; exit code 2."""
    result = diff(name, repository / "policies", "--repo", repository)
    assert (result.exit_code, result.output) == (2, f"extauthz: error: {message}\n")


def test_no_repository(tmp_path: Path) -> None:
    """Outside of a repository a revision is no state."""
    result = diff("main", tmp_path, "--repo", tmp_path)
    assert result.exit_code == 2
    assert "and no git repository at" in result.output
