"""CEL values as JSON: what an output expression says, as Cerbos puts it into an answer.

Integers beyond what a double holds exactly become decimal text, timestamps and durations their text form,
bytes base64, records (``R``, ``P``, ``request``) objects without their empty fields, an optional what it
holds. What JSON has no place for is an error of the output entry, worded as in cel-go.
"""

from __future__ import annotations

import base64
import math
from typing import TYPE_CHECKING, Any

from engine.cel import Duration, EvaluationError, Optional, RecordValue, Timestamp, TypeValue, UInt
from engine.cel.library.hierarchy import Hierarchy
from engine.cel.library.spiffe import Matcher, SpiffeID, TrustDomain
from engine.cel.values import MixedMap
from engine.document import snake_case

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from engine.model import JsonValue

EXACT = 2**53 - 1
"""The largest integer of which a double holds every smaller one."""

DEEPEST = 64
"""How deep an output may nest."""


def to_json(value: object, depth: int = 0) -> JsonValue:
    """Convert the result of an expression to a JSON value.

    Raises:
        EvaluationError: the value, or a part of it, has no JSON form.

    """
    kind = type(value)
    if kind in _AS_THEY_ARE:
        return value
    convert = _CONVERSIONS.get(kind)
    if convert is None:
        raise EvaluationError(_refusal(value))
    if depth >= DEEPEST:
        raise EvaluationError(f"the output is nested deeper than {DEEPEST} levels")
    return convert(value, depth)


def _number(value: float, _depth: int) -> float:
    if math.isfinite(value):
        return value
    raise EvaluationError(f"the number {value} has no JSON form")


def _integer(value: int, _depth: int) -> float | str:
    return float(value) if -EXACT <= value <= EXACT else str(int(value))


def _bytes(value: bytes, _depth: int) -> str:
    return base64.b64encode(value).decode("ascii")


def _text(value: object, _depth: int) -> str:
    return str(value)


def _optional(value: Optional, depth: int) -> JsonValue:
    return to_json(value.value, depth + 1)


def _list(value: list[Any], depth: int) -> list[JsonValue]:
    return [to_json(item, depth + 1) for item in value]


def _mapping(value: Mapping[Any, Any], depth: int) -> dict[str, JsonValue]:
    converted = {}
    for key, item in value.items():
        if type(key) is not str:
            raise EvaluationError(_KEY_REFUSALS.get(type(key), "the key of a map is not a string"))
        converted[key] = item if type(item) in _AS_THEY_ARE else to_json(item, depth + 1)
    return converted


def _record(value: RecordValue, depth: int) -> dict[str, JsonValue]:
    camel = [name for name in value if not _is_alias(name, value)]
    fields = {name: to_json(value[name], depth + 1) for name in camel}
    return {name: item for name, item in fields.items() if item not in ("", [], {}, None)}


def _is_alias(name: str, record: RecordValue) -> bool:
    return "_" in name and any(other != name and snake_case(other) == name for other in record)


def _refusal(value: object) -> str:
    kind = type(value)
    if kind is TypeValue:
        return "type conversion not supported for 'type'"
    name = _NATIVE_NAMES.get(kind)
    if name is not None:
        return f"unsupported native conversion from {name} to '*structpb.Value'"
    return "unsupported type conversion to '*structpb.Value'"


_NATIVE_NAMES: Mapping[type, str] = {
    Hierarchy: "hierarchy",
    Matcher: "SPIFFEMatcher",
    SpiffeID: "SPIFFEID",
    TrustDomain: "SPIFFETrustDomain",
}
"""What Cerbos calls the types of its own library."""

_KEY_REFUSALS: Mapping[type, str] = {
    bool: "type conversion error from bool to 'string'",
    int: "unsupported type conversion from 'int' to string",
    UInt: "unsupported type conversion from 'uint' to string",
}

_AS_THEY_ARE = frozenset((str, bool, type(None)))

_CONVERSIONS: Mapping[type, Callable[[Any, int], JsonValue]] = {
    float: _number,
    int: _integer,
    UInt: _integer,
    bytes: _bytes,
    Timestamp: _text,
    Duration: _text,
    MixedMap: _mapping,
    Optional: _optional,
    list: _list,
    dict: _mapping,
    RecordValue: _record,
}
