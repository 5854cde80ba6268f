"""The examples of docs/admin-api.md, run as they are written there, one after the other, on other ports."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.e2e.pdp_server import extauthz
from tests.extauthz.admin.serving import PASSWORD, USERNAME, password_hash, sqlite

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.e2e.pdp_server import Served

DOCUMENT = Path(__file__).resolve().parents[2] / "docs" / "admin-api.md"
EXAMPLE = re.compile(r"^```sh\n((?:(?!```).*\n)*)```\n\n```text\n((?:(?!```).*\n)*)```", re.MULTILINE)
"""A block of code that is followed by what it prints."""
EXAMPLES = EXAMPLE.findall(DOCUMENT.read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    folder = tmp_path_factory.mktemp("docs")
    credentials = {"username": USERNAME, "passwordHash": password_hash()}
    settings = {
        "server": {"adminAPI": {"enabled": True, "adminCredentials": credentials}},
        "storage": sqlite(folder),
    }
    with extauthz(folder, folder, settings) as served:
        yield served


def test_examples(server: Served, tmp_path: Path) -> None:
    """Whoever copies one example after the other sees what the document shows."""
    assert len(EXAMPLES) == 5
    bin_folder = Path(sys.executable).parent
    environment = {
        **os.environ,
        "PATH": f"{bin_folder}{os.pathsep}{os.environ['PATH']}",
        "HOME": os.fspath(tmp_path),
        "CERBOS_SERVER": server.grpc,
        "CERBOS_USERNAME": USERNAME,
        "CERBOS_PASSWORD": PASSWORD,
    }
    for source, output in EXAMPLES:
        here = source.replace("http://localhost:3592", server.http)
        here = here.replace("extauthz ctl", "extauthz ctl --plaintext")
        said = subprocess.run(  # noqa: S603  # our own document
            [shutil.which("sh") or "sh", "-c", f"exec 2>&1\n{here}"],
            cwd=tmp_path,
            env=environment,
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        found = [line.rstrip() for line in said.stdout.strip().splitlines()]
        assert found == [line.rstrip() for line in output.strip().splitlines()], source
