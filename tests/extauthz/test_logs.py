"""Log lines: their form, and what must not be in them."""

from __future__ import annotations

import io
import json
import logging
import sys
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from extauthz import logs

if TYPE_CHECKING:
    from collections.abc import Iterator

TOKEN = "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiJhbGljZSJ9.c2lnbmF0dXJl"


@pytest.fixture(autouse=True)
def _untouched_logging() -> Iterator[None]:
    """Give pytest its handlers and levels back."""
    handlers, level = logging.root.handlers[:], logging.root.level
    yield
    logging.root.handlers[:] = handlers
    logging.root.setLevel(level)
    logging.captureWarnings(False)


def logged(style: str, message: str, *arguments: object, level: str = "info", **extra: Any) -> str:
    stream = io.StringIO()
    logs.configure(level=level, style=style, stream=stream)
    logging.getLogger("extauthz.x").info(message, *arguments, extra=extra)
    return stream.getvalue()


def test_a_json_line_has_its_fields() -> None:
    """A line is one JSON object with time, level, logger, process, message and what came as extra."""
    line = json.loads(logged("json", "%d policies", 3, directory="/policies", seconds=0.5))
    assert line.pop("time").endswith("Z")
    assert line.pop("pid") > 0
    assert line == {
        "level": "info",
        "logger": "extauthz.x",
        "message": "3 policies",
        "directory": "/policies",
        "seconds": 0.5,
    }


def test_a_console_line_is_for_people() -> None:
    """A line has the time, the level, the message and the fields."""
    line = logged("console", "3 policies", directory="/policies")
    assert line.rstrip()[8:] == " info    3 policies directory=/policies"


def test_auto_is_json_where_there_is_no_terminal() -> None:
    """Without a terminal the lines are JSON."""
    assert json.loads(logged("auto", "x"))["message"] == "x"


def test_levels_below_the_chosen_one_are_silent() -> None:
    """What is below the level is not written."""
    assert logged("json", "x", level="warning") == ""


@pytest.mark.parametrize("style", ["json", "console"])
@pytest.mark.parametrize(
    ("text", "secret"),
    [
        (f"token {TOKEN} is bad", TOKEN),
        (f"token {TOKEN[:60]} cut", TOKEN[:60]),
        ("Authorization: Bearer abc.def-123", "abc.def-123"),
        ("authorization=basic dXNlcjpwYXNz", "dXNlcjpwYXNz"),
        ("https://user:hunter2@git.example.com/x.git", "hunter2"),
        ('{"client_secret": "hunter2"}', "hunter2"),
        ("password=hunter2&x=1", "hunter2"),
        ("-----BEGIN PRIVATE KEY-----\nMIIEvQ\n-----END PRIVATE KEY-----", "MIIEvQ"),
    ],
)
def test_secrets_are_hidden(style: str, text: str, secret: str) -> None:
    """A credential is replaced in the message and in a field."""
    assert secret not in logged(style, "%s", text)
    assert secret not in logged(style, "x", field=text)


@pytest.mark.parametrize("style", ["json", "console"])
def test_secrets_are_hidden_in_tracebacks(style: str) -> None:
    """A credential in an exception's message does not reach the log."""
    stream = io.StringIO()
    logs.configure(style=style, stream=stream)
    try:
        raise ValueError(f"cannot read {TOKEN}")
    except ValueError:
        logging.getLogger("extauthz.x").exception("failed")
    assert TOKEN not in stream.getvalue()
    assert "ValueError" in stream.getvalue()


@given(st.text())
def test_nobody_forges_a_line(text: str) -> None:
    """Whatever a field holds, JSON stays one line, and a console line has no control characters."""
    assert logged("json", "x", field=text).count("\n") == 1
    line = logged("console", "x", field=text)
    assert line.count("\n") == 1
    assert not any(ord(each) < 32 or 127 <= ord(each) < 160 for each in line.rstrip("\n"))


def test_long_texts_are_cut() -> None:
    """A text of any length becomes a line of bounded length."""
    assert len(logged("json", "x", field="y" * 1_000_000)) < 2 * logs.MAX_CHARACTERS


def test_what_json_does_not_know_is_text() -> None:
    """A field that is no JSON value is written as text."""
    assert json.loads(logged("json", "x", field={1: {2}}))["field"] == {"1": "{2}"}


def test_configure_writes_to_standard_error_by_default(capsys: pytest.CaptureFixture[str]) -> None:
    """Without a stream the lines go to standard error, where nothing reads answers."""
    logs.configure(style="console")
    assert logging.root.handlers[0].stream is sys.stderr  # type: ignore[attr-defined]  # a StreamHandler
    assert capsys.readouterr().out == ""
