"""Expressions that differ in nothing but constants: the code of one is made of that of another.

Thousands of policies are seldom written by hand: the same expression comes with another name, another limit.
Two texts have the same shape if they are equal but for literals of strings and numbers, and these stand at
the same places with the same lengths. Then all that compiling finds out about one holds for the other: types,
code, the place of each part. Only the constants differ, and they are exchanged.

For this a shape is compiled once with stand-ins, words and numbers that occur nowhere else. It is used only
if each literal stands where nothing depends on what it says (it is compared, or looked for in a list), and
its stand-in is found in the code. Everything else is compiled by itself.
"""

from __future__ import annotations

import re
import types
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from engine.cel import nodes
from engine.cel.checks import children
from engine.cel.nodes import DOUBLE, INT, STRING
from engine.cel.source import TOKEN

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from engine.cel.nodes import Node

Constant = str | float | int

_ORDERED = frozenset(("_==_", "_!=_", "_<_", "_<=_", "_>_", "_>=_"))
COMPARED: Mapping[nodes.Type, frozenset[str]] = {
    STRING: frozenset(("_==_", "_!=_")),
    DOUBLE: _ORDERED,
    INT: _ORDERED,
}
"""The operators for which it does not matter what a literal of a type says."""

LENGTHS = range(4, 65)
"""How long strings are that may be exchanged: there have to be stand-ins of the same length."""

DIGITS = range(3, 10)
"""How many digits a number may have before its point. None of these is 0 or 1, or too large to be exact."""

MOST = 64
"""More literals than that are not exchanged."""

WORD, DIGIT = "\0", "\1"
"""What stands in an outline for a character of a literal."""
_GAPS = re.compile(f"[{WORD}{DIGIT}]")

REMEMBERED = 4_096
"""How many shapes are remembered, those that came only once included."""


@dataclass(frozen=True, slots=True)
class Outline:
    """A text without its literals: what is left, and what they were."""

    left: str
    """The text with a gap of the same length for each literal."""
    literals: tuple[Constant, ...]
    spans: tuple[tuple[int, int], ...]

    def stand_ins(self) -> tuple[Constant, ...]:
        """Return a constant for each literal, of its length and kind; all differ."""
        return tuple(
            _word(number, end - start - 2)
            if isinstance(literal, str)
            else _number(number, self.left[start:end])
            for number, (literal, (start, end)) in enumerate(zip(self.literals, self.spans, strict=True))
        )

    def with_constants(self, text: str, constants: Sequence[Constant]) -> str:
        """Return *text*, which has this outline, with other literals."""
        pieces: list[str] = []
        at = 0
        for constant, (start, end) in zip(constants, self.spans, strict=True):
            quote = text[start]
            written = (
                f"{quote}{constant}{quote}"
                if isinstance(constant, str)
                else _written(constant, text[start:end])
            )
            pieces += (text[at:start], written)
            at = end
        return "".join((*pieces, text[at:]))


def outline(text: str) -> Outline | None:
    """Return the outline of *text*, ``None`` if it has no literals that may be exchanged."""
    if not text.isascii() or _GAPS.search(text):
        return None
    left: list[str] = []
    at = 0
    literals: list[Constant] = []
    spans = []
    for found in TOKEN.finditer(text):
        start, end = found.span()
        literal, gap = _literal(text[start:end])
        if literal is not None:
            left += (text[at:start], gap)
            at = end
            literals.append(literal)
            spans.append((start, end))
    if not literals or len(literals) > MOST:
        return None
    return Outline("".join((*left, text[at:])), tuple(literals), tuple(spans))


def _literal(token: str) -> tuple[Constant | None, str]:
    """Return what a token says if it is a literal that may be exchanged, and the gap that it leaves."""
    quote = token[0]
    if quote in "\"'" and len(token) - 2 in LENGTHS:
        word = token[1:-1]
        if word.isprintable() and "\\" not in word and '"' not in word and "'" not in word:
            return word, f"{quote}{WORD * len(word)}{quote}"
    elif quote in "123456789":
        whole, point, rest = token.partition(".")
        if whole.isdecimal() and len(whole) in DIGITS:
            if not point:
                return int(token), DIGIT * len(whole)
            if rest.isdecimal() and len(rest) <= 4:
                return float(token), f"{DIGIT * len(whole)}.{DIGIT * len(rest)}"
    return None, ""


def _word(number: int, length: int) -> str:
    return f"~{number:02d}".ljust(length, "~")


