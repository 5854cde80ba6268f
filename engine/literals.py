"""CEL values as CEL text: what is printed can be typed in again, and shows its type.

``2`` is an int, ``2.0`` a double, ``2u`` a uint; a timestamp is a call of ``timestamp``. Short values stand
in one line, long ones in several.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from engine.cel import Duration, Optional, RecordValue, Timestamp, TypeValue, UInt

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

WIDTH = 80
"""Longer lists and maps are broken into lines."""

DEEPEST = 64
"""What is nested deeper is left out."""


def literal(value: object, *, indent: str = "", depth: int = 0) -> str:
    """Return *value* as CEL text; lines after the first begin with *indent*."""
    if depth > DEEPEST:
        return "..."
    if isinstance(value, (list, tuple)):
        inner = f"{indent}  "
        return _enclosed("[]", (literal(item, indent=inner, depth=depth + 1) for item in value), indent)
    if isinstance(value, (Mapping, RecordValue)):
        return _enclosed("{}", _entries(value, f"{indent}  ", depth + 1), indent)
    write = _WRITTEN.get(type(value))
    return f"<{type(value).__name__.lower()} {quoted(str(value))}>" if write is None else write(value)


def quoted(text: str) -> str:
    """Return *text* between quotes, every character that is not plain ink escaped."""
    written = json.dumps(text, ensure_ascii=False)
    return "".join(
        character if character.isprintable() else f"\\U{ord(character):08x}" for character in written
    )


def _entries(value: Mapping[Any, Any] | RecordValue, indent: str, depth: int) -> Iterable[str]:
    for key in value:
        item = value[key]
        if isinstance(value, RecordValue) and ("_" in key or item in ("", [], {})):
            continue  # the other spelling of a field, or one that is not set
        yield f"{literal(key)}: {literal(item, indent=indent, depth=depth)}"


def _enclosed(brackets: str, items: Iterable[str], indent: str) -> str:
    written = list(items)
    line = f"{brackets[0]}{', '.join(written)}{brackets[1]}"
    if len(indent) + len(line) <= WIDTH and "\n" not in line:
        return line
    lines = ",\n".join(f"{indent}  {item}" for item in written)
    return f"{brackets[0]}\n{lines}\n{indent}{brackets[1]}"


def _double(value: float) -> str:
    if math.isfinite(value):
        return repr(value)
    return f'double("{"NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"}")'


def _bytes(value: bytes) -> str:
    return 'b"' + "".join(map(_byte, value)) + '"'


def _byte(value: int) -> str:
    return chr(value) if 0x20 <= value < 0x7F and chr(value) not in '"\\' else f"\\x{value:02x}"


def _optional(value: Optional) -> str:
    return f"optional.of({literal(value.value)})" if value.has_value else "optional.none()"


_WRITTEN: Mapping[type, Callable[[Any], str]] = {
    type(None): lambda _: "null",
    bool: lambda value: str(value).lower(),
    int: str,
    UInt: lambda value: f"{int(value)}u",
    float: _double,
    str: quoted,
    bytes: _bytes,
    Timestamp: lambda value: f'timestamp("{value}")',
    Duration: lambda value: f'duration("{value}")',
    Optional: _optional,
    TypeValue: str,
}
