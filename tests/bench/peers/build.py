"""Builds the Go servers of the comparison into ``.peers``; ``python -m tests.bench.peers.build``."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).resolve().parents[3]
SOURCE: Final = Path(__file__).resolve().parent / "go"
BINARIES: Final = ROOT / ".peers" / "go" / "bin"
PATIENCE: Final = 900.0
"""Seconds; OPA alone takes one to two minutes on two cores, the first time."""


def binary(name: str) -> Path:
    """Return where a server is once it is built."""
    return BINARIES / name


def missing(name: str) -> str | None:
    """Say why a server cannot be run; None if it can."""
    if binary(name).is_file():
        return None
    if shutil.which("go") is None:
        return "no Go toolchain to build it"
    return "not built: `make bench-peers` does it, and says at its start what is in the way"


def build() -> None:
    """Build both; the modules come from Go's module proxy, pinned and checked by ``go.sum``.

    Raises:
        subprocess.CalledProcessError: it does not compile, or a module cannot be had.

    """
    go = shutil.which("go")
    if go is None:
        sys.stdout.write("no Go toolchain: the peers written in Go are left out, except Cerbos itself\n")
        return
    BINARIES.mkdir(parents=True, exist_ok=True)
    environment = {**os.environ, "GOFLAGS": "-mod=readonly -buildvcs=false"}
    command = [go, "build", "-o", str(BINARIES), "./cmd/..."]
    subprocess.run(command, cwd=SOURCE, env=environment, check=True, timeout=PATIENCE)  # noqa: S603 # our own words


def versions() -> dict[str, str]:
    """Tell the versions of Go and of the modules that the servers are made of."""
    go = shutil.which("go")
    if go is None or not BINARIES.is_dir():
        return {}
    files = sorted(map(str, BINARIES.iterdir()))
    said = subprocess.run([go, "version", "-m", *files], capture_output=True, text=True, check=True)  # noqa: S603 # our own words
    return module_versions(said.stdout)


SHOWN: Final = {
    "github.com/open-policy-agent/opa": "OPA",
    "google.golang.org/grpc": "grpc-go",
}


def module_versions(text: str) -> dict[str, str]:
    """Read the output of ``go version -m``."""
    found: dict[str, str] = {}
    for line in text.splitlines():
        words = line.split()
        if words[:1] == ["dep"] and words[1] in SHOWN:
            found[SHOWN[words[1]]] = words[2]
        elif len(words) == 2 and words[1].startswith("go1"):
            found["Go"] = words[1].removeprefix("go")
    return found


if __name__ == "__main__":
    try:
        build()
    except subprocess.CalledProcessError as failed:
        sys.exit(failed.returncode)
