"""Regular expressions: ``matches`` and the ``regex`` extension of cel-go, on RE2 and so in linear time.

Texts are matched as UTF-8: RE2 works on bytes, and encoding them once is much of the cost of a match.
"""

from __future__ import annotations

import functools
import itertools
import re
import types
import weakref
from typing import TYPE_CHECKING, Any

import re2  # type: ignore[import-untyped]  # google-re2 ships no type hints

from engine.cel.library.arguments import bounded_list, bounded_text, integer, string
from engine.cel.values import NONE, EvaluationError, NoSuchOverload, Optional

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping

MAX_PATTERN = 10_000
"""Characters of a pattern; more is refused. Patterns are code, but a policy may take one from a request."""

CACHED_PATTERNS = 256
PATTERN_MEMORY = 2 << 20
"""Bytes one compiled pattern may use (``max_mem`` of RE2); it bounds the time of compiling as well."""

MAX_SCANNED = 200_000_000
"""Bytes that finding all matches may read: each match may look ahead to the end, which is quadratic."""

TEMPLATE_PART = re.compile(r"(?P<literal>[^\\]+)|\\.?", re.DOTALL)

ANY_BYTE = re.compile(r"(?<!\\)(?:\\\\)*\\C")
"""RE2's ``\\C``, which Go refuses: it would take characters apart."""

PLAIN_PATTERN = re.compile(r"(\^?)([\w /:@,;=!#%&~<>'\"-]*)(\$?)")
"""A pattern without operators, perhaps anchored: a comparison of strings does the same, much faster."""

PLAIN_MATCHERS: Mapping[tuple[bool, bool], Callable[[str, str], bool]] = {
    (False, False): str.__contains__,
    (True, False): str.startswith,
    (False, True): str.endswith,
    (True, True): str.__eq__,
}
"""How to look for a plain pattern, by whether it starts with ``^`` and ends with ``$``."""

Pattern = Any
"""A compiled pattern; google-re2 has no type hints."""


def _options() -> Any:
    options = re2.Options()
    options.log_errors = False
    options.max_mem = PATTERN_MEMORY
    return options


def compiled(pattern: str) -> Pattern:
    """*pattern* as RE2 has it; raises :class:`EvaluationError` when it is none."""
    found = _outcome(pattern)
    if isinstance(found, str):
        raise EvaluationError(f"error parsing regexp: {found}")
    return found


@functools.lru_cache(maxsize=CACHED_PATTERNS)
def _outcome(pattern: str) -> Pattern:
    """Compile *pattern*, or say why it is none: finding that out again would cost the same each time."""
    if len(pattern) > MAX_PATTERN:
        return f"pattern of {len(pattern)} characters is too long"
    if ANY_BYTE.search(pattern):
        return "invalid escape sequence: \\C"
    try:
        return re2.compile(pattern, _options())
    except re2.error as error:
        return _reason(error)


def _reason(error: Exception) -> str:
    reason = error.args[0] if error.args else "not a regular expression"
    return reason.decode("utf-8", "replace") if isinstance(reason, bytes) else str(reason)


@functools.lru_cache(maxsize=CACHED_PATTERNS)
def matcher(pattern: str) -> Callable[[str], bool]:
    """Return a function that tells whether *pattern* is found in a text; raises :class:`EvaluationError`."""
    plain = PLAIN_PATTERN.fullmatch(pattern)
    if plain is None:
        return _searching(compiled(pattern))
    start, text, end = plain.groups()
    look = PLAIN_MATCHERS[bool(start), bool(end)]
    return lambda subject: look(subject, text)


_patterns: weakref.WeakKeyDictionary[Callable[[str], bool], str] = weakref.WeakKeyDictionary()


def literal(pattern: str) -> Callable[[str], bool]:
    """Return the :func:`matcher` of a pattern, which :func:`pattern_of` can tell."""
    made = matcher(pattern)
    _patterns[made] = pattern
    return made


def pattern_of(made: object) -> str | None:
    """Return the pattern that a function of :func:`literal` looks for, ``None`` if it is none."""
    return _patterns.get(made) if isinstance(made, types.FunctionType) else None


def _searching(pattern: Pattern) -> Callable[[str], bool]:
    search = pattern.search
    return lambda subject: search(subject.encode()) is not None


