"""``format`` of the ``strings`` extension: ``"%s is %.2f".format([name, amount])``."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from decimal import Decimal
from typing import Any

from engine.cel.library.arguments import bounded_text, elements, string
from engine.cel.runtime import type_name
from engine.cel.values import Duration, EvaluationError, Timestamp, TypeValue, UInt

MAX_PRECISION = 100
"""Digits after the point that ``%.Nf`` and ``%.Ne`` may ask for, as in Cerbos 0.55."""

DEFAULT_PRECISION = 6

CLAUSE = re.compile(r"%(?:(?P<percent>%)|(?:\.(?P<precision>[0-9]*))?(?P<verb>.)?)", re.DOTALL)


def format_string(template: object, arguments: object) -> str:
    """Fill each clause of *template* (``%s %d %f %e %b %o %x %X``, ``%%``) from the list of *arguments*."""
    text, values = string(template), elements(arguments)
    pieces: list[str] = []
    position, used, size = 0, 0, 0
    for clause in CLAUSE.finditer(text):
        piece = "%" if clause["percent"] else _formatted(clause, values, used)
        pieces += text[position : clause.start()], piece
        position, used, size = clause.end(), used + (not clause["percent"]), size + len(piece)
        bounded_text(size)
    return "".join((*pieces, text[position:]))


def _formatted(clause: re.Match[str], values: Sequence[Any], position: int) -> str:
    if position >= len(values):
        raise EvaluationError(f"index {position} out of range")
    write, precision = _writer(clause["verb"]), _precision(clause["precision"])
    try:
        return write(values[position], precision)
    except EvaluationError as error:
        raise EvaluationError(f"error during formatting: {error}") from None


def _writer(verb: str | None) -> Callable[[Any, int], str]:
    if verb is None:
        raise EvaluationError("unexpected end of string")
    if verb not in VERBS:
        raise EvaluationError(f'could not parse formatting clause: unrecognized formatting clause "{verb}"')
    return VERBS[verb]


def _precision(digits: str | None) -> int:
    if digits is None:
        return DEFAULT_PRECISION
    if not digits or len(digits) > 9 or int(digits) > MAX_PRECISION:
        raise EvaluationError(
            "could not parse formatting clause: error while parsing precision: "
            f"`.{digits[:9]}` is not a number up to {MAX_PRECISION}"
        )
    return int(digits)


def text_of(value: Any) -> str:
    """Return what ``%s`` writes for *value*; raises :class:`EvaluationError` for one that has no text."""
    write = TEXTS.get(type(value))
    if write is not None:
        return write(value)
    if isinstance(value, Mapping):
        return _map_text(value)
    raise _unfit(
        "string clause can only be used on strings, bools, bytes, ints, doubles, maps, lists, types, "
        "durations, and timestamps",
        value,
    )


def _unfit(rule: str, value: Any) -> EvaluationError:
    return EvaluationError(f"{rule}, was given {type_name(value)}")


def double_text(value: float) -> str:
    """Return a double with the digits that tell it from its neighbours, never with an exponent."""
    return SPECIAL.get(str(value)) or f"{Decimal(repr(value)):f}".removesuffix(".0")


SPECIAL: Mapping[str, str] = {"nan": "NaN", "inf": "Infinity", "-inf": "-Infinity"}


def _list_text(values: Sequence[Any]) -> str:
    return f"[{', '.join(_bounded(map(text_of, values)))}]"


def _map_text(values: Mapping[Any, Any]) -> str:
    texts = _bounded(text_of(part) for entry in values.items() for part in entry)
    pairs = sorted(zip(texts, texts, strict=True))
    return f"{{{', '.join(f'{name}: {value}' for name, value in pairs)}}}"


def _bounded(pieces: Iterable[str]) -> Iterator[str]:
    """Yield *pieces* until they are too much together: what nobody will see is not written."""
    size = 0
    for piece in pieces:
        size += len(piece)
        bounded_text(size)
        yield piece


TEXTS: Mapping[type, Callable[[Any], str]] = {
    type(None): lambda _: "null",
    bool: lambda value: "true" if value else "false",
    int: int.__repr__,
    UInt: int.__repr__,
    float: double_text,
    str: str,
    bytes: lambda value: value.decode("utf-8", "replace"),
    Timestamp: lambda value: value.utc,
    Duration: str,
    TypeValue: lambda value: value.name,
    list: _list_text,
    tuple: _list_text,
    dict: _map_text,
}


def _decimal(value: Any, _: int) -> str:
    kind = type(value)
    if kind is float:
        return double_text(value)
    if kind is int or kind is UInt:
        return int.__repr__(value)
    raise _unfit("decimal clause can only be used on ints, uints, and doubles", value)


def _number(value: Any, verb: str, rule: str, precision: int) -> str:
    if type(value) not in {int, UInt, float}:
        raise _unfit(rule, value)
    number = float(value)
    return format(number, f".{precision}{verb}") if math.isfinite(number) else double_text(number)


def _fixed(value: Any, precision: int) -> str:
    return _number(value, "f", "fixed-point clause can only be used on ints, uints, and doubles", precision)


def _scientific(value: Any, precision: int) -> str:
    return _number(value, "e", "scientific clause can only be used on ints, uints, and doubles", precision)


def _binary(value: Any, _: int) -> str:
    if type(value) not in {bool, int, UInt}:
        raise _unfit("only ints, uints, and bools can be formatted as binary", value)
    return format(int(value), "b")


def _octal(value: Any, _: int) -> str:
    if type(value) not in {int, UInt}:
        raise _unfit("octal clause can only be used on ints and uints", value)
    return format(int(value), "o")


def _hexadecimal(value: Any, _: int) -> str:
    kind = type(value)
    if kind is int or kind is UInt:
        return format(int(value), "x")
    if kind is str:
        return str(value.encode().hex())
    if kind is bytes:
        return str(value.hex())
    raise _unfit("only ints, uints, bytes, and strings can be formatted as hex", value)


VERBS: Mapping[str, Callable[[Any, int], str]] = {
    "s": lambda value, _: text_of(value),
    "d": _decimal,
    "f": _fixed,
    "e": _scientific,
    "b": _binary,
    "o": _octal,
    "x": _hexadecimal,
    "X": lambda value, _: _hexadecimal(value, _).upper(),
}

FUNCTIONS: Mapping[str, Callable[..., Any]] = {"format": format_string}
