"""The tutorial from an empty repository to a gateway that follows it, done as it is written."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from stack import ROOT
from tests.e2e.test_readme import ANSWERS, COMMANDS, PORTS, PREAMBLE, on_free_ports
from tests.ports import free_port

DOCUMENT = ROOT / "docs" / "gitops.md"
KIT = ROOT / "envoy" / "examples" / "policy-repository"

STARTED = re.compile(r"^((extauthz|python|envoy) .*&)$", re.MULTILINE)
LISTENS = {"extauthz": "9191", "python": "8080", "envoy": "10000"}
IN_FORCE = "for _ in $(seq 300); do %s | grep -q ' 403' && break; sleep 0.1; done"
"""A person looks again after two seconds; a loaded machine may need longer."""

WHO = {
    "GIT_AUTHOR_NAME": "test",
    "GIT_AUTHOR_EMAIL": "test@example.com",
    "GIT_COMMITTER_NAME": "test",
    "GIT_COMMITTER_EMAIL": "test@example.com",
    "GIT_CONFIG_GLOBAL": os.devnull,
    "GIT_CONFIG_SYSTEM": os.devnull,
}


def script() -> str:
    """Join the tutorial's commands; servers are waited for, and so is the change."""
    joined = "".join(COMMANDS.findall(DOCUMENT.read_text(encoding="utf-8")))
    joined = joined.replace(". .venv/bin/activate\n", "")
    joined = STARTED.sub(lambda found: f"{found[1]}\n{ANSWERS % LISTENS[found[2]]}", joined)
    ask = re.findall(r"^(curl .*emil.*?)  +#", joined, re.MULTILINE)[-1]
    assert "\nsleep 2\n" in joined
    return f"{PREAMBLE}set -e\n" + joined.replace("\nsleep 2\n", f"\n{IN_FORCE % ask}\n")


@pytest.mark.skipif(not shutil.which("curl"), reason="the tutorial's requests are curl's")
@pytest.mark.skipif(not shutil.which("git"), reason="the tutorial's repository is git's")
def test_tutorial(tmp_path: Path) -> None:
    """What is merged decides without a restart, what fails its tests stays out, and each step says so."""
    ports = {port: str(free_port()) for port in PORTS}
    shutil.copytree(ROOT / "envoy", tmp_path / "envoy")
    for file in ("envoy/envoy.yaml", "envoy/examples/policy-repository/gateway.yaml"):
        written = tmp_path / file
        written.write_text(on_free_ports(written.read_text(encoding="utf-8"), ports), encoding="utf-8")
    done = run(on_free_ports(script(), ports), tmp_path)
    output = done.stdout + done.stderr
    assert done.returncode == 0, output
    statuses = re.findall(r"HTTP/1.1 (\d+)", done.stdout)
    assert statuses == ["200", "200", "200", "403"], output
    assert "1 policy of revision" in done.stdout
    assert re.findall(r"^exit code (\d)$", done.stdout, re.MULTILINE) == ["4", "1"], output
    assert "4 tests executed [3 OK] [1 FAILED]" in done.stdout
    assert "1 change: 1 denied now" in done.stdout
    assert not (tmp_path / "gitops").exists()


def run(commands: str, directory: Path) -> subprocess.CompletedProcess[str]:
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    return subprocess.run(  # noqa: S603  # the tutorial's own commands
        ["bash", "-c", commands],  # noqa: S607  # the user's own shell
        cwd=directory,
        env={**os.environ, **WHO, "PATH": path},
        capture_output=True,
        text=True,
        timeout=180,
        check=False,
    )


# --- the workflows ----------------------------------------------------------------------------------------


def workflows() -> dict[str, list[str]]:
    """Return the commands of both workflows, line by line."""
    github = yaml.safe_load((KIT / ".github" / "workflows" / "policies.yaml").read_text(encoding="utf-8"))
    gitlab = yaml.safe_load((KIT / ".gitlab-ci.yml").read_text(encoding="utf-8"))
    return {
        "github": [step["run"] for job in github["jobs"].values() for step in job["steps"] if "run" in step],
        "gitlab": [line for job in ("policies", "bundle") for line in gitlab[job]["script"]],
    }


@pytest.mark.parametrize("name", ["github", "gitlab"])
def test_workflows(name: str, tmp_path: Path) -> None:
    """Both workflows compile, test, report and compare as they stand, on a repository like the kit."""
    repository = tmp_path / "repository"
    shutil.copytree(KIT, repository)
    (compile_and_test,) = [text for text in workflows()[name] if "extauthz compile" in text]
    (compare,) = [text for text in workflows()[name] if "extauthz diff" in text]
    begin = (
        "git init -q -b main; git add .; git commit -qm first; git update-ref refs/remotes/origin/main main"
    )
    change = "sed -i 's/roles: \\[manager\\]/roles: [manager, auditor]/' policies/expense.yaml"
    variables = (
        "export GITHUB_BASE_REF=main CI_MERGE_REQUEST_TARGET_BRANCH_NAME=main GITHUB_STEP_SUMMARY=summary.md"
    )
    done = run(f"set -e\n{variables}\n{begin}\n{compile_and_test}\n{change}\n{compare}", repository)
    assert done.returncode == 0, done.stdout + done.stderr
    assert 'tests="4"' in (repository / "results.xml").read_text(encoding="utf-8")
    assert "<html" in (repository / "coverage.html").read_text(encoding="utf-8")
    assert "allowed now | `expense` | `read`" in (repository / "decisions.md").read_text(encoding="utf-8")


@pytest.mark.parametrize(("name", "key"), [("github", '"$(cat signing.pem)"'), ("gitlab", "signing.pem")])
def test_workflows_build_bundles(name: str, key: str, tmp_path: Path) -> None:
    """Both workflows build and sign a bundle as they stand, which the public key then verifies."""
    repository = tmp_path / "repository"
    shutil.copytree(KIT, repository)
    (build,) = [text for text in workflows()[name] if "extauthz bundle build" in text]
    keys = f"extauthz bundle keygen -o signing\nexport BUNDLE_KEY={key} GITHUB_RUN_NUMBER=7 CI_PIPELINE_IID=7"
    verify = "extauthz bundle verify policies.bundle --public-key signing.pub.pem"
    done = run(f"set -e\n{keys}\n{build}\n{verify}", repository)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "expenses" in done.stdout
