"""Compiled expressions as bytes, for a disk or another process, and back.

Python's ``marshal`` does the work: it knows code objects and plain values. What else an expression is bound
to (timestamps, patterns, the fields of records) is written as what it is made of. An expression that is bound
to anything unknown has no such form, and is compiled wherever it is needed.

``marshal`` must never read what anybody else can have written, and the bytes are good only for the version
of Python, and of this package, that wrote them: whoever keeps them sees to that.
"""

from __future__ import annotations

import marshal
import types
from typing import TYPE_CHECKING, Any

from engine.cel.library import regex
from engine.cel.values import Duration, Timestamp, TypeValue, UInt

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from engine.cel.records import Reader

Parts = tuple[types.CodeType, tuple[object, ...], str, frozenset[str], frozenset[tuple[str, ...]], bool]
"""Code, constants, type of the result, identifiers, references, whether the time is asked for."""

PLAIN = frozenset((bool, int, float, str, bytes, type(None)))


def packed(parts: Parts, readers: Mapping[str, Mapping[str, Reader]]) -> bytes | None:
    """Return the *parts* of a compiled expression as bytes, ``None`` if they have no such form."""
    code, constants, *rest = parts
    written = [_written(constant, readers) for constant in constants]
    if None in written:
        return None
    form: Any = (code, written, *rest)
    return marshal.dumps(form)


def unpacked(data: bytes | memoryview, readers: Mapping[str, Mapping[str, Reader]]) -> Parts:
    """Return what was :func:`packed`, equal to what it was.

    Raises:
        Exception: of any kind, if *data* is something else.

    """
    code, written, result_type, identifiers, references, uses_now = marshal.loads(data)  # noqa: S302 - see above
    constants = tuple([_READ[kind](value, readers) for kind, value in written])
    if type(code) is not types.CodeType:
        raise TypeError("no code")
    return code, constants, result_type, identifiers, references, uses_now


def _written(value: object, readers: Mapping[str, Mapping[str, Reader]]) -> tuple[str, object] | None:
    kind = type(value)
    if kind in PLAIN:
        return "plain", value
    if kind is frozenset:
        return "plain", value  # of the indexes of what is optional in a literal
    write = _WRITE.get(kind)
    if write is not None:
        return write(value)
    pattern = regex.pattern_of(value)
    if pattern is not None:
        return "matches", pattern
    return next((("record", name) for name, fields in readers.items() if fields is value), None)


_WRITE: Mapping[type, Callable[[Any], tuple[str, object]]] = {
    UInt: lambda value: ("uint", int(value)),
    Timestamp: lambda value: ("timestamp", (value.nanoseconds, value.offset)),
    Duration: lambda value: ("duration", value.nanoseconds),
    TypeValue: lambda value: ("type", value.name),
}

_READ: Mapping[str, Callable[[Any, Mapping[str, Mapping[str, Reader]]], object]] = {
    "plain": lambda value, _: value,
    "uint": lambda value, _: UInt(value),
    "timestamp": lambda value, _: Timestamp(*value),
    "duration": lambda value, _: Duration(value),
    "type": lambda value, _: TypeValue(value),
    "matches": lambda value, _: regex.literal(value),
    "record": lambda value, readers: readers[value],
}
