"""Base64 and JSON: the ``encoders`` extension of cel-go."""

from __future__ import annotations

import base64
import json
import math
import re
from collections.abc import Callable, Mapping, Sequence
from decimal import Decimal
from typing import Any

from engine.cel.library.arguments import bounded_text, string
from engine.cel.library.declaration import Declaration
from engine.cel.runtime import type_name
from engine.cel.values import (
    Duration,
    EvaluationError,
    NoSuchOverload,
    Optional,
    RecordValue,
    Timestamp,
    UInt,
)

BASE64 = re.compile(r"(?:[A-Za-z0-9+/]{4})*(?:[A-Za-z0-9+/]{2}(?:==)?|[A-Za-z0-9+/]{3}=?)?")
"""Base64 of RFC 4648, section 4, with all of its padding or with none."""

LINE_BREAKS = {ord("\r"): None, ord("\n"): None}

EXACT_INTEGERS = 2**53
"""From here on a double cannot tell integers apart; the JSON form of protobuf writes them as strings."""

ESCAPES = str.maketrans({character: f"\\u{ord(character):04x}" for character in "<>&\u2028\u2029"})
"""What Go escapes in JSON beyond the standard, so that it can stand in HTML and JavaScript."""


def encode_base64(data: object) -> str:
    """Return *data* (bytes) in base64."""
    if type(data) is not bytes:
        raise NoSuchOverload
    return base64.b64encode(data).decode()


def decode_base64(text: object) -> bytes:
    """Return the bytes that *text* stands for; padding may be missing, line breaks do not count."""
    digits = string(text).translate(LINE_BREAKS)
    if not BASE64.fullmatch(digits):
        raise EvaluationError("illegal base64 data")
    return base64.b64decode(digits + "=" * (-len(digits) % 4))


def encode_json(value: object) -> str:
    """*value* as JSON without spaces, names in order: protobuf's JSON form of a ``google.protobuf.Value``."""
    pieces = _Pieces()
    _write(value, pieces)
    return "".join(pieces)


class _Pieces(list[str]):
    """Parts of a text that must not become too long."""

    size = 0

    def append(self, piece: str) -> None:
        """Add a part, or refuse when the whole is too long."""
        self.size += len(piece)
        bounded_text(self.size)
        super().append(piece)


def _write(value: Any, pieces: list[str]) -> None:
    write = WRITERS.get(type(value))
    if write is not None:
        pieces.append(write(value))
    elif isinstance(value, (list, tuple)):
        _write_list(value, pieces)
    elif isinstance(value, Mapping):
        _write_object({_name(key): item for key, item in value.items()}, pieces)
    elif isinstance(value, RecordValue):
        _write_object(
            {field: value[field] for field in value if value.has(field) and "_" not in field}, pieces
        )
    elif isinstance(value, Optional):
        _write(value.value, pieces)
    else:
        raise EvaluationError(f"unsupported type conversion from '{type_name(value)}' to JSON")


def _write_list(values: Sequence[Any], pieces: list[str]) -> None:
    pieces.append("[")
    for position, value in enumerate(values):
        if position:
            pieces.append(",")
        _write(value, pieces)
    pieces.append("]")


def _write_object(members: Mapping[str, Any], pieces: list[str]) -> None:
    pieces.append("{")
    for position, name in enumerate(sorted(members)):
        pieces.append(f"{',' if position else ''}{_text(name)}:")
        _write(members[name], pieces)
    pieces.append("}")


def _name(key: object) -> str:
    if type(key) is not str:
        raise EvaluationError(f"unsupported type conversion from '{type_name(key)}' to string")
    return key


def _text(value: str) -> str:
    return json.dumps(value, ensure_ascii=False).translate(ESCAPES)


def _integer(value: int) -> str:
    return int.__repr__(value) if abs(value) < EXACT_INTEGERS else f'"{int.__repr__(value)}"'


def _double(value: float) -> str:
    """Return the shortest form, with an exponent where JavaScript writes one: below 1e-6 and from 1e21 on."""
    if not math.isfinite(value):
        raise EvaluationError(f"proto: google.protobuf.Value.number_value: invalid {value} value")
    if value and not 1e-6 <= abs(value) < 1e21:
        return repr(value).replace("e-0", "e-")
    return f"{Decimal(repr(value)):f}".removesuffix(".0")


WRITERS: Mapping[type, Callable[[Any], str]] = {
    type(None): lambda _: "null",
    bool: lambda value: "true" if value else "false",
    int: _integer,
    UInt: _integer,
    float: _double,
    str: _text,
    bytes: lambda value: f'"{encode_base64(value)}"',
    Timestamp: lambda value: f'"{value}"',
    Duration: lambda value: f'"{value}"',
}

FUNCTIONS: Mapping[str, Callable[..., Any]] = {
    "base64.encode": encode_base64,
    "base64.decode": decode_base64,
    "json.encode": encode_json,
}

DECLARATIONS: tuple[Declaration, ...] = (Declaration("json.encode", "json_encode_dyn", ("dyn",), "string"),)
