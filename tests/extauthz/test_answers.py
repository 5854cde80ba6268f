"""Every answer is counted once, by a reason of a closed set."""

from __future__ import annotations

import ast
import re
from pathlib import Path
from typing import TYPE_CHECKING

from extauthz import wire
from extauthz.answers import COUNTED, INTERNAL, OTHER, outcome
from extauthz.authorizer import Refused
from extauthz.figures import DECISIONS
from extauthz.reasons import FAMILIES, REASONS
from tests.extauthz.requests import check_request
from tests.extauthz.service import ask, service, user_token

if TYPE_CHECKING:
    import pytest

    from extauthz.app import App
    from extauthz.request import HttpRequest

SOURCE = Path(__file__).parents[2] / "extauthz"
CODE = re.compile(rf"(?:{'|'.join(re.escape(prefix) for prefix, *_ in FAMILIES)}|mapping\.)[a-z_]+")
NO_CODES = {"path.py", "request.id", "request.time", "request.size"}


def counts(made: App) -> dict[str, int]:
    return {code: count for code, count in made.authorizer.answered.items() if count}


def test_every_code_in_the_source_is_counted() -> None:
    """A code that some module makes stands in a table, and so has a place among the counted ones."""
    found = {
        node.value
        for file in SOURCE.glob("*.py")
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8")))
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and CODE.fullmatch(node.value)
    }
    assert {"path.dot_segment", "authn.expired", "source.timeout", "body.missing"} <= found
    assert found - COUNTED <= NO_CODES


def test_outcomes() -> None:
    """Only what lets a request through is an allow; what is our fault is an error; all else is a denial."""
    assert {code for code in COUNTED if outcome(code) == "allow"} == {"policy.allowed", "route.allowed"}
    assert {code for code in REASONS if outcome(code) == "error"} == {
        "keys.unavailable",
        "source.unavailable",
        "response.failed",
        "internal",
    }
    assert outcome("source.timeout") == "error"
    assert outcome("authn.expired") == outcome(OTHER) == "deny"


async def test_each_answer_is_counted_once(tmp_path: Path) -> None:
    """Allows, denials of every stage, unreadable requests and failures are counted under their reason."""
    token = user_token()
    async with service(tmp_path) as made:
        requests = [
            check_request(url="https://api.example.com/open", token=token),
            check_request(url="https://api.example.com/open", token=token),
            check_request(url="https://api.example.com/open", token="nonsense"),
            check_request(url="https://api.example.com/nowhere"),
            check_request(url="https://api.example.com/a//b"),
        ]
        for request in requests:
            await ask(made, request)
        await ask(made, b"\xff")
        assert counts(made) == {
            "policy.allowed": 2,
            "authn.malformed": 1,
            "route.not_found": 1,
            "path.empty_segment": 1,
            "request.malformed": 1,
        }


async def test_a_client_makes_no_label(tmp_path: Path) -> None:
    """Whatever a client sends, and whatever code we made of it, the labels are those that were there."""
    async with service(tmp_path) as made:
        before = made.figures()[DECISIONS].keys()

        def match(request: HttpRequest) -> object:
            raise Refused(f"path.{request.header('x-evil')}")

        made.authorizer._match = match  # type: ignore[assignment]  # a mistake of ours, for once
        await ask(made, check_request(url="https://api.example.com/open", headers={"x-evil": 'a"} 1'}))
        assert counts(made) == {OTHER: 1}
        assert made.figures()[DECISIONS].keys() == before
    assert {code for _, code in before} == COUNTED


async def test_failures_are_counted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A bug while a request is decided, and one while it is refused as well, are counted as ours."""

    def broken(*_: object) -> bytes:
        raise ZeroDivisionError

    async with service(tmp_path) as made:
        monkeypatch.setattr(made.authorizer, "_match", broken)
        await ask(made, check_request())
        assert counts(made) == {INTERNAL: 1}
        monkeypatch.setattr(wire, "encode", broken)
        answered = made.authorizer.check(check_request())
        assert answered == wire.FAILURE
        assert counts(made) == {INTERNAL: 2}
