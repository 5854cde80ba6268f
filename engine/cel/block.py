"""``cel.block([a, b], result)``: values that are computed once and used by number.

This is how cel-spec writes down what an optimiser makes of an expression whose parts repeat:
``cel.index(n)`` is the n-th value of the list, from 0, and can be used in what comes after it;
``cel.iterVar(depth, n)`` and ``cel.accuVar(depth, n)`` are names that the optimiser gives the variables of
macros. An environment has to ask for it: in cel-go only its optimisers and their tests have these forms, so
no policy that Cerbos accepts has one.

A block says the same as bindings inside of each other: a value that cannot be computed is a failure only
where it is used. The parser takes no macros of ours, so the text is rewritten before it sees it:
``cel.block([a, b], cel.index(1))`` to
``cel.bind(cel_index_0, a, cel.bind(cel_index_1, b, cel_index_1))``.
"""

from __future__ import annotations

import bisect
import itertools
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from engine.cel.frontend import Checker, CompileError, Issue
from engine.cel.source import CLOSING, TOKEN, Source

if TYPE_CHECKING:
    from collections.abc import Iterator

    from engine.cel.nodes import Node, Span

PIECE = re.compile(
    rf"""
      (?<![.\w]) cel \s* [.] \s*
      (?: (?P<block> block ) \s* \( \s* \[
        | (?P<name> index \s* \( \s* \d+
                  | (?: iterVar | accuVar ) \s* \( \s* \d+ \s* , \s* \d+ ) \s* \) )
    | (?: {TOKEN.pattern} )
    """,
    re.VERBOSE,
)
"""A form of this extension, or else any token, so that none is found inside of a string or a comment."""

RESULT = re.compile(r"(?:\s|//[^\n]*)*,")
"""What comes between the list of values and the result."""


class BlockChecker(Checker):
    """A checker that knows ``cel.block`` and what belongs to it."""

    def check(self, text: str) -> Node:
        """Parse and check *text*; raises :class:`CompileError`."""
        try:
            return super().check(text)
        except CompileError as error:
            raise CompileError(map(Rewritten(text).issue, error.issues)) from None

    def source(self, text: str) -> Source:
        """Return what is compiled of *text*, which knows the places in it."""
        return Rewritten(text)


class Rewritten(Source):
    """A text without blocks for one that has some; its spans and issues are places in the latter."""

    __slots__ = ("_edges", "_original", "_spans")

    def __init__(self, text: str) -> None:
        pieces = [(found.span(), piece) for found, piece in _rewritten(text)]
        super().__init__("".join(piece for _, piece in pieces))
        self._original = Source(text)
        self._edges = [0, *itertools.accumulate(len(piece) for _, piece in pieces)]
        self._spans = [*(span for span, _ in pieces), (len(text), len(text))]

    def span(self, start: int, end: int) -> Span:
        """Return the span in the text before of what stands here from *start* to *end*."""
        return self._original.span(self._start_before(start), self._end_before(end))

    def issue(self, issue: Issue) -> Issue:
        """Return *issue* with its place in the text before."""
        lines = itertools.islice(self.text.split("\n"), issue.line - 1)
        offset = self._start_before(sum(len(line) + 1 for line in lines) + issue.column - 1)
        before = self._original.text[:offset].split("\n")
        return Issue(len(before), len(before[-1]) + 1, issue.message)

    def _start_before(self, offset: int) -> int:
        """Return the place before of what begins at *offset*: after pieces that nothing stands for."""
        return self._inside(bisect.bisect_right(self._edges, offset) - 1, offset)

    def _end_before(self, offset: int) -> int:
        """Return the place before of what ends at *offset*: before pieces that nothing stands for."""
        index = max(bisect.bisect_left(self._edges, offset) - 1, 0)
        is_whole = offset in self._edges[index + 1 : index + 2]
        return self._spans[index][1] if is_whole else self._inside(index, offset)

    def _inside(self, index: int, offset: int) -> int:
        start, end = self._spans[index]
        return min(start + offset - self._edges[index], end)


@dataclass(slots=True)
class _Block:
    """A block whose brackets are open: how many values it has so far, and whether the list goes on."""

    values: int = 1
    is_listing: bool = True


def _rewritten(text: str) -> Iterator[tuple[re.Match[str], str]]:
    """Return each piece of *text* that has a meaning, with what stands for it."""
    brackets: list[_Block | None] = []
    for found in PIECE.finditer(text):
        yield found, _piece(found, brackets)


def _piece(found: re.Match[str], brackets: list[_Block | None]) -> str:
    """Return what stands for a piece; *brackets* are the open ones, with the block that each belongs to."""
    piece = found[0]
    if found["block"]:
        block = _Block()
        brackets += (block, block)
        return _bound(0)
    if found["name"]:
        return _plain(piece)
    if piece in CLOSING.values():
        brackets.append(None)
    elif piece in CLOSING:
        return _closing(found, brackets.pop() if brackets else None)
    elif piece == "," and brackets and brackets[-1] and brackets[-1].is_listing:
        return _next_value(brackets[-1])
    return piece


def _plain(form: str) -> str:
    """``cel.iterVar(0, 1)`` as a name: ``cel_iterVar_0_1``."""
    return "_".join(re.findall(r"\w+", form))


def _bound(number: int) -> str:
    """Return the beginning of the binding of a value, up to the value."""
    return f"cel.bind(cel_index_{number}, "


def _next_value(block: _Block) -> str:
    block.values += 1
    return f", {_bound(block.values - 1)}"


def _closing(found: re.Match[str], block: _Block | None) -> str:
    """Return what stands for a closing bracket: nothing for that of a list which a result follows."""
    if block is None or found[0] != ("]" if block.is_listing else ")"):
        return found[0]
    if not block.is_listing:
        return ")" * block.values
    block.is_listing = False
    return "" if RESULT.match(found.string, found.end()) else found[0]
