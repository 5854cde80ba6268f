"""Which Cerbos decides what is right, and its ``cerbosctl``.

``python -m tests.differential.peers`` installs them from npm.
"""

from __future__ import annotations

import platform
import shutil
import subprocess
import sys
from pathlib import Path

VERSION = "0.55.0"
"""The version that the tests are written against."""

ROOT = Path(__file__).resolve().parents[2]
FOLDER = ROOT / ".peers" / "cerbos"
"""A folder of its own: npm removes from a folder what it has not been asked for there."""

_MACHINES = {"x86_64": "x64", "amd64": "x64", "aarch64": "arm64", "arm64": "arm64"}


CERBOS = "cerbos"
CERBOSCTL = "cerbosctl"


def package(program: str = CERBOS) -> str:
    """Return the name of the npm package of a program, and of the binary in it, for this machine."""
    machine = platform.machine().lower()
    return f"{program}-{platform.system().lower()}-{_MACHINES.get(machine, machine)}"


def installed(program: str = CERBOS) -> Path:
    """Return where the binary of a program is once it is installed."""
    return FOLDER / "node_modules" / "@cerbos" / package(program) / package(program)


def install() -> None:
    """Install both programs in the pinned version; npm checks the packages against their hashes.

    Raises:
        SystemExit: there is no npm, no such package for this machine, or no network.

    """
    npm = shutil.which("npm")
    if npm is None:
        raise SystemExit("no npm: install Node.js, or set CERBOS_BINARY")
    FOLDER.mkdir(parents=True, exist_ok=True)
    programs = (CERBOS, CERBOSCTL)
    wanted = [f"@cerbos/{package(program)}@{VERSION}" for program in programs]
    options = ("--no-save", "--no-package-lock", "--no-audit", "--no-fund", "--ignore-scripts")
    subprocess.run([npm, "install", "--prefix", FOLDER, *options, *wanted], check=True)  # noqa: S603 - all of it from this file
    for program in programs:
        if not installed(program).is_file():
            raise SystemExit(f"npm has installed no {installed(program).name}")


if __name__ == "__main__":
    try:
        install()
    except subprocess.CalledProcessError as failed:
        sys.exit(failed.returncode)
