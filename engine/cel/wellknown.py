"""Messages of protobuf's well-known types: in CEL they are ordinary values.

``google.protobuf.Int64Value{value: 1}`` is ``1``, ``google.protobuf.Struct{...}`` a map. Other messages
cannot be made in an expression: nothing here has a use for them.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Callable, Mapping
from typing import Any

from engine.cel.values import NANOSECONDS, Duration, EvaluationError, NoSuchOverload, Timestamp, UInt

Fields = Mapping[str, Any]


def make_message(name: str, fields: Fields) -> Any:
    """Return the value of a message literal; *name* is one of :data:`MESSAGES`."""
    return MESSAGES[name](fields)


def _wrapper(python_class: type, default: Any, narrow: Callable[[Any], Any]) -> Callable[[Fields], Any]:
    """Return a wrapper message: its only field, or that field's default."""

    def make(fields: Fields) -> Any:
        value = fields.get("value", default)
        if value.__class__ is not python_class:
            raise NoSuchOverload
        return narrow(value)

    return make


def _unchanged(value: Any) -> Any:
    return value


def _int32(value: int) -> int:
    if -(2**31) <= value < 2**31:
        return value
    raise EvaluationError("integer overflow")


def _uint32(value: UInt) -> UInt:
    if value < 2**32:
        return value
    raise EvaluationError("unsigned integer overflow")


def _float32(value: float) -> float:
    """Return the nearest value of single precision; beyond its range, infinity."""
    try:
        return float(struct.unpack("<f", struct.pack("<f", value))[0])
    except OverflowError:
        return math.copysign(math.inf, value)


def _timestamp(fields: Fields) -> Timestamp:
    return Timestamp(_integer(fields, "seconds") * NANOSECONDS + _integer(fields, "nanos"))


def _duration(fields: Fields) -> Duration:
    return Duration(_integer(fields, "seconds") * NANOSECONDS + _integer(fields, "nanos"))


def _integer(fields: Fields, name: str) -> int:
    value = fields.get(name, 0)
    if value.__class__ is not int:
        raise NoSuchOverload
    return int(value)


def _struct(fields: Fields) -> dict[str, Any]:
    return json_map(fields.get("fields", {}))


def _list(fields: Fields) -> list[Any]:
    return json_list(fields.get("values", []))


def _value(fields: Fields) -> Any:
    """``google.protobuf.Value``: null, or the one field that is set."""
    return next((VALUE_FIELDS[name](value) for name, value in fields.items()), None)


def json_list(value: Any) -> list[Any]:
    """Return a list whose elements are JSON values."""
    if value.__class__ is not list:
        raise NoSuchOverload
    return [json_value(item) for item in value]


def json_map(value: Any) -> dict[str, Any]:
    """Return a map from strings to JSON values."""
    if value.__class__ is not dict or any(key.__class__ is not str for key in value):
        raise NoSuchOverload
    return {key: json_value(item) for key, item in value.items()}


def json_value(value: Any) -> Any:
    """Return a CEL value where a ``google.protobuf.Value`` is wanted: numbers become doubles."""
    convert = JSON_FROM.get(value.__class__)
    if convert is None:
        raise NoSuchOverload
    return convert(value)


JSON_FROM: Mapping[type, Callable[[Any], Any]] = {
    type(None): _unchanged,
    bool: _unchanged,
    dict: json_map,
    float: _unchanged,
    int: float,
    list: json_list,
    str: _unchanged,
    UInt: float,
}

VALUE_FIELDS: Mapping[str, Callable[[Any], Any]] = {
    "bool_value": _unchanged,
    "list_value": json_list,
    "null_value": lambda _: None,
    "number_value": _unchanged,
    "string_value": _unchanged,
    "struct_value": json_map,
}

MESSAGES: Mapping[str, Callable[[Fields], Any]] = {
    "google.protobuf.BoolValue": _wrapper(bool, False, _unchanged),
    "google.protobuf.BytesValue": _wrapper(bytes, b"", _unchanged),
    "google.protobuf.DoubleValue": _wrapper(float, 0.0, _unchanged),
    "google.protobuf.Duration": _duration,
    "google.protobuf.FloatValue": _wrapper(float, 0.0, _float32),
    "google.protobuf.Int32Value": _wrapper(int, 0, _int32),
    "google.protobuf.Int64Value": _wrapper(int, 0, _unchanged),
    "google.protobuf.ListValue": _list,
    "google.protobuf.StringValue": _wrapper(str, "", _unchanged),
    "google.protobuf.Struct": _struct,
    "google.protobuf.Timestamp": _timestamp,
    "google.protobuf.UInt32Value": _wrapper(UInt, UInt(0), _uint32),
    "google.protobuf.UInt64Value": _wrapper(UInt, UInt(0), _unchanged),
    "google.protobuf.Value": _value,
}
"""How each message is made of its fields."""
