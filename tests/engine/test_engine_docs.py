"""The examples of docs/engine.md, run in order as they stand there."""

from __future__ import annotations

import contextlib
import importlib.util
import io
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx
import pytest
from starlette.applications import Starlette
from starlette.responses import PlainTextResponse
from starlette.routing import Route

from engine import Effect, Engine, Principal, Resource

if TYPE_CHECKING:
    from collections.abc import Iterator

DOCUMENT = Path(__file__).resolve().parents[2] / "docs/engine.md"
TEXT = DOCUMENT.read_text(encoding="utf-8")
EXAMPLE = re.compile(
    r"^```python\n((?:(?!```).*\n)*)```\n(?:\n```text\n((?:(?!```).*\n)*)```)?", re.MULTILINE
)
"""A block of Python, and what it prints."""

FRAMEWORKS = ("fastapi", "django")
BROKEN = """
apiVersion: api.cerbos.dev/v1
resourcePolicy:
  resource: expense
  version: default
  rules: [{actions: [read], roles: [user], efect: EFFECT_ALLOW}]
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Run the examples where their policies are."""
    folder = tmp_path_factory.mktemp("docs")
    (folder / "policies").mkdir()
    (folder / "broken").mkdir()
    policies = re.findall(r"^```yaml\n(.*?)^```", TEXT, re.MULTILINE | re.DOTALL)[0]
    for index, policy in enumerate(policies.split("---\n")):
        (folder / f"policies/{index}.yaml").write_text(policy)
    (folder / "broken/expense.yaml").write_text(BROKEN)
    with contextlib.chdir(folder):
        yield folder


@pytest.fixture(scope="module")
def names(folder: Path) -> dict[str, Any]:
    """Run all examples that need no framework; the last of them leaves its names."""
    assert folder.is_dir()
    found: dict[str, Any] = {}
    for source, output in EXAMPLE.findall(TEXT):
        if not needs_a_framework(source):
            printed = io.StringIO()
            with contextlib.redirect_stdout(printed):
                exec(compile(source, DOCUMENT.name, "exec"), found)  # noqa: S102 - our own document
            assert printed.getvalue() == output
    return found


def needs_a_framework(source: str) -> bool:
    return any(f"from {name}" in source for name in FRAMEWORKS)


def test_examples_print_what_the_document_says(names: dict[str, Any]) -> None:
    """Each example runs, and prints what stands below it."""
    assert isinstance(names["engine"], Engine)
    assert sum(not needs_a_framework(source) for source, _ in EXAMPLE.findall(TEXT)) >= 8


async def test_the_middleware(names: dict[str, Any]) -> None:
    """The ASGI example lets through what the policies allow, and nothing else."""
    app = Starlette(
        routes=[Route("/{who}", lambda _: PlainTextResponse("shown"), methods=["READ", "APPROVE"])]
    )
    guarded = names["Authorized"](
        app,
        names["engine"],
        lambda scope: Principal(scope["path"][1:], ("user",)),
        lambda _: Resource("expense", "42", {"owner": "ann"}),
    )
    async with httpx.AsyncClient(transport=httpx.ASGITransport(guarded), base_url="http://test") as client:
        answers = [
            await client.request(*asked)
            for asked in (("READ", "/ann"), ("READ", "/bob"), ("APPROVE", "/ann"))
        ]
    assert [(answer.status_code, answer.text) for answer in answers] == [
        (200, "shown"),
        (403, "not allowed"),
        (403, "not allowed"),
    ]


@pytest.mark.parametrize("framework", FRAMEWORKS)
def test_examples_for_frameworks(framework: str, names: dict[str, Any]) -> None:
    """Examples for frameworks are Python, use names that the document introduced, and run where they can."""
    (source,) = (source for source, _ in EXAMPLE.findall(TEXT) if f"from {framework}" in source)
    code = compile(source, DOCUMENT.name, "exec")
    for name in ("CheckInput", "Resource", "Principal", "Effect", "json_value", "engine"):
        assert name in names
    if importlib.util.find_spec(framework) is not None:
        exec(code, dict(names))  # noqa: S102 - our own document
    assert names["Effect"] is Effect