def matches(text: object, pattern: object) -> bool:
    """Whether *pattern* is found anywhere in *text*."""
    if type(text) is not str or type(pattern) is not str:
        raise NoSuchOverload
    return matcher(pattern)(text)


def _found(pattern: Pattern, text: bytes) -> Iterator[Any]:
    """All matches from left to right; an empty one right after the last does not count, as in Go."""
    end, work = -1, 0
    for match in pattern.finditer(text):
        work += len(text) - match.start()
        if work > MAX_SCANNED:
            raise EvaluationError(f"matching {len(text)} bytes takes too long")
        start = match.start()
        if start == match.end() and (start == end or _inside_character(text, start)):
            continue
        end = match.end()
        yield match


def _inside_character(text: bytes, position: int) -> bool:
    return position < len(text) and text[position] & 0xC0 == 0x80


def replace(text: object, pattern: object, replacement: object, count: object = -1) -> str:
    r"""*text* with the first *count* matches of *pattern* replaced (all, when *count* is negative).

    In *replacement* ``\0`` to ``\9`` stand for the match and its groups, ``\\`` for a backslash.
    """
    subject, limit = string(text), integer(count)
    source, template = string(pattern), string(replacement)
    if limit == 0:
        return subject
    expression = compiled(source)
    matches = itertools.islice(_found(expression, subject.encode()), limit if limit > 0 else None)
    return _replaced(subject.encode(), matches, template, expression.groups)


def _replaced(text: bytes, matches: Iterable[Any], template: str, groups: int) -> str:
    pieces: list[bytes] = []
    position, size = 0, 0
    for match in matches:
        piece = _expanded(_template_parts(template, groups), match)
        pieces += text[position : match.start()], piece
        position, size = match.end(), size + len(piece)
        bounded_text(size)
    return b"".join((*pieces, text[position:])).decode()


def _expanded(parts: tuple[bytes | int, ...], match: Any) -> bytes:
    return b"".join([part if isinstance(part, bytes) else match[part] or b"" for part in parts])


@functools.lru_cache(maxsize=CACHED_PATTERNS)
def _template_parts(template: str, groups: int) -> tuple[bytes | int, ...]:
    """*template* as texts and group numbers; raises :class:`EvaluationError` for a reference to no group."""
    return tuple([_template_part(template, found, groups) for found in TEMPLATE_PART.finditer(template)])


def _template_part(template: str, found: re.Match[str], groups: int) -> bytes | int:
    part = found[0]
    if found.lastgroup == "literal":
        return part.encode()
    if part == "\\\\":
        return b"\\"
    if part == "\\":
        raise EvaluationError(f"invalid replacement string: '{template}' \\ not allowed at end")
    if part[1] not in "0123456789":
        raise EvaluationError(
            f"invalid replacement string: '{template}' \\ must be followed by a digit or \\"
        )
    if int(part[1]) > groups:
        raise EvaluationError(
            f"replacement string references group {part[1]} but regex has only {groups} group(s)"
        )
    return int(part[1])


def extract(text: object, pattern: object) -> Optional:
    """Return the first match of *pattern*, or of its group when it has one; none for an empty group."""
    subject, expression = string(text), _with_one_group(pattern)
    match = expression.search(subject.encode())
    if match is None:
        return NONE
    if not expression.groups:
        return Optional.of(match[0].decode())
    return Optional.of(match[1].decode()) if match[1] else NONE


def extract_all(text: object, pattern: object) -> list[str]:
    """All matches of *pattern* in *text*, or of its group when it has one; an empty group is left out."""
    raw, expression = string(text).encode(), _with_one_group(pattern)
    group = expression.groups
    found = [match[group] for match in _found(expression, raw) if match[group] or not group]
    bounded_list(len(found))
    return [part.decode() for part in found]


def _with_one_group(pattern: object) -> Pattern:
    expression = compiled(string(pattern))
    if expression.groups > 1:
        raise EvaluationError(f'regular expression has more than one capturing group: "{pattern}"')
    return expression


FUNCTIONS: Mapping[str, Callable[..., Any]] = {
    "matches": matches,
    "regex.replace": replace,
    "regex.extract": extract,
    "regex.extractAll": extract_all,
}
