"""The lines around a place in a file, with the place marked."""

from __future__ import annotations

AROUND = 3
"""Lines shown before and after."""

WIDEST = 400
"""Characters of a line that are shown."""


def excerpt(text: str, line: int, column: int) -> str:
    """Return the lines around *line*, numbered, with a mark under *column*; empty when there is no place."""
    lines = text.splitlines()
    if not 0 < line <= len(lines):
        return ""
    first = max(1, line - AROUND)
    shown = []
    for number in range(first, min(len(lines), line + AROUND) + 1):
        mark = ">" if number == line else " "
        shown.append(f"{mark}{number:>3} | {_shown(lines[number - 1])}".rstrip())
        if number == line and column <= WIDEST:
            shown.append(" " * (len(">  1 | ") + column - 1) + "^")
    return "\n".join(shown)


def _shown(line: str) -> str:
    """Return a line without what a terminal would obey; every character keeps its column."""
    return "".join(char if char.isprintable() else " " for char in line[:WIDEST])
