"""Policies in git: a change is tested on a branch, merged, and counts at the gateway within the interval."""

from __future__ import annotations

import subprocess
import sys
import time
from typing import TYPE_CHECKING, Any

import httpx
import pytest

from stack import POLICIES, ROOT, Configuration, Stack
from tests.e2e.harness import Traffic, eventually, marked_log, running, traffic
from tests.engine.storage.git_servers import HttpServer, Repository, served_over_https
from tokens import EMEA_MANAGER

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

OWN_REGION = ("GET /api/expenses/2", EMEA_MANAGER)
OTHER_REGION = ("GET /api/expenses/3", EMEA_MANAGER)

POLL = 1.0
"""Seconds between two looks at the repository."""

CONDITION = """\
      condition:
        match:
          expr: V.same_region
"""
REASON = '          conditionNotMet: \'{"reason": "expense'
"""How the line begins that tells whose expense it is; without a condition it says nothing."""

TESTS_FAILED = 4


def demo_policies() -> dict[str, bytes]:
    """Read the demo's policies and tests: what the branch is to become."""
    return {
        f"policies/{file.relative_to(POLICIES)}": file.read_bytes()
        for file in sorted(POLICIES.rglob("*"))
        if file.is_file()
    }


def without_region(final: Mapping[str, bytes]) -> dict[str, bytes]:
    """Return the policies before: managers read expenses of all regions, and nothing is tested."""
    before = {path: content for path, content in final.items() if "test" not in path}
    text = before["policies/expense.yaml"].decode()
    begin, rest = text.split("    - name: region\n")
    assert CONDITION in rest
    rule = rest.replace(CONDITION, "").replace(REASON, "#")
    before["policies/expense.yaml"] = f"{begin}    - name: region\n{rule}".encode()
    return before


@pytest.fixture
def repository(tmp_path: Path) -> Repository:
    return Repository(tmp_path / "repositories" / "policies.git")


@pytest.fixture
def server(repository: Repository, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[HttpServer]:
    with served_over_https(repository, tmp_path / "certificates", monkeypatch) as server:
        yield server


@pytest.fixture
def gateway(repository: Repository, server: HttpServer, tmp_path: Path) -> Iterator[Stack]:
    """Run a gateway that follows the branch `main`."""
    repository.commit(without_region(demo_policies()))
    block: dict[str, Any] = {
        **server.settings(repository.path),
        "branch": "main",
        "subDir": "policies",
        "checkoutDir": str(tmp_path / "checkout"),
        "updatePollInterval": f"{POLL:g}s",
    }

    def following(settings: Configuration) -> Configuration:
        settings["storage"] = {"driver": "git", "git": block}
        return settings

    directory = tmp_path / "stack"
    directory.mkdir()
    with running(Stack(directory, gateway=marked_log, settings=following)) as started:
        yield started


def compiled(repository: Repository, branch: str, archive: Path) -> int:
    """Compile and test a branch as CI does; the exit code."""
    repository.git("archive", "--format=tgz", f"--output={archive}", f"{branch}:policies")
    command = [sys.executable, "-m", "extauthz", "compile", str(archive)]
    return subprocess.run(command, cwd=ROOT, check=False, capture_output=True, timeout=60).returncode  # noqa: S603  # our own command line


def merged(repository: Repository, branch: str, clone: Path) -> str:
    """Merge a branch into `main`, as whoever reviewed it does; the id of the merge."""
    repository.git("clone", "--quiet", "--branch", "main", ".", str(clone))
    repository.git("-C", str(clone), "merge", "--quiet", "--no-ff", "-m", "Merge", f"origin/{branch}")
    repository.git("-C", str(clone), "push", "--quiet", "origin", "main")
    return repository.git("rev-parse", "main")


def changes(flow: Traffic) -> list[int | str]:
    """List the answers, each only where it differs from the one before."""
    statuses = flow.statuses
    return [status for index, status in enumerate(statuses) if index == 0 or status != statuses[index - 1]]


def readiness(stack: Stack) -> str:
    return httpx.get(stack.readyz(), timeout=5).text


def test_a_condition_is_added_on_a_branch(gateway: Stack, repository: Repository, tmp_path: Path) -> None:
    """A branch adds the condition on the region with its tests: red it stays out, green and merged it counts.

    The gateway is not restarted, no request fails, and nothing else changes.
    """
    final, first = demo_policies(), repository.git("rev-parse", "main")
    wrong = final["policies/expense.yaml"].replace(b"expr: V.same_region", b"expr: has(P.attr.region)")
    assert first in readiness(gateway)
    with traffic(gateway, OTHER_REGION, OWN_REGION) as (other, own):
        eventually(lambda: len(other.answers) > 20 and len(own.answers) > 20)
        repository.commit({**final, "policies/expense.yaml": wrong}, branch="region", onto=first)
        assert compiled(repository, "region", tmp_path / "red.tgz") == TESTS_FAILED
        repository.commit({"policies/expense.yaml": final["policies/expense.yaml"]}, branch="region")
        assert compiled(repository, "region", tmp_path / "green.tgz") == 0
        assert set(other.statuses) == {httpx.codes.OK}, "what is on a branch is not in force"
        merge = merged(repository, "region", tmp_path / "clone")
        eventually(lambda: other.statuses[-1] == httpx.codes.FORBIDDEN, patience=POLL + 8)
        changed = time.monotonic()
        eventually(lambda: len(other.since(changed)) > 50 and len(own.since(changed)) > 50)
        assert merge in readiness(gateway)
    assert changes(other) == [httpx.codes.OK, httpx.codes.FORBIDDEN]
    assert changes(own) == [httpx.codes.OK]
