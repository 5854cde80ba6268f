"""The text of an expression as a map of places: from the checker's offsets to spans of lines and columns.

The checker gives one offset a node: that of an operator, of the bracket of a call, of the dot of a selection.
The tokens of the text tell how far the node reaches from there.
"""

from __future__ import annotations

import bisect
import re
from typing import TYPE_CHECKING

from engine.cel.nodes import Span

if TYPE_CHECKING:
    from collections.abc import Iterable

TOKEN = re.compile(
    r"""
      (?P<blank> \s+ | //[^\n]* )
    | (?:[rR][bB]?|[bB][rR])
      (?: \"{3}[\s\S]*?\"{3} | '{3}[\s\S]*?'{3} | "[^"\n]*" | '[^'\n]*' )
    | [bB]?
      (?: \"{3}(?:\\[\s\S]|[^\\])*?\"{3} | '{3}(?:\\[\s\S]|[^\\])*?'{3}
        | "(?:\\.|[^"\\\n])*" | '(?:\\.|[^'\\\n])*' )
    | 0[xX][0-9a-fA-F]+[uU]?
    | (?:\d+(?:\.\d+)?|\.\d+)(?:[eE][+-]?\d+)?[uU]?
    | `[^`\n]*`
    | [A-Za-z_]\w*
    | [=!<>]= | && | \|\|
    | [\s\S]
    """,
    re.VERBOSE,
)

CLOSING = {")": "(", "]": "[", "}": "{"}
NAME = re.compile(r"[`A-Za-z_]")


class Source:
    """One text, its lines and its tokens. Offsets count code points."""

    __slots__ = ("_closed", "_ends", "_is_plain", "_lines", "_starts", "text")

    def __init__(self, text: str) -> None:
        self.text = text
        self._lines = [0, *(found.end() for found in re.finditer("\n", text))]
        self._is_plain = len(self._lines) == 1 and text.isascii()
        tokens = [found.span() for found in TOKEN.finditer(text) if found.lastgroup != "blank"]
        self._starts = [start for start, _ in tokens]
        self._ends = dict(tokens)
        self._closed = _brackets(text, tokens)

    def span(self, start: int, end: int) -> Span:
        """Return the span from *start* to *end*; both are brought inside of the text."""
        length = len(self.text)
        if self._is_plain and 0 <= start <= end <= length:
            return Span(1, start, 1, end)
        start = min(max(start, 0), length)
        end = min(max(end, start), length)
        return Span(*self._place(start), *self._place(end))

    def token(self, start: int) -> Span:
        """Return the span of the token at *start*; a sign and the number after it are one."""
        end = self._ends.get(start, start + 1)
        if self.text[start:end] == "-":
            end = self._ends.get(self._next(end), end)
        return self.span(start, end)

    def field(self, dot: int) -> Span:
        """Return the span from the *dot* of a selection to the end of the name after it."""
        name = self._next(dot + 1)
        if self.text[name : name + 1] == "?":
            name = self._next(name + 1)
        return self.span(dot, self._ends.get(name, dot + 1))

    def bracket(self, opening: int) -> Span:
        """Return the span from an *opening* bracket to its closing one."""
        return self.span(opening, self._closed.get(opening, opening + 1))

    def call(self, opening: int) -> Span:
        """Return the span from the (qualified) name before an *opening* bracket to its closing one."""
        return self.span(self._name_before(opening), self._closed.get(opening, opening + 1))

    def balanced(self, start: int, end: int) -> tuple[int, int]:
        """Widen a range so that it has both brackets of each pair that it has one of."""
        for opening, after in sorted(self._closed.items(), key=lambda pair: pair[1] - pair[0]):
            if start <= opening < end < after or opening < start < after <= end:
                start, end = min(start, opening), max(end, after)
        return start, end

    def _next(self, offset: int) -> int:
        index = bisect.bisect_left(self._starts, offset)
        return self._starts[index] if index < len(self._starts) else len(self.text)

    def _name_before(self, opening: int) -> int:
        index = bisect.bisect_left(self._starts, opening) - 1
        start = opening
        while index >= 0 and NAME.match(self.text, self._starts[index]):
            start = self._starts[index]
            if index < 2 or self.text[self._starts[index - 1]] != ".":
                break
            index -= 2
        return start

    def _place(self, offset: int) -> tuple[int, int]:
        line = bisect.bisect_right(self._lines, offset)
        start = self._lines[line - 1]
        if self.text.isascii():
            return line, offset - start
        return line, len(self.text[start:offset].encode())


def _brackets(text: str, tokens: Iterable[tuple[int, int]]) -> dict[int, int]:
    """Where each bracket's partner ends."""
    open_brackets: list[int] = []
    closed: dict[int, int] = {}
    for start, end in tokens:
        token = text[start:end]
        if token in CLOSING.values():
            open_brackets.append(start)
        elif token in CLOSING and open_brackets and text[open_brackets[-1]] == CLOSING[token]:
            closed[open_brackets.pop()] = end
    return closed


def around(*spans: Span) -> Span:
    """Return the smallest span that holds all *spans*."""
    if len(spans) == 2 and spans[0].line == spans[0].end_line == spans[1].line == spans[1].end_line:
        one, other = spans
        first = one if one.column <= other.column else other
        last = one if one.end_column >= other.end_column else other
        return Span(one.line, first.column, one.line, last.end_column)
    start = min((span.line, span.column) for span in spans)
    end = max((span.end_line, span.end_column) for span in spans)
    return Span(*start, *end)
