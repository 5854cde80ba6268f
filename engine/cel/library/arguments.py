"""Checks of arguments at run time.

The checker has seen to it that arguments fit an overload, except for ``dyn`` ones, which can be anything.
These functions return the argument typed, or raise :class:`NoSuchOverload`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from engine.cel.values import EvaluationError, NoSuchOverload

MAX_TEXT = 4_000_000
"""Characters (or bytes) that a function may return at most, so that request data cannot blow them up."""

MAX_ELEMENTS = 1_000_000
"""Elements of a list that a function may return at most (the limit of ``lists.range`` in Cerbos 0.55)."""


def string(value: object) -> str:
    """Return the argument as a CEL string."""
    if type(value) is not str:
        raise NoSuchOverload
    return value


def integer(value: object) -> int:
    """Return the argument as a CEL int: neither a bool nor a uint, which Python takes for ints."""
    if type(value) is not int:
        raise NoSuchOverload
    return value


def double(value: object) -> float:
    """Return the argument as a CEL double."""
    if type(value) is not float:
        raise NoSuchOverload
    return value


def elements(value: object) -> Sequence[Any]:
    """Return the argument as a CEL list; tuples are lists that our own records hold."""
    kind = type(value)
    if kind is list or kind is tuple:
        return value  # type: ignore[return-value]  # mypy does not narrow by `type(value)` in a variable
    raise NoSuchOverload


def strings(value: object) -> Sequence[str]:
    """Return the argument as a list of strings."""
    items = elements(value)
    if any(type(item) is not str for item in items):
        raise NoSuchOverload
    return items


def mapping(value: object) -> Mapping[Any, Any]:
    """Return the argument as a CEL map."""
    if not isinstance(value, Mapping):
        raise NoSuchOverload
    return value


def bounded_text(size: int) -> None:
    """Refuse to build a text of *size* characters when that is beyond :data:`MAX_TEXT`."""
    if size > MAX_TEXT:
        raise EvaluationError(f"result of {size} characters exceeds the maximum of {MAX_TEXT}")


def bounded_list(size: int) -> None:
    """Refuse to build a list of *size* elements when that is beyond :data:`MAX_ELEMENTS`."""
    if size > MAX_ELEMENTS:
        raise EvaluationError(f"result of {size} elements exceeds the maximum of {MAX_ELEMENTS}")
