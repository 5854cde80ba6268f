"""Servers that the remote stores are judged against; ``python -m tests.engine.storage.peers`` builds them.

versitygw speaks S3 in front of a directory, as people run it; fake-gcs-server is the emulator of Google Cloud
Storage that Google's libraries are tested with. Both are Go programs, built from the Go module proxy, which
checks them against Go's checksum database. The OCI registry is Debian's ``docker-registry``.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[3]
FOLDER = ROOT / ".peers" / "go"

PROGRAMS = {
    "versitygw": "github.com/versity/versitygw/cmd/versitygw@v1.8.0",
    "fake-gcs-server": "github.com/fsouza/fake-gcs-server@v1.56.1",
}
"""The versions that the tests are written against."""


def binary(name: str) -> Path:
    """Return where a program is once it is built."""
    return FOLDER / "bin" / name


def install() -> None:
    """Build what is missing; some minutes.

    Raises:
        SystemExit: there is no Go.
        subprocess.CalledProcessError: a program does not build.

    """
    go = shutil.which("go")
    if go is None:
        raise SystemExit("no go: the servers of the blob tests are Go programs")
    for name, module in PROGRAMS.items():
        if not binary(name).is_file():
            environment = {**os.environ, "GOBIN": str(binary(name).parent)}
            subprocess.run([go, "install", module], check=True, env=environment)  # noqa: S603 - all of it from this file


if __name__ == "__main__":
    try:
        install()
    except subprocess.CalledProcessError as failed:
        sys.exit(failed.returncode)
