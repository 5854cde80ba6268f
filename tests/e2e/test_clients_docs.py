"""The examples of docs/pdp-api.md, run as they are written there, on other ports."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from stack import POLICIES
from tests.e2e.node_clients import node_evaluation
from tests.e2e.pdp_server import extauthz

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.e2e.pdp_server import Served

DOCUMENT = Path(__file__).resolve().parents[2] / "docs" / "pdp-api.md"
EXAMPLE = re.compile(r"^```(\w+)\n((?:(?!```).*\n)*)```\n\n```text\n((?:(?!```).*\n)*)```", re.MULTILINE)
"""A block of code that is followed by what it prints."""
EXAMPLES = EXAMPLE.findall(DOCUMENT.read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    settings = {"pdp": {"explain": True}}
    with extauthz(tmp_path_factory.mktemp("docs"), POLICIES, settings) as served:
        yield served


def test_there_are_examples() -> None:
    """The document shows each way: two kinds of Python, JavaScript, an explanation, the command line."""
    assert [language for language, _, _ in EXAMPLES] == ["python", "python", "js", "python", "sh"]


@pytest.mark.parametrize(("language", "source", "output"), EXAMPLES)
def test_examples(server: Served, language: str, source: str, output: str) -> None:
    """Whoever copies an example sees what the document shows."""
    here = source.replace("http://localhost:3592", server.http).replace("localhost:3593", server.grpc)
    assert here != source
    assert run(language, here) == output.strip()


def run(language: str, source: str) -> str:
    folder = None
    if language == "js":
        command, folder = node_evaluation("grpc", source)
    elif language == "python":
        command = [sys.executable, "-c", source]
    else:
        command = [shutil.which("sh") or "sh", "-c", source]
    said = subprocess.run(  # noqa: S603  # our own document
        command, cwd=folder, capture_output=True, text=True, timeout=60, check=False
    )
    assert said.returncode == 0, said.stderr
    return said.stdout.strip()
