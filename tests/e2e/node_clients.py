"""The clients from npm: installed once, outside the tree that is under version control, and found again.

``clients/package-lock.json`` pins every package with its digest. Where there is no Node.js, or npm cannot
reach its registry, tests that need them are skipped with the reason; in CI (``CI=true``) they fail.
"""

from __future__ import annotations

import functools
import hashlib
import os
import shutil
import subprocess
from pathlib import Path

import pytest

HERE = Path(__file__).with_name("clients")
INSTALLED = Path(__file__).resolve().parents[2] / ".peers" / "clients"
"""Ignored by git. The scripts are copied there, because Node.js looks for packages beside them."""
MARK = ".installed"
REQUIRED = os.environ.get("CI", "").lower() == "true"
INSTALL_SECONDS = 300.0


def node_command(workspace: str, script: str, *arguments: str) -> tuple[list[str], dict[str, str]]:
    """Return the command line that runs a script of a workspace, and its environment."""
    return [_node(), str(_folder() / workspace / script), *arguments], dict(os.environ)


def node_evaluation(workspace: str, source: str) -> tuple[list[str], Path]:
    """Return the command line that runs *source*, and the folder where it finds a workspace's packages."""
    return [_node(), "--input-type=module", "-e", source], _folder() / workspace


def _node() -> str:
    return shutil.which("node") or _missing("no Node.js: install node and npm")


@functools.cache
def _folder() -> Path:
    _copy_sources()
    if not _is_installed():
        _install()
    return INSTALLED


def _copy_sources() -> None:
    for source in HERE.rglob("*"):
        target = INSTALLED / source.relative_to(HERE)
        if source.is_file() and (not target.exists() or target.read_bytes() != source.read_bytes()):
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(source, target)


def _digest() -> str:
    return hashlib.sha256((HERE / "package-lock.json").read_bytes()).hexdigest()


def _is_installed() -> bool:
    mark = INSTALLED / MARK
    return mark.is_file() and mark.read_text(encoding="ascii") == _digest()


def _install() -> None:
    npm = shutil.which("npm") or _missing("no npm: install node and npm")
    command = [npm, "ci", "--no-audit", "--no-fund", "--ignore-scripts"]
    try:
        said = subprocess.run(  # noqa: S603  # npm, and what the lock file pins
            command, cwd=INSTALLED, capture_output=True, text=True, timeout=INSTALL_SECONDS, check=False
        )
    except subprocess.TimeoutExpired:
        _missing(f"npm has not installed the clients within {INSTALL_SECONDS:.0f} s")
    if said.returncode:
        _missing(f"npm cannot install the clients: {said.stderr.strip()[-500:]}")
    (INSTALLED / MARK).write_text(_digest(), encoding="ascii")


def _missing(reason: str) -> str:
    """Skip the test; in CI fail it."""
    if REQUIRED:
        pytest.fail(reason)
    pytest.skip(reason)
