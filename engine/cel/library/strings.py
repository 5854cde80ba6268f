"""Strings: the standard functions and the ``strings`` extension of cel-go. Positions count characters."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from engine.cel.library.arguments import bounded_list, bounded_text, elements, integer, string
from engine.cel.values import EvaluationError, NoSuchOverload

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

ASCII_LOWER = {code: code + 32 for code in range(ord("A"), ord("Z") + 1)}
ASCII_UPPER = {code: code - 32 for code in range(ord("a"), ord("z") + 1)}

WHITE_SPACE = (
    "\t\n\v\f\r \x85\xa0\u1680\u2000\u2001\u2002\u2003\u2004\u2005\u2006\u2007\u2008\u2009\u200a"
    "\u2028\u2029\u202f\u205f\u3000"
)
"""Unicode's White_Space property; Python's ``strip`` would remove more (U+001C to U+001F)."""

QUOTED = re.compile(r'[\x07\x08\x0c\n\r\t\x0b\\"]')
QUOTES: Mapping[str, str] = {
    "\a": r"\a",
    "\b": r"\b",
    "\f": r"\f",
    "\n": r"\n",
    "\r": r"\r",
    "\t": r"\t",
    "\v": r"\v",
    "\\": r"\\",
    '"': r"\"",
}


def contains(text: object, part: object) -> bool:
    """Whether *part* occurs in *text*."""
    if type(text) is not str or type(part) is not str:
        raise NoSuchOverload
    return part in text


def starts_with(text: object, prefix: object) -> bool:
    """Whether *text* begins with *prefix*."""
    if type(text) is not str or type(prefix) is not str:
        raise NoSuchOverload
    return text.startswith(prefix)


def ends_with(text: object, suffix: object) -> bool:
    """Whether *text* ends with *suffix*."""
    if type(text) is not str or type(suffix) is not str:
        raise NoSuchOverload
    return text.endswith(suffix)


def char_at(text: object, position: object) -> str:
    """Return the character at *position*; the empty string at the very end."""
    characters, index = string(text), integer(position)
    _within(index, len(characters))
    return characters[index : index + 1]


def index_of(text: object, part: object, start: object = 0) -> int:
    """Where *part* first occurs at or after *start*, or -1, also beyond the end (as in Cerbos 0.55)."""
    whole, sought, first = string(text), string(part), integer(start)
    if first < 0:
        raise EvaluationError(f"index out of range: {first}")
    return whole.find(sought, min(first, len(whole)))


def last_index_of(text: object, part: object, start: object = None) -> int:
    """Where *part* last begins at or before *start*, or -1, also beyond the end (as in Cerbos 0.55)."""
    whole, sought = string(text), string(part)
    last = len(whole) if start is None else integer(start)
    if last < 0:
        raise EvaluationError(f"index out of range: {last}")
    if start is not None and last >= len(whole) and sought:
        return -1
    return whole.rfind(sought, 0, last + len(sought))


def lower_ascii(text: object) -> str:
    """*text* with A to Z in lower case, and nothing else changed."""
    return string(text).translate(ASCII_LOWER)


def upper_ascii(text: object) -> str:
    """*text* with a to z in upper case, and nothing else changed."""
    return string(text).translate(ASCII_UPPER)


def replace(text: object, old: object, new: object, count: object = -1) -> str:
    """Replace the first *count* occurrences of *old* by *new* (all, when *count* is negative)."""
    whole, sought, substitute = string(text), string(old), string(new)
    limit = max(integer(count), -1)
    if len(substitute) > len(sought):
        occurrences = whole.count(sought) if limit < 0 else min(whole.count(sought), limit)
        bounded_text(len(whole) + occurrences * (len(substitute) - len(sought)))
    return whole.replace(sought, substitute, limit)


def split(text: object, separator: object, limit: object = -1) -> list[str]:
    """Return the parts between separators, at most *limit* of them unless that is negative."""
    whole, divider, most = string(text), string(separator), integer(limit)
    if most == 0:
        return []
    bounded_list(whole.count(divider) if most < 0 else min(whole.count(divider), most))
    if divider:
        return whole.split(divider, most - 1 if most > 0 else -1)
    return list(whole) if most < 0 or most >= len(whole) else [*whole[: most - 1], whole[most - 1 :]]


def substring(text: object, start: object, end: object = None) -> str:
    """Return the characters from *start* up to but not including *end* (the end of *text* by default)."""
    whole, first = string(text), integer(start)
    last = len(whole) if end is None else integer(end)
    if end is not None and first > last:
        raise EvaluationError(f"invalid substring range. start: {first}, end: {last}")
    _within(first, len(whole))
    _within(last, len(whole))
    return whole[first:last]


def _within(index: int, size: int) -> None:
    if not 0 <= index <= size:
        raise EvaluationError(f"index out of range: {index}")


def trim(text: object) -> str:
    """*text* without white space at its ends."""
    return string(text).strip(WHITE_SPACE)


def join(parts: object, separator: object = "") -> str:
    """Return the strings of a list, one after the other, with *separator* between them."""
    pieces, divider = _pieces(elements(parts)), string(separator)
    bounded_text(sum(map(len, pieces)) + len(divider) * len(pieces))
    return divider.join(pieces)


def _pieces(parts: Sequence[Any]) -> Sequence[str]:
    for part in parts:
        if type(part) is not str:
            raise EvaluationError(f"join: invalid input: {part}")
    return parts


def quote(text: object) -> str:
    """*text* in double quotes, its control characters, quotes and backslashes escaped."""
    return f'"{QUOTED.sub(lambda found: QUOTES[found[0]], string(text))}"'


FUNCTIONS: Mapping[str, Callable[..., Any]] = {
    "contains": contains,
    "startsWith": starts_with,
    "endsWith": ends_with,
    "charAt": char_at,
    "indexOf": index_of,
    "lastIndexOf": last_index_of,
    "lowerAscii": lower_ascii,
    "upperAscii": upper_ascii,
    "replace": replace,
    "split": split,
    "substring": substring,
    "trim": trim,
    "join": join,
    "strings.quote": quote,
}
