"""Colours by the role of a piece of text; without colours the text as it is."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

LEVELS = ("auto", "never", "always", "256", "16m")
"""Cerbos's levels; whoever forces a depth of colours gets the sixteen that we use."""

STYLES: Mapping[str, Mapping[str, Any]] = {
    "action": {"fg": "yellow"},
    "case": {"fg": "blue"},
    "error": {"fg": "red"},
    "file": {"fg": "blue"},
    "good": {"fg": "green"},
    "header": {"fg": "bright_white", "bold": True},
    "hint": {"fg": "bright_black"},
    "output": {"fg": "blue"},
    "place": {"fg": "green"},
    "policy": {"fg": "cyan"},
    "principal": {"fg": "cyan"},
    "resource": {"fg": "blue"},
    "skipped": {"fg": "bright_white"},
    "suite": {"fg": "blue", "bold": True},
    "text": {},
}

Paint = "Callable[[str, str], str]"


def coloured(level: str, *, refused: bool) -> bool:
    """Tell whether standard output is to have colours; ``NO_COLOR`` speaks where *level* leaves it open."""
    if refused or level == "never":
        return False
    return level != "auto" or (sys.stdout.isatty() and not os.environ.get("NO_COLOR"))


def painter(*, on: bool) -> Callable[[str, str], str]:
    """Return what makes a text fit to be shown, in the colours of its role: ``paint("error", "no")``."""
    return _painted if on else _plain


def _painted(role: str, text: str) -> str:
    return click.style(printable(text), **STYLES[role])


def _plain(_role: str, text: str) -> str:
    return printable(text)


def printable(text: str) -> str:
    """Escape what a terminal would obey instead of showing; only line breaks stay."""
    if text.isprintable():
        return text
    return "".join(char if char.isprintable() or char == "\n" else _escaped(char) for char in text)


def _escaped(char: str) -> str:
    return char.encode("unicode_escape").decode("ascii")
