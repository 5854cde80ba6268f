"""Patterns for actions, roles and kinds, as in Cerbos: ``*`` stops at ``:``, ``**`` does not.

``?`` is one character but ``:``, ``[abc]``, ``[!abc]`` and ``[a-z]`` are one of a set, ``{a,b}`` is one of
several patterns, a backslash takes the next character as it is. The pattern ``*`` alone matches everything. A
pattern that is not well formed matches nothing.

Patterns become RE2 expressions, whose time is linear in the length of hostile input.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import lru_cache

import re2  # type: ignore[import-untyped]  # ships no types

Matcher = Callable[[str], bool]

SEPARATOR = ":"
_ANY = ".*"
_RUN = f"[^{SEPARATOR}]*"
_ONE = f"[^{SEPARATOR}]"


def is_glob(pattern: str) -> bool:
    """Tell whether rules treat *pattern* as a glob: only with a ``*`` in it; ``vie?`` is a literal there."""
    return "*" in pattern


def is_literal(pattern: str) -> bool:
    """Tell whether *pattern* can only match itself, wherever it stands."""
    return not any(character in pattern for character in "*?[{\\")


def matcher(pattern: str) -> Matcher:
    """Return a function that tells whether a whole string matches the glob *pattern*."""
    if pattern in ("*", "**"):
        return _everything
    if is_literal(pattern):
        return pattern.__eq__
    return _compiled(pattern)


def rule_matcher(pattern: str) -> Matcher:
    """Return the matcher of an entry of ``actions``, ``roles`` or ``resource``: a glob only with a ``*``."""
    return matcher(pattern) if is_glob(pattern) else pattern.__eq__


def is_valid(pattern: str) -> bool:
    """Tell whether *pattern* is well formed as a glob; one that is not matches nothing."""
    return matcher(pattern) is not _nothing


def _everything(_text: str) -> bool:
    return True


def _nothing(_text: str) -> bool:
    return False


@lru_cache(maxsize=4096)
def _compiled(pattern: str) -> Matcher:
    try:
        expression = re2.compile(f"(?s){_Translator(pattern).translate()}", _options())
    except (re2.error, ValueError):
        return _nothing

    def matches(text: str) -> bool:
        try:
            return expression.fullmatch(text) is not None
        except UnicodeEncodeError:  # a lone surrogate cannot be part of any pattern
            return False

    return matches


def _options() -> re2.Options:
    options = re2.Options()
    options.log_errors = False
    return options


def _literal(character: str) -> str:
    return re.escape(character)


class _Translator:
    """Turns one glob into a regular expression, character by character."""

    def __init__(self, pattern: str) -> None:
        self._pattern = pattern
        self._position = 0
        self._open_groups = 0

    def translate(self) -> str:
        parts = []
        while self._position < len(self._pattern):
            parts.append(self._next())
        if self._open_groups:
            raise ValueError("`{` without `}`")
        return "".join(parts)

    def _next(self) -> str:
        character = self._take()
        if character == "*":
            return self._star()
        if character == "?":
            return _ONE
        if character == "[":
            return self._set()
        if character == "\\":
            return _literal(self._take())
        if character in "{},":
            return self._group(character)
        return _literal(character)

    def _take(self) -> str:
        if self._position >= len(self._pattern):
            raise ValueError("the pattern ends too early")
        self._position += 1
        return self._pattern[self._position - 1]

    def _star(self) -> str:
        if self._pattern.startswith("*", self._position):
            self._position += 1
            return _ANY
        return _RUN

    def _group(self, character: str) -> str:
        if character == "{":
            self._open_groups += 1
            return "(?:"
        if not self._open_groups:
            if character == ",":
                return ","
            raise ValueError("`}` without `{`")
        if character == ",":
            return "|"
        self._open_groups -= 1
        return ")"

    def _set(self) -> str:
        negated = self._pattern.startswith("!", self._position)
        self._position += negated
        members = []
        while (character := self._take()) != "]":
            members.append(self._member(character))
        if not members:
            raise ValueError("an empty set")
        return f"[{'^' if negated else ''}{''.join(members)}]"

    def _member(self, character: str) -> str:
        low = self._take() if character == "\\" else character
        is_range = self._pattern.startswith("-", self._position) and not self._pattern.startswith(
            "-]", self._position
        )
        if not is_range:
            return _literal(low)
        self._position += 1
        high = self._take()
        if high < low:
            raise ValueError("a range that runs backwards")
        return f"{_literal(low)}-{_literal(high)}"
