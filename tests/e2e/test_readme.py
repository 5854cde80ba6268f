"""The README's first steps, done as they are written there, on other ports."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from stack import ROOT
from tests.ports import free_port

README = ROOT / "README.md"
PORTS = ("9191", "9192", "9901", "10000", "8080", "8081")
"""The ports of the README and of envoy/envoy.yaml."""

FILE = re.compile(r"^`([\w./]+\.yaml)`\n\n```yaml\n(.*?)^```", re.DOTALL | re.MULTILINE)
COMMANDS = re.compile(r"^```sh\n(.*?)^```", re.DOTALL | re.MULTILINE)
STARTED = re.compile(r"^((?:extauthz|python|envoy) .*&)$", re.MULTILINE)

PREAMBLE = "set -m\ntrap 'kill $(jobs -p) 2>/dev/null || :' EXIT\n"
"""Job control as in a terminal, and nothing left running."""

ANSWERS = "{ for _ in $(seq 200); do (echo > /dev/tcp/127.0.0.1/%s) 2>/dev/null && break; sleep 0.1; done; }"
"""Wait for a port: a person takes that long to read on."""

LISTENS = {"extauthz": "9191", "python": "8080", "envoy": "10000"}


def section() -> str:
    text = README.read_text(encoding="utf-8")
    return text[
        text.index("## Your first route and policy") : text.index("## How a request becomes a question")
    ]


def on_free_ports(text: str, ports: dict[str, str]) -> str:
    return re.sub(r"\b(" + "|".join(PORTS) + r")\b", lambda found: ports[found[0]], text)


def script(text: str) -> str:
    """Join the section's commands; a server started in the background is waited for."""
    joined = "".join(COMMANDS.findall(text)).replace(". .venv/bin/activate\n", "")
    return PREAMBLE + STARTED.sub(
        lambda found: f"{found[1]}\n{ANSWERS % LISTENS[found[1].split()[0]]}", joined
    )


@pytest.mark.skipif(not shutil.which("curl"), reason="the README's requests are curl's")
def test_first_steps(tmp_path: Path) -> None:
    """Whoever copies the README's files and commands gets the answers that it promises."""
    ports = {port: str(free_port()) for port in PORTS}
    shutil.copytree(ROOT / "envoy", tmp_path / "envoy")
    gateway = tmp_path / "envoy" / "envoy.yaml"
    gateway.write_text(on_free_ports(gateway.read_text(encoding="utf-8"), ports), encoding="utf-8")
    for name, content in FILE.findall(section()):
        file = tmp_path / "first" / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(on_free_ports(content, ports), encoding="utf-8")
    done = run(on_free_ports(script(section()), ports), tmp_path)
    assert "extauthz.yaml is good: 1 route" in done.stdout
    assert re.findall(r"^(allow|deny) gRPC", done.stdout, re.MULTILINE) == ["allow", "deny"]
    statuses = re.findall(r"HTTP/1.1 (\d+)", done.stdout)
    assert statuses == ["200", "403", "401"], done.stdout + done.stderr
    assert not (tmp_path / "first").exists()
    assert "you see expenses up to 100, not up to 500" in done.stdout


def run(commands: str, directory: Path) -> subprocess.CompletedProcess[str]:
    """Run *commands* as in a terminal where the environment is activated."""
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    return subprocess.run(  # noqa: S603  # the README's own commands
        ["bash", "-c", commands],  # noqa: S607  # the user's own shell
        cwd=directory,
        env={**os.environ, "PATH": path},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
