"""The repl as people use it: at a terminal, and with a pipe."""

from __future__ import annotations

import os
import pty
import select
import stat
import subprocess
import sys
import time
from typing import TYPE_CHECKING

import pytest
from prompt_toolkit.completion import CompleteEvent
from prompt_toolkit.document import Document

from extauthz.repl.editing import CelLexer, SessionCompleter
from extauthz.repl.session import Session
from extauthz.repl.terminal import inputs, is_incomplete

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

COMMAND = [sys.executable, "-m", "extauthz", "repl"]
PATIENCE = 60.0


def piped(text: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(  # noqa: S603 - our own command
        [*COMMAND, *arguments], input=text, capture_output=True, text=True, timeout=PATIENCE, check=False
    )


def test_a_pipe_is_read_to_its_end() -> None:
    """Results go to standard output; nothing is prompted for."""
    result = piped(":let x = 2\nx * 3\n\n[1,\n 2].size() + \\\nx\n")
    assert (result.stdout, result.stderr, result.returncode) == ("x = 2\n_ = 6\n_ = 4\n", "", 0)


def test_mistakes_in_a_pipe_are_placed_and_make_the_exit_code_one() -> None:
    """An input that cannot be used is named by its line, and the rest is still read."""
    result = piped("1 / 0\n:bogus\n2\n:quit\n3\n")
    assert result.stdout == "_ = 2\n"
    assert result.stderr.startswith("line 1:\n1 / 0\n^^^^^ division by zero\nline 2: unknown directive")
    assert result.returncode == 1


def test_policies_of_the_command_line_are_loaded(tmp_path: Path) -> None:
    """They are there before the first input; one that cannot be loaded ends the command."""
    policy = tmp_path / "expense.yaml"
    policy.write_text(
        "apiVersion: api.cerbos.dev/v1\n"
        "resourcePolicy: {resource: expense, version: default, constants: {local: {MAX: 3}}, rules: []}\n"
    )
    assert piped("C.MAX\n", str(policy)).stdout == "_ = 3.0\n"
    policy.write_text("apiVersion: 1")
    assert piped("C.MAX\n", str(policy)).returncode == 1


@pytest.mark.parametrize(
    ("text", "incomplete"),
    [
        ("1 + 1", False),
        ("1 + \\", True),
        ("f(1", True),
        ("f(1)", False),
        ("[1, {", True),
        ("'('", False),
        ('"\\"("', False),
        ("1 // (", False),
        ("r'\\(' + '''(\n'''", False),
        ("))", False),
    ],
)
def test_what_goes_on(text: str, incomplete: bool) -> None:
    """A backslash or an open bracket goes on in the next line; brackets in texts and comments are not."""
    assert is_incomplete(text) is incomplete


def test_an_input_that_goes_on_ends_at_an_empty_line_or_a_directive() -> None:
    """One forgotten bracket does not swallow the rest."""
    lines = ["1", "[2,", "3]", "(4", "", "(5", ":vars", "6 \\", "+ 7"]
    assert list(inputs(lines)) == [
        (1, "1"),
        (2, "[2,\n3]"),
        (4, "(4\n"),
        (6, "(5"),
        (7, ":vars"),
        (8, "6 \n+ 7"),
    ]


# -- a terminal --------------------------------------------------------------------------------------------


class Terminal:
    """The command at a pseudo terminal."""

    def __init__(self, state: Path) -> None:
        self.master, slave = pty.openpty()
        self.process = subprocess.Popen(  # noqa: S603 - our own command
            COMMAND,
            stdin=slave,
            stdout=slave,
            stderr=slave,
            env={**os.environ, "TERM": "xterm", "XDG_STATE_HOME": str(state), "COLUMNS": "100"},
            start_new_session=True,
        )
        os.close(slave)
        self.seen = ""

    def say(self, text: str, expected: str) -> None:
        """Type *text*, and wait until *expected* was printed and the next prompt is there."""
        begun = len(self.seen)
        self.type(text)
        deadline = time.monotonic() + PATIENCE
        while "->" not in self.seen[begun:].partition(expected)[2]:
            assert time.monotonic() < deadline, self.seen
            self._read()

    def complete(self, text: str, ending: str) -> None:
        """Type *text* and a tab, and wait until *ending* was added."""
        begun = len(self.seen)
        self.type(f"{text}\t")
        deadline = time.monotonic() + PATIENCE
        while ending not in self.seen[begun:]:
            assert time.monotonic() < deadline, self.seen
            self._read()

    def _read(self) -> None:
        ready, _, _ = select.select([self.master], [], [], 0.2)
        if ready:
            data = os.read(self.master, 65536).decode(errors="replace")
            self.seen += data
            if "\x1b[6n" in data:  # it asks where the cursor is
                os.write(self.master, b"\x1b[1;1R")

    def type(self, text: str) -> None:
        os.write(self.master, text.encode())

    def close(self) -> None:
        self.process.kill()
        self.process.wait()
        os.close(self.master)


@pytest.fixture
def terminal(tmp_path: Path) -> Iterator[Terminal]:
    opened = Terminal(tmp_path / "state")
    yield opened
    opened.close()


def test_a_session_at_a_terminal(terminal: Terminal, tmp_path: Path) -> None:
    """Inputs of several lines, completion, Ctrl-C, the history and its mode, Ctrl-D."""
    terminal.say("", "an expression")
    terminal.say("40 + 2\r", " = 42")
    terminal.say("[1,\r2].size()\r", " = 2")
    terminal.say(":let R.attr.region = 'EMEA'\r", ' = "EMEA"')
    terminal.complete("R.attr.reg", "ion")
    terminal.say(" + '!'\r", ' = "EMEA!"')
    terminal.say("1 / 0\r", "division by zero")
    terminal.say("unfinished (\x03", "unfinished")
    terminal.say("\x1b[A\r", "division by zero")  # the input before
    terminal.type("\x04")
    assert terminal.process.wait(PATIENCE) == 0
    history = tmp_path / "state" / "extauthz" / "repl_history"
    assert "40 + 2" in history.read_text()
    assert stat.S_IMODE(history.stat().st_mode) == 0o600
    assert stat.S_IMODE(history.parent.stat().st_mode) == 0o700


def test_a_session_where_nothing_can_be_written(tmp_path: Path) -> None:
    """Without a place for the history, as in a read-only container, the session goes on without one."""
    (tmp_path / "state").write_text("no folder")
    opened = Terminal(tmp_path / "state")
    try:
        opened.say("", "inputs are not kept: ")
        opened.say("40 + 2\r", " = 42")
        opened.type("\x04")
        assert opened.process.wait(PATIENCE) == 0
    finally:
        opened.close()


@pytest.fixture
def session() -> Session:
    made = Session()
    made.handle(":let P.attr.department = 'x'")
    made.handle(":let other = {'key': 1}")
    return made


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (":ex", [":exec", ":explain", ":exit"]),
        ("1 + oth", ["other"]),
        ("P.at", ["attr"]),
        ("P.attr.", ["department"]),
        ("other.k", ["key"]),
        ("request.auxData.j", ["jwt", "jwts"]),
        ("hierar", ["hierarchy"]),
        ("math.gre", ["math.greatest"]),
        ("zzz", []),
    ],
)
def test_completion(session: Session, text: str, expected: list[str]) -> None:
    """Directives, variables, fields, keys and functions are completed."""
    found = SessionCompleter(session).get_completions(Document(text, len(text)), CompleteEvent())
    assert [completion.text for completion in found] == expected


def test_paths_are_completed(session: Session, tmp_path: Path) -> None:
    """After `:load` comes a path."""
    (tmp_path / "policy.yaml").touch()
    text = f":load {tmp_path}/pol"
    found = SessionCompleter(session).get_completions(Document(text, len(text)), CompleteEvent())
    assert [completion.text for completion in found] == ["icy.yaml"]


def test_colours_keep_the_text() -> None:
    """Every character of a line is in one of its pieces."""
    for line in (":let x = 1", "R.attr.x == 'a' // no", '"unfinished', "[1.5u, true, b'x']", ""):
        assert "".join(piece[1] for piece in CelLexer().lex_document(Document(line))(0)) == line
