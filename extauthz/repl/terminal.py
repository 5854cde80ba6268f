"""The session on a terminal, with line editing, history and completion; or fed from a pipe."""

from __future__ import annotations

import os
import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Final, TextIO

from rich.text import Text

from extauthz.repl.evaluation import InputError
from extauthz.repl.session import DIRECTIVES, Quit, Session

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from rich.console import Console

WELCOME: Final = "extauthz repl: type an expression, or :help"

_TOKEN: Final = re.compile(
    r"""(?P<comment>//[^\n]*)|[rRbB]{0,2}(?:\"{3}.*?\"{3}|'{3}.*?'{3}|"(?:\\.|[^"\\\n])*"|'(?:\\.|[^'\\\n])*')"""
    r"""|(?P<open>[\[({])|(?P<close>[\])}])""",
    re.DOTALL,
)
_DIRECTIVE: Final = re.compile(rf"\s*:(?:{'|'.join(DIRECTIVES)})\b")


def is_incomplete(text: str) -> bool:
    """Tell whether an input goes on in the next line: a backslash ends it, or a bracket is open."""
    return text.endswith("\\") or _depth(text) > 0


def _depth(text: str) -> int:
    found = [match.lastgroup for match in _TOKEN.finditer(text)]
    return found.count("open") - found.count("close")


def joined(lines: Iterable[str]) -> str:
    """Return the lines of one input without the backslashes that joined them."""
    return "\n".join(line.removesuffix("\\") for line in lines)


def inputs(lines: Iterable[str]) -> Iterator[tuple[int, str]]:
    """Yield each input of a text with the number of its first line.

    An input that goes on ends at an empty line, and where a directive begins.
    """
    pending: list[str] = []
    first = 1
    for number, line in enumerate((line.rstrip("\n") for line in lines), start=1):
        if pending and _DIRECTIVE.match(line):
            yield first, joined(pending)
            pending = []
        first = first if pending else number
        pending.append(line)
        if not line.strip() or not is_incomplete("\n".join(pending)):
            yield first, joined(pending)
            pending = []
    if pending:
        yield first, joined(pending)


# -- a pipe ------------------------------------------------------------------------------------------------


def run_piped(session: Session, lines: TextIO, console: Console, errors: Console) -> int:
    """Handle every input of *lines*; return 1 when one of them could not be used, else 0."""
    failed = 0
    for number, text in inputs(lines):
        try:
            for shown in session.handle(text):
                console.print(shown)
        except InputError as error:
            failed = 1
            errors.print(Text(_complaint(number, str(error))))
        except Quit:
            break
    return failed


def _complaint(number: int, message: str) -> str:
    separator = "\n" if "\n" in message else " "
    return f"line {number}:{separator}{message}"


# -- a terminal --------------------------------------------------------------------------------------------


def default_history() -> Path:
    """Return where inputs are kept: in the user's XDG state folder."""
    state = os.environ.get("XDG_STATE_HOME") or "~/.local/state"
    return Path(state).expanduser() / "extauthz" / "repl_history"


def private(file: Path) -> Path:
    """Make *file*, and the folder around it, so that only the user can read it: inputs hold attributes."""
    file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    os.close(os.open(file, os.O_CREAT | os.O_RDWR, 0o600))
    file.chmod(0o600)
    return file


def _kept(history: Path | None, console: Console) -> Path | None:
    """Return the file for the history, or say why there is none: a container may have nothing to write to."""
    try:
        return private(history or default_history())
    except (OSError, RuntimeError) as error:  # RuntimeError: nobody knows where the user is at home
        console.print(Text(f"inputs are not kept: {error}", "dim"))
        return None


def run_interactive(session: Session, console: Console, history: Path | None) -> int:
    """Read inputs from the terminal until the user leaves; return 0.

    They are kept in *history*, or where :func:`default_history` says.
    """
    from extauthz.repl.editing import editor  # noqa: PLC0415 - a pipe needs no editor

    read = editor(session, _kept(history, console))
    console.print(Text(WELCOME, "dim"))
    while True:
        try:
            for shown in session.handle(joined(read().split("\n"))):
                console.print(shown)
        except InputError as error:
            console.print(Text(str(error), "red"))
        except KeyboardInterrupt:
            continue
        except (EOFError, Quit):
            return 0


def is_terminal() -> bool:
    """Tell whether somebody sits at both ends."""
    return sys.stdin.isatty() and sys.stdout.isatty()
