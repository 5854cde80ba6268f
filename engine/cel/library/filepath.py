"""Go's lexical file paths, with ``/`` as the separator: the rules of ``path/filepath`` on Unix.

Python's ``posixpath`` differs: it keeps two leading slashes, and its ``fnmatch`` lets ``*`` cross a ``/``.
"""

from __future__ import annotations

import functools
import re
from typing import Any

import re2  # type: ignore[import-untyped]  # google-re2 ships no type hints

CACHED_GLOBS = 512

CHARACTER_CLASS = re.compile(r"\[(\^?)((?:[^\]-](?:-[^\]-])?)+)\]", re.DOTALL)
CHARACTER_RANGE = re.compile(r"([^\]-])(?:-([^\]-]))?", re.DOTALL)
ANY_CHARACTER, NO_CHARACTER = r"[\x00-\x{10FFFF}]", r"[^\x00-\x{10FFFF}]"


class BadPatternError(ValueError):
    """A glob is malformed."""

    def __init__(self) -> None:
        super().__init__("syntax error in pattern")


class UnrelatedError(ValueError):
    """There is no way from one path to the other without knowing the working directory."""


def clean(path: str) -> str:
    """Return the shortest path that means the same: no empty or ``.`` elements, ``..`` resolved."""
    if _is_clean(path):
        return path
    rooted, kept = path.startswith("/"), list[str]()
    for element in path.split("/"):
        if element in {"", "."}:
            continue
        if element != "..":
            kept.append(element)
        elif kept and kept[-1] != "..":
            kept.pop()
        elif not rooted:
            kept.append(element)
    return "/" + "/".join(kept) if rooted else "/".join(kept) or "."


def _is_clean(path: str) -> bool:
    """Whether *path* has obviously nothing to clean, as nearly all paths."""
    return path[:1] not in {"", "."} and "//" not in path and "/." not in path and not path.endswith("/")


def base(path: str) -> str:
    """Return the last element, ``.`` of the empty path, ``/`` of the root."""
    return path.rstrip("/").rpartition("/")[2] or ("/" if path else ".")


def directory(path: str) -> str:
    """All but the last element, cleaned."""
    before, slash, _ = path.rpartition("/")
    return clean(before + slash)


def extension(path: str) -> str:
    """Return what follows the last dot of the last element, with the dot."""
    _, dot, after = path.rpartition("/")[2].rpartition(".")
    return dot + after if dot else ""


def join(*elements: str) -> str:
    """Return the elements one below the other, empty ones left out, cleaned; empty when nothing is left."""
    kept = [element for element in elements if element]
    return clean("/".join(kept)) if kept else ""


def relative(start: str, target: str) -> str:
    """Return the way from *start* to *target*; raises :class:`UnrelatedError`."""
    start, target = clean(start), clean(target)
    here, there = _elements(start), _elements(target)
    shared = sum(1 for _ in _shared(here, there))
    up = here[shared:]
    if start.startswith("/") != target.startswith("/") or ".." in up[:1]:
        raise UnrelatedError(f"Rel: can't make {target} relative to {start}")
    return "/".join([".."] * len(up) + there[shared:]) or "."


def _elements(path: str) -> list[str]:
    return [element for element in path.split("/") if element not in {"", "."}]


def _shared(here: list[str], there: list[str]) -> Any:
    for one, other in zip(here, there, strict=False):
        if one != other:
            return
        yield one


def matches(pattern: str, path: str) -> bool:
    """Whether the glob *pattern* is all of *path*; its ``*`` and ``?`` stop at a ``/``.

    Raises:
        BadPatternError: *pattern* is malformed.

    """
    return _glob(pattern).fullmatch(path.encode()) is not None


@functools.lru_cache(maxsize=CACHED_GLOBS)
def _glob(pattern: str) -> Any:
    """*pattern* as a regular expression, which RE2 matches in linear time."""
    options = re2.Options()
    options.dot_nl, options.log_errors = True, False
    return re2.compile("".join(_translated(pattern)), options)


def _translated(pattern: str) -> list[str]:
    parts: list[str] = []
    position = 0
    while position < len(pattern):
        character = pattern[position]
        found = CHARACTER_CLASS.match(pattern, position) if character == "[" else None
        parts.append(_class(found) if found else _single(character))
        position = found.end() if found else position + 1
    return parts


def _single(character: str) -> str:
    if character == "[":
        raise BadPatternError
    return {"*": "[^/]*", "?": "[^/]"}.get(character) or str(re2.escape(character))


def _class(found: re.Match[str]) -> str:
    ranges = [(part[1], part[2] or part[1]) for part in CHARACTER_RANGE.finditer(found[2])]
    # A range from high to low holds nothing in a glob; in a regular expression it is an error.
    held = "".join(f"{_code(low)}-{_code(high)}" for low, high in ranges if low <= high)
    if not held:
        return ANY_CHARACTER if found[1] else NO_CHARACTER
    return f"[{found[1]}{held}]"


def _code(character: str) -> str:
    return f"\\x{{{ord(character):x}}}"