def _number(number: int, gap: str) -> float | int:
    whole, point, _ = gap.partition(".")
    made = 10 ** len(whole) - 7 - number
    return float(made) if point else made


def _written(constant: float, token: str) -> str:
    return f"{constant:.{len(token.partition('.')[2])}f}"


class Shape:
    """A compiled shape: code with stand-ins, which :meth:`filled` exchanges for constants."""

    def __init__(self, code: types.CodeType, stand_ins: tuple[Constant, ...]) -> None:
        self._code = code
        self._stand_ins = stand_ins

    def filled(self, constants: Sequence[Constant], file: str) -> types.CodeType:
        """Return the code with *constants* in the places of the stand-ins, as it is compiled for *file*."""
        found: types.CodeType = _exchanged(
            self._code, dict(zip(self._stand_ins, constants, strict=True)), file
        )
        return found


def shape(
    root: Node, code: types.CodeType, bound: tuple[object, ...], stand_ins: tuple[Constant, ...]
) -> Shape | None:
    """Return the shape that was compiled with *stand_ins*, ``None`` if they may not be exchanged.

    *bound* are the constants that the code is bound to.
    """
    places = list(_places(root, neutral=False))
    for stand_in in stand_ins:
        if [neutral for constant, neutral in places if _same(constant, stand_in)] != [True]:
            return None
    held = list(_constants(code))
    words = [word for word in stand_ins if isinstance(word, str)]
    for constant in (*held, *_constants(bound)):
        text = constant if isinstance(constant, (str, bytes)) else repr(constant)
        told = text.decode("latin-1") if isinstance(text, bytes) else text
        if any(word in told and constant != word for word in words):
            return None
    if any(_same(constant, stand_in) for constant in _constants(bound) for stand_in in stand_ins):
        return None
    if any(
        _differs(constant, stand_in) for constant in (*held, *_constants(bound)) for stand_in in stand_ins
    ):
        return None
    if not all(any(_same(constant, stand_in) for constant in held) for stand_in in stand_ins):
        return None
    return Shape(code, stand_ins)


def _same(constant: object, other: Constant) -> bool:
    return type(constant) is type(other) and constant == other


def _differs(constant: object, other: Constant) -> bool:
    """Tell whether two constants are equal and not of the same type: one may have been made of the other."""
    return type(constant) is not type(other) and constant == other


def _places(node: Node, *, neutral: bool) -> Iterator[tuple[object, bool]]:
    """Yield each constant in *node*, and whether it stands where it does not matter what it says.

    *neutral* says that of the node itself: a list is searched, a constant compared.
    """
    if isinstance(node, nodes.Const):
        yield node.value, neutral
    for child, _ in children(node):
        yield from _places(child, neutral=_is_neutral(node, child, neutral=neutral))


def _is_neutral(node: Node, child: Node, *, neutral: bool) -> bool:
    if isinstance(node, nodes.ListLiteral):
        return neutral and child.type == STRING
    if not isinstance(node, nodes.Call):
        return False
    if isinstance(child, nodes.ListLiteral):
        return node.function == "@in" and child is node.arguments[1]
    return node.function in COMPARED.get(child.type, ())


def _constants(value: object) -> Iterator[object]:
    if isinstance(value, types.CodeType):
        yield from _constants(value.co_consts)
    elif isinstance(value, (tuple, frozenset)):
        for item in value:
            yield from _constants(item)
    else:
        yield value


def _exchanged(value: Any, constants: Mapping[Constant, Constant], file: str) -> Any:
    exchange = _EXCHANGES.get(type(value))
    return value if exchange is None else exchange(value, constants, file)


def _in_code(code: types.CodeType, constants: Mapping[Constant, Constant], file: str) -> types.CodeType:
    return code.replace(
        co_consts=tuple([_exchanged(item, constants, file) for item in code.co_consts]), co_filename=file
    )


def _constant(value: Constant, constants: Mapping[Constant, Constant], _: str) -> Constant:
    """Return what stands in place of *value*. A number of the other type may be equal to it."""
    found = constants.get(value)
    return found if found is not None and type(found) is type(value) else value


_EXCHANGES: Mapping[type, Callable[[Any, Mapping[Constant, Constant], str], Any]] = {
    types.CodeType: _in_code,
    str: _constant,
    float: _constant,
    int: _constant,
    tuple: lambda value, constants, file: tuple([_exchanged(item, constants, file) for item in value]),
    frozenset: lambda value, constants, file: frozenset(_exchanged(item, constants, file) for item in value),
}
