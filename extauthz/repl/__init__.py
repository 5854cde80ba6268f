"""``extauthz repl``: expressions and conditions tried out, decisions explained, line by line."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from rich.console import Console
from rich.text import Text

from extauthz.repl.evaluation import InputError
from extauthz.repl.session import Session
from extauthz.repl.terminal import default_history, is_terminal, run_interactive, run_piped

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

__all__ = ["InputError", "Session", "default_history", "run"]


def run(policies: Sequence[Path] = (), history: Path | None = None) -> int:
    """Hold a session on standard input and output; *policies* are loaded first.

    Returns:
        The exit code: 1 when an input that came through a pipe, or one of *policies*, could not be used.

    """
    console = Console(highlight=False, soft_wrap=True)
    errors = Console(stderr=True, highlight=False, soft_wrap=True)
    session = Session()
    for path in policies:
        try:
            shown = session.handle(f":load {path}")
        except InputError as error:
            errors.print(Text(str(error)))
            return 1
        if is_terminal():
            console.print(*shown, sep="\n")
    if is_terminal():
        return run_interactive(session, console, history)
    return run_piped(session, sys.stdin, console, errors)
